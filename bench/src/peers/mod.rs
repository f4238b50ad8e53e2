//! `bench peers`: the exchange beside servers that people know, driven by the same generator over the same mTLS, each on the
//! same one processor, in runs that alternate.
//!
//! A number stands only for right answers: one wrong status or body takes a server's row away, a generator that is busy
//! itself voids a run, and a peer that cannot be had is named as skipped. Receipts of the exchange's answers are kept during
//! the runs and checked after them.

mod asking;
pub mod bare;
mod child;
mod exchange;
mod growth;
mod half;
mod measure;
mod nginx;
mod node;
mod pki;
mod redis;
mod steps;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use tokio::runtime::Runtime;
use verifier::trust::Trust;

use self::asking::{Asking, KeptList, Right, Template};
use self::child::Running;
use self::exchange::Exchange;
use self::half::Half;
use self::measure::{Contender, Measured, Micros, Pace, Run, measure};
use self::pki::{Pki, Probe};
use crate::drive::{Arrivals, Endpoint, Protocol, Rate};
use crate::process;
use verifier::command;

pub use table::Report;

/// Shares of the lower maximum of two servers at which both are driven in the open loop.
const OPEN_SHARES: [f64; 2] = [0.5, 0.8];
/// Licenses of the exchanges from which something is taken away.
const ABLATION_LICENSES: u64 = 2_000;
/// The large register of a quick comparison.
const QUICK_LARGE: u64 = 1_000;
/// Where a journal lies in memory.
const RAM_DISK: &str = "/dev/shm";
/// Bytes that raw signatures are made over: about those of a license's signed message.
const SIGNED_BYTES: usize = 64;
/// Signatures between two looks at the clock.
const SIGNATURES: u64 = 256;
/// What a comparison writes at most; a quick one; and for each license of a large register.
const DISK_BYTES: u64 = 16 << 30;
const QUICK_DISK_BYTES: u64 = 1 << 30;
const LARGE_LICENSE_BYTES: u64 = 7 << 10;
/// A journal leaves this part of a disk free.
const RESERVE: u64 = 20;
/// What has no number when the single steps cannot be measured.
pub(crate) const STEPS: &str = "steps of a verify";
/// A step is measured for this part of a run's time.
const STEP_SHARE: u32 = 10;
/// Programs that Debian has, and the packages that have them.
const PACKAGES: [(&str, &str); 4] =
    [(nginx::NAME, "nginx"), (redis::NAME, "redis-server"), ("node", "nodejs"), ("npm", "npm")];
/// The binary that takes properties away; beside this program.
const ABLATION: &str = "exchange-ablation";

/// What the command is told.
#[derive(clap::Args)]
pub struct Options {
    /// Everything once and shortly, with few licenses: shows that it works, and its numbers mean nothing.
    #[arg(long)]
    quick: bool,
    /// The exchange, its ablation build beside it [default: under `cargo run` built first, as it is shipped; otherwise the one
    /// beside this program].
    #[arg(long)]
    server: Option<PathBuf>,
    /// Also compares a register of so many licenses with one of 1,000: about 7 kB of disk and half a millisecond for each.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    large: Option<u64>,
    /// Processor of the server under test, with all its threads.
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Processor of the generator.
    #[arg(long, default_value_t = 1)]
    generator_core: usize,
    /// Empty folder on a disk with 16 GiB [default: a temporary one].
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// JSON output.
    #[arg(long)]
    pub json: bool,
}

/// How the comparison is made.
struct Plan {
    /// An empty folder on a disk.
    folder: PathBuf,
    /// The `exchange` binary.
    server: PathBuf,
    /// Whether that is built as it is shipped.
    shipped: bool,
    /// Everything once and shortly.
    quick: bool,
    /// The one that is compared with `exchange-ablation` beside it, built as that is.
    plain: PathBuf,
    /// Where the Node peer is installed.
    cache: PathBuf,
    /// Licenses in the register.
    licenses: u64,
    /// Entries that the log holds at least before anything is measured.
    entries: u64,
    /// Connections of each run.
    connections: usize,
    /// Runs of each server at each pace.
    rounds: usize,
    /// Time before the measured time of a run.
    warm_up: Duration,
    /// The measured time.
    duration: Duration,
    /// How long a server may work on after a run.
    patience: Duration,
    /// The measured time at half of the knee.
    long: Duration,
    /// Licenses of the large register, if there is to be one.
    large: Option<u64>,
    /// The processor of the server under test, with all its threads.
    server_core: usize,
    /// The generator's.
    generator_core: usize,
}

