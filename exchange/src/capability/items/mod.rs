//! Service items (事项) and their materials (材料): dictionaries and mappings, which materials need not be handed in, materials that are
//! kept once they are verified, and what was demanded on paper all the same.
//!
//! Their routes alone use it. Each file says what a crash leaves.

use ledger::Ledger;
use schemas::codes::{Code, Rule};
use schemas::dictionary::{Item, Material};
use schemas::identifier::LicenseTypeCode;

use crate::capability::licenses::stored;
use crate::capability::records::query;
use crate::gateway::case::{Case, Found};
use crate::gateway::permit::Disclosure;
use crate::participant::Participant;
use crate::sharing::dictionary::{Imported, Mapped, entry_key, mapping_key};
use crate::wire::named::UseContext;
use crate::wire::refusal::{Fault, Refusal};

pub(crate) mod demanded;
pub(crate) mod import;
pub(crate) mod keep;
pub(crate) mod materials;
pub(crate) mod search;

/// Most licenses of one holder that are looked at.
const MAX_LICENSES: usize = 500;

/// The item that a use names, which somebody still does.
fn item(case: &mut Case<'_>, code: &str) -> Result<Item, Refusal> {
    let unknown = || Refusal::of(Code::UnknownItem, Fault::at("/use/itemCode", Rule::Unknown));
    let (_, found) = case.document::<Imported<Item>>(entry_key::<Item>(case.keyed(), code));
    found.map(|found| found.entry).filter(|item| !item.cancelled).ok_or_else(unknown)
}

/// A material of the dictionary.
fn material(case: &mut Case<'_>, code: &str) -> Option<Material> {
    let (_, found) = case.document::<Imported<Material>>(entry_key::<Material>(case.keyed(), code));
    found.map(|found| found.entry)
}

/// The mapping of an item's material, unless it no longer holds.
fn mapping(case: &mut Case<'_>, item: &str, material: &str) -> Option<Mapped> {
    let (_, found) = case.document::<Imported<Mapped>>(mapping_key(case.keyed(), item, material));
    found.map(|found| found.entry).filter(|mapped| !mapped.mapping.cancelled)
}

/// Whether the caller may query these fields of a resource for the item of a use now. It says nothing of a row or a person.
fn is_approved(
    case: &mut Case<'_>,
    caller: &Participant,
    context: &UseContext<'_>,
    resource: &str,
    fields: &[String],
) -> bool {
    let (_, Some(listed)) = case.resource(resource) else { return false };
    let asked = query::Asked::of(resource.into(), context.clone()).with_fields(fields.to_vec());
    query::approved(case, caller, &asked, listed.resource.supply).is_ok()
}

/// A holder's license of a type: one in force if there is one, else the newest.
#[derive(Clone, Debug)]
struct Held {
    type_code: LicenseTypeCode,
    identifier: String,
    state: &'static str,
    in_force: bool,
    valid_until: Option<String>,
}

/// The licenses among these, newest first, that are of one of the types. Blocks for a read of each.
fn held(
    ledger: &Ledger,
    right: Disclosure,
    licenses: &[Found],
    types: &[LicenseTypeCode],
    now_ms: u64,
) -> Result<Vec<Held>, Refusal> {
    let mut found: Vec<Held> = Vec::new();
    for license in licenses.iter().map(|found| &found.license) {
        let content = stored::content(ledger, license, right)?;
        let type_code = content.identifier.type_code();
        if !types.contains(&type_code) {
            continue;
        }
        let one = Held {
            type_code,
            identifier: content.identifier.to_string(),
            state: stored::state_code(license),
            in_force: stored::in_force(now_ms, license),
            valid_until: content.valid_until.map(|day| day.to_string()),
        };
        match found.iter_mut().find(|before| before.type_code == type_code) {
            None => found.push(one),
            Some(before) if one.in_force && !before.in_force => *before = one,
            Some(_) => {}
        }
    }
    Ok(found)
}
