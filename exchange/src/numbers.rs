//! Every stable number beside the file that keeps them, `schemas/numbers.txt`. They stand in entries, receipts and
//! signatures for years, so a number means one thing for good.
//!
//! `cargo xtask bless` adds a new number to the file, and marks one that is gone. It never changes one or uses it
//! again. A test alone has this file.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use ledger::DocumentKind;
use schemas::codes::{Code, Decision, Reason, Rule};
use schemas::kinds::Scenario;
use schemas::routes::Route;
use schemas::state::{LicenseState, Operation};
use verifier::leaf::LeafKind;
use verifier::note::{TYPE_COSIGNATURE, TYPE_ED25519};
use verifier::signature::Suite;

use crate::rights::floor::{GRANT_ACTIVE, GRANT_PAUSED, GRANT_REVOKED};
use crate::rights::mode::Mode;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/numbers.txt");
const HEAD: &str = "# Stable numbers: what they number, the number, what it stands for.\n\
    # A number never changes and is never used again. `cargo xtask bless` adds new ones, and marks those that are gone.\n";
/// Behind a number that the code has no more.
const RETIRED: &str = " (retired)";

/// Each number of each list, with the name of its meaning.
type Numbers = BTreeMap<(String, u16), String>;

/// The numbers of the code.
fn present() -> Numbers {
    let mut all = Numbers::new();
    let mut add = |list: &str, number: u16, text: &str| {
        let before = all.insert((list.to_owned(), number), text.to_owned());
        assert_eq!(before, None, "{list} {number} stands for two things");
    };
    for route in Route::ALL {
        let path = route.path().unwrap_or("-");
        add("route", route.number().into(), &format!("{} {path}", route.name()));
    }
    Code::ALL.iter().for_each(|code| add("code", code.number(), code.name()));
    Reason::ALL.iter().for_each(|reason| add("reason", reason.number(), reason.name()));
    Rule::ALL.iter().for_each(|rule| add("rule", rule.number().into(), rule.name()));
    Decision::ALL.iter().for_each(|decision| add("decision", decision.number().into(), decision.name()));
    LicenseState::ALL.iter().for_each(|state| add("license-state", state.number().into(), state.name()));
    Operation::ALL.iter().for_each(|one| add("operation", one.number().into(), one.name()));
    Mode::ALL.iter().for_each(|mode| add("mode", mode.bit().into(), mode.name()));
    add("grant-state", GRANT_ACTIVE.into(), "active");
    add("grant-state", GRANT_PAUSED.into(), "paused");
    add("grant-state", GRANT_REVOKED.into(), "revoked");
    Scenario::ALL.iter().for_each(|one| add("scenario", one.number().into(), one.name()));
    DocumentKind::ALL.iter().for_each(|kind| add("document", kind.number().into(), &kebab(kind)));
    for number in 0..=u8::MAX {
        if let Some(kind) = LeafKind::from_number(number) {
            add("leaf", number.into(), &kebab(&kind));
        }
        if let Some(suite) = Suite::from_number(number) {
            add("suite", number.into(), suite.name());
        }
    }
    add("note-signature", TYPE_ED25519.into(), "ed25519");
    add("note-signature", TYPE_COSIGNATURE.into(), "cosignature");
    all
}

/// `ShardOpen` as `shard-open`.
fn kebab(name: &impl std::fmt::Debug) -> String {
    let mut text = String::new();
    for character in format!("{name:?}").chars() {
        if character.is_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.push(character.to_ascii_lowercase());
    }
    text
}

/// The file as it is to be: the kept one with the numbers of the code. An error names the number that changed.
fn merged(kept: &str, present: &Numbers) -> Result<String, String> {
    let mut all = present.clone();
    for line in kept.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.splitn(3, ' ');
        let (Some(list), Some(number), Some(text)) = (words.next(), words.next(), words.next()) else {
            return Err(format!("no number: {line}"));
        };
        let number = number.parse().map_err(|_| format!("no number: {line}"))?;
        let text = text.trim_end_matches(RETIRED);
        match all.get(&(list.to_owned(), number)) {
            Some(now) if now == text => {}
            Some(now) => {
                return Err(format!("{list} {number} stands for {text}, and for nothing else: {now}"));
            }
            None => {
                all.insert((list.to_owned(), number), format!("{text}{RETIRED}"));
            }
        }
    }
    let mut names = BTreeSet::new();
    let mut file = HEAD.to_owned();
    for ((list, number), text) in &all {
        if !names.insert((list, text.trim_end_matches(RETIRED))) {
            return Err(format!("{list}: {text} has two numbers, and {number} is one of them"));
        }
        let _ = writeln!(file, "{list} {number} {text}");
    }
    Ok(file)
}

#[test]
fn numbers_are_those_of_the_file() {
    let kept = std::fs::read_to_string(FILE).unwrap_or_default();
    let merged = merged(&kept, &present()).unwrap_or_else(|wrong| panic!("schemas/numbers.txt: {wrong}"));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(FILE, &merged).unwrap();
    } else {
        assert_eq!(kept, merged, "numbers are new or gone: run `cargo xtask bless`");
    }
}

#[test]
fn a_number_is_added_and_retired_and_never_used_again() {
    let numbers = |list: &[(u16, &str)]| -> Numbers {
        list.iter().map(|(number, text)| (("code".to_owned(), *number), (*text).to_owned())).collect()
    };
    let lines = |text: &str| format!("{HEAD}{text}");
    let kept = merged("", &numbers(&[(1, "one"), (2, "two")])).unwrap();
    assert_eq!(kept, lines("code 1 one\ncode 2 two\n"));
    // Added.
    let more = merged(&kept, &numbers(&[(1, "one"), (2, "two"), (3, "three")])).unwrap();
    assert_eq!(more, lines("code 1 one\ncode 2 two\ncode 3 three\n"));
    // Gone: it stays in the file.
    let fewer = merged(&more, &numbers(&[(1, "one"), (3, "three")])).unwrap();
    assert_eq!(fewer, lines("code 1 one\ncode 2 two (retired)\ncode 3 three\n"));
    assert_eq!(merged(&fewer, &numbers(&[(1, "one"), (3, "three")])).unwrap(), fewer);
    // Changed, used again, or under a second number.
    for wrong in [
        &[(1, "other"), (3, "three")][..],
        &[(1, "one"), (2, "second"), (3, "three")],
        &[(1, "one"), (3, "three"), (4, "two")],
        &[(1, "three"), (3, "one")],
    ] {
        assert!(merged(&fewer, &numbers(wrong)).is_err(), "{wrong:?}");
    }
    assert!(merged("code one\n", &numbers(&[])).is_err());
}
