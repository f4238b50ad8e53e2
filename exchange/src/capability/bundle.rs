//! `POST /v1/bundle`: a verification, a retrieval or a query of shared data, so that a body in lines brings what one matter needs of both
//! kinds. Each line is decided by the rules of its own route, journaled and answered on its own.
//!
//! The path alone calls it. A use and its counters are in one frame: a crash leaves both or neither.

use schemas::codes::{Code, Rule};
use schemas::identifier::Uscc;
use schemas::routes::Route;
use serde::Deserialize;

use super::Capability;
use super::licenses::retrieve::{self, Retrieve};
use super::licenses::stored::StandsNow;
use super::records::query::{self, Query};
use super::verify::{self, Verify};
use crate::gateway::case::Case;
use crate::gateway::change::Change;
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Fault, Placed as _, Refusal};

/// The capability.
pub(crate) struct Bundle;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    verify: Option<verify::Request<'a>>,
    #[serde(borrow)]
    retrieve: Option<retrieve::Request<'a>>,
    #[serde(borrow)]
    query: Option<query::Request<'a>>,
}

/// One part of what a matter needs.
#[derive(Debug)]
pub(crate) enum Asked<'a> {
    Verify(verify::Asked<'a>),
    Retrieve(retrieve::Asked<'a>),
    Query(query::Asked<'a>),
}

/// The findings of its own route's decision.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is made once a request, and moved twice")]
pub(crate) enum Granted {
    Verify(verify::Checked),
    Retrieve(retrieve::Granted),
    Query(query::Granted),
}

impl<'r> Capability<'r> for Bundle {
    const ROUTE: Route = Route::Bundle;
    type Asked = Asked<'r>;
    type Granted = Granted;

    fn read(body: Body<'r>) -> Result<Asked<'r>, Refusal> {
        match json::<Request<'_>>(body.bytes)? {
            Request { verify: Some(verify), retrieve: None, query: None } => {
                verify.typed().map(Asked::Verify).under("verify")
            }
            Request { verify: None, retrieve: Some(retrieve), query: None } => {
                retrieve.typed().map(Asked::Retrieve).under("retrieve")
            }
            Request { verify: None, retrieve: None, query: Some(query) } => {
                query.typed().map(Asked::Query).under("query")
            }
            _ => {
                let fault = Fault::at("", Rule::Combination).form("one of verify, retrieve and query");
                Err(Refusal::of(Code::MalformedRequest, fault))
            }
        }
    }

    fn names<'a>(asked: &'a Asked<'r>, caller: &Uscc) -> Names<'a> {
        match asked {
            Asked::Verify(asked) => Verify::names(asked, caller),
            Asked::Retrieve(asked) => Retrieve::names(asked, caller),
            Asked::Query(asked) => Query::names(asked, caller),
        }
    }

    fn decide(
        case: &mut Case<'_>,
        caller: &Participant,
        asked: &Asked<'r>,
    ) -> Result<Ruling<Granted>, Refusal> {
        match asked {
            Asked::Verify(asked) => decided::<Verify>(case, caller, asked)
                .under("verify")
                .map(|ruling| ruling.map(Granted::Verify)),
            Asked::Retrieve(asked) => decided::<Retrieve>(case, caller, asked)
                .under("retrieve")
                .map(|ruling| ruling.map(Granted::Retrieve)),
            Asked::Query(asked) => {
                decided::<Query>(case, caller, asked).map(|ruling| ruling.map(Granted::Query))
            }
        }
    }

    fn disclosed(case: &mut Case<'_>, granted: &Granted) -> Option<StandsNow> {
        match granted {
            Granted::Verify(granted) => Verify::disclosed(case, granted),
            Granted::Retrieve(granted) => Retrieve::disclosed(case, granted),
            Granted::Query(granted) => Query::disclosed(case, granted),
        }
    }

    fn changed_ms(granted: &Granted) -> u64 {
        match granted {
            Granted::Verify(granted) => Verify::changed_ms(granted),
            Granted::Retrieve(granted) => Retrieve::changed_ms(granted),
            Granted::Query(granted) => Query::changed_ms(granted),
        }
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked<'r>,
        permit: Permit<Granted>,
    ) -> Result<Vec<u8>, Refusal> {
        // A decision grants what was asked.
        let other = || Refusal::new(Code::Internal);
        match asked {
            Asked::Verify(asked) => {
                let permit = permit.part(|granted| match granted {
                    Granted::Verify(granted) => Some(granted),
                    Granted::Retrieve(_) | Granted::Query(_) => None,
                });
                Verify::carry_out(change, asked, permit.ok_or_else(other)?).await
            }
            Asked::Retrieve(asked) => {
                let permit = permit.part(|granted| match granted {
                    Granted::Retrieve(granted) => Some(granted),
                    Granted::Verify(_) | Granted::Query(_) => None,
                });
                Retrieve::carry_out(change, asked, permit.ok_or_else(other)?).await
            }
            Asked::Query(asked) => {
                let permit = permit.part(|granted| match granted {
                    Granted::Query(granted) => Some(granted),
                    Granted::Verify(_) | Granted::Retrieve(_) => None,
                });
                Query::carry_out(change, asked, permit.ok_or_else(other)?).await
            }
        }
    }
}

/// The decision of a part's own route, for a caller whose roles that route admits.
fn decided<'r, C: Capability<'r>>(
    case: &mut Case<'_>,
    caller: &Participant,
    asked: &C::Asked,
) -> Result<Ruling<C::Granted>, Refusal> {
    if !C::ROUTE.contract().roles.admit(&caller.roles) {
        return Err(Refusal::new(Code::WrongRole));
    }
    C::decide(case, caller, asked)
}
