//! Tests of the state without a journal: what a look-up touches, whose rows are whose, and which rows end.

use super::*;
use crate::{
    journal::record::{CounterUse, DocumentState, GrantState},
    keys::{epoch::EpochsInMemory, secrets::LedgerKeys},
};
use std::sync::atomic::AtomicUsize;

const DAY_MS: u64 = 86_400_000;

fn state() -> State {
    let epochs = Arc::new(EpochsInMemory::new("log.example/test", [3; 32]));
    let keys = LedgerKeys { journal: [1; 32], index: [2; 32], log_pkcs8: Vec::new(), epochs };
    State::new(Arc::new(Crypt::new("log.example/test", &keys)), 10)
}

/// Applies an entry as the sequencer does; gives what it changed.
fn apply(state: &State, time_ms: u64, record: &Record) -> Vec<Slot> {
    let counters = vec![1; record.counters.len()];
    let completion = Completion { delayed: record.release_ms != 0, links: Vec::new(), counters };
    let mut changed = Vec::new();
    let entry = Applied {
        index: state.applied(),
        time_ms,
        organisation: [0; 18],
        leaf_hash: [0; 32],
        frame: Position::new(0, 64),
        parts: &[],
        record,
        completion: &completion,
    };
    state.apply(&entry, &mut changed);
    changed
}

fn document(kind: DocumentKind, key: u8) -> Record {
    let value = DocumentState {
        kind: kind.number(),
        key: [key; 16],
        version: 1,
        value: vec![key],
        ..DocumentState::default()
    };
    Record { documents: vec![value], ..Record::default() }
}

fn counted(counter: &AtomicUsize, work: impl FnOnce()) -> usize {
    counter.store(0, Ordering::Relaxed);
    work();
    counter.load(Ordering::Relaxed)
}

#[test]
fn a_list_touches_no_row_of_another_kind_and_none_of_another_page() {
    let state = state();
    for key in 0..50 {
        for kind in [DocumentKind::Participant, DocumentKind::Link, DocumentKind::Proposal] {
            apply(&state, 1, &document(kind, key));
        }
    }
    for key in [9, 3, 200] {
        apply(&state, 1, &document(DocumentKind::LicenseType, key));
    }
    let visited = &state.documents.visited;
    let types = counted(visited, || {
        let keys: Vec<Key> =
            state.documents(DocumentKind::LicenseType).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [[3; 16], [9; 16], [200; 16]]);
    });
    assert_eq!(types, 3);
    let page = counted(visited, || {
        let page = state.documents_behind(DocumentKind::Proposal, Some(&[41; 16]), 5);
        assert_eq!(page.into_iter().map(|(key, _)| key[0]).collect::<Vec<_>>(), [42, 43, 44, 45, 46]);
        assert_eq!(state.documents_behind(DocumentKind::Proposal, Some(&[49; 16]), 5), []);
    });
    assert_eq!(page, 5);
}

#[test]
fn an_owner_finds_its_own_grants() {
    let state = state();
    let (holders, organisations) = ([[1; 16], [2; 16]], [[b'1'; 18], [b'2'; 18]]);
    for number in 0..40_u8 {
        let (at, to) = (usize::from(number % 2), usize::from(number % 4 / 2));
        let grant = GrantState {
            key: [number; 16],
            version: 1,
            state: 1,
            holder: holders[at],
            grantee: organisations[to],
            target: [0; 16],
            target_is_type: false,
            modes: 1,
            fields: 0,
            item_tag: 0,
            until_ms: u64::MAX,
            max_uses: 0,
            portal: [b'3'; 18],
            ..GrantState::default()
        };
        apply(&state, 1, &Record { grants: vec![grant], ..Record::default() });
    }
    let of = |holder: &Label, after: Option<&Key>| state.grants_of(holder, after, 15);
    for holder in &holders {
        let first = of(holder, None);
        let rest = of(holder, first.last());
        assert_eq!((first.len(), rest.len()), (15, 5));
        assert!(first.iter().chain(&rest).is_sorted());
        assert!(first.iter().chain(&rest).all(|id| state.grant(id).is_some_and(|g| g.holder == *holder)));
    }
    let to = state.grants_to(&organisations[1], None, 100);
    assert_eq!(to.len(), 20);
    assert!(to.iter().all(|id| state.grant(id).is_some_and(|grant| grant.grantee == organisations[1])));
}

/// A row that ends at its own moment; the value is that moment and its owner.
#[derive(Clone)]
struct Ending(u64, Owner);

impl table::Stored for Ending {
    const OWNED: bool = true;
    const LISTED: bool = true;
    const ENDING: bool = true;
    type Id = u32;

