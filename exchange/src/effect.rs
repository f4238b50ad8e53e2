//! Step 6 of the request path: from a [`Permit`] or a [`Denial`] to the exact answer bytes and the exact change of
//! state, ready to be committed together.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;

use flatbuffers::FlatBufferBuilder;
use ledger::record::{
    CounterUse, DocumentState, GrantState, Idempotency, LicenseState, NO_BODY_PART, NewHolder, Record, Shed,
    StateDigest,
};
use ledger::{HolderKey, Key, Label, Ledger, License, Prepared, Subjects};
use ring::rand::{SecureRandom, SystemRandom};
use schemas::codes::{Code, Decision, Reason};
use schemas::date::Date;
use schemas::holder::HolderRef;
use schemas::identifier::{LicenseTypeCode, Uscc};
use schemas::journal as fb;
use schemas::license_type::LicenseType;
use schemas::routes::Route;
use schemas::state::LicenseState as Standing;
use schemas::text::{self, Comparison};
use serde::Serialize;
use verifier::leaf::{Labels, LeafKind, Open, told_digest};
use verifier::license::{BodyHolder, LicenseContent};
use verifier::receipt::request_digest;
use verifier::report::Verdict;
use verifier::trace::Label as PageLabel;
use verifier::{Hash, license as envelope};

use crate::cosign::Cosigning;
use crate::current::Current;
use crate::decide::{self, Denial, Granted, List, Permit};
use crate::facts::{self, Found, Link};
use crate::floor;
use crate::gateway::Lanes;
use crate::json::{Object, USUAL_DOCUMENT_BYTES};
use crate::lists;
use crate::machine::{self, Form};
use crate::pages;
use crate::participant::Participant;
use crate::proposal::{self, Approved, Hold};
use crate::refusal::{Language, Refusal};
use crate::request::{
    Action, Draft, GrantTarget, LinkKind, Mode, Named, Proposed, Request, Subject, UseContext,
};
use crate::signer::Signers;

thread_local! {
    /// Makes the plaintexts of a thread, so that each but the first finds its memory there.
    static PLAINTEXT: RefCell<FlatBufferBuilder<'static>> = RefCell::default();
}

/// How long an annotated copy (加注件) may be used, seconds.
const COPY_SECONDS: u64 = 30 * 24 * 3_600;
/// Most licenses one search answer lists.
const MAX_LISTED: usize = 100;

/// As what a request names somebody.
const HOLDER: &str = "holder";
const AGENT: &str = "agent";

/// What will be answered and changed if it commits.
pub struct Effect {
    /// HTTP status.
    pub status: u16,
    /// Public code.
    pub code: Code,
    /// Committed as is.
    pub prepared: Prepared,
    /// Answer bytes, before the receipt is written in.
    pub answer: Vec<u8>,
    /// Once it is committed the epoch is to change.
    pub rotates: bool,
    /// Salt of the request digest, for the receipt.
    pub request_salt: Hash,
}

/// Who asks and what was received, as an entry records it.
pub struct Entry<'a> {
    /// Route.
    pub route: Route,
    /// Organisation of the certificate.
    pub organisation: &'a Uscc,
    /// The form of the answer, if it is permitted.
    pub form: Form,
    /// The language of a refusal.
    pub language: Language,
    /// The body as received; `None` when it was not read to its end.
    pub body: Option<&'a [u8]>,
    /// Bound when the permit commits: key and keyed hash of the request.
    pub idempotency: Option<(Key, Key)>,
    /// Now, ms since 1970.
    pub now_ms: u64,
    /// Until when the holders concerned are not told, ms since 1970; 0 = at once.
    pub release_ms: u64,
}

/// What builds effects.
pub struct Builder<'a> {
    /// The ledger.
    pub ledger: &'a Ledger,
    /// Its checkpoints, as the public sees them.
    pub cosigning: &'a Cosigning,
    /// Where what reads much is read.
    pub lanes: &'a Lanes,
    /// Signing queues.
    pub signers: &'a Current<Signers>,
    /// Hash of the policy in force.
    pub policy: &'a Hash,
}

/// What the subject part of an entry says.
#[derive(Default)]
struct Private<'a> {
    identifiers: Vec<Cow<'a, str>>,
    /// Type, number and holder, where a license was named by them.
    number: Option<(LicenseTypeCode, &'a str, &'a HolderRef)>,
    /// The persons whom the request names, and as what. Their numbers are not written: a part is kept for whom it is
    /// sealed for, and may outlive the others.
    persons: Vec<(&'static str, &'a HolderRef)>,
    context: Option<&'a UseContext<'a>>,
    grant: Option<Key>,
    fields: Vec<Cow<'a, str>>,
    mode: Option<&'static str>,
    envelope: Option<Vec<u8>>,
    /// Why, as the caller says.
    reason: &'a str,
    /// What makes somebody act for the holder.
    link: Option<LinkKind>,
    /// An auditor's purpose and user.
    audit: Option<(&'a str, &'a str)>,
    /// The holders concerned have nothing to do with each other.
    apart: bool,
}

