//! `POST /v1/records/compare`: a license against its row of a base resource (比对), field by field, for the license's issuer or the
//! resource's provider. Each learns whether the other's value is the same, and not the value.
//!
//! The path alone calls it. The answer and the mismatch that it opens or closes are one entry: a crash leaves both or neither.

use std::borrow::Cow;
use std::sync::Arc;

use ledger::record::CounterUse;
use ledger::{Key, Label};
use schemas::codes::{Code, Reason};
use schemas::identifier::{CertificateIdentifier, Uscc};
use schemas::license_type::LicenseType;
use schemas::resource::{Compared, Resource, Supply};
use schemas::routes::Route;
use schemas::sharing::{Agreement, MismatchState};
use schemas::text::fold;
use serde::{Deserialize, Serialize};

use super::query::named;
use super::standing;
use crate::capability::Capability;
use crate::capability::licenses::stored;
use crate::capability::verify::{MISMATCHES_A_DAY, mismatch_key as guesses_key};
use crate::gateway::case::{Case, Found, Place};
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::{About, Names};
use crate::gateway::permit::{Permit, Ruling};
use crate::keyed;
use crate::participant::Participant;
use crate::sharing::mismatch::{Mismatch, mismatch_key};
use crate::sharing::parties::Parties;
use crate::sharing::region::StoredRow;
use crate::sharing::resource::Listed;
use crate::wire::read::{self, Body};
use crate::wire::refusal::{Gather, Placed as _, Refusal};
use crate::wire::text::{reason, unknown_resource};

/// How much of license and row is used.
const MODE: &str = "compare";

/// The capability.
pub(crate) struct Compare;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request {
    resource: String,
    license: String,
    reason: String,
}

/// A comparison that is asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    resource: String,
    license: CertificateIdentifier,
    reason: String,
}

/// A comparison that may be made.
#[derive(Debug)]
pub(crate) struct Granted {
    listed: Arc<Listed>,
    license_type: Option<Arc<LicenseType>>,
    found: Found,
    /// The authority that issued it.
    issuer: Uscc,
    rows: Label,
    /// Where the mismatch of license and resource stands, or may.
    place: Place,
    before: Option<Mismatch>,
    /// Counter and day of the caller's failed guesses of this license.
    guesses: (Key, u32),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    resource: &'a str,
    license: String,
    /// There is a row of the license's holder.
    found: bool,
    fields: Vec<Field<'a>>,
    /// Where the mismatch of the two stands, if there ever was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    mismatch: Option<MismatchState>,
    as_of: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Field<'a> {
    field: &'a str,
    license_field: &'a str,
    outcome: Agreement,
}

/// The mapping of a license type in a resource.
fn mapping<'a>(resource: &'a Resource, license: &CertificateIdentifier) -> Option<&'a Compared> {
    resource.compared.iter().find(|compared| compared.type_code == license.type_code().as_str())
}

