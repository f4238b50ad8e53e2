//! Tests of the restart image and its snapshots, with real stores in temporary folders.

use super::*;
use crate::{
    commit::command::{Command, Outcome, Prepared},
    derive::feed::Feed,
    folder::tiles_folder,
    health::Failing,
    journal::{
        record::{Completion, CounterUse, DocumentState, LicenseState, NO_BODY_PART, Record},
        subjects::Subjects,
    },
    keys::{crypt::Crypt, epoch::EpochsInMemory, secrets::LedgerKeys},
    ledger::Ledger,
    names::{Label, Position},
    state::{
        Applied,
        fact::{DocumentKind, Fact},
    },
};
use ring::{rand::SystemRandom, signature::Ed25519KeyPair};
use tempfile::TempDir;
use verifier::leaf::{LeafKind, Open};
use verifier::merkle::Frontier;

const ORIGIN: &str = "log.example/test";

fn commit(ledger: &Ledger, record: &Record) {
    let subjects = Subjects::none();
    let open = Open { route: 1, decision: 3, subject_digest: *subjects.digest(), ..Open::default() };
    let permit_or_denial = Prepared {
        kind: LeafKind::Entry,
        open: open.encode(),
        record: record.clone(),
        told: vec![[0; 32]; record.concerned.len()],
        subjects,
    };
    let command = Command { permit_or_denial, reads: Vec::new(), ends_at_ms: u64::MAX, inline_proof: false };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(matches!(runtime.block_on(ledger.commit(command)), Ok(Outcome::Committed(_))));
}

fn document(number: u8) -> Record {
    let value = DocumentState {
        kind: 1,
        key: [number; 16],
        version: 1,
        value: vec![number; 40],
        ..DocumentState::default()
    };
    Record { documents: vec![value], ..Record::default() }
}

/// Changes each value and makes the image agree with itself again: damage that no checksum shows.
fn forge(store: &Path, engine: Engine) {
    let mut image = Image::found(engine.open(store).unwrap(), verifier::sha256(&[ORIGIN.as_bytes()]));
    let meta = image.check().unwrap().unwrap();
    let mut values = FxHashMap::default();
    image
        .each_from_the_last(|slot, value| {
            let mut value = value.unwrap().to_vec();
            *value.last_mut().unwrap() ^= 1;
            assert_eq!(values.insert(slot, Some(value)), None);
            Ok(())
        })
        .unwrap();
    // The document and the epochs.
    assert_eq!(values.len(), 2);
    image.write_exact(&values, &meta, &mut || {}).unwrap();
}

/// An image that failed is made anew from the state in memory: what is no slot would be lost with the next start.
#[test]
fn the_slots_of_a_state_are_all_that_its_digest_sums_up() {
    let log = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let keys = LedgerKeys {
        journal: [1; 32],
        index: [2; 32],
        log_pkcs8: log.as_ref().to_vec(),
        epochs: Arc::new(EpochsInMemory::new(ORIGIN, [3; 32])),
    };
    let dir = TempDir::new().unwrap();
    let options = Options { reserve_percent: 0, ..Options::new(dir.path(), ORIGIN) };
    let (ledger, _) = Ledger::open(options, keys).unwrap();
    let holder = ledger.new_holder([7; 16]);
    let new = holder.entered();
    let concerned = vec![holder.label];
    let born = Record { concerned: concerned.clone(), new_holders: vec![new], ..document(1) };
    commit(&ledger, &born);
    commit(&ledger, &Record { concerned, release_ms: u64::MAX, ..Record::default() });
    let state = ledger.state();
    let mut digest = Digest::default();
    let mut kinds = FxHashSet::default();
    let mut visit = |slot: &Slot| {
        kinds.insert(slot.encode()[0]);
        digest.add(&slot.encode(), &state.value(slot).unwrap());
        Ok::<_, StoreError>(())
    };
    state.walk(&mut visit).unwrap();
    assert_eq!(digest.bytes(), state.digest());
    assert_eq!(kinds.len(), 6, "holder and its key, document, oversight sequence, delayed use, epochs");
    ledger.close();
}

/// One with the same keys each time, in the first epoch.
fn crypt() -> Crypt {
    let epochs = Arc::new(EpochsInMemory::new(ORIGIN, [3; 32]));
    let crypt =
        Crypt::new(ORIGIN, &LedgerKeys { journal: [1; 32], index: [2; 32], log_pkcs8: Vec::new(), epochs });
    crypt.install_epoch(1, &[4; 32]);
    crypt.begin_epoch(1);
    crypt
}

