//! What a run says of itself: text, JSON and the numbers behind them.
//!
//! A run whose generator was saturated, and one in which no check passed, has no numbers: [`Measured`] is only made
//! where both are in order.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::baseline::{self, Bare};
use crate::check::Checks;
use crate::drive::{self, Arrivals, Handshakes, Outcome, Rate, Row};
use crate::environment::Environment;
use crate::journal::Frames;
use crate::scenario::Scenario;
use crate::server::Sample;

/// Points of a latency curve, as shares of all answers.
const CURVE: [f64; 13] = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1.0];
/// Rows of a report at most; more are merged.
const MAX_ROWS: usize = 600;
/// How long the bare runs last at most.
pub const BARE: Duration = Duration::from_secs(3);

/// Milliseconds at points of a distribution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Highest.
    pub max: f64,
}

fn ms(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

impl Latency {
    /// Of a histogram in µs.
    pub fn of(micros: &Histogram<u64>) -> Self {
        let at = |quantile| ms(micros.value_at_quantile(quantile));
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: ms(micros.max()) }
    }
}

/// One operation of a mix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KindReport {
    /// Its name.
    pub name: String,
    /// Mean bytes of its request bodies; 0 when not known.
    pub body_bytes: usize,
    /// Right answers.
    pub answers: u64,
    /// Their latency.
    pub latency_ms: Latency,
}

/// What the server used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerReport {
    /// Processors.
    pub cpu: f64,
    /// Processor time for one right answer, µs.
    pub us_an_answer: f64,
    /// Resident memory at the end, MiB.
    pub resident_mib: u64,
    /// `fdatasync` of the journal a second, seals among them.
    pub syncs_a_second: f64,
    /// Mean time of the journal's write and sync, ms.
    pub sync_ms: f64,
    /// Entries in a group.
    pub entries_a_group: f64,
}

impl ServerReport {
    fn of([before, after]: &[Sample; 2], answers_a_second: f64) -> Self {
        // The samples are taken as close to the measured time as they can be; what they count is over their own.
        let seconds = after.at.duration_since(before.at).as_secs_f64().max(f64::EPSILON);
        let (cpu, syncs) = ((after.cpu - before.cpu) / seconds, after.syncs - before.syncs);
        Self {
            cpu,
            us_an_answer: if answers_a_second > 0.0 { cpu * 1e6 / answers_a_second } else { 0.0 },
            resident_mib: after.resident_bytes >> 20,
            syncs_a_second: syncs / seconds,
            sync_ms: (after.sync_seconds - before.sync_seconds) * 1e3 / syncs.max(1.0),
            entries_a_group: (after.entries - before.entries) / (after.groups - before.groups).max(1.0),
        }
    }
}

/// The numbers of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    /// Right answers a second that came within the measured time.
    pub answers_a_second: f64,
    /// Right answers to requests of the measured time, whenever they came.
    pub answers: u64,
    /// Slots on the schedule; 0 in the closed loop.
    pub scheduled: u64,
    /// Those sent more than 1 ms late.
    pub missed: u64,
    /// What was no right answer.
    pub errors: BTreeMap<String, u64>,
    /// Latency of right answers.
    pub latency_ms: Latency,
    /// Share of all answers and the latency that they stay within, ms.
    pub curve: Vec<[f64; 2]>,
    /// By operation.
    pub kinds: Vec<KindReport>,
    /// Second by second; merged in long runs.
    pub rows: Vec<Row>,
    /// Handshakes, full and resumed.
    pub handshakes: [u64; 2],
    /// Processors that the generator used.
    pub generator_cpu: f64,
    /// Share of its processor in use, by whomever; absent when it had none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core_busy: Option<f64>,
    /// What the server used; absent for a service that is not ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerReport>,
    /// Bytes of the journal for one entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry_bytes: Option<u64>,
    /// The same bytes appended and synced bare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bare: Option<BareReport>,
}

/// What to do after a run that is void.
pub const AFTER_VOID: &str = "Stop what else runs on this machine, give the server and the generator a processor each \
(--server-core 0 --generator-core 1), offer less (--rate), open fewer connections (--connections), and run it again.";

