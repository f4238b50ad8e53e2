//! The configuration: one TOML file into one struct, checked before any port opens. Unknown keys are errors; secrets are
//! paths, never values.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use verifier::note::{CosignerKey, MAX_SIGNATURES};

use crate::cosign::Prefix;
use crate::shed;

/// A terabyte in twelve days.
const SCRUB_MIB_PER_SECOND: NonZeroU32 = NonZeroU32::new(1).expect("1 is not zero");

/// Everything `serve` needs; relative paths are relative to the file's folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Origin of the log, scheme-less: stands in every checkpoint and receipt and never changes. No reload.
    pub origin: String,
    /// How many of the witnesses must have cosigned a checkpoint before it is served; 0 without witnesses. No reload.
    #[serde(default)]
    pub quorum: usize,
    /// Listening addresses. No reload.
    #[serde(default)]
    pub listen: Listen,
    /// TLS files. No reload.
    #[serde(default)]
    pub tls: Tls,
    /// Key files. No reload.
    #[serde(default)]
    pub keys: Keys,
    /// The journal. No reload.
    #[serde(default)]
    pub journal: Journal,
    /// The restart image. No reload.
    #[serde(default)]
    pub store: Store,
    /// Caps. No reload.
    #[serde(default)]
    pub limits: Limits,
    /// Witnesses that cosign the log's checkpoints. No reload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<WitnessAddress>,
    /// The folder the file lies in; data lies beside it.
    #[serde(skip)]
    pub folder: PathBuf,
    /// This program, which opens a restart image in a process of its own before the gateway opens it; `None` leaves
    /// that out.
    #[serde(skip)]
    pub program: Option<PathBuf>,
    /// Start although the clock and the journal contradict each other; only the command line says so.
    #[serde(skip)]
    pub accept_clock: bool,
}

/// Listening addresses.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Data listener: TLS 1.3 with client certificates. Default `127.0.0.1:8443`.
    pub data: SocketAddr,
    /// Public listener: TLS 1.3, GET only. Default `127.0.0.1:8444`.
    pub public: SocketAddr,
    /// Admin listener: health, readiness, metrics, in clear on loopback. Default `127.0.0.1:9464`.
    pub admin: SocketAddr,
}

/// TLS files.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Server certificate chain, PEM. Default `pki/server.pem`.
    pub certificate: PathBuf,
    /// Server key, PKCS#8 PEM. Default `pki/server.key`.
    pub key: PathBuf,
    /// Authorities of client certificates, PEM. Default `pki/ca.pem`.
    pub client_ca: PathBuf,
}

/// Key files.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Folder of the sealed keys. Default `keys`.
    pub folder: PathBuf,
    /// The key-encryption key; keep it away from backups of the folder. Default `keys/kek`.
    pub kek: PathBuf,
    /// The signed trust bundle. Default `pki/trust-bundle.note`.
    pub trust_bundle: PathBuf,
    /// The trust authority's verifier key. Default `pki/trust-anchor.vkey`.
    pub trust_anchor: PathBuf,
    /// Hour of the day (China Standard Time, 0 to 23) at which the epoch changes. Default 3.
    pub rotation_hour: u8,
    /// Days after the end of a holder's last license before the holder may be erased. Default 1,826: five years.
    pub retention_days: u32,
}

/// The journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    /// Size of one segment file, MiB. Default 64.
    pub segment_mib: u64,
    /// Free space below which requests are refused, percent of the file system. Default 5.
    pub reserve_percent: u8,
    /// Free space below which requests are refused, segments. Default 2.
    pub reserve_segments: u32,
    /// How often the root over all holders' sequences is put into the log, seconds. Default 60.
    pub index_root_seconds: u64,
    /// Folder that `exchange archive` moves closed segments to, best on another disk. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<PathBuf>,
    /// How fast closed segments are read again to find damage, MiB a second. Default 4.
    pub scrub_mib_per_second: NonZeroU32,
}

