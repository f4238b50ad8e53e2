//! Presentation codes, decided over a table: each cause of a refusal, classes of verifiers, and the limits that a scan comes under.
//!
//! Tests alone have this file. Nothing is written.

use std::net::IpAddr;

use ledger::DocumentKind;
use schemas::codes::{Code, Reason};
use schemas::kinds::{Facility, Verifiers};
use schemas::license_type::LicenseType;
use schemas::routes::Route;
use serde_json::{Value, json};
use verifier::trace::Label as PageLabel;

use super::{NOW_MS, TYPE, World, document, merged, use_context};
use crate::admission::{Limit, Rate};
use crate::capability::Capability;
use crate::capability::codes::{end, mint, scan};
use crate::capability::licenses::search;
use crate::capability::records::{feed, query};
use crate::gateway::case::Case;
use crate::keyed;
use crate::participant::{Participant, Role};
use crate::rights::admission;
use crate::rights::code::{End, PresentationCode, Shown, Token};
use crate::rights::link::Above;
use crate::wire::refusal::{Language, Refusal};

const CODE: &str = "MX1.AAECAwQFBgcICQoLDA0ODxAR";

/// A world with a code of its license, changed.
fn with_code(change: impl FnOnce(&mut PresentationCode)) -> World {
    let mut world = World::new();
    let mut code = PresentationCode {
        holder: PageLabel(world.label),
        license: Some(Shown {
            key: PageLabel(world.license_key()),
            type_code: TYPE.parse().expect("a type"),
        }),
        verifiers: Verifiers::Any,
        fields: vec!["holderName".to_owned()],
        chain: Vec::new(),
        portal: world.portal.organisation,
        until_ms: NOW_MS,
        end: None,
    };
    change(&mut code);
    let key = Token::read(CODE).expect("a code").key(&world.table.keyed);
    world.table.documents.insert((DocumentKind::PresentationCode.number(), key), document(&code));
    world
}

fn scanned(more: &Value) -> String {
    merged(json!({"code": CODE, "use": use_context()}), more)
}

fn ask(world: &World, caller: &Participant, more: &Value) -> Result<(), Refusal> {
    world.ask::<scan::Scan>(caller, &scanned(more))
}

pub(super) fn reasons(refused: &mut impl FnMut(Reason, Result<(), Refusal>)) {
    let none = json!({});
    let world = with_code(|_| {});
    assert!(ask(&world, &world.bank, &none).is_ok());
    let all = json!({"fields": ["holderName"], "typeCode": TYPE, "holder": world.holder()});
    assert!(ask(&world, &world.bank, &all).is_ok());
    refused(Reason::NoSuchCode, ask(&World::new(), &world.bank, &none));
    let mut by = |reason, change: &dyn Fn(&mut PresentationCode)| {
        let world = with_code(change);
        refused(reason, ask(&world, &world.bank, &none));
    };
    by(Reason::CodeExpired, &|code| code.until_ms = NOW_MS - 1);
    by(Reason::CodeUsed, &|code| code.end = Some(End::Used));
    by(Reason::CodeEnded, &|code| code.end = Some(End::Ended));
    by(Reason::CodeOtherVerifier, &|code| code.verifiers = Verifiers::Kiosk);
    by(Reason::CodeOtherType, &|code| code.license = None);
    refused(Reason::CodeOtherFields, ask(&world, &world.bank, &json!({"fields": ["address"]})));
    let other_type = json!({"typeCode": "11100000MB0341032Y001"});
    assert_eq!(ask(&world, &world.bank, &other_type).expect_err("another").reason, Reason::CodeOtherType);
    let other = json!({"holder": super::holder(&world.other)});
    assert_eq!(ask(&world, &world.bank, &other).expect_err("another").reason, Reason::OtherHolder);
    let of_nobody = with_code(|code| code.holder = PageLabel([77; 16]));
    assert_eq!(ask(&of_nobody, &of_nobody.bank, &none).expect_err("erased").reason, Reason::NoSuchHolder);
    let mut inactive = with_code(|_| {});
    inactive.register(&Participant { suspended: true, ..inactive.portal.clone() });
    assert_eq!(ask(&inactive, &inactive.bank, &none).expect_err("inactive").reason, Reason::PortalInactive);
}

