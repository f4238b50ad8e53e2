//! How things are named: hashes, keys, labels and places in the journal.
//!
//! Values without an owner; nothing of them is on a disk by itself.

pub use verifier::Hash;

/// A keyed hash of 16 bytes (section 7 of the formats): how licenses, grants, holders and documents are named.
pub type Key = [u8; 16];

/// A holder's random label.
pub type Label = [u8; 16];

/// A place in the journal: segment number × 2³² + offset in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// No place: every segment begins with its header, so nothing stands at offset 0 of segment 0.
    pub const NONE: Self = Self(0);

    /// The place at `offset` of a segment.
    pub const fn new(segment: u32, offset: u32) -> Self {
        Self(((segment as u64) << 32) | offset as u64)
    }

    /// The segment's number.
    pub const fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The offset in the segment's file.
    pub const fn offset(self) -> u32 {
        self.0 as u32
    }
}
