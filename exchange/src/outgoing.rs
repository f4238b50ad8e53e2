//! Calls to interfaces of data providers: HTTPS with both certificates, from a pool of connections, within a deadline, as many at
//! once as a provider takes, and none to one that fails.
//!
//! A call has two halves. [`Outgoing::reach`] finds a connection and sends nothing; [`Line::call`] sends the request. So an intent
//! can be made durable between them, and a provider that cannot be reached has cost no use.
//!
//! The relayed path alone calls. Connections and breakers are memory: a crash leaves the intents of the calls under way.

mod breaker;
pub(crate) mod connect;
mod destination;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dashmap::DashMap;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use ledger::Key;
use schemas::codes::{Code, Reason};
use schemas::interface::Address;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

pub(crate) use self::breaker::PAUSE;
pub use self::destination::Destinations;

use self::breaker::Breaker;
use self::connect::{Connection, Unreached, connect};
use crate::current::Current;
use crate::wire::refusal::Refusal;

/// Calls to one provider under way at once.
const MOST_CALLS: usize = 64;
/// Connections that wait for a call, and for how long.
const MOST_IDLE: usize = 32;
const IDLE: Duration = Duration::from_secs(30);
/// After so long address and certificate are looked at again.
const OLDEST: Duration = Duration::from_secs(600);
/// Longest answer of a provider, bytes.
const MOST_ANSWER_BYTES: usize = 1 << 20;
const JSON: &str = "application/json";

/// The exchange as providers see it: certificate chain and key, PEM; nothing where none is configured.
pub struct Identity(pub Option<(String, Zeroizing<String>)>);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", if self.0.is_some() { "a certificate" } else { "none" })
    }
}

/// Where a call goes, as a decision found it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Key of the address's document.
    pub(crate) key: Key,
    /// Its version.
    pub(crate) version: u32,
    /// The address that two operators allowed, with its authorities.
    pub(crate) address: Address,
    /// Path of the interface.
    pub(crate) path: String,
    /// How long the whole call may take.
    pub(crate) deadline: Duration,
}

/// All providers that are called.
pub struct Outgoing {
    identity: Current<Identity>,
    destinations: Arc<Destinations>,
    /// By the key of their address.
    providers: DashMap<Key, Arc<Provider>>,
}

/// One provider's address, as long as neither it nor our certificate changes.
struct Provider {
    version: u32,
    identity: Arc<Identity>,
    tls: TlsConnector,
    destinations: Arc<Destinations>,
    calls: Arc<Semaphore>,
    idle: Mutex<Vec<(Connection, Instant)>>,
    breaker: Mutex<Breaker>,
}

/// A connection to a provider, ready for one call.
pub(crate) struct Line {
    provider: Arc<Provider>,
    target: Target,
    trial: Trial,
    connection: Connection,
    /// It had waited in the pool, and may be closed at the other end.
    was_idle: bool,
    /// The status of the answer, once there is one.
    status: Option<StatusCode>,
    ends: Instant,
    _place: OwnedSemaphorePermit,
}

/// A call that the breaker admitted. Dropped without a verdict it says nothing of the provider.
struct Trial(Option<Arc<Provider>>);

