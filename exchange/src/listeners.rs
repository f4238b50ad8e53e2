//! The services of the three listeners. The data listener only names routes: everything a data route does is
//! [`Gateway::handle`].
//!
//! The accept loop alone calls them. They keep nothing, so a crash leaves what the gateway leaves.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use ledger::{DocumentKind, Ledger};
use schemas::codes::Code;
use schemas::routes::Route;
use serde_json::json as json_value;
use tower::ServiceExt as _;
use verifier::checkpoint::decimal;
use verifier::proof::{TlogProof, nodes_text};

use crate::condition::{conditions, health_text, is_ready};
use crate::cosign::Served;
use crate::gateway::allowance::Left;
use crate::gateway::relayed::in_task;
use crate::gateway::{Gateway, answer::Answer};
use crate::open_data;
use crate::outgoing::PAUSE;
use crate::participant::Certified;
use crate::server::{Content, Peer};
use crate::shared::Shared;
use crate::wire::refusal::Language;

/// How long a caller that was shed should wait, seconds.
const RETRY_AFTER_SECONDS: &str = "1";

/// The same of one whose data provider cannot be reached: the pause of a breaker.
const RETRY_PROVIDER_SECONDS: &str = "10";
const _: () = assert!(PAUSE.as_secs() == 10, "the text says it too");

/// Header of what is left of a caller's allowances (draft-ietf-httpapi-ratelimit-headers).
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Names a question and its answer (AuthZEN).
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// `Cache-Control` of what never changes: tiles, bundles, proofs between two sizes.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// `Cache-Control` of what moves every second.
const MOVING: &str = "no-cache";

/// The data listener's handler: a method and a path make a route, or a journaled refusal of what is none; everything
/// else is [`Gateway::handle`].
///
/// No router between: each layer around the gateway is paid for by every answer (bench/notes/measurements.md).
pub async fn data(
    gateway: Arc<Gateway>,
    peer: Peer,
    request: hyper::Request<Incoming>,
) -> hyper::Response<Content> {
    // The handshake admits nobody without an organisation; should it ever, nothing is said.
    let certified = Certified::of(&peer);
    #[cfg(feature = "bench-ablation")]
    let certified = certified.or_else(crate::ablation::caller);
    let Some(caller) = certified else {
        let mut nothing = hyper::Response::new(Full::default().into());
        *nothing.status_mut() = StatusCode::FORBIDDEN;
        return nothing;
    };
    let route = Route::at(request.uri().path());
    let misrouted = if route == Route::None {
        Some(Code::NoSuchRoute)
    } else {
        (request.method() != Method::POST).then_some(Code::MethodNotAllowed)
    };
    if route == Route::VerifyBatch {
        return respond(gateway.batch(caller, request, misrouted).await);
    }
    if matches!(route, Route::Evaluation | Route::Evaluations) {
        // AuthZEN gives a request's id back.
        let id = request.headers().get(&REQUEST_ID).cloned();
        let mut response = respond(gateway.handle(route, &caller, request, misrouted).await);
        response.headers_mut().extend(id.map(|id| (REQUEST_ID, id)));
        return response;
    }
    if route != Route::RecordsCall {
        return respond(gateway.handle(route, &caller, request, misrouted).await);
    }
    let language = Language::preferred(request.headers());
    let calling = in_task(async move { gateway.handle(route, &caller, request, misrouted).await });
    respond(calling.await.unwrap_or_else(|| Answer::undecided(Code::Internal, language)))
}

/// The method of every data route, for `Allow`.
const DATA_METHODS: &str = "POST";
/// The encodings of bodies that are taken, for `Accept-Encoding`.
const ENCODINGS: &str = "identity";

fn respond(answer: Answer) -> hyper::Response<Content> {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = match answer.parts {
        Some(parts) => Content::Parts(parts),
        None => Content::Whole(answer.body.into()),
    };
    let mut response = hyper::Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.media_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let more = if answer.code == Code::ProviderUnavailable {
        Some((header::RETRY_AFTER, RETRY_PROVIDER_SECONDS))
    } else if answer.code.passes() {
        Some((header::RETRY_AFTER, RETRY_AFTER_SECONDS))
    } else if answer.code == Code::MethodNotAllowed {
        Some((header::ALLOW, DATA_METHODS))
    } else if answer.code == Code::WrongContentType {
        Some((header::ACCEPT_ENCODING, ENCODINGS))
    } else {
        None
    };
    if let Some((name, value)) = more {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if let Some(left) = answer.limits {
        tell(response.headers_mut(), &left);
    }
    response
}

/// Says what is left of the caller's allowances, and when more may be asked.
fn tell(headers: &mut HeaderMap, left: &Left) {
    let texts = [(RATE_LIMIT_POLICY, &left.policy), (RATE_LIMIT, &left.limit)];
    for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    }
    if let Some(seconds) = left.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
}

