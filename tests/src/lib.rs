//! What the end-to-end tests share: a real `exchange` process on a fresh folder, callers over real mTLS, and one
//! assertion that ties status, code, journal entry and metric of an answer together.
//!
//! The binaries are those in the same target folder (`cargo build -p exchange -p verifier`; `cargo xtask test` does it first).
//! Nothing here asserts on time: what needs waiting is polled, with a bound that only a hang reaches.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

pub mod called;
mod client;
mod idp;
pub mod machine;
mod provider;
mod server;
mod witness;
mod world;

pub use self::client::{Call, Entry, Http2, Party, Reply, flipped};
pub use self::idp::{AUDIENCE, IdentityProvider};
pub use provider::{Identity, Provider, Reaction};
pub use server::{Finished, Later, Server, Setup, Turn, binary, command, shared};
pub use witness::WitnessProcess;
pub use world::{
    Draft, Issued, Target, all_types, delay_class, draft, draft_ended, grant, holder, in_one_hour, key,
    legal, natural, now_ms, qualification, revoke, use_context,
};

use std::time::{Duration, Instant};

/// Longest wait for anything; only a hang reaches it.
pub const HANG: Duration = Duration::from_secs(60);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Looks until `look` finds something.
///
/// # Panics
/// After [`HANG`], naming `what`.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < HANG, "hung: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().try_into().unwrap()
}
