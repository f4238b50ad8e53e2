//! The hot state in memory: everything a decision is made on, rebuilt from the journal by one function.
//!
//! Written by the sequencer thread alone (and by recovery before it starts), read by anyone; reads copy out. The
//! state holds durable entries only: the sequencer applies a group after its `fdatasync` and before it releases
//! the group's answers, so no reader sees what could still be lost, and every caller sees its own writes.
//!
//! It is memory: a crash leaves nothing of it, and the next start makes it again.

pub(crate) mod bindings;
pub(crate) mod fact;
pub(crate) mod keys;
pub(crate) mod license;
pub(crate) mod rows;
pub(crate) mod slot;
pub(crate) mod table;
#[cfg(test)]
mod tests;

use crate::{
    journal::{
        cursor::Cursor,
        record::{Completion, LicenseState, NO_BODY_PART, Record},
    },
    keys::{
        crypt::{Crypt, HolderKey},
        secrets::FIRST_EPOCH,
    },
    names::{Hash, Key, KeyName, Label, Position},
    state::{
        bindings::Bindings,
        fact::{DocumentKind, Fact},
        keys::{KeyCell, Keys},
        license::{Issuers, License, LicenseCell, Parties, TAKEN_OVER, WRITTEN_BY_04, stands},
        rows::{Bound, Counter, Delayed, Document, Grant, Head},
        slot::{Digest, Kind, Slot, take},
        table::{AnyTable, Map, Owner, Table, gathered, map, organisation},
    },
};
use std::{
    collections::BTreeSet,
    ops::Bound as RangeBound,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

/// A holder as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Fact version; 0 once erased.
    pub version: u32,
    /// Keyed hash of type code and number; zeros once erased.
    pub key: Key,
    /// The label.
    pub label: Label,
    /// All keys are destroyed, and nothing sealed under them can be read any more.
    pub erased: bool,
    /// Journal time (ms since 1970) at which a license last ended, or was written after its end; 0 before that.
    pub ended_ms: u64,
    /// The latest entry.
    pub head: Head,
}

/// A holder in memory.
struct HolderCell {
    key: Key,
    index: u32,
    erased: bool,
    /// None once erased.
    keys: Keys,
    ended_ms: u64,
    head: Head,
    licenses: Vec<Key>,
}

/// Bytes that the allocator takes for a key's box.
const BOX_BYTES: usize = 48;
const _: () = assert!(size_of::<HolderCell>() + size_of::<Label>() + BOX_BYTES <= 192);

/// The fact version of a living holder.
pub(crate) fn label_version(label: &Label) -> u32 {
    u32::from_be_bytes(*label.first_chunk().expect("a label has 16 bytes")) | 1
}

/// How much the state holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Licenses.
    pub licenses: usize,
    /// Grants.
    pub grants: usize,
    /// Holders.
    pub holders: usize,
    /// Documents.
    pub documents: usize,
    /// Live idempotency keys.
    pub idempotency: usize,
}

/// The input of [`State::apply`] beside the record: everything about the entry that the journal decides.
pub(crate) struct Applied<'a> {
    pub(crate) index: u64,
    pub(crate) time_ms: u64,
    pub(crate) organisation: [u8; 18],
    pub(crate) leaf_hash: Hash,
    pub(crate) frame: Position,
    /// Position of each subject part.
    pub(crate) parts: &'a [Position],
    pub(crate) record: &'a Record,
    pub(crate) completion: &'a Completion,
}

/// The state. See the module's page for who writes and who reads.
pub struct State {
    crypt: Arc<Crypt>,
    licenses: Map<Key, LicenseCell>,
    issuers: RwLock<Issuers>,
    /// Keys of licenses by the index of their issuer.
    issued: RwLock<BTreeSet<(u32, Key)>>,
    /// By id.
    grants: Table<Grant>,
    documents: Table<Document>,
    holders: Map<Label, HolderCell>,
    labels_by_key: Map<Key, Label>,
    /// Latest entry of each oversight sequence.
    oversight: Table<Head>,
    /// Delayed uses that are not released yet.
    delayed: Table<Delayed>,
    /// Holder index to label; only ever longer.
    labels: RwLock<Vec<Label>>,
    counters: Table<Counter>,
    bindings: Bindings,
    /// Entries that some values may know of: one more than `applied` while an entry is being applied.
    begun: AtomicU64,
    /// Entries applied: index of the latest + 1.
    applied: AtomicU64,
    time_ms: AtomicU64,
    /// The epoch whose key wraps the keys of new holders.
    epoch: AtomicU32,
    /// Journal time at which it began.
    epoch_since_ms: AtomicU64,
    /// The last epoch whose key was destroyed.
    destroyed: AtomicU32,
}

