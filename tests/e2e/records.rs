//! The exchange's work on hosted rows beside queries: quality and freshness, open data, feeds, comparison.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use bytes::Bytes;
use client::{
    Agreement, ApplicationAction, ApplicationSearch, ApplicationState, ApplicationTransition, Apply, Client,
    Comparison, Error, FeedPage, Holder, MismatchSearch, MismatchState, Personal, RecordsCompare,
    RecordsFeed, RecordsIngest, ResourceAction, ResourceSearch, ResourceTransition, ResourceWrite, Scope,
    Trace, UseContext,
};
use schemas::codes::Code;
use schemas::resource::{Agreed, Compared, Condition, Openness, Resource};
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{Call, Draft, Reply, Server, Setup, draft, eventually, natural, shared};

/// Places in the samples.
const POPULATION: usize = 0;
const PLACES: usize = 2;

fn client(server: &Server, name: &str) -> Client {
    server.party(name).client().trust(server.trust.clone()).build()
}

/// A sample under a code of its own.
fn sample(place: usize, number: u32) -> Resource {
    let sample = Resource::samples().remove(place);
    Resource { code: format!("3990020001/{number:06}"), ..sample }
}

fn context() -> UseContext {
    serde_json::from_value(tests::use_context()).unwrap()
}

/// The code of a refusal.
fn refused(error: Error) -> Code {
    match error {
        Error::Refused(refused) => Code::from_name(refused.problem.code.as_deref().unwrap()).unwrap(),
        error => panic!("not refused: {error}"),
    }
}

async fn take(provider: &Client, resource: &Resource, action: ResourceAction) {
    let reason = "测试".to_owned();
    provider
        .transition_resource(&ResourceTransition { resource: resource.code.clone(), action, reason })
        .await
        .unwrap();
}

async fn publish(provider: &Client, resource: &Resource) {
    provider.write_resource(&ResourceWrite { resource: resource.clone() }).await.unwrap();
    take(provider, resource, ResourceAction::Publish).await;
}

fn row(pairs: &[(&str, &str)]) -> BTreeMap<String, Personal> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), Personal::from(*value))).collect()
}

fn ingest(resource: &Resource, rows: Vec<BTreeMap<String, Personal>>) -> RecordsIngest {
    RecordsIngest {
        resource: resource.code.clone(),
        first_line: None,
        rows,
        removed: Vec::new(),
        erased: Vec::new(),
    }
}

async fn quality(client: &Client, resource: &Resource) -> client::Quality {
    let search = ResourceSearch { code: Some(resource.code.clone()), ..ResourceSearch::default() };
    client.resources(&search).await.unwrap().resources[0].quality.clone().unwrap()
}

#[tokio::test]
async fn the_catalogue_says_how_fresh_and_good_rows_are() {
    let mut server = Setup::new().start().await;
    let [provider, bank] = ["provider", "bank"].map(|name| client(&server, name));
    let resource = sample(POPULATION, 1);
    publish(&provider, &resource).await;
    let before = quality(&bank, &resource).await;
    assert!(before.stale && before.stale_since.is_none(), "nothing ever came");
    assert_eq!((before.rows, before.score, before.timeliness), (0, Some(0), Some(0)));
    let person = |status: &str, address: Option<&str>| {
        let number = draft(&natural()).holder().number().to_owned();
        let mut person =
            row(&[("idNumber", &number), ("name", "测试人"), ("regionCode", "440106"), ("status", status)]);
        person.extend(address.map(|address| ("address".to_owned(), Personal::from(address))));
        person
    };
    let first = person("1", Some("测试路"));
    let rows = vec![first.clone(), person("1", None), person("9", None), first];
    let brought = provider.ingest_records(&ingest(&resource, rows)).await.unwrap();
    assert_eq!((brought.accepted, brought.rejected), (2, 2));
    server.kill();
    server.start();
    let [provider, bank] = ["provider", "bank"].map(|name| client(&server, name));
    let found = quality(&bank, &resource).await;
    assert!(!found.stale && found.last_batch_at.is_some());
    let scores = [found.completeness, found.validity, found.uniqueness, found.timeliness, found.score];
    assert_eq!((found.rows, scores), (2, [Some(50), Some(75), Some(66), None, Some(63)]));
    // Batches of one minute are each counted, also those that come at once.
    let more = (0..8).map(|_| ingest(&resource, vec![person("1", None)])).collect::<Vec<_>>();
    let (a, b, c, d) = tokio::join!(
        provider.ingest_records(&more[0]),
        provider.ingest_records(&more[1]),
        provider.ingest_records(&more[2]),
        provider.ingest_records(&more[3])
    );
    assert!([a, b, c, d].into_iter().all(|brought| brought.unwrap().accepted == 1));
    // Rows are counted once they can be found, which is a moment after their answer.
    let counted = || async { Some(quality(&bank, &resource).await).filter(|found| found.rows == 6) };
    let found = eventually("the rows are counted", counted).await;
    assert_eq!((found.completeness, found.timeliness), (Some(16), Some(100)));
    assert!(quality(&provider, &resource).await.score.is_some());
}

