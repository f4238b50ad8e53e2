//! Keys and erasure: changes of epoch, what a crash at each of their steps leaves, and what is gone for good.

use crate::rig::*;
use ledger::{KeyName, ReadError, RotateError, STANDARD};
use std::sync::atomic::AtomicUsize;
use zeroize::Zeroizing;

/// Key files in the data folder, in the clear. Can fail, and can keep a copy of the whole folder as it is before and
/// after each operation: what a kill there leaves.
struct PlainEpochs {
    folder: PathBuf,
    /// Operations until everything fails.
    left: AtomicUsize,
    copies: Option<Copies>,
}

struct Copies {
    to: PathBuf,
    made: AtomicUsize,
}

impl Copies {
    fn make(&self, of: &Path) {
        copy(of, &self.to.join(self.made.fetch_add(1, Ordering::Relaxed).to_string()));
    }
}

impl PlainEpochs {
    fn new(folder: &Path) -> Self {
        let files = Self { folder: folder.to_owned(), left: AtomicUsize::new(usize::MAX), copies: None };
        if !folder.join("keys/epoch").exists() {
            files.replace(EpochFile::Current, &ledger::first_epoch(ORIGIN)).unwrap();
        }
        files
    }

    fn path(&self, file: EpochFile) -> PathBuf {
        self.folder.join("keys").join(match file {
            EpochFile::Current => "epoch",
            EpochFile::Next => "epoch.next",
        })
    }

    fn step(&self, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let copy = || self.copies.iter().for_each(|copies| copies.make(&self.folder));
        copy();
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Err(io::Error::other("no more"));
        }
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        work()?;
        copy();
        Ok(())
    }
}

impl EpochFiles for PlainEpochs {
    fn load(&self, file: EpochFile) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        match fs::read(self.path(file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            content => Ok(Some(Zeroizing::new(content?))),
        }
    }

    fn replace(&self, file: EpochFile, content: &[u8]) -> io::Result<()> {
        self.step(|| {
            fs::create_dir_all(self.folder.join("keys"))?;
            let temporary = self.folder.join("keys/new");
            fs::write(&temporary, content)?;
            fs::rename(&temporary, self.path(file))
        })
    }

    fn remove(&self, file: EpochFile) -> io::Result<()> {
        self.step(|| match fs::remove_file(self.path(file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        })
    }

    fn tidy(&self) -> io::Result<()> {
        Ok(())
    }
}

fn open_plain(folder: &Path) -> Ledger {
    open_files(folder, Arc::new(PlainEpochs::new(folder)), true)
}

fn open_files(folder: &Path, files: Arc<PlainEpochs>, image: bool) -> Ledger {
    loop {
        let options = Options { image, ..options(folder) };
        match Ledger::open(options, keys_with(Arc::clone(&files) as Arc<dyn EpochFiles>)) {
            Err(OpenError::Locked) => std::thread::yield_now(),
            opened => return opened.unwrap().0,
        }
    }
}

fn refusal_of(folder: &Path) -> String {
    let files = PlainEpochs { folder: folder.to_owned(), left: AtomicUsize::new(usize::MAX), copies: None };
    match Ledger::open(options(folder), keys_with(Arc::new(files))) {
        Ok(_) => panic!("the keys were accepted"),
        Err(OpenError::Keys(why)) => why.to_owned(),
        Err(other) => panic!("refused for another reason: {other}"),
    }
}

fn event(record: &Record) -> Prepared {
    prepared(record, Vec::new())
}

fn body(ledger: &Ledger, n: u8) -> Result<Vec<u8>, ReadError> {
    ledger.open_subject(ledger.state().license(&key(n)).unwrap().body)
}

fn ended(ledger: &Ledger, n: u8) -> Command {
    let license = ledger.state().license(&key(n)).unwrap();
    let change = LicenseState {
        state: 7,
        ..self::license(key(n), license.version + 1, license.holders.clone(), NO_BODY_PART)
    };
    command(&Record { licenses: vec![change], concerned: license.holders, ..Record::default() }, vec![])
}

fn erasure(ledger: &Ledger, n: u8) -> Command {
    let label = ledger.state().holder(&key(n)).unwrap().label;
    command(&Record { erased: vec![label], concerned: vec![label], ..Record::default() }, vec![])
}

/// Every file of a folder, by name.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// What holders' keys are wrapped in opens with this key: as whoever finds a key file and the journal would try.
fn unwraps(epoch_key: &[u8; 32], holder: &NewHolder) -> Option<Vec<u8>> {
    use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let NewHolder { label, class, year, wrapped, .. } = holder;
    let year = year.to_be_bytes();
    let aad = [b"miaoxiang holder key v2\0", ORIGIN.as_bytes(), b"\0", label, &[*class], &year].concat();
    let nonce = Nonce::try_assume_unique_for_key(&wrapped[..12]).unwrap();
    let mut sealed = wrapped[12..].to_vec();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, epoch_key).unwrap());
    key.open_in_place(nonce, Aad::from(aad), &mut sealed).ok().map(|key| key.to_vec())
}

