//! `openapi.json` says what the code says: routes, codes, enums; and its examples are licenses of nobody.

use std::collections::{BTreeMap, BTreeSet};

use schemas::OPENAPI;
use schemas::codes::Code;
use schemas::date::Date;
use schemas::holder::{HolderRef, HolderTypeCode};
use schemas::identifier::{CertificateIdentifier, Uscc};
use schemas::license_type::{LicenseType, NamedHolder};
use schemas::routes::{ADMIN, PUBLIC, Route};
use schemas::state::{LicenseState, Operation};
use serde_json::Value;

/// Methods that a path item of OpenAPI 3.1 may hold.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
/// Where the sequence of a citizen number stands; generated ones have 000.
const SEQUENCE: std::ops::Range<usize> = 14..17;

fn document() -> Value {
    serde_json::from_str(OPENAPI).expect("openapi.json is JSON")
}

fn at<'a>(document: &'a Value, pointer: &str) -> &'a Value {
    let found = document.pointer(pointer);
    assert!(found.is_some(), "openapi.json has no {pointer}");
    found.expect("just asserted")
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|item| item.as_str().expect("text")).collect()
}

fn members(list: &Value) -> BTreeSet<&str> {
    let texts = texts(list);
    let set: BTreeSet<_> = texts.iter().copied().collect();
    assert_eq!(set.len(), texts.len(), "an enum names something twice: {texts:?}");
    set
}

fn schema_enum(document: &Value, name: &str) -> BTreeSet<String> {
    members(at(document, &format!("/components/schemas/{name}/enum")))
        .into_iter()
        .map(str::to_owned)
        .collect()
}

fn owned<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[test]
fn paths_are_the_routes() {
    let mut routes = BTreeSet::new();
    for path in Route::ALL.iter().filter_map(|route| route.path()) {
        routes.insert((path.to_owned(), "post".to_owned(), "data".to_owned()));
    }
    for (paths, listener) in [(PUBLIC, "public"), (ADMIN, "admin")] {
        for path in paths {
            routes.insert(((*path).to_owned(), "get".to_owned(), listener.to_owned()));
        }
    }
    let document = document();
    let mut documented = BTreeSet::new();
    for (path, item) in at(&document, "/paths").as_object().expect("an object") {
        let listener = item["x-listener"].as_str().expect("every path names its listener");
        assert!(item["servers"].is_array(), "{path} names its server");
        for method in METHODS.iter().filter(|method| item.get(**method).is_some()) {
            documented.insert((path.clone(), (*method).to_owned(), listener.to_owned()));
        }
    }
    assert_eq!(documented, routes);
}

#[test]
fn state_changes_require_an_idempotency_key() {
    let document = document();
    for route in Route::ALL.iter().copied() {
        let Some(path) = route.path() else { continue };
        let parameters = &at(&document, "/paths")[path]["post"]["parameters"];
        let named =
            parameters.as_array().expect("a list").iter().filter_map(|parameter| parameter["$ref"].as_str());
        let required =
            named.clone().any(|reference| reference == "#/components/parameters/IdempotencyKeyRequired");
        let optional = named.clone().any(|reference| reference == "#/components/parameters/IdempotencyKey");
        assert_eq!((required, optional), (route.changes_state(), !route.changes_state()), "{path}");
    }
}

#[test]
fn problem_codes_are_the_codes() {
    let document = document();
    let codes = owned(Code::ALL.iter().filter(|code| **code != Code::Ok).map(|code| code.name()));
    assert_eq!(owned(members(at(&document, "/components/schemas/Problem/properties/code/enum"))), codes);

    let mut by_status: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for code in Code::ALL.iter().filter(|code| **code != Code::Ok) {
        by_status.entry(u64::from(code.status())).or_default().insert(code.name().to_owned());
    }
    let mut documented = BTreeMap::new();
    for (name, response) in at(&document, "/components/responses").as_object().expect("an object") {
        let Some(content) = response.get("content") else { continue };
        let detail = at(content, "/application~1problem+json/schema/allOf/1");
        let status = at(detail, "/properties/status/const").as_u64().expect("a status");
        let codes = owned(members(at(detail, "/properties/code/enum")));
        assert!(documented.insert(status, codes).is_none(), "{name} describes {status} again");
    }
    assert_eq!(documented, by_status);
}

#[test]
fn every_data_route_answers_every_status_it_can() {
    let document = document();
    // 404 and 405 are answers of what is no route, or no POST.
    let elsewhere = [Code::Ok, Code::NoSuchRoute, Code::MethodNotAllowed];
    let statuses: BTreeSet<String> = Code::ALL
        .iter()
        .filter(|code| !elsewhere.contains(code))
        .map(|code| code.status().to_string())
        .collect();
    for path in Route::ALL.iter().filter_map(|route| route.path()) {
        let responses = at(&document, "/paths")[path]["post"]["responses"].as_object().expect("an object");
        let refusals: BTreeSet<String> =
            responses.keys().filter(|status| !status.starts_with('2')).cloned().collect();
        assert_eq!(refusals, statuses, "{path}");
        assert_eq!(responses.len(), statuses.len() + 1, "{path} has one permitted status");
    }
}

