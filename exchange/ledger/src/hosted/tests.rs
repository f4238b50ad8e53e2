//! Tests of hosted rows without a ledger: a disk that loses what was not synced, any order of publication, the bytes of the
//! format.

use crate::{
    commit::command::{Command, Outcome, Prepared},
    disk::Disk,
    error::OpenError,
    hosted::{
        check,
        files::{Files, name},
        format::{self, Built, Entry, HEADER_BYTES, SegmentDocument, Written, id_of, sequence},
        index::{Cell, Writer},
    },
    journal::{
        record::{DocumentState, Record},
        subjects::Subjects,
    },
    keys::{
        crypt::{Crypt, HolderKey},
        epoch::EpochsInMemory,
        secrets::LedgerKeys,
    },
    names::{Key, KeyName, STANDARD},
    sim::{Choices, End, Journal, Settings, SimDisk, SimEpochs, Sync},
    state::fact::DocumentKind,
};
use ring::{rand::SystemRandom, signature::Ed25519KeyPair};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, LazyLock, atomic::AtomicU64},
};
use verifier::leaf::{Labels, LeafKind, Open};

const ORIGIN: &str = "log.example/rows";
const START_MS: u64 = 20_000 * 86_400_000;
const LABEL: Key = [7; 16];

static LOG_KEY: LazyLock<Vec<u8>> =
    LazyLock::new(|| Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref().to_vec());

type Row = (Key, Option<&'static [u8]>);
type Batch = [Row];

fn crypt() -> Crypt {
    let epochs = Arc::new(EpochsInMemory::new(ORIGIN, [3; 32]));
    Crypt::new(ORIGIN, &LedgerKeys { journal: [1; 32], index: [2; 32], log_pkcs8: Vec::new(), epochs })
}

fn holder_key() -> HolderKey {
    HolderKey::new(KeyName { label: LABEL, class: STANDARD, year: 2026 }, &[9; 32])
}

fn origin() -> [u8; 32] {
    verifier::sha256(&[ORIGIN.as_bytes()])
}

fn built(id: &Key, key: &HolderKey, rows: &Batch, replaces: Option<Key>) -> Built {
    let crypt = crypt();
    format::build(id, &key.name(), &origin(), &written(rows), replaces, crypt.row_sealer(key, id)).unwrap()
}

fn written<'r>(rows: &[(Key, Option<&'r [u8]>)]) -> Vec<(Key, Written<'r>)> {
    rows.iter().map(|(row, plain)| (*row, (*plain).into())).collect()
}

/// An entry that puts a segment, and brings its resource if it is new.
fn entry(record: Record) -> Command {
    let subjects = Subjects::of(&[] as &[Vec<u8>]);
    let open = Open {
        route: 5,
        decision: 1,
        organisation: *b"91310000000000000X",
        subject_digest: *subjects.digest(),
        labels: Labels::new(Vec::new()),
        ..Open::default()
    };
    let prepared =
        Prepared { kind: LeafKind::Entry, open: open.encode(), record, told: Vec::new(), subjects };
    Command { permit_or_denial: prepared, reads: Vec::new(), ends_at_ms: u64::MAX, inline_proof: false }
}

fn put(id: Key, document: &SegmentDocument) -> DocumentState {
    DocumentState {
        kind: DocumentKind::RowSegment.number(),
        key: id,
        version: 1,
        value: document.encode(),
        owners: vec![*document.label()],
        ends_ms: 0,
    }
}

/// The ends of lives on the simulated disk.
#[derive(Default)]
struct Told {
    acknowledged: u32,
    garbage: u32,
    refused: u32,
}

