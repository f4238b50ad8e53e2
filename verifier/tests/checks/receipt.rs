use crate::fixture::*;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use verifier::{
    Hash,
    checkpoint::Checkpoint,
    leaf::{ActingFor, Open, Party, Stage},
    merkle::{BatchTree, consistency_from},
    note::WitnessKey,
    policy::Policy,
    proof::TlogProof,
    receipt::{Evidence, Receipt, attach, verify, verify_against, verify_with},
    report::{Reason, Report, Verdict},
    sha256,
    trust::{Trust, encode_text},
};

fn check(receipt: &Receipt) -> Report {
    verify(receipt, Some(REQUEST), Some(ANSWER), &trust(), NOW)
}

#[track_caller]
fn assert_report(report: &Report, verdict: Verdict, reasons: &[Reason]) {
    let codes: Vec<_> = reasons.iter().map(|reason| reason.code()).collect();
    assert_eq!((report.verdict, crate::fixture::codes(report)), (verdict, codes), "{report:?}");
}

/// A receipt for a changed `open`, with leaf and proof that fit.
fn receipt_for(change: impl FnOnce(&mut Open)) -> Receipt {
    let mut open = open();
    change(&mut open);
    let receipt = receipt_of(open.encode(), INDEX);
    let proof = proof_of(&receipt).to_text();
    Receipt { proof: Some(proof), ..receipt }
}

fn with_proof(change: impl FnOnce(&mut TlogProof)) -> Receipt {
    let receipt = good_receipt();
    let mut proof = proof_of(&receipt);
    change(&mut proof);
    Receipt { proof: Some(proof.to_text()), ..receipt }
}

#[test]
fn a_good_receipt_ties_request_answer_leaf_and_checkpoint() {
    let report = check(&good_receipt());
    assert_report(&report, Verdict::Valid, &[]);
    assert_eq!(report.checked, ["leaf", "request", "answer", "checkpoint", "inclusion"]);
    assert!(report.not_checked.is_empty());
    let facts = report.receipt.unwrap();
    assert_eq!((facts.index, facts.checkpoint_size), (INDEX, Some(SIZE)));
    assert_eq!((&*facts.route, &*facts.decision, &*facts.code), ("verify", "permit", "ok"));
    assert_eq!(facts.organisation, "11100000MB0341032Y");
}

#[test]
fn what_is_absent_is_listed_as_not_checked() {
    let report = verify(&good_receipt(), None, None, &trust(), NOW);
    assert_report(&report, Verdict::Valid, &[]);
    assert_eq!(report.not_checked, ["request", "answer"]);
}

#[test]
fn the_answer_may_carry_its_receipt() {
    let receipt = good_receipt();
    let bare = Receipt { proof: None, ..receipt.clone() };
    for attached in [&receipt, &bare] {
        let answer = attach(ANSWER, attached);
        let report = verify(&receipt, Some(REQUEST), Some(&answer), &trust(), NOW);
        assert_report(&report, Verdict::Valid, &[]);
    }
    // The answer of the same bytes but with the receipt of another entry is another answer.
    let other = receipt_for(|open| open.time_ms += 1);
    let report = verify(&receipt, Some(REQUEST), Some(&attach(ANSWER, &other)), &trust(), NOW);
    assert_report(&report, Verdict::Invalid, &[Reason::AnswerMismatch]);
}

#[test]
fn the_receipt_of_another_request_or_answer_is_invalid() {
    let receipt = good_receipt();
    let report = verify(&receipt, Some(b"{}"), Some(ANSWER), &trust(), NOW);
    assert_report(&report, Verdict::Invalid, &[Reason::RequestMismatch]);
    // White space is bytes.
    let report = verify(&receipt, Some(REQUEST), Some(b"{\"verdict\": \"valid\"}"), &trust(), NOW);
    assert_report(&report, Verdict::Invalid, &[Reason::AnswerMismatch]);
    let answer = attach(ANSWER, &receipt);
    for at in 0..answer.len() {
        let mut changed = answer.clone();
        changed[at] ^= 1;
        let report = verify(&receipt, None, Some(&changed), &trust(), NOW);
        // Only the proof inside the attached receipt may differ from the receipt that is checked.
        let json = String::from_utf8_lossy(&answer[..at]);
        if !json.contains(r#""proof":""#) {
            assert_eq!(report.verdict, Verdict::Invalid, "byte {at}");
        }
    }
}

