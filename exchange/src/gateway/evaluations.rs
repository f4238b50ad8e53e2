//! Many questions in one body, each decided by itself: the sibling of [`Gateway::handle`] for `POST /access/v1/evaluations`. At the end
//! an entry commits to all answers.
//!
//! The path alone calls it. A crash leaves the entries of what was decided, answered or not.

use std::borrow::Cow;

use schemas::codes::Code;
use schemas::routes::Route;

use super::answer::Answer;
use super::batch::admitted;
use super::received::Received;
use super::{Gateway, Request};
use crate::capability::Capability as _;
use crate::capability::evaluation::{Evaluation, Evaluations, Many};
use crate::participant::Certified;
use crate::wire::refusal::{no, undecided};

const ROUTE: Route = Route::Evaluations;

impl Gateway {
    /// Decides the questions of a body in their order, one after another: a later one may not be asked if an earlier one settles it.
    pub(super) async fn evaluations(&self, caller: &Certified, received: &Received) -> Result<Answer, Code> {
        let asked = received.body(ROUTE.contract()).and_then(Evaluations::read);
        let (mut case, mut entry) = self.open(ROUTE, caller, received);
        let refused = admitted(&mut case, &mut entry, caller, ROUTE).err();
        drop(case);
        let mut asked = match (asked, refused) {
            (Ok(asked), None) => asked,
            // Refused once, for all questions.
            (asked, refused) => {
                let asked = refused.map_or(asked, Err);
                return self.path_of(caller, &Request::<'_, Evaluations> { received, asked }).await;
            }
        };
        let mut answers: Vec<Result<Answer, Code>> = Vec::with_capacity(asked.questions.len());
        for question in std::mem::take(&mut asked.questions) {
            let request = Request::<'_, Evaluation> { received, asked: Ok(question) };
            let answer = if self.shed.closed(&caller.organisation) {
                Err(Code::TooManyRefusals)
            } else {
                self.path_of(caller, &request).await
            };
            let yes = answer.as_ref().is_ok_and(|answer| answer.code == Code::Ok);
            answers.push(answer.inspect_err(|code| self.shed.count(&caller.organisation, *code)));
            if asked.is_settled_by(yes) {
                break;
            }
        }
        let codes: Vec<Code> = answers
            .iter()
            .map(|answer| answer.as_ref().map_or_else(|code| *code, |answer| answer.code))
            .collect();
        let shown = answers.iter().map(|answer| match answer {
            Ok(answer) => {
                let is_decision = answer.code == Code::Ok || no(Route::Evaluation, answer.code).is_some();
                (is_decision, Cow::from(&answer.body[..]))
            }
            Err(code) => (false, Cow::from(undecided(*code, received.language))),
        });
        let asked = Ok(Many::answered(shown));
        let whole = self.path_of(caller, &Request::<'_, Evaluations> { received, asked }).await?;
        let codes = codes.into_iter().chain([whole.code]).collect();
        Ok(whole.made_of(codes))
    }
}