impl<'a> Private<'a> {
    /// What the request itself says: the same for a permit and a denial.
    fn asked(action: &'a Action<'a>) -> Self {
        let mut asked = Self::default();
        match action {
            Action::Issue(_) | Action::ParticipantAdd(_) | Action::ParticipantChange(_) => {}
            Action::Transition(transition) => {
                asked.identifiers.push(transition.identifier.to_string().into());
                asked.reason = &transition.reason;
            }
            Action::Search(search) => {
                asked.persons.push((HOLDER, &search.holder));
                asked.context = Some(&search.context);
                asked.grant = search.grant;
            }
            Action::Retrieve(retrieve) => {
                asked.persons.extend(retrieve.holder.as_ref().map(|holder| (HOLDER, holder)));
                asked.named(&retrieve.license);
                asked.context = Some(&retrieve.context);
                asked.grant = retrieve.grant;
                asked.fields = retrieve.fields.iter().map(Cow::from).collect();
                asked.mode = Some(retrieve.mode.name());
            }
            Action::Verify(verify) => {
                asked.persons.extend(verify.holder.as_ref().map(|holder| (HOLDER, holder)));
                if let Subject::Named(named) = &verify.subject {
                    asked.named(named);
                }
                asked.context = Some(&verify.context);
                asked.grant = verify.grant;
                asked.fields = verify.expect.iter().map(|(name, _)| Cow::from(name)).collect();
            }
            Action::GrantCreate(create) => {
                asked.persons.push((HOLDER, &create.holder));
                asked.fields = create.fields.iter().map(Cow::from).collect();
                if let GrantTarget::License(identifier) = &create.target {
                    asked.identifiers.push(identifier.to_string().into());
                }
            }
            Action::GrantRevoke(revoke) => {
                asked.persons.push((HOLDER, &revoke.holder));
                asked.grant = Some(revoke.grant);
                asked.reason = &revoke.reason;
            }
            Action::ParticipantSuspend(suspend) => asked.reason = &suspend.reason,
            Action::Trace(trace) => {
                asked.persons.push((HOLDER, &trace.holder));
                asked.context = Some(&trace.context);
                asked.persons.extend(trace.agent.as_ref().map(|agent| (AGENT, agent)));
            }
            Action::LogQuery(query) => {
                asked.persons.extend(query.holder.as_ref().map(|holder| (HOLDER, holder)));
                asked.audit = Some((&query.purpose, &query.user_name));
            }
            Action::LinkMake(make) => {
                asked.persons.push((HOLDER, &make.holder));
                asked.link = Some(make.kind);
                asked.persons.push((AGENT, &make.agent));
            }
            Action::LinkEnd(end) => {
                asked.persons.push((HOLDER, &end.holder));
                asked.persons.push((AGENT, &end.agent));
                asked.reason = &end.reason;
            }
            Action::Propose(propose) => {
                if let Proposed::Holder(_, holder) = &propose.what {
                    asked.persons.push((HOLDER, holder));
                }
                asked.reason = &propose.reason;
            }
            Action::GrantSearch(search) => {
                asked.persons.extend(search.holder.as_ref().map(|holder| (HOLDER, holder)));
            }
            // The proposal stands in the state part, as a document.
            Action::Approve(_)
            | Action::ParticipantList(_)
            | Action::ProposalList(_)
            | Action::IssuedList(_) => {}
        }
        asked
    }

    fn named(&mut self, named: &'a Named<'a>) {
        match named {
            Named::Identifier { text, .. } => self.identifiers.push(Cow::from(&**text)),
            Named::Number { type_code, certificate_number, holder } => {
                self.number = Some((*type_code, certificate_number, holder));
                self.persons.push((HOLDER, holder));
            }
        }
    }
}

/// A license as it is, one version on, its body where it was.
fn next(found: &Found) -> LicenseState {
    let license = &found.license;
    LicenseState {
        key: found.key,
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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StateAnswer<'a> {
    identifier: &'a str,
    state: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SearchAnswer {
    licenses: Vec<Listed>,
    truncated: bool,
    as_of: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    identifier: String,
    certificate_number: String,
    issuer_name: String,
    state: &'static str,
    in_force: bool,
    valid_from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<String>,
}

pub(crate) struct RetrieveAnswer<'a> {
    pub(crate) identifier: String,
    pub(crate) mode: &'static str,
    pub(crate) state: &'static str,
    pub(crate) in_force: bool,
    pub(crate) fields: Option<BTreeMap<String, String>>,
    pub(crate) envelope: Option<Vec<u8>>,
    pub(crate) annotation: Option<Annotation<'a>>,
    pub(crate) as_of: String,
    pub(crate) same_number: Option<u32>,
}

impl RetrieveAnswer<'_> {
    fn json(&self) -> Vec<u8> {
        let mut answer = Object::for_bytes(self.envelope.as_deref().unwrap_or_default());
        answer.text("identifier", &self.identifier);
        answer.text("mode", self.mode);
        answer.text("state", self.state);
        answer.flag("inForce", self.in_force);
        if let Some(fields) = &self.fields {
            answer.other("fields", fields);
        }
        if let Some(envelope) = &self.envelope {
            answer.base64("envelope", envelope);
        }
        if let Some(annotation) = &self.annotation {
            answer.other("annotation", annotation);
        }
        answer.text("asOf", &self.as_of);
        if let Some(same_number) = self.same_number {
            answer.other("sameNumber", &same_number);
        }
        answer.end()
    }
}

/// The answer to whoever had a license signed: what follows from its envelope alone, so that it can be given again.
pub(crate) fn issue_answer(identifier: &str, envelope: &[u8]) -> Vec<u8> {
    let mut answer = Object::for_bytes(envelope);
    answer.text("identifier", identifier);
    answer.text("state", Standing::Valid.code());
    answer.base64("envelope", envelope);
    answer.end()
}

