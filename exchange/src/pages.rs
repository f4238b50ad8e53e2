//! Entries read back for those who may see them: a page of a holder's trace, a page of an auditor's query. Both only read
//! what is in the published checkpoint, so that everything on a page is proven by it.
//!
//! Reading blocks, and may take long: it happens in a lane of its own.

use std::sync::Arc;
use std::time::Duration;

use ledger::{HolderProof, Label, Ledger, OpenedEntry, Position, ReadError};
use schemas::codes::{Code, Rule};
use schemas::identifier::{CertificateIdentifier, Uscc};
use serde_json::Value;
use verifier::Hash;
use verifier::index::Terminal;
use verifier::leaf::{HolderLink, LeafKind, Open};
use verifier::receipt::Receipt;
use verifier::trace::{
    AuditEntry, AuditPage, Bytes, DelayedUses, Digest, IndexProof, Label as PageLabel, Place, Proven, Told,
    TraceEntry, TracePage, completeness, insider, reason_name,
};

use crate::cosign::{Cosigning, Served};
use crate::facts;
use crate::hold;
use crate::lane::Lane;
use crate::refusal::{Fault, Refusal};
use crate::request::LogQuery;

/// Most entries that one page of a query looks at.
const MAX_SCANNED: u64 = 10_000;
/// Most holders whose records one page shows: each view is an entry that concerns them all.
const MAX_SHOWN_HOLDERS: usize = ledger::record::MAX_LINKS;
/// Pause and longest wait for the public checkpoint, and its witnesses, to reach an index root that is in the log already.
const PUBLISHED_PAUSE: Duration = Duration::from_millis(50);
const PUBLISHED_LOOKS: usize = 80;

/// What a subject part says, as far as pages show it.
#[derive(Default)]
struct Subject {
    told: Option<Vec<u8>>,
    told_salt: Option<Vec<u8>>,
    user_name: Option<String>,
    detail: Option<String>,
}

impl Subject {
    fn read(plaintext: &[u8]) -> Option<Self> {
        let record = flatbuffers::root::<schemas::journal::SubjectRecord<'_>>(plaintext).ok()?;
        Some(Self {
            told: record.told().map(|bytes| bytes.bytes().to_vec()),
            told_salt: record.told_salt().map(|bytes| bytes.bytes().to_vec()),
            user_name: record.user_name().map(str::to_owned),
            detail: record.detail().map(str::to_owned),
        })
    }

    /// What a holder is told, with the salt for this holder alone.
    fn told(&self, label: &Label) -> Option<Told> {
        let (salt, document) = (self.told_salt.as_ref()?, self.told.clone()?);
        let salt = verifier::sha256(&[salt, label]);
        Some(Told { salt: Digest(salt), document: String::from_utf8(document).ok()? })
    }
}

fn fault(error: &ReadError) -> Refusal {
    if let ReadError::Missing(segment) = error {
        return facts::missing(*segment);
    }
    tracing::error!(%error, "a journaled entry cannot be read back");
    Refusal::new(Code::RecordUnavailable)
}

/// The inclusion path of a leaf in the published tree of a size.
fn path(ledger: &Ledger, index: u64, size: u64) -> Result<Vec<Hash>, Refusal> {
    let path = ledger.inclusion(index, size).map_err(|error| {
        tracing::error!(%error, "the tiles cannot be read");
        Refusal::new(Code::Internal)
    })?;
    path.ok_or_else(|| Refusal::new(Code::Internal))
}

/// The part that tells a holder of an entry; `None` when its key is gone.
fn subject_for(ledger: &Ledger, entry: &OpenedEntry, label: &Label) -> Result<Option<Subject>, Refusal> {
    match ledger.open_part_for(entry, label) {
        Ok(plaintext) => Ok(Some(Subject::read(&plaintext).ok_or_else(|| Refusal::new(Code::Internal))?)),
        Err(ReadError::KeyGone) => Ok(None),
        Err(error) => Err(fault(&error)),
    }
}

fn proven(ledger: &Ledger, entry: &OpenedEntry, size: u64) -> Result<Proven, Refusal> {
    let committed = &entry.committed;
    let receipt = Receipt {
        log: ledger.origin().to_owned(),
        index: committed.index,
        leaf_hash: committed.leaf_hash,
        open: committed.open.clone(),
        salt: committed.salt,
        c: committed.c,
        // The requester's alone.
        request_salt: None,
        proof: None,
    };
    let path = path(ledger, committed.index, size)?;
    Proven::new(&receipt, &path).ok_or_else(|| Refusal::new(Code::Internal))
}

fn digests(hashes: &[Hash]) -> Vec<Digest> {
    hashes.iter().copied().map(Digest).collect()
}

/// A page of a holder's trace, newest first, read in a lane for the caller. A holder without a label has an empty one.
pub async fn trace(
    lane: &Arc<Lane<Uscc>>,
    caller: Uscc,
    cosigning: &Cosigning,
    label: Option<Label>,
    before: Option<u64>,
    limit: usize,
    delay_days_max: u16,
) -> Result<TracePage, Refusal> {
    let ledger = cosigning.ledger().clone();
    let delayed = DelayedUses { uses: ledger.state().delayed_uses() as u64, days_max: delay_days_max };
    let mut proof = None;
    let mut served = cosigning.served();
    for _ in 0..PUBLISHED_LOOKS {
        proof = label.and_then(|label| ledger.holder_proof(&label));
        // The root first: the checkpoint read after it may be newer, never older.
        served = cosigning.served();
        if proof.as_ref().is_none_or(|proof| proof.root.index < served.size) {
            break;
        }
        tokio::time::sleep(PUBLISHED_PAUSE).await;
    }
    let proof = proof.filter(|proof| proof.root.index < served.size);
    let page = lane.run(caller, move || {
        hold::page();
        trace_page(&ledger, &served, proof, label, before, limit, delayed)
    });
    page.await.map_err(Refusal::new)?
}

