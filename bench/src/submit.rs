//! Decisions straight into the ledger, without HTTP: what the journal alone takes, beside a bare append +
//! `fdatasync` of the same bytes at the same group size, in alternating rounds of the same run.
//!
//! A decision here is a permit as the gateway makes one: it names a holder, reads the versions of a license, a
//! grant and a holder, raises the grant's counter, and carries one sealed subject part. Sealing it is part of the
//! round, as it is in the gateway.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use ledger::record::{CounterUse, GrantState, LicenseState, Record};
use ledger::{Command, EpochsInMemory, Fact, Key, Label, Ledger, LedgerKeys, Options, Outcome, Refused};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use serde::Serialize;

use crate::baseline::{self, Bare};
use crate::drive::new_histogram;
use crate::entry::{ORGANISATION, SUBJECT_BYTES, command};
use crate::journal::{self, Frames};

/// Holders of a whole run, each with a license and a grant.
pub const HOLDERS: u32 = 10_000;
/// Holders made at once.
const MAKE_AT_ONCE: usize = 256;
/// As the gateway's default.
const INDEX_ROOTS_EVERY: Duration = Duration::from_secs(60);
/// Submitters wait this long when the queue is full.
const FULL_REST: Duration = Duration::from_micros(200);
/// Shortest rest of the pacer: it releases what has become due since.
const PACER_REST: Duration = Duration::from_micros(100);
/// Where the log of a bench begins, so that no other is ever taken for one.
const ORIGIN: &str = "bench/journal";

/// What is measured.
pub struct Plan {
    /// An empty folder on a disk.
    pub folder: PathBuf,
    /// Holders, each with a license and a grant.
    pub holders: u32,
    /// Submitters of the closed loop.
    pub submitters: usize,
    /// Alternating rounds.
    pub rounds: u32,
    /// Length of a round.
    pub duration: Duration,
    /// Decisions a second of the open loop.
    pub rate: f64,
    /// Decisions to go on to first, stating the memory at each power of ten; 0 = none.
    pub decisions: u64,
}

/// One round of each.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Round {
    /// Decisions a second.
    pub decisions_a_second: f64,
    /// Mean entries of a group.
    pub entries_a_group: f64,
    /// Mean bytes of a frame.
    pub frame_bytes: u64,
    /// Bytes of the journal for one entry.
    pub entry_bytes: u64,
    /// Bare appends of such frames a second, times the entries of a group.
    pub bare_a_second: f64,
    /// The first over the last.
    pub ratio: f64,
}

/// The open loop and the bare appends at its group rate.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Paced {
    /// Decisions a second on the schedule.
    pub scheduled: f64,
    /// Decisions made.
    pub decisions: u64,
    /// Mean entries of a group.
    pub entries_a_group: f64,
    /// From the scheduled start to the durable answer, ms: p50, p99, highest.
    pub latency_ms: [f64; 3],
    /// A bare append with its sync at the same rate, ms: p50, p99, highest.
    pub bare_ms: [f64; 3],
}

/// Resident memory at a size of the log.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// Decisions in the log.
    pub decisions: u64,
    /// Resident set, MiB.
    pub resident_mib: u64,
}

/// All of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalReport {
    /// Submitters of the closed loop.
    pub submitters: usize,
    /// Closed loop and bare, alternating.
    pub rounds: Vec<Round>,
    /// Open loop.
    pub paced: Paced,
    /// Memory while the log grows.
    pub memory: Vec<Memory>,
}

