//! The restart image: the state's values in a sled tree, so that a start replays only what came after the last
//! seal it covers. Derived: never read to decide, never waited for, moved aside and made again on any doubt.
//!
//! sled 0.34.7's `flush` is not durable on Linux. That is allowed for here: after a power cut the image is an older
//! one (replay starts earlier) or an inconsistent one (its digest is wrong and everything is replayed).

use crate::{
    Hash, Position,
    sequencer::Cursor,
    state::{Digest, Slot, State},
};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use verifier::merkle::Frontier;

/// Groups on their way to the image; beyond it the sequencer waits, which bounds the lag.
pub(crate) const QUEUE_GROUPS: usize = 1024;
/// Changes are coalesced this long, unless there are [`WRITE_KEYS`] before.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);
const WRITE_KEYS: usize = 10_000;
/// sled keeps several times this in memory; the image is read once, at start.
const CACHE_BYTES: u64 = 16 << 20;
const META_KEY: &[u8] = &[0];
const FORMAT: u8 = 1;

/// News for the image.
pub(crate) enum Change {
    /// A group was applied: what it changed, and the tree size after it.
    Applied { slots: Vec<Slot>, size: u64 },
    /// A seal was written; replay may begin behind it.
    Sealed(Box<Cursor>),
}

/// What an image says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Replay begins here: behind the last seal that the image covers.
    pub(crate) cursor: Cursor,
    /// Entries that the values may already know of. All of them were durable when the image was written, so a
    /// shorter journal has lost some.
    pub(crate) covers: u64,
    /// Journal time of the last of them.
    pub(crate) time_ms: u64,
}

