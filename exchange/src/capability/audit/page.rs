//! A page of an auditor's query, oldest first.
//!
//! `audit/mod.rs` alone calls it, in a lane. It reads, so a crash leaves nothing.

use ledger::{Label, Ledger, OpenedEntry};
use schemas::codes::Code;
use schemas::identifier::CertificateIdentifier;
use serde_json::Value;
use verifier::leaf::{LeafKind, Open};
use verifier::trace::{AuditEntry, AuditPage, Bytes, Digest, Label as PageLabel, reason_name};

use super::asked::Asked as Question;
use crate::capability::entries::{Subject, fault, own_link, proven, subject_for};
use crate::cosign::Served;
use crate::gateway::change::Change;
use crate::gateway::permit::Disclosure;
use crate::hold;
use crate::keyed;
use crate::wire::refusal::Refusal;

/// Most entries that one page of a query looks at.
const MAX_SCANNED: u64 = 10_000;
/// Most holders whose records one page shows: each view is an entry that concerns them all.
const MAX_SHOWN_HOLDERS: usize = ledger::record::MAX_LINKS;

/// A query with keyed hashes in place of names.
struct Asked {
    query: Filters,
    license: Option<(ledger::Key, CertificateIdentifier)>,
    /// The label of the holder asked for; `None` for one that the log does not know.
    holder: Option<Option<Label>>,
}

/// The filters that need no look into a subject part, and the case number.
struct Filters {
    from_ms: u64,
    to_ms: u64,
    organisation: Option<[u8; 18]>,
    code: Option<u16>,
    business_code: Option<String>,
    from_index: u64,
    limit: usize,
}

/// A page of an auditor's query, oldest first, read in a lane for the caller, with the labels of the holders whose records it shows, and until when the
/// view is kept from them (ms since 1970; 0 = not at all): as long as the delayed uses that it shows. A page shows no two
/// entries that are told at different times, so no view tells of a use before its time, and none is told later than it.
pub(super) async fn page(
    change: &Change<'_>,
    right: Disclosure,
    query: &Question,
    holder: Option<Option<Label>>,
) -> Result<(AuditPage, Vec<Label>, u64), Refusal> {
    let cosigning = change.tools().cosigning;
    let (lane, caller) = (&change.tools().lanes.pages, *change.entry().organisation);
    let (ledger, served) = (cosigning.ledger().clone(), cosigning.served());
    let asked = Asked {
        query: Filters {
            from_ms: query.from_ms.unwrap_or(0),
            to_ms: query.to_ms.unwrap_or(u64::MAX),
            organisation: query.organisation.map(|organisation| *organisation.as_bytes()),
            code: query.code.map(Code::number),
            business_code: query.business_code.clone(),
            from_index: query.from_index,
            limit: query.limit,
        },
        license: query
            .license
            .as_ref()
            .map(|identifier| (keyed::license_key(ledger.keyed(), identifier), identifier.clone())),
        holder,
    };
    let page = lane.run(caller, move || {
        hold::page();
        audit_page(&ledger, right, &served, &asked)
    });
    page.await.map_err(Refusal::new)?
}

fn audit_page(
    ledger: &Ledger,
    right: Disclosure,
    served: &Served,
    asked: &Asked,
) -> Result<(AuditPage, Vec<Label>, u64), Refusal> {
    let size = served.size;
    let from_index = asked.query.from_index.min(size);
    // Nothing before the first moment asked for matches: it is passed over unread, and the page covers it all the same.
    let first = ledger.first_at(asked.query.from_ms).map_err(|error| fault(&error))?;
    let first = first.clamp(from_index, size);
    let until = first.saturating_add(MAX_SCANNED).min(size);
    let mut page = AuditPage {
        log: ledger.origin().to_owned(),
        from_index,
        to_index: until,
        next: None,
        entries: Vec::new(),
        checkpoint: served.text.to_string(),
    };
    let mut shown: Vec<Label> = Vec::new();
    // When holders may be told of the entries shown so far.
    let mut release_ms = None;
    let mut failed = None;
    let mut past = false;
    let read = ledger.visit_entries(first, until, |entry| {
        let index = entry.committed.index;
        if entry.committed.time_ms > asked.query.to_ms {
            // Journal time never decreases: nothing further on matches.
            (past, page.to_index) = (true, index);
            return false;
        }
        let opened = match matching(ledger, right, asked, entry) {
            Ok(Some(opened)) => opened,
            Ok(None) => return true,
            Err(refusal) => {
                failed = Some(refusal);
                return false;
            }
        };
        let labels = opened.entry.links.iter().map(|link| link.label);
        let more: Vec<Label> = labels.filter(|label| !shown.contains(label)).collect();
        let told_ms = ledger.state().delayed(index).map_or(0, |delayed| delayed.release_ms);
        // An entry that concerns nobody is told to nobody.
        let told_ms = (!opened.entry.links.is_empty()).then_some(told_ms);
        if shown.len() + more.len() > MAX_SHOWN_HOLDERS
            || release_ms.is_some_and(|release_ms| told_ms.is_some_and(|told_ms| told_ms != release_ms))
        {
            page.to_index = index;
            return false;
        }
        release_ms = release_ms.or(told_ms);
        shown.extend(more);
        match audit_entry(ledger, &opened, size) {
            Ok(entry) => page.entries.push(entry),
            Err(refusal) => {
                failed = Some(refusal);
                return false;
            }
        }
        if page.entries.len() == asked.query.limit {
            page.to_index = index + 1;
            return false;
        }
        true
    });
    if let Some(refusal) = failed {
        return Err(refusal);
    }
    read.map_err(|error| fault(&error))?;
    page.next = (!past && page.to_index < size).then_some(page.to_index);
    Ok((page, shown, release_ms.unwrap_or(0)))
}

