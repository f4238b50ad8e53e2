//! Signals of a supervisor or a terminal: none of them ends a serving process without a drain.
//!
//! A serving process makes one, before it opens anything. Nothing to lose.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The request that a signal makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Finish what is under way, and end.
    Stop,
    /// Read again what can change while serving.
    Reload,
    /// Say in the log how things stand.
    State,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "finishing what is under way, then ending",
            Self::Reload => "reading again what can change while serving",
            Self::State => "saying how things stand",
        })
    }
}

/// Every signal that would end the process, and what it asks for; `None` for nothing. Those that tell a fault of the
/// process itself keep their meaning, and Rust ignores SIGPIPE already.
const CAUGHT: [(&str, Signal, Option<Event>); 14] = [
    ("SIGINT", Signal::INT, Some(Event::Stop)),
    ("SIGTERM", Signal::TERM, Some(Event::Stop)),
    ("SIGQUIT", Signal::QUIT, Some(Event::Stop)),
    ("SIGPWR", Signal::POWER, Some(Event::Stop)),
    ("SIGXCPU", Signal::XCPU, Some(Event::Stop)),
    ("SIGHUP", Signal::HUP, Some(Event::Reload)),
    ("SIGUSR1", Signal::USR1, Some(Event::State)),
    ("SIGUSR2", Signal::USR2, None),
    ("SIGALRM", Signal::ALARM, None),
    ("SIGVTALRM", Signal::VTALARM, None),
    ("SIGPROF", Signal::PROF, None),
    ("SIGIO", Signal::IO, None),
    ("SIGSTKFLT", Signal::STKFLT, None),
    // The write that made a file too large fails, and is told as such.
    ("SIGXFSZ", Signal::XFSZ, None),
];
/// The signals without a name that the system's library leaves to programs. Another library leaves fewer.
const REAL_TIME: std::ops::Range<i32> = 34..64;

/// The events of the signals, caught from the moment this is made: make it before anything is opened or said to be
/// served. Signals stay caught when it is dropped, so that a second one does not cut a drain off.
pub struct Signals {
    events: UnboundedReceiver<Event>,
    sender: UnboundedSender<Event>,
}

impl Signals {
    /// Catches signals from now on; within a runtime.
    ///
    /// # Errors
    /// The system does not let one be caught.
    pub fn catch() -> anyhow::Result<Self> {
        let (sender, events) = unbounded_channel();
        let ending = Arc::new(AtomicBool::new(false));
        for (name, number, event) in CAUGHT {
            let mut caught = signal(SignalKind::from_raw(number.as_raw()))
                .with_context(|| format!("{name} cannot be caught"))?;
            let (sender, ending) = (sender.clone(), Arc::clone(&ending));
            tokio::spawn(async move {
                while caught.recv().await.is_some() {
                    let Some(event) = event else {
                        tracing::warn!("{name}: it asks for nothing, and is ignored");
                        continue;
                    };
                    let again = match event {
                        Event::Stop => ending.swap(true, Ordering::SeqCst),
                        Event::Reload | Event::State => ending.load(Ordering::SeqCst),
                    };
                    if !again && sender.send(event).is_ok() {
                        tracing::info!("{name}: {event}");
                    } else {
                        tracing::warn!("{name}: ending already, and goes on finishing what is under way");
                    }
                }
            });
        }
        for number in REAL_TIME {
            let Ok(mut caught) = signal(SignalKind::from_raw(number)) else { continue };
            tokio::spawn(async move {
                while caught.recv().await.is_some() {
                    tracing::warn!("signal {number}: it asks for nothing, and is ignored");
                }
            });
        }
        Ok(Self { events, sender })
    }

    /// Sends events as if a signal had come; closed as soon as the signals were dropped.
    pub fn sender(&self) -> UnboundedSender<Event> {
        self.sender.clone()
    }

    /// The next event.
    pub async fn next(&mut self) -> Event {
        // Never closed: there is a sender in here.
        self.events.recv().await.unwrap_or(Event::Stop)
    }
}
