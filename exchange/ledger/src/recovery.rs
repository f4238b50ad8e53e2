//! Opening a journal: verify every frame, replay, rewrite the tail into a new segment. And checking one from the
//! outside.
//!
//! A start always continues in a new segment, which begins with a copy of the last seal and whatever follows it.
//! What stands behind a failed sync may be in the page cache and not on the disk; read back it looks durable. The
//! copy is synced before anything is answered, so that nothing rests on such pages.

use crate::{
    Hash, LedgerKeys, Options, Position,
    crypt::{Crypt, day_of},
    epoch,
    frame::{self, Frame, Kind},
    image::{self, Image, Meta},
    ledger::{OpenError, Opened},
    record::{Completion, EntryPlain, Record},
    segment::{self, Header, SEGMENT_HEADER_BYTES},
    sequencer::{Current, Cursor, LogSigner, build_seal, kind_of_leaf, leaf_of, organisation, stamp},
    state::{Applied, Slot, State},
    tiles::{self, Tiles},
};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    sync::Arc,
};
use verifier::{
    checkpoint::Checkpoint,
    leaf::{LeafKind, Open},
    merkle::{Frontier, leaf_hash},
    note::{SignedNote, VerifierKey},
};

pub(crate) fn journal_folder(data: &Path) -> PathBuf {
    data.join("journal")
}

pub(crate) fn tiles_folder(data: &Path) -> PathBuf {
    data.join("tiles")
}

pub(crate) fn store_folder(data: &Path) -> PathBuf {
    data.join("store")
}

/// Takes the journal's lock; it is held while the file is open.
pub(crate) fn lock(data: &Path) -> Result<Arc<File>, OpenError> {
    let folder = journal_folder(data);
    make_folder(&folder).map_err(OpenError::io("making the journal's folder"))?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(folder.join("lock"))
        .map_err(OpenError::io("opening the lock"))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Arc::new(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked),
        Err(error) => Err(OpenError::Io { what: "locking the journal", error: error.into() }),
    }
}

/// Makes a folder whose name survives a power cut: what is synced inside is worth nothing without it.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    match folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => {
            make_folder(parent)?;
            fs::create_dir(folder)?;
            File::open(parent)?.sync_all()
        }
        None => fs::create_dir(folder),
    }
}

fn signer(options: &Options, keys: &LedgerKeys) -> Result<LogSigner, OpenError> {
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&keys.log_pkcs8)
        .map_err(|_| OpenError::Keys("the log's key is not an Ed25519 key in PKCS#8"))?;
    let public: &[u8; 32] =
        pair.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes");
    let key = VerifierKey::ed25519(&options.origin, public)
        .map_err(|_| OpenError::Keys("the origin cannot be a key name"))?;
    Ok(LogSigner { pair, key })
}

/// Everything a ledger starts with.
pub(crate) struct Recovered {
    pub(crate) lock: Arc<File>,
    pub(crate) crypt: Arc<Crypt>,
    pub(crate) state: Arc<State>,
    pub(crate) signer: LogSigner,
    /// Epoch of the durable key file.
    pub(crate) durable_epoch: u32,
    pub(crate) tiles: Arc<Tiles>,
    pub(crate) writer: tiles::Writer,
    pub(crate) image: Option<Image>,
    pub(crate) current: Current,
    pub(crate) cursor: Cursor,
    /// Values that replay changed and the image does not have.
    pub(crate) slots: HashSet<Slot>,
    pub(crate) opened: Opened,
}

