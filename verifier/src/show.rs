//! The printed output: the first line, the report, and the content when it is asked for.
//!
//! The command line alone calls it. Nothing is kept.

use crate::Finding;
use serde_json::{Value, json};
use verifier::{
    license::{OpenedEnvelope, read_body},
    report::{Report, Verdict, seconds},
};

/// The first line: what the verdict is about, and what it is not. `kind` is what was checked, `answer` the answer that a
/// receipt was found to be for.
pub(crate) fn headline(report: &Report, kind: &str, answer: Option<&Value>) -> String {
    let codes = || {
        let codes: Vec<_> = report.reasons.iter().map(|finding| finding.code()).collect();
        codes.join(", ")
    };
    match report.verdict {
        Verdict::Invalid => format!("invalid: {}", codes()),
        Verdict::Unknown => format!("cannot tell: {}", codes()),
        Verdict::Valid if let Some(batch) = &report.batch => {
            let undecided = match batch.undecided {
                0 => String::new(),
                undecided => format!("; {undecided} NOT decided"),
            };
            format!(
                "report genuine: {} answers, {} permitted, {} REFUSED{undecided}; the licenses were then {} valid, {} INVALID, {} unknown",
                batch.lines, batch.permitted, batch.refused, batch.valid, batch.invalid, batch.unknown
            )
        }
        Verdict::Valid => match (kind, &report.receipt, &report.pages, &report.log) {
            ("license", ..) => "signature genuine; state today NOT checked".to_owned(),
            ("receipt", Some(receipt), ..) => {
                let decided = match (receipt.decision.as_str(), receipt.code.as_str()) {
                    ("denial", code) => format!("the request was REFUSED ({code})"),
                    ("permit", _) => "the request was permitted".to_owned(),
                    _ => "an entry of the exchange itself".to_owned(),
                };
                let verdict = answer.and_then(|answer| answer.get("verdict")?.as_str());
                let verdict = verdict.map(|verdict| format!("; the license was then {}", plain(verdict)));
                format!("receipt genuine: {decided}{}", verdict.unwrap_or_default())
            }
            (_, _, Some(pages), _) => {
                let whole = pages.completeness.as_ref().map(|whole| format!(", {whole}")).unwrap_or_default();
                format!("{kind} genuine: {} entries{whole}", pages.entries)
            }
            (_, _, _, Some(log)) => format!("log genuine: {} entries make its checkpoint", log.size),
            _ => format!("{kind}: both receipts show the same holder"),
        },
    }
}

/// The line of one item of many.
pub(crate) fn line(item: &str, finding: &Finding) -> String {
    let mut text = format!("{}: {}\n", plain(item), plain(&finding.says));
    for note in &finding.notes {
        text.push_str(&format!("  note         {}\n", plain(note)));
    }
    text + &content(finding)
}

fn content(finding: &Finding) -> String {
    let Some(content) = &finding.content else { return String::new() };
    let json = serde_json::to_string_pretty(content).unwrap_or_default();
    json.lines().map(|line| format!("  {}\n", plain(line))).collect()
}

/// The content of a license.
pub(crate) fn license(envelope: &[u8]) -> Option<Value> {
    let content = read_body(OpenedEnvelope::open(envelope).ok()?.body()).ok()?;
    let holder = |holder: &verifier::license::BodyHolder| json!({"name": holder.name, "typeCode": holder.type_code, "number": holder.number, "asRegistered": holder.as_registered});
    let field = |(key, value): &(String, String)| (key.clone(), value.clone().into());
    Some(json!({
        "identifier": content.identifier.to_string(),
        "certificateNumber": content.certificate_number,
        "issuerName": content.issuer_name,
        "holders": content.holders.iter().map(holder).collect::<Vec<_>>(),
        "issueDate": content.issue_date.to_string(),
        "validFrom": content.valid_from.to_string(),
        "validUntil": content.valid_until.map(|date| date.to_string()),
        "fields": content.fields.iter().map(field).collect::<serde_json::Map<_, _>>(),
    }))
}

/// The time, the caller, the deed and what the holder is told, for each entry of the pages.
pub(crate) fn pages(file: &[u8]) -> Value {
    let entry = |shown: &Value| {
        let mut said = serde_json::Map::new();
        for name in ["index", "time", "organisation", "route", "decision", "code"] {
            said.insert(name.to_owned(), shown["entry"][name].clone());
        }
        said.insert("told".to_owned(), told(&shown["told"]));
        Value::Object(said)
    };
    let lines =
        file.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    lines
        .flat_map(|page| page["entries"].as_array().into_iter().flatten().map(entry).collect::<Vec<_>>())
        .collect()
}

/// The answers of a report, without their receipts.
pub(crate) fn answers(file: &[u8]) -> Value {
    let answer = |line: &[u8]| match verifier::receipt::cut(line) {
        Ok((answer, _)) => serde_json::from_slice::<Value>(&answer).ok(),
        Err(_) => None,
    };
    verifier::batch::lines(file).filter_map(answer).collect()
}

