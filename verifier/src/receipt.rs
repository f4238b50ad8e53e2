//! Receipts (section 4): how an answer, its request and a leaf of the log belong together.
//!
//! Pure functions; nothing to lose.

use crate::{
    Hash,
    checkpoint::Checkpoint,
    encoding::base64_bytes,
    json,
    leaf::{ActingFor, LeafKind, Open, Party, Stage, commitment, leaf_bytes},
    machine, merkle,
    note::{CosignerKey, SignedNote, WitnessKey},
    policy::Policy,
    proof::TlogProof,
    report::{Reason, ReceiptFacts, Report, WitnessFacts},
    sha256,
    trust::{Trust, TrustLog},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use schemas::{
    codes::{Code, Decision},
    date::rfc3339,
    routes::Route,
};
use serde::{Deserialize, Serialize};

/// The bytes before a receipt in an answer.
const MEMBER: &[u8] = br#","receipt":"#;

/// The name of cosignatures of type 0x06 in a report's list of what it did not check.
const ML_DSA_COSIGNATURES: &str = "ml-dsa-cosignatures";

/// A receipt in JSON without a proof is seldom longer.
const USUAL_BYTES: usize = 768;

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
    /// The part that the caller may know, encoded: see [`crate::leaf::Open`].
    #[serde(with = "base64_bytes")]
    pub open: Vec<u8>,
    /// Salt of the commitment.
    #[serde(with = "base64_bytes")]
    pub salt: Hash,
    /// Commitment to what only insiders know.
    #[serde(rename = "C", with = "base64_bytes")]
    pub c: Hash,
    /// Salt of the request digest. Only the requester gets it, and may cut it off before handing the receipt on: with it
    /// anyone can try which request it was.
    #[serde(
        rename = "requestSalt",
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_hash"
    )]
    pub request_salt: Option<Hash>,
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

    /// The extra line of the entry's log proof: salt ‖ C ‖ open (section 5).
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
/// In JSON, byte for byte: from the last `,"receipt":{` up to, and not including, the answer's final `}`.
///
/// # Errors
/// [`CutError`]
pub fn cut(answer: &[u8]) -> Result<(Vec<u8>, Receipt), CutError> {
    if machine::is_answer(answer) {
        return machine::cut(answer);
    }
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

/// The receipt of an answer that was written anew, such as by a pretty-printer: one that is a member of the answer, but does
/// not stand where [`cut`] finds it. The bytes that it is for cannot be had from such an answer.
pub fn in_reformatted(answer: &[u8]) -> Option<Receipt> {
    let mut answer = json::read(answer).ok().filter(|_| cut(answer).is_err())?;
    serde_json::from_value(answer.get_mut("receipt")?.take()).ok()
}

/// Writes the receipt into an answer as its last member. `answer` is a JSON object with at least one member; its
/// bytes stay as they are, so that [`cut`] gives them back.
pub fn attach(answer: &[u8], receipt: &Receipt) -> Vec<u8> {
    let close = answer.iter().rposition(|byte| *byte == b'}').unwrap_or(answer.len());
    let (body, end) = answer.split_at_checked(close).unwrap_or((answer, b""));
    let proof = receipt.proof.as_ref().map_or(0, String::len);
    let mut whole = Vec::with_capacity(answer.len().saturating_add(proof).saturating_add(USUAL_BYTES));
    whole.extend_from_slice(body);
    whole.extend_from_slice(MEMBER);
    write_json(receipt, &mut whole);
    whole.extend_from_slice(end);
    whole
}

/// Appends what serde makes of a receipt. Base64 needs no escaping, and every answer pays for its receipt: this takes a
/// third.
fn write_json(receipt: &Receipt, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"log":"#);
    write_quoted(&receipt.log, out);
    out.extend_from_slice(br#","index":"#);
    serde_json::to_writer(&mut *out, &receipt.index).expect("a number becomes JSON");
    let binary: [(&str, Option<&[u8]>); 5] = [
        ("leafHash", Some(&receipt.leaf_hash)),
        ("open", Some(&receipt.open)),
        ("salt", Some(&receipt.salt)),
        ("C", Some(&receipt.c)),
        ("requestSalt", receipt.request_salt.as_ref().map(Hash::as_slice)),
    ];
    for (name, bytes) in binary {
        let Some(bytes) = bytes else { continue };
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":\"");
        write_base64(bytes, out);
        out.push(b'"');
    }
    if let Some(proof) = &receipt.proof {
        out.extend_from_slice(br#","proof":"#);
        write_quoted(proof, out);
    }
    out.push(b'}');
}

fn write_quoted(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("text becomes JSON");
}

fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start.saturating_add(bytes.len().div_ceil(3).saturating_mul(4)), 0);
    let room = out.get_mut(start..).unwrap_or_default();
    BASE64.encode_slice(bytes, room).expect("four characters for each three bytes begun");
}

