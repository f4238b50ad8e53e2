//! Folders, commands and checks that the tests share.

pub(crate) use crate::entry::{ORGANISATION, prepared};
pub(crate) use ledger::{
    Command, Committed, DocumentKind, EpochFile, EpochFiles, EpochsInMemory, Fact, Hooks, Key, Ledger,
    LedgerKeys, OpenError, Options, Outcome, Prepared, PreparedHolder, RebuildFrom, Refused, Space, State,
    Subjects,
    record::{
        CounterUse, DocumentState, GrantLink, GrantState, GrantTarget, Idempotency, LicenseState, MAX_LINKS,
        NO_BODY_PART, NewHolder, Record,
    },
};
pub(crate) use ring::{rand::SystemRandom, signature::Ed25519KeyPair};
pub(crate) use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};
pub(crate) use tempfile::TempDir;
pub(crate) use verifier::{
    checkpoint::Checkpoint,
    leaf::{LeafKind, Open, commitment, leaf_bytes},
    merkle::{leaf_hash, verify_inclusion},
    note::SignedNote,
    proof::TlogProof,
    sha256,
};

pub(crate) const ORIGIN: &str = "log.example/test";
pub(crate) const SECRET: &[u8] = b"the name of a person nobody may read";
pub(crate) const HEADER: usize = 64;

pub(crate) static LOG_KEY: LazyLock<Vec<u8>> =
    LazyLock::new(|| Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref().to_vec());

pub(crate) fn keys() -> LedgerKeys {
    keys_with(Arc::new(EpochsInMemory::new(ORIGIN, [3; 32])))
}

pub(crate) fn keys_with(epochs: Arc<dyn EpochFiles>) -> LedgerKeys {
    LedgerKeys { journal: [1; 32], index: [2; 32], log_pkcs8: LOG_KEY.clone(), epochs }
}

pub(crate) fn options(folder: &Path) -> Options {
    Options {
        segment_bytes: 256 << 10,
        group_bytes: 64 << 10,
        reserve_percent: 0,
        on_fatal: |_| {},
        ..Options::new(folder, ORIGIN)
    }
}

