//! Identity assertions: what a holder gives needs the identity provider's word, once; what is taken away does not.

use std::num::NonZeroU32;

use exchange::config::{Config, IdentityProvider as Configured};
use schemas::codes::{Code, Reason};
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{
    AUDIENCE, Call, Draft, IdentityProvider, Issued, Party, Reply, Server, Setup, Target, draft, eventually,
    grant, holder, in_one_hour, key, natural, revoke, use_context,
};

const JWKS: &str = "identity.json";

fn configured(provider: &IdentityProvider) -> Configured {
    Configured {
        issuer: provider.issuer(),
        audience: AUDIENCE.to_owned(),
        keys: None,
        discovery: None,
        authorities: None,
        keep_minutes: NonZeroU32::MIN,
        levels: Vec::new(),
    }
}

/// A server that takes assertions by keys in a file.
async fn by_file(provider: &IdentityProvider, change: impl FnOnce(&mut Config) + 'static) -> Server {
    let identity = Configured { keys: Some(JWKS.to_owned()), ..configured(provider) };
    let setup = Setup::new().config(move |config| {
        config.identity = Some(identity);
        change(config);
    });
    let mut server = setup.prepare().await;
    std::fs::write(server.folder.join(JWKS), provider.jwks().to_string()).unwrap();
    server.start();
    server
}

fn with(mut body: Value, assertion: &str) -> Call {
    body["assertion"] = json!(assertion);
    Call::new(Route::GrantCreate, &body)
}

/// Refused for its assertion, for this reason.
async fn refused(server: &Server, party: &mut Party, call: &Call, reason: Reason) -> Reply {
    let (reply, _) = server.refused(party, call, Code::AssertionRefused).await;
    assert_eq!(reply.json["detail"], json!(reason.name()), "{}", reply.json);
    reply
}

