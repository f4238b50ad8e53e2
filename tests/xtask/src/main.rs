//! The project's own commands: `cargo xtask test`, `lint`, `instructions`, `release`, `generate`, `bless`,
//! `tutorial` and `house`.

#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it says what it does, to whoever runs the tests"
)]

mod foreign;
mod house;
mod independent;
mod instructions;
mod load;
mod release;
mod source;
mod steps;
mod tools;
mod tutorial;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use steps::Steps;
use tools::Python;

/// Runs, checks and regenerates what the workspace holds. Everything is written below the target folder
/// (CARGO_TARGET_DIR, or `target`), nothing into the source tree but by `generate` and `bless`.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs everything CI runs, installing what it needs and saying so: lints, all tests, and checks of a running
    /// exchange by programs that share no code with it.
    Test {
        /// Try at least ten times as much of what is random: cases of property tests, kills, power cuts (also under
        /// XFS), full disks, log entries checked. Take the tutorial in a copy of the tree too.
        #[arg(long)]
        long: bool,
    },
    /// Checks format, clippy, the OpenAPI document and the generated code, and runs no test.
    Lint,
    /// Counts the instructions of a verify request under valgrind and compares them with bench/instructions.json.
    Instructions {
        /// Of the release profile, which is built for it; otherwise of the one that `test` builds.
        #[arg(long)]
        release: bool,
    },
    /// Builds the exchange as it is shipped, optimized for what it does under load: builds it, drives it, and builds it
    /// again. The last line says where it is.
    Release,
    /// Makes schemas/src/generated anew from schemas/fbs with the pinned flatc.
    Generate,
    /// Writes anew what is made from tables and fragments in schemas: openapi.json, errors.md, numbers.txt, lists of README.md.
    Bless,
    /// Takes the steps of "How to add a capability" (exchange/README.md) in a copy of the tree, word for word, and runs its
    /// commands there.
    Tutorial,
    /// Measures the source tree by the architecture's targets and prints both; it judges nothing.
    House {
        /// Print JSON, with every place.
        #[arg(long)]
        json: bool,
        /// Print every place.
        #[arg(long)]
        verbose: bool,
    },
}

/// Where things lie.
pub(crate) struct Workspace {
    /// The source tree.
    root: PathBuf,
    /// The target folder.
    target: PathBuf,
    /// The cargo that runs us.
    cargo: OsString,
}

impl Workspace {
    fn locate() -> anyhow::Result<Self> {
        let own = std::env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?;
        let root = Path::new(&own).ancestors().nth(2).context("the workspace is two folders up")?.to_owned();
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => std::path::absolute(folder)?,
            None => root.join("target"),
        };
        std::fs::create_dir_all(&target).with_context(|| target.display().to_string())?;
        Ok(Self { root, target, cargo: std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()) })
    }

    /// A cargo command on the whole workspace with the lock file as it is, so that all of them share what is built.
    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&self.cargo);
        command.args(arguments);
        command
    }

    /// A command in the source tree.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        // Our own package's variables are news to ring's build script: it and all above it would be built again.
        let ours = |name: &OsString| {
            let name = name.to_string_lossy();
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        };
        for (name, _) in std::env::vars_os().filter(|(name, _)| ours(name)) {
            command.env_remove(name);
        }
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        command
    }

    /// A binary or example of the dev profile, as built by an earlier step.
    fn built(&self, name: &str) -> PathBuf {
        self.target.join("debug").join(name)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task) -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    match task {
        Task::Generate => source::generate(&workspace, &Python::ready(&workspace)?),
        Task::Bless => {
            let numbers = ["--lib", "numbers_are_those_of_the_file"];
            for words in [["--test", "blessed"], numbers] {
                let mut command = workspace.cargo(&["test", "--workspace", "--quiet", "--locked"]);
                tools::run(command.args(words).env("BLESS", "1"))?;
            }
            Ok(())
        }
        Task::Tutorial => tutorial::follow(&workspace),
        Task::House { json, verbose } => house::report(&workspace.root, *json, *verbose),
        Task::Lint => {
            let mut steps = Steps::default();
            let python = steps.run("tools", || Python::ready(&workspace))?;
            lint(&mut steps, &workspace, &python)?;
            steps.finish();
            Ok(())
        }
        Task::Release => {
            println!("{}", release::build(&workspace)?.display());
            Ok(())
        }
        Task::Instructions { release } => instructions::check(&workspace, *release),
        Task::Test { long } => test(&workspace, *long),
    }
}

