//! The `bench` command.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bench::folder::InProcess;
use bench::peers;
use bench::population::{self, Population, Size};
use bench::run::{self, Ended, Place};
use bench::scenario::{Amount, Scenario};
use bench::size::{Coefficients, Demand, Sizing};
use bench::submit::{self, JournalReport};
use bench::{compare, html, policies, records, sign, timing};
use clap::{Args, Parser, Subcommand};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use verifier::command::{self, EXIT_DONE, EXIT_NO};

/// Requests are made on one thread and freed on another, which costs the system's allocator a lock each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit status: peers were skipped, each named in the report; all others answered right.
const EXIT_SKIPPED: u8 = 77;
/// Exit status: the generator measured itself, so that there are no numbers.
const EXIT_VOID: u8 = 3;
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
    /// Runs two sides in turn and prints the ratio of each pair, or compares reports of such runs.
    Compare(Compare),
    /// Checks signed reports.
    #[command(subcommand)]
    Report(ReportCommand),
    /// Makes a data folder with many licenses and entries, for `run --data`.
    Populate(Populate),
    /// Drives the exchange and servers that people know in turn, each on the same one processor, and prints their ratios.
    Peers(peers::Options),
    /// Serves constant bytes; what `peers` starts.
    #[command(name = peers::bare::COMMAND, hide = true)]
    BareServer(peers::bare::Plan),
    /// Says what a load needs in machines, disks and memory, from measured coefficients; see bench/capacity.md.
    Size(Demand),
    /// Decides straight into a ledger of its own, without HTTP, beside bare appends of the same bytes.
    Journal(Journal),
    /// Brings rows of a hosted resource in without sockets, beside bare appends of the same bytes, and searches the catalogue.
    Records(Records),
    /// Decides verify requests in memory under few and many policies, from memory and evaluated each time.
    Policies(Policies),
    /// Compares the time of refusals about what there is and what there is not; exit status 1 where it tells. Takes a quarter
    /// of an hour: a refusal waits.
    Timing(Timing),
}

#[derive(Args)]
struct Timing {
    /// Pairs of each comparison.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    pairs: u32,
    /// Folder for the exchange; a temporary one unless said. In memory too: there a sync takes no time, and less hides.
    #[arg(long)]
    data: Option<PathBuf>,
    /// JSON output.
    #[arg(long)]
    json: bool,
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

#[derive(Args)]
struct Policies {
    /// Licenses with a grant in the state.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    grants: u64,
    /// Policies beside the rules of the roles.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=900))]
    policies: u32,
    /// Decisions under each set.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    decisions: u32,
    /// Empty data folder on a disk [default: a temporary one].
    #[arg(long)]
    data: Option<PathBuf>,
    /// JSON output.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Records {
    /// Rows.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rows: u64,
    /// Resources in the catalogue.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    resources: u32,
    /// Searches of it, and questions which materials an item needs.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    searches: u32,
    /// Mappings from items and materials.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    mappings: u32,
    /// Empty data folder on a disk [default: a temporary one].
    #[arg(long)]
    data: Option<PathBuf>,
    /// JSON output.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Run {
    /// Name of a scenario that comes with this program (verify, …), or a TOML file.
    scenario: String,
    /// Licenses of a new folder [default: the scenario's].
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..=10_000_000))]
    licenses: Option<u64>,
    /// Connections of each client certificate [default: the scenario's].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    connections: Option<u32>,
    /// Measured seconds of each phase [default: the scenario's].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// Requests a second of every open loop with one rate [default: the scenario's].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    #[command(flatten)]
    place: PlaceArgs,
    /// Writes the signed report to PREFIX.json and PREFIX.html.
    #[arg(long, value_name = "PREFIX")]
    report: Option<PathBuf>,
    /// JSON output.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Compare {
    /// A scenario (name or TOML file), an `exchange` program, or a folder with signed reports.
    a: PathBuf,
    /// The same for the other side; a folder if A is one.
    b: PathBuf,
    /// The scenario that programs are run with.
    #[arg(long, default_value = "verify")]
    scenario: String,
    /// Pairs.
    #[arg(long, default_value_t = compare::LEAST_PAIRS as u64, value_parser = clap::value_parser!(u64).range(compare::LEAST_PAIRS as u64..=1_000))]
    runs: u64,
    /// Measured seconds of each phase [default: the scenario's].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    #[command(flatten)]
    place: PlaceArgs,
    /// JSON output.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum ReportCommand {
    /// Checks the signature of a report; prints the key and the report.
    Verify {
        /// The JSON file.
        file: PathBuf,
        /// The key that must have signed it, hex; it stands beside the data folder's `bench.key` in the HTML report.
        #[arg(long)]
        key: Option<String>,
    },
}

