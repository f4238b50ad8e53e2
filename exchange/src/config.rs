//! The configuration: one TOML file into one struct, checked before any port opens. Unknown keys are errors; secrets are
//! paths, never values.
//!
//! A process reads it at its start. `init` writes the first file, whole or not at all; later the operator alone does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use certs::layout;
use serde::{Deserialize, Serialize};
use verifier::note::{CosignerKey, MAX_SIGNATURES};

use crate::prefix::Prefix;
pub use crate::sharing::clock::Clocks;
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
    /// TLS files. Their content is taken in when it changes.
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
    /// Clocks of data sharing in working days, with their source. No reload.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub clocks: Clocks,
    /// The certificate that data providers are called with; without one none is called. Its content is taken in when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outgoing: Option<OutgoingFiles>,
    /// The identity provider whose assertions holders need; without one the portals vouch for them. No reload but of its keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityProvider>,
    /// The folder the file lies in; data lies beside it.
    #[serde(skip)]
    pub folder: PathBuf,
    /// This program, which opens a restart image in a process of its own before the gateway opens it; `None` leaves
    /// that out.
    #[serde(skip)]
    pub program: Option<PathBuf>,
    /// Serve development keys and certificates; only the command line says so.
    #[serde(skip)]
    pub development: bool,
    /// Start although the clock and the journal contradict each other; only the command line says so.
    #[serde(skip)]
    pub accept_clock: bool,
    /// The folder was moved here and its original is gone for good; only the command line says so.
    #[serde(skip)]
    pub moved: bool,
}

fn is_usual(clocks: &Clocks) -> bool {
    *clocks == Clocks::default()
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
    /// Authorities of client certificates with their revocation lists, PEM. Default `pki/ca.pem`.
    pub client_ca: PathBuf,
    /// How long a revocation list is still taken after its next one was due, hours. Default 0.
    pub crl_grace_hours: u32,
}

/// The certificate that data providers are called with.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutgoingFiles {
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PKCS#8 PEM.
    pub key: PathBuf,
}

/// An identity provider (OpenID Connect). One of `keys` and `discovery` says where its keys are.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityProvider {
    /// Its issuer, as assertions name it (`iss`).
    pub issuer: String,
    /// The name by which assertions are for this exchange (`aud`).
    pub audience: String,
    /// Its JWKS: a file, or an `https` address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<String>,
    /// Its discovery document: an `https` address, under the rule for outgoing addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<String>,
    /// Authorities of its server certificate, PEM. An `https` address needs them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<PathBuf>,
    /// How long its keys are taken after they were read last, minutes; behind that no assertion is. Default 1,440.
    #[serde(default = "a_day")]
    pub keep_minutes: NonZeroU32,
    /// Assurance levels that are taken (`acr`), the lowest first. Default: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<String>,
}

fn a_day() -> NonZeroU32 {
    const MINUTES: NonZeroU32 = NonZeroU32::new(1_440).expect("not zero");
    MINUTES
}

/// Key files.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Folder of the sealed keys. Default `keys`.
    pub folder: PathBuf,
    /// The key-encryption key; never in one backup with the folder of the sealed keys. Default `secret/kek`.
    pub kek: PathBuf,
    /// The signed trust bundle; one of a higher sequence is taken in when it is there. Default `pki/trust-bundle.note`.
    pub trust_bundle: PathBuf,
    /// The trust authority's verifier key. Default `pki/trust-anchor.vkey`.
    pub trust_anchor: PathBuf,
    /// Hour of the day (China Standard Time, 0 to 23) at which the epoch changes. Default 3.
    pub rotation_hour: u8,
    /// Days after the end of a holder's last license before the holder may be erased. Default 1,826: five years.
    pub retention_days: u32,
    /// Whole years that the sealed part of a use is kept after the year of the use (China Standard Time). Default 5, at least 1.
    pub uses_years: u16,
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
    /// How fast closed segments are read again to find damage, MiB a second. Default 1.
    pub scrub_mib_per_second: NonZeroU32,
}

/// The restart image: derived, made anew when it is deleted or another engine is chosen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// The engine that keeps it. Default `sled`.
    pub engine: Engine,
}

/// The engine that keeps the restart image.
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
    /// Connections of the data listener, a quarter of them for handshakes; fewer where the process may open too few files,
    /// and of the public and the admin listener never more. Default 4,096.
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
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self { data: at(8443), public: at(8444), admin: at(9464) }
    }
}

