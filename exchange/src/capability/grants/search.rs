//! `POST /v1/grants/search`: a holder's grants, or those that the caller may use.
//!
//! The path alone calls it. It changes no grant: a crash leaves its entry or nothing.

use ledger::{DocumentKind, Grant, Key, Label, Ledger};
use schemas::codes::Code;
use schemas::date::rfc3339;
use schemas::holder::HolderRef;
use schemas::identifier::{CertificateIdentifier, Uscc};
use schemas::kinds::Scenario;
use schemas::license_type::{BASE_FIELDS, LicenseType};
use schemas::routes::Route;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::capability::Capability;
use crate::capability::licenses::stored;
use crate::capability::pages::listed;
use crate::gateway::case::Case;
use crate::gateway::change::Change;
use crate::gateway::names::{HOLDER, Names};
use crate::gateway::permit::{Disclosure, Permit, Ruling};
use crate::keyed;
use crate::participant::{Participant, Role};
use crate::rights::assertion::reads_for;
use crate::rights::floor::{GRANT_ACTIVE, GRANT_REVOKED};
use crate::rights::link::Link;
use crate::rights::mode::Mode;
use crate::wire::named::Holder;
use crate::wire::read::{self, Body};
use crate::wire::refusal::{Gather, Placed as _, Refusal};
use crate::wire::text::{Paging, PagingValue};

/// The capability.
pub(crate) struct Search;

/// A question for grants.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Whose, as a portal vouches; `None` = those that the caller may use.
    pub holder: Option<HolderRef>,
    /// The holder's own assertion, a JWT of the identity provider.
    pub assertion: Option<String>,
    /// Which page.
    pub paging: Paging,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    holder: Option<Holder<'a>>,
    assertion: Option<String>,
    after: Option<String>,
    limit: Option<u64>,
}

/// Whose grants.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whose {
    /// A holder's; none of a holder whom the log does not know.
    Holder(Option<Label>),
    /// The live ones that an organisation may use.
    Grantee(Uscc),
}

impl Capability<'_> for Search {
    const ROUTE: Route = Route::GrantSearch;
    type Asked = Asked;
    type Granted = Whose;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        read::json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        asked.holder.iter().fold(Names::default(), |names, holder| names.person(holder, HOLDER))
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Asked) -> Result<Ruling<Whose>, Refusal> {
        let assertion = asked.assertion.as_deref();
        let Some(holder) = &asked.holder else {
            reads_for(case, caller, assertion, None)?;
            if !caller.has(Role::Relying) && !caller.has(Role::Peer) {
                return Err(Refusal::new(Code::WrongRole));
            }
            // The holders whose grants a page shows learn nothing of each other, not even a label.
            return Ok(Ruling::plain(Whose::Grantee(caller.organisation), Vec::new()).unnamed());
        };
        // Like a search: the portal vouches for the holder, whom the log may not know.
        if !caller.has(Role::Portal) {
            return Err(Refusal::new(Code::WrongRole));
        }
        reads_for(case, caller, assertion, Some(holder))?;
        let holder = case.holder(holder).map(|holder| holder.label);
        Ok(Ruling::plain(Whose::Holder(holder), holder.into_iter().collect()))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Whose>,
    ) -> Result<Vec<u8>, Refusal> {
        let (whose, right) = permit.into_parts();
        let (paging, now_ms) = (asked.paging, change.entry().now_ms);
        let (page, shown) = listed(change, move |ledger| {
            let (after, most) = (paging.after.as_ref(), paging.limit.saturating_add(1));
            let (ids, live_only) = match whose {
                Whose::Holder(label) => {
                    let ids = label.map(|label| ledger.state().grants_of(&label, after, most));
                    (ids.unwrap_or_default(), false)
                }
                Whose::Grantee(grantee) => (ledger.state().grants_to(grantee.as_bytes(), after, most), true),
            };
            Ok(grants(ledger, right, ids, paging.limit, now_ms, live_only))
        })
        .await?;
        if matches!(whose, Whose::Grantee(_)) {
            change.concern_apart(&shown, None)?;
        }
        Ok(page)
    }
}

impl Request<'_> {
    fn typed(self) -> Result<Asked, Refusal> {
        let mut wrong = Gather::new();
        let holder = wrong.take(self.holder.map(Holder::typed).transpose().under("holder"));
        let paging = wrong.take(PagingValue { after: self.after, limit: self.limit }.typed());
        let assertion = self.assertion;
        wrong.all(holder.zip(paging).map(|(holder, paging)| Asked { holder, assertion, paging }))
    }
}

/// The grants with these ids, of which one more than `limit` says that there is a next page.
fn grants(
    ledger: &Ledger,
    right: Disclosure,
    mut ids: Vec<Key>,
    limit: usize,
    now_ms: u64,
    live_only: bool,
) -> (Value, Vec<Label>) {
    let more = ids.len() > limit;
    ids.truncate(limit);
    let next = ids.last().filter(|_| more).map(hex::encode);
    let (mut rows, mut shown) = (Vec::new(), Vec::new());
    for id in ids {
        let Some(grant) = ledger.state().grant(&id) else { continue };
        let standing = Standing::of(ledger, &grant, now_ms);
        if live_only && !standing.is_live() {
            continue;
        }
        rows.push(row(ledger, right, &id, &grant, &standing));
        if !shown.contains(&grant.holder) {
            shown.push(grant.holder);
        }
    }
    (json!({"grants": rows, "next": next}), shown)
}

