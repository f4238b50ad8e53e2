//! `POST /access/v1/evaluation` and `/access/v1/evaluations` (AuthZEN Authorization API 1.0): whether a use of a license would be
//! permitted. The rules are those of verify and retrieve; nothing of a license is told, and nothing of a grant's count is used.
//!
//! The path alone calls it. An answer is an entry of its own, a "no" too, and holders find both in their traces. A crash leaves the
//! entry, or nothing.

use std::borrow::Cow;

use ledger::record::CounterUse;
use ledger::{Key, KeyedHash};
use schemas::codes::{Code, Reason, Rule};
use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use schemas::routes::Route;
use serde::Deserialize;

use super::Capability;
use super::licenses::retrieve::{self, Retrieve};
use super::verify::{self, MISMATCHES_A_DAY, Verify};
use crate::gateway::case::Case;
use crate::gateway::change::Change;
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::keyed;
use crate::participant::Participant;
use crate::rights::mode::Mode;
use crate::wire::named::{ContextValue, Holder, Named, Subject as Verified, UseContext, context};
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::{MAX_FIELDS, Text, id, names};

/// Most questions of one request.
const MAX_EVALUATIONS: usize = 50;
const YES: &[u8] = br#"{"decision":true}"#;
const ACTIONS: [Mode; 5] = [Mode::Verify, Mode::Fields, Mode::Face, Mode::Envelope, Mode::Copy];
const LICENSE: &str = "license";
const ORGANISATION: &str = "organisation";
const USER: &str = "user";

/// The capability of one question.
pub(crate) struct Evaluation;

/// The capability of many, each decided by itself before.
pub(crate) struct Evaluations;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entity<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    id: Text<'a>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Action<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    properties: Option<Properties>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Properties {
    fields: Option<Vec<String>>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Terms<'a> {
    #[serde(borrow)]
    holder: Option<Holder<'a>>,
    assertion: Option<Text<'a>>,
    grant: Option<Text<'a>>,
    #[serde(rename = "use")]
    context: Option<ContextValue<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request<'a> {
    #[serde(borrow)]
    subject: Option<Entity<'a>>,
    action: Option<Action<'a>>,
    resource: Option<Entity<'a>>,
    context: Option<Terms<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Requests<'a> {
    #[serde(borrow)]
    subject: Option<Entity<'a>>,
    action: Option<Action<'a>>,
    resource: Option<Entity<'a>>,
    context: Option<Terms<'a>>,
    evaluations: Option<Vec<Request<'a>>>,
    options: Option<Options>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Semantic {
    #[default]
    ExecuteAll,
    DenyOnFirstDeny,
    PermitOnFirstPermit,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    evaluations_semantic: Option<Semantic>,
}

/// The guesses at a license, counted for a caller and a day.
#[derive(Debug)]
pub(crate) struct Guesses {
    key: Key,
    day: u32,
}

/// One question.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// A use of the route whose rules decide.
    use_: Use<'a>,
    /// Whom the subject names: an organisation, or else a user of the caller's.
    subject: Result<String, String>,
}

