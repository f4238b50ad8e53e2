//! A connection to an address outside: the name is looked up once, and only an address that may be called is connected to.
//!
//! All that calls out uses it: calls to providers, and the keys of an identity provider. A connection ends with its value, so a crash leaves
//! nothing.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::destination::Destinations;

/// Longest head of an answer, bytes.
const MOST_HEAD_BYTES: usize = 16 << 10;

/// A connection that ends when it is dropped.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Full<Bytes>>,
    /// When address and certificate were looked at.
    pub(crate) begun: Instant,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreached {
    /// No address of the name may be called.
    #[error("no address that may be called")]
    Forbidden,
    /// The certificate is not the one of this name, or has ended, or nobody vouches for it.
    #[error("the certificate is refused: {0}")]
    Certificate(String),
    /// Nobody answers.
    #[error("{0}")]
    Down(#[from] io::Error),
    /// The other end does not speak HTTP.
    #[error("no HTTP: {0}")]
    Http(#[from] hyper::Error),
}

/// Connects over TLS. Nothing is sent but the handshake.
///
/// # Errors
/// [`Unreached`]
pub(crate) async fn connect(
    destinations: &Destinations,
    tls: &TlsConnector,
    host: &str,
    port: u16,
) -> Result<Connection, Unreached> {
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    // The addresses that were checked are those connected to: a name is not looked up twice.
    let admitted: Vec<_> = found.iter().copied().filter(|address| destinations.admit(*address)).collect();
    if admitted.is_empty() && !found.is_empty() {
        return Err(Unreached::Forbidden);
    }
    let stream = TcpStream::connect(&admitted[..]).await?;
    stream.set_nodelay(true)?;
    let name =
        ServerName::try_from(host.to_owned()).map_err(|error| Unreached::Certificate(error.to_string()))?;
    let stream = tls.connect(name, stream).await.map_err(|error| {
        let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        match tls {
            Some(wrong @ rustls::Error::InvalidCertificate(_)) => Unreached::Certificate(wrong.to_string()),
            _ => Unreached::Down(error),
        }
    })?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MOST_HEAD_BYTES);
    let (sender, driver) = builder.handshake(TokioIo::new(stream)).await?;
    // Its error shows up at the request that meets it.
    let driver = tokio::spawn(async move {
        let _ = driver.await;
    });
    Ok(Connection { sender, begun: Instant::now(), driver })
}
