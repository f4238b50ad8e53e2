//! Hosted rows on real files: commit, crash, damage, erasure, copies, and what is found meanwhile.

use crate::rig::*;
use ledger::{
    HolderKey, KeyedHash, Label, MOST_ROWS, Mark, PreparedSegment, ReadError, RowsError, Written,
    copy_journal,
};
use std::{ffi::OsStr, os::unix::fs::FileExt as _, sync::atomic::AtomicUsize};

type Row<'a> = (Key, Option<&'a [u8]>);

trait Append {
    /// Puts a batch in which `None` removes a row, without a note.
    fn append(&self, key: &HolderKey, rows: &[Row<'_>]) -> Result<PreparedSegment, RowsError>;
}

impl Append for ledger::Rows {
    fn append(&self, key: &HolderKey, rows: &[Row<'_>]) -> Result<PreparedSegment, RowsError> {
        self.put(key, &rows.iter().map(|(row, plain)| (*row, (*plain).into())).collect::<Vec<_>>())
    }
}

/// A resource's rows, with the key of the resource.
struct Resource {
    label: Label,
    key: HolderKey,
}

fn row(n: u32) -> Key {
    KeyedHash::new(&[2; 32]).key("row", &[&n.to_be_bytes()])
}

/// Commits a new resource with a first batch.
fn resource(ledger: &Ledger, n: u8, rows: &[Row<'_>]) -> Resource {
    let new = ledger.new_holder(key(n));
    let prepared = ledger.rows().append(&new.holder_key, rows).unwrap();
    let record =
        Record { new_holders: vec![new.entered()], documents: prepared.documents(), ..Record::default() };
    commit_now(ledger, command(&record, Vec::new()));
    Resource { label: new.label, key: new.holder_key.clone() }
}

fn known(ledger: &Ledger, label: Label) -> Resource {
    Resource { label, key: ledger.state().holder_key(&label).unwrap() }
}

fn entry_of(prepared: &[PreparedSegment]) -> Command {
    let documents = prepared.iter().flat_map(PreparedSegment::documents).collect();
    command(&Record { documents, ..Record::default() }, Vec::new())
}

/// Commits a batch.
fn ingest(ledger: &Ledger, resource: &Resource, rows: &[Row<'_>]) {
    let prepared = [ledger.rows().append(&resource.key, rows).unwrap()];
    commit_now(ledger, entry_of(&prepared));
}

fn get(ledger: &Ledger, resource: &Resource, n: u32) -> Result<Option<Vec<u8>>, ReadError> {
    let place = runtime().block_on(ledger.rows().find(&resource.label, &row(n)))?;
    place.map(|place| ledger.rows().read(&place).map(|plain| plain.to_vec())).transpose()
}

fn text(ledger: &Ledger, resource: &Resource, n: u32) -> Option<String> {
    get(ledger, resource, n).unwrap().map(|plain| String::from_utf8(plain).unwrap())
}

/// All rows of a resource, by a walk in pages.
fn walk(ledger: &Ledger, resource: &Resource, page: usize) -> BTreeMap<Key, Vec<u8>> {
    let (mut found, mut after): (_, Option<Mark>) = (BTreeMap::new(), None);
    loop {
        let places = ledger.rows().rows_of(&resource.label, after.as_ref(), page).unwrap();
        let Some(last) = places.last() else { break };
        after = Some(last.mark());
        for place in &places {
            assert!(found.insert(*place.row(), ledger.rows().read(place).unwrap().to_vec()).is_none());
        }
    }
    let counts = ledger.rows().counts(&resource.label);
    assert_eq!(counts.rows, found.len() as u64);
    assert_eq!(counts.bytes, found.values().map(|plain| plain.len() as u64 + 28).sum::<u64>());
    found
}

fn row_files(folder: &Path) -> BTreeSet<PathBuf> {
    match fs::read_dir(folder.join("journal/rows")) {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            BTreeSet::new()
        }
    }
}

/// Waits until so many files are there: those of ended segments go behind the answer.
fn wait_for_files(folder: &Path, count: usize) {
    while row_files(folder).len() != count {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_row_is_found_once_it_is_committed_and_the_later_batch_counts() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    assert!(row_files(dir.path()).is_empty() && !dir.path().join("journal/rows").exists());
    let base = resource(&ledger, 1, &[(row(1), Some(b"one")), (row(2), Some(b"two"))]);
    let other = resource(&ledger, 2, &[(row(101), Some(b"of another"))]);
    assert_eq!(text(&ledger, &base, 1).unwrap(), "one");
    // Two batches of the same row, committed against the order in which they were appended.
    let first = ledger.rows().append(&base.key, &[(row(1), Some(b"first")), (row(2), None)]).unwrap();
    let second =
        ledger.rows().append(&base.key, &[(row(1), Some(b"second")), (row(3), Some(b"three"))]).unwrap();
    assert_eq!((text(&ledger, &base, 1).unwrap().as_str(), text(&ledger, &base, 3)), ("one", None));
    commit_now(&ledger, entry_of(&[second]));
    assert_eq!(text(&ledger, &base, 1).unwrap(), "second");
    commit_now(&ledger, entry_of(&[first]));
    let check = |ledger: &Ledger| {
        assert_eq!(text(ledger, &base, 1).unwrap(), "second");
        assert_eq!((text(ledger, &base, 2), text(ledger, &base, 3).unwrap().as_str()), (None, "three"));
        // A row of one resource is none of another.
        assert_eq!((text(ledger, &base, 101), text(ledger, &other, 101).is_some()), (None, true));
        assert_eq!(ledger.rows().counts(&base.label).segments, 3);
        for page in [1, 2, 100] {
            assert_eq!(walk(ledger, &base, page).len(), 2);
        }
    };
    check(&ledger);
    let digest = ledger.state().digest();
    ledger.close();
    for image in [true, false] {
        let (ledger, opened) = open_with(Options { image, ..options(dir.path()) });
        assert_eq!(opened.from_image, image);
        assert_eq!(ledger.state().digest(), digest);
        check(&ledger);
        ledger.close();
    }
    for from in [RebuildFrom::Snapshot, RebuildFrom::Zero] {
        ledger::rebuild(options(dir.path()), keys(), from, &|_| {}).unwrap();
        let ledger = open(dir.path());
        check(&ledger);
        ledger.close();
    }
    let report = verify(dir.path()).unwrap();
    assert_eq!((report.row_segments, report.problems), (4, Vec::new()));
    let ledger = open(dir.path());
    ingest(&ledger, &base, &[(row(2), Some(b"again"))]);
    assert_eq!(text(&ledger, &base, 2).unwrap(), "again", "a start goes on behind the sequences it found");
    ledger.close();
}

#[test]
fn a_kill_between_the_file_and_its_entry_leaves_garbage_that_goes() {
    let dir = TempDir::new().unwrap();
    let (folder, killed) = (dir.path().join("data"), dir.path().join("killed"));
    let ledger = open(&folder);
    let base = resource(&ledger, 1, &[(row(1), Some(b"one"))]);
    let prepared =
        ledger.rows().append(&base.key, &[(row(1), Some(b"never")), (row(2), Some(b"never"))]).unwrap();
    assert_eq!(row_files(&folder).len(), 2);
    copy(&folder, &killed);
    // Half a file, as a kill within the write leaves it.
    let half = killed.join("journal/rows").join(format!("{:032x}.rows", u128::MAX));
    fs::write(&half, b"MXR1").unwrap();
    let note = killed.join("journal/rows/note");
    fs::write(&note, b"somebody's").unwrap();
    let again = open(&killed);
    let same = known(&again, base.label);
    assert_eq!((text(&again, &same, 1).unwrap().as_str(), text(&again, &same, 2)), ("one", None));
    assert_eq!(row_files(&killed).len(), 2);
    assert!(note.exists() && !half.exists(), "only what has the name of a segment goes");
    again.close();

    // The same without a kill: one that was never submitted goes when it is dropped.
    drop(prepared);
    assert_eq!(row_files(&folder).len(), 1);
    // A command that was refused or decided again: whoever knows says so.
    let prepared = ledger.rows().append(&base.key, &[(row(2), Some(b"late"))]).unwrap();
    let mut command = entry_of(std::slice::from_ref(&prepared));
    command.reads = vec![(Fact::License(key(1)), 5)];
    assert!(matches!(outcome(&ledger, command), Ok(Outcome::Changed)));
    assert_eq!(row_files(&folder).len(), 2);
    // It may be decided again with the same segment, which then stays.
    commit_now(&ledger, entry_of(std::slice::from_ref(&prepared)));
    prepared.discard();
    assert_eq!(text(&ledger, &base, 2).unwrap(), "late");
    let prepared = ledger.rows().append(&base.key, &[(row(2), Some(b"later"))]).unwrap();
    let mut command = entry_of(std::slice::from_ref(&prepared));
    command.reads = vec![(Fact::License(key(1)), 5)];
    assert!(matches!(outcome(&ledger, command), Ok(Outcome::Changed)));
    prepared.discard();
    assert_eq!(row_files(&folder).len(), 2);
    assert_eq!(text(&ledger, &base, 2).unwrap(), "late");
    ledger.close();
}

#[test]
fn a_file_that_is_not_the_one_committed_is_refused_by_name_and_nothing_changes() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("data");
    let ledger = open(&folder);
    let base = resource(&ledger, 1, &[(row(1), Some(b"one"))]);
    ingest(&ledger, &base, &[(row(2), Some(b"two")), (row(3), Some(b"three"))]);
    ledger.close();
    let files: Vec<PathBuf> = row_files(&folder).into_iter().collect();
    let [first, second] = &files[..] else { panic!("{files:?}") };
    let whole = fs::read(second).unwrap();
    let changed = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        Some(bytes)
    };
    let longer = [&whole[..], b"\0"].concat();
    let cases = [
        ("it is missing", None),
        ("its length", Some(whole[..whole.len() - 1].to_vec())),
        ("its length", Some(longer)),
        ("its length", Some(Vec::new())),
        ("its directory", changed(0)),
        ("its directory", changed(90)),
        (
            "its directory",
            Some({
                let mut zeros = whole.clone();
                zeros.fill(0);
                zeros
            }),
        ),
    ];
    for (why, bytes) in cases {
        match &bytes {
            Some(bytes) => fs::write(second, bytes).unwrap(),
            None => fs::remove_file(second).unwrap(),
        }
        let before = tree(&folder);
        for refused in [refusal(&folder), verify(&folder).unwrap_err()] {
            let OpenError::Rows { file, why: told } = refused else { panic!("{refused}") };
            assert_eq!(Some(OsStr::new(&file)), second.file_name());
            assert!(told.contains(why), "{told} for {why}");
        }
        assert!(copy_journal(&options(&folder), &keys(), &dir.path().join(why)).is_err());
        assert!(tree(&folder) == before, "a refusal for {why} changed something");
        fs::write(second, &whole).unwrap();
    }
    // Another segment under its name.
    fs::copy(first, second).unwrap();
    assert!(matches!(refusal(&folder), OpenError::Rows { .. }));
    // A start reads directories; a check reads rows as well.
    fs::write(second, changed(whole.len() - 40).unwrap()).unwrap();
    assert!(matches!(verify(&folder), Err(OpenError::Rows { why, .. }) if why.contains("its rows")));
    let ledger = open(&folder);
    let base = known(&ledger, base.label);
    let read = |n| get(&ledger, &base, n);
    let broken = [2, 3].map(|n| matches!(read(n), Err(ReadError::Sealed("row"))));
    assert_eq!(broken.iter().filter(|broken| **broken).count(), 1, "a changed row is an error and no answer");
    assert_eq!(text(&ledger, &base, 1).unwrap(), "one");
    ledger.close();
}

#[test]
fn a_row_moved_to_another_place_does_not_open() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    let base = resource(&ledger, 1, &[(row(1), Some(b"eleven")), (row(2), Some(b"twelve"))]);
    let other = resource(&ledger, 2, &[(row(11), Some(b"twenty"))]);
    // The same row in a later segment: brought back, it would be the old answer.
    ingest(&ledger, &base, &[(row(1), Some(b"later!"))]);
    let place = |resource: &Resource, n| {
        runtime().block_on(ledger.rows().find(&resource.label, &row(n))).unwrap().unwrap()
    };
    let path = |id: &Key| dir.path().join(format!("journal/rows/{:032x}.rows", u128::from_be_bytes(*id)));
    let sealed = |id: &Key, at: usize, length: usize| fs::read(path(id)).unwrap()[at..at + length].to_vec();
    let length = 6 + 28;
    let front = |rows: usize| 80 + 24 * rows;
    let (newest, one) = (place(&base, 1), *place(&base, 2).segment());
    let foreign = *place(&other, 11).segment();
    // Directories are ascending by row.
    let ascending = row(1) < row(2);
    let old = sealed(&one, front(2) + if ascending { 0 } else { length }, length);
    let neighbour = sealed(&one, front(2) + if ascending { length } else { 0 }, length);
    let elsewhere = sealed(&foreign, front(1), length);
    let file = fs::File::options().write(true).open(path(newest.segment())).unwrap();
    let own = sealed(newest.segment(), front(1), length);
    for moved in [old, neighbour, elsewhere] {
        file.write_all_at(&moved, front(1) as u64).unwrap();
        assert!(matches!(ledger.rows().read(&newest), Err(ReadError::Sealed("row"))));
    }
    file.write_all_at(&own, front(1) as u64).unwrap();
    assert_eq!(&ledger.rows().read(&newest).unwrap()[..], b"later!");
    ledger.close();
}

#[test]
fn an_erased_row_is_gone_with_its_files_and_all_else_stays() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    let base =
        resource(&ledger, 1, &[(row(1), Some(b"old one")), (row(2), Some(b"two")), (row(3), Some(b"three"))]);
    ingest(&ledger, &base, &[(row(4), Some(b"four")), (row(3), None)]);
    ingest(&ledger, &base, &[(row(1), Some(b"one"))]);
    ingest(&ledger, &base, &[(row(2), Some(b"newer two"))]);
    let before = row_files(dir.path());
    let place = runtime().block_on(ledger.rows().find(&base.label, &row(1))).unwrap().unwrap();

    let rewritten = ledger.rows().erase(&base.key, &[row(1), row(99)]).unwrap();
    assert_eq!(rewritten.len(), 2, "every segment that has the row, superseded or not");
    // Not committed it changes nothing.
    assert_eq!(text(&ledger, &base, 1).unwrap(), "one");
    drop(rewritten);
    assert_eq!(row_files(dir.path()), before);
    let rewritten = ledger.rows().erase(&base.key, &[row(1)]).unwrap();
    // The new segment without the end of the old one is refused: both would count.
    let mut halved = entry_of(&rewritten[..1]);
    halved.permit_or_denial.record.documents.truncate(1);
    assert!(matches!(outcome(&ledger, halved), Err(Refused::Malformed(_))));
    // Two rewrite the same segment: one is decided again.
    let race = ledger.rows().erase(&base.key, &[row(1)]).unwrap();
    commit_now(&ledger, entry_of(&rewritten));
    assert!(matches!(outcome(&ledger, entry_of(&race)), Ok(Outcome::Changed)));
    race.into_iter().for_each(PreparedSegment::discard);
    let check = |ledger: &Ledger| {
        let found = walk(ledger, &base, 2);
        let of = |n: u32| found.get(&row(n)).map(|plain| std::str::from_utf8(plain).unwrap());
        assert_eq!((of(1), of(2), of(3), of(4)), (None, Some("newer two"), None, Some("four")));
        assert_eq!(text(ledger, &base, 2).unwrap(), "newer two", "the rewritten segment is no newer one");
        assert_eq!((text(ledger, &base, 1), text(ledger, &base, 3)), (None, None));
        assert_eq!(ledger.rows().counts(&base.label).segments, 3);
    };
    check(&ledger);
    // Whoever found the row before still reads it; then the file goes.
    assert_eq!(&ledger.rows().read(&place).unwrap()[..], b"one");
    assert!(row_files(dir.path()).contains(
        &dir.path().join(format!("journal/rows/{:032x}.rows", u128::from_be_bytes(*place.segment())))
    ));
    drop(place);
    wait_for_files(dir.path(), 3);
    assert_eq!(row_files(dir.path()).intersection(&before).count(), 2);
    // The documents of the old ones go with the next entry.
    commit_now(&ledger, note(&ledger));
    assert_eq!(ledger.state().documents(DocumentKind::RowSegment).len(), 3);
    ledger.close();
    for image in [true, false] {
        let (ledger, _) = open_with(Options { image, ..options(dir.path()) });
        check(&ledger);
        ledger.close();
    }
    assert_eq!(verify(dir.path()).unwrap().row_segments, 3);

    // The end of the resource.
    let ledger = open(dir.path());
    let newest = ledger.rows().rows_of(&base.label, None, 10).unwrap().last().unwrap().mark();
    let record = Record { documents: ledger.rows().ended(&base.label), ..Record::default() };
    commit_now(&ledger, command(&record, Vec::new()));
    assert!(walk(&ledger, &base, 10).is_empty());
    assert_eq!(ledger.rows().counts(&base.label), ledger::RowCounts::default());
    wait_for_files(dir.path(), 0);
    commit_now(&ledger, note(&ledger));
    assert!(ledger.state().documents(DocumentKind::RowSegment).is_empty());
    ledger.close();
    let ledger = open(dir.path());
    assert!(walk(&ledger, &base, 10).is_empty());
    // No sequence comes again, so that no walk passes over a new row.
    ingest(&ledger, &base, &[(row(5), Some(b"five"))]);
    let places = ledger.rows().rows_of(&base.label, None, 1).unwrap();
    assert!(places[0].mark().sequence > newest.sequence);
    ledger.close();
}

/// The document of a segment that ended is gone with the next entry, which may be of the same group.
#[test]
fn what_ended_within_a_group_is_not_found_behind_it() {
    let dir = TempDir::new().unwrap();
    let (ledger, mut by_hand) = Ledger::open_by_hand(options(dir.path()), keys()).unwrap();
    let rows: Vec<(Key, Option<Vec<u8>>)> =
        (0..MOST_ROWS as u32).map(|n| (row(n), Some(n.to_be_bytes().to_vec()))).collect();
    let rows: Vec<Row<'_>> = rows.iter().map(|(row, plain)| (*row, plain.as_deref())).collect();
    let new = ledger.new_holder(key(1));
    let first = ledger.rows().append(&new.holder_key, &rows).unwrap();
    let record =
        Record { new_holders: vec![new.entered()], documents: first.documents(), ..Record::default() };
    runtime().block_on(async {
        let (first, steps) =
            tokio::join!(ledger.commit(command(&record, Vec::new())), async { by_hand.step() });
        assert!(matches!(first, Ok(Outcome::Committed(_))) && steps == 1);
        let place = ledger.rows().find(&new.label, &row(7)).await.unwrap();
        assert!(place.is_some());
        drop(place);
        let record = Record { documents: ledger.rows().ended(&new.label), ..Record::default() };
        let (ended, next, steps) =
            tokio::join!(ledger.commit(command(&record, Vec::new())), ledger.commit(note(&ledger)), async {
                by_hand.step()
            });
        let both = [ended, next].iter().all(|done| matches!(done, Ok(Outcome::Committed(_))));
        assert!(both && steps == 2 && ledger.state().documents(DocumentKind::RowSegment).is_empty());
        // At once, while the thread is still letting all of them go.
        for n in [7, MOST_ROWS as u32 - 1] {
            assert!(ledger.rows().find(&new.label, &row(n)).await.unwrap().is_none());
        }
    });
    by_hand.end();
    ledger.close();
}

/// A kill right behind the entry that ends a segment: its file is still there, and goes at the next start.
#[test]
fn a_file_that_outlived_its_end_goes_at_the_next_start() {
    let dir = TempDir::new().unwrap();
    let (folder, killed) = (dir.path().join("data"), dir.path().join("killed"));
    let ledger = open(&folder);
    let base = resource(&ledger, 1, &[(row(1), Some(b"one")), (row(2), Some(b"two"))]);
    let place = runtime().block_on(ledger.rows().find(&base.label, &row(1))).unwrap();
    let rewritten = ledger.rows().erase(&base.key, &[row(1)]).unwrap();
    commit_now(&ledger, entry_of(&rewritten));
    copy(&folder, &killed);
    assert_eq!(row_files(&killed).len(), 2);
    drop(place);
    let again = open(&killed);
    assert_eq!(row_files(&killed).len(), 1);
    let same = known(&again, base.label);
    assert_eq!((text(&again, &same, 1), text(&again, &same, 2).unwrap().as_str()), (None, "two"));
    again.close();
    ledger.close();
}

#[test]
fn rows_outlive_a_change_of_epoch_and_not_the_key_of_their_resource() {
    let dir = TempDir::new().unwrap();
    let epochs: Arc<dyn EpochFiles> = Arc::new(EpochsInMemory::new(ORIGIN, [3; 32]));
    let open = || Ledger::open(options(dir.path()), keys_with(Arc::clone(&epochs))).unwrap().0;
    let ledger = open();
    let base = resource(&ledger, 1, &[(row(1), Some(SECRET))]);
    let other = resource(&ledger, 2, &[(row(11), Some(b"stays"))]);
    ledger.rotate(|record| prepared(record, Vec::new())).unwrap();
    assert_eq!(get(&ledger, &base, 1).unwrap().unwrap(), SECRET);
    ingest(&ledger, &base, &[(row(2), Some(SECRET))]);
    ledger.close();
    let ledger = open();
    assert_eq!([1, 2].map(|n| get(&ledger, &base, n).unwrap().unwrap()), [SECRET, SECRET]);
    let erased = Record { erased: vec![base.label], ..Record::default() };
    commit_now(&ledger, command(&erased, Vec::new()));
    let gone = |ledger: &Ledger| {
        assert!([1, 2].iter().all(|n| matches!(get(ledger, &base, *n), Err(ReadError::KeyGone))));
        assert_eq!(text(ledger, &other, 11).unwrap(), "stays");
    };
    gone(&ledger);
    // Nothing is written under a key that is gone.
    let late = [ledger.rows().append(&base.key, &[(row(3), Some(SECRET))]).unwrap()];
    assert!(matches!(outcome(&ledger, entry_of(&late)), Err(Refused::Malformed(_))));
    drop(late);
    ledger.rotate(|record| prepared(record, Vec::new())).unwrap();
    ledger.close();
    let ledger = open();
    gone(&ledger);
    ledger.close();
    for file in row_files(dir.path()) {
        assert!(!fs::read(file).unwrap().windows(SECRET.len()).any(|part| part == SECRET));
    }
}

#[test]
fn a_segment_that_was_not_written_for_its_record_is_refused() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    let base = resource(&ledger, 1, &[(row(1), Some(b"one"))]);
    let prepared = ledger.rows().append(&base.key, &[(row(2), Some(b"two"))]).unwrap();
    let good = prepared.documents().remove(0);
    let changed = |change: &dyn Fn(&mut DocumentState)| {
        let mut document = good.clone();
        change(&mut document);
        let record = Record { documents: vec![document], ..Record::default() };
        matches!(outcome(&ledger, command(&record, Vec::new())), Err(Refused::Malformed(_)))
    };
    assert!(changed(&|document| document.key[15] ^= 1));
    assert!(changed(&|document| document.value[40] ^= 1));
    assert!(changed(&|document| document.value.clear()));
    assert!(changed(&|document| document.owners = vec![key(9)]));
    assert!(changed(&|document| document.ends_ms = u64::MAX));
    assert!(changed(&|document| document.ends_ms = 1));
    // A key of the same name that is another one: of two first batches one is to be appended anew.
    let two = [ledger.new_holder(key(5)), ledger.new_holder(key(5))];
    let [first, second] =
        two.each_ref().map(|new| ledger.rows().append(&new.holder_key, &[(row(5), None)]).unwrap());
    let record = |new: &PreparedHolder, segment: &PreparedSegment| Record {
        new_holders: vec![new.entered()],
        documents: segment.documents(),
        ..Record::default()
    };
    assert!(matches!(
        outcome(&ledger, command(&record(&two[0], &second), Vec::new())),
        Err(Refused::Malformed(_))
    ));
    commit_now(&ledger, command(&record(&two[0], &first), Vec::new()));
    assert!(matches!(outcome(&ledger, command(&record(&two[1], &second), Vec::new())), Ok(Outcome::Changed)));
    let committed = ledger.state().holder_key(&two[0].label).unwrap();
    assert!(first.is_under(&committed) && !second.is_under(&committed));
    second.discard();
    commit_now(&ledger, entry_of(&[prepared]));
    assert_eq!(text(&ledger, &base, 2).unwrap(), "two");
    ledger.close();
}