pub(crate) fn recover(options: &Options, keys: &LedgerKeys) -> Result<Recovered, OpenError> {
    options.check()?;
    let signer = signer(options, keys)?;
    let epochs = epoch::Loaded::read(&*keys.epochs, &options.origin)?;
    let lock = lock(&options.folder)?;
    let folder = journal_folder(&options.folder);
    let journal = Journal::list(&folder, signer.key.clone())?;
    let published = published(&options.folder, &signer.key);
    let crypt = Arc::new(Crypt::new(&options.origin, keys));
    epochs.install(&crypt);
    let tiles =
        Arc::new(Tiles::open(&tiles_folder(&options.folder)).map_err(OpenError::io("opening the tiles"))?);

    let cut = journal.cut()?;
    let number = journal.segments.last().map_or(0, |last| last.number + 1);
    let Replayed { state, image, writer, slots, end, replayed, from_image } =
        replay_with_image(options, &journal, &cut, number, published.as_ref(), &crypt, &epochs, &tiles)?;
    let size = end.cursor.frontier.size();
    if let Some(published) = published.filter(|published| published.size > size) {
        return Err(OpenError::RolledBack { published: published.size, journal: size });
    }

    // Up to here nothing of the journal and of the keys is changed. Now the tail moves into a segment of its own.
    segment::remove_temporary(&folder).map_err(OpenError::io("removing half-made files"))?;
    let mut cursor = end.cursor;
    let tail = cut.bytes(end.offset);
    let first_frame = cut.first_frame.unwrap_or(cursor.frame);
    let mut content = segment::header(number, first_frame, &options.origin).to_vec();
    content.extend_from_slice(tail);
    if !tail.is_empty() && !end.sealed {
        content.extend_from_slice(&build_seal(&mut cursor, &signer));
    }
    let offset = content.len() as u64;
    let bytes = options.segment_bytes.max(offset);
    let file = segment::create(&folder, number, &content, bytes, |_| Ok(()))
        .map_err(OpenError::io("writing the tail into a new segment"))?;
    cursor.position = Position::new(number, offset as u32);
    if let Some(last) = journal.segments.last() {
        // Gives back the unused zeros and what a torn frame left; the next start does not look there.
        let cut_off = OpenOptions::new().write(true).open(&last.path).and_then(|old| old.set_len(end.offset));
        if let Err(error) = cut_off {
            tracing::warn!(segment = last.number, %error, "a closed segment keeps its unused end");
        }
    }

    let durable_epoch = epochs.settle(&*keys.epochs, &crypt, &state)?;
    let (checkpoint, signature) = signer.sign(size, cursor.frontier.root());
    tiles
        .publish(size, &checkpoint.signed_text(&signer.key, &signature))
        .map_err(OpenError::io("publishing the checkpoint"))?;
    if end.torn {
        tracing::warn!(size, "the last frame was torn and is dropped; nobody was answered from it");
    }
    let opened = Opened { size, replayed, from_image, torn: end.torn, tail_bytes: tail.len() as u64 };
    let current = Current { number, file, offset, bytes };
    Ok(Recovered {
        lock,
        crypt,
        state,
        signer,
        durable_epoch,
        tiles,
        writer,
        image,
        current,
        cursor,
        slots,
        opened,
    })
}

/// The checkpoint that was published last; `None` when there is none, or none that can be read.
fn published(data: &Path, key: &VerifierKey) -> Option<Checkpoint> {
    let text = fs::read_to_string(tiles::checkpoint_path(&tiles_folder(data))).ok()?;
    let checkpoint = SignedNote::parse(&text)
        .and_then(|note| note.verify(std::slice::from_ref(key)).map(|note| Checkpoint::parse(&note)));
    match checkpoint {
        Ok(Ok(checkpoint)) => Some(checkpoint),
        _ => {
            tracing::warn!(
                "the published checkpoint cannot be read: a rolled-back journal would go unnoticed"
            );
            None
        }
    }
}

struct Replayed {
    state: Arc<State>,
    image: Option<Image>,
    writer: tiles::Writer,
    slots: HashSet<Slot>,
    end: End,
    replayed: u64,
    from_image: bool,
}

