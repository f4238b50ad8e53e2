//! `POST /v1/items/materials`: which materials of a service item need not be handed in, in which way, and what is missing.
//!
//! Without a holder it says what the dictionaries and the caller's own approvals say. With one it tells no more than a search does:
//! licenses of a type to the portal, or by a grant in mode search; kept materials to the portal and to who verified them. The path
//! alone calls it. It changes nothing but who is known: a crash leaves the entry of the use, or nothing.

use std::borrow::Cow;

use ledger::{Key, Label};
use schemas::codes::{Code, Reason, Rule};
use schemas::dictionary::{Item, Mode as Way, Trust};
use schemas::holder::HolderRef;
use schemas::identifier::{LicenseTypeCode, Uscc};
use schemas::routes::Route;
use serde::{Deserialize, Serialize};

use super::{Held, MAX_LICENSES, held, is_approved, item, mapping, material};
use crate::capability::Capability;
use crate::gateway::case::{Case, Found};
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::{HOLDER, Names};
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::{Participant, Role};
use crate::rights::assertion::reads_for;
use crate::rights::intended::{Wanted, within};
use crate::rights::mode::Mode;
use crate::rights::right::{Right, Use, right};
use crate::sharing::dictionary::{KeptMaterial, Mapped, digest_of, kept_key};
use crate::wire::named::{ContextValue, Holder, UseContext, context};
use crate::wire::read::{self, Body};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::{Pairs, Text, id};

/// Most grants of one question.
const MAX_GRANTS: usize = 16;
/// Most kept materials of one holder that are looked at.
const MAX_KEPT: usize = 256;

/// The capability.
pub(crate) struct Materials;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    holder: Option<Holder<'a>>,
    #[serde(default)]
    grants: Vec<String>,
    assertion: Option<Text<'a>>,
    digests: Option<Pairs>,
    #[serde(rename = "use")]
    context: Option<ContextValue<'a>>,
}

/// A question for the materials of the item that its use names.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    holder: Option<HolderRef>,
    grants: Vec<Key>,
    /// The holder's own assertion, a JWT of the identity provider.
    assertion: Option<Cow<'a, str>>,
    /// SHA-256 of materials at hand, by code.
    digests: Vec<(String, [u8; 32])>,
    context: UseContext<'a>,
}

/// The parts of an answer that need no look into a license.
#[derive(Debug)]
pub(crate) struct Granted {
    item: Item,
    lines: Vec<Line>,
    /// The types of which the caller may learn whether the holder has a license.
    told: Vec<LicenseTypeCode>,
    licenses: Vec<Found>,
    /// The holder has no more.
    complete: bool,
}

#[derive(Debug)]
struct Line {
    code: String,
    name: Option<String>,
    mapped: Option<Mapped>,
    review: bool,
    is_approved: bool,
    kept: Option<Verified>,
}

/// A kept material, and whether it stands for the original where the caller asks.
#[derive(Clone, Debug)]
struct Verified {
    kept: KeptMaterial,
    counts: bool,
}

/// Whether a material has to be handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// It need not be.
    Spared,
    /// It has to be.
    Missing,
    /// The caller may not know whether the holder has the license.
    Unknown,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    item: &'a str,
    item_name: &'a str,
    version: u32,
    materials: Vec<Shown<'a>>,
    spared: usize,
    missing: usize,
    as_of: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    material: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<Way>,
    /// The item has changed since it was mapped.
    #[serde(skip_serializing_if = "Option::is_none")]
    review: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approved: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    type_code: Option<LicenseTypeCode>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    license: Option<ShownLicense<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<ShownKept>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownLicense<'a> {
    identifier: &'a str,
    state: &'static str,
    in_force: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownKept {
    trust: Trust,
    verifier: Uscc,
    verified_at: String,
    until: String,
    /// Whether it is the one whose digest was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    same: Option<bool>,
}

impl<'r> Capability<'r> for Materials {
    const ROUTE: Route = Route::ItemsMaterials;
    type Asked = Asked<'r>;
    type Granted = Granted;

