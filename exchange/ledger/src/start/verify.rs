//! Checking a journal from the outside, without its lock and without changing it.
//!
//! Any process may call it, beside a gateway too. It writes no file of the ledger, so a crash leaves nothing.

use crate::{
    derive::{
        image::{Image, Loaded},
        index::Recount,
        snapshot,
        store::StoreError,
        tally::{Comparison, Tally},
        tiles::Comparing,
    },
    disk::RealDisk,
    error::OpenError,
    folder::{is_served, lock, snapshots_folder, store_folder, tiles_folder},
    hosted::{check, files::Files},
    journal::{
        cursor::Cursor,
        format1,
        frame::Kind,
        record::{Record, StateDigest},
        segment::Folders,
    },
    keys::{
        crypt::Crypt,
        secrets::LedgerKeys,
        signer::{LogSigner, signer},
    },
    names::Hash,
    options::Options,
    start::{
        recovery::{Changes, Found, apply_frame, opened_entries, published},
        walk::Reading,
    },
    state::State,
};
use std::{collections::BTreeMap, io, sync::Arc};
use verifier::{
    checkpoint::Checkpoint,
    leaf::{LeafKind, Open},
};

/// How often a journal that is being written is looked at before what seems wrong counts as wrong.
const LOOKS: usize = 5;
const TILES: &str = "reading the tiles";

/// The findings of [`verify_log`] in a journal whose frames are all good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogReport {
    /// Entries; all their frames are whole and verified.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
    /// Frames, seals included.
    pub frames: u64,
    /// Segments with frames.
    pub segments: usize,
    /// Bytes that are no frame stand at the end: an unfinished write. No loss; nobody was answered from it. Never said
    /// of a journal that is being written.
    pub torn_tail: bool,
    /// Digest of the state that replay gives.
    pub state_digest: Hash,
    /// Size of the published checkpoint that the journal confirms; `None` when there is none that can be read.
    pub published: Option<u64>,
    /// Digests of the state that were logged; all are right but those among the problems.
    pub logged_digests: u64,
    /// Index roots that were logged; all are right but those among the problems.
    pub index_roots: u64,
    /// From this leaf on the tiles are not what the journal says, and that is no problem: they were not synced since, a
    /// power cut leaves them so, and the next start makes them again. Never said of a log that is served.
    pub tiles_from: Option<u64>,
    /// Snapshot files that hold the state that the journal makes.
    pub snapshots: usize,
    /// Segments of hosted rows in force; each file is the one that was committed.
    pub row_segments: usize,
    /// The restart image.
    pub image: ImageFound,
    /// Derived parts that are not what the journal says. Deleting it makes it right.
    pub problems: Vec<String>,
    /// Derived parts that could not be looked at, and why: nothing is said of them.
    pub not_looked_at: Vec<String>,
}

/// How a restart image compares with the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFound {
    /// There is none.
    Absent,
    /// A gateway has it open; only one process can.
    InUse,
    /// It cannot be opened here: an engine opens for writing only.
    NotLookedAt,
    /// It gives the state that the journal makes.
    Good,
    /// It does not; see the problems.
    Bad,
}

/// Looks at a journal that a gateway may be writing.
pub(crate) fn look(
    options: &Options,
    signer: &LogSigner,
    published: Option<&Checkpoint>,
    reading: Reading,
) -> Result<Found, OpenError> {
    let look = || {
        let folders = Folders::new(Arc::new(RealDisk), options);
        Found::look(folders, signer, published.cloned(), reading)
    };
    // A segment that is begun while the folder is read may be seen in neither of its forms. A damaged one is so at
    // every look.
    (1..LOOKS).fold(look(), |found, _| found.or_else(|_| look()))
}

