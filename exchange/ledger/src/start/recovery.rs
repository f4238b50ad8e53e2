//! Opening a journal: verify every frame, replay, rewrite the tail into a new segment. And checking one from the
//! outside.
//!
//! A start always continues in a new segment, which begins with a copy of the last seal and whatever follows it. Bytes
//! behind a failed sync may be in the page cache and not on the disk; read back they look durable. The copy is synced
//! before anything is answered, so that nothing rests on such pages.
//!
//! The one thread of a start writes here, under the journal's lock. A crash before the new segment is renamed leaves
//! the old ones, and the next start begins again.

use crate::{
    derive::{
        image::{self, Image, Loaded},
        index::Grown,
        meta::Meta,
        snapshot,
        store::{self, StoreError},
        tally::{Comparison, Tally},
        tiles::{self, Tiles},
    },
    disk::{Disk, Lock, RealDisk},
    error::OpenError,
    folder::{lock, lock_path, snapshots_folder, store_folder, tiles_folder},
    hosted::{check, files::Files, index::Writer},
    journal::{
        clock,
        current::Current,
        cursor::{Cursor, Mark},
        format1,
        frame::{self, Frame, Kind},
        guard::{self, Guard},
        leaf::{are_committed, kind_of_leaf, leaf_of, organisation, stamp},
        record::{Completion, EntryPlain, Record, StateDigest},
        segment::{self, Folders, SEGMENT_HEADER_BYTES},
    },
    keys::{
        crypt::Crypt,
        epoch,
        secrets::LedgerKeys,
        signer::{LogSigner, build_seal, signer},
    },
    names::{Hash, Position},
    options::Options,
    start::walk::{Cut, End, Journal, Reading, Visit},
    state::{Applied, State, slot::Slot},
};
use rustc_hash::FxHashSet;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use verifier::{
    checkpoint::Checkpoint,
    leaf::LeafKind,
    note::{SignedNote, VerifierKey},
};
use zeroize::Zeroizing;

/// Everything a ledger starts with.
pub(crate) struct Recovered {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) lock: Lock,
    pub(crate) crypt: Arc<Crypt>,
    pub(crate) state: Arc<State>,
    pub(crate) signer: LogSigner,
    /// Epoch of the durable key file.
    pub(crate) durable_epoch: u32,
    pub(crate) tiles: Arc<Tiles>,
    pub(crate) writer: tiles::Writer,
    pub(crate) image: Option<Image>,
    pub(crate) row_files: Files,
    pub(crate) rows: Writer,
    pub(crate) guard: Guard,
    /// The journal's files; none may go while it is open.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) current: Current,
    pub(crate) cursor: Cursor,
    /// Values that replay changed and the image does not have.
    pub(crate) slots: FxHashSet<Slot>,
    pub(crate) opened: Opened,
}

/// The findings of an opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Entries in the log.
    pub size: u64,
    /// Entries replayed.
    pub replayed: u64,
    /// Replay began at a restart image.
    pub from_image: bool,
    /// Replay began at a snapshot of this size, which the journal confirms.
    pub from_snapshot: Option<u64>,
    /// The last frame was torn and is dropped; nobody was answered from it.
    pub torn: bool,
    /// Bytes copied from the end of the last segment into a new one.
    pub tail_bytes: u64,
}

/// The base that a start prefers, if it can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// The restart image; in doubt the newest snapshot that the journal confirms, then the first entry.
    Image,
    /// That snapshot: the image is deleted and made anew, whatever it is.
    Snapshot,
    /// The first entry; the tiles are made anew too.
    Zero,
}

