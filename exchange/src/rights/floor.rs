//! The floor of authorisation in plain Rust: what no policy can lift. Pure functions over facts. Decisions call it, and
//! no route goes around it. Nothing to lose.

use ledger::{Grant, Key, Label};
use schemas::codes::Reason;
use schemas::license_type::{BASE_FIELDS, LicenseType};

use crate::rights::mode::Mode;

/// Text of the floor's rules; its hash stands in every entry as the policy hash. Changing a rule changes this.
pub const POLICY: &str = "miaoxiang floor v5: default deny; the policies in force permit it, beside all that follows; \
issuers act on their own types and licenses; portals vouch for the \
holder they name; relying parties verify envelopes and licenses of legal persons; every other use needs a live grant of a \
holder for this organisation and user, licenses or types, mode or a higher one, fields, item, purpose and field of use, whose portal \
still vouches for holders and whose links, if an agent made it, all hold and allow as much; no agent grants more than its links \
allow; uses of one license in one case by one grant count once; where an identity provider is configured, what gives more takes \
the assertion of the person who gives it, and what a portal reads in a person's name that person's; no portal grants itself anything; the signed bytes of a license that is not in force are given on express request only, by a grant in a mode of \
its own; portals read the trace of the holder they name, for an agent with a live link; auditors read the log for a purpose; a \
use is delayed by the classes of its participant; a presentation code that its holder minted shows state, validity and the fields \
that it names, once, to the class of verifiers that it is for; inspectors see permits of legal persons; a participant with limits \
is admitted to what they name";

/// Grant state: active.
pub const GRANT_ACTIVE: u8 = 1;
/// Grant state: paused.
pub const GRANT_PAUSED: u8 = 2;
/// Grant state: revoked.
pub const GRANT_REVOKED: u8 = 3;

/// A caller's request to use a grant.
#[derive(Debug)]
pub struct Ask<'a> {
    /// The caller.
    pub organisation: &'a str,
    /// The license, where one is named.
    pub license: Option<&'a Key>,
    /// Key of the license's type.
    pub license_type: &'a Key,
    /// Labels of the license's holders, or of the holder searched for.
    pub holders: &'a [Label],
    /// How much is to be disclosed.
    pub mode: Mode,
    /// Fields to be disclosed or expected, as bits.
    pub fields: u64,
    /// Tag of the service item in the use context; looked at for a grant that is for one item only.
    pub item_tag: u64,
    /// Purpose of the use.
    pub purpose: Option<&'a str>,
    /// Number of the field of use; 0 = none said.
    pub scenario: u8,
    /// Tag of the user; looked at for a grant that is for one user only.
    pub user_tag: u64,
    /// Whether the portal that made the grant still vouches for holders.
    pub vouched: bool,
    /// Whether the links by which an agent made the grant hold and allow it.
    pub linked: bool,
    /// Now, ms since 1970.
    pub now_ms: u64,
}

/// Whether a grant covers what is asked; the first thing that it does not cover otherwise. Uses are counted by the
/// sequencer, exactly, and not here.
pub fn covers(grant: Option<&Grant>, ask: &Ask<'_>) -> Result<(), Reason> {
    let Some(grant) = grant else { return Err(Reason::NoSuchGrant) };
    if grant.grantee.as_slice() != ask.organisation.as_bytes() {
        return Err(Reason::OtherGrantee);
    }
    if !ask.holders.contains(&grant.holder) {
        return Err(Reason::OtherHolder);
    }
    match grant.state {
        GRANT_ACTIVE => {}
        GRANT_REVOKED => return Err(Reason::GrantRevoked),
        _ => return Err(Reason::GrantPaused),
    }
    if ask.now_ms > grant.until_ms {
        return Err(Reason::GrantExpired);
    }
    if !ask.vouched {
        return Err(Reason::PortalInactive);
    }
    let Some(fields) = grant.fields_of(ask.license, ask.license_type) else {
        return Err(Reason::GrantOtherTarget);
    };
    if !ask.linked {
        return Err(Reason::GrantLinkEnded);
    }
    if grant.modes & ask.mode.allowed_by() == 0 {
        return Err(Reason::GrantOtherMode);
    }
    if ask.fields & !fields != 0 {
        return Err(Reason::GrantOtherFields);
    }
    if grant.item_tag != 0 && grant.item_tag != ask.item_tag {
        return Err(Reason::GrantOtherItem);
    }
    if grant.purpose.as_deref().is_some_and(|purpose| ask.purpose != Some(purpose)) {
        return Err(Reason::GrantOtherPurpose);
    }
    if grant.scenario != 0 && grant.scenario != ask.scenario {
        return Err(Reason::GrantOtherScenario);
    }
    if grant.user_tag != 0 && grant.user_tag != ask.user_tag {
        return Err(Reason::GrantOtherUser);
    }
    Ok(())
}

/// The bit of a field name: a base field from 63 down, or a field of the type by its index.
pub fn field_bit(license_type: Option<&LicenseType>, name: &str) -> Option<u64> {
    if let Some(index) = BASE_FIELDS.iter().position(|base| *base == name) {
        return Some(1 << (63 - index));
    }
    license_type?.field_index(name).map(|index| 1 << index)
}

