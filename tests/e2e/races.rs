//! Facts that change between decision and commit: the decision is made again, and no permit has a later index than
//! what took its right away.
//!
//! The gateway of a debug build holds a request that carries `x-miaoxiang-hold` just before its commit, while the file
//! that `MIAOXIANG_HOLD` names exists.

use std::path::PathBuf;

use schemas::codes::{Code, Decision};
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{
    Call, Entry, Issued, Party, Reply, Server, Setup, Target, draft, eventually, grant, holder, key, natural,
    now_ms, revoke, use_context,
};

/// A server with a hold, and what it takes to use it.
struct Rig {
    server: Server,
    hold: PathBuf,
    _folder: tempfile::TempDir,
}

impl Rig {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hold = folder.path().join("hold");
        let server =
            Setup::new().authority("authority2").env("MIAOXIANG_HOLD", hold.to_str().unwrap()).start().await;
        Self { server, hold, _folder: folder }
    }

    /// Sends `call` held before its commit; when it is decided, does `meanwhile`; then lets it go on.
    async fn held(&self, party: &Party, call: &Call, meanwhile: impl AsyncFnOnce(&Server)) -> (Reply, Entry) {
        let arrived = self.hold.with_extension("arrived");
        let _ = std::fs::remove_file(&arrived);
        std::fs::write(&self.hold, "").unwrap();
        let held = call.clone().header("x-miaoxiang-hold", "1");
        let mut party = party.again();
        let task = tokio::spawn(async move { party.send(&held).await });
        eventually("the held decision", || async { arrived.exists().then_some(()) }).await;
        meanwhile(&self.server).await;
        assert!(!task.is_finished(), "the request was not held");
        std::fs::remove_file(&self.hold).unwrap();
        let reply = task.await.unwrap();
        let entry = self.server.entry(&reply).await;
        (reply, entry)
    }

    fn party(&self, name: &str) -> Party {
        self.server.party(name)
    }
}

/// A license of a natural person with a grant of everything to the bank.
async fn with_grant(rig: &Rig) -> (Issued, String) {
    let issued = draft(&natural()).issue(&mut rig.party("issuer")).await;
    let body = grant(issued.draft.holder(), &rig.party("bank"), Target::License(&issued));
    let right = rig.party("portal").grant(&body).await;
    (issued, right)
}

/// The index of the entry that a change made.
async fn index_of(party: &mut Party, call: &Call) -> u64 {
    let reply = party.send(call).await;
    assert!(reply.status < 300, "{}", reply.json);
    reply.receipt().index
}

