//! Envelopes that must not pass: each is answered `invalid` or `unknown` with its reason, journaled and counted.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use schemas::codes::Code;
use schemas::identifier::{CertificateIdentifier, LicenseTypeCode, Uscc};
use schemas::routes::Route;
use schemas::synthetic::Synthetic;
use serde_json::json;
use tests::{
    Call, Draft, Issued, Party, Server, Setup, Turn, draft, legal, natural, now_ms, shared, use_context,
};
use verifier::leaf::Labels;
use verifier::license::{
    BodyHolder, LicenseContent, OpenedEnvelope, SignatureParts, encode_body, encode_envelope,
};
use verifier::merkle::{BatchTree, leaf_hash};
use verifier::signature::{Suite, key_id, message, normalise, spki, suites};
use verifier::trust::{RequiredSuite, TrustBundle, TrustIssuer, TrustKey};

/// A moment long past, seconds since 1970: where ended keys end.
const LONG_AGO: u64 = 1_700_000_000;

/// An authority that only this test has the keys of.
struct Authority {
    organisation: Uscc,
    ed25519: Ed25519KeyPair,
    es256: EcdsaKeyPair,
}

impl Authority {
    fn new(seed: u64) -> Self {
        let random = SystemRandom::new();
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let es256 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self {
            organisation: Synthetic::new(seed).uscc(),
            ed25519: Ed25519KeyPair::from_pkcs8(ed25519.as_ref()).unwrap(),
            es256: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, es256.as_ref(), &random)
                .unwrap(),
        }
    }

    fn spki(&self, suite: Suite) -> Vec<u8> {
        let key = match suite {
            Suite::Ed25519 => self.ed25519.public_key().as_ref(),
            _ => self.es256.public_key().as_ref(),
        };
        spki(suite, key).unwrap()
    }

    fn trust_key(&self, suite: Suite, from: u64, until: u64) -> TrustKey {
        let spki = self.spki(suite);
        TrustKey {
            suite: suite.number(),
            key_id: key_id(&spki),
            spki,
            from,
            until,
            compromised_at_size: None,
        }
    }

    fn signature(
        &self,
        suite: Suite,
        of: &[Suite],
        size: u64,
        index: u64,
        path: Vec<[u8; 32]>,
        root: [u8; 32],
    ) -> SignatureParts {
        let message = message(suite, &suites(of.iter().map(|suite| suite.number())).unwrap(), size, &root);
        let mut value = match suite {
            Suite::Ed25519 => self.ed25519.sign(&message).as_ref().to_vec(),
            _ => self.es256.sign(&SystemRandom::new(), &message).unwrap().as_ref().to_vec(),
        };
        normalise(suite, &mut value);
        SignatureParts { suite: suite.number(), key_id: key_id(&self.spki(suite)), size, index, path, value }
    }

    fn single(&self, suite: Suite, body: &[u8]) -> SignatureParts {
        self.signature(suite, &[suite], 1, 0, Vec::new(), leaf_hash(body))
    }

    /// The signatures of an envelope with both suites.
    fn both(&self, body: &[u8]) -> [SignatureParts; 2] {
        let of = [Suite::Ed25519, Suite::Es256];
        of.map(|suite| self.signature(suite, &of, 1, 0, Vec::new(), leaf_hash(body)))
    }
}

/// Issuers of the trust bundle beside the development one.
struct World {
    /// Its key is good for the natural type only.
    good: Authority,
    /// Its key has ended.
    ended: Authority,
    /// Its key has not begun.
    early: Authority,
    /// It must sign with two suites since long ago.
    both: Authority,
    /// Its key was compromised before anything here was issued.
    leaked: Authority,
    /// Not in the bundle.
    foreign: Authority,
}

impl World {
    fn new() -> Self {
        let [good, ended, early, both, leaked, foreign] = [101, 102, 103, 104, 105, 106].map(Authority::new);
        Self { good, ended, early, both, leaked, foreign }
    }

