//! Callers over mTLS, what they send and what they get. What a test is about is sent as it says, by a hand that can send
//! anything; what it only needs goes through the typed client.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use client::{Builder, Client, GrantCreate, Retry, Tls, Trust};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::Method;
use hyper::body::{Body, Frame};
use hyper::client::conn::{http1::SendRequest, http2};
use hyper::header::HeaderMap;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use schemas::identifier::Uscc;
use schemas::routes::Route;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use verifier::leaf::Open;
use verifier::receipt::Receipt;

use crate::HANG;
use crate::world::key;

/// A request of so many bytes is on its way at once, whether it is read or not.
const MAX_UNREAD_BYTES: usize = 16 << 10;

/// The sending half of a connection.
pub(crate) type Sender = SendRequest<BoxBody<Bytes, Infallible>>;

/// A body that does not say how long it is.
struct Undeclared(Option<Bytes>);

impl Body for Undeclared {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A body that begins and never ends.
struct Endless(Option<Bytes>);

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(Frame::data(bytes)))))
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Call {
    /// The route it is meant for.
    pub route: Route,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    undeclared: bool,
    endless: bool,
    /// The body as sent.
    pub body: Bytes,
}

impl Call {
    /// A well-formed request of a route: JSON, inline proof, a fresh idempotency key where one is needed.
    pub fn new(route: Route, body: &Value) -> Self {
        Self::raw(route, serde_json::to_vec(body).unwrap())
    }

    /// The same with any bytes as body.
    pub fn raw(route: Route, body: impl Into<Bytes>) -> Self {
        let call = Self {
            route,
            method: Method::POST,
            path: route.path().unwrap_or("/v1/nothing").to_owned(),
            headers: vec![
                ("content-type".to_owned(), "application/json".to_owned()),
                ("receipt".to_owned(), "inline".to_owned()),
            ],
            undeclared: false,
            endless: false,
            body: body.into(),
        };
        if route.changes_state() { call.key(&key()) } else { call }
    }

    /// With this header in place of one of the same name.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        let mut call = self.without(name);
        call.headers.push((name.to_owned(), value.to_owned()));
        call
    }

    /// With one more header, of the same name perhaps.
    #[must_use]
    pub fn also(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sent in chunks, without a length in front.
    #[must_use]
    pub fn undeclared(mut self) -> Self {
        self.undeclared = true;
        self
    }

    /// Begun, and never sent to its end.
    #[must_use]
    pub fn endless(mut self) -> Self {
        self.endless = true;
        self
    }

    /// Without a header.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(have, _)| have != name);
        self
    }

    /// With this idempotency key.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    /// The same use in a case of its own: what is asked for again in one case is one use of a grant.
    #[must_use]
    pub fn in_new_case(&self) -> Self {
        let mut body: Value = serde_json::from_slice(&self.body).unwrap();
        body["use"]["businessCode"] = key().into();
        self.clone().with_body(serde_json::to_vec(&body).unwrap())
    }

    /// With another body, the headers as they are.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// With another method.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// To another path.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        self.path = path.to_owned();
        self
    }
}

/// One answer, with the request it answers.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Content type.
    pub content_type: String,
    /// `Retry-After`.
    pub retry_after: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// All headers.
    pub headers: HeaderMap,
    /// The request's body.
    pub request: Bytes,
    /// The answer's body.
    pub body: Bytes,
    /// The same, read.
    pub json: Value,
}

impl Reply {
    /// The answer without its receipt, as it was hashed.
    pub fn hashed(&self) -> Vec<u8> {
        verifier::receipt::cut(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.json)).0
    }

    /// The receipt.
    pub fn receipt(&self) -> Receipt {
        verifier::receipt::cut(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.json)).1
    }

    /// The problem's code, or `ok`.
    pub fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or("ok")
    }

    /// The answer, if its status is this.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.json);
        self
    }
}

/// A journal entry as its proven leaf tells it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The receipt that opened it.
    pub receipt: Receipt,
    /// What it opens.
    pub open: Open,
}