/// One run of a phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunReport {
    /// What was offered, in words.
    pub name: String,
    /// Requests a second on the schedule; of a ramp at its end; absent in the closed loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<f64>,
    /// Seconds measured.
    pub seconds: f64,
    /// Why there are no numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub void: Option<String>,
    /// The numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
}

/// The name and what was offered.
pub fn offered(arrivals: Arrivals) -> (String, Option<f64>) {
    match arrivals {
        Arrivals::Closed => ("closed loop".to_owned(), None),
        Arrivals::Open { rate, poisson } => {
            let word = if poisson { "Poisson" } else { "constant" };
            match rate {
                Rate::Constant(rate) => (format!("open loop, {word}, {rate:.0}/s"), Some(rate)),
                Rate::Ramp(from, to) => (format!("open loop, {word}, {from:.0} to {to:.0}/s"), Some(to)),
            }
        }
    }
}

impl RunReport {
    /// Sums up a run; `kinds` names its kinds with the mean bytes of their bodies.
    pub fn of(
        arrivals: Arrivals,
        outcome: &Outcome,
        samples: Option<&[Sample; 2]>,
        kinds: &[(String, usize)],
    ) -> Self {
        let (name, offered) = offered(arrivals);
        let void = outcome.void();
        let seconds = outcome.duration.as_secs_f64();
        let measured = void.is_none().then(|| {
            let Handshakes { full, resumed } = outcome.handshakes;
            Measured {
                answers_a_second: outcome.answers_a_second(),
                answers: outcome.answers,
                scheduled: outcome.scheduled,
                missed: outcome.missed,
                errors: outcome.errors.clone(),
                latency_ms: Latency::of(&outcome.latency),
                curve: CURVE.map(|share| [share, ms(outcome.latency.value_at_quantile(share))]).to_vec(),
                kinds: outcome
                    .kinds
                    .iter()
                    .zip(kinds)
                    .map(|(kind, (name, body_bytes))| KindReport {
                        name: name.clone(),
                        body_bytes: *body_bytes,
                        answers: kind.answers,
                        latency_ms: Latency::of(&kind.latency),
                    })
                    .collect(),
                rows: rows(&outcome.rows),
                handshakes: [full, resumed],
                generator_cpu: outcome.generator_cpu,
                core_busy: outcome.core_busy,
                server: samples.map(|samples| ServerReport::of(samples, outcome.answers_a_second())),
                entry_bytes: None,
                bare: None,
            }
        });
        Self { name, offered, seconds, void, measured }
    }

    /// Whether it kept up with what was offered, without an error.
    pub fn kept_up(&self) -> bool {
        let (Some(measured), Some(offered)) = (&self.measured, self.offered) else { return false };
        let asked = measured.answers as f64 / self.seconds;
        // What came is compared with what was really offered: random arrivals of a short run are not as many as the rate says.
        measured.errors.is_empty()
            && asked >= drive::KEPT_UP * offered
            && measured.answers_a_second >= drive::KEPT_UP * asked
    }
}

fn rows(rows: &[Row]) -> Vec<Row> {
    let merged = |rows: &[Row]| {
        let mean = |value: fn(&Row) -> f64| rows.iter().map(value).sum::<f64>() / rows.len().max(1) as f64;
        let highest = |value: fn(&Row) -> f64| rows.iter().map(value).fold(0.0, f64::max);
        Row {
            at: highest(|row| row.at),
            answers_a_second: mean(|row| row.answers_a_second),
            errors: rows.iter().map(|row| row.errors).sum(),
            p50: mean(|row| row.p50),
            p99: highest(|row| row.p99),
            max: highest(|row| row.max),
        }
    };
    rows.chunks(rows.len().div_ceil(MAX_ROWS).max(1)).map(merged).collect()
}

/// The same bytes appended and synced bare.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BareReport {
    /// Bytes of a frame.
    pub frame_bytes: u64,
    /// Asked for; absent = one after another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<f64>,
    /// Appends with their sync a second.
    pub appends_a_second: f64,
    /// Time of one.
    pub latency_ms: Latency,
}