/// Checks a journal without changing anything and without its lock: every frame, the tree, the signatures, the
/// state parts and what they commit to, the files of hosted rows, the published checkpoint, the digests of the state and the
/// index roots that were logged, the tiles and entry bundles, the snapshots, and, when no gateway has it open, the restart image. `progress` gets
/// the entries done so far.
///
/// Beside a running gateway it sees the journal of the moment. Needs about 100 bytes of memory for each license,
/// holder, grant and counter beside the state itself, 56 more for each holder, and at most 64 MiB.
///
/// # Errors
/// The first thing that is wrong with the journal, also [`OpenError::RolledBack`] when an image or a snapshot was made of more;
/// everything that `progress` was told before it is right.
pub fn verify_log(
    options: Options,
    keys: LedgerKeys,
    mut progress: impl FnMut(u64),
) -> Result<LogReport, OpenError> {
    let signer = signer(&options, &keys)?;
    let crypt = Arc::new(Crypt::new(&options.origin, &keys));
    let state = State::new(Arc::clone(&crypt), options.idempotency_per_organisation);
    let (mut problems, mut not_looked_at) = (Vec::new(), Vec::new());
    // Read before the journal: a gateway that runs beside may only be ahead of them.
    let served = is_served(&options.folder);
    let published = published(&options.folder, &signer.key);
    let mut snapshots = snapshots(&options, &mut problems, &mut not_looked_at)?;
    let mut tiles = Comparing::open(&tiles_folder(&options.folder)).map_err(OpenError::io(TILES))?;
    let held = check::held(&options.folder)?;
    let found = look(&options, &signer, published.as_ref(), Reading::Check)?;
    let mut changes = Changes::default();
    let (mut tally, mut recount) = (Tally::empty(), Recount::new());
    let (mut logged_digests, mut index_roots, mut good_snapshots, mut synced) = (0, 0, 0, 0);
    let end = found.walk(&Cursor::start(), &mut |position, frame, hashes| {
        changes.clear();
        apply_frame(&crypt, &state, position, frame, hashes, &mut changes)?;
        let seal = (frame.head.kind == Kind::Seal).then_some(frame.size);
        tally.follow(&state, &changes.changed, seal);
        for logged in &changes.logged {
            logged_digests += 1;
            match tally.compare(logged) {
                Ok(Comparison::Same) => {}
                Ok(Comparison::Different) => {
                    problems.push(format!("the digest logged at size {} is another", logged.size))
                }
                // Without an image there is no store to fail.
                Ok(Comparison::Unknown) | Err(_) => {
                    problems.push(format!("a digest was logged for size {}, no seal", logged.size))
                }
            }
        }
        changes.heads.drain(..).for_each(|grown| recount.grow(grown));
        for (index, text) in &changes.index_roots {
            index_roots += 1;
            if let Err(wrong) = recount.compare(*index, text) {
                problems.push(format!("the index root at index {index} is {wrong}"));
            }
        }
        let leaves: Vec<_> = frame.leaves().copied().collect();
        tiles.follow(&leaves, hashes).map_err(OpenError::io(TILES))?;
        if let Some(digest) = seal.and_then(|size| snapshots.remove(&size)) {
            if tally.at(frame.size).is_ok_and(|found| found == Some(digest)) {
                good_snapshots += 1;
                synced = frame.size;
            } else {
                problems.push(format!("the snapshot of size {} is not the state of the journal", frame.size));
            }
        }
        progress(frame.size);
        Ok::<_, OpenError>(())
    })?;
    let size = end.cursor.frontier.size();
    if let Some((ahead, _)) = snapshots.last_key_value().filter(|(ahead, _)| **ahead > size) {
        return Err(OpenError::RolledBack { published: *ahead, journal: size });
    }
    problems.extend(
        snapshots.keys().map(|size| format!("the journal has no seal for the snapshot of size {size}")),
    );
    let mut tiles_from = None;
    for (leaf, text) in tiles.wrong(published.as_ref().map_or(0, |published| published.size)) {
        if served || leaf < synced {
            problems.push(text);
        } else {
            tiles_from = Some(tiles_from.map_or(leaf, |from: u64| from.min(leaf)));
        }
    }
    let row_files = Files::new(Arc::new(RealDisk), &options.folder, &options.origin);
    let row_segments = check::verify(&row_files, &state)?;
    drop(held);
    let state_digest = state.digest();
    let image = match image(&options, &crypt, &signer, &end.cursor, state_digest) {
        Ok(found) => found,
        Err(ImageProblem::Journal(error @ OpenError::RolledBack { .. })) => return Err(error),
        Err(ImageProblem::Journal(OpenError::Io { error, .. })) | Err(ImageProblem::Closed(error)) => {
            not_looked_at.push(format!("the restart image: {error}"));
            ImageFound::NotLookedAt
        }
        Err(error) => {
            problems.push(format!("the restart image: {error}"));
            ImageFound::Bad
        }
    };
    Ok(LogReport {
        size,
        root: end.cursor.frontier.root(),
        frames: end.cursor.frame,
        segments: found.segments(),
        torn_tail: end.torn && !served,
        state_digest,
        published: published.map(|published| published.size),
        logged_digests,
        index_roots,
        tiles_from,
        snapshots: good_snapshots,
        row_segments,
        image,
        problems,
        not_looked_at,
    })
}

