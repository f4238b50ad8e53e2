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

    /// The bits that allow this mode: its own, and those of the higher ones where modes are ordered
    /// (核验 → 字段 → 照面 → 加注件).
    pub const fn allowed_by(self) -> u8 {
        match self {
            Self::Verify => self.bit() | Self::Fields.allowed_by(),
            Self::Fields => self.bit() | Self::Face.allowed_by(),
            Self::Face => self.bit() | Self::Copy.bit(),
            Self::Envelope | Self::Copy | Self::Search | Self::Ended => self.bit(),
        }
    }

    /// Whether each of these modes, as bits, is allowed by others.
    pub fn are_within(modes: u8, others: u8) -> bool {
        Self::ALL.iter().filter(|mode| modes & mode.bit() != 0).all(|mode| others & mode.allowed_by() != 0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_mode_allows_the_lower_and_no_other() {
        let order = [Mode::Verify, Mode::Fields, Mode::Face, Mode::Copy];
        for (place, granted) in order.iter().enumerate() {
            for (rank, asked) in order.iter().enumerate() {
                assert_eq!(granted.bit() & asked.allowed_by() != 0, rank <= place, "{granted:?} {asked:?}");
            }
        }
        for apart in [Mode::Envelope, Mode::Search, Mode::Ended] {
            for other in Mode::ALL.iter().filter(|other| **other != apart) {
                assert!(other.bit() & apart.allowed_by() == 0 && apart.bit() & other.allowed_by() == 0);
            }
        }
        assert!(Mode::are_within(Mode::Verify.bit() | Mode::Face.bit(), Mode::Copy.bit()));
        assert!(!Mode::are_within(Mode::Copy.bit(), Mode::Face.bit()));
    }
}
