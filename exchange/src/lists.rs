//! Pages of lists: the register, proposals, grants. What a caller may see of them was decided before.
//!
//! A page is bounded and made in a lane of its caller's. It ends with a cursor that the next one goes on from.

use std::sync::Arc;

use ledger::{DocumentKind, Grant, Key, Label, Ledger};
use schemas::date::rfc3339;
use schemas::identifier::{CertificateIdentifier, Uscc};
use schemas::license_type::{BASE_FIELDS, LicenseType};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::decide::List;
use crate::facts;
use crate::floor::{GRANT_ACTIVE, GRANT_REVOKED};
use crate::lane::Lane;
use crate::participant::Participant;
use crate::proposal::Proposal;
use crate::refusal::Refusal;
use crate::request::{Mode, Paging};

/// A page, and the labels of the holders whose grants it shows, each once.
pub(crate) async fn page(
    lane: &Arc<Lane<Uscc>>,
    caller: Uscc,
    ledger: &Ledger,
    list: List,
    paging: Paging,
    now_ms: u64,
) -> Result<(Value, Vec<Label>), Refusal> {
    let ledger = ledger.clone();
    let page = lane.run(caller, move || match list {
        List::Participants { only } => {
            let only = only.map(|organisation| facts::participant_key(&ledger, &organisation));
            let (rows, next) =
                documents(&ledger, DocumentKind::Participant, paging, |key, mut value: Value| {
                    let row = value.as_object_mut()?;
                    row.retain(|_, value| !value.is_null());
                    only.is_none_or(|only| only == *key).then_some(value)
                });
            (json!({"participants": rows, "next": next}), Vec::new())
        }
        List::Proposals => {
            let (rows, next) = documents(&ledger, DocumentKind::Proposal, paging, |key, value: Proposal| {
                Some(proposal(key, value, now_ms))
            });
            (json!({"proposals": rows, "next": next}), Vec::new())
        }
        List::GrantsOf { holder } => {
            let ids = holder.map(|label| {
                ledger.state().grants_of(&label, paging.after.as_ref(), paging.limit.saturating_add(1))
            });
            grants(&ledger, ids.unwrap_or_default(), paging.limit, now_ms, false)
        }
        List::GrantsTo { grantee } => {
            let after = paging.after.as_ref();
            let ids = ledger.state().grants_to(grantee.as_bytes(), after, paging.limit.saturating_add(1));
            grants(&ledger, ids, paging.limit, now_ms, true)
        }
    });
    page.await.map_err(Refusal::new)
}

/// The documents of a kind that `row` shows, by ascending key; with the cursor of the next page.
fn documents<T: DeserializeOwned>(
    ledger: &Ledger,
    kind: DocumentKind,
    paging: Paging,
    row: impl Fn(&Key, T) -> Option<Value>,
) -> (Vec<Value>, Option<String>) {
    let mut all = ledger.state().documents(kind);
    all.sort_unstable_by_key(|(key, _)| *key);
    let (mut rows, mut last) = (Vec::new(), None);
    for (key, document) in all.into_iter().filter(|(key, _)| paging.after.is_none_or(|after| *key > after)) {
        if rows.len() == paging.limit {
            return (rows, last.map(hex::encode::<Key>));
        }
        // The gateway wrote these bytes itself; what cannot be read is not shown.
        rows.extend(serde_json::from_slice(&document.value).ok().and_then(|value| row(&key, value)));
        last = Some(key);
    }
    (rows, None)
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
    more("organisation", proposal.registration.map(|new| new.participant.organisation.as_str().to_owned()));
    more("typeCode", proposal.publication.map(|new| new.code.as_str().to_owned()));
    row
}

