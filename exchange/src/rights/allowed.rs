//! Whether the policies in force permit what a request asks, by what it says of itself. Asked of every route that has a class, before
//! its decision, so that the answer follows nothing that is there or not.
//!
//! It reads a case and changes nothing, so a crash leaves nothing.

use std::sync::Arc;

use schemas::codes::Reason;
use schemas::identifier::LicenseTypeCode;
use schemas::license_type::HolderKind;
use schemas::routes::Route;

use super::policy::{Question, Said};
use crate::gateway::case::Case;
use crate::gateway::names::Names;
use crate::participant::Caller;
use crate::wire::refusal::Refusal;

/// Whether the policies permit a request.
///
/// # Errors
/// [`schemas::codes::Code::NotPermitted`]: they do not, or one of them could not be evaluated.
pub(crate) fn allowed(
    case: &mut Case<'_>,
    route: Route,
    caller: &Caller,
    names: &Names<'_>,
) -> Result<(), Refusal> {
    asked_of(case, route, caller, names, |_| names.license_type())
}

/// The same of the type that the decision found, where a request does not name it: what a code shows.
///
/// # Errors
/// As [`allowed`].
pub(crate) fn allowed_by_code(
    case: &mut Case<'_>,
    route: Route,
    caller: &Caller,
    names: &Names<'_>,
) -> Result<(), Refusal> {
    asked_of(case, route, caller, names, |case| names.type_used(case))
}

fn asked_of(
    case: &mut Case<'_>,
    route: Route,
    caller: &Caller,
    names: &Names<'_>,
    license_type: impl FnOnce(&mut Case<'_>) -> Option<LicenseTypeCode>,
) -> Result<(), Refusal> {
    let Some(class) = route.class_of(names.resource.is_some(), names.mode.is_some()) else { return Ok(()) };
    let in_force = Arc::clone(case.policies());
    let policies = &in_force.policies;
    let reads_type = policies.read_type(class);
    let license_type = if reads_type { license_type(case) } else { None };
    let (context, terms) = (names.context, names.terms.as_ref());
    let question = Question {
        class,
        organisation: &caller.participant().organisation,
        registered: caller.version(),
        roles: &caller.participant().roles,
        license_type,
        published: license_type.map_or((0, "none"), |code| published(case, &code)),
        purpose: context.map_or_else(|| terms?.purpose, |context| context.purpose.as_deref()),
        scenario: context.map_or_else(|| terms?.scenario, |context| context.scenario),
        item: context.map(|context| &*context.item_code),
        stage: context.map(|context| &*context.stage),
        mode: names.mode,
        case_number: context.map(|context| &*context.business_code),
        user_name: context.map(|context| &*context.user_name),
    };
    let ask = |question: &Question<'_>| match policies.ask(question) {
        Said::Permits => Ok(()),
        Said::Nothing | Said::Forbids => Err(Refusal::not_permitted(Reason::PolicyDenied)),
        Said::Fails => Err(Refusal::not_permitted(Reason::PolicyFailed)),
    };
    ask(&question)?;
    // Each type that it is about has to be permitted.
    if reads_type {
        for code in names.further_types() {
            let of_type =
                Question { license_type: Some(code), published: published(case, &code), ..question };
            ask(&of_type)?;
        }
    }
    Ok(())
}

/// The version of a type's definition, and who holds such a license.
fn published(case: &mut Case<'_>, code: &LicenseTypeCode) -> (u32, &'static str) {
    let (place, license_type) = case.published(code);
    let holders = license_type.map_or("unknown", |license_type| holders(license_type.holders));
    (place.version(), holders)
}

/// The word of policies for who holds a license.
pub(crate) const fn holders(kind: HolderKind) -> &'static str {
    match kind {
        HolderKind::Natural => "natural",
        HolderKind::Legal => "legal",
        HolderKind::Both => "both",
    }
}
