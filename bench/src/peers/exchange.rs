//! The exchange in a comparison: its folder, its licenses, and what it is asked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::Client;
use exchange::calling;
use exchange::opening;
use schemas::date::Date;
use schemas::license_type::LicenseType;
use schemas::routes::Route;
use schemas::synthetic::Synthetic;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use verifier::receipt;
use verifier::report::Verdict;
use verifier::trust::Trust;

use super::asking::{NUMBER, Template};
use super::child::Running;
use crate::check;
use crate::folder::organisation;
use crate::mix::Kept;
use crate::population::{self, Draft, Population, now_ms};
use crate::run;
use crate::server;

/// Who verifies and retrieves.
pub(super) const RELYING: &str = "approval";
/// Who issues.
pub(super) const ISSUER: &str = "issuer";
/// Bytes of an envelope that is retrieved.
pub(super) const ENVELOPE_BYTES: usize = 2_048;
/// Lengths are told apart by the padding of the format.
const MAX_PADDING_BYTES: usize = 16;
/// Licenses with such an envelope.
const LARGE: u64 = 256;
/// The type whose text can be made as long as that: 营业执照, the business license of a legal person.
const LARGE_TYPE: &str = "11100000MB0341032Y001";
/// Its longest field.
const LARGE_FIELD: &str = "businessScope";
/// Different licenses that are issued under load, each again and again with a serial of its own.
const ISSUED: usize = 64;

/// Makes a folder with a log of a bench, its licenses, and at least so many entries; gives its trust bundle.
///
/// # Errors
/// The folder is not empty, or cannot be written.
pub(super) fn prepare(folder: &Path, licenses: u64, entries: u64) -> anyhow::Result<Trust> {
    ensure!(std::fs::read_dir(folder)?.next().is_none(), "{} is not empty", folder.display());
    let plan = population::Plan { licenses, seed: 1, sizes: Vec::new(), rows: 0 };
    let config = run::populate(folder, &plan, entries, false)?;
    Ok(opening::trust_bundle(&config)?.1)
}

/// A running exchange.
pub(super) struct Exchange {
    /// Its `address` is that of the data listener.
    pub(super) running: Running,
    folder: PathBuf,
    public: SocketAddr,
    admin: SocketAddr,
    /// Entries in its log when it was started.
    entries: u64,
}

/// Starts an exchange on a folder; `words` stand between the binary and what every exchange is told.
///
/// # Errors
/// It does not serve.
pub(super) fn start(binary: &Path, words: &[&str], folder: &Path, core: usize) -> anyhow::Result<Exchange> {
    let mut command = Command::new(binary);
    command.args(words).args(["--listen", "127.0.0.1:0", "--data"]).arg(folder);
    let mut others = None;
    let running = Running::speaking(&mut command, core, |line| {
        let [data, public, admin] = server::addresses(line).context("it does not say where it serves")?;
        others = Some((public, admin));
        Ok(data)
    })?;
    let (public, admin) = others.context("it does not say where it serves")?;
    let entries = server::log_size(admin)?;
    Ok(Exchange { running, folder: folder.to_owned(), public, admin, entries })
}

/// What is asked of an exchange.
pub(super) struct Requests {
    pub(super) verify: Vec<Template>,
    pub(super) inline: Vec<Template>,
    pub(super) retrieve: Vec<Template>,
    pub(super) issue: Vec<Template>,
}

/// Requests about the licenses of a prepared folder; issues those with long envelopes, which are retrieved.
///
/// # Errors
/// The exchange refuses.
pub(super) async fn requests(folder: &Path, address: SocketAddr) -> anyhow::Result<Requests> {
    let population = Population::load(folder, organisation(ISSUER)?)?;
    let (mut verify, mut inline) = (Vec::new(), Vec::new());
    let mut identifier = vec![0; population::IDENTIFIER_BYTES];
    for number in 0..population.plan().licenses {
        population.identifier(number, &mut identifier);
        let identifier = std::str::from_utf8(&identifier)?;
        let grant = population.right(number).map(|right| hex::encode(right.grant));
        verify.push(verify_request("", identifier, grant.as_deref()));
        inline.push(verify_request("receipt: inline\r\n", identifier, grant.as_deref()));
    }
    let issuer = connect(folder, ISSUER, address).await?;
    let portal = connect(folder, "portal", address).await?;
    let (envelope, _) = issued(large(0, 0), &issuer, &portal).await?;
    let padding = ENVELOPE_BYTES.saturating_sub(envelope.len());
    let mut retrieve = Vec::with_capacity(LARGE as usize);
    for number in 1..=LARGE {
        let (envelope, request) = issued(large(number, padding), &issuer, &portal).await?;
        ensure!(
            (ENVELOPE_BYTES..ENVELOPE_BYTES + MAX_PADDING_BYTES).contains(&envelope.len()),
            "an envelope of {} bytes",
            envelope.len()
        );
        retrieve.push(request);
    }
    let issue =
        population::drafts(now_ms(), ISSUED).into_iter().map(issue_request).collect::<Result<_, _>>()?;
    Ok(Requests { verify, inline, retrieve, issue })
}