#[test]
fn a_journal_below_its_reserve_takes_no_rows() {
    let dir = TempDir::new().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&full);
    let free_space = move |_: &Path| {
        let free_bytes = if told.load(Ordering::SeqCst) { 0 } else { 1 << 40 };
        Ok(Space { free_bytes, total_bytes: 1 << 40 })
    };
    let hooks = Hooks { free_space: Some(Arc::new(free_space)), ..Hooks::default() };
    let (ledger, _) = open_with(Options { hooks, ..options(dir.path()) });
    let base = resource(&ledger, 1, &[(row(1), Some(b"one"))]);
    full.store(true, Ordering::SeqCst);
    while !ledger.health().journal_full {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(matches!(ledger.rows().append(&base.key, &[(row(2), None)]), Err(RowsError::Full)));
    assert_eq!(row_files(dir.path()).len(), 1);
    assert_eq!(text(&ledger, &base, 1).unwrap(), "one");
    full.store(false, Ordering::SeqCst);
    while ledger.health().journal_full {
        std::thread::sleep(Duration::from_millis(5));
    }
    ingest(&ledger, &base, &[(row(2), Some(b"two"))]);
    let kept = ledger.clone();
    ledger.close();
    assert!(matches!(kept.rows().append(&base.key, &[(row(3), None)]), Err(RowsError::Stopped)));
    // Rows in memory are still found.
    assert_eq!(text(&kept, &base, 2).unwrap(), "two");
}

