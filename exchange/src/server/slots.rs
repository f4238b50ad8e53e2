//! The places for connections: how many there are before and after their handshake, of each source address and of each
//! organisation, and who has to give way when they are short.
//!
//! The listener owns the places; each connection gives its own back. They are memory, and all free after a crash.

use super::limits::Limits;
use schemas::identifier::Uscc;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The share of all connections that peers have which are not known yet, and that nobody else has.
const UNKNOWN_SHARE: usize = 4;
/// The share of those that one source address has.
const SOURCE_SHARE: usize = 2;
/// A handshake under way does not have to give way before this time.
const HANDSHAKE_GRACE: Duration = Duration::from_secs(2);

/// Where a connection comes from: an IPv4 address, or the /64 that one customer has of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Source(u64);

impl Source {
    fn of(address: SocketAddr) -> Self {
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => Self(u64::from(ip.to_bits())),
            // No global address begins with 32 zero bits, so none of them is taken for one of IPv4.
            IpAddr::V6(ip) => Self((ip.to_bits() >> 64) as u64),
        }
    }
}

/// The account that answers for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Account {
    Organisation(Uscc),
    /// On a listener that asks nobody.
    Source(Source),
}

/// The connections of one account, and their bytes together.
#[derive(Default)]
pub(super) struct Use {
    /// Changed under the lock only.
    connections: AtomicUsize,
    /// Bytes of answers that are not taken, or promised to requests under way.
    pub(super) untaken: AtomicUsize,
}

/// A peer that is not known yet.
struct Unknown {
    source: Source,
    since: Instant,
    /// Its handshake is under way: it has sent something.
    spoke: AtomicBool,
    gives_way: Notify,
}

impl Unknown {
    fn has_spoken(&self) -> bool {
        self.spoke.load(Ordering::Relaxed)
    }
}

/// The connections of a listener.
pub(super) struct Slots {
    most_unknown: usize,
    most_of_source: usize,
    most_known: usize,
    per_organisation: usize,
    per_source: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// Oldest first, by a running number.
    unknown: BTreeMap<u64, Arc<Unknown>>,
    next: u64,
    known: usize,
    /// An account without a connection has no entry, so this is bounded by the connections.
    accounts: HashMap<Account, Arc<Use>>,
}

