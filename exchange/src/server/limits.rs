//! Bounds of a listener, and what of them the process's file descriptors allow.
//!
//! Read once, when a listener begins. Nothing to lose.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::Duration;

/// Connections of a listener, handshaking ones included.
const MAX_CONNECTIONS: usize = 4_096;
/// Connections of one organisation.
const MAX_CONNECTIONS_PER_ORGANISATION: usize = 1_024;
/// Handshakes at work at once; more wait. A handshake costs about a millisecond of processor time.
const MAX_HANDSHAKES: usize = 256;
/// From the first byte of TCP to the last of the handshake, the wait for a turn included.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From the end of the handshake to the end of the first request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// For answers in flight when the server stops or a connection is closed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams of one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// Request line and headers together. Ours need less than 1 KiB.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Bytes of its answers that a connection may leave untaken: all its streams may hold one of 256 KiB.
const MAX_UNTAKEN: usize = 32 << 20;
/// Bytes that the connections of an organisation may leave untaken together.
const MAX_UNTAKEN_PER_ORGANISATION: usize = 128 << 20;
/// The same on a listener that asks nobody who he is, a connection and a source: a host may have many addresses.
const MAX_UNTAKEN_ANONYMOUS: usize = 2 << 20;
const MAX_UNTAKEN_PER_SOURCE: usize = 16 << 20;
/// Without any byte taken while an answer waits.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// For taking an answer in all: 17 kB/s for the longest.
const TAKE_TIMEOUT: Duration = Duration::from_secs(120);
/// Control frames of an HTTP/2 connection beyond those that requests and answers bring with them, at once.
const CONTROL_BURST: u32 = 1_000;

/// The least number of descriptors that a server works with.
pub const LEAST_DESCRIPTORS: u64 = 256;
/// Descriptors of the journal, the restart image, the archive, the listeners and everything that is no connection: a
/// quarter of all, within these bounds.
const LEAST_RESERVE: u64 = 128;
const MOST_RESERVE: u64 = 1_024;
/// Connections of the public listener: an eighth of what is left, within these bounds.
const PUBLIC_CONNECTIONS: (u64, u64) = (16, 1_024);
/// Connections of the admin listener: a sixteenth of what is left, within these bounds.
const ADMIN_CONNECTIONS: (u64, u64) = (8, 64);

/// Bounds of a listener. `Default` has the values that serve the data listener.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections in all, at least 2. A quarter of them is for peers that are not known yet: those past their handshake
    /// never take it, and those before it never take more, of which one source address has half at most.
    pub max_connections: usize,
    /// Connections of one organisation.
    pub max_connections_per_organisation: usize,
    /// Connections of one source address (IPv6: /64) on a listener that asks nobody who he is.
    pub max_connections_per_source: usize,
    /// Handshakes at work at once; more wait within their timeout.
    pub max_handshakes: usize,
    /// From accept to the end of the handshake.
    pub handshake_timeout: Duration,
    /// From the end of the handshake to the end of the first request's headers.
    pub header_timeout: Duration,
    /// From one request to the end of the next one's headers, to within `header_timeout`.
    pub idle_timeout: Duration,
    /// For answers in flight when the server stops or a connection is closed for idleness.
    pub drain_timeout: Duration,
    /// Streams of one HTTP/2 connection.
    pub max_streams: u32,
    /// Request line and headers together, in bytes.
    pub max_header_bytes: usize,
    /// Bytes of answers that a connection has not taken; one that would pass it is closed. From an eighth of it on
    /// requests wait.
    pub max_untaken: usize,
    /// The same of an organisation, or of a source address where nobody is asked; from half of it on requests wait.
    pub max_untaken_per_organisation: usize,
    /// Longest time without a byte taken while an answer waits, to within `header_timeout`.
    pub stall_timeout: Duration,
    /// Longest time for taking an answer; at least half of it.
    pub take_timeout: Duration,
    /// Control frames that an HTTP/2 connection may send at once beyond what its requests bring with them; a tenth of it
    /// comes back a second.
    pub control_burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: MAX_CONNECTIONS,
            max_connections_per_organisation: MAX_CONNECTIONS_PER_ORGANISATION,
            max_connections_per_source: usize::MAX,
            max_handshakes: MAX_HANDSHAKES,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            header_timeout: HEADER_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            drain_timeout: DRAIN_TIMEOUT,
            max_streams: MAX_STREAMS,
            max_header_bytes: MAX_HEADER_BYTES,
            max_untaken: MAX_UNTAKEN,
            max_untaken_per_organisation: MAX_UNTAKEN_PER_ORGANISATION,
            stall_timeout: STALL_TIMEOUT,
            take_timeout: TAKE_TIMEOUT,
            control_burst: CONTROL_BURST,
        }
    }
}

