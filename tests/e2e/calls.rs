//! The client that integrators build in (`exchange/client`), against a real exchange.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use client::{
    AccessAction, AccessContext, AccessEntity, ApplicationAction, ApplicationSearch, ApplicationState,
    ApplicationTransition, Apply, Approve, Bundle, Bundled, Client, CodeEnd, CodeMint, CodeScan,
    DictionaryList, Error, Evaluation, Evaluations, GrantAction, GrantChange, GrantCreate, GrantMode,
    GrantRevoke, GrantSearch, GrantState, Holder, Issue, IssuedList, ItemsDemanded, ItemsImport,
    ItemsMaterials, ItemsSearch, License, LinkEnd, LinkKind, LinkMake, LinkState, List, Listing, LogQuery,
    MaterialKeep, MaterialTrust, MismatchSearch, Mode, Outcome, Participant, Personal, ProposalKind,
    ProposalState, Propose, RecordsCompare, RecordsFeed, RecordsIngest, RecordsQuery, Register,
    ResourceAction, ResourceSearch, ResourceTransition, ResourceWrite, Retrieve, Role, Scope, Search,
    ShowPolicies, Stage, Suspend, Tls, Trace, Transition, UsageSearch, UseContext, Verdict, Verifiers,
    Verify,
};
use schemas::codes::Code;
use schemas::interface::{Address, Interface};
use schemas::resource::{Compared, Resource, Supply};
use schemas::routes::Route;
use schemas::state::{LicenseState, Operation};
use serde_json::{Value, json};
use tests::{Draft, Provider, Server, Setup, draft, eventually, in_one_hour, legal, natural, shared};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use verifier::report::Reason;

fn setup() -> Setup {
    Setup::new().stranger("newcomer")
}

/// A client that has every answer proven.
fn proving(server: &Server, name: &str) -> Client {
    server.party(name).client().trust(server.trust.clone()).build()
}

fn issue(draft: &Draft) -> Issue {
    Issue { license: serde_json::from_value(draft.value()).unwrap() }
}

fn context() -> UseContext {
    serde_json::from_value(tests::use_context()).unwrap()
}

fn refused(error: Error) -> client::Refused {
    match error {
        Error::Refused(refused) => *refused,
        error => panic!("not refused: {error}"),
    }
}

