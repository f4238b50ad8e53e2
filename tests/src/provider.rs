//! A data provider: an interface over HTTPS that asks for a certificate, with delays and faults to be set.
//!
//! It runs in a thread of its own, so it outlives the runtime of the test that began it, and ends with its [`Provider`].

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio_rustls::TlsAcceptor;

use crate::{HANG, Server};

/// The answer of a provider.
#[derive(Clone, Debug)]
pub enum Reaction {
    /// One row of the key that is asked for, with a value for each field.
    Row,
    /// No row.
    Nothing,
    /// These bytes.
    Bytes(Bytes),
    /// This status; of a redirect with a place to go to.
    Status(u16),
    /// Bytes without an end.
    Endless,
    /// A byte, and another one after a while, without an end.
    Trickle,
    /// Nothing until [`Provider::release`], then the row.
    Stall,
    /// The connection ends.
    Break,
}

/// The certificate of a provider.
pub struct Identity {
    /// Authorities that vouch for it, PEM.
    pub authorities: String,
    /// Certificate, PEM.
    pub certificate: String,
    /// Its key, PEM.
    pub key: String,
}

impl Identity {
    /// A certificate of an authority of its own, for this machine; good until the first day of a year.
    pub fn until(year: i32) -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap().pem();
        Self { authorities: authority.as_ref().pem(), certificate, key: key.serialize_pem() }
    }
}

struct State {
    reaction: Mutex<Reaction>,
    questions: Mutex<Vec<Value>>,
    asked: AtomicUsize,
    released: Notify,
}

/// A running provider.
pub struct Provider {
    /// Its port on loopback.
    pub port: u16,
    /// Authorities that vouch for its certificate, PEM.
    pub authorities: String,
    state: Arc<State>,
    _stop: oneshot::Sender<()>,
}

impl Provider {
    /// A provider that knows the development exchange of a folder, with a good certificate.
    pub fn of(server: &Server) -> Self {
        Self::with(server, Identity::until(2100))
    }

    /// The same with another certificate.
    pub fn with(server: &Server, identity: Identity) -> Self {
        Self::at(server, "127.0.0.1:0".parse().unwrap(), identity)
    }

    /// The same at an address, whatever the certificate is for.
    pub fn at(server: &Server, address: SocketAddr, identity: Identity) -> Self {
        let clients = std::fs::read_to_string(server.folder.join("pki/ca.pem")).unwrap();
        let tls = exchange::tls::server_config(&identity.certificate, &identity.key, Some(&clients)).unwrap();
        Self::start(address, tls, identity.authorities)
    }

    /// A provider at an address.
    pub fn start(address: SocketAddr, tls: Arc<ServerConfig>, authorities: String) -> Self {
        let state = Arc::new(State {
            reaction: Mutex::new(Reaction::Row),
            questions: Mutex::default(),
            asked: AtomicUsize::new(0),
            released: Notify::new(),
        });
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = Arc::clone(&state);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, TlsAcceptor::from(tls), serving) => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        Self { port, authorities, state, _stop: stop }
    }

    /// The interface's URL.
    pub fn url(&self) -> String {
        format!("https://localhost:{}/records", self.port)
    }

    /// The address as operators allow it, for a provider's organisation.
    pub fn address(&self, organisation: &str) -> Value {
        json!({"organisation": organisation, "host": "localhost", "port": self.port, "authorities": self.authorities})
    }

    /// Reacts to what comes like this.
    pub fn react(&self, reaction: Reaction) {
        *self.state.reaction.lock().unwrap_or_else(PoisonError::into_inner) = reaction;
    }

    /// Lets the questions go on that are stalled.
    pub fn release(&self) {
        self.state.released.notify_waiters();
    }

    /// How many questions have arrived whole.
    pub fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }

    /// The questions, in their order.
    pub fn questions(&self) -> Vec<Value> {
        self.state.questions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(listener: std::net::TcpListener, tls: TlsAcceptor, state: Arc<State>) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (tls, state) = (tls.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = service_fn(move |request| answer(Arc::clone(&state), request));
            // A connection that its client breaks off is over.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Flow>, &'static str> {
    let Ok(body) = request.into_body().collect().await else { return Err("broken off") };
    let Ok(question) = serde_json::from_slice::<Value>(&body.to_bytes()) else {
        return Ok(response(400, Flow::whole("{}".into())));
    };
    state.questions.lock().unwrap_or_else(PoisonError::into_inner).push(question.clone());
    let released = state.released.notified();
    let reaction = state.reaction.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut released = std::pin::pin!(released);
    released.as_mut().enable();
    state.asked.fetch_add(1, Ordering::SeqCst);
    Ok(match reaction {
        Reaction::Row => response(200, Flow::whole(row(&question))),
        Reaction::Nothing => response(200, Flow::whole(json!({"rows": []}).to_string().into())),
        Reaction::Bytes(bytes) => response(200, Flow::whole(bytes)),
        Reaction::Status(status) => response(status, Flow::whole(row(&question))),
        Reaction::Endless => response(200, Flow::Endless),
        Reaction::Trickle => response(200, Flow::Trickle(Box::pin(tokio::time::sleep(TRICKLE)))),
        Reaction::Stall => {
            let _ = tokio::time::timeout(HANG, released).await;
            response(200, Flow::whole(row(&question)))
        }
        Reaction::Break => return Err("broken off"),
    })
}

/// A row of the key that is asked for, in the fields that are asked for.
fn row(question: &Value) -> Bytes {
    let mut row: BTreeMap<String, Value> =
        serde_json::from_value(question["key"].clone()).unwrap_or_default();
    for field in question["fields"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let value = match field {
            "regionCode" => "350102",
            "status" => "在营",
            field if field.ends_with("Name") || field == "name" => "测试单位",
            _ => "1",
        };
        row.insert(field.to_owned(), value.into());
    }
    json!({"rows": [row]}).to_string().into()
}

fn response(status: u16, body: Flow) -> Response<Flow> {
    let response = Response::builder().header("content-type", "application/json");
    let response = response.status(StatusCode::from_u16(status).unwrap());
    let response = if (300..400).contains(&status) {
        response.header("location", "https://localhost/")
    } else {
        response
    };
    response.body(body).unwrap()
}

/// Pause between two bytes of a slow answer.
const TRICKLE: Duration = Duration::from_millis(20);

/// A body, perhaps without an end.
enum Flow {
    Whole(Option<Bytes>),
    Endless,
    Trickle(Pin<Box<tokio::time::Sleep>>),
}

impl Flow {
    fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes))
    }
}

impl Body for Flow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Endless => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b' '; 1 << 16]))))),
            Self::Trickle(sleep) => {
                std::task::ready!(sleep.as_mut().poll(context));
                sleep.as_mut().reset(tokio::time::Instant::now() + TRICKLE);
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b" ")))))
            }
        }
    }
}
