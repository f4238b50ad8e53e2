//! The restart image: the state's values in a [`Store`], so that a start replays only what came after the last seal
//! it covers. Derived: never read to decide, never waited for, moved aside and made again on any doubt. And the
//! snapshots, which are written from it.
//!
//! An engine's `flush` is not relied on (sled's is not durable on Linux): after a power cut the image is an older one
//! (replay starts earlier) or an inconsistent one (its digest is wrong and everything is replayed).

use crate::{
    Hash, Position,
    ledger::{Derived, Failing, Options},
    record::StateDigest,
    recovery,
    sequencer::Cursor,
    snapshot,
    state::{Digest, Slot, State},
    store::{self, Batch, Engine, Store, StoreError, guarded},
    tiles::Tiles,
};
use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};
use rustc_hash::{FxHashMap, FxHashSet};
use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    time::{Duration, Instant},
};
use verifier::merkle::Frontier;

/// What is on its way to the image, in messages of the sequencer's [`crate::followers`]; beyond it the sequencer waits, which
/// bounds the lag.
const QUEUE: usize = 1024;
/// How long the sequencer waits before it gives the image up: an engine may hang.
const PATIENCE: Duration = Duration::from_secs(60);
/// While many values are written, news are taken in after so many, so that the sequencer need not wait.
const TAKE_IN_VALUES: usize = 256;
/// Changes are coalesced this long while there is load, or until there are [`MOST_KEYS`], or until a start would have to
/// replay [`MOST_LAG`] entries (about two seconds): a value that changes with every use is then written once.
const WRITE_INTERVAL: Duration = Duration::from_secs(30);
const MOST_KEYS: usize = 100_000;
const MOST_LAG: u64 = 200_000;
/// Most values of a batch. An engine keeps all that a batch replaces until its end: with 100,000 values sled took twice the memory.
const BATCH_KEYS: usize = if cfg!(test) { 4 } else { 10_000 };
/// More values than this at once are written as deltas, and merged into their own keys when there is nothing else to do, which
/// takes an engine far longer (decision 0022). This and the others are small in tests, which reach them so.
const FEW_VALUES: usize = if cfg!(test) { 3 } else { 10_000 };
/// A delta is begun anew when it is this long.
const DELTA_BYTES: usize = if cfg!(test) { 200 } else { 4 << 10 };
/// Deltas hold at most twice the values that are the newest of their slots, and these more.
const DELTA_SLACK: usize = if cfg!(test) { 10 } else { 100_000 };
/// So many slots stay in deltas while there is nothing else to do: those that change again and again need not be merged each time.
const FEW_UNMERGED: usize = if cfg!(test) { 6 } else { 100_000 };
/// More slots than this are not kept in deltas, which takes memory: they are merged under load too.
const MOST_UNMERGED: usize = if cfg!(test) { 12 } else { 1_000_000 };
/// After so many segments a snapshot waits until the journal has grown by this many times the length of the last one: beside
/// a large state it would otherwise be most of what is written.
const SNAPSHOT_SHARE: u64 = 64;
/// How often the thread looks whether something is due.
const TICK: Duration = Duration::from_secs(1);
/// How long a snapshot waits for the tiles, which are behind by some milliseconds.
const TILES_PATIENCE: Duration = Duration::from_secs(1);
/// And how often it looks for them meanwhile.
const TILES_PAUSE: Duration = Duration::from_millis(10);
/// Rest before an image that failed is made anew: what made it fail (a full disk) may be over by then.
const REBUILD_REST: Duration = Duration::from_secs(60);
/// Where the head stands in the store; slots begin with their kind, which is not 0.
pub(crate) const META_KEY: &[u8] = &[0];
/// In a delta, in place of the length of a value that is gone.
const GONE: u32 = u32::MAX;
const FORMAT: u8 = 1;

/// News for the image.
enum Change {
    /// Some groups were applied: what they changed, the values after them if they are wanted, and the size after them.
    Applied { slots: Vec<Slot>, values: Option<Vec<Option<Vec<u8>>>>, size: u64 },
    /// A seal was written; replay may begin behind it.
    Sealed(Box<Cursor>),
}

/// The sequencer's end of the queue to the image.
pub(crate) struct Feed {
    /// `None` when there is no image, or it was given up.
    sender: Option<Sender<Change>>,
    wanted: Arc<AtomicBool>,
    failing: Arc<Failing>,
}

impl Feed {
    /// A feed and what the image's thread takes from it; the flag asks for exact values.
    pub(crate) fn new(failing: Arc<Failing>) -> (Self, FeedReceiver) {
        let (sender, receiver) = bounded(QUEUE);
        let wanted = Arc::new(AtomicBool::new(false));
        let feed = Self { sender: Some(sender), wanted: Arc::clone(&wanted), failing: Arc::clone(&failing) };
        (feed, FeedReceiver { receiver, wanted, failing })
    }

    /// Whether the values are wanted of a group that was just applied. Is asked after it was applied.
    pub(crate) fn wants_values(&self) -> bool {
        // Pairs with the fence in `Follower::begin_snapshot`: either this group sees that values are wanted, or the
        // image's thread sees that it was applied before.
        fence(Ordering::SeqCst);
        self.wanted.load(Ordering::Relaxed)
    }

    /// Tells that groups were applied to the state: what they changed, with the values if they were wanted of all of them.
    pub(crate) fn applied(&mut self, slots: Vec<Slot>, values: Option<Vec<Option<Vec<u8>>>>, size: u64) {
        self.send(Change::Applied { slots, values, size });
    }

    /// Tells that a seal was written.
    pub(crate) fn sealed(&mut self, cursor: &Cursor) {
        self.send(Change::Sealed(Box::new(cursor.clone())));
    }

    fn send(&mut self, change: Change) {
        let Some(sender) = &self.sender else { return };
        match sender.send_timeout(change, PATIENCE) {
            Ok(()) => {}
            // A follower that has gone says so itself; the journal does not depend on it.
            Err(SendTimeoutError::Disconnected(_)) => self.sender = None,
            Err(SendTimeoutError::Timeout(_)) => {
                tracing::error!(
                    "the restart image does not keep up and is given up: the next start replays more"
                );
                metrics::counter!("miaoxiang_image_failures_total").increment(1);
                self.failing.set(Derived::Image, true);
                self.sender = None;
            }
        }
    }
}

