//! What single steps of a verify request cost, on one thread and without a server around them.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use exchange::gateway::dry;
use exchange::moment::now_ms;
use http_body_util::Full;
use schemas::routes::{Form, Route};
use tokio::runtime::Runtime;
use verifier::receipt;

use crate::process;
use crate::world;

/// Licenses in the state; every other one of a natural person.
const LICENSES: usize = 64;
/// Calls between two looks at the clock.
const CALLS: usize = LICENSES;

/// A step and its time, µs.
pub(super) type Step = (&'static str, f64);

/// Measures each step for a while on the calling thread.
///
/// # Errors
/// No exchange comes about in `folder`, or it does not permit.
pub(super) fn measure(runtime: &Runtime, folder: &Path, duration: Duration) -> anyhow::Result<Vec<Step>> {
    let world = runtime.block_on(world::open(folder, LICENSES))?;
    let ledger = world.gateway.ledger();
    let bodies: Vec<Vec<u8>> = world
        .verify
        .iter()
        .map(|request| {
            let mut body = Vec::new();
            request.write(1, &mut body);
            body
        })
        .collect();
    let now_ms = now_ms();
    let permitted =
        |number: usize| world.gateway.would_permit(Route::Verify, &world.approval, &bodies[number], now_ms);
    ensure!((0..LICENSES).all(|number| permitted(number).0), "a request is not permitted");
    let request = hyper::Request::post("/")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(bodies.first().context("a request")?.clone())))?;
    let answer = runtime.block_on(world.gateway.handle(Route::Verify, &world.approval, request, None));
    let (answer, told) = receipt::cut(&answer.body).map_err(|error| anyhow::anyhow!("{error}"))?;

    let steps = vec![
        ("parsing the request", timed(duration, |at| dry::read(Route::Verify, Form::Json, &bodies[at]))),
        ("digest of the request", timed(duration, |at| verifier::sha256(&[&bodies[at]]))),
        ("parsing, facts and decision", timed(duration, permitted)),
        ("receipt into the answer", timed(duration, |_| receipt::attach(&answer, &told))),
    ];
    let ledger = ledger.clone();
    drop(world.gateway);
    ledger.close();
    Ok(steps)
}

/// Processor time of one call, µs.
fn timed<T>(duration: Duration, mut call: impl FnMut(usize) -> T) -> f64 {
    let (begun, used, mut calls) = (Instant::now(), process::thread_seconds(), 0);
    while begun.elapsed() < duration {
        for at in 0..CALLS {
            drop(black_box(call(black_box(at))));
        }
        calls += CALLS;
    }
    (process::thread_seconds() - used) * 1e6 / calls.max(1) as f64
}
