//! One run of one server, and what it used meanwhile.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::Who;
use super::asking::Asking;
use crate::drive::{self, Arrivals, Drive, Endpoint, Event, Outcome, Protocol, Workload};
use crate::process;

/// A server and what it is asked.
pub(super) struct Contender {
    pub(super) who: Who,
    /// The processes whose time counts.
    pub(super) processes: Vec<u32>,
    pub(super) endpoint: Endpoint,
    pub(super) protocol: Protocol,
    pub(super) asking: Asking,
}

impl Contender {
    /// Of a server on this machine.
    pub(super) fn new(
        who: Who,
        address: SocketAddr,
        processes: Vec<u32>,
        tls: Option<&Arc<ClientConfig>>,
        protocol: Protocol,
        asking: Asking,
    ) -> Self {
        let endpoint =
            Endpoint { address, name: ServerName::IpAddress(address.ip().into()), tls: tls.cloned() };
        Self { who, processes, endpoint, protocol, asking }
    }
}

/// How it is driven.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    pub(super) connections: usize,
    pub(super) arrivals: Arrivals,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
    pub(super) generator_core: usize,
    /// How long the server may work on afterwards.
    pub(super) patience: Duration,
}

/// What came of a run.
pub(super) enum Measured {
    /// Numbers.
    Run(Box<Run>),
    /// The generator, and not the server, was the limit.
    Void(String),
    /// The server did not keep up with the rate.
    Behind(String),
    /// Something was no right answer: then there is no number, however many were.
    Wrong(String),
}

/// A run whose every answer was right.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Right answers, those of the warm-up too.
    pub(super) answers: u64,
    /// Right answers a second.
    pub(super) answers_a_second: f64,
    /// Processor time of the server for one answer, µs, until the server rested: what it puts off counts.
    pub(super) server_micros: f64,
    /// Share of its processor that the generator used.
    pub(super) generator: f64,
    /// Latency, ms.
    pub(super) p50: f64,
    /// 99th percentile.
    pub(super) p99: f64,
    /// Processor time by thread of the server within the measured time, for one answer.
    pub(super) threads: BTreeMap<String, Micros>,
    /// The part of `server_micros` that came after the measured time.
    pub(super) later_micros: f64,
}

/// Processor time, µs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Micros {
    pub(super) user: f64,
    pub(super) system: f64,
}

/// Causes that say no more than that the rate was too high.
const TOO_FAST: [&str; 2] = ["unsent", "late"];

/// Drives a server once.
///
/// # Errors
/// No connection comes about, or the server is gone.
pub(super) fn measure(contender: &mut Contender, pace: &Pace) -> anyhow::Result<Measured> {
    let Contender { processes, endpoint, protocol, asking, .. } = contender;
    drive_one(endpoint, *protocol, processes, asking, pace)
}

/// The same with any workload.
///
/// # Errors
/// No connection comes about, or a process is gone.
pub(super) fn drive_one(
    endpoint: &Endpoint,
    protocol: Protocol,
    processes: &[u32],
    workload: &mut dyn Workload,
    pace: &Pace,
) -> anyhow::Result<Measured> {
    let plan = Drive {
        endpoints: vec![endpoint.clone()],
        connections: pace.connections,
        protocol,
        arrivals: pace.arrivals,
        warm_up: pace.warm_up,
        duration: pace.duration,
        requests_a_connection: None,
        core: Some(pace.generator_core),
    };
    let (mut before, mut after) = (None, None);
    let outcome = drive::drive(&plan, workload, &mut |event| {
        match event {
            Event::Began => before = Some(Used::by(processes)?),
            Event::Ended => after = Some(Used::by(processes)?),
            Event::Second(_) => {}
        }
        Ok(())
    })?;
    let (Some(before), Some(after)) = (before, after) else { anyhow::bail!("the run did not begin") };
    // What one server puts off is not done on the processor of the next, and is charged to it.
    let rested = pace.patience.is_zero() || process::rest(processes, pace.patience)?;
    Ok(match judge(&outcome, &before, &after, &Used::by(processes)?) {
        Measured::Run(_) if !rested => {
            Measured::Void(format!("the server did not rest {} s after it", pace.patience.as_secs()))
        }
        measured => measured,
    })
}

