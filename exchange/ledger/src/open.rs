//! Opening a ledger: recovers the journal, starts the threads that own its parts and gives out the handle; and the rebuild of what
//! is derived.
//!
//! Called by one thread, which holds the journal's lock from the recovery on and leaves it to the ledger's threads. A crash within
//! it leaves what README.md says of `open` in the table of files.

use crate::{
    commit::{followers::Followers, sequencer::Sequencer},
    derive::{
        feed::Feed,
        image::Follower,
        index::{Change, Index},
        scrub::{Scrub, ScrubTask},
        tiles::{self, Tiles},
    },
    disk::{Disk, Lock},
    error::OpenError,
    folder::journal_folder,
    health::{Derived, Failing, Stop},
    hosted::{files::Files, follow::Feed as RowsFeed, index::Writer, rows::Rows},
    journal::{
        clock::Clock,
        current::Current,
        guard::Released,
        segment::{Folders, Keeper, KeeperTask, Reader, is_archived},
    },
    keys::{
        crypt::{Crypt, KeyedHash},
        epoch::Rotation,
        secrets::LedgerKeys,
    },
    ledger::{Inner, Ledger},
    names::Hash,
    options::Options,
    start::recovery::{self, Opened, Recovered, Start},
    state::{Counts, State},
    thread::Threads,
};
use crossbeam_channel::{Receiver, bounded, unbounded};
use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};
use verifier::{
    leaf::{LEAF_BYTES, LeafKind},
    note::VerifierKey,
};

impl Ledger {
    /// Opens the journal in `options.folder`, or begins one: takes the lock, verifies and replays the journal,
    /// copies its unsealed tail into a new segment and starts the threads. Blocks while it does.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing of the journal is changed when it is refused.
    pub fn open(options: Options, keys: LedgerKeys) -> Result<(Self, Opened), OpenError> {
        open_from(options, keys, Start::Image, &|_| {}, in_thread)
    }

    /// Like [`Ledger::open`], with the sequencer in the caller's hands (crate feature `sim`): nothing is committed but by
    /// [`ByHand::step`](crate::ByHand::step).
    ///
    /// # Errors
    /// See [`OpenError`].
    #[cfg(feature = "sim")]
    pub fn open_by_hand(
        options: Options,
        keys: LedgerKeys,
    ) -> Result<(Self, crate::commit::sequencer::ByHand), OpenError> {
        let mut by_hand = None;
        let (ledger, _) = open_from(options, keys, Start::Image, &|_| {}, |sequencer, _| {
            by_hand = Some(crate::commit::sequencer::ByHand::new(sequencer));
            Ok(())
        })?;
        Ok((ledger, by_hand.ok_or(OpenError::Options("the sequencer was not started"))?))
    }
}

/// Starts the sequencer's thread.
fn in_thread(sequencer: Sequencer, threads: &mut Threads) -> Result<(), OpenError> {
    threads.guarded("sequencer", move || sequencer.run())
}

/// Hosted rows as recovery found them.
struct Hosted {
    files: Files,
    writer: Writer,
}

/// Hosted rows, and the thread that publishes what is committed of them.
fn hosted_rows(
    hosted: Hosted,
    crypt: &Arc<Crypt>,
    state: &Arc<State>,
    keeper: &Arc<Keeper>,
    stop: &Arc<Stop>,
    lock: &Lock,
    threads: &mut Threads,
) -> Result<(Rows, RowsFeed), OpenError> {
    let Hosted { files, writer } = hosted;
    let (rows, feed, follower) = Rows::new(files, writer, crypt, state, keeper, stop, lock);
    threads.guarded("rows", holding(lock, move || follower.run()))?;
    Ok((rows, feed))
}