/// A header of an answer.
fn header(reply: &Reply, name: &str) -> String {
    reply.headers[name].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn open_data_are_for_anyone_and_nothing_else_is() {
    let turn = shared(Setup::new).await;
    let server = &*turn;
    let provider = client(server, "provider");
    let open = sample(PLACES, 2);
    let not_open = [
        sample(POPULATION, 3),
        Resource { openness: Openness::Conditional, ..sample(PLACES, 4) },
        Resource { level: 2, ..sample(PLACES, 5) },
    ];
    for resource in not_open.iter().chain([&open]) {
        publish(&provider, resource).await;
    }
    let draft = sample(PLACES, 6);
    provider.write_resource(&ResourceWrite { resource: draft.clone() }).await.unwrap();
    let path = format!("/v1/open/{}", open.code);
    let place = |number: usize, name: &str| {
        row(&[("placeCode", &format!("P{number:05}")), ("placeName", name), ("regionCode", "4401")])
    };
    const ROWS: usize = 5_001;
    let rows = (0..ROWS).map(|number| place(number, if number == 0 { "=测试" } else { "测试,地" }));
    assert_eq!(provider.ingest_records(&ingest(&open, rows.collect())).await.unwrap().accepted, ROWS as u64);

    let listed = server.public("/v1/open").await.expect(200);
    let codes: Vec<&str> = listed.json["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["resource"].as_str().unwrap())
        .collect();
    assert!(codes.contains(&open.code.as_str()));
    assert!(not_open.iter().chain([&draft]).all(|one| !codes.contains(&one.code.as_str())));
    for closed in not_open.iter().chain([&draft]) {
        for end in ["", ".csv", ".json"] {
            let closed = server.public(&format!("/v1/open/{}{end}", closed.code)).await;
            assert_eq!((closed.status, closed.body.len()), (404, 0));
        }
    }
    let entry = server.public(&path).await.expect(200);
    assert_eq!(entry.json["quality"]["rows"], ROWS);
    assert!(entry.json.get("agreed").is_none() && entry.json.get("duties").is_none());

    // Both forms have every row once, over their pages.
    let (mut next, mut from_json) = (Some(format!("{path}.json")), BTreeMap::new());
    while let Some(page) = next {
        let page = server.public(&page).await.expect(200);
        for row in page.json["rows"].as_array().unwrap() {
            let code = row["placeCode"].as_str().unwrap().to_owned();
            assert!(from_json.insert(code, row["placeName"].clone()).is_none());
        }
        next = page.json["next"].as_str().map(|next| format!("{path}.json?after={next}"));
    }
    assert_eq!((from_json.len(), &from_json["P00000"]), (ROWS, &json!("=测试")));
    let first = server.public(&format!("{path}.csv")).await.expect(200);
    assert_eq!(first.content_type, "text/csv; charset=utf-8; header=present");
    let links = header(&first, "link");
    assert!(links.starts_with(&format!("<{path}>; rel=\"describedby\"")));
    let rest = links.split('<').nth(2).unwrap().split('>').next().unwrap();
    let rest = server.public(rest).await.expect(200);
    assert!(!header(&rest, "link").contains("next"));
    let text = [&first.body[..], &rest.body[..]].map(|part| std::str::from_utf8(part).unwrap()).concat();
    assert_eq!(text.lines().count(), ROWS + 2);
    assert!(text.contains("P00000,'=测试,4401\r\n") && text.contains("P00001,\"测试,地\",4401\r\n"));
    assert_eq!(server.public(&format!("{path}.csv?after=12")).await.status, 400);
    assert_eq!(server.public(&format!("{path}.xml")).await.status, 404);

    // A copy that is known is not sent again, and one that is no longer so is.
    assert!(
        first.headers.contains_key("last-modified") && first.cache_control.as_deref() == Some("no-cache")
    );
    let tag = header(&first, "etag");
    let again = || {
        let call = Call::raw(Route::None, Bytes::new()).method(hyper::Method::GET);
        server.public_call(call.path(&format!("{path}.csv")).header("if-none-match", &tag))
    };
    let known = again().await;
    assert_eq!((known.status, known.body.len(), header(&known, "etag")), (304, 0, tag.clone()));
    provider.ingest_records(&ingest(&open, vec![place(0, "测试")])).await.unwrap();
    // Anyone sees rows once the index has taken them in, a moment behind their entry.
    eventually("the new row", || async { (again().await.status == 200).then_some(()) }).await;

    // From the moment on at which it is not open, nobody has it.
    for (action, status) in
        [(ResourceAction::Suspend, 404), (ResourceAction::Resume, 200), (ResourceAction::Withdraw, 410)]
    {
        take(&provider, &open, action).await;
        for end in ["", ".csv", ".json"] {
            assert_eq!(server.public(&format!("{path}{end}")).await.status, status, "{action:?}");
        }
    }
}

/// An application that the provider agrees to.
async fn agreed(applicant: &Client, provider: &Client, resource: &Resource, scope: Scope) {
    let context = context();
    let apply = Apply {
        resource: resource.code.clone(),
        item_code: context.item_code,
        item_name: context.item_name,
        purpose: "测试".to_owned(),
        scope,
    };
    let applied = applicant.apply(&apply).await.unwrap();
    assert_eq!((applied.state, applied.rule), (ApplicationState::Pending, None), "no rule grants a feed");
    let step = ApplicationTransition {
        application: applied.application.clone(),
        action: ApplicationAction::Approve,
        terms: None,
        ground: None,
        basis: None,
        note: None,
    };
    assert_eq!(provider.transition_application(&step).await.unwrap().state, ApplicationState::Provided);
}

fn scope(fields: &[&str], regions: &[&str], daily_limit: Option<u32>, feed: bool) -> Scope {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Scope {
        fields: owned(fields),
        clear: Vec::new(),
        regions: owned(regions),
        daily_limit,
        feed,
        until: "2099-12-31".parse().unwrap(),
    }
}

fn feed(resource: &Resource, after: Option<&str>, limit: u64) -> RecordsFeed {
    RecordsFeed {
        resource: resource.code.clone(),
        after: after.map(str::to_owned),
        limit: Some(limit),
        context: context(),
    }
}

/// Values of the rows of a page by id; `None` of one that is gone.
fn changes(page: &FeedPage, field: &str) -> BTreeMap<String, Option<String>> {
    let change = |change: &client::FedRow| {
        assert_eq!(change.removed, change.record.is_none());
        let value = change.record.as_ref().map(|record| record[field].as_str().to_owned());
        (change.id.clone(), value)
    };
    page.changes.iter().map(change).collect()
}

fn person(draft: &Draft, region: &str, status: &str) -> BTreeMap<String, Personal> {
    let number = draft.holder().number().to_owned();
    row(&[("idNumber", &number), ("name", "测试人"), ("regionCode", region), ("status", status)])
}

/// How many entries of a person's trace say that the row left in a feed.
async fn fed(server: &Server, person: &Draft, resource: &Resource) -> usize {
    let holder = Holder::from(person.holder());
    let trace = Trace { holder, agent: None, assertion: None, before: None, limit: None, context: context() };
    let page = client(server, "portal").trace(&trace).await.unwrap();
    let told = page.entries.iter().filter_map(|entry| entry.told.as_ref());
    let told = told.map(|told| serde_json::from_str::<Value>(&told.document).unwrap());
    told.filter(|told| told["mode"] == "feed" && told["resource"] == resource.code.as_str()).count()
}

#[tokio::test]
async fn a_county_follows_the_rows_of_its_own_and_their_subjects_see_it() {
    let mut server = Setup::new().start().await;
    let [provider, bank, approval] = ["provider", "bank", "approval"].map(|name| client(&server, name));
    let needs = vec![Agreed {
        organisation: server.organisation("bank").as_str().to_owned(),
        item_code: context().item_code,
    }];
    let conditions = vec![Condition::NamedItem];
    let resource = Resource { agreed: needs, conditions, ..sample(POPULATION, 7) };
    publish(&provider, &resource).await;
    let [stays, moves, later, other] = [(); 4].map(|()| draft(&natural()));
    let rows =
        vec![person(&stays, "440106", "1"), person(&moves, "440106", "1"), person(&other, "440203", "1")];
    provider.ingest_records(&ingest(&resource, rows)).await.unwrap();
    let early = refused(bank.feed_records(&feed(&resource, None, 1)).await.unwrap_err());
    assert_eq!(early, Code::ApprovalNeeded);
    agreed(&bank, &provider, &resource, scope(&["status"], &["4401"], None, true)).await;
    // An approval to query is none to read everything.
    agreed(&approval, &provider, &resource, scope(&["status"], &[], None, false)).await;
    let refusal = refused(approval.feed_records(&feed(&resource, None, 1)).await.unwrap_err());
    assert_eq!(refusal, Code::ApprovalNeeded);

    let first = bank.feed_records(&feed(&resource, None, 1)).await.unwrap();
    assert!(first.more && first.changes.len() == 1 && !first.approval.passing_on);
    let second = bank.feed_records(&feed(&resource, Some(&first.next), 200)).await.unwrap();
    assert!(!second.more);
    let mut known = changes(&first, "status");
    known.append(&mut changes(&second, "status"));
    assert_eq!(known.len(), 2, "the other row is of another region");
    assert!(known.values().all(|status| status.as_deref() == Some("1")));
    for (person, times) in [(&stays, 1), (&moves, 1), (&other, 0)] {
        let traced = || async { (fed(&server, person, &resource).await == times).then_some(()) };
        eventually("the page stands in the trace of who is in it", traced).await;
    }

    // Behind a kill the reader goes on where it left off.
    server.kill();
    server.start();
    let [provider, bank, approval] = ["provider", "bank", "approval"].map(|name| client(&server, name));
    let rows = vec![
        person(&stays, "440106", "2"),
        person(&moves, "440203", "1"),
        person(&later, "4401", "3"),
        person(&other, "440203", "2"),
    ];
    provider.ingest_records(&ingest(&resource, rows)).await.unwrap();
    let third = bank.feed_records(&feed(&resource, Some(&second.next), 200)).await.unwrap();
    let found = changes(&third, "status");
    let [was, is]: [BTreeSet<&String>; 2] = [known.keys().collect(), found.keys().collect()];
    assert!(was.is_subset(&is) && found.len() == 3, "rows keep their names");
    let mut values: Vec<Option<&str>> = found.values().map(Option::as_deref).collect();
    values.sort_unstable();
    assert_eq!(values, [None, Some("2"), Some("3")], "who has moved away is gone");
    // Nor is anything told of what happens elsewhere by now, to one who has moved there or to somebody who always was.
    let key = |of: &Draft| row(&[("idNumber", of.holder().number())]);
    let rows = vec![person(&moves, "440203", "2")];
    provider.ingest_records(&ingest(&resource, rows)).await.unwrap();
    let removed = vec![key(&moves), key(&other)];
    provider.ingest_records(&RecordsIngest { removed, ..ingest(&resource, Vec::new()) }).await.unwrap();
    let elsewhere = bank.feed_records(&feed(&resource, Some(&third.next), 200)).await.unwrap();
    assert!(elsewhere.changes.is_empty(), "{:?}", elsewhere.changes.len());
    let removed = vec![key(&later)];
    provider.ingest_records(&RecordsIngest { removed, ..ingest(&resource, Vec::new()) }).await.unwrap();
    let fourth = bank.feed_records(&feed(&resource, Some(&third.next), 200)).await.unwrap();
    let gone = changes(&fourth, "status");
    assert_eq!(gone.values().collect::<Vec<_>>(), [&None]);
    assert_eq!(found[gone.keys().next().unwrap()].as_deref(), Some("3"));
    let nothing = bank.feed_records(&feed(&resource, Some(&fourth.next), 200)).await.unwrap();
    assert!(nothing.changes.is_empty() && !nothing.more);
    // From the beginning it is what there is, and nothing is taken back that was never read.
    let whole = bank.feed_records(&feed(&resource, None, 200)).await.unwrap();
    assert_eq!(changes(&whole, "status").into_values().collect::<Vec<_>>(), [Some("2".to_owned())]);

    // A cursor of somebody else's, one that was changed, and what is none.
    let before = approval.applications(&ApplicationSearch::default()).await.unwrap();
    let stop = ApplicationTransition {
        application: before.applications[0].application.clone(),
        action: ApplicationAction::Stop,
        terms: None,
        ground: None,
        basis: None,
        note: None,
    };
    approval.transition_application(&stop).await.unwrap();
    agreed(&approval, &provider, &resource, scope(&["status"], &["44"], None, true)).await;
    let others = approval.feed_records(&feed(&resource, None, 1)).await.unwrap().next.clone();
    let mut forged = fourth.next.clone();
    forged.replace_range(30..31, if forged[30..31] == *"0" { "1" } else { "0" });
    for after in [&fourth.next[2..], &forged, &others, &"f".repeat(64), &"f".repeat(120)] {
        let wrong = bank.feed_records(&feed(&resource, Some(after), 1)).await.unwrap_err();
        assert_eq!(refused(wrong), Code::MalformedRequest);
    }
    let many = bank.feed_records(&feed(&resource, None, 201)).await.unwrap_err();
    assert_eq!(refused(many), Code::MalformedRequest);
    for (action, code) in [
        (ResourceAction::Suspend, Some(Code::ResourceRefused)),
        (ResourceAction::Resume, None),
        (ResourceAction::Withdraw, Some(Code::UnknownResource)),
    ] {
        take(&provider, &resource, action).await;
        let answer = bank.feed_records(&feed(&resource, Some(&fourth.next), 200)).await;
        assert_eq!(answer.err().map(refused), code, "{action:?}");
    }
    assert_eq!(server.log_verify()["verdict"], "valid");
}

/// The bytes of all files below a folder.
fn contents(folder: &Path, found: &mut Vec<Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // One that goes meanwhile is gone.
        match path.is_dir() {
            true => contents(&path, found),
            false => found.extend(fs::read(&path)),
        }
    }
}

/// The sealed rows of all row segments.
fn sealed_rows(folder: &Path) -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    contents(&folder.join("journal/rows"), &mut files);
    let rows = files.iter().flat_map(|file| {
        let number = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        (0..number(44))
            .map(move |entry| (number(80 + 24 * entry + 16), number(80 + 24 * entry + 20)))
            .map(|(offset, length)| file[offset..offset + length].to_vec())
    });
    rows.collect()
}

