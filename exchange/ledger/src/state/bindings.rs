//! Bound idempotency keys, and the two bounds that drop them: their age, and how many an organisation may have.
//!
//! Written by the thread that applies entries, read by anyone. All of it comes again from the journal.

use crate::{
    names::Key,
    state::{
        rows::Bound,
        slot::{Kind, Slot},
        table::Table,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// How long an idempotency key lives, in ms of journal time.
const IDEMPOTENCY_MS: u64 = 24 * 3600 * 1000;

/// The keys that are bound.
pub(crate) struct Bindings {
    table: Table<Bound>,
    /// Locked by the writer only.
    order: Mutex<Order>,
    per_organisation: usize,
}

/// Bound keys by age, for the two bounds. Ordered by index, so that replaying an older part of the journal once
/// more drops the same keys again.
#[derive(Default)]
pub(crate) struct Order {
    all: BTreeMap<u64, Key>,
    organisations: HashMap<[u8; 18], BTreeSet<u64>>,
}

impl Order {
    fn remove(&mut self, bound: &Bound) {
        self.all.remove(&bound.index);
        if let Some(indexes) = self.organisations.get_mut(&bound.organisation) {
            indexes.remove(&bound.index);
            if indexes.is_empty() {
                self.organisations.remove(&bound.organisation);
            }
        }
    }

    fn insert(&mut self, key: Key, bound: &Bound) {
        self.all.insert(bound.index, key);
        self.organisations.entry(bound.organisation).or_default().insert(bound.index);
    }
}

impl Bindings {
    pub(crate) fn new(per_organisation: usize) -> Self {
        Self { table: Table::new(), order: Mutex::default(), per_organisation }
    }

    /// The entry that each key is bound to.
    pub(crate) fn table(&self) -> &Table<Bound> {
        &self.table
    }

    /// The lock that every change takes.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the table has got a key from the restart image.
    pub(crate) fn loaded(&self, key: &Key) {
        if let Some(bound) = self.table.get(key) {
            self.lock().insert(*key, &bound);
        }
    }

    /// Binds a key, if the entry of this moment does, and drops those that are over the bound or too old.
    pub(crate) fn bind(&self, new: Option<(Key, Bound)>, time_ms: u64, changed: &mut Vec<Slot>) {
        let mut order = self.lock();
        if let Some((key, bound)) = new {
            if let Some(old) = self.table.put(key, bound) {
                order.remove(&old);
            }
            order.insert(key, &bound);
            changed.push(Slot::new(Kind::Idempotency, key, 0));
            let indexes = order.organisations.get(&bound.organisation);
            if let Some(oldest) =
                indexes.filter(|set| set.len() > self.per_organisation).and_then(BTreeSet::first)
            {
                let oldest = *oldest;
                self.unbind(&mut order, oldest, changed);
            }
        }
        while let Some((index, key)) = order.all.first_key_value() {
            let index = *index;
            let old = self.table.with(key, |bound| bound.time_ms).unwrap_or(0);
            if old.saturating_add(IDEMPOTENCY_MS) > time_ms {
                break;
            }
            self.unbind(&mut order, index, changed);
        }
    }

    fn unbind(&self, order: &mut Order, index: u64, changed: &mut Vec<Slot>) {
        let Some(key) = order.all.get(&index).copied() else { return };
        if let Some(bound) = self.table.remove(&key) {
            order.remove(&bound);
        }
        order.all.remove(&index);
        changed.push(Slot::new(Kind::Idempotency, key, 0));
    }
}