/// 加注: who had the copy made, for what, and until when it may be used.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Annotation<'a> {
    pub(crate) creator: &'a str,
    pub(crate) creator_name: &'a str,
    pub(crate) cause: &'a str,
    pub(crate) item_name: &'a str,
    pub(crate) business_code: &'a str,
    pub(crate) created_at: String,
    /// `None` where the license is not in force: such a copy is good for no use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<String>,
    pub(crate) watermark: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GrantAnswer {
    grant: String,
    state: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LinkAnswer {
    link: &'static str,
    kind: &'static str,
    until: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ParticipantAnswer<'a> {
    organisation: &'a str,
    suspended: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProposalAnswer {
    proposal: String,
    kind: proposal::Kind,
    state: &'static str,
    /// When an approved erasure or change of epoch is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<&'static str>,
}

fn json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(USUAL_DOCUMENT_BYTES);
    serde_json::to_writer(&mut bytes, value).expect("answers have only text, numbers, lists and text maps");
    bytes
}

impl Builder<'_> {
    /// The effect of a permit. Signing and reading bodies happen here, and only with a permit in hand.
    pub async fn permitted(
        &self,
        entry: &Entry<'_>,
        caller: &Participant,
        request: &Request<'_>,
        permit: Permit<'_>,
    ) -> Result<Effect, Refusal> {
        let as_of = schemas::date::rfc3339(entry.now_ms);
        let bound = entry.idempotency.map(|(key, request)| Idempotency { key, request, answer_part: 0 });
        let (concerned, mut keys) = self.living(&permit.concerned)?;
        let mut state = Record { concerned, idempotency: bound, ..Record::default() };
        state.release_ms = entry.release_of(&state.concerned);
        let mut rotates = false;
        let mut private = Private::asked(&request.action);
        let mut sealed_for: Option<Vec<HolderKey>> = None;
        // Before anything is read: a grant or a quota that is spent refuses with as little work as any other cause.
        if let Some((key, limit)) = permit.grant.filter(|(_, limit)| *limit != 0) {
            let refusal = || Refusal::not_permitted(Reason::GrantUsedUp);
            state.counters.push(self.unspent(CounterUse { key, day: 0, amount: 1, limit }, refusal)?);
        }
        if let Some((limit, day)) = permit.quota {
            let key = self.ledger.keyed().key("quota", &[entry.organisation.as_bytes(), b"uses"]);
            let refusal = || Refusal::new(Code::QuotaSpent);
            state.counters.push(self.unspent(CounterUse { key, day, amount: 1, limit }, refusal)?);
        }
        let answer = match permit.granted {
            Granted::Issue { draft, identifier, key, predecessor } => {
                let envelope = self.sign(entry, caller, draft, &identifier.to_string()).await?;
                let (labels, keys) = self.holders(draft, &mut state)?;
                state.licenses.push(LicenseState {
                    key,
                    version: 1,
                    state: Standing::Valid.number(),
                    certificate_version: identifier.version(),
                    valid_from_day: draft.valid_from.days(),
                    valid_until_day: draft.valid_until.map_or(i32::MAX, |day| day.days()),
                    taken_over: false,
                    written_by_04: false,
                    number_tag: facts::number_tag(self.ledger, &draft.type_code, &draft.certificate_number),
                    holders: labels.clone(),
                    body_part: 0,
                });
                if let Some(found) = predecessor {
                    state.licenses.push(LicenseState { taken_over: true, ..next(&found) });
                }
                state.concerned = labels;
                sealed_for = Some(keys);
                let identifier = identifier.to_string();
                let answer = issue_answer(&identifier, &envelope);
                private.envelope = Some(envelope);
                private.identifiers.push(identifier.into());
                answer
            }
            Granted::NewVersion { draft, identifier, found } => {
                let envelope = self.sign(entry, caller, draft, &identifier.to_string()).await?;
                state.licenses.push(LicenseState {
                    state: Standing::Valid.number(),
                    certificate_version: identifier.version(),
                    valid_from_day: draft.valid_from.days(),
                    valid_until_day: draft.valid_until.map_or(i32::MAX, |day| day.days()),
                    written_by_04: false,
                    number_tag: facts::number_tag(self.ledger, &draft.type_code, &draft.certificate_number),
                    body_part: 0,
                    ..next(&found)
                });
                let identifier = identifier.to_string();
                let answer = issue_answer(&identifier, &envelope);
                private.envelope = Some(envelope);
                private.identifiers.push(identifier.into());
                answer
            }
            Granted::State { identifier, found, state: to, by_04 } => {
                let change = LicenseState { state: to.number(), written_by_04: by_04, ..next(&found) };
                state.licenses.push(change);
                json(&StateAnswer { identifier: &identifier.to_string(), state: to.code() })
            }
            Granted::Search { search, licenses, issuer, complete } => {
                let (ledger, now_ms) = (self.ledger.clone(), entry.now_ms);
                let type_code = search.type_code;
                let read = self.lanes.searches.run(*entry.organisation, move || {
                    list(&ledger, &licenses, type_code.as_ref(), issuer.as_ref(), now_ms)
                });
                let (listed, more) = read.await.map_err(Refusal::new)??;
                let truncated = more || !complete;
                private.identifiers = listed.iter().map(|listed| listed.identifier.clone().into()).collect();
                json(&SearchAnswer { licenses: listed, truncated, as_of })
            }
            Granted::Retrieve { retrieve, found } => {
                let envelope = facts::stored_envelope(self.ledger, &found.license)?;
                let (identifier, fields) = match retrieve.mode {
                    Mode::Envelope | Mode::Verify | Mode::Search | Mode::Ended => {
                        (facts::identifier_in(&envelope)?, None)
                    }
                    Mode::Fields | Mode::Face | Mode::Copy => {
                        let all = retrieve.mode != Mode::Fields;
                        let content = facts::content_of(&envelope)?;
                        let wanted = |name: &str| all || retrieve.fields.iter().any(|field| field == name);
                        (content.identifier.to_string(), Some(disclose(&content, wanted)))
                    }
                };
                private.fields = match &fields {
                    Some(fields) => fields.keys().cloned().map(Cow::from).collect(),
                    None => vec![Cow::from("*")],
                };
                private.identifiers = vec![identifier.clone().into()];
                let annotation =
                    (retrieve.mode == Mode::Copy).then(|| annotate(entry, caller, &retrieve.context, &found));
                let answer = RetrieveAnswer {
                    identifier,
                    mode: retrieve.mode.name(),
                    state: state_code(&found.license),
                    in_force: in_force(entry.now_ms, &found.license),
                    fields,
                    envelope: (retrieve.mode == Mode::Envelope).then_some(envelope),
                    annotation,
                    as_of,
                    same_number: several(found.same_number),
                };
                match entry.form {
                    Form::Json => answer.json(),
                    Form::Machine => machine::retrieve_answer(&answer),
                }
            }
            Granted::Verify {
                verify,
                found,
                mut verdict,
                mut reasons,
                state: shown,
                current,
                content,
                license_type,
                mismatches,
            } => {
                let license_type = license_type.as_deref();
                let presented = content.as_ref().map(|content| content.identifier.to_string().into());
                private.identifiers.extend(presented);
                let matches = match (&verify.subject, &found, mismatches) {
                    _ if verify.expect.is_empty() || !current => None,
                    (Subject::Envelope(_), ..) => {
                        content.map(|content| all_match(&content, license_type, &verify.expect))
                    }
                    (Subject::Named(_), Some(found), Some((key, day))) => {
                        match facts::read_content(self.ledger, &found.license) {
                            Err(refusal) if refusal.code == Code::RecordUnavailable => {
                                // What was to match cannot be compared now; what is invalid is so all the same.
                                if verdict == Verdict::Valid {
                                    (verdict, reasons) = (Verdict::Unknown, vec!["record-unavailable"]);
                                }
                                None
                            }
                            read => {
                                let matches = all_match(&read?, license_type, &verify.expect);
                                // Only a license looked up by name can be probed: a failed match is counted, and a good one
                                // commits only while guesses are left, also beside others under way. Whoever holds the
                                // envelope has its fields.
                                let (amount, limit) = if matches.is_some() {
                                    (0, decide::MISMATCHES_A_DAY - 1)
                                } else {
                                    (1, decide::MISMATCHES_A_DAY)
                                };
                                let counter = CounterUse { key, day, amount, limit };
                                let refusal = || Refusal::new(Code::TooManyMismatches);
                                state.counters.push(self.unspent(counter, refusal)?);
                                Some(matches)
                            }
                        }
                    }
                    (Subject::Named(_), ..) => None,
                };
                let (verdict, state) = (verdict_name(verdict), shown.map(Standing::code));
                let mut folded = looked_up_folded(&verify.subject);
                folded.extend(matches.iter().flatten().flatten().cloned());
                let matches = matches.map(|matches| matches.is_some());
                let same_number = found.as_ref().and_then(|found| several(found.same_number));
                match entry.form {
                    Form::Json => {
                        let mut answer = Object::new();
                        answer.text("verdict", verdict);
                        answer.text_if_any("state", state);
                        answer.texts("reasons", &reasons);
                        if let Some(matches) = matches {
                            answer.flag("matches", matches);
                        }
                        if !folded.is_empty() {
                            answer.texts("folded", &folded);
                        }
                        answer.text("asOf", &as_of);
                        if let Some(same_number) = same_number {
                            answer.other("sameNumber", &same_number);
                        }
                        answer.end()
                    }
                    Form::Machine => machine::verify_answer(
                        verdict,
                        state,
                        &reasons,
                        matches,
                        &as_of,
                        same_number,
                        &folded,
                    ),
                }
            }
            Granted::GrantCreate { create, holder, target, fields } => {
                let mut key = [0; 16];
                SystemRandom::new().fill(&mut key).map_err(|_| Refusal::new(Code::Internal))?;
                let id = self.ledger.state().grant_id(&key);
                state.grants.push(GrantState {
                    key,
                    version: 1,
                    state: floor::GRANT_ACTIVE,
                    holder,
                    grantee: *create.grantee.as_bytes(),
                    target,
                    target_is_type: matches!(create.target, GrantTarget::Type(_)),
                    modes: create.modes,
                    fields,
                    item_tag: create
                        .item_code
                        .as_deref()
                        .map_or(0, |code| facts::item_tag(self.ledger, code)),
                    until_ms: create.until_ms,
                    max_uses: create.max_uses,
                    portal: *entry.organisation.as_bytes(),
                });
                private.grant = Some(id);
                json(&GrantAnswer { grant: hex::encode(id), state: "active" })
            }
            Granted::GrantRevoke { revoke, grant } => {
                state.grants.push(GrantState {
                    key: grant.key,
                    version: grant.version + 1,
                    state: floor::GRANT_REVOKED,
                    holder: grant.holder,
                    grantee: grant.grantee,
                    target: grant.target,
                    target_is_type: grant.target_is_type,
                    modes: grant.modes,
                    fields: grant.fields,
                    item_tag: grant.item_tag,
                    until_ms: grant.until_ms,
                    max_uses: grant.max_uses,
                    portal: grant.portal,
                });
                json(&GrantAnswer { grant: hex::encode(revoke.grant), state: "revoked" })
            }
            Granted::Participant { participant, version } => {
                let key = facts::participant_key(self.ledger, &participant.organisation);
                let kind = ledger::DocumentKind::Participant.number();
                state.documents.push(DocumentState { kind, key, version, value: participant.document() });
                json(&ParticipantAnswer {
                    organisation: participant.organisation.as_str(),
                    suspended: participant.suspended,
                })
            }
            Granted::Propose { propose, proposal } => {
                let mut key = [0; 16];
                SystemRandom::new().fill(&mut key).map_err(|_| Refusal::new(Code::Internal))?;
                let kind = ledger::DocumentKind::Proposal.number();
                state.documents.push(DocumentState { kind, key, version: 1, value: proposal.document() });
                json(&ProposalAnswer {
                    proposal: hex::encode(key),
                    kind: propose.what.kind(),
                    state: "open",
                    complete: None,
                })
            }
            Granted::Approve(Approved { id, version, proposal, definition, holder, links }) => {
                let mut document = |kind: ledger::DocumentKind, key, version, value| {
                    state.documents.push(DocumentState { kind: kind.number(), key, version, value });
                };
                document(ledger::DocumentKind::Proposal, id, version, proposal.document());
                let mut complete = None;
                match (proposal.kind, holder) {
                    (proposal::Kind::EraseHolder, Some((label, _))) => {
                        for (key, version, link) in links {
                            let ended = json(&Link { ended: true, ..link });
                            document(ledger::DocumentKind::Link, key, version + 1, ended);
                        }
                        state.erased.push(label);
                        // Nothing personal is in it, and the answer must be found again without the holder's key.
                        sealed_for = Some(Vec::new());
                        complete = Some("after-next-rotation");
                    }
                    (
                        kind @ (proposal::Kind::HoldHolder | proposal::Kind::ReleaseHold),
                        Some((label, hold)),
                    ) => {
                        let hold_now = Hold { held: kind == proposal::Kind::HoldHolder };
                        document(ledger::DocumentKind::Hold, label, hold + 1, json(&hold_now));
                    }
                    (proposal::Kind::RotateEpoch, _) => {
                        rotates = true;
                        complete = Some("after-next-rotation");
                    }
                    (proposal::Kind::RegisterParticipant, _) => {
                        let new =
                            proposal.registration.as_ref().ok_or_else(|| Refusal::new(Code::Internal))?;
                        let key = facts::participant_key(self.ledger, &new.participant.organisation);
                        let value = new.participant.document();
                        document(ledger::DocumentKind::Participant, key, new.version, value);
                    }
                    (proposal::Kind::PublishType, _) => {
                        let new = proposal.publication.as_ref().zip(definition);
                        let (new, value) = new.ok_or_else(|| Refusal::new(Code::Internal))?;
                        let key = facts::type_key(self.ledger, &new.code);
                        document(ledger::DocumentKind::LicenseType, key, new.version, value);
                    }
                    // A proposal about a holder that names none is not written.
                    (_, None) => return Err(Refusal::new(Code::Internal)),
                }
                json(&ProposalAnswer {
                    proposal: hex::encode(id),
                    kind: proposal.kind,
                    state: "approved",
                    complete,
                })
            }
            Granted::Trace { trace, link, delay_days_max } => {
                private.link = link;
                let label = state.concerned.first().copied();
                json(
                    &pages::trace(
                        &self.lanes.pages,
                        *entry.organisation,
                        self.cosigning,
                        label,
                        trace.before,
                        trace.limit,
                        delay_days_max,
                    )
                    .await?,
                )
            }
            Granted::LogQuery { query, holder } => {
                let lane = &self.lanes.pages;
                let (page, concerned, release_ms) =
                    pages::audit(lane, *entry.organisation, self.cosigning, query, holder).await?;
                // Nobody tells the erased.
                (state.concerned, keys) = self.living(&concerned)?;
                state.release_ms = if state.concerned.is_empty() { 0 } else { release_ms };
                json(&page)
            }
            Granted::List { list, paging } => {
                let (page, shown) = lists::page(
                    &self.lanes.searches,
                    *entry.organisation,
                    self.ledger,
                    list,
                    paging,
                    entry.now_ms,
                )
                .await?;
                if matches!(list, List::GrantsTo { .. }) {
                    private.apart = true;
                    (state.concerned, keys) = self.living(&shown)?;
                }
                json(&page)
            }
            Granted::LinkMake { key, version, make, holder } => {
                let agent = self.known_or_new(&make.agent, &mut state)?;
                let link = Link {
                    holder: PageLabel(holder),
                    agent: PageLabel(agent.label),
                    kind: make.kind,
                    until_ms: make.until_ms,
                    ended: false,
                };
                if !state.concerned.contains(&agent.label) {
                    state.concerned.push(agent.label);
                    keys.push(agent);
                }
                link_document(&mut state, key, version, &link)
            }
            Granted::LinkEnd { key, version, link } => link_document(&mut state, key, version, &link),
        };
        let labels = Labels::new(if permit.names_holder { state.concerned.clone() } else { Vec::new() });
        let keys = sealed_for.unwrap_or(keys);
        let status = entry.route.success_status();
        let (prepared, request_salt) =
            self.prepare(entry, Decision::Permit, Code::Ok, labels, state, &private, &keys, &answer);
        Ok(Effect { status, code: Code::Ok, prepared, answer, rotates, request_salt })
    }

    /// The effect of a denial: a problem document and an entry, nothing else.
    pub fn denied(
        &self,
        entry: &Entry<'_>,
        action: Option<&Action<'_>>,
        denial: &Denial,
    ) -> Result<Effect, Refusal> {
        let refusal = &denial.refusal;
        let answer = refusal.problem(entry.language);
        let (concerned, keys) = self.living(&denial.concerned)?;
        let release_ms = entry.release_of(&concerned);
        let state = Record { reason: refusal.reason.number(), concerned, release_ms, ..Record::default() };
        let private = action.map(Private::asked).unwrap_or_default();
        // No labels in `open`: a denial shows the caller nothing, whatever its cause.
        let labels = Labels::List(Vec::new());
        let (prepared, request_salt) =
            self.prepare(entry, Decision::Denial, refusal.code, labels, state, &private, &keys, &answer);
        let (status, code) = (refusal.code.status(), refusal.code);
        Ok(Effect { status, code, prepared, answer, rotates: false, request_salt })
    }

    /// A counter that has room by now. The sequencer looks again when it commits: one that is spent by then has the request
    /// decided anew, which ends here (decision 0014).
    fn unspent(&self, counter: CounterUse, refusal: impl FnOnce() -> Refusal) -> Result<CounterUse, Refusal> {
        let used = self.ledger.state().counter(&counter.key, counter.day);
        if used.saturating_add(counter.amount) > counter.limit { Err(refusal()) } else { Ok(counter) }
    }

    async fn sign(
        &self,
        entry: &Entry<'_>,
        caller: &Participant,
        draft: &Draft,
        identifier: &str,
    ) -> Result<Vec<u8>, Refusal> {
        let internal = || Refusal::new(Code::Internal);
        let mut nonce = [0; 16];
        SystemRandom::new().fill(&mut nonce).map_err(|_| internal())?;
        let issued_at = entry.now_ms / 1_000;
        let content = LicenseContent {
            identifier: Refusal::parse(identifier)?,
            certificate_number: draft.certificate_number.clone(),
            issuer_name: caller.name.clone(),
            holders: draft
                .holders
                .iter()
                .map(|(name, holder)| BodyHolder {
                    name: name.clone(),
                    type_code: holder.type_code().as_str().to_owned(),
                    number: holder.number().to_owned(),
                    as_registered: holder.is_as_registered(),
                })
                .collect(),
            issue_date: draft.issue_date,
            valid_from: draft.valid_from,
            valid_until: draft.valid_until,
            issued_at,
            fields: draft.fields.clone(),
        };
        let body = envelope::encode_body(&content, &nonce);
        let signers = self.signers.get();
        let signatures = signers.sign(&caller.organisation, &draft.type_code, &body, issued_at).await?;
        Ok(envelope::encode_envelope(&body, &signatures))
    }

    /// Labels and keys of a license's holders; who appears for the first time gets both here.
    fn holders(&self, draft: &Draft, state: &mut Record) -> Result<(Vec<Label>, Vec<HolderKey>), Refusal> {
        let mut labels = Vec::new();
        let mut keys = Vec::new();
        for (_, holder) in &draft.holders {
            let holder_key = self.known_or_new(holder, state)?;
            labels.push(holder_key.label);
            keys.push(holder_key);
        }
        Ok((labels, keys))
    }

    /// A person's key; who is named for the first time gets it here, with a label.
    fn known_or_new(&self, person: &HolderRef, state: &mut Record) -> Result<HolderKey, Refusal> {
        let internal = || Refusal::new(Code::Internal);
        let key = facts::holder_key(self.ledger, person);
        if let Some(known) = self.ledger.state().holder(&key) {
            return self.ledger.state().holder_key(&known.label).ok_or_else(internal);
        }
        let new = self.ledger.new_holder(key);
        let wrapped = new.wrapped.as_slice().try_into().map_err(|_| internal())?;
        state.new_holders.push(NewHolder { key, label: new.label, epoch: new.epoch, wrapped });
        Ok(new.holder_key)
    }

    /// Those of known holders who are not erased, and their keys: an entry concerns the living. A living holder without
    /// a key is a fault: its data is never sealed under another key instead.
    fn living(&self, labels: &[Label]) -> Result<(Vec<Label>, Vec<HolderKey>), Refusal> {
        let state = self.ledger.state();
        let mut living = (Vec::with_capacity(labels.len()), Vec::with_capacity(labels.len()));
        for label in labels {
            match state.holder_key(label) {
                Some(key) => {
                    living.0.push(*label);
                    living.1.push(key);
                }
                None if state.holder_by_label(label).is_some_and(|holder| holder.erased) => {}
                None => return Err(Refusal::new(Code::Internal)),
            }
        }
        Ok(living)
    }

    #[expect(clippy::too_many_arguments, reason = "one call site each for permits and denials")]
    fn prepare(
        &self,
        entry: &Entry<'_>,
        decision: Decision,
        code: Code,
        labels: Labels,
        state: Record,
        private: &Private<'_>,
        keys: &[HolderKey],
        answer: &[u8],
    ) -> (Prepared, Hash) {
        // What the key of a new version is bound to follows from its envelope.
        let is_bound = state.idempotency.is_some() && private.envelope.is_none();
        let salt = self.ledger.random();
        let document = self.told(entry, private, &state.concerned);
        let user_name = private.context.map(|context| &*context.user_name);
        let text = Text {
            told: &document,
            user_name: user_name.or(private.audit.map(|(_, user_name)| user_name)),
            envelope: private.envelope.as_deref(),
            detail: &self.detail(private, &state.concerned),
            answer: is_bound.then_some(answer),
        };
        let apart = private.apart || private.audit.is_some();
        let Sealed { told, subjects } = if apart && !keys.is_empty() {
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
            answer_digest: sha256(answer),
            policy: *self.policy,
            subject_digest: *subjects.digest(),
            labels,
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
    pub fn release(&self, due: &ledger::Delayed) -> Result<Prepared, Refusal> {
        let (concerned, keys) = self.living(&due.holders)?;
        let released = vec![due.index];
        let document = json(&ToldRelease { released: &released });
        let text = Text { told: &document, ..Text::default() };
        let sealed = self.seal_each(&keys, &text);
        let record = Record { concerned, released, ..Record::default() };
        Ok(system_with(self.policy, &record, sealed))
    }

    /// Labels of those whom the request names and the entry does not concern, and the caller's reason.
    fn detail(&self, private: &Private<'_>, concerned: &[Label]) -> String {
        let named = private.persons.iter().filter_map(|(what, person)| {
            let label = self.label(person).filter(|label| !concerned.contains(label))?;
            Some(format!("{what} {}", hex::encode(label)))
        });
        let reason = Some(private.reason.to_owned()).filter(|reason| !reason.is_empty());
        named.chain(reason).collect::<Vec<_>>().join("; ")
    }

    /// The label of a person whom the log knows.
    fn label(&self, person: &HolderRef) -> Option<Label> {
        let known = self.ledger.state().holder(&facts::holder_key(self.ledger, person));
        known.map(|holder| holder.label)
    }

    /// What a holder is told of an entry (section 4 of the formats), beside what stands in `open`: organisation, time,
    /// route, decision.
    fn told(&self, entry: &Entry<'_>, private: &Private<'_>, concerned: &[Label]) -> Vec<u8> {
        let mut told = Object::new();
        if !private.identifiers.is_empty() {
            told.texts("licenses", &private.identifiers);
        }
        if let Some((type_code, number, holder)) = &private.number {
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
        told.text_if_any("mode", private.mode);
        if !private.fields.is_empty() {
            told.texts("fields", &private.fields);
        }
        if let Some(grant) = &private.grant {
            told.hex("grant", grant);
        }
        told.text_if_any("link", private.link.map(LinkKind::name));
        if let Some((purpose, user_name)) = private.audit {
            told.object("audit", |audit| {
                audit.hex("user", &self.pseudonym(entry, user_name));
                audit.text("purpose", purpose);
            });
        }
        if let Some(context) = private.context {
            told.object("use", |used| {
                used.hex("user", &self.pseudonym(entry, &context.user_name));
                used.text("itemCode", &context.item_code);
                used.text("itemName", &context.item_name);
                used.text("businessCode", &context.business_code);
                used.text("cause", &context.cause);
                used.text("stage", &context.stage);
            });
        }
        told.end()
    }

    /// A user's pseudonym: the same person at the same organisation has the same one.
    fn pseudonym(&self, entry: &Entry<'_>, user_name: &str) -> [u8; 8] {
        let parts = [entry.organisation.as_bytes(), user_name.as_bytes()];
        self.ledger.keyed().tag("user", &parts).to_be_bytes()
    }
}

/// What the holder is told of a release: the delayed uses, by index.
#[derive(Serialize)]
struct ToldRelease<'a> {
    released: &'a [u64],
}

impl Entry<'_> {
    /// The release moment of an entry that concerns these holders: what concerns nobody is kept from nobody.
    fn release_of(&self, concerned: &[Label]) -> u64 {
        if concerned.is_empty() { 0 } else { self.release_ms }
    }
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
                .map(|(kind, key, value)| DocumentState { kind: kind.number(), key, version: 1, value })
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
        index: 0,
        time_ms: 0,
        organisation: [0; 18],
        request_digest: [0; 32],
        answer_digest: [0; 32],
        policy: *policy,
        subject_digest: *subjects.digest(),
        labels: Labels::List(Vec::new()),
    };
    Prepared { kind: LeafKind::Entry, open: open.encode(), record: record.clone(), told, subjects }
}