/// The grants with these ids, of which one more than `limit` says that there is a next page.
fn grants(
    ledger: &Ledger,
    mut ids: Vec<Key>,
    limit: usize,
    now_ms: u64,
    live_only: bool,
) -> (Value, Vec<Label>) {
    let more = ids.len() > limit;
    ids.truncate(limit);
    let next = ids.last().filter(|_| more).map(hex::encode);
    let (mut rows, mut shown) = (Vec::new(), Vec::new());
    for id in ids {
        let Some(grant) = ledger.state().grant(&id) else { continue };
        let vouched = portal_vouches(ledger, &grant, now_ms);
        let live = grant.state == GRANT_ACTIVE && now_ms <= grant.until_ms && vouched;
        if live_only && !live {
            continue;
        }
        rows.push(row(ledger, &id, &grant, vouched));
        if !shown.contains(&grant.holder) {
            shown.push(grant.holder);
        }
    }
    (json!({"grants": rows, "next": next}), shown)
}

fn portal_vouches(ledger: &Ledger, grant: &Grant, now_ms: u64) -> bool {
    let portal = std::str::from_utf8(&grant.portal).ok().and_then(|code| code.parse::<Uscc>().ok());
    let key = portal.map(|portal| facts::participant_key(ledger, &portal));
    let document = key.and_then(|key| ledger.state().document(DocumentKind::Participant, &key));
    let portal = document.and_then(|found| serde_json::from_slice::<Participant>(&found.value).ok());
    portal.is_some_and(|portal| portal.vouches_at(now_ms))
}

fn row(ledger: &Ledger, id: &Key, grant: &Grant, vouched: bool) -> Value {
    let definition = |key: &Key| {
        let document = ledger.state().document(DocumentKind::LicenseType, key)?;
        serde_json::from_slice::<LicenseType>(&document.value).ok()
    };
    let mut row = Map::new();
    let mut put = |name: &str, value: Value| drop(row.insert(name.to_owned(), value));
    put("grant", hex::encode(id).into());
    let state = match grant.state {
        GRANT_ACTIVE => "active",
        GRANT_REVOKED => "revoked",
        _ => "paused",
    };
    put("state", state.into());
    put("grantee", String::from_utf8_lossy(&grant.grantee).into());
    put("portal", String::from_utf8_lossy(&grant.portal).into());
    put("portalVouches", vouched.into());
    let license_type = if grant.target_is_type {
        definition(&grant.target)
    } else {
        // What was erased, or is archived and away, is not named.
        let license = ledger.state().license(&grant.target);
        let envelope = license.and_then(|license| facts::stored_envelope(ledger, &license).ok());
        let identifier = envelope.and_then(|envelope| facts::identifier_in(&envelope).ok());
        let parsed = identifier.as_ref().and_then(|text| text.parse::<CertificateIdentifier>().ok());
        if let Some(identifier) = identifier {
            put("identifier", identifier.into());
        }
        parsed.and_then(|parsed| definition(&facts::type_key(ledger, &parsed.type_code())))
    };
    if let Some(license_type) = license_type.as_ref().filter(|_| grant.target_is_type) {
        put("typeCode", license_type.code.as_str().into());
    }
    let modes = Mode::ALL.iter().filter(|mode| grant.modes & mode.bit() != 0).map(|mode| mode.name());
    put("modes", modes.collect::<Vec<_>>().into());
    let base = BASE_FIELDS.iter().copied().zip((0..64_u32).rev());
    let own = license_type.iter().flat_map(|license_type| &license_type.fields);
    let fields = base.chain(own.map(|field| field.key.as_str()).zip(0..));
    let fields = fields.filter(|(_, bit)| grant.fields & 1 << bit != 0).map(|(name, _)| name);
    put("fields", fields.collect::<Vec<_>>().into());
    put("forOneItem", (grant.item_tag != 0).into());
    put("until", rfc3339(grant.until_ms).into());
    put("uses", ledger.state().counter(&grant.key, 0).into());
    if grant.max_uses != 0 {
        put("maxUses", grant.max_uses.into());
    }
    Value::Object(row)
}
