//! What a start refuses, each with a message of its own, and without changing a byte of the data folder.

use crate::rig::*;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
const NOW_MS: u64 = 20_000 * DAY_MS;
/// Root, signature and state part of a frame, from its end.
const ROOT_FROM_END: usize = 104;
const SIGNATURE_FROM_END: usize = 72;
const STATE_FROM_END: usize = 112 + 20;
const LEAF: usize = 80;

fn at(ms: u64, folder: &Path) -> Options {
    let hooks = Hooks { clock: Some(Arc::new(move || ms)), ..Hooks::default() };
    Options { hooks, ..options(folder) }
}

/// A closed journal of three starts: six entries in three begun segments, guarded to its end.
fn journal_at(origin: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    for start in 0..3 {
        let (ledger, _) = open_with(Options { origin: origin.to_owned(), ..at(NOW_MS, dir.path()) });
        if start == 0 {
            issue(&ledger, 1);
        } else {
            commit_now(&ledger, use_of(&ledger, 1));
        }
        commit_now(&ledger, note(&ledger));
        ledger.close();
    }
    dir
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// The first group frame of a segment: offset and length.
fn group(folder: &Path, segment: u32) -> (usize, usize) {
    let bytes = fs::read(segment_path(folder, segment)).unwrap();
    let frame = frames(&bytes).into_iter().find(|frame| frame.2 == 1).unwrap();
    (frame.0, frame.1)
}

/// As a kill leaves an idle log: the last frame is a group, released and guarded, and no seal follows it.
fn without_last_seal(folder: &Path) -> (PathBuf, usize, usize) {
    let path = segment_path(folder, 2);
    let bytes = fs::read(&path).unwrap();
    let all = frames(&bytes);
    let (seal, length, kind) = *all.last().unwrap();
    let (last, group_length, group_kind) = all[all.len() - 2];
    assert_eq!((kind, group_kind), (2, 1));
    change(&path, |bytes| bytes[seal..seal + length].fill(0));
    let number = u64::from_be_bytes(bytes[last + 24..last + 32].try_into().unwrap());
    let end = last + group_length;
    let size = u64::from_be_bytes(bytes[end - 112..end - 104].try_into().unwrap());
    let root = bytes[end - 104..end - 72].try_into().unwrap();
    fs::write(guard_path(folder), guard_file(number + 1, size, root)).unwrap();
    (path, last, group_length)
}

/// How a journal is harmed, and what the refusal says.
type Case = (&'static str, Box<dyn Fn(&Path)>, &'static str);

fn flipped(segment: u32, place: impl Fn(usize, usize) -> usize + 'static) -> Box<dyn Fn(&Path)> {
    Box::new(move |folder| {
        let (at, length) = group(folder, segment);
        change(&segment_path(folder, segment), |bytes| bytes[place(at, length)] ^= 4);
    })
}

fn last_flipped(place: impl Fn(usize) -> usize + 'static) -> Box<dyn Fn(&Path)> {
    Box::new(move |folder| {
        let (path, at, length) = without_last_seal(folder);
        change(&path, |bytes| bytes[at + place(length)] ^= 4);
    })
}

fn cases() -> Vec<Case> {
    let swap = |folder: &Path, left: u32, right: u32| {
        let paths = [left, right].map(|number| segment_path(folder, number));
        let bytes = paths.each_ref().map(|path| fs::read(path).unwrap());
        fs::write(&paths[0], &bytes[1]).unwrap();
        fs::write(&paths[1], &bytes[0]).unwrap();
    };
    let own = |change_mark: fn(&mut (u64, u64, [u8; 32]))| {
        move |folder: &Path| {
            let bytes = fs::read(guard_path(folder)).unwrap();
            let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
            let at = if number(8) > number(4096 + 8) { 0 } else { 4096 };
            let root = bytes[at + 32..at + 64].try_into().unwrap();
            let mut mark = (number(at + 24), number(at + 16), root);
            change_mark(&mut mark);
            fs::write(guard_path(folder), guard_file(mark.0, mark.1, mark.2)).unwrap();
        }
    };
    vec![
        (
            "cut in a closed segment",
            Box::new(|folder| change(&segment_path(folder, 0), |bytes| bytes.truncate(400))),
            "segment 0 is damaged",
        ),
        (
            "cut behind the header",
            Box::new(|folder| change(&segment_path(folder, 2), |bytes| bytes.truncate(64))),
            "cut short or rolled back",
        ),
        (
            "cut in the last frame",
            Box::new(|folder| {
                let (path, at, length) = without_last_seal(folder);
                change(&path, |bytes| bytes.truncate(at + length - 1));
            }),
            "segment 2 is damaged",
        ),
        (
            "cut before the last frame",
            Box::new(|folder| {
                let (path, at, _) = without_last_seal(folder);
                change(&path, |bytes| bytes.truncate(at));
            }),
            "cut short or rolled back",
        ),
        (
            "the last segment is empty",
            Box::new(|folder| change(&segment_path(folder, 2), Vec::clear)),
            "cut short or rolled back",
        ),
        (
            "the last segments are gone",
            Box::new(|folder| {
                let _ = fs::remove_file(segment_path(folder, 3));
                fs::remove_file(segment_path(folder, 2)).unwrap();
            }),
            "cut short or rolled back",
        ),
        (
            "a segment in the middle is gone",
            Box::new(|folder| fs::remove_file(segment_path(folder, 1)).unwrap()),
            "segment 1 is damaged at offset 0: the segment is missing",
        ),
        ("swapped", Box::new(move |folder| swap(folder, 0, 1)), "the header is another segment's"),
        (
            "duplicated",
            Box::new(|folder| {
                fs::copy(segment_path(folder, 2), segment_path(folder, 3)).unwrap();
            }),
            "the header is another segment's",
        ),
        (
            "of another log",
            Box::new(|folder| {
                fs::copy(segment_path(journal_at("log.example/other").path(), 1), segment_path(folder, 1))
                    .unwrap();
            }),
            "another origin",
        ),
        (
            "of another journal of this log",
            Box::new(|folder| {
                fs::copy(segment_path(journal_at(ORIGIN).path(), 1), segment_path(folder, 1)).unwrap();
            }),
            "segment 1 is damaged",
        ),
        (
            "a bit of a header",
            Box::new(|folder| change(&segment_path(folder, 1), |bytes| bytes[20] ^= 1)),
            "the header is damaged",
        ),
        (
            "a bit of the last header",
            Box::new(|folder| change(&segment_path(folder, 2), |bytes| bytes[9] ^= 1)),
            "the header is damaged and frames follow it",
        ),
        ("a bit of a frame's header", flipped(0, |at, _| at + 20), "segment 0 is damaged"),
        ("a bit of a leaf", flipped(0, |at, _| at + LEAF), "segment 0 is damaged"),
        ("a bit of a record", flipped(1, |at, length| at + length - STATE_FROM_END), "segment 1 is damaged"),
        ("a bit of a root", flipped(1, |at, length| at + length - ROOT_FROM_END), "segment 1 is damaged"),
        (
            "a bit of a signature",
            flipped(1, |at, length| at + length - SIGNATURE_FROM_END),
            "segment 1 is damaged",
        ),
        (
            "a bit of a sealed frame of the last segment",
            flipped(2, |at, _| at + LEAF),
            "segment 2 is damaged",
        ),
        ("the last frame's first bit", last_flipped(|_| 0), "segment 2 is damaged"),
        ("a bit of the last frame's leaf", last_flipped(|_| LEAF), "segment 2 is damaged"),
        (
            "a bit of the last frame's record",
            last_flipped(|length| length - STATE_FROM_END),
            "segment 2 is damaged",
        ),
        (
            "a bit of the last frame's root",
            last_flipped(|length| length - ROOT_FROM_END),
            "segment 2 is damaged",
        ),
        (
            "a bit of the last frame's signature",
            last_flipped(|length| length - SIGNATURE_FROM_END),
            "segment 2 is damaged",
        ),
        ("a bit of the last frame's checksum", last_flipped(|length| length - 1), "segment 2 is damaged"),
        (
            "the guard is a frame ahead",
            Box::new(own(|mark| mark.0 += 1)),
            "the log answered from 6 entries by its guard, the journal ends after 6",
        ),
        (
            "the guard is far ahead",
            Box::new(own(|mark| (mark.0, mark.1) = (mark.0 + 100, 99))),
            "the log answered from 99 entries by its guard, the journal ends after 6",
        ),
        (
            "the guard has another root",
            Box::new(own(|mark| mark.2[0] ^= 1)),
            "not the one that its guard was written for",
        ),
        (
            "the guard has another size",
            Box::new(own(|mark| mark.1 += 1)),
            "not the one that its guard was written for",
        ),
        (
            "the guard is gone",
            Box::new(|folder| fs::remove_file(guard_path(folder)).unwrap()),
            "guard is missing",
        ),
        (
            "the guard is empty",
            Box::new(|folder| fs::write(guard_path(folder), b"").unwrap()),
            "both of its slots are damaged",
        ),
        (
            "both slots are torn",
            Box::new(|folder| {
                change(&guard_path(folder), |bytes| {
                    bytes[60] ^= 1;
                    bytes[4096 + 60] ^= 1;
                })
            }),
            "both of its slots are damaged",
        ),
        (
            "another log's guard",
            Box::new(|folder| {
                fs::copy(guard_path(journal_at("log.example/other").path()), guard_path(folder)).unwrap();
            }),
            "guard is another log's",
        ),
    ]
}

/// Refused with this message, and not a byte of the folder changes.
fn refused(options: &Options, what: &str, message: &str) {
    refused_with(options, keys(), what, message);
}

fn refused_with(options: &Options, keys: LedgerKeys, what: &str, message: &str) {
    let folder = &options.folder;
    let before = tree(folder);
    let error = match Ledger::open(options.clone(), keys) {
        Ok(_) => panic!("{what}: accepted"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains(message), "{what}: {error}");
    let after = tree(folder);
    let changed = before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path));
    let changed: Vec<_> = changed.collect();
    assert!(changed.is_empty(), "{what} is refused and changes {changed:?}");
}

