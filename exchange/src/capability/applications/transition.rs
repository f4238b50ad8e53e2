//! `POST /v1/applications/transition`: a provider answers an application and supplies it, an operator countersigns and settles disputes, an
//! applicant withdraws, disputes or ends the use.
//!
//! The path alone calls it. A step is one entry: a crash leaves it whole or not at all.

use schemas::codes::{Code, Reason, Rule};
use schemas::identifier::Uscc;
use schemas::resource::{Ground, MAX_WORDS_CHARS, Resource};
use schemas::routes::Route;
use schemas::sharing::{ApplicationAction as Action, ApplicationState, Scope};
use serde::Deserialize;

use super::make::conditions;
use super::{Answer, COUNTERSIGNED_LEVEL, ScopeValue, agreed, unfit};
use crate::capability::Capability;
use crate::gateway::case::{Case, Place};
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::{Participant, Role};
use crate::sharing::application::Application;
use crate::sharing::clock::day_of;
use crate::sharing::resource::{Step, add_step};
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::{id, owned_words, unknown_resource};

/// The capability.
pub(crate) struct Transition;

/// The party that takes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Party {
    Applicant,
    Provider,
    Operator,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request {
    application: String,
    action: Action,
    terms: Option<ScopeValue>,
    ground: Option<Ground>,
    basis: Option<String>,
    note: Option<String>,
}

/// A step that is asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    application: [u8; 16],
    action: Action,
    /// The scope that the provider allows, if less than was asked.
    terms: Option<Scope>,
    ground: Option<Ground>,
    /// Ground, legal basis and words, as the history has them.
    note: Option<String>,
}

/// A step that may be taken.
#[derive(Debug)]
pub(crate) struct Taken {
    place: Place,
    application: Application,
}

impl Capability<'_> for Transition {
    const ROUTE: Route = Route::ApplicationTransition;
    type Asked = Asked;
    type Granted = Taken;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        json::<Request>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        Names { reason: asked.note.as_deref().unwrap_or_default(), ..Names::default() }
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Asked) -> Result<Ruling<Taken>, Refusal> {
        let none = || Refusal::not_permitted(Reason::NoSuchApplication);
        let (place, found) = case.application(asked.application);
        let mut application = Application::clone(found.ok_or_else(none)?.as_ref());
        let party = if caller.organisation == application.provider && caller.has(Role::Provider) {
            Party::Provider
        } else if caller.organisation == application.applicant {
            Party::Applicant
        } else if caller.has(Role::Operator) {
            Party::Operator
        } else {
            return Err(none());
        };
        let (_, listed) = case.resource(&application.resource);
        let listed = listed.ok_or_else(|| unknown_resource(""))?;
        let resource = &listed.resource;
        let wrong_step = || Refusal::explained(Code::ApplicationRefused, Reason::ApplicationStep);
        let behind = follows(application.state, asked.action, party, application.disputed);
        let behind = behind.ok_or_else(wrong_step)?;
        if party == Party::Provider && asked.action == Action::Stop && asked.ground.is_none() {
            return Err(ground_missing());
        }
        let now_ms = case.now_ms();
        application.state = behind;
        match asked.action {
            Action::Approve => {
                shared(resource)?;
                let mut terms = asked.terms.as_ref().unwrap_or(&application.asked).clone();
                // A field that is guarded more strictly later is masked from then on.
                terms.clear.retain(|key| resource.masks(key));
                let mut wrong = unfit(resource, &terms, day_of(now_ms));
                wrong.extend(conditions(resource, &terms));
                if !terms.is_within(&application.asked) {
                    wrong.push(Fault::at("", Rule::NotAllowed).form("no more than was asked"));
                }
                if !wrong.is_empty() {
                    return Err(Refusal::all(Code::BadApplication, wrong).under("terms"));
                }
                application.terms = Some(terms);
                if resource.level >= COUNTERSIGNED_LEVEL {
                    application.state = ApplicationState::Countersign;
                } else {
                    agreed(case, resource, &mut application);
                }
            }
            Action::Countersign => {
                shared(resource)?;
                application.countersigned = true;
                agreed(case, resource, &mut application);
            }
            Action::Refuse => {
                application.answered_ms = Some(now_ms);
                application.clock = None;
            }
            Action::Provide => {
                application.provided_ms = Some(now_ms);
                application.clock = None;
            }
            Action::Dispute => application.disputed = true,
            Action::Settle => application.disputed = false,
            Action::Stop => application.clock = None,
            Action::Negotiate => {}
        }
        let (by, action) = (caller.organisation, asked.action.name().to_owned());
        add_step(&mut application.history, Step { at_ms: now_ms, by, action, note: asked.note.clone() });
        Ok(Ruling::plain(Taken { place, application }, Vec::new()))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Taken>,
    ) -> Result<Vec<u8>, Refusal> {
        let Taken { place, application } = permit.into_granted();
        change.keep(place, &application);
        Ok(answer(&Answer::new(asked.application, &application)))
    }
}

