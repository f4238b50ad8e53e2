//! How much of a license is disclosed: what a grant allows and a use asks for.
//!
//! Pure functions; nothing to lose.

use serde::Deserialize;

/// How much of a license is disclosed, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Yes or no.
    Verify,
    /// Named fields.
    Fields,
    /// All fields.
    Face,
    /// The signed bytes.
    Envelope,
    /// 加注件: the face with maker, purpose and end of use.
    Copy,
    /// The index.
    Search,
    /// Only in a grant, beside envelope: the signed bytes of a license that is not in force too.
    Ended,
}

impl Mode {
    /// Every mode, in the order of its bit.
    pub const ALL: [Self; 7] =
        [Self::Verify, Self::Fields, Self::Face, Self::Envelope, Self::Copy, Self::Search, Self::Ended];
    /// The modes that disclose a license.
    pub const DISCLOSING: [Self; 4] = [Self::Fields, Self::Face, Self::Envelope, Self::Copy];

    /// Bit in a grant's `modes`.
    pub const fn bit(self) -> u8 {
        match self {
            Self::Verify => 1,
            Self::Fields => 2,
            Self::Face => 4,
            Self::Envelope => 8,
            Self::Copy => 16,
            Self::Search => 32,
            Self::Ended => 64,
        }
    }

    /// The name in requests and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Fields => "fields",
            Self::Face => "face",
            Self::Envelope => "envelope",
            Self::Copy => "copy",
            Self::Search => "search",
            Self::Ended => "ended",
        }
    }
}
