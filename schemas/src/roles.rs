//! The roles of organisations in the exchange.
//!
//! Values; nothing to lose.

use serde::{Deserialize, Serialize};

/// A role of an organisation in the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Issuing authority (发证机关).
    Issuer,
    /// Relying party: approval system, bank, other user of licenses (用证单位).
    Relying,
    /// Service portal that vouches for the holder it names.
    Portal,
    /// Data provider.
    Provider,
    /// Exchange of another province.
    Peer,
    /// Auditor.
    Auditor,
    /// Operator.
    Operator,
    /// Terminal where citizens show their codes (自助终端): it scans, and nothing else.
    Kiosk,
    /// Law-enforcement body whose officers inspect permits (执法检查).
    Inspector,
}

impl Role {
    /// The name in requests and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::Relying => "relying",
            Self::Portal => "portal",
            Self::Provider => "provider",
            Self::Peer => "peer",
            Self::Auditor => "auditor",
            Self::Operator => "operator",
            Self::Kiosk => "kiosk",
            Self::Inspector => "inspector",
        }
    }

    /// Every role.
    pub const ALL: [Self; 9] = [
        Self::Issuer,
        Self::Relying,
        Self::Portal,
        Self::Provider,
        Self::Peer,
        Self::Auditor,
        Self::Operator,
        Self::Kiosk,
        Self::Inspector,
    ];
}