#[derive(Args, Clone)]
struct PlaceArgs {
    /// Data folder, made or continued; its log must be a bench's [default: a temporary one].
    #[arg(long)]
    data: Option<PathBuf>,
    /// The exchange [default: the one beside this program].
    #[arg(long)]
    server: Option<PathBuf>,
    /// Processor for all threads of the server.
    #[arg(long)]
    server_core: Option<usize>,
    /// Processor for the generator.
    #[arg(long)]
    generator_core: Option<usize>,
    /// Fill a log that is not a bench's, or load a service on another machine.
    #[arg(long)]
    i_own_this_server: bool,
}

#[derive(Args)]
struct Populate {
    /// Licenses, in turn of a natural person with the holder's grant and of a legal person.
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..=10_000_000))]
    licenses: u64,
    /// Entries of the log at least; what issuing and granting leave is uses.
    #[arg(long, default_value_t = 0)]
    entries: u64,
    /// Bytes of an issue request, as far as its type allows [default: as they come, about 700].
    #[arg(long)]
    bytes: Option<usize>,
    /// Equal seeds give equal licenses.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The folder: new, or a bench's that is not populated.
    #[arg(long)]
    out: PathBuf,
}

fn main() -> ExitCode {
    let cli: Cli = match command::parse() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    let ended = match &cli.command {
        Command::Run(run) => measure(run),
        Command::Populate(plan) => populate(plan),
        Command::Peers(options) => peers(options),
        Command::BareServer(plan) => peers::bare::serve(plan).map(|()| EXIT_DONE),
        Command::Size(demand) => Coefficients::committed().map(|coefficients| {
            print(&Sizing::of(demand, &coefficients), demand.json);
            EXIT_DONE
        }),
        Command::Compare(compare) => compared(compare),
        Command::Report(ReportCommand::Verify { file, key }) => verify(file, key.as_deref()),
        Command::Timing(plan) => told_by_time(plan),
        Command::Records(plan) => in_rows(plan).map(|measured| {
            print(&measured, plan.json);
            EXIT_DONE
        }),
        Command::Policies(plan) => under_policies(plan).map(|measured| {
            print(&measured, plan.json);
            EXIT_DONE
        }),
        Command::Journal(plan) => journal(plan).map(|report| {
            print(&report, plan.json);
            EXIT_DONE
        }),
    };
    command::end(ended.unwrap_or_else(|error| {
        command::note(format_args!("bench: {}", command::why(&*error)));
        EXIT_NO
    }))
}