/// The key file as its format says: epoch, key, rows. A second, naive reader.
fn read_file(content: &[u8]) -> (u32, [u8; 32], Vec<NewHolder>) {
    assert_eq!((content[0], &content[1..33]), (2, &sha256(&[ORIGIN.as_bytes()])[..]));
    let epoch = u32::from_be_bytes(content[33..37].try_into().unwrap());
    let key = content[37..69].try_into().unwrap();
    let count = u32::from_be_bytes(content[69..73].try_into().unwrap());
    let row = |row: &[u8]| NewHolder {
        key: [0; 16],
        label: row[..16].try_into().unwrap(),
        class: row[16],
        year: u16::from_be_bytes([row[17], row[18]]),
        epoch,
        wrapped: row[19..].try_into().unwrap(),
    };
    let rows: Vec<_> = content[73..].chunks(79).map(row).collect();
    assert_eq!(rows.len(), count as usize);
    (epoch, key, rows)
}

#[test]
fn living_holders_keep_their_keys_from_epoch_to_epoch() {
    let dir = TempDir::new().unwrap();
    let ledger = open_plain(dir.path());
    for n in 1..=6 {
        issue(&ledger, n);
        if n % 2 == 0 {
            assert_eq!(ledger.rotate(event).unwrap(), u32::from(n / 2) + 1);
        }
    }
    issue(&ledger, 7);
    let digest = ledger.state().digest();
    let check = |ledger: &Ledger| {
        let state = ledger.state();
        assert_eq!((state.epoch(), state.epoch_destroyed(), state.is_rotating()), (4, 3, false));
        for n in 1..=7 {
            assert_eq!(body(ledger, n).unwrap(), SECRET, "{n}");
            let label = state.holder(&key(n)).unwrap().label;
            assert_eq!(state.key_names(&label)[0].1, u32::from(n - 1) / 2 + 1);
        }
        assert_eq!(state.digest(), digest);
    };
    check(&ledger);
    ledger.close();
    let content = fs::read(dir.path().join("keys/epoch")).unwrap();
    let (epoch, epoch_key, rows) = read_file(&content);
    assert_eq!((epoch, rows.len()), (4, 6), "those born in the present epoch stand in the journal alone");
    assert!(rows.iter().all(|row| unwraps(&epoch_key, row).is_some()));
    assert!(!dir.path().join("keys/epoch.next").exists());
    for image in [true, false] {
        let ledger = open_files(dir.path(), Arc::new(PlainEpochs::new(dir.path())), image);
        check(&ledger);
        ledger.close();
    }
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    fs::remove_dir_all(dir.path().join("tiles")).unwrap();
    let ledger = open_plain(dir.path());
    check(&ledger);
    ledger.close();
    assert_eq!(verify(dir.path()).unwrap().state_digest, digest);
}