/// The other end of a [`Feed`].
pub(crate) struct FeedReceiver {
    receiver: Receiver<Change>,
    wanted: Arc<AtomicBool>,
    failing: Arc<Failing>,
}

/// What an image says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Replay begins here: behind the last seal that the image covers.
    pub(crate) cursor: Cursor,
    /// Entries that the values may already know of. All of them were durable when the image was written, so a
    /// shorter journal has lost some.
    pub(crate) covers: u64,
}

/// A value stands under its slot, or in a delta: a list of slots with their values, which go before whatever stands under
/// the same slots and in the deltas before it. Deltas have consecutive numbers and stand before all slots.
pub(crate) struct Image {
    store: Box<dyn Store>,
    origin: Hash,
    /// Of everything in the store but the head: of the state when there is no delta.
    digest: Digest,
    /// The number of the oldest delta and of the next one.
    deltas: Range<u64>,
    /// For each slot with a value in a delta the delta that has the newest.
    unmerged: FxHashMap<Slot, u64>,
    /// Values in all deltas.
    delta_values: usize,
    /// Has no head yet: what is written before the head is of no use and no harm.
    new: bool,
}

/// An image that was opened.
pub(crate) struct Loaded {
    pub(crate) image: Image,
    /// `None` when it is new.
    pub(crate) meta: Option<Meta>,
    /// Of the values, each the newest of its slot: of the state that was loaded.
    pub(crate) digest: Digest,
}

impl Image {
    /// Opens the image in `store` and loads its values into an empty state. `see` gets the meta even if the values then
    /// prove bad: it has a checksum of its own.
    pub(crate) fn open(
        store: &Path,
        engine: Engine,
        origin: &str,
        state: &State,
        see: &mut dyn FnMut(&Meta),
    ) -> Result<Loaded, StoreError> {
        guarded(|| {
            let opened = engine.open(store)?;
            let origin = verifier::sha256(&[origin.as_bytes()]);
            if let Some(head) = opened.get(META_KEY)? {
                see(&Meta::decode(&head, &origin)?.0);
            }
            let contents = read(&*opened, &origin, &mut |slot, value| {
                state.load(slot, value).ok_or(StoreError::Doubtful("malformed"))
            })?;
            if let Some(meta) = &contents.meta {
                state.loaded(&meta.cursor);
            }
            Ok(Self::of(opened, origin, contents))
        })
    }

    /// A new image in an empty `store`.
    pub(crate) fn create(store: &Path, engine: Engine, origin: &str) -> Result<Self, StoreError> {
        guarded(|| {
            let store = engine.open(store)?;
            let origin = verifier::sha256(&[origin.as_bytes()]);
            let contents = read(&*store, &origin, &mut |_, _| Ok(()))?;
            match contents.meta {
                None => Ok(Self::of(store, origin, contents).image),
                Some(_) => Err(StoreError::Doubtful("there already")),
            }
        })
    }

    fn of(store: Box<dyn Store>, origin: Hash, contents: Contents) -> Loaded {
        let Contents { meta, pairs, values, deltas, unmerged, delta_values } = contents;
        let new = meta.is_none();
        let image = Self { store, origin, digest: pairs, deltas, unmerged, delta_values, new };
        Loaded { image, meta, digest: values }
    }

    /// The value of a slot, as it was written last.
    pub(crate) fn value(&self, slot: &Slot) -> Result<Option<Vec<u8>>, StoreError> {
        guarded(|| {
            let Some(number) = self.unmerged.get(slot) else { return self.store.get(&slot.encode()) };
            let mut found = None;
            each_in_delta(&self.delta(*number)?, |other, value| {
                if other == *slot {
                    found = value.map(<[u8]>::to_vec);
                }
            })?;
            Ok(found)
        })
    }

    fn delta(&self, number: u64) -> Result<Vec<u8>, StoreError> {
        self.store.get(&delta_key(number))?.ok_or(StoreError::Doubtful("without one of its deltas"))
    }

    /// Puts the values of slots into a batch under their own keys and keeps the digest.
    fn put(
        &self,
        batch: &mut Batch,
        digest: &mut Digest,
        slot: &Slot,
        value: Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let key = slot.encode();
        if let Some(old) = self.store.get(&key)? {
            digest.remove(&key, &old);
        }
        if let Some(value) = &value {
            digest.add(&key, value);
        }
        batch.insert(key.to_vec(), value);
        Ok(())
    }

    /// Writes the present values of the changed slots with the meta, in one batch; `pause` is called now and then.
    fn write(
        &mut self,
        state: &State,
        slots: &FxHashSet<Slot>,
        cursor: Cursor,
        pause: &mut dyn FnMut(),
    ) -> Result<(), StoreError> {
        guarded(|| {
            let mut batch = Batch::new();
            let mut digest = self.digest;
            // Beside deltas only another delta is newer.
            if self.new || (self.deltas.is_empty() && slots.len() <= FEW_VALUES) {
                // An engine of pages then reads each of them once, from end to end, and not once for each of its values.
                let mut slots: Vec<&Slot> = slots.iter().collect();
                slots.sort_unstable_by_key(|slot| slot.encode());
                for (at, slot) in slots.into_iter().enumerate() {
                    self.put(&mut batch, &mut digest, slot, state.value(slot))?;
                    if at % TAKE_IN_VALUES == 0 {
                        pause();
                    }
                    if self.new && batch.len() >= BATCH_KEYS {
                        self.store.apply(std::mem::take(&mut batch))?;
                    }
                }
            } else {
                for slot in slots {
                    self.unmerged.insert(*slot, self.deltas.end);
                }
                let mut slots: Vec<Slot> = slots.iter().copied().collect();
                let most = 2 * self.unmerged.len() + DELTA_SLACK;
                while !self.deltas.is_empty() && self.delta_values + slots.len() > most {
                    // Their newest values go to the end, the others go.
                    slots.extend(self.take_oldest(&mut batch, &mut digest, BATCH_KEYS)?);
                }
                self.put_deltas(&mut batch, &mut digest, state, slots, pause)?;
            }
            // Read after the values: they know of no later entry than this, half applied ones included.
            let meta = Meta { cursor, covers: state.begun() };
            self.finish(batch, digest, &meta)
        })
    }

