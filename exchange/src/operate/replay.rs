//! `exchange policy replay`: what policies would have said of the decisions in the log.
//!
//! An auditor runs it. It reads page by page, each an entry of the log, so a crash leaves these.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr as _;

use client::{Client, List, LogQuery, ShowPolicies};
use schemas::codes::{Code, Reason};
use schemas::date::rfc3339;
use schemas::identifier::{CertificateIdentifier, LicenseTypeCode, Uscc};
use schemas::kinds::Scenario;
use schemas::license_type::LicenseType;
use schemas::roles::Role;
use schemas::routes::Route;
use serde::{Deserialize, Serialize};
use verifier::command::{self, EXIT_DONE};
use verifier::leaf::{Open, Stage};
use verifier::trace::AuditEntry;

use super::{Caller, runtime, types};
use crate::calling;
use crate::exit::Exit;
use crate::moment::now_ms;
use crate::rights::allowed::holders;
use crate::rights::policy::{Policies, Question, Said};

/// Entries of one page.
const PAGE: u32 = 100;

/// The part of what a holder is told that policies read.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Told {
    licenses: Vec<String>,
    type_code: Option<LicenseTypeCode>,
    mode: Option<String>,
    resource: Option<String>,
    terms: Option<Terms>,
    #[serde(rename = "use")]
    used: Option<Used>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Terms {
    purpose: Option<String>,
    scenario: Option<Scenario>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Used {
    item_code: String,
    business_code: String,
    stage: String,
    purpose: Option<String>,
    scenario: Option<Scenario>,
}

impl Told {
    /// The types that policies were asked about: of each license that the request named.
    fn license_types(&self, route: Route) -> Vec<LicenseTypeCode> {
        // These name no license: those that are told were found.
        if matches!(route, Route::Search | Route::ItemsMaterials) {
            return Vec::new();
        }
        let named = self.licenses.iter().filter_map(|license| CertificateIdentifier::from_str(license).ok());
        let mut types: Vec<LicenseTypeCode> = named.map(|identifier| identifier.type_code()).collect();
        if types.is_empty() {
            types.extend(self.type_code);
        }
        types
    }
}

/// The facts of now that the log does not say.
struct Known {
    roles: BTreeMap<Uscc, Vec<Role>>,
    types: BTreeMap<LicenseTypeCode, &'static str>,
}

/// The outcome of one decision under the policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Same,
    Lost,
    Gained,
    CannotTell,
}

/// Decisions of one organisation, action and type that would have been others.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    organisation: String,
    action: &'static str,
    /// Absent where the request names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    license_type: Option<String>,
    loses: u64,
    gains: u64,
}

/// All that was found.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Replayed {
    policy: String,
    since: String,
    /// Decisions that policies are asked about.
    decisions: u64,
    same: u64,
    loses: u64,
    gains: u64,
    cannot_tell: u64,
    changes: Vec<Row>,
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { decisions, same, loses, gains, cannot_tell, .. } = self;
        for row in &self.changes {
            let Row { organisation, action, loses, gains, license_type } = row;
            let license_type = license_type.as_deref().unwrap_or("-");
            writeln!(f, "{organisation} {action} {license_type}: loses {loses}, gains {gains}")?;
        }
        writeln!(f, "{decisions} decisions: {same} the same, {loses} lost, {gains} gained")?;
        write!(f, "cannot tell: {cannot_tell}")
    }
}

/// Asks policies about the decisions since a moment, or those in force. `why`: purpose and user of the reading.
///
/// # Errors
/// The exchange cannot be reached, refuses, or answers with something else.
pub(super) fn run(
    since: &str,
    policies: Option<Policies>,
    why: [&str; 2],
    auditor: &Caller,
) -> anyhow::Result<u8> {
    let replayed = runtime()?.block_on(async {
        let client = auditor.connect("auditor").await?;
        let policies = match policies {
            Some(policies) => policies,
            None => {
                let shown = client.policies(&ShowPolicies {}).await.map_err(calling::ended)?.value;
                Policies::read(&shown.policies).map_err(Exit::usage)?
            }
        };
        let known = known(&client, auditor).await?;
        read(&client, since, &policies, &known, why).await
    })?;
    if auditor.json {
        command::line(serde_json::to_string(&replayed)?);
    } else {
        command::line(replayed);
    }
    Ok(EXIT_DONE)
}

async fn known(client: &Client, auditor: &Caller) -> anyhow::Result<Known> {
    let mut known = Known { roles: BTreeMap::new(), types: BTreeMap::new() };
    let mut asked = List { after: None, limit: Some(PAGE) };
    loop {
        let page = client.participants(&asked).await.map_err(calling::ended)?.value;
        known.roles.extend(page.participants.into_iter().map(|found| (found.organisation, found.roles)));
        let Some(next) = page.next else { break };
        asked.after = Some(next);
    }
    for published in types::published(&auditor.connect_public("auditor").await?).await? {
        let license_type: LicenseType = serde_json::from_value(published)?;
        known.types.insert(license_type.code, holders(license_type.holders));
    }
    Ok(known)
}

