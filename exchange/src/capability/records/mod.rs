//! Rows of resources: hosted ones (托管数据), brought in by their provider, and those that a provider's interface gives. One who has an
//! approval asks for both alike.
//!
//! Their routes alone use it. Each file says what a crash leaves.

use schemas::codes::{Code, Reason};
use schemas::sharing::ResourceState;

use crate::wire::refusal::Refusal;
use crate::wire::text::unknown_resource;

pub(crate) mod call;
pub(crate) mod compare;
pub(crate) mod feed;
pub(crate) mod ingest;
pub(crate) mod mismatches;
pub(crate) mod query;

/// Why a resource in a state is not answered; `None` where it is.
fn standing(state: ResourceState) -> Option<Refusal> {
    match state {
        ResourceState::Published | ResourceState::Changed => None,
        ResourceState::Suspended => {
            Some(Refusal::explained(Code::ResourceRefused, Reason::ResourceSuspended))
        }
        // It is in no catalogue.
        ResourceState::Draft | ResourceState::Withdrawn => Some(unknown_resource("/resource")),
    }
}
