//! `POST /v1/licenses/retrieve`: fields, face, signed bytes or annotated copy (加注件) of one license.
//!
//! The path alone calls it. A use and its counters are in one frame: a crash leaves both or neither.

use std::borrow::Cow;
use std::collections::BTreeMap;

use flatbuffers::FlatBufferBuilder;
use schemas::codes::{Code, Reason, Rule};
use schemas::date::Date;
use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use schemas::machine as fb;
use schemas::routes::{Form, Route};
use schemas::state::LicenseState as Standing;
use serde::{Deserialize, Serialize};
use verifier::Hash;
use verifier::copy;
use verifier::license::LicenseContent;
use verifier::trace::Digest;

use super::stored::{self, Masks, Shown, StandsNow};
use crate::capability::Capability;
use crate::gateway::case::{Case, Found, Validity};
use crate::gateway::change::Change;
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::gateway::tools::Entry;
use crate::participant::Participant;
use crate::rights::assertion::reads_for;
use crate::rights::floor;
use crate::rights::intended::{self, Wanted};
use crate::rights::mode::Mode;
use crate::rights::right::{Right, resolve, right};
use crate::wire::named::{ContextValue, Holder, LicenseName, Named, UseContext, context};
use crate::wire::object::{Object, USUAL_DOCUMENT_BYTES};
use crate::wire::read::{Body, json, table};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::{MAX_FIELDS, Text, id, names};

/// How long an annotated copy (加注件) may be used, seconds.
const COPY_SECONDS: u64 = 30 * 24 * 3_600;

/// The capability.
pub(crate) struct Retrieve;

/// A retrieval of one license.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// Which.
    pub license: Named<'a>,
    /// How much.
    pub mode: Mode,
    /// Named fields for mode `fields`.
    pub fields: Vec<String>,
    /// Holder the portal vouches for.
    pub holder: Option<HolderRef>,
    /// The holder's own assertion, a JWT of the identity provider.
    pub assertion: Option<Cow<'a, str>>,
    /// Grant used.
    pub grant: Option<[u8; 16]>,
    /// The signed bytes are wanted although the license is not in force.
    pub include_ended: bool,
    /// Use context.
    pub context: UseContext<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Request<'a> {
    #[serde(borrow)]
    license: LicenseName<'a>,
    mode: Text<'a>,
    fields: Option<Vec<String>>,
    holder: Option<Holder<'a>>,
    assertion: Option<Text<'a>>,
    grant: Option<Text<'a>>,
    include_ended: Option<bool>,
    #[serde(rename = "use")]
    context: Option<ContextValue<'a>>,
}

/// The license, and the type whose masks lie over it.
#[derive(Debug)]
pub(crate) struct Granted {
    found: Found,
    /// The holder and the issuer see it in clear.
    masks: Option<Masks>,
}

impl<'r> Capability<'r> for Retrieve {
    const ROUTE: Route = Route::Retrieve;
    type Asked = Asked<'r>;
    type Granted = Granted;