/// The state behind a step of a party's; `None` where the step is not theirs, or does not start there.
fn follows(
    state: ApplicationState,
    action: Action,
    party: Party,
    disputed: bool,
) -> Option<ApplicationState> {
    use ApplicationState as S;
    let to = match (action, party) {
        // While it is disputed, a refused application may be agreed on after all.
        (Action::Approve, Party::Provider) => matches!(state, S::Pending | S::Refused).then_some(S::Agreed),
        (Action::Refuse, Party::Provider) => (state == S::Pending).then_some(S::Refused),
        (Action::Countersign, Party::Operator) => (state == S::Countersign).then_some(S::Agreed),
        (Action::Refuse, Party::Operator) => (state == S::Countersign).then_some(S::Refused),
        (Action::Provide, Party::Provider) => (state == S::Agreed).then_some(S::Provided),
        (Action::Negotiate, Party::Applicant | Party::Provider) => (state != S::Stopped).then_some(state),
        (Action::Dispute, Party::Applicant) => (state != S::Stopped && !disputed).then_some(state),
        (Action::Settle, Party::Operator) => disputed.then_some(state),
        (Action::Stop, Party::Applicant) => (!state.is_over()).then_some(S::Stopped),
        (Action::Stop, Party::Provider) => {
            matches!(state, S::Agreed | S::Provided | S::InUse).then_some(S::Stopped)
        }
        (Action::Approve | Action::Provide, Party::Applicant | Party::Operator)
        | (Action::Refuse | Action::Countersign | Action::Settle, Party::Applicant)
        | (Action::Countersign | Action::Dispute | Action::Settle, Party::Provider)
        | (Action::Negotiate | Action::Dispute | Action::Stop, Party::Operator) => None,
    };
    to.filter(|_| !(action == Action::Approve && state == S::Refused && !disputed))
}

/// Nothing of class 3 is agreed on, whatever it was when it was applied for.
fn shared(resource: &Resource) -> Result<(), Refusal> {
    if resource.sharing_class == 3 {
        return Err(Refusal::explained(Code::ApplicationRefused, Reason::NotShared));
    }
    Ok(())
}

fn ground_missing() -> Refusal {
    let grounds = Ground::ALL.iter().map(|ground| ground.name());
    Refusal::of(Code::BadApplication, Fault::at("/ground", Rule::Required).one_of(grounds))
}

impl Request {
    fn typed(self) -> Result<Asked, Refusal> {
        const BAD: Code = Code::BadApplication;
        let bad = |fault| Refusal::of(BAD, fault);
        let mut wrong = Gather::new();
        let application = wrong.take(id(&self.application).under("application"));
        let terms = wrong.take(self.terms.map(ScopeValue::typed).transpose().under("terms"));
        if self.action == Action::Refuse && self.ground.is_none() {
            wrong.note(ground_missing());
        }
        if self.ground.is_some() && self.basis.is_none() {
            let form = "the legal basis of the ground";
            wrong.note(bad(Fault::at("/basis", Rule::Required).form(form)));
        }
        let speaks = matches!(self.action, Action::Negotiate | Action::Dispute | Action::Settle);
        if speaks && self.note.is_none() {
            wrong.note(bad(Fault::at("/note", Rule::Required).bounds(1, MAX_WORDS_CHARS)));
        }
        let may_name = matches!(self.action, Action::Refuse | Action::Stop);
        for (pointer, there, may) in [
            ("/terms", terms.as_ref().is_some_and(Option::is_some), self.action == Action::Approve),
            ("/ground", self.ground.is_some(), may_name),
            ("/basis", self.basis.is_some(), may_name),
        ] {
            if there && !may {
                wrong.note(bad(Fault::at(pointer, Rule::NotAllowed)));
            }
        }
        let mut words = |name: &str, text: Option<String>| {
            let read = text.map(|text| owned_words(BAD, text, MAX_WORDS_CHARS)).transpose();
            wrong.take(read.under(name))
        };
        let (basis, note) = (words("basis", self.basis), words("note", self.note));
        let ground = self.ground;
        let typed = || {
            let parts = [ground.map(|ground| ground.name().to_owned()), basis?, note?];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            let note = (!parts.is_empty()).then(|| parts.join("; "));
            Some(Asked { application: application?, action: self.action, terms: terms?, ground, note })
        };
        wrong.all(typed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIONS: [Action; 8] = [
        Action::Approve,
        Action::Refuse,
        Action::Negotiate,
        Action::Countersign,
        Action::Provide,
        Action::Dispute,
        Action::Settle,
        Action::Stop,
    ];

    /// Every step that there is, written down apart from the code.
    #[test]
    fn an_application_moves_by_the_table() {
        use ApplicationState as S;
        let table = |party, disputed| {
            let mut steps = Vec::new();
            for state in S::ALL {
                for action in ACTIONS {
                    if let Some(to) = follows(state, action, party, disputed).filter(|to| *to != state) {
                        steps.push(format!("{} {} {}", state.name(), action.name(), to.name()));
                    }
                }
            }
            steps
        };
        assert_eq!(
            table(Party::Provider, false),
            [
                "pending approve agreed",
                "pending refuse refused",
                "agreed provide provided",
                "agreed stop stopped",
                "provided stop stopped",
                "in-use stop stopped",
            ]
        );
        assert!(table(Party::Provider, true).contains(&"refused approve agreed".to_owned()));
        assert_eq!(
            table(Party::Applicant, false),
            ["pending", "countersign", "agreed", "provided", "in-use"]
                .map(|from| format!("{from} stop stopped"))
        );
        assert_eq!(
            table(Party::Operator, false),
            ["countersign refuse refused", "countersign countersign agreed"]
        );
    }

    #[test]
    fn nobody_takes_the_step_of_another() {
        for state in ApplicationState::ALL {
            for disputed in [false, true] {
                let step = |action, party| follows(state, action, party, disputed);
                assert_eq!(step(Action::Approve, Party::Applicant), None);
                assert_eq!(step(Action::Countersign, Party::Provider), None);
                assert_eq!(step(Action::Settle, Party::Applicant), None);
            }
            assert_eq!(follows(state, Action::Settle, Party::Operator, false), None);
        }
    }
}
