//! `POST /v1/records/ingest`: a provider brings rows of a hosted resource in, a batch a request, takes rows out, or has them erased: then
//! no file has their bytes once the answer is there and nobody reads them.
//!
//! Rows are sealed and synced before the entry that commits to them. A crash before the entry leaves a file that nobody names, and the next
//! start removes it.

use std::collections::HashSet;
use std::sync::Arc;

use ledger::{Key, Label, Last, Ledger};
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
use crate::gateway::change::{Change, RowBatch, RowChange, json as answer};
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::sharing::quality::{self, Sum};
use crate::sharing::region::{StoredRow, left, note};
use crate::wire::read::{self, Body};
use crate::wire::refusal::{Fault, Gather, Refusal};
use crate::wire::text::{Pairs, unknown_resource};

/// Most rows of one request.
const MAX_ROWS: usize = 10_000;
/// Most rows of one request that are erased: each segment that has one of them is written anew before the answer.
const MAX_ERASED: usize = 100;
/// How much of a row the trace of its subject says was used: it was erased.
const ERASED: &str = "erased";
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
    /// Keys of rows that are taken out and leave the disk with this entry.
    #[serde(default)]
    erased: Vec<Pairs>,
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
    erased: Vec<Pairs>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    erased: Option<usize>,
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
        let Request { resource, first_line, rows, removed, erased } = read::json(body.bytes)?;
        let mut wrong = Gather::new();
        let count = rows.len() + removed.len() + erased.len();
        if !(1..=MAX_ROWS).contains(&count) {
            let fault = Fault::at("/rows", Rule::Count).bounds(1, MAX_ROWS).got(count);
            wrong.note(Refusal::of(Code::BadRecords, fault));
        }
        if erased.len() > MAX_ERASED {
            let fault = Fault::at("/erased", Rule::Count).bounds(0, MAX_ERASED).got(erased.len());
            wrong.note(Refusal::of(Code::BadRecords, fault));
        }
        if first_line == Some(0) {
            wrong.note(Refusal::of(Code::BadRecords, Fault::at("/firstLine", Rule::Range).form("from 1")));
        }
        let rows = AskedRows { first_line: first_line.unwrap_or(1), rows, removed, erased };
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
        // Whether the exchange knew the subject of an erased row is nothing that the provider may know.
        Ok(Ruling::plain(Granted { rows, resource: listed.resource.clone() }, Vec::new()).unnamed())
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Granted>,
    ) -> Result<Vec<u8>, Refusal> {
        let Granted { rows: label, resource } = permit.into_granted();
        let (ledger, rows) = (change.tools().ledger.clone(), Arc::clone(&asked.rows));
        // A row as it was, and the files that have it, are looked up before its batch is written. Nobody else may come between.
        change.write_rows(&label, resource.region.is_some() || !rows.erased.is_empty()).await;
        let at_ms = change.entry().now_ms;
        // A batch takes a processor for a while: none of those that answer others.
        let lane = &change.tools().lanes.pages;
        let checked = lane.run(*change.entry().organisation, move || {
            let mut batch = Batch::new(&resource, &ledger, &label);
            batch.take(&rows, at_ms)?;
            let Batch {
                rows, erased, subjects, accepted, removed, rejected, repeated, filled, rejects, ..
            } = batch;
            let counts = Counts { accepted, removed, erased: erased.len(), rejected, repeated, filled };
            Ok::<_, Refusal>((RowBatch { rows, erased }, subjects, counts, rejects, resource))
        });
        let (batch, subjects, counts, rejects, resource) = checked.await.map_err(Refusal::new)??;
        count(change, &resource, &label, &counts, !batch.rows.is_empty());
        if !batch.erased.is_empty() {
            change.names().mode = Some(ERASED);
        }
        for subject in &subjects {
            change.concern(subject)?;
        }
        if !batch.rows.is_empty() {
            change.rows(label, batch).await?;
        }
        let Counts { accepted, removed, erased, rejected, repeated, .. } = counts;
        let (rejected, erased) = (rejected + repeated, (!asked.rows.erased.is_empty()).then_some(erased));
        Ok(answer(&Answer { resource: &resource.code, accepted, removed, erased, rejected, rejects }))
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
    erased: usize,
    rejected: usize,
    repeated: usize,
    /// Rows taken, each by the share of its optional fields that it has.
    filled: usize,
}

