//! Signed requests: a participant with signing keys changes nothing unsigned, and what is signed is what is done.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{Client, Error, Signing};
use exchange::participant::Participant;
use exchange::signing_key::SigningKey;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use schemas::codes::Code;
use schemas::routes::Route;
use serde_json::json;
use tests::{Call, Reply, Server, Setup, draft, key, natural, now_ms, sha256};
use verifier::signature::{Suite, spki};

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// A key pair: private and public, in PEM.
fn pair(suite: Suite) -> (String, String) {
    let random = SystemRandom::new();
    let (private, public) = if suite == Suite::Ed25519 {
        let private = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let public = Ed25519KeyPair::from_pkcs8(private.as_ref()).unwrap().public_key().as_ref().to_vec();
        (private, public)
    } else {
        let private = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, private.as_ref(), &random).unwrap();
        (private, key.public_key().as_ref().to_vec())
    };
    (pem("PRIVATE KEY", private.as_ref()), pem("PUBLIC KEY", &spki(suite, &public).unwrap()))
}

fn signs(id: &str, public: &str) -> impl FnOnce(&mut Participant) + 'static {
    let key =
        SigningKey { id: id.to_owned(), public_key: public.to_owned().try_into().unwrap(), until: None };
    move |participant| participant.signing_keys = vec![key]
}

/// The parts of a signature, each of which a test gets wrong.
struct Parts {
    key_id: &'static str,
    covered: &'static [&'static str],
    created: u64,
    nonce: Option<&'static str>,
    digest_of: Option<&'static [u8]>,
    authority: Option<&'static str>,
    more: &'static str,
}

const COVERED: &[&str] = &["@method", "@authority", "@path", "@query", "content-digest"];

fn right() -> Parts {
    Parts {
        key_id: "k1",
        covered: COVERED,
        created: now_ms() / 1_000,
        nonce: None,
        digest_of: None,
        authority: None,
        more: "",
    }
}

/// The call with a signature of these parts by an Ed25519 key.
fn signed(server: &Server, call: &Call, private: &Ed25519KeyPair, parts: &Parts) -> Call {
    let idempotency_key = key();
    let digest = format!("sha-256=:{}:", STANDARD.encode(sha256(parts.digest_of.unwrap_or(&call.body))));
    let covered: Vec<_> = parts.covered.iter().map(|part| format!("\"{part}\"")).collect();
    let input = format!(
        "({});created={};keyid=\"{}\";nonce=\"{}\"{}",
        covered.join(" "),
        parts.created,
        parts.key_id,
        parts.nonce.unwrap_or(&idempotency_key),
        parts.more
    );
    let here = server.data.to_string();
    let value = |part: &str| match part {
        "@method" => "POST",
        "@authority" => parts.authority.unwrap_or(&here).to_owned().leak(),
        "@path" => call.route.path().unwrap(),
        "@query" => "?",
        "content-digest" => digest.clone().leak(),
        _ => "",
    };
    let lines: String = parts.covered.iter().map(|part| format!("\"{part}\": {}\n", value(part))).collect();
    let signature = private.sign(format!("{lines}\"@signature-params\": {input}").as_bytes());
    call.clone()
        .key(&idempotency_key)
        .header("content-digest", &digest)
        .header("signature-input", &format!("sig={input}"))
        .header("signature", &format!("sig=:{}:", STANDARD.encode(signature)))
}

fn private(pem: &str) -> Ed25519KeyPair {
    let der = STANDARD.decode(pem.lines().nth(1).unwrap()).unwrap();
    Ed25519KeyPair::from_pkcs8(&der).unwrap()
}

fn issuing() -> Call {
    Call::new(Route::Issue, &json!({"license": draft(&natural()).value()}))
}

#[tokio::test]
async fn the_client_signs_with_either_kind_of_key() {
    let [(first, of_first), (second, of_second)] = [Suite::Ed25519, Suite::Es256].map(pair);
    let server = Setup::new()
        .authority_with("one", signs("k1", &of_first))
        .authority_with("two", signs("k2", &of_second))
        .start()
        .await;
    for (name, id, private) in [("one", "k1", &first), ("two", "k2", &second)] {
        let party = server.party(name);
        let unsigned = party
            .typed()
            .issue(&serde_json::from_value(json!({"license": draft(&natural()).value()})).unwrap())
            .await;
        let Err(Error::Refused(refused)) = unsigned else { panic!("it was not refused") };
        assert_eq!(refused.problem.code.as_deref(), Some(Code::BadRequestSignature.name()));
        let signing = Signing::from_pem(id, private.as_bytes()).unwrap();
        for http1 in [false, true] {
            let builder = party.client().trust(server.trust.clone()).sign(signing.clone());
            let client: Client = if http1 { builder.http1().build() } else { builder.build() };
            let request = serde_json::from_value(json!({"license": draft(&natural()).value()})).unwrap();
            let key = key();
            let issued = client.issue(&request).key(&*key).await.unwrap();
            let again = client.issue(&request).key(&*key).await.unwrap();
            assert_eq!(issued.receipt.index, again.receipt.index, "a repeated request gets its first answer");
        }
    }
}

