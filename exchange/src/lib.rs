//! The gateway: issues, serves and verifies licenses, each request authorised on its own and durably journaled before
//! its answer leaves.
//!
//! Read [`gateway`] first: it is the request path, top to bottom.

#![forbid(unsafe_code)]

#[cfg(feature = "bench-ablation")]
pub mod ablation;
pub mod app;
pub mod calling;
pub mod condition;
pub mod config;
pub mod cosign;
pub mod current;
pub mod decide;
pub mod effect;
pub mod expiry;
pub mod export;
pub mod facts;
pub mod floor;
pub mod gateway;
mod hold;
pub mod init;
mod json;
pub mod lane;
pub mod listeners;
mod lists;
pub mod logging;
pub mod machine;
pub mod meters;
#[cfg(test)]
mod numbers;
pub mod operate;
pub mod originals;
pub mod pages;
pub mod participant;
pub mod place;
pub mod probe;
pub mod proposal;
pub mod quickstart;
pub mod refusal;
pub mod reload;
pub mod request;
pub mod room;
pub mod rotation;
pub mod server;
mod shape;
pub mod shed;
pub mod signals;
pub mod signer;
pub mod succession;
pub mod timekeeping;
pub mod tls;
pub mod witness;
