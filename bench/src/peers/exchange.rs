//! The exchange in a comparison: its folder, its licenses, and what it is asked.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use exchange::client::{Client, Identity};
use exchange::{app, init};
use indicatif::ProgressBar;
use ledger::Ledger;
use schemas::date::{Date, rfc3339};
use schemas::identifier::Uscc;
use schemas::license_type::LicenseType;
use schemas::routes::Route;
use schemas::synthetic::Synthetic;
use serde_json::{Value, json};
use verifier::receipt;
use verifier::report::{Reason, Verdict};
use verifier::trust::Trust;

use super::asking::{Kept, KeptList, NUMBER, Template};
use super::child::Running;
use crate::population::{self, Draft, now_ms};

/// What the origin of the log begins with.
const ORIGIN_PREFIX: &str = "bench/";
/// Who verifies and retrieves.
pub(super) const RELYING: &str = "approval";
/// Who issues.
pub(super) const ISSUER: &str = "issuer";
/// Connections that issue; what they queue together is signed and committed together.
const ISSUING: usize = 32;
/// Bytes of an envelope that is retrieved.
pub(super) const ENVELOPE_BYTES: usize = 2_048;
/// Licenses with such an envelope.
const LARGE: usize = 256;
/// The type whose text can be made as long as that: 营业执照, the business license of a legal person.
const LARGE_TYPE: &str = "11100000MB0341032Y001";
/// Its longest field.
const LARGE_FIELD: &str = "businessScope";
/// How long a grant is good, ms.
const GRANT_MS: u64 = 30 * 86_400_000;
/// Different licenses that are issued under load, each again and again with a serial of its own.
const ISSUED: usize = 64;

/// Makes a development folder with a log of a bench in an empty folder; gives its trust bundle.
///
/// # Errors
/// The folder is not empty, or cannot be written.
pub(super) async fn prepare(folder: &Path) -> anyhow::Result<Trust> {
    ensure!(std::fs::read_dir(folder)?.next().is_none(), "{} is not empty", folder.display());
    std::fs::write(folder.join("config.toml"), format!("origin = \"{ORIGIN_PREFIX}{:x}\"\n", now_ms()))?;
    let config = init::development(folder, None)?;
    let keys = app::ledger_keys(&app::key_folder(&config)?)?;
    let (ledger, _) = Ledger::open(app::ledger_options(&config), keys)?;
    init::register(&ledger, &init::development_register()).await?;
    tokio::task::spawn_blocking(move || ledger.close()).await?;
    Ok(app::trust_bundle(&config)?.1)
}

/// Starts an exchange on a folder; `words` stand between the binary and what every exchange is told.
///
/// # Errors
/// It does not serve.
pub(super) fn start(binary: &Path, words: &[&str], folder: &Path, core: usize) -> anyhow::Result<Running> {
    let mut command = Command::new(binary);
    command.args(words).args(["--listen", "127.0.0.1:0", "--data"]).arg(folder);
    Running::speaking(&mut command, core, |line| {
        let mut words = line.split_whitespace();
        words.find(|word| *word == "data").context("it does not say where it serves")?;
        Ok(words.next().context("no address")?.parse::<SocketAddr>()?)
    })
}

/// What is asked of an exchange.
pub(super) struct Requests {
    pub(super) verify: Vec<Template>,
    pub(super) inline: Vec<Template>,
    pub(super) retrieve: Vec<Template>,
    pub(super) issue: Vec<Template>,
}

