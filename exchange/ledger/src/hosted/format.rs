//! The bytes of a row segment, and the document that commits to one (section 6 of the formats).
//!
//! Values. A segment's file never changes: it is written and synced before the entry with its document.

use crate::{
    error::RowsError,
    keys::crypt::{NONCE_BYTES, TAG_BYTES},
    names::{Hash, Key, KeyName, Label},
    state::slot::take,
};

/// Most rows of a segment.
pub const MOST_ROWS: usize = 16_384;
/// Longest segment, in bytes.
pub const MOST_SEGMENT_BYTES: usize = 8 << 20;
/// Longest row, in bytes.
pub const MOST_ROW_BYTES: usize = u16::MAX as usize;

pub(crate) const HEADER_BYTES: usize = 80;
pub(crate) const ENTRY_BYTES: usize = 24;
/// Nonce and tag: an empty row has as many.
pub(crate) const SEAL_BYTES: usize = NONCE_BYTES + TAG_BYTES;
const MAGIC: &[u8; 4] = b"MXR1";
const FORMAT: u32 = 1;
const DIGEST_BYTES: usize = 32;
/// The form of a document.
const FORM: u8 = 2;

/// The order of segments: where two have a row, the one with the higher sequence counts.
pub(crate) fn sequence(id: &Key) -> u64 {
    u64::from_be_bytes(*id.first_chunk().expect("a key has 16 bytes"))
}

/// The id of a segment.
pub(crate) fn id_of(sequence: u64, random: [u8; 8]) -> Key {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&sequence.to_be_bytes());
    id[8..].copy_from_slice(&random);
    id
}

/// The document of a row segment: all that a start must know to tell that the file is the one that was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentDocument {
    /// The key that its rows are sealed under; its holder is the resource.
    pub(crate) key: KeyName,
    /// Entries of its directory, removals among them.
    pub(crate) rows: u32,
    /// Length of the file.
    pub(crate) bytes: u64,
    /// Digest of header and directory.
    pub(crate) directory: Hash,
    /// Digest of all before the last 32 bytes.
    pub(crate) file: Hash,
    /// The segment that it was rewritten from.
    pub(crate) replaces: Option<Key>,
    /// Size of the log behind the entry that its rows came in with; 0 where that is the document's own. A rewritten segment keeps it.
    pub(crate) order: u64,
}

impl SegmentDocument {
    pub(crate) fn label(&self) -> &Label {
        &self.key.label
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        [
            &[FORM][..],
            &self.key.bytes(),
            &self.rows.to_be_bytes(),
            &self.bytes.to_be_bytes(),
            &self.directory,
            &self.file,
            &self.replaces.unwrap_or_default(),
            &self.order.to_be_bytes(),
        ]
        .concat()
    }

    pub(crate) fn decode(mut value: &[u8]) -> Option<Self> {
        let r = &mut value;
        let [FORM] = take(r)? else { return None };
        let (label, [class]) = (take(r)?, take(r)?);
        let key = KeyName { label, class, year: u16::from_be_bytes(take(r)?) };
        let document = Self {
            key,
            rows: u32::from_be_bytes(take(r)?),
            bytes: u64::from_be_bytes(take(r)?),
            directory: take(r)?,
            file: take(r)?,
            replaces: Some(take(r)?).filter(|replaced| *replaced != [0; 16]),
            order: u64::from_be_bytes(take(r)?),
        };
        value.is_empty().then_some(document)
    }

    /// Bytes of header and directory.
    pub(crate) fn front_bytes(&self) -> usize {
        HEADER_BYTES + self.rows as usize * ENTRY_BYTES
    }
}

/// The bit of a length in a directory that says: the row is removed, and what stands there is a note.
const REMOVES: u32 = 1 << 31;

/// The fate of a row in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written<'a> {
    /// It is there, with these bytes.
    Row(&'a [u8]),
    /// It is removed, with a note for whoever follows the resource.
    Removal(&'a [u8]),
}

impl<'a> From<Option<&'a [u8]>> for Written<'a> {
    fn from(row: Option<&'a [u8]>) -> Self {
        row.map_or(Self::Removal(&[]), Self::Row)
    }
}

impl<'a> Written<'a> {
    /// The bytes that are sealed; a removal without a note has none.
    fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Row(bytes) => Some(bytes),
            Self::Removal(note) => Some(note).filter(|note| !note.is_empty()),
        }
    }
}

/// A row in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) row: Key,
    /// Where the sealed row, or the note of its removal, stands in the file; 0 of a removal without a note.
    pub(crate) offset: u32,
    /// Its sealed length; 0 of a removal without a note.
    pub(crate) length: u32,
    pub(crate) removes: bool,
}

/// A segment in the making.
pub(crate) struct Built {
    pub(crate) bytes: Vec<u8>,
    pub(crate) document: SegmentDocument,
}

fn header(id: &Key, key: &KeyName, origin: &Hash, count: u32) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..4].copy_from_slice(MAGIC);
    bytes[4..8].copy_from_slice(&FORMAT.to_be_bytes());
    bytes[8..24].copy_from_slice(id);
    bytes[24..43].copy_from_slice(&key.bytes());
    bytes[44..48].copy_from_slice(&count.to_be_bytes());
    bytes[48..].copy_from_slice(origin);
    bytes
}

