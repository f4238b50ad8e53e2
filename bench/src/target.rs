//! Requests to any service, and the one answer that is right.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use verifier::sha256;

use crate::drive::{Answer, Cause, Request, Ticket, Workload};
use crate::random::{Random, Zipf};
use crate::scenario;

/// Stands for the number in paths and bodies.
const PLACE: &str = "{n}";
/// Longest body of a request or of an expected answer.
const MAX_BODY_BYTES: u64 = 4 << 20;

/// The right answer's body.
#[derive(Clone, Debug)]
pub enum Body {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Bytes with this SHA-256.
    Sha256([u8; 32]),
    /// So many bytes.
    Length(usize),
}

/// Bytes with places for a number.
#[derive(Clone, Debug)]
struct Template {
    /// What stands between the places.
    parts: Vec<Vec<u8>>,
}

impl Template {
    fn new(bytes: &[u8]) -> Self {
        let mut parts = Vec::new();
        let mut rest = bytes;
        while let Some(at) = rest.windows(PLACE.len()).position(|window| window == PLACE.as_bytes()) {
            parts.push(rest[..at].to_vec());
            rest = &rest[at + PLACE.len()..];
        }
        parts.push(rest.to_vec());
        Self { parts }
    }

    fn write(&self, number: u64, to: &mut Vec<u8>) {
        for (at, part) in self.parts.iter().enumerate() {
            if at > 0 {
                // Writing into memory does not fail.
                let _ = write!(to, "{number}");
            }
            to.extend_from_slice(part);
        }
    }

    fn bytes(&self, number: u64) -> usize {
        let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
        self.parts.iter().map(Vec::len).sum::<usize>() + (self.parts.len() - 1) * digits
    }
}

/// The same request for each number of a population, and the same right answer.
#[derive(Clone, Debug)]
pub struct Fixed {
    /// Method, path and headers, up to the value of `content-length`; of a Redis command all of it.
    head: Template,
    /// `None` for what has no head apart from its body.
    body: Option<Template>,
    status: u16,
    expected: Body,
    population: Option<(u64, Zipf)>,
    random: Random,
}

impl Fixed {
    /// An HTTP request; `{n}` in path and body stands for the number.
    pub fn http(
        host: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        status: u16,
        expected: Body,
    ) -> Self {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("content-length: ");
        Self { body: Some(Template::new(body)), ..Self::raw(head.as_bytes(), status, expected) }
    }

    /// Bytes as they are, as of a Redis command; `{n}` stands for the number.
    pub fn raw(bytes: &[u8], status: u16, expected: Body) -> Self {
        Self {
            head: Template::new(bytes),
            body: None,
            status,
            expected,
            population: None,
            random: Random::new(1),
        }
    }

    /// With numbers below `count` whose popularity falls with this exponent; without this every number is 0.
    #[must_use]
    pub fn over(mut self, count: u64, zipf: f64) -> Self {
        self.population = (count > 1).then(|| (count, Zipf::new(count, zipf)));
        self
    }

    /// As a scenario says; `folder` is where its paths begin.
    ///
    /// # Errors
    /// A file cannot be read, or the digest is none.
    pub fn of(target: &scenario::Target, folder: &Path) -> anyhow::Result<Self> {
        let body = match &target.body {
            Some(path) => read(&folder.join(path))?,
            None => Vec::new(),
        };
        let expect = &target.expect;
        let expected = match (&expect.body, &expect.sha256, expect.length) {
            (Some(path), _, _) => Body::Bytes(read(&folder.join(path))?),
            (_, Some(digest), _) => {
                let bytes = hex::decode(digest).ok().and_then(|bytes| bytes.try_into().ok());
                Body::Sha256(bytes.context("expect.sha256: 64 hex digits")?)
            }
            (_, _, length) => Body::Length(length.context("expect: a body")?),
        };
        let headers: Vec<_> =
            target.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let fixed = Self::http(
            &target.address,
            &target.method,
            &target.path,
            &headers,
            &body,
            expect.status,
            expected,
        );
        Ok(fixed.over(target.population, target.zipf))
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let name = || path.display().to_string();
    ensure!(std::fs::metadata(path).with_context(name)?.len() <= MAX_BODY_BYTES, "{}: at most 4 MiB", name());
    std::fs::read(path).with_context(name)
}

impl Workload for Fixed {
    fn kinds(&self) -> usize {
        1
    }

