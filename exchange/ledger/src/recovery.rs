//! Opening a journal: verify every frame, replay, rewrite the tail into a new segment. And checking one from the
//! outside.
//!
//! A start always continues in a new segment, which begins with a copy of the last seal and whatever follows it.
//! What stands behind a failed sync may be in the page cache and not on the disk; read back it looks durable. The
//! copy is synced before anything is answered, so that nothing rests on such pages.

use crate::{
    Hash, LedgerKeys, Options, Position,
    crypt::{Crypt, day_of},
    frame::{self, Frame, Kind},
    image::Image,
    ledger::{OpenError, Opened},
    record::{Completion, EntryPlain, Record, StateDigest},
    segment::{self, Folders, Header, SEGMENT_HEADER_BYTES},
    sequencer::{Current, Cursor, LogSigner, build_seal, kind_of_leaf, leaf_of, organisation, stamp},
    snapshot,
    state::{Applied, Slot, State},
    store::{self, StoreError},
    tally::{Comparison, Tally},
    tiles::{self, Tiles},
};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};
use verifier::{
    checkpoint::Checkpoint,
    leaf::LeafKind,
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

pub(crate) fn snapshots_folder(data: &Path) -> PathBuf {
    data.join("snapshots")
}

/// Takes the journal's lock; it is held while the file is open.
pub(crate) fn lock(data: &Path) -> Result<Arc<File>, OpenError> {
    let folder = journal_folder(data);
    make_folder(&folder).map_err(OpenError::io("making the journal's folder"))?;
    lock_file(&folder.join("lock")).map(Arc::new)
}

/// Takes a lock on a file, which is made if it is missing.
pub(crate) fn lock_file(path: &Path) -> Result<File, OpenError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(OpenError::io("opening the lock"))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked),
        Err(error) => Err(OpenError::Io { what: "locking the journal", error: error.into() }),
    }
}

/// Whether a gateway has the journal open now.
pub(crate) fn is_served(data: &Path) -> bool {
    let Ok(file) = File::open(journal_folder(data).join("lock")) else { return false };
    let locked = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared);
    matches!(locked, Err(rustix::io::Errno::WOULDBLOCK))
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

pub(crate) fn signer(options: &Options, keys: &LedgerKeys) -> Result<LogSigner, OpenError> {
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
    pub(crate) tiles: Arc<Tiles>,
    pub(crate) writer: tiles::Writer,
    pub(crate) image: Option<Image>,
    pub(crate) current: Current,
    pub(crate) cursor: Cursor,
    /// Values that replay changed and the image does not have.
    pub(crate) slots: HashSet<Slot>,
    pub(crate) opened: Opened,
}

/// Recovers, from the first entry on if `zero`; `progress` gets the entries done so far.
pub(crate) fn recover(
    options: &Options,
    keys: &LedgerKeys,
    zero: bool,
    progress: &dyn Fn(u64),
) -> Result<Recovered, OpenError> {
    options.check()?;
    let signer = signer(options, keys)?;
    let lock = lock(&options.folder)?;
    let folder = journal_folder(&options.folder);
    let journal = Journal::list(Folders::new(options), signer.key.clone(), Signatures::LastOfSegment)?;
    let published = published(&options.folder, &signer.key);
    let crypt = Arc::new(Crypt::new(&options.origin, keys));
    let tiles =
        Arc::new(Tiles::open(&tiles_folder(&options.folder)).map_err(OpenError::io("opening the tiles"))?);

    let cut = journal.cut()?;
    let number = journal.segments.last().map_or(0, |last| last.number + 1);
    let replay = Replay {
        options,
        journal: &journal,
        cut: &cut,
        new_number: number,
        published: published.as_ref(),
        crypt: &crypt,
        tiles: &tiles,
        progress,
    };
    let Replayed { state, image, writer, slots, end, replayed, base } = replay.best(zero)?;
    let size = end.cursor.frontier.size();
    if let Some(published) = published.filter(|published| published.size > size) {
        return Err(OpenError::RolledBack { published: published.size, journal: size });
    }

    // Up to here nothing of the journal is changed. Now the tail moves into a segment of its own.
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

    let (checkpoint, signature) = signer.sign(size, cursor.frontier.root());
    tiles
        .publish(size, &checkpoint.signed_text(&signer.key, &signature))
        .map_err(OpenError::io("publishing the checkpoint"))?;
    if end.torn {
        tracing::warn!(size, "the last frame was torn and is dropped; nobody was answered from it");
    }
    let opened = Opened {
        size,
        replayed,
        from_image: base == Base::Image,
        from_snapshot: match base {
            Base::Snapshot(size) => Some(size),
            _ => None,
        },
        torn: end.torn,
        tail_bytes: tail.len() as u64,
    };
    let current = Current { number, file, offset, bytes };
    Ok(Recovered { lock, crypt, state, signer, tiles, writer, image, current, cursor, slots, opened })
}

