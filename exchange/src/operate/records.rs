//! `exchange import` and `exchange query`: rows of hosted resources, of dictionaries and mappings are brought in; a row of a resource is
//! asked for by who has an approval.
//!
//! Participants run them. An import that was cut off is run again: what the exchange has answered is answered alike, and no row
//! stands twice.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use client::{Client, Personal, RecordsIngest, RejectedRow, ResourceSearch};
use ring::rand::{SecureRandom as _, SystemRandom};
use schemas::codes::Rule;
use schemas::dictionary::List;
use schemas::resource::Resource;
use schemas::routes::Route;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use verifier::command::{self, EXIT_DONE, EXIT_NO};

use super::rows::{Broken, Format, Found, Listed, Pairs, Rows, Shape, Wrong};
use super::{Caller, json_file, runtime};
use crate::calling;
use crate::exit::Exit;

/// Most rows of one request.
const MAX_ROWS: u16 = 10_000;
/// Most rows of one request of a dictionary.
const MAX_LISTED: u16 = 1_000;
/// Most rows of one request that are erased.
const MAX_ERASED: u16 = 100;
/// Bytes of rows, escapes counted, with which a batch goes out: the route takes 2 MiB, and the last row may be as long as a file's
/// may.
const MAX_BATCH_BYTES: usize = 768 * 1024;
/// How often it is said how far the import is.
const SAID_EVERY: Duration = Duration::from_secs(5);

/// A file that is brought in.
#[derive(Args)]
pub struct Reading {
    /// The file: a JSON object of text values on each line, or CSV with a first line of field keys. UTF-8.
    file: PathBuf,
    /// How the file holds rows [default: by its name, csv or ndjson].
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The file to make with the rows that are not taken [default: they are said on standard error]. One that is there is replaced.
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Bring every row in anew, though the same file was brought in within the last 24 hours: other rows have taken their places since.
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    caller: Caller,
}

/// An import of rows.
#[derive(Args)]
pub struct Import {
    #[command(flatten)]
    reading: Reading,
    /// Code of the resource.
    #[arg(long, value_name = "CODE")]
    resource: String,
    /// Most rows of one request, which is one entry of the log.
    #[arg(long, default_value_t = MAX_ROWS, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_ROWS)))]
    batch: u16,
    /// Erase the rows whose keys the file has, from the disk too: it has the fields of the key alone.
    #[arg(long)]
    erase: bool,
}

/// An import of a dictionary, or of mappings.
#[derive(Args)]
pub struct ImportList {
    #[command(flatten)]
    reading: Reading,
    /// Where the rows are from, in words.
    #[arg(long)]
    source: String,
    /// Most rows of one request, which is one entry of the log.
    #[arg(long, default_value_t = MAX_LISTED, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_LISTED)))]
    batch: u16,
}

/// Asks for a row, of a hosted resource or by a call to its provider, and prints the answer.
///
/// # Errors
/// Like [`Caller::send`].
pub fn query(file: &Path, call: bool, caller: &Caller) -> anyhow::Result<u8> {
    let route = if call { Route::RecordsCall } else { Route::RecordsQuery };
    caller.send_as(caller.named()?, route, &json_file(file)?)
}

/// The place that rows are brought to.
enum Target {
    Resource(Box<Resource>),
    /// Rows of it are erased; it has the fields of its key alone.
    Erased(Box<Resource>),
    List {
        rows: Listed,
        source: String,
    },
}

impl Target {
    fn shape(&self) -> &dyn Shape {
        match self {
            Self::Resource(resource) | Self::Erased(resource) => &**resource,
            Self::List { rows, .. } => rows,
        }
    }

    /// The values that name a row.
    fn key(&self, row: &Pairs) -> Vec<String> {
        let value = |field: &str| row.iter().find(|(key, _)| key == field).map(|(_, value)| value.clone());
        match self {
            Self::Resource(resource) | Self::Erased(resource) => {
                resource.key.iter().filter_map(|field| value(field)).collect()
            }
            Self::List { rows, .. } => rows.list.key().iter().filter_map(|field| value(field)).collect(),
        }
    }

