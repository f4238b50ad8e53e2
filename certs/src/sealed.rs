//! The key-encryption key and the key files sealed under it (section 7 of the formats).
//!
//! `init`, `certs issuer` and the ledger alone write key files. A kill leaves the old file or the new one, and perhaps
//! a temporary one.

use crate::{Error, file};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use schemas::identifier::Uscc;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// First bytes of a sealed key file.
pub const MAGIC: &[u8; 4] = b"MXK1";
/// Bytes of an AES-256 key.
pub const KEY_BYTES: usize = 32;
/// Names of the keys that are not an issuer's.
pub const NAMES: [&str; 5] = ["journal", "index", EPOCH, "log", TRUST];
/// Those without which nobody goes on with a journal. The trust authority's key may lie elsewhere.
pub const OF_JOURNAL: [&str; 4] = ["journal", "index", EPOCH, "log"];
/// Name of the trust authority's key, where the exchange holds it.
pub const TRUST: &str = "trust";
/// Name of the current epoch's key with the holders' keys of earlier epochs; the ledger's format.
pub const EPOCH: &str = "epoch";
/// Name of the next epoch's key, while an epoch is being changed.
pub const EPOCH_NEXT: &str = "epoch.next";

const KEK: &str = "key-encryption key";
const SEALED: &str = "sealed key";
const FOLDER: &str = "key folder";
/// Longest file of the epoch's key, in bytes: 76 for each holder.
const MAX_EPOCH_BYTES: u64 = 2 << 30;
const ISSUERS: &str = "issuers";
const AAD_PREFIX: &[u8] = b"miaoxiang key file v1\0";
/// Bytes that a sealed file has around its secret: magic, nonce, tag.
const OVERHEAD: usize = MAGIC.len() + NONCE_LEN + 16;

/// The key-encryption key: seals every other key file, lies in a file of its own (mode 0600) and never in one
/// backup with them.
#[derive(Clone)]
pub struct Kek {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl Kek {
    /// Makes a new key and writes it to `path`, durably. Refuses to overwrite ([`Error::Exists`]).
    pub fn create(path: &Path) -> Result<Self, Error> {
        let bytes = random_key()?;
        let mut text = Zeroizing::new(hex::encode(bytes.as_slice()));
        text.push('\n');
        if let Some(folder) = path.parent() {
            file::create_folder(FOLDER, folder)?;
        }
        file::create(KEK, path, text.as_bytes(), file::PRIVATE)?;
        Ok(Self { bytes })
    }

    /// Reads the key from `path`. Refuses a file that group or others may access ([`Error::Permissions`]) and
    /// anything but 64 hexadecimal digits and a newline.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let malformed = |reason| Error::Malformed { what: KEK, reason };
        let text = file::read_private(KEK, path)?;
        let digits = text.strip_suffix(b"\n").unwrap_or(&text);
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        hex::decode_to_slice(digits, bytes.as_mut_slice())
            .map_err(|_| malformed("not 64 hexadecimal digits and a newline"))?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(malformed("all zeros"));
        }
        Ok(Self { bytes })
    }

    fn aead(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, self.bytes.as_slice()).expect("32 bytes make an AES-256 key");
        LessSafeKey::new(key)
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kek(redacted)")
    }
}

/// The parts of the name of an issuer's key file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IssuerKeyName {
    /// The issuing authority.
    pub organisation: Uscc,
    /// Signature suite (section 2 of the formats).
    pub suite: u8,
    /// First 16 bytes of SHA-256 of the SubjectPublicKeyInfo.
    pub key_id: [u8; 16],
}

impl fmt::Display for IssuerKeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ISSUERS}/{}.{}.{}", self.organisation.as_str(), self.suite, hex::encode(self.key_id))
    }
}

impl IssuerKeyName {
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(ISSUERS)?.strip_prefix('/')?.split('.');
        let organisation = parts.next()?.parse().ok()?;
        let suite = parts.next()?.parse().ok()?;
        let mut key_id = [0; 16];
        hex::decode_to_slice(parts.next()?, &mut key_id).ok()?;
        let parsed = Self { organisation, suite, key_id };
        // Printed back and compared: one name for one key, whatever the parsers above are lenient about.
        (parts.next().is_none() && parsed.to_string() == name).then_some(parsed)
    }
}

/// The folder of sealed key files, with the key that opens them.
#[derive(Clone, Debug)]
pub struct KeyFolder {
    folder: PathBuf,
    kek: Kek,
}

impl KeyFolder {
    /// The folder `folder` (`keys` of a data folder); it is made when the first key is created.
    pub fn new(folder: impl Into<PathBuf>, kek: Kek) -> Self {
        Self { folder: folder.into(), kek }
    }

