//! `POST /v1/admin/proposals/list`: what was proposed.
//!
//! The path alone calls it. It changes no proposal: a crash leaves its entry or nothing.

use ledger::{DocumentKind, Key};
use schemas::date::rfc3339;
use schemas::identifier::Uscc;
use schemas::routes::Route;
use serde_json::{Value, json};

use super::Proposal;
use crate::capability::Capability;
use crate::capability::pages::{behind, documents, listed};
use crate::gateway::case::Case;
use crate::gateway::change::Change;
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::wire::read::{self, Body};
use crate::wire::refusal::Refusal;
use crate::wire::text::{Paging, PagingValue};

/// The capability.
pub(crate) struct List;

impl Capability<'_> for List {
    const ROUTE: Route = Route::ProposalList;
    type Asked = Paging;
    type Granted = ();

    fn read(body: Body<'_>) -> Result<Paging, Refusal> {
        read::json::<PagingValue>(body.bytes)?.typed()
    }

    fn names<'a>(_asked: &'a Paging, _caller: &Uscc) -> Names<'a> {
        Names::default()
    }

    fn decide(_case: &mut Case<'_>, _caller: &Participant, _asked: &Paging) -> Result<Ruling<()>, Refusal> {
        Ok(Ruling::plain((), Vec::new()))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Paging,
        _permit: Permit<()>,
    ) -> Result<Vec<u8>, Refusal> {
        let (paging, now_ms) = (*asked, change.entry().now_ms);
        let (page, ()) = listed(change, move |ledger| {
            let found = behind(ledger, DocumentKind::Proposal, paging);
            let (rows, next) =
                documents(&found, paging, |key, value: Proposal| Some(proposal(key, value, now_ms)));
            Ok((json!({"proposals": rows, "next": next}), ()))
        })
        .await?;
        Ok(page)
    }
}

/// A proposal as operators see it: of a registration or a definition no more than what it is of, because who approves has
/// the rest from who proposed it.
fn proposal(key: &Key, proposal: Proposal, now_ms: u64) -> Value {
    let state = match proposal.approved_by {
        Some(_) => "approved",
        None if proposal.is_open(now_ms) => "open",
        None => "expired",
    };
    let mut row = json!({
        "proposal": hex::encode(key), "kind": proposal.kind, "state": state, "by": proposal.by,
        "at": rfc3339(proposal.at_ms),
    });
    let mut more = |name: &str, value: Option<String>| {
        if let (Some(value), Some(row)) = (value, row.as_object_mut()) {
            row.insert(name.to_owned(), value.into());
        }
    };
    more("approvedBy", proposal.approved_by.map(|by| by.as_str().to_owned()));
    let registered = proposal.registration.map(|new| new.participant.organisation);
    let provider = proposal.address.map(|new| new.address.organisation);
    more("organisation", registered.or(provider).map(|organisation| organisation.as_str().to_owned()));
    more("typeCode", proposal.publication.map(|new| new.code.as_str().to_owned()));
    row
}
