use crate::fixture::*;
use flatbuffers::FlatBufferBuilder;
use schemas::license as wire;
use verifier::{
    license::{
        LicenseContent, MAX_ENVELOPE_BYTES, OpenedEnvelope, RootCache, SignatureParts, encode_envelope,
        read_body, verify,
    },
    merkle::leaf_hash,
    report::{Reason, Report, Verdict},
    signature::{Suite, message, suites},
    trust::{RequiredSuite, Trust, TrustBundle},
};

fn check(envelope: &[u8], trust: &Trust) -> Report {
    verify(envelope, trust, NOW, &mut RootCache::new())
}

/// The verdict and codes of a license of `content` signed by `ISSUER`, under a changed bundle.
fn under(change: impl FnOnce(&mut TrustBundle)) -> Report {
    let mut bundle = bundle();
    change(&mut bundle);
    check(&good_envelope(), &Trust::new(bundle).unwrap())
}

fn signed(change: impl FnOnce(&mut LicenseContent)) -> Vec<u8> {
    let mut content = content();
    change(&mut content);
    envelope(&content, &[&Pair::ed25519(1)])
}

/// The good license with its one signature changed.
fn with_signature(change: impl FnOnce(&mut SignatureParts)) -> Vec<u8> {
    let envelope = good_envelope();
    let opened = OpenedEnvelope::open(&envelope).unwrap();
    let mut signatures = opened.signatures().to_vec();
    change(&mut signatures[0]);
    encode_envelope(opened.body(), &signatures)
}

#[track_caller]
fn assert_report(report: &Report, verdict: Verdict, reasons: &[Reason]) {
    let codes: Vec<_> = reasons.iter().map(|reason| reason.code()).collect();
    assert_eq!((report.verdict, crate::fixture::codes(report)), (verdict, codes), "{report:?}");
}

#[test]
fn a_good_license_is_valid_and_says_what_was_not_checked() {
    let report = check(&good_envelope(), &trust());
    assert_report(&report, Verdict::Valid, &[]);
    assert_eq!(report.checked, ["form", "signatures", "issuer", "key-time", "license-type", "license-time"]);
    assert_eq!(report.not_checked, ["current-state"]);
    let facts = report.license.as_ref().unwrap();
    assert_eq!(facts.identifier, content().identifier);
    // A report names no holder.
    let json = serde_json::to_string(&report).unwrap();
    assert!(!json.contains("测试甲") && !json.contains("TEST-HOLDER"));
}

#[test]
fn what_is_written_is_read() {
    let endless = LicenseContent { valid_until: None, ..content() };
    for content in [content(), endless] {
        let envelope = envelope(&content, &[&Pair::ed25519(1)]);
        let opened = OpenedEnvelope::open(&envelope).unwrap();
        assert_eq!(opened.body(), body(&content));
        assert_eq!(read_body(opened.body()), Ok(content));
    }
}

#[test]
fn every_license_of_a_batch_verifies_and_warms_the_others() {
    let contents: Vec<_> = (0..5)
        .map(|i| LicenseContent { identifier: identifier(TYPE, ISSUER, &format!("B{i}")), ..content() })
        .collect();
    let bodies: Vec<_> = contents.iter().map(body).collect();
    let signatures = sign_batch(&bodies, &[&Pair::ed25519(1)]);
    let trust = trust();
    let mut warm = RootCache::new();
    for (body, parts) in bodies.iter().zip(&signatures) {
        for _ in 0..2 {
            assert_report(
                &verify(&encode_envelope(body, parts), &trust, NOW, &mut warm),
                Verdict::Valid,
                &[],
            );
        }
    }
    // A warm root is no way around the path, the size, the index, or the value.
    for (change, reason) in [
        ((|parts| parts.size = 6) as fn(&mut SignatureParts), Reason::BadSignature),
        (|parts| parts.size = 9, Reason::BadPath),
        (|parts| parts.size = 0, Reason::BadPath),
        (|parts| parts.index = 2, Reason::BadSignature),
        (|parts| parts.index = 5, Reason::BadPath),
        (|parts| parts.path[0][0] ^= 1, Reason::BadSignature),
        (|parts| parts.path.truncate(1), Reason::BadPath),
        (|parts| parts.path.push([0; 32]), Reason::BadPath),
        (|parts| parts.value[0] ^= 1, Reason::BadSignature),
        (|parts| parts.value.truncate(63), Reason::BadSignature),
    ] {
        let mut parts = signatures[1].clone();
        change(&mut parts[0]);
        let report = verify(&encode_envelope(&bodies[1], &parts), &trust, NOW, &mut warm);
        assert_eq!(report.verdict, Verdict::Invalid);
        assert_eq!(codes(&report)[0], reason.code());
    }
    // The signature of a neighbor does not fit.
    let report = verify(&encode_envelope(&bodies[1], &signatures[2]), &trust, NOW, &mut warm);
    assert_eq!(report.verdict, Verdict::Invalid);
}