#[tokio::test]
async fn a_grant_needs_the_holders_own_word_and_takes_it_once() {
    let provider = IdentityProvider::start();
    let mut server = by_file(&provider, |config| {
        config.identity.as_mut().unwrap().levels = vec!["low".to_owned(), "high".to_owned()];
    })
    .await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut issuer).await;
    let of = license.draft.holder().clone();
    let terms = grant(&of, &bank, Target::License(&license));
    let good = provider.claims(&portal.organisation, &of);
    let other = provider.claims(&portal.organisation, draft(&natural()).holder());
    let now = good["iat"].as_u64().unwrap();
    let changed = |member: &str, value: Value| {
        let mut claims = provider.claims(&portal.organisation, &of);
        claims[member] = value;
        provider.sign(&claims)
    };
    let stranger = IdentityProvider::start();
    let mut forged = provider.sign(&good);
    forged.replace_range(
        forged.len() - 10..forged.len() - 9,
        if forged.as_bytes()[forged.len() - 10] == b'A' { "B" } else { "A" },
    );
    let none = Issued { identifier: absent(&license), envelope: Vec::new(), draft: license.draft.clone() };
    let of_nothing = grant(&of, &bank, Target::License(&none));
    for (assertion, reason) in [
        (forged, Reason::AssertionForged),
        (stranger.sign(&good), Reason::AssertionForged),
        ("a.b.c".to_owned(), Reason::AssertionMalformed),
        (provider.sign(&other), Reason::AssertionSubject),
        (changed("aud", json!("others")), Reason::AssertionAudience),
        (changed("iss", json!("https://other.example")), Reason::AssertionAudience),
        (changed("azp", json!(bank.organisation)), Reason::AssertionAudience),
        (changed("exp", json!(now - 61)), Reason::AssertionExpired),
        (changed("nbf", json!(now + 3_600)), Reason::AssertionEarly),
        (changed("acr", json!("none")), Reason::AssertionLevel),
    ] {
        // Whether there is such a license makes no difference.
        let one = refused(&server, &mut portal, &with(terms.clone(), &assertion), reason).await;
        let two = refused(&server, &mut portal, &with(of_nothing.clone(), &assertion), reason).await;
        assert_eq!(one.hashed(), two.hashed());
    }
    refused(&server, &mut portal, &Call::new(Route::GrantCreate, &terms), Reason::AssertionMissing).await;
    let spent = provider.sign(&good);
    let call = with(terms.clone(), &spent).without("receipt").key(&key());
    let (first, _) = server.permitted(&mut portal, &call).await;
    let right = first.json["grant"].as_str().unwrap().to_owned();
    // The same request again is answered again; another one with the same word is not.
    assert_eq!(portal.send(&call).await.expect(201).body, first.body);
    refused(&server, &mut portal, &with(terms.clone(), &spent), Reason::AssertionUsed).await;
    server.permitted(&mut bank, &license.verify(Some(&right))).await;
    // Pausing and revoking take away: they need no word. Resuming gives.
    let step = |action: &str| {
        Call::new(
            Route::GrantChange,
            &json!({"grant": right, "holder": holder(&of), "action": action, "reason": "测试"}),
        )
    };
    server.permitted(&mut portal, &step("pause")).await;
    refused(&server, &mut portal, &step("resume"), Reason::AssertionMissing).await;
    let mut resume: Value = serde_json::from_slice(&step("resume").body).unwrap();
    resume["assertion"] = json!(provider.assert(&portal.organisation, &of));
    server.permitted(&mut portal, &Call::new(Route::GrantChange, &resume)).await;
    server.permitted(&mut portal, &revoke(&of, &right)).await;
    server.refused(&mut bank, &license.verify(Some(&right)), Code::NotPermitted).await;
    // Used before a restart is used behind it.
    server.kill();
    server.start();
    refused(&server, &mut server.party("portal"), &with(terms, &spent), Reason::AssertionUsed).await;
    // The level stands in what the holder is told.
    let word = provider.assert(&portal.organisation, &of);
    let trace = json!({"holder": holder(&of), "assertion": word, "use": use_context()});
    let trace = Call::new(Route::Trace, &trace);
    eventually("the level in the trace", || {
        let (mut portal, trace) = (server.party("portal"), trace.clone());
        async move {
            let page = portal.send(&trace).await.expect(200).json;
            let told = page["entries"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|entry| entry["told"]["document"].as_str());
            let mut told = told.map(|told| serde_json::from_str::<Value>(told).unwrap());
            told.any(|told| told["assurance"] == "high" && told["terms"]["grantee"].is_string()).then_some(())
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_portal_reads_for_a_person_takes_that_persons_word() {
    let provider = IdentityProvider::start();
    let server = by_file(&provider, |_| {}).await;
    let [mut issuer, mut portal] = ["issuer", "portal"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut issuer).await;
    let of = license.draft.holder().clone();
    let organisation = portal.organisation;
    let (own, others) =
        (provider.assert(&organisation, &of), provider.assert(&organisation, draft(&natural()).holder()));
    let named = json!({"identifier": license.identifier});
    // An item that asks for such a license.
    let department = server.organisation("issuer");
    let mut of_item = use_context();
    of_item["itemCode"] = json!(format!("{department}4400100000001"));
    let item = &of_item["itemCode"];
    for (list, row) in [
        ("materials", json!({"code": "SFZ", "name": "居民身份证", "version": "1", "origin": "government"})),
        (
            "items",
            json!({"code": item, "name": "测试事项", "version": "1", "department": department, "materials": "SFZ"}),
        ),
        ("mappings", json!({"item": item, "material": "SFZ", "mode": "verify", "typeCode": natural().code})),
    ] {
        let import = json!({"list": list, "source": "测试", "rows": [row]});
        server.permitted(&mut server.party("operator"), &Call::new(Route::ItemsImport, &import)).await;
    }
    let questions = [
        (Route::Search, json!({"holder": holder(&of), "use": use_context()})),
        (Route::Trace, json!({"holder": holder(&of), "use": use_context()})),
        (Route::GrantSearch, json!({"holder": holder(&of)})),
        (Route::ItemsMaterials, json!({"holder": holder(&of), "use": of_item})),
        (Route::Verify, json!({"license": named, "holder": holder(&of), "use": use_context()})),
        (
            Route::Retrieve,
            json!({"license": named, "mode": "face", "holder": holder(&of), "use": use_context()}),
        ),
    ];
    for (route, question) in questions {
        let asked = |assertion: Option<&str>| {
            let mut body = question.clone();
            if let Some(assertion) = assertion {
                body["assertion"] = json!(assertion);
            }
            Call::new(route, &body)
        };
        refused(&server, &mut portal, &asked(None), Reason::AssertionMissing).await;
        refused(&server, &mut portal, &asked(Some(&others)), Reason::AssertionSubject).await;
        server.permitted(&mut portal, &asked(Some(&own))).await;
        if matches!(route, Route::Verify | Route::Retrieve) {
            refused(&server, &mut portal, &asked(None).machine(), Reason::AssertionMissing).await;
            server.permitted(&mut portal, &asked(Some(&own)).machine()).await;
            let mut nobodys = question.clone();
            nobodys.as_object_mut().unwrap().remove("holder");
            nobodys["assertion"] = json!(own);
            let call = Call::new(route, &nobodys);
            refused(&server, &mut portal, &call, Reason::AssertionSubject).await;
        }
    }
}

/// The identifier of a license that there is not, of the same type and issuer.
fn absent(issued: &Issued) -> String {
    let identifier: schemas::identifier::CertificateIdentifier = issued.identifier.parse().unwrap();
    let (issuer, serial) = (identifier.issuer().uscc().unwrap(), draft(&natural()).serial.parse().unwrap());
    schemas::identifier::CertificateIdentifier::new(identifier.type_code(), issuer, serial, 1)
        .unwrap()
        .to_string()
}

#[tokio::test]
async fn a_link_needs_both_consents_and_a_user_the_word_for_a_grant_of_one_user() {
    let provider = IdentityProvider::start();
    let server = by_file(&provider, |_| {}).await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut issuer).await;
    let (of, friend): (_, Draft) = (license.draft.holder().clone(), draft(&natural()));
    let friend = friend.holder().clone();
    let organisation = portal.organisation;
    let says = |who| provider.assert(&organisation, who);
    let until = in_one_hour();
    let link = |more: Value| {
        let mut body =
            json!({"holder": holder(&of), "agent": holder(&friend), "kind": "agent", "until": until});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        Call::new(Route::LinkMake, &body)
    };
    let mut asker = portal.again();
    refused(&server, &mut asker, &link(json!({})), Reason::AssertionMissing).await;
    refused(&server, &mut asker, &link(json!({"assertion": says(&of)})), Reason::AssertionMissing).await;
    let taken = json!({"agentAssertion": says(&friend)});
    refused(&server, &mut asker, &link(taken), Reason::AssertionMissing).await;
    let turned = json!({"assertion": says(&friend), "agentAssertion": says(&of)});
    refused(&server, &mut asker, &link(turned), Reason::AssertionSubject).await;
    let both = json!({"assertion": says(&of), "agentAssertion": says(&friend)});
    server.permitted(&mut asker, &link(both)).await;
    // The agent grants with the agent's own word.
    let mut terms = grant(&of, &bank, Target::License(&license));
    terms["agent"] = holder(&friend);
    terms["until"] = json!(until);
    terms["userName"] = use_context()["userName"].clone();
    refused(&server, &mut portal, &with(terms.clone(), &says(&of)), Reason::AssertionSubject).await;
    let (made, _) = server.permitted(&mut portal, &with(terms, &says(&friend))).await;
    let right = made.json["grant"].as_str().unwrap();
    // The user says who they are, too, by a word for the bank.
    let mut used: Value = serde_json::from_slice(&license.verify(Some(right)).body).unwrap();
    server.refused(&mut bank, &Call::new(Route::Verify, &used), Code::NotPermitted).await;
    let word = |name: &str| {
        let mut claims = provider.claims(&bank.organisation, &of);
        claims.as_object_mut().unwrap().remove("holder");
        claims["user"] = json!(name);
        provider.sign(&claims)
    };
    let mut user = bank.again();
    used["use"]["assertion"] = json!(word("别人"));
    server.refused(&mut user, &Call::new(Route::Verify, &used), Code::NotPermitted).await;
    used["use"]["assertion"] = json!(word(use_context()["userName"].as_str().unwrap()));
    for _ in 0..2 {
        server.permitted(&mut user, &Call::new(Route::Verify, &used)).await;
    }
}

#[tokio::test]
async fn keys_come_by_discovery_turn_over_and_end_when_the_provider_is_down() {
    let provider = IdentityProvider::start();
    let folder = tempfile::tempdir().unwrap();
    let authorities = folder.path().join("ca.pem");
    std::fs::write(&authorities, &provider.authorities).unwrap();
    let discovery = Some(format!("{}/.well-known/openid-configuration", provider.issuer()));
    let identity = Configured { discovery, authorities: Some(authorities.clone()), ..configured(&provider) };
    let mut server = Setup::new().config(move |config| config.identity = Some(identity)).start().await;
    let [mut issuer, mut portal, bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut issuer).await;
    let of = license.draft.holder().clone();
    let terms = grant(&of, &bank, Target::License(&license));
    let organisation = portal.organisation;
    let asserted = || with(terms.clone(), &provider.assert(&organisation, &of));
    server.permitted(&mut portal, &asserted()).await;
    // A key that the exchange does not know has it look again.
    provider.rotate("second");
    eventually("the new key", || {
        let (mut portal, call) = (server.party("portal"), asserted());
        async move { (portal.send(&call).await.status == 201).then_some(()) }
    })
    .await;
    // Without the provider a start takes no assertion, and answers everything else. A refusal, and no failure.
    assert_eq!(server.stop(), Some(0));
    let call = asserted();
    drop(provider);
    server.start();
    let mut portal = server.party("portal");
    refused(&server, &mut portal, &call, Reason::IdentityUnavailable).await;
    server.permitted(&mut server.party("issuer"), &license.verify(None)).await;
    let ready = server.admin("/ready").await;
    assert_eq!(ready.status, 200);
    let said = String::from_utf8(ready.body.to_vec()).unwrap();
    assert!(said.contains("identity-keys"), "{said}");
}

#[tokio::test]
async fn what_is_configured_wrongly_does_not_start() {
    let provider = IdentityProvider::start();
    let good = configured(&provider);
    let url = || Some("http://localhost/jwks".to_owned());
    for (identity, says) in [
        (good.clone(), "identity.keys"),
        (Configured { keys: url(), ..good.clone() }, "identity.keys"),
        (Configured { discovery: url(), ..good.clone() }, "identity.discovery"),
        (
            Configured { keys: Some("https://localhost/jwks".to_owned()), ..good.clone() },
            "identity.authorities",
        ),
        (Configured { keys: Some("missing.json".to_owned()), ..good.clone() }, "missing.json"),
        (Configured { issuer: String::new(), ..good.clone() }, "identity.issuer"),
    ] {
        let mut server = Setup::new().config(move |config| config.identity = Some(identity)).prepare().await;
        let finished = server.start_refused();
        assert_ne!(finished.status, Some(0));
        assert!(finished.stderr.contains(says), "{says}: {}", finished.stderr);
    }
    // Without a provider, a word that nobody can check is not passed over.
    let server = Setup::new().start().await;
    let [mut issuer, mut portal, bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut issuer).await;
    let terms = grant(license.draft.holder(), &bank, Target::License(&license));
    let word = provider.assert(&portal.organisation, license.draft.holder());
    refused(&server, &mut portal, &with(terms, &word), Reason::IdentityUnavailable).await;
}