/// Every writer finds what it was answered for, at once; every reader finds each row in one of its states, never older than
/// it was before.
#[test]
fn what_is_answered_is_found_while_others_write_erase_and_copy() {
    const ROWS: u32 = 500;
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("data");
    let ledger = open(&folder);
    let version = |n: u64| n.to_be_bytes();
    let batch = |bytes: &[[u8; 8]]| -> Vec<(Key, Option<Vec<u8>>)> {
        (0..ROWS).zip(bytes.iter().cycle()).map(|(n, bytes)| (row(n), Some(bytes.to_vec()))).collect()
    };
    let start = batch(&[version(0)]);
    let rows: Vec<Row<'_>> = start.iter().map(|(row, plain)| (*row, plain.as_deref())).collect();
    let base = resource(&ledger, 1, &rows);
    let extra = resource(&ledger, 2, &[(row(10_000), Some(b"kept")), (row(10_001), Some(b"erased"))]);
    let (answered, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let reads = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let runtime = runtime();
                let mut at = 0_u32;
                while !over.load(Ordering::SeqCst) {
                    let least = answered.load(Ordering::SeqCst);
                    at = (at + 7) % ROWS;
                    let place = runtime.block_on(ledger.rows().find(&base.label, &row(at))).unwrap().unwrap();
                    let found = ledger.rows().read(&place).unwrap();
                    let found = u64::from_be_bytes(found[..].try_into().unwrap());
                    assert!(found >= least, "{found} after {least} was answered");
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            for round in 0..20_u32 {
                let erased = [row(10_001)];
                let rewritten = ledger.rows().erase(&extra.key, &erased).unwrap();
                if !rewritten.is_empty() {
                    commit_now(&ledger, entry_of(&rewritten));
                }
                assert_eq!(text(&ledger, &extra, 10_001), None);
                ingest(&ledger, &extra, &[(row(10_001), Some(&round.to_be_bytes()))]);
                assert_eq!(get(&ledger, &extra, 10_001).unwrap().unwrap(), round.to_be_bytes());
            }
        });
        scope.spawn(|| {
            for n in 0..3 {
                let target = dir.path().join(format!("copy{n}"));
                copy_journal(&options(&folder), &keys(), &target).unwrap();
                let report = verify(&target).unwrap();
                assert_eq!(row_files(&target).len(), report.row_segments);
                let again = open(&target);
                let (base, extra) = (known(&again, base.label), known(&again, extra.label));
                assert_eq!(walk(&again, &base, 100).len(), ROWS as usize);
                assert_eq!(text(&again, &extra, 10_000).unwrap(), "kept");
                again.close();
                // The one that is served, too.
                verify(&folder).unwrap();
            }
        });
        let mut written = 0;
        while written < 30 || reads.load(Ordering::Relaxed) < 200 {
            written += 1;
            let rows = batch(&[version(written)]);
            let rows: Vec<Row<'_>> = rows.iter().map(|(row, plain)| (*row, plain.as_deref())).collect();
            ingest(&ledger, &base, &rows);
            answered.store(written, Ordering::SeqCst);
            assert_eq!(get(&ledger, &base, ROWS - 1).unwrap().unwrap(), version(written));
        }
        over.store(true, Ordering::SeqCst);
    });
    let all = walk(&ledger, &base, MOST_ROWS);
    ledger.close();
    let ledger = open(&folder);
    assert!(walk(&ledger, &base, 64) == all);
    ledger.close();
}