/// A whole answer.
pub type Answered = hyper::Response<Full<Bytes>>;

/// A router as the accept loop's handler.
pub fn routed(
    router: Router,
) -> impl Fn(Peer, hyper::Request<Incoming>) -> BoxFuture<Answered> + Clone + Send + Sync + 'static {
    move |peer, mut request| {
        let router = router.clone();
        request.extensions_mut().insert(peer.address.ip());
        Box::pin(async move {
            let Ok(response) = router.oneshot(request.map(Body::new)).await;
            let (head, body) = response.into_parts();
            // Bodies of this gateway are whole in memory, so collecting them neither waits nor fails.
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            hyper::Response::from_parts(head, Full::new(body))
        })
    }
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Open to anyone: the log, the types, the trust bundle, the contract.
pub fn public(shared: Shared) -> Router {
    Router::new()
        .route("/v1/log/checkpoint", get(checkpoint))
        .route("/v1/log/tile/{*path}", get(tile))
        .route("/v1/log/proof/{index}", get(proof))
        .route("/v1/log/consistency/{old}/{new}", get(consistency))
        .route("/v1/types", get(types))
        .route("/v1/open", get(open_data::catalogue))
        .route("/v1/open/{class}/{order}", get(open_data::resource))
        .route(
            "/v1/trust-bundle",
            get(|State(shared): State<Shared>| async move { text(shared.trust_bundle.get().to_string()) }),
        )
        .route("/.well-known/authzen-configuration", get(authzen))
        .route(
            "/openapi.json",
            get(|| async { typed(Bytes::from_static(schemas::OPENAPI.as_bytes()), "application/json") }),
        )
        .with_state(shared)
}

/// Health, readiness and metrics, on loopback.
pub fn admin(shared: Shared) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(|State(shared): State<Shared>| async move { text(shared.metrics.render()) }))
        .with_state(shared)
}

/// Where questions are asked (AuthZEN metadata): at the data listener, under the host that this listener was asked for by.
async fn authzen(State(shared): State<Shared>, uri: Uri, headers: HeaderMap) -> Response {
    let named = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let Some(authority) = uri.authority().cloned().or(named) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let point = format!("https://{}:{}", authority.host(), shared.data_port);
    let path = |route: Route| format!("{point}{}", route.path().unwrap_or_default());
    let metadata = json_value!({
        "policy_decision_point": point,
        "access_evaluation_endpoint": path(Route::Evaluation),
        "access_evaluations_endpoint": path(Route::Evaluations),
    });
    cached(typed(metadata.to_string(), "application/json"), MOVING)
}

async fn checkpoint(State(shared): State<Shared>) -> Response {
    cached(text(shared.cosigning.served().text.to_string()), MOVING)
}

/// Reads the public log for whoever is at an address, in the lane of such reads.
async fn read<T: Send + 'static>(
    shared: &Shared,
    address: IpAddr,
    read: impl FnOnce(&Ledger) -> io::Result<Option<T>> + Send + 'static,
) -> Result<T, Response> {
    let ledger = shared.gateway.ledger().clone();
    match shared.gateway.lanes().public.run(address, move || read(&ledger)).await {
        Ok(Ok(Some(found))) => Ok(found),
        Ok(Ok(None)) => Err(StatusCode::NOT_FOUND.into_response()),
        Ok(Err(error)) => {
            tracing::error!(%error, "the public log cannot be read");
            Err(unavailable())
        }
        Err(_) => Err(unavailable()),
    }
}

fn unavailable() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, RETRY_AFTER_SECONDS)]).into_response()
}

async fn tile(
    State(shared): State<Shared>,
    Extension(address): Extension<IpAddr>,
    Path(path): Path<String>,
) -> Response {
    let Some(asked) = TilePath::parse(&path) else { return StatusCode::NOT_FOUND.into_response() };
    let tile = read(&shared, address, move |ledger| match asked.level {
        Some(level) => ledger.tile(level, asked.index, asked.width),
        None => ledger.entry_bundle(asked.index, asked.width),
    });
    tile.await.map_or_else(|refused| refused, |bytes| cached(bytes_answer(bytes), IMMUTABLE))
}

/// A proof to the newest checkpoint that the quorum has cosigned, waiting for one that covers the entry.
async fn proof(
    State(shared): State<Shared>,
    Extension(address): Extension<IpAddr>,
    Path(index): Path<String>,
) -> Response {
    let size = shared.gateway.ledger().size();
    let Some(index) = decimal(&index).filter(|index| *index < size) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Some(Served { size, text: checkpoint }) = shared.cosigning.covering(index).await else {
        return unavailable();
    };
    match read(&shared, address, move |ledger| ledger.inclusion(index, size)).await {
        Ok(path) => {
            let proof = TlogProof { extra: None, index, path, checkpoint: checkpoint.to_string() };
            cached(text(proof.to_text()), MOVING)
        }
        // The checkpoint that was served holds the entry.
        Err(refused) if refused.status() == StatusCode::NOT_FOUND => unavailable(),
        Err(refused) => refused,
    }
}