#[test]
fn without_the_request_salt_nobody_can_try_which_request_it_was() {
    let receipt = Receipt { request_salt: None, ..good_receipt() };
    assert_report(&check(&receipt), Verdict::Unknown, &[Reason::RequestNotRecorded]);
    // All else is checked as before, also beside the answer with the whole receipt.
    for answer in [ANSWER.to_vec(), attach(ANSWER, &good_receipt()), attach(ANSWER, &receipt)] {
        for receipt in [&receipt, &good_receipt()] {
            let report = verify(receipt, None, Some(&answer), &trust(), NOW);
            assert_report(&report, Verdict::Valid, &[]);
        }
    }
    let other = Receipt { request_salt: Some([9; 32]), ..good_receipt() };
    assert_report(&check(&other), Verdict::Invalid, &[Reason::RequestMismatch]);
    // What stands in the log does not confirm a guess by itself.
    assert_ne!(open().request_digest, sha256(&[REQUEST]));
}

#[test]
fn a_request_that_was_not_read_cannot_be_told() {
    let receipt = receipt_for(|open| open.request_digest = [0; 32]);
    assert_report(&check(&receipt), Verdict::Unknown, &[Reason::RequestNotRecorded]);
    let report = verify(&receipt, None, Some(ANSWER), &trust(), NOW);
    assert_report(&report, Verdict::Valid, &[]);
}

#[test]
fn a_receipt_without_proof_cannot_be_told_until_one_is_fetched() {
    let receipt = Receipt { proof: None, ..good_receipt() };
    assert_report(&check(&receipt), Verdict::Unknown, &[Reason::NoProof]);
    let proof = proof_of(&receipt);
    let with =
        |proof: &TlogProof| verify_against(&receipt, Some(proof), Some(REQUEST), Some(ANSWER), &trust(), NOW);
    assert_report(&with(&proof), Verdict::Valid, &[]);
    assert_report(&with(&TlogProof { extra: None, ..proof.clone() }), Verdict::Valid, &[]);
    let other = proof_of(&receipt_for(|open| open.time_ms += 1));
    assert_report(&with(&other), Verdict::Invalid, &[Reason::ProofMismatch]);
    // Without the extra line the path itself tells.
    assert_report(&with(&TlogProof { extra: None, ..other }), Verdict::Invalid, &[Reason::NotIncluded]);
}

#[test]
fn an_open_part_that_cannot_be_read_is_refused() {
    let mut receipt = good_receipt();
    receipt.open.push(0);
    assert_report(&check(&receipt), Verdict::Invalid, &[Reason::MalformedOpen]);
}

#[test]
fn every_changed_part_of_a_receipt_is_noticed() {
    let good = good_receipt();
    for at in 0..good.open.len() {
        let mut receipt = good.clone();
        receipt.open[at] ^= 1;
        assert_eq!(check(&receipt).verdict, Verdict::Invalid, "byte {at} of open");
    }
    let leaf = |change: fn(&mut Receipt)| {
        let mut receipt = good.clone();
        change(&mut receipt);
        let report = verify(&receipt, None, None, &trust(), NOW);
        assert_eq!(report.verdict, Verdict::Invalid);
        assert_eq!(report.reasons[0].reason, Reason::LeafMismatch);
    };
    leaf(|receipt| receipt.salt[0] ^= 1);
    leaf(|receipt| receipt.c[0] ^= 1);
    leaf(|receipt| receipt.leaf_hash[0] ^= 1);
}

#[test]
fn the_index_is_that_of_the_open_part() {
    let mut receipt = good_receipt();
    receipt.index = 6;
    let report = check(&receipt);
    assert_report(&report, Verdict::Invalid, &[Reason::IndexMismatch, Reason::ProofMismatch]);
}

#[test]
fn a_log_that_the_bundle_does_not_know_cannot_be_told() {
    let mut bundle = bundle();
    bundle.logs.clear();
    let report = verify(&good_receipt(), None, None, &Trust::new(bundle).unwrap(), NOW);
    assert_report(&report, Verdict::Unknown, &[Reason::UnknownLog]);
}

