//! The cost of a property: builds from which it can be taken away, for benches only (crate feature `bench-ablation`).
//!
//! No such build serves a log but a bench's, whatever is taken away, and no command of the product is built from it: the one
//! binary is `exchange-ablation`.
//!
//! `exchange-ablation` alone calls it. A crash leaves a bench's log, as one of a serving exchange would be.

use std::sync::OnceLock;

use schemas::identifier::Uscc;

use crate::exit::{EXIT_USAGE, Exit};
use crate::init;
use crate::participant::Certified;
pub(crate) use crate::without::is_without;
pub use crate::without::{Without, take_away};

/// The beginning of the origin of a log that a bench may fill.
pub const ORIGIN_PREFIX: &str = "bench/";
/// Whom every request of a listener that asks for no certificate is taken to come from.
const CALLER: &str = "approval";

/// Refuses any log but a bench's.
///
/// # Errors
/// [`Exit`] with [`EXIT_USAGE`]
pub(crate) fn only_a_bench(origin: &str) -> Result<(), Exit> {
    if origin.starts_with(ORIGIN_PREFIX) {
        return Ok(());
    }
    let message = format!(
        "log {origin} is no bench's, and this build can take checks away: serve it with `exchange` built without bench-ablation"
    );
    Err(Exit { status: EXIT_USAGE, message })
}

/// The caller of a connection without a certificate, if certificates were taken away.
pub(crate) fn caller() -> Option<Certified> {
    static ORGANISATION: OnceLock<Option<Uscc>> = OnceLock::new();
    if ![Without::Tls, Without::ClientCertificates].into_iter().any(is_without) {
        return None;
    }
    let organisation = ORGANISATION.get_or_init(|| {
        let at = init::PARTICIPANTS.iter().position(|participant| participant.name == CALLER);
        at.and_then(|at| init::development_organisations().get(at).copied())
    });
    Some(Certified {
        organisation: (*organisation)?,
        ends_at_ms: u64::MAX,
        address: std::net::Ipv4Addr::LOCALHOST.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_log_of_a_bench_is_served() {
        assert!(only_a_bench("bench/17").is_ok());
        for origin in ["miaoxiang.local/1", "bench", "log.example/bench/1", ""] {
            assert_eq!(only_a_bench(origin).unwrap_err().status, EXIT_USAGE, "{origin}");
        }
    }

    #[test]
    fn nothing_is_taken_away_by_building() {
        assert!(Without::ALL.iter().all(|without| !is_without(*without)));
        assert!(caller().is_none());
    }
}
