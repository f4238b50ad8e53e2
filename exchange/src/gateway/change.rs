//! Step 6 of the request path: the change of state that a permit makes, and the exact answer bytes, ready to be
//! committed together. Each change takes the evidence that its fact was read. The path opens it, and the route fills
//! it. It is memory until step 7, so a crash before leaves nothing.

use ledger::record::{
    CounterUse, DocumentState, GrantState, Idempotency, LicenseState, NO_BODY_PART, Record,
};
use ledger::{
    DocumentKind, HolderKey, Key, Label, License, Prepared, PreparedSegment, ReadError, RowsError, Writing,
    Written,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use schemas::codes::{Code, Decision, Reason};
use schemas::holder::HolderRef;
use verifier::Hash;
use verifier::fields::commitment;
use verifier::leaf::{Labels, Party, Stage};

use super::case::{Absent, Found, Held, Living, Place};
use super::names::Names;
use super::parsed::Kept;
use super::permit::{Denial, Disclosure, Terms, unspent};
use super::seal::Said;
use super::tools::{Entry, Tools, class_of};
use crate::keyed;
use crate::participant::Participant;
use crate::rights::assertion::Told;
use crate::sharing::region::StoredRow;
pub(crate) use crate::wire::object::json;
use crate::wire::refusal::{Refusal, no};

/// The end of a document that is gone with the next entry: every moment is behind it.
pub(super) const AT_ONCE_MS: u64 = 1;

/// The answer and the change of an entry, if it commits. Only this file makes one.
pub struct Effect {
    pub(super) status: u16,
    pub(super) code: Code,
    /// Committed as is.
    pub(super) prepared: Prepared,
    /// Answer bytes, before the receipt is written in.
    pub(super) answer: Vec<u8>,
    /// Once it is committed the epoch is to change.
    pub(super) rotates: bool,
    /// Row segments that it commits to, which go with it if it is not.
    pub(super) segments: Vec<PreparedSegment>,
    /// The turn to write rows, until it is committed or given up.
    pub(super) writing: Option<Writing>,
    /// Salt of the request digest, for the receipt.
    pub(super) request_salt: Hash,
    /// It closes an intent.
    pub(super) is_outcome: bool,
}

/// A change of state under way: what a permit's entry will say.
pub struct Change<'a> {
    tools: &'a Tools<'a>,
    entry: &'a Entry<'a>,
    caller: &'a Participant,
    record: Record,
    said: Said<'a>,
    names_holder: bool,
    /// Keys of the holders concerned, in their order.
    keys: Vec<HolderKey>,
    /// The keys that the subject part is sealed under, where these are others.
    sealed_for: Option<Vec<HolderKey>>,
    rotates: bool,
    segments: Vec<PreparedSegment>,
    writing: Option<Writing>,
}

/// Rows of a resource that come in, go, or are erased.
pub(crate) struct RowBatch {
    /// Each with its bytes, those of [`StoredRow::encode`], or with the note of its removal.
    pub(crate) rows: Vec<(Key, RowChange)>,
    /// Those of the removed ones whose bytes go from the disk with this entry.
    pub(crate) erased: Vec<Key>,
}

/// The fate of a row.
pub(crate) enum RowChange {
    /// It is there.
    Put(Vec<u8>),
    /// It is removed, with a note.
    Remove(Vec<u8>),
}

impl RowChange {
    fn written(&self) -> Written<'_> {
        match self {
            Self::Put(bytes) => Written::Row(bytes),
            Self::Remove(note) => Written::Removal(note),
        }
    }
}

impl<'a> Change<'a> {
    /// Takes up what a ruling says.
    ///
    /// # Errors
    /// [`Code::Internal`]
    pub(super) fn begin(
        tools: &'a Tools<'a>,
        entry: &'a Entry<'a>,
        caller: &'a Participant,
        names: Names<'a>,
        terms: Terms,
    ) -> Result<Self, Refusal> {
        let Terms { concerned, names_holder, counters, basis } = terms;
        let bound = entry.idempotency.map(|(key, request)| Idempotency { key, request, answer_part: 0 });
        let mut record =
            Record { idempotency: bound, counters, acting_for: acting_for(&names), ..Record::default() };
        let keys = tools.living(entry.route, &concerned, &mut record)?;
        record.release_ms = entry.release_of(&record.concerned);
        let said = Said::of(Names { basis, ..names });
        Ok(Self {
            tools,
            entry,
            caller,
            record,
            said,
            names_holder,
            keys,
            sealed_for: None,
            rotates: false,
            segments: Vec::new(),
            writing: None,
        })
    }

