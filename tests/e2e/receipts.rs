//! Receipts tie one request, one answer and one entry together; anything else is noticed.

use tests::{Entry, Reply, Server, Setup, Turn, draft, natural, now_ms, shared};
use verifier::receipt::{Receipt, attach, cut, verify, verify_against};
use verifier::report::{Reason, Report, Verdict};

/// Two permits and a denial of one caller, with their entries.
struct Answers {
    server: Turn,
    one: (Reply, Entry),
    two: (Reply, Entry),
    denial: (Reply, Entry),
}

async fn answers() -> Answers {
    let server = shared(Setup::new).await;
    let (mut issuer, mut bank) = (server.party("issuer"), server.party("bank"));
    let license = draft(&natural()).issue(&mut issuer).await;
    let other = draft(&natural()).issue(&mut issuer).await;
    let one = server.permitted(&mut bank, &license.verify_envelope()).await;
    let two = server.permitted(&mut bank, &other.verify_envelope()).await;
    let denial = server.refused(&mut bank, &license.verify(None), schemas::codes::Code::NotPermitted).await;
    Answers { server, one, two, denial }
}

fn check(server: &Server, receipt: &Receipt, request: Option<&[u8]>, answer: Option<&[u8]>) -> Report {
    verify(receipt, request, answer, &server.trust, now_ms() / 1_000)
}

#[tokio::test]
async fn the_receipt_of_another_request_or_answer_is_invalid() {
    let Answers { server, one, two, denial } = answers().await;
    let receipt = &one.1.receipt;
    let good = check(&server, receipt, Some(&one.0.request), Some(&one.0.body));
    assert_eq!((good.verdict, good.not_checked.len()), (Verdict::Valid, 0), "{:?}", good.reasons);
    let good = check(&server, receipt, Some(&one.0.request), Some(&one.0.hashed()));
    assert_eq!(good.verdict, Verdict::Valid, "the answer without its receipt is the same answer");

    for (request, answer, reason) in [
        (&two.0.request, &one.0.body, Reason::RequestMismatch),
        (&one.0.request, &two.0.body, Reason::AnswerMismatch),
        (&two.0.request, &two.0.body, Reason::RequestMismatch),
        (&one.0.request, &denial.0.body, Reason::AnswerMismatch),
    ] {
        let report = check(&server, receipt, Some(request), Some(answer));
        assert!(report.verdict == Verdict::Invalid && report.has(reason), "{:?}", report.reasons);
    }
    let changed = String::from_utf8(one.0.hashed()).unwrap().replace("\"valid\"", "\"Valid\"");
    let report = check(&server, receipt, Some(&one.0.request), Some(changed.as_bytes()));
    assert!(report.has(Reason::AnswerMismatch));
    let spaced = [one.0.request.as_ref(), b" "].concat();
    assert!(check(&server, receipt, Some(&spaced), None).has(Reason::RequestMismatch));
}

#[tokio::test]
async fn a_denials_receipt_beside_a_permits_answer_is_invalid() {
    let Answers { server, one, denial, .. } = answers().await;
    let forged = attach(&one.0.hashed(), &denial.1.receipt);
    let (_, receipt) = cut(&forged).unwrap();
    let report = check(&server, &receipt, Some(&denial.0.request), Some(&forged));
    assert!(report.verdict == Verdict::Invalid && report.has(Reason::AnswerMismatch), "{:?}", report.reasons);
    // And the other way round: a permit's receipt under a denial.
    let forged = attach(&denial.0.hashed(), &one.1.receipt);
    let (_, receipt) = cut(&forged).unwrap();
    let report = check(&server, &receipt, Some(&one.0.request), Some(&forged));
    assert!(report.verdict == Verdict::Invalid && report.has(Reason::AnswerMismatch), "{:?}", report.reasons);
    // What the receipt itself says of the decision is bound too.
    assert_eq!(report.receipt.unwrap().decision, "permit");
    let report = check(&server, &denial.1.receipt, None, None);
    assert_eq!(report.receipt.unwrap().code, "not-permitted");
}