#[derive(Debug)]
enum Use<'a> {
    Verify(verify::Asked<'a>),
    Retrieve(retrieve::Asked<'a>),
}

impl<'r> Capability<'r> for Evaluation {
    const ROUTE: Route = Route::Evaluation;
    type Asked = Asked<'r>;
    type Granted = Guesses;

    fn read(body: Body<'r>) -> Result<Asked<'r>, Refusal> {
        json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked<'r>, caller: &Uscc) -> Names<'a> {
        match &asked.use_ {
            Use::Verify(asked) => Verify::names(asked, caller),
            Use::Retrieve(asked) => Retrieve::names(asked, caller),
        }
    }

    fn decide(
        case: &mut Case<'_>,
        caller: &Participant,
        asked: &Asked<'r>,
    ) -> Result<Ruling<Guesses>, Refusal> {
        // Every answer takes the same look-ups, so the question is decided whoever the subject is.
        let decided = match &asked.use_ {
            Use::Verify(asked) => Verify::decide(case, caller, asked).map(|ruling| ruling.map(drop)),
            Use::Retrieve(asked) => Retrieve::decide(case, caller, asked).map(|ruling| ruling.map(drop)),
        };
        let is_subject = match &asked.subject {
            Ok(organisation) => *organisation == caller.organisation.as_str(),
            Err(user) => *user == *asked.context().user_name,
        };
        let decided = if is_subject {
            decided.and_then(|ruling| ruling.uncounted(case))
        } else {
            Err(Refusal::not_permitted(Reason::OtherSubject))
        };
        // A caller that guesses at a license is refused from then on, like with failed matches, whether there is such a license or not.
        let license = asked.license_key(case.keyed());
        let key = case.keyed().key("evaluation", &[caller.organisation.as_bytes(), &license]);
        let day = case.today();
        if case.counter(&key, day) >= MISMATCHES_A_DAY {
            return Err(Refusal::new(Code::TooManyMismatches));
        }
        let guess = CounterUse { key, day, amount: 1, limit: MISMATCHES_A_DAY };
        decided.map(|ruling| ruling.map(|()| Guesses { key, day })).map_err(|refusal| match refusal.code {
            Code::NotPermitted => refusal.counting([guess]),
            _ => refusal,
        })
    }

    async fn carry_out(
        change: &mut Change<'_>,
        _asked: &Asked<'r>,
        permit: Permit<Guesses>,
    ) -> Result<Vec<u8>, Refusal> {
        let Guesses { key, day } = permit.into_granted();
        // Nothing is told beside the last guess, also one that is under way.
        let none_left = CounterUse { key, day, amount: 0, limit: MISMATCHES_A_DAY - 1 };
        change.count(none_left, || Refusal::new(Code::TooManyMismatches))?;
        Ok(YES.to_vec())
    }
}

impl Asked<'_> {
    fn context(&self) -> &UseContext<'_> {
        match &self.use_ {
            Use::Verify(asked) => &asked.context,
            Use::Retrieve(asked) => &asked.context,
        }
    }

    /// The license, whatever its version: each version is the same guess.
    fn license_key(&self, keyed: &KeyedHash) -> Key {
        let named = match &self.use_ {
            Use::Verify(verify::Asked { subject: Verified::Named(named), .. }) => Some(named),
            Use::Verify(_) => None,
            Use::Retrieve(asked) => Some(&asked.license),
        };
        match named {
            Some(Named::Identifier { identifier, .. }) => keyed::license_key(keyed, identifier),
            Some(Named::Number { .. }) | None => [0; 16],
        }
    }
}

impl<'a> Request<'a> {
    fn typed(self) -> Result<Asked<'a>, Refusal> {
        let of = |fault| Refusal::of(Code::MalformedRequest, fault);
        let missing = |name: &str| of(Fault::at(format!("/{name}"), Rule::Required).form("object"));
        let mut wrong = Gather::new();
        let subject = wrong.take(self.subject.ok_or_else(|| missing("subject")));
        let subject = subject.map(|subject| match &*subject.kind {
            ORGANISATION => Ok(Ok(subject.id.to_string())),
            USER => Ok(Err(subject.id.to_string())),
            _ => Err(of(Fault::at("/subject/type", Rule::OneOf).one_of([ORGANISATION, USER]))),
        });
        let subject = subject.and_then(|subject| wrong.take(subject));
        let action = wrong.take(self.action.ok_or_else(|| missing("action")));
        let mode = action.as_ref().and_then(|action| {
            let mode = ACTIONS.into_iter().find(|mode| mode.name() == &*action.name);
            let form = || Fault::at("/action/name", Rule::OneOf).one_of(ACTIONS.map(Mode::name));
            wrong.take(mode.ok_or_else(|| of(form())))
        });
        let fields = action.and_then(|action| action.properties).and_then(|properties| properties.fields);
        let fields =
            wrong.take(names(fields.unwrap_or_default()).under("fields").under("properties").under("action"));
        match (mode, fields.as_deref()) {
            (Some(Mode::Fields), Some([])) => {
                let fault = Fault::at("/action/properties/fields", Rule::Required).bounds(1, MAX_FIELDS);
                wrong.note(of(fault));
            }
            (Some(Mode::Face | Mode::Envelope | Mode::Copy), Some([_, ..])) => {
                let fault = Fault::at("/action/properties/fields", Rule::NotAllowed);
                wrong.note(of(fault.form("actions verify and fields only")));
            }
            _ => {}
        }
        let resource = wrong.take(self.resource.ok_or_else(|| missing("resource")));
        let license = resource.and_then(|resource| {
            if &*resource.kind != LICENSE {
                wrong.note(of(Fault::at("/resource/type", Rule::OneOf).one_of([LICENSE])));
                return None;
            }
            let identifier = wrong.take(Refusal::parse(&resource.id).under("id").under("resource"));
            identifier.map(|identifier| Named::Identifier { identifier, text: resource.id.into_inner() })
        });
        let none = || Terms { holder: None, assertion: None, grant: None, context: None };
        let Terms { holder, assertion, grant, context: used } = self.context.unwrap_or_else(none);
        let assertion = assertion.map(Text::into_inner);
        let used = wrong.take(context(used).under("context"));
        let holder: Option<Option<HolderRef>> =
            wrong.take(holder.map(Holder::typed).transpose().under("holder").under("context"));
        let grant = wrong.take(grant.as_deref().map(id).transpose().under("grant").under("context"));
        let typed = || {
            let (license, fields, holder, grant, context) = (license?, fields?, holder?, grant?, used?);
            let use_ = match mode? {
                Mode::Verify => {
                    let expect = fields.into_iter().map(|field| (field, String::new())).collect();
                    Use::Verify(verify::Asked {
                        subject: Verified::Named(license),
                        expect,
                        holder,
                        assertion,
                        grant,
                        context,
                    })
                }
                mode => {
                    let include_ended = true;
                    Use::Retrieve(retrieve::Asked {
                        license,
                        mode,
                        fields,
                        holder,
                        assertion,
                        grant,
                        include_ended,
                        context,
                    })
                }
            };
            Some(Asked { use_, subject: subject? })
        };
        wrong.all(typed())
    }
}

