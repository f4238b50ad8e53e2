//! Tiles (C2SP tlog-tiles) in flat files: `tiles/leaves` holds the 34-byte leaves, `tiles/<level>` the hashes of a
//! level. All derived: appended behind the sequencer by a thread of its own, synced only with a snapshot, at start cut to what the
//! journal confirms, checked at their end, and made again when in doubt; the scrub checks and mends the rest. Partial tiles are
//! slices.
//!
//! The scrub alone writes beside that thread. A crash leaves files that are too short, too long or wrong, and an older
//! checkpoint or none.

use crate::{
    error::ReadError,
    health::{Derived, Failing},
    journal::segment::Reader,
    names::Hash,
    options::Hooks,
};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use verifier::{
    leaf::LEAF_BYTES,
    merkle::{leaf_hash, node_hash, root_from},
};

/// Hashes of a full tile; tiles are eight tree levels high.
pub(crate) const TILE_WIDTH: usize = 256;
/// Tile levels that a tree of 2⁶⁴ leaves can have.
pub(crate) const LEVELS: usize = 8;
const HASH_BYTES: usize = 32;
const TREE_LEVELS_PER_TILE: u8 = 8;
/// How often the public checkpoint moves.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);
/// Messages of the sequencer's [`crate::commit::followers`] on their way to the tiles; beyond it the sequencer waits.
pub(crate) const QUEUE: usize = 512;
/// Rest after a write that failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Frames read back before the queue is looked at again.
const CATCH_UP_FRAMES: usize = 256;
/// Read at once of each file that is compared.
const COMPARE_BYTES: usize = 64 << 10;

/// Some groups for the tiles.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) leaves: Vec<[u8; LEAF_BYTES]>,
    pub(crate) hashes: Vec<Hash>,
    /// Tree size after them.
    pub(crate) size: u64,
    /// The signed checkpoint of that size.
    pub(crate) checkpoint: String,
}

/// A checkpoint whose tiles are written, such as the one that the public sees.
pub(crate) struct Published {
    pub(crate) size: u64,
    pub(crate) text: Arc<str>,
}

/// The files, for reading and for the one writer.
pub(crate) struct Tiles {
    folder: PathBuf,
    leaves: File,
    levels: Vec<File>,
    pub(crate) published: RwLock<Published>,
    /// The newest that can be proven from; it becomes public within a second.
    pub(crate) newest: RwLock<Published>,
    /// Leaves that the files hold.
    written: AtomicU64,
}