#[tokio::test]
async fn a_row_that_its_provider_erases_is_on_no_disk_and_its_subject_sees_it() {
    let mut server = Setup::new().start().await;
    let provider = client(&server, "provider");
    let resource = sample(POPULATION, 10);
    publish(&provider, &resource).await;
    let people = [(); 3].map(|()| draft(&natural()));
    // Each batch lies in a file of its own; the first person is in two of them.
    let brought = [&people[..2], &people[2..], &people[..1]];
    for batch in brought {
        let rows = batch.iter().map(|person| self::person(person, "440106", "1")).collect();
        provider.ingest_records(&ingest(&resource, rows)).await.unwrap();
    }
    let before = sealed_rows(&server.folder);
    // The ticker may have written the first file anew by now.
    assert!(before.len() >= 3);
    let gone: Vec<&Vec<u8>> = {
        // Without the file of the third person, which has no row of the first.
        let third = provider_file_of(&server.folder, 1);
        before.iter().filter(|row| !third.windows(row.len()).any(|part| part == &row[..])).collect()
    };
    assert_eq!(gone.len(), before.len() - 1);
    let key = row(&[("idNumber", people[0].holder().number())]);
    let erase = RecordsIngest { erased: vec![key.clone()], ..ingest(&resource, Vec::new()) };
    let many = RecordsIngest { erased: vec![key; 101], ..ingest(&resource, Vec::new()) };
    assert_eq!(refused(provider.ingest_records(&many).await.unwrap_err()), Code::BadRecords);
    let answer = provider.ingest_records(&erase).await.unwrap();
    assert_eq!((answer.erased, answer.accepted, answer.rejected), (1, 0, 0));
    eventually("the files go once nobody reads them", || async {
        let mut files = Vec::new();
        contents(&server.folder, &mut files);
        let is_there =
            |row: &&Vec<u8>| files.iter().any(|file| file.windows(row.len()).any(|part| part == &row[..]));
        (!gone.iter().any(is_there)).then_some(())
    })
    .await;
    let traced = async |server: &Server, person: &Draft| {
        let holder = Holder::from(person.holder());
        let trace =
            Trace { holder, agent: None, assertion: None, before: None, limit: None, context: context() };
        let page = client(server, "portal").trace(&trace).await.ok()?;
        let told = page.entries.iter().filter_map(|entry| entry.told.as_ref());
        let told = told.map(|told| serde_json::from_str::<Value>(&told.document).unwrap());
        Some(
            told.filter(|told| told["mode"] == "erased" && told["resource"] == resource.code.as_str())
                .count(),
        )
    };
    eventually("the subject sees it", || async {
        (traced(&server, &people[0]).await == Some(1)).then_some(())
    })
    .await;
    // The others are there, also after a kill; and the log is whole.
    server.kill();
    server.start();
    let search = ResourceSearch { code: Some(resource.code.clone()), ..ResourceSearch::default() };
    let found = client(&server, "provider").resources(&search).await.unwrap();
    assert_eq!(found.resources[0].quality.as_ref().unwrap().rows, 2);
    assert_eq!(server.log_verify()["verdict"], "valid");
}