#[test]
fn the_erased_are_gone_and_everything_else_stays() {
    let dir = TempDir::new().unwrap();
    let ledger = open_plain(dir.path());
    let (receipt, first) = issue(&ledger, 1);
    issue(&ledger, 2);
    ledger.rotate(event).unwrap();
    let (_, third) = issue(&ledger, 3);
    // A record of two holders, of whom one is erased.
    let holders = [1, 2].map(|n| {
        let label = ledger.state().holder(&key(n)).unwrap().label;
        ledger.state().holder_key(&label).unwrap()
    });
    let labels = holders.iter().map(|holder| holder.label).collect();
    let shared = Record { licenses: vec![license(key(9), 1, labels, 0)], ..Record::default() };
    let part = ledger.seal_subject(0, &holders, SECRET);
    commit_now(&ledger, command(&shared, vec![part]));

    let use_before = use_of(&ledger, 1);
    let known_before = Fact::Holder(key(1));
    let version_before = ledger.state().version(&known_before);
    for n in [1, 3] {
        commit_now(&ledger, ended(&ledger, n));
        commit_now(&ledger, erasure(&ledger, n));
    }
    // A decision from before the erasure, or from an epoch that ended, is made again.
    for (epoch, holds) in [(1, false), (2, true)] {
        let mut command = command(&Record::default(), Vec::new());
        command.reads = vec![(Fact::Epoch, epoch)];
        assert_eq!(matches!(outcome(&ledger, command), Ok(Outcome::Committed(_))), holds, "{epoch}");
    }
    assert!(matches!(outcome(&ledger, use_before), Ok(Outcome::Changed)));
    assert_eq!((version_before == 0, ledger.state().version(&known_before)), (false, 0));
    let gone = |ledger: &Ledger| {
        for (n, label) in [(1, first.label), (3, third.label)] {
            assert!(matches!(body(ledger, n), Err(ReadError::KeyGone)), "{n}");
            let state = ledger.state();
            assert!(state.holder_key(&label).is_none());
            let holder = state.holder_by_label(&label).unwrap();
            assert!(holder.erased && holder.key == [0; 16] && holder.ended_ms > 0 && holder.version == 0);
            assert_eq!(state.license(&key(n)).unwrap().state, 7);
        }
        assert_eq!(body(ledger, 2).unwrap(), SECRET);
        assert_eq!(body(ledger, 9).unwrap(), SECRET, "the other holder still reads the shared record");
    };
    gone(&ledger);
    assert!(matches!(outcome(&ledger, erasure_of(&ledger, third.label)), Ok(Outcome::Changed)));

    // The same person again: another label, another key.
    let (_, again) = issue_to(&ledger, 4, key(1));
    assert_ne!(again.label, first.label);
    assert_ne!(ledger.state().version(&known_before), version_before);
    gone(&ledger);
    // The journal still holds what the third holder's key is wrapped in, and the present epoch's key opens it.
    let (_, present, _) = read_file(&fs::read(dir.path().join("keys/epoch")).unwrap());
    assert!(unwraps(&present, &third.entered()).is_some());
    ledger.close();

    for image in [true, false] {
        let ledger = open_files(dir.path(), Arc::new(PlainEpochs::new(dir.path())), image);
        gone(&ledger);
        ledger.close();
    }
    let ledger = open_plain(dir.path());
    ledger.rotate(event).unwrap();
    let digest = ledger.state().digest();
    ledger.close();
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    fs::remove_dir_all(dir.path().join("tiles")).unwrap();
    let ledger = open_plain(dir.path());
    gone(&ledger);
    assert_eq!(ledger.state().digest(), digest);
    assert_eq!(ledger.state().holder(&key(1)).unwrap().label, again.label);
    let proof = ledger.proof(receipt.index).unwrap().unwrap();
    check_receipt(&ledger, &receipt, &proof);
    ledger.close();

    // No key that is left opens what the journal holds of the erased, and no file holds key or plaintext.
    let (_, present, rows) = read_file(&fs::read(dir.path().join("keys/epoch")).unwrap());
    assert!(rows.iter().all(|row| row.label != first.label && row.label != third.label));
    for holder in [&first, &third] {
        assert!(unwraps(&present, &holder.entered()).is_none());
    }
    for (path, bytes) in files(dir.path()) {
        assert!(!contains(&bytes, SECRET), "{}", path.display());
        assert!(!contains(&bytes, &present) || path.ends_with("keys/epoch"), "{}", path.display());
    }
}

