//! `exchange participant`.
//!
//! An operator runs it, through a serving exchange, or offline under the journal's lock. A crash leaves the
//! registration with its entry, or neither.

use crate::init;
use schemas::routes::Route;
use serde_json::json;
use verifier::command::EXIT_DONE;

use super::{Caller, Registration, json_file, runtime};

/// Adds or changes a registration, through a serving exchange or in its folder.
pub fn register(registration: &Registration, change: bool) -> anyhow::Result<u8> {
    let Registration { file, offline, accept_clock, operator } = registration;
    let participant = json_file(file)?;
    if *offline {
        let mut config = operator.place.load()?;
        config.accept_clock = *accept_clock;
        runtime()?.block_on(init::register_offline(&config, &participant.to_string(), change))?;
        return Ok(EXIT_DONE);
    }
    let route = if change { Route::ParticipantChange } else { Route::ParticipantAdd };
    operator.send(route, &json!({ "participant": participant }))
}

/// Suspends a participant, or lifts that.
pub fn suspend(organisation: &str, reason: &str, lift: bool, operator: &Caller) -> anyhow::Result<u8> {
    let body = json!({"organisation": organisation, "suspended": !lift, "reason": reason});
    operator.send(Route::ParticipantSuspend, &body)
}
