//! The content of a file of this crate, for people and scripts; never anything secret, and nothing is checked.
//!
//! `certs inspect` calls it. It only reads.

use crate::{Error, pem, pki, sealed};
use ring::digest::{SHA256, digest};
use schemas::date::rfc3339;
use serde_json::{Value, json};
use verifier::trust::Trust;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;

const FILE: &str = "file";

/// Describes certificates and revocation lists in PEM, a sealed key file, or a signed trust bundle. One JSON
/// object per thing found, in the order of the file; [`Error::Malformed`] when there is none.
pub fn describe(content: &[u8]) -> Result<Vec<Value>, Error> {
    if let Some(length) = sealed::secret_length(content) {
        return Ok(vec![json!({ "kind": "sealed key", "secretBytes": length })]);
    }
    let text = str::from_utf8(content)
        .map_err(|_| Error::Malformed { what: FILE, reason: "neither text nor a sealed key" })?;
    let mut found = Vec::new();
    for section in pem::sections(text).map_err(|source| Error::Pem { what: FILE, source })? {
        found.push(match section.label {
            pem::CERTIFICATE => certificate(&section.der)?,
            pem::REVOCATION_LIST => revocation_list(&section.der)?,
            _ => {
                let source = section.unexpected("certificates and revocation lists");
                return Err(Error::Pem { what: FILE, source });
            }
        });
    }
    if found.is_empty() {
        let trust = Trust::parse_note(text, None, 0).map_err(|_| Error::Malformed {
            what: FILE,
            reason: "no certificate, revocation list, sealed key or signed trust bundle",
        })?;
        found.push(bundle(&trust));
    }
    Ok(found)
}

fn certificate(der: &[u8]) -> Result<Value, Error> {
    let certificate = pki::parse(der)?;
    Ok(json!({
        "kind": "certificate",
        "subject": certificate.subject().to_string(),
        "issuer": certificate.issuer().to_string(),
        "serial": hex::encode(certificate.raw_serial()),
        "validFrom": time(&certificate.validity().not_before),
        "validUntil": time(&certificate.validity().not_after),
        "authority": certificate.is_ca(),
        "organisation": pki::organisation(der).ok().map(|uscc| uscc.to_string()),
        "development": pki::says_development(&certificate),
        "sha256": hex::encode(digest(&SHA256, der)),
    }))
}

fn revocation_list(der: &[u8]) -> Result<Value, Error> {
    let (_, list) = CertificateRevocationList::from_der(der)
        .map_err(|_| Error::Malformed { what: FILE, reason: "not an X.509 revocation list" })?;
    let revoked: Vec<_> =
        list.iter_revoked_certificates().map(|entry| hex::encode(entry.raw_serial())).collect();
    Ok(json!({
        "kind": "revocation list",
        "issuer": list.issuer().to_string(),
        "number": list.crl_number().map(ToString::to_string),
        "thisUpdate": time(&list.last_update()),
        "nextUpdate": list.next_update().as_ref().map(time),
        "revokedSerials": revoked,
    }))
}

fn bundle(trust: &Trust) -> Value {
    let issuers: Vec<_> = trust
        .issuers
        .iter()
        .map(|issuer| {
            let keys: Vec<_> = issuer
                .keys
                .iter()
                .map(|key| {
                    json!({
                        "suite": key.suite,
                        "keyId": hex::encode(key.key_id),
                        "from": seconds(key.from),
                        "until": seconds(key.until),
                        "compromised": key.compromised_at_size.is_some(),
                    })
                })
                .collect();
            json!({
                "organisation": issuer.organisation.to_string(),
                "name": issuer.name,
                "types": issuer.types.len(),
                "keys": keys,
            })
        })
        .collect();
    let logs: Vec<_> = trust.logs.iter().map(|log| log.origin.as_str()).collect();
    json!({
        "kind": "trust bundle",
        "signature": "not checked",
        "sequence": trust.sequence,
        "issuedAt": seconds(trust.issued_at),
        "expires": seconds(trust.expires),
        "issuers": issuers,
        "logs": logs,
    })
}

fn time(time: &ASN1Time) -> String {
    seconds(u64::try_from(time.timestamp()).unwrap_or(0))
}

fn seconds(seconds: u64) -> String {
    rfc3339(seconds.saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{DevelopmentPki, LEAF_VALIDITY, Validity};
    use crate::sealed::{Kek, KeyFolder};
    use crate::trust;
    use std::fs;

    #[test]
    fn each_kind_is_described_and_nothing_secret_is() {
        let dir = tempfile::tempdir().unwrap();
        let pki = DevelopmentPki::create_missing(dir.path().join("pki")).unwrap();
        let organisation = "11100000MB0341032Y";
        let year = Validity::starting_now(LEAF_VALIDITY);
        let files = pki.issue_client("bank", &[organisation.parse().unwrap()], year).unwrap();
        let pem = fs::read_to_string(&files.certificate).unwrap();

        let found = describe(pem.as_bytes()).unwrap();
        assert_eq!(found[0]["organisation"], organisation);
        assert_eq!((&found[0]["development"], &found[0]["authority"]), (&json!(true), &json!(false)));
        let serial = found[0]["serial"].clone();

        pki.revoke(&pem).unwrap();
        let both = format!("{}{}", pki.ca_pem(), fs::read_to_string(pki.crl_path()).unwrap());
        let found = describe(both.as_bytes()).unwrap();
        assert_eq!((&found[0]["authority"], &found[0]["organisation"]), (&json!(true), &Value::Null));
        assert_eq!(found[1]["revokedSerials"], json!([serial]));
        assert_eq!(found[1]["number"], "1");

        let folder = KeyFolder::new(dir.path().join("keys"), Kek::create(&dir.path().join("kek")).unwrap());
        folder.create("journal", &[7; 32]).unwrap();
        let found = describe(&fs::read(dir.path().join("keys/journal")).unwrap()).unwrap();
        assert_eq!(found, [json!({ "kind": "sealed key", "secretBytes": 32 })]);

        let (bundle, key) = trust::tests::example();
        let note = trust::sign_bundle(&bundle, "trust.example.test", &key).unwrap();
        let found = describe(note.as_bytes()).unwrap();
        assert_eq!((&found[0]["sequence"], &found[0]["logs"]), (&json!(7), &json!(["log.example.test"])));
        assert_eq!(found[0]["signature"], "not checked");

        // A private key is nothing that is described.
        for content in
            [fs::read(&files.key).unwrap(), fs::read(dir.path().join("kek")).unwrap(), vec![0xff; 64], vec![]]
        {
            assert!(matches!(
                describe(&content),
                Err(Error::Malformed { what: FILE, .. } | Error::Pem { .. })
            ));
        }
    }
}
