//! Compares two sides over alternating runs: the ratio of each pair, their median and spread. One run says little on a
//! machine whose clock and neighbours change; the pair next to each other share both.

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;

use crate::report::{Measured, Report};
use crate::sign;

/// Fewest pairs.
pub const LEAST_PAIRS: usize = 5;
/// Largest report that is read.
const MAX_REPORT_BYTES: u64 = 64 << 20;

/// A number of each run.
type Value = fn(&Measured) -> Option<f64>;

/// What is compared of each run.
const VALUES: [(&str, Value); 4] = [
    ("answers/s", |measured| Some(measured.answers_a_second)),
    ("server µs an answer", |measured| measured.server.as_ref().map(|server| server.us_an_answer)),
    ("p50 ms", |measured| Some(measured.latency_ms.p50)),
    ("p99 ms", |measured| Some(measured.latency_ms.p99)),
];

/// One number over all pairs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// What.
    pub name: &'static str,
    /// Median of A.
    pub a: f64,
    /// Median of B.
    pub b: f64,
    /// B over A, pair by pair.
    pub ratios: Vec<f64>,
    /// Median of the ratios.
    pub median: f64,
    /// Lowest and highest of them.
    pub spread: [f64; 2],
}

/// One run of the scenario over all pairs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunComparison {
    /// Name of the run in the first report of A.
    pub name: String,
    /// What was no right answer in all runs of A, and of B.
    pub errors: [u64; 2],
    /// The numbers, of right answers.
    pub values: Vec<Compared>,
}

/// The comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Pairs.
    pub pairs: usize,
    /// Run by run.
    pub runs: Vec<RunComparison>,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "B over A, {} alternating pairs", self.pairs)?;
        for run in &self.runs {
            writeln!(f, "\n{}", run.name)?;
            if run.errors != [0, 0] {
                writeln!(f, "  {:<20} A {:>10}  B {:>10}", "errors", run.errors[0], run.errors[1])?;
            }
            for value in &run.values {
                let [low, high] = value.spread;
                writeln!(
                    f,
                    "  {:<20} A {:>10.2}  B {:>10.2}  ratio {:.3} ({low:.3}–{high:.3})",
                    value.name, value.a, value.b, value.median
                )?;
            }
        }
        Ok(())
    }
}

/// The signed reports of a folder, in order of time.
///
/// # Errors
/// A file is no report, or its signature is not good.
pub fn reports(folder: &Path) -> anyhow::Result<Vec<Report>> {
    let mut reports = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = || path.display().to_string();
        ensure!(std::fs::metadata(&path)?.len() <= MAX_REPORT_BYTES, "{} is too long", name());
        let text = std::fs::read_to_string(&path).with_context(name)?;
        reports.push(sign::verify(&text).with_context(name)?.0);
    }
    reports.sort_by(|a, b| a.began.cmp(&b.began));
    Ok(reports)
}

/// Compares the reports of both sides, each in order of time.
///
/// # Errors
/// They are too few, did not alternate, are void, or are not of the same runs.
pub fn compare(a: &[Report], b: &[Report]) -> anyhow::Result<Comparison> {
    ensure!(a.len() == b.len(), "{} runs of A and {} of B are no pairs", a.len(), b.len());
    ensure!(a.len() >= LEAST_PAIRS, "{} pairs are too few: at least {LEAST_PAIRS}", a.len());
    let alternate = a.iter().zip(b).all(|(a, b)| a.began < b.began)
        && b.iter().zip(a.iter().skip(1)).all(|(b, a)| b.began < a.began);
    ensure!(alternate, "the runs did not alternate A, B, A, B: what changed meanwhile would be in the ratio");
    if let Some(void) = a.iter().chain(b).find_map(Report::void) {
        bail!("a run is void: {void}");
    }
    let runs = |report: &Report| report.runs().count();
    let count = a.first().map_or(0, runs);
    ensure!(
        count > 0 && a.iter().chain(b).all(|report| runs(report) == count),
        "the reports have different runs"
    );
    let compared = (0..count)
        .map(|at| {
            let name = a.first().and_then(|report| report.runs().nth(at)).map(|run| run.name.clone());
            let values = VALUES.iter().filter_map(|(name, value)| {
                let of = |reports: &[Report]| -> Option<Vec<f64>> {
                    reports.iter().map(|report| value(report.runs().nth(at)?.measured.as_ref()?)).collect()
                };
                Some(pairs(name, of(a)?, of(b)?))
            });
            let errors = |reports: &[Report]| -> u64 {
                let measured = reports.iter().filter_map(|report| report.runs().nth(at)?.measured.as_ref());
                measured.flat_map(|measured| measured.errors.values()).sum()
            };
            let errors = [errors(a), errors(b)];
            RunComparison { name: name.unwrap_or_default(), errors, values: values.collect() }
        })
        .collect();
    Ok(Comparison { pairs: a.len(), runs: compared })
}