#[test]
fn proofs_that_prove_nothing_are_refused() {
    let broken = Receipt { proof: Some("no proof".to_owned()), ..good_receipt() };
    assert_report(&check(&broken), Verdict::Invalid, &[Reason::MalformedProof]);
    let index = with_proof(|proof| proof.index = 4);
    assert_report(&check(&index), Verdict::Invalid, &[Reason::ProofMismatch]);
    let extra = with_proof(|proof| proof.extra = Some(vec![1]));
    assert_report(&check(&extra), Verdict::Invalid, &[Reason::ProofMismatch]);
    let node = with_proof(|proof| proof.path[1][0] ^= 1);
    assert_report(&check(&node), Verdict::Invalid, &[Reason::NotIncluded]);
    let short = with_proof(|proof| proof.path.truncate(2));
    assert_report(&check(&short), Verdict::Invalid, &[Reason::NotIncluded]);
}

#[test]
fn checkpoints_that_the_log_did_not_sign_are_refused() {
    let checkpoint = Checkpoint { origin: LOG.to_owned(), size: SIZE, root: [0; 32] };
    let other_log = Checkpoint { origin: "log.example/2".to_owned(), ..checkpoint.clone() };
    for note in [
        // Another key under the log's name, another log, the log's key under another origin, no note.
        sign_note(4, LOG, &checkpoint.text()),
        sign_note(4, "log.example/2", &other_log.text()),
        sign_note(3, LOG, &other_log.text()),
        sign_note(3, LOG, "not a checkpoint\n"),
        checkpoint.text(),
        proof_of(&good_receipt()).checkpoint.replace("\n9\n", "\n8\n"),
    ] {
        let receipt = with_proof(|proof| proof.checkpoint = note);
        assert_report(&check(&receipt), Verdict::Invalid, &[Reason::BadCheckpoint]);
    }
}

#[test]
fn past_the_end_of_the_trust_bundle_nothing_can_be_told() {
    let mut bundle = bundle();
    bundle.expires = NOW;
    let report = verify(&good_receipt(), None, None, &Trust::new(bundle).unwrap(), NOW);
    assert_report(&report, Verdict::Unknown, &[Reason::TrustExpired]);
}

/// A policy over witnesses 21 and 22 with this quorum line, and perhaps a line before.
fn policy(first: &str, quorum: &str) -> Policy {
    let (a, b) = (witness(21), witness(22));
    let text = format!("{first}witness a {a}\nwitness b {b}\ngroup both all a b\nquorum {quorum}\n");
    Policy::parse(text.as_bytes()).unwrap()
}

fn cosigned(seeds: &[u8]) -> Receipt {
    with_proof(|proof| {
        for seed in seeds {
            proof.checkpoint = cosign(&proof.checkpoint, *seed);
        }
    })
}

fn under(receipt: &Receipt, policy: &Policy) -> Report {
    let evidence = Evidence { policy: Some(policy), ..Evidence::default() };
    verify_with(receipt, &evidence, Some(REQUEST), Some(ANSWER), &trust(), NOW)
}

#[test]
fn a_policy_asks_for_witnesses() {
    let both = policy("", "both");
    let report = under(&cosigned(&[22, 21]), &both);
    assert_report(&report, Verdict::Valid, &[]);
    assert_eq!(report.checked.last(), Some(&"witnesses"));
    let counts = |report: &Report| {
        let witnesses = report.receipt.as_ref().unwrap().witnesses;
        witnesses.map(|witnesses| (witnesses.cosigned, witnesses.of))
    };
    assert_eq!(counts(&report), Some((2, 2)));
    // One twice, a stranger, nobody.
    for (seeds, count) in [(&[21, 21][..], 1), (&[21, 23], 1), (&[23], 0), (&[], 0)] {
        let report = under(&cosigned(seeds), &both);
        assert_report(&report, Verdict::Unknown, &[Reason::WitnessesShort]);
        assert_eq!(counts(&report), Some((count, 2)), "{seeds:?}");
    }
    assert_report(&under(&cosigned(&[21]), &policy("", "a")), Verdict::Valid, &[]);
    assert_report(&under(&cosigned(&[]), &policy("", "none")), Verdict::Valid, &[]);
    // Without a policy those of the bundle are counted and none is asked for.
    assert_eq!(counts(&check(&cosigned(&[21]))), None);
    let mut bundle = bundle();
    bundle.witnesses = vec![witness(21).into(), witness(22).into()];
    let report = verify(&cosigned(&[21]), None, None, &Trust::new(bundle.clone()).unwrap(), NOW);
    assert_report(&report, Verdict::Valid, &[]);
    assert_eq!(counts(&report), Some((1, 2)));
    bundle.witnesses.push(witness(21).into());
    assert!(Trust::new(bundle).is_err());
}