/// All steps of a feed, in pages, by row: whether the row is there.
fn fed(
    ledger: &Ledger,
    resource: &Resource,
    after: &mut Option<ledger::Step>,
    page: usize,
) -> Vec<(Key, bool)> {
    let mut found = Vec::new();
    loop {
        let moved = ledger.rows().moved(&resource.label, after.as_ref(), page).unwrap();
        let Some(last) = moved.last() else { return found };
        *after = Some(last.step);
        found.extend(moved.iter().map(|moved| (moved.step.row, moved.place.is_some())));
    }
}

#[test]
fn a_feed_says_rows_and_removals_in_the_order_of_their_commits_over_rewrites_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let resource = resource(&ledger, 1, &[(row(1), Some(b"a")), (row(2), Some(b"b"))]);
    // Appended earlier, and committed later.
    let slow =
        [ledger.rows().append(&resource.key, &[(row(3), Some(b"slow")), (row(4), Some(b"d"))]).unwrap()];
    ingest(&ledger, &resource, &[(row(3), Some(b"fast"))]);
    let mut after = None;
    let first = fed(&ledger, &resource, &mut after, 2);
    assert_eq!(first.len(), 3);
    commit_now(&ledger, entry_of(&slow));
    assert_eq!(fed(&ledger, &resource, &mut after, 1), [(row(4), true)], "the later append of row 3 counts");
    ingest(&ledger, &resource, &[(row(1), None), (row(2), Some(b"c"))]);
    // A rewritten segment says nothing anew.
    let rewritten = ledger.rows().erase(&resource.key, &[row(4)]).unwrap();
    commit_now(&ledger, entry_of(&rewritten));
    let (label, behind) = (resource.label, after);
    drop(ledger);
    let ledger = open(dir.path());
    let resource = known(&ledger, label);
    let mut news = fed(&ledger, &resource, &mut after, 1);
    news.sort_unstable();
    let mut expected = vec![(row(1), false), (row(2), true)];
    expected.sort_unstable();
    assert_eq!(news, expected);
    assert!(fed(&ledger, &resource, &mut after, 5).is_empty());
    let mut all: Option<ledger::Step> = None;
    assert_eq!(fed(&ledger, &resource, &mut all, 100).len(), 3, "rows 2 and 3, and that row 1 is gone");
    assert_eq!(all, after);
    assert!(ledger.rows().last_order(&label) == after.unwrap().order && behind < after);
}