/// Header and rule of a refusal's first fault.
fn at_fault(refused: &Reply) -> [&str; 2] {
    let fault = &refused.json["errors"][0];
    ["header", "rule"].map(|member| fault[member].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_key_signs_until_its_last_day() {
    let (first, public) = pair(Suite::Ed25519);
    let ended = signs("k1", &public);
    let server = Setup::new()
        .authority_with("one", move |participant| {
            ended(participant);
            participant.signing_keys[0].until = Some("2020-12-31".parse().unwrap());
        })
        .start()
        .await;
    let call = signed(&server, &issuing(), &private(&first), &right());
    let (refused, _) = server.refused(&mut server.party("one"), &call, Code::BadRequestSignature).await;
    assert_eq!(at_fault(&refused), ["Signature-Input", "unknown"]);
}

#[tokio::test]
async fn a_request_that_is_not_signed_as_registered_is_refused() {
    let (first, of_first) = pair(Suite::Ed25519);
    let (stranger, _) = pair(Suite::Ed25519);
    let server = Setup::new().authority_with("one", signs("k1", &of_first)).start().await;
    let mut party = server.party("one");
    let (good, bad) = (private(&first), private(&stranger));

    server.permitted(&mut party, &signed(&server, &issuing(), &good, &right())).await;
    let reordered = Parts {
        covered: &["content-digest", "@query", "@path", "@method", "@authority"],
        more: ";alg=\"ed25519\"",
        ..right()
    };
    server.permitted(&mut party, &signed(&server, &issuing(), &good, &reordered)).await;

    let now = now_ms() / 1_000;
    let wrong: Vec<(&str, [&str; 2], Parts)> = vec![
        ("another key's name", ["Signature-Input", "unknown"], Parts { key_id: "k2", ..right() }),
        ("too old", ["Signature-Input", "range"], Parts { created: now - 302, ..right() }),
        ("ahead", ["Signature-Input", "range"], Parts { created: now + 120, ..right() }),
        ("expired", ["Signature-Input", "range"], Parts { more: ";expires=1", ..right() }),
        (
            "the body is not covered",
            ["Signature-Input", "one-of"],
            Parts { covered: &["@method", "@authority", "@path", "@query"], ..right() },
        ),
        (
            "one part twice",
            ["Signature-Input", "one-of"],
            Parts {
                covered: &["@method", "@method", "@authority", "@path", "@query", "content-digest"],
                ..right()
            },
        ),
        (
            "one part more",
            ["Signature-Input", "one-of"],
            Parts {
                covered: &["@method", "@authority", "@path", "@query", "content-digest", "date"],
                ..right()
            },
        ),
        (
            "another nonce",
            ["Signature-Input", "disagrees"],
            Parts { nonce: Some("0123456789abcdef"), ..right() },
        ),
        ("another body", ["Content-Digest", "disagrees"], Parts { digest_of: Some(b"{}"), ..right() }),
        ("another host", ["Signature", "disagrees"], Parts { authority: Some("other.example"), ..right() }),
        (
            "another algorithm",
            ["Signature-Input", "disagrees"],
            Parts { more: ";alg=\"ecdsa-p256-sha256\"", ..right() },
        ),
    ];
    for (what, fault, parts) in wrong {
        let (refused, _) = server
            .refused(&mut party, &signed(&server, &issuing(), &good, &parts), Code::BadRequestSignature)
            .await;
        assert_eq!(at_fault(&refused), fault, "{what}");
    }
    server.refused(&mut party, &signed(&server, &issuing(), &bad, &right()), Code::BadRequestSignature).await;
    server.refused(&mut party, &issuing(), Code::BadRequestSignature).await;
    let right_one = signed(&server, &issuing(), &good, &right());
    for (header, value, fault) in [
        ("signature", "sig=:AAAA:", ["Signature", "disagrees"]),
        ("signature", "other=:AAAA:", ["Signature", "combination"]),
        ("signature", "sig=1", ["Signature", "type"]),
        ("signature", "(((", ["Signature", "pattern"]),
        ("signature-input", "sig", ["Signature-Input", "count"]),
        ("signature-input", "sig=(\"@method\"", ["Signature-Input", "pattern"]),
        ("content-digest", "sha-256=1", ["Content-Digest", "disagrees"]),
        ("content-digest", "md5=:AAAA:", ["Content-Digest", "one-of"]),
    ] {
        let call = right_one.clone().header(header, value);
        let (refused, _) = server.refused(&mut party, &call, Code::BadRequestSignature).await;
        assert_eq!(at_fault(&refused), fault, "{header}: {value}");
    }
    // A signature of one request carries no other.
    let other = issuing();
    server
        .refused(&mut party, &right_one.clone().with_body(other.body.clone()), Code::BadRequestSignature)
        .await;
    let elsewhere = right_one.clone().key(&key());
    server.refused(&mut party, &elsewhere, Code::BadRequestSignature).await;
    let (first_time, _) = server.permitted(&mut party, &right_one).await;
    assert_eq!(party.send(&right_one).await.expect(201).receipt().index, first_time.receipt().index);
}
