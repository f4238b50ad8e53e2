//! Judges the members of a group in order: whether what a command was decided on still holds, and its record fits.
//!
//! [`Pending`] lies over the shared state with what the group's earlier members change. The sequencer alone has it, and a
//! crash leaves nothing of it.

use crate::{
    commit::{member::Member, submission::Submission},
    hosted::check::in_force,
    journal::record::{CounterUse, NewKey, Record},
    names::{Key, KeyName, Label, Position, cst_year},
    state::{
        State,
        fact::{DocumentKind, Fact},
        label_version,
        rows::Head,
    },
};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::HashSet;

/// The sequencer's decision about a command.
pub(super) enum Judgement {
    /// Commit it; the values of its counters.
    Accept(Vec<u32>),
    Changed,
    Malformed(&'static str),
}

/// Judges a command that would get this index at this time, behind the group's earlier members.
pub(super) fn judge(
    state: &State,
    pending: &Pending,
    submission: &Submission,
    index: u64,
    time_ms: u64,
) -> Judgement {
    if time_ms > submission.ends_at_ms {
        return Judgement::Changed;
    }
    // A part is kept and destroyed with the year of its entry. A part that was sealed before midnight is sealed anew.
    if submission.admitted.year.is_some_and(|year| year != cst_year(time_ms)) {
        return Judgement::Changed;
    }
    if submission.admitted.intent.is_some_and(|intent| intent >= index) {
        return Judgement::Malformed("an outcome whose intent does not stand before it");
    }
    if submission.reads.iter().any(|(fact, version)| pending.version(state, fact) != *version) {
        return Judgement::Changed;
    }
    let record = submission.record();
    let mut counters: Vec<u32> = Vec::with_capacity(record.counters.len());
    for (at, counter) in record.counters.iter().enumerate() {
        let same = |(other, _): &(&CounterUse, &u32)| (other.key, other.day) == (counter.key, counter.day);
        let earlier = record.counters[..at].iter().zip(&counters).rev().find(same);
        let value = earlier.map_or_else(|| pending.counter(state, counter), |(_, value)| *value);
        match value.checked_add(counter.amount).filter(|raised| *raised <= counter.limit) {
            Some(raised) => counters.push(raised),
            None => return Judgement::Changed,
        }
    }
    match fits(record, state, pending, time_ms) {
        Ok(()) => Judgement::Accept(counters),
        Err(judgement) => judgement,
    }
}

/// Whether a record fits the state: every version is the next one, every holder it names is known.
///
/// The facts read should say as much; this makes it certain that one of two commands that create or change the
/// same thing wins, whatever its caller forgot to name. A record concerns living holders only, and brings none whose
/// key is wrapped for an epoch that has ended: what was prepared before is decided again.
fn fits(record: &Record, state: &State, pending: &Pending, time_ms: u64) -> Result<(), Judgement> {
    let next = |fact: Fact, version: u32| pending.version(state, &fact).checked_add(1) == Some(version);
    let licenses = record.licenses.iter().all(|license| next(Fact::License(license.key), license.version));
    let grants =
        record.grants.iter().all(|grant| next(Fact::Grant(state.grant_id(&grant.key)), grant.version));
    let mut documents = true;
    for document in &record.documents {
        let kind = DocumentKind::from_number(document.kind)
            .ok_or(Judgement::Malformed("an unknown document kind"))?;
        documents &= next(Fact::Document(kind, document.key), document.version);
    }
    let epoch = pending.epoch.unwrap_or_else(|| state.epoch());
    let destroyed = pending.destroyed.unwrap_or_else(|| state.epoch_destroyed());
    let holders = record
        .new_holders
        .iter()
        .all(|holder| holder.epoch == epoch && pending.version(state, &Fact::Holder(holder.key)) == 0);
    let year = cst_year(time_ms);
    let keys = record.new_holders.iter().all(|holder| holder.year == year)
        && record.new_keys.iter().all(|NewKey { name, epoch: of, .. }| {
            let exists = (state.has_key(name) && !pending.destroyed_keys.contains(name))
                || pending.born.contains(name)
                || record.new_holders.iter().any(|holder| holder.name() == *name);
            name.year == year && *of == epoch && !exists
        })
        && record.destroyed.iter().all(|name| {
            let gone = pending.destroyed_keys.contains(name) || pending.erased.contains(&name.label);
            state.has_key(name) && !gone
        });
    if record.destroyed.iter().any(|name| name.year >= year) {
        return Err(Judgement::Malformed("the destruction of a key whose year is not over"));
    }
    // Rows lie under the key of the year they came in, for as long as their segment is in force.
    let seals_rows = |name: &KeyName| {
        let segments = state.documents_of(DocumentKind::RowSegment, &name.label, None, usize::MAX);
        segments.iter().any(|(_, document)| in_force(document).is_some_and(|segment| segment.key == *name))
    };
    if record.destroyed.iter().any(seals_rows) {
        return Err(Judgement::Malformed("the destruction of a key that rows lie under"));
    }
    let is_new = |label: &Label| record.new_holders.iter().any(|holder| holder.label == *label);
    let (mut living, mut all_known) = (true, true);
    let keyed = record.new_keys.iter().map(|new| &new.name.label);
    for label in record.concerned.iter().chain(&record.erased).chain(keyed) {
        let erased = state.erased(label);
        living &= erased != Some(true) && !pending.erased.contains(label);
        all_known &= erased.is_some() || is_new(label) || pending.heads.contains_key(label);
    }
    // One epoch at a time: the next begins when the key of the one before the present is destroyed.
    let epochs = (record.epoch_begun == 0 || (record.epoch_begun == epoch + 1 && destroyed + 1 == epoch))
        && (record.epoch_destroyed == 0
            || (record.epoch_destroyed == destroyed + 1 && record.epoch_destroyed < epoch));
    let unbound =
        record.idempotency.is_none_or(|bound| pending.version(state, &Fact::Idempotency(bound.key)) == 0);
    if !(licenses && grants && documents && holders && keys && unbound && living && epochs) {
        return Err(Judgement::Changed);
    }
    for index in &record.released {
        let Some(delayed) = state.delayed(*index).filter(|_| !pending.released.contains(index)) else {
            return Err(Judgement::Changed);
        };
        if delayed.release_ms > time_ms || delayed.holders != record.concerned {
            return Err(Judgement::Malformed("a release that is too early or tells somebody else"));
        }
    }
    let known =
        |label: &Label| is_new(label) || pending.heads.contains_key(label) || state.knows_label(label);
    if record
        .new_holders
        .iter()
        .any(|holder| pending.heads.contains_key(&holder.label) || state.knows_label(&holder.label))
    {
        return Err(Judgement::Malformed("a label that is taken"));
    }
    let of_licenses = record.licenses.iter().flat_map(|license| &license.holders);
    let of_grants = record.grants.iter().map(|grant| &grant.holder);
    if !all_known || !of_licenses.chain(of_grants).all(known) {
        return Err(Judgement::Malformed("an unknown holder"));
    }
    Ok(())
}

/// Changes of the group's earlier members, before the shared state has them.
#[derive(Default)]
pub(super) struct Pending {
    versions: FxHashMap<Fact, u32>,
    heads: FxHashMap<Label, Head>,
    oversight: FxHashMap<Label, Head>,
    released: HashSet<u64>,
    counters: FxHashMap<(Key, u32), u32>,
    /// Licenses that a holder gets.
    more_licenses: FxHashMap<Label, u32>,
    /// Holders whose keys are destroyed.
    erased: FxHashSet<Label>,
    /// Keys that are born, and keys that are destroyed while their holder stays.
    born: FxHashSet<KeyName>,
    destroyed_keys: FxHashSet<KeyName>,
    /// Epochs that begin and end.
    epoch: Option<u32>,
    destroyed: Option<u32>,
}

impl Pending {
    pub(super) fn clear(&mut self) {
        self.versions.clear();
        self.heads.clear();
        self.oversight.clear();
        self.released.clear();
        self.counters.clear();
        self.more_licenses.clear();
        self.erased.clear();
        self.born.clear();
        self.destroyed_keys.clear();
        (self.epoch, self.destroyed) = (None, None);
    }

