//! What an answer and its receipt tell a caller without a right: nothing of a person it names, of a license elsewhere,
//! of a version that is not the one asked for. And what they tell a caller with one: what the register says now.

use std::collections::HashSet;
use std::path::PathBuf;

use exchange::participant::Role;
use schemas::codes::Code;
use schemas::holder::{HolderRef, HolderTypeCode};
use schemas::identifier::CertificateIdentifier;
use schemas::license_type::LicenseType;
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{
    Call, Draft, Entry, Issued, Party, Reply, Server, Setup, Target, draft, draft_ended, eventually, grant,
    holder, legal, natural, shared, use_context,
};
use verifier::leaf::{Labels, OPEN_FIXED_BYTES};

/// Pairs of licenses under one number: enough that an order left to chance is seen.
const PAIRS: usize = 8;

/// `authority2` may issue every type, `narrow` is an issuing authority that may issue none.
fn setup() -> Setup {
    Setup::new().authority("authority2").participant("narrow", |narrow| narrow.roles = vec![Role::Issuer])
}

fn with(call: &Call, change: impl FnOnce(&mut Value)) -> Call {
    let mut body: Value = serde_json::from_slice(&call.body).unwrap();
    change(&mut body);
    Call::new(call.route, &body)
}

/// A verify request by type, number and holder.
fn by_number(license_type: &LicenseType, number: &str, of: &HolderRef, grant: Option<&str>) -> Call {
    let license = json!({
        "typeCode": license_type.code.as_str(), "certificateNumber": number, "holder": holder(of),
    });
    let mut body = json!({"license": license, "use": use_context()});
    if let Some(grant) = grant {
        body["grant"] = json!(grant);
    }
    Call::new(Route::Verify, &body)
}

/// The same, for the license of a draft.
fn by_its_number(draft: &Draft, grant: Option<&str>) -> Call {
    by_number(&draft.license_type, &draft.license.certificate_number, draft.holder(), grant)
}

fn search(of: &HolderRef) -> Call {
    Call::new(Route::Search, &json!({"holder": holder(of), "use": use_context()}))
}

/// A grant of everything.
async fn granted(portal: &mut Party, of: &HolderRef, grantee: &Party, target: Target<'_>) -> String {
    portal.grant(&grant(of, grantee, target)).await
}

/// The same license under another serial.
fn sibling(of: &Draft) -> Draft {
    Draft { serial: draft(&of.license_type).serial, ..of.clone() }
}

/// What an answer says apart from receipt and moment.
fn said(reply: &Reply) -> (u16, String, String) {
    let mut answer: Value = serde_json::from_slice(&reply.hashed()).unwrap();
    answer.as_object_mut().unwrap().remove("asOf");
    (reply.status, reply.content_type.clone(), answer.to_string())
}

/// What a permit without a right says; its receipt shows nobody.
async fn permitted_of_nobody(server: &Server, party: &mut Party, call: &Call) -> (u16, String, String) {
    let (reply, entry) = server.permitted(party, call).await;
    assert_eq!(entry.open.labels, Labels::List(Vec::new()), "a receipt tells that a holder is known");
    assert_eq!(entry.receipt.open.len(), OPEN_FIXED_BYTES);
    said(&reply)
}

#[tokio::test]
async fn the_license_in_force_under_a_number_answers_before_and_after_a_restart() {
    let mut server = Setup::new().start().await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let mut pairs = Vec::new();
    for number in 0..2 * PAIRS {
        let first = draft(&natural());
        let second = sibling(&first);
        let first = first.issue(&mut issuer).await;
        // In one half the older is revoked before it is replaced, in the other the newer.
        let newer_is_valid = number % 2 == 0;
        if newer_is_valid {
            issuer.send(&first.operation("05", Some("07"))).await.expect(200);
        }
        let second = second.issue(&mut issuer).await;
        if !newer_is_valid {
            issuer.send(&second.operation("05", Some("07"))).await.expect(200);
        }
        let of_type =
            granted(&mut portal, first.draft.holder(), &bank, Target::Type(&first.draft.license_type)).await;
        let expected = (json!("valid"), json!("01"), json!([]));
        pairs.push((by_its_number(&first.draft, Some(&of_type)), expected));
    }
    for from_journal in [false, true, true] {
        for (call, expected) in &pairs {
            let answer = bank.send(call).await.expect(200).json;
            let told = (answer["verdict"].clone(), answer["state"].clone(), answer["reasons"].clone());
            assert_eq!(&told, expected, "not the license in force under the number");
        }
        assert_eq!(server.stop(), Some(0));
        if from_journal {
            std::fs::remove_dir_all(server.folder.join("store")).unwrap();
        }
        server.start();
        bank = server.party("bank");
    }
}