/// An entry that makes a holder, with its label.
fn born(number: u8) -> (Record, Label) {
    let holder = crypt().new_holder([number; 16], crate::STANDARD, 1_790_000_000_000);
    let new = holder.entered();
    let record = Record { concerned: vec![holder.label], new_holders: vec![new], ..Record::default() };
    (record, holder.label)
}

/// An entry that makes a holder and writes a license that names it.
fn licensed(number: u8, version: u32) -> (Record, Label) {
    let (mut record, label) = born(number);
    record.licenses = vec![LicenseState {
        key: [99; 16],
        version,
        state: 1,
        certificate_version: 1,
        valid_from_day: 0,
        valid_until_day: i32::MAX,
        taken_over: false,
        written_by_04: false,
        number_tag: 7,
        holders: vec![label],
        body_part: NO_BODY_PART,
    }];
    (record, label)
}

/// What an image is made of, without the thread and without the sequencer.
fn made(dir: &TempDir) -> Follower {
    let state = Arc::new(State::new(Arc::new(crypt()), 10));
    let options = Options::new(dir.path(), ORIGIN);
    let image = Image::create(&store_folder(dir.path()), Engine::default(), ORIGIN).unwrap();
    let tiles = Arc::new(Tiles::open(&tiles_folder(dir.path())).unwrap());
    let (_, fed) = Feed::new(Arc::new(Failing::new()));
    Follower::new(&options, image, fed, state, tiles, Cursor::start(), FxHashSet::default(), 0).0
}

/// Applies an entry as the sequencer does; gives what it changed.
fn apply(state: &State, index: u64, time_ms: u64, record: &Record) -> Vec<Slot> {
    let counters = vec![1; record.counters.len()];
    let completion = Completion { delayed: false, links: Vec::new(), counters };
    let mut changed = Vec::new();
    let entry = Applied {
        index,
        time_ms,
        organisation: [0; 18],
        leaf_hash: [0; 32],
        frame: Position::new(0, 64),
        parts: &[],
        record,
        completion: &completion,
    };
    state.apply(&entry, &mut changed);
    changed
}

fn version(version: u32) -> Record {
    let mut record = document(1);
    record.documents[0].version = version;
    record
}

/// What the sequencer tells of a group that is applied.
fn news(state: &State, slots: Vec<Slot>, size: u64, with_values: bool) -> Change {
    let values = with_values.then(|| slots.iter().map(|slot| state.value(slot)).collect());
    Change::Applied { slots, values, size }
}

fn seal(size: u64, time_ms: u64) -> Change {
    let mut frontier = Frontier::new();
    (0..size).for_each(|_| frontier.append([0; 32]));
    Change::Sealed(Box::new(Cursor { frontier, time_ms, ..Cursor::start() }))
}

fn take(follower: &mut Follower, change: Change) {
    follower.incoming.take(change);
    follower.go_on_with_snapshot();
}

/// The digest of the snapshot that was made, if one was.
fn snapshot_made(follower: &Follower) -> Option<StateDigest> {
    follower.digest.lock().unwrap().take()
}

/// The sequencer saw that values were wanted, for the snapshot before, and was then slow to send them.
#[test]
fn values_that_came_along_for_an_earlier_snapshot_are_not_taken_into_the_next() {
    let dir = TempDir::new().unwrap();
    let mut follower = made(&dir);
    let state = Arc::clone(&follower.state);
    let slots = apply(&state, 0, 1, &version(1));
    let late = news(&state, slots, 1, true);
    let slots = apply(&state, 1, 1, &version(2));
    let next = news(&state, slots, 2, false);
    follower.begin_snapshot();
    take(&mut follower, late);
    take(&mut follower, next);
    take(&mut follower, seal(2, 1));
    assert_eq!(snapshot_made(&follower), Some(StateDigest { size: 2, digest: state.digest() }));
}

