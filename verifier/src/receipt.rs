//! Receipts (section 4): how an answer, its request and a leaf of the log belong together.

use crate::{
    Hash,
    leaf::{LeafKind, commitment, leaf_bytes},
    merkle,
};
use serde::{Deserialize, Serialize};

/// What stands before a receipt in an answer.
const MEMBER: &[u8] = br#","receipt":"#;

/// The receipt of one answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Origin of the log.
    pub log: String,
    /// Index of the entry's leaf.
    pub index: u64,
    /// Hash of the leaf.
    #[serde(rename = "leafHash", with = "base64_bytes")]
    pub leaf_hash: Hash,
    /// What the caller may know, encoded: see [`crate::leaf::Open`].
    #[serde(with = "base64_bytes")]
    pub open: Vec<u8>,
    /// Salt of the commitment.
    #[serde(with = "base64_bytes")]
    pub salt: Hash,
    /// Commitment to what only insiders know.
    #[serde(rename = "C", with = "base64_bytes")]
    pub c: Hash,
    /// Log proof as text ([`crate::proof::TlogProof`]), when it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
}

impl Receipt {
    /// Hash of the leaf that `open`, `salt` and `C` make.
    pub fn computed_leaf_hash(&self) -> Hash {
        let commitment = commitment(&self.salt, &self.open, &self.c);
        merkle::leaf_hash(&leaf_bytes(LeafKind::Entry, &commitment))
    }

    /// What the extra line of the entry's log proof holds: salt ‖ C ‖ open (section 5).
    pub fn extra(&self) -> Vec<u8> {
        [self.salt.as_slice(), &self.c, &self.open].concat()
    }
}

/// Why no receipt can be cut out of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// The answer has no member `receipt` at its end.
    #[error("the answer carries no receipt")]
    NoReceipt,
    /// The member is not a receipt.
    #[error("the receipt is malformed")]
    Malformed,
}

/// Cuts the receipt out of an answer: the bytes that the entry's answer digest covers, and the receipt.
///
/// Byte for byte: from the last `,"receipt":{` up to, and not including, the answer's final `}`.
///
/// # Errors
/// [`CutError`]
pub fn cut(answer: &[u8]) -> Result<(Vec<u8>, Receipt), CutError> {
    let close = answer.iter().rposition(|byte| *byte == b'}').ok_or(CutError::NoReceipt)?;
    let (body, end) = answer.split_at_checked(close).ok_or(CutError::NoReceipt)?;
    let start = body
        .windows(MEMBER.len().saturating_add(1))
        .rposition(|window| window.strip_prefix(MEMBER) == Some(b"{"))
        .ok_or(CutError::NoReceipt)?;
    let (hashed, member) = body.split_at_checked(start).ok_or(CutError::NoReceipt)?;
    let json = member.strip_prefix(MEMBER).ok_or(CutError::NoReceipt)?;
    let receipt = serde_json::from_slice(json).map_err(|_| CutError::Malformed)?;
    Ok(([hashed, end].concat(), receipt))
}

/// Writes the receipt into an answer as its last member. `answer` is a JSON object with at least one member; its
/// bytes stay as they are, so that [`cut`] gives them back.
pub fn attach(answer: &[u8], receipt: &Receipt) -> Vec<u8> {
    let close = answer.iter().rposition(|byte| *byte == b'}').unwrap_or(answer.len());
    let (body, end) = answer.split_at_checked(close).unwrap_or((answer, b""));
    let json = serde_json::to_vec(receipt).expect("a receipt is strings and numbers");
    [body, MEMBER, &json, end].concat()
}

/// Bytes as base64 text in JSON.
mod base64_bytes {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(
        bytes: impl AsRef<[u8]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<Vec<u8>>>(d: D) -> Result<T, D::Error> {
        let text = String::deserialize(d)?;
        let bytes = STANDARD.decode(text).map_err(|_| D::Error::custom("no base64"))?;
        bytes.try_into().map_err(|_| D::Error::custom("wrong length"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt() -> Receipt {
        Receipt {
            log: "log.example/1".to_owned(),
            index: 5,
            leaf_hash: [1; 32],
            open: vec![2; 3],
            salt: [3; 32],
            c: [4; 32],
            proof: Some("line\n\"quoted\",\"receipt\":{ }\n".to_owned()),
        }
    }

    #[test]
    fn members_stand_in_the_order_of_the_format() {
        let json = serde_json::to_string(&Receipt { proof: None, ..receipt() }).unwrap();
        assert_eq!(json.matches(':').count(), 6);
        assert!(json.starts_with(r#"{"log":"log.example/1","index":5,"leafHash":"AQEB"#), "{json}");
        assert!(json.contains(r#","open":"AgIC","salt":"AwMD"#) && json.contains(r#","C":"BAQE"#));
        assert_eq!(serde_json::from_str::<Receipt>(&json).unwrap().proof, None);
        let short = json.replace("AwMDAwMD", "AwMD");
        assert!(serde_json::from_str::<Receipt>(&short).is_err());
        assert!(serde_json::from_str::<Receipt>(&json.replace("\"log\"", "\"logs\"")).is_err());
    }

    #[test]
    fn what_is_attached_is_cut_out_again() {
        for answer in [
            &br#"{"verdict":"valid"}"#[..],
            b"{ \"a\" : [1, 2] }",
            br#"{"a":{"x":1,"receipt":{"log":"x"}}}"#,
            b"{\"a\":\"\xe4\xb8\xad\"}\n",
        ] {
            let with = attach(answer, &receipt());
            assert!(serde_json::from_slice::<serde_json::Value>(&with).is_ok());
            assert_eq!(cut(&with), Ok((answer.to_vec(), receipt())));
        }
    }

    #[test]
    fn answers_without_a_receipt_at_their_end_are_refused() {
        let with = attach(br#"{"a":1}"#, &receipt());
        let text = String::from_utf8(with).unwrap();
        for (answer, error) in [
            (String::new(), CutError::NoReceipt),
            (r#"{"a":1}"#.to_owned(), CutError::NoReceipt),
            (r#"{"a":1,"receipt":{}}"#.to_owned(), CutError::Malformed),
            (r#"{"a":1,"receipt":null}"#.to_owned(), CutError::NoReceipt),
            // A member smuggled in behind the receipt, or into it, is never outside the hash unnoticed.
            (text.replace("}}", r#"},"verdict":"valid"}"#), CutError::Malformed),
            (text.replace(r#""index":5"#, r#""index":5,"verdict":"valid""#), CutError::Malformed),
            (text.replace(r#""index":5"#, r#""index":5,"index":6"#), CutError::Malformed),
            (text.trim_end_matches('}').to_owned(), CutError::Malformed),
        ] {
            assert_eq!(cut(answer.as_bytes()).map(|_| ()), Err(error), "{answer}");
        }
    }
}