#[tokio::test]
async fn a_caller_without_right_does_not_learn_whether_a_person_is_known() {
    let server = shared(setup).await;
    let [mut issuer, mut issuer2, mut portal, mut bank] =
        ["issuer", "authority2", "portal", "bank"].map(|name| server.party(name));
    let known = draft(&natural()).issue(&mut issuer).await;
    let company = draft(&legal()).issue(&mut issuer).await;
    let stranger = draft(&natural());
    let persons = [known.draft.holder(), stranger.holder()];
    for person in persons {
        assert_eq!(person.type_code(), HolderTypeCode::CitizenNumber);
    }

    // A type of legal persons needs no right, and so says nothing of natural ones.
    let numbers =
        [&known.draft.license.certificate_number, &company.draft.license.certificate_number, "CS-NONE"];
    let mut answers = HashSet::new();
    for number in numbers {
        for person in persons {
            let call = by_number(&legal(), number, person, None);
            answers.insert(permitted_of_nobody(&server, &mut bank, &call).await);
            answers.insert(permitted_of_nobody(&server, &mut issuer2, &call).await);
        }
    }
    assert_eq!(answers.len(), 1, "an answer tells who is known: {answers:?}");
    assert!(answers.iter().all(|(_, _, answer)| answer.contains("not-found")), "{answers:?}");

    // An issuing authority searches among its own licenses only.
    let mut answers = HashSet::new();
    for person in [known.draft.holder(), stranger.holder(), company.draft.holder()] {
        answers.insert(permitted_of_nobody(&server, &mut issuer2, &search(person)).await);
        server.refused(&mut bank, &search(person), Code::NotPermitted).await;
    }
    assert_eq!(answers.len(), 1, "an answer tells who is known: {answers:?}");

    // Labels do stand where somebody with a right asks, or the license found tells who its holder is.
    for (party, call) in
        [(&mut portal, search(known.draft.holder())), (&mut bank, by_its_number(&company.draft, None))]
    {
        let (_, entry) = server.permitted(party, &call).await;
        assert!(matches!(&entry.open.labels, Labels::List(labels) if labels.len() == 1));
    }
}

#[tokio::test]
async fn nobody_but_a_portal_vouches_for_a_holder() {
    let server = shared(setup).await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut issuer).await;
    let other = draft(&natural()).issue(&mut issuer).await;
    let company = draft(&legal()).issue(&mut issuer).await;
    let stranger = draft(&natural());
    let right = granted(&mut portal, license.draft.holder(), &bank, Target::License(&license)).await;
    let vouched = [license.draft.holder(), other.draft.holder(), company.draft.holder(), stranger.holder()];
    let variants = |call: &Call| -> Vec<Call> {
        let named = vouched.iter().map(|of| with(call, |body| body["holder"] = holder(of)));
        std::iter::once(call.clone()).chain(named).collect()
    };
    for (name, call) in [
        ("bank", company.verify(None)),
        ("bank", by_its_number(&company.draft, None)),
        ("bank", by_number(&legal(), "CS-NONE", other.draft.holder(), None)),
        ("bank", by_number(&legal(), "CS-NONE", stranger.holder(), None)),
        ("bank", license.verify(Some(&right))),
        ("bank", license.retrieve(&["holderName"], Some(&right))),
        ("issuer", license.verify(None)),
        ("issuer", license.retrieve(&["holderName"], None)),
    ] {
        let party = if name == "bank" { &mut bank } else { &mut issuer };
        let mut told = HashSet::new();
        for call in variants(&call) {
            let (reply, entry) = server.permitted(party, &call).await;
            told.insert((said(&reply), format!("{:?}", entry.open.labels)));
        }
        assert_eq!(told.len(), 1, "naming a holder changes an answer: {told:?}");
    }
    for call in [license.verify(None), license.retrieve(&["holderName"], None)] {
        let mut told = HashSet::new();
        for call in variants(&call) {
            let (reply, entry) = server.refused(&mut bank, &call, Code::NotPermitted).await;
            told.insert((said(&reply), format!("{:?}", entry.open.labels)));
        }
        assert_eq!(told.len(), 1, "naming a holder changes a refusal: {told:?}");
    }
}

