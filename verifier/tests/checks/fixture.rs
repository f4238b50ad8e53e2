//! Two authorities, a log and a trust authority with fixed keys, and the licenses and receipts they make.

use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use schemas::identifier::{CertificateIdentifier, LicenseTypeCode, Uscc};
use verifier::{
    Hash,
    checkpoint::Checkpoint,
    leaf::{Labels, Open},
    license::{BodyHolder, LicenseContent, SignatureParts, encode_body, encode_envelope},
    merkle::{BatchTree, leaf_hash},
    note::{CosignerKey, VerifierKey, cosignature_line, cosigned_message, signature_line},
    proof::TlogProof,
    receipt::{Receipt, request_digest},
    report::Report,
    sha256,
    signature::{Suite, Suites, key_id, message, normalise, spki, suites},
    trust::{RequiredSuite, Trust, TrustBundle, TrustIssuer, TrustKey, TrustLog, encode_text},
};

pub const ISSUER: &str = "11100000MB03271699";
pub const OTHER: &str = "11100000MB0341032Y";
pub const TYPE: &str = "11100000MB03271699001";
pub const LOG: &str = "log.example/1";

/// 2026-09-21T14:13:20Z, inside every validity here.
pub const NOW: u64 = 1_790_000_000;
pub const DAY: u64 = 86_400;

/// An authority's key pair.
pub enum Pair {
    Ed25519(Ed25519KeyPair),
    Es256(EcdsaKeyPair),
}

impl Pair {
    pub fn ed25519(seed: u8) -> Self {
        Self::Ed25519(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    pub fn es256() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random);
        Self::Es256(pair.unwrap())
    }

    pub fn suite(&self) -> Suite {
        match self {
            Self::Ed25519(_) => Suite::Ed25519,
            Self::Es256(_) => Suite::Es256,
        }
    }

    pub fn spki(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(pair) => spki(Suite::Ed25519, pair.public_key().as_ref()).unwrap(),
            Self::Es256(pair) => spki(Suite::Es256, pair.public_key().as_ref()).unwrap(),
        }
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Es256(pair) => {
                let mut value = pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
                normalise(Suite::Es256, &mut value);
                value
            }
        }
    }

    pub fn trust_key(&self) -> TrustKey {
        TrustKey {
            suite: self.suite().number(),
            key_id: key_id(&self.spki()),
            spki: self.spki(),
            from: NOW - 100 * DAY,
            until: NOW + 100 * DAY,
            compromised_at_size: None,
        }
    }
}

/// A note key with its pair.
pub fn note_key(seed: u8, name: &str) -> (Ed25519KeyPair, VerifierKey) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let key = VerifierKey::ed25519(name, pair.public_key().as_ref().try_into().unwrap()).unwrap();
    (pair, key)
}

/// A note over a text.
pub fn sign_note(seed: u8, name: &str, text: &str) -> String {
    let (pair, key) = note_key(seed, name);
    format!("{text}\n{}", signature_line(&key, pair.sign(text.as_bytes()).as_ref().try_into().unwrap()))
}

/// A witness's key; the seed is its own.
pub fn witness(seed: u8) -> CosignerKey {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let name = format!("w{seed}.example");
    CosignerKey::ed25519(&name, pair.public_key().as_ref().try_into().unwrap()).unwrap()
}

/// The note with a cosignature of a witness more.
pub fn cosign(note: &str, seed: u8) -> String {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let (text, _) = note.rsplit_once("\n\n").unwrap();
    let signature = pair.sign(cosigned_message(NOW, &format!("{text}\n")).as_bytes());
    format!("{note}{}", cosignature_line(&witness(seed), NOW, signature.as_ref().try_into().unwrap()))
}

pub fn issuer(organisation: &str, suites: &[Suite], keys: &[&Pair]) -> TrustIssuer {
    TrustIssuer {
        organisation: organisation.parse().unwrap(),
        name: "测试机关".to_owned(),
        types: vec![TYPE.parse().unwrap()],
        required_suites: suites.iter().map(|s| RequiredSuite { suite: s.number(), from: 0 }).collect(),
        keys: keys.iter().map(|pair| pair.trust_key()).collect(),
    }
}

/// `ISSUER` signs with Ed25519 seed 1, `OTHER` with seed 2, the log with seed 3.
pub fn bundle() -> TrustBundle {
    bundle_of(vec![
        issuer(ISSUER, &[Suite::Ed25519], &[&Pair::ed25519(1)]),
        issuer(OTHER, &[Suite::Ed25519], &[&Pair::ed25519(2)]),
    ])
}

pub fn bundle_of(issuers: Vec<TrustIssuer>) -> TrustBundle {
    TrustBundle {
        version: 1,
        sequence: 7,
        issued_at: NOW - DAY,
        expires: NOW + 1000 * DAY,
        journal_index: 0,
        issuers,
        logs: vec![TrustLog { origin: LOG.to_owned(), key: note_key(3, LOG).1 }],
        witnesses: Vec::new(),
        mirrors: Vec::new(),
        peers: Vec::new(),
        authority: Some(note_key(9, "trust.example").1),
    }
}

pub fn trust() -> Trust {
    Trust::new(bundle()).unwrap()
}

/// The bundle as a note of the trust authority (seed 9).
pub fn trust_note(bundle: &TrustBundle) -> String {
    sign_note(9, "trust.example", &encode_text(bundle))
}

