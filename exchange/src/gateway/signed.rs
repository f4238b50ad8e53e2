//! Request signatures (RFC 9421) over a digest of the body (RFC 9530): state changes of a participant with signing keys carry one.
//!
//! The path alone calls it. Nothing is kept: the nonce is the idempotency key, so a repeated request gets its first answer, also
//! after a restart.

use std::time::Duration;

use hyper::Uri;
use hyper::header::{HOST, HeaderMap, HeaderName};
use ring::digest;
use schemas::codes::{Code, Rule};
use sfv::{BareItem, Dictionary, InnerList, ListEntry, ListSerializer, Parser};

use crate::participant::Participant;
use crate::wire::refusal::{Fault, Refusal};

/// Longest that a signature is good for after it was made.
const GOOD_FOR: Duration = Duration::from_secs(300);
/// Furthest that the clock of a signer may be ahead.
const SKEW: Duration = Duration::from_secs(60);
/// Every part of a request that a signature covers, and no other: on these the libraries at hand agree.
const COVERED: [&str; 5] = ["@method", "@authority", "@path", "@query", "content-digest"];
const COVERED_FORM: &str =
    r#"("@method" "@authority" "@path" "@query" "content-digest");created=…;keyid="…";nonce="…""#;

const INPUT_NAME: &str = "Signature-Input";
const SIGNATURE_NAME: &str = "Signature";
const DIGEST_NAME: &str = "Content-Digest";
const INPUT: HeaderName = HeaderName::from_static("signature-input");
const SIGNATURE: HeaderName = HeaderName::from_static("signature");
const DIGEST: HeaderName = HeaderName::from_static("content-digest");
/// Port of `https` that an authority does not name.
const USUAL_PORT: &str = ":443";

/// The signature of a request, as its headers say it. Whether it holds depends on the keys of the caller.
#[derive(Clone, Debug)]
pub(super) struct Signed {
    key_id: String,
    algorithm: Option<String>,
    created: u64,
    expires: Option<u64>,
    /// The bytes that were signed: the signature base.
    base: Vec<u8>,
    signature: Vec<u8>,
}

fn fault(header: &'static str, rule: Rule) -> Fault {
    Fault::header(header, rule)
}

