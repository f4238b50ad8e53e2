//! The holders' sequences: own and oversight, the index root over them, and entries read back.

use crate::rig::*;
use ledger::{HolderProof, OpenedEntry};
use verifier::{
    index::{key as index_key, parse_statement, root_from_path, value},
    leaf::{inner_commitment, statement_leaf, told_digest},
    trace::insider,
};

/// Walks a holder's own sequence backwards: the entries' numbers and indexes.
fn walk(ledger: &Ledger, label: Key) -> Vec<(u64, u64)> {
    let head = ledger.state().holder_by_label(&label).unwrap().head;
    let (mut frame, mut index, mut leaf) = (head.frame, head.index, head.leaf_hash);
    let mut found = Vec::new();
    loop {
        let entry = ledger.entry_near(frame, index).unwrap();
        assert_eq!(entry.committed.leaf_hash, leaf);
        assert_eq!(ledger.entry(index).unwrap().committed, entry.committed);
        let link = entry.links.iter().find(|link| link.label == label).unwrap();
        found.push((link.sequence, index));
        if link.sequence == 1 {
            assert_eq!((link.previous_position, link.previous_leaf), (0, [0; 32]));
            return found;
        }
        (frame, index, leaf) =
            (ledger::Position(link.previous_position), link.previous_index, link.previous_leaf);
    }
}

/// A use of license `n` that its holder is told of at `release_ms`.
fn delayed_use(ledger: &Ledger, n: u8, release_ms: u64) -> Command {
    let holders = ledger.state().license(&key(n)).unwrap().holders;
    command(&Record { concerned: holders, release_ms, ..Record::default() }, Vec::new())
}

fn release(index: u64, holders: Vec<Key>) -> Command {
    command(&Record { concerned: holders, released: vec![index], ..Record::default() }, Vec::new())
}

fn checked(entry: &OpenedEntry) {
    let r = insider(&entry.inner_salt, &entry.record_bytes, &entry.completion).unwrap();
    assert_eq!(inner_commitment(&r, entry.link_digests()), entry.committed.c);
}

#[test]
fn a_sequence_is_walked_backwards_also_across_starts_and_segments() {
    let folder = TempDir::new().unwrap();
    let ledger = open(folder.path());
    let (_, holder) = issue(&ledger, 1);
    let mut expected = vec![(1, 0)];
    let mut ledger = ledger;
    for round in 0..4u64 {
        for _ in 0..30 {
            let at = commit_now(&ledger, use_of(&ledger, 1)).index;
            commit_now(&ledger, command(&Record::default(), vec![ledger.seal_subject(0, &[], &[0; 9_000])]));
            expected.insert(0, (expected[0].0 + 1, at));
        }
        if round % 2 == 0 {
            ledger.close();
        } else {
            drop(ledger);
        }
        ledger = open(folder.path());
    }
    assert_eq!(walk(&ledger, holder.label), expected);
    let mut indexes = Vec::new();
    let size = ledger.size();
    ledger
        .visit_entries(3, u64::MAX, |entry| {
            checked(&entry);
            indexes.push(entry.committed.index);
            true
        })
        .unwrap();
    assert_eq!(indexes, (3..size).collect::<Vec<_>>());
    assert!(ledger.entry(size).is_err());
    ledger.close();
}

#[test]
fn a_delayed_use_is_counted_apart_until_it_is_released() {
    let folder = TempDir::new().unwrap();
    let clock = Arc::new(AtomicU64::new(1_000));
    let hooks = Hooks {
        clock: Some({
            let clock = Arc::clone(&clock);
            Arc::new(move || clock.load(Ordering::Relaxed))
        }),
        ..Hooks::default()
    };
    let opened = || open_with(Options { hooks: hooks.clone(), ..options(folder.path()) }).0;
    let ledger = opened();
    let (_, holder) = issue(&ledger, 1);
    let (_, other) = issue(&ledger, 2);
    let first = commit_now(&ledger, delayed_use(&ledger, 1, 5_000)).index;
    commit_now(&ledger, use_of(&ledger, 1));
    let second = commit_now(&ledger, delayed_use(&ledger, 1, 9_000)).index;
    assert_eq!(walk(&ledger, holder.label).len(), 2, "the delayed ones are not in the own sequence");
    let entry = ledger.entry(second).unwrap();
    assert!(entry.delayed);
    assert_eq!((entry.links[0].sequence, entry.links[0].previous_index), (2, first));
    checked(&entry);

    // Neither early nor to somebody else, and not twice.
    assert!(ledger.state().due(4_999).is_empty());
    let early = outcome(&ledger, release(first, vec![holder.label]));
    assert!(matches!(early, Err(Refused::Malformed(_))), "{early:?}");
    clock.store(5_000, Ordering::Relaxed);
    let due = ledger.state().due(5_000);
    assert_eq!((due.len(), due[0].index, &due[0].holders), (1, first, &vec![holder.label]));
    assert!(matches!(outcome(&ledger, release(first, vec![other.label])), Err(Refused::Malformed(_))));
    commit_now(&ledger, release(first, vec![holder.label]));
    assert!(matches!(outcome(&ledger, release(first, vec![holder.label])), Ok(Outcome::Changed)));
    assert!(matches!(outcome(&ledger, release(77, vec![holder.label])), Ok(Outcome::Changed)));
    assert_eq!(walk(&ledger, holder.label).len(), 3);

    // The same after a start from the image and from the journal alone.
    let digest = ledger.state().digest();
    ledger.close();
    for image in [true, false] {
        let (ledger, _) = open_with(Options { image, hooks: hooks.clone(), ..options(folder.path()) });
        assert_eq!(ledger.state().digest(), digest);
        assert_eq!(ledger.state().due(u64::MAX).len(), 1);
        ledger.close();
    }
    let ledger = opened();
    let third = commit_now(&ledger, delayed_use(&ledger, 1, 9_000)).index;
    assert_eq!(ledger.entry(third).unwrap().links[0].sequence, 3);
    ledger.close();
    assert_eq!(verify(folder.path()).unwrap().state_digest, {
        let (ledger, _) = open_with(Options { image: false, hooks, ..options(folder.path()) });
        let digest = ledger.state().digest();
        ledger.close();
        digest
    });
}