/// The held answer is a denial of this code, later than the change.
fn denied(outcome: &(Reply, Entry), change: u64, code: Code) {
    let (reply, entry) = outcome;
    assert_eq!((reply.status, reply.code()), (code.status(), code.name()), "{}", reply.json);
    assert_eq!(entry.open.decision, Decision::Denial.number());
    assert!(entry.open.index > change, "{} is not after {change}", entry.open.index);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_changing_leaves_the_decision_as_it_was() {
    let rig = Rig::start().await;
    let (license, right) = with_grant(&rig).await;
    let (reply, entry) = rig.held(&rig.party("bank"), &license.verify(Some(&right)), async |_| {}).await;
    assert_eq!((reply.status, &reply.json["verdict"]), (200, &json!("valid")));
    assert_eq!(entry.open.decision, Decision::Permit.number());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_revoked_meanwhile_permits_nothing() {
    let rig = Rig::start().await;
    for retrieve in [false, true] {
        let (license, right) = with_grant(&rig).await;
        let call = match retrieve {
            true => license.retrieve(&["holderName"], Some(&right)),
            false => license.verify(Some(&right)),
        };
        let mut change = 0;
        let end = revoke(license.draft.holder(), &right);
        let outcome = rig
            .held(&rig.party("bank"), &call, async |server| {
                change = index_of(&mut server.party("portal"), &end).await
            })
            .await;
        denied(&outcome, change, Code::NotPermitted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_ended_scanned_or_expired_meanwhile_permits_nothing() {
    let rig = Rig::start().await;
    for (seconds, by) in [(300, "portal"), (300, "approval"), (5, "bank")] {
        let license = draft(&natural()).issue(&mut rig.party("issuer")).await;
        let of = holder(license.draft.holder());
        let mint =
            json!({"holder": of, "identifier": license.identifier, "verifiers": "any", "seconds": seconds});
        let minted = rig.party("portal").send(&Call::new(Route::CodeMint, &mint)).await.expect(201);
        let code = &minted.json["text"];
        let scan = || Call::new(Route::CodeScan, &json!({"code": code, "use": use_context()}));
        let end = Call::new(Route::CodeEnd, &json!({"code": code, "holder": of, "reason": "测试"}));
        let mut change = 0;
        let outcome = rig
            .held(&rig.party("bank"), &scan(), async |server| {
                change = match by {
                    "portal" => index_of(&mut server.party(by), &end).await,
                    "approval" => index_of(&mut server.party(by), &scan()).await,
                    _ => {
                        let ends = now_ms() + seconds * 1_000;
                        eventually("the code's end", || async { (now_ms() > ends).then_some(()) }).await;
                        server.size().await - 1
                    }
                };
            })
            .await;
        denied(&outcome, change, Code::NotPermitted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intended_use_that_is_taken_back_meanwhile_permits_nothing() {
    let rig = Rig::start().await;
    let (license, right) = with_grant(&rig).await;
    let (mut operator, bank) = (rig.party("operator"), rig.party("bank"));
    let registration = json!({
        "organisation": bank.organisation, "name": "测试银行", "roles": ["relying"], "intendedUse": true,
        "validFrom": "2026-01-01",
    });
    let change = Call::new(Route::ParticipantChange, &json!({"participant": registration}));
    operator.send(&change).await.expect(200);
    let line = |status: &str| {
        let row = json!({
            "organisation": bank.organisation, "item": use_context()["itemCode"], "typeCode": natural().code.as_str(),
            "modes": "verify", "status": status,
        });
        Call::new(Route::ItemsImport, &json!({"list": "uses", "source": "用证清单", "rows": [row]}))
    };
    operator.send(&line("active")).await.expect(200);
    let mut changed = 0;
    let outcome = rig
        .held(&bank, &license.verify(Some(&right)), async |server| {
            changed = index_of(&mut server.party("operator"), &line("cancelled")).await
        })
        .await;
    denied(&outcome, changed, Code::BeyondIntendedUse);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_paused_narrowed_or_cut_off_meanwhile_permits_nothing() {
    let rig = Rig::start().await;
    let change = |license: &Issued, right: &str, more: Value| {
        let mut body = json!({"grant": right, "holder": holder(license.draft.holder()), "reason": "测试"});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        Call::new(Route::GrantChange, &body)
    };
    for more in [json!({"action": "pause"}), json!({"action": "narrow", "modes": ["search"]})] {
        let (license, right) = with_grant(&rig).await;
        let mut changed = 0;
        let call = change(&license, &right, more);
        let outcome = rig
            .held(&rig.party("bank"), &license.verify(Some(&right)), async |server| {
                changed = index_of(&mut server.party("portal"), &call).await
            })
            .await;
        denied(&outcome, changed, Code::NotPermitted);
    }
    // A grant by an agent, whose link ends.
    let license = draft(&natural()).issue(&mut rig.party("issuer")).await;
    let (of, by) = (license.draft.holder(), draft(&natural()).holder().clone());
    let link = json!({"holder": holder(of), "agent": holder(&by), "kind": "relative", "until": tests::in_one_hour()});
    rig.party("portal").send(&Call::new(Route::LinkMake, &link)).await.expect(201);
    let mut body = grant(of, &rig.party("bank"), Target::License(&license));
    body["agent"] = holder(&by);
    body["until"] = link["until"].clone();
    let right = rig.party("portal").grant(&body).await;
    let end = json!({"holder": holder(of), "agent": holder(&by), "reason": "测试"});
    let mut ended = 0;
    let outcome = rig
        .held(&rig.party("bank"), &license.verify(Some(&right)), async |server| {
            ended = index_of(&mut server.party("portal"), &Call::new(Route::LinkEnd, &end)).await
        })
        .await;
    denied(&outcome, ended, Code::NotPermitted);
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_replaced_meanwhile_are_those_that_decide() {
    let rig = Rig::start().await;
    let (license, right) = with_grant(&rig).await;
    let publish = async |server: &Server, policies: &str| {
        let body = json!({"kind": "publish-policies", "policies": policies, "reason": "测试"});
        let proposed = server.party("operator").send(&Call::new(Route::Propose, &body)).await.expect(201);
        let body = json!({"proposal": proposed.json["proposal"], "policies": policies});
        index_of(&mut server.party("operator2"), &Call::new(Route::Approve, &body)).await
    };
    for call in [license.verify(Some(&right)), license.retrieve(&["holderName"], Some(&right))] {
        let mut change = 0;
        let outcome = rig
            .held(&rig.party("bank"), &call, async |server| {
                change = publish(server, "permit (principal in Role::\"portal\", action, resource);").await
            })
            .await;
        denied(&outcome, change, Code::NotPermitted);
        // And the other way round: what was denied is permitted by those that came meanwhile.
        let (reply, entry) = rig
            .held(&rig.party("bank"), &call, async |server| {
                change = publish(server, schemas::policy::ROLES).await
            })
            .await;
        assert_eq!((reply.status, entry.open.index > change), (200, true), "{}", reply.json);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_ends_meanwhile_permits_nothing() {
    let rig = Rig::start().await;
    let license = draft(&natural()).issue(&mut rig.party("issuer")).await;
    let mut body = grant(license.draft.holder(), &rig.party("bank"), Target::License(&license));
    let until = now_ms() + 2_000;
    body["until"] = json!(schemas::date::rfc3339(until));
    let reply = rig.party("portal").send(&Call::new(Route::GrantCreate, &body)).await.expect(201);
    let (right, made) = (reply.json["grant"].as_str().unwrap().to_owned(), reply.receipt().index);
    let outcome = rig
        .held(&rig.party("bank"), &license.verify(Some(&right)), async |_| {
            eventually("the grant's end", || async { (now_ms() > until).then_some(()) }).await;
        })
        .await;
    denied(&outcome, made, Code::NotPermitted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_suspended_meanwhile_is_permitted_nothing() {
    let rig = Rig::start().await;
    let (license, right) = with_grant(&rig).await;
    let suspend = |suspended: bool| {
        let organisation = rig.server.organisation("bank");
        let body = json!({"organisation": organisation.as_str(), "suspended": suspended, "reason": "测试"});
        Call::new(Route::ParticipantSuspend, &body)
    };
    for call in [
        license.verify(Some(&right)),
        license.retrieve(&["holderName"], Some(&right)),
        license.verify_envelope(),
    ] {
        let mut change = 0;
        let on = suspend(true);
        let outcome = rig
            .held(&rig.party("bank"), &call, async |server| {
                change = index_of(&mut server.party("operator"), &on).await
            })
            .await;
        denied(&outcome, change, Code::ParticipantSuspended);
        index_of(&mut rig.party("operator"), &suspend(false)).await;
    }
}

/// A kind of fact that a use rests on beside grants, links and licenses. A kind more is a line in each of two places.
#[derive(Clone, Copy, Debug)]
enum Fact {
    /// The purposes of the caller's contract.
    Contract,
    /// The caller's ceiling of the day.
    Ceiling,
    /// The approval of an application.
    Approval,
    /// The resource that was approved.
    Resource,
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_else_a_use_rests_on_permits_nothing_once_it_is_gone() {
    let rig = Rig::start().await;
    let company = draft(&tests::legal()).issue(&mut rig.party("issuer")).await;
    let change = |more: Value| {
        let mut registered = json!({"organisation": rig.server.organisation("bank").as_str(), "name": "测试银行",
            "roles": ["relying"], "validFrom": "2026-01-01"});
        for (name, value) in more.as_object().unwrap() {
            registered[name] = value.clone();
        }
        Call::new(Route::ParticipantChange, &json!({"participant": registered}))
    };
    let mut number = 60;
    for fact in [Fact::Approval, Fact::Resource, Fact::Contract, Fact::Ceiling] {
        let mut operator = rig.party("operator");
        index_of(&mut operator, &change(json!({}))).await;
        let (held, who, taken, code) = match fact {
            Fact::Contract => {
                let agreed = json!({"contract": "HT-1", "purposes": ["测试"]});
                (company.verify(None), "operator", change(agreed), Some(Code::PurposeNotAgreed))
            }
            Fact::Ceiling => {
                index_of(&mut operator, &change(json!({"dailyQuota": 1}))).await;
                // The last use of the day, by somebody else of the organisation.
                (company.verify(None), "bank", company.verify(None).in_new_case(), Some(Code::QuotaSpent))
            }
            Fact::Approval | Fact::Resource => {
                number += 1;
                let mut resource =
                    serde_json::to_value(schemas::resource::Resource::samples().remove(1)).unwrap();
                resource["code"] = json!(format!("3990010002/{number:06}"));
                let application = tests::called::share(&rig.server, &resource, None).await;
                let mut asked: Value =
                    serde_json::from_slice(&tests::called::question(&resource).body).unwrap();
                asked["use"] = use_context();
                let held = Call::new(Route::RecordsQuery, &asked);
                if matches!(fact, Fact::Approval) {
                    let stop = json!({"application": application, "action": "stop"});
                    (held, "bank", Call::new(Route::ApplicationTransition, &stop), None)
                } else {
                    let stop = json!({"resource": resource["code"], "action": "suspend", "reason": "测试"});
                    (held, "provider", Call::new(Route::ResourceTransition, &stop), None)
                }
            }
        };
        // Nothing is in its way by now.
        if !matches!(fact, Fact::Ceiling) {
            rig.party("bank").send(&held).await.expect(200);
        }
        let mut taken_away = 0;
        let outcome = rig
            .held(&rig.party("bank"), &held, async |server| {
                taken_away = index_of(&mut server.party(who), &taken).await;
            })
            .await;
        let (reply, entry) = &outcome;
        assert_eq!(entry.open.decision, Decision::Denial.number(), "{fact:?}: {}", reply.json);
        assert!(entry.open.index > taken_away, "{fact:?}");
        if let Some(code) = code {
            denied(&outcome, taken_away, code);
        }
    }
}

/// Revoked in the list of its authority: the connection ends, and with it what was decided on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_revoked_meanwhile_permits_nothing() {
    revoked_meanwhile(|company| company.verify(None)).await;
}

/// A batch is decided in a task of its own, which ends with the connection as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_revoked_meanwhile_permits_nothing_of_a_batch() {
    revoked_meanwhile(|company| {
        let line = company.verify(None).body;
        let lines = [&line[..], b"\n", &line[..], b"\n"].concat();
        Call::raw(Route::VerifyBatch, lines).header("content-type", "application/x-ndjson").without("receipt")
    })
    .await;
}

async fn revoked_meanwhile(call: impl FnOnce(&Issued) -> Call) {
    let folder = tempfile::tempdir().unwrap();
    let hold = folder.path().join("hold");
    let mut server = Setup::new().env("MIAOXIANG_HOLD", hold.to_str().unwrap()).prepare().await;
    server.configure(|config| config.tls.client_ca = "pki/client-ca.pem".into());
    let pki = certs::pki::DevelopmentPki::create_missing(server.folder.join("pki")).unwrap();
    let authority = server.folder.join("pki/client-ca.pem");
    std::fs::write(&authority, pki.ca_pem()).unwrap();
    server.start();
    let company = draft(&tests::legal()).issue(&mut server.party("issuer")).await;
    std::fs::write(&hold, "").unwrap();
    let held = call(&company).header("x-miaoxiang-hold", "1");
    let mut bank = server.party("bank");
    let task = tokio::spawn(async move { bank.try_send(&held).await });
    let arrived = hold.with_extension("arrived");
    eventually("the held decision", || async { arrived.exists().then_some(()) }).await;
    let size = server.size().await;
    pki.revoke(&std::fs::read_to_string(server.folder.join("pki/clients/bank.pem")).unwrap()).unwrap();
    let list = std::fs::read_to_string(pki.crl_path()).unwrap();
    std::fs::write(&authority, format!("{}{list}", pki.ca_pem())).unwrap();
    assert!(task.await.unwrap().is_err(), "the connection ends while the decision waits");
    std::fs::remove_file(&hold).unwrap();
    // Time for what should have ended to go on.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    // The next entry is somebody else's: none was made of what was decided.
    let next = server.party("approval").send(&company.verify(None)).await.expect(200);
    assert_eq!(next.receipt().index, size);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_license_revoked_meanwhile_is_not_called_valid() {
    let rig = Rig::start().await;
    for by_envelope in [false, true] {
        let (license, right) = with_grant(&rig).await;
        let call = if by_envelope { license.verify_envelope() } else { license.verify(Some(&right)) };
        let mut change = 0;
        let end = license.operation("05", Some("07"));
        let (reply, entry) = rig
            .held(&rig.party("bank"), &call, async |server| {
                change = index_of(&mut server.party("issuer"), &end).await
            })
            .await;
        assert_eq!(
            (&reply.json["verdict"], &reply.json["reasons"]),
            (&json!("invalid"), &json!(["revoked"]))
        );
        assert!(entry.open.index > change);
    }
    // A new version meanwhile: the old identifier gives nothing any more.
    let (license, right) = with_grant(&rig).await;
    let mut change = 0;
    let next = license.operation_with("09", &license.draft);
    let outcome = rig
        .held(&rig.party("bank"), &license.retrieve(&["holderName"], Some(&right)), async |server| {
            change = index_of(&mut server.party("issuer"), &next).await;
        })
        .await;
    denied(&outcome, change, Code::NotPermitted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_license_that_gets_the_number_meanwhile_is_counted() {
    let rig = Rig::start().await;
    let mut issuer = rig.party("issuer");
    let numbered = draft(&natural()).issue(&mut issuer).await;
    let mut other = draft(&natural());
    other.license.holders.clone_from(&numbered.draft.license.holders);
    other.license.fields.clone_from(&numbered.draft.license.fields);
    let other = other.issue(&mut issuer).await;
    let body = grant(numbered.draft.holder(), &rig.party("bank"), Target::Type(&natural()));
    let right = rig.party("portal").send(&Call::new(Route::GrantCreate, &body)).await.expect(201);
    let ask = json!({
        "license": {
            "typeCode": natural().code.as_str(),
            "certificateNumber": numbered.draft.license.certificate_number,
            "holder": holder(numbered.draft.holder()),
        },
        "mode": "face", "grant": right.json["grant"], "use": use_context(),
    });
    let retrieve = Call::new(Route::Retrieve, &ask);
    let mut change = 0;
    let mut renumbered = other.draft.clone();
    renumbered.license.certificate_number.clone_from(&numbered.draft.license.certificate_number);
    let next = other.operation_with("09", &renumbered);
    let (reply, entry) = rig
        .held(&rig.party("bank"), &retrieve, async |server| {
            change = index_of(&mut server.party("issuer"), &next).await;
        })
        .await;
    assert_eq!(reply.json["sameNumber"], json!(2), "{}", reply.json);
    assert!(entry.open.index > change);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_changes_decided_on_the_same_facts_one_is_refused() {
    let rig = Rig::start().await;
    let issuer = rig.party("issuer");
    // Two operations on one license.
    let license = draft(&natural()).issue(&mut issuer.again()).await;
    let (held, other) = (license.operation("03", None), license.operation("05", Some("04")));
    let mut change = 0;
    let outcome = rig
        .held(&issuer, &held, async |server| change = index_of(&mut server.party("issuer"), &other).await)
        .await;
    denied(&outcome, change, Code::TransitionNotAllowed);
    // Two issues of one identifier.
    let first = draft(&natural());
    let mut second = draft(&natural());
    second.serial.clone_from(&first.serial);
    let outcome = rig
        .held(&issuer, &first.call(), async |server| {
            change = index_of(&mut server.party("issuer"), &second.call()).await
        })
        .await;
    denied(&outcome, change, Code::IdentifierExists);
    // Two authorities that take one license over.
    let license = draft(&natural()).issue(&mut issuer.again()).await;
    index_of(&mut issuer.again(), &license.operation("05", Some("06"))).await;
    let mut taken = license.draft.clone();
    taken.serial = draft(&natural()).serial;
    let back = license.operation("10", None);
    let outcome = rig
        .held(&rig.party("authority2"), &license.operation_with("08", &taken), async |server| {
            change = index_of(&mut server.party("issuer"), &back).await;
        })
        .await;
    denied(&outcome, change, Code::NotPermitted);
    // Two ends of one grant.
    let (license, right) = with_grant(&rig).await;
    let (held, other) = (revoke(license.draft.holder(), &right), revoke(license.draft.holder(), &right));
    let outcome = rig
        .held(&rig.party("portal"), &held, async |server| {
            change = index_of(&mut server.party("portal"), &other).await
        })
        .await;
    denied(&outcome, change, Code::BadGrant);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grantee_suspended_or_changed_meanwhile_is_granted_nothing_it_may_not_use() {
    let rig = Rig::start().await;
    let license = draft(&natural()).issue(&mut rig.party("issuer")).await;
    let make = Call::new(
        Route::GrantCreate,
        &grant(license.draft.holder(), &rig.party("bank"), Target::License(&license)),
    );
    let change_role = Call::new(
        Route::ParticipantChange,
        &json!({"participant": {
            "organisation": rig.server.organisation("bank").as_str(), "name": "测试银行", "roles": ["provider"],
            "validFrom": "2026-01-01",
        }}),
    );
    let mut change = 0;
    let outcome = rig
        .held(&rig.party("portal"), &make, async |server| {
            change = index_of(&mut server.party("operator"), &change_role).await;
        })
        .await;
    denied(&outcome, change, Code::BadGrant);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_who_appears_meanwhile_has_one_label_and_one_key() {
    let rig = Rig::start().await;
    let (mut issuer, mut portal) = (rig.party("issuer"), rig.party("portal"));
    let first = draft(&natural());
    let mut second = first.clone();
    second.serial = draft(&natural()).serial;
    let (reply, _) = rig
        .held(&issuer, &first.call(), async |server| {
            index_of(&mut server.party("issuer"), &second.call()).await;
        })
        .await;
    assert_eq!(reply.status, 201);
    let search: Value = json!({"holder": holder(first.holder()), "use": use_context()});
    let reply = portal.send(&Call::new(Route::Search, &search)).await.expect(200);
    assert_eq!(reply.json["licenses"].as_array().unwrap().len(), 2);
    // Both bodies open, so both were sealed under the one key.
    for number in 0..2 {
        let identifier = reply.json["licenses"][number]["identifier"].clone();
        let body = json!({"license": {"identifier": identifier}, "mode": "face", "use": use_context()});
        issuer.send(&Call::new(Route::Retrieve, &body)).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_waits_for_the_request_under_way() {
    let rig = Rig::start().await;
    let issuer = rig.party("issuer");
    let call = draft(&natural()).call().key(&key()).without("receipt");
    let mut second = None;
    let size = rig.server.size().await;
    let (reply, _) = rig
        .held(&issuer, &call, async |server| {
            let (mut other, call) = (server.party("issuer"), call.clone());
            second = Some(tokio::spawn(async move { other.send(&call).await }));
        })
        .await;
    let second = second.unwrap().await.unwrap();
    assert_eq!((reply.status, &reply.body), (201, &second.body));
    assert_eq!(rig.server.size().await, size + 1);
}

/// Waits until this epoch goes on.
async fn in_epoch(server: &Server, number: u64) {
    eventually("the epoch", || async {
        (server.admin("/ready").await.json["epoch"] == json!(number)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_ended_meanwhile_is_not_the_one_to_end() {
    let rig = Rig::start().await;
    let [mut one, mut other] = ["operator", "operator2"].map(|name| rig.party(name));
    let mut approvals = Vec::new();
    for _ in 0..2 {
        let wanted = Call::new(Route::Propose, &json!({"kind": "rotate-epoch", "reason": "测试"}));
        let proposal = one.send(&wanted).await.expect(201).json["proposal"].clone();
        approvals.push(Call::new(Route::Approve, &json!({"proposal": proposal})));
    }
    let mut change = 0;
    let (reply, entry) = rig
        .held(&other.again(), &approvals[1], async |server| {
            change = index_of(&mut other, &approvals[0]).await;
            in_epoch(server, 2).await;
        })
        .await;
    assert_eq!((reply.status, &reply.json["state"]), (200, &json!("approved")));
    assert!(entry.open.index > change);
    // The approval is of the epoch that it found, which ends as well.
    in_epoch(&rig.server, 3).await;
}
