//! The accept loop of all listeners: bounded connections, bounded handshakes, HTTP/1.1 or HTTP/2 by ALPN.
//!
//! Who the peer is gets settled here, once per connection, and is handed to the handler with each request. What
//! is closed or refused here is counted and never journaled: it carries no answer.

use crate::tls;
use bytes::Bytes;
use certs::pki::OrganisationError;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use metrics::{counter, gauge};
use rustls::{CertificateError, ServerConfig};
use schemas::identifier::Uscc;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Counter of TLS handshakes; labels `listener`, `result` (`ok`, `no-certificate`, `bad-certificate`,
/// `bad-organisation`, `timeout`, `error`).
pub const HANDSHAKES: &str = "miaoxiang_handshakes_total";
/// Gauge of connections past their handshake; label `listener`.
pub const CONNECTIONS: &str = "miaoxiang_connections";
/// Counter of connections closed unserved; labels `listener`, `reason` (`connections`, `organisation`, `accept`).
pub const REFUSED: &str = "miaoxiang_connections_refused_total";
/// Counter of panics in handlers and connections; label `listener`.
pub const PANICS: &str = "miaoxiang_panics_total";

/// Connections of a listener, handshaking ones included.
const MAX_CONNECTIONS: usize = 8_192;
/// Connections of one organisation.
const MAX_CONNECTIONS_PER_ORGANISATION: usize = 1_024;
/// Handshakes at work at once; more wait. A handshake costs about a millisecond of processor time.
const MAX_HANDSHAKES: usize = 256;
/// From the first byte of TCP to the last of the handshake, the wait for a turn included.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From the end of the handshake to the end of the first request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// For answers in flight when the server stops or a connection is closed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams of one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// Request line and headers together. Ours need less than 1 KiB.
const MAX_HEADER_BYTES: usize = 16 * 1024;
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
/// Rest after a failed accept: the usual cause is that file descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long, and for how many reads, a failed handshake waits for the peer to take the alert.
const ALERT_LINGER: Duration = Duration::from_secs(1);
const ALERT_READS: usize = 16;

/// Bounds of a listener. `Default` has the values that serve the data listener.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections in all, handshaking ones included.
    pub max_connections: usize,
    /// Connections of one organisation.
    pub max_connections_per_organisation: usize,
    /// Handshakes at work at once; more wait within their timeout.
    pub max_handshakes: usize,
    /// From accept to the end of the handshake.
    pub handshake_timeout: Duration,
    /// From the end of the handshake to the end of the first request's headers.
    pub header_timeout: Duration,
    /// From one request to the end of the next one's headers, to within `header_timeout`.
    pub idle_timeout: Duration,
    /// For answers in flight when the server stops or a connection is closed for idleness.
    pub drain_timeout: Duration,
    /// Streams of one HTTP/2 connection.
    pub max_streams: u32,
    /// Request line and headers together, in bytes.
    pub max_header_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: MAX_CONNECTIONS,
            max_connections_per_organisation: MAX_CONNECTIONS_PER_ORGANISATION,
            max_handshakes: MAX_HANDSHAKES,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            header_timeout: HEADER_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            drain_timeout: DRAIN_TIMEOUT,
            max_streams: MAX_STREAMS,
            max_header_bytes: MAX_HEADER_BYTES,
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The organisation of the client certificate; always there on a listener that asks for one.
    pub organisation: Option<Uscc>,
    /// The first moment at which the client certificate is no longer good, ms since 1970.
    pub certificate_ends_ms: Option<u64>,
    /// Where the connection comes from.
    pub address: SocketAddr,
}