/// Recovers; `progress` gets the entries done so far. Nothing but the lock's file is made or changed before every refusal
/// is behind.
pub(crate) fn recover(
    options: &Options,
    keys: &LedgerKeys,
    start: Start,
    progress: &dyn Fn(u64),
) -> Result<Recovered, OpenError> {
    options.check()?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let signer = signer(options, keys)?;
    let lock = lock(&*disk, &options.folder)?;
    // Under the lock: a process that has it replaces them when it changes the epoch.
    let epochs = epoch::Loaded::read(&*keys.epochs, &options.origin)?;
    let published = published(&options.folder, &signer.key);
    let folders = Folders::new(Arc::clone(&disk), options);
    let found = Found::look(folders, &signer, published, Reading::Start)?;
    let crypt = Arc::new(Crypt::new(&options.origin, keys));
    let closed = found.check_keys(&crypt)?;
    epochs.install(&crypt);
    let replay = Replay { options, found: &found, crypt: &crypt, epochs: &epochs, progress };
    let (replayed, covered, doubt) = replay.best(start)?;

    let size = replayed.end.cursor.frontier.size();
    let seen = options.least_size.max(covered);
    if seen > size {
        return Err(OpenError::RolledBack { published: seen, journal: size });
    }
    // By a clock that nothing is made by any more nothing can go wrong.
    if !closed {
        found.check_clock(options, &replayed.end)?;
    }
    let row_files = Files::new(Arc::clone(&disk), &options.folder, &options.origin);
    let rows = check::load(&row_files, &replayed.state)?;

    // The journal is accepted; up to here neither it nor the keys nor what is derived is changed.
    let Replayed { state, image, from, slots, end, replayed, base } = replayed;
    let image = keep_image(options, start, image, doubt)?;
    let tiles =
        Arc::new(Tiles::open(&tiles_folder(&options.folder)).map_err(OpenError::io("opening the tiles"))?);
    let from = (start != Start::Zero).then_some(from);
    let writer = bring_up_tiles(&tiles, &found, &options.folder, from, &end)?;
    let (size, torn, tail_bytes) = (end.cursor.frontier.size(), end.torn, found.tail(&end).len() as u64);
    let (guard, current, cursor) = found.go_on(end, options.segment_bytes, &signer)?;
    let files = found.files();
    let durable_epoch = epochs.settle(&*keys.epochs, &crypt, &state)?;
    check::sweep(&row_files, &rows);
    let (checkpoint, signature) = signer.sign(size, cursor.frontier.root());
    tiles
        .publish(size, &checkpoint.signed_text(&signer.key, &signature))
        .map_err(OpenError::io("publishing the checkpoint"))?;
    if torn {
        tracing::warn!(size, "the last frame was torn and is dropped; nobody was answered from it");
    }
    let from_snapshot = match base {
        Base::Snapshot(size) => Some(size),
        _ => None,
    };
    let from_image = base == Base::Image;
    let opened = Opened { size, replayed, from_image, from_snapshot, torn, tail_bytes };
    Ok(Recovered {
        disk,
        lock,
        crypt,
        state,
        signer,
        durable_epoch,
        tiles,
        writer,
        image,
        row_files,
        rows,
        guard,
        files,
        current,
        cursor,
        slots,
        opened,
    })
}

/// The findings of a reader before it replays anything. Looking and replaying change nothing.
pub(crate) struct Found {
    journal: Journal,
    /// Sequence and mark of the guard; `None` before the first start.
    guard: Option<(u64, Mark)>,
    published: Option<Checkpoint>,
    cut: Cut,
    /// Number of the segment that the start makes.
    number: u32,
}

impl Found {
    /// Lists the segments and reads the guard and the last segment.
    pub(crate) fn look(
        folders: Folders,
        signer: &LogSigner,
        published: Option<Checkpoint>,
        reading: Reading,
    ) -> Result<Self, OpenError> {
        let guard = match reading {
            Reading::Lost => None,
            _ => guard::read(&*folders.disk, &folders.journal, signer.key.name())?,
        };
        let journal = Journal::list(folders, signer, reading)?;
        if guard.is_none() && !journal.segments.is_empty() && reading != Reading::Lost {
            // No crash leaves this: the guard is durable before the first segment is made.
            return Err(OpenError::Guard("the journal's guard is missing"));
        }
        let cut = journal.cut()?;
        // A last segment without a frame is made again: its header may be shown by the kernel and not be durable.
        let number =
            journal.segments.last().map_or(0, |last| last.number + u32::from(cut.first_frame.is_some()));
        Ok(Self { journal, guard, published, cut, number })
    }