impl Capability<'_> for Compare {
    const ROUTE: Route = Route::RecordsCompare;
    type Asked = Asked;
    type Granted = Granted;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        let Request { resource, license, reason: words } = read::json(body.bytes)?;
        let mut wrong = Gather::new();
        let license = wrong.take(Refusal::parse::<CertificateIdentifier>(&license).under("license"));
        let reason = wrong.take(reason(words));
        wrong.all(license.zip(reason).map(|(license, reason)| Asked { resource, license, reason }))
    }

    fn names<'a>(asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        Names {
            about: About::Licenses(std::slice::from_ref(&asked.license)),
            identifiers: vec![Cow::Owned(asked.license.to_string())],
            resource: Some(&asked.resource),
            reason: &asked.reason,
            mode: Some(MODE),
            ..Names::default()
        }
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Asked) -> Result<Ruling<Granted>, Refusal> {
        let (_, listed) = case.resource(&asked.resource);
        let listed = listed.ok_or_else(|| unknown_resource("/resource"))?;
        if let Some(refusal) = standing(listed.state) {
            return Err(refusal);
        }
        let resource = &listed.resource;
        if resource.supply != Supply::Hosted {
            return Err(Refusal::explained(Code::ResourceRefused, Reason::OtherSupply));
        }
        if resource.sharing_class == 3 {
            return Err(Refusal::explained(Code::ResourceRefused, Reason::NotShared));
        }
        if mapping(resource, &asked.license).is_none() {
            return Err(Refusal::explained(Code::ResourceRefused, Reason::NotCompared));
        }
        // One who has neither side learns nothing of either.
        let organisation = &caller.organisation;
        let issuer = asked
            .license
            .issuer()
            .uscc()
            .filter(|issuer| issuer == organisation || listed.provider == *organisation);
        let issuer = issuer.ok_or_else(|| Refusal::not_permitted(Reason::OtherIssuer))?;
        let license = case.license(keyed::license_key(case.keyed(), &asked.license));
        let version = asked.license.version();
        let found = license.filter(|found| found.license.certificate_version == version);
        let found = found.ok_or_else(|| Refusal::not_permitted(Reason::NoSuchLicense))?;
        let guesses = (guesses_key(case, caller, &found.key), case.today());
        if case.counter(&guesses.0, guesses.1) >= MISMATCHES_A_DAY {
            return Err(Refusal::new(Code::TooManyMismatches));
        }
        let license_type = case.license_type(&asked.license.type_code());
        let key = mismatch_key(case.keyed(), &asked.resource, &found.key);
        let (place, before) = case.document::<Mismatch>(key);
        let rows = listed.rows_label().ok_or_else(|| Refusal::new(Code::Internal))?;
        let concerned = found.license.holders.clone();
        let granted = Granted { listed, license_type, found, issuer, rows, place, before, guesses };
        Ok(Ruling::plain(granted, concerned).unnamed())
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Granted>,
    ) -> Result<Vec<u8>, Refusal> {
        let (granted, right) = permit.into_parts();
        let Granted { listed, license_type, found, issuer, rows, place, before, guesses: (key, day) } =
            granted;
        let resource = &listed.resource;
        let compared = mapping(resource, &asked.license).ok_or_else(|| Refusal::new(Code::Internal))?;
        let content = stored::content(change.tools().ledger, &found.license, right)?;
        let face = content.face();
        let subject = resource.subject.as_ref();
        let holder = subject
            .and_then(|subject| content.holders.iter().find(|holder| holder.type_code == subject.type_code));
        let of_license = |field: &str| {
            if subject.is_some_and(|subject| subject.field == field) {
                return holder.map(|holder| holder.number.as_str());
            }
            let name = compared.fields.get(field)?;
            face.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
        };
        let stored = match named(change.tools().ledger.keyed(), resource, of_license) {
            Some(row) => change.row(&rows, &row, right).await?,
            // The license lacks a part of the key.
            None => None,
        };
        let outcome = |field: &str, license_field: &str| {
            outcome(license_type.as_deref(), license_field, of_license(field), stored.as_ref(), field)
        };
        let fields: Vec<Field<'_>> = compared
            .fields
            .iter()
            .map(|(field, license_field)| Field {
                field,
                license_field,
                outcome: outcome(field, license_field),
            })
            .collect();
        let differ: Vec<String> = fields
            .iter()
            .filter(|field| field.outcome == Agreement::Mismatch)
            .map(|field| field.field.to_owned())
            .collect();
        change.names().fields = compared.fields.keys().map(|field| Cow::Owned(field.clone())).collect();
        // A side that writes its own value anew and compares again is guessing: it has five guesses a day.
        let (amount, limit) =
            if differ.is_empty() { (0, MISMATCHES_A_DAY - 1) } else { (1, MISMATCHES_A_DAY) };
        change.count(CounterUse { key, day, amount, limit }, || Refusal::new(Code::TooManyMismatches))?;
        let now_ms = change.entry().now_ms;
        let open = !differ.is_empty();
        // Without a row nothing was compared, and what was found before stands.
        let after = match before {
            Some(before) if stored.is_some() => Some(Mismatch {
                fields: if open { differ } else { before.fields },
                state: if open { MismatchState::Open } else { MismatchState::Corrected },
                compared_ms: now_ms,
                ..before
            }),
            None if open => Some(Mismatch {
                resource: asked.resource.clone(),
                license: hex::encode(found.key),
                issuer,
                provider: listed.provider,
                fields: differ,
                state: MismatchState::Open,
                found_ms: now_ms,
                compared_ms: now_ms,
                parties: Parties::new(change.tools().ledger.keyed(), &issuer, &listed.provider),
            }),
            before => before,
        };
        if let Some(after) = after.as_ref().filter(|after| after.compared_ms == now_ms) {
            change.keep(place, after);
        }
        Ok(answer(&Answer {
            resource: &asked.resource,
            license: asked.license.to_string(),
            found: stored.is_some(),
            fields,
            mismatch: after.map(|after| after.state),
            as_of: change.as_of(),
        }))
    }
}

/// How a value of a license and one of a row stand to each other, compared as the license type says.
fn outcome(
    license_type: Option<&LicenseType>,
    license_field: &str,
    license: Option<&str>,
    row: Option<&StoredRow>,
    field: &str,
) -> Agreement {
    let Some((license, row)) = license.zip(row.and_then(|row| row.value(field))) else {
        return Agreement::Absent;
    };
    let same = match license_type.map(|license_type| license_type.comparison(license_field)) {
        Some(comparison) => fold(comparison, license) == fold(comparison, row),
        None => license == row,
    };
    if same { Agreement::Match } else { Agreement::Mismatch }
}
