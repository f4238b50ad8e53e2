//! Shared data against a real exchange: published, applied for, granted by rule or by its provider, queried, traced.

use std::collections::BTreeMap;

use client::{
    ApplicationAction, ApplicationSearch, ApplicationState, ApplicationTransition, Applied, Apply, Approve,
    Client, Error, GrantRule, Holder, Personal, ProposalKind, Propose, RecordsIngest, RecordsQuery,
    ResourceAction, ResourceSearch, ResourceState, ResourceTransition, ResourceWrite, Scope, Trace,
    UseContext,
};
use schemas::codes::Code;
use schemas::date::Date;
use schemas::holder::HolderRef;
use schemas::resource::{Condition, Ground, Resource, Supply};
use schemas::routes::Route;
use schemas::synthetic::Synthetic;
use schemas::workday::{Calendar, Due, due};
use serde_json::{Value, json};
use tests::{Call, Draft, Server, Setup, draft, eventually, natural, shared};

/// Places in the samples.
const POPULATION: usize = 0;
const LEGAL_PERSON: usize = 1;

fn client(server: &Server, name: &str) -> Client {
    server.party(name).client().trust(server.trust.clone()).build()
}

fn context() -> UseContext {
    serde_json::from_value(tests::use_context()).unwrap()
}

fn item() -> String {
    tests::use_context()["itemCode"].as_str().unwrap().to_owned()
}

/// The code of a refusal.
fn refused(error: Error) -> Code {
    match error {
        Error::Refused(refused) => Code::from_name(refused.problem.code.as_deref().unwrap()).unwrap(),
        error => panic!("not refused: {error}"),
    }
}

/// A sample under a code of its own.
fn sample(place: usize, number: u32) -> Resource {
    let sample = Resource::samples().remove(place);
    Resource { code: format!("3990010001/{number:06}"), ..sample }
}

async fn publish(provider: &Client, resource: &Resource) {
    let written = provider.write_resource(&ResourceWrite { resource: resource.clone() }).await.unwrap();
    assert_eq!(written.state, ResourceState::Draft);
    let step = take(resource, ResourceAction::Publish);
    assert_eq!(provider.transition_resource(&step).await.unwrap().state, ResourceState::Published);
}

fn take(resource: &Resource, action: ResourceAction) -> ResourceTransition {
    ResourceTransition { resource: resource.code.clone(), action, reason: "测试".to_owned() }
}

fn scope(fields: &[&str], daily_limit: Option<u32>) -> Scope {
    Scope {
        fields: fields.iter().map(|field| (*field).to_owned()).collect(),
        clear: Vec::new(),
        regions: Vec::new(),
        daily_limit,
        feed: false,
        until: "2099-12-31".parse().unwrap(),
    }
}

fn apply(resource: &Resource, scope: Scope) -> Apply {
    Apply {
        resource: resource.code.clone(),
        item_code: item(),
        item_name: "测试事项".to_owned(),
        purpose: "测试核对".to_owned(),
        scope,
    }
}

fn answer(applied: &Applied, action: ApplicationAction) -> ApplicationTransition {
    ApplicationTransition {
        application: applied.application.clone(),
        action,
        terms: None,
        ground: None,
        basis: None,
        note: None,
    }
}

fn row(pairs: &[(&str, &str)]) -> BTreeMap<String, Personal> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), Personal::from(*value))).collect()
}

/// A person's row, in a region.
fn person(draft: &Draft, region: &str) -> BTreeMap<String, Personal> {
    let number = draft.holder().number().to_owned();
    row(&[("idNumber", &number), ("name", "测试人"), ("regionCode", region), ("status", "1")])
}

fn ingest(resource: &Resource, rows: Vec<BTreeMap<String, Personal>>) -> RecordsIngest {
    RecordsIngest {
        resource: resource.code.clone(),
        first_line: Some(1),
        rows,
        removed: Vec::new(),
        erased: Vec::new(),
    }
}

fn query(resource: &Resource, draft: &Draft) -> RecordsQuery {
    RecordsQuery {
        resource: resource.code.clone(),
        holder: Some(Holder::from(draft.holder())),
        key: None,
        fields: None,
        context: context(),
    }
}

