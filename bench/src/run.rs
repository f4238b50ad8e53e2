//! Runs a scenario: an exchange of the bench's own as a child, or any service.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use client::Client;
use exchange::calling;
use exchange::config::Config;
use exchange::opening;
use indicatif::{ProgressBar, ProgressStyle};
use rustls_pki_types::ServerName;
use schemas::date::rfc3339;

use crate::check::{self, Checks};
use crate::drive::{self, Arrivals, Drive, Endpoint, Event, Outcome, Protocol, Workload, client_tls};
use crate::environment::Environment;
use crate::folder;
use crate::live::Live;
use crate::mix::{self, Mix};
use crate::population::{self, Population, now_ms};
use crate::process;
use crate::report::{BARE, BareReport, PhaseReport, Report, RunReport, VERSION, offered};
use crate::scenario::{Exchange, Phase, Scenario, Target};
use crate::server::{Sample, Server};
use crate::target::Fixed;

/// Where things run and lie.
pub struct Place {
    /// The data folder of an exchange.
    pub folder: PathBuf,
    /// The `exchange` program.
    pub server: PathBuf,
    /// Processor of the server.
    pub server_core: Option<usize>,
    /// Processor of the generator.
    pub generator_core: Option<usize>,
    /// The one who runs this may fill a log that is not a bench's, or load a service on another machine.
    pub own: bool,
}

/// How a run ended.
pub enum Ended {
    /// The checks are good; a run that is void has no numbers all the same.
    Checked(Box<Report>),
    /// With checks that failed, or none: then there are no numbers.
    NotChecked(Checks),
}

/// Runs a scenario; its paths begin in `base`.
///
/// # Errors
/// The run could not be made.
pub fn run(name: &str, scenario: &Scenario, base: &Path, place: &Place) -> anyhow::Result<Ended> {
    match (&scenario.exchange, &scenario.target) {
        (Some(exchange), _) => on_exchange(name, scenario, exchange, place),
        (None, Some(target)) => on_target(name, scenario, target, base, place),
        (None, None) => anyhow::bail!("a scenario has one of [exchange] and [target]"),
    }
}

/// Makes a folder and fills it unless it is filled.
///
/// # Errors
/// It is somebody else's, or cannot be filled.
pub fn populate(folder: &Path, plan: &population::Plan, entries: u64, own: bool) -> anyhow::Result<Config> {
    let runtime = tokio::runtime::Runtime::new()?;
    let config = runtime.block_on(folder::prepare(folder, own))?;
    if !Population::exists(folder) {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{prefix:24} {wide_bar} {pos}/{len} entries  {eta}") {
            bar.set_style(style);
        }
        bar.set_prefix("populate");
        let shown = bar.clone();
        let on = move |size, total| {
            shown.set_length(total);
            shown.set_position(size);
        };
        runtime.block_on(folder::populate(&config, plan, entries, on))?;
        bar.finish_and_clear();
    }
    Ok(config)
}

fn on_exchange(name: &str, scenario: &Scenario, exchange: &Exchange, place: &Place) -> anyhow::Result<Ended> {
    let Exchange { licenses, rows, .. } = *exchange;
    let plan = population::Plan { licenses, seed: now_ms(), sizes: exchange.sizes.clone(), rows };
    let config = populate(&place.folder, &plan, 0, place.own)?;
    let (_, trust) = opening::trust_bundle(&config)?;
    let population = Arc::new(Population::load(&place.folder, folder::organisation("issuer")?)?);
    let environment = Environment::found(Some(&place.server));
    let server = Server::start(&place.server, &place.folder, place.server_core)?;
    server.rest()?;
    let entries = server.log_size()?;
    let mut mix = Mix::new(exchange, Arc::clone(&population), &server.data.to_string())?;
    let load = &scenario.load;
    let endpoints = mix::lanes(exchange)
        .into_iter()
        .map(|participant| {
            endpoint(&place.folder, participant, server.data, load.protocol(), load.resumption)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let kinds: Vec<_> = mix.names().into_iter().map(str::to_owned).zip(mix.body_bytes()).collect();
    let began = rfc3339(now_ms());

    let mut answers = 0;
    let mut spans = Vec::new();
    let phases = phases(scenario, |phase, arrivals| {
        let before = server.log_size()?;
        let (outcome, samples) =
            drive_one(scenario, phase, arrivals, &endpoints, place, &mut mix, &mut || {
                server.sample().map(Some)
            })?;
        answers += outcome.all_answers;
        spans.push(before..server.log_size()?);
        Ok(RunReport::of(arrivals, &outcome, samples.as_ref(), &kinds))
    })?;

    let after = server.log_size()?;
    let mut checks = {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let approval = calling::participant(&place.folder, "approval")?;
            let public = Client::new(server.public.into(), &approval);
            check::check(&mix.keep.right, &mix.keep.wrong, &trust, &public).await
        })?
    };
    checks.log_grew(after.saturating_sub(entries), answers);
    server.stop()?;
    if !checks.passed() {
        return Ok(Ended::NotChecked(checks));
    }
    let mut report = Report {
        version: VERSION,
        began,
        scenario: name.to_owned(),
        plan: scenario.clone(),
        origin: Some(config.origin),
        population: Some([population.plan().licenses, entries]),
        cores: [place.server_core, place.generator_core],
        environment,
        phases,
        checks: Some(checks),
    };
    bare(&mut report, &place.folder, &spans)?;
    Ok(Ended::Checked(Box::new(report)))
}

