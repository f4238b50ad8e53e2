//! Sizes of the frames that a run wrote, read from the segment files by their documented layout
//! (`schemas/README.md`, section 6).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Bytes of a segment's header.
const SEGMENT_HEADER_BYTES: u64 = 64;
/// Bytes of a frame's header that are looked at.
const FRAME_HEADER_BYTES: usize = 32;
/// `kind` of a frame that holds entries.
const GROUP: u8 = 1;

/// The frames with entries of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// Frames.
    pub frames: u64,
    /// Entries in them.
    pub entries: u64,
    /// Bytes of them.
    pub bytes: u64,
}

impl Frames {
    /// What came since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            frames: self.frames.saturating_sub(earlier.frames),
            entries: self.entries.saturating_sub(earlier.entries),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }

    /// Mean bytes of a frame.
    pub fn frame_bytes(&self) -> u64 {
        self.bytes.checked_div(self.frames).unwrap_or(0)
    }

    /// Mean bytes of the journal for one entry.
    pub fn entry_bytes(&self) -> u64 {
        self.bytes.checked_div(self.entries).unwrap_or(0)
    }
}

/// Sums up the frames whose first entry's index lies in `indexes`. Counts frames, and checks nothing: that is
/// `exchange log verify`.
///
/// # Errors
/// The folder cannot be read.
pub fn frames(folder: &Path, indexes: Range<u64>) -> io::Result<Frames> {
    let mut sum = Frames::default();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "mxj") {
            add_segment(&File::open(path)?, &indexes, &mut sum)?;
        }
    }
    Ok(sum)
}

fn add_segment(file: &File, indexes: &Range<u64>, sum: &mut Frames) -> io::Result<()> {
    let end = file.metadata()?.len();
    let mut offset = SEGMENT_HEADER_BYTES;
    let mut head = [0; FRAME_HEADER_BYTES];
    while offset + FRAME_HEADER_BYTES as u64 <= end {
        match file.read_exact_at(&mut head, offset) {
            // The room behind the last frame is given back when a segment is closed, which may happen meanwhile.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            read => read?,
        }
        let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (length, count) = (u64::from(number(8)), u64::from(number(12)));
        let first_index = u64::from(number(16)) << 32 | u64::from(number(20));
        if !head.starts_with(b"MXF1") || length < FRAME_HEADER_BYTES as u64 {
            break;
        }
        if head[5] == GROUP && indexes.contains(&first_index) {
            sum.frames += 1;
            sum.entries += count;
            sum.bytes += length;
        }
        offset += length;
    }
    Ok(())
}
