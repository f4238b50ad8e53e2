//! Engines, snapshots, rebuilding, archiving and the scrub: what is derived may be lost, and what is moved is found.

use crate::rig::*;
use ledger::{Engine, ImageFound, ReadError, record::StateDigest};
use std::time::Instant;

/// Snapshots whenever something changed.
fn snapshotting(folder: &Path, engine: Engine) -> Options {
    Options {
        engine,
        snapshot_interval: Duration::ZERO,
        snapshot_segments: u32::MAX,
        scrub_bytes_per_second: u64::MAX,
        ..options(folder)
    }
}

fn log(ledger: &Ledger, digest: StateDigest) {
    commit_now(ledger, command(&Record { state_digest: Some(digest), ..Record::default() }, Vec::new()));
    ledger.snapshot_logged(&digest);
}

/// Waits for a snapshot of everything there is, and logs its digest.
fn log_snapshot(ledger: &Ledger) -> StateDigest {
    let size = ledger.size();
    loop {
        match ledger.snapshot_to_log() {
            Some(digest) if digest.size >= size => {
                log(ledger, digest);
                return digest;
            }
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn rebuilt(options: Options, from: RebuildFrom) -> ledger::Rebuilt {
    let seen = std::cell::Cell::new(0);
    let done = ledger::rebuild(options, keys(), from, &|entries| seen.set(entries)).unwrap();
    assert_eq!(seen.get(), done.size, "progress reaches the end");
    done
}

fn aside(folder: &Path) -> usize {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("store.bad-")).count()
}

fn snapshots(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> =
        fs::read_dir(folder.join("snapshots")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

#[test]
fn a_snapshot_under_load_is_exactly_the_state_at_a_seal() {
    for engine in Engine::ALL {
        let dir = TempDir::new().unwrap();
        let options = snapshotting(dir.path(), engine);
        let ledger = open_with(options.clone()).0;
        for n in 1..=20 {
            issue(&ledger, n);
        }
        let stop = AtomicBool::new(false);
        let logged = std::thread::scope(|scope| {
            for thread in 0..3u8 {
                let (ledger, stop) = (&ledger, &stop);
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    let mut n = thread;
                    while !stop.load(Ordering::Relaxed) {
                        n = 1 + (n + 6) % 20;
                        // Two of them may name the same holder at once; the license stays as it is.
                        runtime.block_on(commit(ledger, use_of(ledger, n)));
                    }
                });
            }
            let mut logged = 0;
            while logged < 4 {
                if let Some(digest) = ledger.snapshot_to_log() {
                    log(&ledger, digest);
                    logged += 1;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            stop.store(true, Ordering::Relaxed);
            logged
        });
        let digest = ledger.state().digest();
        ledger.close();
        let report = ledger::verify_log(options.clone(), keys(), |_| {}).unwrap();
        assert_eq!(report.problems, Vec::<String>::new(), "{}", engine.name());
        assert_eq!((report.state_digest, report.logged_digests), (digest, logged));
        assert!(report.snapshots >= 1 && report.image == ImageFound::Good, "{report:?}");
        assert!(snapshots(dir.path()).len() <= 2);
        let (ledger, opened) = open_with(options);
        assert_eq!((ledger.state().digest(), opened.from_image), (digest, true));
        ledger.close();
    }
}

#[test]
fn a_rebuild_from_a_snapshot_ends_where_one_from_zero_does() {
    for engine in Engine::ALL {
        let dir = TempDir::new().unwrap();
        let options = snapshotting(dir.path(), engine);
        let ledger = open_with(options.clone()).0;
        for n in 1..=10 {
            issue(&ledger, n);
        }
        let first = log_snapshot(&ledger);
        for n in 1..=5 {
            commit_now(&ledger, use_of(&ledger, n));
        }
        let second = log_snapshot(&ledger);
        issue(&ledger, 11);
        let (digest, size) = (ledger.state().digest(), ledger.size());
        ledger.close();
        // Closing may have made one that nobody logged: it must not count.
        for path in snapshots(dir.path()) {
            let of = |digest: &StateDigest| path.ends_with(format!("{:020}.mxs", digest.size));
            if !of(&first) && !of(&second) {
                fs::remove_file(path).unwrap();
            }
        }
        let quiet = Options { snapshot_interval: Duration::from_secs(3600), ..options };
        let done = rebuilt(quiet.clone(), RebuildFrom::Snapshot);
        assert_eq!((done.state_digest, done.from_snapshot, done.size), (digest, Some(second.size), size));
        assert!(done.replayed < size);
        let done = rebuilt(quiet.clone(), RebuildFrom::Zero);
        assert_eq!((done.state_digest, done.from_snapshot, done.replayed), (digest, None, size));

        // Lost image: a start uses the snapshot too, and what it makes is an image again.
        fs::remove_dir_all(dir.path().join("store")).unwrap();
        for expected in [Some(second.size), None] {
            let (ledger, opened) = open_with(quiet.clone());
            assert_eq!((ledger.state().digest(), opened.from_snapshot), (digest, expected));
            assert_eq!(opened.from_image, expected.is_none());
            ledger.close();
        }

        // One bit anywhere, or an end cut off: passed over, and verify says so.
        let path = snapshots(dir.path()).pop().unwrap();
        let good = fs::read(&path).unwrap();
        for damage in (0..good.len()).step_by(good.len() / 7).chain([usize::MAX]) {
            let mut bytes = good.clone();
            match bytes.get_mut(damage) {
                Some(byte) => *byte ^= 4,
                None => bytes.truncate(good.len() - 1),
            }
            fs::write(&path, bytes).unwrap();
            let report = ledger::verify_log(quiet.clone(), keys(), |_| {}).unwrap();
            assert_eq!(report.problems.len(), 1, "{damage}: {:?}", report.problems);
            let done = rebuilt(quiet.clone(), RebuildFrom::Snapshot);
            assert_eq!((done.state_digest, done.size), (digest, size), "{damage}");
            assert_ne!(done.from_snapshot, Some(second.size), "{damage}");
        }
        fs::write(&path, &good).unwrap();
        assert_eq!(rebuilt(quiet, RebuildFrom::Snapshot).from_snapshot, Some(second.size));
    }
}

#[test]
fn a_snapshot_that_the_journal_does_not_confirm_is_never_used() {
    let dir = TempDir::new().unwrap();
    let options = snapshotting(dir.path(), Engine::Sled);
    let ledger = open_with(options.clone()).0;
    for n in 1..=5 {
        issue(&ledger, n);
    }
    while ledger.snapshot_to_log().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let digest = ledger.state().digest();
    ledger.close();
    assert!(!snapshots(dir.path()).is_empty());
    let done = rebuilt(options, RebuildFrom::Snapshot);
    assert_eq!((done.state_digest, done.from_snapshot), (digest, None));
}

#[test]
fn changing_the_engine_makes_the_image_anew_and_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let of = |engine| Options { engine, ..options(dir.path()) };
    let ledger = open_with(of(Engine::Sled)).0;
    for n in 1..=5 {
        issue(&ledger, n);
    }
    let digest = ledger.state().digest();
    ledger.close();
    for (engine, from_image) in [
        (Engine::Sled, true),
        (Engine::Fjall, false),
        (Engine::Fjall, true),
        (Engine::Sled, false),
        (Engine::Sled, true),
    ] {
        let (ledger, opened) = open_with(of(engine));
        assert_eq!((ledger.state().digest(), opened.from_image), (digest, from_image), "{}", engine.name());
        ledger.close();
        for other in Engine::ALL {
            assert_eq!(dir.path().join("store").join(other.name()).exists(), other == engine);
        }
    }
    assert_eq!(aside(dir.path()), 0);
}

#[test]
fn a_doubtful_image_is_moved_aside_and_made_anew() {
    for engine in Engine::ALL {
        let dir = TempDir::new().unwrap();
        let of = || Options { engine, ..options(dir.path()) };
        let ledger = open_with(of()).0;
        for n in 1..=20 {
            issue(&ledger, n);
        }
        let digest = ledger.state().digest();
        ledger.close();
        let reopened = |options: Options, from_image: bool| {
            let (ledger, opened) = open_with(options);
            assert_eq!(
                (ledger.state().digest(), opened.from_image),
                (digest, from_image),
                "{}",
                engine.name()
            );
            ledger.close();
        };
        reopened(of(), true);

        // The probe says no (in production: a child that failed, was killed or took too long).
        let asked = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&asked);
        let probe = move |_: &Path, _: Engine| {
            counted.fetch_add(1, Ordering::Relaxed);
            Err("killed".to_owned())
        };
        reopened(Options { probe: Some(Arc::new(probe)), ..of() }, false);
        assert_eq!((asked.load(Ordering::Relaxed), aside(dir.path())), (1, 1));
        let of = || Options { probe: Some(Arc::new(probe_in_a_child)), ..of() };
        reopened(of(), true);

        // Damaged bytes: whatever the engine makes of them (it may ask for 35 GB and abort), the state is right, and
        // verify sees a bad image.
        let store = dir.path().join("store").join(engine.name());
        let good = TempDir::new().unwrap();
        copy(&store, good.path());
        for damage in 0..6usize {
            let mut paths = files(&store);
            paths.sort();
            for path in paths {
                let mut bytes = fs::read(&path).unwrap();
                match damage {
                    0 => bytes.truncate(bytes.len() / 2),
                    1 => bytes.fill(0xa5),
                    _ => bytes.iter_mut().skip(damage * 31).step_by(401).for_each(|byte| *byte ^= 0x20),
                }
                fs::write(&path, bytes).unwrap();
            }
            let report = ledger::verify_log(of(), keys(), |_| {}).unwrap();
            assert_eq!(report.image == ImageFound::Bad, !report.problems.is_empty(), "{report:?}");
            let (ledger, _) = open_with(of());
            assert_eq!(ledger.state().digest(), digest, "{} damage {damage}", engine.name());
            ledger.close();
            fs::remove_dir_all(&store).unwrap();
            copy(good.path(), &store);
        }
    }
}

/// Runs [`the_child_of_a_probe`] in a process of its own.
fn probe_in_a_child(data: &Path, engine: Engine) -> Result<(), String> {
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::the_child_of_a_probe", "--test-threads", "1"])
        .env(PROBE, engine.name())
        .env(PROBE_DATA, data)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

const PROBE: &str = "LEDGER_TEST_PROBE";
const PROBE_DATA: &str = "LEDGER_TEST_PROBE_DATA";

/// Does nothing but in a child of [`probe_in_a_child`].
#[test]
fn the_child_of_a_probe() {
    let Some(data) = std::env::var_os(PROBE_DATA) else { return };
    let name = std::env::var(PROBE).unwrap();
    let engine = Engine::ALL.into_iter().find(|engine| engine.name() == name).unwrap();
    ledger::check_store(Path::new(&data), engine, ORIGIN).unwrap();
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Commits notes until the journal has so many segments.
fn fill(ledger: &Ledger, folder: &Path, segments: u32) {
    while !segment_path(folder, segments).exists() {
        let big = ledger.seal_subject(0, &[], &[7; 20_000]);
        commit_now(ledger, command(&Record::default(), vec![big]));
    }
}

#[test]
fn archived_segments_are_found_where_they_are() {
    let (dir, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let archive = elsewhere.path().join("archive");
    let options = Options { archive: Some(archive.clone()), ..snapshotting(dir.path(), Engine::Sled) };
    let ledger = open_with(options.clone()).0;
    for n in 1..=5 {
        issue(&ledger, n);
    }
    assert!(matches!(ledger::archive(&options, &keys(), 1), Err(OpenError::NotYet { before: 1, limit: 0 })));
    fill(&ledger, dir.path(), 4);
    for n in 6..=7 {
        issue(&ledger, n);
        log_snapshot(&ledger);
    }
    while snapshots(dir.path()).len() < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let body = ledger.state().license(&key(1)).unwrap().body;
    assert_eq!(body.segment(), 0);
    assert_eq!(ledger.open_subject(body).unwrap(), SECRET);
    assert!(matches!(ledger::archive(&options, &keys(), 99), Err(OpenError::NotYet { before: 99, .. })));
    let none = Options { archive: None, ..options.clone() };
    assert!(matches!(ledger::archive(&none, &keys(), 2), Err(OpenError::Options(_))));
    let moved = ledger::archive(&options, &keys(), 2).unwrap();
    assert_eq!((moved.segments, ledger::archive(&options, &keys(), 2).unwrap().segments), (2, 0));
    assert!(!segment_path(dir.path(), 0).exists() && archive.join("0000000000.mxj").exists());
    // The keeper looks at the journal's files each second: it must not take archiving for a loss.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        commit_now(&ledger, note(&ledger));
    }
    assert_eq!(ledger.health().stopped, None);
    let digest = ledger.state().digest();
    ledger.close();

    let quiet = Options { snapshot_interval: Duration::from_secs(3600), ..options };
    let check = |at_hand: bool, from_image: bool| {
        let (ledger, opened) = open_with(quiet.clone());
        assert_eq!((ledger.state().digest(), opened.from_image), (digest, from_image));
        match ledger.open_subject(body) {
            Ok(plain) => assert!(at_hand && plain == SECRET),
            Err(ReadError::Missing(0)) => assert!(!at_hand),
            Err(error) => panic!("{error}"),
        }
        ledger.close();
    };
    check(true, true);
    assert_eq!(ledger::verify_log(quiet.clone(), keys(), |_| {}).unwrap().problems, Vec::<String>::new());

    // The archive goes away: image and snapshot suffice for a start, and what is missing is said to be missing.
    let away = elsewhere.path().join("away");
    fs::rename(&archive, &away).unwrap();
    check(false, true);
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    check(false, false);
    let missing = |error| matches!(error, OpenError::Missing { segment: 0 });
    assert!(missing(ledger::verify_log(quiet.clone(), keys(), |_| {}).unwrap_err()));
    assert!(missing(ledger::rebuild(quiet.clone(), keys(), RebuildFrom::Zero, &|_| {}).unwrap_err()));
    fs::rename(&away, &archive).unwrap();
    assert_eq!(rebuilt(quiet.clone(), RebuildFrom::Zero).state_digest, digest);
    check(true, true);

    // A crash between copying and deleting: the segment in the journal counts, and archiving goes on from there.
    fs::copy(archive.join("0000000001.mxj"), segment_path(dir.path(), 1)).unwrap();
    fs::write(archive.join("0000000001.mxj"), b"half").unwrap();
    check(true, true);
    assert_eq!(ledger::archive(&quiet, &keys(), 2).unwrap().segments, 1);
    assert_eq!(rebuilt(quiet.clone(), RebuildFrom::Zero).state_digest, digest);

    // Neither segment nor stub: lost, and refused as before.
    fs::remove_file(dir.path().join("journal").join("0000000001.mxa")).unwrap();
    assert!(matches!(Ledger::open(quiet, keys()), Err(OpenError::Corrupt { segment: 1, .. })));
}

#[test]
fn a_journal_is_not_archived_into_itself() {
    let dir = TempDir::new().unwrap();
    std::os::unix::fs::symlink("journal", dir.path().join("away")).unwrap();
    let options = snapshotting(dir.path(), Engine::Sled);
    let ledger = open_with(options.clone()).0;
    fill(&ledger, dir.path(), 3);
    issue(&ledger, 1);
    log_snapshot(&ledger);
    ledger.close();
    let before = tree(dir.path());
    for archive in ["journal", "away"] {
        let options = Options { archive: Some(dir.path().join(archive)), ..options.clone() };
        let refused = ledger::archive(&options, &keys(), 2).unwrap_err().to_string();
        assert!(refused.contains("the journal's own"), "{refused}");
        assert!(tree(dir.path()) == before);
    }
    assert_eq!(verify(dir.path()).unwrap().problems, Vec::<String>::new());
}

/// Segments of two logs have the same names: a successor that was given its predecessor's archive would write over it.
#[test]
fn the_archive_of_another_log_is_left_alone() {
    let elsewhere = TempDir::new().unwrap();
    let grown = |origin: &str| {
        let dir = TempDir::new().unwrap();
        let options = Options {
            origin: origin.to_owned(),
            archive: Some(elsewhere.path().to_owned()),
            ..snapshotting(dir.path(), Engine::Sled)
        };
        let ledger = open_with(options.clone()).0;
        fill(&ledger, dir.path(), 3);
        issue(&ledger, 1);
        log_snapshot(&ledger);
        ledger.close();
        (dir, options)
    };
    let (_old, old) = grown(ORIGIN);
    assert_eq!(ledger::archive(&old, &keys(), 2).unwrap().segments, 2);
    let before = tree(elsewhere.path());
    let (new, of_new) = grown("log.example/next");
    let refused = ledger::archive(&of_new, &keys(), 2).unwrap_err().to_string();
    assert!(refused.contains("another log's"), "{refused}");
    assert!(tree(elsewhere.path()) == before && segment_path(new.path(), 0).exists());
    for options in [old, of_new] {
        assert_eq!(ledger::verify_log(options, keys(), |_| {}).unwrap().problems, Vec::<String>::new());
    }
}

/// Waits for a snapshot of everything, and forgets those before it that nobody logged: they would stay on offer.
fn whole_snapshot(ledger: &Ledger) -> StateDigest {
    loop {
        match ledger.snapshot_to_log() {
            Some(digest) if digest.size == ledger.size() => return digest,
            Some(older) => ledger.snapshot_logged(&older),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

#[test]
fn only_a_snapshot_that_a_start_would_use_lets_segments_go() {
    let (dir, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let options =
        Options { archive: Some(elsewhere.path().to_owned()), ..snapshotting(dir.path(), Engine::Sled) };
    let limit = || match ledger::archive(&options, &keys(), u32::MAX) {
        Err(OpenError::NotYet { limit, .. }) => limit,
        other => panic!("{other:?}"),
    };
    let ledger = open_with(options.clone()).0;
    fill(&ledger, dir.path(), 3);
    issue(&ledger, 1);
    // Whole, and nothing in the journal says that it is right.
    let first = whole_snapshot(&ledger);
    assert_eq!(limit(), 0);
    // Another one's digest does not count for it.
    let other = StateDigest { digest: [7; 32], ..first };
    commit_now(&ledger, command(&Record { state_digest: Some(other), ..Record::default() }, Vec::new()));
    assert_eq!(limit(), 0);
    log(&ledger, first);
    let allowed = limit();
    assert!(allowed > 0);
    // A newer one that is not logged yet takes nothing back and adds nothing; damaged ones do not count.
    fill(&ledger, dir.path(), allowed + 4);
    issue(&ledger, 2);
    whole_snapshot(&ledger);
    ledger.close();
    let of_first = dir.path().join("snapshots").join(format!("{:020}.mxs", first.size));
    let expected = if of_first.exists() { allowed } else { 0 };
    assert_eq!(limit(), expected);
    for path in snapshots(dir.path()) {
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    assert_eq!(limit(), 0);
}

#[test]
fn the_scrub_mends_a_tile_that_no_start_looks_at() {
    let dir = TempDir::new().unwrap();
    let options = || snapshotting(dir.path(), Engine::Sled);
    let ledger = open_with(options()).0;
    runtime().block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..1100 {
            let ledger = ledger.clone();
            tasks.spawn(async move { commit(&ledger, note(&ledger)).await });
        }
        tasks.join_all().await;
    });
    // What a snapshot was made behind was synced: a start takes it as it is.
    issue(&ledger, 1);
    whole_snapshot(&ledger);
    ledger.close();
    let files = ["leaves", "0", "1"].map(|name| dir.path().join("tiles").join(name));
    let good = files.each_ref().map(|path| fs::read(path).unwrap());
    let now = || files.each_ref().map(|path| fs::read(path).unwrap());
    for (file, at) in [(0, 34 * 300), (1, 32 * 300 + 1), (2, 32 + 3), (0, 0), (1, 0)] {
        let mut bytes = good[file].clone();
        bytes[at] ^= 1;
        fs::write(&files[file], bytes).unwrap();
        let (ledger, opened) = open_with(options());
        assert!(opened.from_image && opened.replayed == 0);
        while now() != good {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!((ledger.health().damaged_segments, ledger.health().damaged_tiles), (0, 0));
        let index = 300;
        let proof = ledger.proof(index).unwrap().unwrap();
        let leaf = ledger.entry(index).unwrap().committed.leaf_hash;
        let root = ledger.root(1101).unwrap().unwrap();
        assert!(verify_inclusion(index, 1101, &leaf, &proof.path, &root));
        ledger.close();
    }
    // What cannot be mended is told: here the journal does not have what was signed.
    let path = segment_path(dir.path(), 0);
    let mut journal = fs::read(&path).unwrap();
    let (at, length, _) = frames(&journal)[0];
    journal[at + 80 + 2] ^= 1;
    let crc = crc32c::crc32c(&journal[at..at + length - 4]).to_be_bytes();
    journal[at + length - 4..at + length].copy_from_slice(&crc);
    fs::write(&path, journal).unwrap();
    let mut leaves = good[0].clone();
    leaves[2] ^= 8;
    fs::write(&files[0], leaves).unwrap();
    let ledger = open_with(options()).0;
    while ledger.health().damaged_tiles == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    ledger.close();
}

#[test]
fn the_scrub_finds_one_flipped_bit_in_a_closed_segment() {
    let dir = TempDir::new().unwrap();
    let options = || Options { scrub_bytes_per_second: u64::MAX, ..options(dir.path()) };
    let ledger = open_with(options()).0;
    fill(&ledger, dir.path(), 3);
    ledger.close();
    let path = segment_path(dir.path(), 1);
    let good = fs::read(&path).unwrap();
    let damaged = |bytes: &[u8], expected: usize| {
        fs::write(&path, bytes).unwrap();
        let (ledger, opened) = open_with(options());
        assert!(opened.from_image, "the start does not read it");
        let began = Instant::now();
        while ledger.health().damaged_segments != expected || began.elapsed() < Duration::from_millis(200) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let verified = ledger::verify_log(options(), keys(), |_| {});
        assert_eq!(matches!(verified, Err(OpenError::Corrupt { segment: 1, .. })), expected == 1);
        ledger.close();
    };
    damaged(&good, 0);
    // In the header, a frame's head, a leaf, the sealed parts, the last root and signature.
    let (last, length, _) = frames(&good).pop().unwrap();
    for at in [20, HEADER + 30, HEADER + 90, HEADER + 5000, last + length - 100, last + length - 30] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        if at == 20 {
            // A start reads every header.
            fs::write(&path, &bytes).unwrap();
            assert!(matches!(Ledger::open(options(), keys()), Err(OpenError::Corrupt { segment: 1, .. })));
            continue;
        }
        damaged(&bytes, 1);
    }
    damaged(&good[..good.len() - 200], 1);
    damaged(&good, 0);
}
