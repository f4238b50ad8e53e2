//! Grants whole: a use in each field of use, ordered modes, the states, narrowing, one use a case, exact counts, and delegation.

use std::sync::Arc;

use schemas::codes::{Code, Reason};
use schemas::holder::HolderRef;
use schemas::kinds::Scenario;
use schemas::license_type::LicenseType;
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{
    Call, Issued, Party, Setup, Target, draft, eventually, grant, holder, in_one_hour, key, legal, natural,
    qualification, revoke, shared, use_context,
};
use verifier::leaf::ActingFor;

/// Rounds of exact counting in this process.
const SEEDS: u32 = 200;
/// The same against a process that is killed.
const KILLED: u32 = 3;

fn setup() -> Setup {
    Setup::new()
}

fn with(call: &Call, more: &Value) -> Call {
    let mut body: Value = serde_json::from_slice(&call.body).unwrap();
    for (pointer, value) in more.as_object().unwrap() {
        match pointer.strip_prefix("use.") {
            Some(name) => body["use"][name] = value.clone(),
            None => body[pointer] = value.clone(),
        }
    }
    Call::new(call.route, &body)
}

fn change(of: &Issued, grant: &str, more: Value) -> Call {
    let mut body = json!({"grant": grant, "holder": holder(of.draft.holder()), "reason": "测试"});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    Call::new(Route::GrantChange, &body)
}

/// A holder's grants, as the portal lists them.
async fn listed(portal: &mut Party, of: &HolderRef) -> Vec<Value> {
    let call = Call::new(Route::GrantSearch, &json!({"holder": holder(of)}));
    portal.send(&call).await.expect(200).json["grants"].as_array().unwrap().clone()
}

/// A holder lets one user of the bank see two fields of one license, for one purpose, in one field of use.
async fn field_of_use(scenario: Scenario, purpose: &str, item_name: &str, license_type: LicenseType) {
    let server = shared(setup).await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let license = draft(&license_type).issue(&mut issuer).await;
    let terms = json!({
        "holder": holder(license.draft.holder()), "grantee": bank.organisation, "identifier": license.identifier,
        "modes": ["fields"], "fields": ["certificateNumber", "holderName"], "purpose": purpose,
        "scenario": scenario.name(), "userName": use_context()["userName"], "until": in_one_hour(), "maxUses": 2,
    });
    let (made, _) = server.permitted(&mut portal, &Call::new(Route::GrantCreate, &terms)).await;
    let right = made.json["grant"].as_str().unwrap();
    let context = json!({"use.purpose": purpose, "use.scenario": scenario.name(), "use.itemName": item_name});
    let fields = license.retrieve(&["certificateNumber", "holderName"], Some(right));
    let (good, verify) = (with(&fields, &context), with(&license.verify(Some(right)), &context));
    let (reply, _) = server.permitted(&mut bank, &good).await;
    let shown: Vec<&String> = reply.json["fields"].as_object().unwrap().keys().collect();
    assert_eq!(shown, ["certificateNumber", "holderName"]);
    server.permitted(&mut bank, &verify).await;
    let other = Scenario::ALL.iter().find(|other| **other != scenario).unwrap();
    for wrong in [
        json!({"use.scenario": other.name()}),
        json!({"use.purpose": "别的用途"}),
        json!({"use.userName": "别人"}),
        json!({"fields": ["validFrom"]}),
    ] {
        server.refused(&mut bank, &with(&good, &wrong), Code::NotPermitted).await;
    }
    for call in [&fields, &license.verify(Some(right))] {
        server.refused(&mut bank, call, Code::NotPermitted).await;
    }
    let row = listed(&mut portal, license.draft.holder()).await.remove(0);
    assert_eq!((&row["state"], &row["uses"], &row["left"]), (&json!("active"), &json!(1), &json!(1)));
    assert_eq!((&row["purpose"], &row["scenario"]), (&json!(purpose), &json!(scenario.name())));
    // The holder sees the grant and the use, and whose hands it went through.
    let trace =
        Call::new(Route::Trace, &json!({"holder": holder(license.draft.holder()), "use": use_context()}));
    let told = eventually("the use in the trace", || {
        let (mut portal, trace) = (portal.again(), trace.clone());
        async move {
            let page = portal.send(&trace).await.expect(200).json;
            let told: Vec<Value> = page["entries"]
                .as_array()
                .unwrap()
                .iter()
                .rev()
                .filter_map(|entry| {
                    let document = entry["told"]["document"].as_str()?;
                    Some(serde_json::from_str(document).unwrap())
                })
                .collect();
            told.iter().any(|told| told["use"]["scenario"] == scenario.name()).then_some(told)
        }
    })
    .await;
    let creation = told.iter().find(|told| told["terms"]["scenario"] == scenario.name()).unwrap();
    assert_eq!(
        (&creation["terms"]["purpose"], &creation["terms"]["grantee"]),
        (&json!(purpose), &json!(bank.organisation))
    );
    let used = told.iter().find(|told| told["use"]["purpose"] == purpose).unwrap();
    assert_eq!((&used["grant"], &used["use"]["user"]), (&json!(right), &row["user"]));
    server.permitted(&mut portal, &revoke(license.draft.holder(), right)).await;
    server.refused(&mut bank, &good, Code::NotPermitted).await;
}