#[test]
fn truncated_and_extended_envelopes_are_refused() {
    let mut envelope = good_envelope();
    for length in 0..envelope.len() {
        assert_eq!(OpenedEnvelope::open(&envelope[..length]).unwrap_err(), Reason::MalformedEnvelope);
        let report = check(&envelope[..length], &trust());
        assert_report(&report, Verdict::Invalid, &[Reason::MalformedEnvelope]);
    }
    envelope.push(0);
    assert_report(&check(&envelope, &trust()), Verdict::Invalid, &[Reason::TrailingBytes]);
    // The size prefix cannot be made to cover what follows.
    let length = u32::try_from(envelope.len() - 4).unwrap();
    envelope[..4].copy_from_slice(&length.to_le_bytes());
    assert_report(&check(&envelope, &trust()), Verdict::Invalid, &[Reason::MalformedEnvelope]);
}

#[test]
fn truncated_bodies_never_panic() {
    let body = body(&content());
    for length in 0..body.len() {
        // The last bytes may be padding that nothing refers to; the digest covers them all the same.
        assert!(read_body(&body[..length]).is_err() || body.len() - length < 8);
        for at in [0, 4, 8, 12, 16] {
            let mut changed = body.clone();
            changed[at..at + 4].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
            let _ = read_body(&changed);
        }
    }
}

#[test]
fn other_layouts_of_the_same_envelope_are_refused() {
    // The same tables in another order: what FlatBuffers allows, but not the one form.
    let good = good_envelope();
    let opened = OpenedEnvelope::open(&good).unwrap();
    let mut fbb = FlatBufferBuilder::new();
    let body = fbb.create_vector(opened.body());
    let part = &opened.signatures()[0];
    let args = wire::SignatureArgs {
        value: Some(fbb.create_vector(&part.value)),
        path: Some(fbb.create_vector(part.path.as_flattened())),
        key_id: Some(fbb.create_vector(&part.key_id)),
        suite: part.suite,
        size: part.size,
        index: part.index,
    };
    let signature = wire::Signature::create(&mut fbb, &args);
    let signatures = Some(fbb.create_vector(&[signature]));
    let root = wire::Envelope::create(&mut fbb, &wire::EnvelopeArgs { body: Some(body), signatures });
    wire::finish_size_prefixed_envelope_buffer(&mut fbb, root);
    let report = check(fbb.finished_data(), &trust());
    assert_report(&report, Verdict::Invalid, &[Reason::MalformedEnvelope]);
}

#[test]
fn huge_envelopes_are_refused() {
    let good = good_envelope();
    let opened = OpenedEnvelope::open(&good).unwrap();
    let part = opened.signatures()[0].clone();
    let malformed = |envelope: &[u8]| {
        assert_report(&check(envelope, &trust()), Verdict::Invalid, &[Reason::MalformedEnvelope]);
    };
    malformed(&encode_envelope(opened.body(), &vec![part.clone(); 9]));
    malformed(&encode_envelope(opened.body(), &vec![part.clone(); 600]));
    malformed(&encode_envelope(&vec![0; MAX_ENVELOPE_BYTES], std::slice::from_ref(&part)));
    malformed(&encode_envelope(opened.body(), &[SignatureParts { path: vec![[0; 32]; 64], ..part }]));
}