/// The checkpoint that was published last; `None` when there is none, or none that can be read.
pub(crate) fn published(data: &Path, key: &VerifierKey) -> Option<Checkpoint> {
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

/// What a replay began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    Zero,
    /// A snapshot of this size.
    Snapshot(u64),
    Image,
}

struct Replayed {
    state: Arc<State>,
    image: Option<Image>,
    writer: tiles::Writer,
    slots: HashSet<Slot>,
    end: End,
    replayed: u64,
    base: Base,
}

/// What a replay works with.
struct Replay<'a> {
    options: &'a Options,
    journal: &'a Journal,
    cut: &'a Cut,
    new_number: u32,
    published: Option<&'a Checkpoint>,
    crypt: &'a Arc<Crypt>,
    tiles: &'a Arc<Tiles>,
    progress: &'a dyn Fn(u64),
}

/// What [`Replay::run`] found.
struct Ran {
    end: End,
    writer: tiles::Writer,
    /// What the replay changed.
    slots: HashSet<Slot>,
    replayed: u64,
}

impl Replay<'_> {
    /// Replays from the restart image; where there is none, or any doubt about it, from the newest snapshot that the
    /// journal confirms; and where there is none of those either, or when `zero` says so, from the first entry.
    ///
    /// A doubtful image is moved aside only after the journal itself has proved good.
    fn best(&self, zero: bool) -> Result<Replayed, OpenError> {
        let wanted = self.options.image && !zero;
        let mut doubt = None;
        if wanted {
            match self.of_image() {
                Ok(Some(replayed)) => return Ok(replayed),
                Ok(None) => {}
                Err(why) => {
                    tracing::error!(doubt = %why, "the restart image cannot be used");
                    doubt = Some(why);
                }
            }
        }
        let mut replayed = match if wanted { self.of_snapshots()? } else { None } {
            Some(replayed) => replayed,
            None => self.of_zero()?,
        };
        if self.options.image {
            let store = store_folder(&self.options.folder);
            if doubt.is_some() {
                tracing::error!("the restart image is moved aside and made anew");
                metrics::counter!("miaoxiang_image_quarantined_total").increment(1);
                store::quarantine(&store).map_err(OpenError::io("moving the restart image aside"))?;
            }
            match Image::create(&store, self.options.engine, &self.options.origin) {
                Ok(image) => replayed.image = Some(image),
                Err(error) => {
                    tracing::error!(%error, "there is no restart image: the next start replays more");
                    metrics::counter!("miaoxiang_image_failures_total").increment(1);
                }
            }
        }
        Ok(replayed)
    }

    fn state(&self) -> Arc<State> {
        Arc::new(State::new(Arc::clone(self.crypt), self.options.idempotency_per_organisation))
    }

    /// `None` when there is no image. The error says what is doubtful about it; it may as well be the journal.
    fn of_image(&self) -> Result<Option<Replayed>, Doubt> {
        let options = self.options;
        let store = store_folder(&options.folder);
        store::remove_others(&store, options.engine).map_err(StoreError::from)?;
        if !store.join(options.engine.name()).exists() {
            return Ok(None);
        }
        if let Some(probe) = &options.probe {
            probe(&options.folder, options.engine).map_err(StoreError::Probe)?;
        }
        let state = self.state();
        let (image, meta) = Image::open(&store, options.engine, &options.origin, &state)?;
        let Some(meta) = meta else { return Ok(None) };
        let mut tally = Tally::of_image(&image, meta.covers);
        let Ran { end, writer, slots, replayed } =
            self.run::<Doubt>(&state, &meta.cursor, &mut |applied, frame| {
                let seal = (frame.head.kind == Kind::Seal).then_some(frame.size);
                tally.follow(&state, &applied.changed, seal)?;
                // A digest of a moment before the image says nothing about the image.
                if applied.logged.iter().any(|logged| tally.compare(logged) == Comparison::Different) {
                    return Err(StoreError::Doubtful("not the state whose digest the journal has").into());
                }
                Ok(())
            })?;
        if meta.covers > end.cursor.frontier.size() {
            return Err(StoreError::Doubtful("ahead of the journal").into());
        }
        let image = Some(image);
        Ok(Some(Replayed { state, image, writer, slots, end, replayed, base: Base::Image }))
    }

    /// `None` when no snapshot can be used.
    fn of_snapshots(&self) -> Result<Option<Replayed>, OpenError> {
        let folder = snapshots_folder(&self.options.folder);
        let listed = snapshot::list(&folder).map_err(OpenError::io("listing the snapshots"))?;
        for listed in listed.iter().rev() {
            match self.of_snapshot(&listed.path) {
                Ok(replayed) => return Ok(Some(replayed)),
                Err(why) => tracing::warn!(size = listed.size, %why, "a snapshot is passed over"),
            }
        }
        Ok(None)
    }

    fn of_snapshot(&self, path: &Path) -> Result<Replayed, Doubt> {
        let origin = verifier::sha256(&[self.options.origin.as_bytes()]);
        let state = self.state();
        let (meta, digest, loaded) = snapshot::load(path, &origin, &state)?;
        let expected = StateDigest { size: meta.covers, digest };
        let mut confirmed = false;
        let Ran { end, writer, mut slots, replayed } =
            self.run::<Doubt>(&state, &meta.cursor, &mut |applied, _| {
                confirmed |= applied.logged.contains(&expected);
                Ok(())
            })?;
        if !confirmed {
            return Err(StoreError::Doubtful("not confirmed by the journal").into());
        }
        slots.extend(loaded);
        let base = Base::Snapshot(meta.covers);
        Ok(Replayed { state, image: None, writer, slots, end, replayed, base })
    }

    fn of_zero(&self) -> Result<Replayed, OpenError> {
        let state = self.state();
        let Ran { end, writer, slots, replayed } =
            self.run(&state, &Cursor::start(), &mut |_, _| Ok::<_, OpenError>(()))?;
        Ok(Replayed { state, image: None, writer, slots, end, replayed, base: Base::Zero })
    }

    /// Replays the journal from a cursor into the state, and into the tiles what they lack. `visit` gets each frame
    /// that was applied.
    fn run<E: From<OpenError>>(
        &self,
        state: &State,
        from: &Cursor,
        visit: &mut VisitApplied<'_, E>,
    ) -> Result<Ran, E> {
        let io = || OpenError::io("bringing the tiles up to date");
        let (mut writer, start) = self.resume_tiles(from)?;
        let mut slots = HashSet::new();
        let mut changes = Changes::default();
        let mut replayed = 0;
        let end = self.journal.walk::<E>(&start, self.published, &mut |position, frame, hashes| {
            let leaves: Vec<_> = frame.leaves().copied().collect();
            writer.append(&leaves, hashes).map_err(io())?;
            if frame.head.number >= from.frame {
                let position = self.cut.moved(position, self.new_number);
                changes.clear();
                apply_frame(self.crypt, state, position, frame, hashes, &mut changes)?;
                visit(&changes, frame)?;
                slots.extend(changes.changed.iter());
                replayed += hashes.len() as u64;
            }
            (self.progress)(frame.size);
            Ok(())
        })?;
        Ok(Ran { end, writer, slots, replayed })
    }

    /// The tiles as far as they are good, and where the walk begins that brings them up to date: at `from`; at a
    /// snapshot before it, for which they were synced; or at the first frame.
    fn resume_tiles(&self, from: &Cursor) -> Result<(tiles::Writer, Cursor), OpenError> {
        let origin = verifier::sha256(&[self.options.origin.as_bytes()]);
        let snapshots = snapshot::list(&snapshots_folder(&self.options.folder)).unwrap_or_default();
        let heads = snapshots.iter().rev().filter_map(|listed| snapshot::head(&listed.path, &origin).ok());
        let earlier = heads.map(|(meta, _)| meta.cursor).filter(|cursor| cursor.frame < from.frame);
        for cursor in std::iter::once(from.clone()).chain(earlier) {
            let frontier = &cursor.frontier;
            let resumed = tiles::Writer::resume(Arc::clone(self.tiles), frontier.size(), &frontier.root());
            if let Ok(Some(writer)) = resumed {
                return Ok((writer, cursor));
            }
        }
        let writer = tiles::Writer::restart(Arc::clone(self.tiles))
            .map_err(OpenError::io("bringing the tiles up to date"))?;
        Ok((writer, Cursor::start()))
    }
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
enum Doubt {
    #[error(transparent)]
    Journal(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Takes what each frame changed.
type VisitApplied<'a, E> = dyn FnMut(&Changes, &Frame<'_>) -> Result<(), E> + 'a;

/// What the entries of a frame did.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) changed: Vec<Slot>,
    /// Digests of the state that were logged.
    pub(crate) logged: Vec<StateDigest>,
}

