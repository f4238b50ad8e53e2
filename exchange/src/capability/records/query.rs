//! `POST /v1/records/query`: a row of a hosted resource by its key, within an approval: its fields, masks, regions and quota follow from
//! that, and nothing is typed twice.
//!
//! The path alone calls it. A use and its counters are in one frame: a crash leaves both or neither.

use std::borrow::Cow;
use std::sync::Arc;

use ledger::{Key, Label};
use schemas::codes::{Code, Reason, Rule};
use schemas::date::rfc3339;
use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use schemas::resource::{Resource, Supply};
use schemas::routes::Route;
use schemas::sharing::{ApplicationState, ClockStep, Scope};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::standing;
use crate::capability::Capability;
use crate::capability::applications::{COUNTERSIGNED_LEVEL, allows};
use crate::gateway::case::{Case, Place};
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::{HOLDER, Names};
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::sharing::application::{Application, application_key};
use crate::sharing::clock;
use crate::sharing::quality::freshness;
use crate::sharing::region::StoredRow;
use crate::sharing::resource::{Listed, Step, add_step};
use crate::wire::named::{ContextValue, Holder, UseContext, context};
use crate::wire::read::{self, Body};
use crate::wire::refusal::{AccessRequest, Fault, Gather, Placed as _, Refusal};
use crate::wire::text::{Pairs, Text, names, unknown_resource};

/// The step of an application that its first query takes.
const FIRST_USE: &str = "first-use";

/// The capability.
pub(crate) struct Query;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Request<'a> {
    #[serde(borrow)]
    resource: Text<'a>,
    holder: Option<Holder<'a>>,
    key: Option<Pairs>,
    fields: Option<Vec<String>>,
    #[serde(rename = "use")]
    context: Option<ContextValue<'a>>,
}

/// A question for one row.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(super) resource: Cow<'a, str>,
    /// Whom the row is about.
    holder: Option<HolderRef>,
    /// The other key fields.
    key: Vec<(String, String)>,
    /// Fields wanted; none named: all that are approved.
    fields: Vec<String>,
    pub(super) context: UseContext<'a>,
}

impl<'a> Asked<'a> {
    /// A use that names no row.
    pub(crate) fn of(resource: Cow<'a, str>, context: UseContext<'a>) -> Self {
        Self { resource, holder: None, key: Vec::new(), fields: Vec::new(), context }
    }

    /// The same for these fields.
    pub(crate) fn with_fields(self, fields: Vec<String>) -> Self {
        Self { fields, ..self }
    }
}

/// A row that may be read.
#[derive(Debug)]
pub(crate) struct Granted {
    /// The label under whose key the resource's rows lie.
    rows: Label,
    row: Key,
    approved: Approved,
}

/// A use within an approval, however its resource is supplied.
#[derive(Debug)]
pub(crate) struct Approved {
    pub(super) listed: Arc<Listed>,
    pub(super) terms: Scope,
    pub(super) purpose: String,
    pub(super) application: Key,
    /// When approval or resource last changed, ms since 1970.
    pub(super) changed_ms: u64,
    /// The first use of an approval writes that it is in use.
    pub(super) first_use: Option<(Place, Application)>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    resource: &'a str,
    found: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    masked: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<String>,
    /// The row is older than the resource's update cycle promises.
    #[serde(skip_serializing_if = "Option::is_none")]
    late: Option<bool>,
    /// The resource has not been brought up to date within its update cycle.
    #[serde(skip_serializing_if = "Option::is_none")]
    stale: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_since: Option<String>,
    approval: Approval<'a>,
    as_of: String,
}

/// The approval that the answer is given under. Article 25 of decree 809: no other use, no passing on.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Approval<'a> {
    application: String,
    purpose: &'a str,
    until: String,
    passing_on: bool,
}

impl<'a> Approval<'a> {
    pub(super) fn new(application: Key, purpose: &'a str, terms: &Scope) -> Self {
        let (application, until) = (hex::encode(application), terms.until.to_string());
        Self { application, purpose, until, passing_on: false }
    }
}

impl<'r> Capability<'r> for Query {
    const ROUTE: Route = Route::RecordsQuery;
    type Asked = Asked<'r>;
    type Granted = Granted;

