//! Parsing of license identifiers with their check characters.
#![forbid(unsafe_code)]

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use schemas::identifier::{CertificateIdentifier, Uscc};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let issuer: Uscc = "11100000MB0341032Y".parse().expect("a vector");
    let identifier = CertificateIdentifier::new(
        "11100000MB0341032Y001".parse().expect("a vector"),
        issuer,
        "BENCH000000000000001".parse().expect("a serial"),
        1,
    )
    .expect("its parts are good");
    let text = identifier.to_string();
    let wrong = format!("{}*", &text[..text.len() - 1]);
    let mut group = criterion.benchmark_group("identifier");
    group.throughput(Throughput::Elements(1));
    group.bench_function("parse", |bencher| {
        bencher.iter(|| black_box(&text).parse::<CertificateIdentifier>().expect("good"));
    });
    group.bench_function("refuse", |bencher| {
        bencher.iter(|| black_box(&wrong).parse::<CertificateIdentifier>().expect_err("a wrong check"));
    });
    group.bench_function("print", |bencher| bencher.iter(|| black_box(&identifier).to_string()));
    group.finish();
    criterion.final_summary();
}
