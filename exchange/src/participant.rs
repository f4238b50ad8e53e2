//! The participant register: who may call, in which roles. Journaled state; a document per organisation.
//!
//! Values. A registration changes by an entry alone, so a crash leaves both or neither.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ledger::DocumentKind;
use schemas::codes::{Code, Rule};
use schemas::date::Date;
use schemas::identifier::{LicenseTypeCode, Uscc};
use schemas::text;
use serde::{Deserialize, Serialize};

use crate::admission::{self, Limit, WireLimit};
use crate::gateway::parsed::Kept;
use crate::server::Peer;
use crate::signing_key::SigningKey;
use crate::wire::refusal::{Fault, Gather, MAX_FAULTS, Placed as _, Refusal};
use crate::wire::text::{day, owned_words};

pub use schemas::roles::Role;

/// Longest name of an organisation, characters.
const MAX_NAME_CHARS: usize = 100;
/// Most license types one authority may issue.
const MAX_TYPES: usize = 1_000;

/// Most delay classes of one participant.
const MAX_DELAYS: usize = 16;
/// Longest text of a legal basis, characters.
const MAX_BASIS_CHARS: usize = 200;
/// Longest delay that any log may allow, days.
pub const MAX_DELAY_DAYS: u16 = 3_660;
/// Longest delay that a log allows unless it is made with another, days.
pub const USUAL_DELAY_DAYS: u16 = 180;
/// Most signing keys of one participant: the one in use and its successors.
const MAX_SIGNING_KEYS: usize = 8;
/// Most organisations that one participant may stand for.
const MAX_ACTS_FOR: usize = 1_000;
/// Longest name of a signing key, characters.
const MAX_KEY_ID: usize = 64;
const MS_PER_DAY: u64 = 86_400_000;

/// Most roles of one participant.
const MAX_ROLES: usize = Role::ALL.len();

/// The rules that were fixed when the log was made. A document of journaled state that nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Rules {
    /// Longest delay of a class, days; 0 = none may be registered.
    pub delay_days_max: u16,
}

impl Kept for Rules {
    const KIND: DocumentKind = DocumentKind::Rules;
}

impl Rules {
    /// Whether the delay classes of a registration are within the log's bound.
    pub fn allow(&self, participant: &Participant) -> bool {
        participant.delays.values().all(|class| class.days <= self.delay_days_max)
    }
}

/// A class of uses that the law keeps from their holders for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DelayClass {
    /// For how long, days.
    pub days: u16,
    /// The law that says so.
    pub legal_basis: String,
}

/// One entry of the register, as journaled and as the HTTP contract shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Participant {
    /// Unified social credit code.
    pub organisation: Uscc,
    /// Name.
    pub name: String,
    /// Roles.
    pub roles: Vec<Role>,
    /// License types it may issue (role issuer).
    #[serde(default)]
    pub issues: Vec<LicenseTypeCode>,
    /// Purposes that its contract names: with a contract each use of a license names one of them.
    #[serde(default)]
    pub purposes: Vec<String>,
    /// Contract reference.
    #[serde(default)]
    pub contract: Option<String>,
    /// Most permitted uses a day (China Standard Time); `None` = without limit.
    #[serde(default)]
    pub daily_quota: Option<u32>,
    /// Classes of uses that the law keeps from their holders for a time, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub delays: BTreeMap<String, DelayClass>,
    /// Keys that its state changes are signed with; empty = they are not signed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signing_keys: Vec<SigningKey>,
    /// Limits of its uses, a line each; with any, it is admitted to what they name alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
    /// Organisations that it may stand for (代办).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acts_for: Vec<Uscc>,
    /// Its uses of licenses stay within its list of intended uses (用证清单).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub intended_use: bool,
    /// First valid day.
    pub valid_from: Date,
    /// Last valid day; `None` = no end.
    #[serde(default)]
    pub valid_until: Option<Date>,
    /// Suspended by an operator.
    #[serde(default)]
    pub suspended: bool,
}

/// The wire form: organisation and types still text, so that a wrong check character gets its own code.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Wire {
    organisation: String,
    name: String,
    roles: Vec<Role>,
    issues: Option<Vec<String>>,
    purposes: Option<Vec<String>>,
    contract: Option<String>,
    daily_quota: Option<u32>,
    delays: Option<BTreeMap<String, DelayClass>>,
    signing_keys: Option<Vec<WireKey>>,
    limits: Option<Vec<WireLimit>>,
    acts_for: Option<Vec<String>>,
    intended_use: Option<bool>,
    valid_from: String,
    valid_until: Option<String>,
}

/// A signing key, still text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WireKey {
    id: String,
    public_key: String,
    until: Option<String>,
}