/// The request digest of an open part: H(salt ‖ body as received). The body alone can be guessed, with the user's name in
/// it, by whoever is shown the entry in a trace.
pub fn request_digest(salt: &Hash, body: &[u8]) -> Hash {
    sha256(&[salt, body])
}

/// A digest in base64 that may be absent.
mod optional_hash {
    use crate::{Hash, encoding::base64_bytes};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(hash: &Option<Hash>, serializer: S) -> Result<S::Ok, S::Error> {
        match hash {
            Some(hash) => base64_bytes::serialize(hash, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Hash>, D::Error> {
        base64_bytes::deserialize(deserializer).map(Some)
    }
}

/// Checks a receipt with the proof it carries.
///
/// `request` and `answer` are the bytes as they went over the wire; the answer may hold its receipt or not. An absent
/// one is listed as not checked. Without a proof the verdict is at best unknown. `at` is the time of the check in
/// seconds since 1970.
pub fn verify(
    receipt: &Receipt,
    request: Option<&[u8]>,
    answer: Option<&[u8]>,
    trust: &Trust,
    at: u64,
) -> Report {
    verify_with(receipt, &Evidence::default(), request, answer, trust, at)
}

/// Checks a receipt as [`verify`] does, with a proof from elsewhere in place of the receipt's own, such as one that
/// was fetched from `/v1/log/proof/{index}` later.
pub fn verify_against(
    receipt: &Receipt,
    proof: Option<&TlogProof>,
    request: Option<&[u8]>,
    answer: Option<&[u8]>,
    trust: &Trust,
    at: u64,
) -> Report {
    verify_with(receipt, &Evidence { proof, ..Evidence::default() }, request, answer, trust, at)
}

/// Knowledge about a log beside the receipt.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence<'a> {
    /// A proof in place of the receipt's own.
    pub proof: Option<&'a TlogProof>,
    /// Which witnesses must have seen the proof's checkpoint; without one they are counted and none is asked for.
    pub policy: Option<&'a Policy>,
    /// A checkpoint of the same log that the caller has from before, verbatim.
    pub previous: Option<&'a str>,
    /// The consistency proof between that checkpoint and the proof's.
    pub consistency: Option<&'a [Hash]>,
}

/// Checks a receipt as [`verify`] does, and that the log is the one others saw: see [`Evidence`].
pub fn verify_with(
    receipt: &Receipt,
    evidence: &Evidence<'_>,
    request: Option<&[u8]>,
    answer: Option<&[u8]>,
    trust: &Trust,
    at: u64,
) -> Report {
    let mut report = Report::new(trust, at);
    let Ok(open) = Open::parse(&receipt.open) else {
        report.add(Reason::MalformedOpen, "the open part cannot be read");
        return report;
    };
    report.receipt = Some(facts(receipt, &open));
    if receipt.computed_leaf_hash() == receipt.leaf_hash {
        report.checked.push("leaf");
    } else {
        report.add(Reason::LeafMismatch, "open, salt and C do not make the leaf hash");
    }
    if open.index != receipt.index {
        report.add(Reason::IndexMismatch, format!("{} is not {}", receipt.index, open.index));
    }
    if let Stage::Outcome { intent } = open.stage
        && intent >= open.index
    {
        report
            .add(Reason::IndexMismatch, format!("the intent {intent} does not stand before {}", open.index));
    }
    match request {
        Some(_) if open.request_digest == [0; 32] => {
            report.add(Reason::RequestNotRecorded, "the exchange did not read the request to its end");
        }
        Some(request) => match receipt.request_salt {
            None => report.add(Reason::RequestNotRecorded, "the salt of the request digest was cut off"),
            Some(salt) if request_digest(&salt, request) == open.request_digest => {
                report.checked.push("request")
            }
            Some(_) => report.add(Reason::RequestMismatch, "the receipt is for another request"),
        },
        None => report.not_checked.push("request"),
    }
    match answer {
        Some(answer) if is_answer(answer, receipt, &open) => report.checked.push("answer"),
        Some(_) => report.add(Reason::AnswerMismatch, "the receipt is for another answer"),
        None => report.not_checked.push("answer"),
    }
    check_log(&mut report, receipt, evidence, trust);
    report
}

/// Whether `answer`, as it is or with its receipt cut out, is the one that the receipt is for.
fn is_answer(answer: &[u8], receipt: &Receipt, open: &Open) -> bool {
    if sha256(&[answer]) == open.answer_digest {
        return true;
    }
    // The same receipt, but for the proof, which may have been added or taken off, and the request salt, if one lacks it.
    let bare = |one: &Receipt, other: &Receipt| Receipt {
        proof: None,
        request_salt: one.request_salt.filter(|_| other.request_salt.is_some()),
        ..one.clone()
    };
    cut(answer).is_ok_and(|(hashed, other)| {
        sha256(&[&hashed]) == open.answer_digest && bare(&other, receipt) == bare(receipt, &other)
    })
}

fn check_log(report: &mut Report, receipt: &Receipt, evidence: &Evidence<'_>, trust: &Trust) {
    let own;
    let proof = match (evidence.proof, &receipt.proof) {
        (Some(proof), _) => proof,
        (None, Some(text)) => match TlogProof::parse(text) {
            Ok(parsed) => {
                own = parsed;
                &own
            }
            Err(error) => return report.add(Reason::MalformedProof, error.to_string()),
        },
        (None, None) => return report.add(Reason::NoProof, "no proof that the leaf stands in the log"),
    };
    let opens_other = proof.extra.as_ref().is_some_and(|extra| *extra != receipt.extra());
    if proof.index != receipt.index || opens_other {
        return report.add(Reason::ProofMismatch, format!("the proof is for entry {}", proof.index));
    }
    let Some(log) = trust.log(&receipt.log) else {
        return report.add(Reason::UnknownLog, format!("the trust bundle does not know log {}", receipt.log));
    };
    let checkpoint = match read_checkpoint(&proof.checkpoint, log) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return report.add(Reason::BadCheckpoint, error),
    };
    report.checked.push("checkpoint");
    let Checkpoint { size, root, .. } = checkpoint;
    if !merkle::verify_inclusion(receipt.index, size, &receipt.leaf_hash, &proof.path, &root) {
        return report.add(Reason::NotIncluded, format!("leaf {} does not lead to the root", receipt.index));
    }
    report.checked.push("inclusion");
    if let Some(facts) = &mut report.receipt {
        facts.checkpoint_size = Some(size);
    }
    let seen = witnesses(report, &proof.checkpoint, evidence.policy, log, &trust.witnesses);
    if let Some(facts) = &mut report.receipt {
        facts.witnesses = seen.counts;
    }
    if seen.enough {
        report.checked.push("witnesses");
    }
    check_previous(report, &checkpoint, evidence, log);
}

/// The checkpoint in a note that the log signed.
pub(crate) fn read_checkpoint(note: &str, log: &TrustLog) -> Result<Checkpoint, String> {
    SignedNote::parse(note)
        .and_then(|note| note.verify(std::slice::from_ref(&log.key)))
        .map_err(|error| error.to_string())
        .and_then(|note| Checkpoint::parse(&note).map_err(|error| error.to_string()))
}

/// The witnesses that saw a checkpoint.
pub(crate) struct Seen {
    /// How many of those that are known; `None` when none is.
    pub(crate) counts: Option<WitnessFacts>,
    /// There is a policy, and they are enough for it.
    pub(crate) enough: bool,
}

/// Counts the witnesses that saw a checkpoint, and holds them against the policy.
pub(crate) fn witnesses(
    report: &mut Report,
    checkpoint: &str,
    policy: Option<&Policy>,
    log: &TrustLog,
    bundled: &[WitnessKey],
) -> Seen {
    let known = policy.map_or(bundled, Policy::witnesses);
    let checkable: Vec<CosignerKey> = known.iter().filter_map(WitnessKey::checkable).cloned().collect();
    let read = SignedNote::parse(checkpoint)
        .and_then(|note| Ok((note.cosignatures(&checkable)?, note.unchecked_cosignatures(known)?)));
    let cosigned = match read {
        Ok((cosigned, unchecked)) => {
            if unchecked > 0 && !report.not_checked.contains(&ML_DSA_COSIGNATURES) {
                report.not_checked.push(ML_DSA_COSIGNATURES);
            }
            cosigned
        }
        Err(error) => {
            report.add(Reason::BadCosignature, error.to_string());
            return Seen { counts: None, enough: false };
        }
    };
    let counts = WitnessFacts { cosigned: cosigned.len(), of: known.len() };
    let mut seen = Seen { counts: Some(counts).filter(|_| !known.is_empty()), enough: false };
    let Some(policy) = policy else { return seen };
    if !policy.logs().is_empty() && !policy.logs().contains(&log.key) {
        report.add(Reason::LogNotInPolicy, format!("the policy does not take log {}", log.origin));
    } else if policy
        .is_satisfied(|key| cosigned.iter().any(|cosignature| Some(cosignature.key()) == key.checkable()))
    {
        seen.enough = true;
    } else {
        let WitnessFacts { cosigned, of } = counts;
        report.add(Reason::WitnessesShort, format!("{cosigned} of {of} witnesses are not enough"));
    }
    seen
}

/// Whether the log of an earlier checkpoint grew into this one.
fn check_previous(report: &mut Report, checkpoint: &Checkpoint, evidence: &Evidence<'_>, log: &TrustLog) {
    let Some(previous) = evidence.previous else { return };
    let previous = match read_checkpoint(previous, log) {
        Ok(previous) => previous,
        Err(error) => return report.add(Reason::BadPrevious, format!("the earlier checkpoint: {error}")),
    };
    let (old, new) =
        if previous.size <= checkpoint.size { (&previous, checkpoint) } else { (checkpoint, &previous) };
    if old.size == new.size {
        if old.root == new.root {
            report.checked.push("previous");
        } else {
            let detail = format!("log {} signed two trees of size {}", log.origin, old.size);
            report.add(Reason::SplitView, detail);
        }
        return;
    }
    // From the empty tree everything grows, if it is the empty tree.
    let grown = match evidence.consistency {
        _ if old.size == 0 => old.root == merkle::EMPTY_ROOT,
        Some(path) => merkle::verify_consistency(old.size, new.size, &old.root, &new.root, path),
        None => {
            let detail = format!("no proof how size {} grew to {}", old.size, new.size);
            return report.add(Reason::NoConsistencyProof, detail);
        }
    };
    if grown {
        report.checked.push("previous");
    } else {
        let detail = format!("the proof does not lead from size {} to size {}", old.size, new.size);
        report.add(Reason::Inconsistent, detail);
    }
}

/// The facts of a receipt with this open part.
pub(crate) fn facts(receipt: &Receipt, open: &Open) -> ReceiptFacts {
    let organisation = String::from_utf8_lossy(&open.organisation);
    ReceiptFacts {
        log: receipt.log.clone(),
        index: receipt.index,
        time: rfc3339(open.time_ms),
        organisation: organisation.trim_end_matches('\0').to_owned(),
        route: Route::from_number(open.route).map_or_else(|| open.route.to_string(), |r| r.name().to_owned()),
        decision: Decision::from_number(open.decision).map_or("", Decision::name).to_owned(),
        code: Code::from_number(open.code).map_or_else(|| open.code.to_string(), |c| c.name().to_owned()),
        acting_for: match &open.acting_for {
            ActingFor::Chain(chain) => chain.iter().map(party).collect(),
            ActingFor::Digest(digest) => vec![format!("sha256:{}", hex::encode(digest))],
        },
        is_intent: open.stage == Stage::Intent,
        intent: match open.stage {
            Stage::Outcome { intent } => Some(intent),
            Stage::Whole | Stage::Intent => None,
        },
        checkpoint_size: None,
        witnesses: None,
    }
}

/// A party in words: an organisation by USCC, a person by label.
fn party(party: &Party) -> String {
    match party {
        Party::Organisation(organisation) => String::from_utf8_lossy(organisation).into_owned(),
        Party::Person(label) => hex::encode(label),
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
            request_salt: Some([5; 32]),
            proof: Some("line\n\"quoted\",\"receipt\":{ }\n".to_owned()),
        }
    }

