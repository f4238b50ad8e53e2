//! How the ledger's threads are started, and what a panic in one of them costs.
//!
//! Used once by whoever opens a ledger; each thread lowers its own priority.

use crate::{
    error::OpenError,
    health::{Derived, Failing, Stop},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::JoinHandle,
};

/// Priority of the threads that no answer waits for: a quarter of a processor that another wants too.
const BEHIND_NICE: i32 = 5;

pub(crate) fn spawn(
    name: &'static str,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(OpenError::io("starting a thread"))
}

/// A panic in a thread that the journal depends on stops the ledger as a failed write does.
pub(crate) fn guarded<F: FnOnce()>(stop: &Arc<Stop>, name: &'static str, run: F) -> impl FnOnce() + use<F> {
    let stop = Arc::clone(stop);
    move || {
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            stop.fatal(&format!("the {name} thread panicked"));
        }
    }
}

/// Lets whoever answers take the processor from this thread as soon as it is woken, not at the end of a time slice of
/// milliseconds.
pub(crate) fn give_way() {
    // On Linux this is of this thread alone. Where it may not be lowered only latency suffers.
    let _ = rustix::process::nice(BEHIND_NICE);
}

/// A panic in a thread that only derives costs what it derives, and is told.
pub(crate) fn noticed<F: FnOnce()>(failing: &Arc<Failing>, what: Derived, run: F) -> impl FnOnce() + use<F> {
    let failing = Arc::clone(failing);
    move || {
        give_way();
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            tracing::error!("the {} thread panicked: what it derives stands still", what.name());
            failing.set(what, true);
        }
    }
}