fn print(report: &(impl serde::Serialize + std::fmt::Display), json: bool) {
    match serde_json::to_string_pretty(report) {
        Ok(text) if json => command::line(text),
        _ => command::print(report),
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

fn peers(options: &peers::Options) -> anyhow::Result<u8> {
    let (folder, _temporary) = folder(options.data.as_deref())?;
    let report = options.run(folder)?;
    print(&report, options.json);
    Ok(match (report.wrong.is_empty(), report.skipped.is_empty()) {
        (true, true) => EXIT_DONE,
        (true, false) => EXIT_SKIPPED,
        (false, _) => EXIT_NO,
    })
}

fn told_by_time(plan: &Timing) -> anyhow::Result<u8> {
    let temporary = tempfile::Builder::new().prefix("miaoxiang-bench-").tempdir()?;
    let folder = plan.data.as_deref().unwrap_or(temporary.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(timing::run(folder, plan.pairs as usize))?;
    print(&report, plan.json);
    Ok(if report.passed() { EXIT_DONE } else { EXIT_NO })
}

fn in_rows(plan: &Records) -> anyhow::Result<records::Measured> {
    let (folder, _temporary) = folder(plan.data.as_deref())?;
    let Records { rows, resources, searches, mappings, .. } = *plan;
    tokio::runtime::Runtime::new()?.block_on(async {
        let exchange = InProcess::open(&bench::folder::prepare(&folder, false).await?).await?;
        let plan = records::Plan { rows, resources, searches, mappings };
        let measured = records::measure(&exchange, &folder, &plan).await;
        // Also after a failure: the journal's threads must not outlive a temporary folder.
        exchange.close().await?;
        measured
    })
}

fn under_policies(plan: &Policies) -> anyhow::Result<policies::Measured> {
    let (folder, _temporary) = folder(plan.data.as_deref())?;
    let Policies { grants, policies, decisions, .. } = *plan;
    tokio::runtime::Runtime::new()?.block_on(async {
        let config = bench::folder::prepare(&folder, false).await?;
        policies::measure(&config, &folder, &policies::Plan { grants, policies, decisions }).await
    })
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

fn populate(plan: &Populate) -> anyhow::Result<u8> {
    let (folder, _temporary) = folder(Some(&plan.out))?;
    anyhow::ensure!(!Population::exists(&folder), "{} is populated already", folder.display());
    let sizes = plan.bytes.map(|bytes| Size { bytes, share: 1.0 }).into_iter().collect();
    let licenses = population::Plan { licenses: plan.licenses, seed: plan.seed, sizes, rows: 0 };
    let started = Instant::now();
    let config = run::populate(&folder, &licenses, plan.entries, false)?;
    command::line(format_args!(
        "log {} has {} licenses after {:.1} s",
        config.origin,
        plan.licenses,
        started.elapsed().as_secs_f64()
    ));
    Ok(EXIT_DONE)
}

fn measure(run: &Run) -> anyhow::Result<u8> {
    let (scenario, base) = scenario(run)?;
    let name = Path::new(&run.scenario).file_stem().unwrap_or_default().to_string_lossy();
    match once(&name, &scenario, &base, &run.place)? {
        (Ended::Checked(report), key) => {
            if let Some(prefix) = &run.report {
                let signer = hex::encode(key.public_key());
                std::fs::write(prefix.with_added_extension("json"), sign::signed(&report, &key)?)?;
                std::fs::write(prefix.with_added_extension("html"), html::page(&report, &signer))?;
            }
            print(&*report, run.json);
            let Some(void) = report.void() else { return Ok(EXIT_DONE) };
            command::note(format_args!("bench: void, {void}"));
            Ok(EXIT_VOID)
        }
        (Ended::NotChecked(checks), _) => {
            command::note(format_args!("bench: no numbers, for the checks did not pass: {checks}"));
            Ok(EXIT_NO)
        }
    }
}

/// Runs a scenario in the place that the command line names; gives also the key that signs for that place.
fn once(
    name: &str,
    scenario: &Scenario,
    base: &Path,
    place: &PlaceArgs,
) -> anyhow::Result<(Ended, Ed25519KeyPair)> {
    let server = match &place.server {
        Some(server) => server.clone(),
        None => std::env::current_exe()?.with_file_name("exchange"),
    };
    anyhow::ensure!(
        scenario.exchange.is_none() || server.is_file(),
        "no exchange at {}: build it, or name it with --server",
        server.display()
    );
    let (folder, _temporary) = folder(place.data.as_deref())?;
    let place = Place {
        folder,
        server,
        server_core: place.server_core,
        generator_core: place.generator_core,
        own: place.i_own_this_server,
    };
    let ended = run::run(name, scenario, base, &place)?;
    let key = sign::key(&place.folder)?;
    Ok((ended, key))
}

fn compared(plan: &Compare) -> anyhow::Result<u8> {
    let comparison = match (plan.a.is_dir(), plan.b.is_dir()) {
        (true, true) => compare::compare(&compare::reports(&plan.a)?, &compare::reports(&plan.b)?)?,
        (false, false) => {
            let sides = [side(&plan.a, plan)?, side(&plan.b, plan)?];
            let mut reports = [Vec::new(), Vec::new()];
            for pair in 1..=plan.runs {
                for ((name, scenario, base, place), reports) in sides.iter().zip(&mut reports) {
                    command::note(format_args!("pair {pair} of {}: {name}", plan.runs));
                    match once(name, scenario, base, place)? {
                        (Ended::Checked(report), _) => reports.push(*report),
                        (Ended::NotChecked(checks), _) => anyhow::bail!("the checks did not pass: {checks}"),
                    }
                }
            }
            let [a, b] = &reports;
            compare::compare(a, b)?
        }
        _ => anyhow::bail!("a folder of reports is compared with another one"),
    };
    print(&comparison, plan.json);
    Ok(EXIT_DONE)
}

/// What one side of a comparison runs.
fn side(named: &Path, plan: &Compare) -> anyhow::Result<(String, Scenario, PathBuf, PlaceArgs)> {
    let mut place = plan.place.clone();
    let text = named.to_string_lossy();
    let is_scenario = named.extension().is_some_and(|extension| extension == "toml") || !named.is_file();
    let name = if is_scenario {
        text.as_ref()
    } else {
        place.server = Some(named.to_owned());
        plan.scenario.as_str()
    };
    let (mut scenario, base) = Scenario::load(name)?;
    for phase in &mut scenario.phases {
        phase.seconds = plan.seconds.or(phase.seconds);
    }
    let name = Path::new(name).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok((name, scenario, base, place))
}

fn verify(file: &Path, key: Option<&str>) -> anyhow::Result<u8> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let (report, signer) = sign::verify(&text).with_context(|| file.display().to_string())?;
    anyhow::ensure!(
        key.is_none_or(|key| key.eq_ignore_ascii_case(&signer)),
        "{} is signed with another key: {signer}",
        file.display()
    );
    command::line(format_args!("good, signed with {signer}\n"));
    command::print(report);
    Ok(EXIT_DONE)
}

/// The scenario as the command line changes it.
fn scenario(run: &Run) -> anyhow::Result<(Scenario, PathBuf)> {
    let (mut scenario, base) = Scenario::load(&run.scenario)?;
    if let (Some(exchange), Some(licenses)) = (&mut scenario.exchange, run.licenses) {
        exchange.licenses = licenses;
    }
    if let Some(connections) = run.connections {
        scenario.load.connections = connections as usize;
    }
    for phase in &mut scenario.phases {
        phase.seconds = run.seconds.or(phase.seconds);
        if let (Some(rate), Some(_)) = (run.rate, phase.rate) {
            phase.rate = Some(Amount::Absolute(f64::from(rate)));
        }
    }
    Ok((scenario, base))
}
