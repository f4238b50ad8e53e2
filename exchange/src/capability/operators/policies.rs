//! `POST /v1/admin/policies`: the policies in force.
//!
//! The path alone calls it. It changes nothing: a crash leaves its entry or nothing.

use std::sync::Arc;

use schemas::codes::{Code, Rule};
use schemas::identifier::Uscc;
use schemas::routes::Route;
use serde::{Deserialize, Serialize};

use crate::capability::Capability;
use crate::gateway::case::Case;
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::rights::in_force::Versioned;
use crate::wire::read::{self, Body};
use crate::wire::refusal::{Fault, Refusal};

/// The capability.
pub(crate) struct Show;

/// A question without parts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    version: u32,
    policy: String,
    policies: &'a str,
    as_of: String,
}

impl Capability<'_> for Show {
    const ROUTE: Route = Route::PolicyShow;
    type Asked = Asked;
    type Granted = Arc<Versioned>;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        let asked = read::json(body.bytes)?;
        // An empty list would be read as an object without members.
        if body.bytes.trim_ascii_start().first() == Some(&b'[') {
            return Err(Refusal::of(Code::MalformedRequest, Fault::at("", Rule::Type).form("object")));
        }
        Ok(asked)
    }

    fn names<'a>(_asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        Names::default()
    }

    fn decide(
        case: &mut Case<'_>,
        _caller: &Participant,
        _asked: &Asked,
    ) -> Result<Ruling<Arc<Versioned>>, Refusal> {
        Ok(Ruling::plain(Arc::clone(case.policies()), Vec::new()))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        _asked: &Asked,
        permit: Permit<Arc<Versioned>>,
    ) -> Result<Vec<u8>, Refusal> {
        let in_force = permit.into_granted();
        let Versioned { version, policies } = &*in_force;
        let (version, policy) = (*version, hex::encode(policies.hash()));
        Ok(answer(&Answer { version, policy, policies: policies.text(), as_of: change.as_of() }))
    }
}
