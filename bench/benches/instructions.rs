//! Instructions of a verify request, counted by callgrind: the whole of `Gateway::handle` and its share of the sequencer's work
//! for a group of 64, on one thread. `cargo xtask instructions` runs it and compares with the budget.
//!
//! The journal is a real one; what the kernel does for it is not counted, and the threads behind the sequencer are not.
#![allow(missing_docs, unreachable_pub, unused_qualifications, reason = "what the macros make")]

use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::pin::Pin;
use std::task::Poll;

use bench::folder::InProcess;
use bench::world;
use bytes::Bytes;
use exchange::gateway::Gateway;
use exchange::gateway::answer::Answer;
use exchange::participant::Certified;
use exchange::{app, init, opening};
use gungraun::{library_benchmark, library_benchmark_group, main};
use http_body_util::Full;
use ledger::{ByHand, Ledger, Options};
use schemas::routes::Route;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// As in the exchange.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Requests that are committed together; each about a license of its own.
const GROUP: usize = 64;

struct Exchange {
    runtime: Runtime,
    gateway: Gateway,
    sequencer: ByHand,
    caller: Certified,
    requests: Vec<Bytes>,
    _folder: TempDir,
}

/// An exchange with the licenses in it, whose caches are warm.
fn exchange() -> Exchange {
    // The metrics are counted in a served exchange too.
    app::install_metrics().expect("a recorder");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let world = runtime.block_on(world::open(folder.path(), GROUP)).expect("an exchange");
    let mut requests = Vec::with_capacity(GROUP);
    for (case, request) in (0..).zip(&world.verify) {
        let mut body = Vec::new();
        request.write(case, &mut body);
        requests.push(Bytes::from(body));
    }
    let ledger = world.gateway.ledger().clone();
    drop(world.gateway);
    ledger.close();
    let config = init::development(folder.path(), None).expect("the folder is there");
    let keys =
        opening::ledger_keys(&opening::key_folder(&config).expect("the folder is there")).expect("its keys");
    let options = Options { image: false, index_roots: None, ..opening::ledger_options(&config) };
    let (ledger, sequencer) = Ledger::open_by_hand(options, keys).expect("a journal");
    let InProcess { gateway, .. } = InProcess::over(&config, ledger).expect("a gateway");
    let mut exchange =
        Exchange { runtime, gateway, sequencer, caller: world.approval, requests, _folder: folder };
    exchange.answer();
    exchange
}

impl Exchange {
    /// Answers all requests: each up to its commit, then the group, then the rest of each.
    fn answer(&mut self) {
        let Self { runtime, gateway, sequencer, caller, requests, .. } = self;
        runtime.block_on(async {
            let mut handled: Vec<Pin<Box<dyn Future<Output = Answer> + '_>>> =
                requests.iter().map(|body| handle(gateway, caller, body)).collect();
            poll_fn(|context| {
                for one in &mut handled {
                    assert!(one.as_mut().poll(context).is_pending(), "an answer before its commit");
                }
                Poll::Ready(())
            })
            .await;
            assert_eq!(sequencer.step(), GROUP);
            poll_fn(|context| {
                for one in &mut handled {
                    let Poll::Ready(answer) = black_box(one.as_mut().poll(context)) else {
                        unreachable!("committed")
                    };
                    assert!(answer.body.starts_with(br#"{"verdict":"valid","#));
                }
                Poll::Ready(())
            })
            .await;
        });
    }
}

fn handle<'a>(
    gateway: &'a Gateway,
    caller: &'a Certified,
    body: &Bytes,
) -> Pin<Box<dyn Future<Output = Answer> + 'a>> {
    let request = hyper::Request::post("/")
        .header("content-type", "application/json")
        .body(Full::new(body.clone()))
        .expect("a request");
    Box::pin(gateway.handle(Route::Verify, caller, request, None))
}

#[library_benchmark]
#[bench::group_of_64(setup = exchange)]
fn verify(mut exchange: Exchange) -> Exchange {
    exchange.answer();
    exchange
}

library_benchmark_group!(name = gateway, benchmarks = verify);
main!(library_benchmark_groups = gateway);