impl Options {
    /// Makes the whole comparison in an empty folder.
    ///
    /// # Errors
    /// The exchange cannot be had, does not serve, refuses its licenses, or its receipts do not check. What a peer does
    /// wrong is in the report.
    pub fn run(&self, folder: PathBuf) -> anyhow::Result<Report> {
        let own = std::env::current_exe()?;
        let plain = self.server.clone().unwrap_or_else(|| own.with_file_name("exchange"));
        let shipped = if self.server.is_none() { build()? } else { None };
        let (is_shipped, server) = (shipped.is_some(), shipped.unwrap_or_else(|| plain.clone()));
        ensure!(server.is_file(), "no exchange at {}: build it, or name it with --server", server.display());
        let Self { quick, large, server_core, generator_core, .. } = *self;
        let bytes = if quick { QUICK_DISK_BYTES } else { DISK_BYTES };
        has_room(&folder, bytes + large.unwrap_or(0) * LARGE_LICENSE_BYTES)?;
        install();
        run(&Plan {
            folder,
            server,
            shipped: is_shipped,
            plain,
            cache: own.with_file_name("bench-peers"),
            licenses: if quick { 200 } else { 100_000 },
            entries: if quick { 0 } else { 1_000_000 },
            connections: if quick { 16 } else { 128 },
            rounds: if quick { 1 } else { 5 },
            warm_up: Duration::from_millis(if quick { 100 } else { 1_000 }),
            duration: Duration::from_secs(if quick { 1 } else { 10 }),
            patience: Duration::from_secs(60),
            long: Duration::from_secs(if quick { 2 } else { 120 }),
            // Everything once.
            large: large.or(quick.then_some(QUICK_LARGE)),
            quick,
            server_core,
            generator_core,
        })
    }
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// The exchange, verify by identifier, receipt without proof.
    Verify,
    /// The same with inline proof.
    Inline,
    /// The exchange, retrieve an envelope of 2 kB.
    Retrieve,
    /// The exchange, issue one license.
    Issue,
    /// nginx with a file as long as the answer of [`Who::Verify`].
    NginxVerify,
    /// As long as that of [`Who::Inline`].
    NginxInline,
    /// As long as that of [`Who::Retrieve`].
    NginxRetrieve,
    /// hyper and rustls, constant bytes as long as the answer of [`Who::Verify`].
    Bare,
    /// Redis, GET of a value of 1 kB.
    Redis,
    /// Node, a credential verified, its status from memory.
    NodeVerify,
    /// Node, a credential signed.
    NodeIssue,
    /// Ed25519 by ring, no server.
    Signatures,
    /// The exchange as it is, with few licenses: what the others below are compared with.
    AsItIs,
    /// Its journal in memory.
    RamDisk,
    /// Its data listener in clear.
    NoTls,
    /// Its data listener without client certificates.
    NoClientCertificates,
    /// Without the floor of authorisation.
    NoFloor,
    /// The exchange with 1,000 licenses.
    Few,
    /// With as many as `--large` says.
    Many,
}

impl Who {
    /// Its name in the table.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Verify => "verify by identifier",
            Self::Inline => "verify with inline proof",
            Self::Retrieve => "retrieve a 2 kB envelope",
            Self::Issue => "single issue",
            Self::NginxVerify | Self::NginxInline | Self::NginxRetrieve => "nginx, file of the same size",
            Self::Bare => "hyper + rustls, constant bytes",
            Self::Redis => "Redis over TLS, GET of 1 kB",
            Self::NodeVerify => "Node @sd-jwt verify, cached status",
            Self::NodeIssue => "Node @sd-jwt issue",
            Self::Signatures => "raw ring Ed25519 signatures",
            Self::AsItIs => "as it is",
            Self::RamDisk => "journal on a RAM disk",
            Self::NoTls => "without TLS",
            Self::NoClientCertificates => "without client certificates",
            Self::NoFloor => "without the authorisation floor",
            Self::Few => "verify in a register of 1,000",
            Self::Many => "verify in the large register",
        }
    }
}

/// Two that are compared.
pub(crate) struct Comparison {
    pub(crate) ours: Who,
    pub(crate) theirs: Who,
    pub(crate) floor: Option<f64>,
    pub(crate) goal: Option<f64>,
    /// Whether both are driven in the open loop too.
    open: bool,
}

/// The table's rows.
pub(crate) const COMPARISONS: [Comparison; 9] = [
    compare(Who::Verify, Who::NginxVerify, Some(0.7), Some(1.0), true),
    compare(Who::Inline, Who::NginxInline, Some(0.4), Some(0.8), true),
    compare(Who::Retrieve, Who::NginxRetrieve, Some(0.6), Some(1.0), true),
    compare(Who::Verify, Who::Redis, None, Some(0.8), false),
    compare(Who::Verify, Who::Bare, None, None, false),
    compare(Who::Verify, Who::NodeVerify, Some(5.0), Some(10.0), false),
    compare(Who::Issue, Who::Signatures, Some(0.3), Some(0.5), false),
    compare(Who::Issue, Who::NodeIssue, None, None, false),
    compare(Who::Many, Who::Few, Some(0.7), Some(0.8), false),
];

const fn compare(ours: Who, theirs: Who, floor: Option<f64>, goal: Option<f64>, open: bool) -> Comparison {
    Comparison { ours, theirs, floor, goal, open }
}

/// At what pace runs were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum At {
    /// Closed loop.
    Most,
    /// Open loop: a row of [`COMPARISONS`] and one of [`OPEN_SHARES`].
    Share(usize, usize),
}