    fn draw(&mut self) -> Ticket {
        let subject = match &self.population {
            Some((count, zipf)) => scattered(zipf.draw(&mut self.random) - 1, *count),
            None => 0,
        };
        Ticket { lane: 0, kind: 0, subject }
    }

    fn write(&mut self, ticket: Ticket, request: &mut Request) {
        self.head.write(ticket.subject, &mut request.bytes);
        if let Some(body) = &self.body {
            let _ = write!(request.bytes, "{}\r\n\r\n", body.bytes(ticket.subject));
            request.head_bytes = request.bytes.len();
            body.write(ticket.subject, &mut request.bytes);
        }
    }

    fn judge(&mut self, _: Ticket, _: &Request, answer: Answer<'_>) -> Result<(), Cause> {
        if answer.status != self.status {
            return Err(answer.status.to_string().into());
        }
        let right = match &self.expected {
            Body::Bytes(bytes) => answer.body == bytes,
            Body::Sha256(digest) => sha256(&[answer.body]) == *digest,
            Body::Length(length) => answer.body.len() == *length,
        };
        if right { Ok(()) } else { Err("body".into()) }
    }
}

/// A place for a rank, so that popular ones do not lie together: a permutation of the numbers below `count`.
pub fn scattered(rank: u64, count: u64) -> u64 {
    // A prime far above any population has no divisor in common with it.
    const STEP: u128 = 2_305_843_009_213_693_951;
    u64::try_from(u128::from(rank) * STEP % u128::from(count.max(1))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(fixed: &mut Fixed, subject: u64) -> Request {
        let mut request = Request::default();
        fixed.write(Ticket { lane: 0, kind: 0, subject }, &mut request);
        request
    }

    #[test]
    fn numbers_stand_in_path_and_body_and_the_length_is_right() {
        let mut fixed = Fixed::http("h", "POST", "/a/{n}", &[("x", "y")], b"<{n}{n}>", 200, Body::Length(0))
            .over(2_000, 1.0);
        for (number, body) in [(0, "<00>"), (9, "<99>"), (10, "<1010>"), (1_999, "<19991999>")] {
            let request = written(&mut fixed, number);
            assert_eq!(request.body(), body.as_bytes());
            let head = String::from_utf8(request.bytes[..request.head_bytes].to_vec()).unwrap();
            let length = body.len();
            assert_eq!(
                head,
                format!("POST /a/{number} HTTP/1.1\r\nhost: h\r\nx: y\r\ncontent-length: {length}\r\n\r\n")
            );
        }
        let mut redis = Fixed::raw(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", 200, Body::Length(1));
        assert_eq!(written(&mut redis, 0).bytes, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    }

    #[test]
    fn only_the_right_answer_is_right() {
        let judged = |expected: Body, status, body: &[u8]| {
            let mut fixed = Fixed::raw(b"", 200, expected);
            fixed.judge(fixed.clone().draw(), &Request::default(), Answer { status, body })
        };
        assert!(judged(Body::Bytes(b"ab".to_vec()), 200, b"ab").is_ok());
        assert_eq!(judged(Body::Bytes(b"ab".to_vec()), 200, b"aB").unwrap_err(), "body");
        assert!(judged(Body::Sha256(sha256(&[b"ab"])), 200, b"ab").is_ok());
        assert_eq!(judged(Body::Sha256(sha256(&[b"ab"])), 200, b"ba").unwrap_err(), "body");
        assert!(judged(Body::Length(2), 200, b"xy").is_ok());
        assert_eq!(judged(Body::Length(2), 200, b"x").unwrap_err(), "body");
        assert_eq!(judged(Body::Length(2), 404, b"xy").unwrap_err(), "404");
    }

    #[test]
    fn ranks_are_scattered_without_meeting() {
        for count in [1, 2, 1_000, 9_973] {
            let mut places: Vec<u64> = (0..count).map(|rank| scattered(rank, count)).collect();
            places.sort_unstable();
            assert_eq!(places, (0..count).collect::<Vec<_>>());
        }
    }
}
