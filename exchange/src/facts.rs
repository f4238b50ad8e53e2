//! Step 4 of the request path: the facts a decision rests on, each with the version it had when it was read.
//!
//! The sequencer compares these versions again when the decision commits; a decision made on a fact that has
//! changed since is sent back and made anew.

use ledger::{DocumentKind, Fact, Grant, Holder, Key, Label, Ledger, License, ReadError};
use schemas::codes::Code;
use schemas::date::Date;
use schemas::holder::HolderRef;
use schemas::identifier::{CertificateIdentifier, LicenseTypeCode, Uscc};
use schemas::license_type::{LicenseType, MAX_HOLDERS};
use schemas::state::LicenseState;
use schemas::text::{self, Comparison};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::sync::Arc;
use verifier::license::{LicenseContent, OpenedEnvelope};

use crate::gateway::now_ms;
use crate::participant::{Documents, Participant, Rules};
use crate::proposal::{Hold, Proposal};
use crate::refusal::Refusal;
use crate::request::{LinkKind, Named};

/// Reads facts and remembers what was read.
pub struct Facts<'a> {
    ledger: &'a Ledger,
    register: &'a Documents<Uscc, Participant>,
    types: &'a Documents<LicenseTypeCode, LicenseType>,
    /// The moment this decision is made at, ms since 1970.
    pub now_ms: u64,
    reads: Vec<(Fact, u32)>,
    ends_at_ms: u64,
}

/// Most links that an erasure ends in writing; the ones beyond end all the same, with the label.
const MAX_ENDED_LINKS: usize = 1_000;

/// A link between a holder and an agent as journaled. It names both by label, so it ends with either: who is erased and
/// comes back has another one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Link {
    /// Who is acted for.
    pub holder: verifier::trace::Label,
    /// Who acts.
    pub agent: verifier::trace::Label,
    /// By what the agent acts.
    pub kind: LinkKind,
    /// Last valid moment, ms since 1970.
    pub until_ms: u64,
    /// Ended before that.
    pub ended: bool,
}

impl Link {
    /// Whether it is between these two as they are now, and not ended by its portal.
    pub fn holds(&self, holder: &Label, agent: &Label) -> bool {
        !self.ended && self.holder.0 == *holder && self.agent.0 == *agent
    }
}

/// A license found under its key, with its holders' labels.
#[derive(Clone, Debug)]
pub struct Found {
    /// Stable key: type, issuer and serial.
    pub key: Key,
    /// Hot state.
    pub license: License,
    /// Licenses of the holder and type that have the certificate number looked up; 1 where none was.
    pub same_number: u32,
}

impl<'a> Facts<'a> {
    /// Starts reading at a moment.
    pub fn new(
        ledger: &'a Ledger,
        register: &'a Documents<Uscc, Participant>,
        types: &'a Documents<LicenseTypeCode, LicenseType>,
        now_ms: u64,
    ) -> Self {
        Self { ledger, register, types, now_ms, reads: Vec::with_capacity(6), ends_at_ms: u64::MAX }
    }

    /// What was read, and the earliest end among it.
    pub fn into_reads(self) -> (Vec<(Fact, u32)>, u64) {
        (self.reads, self.ends_at_ms)
    }

    /// Whether all that was read is still so.
    pub fn are_current(&self) -> bool {
        let state = self.ledger.state();
        let now_ms = now_ms().max(state.time_ms());
        now_ms < self.ends_at_ms && self.reads.iter().all(|(fact, version)| state.version(fact) == *version)
    }

    /// The decision holds only before this moment. An end that is past already was seen by the decision.
    pub fn ends_at(&mut self, end_ms: u64) {
        if end_ms > self.now_ms {
            self.ends_at_ms = self.ends_at_ms.min(end_ms);
        }
    }

    fn read(&mut self, fact: Fact, version: u32) {
        self.reads.push((fact, version));
    }

    /// The participant of an organisation; its registration's end ends the decision.
    pub fn participant(&mut self, organisation: &Uscc) -> Option<Arc<Participant>> {
        let (_, participant) = self.registration(organisation);
        if let Some(participant) = &participant {
            self.ends_at(participant.ends_at_ms());
        }
        participant
    }