/// The image reads the living state while an entry behind the seal is half applied.
#[test]
fn an_entry_that_is_half_applied_gets_into_no_snapshot_before_it() {
    let dir = TempDir::new().unwrap();
    let mut follower = made(&dir);
    let state = Arc::clone(&follower.state);
    let slots = apply(&state, 0, 1, &version(1));
    follower.incoming.take(news(&state, slots, 1, false));
    follower.incoming.take(seal(1, 1));
    let slots = std::thread::scope(|scope| {
        let half = state.stop_before_binding();
        let applying = scope.spawn(|| apply(&state, 1, 1, &version(2)));
        while state.version(&Fact::Document(DocumentKind::Participant, [1; 16])) != 2 {
            std::thread::yield_now();
        }
        follower.begin_snapshot();
        drop(half);
        applying.join().unwrap()
    });
    assert_eq!(snapshot_made(&follower), None);
    take(&mut follower, news(&state, slots, 2, true));
    take(&mut follower, seal(2, 1));
    assert_eq!(snapshot_made(&follower), Some(StateDigest { size: 2, digest: state.digest() }));
}

/// Else a large state would be written over and over by the journal of a busy hour.
#[test]
fn a_snapshot_waits_until_the_journal_has_grown_by_many_times_the_last_one() {
    let dir = TempDir::new().unwrap();
    let mut follower = made(&dir);
    let segments = follower.snapshot_segments;
    follower.incoming.changed = true;
    follower.incoming.cursor.position = Position::new(segments - 1, 64);
    assert!(!follower.snapshot_is_due());
    follower.incoming.cursor.position = Position::new(segments, 64);
    assert!(follower.snapshot_is_due());
    follower.last_snapshot_bytes = u64::from(segments) * follower.segment_bytes / SNAPSHOT_SHARE + 1;
    assert!(!follower.snapshot_is_due());
    follower.incoming.cursor.position = Position::new(segments + 1, 64);
    assert!(follower.snapshot_is_due());
    follower.last_snapshot_bytes *= 100;
    assert!(!follower.snapshot_is_due());
    follower.snapshot_interval = Duration::ZERO;
    assert!(follower.snapshot_is_due());
}

