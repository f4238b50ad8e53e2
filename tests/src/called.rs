//! A resource that an interface supplies, from its publication to a question for it.
//!
//! Tests and rigs of calls begin here, on a fresh development exchange.

use schemas::resource::{Resource, Supply};
use schemas::routes::Route;
use serde_json::{Value, json};

use crate::{Call, Reply, Server, use_context};

/// The subject of all questions: a company.
pub const COMPANY: &str = "91350102XX3DEMPQ6R";

/// The item of all applications.
pub fn item() -> Value {
    use_context()["itemCode"].clone()
}

/// A resource of class 1 that an interface supplies.
pub fn resource(number: u32, url: &str, deadline_ms: u32) -> Value {
    let mut sample = serde_json::to_value(Resource::samples().remove(1)).unwrap();
    sample["code"] = format!("3990010002/{number:06}").into();
    sample["supply"] = json!(Supply::Interface);
    sample["interface"] = json!({"url": url, "deadlineMs": deadline_ms});
    sample
}

/// Two operators allow a provider's address.
pub async fn allow(server: &Server, address: &Value) {
    let proposed = json!({"kind": "allow-address", "address": address, "reason": "测试"});
    let call = Call::new(Route::Propose, &proposed);
    let proposal = server.party("operator").send(&call).await.expect(201).json["proposal"].clone();
    let approve =
        |address: &Value| Call::new(Route::Approve, &json!({"proposal": proposal, "address": address}));
    let mut other = address.clone();
    other["port"] = 2.into();
    let mut second = server.party("operator2");
    assert_eq!(second.send(&approve(&other)).await.expect(409).json["detail"], "other-definition");
    second.send(&approve(address)).await.expect(200);
}

/// Takes a resource a step further, as its provider.
pub async fn step(server: &Server, code: &Value, action: &str) -> Reply {
    let body = json!({"resource": code, "action": action, "reason": "测试"});
    server.party("provider").send(&Call::new(Route::ResourceTransition, &body)).await
}

/// Writes a resource, publishes it and has the bank granted it by rule.
pub async fn share(server: &Server, resource: &Value, daily_limit: Option<u32>) -> Value {
    let code = resource["code"].clone();
    let written = Call::new(Route::ResourceWrite, &json!({"resource": resource}));
    server.party("provider").send(&written).await.expect(200);
    step(server, &code, "publish").await.expect(200);
    let mut scope = json!({"fields": ["organisationName", "status"], "until": "2099-12-31"});
    if let Some(limit) = daily_limit {
        scope["dailyLimit"] = limit.into();
    }
    let apply = json!({"resource": code, "itemCode": item(), "itemName": "测试事项", "purpose": "测试核对", "scope": scope});
    let applied = server.party("bank").send(&Call::new(Route::ApplicationMake, &apply)).await.expect(201);
    assert_eq!(applied.json["state"], "provided");
    applied.json["application"].clone()
}

/// The question for the company's row.
pub fn question(resource: &Value) -> Call {
    let body = json!({
        "resource": resource["code"], "holder": {"typeCode": "001", "number": COMPANY}, "use": use_context(),
    });
    Call::new(Route::RecordsCall, &body)
}