/// The restart image: derived, made anew when it is deleted or another engine is chosen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// What it is kept in. Default `sled`.
    pub engine: Engine,
}

/// What the restart image is kept in.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// sled 0.34.7.
    #[default]
    Sled,
    /// fjall 3.
    Fjall,
}

impl From<Engine> for ledger::Engine {
    fn from(engine: Engine) -> Self {
        match engine {
            Engine::Sled => Self::Sled,
            Engine::Fjall => Self::Fjall,
        }
    }
}

/// Caps.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open connections of the data listener. Default 4,096.
    pub connections: usize,
    /// Open connections of one organisation. Default 1,024.
    pub connections_per_organisation: usize,
    /// Journaled refusals of one organisation a second. Default 50.
    pub refusals_a_second: NonZeroU32,
    /// Journaled refusals of one organisation at once. Default 1,000.
    pub refusal_burst: NonZeroU32,
}

/// A witness of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessAddress {
    /// Submission prefix: `http://host:port`, perhaps with a path. In clear: what is sent and answered is public and
    /// signed.
    pub url: String,
    /// Its verifier key.
    pub key: CosignerKey,
}

impl Default for Listen {
    fn default() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 8443)))
    }
}

impl Listen {
    /// The data listener at an address, public and admin where the commands promise them: 8443 → 8444, 9464; any other
    /// port p → p + 1, p + 2; port 0 → 0, 0.
    pub fn at(data: SocketAddr) -> Self {
        let port = |plus: u16| match data.port() {
            0 => 0,
            port => port.saturating_add(plus),
        };
        let admin = if data.port() == 8443 { 9464 } else { port(2) };
        Self { data, public: SocketAddr::new(data.ip(), port(1)), admin: SocketAddr::new(data.ip(), admin) }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificate: "pki/server.pem".into(),
            key: "pki/server.key".into(),
            client_ca: "pki/ca.pem".into(),
        }
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            folder: "keys".into(),
            kek: "keys/kek".into(),
            trust_bundle: "pki/trust-bundle.note".into(),
            trust_anchor: "pki/trust-anchor.vkey".into(),
            rotation_hour: 3,
            retention_days: 1_826,
        }
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            segment_mib: 64,
            reserve_percent: 5,
            reserve_segments: 2,
            index_root_seconds: 60,
            archive: None,
            scrub_mib_per_second: SCRUB_MIB_PER_SECOND,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            connections_per_organisation: 1_024,
            refusals_a_second: NonZeroU32::new(shed::REFUSALS_A_SECOND).unwrap_or(NonZeroU32::MIN),
            refusal_burst: NonZeroU32::new(shed::REFUSAL_BURST).unwrap_or(NonZeroU32::MIN),
        }
    }
}

/// Why a configuration cannot be used: the operator's fault, one line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML of this shape.
    #[error("{path}: {message}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// A value is out of range.
    #[error("{path}: {field}: {why}")]
    Value {
        /// Which file.
        path: PathBuf,
        /// Which key.
        field: &'static str,
        /// Why.
        why: String,
    },
}