/// Serves a listener until `stop` turns true or its sender is gone.
///
/// Then no connection is accepted, idle ones are closed, requests in flight are answered, and after
/// `drain_timeout` whatever is left is cut off; when this returns, no connection is open.
///
/// The handler's future is dropped when the client goes away, at any `.await`; work that must be finished belongs
/// in a task of its own. A handler that panics is counted, its request is answered 500 with an empty body, and
/// its connection lives on. The handler bounds the time it spends reading a body.
pub async fn serve<H, F>(
    listener: TcpListener,
    name: &'static str,
    tls: Option<Arc<ServerConfig>>,
    limits: Limits,
    handler: H,
    mut stop: watch::Receiver<bool>,
) where
    H: Fn(Peer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
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
            Ok((tcp, address)) => match Arc::clone(&server.slots).try_acquire_owned() {
                Ok(slot) => {
                    let connection =
                        Connection { server: Arc::clone(&server), address, stop: stop.clone(), _slot: slot };
                    connections.spawn(connection.run(tcp, handler.clone()));
                }
                Err(_) => server.refused("connections"),
            },
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

/// What the connections of one listener share.
struct Server {
    name: &'static str,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    /// One for each connection.
    slots: Arc<Semaphore>,
    /// One for each handshake at work.
    handshakes: Semaphore,
    /// Connections per organisation; an organisation without any has no entry, so this is bounded by `slots`.
    organisations: Mutex<HashMap<Uscc, usize>>,
}

impl Server {
    fn new(name: &'static str, tls: Option<Arc<ServerConfig>>, limits: Limits) -> Self {
        Self {
            name,
            tls: tls.map(TlsAcceptor::from),
            slots: Arc::new(Semaphore::new(limits.max_connections)),
            handshakes: Semaphore::new(limits.max_handshakes),
            organisations: Mutex::default(),
            limits,
        }
    }

    fn refused(&self, reason: &'static str) {
        counter!(REFUSED, "listener" => self.name, "reason" => reason).increment(1);
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

    /// Takes one of an organisation's connections, if there is one left.
    fn admit(self: &Arc<Self>, organisation: Uscc) -> Option<OrganisationSlot> {
        let mut organisations = self.organisations.lock().unwrap_or_else(PoisonError::into_inner);
        let count = organisations.entry(organisation).or_insert(0);
        if *count >= self.limits.max_connections_per_organisation {
            return None;
        }
        *count += 1;
        Some(OrganisationSlot { server: Arc::clone(self), organisation })
    }
}

/// One of an organisation's connections, given back when dropped.
struct OrganisationSlot {
    server: Arc<Server>,
    organisation: Uscc,
}

impl Drop for OrganisationSlot {
    fn drop(&mut self) {
        let mut organisations = self.server.organisations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = organisations.entry(self.organisation) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// One connection, from accept to close.
struct Connection {
    server: Arc<Server>,
    address: SocketAddr,
    stop: watch::Receiver<bool>,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    async fn run<H, F>(mut self, tcp: TcpStream, handler: H)
    where
        H: Fn(Peer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        // An answer is one write; waiting for more to send with it only adds delay.
        let _ = tcp.set_nodelay(true);
        let mut peer = Peer { organisation: None, certificate_ends_ms: None, address: self.address };
        let server = Arc::clone(&self.server);
        let Some(acceptor) = &server.tls else {
            return self.http(tcp, false, peer, handler).await;
        };
        let stream = tokio::select! {
            () = stopped(&mut self.stop) => return,
            stream = server.handshake(acceptor, tcp) => stream,
        };
        let Some(stream) = stream else { return };
        let (_, session) = stream.get_ref();
        let http2 = session.alpn_protocol() == Some(tls::ALPN_H2);
        let mut _organisation_slot = None;
        if let Some(certificate) = session.peer_certificates().and_then(|chain| chain.first()) {
            // The verifier has seen to it that there is one; were it ever another verifier, nobody gets in.
            let Some(organisation) = tls::organisation_of(certificate) else { return };
            _organisation_slot = server.admit(organisation);
            if _organisation_slot.is_none() {
                return server.refused("organisation");
            }
            peer.organisation = Some(organisation);
            peer.certificate_ends_ms = tls::end_of(certificate);
        }
        self.http(stream, http2, peer, handler).await;
    }

    async fn http<S, H, F>(self, stream: S, http2: bool, peer: Peer, handler: H)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        H: Fn(Peer, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let open = gauge!(CONNECTIONS, "listener" => self.server.name);
        open.increment(1);
        let _close = OnDrop(|| open.decrement(1));
        let activity = Arc::new(Activity::default());
        let service = service_fn({
            let server = Arc::clone(&self.server);
            let activity = Arc::clone(&activity);
            move |request| {
                answer(Arc::clone(&server), activity.begin(), handler.clone(), peer.clone(), request)
            }
        });
        let limits = &self.server.limits;
        if http2 {
            let connection = http2_builder(limits).serve_connection(TokioIo::new(stream), service);
            drive(connection, &activity, limits, self.stop).await;
        } else {
            let connection = http1_builder(limits).serve_connection(TokioIo::new(stream), service);
            drive(connection, &activity, limits, self.stop).await;
        }
    }
}

impl Server {
    async fn handshake(&self, acceptor: &TlsAcceptor, tcp: TcpStream) -> Option<TlsStream<TcpStream>> {
        let accepted = timeout(self.limits.handshake_timeout, async {
            // A peer that says nothing waits without a turn.
            tcp.readable().await.ok()?;
            let _turn = self.handshakes.acquire().await.ok()?;
            Some(acceptor.accept(tcp).into_fallible().await)
        });
        let (result, stream) = match accepted.await {
            Ok(Some(Ok(stream))) => ("ok", Ok(stream)),
            Ok(Some(Err((error, tcp)))) => (failure(&error), Err(Some(tcp))),
            Ok(None) => ("error", Err(None)),
            Err(_) => ("timeout", Err(None)),
        };
        counter!(HANDSHAKES, "listener" => self.name, "result" => result).increment(1);
        match stream {
            Ok(stream) => Some(stream),
            Err(tcp) => {
                if let Some(tcp) = tcp {
                    linger(tcp).await;
                }
                None
            }
        }
    }
}

/// The metric label of a failed handshake.
fn failure(error: &io::Error) -> &'static str {
    match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::NoCertificatesPresented) => "no-certificate",
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(error)))
            if error.0.is::<OrganisationError>() =>
        {
            "bad-organisation"
        }
        Some(rustls::Error::InvalidCertificate(_)) => "bad-certificate",
        _ => "error",
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
        .max_buf_size(MAX_BUFFER_BYTES)
        .max_header_size(limits.max_header_bytes);
    builder
}