async fn read(
    client: &Client,
    since: &str,
    policies: &Policies,
    known: &Known,
    [purpose, user]: [&str; 2],
) -> anyhow::Result<Replayed> {
    let mut query = LogQuery {
        purpose: purpose.to_owned(),
        user_name: user.to_owned().into(),
        from: Some(since.to_owned()),
        // It ends before the entries that it makes itself.
        to: Some(rfc3339(now_ms())),
        organisation: None,
        license: None,
        holder: None,
        business_code: None,
        code: None,
        from_index: None,
        limit: Some(PAGE),
    };
    let mut rows: BTreeMap<(String, &'static str, Option<String>), Row> = BTreeMap::new();
    let mut replayed =
        Replayed { policy: hex::encode(policies.hash()), since: since.to_owned(), ..Replayed::default() };
    loop {
        let page = client.query_log(&query).await.map_err(calling::ended)?.value;
        for entry in &page.entries {
            let Some((action, license_type, fate)) = judged(entry, policies, known) else { continue };
            replayed.decisions += 1;
            let (lost, gained) = match fate {
                Fate::Same => {
                    replayed.same += 1;
                    continue;
                }
                Fate::CannotTell => {
                    replayed.cannot_tell += 1;
                    continue;
                }
                Fate::Lost => (1, 0),
                Fate::Gained => (0, 1),
            };
            replayed.loses += lost;
            replayed.gains += gained;
            let organisation = entry.entry.organisation.clone();
            let license_type = license_type.map(|code| code.to_string());
            let row = rows.entry((organisation.clone(), action, license_type.clone())).or_default();
            *row = Row {
                organisation,
                action,
                license_type,
                loses: row.loses + lost,
                gains: row.gains + gained,
            };
        }
        let Some(next) = page.next else { break };
        anyhow::ensure!(Some(next) > query.from_index, "the next page does not go on");
        query.from_index = Some(next);
    }
    replayed.changes = rows.into_values().collect();
    Ok(replayed)
}

/// The action and type of a decision, and what policies would have made of it; `None` for an entry that they are not asked about.
fn judged(
    entry: &AuditEntry,
    policies: &Policies,
    known: &Known,
) -> Option<(&'static str, Option<LicenseTypeCode>, Fate)> {
    let open = Open::parse(&entry.entry.open.0).ok()?;
    // The outcome of a call says how it ended.
    if matches!(open.stage, Stage::Intent) {
        return None;
    }
    let route = Route::from_number(open.route)?;
    route.class()?;
    let organisation: Option<Uscc> = entry.entry.organisation.parse().ok();
    let told = entry.told.iter().flatten().map(|told| told.document.as_str());
    let said = told.chain(entry.asked.as_deref()).find_map(|text| serde_json::from_str::<Told>(text).ok());
    let is_told = said.is_some();
    let said = said.unwrap_or_default();
    let class = route.class_of(said.resource.is_some(), said.mode.is_some())?;
    let license_types = said.license_types(route);
    let license_type = license_types.first().copied();
    let with = |fate| Some((class.name(), license_type, fate));
    let was_permitted = open.code == Code::Ok.number();
    let by_policy = [Reason::PolicyDenied, Reason::PolicyFailed].iter().any(|one| one.name() == entry.reason);
    if !was_permitted && !by_policy {
        // The floor refused it, or its caller could not ask.
        return with(Fate::Same);
    }
    let Some((organisation, roles)) = organisation.and_then(|one| Some((one, known.roles.get(&one)?))) else {
        return with(Fate::CannotTell);
    };
    // Without what was told, the facts of the request are not known; nor is the type where the request did not say it in the log.
    let unknown_type = license_type.is_none() && policies.read_type(class);
    if (!is_told && policies.read_request(class)) || unknown_type {
        return with(Fate::CannotTell);
    }
    let terms = said.terms.as_ref();
    let used = said.used.as_ref();
    let question = Question {
        class,
        organisation: &organisation,
        registered: 0,
        roles,
        license_type,
        published: (
            0,
            license_type.map_or("none", |code| known.types.get(&code).copied().unwrap_or("unknown")),
        ),
        purpose: used.map_or_else(|| terms?.purpose.as_deref(), |used| used.purpose.as_deref()),
        scenario: used.map_or_else(|| terms?.scenario, |used| used.scenario),
        item: used.map(|used| used.item_code.as_str()),
        stage: used.map(|used| used.stage.as_str()),
        mode: said.mode.as_deref(),
        case_number: used.map(|used| used.business_code.as_str()),
        user_name: entry.user_name.as_deref(),
    };
    let further = license_types.get(1..).unwrap_or_default().iter();
    let further = further.map(|code| Question {
        license_type: Some(*code),
        published: (0, known.types.get(code).copied().unwrap_or("unknown")),
        ..question
    });
    let permits =
        std::iter::once(question).chain(further).all(|question| policies.ask(&question) == Said::Permits);
    with(match (was_permitted, permits) {
        (true, true) | (false, false) => Fate::Same,
        (true, false) => Fate::Lost,
        (false, true) => Fate::Gained,
    })
}