impl fmt::Display for JournalReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "closed loop, {} submitters; bare append + fdatasync in turn", self.submitters)?;
        for round in &self.rounds {
            writeln!(
                f,
                "  {:>9.0} decisions/s  {:>6.1} a group of {} bytes ({} an entry)  bare {:>9.0}/s  ratio {:.2}",
                round.decisions_a_second,
                round.entries_a_group,
                round.frame_bytes,
                round.entry_bytes,
                round.bare_a_second,
                round.ratio
            )?;
        }
        let Paced { scheduled, decisions, entries_a_group, latency_ms, bare_ms } = &self.paced;
        writeln!(f, "open loop, {scheduled:.0}/s, latency from the scheduled start")?;
        writeln!(f, "  {decisions} decisions, {entries_a_group:.1} a group")?;
        for (what, [p50, p99, max]) in [("ledger", latency_ms), ("bare", bare_ms)] {
            writeln!(f, "  {what:<8} ms: p50 {p50:.2}  p99 {p99:.2}  max {max:.2}")?;
        }
        for memory in &self.memory {
            writeln!(f, "memory after {:>9} decisions: {} MiB", memory.decisions, memory.resident_mib)?;
        }
        Ok(())
    }
}

struct Subject {
    label: Label,
    holder: Key,
    license: Key,
    grant: Key,
}

struct Workload {
    ledger: Ledger,
    subjects: Vec<Subject>,
    next: AtomicU64,
}

impl Workload {
    async fn make(folder: &Path, holders: u32) -> anyhow::Result<Self> {
        let log = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).ok().context("randomness")?;
        let keys = LedgerKeys {
            journal: [1; 32],
            index: [2; 32],
            log_pkcs8: log.as_ref().to_vec(),
            epochs: Arc::new(EpochsInMemory::new(ORIGIN, [3; 32])),
        };
        // As the gateway runs it.
        let options = Options { index_roots: Some(INDEX_ROOTS_EVERY), ..Options::new(folder, ORIGIN) };
        let (ledger, opened) = Ledger::open(options, keys)?;
        ensure!(opened.size == 0, "{} holds a log already", folder.display());
        let mut subjects = Vec::with_capacity(holders as usize);
        for first in (0..holders).step_by(MAKE_AT_ONCE) {
            let some = first..holders.min(first + MAKE_AT_ONCE as u32);
            let made: Vec<_> = some
                .map(|number| {
                    let ledger = ledger.clone();
                    tokio::spawn(async move { Self::subject(&ledger, number).await })
                })
                .collect();
            for subject in made {
                subjects.push(subject.await??);
            }
        }
        Ok(Self { ledger, subjects, next: AtomicU64::new(0) })
    }

    /// A holder with a license and a grant, in one entry.
    async fn subject(ledger: &Ledger, number: u32) -> anyhow::Result<Subject> {
        let key = |kind: u8| {
            let mut key = [kind; 16];
            key[..4].copy_from_slice(&number.to_be_bytes());
            key
        };
        let (holder, license, grant) = (key(1), key(2), key(3));
        let new = ledger.new_holder(holder);
        let body = ledger.seal_subject(0, std::slice::from_ref(&new.holder_key), &[7; SUBJECT_BYTES]);
        let record = Record {
            concerned: vec![new.label],
            new_holders: vec![new.entered()],
            licenses: vec![LicenseState {
                key: license,
                version: 1,
                state: 1,
                certificate_version: 1,
                valid_from_day: 0,
                valid_until_day: i32::MAX,
                taken_over: false,
                written_by_04: false,
                number_tag: u64::from(number),
                holders: vec![new.label],
                body_part: 0,
            }],
            grants: vec![GrantState {
                key: grant,
                version: 1,
                state: 1,
                holder: new.label,
                grantee: ORGANISATION,
                target: license,
                target_is_type: false,
                modes: 1,
                fields: 0,
                item_tag: 0,
                until_ms: u64::MAX,
                max_uses: 0,
                portal: ORGANISATION,
                ..GrantState::default()
            }],
            ..Record::default()
        };
        commit(ledger, command(&record, Vec::new(), vec![body])).await?;
        Ok(Subject { label: new.label, holder, license, grant })
    }

    async fn decide(&self) -> anyhow::Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let subject = &self.subjects[number as usize % self.subjects.len()];
        loop {
            let holder = self.ledger.state().holder_key(&subject.label).context("a holder has a key")?;
            let part = self.ledger.seal_subject(0, &[holder], &[7; SUBJECT_BYTES]);
            let counter = CounterUse { key: subject.grant, day: 0, amount: 1, limit: u32::MAX };
            let record =
                Record { concerned: vec![subject.label], counters: vec![counter], ..Record::default() };
            let read = |fact| (fact, self.ledger.state().version(&fact));
            let reads = vec![
                read(Fact::License(subject.license)),
                read(Fact::Grant(self.ledger.state().grant_id(&subject.grant))),
                read(Fact::Holder(subject.holder)),
            ];
            match commit(&self.ledger, command(&record, reads, vec![part])).await {
                Err(Failed::Overloaded) => tokio::time::sleep(FULL_REST).await,
                other => return Ok(other?),
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("the queue is full")]
    Overloaded,
    #[error("a commit failed: {0}")]
    Other(String),
}