    /// How far the journal was durable, as far as the guard knows.
    fn mark(&self) -> Mark {
        self.guard.map_or(Mark::START, |(_, mark)| mark)
    }

    /// Holds the journal key and the log's key against the newest group frame that can be read: replay from an image
    /// or a snapshot may have no frame to open. The index key is held against the segments' headers when they are listed.
    /// Whether that frame's last leaf closes the log.
    pub(crate) fn check_keys(&self, crypt: &Crypt) -> Result<bool, OpenError> {
        for segment in self.journal.segments.iter().rev() {
            let read;
            let bytes = if segment.number == self.cut.segment {
                &self.cut.file
            } else {
                read = self.journal.read(segment.number)?;
                &read
            };
            let mut group = None;
            let (mut offset, mut numbers) = (SEGMENT_HEADER_BYTES, segment.first_frame..);
            while let Some(Ok(frame)) = bytes.get(offset..).map(Frame::parse) {
                // Replay tells what is wrong with a frame out of its place.
                if numbers.next() != Some(frame.head.number) {
                    break;
                }
                let at = offset;
                offset += frame.bytes.len();
                if frame.head.kind == Kind::Group {
                    group = Some((at, frame));
                }
            }
            if let Some((at, frame)) = group {
                self.journal
                    .check_signature(frame.size, frame.root, &frame.signature)
                    .map_err(|why| OpenError::Corrupt { segment: segment.number, offset: at as u64, why })?;
                open_state(crypt, &frame)?;
                return Ok(frame.leaves().last().and_then(kind_of_leaf) == Some(LeafKind::ShardClose));
            }
        }
        Ok(false)
    }

    /// Verifies every frame from a cursor on and applies it to the state. `visit` gets each with what it changed.
    pub(crate) fn replay<E: From<OpenError>>(
        &self,
        crypt: &Crypt,
        state: &State,
        from: &Cursor,
        visit: &mut VisitApplied<'_, E>,
    ) -> Result<End, E> {
        let mut changes = Changes::default();
        let end = self.walk::<E>(from, &mut |position, frame, hashes| {
            let position = self.cut.moved(position, self.number);
            changes.clear();
            apply_frame(crypt, state, position, frame, hashes, &mut changes)?;
            visit(&changes, frame)
        })?;
        // Replay may have begun behind damage in the segment whose end is copied.
        if self.cut.parsed < end.offset {
            let why = "a frame before the last ones is damaged";
            return Err(OpenError::Corrupt { segment: self.cut.segment, offset: self.cut.parsed, why }.into());
        }
        Ok(end)
    }

