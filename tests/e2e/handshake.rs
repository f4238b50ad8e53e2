//! Who does not get through a handshake: an alert, a count, no HTTP, no entry.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use certs::pki::{DevelopmentPki, Files, LEAF_VALIDITY, Validity};
use exchange::tls::client_config;
use rustls::{AlertDescription, ClientConfig};
use rustls_pki_types::ServerName;
use schemas::identifier::Uscc;
use tests::{HANG, Server, Setup, eventually, shared};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

fn pem(files: &Files) -> (String, String) {
    (fs::read_to_string(&files.certificate).unwrap(), fs::read_to_string(&files.key).unwrap())
}

/// A client that trusts the server and presents this certificate.
fn client(server: &Server, identity: Option<&Files>) -> ClientConfig {
    let ca = fs::read_to_string(server.folder.join("pki/ca.pem")).unwrap();
    let identity = identity.map(pem);
    client_config(&ca, identity.as_ref().map(|(certificate, key)| (&**certificate, &**key))).unwrap()
}

fn issue(pki: &Path, name: &str, organisations: &[Uscc]) -> Files {
    let pki = DevelopmentPki::create_missing(pki).unwrap();
    pki.issue_client(name, organisations, Validity::starting_now(LEAF_VALIDITY)).unwrap()
}

/// The alert that a client gets; it must not get a byte of HTTP.
async fn alert(server: &Server, config: ClientConfig) -> AlertDescription {
    let attempt = async {
        let tcp = TcpStream::connect(server.data).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        // In TLS 1.3 the client is done before the server has looked at its certificate.
        stream
            .write_all(b"POST /v1/verify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
            .await?;
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "an answer to a client that must not get in");
        end.map(|_| ())
    };
    let error = tokio::time::timeout(HANG, attempt).await.unwrap().expect_err("the handshake must fail");
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        other => panic!("no alert: {error} {other:?}"),
    }
}

/// One row: the alert, the handshake counted under `result`, no entry and no answer.
async fn turned_away(server: &Server, config: ClientConfig, expected: AlertDescription, result: &str) {
    let labels = [("listener", "data"), ("result", result)];
    let before = server.metric("miaoxiang_handshakes_total", &labels).await;
    let size = server.size().await;
    assert_eq!(alert(server, config).await, expected, "{result}");
    eventually("the handshake's count", || async {
        (server.metric("miaoxiang_handshakes_total", &labels).await == before + 1).then_some(())
    })
    .await;
    assert_eq!(server.size().await, size, "{result}: an entry for somebody who was never let in");
}

#[tokio::test]
async fn who_does_not_say_which_organisation_it_is_gets_an_alert_and_nothing_else() {
    let server = shared(Setup::new).await;
    let pki = server.folder.join("pki");
    let (one, other) = (server.organisation("bank"), server.organisation("approval"));

    turned_away(&server, client(&server, None), AlertDescription::CertificateRequired, "no-certificate")
        .await;
    for (name, organisations) in [("e2e-none", vec![]), ("e2e-two", vec![one, other])] {
        let files = issue(&pki, name, &organisations);
        let config = client(&server, Some(&files));
        turned_away(&server, config, AlertDescription::CertificateUnknown, "bad-organisation").await;
    }
    let foreign = tempfile::tempdir().unwrap();
    let files = issue(foreign.path(), "bank", &[one]);
    // The foreign authority bears the same name, so only its signature tells.
    turned_away(&server, client(&server, Some(&files)), AlertDescription::DecryptError, "bad-certificate")
        .await;
}

#[tokio::test]
async fn a_good_certificate_is_counted_too() {
    let server = shared(Setup::new).await;
    let labels = [("listener", "data"), ("result", "ok")];
    let before = server.metric("miaoxiang_handshakes_total", &labels).await;
    let call = tests::Call::raw(schemas::routes::Route::Verify, "{}");
    server.refused(&mut server.party("bank"), &call, schemas::codes::Code::MalformedRequest).await;
    assert_eq!(server.metric("miaoxiang_handshakes_total", &labels).await, before + 1);
}
