//! Bodies, headers and paths that cannot be read: each gets its own code, and an entry like any other answer.

use hyper::Method;
use schemas::codes::Code;
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{Call, Reply, Setup, shared, use_context};

/// Longest body of a JSON route.
const MAX_BODY_BYTES: usize = exchange::wire::read::MAX_BODY_BYTES;

const IDENTIFIER: &str = "1.2.156.3005.2.11100000000013338W011.11430000006122244L.20230000403.001.U";

fn verify() -> Value {
    json!({"license": {"identifier": IDENTIFIER}, "use": use_context()})
}

/// Whether the contract asks for no member of a route's requests.
fn needs_nothing(route: Route) -> bool {
    let contract: Value = serde_json::from_str(schemas::OPENAPI).unwrap();
    let body =
        &contract["paths"][route.path().unwrap()]["post"]["requestBody"]["content"]["application/json"];
    let schema = body["schema"]["$ref"].as_str().unwrap().trim_start_matches('#');
    contract.pointer(schema).unwrap()["required"].as_array().is_none_or(Vec::is_empty)
}

fn routes() -> impl Iterator<Item = Route> {
    Route::ALL.iter().copied().filter(|route| route.path().is_some())
}

#[tokio::test]
async fn what_is_not_the_routes_json_is_refused_on_every_route() {
    let server = shared(Setup::new).await;
    let mut party = server.party("bank");
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let rows: [(&[u8], Code); 9] = [
        (b"", Code::MalformedRequest),
        (b"nope", Code::MalformedRequest),
        (b"[]", Code::MalformedRequest),
        (b"null", Code::MalformedRequest),
        (b"{}", Code::MalformedRequest),
        (b"{\"", Code::MalformedRequest),
        (deep.as_bytes(), Code::MalformedRequest),
        (b"{\"surprise\":1}", Code::UnknownField),
        (b"{\"reason\":\"\xff\xfe\"}", Code::BadUtf8),
    ];
    for route in routes() {
        for (body, code) in rows {
            // Of a list nothing needs to be said.
            if body == b"{}" && needs_nothing(route) {
                continue;
            }
            // A question to the log, or for an item, needs nothing but who asks and why.
            let no_context = matches!(route, Route::LogQuery | Route::ItemsMaterials) && body == b"{}";
            let code = if no_context { Code::BadUseContext } else { code };
            server.refused(&mut party, &Call::raw(route, body.to_vec()), code).await;
        }
    }
}

