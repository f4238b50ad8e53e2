//! Journal records as owned values: `StateRecord` (`schemas/fbs/journal.fbs`), the completion and the plaintext of a
//! frame's state part (section 6 of the formats). One place reads and writes each of them.
//!
//! Pure functions over bytes; nothing to lose. Numbers of kinds stand in journals for good.

use crate::names::{Hash, Key, KeyName, Label};
use flatbuffers::{FlatBufferBuilder, ForwardsUOffset, Vector, VerifierOptions, WIPOffset};
use schemas::journal as fb;
use std::cell::RefCell;
use std::sync::Arc;
use verifier::leaf::{HolderLink, Party};

/// Most holders that one record concerns: as many as a bulk delivery may have subjects.
pub const MAX_LINKS: usize = 1024;
/// Most counters of one record: their number is one byte of the completion.
pub const MAX_COUNTERS: usize = 255;
/// Most links under which one grant is made.
pub const MAX_GRANT_LINKS: usize = 16;
/// Most licenses or types of a grant.
pub const MAX_GRANT_TARGETS: usize = 16;
/// Most owners of one document.
pub const MAX_OWNERS: usize = 16;
/// `body_part` of a license whose body stays where it was.
pub const NO_BODY_PART: u8 = 255;
/// Tables in one record; a batch of licenses with a counter each stays far below.
const MAX_TABLES: usize = 100_000;
const MAX_DEPTH: usize = 8;
/// Tables of a record that it has once at most: itself, the bound key, the digest of the state.
const SINGLE_TABLES: usize = 3;
/// The links of a completion are in the holders' own sequences, or in their oversight sequences.
const LAYOUT_OWN: u8 = 1;
const LAYOUT_OVERSIGHT: u8 = 2;
const COMPLETION_HEAD_BYTES: usize = 4;
const LINK_BYTES: usize = HolderLink::BYTES;

thread_local! {
    /// Makes the records of a thread, so that each but the first finds its memory there. They hold no personal data.
    static BUILDER: RefCell<FlatBufferBuilder<'static>> = RefCell::default();
}

/// The bytes are no record, completion or state part of the format; the text says which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub struct Malformed(pub &'static str);

/// The part of one entry that replay needs; no personal data. The fields are those of the FlatBuffers table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Internal reason (`schemas::codes::Reason`).
    pub reason: u16,
    /// Labels of the holders concerned, each once.
    pub concerned: Vec<Label>,
    /// Moment (ms) until which the use is kept from its holders and counted in their oversight sequences; 0 = at once.
    pub release_ms: u64,
    /// Holders that first appear here.
    pub new_holders: Vec<NewHolder>,
    /// Licenses as they stand after this entry.
    pub licenses: Vec<LicenseState>,
    /// Grants as they stand after this entry.
    pub grants: Vec<GrantState>,
    /// Documents as they stand after this entry.
    pub documents: Vec<DocumentState>,
    /// Counters raised by this entry.
    pub counters: Vec<CounterUse>,
    /// The idempotency key bound by this entry.
    pub idempotency: Option<Idempotency>,
    /// Counts of the requests shed since the last such entry.
    pub shed: Vec<Shed>,
    /// Indexes of delayed uses that this entry tells to the holders concerned.
    pub released: Vec<u64>,
    /// Holders whose keys are destroyed from this entry on.
    pub erased: Vec<Label>,
    /// The epoch whose key wraps holders' keys from this entry on; 0 = no change.
    pub epoch_begun: u32,
    /// The epoch whose key no longer exists; 0 = none.
    pub epoch_destroyed: u32,
    /// The digest of the whole state after so many entries.
    pub state_digest: Option<StateDigest>,
    /// Keys of known holders that are born here.
    pub new_keys: Vec<NewKey>,
    /// Keys destroyed from this entry on; each of a year that is over.
    pub destroyed: Vec<KeyName>,
    /// Salted digests of the fields that left with the answer.
    pub field_commitments: Vec<Hash>,
    /// Whom the caller acts for, the nearest first.
    pub acting_for: Vec<Party>,
}

/// The digest of the whole state at one size of the log: what snapshots and the restart image are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateDigest {
    /// Entries applied.
    pub size: u64,
    /// [`crate::State::digest`] after them.
    pub digest: Hash,
}

