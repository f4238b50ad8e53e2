//! The catalogue of shared resources (政务信息资源目录): written and moved through its life by providers, searched by all.
//!
//! Their routes alone use it. It is state of the journal, and a crash leaves what the last entry says.

use schemas::codes::{Code, Reason};
use schemas::resource::Fault as DefinitionFault;
use serde::Serialize;

use crate::gateway::case::{Case, Place};
use crate::participant::Participant;
use crate::sharing::resource::Listed;
use crate::wire::refusal::{Fault, Refusal};
use crate::wire::text::unknown_resource;

pub(crate) mod search;
pub(crate) mod transition;
pub(crate) mod write;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    resource: &'a str,
    state: &'static str,
    version: u32,
}

/// The faults of a definition or a row, under the code.
pub(crate) fn faults(code: Code, faults: Vec<DefinitionFault>) -> Refusal {
    let fault = |found: DefinitionFault| Fault::at(found.pointer, found.rule).form(found.form);
    Refusal::all(code, faults.into_iter().map(fault).collect())
}

/// The caller's own resource with a code, and its place.
fn own(case: &mut Case<'_>, caller: &Participant, code: &str) -> Result<(Place, Listed), Refusal> {
    let (place, listed) = case.resource(code);
    let listed = listed.ok_or_else(|| unknown_resource("/resource"))?;
    if listed.provider != caller.organisation {
        // Drafts of others are nothing that there is.
        return Err(if listed.state.is_listed() {
            Refusal::not_permitted(Reason::OtherProvider)
        } else {
            unknown_resource("/resource")
        });
    }
    Ok((place, Listed::clone(&listed)))
}
