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
/// Changes are coalesced this long while there is load, or until there are [`MOST_KEYS`], or until a start would have to
/// replay [`MOST_LAG`] entries (about two seconds): a value that changes with every use is then written once.
const WRITE_INTERVAL: Duration = Duration::from_secs(30);
const MOST_KEYS: usize = 100_000;
const MOST_LAG: u64 = 200_000;
/// A block is begun anew when it is this long; sled keeps sixteen in a page, and pages of more than 128 KiB in files of their own.
/// This and the next two are small in tests, which reach them so.
const BLOCK_BYTES: usize = if cfg!(test) { 200 } else { 4 << 10 };
const BLOCK_CAPACITY: usize = BLOCK_BYTES + BLOCK_BYTES / 8;
/// Most blocks of a batch. An engine keeps all that a batch replaces until its end.
const BATCH_BLOCKS: usize = if cfg!(test) { 2 } else { 256 };
/// An image is rewritten before it holds twice the values that it had after it was rewritten last, and these more (decision 0022).
const SLACK: usize = if cfg!(test) { 10 } else { 500_000 };
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
/// In place of the length of a value that is gone.
const GONE: u32 = u32::MAX;
const FORMAT: u8 = 2;

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

/// A log of blocks: lists of slots with their values, numbered one after another. The last block that
/// holds a slot decides its value. The head says from which block to which; what else the store holds is of a writing that did not come to
/// its head, or of before a rewriting. Blocks without any head are in doubt.
pub(crate) struct Image {
    store: Box<dyn Store>,
    origin: Hash,
    blocks: Range<u64>,
    /// Digest of the blocks.
    digest: Digest,
    /// Values in all blocks.
    values: usize,
    /// Those that counted when it was rewritten or opened.
    newest: usize,
    /// The blocks that were written when it was rewritten last, which have each slot once and none that is gone; their sum.
    whole: (Range<u64>, Digest),
    /// Blocks in the store that do not count. Removed before a block is written, which may get the number of one.
    stale: Vec<u64>,
    /// Has no head yet.
    new: bool,
}