#[test]
fn a_code_is_scanned_by_its_class_alone() {
    let with_role = |world: &World, role| Participant { roles: vec![role], ..world.bank.clone() };
    let organ = |world: &World| Participant {
        organisation: "11100000MB0341032Y".parse().expect("a state organ"),
        ..world.bank.clone()
    };
    for verifiers in Verifiers::ALL {
        let world = with_code(|code| code.verifiers = verifiers);
        let callers = [
            (world.bank.clone(), Verifiers::Any),
            (organ(&world), Verifiers::Government),
            (with_role(&world, Role::Kiosk), Verifiers::Kiosk),
            (with_role(&world, Role::Inspector), Verifiers::Inspector),
        ];
        for (caller, class) in callers {
            let permitted = ask(&world, &caller, &json!({})).is_ok();
            assert_eq!(
                permitted,
                verifiers == Verifiers::Any || verifiers == class,
                "{verifiers:?} {class:?}"
            );
        }
    }
}

#[test]
fn what_a_code_is_minted_and_ended_with_is_checked() {
    let world = with_code(|_| {});
    let mint = |more: &Value| {
        let body =
            json!({"holder": world.holder(), "identifier": world.identifier.to_string(), "verifiers": "any"});
        world.ask::<mint::Mint>(&world.portal, &merged(body, more)).map_err(|refusal| refusal.code)
    };
    assert_eq!(mint(&json!({})), Ok(()));
    assert_eq!(mint(&json!({"fields": ["holderName", "address"], "seconds": 300})), Ok(()));
    assert_eq!(mint(&json!({"fields": ["surprise"]})), Err(Code::BadCode));
    assert_eq!(mint(&json!({"seconds": 301})), Err(Code::BadCode));
    assert_eq!(mint(&json!({"seconds": 4})), Err(Code::BadCode));
    assert_eq!(mint(&json!({"verifiers": "friends"})), Err(Code::BadCode));
    assert_eq!(mint(&json!({"agent": world.holder()})), Err(Code::BadCode));
    assert_eq!(mint(&json!({"identifier": null, "fields": ["holderName"]})), Err(Code::BadCode));
    assert_eq!(mint(&json!({"identifier": null})), Ok(()));
    assert_eq!(mint(&json!({"holder": super::holder(&world.other)})), Err(Code::NotPermitted));
    let end = |world: &World, portal: &Participant, holder: &Value| {
        let body = json!({"code": CODE, "holder": holder, "reason": "测试"}).to_string();
        world.ask::<end::End>(portal, &body).map_err(|refusal| (refusal.code, refusal.reason))
    };
    assert_eq!(end(&world, &world.portal, &world.holder()), Ok(()));
    let another = Participant { organisation: world.bank.organisation, ..world.portal.clone() };
    assert_eq!(end(&world, &another, &world.holder()), Err((Code::NotPermitted, Reason::NoSuchCode)));
    let used = with_code(|code| code.end = Some(End::Used));
    assert_eq!(end(&used, &used.portal, &used.holder()), Err((Code::BadCode, Reason::CodeUsed)));
}