impl WireKey {
    fn typed(self) -> Result<SigningKey, Refusal> {
        const BAD: Code = Code::BadParticipant;
        let is_token = (1..=MAX_KEY_ID).contains(&self.id.len())
            && self.id.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'));
        if !is_token {
            let fault = Fault::at("/id", Rule::Pattern)
                .form("1 to 64 printable ASCII characters without blanks and quotes");
            return Err(Refusal::of(BAD, fault));
        }
        let public_key = self.public_key.try_into().map_err(|_| {
            Refusal::of(
                BAD,
                Fault::at("/publicKey", Rule::Pattern).form("PEM of one public key, Ed25519 or P-256"),
            )
        })?;
        let until = self.until.as_deref().map(|text| day(BAD, text)).transpose().under("until")?;
        Ok(SigningKey { id: self.id, public_key, until })
    }
}

impl Wire {
    pub(crate) fn typed(self) -> Result<Participant, Refusal> {
        const BAD: Code = Code::BadParticipant;
        let mut wrong = Gather::new();
        let counted = |pointer: &str, min, max, found: usize| {
            let fault = || Fault::at(pointer, Rule::Count).bounds(min, max).got(found);
            if (min..=max).contains(&found) { Ok(()) } else { Err(Refusal::of(BAD, fault())) }
        };
        let words = |text| owned_words(BAD, text, MAX_NAME_CHARS);
        let organisation = wrong.take(Refusal::parse(&self.organisation).under("organisation"));
        let name = wrong.take(words(self.name).under("name"));
        let mut roles = self.roles;
        roles.dedup();
        wrong.take(counted("/roles", 1, MAX_ROLES, roles.len()));
        let issues = self.issues.unwrap_or_default();
        wrong.take(counted("/issues", 0, MAX_TYPES, issues.len()));
        let issues = issues.iter().zip(0..).map(|(code, place)| Refusal::parse(code).under(place));
        let issues: Option<Vec<_>> = wrong.take(issues.collect::<Result<_, _>>().under("issues"));
        let purposes = self.purposes.unwrap_or_default();
        wrong.take(counted("/purposes", 0, MAX_TYPES, purposes.len()));
        let purposes = purposes.into_iter().zip(0..).map(|(text, place)| words(text).under(place));
        let purposes: Option<Vec<_>> = wrong.take(purposes.collect::<Result<_, _>>().under("purposes"));
        let contract = wrong.take(self.contract.map(words).transpose().under("contract"));
        let delays = self.delays.unwrap_or_default();
        wrong.take(counted("/delays", 0, MAX_DELAYS, delays.len()));
        // The classes are the caller's own names.
        let mut composed = BTreeMap::new();
        for ((name, class), position) in delays.into_iter().zip(1..) {
            let at = |rule| Fault::at("/delays", rule).position(position);
            let max = MAX_NAME_CHARS.max(MAX_BASIS_CHARS);
            if !(1..=MAX_DELAY_DAYS).contains(&class.days) {
                wrong.note(Refusal::of(BAD, at(Rule::Range).bounds(1, MAX_DELAY_DAYS.into())));
            }
            let read = (text::read(&name, MAX_NAME_CHARS), text::read(&class.legal_basis, MAX_BASIS_CHARS));
            let (Ok(name), Ok(legal_basis)) = read else {
                wrong.note(Refusal::of(BAD, at(Rule::Text).bounds(1, max)));
                continue;
            };
            let (name, legal_basis) = (name.into_owned(), legal_basis.into_owned());
            if composed.insert(name, DelayClass { legal_basis, ..class }).is_some() {
                wrong.note(Refusal::of(BAD, at(Rule::Distinct)));
            }
        }
        let keys = self.signing_keys.unwrap_or_default();
        wrong.take(counted("/signingKeys", 0, MAX_SIGNING_KEYS, keys.len()));
        let keys = keys.into_iter().zip(0..).map(|(key, place)| key.typed().under(place));
        let keys: Option<Vec<SigningKey>> = wrong.take(keys.collect::<Result<_, _>>().under("signingKeys"));
        let ids = keys.iter().flatten().map(|key| &key.id);
        if ids.clone().collect::<BTreeSet<_>>().len() < ids.count() {
            wrong.note(Refusal::of(BAD, Fault::at("/signingKeys", Rule::Distinct)));
        }
        let limits = wrong.take(admission::typed(self.limits.unwrap_or_default()).under("limits"));
        let acts_for = self.acts_for.unwrap_or_default();
        wrong.take(counted("/actsFor", 0, MAX_ACTS_FOR, acts_for.len()));
        let acts_for = acts_for.iter().zip(0..).map(|(code, place)| Refusal::parse(code).under(place));
        let acts_for: Option<Vec<Uscc>> = wrong.take(acts_for.collect::<Result<_, _>>().under("actsFor"));
        let valid_from = wrong.take(day(BAD, &self.valid_from).under("validFrom"));
        let valid_until = self.valid_until.as_deref().map(|text| day(BAD, text)).transpose();
        let valid_until = wrong.take(valid_until.under("validUntil"));
        if valid_until.flatten().zip(valid_from).is_some_and(|(until, from)| until < from) {
            let fault = Fault::at("/validUntil", Rule::Order).form("not before validFrom");
            wrong.note(Refusal::of(BAD, fault));
        }
        let typed = || {
            Some(Participant {
                organisation: organisation?,
                name: name?,
                roles,
                issues: issues?,
                purposes: purposes?,
                contract: contract?,
                daily_quota: self.daily_quota,
                delays: composed,
                signing_keys: keys?,
                limits: limits?,
                acts_for: acts_for?,
                intended_use: self.intended_use.unwrap_or(false),
                valid_from: valid_from?,
                valid_until: valid_until?,
                suspended: false,
            })
        };
        wrong.all(typed())
    }
}