    /// The registration of an organisation with its fact version.
    pub fn registration(&mut self, organisation: &Uscc) -> (u32, Option<Arc<Participant>>) {
        let (key, version, participant) = self.register.get(self.ledger, organisation, participant_key);
        self.read(Fact::Document(DocumentKind::Participant, key), version);
        (version, participant)
    }

    /// The definition of a license type.
    pub fn license_type(&mut self, code: &LicenseTypeCode) -> Option<Arc<LicenseType>> {
        self.keyed_type(code).1
    }

    /// The definition of a license type with its fact version.
    pub fn published(&mut self, code: &LicenseTypeCode) -> (u32, Option<Arc<LicenseType>>) {
        let (key, version, license_type) = self.types.get(self.ledger, code, type_key);
        self.read(Fact::Document(DocumentKind::LicenseType, key), version);
        (version, license_type)
    }

    /// The definition of a license type, and its key, which grants name a type by.
    pub fn keyed_type(&mut self, code: &LicenseTypeCode) -> (Key, Option<Arc<LicenseType>>) {
        let (key, version, license_type) = self.types.get(self.ledger, code, type_key);
        self.read(Fact::Document(DocumentKind::LicenseType, key), version);
        (key, license_type)
    }

    /// The license under a key; its absence is a fact too.
    pub fn license(&mut self, key: Key) -> Option<Found> {
        let license = self.ledger.state().license(&key);
        self.read(Fact::License(key), license.as_ref().map_or(0, |license| license.version));
        license.map(|license| Found { key, license, same_number: 1 })
    }

    /// Tag of a license's number.
    fn number_tag_of(&mut self, key: Key) -> Option<u64> {
        let (tag, version) = self.ledger.state().number_tag(&key).unzip();
        self.read(Fact::License(key), version.unwrap_or_default());
        tag
    }

    /// The license a request names.
    pub fn named(&mut self, named: &Named<'_>) -> Option<Found> {
        match named {
            Named::Identifier { identifier, .. } => self.license(license_key(self.ledger, identifier)),
            Named::Number { type_code, certificate_number, holder } => {
                let tag = number_tag(self.ledger, type_code, certificate_number);
                let holder = self.holder(holder)?;
                // An authority may have replaced a license under the same number: the one in force answers for all, else
                // the newest as the journal orders them. A license that joins them meanwhile is a fact too.
                let mut best: Option<(bool, Found)> = None;
                let mut same_number = 0;
                for key in self.licenses_of(&holder.label) {
                    // A new version may have another number: that a license does not have this one is a fact too.
                    if self.number_tag_of(key) != Some(tag) {
                        continue;
                    }
                    let Some(found) = self.license(key) else { continue };
                    same_number += 1;
                    let rank = (self.in_force(&found.license), found.license.body);
                    if best.as_ref().is_none_or(|(in_force, best)| rank > (*in_force, best.license.body)) {
                        best = Some((rank.0, found));
                    }
                }
                best.map(|(_, found)| Found { same_number, ..found })
            }
        }
    }