#[test]
fn a_snapshot_from_before_an_erasure_and_a_rotation_gives_neither_key_back() {
    let dir = TempDir::new().unwrap();
    let open_at = |snapshot_interval| {
        let options = Options { snapshot_interval, snapshot_segments: u32::MAX, ..options(dir.path()) };
        let files = Arc::new(PlainEpochs::new(dir.path()));
        loop {
            match Ledger::open(options.clone(), keys_with(Arc::clone(&files) as Arc<dyn EpochFiles>)) {
                Err(OpenError::Locked) => std::thread::yield_now(),
                opened => return opened.unwrap(),
            }
        }
    };
    let (ledger, _) = open_at(Duration::ZERO);
    let (_, first) = issue(&ledger, 1);
    let (_, second) = issue(&ledger, 2);
    let size = ledger.size();
    let taken = loop {
        match ledger.snapshot_to_log() {
            Some(digest) if digest.size >= size => break digest,
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    commit_now(&ledger, command(&Record { state_digest: Some(taken), ..Record::default() }, Vec::new()));
    ledger.snapshot_logged(&taken);
    ledger.close();
    // Closing may have made one that nobody logged.
    let snapshot = dir.path().join("snapshots").join(format!("{:020}.mxs", taken.size));
    for entry in fs::read_dir(dir.path().join("snapshots")).unwrap() {
        let path = entry.unwrap().path();
        if path != snapshot {
            fs::remove_file(path).unwrap();
        }
    }
    let quiet = Duration::from_secs(3600);

    let check = |ledger: &Ledger, digest| {
        assert!(matches!(body(ledger, 1), Err(ReadError::KeyGone)));
        assert!(ledger.state().holder_key(&first.label).is_none());
        assert!(ledger.state().holder(&key(1)).is_none());
        assert_eq!(body(ledger, 2).unwrap(), SECRET);
        assert_eq!(ledger.state().digest(), digest);
    };
    // Behind the erasure alone, and behind the change of epoch as well.
    for (step, epoch) in [(false, 1), (true, 2)] {
        let (ledger, _) = open_at(quiet);
        if step {
            assert_eq!(ledger.rotate(event).unwrap(), epoch);
            issue(&ledger, 3);
        } else {
            commit_now(&ledger, ended(&ledger, 1));
            commit_now(&ledger, erasure(&ledger, 1));
        }
        let digest = ledger.state().digest();
        check(&ledger, digest);
        ledger.close();
        fs::remove_dir_all(dir.path().join("store")).unwrap();
        let (ledger, opened) = open_at(quiet);
        assert_eq!((opened.from_snapshot, opened.from_image), (Some(taken.size), false));
        assert_eq!(ledger.state().epoch(), epoch);
        check(&ledger, digest);
        ledger.close();
        for from in [RebuildFrom::Zero, RebuildFrom::Snapshot] {
            let files = Arc::new(PlainEpochs::new(dir.path()));
            let options = Options { snapshot_interval: quiet, ..options(dir.path()) };
            let rebuilt = ledger::rebuild(options, keys_with(files), from, &|_| {}).unwrap();
            let base = (from == RebuildFrom::Snapshot).then_some(taken.size);
            assert_eq!((rebuilt.state_digest, rebuilt.from_snapshot), (digest, base));
            let (ledger, opened) = open_at(quiet);
            assert!(opened.from_image);
            check(&ledger, digest);
            if step {
                assert_eq!(body(&ledger, 3).unwrap(), SECRET);
            }
            ledger.close();
        }
    }
    // The old snapshot lies there still; what it wraps is under a key that no file has.
    assert!(snapshot.exists());
    let (_, present, rows) = read_file(&fs::read(dir.path().join("keys/epoch")).unwrap());
    assert!(rows.iter().any(|row| row.label == second.label));
    assert!(rows.iter().all(|row| row.label != first.label));
    assert!(unwraps(&present, &first.entered()).is_none());
    for (path, bytes) in files(dir.path()) {
        assert!(!contains(&bytes, SECRET), "{}", path.display());
    }
}

fn erasure_of(ledger: &Ledger, label: Key) -> Command {
    assert!(ledger.state().holder_by_label(&label).unwrap().erased);
    command(&Record { erased: vec![label], ..Record::default() }, vec![])
}

#[test]
fn what_an_epochs_switch_overtakes_is_decided_again() {
    let dir = TempDir::new().unwrap();
    let ledger = open_plain(dir.path());
    let prepared = ledger.new_holder(key(1));
    let command_of = |holder: &PreparedHolder| {
        let record = Record { new_holders: vec![new_holder(holder)], ..Record::default() };
        command(&record, vec![])
    };
    ledger.rotate(event).unwrap();
    assert!(matches!(outcome(&ledger, command_of(&prepared)), Ok(Outcome::Changed)));
    assert!(ledger.state().holder(&key(1)).is_none());
    let prepared = ledger.new_holder(key(1));
    assert_eq!(prepared.epoch, 2);
    assert!(matches!(outcome(&ledger, command_of(&prepared)), Ok(Outcome::Committed(_))));
    // Epochs begin and end one after the other.
    for (begun, destroyed) in [(2, 0), (4, 0), (0, 1), (0, 2), (0, 3)] {
        let record = Record { epoch_begun: begun, epoch_destroyed: destroyed, ..Record::default() };
        assert!(matches!(outcome(&ledger, command(&record, vec![])), Ok(Outcome::Changed)), "{record:?}");
    }
    ledger.close();
}

#[test]
fn a_change_that_fails_at_any_step_is_finished_by_the_next() {
    // Operations of a change: next, current, wiping next.
    for allowed in 0..3 {
        let dir = TempDir::new().unwrap();
        let files = Arc::new(PlainEpochs::new(dir.path()));
        let ledger = open_files(dir.path(), Arc::clone(&files), true);
        issue(&ledger, 1);
        files.left.store(allowed, Ordering::Relaxed);
        assert!(matches!(ledger.rotate(event), Err(RotateError::Files(_))), "{allowed}");
        // The ledger goes on, in the old epoch or the new one.
        issue(&ledger, 2);
        let begun = ledger.state().epoch();
        assert_eq!((begun, ledger.state().is_rotating()), if allowed == 0 { (1, false) } else { (2, true) });
        files.left.store(usize::MAX, Ordering::Relaxed);
        assert_eq!(ledger.rotate(event).unwrap(), 2);
        assert!(!ledger.state().is_rotating());
        ledger.close();
        let ledger = open_plain(dir.path());
        assert_eq!(
            (body(&ledger, 1).unwrap(), body(&ledger, 2).unwrap()),
            (SECRET.to_vec(), SECRET.to_vec())
        );
        ledger.close();
    }
}

#[test]
fn a_crash_at_any_step_of_a_change_loses_no_key_and_keeps_no_erased_one() {
    let dir = TempDir::new().unwrap();
    let copies = TempDir::new().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let mut files = PlainEpochs::new(&data);
    let kept = Arc::new(Copies { to: copies.path().to_owned(), made: AtomicUsize::new(0) });
    files.copies = Some(Copies { to: copies.path().join("files"), made: AtomicUsize::new(0) });
    let files = Arc::new(files);
    let hook = {
        let (kept, data) = (Arc::clone(&kept), data.clone());
        move |frame: u64| {
            // Of the journal's steps only those of the change itself matter here.
            if frame >= 4 {
                kept.make(&data);
            }
        }
    };
    let hooks = Hooks { after_sync: Some(Arc::new(hook)), ..Hooks::default() };
    let options = Options { hooks, image: false, ..options(&data) };
    let (ledger, _) = Ledger::open(options, keys_with(files)).unwrap();
    let (_, gone) = issue(&ledger, 1);
    issue(&ledger, 2);
    commit_now(&ledger, erasure(&ledger, 1));
    ledger.rotate(event).unwrap();
    issue(&ledger, 3);
    ledger.close();

    let mut found = Vec::new();
    for folder in [copies.path().to_owned(), copies.path().join("files")] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.join("journal").exists() {
                found.push(path);
            }
        }
    }
    assert!(found.len() >= 8, "{}", found.len());
    let mut rotating = 0;
    for folder in found {
        let ledger = open_plain(&folder);
        rotating += usize::from(ledger.state().is_rotating());
        let epoch = ledger.state().epoch();
        assert_eq!(body(&ledger, 2).unwrap(), SECRET);
        let has_third = ledger.state().license(&key(3)).is_some();
        // Whatever is left to do is done, and the erasure is complete.
        let before = ledger.state().is_rotating();
        let after = ledger.rotate(event).unwrap();
        assert_eq!(after, if before { epoch } else { epoch + 1 });
        assert!(matches!(body(&ledger, 1), Err(ReadError::KeyGone)));
        issue(&ledger, 4);
        ledger.close();
        assert!(!folder.join("keys/epoch.next").exists());
        let (_, present, rows) = read_file(&fs::read(folder.join("keys/epoch")).unwrap());
        assert!(rows.iter().all(|row| row.label != gone.label));
        assert!(unwraps(&present, &gone.entered()).is_none());
        let ledger = open_files(&folder, Arc::new(PlainEpochs::new(&folder)), false);
        for n in [2, 4].into_iter().chain(has_third.then_some(3)) {
            assert_eq!(body(&ledger, n).unwrap(), SECRET);
        }
        ledger.close();
    }
    assert!(rotating > 0, "some copy stands in the middle of the change");
}

