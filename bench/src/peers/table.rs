//! What a comparison prints: one table of ratios, the open loops, where a request's time goes, and what each property costs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::half::Half;
use super::measure::{Micros, Run};
use super::steps::Step;
use super::{At, COMPARISONS, Comparison, Missing, OPEN_SHARES, Plan, Results, Sizes, Who};
use crate::environment::Environment;

/// Threads that use less than this for one answer are summed up, µs.
const SMALL_MICROS: f64 = 0.2;

/// The middle of an odd number of values, the mean of the two in the middle of an even one.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        Some(upper)
    } else {
        Some((values.get(middle.checked_sub(1)?)? + upper) / 2.0)
    }
}

/// A median with its lowest and highest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Lowest.
    pub low: f64,
    /// Highest.
    pub high: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Option<Self> {
        Some(Self {
            median: median(values.clone())?,
            low: values.clone().fold(f64::INFINITY, f64::min),
            high: values.fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

/// One server at one pace.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// Its name.
    pub name: &'static str,
    /// Rounds that have numbers.
    pub rounds: usize,
    /// Right answers a second.
    pub answers_a_second: Spread,
    /// Processor time of the server for one answer, µs.
    pub server_micros: Spread,
    /// Latency, ms, median of the runs.
    pub p50: f64,
    /// 99th percentile, median of the runs.
    pub p99: f64,
    /// Share of its processor that the generator used, highest of the runs.
    pub generator: f64,
}

impl Side {
    fn of(who: Who, runs: &[&Run]) -> Option<Self> {
        let of = |value: fn(&Run) -> f64| Spread::of(runs.iter().map(move |run| value(run)));
        Some(Self {
            name: who.title(),
            rounds: runs.len(),
            answers_a_second: of(|run| run.answers_a_second)?,
            server_micros: of(|run| run.server_micros)?,
            p50: of(|run| run.p50)?.median,
            p99: of(|run| run.p99)?.median,
            generator: of(|run| run.generator)?.high,
        })
    }
}

/// Two servers at one pace, from rounds in which neither's run was void.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pair {
    /// The exchange.
    pub ours: Side,
    /// The peer.
    pub theirs: Side,
    /// Rounds in which both have numbers.
    pub rounds: usize,
    /// Ratio of answers a second, ours ÷ theirs, round by round.
    pub answers_ratio: Spread,
    /// Ratio of processor time for one answer, theirs ÷ ours, round by round.
    pub processor_ratio: Spread,
}

impl Pair {
    fn of(comparison: &Comparison, at: At, results: &Results) -> Result<Self, String> {
        for who in [comparison.ours, comparison.theirs] {
            match results.missing.get(&who) {
                Some(Missing::Skipped(why)) => return Err(format!("skipped: {}: {why}", who.title())),
                Some(Missing::Wrong(why)) => return Err(format!("no number: {}: {why}", who.title())),
                None => {}
            }
        }
        let series = |who| {
            let asked = if who == Who::Many { "not run: --large asks for it" } else { "not run" };
            results.series.get(&(who, at)).ok_or_else(|| asked.to_owned())
        };
        let (ours, theirs) = (series(comparison.ours)?, series(comparison.theirs)?);
        let rounds: Vec<(&Run, &Run)> =
            ours.runs.iter().zip(&theirs.runs).filter_map(|(a, b)| a.as_ref().zip(b.as_ref())).collect();
        let all = |side: fn(&(&Run, &Run)) -> Run| -> Vec<Run> { rounds.iter().map(side).collect() };
        let (our_runs, their_runs) = (all(|(a, _)| (*a).clone()), all(|(_, b)| (*b).clone()));
        let void = || {
            let why = [ours, theirs].into_iter().find_map(|series| series.void.clone());
            why.unwrap_or_else(|| "no run".to_owned())
        };
        let side = |who, runs: &[Run]| Side::of(who, &runs.iter().collect::<Vec<_>>()).ok_or_else(void);
        Ok(Self {
            ours: side(comparison.ours, &our_runs)?,
            theirs: side(comparison.theirs, &their_runs)?,
            rounds: rounds.len(),
            answers_ratio: Spread::of(rounds.iter().map(|(a, b)| a.answers_a_second / b.answers_a_second))
                .ok_or_else(void)?,
            processor_ratio: Spread::of(rounds.iter().map(|(a, b)| b.server_micros / a.server_micros))
                .ok_or_else(void)?,
        })
    }

    /// The smaller of the two ratios: what counts.
    pub fn counts(&self) -> f64 {
        self.answers_ratio.median.min(self.processor_ratio.median)
    }
}

/// A row of the table.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What is compared.
    pub name: String,
    /// The numbers, or why there are none.
    pub closed: Result<Pair, String>,
    /// The open loops: requests a second, and the numbers.
    pub open: Vec<(f64, Result<Pair, String>)>,
    /// The ratio that must be held.
    pub floor: Option<f64>,
    /// The ratio that is wanted.
    pub goal: Option<f64>,
}

