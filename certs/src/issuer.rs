//! Issuing authorities of an exchange: their signing keys, sealed in its key folder, and what the trust bundle says of
//! them.
//!
//! Each step makes the key durable first and the bundle last. A run that was cut off between the two leaves a key that no
//! bundle lists; the exchange passes it over, and the next run takes it instead of another one.
//!
//! `certs issuer` alone calls it.

use crate::keys::{IssuerKey, create_issuer_key, load_issuer_keys};
use crate::layout::Layout;
use crate::sealed::{Kek, KeyFolder};
use crate::trust::Authority;
use crate::{Error, file};
use schemas::identifier::{LicenseTypeCode, Uscc};
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use verifier::note::VerifierKey;
use verifier::trust::{RequiredSuite, Trust, TrustBundle, TrustIssuer, TrustKey};

const BUNDLE: &str = "trust bundle";
const ANCHOR: &str = "trust anchor";
/// How long a key still signs that is ended without haste, seconds: until then every serving exchange has read the bundle
/// that says so, and has given its callers nothing that the key signed after its end.
pub const READ_WITHIN: u64 = 60;

/// Why an authority's keys are not changed.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// A file cannot be read or written, or is not what it should be.
    #[error(transparent)]
    File(#[from] Error),
    /// The bundle that is there is not signed by the anchor beside it.
    #[error("{BUNDLE}: {0}")]
    Bundle(#[from] verifier::trust::TrustError),
    /// The authority's key signs under another name or key than checkers know.
    #[error(
        "the trust authority's key is not the one of the {ANCHOR}: give the right one with --authority-key"
    )]
    OtherAuthority,
    /// The trust bundle does not list the organisation.
    #[error("{0} is no issuing authority of the trust bundle; `certs issuer add` makes it one")]
    Unknown(Uscc),
    /// The authority has no key in force that could be followed by another or ended.
    #[error("{0} has no such key in force")]
    NoKey(Uscc),
}

/// A data folder whose issuing authorities are changed.
pub struct Issuers {
    layout: Layout,
    folder: KeyFolder,
    authority: Authority,
    bundle: TrustBundle,
    /// Seconds since 1970.
    now: u64,
    /// Nobody else changes the bundle between reading and replacing it.
    _lock: File,
}

/// The result of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Sequence of the bundle that is in place now.
    pub sequence: u64,
    /// The key that signs from now on, in hexadecimal; `None` when none was made.
    pub key_id: Option<String>,
}

impl Issuers {
    /// Opens a data folder at a time. `authority_key` is the trust authority's key in PEM; without it the folder must hold
    /// the key itself.
    ///
    /// # Errors
    /// [`IssuerError`]; nothing is changed.
    pub fn open(data: &Path, authority_key: Option<&Path>, now: u64) -> Result<Self, IssuerError> {
        let layout = Layout::of(data)?;
        let folder = KeyFolder::new(&layout.keys, Kek::load(&layout.kek)?);
        let lock = lock(&layout.trust_bundle)?;
        let malformed = |_| Error::Malformed { what: ANCHOR, reason: "not a verifier key" };
        let anchor: VerifierKey =
            file::read_text(ANCHOR, &layout.trust_anchor)?.trim().parse().map_err(malformed)?;
        let trust = Trust::parse_note(&file::read_text(BUNDLE, &layout.trust_bundle)?, Some(&anchor), 0)?;
        let authority = match authority_key {
            Some(path) => Authority::from_file(anchor.name(), path)?,
            None => Authority::of_folder(anchor.name(), &folder)?,
        };
        if *authority.anchor() != anchor {
            return Err(IssuerError::OtherAuthority);
        }
        Ok(Self { layout, folder, authority, bundle: trust.bundle().clone(), now, _lock: lock })
    }