/// An image that was opened.
pub(crate) struct Loaded {
    pub(crate) image: Image,
    /// `None` when it is new.
    pub(crate) meta: Option<Meta>,
    /// Digest of the values, each the newest of its slot: of the state that was loaded.
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
                see(&Head::decode(&head, &origin)?.meta);
            }
            let mut image = Self::found(opened, origin);
            let Some(meta) = image.check()? else {
                return Ok(Loaded { image, meta: None, digest: Digest::default() });
            };
            let digest = image.load(state)?;
            state.loaded(&meta.cursor);
            Ok(Loaded { image, meta: Some(meta), digest })
        })
    }

    /// A new image in an empty `store`.
    pub(crate) fn create(store: &Path, engine: Engine, origin: &str) -> Result<Self, StoreError> {
        guarded(|| {
            let origin = verifier::sha256(&[origin.as_bytes()]);
            let mut image = Self::found(engine.open(store)?, origin);
            match image.check()? {
                None => Ok(image),
                Some(_) => Err(StoreError::Doubtful("there already")),
            }
        })
    }

    /// What is in a store, before it is checked.
    fn found(store: Box<dyn Store>, origin: Hash) -> Self {
        let digest = Digest::default();
        let (whole, stale) = ((0..0, digest), Vec::new());
        Self { store, origin, blocks: 0..0, digest, values: 0, newest: 0, whole, stale, new: true }
    }

    /// Reads the whole store and compares its blocks with its head. `None` when it is empty.
    fn check(&mut self) -> Result<Option<Meta>, StoreError> {
        const MALFORMED: StoreError = StoreError::Doubtful("malformed");
        let head = self.store.get(META_KEY)?.map(|head| Head::decode(&head, &self.origin)).transpose()?;
        let (mut digest, mut values, mut stale) = (Digest::default(), 0, Vec::new());
        let blocks = head.as_ref().map_or(0..0, |head| head.blocks.clone());
        let mut next = blocks.start;
        self.store.each(&mut |key, block| {
            if key == META_KEY {
                return Ok(());
            }
            if head.is_none() {
                return Err(StoreError::Doubtful("without its head"));
            }
            let number = block_number(key).ok_or(MALFORMED)?;
            if !blocks.contains(&number) {
                stale.push(number);
                return Ok(());
            }
            if number != next {
                return Err(StoreError::Doubtful("without one of its blocks"));
            }
            next += 1;
            digest.add(&block_key(number), block);
            each_in_block(block, |_, _| {
                values += 1;
                Ok(())
            })
        })?;
        let Some(Head { meta, digest: expected, .. }) = head else { return Ok(None) };
        if next != blocks.end {
            return Err(StoreError::Doubtful("without one of its blocks"));
        }
        if digest.bytes() != expected {
            return Err(StoreError::Doubtful("not what its digest says"));
        }
        (self.blocks, self.digest, self.values) = (blocks, digest, values);
        (self.stale, self.new) = (stale, false);
        Ok(Some(meta))
    }

    /// Loads the newest value of each slot into an empty state, and gives the digest of those.
    fn load(&mut self, state: &State) -> Result<Digest, StoreError> {
        let (mut digest, mut newest) = (Digest::default(), 0);
        for holders in [true, false] {
            let mut gone = FxHashSet::default();
            self.each_from_the_last(|slot, value| {
                if slot.is_holder() != holders || state.holds(&slot) || gone.contains(&slot) {
                    return Ok(());
                }
                let Some(value) = value else {
                    gone.insert(slot);
                    return Ok(());
                };
                newest += 1;
                digest.add(&slot.encode(), value);
                state.load(&slot, value).ok_or(StoreError::Doubtful("malformed"))
            })?;
        }
        self.newest = newest;
        Ok(digest)
    }

    /// The digest of the values that `slots` have here. Reads the whole image if there are any.
    pub(crate) fn digest_of(&self, slots: &[Slot]) -> Result<Digest, StoreError> {
        if slots.is_empty() {
            return Ok(Digest::default());
        }
        guarded(|| {
            let mut digest = Digest::default();
            let mut wanted: FxHashSet<&Slot> = slots.iter().collect();
            self.each_from_the_last(|slot, value| {
                if wanted.remove(&slot)
                    && let Some(value) = value
                {
                    digest.add(&slot.encode(), value);
                }
                Ok(())
            })?;
            Ok(digest)
        })
    }

    /// Gives what the blocks hold, the last block first; an error at the end if they are not what they should be.
    fn each_from_the_last(
        &self,
        mut take_in: impl FnMut(Slot, Option<&[u8]>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.each_in(self.blocks.clone().rev(), &self.digest, &mut take_in)
    }

    /// Gives what some blocks hold; an error at the end if this is not their sum. What was given may then be wrong: an engine
    /// is not trusted to read twice the same.
    fn each_in(
        &self,
        numbers: impl Iterator<Item = u64>,
        expected: &Digest,
        mut take_in: impl FnMut(Slot, Option<&[u8]>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut digest = Digest::default();
        for number in numbers {
            let key = block_key(number);
            let block = self.store.get(&key)?.ok_or(StoreError::Doubtful("without one of its blocks"))?;
            digest.add(&key, &block);
            each_in_block(&block, &mut take_in)?;
        }
        if digest == *expected { Ok(()) } else { Err(StoreError::Doubtful("not what its digest says")) }
    }

    /// Whether so many values more are too many beside those that count.
    fn is_full(&self, more: usize) -> bool {
        self.values + more > 2 * self.newest + SLACK
    }

    /// Writes the present values of the changed slots, and then the head; `pause` is called now and then.
    fn write(
        &mut self,
        state: &State,
        slots: &FxHashSet<Slot>,
        cursor: Cursor,
        pause: &mut dyn FnMut(),
    ) -> Result<(), StoreError> {
        guarded(|| {
            let mut out = self.behind(pause)?;
            // A license may be newer than the change that is known of it, and name a holder of whom nothing is known yet.
            let mut named = FxHashSet::default();
            for slot in slots {
                let value = state.value(slot);
                let holders = slot.named(value.as_deref().unwrap_or_default());
                named.extend(holders.filter(|holder| !slots.contains(holder)));
                out.push(&mut *self.store, slot, value.as_deref(), pause)?;
            }
            for slot in &named {
                out.push(&mut *self.store, slot, state.value(slot).as_deref(), pause)?;
            }
            // Read after the values: they know of no later entry than this, half applied ones included.
            let meta = Meta { cursor, covers: state.begun() };
            self.finish(out, self.blocks.start, &meta)
        })
    }

    /// Writes every value of the state behind all others, and then the head, which leaves the others out.
    fn rewrite(&mut self, state: &State, cursor: Cursor, pause: &mut dyn FnMut()) -> Result<(), StoreError> {
        guarded(|| {
            let mut out = Blocks { digest: Digest::default(), values: 0, ..self.behind(pause)? };
            let before = self.blocks.clone();
            state.walk(&mut |slot| match state.value(slot) {
                Some(value) => out.push(&mut *self.store, slot, Some(&value), pause),
                None => Ok(()),
            })?;
            let meta = Meta { cursor, covers: state.begun() };
            self.finish(out, before.end, &meta)?;
            self.newest = self.values;
            self.whole = (self.blocks.clone(), self.digest);
            self.stale = before.collect();
            self.remove_stale(pause)
        })
    }

    /// Writes given values, which are those of one moment, and then the head with the meta of that moment.
    fn write_exact(
        &mut self,
        values: &FxHashMap<Slot, Option<Vec<u8>>>,
        meta: &Meta,
        pause: &mut dyn FnMut(),
    ) -> Result<(), StoreError> {
        guarded(|| {
            let mut out = self.behind(pause)?;
            for (slot, value) in values {
                out.push(&mut *self.store, slot, value.as_deref(), pause)?;
            }
            self.finish(out, self.blocks.start, meta)
        })
    }

    /// New blocks behind all that count.
    fn behind(&mut self, pause: &mut dyn FnMut()) -> Result<Blocks, StoreError> {
        self.remove_stale(pause)?;
        let (block, batch) = (Vec::with_capacity(BLOCK_CAPACITY), Batch::new());
        Ok(Blocks { next: self.blocks.end, block, batch, digest: self.digest, values: self.values })
    }

    /// Writes what is left of new blocks and the head, from which on the blocks from `first` on count.
    fn finish(&mut self, mut out: Blocks, first: u64, meta: &Meta) -> Result<(), StoreError> {
        out.close();
        let Blocks { next, mut batch, digest, values, .. } = out;
        let head = Head { meta: meta.clone(), digest: digest.bytes(), blocks: first..next };
        batch.insert(META_KEY.to_vec(), Some(head.encode(&self.origin)));
        self.store.apply(batch)?;
        self.store.flush()?;
        (self.blocks, self.digest, self.values, self.new) = (head.blocks, digest, values, false);
        Ok(())
    }

    fn remove_stale(&mut self, pause: &mut dyn FnMut()) -> Result<(), StoreError> {
        for numbers in std::mem::take(&mut self.stale).chunks(BATCH_BLOCKS) {
            self.store.apply(numbers.iter().map(|number| (block_key(*number).to_vec(), None)).collect())?;
            pause();
        }
        Ok(())
    }

    /// What was written since the image was rewritten, the newest value of each slot.
    fn since_rewritten(&self) -> Result<FxHashMap<Slot, Option<Vec<u8>>>, StoreError> {
        let (whole, mut digest) = (&self.whole.0, self.digest);
        digest.subtract(&self.whole.1);
        let mut values = FxHashMap::default();
        self.each_in(whole.end..self.blocks.end, &digest, |slot, value| {
            values.insert(slot, value.map(<[u8]>::to_vec));
            Ok(())
        })?;
        Ok(values)
    }

    /// Gives the values of a snapshot, holders before what names them: those that were written when the image was rewritten,
    /// but for the slots in `newer` those.
    fn each_of(
        &self,
        newer: &FxHashMap<Slot, Option<Vec<u8>>>,
        take: &mut TakeValue<'_>,
    ) -> Result<(), StoreError> {
        let give = |holders, take: &mut TakeValue<'_>| {
            let newer = newer.iter().filter(|(slot, _)| slot.is_holder() == holders);
            let mut newer = newer.filter_map(|(slot, value)| Some((slot, value.as_deref()?)));
            newer.try_for_each(|(slot, value)| take(slot, value))
        };
        give(true, take)?;
        let (blocks, digest) = &self.whole;
        self.each_in(blocks.clone(), digest, |slot, value| match value {
            Some(value) if !newer.contains_key(&slot) => take(&slot, value),
            _ => Ok(()),
        })?;
        give(false, take)
    }
}

