//! What is committed, what is sent back and what is refused.

use crate::rig::*;

#[test]
fn what_is_committed_is_there_after_reopening() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    let (first, holder) = issue(&ledger, 7);
    check_receipt(&ledger, &first, first.proof.as_ref().unwrap());
    let extra = [&first.salt[..], &first.c, &first.open].concat();
    assert_eq!(first.proof.as_ref().unwrap().extra.as_deref(), Some(&extra[..]));

    let grant = GrantState {
        key: key(9),
        version: 1,
        state: 1,
        holder: holder.label,
        grantee: ORGANISATION,
        target: key(7),
        target_is_type: false,
        modes: 5,
        fields: 3,
        item_tag: 0,
        until_ms: 77,
        max_uses: 2,
        portal: ORGANISATION,
        purpose: Some("测试用途".into()),
        scenario: 3,
        user_tag: 9,
        assurance: 2,
        chain: vec![GrantLink { key: key(4), since_ms: 5 }],
        more_targets: vec![GrantTarget { key: key(6), fields: 7 }],
    };
    let document = DocumentState {
        kind: DocumentKind::LicenseType.number(),
        key: key(8),
        version: 1,
        value: b"x".to_vec(),
        owners: vec![[5; 16], [6; 16]],
        ends_ms: u64::MAX,
    };
    let record = Record {
        grants: vec![grant],
        documents: vec![document],
        counters: vec![CounterUse { key: key(9), day: 0, amount: 2, limit: 2 }],
        ..Record::default()
    };
    let second = commit_now(&ledger, command(&record, Vec::new()));
    let third = commit_now(&ledger, use_of(&ledger, 7));
    assert_eq!((first.index, second.index, third.index, ledger.size()), (0, 1, 2, 3));
    let digest = ledger.state().digest();
    ledger.close();

    for (image, from_image) in [(true, true), (false, false)] {
        let (ledger, opened) = open_with(Options { image, ..options(dir.path()) });
        assert_eq!((opened.size, opened.from_image, opened.torn), (3, from_image, false));
        assert_eq!(ledger.state().digest(), digest);
        // On the disk it has another name than the one that it is asked for by.
        let id = ledger.state().grant_id(&key(9));
        assert_eq!(ledger.state().grant(&id).unwrap().until_ms, 77);
        assert_eq!(ledger.state().grant(&key(9)), None);
        assert_eq!(&*ledger.state().document(DocumentKind::LicenseType, &key(8)).unwrap().value, b"x");
        assert_eq!(ledger.state().documents(DocumentKind::LicenseType).len(), 1);
        assert_eq!(ledger.state().counter(&key(9), 0), 2);
        let known = ledger.state().holder(&key(7)).unwrap();
        assert_eq!((known.label, known.head.sequence, known.head.index), (holder.label, 2, 2));
        assert_eq!(known.head.leaf_hash, third.leaf_hash);
        assert_eq!(ledger.state().licenses_of(&holder.label), vec![key(7)]);
        let body = ledger.state().license(&key(7)).unwrap().body;
        assert_eq!(ledger.open_subject(body).unwrap(), SECRET);
        for committed in [&first, &second, &third] {
            check_receipt(&ledger, committed, &ledger.proof(committed.index).unwrap().unwrap());
        }
        assert!(ledger.proof(3).unwrap().is_none());
        ledger.close();
    }
    assert_eq!(verify(dir.path()).unwrap().size, 3);
}

