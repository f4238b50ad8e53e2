//! Checks licenses, receipts and logs from bytes alone.
//!
//! The library has no I/O, clock, threads or randomness: the caller passes bytes, the time and the trust
//! bundle, and gets one of three answers: valid, invalid (why) or cannot tell (why). The formats are those of
//! `schemas/README.md`; a section number in these pages refers to it.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

pub mod checkpoint;
mod encoding;
pub mod index;
pub mod leaf;
pub mod license;
pub mod merkle;
pub mod note;
pub mod policy;
pub mod proof;
pub mod receipt;
pub mod report;
pub mod same_holder;
pub mod signature;
pub mod trace;
pub mod trust;

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// SHA-256 over the parts, one after another.
pub fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("a SHA-256 digest has 32 bytes")
}
