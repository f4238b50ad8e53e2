//! `POST /v1/log/query`: an auditor's questions. The holders whose records are shown are told.
//!
//! The path alone calls it. A crash leaves its entry, with what the holders are told, or nothing.

use ledger::Label;
use schemas::codes::{Code, Rule};
use schemas::identifier::Uscc;
use schemas::routes::Route;
use serde::Deserialize;

use crate::capability::Capability;
use crate::gateway::case::Case;
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::{HOLDER, Names};
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::wire::named::Holder;
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::{MAX_CAUSE_CHARS, MAX_CONTEXT_CHARS, moment, owned_words, page as page_limit};

mod asked;
mod page;

use asked::Asked;

/// The capability.
pub(crate) struct Query;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    purpose: Option<String>,
    user_name: Option<String>,
    from: Option<String>,
    to: Option<String>,
    organisation: Option<String>,
    license: Option<String>,
    #[serde(borrow)]
    holder: Option<Holder<'a>>,
    business_code: Option<String>,
    code: Option<String>,
    from_index: Option<u64>,
    limit: Option<u64>,
}

impl Capability<'_> for Query {
    const ROUTE: Route = Route::LogQuery;
    type Asked = Asked;
    /// The label of the holder asked for; `None` inside for one that the log does not know.
    type Granted = Option<Option<Label>>;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        let names = Names { audit: Some((&asked.purpose, &asked.user_name)), ..Names::default() };
        asked.holder.iter().fold(names, |names, holder| names.person(holder, HOLDER))
    }

    fn decide(
        case: &mut Case<'_>,
        _caller: &Participant,
        asked: &Asked,
    ) -> Result<Ruling<Self::Granted>, Refusal> {
        let holder = asked.holder.as_ref().map(|holder| case.holder(holder).map(|holder| holder.label));
        // The holders whose records a page shows learn nothing of each other, not even a label.
        Ok(Ruling::plain(holder, Vec::new()).unnamed())
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Self::Granted>,
    ) -> Result<Vec<u8>, Refusal> {
        let (holder, right) = permit.into_parts();
        let (page, shown, release_ms) = page::page(change, right, asked, holder).await?;
        change.concern_apart(&shown, Some(release_ms))?;
        Ok(answer(&page))
    }
}

impl Request<'_> {
    fn typed(self) -> Result<Asked, Refusal> {
        let mut wrong = Gather::new();
        let mut said = |name: &str, text: Option<String>, max| {
            let missing = || Fault::at("", Rule::Required).bounds(1, max);
            let text = text.ok_or_else(|| Refusal::of(Code::BadUseContext, missing()));
            wrong.take(text.and_then(|text| owned_words(Code::BadUseContext, text, max)).under(name))
        };
        let purpose = said("purpose", self.purpose, MAX_CAUSE_CHARS);
        let user_name = said("userName", self.user_name, MAX_CONTEXT_CHARS);
        let mut time = |name: &str, text: Option<String>| {
            let read = text.map(|text| moment(Code::MalformedRequest, &text));
            wrong.take(read.transpose().under(name))
        };
        let (from_ms, to_ms) = (time("from", self.from), time("to", self.to));
        let organisation = self.organisation.map(|text| Refusal::parse(&text)).transpose();
        let organisation = wrong.take(organisation.under("organisation"));
        let license = wrong.take(self.license.as_deref().map(Refusal::parse).transpose().under("license"));
        let holder = wrong.take(self.holder.map(Holder::typed).transpose().under("holder"));
        let code = self.code.map(|name| {
            let fault = || Fault::at("/code", Rule::OneOf).one_of(Code::ALL.iter().map(|code| code.name()));
            Code::from_name(&name)
                .ok_or_else(|| Refusal::of(Code::MalformedRequest, fault().got(name.chars().count())))
        });
        let code = wrong.take(code.transpose());
        let limit = wrong.take(page_limit(self.limit));
        let business_code = self
            .business_code
            .map(|text| owned_words(Code::MalformedRequest, text, MAX_CONTEXT_CHARS).under("businessCode"));
        let business_code = wrong.take(business_code.transpose());
        let typed = || {
            Some(Asked {
                purpose: purpose?,
                user_name: user_name?,
                from_ms: from_ms?,
                to_ms: to_ms?,
                organisation: organisation?,
                license: license?,
                holder: holder?,
                business_code: business_code?,
                code: code?,
                from_index: self.from_index.unwrap_or(0),
                limit: limit?,
            })
        };
        wrong.all(typed())
    }
}
