//! Who gets through a TLS handshake, over real sockets, and what becomes of connections that misbehave.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use bytes::Bytes;
use certs::pki::{DevelopmentPki, LEAF_VALIDITY, Validity};
use exchange::current::Current;
use exchange::server::{self, Limits, Peer};
use exchange::tls;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, ServerConfig};
use schemas::identifier::Uscc;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Made-up organisations with right check characters.
const ONE: &str = "11100000MB0341032Y";
const TWO: &str = "11100000MB03271699";
const THREE: &str = "91350100M000100Y43";
/// Bytes of the answers to `/large` and `/counted`.
const LARGE: usize = 256 * 1024;
/// How often `/counted` was answered.
static COUNTED: AtomicUsize = AtomicUsize::new(0);
/// A test that waits this long has hung.
const HANG: Duration = Duration::from_secs(60);

fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_ansi(false)
            .with_writer(Log)
            .init();
        PrometheusBuilder::new().install_recorder().unwrap()
    })
}

/// The operator's log of all servers.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What the log says of a listener.
fn logged(listener: &str) -> Vec<String> {
    let of = format!("listener=\"{listener}\"");
    let log = String::from_utf8(LOG.lock().unwrap().clone()).unwrap();
    log.lines().filter(|line| line.contains(&of)).map(str::to_owned).collect()
}

