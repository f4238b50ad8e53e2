//! Which right permits a use of a license, or why there is none; and the license that a request names, with whom it belongs to.
//!
//! It reads a case and changes nothing, so a crash leaves nothing.

use ledger::{Holder, Key, Label};
use schemas::codes::Reason;
use schemas::holder::HolderRef;
use schemas::identifier::{LicenseTypeCode, Uscc};
use schemas::kinds::Scenario;

use crate::gateway::case::{Case, Found};
use crate::keyed;
use crate::participant::{Participant, Role};
use crate::rights::assertion::user;
use crate::rights::floor::{self, Ask};
use crate::rights::link::still_allow;
use crate::rights::mode::Mode;
use crate::wire::named::{Named, UseContext};

/// By what right a use is permitted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Right {
    /// No more than any relying party has.
    Open,
    /// The holder, through the portal.
    Holder,
    /// The license's own issuing authority.
    Issuer,
    /// A grant, with its modes.
    Grant { counted: Counted, modes: u8 },
}

impl Right {
    /// The legal basis of a use by this right, in a word: what is open to all, the holder's own request, the duty of the issuing
    /// authority, the holder's consent.
    pub(crate) const fn basis(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Holder => "request",
            Self::Issuer => "duty",
            Self::Grant { .. } => "consent",
        }
    }
}

/// A use of a grant, as it is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    /// The grant's key, which its counter is named by.
    pub(crate) grant: Key,
    /// Most uses; 0 = without limit, and nothing is counted.
    pub(crate) limit: u32,
    /// Counter of this license in this case: whatever is asked again there is the same use.
    pub(crate) in_case: Key,
}

/// A use and its subject, for [`right`].
pub(crate) struct Use<'a> {
    pub(crate) caller: &'a Participant,
    pub(crate) found: Option<&'a Found>,
    pub(crate) holders: &'a [Label],
    pub(crate) license_type: Key,
    pub(crate) issuer: Option<Uscc>,
    pub(crate) mode: Mode,
    pub(crate) fields: u64,
    pub(crate) vouched: Option<&'a Holder>,
    pub(crate) grant: Option<[u8; 16]>,
    pub(crate) context: &'a UseContext<'a>,
}

/// Finds the right that permits a use, or why there is none. The same facts are read whatever the answer is.
pub(crate) fn right(case: &mut Case<'_>, ask: &Use<'_>) -> Result<Right, Reason> {
    #[cfg(feature = "bench-ablation")]
    if crate::without::is_without(crate::without::Without::Floor) {
        return Ok(Right::Open);
    }
    let grant = ask.grant.map(|id| case.grant(&id).map(|held| held.grant));
    let no_license = if ask.found.is_none() { Reason::NoSuchLicense } else { Reason::NoGrant };
    let organisation = &ask.caller.organisation;
    if let Some(grant) = grant {
        let context = ask.context;
        let for_one_item = grant.as_ref().is_some_and(|grant| grant.item_tag != 0);
        let item_tag = if for_one_item { keyed::item_tag(case.keyed(), &context.item_code) } else { 0 };
        let for_one_user = grant.as_ref().is_some_and(|grant| grant.user_tag != 0);
        let user_tag =
            if for_one_user { keyed::user_tag(case.keyed(), organisation, &context.user_name) } else { 0 };
        let by_user = user(case, organisation, context, for_one_user);
        let linked = grant.as_ref().is_none_or(|grant| {
            let is_type = |case: &Case<'_>, code: &_| keyed::type_key(case.keyed(), code) == ask.license_type;
            still_allow(case, grant.chain.iter().copied(), &grant.holder, grant.modes, is_type)
        });
        let vouched = grant.as_ref().is_some_and(|grant| case.portal_vouches(grant));
        let question = Ask {
            organisation: organisation.as_str(),
            license: ask.found.map(|found| &found.key),
            license_type: &ask.license_type,
            holders: ask.holders,
            mode: ask.mode,
            fields: ask.fields,
            item_tag,
            purpose: context.purpose.as_deref(),
            scenario: context.scenario.map_or(0, Scenario::number),
            user_tag,
            vouched,
            linked,
            now_ms: case.now_ms(),
        };
        let covered = floor::covers(grant.as_ref(), &question).and(by_user);
        let (key, limit, modes) =
            grant.as_ref().map_or(([0; 16], 0, 0), |grant| (grant.key, grant.max_uses, grant.modes));
        let license = question.license.unwrap_or(&ask.license_type);
        let in_case = match limit {
            0 => key,
            _ => {
                let (item, number) = (&context.item_code, &context.business_code);
                keyed::case_key(case.keyed(), &key, license, item, number)
            }
        };
        let counted = Counted { grant: key, limit, in_case };
        if !ask.caller.has(Role::Relying) && !ask.caller.has(Role::Peer) {
            return Err(Reason::OtherGrantee);
        }
        return covered.map(|()| Right::Grant { counted, modes }).map_err(|reason| {
            if ask.holders.is_empty() && reason == Reason::OtherHolder { no_license } else { reason }
        });
    }
    if ask.caller.has(Role::Portal)
        && let Some(vouched) = ask.vouched
    {
        return match ask.found {
            Some(_) if ask.holders.contains(&vouched.label) => Ok(Right::Holder),
            Some(_) => Err(Reason::OtherHolder),
            None => Err(Reason::NoSuchLicense),
        };
    }
    if ask.caller.has(Role::Issuer) && ask.found.is_some() && ask.issuer == Some(*organisation) {
        return Ok(Right::Issuer);
    }
    Err(no_license)
}

