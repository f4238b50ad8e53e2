//! Torn, damaged, forged, missing: what a start adopts and what it refuses.

use crate::rig::*;

/// A closed journal whose last group frame is found and described.
struct Recorded {
    dir: TempDir,
    /// Bytes of segment 0, without its unused end.
    bytes: Vec<u8>,
    /// Its frames: offset, length, kind.
    frames: Vec<(usize, usize, u8)>,
}

fn recorded() -> Recorded {
    let dir = TempDir::new().unwrap();
    let ledger = open_without_image(dir.path());
    issue(&ledger, 1);
    for _ in 0..3 {
        commit_now(&ledger, use_of(&ledger, 1));
    }
    ledger.close();
    let mut bytes = fs::read(segment_path(dir.path(), 0)).unwrap();
    let frames = frames(&bytes);
    let (at, length, kind) = *frames.last().unwrap();
    assert_eq!(kind, 2);
    bytes.truncate(at + length);
    Recorded { dir, bytes, frames }
}

/// A data folder whose journal is one segment with these bytes and zeros behind, killed before its guard was written again.
fn journal_of(bytes: &[u8], zeros: usize) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("journal")).unwrap();
    fs::write(segment_path(dir.path(), 0), [bytes, &vec![0; zeros]].concat()).unwrap();
    fs::write(guard_path(dir.path()), guard_file(0, 0, verifier::merkle::EMPTY_ROOT)).unwrap();
    dir
}

#[test]
fn a_last_frame_torn_at_any_byte_is_dropped_and_nothing_else() {
    let recorded = recorded();
    let groups: Vec<_> = recorded.frames.iter().filter(|frame| frame.2 == 1).collect();
    let (at, length, _) = **groups.last().unwrap();
    let whole = groups.len() as u64;
    for torn in 0..=length {
        // What was not written is zeros, or, in a file cut short, not there.
        for zeros in [0, length + 5000] {
            let dir = journal_of(&recorded.bytes[..at + torn], zeros);
            let (ledger, opened) = open_with(Options { image: false, ..options(dir.path()) });
            let expected = if torn == length { whole } else { whole - 1 };
            assert_eq!(opened.size, expected, "torn at {torn}");
            assert_eq!(opened.torn, (1..length).contains(&torn), "torn at {torn}");
            assert_eq!(ledger.state().holder(&key(1)).unwrap().head.sequence, expected);
            if torn % 64 == 0 {
                assert_eq!(commit_now(&ledger, use_of(&ledger, 1)).index, expected);
                ledger.close();
                assert_eq!(verify(dir.path()).unwrap().size, expected + 1);
            }
        }
    }
}

#[test]
fn a_last_frame_with_a_lost_sector_is_dropped() {
    let recorded = recorded();
    let groups: Vec<_> = recorded.frames.iter().filter(|frame| frame.2 == 1).collect();
    let (at, length, _) = **groups.last().unwrap();
    for lost in (0..length).step_by(100) {
        let mut bytes = recorded.bytes[..at + length].to_vec();
        bytes[at + lost..at + (lost + 100).min(length)].fill(0);
        let dir = journal_of(&bytes, 4096);
        let (ledger, opened) = open_with(Options { image: false, ..options(dir.path()) });
        assert_eq!((opened.size, opened.torn), (groups.len() as u64 - 1, true));
        ledger.close();
    }
}

#[test]
fn a_flipped_bit_before_a_seal_is_refused_and_nothing_is_touched() {
    let recorded = recorded();
    let (seal, length, _) = *recorded.frames.last().unwrap();
    for at in HEADER..seal {
        let mut bytes = recorded.bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        let dir = journal_of(&bytes, 4096);
        let error = refusal(dir.path());
        assert!(matches!(error, OpenError::Corrupt { segment: 0, .. }), "byte {at}: {error}");
        assert!(!segment_path(dir.path(), 1).exists());
        assert_eq!(verify(dir.path()).unwrap_err().to_string(), error.to_string());
    }
    // In the header: refused too, for frames follow it.
    for at in 0..HEADER {
        let mut bytes = recorded.bytes.clone();
        bytes[at] ^= 1;
        assert!(matches!(refusal(journal_of(&bytes, 0).path()), OpenError::Corrupt { offset: 0, .. }));
    }
    // In the last seal: nothing is lost with it.
    for at in seal..seal + length {
        let mut bytes = recorded.bytes.clone();
        bytes[at] ^= 1;
        let (ledger, opened) = open_with(Options { image: false, ..options(journal_of(&bytes, 9).path()) });
        assert_eq!((opened.size, opened.torn), (4, true), "byte {at}");
        ledger.close();
    }
}