/// Else what a start reads would grow without end.
#[test]
fn an_image_is_rewritten_before_it_holds_too_much_that_does_not_count() {
    let dir = TempDir::new().unwrap();
    let mut follower = made(&dir);
    let mut rewritten = 0;
    for size in 0..200 {
        let slots = apply(&follower.state, size, 1, &document((size % 20) as u8));
        let news = news(&follower.state, slots, size + 1, false);
        take(&mut follower, news);
        take(&mut follower, seal(size + 1, 1));
        let before = follower.image.as_ref().unwrap().blocks.clone();
        follower.write(size % 50 == 40);
        let image = follower.image.as_ref().unwrap();
        rewritten += u32::from(image.blocks.start >= before.end);
        assert!(size % 50 == 40 || image.values <= 2 * image.newest + SLACK, "{size}");
        assert!(image.stale.is_empty());
        assert_eq!(follower.covered.load(Ordering::Relaxed), size + 1);
    }
    let (state, image) = (follower.state, follower.image.take().unwrap());
    let mut blocks = 0;
    image
        .store
        .each(&mut |_, _| {
            blocks += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(blocks, 1 + image.blocks.end - image.blocks.start, "the head and the blocks that count");
    drop(image);
    assert!((4..12).contains(&rewritten), "{rewritten}");
    let again = opened(&store_folder(dir.path()), Engine::default()).1;
    assert_eq!(again.digest(), state.digest());
}

/// A day ends while the image is written, which knows nothing yet of the counters that are dropped with it; and then
/// the process is killed.
#[test]
fn counters_that_end_while_an_image_is_written_end_in_the_next_start_too() {
    const DAY_MS: u64 = 86_400_000;
    let dir = TempDir::new().unwrap();
    let mut follower = made(&dir);
    let state = Arc::clone(&follower.state);
    let (old, new) = (20_000_u32, 20_002_u32);
    let counter = CounterUse { key: [9; 16], day: old, amount: 1, limit: 5 };
    let first = Record { counters: vec![counter], ..version(1) };
    let (before, after) = (u64::from(old) * DAY_MS, u64::from(new) * DAY_MS);
    let slots = apply(&state, 0, before, &first);
    take(&mut follower, news(&state, slots, 1, false));
    follower.write(false);
    let long = Record {
        documents: vec![DocumentState { value: vec![7; BLOCK_BYTES], ..version(2).documents[0].clone() }],
        ..Record::default()
    };
    let slots = FxHashSet::from_iter(apply(&state, 1, before, &long));
    take(&mut follower, seal(2, before));
    let mut image = follower.image.take().unwrap();
    let mut pause = || drop(apply(&state, 2, after, &version(3)));
    image.write(&state, &slots, follower.incoming.cursor.clone(), &mut pause).unwrap();
    drop(image);
    assert_eq!((state.applied(), state.counter(&counter.key, old)), (3, 0));

    let store = store_folder(dir.path());
    let (opened, again) = opened(&store, Engine::default());
    assert_eq!(opened.meta.unwrap().cursor.frontier.size(), 2);
    assert_eq!(again.counter(&counter.key, old), 1);
    apply(&again, 2, after, &version(3));
    assert_eq!((again.counter(&counter.key, old), again.digest()), (0, state.digest()));
}

/// Opens an image into a state of its own.
fn opened(store: &Path, engine: Engine) -> (Loaded, Arc<State>) {
    let state = made(&TempDir::new().unwrap()).state;
    (Image::open(store, engine, ORIGIN, &state, &mut |_| {}).unwrap(), state)
}

/// Values that are written again, that are gone and come again, in blocks that are rewritten now and then: whoever
/// opens the image finds the newest of each.
#[test]
fn of_each_slot_the_newest_value_is_found() {
    const DAY_MS: u64 = 86_400_000;
    for engine in Engine::ALL {
        let dir = TempDir::new().unwrap();
        let store = store_folder(dir.path());
        let state = made(&TempDir::new().unwrap()).state;
        let mut image = Image::create(&store, engine, ORIGIN).unwrap();
        let mut versions = [0; 20];
        let mut rewritten = 0;
        for step in 0..80_u64 {
            let mut changed = FxHashSet::default();
            for change in 0..1 + step * 7 % 13 {
                let number = (step * 5 + change * 3) % 20;
                versions[number as usize] += 1;
                let mut record = document(number as u8);
                record.documents[0].version = versions[number as usize];
                // Dropped with its day.
                let day = 20_000 + step as u32 / 8;
                record.counters = vec![CounterUse { key: [number as u8; 16], day, amount: 1, limit: 9 }];
                let index = state.applied();
                changed.extend(apply(&state, index, u64::from(day) * DAY_MS, &record));
            }
            if image.is_full(changed.len()) {
                image.rewrite(&state, Cursor::start(), &mut || {}).unwrap();
                rewritten += 1;
            } else {
                image.write(&state, &changed, Cursor::start(), &mut || {}).unwrap();
            }
            let before = (image.blocks.clone(), image.values, image.digest);
            drop(image);
            let (again, loaded) = opened(&store, engine);
            image = again.image;
            let expected = (state.digest(), state.digest());
            assert_eq!((again.digest.bytes(), loaded.digest()), expected, "{} {step}", engine.name());
            assert_eq!((image.blocks.clone(), image.values, image.digest), before);
            assert!(image.stale.is_empty());

            let (mut digest, mut odd) = (Digest::default(), Vec::new());
            let mut visit = |slot: &Slot| {
                if odd.len() < 9 {
                    odd.push(*slot);
                    digest.add(&slot.encode(), &state.value(slot).unwrap());
                }
                Ok::<_, StoreError>(())
            };
            state.walk(&mut visit).unwrap();
            assert_eq!(image.digest_of(&odd).unwrap(), digest, "{step}");
        }
        assert!(rewritten > 3, "{rewritten}");
    }
}

/// The journal has it, and the epoch's key file does not yet.
#[test]
fn an_image_without_a_holders_key_is_made_anew() {
    let log = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let epochs = Arc::new(EpochsInMemory::new(ORIGIN, [3; 32]));
    let keys = || LedgerKeys {
        journal: [1; 32],
        index: [2; 32],
        log_pkcs8: log.as_ref().to_vec(),
        epochs: Arc::clone(&epochs) as _,
    };
    let dir = TempDir::new().unwrap();
    let options = || Options { reserve_percent: 0, ..Options::new(dir.path(), ORIGIN) };
    let (ledger, _) = Ledger::open(options(), keys()).unwrap();
    let holder = ledger.new_holder([7; 16]);
    let new = holder.entered();
    commit(&ledger, &Record { concerned: vec![holder.label], new_holders: vec![new], ..document(1) });
    ledger.close();
    for without in [false, true] {
        if without {
            let store = Engine::default().open(&store_folder(dir.path())).unwrap();
            let mut image = Image::found(store, verifier::sha256(&[ORIGIN.as_bytes()]));
            let meta = image.check().unwrap().unwrap();
            let mut keys = FxHashMap::default();
            let mut find = |slot: Slot, _: Option<&[u8]>| {
                if !slot.is_digested() {
                    keys.insert(slot, None);
                }
                Ok(())
            };
            image.each_from_the_last(&mut find).unwrap();
            assert_eq!(keys.len(), 1);
            image.write_exact(&keys, &meta, &mut || {}).unwrap();
        }
        let (ledger, opened) = Ledger::open(options(), keys()).unwrap();
        assert_eq!(opened.from_image, !without);
        assert!(ledger.state().holder_key(&holder.label).is_some());
        ledger.close();
    }
}

/// The image reads the living state, where a license may have got a holder of whom the image was not told.
#[test]
fn a_license_is_written_with_the_holders_that_it_names_by_then() {
    let dir = TempDir::new().unwrap();
    let mut follower = made(&dir);
    let state = Arc::clone(&follower.state);
    let mut image = follower.image.take().unwrap();
    let slots = FxHashSet::from_iter(apply(&state, 0, 1, &licensed(1, 1).0));
    let (second, label) = licensed(2, 2);
    apply(&state, 1, 1, &second);
    image.write(&state, &slots, Cursor::start(), &mut || {}).unwrap();
    drop(image);
    let again = opened(&store_folder(dir.path()), Engine::default()).1;
    assert_eq!(again.license(&[99; 16]).unwrap().holders, [label]);
    assert_eq!(again.digest(), state.digest());
}

#[test]
fn a_holder_who_comes_while_the_state_is_walked_stands_before_the_license_that_names_it() {
    let state = made(&TempDir::new().unwrap()).state;
    let (first, before) = licensed(1, 1);
    apply(&state, 0, 1, &first);
    let (second, after) = licensed(2, 2);
    // Comes when the walk has passed the holders.
    let mut second = Some(second);
    let mut seen = Vec::new();
    let mut visit = |slot: &Slot| {
        if !slot.is_holder()
            && slot.is_digested()
            && let Some(second) = second.take()
        {
            apply(&state, 1, 1, &second);
        }
        seen.push(*slot);
        Ok::<_, StoreError>(())
    };
    state.walk(&mut visit).unwrap();
    let seen = |label: Label| seen.iter().position(|slot| slot.is_holder() && slot.encode()[1..17] == label);
    assert!(seen(before) < seen(after) && seen(before).is_some());
}

#[test]
fn whoever_is_erased_does_not_come_back_with_an_older_block() {
    let dir = TempDir::new().unwrap();
    let mut follower = made(&dir);
    let state = Arc::clone(&follower.state);
    let mut image = follower.image.take().unwrap();
    let (first, erased) = born(1);
    let (second, again) = born(1);
    let erasure = Record { erased: vec![erased], ..Record::default() };
    for (index, record) in [first, erasure, second].iter().enumerate() {
        let slots = FxHashSet::from_iter(apply(&state, index as u64, 1, record));
        image.write(&state, &slots, Cursor::start(), &mut || {}).unwrap();
        assert_eq!(state.holder_key(&erased).is_some(), index == 0);
    }
    drop(image);
    let loaded = opened(&store_folder(dir.path()), Engine::default()).1;
    assert_eq!((loaded.holder(&[1; 16]).unwrap().label, loaded.digest()), (again, state.digest()));
    assert!(loaded.holder_by_label(&erased).unwrap().erased);
    assert!(loaded.holder_key(&erased).is_none() && loaded.holder_key(&again).is_some());
}

/// A store that gives other bytes than it was given, after some readings.
struct Lying {
    store: Box<dyn Store>,
    readings: std::cell::Cell<usize>,
}

impl Store for Lying {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut value = self.store.get(key)?;
        let readings = self.readings.get();
        if readings == 0
            && let Some(last) = value.as_mut().and_then(|value| value.last_mut())
        {
            *last ^= 1;
        }
        self.readings.set(readings.wrapping_sub(1));
        Ok(value)
    }

    fn each(&self, visit: &mut store::Visit<'_>) -> Result<(), StoreError> {
        self.store.each(visit)
    }

    fn apply(&mut self, batch: Batch) -> Result<(), StoreError> {
        self.store.apply(batch)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.store.flush()
    }
}

/// A digest that is logged must be of what was written and not of what the engine says.
#[test]
fn a_store_that_reads_something_else_makes_no_snapshot_and_no_state() {
    let (mut lied, mut snapshots) = (0, 0);
    for readings in (0..40).step_by(5) {
        let dir = TempDir::new().unwrap();
        let mut follower = made(&dir);
        let mut slots = Vec::new();
        for number in 0..20 {
            slots.extend(apply(&follower.state, number.into(), 1, &document(number)));
        }
        let all = news(&follower.state, slots, 20, false);
        take(&mut follower, all);
        follower.begin_snapshot();
        let more = apply(&follower.state, 20, 1, &version(2));
        let more = news(&follower.state, more, 21, true);
        take(&mut follower, more);
        let image = follower.image.take().unwrap();
        let store = Lying { store: image.store, readings: readings.into() };
        follower.image = Some(Image { store: Box::new(store), ..image });
        take(&mut follower, seal(21, 1));
        match snapshot_made(&follower) {
            Some(made) => {
                assert_eq!(made, StateDigest { size: 21, digest: follower.state.digest() });
                let image = follower.image.as_mut().unwrap();
                let state = self::made(&TempDir::new().unwrap()).state;
                snapshots += 1;
                if image.load(&state).is_ok() {
                    assert_eq!(state.digest(), follower.state.digest());
                } else {
                    lied += 1;
                }
            }
            None => {
                assert!(follower.image.is_none());
                lied += 1;
            }
        }
    }
    assert!(lied > 3 && snapshots > 1, "{lied} {snapshots}");
}

/// A store whose process is killed after some batches.
struct Killed {
    store: Box<dyn Store>,
    batches: usize,
}

impl Store for Killed {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(key)
    }

    fn each(&self, visit: &mut store::Visit<'_>) -> Result<(), StoreError> {
        self.store.each(visit)
    }

    fn apply(&mut self, batch: Batch) -> Result<(), StoreError> {
        self.batches = self.batches.checked_sub(1).ok_or(StoreError::Panicked)?;
        self.store.apply(batch)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.store.flush()
    }
}