    /// Puts the present values of slots into a batch as deltas.
    fn put_deltas(
        &mut self,
        batch: &mut Batch,
        digest: &mut Digest,
        state: &State,
        slots: Vec<Slot>,
        pause: &mut dyn FnMut(),
    ) -> Result<(), StoreError> {
        let mut slots = slots.into_iter().peekable();
        while slots.peek().is_some() {
            let number = self.deltas.end;
            let mut delta = Vec::with_capacity(DELTA_BYTES + DELTA_BYTES / 8);
            while delta.len() < DELTA_BYTES
                && let Some(slot) = slots.next()
            {
                let value = state.value(&slot);
                let length = value.as_ref().map_or(Ok(GONE), |value| u32::try_from(value.len()));
                let length = length.map_err(|_| StoreError::Doubtful("a value too long"))?;
                delta.extend_from_slice(&slot.encode());
                delta.extend_from_slice(&length.to_be_bytes());
                delta.extend_from_slice(&value.unwrap_or_default());
                self.unmerged.insert(slot, number);
                self.delta_values += 1;
            }
            let key = delta_key(number);
            digest.add(&key, &delta);
            batch.insert(key.to_vec(), Some(delta));
            self.deltas.end += 1;
            pause();
        }
        Ok(())
    }

    /// Takes the oldest deltas away, until they had `enough` slots whose newest value they hold, and gives those.
    fn take_oldest(
        &mut self,
        batch: &mut Batch,
        digest: &mut Digest,
        enough: usize,
    ) -> Result<Vec<Slot>, StoreError> {
        let mut slots = Vec::new();
        while !self.deltas.is_empty() && slots.len() < enough {
            let number = self.deltas.start;
            let (key, delta) = (delta_key(number), self.delta(number)?);
            each_in_delta(&delta, |slot, _| {
                self.delta_values -= 1;
                if self.unmerged.get(&slot) == Some(&number) {
                    slots.push(slot);
                }
            })?;
            digest.remove(&key, &delta);
            batch.insert(key.to_vec(), None);
            self.deltas.start += 1;
        }
        Ok(slots)
    }

    /// Writes what the oldest deltas hold under its own keys, with its present values, and removes them: in one batch of a
    /// bounded length. Whether there are more.
    fn merge(&mut self, state: &State, cursor: Cursor, pause: &mut dyn FnMut()) -> Result<bool, StoreError> {
        guarded(|| {
            let mut batch = Batch::new();
            let mut digest = self.digest;
            let mut slots = self.take_oldest(&mut batch, &mut digest, BATCH_KEYS)?;
            slots.sort_unstable_by_key(Slot::encode);
            for (at, slot) in slots.iter().enumerate() {
                self.put(&mut batch, &mut digest, slot, state.value(slot))?;
                self.unmerged.remove(slot);
                if at % TAKE_IN_VALUES == 0 {
                    pause();
                }
            }
            let meta = Meta { cursor, covers: state.begun() };
            self.finish(batch, digest, &meta)?;
            Ok(!self.deltas.is_empty())
        })
    }

    /// Writes given values, which are those of one moment, with the meta of that moment, into an image without deltas. Until
    /// the last batch replay begins at `before`, the cursor that the image has, and sets them once more.
    fn write_exact(
        &mut self,
        values: FxHashMap<Slot, Option<Vec<u8>>>,
        before: &Cursor,
        meta: &Meta,
        pause: &mut dyn FnMut(),
    ) -> Result<(), StoreError> {
        guarded(|| {
            let mut batch = Batch::new();
            let mut digest = self.digest;
            let mut values: Vec<_> = values.into_iter().collect();
            values.sort_unstable_by_key(|(slot, _)| slot.encode());
            for (at, (slot, value)) in values.into_iter().enumerate() {
                self.put(&mut batch, &mut digest, &slot, value)?;
                if at % TAKE_IN_VALUES == 0 {
                    pause();
                }
                if batch.len() >= BATCH_KEYS {
                    let so_far = Meta { cursor: before.clone(), covers: meta.covers };
                    self.finish(std::mem::take(&mut batch), digest, &so_far)?;
                }
            }
            self.finish(batch, digest, meta)
        })
    }

    fn finish(&mut self, mut batch: Batch, digest: Digest, meta: &Meta) -> Result<(), StoreError> {
        batch.insert(META_KEY.to_vec(), Some(meta.encode(&self.origin, &digest.bytes())));
        self.store.apply(batch)?;
        self.store.flush()?;
        (self.digest, self.new) = (digest, false);
        Ok(())
    }
}

/// Where a delta stands; as long as a slot, so that the digest sums it up like one.
fn delta_key(number: u64) -> [u8; Slot::BYTES] {
    let mut key = [0; Slot::BYTES];
    key[1..9].copy_from_slice(&number.to_be_bytes());
    key
}

/// The number of the delta under a key; `None` when the key is another's.
fn delta_number(key: &[u8]) -> Option<u64> {
    let number = u64::from_be_bytes(*key.get(1..)?.first_chunk()?);
    (key == delta_key(number)).then_some(number)
}

/// Gives every slot of a delta with its value, or that it is gone.
fn each_in_delta(delta: &[u8], mut take_in: impl FnMut(Slot, Option<&[u8]>)) -> Result<(), StoreError> {
    const MALFORMED: StoreError = StoreError::Doubtful("malformed");
    let mut rest = delta;
    while !rest.is_empty() {
        let slot = Slot::decode(&take::<{ Slot::BYTES }>(&mut rest).ok_or(MALFORMED)?).ok_or(MALFORMED)?;
        let value = match u32::from_be_bytes(take(&mut rest).ok_or(MALFORMED)?) {
            GONE => None,
            length => Some(rest.split_off(..length as usize).ok_or(MALFORMED)?),
        };
        take_in(slot, value);
    }
    Ok(())
}

/// What the image in `store` says about itself; its values are not read.
pub(crate) fn head(store: &Path, engine: Engine, origin: &str) -> Result<Option<Meta>, StoreError> {
    guarded(|| {
        let head = engine.open(store)?.get(META_KEY)?;
        let origin = verifier::sha256(&[origin.as_bytes()]);
        head.map(|head| Ok(Meta::decode(&head, &origin)?.0)).transpose()
    })
}

/// Takes a slot and its value; an error ends the reading.
pub(crate) type TakeValue<'a> = dyn FnMut(&Slot, &[u8]) -> Result<(), StoreError> + 'a;

/// What a store holds.
#[derive(Default)]
struct Contents {
    /// `None` when it is empty.
    meta: Option<Meta>,
    /// Of all pairs but the head.
    pairs: Digest,
    /// Of the newest value of each slot.
    values: Digest,
    deltas: Range<u64>,
    unmerged: FxHashMap<Slot, u64>,
    delta_values: usize,
}

