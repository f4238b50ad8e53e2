//! `exchange quickstart`: a whole exchange from nothing, and the whole round as a client over mTLS: issue, search,
//! retrieve, verify, refuse, revoke, verify again, and check every license and receipt offline from bytes alone.

mod samples;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use metrics_exporter_prometheus::PrometheusHandle;
use schemas::date::Date;
use schemas::license_type::LicenseType;
use schemas::synthetic::{Synthetic, SyntheticLicense};
use serde_json::{Value, json};
use verifier::command::{EXIT_NO, line};
use verifier::license::RootCache;
use verifier::report::Verdict;
use verifier::trust::Trust;

use crate::app::{self, App, Event, Exit, Signals};
use crate::client::{Client, Identity};
use crate::config::Listen;
use crate::gateway::now_ms;
use crate::init;

/// Licenses issued of each of the nine types.
const PER_TYPE: usize = 112;
/// Connections issuing at once; what they queue together is signed and committed together.
const ISSUING: usize = 16;
/// Every how many licenses one is granted, retrieved and verified.
const EVERY: usize = 8;
/// Every how many licenses one is revoked.
const REVOKE_EVERY: usize = 112;

/// What was done, counted from real answers.
#[derive(Debug, Default)]
pub struct Summary {
    issued: usize,
    retrieved: usize,
    verified: usize,
    refused: usize,
    receipts: usize,
}

/// One request and its answer, kept for the offline check.
struct Exchanged {
    request: Bytes,
    answer: Bytes,
    envelope: Option<Vec<u8>>,
}

/// A license issued by this run.
struct Issued {
    identifier: String,
    license: SyntheticLicense,
    natural: bool,
}

/// Runs the round; then serves until `stop` resolves, or ends at once.
pub async fn run(
    folder: &Path,
    listen: Option<SocketAddr>,
    once: bool,
    metrics: PrometheusHandle,
) -> anyhow::Result<()> {
    // Caught before the journal is open.
    let signals = Signals::catch()?;
    let stop = signals.sender();
    line(format_args!("秒享 quickstart in {}", folder.display()));
    let mut config = tokio::task::block_in_place(|| init::development(folder, listen))?;
    config.program = std::env::current_exe().ok();
    let app = App::open(&config, metrics).await?;
    if listen.is_some() {
        // The operators' commands look for the server where the folder says that it is.
        config.listen = app.addresses.clone();
        init::write_new(&folder.join("config.toml"), &config.to_toml())?;
    }
    let written = init::register_development(app.gateway.ledger(), &init::development_register()).await?;
    line(format_args!(
        "  log {} holds {} entries ({written} new in the register)",
        config.origin,
        app.gateway.ledger().size()
    ));
    let addresses = app.addresses.clone();
    let gateway = std::sync::Arc::clone(&app.gateway);
    let (_, trust) = app::trust_bundle(&config)?;
    let serving = tokio::spawn(app.run(signals));
    // The round's own refusals are meant, and would cover what it says.
    gateway.tell_reasons(false);
    let round = tokio::select! {
        round = round(folder, &addresses, &trust) => round,
        () = stop.closed() => {
            let message = "stopped before the round was complete; start again to continue".to_owned();
            Err(Exit { status: EXIT_NO, message }.into())
        }
    };
    let summary = match round {
        Ok(summary) => summary,
        Err(error) => {
            let _ = stop.send(Event::Stop);
            drop(gateway);
            serving.await??;
            return Err(error);
        }
    };
    gateway.tell_reasons(true);
    if !once {
        print_how_to_go_on(folder, &addresses);
    }
    let size = gateway.ledger().size();
    drop(gateway);
    let last = format!(
        "quickstart ok issued={} retrieved={} verified={} refused={} receipts={} log_size={size}",
        summary.issued, summary.retrieved, summary.verified, summary.refused, summary.receipts
    );
    if once {
        let _ = stop.send(Event::Stop);
        serving.await??;
        line(last);
    } else {
        line(last);
        stop.closed().await;
        serving.await??;
    }
    Ok(())
}

