//! The budget of instructions of a verify request, counted by callgrind: counts differ by a thousandth from run to run, where
//! times differ by a third.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::Workspace;
use crate::tools;

/// The budget, below the workspace's root.
const BUDGET: &str = "bench/instructions.json";
/// More than the budget by this is a regression, per cent.
const SLACK_PERCENT: u64 = 5;
/// Must equal the version of `gungraun` in the workspace's Cargo.toml.
const RUNNER_VERSION: &str = "0.20.0";
const RUNNER: &str = "gungraun-runner";
/// Requests of the counted call: `GROUP` in bench/benches/instructions.rs.
const GROUP: u64 = 64;

/// Instructions of one verify request, in a group of 64, by the profile that it was built in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    /// What `cargo xtask test` builds: our crates hardly optimised.
    dev: u64,
    /// What is served.
    release: u64,
}

/// Counts, prints and compares with the budget.
///
/// # Errors
/// Valgrind or its runner cannot be had, or the count is over the budget.
pub(crate) fn check(workspace: &Workspace, release: bool) -> anyhow::Result<()> {
    let path = workspace.root.join(BUDGET);
    let budget: Budget =
        serde_json::from_str(&std::fs::read_to_string(&path).context(BUDGET)?).context(BUDGET)?;
    let (profile, budget) = if release { ("release", budget.release) } else { ("dev", budget.dev) };
    let counted = count(workspace, profile)?;
    println!("{counted} instructions a verify request, {profile} profile; the budget is {budget}");
    within(counted, budget).with_context(|| format!("{BUDGET}, {profile}"))
}

fn within(counted: u64, budget: u64) -> anyhow::Result<()> {
    ensure!(
        counted * 100 <= budget * (100 + SLACK_PERCENT),
        "{counted} instructions are more than {SLACK_PERCENT} % above the budget of {budget}"
    );
    if counted * 100 < budget * (100 - SLACK_PERCENT) {
        println!("more than {SLACK_PERCENT} % below the budget: write down in {BUDGET} what was gained");
    }
    Ok(())
}

fn count(workspace: &Workspace, profile: &str) -> anyhow::Result<u64> {
    tools::install_valgrind()?;
    let output = workspace
        .cargo(&["bench", "--locked", "--workspace", "--bench", "instructions", "--profile", profile])
        .env("GUNGRAUN_RUNNER", runner(workspace)?)
        .env("GUNGRAUN_HOME", workspace.target.join("gungraun"))
        .env("GUNGRAUN_OUTPUT_FORMAT", "json")
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the count ended with {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    let group = text.lines().find_map(instructions).context("no count in what the runner says")?;
    Ok(group / GROUP)
}

/// Instructions of all threads in a line of the runner.
fn instructions(line: &str) -> Option<u64> {
    let summary: Value = serde_json::from_str(line).ok()?;
    let parts = summary.pointer("/profiles/0/data/parts")?.as_array()?;
    let of = |part: &Value| part.pointer("/metrics/Ir/values/new").and_then(Value::as_u64);
    Some(parts.iter().filter_map(of).sum()).filter(|sum| *sum > 0)
}

/// The runner in the target folder, installed there when it is missing or another version.
fn runner(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let root = workspace.target.join("xtask-tools");
    let runner = root.join("bin").join(RUNNER);
    let version = |runner: &PathBuf| Command::new(runner).arg("--version").output();
    let wanted = format!("{RUNNER} {RUNNER_VERSION}");
    let there = |found: std::io::Result<std::process::Output>| {
        found.is_ok_and(|output| output.stdout.trim_ascii() == wanted.as_bytes())
    };
    if there(version(&runner)) {
        return Ok(runner);
    }
    println!("installing {wanted} in the target folder");
    let exact = format!("={RUNNER_VERSION}");
    let mut install = Command::new(&workspace.cargo);
    install
        .args(["install", RUNNER, "--version", &exact, "--locked", "--debug", "--quiet", "--root"])
        .arg(&root)
        .env("CARGO_TARGET_DIR", root.join("build"));
    tools::run(&mut install)?;
    if !there(version(&runner)) {
        bail!("{RUNNER} is not version {RUNNER_VERSION}");
    }
    Ok(runner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_percent_more_than_the_budget_is_too_much() {
        for good in [50_000, 100_000, 105_000] {
            assert!(within(good, 100_000).is_ok(), "{good}");
        }
        assert!(within(105_001, 100_000).is_err());
    }

    #[test]
    fn the_instructions_of_all_threads_are_counted() {
        let part = |count: u64| serde_json::json!({"metrics": {"Ir": {"values": {"new": count}}}});
        let line = serde_json::json!({"profiles": [{"data": {"parts": [part(640), part(64)]}}]}).to_string();
        assert_eq!(instructions(&line), Some(704));
        for line in ["", "not JSON", "{}", &line.replace("Ir", "Dr")] {
            assert_eq!(instructions(line), None, "{line}");
        }
    }
}
