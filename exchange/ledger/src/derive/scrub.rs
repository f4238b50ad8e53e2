//! The scrub: reads closed segments again and again, slowly, and raises an alarm about one that is damaged, long before
//! anybody needs it. It stops nothing, and changes nothing of the journal.
//!
//! It needs no key and no replay: each frame's form and checksum, the chain of frames within a segment, each leaf
//! against the tree's tiles, and the signature over the tree at the segment's end.
//!
//! The tiles come first: each full one against its leaves and the hash above it. One that does not agree is made again from the
//! journal; together they must then lead to the published root.
//!
//! One thread of its own. A crash forgets what it found, and a half-mended tile is found again.

use crate::{
    derive::tiles::{self, Tiles},
    disk,
    error::ReadError,
    journal::{
        frame::{self, Frame},
        segment::{self, Folders, Reader, SEGMENT_HEADER_BYTES},
    },
};
use ring::signature::{ED25519, UnparsedPublicKey};
use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use verifier::{
    checkpoint::Checkpoint,
    leaf::LEAF_BYTES,
    merkle::leaf_hash,
    note::{SignedNote, VerifierKey},
};

/// Read without a rest.
const PIECE_BYTES: u64 = 256 << 10;
/// Read for a full tile of level 0: its hashes and their leaves.
const TILE_BYTES: u64 = ((32 + LEAF_BYTES) * tiles::TILE_WIDTH) as u64;
/// Between one pass and the next; what is closed meanwhile waits for it.
const PASS_REST: Duration = Duration::from_secs(60);

/// Counts that the scrub's thread shares with the ledger's handle.
#[derive(Default)]
pub(crate) struct Scrub {
    stop: Mutex<bool>,
    changed: Condvar,
    damaged: AtomicUsize,
    damaged_tiles: AtomicUsize,
}

impl Scrub {
    /// Segments that the last look at them found damaged or gone.
    pub(crate) fn damaged(&self) -> usize {
        self.damaged.load(Ordering::Acquire)
    }

    /// Tiles that the last look at them found damaged, and that could not be mended.
    pub(crate) fn damaged_tiles(&self) -> usize {
        self.damaged_tiles.load(Ordering::Acquire)
    }

