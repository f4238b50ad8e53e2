//! Offline verification of envelopes, beside the raw Ed25519 verification that bounds it.
#![forbid(unsafe_code)]

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use schemas::identifier::CertificateIdentifier;
use verifier::license::{
    BodyHolder, LicenseContent, RootCache, SignatureParts, encode_body, encode_envelope, verify,
};
use verifier::merkle::{BatchTree, leaf_hash};
use verifier::report::Verdict;
use verifier::signature::{Suite, key_id, message, spki, suites};
use verifier::trust::{RequiredSuite, Trust, TrustBundle, TrustIssuer, TrustKey};

const ISSUER: &str = "11100000MB03271699";
const TYPE: &str = "11100000MB03271699001";
/// 2026-09-21T14:13:20Z, inside every validity here.
const NOW: u64 = 1_790_000_000;
const YEAR: u64 = 365 * 86_400;
/// Licenses of a batch.
const BATCH: usize = 512;

struct Fixture {
    trust: Trust,
    single: Vec<u8>,
    batch: Vec<Vec<u8>>,
    public: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
}

fn content(number: usize) -> LicenseContent {
    let identifier = CertificateIdentifier::new(
        TYPE.parse().expect("a vector"),
        ISSUER.parse::<schemas::identifier::Uscc>().expect("a vector"),
        format!("BENCH{number:06}").parse().expect("a serial"),
        1,
    );
    LicenseContent {
        identifier: identifier.expect("its parts are good"),
        certificate_number: format!("测试（2026）第{number}号"),
        issuer_name: "测试机关".to_owned(),
        holders: vec![BodyHolder {
            name: "测试甲".to_owned(),
            type_code: "999".to_owned(),
            number: "TEST-HOLDER-1".to_owned(),
            as_registered: false,
        }],
        issue_date: "2026-09-01".parse().expect("a date"),
        valid_from: "2026-09-01".parse().expect("a date"),
        valid_until: Some("2027-08-31".parse().expect("a date")),
        issued_at: NOW - 86_400,
        fields: (0..8).map(|at| (format!("field{at}"), format!("测试内容{at}"))).collect(),
    }
}

fn fixture() -> Fixture {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).expect("a seed has 32 bytes");
    let public = pair.public_key().as_ref().to_vec();
    let spki = spki(Suite::Ed25519, &public).expect("a public key has 32 bytes");
    let key_id = key_id(&spki);
    let trust = Trust::new(TrustBundle {
        version: 1,
        sequence: 1,
        issued_at: NOW - YEAR,
        expires: NOW + YEAR,
        journal_index: 0,
        issuers: vec![TrustIssuer {
            organisation: ISSUER.parse().expect("a vector"),
            name: "测试机关".to_owned(),
            types: vec![TYPE.parse().expect("a vector")],
            required_suites: vec![RequiredSuite { suite: 1, from: 0 }],
            keys: vec![TrustKey {
                suite: 1,
                key_id,
                spki,
                from: 0,
                until: NOW + YEAR,
                compromised_at_size: None,
            }],
        }],
        logs: Vec::new(),
        witnesses: Vec::new(),
        mirrors: Vec::new(),
        peers: Vec::new(),
        authority: None,
    })
    .expect("a good bundle");
    let suites = suites([1]).expect("one suite");
    let sign = |bodies: &[Vec<u8>]| -> Vec<Vec<u8>> {
        let tree = BatchTree::new(bodies.iter().map(|body| leaf_hash(body)).collect());
        let size = bodies.len() as u64;
        let value = pair.sign(&message(Suite::Ed25519, &suites, size, &tree.root())).as_ref().to_vec();
        let envelope = |(index, body): (usize, &Vec<u8>)| {
            let (path, value) = (tree.path(index), value.clone());
            encode_envelope(
                body,
                &[SignatureParts { suite: 1, key_id, size, index: index as u64, path, value }],
            )
        };
        bodies.iter().enumerate().map(envelope).collect()
    };
    let bodies: Vec<Vec<u8>> = (0..BATCH).map(|number| encode_body(&content(number), &[5; 16])).collect();
    let message = message(Suite::Ed25519, &suites, 1, &leaf_hash(&bodies[0])).to_vec();
    Fixture {
        trust,
        single: sign(&bodies[..1]).remove(0),
        batch: sign(&bodies),
        public,
        signature: pair.sign(&message).as_ref().to_vec(),
        message,
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let fixture = fixture();
    let mut group = criterion.benchmark_group("envelope");
    group.throughput(Throughput::Elements(1));
    group.bench_function("ring-ed25519", |bencher| {
        let key = UnparsedPublicKey::new(&ED25519, &fixture.public);
        bencher.iter(|| key.verify(black_box(&fixture.message), &fixture.signature).expect("it verifies"));
    });
    group.bench_function("single", |bencher| {
        bencher.iter(|| {
            let report = verify(black_box(&fixture.single), &fixture.trust, NOW, &mut RootCache::new());
            assert_eq!(report.verdict, Verdict::Valid);
        });
    });
    group.bench_function("same-batch-warm-root", |bencher| {
        let mut warm = RootCache::new();
        let mut envelopes = fixture.batch.iter().cycle();
        bencher.iter(|| {
            let envelope = envelopes.next().expect("a cycle has no end");
            assert_eq!(verify(black_box(envelope), &fixture.trust, NOW, &mut warm).verdict, Verdict::Valid);
        });
    });
    group.finish();
    criterion.final_summary();
}
