//! The log line of a handshake that failed: the peer, the cause in words and whose certificate it was, and only so many
//! of them.
//!
//! The accept loop alone calls it. It is memory.

use crate::tls::AuthoritiesEnded;
use certs::pki::OrganisationError;
use rustls::{CertificateError, Error};
use std::borrow::Cow;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines at once, and the time in which one comes back.
const LINES: u32 = 10;
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// Why a handshake failed.
pub(super) struct Failure {
    /// For the metric.
    pub(super) result: &'static str,
    /// For the operator. Names no person: what it quotes of a certificate are organisations.
    pub(super) cause: Cow<'static, str>,
    /// Nothing was sent at all: a probe of a load balancer, or a flood.
    pub(super) silent: bool,
}

impl Failure {
    fn new(result: &'static str, cause: impl Into<Cow<'static, str>>) -> Self {
        Self { result, cause: cause.into(), silent: false }
    }

    /// The peer closed, or its time was over.
    pub(super) fn without_error(timeout: bool, spoke: bool) -> Self {
        let (result, cause) = match (timeout, spoke) {
            (true, true) => ("timeout", "the handshake was not finished in time"),
            (true, false) => ("timeout", "nothing was sent in time"),
            (false, _) => ("error", "the peer closed without a word"),
        };
        Self { silent: !spoke, ..Self::new(result, cause) }
    }

    pub(super) fn of(error: &io::Error) -> Self {
        let Some(tls) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof => Self {
                    silent: true,
                    ..Self::new("error", "the peer closed in the middle of the handshake")
                },
                _ => Self::new("error", error.kind().to_string()),
            };
        };
        match tls {
            Error::NoCertificatesPresented => {
                Self::new("no-certificate", "no client certificate was presented")
            }
            Error::InvalidCertificate(error) => Self::of_certificate(error),
            Error::AlertReceived(alert) => {
                Self::new("error", format!("the peer does not accept this server: {alert:?}"))
            }
            Error::PeerIncompatible(what) => {
                Self::new("error", format!("the peer speaks no TLS that this server takes (1.3): {what:?}"))
            }
            Error::InvalidMessage(_) => Self::new("error", "what was sent is not TLS"),
            Error::PeerMisbehaved(what) => {
                Self::new("error", format!("the peer breaks the protocol: {what:?}"))
            }
            _ => Self::new("error", "the handshake failed"),
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        use CertificateError as Bad;
        if let Bad::Other(other) = error
            && let Some(organisation) = other.0.downcast_ref::<OrganisationError>()
        {
            return Self::new("bad-organisation", format!("it names no organisation: {organisation}"));
        }
        let cause = match error {
            Bad::Other(other) if other.0.is::<AuthoritiesEnded>() => "every configured client CA has ended",
            Bad::Expired | Bad::ExpiredContext { .. } => "the client certificate has expired",
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => "the client certificate is not valid yet",
            Bad::Revoked => "the client certificate is revoked",
            Bad::UnknownIssuer => "the client certificate is of an authority that is not configured",
            Bad::BadSignature => {
                "a signature does not verify: perhaps an authority of the same name with another key"
            }
            Bad::ExpiredRevocationList | Bad::ExpiredRevocationListContext { .. } => {
                "the revocation list of the client authority is out of date: put a new one in place"
            }
            Bad::UnknownRevocationStatus => "there is no revocation list of the certificate's authority",
            Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => "the certificate is not for clients",
            Bad::BadEncoding => "the client certificate cannot be read",
            _ => "the client certificate is not good",
        };
        Self::new("bad-certificate", cause)
    }
}

/// Lets some lines pass and counts the others.
pub(super) struct Lines(Mutex<Passing>);

struct Passing {
    left: u32,
    since: Instant,
    suppressed: u64,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Passing { left: LINES, since: Instant::now(), suppressed: 0 }))
    }

    /// How many lines were suppressed before this one; `None` when it is suppressed as well.
    pub(super) fn next(&self, now: Instant) -> Option<u64> {
        let mut passing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let back = now.duration_since(passing.since).as_secs() / LINE_INTERVAL.as_secs();
        if back > 0 {
            passing.left = passing.left.saturating_add(u32::try_from(back).unwrap_or(LINES)).min(LINES);
            passing.since = now;
        }
        match passing.left.checked_sub(1) {
            Some(left) => {
                passing.left = left;
                Some(std::mem::take(&mut passing.suppressed))
            }
            None => {
                passing.suppressed += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_what_is_left_out_is_told() {
        let lines = Lines::new();
        let begun = Instant::now();
        let passed = (0..1_000).filter_map(|_| lines.next(begun)).count();
        assert_eq!(passed, LINES as usize);
        assert_eq!(lines.next(begun + Duration::from_secs(2)), Some(1_000 - u64::from(LINES)));
        assert_eq!(lines.next(begun + Duration::from_secs(2)), Some(0));
        assert_eq!(lines.next(begun + Duration::from_secs(2)), None);
    }
}