#[tokio::test]
async fn taking_over_tells_nothing_of_a_license_elsewhere() {
    let server = setup().start().await;
    let [mut issuer, mut taker, mut narrow] =
        ["issuer", "authority2", "narrow"].map(|name| server.party(name));
    let parse = |issued: &Issued| -> CertificateIdentifier { issued.identifier.parse().unwrap() };
    let renamed = |issued: &Issued, identifier: CertificateIdentifier| Issued {
        identifier: identifier.to_string(),
        ..issued.clone()
    };

    // Each license with the draft that would take it over.
    let mut rows: Vec<(&str, Issued, Draft)> = Vec::new();
    let mut row = |what: &'static str, issued: Issued| {
        let taken = sibling(&issued.draft);
        rows.push((what, issued, taken));
    };
    for (what, operations) in [
        ("01", &[][..]),
        ("02", &[("03", None)]),
        ("03", &[("05", Some("03"))]),
        ("04", &[("05", Some("04"))]),
        ("07", &[("05", Some("07"))]),
        ("99", &[("07", None)]),
        ("01 again", &[("05", Some("06")), ("10", None)]),
    ] {
        let issued = draft(&natural()).issue(&mut issuer).await;
        for (operation, to) in operations {
            issuer.send(&issued.operation(operation, *to)).await.expect(200);
        }
        row(what, issued);
    }
    let ended = draft_ended(&natural()).issue(&mut issuer).await;
    row("01, ended", ended);
    let lapsed = draft_ended(&natural()).issue(&mut issuer).await;
    issuer.send(&lapsed.operation("04", None)).await.expect(200);
    row("05", lapsed);

    let moved = async |issuer: &mut Party| {
        let issued = draft(&natural()).issue(issuer).await;
        issuer.send(&issued.operation("05", Some("06"))).await.expect(200);
        issued
    };
    let taken_over = moved(&mut issuer).await;
    taker.send(&taken_over.operation_with("08", &sibling(&taken_over.draft))).await.expect(200);
    row("taken over", taken_over);
    let leaving = moved(&mut issuer).await;
    row("a version to come", renamed(&leaving, parse(&leaving).with_version(2).unwrap()));
    let old = draft(&natural()).issue(&mut issuer).await;
    let new = issuer.send(&old.operation_with("09", &old.draft)).await.expect(200);
    let new = Issued::new(old.draft.clone(), &new.json);
    issuer.send(&new.operation("05", Some("06"))).await.expect(200);
    row("an old version", old);
    let absent = {
        let nobody = draft(&natural());
        let like = parse(&leaving);
        let issuer = like.issuer().uscc().unwrap();
        let serial = nobody.serial.parse().unwrap();
        let identifier = CertificateIdentifier::new(like.type_code(), issuer, serial, 1).unwrap();
        Issued { identifier: identifier.to_string(), envelope: Vec::new(), draft: nobody }
    };
    row("absent", absent);
    // On its way out, but another's: of somebody known, and of somebody unknown.
    let known = draft(&natural()).issue(&mut issuer).await;
    rows.push(("holder known", leaving.clone(), sibling(&known.draft)));
    rows.push(("holder unknown", leaving.clone(), draft(&natural())));

    let mut bodies = HashSet::new();
    for (what, license, taken) in &rows {
        let call = license.operation_with("08", taken);
        let (reply, entry) = server.refused(&mut taker, &call, Code::NotPermitted).await;
        assert_eq!(entry.open.labels, Labels::List(Vec::new()), "{what}");
        assert_eq!(reply.status, 403);
        bodies.insert(said(&reply));
    }
    assert_eq!(bodies.len(), 1, "a refusal tells what became of a license: {bodies:?}");

    // Who may not issue the type is told so, whatever there is; who sends no draft is told that.
    rows.push(("takeable", leaving.clone(), sibling(&leaving.draft)));
    let (mut entitled, mut bare) = (HashSet::new(), HashSet::new());
    for (_, license, taken) in &rows {
        let call = license.operation_with("08", taken);
        entitled.insert(said(&server.refused(&mut narrow, &call, Code::WrongRole).await.0));
        let call = license.operation("08", None);
        for party in [&mut taker, &mut narrow] {
            bare.insert(said(&server.refused(party, &call, Code::MalformedRequest).await.0));
        }
    }
    assert_eq!((entitled.len(), bare.len()), (1, 1), "{entitled:?} {bare:?}");

    // The same requests succeed where the license is on its way to this holder.
    let (_, license, taken) = rows.last().unwrap();
    server.permitted(&mut taker, &license.operation_with("08", taken)).await;
}