/// Many questions, or the answers to them.
#[derive(Debug)]
pub(crate) struct Many<'a> {
    /// Those that are still to be answered, in their order.
    pub(crate) questions: Vec<Asked<'a>>,
    semantic: Semantic,
    answer: Vec<u8>,
}

impl<'r> Capability<'r> for Evaluations {
    const ROUTE: Route = Route::Evaluations;
    type Asked = Many<'r>;
    type Granted = ();

    fn read(body: Body<'r>) -> Result<Many<'r>, Refusal> {
        json::<Requests<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(_asked: &'a Many<'r>, _caller: &Uscc) -> Names<'a> {
        Names::default()
    }

    fn decide(_case: &mut Case<'_>, _caller: &Participant, _asked: &Many<'r>) -> Result<Ruling<()>, Refusal> {
        Ok(Ruling::plain((), Vec::new()))
    }

    async fn carry_out(
        _change: &mut Change<'_>,
        asked: &Many<'r>,
        permit: Permit<()>,
    ) -> Result<Vec<u8>, Refusal> {
        permit.into_granted();
        Ok(asked.answer.clone())
    }
}

impl Many<'_> {
    /// Whether the answers so far leave nothing to be asked.
    pub(crate) fn is_settled_by(&self, yes: bool) -> bool {
        match self.semantic {
            Semantic::ExecuteAll => false,
            Semantic::DenyOnFirstDeny => !yes,
            Semantic::PermitOnFirstPermit => yes,
        }
    }

    /// The answer that is made of these, each with its receipt: a yes or a no as it is, anything else as a no with its reason.
    pub(crate) fn answered<'b>(answers: impl Iterator<Item = (bool, Cow<'b, [u8]>)>) -> Self {
        let mut answer = br#"{"evaluations":["#.to_vec();
        for (place, (is_decision, body)) in answers.enumerate() {
            if place > 0 {
                answer.push(b',');
            }
            if is_decision {
                answer.extend_from_slice(&body);
            } else {
                answer.extend_from_slice(br#"{"decision":false,"context":{"problem":"#);
                answer.extend_from_slice(&body);
                answer.extend_from_slice(b"}}");
            }
        }
        answer.extend_from_slice(b"]}");
        Self { questions: Vec::new(), semantic: Semantic::default(), answer }
    }
}

impl<'a> Requests<'a> {
    fn typed(self) -> Result<Many<'a>, Refusal> {
        let semantic = self.options.unwrap_or_default().evaluations_semantic.unwrap_or_default();
        let many = self.evaluations.unwrap_or_default();
        if !(1..=MAX_EVALUATIONS).contains(&many.len()) {
            let fault = Fault::at("/evaluations", Rule::Count).bounds(1, MAX_EVALUATIONS).got(many.len());
            return Err(Refusal::of(Code::MalformedRequest, fault));
        }
        let mut wrong = Gather::new();
        let questions = many.into_iter().zip(0..).map(|(one, place)| {
            let request = Request {
                subject: one.subject.or_else(|| self.subject.clone()),
                action: one.action.or_else(|| self.action.clone()),
                resource: one.resource.or_else(|| self.resource.clone()),
                context: one.context.or_else(|| self.context.clone()),
            };
            wrong.take(request.typed().under(place).under("evaluations"))
        });
        let questions: Vec<Option<Asked<'_>>> = questions.collect();
        let questions = questions.into_iter().collect::<Option<Vec<_>>>();
        wrong.all(questions.map(|questions| Many { questions, semantic, answer: Vec::new() }))
    }
}
