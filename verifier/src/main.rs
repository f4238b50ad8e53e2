//! Command line of the verifier: checks files offline. Exit 0 valid, 1 invalid, 2 cannot tell, 64 usage; of many items the
//! worst counts: 1 before 2 before 0.
//!
//! Anyone runs it. It writes the pin of a trust authority and nothing else: a kill leaves the old pin or the new one, and
//! perhaps a `.new` file, which nobody reads.

#![forbid(unsafe_code)]

mod items;
mod show;

use clap::{Args, Parser, Subcommand, ValueEnum};
use items::{Item, read, text, variants};
use schemas::date::parse_rfc3339;
use serde::Serialize;
use serde_json::Value;
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};
use verifier::{
    batch,
    command::{self, EXIT_CANNOT_TELL, EXIT_DONE, EXIT_NO, EXIT_USAGE},
    json::{self, JsonError},
    license::{self, OpenedEnvelope, RootCache},
    log,
    note::VerifierKey,
    policy::Policy,
    proof::{TlogProof, parse_nodes},
    receipt::{self, Evidence, Receipt},
    report::{Reason, Report, Verdict},
    same_holder, trace,
    trust::Trust,
};

/// Checks licenses, receipts, traces and logs from bytes alone.
#[derive(Parser)]
#[command(name = "verifier", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    options: Options,
}

#[derive(Args)]
struct Options {
    /// Trust bundle: a signed note.
    #[arg(long, global = true, value_name = "FILE", required = false)]
    trust: Option<PathBuf>,
    /// The trust authority's verifier key, which must have signed the bundle. Without it nothing that rests on the bundle
    /// can be told.
    #[arg(long, global = true, value_name = "VKEY")]
    anchor: Option<VerifierKey>,
    /// In place of an anchor: takes the authority that the first bundle names and writes it to this file; from then on
    /// takes bundles of this authority alone, and none of a lower sequence than seen. A file with `.lock` behind the name
    /// keeps two runs from writing at once.
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "anchor")]
    trust_on_first_use: Option<PathBuf>,
    /// Time of the check, RFC 3339. Default: now.
    #[arg(long, global = true, value_name = "TIME", value_parser = read_time)]
    at: Option<Seconds>,
    /// Refuse a trust bundle with a lower sequence.
    #[arg(long, global = true, value_name = "N", default_value_t = 0)]
    minimum_sequence: u64,
    /// How to print the report.
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Prints the content too: personal data. Only what a bundle of a known authority vouches for.
    #[arg(long, global = true)]
    show: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Checks licenses: envelope bytes, base64 of them, or a JSON answer with a member `envelope`. A folder, or a file with
    /// one JSON answer a line, is many items.
    License {
        /// The license, or a folder of them.
        file: PathBuf,
        /// An annotated copy (加注件) of the one license: an answer in mode `copy`.
        #[arg(long, value_name = "FILE")]
        copy: Option<PathBuf>,
    },
    /// Checks receipts, or whole answers with their receipts. A folder, or a file with one of them a line, is many items.
    Receipt {
        /// The receipt or the answer, or a folder of them.
        file: PathBuf,
        /// Another receipt or answer, for `--same-holder`.
        #[arg(requires = "same_holder")]
        other: Option<PathBuf>,
        /// Checks that two receipts show one label for the one holder that both requests name.
        #[arg(long, requires = "other")]
        same_holder: bool,
        /// The request body of the other receipt as it was sent.
        #[arg(long, value_name = "FILE", requires = "same_holder")]
        other_request: Option<PathBuf>,
        /// The request body as it was sent.
        #[arg(long, value_name = "FILE")]
        request: Option<PathBuf>,
        /// The answer as it was received, with its receipt or without.
        #[arg(long, value_name = "FILE")]
        answer: Option<PathBuf>,
        /// A log proof, in place of the receipt's own.
        #[arg(long, value_name = "FILE")]
        proof: Option<PathBuf>,
        /// A C2SP policy: which witnesses must have seen the log.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// An earlier receipt, answer, log proof or checkpoint of the same log, which must have grown into this one.
        #[arg(long, value_name = "FILE")]
        previous: Option<PathBuf>,
        /// The consistency proof between the two checkpoints: what `/v1/log/consistency/{old}/{new}` gives.
        #[arg(long, value_name = "FILE", requires = "previous")]
        consistency: Option<PathBuf>,
    },
    /// Checks a holder's trace: answers of `POST /v1/trace`, newest page first, one a line. A folder is many traces.
    Trace {
        #[command(flatten)]
        pages: Pages,
        /// Index of an entry, to check that a field left with its answer with a value.
        #[arg(long, value_name = "INDEX", requires = "field")]
        entry: Option<u64>,
        /// Name of that field.
        #[arg(long, value_name = "NAME", requires = "value")]
        field: Option<String>,
        /// A file with that value.
        #[arg(long, value_name = "FILE", requires = "entry")]
        value: Option<PathBuf>,
    },
    /// Checks an auditor's pages: answers of `POST /v1/log/query`, one a line. A folder is many queries.
    Audit(Pages),
    /// Checks the report of a batch: the answer of `POST /v1/verify/batch` as it was received. A folder is many reports.
    Report {
        /// The report, or a folder of them.
        file: PathBuf,
        /// The request body as it was sent.
        #[arg(long, value_name = "FILE")]
        request: Option<PathBuf>,
        /// A C2SP policy: which witnesses must have seen the log.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
    /// Checks a whole log from a folder with its checkpoint, tiles and entry bundles, laid out as C2SP tlog-tiles.
    Log {
        /// The folder with `checkpoint` and `tile/`.
        folder: PathBuf,
        /// A C2SP policy: which witnesses must have seen the checkpoint.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// An earlier receipt, answer, log proof or checkpoint of the same log, which must have grown into this one.
        #[arg(long, value_name = "FILE")]
        previous: Option<PathBuf>,
    },
}