    /// Seals `secret` and writes it under `name`, durably. A key that exists is never overwritten
    /// ([`Error::Exists`]); a kill leaves the whole file or none.
    pub fn create(&self, name: &str, secret: &[u8]) -> Result<(), Error> {
        let (path, content) = self.seal(name, secret)?;
        file::create(SEALED, &path, &content, file::PRIVATE)
    }

    /// Seals `secret` and puts it in the place of the key that may be there, durably; a kill leaves the whole old file
    /// or the whole new one. Once the new one is durable the old one's bytes are overwritten where they lie: as far as
    /// the file system and the disk write in place. Any copy that they keep elsewhere is still sealed.
    pub fn replace(&self, name: &str, secret: &[u8]) -> Result<(), Error> {
        let (path, content) = self.seal(name, secret)?;
        file::replace_and_wipe(SEALED, &path, &content, file::PRIVATE)
    }

    /// Overwrites a key where it lies, as far as the disk does, and removes its file, durably. Nothing happens when
    /// there is none. A crash leaves the key, or a file that is no key any more and [`KeyFolder::remove_left_over`]
    /// wipes.
    pub fn destroy(&self, name: &str) -> Result<(), Error> {
        file::destroy(SEALED, &self.path(name)?)
    }

    /// Wipes what a killed [`KeyFolder::replace`] of a key left beside it. Only for who alone writes this key.
    pub fn remove_left_over(&self, name: &str) -> Result<(), Error> {
        file::wipe_temporaries(SEALED, &self.path(name)?)
    }

    fn seal(&self, name: &str, secret: &[u8]) -> Result<(PathBuf, Vec<u8>), Error> {
        let path = self.path(name)?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| Error::Randomness)?;
        // Sealed in place, with room for the tag, so that no copy of the secret is left behind.
        let mut content = Vec::with_capacity(secret.len() + OVERHEAD);
        content.extend_from_slice(MAGIC);
        content.extend_from_slice(&nonce);
        let start = content.len();
        content.extend_from_slice(secret);
        let tag = self
            .kek
            .aead()
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                aad(name),
                content.get_mut(start..).unwrap_or_default(),
            )
            .map_err(|_| Error::Malformed { what: SEALED, reason: "too long to seal" })?;
        content.extend_from_slice(tag.as_ref());
        if let Some(folder) = path.parent() {
            file::create_folder(FOLDER, folder)?;
        }
        Ok((path, content))
    }

    /// Opens the key `name`. [`Error::Unsealing`] when the key-encryption key is another one, the file belongs
    /// to another name, or a bit has changed.
    pub fn load(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
        let malformed = |reason| Error::Malformed { what: SEALED, reason };
        let longest = if name == EPOCH { MAX_EPOCH_BYTES } else { file::MAX_FILE_BYTES };
        let mut content = file::read_up_to(SEALED, &self.path(name)?, longest)?;
        if content.len() < OVERHEAD {
            return Err(malformed("shorter than an empty sealed key"));
        }
        let body = content.strip_prefix(MAGIC).ok_or_else(|| malformed("does not begin with MXK1"))?;
        let (nonce, _) = body.split_first_chunk::<NONCE_LEN>().ok_or_else(|| malformed("no nonce"))?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let start = MAGIC.len() + NONCE_LEN;
        let length = self
            .kek
            .aead()
            .open_within(nonce, aad(name), &mut content, start..)
            .map_err(|_| Error::Unsealing { name: name.to_owned() })?
            .len();
        content.truncate(length);
        Ok(content)
    }

    /// Whether a file of this name exists; says nothing about its content.
    pub fn exists(&self, name: &str) -> Result<bool, Error> {
        let path = self.path(name)?;
        path.try_exists().map_err(Error::io(SEALED, &path))
    }

    /// Names of all issuer keys, sorted. Files that are no issuer key are passed over: the left-over of a
    /// killed process is one.
    pub fn list_issuer_keys(&self) -> Result<Vec<IssuerKeyName>, Error> {
        let folder = self.folder.join(ISSUERS);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io(FOLDER, &folder)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io(FOLDER, &folder))?;
            if let Some(name) = entry.file_name().to_str() {
                names.extend(IssuerKeyName::parse(&format!("{ISSUERS}/{name}")));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Only the names of section 7 become paths, so no name leads out of the folder.
    fn path(&self, name: &str) -> Result<PathBuf, Error> {
        if NAMES.contains(&name) || name == EPOCH_NEXT || IssuerKeyName::parse(name).is_some() {
            Ok(self.folder.join(name))
        } else {
            Err(Error::KeyName(name.chars().take(80).collect()))
        }
    }
}

/// Bytes of the secret in a sealed key file, if that is what it is.
pub(crate) fn secret_length(content: &[u8]) -> Option<usize> {
    content.starts_with(MAGIC).then_some(content.len().checked_sub(OVERHEAD))?
}