impl Tiles {
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let file = |name: &str| {
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(folder.join(name))
        };
        Ok(Self {
            folder: folder.to_owned(),
            leaves: file("leaves")?,
            levels: (0..LEVELS).map(|level| file(&level.to_string())).collect::<io::Result<_>>()?,
            published: RwLock::new(Published { size: 0, text: "".into() }),
            newest: RwLock::new(Published { size: 0, text: "".into() }),
            written: AtomicU64::new(0),
        })
    }

    /// Makes the files durable; false when they do not hold `size` leaves yet.
    pub(crate) fn sync(&self, size: u64) -> io::Result<bool> {
        if self.written.load(Ordering::Acquire) < size {
            return Ok(false);
        }
        self.leaves.sync_data()?;
        self.levels.iter().try_for_each(File::sync_data)?;
        Ok(true)
    }

    pub(crate) fn published_size(&self) -> u64 {
        self.published.read().unwrap_or_else(PoisonError::into_inner).size
    }

    pub(crate) fn published_text(&self) -> Arc<str> {
        Arc::clone(&self.published.read().unwrap_or_else(PoisonError::into_inner).text)
    }

    /// The hashes of a tile in the published tree; `None` when it has not that many.
    pub(crate) fn tile(&self, level: u8, index: u64, width: Option<u16>) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.levels.get(usize::from(level)) else { return Ok(None) };
        let available = count_at(level, self.published_size());
        let Some((start, count)) = slice(index, width, available) else { return Ok(None) };
        let mut bytes = vec![0; count * HASH_BYTES];
        file.read_exact_at(&mut bytes, start * HASH_BYTES as u64)?;
        Ok(Some(bytes))
    }

    /// An entry bundle: each leaf behind its length (2 bytes).
    pub(crate) fn entry_bundle(&self, index: u64, width: Option<u16>) -> io::Result<Option<Vec<u8>>> {
        let Some((start, count)) = slice(index, width, self.published_size()) else { return Ok(None) };
        let mut leaves = vec![0; count * LEAF_BYTES];
        self.leaves.read_exact_at(&mut leaves, start * LEAF_BYTES as u64)?;
        let mut bundle = Vec::with_capacity(count * (2 + LEAF_BYTES));
        for leaf in leaves.as_chunks::<LEAF_BYTES>().0 {
            bundle.extend_from_slice(&(LEAF_BYTES as u16).to_be_bytes());
            bundle.extend_from_slice(leaf);
        }
        Ok(Some(bundle))
    }

    /// A leaf, whether it is published or not.
    pub(crate) fn leaf(&self, index: u64) -> io::Result<[u8; LEAF_BYTES]> {
        let mut leaf = [0; LEAF_BYTES];
        self.leaves.read_exact_at(&mut leaf, index * LEAF_BYTES as u64)?;
        Ok(leaf)
    }

    /// The root of a complete subtree, from the nearest stored level below it.
    pub(crate) fn node(&self, level: u8, index: u64) -> io::Result<Hash> {
        let stored = usize::from(level / TREE_LEVELS_PER_TILE);
        let height = u32::from(level % TREE_LEVELS_PER_TILE);
        let file = self.levels.get(stored).ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut bytes = vec![0; HASH_BYTES << height];
        let offset = (index << height).checked_mul(HASH_BYTES as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        file.read_exact_at(&mut bytes, offset)?;
        Ok(fold(bytes.as_chunks().0.to_vec()))
    }

    pub(crate) fn root(&self, size: u64) -> io::Result<Hash> {
        root_from(size, |level, index| self.node(level, index))
    }

    /// Publishes a checkpoint whose tiles are written: in the process, and in `tiles/checkpoint`, by which the next
    /// start notices a journal that was rolled back. Not synced: a lost one only makes that check weaker.
    pub(crate) fn publish(&self, size: u64, text: &str) -> io::Result<()> {
        *self.published.write().unwrap_or_else(PoisonError::into_inner) =
            Published { size, text: text.into() };
        let temporary = self.folder.join("checkpoint.new");
        File::create(&temporary)?.write_all(text.as_bytes())?;
        fs::rename(temporary, checkpoint_path(&self.folder))
    }
}

/// Where the published checkpoint stands.
pub(crate) fn checkpoint_path(folder: &Path) -> PathBuf {
    folder.join("checkpoint")
}

/// Hashes of a tile level in a tree of this size.
fn count_at(level: u8, size: u64) -> u64 {
    size.checked_shr(u32::from(level) * u32::from(TREE_LEVELS_PER_TILE)).unwrap_or(0)
}

/// First item and number of items of a tile, if the level has them.
fn slice(index: u64, width: Option<u16>, available: u64) -> Option<(u64, usize)> {
    let width = width.map_or(TILE_WIDTH, usize::from);
    let start = index.checked_mul(TILE_WIDTH as u64)?;
    let fits = (1..=TILE_WIDTH).contains(&width) && start.checked_add(width as u64)? <= available;
    fits.then_some((start, width))
}

/// Root of a complete tree over a power of two of hashes.
fn fold(mut row: Vec<Hash>) -> Hash {
    while row.len() > 1 {
        row = row.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(left, right)).collect();
    }
    row.first().copied().unwrap_or_default()
}

