//! Answers in the form for machine peers (section 4): the same receipt beside the answer's own buffer, in FlatBuffers.
//!
//! Pure functions; nothing to lose.

use crate::receipt::{CutError, Receipt};
use flatbuffers::FlatBufferBuilder;
use schemas::machine as wire;

/// Bytes that the buffers around an answer's body seldom exceed.
const USUAL_BYTES: usize = 768;
/// Where the file identifier stands: behind the root's offset.
const IDENTIFIER_OFFSET: usize = 4;

/// Whether these bytes say of themselves that they are an answer of this form.
pub fn is_answer(bytes: &[u8]) -> bool {
    bytes.get(IDENTIFIER_OFFSET..).is_some_and(|rest| rest.starts_with(wire::ANSWER_IDENTIFIER.as_bytes()))
}

/// Puts an answer's body and its receipt together. The body's bytes stay as they are, so that [`cut`] gives them back.
pub fn attach(body: &[u8], receipt: &Receipt) -> Vec<u8> {
    let mut fbb = FlatBufferBuilder::with_capacity(body.len().saturating_add(USUAL_BYTES));
    let proof = receipt.proof.as_ref().map(|proof| fbb.create_string(proof));
    let open = Some(fbb.create_vector(&receipt.open));
    let log = Some(fbb.create_string(&receipt.log));
    let [leaf_hash, salt, c] = [receipt.leaf_hash, receipt.salt, receipt.c].map(wire::Hash32);
    let request_salt = receipt.request_salt.map(wire::Hash32);
    let args = wire::ReceiptArgs {
        log,
        index: receipt.index,
        leaf_hash: Some(&leaf_hash),
        open,
        salt: Some(&salt),
        c: Some(&c),
        request_salt: request_salt.as_ref(),
        proof,
    };
    let receipt = Some(wire::Receipt::create(&mut fbb, &args));
    let body = Some(fbb.create_vector(body));
    let root = wire::Answer::create(&mut fbb, &wire::AnswerArgs { body, receipt });
    wire::finish_answer_buffer(&mut fbb, root);
    fbb.finished_data().to_vec()
}

/// Takes an answer apart: the bytes that the entry's answer digest covers, and the receipt.
///
/// # Errors
/// [`CutError::Malformed`]
pub fn cut(answer: &[u8]) -> Result<(Vec<u8>, Receipt), CutError> {
    let read = wire::root_as_answer(answer).map_err(|_| CutError::Malformed)?;
    let receipt = read.receipt();
    let hash = |hash: &wire::Hash32| hash.0;
    Ok((
        read.body().bytes().to_vec(),
        Receipt {
            log: receipt.log().to_owned(),
            index: receipt.index(),
            leaf_hash: hash(receipt.leaf_hash()),
            open: receipt.open().bytes().to_vec(),
            salt: hash(receipt.salt()),
            c: hash(receipt.c()),
            request_salt: receipt.request_salt().map(hash),
            proof: receipt.proof().map(str::to_owned),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_attached_is_cut_out_again_and_nothing_else_is() {
        let receipt = Receipt {
            log: "log.example/1".to_owned(),
            index: u64::MAX,
            leaf_hash: [1; 32],
            open: vec![2; 3],
            salt: [3; 32],
            c: [4; 32],
            request_salt: Some([5; 32]),
            proof: Some("line\n".to_owned()),
        };
        let bare = Receipt { request_salt: None, proof: None, ..receipt.clone() };
        for receipt in [receipt, bare] {
            for body in [&b""[..], b"body", &[7; 3000]] {
                let answer = attach(body, &receipt);
                assert!(is_answer(&answer));
                assert_eq!(cut(&answer), Ok((body.to_vec(), receipt.clone())));
                for length in 0..answer.len().min(120) {
                    assert!(cut(&answer[..length]).is_err());
                }
            }
        }
        assert!(!is_answer(br#"{"MXA1":1}"#) && !is_answer(b"MXA1") && !is_answer(b""));
    }
}