#[test]
fn one_entry_takes_a_bulk_delivery_of_as_many_holders_as_a_record_may_concern() {
    let folder = TempDir::new().unwrap();
    let options = Options { group_bytes: 1 << 20, segment_bytes: 4 << 20, ..options(folder.path()) };
    let (ledger, _) = open_with(options.clone());
    let holders: Vec<PreparedHolder> = (0..1024u16)
        .map(|n| {
            let mut key = [9; 16];
            key[..2].copy_from_slice(&n.to_be_bytes());
            ledger.new_holder(key)
        })
        .collect();
    let told = |n: usize| format!("told to {n}").into_bytes();
    let parts: Vec<Vec<u8>> = (0u16..)
        .zip(&holders)
        .map(|(n, holder)| ledger.seal_subject(n, std::slice::from_ref(&holder.holder_key), &told(n.into())))
        .collect();
    let record = Record {
        concerned: holders.iter().map(|holder| holder.label).collect(),
        new_holders: holders.iter().map(new_holder).collect(),
        ..Record::default()
    };
    let salt = [5; 32];
    let mut command = command(&record, parts);
    command.permit_or_denial.told =
        (0..).zip(&holders).map(|(n, holder)| told_digest(&salt, &holder.label, &told(n))).collect();
    let index = commit_now(&ledger, command).index;
    ledger.close();
    let (ledger, _) = open_with(options);
    let entry = ledger.entry(index).unwrap();
    checked(&entry);
    for (n, holder) in holders.iter().enumerate() {
        assert_eq!(ledger.open_part_for(&entry, &holder.label).unwrap(), told(n));
        assert_eq!(walk(&ledger, holder.label).len(), 1);
        assert_eq!(entry.links[n].told, told_digest(&salt, &holder.label, &told(n)));
    }
    assert!(ledger.open_part_for(&entry, &[0; 16]).is_err());
    ledger.close();
}

/// The latest index root's word on a holder, once it covers `size` entries.
fn rooted(ledger: &Ledger, label: Key, size: u64) -> HolderProof {
    loop {
        match ledger.holder_proof(&label) {
            Some(proof) if proof.root.size >= size && ledger.published().0 > proof.root.index => {
                return proof;
            }
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn proven(ledger: &Ledger, label: Key, proof: &HolderProof) {
    let (size, text) = ledger.published();
    let (covered, root) = parse_statement(&proof.root.statement).unwrap();
    assert_eq!(covered, proof.root.size);
    let value = (proof.count > 0).then(|| value(&label, proof.count, &proof.last_leaf));
    let made = root_from_path(&index_key(&label), &proof.terminal, value.as_ref(), &proof.siblings);
    assert_eq!(made, Some(root));
    let note = SignedNote::parse(&text).unwrap();
    let note = note.verify(std::slice::from_ref(ledger.verifier_key())).unwrap();
    let tree = Checkpoint::parse(&note).unwrap();
    let leaf = leaf_hash(&statement_leaf(LeafKind::IndexRoot, proof.root.statement.as_bytes()));
    let path = ledger.inclusion(proof.root.index, size).unwrap().unwrap();
    assert!(verify_inclusion(proof.root.index, size, &leaf, &path, &tree.root));
}

#[test]
fn an_index_root_follows_what_grows_and_proves_each_holders_last_entry() {
    let folder = TempDir::new().unwrap();
    let opened = || {
        let every = Some(Duration::from_millis(20));
        open_with(Options { index_roots: every, ..options(folder.path()) }).0
    };
    let ledger = opened();
    let (_, holder) = issue(&ledger, 1);
    let (_, other) = issue(&ledger, 2);
    let used = commit_now(&ledger, use_of(&ledger, 1));
    let proof = rooted(&ledger, holder.label, used.index + 1);
    assert_eq!((proof.count, proof.last_leaf), (2, used.leaf_hash));
    proven(&ledger, holder.label, &proof);
    let proof = rooted(&ledger, other.label, used.index + 1);
    assert_eq!(proof.count, 1);
    proven(&ledger, other.label, &proof);
    let absent = rooted(&ledger, [0; 16], used.index + 1);
    assert_eq!(absent.count, 0);
    proven(&ledger, [0; 16], &absent);

    // Nothing grows, nothing is said; a delayed use does not show in the root.
    let size = ledger.size();
    commit_now(&ledger, delayed_use(&ledger, 1, u64::MAX));
    commit_now(&ledger, note(&ledger));
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(ledger.size(), size + 2);
    assert_eq!(ledger.holder_proof(&holder.label).unwrap().root, proof.root);
    ledger.close();

    // A start makes its own root of what the state holds.
    let ledger = opened();
    let again = rooted(&ledger, holder.label, size);
    assert_eq!((again.count, again.last_leaf), (2, used.leaf_hash));
    proven(&ledger, holder.label, &again);
    ledger.close();
    verify(folder.path()).unwrap();
}