/// A holder's first appearance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewHolder {
    /// Keyed hash of type code and number.
    pub key: Key,
    /// The label from now on.
    pub label: Label,
    /// Retention class of the holder's first key.
    pub class: u8,
    /// Year of the holder's first key.
    pub year: u16,
    /// Epoch of the key that wraps the holder's.
    pub epoch: u32,
    /// The holder's first key, wrapped.
    pub wrapped: [u8; 60],
}

impl NewHolder {
    /// Which key is the first.
    pub fn name(&self) -> KeyName {
        KeyName { label: self.label, class: self.class, year: self.year }
    }
}

/// A known holder's key of another class or year.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// Which key.
    pub name: KeyName,
    /// Epoch of the key that wraps it.
    pub epoch: u32,
    /// The key, wrapped.
    pub wrapped: [u8; 60],
}

/// A license as it stands after the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LicenseState {
    /// Keyed hash of type, issuer and serial.
    pub key: Key,
    /// Fact version, one more than before; 1 = first.
    pub version: u32,
    /// State number (section 8).
    pub state: u8,
    /// 版本号 in force.
    pub certificate_version: u16,
    /// First valid day, days since 1970.
    pub valid_from_day: i32,
    /// Last valid day, days since 1970; `i32::MAX` = no end.
    pub valid_until_day: i32,
    /// Another license has taken this one over.
    pub taken_over: bool,
    /// Operation 04 wrote state 05.
    pub written_by_04: bool,
    /// Keyed hash of type and number, 8 bytes.
    pub number_tag: u64,
    /// Labels of all holders.
    pub holders: Vec<Label>,
    /// Subject part with the body, or [`NO_BODY_PART`].
    pub body_part: u8,
}

/// A link by which a grant was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantLink {
    /// Key of its document.
    pub key: Key,
    /// When it began, ms since 1970: made anew it is another one.
    pub since_ms: u64,
}

/// Another license or type of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantTarget {
    /// Keyed hash of the license or of the type code.
    pub key: Key,
    /// Fields of it that may be disclosed, as bits.
    pub fields: u64,
}

/// A grant as it stands after the entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantState {
    /// Random; the grant's id is a keyed hash of it: [`crate::State::grant_id`].
    pub key: Key,
    /// Fact version, one more than before; 1 = first.
    pub version: u32,
    /// 1 active, 2 paused, 3 revoked.
    pub state: u8,
    /// Label of the holder who grants.
    pub holder: Label,
    /// USCC of the organisation that may use it.
    pub grantee: [u8; 18],
    /// Keyed hash of the license or of the type code.
    pub target: Key,
    /// Whether `target` is a type.
    pub target_is_type: bool,
    /// Modes, as bits.
    pub modes: u8,
    /// Fields that may be disclosed, as bits.
    pub fields: u64,
    /// Keyed hash of the item; 0 = any.
    pub item_tag: u64,
    /// Last valid moment, ms since 1970.
    pub until_ms: u64,
    /// Uses allowed; 0 = without limit.
    pub max_uses: u32,
    /// USCC of the portal that vouched for the holder.
    pub portal: [u8; 18],
    /// Purpose of the uses; `None` = any.
    pub purpose: Option<Arc<str>>,
    /// Number of the field of use; 0 = any.
    pub scenario: u8,
    /// Keyed hash of the grantee's user; 0 = any.
    pub user_tag: u64,
    /// Assurance level of the assertion that it was made with, from 1; 0 = the portal's word.
    pub assurance: u8,
    /// The links by which an agent made it, the nearest to the holder first; empty for a holder's own.
    pub chain: Vec<GrantLink>,
    /// Licenses or types beside `target`; empty for a grant of one.
    pub more_targets: Vec<GrantTarget>,
}

impl GrantState {
    /// All that the grant is for.
    pub fn targets(&self) -> impl Iterator<Item = GrantTarget> {
        let first = GrantTarget { key: self.target, fields: self.fields };
        std::iter::once(first).chain(self.more_targets.iter().copied())
    }

    /// The fields that may be disclosed of a license of a type, as bits; `None` where the grant is not for it.
    pub fn fields_of(&self, license: Option<&Key>, license_type: &Key) -> Option<u64> {
        let asked = if self.target_is_type { Some(license_type) } else { license }?;
        self.targets().find(|target| target.key == *asked).map(|target| target.fields)
    }
}