/// Writes anew what is worth it, until nothing is; how often.
fn compact(ledger: &Ledger, resource: &Resource) -> usize {
    for round in 0.. {
        runtime().block_on(ledger.rows().settled(&resource.label)).unwrap();
        let Some(due) = ledger.rows().due() else { return round };
        assert_eq!(due.label(), resource.label);
        let written = [ledger.rows().compact(&resource.key, &due).unwrap()];
        commit_now(ledger, entry_of(&written));
    }
    unreachable!("there are ever fewer rows that are gone")
}

/// Whether any row file of a folder has this sealed row: files are compared by their rows' lengths, which the tests choose.
fn lengths(folder: &Path) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for file in row_files(folder) {
        let bytes = fs::read(file).unwrap();
        let count = u32::from_be_bytes(bytes[44..48].try_into().unwrap());
        for entry in bytes[80..].chunks(24).take(count as usize) {
            found.insert(u32::from_be_bytes(entry[20..24].try_into().unwrap()));
        }
    }
    found
}

#[test]
fn rows_that_were_removed_or_replaced_go_from_the_disk_and_nothing_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let resource =
        resource(&ledger, 1, &[(row(1), Some(&[1; 11])), (row(2), Some(&[2; 12])), (row(3), Some(&[3; 13]))]);
    assert!(ledger.rows().due().is_none());
    ingest(&ledger, &resource, &[(row(1), None), (row(2), Some(&[2; 22]))]);
    let mut after = None;
    let before = fed(&ledger, &resource, &mut after, 10);
    let place = runtime().block_on(ledger.rows().find(&resource.label, &row(3))).unwrap().unwrap();
    let due = ledger.rows().due().unwrap();
    // Not committed it changes nothing, and of two that write the same segment one is decided again.
    drop(ledger.rows().compact(&resource.key, &due).unwrap());
    assert_eq!(row_files(dir.path()).len(), 2);
    let race = [ledger.rows().compact(&resource.key, &due).unwrap()];
    drop(due);
    assert_eq!(compact(&ledger, &resource), 1);
    assert!(matches!(outcome(&ledger, entry_of(&race)), Ok(Outcome::Changed)));
    race.into_iter().for_each(PreparedSegment::discard);
    assert_eq!(ledger.rows().read(&place).unwrap().len(), 13, "whoever found the row still reads it");
    drop(place);
    wait_for_files(dir.path(), 2);
    let check = |ledger: &Ledger| {
        let found: Vec<usize> = walk(ledger, &resource, 1).into_values().map(|row| row.len()).collect();
        assert_eq!(found.iter().sum::<usize>(), 22 + 13);
        assert_eq!(lengths(dir.path()), BTreeSet::from([0, 22 + 28, 13 + 28]), "nor is a copy on the disk");
        assert!(ledger.rows().due().is_none());
        // A reader of the feed reads nothing twice, and one who begins reads the same as before.
        let mut all = None;
        let again = fed(ledger, &resource, &mut all, 10);
        assert_eq!(again.iter().collect::<BTreeSet<_>>(), before.iter().collect::<BTreeSet<_>>());
        assert!(fed(ledger, &resource, &mut after.clone(), 10).is_empty());
    };
    check(&ledger);
    ledger.close();
    for image in [true, false] {
        let (ledger, _) = open_with(Options { image, ..options(dir.path()) });
        check(&ledger);
        ledger.close();
    }
    assert_eq!(verify(dir.path()).unwrap().row_segments, 2);
}