#[tokio::test]
async fn every_route_has_a_method_whose_answer_is_read_and_proven() {
    let server = setup().start().await;
    let [issuer, portal, bank, auditor, operator, operator2] =
        ["issuer", "portal", "bank", "auditor", "operator", "operator2"].map(|name| proving(&server, name));
    let (draft, other) = (draft(&natural()), draft(&natural()));
    let (holder, agent) = (Holder::from(draft.holder()), Holder::from(other.holder()));

    let issued = issuer.issue(&issue(&draft)).await.unwrap();
    assert_eq!(issued.state, LicenseState::Valid);
    let own = issuer.issued(&IssuedList { limit: Some(1), ..IssuedList::default() }).await.unwrap();
    assert_eq!(own.licenses[0].identifier, issued.identifier);
    let search =
        Search { holder: holder.clone(), type_code: None, assertion: None, grant: None, context: context() };
    let found = portal.search(&search).await.unwrap();
    assert_eq!(found.licenses[0].certificate_number, draft.license.certificate_number.as_str());

    let grant = GrantCreate {
        holder: holder.clone(),
        grantee: server.organisation("bank"),
        identifier: Some(issued.identifier.clone()),
        identifiers: Vec::new(),
        type_code: None,
        type_codes: Vec::new(),
        modes: vec![GrantMode::Verify, GrantMode::Fields, GrantMode::Envelope, GrantMode::Copy],
        fields: vec!["certificateNumber".to_owned()],
        agent: None,
        item_code: None,
        purpose: None,
        scenario: None,
        user_name: None,
        until: in_one_hour(),
        max_uses: None,
        assertion: None,
    };
    let grant = portal.grant(&grant).await.unwrap();
    assert_eq!(grant.state, GrantState::Active);
    let listed = bank.grants(&GrantSearch::default()).await.unwrap();
    assert_eq!((listed.grants.len(), &listed.grants[0].grant), (1, &grant.grant));

    let named = License::by_identifier(issued.identifier.clone());
    let verify = Verify::new(named.clone(), context()).with_grant(&grant.grant);
    let expecting = verify.clone().expecting("certificateNumber", draft.license.certificate_number.as_str());
    let verified = bank.verify(&expecting).await.unwrap();
    assert_eq!((verified.verdict, verified.matches), (Verdict::Valid, Some(true)));
    let body = client::batch_body(&[verify.clone(), expecting.clone()]).unwrap();
    let batch = bank.verify_batch(body, None, tests::HANG).await.unwrap();
    assert_eq!((batch.end.lines, batch.end.permitted), (2, 2));
    assert!(batch.answers.iter().all(|answer| answer.as_ref().unwrap().verdict == Verdict::Valid));
    let mut retrieve = Retrieve::new(named, Mode::Fields, context()).with_grant(&grant.grant);
    retrieve.fields = vec!["certificateNumber".to_owned()];
    let fields = bank.retrieve(&retrieve).await.unwrap();
    assert_eq!(fields.fields["certificateNumber"], draft.license.certificate_number.as_str());
    retrieve.fields.clear();
    retrieve.mode = Mode::Envelope;
    let envelope = bank.retrieve(&retrieve).await.unwrap();
    assert_eq!(envelope.envelope.as_ref(), Some(&issued.envelope));
    retrieve.mode = Mode::Copy;
    let copy = bank.retrieve(&retrieve).await.unwrap();
    assert_eq!(copy.annotation.as_ref().unwrap().creator, server.organisation("bank"));

    let until = in_one_hour();
    let link = LinkMake::new(holder.clone(), agent.clone(), LinkKind::Relative, until);
    assert_eq!(portal.make_link(&link).await.unwrap().link, LinkState::Active);
    let end = LinkEnd { holder: holder.clone(), agent, reason: "测试".to_owned() };
    assert_eq!(portal.end_link(&end).await.unwrap().link, LinkState::Ended);
    let trace = Trace {
        holder: holder.clone(),
        agent: None,
        assertion: None,
        before: None,
        limit: None,
        context: context(),
    };
    // Pages reach as far as the checkpoint that is published each second.
    eventually("a page of the trace", || async {
        (!portal.trace(&trace).await.unwrap().entries.is_empty()).then_some(())
    })
    .await;
    let query: LogQuery = serde_json::from_value(json!({"purpose": "测试", "userName": "审计员"})).unwrap();
    assert!(!auditor.query_log(&query).await.unwrap().entries.is_empty());

    let participant = Participant {
        organisation: server.organisation("newcomer"),
        name: "测试单位".to_owned(),
        roles: vec![Role::Relying],
        issues: Vec::new(),
        purposes: Vec::new(),
        contract: None,
        daily_quota: None,
        signing_keys: Vec::new(),
        limits: Vec::new(),
        acts_for: Vec::new(),
        intended_use: false,
        delays: std::collections::BTreeMap::new(),
        valid_from: "2026-01-01".parse().unwrap(),
        valid_until: None,
    };
    let mut register = Register { participant };
    assert!(!operator.add_participant(&register).await.unwrap().suspended);
    register.participant.daily_quota = Some(7);
    operator.change_participant(&register).await.unwrap();
    let organisation = register.participant.organisation;
    let suspend = Suspend { organisation, suspended: true, reason: "测试".to_owned() };
    assert!(operator.suspend_participant(&suspend).await.unwrap().suspended);
    let register = operator.participants(&List::default()).await.unwrap();
    let listed = register.participants.iter().find(|one| one.organisation == organisation).unwrap();
    assert_eq!((listed.suspended, listed.daily_quota), (true, Some(7)));
    let proposal = Propose {
        kind: ProposalKind::HoldHolder,
        holder: Some(holder.clone()),
        participant: None,
        license_type: None,
        calendar: None,
        address: None,
        policies: None,
        reason: "测试".to_owned(),
    };
    let proposed = operator.propose(&proposal).await.unwrap();
    let listed = operator2.proposals(&List::default()).await.unwrap();
    assert_eq!(
        (&listed.proposals[0].proposal, listed.proposals[0].state),
        (&proposed.proposal, ProposalState::Open)
    );
    let approve = Approve {
        proposal: proposed.proposal.clone(),
        participant: None,
        license_type: None,
        calendar: None,
        address: None,
        policies: None,
    };
    assert_eq!(operator2.approve(&approve).await.unwrap().state, ProposalState::Approved);
    let in_force = operator.policies(&ShowPolicies {}).await.unwrap();
    assert_eq!((in_force.version, &*in_force.policies), (0, schemas::policy::ROLES));

    let transition = Transition {
        identifier: issued.identifier.clone(),
        operation: Operation::End,
        to: Some(LicenseState::Revoked),
        reason: "测试".to_owned(),
        license: None,
    };
    assert_eq!(issuer.transition(&transition).await.unwrap().state, LicenseState::Revoked);
    let verified = bank.verify(&verify).await.unwrap();
    assert_eq!((verified.verdict, &*verified.reasons), (Verdict::Invalid, &["revoked".to_owned()][..]));
    let pause = GrantChange {
        grant: grant.grant.clone(),
        holder: holder.clone(),
        agent: None,
        action: GrantAction::Pause,
        modes: None,
        fields: None,
        item_code: None,
        purpose: None,
        scenario: None,
        user_name: None,
        until: None,
        max_uses: None,
        reason: "测试".to_owned(),
        assertion: None,
    };
    assert_eq!(portal.change_grant(&pause).await.unwrap().state, GrantState::Paused);
    let (grant, reason) = (grant.grant.clone(), "测试".to_owned());
    let revoke = GrantRevoke { grant, holder, agent: None, reason, assertion: None };
    assert_eq!(portal.revoke_grant(&revoke).await.unwrap().state, GrantState::Revoked);

    show(&portal, &bank, &draft).await;
    share(&proving(&server, "provider"), &bank).await;
    let compared = Compared {
        type_code: issued.identifier.type_code().as_str().to_owned(),
        fields: [("name".to_owned(), "holderName".to_owned())].into(),
    };
    let base = Resource { compared: vec![compared], ..Resource::samples().remove(0) };
    let provider = proving(&server, "provider");
    let compare = RecordsCompare {
        resource: base.code.clone(),
        license: issued.identifier.clone(),
        reason: "测试".to_owned(),
    };
    provider.write_resource(&ResourceWrite { resource: base.clone() }).await.unwrap();
    let (action, reason) = (ResourceAction::Publish, "测试".to_owned());
    provider.transition_resource(&ResourceTransition { resource: base.code, action, reason }).await.unwrap();
    assert!(!issuer.compare_records(&compare).await.unwrap().found);
    assert!(provider.mismatches(&MismatchSearch::default()).await.unwrap().mismatches.is_empty());
    do_without(&operator, &bank, &verify).await;
    call_for(&server, &bank).await;
    ask_beforehand(&issuer, &issued.identifier.to_string()).await;

    for route in Route::ALL.iter().filter(|route| route.path().is_some()) {
        assert!(server.answers(*route, Code::Ok).await > 0, "{} was not called", route.name());
    }
}

