//! A license in memory: 48 bytes, because a log has many. Its holders and its issuer are indexes into lists of the state.
//!
//! Values; the state owns them. All of it is memory, made again by replay.

use crate::{
    names::{Label, Position},
    state::slot::take,
};
use std::collections::HashMap;

pub(crate) const TAKEN_OVER: u8 = 1;
pub(crate) const WRITTEN_BY_04: u8 = 2;

/// A license as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct License {
    /// Fact version.
    pub version: u32,
    /// State number (section 8 of the formats).
    pub state: u8,
    /// 版本号 in force.
    pub certificate_version: u16,
    /// First valid day, days since 1970.
    pub valid_from_day: i32,
    /// Last valid day, days since 1970; `i32::MAX` = no end.
    pub valid_until_day: i32,
    /// Another license has taken this one over.
    pub taken_over: bool,
    /// Operation 04 wrote state 05.
    pub written_by_04: bool,
    /// Keyed hash of type and number, 8 bytes.
    pub number_tag: u64,
    /// Labels of all holders.
    pub holders: Vec<Label>,
    /// The sealed part that holds the body.
    pub body: Position,
}

impl License {
    /// Whether it is in force or on its way to another authority: 01, 02, and 06 until it is taken over.
    pub fn stands(&self) -> bool {
        stands(self.state, self.taken_over)
    }
}

pub(crate) fn stands(state: u8, taken_over: bool) -> bool {
    schemas::state::LicenseState::from_number(state).is_none_or(|state| !state.is_final()) && !taken_over
}

/// A license in memory.
#[derive(Clone, Debug)]
pub(crate) struct LicenseCell {
    pub(crate) number_tag: u64,
    pub(crate) body: Position,
    pub(crate) parties: Parties,
    pub(crate) version: u32,
    pub(crate) valid_from_day: i32,
    pub(crate) valid_until_day: i32,
    pub(crate) certificate_version: u16,
    pub(crate) state: u8,
    pub(crate) flags: u8,
}

// 48 bytes and a key of 16 are the 64 bytes that a license may cost.
const _: () = assert!(size_of::<LicenseCell>() <= 48);

impl LicenseCell {
    /// A cell without number and body, issued and held by the first in the lists.
    pub(crate) fn none() -> Self {
        Self {
            number_tag: 0,
            body: Position::NONE,
            parties: Parties::One(0, 0),
            version: 0,
            valid_from_day: 0,
            valid_until_day: 0,
            certificate_version: 0,
            state: 0,
            flags: 0,
        }
    }

    /// The license, given the labels of its holders.
    pub(crate) fn opened(&self, holders: Vec<Label>) -> License {
        License {
            version: self.version,
            state: self.state,
            certificate_version: self.certificate_version,
            valid_from_day: self.valid_from_day,
            valid_until_day: self.valid_until_day,
            taken_over: self.flags & TAKEN_OVER != 0,
            written_by_04: self.flags & WRITTEN_BY_04 != 0,
            number_tag: self.number_tag,
            holders,
            body: self.body,
        }
    }

    /// Its value in the restart image: [`LICENSE_BYTES`](super::slot::LICENSE_BYTES), and its holders behind them.
    pub(crate) fn encode(&self, issuer: &[u8; 18], holders: &[Label]) -> Vec<u8> {
        [
            &self.number_tag.to_be_bytes()[..],
            &self.body.0.to_be_bytes(),
            &self.version.to_be_bytes(),
            &self.valid_from_day.to_be_bytes(),
            &self.valid_until_day.to_be_bytes(),
            &self.certificate_version.to_be_bytes(),
            &[self.state, self.flags],
            issuer,
            holders.as_flattened(),
        ]
        .concat()
    }

    /// A cell without its parties, and its issuer; the labels of its holders are left.
    pub(crate) fn decode(r: &mut &[u8]) -> Option<(Self, [u8; 18])> {
        let cell = Self {
            number_tag: u64::from_be_bytes(take(r)?),
            body: Position(u64::from_be_bytes(take(r)?)),
            version: u32::from_be_bytes(take(r)?),
            valid_from_day: i32::from_be_bytes(take(r)?),
            valid_until_day: i32::from_be_bytes(take(r)?),
            certificate_version: u16::from_be_bytes(take(r)?),
            state: u8::from_be_bytes(take(r)?),
            flags: u8::from_be_bytes(take(r)?),
            parties: Parties::One(0, 0),
        };
        Some((cell, take(r)?))
    }
}

/// The issuer of a license and its holders, as indexes into `State::issuers` and `State::labels`. Almost every license has
/// one holder, a marriage license two. The issuer stands in each variant, where it takes the place of padding.
#[derive(Clone, Debug)]
#[expect(clippy::box_collection, reason = "a thin pointer keeps a license at 48 bytes")]
pub(crate) enum Parties {
    One(u32, u32),
    Two(u32, [u32; 2]),
    More(u32, Box<Vec<u32>>),
}

impl Parties {
    pub(crate) fn new(issuer: u32, holders: Vec<u32>) -> Self {
        match holders[..] {
            [one] => Self::One(issuer, one),
            [one, two] => Self::Two(issuer, [one, two]),
            _ => Self::More(issuer, Box::new(holders)),
        }
    }

    pub(crate) fn issuer(&self) -> u32 {
        match self {
            Self::One(issuer, _) | Self::Two(issuer, _) | Self::More(issuer, _) => *issuer,
        }
    }

    pub(crate) fn holders(&self) -> &[u32] {
        match self {
            Self::One(_, one) => std::slice::from_ref(one),
            Self::Two(_, two) => two,
            Self::More(_, more) => more,
        }
    }
}

/// Organisations that have issued a license; only ever more.
#[derive(Default)]
pub(crate) struct Issuers {
    pub(crate) organisations: Vec<[u8; 18]>,
    pub(crate) indexes: HashMap<[u8; 18], u32>,
}