/// Replays from the restart image, and from the beginning when there is any doubt about the image.
#[expect(clippy::too_many_arguments, reason = "one caller; a struct would only repeat the names")]
fn replay_with_image(
    options: &Options,
    journal: &Journal,
    cut: &Cut,
    new_number: u32,
    published: Option<&Checkpoint>,
    crypt: &Arc<Crypt>,
    epochs: &epoch::Loaded,
    tiles: &Arc<Tiles>,
) -> Result<Replayed, OpenError> {
    let store = store_folder(&options.folder);
    let mut attempts = if options.image { 2 } else { 0 };
    loop {
        let state = Arc::new(State::new(Arc::clone(crypt), options.idempotency_per_organisation));
        crypt.begin_epoch(state.epoch());
        let mut image: Option<(Image, Option<Meta>)> = None;
        if attempts > 0 {
            attempts -= 1;
            match Image::open(&store, &options.origin, &state) {
                Ok(opened) => image = Some(opened),
                Err(error) => {
                    set_aside(&store, &error.to_string())?;
                    continue;
                }
            }
        }
        let meta = image.as_ref().and_then(|(_, meta)| meta.clone());
        let from = meta.as_ref().map_or_else(Cursor::start, |meta| meta.cursor.clone());
        let done = replay(journal, cut, new_number, published, crypt, tiles, &state, &from);
        let doubt = match (&done, &meta) {
            (Err(error), Some(_)) => Some(error.to_string()),
            (Ok((end, ..)), Some(meta)) if meta.covers > end.cursor.frontier.size() => {
                Some("the journal is shorter than the image".to_owned())
            }
            _ => None,
        };
        if let Some(doubt) = doubt {
            drop(image);
            set_aside(&store, &doubt)?;
            continue;
        }
        let (end, writer, slots, replayed) = done?;
        epochs.fits(&state)?;
        if !epochs.give_keys(crypt, &state) {
            if meta.is_some() {
                drop(image);
                set_aside(&store, "a living holder's key is not in it")?;
                continue;
            }
            return Err(OpenError::Keys("the epoch's key file lacks the key of a living holder"));
        }
        let image = image.map(|(image, _)| image);
        return Ok(Replayed { state, image, writer, slots, end, replayed, from_image: meta.is_some() });
    }
}

fn set_aside(store: &Path, doubt: &str) -> Result<(), OpenError> {
    tracing::error!(doubt, "the restart image is moved aside; everything is replayed");
    image::quarantine(store).map_err(OpenError::io("moving the restart image aside"))
}

/// Replays the journal from a cursor into the state, and into the tiles what they lack.
#[expect(clippy::too_many_arguments, reason = "one caller; a struct would only repeat the names")]
fn replay(
    journal: &Journal,
    cut: &Cut,
    new_number: u32,
    published: Option<&Checkpoint>,
    crypt: &Crypt,
    tiles: &Arc<Tiles>,
    state: &State,
    from: &Cursor,
) -> Result<(End, tiles::Writer, HashSet<Slot>, u64), OpenError> {
    let io = || OpenError::io("bringing the tiles up to date");
    let size = from.frontier.size();
    let resumed = tiles::Writer::resume(Arc::clone(tiles), size, &from.frontier.root()).unwrap_or(None);
    let (mut writer, start) = match resumed {
        Some(writer) => (writer, from.clone()),
        // Tiles that do not fit are made again from the first frame on.
        None => (tiles::Writer::restart(Arc::clone(tiles)).map_err(io())?, Cursor::start()),
    };
    let mut slots = HashSet::new();
    let mut changed = Vec::new();
    let mut replayed = 0;
    let end = journal.walk(&start, published, &mut |position, frame, hashes| {
        let leaves: Vec<_> = frame.leaves().copied().collect();
        writer.append(&leaves, hashes).map_err(io())?;
        if frame.head.number >= from.frame {
            apply_frame(crypt, state, cut.moved(position, new_number), frame, hashes, &mut changed)?;
            slots.extend(changed.drain(..));
            replayed += hashes.len() as u64;
        }
        Ok(())
    })?;
    Ok((end, writer, slots, replayed))
}

