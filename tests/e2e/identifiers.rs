//! Identifiers, organisation codes, holders' numbers, serials and types: read strictly, each fault with its code.

use schemas::codes::Code;
use schemas::date::Date;
use schemas::holder::{HolderRef, HolderTypeCode};
use schemas::license_type::LicenseType;
use schemas::routes::Route;
use schemas::synthetic::Synthetic;
use serde_json::{Value, json};
use tests::{
    Call, Draft, Issued, Setup, Target, all_types, draft, grant, holder, key, legal, natural, now_ms, shared,
    use_context,
};
use verifier::report::Verdict;

/// Identifiers of real systems (GB/T 36904 samples), the last with an issuer of six digits.
const REAL: [&str; 5] = [
    "1.2.156.3005.2.11100000000013338W011.11430000006122244L.20230000403.001.U",
    "1.2.156.3005.2.11100000000013338W011.11430000006122244L.20230000403.002.S",
    "1.2.156.3005.2.11100000000013338W032.11220000013544541J.2430599.001.F",
    "1.2.156.3005.2.11100000000013338W009.11330105002500287C.2025052201.002.0",
    "1.2.156.3005.2.11100000MB03271699022.340100.000000016.001.9",
];
/// A made-up sample whose check character is wrong.
const MADE_UP: &str =
    "1.2.156.3005.2.11100000000013661B006.113700000045046442.209FA4E88F9E4C878F3E9BED2CE7EA49.001.M";

fn by_identifier(identifier: &str) -> [Call; 2] {
    let license = json!({"identifier": identifier});
    let verify = json!({"license": license, "use": use_context()});
    let retrieve = json!({"license": license, "mode": "face", "use": use_context()});
    [Call::new(Route::Verify, &verify), Call::new(Route::Retrieve, &retrieve)]
}

