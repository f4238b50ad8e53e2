//! The one property that a bench has taken away in this process, if any. Only builds for benches have this file.
//!
//! `exchange-ablation` sets it once, at its start. It is memory.

use std::sync::OnceLock;

/// A property that can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// TLS: the data listener speaks in clear.
    Tls,
    /// Client certificates: the data listener asks for none.
    ClientCertificates,
    /// The floor of authorisation: no right is looked for, every use is permitted.
    Floor,
}

impl Without {
    /// Everything that can be taken away.
    pub const ALL: [Self; 3] = [Self::Tls, Self::ClientCertificates, Self::Floor];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::ClientCertificates => "client-certificates",
            Self::Floor => "floor",
        }
    }
}

/// Set once, before anything is opened.
static WITHOUT: OnceLock<Without> = OnceLock::new();

/// Takes something away, for the life of the process; what was taken away first stays so.
pub fn take_away(without: Without) {
    let _ = WITHOUT.set(without);
}

/// Whether it was taken away.
pub(crate) fn is_without(without: Without) -> bool {
    WITHOUT.get() == Some(&without)
}
