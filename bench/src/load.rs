//! Load on one route over keep-alive connections: closed loop (the next request when the answer is there) and open
//! loop (requests on a schedule that does not wait for answers).
//!
//! In the open loop latency counts from the **scheduled** start, so that a server that stalls is charged for every
//! request that had to wait, and the generator's own lateness is charged to the result too.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::http::Connection;
use crate::population::VerifyRequest;
use crate::server::{Sample, Server};

/// Load before the measurement, so that caches, connections and threads are there.
pub const WARM_UP: Duration = Duration::from_secs(1);
/// An answer that takes longer is an error; as long after the last scheduled request none is sent any more.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Shortest rest of the pacer: it releases what has become due since.
const PACER_REST: Duration = Duration::from_micros(100);
/// Highest latency told apart, µs.
const MAX_LATENCY_US: u64 = 60_000_000;
/// Each connection keeps its first answer and every n-th after it for the checks.
const KEEP_EVERY: u64 = 199;
/// Denials and wrong answers that a connection keeps; its organisation's budget ends far below.
const MAX_KEPT_WRONG: usize = 10_000;
/// The beginning of an answer with the expected verdict.
const EXPECTED: &[u8] = br#"{"verdict":"valid","#;

/// A histogram of latencies in µs, three digits.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_LATENCY_US, 3).expect("the bounds are constants in range")
}

/// What is asked of whom.
pub struct Target {
    /// The data listener.
    pub address: SocketAddr,
    /// The client's identity, for HTTP/1.1.
    pub tls: Arc<ClientConfig>,
    /// Requests with head, sent in turn.
    pub requests: Vec<VerifyRequest>,
    /// Length of the head: the request's digest is over what follows it.
    pub head_bytes: usize,
    /// The next case number: each request has its own.
    pub cases: AtomicU64,
}

/// When a request is sent.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// When the connection's last answer is there.
    Closed,
    /// So many a second.
    Open(f64),
}

/// A request and its answer, kept for the checks.
pub struct Kept {
    /// Body as sent.
    pub request: Vec<u8>,
    /// Body as received.
    pub answer: Vec<u8>,
}

/// What happened.
pub struct Phase {
    /// The measured time.
    pub duration: Duration,
    /// Right answers to requests of the measured time: given in it (closed loop), or scheduled in it (open loop).
    pub answers: u64,
    /// Right answers in all, those of the warm-up too.
    pub all_answers: u64,
    /// Everything that was no right answer, by cause: a status, `verdict`, `connection`, `late`, `unsent`.
    pub errors: BTreeMap<String, u64>,
    /// Latency of `answers`, µs.
    pub latency: Histogram<u64>,
    /// A sample of right answers.
    pub kept: Vec<Kept>,
    /// Denials and wrong answers.
    pub wrong: Vec<Kept>,
    /// The server at the beginning and at the end of the measured time.
    pub samples: [Sample; 2],
}

/// What all connections of a phase share.
struct Shared {
    target: Arc<Target>,
    pace: Pace,
    start: Instant,
    /// The measured time.
    window: Range<Instant>,
    /// Requests on the schedule (open loop).
    scheduled: u64,
    /// Due ones among them.
    due: Semaphore,
    /// The next of them.
    next: AtomicU64,
}

/// One connection's share.
struct Tally {
    answers: u64,
    all_answers: u64,
    errors: BTreeMap<String, u64>,
    latency: Histogram<u64>,
    kept: Vec<Kept>,
    wrong: Vec<Kept>,
}

impl Tally {
    fn error(&mut self, cause: impl Into<String>) {
        *self.errors.entry(cause.into()).or_default() += 1;
    }
}