/// Reads a whole store: its head and the digest of what it holds, which is compared with the head's. A store without a
/// head must be empty. `take` gets the newest value of each slot, by ascending slot.
fn read(store: &dyn Store, origin: &Hash, take: &mut TakeValue<'_>) -> Result<Contents, StoreError> {
    const MALFORMED: StoreError = StoreError::Doubtful("malformed");
    let head = store.get(META_KEY)?.map(|meta| Meta::decode(&meta, origin)).transpose()?;
    let mut contents = Contents::default();
    // What the deltas hold and was not taken yet.
    let mut newest: BTreeMap<[u8; Slot::BYTES], Option<Vec<u8>>> = BTreeMap::new();
    let mut give = |contents: &mut Contents, key: &[u8; Slot::BYTES], value: &[u8]| {
        contents.values.add(key, value);
        take(&Slot::decode(key).ok_or(MALFORMED)?, value)
    };
    store.each(&mut |key, value| {
        if key == META_KEY {
            return Ok(());
        }
        if head.is_none() {
            return Err(StoreError::Doubtful("without its head"));
        }
        let key: &[u8; Slot::BYTES] = key.try_into().map_err(|_| MALFORMED)?;
        contents.pairs.add(key, value);
        if let Some(number) = delta_number(key) {
            if contents.deltas.is_empty() {
                contents.deltas = number..number;
            }
            if number != contents.deltas.end {
                return Err(StoreError::Doubtful("without one of its deltas"));
            }
            contents.deltas.end = number.checked_add(1).ok_or(MALFORMED)?;
            return each_in_delta(value, |slot, value| {
                contents.delta_values += 1;
                contents.unmerged.insert(slot, number);
                newest.insert(slot.encode(), value.map(<[u8]>::to_vec));
            });
        }
        while let Some(first) = newest.first_entry()
            && first.key() < key
        {
            if let (key, Some(value)) = first.remove_entry() {
                give(&mut contents, &key, &value)?;
            }
        }
        match newest.remove(key) {
            Some(Some(newer)) => give(&mut contents, key, &newer),
            Some(None) => Ok(()),
            None => give(&mut contents, key, value),
        }
    })?;
    for (key, value) in newest {
        if let Some(value) = value {
            give(&mut contents, &key, &value)?;
        }
    }
    if let Some((meta, expected)) = head {
        if contents.pairs.bytes() != expected {
            return Err(StoreError::Doubtful("not what its digest says"));
        }
        contents.meta = Some(meta);
    }
    Ok(contents)
}

/// Opens the restart image of a data folder and reads all of it: what a probe does in a process of its own, before
/// the gateway trusts the engine with the same files in its own.
///
/// # Errors
/// [`StoreError`]. The engine may also panic, hang or abort the process; that is what the probe is for.
pub fn check_store(data: &Path, engine: Engine, origin: &str) -> Result<(), StoreError> {
    let store = engine.open(&recovery::store_folder(data))?;
    read(&*store, &verifier::sha256(&[origin.as_bytes()]), &mut |_, _| Ok(())).map(drop)
}

/// A snapshot in the making. The values that the image gets from the living state are of no one moment. So the
/// sequencer is asked to send along the values of what it changes, until everything that the image read from the
/// state lies before a seal: what was read and not changed since is as it was read, all else came along.
struct Capture {
    /// Up to this size changes may have come without values.
    without: u64,
    /// The entries that the values read from the state may know of; `None` while they are not read.
    known: Option<u64>,
    values: FxHashMap<Slot, Option<Vec<u8>>>,
}

/// What the image's thread has received.
struct Incoming {
    feed: FeedReceiver,
    /// The last seal.
    cursor: Cursor,
    /// Size after the last group.
    size: u64,
    /// What was changed and is not written. Bounded by what the state holds.
    slots: FxHashSet<Slot>,
    /// There is an image to write them to.
    wanted: bool,
    capture: Option<Capture>,
    /// Something changed since the last snapshot.
    changed: bool,
}

impl Incoming {
    fn take(&mut self, change: Change) {
        match change {
            Change::Applied { slots, values, size } => {
                self.changed |= !slots.is_empty();
                match (&mut self.capture, values) {
                    // Up to `without` the values may be of the snapshot before, and what came after them without.
                    (Some(capture), Some(values)) if size > capture.without => {
                        capture.values.extend(slots.into_iter().zip(values));
                    }
                    _ if self.wanted => self.slots.extend(slots),
                    _ => {}
                }
                self.size = size;
            }
            Change::Sealed(cursor) => self.cursor = *cursor,
        }
    }

    /// Takes what waits.
    fn take_all(&mut self) {
        while let Ok(change) = self.feed.receiver.try_recv() {
            self.take(change);
        }
    }

    /// What came along for a snapshot that is not made is changed and not written.
    fn end_capture(&mut self) {
        self.feed.wanted.store(false, Ordering::Relaxed);
        if let Some(capture) = self.capture.take() {
            self.slots.extend(capture.values.into_keys());
        }
    }
}

/// What the image's thread owns.
pub(crate) struct Follower {
    folder: PathBuf,
    engine: Engine,
    origin: String,
    snapshot_segments: u32,
    snapshot_interval: Duration,
    segment_bytes: u64,
    state: Arc<State>,
    tiles: Arc<Tiles>,
    incoming: Incoming,
    /// `None` after a failure, until it is made anew.
    image: Option<Image>,
    written_cursor: Option<Cursor>,
    last_write: Instant,
    /// Size that the image covers, for the lag.
    covered: Arc<AtomicU64>,
    last_snapshot: Instant,
    last_snapshot_segment: u32,
    last_snapshot_bytes: u64,
    /// The digest of the newest snapshot, until it is logged.
    digest: Arc<Mutex<Option<StateDigest>>>,
}

/// What a [`Follower`] shares with the ledger's handle.
pub(crate) struct Followed {
    pub(crate) covered: Arc<AtomicU64>,
    pub(crate) digest: Arc<Mutex<Option<StateDigest>>>,
}

