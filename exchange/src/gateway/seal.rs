//! Sealing: what an entry's subject part says, and the entry made of it. Personal data is written here alone, and only under the
//! keys of the holders concerned.
//!
//! The path makes all entries here. They are memory until their frame is synced.

use std::cell::RefCell;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flatbuffers::FlatBufferBuilder;
use ledger::record::{DocumentState, Record, Shed, StateDigest};
use ledger::{HolderKey, Key, KeyName, Label, Prepared, Subjects};
use schemas::codes::{Code, Decision};
use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use schemas::journal as fb;
use schemas::kinds::{Scenario, Verifiers};
use schemas::routes::Route;
use serde::Serialize;
use verifier::Hash;
use verifier::leaf::{ActingFor, Labels, LeafKind, Open, Stage, told_digest};
use verifier::receipt::request_digest;
use verifier::trace::{Destroyed, USES_CLASS};

use super::names::Names;
use super::tools::{Entry, Tools};
use crate::keyed;
use crate::wire::object::{Object, json};
use crate::wire::refusal::Refusal;

thread_local! {
    /// Makes the plaintexts of a thread, so that each but the first finds its memory there.
    static PLAINTEXT: RefCell<FlatBufferBuilder<'static>> = RefCell::default();
}

/// The content of an entry's subject part.
pub(super) struct Said<'a> {
    pub(super) names: Names<'a>,
    /// A license's signed bytes.
    pub(super) envelope: Option<Vec<u8>>,
    /// The secret that the salts of the commitments to fields are made from.
    pub(super) field_salt: Option<Hash>,
    /// The holders concerned have nothing to do with each other.
    pub(super) apart: bool,
    /// Whether the entry decides alone.
    pub(super) stage: Stage,
}

impl<'a> Said<'a> {
    pub(super) fn of(names: Names<'a>) -> Self {
        let apart = names.audit.is_some();
        Self { names, envelope: None, field_salt: None, apart, stage: Stage::Whole }
    }
}