/// The text that holders are told, out of the one that is hashed.
fn told(shown: &Value) -> Value {
    match shown {
        Value::Array(each) => each.iter().map(told).collect(),
        Value::Object(_) => {
            shown["document"].as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
        }
        _ => Value::Null,
    }
}

/// The report of one item.
pub(crate) fn text(finding: &Finding) -> String {
    let report = &finding.report;
    let mut text = format!("{}\n", plain(&finding.says));
    for note in &finding.notes {
        text.push_str(&format!("  note         {}\n", plain(note)));
    }
    for finding in &report.reasons {
        text.push_str(&format!("  reason       {}: {}\n", finding.code(), plain(&finding.detail)));
    }
    if let Some(license) = &report.license {
        let until = license.valid_until.map_or_else(|| "without end".to_owned(), |date| date.to_string());
        text.push_str(&format!("  license      {}\n", license.identifier));
        text.push_str(&format!("  issuer       {}\n", plain(&license.issuer_name)));
        text.push_str(&format!("  days         {} to {until}\n", license.valid_from));
        if license.as_registered {
            text.push_str("  number       as registered: its check character is wrong\n");
        }
        text.push_str(&format!("  signed       {}\n", seconds(license.signed_at)));
    }
    if let Some(receipt) = &report.receipt {
        text.push_str(&format!("  entry        {} of {}\n", receipt.index, plain(&receipt.log)));
        text.push_str(&format!("  time         {}\n", receipt.time));
        text.push_str(&format!("  organisation {}\n", plain(&receipt.organisation)));
        text.push_str(&format!("  decision     {} {} {}\n", receipt.route, receipt.decision, receipt.code));
        if !receipt.acting_for.is_empty() {
            let chain: Vec<String> = receipt.acting_for.iter().map(|one| plain(one).to_string()).collect();
            text.push_str(&format!("  acting for   {}\n", chain.join(", for ")));
        }
        if receipt.is_intent {
            text.push_str("  stage        intent\n");
        }
        if let Some(intent) = receipt.intent {
            text.push_str(&format!("  stage        outcome of entry {intent}\n"));
        }
        if let Some(size) = receipt.checkpoint_size {
            text.push_str(&format!("  checkpoint   size {size}\n"));
        }
        if let Some(witnesses) = receipt.witnesses {
            text.push_str(&format!("  witnesses    {} of {}\n", witnesses.cosigned, witnesses.of));
        }
    }
    if let Some(pages) = &report.pages {
        text.push_str(&format!("  entries      {} of {}\n", pages.entries, plain(&pages.log)));
        if let Some(completeness) = &pages.completeness {
            text.push_str(&format!("  trace        {completeness}\n"));
        }
        if pages.destroyed > 0 {
            let count = pages.destroyed;
            text.push_str(&format!(
                "  destroyed    what {count} entries told, past its period, as later entries tell\n"
            ));
        }
        if let Some(delayed) = pages.delayed {
            let (uses, days) = (delayed.uses, delayed.days_max);
            let told = "as the exchange says, of all holders";
            text.push_str(&format!(
                "  delayed      {uses} uses now, {told}; each is told within {days} days\n"
            ));
        }
        if let Some(witnesses) = pages.witnesses {
            text.push_str(&format!("  witnesses    {} of {}\n", witnesses.cosigned, witnesses.of));
        }
    }
    if let Some(log) = &report.log {
        text.push_str(&format!("  log          {}, size {}\n", plain(&log.origin), log.size));
        if let Some(witnesses) = log.witnesses {
            text.push_str(&format!("  witnesses    {} of {}\n", witnesses.cosigned, witnesses.of));
        }
    }
    if let Some(batch) = &report.batch {
        text.push_str(&format!("  answers      {} of {}\n", batch.lines, plain(&batch.log)));
        if !batch.organisation.is_empty() {
            text.push_str(&format!("  organisation {}\n", plain(&batch.organisation)));
            text.push_str(&format!("  ended        {}\n", batch.time));
        }
        if !batch.answered_from.is_empty() {
            let (from, to) = (&batch.answered_from, &batch.answered_to);
            text.push_str(&format!("  answered     from {from} to {to}\n"));
        }
        if let Some(size) = batch.checkpoint_size {
            text.push_str(&format!("  checkpoint   size {size}\n"));
        }
        if let Some(witnesses) = batch.witnesses {
            text.push_str(&format!("  witnesses    {} of {}\n", witnesses.cosigned, witnesses.of));
        }
    }
    if let Some(trust) = &report.trust {
        text.push_str(&format!(
            "  trust        sequence {}, made {}, ends {}\n",
            trust.sequence,
            seconds(trust.issued_at),
            seconds(trust.expires)
        ));
    }
    text.push_str(&format!("  at           {}\n", seconds(report.at)));
    text.push_str(&format!("  checked      {}\n", list(&report.checked)));
    text.push_str(&format!("  not checked  {}\n", list(&report.not_checked)));
    text + &content(finding)
}

/// Text out of a file that nobody vouches for: control characters could forge lines or move the cursor.
fn plain(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
