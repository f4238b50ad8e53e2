//! The process-wide failpoint; see [`Hooks`](crate::Hooks). Only in builds with debug assertions.
//!
//! The sequencer and the change of epoch ask it; the environment alone sets it. A crash that it causes leaves what that
//! step leaves.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};

/// Groups begun so far.
static GROUPS: AtomicU64 = AtomicU64::new(0);

/// Name, and the group it begins with; groups count from 1.
static WANTED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
    let text = std::env::var("MIAOXIANG_FAILPOINT").ok()?;
    let (name, number) = text.split_once(':').unwrap_or((&text, "1"));
    Some((name.to_owned(), number.parse().ok()?))
});

/// A group of entries is about to be written.
pub(crate) fn begin_group() {
    GROUPS.fetch_add(1, Ordering::Relaxed);
}

fn begun(name: &str) -> Option<u64> {
    let (wanted, number) = WANTED.as_ref()?;
    GROUPS.load(Ordering::Relaxed).checked_sub(*number).filter(|_| wanted == name)
}

/// Whether frames are left unwritten from now on.
pub(crate) fn leaves_unwritten() -> bool {
    begun("answer-unwritten").is_some()
}

/// Whether a failed write or sync counts as a good one.
pub(crate) fn ignores_write_error() -> bool {
    begun("ignore-write-error").is_some()
}

/// After a step of a change of epoch.
pub(crate) fn after_step(step: &str) {
    if WANTED.as_ref().is_some_and(|(wanted, _)| wanted == step) {
        std::process::abort();
    }
}

/// Whether a change of epoch goes on without the new key file.
pub(crate) fn leaves_epoch_unreplaced() -> bool {
    WANTED.as_ref().is_some_and(|(wanted, _)| wanted == "rotation-unreplaced")
}

/// Between a group's sync and its release.
pub(crate) fn after_sync() {
    if begun("after-sync-abort") == Some(0) {
        std::process::abort();
    }
    if begun("after-sync-hold") == Some(0) {
        loop {
            std::thread::park();
        }
    }
}
