//! Identifiers, organisation codes, holders' numbers, serials and types: read strictly, each fault with its code.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

use schemas::codes::Code;
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{Call, Setup, Target, draft, grant, holder, legal, natural, shared, use_context};

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
