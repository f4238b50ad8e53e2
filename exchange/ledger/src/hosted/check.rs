//! Row segments as the journal has them: which are in force, and whether each file is the one that was committed.
//!
//! A start reads directories before it changes anything; a check and a copy from the outside read whole files.

use crate::{
    error::OpenError,
    folder::{journal_folder, rows_folder},
    hosted::{
        files::{Files, Wrong, hold, name},
        format::SegmentDocument,
        index::Writer,
    },
    journal::record::DocumentState,
    names::Key,
    state::{State, fact::DocumentKind, rows::Document},
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::Path,
};

const KIND: DocumentKind = DocumentKind::RowSegment;
const MALFORMED: &str = "its document is malformed";

fn wrong(id: &Key, why: impl ToString) -> OpenError {
    OpenError::Rows { file: name(id), why: why.to_string() }
}

fn wrong_file(id: &Key, error: Wrong) -> OpenError {
    match error {
        Wrong::Io(error) if error.kind() == io::ErrorKind::NotFound => wrong(id, "it is missing"),
        // The file may have been cut since its length was asked for.
        Wrong::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => wrong(id, "it is too short"),
        Wrong::Io(error) => OpenError::Io { what: "reading a row segment", error },
        Wrong::Is(why) => wrong(id, why),
    }
}

/// The committed form of a segment that is in force. Its order is known from here on.
pub(crate) fn in_force(document: &Document) -> Option<SegmentDocument> {
    let decoded = if document.ends_ms == 0 { SegmentDocument::decode(&document.value) } else { None };
    decoded.map(|decoded| match decoded.order {
        0 => SegmentDocument { order: document.index + 1, ..decoded },
        _ => decoded,
    })
}

/// The segments in force, ascending.
///
/// # Errors
/// [`OpenError::Rows`]: a document is malformed.
pub(crate) fn of_state(state: &State) -> Result<Vec<(Key, SegmentDocument)>, OpenError> {
    let documents = state.documents(KIND).into_iter().filter(|(_, document)| document.ends_ms == 0);
    let decoded = documents.map(|(id, document)| match in_force(&document) {
        Some(document) => Ok((id, document)),
        None => Err(wrong(&id, MALFORMED)),
    });
    decoded.collect()
}

/// The segments in force that entries leave, which come in order.
#[derive(Default)]
pub(crate) struct Followed(BTreeMap<Key, Vec<u8>>);

impl Followed {
    pub(crate) fn follow(&mut self, documents: &[DocumentState]) {
        for document in documents.iter().filter(|document| document.kind == KIND.number()) {
            if document.ends_ms == 0 {
                self.0.insert(document.key, document.value.clone());
            } else {
                self.0.remove(&document.key);
            }
        }
    }

    fn segments(&self) -> impl Iterator<Item = Result<(Key, SegmentDocument), OpenError>> {
        self.0.iter().map(|(id, value)| {
            SegmentDocument::decode(value).map(|document| (*id, document)).ok_or_else(|| wrong(id, MALFORMED))
        })
    }
}

/// Checks the front of each file that the state names, and makes the index of them. Changes nothing.
///
/// # Errors
/// [`OpenError::Rows`] for the first file that is missing or another one.
pub(crate) fn load(files: &Files, state: &State) -> Result<Writer, OpenError> {
    let mut writer = Writer::new();
    for (id, document) in of_state(state)? {
        let entries = files.directory(&id, &document).map_err(|error| wrong_file(&id, error))?;
        writer.add(id, document, &entries);
    }
    Ok(writer)
}

/// Removes the files that no entry names: of a batch that was never committed, or of a segment that ended. A file that stays
/// harms nobody.
pub(crate) fn sweep(files: &Files, writer: &Writer) {
    let Some(_right) = files.may_remove() else { return };
    let unnamed =
        files.list().map(|found| found.into_iter().filter(|id| !writer.has(id)).collect::<Vec<_>>());
    let swept = unnamed.and_then(|unnamed| {
        if unnamed.is_empty() {
            return Ok(());
        }
        unnamed.iter().try_for_each(|id| files.remove(id))?;
        files.sync_names()
    });
    if let Err(error) = swept {
        tracing::warn!(%error, "row segments that no entry names stay");
    }
}

/// Checks each whole file that the state names; how many there are.
///
/// # Errors
/// [`OpenError::Rows`] for the first that is missing or another one.
pub(crate) fn verify(files: &Files, state: &State) -> Result<usize, OpenError> {
    let segments = of_state(state)?;
    for (id, document) in &segments {
        files.whole(id, document).map_err(|error| wrong_file(id, error))?;
    }
    Ok(segments.len())
}

/// Copies each file of segments in force into another data folder, checked and durable; the bytes.
///
/// # Errors
/// [`OpenError::Rows`] for the first that is missing or another one.
pub(crate) fn copy(files: &Files, segments: &Followed, target: &Path) -> Result<u64, OpenError> {
    let failed = || OpenError::io("copying a row segment");
    let mut copied = 0;
    let (journal, folder) = (journal_folder(target), rows_folder(target));
    for segment in segments.segments() {
        let (id, document) = segment?;
        let bytes = files.whole(&id, &document).map_err(|error| wrong_file(&id, error))?;
        fs::create_dir_all(&folder).map_err(failed())?;
        let path = folder.join(name(&id));
        fs::write(&path, &bytes).and_then(|()| File::open(&path)?.sync_all()).map_err(failed())?;
        copied += bytes.len() as u64;
    }
    if copied > 0 {
        let synced = [&folder, &journal].into_iter().try_for_each(|folder| File::open(folder)?.sync_all());
        synced.map_err(failed())?;
    }
    Ok(copied)
}

/// See [`hold`].
pub(crate) fn held(data: &Path) -> Result<Option<File>, OpenError> {
    hold(data).map_err(OpenError::io("holding the row segments"))
}