/// What came of the runs of one server at one pace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    /// By round; `None` where the run was void or not kept up with.
    runs: Vec<Option<Run>>,
    /// Why the last of those has no numbers.
    void: Option<String>,
}

/// Everything that was measured.
pub(crate) struct Results {
    pub(crate) series: BTreeMap<(Who, At), Series>,
    /// Requests a second of the open loops.
    pub(crate) rates: BTreeMap<At, f64>,
    /// Who has no numbers, and why.
    pub(crate) missing: BTreeMap<Who, Missing>,
}

/// Why there are no numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It is not here.
    Skipped(String),
    /// It gave a wrong answer, or something of ours failed.
    Wrong(String),
}

impl Results {
    fn new() -> Self {
        Self { series: BTreeMap::new(), rates: BTreeMap::new(), missing: BTreeMap::new() }
    }

    fn skip(&mut self, who: &[Who], error: &anyhow::Error) {
        for who in who {
            command::note(format_args!("skipped: {}: {error:#}", who.title()));
            self.missing.insert(*who, Missing::Skipped(format!("{error:#}")));
        }
    }

    fn fail(&mut self, who: &[Who], error: &anyhow::Error) {
        for who in who {
            command::note(format_args!("no number: {}: {error:#}", who.title()));
            self.missing.insert(*who, Missing::Wrong(format!("{error:#}")));
        }
    }

    /// Right answers of the runs that have numbers.
    fn answers(&self, who: &[Who]) -> u64 {
        let series = self.series.iter().filter(|((one, _), _)| who.contains(one));
        series.flat_map(|(_, series)| series.runs.iter().flatten()).map(|run| run.answers).sum()
    }

    fn note(&mut self, who: Who, at: At, measured: anyhow::Result<Measured>) {
        let series = self.series.entry((who, at)).or_default();
        match measured {
            Ok(Measured::Run(run)) => series.runs.push(Some(*run)),
            Ok(Measured::Void(why)) => {
                series.runs.push(None);
                series.void = Some(format!("void: {why}"));
            }
            Ok(Measured::Behind(why)) => {
                series.runs.push(None);
                series.void = Some(format!("not kept up with: {why}"));
            }
            Ok(Measured::Wrong(why)) => {
                self.missing.insert(who, Missing::Wrong(why));
            }
            Err(error) => {
                self.missing.insert(who, Missing::Wrong(format!("{error:#}")));
            }
        }
    }

    /// Median answers a second in the closed loop.
    fn most(&self, who: Who) -> Option<f64> {
        if self.missing.contains_key(&who) {
            return None;
        }
        let runs = self.series.get(&(who, At::Most))?.runs.iter().flatten();
        table::median(runs.map(|run| run.answers_a_second))
    }
}

impl Plan {
    fn pace(&self, arrivals: Arrivals) -> Pace {
        Pace {
            connections: self.connections,
            arrivals,
            warm_up: self.warm_up,
            duration: self.duration,
            generator_core: self.generator_core,
            patience: self.patience,
        }
    }

    fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(folder)
    }
}

/// Refuses a disk on which an exchange would run into its journal's reserve in the middle of the comparison.
fn has_room(folder: &Path, bytes: u64) -> anyhow::Result<()> {
    let disk = rustix::fs::statvfs(folder)?;
    let (free, total) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
    let least = bytes + total / RESERVE;
    ensure!(
        free >= least,
        "{}: {} GiB are free and {} needed, the journal's reserve with them; name another folder with --data",
        folder.display(),
        free >> 30,
        (least >> 30) + 1
    );
    Ok(())
}

/// Builds the exchange as it is shipped, and plainly with its ablation build, if cargo runs this program in its release
/// profile; gives the shipped one. Otherwise what is beside this program is taken.
fn build() -> anyhow::Result<Option<PathBuf>> {
    let (Some(cargo), Some(manifest)) = (std::env::var_os("CARGO"), std::env::var_os("CARGO_MANIFEST_DIR"))
    else {
        return Ok(None);
    };
    // Set by whatever cargo runs: only `cargo run -p bench` means this program.
    if Path::new(&manifest).file_name() != Some("bench".as_ref()) {
        return Ok(None);
    }
    let cargo = |words: &[&str]| {
        let mut command = Command::new(&cargo);
        // What cargo says to us of our own package is news to ring's build script: it and all above it would be built again.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        command.current_dir(&manifest).args(words);
        command
    };
    let profile: &[&str] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
    // Beside this program, so that all that both need is built as it is for this one.
    let packages = ["build", "--locked", "-p", "bench", "-p", "exchange"];
    for words in [&["--bin", "exchange"][..], &["--bin", ABLATION, "--features", "exchange/bench-ablation"]] {
        let built = cargo(&packages).args(words).args(profile).status()?;
        ensure!(built.success(), "the exchange was not built ({built})");
    }
    if cfg!(debug_assertions) {
        return Ok(None);
    }
    let shipped = cargo(&["run", "--quiet", "--locked", "--package", "xtask", "--", "release"])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(shipped.status.success(), "the exchange was not built as it is shipped ({})", shipped.status);
    let said = String::from_utf8(shipped.stdout)?;
    Ok(said.lines().last().map(PathBuf::from))
}

