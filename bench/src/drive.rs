//! The load generator: one thread that drives any service over mTLS and measures what comes back.
//!
//! In the open loop requests follow a schedule that waits for nobody, and latency counts from the **scheduled** moment:
//! a stall is charged to every request that had to wait for it, and the generator's own lateness too. In the closed loop
//! each answer is followed by the next request.
//!
//! What is asked, and which answer is right, is the [`Workload`]'s. Sockets are the engine's: for HTTP/1.1 and Redis an
//! `epoll` loop that allocates nothing of its own for an answer, for HTTP/2 `hyper`.

mod http2;
mod pilot;
mod schedule;
mod sockets;
mod wire;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use exchange::tls;
use hdrhistogram::Histogram;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize};

use crate::process;

pub use schedule::{Arrivals, Rate};

/// Share of a processor from which on the generator measures itself instead of the server.
pub const MAX_GENERATOR_SHARE: f64 = 0.8;
/// A generator that notices its slots later than this at the 99th percentile is not in time.
pub const MAX_LATENESS: Duration = Duration::from_millis(2);
/// An answer that takes longer is an error; as long after the last scheduled request none is sent any more.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// All connections must have shaken hands within this time.
const CONNECT_DEADLINE: Duration = Duration::from_secs(60);
/// Highest latency told apart, µs.
const MAX_LATENCY_US: u64 = 60_000_000;

/// Added to the generator's nice value on a processor of its own.
const BEFORE_OTHERS: i32 = -10;

/// A histogram of times in µs, three digits.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_LATENCY_US, 3).expect("the bounds are constants in range")
}

/// Who is asked, as whom.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where the service listens.
    pub address: SocketAddr,
    /// The name its certificate must be good for.
    pub name: ServerName<'static>,
    /// Whom to trust and which certificate to show; `None` speaks in clear.
    pub tls: Option<Arc<ClientConfig>>,
}

/// TLS of a client: trusts the CAs of `ca` and shows `identity`, certificate chain and key, all PEM. Without `resumption`
/// every handshake is a full one.
///
/// # Errors
/// A text is not what it should be.
pub fn client_tls(
    ca: &str,
    identity: Option<(&str, &str)>,
    protocol: Protocol,
    resumption: bool,
) -> anyhow::Result<Arc<ClientConfig>> {
    let identity = identity.map(|(chain, key)| (chain.as_bytes(), key.as_bytes()));
    let mut config = client::Tls::from_pem(ca.as_bytes(), identity)?.config();
    config.alpn_protocols = match protocol {
        Protocol::Http1 => vec![tls::ALPN_HTTP1.to_vec()],
        Protocol::Http2 { .. } => vec![tls::ALPN_H2.to_vec()],
        Protocol::Resp => Vec::new(),
    };
    if !resumption {
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 keep-alive, one request at a time on a connection.
    Http1,
    /// HTTP/2, so many requests at a time on a connection.
    Http2 {
        /// Streams in use.
        streams: usize,
    },
    /// Redis (RESP2), one command at a time on a connection.
    Resp,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Drive {
    /// Identities; a ticket's lane is a place in this list.
    pub endpoints: Vec<Endpoint>,
    /// Connections to each endpoint; in the closed loop also the requests under way in all (times the streams).
    pub connections: usize,
    /// What is spoken.
    pub protocol: Protocol,
    /// When requests are sent.
    pub arrivals: Arrivals,
    /// Time before the measured time, under the same load.
    pub warm_up: Duration,
    /// The measured time.
    pub duration: Duration,
    /// A connection is closed after so many answers and made anew; HTTP/1.1 and Redis.
    pub requests_a_connection: Option<NonZeroU64>,
    /// The processor that the generator runs on; `None` leaves it to the system.
    pub core: Option<usize>,
}

/// One request that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The endpoint that it goes to.
    pub lane: usize,
    /// What it counts as, below [`Workload::kinds`].
    pub kind: usize,
    /// What it is about; the workload's own.
    pub subject: u64,
}

/// The bytes of a request, written into the same buffer again and again.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Head and body.
    pub bytes: Vec<u8>,
    /// Length of the head.
    pub head_bytes: usize,
}

