//! `POST /v1/items/keep`: a material that was verified once for a holder is known until its end, so that nobody has to hand it in again.
//!
//! The path alone calls it. It is one entry: a crash leaves it whole or not at all.

use schemas::codes::{Code, Rule};
use schemas::date::Date;
use schemas::dictionary::Trust;
use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use schemas::routes::Route;
use serde::{Deserialize, Serialize};

use super::material;
use crate::capability::Capability;
use crate::gateway::case::{Case, Place};
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::{HOLDER, Names};
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::{Participant, Role};
use crate::sharing::clock::day_of;
use crate::sharing::dictionary::{KeptMaterial, digest_of, kept_key};
use crate::wire::named::{ContextValue, Holder, UseContext, context};
use crate::wire::read::{self, Body};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::{MAX_CONTEXT_CHARS, Text, day, owned_words};

/// Longest time for which a material is kept, days.
const MAX_DAYS: i32 = 3_660;

/// The capability.
pub(crate) struct Keep;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    holder: Holder<'a>,
    material: String,
    digest: Text<'a>,
    trust: Trust,
    until: Text<'a>,
    #[serde(rename = "use")]
    context: Option<ContextValue<'a>>,
}

/// A verified material.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    holder: HolderRef,
    material: String,
    digest: [u8; 32],
    trust: Trust,
    until: Date,
    context: UseContext<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    material: &'a str,
    trust: Trust,
    verifier: Uscc,
    until: String,
}

/// The SHA-256 of a material, in hex.
pub(super) fn digest(text: &str) -> Result<[u8; 32], Refusal> {
    let mut digest = [0; 32];
    hex::decode_to_slice(text, &mut digest).map_err(|_| {
        let fault = Fault::at("", Rule::Pattern).form("[0-9a-f]{64} (SHA-256)").got(text.chars().count());
        Refusal::of(Code::BadItems, fault)
    })?;
    Ok(digest)
}

impl<'r> Capability<'r> for Keep {
    const ROUTE: Route = Route::MaterialKeep;
    type Asked = Asked<'r>;
    type Granted = Place;

    fn read(body: Body<'r>) -> Result<Asked<'r>, Refusal> {
        read::json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked<'r>, _caller: &Uscc) -> Names<'a> {
        let fields = vec![asked.material.as_str().into()];
        Names { context: Some(&asked.context), fields, ..Names::default() }.person(&asked.holder, HOLDER)
    }

    fn decide(
        case: &mut Case<'_>,
        caller: &Participant,
        asked: &Asked<'r>,
    ) -> Result<Ruling<Place>, Refusal> {
        let bad = |fault| Refusal::of(Code::BadItems, fault);
        if material(case, &asked.material).is_none_or(|found| found.cancelled) {
            return Err(bad(Fault::at("/material", Rule::Unknown)));
        }
        if asked.trust == Trust::Issued && !caller.has(Role::Issuer) {
            let form = "B, C or D: A is for an issuing authority";
            return Err(bad(Fault::at("/trust", Rule::NotAllowed).form(form)));
        }
        let today = day_of(case.now_ms());
        if asked.until < today || asked.until.days() - today.days() > MAX_DAYS {
            let form = format!("a day to come, at most {MAX_DAYS} days ahead");
            return Err(bad(Fault::at("/until", Rule::Range).form(form)));
        }
        let key = kept_key(case.keyed(), &asked.holder, &asked.material, &caller.organisation);
        let (place, _) = case.document::<KeptMaterial>(key);
        let holder = case.holder(&asked.holder);
        let concerned = holder.into_iter().map(|holder| holder.label).collect();
        // Whether the exchange knew the holder before is nothing that the caller may know.
        Ok(Ruling::plain(place, concerned).unnamed().approved(caller, case, None))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked<'r>,
        permit: Permit<Place>,
    ) -> Result<Vec<u8>, Refusal> {
        let place = permit.into_granted();
        let holder = change.concern(&asked.holder)?;
        let end = asked.until.last_second().saturating_add(1).saturating_mul(1_000);
        let kept = KeptMaterial {
            holder: hex::encode(holder),
            material: asked.material.clone(),
            digest: digest_of(change.tools().ledger.keyed(), &asked.digest),
            trust: asked.trust,
            verifier: *change.entry().organisation,
            at_ms: change.entry().now_ms,
            ends_ms: u64::try_from(end).unwrap_or(1),
        };
        change.keep(place, &kept);
        let (verifier, until) = (kept.verifier, asked.until.to_string());
        Ok(answer(&Answer { material: &asked.material, trust: asked.trust, verifier, until }))
    }
}

impl<'a> Request<'a> {
    fn typed(self) -> Result<Asked<'a>, Refusal> {
        let mut wrong = Gather::new();
        let context = wrong.take(context(self.context));
        let holder = wrong.take(self.holder.typed().under("holder"));
        let material = owned_words(Code::BadItems, self.material, MAX_CONTEXT_CHARS).under("material");
        let material = wrong.take(material);
        let digest = wrong.take(digest(&self.digest).under("digest"));
        let until = wrong.take(day(Code::BadItems, &self.until).under("until"));
        let trust = self.trust;
        let typed = || {
            let (holder, material, digest) = (holder?, material?, digest?);
            Some(Asked { holder, material, digest, trust, until: until?, context: context? })
        };
        wrong.all(typed())
    }
}
