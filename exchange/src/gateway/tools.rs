//! The tools that carry permits out and make entries: the ledger, its checkpoints, the lanes, the signers. No rule
//! stands here. The gateway owns them and lends them for one effect. They are memory.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use ledger::record::Record;
use ledger::{HolderKey, Key, Label, Ledger};
use schemas::codes::Code;
use schemas::identifier::Uscc;
use schemas::routes::Route;
use verifier::Hash;

use super::parsed::Documents;
use crate::cosign::Cosigning;
use crate::current::Current;
use crate::lane::Lane;
use crate::sharing::resource::Listed;
use crate::signer::Signers;
use crate::wire::machine::Form;
use crate::wire::refusal::{Language, Refusal};

/// Places for reads of the public log.
const PUBLIC_PLACES: usize = 8;

/// Where what reads much from disk is read: each kind apart from the others.
pub struct Lanes {
    /// Pages of traces and log queries.
    pub pages: Arc<Lane<Uscc>>,
    /// Contents of search answers and pages of lists, and answers that are given again.
    pub searches: Arc<Lane<Uscc>>,
    /// The public log, for whoever is at an address.
    pub public: Arc<Lane<IpAddr>>,
}

impl Lanes {
    /// Lanes for this machine's processors.
    pub(super) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            pages: Lane::new((processors / 4).max(2)),
            searches: Lane::new(2 * processors),
            public: Lane::new(PUBLIC_PLACES),
        }
    }
}

/// The caller and the request, as an entry records them.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// Route.
    pub route: Route,
    /// Organisation of the certificate.
    pub organisation: &'a Uscc,
    /// The form of the answer, if it is permitted.
    pub form: Form,
    /// The language of a refusal.
    pub language: Language,
    /// The body as received; `None` when it was not read to its end.
    pub body: Option<&'a [u8]>,
    /// Bound when the permit commits: key and keyed hash of the request.
    pub idempotency: Option<(Key, Key)>,
    /// Now, ms since 1970.
    pub now_ms: u64,
    /// Until when the holders concerned are not told, ms since 1970; 0 = at once.
    pub release_ms: u64,
    /// Hash of the policy that it is decided by.
    pub policy: Hash,
}

impl Entry<'_> {
    /// The release moment of an entry that concerns these holders: what concerns nobody is kept from nobody.
    pub(super) fn release_of(&self, concerned: &[Label]) -> u64 {
        if concerned.is_empty() { 0 } else { self.release_ms }
    }
}

/// The tools that effects are made with.
pub struct Tools<'a> {
    /// The ledger.
    pub ledger: &'a Ledger,
    /// Its checkpoints, as the public sees them.
    pub cosigning: &'a Cosigning,
    /// Where what reads much is read.
    pub lanes: &'a Lanes,
    /// Signing queues.
    pub signers: &'a Current<Signers>,
    /// The catalogue of resources, parsed.
    pub(crate) resources: &'a Arc<Documents<Key, Listed>>,
}

impl Tools<'_> {
    /// Makes a record concern those of known holders who are not erased: an entry concerns the living. Gives the keys that
    /// seal what it says to them, born in the record where the year is new, of the retention class of the route. A living holder without a key is a fault: its data
    /// is never sealed under another key instead.
    ///
    /// # Errors
    /// [`Code::Internal`]
    pub(super) fn living(
        &self,
        route: Route,
        labels: &[Label],
        record: &mut Record,
    ) -> Result<Vec<HolderKey>, Refusal> {
        let state = self.ledger.state();
        let mut keys = Vec::with_capacity(labels.len());
        record.concerned = Vec::with_capacity(labels.len());
        for label in labels {
            match self.ledger.sealing_key_in(class_of(route), label, record) {
                Some(key) => {
                    record.concerned.push(*label);
                    keys.push(key);
                }
                None if state.holder_by_label(label).is_some_and(|holder| holder.erased) => {}
                None => return Err(Refusal::new(Code::Internal)),
            }
        }
        Ok(keys)
    }
}

/// The retention class of what a route tells.
pub(super) fn class_of(route: Route) -> u8 {
    if route.is_use() { ledger::USES } else { ledger::STANDARD }
}
