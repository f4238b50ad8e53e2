//! Between TLS and hyper: what hyper and h2 do not tell of the bytes that come and go.
//!
//! An HTTP/2 peer's control frames are counted, because h2 answers them without end. Its end of sending is kept from h2
//! while answers are due, because h2 takes it for the end of both directions. And the answers that hyper gives by itself
//! over HTTP/1.1 get a problem document.
//!
//! One for each connection, owned by its task. It is memory, gone with the connection.

use super::taking::Activity;
use crate::wire::refusal::{Language, undecided};
use schemas::codes::Code;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Client connection preface of HTTP/2 (RFC 9113 3.4).
const PREFACE_BYTES: usize = 24;
const FRAME_HEAD_BYTES: usize = 9;
/// Control frames that a request brings with it: windows opened for its answer, its reset, a ping to measure the path.
const CONTROL_PER_REQUEST: u32 = 8;
/// And one for so many bytes sent to the peer, whose windows it opens again.
const BYTES_PER_CONTROL: u32 = 1_024;
/// The share of the burst that comes back each second.
const CONTROL_REFILL: u32 = 10;
/// Longest head that hyper answers with by itself.
const MAX_BARE_BYTES: usize = 256;
/// How much of what a peer still sends is read after such an answer, so that it is not reset before it has read it.
const LINGER_READS: usize = 64;

/// A connection's bytes in clear.
pub(super) struct Wire<S> {
    inner: S,
    activity: Arc<Activity>,
    protocol: Protocol,
}

enum Protocol {
    Http1(Bare),
    Http2(Frames),
}

impl<S> Wire<S> {
    pub(super) fn http1(inner: S, activity: Arc<Activity>) -> Self {
        Self { inner, activity, protocol: Protocol::Http1(Bare::default()) }
    }