    fn entries(&self) -> Vec<TrustIssuer> {
        let far = 4_000_000_000;
        let issuer = |authority: &Authority, suites: &[(Suite, u64)], keys: Vec<TrustKey>| TrustIssuer {
            organisation: authority.organisation,
            name: "测试机关".to_owned(),
            types: vec![natural().code],
            required_suites: suites
                .iter()
                .map(|(suite, from)| RequiredSuite { suite: suite.number(), from: *from })
                .collect(),
            keys,
        };
        let ed = |authority: &Authority, from, until| authority.trust_key(Suite::Ed25519, from, until);
        let one: &[(Suite, u64)] = &[(Suite::Ed25519, 0)];
        let two: &[(Suite, u64)] = &[(Suite::Ed25519, 0), (Suite::Es256, LONG_AGO)];
        let mut compromised = ed(&self.leaked, 0, far);
        compromised.compromised_at_size = Some(1);
        vec![
            issuer(&self.good, one, vec![ed(&self.good, 0, far)]),
            issuer(&self.ended, one, vec![ed(&self.ended, 0, LONG_AGO)]),
            issuer(&self.early, one, vec![ed(&self.early, far - 1, far)]),
            issuer(&self.both, two, vec![ed(&self.both, 0, far), self.both.trust_key(Suite::Es256, 0, far)]),
            issuer(&self.leaked, one, vec![compromised]),
        ]
    }
}

/// A body of a license of nobody.
fn body_of(draft: &Draft, type_code: LicenseTypeCode, issuer: Uscc, issued_at: u64) -> Vec<u8> {
    let license = &draft.license;
    let content = LicenseContent {
        identifier: CertificateIdentifier::new(type_code, issuer, draft.serial.parse().unwrap(), 1).unwrap(),
        certificate_number: license.certificate_number.clone(),
        issuer_name: "测试机关".to_owned(),
        holders: license
            .holders
            .iter()
            .map(|(name, holder)| BodyHolder {
                name: name.clone(),
                type_code: holder.type_code().as_str().to_owned(),
                number: holder.number().to_owned(),
                as_registered: holder.is_as_registered(),
            })
            .collect(),
        issue_date: license.issue_date,
        valid_from: license.valid_from,
        valid_until: license.valid_until,
        issued_at,
        fields: license.fields.clone(),
    };
    encode_body(&content, &[7; 16])
}

fn body(authority: &Authority, issued_at: u64) -> Vec<u8> {
    body_of(&draft(&natural()), natural().code, authority.organisation, issued_at)
}

fn now() -> u64 {
    now_ms() / 1_000
}

fn verify(envelope: &[u8]) -> Call {
    Call::new(Route::Verify, &json!({"license": {"envelope": BASE64.encode(envelope)}, "use": use_context()}))
}

async fn server(world: &World) -> Server {
    let entries = world.entries();
    Setup::new().bundle(move |bundle: &mut TrustBundle| bundle.issuers.extend(entries)).start().await
}

/// Posts an envelope and checks verdict and reason, entry and metric together.
async fn judged(server: &Server, party: &mut Party, envelope: &[u8], verdict: &str, reason: &str) {
    let (reply, _) = server.permitted(party, &verify(envelope)).await;
    let reasons = reply.json["reasons"].as_array().unwrap();
    assert_eq!(reply.json["verdict"], json!(verdict), "{reason}: {}", reply.json);
    assert!(reasons.contains(&json!(reason)), "{reason}: {}", reply.json);
}

