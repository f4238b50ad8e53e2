//! The `bench` command.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use bench::report::RunReport;
use bench::scenario::{self, Ended, Plan};
use bench::submit::{self, JournalReport};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Requests are made on one thread and freed on another, which costs the system's allocator a lock each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit status: wrong usage (sysexits.h).
const EXIT_USAGE: u8 = 64;
/// `f_type` of a file system in memory, on which syncing costs nothing.
const TMPFS: i64 = 0x0102_1994;

/// Load on an exchange of its own, with every number beside what bounds it.
#[derive(Parser)]
#[command(name = "bench", version, about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts an exchange, drives a scenario over mTLS, checks receipts and prints what was measured.
    Run(Run),
    /// Decides straight into a ledger of its own, without HTTP, beside bare appends of the same bytes.
    Journal(Journal),
}

#[derive(Args)]
struct Journal {
    /// Submitters of the closed loop.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4_000))]
    submitters: u32,
    /// Rounds of ledger and bare appends in turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of a round.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Decisions a second of the open loop.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Holders, each with a license and a grant.
    #[arg(long, default_value_t = submit::HOLDERS, value_parser = clap::value_parser!(u32).range(1..))]
    holders: u32,
    /// First go on to so many decisions and state the memory at each power of ten.
    #[arg(long, default_value_t = 0)]
    decisions: u64,
    /// Empty data folder on a disk [default: a temporary one].
    #[arg(long)]
    data: Option<PathBuf>,
    /// JSON output.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Scenario {
    /// Verify by identifier; half of the licenses with their holder's grant.
    Verify,
}

#[derive(Args)]
struct Run {
    scenario: Scenario,
    /// Licenses to issue first.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    licenses: u32,
    /// Connections.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    connections: u32,
    /// Measured seconds of each phase, after one of warm-up.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Requests a second of the open loop [default: half of what the closed loop reached].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Data folder, made or continued; its log must be a bench's [default: a temporary one].
    #[arg(long)]
    data: Option<PathBuf>,
    /// The exchange [default: the one beside this program].
    #[arg(long)]
    server: Option<PathBuf>,
    /// JSON output.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let measured = match &cli.command {
        Command::Run(run) => measure(run).map(|report| report.map(|report| print(&*report, run.json))),
        Command::Journal(plan) => journal(plan).map(|report| {
            print(&report, plan.json);
            Some(())
        }),
    };
    match measured {
        Ok(Some(())) => ExitCode::SUCCESS,
        Ok(None) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print(report: &(impl serde::Serialize + std::fmt::Display), json: bool) {
    match serde_json::to_string_pretty(report) {
        Ok(text) if json => println!("{text}"),
        _ => print!("{report}"),
    }
}

/// The folder named, or a temporary one that lasts as long as the second value; on a disk.
fn folder(named: Option<&Path>) -> anyhow::Result<(PathBuf, Option<tempfile::TempDir>)> {
    let (folder, temporary) = match named {
        Some(folder) => (folder.to_owned(), None),
        None => {
            let temporary = tempfile::Builder::new().prefix("miaoxiang-bench-").tempdir()?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    anyhow::ensure!(
        rustix::fs::statfs(&folder)?.f_type != TMPFS,
        "{} lies in memory, where a sync costs nothing: name a folder on a disk with --data",
        folder.display()
    );
    Ok((folder, temporary))
}

fn journal(plan: &Journal) -> anyhow::Result<JournalReport> {
    let (folder, _temporary) = folder(plan.data.as_deref())?;
    let plan = submit::Plan {
        folder,
        holders: plan.holders,
        submitters: plan.submitters as usize,
        rounds: plan.rounds,
        duration: Duration::from_secs(plan.seconds),
        rate: f64::from(plan.rate),
        decisions: plan.decisions,
    };
    tokio::runtime::Runtime::new()?.block_on(submit::run(&plan))
}

fn measure(run: &Run) -> anyhow::Result<Option<Box<RunReport>>> {
    let server = match &run.server {
        Some(server) => server.clone(),
        None => std::env::current_exe()?.with_file_name("exchange"),
    };
    anyhow::ensure!(
        server.is_file(),
        "no exchange at {}: build it, or name it with --server",
        server.display()
    );
    let (folder, _temporary) = folder(run.data.as_deref())?;
    let plan = Plan {
        licenses: run.licenses as usize,
        connections: run.connections as usize,
        duration: Duration::from_secs(run.seconds),
        rate: run.rate.map(f64::from),
        folder,
        server,
    };
    let Scenario::Verify = run.scenario;
    // One thread: the generator should leave the processors to the server.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(scenario::verify(&plan))? {
        Ended::Measured(report) => Ok(Some(report)),
        Ended::NotChecked(checks) => {
            eprintln!(
                "bench: no numbers, for the checks did not pass: {} good receipts, {} good proofs, {} failures{}",
                checks.receipts,
                checks.proofs,
                checks.failed,
                checks.first_failure.map_or_else(String::new, |what| format!(", first: {what}"))
            );
            Ok(None)
        }
    }
}
