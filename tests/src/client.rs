//! Callers over mTLS, what they send and what they get.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::Method;
use hyper::body::{Body, Frame};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use schemas::identifier::Uscc;
use schemas::routes::Route;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use verifier::leaf::Open;
use verifier::receipt::Receipt;

use crate::world::key;

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

/// One request.
#[derive(Clone, Debug)]
pub struct Call {
    /// The route it is meant for.
    pub route: Route,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    undeclared: bool,
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
    config: Arc<ClientConfig>,
    address: SocketAddr,
    connection: Option<Sender>,
}

impl Party {
    pub(crate) fn new(name: &str, organisation: Uscc, mut config: ClientConfig, address: SocketAddr) -> Self {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { name: name.to_owned(), organisation, config: Arc::new(config), address, connection: None }
    }

    /// The same caller on a connection of its own.
    #[must_use]
    pub fn again(&self) -> Self {
        Self {
            name: self.name.clone(),
            organisation: self.organisation,
            config: Arc::clone(&self.config),
            address: self.address,
            connection: None,
        }
    }

    /// Sends a request.
    pub async fn send(&mut self, call: &Call) -> Reply {
        self.try_send(call).await.unwrap_or_else(|error| panic!("{}: {error:#}", call.path))
    }

    /// Sends a request to a server that may be gone.
    pub async fn try_send(&mut self, call: &Call) -> anyhow::Result<Reply> {
        let answer = tokio::time::timeout(crate::HANG, self.exchange(call)).await?;
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
        send(connection, call, self.address).await
    }
}

/// Opens an HTTP/1.1 connection, over TLS with a configuration.
pub(crate) async fn connect(
    config: Option<&Arc<ClientConfig>>,
    address: SocketAddr,
) -> anyhow::Result<Sender> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    // The connection's task ends with its sender; an error shows up at the request that meets it.
    let sender = match config {
        Some(config) => {
            let name = ServerName::IpAddress(address.ip().into());
            let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
            let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            sender
        }
        None => {
            let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            sender
        }
    };
    Ok(sender)
}

/// Sends one request on a connection.
pub(crate) async fn send(connection: &mut Sender, call: &Call, address: SocketAddr) -> anyhow::Result<Reply> {
    let mut request =
        hyper::Request::builder().method(&call.method).uri(&call.path).header("host", address.to_string());
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    let body = match call.undeclared {
        true => Undeclared(Some(call.body.clone())).boxed(),
        false => Full::new(call.body.clone()).boxed(),
    };
    let response = connection.send_request(request.body(body)?).await?;
    let status = response.status().as_u16();
    let header =
        |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let content_type = header("content-type").unwrap_or_default();
    let retry_after = header("retry-after");
    let cache_control = header("cache-control");
    let body = response.into_body().collect().await?.to_bytes();
    let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Ok(Reply { status, content_type, retry_after, cache_control, request: call.body.clone(), body, json })
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