    /// The files that the journal consists of once [`Found::go_on`] is done.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let folder = &self.journal.folders.journal;
        let segments = self.journal.segments.iter().map(|segment| segment.path.clone());
        let others = [segment::path(folder, self.number), guard::path(folder), lock_path(folder)];
        segments.chain(others).collect()
    }

    pub(crate) fn walk<E: From<OpenError>>(&self, from: &Cursor, visit: &mut Visit<'_, E>) -> Result<End, E> {
        self.journal.walk(from, &self.mark(), self.published.as_ref(), visit)
    }

    /// Number and first frame of each begun segment.
    pub(crate) fn begun(&self) -> impl Iterator<Item = (u32, u64)> {
        self.journal.segments.iter().map(|segment| (segment.number, segment.first_frame))
    }

    /// Begun segments.
    pub(crate) fn segments(&self) -> usize {
        self.journal.segments.len()
    }

    /// Refuses a clock that the journal's last entry contradicts.
    pub(crate) fn check_clock(&self, options: &Options, end: &End) -> Result<(), OpenError> {
        let last_ms = (end.cursor.frontier.size() > 0).then_some(end.cursor.time_ms);
        if options.accept_clock {
            return Ok(());
        }
        clock::check(options.hooks.now_ms(), last_ms, options.clock_is_kept)
    }

    /// The frames that the start copies.
    fn tail(&self, end: &End) -> &[u8] {
        self.cut.file.get(self.cut.offset as usize..end.offset as usize).unwrap_or_default()
    }

    /// Moves the tail into a segment of its own: from here on files are changed.
    ///
    /// A crash before the rename leaves everything as it was; after it, the next start finds the copy.
    pub(crate) fn go_on(
        &self,
        end: End,
        segment_bytes: u64,
        signer: &LogSigner,
    ) -> Result<(Guard, Current, Cursor), OpenError> {
        let Self { number, journal: Journal { folders, .. }, .. } = self;
        let (disk, folder) = (&folders.disk, &folders.journal);
        let origin = signer.key.name();
        segment::remove_temporary(&**disk, folder).map_err(OpenError::io("removing half-made files"))?;
        // A name that the kernel shows may not be durable, when the sync of an earlier start failed: the new segment
        // must not outlive the ones it rests on.
        disk.sync_folder(folder).map_err(OpenError::io("making the journal's names durable"))?;
        let guard = match self.guard {
            Some(written) => Guard::open(&**disk, folder, origin, written),
            None => Guard::create(&**disk, folder, origin),
        };
        let guard = guard.map_err(OpenError::io("opening the journal's guard"))?;
        let tail = self.tail(&end);
        let mut cursor = end.cursor;
        let first_frame = self.cut.first_frame.unwrap_or(cursor.frame);
        let mut content = signer.segment_header(*number, first_frame).to_vec();
        content.extend_from_slice(tail);
        if !tail.is_empty() && !end.sealed {
            content.extend_from_slice(&build_seal(&mut cursor, signer));
        }
        let offset = content.len() as u64;
        let bytes = segment_bytes.max(offset);
        let file = segment::create(&**disk, folder, *number, &content, bytes, |_| Ok(()))
            .map_err(OpenError::io("writing the tail into a new segment"))?;
        cursor.position = Position::new(*number, offset as u32);
        if let Some(last) = self.journal.segments.last().filter(|last| last.number != *number) {
            // Gives back the unused zeros and what a torn frame left; the next start does not look there.
            if let Err(error) = disk.open(&last.path, true).and_then(|old| old.set_len(end.offset)) {
                tracing::warn!(segment = last.number, %error, "a closed segment keeps its unused end");
            }
        }
        Ok((guard, Current { number: *number, file, offset, bytes }, cursor))
    }
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

/// The base that a replay began with.
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
    /// Where replay began.
    from: Cursor,
    slots: FxHashSet<Slot>,
    end: End,
    replayed: u64,
    base: Base,
}

/// A replay, with all that it works with.
struct Replay<'a> {
    options: &'a Options,
    found: &'a Found,
    crypt: &'a Arc<Crypt>,
    epochs: &'a epoch::Loaded,
    progress: &'a dyn Fn(u64),
}

/// The findings of [`Replay::run`].
struct Ran {
    end: End,
    /// The slots that the replay changed.
    slots: FxHashSet<Slot>,
    replayed: u64,
}

/// Sees to the image that is kept from now on: the journal is accepted. `None` when there is to be none, or none can be made.
fn keep_image(
    options: &Options,
    start: Start,
    image: Option<Image>,
    doubt: bool,
) -> Result<Option<Image>, OpenError> {
    let store = store_folder(&options.folder);
    if start != Start::Image {
        match fs::remove_dir_all(&store) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(OpenError::Io { what: "deleting the restart image", error });
            }
            _ => {}
        }
    }
    if !options.image {
        return Ok(None);
    }
    if let Err(error) = store::remove_others(&store, options.engine) {
        tracing::warn!(%error, "another engine's restart image stays");
    }
    if image.is_some() {
        return Ok(image);
    }
    if doubt {
        tracing::error!("the restart image is moved aside and made anew");
        metrics::counter!("miaoxiang_image_quarantined_total").increment(1);
        store::quarantine(&store).map_err(OpenError::io("moving the restart image aside"))?;
    }
    match Image::create(&store, options.engine, &options.origin) {
        Ok(image) => Ok(Some(image)),
        Err(error) => {
            tracing::error!(%error, "there is no restart image: the next start replays more");
            metrics::counter!("miaoxiang_image_failures_total").increment(1);
            Ok(None)
        }
    }
}

