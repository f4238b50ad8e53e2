//! Step 1 of the request path, the first half: headers and body within their bounds of length and time.
//!
//! The path alone calls it. A request that a crash cuts off while it arrives leaves nothing.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName};
use schemas::codes::{Code, Rule};
use schemas::identifier::Uscc;
use schemas::routes::{Contract, Effect, Route};
use verifier::Hash;

use super::signed::{self, Signed};
use super::tools::Entry;
use crate::room::Held;
use crate::wire::machine::Form;
use crate::wire::read;
use crate::wire::refusal::{Fault, Language, Refusal};

/// Longest that a body which is refused unread is read for.
const DISCARD_DEADLINE: Duration = Duration::from_secs(10);
/// Within its deadline: what any body may take, and how fast one that takes longer must be, bytes a second.
const BODY_GRACE: Duration = Duration::from_secs(5);
const LEAST_BODY_RATE: f64 = 4_096.0;
/// Most bytes read of a body that is refused unread.
const MAX_DISCARDED_BYTES: usize = 8 << 20;
/// Shortest and longest `Idempotency-Key`.
const IDEMPOTENCY_KEY_LENGTH: std::ops::RangeInclusive<usize> = 16..=64;
/// The headers of ours that a request may have.
const IDEMPOTENCY_KEY_NAME: &str = "Idempotency-Key";
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const RECEIPT: HeaderName = HeaderName::from_static("receipt");
/// Asks for the inclusion proof in the answer.
const INLINE: &str = "inline";
/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A request as it arrived, before it is understood.
pub(super) struct Received {
    /// `None` when it was not read to its end.
    pub(super) body: Option<Bytes>,
    pub(super) form: Form,
    pub(super) language: Language,
    pub(super) idempotency_key: Option<String>,
    pub(super) inline_proof: bool,
    /// The words of its headers on a signature, read of a state change alone; none of them comes in lines.
    pub(super) signed: Option<Result<Signed, Fault>>,
    /// A refusal found while reading.
    refusal: Option<Refusal>,
    /// Asked to wait before the commit; heeded by test builds only.
    pub(super) held: bool,
}

impl Received {
    /// The part that an entry records.
    pub(super) fn entry<'a>(
        &'a self,
        route: Route,
        organisation: &'a Uscc,
        now_ms: u64,
        policy: Hash,
    ) -> Entry<'a> {
        Entry {
            route,
            organisation,
            form: self.form,
            language: self.language,
            body: self.body.as_deref(),
            idempotency: None,
            now_ms,
            release_ms: 0,
            policy,
        }
    }

    /// The requests of a body in lines, each as if it had arrived alone; `None` for a body in another form. More than `most` refuse
    /// the whole. An idempotency key has the number of its line behind it.
    pub(super) fn lines(&mut self, contract: Contract, most: usize) -> Option<Vec<Self>> {
        if self.form != Form::Lines || self.refusal.is_some() || !contract.forms.contains(&Form::Lines) {
            return None;
        }
        let body = self.body.as_ref()?;
        let lines = verifier::batch::lines(body);
        let count = lines.clone().count();
        if !(1..=most).contains(&count) {
            let fault = Fault::at("", Rule::Count).bounds(1, most).got(count);
            self.refusal = Some(Refusal::of(Code::MalformedRequest, fault));
            return None;
        }
        let line = |(line, number): (&[u8], usize)| Self {
            body: Some(body.slice_ref(line)),
            form: Form::Json,
            language: self.language,
            idempotency_key: self.idempotency_key.as_ref().map(|key| format!("{key}.{number}")),
            inline_proof: self.inline_proof,
            signed: None,
            refusal: None,
            held: self.held,
        };
        Some(lines.zip(1..).map(line).collect())
    }

    /// The body to be read, unless the request is refused by what stands around it.
    ///
    /// # Errors
    /// The refusal found while it arrived; an idempotency key is required and missing.
    pub(super) fn body(&self, contract: Contract) -> Result<read::Body<'_>, Refusal> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        if contract.effect == Effect::Changes && self.idempotency_key.is_none() {
            let (least, most) = (*IDEMPOTENCY_KEY_LENGTH.start(), *IDEMPOTENCY_KEY_LENGTH.end());
            let fault = Fault::header(IDEMPOTENCY_KEY_NAME, Rule::Required).bounds(least, most);
            return Err(Refusal::of(Code::IdempotencyKeyRequired, fault));
        }
        if !contract.forms.contains(&self.form) {
            let forms = contract.forms.iter().map(|form| form.media_type());
            return Err(Refusal::of(
                Code::WrongContentType,
                Fault::header("Content-Type", Rule::OneOf).one_of(forms),
            ));
        }
        // A body that was not read to its end has its refusal.
        let body = self.body.as_ref().ok_or_else(|| Refusal::new(Code::Internal))?;
        // Some clients put a byte order mark before JSON, which RFC 8259 lets a reader pass over.
        let bytes = match self.form {
            Form::Json => body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body),
            Form::Machine | Form::Lines => body,
        };
        Ok(read::Body { form: self.form, bytes })
    }
}