/// New blocks on their way into a store. They count when a head says so.
struct Blocks {
    next: u64,
    block: Vec<u8>,
    batch: Batch,
    /// Digest of the closed blocks, and of those before that go on counting.
    digest: Digest,
    /// In all of them.
    values: usize,
}

impl Blocks {
    /// Takes a value in, or that it is gone; `pause` is called after each block.
    fn push(
        &mut self,
        store: &mut dyn Store,
        slot: &Slot,
        value: Option<&[u8]>,
        pause: &mut dyn FnMut(),
    ) -> Result<(), StoreError> {
        let length = value.map_or(Ok(GONE), |value| u32::try_from(value.len()));
        let length = length.map_err(|_| StoreError::Doubtful("a value too long"))?;
        self.block.extend_from_slice(&slot.encode());
        self.block.extend_from_slice(&length.to_be_bytes());
        self.block.extend_from_slice(value.unwrap_or_default());
        self.values += 1;
        if self.block.len() >= BLOCK_BYTES {
            self.close();
            pause();
        }
        if self.batch.len() >= BATCH_BLOCKS {
            store.apply(std::mem::take(&mut self.batch))?;
        }
        Ok(())
    }

    fn close(&mut self) {
        if self.block.is_empty() {
            return;
        }
        let key = block_key(self.next);
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_CAPACITY));
        self.digest.add(&key, &block);
        self.batch.insert(key.to_vec(), Some(block));
        self.next += 1;
    }
}