impl Tools<'_> {
    /// The entry of a decision, and the salt of its request digest.
    #[expect(clippy::too_many_arguments, reason = "one call site each for permits and denials")]
    pub(super) fn prepare(
        &self,
        entry: &Entry<'_>,
        decision: Decision,
        code: Code,
        labels: Labels,
        state: Record,
        said: &Said<'_>,
        keys: &[HolderKey],
        answer: &[u8],
    ) -> (Prepared, Hash) {
        // The answer that the key of a new version is bound to follows from its envelope.
        let is_bound = state.idempotency.is_some() && said.envelope.is_none();
        let names = &said.names;
        let salt = self.ledger.random();
        let document = self.told(entry, names, &state);
        let user_name = names.context.map(|context| &*context.user_name);
        let text = Text {
            told: &document,
            user_name: user_name.or(names.audit.map(|(_, user_name)| user_name)),
            envelope: said.envelope.as_deref(),
            detail: &self.detail(names, &state.concerned),
            answer: is_bound.then_some(answer),
            field_salt: said.field_salt.as_ref(),
        };
        let Sealed { told, subjects } = if said.apart && !keys.is_empty() {
            self.seal_each(keys, &text)
        } else {
            self.seal_once(&salt, &state.concerned, keys, &text)
        };
        let request_salt = request_salt(&salt);
        let open = Open {
            route: entry.route.number(),
            decision: decision.number(),
            code: code.number(),
            index: 0,
            time_ms: 0,
            organisation: *entry.organisation.as_bytes(),
            request_digest: entry.body.map_or([0; 32], |body| request_digest(&request_salt, body)),
            answer_digest: if said.stage == Stage::Intent { [0; 32] } else { sha256(answer) },
            policy: entry.policy,
            subject_digest: *subjects.digest(),
            labels,
            stage: said.stage,
            // A refusal shows nobody, whatever its cause.
            acting_for: if decision == Decision::Permit {
                ActingFor::new(state.acting_for.clone())
            } else {
                ActingFor::default()
            },
        };
        let prepared = Prepared { kind: LeafKind::Entry, open: open.encode(), record: state, told, subjects };
        (prepared, request_salt)
    }

    /// One part for all whom the entry concerns.
    fn seal_once(&self, salt: &Hash, concerned: &[Label], keys: &[HolderKey], text: &Text<'_>) -> Sealed {
        let part = with_subject_record(text, salt, |plaintext| self.ledger.seal_subject(0, keys, plaintext));
        let told = concerned.iter().map(|label| told_digest(salt, label, text.told)).collect();
        Sealed { told, subjects: Subjects::one(part) }
    }

    /// A part for each of those whom the entry concerns, who have nothing to do with each other.
    fn seal_each(&self, keys: &[HolderKey], text: &Text<'_>) -> Sealed {
        let (mut told, mut subjects) = (Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()));
        for (part, key) in (0..).zip(keys) {
            let salt = self.ledger.random();
            subjects.push(with_subject_record(text, &salt, |plaintext| {
                self.ledger.seal_subject(part, std::slice::from_ref(key), plaintext)
            }));
            told.push(told_digest(&salt, &key.label, text.told));
        }
        Sealed { told, subjects: Subjects::of(&subjects) }
    }

    /// The entry that tells holders of a use whose delay has ended; which use it is stands in what they are told.
    ///
    /// # Errors
    /// [`Code::Internal`]: a living holder has no key.
    pub(super) fn release(&self, policy: &Hash, due: &ledger::Delayed) -> Result<Prepared, Refusal> {
        let released = vec![due.index];
        let mut record = Record { released: released.clone(), ..Record::default() };
        let keys = self.living(Route::System, &due.holders, &mut record)?;
        let document = json(&ToldRelease { released: &released });
        let text = Text { told: &document, ..Text::default() };
        let sealed = self.seal_each(&keys, &text);
        Ok(system_with(policy, &record, sealed))
    }

    /// The entry that destroys keys of one year of uses, and tells each of these holders so: that alone lies under the day's key.
    pub(super) fn destruction(&self, policy: &Hash, year: u16, names: &[KeyName]) -> Prepared {
        let concerned = names.iter().map(|name| name.label).collect();
        let record = Record { destroyed: names.to_vec(), concerned, ..Record::default() };
        let told = json(&ToldDestruction { destroyed: Destroyed { class: USES_CLASS.to_owned(), year } });
        let text = Text { told: &told, ..Text::default() };
        let sealed = self.seal_once(&self.ledger.random(), &record.concerned, &[], &text);
        system_with(policy, &record, sealed)
    }

    /// Labels of those whom the request names and the entry does not concern, and the caller's reason.
    fn detail(&self, names: &Names<'_>, concerned: &[Label]) -> String {
        let named = names.persons.iter().filter_map(|person| {
            let what = person.named?;
            let label = self.label(person.holder).filter(|label| !concerned.contains(label))?;
            Some(format!("{what} {}", hex::encode(label)))
        });
        let reason = Some(names.reason.to_owned()).filter(|reason| !reason.is_empty());
        named.chain(reason).collect::<Vec<_>>().join("; ")
    }

    /// The label of a person whom the log knows.
    fn label(&self, person: &HolderRef) -> Option<Label> {
        let known = self.ledger.state().holder(&keyed::holder_key(self.ledger.keyed(), person));
        known.map(|holder| holder.label)
    }

    /// The document that a holder is told of an entry (section 4 of the formats), beside what stands in `open`: organisation, time,
    /// route, decision.
    fn told(&self, entry: &Entry<'_>, names: &Names<'_>, record: &Record) -> Vec<u8> {
        let concerned = &record.concerned;
        let mut told = Object::new();
        if !names.identifiers.is_empty() {
            told.texts("licenses", &names.identifiers);
        }
        if let Some((type_code, number, holder)) = &names.number {
            told.text("typeCode", type_code.as_str());
            // Some certificates have the holder's number for theirs.
            if self.label(holder).is_some_and(|label| concerned.contains(&label)) {
                told.text("certificateNumber", number);
            } else {
                // The same work, so that no refusal tells by time whether the holder is known.
                let mut untold = Object::new();
                untold.text("certificateNumber", number);
                std::hint::black_box(untold.end());
            }
        }
        told.text_if_any("resource", names.resource);
        told.text_if_any("mode", names.mode);
        if !names.fields.is_empty() || !names.keys.is_empty() {
            told.texts("fields", names.fields.iter().chain(&names.keys));
        }
        if !record.field_commitments.is_empty() {
            told.texts("commitments", record.field_commitments.iter().map(|digest| BASE64.encode(digest)));
        }
        if !names.masked.is_empty() {
            told.texts("masked", &names.masked);
        }
        if let Some(copy) = &names.copy {
            told.base64("copy", copy);
        }
        if let Some(grant) = &names.grant {
            told.hex("grant", grant);
        }
        if !names.more_grants.is_empty() {
            told.texts("moreGrants", names.more_grants.iter().map(hex::encode));
        }
        if let Some(terms) = &names.terms {
            told.object("terms", |told| {
                told.text_if_any("action", terms.action);
                told.text_if_any("purpose", terms.purpose);
                told.text_if_any("scenario", terms.scenario.map(Scenario::name));
                if let Some(grantee) = terms.grantee {
                    told.text("grantee", grantee.as_str());
                }
                told.text_if_any("verifiers", terms.verifiers.map(Verifiers::name));
                told.text_if_any("until", terms.until.as_deref());
            });
        }
        told.text_if_any("link", names.link);
        told.text_if_any("assurance", names.assurance.as_deref());
        if let Some((purpose, user_name)) = names.audit {
            told.object("audit", |audit| {
                audit.hex("user", &self.pseudonym(entry, user_name));
                audit.text("purpose", purpose);
            });
        }
        if let Some(context) = names.context {
            told.object("use", |used| {
                used.hex("user", &self.pseudonym(entry, &context.user_name));
                used.text_if_any("officer", names.officer.then_some(&*context.user_name));
                used.text("itemCode", &context.item_code);
                used.text("itemName", &context.item_name);
                used.text("businessCode", &context.business_code);
                used.text("cause", &context.cause);
                used.text("stage", &context.stage);
                used.text_if_any("purpose", context.purpose.as_deref());
                used.text_if_any("scenario", context.scenario.map(Scenario::name));
                used.text_if_any("basis", names.basis);
                used.text_if_any("actingFor", context.acting_for.as_ref().map(Uscc::as_str));
            });
        }
        told.end()
    }

    /// A user's pseudonym: the same person at the same organisation has the same one.
    fn pseudonym(&self, entry: &Entry<'_>, user_name: &str) -> [u8; 8] {
        keyed::user_tag(self.ledger.keyed(), entry.organisation, user_name).to_be_bytes()
    }
}

