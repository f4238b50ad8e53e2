//! Kills, failed writes, full disks, full queues.

use crate::rig::*;

#[test]
fn a_second_open_is_locked_out() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    assert!(matches!(Ledger::open(options(dir.path()), keys()), Err(OpenError::Locked)));
    assert!(matches!(
        ledger::rebuild(options(dir.path()), keys(), RebuildFrom::Zero, &|_| {}),
        Err(OpenError::Locked)
    ));
    let clone = ledger.clone();
    ledger.close();
    assert!(matches!(outcome(&clone, note(&clone)), Err(Refused::Stopped)));
    open(dir.path()).close();
}

#[test]
fn dropping_all_handles_seals_in_the_background() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    commit_now(&ledger, note(&ledger));
    drop(ledger);
    let (ledger, opened) = open_with(options(dir.path()));
    assert_eq!((opened.size, opened.torn), (1, false));
    ledger.close();
}

#[test]
fn killed_before_and_after_every_write_no_answered_entry_is_lost() {
    let dir = TempDir::new().unwrap();
    let crashes = TempDir::new().unwrap();
    let taken = Arc::new(AtomicU64::new(0));
    let answered = Arc::new(AtomicU64::new(0));
    let states: Arc<Mutex<Vec<(PathBuf, u64)>>> = Arc::default();
    // A copy of the folder is what a kill at that moment leaves.
    let snapshot = {
        let (folder, crashes) = (dir.path().to_owned(), crashes.path().to_owned());
        let (answered, states) = (Arc::clone(&answered), Arc::clone(&states));
        move || {
            let number = taken.fetch_add(1, Ordering::Relaxed);
            if number.is_multiple_of(3) {
                let to = crashes.join(number.to_string());
                let acknowledged = answered.load(Ordering::SeqCst);
                copy(&folder, &to);
                states.lock().unwrap().push((to, acknowledged));
            }
        }
    };
    let (before, after) = (snapshot.clone(), snapshot);
    let hooks = Hooks {
        before_write: Some(Arc::new(move |_| {
            before();
            Ok(())
        })),
        after_sync: Some(Arc::new(move |_| after())),
        ..Hooks::default()
    };
    let (ledger, _) = open_with(Options { hooks, ..options(dir.path()) });
    runtime().block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let (ledger, answered) = (ledger.clone(), Arc::clone(&answered));
            tasks.spawn(async move {
                for _ in 0..20 {
                    let part = ledger.seal_subject(0, &[], &[7; 2000]);
                    commit(&ledger, command(&Record::default(), vec![part])).await;
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        tasks.join_all().await;
    });
    ledger.close();
    let whole = verify(dir.path()).unwrap();
    assert!(whole.segments > 2, "{whole:?}");
    let states = std::mem::take(&mut *states.lock().unwrap());
    assert!(states.len() > 10);
    for (folder, acknowledged) in states {
        // The image is copied while it is written, as a kill would find it: any state of it must be survived.
        let (ledger, opened) = open_with(options(&folder));
        assert!((acknowledged..=320).contains(&opened.size), "{opened:?} of {acknowledged}");
        assert_eq!(commit_now(&ledger, note(&ledger)).index, opened.size);
        let digest = ledger.state().digest();
        ledger.close();
        let report = verify(&folder).unwrap();
        assert_eq!((report.size, report.state_digest), (opened.size + 1, digest));
    }
}

#[test]
fn nothing_is_seen_or_answered_before_the_sync() {
    let dir = TempDir::new().unwrap();
    let (reached, at_sync) = mpsc::channel();
    let (release, hold) = mpsc::channel::<()>();
    let hold = Mutex::new(hold);
    let hooks = Hooks {
        before_write: Some(Arc::new(move |frame| {
            if frame == 0 {
                reached.send(()).unwrap();
                hold.lock().unwrap().recv().unwrap();
            }
            Ok(())
        })),
        ..Hooks::default()
    };
    let (ledger, _) = open_with(Options { hooks, ..options(dir.path()) });
    let runtime = runtime();
    let record = Record { licenses: vec![license(key(1), 1, vec![], NO_BODY_PART)], ..Record::default() };
    let waiting = {
        let ledger = ledger.clone();
        runtime.spawn(async move { commit(&ledger, command(&record, Vec::new())).await })
    };
    at_sync.recv().unwrap();
    assert!(ledger.state().license(&key(1)).is_none());
    assert!(!waiting.is_finished());
    assert_eq!(ledger.size(), 0);
    release.send(()).unwrap();
    runtime.block_on(waiting).unwrap();
    assert_eq!((ledger.size(), ledger.state().license(&key(1)).unwrap().version), (1, 1));
    ledger.close();
}

#[test]
fn a_failed_write_stops_the_ledger_for_good() {
    static FATAL: AtomicU64 = AtomicU64::new(0);
    let dir = TempDir::new().unwrap();
    let hooks = Hooks {
        before_write: Some(Arc::new(
            |frame| if frame >= 1 { Err(io::Error::other("bad disk")) } else { Ok(()) },
        )),
        ..Hooks::default()
    };
    let on_fatal = |cause: &str| {
        assert!(cause.contains("bad disk"));
        FATAL.fetch_add(1, Ordering::Relaxed);
    };
    // Without the idle seal: the second frame is a group.
    let (ledger, _) = open_with(Options { hooks, on_fatal, image: false, ..options(dir.path()) });
    let first = outcome(&ledger, note(&ledger));
    assert!(matches!(first, Ok(Outcome::Committed(_))), "{first:?}");
    while ledger.health().stopped.is_none() {
        let refused = outcome(&ledger, note(&ledger));
        assert!(matches!(refused, Err(Refused::Stopped)), "{refused:?}");
    }
    assert!(matches!(outcome(&ledger, note(&ledger)), Err(Refused::Stopped)));
    assert_eq!(ledger.size(), 1);
    ledger.close();
    // The ledger has stopped a moment before it says why.
    assert_eq!(FATAL.load(Ordering::Relaxed), 1);
    let ledger = open_without_image(dir.path());
    assert_eq!(commit_now(&ledger, note(&ledger)).index, 1);
    ledger.close();
}

/// Memory is not to be trusted: one flipped bit in what is signed and synced has ended logs for good.
#[test]
fn a_bit_that_flips_in_memory_is_never_answered_from() {
    /// A prime, so that every kind of field is met.
    const STEP: usize = 11;
    let dir = TempDir::new().unwrap();
    let (mut committed, mut stopped) = (0, 0);
    let laid_out = Arc::new(AtomicU64::new(u64::MAX));
    for at in (0..).step_by(STEP) {
        let length = Arc::clone(&laid_out);
        let flip = move |content: &mut [u8]| {
            length.store(content.len() as u64, Ordering::Relaxed);
            content.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 0x10);
        };
        let hooks = Hooks { laid_out: Some(Arc::new(flip)), ..Hooks::default() };
        // Refused if an earlier round answered from a frame that is not whole.
        let (ledger, _) = open_with(Options { hooks, image: false, ..options(dir.path()) });
        match outcome(&ledger, note(&ledger)) {
            Ok(Outcome::Committed(_)) => committed += 1,
            Err(Refused::Stopped) => {
                stopped += 1;
                let cause = ledger.health().stopped.unwrap();
                assert!(cause.contains("memory changed"), "{cause}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(ledger.size(), committed, "byte {at}");
        ledger.close();
        if at as u64 >= laid_out.load(Ordering::Relaxed) {
            break;
        }
    }
    // Behind the end nothing flips, and in the room for the nonce nothing is yet.
    assert!((1..=3).contains(&committed) && stopped > 40, "{committed} {stopped}");
    assert_eq!(verify(dir.path()).unwrap().size, committed);
}

#[test]
fn below_the_reserve_it_refuses_and_recovers_by_itself() {
    let dir = TempDir::new().unwrap();
    let low = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&low);
    let hooks = Hooks {
        free_space: Some(Arc::new(move |_| {
            let free_bytes = if seen.load(Ordering::SeqCst) { 2 * (256 << 10) - 1 } else { 1 << 30 };
            Ok(Space { free_bytes, total_bytes: 1 << 30 })
        })),
        ..Hooks::default()
    };
    let (ledger, _) = open_with(Options { hooks, ..options(dir.path()) });
    assert!(ledger.health().journal_full);
    assert!(matches!(outcome(&ledger, note(&ledger)), Err(Refused::Full)));
    low.store(false, Ordering::SeqCst);
    while ledger.health().journal_full {
        std::thread::sleep(Duration::from_millis(5));
    }
    commit_now(&ledger, note(&ledger));
    low.store(true, Ordering::SeqCst);
    while !ledger.health().journal_full {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(matches!(outcome(&ledger, note(&ledger)), Err(Refused::Full)));
    assert_eq!(ledger.size(), 1);
    ledger.close();
}

#[test]
fn a_full_queue_is_overload() {
    let dir = TempDir::new().unwrap();
    let (release, hold) = mpsc::channel::<()>();
    let (writing, held) = mpsc::channel();
    let hold = Mutex::new(hold);
    let hooks = Hooks {
        before_write: Some(Arc::new(move |frame| {
            if frame == 0 {
                writing.send(()).unwrap();
                hold.lock().unwrap().recv().unwrap();
            }
            Ok(())
        })),
        ..Hooks::default()
    };
    let (ledger, _) = open_with(Options { hooks, queue: 4, ..options(dir.path()) });
    let runtime = runtime();
    let submitted = || {
        let ledger = ledger.clone();
        runtime.spawn(async move { ledger.commit(note(&ledger)).await })
    };
    let mut tasks = vec![submitted()];
    // From here on the sequencer takes nothing out of the queue.
    held.recv().unwrap();
    tasks.extend((0..19).map(|_| submitted()));
    while tasks.iter().filter(|task| task.is_finished()).count() < 15 {
        std::thread::yield_now();
    }
    release.send(()).unwrap();
    let (mut committed, mut overloaded) = (0, 0);
    for task in tasks {
        match runtime.block_on(task).unwrap() {
            Ok(Outcome::Committed(_)) => committed += 1,
            Err(Refused::Overloaded) => overloaded += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((committed, overloaded), (5, 15));
    assert_eq!(ledger.size(), committed);
    ledger.close();
}

#[test]
fn a_file_that_goes_under_the_running_journal_stops_it() {
    static CAUSES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let on_fatal = |cause: &str| CAUSES.lock().unwrap().push(cause.to_owned());
    type Harm = fn(&Path);
    // The next segment may go before the keeper that made it has looked at it.
    let harms: [(&[&str], Harm); 8] = [
        (&["0000000001.mxj was deleted"], |folder| fs::remove_file(segment_path(folder, 1)).unwrap()),
        (&["0000000001.mxj was replaced"], |folder| {
            let copy = folder.join("copy");
            fs::copy(segment_path(folder, 1), &copy).unwrap();
            fs::rename(copy, segment_path(folder, 1)).unwrap();
        }),
        (&["0000000001.mxj was truncated"], |folder| cut(&segment_path(folder, 1), 1000)),
        (&["0000000000.mxj was deleted"], |folder| fs::remove_file(segment_path(folder, 0)).unwrap()),
        (&["0000000000.mxj was truncated"], |folder| cut(&segment_path(folder, 0), 100)),
        (&["0000000002.mxj was deleted", "preparing segment 2 failed"], |folder| {
            while !segment_path(folder, 2).exists() {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_millis(50));
            fs::remove_file(segment_path(folder, 2)).unwrap();
        }),
        (&["guard was deleted"], |folder| fs::remove_file(guard_path(folder)).unwrap()),
        (&["lock was deleted"], |folder| fs::remove_file(folder.join("journal/lock")).unwrap()),
    ];
    for (told, harm) in harms {
        let dir = TempDir::new().unwrap();
        let ledger = open_without_image(dir.path());
        commit_now(&ledger, note(&ledger));
        ledger.close();
        let (written, sealed) = mpsc::channel();
        let hooks = Hooks {
            after_sync: Some(Arc::new(move |frame| written.send(frame).unwrap())),
            ..Hooks::default()
        };
        let (ledger, _) = open_with(Options { on_fatal, image: false, hooks, ..options(dir.path()) });
        commit_now(&ledger, note(&ledger));
        // Idle: behind this seal nothing is written any more.
        while sealed.recv().unwrap() != 3 {}
        harm(dir.path());
        // Nothing is asked of the ledger: it finds out by itself.
        while ledger.health().stopped.is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(matches!(outcome(&ledger, note(&ledger)), Err(Refused::Stopped)));
        ledger.close();
        let causes = std::mem::take(&mut *CAUSES.lock().unwrap());
        let is_told = told.iter().any(|told| causes[0].contains(told));
        assert!(causes.len() == 1 && is_told, "{told:?}: {causes:?}");
    }
}

#[test]
fn nothing_is_answered_from_a_segment_that_is_gone() {
    type Harm = fn(&Path);
    // The keeper's look, once a second, may come before the group.
    let harms: [(&[&str], Harm); 3] = [
        (&["deleted"], |folder| fs::remove_file(segment_path(folder, 0)).unwrap()),
        (&["deleted", "replaced"], |folder| {
            fs::write(folder.join("other"), b"").unwrap();
            fs::rename(folder.join("other"), segment_path(folder, 0)).unwrap();
        }),
        (&["truncated"], |folder| cut(&segment_path(folder, 0), 0)),
    ];
    for (told, harm) in harms {
        let dir = TempDir::new().unwrap();
        let ledger = open_without_image(dir.path());
        commit_now(&ledger, note(&ledger));
        // With the next group at the latest.
        harm(dir.path());
        let refused = outcome(&ledger, note(&ledger));
        assert!(matches!(refused, Err(Refused::Stopped)), "{refused:?}");
        let cause = ledger.health().stopped.unwrap();
        assert!(told.iter().any(|told| cause.contains(told)), "{told:?}: {cause}");
        assert_eq!(ledger.size(), 1);
        ledger.close();
    }
}

fn cut(path: &Path, len: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

#[test]
fn tiles_that_could_not_be_written_are_told_and_written_later() {
    let dir = TempDir::new().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&broken);
    let hooks = Hooks {
        tiles_write: Some(Arc::new(move || match fails.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        })),
        ..Hooks::default()
    };
    let (ledger, _) = open_with(Options { hooks, ..options(dir.path()) });
    let published = |size| {
        while ledger.published().0 != size {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    commit_now(&ledger, note(&ledger));
    published(1);
    assert_eq!(ledger.health().failing, []);
    broken.store(true, Ordering::SeqCst);
    for _ in 0..300 {
        commit_now(&ledger, note(&ledger));
    }
    while ledger.health().failing != [ledger::Derived::Tiles] {
        std::thread::sleep(Duration::from_millis(5));
    }
    // The journal goes on, the public log does not.
    let last = commit_now(&ledger, note(&ledger));
    assert_eq!((ledger.size(), ledger.published().0), (302, 1));
    broken.store(false, Ordering::SeqCst);
    published(302);
    assert_eq!(ledger.health().failing, []);
    check_receipt(&ledger, &last, &ledger.proof(301).unwrap().unwrap());
    ledger.close();
    assert_eq!(verify(dir.path()).unwrap().problems, Vec::<String>::new());
}

#[test]
fn tiles_that_are_never_written_are_made_by_the_next_start() {
    let dir = TempDir::new().unwrap();
    let hooks =
        Hooks { tiles_write: Some(Arc::new(|| Err(io::ErrorKind::StorageFull.into()))), ..Hooks::default() };
    let (ledger, _) = open_with(Options { hooks, ..options(dir.path()) });
    for _ in 0..3 {
        commit_now(&ledger, note(&ledger));
    }
    assert_eq!(ledger.published().0, 0);
    ledger.close();
    let ledger = open(dir.path());
    assert_eq!(ledger.published().0, 3);
    ledger.close();
}

#[test]
fn a_thread_that_dies_behind_the_journal_is_told() {
    let dir = TempDir::new().unwrap();
    let hooks = Hooks { tiles_write: Some(Arc::new(|| panic!("dies"))), ..Hooks::default() };
    let (ledger, _) = open_with(Options { hooks, ..options(dir.path()) });
    commit_now(&ledger, note(&ledger));
    while ledger.health().failing != [ledger::Derived::Tiles] {
        std::thread::sleep(Duration::from_millis(5));
    }
    // It costs what it derives.
    for _ in 0..2000 {
        commit_now(&ledger, note(&ledger));
    }
    assert_eq!(ledger.health().stopped, None);
    ledger.close();
    let ledger = open(dir.path());
    assert_eq!((ledger.size(), ledger.published().0), (2001, 2001));
    ledger.close();
}