/// What was written without a head does not count, and is not in the way of what is written next.
#[test]
fn a_kill_within_a_writing_leaves_the_image_as_it_was() {
    type Write = fn(&mut Image, &State, FxHashSet<Slot>, &Meta) -> Result<(), StoreError>;
    let ways: [Write; 3] = [
        |image, state, slots, meta| image.write(state, &slots, meta.cursor.clone(), &mut || {}),
        |image, state, _, meta| image.rewrite(state, meta.cursor.clone(), &mut || {}),
        |image, state, slots, meta| {
            let values = slots.into_iter().map(|slot| (slot, state.value(&slot))).collect();
            image.write_exact(&values, meta, &mut || {})
        },
    ];
    let documents = 30_u8;
    for (way, write) in ways.into_iter().enumerate() {
        let mut whole = false;
        for killed_after in 0..12 {
            let dir = TempDir::new().unwrap();
            let path = store_folder(dir.path());
            let state = made(&TempDir::new().unwrap()).state;
            let mut image = Image::create(&path, Engine::default(), ORIGIN).unwrap();
            apply(&state, 0, 1, &document(0));
            image.rewrite(&state, Cursor::start(), &mut || {}).unwrap();
            let before = state.digest();
            drop(image);

            let store = Killed { store: Engine::default().open(&path).unwrap(), batches: killed_after };
            let mut image = Image::found(Box::new(store), verifier::sha256(&[ORIGIN.as_bytes()]));
            image.check().unwrap();
            let slots = (1..documents).flat_map(|number| apply(&state, number.into(), 1, &document(number)));
            let slots: FxHashSet<Slot> = slots.collect();
            let meta = Meta { cursor: Cursor { time_ms: 1, ..Cursor::start() }, covers: documents.into() };
            let written = write(&mut image, &state, slots.clone(), &meta);
            drop(image);

            let (found, again) = opened(&path, Engine::default());
            let Loaded { mut image, meta: found, .. } = found;
            let found = found.unwrap();
            if found.covers == u64::from(documents) {
                assert_eq!((&found, again.digest()), (&meta, state.digest()), "{way} {killed_after}");
                // A rewriting may be killed while it removes what it left out.
                assert!(written.is_ok() || way == 1);
                whole = true;
            } else {
                assert!(written.is_err());
                assert_eq!((found.cursor, again.digest()), (Cursor::start(), before));
                assert_eq!(image.stale.is_empty(), killed_after == 0, "{way}");
            }
            write(&mut image, &state, slots, &meta).unwrap();
            drop(image);
            let (found, again) = opened(&path, Engine::default());
            assert_eq!((found.meta.unwrap(), again.digest()), (meta, state.digest()));
            assert!(found.image.stale.is_empty());
        }
        assert!(whole, "{way}");
    }
}