impl Limits {
    /// The defaults with so many connections, of which one source address has a quarter at most: for a listener that asks
    /// nobody who he is.
    #[must_use]
    pub fn anonymous(max_connections: usize) -> Self {
        let max_connections_per_source = (max_connections / 4).max(1);
        Self {
            max_connections,
            max_connections_per_source,
            max_untaken: MAX_UNTAKEN_ANONYMOUS,
            max_untaken_per_organisation: MAX_UNTAKEN_PER_SOURCE,
            ..Self::default()
        }
    }
}

/// The process may open too few files and connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process may open {0} files and connections, and the least is {LEAST_DESCRIPTORS}: raise the limit (`ulimit -n`, or LimitNOFILE= of the service)"
)]
pub struct TooFewDescriptors(pub u64);

/// How many files and connections this process may have open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors(u64);

impl Descriptors {
    /// Raises the limit as far as the process may.
    ///
    /// # Errors
    /// Even that is below [`LEAST_DESCRIPTORS`].
    pub fn raise() -> Result<Self, TooFewDescriptors> {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        // Where it cannot be raised what there is counts.
        let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
        let limit = if raised { maximum } else { current }.unwrap_or(u64::MAX);
        if limit < LEAST_DESCRIPTORS {
            return Err(TooFewDescriptors(limit));
        }
        Ok(Self(limit))
    }

    /// Descriptors that are left for connections.
    fn for_connections(self) -> u64 {
        self.0 - (self.0 / 4).clamp(LEAST_RESERVE, MOST_RESERVE)
    }

    /// Connections of the only listener of a process, at most the defaults.
    pub fn one(self) -> usize {
        bounded(self.for_connections(), MAX_CONNECTIONS)
    }

    /// Connections of the data, the public and the admin listener; of the data listener never more than configured.
    pub fn three(self, configured: usize) -> [usize; 3] {
        let all = self.for_connections();
        let public = (all / 8).clamp(PUBLIC_CONNECTIONS.0, PUBLIC_CONNECTIONS.1);
        let admin = (all / 16).clamp(ADMIN_CONNECTIONS.0, ADMIN_CONNECTIONS.1);
        [bounded(all - public - admin, configured), bounded(public, configured), bounded(admin, configured)]
    }
}

fn bounded(connections: u64, most: usize) -> usize {
    usize::try_from(connections).unwrap_or(usize::MAX).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the limit, all connections together leave the reserve alone, and each listener has some.
    #[test]
    fn all_connections_together_leave_the_reserve() {
        for limit in [256, 257, 512, 1_000, 1_024, 4_096, 20_000, 1 << 20, u64::MAX] {
            let descriptors = Descriptors(limit);
            let each = descriptors.three(4_096);
            let reserve = (limit / 4).clamp(LEAST_RESERVE, MOST_RESERVE);
            assert!(each.iter().sum::<usize>() as u64 <= limit - reserve, "{limit}: {each:?}");
            assert!(each.iter().all(|connections| (8..=4_096).contains(connections)), "{limit}: {each:?}");
            assert!(descriptors.one() as u64 <= limit - reserve);
        }
        assert_eq!(Descriptors(256).three(4_096), [104, 16, 8]);
        assert_eq!(Descriptors(1 << 20).three(4_096), [4_096, 1_024, 64]);
        assert_eq!(Descriptors(1 << 20).three(100)[0], 100);
    }
}