/// A document as it stands after the entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocumentState {
    /// 1 participant, 2 license type, 3 rules, 4 link, 5 proposal, 6 legal hold, 9 row segment.
    pub kind: u8,
    /// The document's key.
    pub key: Key,
    /// Fact version, one more than before; 1 = first.
    pub version: u32,
    /// The document.
    pub value: Vec<u8>,
    /// Whom the document belongs to, each once: labels or keyed hashes; at most [`MAX_OWNERS`].
    pub owners: Vec<[u8; 16]>,
    /// From this moment on (journal time, ms since 1970) the document is gone; 0 = without end.
    pub ends_ms: u64,
}

/// A counter that the entry raises by `amount` and never above `limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterUse {
    /// The name of the counter.
    pub key: Key,
    /// Day in China Standard Time (days since 1970), or 0 for a counter that never resets.
    pub day: u32,
    /// By how much; 0 only checks that the limit is not passed.
    pub amount: u32,
    /// Highest value allowed.
    pub limit: u32,
}

/// Binds an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// Keyed hash of organisation and key.
    pub key: Key,
    /// Keyed hash of the request.
    pub request: Key,
    /// Subject part with the answer bytes.
    pub answer_part: u8,
}

/// Requests shed without a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shed {
    /// USCC, or empty.
    pub organisation: String,
    /// Public code they were shed with.
    pub code: u16,
    /// How many.
    pub count: u64,
}