/// What a search lists of licenses, and whether there are more than it may list. Blocks for a read of each.
fn list(
    ledger: &Ledger,
    licenses: &[Found],
    type_code: Option<&LicenseTypeCode>,
    issuer: Option<&Uscc>,
    now_ms: u64,
) -> Result<(Vec<Listed>, bool), Refusal> {
    let mut listed = Vec::new();
    for found in licenses {
        if listed.len() == MAX_LISTED {
            return Ok((listed, true));
        }
        let content = facts::read_content(ledger, &found.license)?;
        let identifier = &content.identifier;
        let wanted_type = type_code.is_none_or(|code| *code == identifier.type_code());
        let own = issuer.is_none() || identifier.issuer().uscc().as_ref() == issuer;
        if !wanted_type || !own {
            continue;
        }
        listed.push(Listed {
            identifier: identifier.to_string(),
            certificate_number: content.certificate_number,
            issuer_name: content.issuer_name,
            state: state_code(&found.license),
            in_force: in_force(now_ms, &found.license),
            valid_from: content.valid_from.to_string(),
            valid_until: content.valid_until.map(|day| day.to_string()),
        });
    }
    Ok((listed, false))
}

pub(crate) fn state_code(license: &License) -> &'static str {
    Standing::from_number(license.state).unwrap_or(Standing::Other).code()
}