#[test]
fn small_segments_become_one_and_a_batch_of_this_process_stays_the_newer() {
    const BATCHES: u32 = 20;
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let resource = resource(&ledger, 1, &[(row(0), Some(b"0"))]);
    for n in 1..BATCHES {
        let plain = n.to_string();
        ingest(&ledger, &resource, &[(row(n), Some(plain.as_bytes())), (row(100), Some(plain.as_bytes()))]);
    }
    // One of this process: a batch that was written before may still be committed between two of them.
    let rounds = compact(&ledger, &resource);
    assert!(rounds > 0 && ledger.rows().counts(&resource.label).segments == BATCHES as usize);
    let label = resource.label;
    ledger.close();
    let ledger = open(dir.path());
    let resource = known(&ledger, label);
    let early = [ledger.rows().append(&resource.key, &[(row(7), Some(b"newer"))]).unwrap()];
    assert_eq!(compact(&ledger, &resource), 1);
    assert_eq!(ledger.rows().counts(&label).segments, 1);
    commit_now(&ledger, entry_of(&early));
    let check = |ledger: &Ledger| {
        assert_eq!(walk(ledger, &resource, 3).len(), BATCHES as usize + 1);
        assert_eq!(
            (text(ledger, &resource, 7).unwrap().as_str(), text(ledger, &resource, 8).unwrap().as_str()),
            ("newer", "8")
        );
        assert_eq!(text(ledger, &resource, 100).unwrap(), (BATCHES - 1).to_string());
        assert_eq!(fed(ledger, &resource, &mut None, 4).len(), BATCHES as usize + 1);
    };
    check(&ledger);
    ledger.close();
    let ledger = open(dir.path());
    check(&ledger);
    ledger.close();
    verify(dir.path()).unwrap();
}