#[tokio::test]
async fn two_departments_go_from_publishing_to_an_answered_query() {
    let mut server = Setup::new().start().await;
    let [provider, bank, approval] = ["provider", "bank", "approval"].map(|name| client(&server, name));
    let (open, closed) = (sample(LEGAL_PERSON, 1), sample(POPULATION, 8));
    publish(&provider, &open).await;
    publish(&provider, &closed).await;
    let subject = draft(&natural());
    let company = row(&[
        ("creditCode", "91350102XX3DEMPQ6R"),
        ("organisationName", "测试单位"),
        ("regionCode", "350102"),
        ("status", "在营"),
    ]);
    assert_eq!(provider.ingest_records(&ingest(&open, vec![company])).await.unwrap().accepted, 1);
    let brought = provider.ingest_records(&ingest(&closed, vec![person(&subject, "440106")])).await.unwrap();
    assert_eq!((brought.accepted, brought.rejected), (1, 0));

    // Class 1: granted by rule, in the answer itself.
    let by_rule = bank.apply(&apply(&open, scope(&["organisationName", "status"], None))).await.unwrap();
    assert_eq!((by_rule.state, by_rule.rule), (ApplicationState::Provided, Some(GrantRule::Unconditional)));
    let asked = RecordsQuery {
        resource: open.code.clone(),
        holder: Some(
            serde_json::from_value(json!({"typeCode": "001", "number": "91350102XX3DEMPQ6R"})).unwrap(),
        ),
        key: None,
        fields: Some(vec!["status".to_owned()]),
        context: context(),
    };
    let found = bank.query_records(&asked).await.unwrap();
    assert_eq!(found.record.as_ref().unwrap().len(), 1);
    assert_eq!(found.record.as_ref().unwrap()["status"], *"在营");
    assert!(!found.approval.passing_on);

    // Class 2: a query without an approval is told where to apply, then the provider answers.
    let early = refused(approval.query_records(&query(&closed, &subject)).await.unwrap_err());
    assert_eq!(early, Code::ApprovalNeeded);
    let pending = approval.apply(&apply(&closed, scope(&["name", "status"], Some(2)))).await.unwrap();
    assert_eq!(pending.state, ApplicationState::Pending);
    assert!(pending.clock.is_some());
    let again = refused(approval.query_records(&query(&closed, &subject)).await.unwrap_err());
    assert_eq!(again, Code::ApprovalNeeded);
    let agreed = answer(&pending, ApplicationAction::Approve);
    assert_eq!(provider.transition_application(&agreed).await.unwrap().state, ApplicationState::Provided);
    let found = approval.query_records(&query(&closed, &subject)).await.unwrap();
    let record = found.record.as_ref().unwrap();
    assert_eq!(record["name"], *"测**", "masked");
    assert_eq!(record["status"], *"1");
    assert_eq!((record.len(), found.masked.clone()), (2, vec!["name".to_owned()]));
    let listed = approval.applications(&ApplicationSearch::default()).await.unwrap();
    assert_eq!(listed.applications[0].state, ApplicationState::InUse);

    // What is acknowledged is found after a kill, and the daily limit still counts.
    server.kill();
    server.start();
    let approval = client(&server, "approval");
    let outside = RecordsQuery { fields: Some(vec!["address".to_owned()]), ..query(&closed, &subject) };
    let outside = refused(approval.query_records(&outside).await.unwrap_err());
    assert_eq!(outside, Code::ApprovalNeeded);
    assert!(approval.query_records(&query(&closed, &subject)).await.unwrap().found);
    let spent = refused(approval.query_records(&query(&closed, &subject)).await.unwrap_err());
    assert_eq!(spent, Code::QuotaSpent);

    // Each query stands in the subject's trace, permitted or not, from the moment the log knows the subject.
    let holder = Holder::from(subject.holder());
    let trace = Trace { holder, agent: None, assertion: None, before: None, limit: None, context: context() };
    let portal = client(&server, "portal");
    eventually("each query stands in the trace", || async {
        let page = portal.trace(&trace).await.unwrap();
        let told = page.entries.iter().filter_map(|entry| entry.told.as_ref());
        let told = told.map(|told| serde_json::from_str::<Value>(&told.document).unwrap());
        let queries = told.filter(|told| told["resource"] == closed.code.as_str()).count();
        assert!(queries <= 4, "{queries}");
        (queries == 4).then_some(())
    })
    .await;

    // A withdrawn resource's rows go with it, and the folder is whole.
    let provider = client(&server, "provider");
    provider.transition_resource(&take(&closed, ResourceAction::Withdraw)).await.unwrap();
    server.kill();
    server.start();
    let gone = client(&server, "approval").query_records(&query(&closed, &subject)).await.unwrap_err();
    assert_eq!(refused(gone), Code::UnknownResource);
    assert_eq!(server.log_verify()["verdict"], "valid");
}

