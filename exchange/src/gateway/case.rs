//! Step 4 of the request path: a case, which is all that a decision sees. A decision reads the state here alone, each
//! fact with the version it had.
//!
//! The sequencer compares these versions again when the decision commits; a decision made on a fact that has changed
//! since is sent back and made anew. A change of state needs the evidence that its fact was read: [`Found`],
//! [`Absent`], [`Place`], [`Held`] and [`Living`] are made here alone. The path opens a case for each attempt. It is
//! memory, gone with the attempt.

use std::hint::black_box;
use std::sync::Arc;

use ledger::{Fact, Grant, Holder, Key, KeyedHash, Label, License};
use schemas::date::Date;
use schemas::holder::HolderRef;
use schemas::identifier::{LicenseTypeCode, Uscc};
use schemas::license_type::LicenseType;
use schemas::state::LicenseState;
use schemas::workday::Calendar;
use verifier::trust::Trust;

use super::allowance::Allowance;
use super::parsed::{Documents, Kept};
use super::source::Source;
use crate::current::Current;
use crate::identity::Provider;
use crate::keyed;
use crate::moment::now_ms;
use crate::participant::{Participant, Rules};
use crate::rights::in_force::{InForce, Versioned};
use crate::sharing::application::Application;
use crate::sharing::clock::{Clocks, calendar_key, day_of};
use crate::sharing::resource::{Listed, resource_key};
use crate::wire::named::Named;

/// Licenses of a holder that a look-up by number is levelled to.
const LEVEL_LICENSES: usize = 16;

/// Things that decisions share, beside the state.
pub struct Known {
    /// The participant register, parsed.
    pub register: Documents<Uscc, Participant>,
    /// The license types, parsed.
    pub types: Documents<LicenseTypeCode, LicenseType>,
    /// The trust bundle in force, for envelopes.
    pub trust: Current<Trust>,
    /// How long a holder is kept after the last license ended, ms.
    pub retention_ms: u64,
    /// The catalogue of resources, parsed.
    pub(crate) resources: Arc<Documents<Key, Listed>>,
    /// Applications to use them, parsed.
    pub(crate) applications: Documents<Key, Application>,
    /// How long a provider has.
    pub clocks: Clocks,
    /// The identity provider for holders; without one the portals vouch.
    pub identity: Option<Arc<Provider>>,
    /// The policies in force.
    pub policies: InForce,
}

/// A request under decision. Reads facts and remembers what was read.
pub struct Case<'a> {
    source: &'a dyn Source,
    known: &'a Known,
    policies: Arc<Versioned>,
    now_ms: u64,
    reads: Vec<(Fact, u32)>,
    ends_at_ms: u64,
    allowances: Vec<Allowance>,
}

/// Only this file makes what holds one.
#[derive(Clone, Copy, Debug)]
struct Read;

/// A license found under its key, with its holders' labels.
#[derive(Clone, Debug)]
pub struct Found {
    /// Stable key: type, issuer and serial.
    pub key: Key,
    /// Hot state.
    pub license: License,
    /// Licenses of the holder and type that have the certificate number looked up; 1 where none was.
    pub same_number: u32,
    #[expect(dead_code, reason = "evidence that it was read")]
    read: Read,
}

/// A key under which no license was found.
#[derive(Clone, Copy, Debug)]
pub struct Absent {
    key: Key,
}

impl Absent {
    /// The key.
    pub fn key(&self) -> Key {
        self.key
    }
}

/// Where a document stands or may stand, as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    kind: ledger::DocumentKind,
    key: Key,
    version: u32,
}

impl Place {
    /// Kind, key and version: 0 where there is no document.
    pub fn parts(&self) -> (ledger::DocumentKind, Key, u32) {
        (self.kind, self.key, self.version)
    }

    /// The version; 0 where there is no document.
    pub fn version(&self) -> u32 {
        self.version
    }
}

/// A grant as it was read.
#[derive(Clone, Debug)]
pub struct Held {
    /// The grant.
    pub grant: Grant,
    #[expect(dead_code, reason = "evidence that it was read")]
    read: Read,
}

/// A holder who was found not to be erased.
#[derive(Clone, Copy, Debug)]
pub struct Living {
    label: Label,
}

impl Living {
    /// The label.
    pub fn label(&self) -> Label {
        self.label
    }
}

impl<'a> Case<'a> {
    /// Opens a case at a moment, ms since 1970.
    pub fn open(source: &'a dyn Source, known: &'a Known, now_ms: u64) -> Self {
        let (fact, policies) = known.policies.at(source);
        let mut reads = Vec::with_capacity(8);
        // An entry says by which policies it was decided, whether or not they were asked.
        reads.push((fact, policies.version));
        Self { source, known, policies, now_ms, reads, ends_at_ms: u64::MAX, allowances: Vec::new() }
    }

