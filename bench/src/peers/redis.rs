//! Redis of Debian over TLS with client certificates: what a keyed look-up in memory costs over the same connection.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rustls::ClientConfig;

use super::child::{self, Running};
use super::pki::{Pki, Probe};

/// The program, and the package that has it.
pub(super) const NAME: &str = "redis-server";
/// Bytes of a value.
pub(super) const VALUE_BYTES: usize = 1_024;
/// What Redis says to each SET.
const STORED: &[u8] = b"+OK\r\n";
/// Commands that are sent before their replies are read.
const PIPELINE: usize = 512;

/// Starts a Redis that keeps nothing on disk.
///
/// # Errors
/// Redis is not there, or does not start.
pub(super) fn start(folder: &Path, pki: &Pki, core: usize) -> anyhow::Result<Running> {
    let program = child::program(NAME).context("redis-server is not installed")?;
    let address = child::free_address()?;
    let port = address.port().to_string();
    let mut command = Command::new(program);
    command
        .args(["--bind", "127.0.0.1", "--port", "0", "--tls-port", &port])
        .args(["--save", "", "--appendonly", "no", "--logfile", ""])
        .args(["--tls-auth-clients", "yes", "--tls-protocols", "TLSv1.3", "--tls-session-caching", "no"])
        .args(["--dir".as_ref(), folder.as_os_str()])
        .args(["--tls-cert-file".as_ref(), pki.server_certificate.as_os_str()])
        .args(["--tls-key-file".as_ref(), pki.server_key.as_os_str()])
        .args(["--tls-ca-cert-file".as_ref(), pki.ca.as_os_str()]);
    Running::listening(&mut command, core, address)
}

/// The value of every key: the generator compares all of it.
pub(super) fn value() -> Vec<u8> {
    (0..VALUE_BYTES).map(|at| b'a' + (at % 26) as u8).collect()
}

/// The request for a key's value.
pub(super) fn get(number: usize) -> Vec<u8> {
    let key = key(number);
    format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).into_bytes()
}

fn key(number: usize) -> String {
    format!("license:{number:010}")
}

/// Stores the value under `keys` keys.
///
/// # Errors
/// The connection's, or Redis does not store.
pub(super) fn fill(redis: &Running, tls: &Arc<ClientConfig>, keys: usize) -> anyhow::Result<()> {
    let mut probe = Probe::open(redis.address, tls)?;
    let value = value();
    let (mut commands, mut replies) = (Vec::new(), Vec::new());
    for first in (0..keys).step_by(PIPELINE) {
        commands.clear();
        replies.clear();
        let count = PIPELINE.min(keys - first);
        for number in first..first + count {
            let key = key(number);
            commands.extend_from_slice(format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n", key.len()).as_bytes());
            commands.extend_from_slice(format!("${VALUE_BYTES}\r\n").as_bytes());
            commands.extend_from_slice(&value);
            commands.extend_from_slice(b"\r\n");
        }
        probe.send(&commands)?;
        while replies.len() < count * STORED.len() {
            probe.read(&mut replies)?;
        }
        ensure!(
            replies == STORED.repeat(count),
            "Redis says {}",
            String::from_utf8_lossy(&replies[..replies.len().min(80)])
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_key_with_its_length() {
        assert_eq!(get(7), b"*2\r\n$3\r\nGET\r\n$18\r\nlicense:0000000007\r\n");
        assert_eq!(value().len(), VALUE_BYTES);
    }
}
