//! A small mTLS client for our own commands: quickstart and the participant register.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls;

/// Who a client is: the paths of its certificate and key.
#[derive(Clone)]
pub struct Identity {
    config: Arc<rustls::ClientConfig>,
}

impl Identity {
    /// A participant of a development folder, by the name of its files in `pki/clients`.
    ///
    /// # Errors
    /// A file cannot be read, or does not hold what it should.
    pub fn of_participant(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let clients = folder.join("pki/clients");
        Self::load(
            &folder.join("pki/ca.pem"),
            &clients.join(format!("{name}.pem")),
            &clients.join(format!("{name}.key")),
        )
    }

    /// Reads a certificate and its key, trusting servers of `ca`.
    ///
    /// # Errors
    /// A file cannot be read, or does not hold what it should.
    pub fn load(ca: &Path, certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let read = |path: &Path| std::fs::read_to_string(path).with_context(|| path.display().to_string());
        let (certificate, key) = (read(certificate)?, read(key)?);
        let config = tls::client_config(&read(ca)?, Some((&certificate, &key)))?;
        Ok(Self { config: Arc::new(config) })
    }

    /// Opens one HTTP/1.1 connection.
    pub async fn connect(&self, address: SocketAddr) -> anyhow::Result<Client> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot reach {address}"))?;
        stream.set_nodelay(true)?;
        let mut config = (*self.config).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::IpAddress(address.ip().into());
        let stream =
            TlsConnector::from(Arc::new(config)).connect(name, stream).await.context("TLS handshake")?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the sender; an error shows up at the request that meets it.
        tokio::spawn(connection);
        Ok(Client { sender, host: address.to_string() })
    }
}

/// One connection; requests follow each other.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Client {
    /// Posts a JSON body; gives status and body back.
    pub async fn post(
        &mut self,
        path: &str,
        body: impl Into<Bytes>,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<(u16, Bytes)> {
        let mut request =
            hyper::Request::post(path).header(HOST, &self.host).header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into()))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    /// Gets a path; gives status and body back.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<(u16, Bytes)> {
        let request = hyper::Request::get(path).header(HOST, &self.host).body(Full::default())?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}
