//! What a grant may say, decided over a table: fields of use that a type allows, and how a use is counted.
//!
//! Tests alone have this file. Nothing is written.

use ledger::DocumentKind;
use ledger::record::CounterUse;
use schemas::codes::Code;
use schemas::kinds::Scenario;
use serde_json::{Value, json};

use super::{ID, NOW_MS, TYPE, World, document};
use crate::capability::grants::create::Create;
use crate::capability::verify::Verify;
use crate::keyed;

fn terms(world: &World, more: &Value) -> String {
    let mut terms = json!({"holder": world.holder(), "grantee": world.bank.organisation, "typeCode": TYPE,
        "modes": ["verify"], "until": schemas::date::rfc3339(NOW_MS + 1_000)});
    for (name, value) in more.as_object().expect("an object") {
        terms[name] = value.clone();
    }
    terms.to_string()
}

#[test]
fn a_scenario_is_one_of_the_list_and_of_the_types_own() {
    let mut world = World::new();
    let ask = |world: &World, scenario: &str| {
        world.ask::<Create>(&world.portal, &terms(world, &json!({"scenario": scenario})))
    };
    for scenario in Scenario::ALL {
        assert!(ask(&world, scenario.name()).is_ok(), "{scenario:?}");
    }
    assert_eq!(ask(&world, "space-travel").expect_err("no such").code, Code::BadGrant);
    world.license_type.scenarios = vec![Scenario::Finance];
    let key = keyed::type_key(&world.table.keyed, &world.license_type.code);
    world.table.documents.insert((DocumentKind::LicenseType.number(), key), document(&world.license_type));
    assert!(ask(&world, "finance").is_ok());
    assert_eq!(ask(&world, "tax").expect_err("not the type's").code, Code::BadGrant);
}

#[test]
fn a_case_counts_once_and_each_case_of_its_own() {
    let mut world = World::new();
    let used = |case: &str| {
        let mut used = super::use_context();
        used["businessCode"] = json!(case);
        used
    };
    let ask = |world: &World, case: &str| {
        let body = world.used(&json!({"grant": hex::encode(ID), "use": used(case)}));
        world.counters::<Verify>(&world.bank, &body)
    };
    let first = ask(&world, "CS1").expect("permitted");
    let [CounterUse { limit: 2, amount: 1, .. }, CounterUse { key: in_case, limit: 1, amount: 1, .. }] =
        first[..]
    else {
        unreachable!("the grant's counter, and the case's: {first:?}")
    };
    let other = ask(&world, "CS2").expect("permitted");
    assert!(other.iter().all(|counter| counter.key != in_case));
    world.table.counters.insert((in_case, 0), 1);
    world.table.counters.insert(([4; 16], 0), 2);
    assert_eq!(ask(&world, "CS1").expect("its case goes on"), []);
    assert!(ask(&world, "CS2").is_err(), "used up");
}
