//! Links (监护, 授权代理, 亲友代办, 分级授权): by what somebody acts for a holder, how far, and under whom. A chain of links leads from
//! whoever acts up to the holder.
//!
//! The two routes of links alone write them. A link is journaled state: a crash leaves it and its entry, or neither.

use ledger::{DocumentKind, GrantLink, Key, Label};
use schemas::codes::Reason;
use schemas::holder::HolderRef;
use schemas::identifier::{LicenseTypeCode, Uscc};
use schemas::kinds::LinkKind;
use serde::{Deserialize, Serialize};
use verifier::trace::Label as PageLabel;

use crate::gateway::case::{Case, Place};
use crate::gateway::parsed::Kept;
use crate::keyed;
use crate::rights::mode::Mode;

/// Most links of a chain: one for each tier.
const MAX_CHAIN: usize = 3;

/// A link between a holder and an agent as journaled. It names both by label, so it ends with either: who is erased and
/// comes back has another one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Link {
    /// The person or organisation acted for.
    pub holder: PageLabel,
    /// The person who acts.
    pub agent: PageLabel,
    /// By what the agent acts.
    pub kind: LinkKind,
    /// Last valid moment, ms since 1970.
    pub until_ms: u64,
    /// Ended before that.
    pub ended: bool,
    /// When it began, ms since 1970. New terms of a live link leave it; made anew it is another one, and nothing that was done
    /// under the old one comes back.
    pub since_ms: u64,
    /// The agent's own modes of grants, as bits.
    pub modes: u8,
    /// Types of licenses that the agent acts for; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<LicenseTypeCode>,
    /// The link of whoever gave it, where that is not the holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under: Option<Above>,
    /// The basis of a guardian.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<String>,
    /// Assurance level of the assertions that it was made with, from 1; 0 = the portal's word.
    #[serde(default)]
    pub assurance: u8,
}

/// The link above another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Above {
    /// Key of its document.
    pub key: PageLabel,
    /// When it began, ms since 1970.
    pub since_ms: u64,
}

impl Link {
    /// Whether it is between these two as they are now, and not ended by its portal.
    pub(crate) fn holds(&self, holder: &Label, agent: &Label) -> bool {
        !self.ended && self.holder.0 == *holder && self.agent.0 == *agent
    }

    /// Whether it is the link of a holder that began at a moment, and goes on.
    pub(crate) fn is_live(&self, holder: &Label, since_ms: u64, now_ms: u64) -> bool {
        !self.ended && self.holder.0 == *holder && self.since_ms == since_ms && now_ms <= self.until_ms
    }

    /// Whether a grant of these modes, of licenses of a type, is within what the agent may do.
    pub(crate) fn allows(&self, modes: u8, is_type: impl Fn(&LicenseTypeCode) -> bool) -> bool {
        Mode::are_within(modes, self.modes) && (self.types.is_empty() || self.types.iter().any(is_type))
    }

    /// Whether it allows no more than the one above it.
    pub(crate) fn is_within(&self, above: &Self) -> bool {
        let types = above.types.is_empty()
            || !self.types.is_empty() && self.types.iter().all(|code| above.types.contains(code));
        types && Mode::are_within(self.modes, above.modes) && self.until_ms <= above.until_ms
    }
}

impl Kept for Link {
    const KIND: DocumentKind = DocumentKind::Link;

    /// The two persons, who may be one.
    fn owners(&self) -> Vec<Label> {
        let mut owners = vec![self.holder.0, self.agent.0];
        owners.dedup();
        owners
    }
}

/// The link under a key, and its place; its end ends the decision.
pub(crate) fn link_at(case: &mut Case<'_>, key: Key) -> (Place, Option<Link>) {
    let (place, link) = case.document::<Link>(key);
    if let Some(link) = &link {
        case.ends_at(link.until_ms.saturating_add(1));
    }
    (place, link)
}

