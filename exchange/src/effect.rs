//! Step 6 of the request path: from a [`Permit`] or a [`Denial`] to the exact answer bytes and the exact change of
//! state, ready to be committed together.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flatbuffers::FlatBufferBuilder;
use ledger::record::{
    CounterUse, DocumentState, GrantState, Idempotency, LicenseState, NO_BODY_PART, NewHolder, Record, Shed,
};
use ledger::{HolderKey, Key, Label, Ledger, Prepared};
use ring::rand::{SecureRandom, SystemRandom};
use schemas::codes::{Code, Decision, Reason};
use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use schemas::journal as fb;
use schemas::routes::Route;
use schemas::state::LicenseState as Standing;
use serde::Serialize;
use verifier::leaf::{Labels, Open};
use verifier::license::{BodyHolder, LicenseContent};
use verifier::report::Verdict;
use verifier::{Hash, license as envelope};

use crate::decide::{self, Denial, Granted, Permit};
use crate::facts::{self, Found};
use crate::floor;
use crate::participant::Participant;
use crate::refusal::Refusal;
use crate::request::{Action, Draft, GrantTarget, Mode, Named, Request, Subject, UseContext};
use crate::signer::Signers;

/// How long an annotated copy (加注件) may be used, seconds.
const COPY_SECONDS: u64 = 30 * 24 * 3_600;
/// Most labels in `open` before their digest takes their place.
const MAX_OPEN_LABELS: usize = 4;
/// Most licenses one search answer lists.
const MAX_LISTED: usize = 100;

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
    /// Committed instead when a counter is spent by then.
    pub spent: Option<(Code, Prepared, Vec<u8>)>,
}

/// Who asks and what was received, as an entry records it.
pub struct Entry<'a> {
    /// Route.
    pub route: Route,
    /// Organisation of the certificate.
    pub organisation: &'a Uscc,
    /// Request digest; zeros when the body was not read to its end.
    pub request_digest: Hash,
    /// Bound when the permit commits: key and keyed hash of the request.
    pub idempotency: Option<(Key, Key)>,
    /// Now, ms since 1970.
    pub now_ms: u64,
}

/// What builds effects.
pub struct Builder<'a> {
    /// The ledger.
    pub ledger: &'a Ledger,
    /// Signing queues.
    pub signers: &'a Signers,
    /// Hash of the policy in force.
    pub policy: &'a Hash,
}

/// What the subject part of an entry says.
#[derive(Default)]
struct Private<'a> {
    identifiers: Vec<String>,
    holder: Option<&'a HolderRef>,
    context: Option<&'a UseContext>,
    grant: Option<Key>,
    fields: Vec<String>,
    envelope: Option<Vec<u8>>,
    detail: &'a str,
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
struct IssueAnswer<'a> {
    identifier: &'a str,
    state: &'a str,
    envelope: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StateAnswer<'a> {
    identifier: &'a str,
    state: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VerifyAnswer<'a> {
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
    reasons: &'a [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    matches: Option<bool>,
    as_of: String,
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
    valid_from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RetrieveAnswer<'a> {
    identifier: String,
    mode: &'static str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    envelope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotation: Option<Annotation<'a>>,
    as_of: String,
}

/// 加注: who had the copy made, for what, and until when it may be used.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Annotation<'a> {
    creator: &'a str,
    creator_name: &'a str,
    cause: &'a str,
    item_name: &'a str,
    business_code: &'a str,
    created_at: String,
    expires_at: String,
    watermark: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GrantAnswer {
    grant: String,
    state: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ParticipantAnswer<'a> {
    organisation: &'a str,
    suspended: bool,
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("answers have only text, numbers, lists and text maps")
}