/// Step 1: reads headers and body within their bounds.
pub(super) async fn receive<B>(
    http: hyper::Request<B>,
    misrouted: Option<Code>,
    language: Language,
    contract: Contract,
    held: &mut Held<'_>,
) -> Result<Received, Code>
where
    B: Body<Data = Bytes, Error: Send> + Send + Unpin + 'static,
{
    let (head, mut body) = http.into_parts();
    let (idempotency_key, bad_key) = match idempotency_key(&head.headers) {
        Ok(key) => (key, None),
        Err(fault) => (None, Some(fault)),
    };
    let wanted = head.headers.get(RECEIPT);
    let inline_proof = wanted.is_some_and(|value| value.as_bytes() == INLINE.as_bytes());
    // A caller that misspells it would keep an answer that it cannot prove.
    let bad_receipt = wanted.is_some() && !inline_proof;
    let hold = crate::hold::asked(&head.headers);
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let whole = if misrouted.is_some() || declared > contract.body_bytes {
        held.take(0)?;
        None
    } else {
        read_body(&mut body, contract, held).await?
    };
    let Some(whole) = whole else {
        discard(&head, body);
        return Ok(Received {
            body: None,
            form: Form::Json,
            language,
            idempotency_key: None,
            inline_proof,
            signed: None,
            refusal: Some(Refusal::new(misrouted.unwrap_or(Code::BodyTooLarge))),
            held: hold,
        });
    };
    let form = form(&head.headers);
    let refusal = if is_encoded(&head.headers) {
        let fault = Fault::header("Content-Encoding", Rule::OneOf).one_of(["identity"]);
        Some(Refusal::of(Code::WrongContentType, fault))
    } else if form.is_none() {
        let rule = if head.headers.contains_key(CONTENT_TYPE) { Rule::OneOf } else { Rule::Required };
        let types = contract.forms.iter().map(|form| form.media_type());
        Some(Refusal::of(Code::WrongContentType, Fault::header("Content-Type", rule).one_of(types)))
    } else {
        let fault = || Fault::header("Receipt", Rule::OneOf).one_of([INLINE]);
        let no_receipt = || bad_receipt.then(|| Refusal::of(Code::MalformedRequest, fault()));
        bad_key.map(|fault| Refusal::of(Code::IdempotencyKeyRequired, fault)).or_else(no_receipt)
    };
    let form = form.unwrap_or(Form::Json);
    let signed = if contract.effect == Effect::Changes {
        signed::read(&head.uri, &head.method, &head.headers, &whole, idempotency_key.as_deref()).transpose()
    } else {
        None
    };
    Ok(Received {
        body: Some(whole),
        form,
        language,
        idempotency_key,
        inline_proof,
        signed,
        refusal,
        held: hold,
    })
}

