//! The restart image: the state's values in a [`Store`], so that a start replays only what came after the last seal
//! it covers. Derived: never read to decide, never waited for, moved aside and made again on any doubt. And the
//! snapshots, which are written from it.
//!
//! An engine's `flush` is not relied on (sled's is not durable on Linux): after a power cut the image is an older one
//! (replay starts earlier) or an inconsistent one (its digest is wrong and everything is replayed).
//!
//! The image's thread owns the store while it runs, and a start reads it before. A kill leaves an older image, and
//! blocks that no head counts.

use crate::{
    derive::{
        feed::{Change, FeedReceiver},
        meta::{Meta, TakeValue, take},
        snapshot,
        store::{self, Batch, Engine, Store, StoreError, guarded},
        tiles::Tiles,
    },
    folder::{snapshots_folder, store_folder},
    health::Derived,
    journal::{cursor::Cursor, record::StateDigest},
    names::Hash,
    options::Options,
    state::{
        State,
        slot::{Digest, Slot},
    },
};
use crossbeam_channel::RecvTimeoutError;
use rustc_hash::{FxHashMap, FxHashSet};
use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering, fence},
    },
    time::{Duration, Instant},
};

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

    /// The content of a store, before it is checked.
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

    /// Gives what some blocks hold; an error at the end if this is not their sum. The values given may then be wrong:
    /// an engine is not trusted to read twice the same.
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

    /// The newest value of each slot that was written since the image was rewritten.
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

/// The value under [`META_KEY`].
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

/// The head of the image in `store`; its values are not read.
pub(crate) fn head(store: &Path, engine: Engine, origin: &str) -> Result<Option<Meta>, StoreError> {
    guarded(|| {
        let head = engine.open(store)?.get(META_KEY)?;
        let origin = verifier::sha256(&[origin.as_bytes()]);
        head.map(|head| Ok(Head::decode(&head, &origin)?.meta)).transpose()
    })
}

/// Opens the restart image of a data folder and reads all of it: what a probe does in a process of its own, before
/// the gateway trusts the engine with the same files in its own.
///
/// # Errors
/// [`StoreError`]. The engine may also panic, hang or abort the process; that is what the probe is for.
pub fn check_store(data: &Path, engine: Engine, origin: &str) -> Result<(), StoreError> {
    let store = engine.open(&store_folder(data))?;
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

/// The news that the image's thread has received.
struct Incoming {
    feed: FeedReceiver,
    /// The last seal.
    cursor: Cursor,
    /// Size after the last group.
    size: u64,
    /// Slots that were changed and are not written. Bounded by what the state holds.
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

    /// Values that came along for a snapshot that is not made count as changed and not written.
    fn end_capture(&mut self) {
        self.feed.wanted.store(false, Ordering::Relaxed);
        if let Some(capture) = self.capture.take() {
            self.slots.extend(capture.values.into_keys());
        }
    }
}

/// The image's thread, with all that it owns.
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

/// The part of a [`Follower`] that the ledger's handle shares.
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
        let listed = snapshot::list(&snapshots_folder(&options.folder)).unwrap_or_default();
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
            // Only messages that wait now are taken, so that writing gets its turn under load. One by one from the
            // channel: a snapshot takes what comes meanwhile, which must not overtake what came before.
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
        let folder = store_folder(&self.folder);
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
        let folder = snapshots_folder(&self.folder);
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

#[cfg(test)]
mod tests;