impl Record {
    /// Reads and checks the bytes of a `StateRecord`.
    ///
    /// # Errors
    /// [`Malformed`] also when a fixed-length field has another length.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        const BAD: Malformed = Malformed("state record");
        if bytes.len() < 8 || !fb::state_record_buffer_has_identifier(bytes) {
            return Err(BAD);
        }
        let options =
            VerifierOptions { max_depth: MAX_DEPTH, max_tables: MAX_TABLES, ..VerifierOptions::default() };
        let table = fb::root_as_state_record_with_opts(&options, bytes).map_err(|_| BAD)?;
        let mut record = Self { reason: table.reason(), release_ms: table.release_ms(), ..Self::default() };
        record.concerned = table.concerned().iter().flatten().map(|label| label.0).collect();
        for holder in table.new_holders().iter().flatten() {
            record.new_holders.push(NewHolder {
                key: holder.key().0,
                label: holder.label().0,
                class: holder.class(),
                year: holder.year(),
                epoch: holder.epoch(),
                wrapped: holder.wrapped().bytes().try_into().map_err(|_| BAD)?,
            });
        }
        for license in table.licenses().iter().flatten() {
            record.licenses.push(LicenseState {
                key: license.key().0,
                version: license.version(),
                state: license.state(),
                certificate_version: license.certificate_version(),
                valid_from_day: license.valid_from_day(),
                valid_until_day: license.valid_until_day(),
                taken_over: license.taken_over(),
                written_by_04: license.written_by_04(),
                number_tag: license.number_tag(),
                holders: license.holders().iter().map(|label| label.0).collect(),
                body_part: license.body_part(),
            });
        }
        for grant in table.grants().iter().flatten() {
            record.grants.push(GrantState {
                key: grant.key().0,
                version: grant.version(),
                state: grant.state(),
                holder: grant.holder().0,
                grantee: grant.grantee().as_bytes().try_into().map_err(|_| BAD)?,
                target: grant.target().0,
                target_is_type: grant.target_is_type(),
                modes: grant.modes(),
                fields: grant.fields(),
                item_tag: grant.item_tag(),
                until_ms: grant.until_ms(),
                max_uses: grant.max_uses(),
                portal: grant.portal().as_bytes().try_into().map_err(|_| BAD)?,
                purpose: grant.purpose().map(Arc::from),
                scenario: grant.scenario(),
                user_tag: grant.user_tag(),
                assurance: grant.assurance(),
                chain: grant
                    .chain()
                    .iter()
                    .flatten()
                    .map(|link| GrantLink { key: link.key().0, since_ms: link.since_ms() })
                    .collect(),
                more_targets: grant
                    .more_targets()
                    .iter()
                    .flatten()
                    .map(|target| GrantTarget { key: target.key().0, fields: target.fields() })
                    .collect(),
            });
        }
        for document in table.documents().iter().flatten() {
            record.documents.push(DocumentState {
                kind: document.kind(),
                key: document.key().0,
                version: document.version(),
                value: document.value().bytes().to_vec(),
                owners: document.owners().iter().flatten().map(|owner| owner.0).collect(),
                ends_ms: document.ends_ms(),
            });
        }
        for counter in table.counters().iter().flatten() {
            record.counters.push(CounterUse {
                key: counter.key().0,
                day: counter.day(),
                amount: counter.amount(),
                limit: counter.limit(),
            });
        }
        record.idempotency = table.idempotency().map(|bound| Idempotency {
            key: bound.key().0,
            request: bound.request().0,
            answer_part: bound.answer_part(),
        });
        for shed in table.shed().iter().flatten() {
            record.shed.push(Shed {
                organisation: shed.organisation().to_owned(),
                code: shed.code(),
                count: shed.count(),
            });
        }
        record.released = table.released().iter().flatten().collect();
        record.erased = table.erased().iter().flatten().map(|label| label.0).collect();
        record.epoch_begun = table.epoch_begun();
        record.epoch_destroyed = table.epoch_destroyed();
        record.state_digest =
            table.state_digest().map(|state| StateDigest { size: state.size(), digest: state.digest().0 });
        for new in table.new_keys().iter().flatten() {
            record.new_keys.push(NewKey {
                name: key_name(new.name()),
                epoch: new.epoch(),
                wrapped: new.wrapped().bytes().try_into().map_err(|_| BAD)?,
            });
        }
        record.destroyed = table.destroyed().iter().flatten().map(key_name).collect();
        record.field_commitments =
            table.field_commitments().iter().flatten().map(|digest| digest.0).collect();
        for party in table.acting_for().iter().flatten() {
            record.acting_for.push(Party::decode(&party.0).ok_or(BAD)?);
        }
        if record.concerned.len() > MAX_LINKS || record.counters.len() > MAX_COUNTERS {
            return Err(BAD);
        }
        Ok(record)
    }

    /// Whether the bytes of the record are read back as it is: what is not within the limits of the format is refused before
    /// it is encoded.
    ///
    /// # Errors
    /// [`Malformed`]
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        let tables = self.new_holders.len()
            + self.licenses.len()
            + self.grants.len()
            + self.documents.len()
            + self.counters.len()
            + self.shed.len()
            + self.new_keys.len();
        let fits = self.concerned.len() <= MAX_LINKS
            && self.counters.len() <= MAX_COUNTERS
            && tables <= MAX_TABLES - SINGLE_TABLES
            && self.documents.iter().all(|document| document.owners.len() <= MAX_OWNERS)
            && self.grants.iter().all(|grant| grant.grantee.is_ascii() && grant.portal.is_ascii());
        if fits { Ok(()) } else { Err(Malformed("state record")) }
    }

    /// The bytes of the `StateRecord`.
    pub fn encode(&self) -> Vec<u8> {
        BUILDER.with_borrow_mut(|builder| {
            builder.reset();
            self.build(builder);
            builder.finished_data().to_vec()
        })
    }

    fn build(&self, b: &mut FlatBufferBuilder<'_>) {
        let concerned = (!self.concerned.is_empty()).then(|| create_labels(b, &self.concerned));
        let new_holders = vector(b, &self.new_holders, new_holder);
        let licenses = vector(b, &self.licenses, license);
        let grants = vector(b, &self.grants, grant);
        let documents = vector(b, &self.documents, document);
        let counters = vector(b, &self.counters, counter);
        let idempotency = self.idempotency.map(|bound| {
            let (key, request) = (fb::Hash16::new(&bound.key), fb::Hash16::new(&bound.request));
            let answer_part = bound.answer_part;
            let args = fb::IdempotencyArgs { key: Some(&key), request: Some(&request), answer_part };
            fb::Idempotency::create(b, &args)
        });
        let shed = vector(b, &self.shed, shed_count);
        let released = (!self.released.is_empty()).then(|| b.create_vector(&self.released));
        let erased = (!self.erased.is_empty()).then(|| create_labels(b, &self.erased));
        let state_digest = self.state_digest.map(|state| {
            let digest = fb::Hash32::new(&state.digest);
            fb::StateDigest::create(b, &fb::StateDigestArgs { size: state.size, digest: Some(&digest) })
        });
        let new_keys = vector(b, &self.new_keys, new_key);
        let destroyed = (!self.destroyed.is_empty())
            .then(|| b.create_vector_from_iter(self.destroyed.iter().map(fb_key_name)));
        let field_commitments = (!self.field_commitments.is_empty())
            .then(|| b.create_vector_from_iter(self.field_commitments.iter().map(fb::Hash32::new)));
        let acting_for = (!self.acting_for.is_empty()).then(|| {
            b.create_vector_from_iter(self.acting_for.iter().map(|party| fb::Party(party.encode())))
        });
        let args = fb::StateRecordArgs {
            reason: self.reason,
            concerned,
            release_ms: self.release_ms,
            new_holders,
            licenses,
            grants,
            documents,
            counters,
            idempotency,
            shed,
            released,
            erased,
            epoch_begun: self.epoch_begun,
            epoch_destroyed: self.epoch_destroyed,
            state_digest,
            new_keys,
            destroyed,
            field_commitments,
            acting_for,
        };
        let root = fb::StateRecord::create(b, &args);
        fb::finish_state_record_buffer(b, root);
    }
}