#[test]
fn key_files_that_are_not_the_present_ones_are_refused_and_nothing_changes() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let open_data = || open_plain(&data);
    fs::create_dir(&data).unwrap();
    let ledger = open_data();
    issue(&ledger, 1);
    ledger.close();
    let path = data.join("keys/epoch");
    let old = fs::read(&path).unwrap();
    let rolled_back = dir.path().join("rolled-back");
    copy(&data, &rolled_back);
    let ledger = open_data();
    ledger.rotate(event).unwrap();
    issue(&ledger, 2);
    ledger.close();
    let present = fs::read(&path).unwrap();
    fs::write(rolled_back.join("keys/epoch"), &present).unwrap();

    let refused = |folder: &Path, content: Option<&[u8]>, why: &str| {
        let path = folder.join("keys/epoch");
        match content {
            Some(content) => fs::write(&path, content).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let before = files(folder);
        let said = refusal_of(folder);
        assert!(said.contains(why), "{said}");
        let changed: Vec<_> = files(folder).into_iter().filter(|file| !before.contains(file)).collect();
        let names: Vec<_> = changed.iter().map(|(path, _)| path).collect();
        // The restart image is derived, and sled writes its own files whenever it opens them.
        let derived =
            |path: &&&PathBuf| path.strip_prefix(folder).unwrap().to_str().unwrap().starts_with("store");
        assert!(names.iter().all(|path| derived(&path)), "{why}: {names:?}");
        assert_eq!(
            files(&folder.join("journal")).len(),
            before.iter().filter(|(path, _)| { path.starts_with(folder.join("journal")) }).count()
        );
    };
    refused(&data, None, "missing");
    refused(&data, Some(&old), "older than the journal");
    refused(&data, Some(&ledger::first_epoch("log.example/other")), "of another log");
    refused(&data, Some(&present[..present.len() - 1]), "of another format");
    refused(&data, Some(&present[..40]), "of another format");
    // The same epoch with a key of its own, and with the right key and a table that lacks a holder.
    let mut other = present.clone();
    other[40] ^= 1;
    refused(&data, Some(&other), "lacks the key of a living holder");
    let mut short = present[..73].to_vec();
    short[69..].fill(0);
    refused(&data, Some(&short), "lacks the key of a living holder");
    refused(&rolled_back, Some(&present), "newer than the journal");

    fs::write(&path, &present).unwrap();
    let ledger = open_data();
    assert_eq!((body(&ledger, 1).unwrap(), body(&ledger, 2).unwrap()), (SECRET.to_vec(), SECRET.to_vec()));
    ledger.close();
}

