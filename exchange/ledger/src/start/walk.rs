//! Reading a journal frame by frame from a cursor on, with every check that needs no key: form, chain, tree, signature, and where
//! guard and published checkpoint meet it.
//!
//! Any thread, beside a gateway too; changes nothing. A crash leaves nothing.

use crate::{
    disk,
    error::OpenError,
    journal::{
        cursor::{Cursor, Mark},
        format1,
        frame::{self, Frame, Kind},
        segment::{self, Folders, Header, SEGMENT_HEADER_BYTES},
    },
    keys::{crypt::day_of, signer::LogSigner},
    names::{Hash, Position},
};
use ring::signature::{ED25519, UnparsedPublicKey};
use std::path::PathBuf;
use verifier::{checkpoint::Checkpoint, merkle::leaf_hash, note::VerifierKey};

/// A segment that frames were written to.
pub(crate) struct Begun {
    pub(crate) number: u32,
    pub(crate) path: PathBuf,
    pub(crate) first_frame: u64,
    /// Frames of this number or higher are superseded by a later segment.
    pub(crate) end_frame: u64,
}

/// The purpose for which a journal is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// To go on with it. The signature of the last frame in each segment is checked and no other: it covers the root
    /// over all leaves before it. The leaves commit to everything that replay takes from a frame. So this finds the
    /// same forgeries at a fraction of the cost, only not a spoilt signature that nobody needs any more.
    Start,
    /// To check it, every signature too. A gateway may be writing meanwhile.
    Check,
    /// Like [`Reading::Check`], also of the format before this one: to carry what it says over.
    Carry,
    /// Like [`Reading::Carry`], without asking the guard: of a journal that is known to have lost its end, what there is.
    Lost,
}

/// The begun segments of a journal.
pub(crate) struct Journal {
    pub(crate) segments: Vec<Begun>,
    pub(crate) folders: Folders,
    pub(crate) key: VerifierKey,
    pub(crate) reading: Reading,
    /// The format of all segments.
    pub(crate) format: u32,
}

/// Takes each verified frame: where it stands and the hashes of its leaves.
pub(crate) type Visit<'a, E> = dyn FnMut(Position, &Frame<'_>, &[Hash]) -> Result<(), E> + 'a;

/// Where a walk ended.
pub(crate) struct End {
    pub(crate) cursor: Cursor,
    /// Offset in the last segment behind its last good frame.
    pub(crate) offset: u64,
    /// Something that is no frame follows there.
    pub(crate) torn: bool,
    /// The last frame is a seal.
    pub(crate) sealed: bool,
}

/// The last seal of the last segment and what follows it: what a start copies.
pub(crate) struct Cut {
    pub(crate) segment: u32,
    /// The last segment.
    pub(crate) file: Vec<u8>,
    pub(crate) offset: u64,
    /// Number of the frame at `offset`; `None` when no frame stands there.
    pub(crate) first_frame: Option<u64>,
    /// Offset behind the last frame whose form is right.
    pub(crate) parsed: u64,
}

impl Cut {
    /// Where a frame at an old position stands after the copy.
    pub(crate) fn moved(&self, position: Position, new_number: u32) -> Position {
        let offset = u64::from(position.offset());
        if position.segment() != self.segment || offset < self.offset || self.file.is_empty() {
            return position;
        }
        Position::new(new_number, (offset - self.offset) as u32 + SEGMENT_HEADER_BYTES as u32)
    }
}

impl Journal {
    pub(crate) fn list(folders: Folders, signer: &LogSigner, reading: Reading) -> Result<Self, OpenError> {
        let disk = &*folders.disk;
        let mut listed =
            segment::list(disk, &folders.journal).map_err(OpenError::io("listing the segments"))?;
        let origin = verifier::sha256(&[signer.key.name().as_bytes()]);
        while let Some(last) = listed.pop_if(|last| last.header.is_none()) {
            // Prepared ahead and not begun, or its header was torn while it was begun (the one after it may be
            // prepared by then): nothing stands behind a header that was not durable.
            let bytes = disk::read_all(disk, &last.path).map_err(OpenError::io("reading a segment"))?;
            if frame::any_frame_from(&bytes, 0) {
                let why = "the header is damaged and frames follow it";
                return Err(OpenError::Corrupt { segment: last.number, offset: 0, why });
            }
        }
        let mut segments: Vec<Begun> = Vec::with_capacity(listed.len());
        let mut format = None;
        for (expected, segment) in (0u32..).zip(listed) {
            let corrupt = |why| OpenError::Corrupt { segment: expected, offset: 0, why };
            if segment.number != expected {
                return Err(corrupt("the segment is missing"));
            }
            let header = segment.header.ok_or_else(|| corrupt("the header is damaged"))?;
            if header.number != expected {
                return Err(corrupt("the header is another segment's"));
            }
            let carried = matches!(reading, Reading::Carry | Reading::Lost);
            if header.format != segment::FORMAT && !(carried && header.format == u32::from(format1::NUMBER)) {
                return Err(OpenError::Format { found: header.format, serves: segment::FORMAT });
            }
            if *format.get_or_insert(header.format) != header.format {
                return Err(corrupt("the segment is of another format"));
            }
            if header.origin != origin {
                return Err(OpenError::Keys("the journal is of another origin"));
            }
            if header.index_check != signer.index_check {
                return Err(OpenError::Keys("the index key is not the journal's"));
            }
            for earlier in &mut segments {
                earlier.end_frame = earlier.end_frame.min(header.first_frame);
            }
            let Header { first_frame, .. } = header;
            segments.push(Begun { number: expected, path: segment.path, first_frame, end_frame: u64::MAX });
        }
        let format = format.unwrap_or(segment::FORMAT);
        Ok(Self { segments, folders, key: signer.key.clone(), reading, format })
    }

