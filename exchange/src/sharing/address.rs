//! Addresses of data providers that may be called: a document for each provider, host and port.
//!
//! Written by approvals of two operators' proposals alone; a crash leaves what the last entry says.

use ledger::{DocumentKind, Key, KeyedHash};
use schemas::identifier::Uscc;
use schemas::interface::Address;

use crate::gateway::parsed::Kept;

impl Kept for Address {
    const KIND: DocumentKind = DocumentKind::Address;
}

/// Key of an address's document.
pub(crate) fn address_key(keyed: &KeyedHash, provider: &Uscc, host: &str, port: u16) -> Key {
    keyed.key("address", &[provider.as_bytes(), host.as_bytes(), &port.to_be_bytes()])
}