/// A holder shows a code, which a bank scans, and ends another; the bank looks at its own uses.
async fn show(portal: &Client, bank: &Client, draft: &Draft) {
    let mint = CodeMint {
        holder: Holder::from(draft.holder()),
        agent: None,
        identifier: None,
        fields: Vec::new(),
        verifiers: Verifiers::Any,
        seconds: None,
        assertion: None,
    };
    let minted = portal.mint_code(&mint).await.unwrap();
    let scan = CodeScan {
        code: Some(minted.text.clone()),
        identifier: None,
        type_code: Some(draft.license_type.code),
        fields: Vec::new(),
        holder: None,
        context: context(),
    };
    let scanned = bank.scan(&scan).await.unwrap();
    assert_eq!((scanned.verdict, &*scanned.reasons), (Verdict::Invalid, &["revoked".to_owned()][..]));
    assert_eq!(scanned.subject.as_ref().unwrap().len(), 32);
    let code = portal.mint_code(&mint).await.unwrap().text.clone();
    let end = CodeEnd { code, holder: mint.holder, agent: None, reason: "测试".to_owned() };
    assert_eq!(portal.end_code(&end).await.unwrap().state, "ended");
    let usage = bank.usage(&UsageSearch::default()).await.unwrap();
    assert!(usage.quota.is_none() && usage.limits.is_empty());
}

