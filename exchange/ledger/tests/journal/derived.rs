//! Tiles, published checkpoint and restart image: derived, and made again when lost.

use crate::rig::*;

#[test]
fn tiles_hold_the_leaves_and_their_hashes() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    let mut committed = Vec::new();
    runtime().block_on(async {
        for _ in 0..5 {
            let group: Vec<_> = (0..60).map(|_| ledger.commit(note(&ledger))).collect();
            let mut tasks = tokio::task::JoinSet::new();
            for _ in group {
                let ledger = ledger.clone();
                tasks.spawn(async move { commit(&ledger, note(&ledger)).await });
            }
            committed.extend(tasks.join_all().await);
        }
    });
    committed.sort_by_key(|committed| committed.index);
    ledger.close();
    let ledger = open(dir.path());
    let full = ledger.tile(0, 0, None).unwrap().unwrap();
    let part = ledger.tile(0, 1, Some(44)).unwrap().unwrap();
    let hashes: Vec<u8> = committed.iter().flat_map(|committed| committed.leaf_hash).collect();
    assert_eq!([full, part].concat(), hashes);
    assert_eq!(ledger.tile(0, 0, Some(3)).unwrap().unwrap(), hashes[..96]);
    assert_eq!(ledger.tile(1, 0, Some(1)).unwrap().unwrap().len(), 32);
    for (level, index, width) in
        [(0, 1, None), (0, 1, Some(45)), (0, 0, Some(0)), (0, 0, Some(257)), (1, 0, Some(2)), (8, 0, None)]
    {
        assert_eq!(ledger.tile(level, index, width).unwrap(), None, "{level} {index} {width:?}");
    }
    assert_eq!(ledger.tile(0, u64::MAX, None).unwrap(), None);
    let bundle = ledger.entry_bundle(1, Some(44)).unwrap().unwrap();
    for (entry, committed) in bundle.chunks(36).zip(&committed[256..]) {
        assert_eq!(entry[..2], [0, 34]);
        assert_eq!(leaf_hash(&entry[2..]), committed.leaf_hash);
    }
    ledger.close();
}

#[test]
fn damaged_tiles_are_made_again() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    runtime().block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..300 {
            let ledger = ledger.clone();
            tasks.spawn(async move { commit(&ledger, note(&ledger)).await });
        }
        tasks.join_all().await;
    });
    ledger.close();
    let tile = |folder: &Path, name: &str| fs::read(folder.join("tiles").join(name)).unwrap();
    let good: Vec<_> = ["leaves", "0", "1"].map(|name| tile(dir.path(), name)).into();
    for (name, damage) in [
        ("leaves", 300 * 34 - 1),
        ("0", 299 * 32),
        ("0", 0),
        ("1", 3),
        ("leaves", usize::MAX),
        ("0", usize::MAX),
        ("1", usize::MAX),
    ] {
        let path = dir.path().join("tiles").join(name);
        let mut bytes = fs::read(&path).unwrap();
        match damage {
            usize::MAX => bytes.truncate(bytes.len() - 7),
            at => bytes[at] ^= 1,
        }
        fs::write(&path, bytes).unwrap();
        open(dir.path()).close();
        for (name, good) in ["leaves", "0", "1"].iter().zip(&good) {
            assert!(tile(dir.path(), name) == *good, "{name} after damage at {damage}");
        }
    }
}

/// A closed folder with so many entries.
fn with_entries(count: usize) -> TempDir {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    runtime().block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..count {
            let ledger = ledger.clone();
            tasks.spawn(async move { commit(&ledger, note(&ledger)).await });
        }
        tasks.join_all().await;
    });
    ledger.close();
    dir
}

/// How tiles are damaged: the file, the byte or the end, the leaf that the item was written with, and what is told.
const TILE_DAMAGE: [(&str, Option<usize>, u64, &str); 6] = [
    ("leaves", Some(34 * 10 + 5), 10, "tiles/leaves is not what the journal says at leaf 10"),
    ("0", Some(32 * 300), 300, "tiles/0 is not what the journal says at hash 300"),
    ("1", Some(32 + 31), 511, "tiles/1 is not what the journal says at hash 1"),
    ("leaves", None, 599, "tiles/leaves is shorter than the published checkpoint"),
    ("0", None, 599, "tiles/0 is shorter than the published checkpoint"),
    ("1", None, 511, "tiles/1 is shorter than the published checkpoint"),
];

fn damage_tile(folder: &Path, name: &str, at: Option<usize>) {
    let path = folder.join("tiles").join(name);
    let mut bytes = fs::read(&path).unwrap();
    match at {
        Some(at) => bytes[at] ^= 8,
        None => bytes.truncate(bytes.len() - 1),
    }
    fs::write(&path, bytes).unwrap();
}

