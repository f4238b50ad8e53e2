//! Writes the JSON of documents that every use pays for: the verdict, and what the holders are told.
//!
//! serde's writer looks at each character of each text for what must be escaped. Nearly no text has any of it, so here
//! the bytes are looked at several at once, and serde writes only the text that has some. Base64 has none.
//!
//! Pure functions; nothing to lose.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

/// Answers and what holders are told are seldom longer.
pub(crate) const USUAL_DOCUMENT_BYTES: usize = 512;

/// A JSON object as it is written, member by member. Names stand in the program and need no escaping.
pub(crate) struct Object(Vec<u8>);

impl Object {
    /// An object without members.
    pub(crate) fn new() -> Self {
        Self::for_bytes(&[])
    }

    /// The same, that will have a member of these bytes.
    pub(crate) fn for_bytes(large: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(USUAL_DOCUMENT_BYTES + base64_length(large));
        bytes.push(b'{');
        Self(bytes)
    }

    /// The finished document.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }

    /// A member whose value is text.
    pub(crate) fn text(&mut self, name: &'static str, value: &str) {
        self.name(name);
        quoted(&mut self.0, value);
    }

    /// A member whose value is text, if there is one.
    pub(crate) fn text_if_any(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// A member whose value is bytes in lower-case hexadecimal digits.
    pub(crate) fn hex(&mut self, name: &'static str, value: &[u8]) {
        self.name(name);
        self.0.push(b'"');
        let start = self.0.len();
        self.0.resize(start + 2 * value.len(), 0);
        hex::encode_to_slice(value, &mut self.0[start..]).expect("two digits for each byte");
        self.0.push(b'"');
    }

    /// A member whose value is bytes in base64.
    pub(crate) fn base64(&mut self, name: &'static str, value: &[u8]) {
        self.name(name);
        self.0.push(b'"');
        let start = self.0.len();
        self.0.resize(start + base64_length(value), 0);
        BASE64.encode_slice(value, &mut self.0[start..]).expect("four characters for each three bytes begun");
        self.0.push(b'"');
    }

    /// A member whose value serde writes.
    pub(crate) fn other(&mut self, name: &'static str, value: &impl Serialize) {
        self.name(name);
        serde_json::to_writer(&mut self.0, value)
            .expect("answers have only text, numbers, lists and text maps");
    }

    /// A member whose value is a list of texts.
    pub(crate) fn texts(&mut self, name: &'static str, values: impl IntoIterator<Item = impl AsRef<str>>) {
        self.name(name);
        self.0.push(b'[');
        for (place, value) in values.into_iter().enumerate() {
            if place > 0 {
                self.0.push(b',');
            }
            quoted(&mut self.0, value.as_ref());
        }
        self.0.push(b']');
    }

    /// A member that is true or false.
    pub(crate) fn flag(&mut self, name: &'static str, value: bool) {
        self.name(name);
        self.0.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// A member that is an object.
    pub(crate) fn object(&mut self, name: &'static str, members: impl FnOnce(&mut Self)) {
        self.name(name);
        self.0.push(b'{');
        members(self);
        self.0.push(b'}');
    }

    fn name(&mut self, name: &'static str) {
        // Behind the brace that begins an object stands its first member.
        if self.0.last() != Some(&b'{') {
            self.0.push(b',');
        }
        self.0.push(b'"');
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }
}

fn base64_length(bytes: &[u8]) -> usize {
    bytes.len().div_ceil(3) * 4
}

fn quoted(out: &mut Vec<u8>, text: &str) {
    let escaped = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    if text.bytes().fold(false, |found, byte| found | escaped(byte)) {
        return serde_json::to_writer(out, text).expect("text becomes JSON");
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// A value as JSON.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(USUAL_DOCUMENT_BYTES);
    serde_json::to_writer(&mut bytes, value).expect("answers have only text, numbers, lists and text maps");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_text_is_written_as_serde_writes_it() {
        let all: String =
            (0..=0x2fff).filter_map(char::from_u32).chain("\u{1f600}\u{10ffff}".chars()).collect();
        for text in all.chars().map(String::from).chain([String::new(), all.clone()]) {
            let mut written = Vec::new();
            quoted(&mut written, &text);
            assert_eq!(written, serde_json::to_vec(&text).expect("text"), "{text:?}");
        }
    }

    #[test]
    fn members_stand_in_the_order_in_which_they_were_written() {
        let mut object = Object::new();
        object.texts("none", [""; 0]);
        object.text("ends in a brace", "{");
        object.text_if_any("absent", None);
        object.text_if_any("here", Some("值"));
        object.texts("two", ["a\nb", "c"]);
        object.hex("bytes", &[0, 0x1f, 0xa0, 0xff]);
        object.base64("more bytes", &[0, 0x1f, 0xa0, 0xff]);
        object.base64("no bytes", &[]);
        object.other("map", &std::collections::BTreeMap::from([("\"", 1)]));
        object.object("inner", |inner| inner.flag("first", true));
        object.object("empty", |_| {});
        object.flag("last", false);
        let written = object.end();
        assert_eq!(
            String::from_utf8_lossy(&written),
            r#"{"none":[],"ends in a brace":"{","here":"值","two":["a\nb","c"],"bytes":"001fa0ff","more bytes":"AB+g/w==","no bytes":"","map":{"\"":1},"inner":{"first":true},"empty":{},"last":false}"#
        );
        let value: serde_json::Value = serde_json::from_slice(&written).expect("JSON");
        assert_eq!(value["inner"], json!({ "first": true }));
        assert_eq!(Object::new().end(), b"{}");
    }
}
