//! What a run was made on and with; nothing that names a person, a host or a path.

use std::path::Path;
use std::process::Command;

use ring::digest;
use serde::{Deserialize, Serialize};

/// The machine and the programs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    /// Model of the processors.
    pub processor: String,
    /// How many this process may use.
    pub processors: usize,
    /// Frequency governor; `none` where the machine has none to choose.
    pub governor: String,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Kernel release.
    pub kernel: String,
    /// One-minute load average before the run: what others use is missing here.
    pub load_before: String,
    /// Commit of the source tree that the bench was started in, with `+` if it was changed; empty outside of one.
    pub commit: String,
    /// Version of this program.
    pub version: String,
    /// SHA-256 of the server's program, hex; empty when it is not ours to know.
    pub server: String,
}

impl Environment {
    /// What is found now; `server` is the program that is measured, if it is a file here.
    pub fn found(server: Option<&Path>) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = value(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let memory_kib: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
        let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        Self {
            processor: value(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            governor: if governor.is_empty() { "none".to_owned() } else { governor.trim().to_owned() },
            memory_mib: memory_kib / 1_024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            commit: commit(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            server: server
                .and_then(|path| std::fs::read(path).ok())
                .map_or_else(String::new, |bytes| hex::encode(digest::digest(&digest::SHA256, &bytes))),
        }
    }
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "HEAD"]) else { return String::new() };
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|files| !files.is_empty());
    if changed { commit + "+" } else { commit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described() {
        let found = Environment::found(Some(Path::new("/proc/self/exe")));
        assert!(found.processors > 0 && found.memory_mib > 0 && !found.kernel.is_empty(), "{found:?}");
        assert_eq!(found.server.len(), 64);
        assert!(Environment::found(None).server.is_empty());
    }
}