impl Builder<'_> {
    /// The effect of a permit. Signing and reading bodies happen here, and only with a permit in hand.
    pub async fn permitted(
        &self,
        entry: &Entry<'_>,
        caller: &Participant,
        request: &Request,
        permit: Permit<'_>,
    ) -> Result<Effect, Refusal> {
        let as_of = schemas::date::rfc3339(entry.now_ms);
        let bound = entry.idempotency.map(|(key, request)| Idempotency { key, request, answer_part: 0 });
        let mut state = Record { concerned: permit.concerned, idempotency: bound, ..Record::default() };
        let mut private = Private { context: use_context(&request.action), ..Private::default() };
        let mut sealed_for: Option<Vec<HolderKey>> = None;
        let mut status = 200;
        let mut spent = Code::QuotaSpent;
        let answer = match permit.granted {
            Granted::Issue { draft, identifier, key, predecessor } => {
                status = if request_is_issue(&request.action) { 201 } else { 200 };
                let (envelope, text) = self.sign(entry, caller, draft, &identifier.to_string()).await?;
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
                private.envelope = Some(envelope);
                let identifier = identifier.to_string();
                let answer = json(&IssueAnswer { identifier: &identifier, state: "01", envelope: &text });
                private.identifiers.push(identifier);
                answer
            }
            Granted::NewVersion { draft, identifier, found } => {
                let (envelope, text) = self.sign(entry, caller, draft, &identifier.to_string()).await?;
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
                private.envelope = Some(envelope);
                let identifier = identifier.to_string();
                let answer = json(&IssueAnswer { identifier: &identifier, state: "01", envelope: &text });
                private.identifiers.push(identifier);
                answer
            }
            Granted::State { identifier, found, state: to, by_04, reason } => {
                let change = LicenseState { state: to.number(), written_by_04: by_04, ..next(&found) };
                state.licenses.push(change);
                private.detail = reason;
                let identifier = identifier.to_string();
                let answer = json(&StateAnswer { identifier: &identifier, state: to.code() });
                private.identifiers.push(identifier);
                answer
            }
            Granted::Search { search, licenses, issuer } => {
                private.holder = Some(&search.holder);
                let mut listed = Vec::new();
                let mut truncated = false;
                for found in licenses {
                    let (_, content) = facts::read_envelope(self.ledger, &found.license)?;
                    let identifier = &content.identifier;
                    let wanted_type =
                        search.type_code.as_ref().is_none_or(|code| *code == identifier.type_code());
                    let own = issuer.is_none() || identifier.issuer().uscc() == issuer;
                    if !wanted_type || !own {
                        continue;
                    }
                    if listed.len() == MAX_LISTED {
                        truncated = true;
                        break;
                    }
                    listed.push(Listed {
                        identifier: identifier.to_string(),
                        certificate_number: content.certificate_number,
                        issuer_name: content.issuer_name,
                        state: state_code(&found),
                        valid_from: content.valid_from.to_string(),
                        valid_until: content.valid_until.map(|day| day.to_string()),
                    });
                }
                private.identifiers = listed.iter().map(|listed| listed.identifier.clone()).collect();
                json(&SearchAnswer { licenses: listed, truncated, as_of })
            }
            Granted::Retrieve { retrieve, found } => {
                let (envelope, content) = facts::read_envelope(self.ledger, &found.license)?;
                if let Named::Number { holder, .. } = &retrieve.license {
                    private.holder = Some(holder);
                }
                let identifier = content.identifier.to_string();
                let whole_face = matches!(retrieve.mode, Mode::Face | Mode::Copy);
                let fields = match retrieve.mode {
                    Mode::Fields => {
                        Some(disclose(&content, |name| retrieve.fields.iter().any(|f| f == name)))
                    }
                    Mode::Face | Mode::Copy => Some(disclose(&content, |_| true)),
                    Mode::Envelope | Mode::Verify | Mode::Search => None,
                };
                private.fields = match &fields {
                    Some(fields) => fields.keys().cloned().collect(),
                    None => vec!["*".to_owned()],
                };
                private.identifiers.push(identifier.clone());
                let annotation =
                    (retrieve.mode == Mode::Copy).then(|| annotate(entry, caller, &retrieve.context));
                json(&RetrieveAnswer {
                    identifier,
                    mode: match retrieve.mode {
                        Mode::Fields => "fields",
                        Mode::Envelope => "envelope",
                        _ if whole_face && annotation.is_some() => "copy",
                        _ => "face",
                    },
                    state: state_code(&found),
                    fields,
                    envelope: (retrieve.mode == Mode::Envelope).then(|| BASE64.encode(&envelope)),
                    annotation,
                    as_of,
                })
            }
            Granted::Verify { verify, found, verdict, reasons, state: shown } => {
                let matches = match (&verify.subject, &found, verify.expect.is_empty()) {
                    (_, _, true) | (Subject::Named(_), None, false) => None,
                    (Subject::Envelope(bytes), _, false) => {
                        content_of(bytes).map(|c| all_match(&c, &verify.expect))
                    }
                    (Subject::Named(_), Some(found), false) => {
                        let (_, content) = facts::read_envelope(self.ledger, &found.license)?;
                        Some(all_match(&content, &verify.expect))
                    }
                };
                // Only a license looked up by name can be probed; whoever holds the envelope has its fields.
                if let (Some(false), Some(found), Subject::Named(_)) = (matches, &found, &verify.subject) {
                    let key = decide::mismatch_key(self.ledger, caller, &found.key);
                    let limit = decide::MISMATCHES_A_DAY;
                    state.counters.push(CounterUse { key, day: decide::day(entry.now_ms), amount: 1, limit });
                    spent = Code::TooManyMismatches;
                }
                private.fields = verify.expect.iter().map(|(name, _)| name.clone()).collect();
                match &verify.subject {
                    Subject::Named(Named::Identifier(identifier)) => {
                        private.identifiers.push(identifier.to_string())
                    }
                    Subject::Named(Named::Number { holder, .. }) => private.holder = Some(holder),
                    Subject::Envelope(bytes) => {
                        private
                            .identifiers
                            .extend(content_of(bytes).map(|content| content.identifier.to_string()));
                    }
                }
                json(&VerifyAnswer {
                    verdict: verdict_name(verdict),
                    state: shown.map(Standing::code),
                    reasons: &reasons,
                    matches,
                    as_of,
                })
            }
            Granted::GrantCreate { create, holder, target, fields } => {
                status = 201;
                let mut key = [0; 16];
                SystemRandom::new().fill(&mut key).map_err(|_| Refusal::new(Code::Internal))?;
                let (target_is_type, identifier) = match &create.target {
                    GrantTarget::License(identifier) => (false, Some(identifier.to_string())),
                    GrantTarget::Type(_) => (true, None),
                };
                state.grants.push(GrantState {
                    key,
                    version: 1,
                    state: floor::GRANT_ACTIVE,
                    holder,
                    grantee: *create.grantee.as_bytes(),
                    target,
                    target_is_type,
                    modes: create.modes,
                    fields,
                    item_tag: create
                        .item_code
                        .as_deref()
                        .map_or(0, |code| facts::item_tag(self.ledger, code)),
                    until_ms: create.until_ms,
                    max_uses: create.max_uses,
                });
                private.grant = Some(key);
                private.holder = Some(&create.holder);
                private.identifiers.extend(identifier);
                json(&GrantAnswer { grant: hex::encode(key), state: "active" })
            }
            Granted::GrantRevoke { revoke, grant } => {
                state.grants.push(GrantState {
                    key: revoke.grant,
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
                });
                private.grant = Some(revoke.grant);
                private.holder = Some(&revoke.holder);
                private.detail = &revoke.reason;
                json(&GrantAnswer { grant: hex::encode(revoke.grant), state: "revoked" })
            }
            Granted::Participant { participant, version, new, reason } => {
                status = if new { 201 } else { 200 };
                let key = facts::participant_key(self.ledger, &participant.organisation);
                let kind = ledger::DocumentKind::Participant.number();
                state.documents.push(DocumentState { kind, key, version, value: participant.document() });
                private.detail = reason;
                json(&ParticipantAnswer {
                    organisation: participant.organisation.as_str(),
                    suspended: participant.suspended,
                })
            }
        };
        if let Some((grant, limit)) = permit.grant {
            private.grant = Some(grant);
            if limit != 0 {
                state.counters.push(CounterUse { key: grant, day: 0, amount: 1, limit });
                spent = Code::NotPermitted;
            }
        }
        if let Some(limit) = permit.quota {
            let key = self.ledger.keyed().key("quota", &[entry.organisation.as_bytes(), b"uses"]);
            state.counters.push(CounterUse { key, day: decide::day(entry.now_ms), amount: 1, limit });
        }
        let labels = if permit.names_holder { state.concerned.as_slice() } else { &[] };
        let keys = sealed_for.unwrap_or_else(|| self.keys_of(&state.concerned));
        let spent = (!state.counters.is_empty()).then(|| {
            let refusal = match spent {
                Code::NotPermitted => Refusal::not_permitted(Reason::GrantUsedUp),
                other => Refusal::new(other),
            };
            let denial = Denial { refusal, concerned: state.concerned.clone() };
            let effect = self.denied(entry, Some(&request.action), &denial);
            (spent, effect.prepared, effect.answer)
        });
        let prepared =
            self.prepare(entry, Decision::Permit, Code::Ok, labels, &state, &private, &keys, &answer);
        Ok(Effect { status, code: Code::Ok, prepared, answer, spent })
    }

    /// The effect of a denial: a problem document and an entry, nothing else.
    pub fn denied(&self, entry: &Entry<'_>, action: Option<&Action>, denial: &Denial) -> Effect {
        let refusal = &denial.refusal;
        let answer = refusal.problem();
        let state = Record {
            reason: refusal.reason.number(),
            concerned: denial.concerned.clone(),
            ..Record::default()
        };
        let mut private = Private { context: action.and_then(use_context), ..Private::default() };
        if let Some(action) = action {
            (private.identifiers, private.holder) = named_in(action);
        }
        let keys = self.keys_of(&state.concerned);
        // No labels in `open`: a denial shows the caller nothing, whatever its cause.
        let prepared =
            self.prepare(entry, Decision::Denial, refusal.code, &[], &state, &private, &keys, &answer);
        Effect { status: refusal.code.status(), code: refusal.code, prepared, answer, spent: None }
    }

    async fn sign(
        &self,
        entry: &Entry<'_>,
        caller: &Participant,
        draft: &Draft,
        identifier: &str,
    ) -> Result<(Vec<u8>, String), Refusal> {
        let internal = || Refusal::new(Code::Internal);
        let mut nonce = [0; 16];
        SystemRandom::new().fill(&mut nonce).map_err(|_| internal())?;
        let issued_at = entry.now_ms / 1_000;
        let content = LicenseContent {
            identifier: identifier.parse().map_err(Refusal::identifier)?,
            certificate_number: draft.certificate_number.clone(),
            issuer_name: caller.name.clone(),
            holders: draft
                .holders
                .iter()
                .map(|(name, holder)| BodyHolder {
                    name: name.clone(),
                    type_code: holder.type_code().as_str().to_owned(),
                    number: holder.number().to_owned(),
                })
                .collect(),
            issue_date: draft.issue_date,
            valid_from: draft.valid_from,
            valid_until: draft.valid_until,
            issued_at,
            fields: draft.fields.clone(),
        };
        let body = envelope::encode_body(&content, &nonce);
        let signatures = self.signers.sign(&caller.organisation, &body, issued_at).await?;
        let envelope = envelope::encode_envelope(&body, &signatures);
        let text = BASE64.encode(&envelope);
        Ok((envelope, text))
    }

    /// Labels and keys of a license's holders; who appears for the first time gets both here.
    fn holders(&self, draft: &Draft, state: &mut Record) -> Result<(Vec<Label>, Vec<HolderKey>), Refusal> {
        let mut labels = Vec::new();
        let mut keys = Vec::new();
        for (_, holder) in &draft.holders {
            let key = facts::holder_key(self.ledger, holder);
            let known =
                self.ledger.state().holder(&key).and_then(|h| self.ledger.state().holder_key(&h.label));
            let holder_key = match known {
                Some(known) => known,
                None => {
                    let new = self.ledger.new_holder(key);
                    state.new_holders.push(NewHolder {
                        key,
                        label: new.label,
                        epoch: new.epoch,
                        wrapped: new
                            .wrapped
                            .as_slice()
                            .try_into()
                            .map_err(|_| Refusal::new(Code::Internal))?,
                    });
                    new.holder_key
                }
            };
            labels.push(holder_key.label);
            keys.push(holder_key);
        }
        Ok((labels, keys))
    }

    fn keys_of(&self, labels: &[Label]) -> Vec<HolderKey> {
        labels.iter().filter_map(|label| self.ledger.state().holder_key(label)).collect()
    }

    #[expect(clippy::too_many_arguments, reason = "one call site each for permits and denials")]
    fn prepare(
        &self,
        entry: &Entry<'_>,
        decision: Decision,
        code: Code,
        labels: &[Label],
        state: &Record,
        private: &Private<'_>,
        keys: &[HolderKey],
        answer: &[u8],
    ) -> Prepared {
        let bound_answer = state.idempotency.is_some().then_some(answer);
        let subject = self.ledger.seal_subject(0, keys, &subject_record(private, bound_answer));
        let subject_digest = sha256(&subject);
        let labels = if labels.len() <= MAX_OPEN_LABELS {
            Labels::List(labels.to_vec())
        } else {
            Labels::Digest(sha256(&labels.concat()))
        };
        let open = Open {
            route: entry.route.number(),
            decision: decision.number(),
            code: code.number(),
            index: 0,
            time_ms: 0,
            organisation: *entry.organisation.as_bytes(),
            request_digest: entry.request_digest,
            answer_digest: sha256(answer),
            policy: *self.policy,
            subject_digest,
            labels,
        };
        Prepared { open: open.encode(), record: state.encode(), subjects: vec![subject], subject_digest }
    }
}