#[test]
fn an_inspector_alone_scans_permits_and_those_of_legal_persons_alone() {
    let mut world = World::new();
    let types = LicenseType::builtin();
    let legal = types.iter().find(|one| !one.is_natural_person()).expect("built in");
    let key = keyed::type_key(&world.table.keyed, &legal.code);
    world.table.documents.insert((DocumentKind::LicenseType.number(), key), document(legal));
    let serial = "PERMIT1".parse().expect("a serial");
    let identifier =
        schemas::identifier::CertificateIdentifier::new(legal.code, world.issuer.organisation, serial, 1);
    let identifier = identifier.expect("good");
    let inspector = Participant { roles: vec![Role::Inspector], ..world.bank.clone() };
    let inspect = |caller: &Participant, identifier: String, fields: &[&str]| {
        let body = json!({"identifier": identifier, "fields": fields, "use": use_context()}).to_string();
        world.ask::<scan::Scan>(caller, &body).map_err(|refusal| refusal.code)
    };
    assert_eq!(inspect(&inspector, identifier.to_string(), &[]), Ok(()));
    assert_eq!(inspect(&world.bank, identifier.to_string(), &[]), Err(Code::WrongRole));
    assert_eq!(inspect(&inspector, world.identifier.to_string(), &[]), Err(Code::NotPermitted));
    assert_eq!(inspect(&inspector, identifier.to_string(), &["holderNumber"]), Err(Code::NotPermitted));
    let both = json!({"identifier": identifier.to_string()});
    assert_eq!(ask(&world, &inspector, &both).expect_err("both").code, Code::MalformedRequest);
}

/// What the limits of the bank say of a scan of the code from an address, and how many counters it raises.
fn limited(world: &World, limits: Vec<Limit>, more: &Value, address: &str) -> Result<usize, Code> {
    let caller = Participant { limits, ..world.bank.clone() };
    let body = scanned(more);
    let asked = world.read::<scan::Scan>(&body);
    let names = scan::Scan::names(&asked, &caller.organisation);
    world
        .with_case(|case: &mut Case<'_>| {
            let address: IpAddr = address.parse().expect("an address");
            admission::admit(case, &caller, Route::CodeScan, &names, address)?;
            admission::counters(case, &caller, Route::CodeScan, &names)
        })
        .map(|counters| counters.len())
        .map_err(|refusal| refusal.code)
}

#[test]
fn limits_admit_what_they_name() {
    let world = with_code(|_| {});
    let line = |facility, type_code: Option<&str>| Limit {
        facility,
        type_code: type_code.map(|code| code.parse().expect("a type")),
        daily: None,
        rate: None,
        fields: None,
        sources: Vec::new(),
    };
    let scan = || line(Facility::Scan, None);
    let (none, here) = (json!({}), "127.0.0.1");
    assert_eq!(limited(&world, Vec::new(), &none, here), Ok(0));
    assert_eq!(limited(&world, vec![scan()], &none, here), Ok(0));
    assert_eq!(limited(&world, vec![line(Facility::Verify, None)], &none, here), Err(Code::UseNotAgreed));
    let other = line(Facility::Scan, Some("11100000MB0341032Y001"));
    assert_eq!(limited(&world, vec![other.clone()], &none, here), Err(Code::UseNotAgreed));
    // The line of the type goes before the one for all, wherever it stands.
    let own = Limit { daily: Some(0), ..line(Facility::Scan, Some(TYPE)) };
    assert_eq!(limited(&world, vec![scan(), own.clone(), other], &none, here), Err(Code::UseNotAgreed));
    let counted = Limit { daily: Some(1), rate: Some(Rate { uses: 1, seconds: 60 }), ..scan() };
    assert_eq!(limited(&world, vec![counted], &none, here), Ok(2));
    let sources = vec!["192.0.2.0/24".parse().expect("a network")];
    let from = Limit { sources, ..scan() };
    assert_eq!(limited(&world, vec![from.clone()], &none, "192.0.2.7"), Ok(0));
    assert_eq!(limited(&world, vec![from], &none, here), Err(Code::SourceNotAgreed));
    let fields = |names: &[&str]| {
        vec![Limit { fields: Some(names.iter().copied().map(str::to_owned).collect()), ..scan() }]
    };
    let asked = json!({"fields": ["holderName"]});
    assert_eq!(limited(&world, fields(&["holderName"]), &asked, here), Ok(0));
    assert_eq!(limited(&world, fields(&[]), &asked, here), Err(Code::FieldsNotAgreed));
    assert_eq!(limited(&world, fields(&[]), &none, here), Ok(0));
}