/// Issues licenses over HTTP, half of them of natural persons and with a grant of the holder, and some with long envelopes.
///
/// # Errors
/// The exchange refuses.
pub(super) async fn populate(folder: &Path, address: SocketAddr, count: usize) -> anyhow::Result<Requests> {
    let mut all = population::drafts(now_ms(), count);
    let padding = padding(folder, address).await?;
    all.extend((0..LARGE.min(count)).map(|number| large(number as u64, padding)));
    let bar = ProgressBar::new(all.len() as u64).with_message("licenses");
    let queue = Arc::new(Mutex::new(all.into_iter()));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..ISSUING {
        let mut issuer = connect(folder, ISSUER, address).await?;
        let mut portal = connect(folder, "portal", address).await?;
        let (queue, bar) = (Arc::clone(&queue), bar.clone());
        let relying = organisation(RELYING)?;
        tasks.spawn(async move {
            let mut made = Vec::new();
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(draft) = next else { return anyhow::Ok(made) };
                made.push(make(draft, &relying, &mut issuer, &mut portal).await?);
                bar.inc(1);
            }
        });
    }
    let mut requests = Requests {
        verify: Vec::with_capacity(count),
        inline: Vec::new(),
        retrieve: Vec::new(),
        issue: Vec::new(),
    };
    while let Some(done) = tasks.join_next().await {
        for License { identifier, grant, large } in done?? {
            if large {
                requests.retrieve.push(retrieve(&identifier, &grant));
            } else {
                requests.verify.push(verify("", &identifier, &grant));
                requests.inline.push(verify("receipt: inline\r\n", &identifier, &grant));
            }
        }
    }
    bar.finish_and_clear();
    requests.issue =
        population::drafts(now_ms() ^ 1, ISSUED).into_iter().map(issue).collect::<Result<_, _>>()?;
    Ok(requests)
}

struct License {
    identifier: String,
    /// `null` for a license that needs none.
    grant: Value,
    large: bool,
}

async fn make(
    draft: Draft,
    relying: &Uscc,
    issuer: &mut Client,
    portal: &mut Client,
) -> anyhow::Result<License> {
    let Draft { body, key, grantor } = draft;
    let large = key.starts_with(LARGE_KEY);
    let mut issued = post(issuer, Route::Issue, body, &key).await?;
    let Value::String(identifier) = issued["identifier"].take() else { bail!("no identifier") };
    let mut grant = Value::Null;
    if let Some(holder) = grantor {
        let body = json!({
            "holder": {"typeCode": holder.type_code().as_str(), "number": holder.number()},
            "grantee": relying.as_str(), "identifier": identifier, "until": rfc3339(now_ms() + GRANT_MS),
            "modes": if large { ["envelope"] } else { ["verify"] },
        });
        let key = key.replace("issue", "grant");
        grant = post(portal, Route::GrantCreate, body.to_string().into_bytes(), &key).await?["grant"].take();
        ensure!(grant.is_string(), "no grant");
    }
    Ok(License { identifier, grant, large })
}

/// What idempotency keys of licenses with long envelopes begin with.
const LARGE_KEY: &str = "bench-issue-large-";

/// How many letters make an envelope as long as it should be: one without any is issued and looked at.
async fn padding(folder: &Path, address: SocketAddr) -> anyhow::Result<usize> {
    let mut issuer = connect(folder, ISSUER, address).await?;
    let Draft { body, key, .. } = large(u64::from(u32::MAX), 0);
    let issued = post(&mut issuer, Route::Issue, body, &key).await?;
    let envelope = STANDARD.decode(issued["envelope"].as_str().context("an envelope")?)?;
    Ok(ENVELOPE_BYTES.saturating_sub(envelope.len()))
}

fn large(number: u64, padding: usize) -> Draft {
    let types = LicenseType::builtin();
    let license_type =
        types.iter().find(|one| one.code.as_str() == LARGE_TYPE).expect("a built-in type of the schemas");
    let today = Date::at(i64::try_from(now_ms() / 1_000).unwrap_or(0));
    // Equal numbers give equal licenses but for their serials.
    let mut synthetic = Synthetic::new(now_ms() ^ (number << 20));
    // One holder each, so that envelopes of one padding are of one length.
    let license = Synthetic::new(1).license(license_type, today);
    let serial = synthetic.serial();
    let mut value = license.request(&license_type.code, serial.as_str());
    value["fields"][LARGE_FIELD] = json!("A".repeat(padding.max(1)));
    Draft {
        body: json!({ "license": value }).to_string().into_bytes(),
        key: format!("{LARGE_KEY}{}", serial.as_str()),
        grantor: license.holders.into_iter().next().map(|(_, holder)| holder),
    }
}

