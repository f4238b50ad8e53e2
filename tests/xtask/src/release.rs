//! The exchange as it is shipped: built twice, the second time for what the first did under load (profile-guided
//! optimization, rustc book). Decision 0024 has the reason and what was measured.
//!
//! The profile is made where the program is built and is not kept in the tree: it fits one compiler and one state of
//! the code, and whatever it does not fit is built as if it had never run.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, bail, ensure};

use crate::Workspace;
use crate::load::VOID;
use crate::tools;

/// Below the target folder, because everything in it is built with other flags.
const FOLDER: &str = "shipped";
/// What the first build is driven with.
const SCENARIO: &str = "train";
/// The rustup component with the program that merges profiles, and that program.
const COMPONENT: &str = "llvm-tools";
const MERGE: &str = "llvm-profdata";

/// Builds it and gives where it is.
///
/// # Errors
/// The profile cannot be made: the component is missing and rustup cannot install it, or the load test fails.
pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let toolchain = Toolchain::ask()?;
    let merge = toolchain.merge()?;
    let folder = workspace.target.join(FOLDER);
    tools::run(&mut workspace.cargo(&["build", "--release", "--locked", "--package", "bench"]))?;
    // Counts go to files of this folder whenever such a build ends.
    let counts = folder.join("counts");
    let counting = exchange(workspace, &toolchain, &folder, &flag("-Cprofile-generate=", &counts)?)?;
    // By its name it is of this very program, and another one makes cargo build again.
    let made = counting.metadata()?.modified()?.duration_since(UNIX_EPOCH)?;
    let profile = folder.join(format!("{}.profile", made.as_nanos()));
    if !profile.is_file() {
        remove(&counts)?;
        train(workspace, &counting)?;
        let merged = folder.join("merged");
        tools::run(Command::new(merge).args(["merge", "--output"]).args([&merged, &counts]))?;
        std::fs::rename(merged, &profile)?;
    }
    exchange(workspace, &toolchain, &folder, &flag("-Cprofile-use=", &profile)?)
}

/// One build with a flag for every crate of it.
fn exchange(
    workspace: &Workspace,
    toolchain: &Toolchain,
    folder: &Path,
    flag: &str,
) -> anyhow::Result<PathBuf> {
    // With a target named, build scripts and macros are built without the flag.
    let words = ["build", "--release", "--locked", "--package", "exchange", "--bin", "exchange", "--target"];
    let mut command = workspace.cargo(&words);
    command.arg(&toolchain.host).env("CARGO_TARGET_DIR", folder).env("CARGO_ENCODED_RUSTFLAGS", flag);
    tools::run(&mut command)?;
    Ok(folder.join(&toolchain.host).join("release/exchange"))
}

/// Lets the load test drive the counting build. That its numbers may be void does not matter here: what is counted is
/// how often code runs.
fn train(workspace: &Workspace, counting: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(workspace.target.join("release/bench"));
    command.args(["run", SCENARIO, "--server"]).arg(counting);
    let status = command.status().context("bench run")?;
    ensure!(status.success() || status.code() == Some(VOID), "bench run {SCENARIO}: {status}");
    Ok(())
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| folder.display().to_string())
        }
        _ => Ok(()),
    }
}

fn flag(name: &str, path: &Path) -> anyhow::Result<String> {
    Ok(format!("{name}{}", path.to_str().context("the target folder's name is not UTF-8")?))
}

/// What rustc says of itself.
struct Toolchain {
    sysroot: PathBuf,
    host: String,
}

impl Toolchain {
    fn ask() -> anyhow::Result<Self> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let ask = |words: &[&str]| -> anyhow::Result<String> {
            let output = Command::new(&rustc).args(words).output().context("rustc")?;
            ensure!(output.status.success(), "rustc: {}", output.status);
            Ok(String::from_utf8(output.stdout)?)
        };
        let version = ask(&["-vV"])?;
        let host =
            version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
        Ok(Self { sysroot: ask(&["--print", "sysroot"])?.trim().into(), host: host.to_owned() })
    }

    /// The program that merges profiles of this compiler, installed if it is missing.
    fn merge(&self) -> anyhow::Result<PathBuf> {
        let program = self.sysroot.join("lib/rustlib").join(&self.host).join("bin").join(MERGE);
        if !program.is_file() {
            println!("installing with rustup: {COMPONENT}");
            let toolchain = self.sysroot.file_name().unwrap_or(OsStr::new("stable"));
            tools::run(
                Command::new("rustup").args(["component", "add", COMPONENT, "--toolchain"]).arg(toolchain),
            )?;
        }
        if !program.is_file() {
            bail!("there is no {MERGE} in {}: install {COMPONENT} of this compiler", self.sysroot.display());
        }
        Ok(program)
    }
}