impl Config {
    /// Reads and checks a configuration file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let mut config: Self = toml::from_str(&text).map_err(|error| {
            let message = error.to_string().trim_end().replace('\n', "; ");
            ConfigError::Malformed { path: path.to_owned(), message }
        })?;
        config.folder = path.parent().unwrap_or(Path::new(".")).to_owned();
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let bad = |field, why: &str| ConfigError::Value { path: path.to_owned(), field, why: why.to_owned() };
        let origin_fits = !self.origin.is_empty()
            && self.origin.len() <= 128
            && self.origin.bytes().all(|b| b.is_ascii_graphic() && b != b'+')
            && !self.origin.contains("://");
        if !origin_fits {
            return Err(bad("origin", "1 to 128 printable characters without scheme, space or +"));
        }
        if !(4..=1_024).contains(&self.journal.segment_mib) {
            return Err(bad("journal.segment_mib", "from 4 to 1024"));
        }
        if self.keys.rotation_hour > 23 {
            return Err(bad("keys.rotation_hour", "from 0 to 23"));
        }
        if self.journal.reserve_percent > 90 {
            return Err(bad("journal.reserve_percent", "from 0 to 90"));
        }
        if !(1..=3_600).contains(&self.journal.index_root_seconds) {
            return Err(bad("journal.index_root_seconds", "from 1 to 3600"));
        }
        // The log's own signature stands beside theirs, and a note has no more.
        if self.witnesses.len() >= MAX_SIGNATURES {
            return Err(bad("witnesses", "at most 15"));
        }
        if self.quorum > self.witnesses.len() || (self.quorum == 0) != self.witnesses.is_empty() {
            return Err(bad("quorum", "from 1 to the number of witnesses; 0 without witnesses"));
        }
        for (at, witness) in self.witnesses.iter().enumerate() {
            if Prefix::parse(&witness.url).is_none() {
                return Err(bad("witnesses.url", "http://host:port, perhaps with a path"));
            }
            if self.witnesses.iter().take(at).any(|other| other.key.key() == witness.key.key()) {
                return Err(bad("witnesses.key", "each witness counts once"));
            }
        }
        if !self.listen.admin.ip().is_loopback() {
            return Err(bad(
                "listen.admin",
                "must be a loopback address: it speaks in clear and without identity",
            ));
        }
        Ok(())
    }

    /// A path of the configuration, seen from the working folder.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a configuration has only text and numbers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness(url: &str) -> String {
        let key = CosignerKey::ed25519("w.example", &[1; 32]).expect("a key");
        format!("[[witnesses]]\nurl = \"{url}\"\nkey = \"{key}\"\n")
    }

    #[test]
    fn unknown_keys_and_bad_values_are_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("config.toml");
        for (text, word) in [
            ("origin = \"a/b\"\nsurprise = 1", "surprise"),
            ("origin = \"https://a\"", "origin"),
            ("origin = \"a\"\n[journal]\nsegment_mib = 0", "segment_mib"),
            ("origin = \"a\"\n[keys]\nrotation_hour = 24", "rotation_hour"),
            ("origin = \"a\"\n[journal]\nscrub_mib_per_second = 0", "nonzero"),
            ("origin = \"a\"\n[store]\nengine = \"paper\"", "paper"),
            ("origin = \"a\"\nquorum = 1", "quorum"),
            (&format!("origin = \"a\"\n{}", witness("http://127.0.0.1:1")), "quorum"),
            (&format!("origin = \"a\"\nquorum = 2\n{}", witness("http://127.0.0.1:1")), "quorum"),
            (&format!("origin = \"a\"\nquorum = 1\n{}", witness("https://127.0.0.1:1")), "url"),
            (&format!("origin = \"a\"\nquorum = 1\n{}", witness("http://127.0.0.1:1").repeat(2)), "key"),
            (
                &format!("origin = \"a\"\nquorum = 1\n{}", witness("http://127.0.0.1:1").repeat(16)),
                "witnesses",
            ),
            ("origin = \"a\"\n[listen]\nadmin = \"0.0.0.0:9464\"", "loopback"),
        ] {
            std::fs::write(&path, text).expect("written");
            let error = Config::load(&path).expect_err("refused").to_string();
            assert!(error.contains(word), "{error}");
            assert!(!error.contains('\n'), "one line: {error}");
        }
    }

    #[test]
    fn a_written_configuration_reads_back() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("config.toml");
        let text = format!("origin = \"log.example/1\"\nquorum = 1\n{}", witness("http://[::1]:7380/w"));
        std::fs::write(&path, text).expect("written");
        let config = Config::load(&path).expect("good");
        std::fs::write(&path, config.to_toml()).expect("written");
        assert_eq!(Config::load(&path).expect("good").to_toml(), config.to_toml());
    }
}