    fn id(slot: &Slot, _crypt: &Crypt) -> Option<u32> {
        Some(slot.sub)
    }

    fn slot(&self, id: &u32) -> Slot {
        Slot::new(Kind::Document, [0; 16], *id)
    }

    fn owners(&self, _id: &u32) -> Vec<Owner> {
        vec![self.1, [255; 16]]
    }

    fn ends_ms(&self, _id: &u32) -> u64 {
        self.0
    }

    fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    fn decode(_slot: &Slot, _value: &[u8]) -> Option<Self> {
        None
    }
}

#[test]
fn a_row_is_found_by_its_present_owners_until_it_ends() {
    let table = Table::new();
    let (first, second, both) = ([1; 16], [2; 16], [255; 16]);
    for id in 0..6 {
        table.put(id, Ending(u64::from(id) * 10, first));
    }
    table.put(3, Ending(u64::MAX, second));
    table.put(4, Ending(70, second));
    let owned = |owner: &Owner| table.owned(owner, RangeBound::Unbounded, 100);
    assert_eq!((owned(&first), owned(&second)), (vec![0, 1, 2, 5], vec![3, 4]));

    let mut ended = Vec::new();
    table.end_rows(19, &mut ended);
    assert_eq!(ended.iter().map(|slot| slot.sub).collect::<Vec<_>>(), [0, 1]);
    table.end_rows(20, &mut ended);
    assert_eq!((ended.len(), owned(&first), owned(&both)), (3, vec![5], vec![3, 4, 5]));
    assert_eq!(table.listed(RangeBound::Excluded(3), 100, |_| true), [4, 5]);
    table.end_rows(u64::MAX - 1, &mut ended);
    assert_eq!((ended.len(), owned(&both), table.len()), (5, vec![3], 1), "without end");
}

/// A decision of a day may still be committed on the next one.
#[test]
fn a_counter_ends_with_the_day_after_its_own() {
    let state = state();
    let counter = |day| CounterUse { key: [9; 16], day, amount: 1, limit: 5 };
    // Midnight in China is 16:00 of the day before.
    let midnight = |day: u32| u64::from(day) * DAY_MS - 8 * 3_600_000;
    let record = Record { counters: vec![counter(100), counter(0)], ..Record::default() };
    apply(&state, midnight(100), &record);
    apply(&state, midnight(102) - 1, &Record::default());
    assert_eq!(state.counter(&[9; 16], 100), 1);
    let changed = apply(&state, midnight(102), &Record::default());
    assert_eq!((state.counter(&[9; 16], 100), state.counter(&[9; 16], 0)), (0, 1));
    assert!(changed.contains(&Slot::new(Kind::Counter, [9; 16], 100)));
}

#[test]
fn a_document_is_found_by_its_owner_and_gone_at_its_end() {
    let (state, again) = (state(), state());
    let owned = |key: u8, owners: &[u8], ends_ms: u64| {
        let mut record = document(DocumentKind::Link, key);
        let document = &mut record.documents[0];
        (document.owners, document.ends_ms) = (owners.iter().map(|owner| [*owner; 16]).collect(), ends_ms);
        record
    };
    let mut changed = Vec::new();
    let all: [(u8, &[u8], u64); 4] = [(1, &[7], 0), (2, &[6, 7], 50), (3, &[8], 50), (4, &[], 0)];
    for (key, owners, ends_ms) in all {
        changed.extend(apply(&state, 10, &owned(key, owners, ends_ms)));
    }
    let of = |state: &State, owner: u8| -> Vec<u8> {
        let found = state.documents_of(DocumentKind::Link, &[owner; 16], None, 10);
        found.into_iter().map(|(key, _)| key[0]).collect()
    };
    assert_eq!((of(&state, 7), of(&state, 8), of(&state, 0)), (vec![1, 2], vec![3], vec![]));
    assert_eq!(counted(&state.documents.visited, || assert_eq!(of(&state, 6), [2])), 1);
    // The restart image has both.
    for slot in &changed {
        again.load(slot, &state.value(slot).unwrap()).unwrap();
    }
    assert_eq!(of(&again, 7), [1, 2]);
    for state in [&state, &again] {
        apply(state, 49, &Record::default());
        assert_eq!(of(state, 8), [3]);
        let gone = apply(state, 50, &Record::default());
        assert_eq!((gone.len(), of(state, 7), of(state, 8)), (2, vec![1], vec![]));
        assert_eq!(state.version(&Fact::Document(DocumentKind::Link, [3; 16])), 0);
    }
}