async fn commit(ledger: &Ledger, command: Command) -> Result<(), Failed> {
    match ledger.commit(command).await {
        Ok(Outcome::Committed(_)) => Ok(()),
        Err(Refused::Overloaded) => Err(Failed::Overloaded),
        other => Err(Failed::Other(format!("{other:?}"))),
    }
}

/// Runs the plan.
///
/// # Errors
/// The file system's, and any commit that is not one: then there are no numbers.
pub async fn run(plan: &Plan) -> anyhow::Result<JournalReport> {
    let workload = Arc::new(Workload::make(&plan.folder, plan.holders).await?);
    let mut memory = Vec::new();
    memory.push(Memory { decisions: workload.ledger.size(), resident_mib: resident_mib()? });
    let mut goal = 100_000;
    while goal <= plan.decisions {
        if goal > workload.ledger.size() {
            closed(&workload, plan.submitters, Until::Size(goal)).await?;
            memory.push(Memory { decisions: workload.ledger.size(), resident_mib: resident_mib()? });
        }
        goal *= 10;
    }
    closed(&workload, plan.submitters, Until::Time(Duration::from_secs(1))).await?;
    let mut rounds = Vec::new();
    for _ in 0..plan.rounds {
        rounds.push(round(plan, &workload).await?);
    }
    let paced = paced(plan, &workload).await?;
    let Workload { ledger, .. } =
        Arc::into_inner(workload).context("a submitter is still at work after its end")?;
    tokio::task::spawn_blocking(move || ledger.close()).await?;
    Ok(JournalReport { submitters: plan.submitters, rounds, paced, memory })
}

async fn round(plan: &Plan, workload: &Arc<Workload>) -> anyhow::Result<Round> {
    let before = workload.ledger.size();
    let started = Instant::now();
    closed(workload, plan.submitters, Until::Time(plan.duration)).await?;
    let elapsed = started.elapsed();
    let after = workload.ledger.size();
    let frames = frames(&plan.folder, before..after).await?;
    let bare = bare(&plan.folder, frames.frame_bytes(), None, plan.duration).await?;
    let decisions_a_second = (after - before) as f64 / elapsed.as_secs_f64();
    let entries_a_group = frames.entries as f64 / frames.frames.max(1) as f64;
    let bare_a_second = bare.appends as f64 / bare.elapsed.as_secs_f64() * entries_a_group;
    Ok(Round {
        decisions_a_second,
        entries_a_group,
        frame_bytes: frames.frame_bytes(),
        entry_bytes: frames.entry_bytes(),
        bare_a_second,
        ratio: decisions_a_second / bare_a_second,
    })
}

async fn frames(folder: &Path, indexes: std::ops::Range<u64>) -> anyhow::Result<Frames> {
    let folder = folder.join("journal");
    Ok(tokio::task::spawn_blocking(move || journal::frames(&folder, indexes)).await??)
}