    fn request(
        &self,
        first: u64,
        rows: Vec<BTreeMap<String, Personal>>,
    ) -> serde_json::Result<(Route, Value)> {
        let ingest = |resource: &Resource, rows, erased| {
            let (resource, first_line, removed) = (resource.code.clone(), Some(first), Vec::new());
            let request = RecordsIngest { resource, first_line, rows, removed, erased };
            serde_json::to_value(&request).map(|request| (Route::RecordsIngest, request))
        };
        Ok(match self {
            Self::Resource(resource) => ingest(resource, rows, Vec::new())?,
            Self::Erased(resource) => ingest(resource, Vec::new(), rows)?,
            Self::List { rows: Listed { list, .. }, source } => {
                let request = json!({"list": list, "source": source, "firstLine": first, "rows": rows});
                (Route::ItemsImport, request)
            }
        })
    }
}

/// The fate of a batch.
#[derive(Deserialize)]
struct Taken {
    accepted: u64,
    #[serde(default)]
    erased: u64,
    rejected: u64,
    #[serde(default)]
    rejects: Vec<RejectedRow>,
}

/// Brings the rows of a file in, and prints how many were taken.
///
/// # Errors
/// The file cannot be read or is cut off, or the exchange does not take a batch; the rows before are in.
pub fn import(import: &Import) -> anyhow::Result<u8> {
    let Import { reading, resource: code, batch, erase } = import;
    let batch = if *erase { (*batch).min(MAX_ERASED) } else { *batch };
    brought(reading, batch, "provider", async |client| {
        let (resource, begun) = resource(client, code).await?;
        if !erase {
            return Ok((Target::Resource(Box::new(resource)), begun));
        }
        let fields = resource.fields.iter().filter(|field| resource.key.contains(&field.key)).cloned();
        let fields = fields.collect();
        Ok((Target::Erased(Box::new(Resource { fields, ..resource })), begun))
    })
}

/// Brings a dictionary or mappings in, and prints how many rows were taken.
///
/// # Errors
/// Like [`import`].
pub fn import_list(list: List, import: &ImportList) -> anyhow::Result<u8> {
    let ImportList { reading, source, batch } = import;
    brought(reading, *batch, "operator", async |client| {
        // An entry of now, which tells what an earlier run brought in.
        let search = json!({"list": list, "limit": 1});
        let page = client.call::<Value>(Route::ItemsSearch, &search).await.map_err(calling::ended)?;
        let rows = Listed { list, fields: list.fields() };
        Ok((Target::List { rows, source: source.clone() }, page.receipt.index))
    })
}

