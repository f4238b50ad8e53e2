//! `POST /v1/records/call`: a row from the interface of its provider, within an approval, as `query.rs` gives one that is hosted.
//!
//! The relayed path alone calls it. The intent counts the use before the call leaves, and the outcome holds the answer: a crash
//! between them leaves an intent, which the next start closes.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use schemas::codes::{Code, Reason, Rule};
use schemas::identifier::Uscc;
use schemas::interface::Address;
use schemas::resource::{Resource, Supply};
use schemas::routes::Route;
use serde::{Deserialize, Serialize};

use super::query::{Approved, Asked, Query, answered, approved, key_values, row_key, ruled, wanted};
use crate::capability::{Capability, Relayed};
use crate::gateway::case::Case;
use crate::gateway::change::{Change, json};
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::outgoing::{Line, Outgoing, Target};
use crate::participant::Participant;
use crate::sharing::address::address_key;
use crate::sharing::region::StoredRow;
use crate::wire::read::Body;
use crate::wire::refusal::Refusal;
use crate::wire::text::Pairs;

/// The capability.
pub(crate) struct Call;

/// A row that may be asked for.
#[derive(Debug)]
pub(crate) struct Granted {
    approved: Approved,
    target: Target,
    /// The row that the provider answered with.
    row: Option<StoredRow>,
}

/// The question that a provider is asked.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Question<'a> {
    resource: &'a str,
    key: BTreeMap<&'a str, &'a str>,
    /// Fields that are wanted, beside those of the key.
    fields: Vec<&'a str>,
    /// Log and index of the intent: the provider finds in the public log that the exchange asked.
    log: &'a str,
    intent: u64,
}

/// The answer of a provider.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    rows: Vec<Pairs>,
}

impl<'r> Capability<'r> for Call {
    const ROUTE: Route = Route::RecordsCall;
    type Asked = Asked<'r>;
    type Granted = Granted;

    fn read(body: Body<'r>) -> Result<Asked<'r>, Refusal> {
        Query::read(body)
    }

    fn names<'a>(asked: &'a Asked<'r>, caller: &Uscc) -> Names<'a> {
        Query::names(asked, caller)
    }

    fn decide(
        case: &mut Case<'_>,
        caller: &Participant,
        asked: &Asked<'r>,
    ) -> Result<Ruling<Granted>, Refusal> {
        let approved = approved(case, caller, asked, Supply::Interface)?;
        row_key(case, &approved.listed.resource, asked)?;
        let target = target(case, &approved.listed.provider, &approved.listed.resource)?;
        Ok(ruled(case, caller, asked, approved, |approved| Granted { approved, target, row: None }))
    }

    fn changed_ms(granted: &Granted) -> u64 {
        granted.approved.changed_ms
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked<'r>,
        permit: Permit<Granted>,
    ) -> Result<Vec<u8>, Refusal> {
        let Granted { approved, row, .. } = permit.into_granted();
        answered(change, asked, &approved, row)
    }
}

impl<'r> Relayed<'r> for Call {
    type Line = Line;
    type Reply = Option<Vec<(String, String)>>;

    async fn reach(outgoing: &Outgoing, granted: &Granted) -> Result<Line, Refusal> {
        outgoing.reach(&granted.target).await
    }

    async fn call(
        asked: &Asked<'r>,
        granted: &Granted,
        line: Line,
        (log, intent): (&str, u64),
    ) -> Result<Self::Reply, Refusal> {
        let resource = &granted.approved.listed.resource;
        let key = key_values(resource, asked);
        // No more is fetched than is needed: what is shown, and the region, which decides whether it is.
        let fields = wanted(asked, &granted.approved).iter().chain(&resource.region).map(String::as_str);
        let mut fields: Vec<&str> =
            fields.filter(|field| key.iter().all(|(name, _)| name != field)).collect();
        fields.sort_unstable();
        fields.dedup();
        let question = Question {
            resource: &resource.code,
            key: key.iter().map(|(field, value)| (field.as_str(), value.as_str())).collect(),
            fields: fields.clone(),
            log,
            intent,
        };
        let answer = line.call(json(&question)).await?;
        row_of(resource, &key, &fields, &answer)
            .ok_or_else(|| Refusal::explained(Code::ProviderWrong, Reason::ProviderRows))
    }