async fn round(folder: &Path, addresses: &Listen, trust: &Trust) -> anyhow::Result<Summary> {
    let address = addresses.data;
    let mut summary = Summary::default();
    let mut kept = Vec::new();
    let organisations = init::development_organisations();
    let approval_code = organisations.get(1).context("there is an approval system")?.as_str().to_owned();

    // 1 issue: the seed differs with every run, so a run on an existing folder adds licenses.
    let issued = issue_all(folder, address, &mut kept).await?;
    summary.issued = issued.len();
    line(format_args!("  issued     {} licenses of {} types", issued.len(), LicenseType::builtin().len()));

    // 2 search, retrieve and verify with the holder's grant. Parties connect when they begin: idle connections are closed.
    let mut portal = Party::connect(folder, "portal", address).await?;
    let mut approval = Party::connect(folder, "approval", address).await?;
    let samples = samples::begin(&mut portal, &issued, &approval_code).await?;
    let bar = progress(issued.len() / EVERY, "retrieve and verify");
    for (number, one) in issued.iter().enumerate().filter(|(number, _)| number % EVERY == 0) {
        let (_, holder) = one.license.holders.first().context("a license has a holder")?;
        let holder = json!({"typeCode": holder.type_code().as_str(), "number": holder.number()});
        let listed = portal
            .post("/v1/licenses/search", &json!({"holder": holder, "use": use_context(number)}), None)
            .await?
            .expect(200)?;
        let found = listed["licenses"].as_array().into_iter().flatten();
        ensure!(
            found.into_iter().any(|l| l["identifier"] == one.identifier.as_str()),
            "search does not list a license"
        );
        let grant = json!({
            "holder": holder, "grantee": approval_code, "identifier": one.identifier,
            "modes": ["verify", "fields", "envelope"], "fields": ["certificateNumber", "holderName"],
            "until": schemas::date::rfc3339(now_ms() + 3_600_000), "maxUses": 5,
        });
        let grant = portal
            .post("/v1/grants", &grant, Some(format!("grant-{}", one.identifier)))
            .await?
            .expect(201)?;
        let grant = grant["grant"].as_str().context("a grant id")?.to_owned();
        let license = json!({"identifier": one.identifier});
        let mode = if number % (2 * EVERY) == 0 { "envelope" } else { "fields" };
        let mut retrieve =
            json!({"license": license, "mode": mode, "grant": grant, "use": use_context(number)});
        if mode == "fields" {
            retrieve["fields"] = json!(["certificateNumber"]);
        }
        let retrieved = approval.post("/v1/licenses/retrieve", &retrieve, None).await?.expect(200)?;
        if mode == "fields" {
            ensure!(
                retrieved["fields"]["certificateNumber"] == one.license.certificate_number.as_str(),
                "a field differs from what was issued"
            );
        }
        summary.retrieved += 1;
        let verify = json!({
            "license": license, "grant": grant, "use": use_context(number),
            "expect": {"certificateNumber": one.license.certificate_number},
        });
        let verified = approval.post("/v1/verify", &verify, None).await?.expect(200)?;
        ensure!(
            verified["verdict"] == "valid" && verified["matches"] == true,
            "a good license does not verify"
        );
        summary.verified += 1;
        bar.inc(1);
    }
    bar.finish_and_clear();
    line(format_args!("  retrieved  {} with the holder's grant, and verified them", summary.retrieved));

    // 3 refuse: no grant, another's grant, no such license, a transition that the table does not have
    let mut bank = Party::connect(folder, "bank", address).await?;
    let natural = issued.iter().filter(|one| one.natural).step_by(EVERY);
    for (number, one) in natural.enumerate() {
        let license = json!({"identifier": one.identifier});
        bank.post("/v1/verify", &json!({"license": license, "use": use_context(number)}), None)
            .await?
            .expect(403)?;
        let absent = json!({"license": license, "grant": "00000000000000000000000000000000", "use": use_context(number)});
        bank.post("/v1/verify", &absent, None).await?.expect(403)?;
        summary.refused += 2;
    }
    let mut issuer = Party::connect(folder, "issuer", address).await?;
    if let Some(one) = issued.first() {
        let transition =
            json!({"identifier": one.identifier, "operation": "06", "reason": "演示: 未暂扣不能发还"});
        issuer
            .post("/v1/licenses/transition", &transition, Some(format!("wrong-{}", one.identifier)))
            .await?
            .expect(409)?;
        summary.refused += 1;
    }
    line(format_args!("  refused    {} requests, each journaled like a permit", summary.refused));

    // 4 revoke, and verify again
    let mut revoked = 0;
    for (number, one) in issued.iter().enumerate().filter(|(number, _)| number % REVOKE_EVERY == 1) {
        let envelope =
            kept.get(number).and_then(|kept: &Exchanged| kept.envelope.clone()).context("an envelope")?;
        let license = json!({"envelope": BASE64.encode(&envelope)});
        let verify = json!({"license": license, "use": use_context(number)});
        let before = bank.post("/v1/verify", &verify, None).await?.expect(200)?;
        let transition =
            json!({"identifier": one.identifier, "operation": "05", "to": "07", "reason": "演示吊销"});
        issuer
            .post("/v1/licenses/transition", &transition, Some(format!("revoke-{}", one.identifier)))
            .await?
            .expect(200)?;
        let after = bank.post("/v1/verify", &verify, None).await?.expect(200)?;
        ensure!(before["verdict"] == "valid" && after["verdict"] == "invalid", "a revocation does not show");
        ensure!(after["state"] == "07", "a revoked license has another state");
        summary.verified += 2;
        revoked += 1;
    }
    line(format_args!("  revoked    {revoked} and verified them before and after"));

    // 5 offline, from bytes alone
    for party in [portal, approval, bank, issuer] {
        kept.extend(party.kept);
    }
    let at = now_ms() / 1_000;
    let mut roots = RootCache::new();
    let bar = progress(kept.len(), "check offline");
    let mut licenses = 0;
    for one in &kept {
        if let Some(envelope) = &one.envelope {
            let report = verifier::license::verify(envelope, trust, at, &mut roots);
            ensure!(report.verdict == Verdict::Valid, "a license does not verify offline: {report:?}");
            licenses += 1;
        }
        let (_, receipt) = verifier::receipt::cut(&one.answer).context("an answer without a receipt")?;
        let report = verifier::receipt::verify(&receipt, Some(&one.request), Some(&one.answer), trust, at);
        ensure!(report.verdict == Verdict::Valid, "a receipt does not verify offline: {report:?}");
        summary.receipts += 1;
        bar.inc(1);
    }
    bar.finish_and_clear();
    line(format_args!(
        "  checked    {licenses} licenses and {} receipts offline with the verifier",
        summary.receipts
    ));
    samples.write(folder, addresses, &issued, &kept).await?;
    Ok(summary)
}

