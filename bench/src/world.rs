//! An exchange in this process with licenses in it, for the criterion benches.

use std::path::Path;

use anyhow::Context as _;
use exchange::gateway::Gateway;
use exchange::init;
use exchange::participant::Certified;
use schemas::routes::Route;
use verifier::trust::Trust;

use crate::folder::{InProcess, organisation};
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
    let exchange = InProcess::open(&init::development(folder, None)?).await?;
    let [issuer, portal, approval] =
        [organisation("issuer")?, organisation("portal")?, organisation("approval")?];
    let mut verify = Vec::with_capacity(licenses);
    for draft in population::drafts(1, licenses) {
        let issued = exchange.ask(Route::Issue, issuer, draft.body, Some(&draft.key), 201).await?;
        let issued: serde_json::Value = serde_json::from_slice(&issued)?;
        let identifier = issued["identifier"].as_str().context("an identifier")?;
        let grant = match draft.grantor {
            Some(grantor) => {
                let body = population::grant_body(identifier, &grantor, &approval);
                let granted = exchange.ask(Route::GrantCreate, portal, body, Some(&draft.key), 201).await?;
                let granted: serde_json::Value = serde_json::from_slice(&granted)?;
                Some(granted["grant"].as_str().context("a grant")?.to_owned())
            }
            None => None,
        };
        verify.push(VerifyRequest::body(identifier, grant.as_deref()));
    }
    let approval = Certified {
        organisation: approval,
        ends_at_ms: u64::MAX,
        address: std::net::Ipv4Addr::LOCALHOST.into(),
    };
    let InProcess { gateway, trust, .. } = exchange;
    Ok(World { gateway, trust, approval, verify })
}