#[test]
fn a_forged_frame_with_a_right_checksum_is_refused() {
    let recorded = recorded();
    let groups: Vec<_> = recorded.frames.iter().filter(|frame| frame.2 == 1).collect();
    let (at, length, _) = **groups.last().unwrap();
    // Number, time, chain, first index, leaf, subject part, size, root and signature, each with the checksum made right again.
    for changed in [31, 39, 45, 23, 100, 80 + 38 + 30, length - 105, length - 80, length - 20] {
        let mut bytes = recorded.bytes[..at + length].to_vec();
        bytes[at + changed] ^= 1;
        let crc = crc32c::crc32c(&bytes[at..at + length - 4]).to_be_bytes();
        bytes[at + length - 4..].copy_from_slice(&crc);
        let error = refusal(journal_of(&bytes, 4096).path());
        assert!(matches!(error, OpenError::Corrupt { .. }), "byte {changed}: {error}");
    }
}

#[test]
fn a_seal_that_never_reached_the_disk_costs_nothing() {
    // Read back from the page cache at one start, gone after the next power cut: the copy in the next segment counts.
    let recorded = recorded();
    let dir = recorded.dir;
    open_without_image(dir.path()).close();
    let (at, length, _) = *recorded.frames.last().unwrap();
    let mut bytes = recorded.bytes.clone();
    bytes[at..at + length].fill(0);
    fs::write(segment_path(dir.path(), 0), bytes).unwrap();
    let (ledger, opened) = open_with(Options { image: false, ..options(dir.path()) });
    assert_eq!((opened.size, opened.torn), (4, false));
    ledger.close();
}

#[test]
fn missing_segments_and_rolled_back_journals_are_refused() {
    let dir = TempDir::new().unwrap();
    for _ in 0..3 {
        let ledger = open_without_image(dir.path());
        commit_now(&ledger, note(&ledger));
        ledger.close();
    }
    let copied = TempDir::new().unwrap();
    copy(dir.path(), copied.path());
    fs::remove_file(segment_path(copied.path(), 1)).unwrap();
    assert!(matches!(refusal(copied.path()), OpenError::Corrupt { segment: 1, .. }));

    // The last two segments are gone: a whole journal, but not the one whose checkpoint was published.
    let copied = TempDir::new().unwrap();
    copy(dir.path(), copied.path());
    for number in 2..=4 {
        let _ = fs::remove_file(segment_path(copied.path(), number));
    }
    let error = refusal(copied.path());
    assert!(matches!(error, OpenError::CutShort { guard: 3, journal: 2 }), "{error}");
    // The guard is from before, too: the published checkpoint still tells.
    fs::write(guard_path(copied.path()), guard_file(0, 0, verifier::merkle::EMPTY_ROOT)).unwrap();
    let error = refusal(copied.path());
    assert!(matches!(error, OpenError::RolledBack { published: 3, journal: 2 }), "{error}");
    assert!(matches!(verify(copied.path()), Err(OpenError::RolledBack { .. })));
    // Another journal of the same size under the same keys.
    let other = TempDir::new().unwrap();
    let ledger = open_without_image(other.path());
    for _ in 0..3 {
        commit_now(&ledger, note(&ledger));
    }
    ledger.close();
    fs::copy(dir.path().join("tiles/checkpoint"), other.path().join("tiles/checkpoint")).unwrap();
    assert!(matches!(refusal(other.path()), OpenError::RolledBack { published: 3, journal: 3 }));
}

#[test]
fn wrong_keys_and_names_are_refused() {
    let dir = TempDir::new().unwrap();
    let ledger = open_without_image(dir.path());
    commit_now(&ledger, note(&ledger));
    ledger.close();
    let try_open = |options: Options, keys| match Ledger::open(options, keys) {
        Ok(_) => panic!("accepted"),
        Err(error) => error,
    };
    let plain = || Options { image: false, ..options(dir.path()) };
    let other_log = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref().to_vec();
    let mut other = keys();
    other.journal = [8; 32];
    let error = try_open(plain(), other);
    assert!(matches!(error, OpenError::Keys(_)), "{error}");
    let mut other = keys();
    other.log_pkcs8 = other_log;
    let error = try_open(plain(), other);
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
    let mut other = keys();
    other.log_pkcs8 = vec![1, 2, 3];
    let error = try_open(plain(), other);
    assert!(matches!(error, OpenError::Keys(_)), "{error}");
    let error = try_open(Options { origin: "log.example/other".to_owned(), ..plain() }, keys());
    assert!(matches!(error, OpenError::Keys(_)), "{error}");
    let error = try_open(Options { origin: "a name".to_owned(), ..plain() }, keys());
    assert!(matches!(error, OpenError::Keys(_)), "{error}");
    for bad in [
        Options { segment_bytes: 100 << 10, ..plain() },
        Options { segment_bytes: 2 << 30, ..plain() },
        Options { queue: 0, ..plain() },
        Options { group_entries: 0, ..plain() },
        Options { reserve_percent: 101, ..plain() },
    ] {
        assert!(matches!(try_open(bad, keys()), OpenError::Options(_)));
    }
    assert_eq!(verify(dir.path()).unwrap().size, 1);
}
