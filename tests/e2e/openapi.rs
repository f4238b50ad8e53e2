//! The contract as served, held against the router.

use hyper::Method;
use schemas::codes::Code;
use schemas::routes::{ADMIN, Listener, PUBLIC, Route};
use serde_json::Value;
use std::collections::BTreeSet;
use tests::{Call, Setup, shared};

/// The listener that serves a path, by the tables of the contract's crate.
fn listener(path: &str) -> Listener {
    if PUBLIC.contains(&path) {
        Listener::Public
    } else if ADMIN.contains(&path) {
        Listener::Admin
    } else {
        Listener::Data
    }
}

/// A path with values in place of its parameters.
fn filled(path: &str) -> String {
    path.replace("{index}", "0").replace("{path}", "entries/000.p/1").replace("{old}/{new}", "1/1")
}

#[tokio::test]
async fn the_document_served_is_the_contract() {
    let server = shared(Setup::new).await;
    let reply = server.public("/openapi.json").await;
    assert_eq!((reply.status, reply.content_type.as_str()), (200, "application/json"));
    assert_eq!(reply.body, schemas::OPENAPI.as_bytes());
}

#[tokio::test]
async fn every_path_listed_is_served_and_every_route_is_listed() {
    let server = shared(Setup::new).await;
    let mut party = server.party("bank");
    // Something is in the log and published, so that its proof and its bundle are there.
    let reply = party.send(&Call::raw(Route::Verify, "{}")).await;
    server.proof(reply.receipt().index).await;
    let document: Value = serde_json::from_str(schemas::OPENAPI).unwrap();
    let paths = document["paths"].as_object().unwrap();
    for (path, item) in paths {
        for method in item
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| ["get", "post", "put", "delete"].contains(&key.as_str()))
        {
            match listener(path) {
                Listener::Public => {
                    assert_eq!(method, "get", "{path}");
                    assert_eq!(server.public(&filled(path)).await.status, 200, "{path}");
                }
                Listener::Admin => {
                    assert_eq!(method, "get", "{path}");
                    assert_eq!(server.admin(&filled(path)).await.status, 200, "{path}");
                }
                Listener::Data => {
                    let call = Call::raw(Route::None, "{}")
                        .path(path)
                        .method(Method::from_bytes(method.to_uppercase().as_bytes()).unwrap());
                    let reply = party.send(&call).await;
                    let code = reply.code().to_owned();
                    assert!(
                        code != Code::NoSuchRoute.name() && code != Code::MethodNotAllowed.name(),
                        "{method} {path}: {code}"
                    );
                    let responses = item[method]["responses"].as_object().unwrap();
                    assert!(
                        responses.contains_key(&reply.status.to_string()),
                        "{method} {path} answers {}, which is not listed",
                        reply.status
                    );
                }
            }
        }
    }
    let listed: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
    let served: BTreeSet<&str> = Route::ALL
        .iter()
        .filter_map(|route| route.path())
        .chain(PUBLIC.iter().copied())
        .chain(ADMIN.iter().copied())
        .collect();
    assert_eq!(listed, served);
}

#[tokio::test]
async fn the_public_listener_takes_nothing_but_reads() {
    let server = shared(Setup::new).await;
    for path in [
        "/v1/verify",
        "/v1/licenses",
        "/health",
        "/metrics",
        "/v1/log",
        "/v1/log/tile/0/../../etc",
        "/v1/log/proof/x",
    ] {
        let status = server.public(path).await.status;
        assert!(status == 404 || status == 400, "{path}: {status}");
    }
    for path in ["/v1/verify", "/v1/trust-bundle", "/openapi.json"] {
        let status = server.admin(path).await.status;
        assert_eq!(status, 404, "{path}");
    }
    assert_eq!(server.public("/v1/log/proof/999999999").await.status, 404);
    let types = server.public("/v1/types").await;
    assert_eq!(types.json["types"].as_array().unwrap().len(), 9);
    let bundle = server.public("/v1/trust-bundle").await;
    let text = std::str::from_utf8(&bundle.body).unwrap();
    assert_eq!(verifier::trust::Trust::parse_note(text, None, 0).unwrap().bundle(), server.trust.bundle());
}