/// Puts beside each run what the disk alone does with frames of its size; steps have no such neighbour.
fn bare(report: &mut Report, folder: &Path, spans: &[std::ops::Range<u64>]) -> anyhow::Result<()> {
    let mut spans = spans.iter();
    for phase in &mut report.phases {
        let steps = phase.runs.len() > 1;
        for run in &mut phase.runs {
            let span = spans.next().context("a span of each run")?;
            let Some(measured) = run.measured.as_mut().filter(|_| !steps) else { continue };
            let frames = crate::journal::frames(&folder.join("journal"), span.clone())?;
            let rate = run.offered.and(measured.server.as_ref().map(|server| server.syncs_a_second));
            measured.entry_bytes = Some(frames.entry_bytes());
            measured.bare = Some(BareReport::measure(
                folder,
                &frames,
                rate,
                BARE.min(Duration::from_secs_f64(run.seconds)),
            )?);
        }
    }
    Ok(())
}

fn on_target(
    name: &str,
    scenario: &Scenario,
    target: &Target,
    base: &Path,
    place: &Place,
) -> anyhow::Result<Ended> {
    let address = target.address.to_socket_addrs().context("the target's address")?.next();
    let address = address.with_context(|| format!("{} has no address", target.address))?;
    ensure!(
        address.ip().is_loopback() || place.own,
        "{address} is not this machine: load it with --i-own-this-server only"
    );
    let load = &scenario.load;
    let endpoint = target_endpoint(target, base, address, load.protocol(), load.resumption)?;
    let mut fixed = Fixed::of(target, base)?;
    probe(&endpoint, &mut fixed, load.protocol(), place)?;
    let environment = Environment::found(None);
    let began = rfc3339(now_ms());
    let kinds = [(format!("{} {}", target.method, target.path), 0)];
    let endpoints = [endpoint];
    let phases = phases(scenario, |phase, arrivals| {
        let (outcome, _) =
            drive_one(scenario, phase, arrivals, &endpoints, place, &mut fixed, &mut || Ok(None))?;
        // Every answer was compared; a run without a right one has nothing to show.
        ensure!(outcome.answers > 0, "no numbers, for no answer was right: {:?}", outcome.errors);
        Ok(RunReport::of(arrivals, &outcome, None, &kinds))
    })?;
    Ok(Ended::Checked(Box::new(Report {
        version: VERSION,
        began,
        scenario: name.to_owned(),
        plan: scenario.clone(),
        origin: None,
        population: None,
        cores: [None, place.generator_core],
        environment,
        phases,
        checks: None,
    })))
}

/// Remembers what the first answers say of the log they stand in.
struct Probe<'a> {
    inner: &'a mut Fixed,
    origins: Vec<String>,
}

impl Workload for Probe<'_> {
    fn kinds(&self) -> usize {
        self.inner.kinds()
    }

    fn draw(&mut self) -> drive::Ticket {
        self.inner.draw()
    }

    fn write(&mut self, ticket: drive::Ticket, request: &mut drive::Request) {
        self.inner.write(ticket, request);
    }

    fn judge(
        &mut self,
        ticket: drive::Ticket,
        request: &drive::Request,
        answer: drive::Answer<'_>,
    ) -> Result<(), drive::Cause> {
        if let Ok((_, cut)) = verifier::receipt::cut(answer.body) {
            self.origins.push(cut.log);
        }
        self.inner.judge(ticket, request, answer)
    }
}

/// Asks once and slowly before the load: an exchange whose log is not a bench's is left alone.
fn probe(endpoint: &Endpoint, fixed: &mut Fixed, protocol: Protocol, place: &Place) -> anyhow::Result<()> {
    let plan = Drive {
        endpoints: vec![endpoint.clone()],
        connections: 1,
        protocol,
        arrivals: Arrivals::Open { rate: drive::Rate::Constant(20.0), poisson: false },
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(200),
        requests_a_connection: None,
        core: None,
    };
    let mut probe = Probe { inner: fixed, origins: Vec::new() };
    let outcome = drive::drive(&plan, &mut probe, &mut |_| Ok(()))?;
    for origin in probe.origins.iter().filter(|_| !place.own) {
        folder::allowed(origin)?;
    }
    ensure!(outcome.all_answers > 0, "the first answers are not the expected ones: {:?}", outcome.errors);
    Ok(())
}