/// Which license an answer of a retrieval discloses, and whether it says that the license is in force.
pub(crate) fn disclosed_standing(form: Form, answer: &[u8]) -> Option<(String, bool)> {
    match form {
        Form::Json => {
            let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
            Some((answer["identifier"].as_str()?.to_owned(), answer["inForce"].as_bool()?))
        }
        Form::Machine => {
            let answer = flatbuffers::root::<schemas::machine::RetrieveAnswer<'_>>(answer).ok()?;
            Some((answer.identifier().to_owned(), answer.in_force()))
        }
    }
}

/// How many licenses have the number looked up, where that is worth saying.
fn several(same_number: u32) -> Option<u32> {
    (same_number > 1).then_some(same_number)
}

/// Whether the license is valid now: state 01 and within its days.
pub(crate) fn in_force(now_ms: u64, license: &License) -> bool {
    let today = Date::at(i64::try_from(now_ms / 1_000).unwrap_or(i64::MAX)).days();
    let days = license.valid_from_day..=license.valid_until_day;
    license.state == Standing::Valid.number() && days.contains(&today)
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Valid => "valid",
        Verdict::Invalid => "invalid",
        Verdict::Unknown => "unknown",
    }
}

/// Every fact of a license's face by field name.
fn face(content: &LicenseContent) -> Vec<(String, String)> {
    let join =
        |part: fn(&BodyHolder) -> &str| content.holders.iter().map(part).collect::<Vec<_>>().join("、");
    let mut face = vec![
        ("certificateNumber".to_owned(), content.certificate_number.clone()),
        ("holderName".to_owned(), join(|holder| &holder.name)),
        ("holderNumber".to_owned(), join(|holder| &holder.number)),
        ("issueDate".to_owned(), content.issue_date.to_string()),
        ("validFrom".to_owned(), content.valid_from.to_string()),
        ("issuerName".to_owned(), content.issuer_name.clone()),
    ];
    face.extend(content.valid_until.map(|day| ("validUntil".to_owned(), day.to_string())));
    face.extend(content.fields.iter().cloned());
    face
}