impl Request {
    /// What follows the head.
    pub fn body(&self) -> &[u8] {
        self.bytes.get(self.head_bytes..).unwrap_or_default()
    }
}

/// A whole answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// HTTP status; of Redis 200 for a value, 404 for none, 500 for an error.
    pub status: u16,
    /// Body or value.
    pub body: &'a [u8],
}

/// Why an answer does not count; a status or a word, nothing of a person.
pub type Cause = Cow<'static, str>;

/// What is asked and which answer is right. Runs on the generator's thread: whatever it costs is the generator's.
pub trait Workload: Send {
    /// How many kinds of requests are counted apart.
    fn kinds(&self) -> usize;

    /// The next request; called at the moment it is due.
    fn draw(&mut self) -> Ticket;

    /// Writes it, as HTTP/1.1 or as a Redis command; the buffer comes empty. Called when it is sent.
    fn write(&mut self, ticket: Ticket, request: &mut Request);

    /// Whether this is the right answer.
    ///
    /// # Errors
    /// Why it is not; it is then counted under that name.
    fn judge(&mut self, ticket: Ticket, request: &Request, answer: Answer<'_>) -> Result<(), Cause>;
}

/// What the caller hears while the run goes on, on its own thread.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// The measured time begins: the moment to note what the server used so far.
    Began,
    /// A second has passed.
    Second(Row),
    /// The measured time is over.
    Ended,
}

/// A second of a run; in the report of a long one some of them, merged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Its end, seconds since the measured time began; of the warm-up not above 0.
    pub at: f64,
    /// Right answers a second.
    pub answers_a_second: f64,
    /// Everything that was no right answer.
    pub errors: u64,
    /// Median latency of right answers, ms; of merged rows the mean.
    pub p50: f64,
    /// 99th percentile, ms; of merged rows the highest.
    pub p99: f64,
    /// Highest, ms.
    pub max: f64,
}

/// Right answers of one kind.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Their number.
    pub answers: u64,
    /// Their latency, µs.
    pub latency: Histogram<u64>,
}

/// Handshakes of a run, those before its beginning too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Handshakes {
    /// With certificates.
    pub full: u64,
    /// Resumed from an earlier session.
    pub resumed: u64,
}

/// What happened.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The measured time.
    pub duration: Duration,
    /// Right answers to requests of the measured time: given in it (closed loop), or scheduled in it (open loop).
    pub answers: u64,
    /// Right answers in all, those of the warm-up too.
    pub all_answers: u64,
    /// Slots of the measured time on the schedule; 0 in the closed loop.
    pub scheduled: u64,
    /// Those of them that were sent more than 1 ms late, mostly because no connection was free.
    pub missed: u64,
    /// Everything that was no right answer, by cause: a status, what the workload says, `connection`, `connect`, `late`
    /// (no answer in time), `unsent` (due and never sent).
    pub errors: BTreeMap<String, u64>,
    /// Latency of `answers`, µs.
    pub latency: Histogram<u64>,
    /// The same by kind.
    pub kinds: Vec<Kind>,
    /// How long after its moment the generator noticed a slot, µs; empty in the closed loop.
    pub lateness: Histogram<u64>,
    /// Second by second of the measured time.
    pub rows: Vec<Row>,
    /// Handshakes.
    pub handshakes: Handshakes,
    /// Processors that the generator's thread used in the measured time.
    pub generator_cpu: f64,
    /// Share of its own processor that was in use, by whomever; `None` when it has none of its own.
    pub core_busy: Option<f64>,
}

/// An open loop is kept up with when within its time this share of what was asked for came.
pub const KEPT_UP: f64 = 0.98;

/// Right answers a second that came within the time of these rows, whenever they were asked for. `None` without rows.
fn came_a_second(rows: &[Row]) -> Option<f64> {
    let end = rows.last()?.at;
    let begun = [0.0].into_iter().chain(rows.iter().map(|row| row.at));
    let answers: f64 =
        rows.iter().zip(begun).map(|(row, begun)| row.answers_a_second * (row.at - begun)).sum();
    (end > 0.0).then(|| answers / end)
}