#[tokio::test]
async fn a_signature_counts_only_by_the_right_key_at_the_right_time_for_the_right_type() {
    let world = World::new();
    let server = server(&world).await;
    let mut bank = server.party("bank");
    let World { good, ended, early, both, leaked, foreign } = &world;
    let ed = Suite::Ed25519;

    // What is signed well, and is not in the register of this exchange, is neither valid nor invalid.
    let bytes = body(good, now());
    judged(
        &server,
        &mut bank,
        &encode_envelope(&bytes, &[good.single(ed, &bytes)]),
        "unknown",
        "status-not-known",
    )
    .await;

    let mut rows: Vec<(&str, &str, Vec<u8>)> = Vec::new();
    let mut row = |verdict, reason, bytes: &[u8], signatures: &[SignatureParts]| {
        rows.push((verdict, reason, encode_envelope(bytes, signatures)));
    };
    let by = |authority: &Authority, bytes: &[u8]| vec![authority.single(ed, bytes)];
    row("invalid", "unknown-signer", &bytes, &by(foreign, &bytes));
    row("invalid", "issuer-mismatch", &bytes, &by(both, &bytes));
    row("invalid", "required-suite-missing", &bytes, &[]);
    let mut wrong = good.single(ed, &bytes);
    wrong.value[10] ^= 1;
    row("invalid", "bad-signature", &bytes, &[wrong]);
    let other = body(good, now());
    row("invalid", "bad-signature", &bytes, &by(good, &other));
    // Two signatures of one suite are no form of an envelope, be both good.
    row("invalid", "malformed-envelope", &bytes, &[good.single(ed, &bytes), good.single(ed, &bytes)]);
    let unknown_issuer = body(foreign, now());
    row("unknown", "no-trust-for-issuer", &unknown_issuer, &by(foreign, &unknown_issuer));
    let type_of_others = body_of(&draft(&legal()), legal().code, good.organisation, now());
    row("invalid", "not-entitled-to-type", &type_of_others, &by(good, &type_of_others));
    for (authority, issued_at, reason) in [
        (ended, LONG_AGO, "key-past-end"),
        (ended, now(), "key-past-end"),
        (early, now(), "key-not-yet-valid"),
    ] {
        let bytes = body(authority, issued_at);
        row("invalid", reason, &bytes, &by(authority, &bytes));
    }
    let bytes = body(leaked, now());
    row("unknown", "key-compromised", &bytes, &by(leaked, &bytes));
    let bytes = body(both, now());
    row("invalid", "required-suite-missing", &bytes, &by(both, &bytes));
    row("invalid", "required-suite-missing", &bytes, &[both.single(Suite::Es256, &bytes)]);
    let [first, second] = both.both(&bytes);
    row("invalid", "malformed-envelope", &bytes, &[second.clone(), first.clone()]);
    row("invalid", "bad-signature", &bytes, &[first]);
    row("invalid", "bad-signature", &bytes, &[second]);
    for (verdict, reason, envelope) in rows {
        judged(&server, &mut bank, &envelope, verdict, reason).await;
    }

    // In its time a key is good for ever, and a suite is required only from its start on.
    let bytes = body(ended, LONG_AGO - 1);
    judged(&server, &mut bank, &encode_envelope(&bytes, &by(ended, &bytes)), "unknown", "status-not-known")
        .await;
    let bytes = body(both, LONG_AGO - 1);
    judged(&server, &mut bank, &encode_envelope(&bytes, &by(both, &bytes)), "unknown", "status-not-known")
        .await;
    let bytes = body(both, LONG_AGO);
    judged(&server, &mut bank, &encode_envelope(&bytes, &both.both(&bytes)), "unknown", "status-not-known")
        .await;
}