/// Reads a body within its bounds of length and time, taking room as it arrives; `None` when it is longer.
async fn read_body<B>(body: &mut B, contract: Contract, held: &mut Held<'_>) -> Result<Option<Bytes>, Code>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut whole: Vec<u8> = Vec::new();
    let mut begun = None;
    while !body.is_end_stream() {
        let at_hand = poll_fn(|context| Poll::Ready(Pin::new(&mut *body).poll_frame(context))).await;
        let frame = match at_hand {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let ended = held.wait()?;
                let begun = *begun.get_or_insert_with(tokio::time::Instant::now);
                let earned = Duration::from_secs_f64(whole.len() as f64 / LEAST_BODY_RATE);
                let deadline = begun + (BODY_GRACE + earned).min(Duration::from_secs(contract.body_seconds));
                tokio::select! {
                    biased;
                    frame = body.frame() => frame,
                    () = ended.notified() => return Err(Code::RequestTimeout),
                    () = tokio::time::sleep_until(deadline) => return Err(Code::RequestTimeout),
                }
            }
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| Code::BrokenBody)?;
        let Ok(data) = frame.into_data() else { continue };
        let length = whole.len() + data.len();
        if length > contract.body_bytes {
            held.take(0)?;
            return Ok(None);
        }
        // Room for what is kept, before it is: a body in one piece fits, one in many grows by doubling.
        let capacity = if length <= whole.capacity() {
            whole.capacity()
        } else {
            length.max((2 * whole.capacity()).min(contract.body_bytes))
        };
        held.take(capacity - whole.capacity())?;
        whole.reserve_exact(capacity - whole.len());
        whole.extend_from_slice(&data);
    }
    held.take(0)?;
    Ok(Some(whole.into()))
}

/// Reads and drops a bounded rest of a body that is refused unread, beside the answer, so that a client that is still
/// sending gets it instead of a broken connection.
fn discard<B>(head: &hyper::http::request::Parts, mut body: B)
where
    B: Body<Data = Bytes, Error: Send> + Send + Unpin + 'static,
{
    // HTTP/2 ends a stream without the connection. A client that waits to be asked for the body is told without it.
    if body.is_end_stream() || head.version > hyper::Version::HTTP_11 || head.headers.contains_key(EXPECT) {
        return;
    }
    tokio::spawn(async move {
        let rest = async {
            let mut received = 0;
            while let Some(Ok(frame)) = body.frame().await {
                received += frame.data_ref().map_or(0, Bytes::len);
                if received > MAX_DISCARDED_BYTES {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(DISCARD_DEADLINE, rest).await;
    });
}

/// Whether the body was compressed or otherwise encoded.
fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Whether a body is said to be in lines.
pub(super) fn is_in_lines(headers: &HeaderMap) -> bool {
    form(headers) == Some(Form::Lines)
}

/// The form that the content type names; `None` when it is none that any route takes.
fn form(headers: &HeaderMap) -> Option<Form> {
    let value = headers.get(CONTENT_TYPE)?;
    let is = |media_type: &str| {
        let plain =
            |value: &str| value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(media_type);
        value.as_bytes() == media_type.as_bytes() || value.to_str().is_ok_and(plain)
    };
    [Form::Json, Form::Machine, Form::Lines].into_iter().find(|form| is(form.media_type()))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let (least, most) = (*IDEMPOTENCY_KEY_LENGTH.start(), *IDEMPOTENCY_KEY_LENGTH.end());
            let fault = |rule| Fault::header(IDEMPOTENCY_KEY_NAME, rule).got(value.len());
            match value.to_str() {
                Ok(text) if text.bytes().all(|b| b.is_ascii_graphic()) => {
                    if IDEMPOTENCY_KEY_LENGTH.contains(&text.len()) {
                        Ok(Some(text.to_owned()))
                    } else {
                        Err(fault(Rule::Length).bounds(least, most))
                    }
                }
                _ => Err(fault(Rule::Pattern).form("printable ASCII without blanks")),
            }
        }
        (Some(_), Some(_)) => Err(Fault::header(IDEMPOTENCY_KEY_NAME, Rule::DuplicateMember)),
    }
}
