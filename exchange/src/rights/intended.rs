//! Whether a use of licenses stays within the list of intended uses (用证清单) of the organisation that makes it, or stands for.
//!
//! Decisions ask before they look a license up, so a refusal says nothing of one. It reads a case and changes nothing; that it was asked
//! for is counted by the entry of the refusal.

use ledger::Key;
use ledger::record::CounterUse;
use schemas::codes::{Code, Reason, Rule};
use schemas::identifier::{LicenseTypeCode, Uscc};

use crate::gateway::case::Case;
use crate::participant::Participant;
use crate::rights::mode::Mode;
use crate::sharing::dictionary::{Imported, Intended, beyond_key, intended_key};
use crate::wire::named::UseContext;
use crate::wire::refusal::{Fault, Refusal};

/// The part of a license that a use asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a, F> {
    /// The type.
    pub(crate) type_code: &'a LicenseTypeCode,
    /// How much.
    pub(crate) mode: Mode,
    /// Names of the fields, shown or expected.
    pub(crate) fields: F,
    /// The member of the request that names them.
    pub(crate) member: &'static str,
}

/// Whether the lists of those who use, if they have one, have a line for this use.
///
/// # Errors
/// [`Code::BeyondIntendedUse`], at the part that is beyond the line.
pub(crate) fn within<'f, F: Iterator<Item = &'f str> + Clone>(
    case: &mut Case<'_>,
    caller: &Participant,
    context: &UseContext<'_>,
    wanted: &Wanted<'_, F>,
) -> Result<(), Refusal> {
    if caller.intended_use {
        line(case, &caller.organisation, context, wanted)?;
    }
    let Some(organisation) = &context.acting_for else { return Ok(()) };
    let has_list = case.participant(organisation).is_some_and(|participant| participant.intended_use);
    if has_list { line(case, organisation, context, wanted) } else { Ok(()) }
}

fn line<'f, F: Iterator<Item = &'f str> + Clone>(
    case: &mut Case<'_>,
    organisation: &Uscc,
    context: &UseContext<'_>,
    wanted: &Wanted<'_, F>,
) -> Result<(), Refusal> {
    let (item, type_code) = (&*context.item_code, wanted.type_code);
    let (_, found) =
        case.document::<Imported<Intended>>(intended_key(case.keyed(), organisation, item, type_code));
    let Some(line) = found.map(|found| found.entry).filter(|line| !line.use_.cancelled) else {
        let fault =
            Fault::at("/use/itemCode", Rule::NotAllowed).form("an item with a line for the license type");
        return Err(beyond(
            case,
            Reason::NoIntendedUse,
            fault,
            &[beyond_key(case.keyed(), organisation, None)],
        ));
    };
    let keys = [
        beyond_key(case.keyed(), organisation, None),
        beyond_key(case.keyed(), organisation, Some((item, type_code))),
    ];
    if line.modes() & wanted.mode.allowed_by() == 0 {
        let modes = line.use_.modes.clone();
        return Err(beyond(
            case,
            Reason::IntendedLess,
            Fault::at("/mode", Rule::NotAllowed).one_of(modes),
            &keys,
        ));
    }
    // A right to all fields is one to each.
    if line.modes() & Mode::Face.allowed_by() != 0 {
        return Ok(());
    }
    let unlisted = |(name, _): &(&str, usize)| !line.use_.fields.iter().any(|field| field == name);
    match wanted.fields.clone().zip(1..).find(unlisted) {
        None => Ok(()),
        Some((_, position)) => {
            let fault = Fault::at(wanted.member, Rule::NotAllowed).position(position);
            Err(beyond(case, Reason::IntendedLess, fault.one_of(line.use_.fields.clone()), &keys))
        }
    }
}

/// The refusal, counted under these keys for good.
fn beyond(case: &Case<'_>, reason: Reason, fault: Fault, keys: &[Key]) -> Refusal {
    let counts = keys.iter().filter(|key| case.counter(key, 0) < u32::MAX);
    let counts = counts.map(|key| CounterUse { key: *key, day: 0, amount: 1, limit: u32::MAX });
    Refusal::of(Code::BeyondIntendedUse, fault).because(reason).counting(counts)
}