/// Installs the programs that are missing and that Debian has; what cannot be had is skipped later, with the reason.
fn install() {
    let missing: Vec<&str> = PACKAGES
        .into_iter()
        .filter(|(name, _)| child::program(name).is_none())
        .map(|(_, package)| package)
        .collect();
    if missing.is_empty() {
        return;
    }
    if child::program("apt-get").is_none() || !rustix::process::geteuid().is_root() {
        command::note(format_args!(
            "not installed, and only root with apt-get can install: {}",
            missing.join(" ")
        ));
        return;
    }
    command::note(format_args!("installing with apt-get: {}", missing.join(" ")));
    for words in [&["update"][..], &["install", "--yes", "--no-install-recommends"]] {
        let mut command = Command::new("apt-get");
        command.arg("--quiet").args(words).stdin(Stdio::null()).stdout(Stdio::null());
        // At run level 1 no package starts its service.
        command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        if words.len() > 1 {
            command.args(&missing);
        }
        if !command.status().is_ok_and(|status| status.success()) {
            command::note(format_args!("apt-get {} does not work", words[0]));
            return;
        }
    }
}

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let begun = Instant::now();
    ensure!(plan.server_core != plan.generator_core, "server and generator need a processor each");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut results = Results::new();
    let mut main = Main::start(plan, &runtime)?;
    main.add_peers(plan, &mut results);
    main.compare_ciphers(&mut results);
    rest(main.servers.iter().chain([&main.exchange.running]));

    command::note(format_args!("closed loop, {} rounds of {} servers", plan.rounds, main.contenders.len()));
    for round in 0..plan.rounds {
        let signed = |results: &mut Results| {
            let run = signatures(plan).map(|run| Measured::Run(Box::new(run)));
            results.note(Who::Signatures, At::Most, run);
        };
        if round % 2 == 1 {
            signed(&mut results);
        }
        for contender in in_turn(&mut main.contenders, round) {
            closed(contender, plan, &mut results);
        }
        if round % 2 == 0 {
            signed(&mut results);
        }
    }
    open_loops(&mut main.contenders, plan, &mut results);
    let half = main.half(plan, &mut results)?;
    let sizes = main.sizes;
    let mut receipts = main.check(&runtime, &results)?;
    drop(main);

    // What fails from here on takes away only its own rows.
    ablations(plan, &runtime, &mut results);
    let steps = steps(plan).map_err(|error| format!("{error:#}"));
    if let Err(why) = &steps {
        command::note(format_args!("no number: {STEPS}: {why}"));
    }
    if let Some(large) = plan.large {
        receipts += growth::measure(plan, &runtime, large, &mut results)?;
    }
    Ok(Report::of(plan, &results, half, sizes, receipts, steps, begun.elapsed()))
}

/// Waits until servers have done what their start and their population left to do. One that is gone says so when it is measured.
fn rest<'a>(servers: impl IntoIterator<Item = &'a Running>) {
    for server in servers {
        let _ = process::rest_after_start(&server.processes());
    }
}

/// The order of odd rounds is the other way round, so that a machine that slows down favours nobody.
fn in_turn<T>(contenders: &mut [T], round: usize) -> Box<dyn Iterator<Item = &mut T> + '_> {
    if round.is_multiple_of(2) {
        Box::new(contenders.iter_mut())
    } else {
        Box::new(contenders.iter_mut().rev())
    }
}

fn closed(contender: &mut Contender, plan: &Plan, results: &mut Results) {
    let who = contender.who;
    if results.missing.contains_key(&who) {
        return;
    }
    let measured = measure(contender, &plan.pace(Arrivals::Closed));
    say(who, &measured);
    results.note(who, At::Most, measured);
}

/// Says what came of a run.
fn say(who: Who, measured: &anyhow::Result<Measured>) {
    match measured {
        Ok(Measured::Run(run)) => command::note(format_args!(
            "  {}: {:.0}/s, {:.1} µs, generator {:.0} %",
            who.title(),
            run.answers_a_second,
            run.server_micros,
            run.generator * 100.0
        )),
        Ok(Measured::Void(why)) => command::note(format_args!("  {}: void: {why}", who.title())),
        Ok(Measured::Behind(why)) => {
            command::note(format_args!("  {}: not kept up with: {why}", who.title()))
        }
        Ok(Measured::Wrong(why)) => command::note(format_args!("  {}: wrong: {why}", who.title())),
        Err(error) => command::note(format_args!("  {}: {error:#}", who.title())),
    }
}

