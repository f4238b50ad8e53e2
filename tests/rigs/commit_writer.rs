//! The program that the sweep runs: it opens the journal of a data folder, commits, tells what is durable, and closes.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use exchange::config::Config;
use exchange::participant::Participant;
use exchange::{gateway, init, keyed, opening, rights};
use ledger::{DocumentKind, Ledger, LedgerKeys, Options, ReadError};
use schemas::identifier::Uscc;
use schemas::synthetic::Synthetic;

use crate::must;

/// Entries of one run.
pub(crate) const ENTRIES: usize = 6;
/// The file of a data folder that lists the licenses it has, by identifier.
pub(crate) const LICENSES: &str = "licenses";
/// The file of a data folder that names the license of its erased holder, by identifier.
pub(crate) const ERASED: &str = "erased";
/// Where the table of an epoch's key file begins, after version, log, epoch, key and number of rows.
const EPOCH_HEAD_BYTES: usize = 1 + 32 + 4 + 32 + 4;
/// One row of it: label and wrapped key.
const EPOCH_ROW_BYTES: usize = 16 + 60;
/// Segments are so small that a run begins new ones.
const SEGMENT_BYTES: u64 = 192 << 10;
const GROUP_BYTES: usize = 64 << 10;
/// Length of a participant's name: a few entries fill a segment.
const NAME_CHARACTERS: usize = 13_000;
/// Seed of the participants.
const SEED: u64 = 777;
/// Longest wait for a full journal to have room again.
const FULL: Duration = Duration::from_secs(10);
/// Pause between two attempts.
const LOOK: Duration = Duration::from_millis(10);

/// A participant of this number in this run; every run has others.
fn participant(run: u64, number: usize) -> Participant {
    let mut synthetic = Synthetic::new(SEED + run);
    let organisation = (0..=number).map(|_| synthetic.uscc()).last().unwrap();
    let participant = init::development_register().into_iter().next().unwrap();
    Participant { organisation, name: "测".repeat(NAME_CHARACTERS), ..participant }
}

/// How the folder's journal is opened, and with which keys.
fn opening(folder: &Path) -> anyhow::Result<(Options, LedgerKeys)> {
    let config = Config::load(&folder.join("config.toml"))?;
    let keys = opening::ledger_keys(&opening::key_folder(&config)?)?;
    let options = Options {
        segment_bytes: SEGMENT_BYTES,
        group_bytes: GROUP_BYTES,
        reserve_percent: 0,
        // One is written as soon as a segment is closed.
        snapshot_segments: 1,
        ..opening::ledger_options(&config)
    };
    Ok((options, keys))
}

/// Commits [`ENTRIES`] entries one after the other and prints, for each that is durable, its index and whom it
/// registers.
///
/// With `rotates` the epoch changes in the midst of them.
pub(crate) async fn write(folder: &Path, run: u64, rotates: bool) -> anyhow::Result<()> {
    let (options, keys) = opening(folder)?;
    let (ledger, _) = Ledger::open(options, keys)?;
    let mut out = std::io::stdout().lock();
    for number in 0..ENTRIES {
        if rotates && number == ENTRIES / 2 {
            let (ledger, policy) = (ledger.clone(), rights::in_force::hash(&ledger));
            let rotate = move || ledger.rotate(|record| gateway::seal::system_entry(&policy, record));
            tokio::task::spawn_blocking(rotate).await??;
        }
        let participant = participant(run, number);
        let begun = Instant::now();
        while let Err(error) = init::register_development(&ledger, std::slice::from_ref(&participant)).await {
            // A full journal has room again by itself.
            if !ledger.health().journal_full || begun.elapsed() > FULL {
                return Err(error);
            }
            tokio::time::sleep(LOOK).await;
        }
        writeln!(out, "{} {}", ledger.size() - 1, participant.organisation.as_str())?;
        out.flush()?;
    }
    tokio::task::spawn_blocking(move || ledger.close()).await?;
    Ok(())
}

/// An acknowledged line: the index and whom the entry registers.
pub(crate) fn acknowledged(lines: &str) -> Vec<(u64, Uscc)> {
    // Only the last line can be cut short, and then nobody was told.
    let whole = lines.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| {
            let (index, organisation) = line.split_once(' ').unwrap();
            (index.parse().unwrap(), organisation.parse().unwrap())
        })
        .collect()
}

/// Opens the folder as a start does and looks for what was acknowledged, in the state and in the log, and whether the
/// licenses that were there before open and the erased holder's does not; then goes on with one more entry.
pub(crate) async fn check(folder: &Path, acknowledged: &[(u64, Uscc)], run: u64) -> anyhow::Result<()> {
    let refused = |error: ledger::OpenError| format!("the journal is refused: {error}");
    let (options, keys) = opening(folder)?;
    let options = Options { on_fatal: |_| {}, ..options };
    let ledger = match Ledger::open(options, keys) {
        Ok((ledger, _)) => ledger,
        Err(error) => return must(false, || refused(error)),
    };
    let size = ledger.size();
    let mut wanted = Vec::new();
    for (index, organisation) in acknowledged {
        let key = keyed::participant_key(ledger.keyed(), organisation);
        let there = ledger.state().document(DocumentKind::Participant, &key).is_some();
        must(*index < size && there, || {
            format!("entry {index} was acknowledged and is lost: the log has {size}")
        })?;
        wanted.push((*index, key));
    }
    for identifier in std::fs::read_to_string(folder.join(LICENSES))?.lines() {
        let license = ledger.state().license(&keyed::license_key(ledger.keyed(), &identifier.parse()?));
        let opens = license.is_some_and(|license| ledger.open_subject(license.body).is_ok());
        must(opens, || format!("license {identifier} is gone or does not open"))?;
    }
    let identifier = std::fs::read_to_string(folder.join(ERASED))?.parse()?;
    let license = ledger.state().license(&keyed::license_key(ledger.keyed(), &identifier));
    let Some(license) = license else {
        return must(false, || "the license of the erased holder is gone".to_owned());
    };
    let refused = ledger.open_subject(license.body).err();
    must(matches!(refused, Some(ReadError::KeyGone)), || {
        format!("the erased holder's license gives {refused:?}")
    })?;
    // The file in which a change of epoch takes the living along.
    let file = opening::key_folder(&Config::load(&folder.join("config.toml"))?)?.load("epoch")?;
    let rows = file.get(EPOCH_HEAD_BYTES..).unwrap_or_default().chunks(EPOCH_ROW_BYTES);
    let mut labels = rows.map(|row| row.get(..16).unwrap_or_default());
    must(labels.all(|label| license.holders.iter().all(|gone| gone != label)), || {
        "the epoch's key file has the erased holder's key".to_owned()
    })?;
    let next = participant(run, ENTRIES);
    let registered = init::register_development(&ledger, std::slice::from_ref(&next)).await;
    must(registered.is_ok() && ledger.size() == size + 1, || {
        format!("the log cannot go on: {registered:?}")
    })?;
    tokio::task::spawn_blocking(move || ledger.close()).await?;

    let (options, keys) = opening(folder)?;
    let verified = ledger::verify_log(options, keys, |_| {});
    let good = matches!(&verified, Ok(report) if report.size == size + 1);
    must(good, || format!("the log does not verify: {verified:?}"))?;
    let (options, keys) = opening(folder)?;
    ledger::entries(options, keys, |entry| {
        wanted.retain(|(index, key)| {
            *index != entry.open.index || !entry.record.documents.iter().any(|document| document.key == *key)
        });
    })?;
    must(wanted.is_empty(), || format!("{} acknowledged entries are other ones now", wanted.len()))
}
