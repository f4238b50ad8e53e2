//! Snapshots: the whole state at one seal, in one file `snapshots/<size>.mxs`, so that a rebuild need not begin at
//! the first entry. Its digest is logged as an entry; a snapshot counts only when the journal confirms it.
//!
//! Written by the thread of the restart image, from the image. A crash leaves a `.new` file, which nobody reads,
//! or a whole file that the journal does not confirm, which is passed over.

use crate::{
    derive::{
        meta::{Meta, TakeValue},
        store::StoreError,
    },
    names::Hash,
    state::{
        State,
        slot::{Digest, Slot},
    },
};
use ring::digest::{Context, SHA256};
use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 4] = b"MXN1";
/// Written and made durable at once: a disk takes some milliseconds for it.
const PIECE_BYTES: usize = 1 << 20;
/// Snapshots kept: the newest may not be confirmed yet.
const KEPT: usize = 2;
/// Stands where a value's slot would begin: slots begin with their kind, which is not 0.
const END: u8 = 0;
/// Longest head: the frontier of a tree has at most 64 nodes.
const MAX_META_BYTES: usize = 4096;
/// Longest value: a document, which is far shorter than a group.
const MAX_VALUE_BYTES: usize = 16 << 20;

/// A snapshot file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listed {
    /// Entries that it covers.
    pub(crate) size: u64,
    pub(crate) path: PathBuf,
}

/// The snapshot files, oldest first. Empty when there is no folder.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<Listed>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let size = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".mxs"));
        if let Some(size) = size.and_then(|size| size.parse().ok()) {
            found.push(Listed { size, path });
        }
    }
    found.sort();
    Ok(found)
}

/// Gives each value of a snapshot, holders before what names them, the same ones each time.
pub(crate) type EachValue<'a> = dyn FnMut(&mut TakeValue<'_>) -> Result<(), StoreError> + 'a;

/// Writes a snapshot: temporary file, sync, rename, sync of the folder; then only the newest two stay. `each` gives the
/// values of the state at exactly `meta.covers` entries, and is called twice: the digest stands before them. The snapshot's
/// length in bytes, and that digest.
pub(crate) fn write(
    folder: &Path,
    meta: &Meta,
    origin: &Hash,
    each: &mut EachValue<'_>,
) -> Result<(u64, Hash), StoreError> {
    fs::create_dir_all(folder)?;
    let mut digest = Digest::default();
    each(&mut |slot, value| {
        digest.add(&slot.encode(), value);
        Ok(())
    })?;
    let temporary = folder.join("snapshot.new");
    let pieces = Pieces { file: File::create(&temporary)?, unsynced: 0, sync: File::sync_data };
    let mut out =
        Hashing { inner: BufWriter::with_capacity(PIECE_BYTES, pieces), hash: Context::new(&SHA256) };
    let head = meta.encode(origin, &digest.bytes());
    out.write_all(MAGIC)?;
    out.write_all(&(head.len() as u32).to_be_bytes())?;
    out.write_all(&head)?;
    let mut count = 0u64;
    each(&mut |slot, value| {
        count += 1;
        out.write_all(&slot.encode())?;
        out.write_all(&(value.len() as u32).to_be_bytes())?;
        Ok(out.write_all(value)?)
    })?;
    out.write_all(&[END])?;
    out.write_all(&count.to_be_bytes())?;
    let Hashing { mut inner, hash } = out;
    inner.write_all(hash.finish().as_ref())?;
    let pieces = inner.into_inner().map_err(io::IntoInnerError::into_error)?;
    pieces.file.sync_all()?;
    let bytes = pieces.file.metadata()?.len();
    fs::rename(&temporary, folder.join(format!("{:020}.mxs", meta.covers)))?;
    File::open(folder)?.sync_all()?;
    let listed = list(folder)?;
    for old in listed.iter().take(listed.len().saturating_sub(KEPT)) {
        fs::remove_file(&old.path)?;
    }
    Ok((bytes, digest.bytes()))
}

/// Reads only the head of a snapshot. It is checked by its own checksum, the values are not.
pub(crate) fn head(path: &Path, origin: &Hash) -> Result<(Meta, Hash), StoreError> {
    read_head(&mut BufReader::new(File::open(path)?), origin)
}