/// What stands under [`META_KEY`].
struct Head {
    meta: Meta,
    /// Digest of the blocks that count.
    digest: Hash,
    blocks: Range<u64>,
}

impl Head {
    /// The range is under no checksum: the digest is that of its blocks with their numbers.
    fn encode(&self, origin: &Hash) -> Vec<u8> {
        let range = [self.blocks.start.to_be_bytes(), self.blocks.end.to_be_bytes()];
        [range.as_flattened(), &self.meta.encode(origin, &self.digest)].concat()
    }

    fn decode(bytes: &[u8], origin: &Hash) -> Result<Self, StoreError> {
        let mut rest = bytes;
        let mut number = || take(&mut rest).map(u64::from_be_bytes).ok_or(StoreError::Doubtful("malformed"));
        let blocks = number()?..number()?;
        let (meta, digest) = Meta::decode(rest, origin)?;
        Ok(Self { meta, digest, blocks })
    }
}

/// Where a block stands; as long as a slot, so that a digest sums it up like one.
fn block_key(number: u64) -> [u8; Slot::BYTES] {
    let mut key = [0; Slot::BYTES];
    key[1..9].copy_from_slice(&number.to_be_bytes());
    key
}

/// The number of the block under a key; `None` when the key is no block's.
fn block_number(key: &[u8]) -> Option<u64> {
    let number = u64::from_be_bytes(*key.get(1..)?.first_chunk()?);
    (key == block_key(number)).then_some(number)
}

