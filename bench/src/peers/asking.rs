//! What the servers of a comparison are asked, and which answer is right.

use std::sync::{Arc, Mutex, PoisonError};

use crate::drive::{Answer, Cause, Request, Ticket, Workload};
use crate::mix::Kept;
use crate::random::{Random, Zipf};

/// Digits of a number in a request.
const DIGITS: usize = 16;
/// Stands for the digits until they are known; occurs nowhere else in a request.
pub(super) const NUMBER: &str = "NUMBERNUMBERNUMB";
/// How many are popular among those asked for: the exponent of Zipf's law.
const POPULARITY: f64 = 1.0;
/// Requests and answers that are kept for a check of their receipts, of all runs: each candidate is as likely to be among them.
const MAX_KEPT: usize = 512;
/// One of so many is a candidate.
const KEEP_EVERY: u64 = 97;

/// A request that is written once and given a number each time it is sent.
#[derive(Clone)]
pub(super) struct Template {
    bytes: Vec<u8>,
    head_bytes: usize,
    places: Vec<usize>,
    /// What the right answer is, or begins with.
    begins: Arc<[u8]>,
}

impl Template {
    /// A request of its whole bytes.
    pub(super) fn raw(bytes: Vec<u8>, begins: &[u8]) -> Self {
        let head_bytes = bytes.len();
        Self { bytes, head_bytes, places: Vec::new(), begins: begins.into() }
    }

    /// A GET request.
    pub(super) fn get(path: &str, begins: &[u8]) -> Self {
        Self::raw(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes(), begins)
    }

    /// A POST request of JSON with more header lines, each ended by CR LF; [`NUMBER`] in it is made a number.
    pub(super) fn post(path: &str, lines: &str, body: &str, begins: &[u8]) -> Self {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{lines}content-length: {}\r\n\r\n",
            body.len()
        );
        let text = head.clone() + body;
        let places = text.match_indices(NUMBER).map(|(place, _)| place).collect();
        Self { head_bytes: head.len(), bytes: text.into_bytes(), places, begins: begins.into() }
    }

    fn write(&self, number: u64, request: &mut Request) {
        request.bytes.extend_from_slice(&self.bytes);
        request.head_bytes = self.head_bytes;
        for place in &self.places {
            let mut rest = number;
            for digit in request.bytes[*place..*place + DIGITS].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
    }

    /// The whole request with a number.
    pub(super) fn written(&self, number: u64) -> Vec<u8> {
        let mut request = Request::default();
        self.write(number, &mut request);
        request.bytes
    }
}

/// What was kept of all runs of a workload.
pub(super) type KeptList = Arc<Mutex<Vec<Kept>>>;

/// How an answer is told to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// It is these bytes.
    Is,
    /// It begins with them and goes on.
    Begins,
}

/// Requests in the order of their popularity.
pub(super) struct Asking {
    templates: Vec<Template>,
    status: u16,
    right: Right,
    zipf: Zipf,
    random: Random,
    /// Each request has its own, over all runs.
    number: u64,
    kept: Option<KeptList>,
    /// Draws which are kept.
    sample: Random,
    answers: u64,
}

impl Asking {
    /// Templates by popularity, most popular first; at least one.
    pub(super) fn new(templates: Vec<Template>, status: u16, right: Right) -> Self {
        let zipf = Zipf::new(templates.len() as u64, POPULARITY);
        let (random, sample) = (Random::new(1), Random::new(2));
        Self { templates, status, right, zipf, random, number: 0, kept: None, sample, answers: 0 }
    }

    /// Keeps some answers for a check of their receipts.
    pub(super) fn keeping(mut self, kept: &KeptList) -> Self {
        self.kept = Some(Arc::clone(kept));
        self
    }

    /// Bytes of the body of the most popular request.
    pub(super) fn body_bytes(&self) -> usize {
        self.templates.first().map_or(0, |template| template.bytes.len() - template.head_bytes)
    }

    fn template(&self, subject: u64) -> Option<&Template> {
        self.templates.get(usize::try_from(subject).ok()? % self.templates.len().max(1))
    }
}

impl Workload for Asking {
    fn kinds(&self) -> usize {
        1
    }

    fn draw(&mut self) -> Ticket {
        Ticket { lane: 0, kind: 0, subject: self.zipf.draw(&mut self.random) - 1 }
    }

