use crate::fixture::*;
use verifier::{
    license::{RootCache, verify},
    note::NoteError,
    report::{Reason, Verdict},
    trust::{Trust, TrustBundle, TrustError, encode_text},
};

fn refused(change: impl FnOnce(&mut TrustBundle)) -> TrustError {
    let mut bundle = bundle();
    change(&mut bundle);
    Trust::new(bundle).unwrap_err()
}

/// Why a bundle of this text, well signed, is refused.
fn text_refused(text: &str) -> TrustError {
    let note = sign_note(9, "trust.example", text);
    Trust::parse_note(&note, Some(&note_key(9, "trust.example").1), 0).unwrap_err()
}

#[test]
fn a_signed_bundle_reads_back() {
    let anchor = note_key(9, "trust.example").1;
    let trust = Trust::parse_note(&trust_note(&bundle()), Some(&anchor), 7).unwrap();
    assert_eq!(*trust, bundle());
    assert!(trust.is_anchored());
    let key = Pair::ed25519(1).trust_key();
    assert_eq!(trust.key(&key.key_id).unwrap().organisation.as_str(), ISSUER);
    assert!(trust.key(&[0; 16]).is_none());
    assert!(trust.log(LOG).is_some() && trust.log("other").is_none());
}

#[test]
fn the_text_is_the_document_of_the_format() {
    let text = encode_text(&bundle());
    assert!(text.ends_with("}\n") && text.matches('\n').count() == 1);
    assert!(text.starts_with(r#"{"version":1,"sequence":7,"issuedAt":"#), "{text}");
    for member in [
        r#""requiredSuites":[{"suite":1,"from":0}]"#,
        r#""compromisedAtSize":null"#,
        r#""witnesses":[],"peers":[],"authority":"trust.example+"#,
        r#""logs":[{"origin":"log.example/1","key":"log.example/1+"#,
    ] {
        assert!(text.contains(member), "{member}");
    }
}

#[test]
fn an_unanchored_bundle_says_so_in_every_report() {
    let trust = Trust::parse_note(&trust_note(&bundle()), None, 0).unwrap();
    let report = verify(&good_envelope(), &trust, NOW, &mut RootCache::new());
    assert_eq!((report.verdict, codes(&report)), (Verdict::Unknown, vec!["no-anchor"]));
    assert!(report.not_checked.contains(&"trust-signature"));
}

#[test]
fn a_bundle_that_the_authority_did_not_sign_is_refused() {
    let note = trust_note(&bundle());
    let (_, anchor) = note_key(9, "trust.example");
    let error = Trust::parse_note(&note, Some(&note_key(8, "trust.example").1), 0).unwrap_err();
    assert_eq!(error, TrustError::Note(NoteError::NoKnownKey));
    assert_eq!(error.reason(), Reason::BadTrustSignature);
    let forged = note.replace("\"sequence\":7", "\"sequence\":8");
    let error = Trust::parse_note(&forged, Some(&anchor), 0).unwrap_err();
    assert_eq!(error.reason(), Reason::BadTrustSignature);
    let elsewhere = TrustBundle { authority: Some(note_key(8, "trust.example").1), ..bundle() };
    let error = Trust::parse_note(&trust_note(&elsewhere), Some(&anchor), 0).unwrap_err();
    assert_eq!((error.clone(), error.reason()), (TrustError::Authority, Reason::BadTrustSignature));
    assert_eq!(Trust::parse_note("rubbish", None, 0).unwrap_err().reason(), Reason::MalformedTrust);
}

#[test]
fn a_lower_sequence_than_seen_is_refused() {
    let error = Trust::parse_note(&trust_note(&bundle()), None, 8).unwrap_err();
    assert_eq!(error, TrustError::Rollback { found: 7, minimum: 8 });
    assert_eq!(error.reason(), Reason::TrustRollback);
}

#[test]
fn documents_of_another_form_are_refused() {
    let text = encode_text(&bundle());
    for bad in [
        text.replace("{\"version\"", "{\"extra\":1,\"version\""),
        text.replace("\"from\":0", "\"from\":0,\"extra\":1"),
        text.replace("\"sequence\":7", "\"sequence\":7,\"sequence\":8"),
        text.replace("\"sequence\":7", "\"sequence\":-7"),
        text.replace(ISSUER, "11100000MB03271690"),
        text.replace("\"keyId\":\"", "\"keyId\":\"zz"),
        format!("{text}{text}"),
        "\n".to_owned(),
    ] {
        assert!(matches!(text_refused(&bad), TrustError::Malformed(_)), "{bad}");
    }
    let version = text.replace("\"version\":1", "\"version\":2");
    assert_eq!(text_refused(&version), TrustError::Version(2));
}

#[test]
fn bundles_that_contradict_themselves_are_refused() {
    let error = refused(|bundle| bundle.issuers[0].keys[0].key_id[0] ^= 1);
    assert!(matches!(error, TrustError::BadKey(_)));
    let error = refused(|bundle| {
        let key = &mut bundle.issuers[0].keys[0];
        key.suite = 2;
    });
    assert!(matches!(error, TrustError::BadKey(_)));
    // One key for two authorities would let each sign for the other.
    let error = refused(|bundle| bundle.issuers[1].keys = bundle.issuers[0].keys.clone());
    assert!(matches!(error, TrustError::Duplicate(_)));
    let error = refused(|bundle| bundle.issuers[1].organisation = bundle.issuers[0].organisation);
    assert!(matches!(error, TrustError::Duplicate(_)));
    let error = refused(|bundle| bundle.logs.push(bundle.logs[0].clone()));
    assert_eq!(error, TrustError::Duplicate(LOG.to_owned()));
    let error = refused(|bundle| bundle.logs[0].origin = "other".to_owned());
    assert_eq!(error, TrustError::LogName("other".to_owned()));
}

#[test]
fn a_key_of_a_suite_of_tomorrow_does_not_spoil_the_bundle() {
    let mut bundle = bundle();
    bundle.issuers[1].keys[0].suite = 9;
    let trust = Trust::new(bundle).unwrap();
    assert!(trust.key(&Pair::ed25519(2).trust_key().key_id).unwrap().public.is_none());
}
