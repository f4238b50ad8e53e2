//! Operators who erase a holder and change the epoch.

use std::time::Duration;

use anyhow::Context as _;
use schemas::codes::Code;
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{Call, Issued, Party, Reply, Server, draft, eventually, holder, natural};

use crate::must;

/// The failpoint of the controls: the old key is destroyed, and that is committed, without the new key file.
pub(crate) const UNREPLACED: &str = "rotation-unreplaced";
/// Rest of an operator who was told to come later.
const LATER: Duration = Duration::from_millis(5);

/// Sends until there is an answer.
async fn decided(operator: &mut Party, call: &Call) -> anyhow::Result<Reply> {
    loop {
        let reply = operator.try_send(call).await?;
        if !matches!(reply.status, 429 | 503) {
            return Ok(reply);
        }
        tokio::time::sleep(LATER).await;
    }
}

/// One operator proposes, the other approves.
async fn by_two(operators: &mut [Party; 2], proposal: &Value) -> anyhow::Result<()> {
    let [one, other] = operators;
    let proposed = decided(one, &Call::new(Route::Propose, proposal)).await?;
    anyhow::ensure!(proposed.status == 201, "proposing: {} {}", proposed.status, proposed.json);
    let approval = json!({"proposal": proposed.json["proposal"]});
    let approved = decided(other, &Call::new(Route::Approve, &approval)).await?;
    anyhow::ensure!(approved.status == 200, "approving: {} {}", approved.status, approved.json);
    Ok(())
}

fn operators(server: &Server) -> [Party; 2] {
    ["operator", "operator2"].map(|name| server.party(name))
}

/// Changes the epoch again and again, until the exchange is gone.
pub(crate) async fn change(server: &Server) -> anyhow::Result<()> {
    let mut operators = operators(server);
    loop {
        by_two(&mut operators, &json!({"kind": "rotate-epoch", "reason": "断电演练"})).await?;
    }
}

/// Changes the epoch once, to its end.
pub(crate) async fn change_once(server: &Server) -> anyhow::Result<()> {
    let before = destroyed(server).await?;
    by_two(&mut operators(server), &json!({"kind": "rotate-epoch", "reason": "断电演练"})).await?;
    eventually("a change of epoch", || async { (destroyed(server).await.ok()? > before).then_some(()) })
        .await;
    Ok(())
}

/// Epochs whose keys are destroyed.
pub(crate) async fn destroyed(server: &Server) -> anyhow::Result<u64> {
    server.admin("/ready").await.json["epochDestroyed"].as_u64().context("no epoch in /ready")
}

/// A revoked license whose holder two operators had erased.
pub(crate) async fn erased(server: &Server) -> anyhow::Result<Issued> {
    let mut issuer = server.party("issuer");
    let issued = draft(&natural()).issue(&mut issuer).await;
    issuer.send(&issued.operation("05", Some("07"))).await.expect(200);
    let whom = holder(issued.draft.holder());
    let erase = json!({"kind": "erase-holder", "reason": "断电演练", "holder": whom});
    by_two(&mut operators(server), &erase).await?;
    Ok(issued)
}

/// The license of an erased holder is answered as such.
pub(crate) async fn stays_erased(server: &Server, gone: &Issued) -> anyhow::Result<()> {
    let retrieve = gone.retrieve(&["certificateNumber"], None);
    let reply = decided(&mut server.party("issuer"), &retrieve).await?;
    must(reply.status == Code::Erased.status() && reply.code() == Code::Erased.name(), || {
        format!("the erased holder's license is answered {} {}", reply.status, reply.json)
    })
}
