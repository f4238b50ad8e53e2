//! What the verifier answers, through its public interface: one test per reason, and attempts to be fooled.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic)]

mod batch;
mod cli;
mod fixture;
mod license;
mod receipt;
mod same_holder;
mod trust;