    pub(super) fn http2(inner: S, activity: Arc<Activity>, burst: u32) -> Self {
        Self { inner, activity, protocol: Protocol::Http2(Frames::new(burst)) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Protocol::Http2(frames) = &mut this.protocol else {
            return Pin::new(&mut this.inner).poll_read(context, into);
        };
        if frames.end == End::NotYet {
            let before = into.filled().len();
            match ready!(Pin::new(&mut this.inner).poll_read(context, into)) {
                Ok(()) => {}
                // Whether frames are whole is told by themselves, so that an end without TLS's own is one as well.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            let new = into.filled().get(before..).unwrap_or_default();
            if !new.is_empty() || into.remaining() == 0 {
                let fits = frames.read(new);
                this.activity.received(frames.heads, frames.bodies, frames.bodies_before_head);
                if !fits {
                    this.activity.close("control-flood");
                    return Poll::Ready(Err(io::Error::other("too many control frames")));
                }
                return Poll::Ready(Ok(()));
            }
            frames.end = End::Kept;
        }
        if !this.activity.is_idle_or_wakes(context.waker()) {
            frames.end = End::Kept;
            return Poll::Pending;
        }
        if frames.end == End::Kept {
            // Once more around, so that h2 sends what is still queued before it learns of the end.
            frames.end = End::Told;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(context, bytes, bytes.len(), |inner, context| inner.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        self.write(context, first, length, |inner, context| inner.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.inner).poll_flush(context);
        this.activity.wrote((!flushed.is_pending()).then_some(0));
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.inner).poll_shutdown(context))?;
        let Protocol::Http1(bare) = &mut this.protocol else { return Poll::Ready(Ok(())) };
        // Bounded in reads here, and in time by who drives the connection.
        while bare.lingers > 0 {
            let mut unread = [0; 4096];
            let mut unread = ReadBuf::new(&mut unread);
            match ready!(Pin::new(&mut this.inner).poll_read(context, &mut unread)) {
                Ok(()) if !unread.filled().is_empty() => bare.lingers -= 1,
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Wire<S> {
    fn write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        first: &[u8],
        length: usize,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let inner = Pin::new(&mut this.inner);
        let written = match &mut this.protocol {
            Protocol::Http1(bare) => match bare.in_place_of(first, length) {
                Some(told) => told.write(inner, context, length),
                None => write(inner, context),
            },
            Protocol::Http2(frames) => {
                let written = write(inner, context);
                if let Poll::Ready(Ok(bytes)) = &written {
                    frames.budget.wrote(*bytes);
                }
                written
            }
        };
        match &written {
            Poll::Ready(Ok(bytes)) => this.activity.wrote(Some(*bytes)),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => this.activity.wrote(None),
        }
        written
    }
}

/// The answers that hyper gives by itself over HTTP/1.1: a head without a body, and then the connection ends.
#[derive(Default)]
struct Bare {
    told: Option<Told>,
    lingers: usize,
}

/// The bytes that are written in place of such a head.
struct Told {
    bytes: Vec<u8>,
    written: usize,
}

impl Bare {
    fn in_place_of(&mut self, first: &[u8], length: usize) -> Option<&mut Told> {
        if self.told.is_none() && first.len() == length && length <= MAX_BARE_BYTES {
            let bytes = with_problem(first)?;
            self.told = Some(Told { bytes, written: 0 });
            self.lingers = LINGER_READS;
        }
        self.told.as_mut()
    }
}

impl Told {
    /// Gives back the length of what it stands for when it is written whole.
    fn write<S: AsyncWrite>(
        &mut self,
        mut inner: Pin<&mut S>,
        context: &mut Context<'_>,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(inner.as_mut().poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        Poll::Ready(Ok(length))
    }
}

/// The public code of an answer that hyper gives by itself.
pub(super) fn code_of(status: u16) -> Option<Code> {
    match status {
        400 => Some(Code::MalformedHttp),
        431 => Some(Code::HeadTooLarge),
        _ => None,
    }
}

/// The same answer with a problem document; `None` when it is none of hyper's own: after those the connection ends, and the head says so.
fn with_problem(head: &[u8]) -> Option<Vec<u8>> {
    const EMPTY: &str = "content-length: 0\r\n";
    const CLOSING: &str = "connection: close\r\n";
    let head = std::str::from_utf8(head).ok()?.strip_suffix("\r\n")?;
    if !head.contains(CLOSING) {
        return None;
    }
    let status = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let (before, behind) = head.split_once(EMPTY)?;
    let problem = undecided(code_of(status)?, Language::English);
    let length = problem.len();
    let mut told = format!(
        "{before}content-type: application/problem+json\r\ncache-control: no-store\r\ncontent-length: {length}\r\n{behind}\r\n"
    )
    .into_bytes();
    told.extend(problem);
    Some(told)
}

/// Whether the peer has sent everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotYet,
    /// It has, and h2 is not told while answers are due.
    Kept,
    /// It has, and h2 is told.
    Told,
}

/// The heads of the frames that an HTTP/2 peer sends.
struct Frames {
    /// Bytes of the preface that are still to come.
    preface: usize,
    head: [u8; FRAME_HEAD_BYTES],
    /// Bytes of the head that are there.
    have: usize,
    /// Bytes of the payload that are still to come.
    payload: usize,
    budget: Budget,
    heads: u64,
    bodies: u64,
    bodies_before_head: u64,
    end: End,
}

impl Frames {
    fn new(burst: u32) -> Self {
        let head = [0; FRAME_HEAD_BYTES];
        Self {
            preface: PREFACE_BYTES,
            head,
            have: 0,
            payload: 0,
            budget: Budget::new(burst),
            heads: 0,
            bodies: 0,
            bodies_before_head: 0,
            end: End::NotYet,
        }
    }

    /// Takes in what has arrived; false when its control frames are too many.
    fn read(&mut self, mut bytes: &[u8]) -> bool {
        let skip = |bytes: &mut &[u8], left: &mut usize| {
            let skipped = bytes.len().min(*left);
            *left -= skipped;
            *bytes = &bytes[skipped..];
        };
        skip(&mut bytes, &mut self.preface);
        while !bytes.is_empty() {
            skip(&mut bytes, &mut self.payload);
            let taken = bytes.len().min(FRAME_HEAD_BYTES - self.have);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == FRAME_HEAD_BYTES {
                self.have = 0;
                self.payload = u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]]) as usize;
                if !self.count() {
                    return false;
                }
            }
        }
        true
    }

    /// Counts the frame whose head is there.
    fn count(&mut self) -> bool {
        const DATA: u8 = 0;
        const HEADERS: u8 = 1;
        const END_STREAM: u8 = 1;
        let [_, _, _, kind, flags, ..] = self.head;
        self.bodies += u64::from(kind == DATA);
        match kind {
            HEADERS => {
                self.heads += 1;
                self.bodies_before_head = self.bodies;
                self.budget.earn(CONTROL_PER_REQUEST);
                true
            }
            // It says something, or that there is nothing more to say.
            DATA if self.payload > 0 || flags & END_STREAM != 0 => true,
            // Frames that go on and on without saying anything: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM,
            // GOAWAY, CONTINUATION, empty DATA and what nobody knows.
            _ => self.budget.spend(),
        }
    }
}

/// Control frames that the peer may still send.
struct Budget {
    burst: u32,
    left: u32,
    refilled: Instant,
    /// Bytes written since the last of them earned one.
    bytes: u32,
}

impl Budget {
    fn new(burst: u32) -> Self {
        Self { burst, left: burst, refilled: Instant::now(), bytes: 0 }
    }