/// Appends to the files.
pub(crate) struct Writer {
    tiles: Arc<Tiles>,
    size: u64,
    /// Per level the hashes of its last, incomplete tile.
    partial: Vec<Vec<Hash>>,
}

impl Writer {
    /// Empties the files and begins again.
    pub(crate) fn restart(tiles: Arc<Tiles>) -> io::Result<Self> {
        tiles.leaves.set_len(0)?;
        for file in &tiles.levels {
            file.set_len(0)?;
        }
        tiles.written.store(0, Ordering::Release);
        Ok(Self { tiles, size: 0, partial: vec![Vec::new(); LEVELS] })
    }

    /// Goes on after `size` leaves if the files hold them: cuts off what is beyond, checks the last tile of each
    /// level and every full one behind `synced` leaves against what it stands on, and the whole against the journal's
    /// `root`. `None` when anything is short or different.
    pub(crate) fn resume(tiles: Arc<Tiles>, size: u64, root: &Hash, synced: u64) -> io::Result<Option<Self>> {
        if tiles.leaves.metadata()?.len() < size.saturating_mul(LEAF_BYTES as u64) {
            return Ok(None);
        }
        let mut partial = Vec::with_capacity(LEVELS);
        for (level, file) in (0u8..).zip(&tiles.levels) {
            let count = count_at(level, size);
            if file.metadata()?.len() < count.saturating_mul(HASH_BYTES as u64) {
                return Ok(None);
            }
            file.set_len(count * HASH_BYTES as u64)?;
            let last = count - count % TILE_WIDTH as u64;
            partial.push(read_hashes(file, last, (count - last) as usize)?);
            if level > 0 && count > 0 {
                let below = tiles.levels.get(usize::from(level) - 1).ok_or(io::ErrorKind::NotFound)?;
                let covered = read_hashes(below, (count - 1) * TILE_WIDTH as u64, TILE_WIDTH)?;
                if read_hashes(file, count - 1, 1)?.first() != Some(&fold(covered)) {
                    return Ok(None);
                }
            }
        }
        tiles.leaves.set_len(size * LEAF_BYTES as u64)?;
        let checked = size.min(TILE_WIDTH as u64);
        let mut leaves = vec![0; checked as usize * LEAF_BYTES];
        tiles.leaves.read_exact_at(&mut leaves, (size - checked) * LEAF_BYTES as u64)?;
        let hashes: Vec<Hash> =
            leaves.as_chunks::<LEAF_BYTES>().0.iter().map(|leaf| leaf_hash(leaf)).collect();
        let first = tiles.levels.first().ok_or(io::ErrorKind::NotFound)?;
        let same = read_hashes(first, size - checked, checked as usize)? == hashes;
        if !same || tiles.root(size)? != *root {
            return Ok(None);
        }
        for level in 0..LEVELS as u8 {
            let full = |size| count_at(level, size) / TILE_WIDTH as u64;
            for tile in full(synced)..full(size) {
                if !tiles.is_good(level, tile)? {
                    return Ok(None);
                }
            }
        }
        tiles.written.store(size, Ordering::Release);
        Ok(Some(Self { tiles, size, partial }))
    }

    /// Appends leaves. After an error nothing counts as appended; what was written is written again by the next call.
    pub(crate) fn append(&mut self, leaves: &[[u8; LEAF_BYTES]], hashes: &[Hash]) -> io::Result<()> {
        self.tiles.leaves.write_all_at(leaves.as_flattened(), self.size * LEAF_BYTES as u64)?;
        let mut partial = Vec::with_capacity(LEVELS);
        let mut rising = hashes.to_vec();
        for (level, begun) in (0u8..).zip(&self.partial) {
            if rising.is_empty() {
                break;
            }
            let at = count_at(level, self.size) * HASH_BYTES as u64;
            self.tiles.levels[usize::from(level)].write_all_at(rising.as_flattened(), at)?;
            let mut begun = begun.clone();
            rising = rise(&mut begun, &rising);
            partial.push(begun);
        }
        for (old, new) in self.partial.iter_mut().zip(partial) {
            *old = new;
        }
        self.size += hashes.len() as u64;
        self.tiles.written.store(self.size, Ordering::Release);
        Ok(())
    }

