//! Requests and answers in the form for machine peers (`schemas/fbs/machine.fbs`): the same as in JSON, in FlatBuffers.

use flatbuffers::{FlatBufferBuilder, WIPOffset};
use schemas::machine as wire;
use verifier::receipt;

use crate::population::use_context;
use crate::template::{Place, Template};

/// A verify request by identifier, with a holder's grant or without.
pub fn verify(with_grant: bool) -> Template {
    let mut fbb = FlatBufferBuilder::new();
    let license = Some(license(&mut fbb));
    let grant = with_grant.then(|| fbb.create_string(&Place::Grant.letters()));
    let use_ = Some(context(&mut fbb));
    let args = wire::VerifyRequestArgs { license, grant, use_, ..Default::default() };
    let root = wire::VerifyRequest::create(&mut fbb, &args);
    fbb.finish(root, None);
    Template::machine(fbb.finished_data().to_vec())
}

/// A request for the whole envelope of a license with its holder's grant.
pub fn retrieve() -> Template {
    let mut fbb = FlatBufferBuilder::new();
    let license = Some(license(&mut fbb));
    let mode = Some(fbb.create_string("envelope"));
    let grant = Some(fbb.create_string(&Place::Grant.letters()));
    let use_ = Some(context(&mut fbb));
    let args = wire::RetrieveRequestArgs { license, mode, grant, use_, ..Default::default() };
    let root = wire::RetrieveRequest::create(&mut fbb, &args);
    fbb.finish(root, None);
    Template::machine(fbb.finished_data().to_vec())
}

fn license<'a>(fbb: &mut FlatBufferBuilder<'a>) -> WIPOffset<wire::LicenseName<'a>> {
    let identifier = Some(fbb.create_string(&Place::Identifier.letters()));
    wire::LicenseName::create(fbb, &wire::LicenseNameArgs { identifier, ..Default::default() })
}

fn context<'a>(fbb: &mut FlatBufferBuilder<'a>) -> WIPOffset<wire::UseContext<'a>> {
    let value = use_context();
    let mut text = |name: &str| value[name].as_str().map(|text| fbb.create_string(text));
    let args = wire::UseContextArgs {
        user_name: text("userName"),
        item_code: text("itemCode"),
        item_name: text("itemName"),
        business_code: text("businessCode"),
        cause: text("cause"),
        stage: text("stage"),
        ..Default::default()
    };
    wire::UseContext::create(fbb, &args)
}

/// Whether an answer finds a license valid and has a receipt.
pub fn is_valid(answer: &[u8]) -> bool {
    let Ok((body, _)) = receipt::cut(answer) else { return false };
    flatbuffers::root::<wire::VerifyAnswer<'_>>(&body).is_ok_and(|answer| answer.verdict() == "valid")
}

/// Whether an answer has the envelope of the license with this identifier, and a receipt.
pub fn is_envelope_of(answer: &[u8], identifier: &[u8]) -> bool {
    let Ok((body, _)) = receipt::cut(answer) else { return false };
    flatbuffers::root::<wire::RetrieveAnswer<'_>>(&body)
        .is_ok_and(|answer| answer.identifier().as_bytes() == identifier && answer.envelope().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use verifier::receipt::Receipt;

    fn answer(verdict: &str) -> Vec<u8> {
        let mut fbb = FlatBufferBuilder::new();
        let args = wire::VerifyAnswerArgs {
            verdict: Some(fbb.create_string(verdict)),
            reasons: Some(fbb.create_vector::<WIPOffset<&str>>(&[])),
            as_of: Some(fbb.create_string("2026-01-05T00:00:00Z")),
            ..Default::default()
        };
        let root = wire::VerifyAnswer::create(&mut fbb, &args);
        fbb.finish(root, None);
        let receipt = Receipt {
            log: "bench/1".to_owned(),
            index: 1,
            leaf_hash: [1; 32],
            open: vec![2],
            salt: [3; 32],
            c: [4; 32],
            request_salt: None,
            proof: None,
        };
        verifier::machine::attach(fbb.finished_data(), &receipt)
    }

    #[test]
    fn only_a_valid_verdict_with_a_receipt_is_right() {
        assert!(is_valid(&answer("valid")));
        assert!(!is_valid(&answer("invalid")) && !is_valid(b"") && !is_valid(br#"{"verdict":"valid"}"#));
        assert!(!is_envelope_of(&answer("valid"), b"1.2.156"), "another table");
    }
}