async fn issue_all(
    folder: &Path,
    address: SocketAddr,
    kept: &mut Vec<Exchanged>,
) -> anyhow::Result<Vec<Issued>> {
    let today = Date::at(i64::try_from(now_ms() / 1_000).unwrap_or(0));
    let mut synthetic = Synthetic::new(now_ms());
    let mut work = Vec::new();
    let types = LicenseType::builtin();
    // Types take turns, so that any prefix of a run that was cut off holds all of them.
    for _ in 0..PER_TYPE {
        for license_type in &types {
            let license = synthetic.license(license_type, today);
            let serial = synthetic.serial();
            let body = license.request(&license_type.code, serial.as_str());
            let natural = license_type.is_natural_person();
            work.push((json!({ "license": body }), license, natural, format!("issue-{}", serial.as_str())));
        }
    }
    let total = work.len();
    let bar = progress(total, "issue");
    let queue = std::sync::Arc::new(std::sync::Mutex::new(work.into_iter().enumerate()));
    let mut tasks = tokio::task::JoinSet::new();
    let who = Identity::of_participant(folder, "issuer")?;
    for _ in 0..ISSUING {
        let (queue, bar, who) = (std::sync::Arc::clone(&queue), bar.clone(), who.clone());
        tasks.spawn(async move {
            let mut party = Party { client: who.connect(address).await?, kept: Vec::new() };
            let mut done = Vec::new();
            loop {
                let next = queue.lock().map_err(|_| anyhow::anyhow!("a worker failed"))?.next();
                let Some((number, (body, license, natural, key))) = next else { break };
                let answer = party.post("/v1/licenses", &body, Some(pad(&key))).await?.expect(201)?;
                let identifier = answer["identifier"].as_str().context("an identifier")?.to_owned();
                done.push((number, Issued { identifier, license, natural }));
                bar.inc(1);
            }
            anyhow::Ok((done, party.kept))
        });
    }
    let mut issued: HashMap<usize, (Issued, Exchanged)> = HashMap::with_capacity(total);
    while let Some(joined) = tasks.join_next().await {
        let (done, exchanged) = joined??;
        for ((number, one), exchanged) in done.into_iter().zip(exchanged) {
            issued.insert(number, (one, exchanged));
        }
    }
    bar.finish_and_clear();
    let mut list = Vec::with_capacity(total);
    for number in 0..total {
        let (one, exchanged) = issued.remove(&number).context("a license was not issued")?;
        list.push(one);
        kept.push(exchanged);
    }
    Ok(list)
}

