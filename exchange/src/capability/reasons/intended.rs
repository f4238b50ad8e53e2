//! The same for lists of intended uses, for who stands for whom, and for questions (AuthZEN): what each asks is decided over a table.

use ledger::{DocumentKind, Key};
use schemas::codes::{Code, Reason};
use schemas::dictionary::IntendedUse;
use serde_json::{Value, json};

use super::{ID, TYPE, World, document, merged, use_context};
use crate::capability::evaluation::Evaluation;
use crate::capability::licenses::retrieve::Retrieve;
use crate::capability::verify::{MISMATCHES_A_DAY, Verify};
use crate::participant::Participant;
use crate::rights::acting;
use crate::rights::floor::GRANT_REVOKED;
use crate::rights::mode::Mode;
use crate::sharing::dictionary::{Imported, Intended, beyond_key, intended_key};
use crate::wire::refusal::Refusal;

/// A world whose bank has a list with one line: the verification and two fields of a license of the type, for item 1. And the bank.
fn world() -> (World, Participant) {
    let mut world = World::new();
    let bank = Participant { intended_use: true, ..world.bank.clone() };
    world.register(&bank);
    let use_ = IntendedUse {
        organisation: bank.organisation,
        item: "1".into(),
        type_code: TYPE.parse().expect("a type"),
        materials: Vec::new(),
        modes: vec!["fields".into()],
        fields: vec!["holderName".into(), "sex".into()],
        cancelled: false,
    };
    line(&mut world, use_);
    (world.with_grant(|grant| (grant.modes, grant.fields) = (Mode::Copy.bit(), u64::MAX)), bank)
}

fn line(world: &mut World, use_: IntendedUse) {
    let key = intended_key(&world.table.keyed, &use_.organisation, &use_.item, &use_.type_code);
    let by = world.operator.organisation;
    let line = Imported { entry: Intended { use_ }, source: "用证清单".to_owned(), at_ms: 0, by };
    world.table.documents.insert((DocumentKind::IntendedUse.number(), key), document(&line));
}

fn fields(world: &World, fields: &[&str], more: &Value) -> String {
    let body = json!({"grant": hex::encode(ID), "mode": "fields", "fields": fields});
    world.used(&serde_json::from_str(&merged(body, more)).expect("JSON"))
}

pub(super) fn reasons(refused: &mut impl FnMut(Reason, Result<(), Refusal>)) {
    let (world, bank) = world();
    assert!(world.ask::<Retrieve>(&bank, &fields(&world, &["sex"], &json!({}))).is_ok());
    let more = fields(&world, &["sex", "address"], &json!({}));
    refused(Reason::IntendedLess, world.ask::<Retrieve>(&bank, &more));
    let mut item = use_context();
    item["itemCode"] = "2".into();
    let other = fields(&world, &["sex"], &json!({"use": item}));
    refused(Reason::NoIntendedUse, world.ask::<Retrieve>(&bank, &other));
    let acts = |world: &World, caller: &Participant| {
        world.with_case(|case| acting::for_organisation(case, caller, &world.approval.organisation))
    };
    refused(Reason::ActingForUnregistered, acts(&world, &bank));
    let mut stands = World::new();
    let agent = Participant { acts_for: vec![stands.approval.organisation], ..stands.bank.clone() };
    assert!(acts(&stands, &agent).is_ok());
    stands.register(&Participant { suspended: true, ..stands.approval.clone() });
    refused(Reason::ActingForInactive, acts(&stands, &agent));
    let question = |subject: Value| question(&world, &subject, "verify");
    let own = question(json!({"type": "organisation", "id": world.bank.organisation}));
    assert!(world.ask::<Evaluation>(&world.bank, &own).is_ok());
    let foreign = question(json!({"type": "organisation", "id": world.approval.organisation}));
    refused(Reason::OtherSubject, world.ask::<Evaluation>(&world.bank, &foreign));
}

fn question(world: &World, subject: &Value, action: &str) -> String {
    json!({
        "subject": subject, "action": {"name": action}, "resource": {"type": "license", "id": world.identifier.to_string()},
        "context": {"grant": hex::encode(ID), "use": use_context()},
    })
    .to_string()
}