async fn consistency(
    State(shared): State<Shared>,
    Extension(address): Extension<IpAddr>,
    Path((old, new)): Path<(String, String)>,
) -> Response {
    let (Some(old), Some(new)) = (decimal(&old).filter(|old| *old > 0), decimal(&new)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let path = read(&shared, address, move |ledger| ledger.consistency(old, new));
    path.await.map_or_else(|refused| refused, |path| cached(text(nodes_text(&path)), IMMUTABLE))
}

async fn types(State(shared): State<Shared>) -> Response {
    let documents = shared.gateway.ledger().state().documents(DocumentKind::LicenseType);
    // Journaled bytes are JSON already; they are joined as they are.
    let mut list: Vec<String> = documents
        .into_iter()
        .filter_map(|(_, document)| String::from_utf8(document.value.to_vec()).ok())
        .collect();
    list.sort();
    json(format!("{{\"types\":[{}]}}", list.join(",")))
}

/// Alive; and whether there is an alarm that somebody must look at, a line for each.
async fn health(State(shared): State<Shared>) -> Response {
    text(health_text(&conditions(&shared)))
}

/// Whether a load balancer may send requests (status 503 when not), and every condition in words.
async fn ready(State(shared): State<Shared>) -> Response {
    let ledger = shared.gateway.ledger();
    let (health, conditions) = (ledger.health(), conditions(&shared));
    let ready = is_ready(&conditions);
    let body = json_value!({
        "ready": ready, "states": conditions,
        "journalFull": health.journal_full, "stopped": health.stopped.is_some(), "queue": health.queue,
        "imageLag": health.image_lag, "size": ledger.size(), "epoch": ledger.state().epoch(),
        "epochDestroyed": ledger.state().epoch_destroyed(),
    });
    let mut response = json(format!("{body}\n"));
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

fn cached(mut response: Response, how: &'static str) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(how));
    response
}

fn text(body: String) -> Response {
    typed(body.into_bytes(), "text/plain; charset=utf-8")
}

fn json(body: String) -> Response {
    typed(body.into_bytes(), "application/json")
}

fn bytes_answer(body: Vec<u8>) -> Response {
    typed(body, "application/octet-stream")
}

fn typed(body: impl Into<Body>, media_type: &'static str) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// A tile's path of C2SP tlog-tiles: `L/N` or `entries/N`, N in groups of three digits with `x` before all but the
/// last, `.p/W` behind a partial tile.
struct TilePath {
    /// `None` for an entry bundle.
    level: Option<u8>,
    index: u64,
    width: Option<u16>,
}

impl TilePath {
    /// Each tile has one path; another spelling of it is none.
    fn parse(path: &str) -> Option<Self> {
        let (path, width) = match path.split_once(".p/") {
            Some((path, width)) => {
                let width = decimal(width).and_then(|width| u16::try_from(width).ok());
                (path, Some(width.filter(|width| (1..=255).contains(width))?))
            }
            None => (path, None),
        };
        let (level, number) = path.split_once('/')?;
        let level = match level {
            "entries" => None,
            level => Some(u8::try_from(decimal(level)?).ok()?),
        };
        let mut index: u64 = 0;
        let groups: Vec<&str> = number.split('/').collect();
        for (position, group) in groups.iter().enumerate() {
            let last = position + 1 == groups.len();
            let digits = if last { *group } else { group.strip_prefix('x')? };
            if digits.len() != 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            if position == 0 && !last && digits == "000" {
                return None;
            }
            index = index.checked_mul(1_000)?.checked_add(digits.parse().ok()?)?;
        }
        Some(Self { level, index, width })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tile_paths_follow_tlog_tiles() {
        let tile = TilePath::parse("0/x001/x234/067.p/8").expect("good");
        assert_eq!((tile.level, tile.index, tile.width), (Some(0), 1_234_067, Some(8)));
        let bundle = TilePath::parse("entries/005").expect("good");
        assert_eq!((bundle.level, bundle.index, bundle.width), (None, 5, None));
        let far = TilePath::parse("63/000").expect("good, and never there");
        assert_eq!(far.level, Some(63));
        for bad in [
            "0/5",
            "0/x001",
            "0/001.p/0",
            "0/001.p/256",
            "0/001.p/01",
            "0/001.p/+1",
            "0/001.p/",
            "entries",
            "../000",
            "0/001/002",
            "00/001",
            "+0/001",
            "256/001",
            "0/x000/001",
            "0/X001/002",
            "0/001.p/1/",
            "0/001/",
            "/001",
            "0/x018/x446/x744/x073/x709/x551/616",
        ] {
            assert!(TilePath::parse(bad).is_none(), "{bad}");
        }
    }
}