impl BareReport {
    /// Appends frames of the size that a run wrote for so long: at its rate of syncs, or one after another.
    ///
    /// # Errors
    /// The file system's.
    pub fn measure(
        folder: &Path,
        frames: &Frames,
        syncs_a_second: Option<f64>,
        duration: Duration,
    ) -> io::Result<Self> {
        let rate = syncs_a_second.map(|rate| rate.max(1.0));
        let frame_bytes = frames.frame_bytes();
        let Bare { appends, elapsed, latency } = baseline::run(folder, frame_bytes, rate, duration)?;
        Ok(Self {
            frame_bytes,
            scheduled: rate,
            appends_a_second: appends as f64 / elapsed.as_secs_f64().max(f64::EPSILON),
            latency_ms: Latency::of(&latency),
        })
    }
}

/// Runs of one phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseReport {
    /// One, or the steps.
    pub runs: Vec<RunReport>,
    /// Of steps: the highest rate that was kept up with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knee: Option<f64>,
}

/// A whole run of a scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Format of this report.
    pub version: u32,
    /// When it began, RFC 3339.
    pub began: String,
    /// Name of the scenario.
    pub scenario: String,
    /// The scenario, as it was run.
    pub plan: Scenario,
    /// Origin of the log; absent for a service that is not ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Licenses and entries in the log before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub population: Option<[u64; 2]>,
    /// The processors of server and generator, where they were named.
    pub cores: [Option<usize>; 2],
    /// The machine.
    pub environment: Environment,
    /// Phases.
    pub phases: Vec<PhaseReport>,
    /// Checks of receipts; absent for a service that gives none, whose every answer is compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<Checks>,
}

/// The format of reports.
pub const VERSION: u32 = 1;

impl Report {
    /// All runs.
    pub fn runs(&self) -> impl Iterator<Item = &RunReport> {
        self.phases.iter().flat_map(|phase| &phase.runs)
    }