#[tokio::test]
async fn an_old_version_says_nothing_of_the_new_one() {
    let server = shared(setup).await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let old = draft(&natural()).issue(&mut issuer).await;
    let mut changed = old.draft.clone();
    changed.license.certificate_number = draft(&natural()).license.certificate_number;
    changed = changed.of_name("测试改名");
    let reply = issuer.send(&old.operation_with("09", &changed)).await.expect(200);
    let new = Issued::new(changed, &reply.json);
    let right = granted(&mut portal, new.draft.holder(), &bank, Target::License(&new)).await;
    let expecting =
        |license: &Issued, expect: Value| with(&license.verify(Some(&right)), |body| body["expect"] = expect);
    let of = |issued: &Issued| {
        json!({
            "certificateNumber": issued.draft.license.certificate_number,
            "holderName": issued.draft.license.holders[0].0,
        })
    };
    let to_come = Issued {
        identifier: {
            let identifier: CertificateIdentifier = new.identifier.parse().unwrap();
            identifier.with_version(3).unwrap().to_string()
        },
        ..new.clone()
    };
    for (asked, reason) in [(&old, "superseded"), (&to_come, "not-found")] {
        let mut answers = HashSet::new();
        // More often than mismatches are answered in a day: nothing was matched.
        for _ in 0..2 {
            for expect in [of(&new), of(&old), json!({"certificateNumber": "CS-GUESS"})] {
                let (reply, _) = server.permitted(&mut bank, &expecting(asked, expect)).await;
                assert_eq!(reply.json["verdict"], json!("invalid"));
                assert_eq!(reply.json["reasons"], json!([reason]));
                assert!(reply.json.get("matches").is_none(), "{}", reply.json);
                assert!(reply.json.get("state").is_none(), "{}", reply.json);
                answers.insert(said(&reply));
            }
        }
        assert_eq!(answers.len(), 1, "{answers:?}");
    }
    // The version in force answers both ways.
    let (reply, _) = server.permitted(&mut bank, &expecting(&new, of(&new))).await;
    assert_eq!((&reply.json["verdict"], &reply.json["matches"]), (&json!("valid"), &json!(true)));
    let (reply, _) = server.permitted(&mut bank, &expecting(&new, of(&old))).await;
    assert_eq!((&reply.json["state"], &reply.json["matches"]), (&json!("01"), &json!(false)));
}

/// A server that holds a request before its commit.
struct Rig {
    server: Server,
    hold: PathBuf,
    _folder: tempfile::TempDir,
}

