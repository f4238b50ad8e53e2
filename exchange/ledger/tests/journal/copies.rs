//! Copies of a journal, also one that is being written.

use crate::rig::*;
use ledger::{copy_journal, verify_log};

#[test]
fn a_copy_is_a_whole_journal_with_all_that_was_answered_before_it() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("data");
    // Three starts: the end of each segment stands in the next one, too.
    for _ in 0..2 {
        let ledger = open(&folder);
        (0..10).for_each(|_| drop(commit_now(&ledger, note(&ledger))));
        ledger.close();
    }
    let ledger = open(&folder);
    let (answered, over) = (AtomicU64::new(ledger.size()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = runtime();
            while !over.load(Ordering::SeqCst) {
                let committed = runtime.block_on(commit(&ledger, note(&ledger)));
                answered.store(committed.index + 1, Ordering::SeqCst);
                // Frames enough to meet the copy, and few enough to check.
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        for name in ["one", "two"] {
            let (before, target) = (answered.load(Ordering::SeqCst), dir.path().join(name));
            let copied = copy_journal(&options(&folder), &keys(), &target).unwrap();
            assert!(!copied.at_rest && copied.tail.size >= before, "{copied:?} after {before} answers");
            let report = verify_log(options(&target), keys(), |_| {}).unwrap();
            assert_eq!((report.size, report.root), (copied.tail.size, copied.tail.root));
            // It is a journal like any other.
            let again = open(&target);
            assert_eq!(again.size(), copied.tail.size);
            again.close();
        }
        over.store(true, Ordering::SeqCst);
    });
    let size = ledger.size();
    ledger.close();
    let copied = copy_journal(&options(&folder), &keys(), &dir.path().join("rest")).unwrap();
    assert_eq!((copied.at_rest, copied.tail.size), (true, size));
}

#[test]
fn a_damaged_journal_is_not_copied_and_a_missing_one_not_made() {
    let dir = TempDir::new().unwrap();
    let (folder, target) = (dir.path().join("data"), dir.path().join("copy"));
    assert!(matches!(copy_journal(&options(&folder), &keys(), &target), Err(OpenError::Options(_))));
    assert!(!folder.exists());
    let ledger = open(&folder);
    (0..3).for_each(|_| drop(commit_now(&ledger, note(&ledger))));
    ledger.close();
    let segment = folder.join("journal/0000000000.mxj");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[HEADER + 40] ^= 1;
    fs::write(&segment, bytes).unwrap();
    assert!(copy_journal(&options(&folder), &keys(), &target).is_err());
}