    /// Makes an organisation an issuing authority for these types, beside those that it may issue already, with a signing
    /// key of the suite that is good for `seconds`. One that has a key of the suite in force keeps it.
    ///
    /// # Errors
    /// [`IssuerError`]
    pub fn add(
        mut self,
        organisation: Uscc,
        name: &str,
        types: &[LicenseTypeCode],
        suite: u8,
        seconds: u64,
    ) -> Result<Changed, IssuerError> {
        if !self.bundle.issuers.iter().any(|issuer| issuer.organisation == organisation) {
            self.bundle.issuers.push(TrustIssuer {
                organisation,
                name: name.to_owned(),
                types: Vec::new(),
                required_suites: vec![RequiredSuite { suite, from: 0 }],
                keys: Vec::new(),
            });
        }
        let issuer = self.issuer(organisation)?;
        name.clone_into(&mut issuer.name);
        let new: Vec<_> = types.iter().filter(|code| !issuer.types.contains(code)).copied().collect();
        issuer.types.extend(new);
        let now = self.now;
        let in_force =
            self.issuer(organisation)?.keys.iter().any(|key| key.suite == suite && key.until > now);
        let key_id = if in_force { None } else { Some(self.new_key(organisation, suite, seconds)?) };
        self.finish(key_id)
    }

    /// Gives an authority a new signing key of the suite from now on. The old ones end after `overlap` seconds: until it has
    /// read the new bundle the exchange goes on signing with them.
    ///
    /// # Errors
    /// [`IssuerError`]
    pub fn rotate(
        mut self,
        organisation: Uscc,
        suite: u8,
        seconds: u64,
        overlap: u64,
    ) -> Result<Changed, IssuerError> {
        let now = self.now;
        let old = |key: &&mut TrustKey| key.suite == suite && key.until > now;
        let mut found = false;
        for key in self.issuer(organisation)?.keys.iter_mut().filter(old) {
            key.until = key.until.min(now + overlap.max(1));
            found = true;
        }
        if !found {
            return Err(IssuerError::NoKey(organisation));
        }
        let key_id = self.new_key(organisation, suite, seconds)?;
        self.finish(Some(key_id))
    }

    /// Ends an authority's key, or all of them, after `overlap` seconds ([`READ_WITHIN`]): until it has read the new
    /// bundle the exchange goes on signing with them. A license that they signed before their end stays valid; one that
    /// they sign behind it is not.
    ///
    /// # Errors
    /// [`IssuerError`]
    pub fn retire(
        mut self,
        organisation: Uscc,
        key_id: Option<[u8; 16]>,
        overlap: u64,
    ) -> Result<Changed, IssuerError> {
        let now = self.now;
        // This second is still the key's: it may have signed in it.
        let end = now + overlap.max(1);
        let mut found = false;
        for key in &mut self.issuer(organisation)?.keys {
            if key.until > now && key_id.is_none_or(|wanted| wanted == key.key_id) {
                key.until = key.until.min(end);
                found = true;
            }
        }
        if !found {
            return Err(IssuerError::NoKey(organisation));
        }
        self.finish(None)
    }

    fn issuer(&mut self, organisation: Uscc) -> Result<&mut TrustIssuer, IssuerError> {
        let found = self.bundle.issuers.iter_mut().find(|issuer| issuer.organisation == organisation);
        found.ok_or(IssuerError::Unknown(organisation))
    }

    /// Lists a key that signs from now on: one that a run that was cut off has left, or a new one.
    fn new_key(&mut self, organisation: Uscc, suite: u8, seconds: u64) -> Result<String, IssuerError> {
        let listed = |key: &IssuerKey| {
            self.bundle.issuers.iter().flat_map(|issuer| &issuer.keys).any(|known| known.key_id == key.key_id)
        };
        let left_over = load_issuer_keys(&self.folder)?
            .into_iter()
            .find(|key| key.organisation == organisation && key.suite == suite && !listed(key));
        let key = match left_over {
            Some(key) => key,
            None => create_issuer_key(&self.folder, organisation, suite)?,
        };
        // The newest key signs, so no two begin in one second.
        let now = self.now;
        let issuer = self.issuer(organisation)?;
        let from = issuer.keys.iter().map(|key| key.from + 1).fold(now, u64::max);
        let until = now + seconds;
        let listed = TrustKey {
            suite,
            key_id: key.key_id,
            spki: key.spki.clone(),
            from,
            until,
            compromised_at_size: None,
        };
        issuer.keys.push(listed);
        Ok(hex::encode(key.key_id))
    }