impl Listen {
    /// The data listener at an address, public and admin where the commands promise them: 8443 → 8444, 9464; any other
    /// port p → p + 1, p + 2; port 0 → 0, 0. Public is on the same host. Admin is on loopback whatever the host is: it
    /// speaks in clear and without identity.
    ///
    /// # Errors
    /// [`ConfigError::Value`]: there are no two ports behind this one.
    pub fn at(data: SocketAddr) -> Result<Self, ConfigError> {
        let [public, admin] = match data.port() {
            0 => [0, 0],
            8443 => [8444, 9464],
            port @ ..=MAX_DATA_PORT => [port + 1, port + 2],
            port => {
                let why =
                    format!("{port} leaves no port for public (+1) and admin (+2): at most {MAX_DATA_PORT}");
                return Err(ConfigError::Value { field: "--listen", why, place: None });
            }
        };
        let loopback = match data.ip() {
            own if own.is_loopback() => own,
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        Ok(Self { data, public: SocketAddr::new(data.ip(), public), admin: SocketAddr::new(loopback, admin) })
    }
}

/// The highest data port with two more behind it.
const MAX_DATA_PORT: u16 = u16::MAX - 2;

/// An address of the command line: an address and a port, or the name of a host and a port. A name stands for the first
/// of its addresses of version 4, if there is one.
///
/// # Errors
/// One line: it is neither, or the name has no address.
pub fn resolved(text: &str) -> Result<SocketAddr, String> {
    let found: Vec<_> =
        text.to_socket_addrs().map_err(|error| format!("HOST:PORT is needed: {error}"))?.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| "the name has no address".to_owned())
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificate: "pki/server.pem".into(),
            key: "pki/server.key".into(),
            client_ca: "pki/ca.pem".into(),
            crl_grace_hours: 0,
        }
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            folder: layout::KEYS.into(),
            kek: layout::KEK.into(),
            trust_bundle: layout::TRUST_BUNDLE.into(),
            trust_anchor: layout::TRUST_ANCHOR.into(),
            rotation_hour: 3,
            retention_days: 1_826,
            uses_years: 5,
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

/// Why a configuration cannot be used: the operator's fault.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The folder is a backup.
    #[error("{} is a backup: it is neither served nor written. `exchange restore --from` it (exchange/docs/guides/backup.md)", folder.display())]
    Fenced {
        /// Which folder.
        folder: PathBuf,
    },
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML of this shape.
    #[error("{}: {error}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where, with the line, and why.
        error: String,
    },
    /// A value is out of range.
    #[error("{field}: {why}{}", place.as_deref().unwrap_or_default())]
    Value {
        /// Which key, or option.
        field: &'static str,
        /// Why.
        why: String,
        /// The file and the line, when it stands in one.
        place: Option<String>,
    },
}

impl Config {
    /// Reads and checks a configuration file. That of a backup is refused: nothing serves or writes one.
    ///
    /// # Errors
    /// [`ConfigError`]; what is wrong in the file with its line.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let config = Self::load_fenced(path)?;
        if config.folder.join(layout::FENCE).exists() {
            return Err(ConfigError::Fenced { folder: config.folder });
        }
        Ok(config)
    }

    /// The same, of a backup too: to read what it holds.
    ///
    /// # Errors
    /// The same as of [`Config::load`].
    pub fn load_fenced(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        // Once, so that it means the same whatever the working folder is later.
        let path = std::path::absolute(path).map_err(unreadable)?;
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
        let mut config: Self = toml::from_str(&text).map_err(|error| ConfigError::Malformed {
            path: path.clone(),
            error: error.to_string().trim_end().to_owned(),
        })?;
        config.folder = path.parent().unwrap_or(&path).to_owned();
        config.check().map_err(|error| match error {
            ConfigError::Value { field, why, .. } => {
                ConfigError::Value { field, why, place: Some(place(&path, &text, field)) }
            }
            error => error,
        })?;
        Ok(config)
    }

    /// Checks the values, whatever they came from: the file, an option, a caller.
    ///
    /// # Errors
    /// [`ConfigError::Value`]
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |field, why: &str| ConfigError::Value { field, why: why.to_owned(), place: None };
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
        if self.keys.uses_years == 0 {
            return Err(bad("keys.uses_years", "at least 1"));
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

    /// Files of the TLS listeners that the configuration names and that are not there yet. They are no part of a log, so a
    /// log can be made, copied and continued without them, but not served.
    pub fn missing_tls(&self) -> Vec<PathBuf> {
        let named = [&self.tls.certificate, &self.tls.key, &self.tls.client_ca];
        named.into_iter().map(|path| self.path(path)).filter(|path| !path.exists()).collect()
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a configuration has only text and numbers")
    }
}