/// A named license, resolved.
pub(crate) struct Resolved {
    pub(crate) found: Option<Found>,
    pub(crate) type_code: LicenseTypeCode,
    pub(crate) issuer: Option<Uscc>,
    pub(crate) version: Option<u16>,
    pub(crate) holder: Option<Holder>,
    pub(crate) vouched: Option<Holder>,
}

pub(crate) fn resolve(
    case: &mut Case<'_>,
    caller: &Participant,
    named: &Named<'_>,
    vouched: Option<&HolderRef>,
) -> Resolved {
    let found = case.named(named);
    // Only a portal vouches for anybody; what others say of a holder is not looked up.
    let vouched = vouched.filter(|_| caller.has(Role::Portal)).and_then(|holder| case.holder(holder));
    match named {
        Named::Identifier { identifier, .. } => Resolved {
            found,
            type_code: identifier.type_code(),
            issuer: identifier.issuer().uscc(),
            version: Some(identifier.version()),
            holder: None,
            vouched,
        },
        Named::Number { type_code, holder, .. } => {
            let holder = case.holder(holder);
            Resolved { found, type_code: *type_code, issuer: None, version: None, holder, vouched }
        }
    }
}

impl Resolved {
    /// The license's real holders if known, else the holder named.
    pub(crate) fn concerned(&self) -> Vec<Label> {
        match (&self.found, &self.holder, &self.vouched) {
            (Some(found), _, _) => found.license.holders.clone(),
            (None, Some(holder), _) | (None, None, Some(holder)) => vec![holder.label],
            (None, None, None) => Vec::new(),
        }
    }

    pub(crate) fn ask<'a>(
        &'a self,
        license_type: Key,
        caller: &'a Participant,
        mode: Mode,
        fields: u64,
        grant: Option<[u8; 16]>,
        use_context: &'a UseContext<'a>,
    ) -> Use<'a> {
        let holders = match (&self.found, &self.holder) {
            (Some(found), _) => found.license.holders.as_slice(),
            (None, Some(holder)) => std::slice::from_ref(&holder.label),
            (None, None) => &[],
        };
        Use {
            caller,
            found: self.found.as_ref(),
            holders,
            license_type,
            issuer: self.issuer,
            mode,
            fields,
            vouched: self.vouched.as_ref(),
            grant,
            context: use_context,
        }
    }
}