    pub(crate) fn stop(&self) {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Rests; false when the thread is to stop.
    fn rest(&self, time: Duration) -> bool {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(stop, time, |stop| !*stop);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The scrub's thread, with all that it works with.
pub(crate) struct ScrubTask {
    pub(crate) scrub: Arc<Scrub>,
    pub(crate) folders: Folders,
    pub(crate) reader: Arc<Reader>,
    pub(crate) tiles: Arc<Tiles>,
    pub(crate) key: VerifierKey,
    pub(crate) bytes_per_second: u64,
}

/// Why a segment is not scrubbed to its end.
enum Ended {
    /// The ledger closes.
    Stopped,
    /// It is archived and the archive is away.
    Away,
    Damaged(u64, &'static str),
    Unreadable(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

impl ScrubTask {
    pub(crate) fn run(self) {
        let mut damaged = BTreeSet::new();
        metrics::gauge!("miaoxiang_scrub_damaged_segments").set(0.0);
        metrics::gauge!("miaoxiang_scrub_damaged_tiles").set(0.0);
        while self.tiles() && self.pass(&mut damaged) {
            self.reader.close_deleted();
            if !self.scrub.rest(PASS_REST) {
                break;
            }
        }
    }

    /// Looks at every full tile once, and mends what it can; false when the thread is to stop.
    fn tiles(&self) -> bool {
        let (mut damaged, mut unrested) = (0, 0);
        for level in 0..tiles::LEVELS as u8 {
            for index in 0..self.tiles.full_tiles(level) {
                // The upper ones are few.
                unrested += if level == 0 { TILE_BYTES } else { 0 };
                if unrested >= PIECE_BYTES && !self.pace(std::mem::take(&mut unrested)) {
                    return false;
                }
                if self.tiles.is_good(level, index).is_ok_and(|good| good) {
                    continue;
                }
                match self.mend(level, index, damaged) {
                    Ok(()) => {
                        tracing::warn!(level, index, "a tile was damaged and is made again");
                        metrics::counter!("miaoxiang_scrub_mended_tiles_total").increment(1);
                    }
                    Err(error) => {
                        tracing::error!(level, index, %error, "a tile is damaged and cannot be made again");
                        damaged += 1;
                    }
                }
            }
        }
        if !self.is_rooted() {
            tracing::error!("the tiles do not lead to the published root: rebuild them from zero");
            damaged += 1;
        }
        self.scrub.damaged_tiles.store(damaged, Ordering::Release);
        metrics::gauge!("miaoxiang_scrub_damaged_tiles").set(damaged as f64);
        true
    }

    /// Hashes of an upper tile are known to be good only when nothing below it is damaged.
    fn mend(&self, level: u8, index: u64, damaged: usize) -> Result<(), ReadError> {
        if level > 0 && damaged > 0 {
            return Err(ReadError::Malformed("good tile"));
        }
        let mut all = Vec::with_capacity(tiles::TILE_WIDTH);
        if level == 0 {
            let first = index * tiles::TILE_WIDTH as u64;
            self.reader.leaves(first, first + tiles::TILE_WIDTH as u64, |leaves| {
                all.extend_from_slice(leaves);
                Ok(true)
            })?;
        }
        Ok(self.tiles.mend(level, index, &all)?)
    }

    /// Whether the tiles lead to the root that is published. Tiles that cannot be read do not.
    fn is_rooted(&self) -> bool {
        let text = self.tiles.published_text();
        let note = SignedNote::parse(&text).ok();
        let note = note.and_then(|note| note.verify(std::slice::from_ref(&self.key)).ok());
        let checkpoint = note.and_then(|note| Checkpoint::parse(&note).ok());
        checkpoint.is_some_and(|checkpoint| {
            self.tiles.root(checkpoint.size).is_ok_and(|root| root == checkpoint.root)
        })
    }

    /// Rests after so many bytes; false when the thread is to stop.
    fn pace(&self, bytes: u64) -> bool {
        self.scrub.rest(Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.max(1) as f64))
    }

    /// Looks at every closed segment once; false when the thread is to stop.
    fn pass(&self, damaged: &mut BTreeSet<u32>) -> bool {
        let mut listed = match segment::list(&*self.folders.disk, &self.folders.journal) {
            Ok(listed) => listed,
            Err(error) => {
                tracing::error!(%error, "the scrub cannot list the journal");
                return true;
            }
        };
        // The last one that is begun is still written, and the one behind it is only prepared.
        while listed.pop_if(|segment| segment.header.is_none()).is_some() {}
        let mut end_frame = listed.pop().and_then(|last| last.header).map_or(0, |header| header.first_frame);
        let Some(newest) = listed.last().map(|segment| segment.number) else { return true };
        let mut ends = Vec::with_capacity(listed.len());
        for segment in listed.iter().rev() {
            ends.push(end_frame);
            end_frame = segment.header.map_or(end_frame, |header| header.first_frame.min(end_frame));
        }
        let present: BTreeSet<u32> = listed.iter().map(|segment| segment.number).collect();
        for number in (0..newest).filter(|number| !present.contains(number)) {
            self.alarm(damaged, number, 0, "the segment is gone");
        }
        for (segment, end_frame) in listed.iter().zip(ends.into_iter().rev()) {
            let number = segment.number;
            let checked = match segment.header.filter(|header| header.number == number) {
                Some(header) => self.segment(number, header.first_frame, end_frame),
                None => Err(Ended::Damaged(0, "the header is damaged")),
            };
            match checked {
                Ok(()) => {
                    if damaged.remove(&number) {
                        tracing::info!(segment = number, "the segment is good again");
                    }
                }
                Err(Ended::Stopped) => return false,
                Err(Ended::Away) => {}
                Err(Ended::Damaged(offset, why)) => self.alarm(damaged, number, offset, why),
                Err(Ended::Unreadable(error)) => {
                    tracing::error!(segment = number, %error, "the segment cannot be read");
                    self.alarm(damaged, number, 0, "the segment cannot be read");
                }
            }
            self.tell(damaged);
        }
        true
    }

    fn alarm(&self, damaged: &mut BTreeSet<u32>, segment: u32, offset: u64, why: &str) {
        tracing::error!(
            segment,
            offset,
            why,
            "the journal is damaged: the scrub found what no start has read"
        );
        damaged.insert(segment);
        self.tell(damaged);
    }

    fn tell(&self, damaged: &BTreeSet<u32>) {
        self.scrub.damaged.store(damaged.len(), Ordering::Release);
        metrics::gauge!("miaoxiang_scrub_damaged_segments").set(damaged.len() as f64);
    }

    /// Checks the frames from `first` up to `end` (exclusive); those from there on are superseded by a later segment.
    fn segment(&self, number: u32, first: u64, end: u64) -> Result<(), Ended> {
        let file = match self.folders.open(number) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Ended::Away),
            file => file?,
        };
        let length = file.stat()?.len;
        let mut offset = SEGMENT_HEADER_BYTES as u64;
        let mut unrested = 0;
        let mut previous = None;
        let mut last = None;
        let mut bytes = Vec::new();
        for expected in first..end {
            let damaged = |why| Ended::Damaged(offset, why);
            bytes.resize(frame::HEADER_BYTES, 0);
            if offset + frame::HEADER_BYTES as u64 > length {
                return Err(damaged("the segment ends too early"));
            }
            disk::read_exact(&*file, &mut bytes, offset)?;
            let declared = frame::declared_length(&bytes).ok_or(damaged("no frame begins here"))?;
            if offset + declared as u64 > length {
                return Err(damaged("the segment ends too early"));
            }
            bytes.resize(declared, 0);
            disk::read_exact(&*file, &mut bytes, offset)?;
            let frame = Frame::parse(&bytes).map_err(damaged)?;
            if frame.head.number != expected {
                return Err(damaged("the frame has another number"));
            }
            if previous.is_some_and(|previous| previous != frame.head.previous) {
                return Err(damaged("the frame does not follow the one before it"));
            }
            for (index, leaf) in (frame.head.first_index..).zip(frame.leaves()) {
                // Tiles are behind by a moment at most, and this segment is closed.
                if self.tiles.node(0, index).is_ok_and(|tile| tile != leaf_hash(leaf)) {
                    return Err(damaged("a leaf is not the one in the tree"));
                }
            }
            previous = Some(frame.chain_hash());
            last = Some((offset, frame.size, frame.root, frame.signature));
            offset += declared as u64;
            unrested += declared as u64;
            if unrested >= PIECE_BYTES && !self.pace(std::mem::take(&mut unrested)) {
                return Err(Ended::Stopped);
            }
        }
        if let Some((offset, size, root, signature)) = last {
            let checkpoint = Checkpoint { origin: self.key.name().to_owned(), size, root };
            UnparsedPublicKey::new(&ED25519, self.key.key())
                .verify(checkpoint.text().as_bytes(), &signature)
                .map_err(|_| Ended::Damaged(offset, "the frame's signature is not the log's"))?;
        }
        Ok(())
    }
}
