//! Random commands, crashes and lost files against a state kept in the plainest way.

use crate::rig::*;
use proptest::prelude::*;
use std::collections::HashMap;

#[derive(Clone, Debug)]
enum Step {
    /// License `n` moves to a new version with these holders and perhaps a new body.
    License {
        n: u8,
        holders: Vec<u8>,
        body: bool,
    },
    /// A use that concerns these holders.
    Use {
        holders: Vec<u8>,
    },
    Count {
        n: u8,
        amount: u32,
    },
    Document {
        n: u8,
    },
    Bind {
        n: u8,
    },
    /// Close and open again.
    Reopen {
        image: bool,
    },
    /// What a kill leaves: the folder as it is while the ledger runs.
    Crash,
    LoseImage,
    LoseTiles,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let holders = prop::collection::btree_set(0u8..6, 0..4).prop_map(|set| set.into_iter().collect());
    let step = prop_oneof![
        6 => (0u8..5, holders.clone(), any::<bool>())
            .prop_map(|(n, holders, body)| Step::License { n, holders, body }),
        6 => holders.prop_map(|holders| Step::Use { holders }),
        4 => (0u8..3, 0u32..4).prop_map(|(n, amount)| Step::Count { n, amount }),
        2 => (0u8..3).prop_map(|n| Step::Document { n }),
        2 => (0u8..4).prop_map(|n| Step::Bind { n }),
        2 => any::<bool>().prop_map(|image| Step::Reopen { image }),
        2 => Just(Step::Crash),
        1 => Just(Step::LoseImage),
        1 => Just(Step::LoseTiles),
    ];
    prop::collection::vec(step, 1..40)
}

#[derive(Default)]
struct Model {
    entries: Vec<Committed>,
    /// Version, holders, body.
    licenses: HashMap<u8, (u32, Vec<u8>, Option<u8>)>,
    holders: HashMap<u8, u64>,
    counters: HashMap<u8, u32>,
    documents: HashMap<u8, u32>,
    bound: HashMap<u8, u64>,
}

const LIMIT: u32 = 7;

fn holder_key(n: u8) -> Key {
    key(n + 50)
}

/// Labels of holders, new ones prepared.
fn labels(ledger: &Ledger, holders: &[u8], record: &mut Record) -> Vec<Key> {
    let of = |n: &u8| match ledger.state().holder(&holder_key(*n)) {
        Some(holder) => holder.label,
        None => {
            let new = ledger.new_holder(holder_key(*n));
            record.new_holders.push(new_holder(&new));
            new.label
        }
    };
    holders.iter().map(of).collect()
}

impl Model {
    fn commit(&mut self, ledger: &Ledger, step: &Step) {
        let mut record = Record::default();
        let mut parts = Vec::new();
        match step {
            Step::License { n, holders, body } => {
                let version = self.licenses.get(n).map_or(0, |license| license.0) + 1;
                let labels = labels(ledger, holders, &mut record);
                let part = if *body || version == 1 { 0 } else { NO_BODY_PART };
                record.licenses.push(license(key(*n), version, labels.clone(), part));
                record.concerned = labels;
                let bodies = self.licenses.get(n).and_then(|license| license.2);
                let body = if part == 0 { Some(version as u8) } else { bodies };
                if part == 0 {
                    parts.push(ledger.seal_subject(0, &[], &[version as u8]));
                }
                self.licenses.insert(*n, (version, holders.clone(), body));
                holders.iter().for_each(|n| *self.holders.entry(*n).or_default() += 1);
            }
            Step::Use { holders } => {
                record.concerned = labels(ledger, holders, &mut record);
                holders.iter().for_each(|n| *self.holders.entry(*n).or_default() += 1);
            }
            Step::Count { n, amount } => {
                record.counters.push(CounterUse { key: key(*n), day: 0, amount: *amount, limit: LIMIT });
                let value = self.counters.entry(*n).or_default();
                if *value + amount > LIMIT {
                    let spent = outcome(ledger, command(&record, Vec::new()));
                    assert!(matches!(spent, Ok(Outcome::Changed)), "{spent:?}");
                    return;
                }
                *value += *amount;
            }
            Step::Document { n } => {
                let version = self.documents.entry(*n).or_default();
                *version += 1;
                let (kind, value) = (1, vec![*version as u8]);
                record.documents.push(DocumentState {
                    kind,
                    key: key(*n),
                    version: *version,
                    value,
                    ..DocumentState::default()
                });
            }
            Step::Bind { n } => {
                if self.bound.contains_key(n) {
                    return;
                }
                let idempotency = Idempotency { key: key(*n), request: key(*n), answer_part: 0 };
                record.idempotency = Some(idempotency);
                parts.push(ledger.seal_subject(0, &[], &[*n]));
                self.bound.insert(*n, self.entries.len() as u64);
            }
            _ => return,
        }
        let mut command = command(&record, parts);
        command.inline_proof = true;
        let committed = commit_now(ledger, command);
        assert_eq!(committed.index, self.entries.len() as u64);
        check_receipt(ledger, &committed, committed.proof.as_ref().unwrap());
        self.entries.push(committed);
    }

