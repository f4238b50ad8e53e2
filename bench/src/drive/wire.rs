//! Finding a whole answer in what a connection has read, without keeping or copying any of it.

use std::io;
use std::ops::Range;

/// Longest head of an answer.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Longest body: a report of ten thousand answers.
const MAX_BODY_BYTES: usize = 16 << 20;
/// Longest length of a part.
const MAX_CHUNK_HEAD_BYTES: usize = 16;
/// What separates head and body.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A whole answer within the bytes that hold it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// HTTP status; of a Redis reply 200 for a value, 404 for none, 500 for an error.
    pub(crate) status: u16,
    /// Where the body lies; it ends the answer. Of one in parts the lengths between them are in it.
    pub(crate) body: Range<usize>,
    /// Bytes of the whole answer.
    pub(crate) bytes: usize,
    /// The server closes the connection behind it.
    pub(crate) closes: bool,
}

/// The HTTP/1.1 answer at the beginning of `bytes`; `None` while it is not complete.
///
/// # Errors
/// What is there is no bounded HTTP/1.1 answer with a length.
pub(crate) fn http1(bytes: &[u8]) -> io::Result<Option<Found>> {
    let Some(head) = memchr::memmem::find(bytes, HEAD_END) else {
        return if bytes.len() > MAX_HEAD_BYTES { Err(invalid("the head is too long")) } else { Ok(None) };
    };
    let mut rest = Some(&bytes[..head]);
    let mut lines = std::iter::from_fn(|| {
        let bytes = rest?;
        let end = memchr::memchr(b'\n', bytes);
        rest = end.map(|end| &bytes[end + 1..]);
        Some(bytes[..end.unwrap_or(bytes.len())].trim_ascii())
    });
    let status = lines.next().and_then(status).ok_or_else(|| invalid("no HTTP/1.1 status line"))?;
    let (mut length, mut closes, mut in_parts) = (None, false, false);
    // The three that matter.
    for line in lines.filter(|line| matches!(line.first(), Some(b'c' | b'C' | b't' | b'T'))) {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            length = number(value);
        } else if name.eq_ignore_ascii_case(b"connection") {
            closes = value.eq_ignore_ascii_case(b"close");
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            in_parts = value.eq_ignore_ascii_case(b"chunked");
        }
    }
    if in_parts {
        return parts(status, head + HEAD_END.len(), closes, bytes);
    }
    let length = match length {
        Some(length) => length,
        None if matches!(status, 204 | 304) => 0,
        None => return Err(invalid("an answer without a length")),
    };
    found(status, head + HEAD_END.len(), length, 0, closes, bytes)
}

/// An answer whose parts begin at `start`, each behind its length in hex, up to an empty one, if it is all there.
fn parts(status: u16, start: usize, closes: bool, bytes: &[u8]) -> io::Result<Option<Found>> {
    let mut at = start;
    loop {
        let Some(rest) = bytes.get(at..) else { return Ok(None) };
        let Some(end) = memchr::memmem::find(&rest[..rest.len().min(MAX_CHUNK_HEAD_BYTES)], b"\r\n") else {
            let long = rest.len() >= MAX_CHUNK_HEAD_BYTES;
            return if long { Err(invalid("no length of a part")) } else { Ok(None) };
        };
        let length =
            std::str::from_utf8(&rest[..end]).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
        let length = length.filter(|length| at - start + length <= MAX_BODY_BYTES);
        let length = length.ok_or_else(|| invalid("no length of a part"))?;
        let next = at + end + 2 + length + 2;
        if length == 0 {
            return Ok((bytes.len() >= next).then_some(Found {
                status,
                body: start..at,
                bytes: next,
                closes,
            }));
        }
        at = next;
    }
}