#[test]
fn a_use_is_compared_with_its_line_part_by_part() {
    let (mut world, bank) = world();
    let pointer = |refusal: &Refusal| {
        let problem: Value = serde_json::from_slice(&refusal.problem(Default::default())).expect("JSON");
        problem["errors"][0].clone()
    };
    let retrieve =
        |world: &World, body: &str| world.ask::<Retrieve>(&bank, body).expect_err("more than the line");
    let more = retrieve(&world, &fields(&world, &["sex", "address"], &json!({})));
    assert_eq!(more.code, Code::BeyondIntendedUse);
    assert_eq!(
        pointer(&more),
        json!({"pointer": "/fields", "rule": "not-allowed", "position": 2, "allowed": ["holderName", "sex"]})
    );
    let face = world.used(&json!({"grant": hex::encode(ID), "mode": "face"}));
    assert_eq!(pointer(&retrieve(&world, &face))["pointer"], json!("/mode"));
    let mut item = use_context();
    item["itemCode"] = "2".into();
    let other = retrieve(&world, &fields(&world, &["sex"], &json!({"use": item})));
    assert_eq!(pointer(&other)["pointer"], json!("/use/itemCode"));
    // The refusal is the same where there is no such license and no such grant.
    let gone = World { identifier: world.identifier.with_version(2).expect("good"), ..self::world().0 };
    let nothing = retrieve(&gone, &fields(&gone, &["sex", "address"], &json!({"grant": "00".repeat(16)})));
    assert_eq!(pointer(&nothing), pointer(&more));
    // Each is counted, under the organisation and under the line.
    let keys: Vec<Key> = more.counts().iter().map(|count| count.key).collect();
    let type_code = TYPE.parse().expect("a type");
    let of_line = beyond_key(&world.table.keyed, &bank.organisation, Some(("1", &type_code)));
    assert_eq!(keys, [beyond_key(&world.table.keyed, &bank.organisation, None), of_line]);
    // A verification expects fields of the line, and no others.
    let expect = |name: &str| world.used(&json!({"grant": hex::encode(ID), "expect": {name: "女"}}));
    assert!(world.ask::<Verify>(&bank, &expect("sex")).is_ok());
    let refusal = world.ask::<Verify>(&bank, &expect("address")).expect_err("not of the line");
    assert_eq!(pointer(&refusal)["pointer"], json!("/expect"));
    // A line that shows the whole face allows each field; one that is cancelled allows nothing.
    let mut use_ = IntendedUse {
        organisation: bank.organisation,
        item: "1".into(),
        type_code,
        materials: Vec::new(),
        modes: vec!["face".into()],
        fields: Vec::new(),
        cancelled: false,
    };
    line(&mut world, use_.clone());
    for body in [&face, &fields(&world, &["sex", "address"], &json!({}))] {
        assert!(world.ask::<Retrieve>(&bank, body).is_ok());
    }
    use_.cancelled = true;
    line(&mut world, use_);
    assert_eq!(retrieve(&world, &face).reason, Reason::NoIntendedUse);
    // Who has no list is bound by none.
    assert!(world.ask::<Retrieve>(&world.bank, &face).is_ok());
    // The list of whom somebody stands for binds, too.
    let mut acting = use_context();
    acting["actingFor"] = json!(bank.organisation);
    let face = world.used(&json!({"mode": "face", "use": acting}));
    let issuer = Participant { acts_for: vec![bank.organisation], ..world.issuer.clone() };
    assert_eq!(world.ask::<Retrieve>(&issuer, &face).expect_err("bound").code, Code::BeyondIntendedUse);
}

#[test]
fn a_question_uses_nothing_of_a_grant_and_is_not_asked_forever() {
    let mut world = World::new();
    let subject = json!({"type": "user", "id": "测试"});
    let ask = |world: &World| world.counters::<Evaluation>(&world.bank, &question(world, &subject, "verify"));
    assert_eq!(ask(&world).expect("a yes"), []);
    // It looks whether there is something left.
    world.table.counters.insert(([4; 16], 0), 2);
    let spent = ask(&world).expect_err("used up");
    assert_eq!((spent.code, spent.reason), (Code::NotPermitted, Reason::GrantUsedUp));
    world.table.counters.clear();
    let mut world = world.with_grant(|grant| grant.state = GRANT_REVOKED);
    let refusal = ask(&world).expect_err("revoked");
    let [guess] = refusal.counts() else { unreachable!("one guess is counted") };
    assert_eq!((guess.amount, guess.limit), (1, MISMATCHES_A_DAY));
    world.table.counters.insert((guess.key, guess.day), MISMATCHES_A_DAY);
    let refusal = ask(&world).expect_err("guessed too often");
    assert_eq!((refusal.code, refusal.counts()), (Code::TooManyMismatches, &[][..]));
    let world = world.with_grant(|grant| grant.state = crate::rights::floor::GRANT_ACTIVE);
    assert_eq!(ask(&world).expect_err("until tomorrow").code, Code::TooManyMismatches);
}