/// A verifier key and a signature line of type 0x06 (C2SP tlog-cosignature), with a value of this length.
fn ml_dsa(seed: u8, name: &str, value: usize) -> (String, String) {
    let typed = [&[6][..], &[seed; 1312]].concat();
    let hash = sha256(&[name.as_bytes(), b"\n", &typed]);
    let line = [&hash[..4], &vec![0; value]].concat();
    (
        format!("{name}+{}+{}", hex::encode(&hash[..4]), STANDARD.encode(typed)),
        format!("— {name} {}\n", STANDARD.encode(line)),
    )
}

/// A cosignature that this verifier cannot check is named, and counts for nobody.
#[test]
fn a_cosignature_of_ml_dsa_is_read_and_counts_for_nothing() {
    const NAME: &str = "pq.example";
    let (key, line) = ml_dsa(9, NAME, 8 + 2420);
    let with = |line: &str| with_proof(|proof| proof.checkpoint = cosign(&proof.checkpoint, 21) + line);
    let rules = |quorum: &str| {
        let known = witness(21);
        let text = format!("witness a {known}\nwitness q {key}\ngroup any 1 a q\nquorum {quorum}\n");
        Policy::parse(text.as_bytes()).unwrap()
    };
    let named = |report: &Report| report.not_checked.contains(&"ml-dsa-cosignatures");
    let report = under(&with(&line), &rules("q"));
    assert_report(&report, Verdict::Unknown, &[Reason::WitnessesShort]);
    assert!(named(&report));
    let report = under(&with(&line), &rules("any"));
    assert_report(&report, Verdict::Valid, &[]);
    assert!(named(&report) && report.receipt.as_ref().unwrap().witnesses.unwrap().cosigned == 1);
    assert!(!named(&under(&with(""), &rules("any"))), "no line, nothing unchecked");
    // A line of its key has a time and a signature of the type's length, or the note is bad.
    for length in [8 + 2419, 8 + 2421, 1] {
        let report = under(&with(&ml_dsa(9, NAME, length).1), &rules("any"));
        assert_report(&report, Verdict::Invalid, &[Reason::BadCosignature]);
    }
    // The bundle takes such keys, as a witness's or as a mirror's, each once.
    let mut bundle = bundle();
    bundle.witnesses = vec![witness(21).into(), key.parse().unwrap()];
    let report = verify(&with(&line), None, None, &Trust::new(bundle.clone()).unwrap(), NOW);
    assert_report(&report, Verdict::Valid, &[]);
    assert!(named(&report));
    bundle.mirrors = vec![ml_dsa(10, NAME, 0).0.parse().unwrap()];
    let text = sign_note(1, "trust.example", &encode_text(&bundle));
    assert_eq!(Trust::parse_note(&text, None, 0).unwrap().bundle(), &bundle);
    bundle.mirrors = vec![key.parse().unwrap()];
    assert!(Trust::new(bundle).is_err());
    for wrong in
        [key.replace("pq.example", "other.example"), ml_dsa(9, NAME, 0).1, key[..key.len() - 8].to_owned()]
    {
        assert!(wrong.parse::<WitnessKey>().is_err());
    }
}

/// The receipt of an outcome proves which intent it closes.
#[test]
fn an_outcome_names_an_intent_before_it() {
    let with = |stage| {
        let acting_for =
            ActingFor::new(vec![Party::Person([4; 16]), Party::Organisation(*b"11100000MB0341032Y")]);
        receipt_of(Open { stage, acting_for, ..open() }.encode(), INDEX)
    };
    let facts = |receipt: &Receipt| check(receipt).receipt.unwrap();
    let unproven = [Reason::NoProof];
    let outcome = with(Stage::Outcome { intent: INDEX - 1 });
    assert_report(&check(&outcome), Verdict::Unknown, &unproven);
    let said = facts(&outcome);
    assert_eq!((said.is_intent, said.intent), (false, Some(INDEX - 1)));
    assert_eq!(said.acting_for, ["04".repeat(16), "11100000MB0341032Y".to_owned()]);
    let said = facts(&with(Stage::Intent));
    assert_eq!((said.is_intent, said.intent), (true, None));
    // Another intent, or another principal, is another leaf.
    let other = Receipt { open: with(Stage::Outcome { intent: 0 }).open, ..outcome.clone() };
    assert_report(&check(&other), Verdict::Invalid, &[Reason::LeafMismatch, Reason::NoProof]);
    for intent in [INDEX, INDEX + 1, u64::MAX] {
        let report = check(&with(Stage::Outcome { intent }));
        assert_report(&report, Verdict::Invalid, &[Reason::IndexMismatch, Reason::NoProof]);
    }
}

