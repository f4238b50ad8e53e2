//! Whether a person has said who they are by the identity provider's word, where one is configured; else the portal vouches.
//!
//! Decisions alone ask. Nothing is written here: that an assertion was used stands in the entry of what it was used for.

use ledger::Key;
use ledger::record::CounterUse;
use schemas::codes::{Code, Reason};
use schemas::holder::HolderRef;
use schemas::identifier::Uscc;

use crate::gateway::case::Case;
use crate::identity::{Asserted, Subject};
use crate::keyed;
use crate::participant::{Participant, Role};
use crate::wire::named::UseContext;
use crate::wire::refusal::Refusal;

/// A person's assertion that holds.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    key: Key,
    asserted: Asserted,
}

/// A person's assertion, checked. `is_needed`: what is asked for gives more than there was.
///
/// # Errors
/// [`Code::AssertionRefused`] with the cause, before anything else of the request is looked at.
pub(crate) fn told(
    case: &mut Case<'_>,
    caller: &Uscc,
    assertion: Option<&str>,
    person: &HolderRef,
    is_needed: bool,
) -> Result<Option<Told>, Refusal> {
    let refused = |reason| Refusal::explained(Code::AssertionRefused, reason);
    match (case.identity(), assertion) {
        (Some(_), None) if is_needed => Err(refused(Reason::AssertionMissing)),
        (_, None) => Ok(None),
        (None, Some(_)) => Err(refused(Reason::IdentityUnavailable)),
        (Some(provider), Some(assertion)) => {
            let now = case.now_ms() / 1_000;
            let asserted =
                provider.check(assertion, caller, Subject::Holder(person), now).map_err(refused)?;
            case.ends_at(asserted.ends.saturating_mul(1_000));
            let key = keyed::assertion_key(case.keyed(), provider.issuer(), &asserted.id);
            Ok(Some(Told { key, asserted }))
        }
    }
}

/// A person's assertion for what a portal reads in the person's name, checked; where a provider is configured a portal needs one. It is
/// good for as many questions as its time allows: nothing is given by them.
///
/// # Errors
/// Those of [`told`]; an assertion beside no person is of nobody.
pub(crate) fn reads_for(
    case: &mut Case<'_>,
    caller: &Participant,
    assertion: Option<&str>,
    person: Option<&HolderRef>,
) -> Result<(), Refusal> {
    let Some(person) = person else {
        let refused = |_| Err(Refusal::explained(Code::AssertionRefused, Reason::AssertionSubject));
        return assertion.map_or(Ok(()), refused);
    };
    told(case, &caller.organisation, assertion, person, caller.has(Role::Portal)).map(drop)
}

/// Whether a use is by whom it names, by the identity provider's word if one is said; where one is configured, a grant for one user
/// needs it.
///
/// # Errors
/// Why not.
pub(crate) fn user(
    case: &mut Case<'_>,
    caller: &Uscc,
    context: &UseContext<'_>,
    is_needed: bool,
) -> Result<(), Reason> {
    match (case.identity(), context.assertion.as_deref()) {
        (Some(_), None) if is_needed => Err(Reason::AssertionMissing),
        (_, None) => Ok(()),
        (None, Some(_)) => Err(Reason::IdentityUnavailable),
        (Some(provider), Some(assertion)) => {
            let now = case.now_ms() / 1_000;
            let asserted = provider.check(assertion, caller, Subject::User(&context.user_name), now)?;
            case.ends_at(asserted.ends.saturating_mul(1_000));
            Ok(())
        }
    }
}

impl Told {
    /// Assurance level as a number, from 1.
    pub(crate) fn assurance(&self) -> u8 {
        self.asserted.assurance
    }

    /// The same as the provider names it, if it does.
    pub(crate) fn level(&self) -> Option<String> {
        Some(self.asserted.level.clone()).filter(|level| !level.is_empty())
    }

    /// Its counter: it is good once. The counter outlives it.
    pub(crate) fn once(&self) -> CounterUse {
        CounterUse { key: self.key, day: self.asserted.last_day(), amount: 1, limit: 1 }
    }
}

/// The assurance of what was told, as a number; 0 where the portal vouches alone.
pub(crate) fn assurance(told: Option<&Told>) -> u8 {
    told.map_or(0, Told::assurance)
}