pub fn identifier(type_code: &str, organisation: &str, serial: &str) -> CertificateIdentifier {
    let (type_code, organisation): (LicenseTypeCode, Uscc) =
        (type_code.parse().unwrap(), organisation.parse().unwrap());
    CertificateIdentifier::new(type_code, organisation, serial.parse().unwrap(), 1).unwrap()
}

pub fn content() -> LicenseContent {
    LicenseContent {
        identifier: identifier(TYPE, ISSUER, "TEST0001"),
        certificate_number: "测试（2026）第1号".to_owned(),
        issuer_name: "测试机关".to_owned(),
        holders: vec![BodyHolder {
            name: "测试甲".to_owned(),
            type_code: "999".to_owned(),
            number: "TEST-HOLDER-1".to_owned(),
            as_registered: false,
        }],
        issue_date: "2026-09-01".parse().unwrap(),
        valid_from: "2026-09-01".parse().unwrap(),
        valid_until: Some("2027-08-31".parse().unwrap()),
        issued_at: NOW - 10 * DAY,
        fields: vec![("area".to_owned(), "100".to_owned())],
    }
}

pub fn body(content: &LicenseContent) -> Vec<u8> {
    encode_body(content, &[5; 16])
}

/// The list of the pairs' suites; where one stands twice, as no envelope may have it, once.
pub fn suites_of(pairs: &[&Pair]) -> Suites {
    let mut numbers: Vec<u8> = pairs.iter().map(|pair| pair.suite().number()).collect();
    numbers.dedup();
    suites(numbers).unwrap()
}

/// Signatures over a batch of bodies: per body, one per pair.
pub fn sign_batch(bodies: &[Vec<u8>], pairs: &[&Pair]) -> Vec<Vec<SignatureParts>> {
    let tree = BatchTree::new(bodies.iter().map(|body| leaf_hash(body)).collect());
    let size = bodies.len() as u64;
    let part = |pair: &Pair, index: usize, value: Vec<u8>| SignatureParts {
        suite: pair.suite().number(),
        key_id: key_id(&pair.spki()),
        size,
        index: index as u64,
        path: tree.path(index),
        value,
    };
    let values: Vec<_> = pairs
        .iter()
        .map(|pair| pair.sign(&message(pair.suite(), &suites_of(pairs), size, &tree.root())))
        .collect();
    (0..bodies.len())
        .map(|index| {
            pairs.iter().zip(&values).map(|(pair, value)| part(pair, index, value.clone())).collect()
        })
        .collect()
}

pub fn envelope(content: &LicenseContent, pairs: &[&Pair]) -> Vec<u8> {
    let body = body(content);
    let signatures = sign_batch(std::slice::from_ref(&body), pairs).remove(0);
    encode_envelope(&body, &signatures)
}

/// The license of `content()` as `ISSUER` signs it.
pub fn good_envelope() -> Vec<u8> {
    envelope(&content(), &[&Pair::ed25519(1)])
}

pub const REQUEST_SALT: Hash = [8; 32];
pub const REQUEST: &[u8] = br#"{"license":{}}"#;
pub const ANSWER: &[u8] = br#"{"verdict":"valid"}"#;
pub const INDEX: u64 = 5;
pub const SIZE: u64 = 9;

pub fn open() -> Open {
    Open {
        route: 5,
        decision: 1,
        code: 0,
        index: INDEX,
        time_ms: NOW * 1000,
        organisation: *b"11100000MB0341032Y",
        request_digest: request_digest(&REQUEST_SALT, REQUEST),
        answer_digest: sha256(&[ANSWER]),
        policy: [1; 32],
        subject_digest: [2; 32],
        labels: Labels::List(vec![[3; 16]]),
        ..Open::default()
    }
}

/// A receipt without proof, whose leaf hash fits.
pub fn receipt_of(open: Vec<u8>, index: u64) -> Receipt {
    let mut receipt = Receipt {
        log: LOG.to_owned(),
        index,
        leaf_hash: [0; 32],
        open,
        salt: [6; 32],
        c: [7; 32],
        request_salt: Some(REQUEST_SALT),
        proof: None,
    };
    receipt.leaf_hash = receipt.computed_leaf_hash();
    receipt
}

/// The leaf hashes of a log of `SIZE` leaves that holds a receipt's.
pub fn leaves_with(receipt: &Receipt) -> Vec<Hash> {
    let mut leaves: Vec<Hash> = (0..SIZE).map(|i| leaf_hash(&i.to_be_bytes())).collect();
    leaves[receipt.index as usize] = receipt.leaf_hash;
    leaves
}

/// The proof of a receipt in a log of `SIZE` leaves, signed by the log.
pub fn proof_of(receipt: &Receipt) -> TlogProof {
    let index = receipt.index as usize;
    let tree = BatchTree::new(leaves_with(receipt));
    let checkpoint = Checkpoint { origin: LOG.to_owned(), size: SIZE, root: tree.root() };
    TlogProof {
        extra: Some(receipt.extra()),
        index: receipt.index,
        path: tree.path(index),
        checkpoint: sign_note(3, LOG, &checkpoint.text()),
    }
}

/// A receipt for `REQUEST` and `ANSWER` that verifies.
pub fn good_receipt() -> Receipt {
    let receipt = receipt_of(open().encode(), INDEX);
    let proof = proof_of(&receipt).to_text();
    Receipt { proof: Some(proof), ..receipt }
}

/// Codes of a report's reasons.
pub fn codes(report: &Report) -> Vec<&'static str> {
    report.reasons.iter().map(|finding| finding.code()).collect()
}