/// An entry of the exchange itself, without a caller: a document, or counts of what was shed.
pub fn system(
    policy: &Hash,
    document: Option<(ledger::DocumentKind, Key, u32, Vec<u8>)>,
    shed: &[(String, Code, u64)],
) -> Prepared {
    let record = Record {
        documents: document
            .into_iter()
            .map(|(kind, key, version, value)| DocumentState { kind: kind.number(), key, version, value })
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
    };
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
        subject_digest: sha256(&[]),
        labels: Labels::List(Vec::new()),
    };
    Prepared {
        open: open.encode(),
        record: record.encode(),
        subjects: Vec::new(),
        subject_digest: sha256(&[]),
    }
}

fn request_is_issue(action: &Action) -> bool {
    matches!(action, Action::Issue(_))
}

fn state_code(found: &Found) -> &'static str {
    Standing::from_number(found.license.state).unwrap_or(Standing::Other).code()
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Valid => "valid",
        Verdict::Invalid => "invalid",
        Verdict::Unknown => "unknown",
    }
}

fn content_of(envelope: &[u8]) -> Option<LicenseContent> {
    let opened = envelope::OpenedEnvelope::open(envelope).ok()?;
    envelope::read_body(opened.body()).ok()
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

/// One answer for all expected facts, so that a caller learns nothing about a single one.
fn all_match(content: &LicenseContent, expect: &[(String, String)]) -> bool {
    let face = face(content);
    expect.iter().all(|(name, value)| face.iter().any(|(have, is)| have == name && is == value))
}

fn annotate<'a>(entry: &Entry<'_>, caller: &'a Participant, context: &'a UseContext) -> Annotation<'a> {
    let expires_ms = entry.now_ms + COPY_SECONDS * 1_000;
    Annotation {
        creator: caller.organisation.as_str(),
        creator_name: &caller.name,
        cause: &context.cause,
        item_name: &context.item_name,
        business_code: &context.business_code,
        created_at: schemas::date::rfc3339(entry.now_ms),
        expires_at: schemas::date::rfc3339(expires_ms),
        watermark: format!("仅供{}办理{}使用", caller.name, context.item_name),
    }
}

