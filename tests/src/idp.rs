//! An identity provider: it signs assertions, and serves its discovery document and its keys over HTTPS.
//!
//! It runs in a thread of its own and ends with its [`IdentityProvider`]. Its keys are memory.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::{Identity, now_ms};

/// The name by which its assertions are for the exchange.
pub const AUDIENCE: &str = "miaoxiang.test";

struct Key {
    id: String,
    pair: EcdsaKeyPair,
}

impl Key {
    fn new(id: &str) -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random);
        Self { id: id.to_owned(), pair: pair.unwrap() }
    }
}

/// A running identity provider.
pub struct IdentityProvider {
    /// Its port on loopback.
    pub port: u16,
    /// Authorities that vouch for its certificate, PEM.
    pub authorities: String,
    keys: Arc<Mutex<Key>>,
    next: AtomicU64,
    _stop: oneshot::Sender<()>,
}

impl IdentityProvider {
    /// Starts one on loopback.
    pub fn start() -> Self {
        let identity = Identity::until(2100);
        let tls = exchange::tls::server_config(&identity.certificate, &identity.key, None).unwrap();
        let listener = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let keys = Arc::new(Mutex::new(Key::new("first")));
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = Arc::clone(&keys);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, TlsAcceptor::from(tls), port, serving) => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        let authorities = identity.authorities;
        Self { port, authorities, keys, next: AtomicU64::new(0), _stop: stop }
    }

    /// Its issuer.
    pub fn issuer(&self) -> String {
        issuer(self.port)
    }

    /// Its key set.
    pub fn jwks(&self) -> Value {
        jwks(&self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Signs with another key from now on, and with no other.
    pub fn rotate(&self, id: &str) {
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = Key::new(id);
    }

    /// The claims of a fresh assertion of a holder for a portal.
    pub fn claims(&self, portal: &Uscc, holder: &HolderRef) -> Value {
        let now = now_ms() / 1_000;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        json!({
            "iss": self.issuer(), "aud": AUDIENCE, "azp": portal.as_str(), "iat": now, "exp": now + 300,
            "jti": format!("{}-{number}", self.port), "acr": "high", "holder": crate::holder(holder),
        })
    }

    /// Signs claims.
    pub fn sign(&self, claims: &Value) -> String {
        let key = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let header = BASE64URL.encode(json!({"alg": "ES256", "typ": "JWT", "kid": key.id}).to_string());
        let signed = format!("{header}.{}", BASE64URL.encode(claims.to_string()));
        let signature = key.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64URL.encode(signature))
    }

    /// A fresh assertion of a holder for a portal.
    pub fn assert(&self, portal: &Uscc, holder: &HolderRef) -> String {
        self.sign(&self.claims(portal, holder))
    }
}

fn issuer(port: u16) -> String {
    format!("https://localhost:{port}")
}

fn jwks(key: &Key) -> Value {
    let (x, y) = key.pair.public_key().as_ref()[1..].split_at(32);
    json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": key.id,
        "x": BASE64URL.encode(x), "y": BASE64URL.encode(y)}]})
}

async fn serve(listener: std::net::TcpListener, tls: TlsAcceptor, port: u16, keys: Arc<Mutex<Key>>) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (tls, keys) = (tls.clone(), Arc::clone(&keys));
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = service_fn(move |request: Request<Incoming>| {
                let document = match request.uri().path() {
                    "/.well-known/openid-configuration" => {
                        json!({"issuer": issuer(port), "jwks_uri": format!("{}/jwks", issuer(port))})
                    }
                    "/jwks" => jwks(&keys.lock().unwrap_or_else(PoisonError::into_inner)),
                    _ => Value::Null,
                };
                let status = if document.is_null() { 404 } else { 200 };
                let body = Full::new(Bytes::from(document.to_string()));
                std::future::ready(Response::builder().status(status).body(body))
            });
            // A connection that its client breaks off is over.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