/// Opens a frame's state part and applies its entries. `position` is where the frame stands from now on.
fn apply_frame(
    crypt: &Crypt,
    state: &State,
    position: Position,
    frame: &Frame<'_>,
    hashes: &[Hash],
    changed: &mut Vec<Slot>,
) -> Result<(), OpenError> {
    if frame.head.kind == Kind::Seal {
        return Ok(());
    }
    let corrupt =
        |why| OpenError::Corrupt { segment: position.segment(), offset: position.offset().into(), why };
    let plain = crypt
        .open_state(frame.state, frame.head.day, frame.head.number)
        .map_err(|_| OpenError::Keys("the journal key does not open the journal"))?;
    let mut rest = plain.as_slice();
    let mut parts = Vec::new();
    let entries = (frame.head.first_index..).zip(frame.leaves().zip(frame.subjects()).zip(hashes));
    for (index, ((leaf, (offset, length)), hash)) in entries {
        let entry = EntryPlain::read(&mut rest).map_err(|error| corrupt(error.0))?;
        let kind = kind_of_leaf(leaf).ok_or_else(|| corrupt("a leaf of an unknown kind"))?;
        if leaf_of(kind, &entry).as_ref() != Some(leaf) {
            return Err(corrupt("an entry is not what its leaf commits to"));
        }
        if kind == LeafKind::Entry && stamp(entry.open) != Some((index, frame.head.time_ms)) {
            return Err(corrupt("an entry has another index or time than its frame"));
        }
        let record = Record::decode(entry.record).map_err(|error| corrupt(error.0))?;
        let completion = Completion::decode(entry.completion, &record).map_err(|error| corrupt(error.0))?;
        parts.clear();
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let part_length = frame.bytes[at..end].first_chunk().map(|length| u32::from_be_bytes(*length));
            let next = part_length.and_then(|length| at.checked_add(4)?.checked_add(length as usize));
            parts.push(Position::new(position.segment(), position.offset() + at as u32));
            at = next
                .filter(|next| *next <= end)
                .ok_or_else(|| corrupt("a subject part overlaps the next"))?;
        }
        state.apply(
            &Applied {
                index,
                time_ms: frame.head.time_ms,
                organisation: organisation(kind, entry.open),
                leaf_hash: *hash,
                frame: position,
                parts: &parts,
                record: &record,
                completion: &completion,
            },
            changed,
        );
    }
    if rest.is_empty() { Ok(()) } else { Err(corrupt("the state part is longer than its entries")) }
}

impl Cursor {
    /// Before the first frame.
    pub(crate) fn start() -> Self {
        Self { frame: 0, previous: [0; 32], position: Position::NONE, frontier: Frontier::new(), time_ms: 0 }
    }
}

/// A segment that frames were written to.
struct Begun {
    number: u32,
    path: PathBuf,
    first_frame: u64,
    /// Frames of this number or higher are superseded by a later segment.
    end_frame: u64,
}

/// The begun segments of a journal.
struct Journal {
    segments: Vec<Begun>,
    key: VerifierKey,
}

/// Takes each verified frame: where it stands and the hashes of its leaves.
type Visit<'a> = dyn FnMut(Position, &Frame<'_>, &[Hash]) -> Result<(), OpenError> + 'a;

/// Where a walk ended.
struct End {
    cursor: Cursor,
    /// Offset in the last segment behind its last good frame.
    offset: u64,
    /// Something that is no frame follows there.
    torn: bool,
    /// The last frame is a seal.
    sealed: bool,
}

/// The last seal of the last segment and what follows it: what a start copies.
struct Cut {
    segment: u32,
    /// The last segment.
    file: Vec<u8>,
    offset: u64,
    /// Number of the frame at `offset`; `None` when no frame stands there.
    first_frame: Option<u64>,
}

impl Cut {
    /// The bytes to copy, given where the last good frame ends.
    fn bytes(&self, end: u64) -> &[u8] {
        self.file.get(self.offset as usize..end as usize).unwrap_or_default()
    }

    /// Where a frame at an old position stands after the copy.
    fn moved(&self, position: Position, new_number: u32) -> Position {
        let offset = u64::from(position.offset());
        if position.segment() != self.segment || offset < self.offset || self.file.is_empty() {
            return position;
        }
        Position::new(new_number, (offset - self.offset) as u32 + SEGMENT_HEADER_BYTES as u32)
    }
}