/// The value of the metric whose line begins so; each test has a listener name of its own.
fn metric(line: &str) -> u64 {
    let text = recorder().render();
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

fn handshakes(listener: &str, result: &str) -> u64 {
    metric(&format!("{}{{listener=\"{listener}\",result=\"{result}\"}}", server::HANDSHAKES))
}

fn refused(listener: &str, reason: &str) -> u64 {
    metric(&format!("{}{{listener=\"{listener}\",reason=\"{reason}\"}}", server::REFUSED))
}

fn closed(listener: &str, reason: &str) -> u64 {
    metric(&format!("{}{{listener=\"{listener}\",reason=\"{reason}\"}}", server::CLOSED))
}

fn turned_away(listener: &str, reason: &str) -> u64 {
    metric(&format!("{}{{listener=\"{listener}\",reason=\"{reason}\"}}", server::TURNED_AWAY))
}

/// Waits until something is so.
async fn until(so: impl Fn() -> bool) {
    let wait = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(HANG, wait).await.unwrap();
}

/// A development PKI and a server that answers with what it knows of the peer.
struct Rig {
    dir: TempDir,
    pki: DevelopmentPki,
    address: SocketAddr,
    name: &'static str,
    stop: watch::Sender<bool>,
    served: JoinHandle<()>,
    /// A request for `/wait` has arrived.
    arrived: Arc<Notify>,
    /// Requests for `/wait` may be answered.
    release: Arc<Notify>,
}

/// A client that trusts the authority, with a certificate and its key.
fn client_tls(pki: &DevelopmentPki, identity: Option<(&str, &str)>) -> ClientConfig {
    let identity = identity.map(|(chain, key)| (chain.as_bytes(), key.as_bytes()));
    client::Tls::from_pem(pki.ca_pem().as_bytes(), identity).unwrap().config()
}

impl Rig {
    async fn start(name: &'static str, limits: Limits) -> Self {
        Self::start_with(name, limits, |_| String::new()).await
    }

    /// `lists` adds revocation lists to the client CA.
    async fn start_with(
        name: &'static str,
        limits: Limits,
        lists: impl FnOnce(&DevelopmentPki) -> String,
    ) -> Self {
        recorder();
        let dir = tempfile::tempdir().unwrap();
        let pki = DevelopmentPki::create_missing(dir.path()).unwrap();
        let client_ca = format!("{}{}", pki.ca_pem(), lists(&pki));
        let config = server_tls(&pki, Some(&client_ca));
        Self::serve(name, limits, dir, pki, Some(config)).await
    }

    async fn serve(
        name: &'static str,
        limits: Limits,
        dir: TempDir,
        pki: DevelopmentPki,
        config: Option<Arc<ServerConfig>>,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let (arrived, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let handler = {
            let (arrived, release) = (Arc::clone(&arrived), Arc::clone(&release));
            move |peer, request| handle(peer, request, Arc::clone(&arrived), Arc::clone(&release))
        };
        let served = tokio::spawn(server::serve(
            listener,
            name,
            config.map(|config| Current::new(tls::ServerTls::from(config))),
            limits,
            handler,
            stopped,
        ));
        Self { dir, pki, address, name, stop, served, arrived, release }
    }

    fn client(&self, name: &str, organisations: &[&str]) -> ClientConfig {
        self.client_of(&self.pki, name, organisations, Validity::starting_now(LEAF_VALIDITY))
    }

    /// A client with a certificate of the given PKI, which trusts this server.
    fn client_of(
        &self,
        pki: &DevelopmentPki,
        name: &str,
        organisations: &[&str],
        validity: Validity,
    ) -> ClientConfig {
        let organisations: Vec<Uscc> = organisations.iter().map(|uscc| uscc.parse().unwrap()).collect();
        let files = pki.issue_client(name, &organisations, validity).unwrap();
        let certificate = fs::read_to_string(files.certificate).unwrap();
        let key = fs::read_to_string(files.key).unwrap();
        client_tls(&self.pki, Some((&certificate, &key)))
    }

    async fn connect(&self, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await
    }

    /// The alert that a client gets for what it presents.
    async fn alert(&self, config: ClientConfig) -> Option<AlertDescription> {
        let attempt = async {
            let mut stream = self.connect(config).await?;
            // In TLS 1.3 the client is done before the server has looked at its certificate.
            stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            assert!(answer.is_empty(), "an answer to a client that must not get in");
            std::io::Result::Ok(())
        };
        let error = tokio::time::timeout(HANG, attempt).await.unwrap().unwrap_err();
        match error.get_ref()?.downcast_ref::<rustls::Error>()? {
            rustls::Error::AlertReceived(alert) => Some(*alert),
            _ => None,
        }
    }

    /// A client of HTTP/2 that speaks in frames.
    async fn connect_http2(&self, mut config: ClientConfig) -> TlsStream<TcpStream> {
        config.alpn_protocols = vec![tls::ALPN_H2.to_vec()];
        let mut stream = self.connect(config).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        stream
    }

    /// Waits until the server has counted a handshake with this result.
    async fn counted(&self, result: &str) {
        until(|| handshakes(self.name, result) > 0).await;
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(HANG, self.served).await.unwrap().unwrap();
        assert_eq!(metric(&format!("{}{{listener=\"{}\"}}", server::CONNECTIONS, self.name)), 0);
        drop(self.dir);
    }
}

fn server_tls(pki: &DevelopmentPki, client_ca: Option<&str>) -> Arc<ServerConfig> {
    let files = pki.server_files();
    let certificate = fs::read_to_string(files.certificate).unwrap();
    tls::server_config(&certificate, &fs::read_to_string(files.key).unwrap(), client_ca).unwrap()
}

async fn handle(
    peer: Peer,
    request: Request<Incoming>,
    arrived: Arc<Notify>,
    release: Arc<Notify>,
) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/panic" => panic!("asked for"),
        "/wait" => {
            arrived.notify_one();
            release.notified().await;
        }
        "/large" => return Response::new(Full::from(vec![b'x'; LARGE])),
        "/counted" => {
            COUNTED.fetch_add(1, Ordering::Relaxed);
            return Response::new(Full::from(vec![b'x'; LARGE]));
        }
        _ => {}
    }
    let organisation = peer.organisation.map_or("nobody".to_owned(), |uscc| uscc.to_string());
    let body = format!("{organisation} {}", peer.certificate_ends_ms.is_some());
    Response::new(Full::from(body))
}

type Sender = hyper::client::conn::http1::SendRequest<Full<Bytes>>;

async fn http1<S>(stream: S) -> Sender
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "localhost").body(Full::default()).unwrap()
}

/// Sends on a connection once the one before is done with.
async fn send(sender: &mut Sender, path: &str) -> hyper::Result<Response<Incoming>> {
    sender.ready().await?;
    sender.send_request(request(path)).await
}