    /// Looks up of nobody what was not looked up because it does not exist, so that a denial took the same look-ups whatever
    /// there is. A denied request named the license twice: to be decided, and for whom the denial concerns.
    pub fn level(&mut self, named: &Named<'_>, nobody: &Label) {
        const NAMED: usize = 2;
        /// Beside that, the holder of a number is looked up for the right, for whom it concerns, twice for what is told,
        /// and here.
        const HOLDER_ALONE: usize = 5;
        let state = self.ledger.state();
        match named {
            Named::Identifier { identifier, .. } => {
                let found = state.number_tag(&license_key(self.ledger, identifier)).is_some();
                for _ in 0..if found { 0 } else { NAMED } {
                    black_box(state.no_license());
                }
            }
            Named::Number { type_code, certificate_number, holder } => {
                let tag = number_tag(self.ledger, type_code, certificate_number);
                let label = state.holder(&holder_key(self.ledger, holder)).map(|holder| holder.label);
                let keys = label.map(|label| state.licenses_of(&label)).unwrap_or_default();
                let matching =
                    keys.iter().any(|key| state.number_tag(key).is_some_and(|(other, _)| other == tag));
                // A holder who is there is found where one who is not is missed. A label is nobody's key.
                let key = nobody_keys(self.ledger).next().filter(|_| label.is_none()).unwrap_or(*nobody);
                for _ in 0..NAMED + HOLDER_ALONE {
                    black_box(state.holder(&key));
                }
                if label.is_none() {
                    for _ in 0..NAMED {
                        black_box(self.licenses_of(nobody));
                    }
                    black_box(state.licenses_of(nobody));
                }
                // No license has a label for its key.
                for _ in 0..NAMED * LEVEL_LICENSES.saturating_sub(keys.len()) {
                    black_box(self.number_tag_of(*nobody));
                }
                for _ in 0..if matching { 0 } else { NAMED } {
                    black_box(self.license(*nobody));
                    black_box(self.in_force(&state.no_license()));
                }
                // Without a license the denial concerns the holder named, who is looked up for that.
                if matching {
                    black_box(self.holder(holder));
                }
            }
        }
    }

    /// A link that a portal made between a holder and an agent, with its fact version; its end ends the decision.
    pub fn link(&mut self, key: &Key) -> (u32, Option<Link>) {
        let document = self.ledger.state().document(DocumentKind::Link, key);
        let version = document.as_ref().map_or(0, |document| document.version);
        self.read(Fact::Document(DocumentKind::Link, *key), version);
        // The gateway wrote these bytes itself; bytes that do not parse are no link, and the caller denies.
        let link = document.and_then(|document| serde_json::from_slice::<Link>(&document.value).ok());
        if let Some(link) = &link {
            self.ends_at(link.until_ms.saturating_add(1));
        }
        (version, link)
    }

    /// The links that name a holder on either side and are not ended, with their keys and fact versions.
    pub fn links_of(&mut self, label: &Label) -> Vec<(Key, u32, Link)> {
        let links = self.ledger.state().documents(DocumentKind::Link).into_iter();
        let links = links.filter_map(|(key, document)| {
            let link = serde_json::from_slice::<Link>(&document.value).ok()?;
            let names = link.holder.0 == *label || link.agent.0 == *label;
            (names && !link.ended).then_some((key, document.version, link))
        });
        let links: Vec<_> = links.take(MAX_ENDED_LINKS).collect();
        for (key, version, _) in &links {
            self.read(Fact::Document(DocumentKind::Link, *key), *version);
        }
        links
    }

    /// Keys of the licenses that name a holder; which ones these are is a fact.
    pub fn licenses_of(&mut self, label: &Label) -> Vec<Key> {
        let keys = self.ledger.state().licenses_of(label);
        self.read(Fact::Licenses(*label), u32::try_from(keys.len()).unwrap_or(u32::MAX));
        keys
    }

    /// The holder with a number.
    pub fn holder(&mut self, holder: &HolderRef) -> Option<Holder> {
        let key = holder_key(self.ledger, holder);
        let holder = self.ledger.state().holder(&key);
        self.read(Fact::Holder(key), holder.as_ref().map_or(0, |holder| holder.version));
        holder
    }

    /// Whether the holder with a label lives; an erased one never comes back.
    pub fn lives(&mut self, label: &Label) -> bool {
        let holder = self.ledger.state().holder_by_label(label).filter(|holder| !holder.erased);
        if let Some(holder) = &holder {
            self.read(Fact::Holder(holder.key), holder.version);
        }
        holder.is_some()
    }

    /// The proposal with an id, and its fact version.
    pub fn proposal(&mut self, id: &Key) -> (u32, Option<Proposal>) {
        self.document(DocumentKind::Proposal, *id)
    }

    /// The epoch that goes on now.
    pub fn epoch(&mut self) -> u32 {
        let epoch = self.ledger.state().epoch();
        self.read(Fact::Epoch, epoch);
        epoch
    }

    /// What was fixed when the log was made; a log without it allows no delay.
    pub fn rules(&mut self) -> Rules {
        self.document(DocumentKind::Rules, rules_key(self.ledger)).1.unwrap_or(Rules { delay_days_max: 0 })
    }