#[derive(Args)]
struct Pages {
    /// The pages, or a folder of such files.
    file: PathBuf,
    /// A C2SP policy: which witnesses must have seen the log.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Seconds since 1970.
#[derive(Clone, Copy)]
struct Seconds(u64);

/// The finding about one item.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    /// Which item of many.
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<String>,
    /// The first line: what the verdict is about.
    says: String,
    /// Notes on how it came about, which the reader must know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    #[serde(flatten)]
    report: Report,
    /// The content, if it was asked for and is vouched for.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Value>,
}

impl Finding {
    fn new(says: String, report: Report) -> Self {
        Self { item: None, says, notes: Vec::new(), report, content: None }
    }

    /// One that says no more than its reasons.
    fn failed(report: Report) -> Self {
        Self::new(show::headline(&report, "", None), report)
    }
}

fn read_time(text: &str) -> Result<Seconds, String> {
    parse_rfc3339(text).map(|ms| Seconds(ms / 1000)).ok_or_else(|| "not an RFC 3339 time".to_owned())
}

fn main() -> ExitCode {
    let cli: Cli = match command::parse() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    let findings = match run(&cli) {
        Ok(findings) => findings,
        Err(message) => {
            command::note(format_args!("verifier: {message}"));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    for finding in &findings {
        command::print(text_of(finding, cli.options.output));
    }
    let has = |verdict| findings.iter().any(|finding| finding.report.verdict == verdict);
    command::end(match () {
        () if has(Verdict::Invalid) => EXIT_NO,
        () if has(Verdict::Unknown) => EXIT_CANNOT_TELL,
        () => EXIT_DONE,
    })
}

fn text_of(finding: &Finding, output: Output) -> String {
    let json = |text: serde_json::Result<String>| text.expect("a finding is strings and numbers") + "\n";
    match (output, &finding.item) {
        (Output::Text, None) => show::text(finding),
        (Output::Text, Some(item)) => show::line(item, finding),
        (Output::Json, None) => json(serde_json::to_string_pretty(finding)),
        (Output::Json, Some(_)) => json(serde_json::to_string(finding)),
    }
}

/// The finding about each item, or why the command cannot be carried out at all.
fn run(cli: &Cli) -> Result<Vec<Finding>, String> {
    let options = &cli.options;
    let at = match options.at {
        Some(Seconds(at)) => at,
        None => SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?.as_secs(),
    };
    let path = options.trust.as_ref().ok_or("--trust FILE is needed")?;
    let note = text(&read(path)?);
    let read = match &options.trust_on_first_use {
        Some(pin) => pinned_trust(&note, pin, options.minimum_sequence)?,
        None => Trust::parse_note(&note, options.anchor.as_ref(), options.minimum_sequence)
            .map(|trust| (trust, None))
            .map_err(|error| (error.reason(), error.to_string())),
    };
    let (trust, pinned) = match read {
        Ok(read) => read,
        Err((reason, detail)) => return Ok(vec![Finding::failed(Report::failed(reason, detail, at))]),
    };
    // Content that a bundle of anybody's making vouches for is anybody's.
    let show = options.show && trust.is_anchored();
    let mut findings = check(&cli.command, &Check { trust: &trust, at, show })?;
    if options.show && !show {
        for finding in &mut findings {
            finding.notes.push("the content is not shown: nobody vouches for the trust bundle".to_owned());
        }
    }
    if let Some(pinned) = pinned {
        for finding in &mut findings {
            finding.says = format!("{pinned}; {}", finding.says);
        }
    }
    Ok(findings)
}

/// A trust bundle, with what the first line must say of how it came to be believed; or why it is not believed.
type Believed = Result<(Trust, Option<String>), (Reason, String)>;

/// A trust bundle of the authority that the pin names. Without a pin the bundle's own word is taken and pinned. The outer
/// error is of files.
fn pinned_trust(note: &str, pin: &Path, minimum: u64) -> Result<Believed, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", pin.display());
    if let Some(believed) = against_pin(note, pin, minimum, false)? {
        return Ok(believed);
    }
    // Another run may have pinned another authority or a higher sequence since.
    let lock = fs::File::create(pin.with_added_extension("lock")).map_err(failed)?;
    lock.lock().map_err(failed)?;
    against_pin(note, pin, minimum, true)?.ok_or_else(|| format!("{}: not written", pin.display()))
}

/// A trust bundle held against the pin; `None` if the pin has to be written and may not be.
fn against_pin(note: &str, pin: &Path, minimum: u64, may_write: bool) -> Result<Option<Believed>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", pin.display());
    let known = match fs::read_to_string(pin) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let (anchor, seen) = match &known {
        Some(text) => {
            let (key, sequence) = text.trim_end().split_once('\n').unwrap_or_default();
            let key = key.parse::<VerifierKey>().ok();
            let sequence = sequence.strip_prefix("sequence ").and_then(|number| number.parse().ok());
            key.zip(sequence).ok_or_else(|| format!("{}: no pin of a trust authority", pin.display()))?
        }
        None => match Trust::parse_note(note, None, minimum) {
            Err(error) => return Ok(Some(Err((error.reason(), error.to_string())))),
            Ok(trust) => match trust.authority.clone() {
                Some(authority) => (authority, 0),
                None => {
                    let detail = "the trust bundle names no authority that could be pinned".to_owned();
                    return Ok(Some(Err((Reason::NoAnchor, detail))));
                }
            },
        },
    };
    let trust = match Trust::parse_note(note, Some(&anchor), minimum.max(seen)) {
        Ok(trust) => trust,
        Err(error) if known.is_some() => {
            let detail = format!("{error}; {} is pinned in {}", anchor.name(), pin.display());
            return Ok(Some(Err((error.reason(), detail))));
        }
        Err(error) => return Ok(Some(Err((error.reason(), error.to_string())))),
    };
    if known.is_none() || trust.sequence > seen {
        if !may_write {
            return Ok(None);
        }
        let text = format!("{anchor}\nsequence {}\n", trust.sequence);
        let temporary = pin.with_added_extension("new");
        fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, pin)).map_err(failed)?;
    }
    let said = known.is_none().then(|| {
        format!(
            "FIRST USE: trust authority {} believed unseen and pinned in {}",
            anchor.name(),
            pin.display()
        )
    });
    Ok(Some(Ok((trust, said))))
}

