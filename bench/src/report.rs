//! What a run prints.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::baseline::Bare;
use crate::check::Checks;
use crate::journal::Frames;
use crate::load::Phase;

/// Milliseconds at three points of a distribution.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Highest.
    pub max: f64,
}

impl Latency {
    fn of(micros: &Histogram<u64>) -> Self {
        let ms = |value: u64| value as f64 / 1_000.0;
        Self {
            p50: ms(micros.value_at_quantile(0.5)),
            p99: ms(micros.value_at_quantile(0.99)),
            max: ms(micros.max()),
        }
    }
}

/// One phase of load.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadReport {
    /// Requests a second on the schedule; `None` in the closed loop.
    pub scheduled: Option<f64>,
    /// Right answers a second.
    pub answers_a_second: f64,
    /// Right answers.
    pub answers: u64,
    /// Latency of right answers, ms.
    pub latency_ms: Latency,
    /// What was no right answer.
    pub errors: BTreeMap<String, u64>,
    /// Processor seconds of the server a second.
    pub server_cpu: f64,
    /// Processor seconds of the generator a second.
    pub generator_cpu: f64,
    /// Processor time of the server for one answer, µs.
    pub server_us_an_answer: f64,
    /// `fdatasync` of the journal a second, seals among them.
    pub syncs_a_second: f64,
    /// Mean time of the journal's write and sync, ms.
    pub sync_ms: f64,
    /// Entries in a group.
    pub entries_a_group: f64,
}

impl LoadReport {
    /// Sums up a phase.
    pub fn of(phase: &Phase, scheduled: Option<f64>) -> Self {
        let [before, after] = &phase.samples;
        // The samples are taken as close to the measured time as they can be; what they count is over their own.
        let seconds = after.at.duration_since(before.at).as_secs_f64();
        let server_cpu = after.server_cpu - before.server_cpu;
        let syncs = after.syncs - before.syncs;
        Self {
            scheduled,
            answers_a_second: phase.answers as f64 / phase.duration.as_secs_f64(),
            answers: phase.answers,
            latency_ms: Latency::of(&phase.latency),
            errors: phase.errors.clone(),
            server_cpu: server_cpu / seconds,
            generator_cpu: (after.generator_cpu - before.generator_cpu) / seconds,
            server_us_an_answer: server_cpu * 1e6 / phase.answers.max(1) as f64,
            syncs_a_second: syncs / seconds,
            sync_ms: (after.sync_seconds - before.sync_seconds) * 1e3 / syncs.max(1.0),
            entries_a_group: (after.entries - before.entries) / (after.groups - before.groups).max(1.0),
        }
    }
}

/// The same bytes appended and synced bare.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BareReport {
    /// Bytes of a frame.
    pub frame_bytes: u64,
    /// Asked for; `None` = one after another.
    pub scheduled: Option<f64>,
    /// Appends with their sync a second.
    pub appends_a_second: f64,
    /// Time of one, ms.
    pub latency_ms: Latency,
}

impl BareReport {
    /// Sums up a bare run.
    pub fn of(bare: &Bare, frame_bytes: u64, scheduled: Option<f64>) -> Self {
        Self {
            frame_bytes,
            scheduled,
            appends_a_second: bare.appends as f64 / bare.elapsed.as_secs_f64().max(f64::EPSILON),
            latency_ms: Latency::of(&bare.latency),
        }
    }
}

/// A whole run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunReport {
    /// Scenario.
    pub scenario: &'static str,
    /// Origin of the log.
    pub origin: String,
    /// Licenses issued for it.
    pub licenses: usize,
    /// Connections.
    pub connections: usize,
    /// Measured seconds of each phase.
    pub seconds: u64,
    /// Closed loop: the most it answers.
    pub closed: LoadReport,
    /// Open loop: latency from the scheduled start.
    pub open: LoadReport,
    /// Bytes of the journal for one entry of the closed loop.
    pub entry_bytes: u64,
    /// Frames of the closed loop's size, one after another.
    pub bare: BareReport,
    /// Frames of the open loop's size, at its rate.
    pub bare_at_rate: BareReport,
    /// Checks.
    pub checks: Checks,
}