    fn version(&self, state: &State, fact: &Fact) -> u32 {
        if let Fact::Licenses(label) = fact {
            return state.version(fact) + self.more_licenses.get(label).copied().unwrap_or_default();
        }
        self.versions.get(fact).copied().unwrap_or_else(|| state.version(fact))
    }

    /// The latest entry of a holder's own sequence, or of the oversight sequence.
    pub(super) fn head(&self, state: &State, delayed: bool, label: &Label) -> Option<Head> {
        if delayed {
            self.oversight.get(label).copied().or_else(|| state.oversight_head(label))
        } else {
            self.heads.get(label).copied().or_else(|| state.head(label))
        }
    }

    fn counter(&self, state: &State, counter: &CounterUse) -> u32 {
        let key = (counter.key, counter.day);
        self.counters.get(&key).copied().unwrap_or_else(|| state.counter(&counter.key, counter.day))
    }

    /// Takes in what an accepted member changes.
    pub(super) fn note(&mut self, state: &State, member: &Member, index: u64, frame: Position) {
        let record = member.record();
        for license in &record.licenses {
            self.versions.insert(Fact::License(license.key), license.version);
            if license.version == 1 {
                for label in &license.holders {
                    *self.more_licenses.entry(*label).or_default() += 1;
                }
            }
        }
        for grant in &record.grants {
            self.versions.insert(Fact::Grant(state.grant_id(&grant.key)), grant.version);
        }
        for document in &record.documents {
            if let Some(kind) = DocumentKind::from_number(document.kind) {
                self.versions.insert(Fact::Document(kind, document.key), document.version);
            }
        }
        for holder in &record.new_holders {
            self.versions.insert(Fact::Holder(holder.key), label_version(&holder.label));
            self.heads.insert(holder.label, Head::default());
        }
        self.erased.extend(&record.erased);
        self.born.extend(record.new_keys.iter().map(|new| new.name));
        self.destroyed_keys.extend(&record.destroyed);
        if record.epoch_begun != 0 {
            self.epoch = Some(record.epoch_begun);
            self.versions.insert(Fact::Epoch, record.epoch_begun);
        }
        if record.epoch_destroyed != 0 {
            self.destroyed = Some(record.epoch_destroyed);
        }
        if let Some(bound) = record.idempotency {
            self.versions.insert(Fact::Idempotency(bound.key), 1);
        }
        for (label, link) in record.concerned.iter().zip(&member.completion.links) {
            let head = Head { sequence: link.sequence, frame, index, leaf_hash: member.leaf_hash };
            if member.completion.delayed {
                self.oversight.insert(*label, head);
            } else {
                self.heads.insert(*label, head);
            }
        }
        self.released.extend(&record.released);
        for (counter, value) in record.counters.iter().zip(&member.completion.counters) {
            self.counters.insert((counter.key, counter.day), *value);
        }
    }
}