/// Opens; waits for the threads of a handle that was dropped without closing.
pub(crate) fn open_with(options: Options) -> (Ledger, ledger::Opened) {
    loop {
        let epochs = Arc::new(EpochsInMemory::new(&options.origin, [3; 32]));
        match Ledger::open(options.clone(), keys_with(epochs)) {
            Err(OpenError::Locked) => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

pub(crate) fn open(folder: &Path) -> Ledger {
    open_with(options(folder)).0
}

pub(crate) fn open_without_image(folder: &Path) -> Ledger {
    open_with(Options { image: false, ..options(folder) }).0
}

pub(crate) fn refusal(folder: &Path) -> OpenError {
    match Ledger::open(Options { image: false, ..options(folder) }, keys()) {
        Ok(_) => panic!("the journal was accepted"),
        Err(error) => error,
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap()
}

pub(crate) fn command(record: &Record, subjects: Vec<Vec<u8>>) -> Command {
    Command {
        permit_or_denial: prepared(record, subjects),
        reads: Vec::new(),
        ends_at_ms: u64::MAX,
        inline_proof: false,
    }
}

pub(crate) async fn commit(ledger: &Ledger, command: Command) -> Committed {
    match ledger.commit(command).await.unwrap() {
        Outcome::Committed(committed) => committed,
        Outcome::Changed => panic!("changed"),
    }
}

pub(crate) fn commit_now(ledger: &Ledger, command: Command) -> Committed {
    runtime().block_on(commit(ledger, command))
}

pub(crate) fn outcome(ledger: &Ledger, command: Command) -> Result<Outcome, Refused> {
    runtime().block_on(ledger.commit(command))
}

pub(crate) fn note(ledger: &Ledger) -> Command {
    command(&Record::default(), vec![ledger.seal_subject(0, &[], SECRET)])
}

pub(crate) fn new_holder(holder: &PreparedHolder) -> NewHolder {
    holder.entered()
}

pub(crate) fn license(key: Key, version: u32, holders: Vec<Key>, body_part: u8) -> LicenseState {
    LicenseState {
        key,
        version,
        state: 1,
        certificate_version: 1,
        valid_from_day: 20_000,
        valid_until_day: i32::MAX,
        taken_over: false,
        written_by_04: false,
        number_tag: u64::from(key[0]),
        holders,
        body_part,
    }
}

pub(crate) fn key(n: u8) -> Key {
    [n; 16]
}

/// Commits a new holder with a license.
pub(crate) fn issue(ledger: &Ledger, n: u8) -> (Committed, PreparedHolder) {
    issue_to(ledger, n, key(n))
}

/// Commits license `n` of a new holder with this keyed hash.
pub(crate) fn issue_to(ledger: &Ledger, n: u8, holder: Key) -> (Committed, PreparedHolder) {
    let holder = ledger.new_holder(holder);
    let record = Record {
        concerned: vec![holder.label],
        new_holders: vec![new_holder(&holder)],
        licenses: vec![license(key(n), 1, vec![holder.label], 0)],
        ..Record::default()
    };
    let body = ledger.seal_subject(0, std::slice::from_ref(&holder.holder_key), SECRET);
    let mut command = command(&record, vec![body]);
    command.reads = vec![(Fact::License(key(n)), 0), (Fact::Holder(holder.key), 0)];
    command.inline_proof = true;
    (commit_now(ledger, command), holder)
}

/// A use of license `n` that concerns its holder.
pub(crate) fn use_of(ledger: &Ledger, n: u8) -> Command {
    let license = ledger.state().license(&key(n)).unwrap();
    let holders: Vec<_> =
        license.holders.iter().map(|label| ledger.state().holder_key(label).unwrap()).collect();
    let record = Record { concerned: license.holders, ..Record::default() };
    let mut command = command(&record, vec![ledger.seal_subject(0, &holders, SECRET)]);
    command.reads = vec![(Fact::License(key(n)), license.version)];
    command
}

pub(crate) fn segment_path(folder: &Path, number: u32) -> PathBuf {
    folder.join("journal").join(format!("{number:010}.mxj"))
}

/// A guard file by the format: the newer slot says how far the journal was released.
pub(crate) fn guard_file(frames: u64, size: u64, root: [u8; 32]) -> Vec<u8> {
    let slot = |sequence: u64, size: u64, frames: u64, root: [u8; 32]| {
        let mut slot =
            [&b"MXG1\0\0\0\0"[..], &sequence.to_be_bytes(), &size.to_be_bytes(), &frames.to_be_bytes()]
                .concat();
        slot.extend_from_slice(&root);
        slot.extend_from_slice(&sha256(&[ORIGIN.as_bytes()]));
        slot.resize(124, 0);
        slot.extend_from_slice(&crc32c::crc32c(&slot).to_be_bytes());
        slot.resize(4096, 0);
        slot
    };
    [slot(0, 0, 0, verifier::merkle::EMPTY_ROOT), slot(1, size, frames, root)].concat()
}

pub(crate) fn guard_path(folder: &Path) -> PathBuf {
    folder.join("journal/guard")
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy(&source, &target);
        } else if let Err(error) = fs::copy(&source, &target) {
            // A file that was renamed meanwhile, as a crash would also find it.
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
    }
}

/// Every file below a data folder but the store's own, which its engine may write to when it is only opened. A file that
/// goes while its folder is listed is as good as gone before.
pub(crate) fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true if path != folder.join("store") => folders.push(path),
                true => drop(found.insert(path, Vec::new())),
                false => match fs::read(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    bytes => drop(found.insert(path, bytes.unwrap())),
                },
            }
        }
    }
    found
}

/// Frames of a segment: offset, length, kind. Reads the lengths alone: a second, naive reader of the format.
pub(crate) fn frames(bytes: &[u8]) -> Vec<(usize, usize, u8)> {
    let mut found = Vec::new();
    let mut at = HEADER;
    while bytes.get(at..at + 4) == Some(b"MXF1") {
        let length = u32::from_be_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        found.push((at, length, bytes[at + 5]));
        at += length;
    }
    found
}

pub(crate) fn verify(folder: &Path) -> Result<ledger::LogReport, OpenError> {
    ledger::verify_log(options(folder), keys(), |_| {})
}

/// The receipt opens its leaf, and the proof leads from it to the signed checkpoint.
pub(crate) fn check_receipt(ledger: &Ledger, committed: &Committed, proof: &TlogProof) {
    let open = Open::parse(&committed.open).unwrap();
    assert_eq!((open.index, open.time_ms), (committed.index, committed.time_ms));
    let leaf = leaf_bytes(LeafKind::Entry, &commitment(&committed.salt, &committed.open, &committed.c));
    assert_eq!(leaf_hash(&leaf), committed.leaf_hash);
    let note = SignedNote::parse(&proof.checkpoint).unwrap();
    let note = note.verify(std::slice::from_ref(ledger.verifier_key())).unwrap();
    let checkpoint = Checkpoint::parse(&note).unwrap();
    assert_eq!((checkpoint.origin.as_str(), proof.index), (ORIGIN, committed.index));
    assert!(verify_inclusion(
        committed.index,
        checkpoint.size,
        &committed.leaf_hash,
        &proof.path,
        &checkpoint.root
    ));
}