/// Issues a license and has its holder grant its use; gives the envelope, and a request that retrieves it.
async fn issued(draft: Draft, issuer: &Client, portal: &Client) -> anyhow::Result<(Vec<u8>, Template)> {
    let Draft { body, key, grantor } = draft;
    let issued = post(issuer, Route::Issue, &body, &key).await?;
    let text = |name: &str| issued[name].as_str().with_context(|| name.to_owned());
    let (identifier, envelope) = (text("identifier")?, STANDARD.decode(text("envelope")?)?);
    let grantor = grantor.context("a holder")?;
    let body = population::grant_body(identifier, &grantor, &organisation(RELYING)?);
    let granted = post(portal, Route::GrantCreate, &body, &key.replace("issue", "grant")).await?;
    let grant = granted["grant"].as_str().context("a grant")?;
    Ok((envelope, retrieve_request(identifier, grant)))
}

/// What idempotency keys of licenses with long envelopes begin with.
const LARGE_KEY: &str = "bench-issue-large-";

fn large(number: u64, padding: usize) -> Draft {
    let types = LicenseType::builtin();
    let license_type =
        types.iter().find(|one| one.code.as_str() == LARGE_TYPE).expect("a built-in type of the schemas");
    let today = Date::at(i64::try_from(now_ms() / 1_000).unwrap_or(0));
    // The same license each time but for its serial, so that envelopes of one padding are of one length.
    let license = Synthetic::new(1).license(license_type, today);
    let serial = population::serial('L', number);
    let mut value = license.request(&license_type.code, &serial);
    value["fields"][LARGE_FIELD] = json!("A".repeat(1 + padding));
    Draft {
        body: json!({ "license": value }).to_string().into_bytes(),
        key: format!("{LARGE_KEY}{serial}"),
        grantor: license.holders.into_iter().next().map(|(_, holder)| holder),
    }
}

fn use_context() -> Value {
    json!({
        "userName": "压测经办人", "itemCode": "11440100MB2D00000000044010000001", "itemName": "压测事项",
        "businessCode": format!("BENCH{NUMBER}"), "cause": "压测: 核验申请材料", "stage": "受理",
    })
}

fn verify_request(lines: &str, identifier: &str, grant: Option<&str>) -> Template {
    let mut body = json!({ "license": {"identifier": identifier}, "use": use_context() });
    if let Some(grant) = grant {
        body["grant"] = json!(grant);
    }
    let path = Route::Verify.path().unwrap_or_default();
    Template::post(path, lines, &body.to_string(), br#"{"verdict":"valid","#)
}

fn retrieve_request(identifier: &str, grant: &str) -> Template {
    let body = json!({
        "license": {"identifier": identifier}, "mode": "envelope", "grant": grant, "use": use_context(),
    });
    let begins = format!(r#"{{"identifier":"{identifier}","mode":"envelope","#);
    Template::post(Route::Retrieve.path().unwrap_or_default(), "", &body.to_string(), begins.as_bytes())
}

fn issue_request(draft: Draft) -> anyhow::Result<Template> {
    let mut body: Value = serde_json::from_slice(&draft.body)?;
    body["license"]["serial"] = json!(format!("R{NUMBER}"));
    body["license"]["certificateNumber"] = json!(format!("CS{NUMBER}"));
    let key = format!("idempotency-key: bench-{NUMBER}\r\n");
    let path = Route::Issue.path().unwrap_or_default();
    Ok(Template::post(path, &key, &body.to_string(), br#"{"identifier":""#))
}

async fn connect(folder: &Path, name: &str, address: SocketAddr) -> anyhow::Result<Client> {
    let client = Client::new(address.into(), &calling::participant(folder, name)?);
    client.connect().await?;
    Ok(client)
}

async fn post(client: &Client, route: Route, body: &[u8], key: &str) -> anyhow::Result<Value> {
    let body: Value = serde_json::from_slice(body)?;
    Ok(client.call::<Value>(route, &body).key(key).await?.value)
}

impl Exchange {
    /// Checks answers that were kept as those of any run are: each has a receipt of its own that fits it, some are led to the
    /// signed checkpoint, and the log grew by as many entries as there were right answers. Gives their number.
    ///
    /// # Errors
    /// None was kept, or something is not good.
    pub(super) fn check(
        &self,
        runtime: &Runtime,
        kept: &[Kept],
        answers: u64,
        trust: &Trust,
    ) -> anyhow::Result<usize> {
        let mut checks = runtime.block_on(async {
            let public = Client::new(self.public.into(), &calling::participant(&self.folder, RELYING)?);
            check::check(kept, &[], trust, &public).await
        })?;
        checks.log_grew(server::log_size(self.admin)?.saturating_sub(self.entries), answers);
        ensure!(checks.passed(), "{checks}");
        Ok(checks.receipts)
    }
}

/// Checks that each of these receipts holds a proof that leads to the signed checkpoint.
///
/// # Errors
/// One does not.
pub(super) fn check_inline(kept: &[Kept], trust: &Trust) -> anyhow::Result<()> {
    let at = now_ms() / 1_000;
    for Kept { request, answer } in kept {
        let (_, cut) = receipt::cut(answer)?;
        let report = receipt::verify(&cut, Some(request), Some(answer), trust, at);
        ensure!(report.verdict == Verdict::Valid, "the inline proof of entry {} is not valid", cut.index);
    }
    Ok(())
}