/// Brings the rows of a file to a target, which is found with the index of the entry that shows it.
fn brought(
    reading: &Reading,
    batch: u16,
    usual: &str,
    find: impl AsyncFnOnce(&Client) -> anyhow::Result<(Target, u64)>,
) -> anyhow::Result<u8> {
    let named = reading.file.display();
    let unread = |error: io::Error| Exit::usage(format_args!("{named}: {error}"));
    let file = File::open(&reading.file).map_err(unread)?;
    if !file.metadata().map_err(unread)?.is_file() {
        return Err(Exit::usage(format_args!("{named} is no file")));
    }
    let format = reading.format.unwrap_or_else(|| {
        let is_csv = reading.file.extension().is_some_and(|end| end.eq_ignore_ascii_case("csv"));
        if is_csv { Format::Csv } else { Format::Ndjson }
    });
    runtime()?.block_on(async {
        let client = reading.caller.connect(usual).await?;
        let (target, begun) = find(&client).await?;
        let broken = |error: Broken| match error {
            Broken::Io(error) => anyhow::Error::from(error).context(named.to_string()),
            Broken::Line { .. } => Exit { status: EXIT_NO, message: format!("{named}: {error}") }.into(),
        };
        let mut rows = Rows::new(BufReader::new(file), format, target.shape()).map_err(broken)?;
        let mut sending = Sending::new(reading, batch, &client, &target, begun)?;
        let whole = loop {
            match rows.next() {
                Ok(Some(found)) => sending.take(found).await?,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // The rows before a cut stay in.
        sending.send().await?;
        let rejected = sending.end()?;
        whole.map_err(broken)?;
        Ok(if rejected == 0 { EXIT_DONE } else { EXIT_NO })
    })
}

/// The provider's definition of a resource, and the index of the entry that shows it.
async fn resource(client: &Client, code: &str) -> anyhow::Result<(Resource, u64)> {
    let search = ResourceSearch { code: Some(code.to_owned()), ..ResourceSearch::default() };
    let page = client.resources(&search).await.map_err(calling::ended)?;
    let begun = page.receipt.index;
    let found = page.value.resources.into_iter().find(|found| found.resource.code == code);
    let found = found.ok_or_else(|| {
        let message = format!("--resource: the catalogue has no resource {code}");
        Exit { status: EXIT_NO, message }
    })?;
    Ok((found.resource, begun))
}

/// An import under way.
struct Sending<'i> {
    client: &'i Client,
    target: &'i Target,
    /// Entries before this one were made by an earlier run.
    begun: u64,
    most_rows: usize,
    rejects: Option<Rejects>,
    /// Digest over all that was sent so far, which the next key follows from.
    chain: [u8; 32],
    batch: Batch,
    counts: Counts,
    since: Instant,
    said: Instant,
}

/// Rows that go out together.
#[derive(Default)]
struct Batch {
    rows: Vec<BTreeMap<String, Personal>>,
    lines: Vec<u64>,
    keys: HashSet<Vec<String>>,
    bytes: usize,
}

/// How many rows there were and were taken, as it is printed.
#[derive(Default, Serialize)]
struct Counts {
    /// The line of the last one.
    line: u64,
    rows: u64,
    accepted: u64,
    /// Those of them that an earlier run had brought in.
    already: u64,
    rejected: u64,
}

/// A fault of a row, as it is said.
#[derive(Serialize)]
struct Reject<'w> {
    line: u64,
    #[serde(flatten)]
    wrong: &'w Wrong,
}

/// The file of rejects.
struct Rejects {
    path: PathBuf,
    file: io::BufWriter<File>,
}

impl<'i> Sending<'i> {
    fn new(
        reading: &Reading,
        batch: u16,
        client: &'i Client,
        target: &'i Target,
        begun: u64,
    ) -> anyhow::Result<Self> {
        let mut chain = [0; 32];
        if reading.again {
            SystemRandom::new().fill(&mut chain).map_err(|_| anyhow::anyhow!("no randomness"))?;
        }
        let rejects =
            reading.rejects.as_deref().map(|path| Rejects::make(path, &reading.file)).transpose()?;
        let most_rows = usize::from(batch);
        let (batch, counts, now) = (Batch::default(), Counts::default(), Instant::now());
        Ok(Self { client, target, begun, most_rows, rejects, chain, batch, counts, since: now, said: now })
    }

    async fn take(&mut self, Found { line, row }: Found) -> anyhow::Result<()> {
        (self.counts.line, self.counts.rows) = (line, self.counts.rows + 1);
        let row = row.and_then(|row| match self.batch.add(line, row, self.target) {
            true => Ok(()),
            false => Err(vec![Wrong::row(Rule::Distinct, "a key that stands once in the batch")]),
        });
        if let Err(wrong) = row {
            self.reject(line, &wrong)?;
        }
        if self.batch.rows.len() >= self.most_rows || self.batch.bytes >= MAX_BATCH_BYTES {
            self.send().await?;
        }
        if self.said.elapsed() >= SAID_EVERY {
            self.say();
            self.said = Instant::now();
        }
        Ok(())
    }