impl Changes {
    pub(crate) fn clear(&mut self) {
        self.changed.clear();
        self.logged.clear();
    }
}

/// Opens a frame's state part and applies its entries. `position` is where the frame stands from now on.
pub(crate) fn apply_frame(
    crypt: &Crypt,
    state: &State,
    position: Position,
    frame: &Frame<'_>,
    hashes: &[Hash],
    changes: &mut Changes,
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
            &mut changes.changed,
        );
        changes.logged.extend(record.state_digest);
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
pub(crate) struct Begun {
    number: u32,
    path: PathBuf,
    first_frame: u64,
    /// Frames of this number or higher are superseded by a later segment.
    end_frame: u64,
}

/// Which signatures a walk checks beside the chain of frames and the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signatures {
    /// Every frame's.
    All,
    /// That of the last frame in each segment. It covers the root over all leaves before it, and the leaves commit to
    /// everything that replay takes from a frame; so this finds the same forgeries at a fraction of the cost, only
    /// not a spoilt signature that nobody needs any more.
    LastOfSegment,
}

/// The begun segments of a journal.
pub(crate) struct Journal {
    pub(crate) segments: Vec<Begun>,
    folders: Folders,
    key: VerifierKey,
    signatures: Signatures,
    /// A gateway may be writing while this is read.
    pub(crate) live: bool,
}