impl Rig {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hold = folder.path().join("hold");
        let server = setup().env("MIAOXIANG_HOLD", hold.to_str().unwrap()).start().await;
        Self { server, hold, _folder: folder }
    }

    /// Sends `call` held before its commit; when it is decided, issues `meanwhile`; then lets it go on. Gives the
    /// answer, its entry and the index of the issue.
    async fn held(&self, party: &Party, call: &Call, meanwhile: &Draft) -> (Reply, Entry, u64) {
        let arrived = self.hold.with_extension("arrived");
        let _ = std::fs::remove_file(&arrived);
        std::fs::write(&self.hold, "").unwrap();
        let held = call.clone().header("x-miaoxiang-hold", "1");
        let mut party = party.again();
        let task = tokio::spawn(async move { party.send(&held).await });
        eventually("the held decision", || async { arrived.exists().then_some(()) }).await;
        let issue = self.server.party("issuer").send(&meanwhile.call()).await.expect(201);
        assert!(!task.is_finished(), "the request was not held");
        std::fs::remove_file(&self.hold).unwrap();
        let reply = task.await.unwrap().expect(200);
        let entry = self.server.entry(&reply).await;
        let issued = issue.receipt().index;
        assert!(entry.open.index > issued, "{} is not after {issued}", entry.open.index);
        (reply, entry, issued)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_license_issued_meanwhile_is_not_called_not_found() {
    let rig = Rig::start().await;
    let [mut issuer, mut portal, bank] = ["issuer", "portal", "bank"].map(|name| rig.server.party(name));
    let valid = |reply: &Reply| {
        assert_eq!((&reply.json["verdict"], &reply.json["reasons"]), (&json!("valid"), &json!([])));
    };
    // The first license of that number, of a holder who has another.
    let first = draft(&natural()).issue(&mut issuer).await;
    let of_type = granted(&mut portal, first.draft.holder(), &bank, Target::Type(&natural())).await;
    let mut second = sibling(&first.draft);
    second.license.certificate_number = draft(&natural()).license.certificate_number;
    let (reply, ..) = rig.held(&bank, &by_its_number(&second, Some(&of_type)), &second).await;
    valid(&reply);
    // One that takes the place of a revoked one under the same number.
    issuer.send(&first.operation("05", Some("07"))).await.expect(200);
    let third = sibling(&first.draft);
    let (reply, ..) = rig.held(&bank, &by_its_number(&third, Some(&of_type)), &third).await;
    valid(&reply);
    // The first license of a holder whom nobody knew.
    let company = draft(&legal());
    let (reply, ..) = rig.held(&bank, &by_its_number(&company, None), &company).await;
    valid(&reply);
    // A search lists what was there when it committed.
    let fourth = sibling(&first.draft);
    let (reply, ..) = rig.held(&portal, &search(first.draft.holder()), &fourth).await;
    assert_eq!(reply.json["licenses"].as_array().unwrap().len(), 4);
    // And by an authority, of a holder who has none of its licenses.
    let fifth = draft(&natural());
    let (reply, ..) = rig.held(&issuer, &search(fifth.holder()), &fifth).await;
    assert_eq!(reply.json["licenses"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_suspended_or_expired_license_is_listed_and_shown_as_not_in_force() {
    let server = shared(setup).await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    for license_type in [natural(), legal()] {
        let current = draft(&license_type);
        let mut expired = sibling(&current);
        let ended = draft_ended(&license_type).license;
        expired.license.issue_date = ended.issue_date;
        expired.license.valid_from = ended.valid_from;
        expired.license.valid_until = ended.valid_until;
        let suspended = sibling(&current).issue(&mut issuer).await;
        let current = current.issue(&mut issuer).await;
        let expired = expired.issue(&mut issuer).await;
        issuer.send(&suspended.operation("03", None)).await.expect(200);
        let of = current.draft.holder();
        let of_type = granted(&mut portal, of, &bank, Target::Type(&license_type)).await;
        let granted_search = with(&search(of), |body| {
            body["typeCode"] = json!(license_type.code.as_str());
            body["grant"] = json!(of_type);
        });
        for (license, state, in_force) in
            [(&current, "01", true), (&suspended, "02", false), (&expired, "01", false)]
        {
            let expected = (&json!(state), &json!(in_force));
            for (party, call) in
                [(&mut portal, &search(of)), (&mut issuer, &search(of)), (&mut bank, &granted_search)]
            {
                let (reply, _) = server.permitted(party, call).await;
                let listed = reply.json["licenses"].as_array().unwrap();
                let listed =
                    listed.iter().find(|listed| listed["identifier"] == json!(license.identifier)).unwrap();
                assert_eq!((&listed["state"], &listed["inForce"]), expected);
            }
            let fields = license.retrieve(&["certificateNumber"], Some(&of_type));
            for mode in ["fields", "face", "envelope", "copy"] {
                let call = with(&fields, |body| {
                    body["mode"] = json!(mode);
                    if mode != "fields" {
                        body.as_object_mut().unwrap().remove("fields");
                    }
                });
                if mode == "envelope" && !in_force {
                    server.refused(&mut bank, &call, Code::LicenseEnded).await;
                    continue;
                }
                let (reply, _) = server.permitted(&mut bank, &call).await;
                assert_eq!((&reply.json["state"], &reply.json["inForce"]), expected, "{mode}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_in_force_says_so_in_the_bytes_that_leave() {
    let server = shared(setup).await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let retrieve = |license: &Issued, mode: &str, right: (&str, Value)| {
        with(&license.retrieve(&["holderName"], None), |body| {
            body["mode"] = json!(mode);
            body.as_object_mut().unwrap().remove("fields");
            body[right.0] = right.1;
        })
    };
    let ended_too = |call: &Call| with(call, |body| body["includeEnded"] = json!(true));
    let mut rows = Vec::new();
    for (operations, state, word) in [
        (&[][..], "01", None),
        (&[("03", None)], "02", Some("暂扣")),
        (&[("05", Some("07"))], "07", Some("吊销")),
    ] {
        let license = draft(&natural()).issue(&mut issuer).await;
        for (operation, to) in operations {
            issuer.send(&license.operation(operation, *to)).await.expect(200);
        }
        rows.push((license, state, word));
    }
    rows.push((draft_ended(&natural()).issue(&mut issuer).await, "01", Some("有效期已届满")));
    for (license, state, word) in &rows {
        let of = license.draft.holder();
        let plain = granted(&mut portal, of, &bank, Target::License(license)).await;
        let mut body = grant(of, &bank, Target::License(license));
        body["modes"] = json!(["envelope", "ended"]);
        let with_ended = ("grant", json!(portal.grant(&body).await));
        let plain = ("grant", json!(plain));
        let vouched = ("holder", holder(of));

        for mode in ["face", "copy"] {
            let (reply, _) = server.permitted(&mut bank, &retrieve(license, mode, plain.clone())).await;
            assert_eq!(
                (&reply.json["state"], &reply.json["inForce"]),
                (&json!(state), &json!(word.is_none()))
            );
            let annotation = &reply.json["annotation"];
            if mode == "copy" {
                assert_eq!(annotation["expiresAt"].is_string(), word.is_none(), "{annotation}");
                let mark = annotation["watermark"].as_str().unwrap();
                assert_eq!(mark.contains("不在有效状态"), word.is_some(), "{mark}");
                assert!(word.is_none_or(|word| mark.contains(word) && mark.contains("截至20")), "{mark}");
            }
        }
        // The signed bytes say nothing of it themselves.
        let envelope = |right: &(&'static str, Value)| retrieve(license, "envelope", right.clone());
        let mut given = vec![(&mut bank, ended_too(&envelope(&with_ended)))];
        let mut kept = Vec::new();
        let asked = [envelope(&plain), ended_too(&envelope(&plain)), envelope(&with_ended)];
        match word {
            None => {
                for call in asked {
                    server.permitted(given[0].0, &call).await;
                }
            }
            Some(_) => kept.extend(asked),
        }
        for call in kept {
            server.refused(given[0].0, &call, Code::LicenseEnded).await;
        }
        if word.is_some() {
            server.refused(&mut portal, &envelope(&vouched), Code::LicenseEnded).await;
        }
        given.push((&mut portal, ended_too(&envelope(&vouched))));
        for (party, call) in given {
            let (reply, _) = server.permitted(party, &call).await;
            assert!(reply.json["envelope"].is_string());
        }
        // Without a right nobody is told that the license has ended.
        let nobody = ("grant", json!("ab".repeat(16)));
        server.refused(&mut bank, &ended_too(&envelope(&nobody)), Code::NotPermitted).await;
        let mut alone = grant(of, &bank, Target::License(license));
        alone["modes"] = json!(["copy", "ended"]);
        server.refused(&mut portal, &Call::new(Route::GrantCreate, &alone), Code::BadGrant).await;
        let no_mode = retrieve(license, "ended", plain);
        server.refused(&mut bank, &no_mode, Code::MalformedRequest).await;
    }
}