/// Where the values of a kind are. Kinds without a table have a form of their own: licenses share their holders and
/// issuers, holders their keys.
enum Place<'a> {
    Table(&'a dyn AnyTable),
    Holders,
    Licenses,
    Epochs,
    HolderKeys,
}

/// The ids behind the last one of the page before.
fn behind<T>(after: Option<T>) -> RangeBound<T> {
    after.map_or(RangeBound::Unbounded, RangeBound::Excluded)
}

/// The same among the documents of a kind.
fn behind_in(kind: u8, after: Option<&Key>) -> RangeBound<(u8, Key)> {
    after.map_or(RangeBound::Included((kind, [0; 16])), |after| RangeBound::Excluded((kind, *after)))
}

/// The slot of the epochs.
const EPOCH_SLOT: Slot = Slot::new(Kind::Epoch, [0; 16], 0);

impl State {
    pub(crate) fn new(crypt: Arc<Crypt>, idempotency_per_organisation: usize) -> Self {
        Self {
            crypt,
            licenses: map(),
            issuers: RwLock::default(),
            issued: RwLock::default(),
            grants: Table::new(),
            documents: Table::new(),
            holders: map(),
            labels_by_key: map(),
            oversight: Table::new(),
            delayed: Table::new(),
            labels: RwLock::default(),
            counters: Table::new(),
            bindings: Bindings::new(idempotency_per_organisation),
            begun: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            time_ms: AtomicU64::new(0),
            epoch: AtomicU32::new(FIRST_EPOCH),
            epoch_since_ms: AtomicU64::new(0),
            destroyed: AtomicU32::new(FIRST_EPOCH - 1),
        }
    }

    /// The tables, in the order in which the restart image has them.
    fn tables(&self) -> [&dyn AnyTable; 6] {
        let (bound, delayed) = (self.bindings.table(), &self.delayed);
        [&self.grants, &self.documents, &self.counters, bound, &self.oversight, delayed]
    }