fn open_loops(contenders: &mut [Contender], plan: &Plan, results: &mut Results) {
    for (row, comparison) in COMPARISONS.iter().enumerate().filter(|(_, comparison)| comparison.open) {
        let (Some(ours), Some(theirs)) = (results.most(comparison.ours), results.most(comparison.theirs))
        else {
            continue;
        };
        for (at, share) in OPEN_SHARES.iter().enumerate() {
            let (at, rate) = (At::Share(row, at), ours.min(theirs) * share);
            command::note(format_args!(
                "open loop at {rate:.0}/s: {} and {}",
                comparison.ours.title(),
                comparison.theirs.title()
            ));
            results.rates.insert(at, rate);
            let pace = plan.pace(Arrivals::Open { rate: Rate::Constant(rate), poisson: true });
            for round in 0..plan.rounds {
                let both = [comparison.ours, comparison.theirs];
                for contender in in_turn(contenders, round).filter(|one| both.contains(&one.who)) {
                    if !results.missing.contains_key(&contender.who) {
                        let measured = measure(contender, &pace);
                        say(contender.who, &measured);
                        results.note(contender.who, at, measured);
                    }
                }
            }
        }
    }
}

/// Steps of a verify, on the server's processor.
fn steps(plan: &Plan) -> anyhow::Result<Vec<steps::Step>> {
    let (folder, core, duration) = (plan.folder("steps")?, plan.server_core, plan.duration / STEP_SHARE);
    let measuring = std::thread::spawn(move || {
        process::pin(core)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        steps::measure(&runtime, &folder, duration)
    });
    measuring.join().map_err(|_| anyhow::anyhow!("a step failed"))?
}

/// Raw signatures on the server's processor for the time of a run.
fn signatures(plan: &Plan) -> anyhow::Result<Run> {
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .and_then(|pkcs8| Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).map_err(|_| ring::error::Unspecified))
        .map_err(|_| anyhow::anyhow!("no key"))?;
    let (core, duration) = (plan.server_core, plan.duration);
    let signing = std::thread::spawn(move || -> std::io::Result<(u64, f64, f64)> {
        process::pin(core)?;
        let message = [7; SIGNED_BYTES];
        let (begun, used, mut count) = (Instant::now(), process::thread_seconds(), 0);
        while begun.elapsed() < duration {
            for _ in 0..SIGNATURES {
                std::hint::black_box(key.sign(std::hint::black_box(&message)));
            }
            count += SIGNATURES;
        }
        Ok((count, begun.elapsed().as_secs_f64(), process::thread_seconds() - used))
    });
    let (count, seconds, used) = signing.join().map_err(|_| anyhow::anyhow!("signing failed"))??;
    let micros = used * 1e6 / count as f64;
    Ok(Run {
        answers: count,
        answers_a_second: count as f64 / seconds,
        server_micros: micros,
        generator: 0.0,
        p50: micros / 1e3,
        p99: micros / 1e3,
        threads: BTreeMap::from([("ring".to_owned(), Micros { user: micros, system: 0.0 })]),
        later_micros: 0.0,
    })
}

/// Bytes of the exchange's answers, which those of nginx and of the bare server have too.
#[derive(Clone, Copy, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sizes {
    pub(crate) verify: usize,
    pub(crate) inline: usize,
    pub(crate) retrieve: usize,
}

/// The exchange with its licenses, its peers, and what all of them are asked.
struct Main {
    /// The exchange's.
    folder: PathBuf,
    pki: Pki,
    exchange: Exchange,
    trust: Trust,
    sizes: Sizes,
    contenders: Vec<Contender>,
    kept: [(Who, KeptList); 4],
    /// The peers; ended when dropped.
    servers: Vec<Running>,
    keys: usize,
}

impl Main {
    fn start(plan: &Plan, runtime: &Runtime) -> anyhow::Result<Self> {
        let folder = plan.folder("exchange")?;
        let trust = exchange::prepare(&folder, plan.licenses, plan.entries)?;
        let exchange = exchange::start(&plan.server, &["serve", "--development"], &folder, plan.server_core)?;
        let server = &exchange.running;
        let mut requests = runtime.block_on(exchange::requests(&folder, server.address))?;
        let pki = Pki::of(&folder);
        let (relying, issuer) = (pki.client(exchange::RELYING)?, pki.client(exchange::ISSUER)?);
        // Ranks are given to both kinds of holder alike.
        for templates in [&mut requests.verify, &mut requests.inline, &mut requests.retrieve] {
            shuffle(templates);
        }
        let mut probe = Probe::open(server.address, &relying)?;
        let mut size = |templates: &[Template]| answer_bytes(&mut probe, templates);
        let sizes = Sizes {
            verify: size(&requests.verify)?,
            inline: size(&requests.inline)?,
            retrieve: size(&requests.retrieve)?,
        };
        let kept =
            [Who::Verify, Who::Inline, Who::Retrieve, Who::Issue].map(|who| (who, KeptList::default()));
        let asked = [
            (requests.verify, 200, &relying),
            (requests.inline, 200, &relying),
            (requests.retrieve, 200, &relying),
            (requests.issue, 201, &issuer),
        ];
        let contenders = asked
            .into_iter()
            .zip(&kept)
            .map(|((templates, status, tls), (who, kept))| {
                let asking = Asking::new(templates, status, Right::Begins).keeping(kept);
                Contender::new(*who, server.address, server.processes(), Some(tls), Protocol::Http1, asking)
            })
            .collect();
        Ok(Self {
            folder,
            pki,
            exchange,
            trust,
            sizes,
            contenders,
            kept,
            servers: Vec::new(),
            keys: usize::try_from(plan.licenses)?,
        })
    }

