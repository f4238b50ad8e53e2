//! Where the keys of an identity provider come from: a file, or HTTPS under the rule for outgoing addresses.
//!
//! One task of a serving exchange. A provider that does not answer leaves the keys as they are until their stated end. Nothing is
//! written.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::StatusCode;
use hyper::header::{ACCEPT, HOST};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::jws::KeySet;
use super::provider::{Keys, Provider};
use crate::moment::now_seconds;
use crate::outgoing::Destinations;
use crate::outgoing::connect::connect;

/// Gauge of the moment until which the keys are taken.
const KEYS_UNTIL: &str = "miaoxiang_identity_keys_until_seconds";
/// How often the keys are asked for.
const EACH: Duration = Duration::from_secs(300);
/// How often after a failure, and at most for a key that is not known.
const AGAIN: Duration = Duration::from_secs(5);
/// How often a file is read.
const EACH_FILE: Duration = Duration::from_secs(2);
/// How long the provider has for a document.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longest document, bytes.
const MOST_BYTES: usize = 256 << 10;

/// The place of the keys, read from the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A JWKS file.
    File(PathBuf),
    /// A JWKS over HTTPS.
    Url(Url),
    /// A discovery document over HTTPS, which names the JWKS.
    Discovery(Url),
}

/// An `https` address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    host: String,
    port: u16,
    path: String,
}

impl Url {
    /// Reads `https://HOST[:PORT]/PATH`; nothing else is one: no user, no fragment.
    pub fn parse(text: &str) -> Option<Self> {
        let url: hyper::Uri = text.parse().ok()?;
        let authority = url.authority()?;
        let is_plain = url.scheme_str() == Some("https")
            && !authority.as_str().contains('@')
            && !text.contains('#')
            && !url.host()?.is_empty();
        let path = url.path_and_query()?.as_str().to_owned();
        let host = url.host()?.trim_matches(['[', ']']).to_owned();
        is_plain.then(|| Self { host, port: url.port_u16().unwrap_or(443), path })
    }
}

/// Where the keys are, and how they are reached.
pub struct Source {
    /// The place.
    pub place: Place,
    /// TLS, for what is fetched.
    pub tls: Option<client::Tls>,
    /// Where connections may go.
    pub destinations: Arc<Destinations>,
    /// How long keys are taken after they were read, seconds.
    pub keep_seconds: u64,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Source {
    /// Reads the keys anew.
    ///
    /// # Errors
    /// One line: why they cannot be had.
    pub async fn read(&self, issuer: &str) -> Result<Keys, String> {
        let json = match &self.place {
            Place::File(path) => read_file(path.clone()).await?,
            Place::Url(url) => self.get(url).await?,
            Place::Discovery(url) => {
                let document = self.get(url).await?;
                let found: Discovery = serde_json::from_slice(&document)
                    .map_err(|error| format!("no discovery document: {error}"))?;
                // Another issuer's document would lead to another issuer's keys.
                if found.issuer != issuer {
                    return Err("the discovery document is another issuer's".to_owned());
                }
                let url = Url::parse(&found.jwks_uri).ok_or("jwks_uri is no https address")?;
                self.get(&url).await?
            }
        };
        let set = KeySet::parse(&json)?;
        Ok(Keys::until(set, now_seconds().saturating_add(self.keep_seconds)))
    }

    /// Gets a document.
    async fn get(&self, url: &Url) -> Result<Vec<u8>, String> {
        timeout(DEADLINE, self.exchange(url)).await.map_err(|_| "no answer in time".to_owned())?
    }

    async fn exchange(&self, url: &Url) -> Result<Vec<u8>, String> {
        let tls = self.tls.as_ref().ok_or("no authorities are configured")?;
        let tls = TlsConnector::from(Arc::new(tls.config()));
        let mut connection = connect(&self.destinations, &tls, &url.host, url.port)
            .await
            .map_err(|unreached| format!("{}: {unreached}", url.host))?;
        let request = hyper::Request::get(&url.path)
            .header(HOST, format!("{}:{}", url.host, url.port))
            .header(ACCEPT, "application/json")
            .body(Full::default())
            .map_err(|error| error.to_string())?;
        let response = connection.sender.send_request(request).await.map_err(|error| error.to_string())?;
        // A redirect is an answer like any other: nobody follows it.
        if response.status() != StatusCode::OK {
            return Err(format!("status {}", response.status().as_u16()));
        }
        let whole = Limited::new(response.into_body(), MOST_BYTES).collect().await;
        Ok(whole.map_err(|_| "the answer broke off, or is too long".to_owned())?.to_bytes().to_vec())
    }
}

fn put_in_force(provider: &Provider, keys: Keys) {
    provider.keys().replace(keys);
    metrics::gauge!(KEYS_UNTIL).set(provider.keys_until() as f64);
}

async fn read_file(path: PathBuf) -> Result<Vec<u8>, String> {
    tokio::fs::read(&path).await.map_err(|error| format!("{}: {error}", path.display()))
}

impl Source {
    /// Reads the keys for the first time. A file has to be there; a provider that does not answer yet may answer later, and until
    /// then no assertion is taken.
    ///
    /// # Errors
    /// One line: the file cannot be used.
    pub async fn begin(&self, provider: &Provider) -> Result<(), String> {
        match (self.read(provider.issuer()).await, &self.place) {
            (Ok(keys), _) => put_in_force(provider, keys),
            (Err(error), Place::File(_)) => return Err(error),
            (Err(error), Place::Url(_) | Place::Discovery(_)) => {
                tracing::warn!(error, "the identity provider has no keys yet: no assertion is taken");
            }
        }
        Ok(())
    }
}

/// Keeps a provider's keys up to date until `stop`.
pub async fn follow(provider: Arc<Provider>, source: Source, mut stop: watch::Receiver<bool>) {
    let mut failed = false;
    loop {
        let read = Instant::now();
        match source.read(provider.issuer()).await {
            Ok(keys) => {
                put_in_force(&provider, keys);
                if failed {
                    tracing::info!("the identity provider's keys are in force again");
                }
                failed = false;
            }
            Err(error) => {
                if !failed {
                    tracing::error!(
                        error,
                        "the identity provider's keys cannot be read: the older ones are taken until their end"
                    );
                }
                failed = true;
            }
        }
        let pause = match &source.place {
            Place::File(_) => EACH_FILE,
            _ if failed => AGAIN,
            Place::Url(_) | Place::Discovery(_) => EACH,
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(pause) => {}
            // Strangers' tokens do not make the exchange ask more often.
            () = async {
                provider.wanted().notified().await;
                tokio::time::sleep(AGAIN.saturating_sub(read.elapsed())).await;
            } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_https_addresses_are_read() {
        let read = Url::parse("https://id.example/.well-known/openid-configuration").expect("one");
        assert_eq!((&*read.host, read.port), ("id.example", 443));
        assert_eq!(Url::parse("https://127.0.0.1:8443/jwks?x=1").map(|url| url.port), Some(8443));
        for wrong in
            ["http://id.example/", "https://a@id.example/", "id.example", "https:///x", "file:///etc/passwd"]
        {
            assert_eq!(Url::parse(wrong), None, "{wrong}");
        }
    }
}