/// The means of every check.
struct Check<'a> {
    trust: &'a Trust,
    at: u64,
    show: bool,
}

fn check(command: &Command, with: &Check<'_>) -> Result<Vec<Finding>, String> {
    let &Check { trust, at, .. } = with;
    match command {
        Command::License { file, copy } => {
            let (items, mut warm) = (items::lines(file)?, RootCache::new());
            let copy = copy.as_deref().map(read).transpose()?;
            if copy.is_some() && items.iter().any(|item| item.name.is_some()) {
                return Err(format!("{}: many licenses cannot have one copy", file.display()));
            }
            Ok(each(items, |bytes| with.license(bytes, copy.as_deref(), &mut warm)))
        }
        Command::Trace { pages: Pages { file, policy }, entry, field, value } => {
            let policy = read_policy(policy)?;
            let value = value.as_deref().map(read).transpose()?.map(|value| text(&value));
            let field = entry.as_ref().zip(field.as_ref()).zip(value.as_ref());
            let trace = |bytes: &[u8]| {
                let mut report = trace::verify_trace(bytes, trust, policy.as_ref(), at);
                if let Some(((entry, name), value)) = field {
                    let value = value.strip_suffix('\n').unwrap_or(value);
                    trace::open_field(bytes, *entry, name, value, &mut report);
                }
                report
            };
            Ok(each(items::whole(file)?, |bytes| with.pages("trace", bytes, trace)))
        }
        Command::Audit(Pages { file, policy }) => {
            let policy = read_policy(policy)?;
            let audit = |bytes: &[u8]| trace::verify_audit(bytes, trust, policy.as_ref(), at);
            Ok(each(items::whole(file)?, |bytes| with.pages("pages", bytes, audit)))
        }
        Command::Report { file, request, policy } => {
            let policy = read_policy(policy)?;
            let request = request.as_deref().map(read).transpose()?;
            let items = items::whole(file)?;
            if request.is_some() && items.iter().any(|item| item.name.is_some()) {
                return Err(format!("{}: many reports cannot have one request", file.display()));
            }
            let check = |bytes: &[u8]| batch::verify(bytes, request.as_deref(), trust, policy.as_ref(), at);
            Ok(each(items, |bytes| with.batch(bytes, check)))
        }
        Command::Log { folder, policy, previous } => {
            if !folder.is_dir() {
                return Err(format!("{}: not a folder", folder.display()));
            }
            let policy = read_policy(policy)?;
            let previous = previous.as_ref().map(read).transpose()?.map(|bytes| checkpoint_in(&bytes));
            let mut failed = None;
            let file = |name: &str| {
                let path = folder.join(name);
                match fs::read(&path) {
                    Ok(bytes) => Some(bytes),
                    Err(error) => {
                        // A file that is there and cannot be read is not missing.
                        if error.kind() != ErrorKind::NotFound {
                            failed.get_or_insert_with(|| format!("{}: {error}", path.display()));
                        }
                        None
                    }
                }
            };
            let report = log::verify(file, previous.as_deref(), trust, policy.as_ref(), at);
            if let Some(failed) = failed {
                return Err(failed);
            }
            Ok(vec![Finding::new(show::headline(&report, "log", None), report)])
        }
        Command::Receipt { file, other: Some(other), same_holder: _, request, other_request, .. } => {
            let read_both = |file, request: &Option<PathBuf>| -> Result<_, String> {
                Ok((read(file)?, request.as_deref().map(read).transpose()?))
            };
            let (one, two) = (read_both(file, request)?, read_both(other, other_request)?);
            let side = |(answer, request): &(Vec<u8>, Option<Vec<u8>>)| {
                let receipt = receipt_in(answer)?;
                Some(same_holder::Side { receipt, request: request.clone() })
            };
            let report = match (side(&one), side(&two)) {
                (Some(one), Some(two)) => same_holder::verify(&one, &two, trust, at),
                _ => Report::failed(Reason::MalformedReceipt, "a file holds no receipt", at),
            };
            Ok(vec![Finding::new(show::headline(&report, "one label", None), report)])
        }
        Command::Receipt { file, request, answer, proof, policy, previous, consistency, .. } => {
            let items = items::lines(file)?;
            let optional = |path: &Option<PathBuf>| path.as_deref().map(read).transpose();
            let files = Files {
                request: optional(request)?,
                answer: optional(answer)?,
                proof: optional(proof)?,
                previous: optional(previous)?.map(|bytes| checkpoint_in(&bytes)),
                consistency: optional(consistency)?,
                policy: read_policy(policy)?,
            };
            let of_one = files.request.is_some()
                || files.answer.is_some()
                || files.proof.is_some()
                || files.consistency.is_some();
            if of_one && items.iter().any(|item| item.name.is_some()) {
                return Err(format!(
                    "{}: many items cannot have one request, answer or proof",
                    file.display()
                ));
            }
            Ok(each(items, |bytes| with.receipt(bytes, &files)))
        }
    }
}

