//! An auditor's question, read and checked.
//!
//! The capability makes it, and the page is read by it. It is memory, so a crash leaves nothing.

use schemas::codes::Code;
use schemas::holder::HolderRef;
use schemas::identifier::{CertificateIdentifier, Uscc};

/// An auditor's question; every filter that is there must match.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Why the auditor asks; the holders whose records are shown are told.
    pub purpose: String,
    /// The user at the auditor's side.
    pub user_name: String,
    /// Earliest moment, ms since 1970.
    pub from_ms: Option<u64>,
    /// Latest moment, ms since 1970.
    pub to_ms: Option<u64>,
    /// The caller of the entries.
    pub organisation: Option<Uscc>,
    /// A license, in any version.
    pub license: Option<CertificateIdentifier>,
    /// A holder concerned.
    pub holder: Option<HolderRef>,
    /// A case number (办件编号).
    pub business_code: Option<String>,
    /// A public code.
    pub code: Option<Code>,
    /// Entries from this index on.
    pub from_index: u64,
    /// Most entries of the page.
    pub limit: usize,
}