impl Journal {
    fn list(folder: &Path, key: VerifierKey) -> Result<Self, OpenError> {
        let mut listed = segment::list(folder).map_err(OpenError::io("listing the segments"))?;
        let origin = verifier::sha256(&[key.name().as_bytes()]);
        if let Some(last) = listed.pop_if(|last| last.header.is_none()) {
            // Prepared ahead and not begun, or its header was torn while it was begun: nothing stands behind a
            // header that was not durable.
            let bytes = fs::read(&last.path).map_err(OpenError::io("reading a segment"))?;
            if frame::any_frame_from(&bytes, 0) {
                let why = "the header is damaged and frames follow it";
                return Err(OpenError::Corrupt { segment: last.number, offset: 0, why });
            }
        }
        let mut segments: Vec<Begun> = Vec::with_capacity(listed.len());
        for (expected, segment) in (0u32..).zip(listed) {
            let corrupt = |why| OpenError::Corrupt { segment: expected, offset: 0, why };
            if segment.number != expected {
                return Err(corrupt("the segment is missing"));
            }
            let header = segment.header.ok_or_else(|| corrupt("the header is damaged"))?;
            if header.number != expected {
                return Err(corrupt("the header is another segment's"));
            }
            if header.origin != origin {
                return Err(OpenError::Keys("the journal is of another origin"));
            }
            for earlier in &mut segments {
                earlier.end_frame = earlier.end_frame.min(header.first_frame);
            }
            let Header { first_frame, .. } = header;
            segments.push(Begun { number: expected, path: segment.path, first_frame, end_frame: u64::MAX });
        }
        Ok(Self { segments, key })
    }

    /// Finds the last seal of the last segment.
    fn cut(&self) -> Result<Cut, OpenError> {
        let mut cut =
            Cut { segment: 0, file: Vec::new(), offset: SEGMENT_HEADER_BYTES as u64, first_frame: None };
        let Some(last) = self.segments.last() else { return Ok(cut) };
        cut.segment = last.number;
        cut.file = fs::read(&last.path).map_err(OpenError::io("reading a segment"))?;
        let mut at = SEGMENT_HEADER_BYTES;
        while let Some(Ok(frame)) = cut.file.get(at..).map(Frame::parse) {
            if frame.head.kind == Kind::Seal || cut.first_frame.is_none() {
                cut.offset = at as u64;
                cut.first_frame = Some(frame.head.number);
            }
            at += frame.bytes.len();
        }
        Ok(cut)
    }

    /// Reads and verifies every frame from a cursor on: form, checksum, chain, tree, signature. Only what stands at
    /// the end of the last segment may be torn.
    fn walk(
        &self,
        start: &Cursor,
        published: Option<&Checkpoint>,
        visit: &mut Visit<'_>,
    ) -> Result<End, OpenError> {
        let public = UnparsedPublicKey::new(&ED25519, self.key.key());
        let mut cursor = start.clone();
        let mut end_offset = SEGMENT_HEADER_BYTES as u64;
        // At the very start there is nothing to seal, and everywhere else a walk starts behind a seal.
        let mut sealed = true;
        let mut torn = false;
        let first = self.segments.iter().rposition(|segment| segment.first_frame <= cursor.frame);
        let segments = match first {
            Some(first) => &self.segments[first..],
            None if self.segments.is_empty() => &[],
            None => {
                let why = "the journal does not begin with its first frame";
                return Err(OpenError::Corrupt { segment: 0, offset: 0, why });
            }
        };
        let mut hashes = Vec::new();
        for (at, segment) in segments.iter().enumerate() {
            let is_last = at + 1 == segments.len();
            if segment.first_frame >= segment.end_frame && !is_last {
                continue;
            }
            let bytes = fs::read(&segment.path).map_err(OpenError::io("reading a segment"))?;
            let mut offset = if at == 0 {
                self.first_offset(segment, &bytes, &cursor)?
            } else if segment.first_frame == cursor.frame {
                SEGMENT_HEADER_BYTES
            } else {
                let why = "frames before this segment are missing";
                return Err(OpenError::Corrupt { segment: segment.number, offset: 0, why });
            };
            while cursor.frame < segment.end_frame {
                let corrupt =
                    |why| OpenError::Corrupt { segment: segment.number, offset: offset as u64, why };
                let rest = bytes.get(offset..).unwrap_or_default();
                let frame = match Frame::parse(rest) {
                    Ok(frame) => frame,
                    Err(why) if !is_last || frame::any_frame_from(rest, cursor.frame) => {
                        return Err(corrupt(why));
                    }
                    Err(_) => {
                        torn = rest.iter().any(|byte| *byte != 0);
                        break;
                    }
                };
                self.check(&frame, &mut cursor, &mut hashes, &public).map_err(corrupt)?;
                confirm(published, &cursor)?;
                visit(Position::new(segment.number, offset as u32), &frame, &hashes)?;
                offset += frame.bytes.len();
                sealed = frame.head.kind == Kind::Seal;
                cursor.position = Position::new(segment.number, offset as u32);
            }
            end_offset = offset as u64;
        }
        Ok(End { cursor, offset: end_offset, torn, sealed })
    }

