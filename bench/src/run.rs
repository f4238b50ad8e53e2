//! The scenario `verify`: `POST /v1/verify` by identifier, half of the licenses a natural person's and named with
//! their holder's grant.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use exchange::app;
use exchange::client::Identity;
use exchange::config::Config;
use exchange::{init, tls};
use indicatif::ProgressBar;
use ledger::Ledger;
use schemas::identifier::Uscc;
use schemas::routes::Route;

use crate::check::{self, Checks};
use crate::journal;
use crate::load::{self, Pace, Target};
use crate::population::{self, Draft, VerifyRequest, now_ms};
use crate::report::{LoadReport, RunReport, baselines};
use crate::server::Server;

/// Origins of logs that may be filled with rubbish.
const ORIGIN_PREFIX: &str = "bench/";
/// Connections that issue; what they queue together is signed and committed together.
const ISSUING: usize = 32;
/// The share of the measured maximum at which the open loop runs unless told.
const OPEN_SHARE: f64 = 0.5;

/// How a run is made.
pub struct Plan {
    /// Licenses to issue.
    pub licenses: usize,
    /// Connections.
    pub connections: usize,
    /// Measured time of each phase.
    pub duration: Duration,
    /// Requests a second of the open loop; `None` = half of the measured maximum.
    pub rate: Option<f64>,
    /// The data folder.
    pub folder: PathBuf,
    /// The `exchange` binary.
    pub server: PathBuf,
}

/// How a run ended.
pub enum Ended {
    /// With numbers, and everything checked is good.
    Measured(Box<RunReport>),
    /// With checks that failed, or none: then there are no numbers.
    NotChecked(Checks),
}

/// Runs the scenario.
///
/// # Errors
/// The run could not be made.
pub async fn verify(plan: &Plan) -> anyhow::Result<Ended> {
    let config = prepare(&plan.folder).await?;
    let (_, trust) = app::trust_bundle(&config)?;
    let server = Server::start(&plan.server, &plan.folder)?;
    let requests = populate(&plan.folder, server.data, plan.licenses).await?;

    let head_of = |body_bytes: usize| {
        format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {body_bytes:>6}\r\n\r\n",
            Route::Verify.path().unwrap_or_default(),
            server.data
        )
    };
    let target = Arc::new(Target {
        address: server.data,
        tls: client_tls(&plan.folder, "approval")?,
        head_bytes: head_of(0).len(),
        requests: requests
            .into_iter()
            .map(|request| {
                let head = head_of(request.len());
                request.with_head(head.as_bytes())
            })
            .collect(),
        cases: AtomicU64::new(0),
    });

    let size_before = server.log_size().await?;
    eprintln!("closed loop on {} connections", plan.connections);
    let closed = load::run(&target, &server, plan.connections, Pace::Closed, plan.duration).await?;
    let size_between = server.log_size().await?;
    let closed_report = LoadReport::of(&closed, None);
    let rate = plan.rate.unwrap_or(closed_report.answers_a_second * OPEN_SHARE);
    ensure!(rate > 0.0, "no right answer in the closed loop: {:?}", closed.errors);
    eprintln!("open loop at {rate:.0}/s");
    let open = load::run(&target, &server, plan.connections, Pace::Open(rate), plan.duration).await?;
    let size_after = server.log_size().await?;

    eprintln!("checks");
    let mut public = identity(&plan.folder, "approval")?.connect(server.public).await?;
    let open_report = LoadReport::of(&open, Some(rate));
    let answers = closed.all_answers + open.all_answers;
    let kept: Vec<_> = closed.kept.into_iter().chain(open.kept).collect();
    let wrong: Vec<_> = closed.wrong.into_iter().chain(open.wrong).collect();
    let mut checks = check::check(&kept, &wrong, &trust, &mut public).await?;
    checks.log_grew(size_after.saturating_sub(size_before), answers);
    drop(public);
    server.stop()?;
    if !checks.passed() {
        return Ok(Ended::NotChecked(checks));
    }

    eprintln!("bare appends");
    let segments = plan.folder.join("journal");
    let closed_frames = journal::frames(&segments, size_before..size_between)?;
    let open_frames = journal::frames(&segments, size_between..size_after)?;
    let [bare, bare_at_rate] =
        baselines(&plan.folder, &closed_frames, &open_frames, open_report.syncs_a_second)?;
    Ok(Ended::Measured(Box::new(RunReport {
        scenario: "verify",
        origin: config.origin,
        licenses: plan.licenses,
        connections: plan.connections,
        seconds: plan.duration.as_secs(),
        closed: closed_report,
        open: open_report,
        entry_bytes: closed_frames.entry_bytes(),
        bare,
        bare_at_rate,
        checks,
    })))
}

