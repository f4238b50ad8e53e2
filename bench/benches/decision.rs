//! Reading and deciding one verify request against the state in memory: steps 1, 2, 4 and 5 of the request path, without
//! journal and network.
#![forbid(unsafe_code)]

use std::hint::black_box;

use bench::world;
use criterion::{Criterion, Throughput};
use exchange::gateway::dry;
use exchange::moment::now_ms;
use schemas::routes::{Form, Route};

/// Licenses in the state.
const LICENSES: usize = 64;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let world = runtime.block_on(world::open(folder.path(), LICENSES)).expect("an exchange");
    let now_ms = now_ms();
    let body = |number: usize| {
        let mut body = Vec::new();
        world.verify[number].write(1, &mut body);
        body
    };
    let permitted =
        |body: &[u8]| world.gateway.would_permit(Route::Verify, &world.approval, black_box(body), now_ms);
    let (with_grant, legal) = (body(0), body(1));
    let without_grant = {
        let text = String::from_utf8(with_grant.clone()).expect("JSON is UTF-8");
        let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        value.as_object_mut().expect("an object").remove("grant");
        value.to_string().into_bytes()
    };

    let mut group = criterion.benchmark_group("decision");
    group.throughput(Throughput::Elements(1));
    group.bench_function("parse", |bencher| {
        bencher.iter(|| dry::read(Route::Verify, Form::Json, black_box(&with_grant)).expect("good"));
    });
    for (name, body, expected) in
        [("grant", &with_grant, true), ("legal-person", &legal, true), ("no-right", &without_grant, false)]
    {
        assert_eq!(permitted(body).0, expected, "{name}");
        group.bench_function(name, |bencher| bencher.iter(|| permitted(body)));
    }
    group.finish();
    criterion.final_summary();
}
