//! Data folders of a bench: made, populated, recognised; no other log is ever filled with rubbish.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use certs::keys::load_issuer_keys;
use exchange::config::{Config, Limits};
use exchange::gateway::Gateway;
use exchange::participant::Certified;
use exchange::shed::Shed;
use exchange::signer::Signers;
use exchange::{init, opening};
use http_body_util::Full;
use ledger::Ledger;
use schemas::identifier::Uscc;
use schemas::routes::Route;
use tokio::task::JoinSet;
use verifier::trust::Trust;

use crate::population::{self, Drafts, Plan, Population, Records, VerifyRequest, now_ms, serial};
use crate::random::Random;

/// Origins of logs that may be filled with rubbish.
pub const ORIGIN_PREFIX: &str = "bench/";
/// Requests at work at once while a folder is populated: what they queue together is signed and synced together. A quarter of the
/// gateway's room is one organisation's; more would be refused where all are under way at once.
const AT_ONCE: usize = 512;

/// Makes or completes a development folder whose log is a bench's; any other folder is refused unless it is the
/// operator's `own`.
///
/// # Errors
/// The folder is somebody else's, or cannot be made.
pub async fn prepare(folder: &Path, own: bool) -> anyhow::Result<Config> {
    let path = folder.join("config.toml");
    if path.exists() {
        let origin = Config::load(&path)?.origin;
        if !own {
            allowed(&origin).with_context(|| folder.display().to_string())?;
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
    let keys = opening::ledger_keys(&opening::key_folder(&config)?)?;
    let (ledger, _) = Ledger::open(opening::ledger_options(&config), keys)?;
    init::register_development(&ledger, &init::development_register()).await?;
    tokio::task::spawn_blocking(move || ledger.close()).await?;
    Ok(config)
}

/// Whether a log is a bench's.
///
/// # Errors
/// It is not.
pub fn allowed(origin: &str) -> anyhow::Result<()> {
    if !origin.starts_with(ORIGIN_PREFIX) {
        bail!("log {origin} is not a bench's: only with --i-own-this-server may it be filled with rubbish");
    }
    Ok(())
}

/// A participant of a development folder by its name.
///
/// # Errors
/// There is none.
pub fn organisation(name: &str) -> anyhow::Result<Uscc> {
    let at = init::PARTICIPANTS.iter().position(|participant| participant.name == name);
    let found = at.and_then(|at| init::development_organisations().get(at).copied());
    found.with_context(|| format!("no participant {name}"))
}

/// An exchange in this process, without sockets.
pub struct InProcess {
    /// The gateway.
    pub gateway: Gateway,
    /// Its trust bundle.
    pub trust: Trust,
    ledger: Ledger,
}

impl InProcess {
    /// Opens the exchange of a folder.
    ///
    /// # Errors
    /// The folder holds none.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let keys = opening::ledger_keys(&opening::key_folder(config)?)?;
        let (ledger, _) = Ledger::open(opening::ledger_options(config), keys)?;
        init::register_development(&ledger, &init::development_register()).await?;
        Self::over(config, ledger)
    }

    /// The exchange of a folder over its ledger, which is open already.
    ///
    /// # Errors
    /// A key or the trust bundle cannot be read.
    pub fn over(config: &Config, ledger: Ledger) -> anyhow::Result<Self> {
        let (_, trust) = opening::trust_bundle(config)?;
        let keys = load_issuer_keys(&opening::key_folder(config)?)?;
        let signers = Signers::start(keys, &trust).map_err(anyhow::Error::msg)?;
        let Limits { refusals_a_second, refusal_burst, .. } = config.limits;
        let shed = Shed::new(refusals_a_second, refusal_burst);
        let gateway = Gateway::new(ledger.clone(), signers, trust.clone(), shed, 0);
        Ok(Self { gateway, trust, ledger })
    }

    /// Asks as a participant; gives the answer of this status.
    ///
    /// # Errors
    /// The answer has another status.
    pub async fn ask(
        &self,
        route: Route,
        organisation: Uscc,
        body: Vec<u8>,
        key: Option<&str>,
        status: u16,
    ) -> anyhow::Result<Bytes> {
        let mut request = hyper::Request::post("/").header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let caller =
            Certified { organisation, ends_at_ms: u64::MAX, address: std::net::Ipv4Addr::LOCALHOST.into() };
        let request = request.body(Full::new(Bytes::from(body)))?;
        let answer = self.gateway.handle(route, &caller, request, None).await;
        ensure!(answer.status == status, "{}: {}", route.name(), answer.code.name());
        Ok(answer.body)
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// A thread of the ledger has failed.
    pub async fn close(self) -> anyhow::Result<()> {
        let Self { gateway, ledger, .. } = self;
        drop(gateway);
        Ok(tokio::task::spawn_blocking(move || ledger.close()).await?)
    }
}

/// Issues the licenses of a plan with their holders' grants, then verifies until the log has `entries`; `on` hears how
/// many of how many steps are done. Everything goes through the gateway and the ledger, without sockets.
///
/// # Errors
/// The folder holds entries already, or something is not permitted.
pub async fn populate(
    config: &Config,
    plan: &Plan,
    entries: u64,
    on: impl Fn(u64, u64) + Send + Sync + 'static,
) -> anyhow::Result<()> {
    ensure!(!Population::exists(&config.folder), "{} is populated already", config.folder.display());
    let exchange = Arc::new(InProcess::open(config).await?);
    let filled = fill(&exchange, config, plan, entries, on).await;
    // Also after a failure: the journal's threads must not outlive a temporary folder.
    Arc::into_inner(exchange).context("a task is still at work after its end")?.close().await?;
    filled
}

async fn fill(
    exchange: &Arc<InProcess>,
    config: &Config,
    plan: &Plan,
    entries: u64,
    on: impl Fn(u64, u64) + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let [issuer, portal, approval] =
        [organisation("issuer")?, organisation("portal")?, organisation("approval")?];
    let drafts = Arc::new(Drafts::new(plan.clone()));
    let records = Arc::new(Mutex::new(Records::new(plan.clone())));
    let on = Arc::new(on);
    let next = Arc::new(AtomicU64::new(0));
    let (licenses, total) = (plan.licenses, entries.max(plan.licenses + plan.licenses.div_ceil(2)));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (exchange, drafts, records) = (Arc::clone(exchange), Arc::clone(&drafts), Arc::clone(&records));
        let (next, on) = (Arc::clone(&next), Arc::clone(&on));
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= licenses {
                    return anyhow::Ok(());
                }
                let draft = drafts.draft(number, &serial('B', number));
                let issued = exchange.ask(Route::Issue, issuer, draft.body, Some(&draft.key), 201).await?;
                if let Some(grantor) = draft.grantor {
                    let issued: serde_json::Value = serde_json::from_slice(&issued)?;
                    let identifier = issued["identifier"].as_str().context("an identifier")?;
                    let body = population::grant_body(identifier, &grantor, &approval);
                    let key = draft.key.replace("issue", "grant");
                    let granted = exchange.ask(Route::GrantCreate, portal, body, Some(&key), 201).await?;
                    let granted: serde_json::Value = serde_json::from_slice(&granted)?;
                    let grant = granted["grant"].as_str().context("a grant")?;
                    records.lock().unwrap_or_else(PoisonError::into_inner).set(number, &grantor, grant)?;
                }
                on(exchange.ledger.size(), total);
            }
        });
    }
    ended(&mut tasks).await?;
    if plan.rows > 0 {
        crate::records::fill(exchange, plan.rows, |_| {}).await?;
    }
    // Before the uses: they need it to name licenses.
    let records = Arc::into_inner(records).context("a task is still at work after its end")?;
    records.into_inner().unwrap_or_else(PoisonError::into_inner).save(&config.folder)?;
    let population = Arc::new(Population::load(&config.folder, issuer)?);
    let missing = entries.saturating_sub(exchange.ledger.size());
    let left = Arc::new(AtomicU64::new(missing));
    for task in 0..AT_ONCE as u64 {
        let (exchange, population) = (Arc::clone(exchange), Arc::clone(&population));
        let (left, on) = (Arc::clone(&left), Arc::clone(&on));
        let mut random = Random::new(task);
        tasks.spawn(async move {
            let mut body = Vec::new();
            loop {
                let taken =
                    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
                let Ok(case) = taken else { return anyhow::Ok(()) };
                let number = random.bits() % licenses;
                let mut identifier = vec![0; population::IDENTIFIER_BYTES];
                population.identifier(number, &mut identifier);
                let grant = population.right(number).map(|right| hex::encode(right.grant));
                let identifier = String::from_utf8(identifier)?;
                VerifyRequest::body(&identifier, grant.as_deref()).write(case, &mut body);
                exchange.ask(Route::Verify, approval, body.clone(), None, 200).await?;
                on(exchange.ledger.size(), total);
            }
        });
    }
    ended(&mut tasks).await
}