    /// Appends what the journal has up to a size, as far as it can be had at once. Whether that was all.
    fn catch_up(&mut self, reader: &Reader, size: u64, hooks: &Hooks) -> Result<bool, ReadError> {
        if self.size >= size {
            return Ok(true);
        }
        let mut left = CATCH_UP_FRAMES;
        reader.leaves(self.size, size, |leaves| {
            hooks.tiles_write()?;
            let hashes: Vec<Hash> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
            self.append(leaves, &hashes)?;
            left -= 1;
            Ok(left > 0)
        })?;
        Ok(self.size >= size)
    }

    /// The thread behind the sequencer: appends what was written and publishes its checkpoint each second and at
    /// the end. After an error the public keeps the last checkpoint, and what the files lack is taken from the journal; that
    /// is tried each second. At the end it is left to the next start.
    pub(crate) fn follow(
        mut self,
        receiver: &Receiver<Written>,
        reader: &Reader,
        failing: &Failing,
        hooks: &Hooks,
    ) {
        let mut latest: Option<(u64, String)> = None;
        let mut due = Instant::now();
        // When to try again, while the files lack something.
        let mut behind: Option<Instant> = None;
        loop {
            let received = match latest {
                Some(_) => receiver.recv_deadline(behind.unwrap_or(due)),
                None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let ended = matches!(received, Err(RecvTimeoutError::Disconnected));
            if let Ok(mut written) = received {
                for next in receiver.try_iter() {
                    written.leaves.extend(next.leaves);
                    written.hashes.extend(next.hashes);
                    (written.size, written.checkpoint) = (next.size, next.checkpoint);
                }
                if behind.is_none() {
                    let appended = hooks.tiles_write();
                    let appended = appended.and_then(|()| self.append(&written.leaves, &written.hashes));
                    if let Err(error) = appended {
                        tracing::error!(%error, "writing tiles failed: the public log stands still");
                        failing.set(Derived::Tiles, true);
                        behind = Some(Instant::now() + RETRY_INTERVAL);
                    }
                }
                latest = Some((written.size, written.checkpoint));
            }
            let now = Instant::now();
            if let (Some(at), Some((size, _))) = (behind, &latest) {
                if now < at && !ended {
                    continue;
                }
                behind = match self.catch_up(reader, *size, hooks) {
                    Ok(true) => None,
                    Ok(false) => Some(now),
                    Err(_) if ended => return,
                    Err(_) => Some(now + RETRY_INTERVAL),
                };
                if behind.is_some() {
                    continue;
                }
                tracing::info!("the tiles have what they lacked: the public log goes on");
                failing.set(Derived::Tiles, false);
            }
            if let Some((size, text)) = &latest {
                *self.tiles.newest.write().unwrap_or_else(PoisonError::into_inner) =
                    Published { size: *size, text: text.as_str().into() };
            }
            if (ended || now >= due)
                && let Some((size, text)) = latest.take()
            {
                if let Err(error) = self.tiles.publish(size, &text) {
                    tracing::warn!(%error, "the published checkpoint was not written to its file");
                }
                due = now + PUBLISH_INTERVAL;
            }
            if ended {
                return;
            }
        }
    }
}

/// Adds hashes to a level's last, incomplete tile; gives those of the tiles that become full.
fn rise(begun: &mut Vec<Hash>, hashes: &[Hash]) -> Vec<Hash> {
    let mut up = Vec::new();
    for hash in hashes {
        begun.push(*hash);
        if begun.len() == TILE_WIDTH {
            up.push(fold(std::mem::take(begun)));
        }
    }
    up
}

/// Compares the files with a journal that is read from its first entry on. Needs no lock: beside a writer it sees what
/// was written before.
pub(crate) struct Comparing {
    /// The leaves, then the levels.
    files: Vec<Compared>,
    /// Per level the hashes of its last, incomplete tile.
    partial: Vec<Vec<Hash>>,
}

/// A file that is compared.
struct Compared {
    name: String,
    item: &'static str,
    file: Option<BufReader<File>>,
    /// Items that it has and the journal too.
    held: u64,
    /// The first that is not what the journal says.
    wrong: Option<u64>,
}

impl Compared {
    /// Compares the next items, of so many bytes each, unless the file has ended.
    fn follow<const N: usize>(&mut self, items: &[[u8; N]]) -> io::Result<()> {
        let mut found = [0; N];
        for item in items {
            let Some(file) = &mut self.file else { return Ok(()) };
            match file.read_exact(&mut found) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.file = None;
                    return Ok(());
                }
                read => read?,
            }
            if found != *item {
                self.wrong = self.wrong.or(Some(self.held));
            }
            self.held += 1;
        }
        Ok(())
    }
}

