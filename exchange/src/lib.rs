//! The gateway: issues, serves and verifies licenses, each request authorised on its own and durably journaled before
//! its answer leaves.
//!
//! Read [`gateway`] first: it is the request path, top to bottom. The commands, tests and benches use it.
//! `exchange/ledger/README.md` says what a crash leaves of each file.

#![forbid(unsafe_code)]

#[cfg(feature = "bench-ablation")]
pub mod ablation;
pub mod admission;
pub mod app;
pub mod calling;
mod capability;
pub mod certificates;
pub mod condition;
pub mod config;
pub mod cosign;
pub mod current;
pub mod exit;
pub mod expiry;
pub mod export;
pub mod files;
pub mod gateway;
mod hold;
pub mod identity;
pub mod init;
pub mod keyed;
pub mod lane;
pub mod listeners;
pub mod logging;
pub mod meters;
pub mod moment;
#[cfg(test)]
mod numbers;
mod open_data;
pub mod opening;
pub mod operate;
pub mod originals;
pub mod outgoing;
pub mod participant;
pub mod place;
mod prefix;
pub mod probe;
pub mod quickstart;
pub mod reload;
pub mod rights;
pub mod room;
pub mod rotation;
pub mod server;
pub mod shared;
mod sharing;
pub mod shed;
pub mod signals;
pub mod signer;
pub mod signing_key;
pub mod succession;
pub mod timekeeping;
pub mod tls;
pub mod wire;
#[cfg(feature = "bench-ablation")]
mod without;
pub mod witness;
