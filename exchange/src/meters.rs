//! All metrics of the exchange, described once: `/metrics` has what stands here as HELP lines, and
//! `exchange/docs/operations/metrics.md` lists them with what to watch, which a test compares.
//!
//! Each part of the exchange counts by itself. Counts are memory, and begin at 0 with each process.

use std::time::Duration;

use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, histogram,
};
use rustc_hash::FxHashMap;
use schemas::codes::Code;
use schemas::routes::Route;

/// The kind of figure that a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at each start.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values below bounds.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Names of its labels. Their values are of known, finite sets: never an identifier, a name or a number of a person.
    pub labels: &'static [&'static str],
    /// The unit that it counts or measures in.
    pub unit: &'static str,
    /// Its meaning in one sentence.
    pub help: &'static str,
}

const fn metric(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    unit: &'static str,
    help: &'static str,
) -> Metric {
    Metric { name, kind, labels, unit, help }
}

/// All of them, in the order of the page.
pub const METRICS: &[Metric] = &[
    metric(ANSWERS, Kind::Counter, &["route", "code"], "answers", "Answers, decided or not."),
    metric(
        ANSWER_SECONDS,
        Kind::Histogram,
        &["route"],
        "seconds",
        "Time from the accepted request to the finished answer.",
    ),
    metric(CALLS, Kind::Counter, &["cause"], "calls", "Calls to data providers by how they ended."),
    metric("miaoxiang_journal_entries_total", Kind::Counter, &[], "entries", "Entries made durable."),
    metric(
        "miaoxiang_journal_sync_seconds",
        Kind::Histogram,
        &[],
        "seconds",
        "Time of one write to the disk that makes a group of entries durable.",
    ),
    metric(
        "miaoxiang_journal_group_entries",
        Kind::Histogram,
        &[],
        "entries",
        "Entries made durable by one write.",
    ),
    metric("miaoxiang_journal_queue", Kind::Gauge, &[], "requests", "Requests that wait for the journal."),
    metric(
        "miaoxiang_journal_full",
        Kind::Gauge,
        &[],
        "0 or 1",
        "1 while the journal's disk has no room and nothing is decided.",
    ),
    metric(
        "miaoxiang_clock_behind_seconds",
        Kind::Gauge,
        &[],
        "seconds",
        "How far the clock is behind the journal's time, which stands until then.",
    ),
    metric(
        "miaoxiang_derived_failing",
        Kind::Gauge,
        &["what"],
        "0 or 1",
        "1 while something derived from the journal does not keep up.",
    ),
    metric(
        "miaoxiang_image_lag_entries",
        Kind::Gauge,
        &[],
        "entries",
        "Entries that the restart image does not have yet.",
    ),
    metric(
        "miaoxiang_image_failures_total",
        Kind::Counter,
        &[],
        "failures",
        "Writes of the restart image that failed.",
    ),
    metric(
        "miaoxiang_image_quarantined_total",
        Kind::Counter,
        &[],
        "images",
        "Restart images put aside because they did not fit the journal.",
    ),
    metric(
        "miaoxiang_scrub_damaged_segments",
        Kind::Gauge,
        &[],
        "segments",
        "Closed segments of the journal found damaged or gone.",
    ),
    metric(
        "miaoxiang_scrub_damaged_tiles",
        Kind::Gauge,
        &[],
        "tiles",
        "Tiles of the public log found damaged that could not be mended.",
    ),
    metric(
        "miaoxiang_scrub_mended_tiles_total",
        Kind::Counter,
        &[],
        "tiles",
        "Damaged tiles of the public log that were made anew.",
    ),
    metric(
        "miaoxiang_rows_unreadable_segments",
        Kind::Gauge,
        &[],
        "segments",
        "Segments of hosted rows that could not be read when they were to be written anew: they stay.",
    ),
    metric(
        "miaoxiang_handshakes_total",
        Kind::Counter,
        &["listener", "result"],
        "handshakes",
        "TLS handshakes by their end.",
    ),
    metric(
        "miaoxiang_connections",
        Kind::Gauge,
        &["listener"],
        "connections",
        "Open connections past their handshake.",
    ),
    metric(
        "miaoxiang_connections_refused_total",
        Kind::Counter,
        &["listener", "reason"],
        "connections",
        "Connections closed unserved: over a cap, or given way before their handshake was over.",
    ),
    metric(
        "miaoxiang_connections_closed_total",
        Kind::Counter,
        &["listener", "reason"],
        "connections",
        "Connections that the server closed: answers not taken, floods, protocol errors, clients no longer admitted.",
    ),
    metric(
        "miaoxiang_requests_turned_away_total",
        Kind::Counter,
        &["listener", "reason"],
        "requests",
        "Requests that a listener answers by itself, without a decision.",
    ),
    metric(
        "miaoxiang_panics_total",
        Kind::Counter,
        &["listener"],
        "panics",
        "Faults of the program in handlers and connections.",
    ),
    metric(
        "miaoxiang_expires_seconds",
        Kind::Gauge,
        &["what"],
        "seconds",
        "Time until the first of a kind ends by itself, negative when it has ended.",
    ),
    metric(
        "miaoxiang_reload_failed",
        Kind::Gauge,
        &["what"],
        "0 or 1",
        "1 while changed files cannot be used and older ones are in force.",
    ),
    metric(
        "miaoxiang_identity_keys_until_seconds",
        Kind::Gauge,
        &[],
        "seconds",
        "Moment until which the identity provider's keys are taken, since 1970.",
    ),
    metric(
        "miaoxiang_policies_failed",
        Kind::Gauge,
        &[],
        "0 or 1",
        "1 while the policies in the journal cannot be read, and everything that they are asked about is denied.",
    ),
    metric(
        "miaoxiang_witness_submissions_total",
        Kind::Counter,
        &["witness", "result"],
        "submissions",
        "Checkpoints submitted to a witness by their end.",
    ),
    metric(
        "miaoxiang_witness_cosigned_size",
        Kind::Gauge,
        &["witness"],
        "entries",
        "Size of the log that a witness cosigned last.",
    ),
    metric(
        "miaoxiang_witness_contradicts",
        Kind::Gauge,
        &["witness"],
        "0 or 1",
        "1 while a witness says something of the log that cannot be, without proof.",
    ),
    metric(
        "miaoxiang_applications",
        Kind::Gauge,
        &["what"],
        "applications",
        "Applications to use shared data, counted once a minute.",
    ),
];

