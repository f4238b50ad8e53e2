//! All pages of an auditor's query in one file, as `verifier audit` checks it.
//!
//! `exchange log export` alone calls it. It writes to what its caller gives: a crash leaves a part there.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use client::Client;
use schemas::routes::Route;
use serde::Deserialize;
use serde_json::Value;

use crate::calling;
use crate::exit::Exit;

/// The part of a page that the export needs to ask for the next one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    from_index: u64,
    next: Option<u64>,
    entries: Vec<serde::de::IgnoredAny>,
}

/// Asks for the pages of a query one after the other, and writes each answer as it came, with its receipt, as a line.
/// Gives the number of pages and of entries.
///
/// Each page is an entry of the log itself; a query without `to` ends now, so that it ends before its own entries.
///
/// # Errors
/// The exchange cannot be reached, refuses a page, or answers with something else; what is written then is a part only.
pub async fn pages(
    client: &Client,
    mut query: Value,
    out: &mut impl Write,
) -> anyhow::Result<(usize, usize)> {
    let members = query.as_object_mut().ok_or_else(|| Exit::usage("a query is a JSON object"))?;
    if !members.contains_key("to") {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        members.insert("to".to_owned(), schemas::date::rfc3339(u64::try_from(now)?).into());
    }
    let (mut pages, mut entries) = (0usize, 0usize);
    loop {
        let asked = client.call::<Page>(Route::LogQuery, &query).with_proof().await;
        let page = asked.map_err(calling::ended)?;
        let answer = &page.exchanged.answer;
        anyhow::ensure!(!answer.contains(&b'\n'), "the answer is more than one line");
        out.write_all(answer)?;
        out.write_all(b"\n")?;
        pages = pages.saturating_add(1);
        entries = entries.saturating_add(page.entries.len());
        let Some(next) = page.next else { return Ok((pages, entries)) };
        anyhow::ensure!(next > page.from_index, "the next page does not go on");
        query["fromIndex"] = next.into();
    }
}
