//! Opening a restart image in a process of its own, before the gateway opens it. An engine that meets damage may panic
//! in its own threads, hang or abort; there it costs a child, here it would cost the gateway.
//!
//! A start and `log verify` call it. The child is what crashes: a start then makes the image anew.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ledger::Engine;

/// The hidden command of this program that the child runs.
pub const COMMAND: &str = "store-check";
/// How long the child may take at least: it reads the whole image, at about a million values in some seconds.
const LIMIT: Duration = Duration::from_secs(120);
/// And longer for an image that is large, in bytes a second: what a cold and busy disk gives.
const SLOWEST: u64 = 4 << 20;
const POLL: Duration = Duration::from_millis(5);

/// The probe of the ledger's options.
pub type Probe = dyn Fn(&Path, Engine) -> Result<(), String> + Send + Sync;

/// A probe that runs `program`, which is this one.
pub fn of_program(program: PathBuf, origin: String) -> Arc<Probe> {
    Arc::new(move |data, engine| {
        let words = [COMMAND, "--engine", engine.name(), "--origin", &origin, "--data"].map(OsStr::new);
        run(Command::new(&program).args(words).arg(data), limit(&data.join("store").join(engine.name())))
    })
}

/// How long the child may take for a store. A part that cannot be looked at adds nothing.
fn limit(store: &Path) -> Duration {
    LIMIT + Duration::from_secs(bytes_below(store) / SLOWEST)
}

fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(of).fold(0, u64::saturating_add)
}

/// Whether the child ended well and in time. A program that cannot be started says nothing about the image.
fn run(command: &mut Command, limit: Duration) -> Result<(), String> {
    let mut child = match command.stdin(Stdio::null()).stdout(Stdio::null()).spawn() {
        Ok(child) => child,
        Err(error) => {
            tracing::warn!(%error, "the restart image is opened without a probe");
            return Ok(());
        }
    };
    let ended = wait(&mut child, limit);
    if !matches!(ended, Ok(Some(_))) {
        // Not ended, or nobody knows: it must not keep the store open.
        let _ = child.kill();
        let _ = child.wait();
    }
    match ended {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(status)) => Err(status.to_string()),
        Ok(None) => Err(format!("not done after {} s", limit.as_secs())),
        Err(error) => Err(error.to_string()),
    }
}

/// Waits for the end, until the limit.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<std::process::ExitStatus>> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if began.elapsed() >= limit {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<(), String> {
        run(Command::new("/bin/sh").args(["-c", script]), limit)
    }

    #[test]
    fn only_a_child_that_ends_well_and_in_time_vouches_for_an_image() {
        let long = Duration::from_secs(60);
        assert_eq!(shell("exit 0", long), Ok(()));
        assert!(shell("exit 1", long).is_err());
        assert!(shell("kill -ABRT $$", long).is_err());
        assert_eq!(shell("exec sleep 1000", Duration::ZERO), Err("not done after 0 s".to_owned()));
    }

    #[test]
    fn a_large_image_may_take_longer() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(limit(&folder.path().join("absent")), LIMIT);
        std::fs::create_dir(folder.path().join("blobs")).expect("a folder");
        for (name, bytes) in [("db", 40 << 30), ("blobs/1", 60 << 30)] {
            let file = std::fs::File::create(folder.path().join(name)).expect("a file");
            file.set_len(bytes).expect("a file with nothing in it");
        }
        assert_eq!(limit(folder.path()), LIMIT + Duration::from_secs((100 << 30) / SLOWEST));
    }

    #[test]
    fn a_program_that_cannot_be_started_says_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let probe = of_program(folder.path().join("absent"), "log.example/1".to_owned());
        assert_eq!(probe(folder.path(), Engine::Sled), Ok(()));
    }
}