fn path_of(folder: &Path, segment: &Key) -> PathBuf {
    folder.join(format!("journal/rows/{:032x}.rows", u128::from_be_bytes(*segment)))
}

#[test]
fn a_segment_that_cannot_be_read_is_passed_over_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let one: &[u8] = b"one";
    let resource = resource(&ledger, 1, &[1, 2, 3].map(|n| (row(n), Some(one))));
    ingest(&ledger, &resource, &[4, 5].map(|n| (row(n), Some(one))));
    // Both have rows that are gone, the broken one more of them.
    ingest(&ledger, &resource, &[1, 2, 4].map(|n| (row(n), Some(one))));
    let place = runtime().block_on(ledger.rows().find(&resource.label, &row(3))).unwrap().unwrap();
    let broken = path_of(dir.path(), place.segment());
    drop(place);
    let mut bytes = fs::read(&broken).unwrap();
    let at = bytes.len() - 40;
    bytes[80 + 3 * 24..at].iter_mut().for_each(|byte| *byte ^= 1);
    fs::write(&broken, &bytes).unwrap();
    runtime().block_on(ledger.rows().settled(&resource.label)).unwrap();
    let due = ledger.rows().due().unwrap();
    assert!(matches!(ledger.rows().compact(&resource.key, &due), Err(RowsError::Read(ReadError::Sealed(_)))));
    assert_eq!(ledger.rows().unreadable(), 1);
    drop(due);
    assert_eq!(compact(&ledger, &resource), 1, "the other one is written anew");
    assert!(broken.exists() && ledger.rows().counts(&resource.label).segments == 3);
    // Once nothing in it counts any more it ends, unread.
    ingest(&ledger, &resource, &[(row(3), Some(one))]);
    assert_eq!(compact(&ledger, &resource), 1);
    wait_for_files(dir.path(), 3);
    assert!(!broken.exists() && ledger.rows().unreadable() == 0);
    assert_eq!(walk(&ledger, &resource, 10).len(), 5);
    ledger.close();
}