/// A batch is committed; then the disk ends in the middle of the second one. `write` makes the file durable, or only says so.
fn life(
    seed: u64,
    fuse: u64,
    end: End,
    write: impl Fn(&Files, &SimDisk, &Key, &[u8]) -> bool,
    told: &mut Told,
) {
    let disk = SimDisk::new(seed, Sync::Honest);
    let epochs = Arc::new(SimEpochs::new(&disk, ORIGIN));
    let keys = LedgerKeys { journal: [1; 32], index: [2; 32], log_pkcs8: LOG_KEY.clone(), epochs };
    let settings = Settings {
        origin: ORIGIN.to_owned(),
        segment_bytes: 12 << 10,
        group_bytes: 4 << 10,
        clock: Arc::new(AtomicU64::new(START_MS)),
    };
    let files = Files::new(Arc::new(disk.clone()), Path::new("sim"), ORIGIN);
    let mut journal = Journal::open(&disk, &settings, &keys).unwrap();
    let resource = journal.new_holder([1; 16]);
    let mut record = Record { new_holders: vec![resource.entered()], ..Record::default() };
    let mut acknowledged: Vec<(Key, Key, &[u8])> = Vec::new();
    for number in 1..=2_u8 {
        let (row, id) = ([number; 16], id_of(number.into(), [number; 8]));
        if number == 2 {
            disk.end_after(fuse);
        }
        let Built { bytes, document } =
            built(&id, &resource.holder_key, &[(row, Some(b"a row")), ([9; 16], Some(b"of both"))], None);
        if !write(&files, &disk, &id, &bytes) {
            continue;
        }
        record.documents = vec![put(id, &document)];
        let answers = journal.commit(vec![entry(std::mem::take(&mut record))]);
        if matches!(answers[..], [Ok(Outcome::Committed(_))]) {
            acknowledged.push((row, id, b"a row"));
        }
    }
    drop(journal);
    disk.restart(end);

    let files = Files::new(Arc::new(disk.clone()), Path::new("sim"), ORIGIN);
    let before = files.list().unwrap().len();
    let journal = match Journal::open(&disk, &settings, &keys) {
        Ok(journal) => journal,
        Err(OpenError::Rows { .. }) => {
            told.refused += 1;
            return;
        }
        Err(other) => panic!("{other}"),
    };
    let writer = check::load(&files, journal.state()).unwrap();
    for (row, id, plain) in &acknowledged {
        let place = writer.index.place(&resource.label, row).expect("an acknowledged row");
        assert_eq!(place.segment(), id);
        let bytes = files.whole(id, &place.segment.document).unwrap();
        let sealed = &bytes[place.offset as usize..][..place.length as usize];
        let opened = crypt().open_row(&resource.holder_key, id, row, sealed).unwrap();
        assert_eq!(&opened[..], *plain);
    }
    let last = acknowledged.last().unwrap().1;
    let newest = *writer.index.place(&resource.label, &[9; 16]).unwrap().segment();
    assert!(newest >= last);
    told.acknowledged += acknowledged.len() as u32;
    // A start removes what nobody names.
    told.garbage += (before - files.list().unwrap().len()) as u32;
    assert!(files.list().unwrap().iter().all(|id| writer.has(id)));
    assert_eq!(check::verify(&files, journal.state()).unwrap(), files.list().unwrap().len());
}

#[test]
fn a_power_cut_or_a_kill_at_any_call_loses_no_acknowledged_row_and_its_garbage_goes() {
    let mut told = Told::default();
    for seed in 0..20 {
        for fuse in 0..12 {
            for end in [End::PowerCut, End::Kill] {
                let honest =
                    |files: &Files, _: &SimDisk, id: &Key, bytes: &[u8]| files.write(id, bytes).is_ok();
                life(seed, fuse, end, honest, &mut told);
            }
        }
    }
    assert_eq!(told.refused, 0);
    assert!(told.acknowledged > 20 * 12 * 2, "the second batch came through at times");
    assert!(told.garbage > 0, "a batch that was not committed left a file at times");
}

/// The control: the same lives notice a file, or its name, that was not durable before the entry was.
#[test]
fn rows_that_were_not_synced_before_their_entry_are_noticed() {
    for synced in ["nothing", "file", "name"] {
        let mut told = Told::default();
        for seed in 0..20 {
            let lazy = |files: &Files, disk: &SimDisk, id: &Key, bytes: &[u8]| {
                if *id == id_of(1, [1; 8]) {
                    return files.write(id, bytes).is_ok();
                }
                let file = disk.create(&Path::new("sim/journal/rows").join(name(id))).unwrap();
                file.write_all_at(bytes, 0).unwrap();
                match synced {
                    "file" => file.sync().unwrap(),
                    "name" => disk.sync_folder(Path::new("sim/journal/rows")).unwrap(),
                    _ => {}
                }
                true
            };
            life(seed, 40, End::PowerCut, lazy, &mut told);
        }
        assert!(told.refused > 0, "synced: {synced}");
    }
}

fn entries(id: &Key, rows: &Batch) -> (SegmentDocument, Vec<Entry>) {
    let Built { bytes, document } = built(id, &holder_key(), rows, None);
    let entries = format::directory(&bytes[..document.front_bytes()], id, &document, &origin()).unwrap();
    (document, entries)
}