/// The Redis reply (RESP2) at the beginning of `bytes`; `None` while it is not complete.
///
/// # Errors
/// What is there is no bounded reply of one value.
pub(crate) fn resp(bytes: &[u8]) -> io::Result<Option<Found>> {
    let Some(line) = bytes.windows(2).position(|window| window == b"\r\n") else {
        return if bytes.len() > MAX_HEAD_BYTES { Err(invalid("the line is too long")) } else { Ok(None) };
    };
    let (Some(kind), rest) = (bytes.first(), &bytes[1..line.max(1)]) else { return Ok(None) };
    let simple = |status| Ok(Some(Found { status, body: 1..line, bytes: line + 2, closes: false }));
    match kind {
        b'+' | b':' => simple(200),
        b'-' => simple(500),
        b'$' if rest == b"-1" => simple(404),
        b'$' => {
            let length = number(rest).ok_or_else(|| invalid("no length of a Redis value"))?;
            found(200, line + 2, length, 2, false, bytes)
        }
        _ => Err(invalid("no Redis reply of one value")),
    }
}

/// An answer whose body of a known length begins at `start` and is followed by `tail` bytes, if it is all there.
fn found(
    status: u16,
    start: usize,
    length: usize,
    tail: usize,
    closes: bool,
    bytes: &[u8],
) -> io::Result<Option<Found>> {
    if length > MAX_BODY_BYTES {
        return Err(invalid("the answer is too long"));
    }
    let end = start + length;
    Ok((bytes.len() >= end + tail).then(|| Found { status, body: start..end, bytes: end + tail, closes }))
}

fn status(line: &[u8]) -> Option<u16> {
    let digits = line.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    u16::try_from(number(digits)?).ok().filter(|status| *status >= 200)
}

fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 10 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |number, digit| number * 10 + usize::from(digit - b'0')))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_when_it_is_whole() {
        let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
        for end in 0..answer.len() {
            assert_eq!(http1(&answer[..end]).unwrap(), None, "{end}");
        }
        let found = http1(answer).unwrap().unwrap();
        assert_eq!(
            (found.status, &answer[found.body], found.bytes, found.closes),
            (200, &b"hello"[..], answer.len(), true)
        );
        let parts = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\na\r\n0123456789\r\n0\r\n\r\n";
        for end in 0..parts.len() {
            assert_eq!(http1(&parts[..end]).unwrap(), None, "{end}");
        }
        let found = http1(parts).unwrap().unwrap();
        assert_eq!(
            (&parts[found.body], found.bytes),
            (&b"5\r\nhello\r\na\r\n0123456789\r\n"[..], parts.len())
        );
        let empty = b"HTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(http1(empty).unwrap().unwrap().body, empty.len()..empty.len());
    }

    #[test]
    fn what_is_no_bounded_answer_is_refused() {
        for bytes in [
            &b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 2x0 OK\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffff\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n00000000000000000",
            b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n",
            &[b'a'; MAX_HEAD_BYTES + 1],
        ] {
            assert!(http1(bytes).is_err(), "{}", String::from_utf8_lossy(&bytes[..20.min(bytes.len())]));
        }
    }

    #[test]
    fn redis_replies_are_found_when_they_are_whole() {
        let value = b"$5\r\nhello\r\n";
        for end in 0..value.len() {
            assert_eq!(resp(&value[..end]).unwrap(), None, "{end}");
        }
        let found = resp(value).unwrap().unwrap();
        assert_eq!((found.status, &value[found.body], found.bytes), (200, &b"hello"[..], value.len()));
        let status = |bytes: &[u8]| resp(bytes).unwrap().unwrap().status;
        assert_eq!((status(b"+OK\r\n"), status(b"$-1\r\n"), status(b"-ERR no\r\n")), (200, 404, 500));
        assert!(resp(b"*1\r\n").is_err() && resp(b"$x\r\n").is_err() && resp(b"\r\n").is_err());
        assert!(resp(&[b'$'; MAX_HEAD_BYTES + 1]).is_err());
    }
}