/// Lays out a segment; `seal` appends a sealed row to what it is given. The directory is ascending by row.
///
/// # Errors
/// [`RowsError::Malformed`]: no rows or too many, one twice, one too long, or all of them.
pub(crate) fn build(
    id: &Key,
    key: &KeyName,
    origin: &Hash,
    rows: &[(Key, Written<'_>)],
    replaces: Option<Key>,
    mut seal: impl FnMut(&Key, &[u8], &mut Vec<u8>),
) -> Result<Built, RowsError> {
    if rows.is_empty() || rows.len() > MOST_ROWS {
        return Err(RowsError::Malformed("a segment has between 1 and 16,384 rows"));
    }
    let mut ordered: Vec<&(Key, Written<'_>)> = rows.iter().collect();
    ordered.sort_unstable_by_key(|(row, _)| row);
    if ordered.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(RowsError::Malformed("a row is there twice"));
    }
    let lengths = || rows.iter().filter_map(|(_, row)| row.bytes().map(<[u8]>::len));
    if lengths().any(|length| length > MOST_ROW_BYTES) {
        return Err(RowsError::Malformed("a row is longer than 65,535 bytes"));
    }
    let front = HEADER_BYTES + rows.len() * ENTRY_BYTES;
    let whole = front + lengths().map(|length| length + SEAL_BYTES).sum::<usize>() + DIGEST_BYTES;
    if whole > MOST_SEGMENT_BYTES {
        return Err(RowsError::Malformed("a segment is longer than 8 MiB"));
    }
    let mut bytes = Vec::with_capacity(whole);
    bytes.extend_from_slice(&header(id, key, origin, rows.len() as u32));
    let mut offset = front as u32;
    for (row, written) in &ordered {
        let length = written.bytes().map_or(0, |plain| (plain.len() + SEAL_BYTES) as u32);
        let at = if length > 0 { offset } else { 0 };
        let removes = if matches!(written, Written::Removal(_)) && length > 0 { REMOVES } else { 0 };
        bytes.extend_from_slice(row);
        bytes.extend_from_slice(&at.to_be_bytes());
        bytes.extend_from_slice(&(length | removes).to_be_bytes());
        offset += length;
    }
    let directory = verifier::sha256(&[&bytes]);
    for (row, written) in ordered {
        if let Some(plain) = written.bytes() {
            seal(row, plain, &mut bytes);
        }
    }
    let file = verifier::sha256(&[&bytes]);
    bytes.extend_from_slice(&file);
    let (rows, length) = (rows.len() as u32, bytes.len() as u64);
    let document = SegmentDocument { key: *key, rows, bytes: length, directory, file, replaces, order: 0 };
    Ok(Built { bytes, document })
}

/// The directory in the front of a file, which must be the one that its document commits to.
///
/// # Errors
/// The fault that was found first.
pub(crate) fn directory(
    front: &[u8],
    id: &Key,
    document: &SegmentDocument,
    origin: &Hash,
) -> Result<Vec<Entry>, &'static str> {
    if verifier::sha256(&[front]) != document.directory {
        return Err("its directory is not the one that was committed");
    }
    // The maker of the document may have made a mistake.
    const MALFORMED: &str = "its directory is malformed";
    let (head, entries) = front.split_first_chunk::<HEADER_BYTES>().ok_or(MALFORMED)?;
    if *head != header(id, &document.key, origin, document.rows) {
        return Err("its header is another segment's");
    }
    let (entries, odd) = entries.as_chunks::<ENTRY_BYTES>();
    let mut found: Vec<Entry> = Vec::with_capacity(entries.len());
    let mut end = front.len() as u64;
    for entry in entries {
        let number =
            |at: usize| u32::from_be_bytes(*entry[at..].first_chunk().expect("an entry has 24 bytes"));
        let row = *entry.first_chunk().expect("an entry has 24 bytes");
        let (length, marked) = (number(20) & !REMOVES, number(20) & REMOVES != 0);
        let entry = Entry { row, offset: number(16), length, removes: marked || length == 0 };
        let fits = match length {
            0 => entry.offset == 0 && !marked,
            _ => {
                u64::from(entry.offset) == end
                    && (SEAL_BYTES..=SEAL_BYTES + MOST_ROW_BYTES).contains(&(length as usize))
            }
        };
        if !fits || found.last().is_some_and(|last| last.row >= row) {
            return Err(MALFORMED);
        }
        end += u64::from(entry.length);
        found.push(entry);
    }
    let whole = odd.is_empty() && end + DIGEST_BYTES as u64 == document.bytes;
    if whole { Ok(found) } else { Err(MALFORMED) }
}

/// Checks a whole file against its document.
///
/// # Errors
/// The fault that was found first.
pub(crate) fn check(
    bytes: &[u8],
    id: &Key,
    document: &SegmentDocument,
    origin: &Hash,
) -> Result<(), &'static str> {
    const LENGTH: &str = "its length is not the one that was committed";
    if bytes.len() as u64 != document.bytes {
        return Err(LENGTH);
    }
    directory(bytes.get(..document.front_bytes()).ok_or(LENGTH)?, id, document, origin)?;
    let (before, digest) = bytes.split_last_chunk::<DIGEST_BYTES>().ok_or(LENGTH)?;
    let same = verifier::sha256(&[before]) == document.file && *digest == document.file;
    if same { Ok(()) } else { Err("its rows are not those that were committed") }
}