fn each(items: Vec<Item>, mut check: impl FnMut(&[u8]) -> Finding) -> Vec<Finding> {
    let finding = |Item { name, bytes }| Finding { item: name, ..check(&bytes) };
    items.into_iter().map(finding).collect()
}

/// A byte order mark and a final newline are no part of what was signed or hashed. A file that verifies without them is
/// good, and the finding says that they were left out.
fn tolerant(bytes: &[u8], mut check: impl FnMut(&[u8]) -> Finding) -> Finding {
    best(variants(bytes).map(|(bytes, left_out)| {
        let mut finding = check(bytes);
        finding.notes.extend(left_out.map(|left_out| format!("{left_out} of the file was left out")));
        finding
    }))
}

/// The first finding that is not invalid. If all are invalid, the one with the fewest reasons among those that could
/// read the item at all: a mark in front of it would hide what is wrong with it.
fn best(findings: impl Iterator<Item = Finding>) -> Finding {
    let rank = |finding: &Finding| {
        let reasons = &finding.report.reasons;
        let unread = reasons.iter().any(|found| {
            matches!(
                found.reason,
                Reason::MalformedEnvelope
                    | Reason::TrailingBytes
                    | Reason::MalformedReceipt
                    | Reason::MalformedPage
            )
        });
        (unread, reasons.len())
    };
    let mut best: Option<Finding> = None;
    for finding in findings {
        if finding.report.verdict != Verdict::Invalid {
            return finding;
        }
        best = match best {
            Some(best) if rank(&best) <= rank(&finding) => Some(best),
            _ => Some(finding),
        };
    }
    best.expect("the bytes themselves are a variant")
}

