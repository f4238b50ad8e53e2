//! Assertions that hold and that do not: tokens of another implementation, and tokens signed here.
//!
//! Tests alone have this file. Nothing is written.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use schemas::codes::Reason;
use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use serde_json::{Value, json};

use super::{Asserted, KeySet, Keys, MAX_LIFE_SECONDS, Provider, SKEW_SECONDS, Subject};

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "miaoxiang.test";
const CALLER: &str = "91350100M000100Y43";
const NUMBER: &str = "44010619680523000X";

fn provider(keys: KeySet, levels: &[&str]) -> Provider {
    let levels = levels.iter().map(|level| (*level).to_owned()).collect();
    let provider = Provider::new(ISSUER.to_owned(), AUDIENCE.to_owned(), levels);
    provider.keys().replace(Keys::until(keys, NOW + 10_000));
    provider
}

fn check(provider: &Provider, token: &str, now: u64) -> Result<Asserted, Reason> {
    let (caller, holder) = (caller(), holder(NUMBER));
    provider.check(token, &caller, Subject::Holder(&holder), now)
}

fn caller() -> Uscc {
    CALLER.parse().expect("a USCC")
}

fn holder(number: &str) -> HolderRef {
    HolderRef::new("111", number).expect("a holder")
}

/// Tokens and keys that PyJWT made.
#[test]
fn tokens_of_another_implementation_are_read_under_the_one_algorithm_of_their_key() {
    let vectors: Value = serde_json::from_str(include_str!("vectors.json")).expect("JSON");
    let keys = KeySet::parse(vectors["jwks"].to_string().as_bytes()).expect("keys");
    let provider = provider(keys, &[]);
    let token = |name: &str| vectors["tokens"][name].as_str().expect("a token");
    for name in ["RS256", "PS256", "ES256", "ES384", "EdDSA"] {
        let asserted = check(&provider, token(name), NOW).expect(name);
        assert_eq!((&*asserted.id, &*asserted.level, asserted.assurance), ("one", "high", 1));
    }
    for (name, reason) in [
        ("none", Reason::AssertionKey),
        ("HS256 under a public key", Reason::AssertionKey),
        ("PS256 under the key of RS256", Reason::AssertionKey),
        ("no kid", Reason::AssertionKey),
        ("unknown kid", Reason::AssertionKey),
        ("RS256 of 1024 bits", Reason::AssertionForged),
        ("crit", Reason::AssertionMalformed),
        ("typ", Reason::AssertionMalformed),
        ("user", Reason::AssertionSubject),
    ] {
        assert_eq!(check(&provider, token(name), NOW), Err(reason), "{name}");
    }
    let user = |name| provider.check(token("user"), &caller(), Subject::User(name), NOW);
    assert_eq!(user("经办人").map(|asserted| asserted.id), Ok("two".to_owned()));
    assert_eq!(user("别人"), Err(Reason::AssertionSubject));
    // A bit of any part makes it another token.
    let good = token("ES256");
    for place in (0..good.len()).step_by(7).filter(|place| good.as_bytes()[*place] != b'.') {
        let other = if good.as_bytes()[place] == b'A' { "B" } else { "A" };
        let mut forged = good.to_owned();
        forged.replace_range(place..=place, other);
        assert!(check(&provider, &forged, NOW).is_err(), "{place}");
    }
    for cut in ["", ".", "..", "a.b", "a.b.c", "a.b.c.d", &good[..good.len() - 1]] {
        assert!(check(&provider, cut, NOW).is_err(), "{cut}");
    }
}

/// A key pair, its set, and what it signs.
struct Signer(EcdsaKeyPair);

impl Signer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random);
        Self(key.expect("a key"))
    }

    fn keys(&self) -> KeySet {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (BASE64URL.encode(x), BASE64URL.encode(y));
        let set = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "x": x, "y": y}]});
        KeySet::parse(set.to_string().as_bytes()).expect("a set")
    }

    fn sign(&self, claims: &Value) -> String {
        let header = BASE64URL.encode(r#"{"alg":"ES256","kid":"k"}"#);
        let signed = format!("{header}.{}", BASE64URL.encode(claims.to_string()));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", BASE64URL.encode(signature))
    }
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": [AUDIENCE, "others"], "azp": CALLER, "iat": NOW, "exp": NOW + 600, "jti": "x", "acr": "low",
        "holder": {"typeCode": "111", "number": NUMBER}})
}