/// Gives every slot of a block with its value, or that it is gone.
fn each_in_block(
    block: &[u8],
    mut take_in: impl FnMut(Slot, Option<&[u8]>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    const MALFORMED: StoreError = StoreError::Doubtful("malformed");
    let mut rest = block;
    while !rest.is_empty() {
        let slot = Slot::decode(&take::<{ Slot::BYTES }>(&mut rest).ok_or(MALFORMED)?).ok_or(MALFORMED)?;
        let value = match u32::from_be_bytes(take(&mut rest).ok_or(MALFORMED)?) {
            GONE => None,
            length => Some(rest.split_off(..length as usize).ok_or(MALFORMED)?),
        };
        take_in(slot, value)?;
    }
    Ok(())
}

/// What the image in `store` says about itself; its values are not read.
pub(crate) fn head(store: &Path, engine: Engine, origin: &str) -> Result<Option<Meta>, StoreError> {
    guarded(|| {
        let head = engine.open(store)?.get(META_KEY)?;
        let origin = verifier::sha256(&[origin.as_bytes()]);
        head.map(|head| Ok(Head::decode(&head, &origin)?.meta)).transpose()
    })
}

/// Takes a slot and its value; an error ends the reading.
pub(crate) type TakeValue<'a> = dyn FnMut(&Slot, &[u8]) -> Result<(), StoreError> + 'a;

/// Opens the restart image of a data folder and reads all of it: what a probe does in a process of its own, before
/// the gateway trusts the engine with the same files in its own.
///
/// # Errors
/// [`StoreError`]. The engine may also panic, hang or abort the process; that is what the probe is for.
pub fn check_store(data: &Path, engine: Engine, origin: &str) -> Result<(), StoreError> {
    let store = engine.open(&recovery::store_folder(data))?;
    Image::found(store, verifier::sha256(&[origin.as_bytes()])).check().map(drop)
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
        loop {
            let received = self.incoming.feed.receiver.recv_timeout(TICK);
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
                if !ended && self.snapshot_is_due() {
                    self.begin_snapshot();
                } else if !clean && (ended || due) {
                    self.write(ended);
                }
            }
            if ended {
                return;
            }
        }
    }

    /// Writes what was changed, as it is now; all there is into a new image, and into one that is full, unless this is the `last` time.
    fn write(&mut self, last: bool) {
        let more = self.incoming.slots.len();
        let all = self.image.as_ref().is_some_and(|image| image.new || (!last && image.is_full(more)));
        self.put(all);
    }

    fn put(&mut self, all: bool) {
        let Some(image) = &mut self.image else { return };
        let incoming = &mut self.incoming;
        let slots = std::mem::take(&mut incoming.slots);
        let (cursor, size) = (incoming.cursor.clone(), incoming.size);
        let mut pause = || incoming.take_all();
        let written = if all {
            image.rewrite(&self.state, cursor.clone(), &mut pause)
        } else {
            image.write(&self.state, &slots, cursor.clone(), &mut pause)
        };
        match written {
            Ok(()) => {
                self.covered.store(size, Ordering::Release);
                self.written_cursor = Some(cursor);
                self.last_write = Instant::now();
            }
            Err(error) => self.fail(&error),
        }
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
                self.put(true);
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

    /// All of the image is written anew before the sequencer is asked for values, which it sends along only for a short while then.
    fn begin_snapshot(&mut self) {
        self.put(true);
        if self.image.is_none() {
            return;
        }
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
            self.put(false);
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
            if let Err(error) = self.snapshot(&capture.values) {
                self.fail(&error);
            }
        }
    }

    /// The image, which was rewritten, becomes exactly the state at the last seal, and is copied to a snapshot.
    fn snapshot(&mut self, exact: &FxHashMap<Slot, Option<Vec<u8>>>) -> Result<(), StoreError> {
        let Some(image) = &mut self.image else { return Ok(()) };
        let incoming = &mut self.incoming;
        let meta = Meta { cursor: incoming.cursor.clone(), covers: incoming.size };
        incoming.changed = false;
        image.write_exact(exact, &meta, &mut || incoming.take_all())?;
        self.covered.store(meta.covers, Ordering::Release);
        self.written_cursor = Some(meta.cursor.clone());
        (self.last_write, self.last_snapshot) = (Instant::now(), Instant::now());
        self.last_snapshot_segment = meta.cursor.position.segment();
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
        let written = guarded(|| {
            let newer = image.since_rewritten()?;
            snapshot::write(&folder, &meta, &image.origin, &mut |take| {
                image.each_of(&newer, &mut |slot, value| {
                    incoming.take_all();
                    take(slot, value)
                })
            })
        });
        match written {
            Ok((bytes, digest)) => {
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
        Command, DocumentKind, EpochsInMemory, Fact, Label, Ledger, LedgerKeys, Outcome, Prepared, Subjects,
        crypt::Crypt,
        record::{Completion, CounterUse, DocumentState, LicenseState, NO_BODY_PART, NewHolder, Record},
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
        let wrapped = holder.wrapped.as_slice().try_into().unwrap();
        let new = NewHolder { key: [7; 16], label: holder.label, epoch: holder.epoch, wrapped };
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
        let crypt = Crypt::new(
            ORIGIN,
            &LedgerKeys { journal: [1; 32], index: [2; 32], log_pkcs8: Vec::new(), epochs },
        );
        crypt.install_epoch(1, &[4; 32]);
        crypt.begin_epoch(1);
        crypt
    }

    /// An entry that makes a holder, with its label.
    fn born(number: u8) -> (Record, Label) {
        let holder = crypt().new_holder([number; 16]);
        let wrapped = holder.wrapped.as_slice().try_into().unwrap();
        let new = NewHolder { key: [number; 16], label: holder.label, epoch: holder.epoch, wrapped };
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
        let again = opened(&recovery::store_folder(dir.path()), Engine::default()).1;
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

        let store = recovery::store_folder(dir.path());
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
            let store = recovery::store_folder(dir.path());
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
        let wrapped = holder.wrapped.as_slice().try_into().unwrap();
        let new = NewHolder { key: [7; 16], label: holder.label, epoch: holder.epoch, wrapped };
        commit(&ledger, &Record { concerned: vec![holder.label], new_holders: vec![new], ..document(1) });
        ledger.close();
        for without in [false, true] {
            if without {
                let store = Engine::default().open(&recovery::store_folder(dir.path())).unwrap();
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
        let again = opened(&recovery::store_folder(dir.path()), Engine::default()).1;
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
        let seen =
            |label: Label| seen.iter().position(|slot| slot.is_holder() && slot.encode()[1..17] == label);
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
        let loaded = opened(&recovery::store_folder(dir.path()), Engine::default()).1;
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
                let path = recovery::store_folder(dir.path());
                let state = made(&TempDir::new().unwrap()).state;
                let mut image = Image::create(&path, Engine::default(), ORIGIN).unwrap();
                apply(&state, 0, 1, &document(0));
                image.rewrite(&state, Cursor::start(), &mut || {}).unwrap();
                let before = state.digest();
                drop(image);

                let store = Killed { store: Engine::default().open(&path).unwrap(), batches: killed_after };
                let mut image = Image::found(Box::new(store), verifier::sha256(&[ORIGIN.as_bytes()]));
                image.check().unwrap();
                let slots =
                    (1..documents).flat_map(|number| apply(&state, number.into(), 1, &document(number)));
                let slots: FxHashSet<Slot> = slots.collect();
                let meta =
                    Meta { cursor: Cursor { time_ms: 1, ..Cursor::start() }, covers: documents.into() };
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
        let store = recovery::store_folder(dir.path());
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
}