#[test]
fn a_rebuild_deletes_nothing_for_keys_that_cannot_make_it_again() {
    let dir = TempDir::new().unwrap();
    let ledger = open_plain(dir.path());
    issue(&ledger, 1);
    ledger.close();
    let before = files(dir.path());
    let other = Arc::new(EpochsInMemory::new("log.example/other", [3; 32]));
    let refused = ledger::rebuild(options(dir.path()), keys_with(other), RebuildFrom::Zero, &|_| {});
    assert!(matches!(refused, Err(OpenError::Keys(_))));
    assert_eq!(files(dir.path()), before);
}

#[test]
fn an_epoch_changes_under_load_and_nobody_loses_anything() {
    const WRITERS: u8 = 4;
    const CHANGES: u32 = 6;
    let dir = TempDir::new().unwrap();
    let ledger = open_plain(dir.path());
    for n in 1..=WRITERS {
        issue(&ledger, n);
    }
    let stop = AtomicBool::new(false);
    let receipts = Mutex::new(Vec::new());
    let new = std::thread::scope(|scope| {
        for writer in 1..=WRITERS {
            let (ledger, stop, receipts) = (&ledger, &stop, &receipts);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let receipt = runtime.block_on(commit(ledger, use_of(ledger, writer)));
                    receipts.lock().unwrap().push(receipt);
                }
            });
        }
        // New holders come in every epoch; one that is prepared in the old epoch is decided again.
        let (ledger_of_new, stop_new) = (&ledger, &stop);
        let new = scope.spawn(move || {
            let mut n = WRITERS;
            while !stop_new.load(Ordering::Relaxed) && n < 200 {
                n += 1;
                loop {
                    let holder = ledger_of_new.new_holder(key(n));
                    let record = Record {
                        concerned: vec![holder.label],
                        new_holders: vec![new_holder(&holder)],
                        licenses: vec![license(key(n), 1, vec![holder.label], 0)],
                        ..Record::default()
                    };
                    let body =
                        ledger_of_new.seal_subject(0, std::slice::from_ref(&holder.holder_key), SECRET);
                    match outcome(ledger_of_new, command(&record, vec![body])).unwrap() {
                        Outcome::Committed(_) => break,
                        Outcome::Changed => {}
                    }
                }
            }
            n
        });
        for change in 0..CHANGES {
            assert_eq!(ledger.rotate(event).unwrap(), change + 2);
            let seen = receipts.lock().unwrap().len();
            while receipts.lock().unwrap().len() < seen + 50 {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
        new.join().unwrap()
    });
    let receipts = receipts.into_inner().unwrap();
    let digest = ledger.state().digest();
    ledger.close();
    for image in [true, false] {
        let ledger = open_files(dir.path(), Arc::new(PlainEpochs::new(dir.path())), image);
        assert_eq!((ledger.state().digest(), ledger.state().epoch()), (digest, CHANGES + 1));
        let indexes: BTreeSet<_> = receipts.iter().map(|receipt| receipt.index).collect();
        assert_eq!(indexes.len(), receipts.len(), "no place is given twice");
        let uses = receipts.len() + usize::from(new) + 2 * CHANGES as usize;
        assert_eq!(ledger.size(), uses as u64, "nothing acknowledged is missing, nothing else is there");
        for receipt in &receipts {
            check_receipt(&ledger, receipt, &ledger.proof(receipt.index).unwrap().unwrap());
        }
        for n in 1..=new {
            assert_eq!(body(&ledger, n).unwrap(), SECRET, "{n}");
        }
        ledger.close();
    }
    assert_eq!(verify(dir.path()).unwrap().problems, Vec::<String>::new());
}