/// The document that a holder is told of a release: the delayed uses, by index.
#[derive(Serialize)]
struct ToldRelease<'a> {
    released: &'a [u64],
}

/// The document that a holder is told of the end of a year of uses.
#[derive(Serialize)]
struct ToldDestruction {
    destroyed: Destroyed,
}

/// An entry of the exchange itself, without a caller: a document, or counts of what was shed.
pub fn system(
    policy: &Hash,
    documents: Vec<(ledger::DocumentKind, Key, Vec<u8>)>,
    shed: &[(String, Code, u64)],
) -> Prepared {
    system_entry(
        policy,
        &Record {
            documents: documents
                .into_iter()
                .map(|(kind, key, value)| DocumentState {
                    kind: kind.number(),
                    key,
                    version: 1,
                    value,
                    ..DocumentState::default()
                })
                .collect(),
            shed: shed
                .iter()
                .map(|(organisation, code, count)| Shed {
                    organisation: organisation.clone(),
                    code: code.number(),
                    count: *count,
                })
                .collect(),
            ..Record::default()
        },
    )
}

/// An entry of the exchange itself with the digest of its state, which a snapshot is confirmed by.
pub fn state_digest(policy: &Hash, digest: StateDigest) -> Prepared {
    system_entry(policy, &Record { state_digest: Some(digest), ..Record::default() })
}

/// An entry without a caller and without a subject part: whom it concerns is told nothing.
pub fn system_entry(policy: &Hash, record: &Record) -> Prepared {
    let told = vec![[0; 32]; record.concerned.len()];
    system_with(policy, record, Sealed { told, subjects: Subjects::none() })
}

fn system_with(policy: &Hash, record: &Record, sealed: Sealed) -> Prepared {
    let Sealed { told, subjects } = sealed;
    let open = Open {
        route: Route::System.number(),
        decision: Decision::System.number(),
        code: Code::Ok.number(),
        policy: *policy,
        subject_digest: *subjects.digest(),
        ..Open::default()
    };
    Prepared { kind: LeafKind::Entry, open: open.encode(), record: record.clone(), told, subjects }
}

/// The parts of a subject record.
#[derive(Default)]
struct Text<'a> {
    told: &'a [u8],
    user_name: Option<&'a str>,
    envelope: Option<&'a [u8]>,
    detail: &'a str,
    answer: Option<&'a [u8]>,
    field_salt: Option<&'a Hash>,
}

/// The subject parts of an entry, and what they commit it to.
struct Sealed {
    /// For each holder concerned the digest of what the holder is told.
    told: Vec<Hash>,
    subjects: Subjects,
}

/// Seals the finished buffer of a `SubjectRecord`. The buffer is overwritten when it is sealed.
fn with_subject_record<T>(text: &Text<'_>, told_salt: &Hash, seal: impl FnOnce(&[u8]) -> T) -> T {
    PLAINTEXT.with_borrow_mut(|builder| {
        // A seal that panicked may have left something.
        builder.reset();
        let told = Some(builder.create_vector(text.told));
        let told_salt = Some(builder.create_vector(told_salt));
        let user_name = text.user_name.map(|name| builder.create_string(name));
        let envelope = text.envelope.map(|bytes| builder.create_vector(bytes));
        let answer = text.answer.map(|bytes| builder.create_vector(bytes));
        let field_salt = text.field_salt.map(|salt| builder.create_vector(salt));
        let detail = (!text.detail.is_empty()).then(|| builder.create_string(text.detail));
        let args = fb::SubjectRecordArgs { told, told_salt, user_name, envelope, answer, detail, field_salt };
        let record = fb::SubjectRecord::create(builder, &args);
        builder.finish(record, None);
        let sealed = seal(builder.finished_data());
        builder.reset();
        sealed
    })
}

pub(crate) fn sha256(bytes: &[u8]) -> Hash {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The salt of an entry's request digest, from the salt that is sealed with what holders are told. Holders are shown neither,
/// only H(salt ‖ label).
pub(crate) fn request_salt(told_salt: &[u8]) -> Hash {
    verifier::sha256(&[told_salt, b"request"])
}