#[tokio::test]
async fn a_county_sees_its_own_rows_and_a_row_that_is_taken_out_is_gone() {
    let turn = shared(Setup::new).await;
    let server = &*turn;
    let [provider, bank] = ["provider", "bank"].map(|name| client(server, name));
    let conditions = vec![Condition::NamedItem];
    let resource = Resource { agreed: agreed(server), conditions, ..sample(POPULATION, 2) };
    publish(&provider, &resource).await;
    let (own, other) = (draft(&natural()), draft(&natural()));
    let rows = vec![person(&own, "440106"), person(&other, "440203")];
    assert_eq!(provider.ingest_records(&ingest(&resource, rows)).await.unwrap().accepted, 2);
    let county = Scope { regions: vec!["4401".to_owned()], ..scope(&["status"], Some(100)) };
    let applied = bank.apply(&apply(&resource, county)).await.unwrap();
    assert_eq!((applied.state, applied.rule), (ApplicationState::Provided, Some(GrantRule::Agreed)));
    assert!(bank.query_records(&query(&resource, &own)).await.unwrap().found);
    let hidden = bank.query_records(&query(&resource, &other)).await.unwrap();
    assert!(!hidden.found && hidden.record.is_none() && hidden.updated_at.is_none());
    let number = own.holder().number().to_owned();
    let removed = vec![row(&[("idNumber", &number)])];
    let taken = RecordsIngest { removed, ..ingest(&resource, Vec::new()) };
    assert_eq!(provider.ingest_records(&taken).await.unwrap().removed, 1);
    assert!(!bank.query_records(&query(&resource, &own)).await.unwrap().found);
}

fn agreed(server: &Server) -> Vec<schemas::resource::Agreed> {
    let organisation = server.organisation("bank").as_str().to_owned();
    vec![schemas::resource::Agreed { organisation, item_code: item() }]
}

