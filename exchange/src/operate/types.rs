//! `exchange type list`, `exchange type show`: the license types that are published.

use anyhow::Context as _;
use serde_json::Value;

use crate::client::Client;

/// The definitions that the public listener shows to anyone.
///
/// # Errors
/// The exchange cannot be reached or answers with something else.
pub async fn published(public: &mut Client) -> anyhow::Result<Vec<Value>> {
    let (status, answer) = public.get("/v1/types").await?;
    anyhow::ensure!(status == 200, "the public listener answers with status {status}");
    let mut list: Value = serde_json::from_slice(&answer).context("the answer is no list of types")?;
    match list["types"].take() {
        Value::Array(types) => Ok(types),
        _ => anyhow::bail!("the answer has no types"),
    }
}
