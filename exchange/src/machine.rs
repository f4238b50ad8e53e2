//! Answers in FlatBuffers, for machine peers (`schemas/fbs/machine.fbs`); requests in this form are read in
//! [`crate::request`].

use flatbuffers::{ErrorTraceDetail, FlatBufferBuilder, InvalidFlatbuffer};
use schemas::codes::Rule;
use schemas::machine as fb;

use crate::effect::RetrieveAnswer;
use crate::json::USUAL_DOCUMENT_BYTES;
use crate::refusal::Fault;

/// The form of a request and of the answer to it, as the request's content type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `application/json`, of every route.
    Json,
    /// `application/vnd.miaoxiang+flatbuffers`, of the routes verify and retrieve.
    Machine,
}

impl Form {
    /// The media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Machine => fb::MEDIA_TYPE,
        }
    }
}

/// What is wrong with a buffer, where that has a place in it: a table that is not there, or text that is none.
pub(crate) fn fault(error: &InvalidFlatbuffer) -> Option<Fault> {
    let (rule, last, trace) = match error {
        InvalidFlatbuffer::MissingRequiredField { required, error_trace } => {
            (Rule::Required, Some(required), error_trace)
        }
        InvalidFlatbuffer::Utf8Error { error_trace, .. } => (Rule::Text, None, error_trace),
        _ => return None,
    };
    // The innermost comes first; `use` has another name in Rust.
    let steps = trace.as_ref().iter().rev().filter_map(|step| match step {
        ErrorTraceDetail::TableField { field_name, .. } => Some(field_name.trim_end_matches('_').to_owned()),
        ErrorTraceDetail::VectorElement { index, .. } => Some(index.to_string()),
        ErrorTraceDetail::UnionVariant { .. } => None,
    });
    let steps = steps.chain(last.map(|last| last.trim_end_matches('_').to_owned()));
    let fault = Fault::at(steps.map(|step| format!("/{step}")).collect::<String>(), rule);
    Some(if rule == Rule::Text { fault.form("UTF-8") } else { fault })
}

/// The answer's body of a verification.
pub(crate) fn verify_answer(
    verdict: &str,
    state: Option<&str>,
    reasons: &[&'static str],
    matches: Option<bool>,
    as_of: &str,
    same_number: Option<u32>,
    folded: &[String],
) -> Vec<u8> {
    let mut fbb = FlatBufferBuilder::with_capacity(USUAL_DOCUMENT_BYTES);
    let reasons: Vec<_> = reasons.iter().map(|reason| fbb.create_string(reason)).collect();
    let folded: Vec<_> = folded.iter().map(|pointer| fbb.create_string(pointer)).collect();
    let args = fb::VerifyAnswerArgs {
        verdict: Some(fbb.create_string(verdict)),
        state: state.map(|state| fbb.create_string(state)),
        reasons: Some(fbb.create_vector(&reasons)),
        matches,
        as_of: Some(fbb.create_string(as_of)),
        same_number,
        folded: (!folded.is_empty()).then(|| fbb.create_vector(&folded)),
    };
    let answer = fb::VerifyAnswer::create(&mut fbb, &args);
    fbb.finish(answer, None);
    fbb.finished_data().to_vec()
}

/// The answer's body of a retrieval.
pub(crate) fn retrieve_answer(answer: &RetrieveAnswer<'_>) -> Vec<u8> {
    let usual = USUAL_DOCUMENT_BYTES + answer.envelope.as_ref().map_or(0, Vec::len);
    let mut fbb = FlatBufferBuilder::with_capacity(usual);
    let fields = answer.fields.as_ref().map(|fields| {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| {
                let (name, value) = (Some(fbb.create_string(name)), Some(fbb.create_string(value)));
                fb::Field::create(&mut fbb, &fb::FieldArgs { name, value })
            })
            .collect();
        fbb.create_vector(&fields)
    });
    let annotation = answer.annotation.as_ref().map(|annotation| {
        let args = fb::AnnotationArgs {
            creator: Some(fbb.create_string(annotation.creator)),
            creator_name: Some(fbb.create_string(annotation.creator_name)),
            cause: Some(fbb.create_string(annotation.cause)),
            item_name: Some(fbb.create_string(annotation.item_name)),
            business_code: Some(fbb.create_string(annotation.business_code)),
            created_at: Some(fbb.create_string(&annotation.created_at)),
            expires_at: annotation.expires_at.as_ref().map(|at| fbb.create_string(at)),
            watermark: Some(fbb.create_string(&annotation.watermark)),
        };
        fb::Annotation::create(&mut fbb, &args)
    });
    let args = fb::RetrieveAnswerArgs {
        identifier: Some(fbb.create_string(&answer.identifier)),
        mode: Some(fbb.create_string(answer.mode)),
        state: Some(fbb.create_string(answer.state)),
        in_force: answer.in_force,
        fields,
        envelope: answer.envelope.as_ref().map(|envelope| fbb.create_vector(envelope)),
        annotation,
        as_of: Some(fbb.create_string(&answer.as_of)),
        same_number: answer.same_number,
    };
    let answer = fb::RetrieveAnswer::create(&mut fbb, &args);
    fbb.finish(answer, None);
    fbb.finished_data().to_vec()
}
