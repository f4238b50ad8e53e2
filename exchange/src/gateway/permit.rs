//! Step 5 of the request path: a [`Ruling`] is what a decision says, and a [`Permit`] what the path makes of one.
//! Whatever discloses or changes anything takes a permit, or the [`Disclosure`] that came with it; only the path makes
//! them. A permit is memory: one that was not committed before a crash has let nothing out.

use ledger::record::CounterUse;
use ledger::{Key, Label};
use schemas::codes::{Code, Reason};
use schemas::identifier::Uscc;

use super::allowance::Allowance;
use super::case::Case;
use crate::keyed;
use crate::participant::Participant;
use crate::rights::right::{Counted, Right};
use crate::wire::refusal::Refusal;

/// That a request may be carried out, and what stands in its entry for it.
#[derive(Debug)]
pub struct Ruling<G> {
    granted: G,
    concerned: Vec<Label>,
    names_holder: bool,
    grant: Option<Counted>,
    /// The other grants, where several are used.
    more_grants: Vec<Counted>,
    quota: Option<(u32, u32)>,
    /// By what right the use is permitted, in a word.
    basis: Option<&'static str>,
    /// Key, limit and day of an approval's queries.
    approval: Option<(Key, u32, u32)>,
}

impl<G> Ruling<G> {
    /// A ruling without counters. The holders it concerns are known by their labels, which the receipt shows.
    pub fn plain(granted: G, concerned: Vec<Label>) -> Self {
        Self {
            granted,
            concerned,
            names_holder: true,
            grant: None,
            more_grants: Vec::new(),
            quota: None,
            basis: None,
            approval: None,
        }
    }

    /// The receipt does not show the labels.
    #[must_use]
    pub fn unnamed(self) -> Self {
        Self { names_holder: false, ..self }
    }

    /// The receipt shows the labels only if the request or the answer names the holder.
    #[must_use]
    pub(crate) fn naming(self, names_holder: bool) -> Self {
        Self { names_holder: self.names_holder && names_holder, ..self }
    }

    /// Counts a use, and shows labels only to whom a right, or the license itself, has told who the holder is. `has_license`:
    /// there is a license that the caller is told of.
    pub(crate) fn used(
        self,
        right: Right,
        caller: &Participant,
        case: &mut Case<'_>,
        has_license: bool,
    ) -> Self {
        let names_holder = match right {
            Right::Holder | Right::Grant { .. } => self.names_holder,
            Right::Issuer | Right::Open => self.names_holder && has_license,
        };
        let grant = match right {
            Right::Grant { counted, .. } => Some(counted),
            Right::Open | Right::Holder | Right::Issuer => None,
        };
        let quota = caller.daily_quota.map(|limit| (limit, case.today()));
        Self { grant, quota, names_holder, basis: Some(right.basis()), ..self }
    }

    /// The same where nothing is used of a grant: only whether there is something left of it.
    ///
    /// # Errors
    /// A grant is spent.
    pub(crate) fn uncounted(self, case: &Case<'_>) -> Result<Self, Refusal> {
        self.of_grants(case)?;
        Ok(Self { grant: None, more_grants: Vec::new(), ..self })
    }

    /// Counts a use of these grants too.
    pub(crate) fn and(self, more_grants: Vec<Counted>) -> Self {
        Self { more_grants, ..self }
    }

    /// The same ruling, for who asked for it in another shape.
    pub(crate) fn map<H>(self, shape: impl FnOnce(G) -> H) -> Ruling<H> {
        let Self { granted, concerned, names_holder, grant, more_grants, quota, basis, approval } = self;
        let granted = shape(granted);
        Ruling { granted, concerned, names_holder, grant, more_grants, quota, basis, approval }
    }

    /// Counts a use of shared data: of the caller's day, and of the approval's where it has a limit.
    pub(crate) fn approved(
        self,
        caller: &Participant,
        case: &mut Case<'_>,
        approval: Option<(Key, u32)>,
    ) -> Self {
        let quota = caller.daily_quota.map(|limit| (limit, case.today()));
        let approval = approval.map(|(key, limit)| (key, limit, case.today()));
        Self { quota, basis: Some("approval"), approval, ..self }
    }

    /// The granted deed, for a test of the decision alone.
    #[cfg(test)]
    pub(crate) fn into_granted(self) -> G {
        self.granted
    }

    /// The granted deed.
    pub(super) fn granted(&self) -> &G {
        &self.granted
    }

