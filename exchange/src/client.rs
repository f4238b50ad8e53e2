//! A small mTLS client for our own commands: quickstart and the participant register.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use verifier::command::EXIT_NO;

use crate::app::{EXIT_UNAVAILABLE, Exit, read, read_key};
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
        let named = |error| {
            let (ca, certificate, key) = (ca.display(), certificate.display(), key.display());
            Exit::usage(format_args!("one of {ca}, {certificate}, {key}: {error}"))
        };
        let config = tls::client_config(&read(ca)?, Some((&read(certificate)?, &read_key(key)?)));
        let config = config.map_err(|error: tls::TlsError| named(error))?;
        Ok(Self { config: Arc::new(config) })
    }

    /// Opens one HTTP/1.1 connection.
    ///
    /// # Errors
    /// [`Exit`] with [`app::EXIT_UNAVAILABLE`](crate::app::EXIT_UNAVAILABLE): nobody is there, or somebody else.
    pub async fn connect(&self, to: impl Into<Endpoint>) -> anyhow::Result<Client> {
        let Endpoint { authority, name } = to.into();
        let cannot =
            |error: std::io::Error| Exit::unavailable(format_args!("cannot reach {authority}: {error}"));
        let stream = TcpStream::connect(&authority).await.map_err(cannot)?;
        stream.set_nodelay(true)?;
        let mut config = (*self.config).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(cannot)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the sender; an error shows up at the request that meets it.
        tokio::spawn(connection);
        Ok(Client { sender, host: authority })
    }
}

/// Where a server is reached, and the name that its certificate must hold.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Host and port.
    authority: String,
    name: ServerName<'static>,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        let address = reached(address);
        Self { authority: address.to_string(), name: ServerName::IpAddress(address.ip().into()) }
    }
}

/// Where a server is reached that listens here: on loopback, which a development certificate holds, if on all addresses.
pub fn reached(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

impl Endpoint {
    /// The public listener of the exchange whose data listener this is, where it follows that one.
    ///
    /// # Errors
    /// [`Exit`] with [`app::EXIT_USAGE`](crate::app::EXIT_USAGE): there is no port behind it.
    pub fn followed_by_public(&self) -> anyhow::Result<Self> {
        let (host, port) = self.authority.rsplit_once(':').unwrap_or((&self.authority, ""));
        let public = port.parse().ok().and_then(|port: u16| port.checked_add(1));
        let public =
            public.ok_or_else(|| Exit::usage(format_args!("{}: no port follows", self.authority)))?;
        Ok(Self { authority: format!("{host}:{public}"), name: self.name.clone() })
    }
}

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let (host, port) = text.rsplit_once(':').ok_or("HOST:PORT is needed")?;
        port.parse::<u16>().map_err(|_| "the port is a number up to 65535")?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| "not the name of a host")?;
        Ok(Self { authority: text.to_owned(), name })
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
        self.send(request).await
    }

    /// Gets a path; gives status and body back.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<(u16, Bytes)> {
        let request = hyper::Request::get(path).header(HOST, &self.host).body(Full::default())?;
        self.send(request).await
    }

    async fn send(&mut self, request: hyper::Request<Full<Bytes>>) -> anyhow::Result<(u16, Bytes)> {
        let gone = |error: hyper::Error| {
            let why = verifier::command::why(&error);
            Exit::unavailable(format_args!("{} gives no answer: {why}", self.host))
        };
        self.sender.ready().await.map_err(gone)?;
        let response = self.sender.send_request(request).await.map_err(gone)?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await.map_err(gone)?.to_bytes()))
    }
}

/// A refusal for a person: code, title, detail, the faults of the request, and the entry that its receipt is of.
///
/// [`EXIT_NO`], or [`EXIT_UNAVAILABLE`] when the server takes no request now.
pub fn refused(status: u16, answer: &[u8]) -> anyhow::Error {
    let body: Value = serde_json::from_slice(answer).unwrap_or_default();
    let said = |name: &str| body.get(name).map(plain);
    let code = said("code").unwrap_or_else(|| "without a code".to_owned());
    let mut message = format!("refused ({status} {code})");
    for words in [said("title"), said("detail"), Some(entry_of(answer))].into_iter().flatten() {
        message.push_str("; ");
        message.push_str(&words);
    }
    for error in body.get("errors").and_then(Value::as_array).into_iter().flatten() {
        let members = error.as_object().into_iter().flatten();
        let words: Vec<_> = members.map(|(name, value)| format!("{name} {}", plain(value))).collect();
        message.push_str(&format!("\n  {}", words.join(", ")));
    }
    Exit { status: if status < 500 { EXIT_NO } else { EXIT_UNAVAILABLE }, message }.into()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn entry_of(answer: &[u8]) -> String {
    verifier::receipt::cut(answer).map_or_else(
        |_| "no entry of the log".to_owned(),
        |(_, receipt)| format!("entry {} of the log", receipt.index),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::exit_status;
    use verifier::receipt::{Receipt, attach};

    #[test]
    fn a_refusal_is_told_in_words() {
        let receipt = Receipt {
            log: "log.example/1".to_owned(),
            index: 7,
            leaf_hash: [0; 32],
            open: vec![1; 99],
            salt: [0; 32],
            c: [0; 32],
            request_salt: None,
            proof: None,
        };
        let problem = br#"{"title":"Not so.","code":"bad-use","detail":"cause","errors":[{"pointer":"/use/cause","rule":"length"}]}"#;
        let error = refused(400, &attach(problem, &receipt));
        let text =
            "refused (400 bad-use); Not so.; cause; entry 7 of the log\n  pointer /use/cause, rule length";
        assert_eq!((error.to_string().as_str(), exit_status(&error)), (text, EXIT_NO));
        let error = refused(503, b"no");
        let text = "refused (503 without a code); no entry of the log";
        assert_eq!((error.to_string().as_str(), exit_status(&error)), (text, EXIT_UNAVAILABLE));
    }

    #[test]
    fn a_server_is_reached_by_the_name_that_its_certificate_holds() {
        for (text, authority, name) in [
            ("0.0.0.0:8443", "127.0.0.1:8443", "127.0.0.1"),
            ("[::]:8443", "[::1]:8443", "::1"),
            ("192.0.2.1:8443", "192.0.2.1:8443", "192.0.2.1"),
            ("exchange.example:443", "exchange.example:443", "exchange.example"),
        ] {
            let endpoint: Endpoint = text.parse().expect("an endpoint");
            assert_eq!((endpoint.authority.as_str(), &*endpoint.name.to_str()), (authority, name));
        }
        for bad in ["", "exchange.example", "exchange.example:", "exchange.example:70000", "a b:1", ":443"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }
}