/// An authority asks whether it may use its own license, and another one may not be asked for.
async fn ask_beforehand(issuer: &Client, license: &str) {
    let entity = |kind: &str, id: &str| AccessEntity { kind: kind.to_owned(), id: id.into() };
    let ask = |user: &str| Evaluation {
        subject: Some(entity("user", user)),
        action: Some(AccessAction { name: "verify".to_owned(), properties: None }),
        resource: Some(entity("license", license)),
        context: Some(AccessContext { holder: None, assertion: None, grant: None, context: context() }),
    };
    let own = context().user_name.as_str().to_owned();
    assert!(issuer.evaluate(&ask(&own)).await.unwrap().decision);
    assert!(!issuer.evaluate(&ask("别人")).await.unwrap().decision);
    let many = Evaluations {
        subject: None,
        action: None,
        resource: None,
        context: None,
        evaluations: vec![ask("别人"), ask(&own)],
        options: None,
    };
    let answers = issuer.evaluate_many(&many).await.unwrap().value.evaluations;
    assert_eq!(answers.iter().map(|one| one.decision).collect::<Vec<_>>(), [false, true]);
}

/// A use for another item.
fn other_item() -> UseContext {
    UseContext { item_code: "2".to_owned(), ..context() }
}

/// A department publishes a resource and brings a row in; another one applies for it, uses it and ends the use.
async fn share(provider: &Client, bank: &Client) {
    let resource = Resource::samples().remove(1);
    let code = resource.code.clone();
    let row = [
        ("creditCode", "91350102XX3DEMPQ6R"),
        ("organisationName", "测试单位"),
        ("regionCode", "350102"),
        ("status", "在营"),
    ];
    let row = row.map(|(key, value)| (key.to_owned(), Personal::from(value)));
    provider.write_resource(&ResourceWrite { resource }).await.unwrap();
    let (action, reason) = (ResourceAction::Publish, "测试".to_owned());
    provider
        .transition_resource(&ResourceTransition { resource: code.clone(), action, reason })
        .await
        .unwrap();
    let listed = bank.resources(&ResourceSearch::default()).await.unwrap();
    assert_eq!((listed.total, listed.resources[0].resource.code.as_str()), (1, code.as_str()));
    let rows = vec![row.into_iter().collect()];
    let ingest = RecordsIngest {
        resource: code.clone(),
        first_line: None,
        rows,
        removed: Vec::new(),
        erased: Vec::new(),
    };
    assert_eq!(provider.ingest_records(&ingest).await.unwrap().accepted, 1);
    let scope = Scope {
        fields: vec!["status".to_owned()],
        clear: Vec::new(),
        regions: Vec::new(),
        daily_limit: None,
        feed: false,
        until: "2099-12-31".parse().unwrap(),
    };
    let apply = Apply {
        resource: code.clone(),
        item_code: context().item_code,
        item_name: "测试事项".to_owned(),
        purpose: "测试".to_owned(),
        scope,
    };
    let applied = bank.apply(&apply).await.unwrap();
    let holder = serde_json::from_value(json!({"typeCode": "001", "number": "91350102XX3DEMPQ6R"})).unwrap();
    let query =
        RecordsQuery { resource: code, holder: Some(holder), key: None, fields: None, context: context() };
    assert!(bank.query_records(&query).await.unwrap().found);
    let bundled = bank.bundle(&Bundle::Query(query)).await.unwrap();
    assert!(matches!(&*bundled, Bundled::Queried(row) if row.found));
    let listed = bank.applications(&ApplicationSearch::default()).await.unwrap();
    assert_eq!(listed.applications[0].application, applied.application);
    let feed =
        RecordsFeed { resource: apply.resource.clone(), after: None, limit: None, context: other_item() };
    let to_feed = Apply {
        item_code: other_item().item_code,
        scope: Scope { feed: true, ..apply.scope.clone() },
        ..apply.clone()
    };
    let asked = bank.apply(&to_feed).await.unwrap();
    let agree = ApplicationTransition {
        application: asked.application.clone(),
        action: ApplicationAction::Approve,
        terms: None,
        ground: None,
        basis: None,
        note: None,
    };
    provider.transition_application(&agree).await.unwrap();
    assert_eq!(bank.feed_records(&feed).await.unwrap().changes.len(), 1);
    let stop = ApplicationTransition {
        application: applied.application.clone(),
        action: ApplicationAction::Stop,
        terms: None,
        ground: None,
        basis: None,
        note: None,
    };
    assert_eq!(bank.transition_application(&stop).await.unwrap().state, ApplicationState::Stopped);
}

