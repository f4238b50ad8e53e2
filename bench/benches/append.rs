//! What one entry costs in hashing: both commitments, the leaf and its place in the tree.
#![forbid(unsafe_code)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use verifier::leaf::{
    HolderLink, Labels, LeafKind, Open, commitment, inner_commitment, insider_digest, leaf_bytes,
};
use verifier::merkle::{Frontier, leaf_hash};
use verifier::sha256;

/// Bytes of a use's state record and of the counters of its completion.
const RECORD_BYTES: usize = 64;
const COUNTERS_BYTES: usize = 4;
/// Entries of a group.
const GROUP: usize = 64;
/// Entries in the log before it.
const LOG: u64 = 1_000_003;

fn open() -> Vec<u8> {
    Open {
        route: 5,
        decision: 1,
        organisation: *b"91350100M000100Y43",
        request_digest: [1; 32],
        answer_digest: [2; 32],
        policy: [3; 32],
        subject_digest: [4; 32],
        labels: Labels::List(vec![[5; 16]]),
        ..Open::default()
    }
    .encode()
}

fn leaf(open: &[u8]) -> verifier::Hash {
    let insider = insider_digest(&[7; 32], &sha256(&[&[8; RECORD_BYTES]]), &[9; COUNTERS_BYTES]);
    let c = inner_commitment(&insider, [HolderLink::digest_of(&[10; HolderLink::BYTES])]);
    leaf_hash(&leaf_bytes(LeafKind::Entry, &commitment(&[6; 32], open, &c)))
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let open = open();
    let mut frontier = Frontier::new();
    for _ in 0..LOG {
        frontier.append([0; 32]);
    }
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(1));
    group.bench_function("leaf", |bencher| bencher.iter(|| leaf(black_box(&open))));
    group.bench_function("leaf-and-tree", |bencher| {
        let mut growing = frontier.clone();
        bencher.iter(|| growing.append(leaf(black_box(&open))));
    });
    group.throughput(Throughput::Elements(GROUP as u64));
    group.bench_function("group-of-64-and-root", |bencher| {
        bencher.iter_batched(
            || frontier.clone(),
            |mut frontier| {
                for _ in 0..GROUP {
                    frontier.append(leaf(black_box(&open)));
                }
                frontier.root()
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
    criterion.final_summary();
}
