//! `exchange quickstart`: a whole exchange from nothing, and the whole round as a client over mTLS: issue, search,
//! retrieve, verify, refuse, revoke, verify again, and check every license and receipt offline from bytes alone.
//!
//! A developer runs it, on generated data. A run that was cut off is continued by the next one.

mod party;
mod samples;
mod sharing;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, ensure};
use client::{Exchanged, Issue, License, Mode, Retrieve, Search, Verdict as Verified, Verify};
use indicatif::{ProgressBar, ProgressStyle};
use metrics_exporter_prometheus::PrometheusHandle;
use schemas::date::Date;
use schemas::license_type::LicenseType;
use schemas::state::{LicenseState, Operation};
use schemas::synthetic::Synthetic;
use verifier::command::{EXIT_NO, line};
use verifier::license::RootCache;
use verifier::report::Verdict;
use verifier::trust::Trust;

use party::{Issued, Party, REVOKE_EVERY, use_context};

use crate::app::App;
use crate::config::Listen;
use crate::exit::Exit;
use crate::files::write_new;
use crate::init;
use crate::moment::now_ms;
use crate::opening::trust_bundle;
use crate::signals::{Event, Signals};

/// Licenses issued of each of the nine types.
const PER_TYPE: usize = 112;
/// Connections issuing at once; what they queue together is signed and committed together.
const ISSUING: usize = 16;
/// Every how many licenses one is granted, retrieved and verified.
const EVERY: usize = 8;

/// The work done, counted from real answers.
#[derive(Debug, Default)]
pub struct Summary {
    issued: usize,
    retrieved: usize,
    verified: usize,
    refused: usize,
    receipts: usize,
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
        write_new(&folder.join("config.toml"), &config.to_toml())?;
    }
    let written = init::register_development(app.gateway.ledger(), &init::development_register()).await?;
    line(format_args!(
        "  log {} holds {} entries ({written} new in the register)",
        config.origin,
        app.gateway.ledger().size()
    ));
    let addresses = app.addresses.clone();
    let gateway = std::sync::Arc::clone(&app.gateway);
    let (_, trust) = trust_bundle(&config)?;
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
    let mut envelopes: Vec<Vec<u8>> = issued.iter().map(|one| one.envelope.clone()).collect();
    line(format_args!("  issued     {} licenses of {} types", issued.len(), LicenseType::builtin().len()));

    // 2 search, retrieve and verify with the holder's grant
    let mut portal = Party::connect(folder, "portal", address).await?;
    let mut approval = Party::connect(folder, "approval", address).await?;
    let samples = samples::begin(&mut portal, &issued, &approval_code).await?;
    let bar = progress(issued.len() / EVERY, "retrieve and verify");
    for (number, one) in issued.iter().enumerate().filter(|(number, _)| number % EVERY == 0) {
        let context = use_context(number);
        let search = Search {
            holder: one.holder()?.into(),
            type_code: None,
            assertion: None,
            grant: None,
            context: context.clone(),
        };
        let found = portal.ask(|client| client.search(&search)).await?;
        ensure!(
            found.licenses.iter().any(|found| found.identifier == one.identifier),
            "search does not list a license"
        );
        let mut grant =
            one.grant(&approval_code, &["certificateNumber", "holderName"], now_ms() + 3_600_000)?;
        grant.max_uses = Some(5);
        let grant = portal.ask(|client| client.grant(&grant)).await?.grant;
        let mode = if number % (2 * EVERY) == 0 { Mode::Envelope } else { Mode::Fields };
        let mut retrieve = Retrieve::new(one.named(), mode, context.clone()).with_grant(&*grant);
        if mode == Mode::Fields {
            retrieve.fields = vec!["certificateNumber".to_owned()];
        }
        let certificate_number = one.license.certificate_number.as_str();
        let retrieved = approval.ask(|client| client.retrieve(&retrieve)).await?;
        if mode == Mode::Fields {
            ensure!(
                retrieved.fields.get("certificateNumber").is_some_and(|value| value == certificate_number),
                "a field differs from what was issued"
            );
        }
        envelopes.extend(retrieved.envelope.map(|envelope| envelope.0));
        summary.retrieved += 1;
        let verify = Verify::new(one.named(), context)
            .with_grant(grant)
            .expecting("certificateNumber", certificate_number);
        let verified = approval.ask(|client| client.verify(&verify)).await?;
        ensure!(
            verified.verdict == Verified::Valid && verified.matches == Some(true),
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
        let verify = Verify::new(one.named(), use_context(number));
        bank.refused(403, |client| client.verify(&verify)).await?;
        let absent = verify.with_grant("00000000000000000000000000000000");
        bank.refused(403, |client| client.verify(&absent)).await?;
        summary.refused += 2;
    }
    let mut issuer = Party::connect(folder, "issuer", address).await?;
    if let Some(one) = issued.first() {
        let transition = one.transition(Operation::Release, None, "演示: 未暂扣不能发还");
        issuer.refused(409, |client| client.transition(&transition)).await?;
        summary.refused += 1;
    }
    line(format_args!("  refused    {} requests, each journaled like a permit", summary.refused));

    // 4 revoke, and verify again
    let mut revoked = 0;
    for (number, one) in issued.iter().enumerate().filter(|(number, _)| number % REVOKE_EVERY == 1) {
        let verify = Verify::new(License::by_envelope(one.envelope.clone()), use_context(number));
        let before = bank.ask(|client| client.verify(&verify)).await?;
        let transition = one.transition(Operation::End, Some(LicenseState::Revoked), "演示吊销");
        issuer.ask(|client| client.transition(&transition)).await?;
        let after = bank.ask(|client| client.verify(&verify)).await?;
        ensure!(
            before.verdict == Verified::Valid && after.verdict == Verified::Invalid,
            "a revocation does not show"
        );
        ensure!(after.state == Some(LicenseState::Revoked), "a revoked license has another state");
        summary.verified += 2;
        revoked += 1;
    }
    line(format_args!("  revoked    {revoked} and verified them before and after"));

    // 5 shared data
    let mut provider = Party::connect(folder, "provider", address).await?;
    let provider_code = organisations.last().context("there is a data provider")?.as_str();
    sharing::share(&mut provider, &mut approval, &mut portal, provider_code).await?;

    // 6 offline, from bytes alone
    for party in [portal, approval, bank, issuer, provider] {
        kept.extend(party.kept);
    }
    check_offline(&envelopes, &kept, trust)?;
    summary.receipts = kept.len();
    samples.write(folder, addresses, &issued).await?;
    Ok(summary)
}

