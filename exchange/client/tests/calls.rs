//! A client against a server that answers what a test tells it: lost answers, "not now", and receipts that prove nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use certs::pki::{DevelopmentPki, LEAF_VALIDITY, Validity};
use client::{Client, Error, License, Retry, Stage, Tls, UseContext, Verdict, Verify};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use schemas::codes::{Code, Decision};
use schemas::routes::Route;
use schemas::synthetic::Synthetic;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use verifier::checkpoint::Checkpoint;
use verifier::leaf::{Labels, Open};
use verifier::note::VerifierKey;
use verifier::proof::TlogProof;
use verifier::receipt::{Receipt, attach, request_digest};
use verifier::report::Reason;
use verifier::trust::{Trust, TrustBundle, TrustLog};

/// Longest wait for anything; only a hang reaches it.
const HANG: Duration = Duration::from_secs(60);
/// The shortest pauses.
const AT_ONCE: Retry = Retry { first_pause: Duration::ZERO, ..Retry::USUAL };

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    head: String,
    body: Vec<u8>,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Makes the answer of the request's body.
type Made = Box<dyn Fn(&[u8]) -> Vec<u8> + Send>;

/// The deed of the server at the next request.
enum Turn {
    /// It answers: status, further lines of the head, and the body.
    Answer(u16, &'static str, Made),
    /// It reads the request and closes the connection.
    Close,
    /// It reads the request and says nothing.
    Silence,
    /// It reads the request and is gone.
    Gone,
    /// It answers "not now" to the head, and reads the body behind it.
    Early,
}

fn answer(status: u16, lines: &'static str, body: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> Turn {
    Turn::Answer(status, lines, Box::new(body))
}

/// A server over mTLS that does as it is told, turn by turn.
struct Rig {
    _folder: TempDir,
    tls: Tls,
    other: Tls,
    address: std::net::SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    log: Log,
}

impl Rig {
    async fn start(log: Log, turns: Vec<Turn>) -> Self {
        let folder = TempDir::new().unwrap();
        let pki = DevelopmentPki::create_missing(folder.path()).unwrap();
        let bank = Synthetic::new(1).uscc();
        let files = pki.issue_client("bank", &[bank], Validity::starting_now(LEAF_VALIDITY)).unwrap();
        let tls = Tls::from_files(pki.ca_path(), Some((files.certificate, files.key))).unwrap();
        let stranger = DevelopmentPki::create_missing(folder.path().join("other")).unwrap();
        let other = Tls::from_pem(stranger.ca_pem().as_bytes(), None).unwrap();

        let server = pki.server_files();
        let chain = CertificateDer::pem_file_iter(server.certificate).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(server.key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, turns) = (Arc::clone(&asked), Arc::new(Mutex::new(VecDeque::from(turns))));
        let gone = Arc::new(tokio::sync::Notify::new());
        tokio::spawn(async move {
            loop {
                let stream = tokio::select! {
                    biased;
                    () = gone.notified() => return,
                    stream = listener.accept() => stream.unwrap().0,
                };
                let (acceptor, seen, turns) = (acceptor.clone(), Arc::clone(&seen), Arc::clone(&turns));
                let stop = Arc::clone(&gone);
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let is_early = || {
                        let mut turns = turns.lock().unwrap();
                        let early = matches!(turns.front(), Some(Turn::Early));
                        if early {
                            turns.pop_front();
                        }
                        early
                    };
                    while let Some((request, answered)) = read(&mut stream, is_early).await {
                        seen.lock().unwrap().push(request.clone());
                        if answered {
                            continue;
                        }
                        let turn = turns.lock().unwrap().pop_front().expect("no request more than told");
                        match turn {
                            Turn::Close => return,
                            Turn::Gone => return stop.notify_one(),
                            Turn::Silence => std::future::pending().await,
                            Turn::Early => unreachable!("it was taken with the head"),
                            Turn::Answer(status, lines, body) => {
                                let body = body(&request.body);
                                let head = format!(
                                    "HTTP/1.1 {status} -\r\n{lines}content-length: {}\r\n\r\n",
                                    body.len()
                                );
                                stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
                            }
                        }
                    }
                });
            }
        });
        Self { _folder: folder, tls, other, address, asked, log }
    }

    /// A client that trusts the log, and sends again at once.
    fn client(&self) -> Client {
        self.client_with(AT_ONCE, DEADLINE)
    }

    fn client_with(&self, retry: Retry, deadline: Duration) -> Client {
        let client = Client::builder(self.address.into(), &self.tls).trust(self.log.trust());
        client.retry(retry).deadline(deadline).build()
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

const DEADLINE: Duration = HANG;

/// A request, and whether it was answered before its body was read.
async fn read(
    stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
    is_early: impl Fn() -> bool,
) -> Option<(Asked, bool)> {
    let (mut bytes, mut answered) = (Vec::new(), None);
    loop {
        let head = &bytes[..bytes.len().min(4_096)];
        let end = head.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            if answered.is_none() {
                answered = Some(is_early());
                if answered == Some(true) {
                    let length = OVERLOADED.len();
                    let head =
                        format!("HTTP/1.1 503 -\r\nretry-after: 0\r\ncontent-length: {length}\r\n\r\n");
                    stream.write_all(&[head.as_bytes(), OVERLOADED.as_bytes()].concat()).await.ok()?;
                    stream.flush().await.ok()?;
                    // The client has read it long before its body is taken.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let length: usize = Asked { head: head.clone(), body: Vec::new() }
                .header("content-length")
                .map_or(0, |length| length.parse().unwrap());
            let body = bytes[end + 4..].to_vec();
            if body.len() >= length {
                return Some((Asked { head, body }, answered == Some(true)));
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// A log with one entry.
#[derive(Clone)]
struct Log(Arc<(Ed25519KeyPair, VerifierKey)>);

impl Log {
    fn new(seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        let key = VerifierKey::ed25519(&format!("log.example/{seed}"), &public).unwrap();
        Self(Arc::new((pair, key)))
    }

    fn trust(&self) -> Trust {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let key = self.0.1.clone();
        let bundle = TrustBundle {
            version: verifier::trust::TRUST_VERSION,
            sequence: 1,
            issued_at: now,
            expires: now + 3_600,
            journal_index: 0,
            issuers: Vec::new(),
            logs: vec![TrustLog { origin: key.name().to_owned(), key }],
            witnesses: Vec::new(),
            mirrors: Vec::new(),
            peers: Vec::new(),
            authority: None,
        };
        Trust::new(bundle).unwrap()
    }

    /// The document as the answer to a request, with a receipt and its proof.
    fn answered(&self, decision: Decision, code: Code, request: &[u8], document: &str) -> Vec<u8> {
        let salt = [7; 32];
        let open = Open {
            route: Route::Verify.number(),
            decision: decision.number(),
            code: code.number(),
            index: 0,
            time_ms: 1,
            organisation: *b"91350100M000100Y43",
            request_digest: request_digest(&salt, request),
            answer_digest: ring::digest::digest(&ring::digest::SHA256, document.as_bytes())
                .as_ref()
                .try_into()
                .unwrap(),
            policy: [0; 32],
            subject_digest: [0; 32],
            labels: Labels::List(Vec::new()),
            ..Open::default()
        };
        let (pair, key) = &*self.0;
        let mut receipt = Receipt {
            log: key.name().to_owned(),
            index: 0,
            leaf_hash: [0; 32],
            open: open.encode(),
            salt: [1; 32],
            c: [2; 32],
            request_salt: Some(salt),
            proof: None,
        };
        receipt.leaf_hash = receipt.computed_leaf_hash();
        let checkpoint = Checkpoint { origin: key.name().to_owned(), size: 1, root: receipt.leaf_hash };
        let signature = pair.sign(checkpoint.text().as_bytes()).as_ref().try_into().unwrap();
        let checkpoint = checkpoint.signed_text(key, &signature);
        receipt.proof = Some(TlogProof { extra: None, index: 0, path: Vec::new(), checkpoint }.to_text());
        attach(document.as_bytes(), &receipt)
    }

    fn permit(&self) -> Turn {
        let log = self.clone();
        answer(200, "", move |request| log.answered(Decision::Permit, Code::Ok, request, VALID))
    }
}

const VALID: &str = r#"{"verdict":"valid","state":"01","reasons":[],"asOf":"2026-01-01T00:00:00.000Z"}"#;
const OVERLOADED: &str = r#"{"title":"Later.","status":503,"code":"overloaded"}"#;

fn request() -> Verify {
    let text = "1.2.156.3005.2.11100000MB0341032Y001.91150102XXFJE2CU98.4LOYA4PSZH3TNAPKLMR2.001.7";
    let context = UseContext {
        user_name: "测试经办人".into(),
        item_code: "1".to_owned(),
        item_name: "测试事项".to_owned(),
        business_code: "CS1".to_owned(),
        cause: "测试".into(),
        stage: Stage::Acceptance,
        delay: None,
        purpose: None,
        scenario: None,
        acting_for: None,
        assertion: None,
    };
    Verify::new(License::by_identifier(text.parse().unwrap()), context)
}

#[tokio::test]
async fn a_proven_answer_is_given_and_the_connection_is_kept() {
    let log = Log::new(1);
    let rig = Rig::start(log.clone(), vec![log.permit(), log.permit()]).await;
    let client = rig.client();
    for _ in 0..2 {
        let answer = client.verify(&request()).await.unwrap();
        assert_eq!((answer.verdict, answer.receipt.index), (Verdict::Valid, 0));
        let report = answer.report.as_ref().unwrap();
        assert_eq!((report.verdict, report.not_checked.len()), (verifier::report::Verdict::Valid, 0));
    }
    let asked = rig.asked();
    assert_eq!(asked[0].body, serde_json::to_vec(&request()).unwrap());
    assert!(asked[0].head.starts_with("POST /v1/verify HTTP/1.1\r\n"), "{}", asked[0].head);
    assert_eq!(asked[0].header("receipt"), Some("inline"), "a proof is asked for");
    assert_ne!(
        asked[0].header("idempotency-key"),
        asked[1].header("idempotency-key"),
        "two uses count twice"
    );
}

#[tokio::test]
async fn what_gets_no_answer_is_sent_again_with_the_same_key() {
    let log = Log::new(1);
    let later = answer(503, "retry-after: 0\r\n", |_| OVERLOADED.into());
    let timeout = answer(408, "", |_| b"{}".to_vec());
    let rig = Rig::start(log.clone(), vec![Turn::Close, later, timeout, log.permit()]).await;
    let answer = rig.client().verify(&request()).await.unwrap();
    assert_eq!(answer.verdict, Verdict::Valid);
    let asked = rig.asked();
    assert_eq!(asked.len(), 4);
    assert!(asked[0].header("idempotency-key").is_some_and(|key| key.len() == 32));
    for again in &asked[1..] {
        assert_eq!(again, &asked[0]);
    }
}

#[tokio::test]
async fn an_answer_before_the_whole_request_was_taken_holds_up_no_other_request() {
    let log = Log::new(1);
    let rig = Rig::start(log.clone(), vec![Turn::Early, log.permit()]).await;
    let mut request = request();
    request.context.cause = "a".repeat(8 << 20).into();
    let client = rig.client_with(Retry { patience: HANG, ..AT_ONCE }, HANG);
    assert_eq!(client.verify(&request).await.unwrap().verdict, Verdict::Valid);
    // The first may not have been read to its end: its connection was given up.
    assert_eq!(rig.asked().last().unwrap().body, serde_json::to_vec(&request).unwrap());
}

#[tokio::test]
async fn silence_is_waited_for_only_so_long() {
    let log = Log::new(1);
    let rig = Rig::start(log.clone(), vec![Turn::Silence, log.permit(), Turn::Silence]).await;
    let client = rig.client_with(Retry { patience: Duration::from_millis(300), ..AT_ONCE }, DEADLINE);
    client.verify(&request()).await.unwrap();
    assert_eq!(rig.asked().len(), 2);
    // The deadline is that of the call with all that is sent again.
    let call = client.verify(&request()).key("a-key-of-the-caller").within(Duration::from_millis(200));
    let Error::NoAnswer(nothing) = call.await.unwrap_err() else { panic!("there is no answer") };
    assert_eq!(nothing.key.as_deref(), Some("a-key-of-the-caller"));
    assert_eq!(rig.asked().len(), 3);
}

#[tokio::test]
async fn whoever_is_gone_after_a_request_may_have_done_it() {
    let rig = Rig::start(Log::new(1), vec![Turn::Gone]).await;
    let Error::NoAnswer(nothing) = rig.client().verify(&request()).await.unwrap_err() else {
        panic!("something was sent")
    };
    assert_eq!(nothing.key.as_deref(), rig.asked()[0].header("idempotency-key"));
    assert!(nothing.key.is_some() && rig.asked().len() == 1);
    let error = rig.client().verify(&request()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_pause_beyond_the_deadline_is_not_waited_for() {
    let log = Log::new(1);
    let later = answer(429, "retry-after: 3600\r\n", |_| OVERLOADED.into());
    let rig = Rig::start(log, vec![later]).await;
    let Error::Refused(refused) = rig.client().verify(&request()).await.unwrap_err() else {
        panic!("it is refused")
    };
    assert_eq!((refused.status, refused.code()), (429, Some(Code::Overloaded)));
    assert!(refused.receipt.is_none() && refused.report.is_none());
    assert_eq!(refused.key.as_deref(), rig.asked()[0].header("idempotency-key"));
    assert_eq!(rig.asked().len(), 1);
}

#[tokio::test]
async fn whoever_wants_one_attempt_gets_one_and_needs_no_key() {
    let log = Log::new(1);
    let rig = Rig::start(log, vec![Turn::Close]).await;
    let client = rig.client_with(Retry::NEVER, DEADLINE);
    let Error::NoAnswer(nothing) = client.verify(&request()).await.unwrap_err() else {
        panic!("there is no answer")
    };
    assert_eq!((nothing.key, rig.asked()[0].header("idempotency-key")), (None, None));
}

#[tokio::test]
async fn a_refusal_carries_its_places_and_its_proof_and_is_final() {
    const PROBLEM: &str = r#"{"title":"No.","status":422,"code":"bad-use-context","errors":[{"pointer":"/use/cause","rule":"length"}]}"#;
    let log = Log::new(1);
    let refusal = |told: Code| {
        let log = log.clone();
        answer(422, "retry-after: 0\r\n", move |request| {
            log.answered(Decision::Denial, told, request, PROBLEM)
        })
    };
    let rig = Rig::start(log.clone(), vec![refusal(Code::BadUseContext), refusal(Code::BadHolder)]).await;
    let Error::Refused(refused) = rig.client().verify(&request()).await.unwrap_err() else {
        panic!("it is refused")
    };
    assert_eq!((refused.status, refused.code()), (422, Some(Code::BadUseContext)));
    assert_eq!(refused.problem.errors[0].pointer.as_deref(), Some("/use/cause"));
    assert_eq!(refused.report.unwrap().verdict, verifier::report::Verdict::Valid);
    assert_eq!(rig.asked().len(), 1);
    let error = rig.client().verify(&request()).await.unwrap_err();
    assert!(matches!(error, Error::Malformed(_)), "its entry is of another code: {error}");
}

#[tokio::test]
async fn an_answer_that_is_not_proven_is_none() {
    let (log, other) = (Log::new(1), Log::new(2));
    let made = |of: &Log, change: fn(Vec<u8>) -> Vec<u8>| {
        let of = of.clone();
        answer(200, "", move |request| change(of.answered(Decision::Permit, Code::Ok, request, VALID)))
    };
    let of_another = {
        let log = log.clone();
        answer(200, "", move |_| log.answered(Decision::Permit, Code::Ok, b"{}", VALID))
    };
    let bare = |answer: Vec<u8>| {
        let (document, receipt) = verifier::receipt::cut(&answer).unwrap();
        attach(&document, &Receipt { proof: None, ..receipt })
    };
    let swapped = |answer: Vec<u8>| {
        String::from_utf8(answer).unwrap().replacen("\"valid\"", "\"unknown\"", 1).into_bytes()
    };
    let turns = vec![of_another, made(&log, swapped), made(&other, |answer| answer), made(&log, bare)];
    let rig = Rig::start(log, turns).await;
    for reason in [Reason::RequestMismatch, Reason::AnswerMismatch, Reason::UnknownLog, Reason::NoProof] {
        let Error::Unproven(unproven) = rig.client().verify(&request()).await.unwrap_err() else {
            panic!("it is not proven: {reason:?}")
        };
        assert!(unproven.report.has(reason), "{reason:?}: {:?}", unproven.report);
        assert!(!unproven.exchanged.answer.is_empty());
    }
}

#[tokio::test]
async fn an_answer_that_the_contract_does_not_know_is_none() {
    let log = Log::new(1);
    let made = |decision, document: &'static str| {
        let log = log.clone();
        answer(200, "", move |request| log.answered(decision, Code::Ok, request, document))
    };
    let turns = vec![
        answer(200, "", |_| VALID.into()),
        answer(200, "", |_| b"<html>".to_vec()),
        made(Decision::Permit, r#"{"verdict":"perhaps"}"#),
        made(Decision::Denial, VALID),
    ];
    let rig = Rig::start(log.clone(), turns).await;
    for what in ["no receipt", "no JSON", "another verdict", "a permit whose entry is a denial"] {
        let error = rig.client().verify(&request()).await.unwrap_err();
        assert!(matches!(&error, Error::Malformed(malformed) if malformed.status == 200), "{what}: {error}");
        assert!(!error.to_string().contains("perhaps"), "{error}");
    }
}

#[tokio::test]
async fn nobody_and_somebody_else_are_not_reached() {
    let log = Log::new(1);
    let rig = Rig::start(log.clone(), Vec::new()).await;
    let somebody = Client::new(rig.address.into(), &rig.other);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = Client::builder(closed.into(), &rig.tls).retry(AT_ONCE).build();
    for (client, word) in [(somebody, "certificate"), (nobody, "refused")] {
        for error in [client.connect().await.unwrap_err(), client.verify(&request()).await.unwrap_err()] {
            assert!(matches!(&error, Error::Unreachable { why, .. } if why.contains(word)), "{error}");
        }
    }
    assert!(rig.asked().is_empty(), "nothing of a request was sent");
}

#[test]
fn files_that_hold_something_else_are_named() {
    let folder = TempDir::new().unwrap();
    let pki = DevelopmentPki::create_missing(folder.path()).unwrap();
    let absent = folder.path().join("absent.pem");
    let error = Tls::from_files(&absent, None).unwrap_err();
    assert!(error.to_string().contains("absent.pem"), "{error}");
    let ca = pki.ca_pem().as_bytes();
    assert!(Tls::from_pem(b"", None).is_err() && Tls::from_pem(ca, Some((b"", b""))).is_err());
    let server = pki.server_files();
    let (chain, key) = (std::fs::read(server.certificate).unwrap(), std::fs::read(server.key).unwrap());
    assert!(Tls::from_pem(ca, Some((&chain, &key))).is_ok());
    assert!(Tls::from_pem(ca, Some((ca, &key))).is_err(), "the key of another certificate");
}
