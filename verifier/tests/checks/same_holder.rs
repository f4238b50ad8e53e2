use crate::fixture::*;
use serde_json::{Value, json};
use verifier::{
    leaf::{Labels, Open},
    receipt::{Receipt, request_digest},
    report::{Reason, Report, Verdict},
    same_holder::{Side, verify},
};

const SEARCH: u8 = 3;
const VERIFY: u8 = 5;

fn person(number: &str) -> Value {
    json!({"typeCode": "414", "number": number})
}

/// A permit of a log that may lie: its leaf is in the log, whatever it says.
fn side(route: u8, request: &Value, labels: Labels, change: impl FnOnce(&mut Open)) -> Side {
    let request = serde_json::to_vec(request).unwrap();
    let mut open = Open { route, request_digest: request_digest(&REQUEST_SALT, &request), labels, ..open() };
    change(&mut open);
    let receipt = receipt_of(open.encode(), INDEX);
    let proof = proof_of(&receipt).to_text();
    Side { receipt: Receipt { proof: Some(proof), ..receipt }, request: Some(request) }
}

fn search(number: &str, label: u8) -> Side {
    side(SEARCH, &json!({"holder": person(number)}), Labels::List(vec![[label; 16]]), |_| {})
}

fn by_number(number: &str, labels: &[u8]) -> Side {
    let labels = labels.iter().map(|label| [*label; 16]).collect();
    let license = json!({"typeCode": "x", "certificateNumber": "y", "holder": person(number)});
    side(VERIFY, &json!({"license": license}), Labels::List(labels), |_| {})
}

fn check(one: &Side, two: &Side) -> Report {
    verify(one, two, &trust(), NOW)
}

#[test]
fn two_labels_for_one_holder_are_exposed() {
    let one = search("E00000001", 3);
    for other in [search("E00000001", 3), by_number("e00000001 ", &[3]), by_number("E00000001", &[9, 3])] {
        let report = check(&one, &other);
        assert_eq!((report.verdict, codes(&report)), (Verdict::Valid, vec![]));
        assert!(report.checked.contains(&"label"));
    }
    for other in [search("E00000001", 4), by_number("E00000001", &[4]), by_number("E00000001", &[9, 4])] {
        let report = check(&one, &other);
        assert_eq!((report.verdict, codes(&report)), (Verdict::Invalid, vec![Reason::TwoLabels.code()]));
    }
}

#[test]
fn a_number_that_a_registrar_marked_ties_too() {
    // The check character is wrong.
    let marked = json!({"holder": {"typeCode": "111", "number": "110105194912310021", "asRegistered": true}});
    let side = |label: u8| side(SEARCH, &marked, Labels::List(vec![[label; 16]]), |_| {});
    assert_eq!(check(&side(3), &side(3)).verdict, Verdict::Valid);
    assert_eq!(codes(&check(&side(3), &side(4))), [Reason::TwoLabels.code()]);
}

#[test]
fn what_nothing_ties_together_is_no_accusation() {
    let one = search("E00000001", 3);
    let named = json!({"holder": person("E00000001")});
    let labels = || Labels::List(vec![[4; 16]]);
    let other = search("E00000001", 4);
    for unrelated in [
        search("E00000002", 4),
        // Anybody may name a holder beside a license; only a license named by number has that holder.
        side(VERIFY, &named, labels(), |_| {}),
        side(SEARCH, &json!({"holder": {"typeCode": "414"}}), labels(), |_| {}),
        side(SEARCH, &named, Labels::List(Vec::new()), |_| {}),
        side(SEARCH, &named, Labels::Digest([4; 32]), |_| {}),
        side(SEARCH, &named, labels(), |open| open.decision = 2),
        Side { request: None, ..other.clone() },
    ] {
        for (a, b) in [(&one, &unrelated), (&unrelated, &one)] {
            let report = check(a, b);
            assert_eq!(
                (report.verdict, codes(&report)),
                (Verdict::Unknown, vec![Reason::NothingTies.code()])
            );
        }
    }
    // A receipt that does not hold accuses nobody either.
    let report = check(&one, &Side { request: one.request.clone(), ..search("E00000002", 4) });
    assert_eq!((report.verdict, codes(&report)), (Verdict::Invalid, vec![Reason::RequestMismatch.code()]));
    let mut unproven = other;
    unproven.receipt.proof = None;
    let report = check(&one, &unproven);
    assert_eq!((report.verdict, codes(&report)), (Verdict::Unknown, vec![Reason::NoProof.code()]));
}