/// The content of a row file, by their order.
fn provider_file_of(folder: &Path, place: usize) -> Vec<u8> {
    let mut paths: Vec<_> =
        fs::read_dir(folder.join("journal/rows")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    fs::read(&paths[place]).unwrap()
}

#[tokio::test]
async fn a_feed_takes_no_more_rows_a_day_than_its_approval_says() {
    let turn = shared(Setup::new).await;
    let server = &*turn;
    let [provider, bank] = ["provider", "bank"].map(|name| client(server, name));
    let resource = sample(PLACES, 8);
    publish(&provider, &resource).await;
    let place = |number: u32| {
        row(&[("placeCode", &format!("P{number}")), ("placeName", "测试地"), ("regionCode", "4401")])
    };
    provider.ingest_records(&ingest(&resource, (0..5).map(place).collect())).await.unwrap();
    agreed(&bank, &provider, &resource, scope(&["placeName"], &[], Some(3), true)).await;
    let first = bank.feed_records(&feed(&resource, None, 2)).await.unwrap();
    assert!(first.changes.len() == 2 && first.more);
    let second = bank.feed_records(&feed(&resource, Some(&first.next), 200)).await.unwrap();
    assert!(second.changes.len() == 1 && second.more, "the limit cuts the page");
    let spent = bank.feed_records(&feed(&resource, Some(&second.next), 200)).await.unwrap_err();
    assert_eq!(refused(spent), Code::QuotaSpent);
}

fn compare(resource: &Resource, license: &tests::Issued) -> RecordsCompare {
    RecordsCompare {
        resource: resource.code.clone(),
        license: license.identifier.parse().unwrap(),
        reason: "测试".to_owned(),
    }
}

#[tokio::test]
async fn a_license_that_disagrees_with_a_base_resource_is_reported_to_both_sides() {
    let turn = shared(Setup::new).await;
    let server = &*turn;
    let [provider, issuer, bank, operator] =
        ["provider", "issuer", "bank", "operator"].map(|name| client(server, name));
    let license = draft(&natural()).issue(&mut server.party("issuer")).await;
    let person = license.draft.clone();
    let fields = [("name", "holderName"), ("address", "none")];
    let compared = Compared {
        type_code: person.license_type.code.as_str().to_owned(),
        fields: fields.map(|(field, fact)| (field.to_owned(), fact.to_owned())).into(),
    };
    let resource = Resource { compared: vec![compared], ..sample(POPULATION, 9) };
    publish(&provider, &resource).await;
    let outcomes = |answer: &Comparison| -> BTreeMap<String, Agreement> {
        answer.fields.iter().map(|field| (field.field.clone(), field.outcome)).collect()
    };
    let of = |name, address| BTreeMap::from([("name".to_owned(), name), ("address".to_owned(), address)]);

    // Without a row there is nothing to compare, and nothing is reported.
    let none = issuer.compare_records(&compare(&resource, &license)).await.unwrap();
    assert!(!none.found && none.mismatch.is_none());
    assert_eq!(outcomes(&none), of(Agreement::Absent, Agreement::Absent));
    let row_of = |name: &str| {
        let mut row = self::person(&person, "440106", "1");
        row.insert("name".to_owned(), Personal::from(name));
        ingest(&resource, vec![row])
    };
    provider.ingest_records(&row_of("另一人")).await.unwrap();
    let call = Call::new(Route::RecordsCompare, &serde_json::to_value(compare(&resource, &license)).unwrap());
    let answer = server.party("issuer").send(&call).await.expect(200);
    assert_eq!(answer.json["mismatch"], "open");
    let name = person.license.holders[0].0.clone();
    let said = answer.json.to_string();
    assert!(!said.contains("另一人") && !said.contains(&name), "no value is told");
    let open = MismatchSearch { resource: Some(resource.code.clone()), ..MismatchSearch::default() };
    for side in [&provider, &issuer, &operator] {
        let page = side.mismatches(&open).await.unwrap();
        let [found] = &page.mismatches[..] else { panic!("{}", page.mismatches.len()) };
        assert_eq!((found.state, &found.fields[..]), (MismatchState::Open, &["name".to_owned()][..]));
        assert_eq!(found.license.to_string(), license.identifier);
    }
    assert_eq!(refused(bank.mismatches(&open).await.unwrap_err()), Code::WrongRole);

    // It is corrected by a comparison, and by nobody's word.
    provider.ingest_records(&row_of(&name)).await.unwrap();
    let right = provider.compare_records(&compare(&resource, &license)).await.unwrap();
    assert_eq!((right.found, right.mismatch), (true, Some(MismatchState::Corrected)));
    assert_eq!(outcomes(&right), of(Agreement::Match, Agreement::Absent));
    let open = MismatchSearch { state: Some(MismatchState::Open), ..open };
    assert!(issuer.mismatches(&open).await.unwrap().mismatches.is_empty());

    // One who writes one value after the other to guess the license's has five a day.
    let mut refusals = Vec::new();
    for guess in 0..6 {
        provider.ingest_records(&row_of(&format!("测试{guess}"))).await.unwrap();
        refusals.extend(provider.compare_records(&compare(&resource, &license)).await.err().map(refused));
    }
    assert_eq!(refusals, [Code::TooManyMismatches]);

    // A license that there is not, one of a type that is not compared, and somebody who has neither side.
    let mut unknown = compare(&resource, &license);
    let other = draft(&natural()).issue(&mut server.party("issuer")).await;
    unknown.license = unknown.license.with_version(2).unwrap();
    assert_eq!(refused(issuer.compare_records(&unknown).await.unwrap_err()), Code::NotPermitted);
    let company = draft(&tests::legal()).issue(&mut server.party("issuer")).await;
    let refusal = issuer.compare_records(&compare(&resource, &company)).await.unwrap_err();
    assert_eq!(refused(refusal), Code::ResourceRefused);
    assert_eq!(
        refused(bank.compare_records(&compare(&resource, &other)).await.unwrap_err()),
        Code::WrongRole
    );
}
