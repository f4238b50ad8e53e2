//! `POST /v1/records/ingest`: a provider brings rows of a hosted resource in, a batch a request, or takes rows out.
//!
//! Rows are sealed and synced before the entry that commits to them. A crash before the entry leaves a file that nobody names, and the next
//! start removes it.

use std::collections::HashSet;

use ledger::Label;
use schemas::codes::{Code, Reason, Rule};
use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use schemas::resource::{Resource, Supply};
use schemas::routes::Route;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::query::named;
use super::standing;
use crate::capability::Capability;
use crate::gateway::case::Case;
use crate::gateway::change::{Change, StoredRow, json as answer};
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::wire::read::{self, Body};
use crate::wire::refusal::{Fault, Gather, Refusal};
use crate::wire::text::{Pairs, unknown_resource};

/// Most rows of one request.
const MAX_ROWS: usize = 10_000;
/// Most rejected rows that an answer names.
const MAX_REJECTED: usize = 1_000;
/// Most faults of one row that an answer names, and of all: it stands in the entry.
const MAX_ROW_ERRORS: usize = 16;
const MAX_ERRORS: usize = 4_000;
/// Most bytes of a row, as it is kept.
const MAX_ROW_BYTES: usize = ledger::MOST_ROW_BYTES;

/// The capability.
pub(crate) struct Ingest;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request {
    resource: String,
    /// Line of the first row in the provider's file, from 1.
    #[serde(default)]
    first_line: Option<u64>,
    #[serde(default)]
    rows: Vec<Pairs>,
    /// Keys of rows that are taken out.
    #[serde(default)]
    removed: Vec<Pairs>,
}

/// A batch.
#[derive(Debug)]
pub(crate) struct Asked {
    resource: String,
    first_line: u64,
    rows: Vec<Pairs>,
    removed: Vec<Pairs>,
}

/// A batch that may be brought in.
#[derive(Debug)]
pub(crate) struct Granted {
    rows: Label,
    resource: Resource,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    resource: &'a str,
    accepted: usize,
    removed: usize,
    rejected: usize,
    /// Which, with line, field and reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rejects: Vec<Value>,
}

/// The fault of a row whose subject a query could not name: no holder's number, or another spelling of one.
fn nobody(resource: &Resource, row: &[(String, String)]) -> Option<schemas::resource::Fault> {
    let subject = resource.subject.as_ref()?;
    let (_, value) = row.iter().find(|(name, _)| *name == subject.field)?;
    let named = HolderRef::new(&subject.type_code, value).is_ok_and(|holder| holder.number() == value);
    (!named).then(|| schemas::resource::Fault {
        pointer: format!("/{}", subject.field),
        rule: Rule::Pattern,
        form: format!("a number of type {} in its one spelling", subject.type_code),
    })
}

impl Capability<'_> for Ingest {
    const ROUTE: Route = Route::RecordsIngest;
    type Asked = Asked;
    type Granted = Granted;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        let Request { resource, first_line, rows, removed } = read::json(body.bytes)?;
        let mut wrong = Gather::new();
        let count = rows.len() + removed.len();
        if !(1..=MAX_ROWS).contains(&count) {
            let fault = Fault::at("/rows", Rule::Count).bounds(1, MAX_ROWS).got(count);
            wrong.note(Refusal::of(Code::BadRecords, fault));
        }
        if first_line == Some(0) {
            wrong.note(Refusal::of(Code::BadRecords, Fault::at("/firstLine", Rule::Range).form("from 1")));
        }
        wrong.all(Some(Asked { resource, first_line: first_line.unwrap_or(1), rows, removed }))
    }

    fn names<'a>(asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        Names { resource: Some(&asked.resource), ..Names::default() }
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Asked) -> Result<Ruling<Granted>, Refusal> {
        let (_, listed) = case.resource(&asked.resource);
        let listed = listed.ok_or_else(|| unknown_resource("/resource"))?;
        if listed.provider != caller.organisation {
            return Err(Refusal::not_permitted(Reason::OtherProvider));
        }
        // A suspended resource is mended by its provider.
        if !listed.state.is_listed()
            && let Some(refusal) = standing(listed.state)
        {
            return Err(refusal);
        }
        if listed.resource.supply != Supply::Hosted {
            return Err(Refusal::explained(Code::ResourceRefused, Reason::OtherSupply));
        }
        let rows = listed.rows_label().ok_or_else(|| Refusal::new(Code::Internal))?;
        Ok(Ruling::plain(Granted { rows, resource: listed.resource.clone() }, Vec::new()))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Granted>,
    ) -> Result<Vec<u8>, Refusal> {
        let Granted { rows: label, resource } = permit.into_granted();
        let keyed = change.tools().ledger.keyed();
        let (mut batch, mut rejects) = (Vec::with_capacity(asked.rows.len()), Vec::new());
        let (mut seen, mut rejected, mut told) = (HashSet::with_capacity(asked.rows.len()), 0, 0);
        let mut reject = |line: u64, errors: Vec<Value>| {
            rejected += 1;
            told += errors.len();
            if rejects.len() < MAX_REJECTED && told <= MAX_ERRORS {
                rejects.push(json!({"line": line, "errors": errors}));
            }
        };
        let at_ms = change.entry().now_ms;
        for (Pairs(row), line) in asked.rows.iter().zip(asked.first_line..) {
            let mut faults = resource.row_faults(row);
            faults.truncate(MAX_ROW_ERRORS);
            faults.extend(nobody(&resource, row));
            if !faults.is_empty() {
                let error = |fault: schemas::resource::Fault| json!({"pointer": fault.pointer, "rule": fault.rule.name(), "allowed": fault.form});
                reject(line, faults.into_iter().map(error).collect());
                continue;
            }
            let value =
                |field: &str| row.iter().find(|(name, _)| name == field).map(|(_, value)| value.as_str());
            let Some(key) = named(keyed, &resource, value) else {
                // Each field of the key is required, so its fault was named.
                reject(
                    line,
                    vec![
                        json!({"pointer": "", "rule": Rule::Required.name(), "allowed": "the fields of the key"}),
                    ],
                );
                continue;
            };
            let stored = StoredRow::encode(at_ms, row);
            if stored.len() > MAX_ROW_BYTES {
                let form = format!("at most {MAX_ROW_BYTES} bytes");
                reject(line, vec![json!({"pointer": "", "rule": Rule::Length.name(), "allowed": form})]);
            } else if seen.insert(key) {
                batch.push((key, Some(stored)));
            } else {
                let form = "a key that stands once in the batch";
                reject(line, vec![json!({"pointer": "", "rule": Rule::Distinct.name(), "allowed": form})]);
            }
        }
        let accepted = batch.len();
        let mut removed = 0;
        for (Pairs(row), line) in asked.removed.iter().zip(1_u64..) {
            let value =
                |field: &str| row.iter().find(|(name, _)| name == field).map(|(_, value)| value.as_str());
            match named(keyed, &resource, value).filter(|_| row.len() == resource.key.len()) {
                Some(key) if seen.insert(key) => {
                    removed += 1;
                    batch.push((key, None));
                }
                Some(_) | None => {
                    let form = format!("the fields of the key: {}", resource.key.join(", "));
                    reject(
                        line,
                        vec![json!({"pointer": "/removed", "rule": Rule::Required.name(), "allowed": form})],
                    );
                }
            }
        }
        let code = resource.code.as_str();
        if !batch.is_empty() {
            change.rows(label, batch).await?;
        }
        Ok(answer(&Answer { resource: code, accepted, removed, rejected, rejects }))
    }
}
