//! What shows that a journal went back, beside its guard; and that nothing is changed before a start is accepted.

use crate::rig::*;
use ledger::Engine;
use zeroize::Zeroizing;

const DAY_MS: u64 = 86_400_000;
const NOW_MS: u64 = 20_000 * DAY_MS;

fn refused(options: &Options) -> OpenError {
    let before = tree(&options.folder);
    let refusal = Ledger::open(options.clone(), keys()).err().expect("refused");
    let after = tree(&options.folder);
    let changed = before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path));
    assert_eq!(changed.collect::<Vec<_>>(), Vec::<&PathBuf>::new(), "{refusal}");
    refusal
}

fn snapshotting(folder: &Path, engine: Engine) -> Options {
    let snapshot_interval = Duration::ZERO;
    Options { engine, snapshot_interval, snapshot_segments: u32::MAX, ..options(folder) }
}

/// Commits a license and waits for a snapshot of everything there is; logs its digest.
fn issue_and_log_snapshot(ledger: &Ledger, n: u8) {
    let size = issue(ledger, n).0.index + 1;
    let digest = loop {
        match ledger.snapshot_to_log() {
            Some(digest) if digest.size >= size => break digest,
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    commit_now(ledger, command(&Record { state_digest: Some(digest), ..Record::default() }, Vec::new()));
    ledger.snapshot_logged(&digest);
}

/// A data folder whose journal and tiles are those of an earlier moment, `starts` starts ago.
fn rolled_back(engine: Engine, starts: usize) -> TempDir {
    let dir = TempDir::new().unwrap();
    let old = TempDir::new().unwrap();
    let options = snapshotting(dir.path(), engine);
    let ledger = open_with(options.clone()).0;
    issue_and_log_snapshot(&ledger, 1);
    if starts == 0 {
        // The same segment goes on: what is missing later is its end.
        while ledger.published().0 < ledger.size() {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(1200));
        for part in ["journal", "tiles"] {
            copy(&dir.path().join(part), &old.path().join(part));
        }
        issue_and_log_snapshot(&ledger, 2);
        ledger.close();
    } else {
        ledger.close();
        for part in ["journal", "tiles"] {
            copy(&dir.path().join(part), &old.path().join(part));
        }
        for start in 0..starts {
            let ledger = open_with(options.clone()).0;
            issue_and_log_snapshot(&ledger, 2 + start as u8);
            ledger.close();
        }
    }
    for part in ["journal", "tiles"] {
        fs::remove_dir_all(dir.path().join(part)).unwrap();
        copy(&old.path().join(part), &dir.path().join(part));
    }
    dir
}

fn is_rolled_back(error: &OpenError) -> bool {
    matches!(error, OpenError::RolledBack { published, journal } if published > journal)
}

#[test]
fn an_image_ahead_of_the_journal_proves_a_roll_back() {
    for engine in Engine::ALL {
        for starts in 0..3 {
            let dir = rolled_back(engine, starts);
            fs::remove_dir_all(dir.path().join("snapshots")).unwrap();
            let options = snapshotting(dir.path(), engine);
            for _ in 0..2 {
                let error = refused(&options);
                assert!(is_rolled_back(&error), "{} after {starts} starts: {error}", engine.name());
            }
            // A rebuild would delete what shows it.
            for from in [RebuildFrom::Snapshot, RebuildFrom::Zero] {
                let error = ledger::rebuild(options.clone(), keys(), from, &|_| {}).unwrap_err();
                assert!(is_rolled_back(&error), "{error}");
            }
            assert!(is_rolled_back(&refused(&options)));
            let error = ledger::verify_log(options, keys(), |_| {}).unwrap_err();
            assert!(is_rolled_back(&error), "{error}");
        }
    }
}

#[test]
fn a_snapshot_ahead_of_the_journal_proves_a_roll_back() {
    for starts in 0..3 {
        let dir = rolled_back(Engine::Sled, starts);
        fs::remove_dir_all(dir.path().join("store")).unwrap();
        for image in [true, false] {
            let error = refused(&Options { image, ..snapshotting(dir.path(), Engine::Sled) });
            assert!(is_rolled_back(&error), "after {starts} starts: {error}");
        }
        let options = snapshotting(dir.path(), Engine::Sled);
        let error = ledger::rebuild(options.clone(), keys(), RebuildFrom::Zero, &|_| {}).unwrap_err();
        assert!(is_rolled_back(&error), "{error}");
        let error = ledger::verify_log(options, keys(), |_| {}).unwrap_err();
        assert!(is_rolled_back(&error), "{error}");
    }
}

#[test]
fn a_doubtful_image_stays_where_it_is_until_every_refusal_is_behind() {
    let dir = TempDir::new().unwrap();
    let at = |ms: u64| {
        let hooks = Hooks { clock: Some(Arc::new(move || ms)), ..Hooks::default() };
        let probe = |_: &Path, _: Engine| Err("killed".to_owned());
        Options { hooks, probe: Some(Arc::new(probe)), ..options(dir.path()) }
    };
    let ledger = open_with(Options { probe: None, ..at(NOW_MS) }).0;
    issue(&ledger, 1);
    ledger.close();
    assert!(matches!(
        refused(&Options { least_size: 2, ..at(NOW_MS) }),
        OpenError::RolledBack { published: 2, journal: 1 }
    ));
    assert!(matches!(refused(&at(NOW_MS + 400 * DAY_MS)), OpenError::Clock { .. }));
    // Another engine's image is removed when it is no longer kept up to date, and not before.
    let other = Options { engine: Engine::Fjall, ..at(NOW_MS + 400 * DAY_MS) };
    assert!(matches!(refused(&other), OpenError::Clock { .. }));
    assert!(dir.path().join("store/sled").exists());
    let (ledger, opened) = open_with(at(NOW_MS));
    assert!(!opened.from_image && dir.path().join("store.bad-0").exists());
    ledger.close();
}

/// Epoch files that may only be touched under the journal's lock.
struct UnderLock {
    inner: EpochsInMemory,
    folder: PathBuf,
}

impl UnderLock {
    fn look(&self) {
        let lock = fs::File::open(self.folder.join("journal/lock")).expect("there is a lock");
        assert!(matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)), "read without the lock");
    }
}

