//! Requests shed before a decision are counted per organisation and code. Once a second the counts are journaled, so
//! that rubbish can neither fill the disk nor go unseen.
//!
//! The gateway counts, and one task journals. A crash loses the counts since the last such entry.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use rustc_hash::FxBuildHasher;
use schemas::codes::Code;
use schemas::identifier::Uscc;

/// Journaled refusals an organisation may cause a second.
pub const REFUSALS_A_SECOND: u32 = 50;
/// Journaled refusals it may cause at once.
pub const REFUSAL_BURST: u32 = 1_000;

/// Budgets of journaled refusals, and counts of what was shed.
pub struct Shed {
    /// The cost of one refusal.
    cost: Duration,
    /// How far ahead of now an organisation may be.
    burst: Duration,
    /// The moment at which an organisation has paid for all its refusals. Refusals already decided when the budget
    /// ends are charged too, so the organisation goes into debt and stays shut out until it is paid.
    /// Each organisation in it has a certificate, so nobody can choose keys that collide.
    paid: DashMap<Uscc, Instant, FxBuildHasher>,
    counts: DashMap<(Uscc, u16), u64>,
}

impl Shed {
    /// A budget per organisation.
    pub fn new(a_second: NonZeroU32, burst: NonZeroU32) -> Self {
        let cost = Duration::from_secs(1) / a_second.get();
        Self { cost, burst: cost * burst.get(), paid: DashMap::default(), counts: DashMap::new() }
    }

    /// Whether the organisation's next request is shed before its body is read.
    pub fn closed(&self, organisation: &Uscc) -> bool {
        self.paid.get(organisation).is_some_and(|paid| *paid > Instant::now() + self.burst)
    }

    /// How many refusals the organisation may still cause now without being shut out.
    pub fn left(&self, organisation: &Uscc) -> usize {
        let now = Instant::now();
        let owed = self.paid.get(organisation).map(|paid| paid.saturating_duration_since(now));
        let left = self.burst.saturating_sub(owed.unwrap_or_default());
        // Without a cost there is no budget.
        left.as_nanos()
            .checked_div(self.cost.as_nanos())
            .map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// Takes one journaled refusal from the organisation's budget.
    pub fn refused(&self, organisation: &Uscc) {
        let now = Instant::now();
        let mut paid = self.paid.entry(*organisation).or_insert(now);
        *paid = (*paid).max(now) + self.cost;
    }

    /// Gives one back: the request is decided again, and pays for that.
    pub fn refunded(&self, organisation: &Uscc) {
        if let Some(mut paid) = self.paid.get_mut(organisation)
            && let Some(before) = paid.checked_sub(self.cost)
        {
            *paid = before;
        }
    }

    /// Counts one request that was shed.
    pub fn count(&self, organisation: &Uscc, code: Code) {
        *self.counts.entry((*organisation, code.number())).or_default() += 1;
    }

    /// Takes the counts since the last call.
    pub fn take(&self) -> Vec<(String, Code, u64)> {
        let keys: Vec<_> = self.counts.iter().map(|entry| *entry.key()).collect();
        self.paid.retain(|_, paid| *paid > Instant::now());
        keys.into_iter()
            .filter_map(|key| {
                let ((organisation, code), count) = self.counts.remove(&key)?;
                Some((organisation.as_str().to_owned(), Code::from_number(code)?, count))
            })
            .collect()
    }

    /// Puts counts back that could not be journaled.
    pub fn put_back(&self, counts: Vec<(String, Code, u64)>) {
        for (organisation, code, count) in counts {
            if let Ok(organisation) = organisation.parse() {
                *self.counts.entry((organisation, code.number())).or_default() += count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spent_budget_closes_the_door_for_that_organisation_alone() {
        let two = NonZeroU32::new(2).expect("not zero");
        let one = NonZeroU32::new(1).expect("not zero");
        let shed = Shed::new(one, two);
        let noisy: Uscc = "91350100M000100Y43".parse().expect("a vector");
        let quiet: Uscc = "11100000000013338W".parse().expect("a vector");
        for left in [2, 1] {
            assert_eq!(shed.left(&noisy), left);
            shed.refused(&noisy);
            assert!(!shed.closed(&noisy));
        }
        assert_eq!((shed.left(&noisy), shed.left(&quiet)), (0, 2));
        assert_eq!(Shed::new(NonZeroU32::MAX, one).left(&noisy), usize::MAX, "a refusal costs nothing");
        // One that is decided again pays once.
        shed.refused(&noisy);
        shed.refunded(&noisy);
        assert_eq!(shed.left(&noisy), 0);
        assert!(!shed.closed(&noisy));
        // The third is one too many, and what was under way beside it is charged as well.
        for _ in 0..10 {
            shed.refused(&noisy);
        }
        assert!(shed.closed(&noisy));
        assert!(shed.paid.get(&noisy).is_some_and(|paid| *paid > Instant::now() + Duration::from_secs(9)));
        assert!(!shed.closed(&quiet));
        shed.count(&noisy, Code::TooManyRefusals);
        shed.count(&noisy, Code::TooManyRefusals);
        assert_eq!(shed.take(), vec![(noisy.to_string(), Code::TooManyRefusals, 2)]);
        assert!(shed.take().is_empty());
    }
}