/// Where the processor time of one answer goes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// Thread of the exchange.
    pub name: String,
    /// In the program, µs.
    pub user_micros: f64,
    /// In the kernel, µs.
    pub system_micros: f64,
}

/// What was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The table.
    pub rows: Vec<Row>,
    /// Verify at half of its knee, or why there is no number; `None` if it has no maximum.
    pub half: Option<Result<Half, String>>,
    /// Verify, thread by thread, and the bare server as a whole.
    pub waterfall: Vec<Share>,
    /// Steps of a verify on one thread, and their time, µs, or why there are no numbers.
    pub steps: Result<Vec<Step>, String>,
    /// The exchange as it is and with properties taken away, or why there is no number.
    pub ablations: Vec<Result<Side, String>>,
    /// The machine, and the exchange's program.
    pub environment: Environment,
    /// Whether that is built as it is shipped.
    pub shipped: bool,
    /// Whether everything was done once and shortly.
    pub quick: bool,
    /// Seconds of a run.
    pub seconds: f64,
    /// Runs of each server at each pace.
    pub rounds: usize,
    /// Connections.
    pub connections: usize,
    /// Licenses in the register.
    pub licenses: u64,
    /// Licenses in the large register.
    pub large: Option<u64>,
    /// Entries in the log before the first run, at least.
    pub entries: u64,
    answer_bytes: Sizes,
    /// Receipts that were checked after the runs; each was good.
    pub receipts: usize,
    /// How long all took, seconds.
    pub took: f64,
    /// Servers that were not here.
    pub skipped: Vec<&'static str>,
    /// What has no numbers because an answer was wrong or something of ours failed.
    pub wrong: Vec<&'static str>,
}

impl Report {
    pub(super) fn of(
        plan: &Plan,
        results: &Results,
        half: Option<Result<Half, String>>,
        sizes: Sizes,
        receipts: usize,
        steps: Result<Vec<Step>, String>,
        took: Duration,
    ) -> Self {
        let rows = COMPARISONS.iter().enumerate().map(|(row, comparison)| Row {
            name: match plan.large.filter(|_| comparison.ours == Who::Many) {
                Some(large) => {
                    format!("{} ({large}) ÷ {}", comparison.ours.title(), comparison.theirs.title())
                }
                None => format!("{} ÷ {}", comparison.ours.title(), comparison.theirs.title()),
            },
            closed: Pair::of(comparison, At::Most, results),
            open: (0..OPEN_SHARES.len())
                .map(|share| At::Share(row, share))
                .filter_map(|at| Some((*results.rates.get(&at)?, Pair::of(comparison, at, results))))
                .collect(),
            floor: comparison.floor,
            goal: comparison.goal,
        });
        let ablations = [Who::AsItIs, Who::RamDisk, Who::NoTls, Who::NoClientCertificates, Who::NoFloor];
        let ablations = ablations.into_iter().filter_map(|who| side_of(who, results)).collect();
        let named = |kind: fn(&Missing) -> bool| -> Vec<&str> {
            results.missing.iter().filter(|(_, why)| kind(why)).map(|(who, _)| who.title()).collect()
        };
        let mut wrong = named(|why| matches!(why, Missing::Wrong(_)));
        wrong.extend(steps.is_err().then_some(super::STEPS));
        Self {
            rows: rows.collect(),
            half,
            waterfall: waterfall(results),
            steps,
            ablations,
            environment: Environment::found(Some(&plan.server)),
            shipped: plan.shipped,
            quick: plan.quick,
            seconds: plan.duration.as_secs_f64(),
            rounds: plan.rounds,
            connections: plan.connections,
            licenses: plan.licenses,
            large: plan.large,
            entries: plan.entries,
            answer_bytes: sizes,
            receipts,
            took: took.as_secs_f64(),
            skipped: named(|why| matches!(why, Missing::Skipped(_))),
            wrong,
        }
    }
}