    fn read(body: Body<'r>) -> Result<Asked<'r>, Refusal> {
        match body.form {
            Form::Json | Form::Lines => json::<Request<'_>>(body.bytes)?.typed(),
            Form::Machine => {
                let read = || Request::of_machine(&table::<fb::RetrieveRequest<'_>>(body.bytes)?)?.typed();
                read().map_err(Refusal::in_machine_names)
            }
        }
    }

    fn names<'a>(asked: &'a Asked<'r>, _caller: &Uscc) -> Names<'a> {
        let names = Names {
            context: Some(&asked.context),
            grant: asked.grant,
            fields: asked.fields.iter().map(Cow::from).collect(),
            mode: Some(asked.mode.name()),
            ..Names::default()
        };
        names.license(&asked.license, asked.holder.as_ref())
    }

    fn decide(
        case: &mut Case<'_>,
        caller: &Participant,
        asked: &Asked<'r>,
    ) -> Result<Ruling<Granted>, Refusal> {
        reads_for(case, caller, asked.assertion.as_deref(), asked.holder.as_ref())?;
        let fields = asked.fields.iter().map(String::as_str);
        let type_code = &asked.license.type_code();
        let wanted = Wanted { type_code, mode: asked.mode, fields, member: "/fields" };
        intended::within(case, caller, &asked.context, &wanted)?;
        let named = resolve(case, caller, &asked.license, asked.holder.as_ref());
        let denied = Refusal::not_permitted;
        let (type_key, license_type) = case.keyed_type(&named.type_code);
        let fields = match asked.mode {
            Mode::Fields => {
                floor::field_mask(license_type.as_deref(), asked.fields.iter().map(String::as_str))
                    .ok_or_else(|| denied(Reason::GrantOtherFields))?
            }
            _ => 0,
        };
        let right =
            right(case, &named.ask(type_key, caller, asked.mode, fields, asked.grant, &asked.context))
                .map_err(denied)?;
        let Some(found) = named.found else { return Err(denied(Reason::NoSuchLicense)) };
        if named.version.is_some_and(|version| version != found.license.certificate_version) {
            return Err(denied(Reason::NoSuchLicense));
        }
        let ended = case.validity(&found.license) == Validity::Ended
            || found.license.state != Standing::Valid.number();
        if ended && asked.mode == Mode::Envelope {
            // The bytes say nothing of it themselves. Only who has the right to them learns why they are not given.
            let granted = match right {
                Right::Grant { modes, .. } => modes & Mode::Ended.bit() != 0,
                Right::Open | Right::Holder | Right::Issuer => true,
            };
            if !granted || !asked.include_ended {
                return Err(Refusal::new(Code::LicenseEnded));
            }
        }
        let concerned = found.license.holders.clone();
        let masks = match right {
            Right::Grant { .. } | Right::Open => Masks::of(license_type, &asked.context),
            Right::Holder | Right::Issuer => None,
        };
        Ok(Ruling::plain(Granted { found, masks }, concerned).used(right, caller, case, true))
    }

    fn disclosed(case: &mut Case<'_>, Granted { found, masks }: &Granted) -> Option<StandsNow> {
        let (license, in_force) = (found.license.clone(), case.in_force(&found.license));
        Some(StandsNow { license, in_force, masks: masks.clone() })
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked<'r>,
        permit: Permit<Granted>,
    ) -> Result<Vec<u8>, Refusal> {
        let (Granted { found, masks }, right) = permit.into_parts();
        let entry = change.entry();
        let envelope = stored::envelope(change.tools().ledger, &found.license, right)?;
        let (identifier, shown) = match asked.mode {
            Mode::Envelope | Mode::Verify | Mode::Search | Mode::Ended => {
                (stored::identifier_in(&envelope)?, None)
            }
            Mode::Fields | Mode::Face | Mode::Copy => {
                let all = asked.mode != Mode::Fields;
                let content = stored::content_of(&envelope)?;
                let wanted = |name: &str| all || asked.fields.iter().any(|field| field == name);
                (content.identifier.to_string(), Some(stored::shown(&content, masks.as_ref(), wanted)))
            }
        };
        if let Some(shown) = &shown {
            change.commit_fields(shown.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        }
        let names = change.names();
        (names.fields, names.masked) = match &shown {
            Some(Shown { fields, masked }) => {
                let owned = |name: &String| Cow::from(name.clone());
                (fields.keys().map(owned).collect(), masked.iter().map(owned).collect())
            }
            None => (vec![Cow::from("*")], Vec::new()),
        };
        names.identifiers = vec![identifier.clone().into()];
        let (fields, masked) = shown.map(|Shown { fields, masked }| (fields, masked)).unzip();
        let masked = masked.unwrap_or_default();
        let annotation = if asked.mode == Mode::Copy {
            let original = stored::identity_of(&envelope)?;
            let copied = Copied { original, identifier: &identifier, fields: fields.as_ref() };
            let annotation = annotate(entry, change.caller(), &asked.context, &found, &copied);
            change.names().copy = Some(annotation.digest.0);
            Some(annotation)
        } else {
            None
        };
        let answer = Answer {
            identifier,
            mode: asked.mode.name(),
            state: stored::state_code(&found.license),
            in_force: stored::in_force(entry.now_ms, &found.license),
            fields,
            masked,
            envelope: (asked.mode == Mode::Envelope).then_some(envelope),
            annotation,
            as_of: change.as_of(),
            same_number: stored::several(found.same_number),
        };
        Ok(match entry.form {
            Form::Json | Form::Lines => answer.json(),
            Form::Machine => answer.machine(),
        })
    }
}

impl<'a> Request<'a> {
    pub(crate) fn typed(self) -> Result<Asked<'a>, Refusal> {
        let mut wrong = Gather::new();
        let context = wrong.take(context(self.context));
        let mode = Mode::DISCLOSING.into_iter().find(|mode| mode.name() == &*self.mode);
        let fields = self.fields.unwrap_or_default();
        let malformed = |fault| Refusal::of(Code::MalformedRequest, fault);
        match mode {
            None => {
                let names = Mode::DISCLOSING.iter().map(|mode| mode.name());
                let fault = Fault::at("/mode", Rule::OneOf).one_of(names).got(self.mode.chars().count());
                wrong.note(malformed(fault));
            }
            Some(Mode::Fields) if fields.is_empty() => {
                wrong.note(malformed(Fault::at("/fields", Rule::Required).bounds(1, MAX_FIELDS)));
            }
            Some(mode) if mode != Mode::Fields && !fields.is_empty() => {
                wrong.note(malformed(Fault::at("/fields", Rule::NotAllowed).form("mode fields only")));
            }
            Some(_) => {}
        }
        let license = wrong.take(self.license.named().under("license"));
        let fields = wrong.take(names(fields).under("fields"));
        let holder = wrong.take(self.holder.map(Holder::typed).transpose().under("holder"));
        let grant = wrong.take(self.grant.as_deref().map(id).transpose().under("grant"));
        let typed = || {
            Some(Asked {
                license: license?,
                mode: mode?,
                fields: fields?,
                holder: holder?,
                assertion: self.assertion.map(Text::into_inner),
                grant: grant?,
                include_ended: self.include_ended.unwrap_or(false),
                context: context?,
            })
        };
        wrong.all(typed())
    }
}

impl<'a> Request<'a> {
    fn of_machine(request: &fb::RetrieveRequest<'a>) -> Result<Self, Refusal> {
        let fields = request.fields();
        if let Some(fields) = fields.filter(|fields| fields.len() > MAX_FIELDS) {
            let fault = Fault::at("/fields", Rule::Count).bounds(1, MAX_FIELDS).got(fields.len());
            return Err(Refusal::of(Code::MalformedRequest, fault));
        }
        Ok(Self {
            license: request.license().into(),
            mode: request.mode().into(),
            fields: fields.map(|fields| fields.iter().map(str::to_owned).collect()),
            holder: request.holder().map(Holder::from),
            assertion: request.assertion().map(Text::from),
            grant: request.grant().map(Text::from),
            include_ended: Some(request.include_ended()),
            context: request.use_().map(ContextValue::from),
        })
    }
}

struct Answer<'a> {
    identifier: String,
    mode: &'static str,
    state: &'static str,
    in_force: bool,
    fields: Option<BTreeMap<String, String>>,
    /// Fields whose values are masked.
    masked: Vec<String>,
    envelope: Option<Vec<u8>>,
    annotation: Option<Annotation<'a>>,
    as_of: String,
    same_number: Option<u32>,
}

impl Answer<'_> {
    fn json(&self) -> Vec<u8> {
        let mut answer = Object::for_bytes(self.envelope.as_deref().unwrap_or_default());
        answer.text("identifier", &self.identifier);
        answer.text("mode", self.mode);
        answer.text("state", self.state);
        answer.flag("inForce", self.in_force);
        if let Some(fields) = &self.fields {
            answer.other("fields", fields);
        }
        if !self.masked.is_empty() {
            answer.texts("masked", &self.masked);
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

    fn machine(&self) -> Vec<u8> {
        let usual = USUAL_DOCUMENT_BYTES + self.envelope.as_ref().map_or(0, Vec::len);
        let mut fbb = FlatBufferBuilder::with_capacity(usual);
        let fields = self.fields.as_ref().map(|fields| {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| {
                    let (name, value) = (Some(fbb.create_string(name)), Some(fbb.create_string(value)));
                    fb::Field::create(&mut fbb, &fb::FieldArgs { name, value })
                })
                .collect();
            fbb.create_vector(&fields)
        });
        let masked: Vec<_> = self.masked.iter().map(|name| fbb.create_string(name)).collect();
        let masked = (!masked.is_empty()).then(|| fbb.create_vector(&masked));
        let annotation = self.annotation.as_ref().map(|annotation| {
            let (original, own) = (annotation.original_digest.0, annotation.digest.0);
            let (original, own) = (fb::Hash32::new(&original), fb::Hash32::new(&own));
            let args = fb::AnnotationArgs {
                creator: Some(fbb.create_string(annotation.creator)),
                creator_name: Some(fbb.create_string(annotation.creator_name)),
                cause: Some(fbb.create_string(annotation.cause)),
                item_name: Some(fbb.create_string(annotation.item_name)),
                business_code: Some(fbb.create_string(annotation.business_code)),
                created_at: Some(fbb.create_string(&annotation.created_at)),
                expires_at: annotation.expires_at.as_ref().map(|at| fbb.create_string(at)),
                watermark: Some(fbb.create_string(&annotation.watermark)),
                purpose: annotation.purpose.map(|purpose| fbb.create_string(purpose)),
                original_digest: Some(&original),
                digest: Some(&own),
            };
            fb::Annotation::create(&mut fbb, &args)
        });
        let args = fb::RetrieveAnswerArgs {
            identifier: Some(fbb.create_string(&self.identifier)),
            mode: Some(fbb.create_string(self.mode)),
            state: Some(fbb.create_string(self.state)),
            in_force: self.in_force,
            fields,
            envelope: self.envelope.as_ref().map(|envelope| fbb.create_vector(envelope)),
            annotation,
            as_of: Some(fbb.create_string(&self.as_of)),
            same_number: self.same_number,
            masked,
        };
        let answer = fb::RetrieveAnswer::create(&mut fbb, &args);
        fbb.finish(answer, None);
        fbb.finished_data().to_vec()
    }
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
    /// `None` where the license is not in force: such a copy is good for no use.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    watermark: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    purpose: Option<&'a str>,
    /// Identity of the license that it is a copy of.
    original_digest: Digest,
    /// The copy's own.
    digest: Digest,
}

/// An original, and the part of it that a copy shows.
struct Copied<'c> {
    original: Hash,
    identifier: &'c str,
    fields: Option<&'c BTreeMap<String, String>>,
}

