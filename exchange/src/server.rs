//! The accept loop of all listeners: bounded connections, bounded handshakes, HTTP/1.1 or HTTP/2 by ALPN.
//!
//! The peer's identity is settled here, once per connection, and is handed to the handler with each request. A request that is
//! closed or refused here is counted and never journaled: it carries no answer. Connections are memory: a crash drops
//! them.

mod drive;
mod failed;
mod limits;
mod slots;
mod taking;
mod wire;

pub use limits::{Descriptors, LEAST_DESCRIPTORS, Limits, TooFewDescriptors};
pub(crate) use taking::Work;
pub use taking::{Content, Parts};

use crate::current::Current;
use crate::tls::{self, ServerTls};
use crate::wire::refusal::{Language, undecided};
use drive::{Admission, End, drive, stopped};
use failed::{Failure, Lines};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, EXPECT, HOST, HeaderValue, RETRY_AFTER};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use metrics::{counter, gauge};
use schemas::codes::Code;
use schemas::identifier::Uscc;
use slots::{Arrival, Slots};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use taking::{Activity, Answer, Share};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use wire::Wire;

/// Counter of TLS handshakes; labels `listener`, `result` (`ok`, `no-certificate`, `bad-certificate`,
/// `bad-organisation`, `timeout`, `error`).
pub const HANDSHAKES: &str = "miaoxiang_handshakes_total";
/// Gauge of connections past their handshake; label `listener`.
pub const CONNECTIONS: &str = "miaoxiang_connections";
/// Counter of connections closed unserved; labels `listener`, `reason`: `connections`, `organisation` and `source` over
/// a cap, `gave-way` to a newer one before its handshake was over, `accept`.
pub const REFUSED: &str = "miaoxiang_connections_refused_total";
/// Counter of connections that the server closed; labels `listener`, `reason`: `stalled`, `too-slow` and
/// `too-much-untaken` for answers that are not taken, `control-flood`, `http2-…` for a GOAWAY with that error.
pub const CLOSED: &str = "miaoxiang_connections_closed_total";
/// Counter of requests that the listener answers by itself, without a decision; labels `listener`, `reason`:
/// `malformed-http`, `head-too-large`, `bad-host`, `expectation-failed`, `untaken`.
pub const TURNED_AWAY: &str = "miaoxiang_requests_turned_away_total";
/// Counter of panics in handlers and connections; label `listener`.
pub const PANICS: &str = "miaoxiang_panics_total";

/// Read and write buffer of an HTTP/1.1 connection.
const MAX_BUFFER_BYTES: usize = 128 * 1024;
/// HTTP/2 flow control: what a client may send ahead on a stream and on a connection, in bytes.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// HTTP/2 streams that the client has reset and we have not yet seen (rapid reset, CVE-2023-44487).
const MAX_PENDING_RESET_STREAMS: usize = 20;
/// HTTP/2 streams reset by us for the client's errors (RUSTSEC-2024-0003).
const MAX_ERROR_RESET_STREAMS: usize = 256;
/// HTTP/2 ping: every so often, answered within.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// h2 takes so many times the longest head, and answers a longer one with an empty body; up to it a problem is told.
const HTTP2_HEADER_SHARE: usize = 4;
/// Bytes that HTTP/2 reckons for a header beside its own (RFC 9113 6.5.2).
const HEADER_OVERHEAD: usize = 32;
/// How long an HTTP/2 client may wait for a `100 Continue`, which hyper cannot send, before it is told to go on without.
const EXPECT_PATIENCE: Duration = Duration::from_secs(2);
/// Rest after a failed accept: the usual cause is that file descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait for a connection that gives way to a new one: it ends as soon as a thread has time for it.
const GIVE_WAY_PATIENCE: Duration = Duration::from_secs(1);
/// For how long a peer keeps its turn in a handshake; it may finish without one.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long, and for how many reads, a failed handshake waits for the peer to take the alert.
const ALERT_LINGER: Duration = Duration::from_secs(1);
const ALERT_READS: usize = 16;

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The organisation of the client certificate; always there on a listener that asks for one.
    pub organisation: Option<Uscc>,
    /// The first moment at which the client certificate is no longer good, ms since 1970.
    pub certificate_ends_ms: Option<u64>,
    /// Where the connection comes from.
    pub address: SocketAddr,
}