async fn bare(folder: &Path, bytes: u64, rate: Option<f64>, duration: Duration) -> anyhow::Result<Bare> {
    let folder = folder.to_owned();
    Ok(tokio::task::spawn_blocking(move || baseline::run(&folder, bytes, rate, duration)).await??)
}

#[derive(Clone, Copy)]
enum Until {
    Time(Duration),
    /// Decisions in the log.
    Size(u64),
}

async fn closed(workload: &Arc<Workload>, submitters: usize, until: Until) -> anyhow::Result<()> {
    let started = Instant::now();
    let submitter = |workload: Arc<Workload>| async move {
        loop {
            let ended = match until {
                Until::Time(duration) => started.elapsed() >= duration,
                Until::Size(size) => workload.ledger.size() >= size,
            };
            if ended {
                return Ok::<(), anyhow::Error>(());
            }
            workload.decide().await?;
        }
    };
    let tasks: Vec<_> = (0..submitters).map(|_| tokio::spawn(submitter(Arc::clone(workload)))).collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn paced(plan: &Plan, workload: &Arc<Workload>) -> anyhow::Result<Paced> {
    let before = workload.ledger.size();
    let count = (plan.rate * plan.duration.as_secs_f64()) as u64;
    let (done, mut decided) = tokio::sync::mpsc::unbounded_channel();
    let (rate, pacer, runtime) = (plan.rate, Arc::clone(workload), tokio::runtime::Handle::current());
    // A thread of its own: the runtime's timer knows whole milliseconds only, in which decisions would come in bursts.
    let pacer = std::thread::spawn(move || {
        let started = Instant::now();
        let mut sent = 0;
        while sent < count {
            let due = ((started.elapsed().as_secs_f64() * rate) as u64 + 1).min(count);
            for number in sent..due {
                let (workload, done) = (Arc::clone(&pacer), done.clone());
                let start = started + Duration::from_secs_f64(number as f64 / rate);
                runtime.spawn(async move {
                    let decided = workload.decide().await.map(|()| start.elapsed());
                    // Nobody listens any more after a first error.
                    let _ = done.send(decided);
                });
            }
            sent = due.max(sent);
            std::thread::sleep(PACER_REST);
        }
    });
    let mut latency = new_histogram();
    while let Some(decided) = decided.recv().await {
        latency.saturating_record(u64::try_from(decided?.as_micros()).unwrap_or(u64::MAX));
    }
    if pacer.join().is_err() {
        bail!("the pacer panicked");
    }
    if latency.len() != count {
        bail!("{} of {count} decisions were made", latency.len());
    }
    let frames = frames(&plan.folder, before..workload.ledger.size()).await?;
    let groups_a_second = frames.frames as f64 / plan.duration.as_secs_f64();
    let bare = bare(&plan.folder, frames.frame_bytes(), Some(groups_a_second), plan.duration).await?;
    Ok(Paced {
        scheduled: plan.rate,
        decisions: count,
        entries_a_group: frames.entries as f64 / frames.frames.max(1) as f64,
        latency_ms: points(&latency),
        bare_ms: points(&bare.latency),
    })
}

/// p50, p99 and the highest, in ms.
pub fn points(micros: &Histogram<u64>) -> [f64; 3] {
    [micros.value_at_quantile(0.5), micros.value_at_quantile(0.99), micros.max()]
        .map(|value| value as f64 / 1_000.0)
}

/// Resident set of this process.
pub fn resident_mib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no resident size")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_short_run_counts_what_it_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan {
            folder: folder.path().to_owned(),
            holders: 20,
            submitters: 4,
            rounds: 1,
            duration: Duration::from_millis(50),
            rate: 200.0,
            decisions: 0,
        };
        let report = run(&plan).await.unwrap();
        assert_eq!(report.rounds.len(), 1);
        assert!(report.rounds.iter().all(|round| round.entry_bytes > SUBJECT_BYTES as u64));
        assert_eq!(report.paced.decisions, 10);
    }
}