/// Makes the runs of all phases; `run` makes one.
fn phases(
    scenario: &Scenario,
    mut run: impl FnMut(&Phase, Arrivals) -> anyhow::Result<RunReport>,
) -> anyhow::Result<Vec<PhaseReport>> {
    let mut maximum = None;
    let mut phases = Vec::new();
    for phase in &scenario.phases {
        let mut made = PhaseReport { runs: Vec::new(), knee: None };
        for arrivals in phase.runs(maximum)? {
            let report = run(phase, arrivals)?;
            if arrivals == Arrivals::Closed {
                maximum = report.measured.as_ref().map(|measured| measured.answers_a_second);
            }
            let (void, kept_up) = (report.void.is_some(), report.kept_up());
            if phase.steps.is_some() && kept_up {
                made.knee = report.offered;
            }
            made.runs.push(report);
            if void {
                // What follows would rest on a number that there is not.
                phases.push(made);
                return Ok(phases);
            }
            if phase.steps.is_some() && !kept_up {
                break;
            }
        }
        phases.push(made);
    }
    Ok(phases)
}

/// One run with its samples of the server, taken when the measured time begins and ends.
fn drive_one(
    scenario: &Scenario,
    phase: &Phase,
    arrivals: Arrivals,
    endpoints: &[Endpoint],
    place: &Place,
    workload: &mut dyn Workload,
    sample: &mut dyn FnMut() -> anyhow::Result<Option<Sample>>,
) -> anyhow::Result<(Outcome, Option<[Sample; 2]>)> {
    let load = &scenario.load;
    let plan = Drive {
        endpoints: endpoints.to_vec(),
        connections: load.connections,
        protocol: load.protocol(),
        arrivals,
        warm_up: Duration::from_secs(load.warm_up),
        duration: phase.duration(load),
        requests_a_connection: load.requests_a_connection,
        core: place.generator_core,
    };
    let (name, _) = offered(arrivals);
    let mut live = Live::new(&name, plan.warm_up, plan.duration);
    let mut samples = Vec::new();
    // The server's processor is the server's: this thread, which only looks on, keeps off it too.
    let outcome = process::pinned(place.generator_core, || {
        drive::drive(&plan, workload, &mut |event| {
            if matches!(event, Event::Began | Event::Ended) {
                samples.extend(sample()?);
            }
            live.show(event);
            Ok(())
        })
    })
    .context("the generator's processor")??;
    Ok((outcome, samples.try_into().ok()))
}

/// The data listener, as a participant of a development folder.
///
/// # Errors
/// A certificate is missing.
pub fn endpoint(
    folder: &Path,
    participant: &str,
    address: SocketAddr,
    protocol: Protocol,
    resumption: bool,
) -> anyhow::Result<Endpoint> {
    let read = |path: String| std::fs::read_to_string(folder.join(&path)).with_context(|| path);
    let certificate = read(format!("pki/clients/{participant}.pem"))?;
    let key = read(format!("pki/clients/{participant}.key"))?;
    let tls = client_tls(&read("pki/ca.pem".to_owned())?, Some((&certificate, &key)), protocol, resumption)?;
    Ok(Endpoint { address, name: ServerName::IpAddress(address.ip().into()), tls: Some(tls) })
}