    /// A whole segment, from the journal's folder or the archive.
    pub(crate) fn read(&self, number: u32) -> Result<Vec<u8>, OpenError> {
        self.folders.read(number).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => OpenError::Missing { segment: number },
            _ => OpenError::Io { what: "reading a segment", error },
        })
    }

    /// Finds the last seal of the last segment.
    pub(crate) fn cut(&self) -> Result<Cut, OpenError> {
        let offset = SEGMENT_HEADER_BYTES as u64;
        let mut cut = Cut { segment: 0, file: Vec::new(), offset, first_frame: None, parsed: offset };
        let Some(last) = self.segments.last() else { return Ok(cut) };
        cut.segment = last.number;
        cut.file = self.read(last.number)?;
        while let Some(Ok(frame)) = cut.file.get(cut.parsed as usize..).map(Frame::parse) {
            if frame.head.kind == Kind::Seal || cut.first_frame.is_none() {
                cut.offset = cut.parsed;
                cut.first_frame = Some(frame.head.number);
            }
            cut.parsed += frame.bytes.len() as u64;
        }
        Ok(cut)
    }

    /// Reads and verifies every frame from a cursor on: form, checksum, chain, tree, signature; then guard and
    /// published checkpoint against where they end. Only what stands at the end of the last segment, above the guard,
    /// may be torn.
    pub(crate) fn walk<E: From<OpenError>>(
        &self,
        start: &Cursor,
        mark: &Mark,
        published: Option<&Checkpoint>,
        visit: &mut Visit<'_, E>,
    ) -> Result<End, E> {
        let mut cursor = start.clone();
        confirm(mark, published, &cursor)?;
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
                if self.reading != Reading::Start && read_at != Some(offset) {
                    let rest = bytes.get(offset..).unwrap_or_default();
                    if Frame::parse(rest).is_err() && (!is_last || frame::any_frame_from(rest, cursor.frame))
                    {
                        // It was perhaps being written when it was read, and what follows it was written after it:
                        // read again, now that a later frame was seen, it is whole unless it is damaged.
                        read_at = Some(offset);
                        bytes = self.read(segment.number)?;
                    }
                }
                let rest = bytes.get(offset..).unwrap_or_default();
                let frame = match Frame::parse(rest) {
                    Ok(frame) => frame,
                    Err(why) if !is_last || frame::any_frame_from(rest, cursor.frame) => {
                        return Err(corrupt(why).into());
                    }
                    Err(why) => {
                        torn = rest.iter().any(|byte| *byte != 0);
                        if torn && cursor.frame < mark.frames {
                            return Err(corrupt(why).into());
                        }
                        break;
                    }
                };
                if u32::from(frame.format) != self.format {
                    return Err(corrupt("the frame is of another format").into());
                }
                check(&frame, &mut cursor, &mut hashes).map_err(corrupt)?;
                if self.reading != Reading::Start {
                    self.check_signature(frame.size, frame.root, &frame.signature).map_err(corrupt)?;
                } else {
                    last = Some((offset, frame.size, frame.root, frame.signature));
                }
                confirm(mark, published, &cursor)?;
                visit(Position::new(segment.number, offset as u32), &frame, &hashes)?;
                offset += frame.bytes.len();
                sealed = frame.head.kind == Kind::Seal;
                cursor.position = Position::new(segment.number, offset as u32);
            }
            if let Some((offset, size, root, signature)) = last {
                self.check_signature(size, root, &signature).map_err(|why| OpenError::Corrupt {
                    segment: segment.number,
                    offset: offset as u64,
                    why,
                })?;
            }
            end_offset = offset as u64;
        }
        let journal = cursor.frontier.size();
        if cursor.frame < mark.frames {
            return Err(OpenError::CutShort { guard: mark.size, journal }.into());
        }
        if let Some(published) = published.filter(|published| published.size > journal) {
            return Err(OpenError::RolledBack { published: published.size, journal }.into());
        }
        Ok(End { cursor, offset: end_offset, torn, sealed })
    }

    pub(crate) fn check_signature(
        &self,
        size: u64,
        root: Hash,
        signature: &[u8; 64],
    ) -> Result<(), &'static str> {
        let checkpoint = Checkpoint { origin: self.key.name().to_owned(), size, root };
        UnparsedPublicKey::new(&ED25519, self.key.key())
            .verify(checkpoint.text().as_bytes(), signature)
            .map_err(|_| "the frame's signature is not the log's")
    }

    /// Where the cursor's frame begins in the first segment of a walk.
    pub(crate) fn first_offset(
        &self,
        segment: &Begun,
        bytes: &[u8],
        cursor: &Cursor,
    ) -> Result<usize, OpenError> {
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
            previous = frame.chain_hash();
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
pub(crate) fn check(
    frame: &Frame<'_>,
    cursor: &mut Cursor,
    hashes: &mut Vec<Hash>,
) -> Result<(), &'static str> {
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
    cursor.previous = frame.chain_hash();
    cursor.time_ms = head.time_ms;
    Ok(())
}

/// The guard's mark and the published checkpoint must be what the journal says, where they meet.
pub(crate) fn confirm(mark: &Mark, published: Option<&Checkpoint>, cursor: &Cursor) -> Result<(), OpenError> {
    let (size, root) = (cursor.frontier.size(), cursor.frontier.root());
    if mark.frames == cursor.frame && (mark.size, mark.root) != (size, root) {
        return Err(OpenError::Guard("the journal is not the one that its guard was written for"));
    }
    match published.filter(|published| published.size == size) {
        Some(published) if published.root != root => {
            Err(OpenError::RolledBack { published: published.size, journal: size })
        }
        _ => Ok(()),
    }
}