/// A server's closed loop, or why it has no numbers; nothing if it was not part of the plan.
fn side_of(who: Who, results: &Results) -> Option<Result<Side, String>> {
    match results.missing.get(&who) {
        Some(Missing::Skipped(why)) => return Some(Err(format!("{}: skipped: {why}", who.title()))),
        Some(Missing::Wrong(why)) => return Some(Err(format!("{}: no number: {why}", who.title()))),
        None => {}
    }
    let series = results.series.get(&(who, At::Most))?;
    let runs: Vec<&Run> = series.runs.iter().flatten().collect();
    let void = || format!("{}: void: {}", who.title(), series.void.as_deref().unwrap_or("no run"));
    Some(Side::of(who, &runs).ok_or_else(void))
}

fn waterfall(results: &Results) -> Vec<Share> {
    let mut shares = threads(results, Who::Verify);
    if !shares.is_empty() {
        shares.extend(later(results, Who::Verify));
    }
    let bare = threads(results, Who::Bare);
    if !shares.is_empty() && !bare.is_empty() {
        shares.push(Share {
            name: "for comparison: sockets, TLS and HTTP of the bare server".to_owned(),
            user_micros: bare.iter().map(|share| share.user_micros).sum(),
            system_micros: bare.iter().map(|share| share.system_micros).sum(),
        });
    }
    shares
}

/// What was put off until after the closed loop; the mean, for it comes now and then.
fn later(results: &Results, who: Who) -> Option<Share> {
    let runs = &results.series.get(&(who, At::Most))?.runs;
    let later: Vec<f64> = runs.iter().flatten().map(|run| run.later_micros).collect();
    let name = "after the run, until it rests (mean, all of it)".to_owned();
    Some(Share {
        name,
        user_micros: later.iter().sum::<f64>() / later.len().max(1) as f64,
        system_micros: 0.0,
    })
}

