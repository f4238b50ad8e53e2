//! Servers under test as child processes.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process;

/// Longest wait for a server to listen, and to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// A running server; ended when dropped.
pub(super) struct Running {
    child: Child,
    /// Where it listens.
    pub(super) address: SocketAddr,
}

impl Running {
    /// Starts a server on one processor and waits until it listens on the address that it was given.
    ///
    /// # Errors
    /// It does not start, or ends instead of listening.
    pub(super) fn listening(command: &mut Command, core: usize, address: SocketAddr) -> anyhow::Result<Self> {
        let child = process::spawn_on(command.stdin(Stdio::null()).stdout(Stdio::null()), Some(core))
            .with_context(|| name_of(command))?;
        let mut running = Self { child, address };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = running.child.try_wait()? {
                bail!("{} ended with {status}", name_of(command));
            }
            if begun.elapsed() > PATIENCE {
                bail!("{} does not listen", name_of(command));
            }
            std::thread::sleep(LOOK);
        }
        Ok(running)
    }

    /// Starts a server that chooses its port, prints a line about it, and ends when its standard input does. Gives the line
    /// to `address`.
    ///
    /// # Errors
    /// It does not start, or says something else.
    pub(super) fn speaking(
        command: &mut Command,
        core: usize,
        address: impl FnOnce(&str) -> anyhow::Result<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let mut child = process::spawn_on(command.stdin(Stdio::piped()).stdout(Stdio::piped()), Some(core))
            .with_context(|| name_of(command))?;
        let stdout = child.stdout.take().context("a piped standard output")?;
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        // From here on it is ended whatever happens.
        let mut running = Self { child, address: nowhere };
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout);
        stdout.read_line(&mut line)?;
        // It may say more before it ends, and must find somebody to say it to.
        running.child.stdout = Some(stdout.into_inner());
        if line.is_empty() {
            bail!("{} ended with {}", name_of(command), running.child.wait()?);
        }
        running.address = address(&line).with_context(|| name_of(command))?;
        Ok(running)
    }

    /// The process and those that it started: a server's workers.
    pub(super) fn processes(&self) -> Vec<u32> {
        let own = self.child.id();
        let mut processes = vec![own];
        if let Ok(entries) = std::fs::read_dir("/proc") {
            let numbers =
                entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
            processes.extend(numbers.filter(|process| parent(*process) == Some(own)));
        }
        processes
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Not killed at once: a master ends its workers only when it is asked to end.
            let _ = kill_process(pid, Signal::TERM);
        }
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The fourth field of `/proc/N/stat`, counted behind the command's name, which may hold anything.
fn parent(process: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The program's name, for errors.
fn name_of(command: &Command) -> String {
    let path = Path::new(command.get_program());
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// An address of this machine that nothing listens on, for a server that cannot choose one itself.
pub(super) fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// A program on the path.
pub(super) fn program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where Debian keeps servers, which is not on everybody's path.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn any_core() -> usize {
        let set = rustix::thread::sched_getaffinity(None).unwrap();
        (0..rustix::thread::CpuSet::MAX_CPU).find(|core| set.is_set(*core)).unwrap()
    }

    #[test]
    fn a_server_is_ended_with_its_workers_when_dropped() {
        // The worker says it: a fork of the shell that is no other program yet would take the signal and go on.
        let script = "trap 'kill $!; exit' TERM; sh -c 'echo 127.0.0.1:9; exec sleep 100' & wait";
        let running =
            Running::speaking(&mut shell(script), any_core(), |line| Ok(line.trim().parse()?)).unwrap();
        assert_eq!(running.address.port(), 9);
        let processes = running.processes();
        assert_eq!(processes.len(), 2, "the shell and its sleep");
        drop(running);
        for process in processes {
            // Nobody may be left to take the worker's exit status; and it takes its signal when it is its turn.
            let stat = || std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            let begun = Instant::now();
            while !(stat().is_empty() || stat().contains(") Z ")) {
                assert!(begun.elapsed() < PATIENCE, "{}", stat());
                std::thread::sleep(LOOK);
            }
        }
    }

    #[test]
    fn a_server_that_ends_or_says_something_else_is_an_error() {
        let address = |line: &str| Ok(line.trim().parse()?);
        let said = |script: &str| match Running::speaking(&mut shell(script), any_core(), address) {
            Ok(_) => String::new(),
            Err(error) => format!("{error:#}"),
        };
        assert!(said("exit 3").contains("sh ended with exit status: 3"));
        assert!(said("echo no; exec cat").contains("sh: "));
        let nobody = free_address().unwrap();
        let error = Running::listening(&mut shell("exit 3"), any_core(), nobody).err().unwrap();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
    }
}