/// Waits for all tasks; the first failure ends the others.
async fn ended(tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut first = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let failed = ended.map_err(anyhow::Error::from).flatten().is_err_and(|error| {
            let is_first = first.is_ok();
            if is_first {
                first = Err(error);
            }
            is_first
        });
        if failed {
            tasks.abort_all();
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_of_another_log_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let config = "origin = \"miaoxiang.local/1\"\n";
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        let error = format!("{:#}", prepare(folder.path(), false).await.unwrap_err());
        assert!(error.contains("miaoxiang.local/1") && error.contains("--i-own-this-server"), "{error}");
        let text = std::fs::read_to_string(folder.path().join("config.toml")).unwrap();
        assert_eq!(text, config);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        prepare(folder.path(), true).await.unwrap();
    }

    #[tokio::test]
    async fn a_new_folder_gets_a_log_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let first = prepare(folder.path(), false).await.unwrap().origin;
        assert!(first.starts_with(ORIGIN_PREFIX));
        assert_eq!(prepare(folder.path(), false).await.unwrap().origin, first);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_populated_folder_has_the_entries_asked_for_and_its_licenses_verify() {
        let folder = tempfile::tempdir().unwrap();
        let config = prepare(folder.path(), false).await.unwrap();
        let plan = Plan { licenses: 21, seed: 5, sizes: Vec::new(), rows: 0 };
        populate(&config, &plan, 150, |_, _| {}).await.unwrap();
        let exchange = InProcess::open(&config).await.unwrap();
        // Index roots may stand among them.
        assert!((150..160).contains(&exchange.ledger.size()), "{}", exchange.ledger.size());
        let population = Population::load(folder.path(), organisation("issuer").unwrap()).unwrap();
        for number in 0..21 {
            let mut identifier = vec![0; population::IDENTIFIER_BYTES];
            population.identifier(number, &mut identifier);
            let grant = population.right(number).map(|right| hex::encode(right.grant));
            let mut body = Vec::new();
            VerifyRequest::body(std::str::from_utf8(&identifier).unwrap(), grant.as_deref())
                .write(1, &mut body);
            let approval = organisation("approval").unwrap();
            let answer = exchange.ask(Route::Verify, approval, body, None, 200).await.unwrap();
            assert!(answer.starts_with(br#"{"verdict":"valid","#), "{number}");
        }
        exchange.close().await.unwrap();
        let error = populate(&config, &plan, 0, |_, _| {}).await.unwrap_err();
        assert!(error.to_string().contains("populated already"), "{error}");
        // As of a folder whose populating was cut off: the licenses are there, and nobody knows their grants.
        std::fs::remove_file(folder.path().join("bench.population")).unwrap();
        let error = populate(&config, &plan, 0, |_, _| {}).await.unwrap_err();
        assert!(error.to_string().contains("conflict"), "{error}");
    }
}