/// The operator brings an item with a material in; a bank asks what need not be handed in, keeps a material and reports a demand.
async fn do_without(operator: &Client, bank: &Client, verify: &Verify) {
    let item = "91350102XX3DEMPQ6R4400100000001";
    let context = UseContext { item_code: item.to_owned(), ..context() };
    let rows = [
        (DictionaryList::Materials, "code=SFZ;name=居民身份证;version=1;origin=government"),
        (
            DictionaryList::Items,
            "code=ITEM;name=测试事项;version=1;department=91350102XX3DEMPQ6R;materials=SFZ",
        ),
        (DictionaryList::Mappings, "item=ITEM;material=SFZ;mode=drop"),
    ];
    for (list, row) in rows {
        let row = row.replace("ITEM", item);
        let pairs = row.split(';').filter_map(|pair| pair.split_once('='));
        let row = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let import = ItemsImport { list, source: "测试".to_owned(), first_line: None, rows: vec![row] };
        assert_eq!(operator.import_items(&import).await.unwrap().accepted, 1);
    }
    let search = ItemsSearch {
        list: Listing::Items,
        code: Some(item.to_owned()),
        words: None,
        item: None,
        review: false,
        orphans: false,
        after: None,
        limit: None,
    };
    assert_eq!(bank.items(&search).await.unwrap().items[0].materials, ["SFZ"]);
    let ask = ItemsMaterials {
        holder: None,
        grants: Vec::new(),
        digests: None,
        assertion: None,
        context: context.clone(),
    };
    assert_eq!(bank.materials(&ask).await.unwrap().materials[0].outcome, Outcome::Spared);
    assert!(bank.bundle(&Bundle::Verify(verify.clone())).await.is_err(), "its grant is revoked by now");
    let holder: Holder =
        serde_json::from_value(json!({"typeCode": "001", "number": "91350102XX3DEMPQ6R"})).unwrap();
    let keep = MaterialKeep {
        holder: holder.clone(),
        material: "SFZ".to_owned(),
        digest: "0".repeat(64),
        trust: MaterialTrust::Checked,
        until: schemas::date::Date::at(i64::try_from(tests::now_ms() / 1_000).unwrap()),
        context: context.clone(),
    };
    assert_eq!(bank.keep_material(&keep).await.unwrap().verifier.as_str().len(), 18);
    let report = ItemsDemanded { holder: Some(holder), demanded: vec!["SFZ".to_owned()], context };
    assert_eq!(bank.report_demanded(&report).await.unwrap().demanded, 1);
}

/// Two operators allow a provider's address, and a row is called for there.
async fn call_for(server: &Server, bank: &Client) {
    let provider = Provider::of(server);
    let address: Address =
        serde_json::from_value(provider.address(server.organisation("provider").as_str())).unwrap();
    let propose = Propose {
        kind: ProposalKind::AllowAddress,
        holder: None,
        participant: None,
        license_type: None,
        calendar: None,
        address: Some(address.clone()),
        policies: None,
        reason: "测试".to_owned(),
    };
    let proposal = proving(server, "operator").propose(&propose).await.unwrap().proposal.clone();
    let approve = Approve {
        proposal,
        participant: None,
        license_type: None,
        calendar: None,
        address: Some(address),
        policies: None,
    };
    proving(server, "operator2").approve(&approve).await.unwrap();
    let interface = Some(Interface { url: provider.url(), deadline_ms: 10_000 });
    let code = "3990010001/000077".to_owned();
    let sample = Resource::samples().remove(1);
    let resource = Resource { code: code.clone(), supply: Supply::Interface, interface, ..sample };
    let own = proving(server, "provider");
    own.write_resource(&ResourceWrite { resource }).await.unwrap();
    let (action, reason) = (ResourceAction::Publish, "测试".to_owned());
    own.transition_resource(&ResourceTransition { resource: code.clone(), action, reason }).await.unwrap();
    let scope = Scope {
        fields: vec!["status".to_owned()],
        clear: Vec::new(),
        regions: Vec::new(),
        daily_limit: None,
        feed: false,
        until: "2099-12-31".parse().unwrap(),
    };
    let (item_code, item_name) = (context().item_code, "测试事项".to_owned());
    let apply = Apply { resource: code.clone(), item_code, item_name, purpose: "测试".to_owned(), scope };
    bank.apply(&apply).await.unwrap();
    let holder = serde_json::from_value(json!({"typeCode": "001", "number": "91350102XX3DEMPQ6R"})).unwrap();
    let query =
        RecordsQuery { resource: code, holder: Some(holder), key: None, fields: None, context: context() };
    let called = bank.call_records(&query).await.unwrap();
    assert_eq!(called.record.as_ref().unwrap()["status"], *"在营");
}