/// The bits of several field names; `None` when one of them does not exist.
pub fn field_mask<'n>(
    license_type: Option<&LicenseType>,
    names: impl IntoIterator<Item = &'n str>,
) -> Option<u64> {
    names.into_iter().try_fold(0, |mask, name| Some(mask | field_bit(license_type, name)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::GrantTarget;

    const HOLDER: Label = [7; 16];
    const LICENSE: Key = [1; 16];
    const TYPE: Key = [2; 16];

    fn grant() -> Grant {
        Grant {
            key: [4; 16],
            version: 1,
            state: GRANT_ACTIVE,
            holder: HOLDER,
            grantee: *b"91350100M000100Y43",
            target: LICENSE,
            target_is_type: false,
            modes: Mode::Verify.bit(),
            fields: 0b11,
            item_tag: 5,
            until_ms: 1_000,
            max_uses: 0,
            portal: *b"91350100M000100Y43",
            purpose: Some("贷款".into()),
            scenario: 3,
            user_tag: 8,
            ..Grant::default()
        }
    }

    fn ask() -> Ask<'static> {
        Ask {
            organisation: "91350100M000100Y43",
            license: Some(&LICENSE),
            license_type: &TYPE,
            holders: &[HOLDER],
            mode: Mode::Verify,
            fields: 0b01,
            item_tag: 5,
            purpose: Some("贷款"),
            scenario: 3,
            user_tag: 8,
            vouched: true,
            linked: true,
            now_ms: 1_000,
        }
    }

    #[test]
    fn each_part_of_a_grant_is_checked() {
        assert_eq!(covers(Some(&grant()), &ask()), Ok(()));
        assert_eq!(covers(None, &ask()), Err(Reason::NoSuchGrant));
        let other = Ask { organisation: "91350100M000100Y44", ..ask() };
        assert_eq!(covers(Some(&grant()), &other), Err(Reason::OtherGrantee));
        let other = Ask { holders: &[[8; 16]], ..ask() };
        assert_eq!(covers(Some(&grant()), &other), Err(Reason::OtherHolder));
        let revoked = Grant { state: GRANT_REVOKED, ..grant() };
        assert_eq!(covers(Some(&revoked), &ask()), Err(Reason::GrantRevoked));
        let paused = Grant { state: GRANT_PAUSED, ..grant() };
        assert_eq!(covers(Some(&paused), &ask()), Err(Reason::GrantPaused));
        assert_eq!(covers(Some(&grant()), &Ask { now_ms: 1_001, ..ask() }), Err(Reason::GrantExpired));
        assert_eq!(covers(Some(&grant()), &Ask { vouched: false, ..ask() }), Err(Reason::PortalInactive));
        let other = Ask { license: Some(&TYPE), ..ask() };
        assert_eq!(covers(Some(&grant()), &other), Err(Reason::GrantOtherTarget));
        let type_grant = Grant { target: LICENSE, target_is_type: true, ..grant() };
        assert_eq!(covers(Some(&type_grant), &ask()), Err(Reason::GrantOtherTarget));
        assert_eq!(covers(Some(&grant()), &Ask { mode: Mode::Face, ..ask() }), Err(Reason::GrantOtherMode));
        assert_eq!(covers(Some(&grant()), &Ask { fields: 0b100, ..ask() }), Err(Reason::GrantOtherFields));
        assert_eq!(covers(Some(&grant()), &Ask { item_tag: 6, ..ask() }), Err(Reason::GrantOtherItem));
        let refused = |other: Ask<'static>| covers(Some(&grant()), &other).expect_err("refused");
        assert_eq!(refused(Ask { purpose: None, ..ask() }), Reason::GrantOtherPurpose);
        assert_eq!(refused(Ask { purpose: Some("保险"), ..ask() }), Reason::GrantOtherPurpose);
        assert_eq!(refused(Ask { scenario: 0, ..ask() }), Reason::GrantOtherScenario);
        assert_eq!(refused(Ask { user_tag: 0, ..ask() }), Reason::GrantOtherUser);
        assert_eq!(refused(Ask { linked: false, ..ask() }), Reason::GrantLinkEnded);
        // Each target has its own fields.
        let more_targets = vec![GrantTarget { key: TYPE, fields: 0b01 }];
        let several = Grant { target: [3; 16], target_is_type: true, more_targets, ..grant() };
        assert_eq!(covers(Some(&several), &ask()), Ok(()));
        let wider = Ask { fields: 0b10, ..ask() };
        assert_eq!(covers(Some(&several), &wider), Err(Reason::GrantOtherFields));
        let other = Ask { license_type: &LICENSE, ..ask() };
        assert_eq!(covers(Some(&several), &other), Err(Reason::GrantOtherTarget));
        let higher = Grant { modes: Mode::Copy.bit(), ..grant() };
        assert_eq!(covers(Some(&higher), &ask()), Ok(()));
    }
}