macro_rules! fields_of_use {
    ($($name:ident: $scenario:ident $purpose:literal $item:literal $license:ident;)*) => {
        $(#[tokio::test]
        async fn $name() {
            field_of_use(Scenario::$scenario, $purpose, $item, $license()).await;
        })*
    };
}

fields_of_use! {
    market_entry_is_a_field_of_use: MarketEntry "核对登记" "食品经营许可" legal;
    taxes_are_a_field_of_use: Tax "办税身份核验" "增值税申报" legal;
    a_bank_account_is_a_field_of_use: Finance "开立账户" "银行开户" natural;
    a_tender_is_a_field_of_use: Bidding "投标资格核验" "工程投标" legal;
    social_insurance_is_a_field_of_use: SocialInsurance "参保登记" "社会保险登记" natural;
    medical_insurance_is_a_field_of_use: MedicalInsurance "医保登记" "异地就医备案" natural;
    household_registration_is_a_field_of_use: HouseholdRegistration "落户" "户口迁移" natural;
}

#[tokio::test]
async fn a_higher_mode_allows_the_lower_and_not_the_other_way_round() {
    let server = shared(setup).await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut issuer).await;
    let order = ["verify", "fields", "face", "copy"];
    for (rank, granted) in order.iter().enumerate() {
        let mut terms = grant(license.draft.holder(), &bank, Target::License(&license));
        terms["modes"] = json!([granted]);
        if rank > 1 {
            // All fields, since it gives the face.
            terms.as_object_mut().unwrap().remove("fields");
        }
        let right = portal.grant(&terms).await;
        let field = if rank > 1 { "address" } else { "holderName" };
        let whole = |mode: &str| {
            let mut call = with(&license.retrieve(&[field], Some(&right)), &json!({"mode": mode}));
            let mut body: Value = serde_json::from_slice(&call.body).unwrap();
            body.as_object_mut().unwrap().remove("fields");
            call = Call::new(Route::Retrieve, &body);
            call
        };
        let calls = [
            license.verify(Some(&right)),
            license.retrieve(&[field], Some(&right)),
            whole("face"),
            whole("copy"),
        ];
        for (asked, call) in calls.iter().enumerate() {
            if asked <= rank {
                server.permitted(&mut bank, call).await;
            } else {
                server.refused(&mut bank, call, Code::NotPermitted).await;
            }
        }
        server.refused(&mut bank, &whole("envelope"), Code::NotPermitted).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_grant_is_for_several_licenses_or_types_and_for_no_other() {
    let server = shared(setup).await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let first = draft(&natural()).issue(&mut issuer).await;
    let of_holder = |license_type: &LicenseType| draft(license_type).of_holder(first.draft.holder());
    let card = natural();
    let other_type = qualification();
    let (second, third) =
        (of_holder(&other_type).issue(&mut issuer).await, of_holder(&card).issue(&mut issuer).await);
    let own = "level";
    let terms = json!({
        "holder": holder(first.draft.holder()), "grantee": bank.organisation,
        "modes": ["fields"], "fields": ["certificateNumber", own], "until": in_one_hour(), "maxUses": 2,
    });
    let create = |more: Value| with(&Call::new(Route::GrantCreate, &terms), &more);
    let several = create(json!({"identifiers": [first.identifier, second.identifier]}));
    let (made, _) = server.permitted(&mut portal, &several).await;
    let right = made.json["grant"].as_str().unwrap();
    server.permitted(&mut bank, &first.retrieve(&["certificateNumber"], Some(right))).await;
    server.permitted(&mut bank, &second.retrieve(&["certificateNumber", own], Some(right))).await;
    // The same case again is the same use of each; the third license was not granted.
    server.permitted(&mut bank, &first.retrieve(&["certificateNumber"], Some(right))).await;
    let third_use = third.retrieve(&["certificateNumber"], Some(right));
    server.refused(&mut bank, &third_use, Code::NotPermitted).await;
    server.refused(&mut bank, &first.retrieve(&["holderName"], Some(right)), Code::NotPermitted).await;
    let row = listed(&mut portal, first.draft.holder()).await.remove(0);
    assert_eq!(row["identifiers"], json!([first.identifier, second.identifier]));
    assert_eq!((&row["fields"], &row["uses"]), (&json!(["certificateNumber", own]), &json!(2)));
    // Narrowed, it loses the field in every license that has it.
    let less = change(&first, right, json!({"action": "narrow", "fields": ["certificateNumber"]}));
    server.permitted(&mut portal, &less).await;
    server.refused(&mut bank, &second.retrieve(&[own], Some(right)), Code::NotPermitted).await;
    server.permitted(&mut bank, &second.retrieve(&["certificateNumber"], Some(right))).await;

    // All of two types: the third license as well.
    let types = create(json!({"typeCodes": [card.code, other_type.code], "maxUses": 3}));
    let (made, _) = server.permitted(&mut portal, &types).await;
    let by_type = made.json["grant"].as_str().unwrap();
    for license in [&first, &second, &third] {
        server.permitted(&mut bank, &license.retrieve(&["certificateNumber"], Some(by_type))).await;
    }
    let rows = listed(&mut portal, first.draft.holder()).await;
    assert!(rows.iter().any(|row| row["typeCodes"] == json!([card.code, other_type.code])), "{rows:?}");

    // One end ends it for all.
    server.permitted(&mut portal, &revoke(first.draft.holder(), by_type)).await;
    for license in [&first, &second] {
        let call = license.retrieve(&["certificateNumber"], Some(by_type));
        server.refused(&mut bank, &call, Code::NotPermitted).await;
    }

    // What is not wholly the holder's is refused whole, and what is written wrong by its place.
    let stranger = draft(&card).issue(&mut issuer).await;
    let theirs = create(
        json!({"identifiers": [first.identifier, stranger.identifier], "fields": ["certificateNumber"]}),
    );
    server.refused(&mut portal, &theirs, Code::NotPermitted).await;
    for (pointer, wrong) in [
        ("", json!({"identifier": first.identifier, "identifiers": [second.identifier]})),
        ("/identifiers", json!({"identifiers": []})),
        ("/identifiers/1", json!({"identifiers": [first.identifier, first.identifier]})),
        ("/typeCodes/1", json!({"typeCodes": [card.code, card.code]})),
        ("/fields/0", json!({"typeCodes": [card.code, other_type.code], "fields": ["noSuchField"]})),
    ] {
        let refused = server.refused(&mut portal, &create(wrong), Code::BadGrant).await.0;
        assert_eq!(refused.json["errors"][0]["pointer"], json!(pointer), "{}", refused.json);
    }
}

#[tokio::test]
async fn a_grant_is_paused_resumed_and_narrowed_and_never_made_wider() {
    let server = shared(setup).await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut issuer).await;
    let mut terms = grant(license.draft.holder(), &bank, Target::License(&license));
    terms["modes"] = json!(["face"]);
    terms["maxUses"] = json!(5);
    let right = portal.grant(&terms).await;
    let use_it = license.retrieve(&["holderName"], Some(&right));
    let step = |more: Value| change(&license, &right, more);
    server.permitted(&mut bank, &use_it).await;
    server.refused(&mut portal, &step(json!({"action": "resume"})), Code::BadGrant).await;
    let (paused, _) = server.permitted(&mut portal, &step(json!({"action": "pause"}))).await;
    assert_eq!(paused.json["state"], json!("paused"));
    server.refused(&mut bank, &use_it, Code::NotPermitted).await;
    server.refused(&mut portal, &step(json!({"action": "pause"})), Code::BadGrant).await;
    assert_eq!(listed(&mut portal, license.draft.holder()).await[0]["state"], json!("paused"));
    // What is narrowed stays paused.
    let (narrowed, _) = server.permitted(&mut portal, &step(json!({"action": "narrow", "maxUses": 4}))).await;
    assert_eq!(narrowed.json["state"], json!("paused"));
    server.permitted(&mut portal, &step(json!({"action": "resume"}))).await;
    server.permitted(&mut bank, &use_it).await;

    let less = json!({"action": "narrow", "modes": ["fields"], "fields": ["holderName"], "purpose": "测试用途",
        "scenario": "finance", "itemCode": use_context()["itemCode"], "userName": use_context()["userName"], "maxUses": 3});
    server.permitted(&mut portal, &step(less)).await;
    server.refused(&mut bank, &use_it, Code::NotPermitted).await;
    let context = json!({"use.purpose": "测试用途", "use.scenario": "finance"});
    server.permitted(&mut bank, &with(&use_it, &context)).await;
    let number = with(&license.retrieve(&["certificateNumber"], Some(&right)), &context);
    server.refused(&mut bank, &number, Code::NotPermitted).await;
    let late = schemas::date::rfc3339(tests::now_ms() + 7_200_000);
    for (pointer, wider) in [
        ("/modes", json!({"modes": ["face"]})),
        ("/modes", json!({"modes": ["search"]})),
        ("/fields", json!({"fields": ["holderName", "certificateNumber"]})),
        ("/itemCode", json!({"itemCode": "another"})),
        ("/purpose", json!({"purpose": "别的用途"})),
        ("/scenario", json!({"scenario": "tax"})),
        ("/userName", json!({"userName": "别人"})),
        ("/until", json!({"until": late})),
        ("/maxUses", json!({"maxUses": 4})),
    ] {
        let mut body = wider.clone();
        body["action"] = json!("narrow");
        let (reply, _) = server.refused(&mut portal, &step(body), Code::BadGrant).await;
        assert_eq!(reply.json["errors"][0]["pointer"], json!(pointer), "{wider}: {}", reply.json);
    }
    for bad in [
        json!({"action": "narrow"}),
        json!({"action": "pause", "maxUses": 1}),
        json!({"action": "narrow", "scenario": "space-travel"}),
        json!({"action": "narrow", "fields": ["surprise"]}),
        json!({"action": "narrow", "maxUses": 0}),
    ] {
        server.refused(&mut portal, &step(bad), Code::BadGrant).await;
    }
    server.permitted(&mut portal, &revoke(license.draft.holder(), &right)).await;
    server.refused(&mut portal, &step(json!({"action": "resume"})), Code::BadGrant).await;
}