impl Replay<'_> {
    /// Replays from the best base that `start` allows. With it, how many entries image and snapshots say were durable
    /// once, and whether there is a doubt about the image.
    fn best(&self, start: Start) -> Result<(Replayed, u64, bool), OpenError> {
        let folder = snapshots_folder(&self.options.folder);
        let snapshots = snapshot::list(&folder).map_err(OpenError::io("listing the snapshots"))?;
        let origin = verifier::sha256(&[self.options.origin.as_bytes()]);
        let heads = snapshots.iter().filter_map(|listed| snapshot::head(&listed.path, &origin).ok());
        let mut covered = heads.map(|(meta, _)| meta.covers).max().unwrap_or(0);
        let mut doubt = false;
        // An image that is to be deleted is asked too.
        if self.options.image || start != Start::Image {
            match self.of_image(start, &mut covered) {
                Ok(Some(replayed)) => return Ok((replayed, covered, false)),
                Ok(None) => {}
                Err(why) => {
                    tracing::error!(doubt = %why, "the restart image cannot be used");
                    doubt = start == Start::Image;
                }
            }
        }
        let use_snapshots = self.options.image && start != Start::Zero;
        let replayed = match if use_snapshots { self.of_snapshots(&snapshots) } else { None } {
            Some(replayed) => replayed,
            None => self.of_zero()?,
        };
        Ok((replayed, covered, doubt))
    }

    fn state(&self) -> Arc<State> {
        let state = State::new(Arc::clone(self.crypt), self.options.idempotency_per_organisation);
        self.crypt.begin_epoch(state.epoch());
        Arc::new(state)
    }

    /// `None` when there is no image, or it is not to be used. The error says what is doubtful about it; it may as well be
    /// the journal. `covered` becomes the entries that it covers, if those are more.
    fn of_image(&self, start: Start, covered: &mut u64) -> Result<Option<Replayed>, Doubt> {
        let options = self.options;
        let store = store_folder(&options.folder);
        if !store.join(options.engine.name()).exists() {
            return Ok(None);
        }
        if let Some(probe) = &options.probe {
            probe(&options.folder, options.engine).map_err(StoreError::Probe)?;
        }
        let mut see = |meta: &Meta| *covered = meta.covers.max(*covered);
        if start != Start::Image {
            image::head(&store, options.engine, &options.origin)?.iter().for_each(see);
            return Ok(None);
        }
        let state = self.state();
        let opened = Image::open(&store, options.engine, &options.origin, &state, &mut see)?;
        let Loaded { image, meta: Some(meta), digest } = opened else { return Ok(None) };
        let mut tally = Tally::of_image(&image, digest, &meta);
        let Ran { end, slots, replayed } =
            self.run::<Doubt>(&state, &meta.cursor, &mut |applied, frame| {
                let seal = (frame.head.kind == Kind::Seal).then_some(frame.size);
                tally.follow(&state, &applied.changed, seal);
                // A digest of a moment before the image says nothing about the image.
                for logged in &applied.logged {
                    if tally.compare(logged)? == Comparison::Different {
                        return Err(StoreError::Doubtful("not the state whose digest the journal has").into());
                    }
                }
                Ok(())
            })?;
        let image = Some(image);
        Ok(Some(Replayed { state, image, from: meta.cursor, slots, end, replayed, base: Base::Image }))
    }

    /// `None` when no snapshot can be used.
    fn of_snapshots(&self, listed: &[snapshot::Listed]) -> Option<Replayed> {
        for listed in listed.iter().rev() {
            match self.of_snapshot(&listed.path) {
                Ok(replayed) => return Some(replayed),
                Err(why) => tracing::warn!(size = listed.size, %why, "a snapshot is passed over"),
            }
        }
        None
    }

    fn of_snapshot(&self, path: &Path) -> Result<Replayed, Doubt> {
        let origin = verifier::sha256(&[self.options.origin.as_bytes()]);
        let state = self.state();
        let (meta, digest) = snapshot::load(path, &origin, &state)?;
        let expected = StateDigest { size: meta.covers, digest };
        let mut confirmed = false;
        let Ran { end, slots, replayed } = self.run::<Doubt>(&state, &meta.cursor, &mut |applied, _| {
            confirmed |= applied.logged.contains(&expected);
            Ok(())
        })?;
        if !confirmed {
            return Err(StoreError::Doubtful("not confirmed by the journal").into());
        }
        let base = Base::Snapshot(meta.covers);
        Ok(Replayed { state, image: None, from: meta.cursor, slots, end, replayed, base })
    }

    fn of_zero(&self) -> Result<Replayed, OpenError> {
        let state = self.state();
        let Ran { end, slots, replayed } =
            self.run(&state, &Cursor::start(), &mut |_, _| Ok::<_, OpenError>(()))?;
        Ok(Replayed { state, image: None, from: Cursor::start(), slots, end, replayed, base: Base::Zero })
    }

    /// Replays the journal from a cursor into the state, and gives every living holder its key. `visit` gets each frame with what it changed.
    fn run<E: From<OpenError>>(
        &self,
        state: &State,
        from: &Cursor,
        visit: &mut VisitApplied<'_, E>,
    ) -> Result<Ran, E> {
        let (mut slots, mut replayed) = (FxHashSet::default(), 0);
        let end = self.found.replay::<E>(self.crypt, state, from, &mut |changes, frame| {
            visit(changes, frame)?;
            slots.extend(changes.changed.iter());
            replayed += u64::from(frame.head.count);
            (self.progress)(frame.size);
            Ok(())
        })?;
        self.epochs.complete(self.crypt, state)?;
        Ok(Ran { end, slots, replayed })
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

/// The effects of a frame's entries.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) changed: Vec<Slot>,
    /// Digests of the state that were logged.
    pub(crate) logged: Vec<StateDigest>,
    /// Entries that came to holders' own sequences.
    pub(crate) heads: Vec<Grown>,
    /// Index roots that were logged: their index and their text.
    pub(crate) index_roots: Vec<(u64, String)>,
}