/// Another character of the same class in this place.
fn other(text: &str, place: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[place] = if bytes[place] == b'1' { b'2' } else { b'1' };
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_real_identifier_is_read_and_a_changed_one_is_not() {
    let server = shared(Setup::new).await;
    let mut bank = server.party("bank");
    for identifier in REAL {
        // Read, and nobody's business: a license that is not there looks like one without a right.
        for call in by_identifier(identifier) {
            server.refused(&mut bank, &call, Code::NotPermitted).await;
        }
        let last = identifier.len() - 1;
        let serial = identifier.rfind('.').unwrap() - 5;
        for wrong in [other(identifier, last), other(identifier, serial)] {
            for call in by_identifier(&wrong) {
                server.refused(&mut bank, &call, Code::WrongCheckDigit).await;
            }
        }
    }
    for call in by_identifier(MADE_UP) {
        server.refused(&mut bank, &call, Code::WrongCheckDigit).await;
    }
}

#[tokio::test]
async fn an_issuer_of_six_digits_is_nobodys_to_change() {
    let server = shared(Setup::new).await;
    let body = json!({"identifier": REAL[4], "operation": "03", "reason": "测试"});
    server
        .refused(&mut server.party("issuer"), &Call::new(Route::Transition, &body), Code::NotPermitted)
        .await;
}

#[tokio::test]
async fn what_is_no_identifier_at_all_is_told_apart() {
    let server = shared(Setup::new).await;
    let mut bank = server.party("bank");
    let good = REAL[0];
    let long = format!("1.2.156.3005.2.11100000000013338W011.11430000006122244L.{}.001.U", "1".repeat(65));
    for text in [
        "",
        "x",
        "1.2.156.3005.2",
        &good.replace("1.2.156.3005.2", "1.2.156.3005.3"),
        &good.replace(".001.", ".000."),
        &good.replace(".001.", ".1."),
        &good.replace(".001.", ".1000."),
        &good.replace(".20230000403.", "."),
        &good.replace(".20230000403.", ".."),
        &good.replace("20230000403", "2023000040a"),
        &good.replace("20230000403", "2023-0000403"),
        &format!("{good}.U"),
        &format!(" {good}"),
        &good.replace(".U", ".u"),
        &good.replace(".U", ".UU"),
        &long,
        &"1".repeat(10_000),
    ] {
        for call in by_identifier(text) {
            server.refused(&mut bank, &call, Code::BadIdentifier).await;
        }
    }
}

#[tokio::test]
async fn wrong_check_characters_of_organisations_and_citizens_have_their_own_code() {
    let server = shared(Setup::new).await;
    let (mut portal, mut operator, mut issuer) =
        (server.party("portal"), server.party("operator"), server.party("issuer"));
    let uscc = server.organisation("bank").to_string();
    let wrong_uscc = {
        let last = if uscc.ends_with('0') { '1' } else { '0' };
        format!("{}{last}", &uscc[..17])
    };
    let citizen = draft(&natural()).holder().number().to_owned();
    let wrong_citizen = {
        let last = if citizen.ends_with('0') { '1' } else { '0' };
        format!("{}{last}", &citizen[..17])
    };
    let search = |type_code: &str, number: &str| {
        Call::new(
            Route::Search,
            &json!({"holder": {"typeCode": type_code, "number": number}, "use": use_context()}),
        )
    };
    server.refused(&mut portal, &search("001", &wrong_uscc), Code::WrongCheckDigit).await;
    server.refused(&mut portal, &search("111", &wrong_citizen), Code::WrongCheckDigit).await;

    let mut license = draft(&natural()).value();
    license["holders"][0]["number"] = json!(wrong_citizen);
    let call = Call::new(Route::Issue, &json!({"license": license}));
    server.refused(&mut issuer, &call, Code::WrongCheckDigit).await;
    let mut license = draft(&legal()).value();
    license["holders"][0]["number"] = json!(wrong_uscc);
    let call = Call::new(Route::Issue, &json!({"license": license}));
    server.refused(&mut issuer, &call, Code::WrongCheckDigit).await;

    let add = json!({"participant": {
        "organisation": wrong_uscc, "name": "测试机构", "roles": ["relying"], "validFrom": "2026-01-01",
    }});
    server.refused(&mut operator, &Call::new(Route::ParticipantAdd, &add), Code::WrongCheckDigit).await;
    let issued = draft(&natural()).issue(&mut issuer).await;
    let mut body = grant(issued.draft.holder(), &server.party("bank"), Target::License(&issued));
    body["grantee"] = json!(wrong_uscc);
    server.refused(&mut portal, &Call::new(Route::GrantCreate, &body), Code::WrongCheckDigit).await;
}

#[tokio::test]
async fn what_is_no_holder_is_told_apart() {
    let server = shared(Setup::new).await;
    let mut portal = server.party("portal");
    let number = draft(&natural()).holder().number().to_owned();
    for (type_code, number) in [
        ("000", number.as_str()),
        ("", &number),
        ("1111", &number),
        ("111", ""),
        ("111", "   "),
        ("111", "12345"),
        ("001", "12345"),
        ("111", &number[..17]),
        ("414", &"9".repeat(500)),
    ] {
        let body = json!({"holder": {"typeCode": type_code, "number": number}, "use": use_context()});
        server.refused(&mut portal, &Call::new(Route::Search, &body), Code::BadHolder).await;
    }
}

#[tokio::test]
async fn a_serial_is_upper_case_bounded_and_never_a_holders_number() {
    let server = shared(Setup::new).await;
    let mut issuer = server.party("issuer");
    let with = |base: &Value, serial: &str| {
        let mut license = base.clone();
        license["serial"] = json!(serial);
        Call::new(Route::Issue, &json!({"license": license}))
    };
    let draft = draft(&natural());
    let base = draft.value();
    for serial in ["", "abc", "12a4", "12-4", "１２３", "12 4", &"1".repeat(65), draft.holder().number()] {
        server.refused(&mut issuer, &with(&base, serial), Code::BadSerial).await;
    }
    // The number is compared as it is stored, however it was written.
    let mut spaced = base.clone();
    spaced["holders"][0]["number"] = json!(format!(" {} ", draft.holder().number().to_lowercase()));
    server.refused(&mut issuer, &with(&spaced, draft.holder().number()), Code::BadSerial).await;
    server.permitted(&mut issuer, &with(&base, &"Z".repeat(64))).await;
}

#[tokio::test]
async fn a_type_that_is_not_in_the_register_is_unknown() {
    let server = shared(Setup::new).await;
    let mut issuer = server.party("issuer");
    let of_type = |code: &str| {
        let mut license = draft(&natural()).value();
        license["typeCode"] = json!(code);
        Call::new(Route::Issue, &json!({"license": license}))
    };
    let known = natural().code.as_str().to_owned();
    for code in ["", "x", &known[..20], &format!("{}999", &known[..18]), &format!("{}ABC", &known[..18])] {
        server.refused(&mut issuer, &of_type(code), Code::UnknownType).await;
    }
    let last = if known.as_bytes()[17] == b'0' { '1' } else { '0' };
    let wrong = format!("{}{last}{}", &known[..17], &known[18..]);
    server.refused(&mut issuer, &of_type(&wrong), Code::WrongCheckDigit).await;
}

#[tokio::test]
async fn a_license_that_does_not_fit_its_type_is_refused() {
    let server = shared(Setup::new).await;
    let mut issuer = server.party("issuer");
    let base = draft(&natural()).value();
    let person = |number: &str| json!({"name": "测试甲乙", "typeCode": "111", "number": number});
    let second = person(draft(&natural()).holder().number());
    let company = draft(&legal());
    let mut rows = Vec::new();
    let mut row = |change: &dyn Fn(&mut Value)| {
        let mut license = base.clone();
        change(&mut license);
        rows.push(license);
    };
    row(&|l| l["holders"] = json!([]));
    row(&|l| l["holders"].as_array_mut().unwrap().push(second.clone()));
    row(&|l| {
        l["holders"][0] = json!({"name": "测试", "typeCode": "001", "number": company.holder().number()})
    });
    row(&|l| l["certificateNumber"] = json!(""));
    row(&|l| l["certificateNumber"] = json!("9".repeat(101)));
    row(&|l| l["validFrom"] = json!("2026-13-01"));
    row(&|l| l["issueDate"] = json!("yesterday"));
    row(&|l| l["validUntil"] = json!("1999-01-01"));
    row(&|l| l["fields"]["surprise"] = json!("x"));
    row(&|l| l["fields"] = json!({}));
    row(&|l| l["fields"]["birthDate"] = json!("1990-02-30"));
    row(&|l| l["fields"]["sex"] = json!("X"));
    row(&|l| l["fields"]["address"] = json!("址".repeat(2_001)));
    for license in rows {
        server
            .refused(&mut issuer, &Call::new(Route::Issue, &json!({"license": license})), Code::BadFields)
            .await;
    }
    let mut twice = base.clone();
    let first = twice["holders"][0].clone();
    twice["holders"].as_array_mut().unwrap().push(first);
    server.refused(&mut issuer, &Call::new(Route::Issue, &json!({"license": twice})), Code::BadHolder).await;
    let mut unnamed = base.clone();
    unnamed["holders"][0]["name"] = json!("");
    server
        .refused(&mut issuer, &Call::new(Route::Issue, &json!({"license": unnamed})), Code::BadHolder)
        .await;
}

#[tokio::test]
async fn a_holder_is_the_same_however_the_number_is_written() {
    let server = shared(Setup::new).await;
    let (mut issuer, mut portal) = (server.party("issuer"), server.party("portal"));
    let issued = draft(&natural()).issue(&mut issuer).await;
    let number = issued.draft.holder().number();
    let wide: String = number.chars().map(|c| char::from_u32(u32::from(c) + 0xfee0).unwrap()).collect();
    for written in [number.to_owned(), format!("  {number} "), number.to_lowercase(), wide] {
        let body = json!({"holder": {"typeCode": "111", "number": written}, "use": use_context()});
        let (reply, _) = server.permitted(&mut portal, &Call::new(Route::Search, &body)).await;
        let listed = reply.json["licenses"].as_array().unwrap();
        assert!(listed.iter().any(|one| one["identifier"] == json!(issued.identifier)), "{written}");
    }
    let absent = holder(draft(&natural()).holder());
    let (reply, _) = server
        .permitted(&mut portal, &Call::new(Route::Search, &json!({"holder": absent, "use": use_context()})))
        .await;
    assert_eq!(reply.json["licenses"], json!([]));
}

/// A draft for holders of a kind, as many as the type needs.
fn draft_for(license_type: &LicenseType, code: HolderTypeCode, seed: u64) -> Draft {
    let mut synthetic = Synthetic::new(seed);
    let mut holders: Vec<(String, HolderRef)> = Vec::new();
    while holders.len() < license_type.min_holders {
        let holder = synthetic.holder(code);
        if holders.iter().all(|(_, other)| *other != holder) {
            holders.push((format!("测试{}", holders.len() + 1), holder));
        }
    }
    let today = Date::at(i64::try_from(now_ms() / 1_000).unwrap());
    let license = synthetic.license_of(license_type, holders, today);
    Draft { license_type: license_type.clone(), serial: synthetic.serial().as_str().to_owned(), license }
}

#[tokio::test]
async fn each_type_is_issued_to_every_kind_of_holder_that_it_admits() {
    let server = shared(Setup::new).await;
    let (mut issuer, mut portal) = (server.party("issuer"), server.party("portal"));
    let mut seed = 9_000;
    for license_type in all_types() {
        for code in HolderTypeCode::ALL {
            seed += 1;
            let draft = draft_for(&license_type, *code, seed);
            if !license_type.may_hold(*code) {
                server.refused(&mut issuer, &draft.call(), Code::BadFields).await;
                continue;
            }
            let issued = draft.issue(&mut issuer).await;
            let body = json!({"holder": holder(draft.holder()), "use": use_context()});
            let found = portal.send(&Call::new(Route::Search, &body)).await.expect(200);
            let listed = found.json["licenses"].as_array().unwrap();
            assert!(listed.iter().any(|one| one["identifier"] == json!(issued.identifier)), "{code}");
        }
    }
}

#[tokio::test]
async fn a_face_says_nothing_of_somebody_who_is_no_holder() {
    let server = shared(Setup::new).await;
    let mut issuer = server.party("issuer");
    let base = draft(&natural()).value();
    let other = draft(&natural());
    for (field, value) in
        [("citizenNumber", other.holder().number()), ("name", "测试另一人"), ("birthDate", "1939-01-01")]
    {
        let mut license = base.clone();
        license["fields"][field] = json!(value);
        let call = Call::new(Route::Issue, &json!({"license": license}));
        let (reply, _) = server.refused(&mut issuer, &call, Code::BadFields).await;
        let fault = &reply.json["errors"][0];
        assert_eq!(fault["pointer"], json!(format!("/license/fields/{field}")), "{}", reply.json);
        assert!(!reply.json.to_string().contains(value), "a value is given back");
    }
}

#[tokio::test]
async fn no_personal_number_stands_in_a_public_identifier() {
    let server = shared(Setup::new).await;
    let mut issuer = server.party("issuer");
    let license_type = all_types().into_iter().find(|one| one.name == "社会保障卡").unwrap();
    let passport = draft_for(&license_type, HolderTypeCode::OrdinaryPassport, 9_900);
    let citizen = draft(&natural());
    for (draft, serial) in [
        (&citizen, format!("A{}B", citizen.holder().number())),
        (&citizen, format!("7{}", draft(&natural()).holder().number())),
        (&passport, format!("2026{}", passport.holder().number())),
    ] {
        let mut license = draft.value();
        license["serial"] = json!(serial);
        let call = Call::new(Route::Issue, &json!({"license": license}));
        server.refused(&mut issuer, &call, Code::BadSerial).await;
    }
}

#[tokio::test]
async fn one_person_is_one_holder_whatever_card_was_shown() {
    let server = shared(Setup::new).await;
    let (mut issuer, mut portal) = (server.party("issuer"), server.party("portal"));
    let license_type = all_types().into_iter().find(|one| one.name == "职业资格证").unwrap();
    let issued =
        draft_for(&license_type, HolderTypeCode::HongKongMacaoPermit, 9_910).issue(&mut issuer).await;
    let permit = issued.draft.holder().number().to_owned();
    let residence = draft_for(&license_type, HolderTypeCode::TaiwanResidence, 9_911).issue(&mut issuer).await;
    let resident = residence.draft.holder().number().to_owned();
    for (one, code, number) in [
        (&issued, "516", permit.clone()),
        (&issued, "516", format!("{permit}00")),
        (&issued, "516", format!("{permit}(02)")),
        (&residence, "552", resident.clone()),
        (&residence, "111", resident),
    ] {
        let body = json!({"holder": {"typeCode": code, "number": number}, "use": use_context()});
        let (reply, _) = server.permitted(&mut portal, &Call::new(Route::Search, &body)).await;
        let listed = reply.json["licenses"].as_array().unwrap();
        assert!(listed.iter().any(|found| found["identifier"] == json!(one.identifier)), "{code} {number}");
    }
}

#[tokio::test]
async fn a_registrars_deviation_takes_a_mark_that_the_verifier_shows() {
    let server = shared(Setup::new).await;
    let (mut issuer, mut portal) = (server.party("issuer"), server.party("portal"));
    let draft = draft(&legal());
    let right = draft.holder().number().to_owned();
    let last = if right.ends_with('0') { '1' } else { '0' };
    let wrong = format!("{}{last}", &right[..17]);
    let mut license = draft.value();
    license["holders"][0]["number"] = json!(wrong);
    license["fields"]["uscc"] = json!(wrong);
    let call = |license: &Value| Call::new(Route::Issue, &json!({"license": license}));
    server.refused(&mut issuer, &call(&license), Code::WrongCheckDigit).await;
    license["holders"][0]["asRegistered"] = json!(true);
    let (reply, _) = server.permitted(&mut issuer, &call(&license)).await;
    let issued = Issued::new(draft, &reply.json);
    let report = verifier::license::verify(
        &issued.envelope,
        &server.trust,
        now_ms() / 1_000,
        &mut verifier::license::RootCache::new(),
    );
    assert_eq!(report.verdict, Verdict::Valid);
    assert!(report.license.unwrap().as_registered);

    // Found under the mark, and refused without it; a right number under the mark is who it is.
    let search = |number: &str, marked: bool| {
        let mut holder = json!({"typeCode": "001", "number": number});
        if marked {
            holder["asRegistered"] = json!(true);
        }
        Call::new(Route::Search, &json!({"holder": holder, "use": use_context()}))
    };
    let (reply, _) = server.permitted(&mut portal, &search(&wrong, true)).await;
    assert_eq!(reply.json["licenses"][0]["identifier"], json!(issued.identifier));
    server.refused(&mut portal, &search(&wrong, false), Code::WrongCheckDigit).await;
    let (reply, _) = server.permitted(&mut portal, &search(&right, true)).await;
    assert_eq!(reply.json["licenses"], json!([]));
}

#[tokio::test]
async fn of_several_licenses_with_one_number_the_one_in_force_answers() {
    let server = shared(Setup::new).await;
    let mut issuer = server.party("issuer");
    let (mut portal, mut bank) = (server.party("portal"), server.party("bank"));
    let older = draft(&natural()).issue(&mut issuer).await;
    let mut again = older.draft.clone();
    again.serial = draft(&natural()).serial;
    let newer = again.issue(&mut issuer).await;
    let by_type = grant(older.draft.holder(), &bank, Target::Type(&natural()));
    let right = portal.grant(&by_type).await;
    let ask = json!({
        "license": {
            "typeCode": natural().code.as_str(), "certificateNumber": older.draft.license.certificate_number,
            "holder": holder(older.draft.holder()),
        },
        "grant": right, "use": use_context(),
    });
    let verify = Call::new(Route::Verify, &ask);
    let mut retrieve = ask.clone();
    retrieve["mode"] = json!("face");
    let retrieve = Call::new(Route::Retrieve, &retrieve);
    let (reply, _) = server.permitted(&mut bank, &retrieve).await;
    assert_eq!((&reply.json["identifier"], &reply.json["sameNumber"]), (&json!(newer.identifier), &json!(2)));
    let keyed = retrieve.clone().key(&key());
    let (first, _) = server.permitted(&mut bank, &keyed).await;
    let again = bank.send(&keyed).await.expect(200);
    assert_eq!(again.receipt().index, first.receipt().index, "a retry gets the original");
    issuer.send(&newer.operation("05", Some("07"))).await.expect(200);
    let (reply, _) = server.permitted(&mut bank, &verify).await;
    assert_eq!((&reply.json["verdict"], &reply.json["sameNumber"]), (&json!("valid"), &json!(2)));
    let (reply, _) = server.permitted(&mut bank, &retrieve).await;
    assert_eq!((&reply.json["identifier"], &reply.json["inForce"]), (&json!(older.identifier), &json!(true)));
    // A disclosure of the revoked one is not given again: the request is judged anew.
    let (judged, _) = server.permitted(&mut bank, &keyed).await;
    assert_eq!(judged.json["identifier"], json!(older.identifier));
    // None in force: the newest says why.
    issuer.send(&older.operation("03", None)).await.expect(200);
    let (reply, _) = server.permitted(&mut bank, &verify).await;
    assert_eq!((&reply.json["verdict"], &reply.json["reasons"]), (&json!("invalid"), &json!(["revoked"])));
}

#[tokio::test]
async fn one_rule_holds_for_the_text_of_people_and_places_everywhere() {
    let server = shared(Setup::new).await;
    let mut issuer = server.party("issuer");
    let places: [(&str, Code); 3] = [
        ("/holders/0/name", Code::BadHolder),
        ("/certificateNumber", Code::BadFields),
        ("/fields/name", Code::BadFields),
    ];
    for (pointer, code) in places {
        for (class, text) in [
            ("bidi-control", "张\u{202e}三"),
            ("zero-width", "张\u{200b}三"),
            ("line-separator", "张\u{2028}三"),
            ("edge-blank", "张三 "),
            ("edge-blank", "\u{3000}张三"),
            ("control", "张\u{7f}三"),
        ] {
            let mut license = draft(&natural()).value();
            *license.pointer_mut(pointer).unwrap() = json!(text);
            let call = Call::new(Route::Issue, &json!({"license": license}));
            let (reply, _) = server.refused(&mut issuer, &call, code).await;
            let fault = &reply.json["errors"][0];
            assert_eq!(fault["pointer"], json!(format!("/license{pointer}")));
            assert_eq!((&fault["rule"], &fault["allowed"]), (&json!("text"), &json!(format!("no {class}"))));
        }
        // Rare characters of names, and what is composed at the edge.
        for (sent, kept) in [
            ("王\u{e863}", "王\u{e863}"),
            ("\u{20bb7}田\u{30edd}", "\u{20bb7}田\u{30edd}"),
            ("葛\u{e0100}城", "葛\u{e0100}城"),
            ("张\u{3000}三", "张\u{3000}三"),
            ("\u{fa19}", "\u{fa19}"),
            ("Jose\u{301}", "José"),
        ] {
            let mut draft = draft(&natural());
            let mut license = draft.value();
            *license.pointer_mut(pointer).unwrap() = json!(sent);
            // The holder's name and the face's agree.
            if pointer != "/certificateNumber" {
                for pointer in ["/holders/0/name", "/fields/name"] {
                    *license.pointer_mut(pointer).unwrap() = json!(sent);
                }
            }
            let call = Call::new(Route::Issue, &json!({"license": license}));
            let (reply, _) = server.permitted(&mut issuer, &call).await;
            draft.license.certificate_number = kept.to_owned();
            let issued = Issued::new(draft, &reply.json);
            let field = ["holderName", "certificateNumber", "name"]
                [places.iter().position(|it| it.0 == pointer).unwrap()];
            let (reply, _) = server.permitted(&mut issuer, &issued.retrieve(&[field], None)).await;
            assert_eq!(reply.json["fields"][field], json!(kept), "{pointer}");
        }
    }
}