    fn read(body: Body<'r>) -> Result<Asked<'r>, Refusal> {
        read::json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked<'r>, _caller: &Uscc) -> Names<'a> {
        let names = Names {
            context: Some(&asked.context),
            resource: Some(&asked.resource),
            fields: asked.fields.iter().map(Cow::from).collect(),
            keys: asked.key.iter().map(|(key, _)| key.into()).collect(),
            ..Names::default()
        };
        asked.holder.iter().fold(names, |names, holder| names.person(holder, HOLDER))
    }

    fn decide(
        case: &mut Case<'_>,
        caller: &Participant,
        asked: &Asked<'r>,
    ) -> Result<Ruling<Granted>, Refusal> {
        let approved = approved(case, caller, asked, Supply::Hosted)?;
        let row = row_key(case, &approved.listed.resource, asked)?;
        let rows = approved.listed.rows_label().ok_or_else(|| Refusal::new(Code::Internal))?;
        Ok(ruled(case, caller, asked, approved, |approved| Granted { rows, row, approved }))
    }

    fn changed_ms(granted: &Granted) -> u64 {
        granted.approved.changed_ms
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked<'r>,
        permit: Permit<Granted>,
    ) -> Result<Vec<u8>, Refusal> {
        let (Granted { rows, row, approved }, disclosure) = permit.into_parts();
        let stored = change.row(&rows, &row, disclosure).await?;
        answered(change, asked, &approved, stored)
    }
}

/// The ruling of a use within an approval: it concerns the subject, and counts.
pub(super) fn ruled<G>(
    case: &mut Case<'_>,
    caller: &Participant,
    asked: &Asked<'_>,
    approved: Approved,
    granted: impl FnOnce(Approved) -> G,
) -> Ruling<G> {
    let holder = asked.holder.as_ref().and_then(|holder| case.holder(holder));
    let concerned = holder.into_iter().map(|holder| holder.label).collect();
    let counter = approved.terms.daily_limit.map(|limit| (approved.application, limit));
    Ruling::plain(granted(approved), concerned).approved(caller, case, counter)
}

/// The approval that a use of a resource rests on, if the resource is supplied in this way.
///
/// # Errors
/// The refusal; one for want of an approval says where to apply.
pub(crate) fn approved(
    case: &mut Case<'_>,
    caller: &Participant,
    asked: &Asked<'_>,
    supply: Supply,
) -> Result<Approved, Refusal> {
    let (_, listed) = case.resource(&asked.resource);
    let listed = listed.ok_or_else(|| unknown_resource("/resource"))?;
    if let Some(refusal) = standing(listed.state) {
        return Err(refusal);
    }
    let resource = &listed.resource;
    if resource.supply != supply {
        return Err(Refusal::explained(Code::ResourceRefused, Reason::OtherSupply));
    }
    let organisation = &caller.organisation;
    let key = application_key(case.keyed(), &asked.resource, organisation, &asked.context.item_code);
    let (place, application) = case.application(key);
    let needed = |case: &mut Case<'_>, reason| {
        Err(Refusal::explained(Code::ApprovalNeeded, reason).with_access(access(case, resource, asked)))
    };
    let Some(application) = application else { return needed(case, Reason::NoApproval) };
    let reason = match application.state {
        ApplicationState::Provided | ApplicationState::InUse => None,
        ApplicationState::Pending | ApplicationState::Countersign | ApplicationState::Agreed => {
            Some(Reason::ApprovalPending)
        }
        ApplicationState::Refused => Some(Reason::ApprovalRefused),
        ApplicationState::Stopped => Some(Reason::ApprovalStopped),
    };
    if let Some(reason) = reason {
        return needed(case, reason);
    }
    if resource.sharing_class == 3 {
        return Err(Refusal::explained(Code::ResourceRefused, Reason::NotShared));
    }
    // The level may have been raised since.
    if resource.level >= COUNTERSIGNED_LEVEL && !application.countersigned {
        return needed(case, Reason::ApprovalPending);
    }
    if !allows(resource, caller, &application.purpose) {
        return needed(case, Reason::OutsidePurpose);
    }
    let Some(terms) = application.terms.clone() else { return needed(case, Reason::ApprovalPending) };
    let end_ms =
        u64::try_from(terms.until.last_second()).unwrap_or(0).saturating_add(1).saturating_mul(1_000);
    if case.now_ms() >= end_ms {
        return needed(case, Reason::ApprovalEnded);
    }
    case.ends_at(end_ms);
    // That a row is found by a value says that value.
    let told = |(key, _): &(String, String)| {
        terms.fields.contains(key) && (!resource.masks(key) || terms.clear.contains(key))
    };
    let named = asked.fields.iter().all(|field| terms.fields.contains(field));
    if !named || !asked.key.iter().all(told) {
        return needed(case, Reason::OutsideApproval);
    }
    let first_use = (application.state == ApplicationState::Provided).then(|| {
        let mut application = Application::clone(&application);
        application.state = ApplicationState::InUse;
        let (at_ms, by) = (case.now_ms(), *organisation);
        add_step(&mut application.history, Step { at_ms, by, action: FIRST_USE.into(), note: None });
        (place, application)
    });
    let purpose = application.purpose.clone();
    let steps = application.history.iter().filter(|step| step.action != FIRST_USE);
    let changed_ms = steps.chain(&listed.history).map(|step| step.at_ms).max().unwrap_or(0);
    Ok(Approved { listed: Arc::clone(&listed), terms, purpose, application: key, changed_ms, first_use })
}

/// The answer that a row makes within an approval, and what the use writes beside it.
pub(super) fn answered(
    change: &mut Change<'_>,
    asked: &Asked<'_>,
    approved: &Approved,
    stored: Option<StoredRow>,
) -> Result<Vec<u8>, Refusal> {
    let Approved { listed, terms, purpose, application, first_use, .. } = approved;
    if let Some((place, application)) = first_use {
        change.keep(*place, application);
    }
    if let Some(holder) = &asked.holder {
        // Somebody who was never named gets a label by it: the first use stands in the trace like all others.
        change.concern(holder)?;
    }
    let resource = &listed.resource;
    let seen = stored.filter(|stored| {
        let region = resource.region.as_ref().and_then(|field| stored.value(field));
        terms.sees(region)
    });
    let fields = wanted(asked, approved);
    if asked.fields.is_empty() {
        let all = fields.iter().chain(asked.key.iter().map(|(key, _)| key));
        change.names().fields = all.map(|field| Cow::Owned(field.clone())).collect();
    }
    let now_ms = change.entry().now_ms;
    let late = |at_ms: u64| {
        let within = resource.update_cycle.within_ms()?;
        Some(now_ms.saturating_sub(at_ms) > within)
    };
    let (record, masked) = seen.as_ref().map(|stored| shown(resource, terms, fields, stored)).unzip();
    // An answer of an interface was brought in by nobody.
    let hosted = resource.supply == Supply::Hosted;
    let brought_in = seen.as_ref().filter(|_| hosted).map(|stored| stored.at_ms);
    let fresh = listed.rows_label().filter(|_| hosted);
    let fresh = fresh.map(|label| freshness(change.tools().ledger, resource, &label, now_ms));
    Ok(answer(&Answer {
        resource: &asked.resource,
        found: seen.is_some(),
        record,
        masked: masked.unwrap_or_default(),
        updated_at: brought_in.map(rfc3339),
        late: brought_in.and_then(late),
        stale: fresh.map(|fresh| fresh.stale),
        stale_since: fresh.and_then(|fresh| fresh.stale_since()),
        approval: Approval::new(*application, purpose, terms),
        as_of: change.as_of(),
    }))
}

/// Fields of a row as an approval shows them, and those that are masked.
pub(super) fn shown<'a>(
    resource: &'a Resource,
    terms: &Scope,
    fields: &[String],
    stored: &StoredRow,
) -> (Map<String, Value>, Vec<&'a str>) {
    let (mut record, mut masked) = (Map::new(), Vec::new());
    for field in resource.fields.iter().filter(|field| fields.contains(&field.key)) {
        let Some(value) = stored.value(&field.key) else { continue };
        let is_clear = !field.is_masked() || terms.clear.contains(&field.key);
        let value = if is_clear { value.to_owned() } else { field.masked(value) };
        if !is_clear {
            masked.push(field.key.as_str());
        }
        record.insert(field.key.clone(), value.into());
    }
    (record, masked)
}

