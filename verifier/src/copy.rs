//! Annotated copies (加注件): the copy's own digest, and the original's, which the copy names and leaves as it is.
//!
//! The exchange makes the digest, and anyone checks a copy. Pure functions; nothing to lose.

use crate::{
    Hash,
    license::{LicenseContent, OpenedEnvelope, read_body},
    report::{Reason, Report},
    sha256,
    trace::Digest,
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Names what is hashed.
const DOMAIN: &[u8] = b"miaoxiang copy v1\0";

/// The digest of a copy of an original with this identity: over each of its texts by JSON pointer, in the order of the pointers'
/// bytes. The pointers are `/identifier`, `/fields/…` and `/annotation/…`; the digests themselves are none.
pub fn digest(original: &Hash, texts: &BTreeMap<String, &str>) -> Hash {
    let mut bytes = [DOMAIN, original].concat();
    for part in texts.iter().flat_map(|(pointer, text)| [pointer.as_str(), text]) {
        bytes.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    sha256(&[&bytes])
}

/// Whether an answer is a copy.
pub fn is_copy(answer: &Value) -> bool {
    answer.get("annotation").is_some()
}

/// Checks a copy: its own digest and, if the original's signed bytes are at hand, that it is of them and shows nothing else.
/// Fields in `masked` may hide characters of the original, and show no others.
pub fn check(copy: &Value, original: Option<&OpenedEnvelope<'_>>, report: &mut Report) {
    let wrong = |report: &mut Report, detail: &str| report.add(Reason::CopyMismatch, detail);
    let named = |name: &str| {
        let value = copy.get("annotation")?.get(name)?.clone();
        serde_json::from_value::<Digest>(value).ok().map(|Digest(digest)| digest)
    };
    let (Some(own), Some(of)) = (named("digest"), named("originalDigest")) else {
        return wrong(report, "the copy names no digest of its own and of the original");
    };
    let Some(texts) = texts(copy) else { return wrong(report, "the copy is not of texts") };
    if digest(&of, &texts) != own {
        return wrong(report, "the copy's digest is another: something in it was changed");
    }
    // Whoever changes a copy can make its digest anew: its receipt alone proves that the exchange gave it.
    report.not_checked.push("annotation");
    let Some(original) = original else { return report.checked.push("copy") };
    if original.body_digest() != of {
        return wrong(report, "the copy is of another original");
    }
    match read_body(original.body()) {
        Ok(content) if shows(copy, &content) => report.checked.push("copy"),
        Ok(_) | Err(_) => wrong(report, "the copy shows what the original does not say"),
    }
}

/// The texts of a copy by pointer; `None` if a part that is hashed is no text.
fn texts(copy: &Value) -> Option<BTreeMap<String, &str>> {
    let mut texts = BTreeMap::new();
    texts.insert("/identifier".to_owned(), copy.get("identifier")?.as_str()?);
    for part in ["fields", "annotation"] {
        for (name, value) in copy.get(part)?.as_object()? {
            if part == "annotation" && matches!(name.as_str(), "digest" | "originalDigest") {
                continue;
            }
            texts.insert(format!("/{part}/{name}"), value.as_str()?);
        }
    }
    Some(texts)
}

/// Whether a masked value shows characters of the original's alone, in their order.
fn is_masked(shown: &str, said: &str) -> bool {
    let mut rest = said.chars();
    shown.contains('*') && shown.chars().filter(|one| *one != '*').all(|one| rest.any(|other| other == one))
}

/// Whether a copy shows of a license what stands in it, but for the fields that it names as masked.
fn shows(copy: &Value, content: &LicenseContent) -> bool {
    let masked = |name: &String| {
        let names = copy.get("masked").and_then(Value::as_array);
        names.is_some_and(|names| names.iter().any(|one| one.as_str() == Some(name)))
    };
    let face = content.face();
    let says = |(name, value): (&String, &Value)| {
        let said = face.iter().find(|(known, _)| known == name);
        let shown = value.as_str().unwrap_or_default();
        said.is_some_and(|(_, said)| shown == said || masked(name) && is_masked(shown, said))
    };
    let identifier = content.identifier.to_string();
    copy.get("identifier").and_then(Value::as_str) == Some(&identifier)
        && copy
            .get("fields")
            .and_then(Value::as_object)
            .is_some_and(|fields: &Map<String, Value>| fields.iter().all(says))
}

#[cfg(test)]
mod tests {
    use super::is_masked;

    #[test]
    fn a_masked_value_shows_nothing_that_the_original_does_not_say() {
        assert!(is_masked("4401**********0006", "440106199710060006"));
        assert!(is_masked("****", "汉族"));
        assert!(is_masked("张*、李*", "张三、李四"));
        for (shown, said) in [
            ("440106199710060006", "440106199710060006"),
            ("李*", "张三"),
            ("0006*4401", "440106199710060006"),
        ] {
            assert!(!is_masked(shown, said), "{shown}");
        }
    }
}
