//! Kinds that requests, answers and journaled documents name alike.
//!
//! Values; nothing to lose.

use serde::{Deserialize, Serialize};

/// Decisions that take two operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProposalKind {
    /// Destroy a holder's key: what is sealed under it can never be read again.
    EraseHolder,
    /// Keep a holder from being erased.
    HoldHolder,
    /// End a legal hold.
    ReleaseHold,
    /// Change the epoch now, which completes the erasures so far.
    RotateEpoch,
    /// Write a registration, which is then not suspended.
    RegisterParticipant,
    /// Publish a license type's definition, or one that takes the place of the one there is.
    PublishType,
    /// Publish a year's calendar of holidays, or one that takes the place of the one there is.
    PublishCalendar,
    /// Allow calls to an address of a provider's, or end that.
    AllowAddress,
}

/// The right by which somebody acts for a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// 监护人.
    Guardian,
    /// 代理人.
    Agent,
}

impl LinkKind {
    /// The name in requests and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Guardian => "guardian",
            Self::Agent => "agent",
        }
    }
}