/// Opens, tells `progress` how many entries are done, and lets the sequencer go with `run`.
fn open_from(
    options: Options,
    keys: LedgerKeys,
    start: Start,
    progress: &dyn Fn(u64),
    run: impl FnOnce(Sequencer, &mut Threads) -> Result<(), OpenError>,
) -> Result<(Ledger, Opened), OpenError> {
    let recovered = recovery::recover(&options, &keys, start, progress)?;
    let Recovered { disk, lock, crypt, state, signer, durable_epoch, tiles, opened, .. } = recovered;
    let stop = Arc::new(Stop::new(options.on_fatal));
    let failing = Arc::new(Failing::new());
    failing.set(Derived::Image, options.image && recovered.image.is_none());
    let mut threads = Threads::new(&stop, &failing);
    let keeper = watch(&*disk, recovered.files, &recovered.current)?;
    // Known before the first command comes.
    let task = keeper_task(&options, &keeper, &disk, &stop, &lock);
    task.watch();
    threads.guarded("keeper", move || task.run())?;
    let closed = Arc::new(AtomicBool::new(is_closed(&tiles, opened.size)?));
    let durable = Arc::new(AtomicU64::new(opened.size));
    let (sender, receiver) = bounded(options.queue);
    let (tiles_sender, tiles_receiver) = bounded(tiles::QUEUE);
    let (feed, fed) = Feed::new(Arc::clone(&failing));
    let folders = Folders::new(disk, &options);
    let reader = Arc::new(Reader::new(folders.clone()));

    // Each thread that may write to the data folder holds the lock until it ends.
    let released = Arc::new(Released::new(recovered.cursor.mark()));
    let (guard_ends, ended) = bounded(0);
    let (read, stopped) = (Arc::clone(&released), Arc::clone(&stop));
    let task = move || recovered.guard.follow(&read, &ended, &stopped);
    threads.guarded("guard", holding(&lock, task))?;
    let (from, told, hooks) = (Arc::clone(&reader), Arc::clone(&failing), options.hooks.clone());
    let task = move || recovered.writer.follow(&tiles_receiver, &from, &told, &hooks);
    threads.derived(Derived::Tiles, holding(&lock, task))?;
    let followed = match recovered.image {
        Some(image) => {
            let covered = opened.size - opened.replayed;
            let (state, tiles) = (Arc::clone(&state), Arc::clone(&tiles));
            let (cursor, slots) = (recovered.cursor.clone(), recovered.slots);
            let (follower, followed) =
                Follower::new(&options, image, fed, state, tiles, cursor, slots, covered);
            threads.derived(Derived::Image, holding(&lock, move || follower.run()))?;
            Some(followed)
        }
        None => None,
    };
    let scrub = Arc::new(Scrub::default());
    let task = scrub_task(&options, &scrub, folders, &reader, &tiles, &signer.key);
    threads.derived(Derived::Scrub, move || task.run())?;

    let found = Hosted { files: recovered.row_files, writer: recovered.rows };
    let (rows, rows_feed) = hosted_rows(found, &crypt, &state, &keeper, &stop, &lock, &mut threads)?;
    let index = options.index_roots.map(|every| (every, Arc::new(Index::new(&state.heads(), opened.size))));
    let (index_sender, index_receiver) = unbounded();
    let verifier_key = signer.key.clone();
    let rotation =
        Rotation::new(Arc::clone(&keys.epochs), &options.origin, durable_epoch, Arc::downgrade(&lock));
    let index_sender = index.is_some().then_some(index_sender);
    let sequencer = Sequencer {
        receiver,
        crypt: Arc::clone(&crypt),
        state: Arc::clone(&state),
        signer,
        current: recovered.current,
        cursor: recovered.cursor,
        keeper: Arc::clone(&keeper),
        stop: Arc::clone(&stop),
        followers: Followers::new(tiles_sender, feed, index_sender, verifier_key.clone()),
        rows: rows_feed,
        released,
        guard_ends,
        durable: Arc::clone(&durable),
        closed: Arc::clone(&closed),
        group_entries: options.group_entries,
        group_bytes: options.group_bytes,
        clock: Clock::new(options.hooks.now_ms()),
        hooks: options.hooks.clone(),
        lock,
    };
    run(sequencer, &mut threads)?;

    let ledger = Ledger(Arc::new(Inner {
        sender,
        group_bytes: options.group_bytes,
        crypt,
        keyed: KeyedHash::new(&keys.index),
        state,
        reader,
        rows,
        scrub,
        failing,
        tiles,
        verifier_key,
        keeper,
        stop,
        durable,
        closed,
        image: followed,
        rotation,
        index: index.as_ref().map(|(_, index)| Arc::clone(index)),
        hooks: options.hooks,
        threads: Mutex::default(),
    }));
    if let Some((every, index)) = index {
        follow_with_index(&ledger, &mut threads, index, index_receiver, every)?;
    }
    *ledger.0.threads.lock().unwrap_or_else(PoisonError::into_inner) = threads.started();
    Ok((ledger, opened))
}

/// A task that holds the journal's lock until it ends.
fn holding<F: FnOnce()>(lock: &Lock, run: F) -> impl FnOnce() + use<F> {
    let held = Arc::clone(lock);
    move || {
        run();
        drop(held);
    }
}