fn pairs(name: &'static str, a: Vec<f64>, b: Vec<f64>) -> Compared {
    let ratios: Vec<f64> = a.iter().zip(&b).map(|(a, b)| b / a).collect();
    let spread = ratios.iter().fold([f64::INFINITY, 0.0], |[low, high], r| [low.min(*r), high.max(*r)]);
    Compared { name, a: median(a), b: median(b), median: median(ratios.clone()), ratios, spread }
}

/// The middle one; of an even number the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    match (values.get(low), values.get(high)) {
        (Some(low), Some(high)) => (low + high) / 2.0,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{PhaseReport, RunReport};
    use crate::sign::tests::report;

    fn made(second: usize, rate: f64) -> Report {
        let text = format!(
            r#"{{"name": "closed loop", "seconds": 2.0, "measured": {{"answersASecond": {rate}, "answers": 10,
            "scheduled": 0, "missed": 0, "errors": {{}}, "latencyMs": {{"p50": 1.0, "p90": 2.0, "p99": {rate},
            "p999": 4.0, "max": 5.0}}, "curve": [], "kinds": [], "rows": [], "handshakes": [1, 0], "generatorCpu": 0.5}}}}"#
        );
        let run: RunReport = serde_json::from_str(&text).unwrap();
        let phases = vec![PhaseReport { runs: vec![run], knee: None }];
        Report { phases, ..report(&format!("2026-01-01T00:00:{second:02}Z")) }
    }

    /// A at 100 with a machine that slows down, B a tenth faster, but once twice as fast.
    fn sides() -> (Vec<Report>, Vec<Report>) {
        let a = (0..5).map(|n| made(2 * n, 100.0 - n as f64)).collect();
        let b =
            (0..5).map(|n| made(2 * n + 1, (100.0 - n as f64) * if n == 3 { 2.0 } else { 1.1 })).collect();
        (a, b)
    }

    #[test]
    fn ratios_are_of_pairs_with_median_and_spread() {
        let (a, b) = sides();
        let comparison = compare(&a, &b).unwrap();
        assert_eq!((comparison.pairs, comparison.runs.len()), (5, 1));
        let values = &comparison.runs[0].values;
        // There is no server of ours in these.
        assert_eq!(
            values.iter().map(|value| value.name).collect::<Vec<_>>(),
            ["answers/s", "p50 ms", "p99 ms"]
        );
        let rate = &values[0];
        assert!((rate.median - 1.1).abs() < 1e-9 && (rate.a - 98.0).abs() < 1e-9);
        assert!((rate.spread[0] - 1.1).abs() < 1e-9 && (rate.spread[1] - 2.0).abs() < 1e-9);
        assert!(comparison.to_string().contains("ratio 1.100 (1.100–2.000)"), "{comparison}");
    }

    #[test]
    fn what_is_no_fair_comparison_is_refused() {
        let (a, b) = sides();
        let refused = |a: &[Report], b: &[Report]| compare(a, b).unwrap_err().to_string();
        assert!(refused(&a[..4], &b[..4]).contains("too few"));
        assert!(refused(&a, &b[..4]).contains("no pairs"));
        assert!(refused(&b, &a).contains("alternate"));
        let mut swapped = b.clone();
        swapped[4].began = "2026-01-01T00:00:02.5Z".to_owned();
        assert!(refused(&a, &swapped).contains("alternate"));
        let mut void = b.clone();
        void[2].phases[0].runs[0].void = Some("too busy".to_owned());
        assert!(refused(&a, &void).contains("too busy"));
        let mut other = b.clone();
        other[2].phases.clear();
        assert!(refused(&a, &other).contains("different runs"));
    }

    #[test]
    fn reports_are_read_in_order_and_only_with_good_signatures() {
        let folder = tempfile::tempdir().unwrap();
        let key = sign::key(folder.path()).unwrap();
        let text = |second| sign::signed(&made(second, 100.0), &key).unwrap();
        std::fs::write(folder.path().join("a.json"), text(9)).unwrap();
        std::fs::write(folder.path().join("b.json"), text(3)).unwrap();
        let read = reports(folder.path()).unwrap();
        assert_eq!(read.iter().map(|report| &report.began[17..19]).collect::<Vec<_>>(), ["03", "09"]);
        std::fs::write(folder.path().join("b.json"), text(3).replace("100.0", "900.0")).unwrap();
        assert!(format!("{:#}", reports(folder.path()).unwrap_err()).contains("b.json"));
    }

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(Vec::new()).is_nan());
    }
}
