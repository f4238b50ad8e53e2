//! The keys of an exchange and of the issuing authorities it signs for.
//!
//! `init`, `certs` and a start call it. A crash leaves a key file that is whole or absent.

use crate::Error;
use crate::sealed::{EPOCH, IssuerKeyName, KeyFolder, random_key};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use schemas::identifier::Uscc;
use std::fmt;
use zeroize::Zeroizing;

/// Suite number of Ed25519 (section 2 of the formats).
pub const ED25519: u8 = 1;
/// Suite number of ECDSA P-256 with SHA-256.
pub const ES256: u8 = 2;

/// DER of a SubjectPublicKeyInfo up to the key: Ed25519 (RFC 8410, 32 bytes follow).
const SPKI_ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// DER of a SubjectPublicKeyInfo up to the key: P-256 (RFC 5480, an uncompressed point of 65 bytes follows).
const SPKI_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Makes those of the exchange's own keys `names` that are missing and returns their names. The `epoch` key is bound to a
/// log, and the exchange that begins the log makes it.
///
/// For a data folder without a journal, or one whose making was interrupted: a lost `journal` or `index` key
/// cannot be replaced by a new one, and the caller must not call this to try.
pub fn create_missing(folder: &KeyFolder, names: &[&'static str]) -> Result<Vec<&'static str>, Error> {
    let mut made = Vec::new();
    for &name in names {
        if name == EPOCH || folder.exists(name)? {
            continue;
        }
        match name {
            "journal" | "index" => folder.create(name, random_key()?.as_slice())?,
            _ => folder.create(name, &generate(ED25519)?)?,
        }
        made.push(name);
    }
    Ok(made)
}

/// A key that signs licenses for one authority.
pub struct IssuerKey {
    /// The authority.
    pub organisation: Uscc,
    /// Signature suite: [`ED25519`] or [`ES256`].
    pub suite: u8,
    /// First 16 bytes of SHA-256 of `spki`.
    pub key_id: [u8; 16],
    /// SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// The private key, PKCS#8.
    pub pkcs8: Zeroizing<Vec<u8>>,
}

impl IssuerKey {
    fn new(organisation: Uscc, suite: u8, pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, Error> {
        let spki = spki(suite, &pkcs8)?;
        Ok(Self { organisation, suite, key_id: key_id(&spki), spki, pkcs8 })
    }

    fn name(&self) -> IssuerKeyName {
        IssuerKeyName { organisation: self.organisation, suite: self.suite, key_id: self.key_id }
    }
}

impl fmt::Debug for IssuerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuerKey({})", self.name())
    }
}

/// Makes a signing key for an authority and seals it, durably. [`Error::Suite`] for a suite that cannot sign.
pub fn create_issuer_key(folder: &KeyFolder, organisation: Uscc, suite: u8) -> Result<IssuerKey, Error> {
    let key = IssuerKey::new(organisation, suite, generate(suite)?)?;
    folder.create(&key.name().to_string(), &key.pkcs8)?;
    Ok(key)
}

/// Opens all signing keys, sorted by authority and suite. A file whose name says another key than it holds is
/// an error, and so is any key that does not open: an exchange that signs with fewer keys than it was given
/// would fail later and less clearly.
pub fn load_issuer_keys(folder: &KeyFolder) -> Result<Vec<IssuerKey>, Error> {
    folder
        .list_issuer_keys()?
        .into_iter()
        .map(|name| {
            let key = IssuerKey::new(name.organisation, name.suite, folder.load(&name.to_string())?)?;
            if key.name() == name {
                Ok(key)
            } else {
                Err(Error::Malformed {
                    what: "issuer key",
                    reason: "its name says another key than it holds",
                })
            }
        })
        .collect()
}

/// The public half of an Ed25519 key in PKCS#8, such as `log` and `trust`.
pub fn ed25519_public(pkcs8: &[u8]) -> Result<[u8; 32], Error> {
    let rejected = || Error::Malformed { what: "Ed25519 key", reason: "not an Ed25519 key in PKCS#8" };
    let pair = ed25519(pkcs8).ok_or_else(rejected)?;
    pair.public_key().as_ref().try_into().map_err(|_| rejected())
}

/// An Ed25519 key in PKCS#8, with its public half or, as OpenSSL writes it, without.
pub(crate) fn ed25519(pkcs8: &[u8]) -> Option<Ed25519KeyPair> {
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok()
}

/// First 16 bytes of SHA-256 of a SubjectPublicKeyInfo.
pub fn key_id(spki: &[u8]) -> [u8; 16] {
    let hash = digest(&SHA256, spki);
    let mut id = [0; 16];
    id.copy_from_slice(hash.as_ref().split_at(16).0);
    id
}

fn generate(suite: u8) -> Result<Zeroizing<Vec<u8>>, Error> {
    let random = SystemRandom::new();
    let document = match suite {
        ED25519 => Ed25519KeyPair::generate_pkcs8(&random),
        ES256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random),
        other => return Err(Error::Suite(other)),
    };
    document.map(|document| Zeroizing::new(document.as_ref().to_vec())).map_err(|_| Error::Randomness)
}