#[test]
fn what_an_auditor_keeps_of_an_erased_holder_opens_with_no_key_that_is_left() {
    let dir = TempDir::new().unwrap();
    let ledger = open_plain(dir.path());
    let (receipt, holder) = issue(&ledger, 1);
    // The record that an auditor is shown, byte for byte what the leaf commits to.
    let shown = Record::decode(&ledger.entry(receipt.index).unwrap().record_bytes).unwrap();
    let kept = &shown.new_holders[0];
    assert_eq!((kept.label, &kept.wrapped[..]), (holder.label, &holder.wrapped[..]));
    commit_now(&ledger, ended(&ledger, 1));
    commit_now(&ledger, erasure(&ledger, 1));
    let of_old = read_file(&fs::read(dir.path().join("keys/epoch")).unwrap()).1;
    ledger.rotate(event).unwrap();
    ledger.close();
    // Its epoch's key would open it, and is in no file any more.
    assert!(unwraps(&of_old, kept).is_some());
    let (_, present, rows) = read_file(&fs::read(dir.path().join("keys/epoch")).unwrap());
    assert!(unwraps(&present, kept).is_none() && rows.is_empty());
    for (path, bytes) in files(dir.path()) {
        assert!(!contains(&bytes, &of_old), "{}", path.display());
    }
}

/// 2027-01-01T00:00:00 in China.
const NEW_YEAR_MS: u64 = 1_798_732_800_000;