#[test]
fn a_block_that_is_changed_or_missing_is_noticed() {
    let dir = TempDir::new().unwrap();
    let store = store_folder(dir.path());
    let state = made(&TempDir::new().unwrap()).state;
    let mut image = Image::create(&store, Engine::Sled, ORIGIN).unwrap();
    let changed = (0..9).flat_map(|number| apply(&state, number.into(), 1, &document(number))).collect();
    image.write(&state, &changed, Cursor::start(), &mut || {}).unwrap();
    assert!(image.blocks.end > 2);
    for number in [0, 1, image.blocks.end - 1] {
        let whole = image.store.get(&block_key(number)).unwrap().unwrap();
        let mut other = whole.clone();
        *other.last_mut().unwrap() ^= 1;
        for damaged in [None, Some(other), Some(whole[..whole.len() - 1].to_vec())] {
            image.store.apply(Batch::from([(block_key(number).to_vec(), damaged)])).unwrap();
            assert!(matches!(image.check(), Err(StoreError::Doubtful(_))), "{number}");
        }
        image.store.apply(Batch::from([(block_key(number).to_vec(), Some(whole))])).unwrap();
        assert!(image.check().unwrap().is_some());
    }
    let head = image.store.get(META_KEY).unwrap().unwrap();
    for at in 0..head.len() {
        let mut other = head.clone();
        other[at] ^= 1;
        image.store.apply(Batch::from([(META_KEY.to_vec(), Some(other))])).unwrap();
        assert!(matches!(image.check(), Err(StoreError::Doubtful(_))), "{at}");
    }
    image.store.apply(Batch::from([(META_KEY.to_vec(), None)])).unwrap();
    assert!(matches!(image.check(), Err(StoreError::Doubtful(_))));
}