#[test]
fn a_harmed_journal_is_refused_and_left_as_it_is() {
    let good = journal_at(ORIGIN);
    for (what, harm, message) in cases() {
        let dir = TempDir::new().unwrap();
        copy(good.path(), dir.path());
        harm(dir.path());
        let options = at(NOW_MS, dir.path());
        refused(&Options { image: false, ..options.clone() }, what, message);
        let verified = ledger::verify_log(options.clone(), keys(), |_| {}).unwrap_err().to_string();
        assert!(verified.contains(message), "{what}: {verified}");
        // A start with an image does not read the segments before it: those are the scrub's.
        if !["segment 0 is damaged", "segment 1 is damaged"].contains(&message) {
            refused(&options, what, message);
        }
    }
    // And the copy that nothing was done to starts.
    let (ledger, opened) = open_with(at(NOW_MS, good.path()));
    assert_eq!((opened.size, opened.torn), (6, false));
    ledger.close();
}

#[test]
fn another_key_is_refused_and_changes_nothing() {
    let good = journal_at(ORIGIN);
    let theirs = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    type Wrong = fn(&mut LedgerKeys, &[u8]);
    let cases: [(&str, Wrong, &str); 3] = [
        ("the journal key", |keys, _| keys.journal[0] ^= 1, "the journal key does not open the journal"),
        ("the index key", |keys, _| keys.index[0] ^= 1, "the index key is not the journal's"),
        (
            "the log's key",
            |keys, theirs| keys.log_pkcs8 = theirs.to_vec(),
            "the frame's signature is not the log's",
        ),
    ];
    // Several starts without an entry: the last segments hold a copied seal alone.
    for starts in 0..3 {
        for image in [true, false] {
            for (what, wrong, message) in &cases {
                let options = Options { image, ..at(NOW_MS, good.path()) };
                let mut keys = keys();
                wrong(&mut keys, theirs.as_ref());
                refused_with(&options, keys, &format!("{what} after {starts} idle starts"), message);
            }
        }
        open_with(at(NOW_MS, good.path())).0.close();
    }
    // A check tells the same.
    for (_, wrong, message) in &cases {
        let mut keys = keys();
        wrong(&mut keys, theirs.as_ref());
        let verified = ledger::verify_log(at(NOW_MS, good.path()), keys, |_| {}).unwrap_err().to_string();
        assert!(verified.contains(message), "{verified}");
    }
}