/// The fields that an answer shows: those that are asked for, or all that are approved.
pub(super) fn wanted<'a>(asked: &'a Asked<'_>, approved: &'a Approved) -> &'a [String] {
    if asked.fields.is_empty() { &approved.terms.fields } else { &asked.fields }
}

/// The values that a row is found by, by field, in the order of the key. Each was checked by [`row_key`].
pub(super) fn key_values(resource: &Resource, asked: &Asked<'_>) -> Vec<(String, String)> {
    let subject = resource.subject.as_ref().map(|subject| subject.field.as_str());
    let value = |field: &String| {
        if Some(field.as_str()) == subject {
            return asked.holder.as_ref().map(|holder| holder.number().to_owned());
        }
        asked.key.iter().find(|(name, _)| name == field).map(|(_, value)| value.clone())
    };
    resource.key.iter().filter_map(|field| Some((field.clone(), value(field)?))).collect()
}

/// The keyed name of a row: the resource, and the values of its key fields in their order.
pub(super) fn named<'v>(
    keyed: &ledger::KeyedHash,
    resource: &Resource,
    value: impl Fn(&str) -> Option<&'v str>,
) -> Option<Key> {
    let values = resource.key.iter().map(|field| value(field)).collect::<Option<Vec<_>>>()?;
    let parts: Vec<&[u8]> =
        std::iter::once(resource.code.as_bytes()).chain(values.into_iter().map(str::as_bytes)).collect();
    Some(keyed.key("row", &parts))
}