fn disclose(content: &LicenseContent, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    face(content).into_iter().filter(|(name, _)| wanted(name)).collect()
}

/// One answer for all expected facts, so that a caller learns nothing about a single one: pointers to those that are equal
/// only in the form in which their kind is compared, or `None` if one is another.
fn all_match(
    content: &LicenseContent,
    license_type: Option<&LicenseType>,
    expect: &[(String, String)],
) -> Option<Vec<String>> {
    let face = face(content);
    let mut folded = Vec::new();
    for (name, value) in expect {
        let (_, is) = face.iter().find(|(have, _)| have == name)?;
        if is == value {
            continue;
        }
        let comparison = license_type?.comparison(name);
        if text::fold(comparison, is) != text::fold(comparison, value) {
            return None;
        }
        folded.push(format!("/expect/{name}"));
    }
    Some(folded)
}

/// The pointer to a certificate number that was looked up in another form than it was sent in.
fn looked_up_folded(subject: &Subject<'_>) -> Vec<String> {
    match subject {
        Subject::Named(Named::Number { certificate_number: number, .. })
            if text::fold(Comparison::Number, number) != *number =>
        {
            vec!["/license/certificateNumber".to_owned()]
        }
        _ => Vec::new(),
    }
}

/// What marks a copy. One of a license that is not in force says so where everybody looks, with the day it is said of.
fn annotate<'a>(
    entry: &Entry<'_>,
    caller: &'a Participant,
    context: &'a UseContext<'_>,
    found: &Found,
) -> Annotation<'a> {
    let in_force = in_force(entry.now_ms, &found.license);
    let used = format!("仅供{}办理{}使用", caller.name, context.item_name);
    let watermark = if in_force {
        used
    } else {
        let today = Date::at(i64::try_from(entry.now_ms / 1_000).unwrap_or(i64::MAX));
        let license = &found.license;
        let why = match Standing::from_number(license.state).unwrap_or(Standing::Other) {
            Standing::Valid if today.days() < license.valid_from_day => "尚未生效",
            Standing::Valid => "有效期已届满",
            other => other.name(),
        };
        format!("本证照截至{today}不在有效状态（{why}），不得作为有效证照使用；{used}")
    };
    Annotation {
        creator: caller.organisation.as_str(),
        creator_name: &caller.name,
        cause: &context.cause,
        item_name: &context.item_name,
        business_code: &context.business_code,
        created_at: schemas::date::rfc3339(entry.now_ms),
        expires_at: in_force.then(|| schemas::date::rfc3339(entry.now_ms + COPY_SECONDS * 1_000)),
        watermark,
    }
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