    /// The exchange at half of its knee; `None` if it has no maximum.
    fn half(&mut self, plan: &Plan, results: &mut Results) -> anyhow::Result<Option<Result<Half, String>>> {
        let Some(most) = results.most(Who::Verify) else { return Ok(None) };
        command::note(format_args!("the knee of {}", Who::Verify.title()));
        let verify = self.contenders.iter_mut().find(|contender| contender.who == Who::Verify);
        let half = half::run(verify.context("the exchange")?, &self.folder, most, plan)?;
        match &half {
            Ok(half) => {
                let (at, p99, bare) = (half.offered, half.p99, half.bare.latency_ms.p99);
                command::note(format_args!("  at {at:.0}/s: p99 {p99:.2} ms, of bare appends {bare:.2} ms"));
            }
            Err(why) => command::note(format_args!("  {why}")),
        }
        Ok(Some(half))
    }

    /// Starts the peers; who cannot be started is skipped.
    fn add_peers(&mut self, plan: &Plan, results: &mut Results) {
        if let Err(error) = self.add_nginx(plan) {
            results.skip(&[Who::NginxVerify, Who::NginxInline, Who::NginxRetrieve], &error);
        }
        if let Err(error) = self.add_bare(plan) {
            results.skip(&[Who::Bare], &error);
        }
        if let Err(error) = self.add_redis(plan) {
            results.skip(&[Who::Redis], &error);
        }
        if let Err(error) = self.add_node(plan) {
            results.skip(&[Who::NodeVerify, Who::NodeIssue], &error);
        }
    }

    fn add(&mut self, who: Who, server: &Running, protocol: Protocol, asking: Asking) -> anyhow::Result<()> {
        let tls = self.pki.client(exchange::RELYING)?;
        self.contenders.push(Contender::new(
            who,
            server.address,
            server.processes(),
            Some(&tls),
            protocol,
            asking,
        ));
        Ok(())
    }

    fn add_nginx(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let Sizes { verify, inline, retrieve } = self.sizes;
        let files = [
            (Who::NginxVerify, "verify.json", content(verify)),
            (Who::NginxInline, "inline.json", content(inline)),
            (Who::NginxRetrieve, "retrieve.json", content(retrieve)),
        ];
        let named: Vec<(&str, &[u8])> =
            files.iter().map(|(_, name, content)| (*name, &content[..])).collect();
        let server = nginx::start(&plan.folder("nginx")?, &self.pki, plan.server_core, &named)?;
        for (who, name, content) in &files {
            let asking = Asking::new(vec![Template::get(&format!("/{name}"), content)], 200, Right::Is);
            self.add(*who, &server, Protocol::Http1, asking)?;
        }
        self.servers.push(server);
        Ok(())
    }

    fn add_bare(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let body = content(self.sizes.verify);
        let server = bare::start(&plan.folder("bare")?, &self.pki, plan.server_core, &body)?;
        // A request as long as the exchange's, which is read whole.
        let request = "x".repeat(self.request_bytes());
        let asking = Asking::new(vec![Template::post("/", "", &request, &body)], 200, Right::Is);
        self.add(Who::Bare, &server, Protocol::Http1, asking)?;
        self.servers.push(server);
        Ok(())
    }

    /// Bytes of a verify request's body.
    fn request_bytes(&self) -> usize {
        let verify = self.contenders.iter().find(|contender| contender.who == Who::Verify);
        verify.map_or(0, |contender| contender.asking.body_bytes())
    }

    fn add_redis(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let server = redis::start(&plan.folder("redis")?, &self.pki, plan.server_core)?;
        redis::fill(&server, &self.pki.client(exchange::RELYING)?, self.keys)?;
        let value = redis::value();
        let templates = (0..self.keys).map(|number| Template::raw(redis::get(number), &value)).collect();
        let asking = Asking::new(templates, 200, Right::Is);
        self.add(Who::Redis, &server, Protocol::Resp, asking)?;
        self.servers.push(server);
        Ok(())
    }

