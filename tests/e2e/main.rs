//! The end-to-end tests: one program, so that they link once, with a module for each subject.
//!
//! Tests of all modules run beside each other, each against servers of its own or in turn on a shared one ([`tests::shared`]).
//! Run one with `cargo test -p tests --test e2e limits::NAME`; the binaries must be built before.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

mod archive;
mod audit;
mod batch;
mod callers;
mod calls;
mod codes;
mod commands;
mod coverage;
mod crash;
mod departments;
mod disclosure;
mod envelopes;
mod erasure;
mod folders;
mod grants;
mod handshake;
mod idempotency;
mod identifiers;
mod identity;
mod items;
mod journal_files;
mod limits;
mod machine;
mod malformed;
mod openapi;
mod operators;
mod policies;
mod providers;
mod races;
mod receipts;
mod records;
mod retention;
mod rights;
mod sharing;
mod signatures;
mod trace;
mod transitions;
mod uses;
mod witness;