fn lint(steps: &mut Steps, workspace: &Workspace, python: &Python) -> anyhow::Result<()> {
    steps.run("format", || tools::run(&mut workspace.cargo(&["fmt", "--all", "--check"])))?;
    steps.run("no stubs, no ignored tests", || source::no_stubs(workspace))?;
    steps.run("locked dependencies", || source::locked_dependencies(workspace))?;
    steps.run("the first command", || source::first_command(workspace))?;
    steps.run("generated code", || source::generated_code(workspace, python))?;
    steps.run("OpenAPI document", || {
        tools::run(
            python.script(workspace, "openapi_lint.py").arg(workspace.root.join("schemas/openapi.json")),
        )
    })?;
    steps.run("clippy", || {
        let arguments = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
        tools::run(&mut workspace.cargo(&arguments))
    })
}

/// A fault rig: the name that it is skipped by, its words for a short run and those for a long one.
type Rig = (&'static str, &'static [&'static str], &'static [&'static str]);

/// The rigs of every run.
const RIGS: [Rig; 6] = [
    ("system calls", &["sweep"], &["sweep"]),
    ("system calls of a rotation", &["sweep", "--rotation"], &["sweep", "--rotation"]),
    ("calls to providers", &["calls", "--rounds", "1", "--calls", "50"], &["calls"]),
    ("disk full", &["disk-full"], &["disk-full", "--rounds", "50"]),
    ("SIGKILL under load", &["sigkill", "--kills", "100"], &["sigkill", "--kills", "1000"]),
    ("power cut, ext4", &["power-cut", "--cuts", "20"], &["power-cut", "--cuts", "200"]),
];
/// The rigs of long runs only.
const LONG_RIGS: [(&str, &[&str]); 1] =
    [("power cut, XFS", &["power-cut", "--file-system", "xfs", "--cuts", "200"])];

fn rigs(steps: &mut Steps, workspace: &Workspace, long: bool) -> anyhow::Result<()> {
    let mut run = |name: &str, words: &[&str]| {
        steps.run_if_possible(name, || tools::rig(Command::new(workspace.built("rigs")).args(words)))
    };
    for (name, short_run, long_run) in RIGS {
        run(name, if long { long_run } else { short_run })?;
    }
    for (name, words) in LONG_RIGS.iter().filter(|_| long) {
        run(name, words)?;
    }
    Ok(())
}

/// Drives every server of the comparison once; see `bench/src/peers`.
fn peers(workspace: &Workspace) -> anyhow::Result<steps::Ran> {
    let ablation = ["--bin", "exchange-ablation", "--features", "exchange/bench-ablation"];
    tools::run(workspace.cargo(&["build", "--workspace", "--locked"]).args(ablation))?;
    let exchange = workspace.built("exchange");
    tools::rig(Command::new(workspace.built("bench")).args(["peers", "--quick", "--server"]).arg(exchange))
}

fn test(workspace: &Workspace, long: bool) -> anyhow::Result<()> {
    let mut steps = Steps::default();
    let python = steps.run("tools", || {
        tools::install_packages()?;
        Python::ready(workspace)
    })?;
    lint(&mut steps, workspace, &python)?;
    steps.run("build", || {
        tools::run(&mut workspace.cargo(&["build", "--workspace", "--bins", "--examples", "--locked"]))
    })?;
    steps.run("tests", || {
        let mut command = workspace.cargo(&["test", "--workspace", "--locked"]);
        if long {
            command.env("PROPTEST_CASES", "20000");
        }
        tools::run(&mut command)
    })?;
    steps.run_if_possible("peers in the bench", || peers(workspace))?;
    steps.run("instructions of a verify request", || instructions::check(workspace, false))?;
    steps.run("the load test", || load::short_run(workspace))?;
    steps.run("rows of a hosted resource", || load::hosted_rows(workspace, long))?;
    rigs(&mut steps, workspace, long)?;
    steps.run("identifiers, by python-stdnum", || independent::identifiers(workspace, &python))?;
    independent::served(&mut steps, workspace, &python, if long { 10_000 } else { 100 })?;
    if long {
        // It builds the workspace once more, in a folder of its own.
        steps.run("the tutorial", || tutorial::follow(workspace))?;
    }
    steps.finish();
    Ok(())
}