fn new_holder<'b>(b: &mut FlatBufferBuilder<'b>, holder: &NewHolder) -> WIPOffset<fb::NewHolder<'b>> {
    let wrapped = Some(b.create_vector(&holder.wrapped));
    let (key, label) = (fb::Hash16::new(&holder.key), fb::Hash16::new(&holder.label));
    let args = fb::NewHolderArgs {
        key: Some(&key),
        label: Some(&label),
        class: holder.class,
        year: holder.year,
        epoch: holder.epoch,
        wrapped,
    };
    fb::NewHolder::create(b, &args)
}

fn license<'b>(b: &mut FlatBufferBuilder<'b>, license: &LicenseState) -> WIPOffset<fb::LicenseState<'b>> {
    let holders = Some(create_labels(b, &license.holders));
    let args = fb::LicenseStateArgs {
        key: Some(&fb::Hash16::new(&license.key)),
        version: license.version,
        state: license.state,
        certificate_version: license.certificate_version,
        valid_from_day: license.valid_from_day,
        valid_until_day: license.valid_until_day,
        taken_over: license.taken_over,
        written_by_04: license.written_by_04,
        number_tag: license.number_tag,
        holders,
        body_part: license.body_part,
    };
    fb::LicenseState::create(b, &args)
}

fn grant<'b>(b: &mut FlatBufferBuilder<'b>, grant: &GrantState) -> WIPOffset<fb::GrantState<'b>> {
    let grantee = Some(b.create_string(&String::from_utf8_lossy(&grant.grantee)));
    let portal = Some(b.create_string(&String::from_utf8_lossy(&grant.portal)));
    let purpose = grant.purpose.as_deref().map(|purpose| b.create_string(purpose));
    let link = |link: &GrantLink| fb::GrantLink::new(&fb::Hash16::new(&link.key), link.since_ms);
    let chain = (!grant.chain.is_empty()).then(|| b.create_vector_from_iter(grant.chain.iter().map(link)));
    let target = |target: &GrantTarget| fb::GrantTarget::new(&fb::Hash16::new(&target.key), target.fields);
    let more = grant.more_targets.iter().map(target);
    let more_targets = (!grant.more_targets.is_empty()).then(|| b.create_vector_from_iter(more));
    let args = fb::GrantStateArgs {
        key: Some(&fb::Hash16::new(&grant.key)),
        version: grant.version,
        state: grant.state,
        holder: Some(&fb::Hash16::new(&grant.holder)),
        grantee,
        target: Some(&fb::Hash16::new(&grant.target)),
        target_is_type: grant.target_is_type,
        modes: grant.modes,
        fields: grant.fields,
        item_tag: grant.item_tag,
        until_ms: grant.until_ms,
        max_uses: grant.max_uses,
        portal,
        purpose,
        scenario: grant.scenario,
        user_tag: grant.user_tag,
        assurance: grant.assurance,
        chain,
        more_targets,
    };
    fb::GrantState::create(b, &args)
}

fn document<'b>(b: &mut FlatBufferBuilder<'b>, document: &DocumentState) -> WIPOffset<fb::DocumentState<'b>> {
    let value = Some(b.create_vector(&document.value));
    let key = fb::Hash16::new(&document.key);
    let owners = (!document.owners.is_empty()).then(|| create_labels(b, &document.owners));
    let args = fb::DocumentStateArgs {
        kind: document.kind,
        key: Some(&key),
        version: document.version,
        value,
        owners,
        ends_ms: document.ends_ms,
    };
    fb::DocumentState::create(b, &args)
}