/// The row that a request names. Each key field is given once: the subject's by the holder, the others by `key`.
pub(super) fn row_key(case: &Case<'_>, resource: &Resource, asked: &Asked<'_>) -> Result<Key, Refusal> {
    let bad = |fault| Refusal::of(Code::BadRecords, fault);
    let mut wrong = Gather::new();
    match (&resource.subject, &asked.holder) {
        // Some numbers say their type themselves, such as those of residence permits.
        (Some(subject), Some(holder))
            if HolderRef::new(&subject.type_code, holder.number()).ok().as_ref() != Some(holder) =>
        {
            let fault = Fault::at("/holder/typeCode", Rule::OneOf).one_of([subject.type_code.clone()]);
            wrong.note(bad(fault));
        }
        (Some(_), None) => {
            wrong.note(bad(Fault::at("/holder", Rule::Required).form("whom the row is about")))
        }
        (None, Some(_)) => {
            wrong.note(bad(Fault::at("/holder", Rule::NotAllowed).form("its rows are about nobody")))
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    let subject = resource.subject.as_ref().map(|subject| subject.field.as_str());
    let others: Vec<&String> = resource.key.iter().filter(|field| Some(field.as_str()) != subject).collect();
    for (position, (name, value)) in asked.key.iter().enumerate() {
        let field = resource.field(name).filter(|_| others.contains(&name));
        let Some(field) = field else {
            let known = others.iter().map(|field| (*field).clone());
            wrong.note(bad(Fault::at("/key", Rule::UnknownMember).position(position + 1).one_of(known)));
            continue;
        };
        if field.kind.check(&field.key, field.max_length, value).is_err() {
            wrong.note(bad(
                Fault::at(format!("/key/{}", field.key), Rule::Pattern).form("a value of the field")
            ));
        }
    }
    for field in others {
        if !asked.key.iter().any(|(name, _)| name == field) {
            wrong.note(bad(Fault::at(format!("/key/{field}"), Rule::Required)));
        }
    }
    let key = named(case.keyed(), resource, |field| {
        if Some(field) == subject {
            return asked.holder.as_ref().map(|holder| holder.number());
        }
        asked.key.iter().find(|(name, _)| name == field).map(|(_, value)| value.as_str())
    });
    wrong.all(key)
}

/// Where the caller applies for the approval that is missing.
pub(super) fn access(case: &mut Case<'_>, resource: &Resource, asked: &Asked<'_>) -> AccessRequest {
    let calendars = case.calendars();
    let (class, now_ms) = (resource.sharing_class, case.now_ms());
    let running = clock::start(case.clocks(), ClockStep::Answer, class, now_ms, &calendars);
    // The caller's own words alone stand in it, and what the catalogue shows to all.
    let fields = resource.fields.iter().map(|field| field.key.as_str());
    let template = json!({
        "resource": resource.code,
        "itemCode": asked.context.item_code,
        "itemName": asked.context.item_name,
        "purpose": null,
        "scope": {"fields": fields.collect::<Vec<_>>(), "until": null},
    });
    AccessRequest {
        resource: resource.code.clone(),
        path: Route::ApplicationMake.path().unwrap_or_default(),
        template,
        answered_by: running.map(|running| running.due),
    }
}

impl<'a> Request<'a> {
    pub(crate) fn typed(self) -> Result<Asked<'a>, Refusal> {
        let mut wrong = Gather::new();
        let holder = wrong.take(self.holder.map(|holder| holder.typed()).transpose().under("holder"));
        let fields = wrong.take(names(self.fields.unwrap_or_default()).under("fields"));
        let context = wrong.take(context(self.context));
        let typed = || {
            Some(Asked {
                resource: self.resource.into_inner(),
                holder: holder?,
                key: self.key.unwrap_or_default().0,
                fields: fields?,
                context: context?,
            })
        };
        wrong.all(typed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_named_by_resource_and_values_in_their_order() {
        let keyed = ledger::KeyedHash::new(&[7; 32]);
        let mut resource = Resource::samples().remove(0);
        resource.key = vec!["a".into(), "b".into()];
        let name = |resource: &Resource, a: &'static str, b: &'static str| {
            named(&keyed, resource, |field| Some(if field == "a" { a } else { b })).expect("whole")
        };
        let first = name(&resource, "1", "2");
        assert_ne!(first, name(&resource, "2", "1"));
        assert_ne!(first, name(&resource, "12", ""));
        resource.code.push('0');
        assert_ne!(first, name(&resource, "1", "2"));
        assert_eq!(named(&keyed, &resource, |_| None), None);
    }
}