#[tokio::test]
async fn a_member_that_is_unknown_doubled_or_of_another_type_is_told_apart() {
    let server = shared(Setup::new).await;
    let mut party = server.party("bank");
    let context = use_context().to_string();
    let with = |license: &str, rest: &str| format!(r#"{{"license":{license},"use":{context}{rest}}}"#);
    let named = format!(r#"{{"identifier":"{IDENTIFIER}"}}"#);
    let rows = [
        (with(&named, r#","surprise":1"#), Code::UnknownField),
        (with(r#"{"identifiers":"x"}"#, ""), Code::UnknownField),
        (with(&named, r#","license":{}"#), Code::DuplicateKey),
        (with(r#"{"identifier":"x","identifier":"y"}"#, ""), Code::DuplicateKey),
        (with(&named, r#","expect":{"name":"a","name":"b"}"#), Code::DuplicateKey),
        // A key that is the same only after its escapes are read.
        (with(&named, r#","expect":{"name":"a","n\u0061me":"b"}"#), Code::DuplicateKey),
        (with("1", ""), Code::MalformedRequest),
        (with(r#"{"identifier":1}"#, ""), Code::MalformedRequest),
        (with("{}", ""), Code::MalformedRequest),
        (with(&format!(r#"{{"identifier":"{IDENTIFIER}","envelope":"AAAA"}}"#), ""), Code::MalformedRequest),
        (with(&named, r#","expect":{"name":1}"#), Code::MalformedRequest),
        (with(&named, r#","grant":"zz""#), Code::MalformedRequest),
        (with(&named, "} trailing {"), Code::MalformedRequest),
        (with(&named, "") + "x", Code::MalformedRequest),
        (with(r#"{"envelope":"not base64!"}"#, ""), Code::BadEnvelope),
        // A byte order mark is passed over, one of them and before everything else.
        ("\u{feff}".to_owned() + &with(&named, ""), Code::NotPermitted),
        ("\u{feff}\u{feff}".to_owned() + &with(&named, ""), Code::MalformedRequest),
        (" \u{feff}".to_owned() + &with(&named, ""), Code::MalformedRequest),
    ];
    for (body, code) in rows {
        server.refused(&mut party, &Call::raw(Route::Verify, body), code).await;
    }
    let expect: serde_json::Map<String, Value> = (0..9).map(|n| (format!("f{n}"), json!("x"))).collect();
    let mut body = verify();
    body["expect"] = Value::Object(expect);
    server.refused(&mut party, &Call::new(Route::Verify, &body), Code::MalformedRequest).await;
    for change in [json!({"mode": "all"}), json!({"mode": "verify"}), json!({"mode": "fields"})] {
        let mut body = verify();
        body["mode"] = change["mode"].clone();
        server.refused(&mut party, &Call::new(Route::Retrieve, &body), Code::MalformedRequest).await;
    }
}

#[tokio::test]
async fn a_problem_says_where_the_json_breaks_and_never_what_was_sent() {
    let server = shared(Setup::new).await;
    let mut party = server.party("bank");
    let call = Call::raw(Route::Verify, "{\n  \"secretname\": 1}");
    let (reply, _) = server.refused(&mut party, &call, Code::UnknownField).await;
    assert!(reply.json["detail"].as_str().unwrap().starts_with("line 2, column"), "{}", reply.json);
    assert_eq!(reply.json["errors"][0]["pointer"], json!(""));
    assert_eq!(reply.json["errors"][0]["position"], json!(1));
    assert!(!String::from_utf8_lossy(&reply.body).contains("secretname"));
    let (reply, _) =
        server.refused(&mut party, &Call::raw(Route::Verify, "{\n\"a\""), Code::MalformedRequest).await;
    assert_eq!((&reply.json["errors"], &reply.json["detail"]), (&Value::Null, &json!("line 2, column 3")));
}

/// The faults that an answer lists: pointer or header, rule, and what would be right.
fn faults(reply: &Reply) -> Vec<(String, String, Value)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let listed = reply.json["errors"].as_array().unwrap_or_else(|| panic!("no errors in {}", reply.json));
    let fault = |fault: &Value| {
        let place = text(&fault["pointer"]).or_else(|| text(&fault["header"])).unwrap();
        (place, text(&fault["rule"]).unwrap(), fault["allowed"].clone())
    };
    listed.iter().map(fault).collect()
}

/// The faults without what would be right.
fn broken(reply: &Reply) -> Vec<(String, String)> {
    faults(reply).into_iter().map(|(place, rule, _)| (place, rule)).collect()
}

fn pairs(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(place, rule)| ((*place).to_owned(), (*rule).to_owned())).collect()
}

#[tokio::test]
async fn every_part_that_is_wrong_is_named_with_what_would_be_right() {
    let server = shared(Setup::new).await;
    let (mut bank, mut issuer, mut portal) =
        (server.party("bank"), server.party("issuer"), server.party("portal"));
    // What is missing, all of it at once.
    let (reply, _) = server.refused(&mut bank, &Call::raw(Route::Search, "{}"), Code::MalformedRequest).await;
    assert_eq!(broken(&reply), pairs(&[("/holder", "required")]));
    assert_eq!(reply.json["detail"], json!("/holder: The member has to be there."));
    let (reply, _) =
        server.refused(&mut portal, &Call::raw(Route::GrantCreate, "{}"), Code::MalformedRequest).await;
    let members = ["/holder", "/grantee", "/modes", "/until"].map(|pointer| (pointer, "required"));
    assert_eq!(broken(&reply), pairs(&members));

    // Each part of the use context by its name.
    let mut body = verify();
    body["use"] = json!({"userName": "", "itemCode": " a", "itemName": "a\u{202e}b", "businessCode": "办".repeat(101),
        "stage": "审批"});
    let (reply, _) = server.refused(&mut bank, &Call::new(Route::Verify, &body), Code::BadUseContext).await;
    assert_eq!(
        reply.json["errors"],
        json!([
            {"pointer": "/use/userName", "rule": "length", "allowed": {"min": 1, "max": 100}, "gotLength": 0},
            {"pointer": "/use/itemCode", "rule": "text", "allowed": "no edge-blank", "gotLength": 2, "position": 1},
            {"pointer": "/use/itemName", "rule": "text", "allowed": "no bidi-control", "gotLength": 3, "position": 2},
            {"pointer": "/use/businessCode", "rule": "length", "allowed": {"min": 1, "max": 100}, "gotLength": 101},
            {"pointer": "/use/cause", "rule": "required", "allowed": {"min": 1, "max": 200}},
            {"pointer": "/use/stage", "rule": "one-of", "allowed": ["申办", "受理", "审核", "决定", "送达"],
                "gotLength": 2},
        ])
    );

    // Wrong numbers: which one, and of public ones what would be right.
    let mut draft = tests::draft(&tests::natural()).value();
    draft["holders"] = json!([
        {"name": "", "typeCode": "111", "number": "110105194912310021"},
        {"name": "乙", "typeCode": "112", "number": "1"},
        {"name": "丙", "typeCode": "001", "number": "91350100M000100Y4A"},
    ]);
    draft["issueDate"] = json!("2026-02-30");
    draft["serial"] = json!("abc");
    let call = Call::new(Route::Issue, &json!({"license": draft}));
    let (reply, _) = server.refused(&mut issuer, &call, Code::BadSerial).await;
    let wanted = [
        ("/license/serial", "pattern"),
        ("/license/holders/0/name", "length"),
        ("/license/holders/0/number", "check-digit"),
        ("/license/holders/1/typeCode", "one-of"),
        ("/license/holders/2/number", "check-digit"),
        ("/license/issueDate", "date"),
    ];
    assert_eq!(broken(&reply), pairs(&wanted));
    assert_eq!((&faults(&reply)[2].2, &faults(&reply)[4].2), (&Value::Null, &json!(["3"])));
    for sent in ["110105194912310021", "91350100M000100Y4A", "2026-02-30"] {
        assert!(!String::from_utf8_lossy(&reply.body).contains(sent), "{sent}");
    }

    // Shapes: types, doubled members, and of a map's members only the place.
    let body = r#"{"license":{"typeCode":1,"serial":"A","serial":"B","certificateNumber":"C","holders":[{"name":null}],
        "issueDate":"2026-01-01","validFrom":"2026-01-01","fields":{"secretkey":"a","n":5}},"extra":1}"#;
    let (reply, _) =
        server.refused(&mut issuer, &Call::raw(Route::Issue, body), Code::MalformedRequest).await;
    let wanted = [
        ("/license/typeCode", "type"),
        ("/license/serial", "duplicate-member"),
        ("/license/holders/0/name", "type"),
        ("/license/holders/0/typeCode", "required"),
        ("/license/holders/0/number", "required"),
        ("/license/fields", "type"),
        ("", "unknown-member"),
    ];
    assert_eq!(broken(&reply), pairs(&wanted));
    assert_eq!(reply.json["errors"][5]["position"], json!(2));
    assert!(!String::from_utf8_lossy(&reply.body).contains("secretkey"));
}

#[tokio::test]
async fn a_license_that_does_not_fit_its_type_names_every_field() {
    let server = shared(Setup::new).await;
    let mut issuer = server.party("issuer");
    let types = schemas::license_type::LicenseType::builtin();
    let good = tests::draft(&tests::natural());
    let license_type = types.iter().find(|t| t.code == tests::natural().code).unwrap();
    let required = license_type.fields.iter().find(|field| field.required).unwrap();
    let mut license = good.value();
    license["fields"].as_object_mut().unwrap().remove(&required.key);
    license["fields"]["mysecret"] = json!("x");
    license["validUntil"] = json!("1999-01-01");
    let (reply, _) = server
        .refused(&mut issuer, &Call::new(Route::Issue, &json!({"license": license})), Code::BadFields)
        .await;
    let missing = format!("/license/fields/{}", required.key);
    let found = broken(&reply);
    for wanted in
        [("/license/fields", "unknown-member"), (&missing, "required"), ("/license/validUntil", "order")]
    {
        // A type without an end says so instead.
        let (place, rule) = wanted;
        assert!(
            found.iter().any(
                |(p, r)| p == place && (r == rule || place.ends_with("validUntil") && r == "not-allowed")
            ),
            "{wanted:?} in {found:?}"
        );
    }
    let body = String::from_utf8_lossy(&reply.body);
    assert!(!body.contains("mysecret") && !body.contains("1999"), "{body}");
}

#[tokio::test]
async fn a_grant_of_fields_names_some() {
    let server = shared(Setup::new).await;
    let mut portal = server.party("portal");
    let type_code = tests::natural().code;
    let body = json!({"holder": {"typeCode": "111", "number": "11010519491231002X"}, "modes": ["fields"],
        "grantee": server.organisation("bank").as_str(), "typeCode": type_code, "until": "2099-01-01T00:00:00Z"});
    let (reply, _) = server.refused(&mut portal, &Call::new(Route::GrantCreate, &body), Code::BadGrant).await;
    assert_eq!(reply.status, 422);
    assert_eq!(faults(&reply), [("/fields".into(), "required".into(), json!({"min": 1, "max": 64}))]);
}

#[tokio::test]
async fn a_refusal_speaks_the_language_that_its_caller_prefers() {
    let server = shared(Setup::new).await;
    let mut party = server.party("bank");
    let mut body = verify();
    body["use"]["stage"] = json!("审批");
    let call = Call::new(Route::Verify, &body);
    let (english, _) = server.refused(&mut party, &call, Code::BadUseContext).await;
    assert_eq!(english.json["detail"], json!("/use/stage: The value is not one of the list."));
    let reply = party.send(&call.header("accept-language", "zh-CN,zh;q=0.9,en;q=0.8")).await;
    assert_eq!(reply.json["title"], json!(Code::BadUseContext.guidance().chinese));
    assert_eq!(reply.json["detail"], json!("/use/stage: 值不在所列范围内。"));
    assert_eq!(reply.json["errors"], english.json["errors"]);
    // The receipt is of these very bytes.
    let entry = server.entry(&reply).await;
    assert_eq!(entry.open.answer_digest, tests::sha256(&reply.hashed()));
}

#[tokio::test]
async fn headers_that_are_wrong_are_named() {
    let server = shared(Setup::new).await;
    let mut party = server.party("issuer");
    let body = json!({"identifier": IDENTIFIER, "operation": "03", "reason": "测试"});
    let call = || Call::new(Route::Transition, &body);
    let bounds = json!({"min": 16, "max": 64});
    for (call, code, rule, allowed) in [
        (call().without("idempotency-key"), Code::IdempotencyKeyRequired, "required", bounds.clone()),
        (call().key("fifteen-letters"), Code::IdempotencyKeyRequired, "length", bounds.clone()),
        (call().without("content-type"), Code::WrongContentType, "required", json!(["application/json"])),
    ] {
        let (reply, _) = server.refused(&mut party, &call, code).await;
        let header = if code == Code::WrongContentType { "Content-Type" } else { "Idempotency-Key" };
        assert_eq!(faults(&reply), [(header.to_owned(), rule.to_owned(), allowed)]);
    }
}

#[tokio::test]
async fn a_development_exchange_logs_why_it_refused() {
    let server = Setup::new().env("RUST_LOG", "info").start().await;
    let mut party = server.party("bank");
    server.refused(&mut party, &Call::new(Route::Verify, &verify()), Code::NotPermitted).await;
    let logged = server.stderr();
    let line = logged.lines().find(|line| line.contains("refused")).unwrap_or_else(|| panic!("{logged}"));
    assert!(line.contains("not-permitted") && line.contains("no-such-license"), "{line}");
}

#[tokio::test]
async fn what_protects_facts_says_nothing_more() {
    let server = shared(Setup::new).await;
    let mut party = server.party("bank");
    let (reply, _) =
        server.refused(&mut party, &Call::new(Route::Verify, &verify()), Code::NotPermitted).await;
    let members: Vec<_> = reply.json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["type", "title", "status", "code", "receipt"]);
}

#[tokio::test]
async fn a_body_is_read_up_to_its_bound_and_no_further() {
    let server = shared(Setup::new).await;
    let mut party = server.party("bank");
    let padded = |length: usize| {
        let mut body = serde_json::to_vec(&verify()).unwrap();
        body.resize(length, b' ');
        body
    };
    for route in routes() {
        let call = Call::raw(route, vec![b' '; route.contract().body_bytes + 1]);
        server.refused(&mut party, &call, Code::BodyTooLarge).await;
    }
    let call = Call::raw(Route::Verify, padded(MAX_BODY_BYTES + 1)).undeclared();
    server.refused(&mut party, &call, Code::BodyTooLarge).await;
    // At the bound it is read, and refused only for what it asks.
    for call in [
        Call::raw(Route::Verify, padded(MAX_BODY_BYTES)),
        Call::raw(Route::Verify, padded(MAX_BODY_BYTES)).undeclared(),
    ] {
        server.refused(&mut party, &call, Code::NotPermitted).await;
    }
}

#[tokio::test]
async fn only_json_is_taken() {
    let server = shared(Setup::new).await;
    let mut party = server.party("bank");
    for route in routes() {
        for content_type in ["text/plain", "application/xml", "application/jsonp", "", "multipart/form-data"]
        {
            let call = Call::new(route, &verify()).header("content-type", content_type);
            server.refused(&mut party, &call, Code::WrongContentType).await;
        }
        let call = Call::new(route, &verify()).without("content-type");
        server.refused(&mut party, &call, Code::WrongContentType).await;
    }
    for content_type in ["application/json", "Application/JSON", "application/json; charset=utf-8"] {
        let call = Call::new(Route::Verify, &verify()).header("content-type", content_type);
        server.refused(&mut party, &call, Code::NotPermitted).await;
    }
}

#[tokio::test]
async fn an_encoded_body_is_refused_by_the_name_of_its_header() {
    let server = shared(Setup::new).await;
    let mut party = server.party("bank");
    for encoding in ["gzip", "br", "gzip, identity", "x"] {
        let call = Call::new(Route::Verify, &verify()).header("content-encoding", encoding);
        let (reply, _) = server.refused(&mut party, &call, Code::WrongContentType).await;
        assert_eq!(reply.json["errors"][0]["header"], json!("Content-Encoding"), "{encoding}");
        assert_eq!(reply.json["errors"][0]["allowed"], json!(["identity"]));
        assert_eq!(reply.headers.get("accept-encoding").unwrap(), "identity");
    }
    let call = Call::new(Route::Verify, &verify()).header("content-encoding", "Identity");
    server.refused(&mut party, &call, Code::NotPermitted).await;
    let call = Call::new(Route::Verify, &verify()).header("content-type", "text/plain");
    let (reply, _) = server.refused(&mut party, &call, Code::WrongContentType).await;
    assert_eq!(reply.json["errors"][0]["header"], json!("Content-Type"));
}

/// The head of a request in bytes, with these headers.
fn head(headers: &str) -> String {
    format!("POST /v1/verify HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{headers}\r\n")
}

#[tokio::test]
async fn a_body_whose_framing_is_wrong_is_told_so_at_once() {
    let server = shared(Setup::new).await;
    let party = server.party("bank");
    let chunked = head("transfer-encoding: chunked\r\n");
    for bad in
        ["zz\r\n{}\r\n0\r\n\r\n", "2\r\n{}xx0\r\n\r\n", "-1\r\n", "fffffffffffffffff\r\n{}", "2 2\r\n{}\r\n"]
    {
        let (count, size) = (server.answers(Route::Verify, Code::BrokenBody).await, server.size().await);
        let (head, problem) = party.send_bytes(format!("{chunked}{bad}").as_bytes()).await;
        assert!(head.starts_with("http/1.1 400 "), "{bad:?}: {head}");
        assert_eq!(problem["code"], json!(Code::BrokenBody.name()), "{bad:?}");
        assert!(problem.get("receipt").is_none(), "it decides nothing");
        assert_eq!(server.answers(Route::Verify, Code::BrokenBody).await, count + 1, "{bad:?}");
        // What was shed is journaled as counts within a second, and nothing else is.
        assert!(server.size().await <= size + 1, "{bad:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_declared_too_long_is_refused_before_it_is_sent() {
    let server = shared(Setup::new).await;
    let party = server.party("bank");
    let longer = MAX_BODY_BYTES + 1;
    for headers in [
        "content-length: 10737418240\r\n".to_owned(),
        format!("content-length: {longer}\r\n"),
        // Nobody is asked to send what is refused anyway.
        format!("content-length: {longer}\r\nexpect: 100-continue\r\n"),
    ] {
        let count = server.answers(Route::Verify, Code::BodyTooLarge).await;
        let (head, problem) = party.send_bytes(head(&headers).as_bytes()).await;
        assert!(head.starts_with("http/1.1 413 "), "{headers}: {head}");
        assert_eq!(problem["code"], json!(Code::BodyTooLarge.name()));
        assert!(problem.get("receipt").is_some(), "it is journaled: {problem}");
        assert_eq!(server.answers(Route::Verify, Code::BodyTooLarge).await, count + 1);
    }
}

#[tokio::test]
async fn the_methods_that_a_path_takes_are_named() {
    let server = shared(Setup::new).await;
    let mut party = server.party("bank");
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        let reply = party.send(&Call::new(Route::Verify, &verify()).method(method)).await.expect(405);
        assert_eq!(reply.headers.get("allow").unwrap(), "POST");
    }
    for path in ["/v1/log/checkpoint", "/v1/log/proof/0", "/v1/types", "/openapi.json"] {
        let reply = server.public_with(Method::POST, path).await.expect(405);
        assert_eq!(reply.headers.get("allow").unwrap(), "GET,HEAD", "{path}");
    }
    // HEAD says what GET would.
    let (get, head) = (server.public("/v1/types").await, server.public_with(Method::HEAD, "/v1/types").await);
    assert_eq!((head.status, head.body.len()), (200, 0));
    let length = get.body.len().to_string();
    assert_eq!(head.headers.get("content-length").unwrap(), &length);
    assert_eq!(head.headers.get("content-type"), get.headers.get("content-type"));
}

#[tokio::test]
async fn another_path_or_method_is_an_answer_too() {
    let server = shared(Setup::new).await;
    let mut party = server.party("bank");
    for path in [
        "/",
        "/v1",
        "/v1/licences",
        "/v1/verify/",
        "/v1/verify/x",
        "/v2/verify",
        "/v1/participants/../verify",
        "/openapi.json",
    ] {
        let call = Call::new(Route::None, &verify()).path(path);
        server.refused(&mut party, &call, Code::NoSuchRoute).await;
    }
    for route in routes() {
        for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
            let call = Call::new(route, &verify()).method(method);
            server.refused(&mut party, &call, Code::MethodNotAllowed).await;
        }
    }
}

#[tokio::test]
async fn a_change_needs_a_good_idempotency_key() {
    // Its own: what another test has shed is journaled behind it.
    let server = Setup::new().start().await;
    let mut party = server.party("issuer");
    let body = json!({"identifier": IDENTIFIER, "operation": "03", "reason": "测试"});
    for route in routes().filter(|route| route.changes_state()) {
        let call = Call::new(route, &body).without("idempotency-key");
        server.refused(&mut party, &call, Code::IdempotencyKeyRequired).await;
    }
    for key in ["", "fifteen-letters", &"x".repeat(65), "sixteen letters here"] {
        for route in [Route::Transition, Route::Verify] {
            let call = Call::new(route, &body).key(key);
            server.refused(&mut party, &call, Code::IdempotencyKeyRequired).await;
        }
    }
    let twice = Call::new(Route::Transition, &body).also("idempotency-key", "another-one-of-sixteen");
    server.refused(&mut party, &twice, Code::IdempotencyKeyRequired).await;
    for key in ["sixteen-letters!", &"x".repeat(64)] {
        server.refused(&mut party, &Call::new(Route::Transition, &body).key(key), Code::NotPermitted).await;
    }
}

#[tokio::test]
async fn every_use_carries_its_whole_context() {
    let server = shared(Setup::new).await;
    let mut party = server.party("bank");
    let members = ["userName", "itemCode", "itemName", "businessCode", "cause", "stage"];
    let uses = [
        (Route::Verify, verify()),
        (Route::Retrieve, {
            let mut body = verify();
            body["mode"] = json!("face");
            body
        }),
        (
            Route::Search,
            json!({"holder": {"typeCode": "001", "number": "91350100M000100Y43"}, "use": use_context()}),
        ),
    ];
    for (route, good) in uses {
        let mut bad = Vec::new();
        let mut without = good.clone();
        without.as_object_mut().unwrap().remove("use");
        bad.push(without);
        for member in members {
            let mut missing = good.clone();
            missing["use"].as_object_mut().unwrap().remove(member);
            bad.push(missing);
            let limit = if member == "cause" { 200 } else { 100 };
            for text in ["".to_owned(), "  ".to_owned(), "事\u{7}项".to_owned(), "事".repeat(limit + 1)] {
                let mut wrong = good.clone();
                wrong["use"][member] = json!(text);
                bad.push(wrong);
            }
        }
        let mut stage = good.clone();
        stage["use"]["stage"] = json!("其他");
        bad.push(stage);
        for body in bad {
            server.refused(&mut party, &Call::new(route, &body), Code::BadUseContext).await;
        }
        let mut longest = good.clone();
        longest["use"]["cause"] = json!("事".repeat(200));
        server.refused(&mut party, &Call::new(route, &longest), Code::NotPermitted).await;
    }
}

#[tokio::test]
async fn a_flood_of_refusals_is_shed_before_it_fills_the_journal() {
    let server = Setup::new()
        .config(|config| {
            config.limits.refusals_a_second = 1.try_into().unwrap();
            config.limits.refusal_burst = 5.try_into().unwrap();
        })
        .start()
        .await;
    let (mut noisy, mut quiet) = (server.party("bank"), server.party("approval"));
    let before = server.size().await;
    let mut shed = 0;
    let mut journaled = 0;
    for _ in 0..200 {
        let reply = noisy.send(&Call::raw(Route::Verify, "nope")).await;
        match reply.status {
            400 => journaled += 1,
            429 => {
                assert_eq!(reply.code(), Code::TooManyRefusals.name());
                assert!(verifier::receipt::cut(&reply.body).is_err(), "what decides nothing has no receipt");
                assert_eq!(reply.retry_after.as_deref(), Some("1"));
                shed += 1;
            }
            other => panic!("status {other}"),
        }
    }
    assert!(shed > 0 && journaled >= 5, "{shed} shed, {journaled} journaled");
    assert_eq!(server.answers(Route::Verify, Code::TooManyRefusals).await, shed);
    server.refused_beside_shed(&mut quiet, &Call::raw(Route::Verify, "nope"), Code::MalformedRequest).await;
    // Once a second what was shed is journaled, all of it in a few entries of the exchange itself.
    let size = tests::eventually("the shed entries", || async {
        let size = server.size().await;
        (size > before + journaled + 1).then_some(size)
    })
    .await;
    assert!(size < before + journaled + 1 + shed, "an entry for each of {shed} shed requests");
}

#[tokio::test]
async fn a_receipt_that_is_asked_for_in_another_word_is_refused_by_name() {
    let server = shared(Setup::new).await;
    let mut party = server.party("bank");
    for word in ["Inline", "inline ;", "none", ""] {
        let call = Call::new(Route::Verify, &verify()).header("receipt", word);
        let (reply, _) = server.refused(&mut party, &call, Code::MalformedRequest).await;
        assert_eq!(reply.json["errors"][0]["header"], "Receipt", "{word}: {}", reply.json);
        assert_eq!(reply.json["errors"][0]["allowed"], json!(["inline"]));
    }
}