impl Kept for Participant {
    const KIND: DocumentKind = DocumentKind::Participant;
}

impl Participant {
    /// Whether the participant has the role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Whether the registration opens holders or the log to the participant, keeps uses from their holders, or says who signs for the participant: what two
    /// operators decide (decision 0013).
    pub fn takes_two(&self) -> bool {
        [Role::Portal, Role::Auditor, Role::Operator].iter().any(|role| self.has(*role))
            || !self.delays.is_empty()
            || !self.signing_keys.is_empty()
    }

    /// Whether the participant vouches for holders at this moment, ms since 1970: what it vouched for holds as long.
    pub fn vouches_at(&self, now_ms: u64) -> bool {
        self.has(Role::Portal) && self.active_at(now_ms)
    }

    /// Whether the participant may act at this moment, ms since 1970.
    pub fn active_at(&self, now_ms: u64) -> bool {
        let second = i64::try_from(now_ms / 1_000).unwrap_or(i64::MAX);
        !self.suspended
            && second >= self.valid_from.first_second()
            && self.valid_until.is_none_or(|until| second <= until.last_second())
    }

    /// Whether the participant's contract lets it use licenses for a purpose. Without a contract none is asked for, and who does not
    /// rely on licenses has none.
    ///
    /// # Errors
    /// [`Code::PurposeNotAgreed`], with the purposes that are.
    pub fn agreed(&self, purpose: Option<&str>) -> Result<(), Refusal> {
        let relying = [Role::Relying, Role::Peer, Role::Kiosk, Role::Inspector];
        if !relying.iter().any(|role| self.has(*role))
            || self.contract.is_none()
            || purpose.is_some_and(|one| self.purposes.iter().any(|agreed| agreed == one))
        {
            return Ok(());
        }
        let fault =
            Fault::at("/use/purpose", Rule::OneOf).one_of(self.purposes.iter().take(MAX_FAULTS).cloned());
        Err(Refusal::of(Code::PurposeNotAgreed, fault))
    }

    /// Until when a use of this delay class is kept from its holders, ms since 1970; 0 for none.
    ///
    /// # Errors
    /// [`Code::DelayNotAllowed`] for a class that the participant does not hold.
    pub fn release_ms(&self, class: Option<&str>, now_ms: u64) -> Result<u64, Refusal> {
        let Some(class) = class else { return Ok(0) };
        let class = self.delays.get(class).ok_or_else(|| Refusal::new(Code::DelayNotAllowed))?;
        Ok(now_ms.saturating_add(u64::from(class.days).saturating_mul(MS_PER_DAY)))
    }

    /// The first moment at which the registration has ended, ms since 1970; `u64::MAX` without end.
    pub fn ends_at_ms(&self) -> u64 {
        self.valid_until
            .and_then(|until| u64::try_from(until.last_second()).ok())
            .map_or(u64::MAX, |second| (second + 1) * 1_000)
    }

    /// The document as journaled.
    pub fn document(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a participant has only text, numbers and lists")
    }
}

/// The caller by the connection's client certificate, which the handshake verified.
#[derive(Clone, Copy, Debug)]
pub struct Certified {
    /// The organisation.
    pub organisation: Uscc,
    /// The first moment at which the certificate is no longer good, ms since 1970: a connection may outlive it.
    pub ends_at_ms: u64,
    /// Where the connection comes from. No header says otherwise.
    pub address: IpAddr,
}

impl Certified {
    /// The caller that the accept loop found; `None` without a client certificate.
    pub fn of(peer: &Peer) -> Option<Self> {
        Some(Self {
            organisation: peer.organisation?,
            ends_at_ms: peer.certificate_ends_ms?,
            address: peer.address.ip(),
        })
    }
}

/// An identified, active participant: step 2 of the request path. Only [`Caller::identify`] makes one.
#[derive(Debug)]
pub struct Caller {
    participant: Arc<Participant>,
    version: u32,
}

impl Caller {
    /// The organisation of the client certificate as the register has it, if it may act now.
    pub fn identify(
        registered: Arc<Participant>,
        version: u32,
        now_ms: u64,
        certified: &Certified,
    ) -> Result<Self, Refusal> {
        if registered.active_at(now_ms) && now_ms < certified.ends_at_ms {
            Ok(Self { participant: registered, version })
        } else {
            Err(Refusal::new(Code::ParticipantSuspended))
        }
    }

    /// The registration.
    pub fn participant(&self) -> &Participant {
        &self.participant
    }

    /// Its version.
    pub fn version(&self) -> u32 {
        self.version
    }
}