impl Check<'_> {
    fn license(&self, bytes: &[u8], copy: Option<&[u8]>, warm: &mut RootCache) -> Finding {
        tolerant(bytes, |bytes| {
            let envelope = match items::envelope(bytes) {
                Ok(envelope) => envelope,
                Err(error) => return Finding::failed(failed_json(error, Reason::MalformedEnvelope, self.at)),
            };
            let mut report = license::verify(&envelope, self.trust, self.at, warm);
            if let (Some(copied), Ok(original)) = (copy, OpenedEnvelope::open(&envelope)) {
                match json::read(items::without_receipt(copied).as_ref()) {
                    Ok(answer) => verifier::copy::check(&answer, Some(&original), &mut report),
                    Err(error) => report.add(Reason::CopyMismatch, error.to_string()),
                }
            }
            let content =
                (self.show && report.checked.contains(&"signatures")).then(|| show::license(&envelope));
            Finding {
                content: content.flatten(),
                ..Finding::new(show::headline(&report, "license", None), report)
            }
        })
    }

    fn pages(&self, kind: &str, bytes: &[u8], check: impl Fn(&[u8]) -> Report) -> Finding {
        tolerant(bytes, |bytes| {
            let report = check(bytes);
            let content = (self.show && report.verdict != Verdict::Invalid).then(|| show::pages(bytes));
            Finding { content, ..Finding::new(show::headline(&report, kind, None), report) }
        })
    }

    fn batch(&self, bytes: &[u8], check: impl Fn(&[u8]) -> Report) -> Finding {
        let report = check(bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes));
        let content = (self.show && report.verdict != Verdict::Invalid).then(|| show::answers(bytes));
        Finding { content, ..Finding::new(show::headline(&report, "report", None), report) }
    }

    fn receipt(&self, bytes: &[u8], files: &Files) -> Finding {
        let requests: Vec<_> = match &files.request {
            Some(request) => variants(request).map(|(bytes, left_out)| (Some(bytes), left_out)).collect(),
            None => vec![(None, None)],
        };
        let answers: Vec<_> = match &files.answer {
            Some(answer) => variants(answer).map(|(bytes, left_out)| (Some(bytes), left_out)).collect(),
            None => vec![(None, None)],
        };
        let pairs = requests.iter().flat_map(|request| answers.iter().map(move |answer| (request, answer)));
        best(pairs.map(|((request, request_left_out), (answer, answer_left_out))| {
            let mut finding = tolerant(bytes, |bytes| self.one_receipt(bytes, *request, *answer, files));
            let left_out = [(request_left_out, "request"), (answer_left_out, "answer")];
            for (left_out, name) in left_out.into_iter().filter_map(|(one, name)| Some(((*one)?, name))) {
                finding.notes.push(format!("{left_out} of the {name} was left out"));
            }
            finding
        }))
    }

    fn one_receipt(
        &self,
        bytes: &[u8],
        request: Option<&[u8]>,
        answer: Option<&[u8]>,
        files: &Files,
    ) -> Finding {
        let failed = |reason, detail: String| Finding::failed(Report::failed(reason, detail, self.at));
        let mut answer = answer;
        let mut reformatted = false;
        let receipt = if let Ok(receipt) = serde_json::from_slice::<Receipt>(bytes) {
            receipt
        } else {
            match receipt::cut(bytes) {
                Ok((_, receipt)) => {
                    answer = answer.or(Some(bytes));
                    receipt
                }
                Err(error) => match receipt::in_reformatted(bytes) {
                    Some(receipt) => {
                        reformatted = answer.is_none();
                        receipt
                    }
                    None => return failed(Reason::MalformedReceipt, error.to_string()),
                },
            }
        };
        if let Some(written_anew) = answer.and_then(receipt::in_reformatted) {
            // The receipt in it may be the right one, which says nothing of the rest.
            reformatted = written_anew.leaf_hash == receipt.leaf_hash;
            answer = answer.filter(|_| !reformatted);
        }
        let answer_json = answer.map(|answer| json::read(items::without_receipt(answer).as_ref()));
        let proof = match files.proof.as_deref().map(|proof| TlogProof::parse(&text(proof))).transpose() {
            Ok(proof) => proof,
            Err(error) => return failed(Reason::MalformedProof, error.to_string()),
        };
        let consistency =
            match files.consistency.as_deref().map(|nodes| parse_nodes(&text(nodes))).transpose() {
                Ok(consistency) => consistency,
                Err(error) => return failed(Reason::MalformedProof, error.to_string()),
            };
        let evidence = Evidence {
            proof: proof.as_ref(),
            policy: files.policy.as_ref(),
            previous: files.previous.as_deref(),
            consistency: consistency.as_deref(),
        };
        let mut report = receipt::verify_with(&receipt, &evidence, request, answer, self.trust, self.at);
        if reformatted {
            report.add(Reason::Reformatted, "the answer was written anew; its bytes as received are needed");
        }
        if let Some(Err(JsonError::DuplicateMember)) = answer_json {
            report.add(Reason::DuplicateMember, "the answer has two members of one name");
        }
        if let Some(Ok(copied)) =
            answer_json.as_ref().filter(|read| read.as_ref().is_ok_and(verifier::copy::is_copy))
        {
            verifier::copy::check(copied, None, &mut report);
        }
        let shown = answer_json.and_then(Result::ok).filter(|_| report.checked.contains(&"answer"));
        let says = show::headline(&report, "receipt", shown.as_ref());
        Finding { content: shown.filter(|_| self.show), ..Finding::new(says, report) }
    }
}