#[test]
fn many_callers_get_each_index_exactly_once() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    let committed: Vec<Committed> = runtime().block_on(async {
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let ledger = ledger.clone();
                tokio::spawn(async move {
                    let mut mine = Vec::new();
                    for _ in 0..40 {
                        let mut command = note(&ledger);
                        command.inline_proof = true;
                        mine.push(commit(&ledger, command).await);
                    }
                    mine
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        all
    });
    let indexes: BTreeSet<u64> = committed.iter().map(|committed| committed.index).collect();
    assert_eq!((indexes.len(), indexes.last()), (64 * 40, Some(&(64 * 40 - 1))));
    for committed in &committed {
        check_receipt(&ledger, committed, committed.proof.as_ref().unwrap());
    }
    ledger.close();
    let ledger = open(dir.path());
    for committed in &committed {
        check_receipt(&ledger, committed, &ledger.proof(committed.index).unwrap().unwrap());
    }
    ledger.close();
    let report = verify(dir.path()).unwrap();
    // Far more than one segment of 256 KiB, and far fewer frames than entries.
    assert!(report.segments > 3 && report.frames < report.size, "{report:?}");
}

#[test]
fn many_at_once_are_one_group_and_each_has_its_own_outcome() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    let mut changed = note(&ledger);
    changed.reads.push((Fact::License(key(1)), 5));
    let mut malformed = note(&ledger);
    malformed.permit_or_denial.open.clear();
    let mut proven = note(&ledger);
    proven.inline_proof = true;
    let commands = vec![note(&ledger), changed, proven, malformed, note(&ledger)];
    let outcomes = runtime().block_on(ledger.commit_all(commands));
    let index = |outcome: &Result<Outcome, Refused>| match outcome {
        Ok(Outcome::Committed(committed)) => Some(committed.index),
        Ok(Outcome::Changed) | Err(_) => None,
    };
    assert_eq!(outcomes.iter().map(index).collect::<Vec<_>>(), [Some(0), None, Some(1), None, Some(2)]);
    assert!(matches!(outcomes[1], Ok(Outcome::Changed)) && matches!(outcomes[3], Err(Refused::Malformed(_))));
    let Ok(Outcome::Committed(committed)) = &outcomes[2] else { panic!("committed") };
    check_receipt(&ledger, committed, committed.proof.as_ref().unwrap());
    assert!(runtime().block_on(ledger.commit_all(Vec::new())).is_empty());
    ledger.close();
    let report = verify(dir.path()).unwrap();
    assert_eq!((report.size, report.frames), (3, 2), "a group and a seal: {report:?}");

    // More than a group may hold, and what is queued before the end, is committed all the same, in order.
    let ledger = open_with(Options { group_entries: 4, ..options(dir.path()) }).0;
    let commands: Vec<Command> = (0..50).map(|_| note(&ledger)).collect();
    let outcomes = runtime().block_on(async {
        let many = ledger.commit_all(commands);
        let ended = async {
            let ledger = ledger.clone();
            tokio::task::spawn_blocking(move || ledger.close()).await.unwrap();
        };
        tokio::join!(many, ended).0
    });
    assert_eq!(outcomes.iter().map(index).collect::<Vec<_>>(), (3..53).map(Some).collect::<Vec<_>>());
    drop(ledger);
    assert_eq!(verify(dir.path()).unwrap().size, 53);
}

#[test]
fn exactly_one_of_many_creators_of_a_license_wins() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    for named in [true, false] {
        let license_key = key(u8::from(named) + 1);
        let won = Arc::new(AtomicU64::new(0));
        runtime().block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..64 {
                let (ledger, won) = (ledger.clone(), Arc::clone(&won));
                tasks.spawn(async move {
                    let record = Record {
                        licenses: vec![license(license_key, 1, vec![], NO_BODY_PART)],
                        ..Record::default()
                    };
                    let mut command = command(&record, Vec::new());
                    if named {
                        command.reads = vec![(Fact::License(license_key), 0)];
                    }
                    match ledger.commit(command).await.unwrap() {
                        Outcome::Committed(_) => won.fetch_add(1, Ordering::Relaxed),
                        Outcome::Changed => {
                            // Whoever lost sees at once what got in the way.
                            u64::from(ledger.state().license(&license_key).unwrap().version)
                        }
                    };
                });
            }
            tasks.join_all().await;
        });
        assert_eq!(won.load(Ordering::Relaxed), 1);
    }
    assert_eq!((ledger.size(), ledger.state().counts().licenses), (2, 2));
    ledger.close();
}

