//! Restart and rebuild: fills a journal in a temporary folder with entries, a tenth of them state changes, and times
//! opening it with the restart image, from a snapshot and from the first entry, with a cold page cache.
//!
//! `cargo bench -p bench --bench restart -- ENTRIES [sled|fjall]`, by default 1,000,000 and sled. Set `TMPDIR` to a folder on
//! the disk to be measured.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is run by hand and prints what it measures"
)]

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bench::entry::{SUBJECT_BYTES, command};
use ledger::record::{LicenseState, Record, StateDigest};
use ledger::{
    Command, Engine, EpochsInMemory, HolderKey, Key, Ledger, LedgerKeys, Options, Outcome, RebuildFrom,
    rebuild,
};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use verifier::sha256;

const ORIGIN: &str = "bench/restart";
const ENTRIES: u64 = 1_000_000;
/// One entry of so many issues a license to a new holder.
const CHANGE_EVERY: u64 = 10;
/// Commands under way at once.
const WINDOW: usize = 256;

fn keys(log: &[u8]) -> LedgerKeys {
    let epochs = Arc::new(EpochsInMemory::new(ORIGIN, [3; 32]));
    LedgerKeys { journal: [1; 32], index: [2; 32], log_pkcs8: log.to_vec(), epochs }
}

/// An entry of the log itself.
fn entry(ledger: &Ledger, record: &Record) -> Command {
    command(record, Vec::new(), vec![ledger.seal_subject(0, &[], &[7; SUBJECT_BYTES])])
}

/// The holder that an entry brings.
fn holder_key(number: u64) -> Key {
    *sha256(&[&number.to_be_bytes()]).first_chunk().expect("a digest has 32 bytes")
}

/// The entry of a number: a new holder with a license, or a use that concerns an earlier one.
fn nth(ledger: &Ledger, number: u64) -> anyhow::Result<Command> {
    let sealed =
        |key: &HolderKey| vec![ledger.seal_subject(0, std::slice::from_ref(key), &[7; SUBJECT_BYTES])];
    if !number.is_multiple_of(CHANGE_EVERY) {
        // One that is committed by now; the first few have none.
        let Some(earlier) = number.checked_sub(4 * WINDOW as u64) else {
            return Ok(entry(ledger, &Record::default()));
        };
        let known = ledger.state().holder(&holder_key(earlier - earlier % CHANGE_EVERY));
        let label = known.context("an earlier holder is known")?.label;
        let key = ledger.state().holder_key(&label).context("a living holder has a key")?;
        let record = Record { concerned: vec![label], ..Record::default() };
        return Ok(command(&record, Vec::new(), sealed(&key)));
    }
    let key = holder_key(number);
    let holder = ledger.new_holder(key);
    let record = Record {
        concerned: vec![holder.label],
        new_holders: vec![holder.entered()],
        licenses: vec![LicenseState {
            key,
            version: 1,
            state: 1,
            certificate_version: 1,
            valid_from_day: 20_000,
            valid_until_day: i32::MAX,
            taken_over: false,
            written_by_04: false,
            number_tag: number,
            holders: vec![holder.label],
            body_part: 0,
        }],
        ..Record::default()
    };
    Ok(command(&record, Vec::new(), sealed(&holder.holder_key)))
}

async fn commit(ledger: Ledger, command: Command) -> anyhow::Result<()> {
    match ledger.commit(command).await? {
        Outcome::Committed(_) => Ok(()),
        Outcome::Changed => anyhow::bail!("changed"),
    }
}

async fn fill(ledger: &Ledger, entries: u64) -> anyhow::Result<()> {
    let mut under_way = tokio::task::JoinSet::new();
    for number in 0..entries {
        if under_way.len() >= WINDOW {
            under_way.join_next().await.context("something is under way")???;
        }
        under_way.spawn(commit(ledger.clone(), nth(ledger, number)?));
    }
    while let Some(done) = under_way.join_next().await {
        done??;
    }
    Ok(())
}

/// Waits for a snapshot and logs its digest.
async fn log_snapshot(ledger: &Ledger) -> anyhow::Result<StateDigest> {
    loop {
        if let Some(digest) = ledger.snapshot_to_log() {
            let record = Record { state_digest: Some(digest), ..Record::default() };
            commit(ledger.clone(), entry(ledger, &record)).await?;
            ledger.snapshot_logged(&digest);
            return Ok(digest);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asks the kernel to forget the files' pages; they are synced first, because dirty ones stay.
fn cool(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            cool(&path)?;
        } else {
            let file = File::open(path)?;
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let entries = words.next().map_or(Ok(ENTRIES), |word| word.parse()).context("ENTRIES is a number")?;
    let name = words.next().unwrap_or_else(|| "sled".to_owned());
    let engine = Engine::ALL.into_iter().find(|engine| engine.name() == name).context("sled or fjall")?;
    let folder = tempfile::tempdir()?;
    let log = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).ok().context("randomness")?;
    // A start opens the image in a child process first, as the gateway's does.
    let this = std::env::current_exe()?;
    let program = this.ancestors().nth(2).context("a bench lies in target/<profile>/deps")?.join("exchange");
    ensure!(program.exists(), "build the exchange first: cargo build --release -p exchange");
    let probe = Some(exchange::probe::of_program(program, ORIGIN.to_owned()));
    let options = Options { engine, probe, ..Options::new(folder.path(), ORIGIN) };
    let runtime = tokio::runtime::Runtime::new()?;

    let began = Instant::now();
    // A snapshot after some segments, as a gateway makes them.
    let filling = Options { snapshot_segments: 2, ..options.clone() };
    let (ledger, _) = Ledger::open(filling, keys(log.as_ref()))?;
    let snapshots = runtime.spawn({
        let ledger = ledger.clone();
        async move {
            loop {
                if log_snapshot(&ledger).await.is_err() {
                    break;
                }
            }
        }
    });
    runtime.block_on(fill(&ledger, entries))?;
    snapshots.abort();
    let digest = ledger.state().digest();
    ledger.close();
    println!("filled    {entries} entries in {:.1} s", began.elapsed().as_secs_f64());

    cool(folder.path())?;
    let began = Instant::now();
    let (ledger, opened) = Ledger::open(options.clone(), keys(log.as_ref()))?;
    println!(
        "restart   {:.2} s, image {}, replayed {}",
        began.elapsed().as_secs_f64(),
        opened.from_image,
        opened.replayed
    );
    ensure!(ledger.state().digest() == digest, "another state");
    ledger.close();

    for from in [RebuildFrom::Snapshot, RebuildFrom::Zero] {
        cool(folder.path())?;
        let began = Instant::now();
        let done = rebuild(options.clone(), keys(log.as_ref()), from, &|_| {})?;
        println!(
            "rebuild   {:.2} s, snapshot {:?}, replayed {}",
            began.elapsed().as_secs_f64(),
            done.from_snapshot,
            done.replayed
        );
        ensure!(done.state_digest == digest, "another state");
    }
    Ok(())
}
