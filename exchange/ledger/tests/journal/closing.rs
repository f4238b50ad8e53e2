use crate::rig::*;
use verifier::leaf::statement_leaf;

const STATEMENT: &[u8] = b"miaoxiang shard close v1\nlog.example/test\n";

fn closing() -> Command {
    let empty = prepared(&Record::default(), Vec::new());
    let permit_or_denial = Prepared { kind: LeafKind::ShardClose, open: STATEMENT.to_vec(), ..empty };
    Command { permit_or_denial, ..command(&Record::default(), Vec::new()) }
}

fn plain() -> Command {
    command(&Record::default(), Vec::new())
}

/// Commits many at once, so that they meet in one group.
fn at_once(ledger: &Ledger, commands: Vec<Command>) -> Vec<Result<Outcome, Refused>> {
    runtime().block_on(async {
        let running: Vec<_> = commands
            .into_iter()
            .map(|command| {
                let ledger = ledger.clone();
                tokio::spawn(async move { ledger.commit(command).await })
            })
            .collect();
        let mut outcomes = Vec::new();
        for one in running {
            outcomes.push(one.await.unwrap());
        }
        outcomes
    })
}

#[test]
fn nothing_follows_the_leaf_that_closes_a_log() {
    for image in [true, false] {
        let dir = TempDir::new().unwrap();
        let ledger = open_with(Options { image, ..options(dir.path()) }).0;
        commit_now(&ledger, plain());
        assert!(!ledger.is_closed());
        let commands = (0..200).map(|at| if at == 100 { closing() } else { plain() }).collect();
        let outcomes = at_once(&ledger, commands);
        let committed = |outcome: &&Result<Outcome, Refused>| matches!(outcome, Ok(Outcome::Committed(_)));
        let size = 1 + outcomes.iter().filter(committed).count() as u64;
        let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err(Refused::Closed))).count();
        assert_eq!(size as usize - 1 + refused, 200);
        let Ok(Outcome::Committed(last)) = &outcomes[100] else { panic!("not closed") };
        let leaf = statement_leaf(LeafKind::ShardClose, STATEMENT);
        assert_eq!((last.index, last.leaf_hash), (size - 1, leaf_hash(&leaf)));
        assert!(ledger.is_closed());
        ledger.close();

        // For good, and whoever reads it sees it.
        let ledger = open_with(Options { image, ..options(dir.path()) }).0;
        assert!(ledger.is_closed() && ledger.size() == size);
        for again in [plain(), closing()] {
            assert!(matches!(at_once(&ledger, vec![again])[..], [Err(Refused::Closed)]));
        }
        ledger.close();
        let tail = ledger::entries(options(dir.path()), keys(), |_| {}).unwrap();
        assert!(tail.closed && tail.size == size);
        let report = ledger::verify_log(options(dir.path()), keys(), |_| {}).unwrap();
        assert_eq!((report.size, report.root), (tail.size, tail.root));
    }
}

#[test]
fn a_journal_below_the_size_that_others_have_seen_is_refused() {
    let dir = TempDir::new().unwrap();
    let ledger = open(dir.path());
    commit_now(&ledger, plain());
    ledger.close();
    let seen = |least_size| Options { least_size, ..options(dir.path()) };
    match Ledger::open(seen(2), keys()) {
        Err(OpenError::RolledBack { published: 2, journal: 1 }) => {}
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the journal was accepted"),
    }
    open_with(seen(1)).0.close();
}

#[test]
fn a_closed_log_rests_for_as_long_as_it_likes() {
    const DAY_MS: u64 = 86_400_000;
    let dir = TempDir::new().unwrap();
    let at = |day: u64, image| {
        let hooks = Hooks { clock: Some(Arc::new(move || day * DAY_MS)), ..Hooks::default() };
        Options { hooks, image, ..options(dir.path()) }
    };
    let ledger = open_with(at(20_000, true)).0;
    commit_now(&ledger, plain());
    ledger.close();
    let refused = Ledger::open(at(20_400, true), keys()).err().unwrap();
    assert!(matches!(refused, OpenError::Clock { .. }), "{refused}");
    let ledger = open_with(at(20_001, true)).0;
    commit_now(&ledger, closing());
    ledger.close();
    // Nothing is made by the clock any more, so nothing can be made by a wrong one.
    for (image, day) in [(true, 20_400), (false, 21_000), (true, 19_000), (false, 30_000)] {
        let (ledger, _) = open_with(at(day, image));
        assert!(ledger.is_closed());
        assert!(matches!(at_once(&ledger, vec![plain()])[..], [Err(Refused::Closed)]));
        assert_eq!(ledger.health().stopped, None);
        ledger.close();
        ledger::rebuild(at(day, true), keys(), RebuildFrom::Zero, &|_| {}).unwrap();
    }
    assert!(ledger::entries(at(25_000, true), keys(), |_| {}).unwrap().closed);
}

#[test]
fn a_closed_log_stays_open_to_readers_while_the_clock_jumps() {
    const DAY_MS: u64 = 86_400_000;
    let dir = TempDir::new().unwrap();
    let now = Arc::new(AtomicU64::new(20_000 * DAY_MS));
    let clock = Arc::clone(&now);
    let hooks = Hooks { clock: Some(Arc::new(move || clock.load(Ordering::Relaxed))), ..Hooks::default() };
    let ledger = open_with(Options { hooks, ..options(dir.path()) }).0;
    commit_now(&ledger, closing());
    now.store(20_400 * DAY_MS, Ordering::Relaxed);
    assert!(matches!(at_once(&ledger, vec![plain()])[..], [Err(Refused::Closed)]));
    assert_eq!(ledger.health().stopped, None);
    ledger.close();
}