fn portal_vouches(ledger: &Ledger, grant: &Grant, now_ms: u64) -> bool {
    let portal = std::str::from_utf8(&grant.portal).ok().and_then(|code| code.parse::<Uscc>().ok());
    let key = portal.map(|portal| keyed::participant_key(ledger.keyed(), &portal));
    let document = key.and_then(|key| ledger.state().document(DocumentKind::Participant, &key));
    let portal = document.and_then(|found| serde_json::from_slice::<Participant>(&found.value).ok());
    portal.is_some_and(|portal| portal.vouches_at(now_ms))
}

/// How a grant stands, for whoever lists it.
struct Standing {
    state: &'static str,
    /// The portal that made it still vouches for holders.
    vouched: bool,
    /// The links by which an agent made it go on.
    linked: bool,
    /// Uses counted.
    uses: u32,
}

impl Standing {
    fn of(ledger: &Ledger, grant: &Grant, now_ms: u64) -> Self {
        let uses = ledger.state().counter(&grant.key, 0);
        let state = match grant.state {
            GRANT_REVOKED => "revoked",
            _ if now_ms > grant.until_ms => "expired",
            _ if grant.max_uses != 0 && uses >= grant.max_uses => "used-up",
            GRANT_ACTIVE => "active",
            _ => "paused",
        };
        let linked = grant.chain.iter().all(|link| {
            let document = ledger.state().document(DocumentKind::Link, &link.key);
            let found = document.and_then(|found| serde_json::from_slice::<Link>(&found.value).ok());
            found.is_some_and(|found| found.is_live(&grant.holder, link.since_ms, now_ms))
        });
        Self { state, vouched: portal_vouches(ledger, grant, now_ms), linked, uses }
    }

    fn is_live(&self) -> bool {
        matches!(self.state, "active" | "used-up") && self.vouched && self.linked
    }
}

/// The identifiers of a grant's licenses, and the definition of the type of each target, as far as they are known. A license that was
/// erased, or is archived and away, is not named.
pub(super) fn named(
    ledger: &Ledger,
    right: Disclosure,
    grant: &Grant,
) -> (Vec<String>, Vec<Option<LicenseType>>) {
    let definition = |key: &Key| {
        let document = ledger.state().document(DocumentKind::LicenseType, key)?;
        serde_json::from_slice::<LicenseType>(&document.value).ok()
    };
    if grant.target_is_type {
        return (Vec::new(), grant.targets().map(|target| definition(&target.key)).collect());
    }
    let (mut identifiers, mut types) = (Vec::new(), Vec::new());
    for target in grant.targets() {
        let license = ledger.state().license(&target.key);
        let envelope = license.and_then(|license| stored::envelope(ledger, &license, right).ok());
        let identifier = envelope.and_then(|envelope| stored::identifier_in(&envelope).ok());
        let parsed = identifier.as_ref().and_then(|text| text.parse::<CertificateIdentifier>().ok());
        types.push(
            parsed.and_then(|parsed| definition(&keyed::type_key(ledger.keyed(), &parsed.type_code()))),
        );
        identifiers.extend(identifier);
    }
    (identifiers, types)
}

/// The names of the fields that a grant is for, each once.
fn field_names(grant: &Grant, types: &[Option<LicenseType>]) -> Vec<String> {
    let mut names = Vec::new();
    for (target, license_type) in grant.targets().zip(types) {
        let base = BASE_FIELDS.iter().copied().zip((0..64_u32).rev());
        let own = license_type.iter().flat_map(|license_type| &license_type.fields);
        let fields = base.chain(own.map(|field| field.key.as_str()).zip(0..));
        for (name, _) in fields.filter(|(_, bit)| target.fields & 1 << bit != 0) {
            if !names.iter().any(|have| have == name) {
                names.push(name.to_owned());
            }
        }
    }
    names
}

fn row(ledger: &Ledger, right: Disclosure, id: &Key, grant: &Grant, standing: &Standing) -> Value {
    let mut row = Map::new();
    let mut put = |name: &str, value: Value| drop(row.insert(name.to_owned(), value));
    put("grant", hex::encode(id).into());
    put("state", standing.state.into());
    put("grantee", String::from_utf8_lossy(&grant.grantee).into());
    put("portal", String::from_utf8_lossy(&grant.portal).into());
    put("portalVouches", standing.vouched.into());
    let (identifiers, types) = named(ledger, right, grant);
    let several = !grant.more_targets.is_empty();
    if several && !grant.target_is_type {
        put("identifiers", identifiers.into());
    } else if let [identifier] = identifiers.as_slice() {
        put("identifier", identifier.as_str().into());
    }
    if grant.target_is_type {
        let codes: Vec<&str> =
            types.iter().flatten().map(|license_type| license_type.code.as_str()).collect();
        match codes.as_slice() {
            [code] if !several => put("typeCode", (*code).into()),
            _ if several => put("typeCodes", codes.into()),
            _ => {}
        }
    }
    let modes = Mode::ALL.iter().filter(|mode| grant.modes & mode.bit() != 0).map(|mode| mode.name());
    put("modes", modes.collect::<Vec<_>>().into());
    put("fields", field_names(grant, &types).into());
    put("forOneItem", (grant.item_tag != 0).into());
    put("until", rfc3339(grant.until_ms).into());
    if let Some(purpose) = &grant.purpose {
        put("purpose", (&**purpose).into());
    }
    if let Some(scenario) = Scenario::from_number(grant.scenario) {
        put("scenario", scenario.name().into());
    }
    if grant.user_tag != 0 {
        // The pseudonym that the holder's trace shows.
        put("user", hex::encode(grant.user_tag.to_be_bytes()).into());
    }
    if !grant.chain.is_empty() {
        put("linked", standing.linked.into());
    }
    put("uses", standing.uses.into());
    if grant.max_uses != 0 {
        put("maxUses", grant.max_uses.into());
        put("left", grant.max_uses.saturating_sub(standing.uses).into());
    }
    Value::Object(row)
}
