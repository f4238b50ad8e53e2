//! The table of routes and the contract say the same of every route: roles, forms, status.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::collections::BTreeSet;

use schemas::roles::Role;
use schemas::routes::{Form, Roles, Route};
use serde_json::{Value, json};

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn the_table_and_the_contract_agree() {
    let contract: Value = serde_json::from_str(schemas::OPENAPI).unwrap();
    for route in Route::ALL {
        let row = route.contract();
        let Some(path) = row.path else { continue };
        let operation = &contract["paths"][path]["post"];
        let forms: BTreeSet<&str> = row.forms.iter().map(|form| form.media_type()).collect();
        assert_eq!(keys(&operation["requestBody"]["content"]), forms, "{path}: forms");
        assert!(forms.contains(Form::Json.media_type()), "{path}: every route speaks JSON");
        let success =
            operation["responses"].as_object().unwrap().keys().find(|status| status.starts_with('2'));
        assert_eq!(success.map(String::as_str), Some(&*row.success_status.to_string()), "{path}: status");
        let said: BTreeSet<&str> = operation["x-roles"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|role| role.as_str().unwrap())
            .collect();
        let names = |roles: &[Role]| -> BTreeSet<String> {
            roles.iter().map(|role| json!(role).as_str().unwrap().to_owned()).collect()
        };
        match row.roles {
            // A right says who may ask, so the contract may name fewer.
            Roles::All => {
                assert!(names(&Role::ALL).is_superset(&said.iter().map(|&role| role.to_owned()).collect()))
            }
            Roles::Of(roles) => {
                let said: BTreeSet<String> = said.into_iter().map(str::to_owned).collect();
                assert_eq!(said, names(roles), "{path}: roles");
            }
        }
    }
}