fn spki(suite: u8, pkcs8: &[u8]) -> Result<Vec<u8>, Error> {
    let rejected = |_| Error::Malformed { what: "issuer key", reason: "not a key of its suite in PKCS#8" };
    match suite {
        ED25519 => {
            let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(rejected)?;
            Ok([&SPKI_ED25519, pair.public_key().as_ref()].concat())
        }
        ES256 => {
            let random = SystemRandom::new();
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random)
                .map_err(rejected)?;
            Ok([&SPKI_P256, pair.public_key().as_ref()].concat())
        }
        other => Err(Error::Suite(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealed::{Kek, NAMES};
    use std::fs;
    use tempfile::TempDir;
    use x509_parser::prelude::FromDer;

    /// A made-up organisation with right check characters.
    const ORGANISATION: &str = "11100000MB0341032Y";

    fn folder() -> (TempDir, KeyFolder) {
        let dir = tempfile::tempdir().unwrap();
        let kek = Kek::create(&dir.path().join("kek")).unwrap();
        let folder = KeyFolder::new(dir.path().join("keys"), kek);
        (dir, folder)
    }

    #[test]
    fn makes_what_is_missing_and_keeps_what_is_there() {
        let (dir, folder) = folder();
        let names: Vec<_> = NAMES.into_iter().filter(|name| *name != EPOCH).collect();
        assert_eq!(create_missing(&folder, &NAMES).unwrap(), names);
        let before: Vec<_> = names.iter().map(|name| folder.load(name).unwrap()).collect();
        assert_eq!(before.iter().map(|key| key.len()).take(2).collect::<Vec<_>>(), [32, 32]);
        assert!(!folder.exists(EPOCH).unwrap());
        assert_eq!(create_missing(&folder, &NAMES).unwrap(), [""; 0]);
        // A kill before the last two were made.
        for name in ["log", "trust"] {
            fs::remove_file(dir.path().join("keys").join(name)).unwrap();
        }
        assert_eq!(create_missing(&folder, &NAMES).unwrap(), ["log", "trust"]);
        for (name, key) in names.iter().zip(&before).take(2) {
            assert_eq!(&folder.load(name).unwrap(), key);
        }
        assert_ne!(folder.load("log").unwrap(), before[2]);
        ed25519_public(&folder.load("log").unwrap()).unwrap();
        assert!(ed25519_public(b"no key").is_err());
    }

    #[test]
    fn issuer_keys_round_trip_for_each_suite() {
        let (_dir, folder) = folder();
        let organisation: Uscc = ORGANISATION.parse().unwrap();
        let made = [
            create_issuer_key(&folder, organisation, ED25519).unwrap(),
            create_issuer_key(&folder, organisation, ES256).unwrap(),
        ];
        let loaded = load_issuer_keys(&folder).unwrap();
        assert_eq!(loaded.len(), 2);
        for (made, loaded) in made.iter().zip(&loaded) {
            assert_eq!((made.suite, made.key_id, &made.spki), (loaded.suite, loaded.key_id, &loaded.spki));
            assert_eq!(made.pkcs8, loaded.pkcs8);
            // An independent reader finds the same key in the SubjectPublicKeyInfo.
            let (rest, key) = x509_parser::x509::SubjectPublicKeyInfo::from_der(&loaded.spki).unwrap();
            assert!(rest.is_empty());
            assert_eq!(key.subject_public_key.data.len(), if loaded.suite == ED25519 { 32 } else { 65 });
        }
        assert!(!format!("{:?}", loaded[0]).contains(&hex::encode(&loaded[0].pkcs8[..8])));
    }

    #[test]
    fn unknown_suites_are_refused() {
        let (_dir, folder) = folder();
        let organisation: Uscc = ORGANISATION.parse().unwrap();
        for suite in [0, 3, 255] {
            assert!(
                matches!(create_issuer_key(&folder, organisation, suite), Err(Error::Suite(found)) if found == suite)
            );
        }
    }

    #[test]
    fn a_key_under_another_keys_name_is_refused() {
        let (dir, folder) = folder();
        let organisation: Uscc = ORGANISATION.parse().unwrap();
        let key = create_issuer_key(&folder, organisation, ED25519).unwrap();
        let other = IssuerKeyName { organisation, suite: ED25519, key_id: [7; 16] };
        // Moved: the sealed file does not open. Sealed anew: the key says another identifier.
        fs::rename(dir.path().join(format!("keys/{}", key.name())), dir.path().join(format!("keys/{other}")))
            .unwrap();
        assert!(matches!(load_issuer_keys(&folder), Err(Error::Unsealing { .. })));
        fs::remove_file(dir.path().join(format!("keys/{other}"))).unwrap();
        folder.create(&other.to_string(), &key.pkcs8).unwrap();
        assert!(matches!(load_issuer_keys(&folder), Err(Error::Malformed { .. })));
    }
}
