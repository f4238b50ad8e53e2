//! Requests that are written once and given new values each time they are sent.

use schemas::machine::MEDIA_TYPE;
use schemas::routes::{Form, Route};
use serde_json::Value;

const JSON: &str = "application/json";

/// Letters that stand for a value until it is known, with the value's length; they occur nowhere else in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A number that no other request of the run has: 16 digits.
    Case,
    /// A license's identifier.
    Identifier,
    /// A grant: 32 hex digits.
    Grant,
    /// A holder's type code: 3 digits.
    HolderType,
    /// A holder's number: 18 characters.
    HolderNumber,
    /// The serial of a license to be issued: 20 characters.
    Serial,
}

impl Place {
    const ALL: [Self; 6] =
        [Self::Case, Self::Identifier, Self::Grant, Self::HolderType, Self::HolderNumber, Self::Serial];

    /// What is written in place of the value; as long as the value.
    pub fn letters(self) -> String {
        let (letter, length) = match self {
            Self::Case => ('\u{1}', 16),
            Self::Identifier => ('\u{2}', crate::population::IDENTIFIER_BYTES),
            Self::Grant => ('\u{3}', 32),
            Self::HolderType => ('\u{4}', 3),
            Self::HolderNumber => ('\u{5}', 18),
            Self::Serial => ('\u{6}', crate::population::SERIAL_BYTES),
        };
        // Control characters are escaped in JSON, so that nothing a request holds can look like these.
        std::iter::repeat_n(letter, length).collect()
    }
}

/// Bytes of a request with places for values.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: Vec<u8>,
    head_bytes: usize,
    media_type: &'static str,
    /// What stands where, with its length.
    places: Vec<(Place, usize, usize)>,
}

impl Template {
    /// A JSON body; the letters of places in its texts become places.
    pub fn body(value: &Value) -> Self {
        let mut text = value.to_string();
        for place in Place::ALL {
            let letters = place.letters();
            // As JSON writes control characters.
            let escaped: String =
                letters.chars().map(|letter| format!("\\u{:04x}", u32::from(letter))).collect();
            text = text.replace(&escaped, &letters);
        }
        Self::text(text)
    }

    /// A body as it is; the letters of places in it become places.
    pub fn text(text: String) -> Self {
        Self::found(text.into_bytes(), 0, JSON)
    }

    /// The same JSON value so many times, a line each, with places of its own in each.
    pub fn lines(value: &Value, count: usize) -> Self {
        let Self { bytes, .. } = Self::body(value);
        Self::found(vec![bytes; count].join(&b'\n'), 0, Form::Lines.media_type())
    }

    /// A body in lines, each like one of these values in turn.
    pub fn in_turn(values: &[Value], count: usize) -> Self {
        let lines: Vec<Vec<u8>> = values.iter().map(|value| Self::body(value).bytes).collect();
        let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).cycle().take(count).collect();
        Self::found(lines.join(&b'\n'), 0, Form::Lines.media_type())
    }

    /// A body in the form for machine peers; the letters of places in it become places.
    pub fn machine(body: Vec<u8>) -> Self {
        Self::found(body, 0, MEDIA_TYPE)
    }

    /// The same as a POST to a route.
    #[must_use]
    pub fn post(&self, route: Route, host: &str, headers: &[(&str, &str)]) -> Self {
        let mut head = format!(
            "POST {} HTTP/1.1\r\nhost: {host}\r\ncontent-type: {}\r\ncontent-length: {}\r\n",
            route.path().unwrap_or_default(),
            self.media_type,
            self.bytes.len()
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let head_bytes = head.len();
        Self::found([head.as_bytes(), &self.bytes].concat(), head_bytes, self.media_type)
    }

    fn found(bytes: Vec<u8>, head_bytes: usize, media_type: &'static str) -> Self {
        let mut places = Vec::new();
        for place in Place::ALL {
            let letters = place.letters();
            let mut from = 0;
            let next = |from: usize| {
                bytes[from..].windows(letters.len()).position(|window| window == letters.as_bytes())
            };
            while let Some(at) = next(from) {
                places.push((place, from + at, letters.len()));
                from += at + letters.len();
            }
        }
        Self { bytes, head_bytes, media_type, places }
    }

    /// Length of the head.
    pub fn head_bytes(&self) -> usize {
        self.head_bytes
    }

    /// Length of the body.
    pub fn body_bytes(&self) -> usize {
        self.bytes.len() - self.head_bytes
    }

    /// Appends the request; `value` writes into each place.
    pub fn write(&self, to: &mut Vec<u8>, mut value: impl FnMut(Place, &mut [u8])) {
        let start = to.len();
        to.extend_from_slice(&self.bytes);
        for (place, at, length) in &self.places {
            value(*place, &mut to[start + at..start + at + length]);
        }
    }
}

/// Writes a number with leading zeros; its last digits if there is no room for more.
pub fn digits(number: u64, into: &mut [u8]) {
    let mut rest = number;
    for digit in into.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// Writes bytes in hex, as far as there is room.
pub fn hex(bytes: &[u8], into: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(into.chunks_exact_mut(2)) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_come_into_their_places_in_head_and_body() {
        let body = json!({"a": Place::Case.letters(), "b": [Place::Grant.letters(), Place::Case.letters()], "c": "x\u{1}"});
        let key = format!("bench-{}", Place::Case.letters());
        let template = Template::body(&body).post(Route::Verify, "h:1", &[("idempotency-key", &key)]);
        let mut request = b"before".to_vec();
        template.write(&mut request, |place, into| match place {
            Place::Case => digits(9_876_543_210, into),
            _ => hex(&[0xab; 16], into),
        });
        let text = String::from_utf8(request).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(
            head,
            format!(
                "beforePOST /v1/verify HTTP/1.1\r\nhost: h:1\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\nidempotency-key: bench-0000009876543210",
                body.len()
            )
        );
        assert_eq!(template.body_bytes(), body.len());
        let number = "0000009876543210";
        let grant = "ab".repeat(16);
        // A lone control character of a value stays what it was.
        assert_eq!(
            body,
            format!("{{\"a\":\"{number}\",\"b\":[\"{grant}\",\"{number}\"],\"c\":\"x\\u0001\"}}")
        );
    }

    #[test]
    fn numbers_and_hex_fill_their_room() {
        let mut room = [0; 4];
        digits(12_345, &mut room);
        assert_eq!(&room, b"2345");
        hex(&[0x0f, 0xa0], &mut room);
        assert_eq!(&room, b"0fa0");
    }
}
