//! What the journal should hold, kept in the plainest way.

use ledger::{
    Committed, DocumentKind, Hash, Key, Label,
    record::{CounterUse, DocumentState, Idempotency, LicenseState, NO_BODY_PART, NewHolder, Record},
    sim::Journal,
};
use std::collections::{BTreeMap, BTreeSet};
use verifier::merkle::{leaf_hash, node_hash, verify_inclusion};

/// Most that a counter may reach.
pub(crate) const LIMIT: u32 = 5;

/// Fails with a text, as a violation that a seed found.
#[macro_export]
macro_rules! ensure {
    ($right:expr, $($text:tt)+) => {
        if !$right {
            return Err(format!($($text)+));
        }
    };
}

/// A holder by number, with the label that it has or is to get.
#[derive(Clone)]
pub(crate) struct Who(pub(crate) u8, pub(crate) Label);

impl std::fmt::Debug for Who {
    /// Labels are random: no story tells them.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What a command does.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    Note,
    /// License `n` in the version after the one that was read.
    License {
        n: u8,
        version: u32,
        holders: Vec<Who>,
        body: Option<u8>,
    },
    Use {
        holders: Vec<Who>,
    },
    Count {
        n: u8,
        amount: u32,
    },
    Document {
        n: u8,
        version: u32,
    },
    Bind {
        n: u8,
    },
}

/// What is to come of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Committed,
    Changed,
}

#[derive(Clone, Debug)]
struct Licensed {
    version: u32,
    holders: Vec<u8>,
    body: u8,
}

#[derive(Clone, Debug)]
struct Held {
    label: Label,
    sequence: u64,
    last: u64,
}

/// Everything acknowledged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// Hash of each leaf; `None` while nobody was told.
    pub(crate) leaves: Vec<Option<Hash>>,
    licenses: BTreeMap<u8, Licensed>,
    holders: BTreeMap<u8, Held>,
    counters: BTreeMap<u8, u32>,
    documents: BTreeMap<u8, u32>,
    bound: BTreeMap<u8, u64>,
    /// The resource whose rows are hosted, and the rows that are there.
    resource: Option<Label>,
    rows: BTreeMap<u8, u8>,
}

/// The resource's key, and how many rows it has at most.
pub(crate) const RESOURCE: Key = [200; 16];
pub(crate) const ROWS: u8 = 6;

pub(crate) fn row_key(n: u8) -> Key {
    [n + 1; 16]
}

pub(crate) fn key(n: u8) -> Key {
    [n; 16]
}

pub(crate) fn holder_key(n: u8) -> Key {
    [n + 100; 16]
}

impl Model {
    pub(crate) fn version(&self, n: u8) -> u32 {
        self.licenses.get(&n).map_or(0, |license| license.version)
    }

    pub(crate) fn document_version(&self, n: u8) -> u32 {
        self.documents.get(&n).copied().unwrap_or_default()
    }

    pub(crate) fn label(&self, n: u8) -> Option<Label> {
        self.holders.get(&n).map(|held| held.label)
    }

    pub(crate) fn is_bound(&self, n: u8) -> bool {
        self.bound.contains_key(&n)
    }

    pub(crate) fn resource(&self) -> Option<Label> {
        self.resource
    }

    /// A batch of rows comes in; one without a value is removed.
    pub(crate) fn bring(&mut self, resource: Label, rows: &BTreeMap<u8, Option<u8>>) {
        self.resource = Some(resource);
        for (n, row) in rows {
            match row {
                Some(row) => self.rows.insert(*n, *row),
                None => self.rows.remove(n),
            };
        }
    }

    pub(crate) fn erase(&mut self, row: Option<u8>) {
        if let Some(n) = row {
            self.rows.remove(&n);
        }
    }

    /// Each row that is there is read, and nothing is that was removed.
    pub(crate) fn confirm_rows(&self, journal: &Journal) -> Result<(), String> {
        let Some(resource) = self.resource else { return Ok(()) };
        for n in 0..ROWS {
            let last =
                journal.rows().last(&resource, &row_key(n)).map_err(|error| format!("row {n}: {error}"))?;
            let place = last.filter(|last| !last.removed).and_then(|last| last.place);
            let found = place.map(|place| journal.rows().read(&place).map(|row| row.to_vec())).transpose();
            let found = found.map_err(|error| format!("row {n}: {error}"))?;
            let expected = self.rows.get(&n).map(|byte| vec![*byte; 9]);
            ensure!(found == expected, "row {n} is {found:?}, expected {expected:?}");
        }
        let counts = journal.rows().counts(&resource);
        ensure!(counts.rows == self.rows.len() as u64, "{counts:?}, expected {} rows", self.rows.len());
        Ok(())
    }

