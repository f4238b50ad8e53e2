//! `exchange participant list`, `exchange proposals list`, `exchange license list` and those of shared data: all pages of a list, asked one after the other.
//!
//! Participants run them. Each page that was asked for is an entry of the log, also when the command dies.

use client::Client;
use schemas::routes::Route;
use serde_json::{Value, json};
use verifier::command;

use crate::calling;
use crate::operate::{Caller, runtime};

/// All rows of a list that the caller may see and that pass the filters. Each page is an entry of the log.
///
/// # Errors
/// The exchange cannot be reached, refuses, or answers with something else.
pub async fn all(client: &Client, route: Route, member: &str, filters: Value) -> anyhow::Result<Vec<Value>> {
    let (mut rows, mut asked) = (Vec::new(), filters);
    loop {
        let mut page = client.call::<Value>(route, &asked).await.map_err(calling::ended)?.value;
        let Some(Value::Array(more)) = page.get_mut(member).map(Value::take) else {
            anyhow::bail!("the answer has no {member}");
        };
        rows.extend(more);
        match page["next"].as_str() {
            Some(next) if asked["after"] != next => asked["after"] = next.into(),
            Some(_) => anyhow::bail!("the next page does not go on"),
            None => return Ok(rows),
        }
    }
}

/// Prints all rows of a list, one a line.
///
/// # Errors
/// Like [`all`].
pub fn print(route: Route, member: &str, operator: &Caller) -> anyhow::Result<()> {
    printed(route, member, json!({}), operator, "operator")
}

/// Prints the licenses of the issuing authority that asks, one a line.
///
/// # Errors
/// Like [`all`].
pub fn licenses(type_code: Option<&str>, state: Option<&str>, issuer: &Caller) -> anyhow::Result<()> {
    let filters = [("typeCode", type_code), ("state", state)];
    let filters = filters.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
    printed(Route::IssuedList, "licenses", Value::Object(filters.collect()), issuer, "issuer")
}

pub(super) fn printed(
    route: Route,
    member: &str,
    filters: Value,
    caller: &Caller,
    name: &str,
) -> anyhow::Result<()> {
    let rows =
        runtime()?.block_on(async { all(&caller.connect(name).await?, route, member, filters).await })?;
    for row in rows {
        command::line(row);
    }
    Ok(())
}