#[tokio::test]
async fn no_part_of_a_receipt_can_be_changed() {
    let Answers { server, one, two, .. } = answers().await;
    let (reply, entry) = one;
    let receipt = entry.receipt;
    let refuse = |changed: &Receipt, what: &str| {
        assert_ne!(*changed, receipt, "{what}");
        let report = check(&server, changed, Some(&reply.request), Some(&reply.hashed()));
        assert_eq!(report.verdict, Verdict::Invalid, "{what}: {:?}", report.reasons);
    };
    for place in 0..receipt.open.len() {
        let mut changed = receipt.clone();
        changed.open[place] ^= 1 << (place % 8);
        refuse(&changed, &format!("open, byte {place}"));
    }
    for place in 0..32 {
        for part in ["salt", "C", "leafHash"] {
            let mut changed = receipt.clone();
            match part {
                "salt" => changed.salt[place] ^= 1,
                "C" => changed.c[place] ^= 1,
                _ => changed.leaf_hash[place] ^= 1,
            }
            refuse(&changed, part);
        }
    }
    for index in [receipt.index - 1, receipt.index + 1, 0, u64::MAX] {
        refuse(&Receipt { index, ..receipt.clone() }, "index");
    }
    refuse(
        &Receipt { open: receipt.open[..receipt.open.len() - 1].to_vec(), ..receipt.clone() },
        "a shorter open",
    );
    refuse(&Receipt { proof: two.1.receipt.proof.clone(), ..receipt.clone() }, "another proof");
    refuse(&Receipt { proof: Some("nonsense".to_owned()), ..receipt.clone() }, "no proof at all");
    let proof = receipt.proof.clone().unwrap();
    for (at, _) in proof.char_indices().filter(|(_, c)| c.is_ascii_digit()) {
        let mut text = proof.clone().into_bytes();
        text[at] = if text[at] == b'1' { b'2' } else { b'1' };
        let changed = Receipt { proof: Some(String::from_utf8(text).unwrap()), ..receipt.clone() };
        if changed != receipt {
            refuse(&changed, &format!("proof, byte {at}"));
        }
    }
    let report = check(&server, &Receipt { log: "another.log/1".to_owned(), ..receipt.clone() }, None, None);
    assert!(report.verdict == Verdict::Unknown && report.has(Reason::UnknownLog), "{:?}", report.reasons);
}

#[tokio::test]
async fn what_was_not_checked_is_said() {
    let Answers { server, one, two, .. } = answers().await;
    let (reply, entry) = one;
    let report = check(&server, &entry.receipt, None, None);
    assert_eq!((report.verdict, report.not_checked), (Verdict::Valid, vec!["request", "answer"]));
    let bare = Receipt { proof: None, ..entry.receipt.clone() };
    let report = check(&server, &bare, Some(&reply.request), Some(&reply.body));
    assert!(report.verdict == Verdict::Unknown && report.has(Reason::NoProof));
    // The public log proves it later; the proof of a neighbour does not.
    let at = now_ms() / 1_000;
    let proof = server.proof(bare.index).await;
    let (request, answer) = (Some(&*reply.request), Some(&*reply.body));
    let report = verify_against(&bare, Some(&proof), request, answer, &server.trust, at);
    assert_eq!(report.verdict, Verdict::Valid, "{:?}", report.reasons);
    let proof = server.proof(two.1.receipt.index).await;
    let report = verify_against(&bare, Some(&proof), request, answer, &server.trust, at);
    assert!(report.has(Reason::ProofMismatch), "{:?}", report.reasons);
}

#[tokio::test]
async fn an_unread_body_is_said_not_to_be_recorded() {
    let server = shared(Setup::new).await;
    let call = tests::Call::raw(schemas::routes::Route::Verify, vec![b' '; 300 * 1024]);
    let (reply, entry) =
        server.refused(&mut server.party("bank"), &call, schemas::codes::Code::BodyTooLarge).await;
    let report = check(&server, &entry.receipt, Some(&reply.request), Some(&reply.body));
    assert!(report.verdict == Verdict::Unknown && report.has(Reason::RequestNotRecorded));
}

#[tokio::test]
async fn receipts_stay_good_as_the_log_grows_and_after_a_restart() {
    let mut server = Setup::new().start().await;
    let (mut issuer, mut bank) = (server.party("issuer"), server.party("bank"));
    let license = draft(&natural()).issue(&mut issuer).await;
    let (reply, entry) = server.permitted(&mut bank, &license.verify_envelope()).await;
    for _ in 0..300 {
        bank.send(&license.verify_envelope()).await.expect(200);
    }
    server.kill();
    server.start();
    let report = check(&server, &entry.receipt, Some(&reply.request), Some(&reply.body));
    assert_eq!(report.verdict, Verdict::Valid);
    let bare = Receipt { proof: None, ..entry.receipt };
    let proof = server.proof(bare.index).await;
    let (request, answer) = (Some(&*reply.request), Some(&*reply.body));
    let report = verify_against(&bare, Some(&proof), request, answer, &server.trust, now_ms() / 1_000);
    assert_eq!(report.verdict, Verdict::Valid, "{:?}", report.reasons);
}