/// A batch under check.
struct Batch<'a> {
    resource: &'a Resource,
    ledger: &'a Ledger,
    label: &'a Label,
    /// Fields that a row may lack.
    optional: Vec<&'a str>,
    rows: Vec<(Key, RowChange)>,
    erased: Vec<Key>,
    /// Subjects of the erased rows.
    subjects: Vec<HolderRef>,
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
    fn new(resource: &'a Resource, ledger: &'a Ledger, label: &'a Label) -> Self {
        let optional = resource.fields.iter().filter(|field| !field.required);
        Self {
            resource,
            ledger,
            label,
            optional: optional.map(|field| field.key.as_str()).collect(),
            rows: Vec::new(),
            erased: Vec::new(),
            subjects: Vec::new(),
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

    /// Checks the rows in their order, then the keys of those that are taken out or erased.
    ///
    /// # Errors
    /// The rows that were committed last are not at hand.
    fn take(&mut self, asked: &AskedRows, at_ms: u64) -> Result<(), Refusal> {
        let count = asked.rows.len() + asked.removed.len() + asked.erased.len();
        self.rows.reserve(count);
        self.seen.reserve(count);
        for (Pairs(row), line) in asked.rows.iter().zip(asked.first_line..) {
            self.row(row, line, at_ms)?;
        }
        for (Pairs(row), line) in asked.removed.iter().zip(1_u64..) {
            self.removed += usize::from(self.removal("/removed", row, line)?.is_some());
        }
        for (Pairs(row), line) in asked.erased.iter().zip(asked.first_line..) {
            if let Some((key, last)) = self.removal("/erased", row, line)? {
                self.subjects.extend(self.subject(row, last.as_ref()));
                self.erased.push(key);
            }
        }
        self.filled = self.filled.checked_div(self.optional.len()).unwrap_or(0);
        Ok(())
    }

    fn key(&self, row: &[(String, String)]) -> Option<Key> {
        named(self.ledger.keyed(), self.resource, |field| {
            row.iter().find(|(name, _)| name == field).map(|(_, value)| value.as_str())
        })
    }

    /// The last that is known of a row. Nobody asks for it where rows have no regions.
    fn last(&self, key: &Key) -> Result<Option<Last>, Refusal> {
        self.ledger.rows().last(self.label, key).map_err(|_| Refusal::new(Code::RecordUnavailable))
    }

    /// The subject of a row: by its key, or by what is there.
    fn subject(&self, key: &[(String, String)], last: Option<&Last>) -> Option<HolderRef> {
        let subject = self.resource.subject.as_ref()?;
        let number = key.iter().find(|(name, _)| *name == subject.field).map(|(_, value)| value.clone());
        let number = number.or_else(|| {
            let place = last.filter(|last| !last.removed)?.place.as_ref()?;
            let stored = StoredRow::decode(&self.ledger.rows().read(place).ok()?)?;
            stored.value(&subject.field).map(str::to_owned)
        });
        HolderRef::new(&subject.type_code, &number?).ok()
    }

    fn row(&mut self, row: &[(String, String)], line: u64, at_ms: u64) -> Result<(), Refusal> {
        let mut faults = self.resource.row_faults(row);
        faults.truncate(MAX_ROW_ERRORS);
        faults.extend(nobody(self.resource, row));
        if !faults.is_empty() {
            let errors = faults.into_iter().map(|fault| error(&fault.pointer, fault.rule, &fault.form));
            self.reject(line, errors.collect());
            return Ok(());
        }
        let Some(key) = self.key(row) else {
            // Each field of the key is required, so its fault was named.
            self.reject(line, vec![error("", Rule::Required, "the fields of the key")]);
            return Ok(());
        };
        let left = match &self.resource.region {
            None => Vec::new(),
            Some(field) => {
                let now = row.iter().find(|(name, _)| name == field).map(|(_, value)| value.as_str());
                left(self.ledger, self.resource, self.last(&key)?.as_ref(), now)
            }
        };
        let stored = StoredRow::encode(at_ms, row, &left);
        if stored.len() > MAX_ROW_BYTES {
            let form = format!("at most {MAX_ROW_BYTES} bytes");
            self.reject(line, vec![error("", Rule::Length, &form)]);
        } else if self.seen.insert(key) {
            self.accepted += 1;
            self.filled += row.iter().filter(|(name, _)| self.optional.contains(&name.as_str())).count();
            self.rows.push((key, RowChange::Put(stored)));
        } else {
            self.repeated += 1;
            self.tell(line, vec![error("", Rule::Distinct, "a key that stands once in the batch")]);
        }
        Ok(())
    }

    /// Takes a row out; its key and what is known of it, unless the keys are wrong.
    fn removal(
        &mut self,
        pointer: &str,
        row: &[(String, String)],
        line: u64,
    ) -> Result<Option<(Key, Option<Last>)>, Refusal> {
        let key = self.key(row).filter(|_| row.len() == self.resource.key.len());
        let Some(key) = key.filter(|key| self.seen.insert(*key)) else {
            let form = format!("the fields of the key: {}", self.resource.key.join(", "));
            self.reject(line, vec![error(pointer, Rule::Required, &form)]);
            return Ok(None);
        };
        let last = self.last(&key)?;
        let left = left(self.ledger, self.resource, last.as_ref(), None);
        self.rows.push((key, RowChange::Remove(note(self.resource, &left))));
        Ok(Some((key, last)))
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