impl Trial {
    fn ended(&mut self, well: bool) {
        let Some(provider) = self.0.take() else { return };
        let mut breaker = provider.breaker();
        if well { breaker.succeeded() } else { breaker.failed(Instant::now()) }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take() {
            provider.breaker().undecided();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Provider {
    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        locked(&self.breaker)
    }

    /// A connection that waits, the latest first. One too old or closed goes.
    fn waiting(&self) -> Option<Connection> {
        let mut idle = locked(&self.idle);
        idle.retain(|(connection, since)| {
            since.elapsed() < IDLE && connection.begun.elapsed() < OLDEST && connection.sender.is_ready()
        });
        idle.pop().map(|(connection, _)| connection)
    }

    fn put_back(&self, connection: Connection) {
        let mut idle = locked(&self.idle);
        if idle.len() < MOST_IDLE {
            idle.push((connection, Instant::now()));
        }
    }

    async fn connect(&self, target: &Target) -> Result<Connection, Reason> {
        let Address { host, port, .. } = &target.address;
        let connecting = connect(&self.destinations, &self.tls, host, *port);
        connecting.await.map_err(|unreached| match unreached {
            Unreached::Forbidden => Reason::AddressForbidden,
            Unreached::Certificate(_) => Reason::ProviderCertificate,
            Unreached::Down(_) | Unreached::Http(_) => Reason::ProviderDown,
        })
    }
}

fn unavailable(reason: Reason) -> Refusal {
    Refusal::explained(Code::ProviderUnavailable, reason)
}

impl Outgoing {
    /// Calls as this identity, where these destinations may be called.
    pub fn new(identity: Current<Identity>, destinations: Destinations) -> Self {
        Self { identity, destinations: Arc::new(destinations), providers: DashMap::new() }
    }

    /// Nobody is called.
    pub fn none() -> Self {
        let destinations = Destinations { own: Vec::new(), any: false };
        Self::new(Current::new(Identity(None)), destinations)
    }

    /// Finds a connection for a call, which has its deadline from now on. Nothing of the request is sent.
    ///
    /// # Errors
    /// [`Code::ProviderUnavailable`] with the cause; [`Code::ResourceRefused`] where the address may not be called.
    pub(crate) async fn reach(&self, target: &Target) -> Result<Line, Refusal> {
        let ends = Instant::now() + target.deadline;
        let provider = self.provider(target)?;
        let place =
            Arc::clone(&provider.calls).try_acquire_owned().map_err(|_| unavailable(Reason::ProviderBusy))?;
        if !provider.breaker().admits(Instant::now()) {
            return Err(unavailable(Reason::ProviderPaused));
        }
        let mut trial = Trial(Some(Arc::clone(&provider)));
        let waiting = provider.waiting();
        let was_idle = waiting.is_some();
        let connection = match waiting {
            Some(connection) => connection,
            None => {
                let connecting = timeout_at(ends.into(), provider.connect(target)).await;
                match connecting.unwrap_or(Err(Reason::ProviderDown)) {
                    Ok(connection) => connection,
                    Err(Reason::AddressForbidden) => {
                        return Err(Refusal::explained(Code::ResourceRefused, Reason::AddressForbidden));
                    }
                    Err(reason) => {
                        trial.ended(false);
                        return Err(unavailable(reason));
                    }
                }
            }
        };
        let target = target.clone();
        Ok(Line { provider, target, trial, connection, was_idle, status: None, ends, _place: place })
    }

    /// The provider at an address, by its authorities and our certificate of now.
    fn provider(&self, target: &Target) -> Result<Arc<Provider>, Refusal> {
        let identity = self.identity.get();
        if let Some(known) = self.providers.get(&target.key)
            && known.version == target.version
            && Arc::ptr_eq(&known.identity, &identity)
        {
            return Ok(Arc::clone(&known));
        }
        let Some((chain, key)) = &identity.0 else {
            tracing::error!("no certificate for calls to providers is configured: see [outgoing]");
            return Err(unavailable(Reason::ProviderDown));
        };
        let authorities = target.address.authorities.as_deref().unwrap_or_default();
        let own = Some((chain.as_bytes(), key.as_bytes()));
        let tls = client::Tls::from_pem(authorities.as_bytes(), own).map_err(|error| {
            tracing::error!(%error, "a provider cannot be called with these certificates");
            unavailable(Reason::ProviderCertificate)
        })?;
        let mut config = tls.config();
        // A resumed session does not look at the certificate again, which may have ended since.
        config.resumption = rustls::client::Resumption::disabled();
        let provider = Arc::new(Provider {
            version: target.version,
            tls: TlsConnector::from(Arc::new(config)),
            destinations: Arc::clone(&self.destinations),
            calls: Arc::new(Semaphore::new(MOST_CALLS)),
            idle: Mutex::default(),
            breaker: Mutex::default(),
            identity,
        });
        self.providers.insert(target.key, Arc::clone(&provider));
        Ok(provider)
    }
}

impl Line {
    /// Sends a request and reads its answer whole. It is sent once: a second time only where the connection had closed
    /// before a byte of it was written.
    ///
    /// # Errors
    /// [`Code::ProviderLate`], or [`Code::ProviderWrong`] with the cause.
    pub(crate) async fn call(mut self, body: Vec<u8>) -> Result<Bytes, Refusal> {
        let called = timeout_at(self.ends.into(), self.exchange(body.into())).await;
        // Rows that are wrong say nothing of the next question, nor does an answer to the question itself, such as 404: else one
        // caller's questions would have all others wait.
        let is_told = self.status.is_some_and(|status| !status.is_server_error());
        let well = match &called {
            Ok(Ok(_) | Err(Reason::ProviderRows)) => true,
            Ok(Err(reason)) => *reason == Reason::ProviderStatus && is_told,
            Err(_) => false,
        };
        self.trial.ended(well);
        match called {
            Err(_) => Err(Refusal::new(Code::ProviderLate)),
            Ok(Err(reason)) => Err(Refusal::explained(Code::ProviderWrong, reason)),
            Ok(Ok(answer)) => {
                self.provider.put_back(self.connection);
                Ok(answer)
            }
        }
    }

    async fn exchange(&mut self, body: Bytes) -> Result<Bytes, Reason> {
        let broken = |_: Reason| Reason::ProviderBroken;
        let Address { host, port, .. } = &self.target.address;
        let request = hyper::Request::post(&self.target.path)
            .header(HOST, format!("{host}:{port}"))
            .header(CONTENT_TYPE, JSON)
            .header(ACCEPT, JSON)
            .body(Full::new(body))
            .map_err(|_| Reason::ProviderBroken)?;
        let response = match self.connection.sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => {
                let unsent = error.take_message().filter(|_| self.was_idle).ok_or(Reason::ProviderBroken)?;
                self.connection = self.provider.connect(&self.target).await.map_err(broken)?;
                self.connection.sender.send_request(unsent).await.map_err(|_| Reason::ProviderBroken)?
            }
        };
        let (head, body) = response.into_parts();
        let is_json =
            head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
                value.split(';').next().is_some_and(|value| value.trim().eq_ignore_ascii_case(JSON))
            });
        self.status = Some(head.status);
        // A redirect is an answer like any other: nobody follows it.
        if head.status != StatusCode::OK || !is_json {
            return Err(Reason::ProviderStatus);
        }
        let whole = Limited::new(body, MOST_ANSWER_BYTES).collect().await;
        let whole = whole.map_err(|error| {
            if error.is::<LengthLimitError>() { Reason::ProviderRows } else { Reason::ProviderBroken }
        })?;
        Ok(whole.to_bytes())
    }
}