impl Follower {
    /// `slots` is what the image lacks of the state, `covered` the size up to which it lacks nothing.
    #[expect(clippy::too_many_arguments, reason = "one caller; a struct would only repeat the names")]
    pub(crate) fn new(
        options: &Options,
        image: Image,
        feed: FeedReceiver,
        state: Arc<State>,
        tiles: Arc<Tiles>,
        cursor: Cursor,
        slots: FxHashSet<Slot>,
        covered: u64,
    ) -> (Self, Followed) {
        let origin = verifier::sha256(&[options.origin.as_bytes()]);
        let covered = Arc::new(AtomicU64::new(covered));
        let digest = Arc::new(Mutex::new(None));
        let followed = Followed { covered: Arc::clone(&covered), digest: Arc::clone(&digest) };
        // Restarts are no reason to put a snapshot off.
        let listed = snapshot::list(&recovery::snapshots_folder(&options.folder)).unwrap_or_default();
        let last = listed.last().and_then(|last| {
            let segment = snapshot::head(&last.path, &origin).ok()?.0.cursor.position.segment();
            Some((segment, last.path.metadata().ok()?.len()))
        });
        let (last_snapshot_segment, last_snapshot_bytes) = last.unwrap_or_default();
        let follower = Self {
            folder: options.folder.clone(),
            engine: options.engine,
            origin: options.origin.clone(),
            snapshot_segments: options.snapshot_segments,
            snapshot_interval: options.snapshot_interval,
            segment_bytes: options.segment_bytes,
            tiles,
            image: Some(image),
            last_snapshot_segment,
            last_snapshot_bytes,
            incoming: Incoming {
                feed,
                cursor,
                size: state.applied(),
                changed: !slots.is_empty(),
                slots,
                wanted: true,
                capture: None,
            },
            state,
            written_cursor: None,
            last_write: Instant::now(),
            covered,
            last_snapshot: Instant::now(),
            digest,
        };
        (follower, followed)
    }

    /// The thread behind the sequencer.
    ///
    /// Values are taken from the state as it is when a batch is made, which may be ahead of the changes received; both
    /// are durable already, and replay from the cursor sets every such value once more.
    pub(crate) fn run(mut self) {
        let mut more_to_merge = false;
        loop {
            // One batch follows another until there is news; then the journal must rest again.
            let patience = if more_to_merge { Duration::ZERO } else { TICK };
            let received = self.incoming.feed.receiver.recv_timeout(patience);
            more_to_merge = false;
            let ended = matches!(received, Err(RecvTimeoutError::Disconnected));
            let idle = matches!(received, Err(RecvTimeoutError::Timeout));
            // What waits now and no more, so that writing gets its turn under load. One by one from the channel: a
            // snapshot takes what comes meanwhile, which must not overtake what came before.
            let mut waiting = self.incoming.feed.receiver.len();
            let mut next = received.ok();
            while let Some(change) = next {
                self.incoming.take(change);
                // After each, so that nothing behind the seal at which a snapshot is taken gets into it.
                self.go_on_with_snapshot();
                next = if waiting > 0 { self.incoming.feed.receiver.try_recv().ok() } else { None };
                waiting = waiting.saturating_sub(1);
            }
            let lag = self.incoming.size.saturating_sub(self.covered.load(Ordering::Relaxed));
            metrics::gauge!("miaoxiang_image_lag_entries").set(lag as f64);
            if self.image.is_none() {
                if !ended && self.last_write.elapsed() >= REBUILD_REST {
                    self.make_anew();
                }
            } else if self.incoming.capture.is_none() || ended {
                if ended {
                    self.incoming.end_capture();
                }
                let slots = &self.incoming.slots;
                let clean = slots.is_empty() && self.written_cursor.as_ref() == Some(&self.incoming.cursor);
                let due = idle
                    || self.last_write.elapsed() >= WRITE_INTERVAL
                    || slots.len() >= MOST_KEYS
                    || lag >= MOST_LAG;
                if !clean && (ended || due) {
                    self.write();
                }
                // None beside an image that failed just now.
                if let Some(image) = self.image.as_ref().filter(|_| !ended) {
                    if self.merge_is_due(image, idle) {
                        more_to_merge = self.merge() && idle;
                    } else if image.deltas.is_empty() && self.snapshot_is_due() {
                        self.begin_snapshot();
                    }
                }
            }
            if ended {
                return;
            }
        }
    }