#[test]
fn segments_in_which_nothing_counts_any_more_end_together() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let resource = resource(&ledger, 1, &[(row(1), Some(b"0"))]);
    for n in 1..20_u8 {
        ingest(&ledger, &resource, &[(row(1), Some(&[n]))]);
    }
    runtime().block_on(ledger.rows().settled(&resource.label)).unwrap();
    let due = ledger.rows().due().unwrap();
    assert_eq!(due.count(), 19);
    drop(due);
    assert_eq!(compact(&ledger, &resource), 1);
    wait_for_files(dir.path(), 1);
    // A segment that removes a row still says so.
    ingest(&ledger, &resource, &[(row(1), None)]);
    assert_eq!(compact(&ledger, &resource), 1);
    assert_eq!((text(&ledger, &resource, 1), ledger.rows().counts(&resource.label).segments), (None, 1));
    ledger.close();
    let ledger = open(dir.path());
    assert_eq!(text(&ledger, &resource, 1), None);
    ledger.close();
}

#[test]
fn the_note_of_a_removal_is_found_over_rewrites_and_restarts_and_is_no_row() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = open(dir.path());
    let mut resource = resource(&ledger, 1, &[(row(1), Some(b"one")), (row(2), Some(b"two"))]);
    let batch: [(Key, Written<'_>); 3] =
        [(row(1), Written::Removal(b"note")), (row(2), Written::Row(b"2")), (row(3), Written::Row(b"3"))];
    let prepared = [ledger.rows().put(&resource.key, &batch).unwrap()];
    commit_now(&ledger, entry_of(&prepared));
    drop(prepared);
    ingest(&ledger, &resource, &[(row(3), Some(b"three"))]);
    for restart in [false, true] {
        let last = ledger.rows().last(&resource.label, &row(1)).unwrap().unwrap();
        let note = last.place.as_ref().map(|place| ledger.rows().read(place).unwrap().to_vec());
        assert_eq!((last.removed, note.as_deref()), (true, Some(&b"note"[..])));
        drop(last);
        assert_eq!((text(&ledger, &resource, 1), walk(&ledger, &resource, 1).len()), (None, 2));
        let moved = ledger.rows().moved(&resource.label, None, 10).unwrap();
        let removed = moved.iter().find(|moved| moved.step.row == row(1)).unwrap();
        assert!(removed.place.is_none() && removed.note.is_some());
        drop(moved);
        if restart {
            break;
        }
        assert_eq!(compact(&ledger, &resource), 2);
        let label = resource.label;
        ledger.close();
        ledger = open(dir.path());
        resource = known(&ledger, label);
    }
    ledger.close();
}

#[test]
fn the_key_of_a_year_is_not_destroyed_while_rows_lie_under_it() {
    let dir = tempfile::tempdir().unwrap();
    // The last moment of 2026 in China.
    let clock = Arc::new(AtomicU64::new(1_798_732_800_000 - 1));
    let hooks = {
        let clock = Arc::clone(&clock);
        Hooks { clock: Some(Arc::new(move || clock.load(Ordering::SeqCst))), ..Hooks::default() }
    };
    let (ledger, _) = open_with(Options { hooks, ..options(dir.path()) });
    let resource = resource(&ledger, 1, &[(row(1), Some(b"one")), (row(2), Some(b"two"))]);
    let old = ledger.state().key_names(&resource.label)[0].0;
    clock.fetch_add(1, Ordering::SeqCst);
    let destruction = || command(&Record { destroyed: vec![old], ..Record::default() }, Vec::new());
    let under_it = outcome(&ledger, destruction());
    assert!(matches!(under_it, Err(Refused::Malformed(_))), "{under_it:?}");
    assert_eq!(text(&ledger, &resource, 1).unwrap(), "one");
    // Written anew its rows lie under the key of the new year.
    let mut record = Record::default();
    let key = ledger.sealing_key(&resource.label, &mut record).unwrap();
    let changed = ledger.rows().append(&key, &[(row(1), Some(b"new"))]).unwrap();
    record.documents = changed.documents();
    commit_now(&ledger, command(&record, Vec::new()));
    let resource = Resource { key, ..resource };
    assert_eq!(compact(&ledger, &resource), 1);
    commit_now(&ledger, destruction());
    assert_eq!(
        (text(&ledger, &resource, 1).unwrap().as_str(), text(&ledger, &resource, 2).unwrap().as_str()),
        ("new", "two")
    );
    ledger.close();
}
