//! Grants (用证授权): made by a portal for the holder that it vouches for, ended, listed.
//!
//! Create and revoke alone write grants. A grant and its entry are in one frame, so a crash leaves both or neither.

use serde::Serialize;

pub(crate) mod create;
pub(crate) mod revoke;
pub(crate) mod search;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    grant: String,
    state: &'static str,
}