/// Makes or completes a development folder whose log is a bench's; any other folder is refused.
async fn prepare(folder: &Path) -> anyhow::Result<Config> {
    let path = folder.join("config.toml");
    if path.exists() {
        let origin = Config::load(&path)?.origin;
        if !origin.starts_with(ORIGIN_PREFIX) {
            bail!("{} holds log {origin}: only a log of a bench may be filled", folder.display());
        }
    } else {
        ensure!(
            !folder.join("journal").exists(),
            "{} holds a journal without a configuration",
            folder.display()
        );
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        std::fs::write(&path, format!("origin = \"{ORIGIN_PREFIX}{:x}\"\n", now_ms()))?;
    }
    let config = init::development(folder, None)?;
    let keys = app::ledger_keys(&app::key_folder(&config)?)?;
    let (ledger, _) = Ledger::open(app::ledger_options(&config), keys)?;
    init::register(&ledger, &init::development_register()).await?;
    tokio::task::spawn_blocking(move || ledger.close()).await?;
    Ok(config)
}

fn identity(folder: &Path, name: &str) -> anyhow::Result<Identity> {
    let clients = folder.join("pki/clients");
    Identity::load(
        &folder.join("pki/ca.pem"),
        &clients.join(format!("{name}.pem")),
        &clients.join(format!("{name}.key")),
    )
}

fn client_tls(folder: &Path, name: &str) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    let read = |path: String| std::fs::read_to_string(folder.join(&path)).with_context(|| path);
    let certificate = read(format!("pki/clients/{name}.pem"))?;
    let key = read(format!("pki/clients/{name}.key"))?;
    let mut config = tls::client_config(&read("pki/ca.pem".to_owned())?, Some((&certificate, &key)))?;
    config.alpn_protocols = vec![tls::ALPN_HTTP1.to_vec()];
    Ok(Arc::new(config))
}

/// Issues the licenses and their holders' grants over HTTP; gives a verify request for each.
async fn populate(folder: &Path, address: SocketAddr, count: usize) -> anyhow::Result<Vec<VerifyRequest>> {
    let approval = approval()?;
    let drafts = population::drafts(now_ms(), count);
    let bar = ProgressBar::new(drafts.len() as u64).with_message("issue and grant");
    let queue = Arc::new(std::sync::Mutex::new(drafts.into_iter()));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..ISSUING {
        let mut issuer = identity(folder, "issuer")?.connect(address).await?;
        let mut portal = identity(folder, "portal")?.connect(address).await?;
        let (queue, bar) = (Arc::clone(&queue), bar.clone());
        tasks.spawn(async move {
            let mut requests = Vec::new();
            loop {
                let next = queue.lock().map_err(|_| anyhow::anyhow!("a task failed"))?.next();
                let Some(Draft { body, key, grantor }) = next else { return anyhow::Ok(requests) };
                let issued = post(&mut issuer, Route::Issue, body, &key).await?;
                let identifier = issued["identifier"].as_str().context("an identifier")?;
                let grant = match grantor {
                    Some(grantor) => {
                        let body = population::grant_body(identifier, &grantor, &approval);
                        let key = key.replace("issue", "grant");
                        Some(post(&mut portal, Route::GrantCreate, body, &key).await?)
                    }
                    None => None,
                };
                let grant = grant.as_ref().and_then(|grant| grant["grant"].as_str());
                requests.push(VerifyRequest::body(identifier, grant));
                bar.inc(1);
            }
        });
    }
    let mut requests = Vec::with_capacity(count);
    while let Some(done) = tasks.join_next().await {
        requests.extend(done??);
    }
    bar.finish_and_clear();
    Ok(requests)
}

/// The organisation that verifies.
fn approval() -> anyhow::Result<Uscc> {
    let at = init::PARTICIPANTS.iter().position(|participant| participant.name == "approval");
    at.and_then(|at| init::development_organisations().get(at).copied())
        .context("a development folder has an approval system")
}

async fn post(
    client: &mut exchange::client::Client,
    route: Route,
    body: Vec<u8>,
    key: &str,
) -> anyhow::Result<serde_json::Value> {
    let path = route.path().context("a route with a path")?;
    let (status, answer) = client.post(path, Bytes::from(body), &[("idempotency-key", key)]).await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer)?;
    ensure!(status == 201, "{path}: status {status}: {}", answer["code"]);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_of_another_log_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let config = "origin = \"miaoxiang.local/1\"\n";
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        let error = prepare(folder.path()).await.unwrap_err().to_string();
        assert!(error.contains("miaoxiang.local/1"), "{error}");
        let text = std::fs::read_to_string(folder.path().join("config.toml")).unwrap();
        assert_eq!(text, config);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_new_folder_gets_a_log_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let first = prepare(folder.path()).await.unwrap().origin;
        assert!(first.starts_with(ORIGIN_PREFIX));
        assert_eq!(prepare(folder.path()).await.unwrap().origin, first);
    }
}