    fn earn(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(self.burst);
    }

    fn wrote(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).saturating_add(self.bytes);
        self.earn(bytes / BYTES_PER_CONTROL);
        self.bytes = bytes % BYTES_PER_CONTROL;
    }

    /// The clock is read only when nothing is left.
    fn spend(&mut self) -> bool {
        if self.left == 0 {
            let now = Instant::now();
            let share = now.duration_since(self.refilled).as_secs_f64() / f64::from(CONTROL_REFILL);
            let back = (f64::from(self.burst) * share).min(f64::from(self.burst)) as u32;
            if back == 0 {
                return false;
            }
            (self.left, self.refilled) = (back, now);
        }
        self.left -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// Frames behind a preface; in pieces of this size each.
    fn read(frames: &[u8], burst: u32, piece: usize) -> bool {
        let mut reader = Frames::new(burst);
        let bytes = [&[b'P'; PREFACE_BYTES][..], frames].concat();
        bytes.chunks(piece).all(|piece| reader.read(piece))
    }

    #[test]
    fn control_frames_are_counted_wherever_the_bytes_are_cut() {
        let ping = frame(6, 0, &[0; 8]);
        let request = [frame(1, 4, &[6; 40]), frame(0, 1, &[6; 1_000])].concat();
        for piece in [1, 2, 9, 17, 1_000, usize::MAX] {
            // 6 in a payload is no frame.
            assert!(read(&[ping.repeat(10), request.clone(), ping.repeat(8)].concat(), 10, piece));
            assert!(!read(&[ping.repeat(10), request.clone(), ping.repeat(9)].concat(), 10, piece));
        }
    }

    #[test]
    fn what_says_nothing_is_control_and_what_says_something_is_not() {
        for kind in [2, 3, 4, 6, 7, 8, 9, 16, 255] {
            assert!(!read(&frame(kind, 0, &[0; 4]).repeat(11), 10, 64), "{kind}");
        }
        assert!(!read(&frame(0, 0, &[]).repeat(11), 10, 64), "empty DATA");
        assert!(read(&frame(0, 1, &[]).repeat(1_000), 10, 64), "the end of a body");
        assert!(read(&frame(0, 0, &[1]).repeat(1_000), 10, 64), "a body");
        assert!(read(&frame(1, 5, &[1]).repeat(1_000), 10, 64), "requests");
    }

    #[test]
    fn who_is_sent_much_may_open_its_windows() {
        let mut budget = Budget::new(10);
        for _ in 0..100 {
            budget.wrote(512);
            budget.wrote(512);
            assert!(budget.spend());
        }
        while budget.left > 0 {
            assert!(budget.spend());
        }
        // An answered ping earns none.
        for _ in 0..10 {
            budget.wrote(17);
        }
        assert_eq!(budget.left, 0);
    }

    #[test]
    fn only_hypers_own_answers_get_a_problem() {
        let bare =
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let told = String::from_utf8(with_problem(bare).unwrap()).unwrap();
        let (head, body) = told.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 ") && head.contains("connection: close\r\n"), "{head}");
        assert!(head.contains("content-type: application/problem+json\r\n"), "{head}");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        assert!(body.contains("head-too-large"), "{body}");
        for other in [
            &b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 10\r\n\r\n",
            // A handler's, after which the connection goes on.
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"content-length: 0\r\n\r\n",
            b"",
        ] {
            assert!(with_problem(other).is_none());
        }
    }
}
