//! Signed reports: the report's JSON with the signature as its last member, so that a checker cuts it out byte for byte.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::Deserialize;

use crate::report::Report;

/// Name of the key's file in a bench folder: Ed25519, PKCS#8.
const KEY: &str = "bench.key";
/// What the signature covers before the report's bytes, so that the key signs nothing else by accident.
const CONTEXT: &[u8] = b"miaoxiang bench report v1\0";
/// What stands between the report and its signature.
const MEMBER: &str = ",\n  \"signature\": ";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    /// Public key, hex.
    key: String,
    /// Signature, base64.
    value: String,
}

/// The key of a bench folder, made when it is not there. A crash while it is made leaves no key or a whole one.
///
/// # Errors
/// The file system's; the file holds no key.
pub fn key(folder: &Path) -> anyhow::Result<Ed25519KeyPair> {
    let path = folder.join(KEY);
    if !path.exists() {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).ok().context("no randomness")?;
        let temporary = folder.join(format!("{KEY}.new"));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(key.as_ref())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
    }
    let key = std::fs::read(&path)?;
    Ed25519KeyPair::from_pkcs8(&key).ok().with_context(|| format!("{} holds no key", path.display()))
}

/// The report's text with its signature.
///
/// # Errors
/// The report is no JSON.
pub fn signed(report: &Report, key: &Ed25519KeyPair) -> anyhow::Result<String> {
    let text = serde_json::to_string_pretty(report)?;
    let value = key.sign(&[CONTEXT, text.as_bytes()].concat());
    let open = text.strip_suffix("\n}").context("a report is an object")?;
    let (key, value) = (hex::encode(key.public_key()), BASE64.encode(value));
    Ok(format!("{open}{MEMBER}{{\"key\": \"{key}\", \"value\": \"{value}\"}}\n}}\n"))
}

/// Checks a signed report; gives it with the key that signed it, hex.
///
/// # Errors
/// It is not what was signed, or no report.
pub fn verify(text: &str) -> anyhow::Result<(Report, String)> {
    let (open, signature) = text.rsplit_once(MEMBER).context("no signature")?;
    let signature = signature.strip_suffix("\n}\n").context("something stands behind the signature")?;
    let Signature { key, value } = serde_json::from_str(signature).context("the signature")?;
    let report = format!("{open}\n}}");
    let (public, value) =
        (hex::decode(&key).context("the key")?, BASE64.decode(value).context("the signature")?);
    let good =
        UnparsedPublicKey::new(&ED25519, public).verify(&[CONTEXT, report.as_bytes()].concat(), &value);
    ensure!(good.is_ok(), "the signature is not good: the report is not what was measured");
    Ok((serde_json::from_str(&report).context("no report")?, key))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::environment::Environment;
    use crate::report::VERSION;
    use crate::scenario::Scenario;

    pub(crate) fn report(began: &str) -> Report {
        Report {
            version: VERSION,
            began: began.to_owned(),
            scenario: "verify".to_owned(),
            plan: Scenario::load("verify").unwrap().0,
            origin: Some("bench/1".to_owned()),
            population: Some([2, 3]),
            cores: [Some(0), None],
            environment: Environment::default(),
            phases: Vec::new(),
            checks: None,
        }
    }

    #[test]
    fn no_bit_of_a_signed_report_can_change() {
        let folder = tempfile::tempdir().unwrap();
        let pair = key(folder.path()).unwrap();
        let text = signed(&report("2026-01-01T00:00:00Z"), &pair).unwrap();
        let (read, signer) = verify(&text).unwrap();
        assert_eq!(read.began, "2026-01-01T00:00:00Z");
        assert_eq!(signer, hex::encode(key(folder.path()).unwrap().public_key()), "the folder keeps its key");
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            // A hex digit of the key may change its case and nothing else.
            let Ok((_, key)) = verify(&changed) else { continue };
            assert!(key.eq_ignore_ascii_case(&signer), "byte {at}");
        }
        for changed in
            ["", "{}", &text[..text.len() - 1], &format!("{text} "), &text.replace("bench/1", "bench/2")]
        {
            assert!(verify(changed).is_err());
        }
        std::fs::write(folder.path().join(KEY), b"no key").unwrap();
        assert!(key(folder.path()).is_err());
    }
}