    /// Does what the plan does, if it holds.
    pub(crate) fn take(&mut self, plan: &Plan) -> Expected {
        let index = self.leaves.len() as u64;
        match plan {
            Plan::Note => {}
            Plan::License { n, version, holders, body } => {
                if self.version(*n) + 1 != *version || !self.knows(holders) {
                    return Expected::Changed;
                }
                self.concern(holders, index);
                let before = self.licenses.get(n).map_or(0, |license| license.body);
                let numbers = holders.iter().map(|who| who.0).collect();
                let license = Licensed { version: *version, holders: numbers, body: body.unwrap_or(before) };
                self.licenses.insert(*n, license);
            }
            Plan::Use { holders } => {
                if !self.knows(holders) {
                    return Expected::Changed;
                }
                self.concern(holders, index);
            }
            Plan::Count { n, amount } => {
                let value = self.counters.entry(*n).or_default();
                if *value + amount > LIMIT {
                    return Expected::Changed;
                }
                *value += *amount;
            }
            Plan::Document { n, version } => {
                if self.document_version(*n) + 1 != *version {
                    return Expected::Changed;
                }
                self.documents.insert(*n, *version);
            }
            Plan::Bind { n } => {
                if self.bound.contains_key(n) {
                    return Expected::Changed;
                }
                self.bound.insert(*n, index);
            }
        }
        self.leaves.push(None);
        Expected::Committed
    }

    /// No holder is new whom an earlier member of the group has brought under another label.
    fn knows(&self, holders: &[Who]) -> bool {
        holders.iter().all(|Who(n, label)| self.label(*n).is_none_or(|known| known == *label))
    }

    fn concern(&mut self, holders: &[Who], index: u64) {
        for Who(n, label) in holders {
            let held = self.holders.entry(*n).or_insert(Held { label: *label, sequence: 0, last: 0 });
            held.sequence += 1;
            held.last = index;
        }
    }

    /// The leaves that a start found are those that were answered from, in order and without a gap, and those of a
    /// group on its way are all there or none.
    pub(crate) fn confirm_leaves(&mut self, found: &[Hash]) -> Result<(), String> {
        for (index, leaf) in self.leaves.iter().enumerate() {
            let same = leaf.is_none() || *leaf == found.get(index).copied();
            ensure!(same, "entry {index} was acknowledged and is lost; {} are there", found.len());
        }
        ensure!(found.len() == self.leaves.len(), "{} entries, expected {}", found.len(), self.leaves.len());
        self.leaves = found.iter().copied().map(Some).collect();
        Ok(())
    }

    /// The state says what the model says.
    pub(crate) fn confirm_state(&self, journal: &Journal) -> Result<(), String> {
        let state = journal.state();
        let counts = state.counts();
        ensure!(
            state.applied() == self.leaves.len() as u64,
            "the state has applied {} entries",
            state.applied()
        );
        let holders = self.holders.len() + usize::from(self.resource.is_some());
        ensure!(
            (counts.licenses, counts.holders, counts.idempotency)
                == (self.licenses.len(), holders, self.bound.len())
                && state.documents(DocumentKind::Participant).len() == self.documents.len(),
            "the state holds {counts:?}"
        );
        self.confirm_rows(journal)?;
        let mut listed: BTreeMap<u8, BTreeSet<Key>> = BTreeMap::new();
        for (n, expected) in &self.licenses {
            let license = state.license(&key(*n)).ok_or(format!("license {n} is lost"))?;
            let labels: Vec<_> = expected.holders.iter().filter_map(|n| self.label(*n)).collect();
            ensure!(
                license.version == expected.version && license.holders == labels,
                "license {n} is {license:?}, expected {expected:?}"
            );
            let body = journal.open_subject(license.body).map_err(|error| format!("license {n}: {error}"))?;
            ensure!(body == [expected.body], "license {n} has another body");
            for holder in &expected.holders {
                listed.entry(*holder).or_default().insert(key(*n));
            }
        }
        for (n, expected) in &self.holders {
            let holder = state.holder(&holder_key(*n)).ok_or(format!("holder {n} is lost"))?;
            let last = self.leaves[expected.last as usize];
            ensure!(
                holder.label == expected.label
                    && (holder.head.sequence, holder.head.index) == (expected.sequence, expected.last)
                    && Some(holder.head.leaf_hash) == last,
                "holder {n} is at {:?}, expected {expected:?}",
                holder.head
            );
            let licenses: BTreeSet<_> = state.licenses_of(&holder.label).into_iter().collect();
            ensure!(licenses == listed.remove(n).unwrap_or_default(), "holder {n} has other licenses");
        }
        for (n, value) in &self.counters {
            ensure!(state.counter(&key(*n), 0) == *value, "counter {n} is not {value}");
        }
        for (n, version) in &self.documents {
            let document = state.document(DocumentKind::Participant, &key(*n)).ok_or("a document is lost")?;
            ensure!(
                (document.version, &*document.value) == (*version, &[*version as u8][..]),
                "document {n}"
            );
        }
        for (n, index) in &self.bound {
            let bound = state.idempotency(&key(*n)).ok_or(format!("idempotency key {n} is lost"))?;
            let (answer, original) = journal.original(&bound).map_err(|error| format!("key {n}: {error}"))?;
            ensure!(
                answer == [*n]
                    && original.index == *index
                    && Some(original.leaf_hash) == self.leaves[*index as usize],
                "idempotency key {n} gives another answer or receipt"
            );
        }
        Ok(())
    }