/// The use context of an action, where it is a use.
fn use_context(action: &Action) -> Option<&UseContext> {
    match action {
        Action::Search(search) => Some(&search.context),
        Action::Retrieve(retrieve) => Some(&retrieve.context),
        Action::Verify(verify) => Some(&verify.context),
        _ => None,
    }
}

/// Identifier and holder that a refused action named, for the journal's sealed part.
fn named_in(action: &Action) -> (Vec<String>, Option<&HolderRef>) {
    let of_name = |named: &'_ Named| match named {
        Named::Identifier(identifier) => vec![identifier.to_string()],
        Named::Number { .. } => Vec::new(),
    };
    match action {
        Action::Search(search) => (Vec::new(), Some(&search.holder)),
        Action::Retrieve(retrieve) => {
            let holder = match &retrieve.license {
                Named::Number { holder, .. } => Some(holder),
                Named::Identifier(_) => retrieve.holder.as_ref(),
            };
            (of_name(&retrieve.license), holder)
        }
        Action::Verify(verify) => match &verify.subject {
            Subject::Named(named @ Named::Identifier(_)) => (of_name(named), verify.holder.as_ref()),
            Subject::Named(Named::Number { holder, .. }) => (Vec::new(), Some(holder)),
            Subject::Envelope(_) => (Vec::new(), None),
        },
        Action::Transition(transition) => (vec![transition.identifier.to_string()], None),
        Action::GrantCreate(create) => (Vec::new(), Some(&create.holder)),
        Action::GrantRevoke(revoke) => (Vec::new(), Some(&revoke.holder)),
        Action::Issue(_)
        | Action::ParticipantAdd(_)
        | Action::ParticipantChange(_)
        | Action::ParticipantSuspend(_) => (Vec::new(), None),
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> Hash {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn subject_record(private: &Private<'_>, answer: Option<&[u8]>) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::with_capacity(512);
    let identifiers: Vec<_> = private.identifiers.iter().map(|text| builder.create_string(text)).collect();
    let identifiers = (!identifiers.is_empty()).then(|| builder.create_vector(&identifiers));
    let holder_type_code = private.holder.map(|holder| builder.create_string(holder.type_code().as_str()));
    let holder_number = private.holder.map(|holder| builder.create_string(holder.number()));
    let use_context = private.context.map(|context| {
        let args = fb::UseContextArgs {
            user_name: Some(builder.create_string(&context.user_name)),
            item_code: Some(builder.create_string(&context.item_code)),
            item_name: Some(builder.create_string(&context.item_name)),
            business_code: Some(builder.create_string(&context.business_code)),
            cause: Some(builder.create_string(&context.cause)),
            stage: Some(builder.create_string(&context.stage)),
        };
        fb::UseContext::create(&mut builder, &args)
    });
    let grant = private.grant.map(|grant| builder.create_string(&hex::encode(grant)));
    let fields: Vec<_> = private.fields.iter().map(|text| builder.create_string(text)).collect();
    let fields = (!fields.is_empty()).then(|| builder.create_vector(&fields));
    let envelope = private.envelope.as_ref().map(|bytes| builder.create_vector(bytes));
    let answer = answer.map(|bytes| builder.create_vector(bytes));
    let detail = (!private.detail.is_empty()).then(|| builder.create_string(private.detail));
    let args = fb::SubjectRecordArgs {
        identifiers,
        holder_type_code,
        holder_number,
        use_context,
        grant,
        fields,
        envelope,
        answer,
        detail,
    };
    let record = fb::SubjectRecord::create(&mut builder, &args);
    builder.finish(record, None);
    builder.finished_data().to_vec()
}