    /// Writes what was changed, as it is now.
    fn write(&mut self) {
        let Some(image) = &mut self.image else { return };
        let incoming = &mut self.incoming;
        let slots = std::mem::take(&mut incoming.slots);
        let (cursor, size) = (incoming.cursor.clone(), incoming.size);
        match image.write(&self.state, &slots, cursor.clone(), &mut || incoming.take_all()) {
            Ok(()) => {
                self.covered.store(size, Ordering::Release);
                self.written_cursor = Some(cursor);
                self.last_write = Instant::now();
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Whether some deltas are merged now: all before a snapshot, not within it, when what changes meanwhile would have to be
    /// kept; else until few slots are left in them, or fewer than the most under load.
    fn merge_is_due(&self, image: &Image, idle: bool) -> bool {
        let most = if idle { FEW_UNMERGED } else { MOST_UNMERGED };
        !image.deltas.is_empty() && (image.unmerged.len() >= most || self.snapshot_is_due())
    }

    /// Merges some deltas, if there are any. Whether there are more.
    fn merge(&mut self) -> bool {
        let Some(image) = self.image.as_mut().filter(|image| !image.deltas.is_empty()) else { return false };
        // The values may know of more than was written with this cursor; replay from it sets them once more.
        let Some(cursor) = self.written_cursor.clone() else { return false };
        let incoming = &mut self.incoming;
        image.merge(&self.state, cursor, &mut || incoming.take_all()).unwrap_or_else(|error| {
            self.fail(&error);
            false
        })
    }

    /// Gives the image up for a while. Nothing waits for it.
    fn fail(&mut self, error: &StoreError) {
        tracing::error!(%error, "the restart image failed and is made anew in a while");
        metrics::counter!("miaoxiang_image_failures_total").increment(1);
        self.incoming.feed.failing.set(Derived::Image, true);
        self.incoming.end_capture();
        self.incoming.wanted = false;
        self.incoming.slots = FxHashSet::default();
        let image = self.image.take();
        // A panic of the engine in its own drop ends here too.
        let _ = guarded(|| {
            drop(image);
            Ok(())
        });
        self.last_write = Instant::now();
    }

    /// Moves a failed image aside and makes a new one from the state.
    fn make_anew(&mut self) {
        self.last_write = Instant::now();
        let folder = recovery::store_folder(&self.folder);
        let made = store::quarantine(&folder)
            .map_err(StoreError::from)
            .and_then(|()| Image::create(&folder, self.engine, &self.origin));
        match made {
            Ok(image) => {
                metrics::counter!("miaoxiang_image_quarantined_total").increment(1);
                self.image = Some(image);
                self.incoming.feed.failing.set(Derived::Image, false);
                self.incoming.wanted = true;
                self.incoming.slots = self.state.slots();
                self.write();
            }
            Err(error) => self.fail(&error),
        }
    }

    fn snapshot_is_due(&self) -> bool {
        let segments = self.incoming.cursor.position.segment().saturating_sub(self.last_snapshot_segment);
        let grown = segments >= self.snapshot_segments
            && u64::from(segments) * self.segment_bytes >= SNAPSHOT_SHARE * self.last_snapshot_bytes;
        self.incoming.changed && (grown || self.last_snapshot.elapsed() >= self.snapshot_interval)
    }

    fn begin_snapshot(&mut self) {
        self.incoming.feed.wanted.store(true, Ordering::Relaxed);
        // Pairs with the fence in `Feed::wants_values`.
        fence(Ordering::SeqCst);
        let without = self.state.applied();
        self.incoming.capture = Some(Capture { without, known: None, values: FxHashMap::default() });
        self.go_on_with_snapshot();
    }

    fn go_on_with_snapshot(&mut self) {
        if let Some(Capture { without, known: None, values }) = &self.incoming.capture
            && self.incoming.size >= *without
        {
            // A seal may have come in between: what it covers must be in the image, whatever becomes of the snapshot.
            self.incoming.slots.extend(values.keys());
            self.write();
            while self.merge() {}
            let known = self.state.begun();
            if let Some(capture) = &mut self.incoming.capture {
                capture.known = Some(known);
            }
        }
        let sealed = self.incoming.cursor.frontier.size();
        let whole = |capture: &mut Capture| capture.known.is_some_and(|known| known <= sealed);
        if sealed == self.incoming.size
            && let Some(capture) = self.incoming.capture.take_if(whole)
        {
            self.incoming.feed.wanted.store(false, Ordering::Relaxed);
            if let Err(error) = self.snapshot(capture.values) {
                self.fail(&error);
            }
        }
    }

    /// The image, which has no deltas, becomes exactly the state at the last seal, and is copied to a snapshot.
    fn snapshot(&mut self, values: FxHashMap<Slot, Option<Vec<u8>>>) -> Result<(), StoreError> {
        let (Some(image), Some(before)) = (&mut self.image, &self.written_cursor) else { return Ok(()) };
        let incoming = &mut self.incoming;
        let meta = Meta { cursor: incoming.cursor.clone(), covers: incoming.size };
        incoming.changed = false;
        image.write_exact(values, before, &meta, &mut || incoming.take_all())?;
        self.covered.store(meta.covers, Ordering::Release);
        self.written_cursor = Some(meta.cursor.clone());
        (self.last_write, self.last_snapshot) = (Instant::now(), Instant::now());
        self.last_snapshot_segment = meta.cursor.position.segment();
        let digest = image.digest.bytes();
        let began = Instant::now();
        // Tiles that survive a power cut up to here need no older segment.
        let synced = loop {
            match self.tiles.sync(meta.covers) {
                Ok(false) if began.elapsed() < TILES_PATIENCE => std::thread::sleep(TILES_PAUSE),
                synced => break synced,
            }
            incoming.take_all();
        };
        if !matches!(synced, Ok(true)) {
            tracing::warn!("the tiles were not synced: after a power cut a start may read older segments");
        }
        let folder = recovery::snapshots_folder(&self.folder);
        let mut pause = || incoming.take_all();
        let written =
            guarded(|| snapshot::write(&folder, &*image.store, &meta, &image.origin, &digest, &mut pause));
        match written {
            Ok(bytes) => {
                self.last_snapshot_bytes = bytes;
                let logged = StateDigest { size: meta.covers, digest };
                *self.digest.lock().unwrap_or_else(PoisonError::into_inner) = Some(logged);
                Ok(())
            }
            // The disk may be full: the image is as good as before.
            Err(StoreError::Io(error)) => {
                tracing::warn!(%error, "no snapshot was written; the next one is tried when it is due");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

impl Meta {
    pub(crate) fn encode(&self, origin: &Hash, digest: &Hash) -> Vec<u8> {
        let cursor = &self.cursor;
        let mut bytes = [
            &[FORMAT][..],
            origin,
            digest,
            &self.covers.to_be_bytes(),
            &cursor.time_ms.to_be_bytes(),
            &cursor.frame.to_be_bytes(),
            &cursor.previous,
            &cursor.position.0.to_be_bytes(),
            &cursor.time_ms.to_be_bytes(),
            &cursor.frontier.size().to_be_bytes(),
            cursor.frontier.nodes().as_flattened(),
        ]
        .concat();
        let checksum = verifier::sha256(&[&bytes]);
        bytes.extend_from_slice(&checksum);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8], origin: &Hash) -> Result<(Self, Hash), StoreError> {
        const MALFORMED: StoreError = StoreError::Doubtful("malformed");
        let (body, checksum) = bytes.split_last_chunk::<32>().ok_or(MALFORMED)?;
        if verifier::sha256(&[body]) != *checksum {
            return Err(MALFORMED);
        }
        let mut rest = body;
        let r = &mut rest;
        if take::<1>(r).ok_or(MALFORMED)? != [FORMAT] {
            return Err(StoreError::Doubtful("of another format"));
        }
        if take::<32>(r).ok_or(MALFORMED)? != *origin {
            return Err(StoreError::Doubtful("of another log"));
        }
        let digest = take(r).ok_or(MALFORMED)?;
        let mut number = || take(r).map(u64::from_be_bytes).ok_or(MALFORMED);
        // The time stands behind the position once more.
        let (covers, _, frame) = (number()?, number()?, number()?);
        let previous = take(&mut rest).ok_or(MALFORMED)?;
        let r = &mut rest;
        let mut number = || take(r).map(u64::from_be_bytes).ok_or(MALFORMED);
        let (position, time_ms, size) = (Position(number()?), number()?, number()?);
        let (nodes, odd) = rest.as_chunks::<32>();
        let frontier =
            Frontier::from_parts(size, nodes.to_vec()).filter(|_| odd.is_empty()).ok_or(MALFORMED)?;
        let cursor = Cursor { frame, previous, position, frontier, time_ms };
        Ok((Self { cursor, covers }, digest))
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Command, DocumentKind, EpochsInMemory, Fact, Ledger, LedgerKeys, Outcome, Prepared, Subjects,
        crypt::Crypt,
        record::{Completion, CounterUse, DocumentState, NewHolder, Record},
        state::Applied,
    };
    use ring::{rand::SystemRandom, signature::Ed25519KeyPair};
    use tempfile::TempDir;
    use verifier::leaf::{Labels, LeafKind, Open};

    const ORIGIN: &str = "log.example/test";

    fn commit(ledger: &Ledger, record: &Record) {
        let subjects = Subjects::none();
        let open = Open {
            route: 1,
            decision: 3,
            code: 0,
            index: 0,
            time_ms: 0,
            organisation: [0; 18],
            request_digest: [0; 32],
            answer_digest: [0; 32],
            policy: [0; 32],
            subject_digest: *subjects.digest(),
            labels: Labels::List(Vec::new()),
        };
        let permit_or_denial = Prepared {
            kind: LeafKind::Entry,
            open: open.encode(),
            record: record.clone(),
            told: vec![[0; 32]; record.concerned.len()],
            subjects,
        };
        let command =
            Command { permit_or_denial, reads: Vec::new(), ends_at_ms: u64::MAX, inline_proof: false };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(matches!(runtime.block_on(ledger.commit(command)), Ok(Outcome::Committed(_))));
    }

    fn document(number: u8) -> Record {
        let value = DocumentState { kind: 1, key: [number; 16], version: 1, value: vec![number; 40] };
        Record { documents: vec![value], ..Record::default() }
    }

    /// Changes a value and makes the image agree with itself again: damage that no checksum shows.
    fn forge(store: &Path, engine: Engine) {
        let origin = verifier::sha256(&[ORIGIN.as_bytes()]);
        let mut store = engine.open(store).unwrap();
        let (meta, _) = Meta::decode(&store.get(META_KEY).unwrap().unwrap(), &origin).unwrap();
        let (mut batch, mut digest) = (Batch::new(), Digest::default());
        store
            .each(&mut |key, value| {
                if key != META_KEY {
                    let mut value = value.to_vec();
                    *value.last_mut().unwrap() ^= 1;
                    digest.add(key.try_into().unwrap(), &value);
                    batch.insert(key.to_vec(), Some(value));
                }
                Ok(())
            })
            .unwrap();
        // The document and the epochs.
        assert_eq!(batch.len(), 2);
        batch.insert(META_KEY.to_vec(), Some(meta.encode(&origin, &digest.bytes())));
        store.apply(batch).unwrap();
        store.flush().unwrap();
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
        let wrapped = holder.wrapped.as_slice().try_into().unwrap();
        let new = NewHolder { key: [7; 16], label: holder.label, epoch: holder.epoch, wrapped };
        let concerned = vec![holder.label];
        let born = Record { concerned: concerned.clone(), new_holders: vec![new], ..document(1) };
        commit(&ledger, &born);
        commit(&ledger, &Record { concerned, release_ms: u64::MAX, ..Record::default() });
        let state = ledger.state();
        let mut digest = Digest::default();
        let mut kinds = FxHashSet::default();
        for slot in state.slots().into_iter().filter(Slot::is_digested) {
            kinds.insert(slot.encode()[0]);
            digest.add(&slot.encode(), &state.value(&slot).unwrap());
        }
        assert_eq!(digest.bytes(), state.digest());
        assert_eq!(kinds.len(), 5, "holder, document, oversight sequence, delayed use, epochs");
        ledger.close();
    }

    /// What an image is made of, without the thread and without the sequencer.
    fn made(dir: &TempDir) -> Follower {
        let log = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let epochs = Arc::new(EpochsInMemory::new(ORIGIN, [3; 32]));
        let keys = LedgerKeys { journal: [1; 32], index: [2; 32], log_pkcs8: log.as_ref().to_vec(), epochs };
        let state = Arc::new(State::new(Arc::new(Crypt::new(ORIGIN, &keys)), 10));
        let options = Options::new(dir.path(), ORIGIN);
        let image = Image::create(&recovery::store_folder(dir.path()), Engine::default(), ORIGIN).unwrap();
        let tiles = Arc::new(Tiles::open(&recovery::tiles_folder(dir.path())).unwrap());
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

    /// Slots that change again and again are not merged each time; a snapshot is made of merged ones alone.
    #[test]
    fn deltas_are_merged_when_they_hold_many_slots_or_before_a_snapshot() {
        let dir = TempDir::new().unwrap();
        let mut follower = made(&dir);
        follower.write();
        let due = |follower: &Follower, idle| follower.merge_is_due(follower.image.as_ref().unwrap(), idle);
        let (mut slots, mut size) = (FxHashSet::default(), 0);
        let mut write = |follower: &mut Follower, unmerged: usize| {
            let mut changed = Vec::new();
            while slots.len() < unmerged {
                let news = apply(&follower.state, size, 1, &document(size as u8));
                slots.extend(news.iter().copied());
                changed.extend(news);
                size += 1;
            }
            take(follower, news(&follower.state, changed, size, false));
            follower.write();
            assert_eq!(follower.image.as_ref().unwrap().unmerged.len(), unmerged);
        };
        assert!(!due(&follower, true) && !due(&follower, false));
        write(&mut follower, FEW_UNMERGED - 1);
        assert!(!due(&follower, true) && !due(&follower, false));
        follower.snapshot_interval = Duration::ZERO;
        assert!(due(&follower, true) && due(&follower, false));
        follower.snapshot_interval = Duration::MAX;
        write(&mut follower, FEW_UNMERGED + FEW_VALUES);
        assert!(due(&follower, true) && !due(&follower, false));
        write(&mut follower, MOST_UNMERGED + FEW_VALUES);
        assert!(due(&follower, true) && due(&follower, false));
        while follower.merge() {}
        assert!(!due(&follower, true) && !due(&follower, false));
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
        follower.write();
        let slots = FxHashSet::from_iter(apply(&state, 1, before, &version(2)));
        take(&mut follower, seal(2, before));
        let mut image = follower.image.take().unwrap();
        let mut pause = || drop(apply(&state, 2, after, &version(3)));
        image.write(&state, &slots, follower.incoming.cursor.clone(), &mut pause).unwrap();
        drop(image);
        assert_eq!((state.applied(), state.counter(&counter.key, old)), (3, 0));

        let store = recovery::store_folder(dir.path());
        let again = made(&TempDir::new().unwrap()).state;
        let opened = Image::open(&store, Engine::default(), ORIGIN, &again, &mut |_| {}).unwrap();
        assert_eq!(opened.meta.unwrap().cursor.frontier.size(), 2);
        assert_eq!(again.counter(&counter.key, old), 1);
        apply(&again, 2, after, &version(3));
        assert_eq!((again.counter(&counter.key, old), again.digest()), (0, state.digest()));
    }

    /// Values in deltas and under their own keys, rewritten, merged a few at a time and gone: whoever opens the image finds the
    /// newest of each.
    #[test]
    fn whatever_is_merged_the_newest_value_of_each_slot_is_found() {
        const DAY_MS: u64 = 86_400_000;
        for engine in Engine::ALL {
            let dir = TempDir::new().unwrap();
            let store = recovery::store_folder(dir.path());
            let state = made(&TempDir::new().unwrap()).state;
            let mut image = Image::create(&store, engine, ORIGIN).unwrap();
            image.write(&state, &state.slots(), Cursor::start(), &mut || {}).unwrap();
            let mut versions = [0; 20];
            let (mut deltas, mut partly, mut merged) = (0, 0, 0);
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
                image.write(&state, &changed, Cursor::start(), &mut || {}).unwrap();
                deltas = deltas.max(image.deltas.end - image.deltas.start);
                assert!(image.delta_values <= 2 * image.unmerged.len() + DELTA_SLACK, "{step}");
                if step % 3 == 1 {
                    partly += u32::from(image.merge(&state, Cursor::start(), &mut || {}).unwrap());
                }
                if step % 9 == 8 {
                    while image.merge(&state, Cursor::start(), &mut || {}).unwrap() {}
                    assert!(image.deltas.is_empty() && image.unmerged.is_empty() && image.delta_values == 0);
                    assert_eq!(image.digest.bytes(), state.digest(), "{step}");
                    merged += 1;
                }
                for slot in state.slots().iter().chain(&changed) {
                    assert_eq!(image.value(slot).unwrap(), state.value(slot), "{step}");
                }
                let counts = (image.deltas.clone(), image.unmerged.clone(), image.delta_values);
                drop(image);
                let again = made(&TempDir::new().unwrap()).state;
                let opened = Image::open(&store, engine, ORIGIN, &again, &mut |_| {}).unwrap();
                image = opened.image;
                assert_eq!(
                    (opened.digest.bytes(), again.digest()),
                    (state.digest(), state.digest()),
                    "{} {step}",
                    engine.name()
                );
                assert_eq!((image.deltas.is_empty(), image.delta_values), (counts.0.is_empty(), counts.2));
                assert_eq!(image.unmerged, counts.1);
            }
            assert!(deltas > 3 && partly > 5 && merged == 8, "{deltas} {partly} {merged}");
        }
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

    /// The values of a snapshot go to the image in several batches; a start from one that has only some of them replays the
    /// entries that they know of.
    #[test]
    fn a_kill_within_the_writing_of_a_snapshots_values_loses_nothing() {
        let (documents, batches) = (10_u8, 10_usize.div_ceil(BATCH_KEYS) + 1);
        for killed_after in 0..=batches {
            let dir = TempDir::new().unwrap();
            let path = recovery::store_folder(dir.path());
            let state = made(&TempDir::new().unwrap()).state;
            let origin = verifier::sha256(&[ORIGIN.as_bytes()]);
            // One for the head.
            let store = Killed { store: Engine::default().open(&path).unwrap(), batches: 1 + killed_after };
            let mut image = Image::of(Box::new(store), origin, Contents::default()).image;
            image.write(&state, &state.slots(), Cursor::start(), &mut || {}).unwrap();
            let slots: Vec<Slot> = (0..documents)
                .flat_map(|number| apply(&state, number.into(), 1, &document(number)))
                .collect();
            let values = slots.iter().map(|slot| (*slot, state.value(slot))).collect();
            let cursor = Cursor { time_ms: 1, ..Cursor::start() };
            let meta = Meta { cursor: cursor.clone(), covers: documents.into() };
            let written = image.write_exact(values, &Cursor::start(), &meta, &mut || {});
            drop(image);

            let again = made(&TempDir::new().unwrap()).state;
            let meta =
                Image::open(&path, Engine::default(), ORIGIN, &again, &mut |_| {}).unwrap().meta.unwrap();
            if written.is_ok() {
                assert_eq!((meta.cursor, meta.covers), (cursor, documents.into()));
                assert!(killed_after > 1, "several batches");
            } else {
                assert_eq!(meta.cursor, Cursor::start());
                assert_eq!(meta.covers > 0, killed_after > 0);
                for number in 0..documents {
                    apply(&again, number.into(), 1, &document(number));
                }
            }
            assert_eq!(again.digest(), state.digest(), "{killed_after}");
        }
    }

    #[test]
    fn a_delta_that_is_changed_or_missing_is_noticed() {
        let dir = TempDir::new().unwrap();
        let store = recovery::store_folder(dir.path());
        let state = made(&TempDir::new().unwrap()).state;
        let mut image = Image::create(&store, Engine::Sled, ORIGIN).unwrap();
        image.write(&state, &state.slots(), Cursor::start(), &mut || {}).unwrap();
        let changed = (0..9).flat_map(|number| apply(&state, number.into(), 1, &document(number))).collect();
        image.write(&state, &changed, Cursor::start(), &mut || {}).unwrap();
        assert!(image.deltas.end > 2);
        let whole = image.store.get(&delta_key(1)).unwrap().unwrap();
        let origin = image.origin;
        let mut other = whole.clone();
        *other.last_mut().unwrap() ^= 1;
        for damaged in [None, Some(other), Some(whole[..whole.len() - 1].to_vec())] {
            image.store.apply(Batch::from([(delta_key(1).to_vec(), damaged)])).unwrap();
            assert!(matches!(read(&*image.store, &origin, &mut |_, _| Ok(())), Err(StoreError::Doubtful(_))));
        }
        image.store.apply(Batch::from([(delta_key(1).to_vec(), Some(whole))])).unwrap();
        assert!(read(&*image.store, &origin, &mut |_, _| Ok(())).is_ok());
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
                commit(&ledger, &document(2));
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
}