    /// Says whether the entry decides alone, or closes an intent.
    #[must_use]
    pub(super) fn at(mut self, stage: Stage) -> Self {
        self.said.stage = stage;
        self
    }

    /// The effect of an intent: an entry without an answer, durable before a call leaves.
    pub(super) fn intent(self) -> Effect {
        self.at(Stage::Intent).permitted(Vec::new())
    }

    /// The tools that effects are made with.
    pub fn tools(&self) -> &'a Tools<'a> {
        self.tools
    }

    /// The caller and the request, as the entry records them.
    pub fn entry(&self) -> &'a Entry<'a> {
        self.entry
    }

    /// The caller's registration.
    pub fn caller(&self) -> &'a Participant {
        self.caller
    }

    /// Now, as answers say it.
    pub fn as_of(&self) -> String {
        schemas::date::rfc3339(self.entry.now_ms)
    }

    /// The content of the subject part, to be added to.
    pub fn names(&mut self) -> &mut Names<'a> {
        &mut self.said.names
    }

    /// Seals this envelope, which the answer gives too.
    pub(crate) fn keep_envelope(&mut self, envelope: Vec<u8>) {
        self.said.envelope = Some(envelope);
    }

    /// Counts. A counter has to have room by now; the sequencer looks again when it commits: one that is spent by then has the
    /// request decided anew, which ends here (decision 0014).
    ///
    /// # Errors
    /// `refusal`
    pub fn count(&mut self, counter: CounterUse, refusal: impl FnOnce() -> Refusal) -> Result<(), Refusal> {
        let used = self.tools.ledger.state().counter(&counter.key, counter.day);
        self.record.counters.push(unspent(used, counter, refusal)?);
        Ok(())
    }

    /// Uses up an assertion, which is good once. Its level stands in the entry.
    ///
    /// # Errors
    /// [`Code::AssertionRefused`]: it was used before.
    pub(crate) fn spend(&mut self, told: &Told) -> Result<(), Refusal> {
        self.count(told.once(), || Refusal::explained(Code::AssertionRefused, Reason::AssertionUsed))?;
        self.said.names.assurance = told.level();
        Ok(())
    }

    /// Adds to a sum, which stops at its most: nothing is refused for it.
    pub fn add_up(&mut self, key: Key, day: u32, amount: u64) {
        let used = self.tools.ledger.state().counter(&key, day);
        let amount = u32::try_from(amount).unwrap_or(u32::MAX).min(u32::MAX - used);
        if amount > 0 {
            self.record.counters.push(CounterUse { key, day, amount, limit: u32::MAX });
        }
    }

    /// Raises a mark that only grows, if it is lower. The value before.
    pub fn raise(&mut self, key: Key, to: u32) -> u32 {
        let before = self.tools.ledger.state().counter(&key, 0);
        if let Some(amount) = to.checked_sub(before).filter(|amount| *amount > 0) {
            self.record.counters.push(CounterUse { key, day: 0, amount, limit: to });
        }
        before
    }

    // --- licenses ---

    /// Writes a first version of a license, whose body is the envelope kept.
    pub fn new_license(&mut self, absent: Absent, license: LicenseState) {
        self.record.licenses.push(LicenseState { key: absent.key(), version: 1, body_part: 0, ..license });
    }

    /// Changes a license, whose body stays where it is unless `change` says otherwise.
    pub fn license(&mut self, found: &Found, change: impl FnOnce(LicenseState) -> LicenseState) {
        let next = next(found.key, &found.license);
        let LicenseState { key, version, .. } = next;
        self.record.licenses.push(LicenseState { key, version, ..change(next) });
    }

    // --- grants ---

    /// Makes a grant; its id. `grant`'s key and version are none yet.
    ///
    /// # Errors
    /// [`Code::Internal`]: no randomness.
    pub fn new_grant(&mut self, grant: GrantState) -> Result<Key, Refusal> {
        let key = random()?;
        self.record.grants.push(GrantState { key, version: 1, ..grant });
        Ok(self.tools.ledger.state().grant_id(&key))
    }

    /// Changes a grant; its key stays, and its version is the next.
    pub fn grant(&mut self, held: &Held, change: impl FnOnce(GrantState) -> GrantState) {
        let (key, version) = (held.grant.key, held.grant.version + 1);
        self.record.grants.push(GrantState { key, version, ..change(held.grant.clone()) });
    }

    // --- documents ---

    /// Writes a document where one was read, or was not there.
    pub fn put(&mut self, place: Place, value: Vec<u8>) {
        let (kind, key, version) = place.parts();
        self.document(kind, key, version + 1, value, Vec::new(), 0);
    }

    /// Writes a document, found by its owners too, in the place of what was read.
    pub fn keep<T: Kept>(&mut self, place: Place, value: &T) {
        let (kind, key, version) = place.parts();
        self.document(kind, key, version + 1, json(value), value.owners(), value.ends_ms());
    }

    /// Writes a document for the last time, in the place of what was read. It is gone with the next entry.
    pub(super) fn end<T: Kept>(&mut self, place: Place, value: &T) {
        self.record.documents.push(ended(place, value, AT_ONCE_MS));
    }

    /// Writes a new document under a random key, which is given back.
    ///
    /// # Errors
    /// [`Code::Internal`]: no randomness.
    pub fn put_new(&mut self, kind: DocumentKind, value: Vec<u8>) -> Result<Key, Refusal> {
        let key = random()?;
        self.document(kind, key, 1, value, Vec::new(), 0);
        Ok(key)
    }

    fn document(
        &mut self,
        kind: DocumentKind,
        key: Key,
        version: u32,
        value: Vec<u8>,
        owners: Vec<Label>,
        ends_ms: u64,
    ) {
        let kind = kind.number();
        self.record.documents.push(DocumentState { kind, key, version, value, owners, ends_ms });
    }

    /// A new label with a key of its own, for what lies sealed under a document's name: the rows of a resource. It is known by the
    /// document's key, so one that is there already is given back.
    pub fn new_label(&mut self, place: Place) -> Label {
        let (_, key, _) = place.parts();
        let ledger = self.tools.ledger;
        if let Some(known) = ledger.state().holder(&key) {
            return known.label;
        }
        let new = ledger.new_holder(key);
        self.record.new_holders.push(new.entered());
        new.label
    }

    // --- hosted rows ---

    /// A row of the resource with this label.
    ///
    /// # Errors
    /// [`Code::RecordUnavailable`]: it cannot be read. [`Code::Overloaded`]: too much is read at once.
    pub async fn row(
        &self,
        resource: &Label,
        row: &Key,
        _disclosure: Disclosure,
    ) -> Result<Option<StoredRow>, Refusal> {
        let rows = self.tools.ledger.rows();
        let unreadable = |error: ReadError| match error {
            ReadError::KeyGone => Refusal::new(Code::Erased),
            error => {
                tracing::error!(%error, "a row of a hosted resource cannot be read");
                Refusal::new(Code::RecordUnavailable)
            }
        };
        let Some(place) = rows.find(resource, row).await.map_err(unreadable)? else { return Ok(None) };
        // One read of a few hundred bytes, which the page cache nearly always has: a lane would cost more than it saves.
        let bytes = rows.read(&place).map_err(unreadable)?;
        StoredRow::decode(&bytes).map(Some).ok_or_else(|| Refusal::new(Code::RecordUnavailable))
    }

    /// Takes all rows of the resource with this label out, those that are on their way in too: its keys are destroyed. The files of few
    /// segments go at once, those of many stay, and nobody can read them.
    pub fn end_rows(&mut self, resource: Label) {
        const MOST_AT_ONCE: usize = 1_000;
        let ended = self.tools.ledger.rows().ended(&resource);
        if ended.len() <= MOST_AT_ONCE {
            self.record.documents.extend(ended);
        }
        self.record.erased.push(resource);
    }

    /// Takes the turn to write rows of the resource with this label, beside others or alone, until the entry is committed or given up.
    pub(crate) async fn write_rows(&mut self, resource: &Label, alone: bool) {
        self.writing = Some(self.tools.ledger.rows().writing(resource, alone).await);
    }

    /// Brings rows of the resource with this label in, or takes them out.
    ///
    /// # Errors
    /// [`Code::JournalFull`]: no room. [`Code::Internal`]: the disk failed. [`Code::RecordUnavailable`]: a row beside an erased one
    /// cannot be read.
    pub(crate) async fn rows(&mut self, resource: Label, batch: RowBatch) -> Result<(), Refusal> {
        let ledger = self.tools.ledger;
        let key =
            ledger.sealing_key(&resource, &mut self.record).ok_or_else(|| Refusal::new(Code::Internal))?;
        let rows = ledger.rows().clone();
        let write = move || {
            let written: Vec<_> = batch.rows.iter().map(|(key, row)| (*key, row.written())).collect();
            let mut prepared = vec![rows.put(&key, &written)?];
            if !batch.erased.is_empty() {
                prepared.append(&mut rows.erase(&key, &batch.erased)?);
            }
            Ok(prepared)
        };
        let prepared = self.tools.lanes.pages.run(*self.entry.organisation, write).await;
        let prepared = prepared.map_err(Refusal::new)?.map_err(|error: RowsError| {
            tracing::error!(%error, "rows cannot be written");
            Refusal::new(match error {
                RowsError::Full => Code::JournalFull,
                RowsError::Read(_) => Code::RecordUnavailable,
                RowsError::Stopped | RowsError::Malformed(_) | RowsError::Io(_) => Code::Internal,
            })
        })?;
        self.record.documents.extend(prepared.iter().flat_map(PreparedSegment::documents));
        self.segments = prepared;
        Ok(())
    }

    // --- holders ---

    /// A person's label; who is named for the first time gets it here, with a key. The entry concerns the person from now on.
    ///
    /// # Errors
    /// [`Code::Internal`]
    pub fn concern(&mut self, person: &HolderRef) -> Result<Label, Refusal> {
        let key = self.known_or_new(person)?;
        let label = key.label;
        if !self.record.concerned.contains(&label) {
            self.record.concerned.push(label);
            self.keys.push(key);
            // Somebody whom the exchange did not know is told as late as others.
            self.record.release_ms = self.entry.release_of(&self.record.concerned);
        }
        Ok(label)
    }

    /// Those whom the entry concerns have nothing to do with each other: each is told apart.
    pub fn apart(&mut self) {
        self.said.apart = true;
    }

    /// Labels of a license's holders, whom alone the entry concerns and is sealed for.
    ///
    /// # Errors
    /// [`Code::Internal`]
    pub fn held_by<'p>(
        &mut self,
        persons: impl Iterator<Item = &'p HolderRef>,
    ) -> Result<Vec<Label>, Refusal> {
        let (mut labels, mut keys) = (Vec::new(), Vec::new());
        for person in persons {
            let key = self.known_or_new(person)?;
            labels.push(key.label);
            keys.push(key);
        }
        self.record.concerned.clone_from(&labels);
        self.sealed_for = Some(keys);
        Ok(labels)
    }

    fn known_or_new(&mut self, person: &HolderRef) -> Result<HolderKey, Refusal> {
        let internal = || Refusal::new(Code::Internal);
        let (ledger, class) = (self.tools.ledger, class_of(self.entry.route));
        let key = keyed::holder_key(ledger.keyed(), person);
        if let Some(known) = ledger.state().holder(&key) {
            return ledger.sealing_key_in(class, &known.label, &mut self.record).ok_or_else(internal);
        }
        let new = ledger.new_holder_in(class, key);
        self.record.new_holders.push(new.entered());
        Ok(new.holder_key)
    }

    /// The entry concerns these holders and nobody else, each for themselves: they have nothing to do with each other. They are
    /// told at `release_ms`, or when the entry's own delay says, if that is `None`. Nobody tells the erased.
    ///
    /// # Errors
    /// [`Code::Internal`]
    pub fn concern_apart(&mut self, labels: &[Label], release_ms: Option<u64>) -> Result<(), Refusal> {
        self.keys = self.tools.living(self.entry.route, labels, &mut self.record)?;
        if let Some(release_ms) = release_ms {
            self.record.release_ms = if self.record.concerned.is_empty() { 0 } else { release_ms };
        }
        self.said.apart = true;
        Ok(())
    }

    /// Somebody acts for others: the nearest first, the one in whose name it all happens last.
    pub(crate) fn acting_for(&mut self, persons: impl IntoIterator<Item = Label>) {
        self.record.acting_for.extend(persons.into_iter().map(Party::Person));
    }

    /// Commits to the fields that leave with the answer, in the order in which the holders are told of them.
    pub(crate) fn commit_fields<'f>(&mut self, fields: impl Iterator<Item = (&'f str, &'f str)>) {
        let salt = self.tools.ledger.random();
        let commitments =
            fields.zip(0..).map(|((name, value), number)| commitment(&salt, number, name, value));
        self.record.field_commitments = commitments.collect();
        self.said.field_salt = Some(salt);
    }

    /// The holders whom the entry concerns.
    pub(super) fn concerned(&self) -> &[Label] {
        &self.record.concerned
    }

    /// The first holder whom the entry concerns.
    pub fn first_concerned(&self) -> Option<Label> {
        self.record.concerned.first().copied()
    }

    /// Destroys a holder's key. The answer must be found again without it, so nothing personal may be in it.
    pub fn erase(&mut self, living: Living) {
        self.record.erased.push(living.label());
        self.sealed_for = Some(Vec::new());
    }

    /// Has the epoch changed once this is committed.
    pub fn rotate(&mut self) {
        self.rotates = true;
    }

    /// The effect of the permit, with the bytes of its answer.
    pub(super) fn permitted(self, answer: Vec<u8>) -> Effect {
        let concerned = if self.names_holder { self.record.concerned.clone() } else { Vec::new() };
        let labels = Labels::new(concerned);
        let keys = self.sealed_for.unwrap_or(self.keys);
        let (code, status) = (Code::Ok, self.entry.route.success_status());
        let (prepared, request_salt) = self.tools.prepare(
            self.entry,
            Decision::Permit,
            code,
            labels,
            self.record,
            &self.said,
            &keys,
            &answer,
        );
        let (rotates, segments, writing) = (self.rotates, self.segments, self.writing);
        let is_outcome = matches!(self.said.stage, Stage::Outcome { .. });
        Effect { status, code, prepared, answer, rotates, segments, writing, request_salt, is_outcome }
    }
}