    /// Where the cursor's frame begins in the first segment of a walk.
    fn first_offset(&self, segment: &Begun, bytes: &[u8], cursor: &Cursor) -> Result<usize, OpenError> {
        if cursor.position.segment() == segment.number && cursor.position != Position::NONE {
            return Ok(cursor.position.offset() as usize);
        }
        // The seal before the cursor may have been copied to the head of this segment: step over it.
        let mut offset = SEGMENT_HEADER_BYTES;
        let mut number = segment.first_frame;
        let mut previous = cursor.previous;
        while number < cursor.frame {
            let corrupt = |why| OpenError::Corrupt { segment: segment.number, offset: offset as u64, why };
            let frame = Frame::parse(&bytes[offset.min(bytes.len())..]).map_err(corrupt)?;
            if frame.head.number != number {
                return Err(corrupt("the frame has another number"));
            }
            previous = verifier::sha256(&[frame.bytes]);
            offset += frame.bytes.len();
            number += 1;
        }
        if previous == cursor.previous {
            Ok(offset)
        } else {
            let why = "the frame before is another one";
            Err(OpenError::Corrupt { segment: segment.number, offset: offset as u64, why })
        }
    }

    /// Checks a frame against the cursor and moves the cursor behind it, except for its position.
    fn check(
        &self,
        frame: &Frame<'_>,
        cursor: &mut Cursor,
        hashes: &mut Vec<Hash>,
        public: &UnparsedPublicKey<&[u8; 32]>,
    ) -> Result<(), &'static str> {
        let head = &frame.head;
        if head.number != cursor.frame {
            return Err("the frame has another number");
        }
        if head.previous != cursor.previous {
            return Err("the frame does not follow the one before it");
        }
        if head.first_index != cursor.frontier.size() {
            return Err("the frame has another first index");
        }
        if head.time_ms < cursor.time_ms || head.day != day_of(head.time_ms) {
            return Err("the frame's time is wrong");
        }
        hashes.clear();
        hashes.extend(frame.leaves().map(|leaf| leaf_hash(leaf)));
        for hash in &*hashes {
            cursor.frontier.append(*hash);
        }
        if frame.size != cursor.frontier.size() || frame.root != cursor.frontier.root() {
            return Err("the frame's root is not that of its leaves");
        }
        let checkpoint =
            Checkpoint { origin: self.key.name().to_owned(), size: frame.size, root: frame.root };
        if public.verify(checkpoint.text().as_bytes(), &frame.signature).is_err() {
            return Err("the frame's signature is not the log's");
        }
        cursor.frame += 1;
        cursor.previous = verifier::sha256(&[frame.bytes]);
        cursor.time_ms = head.time_ms;
        Ok(())
    }
}

/// What was published must be what the journal says, where their sizes meet.
fn confirm(published: Option<&Checkpoint>, cursor: &Cursor) -> Result<(), OpenError> {
    let size = cursor.frontier.size();
    match published.filter(|published| published.size == size) {
        Some(published) if published.root != cursor.frontier.root() => {
            Err(OpenError::RolledBack { published: published.size, journal: size })
        }
        _ => Ok(()),
    }
}

