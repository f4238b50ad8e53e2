//! Groups through the real ledger on a real disk, beside a bare append + `fdatasync` of as many bytes.
//!
//! The sequencer is held (a hook between its sync and its release) until the commands of several groups are queued;
//! the time runs from letting it go to the last answer, and is divided by the groups. So every group has exactly the
//! size in its name, and its time holds all that it costs: judging, completing, hashing, sealing, signing, one
//! write, one `fdatasync`, applying, releasing.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bench::entry::{SUBJECT_BYTES, command};
use bench::{baseline::BareFile, journal};
use criterion::{Criterion, Throughput};
use ledger::record::Record;
use ledger::{Command, EpochsInMemory, Hooks, Key, Label, Ledger, LedgerKeys, Options, Outcome};
use ring::{rand::SystemRandom, signature::Ed25519KeyPair};
use tokio::runtime::Runtime;
use verifier::leaf::{
    HolderLink, LeafKind, OPEN_FIXED_BYTES, commitment, inner_commitment, insider_digest, leaf_bytes,
};
use verifier::merkle::leaf_hash;
use verifier::sha256;

/// Holders that the entries concern in turn.
const HOLDERS: u8 = 64;
/// State record of a use, about.
const RECORD_BYTES: usize = 64;
/// Most groups, and most commands, that are queued at once.
const QUEUED_GROUPS: u64 = 64;
const QUEUED_COMMANDS: usize = 16_384;
/// Sizes of a group.
const SIZES: [usize; 3] = [1, 64, 512];

