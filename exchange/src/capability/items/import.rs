//! `POST /v1/items/import`: rows of a dictionary by the operator, and mappings by the operator or the department of their item.
//!
//! The path alone calls it. A batch is one entry: a crash leaves all of it or nothing.

use std::collections::HashSet;

use ledger::Key;
use schemas::codes::{Code, Rule};
use schemas::dictionary::{Element, IntendedUse, Item, List, MAX_NAMED, Mapping, Material, Mode};
use schemas::identifier::Uscc;
use schemas::resource::{Fault as RowFault, MAX_WORDS_CHARS};
use schemas::routes::Route;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::capability::Capability;
use crate::gateway::case::{Case, Place};
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::{Participant, Role};
use crate::rights::floor;
use crate::sharing::dictionary::{Entry, Imported, Intended, Mapped, entry_key, intended_key, mapping_key};
use crate::wire::read::{self, Body};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::{Pairs, owned_words};

use super::material;

/// Most rows of one request.
const MAX_ROWS: usize = 1_000;
/// Most faults of one row that an answer names, and of all: it stands in the entry.
const MAX_ROW_ERRORS: usize = 16;
const MAX_ERRORS: usize = 4_000;
/// Bytes of a row in an entry beside its own.
const ROW_BYTES: usize = 256;

/// The capability.
pub(crate) struct Import;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request {
    list: List,
    source: String,
    /// Line of the first row in the file, from 1.
    #[serde(default)]
    first_line: Option<u64>,
    rows: Vec<Pairs>,
}

/// A batch.
#[derive(Debug)]
pub(crate) struct Asked {
    list: List,
    source: String,
    first_line: u64,
    rows: Vec<Pairs>,
}

/// A row that is written.
#[derive(Debug)]
enum Write {
    Item(Place, Imported<Item>),
    Material(Place, Imported<Material>),
    Element(Place, Imported<Element>),
    Mapping(Place, Imported<Mapped>),
    Use(Place, Imported<Intended>),
}

impl Write {
    /// Bytes of its document.
    fn bytes(&self) -> usize {
        match self {
            Self::Item(_, item) => answer(item).len(),
            Self::Material(_, material) => answer(material).len(),
            Self::Element(_, element) => answer(element).len(),
            Self::Mapping(_, mapping) => answer(mapping).len(),
            Self::Use(_, line) => answer(line).len(),
        }
    }
}

/// The rows, by their fate.
#[derive(Debug)]
pub(crate) struct Sorted {
    /// Each with the line of its row.
    writes: Vec<(u64, Write)>,
    unchanged: usize,
    rejected: usize,
    rejects: Vec<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    list: List,
    accepted: usize,
    /// Those of them that stood like that before.
    unchanged: usize,
    rejected: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rejects: Vec<Value>,
}

