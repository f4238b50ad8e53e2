//! The certificates that all servers of a comparison share, and how their answers are looked at once before they are driven.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use exchange::tls;
use rustls::client::Resumption;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

/// Longest wait for one answer of a server that nobody else asks.
const PATIENCE: Duration = Duration::from_secs(10);

/// The development PKI in a data folder.
pub(super) struct Pki {
    pub(super) ca: PathBuf,
    pub(super) server_certificate: PathBuf,
    pub(super) server_key: PathBuf,
    folder: PathBuf,
}

impl Pki {
    /// Of a data folder that is there.
    pub(super) fn of(data: &Path) -> Self {
        let folder = data.join("pki");
        Self {
            ca: folder.join("ca.pem"),
            server_certificate: folder.join("server.pem"),
            server_key: folder.join("server.key"),
            folder,
        }
    }

    /// TLS of a participant's client for HTTP/1.1.
    ///
    /// # Errors
    /// Its certificate cannot be read.
    pub(super) fn client(&self, participant: &str) -> anyhow::Result<Arc<ClientConfig>> {
        let own = |end| self.folder.join("clients").join(participant).with_extension(end);
        let mut config = client::Tls::from_files(&self.ca, Some((&own("pem"), &own("key"))))?.config();
        config.alpn_protocols = vec![tls::ALPN_HTTP1.to_vec()];
        // Each connection is authenticated anew, as the exchange demands; Redis fails when a session with a client
        // certificate is resumed.
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// One blocking connection.
pub(super) struct Probe {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Probe {
    /// Connects and shakes hands.
    ///
    /// # Errors
    /// The server is not there, or the handshake fails.
    pub(super) fn open(address: SocketAddr, tls: &Arc<ClientConfig>) -> anyhow::Result<Self> {
        let name = ServerName::IpAddress(address.ip().into());
        let mut session = ClientConnection::new(Arc::clone(tls), name)?;
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Self { stream: StreamOwned::new(session, socket) })
    }

    /// TLS version and cipher suite: those of all servers must be the same.
    ///
    /// # Errors
    /// The handshake is not done.
    pub(super) fn cipher(&self) -> anyhow::Result<String> {
        let version = self.stream.conn.protocol_version().context("no TLS version")?;
        let suite = self.stream.conn.negotiated_cipher_suite().context("no cipher suite")?.suite();
        Ok(format!("{version:?} {suite:?}"))
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection's.
    pub(super) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Sends an HTTP/1.1 request; gives head and body of its answer.
    ///
    /// # Errors
    /// The connection's; the answer is none with a length.
    pub(super) fn call(&mut self, request: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.send(request)?;
        let mut answer = Vec::new();
        loop {
            self.read(&mut answer)?;
            let text = String::from_utf8_lossy(&answer);
            let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
            let bytes: usize = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .and_then(|(_, value)| value.trim().parse().ok())
                .context("an answer without a length")?;
            if answer.len() >= head.len() + "\r\n\r\n".len() + bytes {
                return Ok(answer);
            }
        }
    }

    /// Reads more bytes behind those that are there.
    ///
    /// # Errors
    /// The connection's; it ended.
    pub(super) fn read(&mut self, bytes: &mut Vec<u8>) -> std::io::Result<()> {
        let mut more = [0; 16 * 1024];
        match self.stream.read(&mut more)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => {
                bytes.extend_from_slice(&more[..read]);
                Ok(())
            }
        }
    }
}