    /// Signs the bundle with the next sequence, good for as long as the one before was, and puts it in its place.
    fn finish(mut self, key_id: Option<String>) -> Result<Changed, IssuerError> {
        let lifetime = self.bundle.expires.saturating_sub(self.bundle.issued_at);
        self.bundle.sequence += 1;
        self.bundle.issued_at = self.now;
        self.bundle.expires = self.now + lifetime;
        let text = self.authority.sign(&self.bundle)?;
        file::replace(BUNDLE, &self.layout.trust_bundle, text.as_bytes(), file::PUBLIC)?;
        Ok(Changed { sequence: self.bundle.sequence, key_id })
    }
}

/// Locks a bundle for who changes it, through a file beside it that nobody reads.
fn lock(bundle: &Path) -> Result<File, Error> {
    let path = bundle.with_added_extension("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(Error::io(BUNDLE, &path))?;
    file.try_lock().map_err(|error| {
        let error = match error {
            TryLockError::WouldBlock => {
                io::Error::new(io::ErrorKind::WouldBlock, "another command changes the bundle now")
            }
            TryLockError::Error(error) => error,
        };
        Error::io(BUNDLE, &path)(error)
    })?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{ED25519, ES256, create_missing};
    use crate::sealed::OF_JOURNAL;
    use crate::trust::tests::example;
    use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
    use std::fs;
    use tempfile::TempDir;
    use zeroize::Zeroizing;

    const ORGANISATION: &str = "11100000MB0341032Y";
    const NOW: u64 = 1_800_000_000;
    const YEAR: u64 = 365 * 86_400;

    fn pem(pkcs8: &[u8]) -> String {
        let text = BASE64.encode(pkcs8);
        format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
    }

    fn organisation() -> Uscc {
        ORGANISATION.parse().unwrap()
    }

    fn code() -> LicenseTypeCode {
        "11100000MB0341032Y001".parse().unwrap()
    }

    /// A data folder with an empty bundle, and the authority's key in PEM outside it.
    fn made() -> (TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::of(dir.path()).unwrap();
        let folder = KeyFolder::new(&layout.keys, Kek::create(&layout.kek).unwrap());
        create_missing(&folder, &OF_JOURNAL).unwrap();
        let (mut bundle, pkcs8) = example();
        bundle.issuers.clear();
        let authority = Authority::new("trust.example.test", Zeroizing::new(pkcs8.clone())).unwrap();
        file::create_folder("pki", layout.trust_bundle.parent().unwrap()).unwrap();
        fs::write(&layout.trust_anchor, authority.anchor().to_string()).unwrap();
        fs::write(&layout.trust_bundle, authority.sign(&bundle).unwrap()).unwrap();
        let path = dir.path().join("authority.pem");
        file::create("key", &path, pem(&pkcs8).as_bytes(), file::PRIVATE).unwrap();
        (dir, path)
    }

    fn at(dir: &TempDir, key: &Path, now: u64) -> Issuers {
        Issuers::open(dir.path(), Some(key), now).unwrap()
    }

    fn bundle(dir: &TempDir, key: &Path) -> TrustBundle {
        at(dir, key, NOW).bundle
    }

    #[test]
    fn a_key_follows_another_and_ends_and_each_bundle_is_the_next() {
        let (dir, key) = made();
        let first = at(&dir, &key, NOW).add(organisation(), "机关", &[code()], ED25519, YEAR).unwrap();
        assert_eq!(first.sequence, 8);
        // Adding again changes what the authority may issue, not its key.
        let again = at(&dir, &key, NOW + 1).add(organisation(), "机关", &[code()], ED25519, YEAR).unwrap();
        assert_eq!((again.sequence, again.key_id), (9, None));
        let second = at(&dir, &key, NOW + 100).rotate(organisation(), ED25519, YEAR, 50).unwrap();
        assert_eq!(second.sequence, 10);
        let issuer = bundle(&dir, &key).issuers.remove(0);
        assert_eq!(issuer.types, [code()]);
        let times: Vec<_> = issuer.keys.iter().map(|key| (key.from, key.until)).collect();
        assert_eq!(times, [(NOW, NOW + 150), (NOW + 100, NOW + 100 + YEAR)]);
        assert_eq!(second.key_id, Some(hex::encode(issuer.keys[1].key_id)));
        // A serving exchange that has not read the bundle yet signs with a key in force.
        at(&dir, &key, NOW + 150).retire(organisation(), None, READ_WITHIN).unwrap();
        let ended = bundle(&dir, &key);
        assert_eq!(ended.issuers[0].keys[1].until, NOW + 210);
        assert_eq!((ended.sequence, ended.issued_at), (11, NOW + 150));
        // At once, also one that ends soon; never later than it would.
        at(&dir, &key, NOW + 200).retire(organisation(), None, 0).unwrap();
        at(&dir, &key, NOW + 200).retire(organisation(), None, READ_WITHIN).unwrap();
        let ended = bundle(&dir, &key);
        let ends: Vec<_> = ended.issuers[0].keys.iter().map(|key| key.until).collect();
        assert_eq!((ends, ended.sequence), (vec![NOW + 150, NOW + 201], 13));
        assert!(matches!(
            at(&dir, &key, NOW + 201).retire(organisation(), None, READ_WITHIN),
            Err(IssuerError::NoKey(_))
        ));
        assert!(matches!(
            at(&dir, &key, NOW + 201).rotate(organisation(), ED25519, YEAR, 0),
            Err(IssuerError::NoKey(_))
        ));
    }

    #[test]
    fn a_run_that_was_cut_off_behind_its_key_is_completed_with_it() {
        let (dir, key) = made();
        let issuers = at(&dir, &key, NOW);
        let left = create_issuer_key(&issuers.folder, organisation(), ES256).unwrap();
        let made = issuers.add(organisation(), "机关", &[code()], ES256, YEAR).unwrap();
        assert_eq!(made.key_id, Some(hex::encode(left.key_id)));
    }

    #[test]
    fn two_at_once_never_sign_two_bundles_of_one_sequence() {
        let (dir, key) = made();
        let first = at(&dir, &key, NOW);
        let second = Issuers::open(dir.path(), Some(&key), NOW).map(|_| ());
        assert!(matches!(second, Err(IssuerError::File(Error::Io { .. }))), "{second:?}");
        first.add(organisation(), "机关", &[code()], ED25519, YEAR).unwrap();
        let next = at(&dir, &key, NOW).rotate(organisation(), ED25519, YEAR, 50).unwrap();
        assert_eq!(next.sequence, 9);
    }

    #[test]
    fn another_authority_s_key_changes_nothing() {
        let (dir, key) = made();
        let (_, other) = example();
        let text = pem(&other);
        let other = dir.path().join("other.pem");
        file::create("key", &other, text.as_bytes(), file::PRIVATE).unwrap();
        let before = bundle(&dir, &key);
        let refused = Issuers::open(dir.path(), Some(&other), NOW).map(|_| ());
        assert!(matches!(refused, Err(IssuerError::OtherAuthority)));
        // The folder does not hold the authority's key.
        assert!(matches!(Issuers::open(dir.path(), None, NOW).map(|_| ()), Err(IssuerError::File(_))));
        assert_eq!(bundle(&dir, &key), before);
        let unknown = at(&dir, &key, NOW).retire(organisation(), None, READ_WITHIN);
        assert!(matches!(unknown, Err(IssuerError::Unknown(_))));
    }
}