/// Holds the sequencer after a sync while it is wanted.
#[derive(Default)]
struct Gate {
    wanted: AtomicBool,
    /// The sequencer stands in the gate.
    held: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    /// Called by the sequencer: stands here as long as the gate is wanted.
    fn pass(&self) {
        if !self.wanted.load(Ordering::Acquire) {
            return;
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = true;
        self.changed.notify_all();
        while self.wanted.load(Ordering::Acquire) {
            held = self.changed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        *held = false;
    }

    fn wait_until_held(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while !*held {
            held = self.changed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close(&self) {
        self.wanted.store(true, Ordering::Release);
    }

    fn open(&self) {
        let _held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        self.wanted.store(false, Ordering::Release);
        self.changed.notify_all();
    }
}

struct Bench {
    ledger: Ledger,
    gate: Arc<Gate>,
    runtime: Runtime,
    labels: Vec<Label>,
}

impl Bench {
    fn open(folder: &Path, size: usize) -> Self {
        let gate = Arc::new(Gate::default());
        let hook = Arc::clone(&gate);
        let log = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("randomness");
        let keys = LedgerKeys {
            journal: [1; 32],
            index: [2; 32],
            log_pkcs8: log.as_ref().to_vec(),
            epochs: Arc::new(EpochsInMemory::new("bench/group-commit", [3; 32])),
        };
        let options = Options {
            queue: QUEUED_COMMANDS + 1,
            group_entries: size,
            hooks: Hooks { after_sync: Some(Arc::new(move |_| hook.pass())), ..Hooks::default() },
            ..Options::new(folder, "bench/group-commit")
        };
        let (ledger, _) = Ledger::open(options, keys).expect("a new ledger");
        let runtime = Runtime::new().expect("a runtime");
        let holders: Vec<_> = (0..HOLDERS).map(|number| ledger.new_holder(Key::from([number; 16]))).collect();
        let record = Record {
            concerned: holders.iter().map(|holder| holder.label).collect(),
            new_holders: holders.iter().map(|holder| holder.entered()).collect(),
            ..Record::default()
        };
        runtime.block_on(commit(ledger.clone(), command(&record, Vec::new(), Vec::new())));
        let labels = holders.iter().map(|holder| holder.label).collect();
        Self { ledger, gate, runtime, labels }
    }

    /// An entry like that of a verify request: one holder, one subject part under the holder's key.
    fn entry(&self, number: usize) -> Command {
        let label = self.labels[number % self.labels.len()];
        let holder = self.ledger.state().holder_key(&label).expect("the holder is known");
        let part = self.ledger.seal_subject(0, &[holder], &[7; SUBJECT_BYTES]);
        command(&Record { concerned: vec![label], ..Record::default() }, Vec::new(), vec![part])
    }

    /// Time of `groups` groups of `size` entries.
    fn groups(&self, groups: u64, size: usize) -> Duration {
        let count = groups as usize * size;
        let commands: Vec<_> = (0..count).map(|number| self.entry(number)).collect();
        self.gate.close();
        let before = self.runtime.spawn(commit(self.ledger.clone(), self.entry(0)));
        self.gate.wait_until_held();
        let tasks: Vec<_> = commands
            .into_iter()
            .map(|command| self.runtime.spawn(commit(self.ledger.clone(), command)))
            .collect();
        while self.ledger.health().queue < count {
            std::thread::yield_now();
        }
        let started = Instant::now();
        self.gate.open();
        self.runtime.block_on(async {
            for task in std::iter::once(before).chain(tasks) {
                task.await.expect("a commit");
            }
        });
        started.elapsed()
    }

    /// Bytes of the frame that one group of `size` entries makes.
    fn frame_bytes(&self, size: usize, folder: &Path) -> u64 {
        // The sequencer may stand in the gate with a seal; then the group has one entry more, and is made again.
        loop {
            self.groups(1, size);
            let end = self.ledger.size();
            let indexes = end - size as u64..end;
            let frames = journal::frames(&folder.join("journal"), indexes).expect("the journal");
            if (frames.frames, frames.entries) == (1, size as u64) {
                return frames.bytes;
            }
        }
    }
}

async fn commit(ledger: Ledger, command: Command) {
    match ledger.commit(command).await {
        Ok(Outcome::Committed(_)) => {}
        other => unreachable!("nothing else changes this ledger: {other:?}"),
    }
}

/// What the ledger must hash for a group, on one thread: each leaf twice and each subject part once (the bit-flip
/// guard), and the frame for the next frame's chain.
fn hash_all(frame: &[u8], size: usize) {
    let open = [1; OPEN_FIXED_BYTES + 16];
    for _ in 0..size {
        for _ in 0..2 {
            let insider = insider_digest(&[2; 32], &sha256(&[black_box(&[3; RECORD_BYTES])]), &[1, 0, 0, 1]);
            let c = inner_commitment(&insider, [HolderLink::digest_of(&[4; HolderLink::BYTES])]);
            black_box(leaf_hash(&leaf_bytes(LeafKind::Entry, &commitment(&[5; 32], black_box(&open), &c))));
        }
        black_box(sha256(&[black_box(&[6; SUBJECT_BYTES])]));
    }
    black_box(sha256(&[black_box(frame)]));
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("group-commit");
    for size in SIZES {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let bench = Bench::open(folder.path(), size);
        let bytes = bench.frame_bytes(size, folder.path());
        let frame: Vec<u8> = (0..bytes).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 7) as u8).collect();
        let mut bare = BareFile::create(folder.path()).expect("a file");
        let at_once = QUEUED_GROUPS.min((QUEUED_COMMANDS / size) as u64);
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(format!("bare-{bytes}-bytes/{size}"), |bencher| {
            bencher.iter(|| bare.append(&frame).expect("an append"));
        });
        group.bench_function(format!("sha-256-of-it-all/{size}"), |bencher| {
            bencher.iter(|| hash_all(&frame, size));
        });
        group.bench_function(format!("ledger/{size}"), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut left = rounds;
                let mut elapsed = Duration::ZERO;
                while left > 0 {
                    let now = left.min(at_once);
                    elapsed += bench.groups(now, size);
                    left -= now;
                }
                elapsed
            });
        });
        let Bench { ledger, .. } = bench;
        ledger.close();
    }
    group.finish();
    criterion.final_summary();
}