#[tokio::test]
async fn a_path_of_a_batch_holds_for_its_own_leaf_alone() {
    let world = World::new();
    let server = server(&world).await;
    let mut bank = server.party("bank");
    let good = &world.good;
    let bodies: Vec<Vec<u8>> = (0..5).map(|_| body(good, now())).collect();
    let tree = BatchTree::new(bodies.iter().map(|body| leaf_hash(body)).collect());
    let signed = |position: usize| {
        good.signature(
            Suite::Ed25519,
            &[Suite::Ed25519],
            5,
            position as u64,
            tree.path(position),
            tree.root(),
        )
    };
    for (position, body) in bodies.iter().enumerate() {
        let envelope = encode_envelope(body, &[signed(position)]);
        judged(&server, &mut bank, &envelope, "unknown", "status-not-known").await;
    }
    let parts = signed(1);
    let change = |change: &dyn Fn(&mut SignatureParts)| {
        let mut parts = parts.clone();
        change(&mut parts);
        encode_envelope(&bodies[1], &[parts])
    };
    for (reason, envelope) in [
        ("bad-signature", change(&|p| p.index = 2)),
        ("bad-signature", change(&|p| p.index = 0)),
        ("bad-path", change(&|p| p.index = 4)),
        ("bad-path", change(&|p| p.index = 5)),
        ("bad-path", change(&|p| p.index = u64::MAX)),
        ("bad-signature", change(&|p| p.size = 6)),
        ("bad-signature", change(&|p| p.size = 8)),
        ("bad-path", change(&|p| p.size = 4)),
        ("bad-path", change(&|p| p.size = 0)),
        ("bad-path", change(&|p| p.size = 1)),
        ("bad-path", change(&|p| p.size = u64::MAX)),
        ("bad-path", change(&|p| p.path.clear())),
        ("bad-path", change(&|p| p.path.truncate(p.path.len() - 1))),
        ("bad-path", change(&|p| p.path.push([0; 32]))),
        ("bad-path", change(&|p| p.path.resize(63, [0; 32]))),
        ("malformed-envelope", change(&|p| p.path.resize(64, [0; 32]))),
        ("bad-signature", change(&|p| p.path.swap(0, 1))),
        ("bad-signature", encode_envelope(&bodies[2], std::slice::from_ref(&parts))),
    ] {
        judged(&server, &mut bank, &envelope, "invalid", reason).await;
    }
}

/// A server with one license, its envelope and a caller.
async fn issued() -> (Turn, Vec<u8>, Party) {
    let server = shared(Setup::new).await;
    let issued = draft(&natural()).issue(&mut server.party("issuer")).await;
    let bank = server.party("bank");
    (server, issued.envelope, bank)
}

#[tokio::test]
async fn no_flipped_bit_passes() {
    let (server, envelope, mut bank) = issued().await;
    let (reply, _) = server.permitted(&mut bank, &verify(&envelope)).await;
    assert_eq!(reply.json["verdict"], json!("valid"));
    // Every byte of the head and the tail, every seventh between, another bit each time.
    let length = envelope.len();
    let places = (0..length).filter(|place| *place < 64 || *place % 7 == 0 || *place + 64 > length);
    let mut connection = bank.again();
    for place in places {
        let mut flipped = envelope.clone();
        flipped[place] ^= 1 << (place % 8);
        let reply = connection.send(&verify(&flipped)).await.expect(200);
        assert_ne!(reply.json["verdict"], json!("valid"), "bit {} of byte {place}", place % 8);
    }
    let mut flipped = envelope.clone();
    flipped[length / 2] ^= 1;
    let (reply, _) = server.permitted(&mut bank, &verify(&flipped)).await;
    assert_eq!(reply.json["verdict"], json!("invalid"));
}

#[tokio::test]
async fn bytes_before_behind_and_missing_are_noticed() {
    let (server, envelope, mut bank) = issued().await;
    let longer = |tail: &[u8]| [envelope.as_slice(), tail].concat();
    judged(&server, &mut bank, &longer(&[0]), "invalid", "trailing-bytes").await;
    judged(&server, &mut bank, &longer(&envelope), "invalid", "trailing-bytes").await;
    // The same, with the length said to cover them.
    for tail in [&[0; 4][..], &[0; 1], b"hidden!!"] {
        let mut longer = longer(tail);
        let length = u32::try_from(longer.len() - 4).unwrap();
        longer[..4].copy_from_slice(&length.to_le_bytes());
        judged(&server, &mut bank, &longer, "invalid", "malformed-envelope").await;
    }
    for cut in [0, 1, 4, 8, envelope.len() / 2, envelope.len() - 1] {
        judged(&server, &mut bank, &envelope[..cut], "invalid", "malformed-envelope").await;
    }
    let before = [&[0; 4], envelope.as_slice()].concat();
    judged(&server, &mut bank, &before, "invalid", "malformed-envelope").await;
}