#[tokio::test]
async fn a_license_in_a_case_is_one_use_however_often_it_is_asked_for() {
    let server = shared(setup).await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut issuer).await;
    let mut terms = grant(license.draft.holder(), &bank, Target::License(&license));
    terms["maxUses"] = json!(2);
    let right = portal.grant(&terms).await;
    let (verify, retrieve) = (license.verify(Some(&right)), license.retrieve(&["holderName"], Some(&right)));
    let size = server.size().await;
    for _ in 0..3 {
        server.permitted(&mut bank, &verify).await;
        server.permitted(&mut bank, &retrieve).await;
    }
    assert_eq!(server.size().await, size + 6, "each has its entry");
    assert_eq!(listed(&mut portal, license.draft.holder()).await[0]["uses"], json!(1));
    server.permitted(&mut bank, &verify.in_new_case()).await;
    server.refused(&mut bank, &verify.in_new_case(), Code::NotPermitted).await;
    // The same number in another item is another case.
    server.refused(&mut bank, &with(&verify, &json!({"use.itemCode": "another"})), Code::NotPermitted).await;
    // In the cases where it was used, the right goes on.
    server.permitted(&mut bank, &retrieve).await;
    let row = listed(&mut portal, license.draft.holder()).await.remove(0);
    assert_eq!((&row["state"], &row["uses"], &row["left"]), (&json!("used-up"), &json!(2), &json!(0)));
    let page = bank.send(&Call::new(Route::GrantSearch, &json!({}))).await.expect(200).json;
    assert!(page["grants"].as_array().unwrap().iter().any(|row| row["grant"] == json!(right)));
    server.permitted(&mut portal, &revoke(license.draft.holder(), &right)).await;
    server.refused(&mut bank, &retrieve, Code::NotPermitted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uses_are_exact_over_many_rounds_at_once() {
    let mut server = setup().start().await;
    let bank = server.organisation("bank");
    let license = draft(&natural()).issue(&mut server.party("issuer")).await;
    let mut portal = server.party("portal");
    let mut rights = Vec::new();
    let mut terms = grant(license.draft.holder(), &server.party("bank"), Target::License(&license));
    for seed in 0..SEEDS {
        let uses = 1 + seed % 4;
        terms["maxUses"] = json!(uses);
        rights.push((uses, portal.grant(&terms).await));
    }
    assert_eq!(server.stop(), Some(0));
    let later = Arc::new(server.later(0).await);
    for (uses, right) in rights {
        let verify = license.verify(Some(&right));
        // Every third request is of a case that another one has, too.
        let shared = verify.in_new_case();
        let asked = (0..10 * uses).map(|number| {
            let call = if number % 3 == 2 { shared.clone() } else { verify.in_new_case() };
            let (later, call) = (Arc::clone(&later), call.key(&key()));
            tokio::spawn(async move { (number % 3 == 2, later.ask(bank, &call).await) })
        });
        let asked: Vec<_> = asked.collect();
        let (mut cases, mut in_shared, mut refused_in_shared) = (0, 0, 0);
        for task in asked {
            match task.await.unwrap() {
                (false, reply) if reply.status == 200 => cases += 1,
                (true, reply) if reply.status == 200 => in_shared += 1,
                (is_shared, reply) => {
                    assert_eq!((reply.status, reply.code()), (403, Code::NotPermitted.name()));
                    refused_in_shared += u32::from(is_shared);
                }
            }
        }
        // All of the shared case were one use, if they had one.
        assert_eq!(cases + u32::from(in_shared > 0), uses, "{in_shared} and {refused_in_shared} in one case");
    }
    Arc::into_inner(later).unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uses_are_exact_across_a_kill() {
    const USES: u32 = 4;
    let mut server = setup().start().await;
    let license = draft(&natural()).issue(&mut server.party("issuer")).await;
    for seed in 0..KILLED {
        let mut terms = grant(license.draft.holder(), &server.party("bank"), Target::License(&license));
        terms["maxUses"] = json!(USES);
        let right = server.party("portal").grant(&terms).await;
        let verify = license.verify(Some(&right));
        let calls: Vec<Call> = (0..10 * USES).map(|_| verify.in_new_case().key(&key())).collect();
        let tasks: Vec<_> = calls
            .iter()
            .map(|call| {
                let (mut party, call) = (server.party("bank"), call.clone());
                tokio::spawn(async move { party.try_send(&call).await.is_ok() })
            })
            .collect();
        // After some answers, a few more each time.
        let mut answered = 0;
        for task in tasks {
            if answered == 1 + seed * 3 {
                server.kill();
            }
            answered += u32::from(task.await.unwrap());
        }
        server.kill();
        server.start();
        let mut permits = 0;
        let mut bank = server.party("bank");
        for call in &calls {
            permits += u32::from(bank.send(call).await.status == 200);
        }
        assert_eq!(permits, USES, "seed {seed}");
    }
}

/// A link of an organisation's people.
fn link(of: &HolderRef, agent: &HolderRef, kind: &str, more: Value) -> Call {
    let mut body =
        json!({"holder": holder(of), "agent": holder(agent), "kind": kind, "until": in_one_hour()});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    Call::new(Route::LinkMake, &body)
}

fn unlink(of: &HolderRef, agent: &HolderRef) -> Call {
    Call::new(Route::LinkEnd, &json!({"holder": holder(of), "agent": holder(agent), "reason": "测试"}))
}

#[tokio::test]
async fn a_delegate_grants_no_more_than_held_and_a_link_that_ends_cuts_off_all_under_it() {
    let mut server = setup().start().await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let license = draft(&legal()).issue(&mut issuer).await;
    let company = license.draft.holder().clone();
    let [head, manager, clerk, other] = [0; 4].map(|_| draft(&natural()).holder().clone());
    let until = in_one_hour();
    let under = |via: &HolderRef, more: Value| {
        let mut terms = json!({"via": holder(via), "until": until});
        for (name, value) in more.as_object().unwrap() {
            terms[name] = value.clone();
        }
        terms
    };
    // A gap: nobody is a manager of nobody, or under a link that there is not.
    let gap = link(&company, &manager, "manager", json!({"until": until}));
    let (reply, _) = server.refused(&mut portal, &gap, Code::BadLink).await;
    assert_eq!(reply.json["errors"][0]["pointer"], json!("/via"));
    let gap = link(&company, &manager, "manager", under(&head, json!({})));
    server.refused(&mut portal, &gap, Code::NotPermitted).await;
    server
        .permitted(&mut portal, &link(&company, &head, "legal-representative", json!({"until": until})))
        .await;
    let limited = under(&head, json!({"modes": ["fields"], "typeCodes": [legal().code]}));
    let as_manager = link(&company, &manager, "manager", limited);
    server.permitted(&mut portal, &as_manager).await;
    // Broader children, a loop, a tier the wrong way round, a person's kind.
    let within = json!({"modes": ["verify"], "typeCodes": [legal().code]});
    let late = schemas::date::rfc3339(tests::now_ms() + 7_200_000);
    for (pointer, agent, kind, more) in [
        ("/modes", &clerk, "clerk", json!({"modes": ["face"]})),
        ("/modes", &clerk, "clerk", json!({"modes": null})),
        ("/typeCodes", &clerk, "clerk", json!({"typeCodes": []})),
        ("/typeCodes", &clerk, "clerk", json!({"typeCodes": [natural().code]})),
        ("/until", &clerk, "clerk", json!({"until": late})),
        ("/agent", &head, "clerk", json!({})),
        ("/kind", &clerk, "manager", json!({})),
        ("/kind", &clerk, "relative", json!({})),
    ] {
        let mut terms = under(&manager, within.clone());
        for (name, value) in more.as_object().unwrap() {
            terms[name] = value.clone();
        }
        let (reply, _) =
            server.refused(&mut portal, &link(&company, agent, kind, terms), Code::BadLink).await;
        assert_eq!(reply.json["errors"][0]["pointer"], json!(pointer), "{kind} {more}: {}", reply.json);
    }
    server.permitted(&mut portal, &link(&company, &clerk, "clerk", under(&manager, within))).await;

    let grantee = bank.again();
    let terms = |agent: &HolderRef, mode: &str| {
        let mut terms = grant(&company, &grantee, Target::License(&license));
        terms["agent"] = holder(agent);
        terms["modes"] = json!([mode]);
        terms["until"] = json!(schemas::date::rfc3339(tests::now_ms() + 600_000));
        Call::new(Route::GrantCreate, &terms)
    };
    let (reply, _) = server.refused(&mut portal, &terms(&clerk, "fields"), Code::BadGrant).await;
    assert_eq!(reply.json["detail"], json!(Reason::BeyondLink.name()));
    server.refused(&mut portal, &terms(&other, "verify"), Code::NotPermitted).await;
    let (made, entry) = server.permitted(&mut portal, &terms(&clerk, "verify")).await;
    assert!(
        matches!(&entry.open.acting_for, ActingFor::Chain(chain) if chain.len() == 4),
        "{:?}",
        entry.open
    );
    let by_clerk = made.json["grant"].as_str().unwrap().to_owned();
    let (made, entry) = server.permitted(&mut portal, &terms(&head, "face")).await;
    assert!(matches!(&entry.open.acting_for, ActingFor::Chain(chain) if chain.len() == 2));
    let by_head = made.json["grant"].as_str().unwrap().to_owned();
    let asked = |right: &str| license.verify(Some(right));
    for right in [&by_clerk, &by_head] {
        server.permitted(&mut bank, &asked(right)).await;
    }
    // Another agent has no say over it; who made it does, and the holder.
    let step = |agent: &HolderRef, action: &str| {
        change(&license, &by_clerk, json!({"agent": holder(agent), "action": action}))
    };
    server.refused(&mut portal, &step(&head, "pause"), Code::NotPermitted).await;
    server.permitted(&mut portal, &step(&clerk, "pause")).await;
    server.permitted(&mut portal, &step(&clerk, "resume")).await;

    // The manager's link ends, and all under it with it; the legal representative's own goes on.
    server.permitted(&mut portal, &unlink(&company, &manager)).await;
    let (_, refused) = server.refused(&mut bank, &asked(&by_clerk), Code::NotPermitted).await;
    server.permitted(&mut bank, &asked(&by_head)).await;
    server.refused(&mut portal, &terms(&clerk, "verify"), Code::NotPermitted).await;
    let rows = listed(&mut portal, &company).await;
    let linked =
        |right: &str| rows.iter().find(|row| row["grant"] == json!(right)).unwrap()["linked"].clone();
    assert_eq!((linked(&by_clerk), linked(&by_head)), (json!(false), json!(true)));
    // Made anew it is another one, and nothing comes back.
    server.permitted(&mut portal, &with(&as_manager, &json!({"until": until}))).await;
    server.refused(&mut bank, &asked(&by_clerk), Code::NotPermitted).await;
    server.refused(&mut portal, &terms(&clerk, "verify"), Code::NotPermitted).await;
    assert_eq!(server.stop(), Some(0));
    assert_eq!(server.reasons().get(&refused.open.index), Some(&Reason::GrantLinkEnded.number()));
}

#[tokio::test]
async fn narrower_terms_of_a_link_bind_what_was_granted_under_it() {
    let server = shared(setup).await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut issuer).await;
    let (of, friend) = (license.draft.holder().clone(), draft(&natural()).holder().clone());
    let until = in_one_hour();
    let terms = |modes: Value| link(&of, &friend, "relative", json!({"modes": modes, "until": until}));
    server.permitted(&mut portal, &terms(json!(["face"]))).await;
    let mut body = grant(&of, &bank, Target::License(&license));
    body["agent"] = holder(&friend);
    body["modes"] = json!(["face"]);
    body["until"] = json!(until);
    let right = portal.grant(&body).await;
    let asked = license.verify(Some(&right));
    server.permitted(&mut bank, &asked).await;
    server.permitted(&mut portal, &terms(json!(["fields"]))).await;
    server.refused(&mut bank, &asked, Code::NotPermitted).await;
    server.permitted(&mut portal, &terms(json!(["copy"]))).await;
    server.permitted(&mut bank, &asked).await;
    // The friend's trace has it too: a grant by an agent is logged under both.
    let trace = Call::new(Route::Trace, &json!({"holder": holder(&friend), "use": use_context()}));
    eventually("the grant in the agent's trace", || {
        let (mut portal, trace) = (portal.again(), trace.clone());
        async move {
            let page = portal.send(&trace).await.expect(200).json;
            page["entries"]
                .as_array()
                .unwrap()
                .iter()
                .any(|entry| entry["entry"]["route"] == "grant-create")
                .then_some(())
        }
    })
    .await;
}

#[tokio::test]
async fn guardians_of_minors_act_until_they_are_of_age() {
    let server = shared(setup).await;
    let mut portal = server.party("portal");
    let mut issuer = server.party("issuer");
    let minor = minor();
    draft(&natural()).of_holder(&minor).issue(&mut issuer).await;
    let parent = draft(&natural()).holder().clone();
    let long = link(&minor, &parent, "guardian", json!({"until": "2033-05-06T00:00:00+08:00"}));
    let (reply, _) = server.refused(&mut portal, &long, Code::BadLink).await;
    assert_eq!(reply.json["errors"][0]["pointer"], json!("/until"));
    let good = link(&minor, &parent, "guardian", json!({"until": "2033-05-04T00:00:00+08:00"}));
    server.permitted(&mut portal, &good).await;
    // An elder's guardian says what the guardianship rests on.
    let elder = draft(&natural()).issue(&mut issuer).await.draft.holder().clone();
    let (reply, _) =
        server.refused(&mut portal, &link(&elder, &parent, "guardian", json!({})), Code::BadLink).await;
    assert_eq!(reply.json["errors"][0]["pointer"], json!("/basis"));
    server.permitted(&mut portal, &link(&elder, &parent, "guardian", json!({"basis": "测试判决"}))).await;
}

/// A minor's number with its right check character; the sequence is 000.
fn minor() -> HolderRef {
    let fits = |check| HolderRef::new("111", &format!("44010620150505000{check}")).ok();
    "0123456789X".chars().find_map(fits).unwrap()
}

#[test]
fn the_page_leads_a_holder_from_a_grant_to_the_use_and_its_end() {
    crate::departments::follow(include_str!("../../exchange/docs/guides/holders.md"));
}
