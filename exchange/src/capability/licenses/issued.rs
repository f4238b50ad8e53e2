//! `POST /v1/licenses/issued`: an issuing authority's own licenses, by pages.
//!
//! The path alone calls it. It changes no license: a crash leaves its entry or nothing.

use ledger::{Key, Ledger};
use schemas::codes::{Code, Rule};
use schemas::date::Date;
use schemas::identifier::{CertificateIdentifier, LicenseTypeCode, Uscc};
use schemas::routes::Route;
use schemas::state::LicenseState;
use serde::Deserialize;
use serde_json::{Value, json};

use super::stored;
use crate::capability::Capability;
use crate::capability::pages::{MAX_LOOKED_AT, listed, looked_at};
use crate::gateway::case::Case;
use crate::gateway::change::Change;
use crate::gateway::names::Names;
use crate::gateway::permit::{Disclosure, Permit, Ruling};
use crate::participant::Participant;
use crate::wire::read::{self, Body};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::{Paging, PagingValue, Text, type_code};

/// The capability.
pub(crate) struct Issued;

/// A question of an issuing authority for its own licenses; every filter that is there must match.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Licenses of this type only.
    pub type_code: Option<LicenseTypeCode>,
    /// In this state.
    pub state: Option<LicenseState>,
    /// Which page.
    pub paging: Paging,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    type_code: Option<Text<'a>>,
    state: Option<Text<'a>>,
    after: Option<String>,
    limit: Option<u64>,
}

impl Capability<'_> for Issued {
    const ROUTE: Route = Route::IssuedList;
    type Asked = Asked;
    type Granted = Uscc;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        read::json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(_asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        Names::default()
    }

    fn decide(_case: &mut Case<'_>, caller: &Participant, _asked: &Asked) -> Result<Ruling<Uscc>, Refusal> {
        // The page says nothing of holders, so it concerns none.
        Ok(Ruling::plain(caller.organisation, Vec::new()))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Uscc>,
    ) -> Result<Vec<u8>, Refusal> {
        let (issuer, right) = permit.into_parts();
        let Asked { type_code, state, paging } = *asked;
        let now_ms = change.entry().now_ms;
        let (page, ()) = listed(change, move |ledger| {
            let keys = ledger.state().issued(issuer.as_bytes(), paging.after.as_ref(), MAX_LOOKED_AT + 1);
            let (rows, next) = looked_at(keys, paging.limit, |key| {
                issued(ledger, right, key, type_code.as_ref(), state, now_ms)
            })?;
            Ok((json!({"licenses": rows, "next": next}), ()))
        })
        .await?;
        Ok(page)
    }
}

impl Request<'_> {
    fn typed(self) -> Result<Asked, Refusal> {
        let mut wrong = Gather::new();
        let type_code = wrong.take(self.type_code.as_deref().map(type_code).transpose().under("typeCode"));
        let state = self.state.as_deref().map(|code| {
            let fault = || {
                let codes = LicenseState::ALL.iter().map(|state| state.code());
                Fault::at("/state", Rule::OneOf).one_of(codes).got(code.chars().count())
            };
            let state = LicenseState::ALL.iter().copied().find(|state| state.code() == code);
            state.ok_or_else(|| Refusal::of(Code::MalformedRequest, fault()))
        });
        let state = wrong.take(state.transpose());
        let paging = wrong.take(PagingValue { after: self.after, limit: self.limit }.typed());
        let typed = || {
            let (type_code, state, paging) = (type_code?, state?, paging?);
            Some(Asked { type_code, state, paging })
        };
        wrong.all(typed())
    }
}

/// A license as its issuing authority sees it in a list, if it passes. Nothing of its holders: who they are is told by a
/// search or a look-up, which they learn of.
fn issued(
    ledger: &Ledger,
    right: Disclosure,
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
    let envelope = match stored::envelope(ledger, &license, right) {
        // The identifier went with its holder.
        Err(refusal) if refusal.code == Code::Erased => return Ok(None),
        envelope => envelope?,
    };
    let identifier = stored::identifier_in(&envelope)?;
    if let Some(type_code) = type_code {
        let parsed: Option<CertificateIdentifier> = identifier.parse().ok();
        if parsed.is_none_or(|parsed| parsed.type_code() != *type_code) {
            return Ok(None);
        }
    }
    let day = |day: i32| Date::from_days(day).map(|day| day.to_string());
    let mut row = json!({
        "identifier": identifier, "state": stored::state_code(&license),
        "inForce": stored::in_force(now_ms, &license), "validFrom": day(license.valid_from_day),
    });
    if license.valid_until_day != i32::MAX
        && let Some(row) = row.as_object_mut()
    {
        row.insert("validUntil".to_owned(), day(license.valid_until_day).into());
    }
    Ok(Some(row))
}