/// Starts the thread that keeps the map over all holders, and commits its root.
fn follow_with_index(
    ledger: &Ledger,
    threads: &mut Threads,
    index: Arc<Index>,
    changes: Receiver<Change>,
    every: Duration,
) -> Result<(), OpenError> {
    // A strong handle in the thread would keep the sequencer from ending with the last one.
    let weak = Arc::downgrade(&ledger.0);
    threads.derived(Derived::Index, move || {
        index.follow(&changes, every, |prepared| {
            weak.upgrade().and_then(|inner| Ledger(inner).commit_blocking(prepared))
        });
    })
}

/// The keeper's task.
fn keeper_task(
    options: &Options,
    keeper: &Arc<Keeper>,
    disk: &Arc<dyn Disk>,
    stop: &Arc<Stop>,
    lock: &Lock,
) -> KeeperTask {
    KeeperTask {
        keeper: Arc::clone(keeper),
        disk: Arc::clone(disk),
        folder: journal_folder(&options.folder),
        segment_bytes: options.segment_bytes,
        reserve_percent: options.reserve_percent,
        reserve_segments: options.reserve_segments,
        hooks: options.hooks.clone(),
        stop: Arc::clone(stop),
        lock: Arc::clone(lock),
    }
}

/// The scrub's task.
fn scrub_task(
    options: &Options,
    scrub: &Arc<Scrub>,
    folders: Folders,
    reader: &Arc<Reader>,
    tiles: &Arc<Tiles>,
    key: &VerifierKey,
) -> ScrubTask {
    ScrubTask {
        scrub: Arc::clone(scrub),
        folders,
        reader: Arc::clone(reader),
        tiles: Arc::clone(tiles),
        key: key.clone(),
        bytes_per_second: options.scrub_bytes_per_second,
    }
}

/// The keeper, which looks after the journal's files from now on.
fn watch(disk: &dyn Disk, files: Vec<PathBuf>, current: &Current) -> Result<Arc<Keeper>, OpenError> {
    let keeper = Arc::new(Keeper::new(current.number + 1));
    for file in files {
        let watched = keeper.watch_over(disk, file.clone());
        // A segment may have been archived since it was listed.
        if watched.is_err() && is_archived(disk, &file) {
            continue;
        }
        watched.map_err(OpenError::io("looking at the journal's files"))?;
    }
    Ok(keeper)
}

/// Whether the log's last leaf closes it. The tiles hold every leaf by now, checked against the journal.
fn is_closed(tiles: &Tiles, size: u64) -> Result<bool, OpenError> {
    let Some(last) = size.checked_sub(1) else { return Ok(false) };
    let leaf: [u8; LEAF_BYTES] = tiles.leaf(last).map_err(OpenError::io("reading the last leaf"))?;
    Ok(leaf[1] == LeafKind::ShardClose.number())
}

/// The result of a rebuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// Entries in the log.
    pub size: u64,
    /// Entries replayed: all there are, without a snapshot.
    pub replayed: u64,
    /// Size of the snapshot that replay began at; `None` when it began with the first entry.
    pub from_snapshot: Option<u64>,
    /// The number of values in the state.
    pub counts: Counts,
    /// Digest of the state, the same for every way it can come about.
    pub state_digest: Hash,
}

/// Where a rebuild begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebuildFrom {
    /// At the newest snapshot whose digest the journal confirms. Tiles that fit the journal stay.
    Snapshot,
    /// At the first entry; the tiles are made again too.
    Zero,
}

/// Deletes the restart image and makes it again from the journal. `progress` gets the entries done so far. It refuses
/// what a start would refuse, and then deletes nothing.
///
/// The published checkpoint stays: it is what a rolled-back journal is noticed by.
///
/// # Errors
/// [`OpenError`], also [`OpenError::Locked`] while a gateway runs.
pub fn rebuild(
    options: Options,
    keys: LedgerKeys,
    from: RebuildFrom,
    progress: &dyn Fn(u64),
) -> Result<Rebuilt, OpenError> {
    let start = match from {
        RebuildFrom::Snapshot => Start::Snapshot,
        RebuildFrom::Zero => Start::Zero,
    };
    let (ledger, opened) = open_from(options, keys, start, progress, in_thread)?;
    let rebuilt = Rebuilt {
        size: opened.size,
        replayed: opened.replayed,
        from_snapshot: opened.from_snapshot,
        counts: ledger.state().counts(),
        state_digest: ledger.state().digest(),
    };
    ledger.close();
    Ok(rebuilt)
}