#[test]
fn counters_are_exact_under_concurrency() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    let (permits, denials) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    runtime().block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..64 {
            let (ledger, permits, denials) = (ledger.clone(), Arc::clone(&permits), Arc::clone(&denials));
            tasks.spawn(async move {
                for _ in 0..16 {
                    let counter = CounterUse { key: key(1), day: 0, amount: 1, limit: 100 };
                    let record = Record { counters: vec![counter], ..Record::default() };
                    let outcome = ledger.commit(command(&record, Vec::new())).await.unwrap();
                    if let Outcome::Committed(_) = outcome {
                        permits.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    // Who is told to decide again finds the counter spent.
                    assert_eq!(ledger.state().counter(&key(1), 0), 100);
                    commit(&ledger, command(&Record { reason: 9, ..Record::default() }, Vec::new())).await;
                    denials.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        tasks.join_all().await;
    });
    assert_eq!(permits.load(Ordering::Relaxed), 100);
    assert_eq!(denials.load(Ordering::Relaxed), 64 * 16 - 100);
    assert_eq!((ledger.state().counter(&key(1), 0), ledger.size()), (100, 64 * 16));
    ledger.close();
    let ledger = open_without_image(dir.path());
    assert_eq!(ledger.state().counter(&key(1), 0), 100);
    ledger.close();
}

#[test]
fn two_counters_of_one_entry_add_up_and_spend_together() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    let attempt = |first: u32, second: u32| {
        let counters = vec![
            CounterUse { key: key(1), day: 0, amount: first, limit: 5 },
            CounterUse { key: key(1), day: 0, amount: second, limit: 5 },
            CounterUse { key: key(2), day: 0, amount: 1, limit: 10 },
        ];
        let command = command(&Record { counters, ..Record::default() }, Vec::new());
        matches!(outcome(&ledger, command), Ok(Outcome::Changed))
    };
    assert!(!attempt(2, 3));
    assert!(attempt(0, 1));
    assert!(attempt(u32::MAX, 0));
    assert!(!attempt(0, 0));
    assert_eq!((ledger.state().counter(&key(1), 0), ledger.state().counter(&key(2), 0)), (5, 2));
    assert_eq!(ledger.size(), 2, "what is to be decided again is no entry");
    ledger.close();
}

#[test]
fn counters_of_past_days_are_dropped() {
    const DAY_MS: u64 = 86_400_000;
    let dir = TempDir::new().unwrap();
    let now = Arc::new(AtomicU64::new(20_000 * DAY_MS));
    let clock = Arc::clone(&now);
    let hooks = Hooks { clock: Some(Arc::new(move || clock.load(Ordering::Relaxed))), ..Hooks::default() };
    let with_clock = |image| Options { image, hooks: hooks.clone(), ..options(dir.path()) };
    let ledger = open_with(with_clock(true)).0;
    for day in 0..5 {
        now.store((20_000 + day) * DAY_MS, Ordering::Relaxed);
        let counters = [20_000 + day as u32, 0]
            .map(|day| CounterUse { key: key(1), day, amount: 1, limit: 10 })
            .to_vec();
        commit_now(&ledger, command(&Record { counters, ..Record::default() }, Vec::new()));
    }
    let values = |state: &State| [20_002, 20_003, 20_004, 0].map(|day| state.counter(&key(1), day));
    assert_eq!(values(ledger.state()), [0, 1, 1, 5]);
    let digest = ledger.state().digest();
    ledger.close();
    for image in [true, false] {
        let ledger = open_with(with_clock(image)).0;
        assert_eq!((values(ledger.state()), ledger.state().digest()), ([0, 1, 1, 5], digest));
        ledger.close();
    }
}

#[test]
fn a_changed_or_ended_fact_sends_the_command_back() {
    let dir = TempDir::new().unwrap();
    let now = Arc::new(AtomicU64::new(1_000_000));
    let clock = Arc::clone(&now);
    let hooks = Hooks { clock: Some(Arc::new(move || clock.load(Ordering::Relaxed))), ..Hooks::default() };
    let ledger = open_with(Options { hooks, ..options(dir.path()) }).0;
    let (_, holder) = issue(&ledger, 1);
    let document = |version| DocumentState { kind: 1, key: key(1), version, ..DocumentState::default() };
    let record = Record { documents: vec![document(1)], ..Record::default() };
    commit_now(&ledger, command(&record, Vec::new()));
    let size = ledger.size();

    let read = |fact, version| {
        let mut command = command(&Record::default(), Vec::new());
        command.reads = vec![(fact, version)];
        outcome(&ledger, command)
    };
    let participant = Fact::Document(DocumentKind::Participant, key(1));
    for (fact, version) in [
        (Fact::License(key(1)), 0),
        (Fact::License(key(1)), 2),
        (Fact::License(key(2)), 1),
        (Fact::Holder(key(1)), 0),
        (Fact::Grant(key(1)), 1),
        (participant, 2),
        (Fact::Document(DocumentKind::Rules, key(1)), 1),
        (Fact::Idempotency(key(1)), 1),
        (Fact::Epoch, 2),
    ] {
        assert!(matches!(read(fact, version), Ok(Outcome::Changed)), "{fact:?} {version}");
    }
    let ended = |ends_at_ms| {
        let mut command = command(&Record::default(), Vec::new());
        command.ends_at_ms = ends_at_ms;
        outcome(&ledger, command)
    };
    assert!(matches!(ended(999_999), Ok(Outcome::Changed)));
    assert_eq!(ledger.size(), size);
    assert!(matches!(ended(1_000_000), Ok(Outcome::Committed(_))));
    // Journal time never goes back, whatever the clock does.
    now.store(5, Ordering::Relaxed);
    assert_eq!(commit_now(&ledger, note(&ledger)).time_ms, 1_000_000);
    assert!(matches!(ended(999_999), Ok(Outcome::Changed)));

    // A version that is not the next one, although no fact was named.
    let records = [
        Record { licenses: vec![license(key(1), 1, vec![], NO_BODY_PART)], ..Record::default() },
        Record { licenses: vec![license(key(1), 3, vec![], NO_BODY_PART)], ..Record::default() },
        Record { licenses: vec![license(key(2), 0, vec![], NO_BODY_PART)], ..Record::default() },
        Record { documents: vec![document(1)], ..Record::default() },
        Record { new_holders: vec![new_holder(&ledger.new_holder(holder.key))], ..Record::default() },
    ];
    for record in records {
        assert!(matches!(outcome(&ledger, command(&record, Vec::new())), Ok(Outcome::Changed)), "{record:?}");
    }
    ledger.close();
}

#[test]
fn malformed_commands_are_refused_and_write_nothing() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    let (_, holder) = issue(&ledger, 1);
    let size = ledger.size();
    let part = || ledger.seal_subject(0, &[], SECRET);
    let new = new_holder(&ledger.new_holder(key(3)));
    let mut commands = vec![
        command(&Record { concerned: vec![key(200)], ..Record::default() }, Vec::new()),
        command(&Record { concerned: vec![holder.label; 2], ..Record::default() }, Vec::new()),
        command(&Record { release_ms: 1, ..Record::default() }, Vec::new()),
        command(
            &Record { licenses: vec![license(key(2), 1, vec![key(200)], NO_BODY_PART)], ..Record::default() },
            Vec::new(),
        ),
        command(&Record { licenses: vec![license(key(2), 1, vec![], 1)], ..Record::default() }, vec![part()]),
        command(
            &Record { licenses: vec![license(key(2), 1, vec![], NO_BODY_PART); 2], ..Record::default() },
            Vec::new(),
        ),
        command(&Record { new_holders: vec![new.clone(), new], ..Record::default() }, Vec::new()),
        command(
            &Record {
                idempotency: Some(Idempotency { key: key(1), request: key(1), answer_part: 0 }),
                ..Record::default()
            },
            Vec::new(),
        ),
        command(
            &Record {
                documents: vec![DocumentState {
                    kind: 255,
                    key: key(1),
                    version: 1,
                    ..DocumentState::default()
                }],
                ..Record::default()
            },
            Vec::new(),
        ),
        command(
            &Record {
                new_holders: vec![NewHolder {
                    label: holder.label,
                    ..new_holder(&ledger.new_holder(key(4)))
                }],
                ..Record::default()
            },
            Vec::new(),
        ),
        command(&Record::default(), vec![ledger.seal_subject(1, &[], SECRET)]),
        command(&Record::default(), vec![part()[..20].to_vec()]),
        command(&Record::default(), vec![ledger.seal_subject(0, &[], &vec![0; 70_000])]),
    ];
    let broken = |change: &dyn Fn(&mut Prepared)| {
        let mut command = note(&ledger);
        change(&mut command.permit_or_denial);
        command
    };
    commands.push(broken(&|prepared| prepared.open.truncate(100)));
    commands.push(broken(&|prepared| prepared.open[2] = 0));
    commands.push(broken(&|prepared| {
        let labels = (0..=MAX_LINKS as u128).map(u128::to_be_bytes);
        prepared.record.concerned = labels.collect();
        prepared.told = vec![[0; 32]; MAX_LINKS + 1];
    }));
    commands.push(broken(&|prepared| prepared.told.push([0; 32])));
    commands.push(broken(&|prepared| prepared.open[144] ^= 1));
    commands.push(broken(&|prepared| prepared.subjects = Subjects::none()));
    for (at, command) in commands.into_iter().enumerate() {
        let outcome = outcome(&ledger, command);
        assert!(matches!(outcome, Err(Refused::Malformed(_))), "{at}: {outcome:?}");
    }
    assert_eq!((ledger.size(), ledger.health().stopped), (size, None));
    commit_now(&ledger, note(&ledger));
    ledger.close();
    assert_eq!(verify(dir.path()).unwrap().size, size + 1);
}