impl Capability<'_> for Import {
    const ROUTE: Route = Route::ItemsImport;
    type Asked = Asked;
    type Granted = Sorted;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        let Request { list, source, first_line, rows } = read::json(body.bytes)?;
        let mut wrong = Gather::new();
        if !(1..=MAX_ROWS).contains(&rows.len()) {
            let fault = Fault::at("/rows", Rule::Count).bounds(1, MAX_ROWS).got(rows.len());
            wrong.note(Refusal::of(Code::BadItems, fault));
        }
        if first_line == Some(0) {
            wrong.note(Refusal::of(Code::BadItems, Fault::at("/firstLine", Rule::Range).form("from 1")));
        }
        let source = wrong.take(owned_words(Code::BadItems, source, MAX_WORDS_CHARS).under("source"));
        let first_line = first_line.unwrap_or(1);
        wrong.all(source.map(|source| Asked { list, source, first_line, rows }))
    }

    fn names<'a>(asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        Names { reason: &asked.source, ..Names::default() }
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Asked) -> Result<Ruling<Sorted>, Refusal> {
        // A dictionary comes from one source.
        if asked.list != List::Mappings && !caller.has(Role::Operator) {
            return Err(Refusal::new(Code::WrongRole));
        }
        let (mut seen, mut unchanged) = (HashSet::with_capacity(asked.rows.len()), 0);
        let (mut rejected, mut told) = (0, 0);
        let (mut writes, mut rejects) = (Vec::with_capacity(asked.rows.len()), Vec::new());
        for (Pairs(row), line) in asked.rows.iter().zip(asked.first_line..) {
            let mut importing = Importing { case, caller, source: &asked.source, seen: &mut seen };
            let written = match asked.list {
                List::Items => importing.item(row),
                List::Materials => {
                    Material::read(row).and_then(|read| importing.entry(read, Write::Material))
                }
                List::Elements => Element::read(row).and_then(|read| importing.entry(read, Write::Element)),
                List::Mappings => importing.mapping(row),
                List::Uses => importing.intended(row),
            };
            match written {
                Ok(Some(write)) => writes.push((line, write)),
                Ok(None) => unchanged += 1,
                Err(faults) => {
                    let error = |fault: RowFault| json!({"pointer": fault.pointer, "rule": fault.rule.name(), "allowed": fault.form});
                    let errors: Vec<Value> = faults.into_iter().take(MAX_ROW_ERRORS).map(error).collect();
                    rejected += 1;
                    told += errors.len();
                    if told <= MAX_ERRORS {
                        rejects.push(json!({"line": line, "errors": errors}));
                    }
                }
            }
        }
        Ok(Ruling::plain(Sorted { writes, unchanged, rejected, rejects }, Vec::new()))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Sorted>,
    ) -> Result<Vec<u8>, Refusal> {
        let Sorted { writes, unchanged, rejected, rejects } = permit.into_granted();
        // Each row has the source beside it, so a body that is taken may make an entry that is not.
        let most = change.tools().ledger.most_entry_bytes();
        // A quarter is for the answer, which names rejected rows.
        let mut room = most - most / 4;
        for (line, write) in &writes {
            let Some(left) = room.checked_sub(write.bytes() + ROW_BYTES) else {
                let place = line.saturating_sub(asked.first_line);
                let form = format!(
                    "up to line {} with this source: send fewer rows at once",
                    line.saturating_sub(1)
                );
                return Err(Refusal::of(
                    Code::BadItems,
                    Fault::at(format!("/rows/{place}"), Rule::Length).form(form),
                ));
            };
            room = left;
            match write {
                Write::Item(place, item) => change.keep(*place, item),
                Write::Material(place, material) => change.keep(*place, material),
                Write::Element(place, element) => change.keep(*place, element),
                Write::Mapping(place, mapping) => change.keep(*place, mapping),
                Write::Use(place, line) => change.keep(*place, line),
            }
        }
        let accepted = writes.len() + unchanged;
        Ok(answer(&Answer { list: asked.list, accepted, unchanged, rejected, rejects }))
    }
}

/// A row under import.
struct Importing<'i, 'c> {
    case: &'i mut Case<'c>,
    caller: &'i Participant,
    source: &'i str,
    /// Keys of the rows before it.
    seen: &'i mut HashSet<Key>,
}

/// The write of a row; none where it stands like that already.
type Written = Result<Option<Write>, Vec<RowFault>>;

fn fault(field: &str, rule: Rule, form: impl Into<String>) -> RowFault {
    RowFault { pointer: format!("/{field}"), rule, form: form.into() }
}

impl Importing<'_, '_> {
    fn imported<T>(&self, entry: T) -> Imported<T> {
        let (source, at_ms, by) = (self.source.to_owned(), self.case.now_ms(), self.caller.organisation);
        Imported { entry, source, at_ms, by }
    }

    /// Whether a key stands for the first time in the batch.
    fn distinct(&mut self, key: Key, field: &str) -> Result<Key, Vec<RowFault>> {
        let again = || vec![fault(field, Rule::Distinct, "a code that stands once in the batch")];
        if self.seen.insert(key) { Ok(key) } else { Err(again()) }
    }

    fn entry<T: Entry>(&mut self, read: T, write: fn(Place, Imported<T>) -> Write) -> Written {
        let key = self.distinct(entry_key::<T>(self.case.keyed(), read.code()), "code")?;
        let (place, before) = self.case.document::<Imported<T>>(key);
        if let Some(Imported { entry: before, .. }) = before {
            if before == read {
                return Ok(None);
            }
            let (least, rule) = (before.version() + 1, Rule::Order);
            if read.version() < least {
                return Err(vec![fault(
                    "version",
                    rule,
                    format!("a change has version {least} or a later one"),
                )]);
            }
        }
        Ok(Some(write(place, self.imported(read))))
    }

