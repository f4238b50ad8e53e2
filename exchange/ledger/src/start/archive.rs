//! Moving closed segments to another folder. Positions stay valid: whoever reads the journal looks in both places.
//!
//! In place of an archived segment the journal's folder keeps a stub, a copy of its header: what a start must know
//! of a segment that it does not read. A crash leaves a half-made copy (`.new`), or both the segment and its copy
//! or stub; the segment in the journal's folder counts, and archiving again goes on from there.
//!
//! Called by `exchange archive`, beside a gateway too; the lock in the archive's folder lets one process at a time.

use crate::{
    derive::snapshot,
    disk::{Disk, RealDisk},
    error::OpenError,
    folder::snapshots_folder,
    journal::{
        record::StateDigest,
        segment::{self, Folders, SEGMENT_HEADER_BYTES},
    },
    keys::secrets::LedgerKeys,
    options::Options,
    start::verify::is_logged,
};
use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::Path,
    sync::Arc,
};

/// The result of [`archive`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Archived {
    /// Segments moved.
    pub segments: u32,
    /// Their bytes.
    pub bytes: u64,
}

/// Moves the segments with numbers below `before` to `options.archive`: copied, synced, compared, named, and only then
/// deleted. Works beside a serving gateway.
///
/// Only segments that no start needs are moved: those before the older of the snapshots that a start would use, each of them
/// read whole and its digest found in the journal.
///
/// # Errors
/// [`OpenError::Options`] without an archive folder, with that of another log or the journal's own,
/// [`OpenError::NotYet`], [`OpenError::Locked`] while another process archives, [`OpenError::Io`], and what is wrong
/// with the journal behind the snapshots. Segments that were moved before stay moved.
pub fn archive(options: &Options, keys: &LedgerKeys, before: u32) -> Result<Archived, OpenError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let folders = Folders::new(Arc::clone(&disk), options);
    let Some(archive) = folders.archive.as_deref() else {
        return Err(OpenError::Options("no archive folder is configured"));
    };
    let limit = limit(options, keys)?;
    if before > limit {
        return Err(OpenError::NotYet { before, limit });
    }
    disk.make_folder(archive).map_err(OpenError::io("making the archive's folder"))?;
    // The copy would be the segment itself, which is deleted when it is copied.
    let same =
        |folder: &Path| fs::canonicalize(folder).map_err(OpenError::io("looking at the archive's folder"));
    if same(archive)? == same(&folders.journal)? {
        return Err(OpenError::Options("the archive folder is the journal's own"));
    }
    let lock = disk.lock(&archive.join("lock")).map_err(OpenError::io("locking the archive"))?;
    let _lock = lock.ok_or(OpenError::Locked)?;
    // Segments of all logs have the same names.
    let origin = verifier::sha256(&[options.origin.as_bytes()]);
    let held = segment::list(&*disk, archive).map_err(OpenError::io("listing the archive"))?;
    if held.iter().filter_map(|held| held.header).any(|header| header.origin != origin) {
        return Err(OpenError::Options("the archive folder holds another log's segments"));
    }
    let listed = segment::list(&*disk, &folders.journal).map_err(OpenError::io("listing the segments"))?;
    let mut done = Archived::default();
    for segment in listed.iter().take_while(|segment| segment.number < before) {
        let bytes = move_one(&folders.journal, archive, segment.number)
            .map_err(OpenError::io("archiving a segment"))?;
        if let Some(bytes) = bytes {
            done.segments += 1;
            done.bytes += bytes;
        }
    }
    Ok(done)
}

/// The first segment that a start may need: where replay begins from the oldest snapshot that it would use; 0 without one.
fn limit(options: &Options, keys: &LedgerKeys) -> Result<u32, OpenError> {
    let origin = verifier::sha256(&[options.origin.as_bytes()]);
    let listed =
        snapshot::list(&snapshots_folder(&options.folder)).map_err(OpenError::io("listing the snapshots"))?;
    for listed in listed {
        // One that is damaged, or the third and gone by now, is none.
        let Ok((meta, digest)) = snapshot::read(&listed.path, &origin, &mut |_, _| Ok(())) else { continue };
        if is_logged(options, keys, &meta.cursor, StateDigest { size: meta.covers, digest })? {
            return Ok(meta.cursor.position.segment());
        }
    }
    Ok(0)
}

/// Moves one segment; `None` when it was moved before.
fn move_one(journal: &Path, archive: &Path, number: u32) -> io::Result<Option<u64>> {
    let source = segment::path(journal, number);
    let target = segment::path(archive, number);
    let mut bytes = Vec::new();
    match File::open(&source).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    let header = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(io::ErrorKind::UnexpectedEof)?;
    make(archive, &target, &bytes)?;
    if fs::read(&target)? != bytes {
        return Err(io::Error::other("the copy is not what was copied"));
    }
    make(journal, &segment::stub_path(journal, number), header)?;
    fs::remove_file(&source)?;
    File::open(journal)?.sync_all()?;
    Ok(Some(bytes.len() as u64))
}

/// Makes a file durable under its name, in place of one that is there.
fn make(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}
