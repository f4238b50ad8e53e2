//! nginx of Debian: static files over the same mTLS, from memory as far as nginx keeps anything there.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::child::{self, Running};
use super::pki::Pki;

/// The program, and the package that has it.
pub(super) const NAME: &str = "nginx";

/// Serves `files` (name and content) as JSON.
///
/// # Errors
/// nginx is not there, or does not start.
pub(super) fn start(
    folder: &Path,
    pki: &Pki,
    core: usize,
    files: &[(&str, &[u8])],
) -> anyhow::Result<Running> {
    let program = child::program(NAME).context("nginx is not installed")?;
    let root = folder.join("files");
    std::fs::create_dir_all(&root)?;
    for (name, content) in files {
        std::fs::write(root.join(name), content)?;
    }
    let address = child::free_address()?;
    let config = folder.join("nginx.conf");
    std::fs::write(&config, configuration(folder, &root, pki, &address.to_string())?)?;
    let mut command = Command::new(program);
    command.arg("-p").arg(folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(&config);
    Running::listening(&mut command, core, address)
}

fn configuration(folder: &Path, root: &Path, pki: &Pki, listen: &str) -> anyhow::Result<String> {
    // Run by root, its worker would be nobody, who may not read the folder.
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    let mut text = format!(
        "{user}daemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n\
         access_log off;\n\
         default_type application/json;\n\
         keepalive_requests 1000000;\n\
         keepalive_timeout 1h;\n\
         open_file_cache max=100 inactive=1h;\n\
         open_file_cache_valid 1h;\n",
        folder = quoted(folder)?,
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(text, "{kind}_temp_path {}/{kind};", quoted(folder)?)?;
    }
    write!(
        text,
        "server {{\n\
         listen {listen} ssl;\n\
         root {root};\n\
         ssl_protocols TLSv1.3;\n\
         ssl_session_tickets off;\n\
         ssl_certificate {certificate};\n\
         ssl_certificate_key {key};\n\
         ssl_client_certificate {ca};\n\
         ssl_verify_client on;\n\
         }}\n}}\n",
        root = quoted(root)?,
        certificate = quoted(&pki.server_certificate)?,
        key = quoted(&pki.server_key)?,
        ca = quoted(&pki.ca)?,
    )?;
    Ok(text)
}

/// A path as a word of the configuration.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().context("a path that is not text")?;
    anyhow::ensure!(
        !text.contains(['"', '\\', '$', '\n', ';', ' ']),
        "nginx does not take the path {text:?}"
    );
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_would_be_configuration_is_refused() {
        assert_eq!(quoted(Path::new("/a/b-1")).unwrap(), "/a/b-1");
        for path in ["/a;user x", "/a b", "/$x", "/a\"", "/a\nb"] {
            assert!(quoted(Path::new(path)).is_err(), "{path:?}");
        }
    }
}