#[test]
fn a_holders_entries_are_a_chain_without_gaps() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    issue(&ledger, 1);
    let uses = runtime().block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let ledger = ledger.clone();
            tasks.spawn(async move { commit(&ledger, use_of(&ledger, 1)).await });
        }
        tasks.join_all().await
    });
    let last = uses.iter().max_by_key(|committed| committed.index).unwrap();
    let head = ledger.state().holder(&key(1)).unwrap().head;
    assert_eq!((head.sequence, head.index, head.leaf_hash), (101, last.index, last.leaf_hash));
    ledger.close();
}

#[test]
fn subject_parts_open_for_their_holders_only_and_hold_no_plaintext() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    issue(&ledger, 1);
    issue(&ledger, 2);
    let state = ledger.state();
    let labels = [1, 2].map(|n| state.holder(&key(n)).unwrap().label);
    let holders = labels.map(|label| state.holder_key(&label).unwrap());
    for count in 0..=2 {
        let record = Record { licenses: vec![license(key(10 + count), 1, vec![], 0)], ..Record::default() };
        let part = ledger.seal_subject(0, &holders[..count as usize], SECRET);
        commit_now(&ledger, command(&record, vec![part]));
    }
    let long: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
    let record = Record { licenses: vec![license(key(13), 1, vec![], 1)], ..Record::default() };
    let parts = vec![ledger.seal_subject(0, &holders, SECRET), ledger.seal_subject(1, &holders, &long)];
    commit_now(&ledger, command(&record, parts));
    let check = |ledger: &Ledger| {
        for (n, expected) in [(10, SECRET), (11, SECRET), (12, SECRET), (13, &long)] {
            let body = ledger.state().license(&key(n)).unwrap().body;
            assert_eq!(ledger.open_subject(body).unwrap(), expected, "{n}");
        }
    };
    check(&ledger);
    ledger.close();
    for file in fs::read_dir(dir.path().join("journal")).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(SECRET.len()).any(|window| window == SECRET));
        assert!(!bytes.windows(64).any(|window| window == &long[..64]));
    }
    let ledger = open_without_image(dir.path());
    check(&ledger);
    assert!(ledger.open_subject(ledger::Position::new(0, 70)).is_err());
    assert!(ledger.open_subject(ledger::Position::new(99, 64)).is_err());
    ledger.close();
}