/// What [`verify_log`] found in a journal with which nothing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogReport {
    /// Entries; all their frames are whole and verified.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
    /// Frames, seals included.
    pub frames: u64,
    /// Segments with frames.
    pub segments: usize,
    /// Bytes that are no frame stand at the end: an unfinished write. No loss; nobody was answered from it.
    pub torn_tail: bool,
    /// Digest of the state that replay gives.
    pub state_digest: Hash,
    /// Size of the published checkpoint that the journal confirms; `None` when there is none that can be read.
    pub published: Option<u64>,
}

/// Checks a journal without changing anything and without its lock: every frame, the tree, the signatures, the
/// state parts and what they commit to, and the published checkpoint. `progress` gets the entries done so far.
///
/// Beside a running gateway it sees the journal of the moment; the frame being written may then look torn.
///
/// # Errors
/// The first thing that is wrong; everything that `progress` was told before it is right.
pub fn verify_log(
    options: Options,
    keys: LedgerKeys,
    mut progress: impl FnMut(u64),
) -> Result<LogReport, OpenError> {
    let signer = signer(&options, &keys)?;
    let crypt = Arc::new(Crypt::new(&options.origin, &keys));
    let state = State::new(Arc::clone(&crypt), options.idempotency_per_organisation);
    // Read before the journal: a gateway that runs beside may only be ahead of it.
    let published = published(&options.folder, &signer.key);
    let journal = Journal::list(&journal_folder(&options.folder), signer.key)?;
    let mut changed = Vec::new();
    let end = journal.walk(&Cursor::start(), published.as_ref(), &mut |position, frame, hashes| {
        apply_frame(&crypt, &state, position, frame, hashes, &mut changed)?;
        changed.clear();
        progress(frame.size);
        Ok(())
    })?;
    let size = end.cursor.frontier.size();
    if let Some(published) = published.as_ref().filter(|published| published.size > size) {
        return Err(OpenError::RolledBack { published: published.size, journal: size });
    }
    Ok(LogReport {
        size,
        root: end.cursor.frontier.root(),
        frames: end.cursor.frame,
        segments: journal.segments.len(),
        torn_tail: end.torn,
        state_digest: state.digest(),
        published: published.map(|published| published.size),
    })
}

/// One entry as the journal holds it, read with the journal key.
#[derive(Debug)]
pub struct Entry {
    /// What the caller may know; its index and time are complete.
    pub open: Open,
    /// What replay needs and insiders may know, the internal reason of a refusal among it.
    pub record: Record,
}

/// Reads every entry of a journal in order, each frame checked as [`verify_log`] does, without changing anything
/// and without its lock. Subject parts stay sealed.
///
/// # Errors
/// [`OpenError`]; what came before the first damage was visited.
pub fn entries(options: Options, keys: LedgerKeys, mut visit: impl FnMut(Entry)) -> Result<(), OpenError> {
    let signer = signer(&options, &keys)?;
    let crypt = Crypt::new(&options.origin, &keys);
    let journal = Journal::list(&journal_folder(&options.folder), signer.key)?;
    journal.walk(&Cursor::start(), None, &mut |position, frame, _| {
        if frame.head.kind == Kind::Seal {
            return Ok(());
        }
        let corrupt =
            |why| OpenError::Corrupt { segment: position.segment(), offset: position.offset().into(), why };
        let plain = crypt
            .open_state(frame.state, frame.head.day, frame.head.number)
            .map_err(|_| OpenError::Keys("the journal key does not open the journal"))?;
        let mut rest = plain.as_slice();
        for leaf in frame.leaves() {
            let entry = EntryPlain::read(&mut rest).map_err(|error| corrupt(error.0))?;
            let kind = kind_of_leaf(leaf).ok_or_else(|| corrupt("a leaf of an unknown kind"))?;
            if leaf_of(kind, &entry).as_ref() != Some(leaf) {
                return Err(corrupt("an entry is not what its leaf commits to"));
            }
            if kind != LeafKind::Entry {
                continue;
            }
            visit(Entry {
                open: Open::parse(entry.open).map_err(|_| corrupt("open"))?,
                record: Record::decode(entry.record).map_err(|error| corrupt(error.0))?,
            });
        }
        Ok(())
    })?;
    Ok(())
}
