//! Pages of lists: the register, proposals, grants, an authority's licenses. What a caller may see of them was decided before.
//!
//! A page is bounded and made in a lane of its caller's. It ends with a cursor that the next one goes on from, and says when
//! it was read.

use std::sync::Arc;

use ledger::{Document, DocumentKind, Grant, Key, Label, Ledger};
use schemas::codes::Code;
use schemas::date::{Date, rfc3339};
use schemas::identifier::{CertificateIdentifier, LicenseTypeCode, Uscc};
use schemas::license_type::{BASE_FIELDS, LicenseType};
use schemas::state::LicenseState;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::decide::List;
use crate::effect;
use crate::facts;
use crate::floor::{GRANT_ACTIVE, GRANT_REVOKED};
use crate::lane::Lane;
use crate::participant::Participant;
use crate::proposal::Proposal;
use crate::refusal::Refusal;
use crate::request::{Mode, Paging};

/// Licenses that a page looks at: where few pass the filters, the rest is left to the next pages.
const MAX_LOOKED_AT: usize = 1_000;

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
    let read = lane.run(caller, move || {
        Ok(match list {
            List::Participants { only } => {
                let kind = DocumentKind::Participant;
                let all = match only.map(|organisation| facts::participant_key(&ledger, &organisation)) {
                    Some(key) => ledger
                        .state()
                        .document(kind, &key)
                        .map(|document| (key, document))
                        .into_iter()
                        .collect(),
                    None => ledger.state().documents(kind),
                };
                let (rows, next) = documents(all, paging, |_, mut value: Value| {
                    value.as_object_mut()?.retain(|_, value| !value.is_null());
                    Some(value)
                });
                (json!({"participants": rows, "next": next}), Vec::new())
            }
            List::Proposals => {
                let all = ledger.state().documents(DocumentKind::Proposal);
                let (rows, next) =
                    documents(all, paging, |key, value: Proposal| Some(proposal(key, value, now_ms)));
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
            List::Issued { issuer, type_code, state } => {
                let keys = ledger.state().issued(issuer.as_bytes(), paging.after.as_ref(), MAX_LOOKED_AT + 1);
                let (rows, next) = looked_at(keys, paging.limit, |key| {
                    issued(&ledger, key, type_code.as_ref(), state, now_ms)
                })?;
                (json!({"licenses": rows, "next": next}), Vec::new())
            }
        })
    });
    let (mut page, shown): (Value, _) = read.await.map_err(Refusal::new)??;
    if let Some(page) = page.as_object_mut() {
        page.insert("asOf".to_owned(), rfc3339(now_ms).into());
    }
    Ok((page, shown))
}

/// The rows of what passes among these keys, and the cursor of the next page. Of more keys than a page looks at the last one
/// is looked at by the next page, also where this one has less than `limit` rows.
fn looked_at(
    keys: Vec<Key>,
    limit: usize,
    mut row: impl FnMut(&Key) -> Result<Option<Value>, Refusal>,
) -> Result<(Vec<Value>, Option<String>), Refusal> {
    let (mut rows, mut last) = (Vec::new(), None);
    for (before, key) in keys.into_iter().enumerate() {
        if rows.len() == limit || before == MAX_LOOKED_AT {
            return Ok((rows, last.map(hex::encode::<Key>)));
        }
        rows.extend(row(&key)?);
        last = Some(key);
    }
    Ok((rows, None))
}

/// A license as its issuing authority sees it in a list, if it passes. Nothing of its holders: who they are is told by a
/// search or a look-up, which they learn of.
fn issued(
    ledger: &Ledger,
    key: &Key,
    type_code: Option<&LicenseTypeCode>,
    state: Option<LicenseState>,
    now_ms: u64,
) -> Result<Option<Value>, Refusal> {
    let license = ledger.state().license(key);
    let Some(license) = license.filter(|license| state.is_none_or(|state| license.state == state.number()))
    else {
        return Ok(None);
    };
    let envelope = match facts::stored_envelope(ledger, &license) {
        // The identifier went with its holder.
        Err(refusal) if refusal.code == Code::Erased => return Ok(None),
        envelope => envelope?,
    };
    let identifier = facts::identifier_in(&envelope)?;
    if let Some(type_code) = type_code {
        let parsed: Option<CertificateIdentifier> = identifier.parse().ok();
        if parsed.is_none_or(|parsed| parsed.type_code() != *type_code) {
            return Ok(None);
        }
    }
    let day = |day: i32| Date::from_days(day).map(|day| day.to_string());
    let mut row = json!({
        "identifier": identifier, "state": effect::state_code(&license),
        "inForce": effect::in_force(now_ms, &license), "validFrom": day(license.valid_from_day),
    });
    if license.valid_until_day != i32::MAX
        && let Some(row) = row.as_object_mut()
    {
        row.insert("validUntil".to_owned(), day(license.valid_until_day).into());
    }
    Ok(Some(row))
}

/// Rows of these documents that `row` shows, by ascending key; with the cursor of the next page.
fn documents<T: DeserializeOwned>(
    mut all: Vec<(Key, Document)>,
    paging: Paging,
    row: impl Fn(&Key, T) -> Option<Value>,
) -> (Vec<Value>, Option<String>) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_whole_however_few_pass() {
        const WANTED: u32 = 700;
        let all: Vec<Key> = (0..3_000_u128).map(u128::to_be_bytes).collect();
        let passes = |key: &Key| u128::from_be_bytes(*key).is_multiple_of(u128::from(WANTED));
        for limit in [1, 2, 100] {
            let (mut found, mut after, mut pages) = (Vec::new(), None::<Key>, 0);
            loop {
                let behind = all.iter().filter(|key| after.is_none_or(|after| **key > after));
                let keys = behind.copied().take(MAX_LOOKED_AT + 1).collect();
                let mut looks = 0;
                let page = looked_at(keys, limit, |key| {
                    looks += 1;
                    Ok(passes(key).then(|| hex::encode(key).into()))
                });
                let (rows, next) = page.expect("nothing is read");
                assert!(rows.len() <= limit && looks <= MAX_LOOKED_AT, "{looks}");
                found.extend(rows);
                pages += 1;
                let Some(next) = next else { break };
                after = Some(hex::decode(next).expect("hex").try_into().expect("a key"));
            }
            let wanted = all.iter().filter(|key| passes(key)).map(|key| Value::from(hex::encode(key)));
            assert_eq!(found, wanted.collect::<Vec<_>>(), "{limit}");
            assert!(pages >= 3);
        }
    }
}