/// Serves a listener until `stop` turns true or its sender is gone. Each connection takes the TLS that is in force when it
/// comes.
///
/// Then no connection is accepted, idle ones are closed, requests in flight are answered, and after
/// `drain_timeout` whatever is left is cut off; when this returns, no connection is open.
///
/// An answer is whole, or made in parts while it is taken. The handler's future may be dropped when the client goes away, at any `.await`; work that must be finished belongs
/// in a task of its own. A client that only ends its own sending gets its answer. A handler that panics is counted, its
/// request is answered 500 with an empty body, and its connection lives on. The handler bounds the time it spends
/// reading a body.
pub async fn serve<H, F, B>(
    listener: TcpListener,
    name: &'static str,
    tls: Option<Current<ServerTls>>,
    limits: Limits,
    handler: H,
    mut stop: watch::Receiver<bool>,
) where
    H: Fn(Peer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Into<Content> + Send + 'static,
{
    let drain_timeout = limits.drain_timeout;
    let server = Arc::new(Server::new(name, tls, limits));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(ended) = connections.join_next() => {
                server.ended(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, address)) => {
                let Some(connection) = Connection::admit(&server, address, &stop).await else { continue };
                connections.spawn(connection.run(tcp, handler.clone()));
            }
            Err(error) => {
                server.refused("accept");
                tracing::warn!(listener = name, %error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let drained = timeout(drain_timeout, async {
        while let Some(ended) = connections.join_next().await {
            server.ended(ended);
        }
    });
    if drained.await.is_err() {
        tracing::warn!(
            listener = name,
            connections = connections.len(),
            "cutting off connections that do not end"
        );
        connections.shutdown().await;
    }
}

/// Shared by the connections of one listener.
struct Server {
    name: &'static str,
    tls: Option<Current<ServerTls>>,
    limits: Limits,
    /// One for each connection whose descriptor is open.
    open: Arc<Semaphore>,
    slots: Arc<Slots>,
    /// One for each handshake at work.
    handshakes: Semaphore,
    lines: Lines,
}

impl Server {
    fn new(name: &'static str, tls: Option<Current<ServerTls>>, limits: Limits) -> Self {
        Self {
            name,
            tls,
            open: Arc::new(Semaphore::new(limits.max_connections)),
            slots: Arc::new(Slots::new(&limits)),
            handshakes: Semaphore::new(limits.max_handshakes),
            lines: Lines::new(),
            limits,
        }
    }

    fn refused(&self, reason: &'static str) {
        counter!(REFUSED, "listener" => self.name, "reason" => reason).increment(1);
    }

    fn turned_away(&self, reason: &'static str) {
        counter!(TURNED_AWAY, "listener" => self.name, "reason" => reason).increment(1);
    }

    fn panicked(&self) {
        counter!(PANICS, "listener" => self.name).increment(1);
        tracing::error!(listener = self.name, "a handler panicked");
    }

    fn ended(&self, ended: Result<(), JoinError>) {
        if ended.is_err_and(|error| error.is_panic()) {
            self.panicked();
        }
    }
}

/// One connection, from accept to close.
struct Connection {
    server: Arc<Server>,
    arrival: Arrival,
    address: SocketAddr,
    stop: watch::Receiver<bool>,
    open: OwnedSemaphorePermit,
}

impl Connection {
    /// Finds a place for a new connection; `None` when there is none.
    async fn admit(server: &Arc<Server>, address: SocketAddr, stop: &watch::Receiver<bool>) -> Option<Self> {
        let Some(arrival) = server.slots.arrive(address) else {
            server.refused("connections");
            return None;
        };
        if arrival.displaced() {
            server.refused("gave-way");
        }
        // One that gives way may not be gone yet.
        let open = timeout(GIVE_WAY_PATIENCE, Arc::clone(&server.open).acquire_owned()).await;
        let Ok(Ok(open)) = open else {
            server.refused("connections");
            return None;
        };
        Some(Self { server: Arc::clone(server), arrival, address, stop: stop.clone(), open })
    }

    async fn run<H, F, B>(self, tcp: TcpStream, handler: H)
    where
        H: Fn(Peer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Into<Content> + Send + 'static,
    {
        let Self { server, arrival, address, mut stop, open: _open } = self;
        // An answer is one write; waiting for more to send with it only adds delay.
        let _ = tcp.set_nodelay(true);
        let peer = Peer { organisation: None, certificate_ends_ms: None, address };
        let stream = tokio::select! {
            () = stopped(&mut stop) => return,
            () = arrival.gives_way() => return,
            stream = server.open(tcp, address, &arrival) => stream,
        };
        match stream {
            None => {}
            Some(Opened::Clear(tcp)) => server.http(tcp, false, arrival, peer, None, handler, stop).await,
            Some(Opened::Tls(stream, tls)) => {
                let (_, session) = stream.get_ref();
                let http2 = session.alpn_protocol() == Some(tls::ALPN_H2);
                let mut peer = peer;
                let chain = session.peer_certificates().unwrap_or_default();
                let admission = Admission {
                    tls,
                    chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
                };
                if let Some(certificate) = chain.first() {
                    // The verifier has seen to it that there is one; were it ever another verifier, nobody gets in.
                    let Some(organisation) = tls::organisation_of(certificate) else { return };
                    peer.organisation = Some(organisation);
                    peer.certificate_ends_ms = tls::end_of(certificate);
                }
                server.http(stream, http2, arrival, peer, Some(admission), handler, stop).await;
            }
        }
    }
}

/// A connection on which HTTP can begin.
enum Opened {
    Clear(TcpStream),
    /// With word of the TLS that comes after the one it was opened by.
    Tls(Box<TlsStream<TcpStream>>, watch::Receiver<Arc<ServerTls>>),
}

impl Server {
    #[expect(clippy::too_many_arguments, reason = "one call site each for clear and TLS")]
    async fn http<S, H, F, B>(
        self: &Arc<Self>,
        stream: S,
        http2: bool,
        arrival: Arrival,
        peer: Peer,
        admission: Option<Admission>,
        handler: H,
        stop: watch::Receiver<bool>,
    ) where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        H: Fn(Peer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Into<Content> + Send + 'static,
    {
        let settled = match arrival.settle(peer.organisation) {
            Ok(settled) => settled,
            Err(reason) => return self.refused(reason),
        };
        let open = gauge!(CONNECTIONS, "listener" => self.name);
        open.increment(1);
        let _close = OnDrop(|| open.decrement(1));
        let activity = Arc::new(Activity::new(Arc::clone(&settled.of_account)));
        let service = service_fn({
            let server = Arc::clone(self);
            let activity = Arc::clone(&activity);
            move |request| {
                let share = activity.begin();
                let waits = waits_for_a_word(&request, &share);
                answer(Arc::clone(&server), share, waits, handler.clone(), peer.clone(), request)
            }
        });
        let limits = &self.limits;
        let end = if http2 {
            let wire = Wire::http2(stream, Arc::clone(&activity), limits.control_burst);
            let connection = http2_builder(limits).serve_connection(TokioIo::new(wire), service);
            drive(connection, &activity, limits, admission, stop).await
        } else {
            let wire = Wire::http1(stream, Arc::clone(&activity));
            let connection = http1_builder(limits).serve_connection(TokioIo::new(wire), service);
            drive(connection, &activity, limits, admission, stop).await
        };
        match end {
            End::Quietly => {}
            End::Unread(code) => self.turned_away(code.name()),
            End::Closed(reason) => {
                counter!(CLOSED, "listener" => self.name, "reason" => reason).increment(1);
            }
        }
    }
}

impl Server {
    /// Waits for the peer's first byte, and shakes hands where the listener speaks TLS.
    async fn open(&self, tcp: TcpStream, address: SocketAddr, arrival: &Arrival) -> Option<Opened> {
        let mut spoke = false;
        let opened = timeout(self.limits.handshake_timeout, async {
            // A peer that says nothing waits without a turn.
            if tcp.peek(&mut [0]).await.ok()? == 0 {
                return None;
            }
            // Before any of the work, and with the others first: who has spoken is known before it takes time to answer.
            arrival.spoke();
            spoke = true;
            tokio::task::yield_now().await;
            let Some(tls) = &self.tls else { return Some(Ok(Opened::Clear(tcp))) };
            let tls = tls.follow();
            let acceptor = TlsAcceptor::from(tls.borrow().config());
            let turn = self.handshakes.acquire().await.ok()?;
            let mut accepting = pin!(tls::with_subject(acceptor.accept(tcp).into_fallible()));
            // A peer that is slow in the middle of it goes on without a turn, and keeps nobody else from one.
            let (accepted, subject) = match timeout(TURN_TIMEOUT, &mut accepting).await {
                Ok(accepted) => {
                    drop(turn);
                    accepted
                }
                Err(_) => {
                    drop(turn);
                    accepting.await
                }
            };
            Some(match accepted {
                Ok(stream) => Ok(Opened::Tls(Box::new(stream), tls)),
                Err((error, tcp)) => Err((error, tcp, subject)),
            })
        });
        let (failure, tcp, subject) = match opened.await {
            Ok(Some(Ok(opened))) => {
                if self.tls.is_some() {
                    self.shaken("ok");
                }
                return Some(opened);
            }
            Ok(Some(Err((error, tcp, subject)))) => (Failure::of(&error), Some(tcp), subject),
            Ok(None) => (Failure::without_error(false, spoke), None, None),
            Err(_) => (Failure::without_error(true, spoke), None, None),
        };
        self.failed(&failure, address, subject.as_deref());
        if let Some(tcp) = tcp {
            arrival.failed();
            linger(tcp).await;
        }
        None
    }

    fn shaken(&self, result: &'static str) {
        counter!(HANDSHAKES, "listener" => self.name, "result" => result).increment(1);
    }

    fn failed(&self, failure: &Failure, peer: SocketAddr, subject: Option<&str>) {
        if self.tls.is_some() {
            self.shaken(failure.result);
        }
        let (listener, cause) = (self.name, failure.cause.as_ref());
        if failure.silent {
            return tracing::debug!(listener, %peer, cause, "handshake failed");
        }
        if let Some(suppressed) = self.lines.next(Instant::now()) {
            let subject = subject.unwrap_or("none");
            tracing::warn!(listener, %peer, cause, subject, suppressed, "handshake failed");
        }
    }
}

/// Lets the alert arrive: to close with bytes unread sends a reset, which may overtake it.
async fn linger(mut tcp: TcpStream) {
    let _ = timeout(ALERT_LINGER, async {
        tcp.shutdown().await?;
        let mut unread = [0; 4096];
        for _ in 0..ALERT_READS {
            if tcp.read(&mut unread).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    })
    .await;
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // hyper's timer would be set and cleared for each request, and counts idle time as well; `drive` watches
        // over both with one timer a connection.
        .header_read_timeout(None)
        .keep_alive(true)
        .half_close(true)
        .max_buf_size(MAX_BUFFER_BYTES)
        .max_header_size(limits.max_header_bytes);
    builder
}

fn http2_builder(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let header_bytes = limits.max_header_bytes.saturating_mul(HTTP2_HEADER_SHARE);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_PENDING_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_ERROR_RESET_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(MAX_BUFFER_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// An answer has no room, and the connection ends with it.
#[derive(Debug, thiserror::Error)]
#[error("the answers of this connection are not taken")]
struct NoRoom;

async fn answer<H, F, B>(
    server: Arc<Server>,
    mut share: Share,
    waits: Option<u64>,
    handler: H,
    peer: Peer,
    request: Request<Incoming>,
) -> Result<Response<Answer>, NoRoom>
where
    H: Fn(Peer, Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
    B: Into<Content>,
{
    let response: Response<Content> = if let Some(code) = unfit(&request, &server.limits) {
        server.turned_away(code.name());
        problem(code)
    } else if !share.promised(&server.limits).await {
        server.turned_away("untaken");
        problem(Code::Overloaded)
    } else {
        let mut handling = pin!(async move { handler(peer, request).await });
        // The handler's work is dropped with its future and never polled again.
        let handled =
            poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| handling.as_mut().poll(context))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(response)) => Poll::Ready(Some(response.map(Into::into))),
                Err(_) => Poll::Ready(None),
            });
        let handled = tokio::select! {
            biased;
            handled = handled => handled,
            () = waited_for_a_word(waits, &share) => {
                server.turned_away(Code::ExpectationFailed.name());
                Some(problem(Code::ExpectationFailed))
            }
        };
        handled.unwrap_or_else(|| {
            server.panicked();
            let mut response = Response::new(Full::default().into());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        })
    };
    let (head, body) = response.into_parts();
    let body = share.answer(body, &server.limits).ok_or(NoRoom)?;
    Ok(Response::from_parts(head, body))
}

/// Whether a client may wait for the word to send its body: it expects one over HTTP/2. Then how many bodies had come on its
/// connection before its request.
fn waits_for_a_word(request: &Request<Incoming>, share: &Share) -> Option<u64> {
    let expects = request.version() == Version::HTTP_2
        && request.headers().contains_key(EXPECT)
        && !request.body().is_end_stream();
    if expects { share.bodies_before() } else { None }
}

/// Resolves when a client has waited for the word for long: nothing of a body has come on its connection since its request,
/// so that the handler cannot have decided anything.
async fn waited_for_a_word(waits: Option<u64>, share: &Share) {
    if let Some(before) = waits {
        sleep(EXPECT_PATIENCE).await;
        if share.bodies() == before {
            return;
        }
    }
    std::future::pending().await
}

/// Why a request is no request of HTTP for us, whatever it asks.
fn unfit(request: &Request<Incoming>, limits: &Limits) -> Option<Code> {
    let headers = request.headers();
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    // RFC 9112 3.2: exactly one. HTTP/1.0 may have none, and HTTP/2 has its `:authority`.
    if hosts.next().is_some() || (host.is_none() && request.version() == Version::HTTP_11) {
        return Some(Code::BadHost);
    }
    if request.version() == Version::HTTP_2 {
        let of_headers =
            headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD);
        let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
        if of_headers.sum::<usize>() + path > limits.max_header_bytes {
            return Some(Code::HeadTooLarge);
        }
    }
    None
}

/// An answer that decides nothing: a fixed body, no fact.
fn problem(code: Code) -> Response<Content> {
    let mut response = Response::new(Full::from(undecided(code, Language::English)).into());
    *response.status_mut() = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if code == Code::Overloaded {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