/// Reads the snapshots: size and digest of those that are whole.
fn snapshots(
    options: &Options,
    problems: &mut Vec<String>,
    not_looked_at: &mut Vec<String>,
) -> Result<BTreeMap<u64, Hash>, OpenError> {
    let origin = verifier::sha256(&[options.origin.as_bytes()]);
    let listed =
        snapshot::list(&snapshots_folder(&options.folder)).map_err(OpenError::io("listing the snapshots"))?;
    let mut found = BTreeMap::new();
    for listed in listed {
        match snapshot::read(&listed.path, &origin, &mut |_, _| Ok(())) {
            Ok((meta, digest)) if meta.covers == listed.size => drop(found.insert(listed.size, digest)),
            Ok(_) => problems.push(format!("the snapshot of size {} has another name", listed.size)),
            // Two are kept: this one was the third.
            Err(StoreError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(StoreError::Io(error)) if error.kind() != io::ErrorKind::UnexpectedEof => {
                not_looked_at.push(format!("the snapshot of size {}: {error}", listed.size));
            }
            Err(error) => problems.push(format!("the snapshot of size {}: {error}", listed.size)),
        }
    }
    Ok(found)
}

/// Compares the restart image with the digest that the journal gives after its last frame.
fn image(
    options: &Options,
    crypt: &Arc<Crypt>,
    signer: &LogSigner,
    end: &Cursor,
    expected: Hash,
) -> Result<ImageFound, ImageProblem> {
    let store = store_folder(&options.folder);
    let engine = store.join(options.engine.name());
    if !engine.exists() {
        return Ok(ImageFound::Absent);
    }
    // Asked before the lock, which is waited for.
    if is_served(&options.folder) {
        return Ok(ImageFound::InUse);
    }
    // Held only for this: a gateway that starts meanwhile waits a second and is then refused.
    let _lock = match lock(&RealDisk, &options.folder) {
        Err(OpenError::Locked) => return Ok(ImageFound::InUse),
        lock => lock?,
    };
    rustix::fs::access(&engine, rustix::fs::Access::WRITE_OK)
        .map_err(|error| ImageProblem::Closed(error.into()))?;
    if let Some(probe) = &options.probe {
        probe(&options.folder, options.engine).map_err(StoreError::Probe)?;
    }
    let found = look(options, signer, None, Reading::Check)?;
    let now = found.walk(end, &mut |_, _, _| Ok::<_, OpenError>(()));
    if !now.is_ok_and(|now| now.cursor.frame == end.frame) {
        // A gateway ran in between.
        return Ok(ImageFound::InUse);
    }
    let (state, mut covers) = (State::new(Arc::clone(crypt), options.idempotency_per_organisation), 0);
    let opened =
        Image::open(&store, options.engine, &options.origin, &state, &mut |meta| covers = meta.covers);
    let journal = end.frontier.size();
    if covers > journal {
        return Err(OpenError::RolledBack { published: covers, journal }.into());
    }
    let Loaded { meta: Some(meta), .. } = opened? else { return Ok(ImageFound::Absent) };
    let mut changes = Changes::default();
    found.walk(&meta.cursor, &mut |position, frame, hashes| {
        changes.clear();
        apply_frame(crypt, &state, position, frame, hashes, &mut changes)
    })?;
    if state.digest() != expected {
        return Err(StoreError::Doubtful("not the state of the journal").into());
    }
    Ok(ImageFound::Good)
}

/// Why an image is not good.
#[derive(Debug, thiserror::Error)]
enum ImageProblem {
    #[error(transparent)]
    Journal(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing may be written there.
    #[error(transparent)]
    Closed(io::Error),
}

/// One entry as the journal holds it, read with the journal key.
#[derive(Debug)]
pub struct Entry {
    /// The part that the caller may know; its index and time are complete.
    pub open: Open,
    /// The part that replay needs and insiders may know, the internal reason of a refusal among it.
    pub record: Record,
}

/// Where a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Its leaves.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
    /// The last one closes it.
    pub closed: bool,
}

/// Reads every entry of a journal in order, each frame checked as [`verify_log`] does, without changing anything
/// and without its lock. A journal of the format before this one is read, too. Subject parts stay sealed. Gives where the log ends.
///
/// # Errors
/// [`OpenError`]; what came before the first damage was visited.
pub fn entries(options: Options, keys: LedgerKeys, visit: impl FnMut(Entry)) -> Result<Tail, OpenError> {
    read(&options, &keys, Reading::Carry, visit)
}

/// Like [`entries`], of a log that is known to have lost its end, and without asking the guard, which says so too: every entry
/// that there is. Where a log that went back ends nothing in its folder can tell.
///
/// # Errors
/// [`OpenError`]; what came before the first damage was visited.
pub fn entries_of_lost(
    options: Options,
    keys: LedgerKeys,
    visit: impl FnMut(Entry),
) -> Result<Tail, OpenError> {
    read(&options, &keys, Reading::Lost, visit)
}

/// Kind and public text of the first leaf of a journal, read without changing anything and without its lock; `None` when
/// there is no leaf yet.
///
/// # Errors
/// [`OpenError`]
pub fn first_leaf(options: &Options, keys: &LedgerKeys) -> Result<Option<(LeafKind, Vec<u8>)>, OpenError> {
    let signer = signer(options, keys)?;
    let crypt = Crypt::new(&options.origin, keys);
    let found = look(options, &signer, None, Reading::Check)?;
    let mut first = None;
    let walked = found.walk(&Cursor::start(), &mut |position, frame, _| {
        opened_entries(&crypt, position, frame, &mut |kind, entry, _| {
            first = Some((kind, entry.open.to_vec()));
            Err(Search::Found)
        })
    });
    match walked {
        Err(Search::Failed(error)) => Err(error),
        Err(Search::Found) | Ok(_) => Ok(first),
    }
}

pub(crate) fn read(
    options: &Options,
    keys: &LedgerKeys,
    reading: Reading,
    mut visit: impl FnMut(Entry),
) -> Result<Tail, OpenError> {
    let signer = signer(options, keys)?;
    let crypt = Crypt::new(&options.origin, keys);
    let found = look(options, &signer, None, reading)?;
    let mut closed = false;
    let end = found.walk(&Cursor::start(), &mut |position, frame, _| {
        opened_entries::<OpenError>(&crypt, position, frame, &mut |kind, entry, corrupt| {
            closed = kind == LeafKind::ShardClose;
            if kind == LeafKind::Entry {
                let open = if frame.format == format1::NUMBER {
                    Open::parse(&format1::open_part(entry.open))
                } else {
                    Open::parse(entry.open)
                };
                visit(Entry {
                    open: open.map_err(|_| corrupt("open"))?,
                    record: Record::decode(entry.record).map_err(|error| corrupt(error.0))?,
                });
            }
            Ok(())
        })
    })?;
    Ok(Tail { size: end.cursor.frontier.size(), root: end.cursor.frontier.root(), closed })
}

/// Whether an entry behind a cursor has this digest of the state.
pub(crate) fn is_logged(
    options: &Options,
    keys: &LedgerKeys,
    from: &Cursor,
    digest: StateDigest,
) -> Result<bool, OpenError> {
    let signer = signer(options, keys)?;
    let crypt = Crypt::new(&options.origin, keys);
    let found = look(options, &signer, None, Reading::Check)?;
    let walked = found.walk(from, &mut |position, frame, _| {
        opened_entries(&crypt, position, frame, &mut |_, entry, corrupt| {
            let record = Record::decode(entry.record).map_err(|error| corrupt(error.0))?;
            if record.state_digest == Some(digest) { Err(Search::Found) } else { Ok(()) }
        })
    });
    match walked {
        Err(Search::Found) => Ok(true),
        Err(Search::Failed(error)) => Err(error),
        Ok(_) => Ok(false),
    }
}

/// Why a search ends early.
enum Search {
    Found,
    Failed(OpenError),
}

impl From<OpenError> for Search {
    fn from(error: OpenError) -> Self {
        Self::Failed(error)
    }
}
