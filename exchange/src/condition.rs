//! The conditions that an operator or a load balancer should know of, in words, for `/ready` and `/health`.
//!
//! The admin listener asks for them. They are computed when asked for, so a crash leaves nothing.

use ledger::Health;
use serde::Serialize;

use crate::expiry::{Kind, Nearness};
use crate::moment::{now_ms, now_seconds};
use crate::server::CONNECTIONS;
use crate::shared::Shared;

/// From so many entries on, the restart image's lag is said: the next start replays them.
const IMAGE_LAG: u64 = 1_000_000;
/// From this share of the queue on it counts as full, percent.
const QUEUE_PERCENT: usize = 90;
/// Journal time this far ahead of the clock is no step of a time service, ms.
const AHEAD_MS: u64 = 1_000;

/// How much a condition matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// To be seen to in time.
    Note,
    /// Somebody should look now.
    Alarm,
    /// Requests are not answered as they should be: a load balancer sends none here.
    Stop,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// Its name, fixed.
    pub state: &'static str,
    /// How much it matters.
    pub grade: Grade,
    /// The matter in words, without personal data.
    pub words: String,
}

impl Condition {
    fn new(state: &'static str, grade: Grade, words: impl Into<String>) -> Self {
        Self { state, grade, words: words.into() }
    }
}

/// Every condition there is now, the gravest first.
pub fn conditions(shared: &Shared) -> Vec<Condition> {
    let ledger = shared.gateway.ledger();
    let mut all = of_ledger(&ledger.health());
    let mut add = |state, grade, words: String| all.push(Condition::new(state, grade, words));
    if ledger.is_closed() {
        add("closed", Grade::Stop, "the log is closed: its successor takes requests".to_owned());
    }
    if *shared.stopping.borrow() {
        add("stopping", Grade::Stop, "stopping: requests under way are finished, no others begun".to_owned());
    }
    let ahead_ms = ledger.state().time_ms().saturating_sub(now_ms());
    if ahead_ms >= AHEAD_MS {
        let seconds = ahead_ms / 1_000;
        let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
        add(
            "journal-ahead",
            Grade::Alarm,
            format!(
                "journal time is {days} days {hours} h ({seconds} s) ahead of the clock and stands until it has caught \
                 up: licenses and grants that end meanwhile count as ended"
            ),
        );
    }
    for (witness, standing) in shared.cosigning.standing() {
        let (state, grade) = match standing.contradicts {
            true => ("witness-contradicts", Grade::Alarm),
            false => ("witness-behind", Grade::Note),
        };
        add(state, grade, format!("witness {witness} {}", standing.words));
    }
    for (what, why) in shared.standing.failed() {
        add(
            "reload-failed",
            Grade::Alarm,
            format!("changed files ({what}) cannot be used, the older ones are in force: {why}"),
        );
    }
    let now = now_seconds();
    if !shared.standing.admits(now) {
        let words = "no client certificate can be good: every client CA or its revocation list is over";
        add("nobody-admitted", Grade::Stop, words.to_owned());
    }
    if shared.gateway.identity().is_some_and(|provider| provider.keys_until() < now) {
        let words = "the identity provider's keys could not be read for too long: nothing that needs an assertion is given";
        add("identity-keys", Grade::Alarm, words.to_owned());
    }
    for ending in shared.standing.endings() {
        let grade = match (ending.nearness(now), ending.kind) {
            (Nearness::Far, _) => continue,
            (Nearness::Over, Kind::ServerCertificate) => Grade::Stop,
            (Nearness::Over | Nearness::Day, _) => Grade::Alarm,
            (Nearness::Week | Nearness::Month, _) => Grade::Note,
        };
        add(ending.kind.label(), grade, ending.words(now));
    }
    all.sort_by_key(|condition| std::cmp::Reverse(condition.grade));
    all
}

