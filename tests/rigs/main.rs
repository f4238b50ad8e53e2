//! Fault rigs: real processes and real disks are cut down under load, and whatever was acknowledged before must be
//! there afterwards. Each rig also runs controls: the same with a fault that loses acknowledged entries, which it
//! must notice.
//!
//! `cargo xtask test` runs them. Exit status 0: it holds, and every control was caught. 1: it does not. 77: this
//! machine cannot run the rig; the last line says why. `exchange` must be built beside this binary.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a rig says what is wrong by panicking")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a rig says what it does")]

mod calls;
mod commit_writer;
mod cut_disk;
mod disk_full;
mod log;
mod power_cut;
mod rotation;
mod sigkill;
mod sled_writer;
mod story;
mod sweep;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ring::rand::{SecureRandom as _, SystemRandom};

use cut_disk::FileSystem;

/// Exit status of a rig that cannot run here, as automake has it.
const SKIPPED: u8 = 77;
/// Exit status of a program that was interrupted, as shells tell it.
const INTERRUPTED: u8 = 130;

/// Cuts down running exchanges and looks for what is missing.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    rig: Rig,
}

#[derive(Subcommand)]
enum Rig {
    /// SIGKILL under concurrent load.
    Sigkill {
        /// How often.
        #[arg(long, default_value_t = 100)]
        kills: u32,
    },
    /// Power cuts under concurrent load.
    PowerCut {
        /// How often.
        #[arg(long, default_value_t = 20)]
        cuts: u32,
        /// On what.
        #[arg(long, value_enum, default_value = "ext4")]
        file_system: FileSystem,
    },
    /// A disk without room, on a small file system in memory.
    DiskFull {
        /// How often it fills up under load.
        #[arg(long, default_value_t = 5)]
        rounds: u32,
    },
    /// Every system call of some commits, once with each fault.
    Sweep {
        /// With a change of epoch among them.
        #[arg(long)]
        rotation: bool,
    },
    /// What the sweep runs.
    #[command(hide = true)]
    CommitWriter {
        /// The data folder.
        folder: PathBuf,
        /// Which run: each registers others.
        run: u64,
    },
    /// The same, with a change of epoch.
    #[command(hide = true)]
    RotationWriter {
        /// The data folder.
        folder: PathBuf,
        /// Which run.
        run: u64,
    },
    /// A data provider for the development exchange of a folder: answers each question with a row, until it is interrupted.
    Provider {
        /// The exchange's data folder; the provider has its server's certificate.
        folder: PathBuf,
        /// Where it listens.
        #[arg(long, default_value = "127.0.0.1:8460")]
        listen: SocketAddr,
    },
    /// Calls to a provider's interface beside the provider asked directly; then the others' answers while one provider stalls.
    Calls {
        /// Rounds of each part.
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        /// Calls of a round, one after another.
        #[arg(long, default_value_t = 500)]
        calls: u32,
        /// Output as JSON.
        #[arg(long)]
        json: bool,
    },
    /// What the power cut's control runs.
    #[command(hide = true)]
    SledWriter {
        /// Where its store lies.
        folder: PathBuf,
    },
}

/// A promise that was not kept: what a rig looks for, and what its control must run into.
#[derive(Debug)]
pub(crate) struct Violation(String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

/// A violation, unless it holds.
pub(crate) fn must(holds: bool, otherwise: impl FnOnce() -> String) -> anyhow::Result<()> {
    if holds { Ok(()) } else { Err(Violation(otherwise()).into()) }
}

/// A control must run into a violation; anything else is a rig that cannot find what it is for.
pub(crate) fn caught(control: &str, outcome: anyhow::Result<()>) -> anyhow::Result<()> {
    match outcome {
        Ok(()) => anyhow::bail!("the control went unnoticed: {control}"),
        Err(error) if error.is::<Violation>() => {
            println!("control caught, {control}: {error}");
            Ok(())
        }
        Err(error) => Err(error.context(format!("the control broke: {control}"))),
    }
}

/// What this machine lacks for a rig.
#[derive(Debug)]
pub(crate) struct Lacking(pub(crate) String);

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Lacking {}

/// A random number below a bound.
pub(crate) fn random_below(bound: u64) -> u64 {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).unwrap();
    u64::from_be_bytes(bytes) % bound
}

/// Whether a program is on the path.
pub(crate) fn program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// Waits for an interrupt; a rig notices it when it next waits for something.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let [mut interrupt, mut terminate] =
        [SignalKind::interrupt(), SignalKind::terminate()].map(|kind| signal(kind).unwrap());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

async fn run(rig: Rig) -> anyhow::Result<()> {
    match rig {
        Rig::Sigkill { kills } => sigkill::run(kills).await,
        Rig::PowerCut { cuts, file_system } => power_cut::run(file_system, cuts).await,
        Rig::Sweep { rotation } => sweep::run(if rotation { sweep::ROTATION } else { sweep::COMMIT }).await,
        Rig::DiskFull { rounds } => disk_full::run(rounds).await,
        Rig::Provider { folder, listen } => provide(&folder, listen).await,
        Rig::Calls { rounds, calls, json } => calls::run(rounds, calls, json).await,
        Rig::CommitWriter { folder, run } => commit_writer::write(&folder, run, false).await,
        Rig::RotationWriter { folder, run } => commit_writer::write(&folder, run, true).await,
        Rig::SledWriter { folder } => sled_writer::write(&folder),
    }
}

/// Answers as a data provider, until somebody interrupts.
async fn provide(folder: &Path, listen: SocketAddr) -> anyhow::Result<()> {
    let read = |name: &str| std::fs::read_to_string(folder.join("pki").join(name));
    let (certificate, key, authorities) = (read("server.pem")?, read("server.key")?, read("ca.pem")?);
    let tls = exchange::tls::server_config(&certificate, &key, Some(&authorities))?;
    let provider = tests::Provider::start(listen, tls, authorities);
    println!("a data provider at {}", provider.url());
    std::future::pending().await
}

#[tokio::main]
async fn main() -> ExitCode {
    let rig = Cli::parse().rig;
    let outcome = tokio::select! {
        biased;
        () = interrupted() => None,
        outcome = run(rig) => Some(outcome),
    };
    match outcome {
        // The rig is dropped, and with it what it started and mounted.
        None => ExitCode::from(INTERRUPTED),
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) if error.is::<Lacking>() => {
            println!("{error}");
            ExitCode::from(SKIPPED)
        }
        Some(Err(error)) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