/// Gives the installed recorder what each metric is.
pub fn describe() {
    for Metric { name, kind, unit, help, .. } in METRICS {
        let unit = if *unit == "seconds" { Unit::Seconds } else { Unit::Count };
        match kind {
            Kind::Counter => describe_counter!(*name, unit, *help),
            Kind::Gauge => describe_gauge!(*name, unit, *help),
            Kind::Histogram => describe_histogram!(*name, unit, *help),
        }
    }
}

const CALLS: &str = "miaoxiang_calls_total";
const ANSWERS: &str = "miaoxiang_answers_total";
const ANSWER_SECONDS: &str = "miaoxiang_answer_seconds";

/// Counts a call to a data provider by how it ended: `answered`, or the code or reason of its failure.
pub fn called(cause: &'static str) {
    counter!(CALLS, "cause" => cause).increment(1);
}

/// Bounds of the latency histograms, seconds.
pub const LATENCY_BOUNDS: [f64; 14] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0];
/// Bounds of the group size histogram, entries.
pub const GROUP_BOUNDS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0];

/// Handles made once, so that an answer costs no label formatting.
pub struct Meters {
    answers: FxHashMap<(u8, u16), Counter>,
    latency: FxHashMap<u8, Histogram>,
}

impl Meters {
    /// Registers every route and code with the installed recorder.
    pub fn new() -> Self {
        let mut answers = FxHashMap::default();
        let mut latency = FxHashMap::default();
        for route in Route::ALL {
            latency.insert(route.number(), histogram!(ANSWER_SECONDS, "route" => route.name()));
            for code in Code::ALL {
                let answer = counter!(ANSWERS, "route" => route.name(), "code" => code.name());
                answers.insert((route.number(), code.number()), answer);
            }
        }
        Self { answers, latency }
    }

    /// Counts one answer.
    pub fn answered(&self, route: Route, code: Code, took: Duration) {
        if let Some(counter) = self.answers.get(&(route.number(), code.number())) {
            counter.increment(1);
        }
        if let Some(latency) = self.latency.get(&route.number()) {
            latency.record(took.as_secs_f64());
        }
    }
}

impl Default for Meters {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_page_lists_what_is_described() {
        let page = include_str!("../docs/operations/metrics.md");
        let rows = page.lines().filter(|line| line.starts_with("| `miaoxiang_"));
        let rows: Vec<Vec<&str>> =
            rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect();
        assert_eq!(rows.len(), METRICS.len());
        for (row, metric) in rows.iter().zip(METRICS) {
            let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let kind = format!("{:?}", metric.kind).to_lowercase();
            let name = format!("`{}`", metric.name);
            assert_eq!(row[..5], [&*name, &*kind, &*labels.join(", "), metric.unit, metric.help]);
            assert!(!row[5].is_empty(), "{name}: what to watch");
        }
    }

    /// Names in quotes in the sources of a folder.
    fn names(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                names(&path, found);
            } else if path.extension().is_some_and(|have| have == "rs") && !path.ends_with("src/meters.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found
                    .extend(text.split('"').filter(|part| part.starts_with("miaoxiang_")).map(str::to_owned));
            }
        }
    }

    #[test]
    fn what_is_measured_is_described_and_nothing_else() {
        let mut used = BTreeSet::from([CALLS.to_owned(), ANSWERS.to_owned(), ANSWER_SECONDS.to_owned()]);
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        names(&here.join("src"), &mut used);
        names(&here.join("ledger/src"), &mut used);
        assert_eq!(used, METRICS.iter().map(|metric| metric.name.to_owned()).collect());
    }
}