    /// Whether the portal that made a grant still vouches for holders; its registration's end ends the decision.
    pub fn portal_vouches(&mut self, grant: &Grant) -> bool {
        // The gateway wrote the code itself; one that cannot be read vouches for nobody.
        let portal = std::str::from_utf8(&grant.portal).ok().and_then(|code| code.parse::<Uscc>().ok());
        let portal = portal.and_then(|portal| self.participant(&portal));
        portal.is_some_and(|portal| portal.vouches_at(self.now_ms))
    }

    /// Whether a holder is under legal hold, and the fact version of that.
    pub fn hold(&mut self, label: &Label) -> (u32, bool) {
        let (version, hold) = self.document::<Hold>(DocumentKind::Hold, *label);
        // A hold that cannot be read holds.
        (version, hold.map_or(version != 0, |hold| hold.held))
    }

    fn document<T: DeserializeOwned>(&mut self, kind: DocumentKind, key: Key) -> (u32, Option<T>) {
        let document = self.ledger.state().document(kind, &key);
        let version = document.as_ref().map_or(0, |document| document.version);
        self.read(Fact::Document(kind, key), version);
        (version, document.and_then(|document| serde_json::from_slice(&document.value).ok()))
    }

    /// The grant with an id.
    pub fn grant(&mut self, id: &[u8; 16]) -> Option<Grant> {
        let grant = self.ledger.state().grant(id);
        self.read(Fact::Grant(*id), grant.as_ref().map_or(0, |grant| grant.version));
        if let Some(grant) = &grant {
            self.ends_at(grant.until_ms.saturating_add(1));
        }
        grant
    }

    /// Counters of the day are used: the decision ends with the day in China Standard Time.
    pub fn today(&mut self) -> u32 {
        let today = Date::at(i64::try_from(self.now_ms / 1_000).unwrap_or(i64::MAX));
        let end = u64::try_from(today.last_second()).unwrap_or(0).saturating_add(1);
        self.ends_at(end.saturating_mul(1_000));
        u32::try_from(today.days()).unwrap_or(0).max(1)
    }

    /// The idempotency key is unbound.
    pub fn unbound(&mut self, key: Key) {
        self.read(Fact::Idempotency(key), 0);
    }

    /// Whether the license's end has passed, and whether its first day has come; the next of both moments ends
    /// the decision.
    pub fn validity(&mut self, license: &License) -> Validity {
        let second = i64::try_from(self.now_ms / 1_000).unwrap_or(i64::MAX);
        let start = Date::from_days(license.valid_from_day).map_or(i64::MIN, |day| day.first_second());
        let end = match license.valid_until_day {
            i32::MAX => i64::MAX,
            day => Date::from_days(day).map_or(i64::MIN, |day| day.last_second()),
        };
        let moment = |second: i64| u64::try_from(second).unwrap_or(0).saturating_mul(1_000);
        if second < start {
            self.ends_at(moment(start));
            Validity::NotYet
        } else if second > end {
            Validity::Ended
        } else {
            if end != i64::MAX {
                self.ends_at(moment(end.saturating_add(1)));
            }
            Validity::Current
        }
    }
}

impl Facts<'_> {
    /// Whether a license is valid and within its time; the moment at which that changes ends the decision.
    pub fn in_force(&mut self, license: &License) -> bool {
        let current = self.validity(license) == Validity::Current;
        current && license.state == LicenseState::Valid.number()
    }
}

/// Where a moment lies in a license's valid time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Before its first day.
    NotYet,
    /// Within.
    Current,
    /// After its last second.
    Ended,
}

/// What is asked for stands in a part of the journal that is not at hand: that is said, and never taken for a record that
/// does not exist.
pub fn missing(segment: u32) -> Refusal {
    tracing::warn!(segment, "a segment of the journal is asked for and not at hand");
    Refusal::new(Code::RecordUnavailable)
}

/// A body that the journal holds but that cannot be read is our fault, never a verdict on the license.
fn unreadable(what: &str) -> Refusal {
    tracing::error!(what, "a journaled license body cannot be read");
    Refusal::new(Code::RecordUnavailable)
}