#[tokio::test]
async fn a_refusal_says_why_and_where_and_is_proven_over_both_protocols() {
    let server = shared(Setup::new).await;
    let license = draft(&natural()).issue(&mut server.party("issuer")).await;
    let named = License::by_identifier(license.identifier.parse().unwrap());
    let two = proving(&server, "bank");
    let one = server.party("bank").client().trust(server.trust.clone()).http1().build();
    for client in [&two, &one] {
        let verify = Verify::new(named.clone(), context());
        let refusal = refused(client.verify(&verify).await.unwrap_err());
        assert_eq!((refusal.status, refusal.code()), (403, Some(Code::NotPermitted)));
        assert!(refusal.problem.errors.is_empty() && refusal.report.is_some());
        let mut wrong = verify;
        wrong.context.cause = "".into();
        wrong.context.stage = Stage::Delivery;
        let refusal = refused(client.verify(&wrong).await.unwrap_err());
        assert_eq!((refusal.status, refusal.code()), (422, Some(Code::BadUseContext)));
        assert_eq!(refusal.problem.errors[0].pointer.as_deref(), Some("/use/cause"));
        // A body that is not read to its end is refused with a receipt that says so.
        let long = json!({"license": "a".repeat(300_000)});
        let refusal = refused(client.call::<Value>(Route::Verify, &long).await.unwrap_err());
        assert_eq!(refusal.code(), Some(Code::BodyTooLarge));
        assert!(refusal.report.unwrap().has(Reason::RequestNotRecorded));
    }
}

#[tokio::test]
async fn the_answer_of_another_log_proves_nothing() {
    let (server, other) = (shared(Setup::new).await, Setup::new().start().await);
    let license = draft(&legal()).issue(&mut server.party("issuer")).await;
    let client = server.party("bank").client().trust(other.trust.clone()).build();
    let verify = Verify::new(License::by_envelope(license.envelope), context());
    let Error::Unproven(unproven) = client.verify(&verify).await.unwrap_err() else {
        panic!("it is of another log")
    };
    assert!(unproven.report.has(Reason::UnknownLog), "{:?}", unproven.report);
}

/// Stands between a client and a server. While it is told so, it closes the connection on which an answer comes, and the client
/// never gets that.
async fn cutting(server: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cut = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&cut);
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(server).await.unwrap();
            let told = Arc::clone(&told);
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let onward =
                    tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let mut answer = [0; 4_096];
                loop {
                    let read = from_server.read(&mut answer).await.unwrap_or(0);
                    if read == 0 || told.swap(false, Ordering::SeqCst) {
                        break;
                    }
                    to_client.write_all(&answer[..read]).await.unwrap();
                }
                onward.abort();
            });
        }
    });
    (address, cut)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_license_whose_answer_was_lost_is_issued_once() {
    let server = shared(Setup::new).await;
    let (address, cut) = cutting(server.data).await;
    let clients = server.folder.join("pki/clients");
    let (ca, certificate) = (server.folder.join("pki/ca.pem"), clients.join("issuer.pem"));
    let tls = Tls::from_files(&ca, Some((&certificate, &clients.join("issuer.key")))).unwrap();
    let client = Client::builder(address.into(), &tls).trust(server.trust.clone()).http1().build();
    client.connect().await.unwrap();
    let size = server.size().await;
    cut.store(true, Ordering::SeqCst);
    let issued = client.issue(&issue(&draft(&natural()))).await.unwrap();
    assert!(!cut.load(Ordering::SeqCst), "no answer was lost");
    assert_eq!((issued.state, issued.receipt.index), (LicenseState::Valid, size));
    assert_eq!(server.size().await, size + 1, "one license, one entry");
}