/// What a run is worth. What the server used is taken over the moments at which it was looked at, and the answers over the
/// measured time, so both are made rates.
fn judge(outcome: &Outcome, before: &Used, after: &Used, rested: &Used) -> Measured {
    let wrong = outcome.errors.iter().filter(|(cause, _)| !TOO_FAST.contains(&cause.as_str()));
    let wrong: Vec<String> = wrong.map(|(cause, count)| format!("{count} × {cause}")).collect();
    if !wrong.is_empty() {
        return Measured::Wrong(wrong.join(", "));
    }
    if outcome.answers == 0 {
        return Measured::Wrong("no answer".to_owned());
    }
    if let Some(why) = outcome.void() {
        return Measured::Void(why);
    }
    let late = outcome.error_count();
    if late > 0 {
        return Measured::Behind(format!("{late} requests were not answered in time"));
    }
    if let Some(why) = outcome.behind() {
        return Measured::Behind(why);
    }
    let seconds = after.at.duration_since(before.at).as_secs_f64();
    let answers = outcome.answers_a_second() * seconds;
    let ms = |quantile| outcome.latency.value_at_quantile(quantile) as f64 / 1e3;
    let threads = after.threads.iter().map(|(name, used)| {
        let earlier = before.threads.get(name).copied().unwrap_or_default();
        // Threads of one name may have ended meanwhile.
        let micros = |now: f64, then: f64| (now - then).max(0.0) * 1e6 / answers;
        (
            name.clone(),
            Micros { user: micros(used.user, earlier.user), system: micros(used.system, earlier.system) },
        )
    });
    Measured::Run(Box::new(Run {
        answers: outcome.all_answers,
        answers_a_second: outcome.answers_a_second(),
        server_micros: (rested.seconds - before.seconds) * 1e6 / answers,
        generator: outcome.core_busy.unwrap_or(outcome.generator_cpu),
        p50: ms(0.5),
        p99: ms(0.99),
        threads: threads.collect(),
        later_micros: (rested.seconds - after.seconds) * 1e6 / answers,
    }))
}

/// What processes used up to a moment.
struct Used {
    at: Instant,
    seconds: f64,
    /// User and system seconds of living threads, by name. The field's unit is the second here.
    threads: BTreeMap<String, Micros>,
}

impl Used {
    fn by(processes: &[u32]) -> anyhow::Result<Self> {
        let mut used = Self { at: Instant::now(), seconds: 0.0, threads: BTreeMap::new() };
        for process in processes {
            used.seconds += process::cpu_seconds(Some(*process))?;
            for task in std::fs::read_dir(format!("/proc/{process}/task"))?.flatten() {
                // One that ends meanwhile has no file.
                let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
                let Some((name, user, system)) = thread(&stat) else { continue };
                let sum = used.threads.entry(name.to_owned()).or_default();
                sum.user += user;
                sum.system += system;
            }
        }
        Ok(used)
    }
}

/// Name, user and system seconds in a line of `/proc/N/task/M/stat`.
fn thread(stat: &str) -> Option<(&str, f64, f64)> {
    let (head, rest) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let mut fields = rest.split_whitespace().skip(11);
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let mut seconds = || Some(fields.next()?.parse::<u64>().ok()? as f64 / ticks);
    Some((name, seconds()?, seconds()?))
}

#[cfg(test)]
mod tests {
    use certs::pki::{DevelopmentPki, LEAF_VALIDITY, Validity};
    use exchange::init;

    use super::*;
    use crate::drive::{Handshakes, Kind, new_histogram};
    use crate::peers::asking::{Right, Template};
    use crate::peers::bare;
    use crate::peers::pki::Pki;

    fn outcome(answers: u64, errors: &[(&str, u64)]) -> Outcome {
        let mut latency = new_histogram();
        latency.record_n(1_000, answers).unwrap();
        Outcome {
            duration: Duration::from_secs(1),
            answers,
            all_answers: answers,
            scheduled: 0,
            missed: 0,
            errors: errors.iter().map(|(cause, count)| ((*cause).to_owned(), *count)).collect(),
            kinds: vec![Kind { answers, latency: latency.clone() }],
            latency,
            lateness: new_histogram(),
            rows: Vec::new(),
            handshakes: Handshakes::default(),
            generator_cpu: 0.1,
            core_busy: Some(0.5),
        }
    }

    fn judged(outcome: &Outcome) -> Measured {
        let at = Instant::now();
        let threads = |user| BTreeMap::from([("sequencer".to_owned(), Micros { user, system: 0.0 })]);
        let before = Used { at, seconds: 1.0, threads: threads(0.0) };
        let after = Used { at: at + Duration::from_secs(1), seconds: 1.5, threads: threads(0.25) };
        let rested = Used { at: at + Duration::from_secs(3), seconds: 1.6, threads: threads(0.35) };
        judge(outcome, &before, &after, &rested)
    }