    fn take(granted: &mut Granted, reply: Self::Reply, now_ms: u64) {
        granted.row = reply.map(|row| StoredRow::new(now_ms, row));
    }
}

/// Where the provider of a resource is called.
///
/// # Errors
/// No two operators allowed it.
pub(crate) fn target(case: &mut Case<'_>, provider: &Uscc, resource: &Resource) -> Result<Target, Refusal> {
    let refused = || Refusal::explained(Code::ResourceRefused, Reason::AddressNotAllowed);
    let interface = resource.interface.as_ref().ok_or_else(refused)?;
    let (host, port, path) = interface.parts().ok_or_else(refused)?;
    let key = address_key(case.keyed(), provider, host, port);
    let (place, address) = case.document::<Address>(key);
    let address = address.filter(|address| address.authorities.is_some()).ok_or_else(refused)?;
    Ok(Target {
        key,
        version: place.version(),
        address,
        path: path.to_owned(),
        deadline: Duration::from_millis(interface.deadline_ms.into()),
    })
}

/// The row of an answer, if there is one; `None` where the answer does not fit the definition or the question.
#[expect(clippy::option_option, reason = "an answer that does not fit, and one without a row")]
fn row_of(
    resource: &Resource,
    key: &[(String, String)],
    fields: &[&str],
    answer: &Bytes,
) -> Option<Option<Vec<(String, String)>>> {
    let Rows { rows } = serde_json::from_slice(answer).ok()?;
    let mut rows = rows.into_iter();
    let row = match (rows.next(), rows.next()) {
        (None, _) => return Some(None),
        (Some(Pairs(row)), None) => row,
        (Some(_), Some(_)) => return None,
    };
    // A field that nobody asked for need not be there.
    let is_asked = |pointer: &str| {
        let field = pointer.trim_start_matches('/');
        fields.contains(&field) || key.iter().any(|(name, _)| name == field)
    };
    let faults = resource.row_faults(&row);
    let fits = faults.iter().all(|fault| fault.rule == Rule::Required && !is_asked(&fault.pointer));
    let is_of_key = key.iter().all(|wanted| row.contains(wanted));
    (fits && is_of_key).then_some(Some(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_fits_the_definition_and_the_question_or_is_none() {
        let resource = Resource::samples().remove(0);
        let key = [("idNumber".to_owned(), "44010619680523000X".to_owned())];
        let row = |answer: &str| {
            row_of(&resource, &key, &["name", "regionCode"], &Bytes::copy_from_slice(answer.as_bytes()))
        };
        let good = r#"{"idNumber":"44010619680523000X","name":"测试","regionCode":"440106"}"#;
        assert_eq!(row(r#"{"rows":[]}"#), Some(None));
        assert_eq!(row(&format!(r#"{{"rows":[{good}]}}"#)).flatten().map(|row| row.len()), Some(3));
        for wrong in [
            String::new(),
            "[]".to_owned(),
            good.to_owned(),
            r#"{"rows":[],"more":true}"#.to_owned(),
            r#"{"rows":[],"rows":[]}"#.to_owned(),
            // Two rows.
            format!(r#"{{"rows":[{good},{good}]}}"#),
            // Another row than was asked for, and none in particular.
            format!(r#"{{"rows":[{}]}}"#, good.replace("000X", "0001")),
            r#"{"rows":[{"idNumber":"440106199001010015","name":"测试","regionCode":"440106"}]}"#.to_owned(),
            r#"{"rows":[{"name":"测试","regionCode":"440106"}]}"#.to_owned(),
            // A field without its value, of another type, of none of the resource's, twice.
            r#"{"rows":[{"idNumber":"44010619680523000X","regionCode":"440106"}]}"#.to_owned(),
            format!(r#"{{"rows":[{}]}}"#, good.replace("\"测试\"", "1")),
            format!(r#"{{"rows":[{}]}}"#, good.replace("440106\"}", "4401061\"}")),
            format!(r#"{{"rows":[{}]}}"#, good.replace('}', ",\"secret\":\"x\"}")),
            format!(r#"{{"rows":[{}]}}"#, good.replace('}', ",\"name\":\"又\"}")),
        ] {
            assert_eq!(row(&wrong), None, "{wrong}");
        }
    }
}
