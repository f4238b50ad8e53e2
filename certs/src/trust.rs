//! Signed trust bundles (section 3 of the formats).
//!
//! The trust authority alone signs. Bundles are values here; their file is whole or absent.

use crate::keys::ed25519;
use crate::sealed::{KeyFolder, TRUST};
use crate::{Error, file, pem};
use ring::signature::KeyPair;
use std::path::Path;
use verifier::note::{VerifierKey, signature_line};
use verifier::trust::{Trust, TrustBundle, encode_text};
use zeroize::Zeroizing;

/// Label of a PKCS#8 key.
const PKCS8: &str = "PRIVATE KEY";

/// The trust authority: who signs trust bundles. Its key need not lie where the exchange runs.
pub struct Authority {
    anchor: VerifierKey,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl Authority {
    /// With this name and this Ed25519 key, PKCS#8.
    ///
    /// # Errors
    /// No such key, or no name for one.
    pub fn new(name: &str, pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, Error> {
        Ok(Self { anchor: anchor(name, &pkcs8)?, pkcs8 })
    }

    /// With the key in a PEM file that is its owner's alone (`openssl genpkey -algorithm ed25519`).
    ///
    /// # Errors
    /// [`Error::Permissions`], [`Error::Io`], and those of [`Authority::new`].
    pub fn from_file(name: &str, path: &Path) -> Result<Self, Error> {
        const WHAT: &str = "trust authority's key";
        let text = file::read_private(WHAT, path)?;
        let text =
            std::str::from_utf8(&text).map_err(|_| Error::Malformed { what: WHAT, reason: "not UTF-8" })?;
        let key =
            pem::one(text, "PKCS#8 key", &[PKCS8]).map_err(|source| Error::Pem { what: WHAT, source })?;
        Self::new(name, key.der)
    }

    /// With the key `trust` of a key folder.
    ///
    /// # Errors
    /// The folder holds no such key, and those of [`Authority::new`].
    pub fn of_folder(name: &str, folder: &KeyFolder) -> Result<Self, Error> {
        Self::new(name, folder.load(TRUST)?)
    }

    /// The key that checkers are given to know it by.
    pub fn anchor(&self) -> &VerifierKey {
        &self.anchor
    }

    /// Like [`sign_bundle`].
    ///
    /// # Errors
    /// Those of [`sign_bundle`].
    pub fn sign(&self, bundle: &TrustBundle) -> Result<String, Error> {
        sign_bundle(bundle, self.anchor.name(), &self.pkcs8)
    }
}

/// The verifier key under which `name` and the Ed25519 key in `pkcs8` sign: what checkers are given as anchor.
pub fn anchor(name: &str, pkcs8: &[u8]) -> Result<VerifierKey, Error> {
    Ok(VerifierKey::ed25519(name, &crate::keys::ed25519_public(pkcs8)?)?)
}

/// Signs a trust bundle with the trust authority's key, which it puts into the bundle, and returns the signed note. A
/// bundle that a checker would refuse (an unknown version, a key twice, a key that is not what its identifier says) is not
/// signed.
pub fn sign_bundle(bundle: &TrustBundle, name: &str, pkcs8: &[u8]) -> Result<String, Error> {
    let key = anchor(name, pkcs8)?;
    let bundle = &TrustBundle { authority: Some(key.clone()), ..bundle.clone() };
    Trust::new(bundle.clone())?;
    let pair = ed25519(pkcs8)
        .filter(|pair| pair.public_key().as_ref() == key.key())
        .ok_or(Error::Malformed { what: "trust key", reason: "not an Ed25519 key in PKCS#8" })?;
    let text = encode_text(bundle);
    let mut signature = [0; 64];
    signature.copy_from_slice(pair.sign(text.as_bytes()).as_ref());
    Ok(format!("{text}\n{}", signature_line(&key, &signature)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::keys::{ED25519, ES256, create_issuer_key, create_missing};
    use crate::sealed::{Kek, KeyFolder};
    use schemas::identifier::Uscc;
    use verifier::trust::{RequiredSuite, TrustError, TrustIssuer, TrustKey, TrustLog};

    const NAME: &str = "trust.example.test";

    /// A bundle with one issuer, and the PKCS#8 of a trust key.
    pub(crate) fn example() -> (TrustBundle, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let folder = KeyFolder::new(dir.path().join("keys"), Kek::create(&dir.path().join("kek")).unwrap());
        create_missing(&folder, &crate::sealed::NAMES).unwrap();
        let organisation: Uscc = "11100000MB0341032Y".parse().unwrap();
        let keys = [ED25519, ES256].map(|suite| {
            let key = create_issuer_key(&folder, organisation, suite).unwrap();
            TrustKey {
                suite,
                key_id: key.key_id,
                spki: key.spki,
                from: 0,
                until: 2_000_000_000,
                compromised_at_size: None,
            }
        });
        let origin = "log.example.test";
        let bundle = TrustBundle {
            version: 1,
            sequence: 7,
            issued_at: 1_790_000_000,
            expires: 1_821_536_000,
            journal_index: 0,
            issuers: vec![TrustIssuer {
                organisation,
                name: "测试发证机关".to_owned(),
                types: vec!["11100000MB0341032Y001".parse().unwrap()],
                required_suites: vec![RequiredSuite { suite: ED25519, from: 0 }],
                keys: keys.to_vec(),
            }],
            logs: vec![TrustLog {
                origin: origin.to_owned(),
                key: anchor(origin, &folder.load("log").unwrap()).unwrap(),
            }],
            witnesses: Vec::new(),
            mirrors: Vec::new(),
            peers: Vec::new(),
            authority: Some(anchor(NAME, &folder.load("trust").unwrap()).unwrap()),
        };
        (bundle, folder.load("trust").unwrap().to_vec())
    }

    #[test]
    fn a_signed_bundle_is_what_checkers_read() {
        let (bundle, pkcs8) = example();
        let note = sign_bundle(&bundle, NAME, &pkcs8).unwrap();
        let anchor = anchor(NAME, &pkcs8).unwrap();
        let trust = Trust::parse_note(&note, Some(&anchor), 7).unwrap();
        assert_eq!(*trust, bundle);
        assert!(trust.is_anchored());
        assert!(matches!(Trust::parse_note(&note, Some(&anchor), 8), Err(TrustError::Rollback { .. })));
    }

    #[test]
    fn another_key_name_or_text_is_refused() {
        let (bundle, pkcs8) = example();
        let note = sign_bundle(&bundle, NAME, &pkcs8).unwrap();
        let (_, other) = example();
        for anchor in [anchor(NAME, &other).unwrap(), anchor("other.example.test", &pkcs8).unwrap()] {
            assert!(Trust::parse_note(&note, Some(&anchor), 0).is_err());
        }
        let changed = note.replacen("\"sequence\":7", "\"sequence\":8", 1);
        assert!(Trust::parse_note(&changed, Some(&anchor(NAME, &pkcs8).unwrap()), 0).is_err());
    }

    #[test]
    fn the_one_key_of_a_file_signs_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("authority.pem");
        let pems = [example().1, example().1].map(|pkcs8| {
            use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64.encode(pkcs8))
        });
        let read = |text: String| {
            file::replace("key", &path, text.as_bytes(), file::PRIVATE).unwrap();
            Authority::from_file(NAME, &path).map(|_| ())
        };
        let [one, two] = &pems;
        assert!(read(one.clone()).is_ok());
        for text in
            [format!("{one}{two}"), format!("\u{feff}{one}{two}"), format!("\u{feff}{one}"), String::new()]
        {
            assert!(matches!(read(text), Err(Error::Pem { .. })));
        }
    }

    #[test]
    fn what_a_checker_would_refuse_is_not_signed() {
        let (good, pkcs8) = example();
        let refused = |change: fn(&mut TrustBundle)| {
            let mut bundle = good.clone();
            change(&mut bundle);
            assert!(matches!(sign_bundle(&bundle, NAME, &pkcs8), Err(Error::Trust(_))));
        };
        refused(|bundle| bundle.version = 2);
        refused(|bundle| bundle.issuers.push(bundle.issuers[0].clone()));
        refused(|bundle| bundle.issuers[0].keys[0].key_id[0] ^= 1);
        assert!(matches!(sign_bundle(&good, "a name", &pkcs8), Err(Error::Note(_))));
        assert!(matches!(sign_bundle(&good, NAME, b"no key"), Err(Error::Malformed { .. })));
    }
}