/// Median time of each thread in the closed loop, the busiest first, small ones together.
fn threads(results: &Results, who: Who) -> Vec<Share> {
    let Some(series) = results.series.get(&(who, At::Most)).filter(|_| !results.missing.contains_key(&who))
    else {
        return Vec::new();
    };
    let mut by_name: BTreeMap<&str, Vec<Micros>> = BTreeMap::new();
    for run in series.runs.iter().flatten() {
        for (name, micros) in &run.threads {
            by_name.entry(name).or_default().push(*micros);
        }
    }
    let middle = |runs: &[Micros], part: fn(&Micros) -> f64| median(runs.iter().map(part)).unwrap_or(0.0);
    let all = by_name.into_iter().map(|(name, runs)| Share {
        name: name.to_owned(),
        user_micros: middle(&runs, |micros| micros.user),
        system_micros: middle(&runs, |micros| micros.system),
    });
    let (mut shares, small): (Vec<_>, Vec<_>) =
        all.partition(|share| share.user_micros + share.system_micros >= SMALL_MICROS);
    shares.sort_by(|a, b| (b.user_micros + b.system_micros).total_cmp(&(a.user_micros + a.system_micros)));
    if !small.is_empty() {
        shares.push(Share {
            name: format!("{} others", small.len()),
            user_micros: small.iter().map(|share| share.user_micros).sum(),
            system_micros: small.iter().map(|share| share.system_micros).sum(),
        });
    }
    shares
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sizes { verify, inline, retrieve } = self.answer_bytes;
        if self.quick {
            writeln!(f, "--quick: this shows that everything works, and the numbers mean nothing\n")?;
        }
        let Environment { processor, processors, kernel, commit, .. } = &self.environment;
        let built = if self.shipped { "as it is shipped" } else { "not as it is shipped" };
        writeln!(
            f,
            "{processors} × {processor}, Linux {kernel}; commit {commit}, the exchange built {built}"
        )?;
        writeln!(
            f,
            "{} connections, {} s a run, {} alternating runs; {} licenses, at least {} entries; answers of {verify}, {inline} and \
             {retrieve} bytes; {} receipts checked\n",
            self.connections, self.seconds, self.rounds, self.licenses, self.entries, self.receipts
        )?;
        writeln!(
            f,
            "| closed loop | answers/s | server µs an answer | the other: answers/s | µs | ratio of answers | of time | counts | floor | goal |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let limit = |limit: Option<f64>| limit.map_or_else(|| "–".to_owned(), |limit| limit.to_string());
            let (floor, goal) = (limit(row.floor), limit(row.goal));
            match &row.closed {
                Ok(pair) => writeln!(
                    f,
                    "| {}{} | {} | {} | {} | {} | {} | {} | **{:.2}** | {floor} | {goal} |",
                    row.name,
                    self.fewer(pair.rounds),
                    whole(pair.ours.answers_a_second),
                    tenths(pair.ours.server_micros),
                    whole(pair.theirs.answers_a_second),
                    tenths(pair.theirs.server_micros),
                    hundredths(pair.answers_ratio),
                    hundredths(pair.processor_ratio),
                    pair.counts(),
                )?,
                Err(why) => writeln!(f, "| {} | {why} | | | | | | | {floor} | {goal} |", row.name)?,
            }
        }
        if self.rows.iter().any(|row| !row.open.is_empty()) {
            writeln!(
                f,
                "\n| open loop | at | server µs an answer | p50 / p99 ms | the other: µs | p50 / p99 ms | ratio of time |"
            )?;
            writeln!(f, "|---|---|---|---|---|---|---|")?;
        }
        for row in &self.rows {
            for (rate, pair) in &row.open {
                match pair {
                    Ok(pair) => writeln!(
                        f,
                        "| {}{} | {rate:.0}/s | {} | {:.2} / {:.2} | {} | {:.2} / {:.2} | {} |",
                        row.name,
                        self.fewer(pair.rounds),
                        tenths(pair.ours.server_micros),
                        pair.ours.p50,
                        pair.ours.p99,
                        tenths(pair.theirs.server_micros),
                        pair.theirs.p50,
                        pair.theirs.p99,
                        hundredths(pair.processor_ratio),
                    )?,
                    Err(why) => writeln!(f, "| {} | {rate:.0}/s | {why} | | | | |", row.name)?,
                }
            }
        }
        if let Some(half) = &self.half {
            writeln!(
                f,
                "\n| verify at half of the knee | knee | at | p50 / p99 ms | bare append + fdatasync: at | p50 / p99 ms | floor: p99 ms | goal |"
            )?;
            writeln!(f, "|---|---|---|---|---|---|---|---|")?;
            match half {
                Ok(half) => writeln!(
                    f,
                    "| {:.0} s | {:.0}/s | {:.0}/s | {:.2} / **{:.2}** | {:.0}/s of {} bytes | {:.2} / {:.2} | {:.2} | {:.2} |",
                    half.seconds,
                    half.knee,
                    half.offered,
                    half.p50,
                    half.p99,
                    half.bare.appends_a_second,
                    half.bare.frame_bytes,
                    half.bare.latency_ms.p50,
                    half.bare.latency_ms.p99,
                    half.floor,
                    half.goal
                )?,
                Err(why) => writeln!(f, "| {why} | | | | | | | |")?,
            }
        }
        if !self.waterfall.is_empty() {
            writeln!(f, "\n| where the time of a verify goes | in the program, µs | in the kernel, µs |")?;
            writeln!(f, "|---|---|---|")?;
        }
        for share in &self.waterfall {
            writeln!(f, "| {} | {:.1} | {:.1} |", share.name, share.user_micros, share.system_micros)?;
        }
        writeln!(f, "\n| steps of it, on one thread without a server | µs |")?;
        writeln!(f, "|---|---|")?;
        match &self.steps {
            Ok(steps) => {
                for (name, micros) in steps {
                    writeln!(f, "| {name} | {micros:.2} |")?;
                }
            }
            Err(why) => writeln!(f, "| {why} | |")?,
        }
        if !self.ablations.is_empty() {
            writeln!(f, "\n| what a property costs | answers/s | server µs an answer |")?;
            writeln!(f, "|---|---|---|")?;
        }
        for side in &self.ablations {
            match side {
                Ok(side) => writeln!(
                    f,
                    "| {}{} | {} | {} |",
                    side.name,
                    self.fewer(side.rounds),
                    whole(side.answers_a_second),
                    tenths(side.server_micros)
                )?,
                Err(why) => writeln!(f, "| {why} | | |")?,
            }
        }
        let named = |who: &[&str]| if who.is_empty() { "none".to_owned() } else { who.join("; ") };
        let (skipped, wrong) = (named(&self.skipped), named(&self.wrong));
        writeln!(f, "\n{:.0} s in all; skipped: {skipped}; wrong: {wrong}", self.took)
    }
}