impl Comparing {
    /// Opens the files; those that are not there have nothing.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let open = |name: String, item| {
            let file = match File::open(folder.join(&name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                file => Some(BufReader::with_capacity(COMPARE_BYTES, file?)),
            };
            Ok(Compared { name, item, file, held: 0, wrong: None })
        };
        let levels = (0..LEVELS).map(|level| open(level.to_string(), "hash"));
        let files = std::iter::once(open("leaves".to_owned(), "leaf")).chain(levels);
        Ok(Self { files: files.collect::<io::Result<_>>()?, partial: vec![Vec::new(); LEVELS] })
    }

    /// Compares the journal's next leaves.
    pub(crate) fn follow(&mut self, leaves: &[[u8; LEAF_BYTES]], hashes: &[Hash]) -> io::Result<()> {
        let Some((of_leaves, levels)) = self.files.split_first_mut() else { return Ok(()) };
        of_leaves.follow(leaves)?;
        let mut rising = hashes.to_vec();
        for (level, begun) in levels.iter_mut().zip(&mut self.partial) {
            level.follow(&rising)?;
            rising = rise(begun, &rising);
        }
        Ok(())
    }

    /// The first fault of each file: the leaf that it was written with, which is the last one under it, and the fault
    /// in words. The tiles of a published checkpoint must all be there.
    pub(crate) fn wrong(&self, published: u64) -> Vec<(u64, String)> {
        let mut found = Vec::new();
        let levels = std::iter::once(0).chain(0u8..);
        for (level, Compared { name, item, held, wrong, .. }) in levels.zip(&self.files) {
            let written_with =
                |item: u64| ((item + 1) << (u32::from(level) * u32::from(TREE_LEVELS_PER_TILE))) - 1;
            if let Some(at) = wrong {
                let text = format!("tiles/{name} is not what the journal says at {item} {at}");
                found.push((written_with(*at), text));
            } else if *held < count_at(level, published) {
                let text = format!("tiles/{name} is shorter than the published checkpoint");
                found.push((written_with(*held), text));
            }
        }
        found
    }
}

impl Tiles {
    /// Whether a full tile agrees with the hash above it, and one of level 0 with its leaves.
    pub(crate) fn is_good(&self, level: u8, index: u64) -> io::Result<bool> {
        let hashes = read_hashes(self.file(level)?, index * TILE_WIDTH as u64, TILE_WIDTH)?;
        if level == 0 {
            let mut leaves = vec![0; TILE_WIDTH * LEAF_BYTES];
            self.leaves.read_exact_at(&mut leaves, index * (TILE_WIDTH * LEAF_BYTES) as u64)?;
            let leaves = leaves.as_chunks::<LEAF_BYTES>().0;
            if !leaves.iter().zip(&hashes).all(|(leaf, hash)| leaf_hash(leaf) == *hash) {
                return Ok(false);
            }
        }
        match self.levels.get(usize::from(level) + 1) {
            Some(above) => Ok(read_hashes(above, index, 1)?.first() == Some(&fold(hashes))),
            None => Ok(true),
        }
    }

