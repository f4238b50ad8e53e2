//! An exchange in this process, without sockets, for the criterion benches.

use std::path::Path;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use certs::keys::load_issuer_keys;
use exchange::config::{Config, Limits};
use exchange::gateway::{Certified, Gateway};
use exchange::shed::Shed;
use exchange::signer::Signers;
use exchange::{app, init};
use http_body_util::Full;
use ledger::Ledger;
use schemas::routes::Route;
use verifier::trust::Trust;

use crate::population::{self, VerifyRequest};

/// A gateway with licenses in it.
pub struct World {
    /// The gateway.
    pub gateway: Gateway,
    /// Its trust bundle.
    pub trust: Trust,
    /// Who verifies.
    pub approval: Certified,
    /// Bodies of verify requests, in turn with the holder's grant and for a legal person's license without one.
    pub verify: Vec<VerifyRequest>,
}

/// Opens a development exchange in `folder` and issues `licenses` licenses.
///
/// # Errors
/// The folder cannot be made, or a license is not issued.
pub async fn open(folder: &Path, licenses: usize) -> anyhow::Result<World> {
    let config = init::development(folder, None)?;
    let (ledger, _) =
        Ledger::open(app::ledger_options(&config), app::ledger_keys(&app::key_folder(&config)?)?)?;
    init::register(&ledger, &init::development_register()).await?;
    let (gateway, trust) = gateway(&config, ledger)?;
    let organisation = |name: &str| {
        let at = init::PARTICIPANTS.iter().position(|participant| participant.name == name);
        at.and_then(|at| init::development_organisations().get(at).copied())
            .map(|organisation| Certified { organisation, ends_at_ms: u64::MAX })
            .context("a participant")
    };
    let (issuer, portal, approval) =
        (organisation("issuer")?, organisation("portal")?, organisation("approval")?);
    let mut verify = Vec::with_capacity(licenses);
    for draft in population::drafts(1, licenses) {
        let issued = post(&gateway, Route::Issue, &issuer, draft.body, &draft.key).await?;
        let identifier = issued["identifier"].as_str().context("an identifier")?;
        let grant = match draft.grantor {
            Some(grantor) => {
                let body = population::grant_body(identifier, &grantor, &approval.organisation);
                Some(post(&gateway, Route::GrantCreate, &portal, body, &draft.key).await?)
            }
            None => None,
        };
        let grant = grant.as_ref().and_then(|grant| grant["grant"].as_str());
        verify.push(VerifyRequest::body(identifier, grant));
    }
    Ok(World { gateway, trust, approval, verify })
}

/// A gateway over the ledger of a development folder, with the folder's trust bundle.
///
/// # Errors
/// A key or the trust bundle cannot be read.
pub fn gateway(config: &Config, ledger: Ledger) -> anyhow::Result<(Gateway, Trust)> {
    let (_, trust) = app::trust_bundle(config)?;
    let keys = load_issuer_keys(&app::key_folder(config)?)?;
    let signers = Signers::start(keys, &trust).map_err(anyhow::Error::msg)?;
    let Limits { refusals_a_second, refusal_burst, .. } = config.limits;
    let shed = Shed::new(refusals_a_second, refusal_burst);
    Ok((Gateway::new(ledger, signers, trust.clone(), shed, 0), trust))
}

async fn post(
    gateway: &Gateway,
    route: Route,
    caller: &Certified,
    body: Vec<u8>,
    key: &str,
) -> anyhow::Result<serde_json::Value> {
    let request = hyper::Request::post("/")
        .header("content-type", "application/json")
        .header("idempotency-key", key)
        .body(Full::new(Bytes::from(body)))?;
    let answer = gateway.handle(route, caller, request, None).await;
    ensure!(answer.status == 201, "{}: {}", route.name(), answer.code.name());
    Ok(serde_json::from_slice(&answer.body)?)
}