impl RunReport {
    /// Entries a second that the bare disk takes at the group size of the closed loop.
    fn bare_entries(&self) -> f64 {
        self.bare.appends_a_second * self.closed.entries_a_group
    }
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} over mTLS: {} licenses, {} connections, {} s a phase, log {}",
            self.scenario, self.licenses, self.connections, self.seconds, self.origin
        )?;
        load(f, "closed loop", &self.closed)?;
        load(f, "open loop, latency from the scheduled start", &self.open)?;
        writeln!(f, "\nbare append + fdatasync, same disk, same run")?;
        bare(f, "one after another", &self.bare)?;
        let entries = self.bare_entries();
        writeln!(
            f,
            "                     = {entries:.0} entries/s; the closed loop reaches {:.2} of it",
            self.closed.answers_a_second / entries.max(1.0)
        )?;
        bare(f, "at the open loop's rate", &self.bare_at_rate)?;
        writeln!(f, "  journal            {} bytes an entry", self.entry_bytes)?;
        writeln!(
            f,
            "\nchecked              {} receipts ({} of denials), {} up to the signed checkpoint, {} failed",
            self.checks.receipts, self.checks.denials, self.checks.proofs, self.checks.failed
        )
    }
}

fn load(f: &mut fmt::Formatter<'_>, title: &str, load: &LoadReport) -> fmt::Result {
    writeln!(f, "\n{title}")?;
    if let Some(scheduled) = load.scheduled {
        writeln!(f, "  scheduled/s        {scheduled:.0}")?;
    }
    writeln!(f, "  answers/s          {:.0}", load.answers_a_second)?;
    latency(f, &load.latency_ms)?;
    let errors: u64 = load.errors.values().sum();
    write!(f, "  errors             {errors}")?;
    for (cause, count) in &load.errors {
        write!(f, "  {cause}: {count}")?;
    }
    writeln!(f)?;
    writeln!(
        f,
        "  processors         server {:.2} ({:.1} µs an answer), generator {:.2}",
        load.server_cpu, load.server_us_an_answer, load.generator_cpu
    )?;
    writeln!(
        f,
        "  journal            {:.0} syncs/s of {:.2} ms, {:.1} entries a group",
        load.syncs_a_second, load.sync_ms, load.entries_a_group
    )
}

fn bare(f: &mut fmt::Formatter<'_>, title: &str, bare: &BareReport) -> fmt::Result {
    writeln!(
        f,
        "  {title:<24} {:.0}/s of {} bytes, ms: p50 {:.2}  p99 {:.2}  max {:.2}",
        bare.appends_a_second,
        bare.frame_bytes,
        bare.latency_ms.p50,
        bare.latency_ms.p99,
        bare.latency_ms.max
    )
}

fn latency(f: &mut fmt::Formatter<'_>, latency: &Latency) -> fmt::Result {
    writeln!(f, "  latency ms         p50 {:.2}  p99 {:.2}  max {:.2}", latency.p50, latency.p99, latency.max)
}

/// How long the bare runs last.
pub const BARE: Duration = Duration::from_secs(3);

/// Runs both baselines for the frames that a run wrote.
///
/// # Errors
/// The file system's.
pub fn baselines(
    folder: &std::path::Path,
    closed: &Frames,
    open: &Frames,
    open_rate: f64,
) -> std::io::Result<[BareReport; 2]> {
    let unpaced = crate::baseline::run(folder, closed.frame_bytes(), None, BARE)?;
    let rate = open_rate.max(1.0);
    let paced = crate::baseline::run(folder, open.frame_bytes(), Some(rate), BARE)?;
    Ok([
        BareReport::of(&unpaced, closed.frame_bytes(), None),
        BareReport::of(&paced, open.frame_bytes(), Some(rate)),
    ])
}