fn counter<'b>(b: &mut FlatBufferBuilder<'b>, counter: &CounterUse) -> WIPOffset<fb::CounterUse<'b>> {
    let key = fb::Hash16::new(&counter.key);
    let (day, amount, limit) = (counter.day, counter.amount, counter.limit);
    fb::CounterUse::create(b, &fb::CounterUseArgs { key: Some(&key), day, amount, limit })
}

fn shed_count<'b>(b: &mut FlatBufferBuilder<'b>, shed: &Shed) -> WIPOffset<fb::ShedCount<'b>> {
    let organisation = Some(b.create_string(&shed.organisation));
    let (code, count) = (shed.code, shed.count);
    fb::ShedCount::create(b, &fb::ShedCountArgs { organisation, code, count })
}

fn new_key<'b>(b: &mut FlatBufferBuilder<'b>, new: &NewKey) -> WIPOffset<fb::NewKey<'b>> {
    let wrapped = Some(b.create_vector(&new.wrapped));
    let name = fb_key_name(&new.name);
    fb::NewKey::create(b, &fb::NewKeyArgs { name: Some(&name), epoch: new.epoch, wrapped })
}

/// The tables of a list; `None` for an empty one, which takes no bytes.
fn vector<'b, T, F: 'b>(
    b: &mut FlatBufferBuilder<'b>,
    all: &[T],
    table: impl Fn(&mut FlatBufferBuilder<'b>, &T) -> WIPOffset<F>,
) -> Option<WIPOffset<Vector<'b, ForwardsUOffset<F>>>> {
    let tables: Vec<_> = all.iter().map(|one| table(b, one)).collect();
    (!tables.is_empty()).then(|| b.create_vector(&tables))
}

fn key_name(name: &fb::KeyName) -> KeyName {
    KeyName { label: name.label().0, class: name.class(), year: name.year() }
}

fn fb_key_name(name: &KeyName) -> fb::KeyName {
    fb::KeyName::new(&fb::Hash16::new(&name.label), name.year, name.class)
}

/// A vector of labels, written from where they stand.
fn create_labels<'a>(b: &mut FlatBufferBuilder<'a>, labels: &[Label]) -> WIPOffset<Vector<'a, fb::Hash16>> {
    b.create_vector_from_iter(labels.iter().map(fb::Hash16::new))
}

/// The part of an entry that only the sequencer knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Completion {
    /// Whether the links are in the holders' oversight sequences; so it is for a record with a release moment.
    pub(crate) delayed: bool,
    /// The number and order are those of `Record::concerned`.
    pub(crate) links: Vec<HolderLink>,
    /// Values after the entry, as many and in the order of `Record::counters`.
    pub(crate) counters: Vec<u32>,
}

impl Completion {
    /// Bytes of the completion of a record.
    pub(crate) fn encoded_bytes(record: &Record) -> usize {
        COMPLETION_HEAD_BYTES + LINK_BYTES * record.concerned.len() + 4 * record.counters.len()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let bytes = COMPLETION_HEAD_BYTES + LINK_BYTES * self.links.len() + 4 * self.counters.len();
        let mut bytes = Vec::with_capacity(bytes);
        // Admission refuses records with more than MAX_LINKS or MAX_COUNTERS.
        let layout = if self.delayed { LAYOUT_OVERSIGHT } else { LAYOUT_OWN };
        bytes.extend_from_slice(&[layout, self.counters.len() as u8]);
        bytes.extend_from_slice(&(self.links.len() as u16).to_be_bytes());
        for counter in &self.counters {
            bytes.extend_from_slice(&counter.to_be_bytes());
        }
        for link in &self.links {
            bytes.extend_from_slice(&link.encode());
        }
        bytes
    }

    /// Reads the completion that belongs to `record`.
    pub(crate) fn decode(bytes: &[u8], record: &Record) -> Result<Self, Malformed> {
        Self::read(bytes, record).ok_or(Malformed("completion"))
    }

    fn read(bytes: &[u8], record: &Record) -> Option<Self> {
        let mut rest = bytes;
        let [layout, counters]: [u8; 2] = take(&mut rest)?;
        let links = u16::from_be_bytes(take(&mut rest)?);
        let fits =
            usize::from(links) == record.concerned.len() && usize::from(counters) == record.counters.len();
        let expected = if record.release_ms == 0 { LAYOUT_OWN } else { LAYOUT_OVERSIGHT };
        if layout != expected || !fits {
            return None;
        }
        let mut completion = Self { delayed: layout == LAYOUT_OVERSIGHT, ..Self::default() };
        for _ in 0..counters {
            completion.counters.push(u32::from_be_bytes(take(&mut rest)?));
        }
        for label in &record.concerned {
            let link = HolderLink::decode(take_ref(&mut rest)?);
            if link.label != *label {
                return None;
            }
            completion.links.push(link);
        }
        rest.is_empty().then_some(completion)
    }
}