#[test]
fn an_idempotency_key_gives_the_original_answer_and_receipt() {
    let dir = TempDir::new().unwrap();
    let bounded = Options { idempotency_per_organisation: 3, ..options(dir.path()) };
    let ledger = open_with(bounded.clone()).0;
    let bind = |ledger: &Ledger, n: u8| {
        let idempotency = Some(Idempotency { key: key(n), request: key(n + 100), answer_part: 1 });
        let parts = vec![ledger.seal_subject(0, &[], SECRET), ledger.seal_subject(1, &[], &[n; 9])];
        command(&Record { idempotency, ..Record::default() }, parts)
    };
    let original = commit_now(&ledger, bind(&ledger, 1));
    assert!(matches!(outcome(&ledger, bind(&ledger, 1)), Ok(Outcome::Changed)));
    let check = |ledger: &Ledger| {
        let bound = ledger.state().idempotency(&key(1)).unwrap();
        assert_eq!((bound.request, bound.index, bound.organisation), (key(101), 0, ORGANISATION));
        let (answer, committed) = ledger.original(&bound).unwrap();
        assert_eq!((answer, committed), (vec![1; 9], original.clone()));
    };
    check(&ledger);
    ledger.close();
    let ledger = open_with(bounded.clone()).0;
    check(&ledger);
    ledger.close();
    let ledger = open_with(Options { image: false, ..bounded.clone() }).0;
    check(&ledger);
    // The oldest of an organisation goes first.
    for n in 2..=4 {
        commit_now(&ledger, bind(&ledger, n));
    }
    let live = |ledger: &Ledger| (1..=4).map(|n| ledger.state().idempotency(&key(n)).is_some()).collect();
    let expected: Vec<bool> = vec![false, true, true, true];
    assert_eq!(live(&ledger), expected);
    let digest = ledger.state().digest();
    ledger.close();
    let ledger = open_with(bounded).0;
    assert_eq!((live(&ledger), ledger.state().digest()), (expected, digest));
    ledger.close();
}

