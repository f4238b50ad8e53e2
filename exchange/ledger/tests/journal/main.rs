//! The ledger on real files: commit, crash, damage, reopen, compare.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is not as it should be")]

mod closing;
mod commit;
mod copies;
mod damage;
mod derived;
#[path = "../shared/entry.rs"]
mod entry;
mod epochs;
mod evidence;
mod failure;
mod model;
mod refusals;
mod rig;
mod rows;
mod sequences;
mod store;