async fn body(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_organisation_gets_in_over_both_protocols() {
    let rig = Rig::start("good", Limits::default()).await;
    let config = rig.client("good", &[ONE]);
    let mut sender = http1(rig.connect(config.clone()).await.unwrap()).await;
    for _ in 0..3 {
        let response = send(&mut sender, "/").await.unwrap();
        assert_eq!((response.status(), response.version()), (StatusCode::OK, Version::HTTP_11));
        assert_eq!(body(response).await, format!("{ONE} true"));
    }
    let mut config = config;
    config.alpn_protocols = vec![tls::ALPN_H2.to_vec()];
    let stream = TokioIo::new(rig.connect(config).await.unwrap());
    let (mut h2, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let request = Request::get("https://localhost/").body(Full::<Bytes>::default()).unwrap();
        let response = h2.send_request(request).await.unwrap();
        assert_eq!((response.status(), response.version()), (StatusCode::OK, Version::HTTP_2));
        assert_eq!(body(response).await, format!("{ONE} true"));
    }
    assert_eq!(handshakes("good", "ok"), 2);
    drop((sender, h2));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_certificate_is_refused() {
    let rig = Rig::start("none", Limits::default()).await;
    let config = client_tls(&rig.pki, None);
    assert_eq!(rig.alert(config).await, Some(AlertDescription::CertificateRequired));
    rig.counted("no-certificate").await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_organisation_and_two_organisations_are_refused() {
    let rig = Rig::start("organisations", Limits::default()).await;
    for (name, organisations) in [("zero", &[][..]), ("two", &[ONE, TWO]), ("twice", &[ONE, ONE])] {
        let alert = rig.alert(rig.client(name, organisations)).await;
        assert_eq!(alert, Some(AlertDescription::CertificateUnknown), "{name}");
    }
    until(|| handshakes("organisations", "bad-organisation") == 3).await;
    assert_eq!(handshakes("organisations", "ok"), 0);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_ca_and_a_server_certificate_are_refused() {
    let rig = Rig::start("foreign", Limits::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let foreign = DevelopmentPki::create_missing(dir.path()).unwrap();
    let year = Validity::starting_now(LEAF_VALIDITY);
    assert!(rig.alert(rig.client_of(&foreign, "good", &[ONE], year)).await.is_some());
    let files = rig.pki.server_files();
    let certificate = fs::read_to_string(files.certificate).unwrap();
    let key = fs::read_to_string(files.key).unwrap();
    let config = client_tls(&rig.pki, Some((&certificate, &key)));
    assert_eq!(rig.alert(config).await, Some(AlertDescription::UnsupportedCertificate));
    // The alert may overtake the count.
    let counted = async {
        while handshakes("foreign", "bad-certificate") < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(HANG, counted).await.unwrap();
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_out_of_date_are_refused() {
    let rig = Rig::start("dates", Limits::default()).await;
    let day = Duration::from_secs(86_400);
    let now = std::time::SystemTime::now();
    let past = Validity { from: now - 2 * day, until: now - day };
    let future = Validity { from: now + day, until: now + 2 * day };
    for (name, validity) in [("past", past), ("future", future)] {
        let alert = rig.alert(rig.client_of(&rig.pki, name, &[ONE], validity)).await;
        assert_eq!(alert, Some(AlertDescription::CertificateExpired));
    }
    until(|| handshakes("dates", "bad-certificate") == 2).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_refused_and_its_neighbour_is_not() {
    let rig = Rig::start_with("revoked", Limits::default(), |pki| {
        let year = Validity::starting_now(LEAF_VALIDITY);
        let files = pki.issue_client("revoked", &[ONE.parse().unwrap()], year).unwrap();
        pki.revoke(&fs::read_to_string(files.certificate).unwrap()).unwrap();
        fs::read_to_string(pki.crl_path()).unwrap()
    })
    .await;
    let alert = rig.alert(rig.client("revoked", &[ONE])).await;
    assert_eq!(alert, Some(AlertDescription::CertificateRevoked));
    let mut sender = http1(rig.connect(rig.client("other", &[ONE])).await.unwrap()).await;
    assert_eq!(send(&mut sender, "/").await.unwrap().status(), StatusCode::OK);
    drop(sender);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_not_resumed() {
    let rig = Rig::start("resumption", Limits::default()).await;
    let config = rig.client("good", &[ONE]);
    for _ in 0..2 {
        let mut stream = rig.connect(config.clone()).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let (_, session) = stream.get_ref();
        assert_eq!(session.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(session.tls13_tickets_received(), 0);
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_rubbish_connections_are_closed() {
    let limits = Limits {
        handshake_timeout: Duration::from_secs(1),
        header_timeout: Duration::from_secs(1),
        ..Limits::default()
    };
    let rig = Rig::start("silent", limits).await;
    let closed = async {
        // Not a byte.
        let mut tcp = TcpStream::connect(rig.address).await.unwrap();
        assert_eq!(tcp.read(&mut [0; 16]).await.unwrap_or(0), 0);
        rig.counted("timeout").await;
        // Half a TLS record.
        let mut tcp = TcpStream::connect(rig.address).await.unwrap();
        tcp.write_all(&[22, 3, 1, 0, 100, 1]).await.unwrap();
        let _ = tcp.read_to_end(&mut Vec::new()).await;
        until(|| handshakes("silent", "timeout") == 2).await;
        // Plain HTTP.
        let mut tcp = TcpStream::connect(rig.address).await.unwrap();
        tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let _ = tcp.read_to_end(&mut Vec::new()).await;
        rig.counted("error").await;
        // A handshake and then nothing, or half a head; neither may close as if it had been served.
        for (protocol, head) in
            [(tls::ALPN_HTTP1, ""), (tls::ALPN_HTTP1, "GET / HTTP/1.1\r\nHost:"), (tls::ALPN_H2, "")]
        {
            let mut config = rig.client("good", &[ONE]);
            config.alpn_protocols = vec![protocol.to_vec()];
            let mut stream = rig.connect(config).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert!(!answer.starts_with(b"HTTP/1.1 200"));
        }
        assert_eq!(handshakes("silent", "ok"), 3);
    };
    tokio::time::timeout(HANG, closed).await.unwrap();
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_closed_and_waiting_requests_are_not() {
    let limits = Limits {
        header_timeout: Duration::from_millis(500),
        idle_timeout: Duration::from_secs(1),
        ..Limits::default()
    };
    let rig = Rig::start("idle", limits).await;
    let mut sender = http1(rig.connect(rig.client("good", &[ONE])).await.unwrap()).await;
    let waiting = sender.send_request(request("/wait"));
    let released = async {
        rig.arrived.notified().await;
        // Longer than any timeout above: the request is in flight, so the connection stays.
        tokio::time::sleep(Duration::from_secs(2)).await;
        rig.release.notify_one();
    };
    let (response, ()) = tokio::join!(waiting, released);
    assert_eq!(response.unwrap().status(), StatusCode::OK);
    let idle = async {
        while sender.ready().await.is_ok() {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(HANG, idle).await.unwrap();
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_a_cap_are_closed_and_come_back_when_there_is_room() {
    let limits = Limits { max_connections: 3, max_connections_per_organisation: 1, ..Limits::default() };
    let rig = Rig::start("caps", limits).await;
    let mut first = http1(rig.connect(rig.client("one", &[ONE])).await.unwrap()).await;
    send(&mut first, "/").await.unwrap();
    // A second of the same organisation, with another certificate.
    let mut second = http1(rig.connect(rig.client("one-more", &[ONE])).await.unwrap()).await;
    assert!(send(&mut second, "/").await.is_err());
    assert_eq!(refused("caps", "organisation"), 1);
    let mut other = http1(rig.connect(rig.client("two", &[TWO])).await.unwrap()).await;
    send(&mut other, "/").await.unwrap();
    // A third organisation finds all places of the known taken.
    let mut third = http1(rig.connect(rig.client("three", &[THREE])).await.unwrap()).await;
    assert!(send(&mut third, "/").await.is_err());
    assert_eq!(refused("caps", "connections"), 1);
    drop(first);
    let again = async {
        loop {
            let Ok(stream) = rig.connect(rig.client("one", &[ONE])).await else { continue };
            if send(&mut http1(stream).await, "/").await.is_ok() {
                break;
            }
        }
    };
    tokio::time::timeout(HANG, again).await.unwrap();
    drop(other);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_costs_one_request() {
    let rig = Rig::start("panics", Limits::default()).await;
    let mut config = rig.client("good", &[ONE]);
    let mut sender = http1(rig.connect(config.clone()).await.unwrap()).await;
    let response = send(&mut sender, "/panic").await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(body(response).await, "");
    assert_eq!(send(&mut sender, "/").await.unwrap().status(), StatusCode::OK);
    config.alpn_protocols = vec![tls::ALPN_H2.to_vec()];
    let stream = TokioIo::new(rig.connect(config).await.unwrap());
    let (mut h2, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    for (path, status) in [("panic", StatusCode::INTERNAL_SERVER_ERROR), ("", StatusCode::OK)] {
        let uri = format!("https://localhost/{path}");
        let response = h2.send_request(Request::get(uri).body(Full::<Bytes>::default()).unwrap()).await;
        assert_eq!(response.unwrap().status(), status);
    }
    assert_eq!(metric(&format!("{}{{listener=\"panics\"}}", server::PANICS)), 2);
    drop((sender, h2));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_answers_what_is_in_flight_and_cuts_off_the_rest() {
    let rig = Rig::start("stop", Limits::default()).await;
    let mut idle = http1(rig.connect(rig.client("idle", &[TWO])).await.unwrap()).await;
    send(&mut idle, "/").await.unwrap();
    let _never_used = rig.connect(rig.client("unused", &[TWO])).await.unwrap();
    let mut sender = http1(rig.connect(rig.client("good", &[ONE])).await.unwrap()).await;
    let waiting = tokio::spawn(sender.send_request(request("/wait")));
    rig.arrived.notified().await;
    rig.stop.send(true).unwrap();
    // The listening socket goes first.
    let closed = async {
        while TcpStream::connect(rig.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(HANG, closed).await.unwrap();
    rig.release.notify_one();
    assert_eq!(waiting.await.unwrap().unwrap().status(), StatusCode::OK);
    rig.stop().await;

    let rig =
        Rig::start("cut", Limits { drain_timeout: Duration::from_millis(100), ..Limits::default() }).await;
    let mut sender = http1(rig.connect(rig.client("good", &[ONE])).await.unwrap()).await;
    let waiting = tokio::spawn(sender.send_request(request("/wait")));
    rig.arrived.notified().await;
    rig.stop().await;
    assert!(waiting.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_without_client_certificates_know_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let pki = DevelopmentPki::create_missing(dir.path()).unwrap();
    let config = server_tls(&pki, None);
    let rig = Rig::serve("anyone", Limits::default(), dir, pki, Some(config)).await;
    // Even one that has a certificate is not asked for it.
    for config in [client_tls(&rig.pki, None), rig.client("good", &[ONE])] {
        let mut sender = http1(rig.connect(config).await.unwrap()).await;
        assert_eq!(body(send(&mut sender, "/").await.unwrap()).await, "nobody false");
    }
    rig.stop().await;

    let dir = tempfile::tempdir().unwrap();
    let pki = DevelopmentPki::create_missing(dir.path()).unwrap();
    let rig = Rig::serve("plain", Limits::default(), dir, pki, None).await;
    let mut sender = http1(TcpStream::connect(rig.address).await.unwrap()).await;
    assert_eq!(body(send(&mut sender, "/").await.unwrap()).await, "nobody false");
    drop(sender);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_headers_are_refused() {
    let rig = Rig::start("headers", Limits::default()).await;
    let mut sender = http1(rig.connect(rig.client("good", &[ONE])).await.unwrap()).await;
    let mut large = request("/");
    large.headers_mut().insert("x-large", "a".repeat(32 * 1024).parse().unwrap());
    let response = sender.send_request(large).await.unwrap();
    assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    drop(sender);
    rig.stop().await;
}

/// One frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const SETTINGS: u8 = 4;
const PING: u8 = 6;

/// A whole request without a body.
fn get(stream: u32, path: &str) -> Vec<u8> {
    let literal =
        |name: u8, value: &str| [&[name, u8::try_from(value.len()).unwrap()], value.as_bytes()].concat();
    // GET and https, and then the path and the authority, without Huffman coding or a table.
    let block = [vec![0x82, 0x87], literal(4, path), literal(1, "localhost")].concat();
    frame(1, 0b101, stream, &block)
}

/// Everything that a server sends until it ends the connection, however it does.
async fn rest<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(HANG, stream.read_to_end(&mut bytes)).await.unwrap();
    bytes
}

fn holds(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_handshake_leaves_a_line_that_says_why_and_whose() {
    let rig = Rig::start("lines", Limits::default()).await;
    let day = Duration::from_secs(86_400);
    let now = std::time::SystemTime::now();
    let past = Validity { from: now - 2 * day, until: now - day };
    rig.alert(rig.client_of(&rig.pki, "past", &[ONE], past)).await;
    rig.alert(client_tls(&rig.pki, None)).await;
    rig.alert(rig.client("both", &[ONE, TWO])).await;
    let mut tcp = TcpStream::connect(rig.address).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    rest(&mut tcp).await;
    until(|| logged("lines").len() == 4).await;
    let lines = logged("lines");
    for (line, words) in lines.iter().zip([
        &["has expired", ONE, "certificate "][..],
        &["no client certificate", "subject=\"none\""],
        &["exactly one URI", "organisation none"],
        &["not TLS"],
    ]) {
        assert!(line.contains("peer=127.0.0.1:"), "{line}");
        for word in words {
            assert!(line.contains(word), "{word} in {line}");
        }
    }
    // A flood of them leaves some, and is counted.
    for _ in 0..50 {
        let mut tcp = TcpStream::connect(rig.address).await.unwrap();
        tcp.write_all(b"rubbish, rubbish").await.unwrap();
        rest(&mut tcp).await;
    }
    until(|| handshakes("lines", "error") == 51).await;
    assert!(logged("lines").len() < 45, "{} lines", logged("lines").len());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_keep_no_honest_caller_out() {
    let rig = Rig::start("flood", Limits { max_connections: 16, ..Limits::default() }).await;
    let mut known = http1(rig.connect(rig.client("known", &[ONE])).await.unwrap()).await;
    send(&mut known, "/").await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..8 {
        for _ in 0..16 {
            silent.push(TcpStream::connect(rig.address).await.unwrap());
        }
        let mut honest = http1(rig.connect(rig.client("honest", &[TWO])).await.unwrap()).await;
        assert_eq!(send(&mut honest, "/").await.unwrap().status(), StatusCode::OK);
        assert_eq!(send(&mut known, "/").await.unwrap().status(), StatusCode::OK);
    }
    until(|| refused("flood", "gave-way") > 100).await;
    drop((silent, known));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_ends_its_sending_gets_its_answer() {
    let rig = Rig::start("half", Limits::default()).await;
    // HTTP/1.1: TLS's own end, and then TCP's.
    let mut stream = rig.connect(rig.client("good", &[ONE])).await.unwrap();
    stream.write_all(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    rig.arrived.notified().await;
    rig.release.notify_one();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with(b"HTTP/1.1 200") && holds(&answer, ONE), "{}", answer.escape_ascii());
    // TCP's alone.
    let mut stream = rig.connect(rig.client("good", &[ONE])).await.unwrap();
    stream.write_all(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    stream.get_mut().0.shutdown().await.unwrap();
    rig.arrived.notified().await;
    rig.release.notify_one();
    assert!(holds(&rest(&mut stream).await, ONE));
    // HTTP/2, two requests at once, one of them with an answer of many frames.
    for tcp_alone in [false, true] {
        let mut stream = rig.connect_http2(rig.client("good", &[ONE])).await;
        let window = (1_u32 << 24).to_be_bytes();
        let begin = [
            frame(SETTINGS, 0, 0, &[&[0, 4][..], &window].concat()),
            frame(8, 0, 0, &window),
            get(1, "/wait"),
            get(3, "/large"),
        ]
        .concat();
        stream.write_all(&begin).await.unwrap();
        if tcp_alone {
            stream.get_mut().0.shutdown().await.unwrap();
        } else {
            stream.shutdown().await.unwrap();
        }
        rig.arrived.notified().await;
        // The end of sending is seen long before.
        tokio::time::sleep(Duration::from_millis(100)).await;
        rig.release.notify_one();
        let answer = rest(&mut stream).await;
        assert!(holds(&answer, ONE), "{} bytes", answer.len());
        assert!(answer.len() > LARGE, "{} bytes", answer.len());
    }
    // Nothing was asked: the end of sending is the end.
    let mut stream = rig.connect_http2(rig.client("good", &[ONE])).await;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream.shutdown().await.unwrap();
    rest(&mut stream).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_taken_is_bounded_and_nobody_else_waits_for_it() {
    let limits = Limits {
        header_timeout: Duration::from_millis(200),
        stall_timeout: Duration::from_secs(1),
        max_untaken: 4 << 20,
        max_untaken_per_organisation: 16 << 20,
        ..Limits::default()
    };
    let rig = Rig::start("untaken", limits).await;
    let no_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    // Of what a connection may hold a part is made, and the other requests wait.
    let mut stream = rig.connect_http2(rig.client("good", &[ONE])).await;
    let requests: Vec<u8> = (0..100).flat_map(|number| get(2 * number + 1, "/counted")).collect();
    stream.write_all(&[no_window.clone(), requests].concat()).await.unwrap();
    rest(&mut stream).await;
    until(|| closed("untaken", "stalled") == 1).await;
    let made = COUNTED.load(Ordering::Relaxed);
    assert!((1..=16).contains(&made), "{made} answers were made for nobody");
    // One answer, whose window never opens while the peer is alive and answers pings.
    let mut stream = rig.connect_http2(rig.client("good", &[ONE])).await;
    stream.write_all(&[no_window, get(1, "/large")].concat()).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let pings = tokio::spawn(async move {
        while write.write_all(&frame(PING, 0, 0, &[7; 8])).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    rest(&mut read).await;
    until(|| closed("untaken", "stalled") == 2).await;
    pings.await.unwrap();
    // HTTP/1.1: somebody who asks and asks and never reads.
    let mut stream = rig.connect(rig.client("good", &[ONE])).await.unwrap();
    let asks = tokio::spawn(async move {
        while stream.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await.is_ok() {}
        stream
    });
    until(|| closed("untaken", "stalled") == 3).await;
    // The same organisation is served all the same.
    let mut sender = http1(rig.connect(rig.client("good", &[ONE])).await.unwrap()).await;
    for _ in 0..8 {
        assert_eq!(body(send(&mut sender, "/large").await.unwrap()).await.len(), LARGE);
    }
    drop((sender, asks.await.unwrap()));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_control_frames_are_closed_and_counted() {
    let rig = Rig::start("control", Limits { control_burst: 100, ..Limits::default() }).await;
    let floods = [
        frame(PING, 0, 0, &[7; 8]),
        frame(SETTINGS, 0, 0, &[]),
        frame(2, 0, 1, &[0, 0, 0, 0, 16]),
        frame(8, 0, 0, &[0, 0, 0, 1]),
        frame(200, 0, 0, &[1, 2, 3]),
    ];
    for (number, flood) in (1..).zip(floods) {
        let mut stream = rig.connect_http2(rig.client("good", &[ONE])).await;
        let begin = [frame(SETTINGS, 0, 0, &[]), get(1, "/wait")].concat();
        stream.write_all(&begin).await.unwrap();
        rig.arrived.notified().await;
        let _ = stream.write_all(&flood.repeat(1_000)).await;
        rest(&mut stream).await;
        until(|| closed("control", "control-flood") == number).await;
    }
    // Many requests bring some with them, and are none.
    let mut stream = rig.connect_http2(rig.client("good", &[ONE])).await;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    for number in 0..100 {
        let asked = [get(2 * number + 1, "/"), frame(8, 0, 0, &[0, 0, 0, 60]), frame(PING, 0, 0, &[7; 8])];
        stream.write_all(&asked.concat()).await.unwrap();
    }
    stream.shutdown().await.unwrap();
    let answers = rest(&mut stream).await;
    assert_eq!(answers.windows(ONE.len()).filter(|window| *window == ONE.as_bytes()).count(), 100);
    assert_eq!(closed("control", "control-flood"), 5);
    // What breaks the protocol is told in a GOAWAY, and counted too.
    let mut stream = rig.connect_http2(rig.client("good", &[ONE])).await;
    stream.write_all(&[frame(SETTINGS, 0, 0, &[]), frame(0, 0, 0, &[1])].concat()).await.unwrap();
    rest(&mut stream).await;
    until(|| closed("control", "http2-protocol-error") == 1).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_gets_a_problem_and_is_counted() {
    let rig = Rig::start("unfit", Limits::default()).await;
    let answer = |request: String| {
        let (rig, config) = (&rig, rig.client("good", &[ONE]));
        async move {
            let mut stream = rig.connect(config).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            String::from_utf8(rest(&mut stream).await).unwrap()
        }
    };
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", "x".repeat(32 * 1024));
    for (request, status, code) in [
        ("GET\r\n\r\n", "400", "malformed-http"),
        ("GET / HTTP/1.1\r\nno header\r\n\r\n", "400", "malformed-http"),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\n", "400", "malformed-http"),
        (&long, "431", "head-too-large"),
        ("GET / HTTP/1.1\r\n\r\n", "400", "bad-host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400", "bad-host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", "400", "bad-host"),
        ("GET / HTTP/1.0\r\nHost: a\r\nhost: a\r\n\r\n", "400", "bad-host"),
    ] {
        let before = turned_away("unfit", code);
        let answer = answer(request.to_owned()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} "))
                || answer.starts_with(&format!("HTTP/1.0 {status} ")),
            "{answer}"
        );
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("content-type: application/problem+json"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
        assert!(body.contains(&format!("\"code\":\"{code}\"")), "{answer}");
        until(|| turned_away("unfit", code) == before + 1).await;
    }
    assert!(answer("GET / HTTP/1.0\r\n\r\n".to_owned()).await.contains(" 200 "));
    // HTTP/2 too.
    let mut config = rig.client("good", &[ONE]);
    config.alpn_protocols = vec![tls::ALPN_H2.to_vec()];
    let stream = TokioIo::new(rig.connect(config).await.unwrap());
    let (mut h2, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://localhost/").header("x-long", "x".repeat(20 * 1024));
    let response = h2.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert!(body(response).await.contains("head-too-large"));
    drop(h2);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_word_over_http2_is_told_to_go_on() {
    let rig = Rig::start("expect", Limits::default()).await;
    let mut stream = rig.connect_http2(rig.client("good", &[ONE])).await;
    let mut asks = get(1, "/wait");
    // A body is to follow, and it does not.
    asks[4] = 0b100;
    let expect = [&[0, 6][..], b"expect", &[12], b"100-continue"].concat();
    asks.extend(&expect);
    let length = u32::try_from(asks.len() - 9).unwrap().to_be_bytes();
    asks[..3].copy_from_slice(&length[1..]);
    stream.write_all(&[frame(SETTINGS, 0, 0, &[]), asks.clone()].concat()).await.unwrap();
    rig.arrived.notified().await;
    until(|| turned_away("expect", "expectation-failed") == 1).await;
    // Who does not wait is not told so.
    asks[8] = 3;
    stream.write_all(&[asks, frame(0, 1, 3, b"{}")].concat()).await.unwrap();
    rig.arrived.notified().await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    rig.release.notify_one();
    stream.shutdown().await.unwrap();
    let answers = rest(&mut stream).await;
    assert!(holds(&answers, "expectation-failed") && holds(&answers, ONE), "{}", answers.escape_ascii());
    assert_eq!(turned_away("expect", "expectation-failed"), 1);
    rig.stop().await;
}