/// One entry in the plaintext of a state part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryPlain<'a> {
    pub(crate) salt: &'a Hash,
    pub(crate) inner_salt: &'a Hash,
    pub(crate) open: &'a [u8],
    pub(crate) record: &'a [u8],
    pub(crate) completion: &'a [u8],
}

impl<'a> EntryPlain<'a> {
    /// Bytes around open, record and completion.
    pub(crate) const FIXED_BYTES: usize = 32 + 32 + 2 + 4 + 4;

    pub(crate) fn write(&self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(self.salt);
        buffer.extend_from_slice(self.inner_salt);
        buffer.extend_from_slice(&(self.open.len() as u16).to_be_bytes());
        buffer.extend_from_slice(self.open);
        for part in [self.record, self.completion] {
            buffer.extend_from_slice(&(part.len() as u32).to_be_bytes());
            buffer.extend_from_slice(part);
        }
    }

    /// The next entry of a state part's plaintext.
    pub(crate) fn read(rest: &mut &'a [u8]) -> Result<Self, Malformed> {
        Self::next(rest).ok_or(Malformed("state part"))
    }

    fn next(rest: &mut &'a [u8]) -> Option<Self> {
        let salt = take_ref(rest)?;
        let inner_salt = take_ref(rest)?;
        let length = u16::from_be_bytes(take(rest)?);
        let open = take_slice(rest, length.into())?;
        let length = u32::from_be_bytes(take(rest)?);
        let record = take_slice(rest, length as usize)?;
        let length = u32::from_be_bytes(take(rest)?);
        let completion = take_slice(rest, length as usize)?;
        Some(Self { salt, inner_salt, open, record, completion })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    take_ref(rest).copied()
}

fn take_ref<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(head)
}