#[test]
fn verifying_compares_tiles_and_entry_bundles_with_the_journal() {
    let dir = with_entries(600);
    let good = TempDir::new().unwrap();
    copy(&dir.path().join("tiles"), good.path());
    let verify = || ledger::verify_log(options(dir.path()), keys(), |_| {}).unwrap();
    let clean = verify();
    assert_eq!((clean.tiles_from, clean.problems), (None, Vec::new()));
    for (name, at, leaf, told) in TILE_DAMAGE {
        // At rest a power cut may have left it so, and the next start makes it good.
        damage_tile(dir.path(), name, at);
        let report = verify();
        assert_eq!((report.tiles_from, report.problems), (Some(leaf), Vec::new()), "{told}");
        let ledger = open(dir.path());
        let report = verify();
        assert_eq!((report.tiles_from, report.problems), (None, Vec::new()), "{told}");
        // What is served is to be right.
        let mut found = Vec::new();
        while found.is_empty() {
            // The scrub's first look may come in between and mend it.
            copy(good.path(), &dir.path().join("tiles"));
            damage_tile(dir.path(), name, at);
            found = verify().problems;
        }
        assert_eq!(found, [told]);
        ledger.close();
        copy(good.path(), &dir.path().join("tiles"));
    }
    // Beyond the journal there may be anything: a start cuts it off.
    let path = dir.path().join("tiles/0");
    fs::write(&path, [fs::read(&path).unwrap(), vec![7; 99]].concat()).unwrap();
    fs::remove_file(dir.path().join("tiles/checkpoint")).unwrap();
    let report = verify();
    assert_eq!((report.tiles_from, report.problems), (None, Vec::new()));
}

#[test]
fn holes_that_a_power_cut_leaves_in_the_tiles_are_filled_by_the_next_start() {
    let dir = with_entries(900);
    let files = ["leaves", "0", "1"].map(|name| dir.path().join("tiles").join(name));
    let good = files.each_ref().map(|path| fs::read(path).unwrap());
    // Blocks in the middle that were never written, in one file or in several at once.
    for holes in [&[(1, 0..4096)][..], &[(0, 4096..8192)], &[(1, 8192..12288), (2, 0..96)], &[(2, 32..64)]] {
        for (file, hole) in holes {
            let mut bytes = good[*file].clone();
            bytes[hole.clone()].fill(0);
            fs::write(&files[*file], bytes).unwrap();
        }
        let (ledger, opened) = open_with(options(dir.path()));
        assert!(opened.from_image);
        assert!(files.each_ref().map(|path| fs::read(path).unwrap()) == good);
        ledger.close();
    }
}

#[test]
fn a_wrong_index_root_in_the_log_is_found() {
    let dir = TempDir::new().unwrap();
    let options = Options { index_roots: Some(Duration::from_millis(20)), ..options(dir.path()) };
    let ledger = open_with(options.clone()).0;
    let (_, holder) = issue(&ledger, 1);
    while ledger.holder_proof(&holder.label).is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    for n in 2..=4 {
        issue(&ledger, n);
        commit_now(&ledger, use_of(&ledger, 1));
    }
    let size = ledger.size();
    while ledger.holder_proof(&holder.label).is_none_or(|proof| proof.root.size < size) {
        std::thread::sleep(Duration::from_millis(5));
    }
    ledger.close();
    assert_eq!(verify(dir.path()).unwrap().problems, Vec::<String>::new());

    let ledger = open(dir.path());
    let state = |text: String| {
        let empty = prepared(&Record::default(), Vec::new());
        let permit_or_denial = Prepared { kind: LeafKind::IndexRoot, open: text.into_bytes(), ..empty };
        commit_now(&ledger, Command { permit_or_denial, ..command(&Record::default(), Vec::new()) }).index
    };
    let size = ledger.size();
    let wrong = state(verifier::index::statement(size, &[9; 32]));
    let ahead = state(verifier::index::statement(size + 100, &[9; 32]));
    let none = state("nothing of the kind".to_owned());
    ledger.close();
    let problems = verify(dir.path()).unwrap().problems;
    assert_eq!(
        problems,
        [
            format!("the index root at index {wrong} is not that of the holders' sequences"),
            format!("the index root at index {ahead} is malformed"),
            format!("the index root at index {none} is malformed"),
        ]
    );
}