    /// Why the report has no numbers, if a run of it has none.
    pub fn void(&self) -> Option<&str> {
        self.runs().find_map(|run| run.void.as_deref())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load = &self.plan.load;
        writeln!(f, "{}: {}", self.scenario, self.plan.title)?;
        if let (Some(origin), Some([licenses, entries])) = (&self.origin, self.population) {
            writeln!(f, "log {origin}, {licenses} licenses, {entries} entries before")?;
        }
        writeln!(f, "{} connections, {}", load.connections, self.environment.processor)?;
        for phase in &self.phases {
            for run in &phase.runs {
                write!(f, "{run}")?;
            }
            if let Some(knee) = phase.knee {
                writeln!(f, "\nknee: {knee:.0}/s is the highest step that was kept up with")?;
            }
        }
        if let Some(checks) = &self.checks {
            writeln!(f, "\nchecks: {checks}")?;
        }
        Ok(())
    }
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}, {:.0} s", self.name, self.seconds)?;
        if let Some(void) = &self.void {
            return writeln!(f, "  VOID: {void}. {AFTER_VOID}");
        }
        let Some(measured) = &self.measured else { return Ok(()) };
        writeln!(f, "  answers/s          {:.0}", measured.answers_a_second)?;
        writeln!(f, "  latency ms         {}", measured.latency_ms)?;
        if measured.kinds.len() > 1 {
            for kind in &measured.kinds {
                writeln!(
                    f,
                    "    {:<16} {:>9}  {}  ({} bytes a request)",
                    kind.name, kind.answers, kind.latency_ms, kind.body_bytes
                )?;
            }
        }
        let errors: u64 = measured.errors.values().sum();
        write!(f, "  errors             {errors}")?;
        for (cause, count) in &measured.errors {
            write!(f, "  {cause}: {count}")?;
        }
        writeln!(f)?;
        let [full, resumed] = measured.handshakes;
        writeln!(f, "  handshakes         {full} full, {resumed} resumed")?;
        if measured.scheduled > 0 {
            writeln!(f, "  slots              {}, {} missed", measured.scheduled, measured.missed)?;
        }
        write!(f, "  processors         generator {:.2}", measured.generator_cpu)?;
        if let Some(busy) = measured.core_busy {
            write!(f, " (its processor {:.0} % busy)", busy * 100.0)?;
        }
        if let Some(server) = &measured.server {
            writeln!(
                f,
                ", server {:.2} ({:.1} µs an answer), {} MiB",
                server.cpu, server.us_an_answer, server.resident_mib
            )?;
            write!(
                f,
                "  journal            {:.0} syncs/s of {:.2} ms, {:.1} entries a group",
                server.syncs_a_second, server.sync_ms, server.entries_a_group
            )?;
        }
        writeln!(f)?;
        if let Some(bare) = &measured.bare {
            writeln!(
                f,
                "  bare append        {:.0}/s of {} bytes, ms: {}",
                bare.appends_a_second, bare.frame_bytes, bare.latency_ms
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.2}  p99 {:.2}  p99.9 {:.2}  max {:.2}", self.p50, self.p99, self.p999, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::{Kind, new_histogram};

    fn outcome(generator_cpu: f64) -> Outcome {
        let mut latency = new_histogram();
        (1..=1_000).for_each(|value| latency.record(value * 10).unwrap());
        Outcome {
            duration: Duration::from_secs(2),
            answers: 1_000,
            all_answers: 1_100,
            scheduled: 1_000,
            missed: 3,
            errors: BTreeMap::new(),
            latency: latency.clone(),
            kinds: vec![Kind { answers: 1_000, latency }],
            lateness: new_histogram(),
            rows: Vec::new(),
            handshakes: Handshakes { full: 4, resumed: 2 },
            generator_cpu,
            core_busy: None,
        }
    }

    const RATE: Arrivals = Arrivals::Open { rate: Rate::Constant(505.0), poisson: true };

    #[test]
    fn a_run_has_its_numbers() {
        let report = RunReport::of(RATE, &outcome(0.5), None, &[("verify".to_owned(), 400)]);
        assert!(report.kept_up());
        let measured = report.measured.as_ref().unwrap();
        assert!((measured.answers_a_second - 500.0).abs() < 1e-9);
        assert!(
            (measured.latency_ms.p50 - 5.0).abs() < 0.01 && (measured.latency_ms.max - 10.0).abs() < 0.01
        );
        assert_eq!((measured.kinds[0].name.as_str(), measured.handshakes), ("verify", [4, 2]));
        assert!(report.to_string().contains("p50 5.0"), "{report}");
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<RunReport>(&text).unwrap(), report);
        assert!(!RunReport::of(Arrivals::Closed, &outcome(0.5), None, &[]).kept_up());
        let wanting = Arrivals::Open { rate: Rate::Constant(520.0), poisson: true };
        assert!(!RunReport::of(wanting, &outcome(0.5), None, &[]).kept_up());
        // Each answer came in the end, but they piled up.
        let mut piled = outcome(0.5);
        let row =
            |at, answers_a_second| Row { at, answers_a_second, errors: 0, p50: 1.0, p99: 1.0, max: 1.0 };
        piled.rows = vec![row(1.0, 505.0), row(2.0, 460.0), row(2.001, 9_000.0)];
        assert!(!RunReport::of(RATE, &piled, None, &[]).kept_up());
        piled.rows[1].answers_a_second = 500.0;
        assert!(RunReport::of(RATE, &piled, None, &[]).kept_up());
        let mut failed = outcome(0.5);
        failed.errors.insert("500".to_owned(), 1);
        assert!(!RunReport::of(RATE, &failed, None, &[]).kept_up());
    }

    #[test]
    fn a_void_run_shows_no_number() {
        let report = RunReport::of(RATE, &outcome(0.9), None, &[("verify".to_owned(), 400)]);
        assert_eq!(report.measured, None);
        for text in [report.to_string(), serde_json::to_string(&report).unwrap()] {
            assert!(text.contains("90 % busy"), "{text}");
            assert!(!text.contains("p50") && !text.contains("p99") && !text.contains("answers"), "{text}");
        }
    }

    #[test]
    fn long_runs_are_merged_into_few_rows() {
        let row = |at: u32| Row {
            at: f64::from(at),
            answers_a_second: 10.0,
            errors: 1,
            p50: 1.0,
            p99: f64::from(at),
            max: f64::from(at),
        };
        let merged = rows(&(1..=1_500).map(row).collect::<Vec<_>>());
        assert_eq!(merged.len(), 500);
        assert_eq!((merged[0].errors, merged[499].at, merged[499].p99), (3, 1_500.0, 1_500.0));
        assert_eq!(rows(&[row(1)]).len(), 1);
    }
}
