//! The form for machine peers, FlatBuffers (`schemas/fbs/machine.fbs`). The routes that speak it read and write its tables
//! beside their JSON.
//!
//! Pure functions; nothing to lose.

use flatbuffers::{ErrorTraceDetail, InvalidFlatbuffer};
use schemas::codes::Rule;

use super::refusal::Fault;

pub use schemas::routes::Form;

/// The fault of a buffer, where it has a place: a table that is not there, or text that is none.
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