impl Effect {
    /// The effect of a denial: a problem document and an entry; of a call that failed, its document with an end.
    ///
    /// # Errors
    /// [`Code::Internal`]
    pub(super) fn denied(
        tools: &Tools<'_>,
        entry: &Entry<'_>,
        names: Option<Names<'_>>,
        denial: &Denial,
        stage: Stage,
        document: Option<DocumentState>,
    ) -> Result<Self, Refusal> {
        let refusal = &denial.refusal;
        // A question is answered with a no, and refused all the same.
        let negative = no(entry.route, refusal.code);
        let answer = negative.map_or_else(|| refusal.problem(entry.language), <[u8]>::to_vec);
        let documents = document.into_iter().collect();
        let counters = refusal.counts().to_vec();
        let acting_for = names.as_ref().map(acting_for).unwrap_or_default();
        let mut record =
            Record { reason: refusal.reason.number(), documents, counters, acting_for, ..Record::default() };
        let keys = tools.living(entry.route, &denial.concerned, &mut record)?;
        record.release_ms = entry.release_of(&record.concerned);
        let said = Said { stage, ..Said::of(names.unwrap_or_default()) };
        // No labels in `open`: a denial shows the caller nothing, whatever its cause.
        let labels = Labels::List(Vec::new());
        let (prepared, request_salt) =
            tools.prepare(entry, Decision::Denial, refusal.code, labels, record, &said, &keys, &answer);
        let status = if negative.is_some() { entry.route.success_status() } else { refusal.code.status() };
        let code = refusal.code;
        let is_outcome = matches!(stage, Stage::Outcome { .. });
        let (segments, writing) = (Vec::new(), None);
        Ok(Self {
            status,
            code,
            prepared,
            answer,
            rotates: false,
            segments,
            writing,
            request_salt,
            is_outcome,
        })
    }
}

