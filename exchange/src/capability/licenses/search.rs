//! `POST /v1/licenses/search`: the index of a holder's licenses.
//!
//! The path alone calls it. It changes no license: a crash leaves the entry of the use, or nothing.

use std::borrow::Cow;

use ledger::{Label, Ledger};
use schemas::codes::Reason;
use schemas::holder::HolderRef;
use schemas::identifier::{LicenseTypeCode, Uscc};
use schemas::routes::Route;
use serde::{Deserialize, Serialize};

use super::stored::{self, Masks};
use crate::capability::Capability;
use crate::gateway::case::{Case, Found};
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::{HOLDER, Names};
use crate::gateway::permit::{Disclosure, Permit, Ruling};
use crate::keyed;
use crate::participant::{Participant, Role};
use crate::rights::assertion::reads_for;
use crate::rights::intended::{self, Wanted};
use crate::rights::mode::Mode;
use crate::rights::right::{Right, Use, right};
use crate::wire::named::{ContextValue, Holder, UseContext, context};
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Gather, Placed as _, Refusal};
use crate::wire::text::{Text, id, type_code};

/// Most licenses of one holder that a search opens.
const MAX_SEARCHED: usize = 500;
/// Most licenses one search answer lists.
const MAX_LISTED: usize = 100;

/// The capability.
pub(crate) struct Search;

/// An index query.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// Whose licenses.
    pub holder: HolderRef,
    /// Only this type.
    pub type_code: Option<LicenseTypeCode>,
    /// The holder's own assertion, a JWT of the identity provider.
    pub assertion: Option<Cow<'a, str>>,
    /// Grant used.
    pub grant: Option<[u8; 16]>,
    /// Use context.
    pub context: UseContext<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    holder: Holder<'a>,
    type_code: Option<Text<'a>>,
    assertion: Option<Text<'a>>,
    grant: Option<Text<'a>>,
    #[serde(rename = "use")]
    context: Option<ContextValue<'a>>,
}

/// The licenses to be listed, newest first.
#[derive(Debug)]
pub(crate) struct Licenses {
    licenses: Vec<Found>,
    /// Those of this authority alone.
    issuer: Option<Uscc>,
    /// The holder has no more.
    complete: bool,
    /// The masks that lie over what a grant shows.
    masks: Option<Masks>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    licenses: Vec<Listed>,
    truncated: bool,
    as_of: String,
}

/// The one field that a search shows, which some types mask.
const CERTIFICATE_NUMBER: &str = "certificateNumber";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    identifier: String,
    certificate_number: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    masked: Vec<String>,
    issuer_name: String,
    state: &'static str,
    in_force: bool,
    valid_from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<String>,
}

impl<'r> Capability<'r> for Search {
    const ROUTE: Route = Route::Search;
    type Asked = Asked<'r>;
    type Granted = Licenses;