    /// Makes a full tile of level 0 again from its leaves, or an upper one's hash above it from itself, whose hashes are good.
    ///
    /// # Errors
    /// The files fail, or the tile agrees with the hash above it and not with the leaves: then those are wrong.
    pub(crate) fn mend(&self, level: u8, index: u64, leaves: &[[u8; LEAF_BYTES]]) -> io::Result<()> {
        let at = index * TILE_WIDTH as u64;
        let mut hashes = read_hashes(self.file(level)?, at, TILE_WIDTH)?;
        if level == 0 {
            let right: Vec<Hash> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
            if right != hashes && read_hashes(self.file(1)?, index, 1)? == [fold(hashes)] {
                return Err(io::Error::other("the journal's leaves are not those of the tree"));
            }
            self.leaves.write_all_at(leaves.as_flattened(), at * LEAF_BYTES as u64)?;
            self.file(level)?.write_all_at(right.as_flattened(), at * HASH_BYTES as u64)?;
            hashes = right;
        }
        self.file(level + 1)?.write_all_at(&fold(hashes), index * HASH_BYTES as u64)
    }

    fn file(&self, level: u8) -> io::Result<&File> {
        self.levels.get(usize::from(level)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Full tiles of a level in the published tree.
    pub(crate) fn full_tiles(&self, level: u8) -> u64 {
        count_at(level, self.published_size()) / TILE_WIDTH as u64
    }
}

fn read_hashes(file: &File, start: u64, count: usize) -> io::Result<Vec<Hash>> {
    let mut bytes = vec![0; count * HASH_BYTES];
    file.read_exact_at(&mut bytes, start * HASH_BYTES as u64)?;
    Ok(bytes.as_chunks().0.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn a_wrong_item_is_judged_by_the_last_leaf_under_it() {
        const WIDTH: u64 = TILE_WIDTH as u64;
        let size = 2 * WIDTH * WIDTH + 3 * WIDTH + 5;
        let dir = TempDir::new().unwrap();
        let leaves: Vec<_> = (0..size).map(|n| [n as u8; LEAF_BYTES]).collect();
        let hashes: Vec<_> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
        let tiles = Arc::new(Tiles::open(dir.path()).unwrap());
        Writer::restart(tiles).unwrap().append(&leaves, &hashes).unwrap();
        let wrong = || {
            let mut comparing = Comparing::open(dir.path()).unwrap();
            comparing.follow(&leaves, &hashes).unwrap();
            comparing.wrong(size)
        };
        assert_eq!(wrong(), []);
        for (name, under) in [("leaves", 1), ("0", 1), ("1", WIDTH), ("2", WIDTH * WIDTH)] {
            let path = dir.path().join(name);
            let good = fs::read(&path).unwrap();
            let (item, bytes) = if name == "leaves" { ("leaf", LEAF_BYTES) } else { ("hash", HASH_BYTES) };
            // The first, and the last there is: the tree goes on behind the leaves under it.
            for at in [0, size / under - 1] {
                let last = (at + 1) * under - 1;
                let mut flipped = good.clone();
                flipped[at as usize * bytes + 1] ^= 1;
                fs::write(&path, flipped).unwrap();
                let told = format!("tiles/{name} is not what the journal says at {item} {at}");
                assert_eq!(wrong(), [(last, told)]);
                fs::write(&path, &good[..at as usize * bytes]).unwrap();
                let told = format!("tiles/{name} is shorter than the published checkpoint");
                assert_eq!(wrong(), [(last, told)], "{at}");
                fs::write(&path, &good).unwrap();
            }
        }
    }
}