fn use_context() -> Value {
    json!({
        "userName": "压测经办人", "itemCode": "11440100MB2D00000000044010000001", "itemName": "压测事项",
        "businessCode": format!("BENCH{NUMBER}"), "cause": "压测: 核验申请材料", "stage": "受理",
    })
}

fn verify(lines: &str, identifier: &str, grant: &Value) -> Template {
    let mut body = json!({ "license": {"identifier": identifier}, "use": use_context() });
    if !grant.is_null() {
        body["grant"] = grant.clone();
    }
    let path = Route::Verify.path().unwrap_or_default();
    Template::post(path, lines, &body.to_string(), br#"{"verdict":"valid","#)
}

fn retrieve(identifier: &str, grant: &Value) -> Template {
    let body = json!({
        "license": {"identifier": identifier}, "mode": "envelope", "grant": grant, "use": use_context(),
    });
    let begins = format!(r#"{{"identifier":"{identifier}","mode":"envelope","#);
    Template::post(Route::Retrieve.path().unwrap_or_default(), "", &body.to_string(), begins.as_bytes())
}

fn issue(draft: Draft) -> anyhow::Result<Template> {
    let mut body: Value = serde_json::from_slice(&draft.body)?;
    body["license"]["serial"] = json!(format!("B{NUMBER}"));
    let key = format!("idempotency-key: bench-{NUMBER}\r\n");
    let path = Route::Issue.path().unwrap_or_default();
    Ok(Template::post(path, &key, &body.to_string(), br#"{"identifier":""#))
}

async fn connect(folder: &Path, name: &str, address: SocketAddr) -> anyhow::Result<Client> {
    let clients = folder.join("pki/clients");
    let identity = Identity::load(
        &folder.join("pki/ca.pem"),
        &clients.join(format!("{name}.pem")),
        &clients.join(format!("{name}.key")),
    )?;
    identity.connect(address).await
}

fn organisation(name: &str) -> anyhow::Result<Uscc> {
    let at = init::PARTICIPANTS.iter().position(|participant| participant.name == name);
    at.and_then(|at| init::development_organisations().get(at).copied()).context("a development participant")
}

async fn post(client: &mut Client, route: Route, body: Vec<u8>, key: &str) -> anyhow::Result<Value> {
    let path = route.path().context("a route with a path")?;
    let (status, answer) = client.post(path, Bytes::from(body), &[("idempotency-key", key)]).await?;
    let answer: Value = serde_json::from_slice(&answer)?;
    ensure!(status == 201, "{path}: status {status}: {}", answer["code"]);
    Ok(answer)
}

/// Checks receipts that were kept: each fits its request and answer, and an inline one leads to the signed checkpoint. Gives
/// their number.
///
/// # Errors
/// None was kept, or one is not good.
pub(super) fn check(what: &str, kept: &KeptList, inline: bool, trust: &Trust) -> anyhow::Result<usize> {
    let kept = std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner));
    ensure!(!kept.is_empty(), "{what}: no answer was kept to be checked");
    let at = now_ms() / 1_000;
    for Kept { request, answer } in &kept {
        let (_, cut) = receipt::cut(answer).map_err(|error| anyhow::anyhow!("{what}: {error}"))?;
        let report = receipt::verify(&cut, Some(request), Some(answer), trust, at);
        let fault = report.reasons.iter().find(|finding| inline || finding.reason != Reason::NoProof);
        if let Some(finding) = fault {
            bail!("{what}: the receipt of entry {}: {}", cut.index, finding.code());
        }
        ensure!(!inline || report.verdict == Verdict::Valid, "{what}: a proof that is not valid");
    }
    Ok(kept.len())
}
