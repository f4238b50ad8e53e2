//! `POST /v1/applications/list`: applications with their clocks, to both parties; all to operators and auditors.
//!
//! The path alone calls it. It reads, so a crash leaves nothing.

use ledger::{DocumentKind, Key, Ledger};
use schemas::codes::{Code, Rule};
use schemas::date::rfc3339;
use schemas::identifier::Uscc;
use schemas::routes::Route;
use schemas::sharing::ApplicationState;
use schemas::workday::{Calendar, Due};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::capability::Capability;
use crate::capability::pages::{MAX_LOOKED_AT, listed, owned, whose};
use crate::gateway::case::Case;
use crate::gateway::change::Change;
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::sharing::application::Application;
use crate::sharing::clock::{calendars, day_of, working_days};
use crate::wire::read::{self, Body};
use crate::wire::refusal::{Fault, Gather, Refusal};
use crate::wire::text::{Paging, PagingValue};

/// Most working days ahead that a clock is looked for.
const MAX_DUE_WITHIN: u16 = 60;

/// The capability.
pub(crate) struct List;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request {
    resource: Option<String>,
    state: Option<ApplicationState>,
    #[serde(default)]
    overdue: bool,
    due_within: Option<u16>,
    #[serde(default)]
    disputed: bool,
    after: Option<String>,
    limit: Option<u64>,
}

/// A question for applications.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    resource: Option<String>,
    state: Option<ApplicationState>,
    overdue: bool,
    /// Only those whose clock ends within so many working days, or is over.
    due_within: Option<u16>,
    disputed: bool,
    paging: Paging,
}

impl Asked {
    fn takes(&self, application: &Application, now_ms: u64, calendars: &[Calendar]) -> bool {
        let due_within = |within: u16| match application.clock.as_ref().map(|clock| &clock.due) {
            Some(Due::On { day }) => {
                working_days(day_of(now_ms), *day, calendars).is_some_and(|days| days <= u32::from(within))
            }
            // Nobody is reminded of a day that is not known.
            Some(Due::Undeterminable { .. }) | None => false,
        };
        self.resource.as_ref().is_none_or(|resource| *resource == application.resource)
            && self.state.is_none_or(|state| state == application.state)
            && (!self.overdue || is_overdue(application, now_ms))
            && self.due_within.is_none_or(due_within)
            && (!self.disputed || application.disputed)
    }
}

fn is_overdue(application: &Application, now_ms: u64) -> bool {
    application.clock.as_ref().is_some_and(|clock| clock.is_over(now_ms))
}

impl Capability<'_> for List {
    const ROUTE: Route = Route::ApplicationList;
    type Asked = Asked;
    /// The organisation whose are shown; `None` for all.
    type Granted = Option<Uscc>;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        let Request { resource, state, overdue, due_within, disputed, after, limit } =
            read::json(body.bytes)?;
        let mut wrong = Gather::new();
        if due_within.is_some_and(|days| days > MAX_DUE_WITHIN) {
            let fault = Fault::at("/dueWithin", Rule::Range).bounds(0, MAX_DUE_WITHIN.into());
            wrong.note(Refusal::of(Code::MalformedRequest, fault));
        }
        let paging = wrong.take(PagingValue { after, limit }.typed());
        wrong.all(paging.map(|paging| Asked { resource, state, overdue, due_within, disputed, paging }))
    }

    fn names<'a>(_asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        Names::default()
    }

    fn decide(
        _case: &mut Case<'_>,
        caller: &Participant,
        _asked: &Asked,
    ) -> Result<Ruling<Option<Uscc>>, Refusal> {
        Ok(Ruling::plain(whose(caller), Vec::new()))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Option<Uscc>>,
    ) -> Result<Vec<u8>, Refusal> {
        let (whose, asked, now_ms) = (permit.into_granted(), asked.clone(), change.entry().now_ms);
        let (page, ()) = listed(change, move |ledger| Ok((page(ledger, whose, &asked, now_ms), ()))).await?;
        Ok(page)
    }
}

fn page(ledger: &Ledger, whose: Option<Uscc>, asked: &Asked, now_ms: u64) -> Value {
    let all = owned(ledger, DocumentKind::Application, whose, asked.paging.after.as_ref());
    let calendars = calendars(ledger);
    let (mut rows, mut last, mut next) = (Vec::new(), None::<Key>, None);
    for (before, (key, document)) in all.into_iter().enumerate() {
        if rows.len() == asked.paging.limit || before == MAX_LOOKED_AT {
            next = last.map(hex::encode);
            break;
        }
        last = Some(key);
        // The gateway wrote these bytes itself; what cannot be read is not shown.
        let Ok(application) = serde_json::from_slice::<Application>(&document.value) else { continue };
        if asked.takes(&application, now_ms, &calendars) {
            rows.push(row(key, &application, now_ms, &calendars));
        }
    }
    json!({"applications": rows, "next": next})
}

fn row(key: Key, application: &Application, now_ms: u64, calendars: &[Calendar]) -> Value {
    let history = application.history.iter().map(|step| {
        let note = step.note.as_deref();
        json!({"at": rfc3339(step.at_ms), "by": step.by, "action": step.action, "note": note})
    });
    let history: Vec<Value> = history.map(without_nulls).collect();
    let days = |until_ms| working_days(day_of(application.made_ms), day_of(until_ms), calendars);
    without_nulls(json!({
        "application": hex::encode(key),
        "resource": application.resource,
        "applicant": application.applicant,
        "provider": application.provider,
        "itemCode": application.item_code,
        "itemName": application.item_name,
        "purpose": application.purpose,
        "state": application.state.name(),
        "disputed": application.disputed,
        "rule": application.rule.map(|rule| rule.name()),
        "asked": application.asked,
        "terms": application.terms,
        "madeAt": rfc3339(application.made_ms),
        "answeredAt": application.answered_ms.map(rfc3339),
        "providedAt": application.provided_ms.map(rfc3339),
        "settledInDays": application.settled_ms().and_then(days),
        "ageInDays": days(now_ms),
        "clock": application.clock,
        "overdue": is_overdue(application, now_ms),
        "history": history,
    }))
}

fn without_nulls(mut value: Value) -> Value {
    if let Some(members) = value.as_object_mut() {
        members.retain(|_, member| !member.is_null());
    }
    value
}