    /// Sends the batch. Its key follows from all that was sent before and its own bytes, so a run after this one sends the same.
    async fn send(&mut self) -> anyhow::Result<()> {
        let Batch { rows, lines, .. } = std::mem::take(&mut self.batch);
        let Some(first) = lines.first().copied() else { return Ok(()) };
        let (route, request) = self.target.request(first, rows)?;
        self.chain = verifier::sha256(&[&self.chain, &serde_json::to_vec(&request)?]);
        let key = hex::encode(self.chain.split_at(16).0);
        let answer = self.client.call::<Taken>(route, &request).key(key).await;
        let answer = answer.map_err(|error| stopped(error, first))?;
        let taken = answer.accepted + answer.erased;
        self.counts.accepted += taken;
        if answer.receipt.index < self.begun {
            self.counts.already += taken;
        }
        for reject in &answer.rejects {
            // Rows that were not sent stand between these.
            let place = reject.line.checked_sub(first).and_then(|place| usize::try_from(place).ok());
            let line =
                place.and_then(|place| lines.get(place)).context("a row that was not sent is rejected")?;
            let wrong = reject.errors.iter().map(|error| Wrong {
                field: error.pointer.trim_start_matches('/').to_owned(),
                rule: error.rule.clone(),
                allowed: error.allowed.clone(),
            });
            self.reject(*line, &wrong.collect::<Vec<_>>())?;
        }
        let told = u64::try_from(answer.rejects.len()).unwrap_or(u64::MAX);
        let untold = answer.rejected.saturating_sub(told);
        if untold > 0 {
            command::note(format_args!(
                "from line {first} on: {untold} more rows are rejected, which the answer does not name"
            ));
            self.counts.rejected += untold;
        }
        Ok(())
    }

    fn reject(&mut self, line: u64, wrong: &[Wrong]) -> anyhow::Result<()> {
        self.counts.rejected += 1;
        for wrong in wrong {
            let said = serde_json::to_string(&Reject { line, wrong })?;
            match &mut self.rejects {
                Some(Rejects { path, file }) => {
                    writeln!(file, "{said}").with_context(|| path.display().to_string())?;
                }
                None => command::note(said),
            }
        }
        Ok(())
    }

    fn say(&self) {
        let Counts { line, rows, rejected, .. } = self.counts;
        let ms = self.since.elapsed().as_millis().max(1);
        let rate = u128::from(rows) * 1_000 / ms;
        command::note(format_args!("line {line}: {rows} rows, {rejected} rejected, {rate} rows a second"));
    }

    /// Says what became of the rows; gives how many were not taken.
    fn end(&mut self) -> anyhow::Result<u64> {
        self.say();
        if let Some(Rejects { path, file }) = &mut self.rejects {
            file.flush()
                .and_then(|()| file.get_ref().sync_all())
                .with_context(|| path.display().to_string())?;
        }
        command::line(serde_json::to_string(&self.counts)?);
        Ok(self.counts.rejected)
    }
}

impl Batch {
    /// Adds a row, unless its key is there.
    fn add(&mut self, line: u64, row: Pairs, target: &Target) -> bool {
        if !self.keys.insert(target.key(&row)) {
            return false;
        }
        // A text of the contract holds no control characters, so an escape is twice its character at most.
        self.bytes += row.iter().map(|(key, value)| key.len() + 2 * value.len() + 6).sum::<usize>();
        self.rows.push(row.into_iter().map(|(key, value)| (key, Personal::from(value))).collect());
        self.lines.push(line);
        true
    }
}

impl Rejects {
    fn make(path: &Path, rows: &Path) -> anyhow::Result<Self> {
        let is_rows =
            path.canonicalize().is_ok_and(|path| rows.canonicalize().is_ok_and(|rows| path == rows));
        if is_rows {
            return Err(Exit::usage("--rejects: the file of the rows itself"));
        }
        let file =
            File::create(path).map_err(|error| Exit::usage(format_args!("{}: {error}", path.display())))?;
        Ok(Self { path: path.to_owned(), file: io::BufWriter::new(file) })
    }
}

/// The error of an import that stops before a line.
fn stopped(error: client::Error, line: u64) -> anyhow::Error {
    match calling::ended(error).downcast::<Exit>() {
        Ok(Exit { status, message }) => {
            let rest = format!("the rows before line {line} are in; the same command again goes on");
            Exit { status, message: format!("{message}; {rest}") }.into()
        }
        Err(error) => error,
    }
}