#[test]
fn each_claim_is_checked() {
    let signer = Signer::new();
    let provider = provider(signer.keys(), &["low", "high"]);
    let with = |member: &str, value: Value| {
        let mut claims = claims();
        if value.is_null() {
            claims.as_object_mut().expect("an object").remove(member);
        } else {
            claims[member] = value;
        }
        check(&provider, &signer.sign(&claims), NOW)
    };
    assert_eq!(with("jti", json!("y")).map(|asserted| asserted.assurance), Ok(1));
    assert_eq!(with("acr", json!("high")).map(|asserted| asserted.assurance), Ok(2));
    for (member, value, reason) in [
        ("iss", json!("https://other.example"), Reason::AssertionAudience),
        ("aud", json!("others"), Reason::AssertionAudience),
        ("azp", json!("91350100M000100Y4X"), Reason::AssertionAudience),
        ("azp", Value::Null, Reason::AssertionMalformed),
        ("aud", Value::Null, Reason::AssertionMalformed),
        ("exp", Value::Null, Reason::AssertionMalformed),
        ("iat", Value::Null, Reason::AssertionMalformed),
        ("jti", Value::Null, Reason::AssertionMalformed),
        ("jti", json!(""), Reason::AssertionMalformed),
        ("exp", json!("tomorrow"), Reason::AssertionMalformed),
        ("exp", json!(-1), Reason::AssertionMalformed),
        ("exp", json!(NOW - SKEW_SECONDS), Reason::AssertionExpired),
        ("exp", json!(NOW + MAX_LIFE_SECONDS + 1), Reason::AssertionExpired),
        ("nbf", json!(NOW + SKEW_SECONDS + 1), Reason::AssertionEarly),
        ("iat", json!(NOW + SKEW_SECONDS + 1), Reason::AssertionEarly),
        ("acr", json!("medium"), Reason::AssertionLevel),
        ("acr", Value::Null, Reason::AssertionLevel),
        ("holder", Value::Null, Reason::AssertionSubject),
        ("holder", json!({"typeCode": "111", "number": "340102199710060006"}), Reason::AssertionSubject),
        ("holder", json!({"typeCode": "111", "number": "1"}), Reason::AssertionSubject),
    ] {
        assert_eq!(with(member, value.clone()), Err(reason), "{member} {value}");
    }
    // The clocks may differ by the skew, and by no second more.
    assert!(with("exp", json!(NOW - SKEW_SECONDS + 1)).is_ok());
    assert!(with("iat", json!(NOW + SKEW_SECONDS)).is_ok());
}

#[test]
fn old_keys_are_taken_until_their_end_and_none_before_the_first() {
    let signer = Signer::new();
    let provider = Provider::new(ISSUER.to_owned(), AUDIENCE.to_owned(), Vec::new());
    let token = signer.sign(&claims());
    assert_eq!(check(&provider, &token, NOW), Err(Reason::IdentityUnavailable));
    provider.keys().replace(Keys::until(signer.keys(), NOW));
    assert!(check(&provider, &token, NOW).is_ok());
    assert_eq!(check(&provider, &token, NOW + 1), Err(Reason::IdentityUnavailable));
    // A key that took its place is the only one.
    provider.keys().replace(Keys::until(Signer::new().keys(), NOW));
    assert_eq!(check(&provider, &token, NOW), Err(Reason::AssertionForged));
}

#[test]
fn a_set_without_a_usable_key_is_refused() {
    for wrong in ["", "[]", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","kid":"a","k":"AA"}]}"#] {
        assert!(KeySet::parse(wrong.as_bytes()).is_err(), "{wrong}");
    }
    // An encryption key, a key that says another algorithm than its curve's, a point of the wrong length.
    let key = |more: Value| {
        let mut key = json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": BASE64URL.encode([7; 32])});
        for (name, value) in more.as_object().expect("an object") {
            key[name] = value.clone();
        }
        KeySet::parse(json!({"keys": [key]}).to_string().as_bytes())
    };
    assert!(key(json!({})).is_ok());
    for wrong in [json!({"use": "enc"}), json!({"alg": "ES256"}), json!({"x": BASE64URL.encode([7; 31])})] {
        assert!(key(wrong).is_err());
    }
}
