//! Who does not get through a handshake: an alert, a count, no HTTP, no entry.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use certs::pki::{DevelopmentPki, Files, LEAF_VALIDITY, Validity};
use client::Tls;
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
    let identity = identity.as_ref().map(|(certificate, key)| (certificate.as_bytes(), key.as_bytes()));
    Tls::from_pem(ca.as_bytes(), identity).unwrap().config()
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

/// The client authority of a server with the revocation list that there is.
fn write_authority(server: &Server, pki: &DevelopmentPki) {
    let list = fs::read_to_string(pki.crl_path()).unwrap();
    let file = server.config.path(&server.config.tls.client_ca);
    fs::write(file, format!("{}{list}", pki.ca_pem())).unwrap();
}

/// Moves the authority's file away from the one that clients read.
async fn with_own_authority() -> (Server, DevelopmentPki) {
    let mut server = Setup::new().prepare().await;
    server.configure(|config| config.tls.client_ca = "pki/client-ca.pem".into());
    let pki = DevelopmentPki::create_missing(server.folder.join("pki")).unwrap();
    fs::write(server.folder.join("pki/client-ca.pem"), pki.ca_pem()).unwrap();
    (server, pki)
}

async fn is_served(server: &Server, name: &str) -> bool {
    let call = Call::raw(Route::Verify, "{}");
    server.party(name).try_send(&call).await.is_ok()
}

#[tokio::test]
async fn changed_files_are_taken_in_while_serving_and_bad_ones_are_not() {
    let (mut server, pki) = with_own_authority().await;
    server.start();
    assert!(is_served(&server, "bank").await && is_served(&server, "approval").await);
    let call = Call::raw(Route::Verify, "{}");
    let (open, other) = (server.party("bank").http2().await, server.party("approval").http2().await);
    assert!(open.send(&call).await.is_ok() && other.send(&call).await.is_ok());
    // Revoked, in a file that loses the list to a reader that skips what it does not recognise.
    let bank = server.folder.join("pki/clients/bank.pem");
    pki.revoke(&fs::read_to_string(&bank).unwrap()).unwrap();
    let list = fs::read_to_string(pki.crl_path()).unwrap();
    let file = server.folder.join("pki/client-ca.pem");
    fs::write(&file, format!("\u{feff}{list}{}", pki.ca_pem())).unwrap();
    let words = eventually("a file that cannot be used is said", || async {
        let (status, states) = server.states().await;
        assert_eq!(status, 200);
        states.get("reload-failed").cloned()
    })
    .await;
    assert!(words.contains("client-ca.pem: line 1: ") && words.contains("byte order mark"), "{words}");
    assert_eq!(server.metric("miaoxiang_reload_failed", &[("what", "tls")]).await, 1);
    assert!(is_served(&server, "bank").await, "the older file is in force");
    let refused = server.run(&["check-config"]);
    assert_eq!(refused.status, Some(64), "{refused:?}");
    assert!(refused.stderr.contains("client-ca.pem: line 1: "), "{refused:?}");

    write_authority(&server, &pki);
    eventually("the revoked one is refused", || async { (!is_served(&server, "bank").await).then_some(()) })
        .await;
    let config = client(&server, Some(&pki.client_files("bank").unwrap()));
    assert_eq!(alert(&server, config).await, AlertDescription::CertificateRevoked);
    // On the connection that it had too, and on nobody else's.
    eventually("its connection is closed", || async { open.send(&call).await.is_err().then_some(()) }).await;
    assert!(other.send(&call).await.is_ok());
    // One that a question before has just left may be among them.
    eventually("the server has closed it", || async {
        let labels = [("listener", "data"), ("reason", "not-admitted")];
        let closed = server.metric("miaoxiang_connections_closed_total", &labels).await;
        (closed >= 1).then_some(())
    })
    .await;
    assert!(is_served(&server, "approval").await);
    assert_eq!(server.metric("miaoxiang_reload_failed", &[("what", "tls")]).await, 0);
    assert!(!server.states().await.1.contains_key("reload-failed"));

    // A server certificate of another key is not half taken in.
    fs::copy(server.folder.join("pki/clients/issuer.key"), server.folder.join("pki/server.key")).unwrap();
    eventually("key and certificate do not belong together", || async {
        server.states().await.1.contains_key("reload-failed").then_some(())
    })
    .await;
    assert!(is_served(&server, "approval").await);
}

#[tokio::test]
async fn a_list_that_is_over_refuses_everybody_and_says_so_until_there_is_a_new_one() {
    let (mut server, pki) = with_own_authority().await;
    pki.renew_list(SystemTime::now() - Duration::from_secs(60)).unwrap();
    write_authority(&server, &pki);
    let checked = server.run(&["check-config"]);
    assert_eq!(checked.status, Some(0), "{checked:?}");
    assert!(checked.stdout.contains("1 CAs, 1 revocation lists") && checked.stdout.contains("over since"));
    server.start();
    assert!(!is_served(&server, "bank").await);
    let (status, states) = server.states().await;
    assert!(status == 503 && states.contains_key("nobody-admitted"), "{states:?}");
    assert!(states["revocation-list"].contains("over since"), "{states:?}");
    assert!(server.admin("/health").await.body.starts_with(b"alarm: "));
    // The words of a process are read by a thread of the test's.
    eventually("it is said", || async { server.stderr().contains("over since").then_some(()) }).await;
    let metrics = server.admin("/metrics").await.body;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    assert!(metrics.contains("miaoxiang_expires_seconds{what=\"revocation-list\"} -"), "{metrics}");

    pki.renew_list(SystemTime::now() + Duration::from_secs(3 * 86_400)).unwrap();
    write_authority(&server, &pki);
    eventually("the new list is in force", || async { is_served(&server, "bank").await.then_some(()) }).await;
    let (status, states) = server.states().await;
    assert!(status == 200 && states["revocation-list"].contains("(2 days)"), "{states:?}");
    assert!(server.admin("/health").await.body.starts_with(b"ok\nnote: revocation list of "));

    // With a grace a list that is over is taken for so long.
    assert_eq!(server.stop(), Some(0));
    server.configure(|config| config.tls.crl_grace_hours = 1);
    pki.renew_list(SystemTime::now() - Duration::from_secs(60)).unwrap();
    write_authority(&server, &pki);
    server.start();
    assert!(is_served(&server, "bank").await);
    let (status, states) = server.states().await;
    assert!(status == 200 && states["revocation-list"].contains("taken until"), "{states:?}");
}