fn take_slice<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Record {
        Record {
            reason: 7,
            concerned: vec![[1; 16], [2; 16]],
            release_ms: 9,
            new_holders: vec![NewHolder {
                key: [3; 16],
                label: [1; 16],
                class: 1,
                year: 2026,
                epoch: 4,
                wrapped: [5; 60],
            }],
            licenses: vec![LicenseState {
                key: [6; 16],
                version: 7,
                state: 5,
                certificate_version: 999,
                valid_from_day: -1,
                valid_until_day: i32::MAX,
                taken_over: true,
                written_by_04: true,
                number_tag: u64::MAX,
                holders: vec![[1; 16], [2; 16], [3; 16]],
                body_part: 0,
            }],
            grants: vec![GrantState {
                key: [8; 16],
                version: 1,
                state: 2,
                holder: [1; 16],
                grantee: *b"91310000000000000X",
                target: [6; 16],
                target_is_type: true,
                modes: 63,
                fields: u64::MAX,
                item_tag: 1,
                until_ms: 2,
                max_uses: 3,
                portal: *b"91310000000000001X",
                purpose: Some("测试用途".into()),
                scenario: 5,
                user_tag: u64::MAX,
                assurance: 2,
                chain: vec![
                    GrantLink { key: [9; 16], since_ms: 4 },
                    GrantLink { key: [10; 16], since_ms: 5 },
                ],
                more_targets: vec![GrantTarget { key: [11; 16], fields: 6 }],
            }],
            documents: vec![
                DocumentState {
                    kind: 1,
                    key: [9; 16],
                    version: 2,
                    value: vec![1, 2, 3],
                    ..Default::default()
                },
                DocumentState {
                    kind: 2,
                    key: [9; 16],
                    version: 3,
                    value: vec![],
                    owners: vec![[18; 16], [19; 16]],
                    ends_ms: u64::MAX,
                },
            ],
            counters: vec![CounterUse { key: [8; 16], day: 1, amount: 2, limit: 3 }],
            idempotency: Some(Idempotency { key: [10; 16], request: [11; 16], answer_part: 1 }),
            shed: vec![Shed { organisation: "x".to_owned(), code: 50, count: 8 }],
            released: vec![3, 4],
            erased: vec![[14; 16]],
            epoch_begun: 15,
            epoch_destroyed: 14,
            state_digest: Some(StateDigest { size: 16, digest: [17; 32] }),
            new_keys: vec![NewKey { name: name(2027), epoch: 4, wrapped: [19; 60] }],
            destroyed: vec![name(2025), KeyName { class: 255, ..name(u16::MAX) }],
            field_commitments: vec![[20; 32], [21; 32]],
            acting_for: vec![Party::Person([22; 16]), Party::Organisation(*b"91310000000000002X")],
        }
    }

    fn name(year: u16) -> KeyName {
        KeyName { label: [2; 16], class: 1, year }
    }

    #[test]
    fn records_come_back_as_they_were() {
        for record in [full(), Record::default()] {
            assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
    }

    #[test]
    fn a_record_that_would_not_be_read_back_is_refused() {
        assert_eq!(full().check(), Ok(()));
        let mut most = full();
        most.concerned = vec![[0; 16]; MAX_LINKS];
        most.counters = vec![most.counters[0]; MAX_COUNTERS];
        let others = MAX_COUNTERS + 1 + 1 + 1 + 2 + 1 + SINGLE_TABLES;
        most.shed = vec![most.shed[0].clone(); MAX_TABLES - others];
        assert_eq!(most.check(), Ok(()));
        assert_eq!(Record::decode(&most.encode()), Ok(most.clone()));
        let refused = |change: &dyn Fn(&mut Record)| {
            let mut record = most.clone();
            change(&mut record);
            assert!(record.check().is_err());
            assert_ne!(Record::decode(&record.encode()), Ok(record));
        };
        refused(&|record| record.concerned.push([1; 16]));
        refused(&|record| record.counters.push(record.counters[0]));
        refused(&|record| record.shed.push(record.shed[0].clone()));
        refused(&|record| record.grants[0].grantee[17] = 0xff);
    }

    #[test]
    fn malformed_records_are_refused_and_never_panic() {
        let bytes = full().encode();
        for length in 0..bytes.len() {
            // FlatBuffers may end in padding that nothing refers to.
            let _ = Record::decode(&bytes[..length]);
        }
        for length in 0..64 {
            assert!(Record::decode(&bytes[..length]).is_err());
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let _ = Record::decode(&changed);
            }
        }
        let mut wrapped = full();
        wrapped.concerned = vec![[0; 16]; MAX_LINKS + 1];
        assert!(Record::decode(&wrapped.encode()).is_err());
    }

    #[test]
    fn completions_fit_their_record() {
        let record = full();
        let link = HolderLink {
            label: [1; 16],
            told: [5; 32],
            sequence: 1,
            previous_chain: 6,
            previous_position: 2,
            previous_index: 3,
            previous_leaf: [4; 32],
        };
        let links = vec![link, HolderLink { label: [2; 16], ..link }];
        let completion = Completion { delayed: true, links, counters: vec![5] };
        let bytes = completion.encode();
        assert_eq!(bytes.len(), Completion::encoded_bytes(&record));
        assert_eq!(Completion::decode(&bytes, &record), Ok(completion));
        for length in 0..bytes.len() {
            assert!(Completion::decode(&bytes[..length], &record).is_err());
        }
        assert!(Completion::decode(&[bytes.as_slice(), &[0]].concat(), &record).is_err());
        assert!(Completion::decode(&bytes, &Record::default()).is_err());
        assert!(Completion::decode(&bytes, &Record { release_ms: 0, ..full() }).is_err());
        assert!(Completion::decode(&bytes, &Record { concerned: vec![[1; 16]; 2], ..full() }).is_err());
    }

    #[test]
    fn entries_are_read_back_and_cut_ones_refused() {
        let entry = EntryPlain {
            salt: &[1; 32],
            inner_salt: &[2; 32],
            open: b"open",
            record: b"record",
            completion: b"completion",
        };
        let mut bytes = Vec::new();
        entry.write(&mut bytes);
        for length in 0..bytes.len() {
            assert!(EntryPlain::read(&mut &bytes[..length]).is_err());
        }
        let mut rest = bytes.as_slice();
        let read = EntryPlain::read(&mut rest).unwrap();
        assert_eq!((read.open, read.record, read.completion), (entry.open, entry.record, entry.completion));
        assert!(rest.is_empty());
    }
}