    fn check(&self, ledger: &Ledger) {
        let state = ledger.state();
        assert_eq!(ledger.size(), self.entries.len() as u64);
        let mut held: HashMap<u8, BTreeSet<Key>> = HashMap::new();
        for (n, (version, holders, body)) in &self.licenses {
            let license = state.license(&key(*n)).unwrap();
            assert_eq!(license.version, *version);
            let expected: Vec<_> =
                holders.iter().map(|n| state.holder(&holder_key(*n)).unwrap().label).collect();
            assert_eq!(license.holders, expected);
            assert_eq!(ledger.open_subject(license.body).unwrap(), body.as_slice());
            holders.iter().for_each(|holder| {
                held.entry(*holder).or_default().insert(key(*n));
            });
        }
        for (n, sequence) in &self.holders {
            let holder = state.holder(&holder_key(*n)).unwrap();
            assert_eq!(holder.head.sequence, *sequence);
            assert_eq!(holder.head.leaf_hash, self.entries[holder.head.index as usize].leaf_hash);
            let listed = state.licenses_of(&holder.label);
            let licenses: BTreeSet<_> = listed.iter().copied().collect();
            assert_eq!(licenses.len(), listed.len());
            assert_eq!(licenses, held.remove(n).unwrap_or_default());
            assert!(state.holder_key(&holder.label).is_some());
        }
        for (n, value) in &self.counters {
            assert_eq!(state.counter(&key(*n), 0), *value);
        }
        for (n, version) in &self.documents {
            let document = state.document(DocumentKind::Participant, &key(*n)).unwrap();
            assert_eq!((document.version, &*document.value), (*version, &[*version as u8][..]));
        }
        for (n, index) in &self.bound {
            let bound = state.idempotency(&key(*n)).unwrap();
            let (answer, mut committed) = ledger.original(&bound).unwrap();
            committed.proof.clone_from(&self.entries[*index as usize].proof);
            assert_eq!((answer, &committed), (vec![*n], &self.entries[*index as usize]));
        }
    }
}

/// Cases tried; ten times as many in a long run, which sets the variable. Each opens ledgers on a disk.
fn cases() -> u32 {
    if std::env::var_os("PROPTEST_CASES").is_some() { 240 } else { 24 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_agrees_with_a_naive_model(steps in steps()) {
        let mut folder = TempDir::new().unwrap();
        let mut ledger = open(folder.path());
        let mut model = Model::default();
        for step in &steps {
            match step {
                Step::Reopen { image } => {
                    ledger.close();
                    ledger = open_with(Options { image: *image, ..options(folder.path()) }).0;
                }
                Step::Crash => {
                    let after = TempDir::new().unwrap();
                    copy(folder.path(), after.path());
                    ledger.close();
                    folder = after;
                    ledger = open(folder.path());
                }
                Step::LoseImage | Step::LoseTiles => {
                    ledger.close();
                    let lost = if matches!(step, Step::LoseImage) { "store" } else { "tiles" };
                    let _ = fs::remove_dir_all(folder.path().join(lost));
                    ledger = open(folder.path());
                }
                step => model.commit(&ledger, step),
            }
            model.check(&ledger);
        }
        let digest = ledger.state().digest();
        ledger.close();
        let ledger = open(folder.path());
        for committed in &model.entries {
            check_receipt(&ledger, committed, &ledger.proof(committed.index).unwrap().unwrap());
        }
        ledger.close();
        let report = verify(folder.path()).unwrap();
        prop_assert_eq!((report.size, report.state_digest), (model.entries.len() as u64, digest));
    }
}
