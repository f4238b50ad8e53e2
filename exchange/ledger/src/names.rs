//! How things are named: hashes, keys, labels and places in the journal.
//!
//! Values without an owner; nothing of them is on a disk by itself.

use schemas::date::Date;

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

/// The retention class of what stays as long as its holder does: bodies of licenses, rights and what changed them, hosted rows.
pub const STANDARD: u8 = 1;
/// The retention class of uses: a year of them is destroyed when its period is over.
pub const USES: u8 = 2;

/// Which of a holder's keys: each retention class and year has its own, so that one is destroyed and the rest stay
/// readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyName {
    /// The holder.
    pub label: Label,
    /// Number of the retention class, from 1.
    pub class: u8,
    /// Year in China Standard Time.
    pub year: u16,
}

impl KeyName {
    /// The key of a class that seals what is written at a moment, ms since 1970.
    pub fn at(label: Label, class: u8, time_ms: u64) -> Self {
        Self { label, class, year: cst_year(time_ms) }
    }

    /// label ‖ class ‖ year.
    pub(crate) fn bytes(&self) -> [u8; 19] {
        let mut bytes = [0; 19];
        bytes[..16].copy_from_slice(&self.label);
        bytes[16] = self.class;
        bytes[17..].copy_from_slice(&self.year.to_be_bytes());
        bytes
    }
}

/// Year in China Standard Time of a moment, ms since 1970.
pub fn cst_year(time_ms: u64) -> u16 {
    let day = Date::at(i64::try_from(time_ms / 1000).unwrap_or(i64::MAX));
    u16::try_from(day.civil().0).unwrap_or(u16::MAX)
}
