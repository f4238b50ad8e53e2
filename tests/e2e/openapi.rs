//! The public listener serves the contract, the types and the trust bundle, and takes nothing but reads.

use tests::{Setup, shared};

#[tokio::test]
async fn the_document_served_is_the_contract() {
    let server = shared(Setup::new).await;
    let reply = server.public("/openapi.json").await;
    assert_eq!((reply.status, reply.content_type.as_str()), (200, "application/json"));
    assert_eq!(reply.body, schemas::OPENAPI.as_bytes());
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