impl Changes {
    pub(crate) fn clear(&mut self) {
        self.changed.clear();
        self.logged.clear();
        self.heads.clear();
        self.index_roots.clear();
    }
}

/// Brings the tiles up to a journal that is accepted: what they lack is taken from its frames once more, from where
/// replay began, or from a snapshot before it, for which they were synced, or from the first frame; from there in any case
/// without a `from`.
fn bring_up_tiles(
    tiles: &Arc<Tiles>,
    found: &Found,
    data: &Path,
    from: Option<Cursor>,
    end: &End,
) -> Result<tiles::Writer, OpenError> {
    let io = || OpenError::io("bringing the tiles up to date");
    let Some(from) = from else {
        let writer = tiles::Writer::restart(Arc::clone(tiles)).map_err(io())?;
        return append_tiles(writer, found, &Cursor::start());
    };
    let origin = verifier::sha256(&[found.journal.key.name().as_bytes()]);
    let snapshots = snapshot::list(&snapshots_folder(data)).unwrap_or_default();
    let heads = snapshots.iter().rev().filter_map(|listed| snapshot::head(&listed.path, &origin).ok());
    let heads: Vec<Cursor> = heads.map(|(meta, _)| meta.cursor).collect();
    // A power cut may have left anything of what was written later.
    let synced = heads.first().map_or(0, |newest| newest.frontier.size());
    let resume = |at: &Cursor| {
        let (size, root) = (at.frontier.size(), at.frontier.root());
        tiles::Writer::resume(Arc::clone(tiles), size, &root, synced).unwrap_or(None)
    };
    if let Some(writer) = resume(&end.cursor) {
        return Ok(writer);
    }
    let first = from.frame;
    let earlier = heads.into_iter().filter(|cursor| cursor.frame < first);
    let mut resumed = std::iter::once(from).chain(earlier).find_map(|at| Some((resume(&at)?, at)));
    // Tiles that do not fit are made again from the first frame on.
    let (writer, start) = match resumed.take() {
        Some(resumed) => resumed,
        None => (tiles::Writer::restart(Arc::clone(tiles)).map_err(io())?, Cursor::start()),
    };
    append_tiles(writer, found, &start)
}