/// A license's envelope as the journal holds it.
pub fn stored_envelope(ledger: &Ledger, license: &License) -> Result<Vec<u8>, Refusal> {
    let plaintext = ledger.open_subject(license.body).map_err(|error| match error {
        ReadError::KeyGone => Refusal::new(Code::Erased),
        ReadError::Missing(segment) => missing(segment),
        _ => unreadable("part"),
    })?;
    let subject = flatbuffers::root::<schemas::journal::SubjectRecord<'_>>(&plaintext)
        .map_err(|_| unreadable("record"))?;
    Ok(subject.envelope().ok_or_else(|| unreadable("envelope"))?.bytes().to_vec())
}

/// The identifier in an envelope that the journal holds.
pub fn identifier_in(envelope: &[u8]) -> Result<String, Refusal> {
    verifier::license::identifier_in(envelope).map_err(|_| unreadable("buffer"))
}

/// What an envelope that the journal holds says.
pub fn content_of(envelope: &[u8]) -> Result<LicenseContent, Refusal> {
    let opened = OpenedEnvelope::open(envelope).map_err(|_| unreadable("buffer"))?;
    verifier::license::read_body(opened.body()).map_err(|_| unreadable("body"))
}

/// What a license says.
pub fn read_content(ledger: &Ledger, license: &License) -> Result<LicenseContent, Refusal> {
    content_of(&stored_envelope(ledger, license)?)
}

/// Key of a license: type, issuer and serial, the same for all its versions.
pub fn license_key(ledger: &Ledger, identifier: &CertificateIdentifier) -> Key {
    let type_code = identifier.type_code();
    let serial = identifier.serial().as_str().as_bytes();
    ledger.keyed().key("license", &[type_code.as_bytes(), identifier.issuer().as_bytes(), serial])
}

/// Tag of a 证照编号 within its type, in the form in which numbers are compared.
pub fn number_tag(ledger: &Ledger, type_code: &LicenseTypeCode, number: &str) -> u64 {
    let number = text::fold(Comparison::Number, number);
    ledger.keyed().tag("number", &[type_code.as_bytes(), number.as_bytes()])
}

/// Key of a holder.
pub fn holder_key(ledger: &Ledger, holder: &HolderRef) -> Key {
    ledger.keyed().key("holder", &[holder.type_code().as_str().as_bytes(), holder.number().as_bytes()])
}

/// Key of the link that a portal made between a holder and an agent.
pub fn link_key(ledger: &Ledger, portal: &Uscc, holder: &HolderRef, agent: &HolderRef) -> Key {
    let (holder, agent) = (holder_key(ledger, holder), holder_key(ledger, agent));
    ledger.keyed().key("link", &[portal.as_bytes(), &holder, &agent])
}

/// Key of a license type's document.
pub fn type_key(ledger: &Ledger, code: &LicenseTypeCode) -> Key {
    ledger.keyed().key("type", &[code.as_bytes()])
}

/// Licenses of a holder that a look-up by number is levelled to.
const LEVEL_LICENSES: usize = 16;

/// Holders that are nobody: a denial concerns them in place of those whom there are not, so that it is the same work.
pub const NOBODIES: u8 = MAX_HOLDERS as u8;

/// Keys of the holders that are nobody. No request names one of them: there is no such holder type.
pub fn nobody_keys(ledger: &Ledger) -> impl Iterator<Item = Key> + '_ {
    (0..NOBODIES).map(|number| ledger.keyed().key("nobody", &[&[number]]))
}

/// Key of the document with what was fixed when the log was made.
pub fn rules_key(ledger: &Ledger) -> Key {
    ledger.keyed().key("rules", &[])
}

/// Tag of a service item code.
pub fn item_tag(ledger: &Ledger, item_code: &str) -> u64 {
    ledger.keyed().tag("item", &[item_code.as_bytes()])
}

/// Key of a participant's document.
pub fn participant_key(ledger: &Ledger, organisation: &Uscc) -> Key {
    ledger.keyed().key("participant", &[organisation.as_bytes()])
}