/// A document in the place of what was read, for an entry of a refusal.
pub(crate) fn in_place<T: Kept>(place: Place, value: &T) -> DocumentState {
    ended(place, value, value.ends_ms())
}

/// The organisation that a use is made for.
fn acting_for(names: &Names<'_>) -> Vec<Party> {
    let organisation = names.context.and_then(|context| context.acting_for);
    organisation.iter().map(|organisation| Party::Organisation(*organisation.as_bytes())).collect()
}

/// A document in the place of what was read, which is gone from a moment on, ms since 1970.
pub(super) fn ended<T: Kept>(place: Place, value: &T, ends_ms: u64) -> DocumentState {
    let (kind, key, version) = place.parts();
    let (kind, version) = (kind.number(), version + 1);
    DocumentState { kind, key, version, value: json(value), owners: value.owners(), ends_ms }
}

pub(super) fn random() -> Result<Key, Refusal> {
    let mut key = [0; 16];
    SystemRandom::new().fill(&mut key).map_err(|_| Refusal::new(Code::Internal))?;
    Ok(key)
}

/// A license as it is, one version on, its body where it was.
fn next(key: Key, license: &License) -> LicenseState {
    LicenseState {
        key,
        version: license.version + 1,
        state: license.state,
        certificate_version: license.certificate_version,
        valid_from_day: license.valid_from_day,
        valid_until_day: license.valid_until_day,
        taken_over: license.taken_over,
        written_by_04: license.written_by_04,
        number_tag: license.number_tag,
        holders: license.holders.clone(),
        body_part: NO_BODY_PART,
    }
}