impl Slots {
    pub(super) fn new(limits: &Limits) -> Self {
        let most_unknown = (limits.max_connections / UNKNOWN_SHARE).max(1);
        Self {
            most_unknown,
            most_of_source: (most_unknown / SOURCE_SHARE).max(1),
            most_known: limits.max_connections.saturating_sub(most_unknown).max(1),
            per_organisation: limits.max_connections_per_organisation,
            per_source: limits.max_connections_per_source,
            held: Mutex::default(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a new connection. When its source address or all unknown peers have all of theirs, the oldest that has
    /// sent nothing gives way; then the oldest whose handshake has taken long. `None` when nobody does.
    pub(super) fn arrive(self: &Arc<Self>, address: SocketAddr) -> Option<Arrival> {
        let source = Source::of(address);
        let now = Instant::now();
        let mut held = self.held();
        let of_source = held.unknown.values().filter(|one| one.source == source).count();
        let within = if of_source >= self.most_of_source {
            Some(Some(source))
        } else if held.unknown.len() >= self.most_unknown {
            Some(None)
        } else {
            None
        };
        let mut gave_way = false;
        if let Some(within) = within {
            let of = |one: &Unknown| within.is_none_or(|source| one.source == source);
            let mut candidates = held.unknown.iter().filter(|(_, one)| of(one));
            let late = |one: &Unknown| now.duration_since(one.since) >= HANDSHAKE_GRACE;
            let silent = candidates.clone().find(|(_, one)| !one.has_spoken());
            let number = *silent.or_else(|| candidates.find(|(_, one)| late(one)))?.0;
            if let Some(one) = held.unknown.remove(&number) {
                one.gives_way.notify_one();
            }
            gave_way = true;
        }
        let number = held.next;
        held.next += 1;
        let unknown = Unknown { source, since: now, spoke: AtomicBool::new(false), gives_way: Notify::new() };
        let unknown = Arc::new(unknown);
        held.unknown.insert(number, Arc::clone(&unknown));
        Some(Arrival { slots: Arc::clone(self), number, unknown, gave_way })
    }

    fn settle(self: &Arc<Self>, account: Account) -> Result<Settled, &'static str> {
        let (most, reason) = match account {
            Account::Organisation(_) => (self.per_organisation, "organisation"),
            Account::Source(_) => (self.per_source, "source"),
        };
        let mut held = self.held();
        if held.known >= self.most_known {
            return Err("connections");
        }
        let of_account = Arc::clone(held.accounts.entry(account).or_default());
        // One that was just made is below every bound that lets anybody in.
        if of_account.connections.load(Ordering::Relaxed) >= most {
            return Err(reason);
        }
        of_account.connections.fetch_add(1, Ordering::Relaxed);
        held.known += 1;
        drop(held);
        Ok(Settled { slots: Arc::clone(self), account, of_account })
    }
}

/// A connection whose peer is not known yet; given back when dropped.
pub(super) struct Arrival {
    slots: Arc<Slots>,
    number: u64,
    unknown: Arc<Unknown>,
    gave_way: bool,
}

impl Arrival {
    /// Another had to give way to it.
    pub(super) fn displaced(&self) -> bool {
        self.gave_way
    }

    /// Its peer has sent something.
    pub(super) fn spoke(&self) {
        self.unknown.spoke.store(true, Ordering::Relaxed);
    }

    /// Its handshake is over and it will not be known: it gives way like a silent one.
    pub(super) fn failed(&self) {
        self.unknown.spoke.store(false, Ordering::Relaxed);
    }

    /// Resolves when it has to give way.
    pub(super) async fn gives_way(&self) {
        self.unknown.gives_way.notified().await;
    }

    /// The peer is known: an organisation, or on a listener that asks nobody its source address. Otherwise the reason,
    /// for the metric.
    pub(super) fn settle(self, organisation: Option<Uscc>) -> Result<Settled, &'static str> {
        let account = organisation.map_or(Account::Source(self.unknown.source), Account::Organisation);
        self.slots.settle(account)
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.slots.held().unknown.remove(&self.number);
    }
}

/// A connection whose peer is known; given back when dropped.
pub(super) struct Settled {
    slots: Arc<Slots>,
    account: Account,
    pub(super) of_account: Arc<Use>,
}

impl Drop for Settled {
    fn drop(&mut self) {
        let mut held = self.slots.held();
        held.known -= 1;
        if self.of_account.connections.fetch_sub(1, Ordering::Relaxed) == 1
            && let Entry::Occupied(last) = held.accounts.entry(self.account)
        {
            last.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(max_connections: usize) -> Arc<Slots> {
        let limits = Limits {
            max_connections,
            max_connections_per_organisation: 2,
            max_connections_per_source: 1,
            ..Limits::default()
        };
        Arc::new(Slots::new(&limits))
    }

    fn from(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 1)
    }

    fn has_to_go(arrival: &Arrival) -> bool {
        !arrival.slots.held().unknown.contains_key(&arrival.number)
    }

    #[test]
    fn the_oldest_silent_one_gives_way_and_only_its_own_source_pays() {
        // 8 unknown, 4 of a source.
        let slots = slots(32);
        let other = slots.arrive(from("192.0.2.2")).unwrap();
        let flood: Vec<Arrival> = (0..4).map(|_| slots.arrive(from("192.0.2.1")).unwrap()).collect();
        flood[0].spoke();
        let newcomer = slots.arrive(from("192.0.2.1")).unwrap();
        assert!(newcomer.displaced());
        let gone: Vec<bool> = flood.iter().map(has_to_go).collect();
        assert_eq!(gone, [false, true, false, false], "the oldest silent one, of the same source");
        assert!(!has_to_go(&other));
        // Full with those that have spoken: nobody gives way before his time, and the newcomer is refused.
        flood.iter().for_each(Arrival::spoke);
        newcomer.spoke();
        assert!(slots.arrive(from("192.0.2.1")).is_none());
        // All slots of unknown peers: the oldest silent one of all.
        let more: Vec<Arrival> =
            (3..6).map(|last| slots.arrive(from(&format!("192.0.2.{last}"))).unwrap()).collect();
        assert!(!has_to_go(&other) && more.iter().all(|one| !one.displaced()));
        assert!(slots.arrive(from("192.0.2.9")).unwrap().displaced());
        assert!(has_to_go(&other));
    }

    #[test]
    fn strangers_never_take_the_share_of_the_known_nor_the_other_way_round() {
        let slots = slots(8);
        let strangers: Vec<Arrival> =
            (0..20).filter_map(|last| slots.arrive(from(&format!("192.0.2.{last}")))).collect();
        assert_eq!(slots.held().unknown.len(), 2);
        let of = |text: &str| text.parse::<Uscc>().unwrap();
        let organisations = [of("11100000MB0341032Y"), of("11100000MB03271699"), of("91350100M000100Y43")];
        let settle = |organisation: Uscc| slots.settle(Account::Organisation(organisation));
        let known: Vec<Settled> =
            organisations.iter().flat_map(|one| [settle(*one).ok(), settle(*one).ok()]).flatten().collect();
        assert_eq!(known.len(), 6);
        assert!(matches!(settle(of("11100000000013338W")), Err("connections")));
        assert!(slots.arrive(from("192.0.2.200")).is_some(), "a newcomer can always say who it is");
        drop(known);
        let two = (settle(organisations[0]), settle(organisations[0]));
        assert!(two.0.is_ok() && two.1.is_ok());
        assert!(matches!(settle(organisations[0]), Err("organisation")));
        drop(two);
        assert!(slots.held().accounts.is_empty());
        drop(strangers);
        assert!(slots.held().unknown.is_empty());
    }

    #[test]
    fn a_source_is_an_address_or_a_prefix_of_64_bits() {
        let source = |text: &str| Source::of(from(text));
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        let slots = slots(8);
        let arrive = |text: &str| slots.arrive(from(text)).unwrap().settle(None);
        let _one = arrive("2001:db8:1:2::1");
        assert!(matches!(arrive("2001:db8:1:2::2"), Err("source")));
        assert!(arrive("2001:db8:1:3::2").is_ok());
    }
}