/// The place of the first fault.
fn pointer(refusal: &Refusal) -> Option<String> {
    let problem: Value = serde_json::from_slice(&refusal.problem(Language::English)).expect("JSON");
    problem["errors"][0]["pointer"].as_str().map(str::to_owned)
}

/// What limits of the bank say of the names of a request.
fn admitted<'r, C: Capability<'r>>(world: &World, limits: Vec<Limit>, body: &'r str) -> Result<(), Refusal> {
    let caller = Participant { limits, ..world.bank.clone() };
    let asked = world.read::<C>(body);
    let names = C::names(&asked, &caller.organisation);
    let here = IpAddr::from([127, 0, 0, 1]);
    world.with_case(|case| admission::admit(case, &caller, C::ROUTE, &names, here))
}

#[test]
fn a_line_of_fields_binds_rows_however_they_are_asked_for() {
    let world = World::new();
    let line = Limit {
        facility: Facility::Records,
        type_code: None,
        daily: None,
        rate: None,
        fields: Some(vec!["status".to_owned()]),
        sources: Vec::new(),
    };
    let place = |body: &Value| {
        let body = body.to_string();
        let answer = if body.contains("limit") {
            admitted::<feed::Feed>(&world, vec![line.clone()], &body)
        } else {
            admitted::<query::Query>(&world, vec![line.clone()], &body)
        };
        answer.map_err(|refusal| (refusal.code, pointer(&refusal)))
    };
    let query = |more: Value| merged(json!({"resource": "1020010001/000001", "use": use_context()}), &more);
    let asked = |more: Value| serde_json::from_str::<Value>(&query(more)).expect("an object");
    let refused = |at: &str| Err((Code::FieldsNotAgreed, Some(at.to_owned())));
    assert_eq!(place(&asked(json!({"key": {"status": "1"}, "fields": ["status"]}))), Ok(()));
    // A key is no field that is asked for: without those a row has all that are approved.
    assert_eq!(place(&asked(json!({"key": {"status": "1"}}))), refused("/fields"));
    assert_eq!(place(&asked(json!({"key": {"name": "1"}, "fields": ["status"]}))), refused("/key/name"));
    assert_eq!(place(&asked(json!({"key": {"status": "1"}, "fields": ["name"]}))), refused("/fields/0"));
    assert_eq!(place(&asked(json!({"limit": 10}))), refused("/resource"));
}

#[test]
fn a_search_says_which_type_a_line_is_of() {
    let world = World::new();
    let line = Limit {
        facility: Facility::Search,
        type_code: Some(TYPE.parse().expect("a type")),
        daily: None,
        rate: None,
        fields: None,
        sources: Vec::new(),
    };
    let search = |more: Value| merged(json!({"holder": world.holder(), "use": use_context()}), &more);
    let all = search(json!({}));
    let refusal = admitted::<search::Search>(&world, vec![line.clone()], &all).expect_err("of all types");
    assert_eq!(refusal.code, Code::UseNotAgreed);
    assert_eq!(pointer(&refusal), Some("/typeCode".to_owned()));
    let one = search(json!({"typeCode": TYPE}));
    assert!(admitted::<search::Search>(&world, vec![line], &one).is_ok());
}

#[test]
fn a_code_ends_with_the_link_that_it_was_made_by() {
    let gone = Above { key: PageLabel([9; 16]), since_ms: 1 };
    let world = with_code(|code| code.chain = vec![gone]);
    let refusal = ask(&world, &world.bank, &json!({})).expect_err("the link is no more");
    assert_eq!((refusal.code, refusal.reason), (Code::NotPermitted, Reason::GrantLinkEnded));
}