/// Destroying a holder's key of one year leaves every other key, and what it seals, as it was.
#[test]
fn a_year_of_a_holder_is_destroyed_and_the_rest_stays_readable() {
    let dir = TempDir::new().unwrap();
    let now = Arc::new(AtomicU64::new(NEW_YEAR_MS - 1));
    let open = |image: bool| {
        let clock = Arc::clone(&now);
        let hooks =
            Hooks { clock: Some(Arc::new(move || clock.load(Ordering::Relaxed))), ..Hooks::default() };
        loop {
            let options = Options { image, hooks: hooks.clone(), ..options(dir.path()) };
            let files: Arc<dyn EpochFiles> = Arc::new(PlainEpochs::new(dir.path()));
            match Ledger::open(options, keys_with(files)) {
                Err(OpenError::Locked) => std::thread::yield_now(),
                opened => return opened.unwrap().0,
            }
        }
    };
    let ledger = open(true);
    let (_, first) = issue(&ledger, 1);
    issue(&ledger, 2);
    let label = first.label;
    let of = |year: u16| KeyName { label, class: STANDARD, year };
    assert_eq!(first.holder_key.name(), of(2026));
    let late = use_of(&ledger, 1);
    now.store(NEW_YEAR_MS, Ordering::Relaxed);
    assert!(
        matches!(outcome(&ledger, late), Ok(Outcome::Changed)),
        "sealed in another year than its entry's"
    );

    // The first entry of a year bears its key, once.
    let bearing = || {
        let mut record = Record { concerned: vec![label], ..Record::default() };
        let key = ledger.sealing_key(&label, &mut record).unwrap();
        assert_eq!(ledger.sealing_key(&label, &mut record).unwrap().name(), key.name());
        let part = ledger.seal_subject(0, &[key], SECRET);
        (record.new_keys.len(), command(&record, vec![part]))
    };
    let (one, two) = (bearing(), bearing());
    assert_eq!((one.0, two.0), (1, 1));
    let used = commit_now(&ledger, one.1);
    assert!(matches!(outcome(&ledger, two.1), Ok(Outcome::Changed)), "the key was born meanwhile");
    let (none, again) = bearing();
    assert_eq!(none, 0);
    commit_now(&ledger, again);

    let destruction = |name: KeyName| {
        command(&Record { destroyed: vec![name], concerned: vec![name.label], ..Record::default() }, vec![])
    };
    let early = outcome(&ledger, destruction(of(2027)));
    assert!(matches!(early, Err(Refused::Malformed(_))), "the year is not over: {early:?}");
    for absent in [of(2025), KeyName { class: 2, ..of(2026) }, KeyName { label: key(9), ..of(2026) }] {
        let refused = outcome(&ledger, destruction(absent));
        assert!(!matches!(refused, Ok(Outcome::Committed(_))), "{absent:?}");
    }
    commit_now(&ledger, destruction(of(2026)));
    assert!(matches!(outcome(&ledger, destruction(of(2026))), Ok(Outcome::Changed)));
    let part_of = |ledger: &Ledger, index: u64| ledger.open_subject(ledger.entry(index).unwrap().parts[0]);
    let check = |ledger: &Ledger| {
        assert!(matches!(body(ledger, 1), Err(ReadError::KeyGone)));
        assert_eq!(body(ledger, 2).unwrap(), SECRET, "the same year of another holder");
        assert_eq!(part_of(ledger, used.index).unwrap(), SECRET, "another year of the holder");
        let names: Vec<_> = ledger.state().key_names(&label).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [of(2027)]);
        assert!(!ledger.state().holder_by_label(&label).unwrap().erased);
    };
    check(&ledger);
    ledger.rotate(event).unwrap();
    check(&ledger);
    let digest = ledger.state().digest();
    ledger.close();

    // No key that is left opens what the journal holds of the destroyed one.
    let (_, present, rows) = read_file(&fs::read(dir.path().join("keys/epoch")).unwrap());
    assert_eq!(unwraps(&present, &first.entered()), None);
    let mut years: Vec<_> =
        rows.iter().filter(|row| row.label == label).map(|row| (row.class, row.year)).collect();
    years.sort_unstable();
    assert_eq!((rows.len(), years), (2, vec![(STANDARD, 2027)]));
    for image in [true, false] {
        let ledger = open(image);
        check(&ledger);
        assert_eq!(ledger.state().digest(), digest);
        ledger.close();
    }
    assert_eq!(verify(dir.path()).unwrap().problems, Vec::<String>::new());

    // Erasing the holder destroys them all.
    let ledger = open(true);
    commit_now(&ledger, ended(&ledger, 1));
    commit_now(&ledger, erasure(&ledger, 1));
    for _ in 0..2 {
        assert!(matches!(part_of(&ledger, used.index), Err(ReadError::KeyGone)));
        assert_eq!(ledger.state().key_names(&label), []);
        ledger.rotate(event).unwrap();
    }
    ledger.close();
    let (.., rows) = read_file(&fs::read(dir.path().join("keys/epoch")).unwrap());
    assert!(rows.iter().all(|row| row.label != label));
}