    fn read(body: Body<'r>) -> Result<Asked<'r>, Refusal> {
        read::json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked<'r>, _caller: &Uscc) -> Names<'a> {
        let (grant, more_grants) = match asked.grants.split_first() {
            Some((first, more)) => (Some(*first), more),
            None => (None, [].as_slice()),
        };
        let names = Names { context: Some(&asked.context), grant, more_grants, ..Names::default() };
        asked.holder.iter().fold(names, |names, holder| names.person(holder, HOLDER))
    }

    fn decide(
        case: &mut Case<'_>,
        caller: &Participant,
        asked: &Asked<'r>,
    ) -> Result<Ruling<Granted>, Refusal> {
        reads_for(case, caller, asked.assertion.as_deref(), asked.holder.as_ref())?;
        let item = item(case, &asked.context.item_code)?;
        let holder = asked.holder.as_ref().and_then(|holder| case.holder(holder));
        let concerned: Vec<Label> = holder.iter().map(|holder| holder.label).collect();
        let kept = match concerned.first() {
            None => Vec::new(),
            Some(label) => kept(case, caller, asked, &item, label),
        };
        let mut lines = Vec::with_capacity(item.materials.len());
        for code in &item.materials {
            let mapped = mapping(case, &item.code, code);
            let review = mapped.as_ref().is_some_and(|mapped| mapped.is_under_review(Some(&item)));
            let shared = mapped.as_ref().and_then(|mapped| {
                mapped.mapping.resource.as_deref().map(|resource| (resource, &mapped.mapping.fields))
            });
            let is_approved = shared.is_some_and(|(resource, fields)| {
                is_approved(case, caller, &asked.context, resource, fields)
            });
            let mut of_it = kept.iter().filter(|verified| verified.kept.material == *code);
            let kept = of_it.clone().find(|verified| verified.counts).or_else(|| of_it.next()).cloned();
            let name = material(case, code).map(|material| material.name);
            lines.push(Line { code: code.clone(), name, mapped, review, is_approved, kept });
        }
        let mut types: Vec<LicenseTypeCode> = Vec::new();
        for code in lines.iter().filter_map(|line| line.mapped.as_ref()?.mapping.type_code) {
            if !types.contains(&code) {
                types.push(code);
            }
        }
        // The question names no type, so one without a line of intended use is left unknown, and the others are answered.
        types.retain(|type_code| {
            let wanted = Wanted { type_code, mode: Mode::Search, fields: std::iter::empty(), member: "" };
            within(case, caller, &asked.context, &wanted).is_ok()
        });
        let (rights, told) = rights(case, caller, asked, &concerned, types)?;
        let (mut licenses, mut complete) = (Vec::new(), true);
        if !told.is_empty() {
            let keys = concerned.first().map(|label| case.licenses_of(label)).unwrap_or_default();
            // Each license looked at is a fact of the answer.
            (licenses, complete) = case.newest(keys, MAX_LICENSES);
            for found in &licenses {
                case.validity(&found.license);
            }
        }
        let (first, more) = match rights.split_first() {
            Some((first, more)) => (*first, more),
            None => (Right::Open, [].as_slice()),
        };
        let more = more.iter().filter_map(|right| match right {
            Right::Grant { counted, .. } => Some(*counted),
            Right::Open | Right::Holder | Right::Issuer => None,
        });
        let granted = Granted { item, lines, told, licenses, complete };
        Ok(Ruling::plain(granted, concerned).used(first, caller, case, false).and(more.collect()))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked<'r>,
        permit: Permit<Granted>,
    ) -> Result<Vec<u8>, Refusal> {
        let (Granted { item, lines, told, licenses, complete }, right) = permit.into_parts();
        if let Some(holder) = &asked.holder {
            // Somebody who was never named gets a label by it, so that the question is the same work for whom the log knows and whom not.
            change.concern(holder)?;
        }
        let (tools, entry) = (change.tools(), change.entry());
        let now_ms = entry.now_ms;
        let found = if licenses.is_empty() {
            Vec::new()
        } else {
            let (ledger, types) = (tools.ledger.clone(), told.clone());
            let read = tools
                .lanes
                .searches
                .run(*entry.organisation, move || held(&ledger, right, &licenses, &types, now_ms));
            read.await.map_err(Refusal::new)??
        };
        // Nothing is said to be missing where more licenses were not looked at.
        let told: Vec<LicenseTypeCode> = told
            .into_iter()
            .filter(|code| complete || found.iter().any(|held| held.type_code == *code && held.in_force))
            .collect();
        change.names().identifiers = found.iter().map(|one| one.identifier.clone().into()).collect();
        let keyed = tools.ledger.keyed();
        let same = |kept: &KeptMaterial| {
            let (_, digest) = asked.digests.iter().find(|(code, _)| *code == kept.material)?;
            Some(digest_of(keyed, digest) == kept.digest)
        };
        let materials: Vec<Shown<'_>> = lines
            .iter()
            .map(|line| {
                line.shown(&told, &found, line.kept.as_ref().and_then(|verified| same(&verified.kept)))
            })
            .collect();
        let count = |outcome| materials.iter().filter(|material| material.outcome == outcome).count();
        Ok(answer(&Answer {
            item: &item.code,
            item_name: &item.name,
            version: item.version,
            spared: count(Outcome::Spared),
            missing: count(Outcome::Missing),
            materials,
            as_of: change.as_of(),
        }))
    }
}

impl Line {
    fn shown<'a>(&'a self, told: &[LicenseTypeCode], found: &'a [Held], same: Option<bool>) -> Shown<'a> {
        let mapping = self.mapped.as_ref().map(|mapped| &mapped.mapping);
        let type_code = mapping.and_then(|mapping| mapping.type_code);
        let license = type_code.and_then(|code| found.iter().find(|held| held.type_code == code));
        let by_mapping = match mapping.map(|mapping| mapping.mode) {
            None => Outcome::Missing,
            // The mapping is all that a clerk has for it: while it is under review, the material is asked for.
            Some(Way::Drop) if self.review => Outcome::Missing,
            Some(Way::Drop) => Outcome::Spared,
            Some(Way::Share) if self.is_approved => Outcome::Spared,
            Some(Way::Share) => Outcome::Missing,
            Some(Way::Verify) if !type_code.is_some_and(|code| told.contains(&code)) => Outcome::Unknown,
            Some(Way::Verify) if license.is_some_and(|license| license.in_force) => Outcome::Spared,
            Some(Way::Verify) => Outcome::Missing,
        };
        let is_counted = self.kept.as_ref().is_some_and(|verified| verified.counts);
        // No copy outlives the license that it was made of.
        let has_ended = license.is_some_and(|license| !license.in_force);
        let is_kept = is_counted && same != Some(false) && !has_ended;
        let kept = self.kept.as_ref().map(|verified| &verified.kept);
        Shown {
            material: &self.code,
            name: self.name.as_deref(),
            outcome: if is_kept { Outcome::Spared } else { by_mapping },
            mode: mapping.map(|mapping| mapping.mode),
            review: self.review.then_some(true),
            resource: mapping.and_then(|mapping| mapping.resource.as_deref()),
            approved: mapping.and_then(|mapping| mapping.resource.as_ref()).map(|_| self.is_approved),
            type_code,
            fields: mapping.iter().flat_map(|mapping| &mapping.fields).map(String::as_str).collect(),
            license: license.map(|license| ShownLicense {
                identifier: &license.identifier,
                state: license.state,
                in_force: license.in_force,
                valid_until: license.valid_until.as_deref(),
            }),
            kept: kept.map(|kept| ShownKept {
                trust: kept.trust,
                verifier: kept.verifier,
                verified_at: schemas::date::rfc3339(kept.at_ms),
                until: schemas::date::rfc3339(kept.ends_ms),
                same,
            }),
        }
    }
}

/// The rights of a caller, and the types of which it may learn whether the holder has a license. A grant that covers none of the item's
/// types is refused: nobody names one for nothing.
fn rights(
    case: &mut Case<'_>,
    caller: &Participant,
    asked: &Asked<'_>,
    holders: &[Label],
    types: Vec<LicenseTypeCode>,
) -> Result<(Vec<Right>, Vec<LicenseTypeCode>), Refusal> {
    if asked.holder.is_none() {
        return Ok((Vec::new(), Vec::new()));
    }
    if asked.grants.is_empty() && caller.has(Role::Portal) {
        return Ok((vec![Right::Holder], types));
    }
    let (mut rights, mut told) = (Vec::new(), Vec::new());
    for id in &asked.grants {
        let mut covered = Err(Reason::GrantOtherTarget);
        for code in &types {
            let (license_type, _) = case.keyed_type(code);
            let ask = Use {
                caller,
                found: None,
                holders,
                license_type,
                issuer: None,
                mode: Mode::Search,
                fields: 0,
                vouched: None,
                grant: Some(*id),
                context: &asked.context,
            };
            match right(case, &ask) {
                Ok(right) => {
                    covered = Ok(right);
                    if !told.contains(code) {
                        told.push(*code);
                    }
                }
                // Whatever else is wrong with a grant is so for each type.
                Err(Reason::GrantOtherTarget) => {}
                Err(reason) if covered.is_err() => covered = Err(reason),
                Err(_) => {}
            }
        }
        rights.push(covered.map_err(Refusal::not_permitted)?);
    }
    Ok((rights, told))
}

/// The materials of an item that are kept for a holder, as far as the caller may know: those that it verified itself; all to the portal.
/// One counts where its own verifier asks, and to the portal where the item's department verified it and takes part.
fn kept(
    case: &mut Case<'_>,
    caller: &Participant,
    asked: &Asked<'_>,
    item: &Item,
    holder: &Label,
) -> Vec<Verified> {
    let now_ms = case.now_ms();
    let wanted = |kept: &KeptMaterial| {
        now_ms < kept.ends_ms && kept.label() == Some(*holder) && item.materials.contains(&kept.material)
    };
    let mut found: Vec<KeptMaterial> = if caller.has(Role::Portal) {
        case.documents_of(holder, MAX_KEPT, wanted).into_iter().map(|(_, kept)| kept).collect()
    } else {
        // Others' are not even looked at: no time tells how many there are.
        let own = item.materials.iter().zip(asked.holder.iter().cycle());
        own.filter_map(|(material, person)| {
            let key = kept_key(case.keyed(), person, material, &caller.organisation);
            case.document::<KeptMaterial>(key).1.filter(&wanted)
        })
        .collect()
    };
    // The best is told where several organisations verified something.
    found.sort_by_key(|kept| (kept.trust, std::cmp::Reverse(kept.ends_ms)));
    let department = case.participant(&item.department);
    let department = department.filter(|department| department.active_at(now_ms));
    let mut verified = Vec::with_capacity(found.len());
    for kept in found {
        case.ends_at(kept.ends_ms);
        let is_own = kept.verifier == caller.organisation;
        let by_department = department.is_some() && kept.verifier == item.department;
        let counts = kept.trust.is_verified() && (is_own || by_department);
        verified.push(Verified { kept, counts });
    }
    verified
}

impl<'a> Request<'a> {
    fn typed(self) -> Result<Asked<'a>, Refusal> {
        let mut wrong = Gather::new();
        let context = wrong.take(context(self.context));
        let holder = wrong.take(self.holder.map(Holder::typed).transpose().under("holder"));
        if self.grants.len() > MAX_GRANTS {
            let fault = Fault::at("/grants", Rule::Count).bounds(0, MAX_GRANTS).got(self.grants.len());
            wrong.note(Refusal::of(Code::MalformedRequest, fault));
        }
        let mut grants: Vec<Key> = Vec::new();
        for (text, place) in self.grants.iter().take(MAX_GRANTS).zip(0..) {
            match wrong.take(id(text).under(place).under("grants")) {
                Some(grant) if grants.contains(&grant) => {
                    let fault = Fault::at(format!("/grants/{place}"), Rule::Distinct);
                    wrong.note(Refusal::of(Code::MalformedRequest, fault));
                }
                grant => grants.extend(grant),
            }
        }
        if holder.as_ref().is_some_and(Option::is_none) {
            for (name, is_there) in [("grants", !self.grants.is_empty()), ("digests", self.digests.is_some())]
            {
                if is_there {
                    let fault = Fault::at(format!("/{name}"), Rule::Combination).form("with a holder only");
                    wrong.note(Refusal::of(Code::MalformedRequest, fault));
                }
            }
        }
        let mut digests = Vec::new();
        for ((code, text), place) in self.digests.unwrap_or_default().0.into_iter().zip(1..) {
            match super::keep::digest(&text) {
                Ok(digest) => digests.push((code, digest)),
                // The caller's own word for it is not given back.
                Err(_) => {
                    let fault = Fault::at("/digests", Rule::Pattern).position(place);
                    wrong.note(Refusal::of(Code::BadItems, fault.form("[0-9a-f]{64} (SHA-256)")));
                }
            }
        }
        let assertion = self.assertion.map(Text::into_inner);
        let typed = || Some(Asked { holder: holder?, grants, assertion, digests, context: context? });
        wrong.all(typed())
    }
}
