//! One kept connection.
//!
//! A client owns it. A crash or a lost connection leaves calls whose outcome is not known.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{HOST, HeaderValue, RETRY_AFTER};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use verifier::command::why;

use crate::Endpoint;

/// Longest answer that is read, bytes. A page of a trace or a log query holds at most 100 entries.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// A request of so many bytes is on its way at once, whether it is read or not.
const MAX_UNREAD_BYTES: usize = 16 << 10;

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
    /// `Retry-After`, seconds.
    pub retry_after: Option<u64>,
}

/// Why there is none.
#[derive(Debug)]
pub(crate) enum Lost {
    /// Nothing was sent.
    Unreachable {
        why: String,
        /// The same again may reach it.
        again: bool,
    },
    /// Something was.
    NoAnswer { why: String, again: bool },
    /// The request is none.
    Request(String),
}

impl Lost {
    /// Whether the same request may fare better a little later.
    pub(crate) const fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { again, .. } | Self::NoAnswer { again, .. } => *again,
            Self::Request(_) => false,
        }
    }
}

/// A request, apart from where it goes.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing<'a> {
    /// `None`: GET.
    pub(crate) body: Option<Bytes>,
    pub(crate) path: &'a str,
    pub(crate) headers: Vec<(&'static str, HeaderValue)>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A connection that is opened when it is needed, and again when it has ended.
pub(crate) struct Connection {
    pub(crate) endpoint: Endpoint,
    tls: Arc<ClientConfig>,
    /// Held while an HTTP/1.1 connection is in use: requests follow each other.
    kept: Mutex<Option<Sender>>,
}

impl Connection {
    pub(crate) fn new(endpoint: Endpoint, tls: Arc<ClientConfig>) -> Self {
        Self { endpoint, tls, kept: Mutex::new(None) }
    }

    /// Opens the connection unless it is open.
    pub(crate) async fn open(&self) -> Result<(), Lost> {
        let mut kept = self.kept.lock().await;
        if !kept.as_ref().is_some_and(Sender::is_open) {
            *kept = Some(self.connect().await?);
        }
        Ok(())
    }

    /// The next caller opens another one. Nothing is kept while somebody uses an HTTP/1.1 connection or opens one.
    pub(crate) fn drop_kept(&self) {
        if let Ok(mut kept) = self.kept.try_lock() {
            *kept = None;
        }
    }

    /// Sends a request. Dropped midway, it leaves no half-used connection behind.
    pub(crate) async fn send(&self, outgoing: &Outgoing<'_>) -> Result<Fetched, Lost> {
        let mut kept = self.kept.lock().await;
        let sender = match kept.take().filter(Sender::is_open) {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        match sender {
            Sender::Http2(mut sender) => {
                *kept = Some(Sender::Http2(sender.clone()));
                drop(kept);
                sender.ready().await.map_err(lost)?;
                let request = outgoing.request(&self.endpoint, true)?;
                read(sender.send_request(request).await.map_err(lost)?).await
            }
            Sender::Http1(mut sender) => {
                sender.ready().await.map_err(lost)?;
                let request = outgoing.request(&self.endpoint, false)?;
                let fetched = read(sender.send_request(request).await.map_err(lost)?).await?;
                // A refusal may come before the whole request was taken. Then hyper may leave the next request unsent for good, also on
                // a connection that it calls ready.
                let is_taken = fetched.status < 400 || outgoing.body_bytes() <= MAX_UNREAD_BYTES;
                *kept = is_taken.then_some(Sender::Http1(sender));
                Ok(fetched)
            }
        }
    }

    async fn connect(&self) -> Result<Sender, Lost> {
        let unreachable = |error: &io::Error| {
            // Another try finds the same certificates.
            let again = !is_tls(error);
            Lost::Unreachable { why: error.to_string(), again }
        };
        let stream =
            TcpStream::connect(self.endpoint.authority()).await.map_err(|error| unreachable(&error))?;
        stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
        let connecting = TlsConnector::from(Arc::clone(&self.tls)).connect(self.endpoint.name(), stream);
        let stream = connecting.await.map_err(|error| unreachable(&error))?;
        let two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        // The connection's task ends with its sender; an error shows up at the request that meets it.
        if two {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(lost)?;
            tokio::spawn(connection);
            Ok(Sender::Http2(sender))
        } else {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
            tokio::spawn(connection);
            Ok(Sender::Http1(sender))
        }
    }
}

impl Sender {
    fn is_open(&self) -> bool {
        match self {
            Self::Http1(sender) => !sender.is_closed(),
            Self::Http2(sender) => !sender.is_closed(),
        }
    }
}

impl Outgoing<'_> {
    fn body_bytes(&self) -> usize {
        self.body.as_ref().map_or(0, Bytes::len)
    }

    fn request(&self, endpoint: &Endpoint, two: bool) -> Result<Request<Full<Bytes>>, Lost> {
        let method = if self.body.is_some() { "POST" } else { "GET" };
        let mut request = Request::builder().method(method);
        request = if two {
            request.uri(format!("https://{}{}", endpoint.authority(), self.path))
        } else {
            request.uri(self.path).header(HOST, endpoint.authority())
        };
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let body = Full::new(self.body.clone().unwrap_or_default());
        request.body(body).map_err(|error| Lost::Request(error.to_string()))
    }
}

async fn read(response: Response<Incoming>) -> Result<Fetched, Lost> {
    let status = response.status().as_u16();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
    match body {
        Ok(body) => Ok(Fetched { status, body: body.to_bytes(), retry_after }),
        Err(error) => {
            let again = !error.is::<LengthLimitError>();
            Err(Lost::NoAnswer { why: why(&*error), again })
        }
    }
}

fn lost(error: hyper::Error) -> Lost {
    Lost::NoAnswer { why: why(&error), again: !is_tls(&error) }
}

/// Whether TLS ended it: a certificate that one of the two does not take.
fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if cause.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        next = cause.source();
    }
    false
}