fn http2_builder(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_PENDING_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_ERROR_RESET_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(MAX_BUFFER_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// What a connection is doing.
#[derive(Default)]
struct Activity {
    /// Requests whose headers have arrived.
    started: AtomicU64,
    /// Those of them that are not yet answered.
    in_flight: AtomicUsize,
}

impl Activity {
    fn begin(self: &Arc<Self>) -> InFlight {
        self.started.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }
}

/// A request in flight; over when dropped, whether answered, cancelled or panicked.
struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer<H, F>(
    server: Arc<Server>,
    in_flight: InFlight,
    handler: H,
    peer: Peer,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible>
where
    H: Fn(Peer, Request<Incoming>) -> F,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let _in_flight = in_flight;
    let mut handling = pin!(async move { handler(peer, request).await });
    // What the handler was at is dropped with its future and never polled again.
    let handled =
        poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| handling.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
            Err(_) => Poll::Ready(None),
        });
    Ok(handled.await.unwrap_or_else(|| {
        server.panicked();
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    }))
}

/// An HTTP connection that can be told to end after what it is at.
trait Graceful: Future<Output = hyper::Result<()>> {
    fn finish(self: Pin<&mut Self>);
}

impl<I, S, B> Graceful for http1::Connection<I, S>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S, B> Graceful for http2::Connection<I, S, TokioExecutor>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Drives a connection to its end: its own, the server's stop, or a peer that is silent or too slow.
///
/// One timer looks once per `header_timeout` whether a request has begun since. So the first headers have exactly
/// that time, later ones `idle_timeout` and at most one interval more.
async fn drive<C: Graceful>(
    connection: C,
    activity: &Activity,
    limits: &Limits,
    mut stop: watch::Receiver<bool>,
) {
    let mut connection = pin!(connection);
    let (mut seen, mut quiet) = (0, Duration::ZERO);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            () = stopped(&mut stop) => break,
            () = sleep(limits.header_timeout) => {}
        }
        let started = activity.started.load(Ordering::Relaxed);
        if started == 0 {
            return;
        }
        quiet = if started != seen || activity.in_flight.load(Ordering::Relaxed) > 0 {
            Duration::ZERO
        } else {
            quiet + limits.header_timeout
        };
        seen = started;
        if quiet >= limits.idle_timeout {
            break;
        }
    }
    connection.as_mut().finish();
    let _ = timeout(limits.drain_timeout, connection).await;
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone: then nobody could stop us later.
    let _ = stop.wait_for(|stop| *stop).await;
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