    fn add_node(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let node::Node { running, valid, revoked } = node::start(&plan.cache, &self.pki, plan.server_core)?;
        let tls = self.pki.client(exchange::RELYING)?;
        let verify =
            |body: &[u8], right: &[u8]| Template::post("/verify", "", &String::from_utf8_lossy(body), right);
        let valid = verify(&valid, br#"{"verdict":"valid"}"#);
        // A service that finds everything valid would be fast.
        let found = Probe::open(running.address, &tls)?.call(&verify(&revoked, b"").written(0))?;
        ensure!(found.ends_with(br#"{"verdict":"invalid"}"#), "a revoked credential is not found invalid");
        let claims = serde_json::json!({"claims": {
            "name": "测试甲", "sex": "女", "idNumber": "350102194604220001", "profession": "电工",
            "level": "三级/高级工", "approvalDate": "2026-01-05", "institutionName": "示例评价机构",
        }});
        let issue = Template::post("/issue", "", &claims.to_string(), br#"{"sdJwt":"ey"#);
        self.add(Who::NodeVerify, &running, Protocol::Http1, Asking::new(vec![valid], 200, Right::Is))?;
        self.add(Who::NodeIssue, &running, Protocol::Http1, Asking::new(vec![issue], 201, Right::Begins))?;
        self.servers.push(running);
        Ok(())
    }

    /// A peer that speaks another TLS version or cipher is not compared.
    fn compare_ciphers(&self, results: &mut Results) {
        let cipher = |contender: &Contender| -> anyhow::Result<String> {
            let Endpoint { address, tls, .. } = &contender.endpoint;
            Probe::open(*address, tls.as_ref().context("no TLS")?)?.cipher()
        };
        let mut ours = None;
        for contender in &self.contenders {
            match cipher(contender) {
                Ok(theirs) if ours.as_ref().is_none_or(|ours| *ours == theirs) => ours = Some(theirs),
                Ok(theirs) => {
                    let why = format!("speaks {theirs}, not {}", ours.as_deref().unwrap_or_default());
                    results.missing.insert(contender.who, Missing::Wrong(why));
                }
                Err(error) => {
                    results.missing.insert(contender.who, Missing::Wrong(format!("{error:#}")));
                }
            }
        }
    }

    /// Checks the receipts that were kept of who has numbers. How many they were.
    fn check(&self, runtime: &Runtime, results: &Results) -> anyhow::Result<usize> {
        let (mut all, mut checked) = (Vec::new(), Vec::new());
        for (who, kept) in self.kept.iter().filter(|(who, _)| !results.missing.contains_key(who)) {
            let kept = std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner));
            ensure!(!kept.is_empty(), "{}: no answer was kept to be checked", who.title());
            if *who == Who::Inline {
                exchange::check_inline(&kept, &self.trust)?;
            }
            all.extend(kept);
            checked.push(*who);
        }
        if all.is_empty() {
            return Ok(0);
        }
        self.exchange.check(runtime, &all, results.answers(&checked), &self.trust)
    }
}

/// JSON of a length that is not the same twice within it, as of an answer.
fn content(bytes: usize) -> Vec<u8> {
    let text: String = (0_u64..)
        .map(|at| char::from(b'a' + (at.wrapping_mul(0x9e37_79b9) >> 20) as u8 % 26))
        .take(bytes.saturating_sub(8))
        .collect();
    format!("{{\"a\":\"{text}\"}}").into_bytes()
}

/// Another order, the same each time.
fn shuffle(templates: &mut [Template]) {
    let mut random = crate::random::Random::new(2);
    for at in (1..templates.len()).rev() {
        templates.swap(at, (random.bits() % (at as u64 + 1)) as usize);
    }
}

/// Bytes of the body of an answer.
fn answer_bytes(probe: &mut Probe, templates: &[Template]) -> anyhow::Result<usize> {
    let template = templates.first().context("nothing to ask")?;
    let answer = probe.call(&template.written(0))?;
    let text = String::from_utf8_lossy(&answer);
    ensure!(
        text.starts_with("HTTP/1.1 200 "),
        "the exchange answers {}",
        text.lines().next().unwrap_or_default()
    );
    Ok(text.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len()))
}

/// States what each property costs, on exchanges with few licenses.
fn ablations(plan: &Plan, runtime: &Runtime, results: &mut Results) {
    let ablation = plan.plain.with_file_name(ABLATION);
    let product = (plan.plain.as_path(), vec!["serve", "--development"]);
    let without = |what| (ablation.as_path(), vec!["--without", what]);
    let ram_disk = tempfile::Builder::new().prefix("miaoxiang-bench-").tempdir_in(RAM_DISK);
    let variants = [
        (Who::AsItIs, product.clone(), plan.folder("as-it-is")),
        (
            Who::RamDisk,
            product,
            ram_disk
                .as_ref()
                .map(|folder| folder.path().to_owned())
                .map_err(|error| anyhow::anyhow!("{RAM_DISK}: {error}")),
        ),
        (Who::NoTls, without("tls"), plan.folder("without-tls")),
        (
            Who::NoClientCertificates,
            without("client-certificates"),
            plan.folder("without-client-certificates"),
        ),
        (Who::NoFloor, without("floor"), plan.folder("without-floor")),
    ];
    command::note("what each property costs");
    let (mut servers, mut contenders) = (Vec::new(), Vec::new());
    for (who, (binary, words), folder) in variants {
        match folder.and_then(|folder| ablated(plan, runtime, who, binary, &words, &folder)) {
            Ok((server, contender)) => {
                servers.push(server);
                contenders.push(contender);
            }
            Err(error) => results.skip(&[who], &error),
        }
    }
    rest(&servers);
    for round in 0..plan.rounds {
        for contender in in_turn(&mut contenders, round) {
            closed(contender, plan, results);
        }
    }
}

fn ablated(
    plan: &Plan,
    runtime: &Runtime,
    who: Who,
    binary: &Path,
    words: &[&str],
    folder: &Path,
) -> anyhow::Result<(Running, Contender)> {
    ensure!(binary.is_file(), "{} is not built", binary.display());
    exchange::prepare(folder, plan.licenses.min(ABLATION_LICENSES), 0)?;
    // Asked of the exchange as it is: who issues and who grants is known from certificates.
    let server = exchange::start(&plan.server, &["serve", "--development"], folder, plan.server_core)?;
    let requests = runtime.block_on(exchange::requests(folder, server.running.address))?;
    drop(server);
    let server = exchange::start(binary, words, folder, plan.server_core)?.running;
    let tls = if who == Who::NoTls { None } else { Some(Pki::of(folder).client(exchange::RELYING)?) };
    let asking = Asking::new(requests.verify, 200, Right::Begins);
    let contender =
        Contender::new(who, server.address, server.processes(), tls.as_ref(), Protocol::Http1, asking);
    Ok((server, contender))
}

#[cfg(test)]
mod tests {
    use certs::pki::{DevelopmentPki, LEAF_VALIDITY, Validity};