/// One caller: a client certificate and a connection.
pub struct Party {
    /// Name of the certificate files.
    pub name: String,
    /// Organisation of the certificate.
    pub organisation: Uscc,
    tls: Tls,
    typed: Client,
    config: Arc<ClientConfig>,
    address: SocketAddr,
    connection: Option<Sender>,
}

impl Party {
    pub(crate) fn new(name: &str, organisation: Uscc, tls: Tls, trust: Trust, address: SocketAddr) -> Self {
        let mut config = tls.config();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        // One request, one entry.
        let once = Retry { patience: HANG, ..Retry::NEVER };
        let typed = Client::builder(address.into(), &tls).trust(trust).retry(once).deadline(HANG).build();
        Self { name: name.to_owned(), organisation, tls, typed, config, address, connection: None }
    }

    /// The same caller on a connection of its own.
    #[must_use]
    pub fn again(&self) -> Self {
        Self {
            name: self.name.clone(),
            organisation: self.organisation,
            tls: self.tls.clone(),
            typed: self.typed.clone(),
            config: Arc::clone(&self.config),
            address: self.address,
            connection: None,
        }
    }

    /// The client that integrators build in, with this caller's certificate.
    pub fn client(&self) -> Builder {
        Client::builder(self.address.into(), &self.tls)
    }

    /// The same as what a test does beside what it is about: each request is sent once, and its answer is proven.
    pub fn typed(&self) -> &Client {
        &self.typed
    }

    /// Makes a grant of these terms and gives its id.
    pub async fn grant(&mut self, terms: &Value) -> String {
        let terms: GrantCreate = serde_json::from_value(terms.clone()).unwrap();
        self.typed.grant(&terms).await.unwrap_or_else(|error| panic!("{error}")).value.grant
    }

    /// Sends requests to another server, such as a provider, with a configuration for it.
    #[must_use]
    pub fn at(mut self, config: ClientConfig, address: SocketAddr) -> Self {
        (self.config, self.address, self.connection) = (Arc::new(config), address, None);
        self
    }

    /// An HTTP/2 connection of the same caller, for requests side by side.
    pub async fn http2(&self) -> Http2 {
        let mut config = (*self.config).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = shake_hands(&Arc::new(config), self.address).await.unwrap();
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Http2 { sender, address: self.address }
    }

    /// Sends these bytes on a connection of their own; gives the head and the body of the first answer, before which the
    /// server waits for nothing more.
    pub async fn send_bytes(&self, bytes: &[u8]) -> (String, Value) {
        let answer = async {
            let mut stream = shake_hands(&self.config, self.address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            let mut answer = Vec::new();
            loop {
                let text = String::from_utf8_lossy(&answer).to_lowercase();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    if length.is_some_and(|length| body.len() >= length.parse().unwrap()) {
                        return (head.to_owned(), serde_json::from_str(body).unwrap_or_default());
                    }
                }
                let read = stream.read_buf(&mut answer).await.unwrap();
                assert!(read > 0, "no answer: {text}");
            }
        };
        tokio::time::timeout(HANG, answer).await.unwrap()
    }

    /// Sends a request on a connection of its own and reads so many parts of the answer's body. The rest is not read as long as what is
    /// given back lives.
    pub async fn begin(&self, call: &Call, parts: usize) -> Begun {
        let begun = async {
            let mut connection = connect(Some(&self.config), self.address).await.unwrap();
            let response = connection.send_request(request(call, self.address).unwrap()).await.unwrap();
            let (mut body, mut taken) = (response.into_body(), Vec::new());
            for _ in 0..parts {
                let frame = body.frame().await.unwrap().unwrap();
                taken.extend_from_slice(frame.data_ref().unwrap());
            }
            Begun { _connection: connection, body, taken }
        };
        tokio::time::timeout(HANG, begun).await.unwrap()
    }

    /// Sends a request.
    pub async fn send(&mut self, call: &Call) -> Reply {
        self.try_send(call).await.unwrap_or_else(|error| panic!("{}: {error:#}", call.path))
    }