impl Copied<'_> {
    /// The digest of the copy with these marks.
    fn digest(&self, marks: &[(&str, Option<&str>)]) -> Digest {
        let marks = marks.iter().filter_map(|(name, text)| Some((format!("/annotation/{name}"), (*text)?)));
        let fields = self.fields.into_iter().flatten();
        let fields = fields.map(|(name, value)| (format!("/fields/{name}"), value.as_str()));
        let identifier = std::iter::once(("/identifier".to_owned(), self.identifier));
        Digest(copy::digest(&self.original, &marks.chain(fields).chain(identifier).collect()))
    }
}

/// The marks of a copy. A copy of a license that is not in force says so where everybody looks, with the day it is said of.
fn annotate<'a>(
    entry: &Entry<'_>,
    caller: &'a Participant,
    context: &'a UseContext<'_>,
    found: &Found,
    copied: &Copied<'_>,
) -> Annotation<'a> {
    let in_force = stored::in_force(entry.now_ms, &found.license);
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
    let creator = caller.organisation.as_str();
    let created_at = schemas::date::rfc3339(entry.now_ms);
    let expires_at = in_force.then(|| schemas::date::rfc3339(entry.now_ms + COPY_SECONDS * 1_000));
    let purpose = context.purpose.as_deref();
    let digest = copied.digest(&[
        ("creator", Some(creator)),
        ("creatorName", Some(&caller.name)),
        ("cause", Some(&context.cause)),
        ("itemName", Some(&context.item_name)),
        ("businessCode", Some(&context.business_code)),
        ("createdAt", Some(&created_at)),
        ("expiresAt", expires_at.as_deref()),
        ("watermark", Some(&watermark)),
        ("purpose", purpose),
    ]);
    Annotation {
        creator,
        creator_name: &caller.name,
        cause: &context.cause,
        item_name: &context.item_name,
        business_code: &context.business_code,
        created_at,
        expires_at,
        watermark,
        purpose,
        original_digest: Digest(copied.original),
        digest,
    }
}