/// Drives one phase.
///
/// # Errors
/// No connection comes about, or the server goes away.
pub async fn run(
    target: &Arc<Target>,
    server: &Server,
    connections: usize,
    pace: Pace,
    duration: Duration,
) -> anyhow::Result<Phase> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        open.push(Connection::open(target.address, &target.tls).await.context("no connection")?);
    }
    let start = Instant::now();
    let window = start + WARM_UP..start + WARM_UP + duration;
    let scheduled = match pace {
        Pace::Closed => 0,
        Pace::Open(rate) => ((WARM_UP + duration).as_secs_f64() * rate) as u64,
    };
    let shared = Arc::new(Shared {
        target: Arc::clone(target),
        pace,
        start,
        window,
        scheduled,
        due: Semaphore::new(0),
        next: AtomicU64::new(0),
    });
    let tasks: Vec<_> =
        open.into_iter().map(|connection| tokio::spawn(drive(Arc::clone(&shared), connection))).collect();
    let pacer = match pace {
        Pace::Closed => None,
        Pace::Open(rate) => {
            let shared = Arc::clone(&shared);
            let release = move || release(&shared, rate, connections);
            Some(std::thread::Builder::new().name("pacer".into()).spawn(release)?)
        }
    };
    tokio::time::sleep_until(shared.window.start.into()).await;
    let before = server.sample().await?;
    tokio::time::sleep_until(shared.window.end.into()).await;
    let after = server.sample().await?;
    if let Some(pacer) = pacer {
        pacer.join().map_err(|_| anyhow::anyhow!("the pacer failed"))?;
    }
    let mut phase = Phase {
        duration,
        answers: 0,
        all_answers: 0,
        errors: BTreeMap::new(),
        latency: new_histogram(),
        kept: Vec::new(),
        wrong: Vec::new(),
        samples: [before, after],
    };
    for task in tasks {
        let tally = task.await?;
        phase.answers += tally.answers;
        phase.all_answers += tally.all_answers;
        for (cause, count) in tally.errors {
            *phase.errors.entry(cause).or_default() += count;
        }
        phase.latency.add(&tally.latency).context("histograms of the same bounds")?;
        phase.kept.extend(tally.kept);
        phase.wrong.extend(tally.wrong);
    }
    // A request that was due and never sent is no answer, and hiding it would flatter the rest.
    let unsent = scheduled.saturating_sub(shared.next.load(Ordering::Relaxed));
    if unsent > 0 {
        phase.errors.insert("unsent".to_owned(), unsent);
    }
    Ok(phase)
}

/// Makes requests due on schedule; at its end lets every connection see that it is over.
fn release(shared: &Shared, rate: f64, connections: usize) {
    let mut released = 0;
    while released < shared.scheduled {
        let due = ((shared.start.elapsed().as_secs_f64() * rate) as u64 + 1).min(shared.scheduled);
        if due > released {
            shared.due.add_permits(usize::try_from(due - released).unwrap_or(usize::MAX));
            released = due;
        }
        let next = shared.start + Duration::from_secs_f64(released as f64 / rate);
        std::thread::sleep(next.saturating_duration_since(Instant::now()).max(PACER_REST));
    }
    shared.due.add_permits(connections);
}

async fn drive(shared: Arc<Shared>, mut connection: Connection) -> Tally {
    let mut tally = Tally {
        answers: 0,
        all_answers: 0,
        errors: BTreeMap::new(),
        latency: new_histogram(),
        kept: Vec::new(),
        wrong: Vec::new(),
    };
    let target = &shared.target;
    let mut request = Vec::new();
    while let Some(begun) = shared.turn().await {
        let case = target.cases.fetch_add(1, Ordering::Relaxed);
        let Some(template) =
            usize::try_from(case).ok().and_then(|c| target.requests.get(c % target.requests.len()))
        else {
            break;
        };
        template.write(case, &mut request);
        let (status, answer) = match timeout(ANSWER_DEADLINE, connection.call(&request)).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_)) => {
                tally.error("connection");
                break;
            }
            Err(_) => {
                tally.error("late");
                break;
            }
        };
        let ended = Instant::now();
        let counts = match shared.pace {
            Pace::Closed => shared.window.contains(&ended),
            Pace::Open(_) => shared.window.contains(&begun),
        };
        let keep = || Kept { request: request[target.head_bytes..].to_vec(), answer: answer.to_vec() };
        if status != 200 || !answer.starts_with(EXPECTED) {
            if tally.wrong.len() < MAX_KEPT_WRONG {
                tally.wrong.push(keep());
            }
            tally.error(if status == 200 { "verdict".to_owned() } else { status.to_string() });
            continue;
        }
        if tally.all_answers.is_multiple_of(KEEP_EVERY) {
            tally.kept.push(keep());
        }
        tally.all_answers += 1;
        if counts {
            tally.answers += 1;
            let micros = ended.duration_since(begun).as_micros();
            tally.latency.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
        }
    }
    tally
}

impl Shared {
    /// Waits for the next request; gives the moment its latency counts from, `None` when the phase is over.
    async fn turn(&self) -> Option<Instant> {
        match self.pace {
            Pace::Closed => Some(Instant::now()).filter(|now| *now < self.window.end),
            Pace::Open(rate) => {
                self.due.acquire().await.ok()?.forget();
                if Instant::now() > self.window.end + ANSWER_DEADLINE {
                    return None;
                }
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                let scheduled = self.start + Duration::from_secs_f64(number as f64 / rate);
                Some(scheduled).filter(|_| number < self.scheduled)
            }
        }
    }
}