#[test]
fn an_image_that_is_not_the_state_whose_digest_was_logged_is_not_used() {
    let log = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let keys = || LedgerKeys {
        journal: [1; 32],
        index: [2; 32],
        log_pkcs8: log.as_ref().to_vec(),
        epochs: Arc::new(EpochsInMemory::new(ORIGIN, [3; 32])),
    };
    for engine in Engine::ALL {
        for forged in [false, true] {
            let dir = TempDir::new().unwrap();
            let quiet = Options {
                engine,
                segment_bytes: 256 << 10,
                group_bytes: 64 << 10,
                reserve_percent: 0,
                ..Options::new(dir.path(), ORIGIN)
            };
            let (ledger, _) = Ledger::open(quiet.clone(), keys()).unwrap();
            commit(&ledger, &document(1));
            ledger.close();
            let (store, old) = (dir.path().join("store"), dir.path().join("old"));
            std::fs::rename(&store, &old).unwrap();

            let busy = Options { snapshot_interval: Duration::ZERO, ..quiet.clone() };
            let (ledger, _) = Ledger::open(busy, keys()).unwrap();
            // One value that the image has, and one that it lacks.
            let documents = [version(2).documents, document(2).documents].concat();
            commit(&ledger, &Record { documents, ..Record::default() });
            let logged = loop {
                match ledger.snapshot_to_log() {
                    Some(digest) if digest.size == 2 => break digest,
                    _ => std::thread::sleep(Duration::from_millis(5)),
                }
            };
            commit(&ledger, &Record { state_digest: Some(logged), ..Record::default() });
            let digest = ledger.state().digest();
            ledger.close();

            std::fs::remove_dir_all(&store).unwrap();
            std::fs::rename(&old, &store).unwrap();
            if forged {
                forge(&store, engine);
            }
            let (ledger, opened) = Ledger::open(quiet, keys()).unwrap();
            assert_eq!((ledger.state().digest(), opened.from_image), (digest, !forged));
            assert_eq!(dir.path().join("store.bad-0").exists(), forged);
            ledger.close();
        }
    }
}
