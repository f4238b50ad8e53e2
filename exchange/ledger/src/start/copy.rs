//! Copying a journal, also one that a gateway is writing: frame by frame, so that the copy is a whole journal of what
//! there was at one moment, with the hosted rows of that moment.
//!
//! Called by `exchange backup`; only the target folder is written. A crash leaves part of a copy, whose fence names no
//! size: nobody restores it.

use crate::{
    disk::{Disk, Lock, RealDisk},
    error::OpenError,
    folder::{journal_folder, lock},
    hosted::{
        check::{self, Followed},
        files::Files,
    },
    journal::{
        cursor::Cursor,
        guard::Guard,
        segment::{self, SEGMENT_HEADER_BYTES},
    },
    keys::{secrets::LedgerKeys, signer::signer},
    options::Options,
    start::{
        recovery::published,
        verify::{Tail, look, read},
        walk::Reading,
    },
};
use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::Path,
    sync::Arc,
};

/// The result of [`copy_journal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Where the copy ends.
    pub tail: Tail,
    /// Journal time of its last frame, ms since 1970.
    pub time_ms: u64,
    /// Nobody had the journal open: the copy holds all that it did.
    pub at_rest: bool,
    /// Bytes of the copy.
    pub bytes: u64,
}

/// Copies a journal into the data folder `target`, which has none: every frame that is whole, each checked as
/// [`crate::verify_log`] does, archived segments among them, and a guard for exactly these. Then the copy is read again, and the
/// files of hosted rows that it commits to are copied beside it.
/// Nothing is changed in the journal; one that nobody has open is locked meanwhile.
///
/// # Errors
/// [`OpenError`]; what was written of the copy is of no use then.
pub fn copy_journal(options: &Options, keys: &LedgerKeys, target: &Path) -> Result<Copied, OpenError> {
    if !journal_folder(&options.folder).is_dir() {
        return Err(OpenError::Options("there is no journal to copy"));
    }
    let held: Option<Lock> = match lock(&RealDisk, &options.folder) {
        Err(OpenError::Locked) => None,
        held => Some(held?),
    };
    let signer = signer(options, keys)?;
    let folder = journal_folder(target);
    RealDisk.make_folder(&folder).map_err(OpenError::io("making the copy's folder"))?;
    // Read before the journal: a gateway that runs beside may only be ahead of it.
    let published = published(&options.folder, &signer.key);
    let held_rows = check::held(&options.folder)?;
    let found = look(options, &signer, published.as_ref(), Reading::Check)?;
    let mut copy = Copy::default();
    let origin = signer.key.name();
    for (number, first_frame) in found.begun() {
        let header = segment::header(number, first_frame, origin, signer.index_check);
        fs::write(segment::path(&folder, number), header).map_err(OpenError::io(WRITING))?;
        copy.bytes += SEGMENT_HEADER_BYTES as u64;
    }
    let end = found.walk(&Cursor::start(), &mut |position, frame, _| {
        copy.append(&folder, position.segment(), frame.bytes)
    })?;
    copy.finish()?;
    // The last frames may have been written after the guard was: the copy's guard knows of all that it has.
    let guard =
        Guard::create(&RealDisk, &folder, origin).and_then(|mut guard| guard.write(end.cursor.mark()));
    guard.map_err(OpenError::io("writing the copy's guard"))?;
    let synced =
        found.begun().try_for_each(|(number, _)| File::open(segment::path(&folder, number))?.sync_all());
    synced.and_then(|()| RealDisk.sync_folder(&folder)).map_err(OpenError::io("making the copy durable"))?;

    let copied = Options { folder: target.to_owned(), archive: None, ..options.clone() };
    let mut segments = Followed::default();
    let tail = read(&copied, keys, Reading::Check, |entry| segments.follow(&entry.record.documents))?;
    if (tail.size, tail.root) != (end.cursor.frontier.size(), end.cursor.frontier.root()) {
        return Err(OpenError::Corrupt { segment: 0, offset: 0, why: "the copy is not what was copied" });
    }
    let row_files = Files::new(Arc::new(RealDisk), &options.folder, &options.origin);
    let bytes = copy.bytes + check::copy(&row_files, &segments, target)?;
    drop(held_rows);
    Ok(Copied { tail, time_ms: end.cursor.time_ms, at_rest: held.is_some(), bytes })
}

const WRITING: &str = "writing the copy";

/// The segment of the copy that is being written.
#[derive(Default)]
struct Copy {
    current: Option<(u32, BufWriter<File>)>,
    bytes: u64,
}

impl Copy {
    fn append(&mut self, folder: &Path, number: u32, frame: &[u8]) -> Result<(), OpenError> {
        if self.current.as_ref().is_none_or(|(current, _)| *current != number) {
            self.finish()?;
            let file = File::options().append(true).open(segment::path(folder, number));
            self.current = Some((number, BufWriter::new(file.map_err(OpenError::io(WRITING))?)));
        }
        if let Some((_, file)) = &mut self.current {
            file.write_all(frame).map_err(OpenError::io(WRITING))?;
            self.bytes += frame.len() as u64;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), OpenError> {
        match self.current.take() {
            Some((_, mut file)) => file.flush().map_err(OpenError::io(WRITING)),
            None => Ok(()),
        }
    }
}