/// An entry that matches, with what its subject parts say: one for each holder concerned, or one for nobody.
struct Matching {
    entry: OpenedEntry,
    subjects: Vec<Option<Subject>>,
}

fn matching(
    ledger: &Ledger,
    right: Disclosure,
    asked: &Asked,
    entry: OpenedEntry,
) -> Result<Option<Matching>, Refusal> {
    if entry.kind != LeafKind::Entry {
        return Ok(None);
    }
    let open = Open::parse(&entry.committed.open).map_err(|_| Refusal::new(Code::Internal))?;
    let query = &asked.query;
    let fits = (query.from_ms..=query.to_ms).contains(&open.time_ms)
        && query.organisation.is_none_or(|organisation| organisation == open.organisation)
        && query.code.is_none_or(|code| code == open.code)
        && asked.holder.is_none_or(|label| label.is_some_and(|label| own_link(&entry, &label).is_some()));
    if !fits {
        return Ok(None);
    }
    let mut subjects = Vec::new();
    for link in &entry.links {
        subjects.push(subject_for(ledger, right, &entry, &link.label)?);
    }
    if let ([], Some(part)) = (entry.links.as_slice(), entry.parts.first()) {
        let plaintext = ledger.open_subject(*part).map_err(|error| fault(&error))?;
        subjects.push(Subject::read(&plaintext));
    }
    let documents: Vec<Value> = subjects
        .iter()
        .flatten()
        .filter_map(|subject| serde_json::from_slice(subject.told.as_deref()?).ok())
        .collect();
    let of_case = query.business_code.as_deref().is_none_or(|wanted| {
        documents.iter().any(|document| document["use"]["businessCode"].as_str() == Some(wanted))
    });
    let of_license = asked.license.as_ref().is_none_or(|(key, identifier)| {
        let changed = entry.record.licenses.iter().any(|license| license.key == *key);
        let named = |document: &Value| {
            let listed = document["licenses"].as_array().into_iter().flatten();
            listed.filter_map(Value::as_str).any(|text| is_same_license(text, identifier))
        };
        changed || documents.iter().any(named)
    });
    Ok((of_case && of_license).then_some(Matching { entry, subjects }))
}

/// Whether an identifier is a version of the same license.
fn is_same_license(text: &str, wanted: &CertificateIdentifier) -> bool {
    text.parse::<CertificateIdentifier>().is_ok_and(|found| {
        found.type_code() == wanted.type_code()
            && found.issuer() == wanted.issuer()
            && found.serial() == wanted.serial()
    })
}

fn audit_entry(ledger: &Ledger, opened: &Matching, size: u64) -> Result<AuditEntry, Refusal> {
    let Matching { entry, subjects } = opened;
    let told = entry.links.iter().zip(subjects).map(|(link, subject)| {
        subject.as_ref().filter(|_| link.told != [0; 32]).and_then(|subject| subject.told(&link.label))
    });
    let first = subjects.iter().flatten().next();
    let unclaimed = first.filter(|_| entry.links.is_empty()).and_then(|subject| subject.told.clone());
    Ok(AuditEntry {
        entry: proven(ledger, entry, size)?,
        inner_salt: Digest(entry.inner_salt),
        record: Bytes(entry.record_bytes.clone()),
        completion: Bytes(entry.completion.clone()),
        reason: reason_name(entry.record.reason),
        concerned: entry.links.iter().map(|link| PageLabel(link.label)).collect(),
        told: told.collect(),
        asked: unclaimed.and_then(|document| String::from_utf8(document).ok()),
        user_name: first.and_then(|subject| subject.user_name.clone()),
        detail: first.and_then(|subject| subject.detail.clone()),
    })
}