/// The license that an answer of a retrieval discloses, and what it says of it.
pub(crate) struct Given {
    /// Identifier.
    pub(crate) identifier: String,
    /// Whether it is in force.
    pub(crate) in_force: bool,
    /// Names of the fields that it shows.
    pub(crate) fields: Vec<String>,
    /// Those of them whose values are masked.
    pub(crate) masked: Vec<String>,
}

impl Given {
    /// Reads an answer.
    pub(crate) fn read(form: Form, answer: &[u8]) -> Option<Self> {
        match form {
            Form::Json | Form::Lines => {
                let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
                let fields = answer["fields"].as_object().into_iter().flatten();
                let masked = answer["masked"].as_array().into_iter().flatten();
                Some(Self {
                    identifier: answer["identifier"].as_str()?.to_owned(),
                    in_force: answer["inForce"].as_bool()?,
                    fields: fields.map(|(name, _)| name.clone()).collect(),
                    masked: masked.map(|name| Some(name.as_str()?.to_owned())).collect::<Option<_>>()?,
                })
            }
            Form::Machine => {
                let answer = flatbuffers::root::<schemas::machine::RetrieveAnswer<'_>>(answer).ok()?;
                Some(Self {
                    identifier: answer.identifier().to_owned(),
                    in_force: answer.in_force(),
                    fields: answer.fields().iter().flatten().map(|field| field.name().to_owned()).collect(),
                    masked: answer.masked().iter().flatten().map(str::to_owned).collect(),
                })
            }
        }
    }

    /// Whether the same would be shown of the license now: as much, and as much of it masked.
    pub(crate) fn is_shown_of(&self, content: &LicenseContent, masks: Option<&Masks>) -> bool {
        let shown = stored::shown(content, masks, |name| self.fields.iter().any(|field| field == name));
        shown.masked == self.masked
    }
}