/// Writes a link; the answer.
fn link_document(state: &mut Record, key: Key, version: u32, link: &Link) -> Vec<u8> {
    let kind = ledger::DocumentKind::Link.number();
    state.documents.push(DocumentState { kind, key, version, value: json(link) });
    json(&LinkAnswer {
        link: if link.ended { "ended" } else { "active" },
        kind: link.kind.name(),
        until: schemas::date::rfc3339(link.until_ms),
    })
}

/// What a subject part holds.
#[derive(Default)]
struct Text<'a> {
    told: &'a [u8],
    user_name: Option<&'a str>,
    envelope: Option<&'a [u8]>,
    detail: &'a str,
    answer: Option<&'a [u8]>,
}

/// The subject parts of an entry, and what they commit it to.
struct Sealed {
    /// For each holder concerned the digest of what the holder is told.
    told: Vec<Hash>,
    subjects: Subjects,
}

/// What `seal` makes of the finished buffer of a `SubjectRecord`. The buffer is overwritten when it is sealed.
fn with_subject_record<T>(text: &Text<'_>, told_salt: &Hash, seal: impl FnOnce(&[u8]) -> T) -> T {
    PLAINTEXT.with_borrow_mut(|builder| {
        // Of a seal that panicked something may be left.
        builder.reset();
        let told = Some(builder.create_vector(text.told));
        let told_salt = Some(builder.create_vector(told_salt));
        let user_name = text.user_name.map(|name| builder.create_string(name));
        let envelope = text.envelope.map(|bytes| builder.create_vector(bytes));
        let answer = text.answer.map(|bytes| builder.create_vector(bytes));
        let detail = (!text.detail.is_empty()).then(|| builder.create_string(text.detail));
        let args = fb::SubjectRecordArgs { told, told_salt, user_name, envelope, answer, detail };
        let record = fb::SubjectRecord::create(builder, &args);
        builder.finish(record, None);
        let sealed = seal(builder.finished_data());
        builder.reset();
        sealed
    })
}