    fn item(&mut self, row: &[(String, String)]) -> Written {
        let read = Item::read(row)?;
        let unknown = |code: &&String| material(self.case, code).is_none_or(|found| found.cancelled);
        let unknown = read.materials.iter().filter(unknown).count();
        if unknown > 0 {
            return Err(vec![fault("materials", Rule::Unknown, "codes of the dictionary of materials")]);
        }
        self.entry(read, Write::Item)
    }

    fn mapping(&mut self, row: &[(String, String)]) -> Written {
        let mapping = Mapping::read(row)?;
        let keyed = self.case.keyed();
        let (_, item) = self.case.document::<Imported<Item>>(entry_key::<Item>(keyed, &mapping.item));
        let item = item.map(|item| item.entry).filter(|item| !item.cancelled);
        let Some(item) = item else {
            return Err(vec![fault("item", Rule::Unknown, "an item of the dictionary")]);
        };
        if item.department != self.caller.organisation && !self.caller.has(Role::Operator) {
            return Err(vec![fault("item", Rule::NotAllowed, "an item of the caller's own department")]);
        }
        // An end of what stood before needs no more than that.
        if !item.materials.contains(&mapping.material) && !mapping.cancelled {
            return Err(vec![fault("material", Rule::Unknown, "a material of the item")]);
        }
        let faults = if mapping.cancelled { Vec::new() } else { self.target_faults(&mapping) };
        if !faults.is_empty() {
            return Err(faults);
        }
        let key = self.distinct(mapping_key(keyed, &mapping.item, &mapping.material), "material")?;
        let (place, before) = self.case.document::<Imported<Mapped>>(key);
        let mapped = Mapped { mapping, item_version: item.version };
        if before.is_some_and(|before| before.entry == mapped) {
            return Ok(None);
        }
        Ok(Some(Write::Mapping(place, self.imported(mapped))))
    }

    fn intended(&mut self, row: &[(String, String)]) -> Written {
        let use_ = IntendedUse::read(row)?;
        let IntendedUse { organisation, item, type_code, .. } = &use_;
        let Some(found) = self.case.license_type(type_code) else {
            return Err(vec![fault("typeCode", Rule::Unknown, "a license type that is published")]);
        };
        if floor::field_mask(Some(&found), use_.fields.iter().map(String::as_str)).is_none() {
            let known: Vec<&str> = found.fields.iter().map(|field| field.key.as_str()).collect();
            return Err(vec![fault("fields", Rule::OneOf, known.join(" "))]);
        }
        let key = intended_key(self.case.keyed(), organisation, item, type_code);
        let key = self.distinct(key, "typeCode")?;
        let (place, before) = self.case.document::<Imported<Intended>>(key);
        let line = Intended { use_ };
        if before.is_some_and(|before| before.entry == line) {
            return Ok(None);
        }
        Ok(Some(Write::Use(place, self.imported(line))))
    }

    /// The parts of a mapping that name nothing.
    fn target_faults(&mut self, mapping: &Mapping) -> Vec<RowFault> {
        let of = |names: &[String]| fault("fields", Rule::OneOf, names.join(" "));
        match mapping.mode {
            Mode::Drop => Vec::new(),
            Mode::Share => {
                let listed = mapping.resource.as_ref().and_then(|code| self.case.resource(code).1);
                let Some(listed) = listed.filter(|listed| listed.state.is_listed()) else {
                    return vec![fault("resource", Rule::Unknown, "a resource of the catalogue")];
                };
                if listed.resource.sharing_class == 3 {
                    return vec![fault("resource", Rule::NotAllowed, "a resource that is shared")];
                }
                let known: Vec<String> =
                    listed.resource.fields.iter().map(|field| field.key.clone()).take(MAX_NAMED).collect();
                let wrong = mapping.fields.iter().any(|field| !known.contains(field));
                wrong.then(|| of(&known)).into_iter().collect()
            }
            Mode::Verify => {
                let found = mapping.type_code.as_ref().and_then(|code| self.case.license_type(code));
                let Some(found) = found else {
                    return vec![fault("typeCode", Rule::Unknown, "a license type that is published")];
                };
                let names = mapping.fields.iter().map(String::as_str);
                let known: Vec<String> = found.fields.iter().map(|field| field.key.clone()).collect();
                let wrong = floor::field_mask(Some(&found), names).is_none();
                wrong.then(|| of(&known)).into_iter().collect()
            }
        }
    }
}