fn failed_json(error: JsonError, otherwise: Reason, at: u64) -> Report {
    let reason = if error == JsonError::DuplicateMember { Reason::DuplicateMember } else { otherwise };
    Report::failed(reason, error.to_string(), at)
}

fn read_policy(path: &Option<PathBuf>) -> Result<Option<Policy>, String> {
    let Some(path) = path else { return Ok(None) };
    let policy = Policy::parse(&read(path)?).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Some(policy))
}

/// The files that a receipt is checked with.
struct Files {
    request: Option<Vec<u8>>,
    answer: Option<Vec<u8>>,
    proof: Option<Vec<u8>>,
    policy: Option<Policy>,
    /// A checkpoint.
    previous: Option<String>,
    consistency: Option<Vec<u8>>,
}

/// A receipt, or the one in an answer.
fn receipt_in(bytes: &[u8]) -> Option<Receipt> {
    let receipt = serde_json::from_slice::<Receipt>(bytes).ok();
    receipt.or_else(|| Some(receipt::cut(bytes).ok()?.1)).or_else(|| receipt::in_reformatted(bytes))
}

/// The checkpoint in a receipt, an answer or a log proof. Any other text is handed on as it is: a checkpoint, or found
/// to be none.
fn checkpoint_in(bytes: &[u8]) -> String {
    let text = text(bytes);
    let proof = receipt_in(bytes).and_then(|receipt| receipt.proof);
    let proof = TlogProof::parse(proof.as_deref().unwrap_or(&text));
    proof.map_or_else(|_| text, |proof| proof.checkpoint)
}
