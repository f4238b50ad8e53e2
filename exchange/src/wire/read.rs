//! Step 1 of the request path, the second half: from the bytes of a body to the shape that its route asks for.
//!
//! Everything a caller sends is parsed here once. A body that cannot be parsed becomes a [`Refusal`] with a public
//! code; the text of a refusal never echoes what was sent. Pure functions; nothing to lose.

use flatbuffers::VerifierOptions;
use schemas::codes::{Code, Rule};
use serde::Deserialize;

use super::machine::{self, Form};
use super::refusal::{Fault, Refusal};
use super::shape;
use super::text::MAX_FIELDS;

/// Longest body of a data route, bytes: an issue request with every field at its longest stays below.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// Tables of a machine peer's request: the request, a license, two holders, a use context and the fields.
const MAX_TABLES: usize = 8 + MAX_FIELDS;
/// How deep they lie in each other.
const MAX_DEPTH: usize = 8;

/// A body as received, in its form.
#[derive(Clone, Copy, Debug)]
pub struct Body<'a> {
    /// The form that its content type says.
    pub form: Form,
    /// The bytes, without a byte order mark.
    pub bytes: &'a [u8],
}

/// Parses JSON.
///
/// # Errors
/// [`Code::BadUtf8`]; every fault of the shape.
pub(crate) fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|_| Refusal::new(Code::BadUtf8))?;
    serde_json::from_str(text).map_err(|error| misshapen::<T>(text, &error))
}

/// Why a text that serde refused is not what was asked for: where it is no JSON, or else every fault of its shape. The code
/// tells unknown and doubled members from the others.
#[cold]
fn misshapen<'a, T: Deserialize<'a>>(text: &str, error: &serde_json::Error) -> Refusal {
    let faults = match shape::faults::<T>(text) {
        Ok(faults) => faults,
        Err(error) => return Refusal::new(Code::MalformedRequest).line(error.line(), error.column()),
    };
    let first = faults.first().map(Fault::rule);
    let code = match first {
        Some(Rule::UnknownMember) => Code::UnknownField,
        Some(Rule::DuplicateMember) => Code::DuplicateKey,
        _ => Code::MalformedRequest,
    };
    let refusal = Refusal::all(code, faults);
    // A missing member has no place in the text.
    if first == Some(Rule::Required) { refusal } else { refusal.line(error.line(), error.column()) }
}

/// Reads a table of a machine peer, whose parts may lie in each other only so often.
pub(crate) fn table<'a, T: flatbuffers::Follow<'a> + flatbuffers::Verifiable + 'a>(
    body: &'a [u8],
) -> Result<T::Inner, Refusal> {
    let limits = VerifierOptions {
        max_depth: MAX_DEPTH,
        max_tables: MAX_TABLES,
        max_apparent_size: MAX_BODY_BYTES,
        ..VerifierOptions::default()
    };
    flatbuffers::root_with_opts::<T>(&limits, body)
        .map_err(|error| Refusal::all(Code::MalformedRequest, machine::fault(&error).into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::grants::revoke::Revoke;
    use crate::capability::verify::Verify;
    use crate::capability::{Capability, verify};
    use crate::wire::named::{Named, Subject, UseContext};
    use std::borrow::Cow;

    fn code_of<'r, C: Capability<'r>>(body: &'r str) -> Code {
        match C::read(Body { form: Form::Json, bytes: body.as_bytes() }) {
            Ok(_) => unreachable!("must be refused"),
            Err(refusal) => refusal.code,
        }
    }

    #[test]
    fn unknown_and_doubled_members_have_their_own_codes() {
        assert_eq!(code_of::<Revoke>(r#"{"grantt":"a"}"#), Code::UnknownField);
        assert_eq!(code_of::<Revoke>(r#"{"grant":"a","grant":"b"}"#), Code::DuplicateKey);
        assert_eq!(code_of::<Revoke>(r#"{"grant":"#), Code::MalformedRequest);
        assert_eq!(
            code_of::<Verify>(r#"{"license":{"identifier":"x"},"expect":{"a":"1","a":"2"}}"#),
            Code::DuplicateKey
        );
    }

    #[test]
    fn missing_use_context_is_its_own_code() {
        let body = r#"{"license":{"identifier":"x"},"use":{"userName":"a"}}"#;
        assert_eq!(code_of::<Verify>(body), Code::BadUseContext);
        assert_eq!(code_of::<Verify>(r#"{"license":{"identifier":"x"}}"#), Code::BadUseContext);
    }

    #[test]
    fn text_with_escapes_is_the_text_that_they_stand_for() {
        let identifier = "1.2.156.3005.2.11100000000013338W011.11430000006122244L.20230000403.001.U";
        let escaped = identifier.replace('W', "\\u0057");
        let part = "审\u{e9}";
        let body = format!(
            r#"{{"license":{{"identifier":"{escaped}"}},"use":{{"userName":"{part}","itemCode":"a\"b","itemName":"\u4e8b\\",
            "businessCode":"c","cause":"d","stage":"\u53d7理"}}}}"#
        );
        let verify: verify::Asked<'_> =
            Verify::read(Body { form: Form::Json, bytes: body.as_bytes() }).expect("good");
        let Subject::Named(Named::Identifier { identifier: read, text }) = &verify.subject else {
            unreachable!("an identifier was sent")
        };
        assert_eq!((read.to_string().as_str(), &**text), (identifier, identifier));
        let UseContext { user_name, item_code, item_name, stage, .. } = &verify.context;
        assert_eq!(
            [user_name, item_code, item_name, stage].map(|text| &**text),
            [part, "a\"b", "事\\", "受理"]
        );
        assert!(matches!(user_name, Cow::Borrowed(_)) && matches!(stage, Cow::Owned(_)));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        let body = Body { form: Form::Json, bytes: &[0xff, 0xfe] };
        assert_eq!(Verify::read(body).expect_err("bad").code, Code::BadUtf8);
    }
}
