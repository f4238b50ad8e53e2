//! A credential service of fastify and `@sd-jwt` on Node, as one is put together today; see `bench/peers/node`.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::json;

use super::child::{self, Running};
use super::pki::Pki;
use verifier::command;

/// Program and lock file; they lie beside each other in the cache, where npm puts what they need.
const FILES: [(&str, &str); 3] = [
    ("package.json", include_str!("../../peers/node/package.json")),
    ("package-lock.json", include_str!("../../peers/node/package-lock.json")),
    ("server.mjs", include_str!("../../peers/node/server.mjs")),
];
/// Written when everything is installed: the lock file that it was installed from.
const STAMP: &str = "installed.json";

/// A running service.
pub(super) struct Node {
    /// The process.
    pub(super) running: Running,
    /// Body of a request whose verdict is valid.
    pub(super) valid: Vec<u8>,
    /// And of one whose verdict is not: the credential is revoked.
    pub(super) revoked: Vec<u8>,
}

/// The line it prints.
#[derive(Deserialize)]
struct Said {
    port: u16,
    valid: String,
    revoked: String,
}

/// Installs what is missing with npm into `cache`, and starts the service.
///
/// # Errors
/// Node or npm is not there, npm cannot install, or the service does not start.
pub(super) fn start(cache: &Path, pki: &Pki, core: usize) -> anyhow::Result<Node> {
    let node = child::program("node").context("node is not installed")?;
    install(cache)?;
    let mut command = Command::new(node);
    command
        .current_dir(cache)
        .arg("server.mjs")
        .args(
            [&pki.server_key, &pki.server_certificate, &pki.ca]
                .map(std::path::absolute)
                .into_iter()
                .collect::<Result<Vec<_>, _>>()?,
        )
        .env("NODE_ENV", "production");
    let mut said = None;
    let running = Running::speaking(&mut command, core, |line| {
        let line: Said = serde_json::from_str(line)?;
        let address = ([127, 0, 0, 1], line.port).into();
        said = Some(line);
        Ok(address)
    })?;
    let said = said.context("no line")?;
    let body = |credential: String| json!({ "sdJwt": credential }).to_string().into_bytes();
    Ok(Node { running, valid: body(said.valid), revoked: body(said.revoked) })
}

fn install(cache: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(cache)?;
    let lock = FILES[1].1;
    let stamp = cache.join(STAMP);
    for (name, text) in FILES {
        std::fs::write(cache.join(name), text)?;
    }
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    let npm = child::program("npm").context("npm is not installed")?;
    command::note("installing the Node peer with npm");
    let installed = Command::new(npm)
        .current_dir(cache)
        .args(["ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    ensure!(installed.success(), "npm cannot install the peer ({installed})");
    std::fs::write(stamp, lock)?;
    Ok(())
}