/// Loads a snapshot into an empty state: its head and the digest of its values. Nothing of the state
/// may be used when this fails.
pub(crate) fn load(path: &Path, origin: &Hash, state: &State) -> Result<(Meta, Hash), StoreError> {
    let (meta, digest) = read(path, origin, &mut |slot, value| {
        state.load(slot, value).ok_or(StoreError::Doubtful("malformed"))
    })?;
    state.loaded(&meta.cursor);
    Ok((meta, digest))
}

/// Reads a whole snapshot and checks it against itself: its head and the digest of its values.
pub(crate) fn read(path: &Path, origin: &Hash, take: &mut TakeValue<'_>) -> Result<(Meta, Hash), StoreError> {
    let mut input = Hashing { inner: BufReader::new(File::open(path)?), hash: Context::new(&SHA256) };
    let (meta, expected) = read_head(&mut input, origin)?;
    let mut digest = Digest::default();
    let mut read = 0u64;
    let mut key = [0; Slot::BYTES];
    let mut value = Vec::new();
    loop {
        input.read_exact(&mut key[..1])?;
        if key[0] == END {
            break;
        }
        input.read_exact(&mut key[1..])?;
        let slot = Slot::decode(&key).ok_or(StoreError::Doubtful("malformed"))?;
        value.resize(read_length(&mut input, MAX_VALUE_BYTES)?, 0);
        input.read_exact(&mut value)?;
        digest.add(&key, &value);
        take(&slot, &value)?;
        read += 1;
    }
    let mut count = [0; 8];
    input.read_exact(&mut count)?;
    let Hashing { mut inner, hash } = input;
    let mut checksum = [0; 32];
    inner.read_exact(&mut checksum)?;
    if u64::from_be_bytes(count) != read || inner.read(&mut [0])? != 0 {
        return Err(StoreError::Doubtful("longer or shorter than it says"));
    }
    if hash.finish().as_ref() != checksum || digest.bytes() != expected {
        return Err(StoreError::Doubtful("not what its digest says"));
    }
    Ok((meta, expected))
}

fn read_head(input: &mut impl Read, origin: &Hash) -> Result<(Meta, Hash), StoreError> {
    let mut magic = [0; 4];
    input.read_exact(&mut magic)?;
    if magic != *MAGIC {
        return Err(StoreError::Doubtful("no snapshot"));
    }
    let mut head = vec![0; read_length(input, MAX_META_BYTES)?];
    input.read_exact(&mut head)?;
    let (meta, digest) = Meta::decode(&head, origin)?;
    if meta.covers != meta.cursor.frontier.size() {
        return Err(StoreError::Doubtful("not of one moment"));
    }
    Ok((meta, digest))
}

fn read_length(input: &mut impl Read, most: usize) -> Result<usize, StoreError> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > most { Err(StoreError::Doubtful("malformed")) } else { Ok(length) }
}

/// Makes a file durable piece by piece, so that no sync of the journal waits behind a whole snapshot.
struct Pieces<F> {
    file: F,
    unsynced: usize,
    sync: fn(&F) -> io::Result<()>,
}

impl<F: Write> Write for Pieces<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(&bytes[..bytes.len().min(PIECE_BYTES)])?;
        self.unsynced += written;
        if self.unsynced >= PIECE_BYTES {
            (self.sync)(&self.file)?;
            self.unsynced = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Passes bytes on and hashes them.
struct Hashing<T> {
    inner: T,
    hash: Context,
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.hash.update(&bytes[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Bytes written since the last sync, and the most that ever were.
    #[derive(Default)]
    struct Disk(RefCell<(usize, usize)>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.borrow_mut();
            state.0 += bytes.len();
            state.1 = state.1.max(state.0);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_snapshot_never_leaves_more_than_two_pieces_to_one_sync() {
        let sync = |disk: &Disk| {
            disk.0.borrow_mut().0 = 0;
            Ok(())
        };
        for step in [700, 64 << 10, PIECE_BYTES, 5 * PIECE_BYTES + 3] {
            let mut out = Pieces { file: Disk::default(), unsynced: 0, sync };
            for _ in 0..20 * PIECE_BYTES / step + 1 {
                out.write_all(&vec![7; step]).unwrap();
            }
            let (unsynced, most) = out.file.0.into_inner();
            assert!(unsynced < PIECE_BYTES && most < 2 * PIECE_BYTES, "{step}: {unsynced} {most}");
        }
    }
}
