//! `exchange participant list`, `exchange proposals list`: all pages of a list, asked one after the other.

use anyhow::Context as _;
use schemas::routes::Route;
use serde_json::{Value, json};
use verifier::command;

use crate::client::{self, Client};
use crate::operate::{Caller, runtime};

/// All rows of a list that the caller may see. Each page is an entry of the log.
///
/// # Errors
/// The exchange cannot be reached, refuses, or answers with something else.
pub async fn all(client: &mut Client, route: Route, member: &str) -> anyhow::Result<Vec<Value>> {
    let path = route.path().context("a data route has a path")?;
    let (mut rows, mut asked) = (Vec::new(), json!({}));
    loop {
        let (status, answer) = client.post(path, serde_json::to_vec(&asked)?, &[]).await?;
        if status != 200 {
            return Err(client::refused(status, &answer));
        }
        let mut page: Value = serde_json::from_slice(&answer).context("the answer is no page")?;
        let Some(Value::Array(more)) = page.get_mut(member).map(Value::take) else {
            anyhow::bail!("the answer has no {member}");
        };
        rows.extend(more);
        match page["next"].as_str() {
            Some(next) if asked["after"] != next => asked = json!({"after": next}),
            Some(_) => anyhow::bail!("the next page does not go on"),
            None => return Ok(rows),
        }
    }
}

/// Prints all rows of a list, one a line.
///
/// # Errors
/// As [`all`].
pub fn print(route: Route, member: &str, operator: &Caller) -> anyhow::Result<()> {
    let rows =
        runtime()?.block_on(async { all(&mut operator.connect("operator").await?, route, member).await })?;
    for row in rows {
        command::line(row);
    }
    Ok(())
}