#[test]
fn a_torn_slot_of_the_guard_leaves_the_other_one() {
    let good = journal_at(ORIGIN);
    for slot in [0, 4096] {
        let dir = TempDir::new().unwrap();
        copy(good.path(), dir.path());
        change(&guard_path(dir.path()), |bytes| bytes[slot + 100..slot + 128].fill(7));
        let (ledger, opened) = open_with(at(NOW_MS, dir.path()));
        assert_eq!(opened.size, 6);
        commit_now(&ledger, note(&ledger));
        ledger.close();
        // Both are whole again after two more writes.
        open_with(at(NOW_MS, dir.path())).0.close();
        assert_eq!(verify(dir.path()).unwrap().size, 7);
    }
}

#[test]
fn a_clock_that_the_journal_contradicts_is_refused_unless_accepted() {
    let good = journal_at(ORIGIN);
    let folder = good.path();
    for image in [false, true] {
        let at = |ms| Options { image, ..at(ms, folder) };
        refused(&at(NOW_MS - HOUR_MS), "an hour back", "behind the journal's last entry");
        let message = "more than 90 days after the journal's last entry";
        refused(&at(NOW_MS + 400 * DAY_MS), "400 days ahead", message);
    }
    // A clock that nobody keeps is asked about sooner.
    let unkept = |ms| Options { clock_is_kept: || false, ..at(ms, folder) };
    let message = "not known to be synchronised and more than 72 hours after the journal's last entry";
    refused(&unkept(NOW_MS + 80 * DAY_MS), "80 days ahead", message);
    refused(&unkept(NOW_MS + 3 * DAY_MS + 1), "three days ahead", message);
    for options in
        [unkept(NOW_MS + 3 * DAY_MS), Options { accept_clock: true, ..unkept(NOW_MS + 80 * DAY_MS) }]
    {
        let dir = TempDir::new().unwrap();
        copy(folder, dir.path());
        open_with(Options { folder: dir.path().to_owned(), ..options }).0.close();
    }
    // A small correction and a long rest are nobody's mistake.
    for ms in [NOW_MS - 60_000, NOW_MS + 80 * DAY_MS] {
        let dir = TempDir::new().unwrap();
        copy(folder, dir.path());
        let (ledger, _) = open_with(at(ms, dir.path()));
        assert_eq!(commit_now(&ledger, note(&ledger)).time_ms, ms.max(NOW_MS));
        ledger.close();
    }
    for ms in [NOW_MS - HOUR_MS, NOW_MS + 400 * DAY_MS] {
        let dir = TempDir::new().unwrap();
        copy(folder, dir.path());
        let (ledger, _) = open_with(Options { accept_clock: true, ..at(ms, dir.path()) });
        // Journal time never decreases.
        assert_eq!(commit_now(&ledger, note(&ledger)).time_ms, ms.max(NOW_MS));
        ledger.close();
    }
}