#[test]
fn offsets_that_lead_anywhere_never_panic() {
    let good = good_envelope();
    let trust = trust();
    let mut warm = RootCache::new();
    for at in (0..good.len() - 3).step_by(2) {
        for value in [0, 1, 4, u32::try_from(good.len()).unwrap(), 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            let mut changed = good.clone();
            changed[at..at + 4].copy_from_slice(&value.to_le_bytes());
            if changed != good {
                assert_ne!(verify(&changed, &trust, NOW, &mut warm).verdict, Verdict::Valid);
                let _ = read_body(&changed);
            }
        }
    }
}

#[test]
fn bodies_beyond_the_limits_are_refused() {
    let mut content = content();
    content.fields = (0..600).map(|i| (i.to_string(), String::new())).collect();
    assert_eq!(read_body(&body(&content)), Err(Reason::MalformedBody));
    let report = check(&envelope(&content, &[&Pair::ed25519(1)]), &trust());
    assert_report(&report, Verdict::Invalid, &[Reason::MalformedBody]);
}

/// A body with one text replaced, in a well-formed and well-signed envelope.
fn with_body_texts(identifier: &str, valid_from: &str, nonce: &[u8]) -> Vec<u8> {
    let mut fbb = FlatBufferBuilder::new();
    let empty: [flatbuffers::WIPOffset<wire::BodyHolder<'_>>; 0] = [];
    let no_fields: [flatbuffers::WIPOffset<wire::BodyField<'_>>; 0] = [];
    let args = wire::LicenseBodyArgs {
        nonce: Some(fbb.create_vector(nonce)),
        identifier: Some(fbb.create_string(identifier)),
        certificate_number: Some(fbb.create_string("1")),
        issuer_name: Some(fbb.create_string("n")),
        holders: Some(fbb.create_vector(&empty)),
        issue_date: Some(fbb.create_string("2026-09-01")),
        valid_from: Some(fbb.create_string(valid_from)),
        valid_until: None,
        issued_at: NOW,
        fields: Some(fbb.create_vector(&no_fields)),
    };
    let root = wire::LicenseBody::create(&mut fbb, &args);
    wire::finish_license_body_buffer(&mut fbb, root);
    let body = fbb.finished_data().to_vec();
    let signatures = sign_batch(std::slice::from_ref(&body), &[&Pair::ed25519(1)]).remove(0);
    encode_envelope(&body, &signatures)
}

#[test]
fn signed_bodies_that_cannot_be_read_are_refused() {
    let identifier = content().identifier.to_string();
    let good = check(&with_body_texts(&identifier, "2026-09-01", &[0; 16]), &trust());
    assert_report(&good, Verdict::Valid, &[]);
    let mut wrong_check = identifier.clone();
    let last = if wrong_check.pop() == Some('0') { '1' } else { '0' };
    wrong_check.push(last);
    for identifier in ["", "1.2.156", &wrong_check] {
        let report = check(&with_body_texts(identifier, "2026-09-01", &[0; 16]), &trust());
        assert_report(&report, Verdict::Invalid, &[Reason::BadIdentifier]);
    }
    for date in ["", "2026-02-30", "20260901", "2026-9-1"] {
        let report = check(&with_body_texts(&identifier, date, &[0; 16]), &trust());
        assert_report(&report, Verdict::Invalid, &[Reason::MalformedBody]);
    }
    let report = check(&with_body_texts(&identifier, "2026-09-01", &[0; 15]), &trust());
    assert_report(&report, Verdict::Invalid, &[Reason::MalformedBody]);
    let report = check(&encode_envelope(b"no buffer at all", &[]), &trust());
    assert_report(&report, Verdict::Invalid, &[Reason::MalformedBody]);
}

#[test]
fn an_issuer_that_the_bundle_does_not_know_cannot_be_told() {
    let report = under(|bundle| drop(bundle.issuers.remove(0)));
    assert_report(&report, Verdict::Unknown, &[Reason::NoTrustForIssuer]);
    assert!(!report.checked.contains(&"signatures"));
}

#[test]
fn a_key_that_is_not_the_issuers_is_refused() {
    let stranger = envelope(&content(), &[&Pair::ed25519(77)]);
    assert_report(&check(&stranger, &trust()), Verdict::Invalid, &[Reason::UnknownSigner]);
    let other = envelope(&content(), &[&Pair::ed25519(2)]);
    assert_report(&check(&other, &trust()), Verdict::Invalid, &[Reason::IssuerMismatch]);
    // Also when the issuer named is in no bundle.
    let alone = Trust::new(bundle_of(vec![issuer(OTHER, &[], &[&Pair::ed25519(2)])])).unwrap();
    assert_report(&check(&other, &alone), Verdict::Invalid, &[Reason::IssuerMismatch]);
    // A stranger's signature beside a good one is no decoration.
    let both = envelope(&content(), &[&Pair::ed25519(1), &Pair::es256()]);
    assert_report(&check(&both, &trust()), Verdict::Invalid, &[Reason::UnknownSigner]);
}

#[test]
fn a_type_that_the_issuer_may_not_issue_is_refused() {
    let report = under(|bundle| bundle.issuers[0].types.clear());
    assert_report(&report, Verdict::Invalid, &[Reason::NotEntitledToType]);
}

#[test]
fn a_key_is_judged_at_the_moment_of_signing() {
    let issued_at = content().issued_at;
    let with_key = |from, until| {
        under(|bundle| {
            let key = &mut bundle.issuers[0].keys[0];
            (key.from, key.until) = (from, until);
        })
    };
    assert_report(&with_key(issued_at, issued_at + 1), Verdict::Valid, &[]);
    assert_report(&with_key(issued_at + 1, issued_at + 2), Verdict::Invalid, &[Reason::KeyNotYetValid]);
    assert_report(&with_key(0, issued_at), Verdict::Invalid, &[Reason::KeyPastEnd]);
}

#[test]
fn a_compromised_key_cannot_be_told_without_the_issue_receipt() {
    let report = under(|bundle| bundle.issuers[0].keys[0].compromised_at_size = Some(10));
    assert_report(&report, Verdict::Unknown, &[Reason::KeyCompromised]);
    // What is wrong anyway stays wrong.
    let mut bundle = bundle();
    bundle.issuers[0].keys[0].compromised_at_size = Some(10);
    let report = check(&with_signature(|part| part.value[3] ^= 1), &Trust::new(bundle).unwrap());
    assert_report(&report, Verdict::Invalid, &[Reason::BadSignature]);
}

#[test]
fn every_required_suite_must_be_there_and_verify() {
    let (ed, es) = (Pair::ed25519(1), Pair::es256());
    let bundle = bundle_of(vec![issuer(ISSUER, &[Suite::Ed25519, Suite::Es256], &[&ed, &es])]);
    let trust = Trust::new(bundle.clone()).unwrap();
    assert_report(&check(&envelope(&content(), &[&ed, &es]), &trust), Verdict::Valid, &[]);
    for one in [&ed, &es] {
        let report = check(&envelope(&content(), &[one]), &trust);
        assert_report(&report, Verdict::Invalid, &[Reason::RequiredSuiteMissing]);
    }
    // A suite that is required from later on is not required yet, but what is there must verify.
    let mut later = bundle;
    later.issuers[0].required_suites[1] = RequiredSuite { suite: 2, from: content().issued_at + 1 };
    let later = Trust::new(later).unwrap();
    assert_report(&check(&envelope(&content(), &[&ed]), &later), Verdict::Valid, &[]);
    let good = envelope(&content(), &[&ed, &es]);
    let opened = OpenedEnvelope::open(&good).unwrap();
    let mut parts = opened.signatures().to_vec();
    parts[1].value[0] ^= 1;
    let report = check(&encode_envelope(opened.body(), &parts), &later);
    assert_report(&report, Verdict::Invalid, &[Reason::BadSignature]);
    // A signature of one suite does not serve as one of another.
    let mut parts = opened.signatures().to_vec();
    parts.reverse();
    (parts[0].suite, parts[1].suite) = (1, 2);
    let report = check(&encode_envelope(opened.body(), &parts), &trust);
    assert_eq!(report.verdict, Verdict::Invalid);
}

#[test]
fn a_license_without_signatures_is_never_valid() {
    let bare = encode_envelope(&body(&content()), &[]);
    assert_report(&check(&bare, &trust()), Verdict::Invalid, &[Reason::RequiredSuiteMissing]);
    let mut bundle = bundle();
    bundle.issuers[0].required_suites.clear();
    let lenient = Trust::new(bundle).unwrap();
    assert_report(&check(&bare, &lenient), Verdict::Invalid, &[Reason::RequiredSuiteMissing]);
    assert_report(&check(&good_envelope(), &lenient), Verdict::Valid, &[]);
    for suite in [3, 9] {
        let reserved = with_signature(|part| part.suite = suite);
        assert_report(&check(&reserved, &lenient), Verdict::Unknown, &[Reason::UnsupportedSuite]);
    }
}

/// The good license signed for an envelope with these suites besides Ed25519, and signatures of them that mean nothing.
fn with_more_suites(more: &[u8]) -> Vec<u8> {
    let body = body(&content());
    let all = suites([1].into_iter().chain(more.iter().copied())).unwrap();
    let mut parts = sign_batch(std::slice::from_ref(&body), &[&Pair::ed25519(1)]).remove(0);
    parts[0].value = Pair::ed25519(1).sign(&message(Suite::Ed25519, &all, 1, &leaf_hash(&body)));
    let first = parts[0].clone();
    parts.extend(more.iter().map(|suite| SignatureParts { suite: *suite, ..first.clone() }));
    encode_envelope(&body, &parts)
}

#[test]
fn a_suite_that_is_not_supported_cannot_be_told() {
    let mut bundle = bundle();
    let lenient = Trust::new(bundle.clone()).unwrap();
    bundle.issuers[0].required_suites.push(RequiredSuite { suite: 3, from: 0 });
    let trust = Trust::new(bundle).unwrap();
    for trust in [&trust, &lenient] {
        assert_report(&check(&with_more_suites(&[3]), trust), Verdict::Unknown, &[Reason::UnsupportedSuite]);
    }
    let two = [Reason::UnsupportedSuite; 2];
    assert_report(&check(&with_more_suites(&[3, 200]), &lenient), Verdict::Unknown, &two);
    assert_report(&check(&good_envelope(), &trust), Verdict::Invalid, &[Reason::RequiredSuiteMissing]);
    // One that was put beside the others later, or taken off, is noticed by the others.
    let good = good_envelope();
    let opened = OpenedEnvelope::open(&good).unwrap();
    let mut parts = opened.signatures().to_vec();
    parts.push(SignatureParts { suite: 3, ..parts[0].clone() });
    let report = check(&encode_envelope(opened.body(), &parts), &lenient);
    assert_report(&report, Verdict::Invalid, &[Reason::BadSignature]);
    let more = with_more_suites(&[3]);
    let opened = OpenedEnvelope::open(&more).unwrap();
    let report = check(&encode_envelope(opened.body(), &opened.signatures()[..1]), &lenient);
    assert_report(&report, Verdict::Invalid, &[Reason::BadSignature]);
}

#[test]
fn suites_ascend_and_stand_once() {
    let (ed, es) = (Pair::ed25519(1), Pair::es256());
    // Suite 2 is required of nobody: it is there because the issuer signed with it.
    let trust = Trust::new(bundle_of(vec![issuer(ISSUER, &[Suite::Ed25519], &[&ed, &es])])).unwrap();
    let good = envelope(&content(), &[&ed, &es]);
    assert_report(&check(&good, &trust), Verdict::Valid, &[]);
    let opened = OpenedEnvelope::open(&good).unwrap();
    let [first, second] = opened.signatures() else { panic!("two signatures") };
    let with = |parts: &[&SignatureParts]| {
        let parts: Vec<_> = parts.iter().map(|part| (*part).clone()).collect();
        check(&encode_envelope(opened.body(), &parts), &trust)
    };
    for parts in [&[second, first][..], &[first, first], &[first, second, second]] {
        assert_report(&with(parts), Verdict::Invalid, &[Reason::MalformedEnvelope]);
    }
    assert_report(
        &with(&[&SignatureParts { suite: 0, ..first.clone() }]),
        Verdict::Invalid,
        &[Reason::MalformedEnvelope],
    );
    // An optional suite cannot be left out, nor can its value be turned into the other one that verifies.
    for parts in [&[first][..], &[second]] {
        assert_report(&with(parts), Verdict::Invalid, &[Reason::BadSignature]);
    }
    let mut turned = second.clone();
    let order = hex::decode("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551").unwrap();
    let mut borrow = 0;
    for at in (0..32).rev() {
        let difference = i32::from(order[at]) - i32::from(turned.value[32 + at]) - borrow;
        borrow = i32::from(difference < 0);
        turned.value[32 + at] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    assert_report(&with(&[first, &turned]), Verdict::Invalid, &[Reason::BadSignature]);
}

/// Every bit of every kind of envelope, also with warm roots.
#[test]
fn no_flipped_bit_of_any_kind_of_envelope_leaves_it_valid() {
    let (ed, es) = (Pair::ed25519(1), Pair::es256());
    let trust = Trust::new(bundle_of(vec![issuer(ISSUER, &[], &[&ed, &es])])).unwrap();
    let bodies: Vec<_> = (0..3)
        .map(|i| {
            body(&LicenseContent { identifier: identifier(TYPE, ISSUER, &format!("B{i}")), ..content() })
        })
        .collect();
    let batch = encode_envelope(&bodies[1], &sign_batch(&bodies, &[&ed, &es])[1]);
    let mut warm = RootCache::new();
    for envelope in [envelope(&content(), &[&ed]), envelope(&content(), &[&es]), batch] {
        assert_eq!(verify(&envelope, &trust, NOW, &mut warm).verdict, Verdict::Valid);
        for at in 0..envelope.len() {
            for bit in 0..8 {
                let mut changed = envelope.clone();
                changed[at] ^= 1 << bit;
                let report = verify(&changed, &trust, NOW, &mut warm);
                assert_ne!(report.verdict, Verdict::Valid, "byte {at} bit {bit}");
            }
        }
    }
}

#[test]
fn a_bad_signature_or_path_is_refused() {
    let report = check(&with_signature(|part| part.value[63] ^= 0x80), &trust());
    assert_report(&report, Verdict::Invalid, &[Reason::BadSignature]);
    let report = check(&with_signature(|part| part.path.push([0; 32])), &trust());
    assert_report(&report, Verdict::Invalid, &[Reason::BadPath]);
    // The tree's size is signed: a single license cannot be passed off as one of many.
    let report = check(
        &with_signature(|part| {
            part.size = 2;
            part.path.push([0; 32]);
        }),
        &trust(),
    );
    assert_report(&report, Verdict::Invalid, &[Reason::BadSignature]);
}

#[test]
fn a_license_is_valid_from_its_first_to_its_last_second() {
    let content = content();
    let (first, last) = (content.valid_from.first_second(), content.valid_until.unwrap().last_second());
    let trust = trust();
    let at = |at: i64| verify(&good_envelope(), &trust, u64::try_from(at).unwrap(), &mut RootCache::new());
    assert_report(&at(first - 1), Verdict::Invalid, &[Reason::NotYetValid]);
    assert_report(&at(first), Verdict::Valid, &[]);
    assert_report(&at(last), Verdict::Valid, &[]);
    assert_report(&at(last + 1), Verdict::Invalid, &[Reason::Expired]);
    let endless = signed(|content| content.valid_until = None);
    let report = verify(&endless, &trust, NOW + 999 * DAY, &mut RootCache::new());
    assert_report(&report, Verdict::Valid, &[]);
}

#[test]
fn past_the_end_of_the_trust_bundle_nothing_can_be_told() {
    let report = under(|bundle| bundle.expires = NOW + 1);
    assert_report(&report, Verdict::Valid, &[]);
    let report = under(|bundle| bundle.expires = NOW);
    assert_report(&report, Verdict::Unknown, &[Reason::TrustExpired]);
    let mut expired = bundle();
    expired.expires = NOW;
    let expired = Trust::new(expired).unwrap();
    // A key may have come since; a broken signature stays broken.
    let report = check(&envelope(&content(), &[&Pair::ed25519(77)]), &expired);
    assert_report(&report, Verdict::Unknown, &[Reason::TrustExpired, Reason::UnknownSigner]);
    let report = check(&with_signature(|part| part.value[0] ^= 1), &expired);
    assert_report(&report, Verdict::Invalid, &[Reason::TrustExpired, Reason::BadSignature]);
}
