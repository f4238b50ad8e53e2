//! Where the keys and the trust of an exchange lie in its data folder.
//!
//! Names alone; nothing to lose.

use crate::{Error, file};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Name of the configuration in a data folder.
pub const CONFIG: &str = "config.toml";
/// Folder of the sealed keys, unless the configuration names another.
pub const KEYS: &str = "keys";
/// The key-encryption key, unless the configuration names another file: outside the folder of what it seals, so that a
/// copy of that folder opens nothing.
pub const KEK: &str = "secret/kek";
/// The signed trust bundle, unless the configuration names another file.
pub const TRUST_BUNDLE: &str = "pki/trust-bundle.note";
/// The trust authority's verifier key, unless the configuration names another file.
pub const TRUST_ANCHOR: &str = "pki/trust-anchor.vkey";

/// The file that makes a folder a backup, which no command serves or writes.
pub const FENCE: &str = "FENCED.toml";

/// The paths of one data folder, as its configuration has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Folder of the sealed keys.
    pub keys: PathBuf,
    /// The key-encryption key.
    pub kek: PathBuf,
    /// The signed trust bundle.
    pub trust_bundle: PathBuf,
    /// The trust authority's verifier key.
    pub trust_anchor: PathBuf,
}

/// The part of a configuration that is read here; the exchange checks all of it.
#[derive(Default, Deserialize)]
struct Configuration {
    #[serde(default)]
    keys: Keys,
}

#[derive(Default, Deserialize)]
struct Keys {
    folder: Option<PathBuf>,
    kek: Option<PathBuf>,
    trust_bundle: Option<PathBuf>,
    trust_anchor: Option<PathBuf>,
}

impl Layout {
    /// The paths of a data folder; the usual ones where it has no configuration yet.
    ///
    /// # Errors
    /// The configuration cannot be read, or the folder is a backup.
    pub fn of(data: &Path) -> Result<Self, Error> {
        if data.join(FENCE).exists() {
            return Err(Error::Malformed {
                what: "data folder",
                reason: "is a backup: `exchange restore` it",
            });
        }
        let path = data.join(CONFIG);
        let found = if path.exists() {
            toml::from_str(&file::read_text("configuration", &path)?)
                .map_err(|_| Error::Malformed { what: "config.toml", reason: "cannot be read" })?
        } else {
            Configuration::default()
        };
        let Keys { folder, kek, trust_bundle, trust_anchor } = found.keys;
        let at = |path: Option<PathBuf>, usual: &str| data.join(path.unwrap_or_else(|| usual.into()));
        Ok(Self {
            keys: at(folder, KEYS),
            kek: at(kek, KEK),
            trust_bundle: at(trust_bundle, TRUST_BUNDLE),
            trust_anchor: at(trust_anchor, TRUST_ANCHOR),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_opens_all_others_lies_outside_their_folder() {
        let usual = Layout::of(Path::new("data")).unwrap();
        assert!(!usual.kek.starts_with(&usual.keys));
    }

    #[test]
    fn a_configuration_moves_what_it_names_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(CONFIG), "origin = \"a\"\n[keys]\nkek = \"/run/kek\"\n").unwrap();
        let moved = Layout::of(dir.path()).unwrap();
        assert_eq!(moved.kek, Path::new("/run/kek"));
        assert_eq!(moved.keys, dir.path().join(KEYS));
        std::fs::write(dir.path().join(FENCE), "").unwrap();
        assert!(Layout::of(dir.path()).is_err());
        std::fs::remove_file(dir.path().join(FENCE)).unwrap();
        std::fs::write(dir.path().join(CONFIG), "[keys").unwrap();
        assert!(Layout::of(dir.path()).is_err());
    }
}
