//! `POST /v1/records/ingest`: a provider brings rows of a hosted resource in, a batch a request, or takes rows out.
//!
//! Rows are sealed and synced before the entry that commits to them. A crash before the entry leaves a file that nobody names, and the next
//! start removes it.

use std::collections::HashSet;
use std::sync::Arc;

use ledger::{Key, KeyedHash, Label};
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
use crate::sharing::quality::{self, Sum};
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
    rows: Arc<AskedRows>,
}

/// The rows of a batch.
#[derive(Debug)]
struct AskedRows {
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
        let rows = AskedRows { first_line: first_line.unwrap_or(1), rows, removed };
        wrong.all(Some(Asked { resource, rows: Arc::new(rows) }))
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
        let (ledger, rows) = (change.tools().ledger.clone(), Arc::clone(&asked.rows));
        let at_ms = change.entry().now_ms;
        // A batch takes a processor for a while: none of those that answer others.
        let lane = &change.tools().lanes.pages;
        let checked = lane.run(*change.entry().organisation, move || {
            let mut batch = Batch::new(&resource, ledger.keyed());
            batch.take(&rows, at_ms);
            let Batch { rows, accepted, removed, rejected, repeated, filled, rejects, .. } = batch;
            (rows, Counts { accepted, removed, rejected, repeated, filled }, rejects, resource)
        });
        let (batch, counts, rejects, resource) = checked.await.map_err(Refusal::new)?;
        count(change, &resource, &label, &counts, !batch.is_empty());
        if !batch.is_empty() {
            change.rows(label, batch).await?;
        }
        let Counts { accepted, removed, rejected, repeated, .. } = counts;
        let rejected = rejected + repeated;
        Ok(answer(&Answer { resource: &resource.code, accepted, removed, rejected, rejects }))
    }
}

/// Adds what a batch tells of the resource's quality.
fn count(change: &mut Change<'_>, resource: &Resource, label: &Label, counts: &Counts, has_rows: bool) {
    let (keyed, now_ms) = (change.tools().ledger.keyed(), change.entry().now_ms);
    let day = quality::quarter(now_ms, 0);
    let mut sums = vec![
        (Sum::Accepted, counts.accepted),
        (Sum::Rejected, counts.rejected),
        (Sum::Repeated, counts.repeated),
        (Sum::Filled, counts.filled),
    ];
    if has_rows {
        let before = change.raise(quality::last_batch(label), quality::minutes(now_ms));
        let late = quality::freshness(change.tools().ledger, resource, label, now_ms).stale;
        // Before the first batch there is nothing that it could be late for.
        if before != 0 && resource.update_cycle.within_ms().is_some() {
            sums.push((if late { Sum::Late } else { Sum::Punctual }, 1));
        }
    }
    for (sum, amount) in sums {
        change.add_up(sum.key(keyed, &resource.code), day, amount as u64);
    }
}

/// How many rows of a batch went which way.
struct Counts {
    accepted: usize,
    removed: usize,
    rejected: usize,
    repeated: usize,
    /// Rows taken, each by the share of its optional fields that it has.
    filled: usize,
}

/// A batch under check.
struct Batch<'a> {
    resource: &'a Resource,
    keyed: &'a KeyedHash,
    /// Fields that a row may lack.
    optional: Vec<&'a str>,
    rows: Vec<(Key, Option<Vec<u8>>)>,
    seen: HashSet<Key>,
    accepted: usize,
    removed: usize,
    rejected: usize,
    repeated: usize,
    /// Optional fields that the rows taken have.
    filled: usize,
    rejects: Vec<Value>,
    told: usize,
}

impl<'a> Batch<'a> {
    fn new(resource: &'a Resource, keyed: &'a KeyedHash) -> Self {
        let optional = resource.fields.iter().filter(|field| !field.required);
        Self {
            resource,
            keyed,
            optional: optional.map(|field| field.key.as_str()).collect(),
            rows: Vec::new(),
            seen: HashSet::new(),
            accepted: 0,
            removed: 0,
            rejected: 0,
            repeated: 0,
            filled: 0,
            rejects: Vec::new(),
            told: 0,
        }
    }

    /// Checks the rows in their order, then the keys of those that are taken out.
    fn take(&mut self, asked: &AskedRows, at_ms: u64) {
        self.rows.reserve(asked.rows.len() + asked.removed.len());
        self.seen.reserve(asked.rows.len() + asked.removed.len());
        for (Pairs(row), line) in asked.rows.iter().zip(asked.first_line..) {
            self.row(row, line, at_ms);
        }
        for (Pairs(row), line) in asked.removed.iter().zip(1_u64..) {
            self.removal(row, line);
        }
        self.filled = self.filled.checked_div(self.optional.len()).unwrap_or(0);
    }

    fn key(&self, row: &[(String, String)]) -> Option<Key> {
        named(self.keyed, self.resource, |field| {
            row.iter().find(|(name, _)| name == field).map(|(_, value)| value.as_str())
        })
    }

    fn row(&mut self, row: &[(String, String)], line: u64, at_ms: u64) {
        let mut faults = self.resource.row_faults(row);
        faults.truncate(MAX_ROW_ERRORS);
        faults.extend(nobody(self.resource, row));
        if !faults.is_empty() {
            let errors = faults.into_iter().map(|fault| error(&fault.pointer, fault.rule, &fault.form));
            return self.reject(line, errors.collect());
        }
        let Some(key) = self.key(row) else {
            // Each field of the key is required, so its fault was named.
            return self.reject(line, vec![error("", Rule::Required, "the fields of the key")]);
        };
        let stored = StoredRow::encode(at_ms, row);
        if stored.len() > MAX_ROW_BYTES {
            let form = format!("at most {MAX_ROW_BYTES} bytes");
            self.reject(line, vec![error("", Rule::Length, &form)]);
        } else if self.seen.insert(key) {
            self.accepted += 1;
            self.filled += row.iter().filter(|(name, _)| self.optional.contains(&name.as_str())).count();
            self.rows.push((key, Some(stored)));
        } else {
            self.repeated += 1;
            self.tell(line, vec![error("", Rule::Distinct, "a key that stands once in the batch")]);
        }
    }

    fn removal(&mut self, row: &[(String, String)], line: u64) {
        match self.key(row).filter(|_| row.len() == self.resource.key.len()) {
            Some(key) if self.seen.insert(key) => {
                self.removed += 1;
                self.rows.push((key, None));
            }
            Some(_) | None => {
                let form = format!("the fields of the key: {}", self.resource.key.join(", "));
                self.reject(line, vec![error("/removed", Rule::Required, &form)]);
            }
        }
    }

    fn reject(&mut self, line: u64, errors: Vec<Value>) {
        self.rejected += 1;
        self.tell(line, errors);
    }

    fn tell(&mut self, line: u64, errors: Vec<Value>) {
        self.told += errors.len();
        if self.rejects.len() < MAX_REJECTED && self.told <= MAX_ERRORS {
            self.rejects.push(json!({"line": line, "errors": errors}));
        }
    }
}

fn error(pointer: &str, rule: Rule, allowed: &str) -> Value {
    json!({"pointer": pointer, "rule": rule.name(), "allowed": allowed})
}