#[test]
fn a_policy_says_which_logs_it_takes() {
    let key = note_key(3, LOG).1;
    let report = under(&cosigned(&[21]), &policy(&format!("log {key}\n"), "a"));
    assert_report(&report, Verdict::Valid, &[]);
    let other = note_key(4, LOG).1;
    let report = under(&cosigned(&[21]), &policy(&format!("log {other}\n"), "a"));
    assert_report(&report, Verdict::Unknown, &[Reason::LogNotInPolicy]);
}

#[test]
fn a_known_witnesss_line_that_fails_is_refused() {
    let forged = with_proof(|proof| {
        let good = cosign(&proof.checkpoint, 21);
        // The line of another checkpoint of the log.
        let other = cosign(&good.replace("\n9\n", "\n8\n"), 22);
        proof.checkpoint = format!("{good}{}", other.lines().last().unwrap()) + "\n";
    });
    assert_report(&under(&forged, &policy("", "a")), Verdict::Invalid, &[Reason::BadCosignature]);
}

/// The checkpoint of the first `size` leaves of the good receipt's log, and the path from there to `SIZE`.
fn earlier(size: u64) -> (String, Vec<Hash>) {
    let leaves = leaves_with(&good_receipt());
    let root = BatchTree::new(leaves[..size as usize].to_vec()).root();
    let checkpoint = Checkpoint { origin: LOG.to_owned(), size, root };
    let node = |level: u8, index: u64| {
        let width = 1usize << level;
        let start = index as usize * width;
        Ok::<_, ()>(BatchTree::new(leaves[start..start + width].to_vec()).root())
    };
    (sign_note(3, LOG, &checkpoint.text()), consistency_from(size, SIZE, node).unwrap())
}

fn after(previous: &str, consistency: Option<&[Hash]>) -> Report {
    let evidence = Evidence { previous: Some(previous), consistency, ..Evidence::default() };
    verify_with(&good_receipt(), &evidence, Some(REQUEST), Some(ANSWER), &trust(), NOW)
}

#[test]
fn an_earlier_checkpoint_must_have_grown_into_this_one() {
    for size in 0..=SIZE {
        let (previous, path) = earlier(size);
        let report = after(&previous, Some(&path));
        assert_report(&report, Verdict::Valid, &[]);
        assert_eq!(report.checked.last(), Some(&"previous"));
        let without = after(&previous, None);
        if size == 0 || size == SIZE {
            assert_report(&without, Verdict::Valid, &[]);
        } else {
            assert_report(&without, Verdict::Unknown, &[Reason::NoConsistencyProof]);
            let mut changed = path.clone();
            changed[0][0] ^= 1;
            let report = after(&previous, Some(&changed));
            assert_report(&report, Verdict::Invalid, &[Reason::Inconsistent]);
        }
    }
}

#[test]
fn two_trees_of_one_size_are_a_split_view() {
    let of = |size, root| sign_note(3, LOG, &Checkpoint { origin: LOG.to_owned(), size, root }.text());
    assert_report(&after(&of(SIZE, [1; 32]), None), Verdict::Invalid, &[Reason::SplitView]);
    let (_, path) = earlier(4);
    assert_report(&after(&of(4, [1; 32]), Some(&path)), Verdict::Invalid, &[Reason::Inconsistent]);
    assert_report(&after(&of(0, [1; 32]), None), Verdict::Invalid, &[Reason::Inconsistent]);
    // A later one is no different from an earlier one.
    assert_report(&after(&of(SIZE + 1, [1; 32]), None), Verdict::Unknown, &[Reason::NoConsistencyProof]);
    assert_report(&after(&of(SIZE + 1, [1; 32]), Some(&[])), Verdict::Invalid, &[Reason::Inconsistent]);
}

#[test]
fn what_the_log_did_not_sign_says_nothing_about_it() {
    let (previous, path) = earlier(4);
    let stranger = sign_note(4, LOG, previous.rsplit_once("\n\n").unwrap().0);
    for bad in ["", "nonsense", &previous.replace("\n4\n", "\n3\n"), &stranger] {
        assert_report(&after(bad, Some(&path)), Verdict::Unknown, &[Reason::BadPrevious]);
    }
}