    /// Sends a request to a server that may be gone.
    pub async fn try_send(&mut self, call: &Call) -> anyhow::Result<Reply> {
        let answer = tokio::time::timeout(HANG, self.exchange(call)).await?;
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    async fn exchange(&mut self, call: &Call) -> anyhow::Result<Reply> {
        let connection = match self.connection.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => self.connection.insert(connection),
            None => {
                let fresh = connect(Some(&self.config), self.address).await?;
                self.connection.insert(fresh)
            }
        };
        connection.ready().await?;
        let reply = send(connection, call, self.address).await?;
        // A refusal may come before the whole request was taken: then hyper may leave the next one unsent for good.
        if reply.status >= 400 && (call.endless || call.body.len() > MAX_UNREAD_BYTES) {
            self.connection = None;
        }
        Ok(reply)
    }
}

/// An HTTP/2 connection.
#[derive(Clone)]
pub struct Http2 {
    sender: http2::SendRequest<BoxBody<Bytes, Infallible>>,
    address: SocketAddr,
}

impl Http2 {
    /// Sends a request beside others on the connection.
    pub async fn send(&self, call: &Call) -> anyhow::Result<Reply> {
        let mut sender = self.sender.clone();
        sender.ready().await?;
        let mut request = request(call, self.address)?;
        let path = format!("https://{}{}", self.address, call.path);
        *request.uri_mut() = path.parse()?;
        request.headers_mut().remove("host");
        reply(sender.send_request(request).await?, call).await
    }
}

async fn shake_hands(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::IpAddress(address.ip().into());
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

/// An answer of which a part was read.
pub struct Begun {
    _connection: Sender,
    body: hyper::body::Incoming,
    taken: Vec<u8>,
}

impl Begun {
    /// Reads what is left; the whole body.
    pub async fn rest(self) -> Vec<u8> {
        let rest = tokio::time::timeout(HANG, self.body.collect()).await.unwrap().unwrap().to_bytes();
        [self.taken, rest.to_vec()].concat()
    }
}

/// Opens an HTTP/1.1 connection, over TLS with a configuration.
pub(crate) async fn connect(
    config: Option<&Arc<ClientConfig>>,
    address: SocketAddr,
) -> anyhow::Result<Sender> {
    // The connection's task ends with its sender; an error shows up at the request that meets it.
    let sender = match config {
        Some(config) => {
            let stream = shake_hands(config, address).await?;
            let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            sender
        }
        None => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            sender
        }
    };
    Ok(sender)
}

/// Sends one request on a connection.
pub(crate) async fn send(connection: &mut Sender, call: &Call, address: SocketAddr) -> anyhow::Result<Reply> {
    reply(connection.send_request(request(call, address)?).await?, call).await
}

fn request(call: &Call, address: SocketAddr) -> anyhow::Result<hyper::Request<BoxBody<Bytes, Infallible>>> {
    let mut request =
        hyper::Request::builder().method(&call.method).uri(&call.path).header("host", address.to_string());
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    let body = match (call.undeclared, call.endless) {
        (_, true) => Endless(Some(call.body.clone())).boxed(),
        (true, false) => Undeclared(Some(call.body.clone())).boxed(),
        (false, false) => Full::new(call.body.clone()).boxed(),
    };
    Ok(request.body(body)?)
}

async fn reply(response: hyper::Response<hyper::body::Incoming>, call: &Call) -> anyhow::Result<Reply> {
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let content_type = header("content-type").unwrap_or_default();
    let (retry_after, cache_control) = (header("retry-after"), header("cache-control"));
    let body = response.into_body().collect().await?.to_bytes();
    let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let request = call.body.clone();
    Ok(Reply { status, content_type, retry_after, cache_control, headers, request, body, json })
}

/// An answer with one bit flipped, at each of a few places all over what its receipt is for.
pub fn flipped(answer: &Bytes) -> impl Iterator<Item = Bytes> {
    /// How many.
    const PLACES: usize = 16;
    let length = verifier::receipt::cut(answer).unwrap().0.len();
    let answer = answer.clone();
    (0..PLACES).map(move |place| {
        let mut bytes = answer.to_vec();
        bytes[place * (length - 1) / PLACES] ^= 1;
        Bytes::from(bytes)
    })
}
