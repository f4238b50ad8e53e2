//! Drives a connection to its end: its own, the server's stop, or a peer that is silent, too slow or too busy.
//!
//! The accept loop starts one for each connection. A crash drops the connection and nothing else.

use super::limits::Limits;
use super::taking::{Activity, Finding, Looked};
use crate::tls::ServerTls;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::HttpService;
use hyper_util::rt::TokioExecutor;
use rustls_pki_types::CertificateDer;
use schemas::codes::Code;
use std::error::Error as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// An HTTP connection that can be told to end after what it is at.
pub(super) trait Graceful: Future<Output = hyper::Result<()>> {
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

const NOT_ADMITTED: End = End::Closed("not-admitted");

/// Word of the TLS in force, for a connection whose client was let in by what was in force before.
pub(super) struct Admission {
    /// Begun before the handshake took its TLS, so that no change falls between.
    pub(super) tls: watch::Receiver<Arc<ServerTls>>,
    /// The client's certificate, and those that it sent with it.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

impl Admission {
    /// Resolves when the client would not be let in any more: its certificate, or an authority's, was revoked or taken out.
    async fn lost(&mut self) {
        while self.tls.changed().await.is_ok() {
            let now = Arc::clone(&self.tls.borrow_and_update());
            if !now.admits(&self.chain) {
                return;
            }
        }
        // Nothing comes after this.
        std::future::pending().await
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By itself, or for silence, or with the server.
    Quietly,
    /// The server closed it; the reason for the metric.
    Closed(&'static str),
    /// hyper answered by itself what it could not read.
    Unread(Code),
}

/// One timer looks once per `header_timeout` what has happened since. So the first headers have exactly that time, later
/// ones `idle_timeout` and at most one interval more.
pub(super) async fn drive<C: Graceful>(
    connection: C,
    activity: &Activity,
    limits: &Limits,
    mut admission: Option<Admission>,
    mut stop: watch::Receiver<bool>,
) -> End {
    let mut connection = pin!(connection);
    let mut looked = Looked::default();
    loop {
        tokio::select! {
            ended = connection.as_mut() => return end_of(&ended, activity),
            () = stopped(&mut stop) => break,
            // At once: what it is at commits all the same, and nothing more is answered.
            () = lost(&mut admission) => return NOT_ADMITTED,
            // A peer that does not take what waits does not take a farewell either.
            () = activity.closed() => return End::Closed(activity.closing().unwrap_or("closed")),
            () = sleep(limits.header_timeout) => {}
        }
        match looked.look(activity, limits) {
            Finding::Alive => {}
            Finding::NeverBegun => return End::Quietly,
            Finding::NotTaking(reason) => return End::Closed(reason),
            Finding::Idle => break,
        }
    }
    connection.as_mut().finish();
    tokio::select! {
        ended = timeout(limits.drain_timeout, connection) => match ended {
            Ok(ended) => end_of(&ended, activity),
            Err(_) => End::Quietly,
        },
        () = lost(&mut admission) => NOT_ADMITTED,
    }
}

/// Resolves when the server is to stop.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone: then nobody could stop us later.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn lost(admission: &mut Option<Admission>) {
    match admission {
        Some(admission) => admission.lost().await,
        None => std::future::pending().await,
    }
}

fn end_of(ended: &hyper::Result<()>, activity: &Activity) -> End {
    if let Some(reason) = activity.closing() {
        return End::Closed(reason);
    }
    let Err(error) = ended else { return End::Quietly };
    tracing::debug!(%error, "connection ended");
    if error.is_parse_too_large() {
        return End::Unread(Code::HeadTooLarge);
    }
    // A preface of HTTP/2 on a connection of HTTP/1.1 is closed without an answer.
    if error.is_parse() {
        return End::Unread(Code::MalformedHttp);
    }
    let http2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    match http2.filter(|error| !error.is_remote() && !error.is_io()).and_then(h2::Error::reason) {
        None | Some(h2::Reason::NO_ERROR) => End::Quietly,
        Some(h2::Reason::PROTOCOL_ERROR) => End::Closed("http2-protocol-error"),
        Some(h2::Reason::FLOW_CONTROL_ERROR) => End::Closed("http2-flow-control"),
        Some(h2::Reason::FRAME_SIZE_ERROR) => End::Closed("http2-frame-size"),
        Some(h2::Reason::COMPRESSION_ERROR) => End::Closed("http2-compression"),
        Some(h2::Reason::ENHANCE_YOUR_CALM) => End::Closed("http2-too-many-resets"),
        Some(_) => End::Closed("http2-other"),
    }
}