/// The segment that each row is read from, by the index.
fn found(writer: &Writer, rows: u8) -> Vec<Option<Key>> {
    (0..rows).map(|row| writer.index.place(&LABEL, &[row; 16]).map(|place| *place.segment())).collect()
}

/// Some segments of few rows, so that they meet in every way; a row is there, removed, or not named.
fn random_segments(choices: &mut Choices, count: u8, rows: u8) -> Vec<(Key, Vec<Row>)> {
    let segment = |sequence: u8| {
        let mut batch: Vec<Row> = Vec::new();
        for row in 0..rows {
            match choices.below(3) {
                0 => batch.push(([row; 16], Some(&b"something long"[..choices.below(14) as usize]))),
                1 => batch.push(([row; 16], None)),
                _ => {}
            }
        }
        if choices.below(2) == 0 || batch.is_empty() {
            batch.push(([200 + sequence; 16], Some(b"its own")));
        }
        (id_of(u64::from(sequence) + 1, choices.bits().to_be_bytes()), batch)
    };
    (0..count).map(segment).collect()
}

#[test]
fn whatever_the_order_of_publication_and_of_ends_the_index_is_that_of_a_start() {
    const ROWS: u8 = 6;
    let mut choices = Choices::new(1);
    for _ in 0..300 {
        let segments = random_segments(&mut choices, 5, ROWS);
        let parsed: BTreeMap<Key, (SegmentDocument, Vec<Entry>)> =
            segments.iter().map(|(id, rows)| (*id, entries(id, rows))).collect();
        let mut order: Vec<Key> = parsed.keys().copied().collect();
        for at in (1..order.len()).rev() {
            order.swap(at, choices.below(at as u64 + 1) as usize);
        }
        let mut writer = Writer::new();
        for id in &order {
            writer.add(*id, parsed[id].0.clone(), &parsed[id].1);
        }
        // Some end, together or one after the other.
        let mut left: Vec<Key> = order.clone();
        let ended = left.split_off(choices.below(6) as usize);
        let step = 1 + choices.below(3) as usize;
        for some in ended.chunks(step) {
            let read = &mut |segment: &super::index::Segment| Ok::<_, ()>(parsed[&segment.id].1.clone());
            assert_eq!(writer.end(some, read).unwrap().len(), some.len());
        }
        left.sort_unstable();
        let naive: Vec<Option<Key>> = (0..ROWS)
            .map(|row| {
                let newest = left.iter().rev().find_map(|id| {
                    let (_, rows) = segments.iter().find(|(of, _)| of == id).unwrap();
                    rows.iter().find(|(of, _)| *of == [row; 16]).map(|(_, plain)| plain.map(|_| *id))
                });
                newest.flatten()
            })
            .collect();
        assert_eq!(found(&writer, ROWS), naive);
        let counts = writer.index.counts(&LABEL);
        let has_own = |id: &&Key| parsed[*id].1.iter().any(|entry| entry.row[0] >= 200);
        let own = left.iter().filter(has_own).count() as u64;
        let rows = naive.iter().flatten().count() as u64 + own;
        assert_eq!((counts.rows, counts.segments), (rows, left.len()));
        // A segment that nothing is read from any more, removals among it, may end without being read.
        for segment in writer.index.segments_of(&LABEL, 0) {
            let entries = &parsed[&segment.id].1;
            let counts = entries.iter().filter(|entry| writer.index.moved(&segment, entry).is_some()).count();
            let gone = entries.iter().filter(|entry| !entry.removes).count()
                - entries.iter().filter(|entry| writer.index.newest(&segment, entry).is_some()).count();
            assert_eq!((segment.is_dead(), segment.gone() as usize), (counts == 0, gone));
        }
        // The same as a start makes of what is left, numbers of segments apart.
        let mut fresh = Writer::new();
        left.iter().for_each(|id| fresh.add(*id, parsed[id].0.clone(), &parsed[id].1));
        assert_eq!(fresh.index.counts(&LABEL), counts);
        assert_eq!(found(&fresh, ROWS), naive);
    }
}

