//! A page of a holder's trace, newest first.
//!
//! `trace/mod.rs` alone calls it, in a lane. It reads, so a crash leaves nothing.

use std::time::Duration;

use ledger::{HolderProof, Label, Ledger, OpenedEntry, Position};
use schemas::codes::{Code, Rule};
use verifier::index::Terminal;
use verifier::leaf::HolderLink;
use verifier::trace::{
    DelayedUses, Digest, IndexProof, Label as PageLabel, Place, TraceEntry, TracePage, completeness, insider,
};

use crate::capability::entries::{digests, fault, own_link, path, proven, subject_for};
use crate::cosign::Served;
use crate::gateway::change::Change;
use crate::gateway::permit::Disclosure;
use crate::hold;
use crate::wire::refusal::{Fault, Refusal};

/// Pause and longest wait for the public checkpoint, and its witnesses, to reach an index root that is in the log already.
const PUBLISHED_PAUSE: Duration = Duration::from_millis(50);
const PUBLISHED_LOOKS: usize = 80;

/// Which part of a trace a page shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// It begins behind the entry of this index.
    pub(super) before: Option<u64>,
    /// Most entries.
    pub(super) limit: usize,
}

/// A page of a holder's trace, newest first, read in a lane for the caller. A holder without a label has an empty one.
pub(super) async fn page(
    change: &Change<'_>,
    right: Disclosure,
    label: Option<Label>,
    part: Part,
    delay_days_max: u16,
) -> Result<TracePage, Refusal> {
    let cosigning = change.tools().cosigning;
    let (lane, caller) = (&change.tools().lanes.pages, *change.entry().organisation);
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
        trace_page(&ledger, right, &served, proof, label, part, delayed)
    });
    page.await.map_err(Refusal::new)?
}

fn trace_page(
    ledger: &Ledger,
    right: Disclosure,
    served: &Served,
    proof: Option<HolderProof>,
    label: Option<Label>,
    part: Part,
    delayed: DelayedUses,
) -> Result<TracePage, Refusal> {
    let (size, Part { before, limit }) = (served.size, part);
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
        // An entry newer than the checkpoint has no proof yet; the next trace shows it.
        if index < size {
            page.entries.push(trace_entry(ledger, right, &entry, &label, size)?);
        }
    }
    Ok(page)
}

/// Where the entry before a link's stands; `None` for the first.
fn previous(link: &HolderLink) -> Option<(Position, u64)> {
    (link.sequence > 1).then_some((Position(link.previous_position), link.previous_index))
}

fn trace_entry(
    ledger: &Ledger,
    right: Disclosure,
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
            previous_chain: link.previous_chain,
            previous_position: link.previous_position,
            previous_index: link.previous_index,
            previous_leaf: Digest(link.previous_leaf),
        }
    };
    let subject = if link.told == [0; 32] { None } else { subject_for(ledger, right, entry, label)? };
    let field_salt = subject.as_ref().and_then(|subject| subject.field_salt.as_deref()?.try_into().ok());
    let told = subject.and_then(|subject| subject.told(label));
    let mut released = Vec::with_capacity(entry.record.released.len());
    // Only the text says which uses they are.
    for index in entry.record.released.iter().filter(|_| told.is_some()) {
        let delayed = ledger.entry(*index).map_err(|error| fault(&error))?;
        released.push(trace_entry(ledger, right, &delayed, label, size)?);
    }
    Ok(TraceEntry {
        entry: proven(ledger, entry, size)?,
        insider: Digest(r),
        holders: holders.map(|(link, digest)| (link.label != *label).then_some(Digest(digest))).collect(),
        told_digest: Digest(link.told),
        place,
        told,
        field_salt: field_salt.map(Digest),
        released,
    })
}
