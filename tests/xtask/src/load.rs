//! The load test, so short that its numbers say nothing: it makes an exchange, loads it, checks the receipts and signs.

use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::Workspace;
use crate::tools;

/// Exit status of a run whose generator was too busy to measure anything but itself.
pub(crate) const VOID: i32 = 3;

/// Runs every operation once closed and once open, and checks what is left of it.
pub(crate) fn short_run(workspace: &Workspace) -> anyhow::Result<()> {
    let folder = workspace.target.join("xtask-load");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let report = folder.join("report");
    let bench = |words: &[&str]| {
        let mut command = Command::new(workspace.built("bench"));
        command.args(words);
        command
    };
    let short = ["run", "mixed", "--licenses", "200", "--connections", "4", "--seconds", "1"];
    let output = bench(&short)
        .arg("--data")
        .arg(folder.join("data"))
        .arg("--report")
        .arg(&report)
        .output()
        .context("bench run")?;
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}{}", String::from_utf8_lossy(&output.stderr));
    // On a busy machine a run is void; its checks are good all the same, and it must not show numbers.
    let void = output.status.code() == Some(VOID);
    ensure!(output.status.success() || void, "bench run: {}", output.status);
    ensure!(said.contains("good receipts") && said.contains(" 0 failures"), "the receipts were checked");
    ensure!(void == said.contains("VOID"), "a void run says so");
    let html = std::fs::read_to_string(report.with_extension("html"))?;
    ensure!(html.contains("<svg") || void, "the report has plots");
    let signed = report.with_extension("json");
    tools::run(bench(&["report", "verify"]).arg(&signed))?;
    let text = std::fs::read_to_string(&signed)?;
    std::fs::write(&signed, text.replacen("\"seconds\": 1.0", "\"seconds\": 2.0", 1))?;
    tools::must_fail(bench(&["report", "verify"]).arg(&signed), 1, "the signature is not good")?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Most bytes of memory that a hosted row may take.
const ROW_BYTES: f64 = 64.0;

/// Brings a million rows of a hosted resource in, ten million in a long run, and holds the growth of memory against its bound. At a million
/// the growth may vanish in memory that was free before, so the bound is sharp in a long run.
pub(crate) fn hosted_rows(workspace: &Workspace, long: bool) -> anyhow::Result<()> {
    let rows = if long { "10000000" } else { "1000000" };
    let mut bench = Command::new(workspace.built("bench"));
    let output = bench
        .args(["records", "--searches", "200", "--json", "--rows", rows])
        .output()
        .context("bench records")?;
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "bench records: {}", output.status);
    let measured: serde_json::Value = serde_json::from_str(&said)?;
    let bytes = measured["residentBytesARow"].as_f64().context("residentBytesARow")?;
    ensure!(bytes <= ROW_BYTES, "a row takes {bytes} bytes of memory, {ROW_BYTES} is the bound");
    Ok(())
}
