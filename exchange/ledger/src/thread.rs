//! How the ledger's threads are started, and what a panic in one of them costs.
//!
//! Used once by whoever opens a ledger; each thread lowers its own priority. Nothing of it is on the disk.

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

/// Lets whoever answers take the processor from this thread as soon as it is woken, not at the end of a time slice of
/// milliseconds.
pub(crate) fn give_way() {
    // On Linux this is of this thread alone. Where it may not be lowered only latency suffers.
    let _ = rustix::process::nice(BEHIND_NICE);
}

/// The threads of a ledger that were started.
pub(crate) struct Threads {
    started: Vec<JoinHandle<()>>,
    stop: Arc<Stop>,
    failing: Arc<Failing>,
}

impl Threads {
    pub(crate) fn new(stop: &Arc<Stop>, failing: &Arc<Failing>) -> Self {
        Self { started: Vec::new(), stop: Arc::clone(stop), failing: Arc::clone(failing) }
    }

    /// Starts a thread that the journal depends on: a panic in it stops the ledger as a failed write does.
    pub(crate) fn guarded(
        &mut self,
        name: &'static str,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), OpenError> {
        let stop = Arc::clone(&self.stop);
        self.start(name, move || {
            if catch_unwind(AssertUnwindSafe(run)).is_err() {
                stop.fatal(&format!("the {name} thread panicked"));
            }
        })
    }

    /// Starts a thread that only derives, behind all others: a panic in it costs what it derives, and is told.
    pub(crate) fn derived(
        &mut self,
        what: Derived,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), OpenError> {
        let failing = Arc::clone(&self.failing);
        self.start(what.name(), move || {
            give_way();
            if catch_unwind(AssertUnwindSafe(run)).is_err() {
                tracing::error!("the {} thread panicked: what it derives stands still", what.name());
                failing.set(what, true);
            }
        })
    }

    fn start(&mut self, name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        self.started.push(thread.map_err(OpenError::io("starting a thread"))?);
        Ok(())
    }

    /// All of them, to be waited for.
    pub(crate) fn started(self) -> Vec<JoinHandle<()>> {
        self.started
    }
}
