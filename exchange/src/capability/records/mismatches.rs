//! `POST /v1/records/mismatches`: where licenses and base resources disagree, for the issuers and providers whose they are; all of them to
//! operators and auditors.
//!
//! The path alone calls it. It reads, so a crash leaves nothing.

use ledger::{DocumentKind, Key, Ledger};
use schemas::codes::Code;
use schemas::date::rfc3339;
use schemas::identifier::Uscc;
use schemas::routes::Route;
use schemas::sharing::MismatchState;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::capability::Capability;
use crate::capability::licenses::stored;
use crate::capability::pages::{listed, looked_at, owned, whose};
use crate::gateway::case::Case;
use crate::gateway::change::Change;
use crate::gateway::names::Names;
use crate::gateway::permit::{Disclosure, Permit, Ruling};
use crate::participant::Participant;
use crate::sharing::mismatch::Mismatch;
use crate::wire::read::{self, Body};
use crate::wire::refusal::Refusal;
use crate::wire::text::{Paging, PagingValue};

/// The capability.
pub(crate) struct Mismatches;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request {
    resource: Option<String>,
    state: Option<MismatchState>,
    after: Option<String>,
    limit: Option<u64>,
}

/// A question for mismatches.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    resource: Option<String>,
    state: Option<MismatchState>,
    paging: Paging,
}

impl Capability<'_> for Mismatches {
    const ROUTE: Route = Route::RecordsMismatches;
    type Asked = Asked;
    /// The organisation whose are shown; `None` for all.
    type Granted = Option<Uscc>;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        let Request { resource, state, after, limit } = read::json(body.bytes)?;
        Ok(Asked { resource, state, paging: PagingValue { after, limit }.typed()? })
    }

    fn names<'a>(_asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        Names::default()
    }

    fn decide(
        _case: &mut Case<'_>,
        caller: &Participant,
        _asked: &Asked,
    ) -> Result<Ruling<Option<Uscc>>, Refusal> {
        // A page names licenses and nobody, so it concerns nobody.
        Ok(Ruling::plain(whose(caller), Vec::new()))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Option<Uscc>>,
    ) -> Result<Vec<u8>, Refusal> {
        let ((whose, right), asked) = (permit.into_parts(), asked.clone());
        let (page, ()) = listed(change, move |ledger| {
            let found = owned(ledger, DocumentKind::Mismatch, whose, asked.paging.after.as_ref());
            let keys = found.into_iter().map(|(key, _)| key).collect();
            let (rows, next) = looked_at(keys, asked.paging.limit, |key| row(ledger, right, key, &asked))?;
            Ok((json!({"mismatches": rows, "next": next}), ()))
        })
        .await?;
        Ok(page)
    }
}

fn row(ledger: &Ledger, right: Disclosure, key: &Key, asked: &Asked) -> Result<Option<Value>, Refusal> {
    // The gateway wrote these bytes itself; what cannot be read is not shown.
    let document = ledger.state().document(DocumentKind::Mismatch, key);
    let mismatch = document.and_then(|document| serde_json::from_slice::<Mismatch>(&document.value).ok());
    let passes = |mismatch: &Mismatch| {
        asked.resource.as_ref().is_none_or(|resource| *resource == mismatch.resource)
            && asked.state.is_none_or(|state| state == mismatch.state)
    };
    let Some(mismatch) = mismatch.filter(passes) else { return Ok(None) };
    let license = mismatch.license_key().and_then(|key| ledger.state().license(&key));
    let Some(license) = license else { return Ok(None) };
    let identifier = match stored::envelope(ledger, &license, right) {
        // The identifier went with its holder.
        Err(refusal) if refusal.code == Code::Erased => return Ok(None),
        envelope => stored::identifier_in(&envelope?)?,
    };
    Ok(Some(json!({
        "license": identifier, "resource": mismatch.resource, "issuer": mismatch.issuer, "provider": mismatch.provider,
        "fields": mismatch.fields, "state": mismatch.state, "foundAt": rfc3339(mismatch.found_ms),
        "comparedAt": rfc3339(mismatch.compared_ms),
    })))
}