    /// The counters of the use: a grant's uses, and the caller's of the day. A counter has to have room by now; the sequencer looks
    /// again when it commits: one that is spent by then has the request decided anew, which ends here (decision 0014).
    ///
    /// # Errors
    /// A grant or the quota is spent.
    pub(crate) fn counters(&self, case: &mut Case<'_>, caller: &Uscc) -> Result<Vec<CounterUse>, Refusal> {
        let mut counters = self.of_grants(case)?;
        if let Some((limit, day)) = self.quota {
            let key = keyed::quota_key(case.keyed(), caller);
            case.note(Allowance::of_day("quota", limit, key, day));
            let refusal = || Refusal::new(Code::QuotaSpent);
            counters.push(unspent(
                case.counter(&key, day),
                CounterUse { key, day, amount: 1, limit },
                refusal,
            )?);
        }
        if let Some((key, limit, day)) = self.approval {
            case.note(Allowance::of_day("approval", limit, key, day));
            let refusal = || Refusal::new(Code::QuotaSpent);
            counters.push(unspent(
                case.counter(&key, day),
                CounterUse { key, day, amount: 1, limit },
                refusal,
            )?);
        }
        Ok(counters)
    }

    /// Those of grants alone.
    fn of_grants(&self, case: &Case<'_>) -> Result<Vec<CounterUse>, Refusal> {
        let mut counters = Vec::new();
        let grants = self.grant.iter().chain(&self.more_grants).copied();
        for Counted { grant: key, limit, in_case } in grants.filter(|counted| counted.limit != 0) {
            // A license asked for again in this case is one use, however often; the first of several at once counts it.
            if case.counter(&in_case, 0) > 0 {
                continue;
            }
            let refusal = || Refusal::not_permitted(Reason::GrantUsedUp);
            counters.push(unspent(
                case.counter(&key, 0),
                CounterUse { key, day: 0, amount: 1, limit },
                refusal,
            )?);
            counters.push(CounterUse { key: in_case, day: 0, amount: 1, limit: 1 });
        }
        Ok(counters)
    }

    /// The permit, and what its entry says beside it.
    pub(super) fn into_parts(self, counters: Vec<CounterUse>) -> (Permit<G>, Terms) {
        let Self { granted, concerned, names_holder, basis, .. } = self;
        (Permit { granted }, Terms { concerned, names_holder, counters, basis })
    }
}

/// The part of a ruling that its entry says.
pub(super) struct Terms {
    /// Labels of the holders concerned that the exchange knows already.
    pub(super) concerned: Vec<Label>,
    /// The request or the answer names the holder, so the receipt shows the labels.
    pub(super) names_holder: bool,
    /// Counters raised with it.
    pub(super) counters: Vec<CounterUse>,
    /// By what right the use is permitted.
    pub(super) basis: Option<&'static str>,
}

/// A counter that has room by now, of which so much is `used`.
pub(crate) fn unspent(
    used: u32,
    counter: CounterUse,
    refusal: impl FnOnce() -> Refusal,
) -> Result<CounterUse, Refusal> {
    if used.saturating_add(counter.amount) > counter.limit { Err(refusal()) } else { Ok(counter) }
}

/// A decision that permits: the only way to an effect.
#[derive(Debug)]
pub struct Permit<G> {
    granted: G,
}

/// The right to disclose. Sealed records are read with it.
#[derive(Clone, Copy, Debug)]
pub struct Disclosure(());

impl<G> Permit<G> {
    /// The granted deed, and the right to read for it.
    pub fn into_parts(self) -> (G, Disclosure) {
        (self.granted, Disclosure(()))
    }

    /// The granted deed, to be called for.
    pub(super) fn granted(&self) -> &G {
        &self.granted
    }

    /// The granted deed, for the reply of a call.
    pub(super) fn granted_mut(&mut self) -> &mut G {
        &mut self.granted
    }

    /// The granted deed.
    pub fn into_granted(self) -> G {
        self.granted
    }

    /// The same permit for the part that was granted, if it was.
    pub(crate) fn part<P>(self, part: impl FnOnce(G) -> Option<P>) -> Option<Permit<P>> {
        part(self.granted).map(|granted| Permit { granted })
    }
}

impl Disclosure {
    /// For an answer that is given again: its right was found to hold by the decision before.
    pub(super) fn again<G>(_ruling: &Ruling<G>) -> Self {
        Self(())
    }
}

/// A refusal with the holders it concerns.
#[derive(Debug)]
pub(super) struct Denial {
    /// Code and reason.
    pub(super) refusal: Refusal,
    /// Whom it concerns: see [`super::names::Names::concerned`].
    pub(super) concerned: Vec<Label>,
}