/// Checks licenses and receipts from their bytes and the trust bundle alone.
fn check_offline(envelopes: &[Vec<u8>], kept: &[Exchanged], trust: &Trust) -> anyhow::Result<()> {
    let at = now_ms() / 1_000;
    let mut roots = RootCache::new();
    let bar = progress(kept.len(), "check offline");
    for envelope in envelopes {
        let report = verifier::license::verify(envelope, trust, at, &mut roots);
        ensure!(report.verdict == Verdict::Valid, "a license does not verify offline: {report:?}");
    }
    for Exchanged { request, answer } in kept {
        let (_, receipt) = verifier::receipt::cut(answer).context("an answer without a receipt")?;
        let report = verifier::receipt::verify(&receipt, Some(request), Some(answer), trust, at);
        ensure!(report.verdict == Verdict::Valid, "a receipt does not verify offline: {report:?}");
        bar.inc(1);
    }
    bar.finish_and_clear();
    line(format_args!(
        "  checked    {} licenses and {} receipts offline with the verifier",
        envelopes.len(),
        kept.len()
    ));
    Ok(())
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
            let body = license.request(&license_type.code, synthetic.serial().as_str());
            let natural = license_type.is_natural_person();
            work.push((Issue { license: serde_json::from_value(body)? }, license, natural));
        }
    }
    let total = work.len();
    let bar = progress(total, "issue");
    let queue = std::sync::Arc::new(std::sync::Mutex::new(work.into_iter().enumerate()));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..ISSUING {
        let (queue, bar) = (std::sync::Arc::clone(&queue), bar.clone());
        let mut party = Party::connect(folder, "issuer", address).await?;
        tasks.spawn(async move {
            let mut done = Vec::new();
            loop {
                let next = queue.lock().map_err(|_| anyhow::anyhow!("a worker failed"))?.next();
                let Some((number, (issue, license, natural))) = next else { break };
                let answer = party.ask(|client| client.issue(&issue)).await?;
                let (identifier, envelope) = (answer.identifier, answer.envelope.0);
                done.push((number, Issued { identifier, envelope, license, natural }));
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

fn progress(total: usize, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(total as u64);
    if let Ok(style) = ProgressStyle::with_template("  {msg:<20} {bar:30} {pos}/{len}") {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
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