#[test]
fn a_look_for_segments_worth_it_is_bounded_and_the_next_one_goes_on_behind_it() {
    const SEGMENTS: u32 = 40_000;
    let (document, _) = entries(&id_of(1, [0; 8]), &[([1; 16], Some(b"one"))]);
    // Long ones, so that none is merged.
    let document = SegmentDocument { bytes: 1 << 20, ..document };
    let mut writer = Writer::new();
    let mut add = |number: u32, row: u32| {
        let key = u128::from(row).to_be_bytes();
        let entry = Entry { row: key, offset: 104, length: 31, removes: false };
        writer.add(id_of(number.into(), [0; 8]), document.clone(), &[entry]);
    };
    (1..=SEGMENTS).for_each(|number| add(number, number));
    // The last but one is dead.
    add(SEGMENTS + 1, SEGMENTS - 1);
    let (mut from, mut looks) = (None, 0);
    let due = loop {
        looks += 1;
        if let Some(due) = writer.index.due(0, &mut from, |_| true) {
            break due;
        }
        assert!(looks < 10 && from.is_some());
    };
    assert_eq!((looks, due.len(), due[0].id), (3, 1, id_of((SEGMENTS - 1).into(), [0; 8])));
    // Whoever is passed over for not being readable, or being erased, holds nobody up.
    assert!(writer.index.due(0, &mut None, |_| false).is_none());
}

#[test]
fn a_rewritten_segment_was_passed_with_the_one_before_it() {
    // Below and above the random part of the old id.
    let random = |rewritten: [u8; 8]| {
        let newer = entries(&id_of(3, [0; 8]), &[([1; 16], Some(b"newest"))]);
        let mut writer = Writer::new();
        for id in [id_of(1, [5; 8]), id_of(2, [5; 8])] {
            let (document, rows) = entries(&id, &[([1; 16], Some(b"one"))]);
            writer.add(id, document, &rows);
        }
        let mut from = None;
        let due = writer.index.due(0, &mut from, |_| true).unwrap();
        assert_eq!(due.len(), 1);
        let (document, rows) = entries(&id_of(1, rewritten), &[([1; 16], Some(b"one"))]);
        writer.add(id_of(1, rewritten), document, &rows);
        writer.end(&[due[0].id], &mut |_| Ok::<_, ()>(Vec::new())).unwrap();
        writer.add(id_of(3, [0; 8]), newer.0, &newer.1);
        let due = writer.index.due(0, &mut from, |_| true).unwrap();
        due.iter().map(|due| sequence(&due.id)).collect::<Vec<_>>()
    };
    assert_eq!(random([1; 8]), random([9; 8]));
}

#[test]
fn a_rewritten_segment_counts_as_the_one_before_it_and_not_as_a_new_one() {
    let [old, newer] = [id_of(1, [9; 8]), id_of(2, [0; 8])];
    // Lower than the old id, and of the same sequence.
    let rewritten = id_of(1, [1; 8]);
    let batch: &Batch = &[([1; 16], Some(b"one")), ([2; 16], Some(b"two")), ([3; 16], Some(b"three"))];
    let mut writer = Writer::new();
    let (document, old_entries) = entries(&old, batch);
    writer.add(old, document, &old_entries);
    let (document, rows) = entries(&newer, &[([2; 16], Some(b"newer"))]);
    writer.add(newer, document, &rows);
    let (document, rows) = entries(&rewritten, &[([1; 16], Some(b"one")), ([2; 16], Some(b"two"))]);
    writer.add(rewritten, document, &rows);
    let newer_rows = entries(&newer, &[([2; 16], Some(b"newer"))]).1;
    let read = &mut |segment: &super::index::Segment| {
        Ok::<_, ()>(match segment.id {
            id if id == old => old_entries.clone(),
            id if id == newer => newer_rows.clone(),
            _ => rows.clone(),
        })
    };
    writer.end(&[old], read).unwrap();
    assert_eq!(found(&writer, 4), [None, Some(rewritten), Some(newer), None]);
    assert_eq!(writer.index.counts(&LABEL).rows, 2);
    assert!(writer.index.place(&[8; 16], &[1; 16]).is_none(), "another resource has no such row");
}