fn target_endpoint(
    target: &Target,
    base: &Path,
    address: SocketAddr,
    protocol: Protocol,
    resumption: bool,
) -> anyhow::Result<Endpoint> {
    let read =
        |path: &PathBuf| std::fs::read_to_string(base.join(path)).with_context(|| path.display().to_string());
    let identity = match (&target.certificate, &target.key) {
        (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
        _ => None,
    };
    let identity = identity.as_ref().map(|(certificate, key)| (certificate.as_str(), key.as_str()));
    let tls = client_tls(&read(&target.ca)?, identity, protocol, resumption)?;
    let host = target.address.rsplit_once(':').map_or(target.address.as_str(), |(host, _)| host);
    let name = target.server_name.clone().unwrap_or_else(|| host.trim_matches(['[', ']']).to_owned());
    let name = ServerName::try_from(name).map_err(|_| anyhow::anyhow!("server_name is no name"))?;
    Ok(Endpoint { address, name, tls: Some(tls) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::InProcess;
    use crate::population::VerifyRequest;
    use crate::report::Measured;
    use crate::target::Body;
    use schemas::identifier::CertificateIdentifier;
    use schemas::routes::Route;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    /// Answers every request in clear with the same bytes.
    fn server(body: Vec<u8>) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut buffer = [0; 4_096];
                while let Ok(1..) = stream.read(&mut buffer) {
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                    stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
                }
            }
        });
        Endpoint { address, name: ServerName::IpAddress(address.ip().into()), tls: None }
    }

    fn place(own: bool) -> Place {
        Place { folder: PathBuf::new(), server: PathBuf::new(), server_core: None, generator_core: None, own }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_service_whose_answers_stand_in_a_log_that_is_no_benchs_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.toml"), "origin = \"miaoxiang.local/1\"\n").unwrap();
        let config = folder::prepare(folder.path(), true).await.unwrap();
        let exchange = InProcess::open(&config).await.unwrap();
        let issuer = folder::organisation("issuer").unwrap();
        let serial = "NONE".parse().unwrap();
        let identifier = CertificateIdentifier::new(population::type_codes()[0], issuer, serial, 1).unwrap();
        let mut request = Vec::new();
        VerifyRequest::body(&identifier.to_string(), None).write(1, &mut request);
        let approval = folder::organisation("approval").unwrap();
        let answer = exchange.ask(Route::Verify, approval, request, None, 403).await.unwrap();
        exchange.close().await.unwrap();

        let probed = |body: &[u8], expected: &[u8], own: bool| {
            let mut fixed = Fixed::http("h", "GET", "/", &[], b"", 200, Body::Bytes(expected.to_vec()));
            probe(&server(body.to_vec()), &mut fixed, Protocol::Http1, &place(own)).map_err(|e| e.to_string())
        };
        let refused = probed(&answer, &answer, false).unwrap_err();
        assert!(
            refused.contains("miaoxiang.local/1") && refused.contains("--i-own-this-server"),
            "{refused}"
        );
        probed(&answer, &answer, true).unwrap();
        probed(b"static", b"static", false).unwrap();
        assert!(probed(b"garbage", b"static", true).unwrap_err().contains("not the expected ones"));
    }

    #[test]
    fn a_service_on_another_machine_is_refused() {
        let text = "title = \"t\"\n[[phase]]\narrivals = \"closed\"\n[target]\naddress = \"192.0.2.1:443\"\n\
                    ca = \"ca\"\npath = \"/\"\n[target.expect]\nstatus = 200\nlength = 1\n";
        let scenario = Scenario::parse(text).unwrap();
        let refused = run("t", &scenario, Path::new(""), &place(false)).err().unwrap().to_string();
        assert!(refused.contains("192.0.2.1:443") && refused.contains("--i-own-this-server"), "{refused}");
    }

    fn measured(rate: f64, errors: u64) -> Measured {
        let text = format!(
            r#"{{"answersASecond": {rate}, "answers": {rate}, "scheduled": {rate}, "missed": 0,
            "errors": {{}}, "latencyMs": {{"p50": 1, "p90": 2, "p99": 3, "p999": 4, "max": 5}}, "curve": [],
            "kinds": [], "rows": [], "handshakes": [1, 0], "generatorCpu": 0.5}}"#
        );
        let mut measured: Measured = serde_json::from_str(&text).unwrap();
        if errors > 0 {
            measured.errors.insert("500".to_owned(), errors);
        }
        measured
    }

    #[test]
    fn steps_end_behind_the_knee_and_nothing_rests_on_a_void_run() {
        let scenario = |phases: &str| {
            let text = format!(
                "title = \"t\"\n{phases}\n[exchange]\nlicenses = 2\nmix = [{{operation = \"verify\", share = 1}}]\n"
            );
            Scenario::parse(&text).unwrap()
        };
        let knee = scenario(
            "[[phase]]\narrivals = \"closed\"\n[[phase]]\narrivals = \"poisson\"\n\
             steps = [\"50%\", \"70%\", \"90%\", \"110%\"]",
        );
        // A server that takes 800 a second, and 1,000 in the closed loop.
        let report = |arrivals: Arrivals, errors: u64| {
            let (name, offered) = offered(arrivals);
            let rate = offered.map_or(1_000.0, |offered| offered.min(800.0));
            RunReport { name, offered, seconds: 1.0, void: None, measured: Some(measured(rate, errors)) }
        };
        let made = phases(&knee, |_, arrivals| Ok(report(arrivals, 0))).unwrap();
        assert_eq!((made.len(), made[1].runs.len(), made[1].knee), (2, 3, Some(700.0)));
        let made = phases(&knee, |_, arrivals| Ok(report(arrivals, 1))).unwrap();
        assert_eq!((made[1].runs.len(), made[1].knee), (1, None), "a step with errors is not kept up with");
        let void = |_: &Phase, arrivals| {
            let void = Some("too busy".to_owned());
            Ok(RunReport { void, measured: None, ..report(arrivals, 0) })
        };
        let made = phases(&knee, void).unwrap();
        assert_eq!((made.len(), made[0].runs.len()), (1, 1));
    }
}