    /// The policies in force.
    pub(crate) fn policies(&self) -> &Arc<Versioned> {
        &self.policies
    }

    /// The moment this decision is made at, ms since 1970.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Names of things in the state.
    pub fn keyed(&self) -> &'a KeyedHash {
        self.source.keyed()
    }

    /// The trust bundle in force.
    pub fn trust(&self) -> &'a Current<Trust> {
        &self.known.trust
    }

    /// The identity provider, if one is configured.
    pub(crate) fn identity(&self) -> Option<&'a Provider> {
        self.known.identity.as_deref()
    }

    /// How long a holder is kept after the last license ended, ms.
    pub fn retention_ms(&self) -> u64 {
        self.known.retention_ms
    }

    /// The facts read so far, for a test of a decision alone.
    #[cfg(test)]
    pub(crate) fn reads(&self) -> &[(Fact, u32)] {
        &self.reads
    }

    /// The facts read, and the earliest end among them.
    pub fn into_reads(self) -> (Vec<(Fact, u32)>, u64) {
        (self.reads, self.ends_at_ms)
    }

    /// Whether all that was read is still so.
    pub fn is_current(&self) -> bool {
        let now_ms = now_ms().max(self.source.time_ms());
        let same = |(fact, version): &(Fact, u32)| self.source.version(fact) == *version;
        now_ms < self.ends_at_ms && self.reads.iter().all(same)
    }

    /// The decision holds only before this moment. An end that is past already was seen by the decision.
    pub fn ends_at(&mut self, end_ms: u64) {
        if end_ms > self.now_ms {
            self.ends_at_ms = self.ends_at_ms.min(end_ms);
        }
    }

    /// The caller is told what is left of this.
    pub(crate) fn note(&mut self, allowance: Allowance) {
        self.allowances.push(allowance);
    }

    /// The allowances that were noted.
    pub(super) fn take_allowances(&mut self) -> Vec<Allowance> {
        std::mem::take(&mut self.allowances)
    }

    fn read(&mut self, fact: Fact, version: u32) {
        self.reads.push((fact, version));
    }

    // --- participants and types ---

    /// The participant of an organisation; its registration's end ends the decision.
    pub fn participant(&mut self, organisation: &Uscc) -> Option<Arc<Participant>> {
        let (_, participant) = self.registration(organisation);
        if let Some(participant) = &participant {
            self.ends_at(participant.ends_at_ms());
        }
        participant
    }

    /// The registration of an organisation, and its place.
    pub fn registration(&mut self, organisation: &Uscc) -> (Place, Option<Arc<Participant>>) {
        let (key, version, participant) =
            self.known.register.get(self.source, organisation, keyed::participant_key);
        (self.placed::<Participant>(key, version), participant)
    }

    /// The definition of a license type.
    pub fn license_type(&mut self, code: &LicenseTypeCode) -> Option<Arc<LicenseType>> {
        self.published(code).1
    }

    /// The definition of a license type, and its place.
    pub fn published(&mut self, code: &LicenseTypeCode) -> (Place, Option<Arc<LicenseType>>) {
        let (key, version, license_type) = self.known.types.get(self.source, code, keyed::type_key);
        (self.placed::<LicenseType>(key, version), license_type)
    }

    /// The definition of a license type, and its key, which grants name a type by.
    pub fn keyed_type(&mut self, code: &LicenseTypeCode) -> (Key, Option<Arc<LicenseType>>) {
        let (place, license_type) = self.published(code);
        (place.key, license_type)
    }

    // --- shared data ---

    /// The resource with a code, and its place.
    pub(crate) fn resource(&mut self, code: &str) -> (Place, Option<Arc<Listed>>) {
        let key = resource_key(self.keyed(), code);
        let (_, version, listed) = self.known.resources.get(self.source, &key, |_, key| *key);
        (self.placed::<Listed>(key, version), listed)
    }

    /// The application under a key, and its place.
    pub(crate) fn application(&mut self, key: Key) -> (Place, Option<Arc<Application>>) {
        let (_, version, application) = self.known.applications.get(self.source, &key, |_, key| *key);
        (self.placed::<Application>(key, version), application)
    }

    /// How long a provider has.
    pub(crate) fn clocks(&self) -> &'a Clocks {
        &self.known.clocks
    }

    /// The calendars that a clock which starts now may count by: those of this year and the next that there are.
    pub(crate) fn calendars(&mut self) -> Vec<Calendar> {
        let year = day_of(self.now_ms).civil().0;
        let read = [year, year + 1].map(|year| {
            let key = calendar_key(self.keyed(), year);
            self.document::<Calendar>(key).1
        });
        read.into_iter().flatten().collect()
    }

    fn placed<T: Kept>(&mut self, key: Key, version: u32) -> Place {
        self.read(Fact::Document(T::KIND, key), version);
        Place { kind: T::KIND, key, version }
    }

    // --- licenses ---

    /// The license under a key; its absence is a fact too.
    pub fn license(&mut self, key: Key) -> Option<Found> {
        self.license_at(key).ok()
    }

    /// The license under a key.
    ///
    /// # Errors
    /// The evidence that there is none.
    pub fn license_at(&mut self, key: Key) -> Result<Found, Absent> {
        let license = self.source.license(&key);
        self.read(Fact::License(key), license.as_ref().map_or(0, |license| license.version));
        license.map(|license| Found { key, license, same_number: 1, read: Read }).ok_or(Absent { key })
    }

    /// Tag of a license's number.
    fn number_tag_of(&mut self, key: Key) -> Option<u64> {
        let (tag, version) = self.source.number_tag(&key).unzip();
        self.read(Fact::License(key), version.unwrap_or_default());
        tag
    }

    /// The license a request names.
    pub fn named(&mut self, named: &Named<'_>) -> Option<Found> {
        match named {
            Named::Identifier { identifier, .. } => {
                self.license(keyed::license_key(self.keyed(), identifier))
            }
            Named::Number { type_code, certificate_number, holder } => {
                let tag = keyed::number_tag(self.keyed(), type_code, certificate_number);
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

    /// Keys of the licenses that name a holder; which ones these are is a fact.
    pub fn licenses_of(&mut self, label: &Label) -> Vec<Key> {
        let keys = self.source.licenses_of(label);
        self.read(Fact::Licenses(*label), u32::try_from(keys.len()).unwrap_or(u32::MAX));
        keys
    }

    /// Those of these licenses that there are, newest first as the journal orders them, at most `most`; each is a fact. And
    /// whether there are no more.
    pub fn newest(&mut self, keys: Vec<Key>, most: usize) -> (Vec<Found>, bool) {
        let placed = keys.into_iter().filter_map(|key| Some((self.source.license(&key)?.body, key)));
        let mut placed: Vec<_> = placed.collect();
        placed.sort_unstable_by_key(|(body, _)| std::cmp::Reverse(*body));
        let complete = placed.len() <= most;
        (placed.into_iter().take(most).filter_map(|(_, key)| self.license(key)).collect(), complete)
    }

    /// Looks up of nobody what was not looked up because it does not exist, so that a denial took the same look-ups whatever
    /// there is. A denied request named the license twice: to be decided, and for whom the denial concerns.
    pub fn level(&mut self, named: &Named<'_>, nobody: &Label) {
        const NAMED: usize = 2;
        /// Beside that, the holder of a number is looked up for the right, for whom it concerns, twice for what is told,
        /// and here.
        const HOLDER_ALONE: usize = 5;
        let source = self.source;
        match named {
            Named::Identifier { identifier, .. } => {
                let found = source.number_tag(&keyed::license_key(self.keyed(), identifier)).is_some();
                for _ in 0..if found { 0 } else { NAMED } {
                    black_box(source.no_license());
                }
            }
            Named::Number { type_code, certificate_number, holder } => {
                let tag = keyed::number_tag(self.keyed(), type_code, certificate_number);
                let label =
                    source.holder(&keyed::holder_key(self.keyed(), holder)).map(|holder| holder.label);
                let keys = label.map(|label| source.licenses_of(&label)).unwrap_or_default();
                let matching =
                    keys.iter().any(|key| source.number_tag(key).is_some_and(|(other, _)| other == tag));
                // A holder who is there is found where one who is not is missed. A label is nobody's key.
                let key =
                    keyed::nobody_keys(self.keyed()).next().filter(|_| label.is_none()).unwrap_or(*nobody);
                for _ in 0..NAMED + HOLDER_ALONE {
                    black_box(source.holder(&key));
                }
                if label.is_none() {
                    for _ in 0..NAMED {
                        black_box(self.licenses_of(nobody));
                    }
                    black_box(source.licenses_of(nobody));
                }
                // No license has a label for its key.
                for _ in 0..NAMED * LEVEL_LICENSES.saturating_sub(keys.len()) {
                    black_box(self.number_tag_of(*nobody));
                }
                for _ in 0..if matching { 0 } else { NAMED } {
                    black_box(self.license(*nobody));
                    black_box(self.in_force(&source.no_license()));
                }
                // Without a license the denial concerns the holder named, who is looked up for that.
                if matching {
                    black_box(self.holder(holder));
                }
            }
        }
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

    /// Whether a license is valid and within its time; the moment at which that changes ends the decision.
    pub fn in_force(&mut self, license: &License) -> bool {
        let current = self.validity(license) == Validity::Current;
        current && license.state == LicenseState::Valid.number()
    }

    // --- holders ---

    /// The holder with a number.
    pub fn holder(&mut self, holder: &HolderRef) -> Option<Holder> {
        let key = keyed::holder_key(self.keyed(), holder);
        let holder = self.source.holder(&key);
        self.read(Fact::Holder(key), holder.as_ref().map_or(0, |holder| holder.version));
        holder
    }

    /// The holder with a label, if not erased; an erased one never comes back.
    pub fn living(&mut self, label: &Label) -> Option<Living> {
        let holder = self.source.holder_by_label(label).filter(|holder| !holder.erased)?;
        self.read(Fact::Holder(holder.key), holder.version);
        Some(Living { label: *label })
    }

    /// Whether a label is that of a holder who is not erased. No fact: for whom a denial concerns.
    pub fn is_living(&self, label: &Label) -> bool {
        self.source.holder_by_label(label).is_some_and(|holder| !holder.erased)
    }

    /// Journal time at which a holder's last license ended, ms since 1970; 0 before that.
    pub fn ended_ms(&self, label: &Label) -> u64 {
        self.source.holder_by_label(label).map_or(0, |holder| holder.ended_ms)
    }

    // --- documents, grants, counters ---

    /// A document under a key, and its place. Bytes that do not parse are no document, and the caller denies: the gateway
    /// wrote them itself.
    pub fn document<T: Kept>(&mut self, key: Key) -> (Place, Option<T>) {
        let document = self.source.document(T::KIND, &key);
        let version = document.as_ref().map_or(0, |document| document.version);
        let place = self.placed::<T>(key, version);
        (place, document.and_then(|document| serde_json::from_slice(&document.value).ok()))
    }

    /// The documents of a kind that a holder owns and `wanted` takes, at most `most`, with their places.
    pub fn documents_of<T: Kept>(
        &mut self,
        owner: &Label,
        most: usize,
        wanted: impl Fn(&T) -> bool,
    ) -> Vec<(Place, T)> {
        let all = self.source.documents_of(T::KIND, owner).into_iter();
        let all = all.filter_map(|(key, document)| {
            let value = serde_json::from_slice::<T>(&document.value).ok().filter(&wanted)?;
            Some((key, document.version, value))
        });
        let taken: Vec<_> = all.take(most).collect();
        taken.into_iter().map(|(key, version, value)| (self.placed::<T>(key, version), value)).collect()
    }

    /// The rules fixed when the log was made; a log without them allows no delay.
    pub fn rules(&mut self) -> Rules {
        let key = keyed::rules_key(self.keyed());
        self.document(key).1.unwrap_or(Rules { delay_days_max: 0 })
    }

    /// The epoch that goes on now.
    pub fn epoch(&mut self) -> u32 {
        let epoch = self.source.epoch();
        self.read(Fact::Epoch, epoch);
        epoch
    }

    /// The grant with an id.
    pub fn grant(&mut self, id: &Key) -> Option<Held> {
        let grant = self.source.grant(id);
        self.read(Fact::Grant(*id), grant.as_ref().map_or(0, |grant| grant.version));
        if let Some(grant) = &grant {
            self.ends_at(grant.until_ms.saturating_add(1));
        }
        grant.map(|grant| Held { grant, read: Read })
    }

    /// Whether the portal that made a grant still vouches for holders; its registration's end ends the decision.
    pub fn portal_vouches(&mut self, grant: &Grant) -> bool {
        // The gateway wrote the code itself; one that cannot be read vouches for nobody.
        let portal = std::str::from_utf8(&grant.portal).ok().and_then(|code| code.parse::<Uscc>().ok());
        let portal = portal.and_then(|portal| self.participant(&portal));
        portal.is_some_and(|portal| portal.vouches_at(self.now_ms))
    }

    /// Counters of the day are used: the decision ends with the day in China Standard Time.
    pub fn today(&mut self) -> u32 {
        let today = Date::at(i64::try_from(self.now_ms / 1_000).unwrap_or(i64::MAX));
        let end = u64::try_from(today.last_second()).unwrap_or(0).saturating_add(1);
        self.ends_at(end.saturating_mul(1_000));
        u32::try_from(today.days()).unwrap_or(0).max(1)
    }

    /// A counter's value on a day. No fact: the sequencer looks at counters itself when it commits.
    pub fn counter(&self, key: &Key, day: u32) -> u32 {
        self.source.counter(key, day)
    }

    /// The entry that bound an idempotency key; that it is unbound is a fact.
    pub fn bound(&mut self, key: Key) -> Option<ledger::Bound> {
        let bound = self.source.idempotency(&key);
        if bound.is_none() {
            self.read(Fact::Idempotency(key), 0);
        }
        bound
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