#[test]
fn idempotency_keys_live_a_day_of_journal_time() {
    const DAY_MS: u64 = 86_400_000;
    let dir = TempDir::new().unwrap();
    let now = Arc::new(AtomicU64::new(DAY_MS));
    let clock = Arc::clone(&now);
    let hooks = Hooks { clock: Some(Arc::new(move || clock.load(Ordering::Relaxed))), ..Hooks::default() };
    let ledger = open_with(Options { hooks, ..options(dir.path()) }).0;
    let idempotency = Some(Idempotency { key: key(1), request: key(1), answer_part: 0 });
    let record = Record { idempotency, ..Record::default() };
    let bind = || command(&record, vec![ledger.seal_subject(0, &[], SECRET)]);
    commit_now(&ledger, bind());
    now.store(2 * DAY_MS - 1, Ordering::Relaxed);
    commit_now(&ledger, note(&ledger));
    assert!(ledger.state().idempotency(&key(1)).is_some());
    now.store(2 * DAY_MS, Ordering::Relaxed);
    commit_now(&ledger, note(&ledger));
    assert!(ledger.state().idempotency(&key(1)).is_none());
    assert_eq!(commit_now(&ledger, bind()).index, 3);
    ledger.close();
}

#[test]
fn by_hand_a_step_commits_what_is_queued_as_one_group() {
    let dir = TempDir::new().unwrap();
    let (ledger, mut sequencer) = Ledger::open_by_hand(options(dir.path()), keys()).unwrap();
    assert_eq!(sequencer.step(), 0);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let committed: Vec<Committed> = runtime.block_on(async {
        let waiting: Vec<_> = (0..64)
            .map(|_| {
                let ledger = ledger.clone();
                tokio::spawn(async move { commit(&ledger, note(&ledger)).await })
            })
            .collect();
        // The runtime polls 61 tasks in turn before it looks elsewhere.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(ledger.size(), 0);
        assert_eq!(sequencer.step(), 64);
        let mut committed = Vec::new();
        for one in waiting {
            committed.push(one.await.unwrap());
        }
        committed
    });
    assert!(committed.iter().map(|one| one.index).eq(0..64));
    assert_eq!(ledger.size(), 64);
    sequencer.end();
    ledger.close();
    let report = verify(dir.path()).unwrap();
    assert_eq!((report.size, report.frames), (64, 1));
}