#[test]
fn nothing_is_journaled_by_a_clock_that_jumps_ahead() {
    let dir = TempDir::new().unwrap();
    let now = Arc::new(AtomicU64::new(NOW_MS));
    let clock = Arc::clone(&now);
    let hooks = Hooks { clock: Some(Arc::new(move || clock.load(Ordering::Relaxed))), ..Hooks::default() };
    let (ledger, _) = open_with(Options { hooks, ..options(dir.path()) });
    commit_now(&ledger, note(&ledger));
    now.store(NOW_MS + 400 * DAY_MS, Ordering::Relaxed);
    let refused = outcome(&ledger, note(&ledger));
    assert!(matches!(refused, Err(Refused::Stopped)), "{refused:?}");
    assert!(ledger.health().stopped.unwrap().contains("the clock jumped"));
    ledger.close();
    let (ledger, opened) = open_with(at(NOW_MS, dir.path()));
    assert_eq!((opened.size, ledger.state().time_ms()), (1, NOW_MS));
    ledger.close();
}

#[test]
fn a_second_process_is_refused_and_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let (sealed, wait) = mpsc::channel();
    let hooks =
        Hooks { after_sync: Some(Arc::new(move |frame| sealed.send(frame).unwrap())), ..Hooks::default() };
    let (ledger, _) = open_with(Options { image: false, hooks, ..options(dir.path()) });
    commit_now(&ledger, note(&ledger));
    while wait.recv().unwrap() != 1 {}
    // The next segment, the guard and the published checkpoint follow within a second or so; then the folder rests.
    let mut before = BTreeMap::new();
    loop {
        std::thread::sleep(Duration::from_millis(1500));
        let now = tree(dir.path());
        if now == before {
            break;
        }
        before = now;
    }
    for _ in 0..2 {
        let error = Ledger::open(options(dir.path()), keys()).err().unwrap();
        assert!(error.to_string().contains("another process has the journal open"), "{error}");
    }
    assert!(tree(dir.path()) == before);
    ledger.close();
}

#[test]
fn a_folder_of_another_format_is_refused_by_name_and_left_alone() {
    let dir = TempDir::new().unwrap();
    let ledger = open_without_image(dir.path());
    commit_now(&ledger, note(&ledger));
    ledger.close();
    for (format, named, help) in [
        (0, "of format 1,", "`exchange log close`"),
        (1, "of format 1,", "--continues"),
        (3, "of format 3,", "a later one"),
    ] {
        let mut bytes = fs::read(segment_path(dir.path(), 0)).unwrap();
        bytes[56..60].copy_from_slice(&u32::to_be_bytes(format));
        let crc = crc32c::crc32c(&bytes[..60]).to_be_bytes();
        bytes[60..64].copy_from_slice(&crc);
        fs::write(segment_path(dir.path(), 0), bytes).unwrap();
        let before = tree(dir.path());
        for error in [refusal(dir.path()), verify(dir.path()).unwrap_err()] {
            let said = error.to_string();
            assert!(matches!(error, OpenError::Format { serves: 2, .. }), "{said}");
            assert!(
                said.contains(named) && said.contains("serves format 2") && said.contains(help),
                "{said}"
            );
        }
        assert_eq!(tree(dir.path()), before);
    }
}
