//! The exchange under test: a child process, its addresses, what it uses and its metrics.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{http, process};

/// The running child; killed when dropped.
pub struct Server {
    child: Child,
    /// Held open: the server says when it stops, and must find somebody to say it to.
    stdout: BufReader<ChildStdout>,
    /// Data listener.
    pub data: SocketAddr,
    /// Public listener.
    pub public: SocketAddr,
    /// Admin listener.
    pub admin: SocketAddr,
}

impl Server {
    /// Starts `exchange serve` on a folder, on ports that the system chooses and on one processor if it is named, and
    /// waits until it serves.
    ///
    /// # Errors
    /// The binary is not there, or ends instead of serving.
    pub fn start(binary: &Path, folder: &Path, core: Option<usize>) -> anyhow::Result<Self> {
        let mut command = Command::new(binary);
        command.args(["serve", "--development", "--listen", "127.0.0.1:0", "--data"]).arg(folder);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = process::spawn_on(&mut command, core)
            .with_context(|| format!("{} cannot be started", binary.display()))?;
        let stdout = child.stdout.take().context("the child has a standard output")?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let Some([data, public, admin]) = addresses(&line) else {
            // It has ended by itself, or says something else than it should.
            let _ = child.kill();
            let status = child.wait()?;
            anyhow::bail!("the exchange does not serve ({status})");
        };
        Ok(Self { child, stdout, data, public, admin })
    }

    /// Waits until it has done what its start left to do.
    ///
    /// # Errors
    /// The server is gone.
    pub fn rest(&self) -> anyhow::Result<()> {
        process::rest_after_start(&[self.child.id()])
    }

    /// What the server used and counted so far.
    ///
    /// # Errors
    /// The server is gone.
    pub fn sample(&self) -> anyhow::Result<Sample> {
        // Before the metrics, which cost the server something.
        let (at, cpu) = (Instant::now(), process::cpu_seconds(Some(self.child.id()))?);
        let metrics = http::get_clear(self.admin, "/metrics").context("metrics")?;
        Ok(Sample {
            at,
            cpu,
            resident_bytes: process::resident_bytes(Some(self.child.id()))?,
            syncs: sum(&metrics, "miaoxiang_journal_sync_seconds_count"),
            sync_seconds: sum(&metrics, "miaoxiang_journal_sync_seconds_sum"),
            entries: sum(&metrics, "miaoxiang_journal_entries_total"),
            groups: sum(&metrics, "miaoxiang_journal_group_entries_count"),
        })
    }

    /// Durable entries of its log.
    ///
    /// # Errors
    /// The server is gone or not ready.
    pub fn log_size(&self) -> anyhow::Result<u64> {
        log_size(self.admin)
    }

    /// Asks it to stop and waits until it has.
    ///
    /// # Errors
    /// It ends with an error.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process number")?;
        kill_process(pid, Signal::TERM)?;
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the exchange ended with {status}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error says that it has ended, as after `stop`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Durable entries of the log of an exchange with this admin listener.
///
/// # Errors
/// It is gone or not ready.
pub(crate) fn log_size(admin: SocketAddr) -> anyhow::Result<u64> {
    let ready: serde_json::Value =
        serde_json::from_str(&http::get_clear(admin, "/ready").context("readiness")?)?;
    ready["size"].as_u64().context("readiness without a size")
}

/// The addresses in the line `serving log … data A  public B  admin C`.
pub(crate) fn addresses(line: &str) -> Option<[SocketAddr; 3]> {
    let mut words = line.split_whitespace();
    let mut after = |name: &str| {
        words.find(|word| *word == name)?;
        words.next()?.parse().ok()
    };
    Some([after("data")?, after("public")?, after("admin")?])
}

/// What the server used and counted up to a moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The moment.
    pub at: Instant,
    /// Processor time, user and system, seconds.
    pub cpu: f64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Frames written and synced, seals among them.
    pub syncs: f64,
    /// Time spent in that, seconds.
    pub sync_seconds: f64,
    /// Entries in the journal written by this process of the server.
    pub entries: f64,
    /// Groups they were written in.
    pub groups: f64,
}

/// Sum of a metric over its labels, 0 when it is not there yet.
fn sum(text: &str, name: &str) -> f64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with([' ', '{']))
        .filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_the_line_of_serve() {
        let line =
            "serving log bench/1 with 17 entries: data 127.0.0.1:1  public 127.0.0.1:2  admin 127.0.0.1:3\n";
        let [data, public, admin] = addresses(line).unwrap();
        assert_eq!((data.port(), public.port(), admin.port()), (1, 2, 3));
        assert_eq!(addresses("exchange: 127.0.0.1:1 is in use"), None);
        assert_eq!(addresses(""), None);
    }

    #[test]
    fn a_metric_is_summed_over_its_labels_and_not_over_longer_names() {
        let text = "# TYPE a counter\na 1\na{b=\"c d\"} 2.5\na_total 8\n";
        assert!((sum(text, "a") - 3.5).abs() < f64::EPSILON);
        assert!(sum(text, "b").abs() < f64::EPSILON);
    }
}