/// Why an image is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    #[error("the store failed: {0}")]
    Store(#[from] sled::Error),
    #[error("the file system failed: {0}")]
    Io(#[from] io::Error),
    #[error("the image is {0}")]
    Doubtful(&'static str),
    #[error("the store panicked")]
    Panicked,
}

/// Runs store code so that a panic in it costs the image and not the process.
fn guarded<T>(run: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(ImageError::Panicked))
}

pub(crate) struct Image {
    tree: sled::Db,
    origin: Hash,
    digest: Digest,
}

impl Image {
    /// Opens the image and loads its values into an empty state. `None` for the meta when it is new.
    pub(crate) fn open(
        folder: &Path,
        origin: &str,
        state: &State,
    ) -> Result<(Self, Option<Meta>), ImageError> {
        guarded(|| {
            let tree = sled::Config::default()
                .path(folder)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(None)
                .open()?;
            let origin = verifier::sha256(&[origin.as_bytes()]);
            let mut digest = Digest::default();
            let Some(meta) = tree.get(META_KEY)? else {
                if !tree.is_empty() {
                    return Err(ImageError::Doubtful("without its head"));
                }
                return Ok((Self { tree, origin, digest }, None));
            };
            let (meta, expected) = Meta::decode(&meta, &origin)?;
            for pair in tree.iter() {
                let (key, value) = pair?;
                if *key == *META_KEY {
                    continue;
                }
                let slot = Slot::decode(&key).ok_or(ImageError::Doubtful("malformed"))?;
                digest.add(&slot.encode(), &value);
                state.load(&slot, &value).ok_or(ImageError::Doubtful("malformed"))?;
            }
            if digest.bytes() != expected {
                return Err(ImageError::Doubtful("not what its digest says"));
            }
            state.loaded(meta.cursor.frontier.size(), meta.time_ms);
            Ok((Self { tree, origin, digest }, Some(meta)))
        })
    }

    /// Writes the present values of the changed slots with the meta, in one batch.
    fn write(&mut self, state: &State, slots: &mut HashSet<Slot>, cursor: &Cursor) -> Result<(), ImageError> {
        let mut batch = sled::Batch::default();
        let mut digest = self.digest;
        for slot in slots.iter() {
            let key = slot.encode();
            if let Some(old) = self.tree.get(key)? {
                digest.remove(&key, &old);
            }
            match state.value(slot) {
                Some(value) => {
                    digest.add(&key, &value);
                    batch.insert(&key[..], value);
                }
                None => batch.remove(&key[..]),
            }
        }
        // Read after the values: they know of no later entry than this.
        let meta = Meta { cursor: cursor.clone(), covers: state.applied(), time_ms: state.time_ms() };
        batch.insert(META_KEY, meta.encode(&self.origin, &digest.bytes()));
        self.tree.apply_batch(batch)?;
        self.tree.flush()?;
        self.digest = digest;
        slots.clear();
        Ok(())
    }

    /// The thread behind the sequencer. `applied` tells the size that the image covers, for the lag.
    ///
    /// Values are taken from the state as it is when the batch is made, which may be ahead of the changes
    /// received; both are durable already, and replay from the cursor sets every such value once more.
    pub(crate) fn follow(
        mut self,
        receiver: &Receiver<Change>,
        state: &State,
        mut cursor: Cursor,
        applied: &Arc<AtomicU64>,
        mut slots: HashSet<Slot>,
    ) {
        let mut size = state.applied();
        let mut written_cursor = None;
        let mut last = Instant::now();
        loop {
            let clean = slots.is_empty() && written_cursor.as_ref() == Some(&cursor);
            let received = if clean {
                receiver.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                receiver.recv_deadline(last + WRITE_INTERVAL)
            };
            let ended = matches!(received, Err(RecvTimeoutError::Disconnected));
            if received.is_ok() {
                std::thread::sleep(crate::tiles::COALESCE);
            }
            for change in received.into_iter().chain(receiver.try_iter()) {
                match change {
                    Change::Applied { slots: changed, size: after } => {
                        slots.extend(changed);
                        size = after;
                    }
                    Change::Sealed(sealed) => cursor = *sealed,
                }
            }
            metrics::gauge!("miaoxiang_image_lag_entries")
                .set(size.saturating_sub(applied.load(Ordering::Relaxed)) as f64);
            let due = last.elapsed() >= WRITE_INTERVAL || slots.len() >= WRITE_KEYS;
            if !clean && (ended || due) {
                let written = guarded(|| self.write(state, &mut slots, &cursor));
                if let Err(error) = written {
                    tracing::error!(%error, "the restart image stands still: the next start replays more");
                    break;
                }
                applied.store(size, Ordering::Release);
                written_cursor = Some(cursor.clone());
                last = Instant::now();
            }
            if ended {
                return;
            }
        }
        // The sequencer must never wait for an image that is given up.
        for _ in receiver {}
    }
}

impl Meta {
    fn encode(&self, origin: &Hash, digest: &Hash) -> Vec<u8> {
        let cursor = &self.cursor;
        let mut bytes = [
            &[FORMAT][..],
            origin,
            digest,
            &self.covers.to_be_bytes(),
            &self.time_ms.to_be_bytes(),
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

    fn decode(bytes: &[u8], origin: &Hash) -> Result<(Self, Hash), ImageError> {
        const MALFORMED: ImageError = ImageError::Doubtful("malformed");
        let (body, checksum) = bytes.split_last_chunk::<32>().ok_or(MALFORMED)?;
        if verifier::sha256(&[body]) != *checksum {
            return Err(MALFORMED);
        }
        let mut rest = body;
        let r = &mut rest;
        if take::<1>(r).ok_or(MALFORMED)? != [FORMAT] {
            return Err(ImageError::Doubtful("of another format"));
        }
        if take::<32>(r).ok_or(MALFORMED)? != *origin {
            return Err(ImageError::Doubtful("of another log"));
        }
        let digest = take(r).ok_or(MALFORMED)?;
        let mut number = || take(r).map(u64::from_be_bytes).ok_or(MALFORMED);
        let (covers, time_ms, frame) = (number()?, number()?, number()?);
        let previous = take(&mut rest).ok_or(MALFORMED)?;
        let r = &mut rest;
        let mut number = || take(r).map(u64::from_be_bytes).ok_or(MALFORMED);
        let (position, cursor_time_ms, size) = (Position(number()?), number()?, number()?);
        let (nodes, odd) = rest.as_chunks::<32>();
        let frontier =
            Frontier::from_parts(size, nodes.to_vec()).filter(|_| odd.is_empty()).ok_or(MALFORMED)?;
        let cursor = Cursor { frame, previous, position, frontier, time_ms: cursor_time_ms };
        Ok((Self { cursor, covers, time_ms }, digest))
    }
}

/// Moves a doubtful image aside, for an operator to look at; the one moved before it goes.
pub(crate) fn quarantine(folder: &Path) -> io::Result<()> {
    let Some(parent) = folder.parent().filter(|_| folder.exists()) else { return Ok(()) };
    let mut number = 0;
    for bad in quarantined(parent)? {
        number = number.max(bad.0 + 1);
        fs::remove_dir_all(bad.1)?;
    }
    fs::rename(folder, parent.join(format!("store.bad-{number}")))?;
    File::open(parent)?.sync_all()
}

fn quarantined(parent: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("store.bad-"))
            .and_then(|number| number.parse().ok());
        if let Some(number) = number {
            found.push((number, path));
        }
    }
    Ok(found)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}
