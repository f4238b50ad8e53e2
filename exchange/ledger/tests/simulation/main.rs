//! Ten thousand lives of a journal on a disk that fails, each decided by one seed and compared with a naive model.
//!
//! `MIAOXIANG_SEEDS=N` runs N seeds, `MIAOXIANG_SEED=N` runs the one and tells its story. A seed decides everything but
//! the bytes of keys, salts and nonces, on which nothing here depends.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it should be")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a simulation tells its story")]

#[path = "../shared/entry.rs"]
mod entry;
mod life;
mod model;

use ledger::sim::Sync;
use life::{Life, Told};
use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

/// Seeds of a run that is not told otherwise.
const SEEDS: u64 = 10_000;
/// Seeds of a control: far more than it needs.
const CONTROL_SEEDS: u64 = 100;

/// Lives through the seeds on all processors; what each told, and the first that went wrong.
fn live(seeds: u64, sync: Sync) -> (Told, Vec<(u64, String)>) {
    let next = AtomicU64::new(0);
    let found = Mutex::new((Told::default(), Vec::new()));
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            let mut life = Life::new(seed, sync);
            let ended = life.run();
            let (told, wrong) = &mut *found.lock().unwrap();
            told.add(&life.told);
            wrong.extend(ended.err().map(|why| (seed, why)));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(worker);
        }
    });
    let (told, mut wrong) = found.into_inner().unwrap();
    wrong.sort();
    (told, wrong)
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_half_applied() {
    if let Some(seed) = std::env::var("MIAOXIANG_SEED").ok().map(|seed| seed.parse().unwrap()) {
        let mut life = Life::new(seed, Sync::Honest);
        let ended = life.run();
        println!("seed {seed}:\n{}", life.story.join("\n"));
        ended.unwrap();
        return;
    }
    let seeds = std::env::var("MIAOXIANG_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    let (told, wrong) = live(seeds, Sync::Honest);
    println!("{seeds} seeds: {told:?}");
    if let Some((seed, why)) = wrong.first() {
        panic!("{} of {seeds} seeds went wrong; MIAOXIANG_SEED={seed} tells the first: {why}", wrong.len());
    }
    // A simulation in which nothing happens proves nothing.
    assert!(told.acknowledged > seeds && told.power_cuts > seeds / 4 && told.kills > seeds / 4);
    assert!(told.torn > seeds / 100 && told.adopted > seeds / 100 && told.refused > seeds / 20);
    assert!(told.rotations > seeds / 10 && told.full > seeds / 100 && told.noticed > seeds / 100);
    assert!(told.epochs > seeds / 10 && told.cut_off > seeds / 20);
    assert!(told.batches > seeds && told.rewritten > seeds / 4);
}

#[test]
fn control_a_disk_whose_sync_lies_is_caught() {
    let (told, wrong) = live(CONTROL_SEEDS, Sync::Lying);
    println!("a lying disk: {} of {CONTROL_SEEDS} seeds caught, {told:?}", wrong.len());
    assert!(wrong.len() as u64 > CONTROL_SEEDS / 2, "{wrong:?}");
}

#[test]
fn control_answers_that_leave_before_the_sync_are_caught() {
    let (told, wrong) = live(CONTROL_SEEDS * 10, Sync::Late);
    println!("a late sync: {} of {} seeds caught, {told:?}", wrong.len(), CONTROL_SEEDS * 10);
    assert!(wrong.iter().any(|(_, why)| why.contains("lost")), "{wrong:?}");
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    for seed in 0..60 {
        let stories = [(); 2].map(|()| {
            let mut life = Life::new(seed, Sync::Honest);
            let _ = life.run();
            life.story
        });
        assert_eq!(stories[0], stories[1], "seed {seed}");
    }
}