    use super::*;
    use crate::folder::organisation;

    fn plan(folder: &Path) -> Plan {
        let core = (0..).find(|core| process::core_busy_seconds(*core).is_ok()).unwrap();
        Plan {
            folder: folder.to_owned(),
            server: PathBuf::new(),
            shipped: false,
            quick: true,
            plain: PathBuf::new(),
            cache: PathBuf::new(),
            licenses: 2,
            entries: 0,
            connections: 2,
            rounds: 2,
            warm_up: Duration::from_millis(1),
            duration: Duration::from_millis(50),
            patience: Duration::ZERO,
            long: Duration::from_millis(50),
            large: None,
            server_core: core,
            generator_core: core,
        }
    }

    #[test]
    fn a_pair_is_driven_at_shares_of_the_lower_maximum_and_who_is_missing_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let pki = DevelopmentPki::create_missing(folder.path().join("pki")).unwrap();
        let relying = organisation(exchange::RELYING).unwrap();
        pki.issue_client(exchange::RELYING, &[relying], Validity::starting_now(LEAF_VALIDITY)).unwrap();
        let pki = Pki::of(folder.path());
        let tls = pki.client(exchange::RELYING).unwrap();
        let body = br#"{"verdict":"valid"}"#;
        let address = bare::tests::serve_in_thread(&pki, body);
        let mut results = Results::new();
        let mut contenders = Vec::new();
        for (who, most) in [(Who::Verify, 400.0), (Who::NginxVerify, 200.0), (Who::Redis, 300.0)] {
            let asking = Asking::new(vec![Template::get("/", body)], 200, Right::Is);
            let own = vec![std::process::id()];
            contenders.push(Contender::new(who, address, own, Some(&tls), Protocol::Http1, asking));
            let run = Run {
                answers: 1,
                answers_a_second: most,
                server_micros: 1.0,
                generator: 0.1,
                p50: 1.0,
                p99: 1.0,
                threads: BTreeMap::new(),
                later_micros: 0.0,
            };
            results.note(who, At::Most, Ok(Measured::Run(Box::new(run))));
        }
        results.skip(&[Who::Redis], &anyhow::anyhow!("not installed"));
        open_loops(&mut contenders, &plan(folder.path()), &mut results);
        let rates: Vec<(At, f64)> = results.rates.iter().map(|(at, rate)| (*at, *rate)).collect();
        assert_eq!(rates, [(At::Share(0, 0), 100.0), (At::Share(0, 1), 160.0)]);
        for at in [At::Share(0, 0), At::Share(0, 1)] {
            for who in [Who::Verify, Who::NginxVerify] {
                // A run may be void: the processor is not its own.
                assert_eq!(results.series[&(who, at)].runs.len(), 2, "{who:?} {at:?}");
            }
        }
        assert_eq!(results.missing.len(), 1);
    }

    #[test]
    fn who_is_wrong_or_void_has_no_maximum() {
        let mut results = Results::new();
        results.note(Who::Bare, At::Most, Ok(Measured::Wrong("1 × body".to_owned())));
        results.note(Who::Redis, At::Most, Ok(Measured::Void("busy".to_owned())));
        assert_eq!(results.missing[&Who::Bare], Missing::Wrong("1 × body".to_owned()));
        assert_eq!(
            (results.most(Who::Bare), results.most(Who::Redis), results.most(Who::Verify)),
            (None, None, None)
        );
    }

    #[test]
    fn a_body_has_the_length_asked_for() {
        for bytes in [8, 599, 3_465] {
            assert_eq!(content(bytes).len(), bytes);
        }
    }
}