#[tokio::test]
async fn rows_that_do_not_fit_are_named_and_the_others_taken() {
    let turn = shared(Setup::new).await;
    let server = &*turn;
    let provider = client(server, "provider");
    let resource = sample(POPULATION, 3);
    publish(&provider, &resource).await;
    let good = draft(&natural());
    let mut wrong = person(&draft(&natural()), "44");
    wrong.insert("status".to_owned(), Personal::from("9"));
    let mut unknown = person(&draft(&natural()), "44");
    unknown.insert("secret".to_owned(), Personal::from("x"));
    let twice = person(&good, "4401");
    let mut long = person(&draft(&natural()), "44");
    long.insert("name".to_owned(), Personal::from("长".repeat(30_000).as_str()));
    let rows = vec![person(&good, "44"), wrong, unknown, twice, long];
    let request = RecordsIngest { first_line: Some(100), ..ingest(&resource, rows) };
    let call = Call::new(Route::RecordsIngest, &serde_json::to_value(&request).unwrap());
    let reply = server.party("provider").send(&call).await.expect(200);
    assert_eq!((&reply.json["accepted"], &reply.json["rejected"]), (&json!(1), &json!(4)));
    let lines: Vec<u64> =
        reply.json["rejects"].as_array().unwrap().iter().map(|row| row["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [101, 102, 103, 104]);
    assert_eq!(reply.json["rejects"][0]["errors"][0]["pointer"], "/status");
    assert!(!reply.json.to_string().contains("secret"), "the caller's own word is not given back");
    // The same key brings nothing in twice.
    let again = server.party("provider").send(&call).await.expect(200);
    assert_eq!(again.receipt().index, reply.receipt().index);
    let none = refused(provider.ingest_records(&ingest(&resource, Vec::new())).await.unwrap_err());
    assert_eq!(none, Code::BadRecords);
    let others = refused(client(server, "bank").ingest_records(&request).await.unwrap_err());
    assert_eq!(others, Code::WrongRole);
    let file = Resource { supply: Supply::File, central_copy: false, ..sample(POPULATION, 4) };
    publish(&provider, &file).await;
    let refusal =
        refused(provider.ingest_records(&ingest(&file, vec![person(&good, "44")])).await.unwrap_err());
    assert_eq!(refusal, Code::ResourceRefused);
}

#[tokio::test]
async fn a_suspended_resource_is_not_answered_and_a_withdrawn_one_is_gone() {
    let turn = shared(Setup::new).await;
    let server = &*turn;
    let [provider, bank] = ["provider", "bank"].map(|name| client(server, name));
    let resource = sample(LEGAL_PERSON, 5);
    publish(&provider, &resource).await;
    bank.apply(&apply(&resource, scope(&["status"], None))).await.unwrap();
    let asked = RecordsQuery {
        holder: Some(
            serde_json::from_value(json!({"typeCode": "001", "number": "91350102XX3DEMPQ6R"})).unwrap(),
        ),
        ..query(&resource, &draft(&natural()))
    };
    assert!(!bank.query_records(&asked).await.unwrap().found);
    for (action, code) in [
        (ResourceAction::Suspend, Some(Code::ResourceRefused)),
        (ResourceAction::Resume, None),
        (ResourceAction::Withdraw, Some(Code::UnknownResource)),
    ] {
        provider.transition_resource(&take(&resource, action)).await.unwrap();
        let answer = bank.query_records(&asked).await;
        assert_eq!(answer.err().map(refused), code, "{action:?}");
    }
    let search = ResourceSearch { code: Some(resource.code.clone()), ..ResourceSearch::default() };
    assert_eq!(bank.resources(&search).await.unwrap().total, 0);
    let own = provider.resources(&search).await.unwrap();
    assert_eq!((own.total, own.resources[0].state), (1, ResourceState::Withdrawn));
    let steps: Vec<&str> = own.resources[0].history.iter().map(|step| step.action.as_str()).collect();
    assert_eq!(steps, ["draft", "publish", "suspend", "resume", "withdraw"]);
}

#[tokio::test]
async fn an_application_is_refused_on_a_ground_disputed_settled_and_agreed_on() {
    let turn = shared(Setup::new).await;
    let server = &*turn;
    let [provider, bank, operator] = ["provider", "bank", "operator"].map(|name| client(server, name));
    let resource = sample(POPULATION, 6);
    publish(&provider, &resource).await;
    let applied = bank.apply(&apply(&resource, scope(&["name"], Some(5)))).await.unwrap();
    let refusal = ApplicationTransition {
        ground: Some(Ground::Excessive),
        basis: Some("测试依据".to_owned()),
        ..answer(&applied, ApplicationAction::Refuse)
    };
    let groundless = ApplicationTransition { ground: None, basis: None, ..refusal.clone() };
    let wrong = refused(provider.transition_application(&groundless).await.unwrap_err());
    assert_eq!(wrong, Code::BadApplication);
    assert_eq!(provider.transition_application(&refusal).await.unwrap().state, ApplicationState::Refused);
    let agreeing = answer(&applied, ApplicationAction::Approve);
    let early = refused(provider.transition_application(&agreeing).await.unwrap_err());
    assert_eq!(early, Code::ApplicationRefused);
    let said = |action| ApplicationTransition { note: Some("测试".to_owned()), ..answer(&applied, action) };
    bank.transition_application(&said(ApplicationAction::Dispute)).await.unwrap();
    let disputed = ApplicationSearch { disputed: true, ..ApplicationSearch::default() };
    let seen = operator.applications(&disputed).await.unwrap();
    assert!(seen.applications.iter().any(|one| one.application == applied.application));
    assert_eq!(provider.transition_application(&agreeing).await.unwrap().state, ApplicationState::Provided);
    operator.transition_application(&said(ApplicationAction::Settle)).await.unwrap();
    let wider = ApplicationTransition { terms: Some(scope(&["name", "status"], Some(5))), ..agreeing };
    let other = refused(client(server, "approval").transition_application(&wider).await.unwrap_err());
    assert_eq!(other, Code::NotPermitted, "an application of others");
    let ended = bank.transition_application(&answer(&applied, ApplicationAction::Stop)).await.unwrap();
    assert_eq!(ended.state, ApplicationState::Stopped);
    let refusal = refused(bank.query_records(&query(&resource, &draft(&natural()))).await.unwrap_err());
    assert_eq!(refusal, Code::ApprovalNeeded);
}

/// Found by the review of the code: none of these may be had by a change after the approval, or before it.
#[tokio::test]
async fn an_approval_is_no_wider_than_who_gave_it_may_give() {
    let turn = shared(Setup::new).await;
    let server = &*turn;
    let [provider, bank, operator] = ["provider", "bank", "operator"].map(|name| client(server, name));
    let changed = async |resource: &Resource| {
        let write = ResourceWrite { resource: resource.clone() };
        provider.write_resource(&write).await.map_err(refused).map(|_| ())
    };
    // A level is not lowered to do without the operator, and one that is raised asks for the operator.
    let mut resource = Resource { level: 4, ..sample(POPULATION, 21) };
    publish(&provider, &resource).await;
    let subject = draft(&natural());
    provider.ingest_records(&ingest(&resource, vec![person(&subject, "44")])).await.unwrap();
    let mut asked = scope(&["name", "status"], Some(50));
    asked.clear = vec!["name".to_owned(), "status".to_owned()];
    let applied = bank.apply(&apply(&resource, asked)).await.unwrap();
    let lower = Resource { level: 3, ..resource.clone() };
    assert_eq!(changed(&lower).await, Err(Code::BadResource));
    let agreed =
        provider.transition_application(&answer(&applied, ApplicationAction::Approve)).await.unwrap();
    assert_eq!(agreed.state, ApplicationState::Countersign);
    assert_eq!(
        bank.query_records(&query(&resource, &subject)).await.map(|_| ()).map_err(refused),
        Err(Code::ApprovalNeeded)
    );
    let signed =
        operator.transition_application(&answer(&applied, ApplicationAction::Countersign)).await.unwrap();
    assert_eq!(signed.state, ApplicationState::Provided);
    let found = bank.query_records(&query(&resource, &subject)).await.unwrap();
    assert_eq!((found.record.as_ref().unwrap()["name"] == *"测试人", found.masked.len()), (true, 0));
    // A field that is guarded more strictly later is masked, though it was asked for in clear.
    let status = resource.fields.iter_mut().find(|field| field.key == "status").unwrap();
    status.level = 4;
    changed(&resource).await.unwrap();
    let found = bank.query_records(&query(&resource, &subject)).await.unwrap();
    assert_eq!(found.record.as_ref().unwrap()["status"], *"****");
    // Nothing of class 3 is answered, whatever was agreed on.
    let closed = Resource { sharing_class: 3, conditions: Vec::new(), ..resource };
    changed(&closed).await.unwrap();
    let answered = bank.query_records(&query(&closed, &subject)).await.map(|_| ()).map_err(refused);
    assert_eq!(answered, Err(Code::ResourceRefused));

    // A use that the provider has ended is not granted again by rule.
    let open = sample(LEGAL_PERSON, 22);
    publish(&provider, &open).await;
    let first = bank.apply(&apply(&open, scope(&["status"], None))).await.unwrap();
    let end = ApplicationTransition {
        ground: Some(Ground::Excessive),
        basis: Some("测试依据".to_owned()),
        ..answer(&first, ApplicationAction::Stop)
    };
    provider.transition_application(&end).await.unwrap();
    let again = bank.apply(&apply(&open, scope(&["status"], None))).await.unwrap();
    assert_eq!((again.state, again.rule), (ApplicationState::Pending, None));

    // An answer is given again under its key only as long as nothing of the right has changed.
    let asked = RecordsQuery {
        holder: Some(
            serde_json::from_value(json!({"typeCode": "001", "number": "91350102XX3DEMPQ6R"})).unwrap(),
        ),
        ..query(&open, &subject)
    };
    provider.transition_application(&answer(&again, ApplicationAction::Approve)).await.unwrap();
    let call = Call::new(Route::RecordsQuery, &serde_json::to_value(&asked).unwrap()).key(&tests::key());
    let mut party = server.party("bank");
    let first = party.send(&call).await.expect(200).receipt().index;
    assert_eq!(party.send(&call).await.expect(200).receipt().index, first, "the same answer");
    changed(&Resource { name: "新名称".to_owned(), ..open.clone() }).await.unwrap();
    assert_ne!(party.send(&call).await.expect(200).receipt().index, first, "another answer");

    // A key field that is guarded is not guessed by asking whether there is such a row.
    let education =
        Resource::samples().into_iter().find(|one| one.key.len() == 2 && one.region.is_none()).unwrap();
    let education = Resource { code: "3990010001/000023".to_owned(), ..education };
    publish(&provider, &education).await;
    let applied = bank.apply(&apply(&education, scope(&["graduated"], Some(9)))).await.unwrap();
    provider.transition_application(&answer(&applied, ApplicationAction::Approve)).await.unwrap();
    let guess = RecordsQuery { key: Some(row(&[("degree", "本科")])), ..query(&education, &subject) };
    assert_eq!(bank.query_records(&guess).await.map(|_| ()).map_err(refused), Err(Code::ApprovalNeeded));
}

/// A calendar of a year with the thirteen working days behind `day` off, or the first of the year.
fn holidays(year: i32, day: Date) -> Calendar {
    let first = Date::from_civil(year, 1, 1).unwrap();
    let days = |from: i32| (from..).map_while(Date::from_days).take_while(move |day| day.civil().0 == year);
    let weekday = |day: &Date| !matches!((day.days() + 4).rem_euclid(7), 0 | 6);
    let behind = days(day.days() + 1).filter(weekday);
    let before = days(first.days()).filter(weekday).filter(move |other| *other <= day);
    let mut off: Vec<Date> = if day < first {
        days(first.days()).filter(weekday).take(13).collect()
    } else {
        behind.chain(before).take(13).collect()
    };
    off.sort_unstable();
    Calendar {
        year,
        notice: format!("国办发明电〔{}〕99号", year - 1),
        published: day.to_string(),
        source: "测试".to_owned(),
        off: off.iter().map(Date::to_string).collect(),
        work: Vec::new(),
    }
}

#[tokio::test]
async fn a_calendar_takes_two_operators_and_open_clocks_are_counted_anew() {
    let server = Setup::new().start().await;
    let [provider, bank, operator, operator2] =
        ["provider", "bank", "operator", "operator2"].map(|name| client(&server, name));
    let resource = sample(POPULATION, 7);
    publish(&provider, &resource).await;
    let applied = bank.apply(&apply(&resource, scope(&["name"], Some(5)))).await.unwrap();
    let clock = applied.clock.clone().unwrap();
    let start = Date::at(i64::try_from(clock.since_ms / 1_000).unwrap());
    let year = start.civil().0;
    let calendars = [holidays(year, start), holidays(year + 1, start)];
    let unfounded = Calendar { notice: String::new(), ..calendars[1].clone() };
    // Days of a year that the notice is not about, and holidays that no weekend makes up for.
    let invented = Calendar { year: year + 2, ..calendars[1].clone() };
    let mut not_made_up = calendars[1].clone();
    not_made_up.off.pop();
    let bad = [&unfounded, &invented, &not_made_up].map(|calendar| (calendar, Some(Code::BadCalendar)));
    for (calendar, code) in calendars.iter().map(|calendar| (calendar, None)).chain(bad) {
        let propose = Propose {
            kind: ProposalKind::PublishCalendar,
            holder: None,
            participant: None,
            license_type: None,
            calendar: Some(calendar.clone()),
            address: None,
            policies: None,
            reason: "测试".to_owned(),
        };
        let proposed = operator.propose(&propose).await;
        let Some(code) = code else {
            let proposal = proposed.unwrap().proposal.clone();
            let approve = Approve {
                proposal,
                participant: None,
                license_type: None,
                calendar: propose.calendar,
                address: None,
                policies: None,
            };
            let own = refused(operator.approve(&approve).await.unwrap_err());
            assert_eq!(own, Code::ProposalRefused);
            let unseen = Approve { calendar: None, ..approve.clone() };
            let unseen = refused(operator2.approve(&unseen).await.unwrap_err());
            assert_eq!(unseen, Code::ProposalRefused);
            operator2.approve(&approve).await.unwrap();
            continue;
        };
        assert_eq!(refused(proposed.unwrap_err()), code);
    }
    let counted = due(start, clock.working_days, |year| calendars.iter().find(|one| one.year == year));
    assert!(matches!(counted, Due::On { .. }) && counted != clock.due, "{counted:?}");
    eventually("the clock is counted anew", || async {
        let page = bank.applications(&ApplicationSearch::default()).await.unwrap();
        page.applications
            .iter()
            .any(|one| one.clock.as_ref().is_some_and(|clock| clock.due == counted))
            .then_some(())
    })
    .await;
    assert_eq!(server.log_verify()["verdict"], "valid");
}

/// The same figures from the exchange's own count, and from the list of applications by a program that shares no code with it.
#[tokio::test]
async fn the_indicators_are_counted_twice_and_agree() {
    let server = Setup::new().start().await;
    let [provider, bank, approval] = ["provider", "bank", "approval"].map(|name| client(&server, name));
    let (open, closed) = (sample(LEGAL_PERSON, 9), sample(POPULATION, 10));
    publish(&provider, &open).await;
    publish(&provider, &closed).await;
    for party in [&bank, &approval] {
        party.apply(&apply(&open, scope(&["status"], None))).await.unwrap();
    }
    let unwanted = bank.apply(&apply(&closed, scope(&["name"], Some(1)))).await.unwrap();
    let refusal = ApplicationTransition {
        ground: Some(Ground::NoDuty),
        basis: Some("测试依据".to_owned()),
        ..answer(&unwanted, ApplicationAction::Refuse)
    };
    provider.transition_application(&refusal).await.unwrap();
    approval.apply(&apply(&closed, scope(&["name"], Some(1)))).await.unwrap();
    let data = server.data.to_string();
    // A query that is served, one for another item, and one of a resource that is suspended.
    let company = Holder::from(&HolderRef::new("001", Synthetic::numbered_uscc(7).as_str()).unwrap());
    let asked = RecordsQuery {
        resource: open.code.clone(),
        holder: Some(company),
        key: None,
        fields: None,
        context: context(),
    };
    assert!(!approval.query_records(&asked).await.unwrap().found);
    let other = UseContext { item_code: format!("{}9", &item()[..item().len() - 1]), ..context() };
    let other = RecordsQuery { context: other, ..asked.clone() };
    assert_eq!(refused(approval.query_records(&other).await.unwrap_err()), Code::ApprovalNeeded);
    provider.transition_resource(&take(&open, ResourceAction::Suspend)).await.unwrap();
    assert_eq!(refused(bank.query_records(&asked).await.unwrap_err()), Code::ResourceRefused);

    let question = json!({"purpose": "测试统计", "userName": "审计员"});
    let folder = &server.folder;
    std::fs::write(folder.join("question.json"), question.to_string()).unwrap();
    let [question, log] = ["question.json", "log.ndjson"].map(|name| folder.join(name).display().to_string());
    // An export reads what is published by now.
    let own = eventually("the log shows three calls", || async {
        let exported = server.run(&["log", "export", "--query", &question, "--out", &log, "--server", &data]);
        assert_eq!(exported.status, Some(0), "{exported:?}");
        let own = server.run(&["indicators", "--log", &log, "--server", &data]);
        assert_eq!(own.status, Some(0), "{own:?}");
        let own: Value = serde_json::from_str(&own.stdout).unwrap();
        if own["all"]["calls"]["calls"] == 3 {
            return Some(own);
        }
        std::fs::remove_file(&log).unwrap();
        None
    })
    .await;
    assert_eq!((&own["all"]["applications"], &own["all"]["grantedByRule"]), (&json!(4), &json!(2)));
    assert_eq!(own["all"]["instantPermille"], 500);
    let calls = json!({
        "calls": 3, "served": 1, "servedPermille": 333, "causes": {"approval-needed": 1, "resource-refused": 1},
    });
    assert_eq!(own["all"]["calls"], calls);

    let list = server.run(&["application", "list", "--as", "auditor", "--server", &data]);
    assert_eq!(list.stdout.lines().count(), 4, "{list:?}");
    let resources = server.run(&["resource", "list", "--as", "auditor", "--server", &data]);
    let listed = server.folder.join("resources.ndjson");
    std::fs::write(&listed, &resources.stdout).unwrap();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/calendars");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = schemas::date::rfc3339(u64::try_from(now.as_millis()).unwrap());
    let mut python = std::process::Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/indicators.py"))
        .args(["--now", &now, "--log", &log, "--resources"])
        .arg(&listed)
        .args(["2025", "2026"].map(|year| format!("{folder}/{year}.json")))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut python.stdin.take().unwrap(), list.stdout.as_bytes()).unwrap();
    let counted = python.wait_with_output().unwrap();
    assert!(counted.status.success());
    assert_eq!(serde_json::from_slice::<Value>(&counted.stdout).unwrap(), own);
}