    #[test]
    fn a_server_that_answers_wrong_yields_no_number() {
        let folder = tempfile::tempdir().unwrap();
        let pki = DevelopmentPki::create_missing(folder.path().join("pki")).unwrap();
        let organisation = init::development_organisations()[1];
        pki.issue_client("approval", &[organisation], Validity::starting_now(LEAF_VALIDITY)).unwrap();
        let pki = Pki::of(folder.path());
        let tls = pki.client("approval").unwrap();
        let good = br#"{"verdict":"valid"}"#;
        let core = (0..).find(|core| process::core_busy_seconds(*core).is_ok()).unwrap();
        let run = |address, body: &[u8], status| {
            let template = Template::post("/", "", "{}", body);
            let asking = Asking::new(vec![template], status, Right::Is);
            let own = vec![std::process::id()];
            let mut contender = Contender::new(Who::Bare, address, own, Some(&tls), Protocol::Http1, asking);
            let pace = Pace {
                connections: 2,
                arrivals: Arrivals::Closed,
                warm_up: Duration::from_millis(1),
                duration: Duration::from_millis(200),
                generator_core: core,
                patience: Duration::ZERO,
            };
            measure(&mut contender, &pace).unwrap()
        };
        let address = bare::tests::serve_in_thread(&pki, good);
        // Its processor may be busy with something else.
        assert!(matches!(run(address, good, 200), Measured::Run(_) | Measured::Void(_)));
        for (body, status, cause) in [(&good[1..], 200, "body"), (&good[..], 201, "200")] {
            let Measured::Wrong(why) = run(address, body, status) else {
                panic!("a number for a wrong answer")
            };
            assert!(why.ends_with(&format!(" × {cause}")), "{why}");
        }
        let nobody = super::super::child::free_address().unwrap();
        let asking = Asking::new(vec![Template::get("/", good)], 200, Right::Is);
        let mut contender =
            Contender::new(Who::Bare, nobody, Vec::new(), Some(&tls), Protocol::Http1, asking);
        let pace = Pace {
            connections: 1,
            arrivals: Arrivals::Closed,
            warm_up: Duration::ZERO,
            duration: Duration::from_millis(1),
            generator_core: core,
            patience: Duration::ZERO,
        };
        assert!(measure(&mut contender, &pace).is_err());
    }

    #[test]
    fn a_run_has_what_the_server_used_for_one_answer() {
        let Measured::Run(run) = judged(&outcome(1_000, &[])) else { panic!("numbers") };
        assert!((run.server_micros - 600.0).abs() < 1e-6 && (run.answers_a_second - 1_000.0).abs() < 1e-6);
        assert!((run.threads["sequencer"].user - 250.0).abs() < 1e-6);
        assert!((run.later_micros - 100.0).abs() < 1e-6);
    }

    #[test]
    fn one_wrong_answer_takes_all_numbers_away() {
        for (cause, count) in [("body", 1), ("403", 2), ("connection", 1)] {
            let Measured::Wrong(why) = judged(&outcome(1_000_000, &[(cause, count)])) else {
                panic!("{cause}")
            };
            assert_eq!(why, format!("{count} × {cause}"));
        }
        assert!(matches!(judged(&outcome(0, &[])), Measured::Wrong(_)));
    }

    #[test]
    fn a_busy_generator_and_a_rate_that_is_not_kept_void_a_run() {
        let busy = Outcome { core_busy: Some(0.8), ..outcome(10, &[]) };
        assert!(matches!(judged(&busy), Measured::Void(_)));
        assert!(matches!(judged(&outcome(10, &[("unsent", 3)])), Measured::Behind(_)));
        // Each answer came in the end, but not within the time.
        let row = |answers_a_second| drive::Row {
            at: 1.0,
            answers_a_second,
            errors: 0,
            p50: 1.0,
            p99: 1.0,
            max: 1.0,
        };
        let piled = |came| Outcome { scheduled: 1_000, rows: vec![row(came)], ..outcome(1_000, &[]) };
        assert!(matches!(judged(&piled(970.0)), Measured::Behind(_)));
        let Measured::Run(run) = judged(&piled(990.0)) else { panic!("numbers") };
        assert!((run.answers_a_second - 990.0).abs() < 1e-6);
    }

    #[test]
    fn a_thread_is_named_whatever_its_name_holds() {
        let (name, user, system) = thread("7 (a) (b) S 1 2 3 4 5 6 7 8 9 10 200 100 13").unwrap();
        assert_eq!(name, "a) (b");
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert!((user - 200.0 / ticks).abs() < 1e-9 && (system - 100.0 / ticks).abs() < 1e-9);
    }
}
