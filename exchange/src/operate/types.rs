//! `exchange type`: the license types that are published, and the proposal of another one.
//!
//! Anyone lists, an operator proposes. A proposal that a crash cut off is in the log or not at all.

use std::path::Path;

use anyhow::Context as _;
use client::{Client, Fetched};
use serde_json::{Value, json};
use verifier::command;

use crate::calling;
use crate::exit::Exit;
use crate::operate::{Caller, json_file, propose, runtime};

/// The definitions that the public listener shows to anyone.
///
/// # Errors
/// The exchange cannot be reached or answers with something else.
pub async fn published(public: &Client) -> anyhow::Result<Vec<Value>> {
    let Fetched { status, body, .. } = public.get("/v1/types").await.map_err(calling::ended)?;
    anyhow::ensure!(status == 200, "the public listener answers with status {status}");
    let mut list: Value = serde_json::from_slice(&body).context("the answer is no list of types")?;
    match list["types"].take() {
        Value::Array(types) => Ok(types),
        _ => anyhow::bail!("the answer has no types"),
    }
}

fn fetched(caller: &Caller) -> anyhow::Result<Vec<Value>> {
    runtime()?.block_on(async { published(&caller.connect_public("operator").await?).await })
}

/// Proposes a definition.
///
/// # Errors
/// Like [`Caller::send`].
pub fn add(file: &Path, reason: &str, operator: &Caller) -> anyhow::Result<u8> {
    let definition = json_file(file)?;
    let body = json!({"kind": "publish-type", "licenseType": definition, "reason": reason});
    propose::send(&body, operator)
}

/// Prints code and name of each type, one a line.
///
/// # Errors
/// Like [`published`].
pub fn list(caller: &Caller) -> anyhow::Result<()> {
    for one in fetched(caller)? {
        let [code, name] = ["code", "name"].map(|member| one[member].as_str().unwrap_or_default());
        command::line(format_args!("{code} {name}"));
    }
    Ok(())
}

/// Prints the definition of a type.
///
/// # Errors
/// Like [`published`]; no such type is.
pub fn show(code: &str, caller: &Caller) -> anyhow::Result<()> {
    let types = fetched(caller)?;
    let found = types.iter().find(|one| one["code"].as_str() == Some(code));
    let found = found.ok_or_else(|| Exit::usage("no such type is published"))?;
    command::line(serde_json::to_string_pretty(found)?);
    Ok(())
}