    fn write(&mut self, ticket: Ticket, request: &mut Request) {
        self.number += 1;
        if let Some(template) = self.template(ticket.subject) {
            template.write(self.number, request);
        }
    }

    fn judge(&mut self, ticket: Ticket, request: &Request, answer: Answer<'_>) -> Result<(), Cause> {
        if answer.status != self.status {
            return Err(answer.status.to_string().into());
        }
        let begins = self.template(ticket.subject).map_or(&b""[..], |template| &template.begins);
        let right = match self.right {
            Right::Is => answer.body == begins,
            Right::Begins => answer.body.len() > begins.len() && answer.body.starts_with(begins),
        };
        if !right {
            return Err("body".into());
        }
        self.answers += 1;
        if let Some(kept) = self.kept.as_ref().filter(|_| self.answers % KEEP_EVERY == 1) {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Kept { request: request.body().to_vec(), answer: answer.body.to_vec() };
            let candidates = self.answers / KEEP_EVERY + 1;
            if kept.len() < MAX_KEPT {
                kept.push(new());
            } else if let Some(place) = kept.get_mut((self.sample.bits() % candidates) as usize) {
                *place = new();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(right: Right) -> Asking {
        Asking::new(vec![Template::get("/a", b"{\"verdict\":\"valid\"")], 200, right)
    }

    fn judged(asking: &mut Asking, status: u16, body: &[u8]) -> Result<(), Cause> {
        let ticket = asking.draw();
        asking.judge(ticket, &Request::default(), Answer { status, body })
    }

    #[test]
    fn only_the_right_status_and_body_are_an_answer() {
        let good = b"{\"verdict\":\"valid\"";
        assert_eq!(judged(&mut asking(Right::Is), 200, good), Ok(()));
        assert_eq!(judged(&mut asking(Right::Is), 200, b"{\"verdict\":\"valid\",1"), Err("body".into()));
        assert_eq!(judged(&mut asking(Right::Is), 403, good), Err("403".into()));
        assert_eq!(judged(&mut asking(Right::Begins), 200, b"{\"verdict\":\"valid\",1"), Ok(()));
        assert_eq!(judged(&mut asking(Right::Begins), 200, good), Err("body".into()), "nothing behind it");
        for wrong in [&b"{\"verdict\":\"invalid\"}"[..], b"", b"{"] {
            assert_eq!(judged(&mut asking(Right::Begins), 200, wrong), Err("body".into()));
        }
    }

    #[test]
    fn answers_of_the_whole_time_are_kept() {
        let list = KeptList::default();
        let mut asking = asking(Right::Begins).keeping(&list);
        let answers = MAX_KEPT as u64 * KEEP_EVERY * 4;
        for number in 0..answers {
            judged(&mut asking, 200, format!("{{\"verdict\":\"valid\",{number:08}").as_bytes()).unwrap();
        }
        let kept = list.lock().unwrap();
        let early = |kept: &&Kept| {
            kept.answer.as_slice() < format!("{{\"verdict\":\"valid\",{:08}", answers / 4).as_bytes()
        };
        let early = kept.iter().filter(early).count();
        assert_eq!(kept.len(), MAX_KEPT);
        assert!((MAX_KEPT / 8..MAX_KEPT / 2).contains(&early), "{early} of the first quarter");
    }

    #[test]
    fn each_request_has_its_own_number_in_head_and_body() {
        let template = Template::post(
            "/v1/licenses",
            &format!("idempotency-key: {NUMBER}\r\n"),
            &format!("{{\"serial\":\"{NUMBER}\"}}"),
            b"",
        );
        let mut asking = Asking::new(vec![template], 201, Right::Begins);
        for number in ["0000000000000001", "0000000000000002"] {
            let (mut request, ticket) = (Request::default(), asking.draw());
            asking.write(ticket, &mut request);
            let text = String::from_utf8(request.bytes.clone()).unwrap();
            assert!(text.contains(&format!("idempotency-key: {number}\r\n")), "{text}");
            assert_eq!(request.body(), format!("{{\"serial\":\"{number}\"}}").as_bytes());
            assert!(text.contains("content-length: 29\r\n"), "{text}");
        }
    }
}