/// Where a key stands in a file: the line with a caret below its value. A key that is not there is named by the file.
fn place(path: &Path, text: &str, field: &str) -> String {
    let file = path.display();
    let Some(at) = span(text, field) else { return format!("\n in {file}") };
    let before = text.get(..at.start).unwrap_or_default();
    let number = before.matches('\n').count() + 1;
    let begin = before.rfind('\n').map_or(0, |at| at + 1);
    let line = text.get(begin..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let indent = before.get(begin..).unwrap_or_default().chars().count();
    let carets = text.get(at).unwrap_or_default().lines().next().unwrap_or_default().chars().count().max(1);
    let margin = " ".repeat(number.to_string().len());
    format!(
        "\n{margin}--> {file}, line {number}, column {}\n{margin} |\n{number} | {line}\n{margin} | {}{}",
        indent + 1,
        " ".repeat(indent),
        "^".repeat(carets)
    )
}

/// The bytes of a key's value; of a list of tables its first.
fn span(text: &str, field: &str) -> Option<std::ops::Range<usize>> {
    let table = toml::de::DeTable::parse(text).ok()?;
    let mut keys = field.split('.');
    let mut value = table.get_ref().get(keys.next()?)?;
    for key in keys {
        let table = match value.get_ref() {
            toml::de::DeValue::Array(list) => list.first()?.get_ref(),
            one => one,
        };
        value = table.get(key)?;
    }
    Some(value.span())
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
            ("origin = \"a\"\n[keys]\nuses_years = 0", "uses_years"),
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
            assert!(error.contains(&*path.to_string_lossy()), "the file: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_shown_with_its_line() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("config.toml");
        for (text, line, caret) in [
            (
                "origin = \"a\"\n[journal]\n  segment_mib = 3\n",
                "3 |   segment_mib = 3\n",
                "  |                 ^",
            ),
            (
                "origin = \"a\"\n[listen]\nadmin = \"0.0.0.0:1\"\n",
                "3 | admin = \"0.0.0.0:1\"\n",
                "  |         ^^^^^^^^^^^",
            ),
            ("origin = \"a b\"", "1 | origin = \"a b\"\n", "  |          ^^^^^"),
            ("origin = \"a\"\nsurprise = 1", "2 | surprise = 1\n", "  | ^^^^^^^^"),
        ] {
            std::fs::write(&path, text).expect("written");
            let error = Config::load(&path).expect_err("refused").to_string();
            assert!(error.contains(&format!("{line}{caret}")), "{error}");
            assert!(error.contains("line ") && error.contains("column "), "{error}");
        }
    }

    #[test]
    fn the_admin_listener_stays_on_loopback() {
        for (data, public, admin) in [
            ("0.0.0.0:9000", "0.0.0.0:9001", "127.0.0.1:9002"),
            ("192.0.2.1:8443", "192.0.2.1:8444", "127.0.0.1:9464"),
            ("127.0.0.2:9000", "127.0.0.2:9001", "127.0.0.2:9002"),
            ("[::]:9000", "[::]:9001", "[::1]:9002"),
            ("0.0.0.0:0", "0.0.0.0:0", "127.0.0.1:0"),
            ("127.0.0.1:65533", "127.0.0.1:65534", "127.0.0.1:65535"),
        ] {
            let listen = Listen::at(resolved(data).expect("an address")).expect("ports");
            assert_eq!(
                (listen.public.to_string(), listen.admin.to_string()),
                (public.to_owned(), admin.to_owned())
            );
        }
        for port in [65534, 65535] {
            let refused =
                Listen::at(SocketAddr::from(([127, 0, 0, 1], port))).expect_err("no ports").to_string();
            assert!(refused.contains("--listen") && refused.contains("65533"), "{refused}");
        }
        assert_eq!(resolved("localhost:9000").expect("an address").port(), 9000);
        assert!(resolved("nowhere").is_err());
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