/// Whether the links by which an agent did something for a holder go on, and each still allows it. One that was ended cuts off
/// whatever was made under it.
pub(crate) fn still_allow(
    case: &mut Case<'_>,
    links: impl IntoIterator<Item = GrantLink>,
    holder: &Label,
    modes: u8,
    is_type: impl Fn(&Case<'_>, &LicenseTypeCode) -> bool,
) -> bool {
    links.into_iter().all(|link| {
        let (_, found) = link_at(case, link.key);
        found.is_some_and(|found| {
            found.is_live(holder, link.since_ms, case.now_ms())
                && case.living(&found.agent.0).is_some()
                && found.allows(modes, |code| is_type(case, code))
        })
    })
}

/// The links by which somebody acts for a holder, the holder's own first.
#[derive(Clone, Debug)]
pub(crate) struct Chain(Vec<(Key, Link)>);

impl Chain {
    /// The nearest link: by what the agent acts.
    pub(crate) fn kind(&self) -> Option<LinkKind> {
        self.0.last().map(|(_, link)| link.kind)
    }

    /// The nearest link, for one that is to stand under it.
    pub(crate) fn nearest(&self) -> Option<(Above, &Link)> {
        let (key, link) = self.0.last()?;
        Some((Above { key: PageLabel(*key), since_ms: link.since_ms }, link))
    }

    /// The first moment at which it does not hold any more, ms since 1970.
    pub(crate) fn until_ms(&self) -> u64 {
        self.0.iter().map(|(_, link)| link.until_ms).min().unwrap_or(u64::MAX)
    }

    /// Those who act, the nearest to whoever asks first, and the holder last.
    pub(crate) fn persons(&self) -> Vec<Label> {
        let agents = self.0.iter().rev().map(|(_, link)| link.agent.0);
        agents.chain(self.0.first().map(|(_, link)| link.holder.0)).collect()
    }

    /// The form in which a document records it.
    pub(crate) fn kept(&self) -> Vec<Above> {
        let links = self.0.iter();
        links.map(|(key, link)| Above { key: PageLabel(*key), since_ms: link.since_ms }).collect()
    }

    /// The form in which a grant records it.
    pub(crate) fn entered(&self) -> Vec<GrantLink> {
        self.0.iter().map(|(key, link)| GrantLink { key: *key, since_ms: link.since_ms }).collect()
    }

    /// Whether a grant of these modes, of licenses of a type, is within each link.
    pub(crate) fn allows(&self, modes: u8, is_type: impl Fn(&LicenseTypeCode) -> bool) -> bool {
        self.0.iter().all(|(_, link)| link.allows(modes, &is_type))
    }
}

/// The chain by which an agent acts for a holder at a portal: every link goes on, stands under the one above it, and allows no more.
///
/// # Errors
/// [`Reason::NoLink`]
pub(crate) fn chain(
    case: &mut Case<'_>,
    portal: &Uscc,
    holder: &HolderRef,
    agent: &HolderRef,
) -> Result<Chain, Reason> {
    let (known, acting) = (case.holder(holder), case.holder(agent));
    let mut key = keyed::link_key(case.keyed(), portal, holder, agent);
    let (known, acting) = known.zip(acting).ok_or(Reason::NoLink)?;
    let mut links: Vec<(Key, Link)> = Vec::new();
    let mut since_ms = None;
    while links.len() < MAX_CHAIN {
        let (_, link) = link_at(case, key);
        let link = link.ok_or(Reason::NoLink)?;
        let is_live = link.is_live(&known.label, since_ms.unwrap_or(link.since_ms), case.now_ms());
        // The first is the agent's own; each of the others is above the one before.
        let fits = match links.last() {
            None => link.agent.0 == acting.label,
            Some((_, below)) => below.is_within(&link) && below.kind.may_stand_under(Some(link.kind)),
        };
        if !is_live || !fits || case.living(&link.agent.0).is_none() {
            return Err(Reason::NoLink);
        }
        let under = link.under;
        links.push((key, link));
        let Some(above) = under else {
            links.reverse();
            return Ok(Chain(links));
        };
        (key, since_ms) = (above.key.0, Some(above.since_ms));
    }
    Err(Reason::NoLink)
}