#[test]
fn enums_are_those_of_the_code() {
    let document = document();
    assert_eq!(schema_enum(&document, "LicenseState"), owned(LicenseState::ALL.iter().map(|s| s.code())));
    assert_eq!(schema_enum(&document, "Operation"), owned(Operation::ALL.iter().map(|o| o.code())));
    assert_eq!(
        schema_enum(&document, "HolderTypeCode"),
        owned(HolderTypeCode::ALL.iter().map(|c| c.as_str()))
    );
    for state in LicenseState::ALL.iter().copied() {
        let named = format!("{} {}", state.code(), state.name());
        let described = at(&document, "/components/schemas/LicenseState/description").as_str().expect("text");
        assert!(described.contains(&named), "the description lacks {named}");
    }
    for operation in Operation::ALL.iter().copied() {
        let named = format!("{} {}", operation.code(), operation.name());
        let described = at(&document, "/components/schemas/Operation/description").as_str().expect("text");
        assert!(described.contains(&named), "the description lacks {named}");
    }
}

#[test]
fn requests_take_no_member_that_is_not_described() {
    let document = document();
    for path in Route::ALL.iter().filter_map(|route| route.path()) {
        closed(
            &document,
            &at(&document, "/paths")[path]["post"]["requestBody"]["content"]["application/json"]["schema"],
        );
    }
}

/// Every object schema with named members that a schema leads to refuses other members.
fn closed(document: &Value, schema: &Value) {
    if let Some(reference) = schema["$ref"].as_str() {
        return closed(document, at(document, reference.trim_start_matches('#')));
    }
    if let Some(properties) = schema["properties"].as_object() {
        assert_eq!(schema["additionalProperties"], Value::Bool(false), "an open object: {schema}");
        properties.values().for_each(|member| closed(document, member));
    }
    if schema.get("items").is_some() {
        closed(document, &schema["items"]);
    }
    // `oneOf` either chooses between whole objects or between required members.
    let choices = schema["oneOf"].as_array().into_iter().flatten();
    choices.filter(|choice| choice.get("required").is_none()).for_each(|choice| closed(document, choice));
}

#[test]
fn examples_are_well_formed_and_of_nobody() {
    let types = LicenseType::builtin();
    let document = document();
    let mut seen = BTreeMap::new();
    for path in Route::ALL.iter().filter_map(|route| route.path()) {
        let content = &at(&document, "/paths")[path]["post"]["requestBody"]["content"]["application/json"];
        let examples = content["examples"].as_object().expect("every request has an example");
        assert!(!examples.is_empty(), "{path}");
        examples.values().for_each(|example| check_example(&types, &example["value"], &mut seen));
    }
    for kind in ["identifier", "organisation", "holder", "license"] {
        assert!(seen.contains_key(kind), "no example holds a {kind}");
    }
}

fn check_example(types: &[LicenseType], value: &Value, seen: &mut BTreeMap<&'static str, usize>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| check_example(types, item, seen)),
        Value::Object(object) => {
            if let Some(text) = object.get("identifier").and_then(Value::as_str) {
                let identifier: CertificateIdentifier =
                    text.parse().expect("an example's identifier is good");
                nobody(identifier.issuer().as_str());
                *seen.entry("identifier").or_default() += 1;
            }
            for key in ["organisation", "grantee"] {
                if let Some(text) = object.get(key).and_then(Value::as_str) {
                    nobody(text.parse::<Uscc>().expect("an example's organisation is good").as_str());
                    *seen.entry("organisation").or_default() += 1;
                }
            }
            if let (Some(code), Some(number)) = (object.get("typeCode"), object.get("number")) {
                holder(code, number);
                *seen.entry("holder").or_default() += 1;
            }
            if object.contains_key("serial") {
                license(types, value);
                *seen.entry("license").or_default() += 1;
            }
            object.values().for_each(|member| check_example(types, member, seen));
        }
        _ => {}
    }
}

fn nobody(uscc: &str) {
    assert_eq!(&uscc[8..10], "XX", "an organisation code that may be somebody's: {uscc}");
}

fn holder(code: &Value, number: &Value) -> HolderRef {
    let code = code.as_str().expect("text");
    let holder = HolderRef::new(code, number.as_str().expect("text")).expect("an example's holder is good");
    assert!(["001", "111"].contains(&code), "the examples' numbers are generated, and {code} is not");
    if code == "001" {
        nobody(holder.number());
    } else {
        assert_eq!(&holder.number()[SEQUENCE], "000", "a number that may be somebody's");
    }
    holder
}

fn license(types: &[LicenseType], license: &Value) {
    let code = license["typeCode"].as_str().expect("text");
    let license_type = types.iter().find(|one| one.code.as_str() == code).expect("a built-in type");
    let holders: Vec<HolderRef> = license["holders"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| holder(&one["typeCode"], &one["number"]))
        .collect();
    let names = license["holders"].as_array().expect("a list").iter();
    let named: Vec<NamedHolder<'_>> = names
        .zip(&holders)
        .map(|(one, holder)| NamedHolder { name: one["name"].as_str().expect("text"), holder })
        .collect();
    let fields: Vec<(String, String)> = license["fields"]
        .as_object()
        .expect("an object")
        .iter()
        .map(|(key, value)| (key.clone(), value.as_str().expect("text").to_owned()))
        .collect();
    let date = |key: &str| license[key].as_str().map(|text| text.parse::<Date>().expect("a date"));
    let valid_from = date("validFrom").expect("a first day");
    license_type
        .check(&named, &fields, date("validUntil"), valid_from)
        .expect("an example's license fits its type");
}