fn trace_page(
    ledger: &Ledger,
    served: &Served,
    proof: Option<HolderProof>,
    label: Option<Label>,
    before: Option<u64>,
    limit: usize,
    delayed: DelayedUses,
) -> Result<TracePage, Refusal> {
    let size = served.size;
    let mut page = TracePage {
        log: ledger.origin().to_owned(),
        label: label.map(PageLabel),
        before,
        entries: Vec::new(),
        next: None,
        index_root: None,
        completeness: completeness(proof.as_ref().map_or(0, |proof| proof.root.size)),
        delayed,
        checkpoint: served.text.to_string(),
    };
    let Some(label) = label else { return Ok(page) };
    page.index_root = match proof {
        Some(proof) => {
            let path = path(ledger, proof.root.index, size)?;
            Some(IndexProof {
                statement: proof.root.statement,
                index: proof.root.index,
                path: digests(&path),
                count: proof.count,
                last_leaf: Digest(proof.last_leaf),
                siblings: digests(&proof.siblings),
                other: match proof.terminal {
                    Terminal::Other(key, value) => Some((Digest(key), Digest(value))),
                    Terminal::Found | Terminal::Nothing => None,
                },
            })
        }
        None => None,
    };
    let mut at = match before {
        None => {
            let head = ledger.state().holder_by_label(&label).map(|holder| holder.head);
            head.filter(|head| head.sequence > 0).map(|head| (head.frame, head.index))
        }
        Some(index) => {
            // An index that is none of this holder's is refused like one that does not exist.
            let refused = || Refusal::of(Code::MalformedRequest, Fault::at("/before", Rule::Unknown));
            if index >= size {
                return Err(refused());
            }
            let entry = ledger.entry(index).map_err(|error| fault(&error))?;
            previous(own_link(&entry, &label).filter(|_| !entry.delayed).ok_or_else(refused)?)
        }
    };
    while let Some((frame, index)) = at {
        if page.entries.len() == limit {
            page.next = page.entries.last().map(|entry| entry.entry.index);
            break;
        }
        let entry = ledger.entry_near(frame, index).map_err(|error| fault(&error))?;
        at = previous(own_link(&entry, &label).ok_or_else(|| Refusal::new(Code::Internal))?);
        // What is newer than the checkpoint has no proof yet; the next trace shows it.
        if index < size {
            page.entries.push(trace_entry(ledger, &entry, &label, size)?);
        }
    }
    Ok(page)
}

fn own_link<'a>(entry: &'a OpenedEntry, label: &Label) -> Option<&'a HolderLink> {
    entry.links.iter().find(|link| link.label == *label)
}

/// Where the entry before a link's stands; `None` for the first.
fn previous(link: &HolderLink) -> Option<(Position, u64)> {
    (link.sequence > 1).then_some((Position(link.previous_position), link.previous_index))
}

fn trace_entry(
    ledger: &Ledger,
    entry: &OpenedEntry,
    label: &Label,
    size: u64,
) -> Result<TraceEntry, Refusal> {
    let internal = || Refusal::new(Code::Internal);
    let link = own_link(entry, label).ok_or_else(internal)?;
    let r = insider(&entry.inner_salt, &entry.record_bytes, &entry.completion).ok_or_else(internal)?;
    let holders = entry.links.iter().zip(entry.link_digests());
    let place = if entry.delayed {
        Place::Hidden { hidden: Digest(HolderLink::hidden_place(&entry.inner_salt, &link.encode())) }
    } else {
        Place::Own {
            sequence: link.sequence,
            previous_position: link.previous_position,
            previous_index: link.previous_index,
            previous_leaf: Digest(link.previous_leaf),
        }
    };
    let told = if link.told == [0; 32] {
        None
    } else {
        subject_for(ledger, entry, label)?.and_then(|subject| subject.told(label))
    };
    let mut released = Vec::with_capacity(entry.record.released.len());
    for index in &entry.record.released {
        let delayed = ledger.entry(*index).map_err(|error| fault(&error))?;
        released.push(trace_entry(ledger, &delayed, label, size)?);
    }
    Ok(TraceEntry {
        entry: proven(ledger, entry, size)?,
        insider: Digest(r),
        holders: holders.map(|(link, digest)| (link.label != *label).then_some(Digest(digest))).collect(),
        told_digest: Digest(link.told),
        place,
        told,
        released,
    })
}

/// What a query asks, with keyed hashes in place of names.
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
pub async fn audit(
    lane: &Arc<Lane<Uscc>>,
    caller: Uscc,
    cosigning: &Cosigning,
    query: &LogQuery,
    holder: Option<Option<Label>>,
) -> Result<(AuditPage, Vec<Label>, u64), Refusal> {
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
            .map(|identifier| (facts::license_key(&ledger, identifier), identifier.clone())),
        holder,
    };
    let page = lane.run(caller, move || {
        hold::page();
        audit_page(&ledger, &served, &asked)
    });
    page.await.map_err(Refusal::new)?
}

fn audit_page(
    ledger: &Ledger,
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
        let opened = match matching(ledger, asked, entry) {
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
        // What concerns nobody is told to nobody.
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

fn matching(ledger: &Ledger, asked: &Asked, entry: OpenedEntry) -> Result<Option<Matching>, Refusal> {
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
        subjects.push(subject_for(ledger, &entry, &link.label)?);
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