/// An idempotency key of 16 to 64 characters from a name.
fn pad(name: &str) -> String {
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let tail = name.len().saturating_sub(64);
    format!("{:0>16}", &name[tail..])
}

fn use_context(number: usize) -> Value {
    json!({
        "userName": "演示经办人", "itemCode": "11440100MB2D00000000044010000001", "itemName": "演示事项",
        "businessCode": format!("DEMO{number:08}"), "cause": "演示: 核验申请材料", "stage": "受理",
    })
}

fn progress(total: usize, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(total as u64);
    if let Ok(style) = ProgressStyle::with_template("  {msg:<20} {bar:30} {pos}/{len}") {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}

/// One participant's connection, with everything it sent and received.
struct Party {
    client: Client,
    kept: Vec<Exchanged>,
}

/// An answer whose status is still to be checked.
struct Reply {
    path: String,
    status: u16,
    body: Value,
}

impl Party {
    async fn connect(folder: &Path, name: &str, address: SocketAddr) -> anyhow::Result<Self> {
        let client = Identity::of_participant(folder, name)?.connect(address).await?;
        Ok(Self { client, kept: Vec::new() })
    }

    async fn post(
        &mut self,
        path: &str,
        body: &Value,
        idempotency_key: Option<String>,
    ) -> anyhow::Result<Reply> {
        let request = Bytes::from(serde_json::to_vec(body)?);
        let key = idempotency_key.map(|key| pad(&key));
        let mut headers = vec![("receipt", "inline")];
        if let Some(key) = &key {
            headers.push(("idempotency-key", key));
        }
        let (status, answer) = self.client.post(path, request.clone(), &headers).await?;
        let body: Value = serde_json::from_slice(&answer).with_context(|| format!("{path}: not JSON"))?;
        let envelope = body["envelope"].as_str().map(|text| BASE64.decode(text)).transpose()?;
        self.kept.push(Exchanged { request, answer, envelope });
        Ok(Reply { path: path.to_owned(), status, body })
    }
}

impl Reply {
    fn expect(self, status: u16) -> anyhow::Result<Value> {
        if self.status == status {
            return Ok(self.body);
        }
        // Codes and titles of problem documents hold no personal data.
        bail!("{}: status {} instead of {status}: {}", self.path, self.status, self.body["code"])
    }
}

fn print_how_to_go_on(folder: &Path, addresses: &Listen) {
    let pki = folder.join("pki");
    line(format_args!(
        "  serving    data {}  public {}  admin {}",
        addresses.data, addresses.public, addresses.admin
    ));
    line("  go on with:");
    line(format_args!(
        "    curl --cacert {0}/ca.pem https://{1}/v1/log/checkpoint",
        pki.display(),
        addresses.public
    ));
    line(format_args!("    curl http://{}/metrics", addresses.admin));
    line(format_args!("    sh {}/samples/walkthrough.sh", folder.display()));
    line("  Ctrl-C stops. The log here says why a request is refused, which its caller does not learn");
}
