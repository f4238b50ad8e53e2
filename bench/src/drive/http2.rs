//! The engine for HTTP/2: `hyper` on one thread, a task for each request under way.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::pilot::{Due, Pilot};
use super::{
    ANSWER_DEADLINE, Answer, CONNECT_DEADLINE, Drive, Endpoint, Event, Handshakes, Outcome, Request, Workload,
};

/// Longest sleep: the moment at which a run that is to stop notices it.
const REST: Duration = Duration::from_millis(100);
/// Between two attempts to make a connection again.
const AGAIN: Duration = Duration::from_millis(100);

pub(super) fn run(
    plan: &Drive,
    streams: usize,
    workload: &mut dyn Workload,
    events: Sender<Event>,
    stop: &AtomicBool,
) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut handshakes = Handshakes::default();
        let connect = async {
            let mut slots = Vec::new();
            for (lane, endpoint) in plan.endpoints.iter().enumerate() {
                for _ in 0..plan.connections {
                    let (sender, kind) =
                        open(endpoint).await.with_context(|| endpoint.address.to_string())?;
                    handshakes.count(kind);
                    slots.extend((0..streams).map(|_| Slot {
                        lane,
                        endpoint: endpoint.clone(),
                        sender: sender.clone(),
                        request: Request::default(),
                    }));
                }
            }
            anyhow::Ok(slots)
        };
        let slots = timeout(CONNECT_DEADLINE, connect)
            .await
            .context("the connections do not come about in time")??;
        let mut pilot = Pilot::start(plan, workload, events, plan.connections * streams);
        pilot.shaken(handshakes);
        steer(pilot, slots, plan.endpoints.len(), stop).await
    })
}

/// A stream of a connection.
struct Slot {
    lane: usize,
    endpoint: Endpoint,
    sender: SendRequest<Full<Bytes>>,
    request: Request,
}

/// How a request on a slot ended.
struct Done {
    slot: Slot,
    due: Due,
    /// Status and body, or the cause.
    answer: Result<(u16, Bytes), &'static str>,
}

async fn steer(
    mut pilot: Pilot<'_>,
    slots: Vec<Slot>,
    lanes: usize,
    stop: &AtomicBool,
) -> anyhow::Result<Outcome> {
    let timer = Timer::new()?;
    let mut idle: Vec<Vec<Slot>> = (0..lanes).map(|_| Vec::new()).collect();
    for slot in slots {
        idle[slot.lane].push(slot);
    }
    let (tell, mut done) = mpsc::unbounded_channel();
    loop {
        let now = Instant::now();
        pilot.tick(now);
        for (lane, idle) in idle.iter_mut().enumerate() {
            while pilot.waits(lane)
                && let Some(mut slot) = idle.pop()
            {
                let Some(due) = pilot.take(lane, Instant::now(), &mut slot.request) else { break };
                tokio::spawn(request(slot, due, tell.clone()));
            }
        }
        if pilot.over(now) || stop.load(Ordering::Relaxed) {
            return Ok(pilot.finish());
        }
        let rest = pilot.wake().saturating_duration_since(Instant::now()).min(REST);
        tokio::select! {
            Some(Done { slot, due, answer }) = done.recv() => {
                let now = Instant::now();
                match &answer {
                    Ok((status, body)) => {
                        pilot.answered(due, now, &slot.request, Answer { status: *status, body });
                    }
                    Err(cause) => pilot.failed(cause, now),
                }
                idle[slot.lane].push(slot);
            }
            woken = timer.sleep(rest) => woken?,
        }
    }
}

/// Sends one request and waits for its answer; a connection that breaks is made again before the slot is given back.
async fn request(mut slot: Slot, due: Due, tell: mpsc::UnboundedSender<Done>) {
    let answer = match timeout(ANSWER_DEADLINE, call(&mut slot)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err("connection"),
        Err(_) => Err("late"),
    };
    if slot.sender.is_closed() {
        tokio::time::sleep(AGAIN).await;
        if let Ok((sender, _)) = open(&slot.endpoint).await {
            slot.sender = sender;
        }
    }
    // Nobody listens any more when the run is over.
    let _ = tell.send(Done { slot, due, answer });
}

async fn call(slot: &mut Slot) -> anyhow::Result<(u16, Bytes)> {
    let request = translated(&slot.request)?;
    slot.sender.ready().await?;
    let answer = slot.sender.send_request(request).await?;
    let status = answer.status().as_u16();
    Ok((status, answer.into_body().collect().await?.to_bytes()))
}

/// An HTTP/1.1 request as one of HTTP/2: workloads write the same bytes for both.
fn translated(request: &Request) -> anyhow::Result<hyper::Request<Full<Bytes>>> {
    let head = std::str::from_utf8(request.bytes.get(..request.head_bytes).unwrap_or_default())?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(path)) = (first.next(), first.next()) else { bail!("a request without a line") };
    let mut headers = Vec::new();
    let mut authority = "";
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "host" => authority = value.trim(),
            // Of one connection, and known from the frames.
            "connection" | "content-length" => {}
            _ => headers.push((name, value.trim())),
        }
    }
    let mut built = hyper::Request::builder().method(method).uri(format!("https://{authority}{path}"));
    for (name, value) in headers {
        built = built.header(name, value);
    }
    Ok(built.body(Full::new(Bytes::copy_from_slice(request.body())))?)
}

async fn open(
    endpoint: &Endpoint,
) -> anyhow::Result<(SendRequest<Full<Bytes>>, Option<rustls::HandshakeKind>)> {
    let stream = TcpStream::connect(endpoint.address).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = &endpoint.tls else { bail!("HTTP/2 needs TLS") };
    let stream = TlsConnector::from(tls.clone()).connect(endpoint.name.clone(), stream).await?;
    let kind = stream.get_ref().1.handshake_kind();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    // Ends with its senders; an error shows up at the request that meets it.
    tokio::spawn(connection);
    Ok((sender, kind))
}

/// The runtime's own timer knows whole milliseconds only.
struct Timer {
    fd: AsyncFd<OwnedFd>,
}

impl Timer {
    #[expect(deprecated, reason = "an OwnedFd stays the same descriptor; the replacement is unsafe")]
    fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self { fd: AsyncFd::new(rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?)? })
    }

    async fn sleep(&self, rest: Duration) -> io::Result<()> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Zero would stop the timer.
        let value = Timespec {
            tv_sec: i64::try_from(rest.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: rest.subsec_nanos().max(1).into(),
        };
        let once = Itimerspec { it_interval: zero, it_value: value };
        // Setting it also takes back that an earlier time has run out.
        rustix::time::timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.fd.readable().await?;
            match rustix::io::read(&self.fd, &mut [0; 8]) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