impl Outcome {
    /// Right answers a second that came within the measured time: in an open loop fewer than were asked for when they pile up,
    /// though each comes in the end.
    pub fn answers_a_second(&self) -> f64 {
        let asked = self.asked_a_second();
        if self.scheduled == 0 { asked } else { came_a_second(&self.rows).unwrap_or(asked) }
    }

    /// Requests of the measured time that were answered right, whenever that was, a second.
    fn asked_a_second(&self) -> f64 {
        self.answers as f64 / self.duration.as_secs_f64()
    }

    /// Why the server did not keep up with what was really asked, if it did not: random arrivals of a short run are not as many
    /// as the rate says.
    pub fn behind(&self) -> Option<String> {
        let (came, asked) = (self.answers_a_second(), self.asked_a_second());
        (came < KEPT_UP * asked)
            .then(|| format!("{came:.0} of {asked:.0} answers a second came within its time"))
    }

    /// All errors.
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Why the numbers are void, if they are: the generator measured itself, or a processor that was not its own.
    pub fn void(&self) -> Option<String> {
        let share = self.core_busy.unwrap_or(0.0).max(self.generator_cpu);
        if share >= MAX_GENERATOR_SHARE {
            return Some(format!(
                "the generator's processor was {:.0} % busy, {:.0} % is the limit",
                share * 100.0,
                MAX_GENERATOR_SHARE * 100.0
            ));
        }
        let lateness = Duration::from_micros(self.lateness.value_at_quantile(0.99));
        (!self.lateness.is_empty() && lateness > MAX_LATENESS).then(|| {
            format!(
                "the generator was {:.1} ms behind its schedule at the 99th percentile, {} ms is the limit",
                lateness.as_secs_f64() * 1e3,
                MAX_LATENESS.as_millis()
            )
        })
    }
}

/// Makes one run on a thread of its own; `on` hears of its course on the calling thread.
///
/// # Errors
/// The plan makes no sense, the connections do not come about, or `on` fails. What the server does wrong is in the
/// outcome instead.
pub fn drive(
    plan: &Drive,
    workload: &mut dyn Workload,
    on: &mut dyn FnMut(Event) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    check(plan)?;
    let stop = AtomicBool::new(false);
    let (events, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        let stop = &stop;
        let generator =
            std::thread::Builder::new().name("generator".into()).spawn_scoped(scope, move || {
                if let Some(core) = plan.core {
                    process::pin(core).with_context(|| format!("processor {core} for the generator"))?;
                    // Of this thread alone. The kernel writes pages back on any processor; who may not go before it is late
                    // more often.
                    let _ = rustix::process::nice(BEFORE_OTHERS);
                }
                // The default lets timers be 50 µs late, which would be charged to the server. Without it they are.
                let _ = rustix::thread::set_current_timer_slack(Some(NonZeroU64::MIN));
                match plan.protocol {
                    Protocol::Http2 { streams } => http2::run(plan, streams, workload, events, stop),
                    Protocol::Http1 => sockets::run(plan, wire::http1, workload, events, stop),
                    Protocol::Resp => sockets::run(plan, wire::resp, workload, events, stop),
                }
            })?;
        let mut failed = Ok(());
        for event in heard {
            failed = on(event);
            if failed.is_err() {
                stop.store(true, Ordering::Relaxed);
                break;
            }
        }
        let outcome = generator.join().map_err(|_| anyhow::anyhow!("the generator panicked"))?;
        failed.and(outcome)
    })
}

fn check(plan: &Drive) -> anyhow::Result<()> {
    ensure!(!plan.endpoints.is_empty() && plan.connections > 0, "no connections");
    ensure!(!plan.duration.is_zero(), "no time to measure");
    ensure!(!matches!(plan.protocol, Protocol::Http2 { streams: 0 }), "no streams");
    let good = |rate: f64| rate.is_finite() && rate > 0.0;
    let rates = match plan.arrivals {
        Arrivals::Closed => return Ok(()),
        Arrivals::Open { rate: Rate::Constant(rate), .. } => good(rate),
        Arrivals::Open { rate: Rate::Ramp(from, to), .. } => good(from) && good(to),
    };
    ensure!(rates, "rates are above 0");
    Ok(())
}

#[cfg(test)]
mod tests;