/// 32 random bytes.
pub(crate) fn random_key() -> Result<Zeroizing<[u8; KEY_BYTES]>, Error> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    SystemRandom::new().fill(bytes.as_mut_slice()).map_err(|_| Error::Randomness)?;
    Ok(bytes)
}

/// The name is authenticated: a file renamed to stand for another key does not open.
fn aad(name: &str) -> Aad<Vec<u8>> {
    Aad::from([AAD_PREFIX, name.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    fn folder() -> (TempDir, KeyFolder) {
        let dir = tempfile::tempdir().unwrap();
        let kek = Kek::create(&dir.path().join("kek")).unwrap();
        let folder = KeyFolder::new(dir.path().join("keys"), kek);
        (dir, folder)
    }

    #[test]
    fn seals_and_opens() {
        let (dir, folder) = folder();
        for secret in [&b""[..], b"x", &[7; 1000]] {
            let name = NAMES[secret.len().min(2)];
            folder.create(name, secret).unwrap();
            let again = KeyFolder::new(dir.path().join("keys"), Kek::load(&dir.path().join("kek")).unwrap());
            assert_eq!(again.load(name).unwrap().as_slice(), secret);
            let mode = fs::metadata(dir.path().join("keys").join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn sealed_bytes_are_as_documented() {
        let (dir, folder) = folder();
        folder.create("journal", &[9; 32]).unwrap();
        let kek = fs::read_to_string(dir.path().join("kek")).unwrap();
        let key = hex::decode(kek.strip_suffix('\n').unwrap()).unwrap();
        let content = fs::read(dir.path().join("keys/journal")).unwrap();
        assert_eq!((&content[..4], content.len()), (&b"MXK1"[..], 4 + 12 + 32 + 16));
        let nonce = Nonce::try_assume_unique_for_key(&content[4..16]).unwrap();
        let mut sealed = content[16..].to_vec();
        let opened = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap())
            .open_in_place(nonce, Aad::from(b"miaoxiang key file v1\0journal"), &mut sealed)
            .unwrap();
        assert_eq!(opened, [9; 32]);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let (dir, folder) = folder();
        folder.create("journal", b"secret").unwrap();
        let path = dir.path().join("keys/journal");
        let whole = fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).unwrap();
            assert!(folder.load("journal").is_err(), "bit {bit}");
        }
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(folder.load("journal").is_err(), "length {length}");
        }
    }

    #[test]
    fn another_kek_is_refused_without_a_hint() {
        let (dir, folder) = folder();
        folder.create("journal", b"secret").unwrap();
        let other = KeyFolder::new(dir.path().join("keys"), Kek::create(&dir.path().join("kek2")).unwrap());
        let error = other.load("journal").unwrap_err();
        assert!(matches!(&error, Error::Unsealing { name } if name == "journal"));
        assert!(!error.to_string().contains("secret"));
    }

    #[test]
    fn a_renamed_file_is_refused() {
        let (dir, folder) = folder();
        folder.create("journal", b"secret").unwrap();
        fs::rename(dir.path().join("keys/journal"), dir.path().join("keys/index")).unwrap();
        assert!(matches!(folder.load("index"), Err(Error::Unsealing { .. })));
    }

    #[test]
    fn nothing_is_overwritten() {
        let (dir, folder) = folder();
        folder.create("journal", b"first").unwrap();
        assert!(matches!(folder.create("journal", b"second"), Err(Error::Exists { .. })));
        assert_eq!(folder.load("journal").unwrap().as_slice(), b"first");
        assert!(matches!(Kek::create(&dir.path().join("kek")), Err(Error::Exists { .. })));
        // and the refused attempts leave nothing behind
        assert_eq!(fs::read_dir(dir.path().join("keys")).unwrap().count(), 1);
    }

    #[test]
    fn a_key_is_replaced_whole_and_the_old_bytes_are_overwritten() {
        let (dir, folder) = folder();
        let path = dir.path().join("keys/epoch");
        folder.replace(EPOCH, &[1; 5000]).unwrap();
        let old = fs::read(&path).unwrap();
        // A second name for the old file shows what became of its bytes.
        let kept = dir.path().join("kept");
        fs::hard_link(&path, &kept).unwrap();
        folder.replace(EPOCH, b"second").unwrap();
        assert_eq!(folder.load(EPOCH).unwrap().as_slice(), b"second");
        assert_eq!(fs::read(&kept).unwrap(), vec![0; old.len()]);
        assert_eq!(fs::read_dir(dir.path().join("keys")).unwrap().count(), 1);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        // What a kill before the rename leaves beside it, of this key and of another.
        let left = [".epoch.17.new", ".epoch.next.17.new"].map(|name| dir.path().join("keys").join(name));
        left.iter().for_each(|left| fs::write(left, b"sealed").unwrap());
        folder.remove_left_over(EPOCH).unwrap();
        assert_eq!(left.each_ref().map(|left| left.exists()), [false, true]);
        folder.remove_left_over(EPOCH_NEXT).unwrap();
        assert!(!left[1].exists() && path.exists());

        fs::remove_file(&kept).unwrap();
        fs::hard_link(&path, &kept).unwrap();
        folder.destroy(EPOCH).unwrap();
        assert!(!path.exists());
        assert!(fs::read(&kept).unwrap().iter().all(|byte| *byte == 0));
        folder.destroy(EPOCH).unwrap();
    }

    #[test]
    fn a_readable_kek_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kek");
        Kek::create(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = Kek::load(&path).unwrap_err();
            assert!(matches!(error, Error::Permissions { mode: found, .. } if found == mode));
            assert!(error.to_string().contains("chmod 600"));
        }
        for mode in [0o600, 0o400] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Kek::load(&path).unwrap();
        }
    }

    #[test]
    fn a_malformed_kek_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kek");
        Kek::create(&path).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        let zeros = format!("{}\n", "0".repeat(64));
        let long = format!("{}00\n", &good[..64]);
        let bad = good.replacen(&good[..1], "g", 1);
        for text in ["", "\n", &good[2..], &long, &bad, &format!(" {good}"), &zeros] {
            fs::write(&path, text).unwrap();
            assert!(matches!(Kek::load(&path), Err(Error::Malformed { .. })));
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(Kek::load(&path), Err(Error::Io { .. })));
    }

    #[test]
    fn only_known_names_become_paths() {
        let (_dir, folder) = folder();
        let names = [
            "",
            "kek",
            "../journal",
            "/journal",
            "journal/",
            "issuers/",
            "issuers/../journal",
            "issuers/x.1.00",
        ];
        for name in names {
            assert!(matches!(folder.create(name, b"x"), Err(Error::KeyName(_))), "{name}");
            assert!(matches!(folder.load(name), Err(Error::KeyName(_))), "{name}");
        }
    }

    #[test]
    fn a_left_over_of_a_killed_process_is_passed_over() {
        let (dir, folder) = folder();
        fs::create_dir_all(dir.path().join("keys/issuers")).unwrap();
        fs::write(dir.path().join("keys/issuers/.x.1.00.17.new"), b"half").unwrap();
        let own = format!("keys/.journal.{}.new", std::process::id());
        fs::write(dir.path().join(&own), b"half").unwrap();
        assert_eq!(folder.list_issuer_keys().unwrap(), []);
        assert!(!folder.exists("journal").unwrap());
        folder.create("journal", b"whole").unwrap();
        assert_eq!(folder.load("journal").unwrap().as_slice(), b"whole");
        assert!(!dir.path().join(&own).exists());
    }

    #[test]
    fn a_destroyed_key_loses_its_name_before_its_bytes() {
        let (dir, folder) = folder();
        let keys = dir.path().join("keys");
        folder.create("epoch.next", b"secret").unwrap();
        // Its name cannot be taken away: the key stays whole.
        let aside = keys.join(format!(".epoch.next.{}.new", std::process::id()));
        fs::create_dir(&aside).unwrap();
        assert!(matches!(folder.destroy("epoch.next"), Err(Error::Io { .. })));
        assert_eq!(folder.load("epoch.next").unwrap().as_slice(), b"secret");
        fs::remove_dir(&aside).unwrap();
        // What a kill after that leaves is no key any more, and wiped where it lies.
        let linked = dir.path().join("linked");
        fs::hard_link(keys.join("epoch.next"), &linked).unwrap();
        fs::rename(keys.join("epoch.next"), &aside).unwrap();
        assert!(!folder.exists("epoch.next").unwrap());
        folder.remove_left_over("epoch.next").unwrap();
        assert!(!aside.exists() && fs::read(&linked).unwrap().iter().all(|byte| *byte == 0));

        folder.create("epoch.next", b"secret").unwrap();
        fs::remove_file(&linked).unwrap();
        fs::hard_link(keys.join("epoch.next"), &linked).unwrap();
        folder.destroy("epoch.next").unwrap();
        assert!(!folder.exists("epoch.next").unwrap() && !aside.exists());
        assert!(fs::read(&linked).unwrap().iter().all(|byte| *byte == 0));
        folder.destroy("epoch.next").unwrap();
    }

    #[test]
    fn debug_shows_no_key() {
        let (dir, folder) = folder();
        let kek = fs::read_to_string(dir.path().join("kek")).unwrap();
        assert!(!format!("{folder:?}").contains(&kek[..8]));
    }
}