/// Takes each verified frame: where it stands and the hashes of its leaves.
pub(crate) type Visit<'a, E> = dyn FnMut(Position, &Frame<'_>, &[Hash]) -> Result<(), E> + 'a;

/// Where a walk ended.
pub(crate) struct End {
    pub(crate) cursor: Cursor,
    /// Offset in the last segment behind its last good frame.
    offset: u64,
    /// Something that is no frame follows there.
    pub(crate) torn: bool,
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
    pub(crate) fn list(
        folders: Folders,
        key: VerifierKey,
        signatures: Signatures,
    ) -> Result<Self, OpenError> {
        let mut listed = segment::list(&folders.journal).map_err(OpenError::io("listing the segments"))?;
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
        Ok(Self { segments, folders, key, signatures, live: false })
    }

    /// A whole segment, from the journal's folder or the archive.
    fn read(&self, number: u32) -> Result<Vec<u8>, OpenError> {
        let mut bytes = Vec::new();
        match self.folders.open(number).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => Ok(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(OpenError::Missing { segment: number })
            }
            Err(error) => Err(OpenError::Io { what: "reading a segment", error }),
        }
    }

    /// Finds the last seal of the last segment.
    fn cut(&self) -> Result<Cut, OpenError> {
        let mut cut =
            Cut { segment: 0, file: Vec::new(), offset: SEGMENT_HEADER_BYTES as u64, first_frame: None };
        let Some(last) = self.segments.last() else { return Ok(cut) };
        cut.segment = last.number;
        cut.file = self.read(last.number)?;
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
    pub(crate) fn walk<E: From<OpenError>>(
        &self,
        start: &Cursor,
        published: Option<&Checkpoint>,
        visit: &mut Visit<'_, E>,
    ) -> Result<End, E> {
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
                return Err(OpenError::Corrupt { segment: 0, offset: 0, why }.into());
            }
        };
        let mut hashes = Vec::new();
        for (at, segment) in segments.iter().enumerate() {
            let is_last = at + 1 == segments.len();
            if segment.first_frame >= segment.end_frame && !is_last {
                continue;
            }
            let mut bytes = self.read(segment.number)?;
            let mut offset = if at == 0 {
                self.first_offset(segment, &bytes, &cursor)?
            } else if segment.first_frame == cursor.frame {
                SEGMENT_HEADER_BYTES
            } else {
                let why = "frames before this segment are missing";
                return Err(OpenError::Corrupt { segment: segment.number, offset: 0, why }.into());
            };
            // Where the last frame stands, its checkpoint and its signature.
            let mut last = None;
            let mut read_at = None;
            while cursor.frame < segment.end_frame {
                let corrupt =
                    |why| OpenError::Corrupt { segment: segment.number, offset: offset as u64, why };
                if self.live
                    && read_at != Some(offset)
                    && Frame::parse(bytes.get(offset..).unwrap_or_default()).is_err()
                {
                    // It was perhaps being written when it was read. What follows it now was written after it: read
                    // again, a frame before a whole one is whole.
                    read_at = Some(offset);
                    bytes = self.read(segment.number)?;
                }
                let rest = bytes.get(offset..).unwrap_or_default();
                let frame = match Frame::parse(rest) {
                    Ok(frame) => frame,
                    Err(why) if !is_last || frame::any_frame_from(rest, cursor.frame) => {
                        return Err(corrupt(why).into());
                    }
                    Err(_) => {
                        torn = rest.iter().any(|byte| *byte != 0);
                        break;
                    }
                };
                check(&frame, &mut cursor, &mut hashes).map_err(corrupt)?;
                if self.signatures == Signatures::All {
                    self.check_signature(frame.size, frame.root, &frame.signature, &public)
                        .map_err(corrupt)?;
                } else {
                    last = Some((offset, frame.size, frame.root, frame.signature));
                }
                confirm(published, &cursor)?;
                visit(Position::new(segment.number, offset as u32), &frame, &hashes)?;
                offset += frame.bytes.len();
                sealed = frame.head.kind == Kind::Seal;
                cursor.position = Position::new(segment.number, offset as u32);
            }
            if let Some((offset, size, root, signature)) = last {
                self.check_signature(size, root, &signature, &public).map_err(|why| OpenError::Corrupt {
                    segment: segment.number,
                    offset: offset as u64,
                    why,
                })?;
            }
            end_offset = offset as u64;
        }
        Ok(End { cursor, offset: end_offset, torn, sealed })
    }

    fn check_signature(
        &self,
        size: u64,
        root: Hash,
        signature: &[u8; 64],
        public: &UnparsedPublicKey<&[u8; 32]>,
    ) -> Result<(), &'static str> {
        let checkpoint = Checkpoint { origin: self.key.name().to_owned(), size, root };
        public
            .verify(checkpoint.text().as_bytes(), signature)
            .map_err(|_| "the frame's signature is not the log's")
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
}

/// Checks a frame against the cursor and moves the cursor behind it, except for its position. Its signature is left.
fn check(frame: &Frame<'_>, cursor: &mut Cursor, hashes: &mut Vec<Hash>) -> Result<(), &'static str> {
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
    cursor.frame += 1;
    cursor.previous = verifier::sha256(&[frame.bytes]);
    cursor.time_ms = head.time_ms;
    Ok(())
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