    fn read(body: Body<'r>) -> Result<Asked<'r>, Refusal> {
        json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked<'r>, _caller: &Uscc) -> Names<'a> {
        let names = Names {
            context: Some(&asked.context),
            grant: asked.grant,
            types_asked: asked.type_code.as_slice(),
            ..Names::default()
        };
        names.person(&asked.holder, HOLDER)
    }

    fn decide(
        case: &mut Case<'_>,
        caller: &Participant,
        asked: &Asked<'r>,
    ) -> Result<Ruling<Licenses>, Refusal> {
        reads_for(case, caller, asked.assertion.as_deref(), Some(&asked.holder))?;
        if let Some(type_code) = &asked.type_code {
            let wanted = Wanted { type_code, mode: Mode::Search, fields: std::iter::empty(), member: "" };
            intended::within(case, caller, &asked.context, &wanted)?;
        }
        let holder = case.holder(&asked.holder);
        let concerned: Vec<Label> = holder.iter().map(|holder| holder.label).collect();
        let denied = Refusal::not_permitted;
        let mut issuer = None;
        let right = if let Some(id) = asked.grant {
            let Some(code) = &asked.type_code else { return Err(denied(Reason::GrantOtherTarget)) };
            let ask = Use {
                caller,
                found: None,
                holders: &concerned,
                license_type: keyed::type_key(case.keyed(), code),
                issuer: None,
                mode: Mode::Search,
                fields: 0,
                vouched: None,
                grant: Some(id),
                context: &asked.context,
            };
            right(case, &ask).map_err(denied)?
        } else if caller.has(Role::Portal) {
            Right::Holder
        } else if caller.has(Role::Issuer) {
            issuer = Some(caller.organisation);
            Right::Issuer
        } else {
            return Err(denied(Reason::NoGrant));
        };
        let keys = concerned.first().map(|label| case.licenses_of(label)).unwrap_or_default();
        // Newest first, as the journal orders them; each license looked at is a fact of the answer.
        let (licenses, complete) = case.newest(keys, MAX_SEARCHED);
        for found in &licenses {
            // The answer says whether each is in force.
            case.validity(&found.license);
        }
        let masks = match (right, &asked.type_code) {
            (Right::Grant { .. }, Some(code)) => Masks::of(case.license_type(code), &asked.context),
            (Right::Grant { .. }, None) | (Right::Open | Right::Holder | Right::Issuer, _) => None,
        };
        let listed = Licenses { licenses, issuer, complete, masks };
        // An authority's own licenses are told apart by issuer only when they are opened.
        Ok(Ruling::plain(listed, concerned).used(right, caller, case, false))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked<'r>,
        permit: Permit<Licenses>,
    ) -> Result<Vec<u8>, Refusal> {
        let (Licenses { licenses, issuer, complete, masks }, right) = permit.into_parts();
        let (tools, entry, type_code) = (change.tools(), change.entry(), asked.type_code);
        let (ledger, now_ms) = (tools.ledger.clone(), entry.now_ms);
        let read = tools.lanes.searches.run(*entry.organisation, move || {
            list(&ledger, right, &licenses, type_code.as_ref(), issuer.as_ref(), masks.as_ref(), now_ms)
        });
        let (listed, more) = read.await.map_err(Refusal::new)??;
        let truncated = more || !complete;
        change.names().identifiers = listed.iter().map(|listed| listed.identifier.clone().into()).collect();
        Ok(answer(&Answer { licenses: listed, truncated, as_of: change.as_of() }))
    }
}

impl<'a> Request<'a> {
    fn typed(self) -> Result<Asked<'a>, Refusal> {
        let mut wrong = Gather::new();
        let context = wrong.take(context(self.context));
        let holder = wrong.take(self.holder.typed().under("holder"));
        let type_code = wrong.take(self.type_code.as_deref().map(type_code).transpose().under("typeCode"));
        let grant = wrong.take(self.grant.as_deref().map(id).transpose().under("grant"));
        let typed = || {
            let (holder, type_code, grant, context) = (holder?, type_code?, grant?, context?);
            let assertion = self.assertion.map(Text::into_inner);
            Some(Asked { holder, type_code, assertion, grant, context })
        };
        wrong.all(typed())
    }
}

/// The rows of a search, and whether there are more than it may list. Blocks for a read of each.
fn list(
    ledger: &Ledger,
    right: Disclosure,
    licenses: &[Found],
    type_code: Option<&LicenseTypeCode>,
    issuer: Option<&Uscc>,
    masks: Option<&Masks>,
    now_ms: u64,
) -> Result<(Vec<Listed>, bool), Refusal> {
    let mut listed = Vec::new();
    for found in licenses {
        if listed.len() == MAX_LISTED {
            return Ok((listed, true));
        }
        let content = stored::content(ledger, &found.license, right)?;
        let identifier = &content.identifier;
        let wanted_type = type_code.is_none_or(|code| *code == identifier.type_code());
        let own = issuer.is_none() || identifier.issuer().uscc().as_ref() == issuer;
        if !wanted_type || !own {
            continue;
        }
        let mut shown = stored::shown(&content, masks, |name| name == CERTIFICATE_NUMBER);
        listed.push(Listed {
            identifier: identifier.to_string(),
            certificate_number: shown.fields.remove(CERTIFICATE_NUMBER).unwrap_or_default(),
            masked: shown.masked,
            issuer_name: content.issuer_name,
            state: stored::state_code(&found.license),
            in_force: stored::in_force(now_ms, &found.license),
            valid_from: content.valid_from.to_string(),
            valid_until: content.valid_until.map(|day| day.to_string()),
        });
    }
    Ok((listed, false))
}