    /// Every leaf has a proof in the tree of all of them.
    pub(crate) fn confirm_proofs(&self, root: &Hash) -> Result<(), String> {
        let leaves: Vec<Hash> = self.leaves.iter().flatten().copied().collect();
        let size = leaves.len() as u64;
        for (index, leaf) in leaves.iter().enumerate() {
            let path = path(&leaves, index);
            ensure!(
                verify_inclusion(index as u64, size, leaf, &path, root),
                "the proof of entry {index} is wrong"
            );
        }
        Ok(())
    }
}

/// RFC 6962, section 2.1, word for word.
fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => verifier::merkle::EMPTY_ROOT,
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&root(left), &root(right))
        }
    }
}

fn path(leaves: &[Hash], index: usize) -> Vec<Hash> {
    if leaves.len() < 2 {
        return Vec::new();
    }
    let middle = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(middle);
    let (mut path, sibling) = if index < middle {
        (path(left, index), root(right))
    } else {
        (path(right, index - middle), root(left))
    };
    path.push(sibling);
    path
}

/// Root of the leaves, by the definition.
pub(crate) fn root_of(leaves: &[Hash]) -> Hash {
    root(leaves)
}

/// The receipt opens its leaf and is the entry that was expected.
pub(crate) fn confirm_receipt(committed: &Committed, index: u64) -> Result<(), String> {
    use verifier::leaf::{LeafKind, Open, commitment, leaf_bytes};
    ensure!(committed.index == index, "index {} was given, {index} is next", committed.index);
    let open = Open::parse(&committed.open).map_err(|_| "the receipt's open")?;
    ensure!(
        (open.index, open.time_ms) == (committed.index, committed.time_ms),
        "the receipt's index or time"
    );
    let leaf = leaf_bytes(LeafKind::Entry, &commitment(&committed.salt, &committed.open, &committed.c));
    ensure!(leaf_hash(&leaf) == committed.leaf_hash, "the receipt does not open its leaf");
    Ok(())
}

/// The record of a plan. `wrapped` gives the key of a holder that is new.
pub(crate) fn record(plan: &Plan, new_holders: Vec<NewHolder>) -> Record {
    let mut record = Record { new_holders, ..Record::default() };
    match plan {
        Plan::Note => {}
        Plan::License { n, version, holders, body } => {
            record.concerned = holders.iter().map(|who| who.1).collect();
            record.licenses.push(LicenseState {
                key: key(*n),
                version: *version,
                state: 1,
                certificate_version: 1,
                valid_from_day: 20_000,
                valid_until_day: i32::MAX,
                taken_over: false,
                written_by_04: false,
                number_tag: u64::from(*n),
                holders: record.concerned.clone(),
                body_part: if body.is_some() { 0 } else { NO_BODY_PART },
            });
        }
        Plan::Use { holders } => record.concerned = holders.iter().map(|who| who.1).collect(),
        Plan::Count { n, amount } => {
            record.counters.push(CounterUse { key: key(*n), day: 0, amount: *amount, limit: LIMIT });
        }
        Plan::Document { n, version } => record.documents.push(DocumentState {
            kind: 1,
            key: key(*n),
            version: *version,
            value: vec![*version as u8],
            ..DocumentState::default()
        }),
        Plan::Bind { n } => {
            record.idempotency = Some(Idempotency { key: key(*n), request: key(*n), answer_part: 0 });
        }
    }
    record
}
