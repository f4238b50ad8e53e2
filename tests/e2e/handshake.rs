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
use schemas::routes::Route;
use tests::{Call, HANG, Server, Setup, draft, eventually, legal, shared};
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
    let call = Call::raw(Route::Verify, "{}");
    server.refused(&mut server.party("bank"), &call, schemas::codes::Code::MalformedRequest).await;
    assert_eq!(server.metric("miaoxiang_handshakes_total", &labels).await, before + 1);
}

/// Descriptors of a server that has few.
const FEW: u32 = 256;
/// Connections of somebody who never says who he is; more than the server could have open.
const IDLE: usize = 400;
/// Segments of a young journal: the one that is written and the one made ahead.
const AHEAD: usize = 2;
/// Connections of the honest caller.
const HONEST: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_uses_up_the_connections_does_not_stop_the_journal() {
    let setup = Setup::new().config(|config| config.journal.segment_mib = 4).descriptors(FEW);
    let mut server = setup.start().await;
    let license = draft(&legal()).issue(&mut server.party("issuer")).await;
    let journal = server.folder.join("journal");
    let segments = move || {
        let files = fs::read_dir(&journal).unwrap().map(|file| file.unwrap().path());
        files.filter(|file| file.extension().is_some_and(|kind| kind == "mxj")).count()
    };
    let mut idle = Vec::new();
    for address in [server.data, server.public, server.admin] {
        for _ in 0..IDLE {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
    }
    // As long as can be, so that a segment is soon full.
    let mut body: serde_json::Value = serde_json::from_slice(&license.verify(None).body).unwrap();
    body["use"]["cause"] = "测".repeat(200).into();
    let call = Call::new(Route::Verify, &body);
    let until = std::time::Instant::now() + HANG;
    let callers: Vec<_> = (0..HONEST)
        .map(|_| {
            let (mut party, call, segments) = (server.party("bank"), call.clone(), segments.clone());
            tokio::spawn(async move {
                while segments() <= AHEAD && std::time::Instant::now() < until {
                    for _ in 0..20 {
                        party.send(&call).await.expect(200);
                    }
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(segments() > AHEAD, "the journal began no segment");
    // The others answer too.
    assert_eq!(server.public("/v1/log/checkpoint").await.status, 200);
    let gave_way = [("listener", "data"), ("reason", "gave-way")];
    assert!(server.metric("miaoxiang_connections_refused_total", &gave_way).await > 0);
    assert!(server.running());
    drop(idle);
    assert_eq!(server.stop(), Some(0));
    server.log_verify();
}

#[tokio::test]
async fn too_few_descriptors_are_told_before_anything_is_opened() {
    let mut server = Setup::new().descriptors(FEW - 1).prepare().await;
    let refused = server.start_refused();
    assert_eq!(refused.status, Some(64), "{}", refused.stderr);
    for word in ["255", "256", "LimitNOFILE"] {
        assert!(refused.stderr.contains(word), "{}", refused.stderr);
    }
}