impl Report {
    /// Says so where some rounds have no numbers.
    fn fewer(&self, rounds: usize) -> String {
        if rounds == self.rounds { String::new() } else { format!(" ({rounds} of {} rounds)", self.rounds) }
    }
}

fn whole(Spread { median, low, high }: Spread) -> String {
    format!("{median:.0} ({low:.0}–{high:.0})")
}

fn tenths(Spread { median, low, high }: Spread) -> String {
    format!("{median:.1} ({low:.1}–{high:.1})")
}

fn hundredths(Spread { median, low, high }: Spread) -> String {
    format!("{median:.2} ({low:.2}–{high:.2})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::Series;

    fn run(answers_a_second: f64, server_micros: f64) -> Run {
        let micros = Micros { user: server_micros, system: 0.0 };
        let threads = BTreeMap::from([("main".to_owned(), micros), ("idle".to_owned(), Micros::default())]);
        Run {
            answers: 1,
            answers_a_second,
            server_micros,
            generator: 0.5,
            p50: 1.0,
            p99: 2.0,
            threads,
            later_micros: 0.0,
        }
    }

    fn results() -> Results {
        let mut results = Results::new();
        let ours = [Some(run(50.0, 20.0)), Some(run(60.0, 18.0)), None, Some(run(40.0, 25.0))];
        let theirs = [Some(run(100.0, 10.0)), None, Some(run(1.0, 1.0)), Some(run(50.0, 10.0))];
        for (who, runs) in [(Who::Verify, ours), (Who::NginxVerify, theirs)] {
            results
                .series
                .insert((who, At::Most), Series { runs: runs.to_vec(), void: Some("void: busy".to_owned()) });
        }
        results
    }

    #[test]
    fn a_ratio_is_of_rounds_in_which_both_ran_and_the_smaller_counts() {
        let pair = Pair::of(&COMPARISONS[0], At::Most, &results()).unwrap();
        assert_eq!(pair.rounds, 2);
        // 0.5 and 0.8 of the answers, 0.5 and 0.4 of the time.
        assert_eq!(pair.answers_ratio, Spread { median: 0.65, low: 0.5, high: 0.8 });
        assert!((pair.processor_ratio.median - 0.45).abs() < 1e-9);
        assert!((pair.counts() - 0.45).abs() < 1e-9);
    }

    #[test]
    fn who_is_skipped_wrong_or_void_has_no_number() {
        let row = |results: &Results| Pair::of(&COMPARISONS[0], At::Most, results).map(|_| ()).unwrap_err();
        let mut skipped = results();
        skipped.missing.insert(Who::NginxVerify, Missing::Skipped("not installed".to_owned()));
        assert_eq!(row(&skipped), "skipped: nginx, file of the same size: not installed");
        let mut wrong = results();
        wrong.missing.insert(Who::Verify, Missing::Wrong("1 × body".to_owned()));
        assert_eq!(row(&wrong), "no number: verify by identifier: 1 × body");
        assert!(threads(&wrong, Who::Verify).is_empty());
        let mut void = results();
        void.series.get_mut(&(Who::Verify, At::Most)).unwrap().runs = vec![None; 4];
        assert_eq!(row(&void), "void: busy");
        assert_eq!(row(&Results::new()), "not run");
    }

    #[test]
    fn small_threads_are_summed_up() {
        let shares = threads(&results(), Who::Verify);
        let names: Vec<&str> = shares.iter().map(|share| share.name.as_str()).collect();
        assert_eq!(names, ["main", "1 others"]);
        assert!((shares[0].user_micros - 20.0).abs() < 1e-9);
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