#[tokio::test]
async fn buffers_made_to_exhaust_the_reader_are_refused() {
    let world = World::new();
    let server = server(&world).await;
    let mut bank = server.party("bank");
    let bytes = body(&world.good, now());
    let one = world.good.single(Suite::Ed25519, &bytes);
    for count in [9, 100, 600] {
        let envelope = encode_envelope(&bytes, &vec![one.clone(); count]);
        judged(&server, &mut bank, &envelope, "invalid", "malformed-envelope").await;
    }
    // Every offset and length of the buffer in turn says far more than there is.
    let envelope = encode_envelope(&bytes, std::slice::from_ref(&one));
    let mut connection = bank.again();
    for word in 0..envelope.len() / 4 {
        for value in [u32::MAX, 0x7fff_ffff, 0] {
            let mut huge = envelope.clone();
            huge[word * 4..word * 4 + 4].copy_from_slice(&value.to_le_bytes());
            if huge == envelope {
                continue;
            }
            let reply = connection.send(&verify(&huge)).await.expect(200);
            assert_eq!(reply.json["verdict"], json!("invalid"), "word {word} = {value}");
        }
    }
    // Bodies: not a buffer, another buffer, empty.
    for body in [&b""[..], b"not a body", &envelope, &[0; 10_000]] {
        let envelope = encode_envelope(body, &[world.good.single(Suite::Ed25519, body)]);
        judged(&server, &mut bank, &envelope, "invalid", "malformed-body").await;
    }
    // What is longer than a request may be does not come near the reader.
    let call = verify(&vec![0; 220 << 10]);
    server.refused(&mut bank, &call, Code::BodyTooLarge).await;
    for text in ["%%%", "AAA", "QUJD\n"] {
        let call = Call::new(Route::Verify, &json!({"license": {"envelope": text}, "use": use_context()}));
        server.refused(&mut bank, &call, Code::BadEnvelope).await;
    }
}

#[tokio::test]
async fn bytes_that_their_issuer_did_not_sign_tell_nothing_of_the_register() {
    let world = World::new();
    let server = server(&world).await;
    let issued = draft(&natural()).issue(&mut server.party("issuer")).await;
    let mut bank = server.party("bank");
    let known = OpenedEnvelope::open(&issued.envelope).unwrap();
    // The issuer's own key, of a suite that nobody can check: what it says is the forger's.
    let forged = |body: &[u8]| {
        let mut signature = world.good.single(Suite::Ed25519, body);
        signature.suite = 9;
        encode_envelope(body, &[signature])
    };
    let there = forged(known.body());
    let nowhere = forged(&body_of(&draft(&natural()), natural().code, issuer_of(&issued), now()));
    let mut answers = Vec::new();
    for envelope in [there, nowhere] {
        let (reply, entry) = server.permitted(&mut bank, &verify(&envelope)).await;
        assert_eq!(entry.open.labels, Labels::new(Vec::new()), "a holder is named to whoever guesses");
        answers.push((
            reply.json["verdict"].clone(),
            reply.json["reasons"].clone(),
            reply.json["state"].clone(),
        ));
    }
    assert_eq!(answers[0], answers[1]);
}

fn issuer_of(issued: &Issued) -> Uscc {
    let content =
        verifier::license::read_body(OpenedEnvelope::open(&issued.envelope).unwrap().body()).unwrap();
    content.identifier.issuer().uscc().unwrap()
}
