//! `POST /v1/verify/batch`: many verifications in one body. Each is decided by the rules of `/v1/verify`, journaled and answered on its
//! own; the path ends them with a report. A body that is one document of JSON is one of them.
//!
//! The path alone calls it. It changes no license: a crash leaves entries of the uses that were decided, and no end.

use schemas::identifier::Uscc;
use schemas::routes::Route;

use super::Capability;
use super::verify::{Asked, Checked, Verify};
use crate::gateway::case::Case;
use crate::gateway::change::Change;
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::wire::read::Body;
use crate::wire::refusal::Refusal;

/// The capability of one line.
pub(crate) struct Batch;

impl<'r> Capability<'r> for Batch {
    const ROUTE: Route = Route::VerifyBatch;
    type Asked = Asked<'r>;
    type Granted = Checked;

    fn read(body: Body<'r>) -> Result<Asked<'r>, Refusal> {
        Verify::read(body)
    }

    fn names<'a>(asked: &'a Asked<'r>, caller: &Uscc) -> Names<'a> {
        Verify::names(asked, caller)
    }

    fn decide(
        case: &mut Case<'_>,
        caller: &Participant,
        asked: &Asked<'r>,
    ) -> Result<Ruling<Checked>, Refusal> {
        Verify::decide(case, caller, asked)
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked<'r>,
        permit: Permit<Checked>,
    ) -> Result<Vec<u8>, Refusal> {
        Verify::carry_out(change, asked, permit).await
    }
}