    #[test]
    fn members_stand_in_the_order_of_the_format() {
        let json = serde_json::to_string(&Receipt { proof: None, ..receipt() }).unwrap();
        assert_eq!(json.matches(':').count(), 7);
        assert!(json.starts_with(r#"{"log":"log.example/1","index":5,"leafHash":"AQEB"#), "{json}");
        assert!(json.contains(r#","open":"AgIC","salt":"AwMD"#) && json.contains(r#","C":"BAQE"#));
        assert!(json.contains(r#","requestSalt":"BQUF"#), "{json}");
        let cut_off =
            serde_json::to_string(&Receipt { proof: None, request_salt: None, ..receipt() }).unwrap();
        assert_eq!((cut_off.matches(':').count(), cut_off.contains("requestSalt")), (6, false));
        assert_eq!(serde_json::from_str::<Receipt>(&cut_off).unwrap().request_salt, None);
        assert_eq!(serde_json::from_str::<Receipt>(&json).unwrap().proof, None);
        let short = json.replace("AwMDAwMD", "AwMD");
        assert!(serde_json::from_str::<Receipt>(&short).is_err());
        assert!(serde_json::from_str::<Receipt>(&json.replace("\"log\"", "\"logs\"")).is_err());
    }

    #[test]
    fn the_short_way_to_json_is_the_same_as_serde() {
        let strange = Receipt { log: "\"l\\o\u{1}g/中".to_owned(), index: u64::MAX, ..receipt() };
        let bare = Receipt { proof: None, request_salt: None, ..receipt() };
        for receipt in [receipt(), bare, strange] {
            let mut written = Vec::new();
            write_json(&receipt, &mut written);
            assert_eq!(String::from_utf8(written).unwrap(), serde_json::to_string(&receipt).unwrap());
        }
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