/// A row costs its key, its place, and the map's byte for it, over the share of the map that is filled: from 7/16, when it has
/// just grown, to 7/8.
#[test]
#[expect(clippy::print_stdout, reason = "the figure is stated")]
fn a_row_costs_at_most_64_hot_bytes() {
    let slot_bytes = size_of::<(Key, Cell)>() + 1;
    assert_eq!(slot_bytes, 25);
    let bytes_at = |load: f64| slot_bytes as f64 / load;
    println!(
        "hot bytes a row: {:.1} to {:.1}, {:.1} on average",
        bytes_at(7.0 / 8.0),
        bytes_at(7.0 / 16.0),
        bytes_at(21.0 / 32.0)
    );
    assert!(bytes_at(7.0 / 16.0) <= 64.0);
    // The map itself keeps to that.
    let map = crate::state::table::map::<Key, u64>();
    let mut choices = Choices::new(2);
    for _ in 0..200_000 {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&choices.bits().to_be_bytes());
        key[8..].copy_from_slice(&choices.bits().to_be_bytes());
        map.insert(key, 0);
    }
    let slots = map.capacity() as f64 * 8.0 / 7.0;
    let measured = slots * slot_bytes as f64 / map.len() as f64;
    println!("measured with {} rows: {measured:.1}", map.len());
    assert!(measured <= 64.0);
}

#[test]
fn a_changed_byte_of_header_directory_or_document_is_noticed() {
    let id = id_of(3, [4; 8]);
    let batch: &Batch = &[([1; 16], Some(b"one")), ([2; 16], None), ([3; 16], Some(b""))];
    let Built { bytes, document } = built(&id, &holder_key(), batch, Some([5; 16]));
    assert_eq!(SegmentDocument::decode(&document.encode()), Some(document.clone()));
    assert_eq!(SegmentDocument::decode(&document.encode()[1..]), None);
    format::check(&bytes, &id, &document, &origin()).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(format::check(&changed, &id, &document, &origin()).is_err(), "{at}");
        let front = format::directory(&changed[..document.front_bytes()], &id, &document, &origin());
        assert_eq!(front.is_err(), at < document.front_bytes(), "{at}");
    }
    for end in 0..bytes.len() {
        assert!(format::check(&bytes[..end], &id, &document, &origin()).is_err());
    }
    // A document that commits to a directory which is none: nothing is read beyond the file, whatever it says.
    for at in HEADER_BYTES..document.front_bytes() {
        let mut front = bytes[..document.front_bytes()].to_vec();
        front[at] ^= 0x40;
        let committed = SegmentDocument { directory: verifier::sha256(&[&front]), ..document.clone() };
        if let Ok(entries) = format::directory(&front, &id, &committed, &origin()) {
            let row = |entry: &Entry| (entry.offset, entry.length);
            let honest = entries_of(&bytes, &id, &document);
            assert!(entries.iter().map(row).eq(honest.iter().map(row)), "only another key passes");
        }
    }
    let others = [
        format::directory(&bytes[..document.front_bytes()], &[0; 16], &document, &origin()),
        format::directory(&bytes[..document.front_bytes()], &id, &document, &[0; 32]),
    ];
    assert!(others.iter().all(Result::is_err));
}

fn entries_of(bytes: &[u8], id: &Key, document: &SegmentDocument) -> Vec<Entry> {
    format::directory(&bytes[..document.front_bytes()], id, document, &origin()).unwrap()
}

#[test]
fn a_batch_that_is_none_is_refused() {
    let (id, key, crypt) = (id_of(1, [0; 8]), holder_key(), crypt());
    let try_with = |rows: &[(Key, Option<&[u8]>)]| {
        format::build(&id, &key.name(), &origin(), &written(rows), None, crypt.row_sealer(&key, &id)).is_ok()
    };
    let long = vec![0; format::MOST_ROW_BYTES + 1];
    let many = |count: u32| -> Vec<(Key, Option<&[u8]>)> {
        let key = |number: u32| {
            let mut key = [0; 16];
            key[..4].copy_from_slice(&number.to_be_bytes());
            key
        };
        (0..count).map(|number| (key(number), None)).collect()
    };
    assert!(!try_with(&[]));
    assert!(!try_with(&[([1; 16], Some(b"a")), ([1; 16], None)]));
    assert!(!try_with(&[([1; 16], Some(&long))]));
    assert!(try_with(&[([1; 16], Some(&long[1..]))]));
    assert!(try_with(&many(format::MOST_ROWS as u32)));
    assert!(!try_with(&many(format::MOST_ROWS as u32 + 1)));
    let mut heavy = many(200);
    heavy.iter_mut().for_each(|(_, row)| *row = Some(&long[1..]));
    assert!(!try_with(&heavy));
}