fn append_tiles(
    mut writer: tiles::Writer,
    found: &Found,
    start: &Cursor,
) -> Result<tiles::Writer, OpenError> {
    found.walk::<OpenError>(start, &mut |_, frame, hashes| {
        let leaves: Vec<_> = frame.leaves().copied().collect();
        writer.append(&leaves, hashes).map_err(OpenError::io("bringing the tiles up to date"))
    })?;
    Ok(writer)
}

/// Opens the state part of a group frame.
pub(crate) fn open_state(crypt: &Crypt, frame: &Frame<'_>) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    crypt
        .open_state(frame.state, frame.head.day, frame.head.number)
        .map_err(|_| OpenError::Keys("the journal key does not open the journal"))
}

/// Takes an entry of a frame with its leaf's kind; what it finds wrong is an error at the frame.
pub(crate) type VisitEntry<'a, E> =
    dyn FnMut(LeafKind, &EntryPlain<'_>, &dyn Fn(&'static str) -> OpenError) -> Result<(), E> + 'a;

/// Opens a frame's state part and gives its entries to `visit`, each of them what its leaf commits to.
pub(crate) fn opened_entries<E: From<OpenError>>(
    crypt: &Crypt,
    position: Position,
    frame: &Frame<'_>,
    visit: &mut VisitEntry<'_, E>,
) -> Result<(), E> {
    if frame.head.kind == Kind::Seal {
        return Ok(());
    }
    let corrupt =
        |why| OpenError::Corrupt { segment: position.segment(), offset: position.offset().into(), why };
    let plain = open_state(crypt, frame)?;
    let mut rest = plain.as_slice();
    for (leaf, (offset, length)) in frame.leaves().zip(frame.subjects()) {
        let entry = EntryPlain::read(&mut rest).map_err(|error| corrupt(error.0))?;
        let kind = kind_of_leaf(leaf).ok_or_else(|| corrupt("a leaf of an unknown kind"))?;
        let earlier = frame.format == format1::NUMBER;
        let made = if earlier { format1::leaf_of(kind, &entry) } else { leaf_of(kind, &entry) };
        if made.as_ref() != Some(leaf) {
            return Err(corrupt("an entry is not what its leaf commits to").into());
        }
        // The chain of frames leaves the parts to the leaves; in the format before this one it did not.
        let parts = &frame.bytes[offset..offset + length];
        if !earlier && !are_committed(kind, entry.open, parts) {
            return Err(corrupt("the subject parts are not those that the entry commits to").into());
        }
        visit(kind, &entry, &corrupt)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(corrupt("the state part is longer than its entries").into()) }
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
    let mut parts = Vec::new();
    let mut places = (frame.head.first_index..).zip(frame.subjects()).zip(hashes);
    opened_entries(crypt, position, frame, &mut |kind, entry, corrupt| {
        let ((index, (offset, length)), hash) =
            places.next().ok_or_else(|| corrupt("a leaf without its parts"))?;
        if kind == LeafKind::Entry && stamp(entry.open) != Some((index, frame.head.time_ms)) {
            return Err(corrupt("an entry has another index or time than its frame"));
        }
        let record = Record::decode(entry.record).map_err(|error| corrupt(error.0))?;
        let completion = Completion::decode(entry.completion, &record).map_err(|error| corrupt(error.0))?;
        parts.clear();
        let offsets = frame::part_offsets(frame.bytes, offset, length)
            .ok_or_else(|| corrupt("a subject part overlaps the next"))?;
        parts.extend(
            offsets.iter().map(|at| Position::new(position.segment(), position.offset() + *at as u32)),
        );
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
        if kind == LeafKind::IndexRoot {
            changes.index_roots.push((index, String::from_utf8_lossy(entry.open).into_owned()));
        }
        if !completion.delayed {
            let links = completion.links.iter().zip(&record.concerned);
            changes.heads.extend(links.map(|(link, label)| Grown {
                index,
                label: *label,
                count: link.sequence,
                last_leaf: *hash,
            }));
        }
        Ok(())
    })
}