/// Reads what the headers say of a signature; `None` for a request without one.
///
/// # Errors
/// The header that cannot be read, covers something else, or does not fit the body or the idempotency key.
pub(super) fn read(
    uri: &Uri,
    method: &hyper::Method,
    headers: &HeaderMap,
    body: &[u8],
    idempotency_key: Option<&str>,
) -> Result<Option<Signed>, Fault> {
    if !headers.contains_key(INPUT) && !headers.contains_key(SIGNATURE) {
        return Ok(None);
    }
    let (inputs, signatures) =
        (dictionary(headers, &INPUT, INPUT_NAME)?, dictionary(headers, &SIGNATURE, SIGNATURE_NAME)?);
    let mut inputs = inputs.into_iter();
    let (Some((label, ListEntry::InnerList(covered))), None) = (inputs.next(), inputs.next()) else {
        return Err(fault(INPUT_NAME, Rule::Count).bounds(1, 1));
    };
    let signature = match (signatures.get(&label), signatures.len()) {
        (Some(ListEntry::Item(item)), 1) => match &item.bare_item {
            BareItem::ByteSequence(bytes) => bytes.clone(),
            _ => return Err(fault(SIGNATURE_NAME, Rule::Type).form("one byte sequence")),
        },
        _ => {
            return Err(
                fault(SIGNATURE_NAME, Rule::Combination).form("one signature, by the label of its input")
            );
        }
    };
    is_digest_of(headers, body)?;

    let text = |name: &str| match covered.params.get(name) {
        None => Ok(None),
        Some(BareItem::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(fault(INPUT_NAME, Rule::Type).form(COVERED_FORM)),
    };
    let seconds = |name: &str| match covered.params.get(name) {
        None => Ok(None),
        Some(BareItem::Integer(seconds)) => match u64::try_from(i64::from(*seconds)) {
            Ok(seconds) => Ok(Some(seconds)),
            Err(_) => Err(fault(INPUT_NAME, Rule::Range)),
        },
        Some(_) => Err(fault(INPUT_NAME, Rule::Type).form(COVERED_FORM)),
    };
    let required = || fault(INPUT_NAME, Rule::Required).form(COVERED_FORM);
    let key_id = text("keyid")?.ok_or_else(required)?.to_owned();
    let created = seconds("created")?.ok_or_else(required)?;
    let nonce = text("nonce")?.ok_or_else(required)?;
    if idempotency_key != Some(nonce) {
        return Err(fault(INPUT_NAME, Rule::Disagrees).form("a nonce that is the Idempotency-Key"));
    }
    let (algorithm, expires) = (text("alg")?.map(str::to_owned), seconds("expires")?);
    let base = base(uri, method, headers, covered)?;
    Ok(Some(Signed { key_id, algorithm, created, expires, base, signature }))
}

/// The lines of a header as one dictionary (RFC 9651).
fn dictionary(headers: &HeaderMap, header: &HeaderName, name: &'static str) -> Result<Dictionary, Fault> {
    let lines: Result<Vec<_>, _> = headers.get_all(header).iter().map(|value| value.to_str()).collect();
    let pattern = || fault(name, Rule::Pattern).form("a dictionary of structured fields (RFC 9651)");
    let joined = lines.map_err(|_| pattern())?.join(", ");
    if joined.is_empty() {
        return Err(fault(name, Rule::Required));
    }
    Parser::new(&joined).parse().map_err(|_| pattern())
}

/// Each digest of the body that we can make is right, and there is one.
fn is_digest_of(headers: &HeaderMap, body: &[u8]) -> Result<(), Fault> {
    let digests = dictionary(headers, &DIGEST, DIGEST_NAME)?;
    let mut known = 0;
    for (name, algorithm) in [("sha-256", &digest::SHA256), ("sha-512", &digest::SHA512)] {
        let Some(entry) = digests.get(name) else { continue };
        let is_right = matches!(entry, ListEntry::Item(item)
            if matches!(&item.bare_item, BareItem::ByteSequence(bytes) if bytes == digest::digest(algorithm, body).as_ref()));
        if !is_right {
            return Err(fault(DIGEST_NAME, Rule::Disagrees));
        }
        known += 1;
    }
    if known == 0 { Err(fault(DIGEST_NAME, Rule::OneOf).one_of(["sha-256", "sha-512"])) } else { Ok(()) }
}

/// The signature base (RFC 9421, 2.5): a line for each part that is covered, in the order of its input.
fn base(
    uri: &Uri,
    method: &hyper::Method,
    headers: &HeaderMap,
    covered: InnerList,
) -> Result<Vec<u8>, Fault> {
    let other = || fault(INPUT_NAME, Rule::OneOf).form(COVERED_FORM);
    let mut left = COVERED.to_vec();
    let mut base = String::new();
    for item in &covered.items {
        let BareItem::String(name) = &item.bare_item else { return Err(other()) };
        let place = left.iter().position(|part| *part == name.as_str()).ok_or_else(other)?;
        if !item.params.is_empty() {
            return Err(other());
        }
        let name = left.swap_remove(place);
        let value = match name {
            "@method" => method.as_str().to_owned(),
            "@authority" => authority(uri, headers),
            "@path" => {
                if uri.path().is_empty() {
                    "/".to_owned()
                } else {
                    uri.path().to_owned()
                }
            }
            "@query" => format!("?{}", uri.query().unwrap_or_default()),
            _ => {
                let lines = headers.get_all(DIGEST).iter().filter_map(|value| value.to_str().ok());
                lines.map(str::trim).collect::<Vec<_>>().join(", ")
            }
        };
        base.push_str(&format!("\"{name}\": {value}\n"));
    }
    if !left.is_empty() {
        return Err(other());
    }
    let mut parameters = ListSerializer::new();
    parameters.members([&ListEntry::InnerList(covered)]);
    base.push_str("\"@signature-params\": ");
    base.push_str(&parameters.finish().unwrap_or_default());
    Ok(base.into_bytes())
}

/// The authority that the client called, in small letters, without the usual port.
fn authority(uri: &Uri, headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let named = uri
        .authority()
        .map(hyper::http::uri::Authority::as_str)
        .or(host)
        .unwrap_or_default()
        .to_ascii_lowercase();
    named.strip_suffix(USUAL_PORT).map(str::to_owned).unwrap_or(named)
}

/// Refuses a state change that a participant with signing keys did not sign. The first moment at which the signature no longer holds,
/// ms since 1970.
///
/// # Errors
/// [`Code::BadRequestSignature`], with the header that is missing or wrong.
pub(super) fn check(
    participant: &Participant,
    signed: Option<&Result<Signed, Fault>>,
    now_ms: u64,
) -> Result<u64, Refusal> {
    if participant.signing_keys.is_empty() {
        return Ok(u64::MAX);
    }
    let refused = |fault| Refusal::of(Code::BadRequestSignature, fault);
    let signed = match signed {
        None => return Err(refused(fault(INPUT_NAME, Rule::Required).form(COVERED_FORM))),
        Some(Err(fault)) => return Err(refused(fault.clone())),
        Some(Ok(signed)) => signed,
    };
    let now = now_ms / 1_000;
    if signed.created > now + SKEW.as_secs()
        || signed.created < now.saturating_sub(GOOD_FOR.as_secs())
        || signed.expires.is_some_and(|expires| expires < now)
    {
        let form = "created in the last 300 seconds, at most 60 ahead, and not expired";
        return Err(refused(fault(INPUT_NAME, Rule::Range).form(form)));
    }
    let key =
        participant.signing_keys.iter().find(|key| key.id == signed.key_id && now_ms < key.ends_at_ms());
    let Some(key) = key else {
        return Err(refused(fault(INPUT_NAME, Rule::Unknown).form("keyid of a registered key")));
    };
    if signed.algorithm.as_deref().is_some_and(|algorithm| algorithm != key.public_key.algorithm()) {
        return Err(refused(fault(INPUT_NAME, Rule::Disagrees).form("the algorithm of its key")));
    }
    if !key.public_key.verifies(&signed.base, &signed.signature) {
        return Err(refused(fault(SIGNATURE_NAME, Rule::Disagrees)));
    }
    let end = (signed.created + GOOD_FOR.as_secs()).min(signed.expires.unwrap_or(u64::MAX));
    Ok(end.saturating_add(1).saturating_mul(1_000).min(key.ends_at_ms()))
}