impl EpochFiles for UnderLock {
    fn load(&self, file: EpochFile) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        self.look();
        self.inner.load(file)
    }

    fn replace(&self, file: EpochFile, content: &[u8]) -> io::Result<()> {
        self.look();
        self.inner.replace(file, content)
    }

    fn remove(&self, file: EpochFile) -> io::Result<()> {
        self.look();
        self.inner.remove(file)
    }

    fn tidy(&self) -> io::Result<()> {
        self.look();
        self.inner.tidy()
    }
}

#[test]
fn epoch_files_are_read_under_the_journals_lock() {
    let dir = TempDir::new().unwrap();
    let files = || {
        let inner = EpochsInMemory::new(ORIGIN, [3; 32]);
        keys_with(Arc::new(UnderLock { inner, folder: dir.path().to_owned() }))
    };
    let (ledger, _) = Ledger::open(options(dir.path()), files()).unwrap();
    issue(&ledger, 1);
    ledger.close();
    for from in [RebuildFrom::Snapshot, RebuildFrom::Zero] {
        ledger::rebuild(options(dir.path()), files(), from, &|_| {}).unwrap();
    }
    // A second process learns that it is second, not what it thinks of files that are being changed.
    let (ledger, _) = Ledger::open(options(dir.path()), files()).unwrap();
    let error = Ledger::open(options(dir.path()), files()).err().unwrap();
    assert!(matches!(error, OpenError::Locked), "{error}");
    ledger.close();
}

#[test]
fn a_log_that_lost_its_end_is_read_as_far_as_it_goes() {
    let dir = TempDir::new().unwrap();
    let ledger = open_without_image(dir.path());
    for n in 1..=3 {
        issue(&ledger, n);
    }
    ledger.close();
    let read = |lost: bool| {
        let mut seen = 0;
        let visit = |_: ledger::Entry| seen += 1;
        let tail = match lost {
            true => ledger::entries_of_lost(options(dir.path()), keys(), visit),
            false => ledger::entries(options(dir.path()), keys(), visit),
        };
        tail.map(|tail| (tail.size, seen))
    };
    assert_eq!((read(false).unwrap(), read(true).unwrap()), ((3, 3), (3, 3)));
    let guard = fs::read(guard_path(dir.path())).unwrap();
    let no_guard: Option<Vec<u8>> = None;
    for guard in [
        Some(guard_file(99, 42, [7; 32])),
        Some(guard_file(1, 1, [7; 32])),
        Some(vec![0; guard.len()]),
        no_guard,
    ] {
        match guard {
            Some(bytes) => fs::write(guard_path(dir.path()), bytes).unwrap(),
            None => fs::remove_file(guard_path(dir.path())).unwrap(),
        }
        assert!(matches!(read(false), Err(OpenError::CutShort { .. } | OpenError::Guard(_))));
        assert_eq!(read(true).unwrap(), (3, 3));
    }
    // Damage is something else.
    let path = segment_path(dir.path(), 0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[HEADER + 100] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(matches!(read(true), Err(OpenError::Corrupt { .. })));
}

#[test]
fn the_first_entry_of_a_moment_is_found_by_segment_and_frame() {
    let dir = TempDir::new().unwrap();
    let now = Arc::new(AtomicU64::new(NOW_MS));
    let clock = Arc::clone(&now);
    let hooks = Hooks { clock: Some(Arc::new(move || clock.load(Ordering::Relaxed))), ..Hooks::default() };
    let ledger = open_with(Options { hooks, ..options(dir.path()) }).0;
    assert_eq!(ledger.first_at(0).unwrap(), 0);
    let mut times = Vec::new();
    while !segment_path(dir.path(), 3).exists() {
        let part = ledger.seal_subject(0, &[], &[7; 20_000]);
        times.push(commit_now(&ledger, command(&Record::default(), vec![part])).time_ms);
        // Some share a moment.
        now.fetch_add(if times.len() % 3 == 0 { 7 } else { 0 }, Ordering::Relaxed);
    }
    let last = *times.last().unwrap();
    for ms in (NOW_MS - 2)..=(last + 2) {
        let expected = times.iter().position(|time| *time >= ms).unwrap_or(times.len());
        assert_eq!(ledger.first_at(ms).unwrap(), expected as u64, "{ms}");
    }
    assert_eq!(ledger.first_at(u64::MAX).unwrap(), times.len() as u64);
    ledger.close();
}