#[test]
fn a_lost_or_damaged_image_gives_the_same_state() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    for n in 1..=20 {
        issue(&ledger, n);
    }
    runtime().block_on(async {
        for n in 1..=20 {
            commit(&ledger, use_of(&ledger, n)).await;
        }
    });
    let digest = ledger.state().digest();
    ledger.close();
    let store = dir.path().join("store");
    let reopened = |from_image| {
        let (ledger, opened) = open_with(options(dir.path()));
        assert_eq!((ledger.state().digest(), opened.from_image), (digest, from_image));
        ledger.close();
    };
    reopened(true);
    fs::remove_dir_all(&store).unwrap();
    reopened(false);
    reopened(true);

    // One bit in the middle of the store's file, a file cut short, a file of nonsense.
    let good = TempDir::new().unwrap();
    copy(&store, good.path());
    for damage in 0..3 {
        fs::remove_dir_all(&store).unwrap();
        copy(good.path(), &store);
        let db = store.join("sled").join("db");
        let mut bytes = fs::read(&db).unwrap();
        match damage {
            0 => {
                for at in (0..bytes.len()).step_by(97) {
                    bytes[at] ^= 0x10;
                }
            }
            1 => bytes.truncate(bytes.len() / 2),
            _ => bytes.fill(0xa5),
        }
        fs::write(&db, bytes).unwrap();
        let (ledger, _) = open_with(options(dir.path()));
        assert_eq!(ledger.state().digest(), digest, "damage {damage}");
        ledger.close();
    }
    let rebuilt = ledger::rebuild(options(dir.path()), keys(), RebuildFrom::Zero, &|_| {}).unwrap();
    assert_eq!((rebuilt.size, rebuilt.state_digest, rebuilt.counts.licenses), (40, digest, 20));
    reopened(true);
}

#[test]
fn an_image_of_another_journal_is_moved_aside() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for (dir, count) in [(&one, 5), (&two, 2)] {
        let ledger = open(dir.path());
        for n in 0..count {
            issue(&ledger, n + 1);
        }
        ledger.close();
    }
    let digest = verify(one.path()).unwrap().state_digest;
    for round in 0..2 {
        let store = one.path().join("store");
        fs::remove_dir_all(&store).unwrap();
        copy(&two.path().join("store"), &store);
        let (ledger, opened) = open_with(options(one.path()));
        assert_eq!((ledger.state().digest(), opened.from_image), (digest, false));
        ledger.close();
        // The one moved aside before makes place.
        let aside: Vec<_> = fs::read_dir(one.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("store.bad-"))
            .collect();
        assert_eq!(aside, [format!("store.bad-{round}")]);
    }
}

#[test]
fn verifying_beside_a_running_ledger_disturbs_nothing() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    for n in 1..=5 {
        issue(&ledger, n);
        let mut seen = 0;
        let report = ledger::verify_log(options(dir.path()), keys(), |size| seen = size).unwrap();
        assert_eq!((report.size, seen), (u64::from(n), u64::from(n)));
        assert_eq!(report.state_digest, ledger.state().digest());
    }
    ledger.close();
}

#[test]
fn verifying_beside_writers_in_tiny_segments_never_finds_damage() {
    const WRITERS: usize = 3;
    const ENTRIES: usize = 400;
    /// Some tens of entries fill a segment.
    const PART: usize = 8 << 10;
    let dir = TempDir::new().unwrap();
    let options = options(dir.path());
    let ledger = open_with(options.clone()).0;
    let done = AtomicU64::new(0);
    let mut checks = 0;
    std::thread::scope(|scope| {
        let write = || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for _ in 0..ENTRIES {
                let part = ledger.seal_subject(0, &[], &[b'x'; PART]);
                runtime.block_on(commit(&ledger, command(&Record::default(), vec![part])));
                done.fetch_add(1, Ordering::Relaxed);
            }
        };
        let writers = [(); WRITERS].map(|()| scope.spawn(write));
        while !writers.iter().all(|writer| writer.is_finished()) {
            let before = done.load(Ordering::Relaxed);
            let report = ledger::verify_log(options.clone(), keys(), |_| {}).unwrap();
            assert!(report.size >= before && !report.torn_tail && report.problems.is_empty(), "{report:?}");
            checks += 1;
        }
    });
    let report = verify(dir.path()).unwrap();
    assert_eq!(report.size as usize, WRITERS * ENTRIES);
    assert!(report.segments > 20 && checks > 1, "{} segments, {checks} checks", report.segments);
    ledger.close();
}

#[test]
fn the_public_sees_the_new_checkpoint_after_a_while() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    assert!(ledger.published_checkpoint().starts_with(&format!("{ORIGIN}\n0\n")));
    let committed = commit_now(&ledger, note(&ledger));
    while ledger.proof(0).unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(10));
    }
    check_receipt(&ledger, &committed, &ledger.proof(0).unwrap().unwrap());
    while ledger.health().image_lag > 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    ledger.close();
}