#[tokio::test]
async fn an_ended_server_certificate_is_not_served() {
    let mut server = Setup::new().prepare().await;
    let pki = DevelopmentPki::create_missing(server.folder.join("pki")).unwrap();
    let now = SystemTime::now();
    let past = Validity { from: now - Duration::from_secs(7_200), until: now - Duration::from_secs(3_600) };
    pki.issue_client("ended", &[server.organisation("bank")], past).unwrap();
    server.configure(|config| {
        config.tls.certificate = "pki/clients/ended.pem".into();
        config.tls.key = "pki/clients/ended.key".into();
    });
    for refused in [server.start_refused(), server.run(&["check-config"])] {
        assert_eq!(refused.status, Some(64), "{refused:?}");
        assert!(
            refused.stderr.contains("ended.pem") && refused.stderr.contains("has ended 20"),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn the_end_of_the_certificate_for_calls_is_said_and_stops_nothing_else() {
    let mut server = Setup::new().prepare().await;
    let pki = DevelopmentPki::create_missing(server.folder.join("pki")).unwrap();
    let (now, operator) = (SystemTime::now(), server.organisation("operator"));
    let issue = |name: &str, until| {
        let validity = Validity { from: now - Duration::from_secs(7_200), until };
        pki.issue_client(name, &[operator], validity).unwrap()
    };
    issue("calls", now - Duration::from_secs(3_600));
    server.configure(|config| {
        let [certificate, key] = ["pem", "key"].map(|end| format!("pki/clients/calls.{end}").into());
        config.outgoing = Some(exchange::config::OutgoingFiles { certificate, key });
    });
    let checked = server.run(&["check-config"]);
    assert!(checked.status == Some(0) && checked.stdout.contains("certificate for calls"), "{checked:?}");
    server.start();
    let (status, states) = server.states().await;
    assert!(status == 200 && states["outgoing-certificate"].contains("over since"), "{states:?}");
    eventually("it is said", || async { server.stderr().contains("data providers refuse").then_some(()) })
        .await;
    let metrics = server.admin("/metrics").await.body;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    assert!(metrics.contains("miaoxiang_expires_seconds{what=\"outgoing-certificate\"} -"), "{metrics}");
    issue("renewed", now + Duration::from_secs(3 * 86_400 - 60));
    for end in ["pem", "key"] {
        let [new, old] =
            ["renewed", "calls"].map(|name| server.folder.join(format!("pki/clients/{name}.{end}")));
        fs::copy(new, old).unwrap();
    }
    eventually("the new one is in force", || async {
        let states = server.states().await.1;
        states["outgoing-certificate"].contains("(2 days)").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_higher_trust_bundle_is_taken_in_and_a_lower_one_is_not() {
    let mut server = Setup::new().prepare().await;
    server.start();
    let file = server.config.path(&server.config.keys.trust_bundle);
    let old = fs::read_to_string(&file).unwrap();
    let keys = exchange::opening::key_folder(&server.config).unwrap();
    let anchor = fs::read_to_string(server.config.path(&server.config.keys.trust_anchor)).unwrap();
    let anchor: verifier::note::VerifierKey = anchor.trim().parse().unwrap();
    let sign = |change: &dyn Fn(&mut verifier::trust::TrustBundle)| {
        let mut bundle = server.trust.bundle().clone();
        change(&mut bundle);
        certs::trust::sign_bundle(&bundle, anchor.name(), &keys.load("trust").unwrap()).unwrap()
    };
    let new = sign(&|bundle| bundle.sequence += 1);
    fs::write(&file, &new).unwrap();
    eventually("the new bundle is served", || async {
        (server.public("/v1/trust-bundle").await.body == new).then_some(())
    })
    .await;
    // Lower, of the same sequence with another content, and no bundle at all.
    let other = sign(&|bundle| (bundle.sequence, bundle.journal_index) = (bundle.sequence + 1, 7));
    for (text, word) in [(old, "sequence"), (other, "another content"), (String::new(), "not good")] {
        fs::write(&file, text).unwrap();
        eventually("the bundle is refused", || async {
            server.states().await.1.get("reload-failed").filter(|words| words.contains(word)).cloned()
        })
        .await;
        assert_eq!(server.public("/v1/trust-bundle").await.body, new);
    }
    fs::write(&file, &new).unwrap();
    eventually("all is well", || async {
        (!server.states().await.1.contains_key("reload-failed")).then_some(())
    })
    .await;
}