/// The conditions of the ledger alone.
fn of_ledger(health: &Health) -> Vec<Condition> {
    let mut all = Vec::new();
    let mut add = |state, grade, words: String| all.push(Condition::new(state, grade, words));
    if let Some(cause) = &health.stopped {
        add("stopped", Grade::Stop, format!("the journal has stopped, nothing is answered: {cause}"));
    }
    if health.journal_full {
        let words = "the journal is full: free space is below the reserve, and nothing is decided until there is more";
        add("journal-full", Grade::Stop, words.to_owned());
    }
    if health.queue * 100 >= health.queue_capacity * QUEUE_PERCENT {
        let words =
            format!("{} of {} requests that fit wait for the journal", health.queue, health.queue_capacity);
        add("queue-full", Grade::Stop, words);
    }
    for (state, what, count) in [
        ("damaged-segments", "closed journal segments damaged or gone", health.damaged_segments),
        ("damaged-tiles", "tiles damaged that cannot be made again", health.damaged_tiles),
        ("damaged-rows", "segments of hosted rows that cannot be read", health.unreadable_rows),
    ] {
        if count > 0 {
            add(state, Grade::Alarm, format!("{what}: {count}"));
        }
    }
    for derived in &health.failing {
        add("derived-behind", Grade::Alarm, format!("does not keep up with the journal: {}", derived.name()));
    }
    if health.image_lag >= IMAGE_LAG {
        let words = format!("the restart image lags: the next start replays {} entries", health.image_lag);
        add("image-lag", Grade::Note, words);
    }
    all
}

/// Whether a load balancer may send requests.
pub fn is_ready(conditions: &[Condition]) -> bool {
    conditions.iter().all(|condition| condition.grade < Grade::Stop)
}

/// The body of `/health`: `ok` unless there is an alarm, then a line for each condition.
pub fn health_text(conditions: &[Condition]) -> String {
    let mut text = String::new();
    if conditions.iter().all(|condition| condition.grade < Grade::Alarm) {
        text.push_str("ok\n");
    }
    for condition in conditions {
        let word = if condition.grade < Grade::Alarm { "note" } else { "alarm" };
        text.push_str(&format!("{word}: {}\n", condition.words));
    }
    text
}

/// Says in the operator's log how things stand, for an operator who asks by a signal.
pub fn log_state(shared: &Shared) {
    let ledger = shared.gateway.ledger();
    let health = ledger.health();
    let metrics = shared.metrics.render();
    let connections: Vec<_> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix(CONNECTIONS)?.strip_prefix("{listener=\"")?.split_once("\"} "))
        .map(|(listener, open)| format!("{listener} {open}"))
        .collect();
    tracing::info!(
        size = ledger.size(),
        published = ledger.published().0,
        queue = health.queue,
        image_lag = health.image_lag,
        journal_full = health.journal_full,
        epoch = ledger.state().epoch(),
        epoch_destroyed = ledger.state().epoch_destroyed(),
        connections = connections.join(", "),
        health = health_text(&conditions(shared)).trim_end().replace('\n', "; "),
        "state"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::Derived;

    #[test]
    fn every_state_of_the_ledger_has_its_words() {
        let good = Health {
            journal_full: false,
            stopped: None,
            queue: 3,
            queue_capacity: 100,
            image_lag: 7,
            damaged_segments: 0,
            damaged_tiles: 0,
            unreadable_rows: 0,
            failing: Vec::new(),
        };
        assert_eq!(of_ledger(&good), []);
        assert_eq!(health_text(&[]), "ok\n");
        let bad = Health {
            damaged_segments: 2,
            damaged_tiles: 1,
            unreadable_rows: 3,
            failing: vec![Derived::Tiles, Derived::Index],
            ..good.clone()
        };
        let found = of_ledger(&bad);
        assert!(is_ready(&found), "an alarm does not stop serving");
        assert_eq!(
            health_text(&found),
            "alarm: closed journal segments damaged or gone: 2\n\
             alarm: tiles damaged that cannot be made again: 1\n\
             alarm: segments of hosted rows that cannot be read: 3\n\
             alarm: does not keep up with the journal: tiles\n\
             alarm: does not keep up with the journal: index\n"
        );
        for (state, stops, health) in [
            ("stopped", true, Health { stopped: Some("the disk".to_owned()), ..good.clone() }),
            ("journal-full", true, Health { journal_full: true, ..good.clone() }),
            ("queue-full", true, Health { queue: 90, ..good.clone() }),
            ("image-lag", false, Health { image_lag: 2_000_000, ..good.clone() }),
        ] {
            let found = of_ledger(&health);
            assert_eq!(found.iter().map(|one| one.state).collect::<Vec<_>>(), [state]);
            assert_eq!(is_ready(&found), !stops, "{state}");
        }
        let note = of_ledger(&Health { image_lag: 2_000_000, ..good });
        assert!(health_text(&note).starts_with("ok\nnote: "), "{}", health_text(&note));
    }
}