    /// Where the values of a kind are.
    fn place(&self, kind: Kind) -> Place<'_> {
        match kind {
            Kind::Holder => Place::Holders,
            Kind::License => Place::Licenses,
            Kind::Grant => Place::Table(&self.grants),
            Kind::Document => Place::Table(&self.documents),
            Kind::Counter => Place::Table(&self.counters),
            Kind::Idempotency => Place::Table(self.bindings.table()),
            Kind::Oversight => Place::Table(&self.oversight),
            Kind::Delayed => Place::Table(&self.delayed),
            Kind::Epoch => Place::Epochs,
            Kind::HolderKey => Place::HolderKeys,
        }
    }

    /// A license by the keyed hash of type, issuer and serial.
    pub fn license(&self, key: &Key) -> Option<License> {
        let cell = self.licenses.get(key)?.value().clone();
        Some(self.opened(&cell))
    }

    /// A license of no number and no body, held by whoever came first: as much work as reading one that was found, for
    /// where there is none.
    pub fn no_license(&self) -> License {
        let cell = LicenseCell::none();
        self.opened(&cell)
    }

    fn opened(&self, cell: &LicenseCell) -> License {
        cell.opened(self.labels_of(&cell.parties))
    }

    /// The tag of a license's number, and the version of the license that has it.
    pub fn number_tag(&self, key: &Key) -> Option<(u64, u32)> {
        self.licenses.get(key).map(|license| (license.number_tag, license.version))
    }

    /// At most `count` keys of the licenses that an organisation has issued, ended ones too, ascending, behind `after`.
    pub fn issued(&self, issuer: &[u8; 18], after: Option<&Key>, count: usize) -> Vec<Key> {
        let issuers = self.issuers.read().unwrap_or_else(PoisonError::into_inner);
        let index = issuers.indexes.get(issuer).copied();
        drop(issuers);
        let Some(index) = index else { return Vec::new() };
        let from = after
            .map_or(RangeBound::Included((index, [0; 16])), |after| RangeBound::Excluded((index, *after)));
        let issued = self.issued.read().unwrap_or_else(PoisonError::into_inner);
        let own = issued.range((from, RangeBound::Included((index, [255; 16]))));
        own.take(count).map(|(_, key)| *key).collect()
    }

    /// A grant by its id.
    pub fn grant(&self, id: &Key) -> Option<Grant> {
        self.grants.get(id)
    }

    /// At most `count` ids of the grants that a holder made, ascending, behind `after`.
    pub fn grants_of(&self, holder: &Label, after: Option<&Key>, count: usize) -> Vec<Key> {
        self.grants.owned(holder, behind(after.copied()), count)
    }

    /// At most `count` ids of the grants that an organisation may use, ascending, behind `after`.
    pub fn grants_to(&self, grantee: &[u8; 18], after: Option<&Key>, count: usize) -> Vec<Key> {
        self.grants.owned(&organisation(grantee), behind(after.copied()), count)
    }

    /// The id of the grant with a key.
    pub fn grant_id(&self, key: &Key) -> Key {
        self.crypt.grant_id(key)
    }

    /// A document by kind and key.
    pub fn document(&self, kind: DocumentKind, key: &Key) -> Option<Document> {
        self.documents.get(&(kind.number(), *key))
    }

    /// At most `count` documents of a kind, ascending by key, behind `after`.
    pub fn documents_behind(
        &self,
        kind: DocumentKind,
        after: Option<&Key>,
        count: usize,
    ) -> Vec<(Key, Document)> {
        let number = kind.number();
        let ids = self.documents.listed(behind_in(number, after), count, |(kind, _)| *kind == number);
        self.found(ids)
    }

    /// All documents of a kind, ascending by key.
    pub fn documents(&self, kind: DocumentKind) -> Vec<(Key, Document)> {
        self.documents_behind(kind, None, usize::MAX)
    }

    /// At most `count` documents of a kind that an owner has, ascending by key, behind `after`.
    pub fn documents_of(
        &self,
        kind: DocumentKind,
        owner: &Owner,
        after: Option<&Key>,
        count: usize,
    ) -> Vec<(Key, Document)> {
        let mut ids = self.documents.owned(owner, behind_in(kind.number(), after), count);
        ids.retain(|(of, _)| *of == kind.number());
        self.found(ids)
    }

    /// Documents that are still there.
    fn found(&self, ids: Vec<(u8, Key)>) -> Vec<(Key, Document)> {
        ids.into_iter().filter_map(|id| Some((id.1, self.documents.get(&id)?))).collect()
    }

    /// A living holder by the keyed hash of type code and number.
    pub fn holder(&self, key: &Key) -> Option<Holder> {
        let label = *self.labels_by_key.get(key)?;
        self.holder_by_label(&label)
    }

    /// A holder by label, erased ones too.
    pub fn holder_by_label(&self, label: &Label) -> Option<Holder> {
        let cell = self.holders.get(label)?;
        Some(Holder {
            version: if cell.erased { 0 } else { label_version(label) },
            key: cell.key,
            label: *label,
            erased: cell.erased,
            ended_ms: cell.ended_ms,
            head: cell.head,
        })
    }

    /// Keys of the licenses that name a holder, in no particular order. Their number is [`Fact::Licenses`].
    pub fn licenses_of(&self, label: &Label) -> Vec<Key> {
        self.holders.get(label).map(|holder| holder.licenses.clone()).unwrap_or_default()
    }

    /// A holder's latest key; `None` when there is no such holder or it is erased. A key that seals a new part comes
    /// from [`crate::Ledger::sealing_key`], for the latest one may be of a year that is over.
    pub fn holder_key(&self, label: &Label) -> Option<HolderKey> {
        let cell = self.holders.get(label)?;
        let latest = cell.keys.all().last()?;
        latest.secret.as_ref().map(|secret| HolderKey::new(latest.name(label), secret))
    }

    /// One of a holder's keys; `None` when it was never born or is destroyed.
    pub fn part_key(&self, name: &KeyName) -> Option<HolderKey> {
        let cell = self.holders.get(&name.label)?;
        cell.keys.get(name)?.secret.as_ref().map(|secret| HolderKey::new(*name, secret))
    }

    /// The keys that a holder has, by year and class, with the epoch that each was born in; none once erased.
    pub fn key_names(&self, label: &Label) -> Vec<(KeyName, u32)> {
        let cell = self.holders.get(label);
        let keys = cell.iter().flat_map(|cell| cell.keys.all());
        keys.map(|key| (key.name(label), key.epoch)).collect()
    }

    /// The keys of a class, up to a year, that all holders have, in no particular order.
    pub fn keys_until(&self, class: u8, year: u16) -> Vec<KeyName> {
        let names = |cell: &HolderCell, label: &Label| -> Vec<KeyName> {
            let names = cell.keys.all().iter().map(|key| key.name(label));
            names.filter(|name| name.class == class && name.year <= year).collect()
        };
        self.holders.iter().flat_map(|cell| names(cell.value(), cell.key())).collect()
    }

    /// Whether a key exists.
    pub(crate) fn has_key(&self, name: &KeyName) -> bool {
        self.holders.get(&name.label).is_some_and(|cell| cell.keys.get(name).is_some())
    }

    /// Keys of all holders.
    pub(crate) fn key_count(&self) -> usize {
        self.holders.iter().map(|cell| cell.keys.all().len()).sum()
    }

    /// The epoch whose key wraps the keys of new holders.
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Journal time (ms since 1970) at which the epoch began; of the first entry for the first epoch, 0 before it.
    pub fn epoch_since_ms(&self) -> u64 {
        self.epoch_since_ms.load(Ordering::Acquire)
    }

    /// The last epoch whose key was destroyed; 0 before the first.
    pub fn epoch_destroyed(&self) -> u32 {
        self.destroyed.load(Ordering::Acquire)
    }

    /// Whether an epoch has begun and the key of the one before is not destroyed yet.
    pub fn is_rotating(&self) -> bool {
        self.epoch_destroyed() + 1 < self.epoch()
    }

    /// Gives a key that exists and is not at hand its secret.
    pub(crate) fn give_key(&self, name: &KeyName, key: impl FnOnce() -> Option<HolderKey>) {
        let Some(mut cell) = self.holders.get_mut(&name.label) else { return };
        if let Some(known) = cell.keys.get_mut(name).filter(|known| known.secret.is_none()) {
            known.secret = key().map(|key| key.secret());
        }
    }

    /// Whether every key that exists is at hand.
    pub(crate) fn keys_are_complete(&self) -> bool {
        self.holders.iter().all(|cell| cell.keys.all().iter().all(|key| key.secret.is_some()))
    }

    /// At most `count` labels from the `from`-th on, in an order that does not change while the process runs.
    pub(crate) fn labels_from(&self, from: usize, count: usize) -> Vec<Label> {
        let labels = self.labels.read().unwrap_or_else(PoisonError::into_inner);
        labels.iter().skip(from).take(count).copied().collect()
    }

    /// A counter's value; 0 when it was never raised.
    pub fn counter(&self, key: &Key, day: u32) -> u32 {
        self.counters.get(&(*key, day)).map_or(0, |counter| counter.0)
    }

    /// The entry that an idempotency key is bound to.
    pub fn idempotency(&self, key: &Key) -> Option<Bound> {
        self.bindings.table().get(key)
    }

    /// The version of a fact; 0 when it is absent.
    pub fn version(&self, fact: &Fact) -> u32 {
        match fact {
            Fact::License(key) => self.licenses.get(key).map_or(0, |license| license.version),
            Fact::Grant(id) => self.grants.with(id, |grant| grant.version).unwrap_or(0),
            Fact::Holder(key) => self.labels_by_key.get(key).map_or(0, |label| label_version(&label)),
            Fact::Licenses(label) => {
                let licenses = self.holders.get(label).map_or(0, |holder| holder.licenses.len());
                u32::try_from(licenses).unwrap_or(u32::MAX)
            }
            Fact::Document(kind, key) => {
                self.documents.with(&(kind.number(), *key), |document| document.version).unwrap_or(0)
            }
            Fact::Idempotency(key) => u32::from(self.bindings.table().contains(key)),
            Fact::Epoch => self.epoch(),
        }
    }

    /// How much there is of each.
    pub fn counts(&self) -> Counts {
        Counts {
            licenses: self.licenses.len(),
            grants: self.grants.len(),
            holders: self.holders.len(),
            documents: self.documents.len(),
            idempotency: self.bindings.table().len(),
        }
    }

    /// Entries applied, all of them durable.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Asked after values were read: they know of no later entry than the last one below this, all of them durable. The
    /// sequencer may be in the middle of that one.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// Journal time of the latest entry, ms since 1970.
    pub fn time_ms(&self) -> u64 {
        self.time_ms.load(Ordering::Acquire)
    }

    pub(crate) fn head(&self, label: &Label) -> Option<Head> {
        self.holders.get(label).map(|holder| holder.head)
    }

    /// Latest entry of a holder's oversight sequence.
    pub(crate) fn oversight_head(&self, label: &Label) -> Option<Head> {
        self.oversight.get(label)
    }

    /// Delayed uses of all holders that are not released.
    pub fn delayed_uses(&self) -> usize {
        self.delayed.len()
    }

    /// The use with an index, if it is delayed and not released.
    pub fn delayed(&self, index: u64) -> Option<Delayed> {
        self.delayed.get(&index)
    }

    /// Delayed uses that may be told at this moment (ms since 1970), oldest first.
    pub fn due(&self, now_ms: u64) -> Vec<Delayed> {
        let due = self.delayed.all(|_, delayed| (delayed.release_ms <= now_ms).then(|| delayed.clone()));
        let mut due: Vec<Delayed> = due.into_iter().flatten().collect();
        due.sort_unstable_by_key(|delayed| (delayed.release_ms, delayed.index));
        due
    }

    /// Every holder with an entry: label, number of entries, leaf hash of the last.
    pub(crate) fn heads(&self) -> Vec<(Label, u64, Hash)> {
        let holders = self.holders.iter().filter(|holder| holder.head.sequence > 0);
        holders.map(|holder| (*holder.key(), holder.head.sequence, holder.head.leaf_hash)).collect()
    }

    pub(crate) fn knows_label(&self, label: &Label) -> bool {
        self.holders.contains_key(label)
    }

    /// Whether a holder is erased; `None` for a label that nobody has.
    pub(crate) fn erased(&self, label: &Label) -> Option<bool> {
        self.holders.get(label).map(|cell| cell.erased)
    }

    /// Applies one entry; used by the sequencer and by replay alike.
    ///
    /// Idempotent: every value is set to what the record and the completion say, never to a difference. Replay may
    /// therefore begin before the entry that the restart image was made at and still ends in the same state.
    pub(crate) fn apply(&self, entry: &Applied<'_>, changed: &mut Vec<Slot>) {
        // Before any value: whoever reads one of them, under its lock, sees this too.
        self.begun.store(entry.index + 1, Ordering::Release);
        self.counters.end_rows(entry.time_ms, changed);
        self.documents.end_rows(entry.time_ms, changed);
        self.turn_epoch(entry, changed);
        for holder in &entry.record.new_holders {
            self.adopt(holder.label, holder.key, false);
            self.bear_key(&holder.name(), holder.epoch, &holder.wrapped, changed);
        }
        for new in &entry.record.new_keys {
            self.bear_key(&new.name, new.epoch, &new.wrapped, changed);
        }
        for license in &entry.record.licenses {
            self.apply_license(entry, license, changed);
        }
        for grant in &entry.record.grants {
            self.grants.put(self.grant_id(&grant.key), grant.clone());
            changed.push(Slot::new(Kind::Grant, grant.key, 0));
        }
        for document in &entry.record.documents {
            // Admission refuses a kind that there is not.
            if DocumentKind::from_number(document.kind).is_some() {
                let value = Document {
                    version: document.version,
                    value: document.value.as_slice().into(),
                    owners: document.owners.clone(),
                    ends_ms: document.ends_ms,
                    index: entry.index,
                };
                self.documents.put((document.kind, document.key), value);
                changed.push(Slot::new(Kind::Document, document.key, document.kind.into()));
            }
        }
        for (counter, value) in entry.record.counters.iter().zip(&entry.completion.counters) {
            if *value > 0 {
                self.counters.put((counter.key, counter.day), Counter(*value));
                changed.push(Slot::new(Kind::Counter, counter.key, counter.day));
            }
        }
        for (label, link) in entry.record.concerned.iter().zip(&entry.completion.links) {
            let head = Head {
                sequence: link.sequence,
                frame: entry.frame,
                index: entry.index,
                leaf_hash: entry.leaf_hash,
            };
            if entry.completion.delayed {
                self.oversight.put(*label, head);
                changed.push(Slot::new(Kind::Oversight, *label, 0));
            } else if let Some(mut holder) = self.holders.get_mut(label) {
                holder.head = head;
                changed.push(Slot::new(Kind::Holder, *label, 0));
            }
        }
        if entry.completion.delayed {
            let (release_ms, holders) = (entry.record.release_ms, entry.record.concerned.clone());
            self.delayed.put(entry.index, Delayed { index: entry.index, release_ms, holders });
            changed.push(Slot::of_delayed(entry.index));
        }
        for index in &entry.record.released {
            self.delayed.remove(index);
            changed.push(Slot::of_delayed(*index));
        }
        for name in &entry.record.destroyed {
            if let Some(mut cell) = self.holders.get_mut(&name.label) {
                cell.keys.remove(name);
            }
            changed.push(Slot::new(Kind::Holder, name.label, 0));
            changed.push(Slot::of_key(name));
        }
        for label in &entry.record.erased {
            self.erase(label, changed);
            changed.push(Slot::new(Kind::Holder, *label, 0));
        }
        let bound = entry.record.idempotency.map(|wanted| {
            let answer = entry.parts.get(usize::from(wanted.answer_part)).copied().unwrap_or(Position::NONE);
            let Applied { index, time_ms, organisation, frame, .. } = *entry;
            (wanted.key, Bound { request: wanted.request, index, time_ms, organisation, answer, frame })
        });
        self.bindings.bind(bound, entry.time_ms, changed);
        self.time_ms.store(entry.time_ms, Ordering::Release);
        self.applied.store(entry.index + 1, Ordering::Release);
    }

    fn apply_license(&self, entry: &Applied<'_>, license: &LicenseState, changed: &mut Vec<Slot>) {
        let old = self.licenses.get(&license.key).map(|old| (old.body, old.parties.issuer()));
        // The writer of the first version issued it, and only an issuing authority does.
        let issuer = old.map_or_else(|| self.issuer_index(&entry.organisation), |(_, issuer)| issuer);
        let body = if license.body_part == NO_BODY_PART {
            old.map_or(Position::NONE, |(body, _)| body)
        } else {
            entry.parts.get(usize::from(license.body_part)).copied().unwrap_or(Position::NONE)
        };
        let flags = if license.taken_over { TAKEN_OVER } else { 0 }
            | if license.written_by_04 { WRITTEN_BY_04 } else { 0 };
        let cell = LicenseCell {
            number_tag: license.number_tag,
            body,
            parties: Parties::new(issuer, self.indexes_of(&license.holders)),
            version: license.version,
            valid_from_day: license.valid_from_day,
            valid_until_day: license.valid_until_day,
            certificate_version: license.certificate_version,
            state: license.state,
            flags,
        };
        self.put_license(license.key, cell);
        changed.push(Slot::new(Kind::License, license.key, 0));
        if !stands(license.state, license.taken_over) {
            for label in &license.holders {
                if let Some(mut holder) = self.holders.get_mut(label) {
                    holder.ended_ms = entry.time_ms;
                    changed.push(Slot::new(Kind::Holder, *label, 0));
                }
            }
        }
    }

    /// Holds up whoever applies an entry, with everything done but the idempotency keys, until it is dropped.
    #[cfg(test)]
    pub(crate) fn stop_before_binding(&self) -> impl Sized + '_ {
        self.bindings.lock()
    }

    fn turn_epoch(&self, entry: &Applied<'_>, changed: &mut Vec<Slot>) {
        let record = entry.record;
        let first = self.epoch_since_ms() == 0;
        if !first && record.epoch_begun == 0 && record.epoch_destroyed == 0 {
            return;
        }
        if record.epoch_begun != 0 {
            self.epoch.store(record.epoch_begun, Ordering::Release);
            self.crypt.begin_epoch(record.epoch_begun);
        }
        if first || record.epoch_begun != 0 {
            self.epoch_since_ms.store(entry.time_ms, Ordering::Release);
        }
        if record.epoch_destroyed != 0 {
            self.destroyed.store(record.epoch_destroyed, Ordering::Release);
        }
        changed.push(EPOCH_SLOT);
    }

    /// Puts a key that is born in an entry where it belongs. Replay meets it once more; its secret then stays.
    fn bear_key(&self, name: &KeyName, epoch: u32, wrapped: &[u8], changed: &mut Vec<Slot>) {
        changed.push(Slot::new(Kind::Holder, name.label, 0));
        changed.push(Slot::of_key(name));
        if let Some(mut cell) = self.holders.get_mut(&name.label)
            && cell.keys.get(name).is_none_or(|known| known.epoch != epoch)
            && let Some(key) = KeyCell::new(name, epoch)
        {
            cell.keys.put(key);
        }
        self.give_key(name, || self.crypt.unwrap_holder(name, epoch, wrapped));
    }

    /// Destroys a holder's keys and forgets whose label it is; the label, its licenses and its head stay. Delayed uses
    /// are told to the living alone.
    fn erase(&self, label: &Label, changed: &mut Vec<Slot>) {
        for index in self.delayed.owned(label, RangeBound::Unbounded, usize::MAX) {
            let Some(mut delayed) = self.delayed.remove(&index) else { continue };
            delayed.holders.retain(|holder| holder != label);
            if !delayed.holders.is_empty() {
                self.delayed.put(index, delayed);
            }
            changed.push(Slot::of_delayed(index));
        }
        let Some(mut cell) = self.holders.get_mut(label) else { return };
        let keys = std::mem::replace(&mut cell.keys, Keys::none());
        changed.extend(keys.all().iter().map(|key| Slot::of_key(&key.name(label))));
        cell.erased = true;
        let key = std::mem::take(&mut cell.key);
        drop(cell);
        // The same person may have a new label already, where replay begins behind that.
        self.labels_by_key.remove_if(&key, |_, linked| linked == label);
    }

    fn adopt(&self, label: Label, key: Key, erased: bool) {
        if !erased {
            self.labels_by_key.insert(key, label);
        }
        if let Some(mut known) = self.holders.get_mut(&label) {
            (known.key, known.erased) = (key, erased);
            return;
        }
        // The writer alone makes it longer. A label that stands in it has its holder: see `walk`.
        let index = self.labels.read().unwrap_or_else(PoisonError::into_inner).len() as u32;
        let cell = HolderCell {
            key,
            index,
            erased,
            keys: Keys::none(),
            ended_ms: 0,
            head: Head::default(),
            licenses: Vec::new(),
        };
        self.holders.insert(label, cell);
        self.labels.write().unwrap_or_else(PoisonError::into_inner).push(label);
    }

    fn put_license(&self, key: Key, cell: LicenseCell) {
        let after = cell.parties.clone();
        let before = self.licenses.insert(key, cell).map(|old| old.parties);
        if before.is_none() {
            // The issuer never changes.
            self.issued.write().unwrap_or_else(PoisonError::into_inner).insert((after.issuer(), key));
        }
        let before = before.as_ref().map_or(&[][..], Parties::holders);
        for index in before.iter().filter(|index| !after.holders().contains(index)) {
            self.with_holder(*index, |holder| holder.licenses.retain(|license| *license != key));
        }
        for index in after.holders().iter().filter(|index| !before.contains(index)) {
            self.with_holder(*index, |holder| {
                if !holder.licenses.contains(&key) {
                    holder.licenses.push(key);
                }
            });
        }
    }

    fn with_holder(&self, index: u32, change: impl FnOnce(&mut HolderCell)) {
        let label = self.labels.read().unwrap_or_else(PoisonError::into_inner).get(index as usize).copied();
        if let Some(mut holder) = label.and_then(|label| self.holders.get_mut(&label)) {
            change(&mut holder);
        }
    }

    /// The index of an issuer, who gets one with the first license. The writer alone makes the list longer.
    fn issuer_index(&self, organisation: &[u8; 18]) -> u32 {
        let known =
            self.issuers.read().unwrap_or_else(PoisonError::into_inner).indexes.get(organisation).copied();
        known.unwrap_or_else(|| {
            let mut issuers = self.issuers.write().unwrap_or_else(PoisonError::into_inner);
            let index = issuers.organisations.len() as u32;
            issuers.organisations.push(*organisation);
            issuers.indexes.insert(*organisation, index);
            index
        })
    }

    /// Indexes of known labels; admission refuses records that name unknown ones.
    fn indexes_of(&self, labels: &[Label]) -> Vec<u32> {
        labels.iter().filter_map(|label| self.holders.get(label).map(|holder| holder.index)).collect()
    }

    fn labels_of(&self, parties: &Parties) -> Vec<Label> {
        let labels = self.labels.read().unwrap_or_else(PoisonError::into_inner);
        parties.holders().iter().filter_map(|index| labels.get(*index as usize).copied()).collect()
    }

    /// The value of a slot as the restart image holds it; `None` when there is none any more.
    pub(crate) fn value(&self, slot: &Slot) -> Option<Vec<u8>> {
        match self.place(slot.kind) {
            Place::Table(table) => table.value(slot, &self.crypt),
            Place::Holders => self.holders.get(&slot.key).map(|holder| holder.encode()),
            Place::Licenses => {
                let cell = self.licenses.get(&slot.key)?.value().clone();
                Some(self.encode_license(&cell))
            }
            Place::Epochs => Some(self.encode_epochs()),
            // Under the key of the present epoch, whichever the holder was born in: both are at hand until the table
            // of the present epoch, which holds this key too, is durable.
            Place::HolderKeys => {
                let (epoch, wrapped) = self.crypt.wrap_holder(&self.part_key(&slot.key_name())?)?;
                Some([&epoch.to_be_bytes()[..], &wrapped].concat())
            }
        }
    }

    /// Puts a value of the restart image in place. Holders must come before the licenses that name them.
    pub(crate) fn load(&self, slot: &Slot, value: &[u8]) -> Option<()> {
        let mut rest = value;
        let r = &mut rest;
        match self.place(slot.kind) {
            Place::Table(table) => {
                table.load(slot, value, &self.crypt)?;
                if slot.kind == Kind::Idempotency {
                    self.bindings.loaded(&slot.key);
                }
                return Some(());
            }
            Place::Holders => {
                let key = take(r)?;
                let erased = u8::from_be_bytes(take(r)?) != 0;
                let ended_ms = u64::from_be_bytes(take(r)?);
                let head = Head::take(r)?;
                self.adopt(slot.key, key, erased);
                let mut cell = self.holders.get_mut(&slot.key)?;
                (cell.ended_ms, cell.head) = (ended_ms, head);
                let (keys, odd) = rest.as_chunks();
                for key in keys {
                    cell.keys.put(KeyCell::decode(key)?);
                }
                return odd.is_empty().then_some(());
            }
            Place::Licenses => {
                let (mut cell, issuer) = LicenseCell::decode(r)?;
                let (labels, odd) = rest.as_chunks::<16>();
                let indexes = self.indexes_of(labels);
                if !odd.is_empty() || indexes.len() != labels.len() {
                    return None;
                }
                cell.parties = Parties::new(self.issuer_index(&issuer), indexes);
                self.put_license(slot.key, cell);
                return Some(());
            }
            Place::Epochs => {
                let epoch = u32::from_be_bytes(take(r)?);
                self.epoch.store(epoch, Ordering::Release);
                self.crypt.begin_epoch(epoch);
                self.destroyed.store(u32::from_be_bytes(take(r)?), Ordering::Release);
                self.epoch_since_ms.store(u64::from_be_bytes(take(r)?), Ordering::Release);
            }
            Place::HolderKeys => {
                // A key of an earlier epoch opens no more; the table of the present one has the key.
                let epoch = u32::from_be_bytes(take(r)?);
                let name = slot.key_name();
                self.give_key(&name, || self.crypt.unwrap_holder(&name, epoch, r));
                return Some(());
            }
        }
        rest.is_empty().then_some(())
    }

    /// Where replay continues after loading the restart image. The values may be later.
    pub(crate) fn loaded(&self, at: &Cursor) {
        self.begun.store(at.frontier.size(), Ordering::Release);
        self.applied.store(at.frontier.size(), Ordering::Release);
        self.time_ms.store(at.time_ms, Ordering::Release);
    }

    /// The digest of the whole state, the same for the same journal however the state came about. See [`Digest`].
    pub fn digest(&self) -> Hash {
        let mut digest = Digest::default();
        for holder in &self.holders {
            digest.add(&Slot::new(Kind::Holder, *holder.key(), 0).encode(), &holder.encode());
        }
        for license in &self.licenses {
            let value = self.encode_license(license.value());
            digest.add(&Slot::new(Kind::License, *license.key(), 0).encode(), &value);
        }
        for table in self.tables() {
            table.sum_up(&mut digest);
        }
        if self.epoch_since_ms() != 0 {
            digest.add(&EPOCH_SLOT.encode(), &self.encode_epochs());
        }
        digest.bytes()
    }

    fn encode_epochs(&self) -> Vec<u8> {
        [
            &self.epoch().to_be_bytes()[..],
            &self.epoch_destroyed().to_be_bytes(),
            &self.epoch_since_ms().to_be_bytes(),
        ]
        .concat()
    }

    /// Visits the slots of everything that [`State::digest`] sums up, and of the keys that no table holds yet. Entries are
    /// applied meanwhile: what they change may be missing, but a license whose value is read when it is visited comes with
    /// all holders that the value names. Nothing is locked while `visit` runs.
    pub(crate) fn walk<E>(&self, visit: &mut dyn FnMut(&Slot) -> Result<(), E>) -> Result<(), E> {
        let before = self.walk_holders(0, visit)?;
        gathered(&self.licenses, |key, _| *key)
            .into_iter()
            .try_for_each(|key| visit(&Slot::new(Kind::License, key, 0)))?;
        // Holders come into the state before the licenses that name them.
        self.walk_holders(before, visit)?;
        for table in self.tables() {
            table.slots().iter().try_for_each(&mut *visit)?;
        }
        if self.epoch_since_ms() != 0 { visit(&EPOCH_SLOT) } else { Ok(()) }
    }

    /// Visits the holders from the `from`-th on, and their keys that no table holds yet. How many holders there are.
    fn walk_holders<E>(
        &self,
        mut from: usize,
        visit: &mut dyn FnMut(&Slot) -> Result<(), E>,
    ) -> Result<usize, E> {
        const AT_ONCE: usize = 1024;
        loop {
            let labels = self.labels_from(from, AT_ONCE);
            if labels.is_empty() {
                return Ok(from);
            }
            from += labels.len();
            // In this order: an epoch that begins in between is not taken for one whose table is durable.
            let (epoch, destroyed) = (self.epoch(), self.epoch_destroyed());
            let tabled = if destroyed + 1 < epoch { epoch - 1 } else { epoch };
            for label in labels {
                visit(&Slot::new(Kind::Holder, label, 0))?;
                for (name, epoch) in self.key_names(&label) {
                    if epoch >= tabled {
                        visit(&Slot::of_key(&name))?;
                    }
                }
            }
        }
    }

    /// Whether a value was loaded for a slot; also that of a key which is not to be loaded any more.
    pub(crate) fn holds(&self, slot: &Slot) -> bool {
        match self.place(slot.kind) {
            Place::Table(table) => table.holds(slot, &self.crypt),
            Place::Holders => self.holders.contains_key(&slot.key),
            Place::Licenses => self.licenses.contains_key(&slot.key),
            Place::Epochs => self.epoch_since_ms() != 0,
            Place::HolderKeys => {
                let name = slot.key_name();
                let cell = self.holders.get(&name.label);
                cell.is_none_or(|cell| cell.keys.get(&name).is_none_or(|key| key.secret.is_some()))
            }
        }
    }

    fn encode_license(&self, cell: &LicenseCell) -> Vec<u8> {
        let issuers = self.issuers.read().unwrap_or_else(PoisonError::into_inner);
        // Each cell's index is that of an issuer.
        let issuer = issuers.organisations.get(cell.parties.issuer() as usize).copied().unwrap_or_default();
        drop(issuers);
        cell.encode(&issuer, &self.labels_of(&cell.parties))
    }
}

impl HolderCell {
    fn encode(&self) -> Vec<u8> {
        let keys = self.keys.all();
        let mut bytes = Vec::with_capacity(16 + 1 + 8 + 56 + KeyCell::BYTES * keys.len());
        bytes.extend_from_slice(&self.key);
        bytes.push(u8::from(self.erased));
        bytes.extend_from_slice(&self.ended_ms.to_be_bytes());
        bytes.extend_from_slice(&self.head.to_bytes());
        keys.iter().for_each(|key| bytes.extend_from_slice(&key.encode()));
        bytes
    }
}
