//! The requests that a connection has under way, and the bytes of its answers that its peer has not taken: counted in
//! atomics, looked at by one timer a connection.
//!
//! hyper bounds what a stream has in its send buffer, but it takes each answer whole and keeps it until the peer opens
//! its window. So an answer's bytes are counted until they are dropped, which the transport does when it has taken them.
//!
//! A connection owns its counts. They are memory, gone with the connection.

use super::limits::Limits;
use super::slots::Use;
use bytes::{Buf, Bytes};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::sleep;

/// The body of an answer.
#[derive(Debug)]
pub enum Content {
    /// Whole.
    Whole(Full<Bytes>),
    /// Made while it is taken: the next part is asked for when the transport has room for it.
    Parts(Parts),
}

/// The parts of an answer, and the task that makes them, which ends when nobody takes them any more: a client that is gone, or one
/// whose certificate was revoked.
#[derive(Debug)]
pub struct Parts {
    parts: mpsc::Receiver<Bytes>,
    _work: Option<Work>,
}

impl Parts {
    /// Parts that come without a task.
    pub fn new(parts: mpsc::Receiver<Bytes>) -> Self {
        Self { parts, _work: None }
    }

    /// The same with the task that makes them.
    #[must_use]
    pub fn made_by(self, work: Work) -> Self {
        Self { _work: Some(work), ..self }
    }
}

/// A task that ends at once when this is dropped. What it has queued for the journal by then commits all the same.
#[derive(Debug)]
pub struct Work(AbortHandle);

impl Work {
    /// The task behind a handle.
    pub fn of<T>(task: &JoinHandle<T>) -> Self {
        Self(task.abort_handle())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl From<Full<Bytes>> for Content {
    fn from(whole: Full<Bytes>) -> Self {
        Self::Whole(whole)
    }
}

/// Bytes that a request under way is reckoned with before its answer is there, and one in parts until its end.
const PROMISED: usize = 32 << 10;
/// A request waits for room from this share of a connection's and of an account's bytes on.
const WAIT_SHARE: usize = 8;
const WAIT_SHARE_OF_ACCOUNT: usize = 2;
/// How often it looks whether there is room, and for how long it waits.
const ROOM_PAUSE: Duration = Duration::from_millis(20);
const ROOM_PATIENCE: Duration = Duration::from_secs(10);

/// A connection's present activity.
pub(super) struct Activity {
    /// Requests whose headers have arrived.
    started: AtomicU64,
    /// Those of them whose answer is not made or not taken.
    in_flight: AtomicUsize,
    /// Bytes of answers that are not taken, or promised to requests under way.
    untaken: AtomicUsize,
    of_account: Arc<Use>,
    /// Answers that are made and not taken, of the present and the last half of the time for taking one.
    waiting: [AtomicUsize; 2],
    half: AtomicUsize,
    /// Bytes of answers that the transport has taken.
    taken: AtomicU64,
    /// Bytes that the socket has taken, and whether it takes no more for now.
    written: AtomicU64,
    blocked: AtomicBool,
    /// HEADERS and DATA frames of HTTP/2 that have come, and the latter before the last of the former.
    heads: AtomicU64,
    bodies: AtomicU64,
    bodies_before_head: AtomicU64,
    /// Why the connection is closed.
    closing: OnceLock<&'static str>,
    close: Notify,
    /// The reader of a peer that sends nothing more is to be woken when nothing is in flight any more.
    no_more_requests: AtomicBool,
    reader: Mutex<Option<Waker>>,
}

impl Activity {
    pub(super) fn new(of_account: Arc<Use>) -> Self {
        Self {
            started: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            untaken: AtomicUsize::new(0),
            of_account,
            waiting: [AtomicUsize::new(0), AtomicUsize::new(0)],
            half: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            written: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
            heads: AtomicU64::new(0),
            bodies: AtomicU64::new(0),
            bodies_before_head: AtomicU64::new(0),
            closing: OnceLock::new(),
            close: Notify::new(),
            no_more_requests: AtomicBool::new(false),
            reader: Mutex::default(),
        }
    }

    /// A request has begun.
    pub(super) fn begin(self: &Arc<Self>) -> Share {
        self.started.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        Share { activity: Arc::clone(self), bytes: 0, half: None }
    }

    /// Ends the connection; only the first reason counts.
    pub(super) fn close(&self, reason: &'static str) {
        let _ = self.closing.set(reason);
        self.close.notify_one();
    }

    /// Why the connection was told to end.
    pub(super) fn closing(&self) -> Option<&'static str> {
        self.closing.get().copied()
    }

    /// Resolves when the connection is to end.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }

    /// The socket took so many bytes, or takes none for now.
    pub(super) fn wrote(&self, bytes: Option<usize>) {
        if let Some(bytes) = bytes {
            self.written.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        // Nearly always it is as it was, and a store would take the line away from the other threads.
        let blocked = bytes.is_none();
        if self.blocked.load(Ordering::Relaxed) != blocked {
            self.blocked.store(blocked, Ordering::Relaxed);
        }
    }

    /// So many HEADERS and DATA frames have come, of whatever stream, and so many of the latter before the last head.
    pub(super) fn received(&self, heads: u64, bodies: u64, bodies_before_head: u64) {
        self.heads.store(heads, Ordering::Relaxed);
        self.bodies.store(bodies, Ordering::Relaxed);
        self.bodies_before_head.store(bodies_before_head, Ordering::Relaxed);
    }

    /// Whether nothing is in flight. If something is, the reader is woken when it no longer is.
    pub(super) fn is_idle_or_wakes(&self, reader: &Waker) -> bool {
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader.clone());
        self.no_more_requests.store(true, Ordering::SeqCst);
        self.in_flight.load(Ordering::SeqCst) == 0
    }

    fn room(&self, limits: &Limits) -> bool {
        let take = |untaken: &AtomicUsize, most: usize| {
            let room = untaken.fetch_add(PROMISED, Ordering::Relaxed) < most;
            if !room {
                untaken.fetch_sub(PROMISED, Ordering::Relaxed);
            }
            room
        };
        let most_of_account = limits.max_untaken_per_organisation / WAIT_SHARE_OF_ACCOUNT;
        if !take(&self.of_account.untaken, most_of_account) {
            return false;
        }
        let room = take(&self.untaken, limits.max_untaken / WAIT_SHARE);
        if !room {
            self.of_account.untaken.fetch_sub(PROMISED, Ordering::Relaxed);
        }
        room
    }
}

/// The share that a request takes of its connection and its organisation, from its headers until its answer is taken or
/// dropped, or the request is cancelled.
pub(super) struct Share {
    activity: Arc<Activity>,
    bytes: usize,
    half: Option<usize>,
}

impl Share {
    /// DATA frames that had come before the head of this request, asked on its connection's task as soon as it begins;
    /// `None` when another head came after it or was no request.
    pub(super) fn bodies_before(&self) -> Option<u64> {
        let activity = &self.activity;
        let last = activity.heads.load(Ordering::Relaxed) == activity.started.load(Ordering::Relaxed);
        last.then(|| activity.bodies_before_head.load(Ordering::Relaxed))
    }

    /// DATA frames that have come on the connection by now.
    pub(super) fn bodies(&self) -> u64 {
        self.activity.bodies.load(Ordering::Relaxed)
    }

    /// Waits until the connection and the organisation have taken enough of their answers; false when they do not.
    pub(super) async fn promised(&mut self, limits: &Limits) -> bool {
        let mut waited = Duration::ZERO;
        while !self.activity.room(limits) {
            if waited >= ROOM_PATIENCE {
                return false;
            }
            sleep(ROOM_PAUSE).await;
            waited += ROOM_PAUSE;
        }
        self.bytes = PROMISED;
        true
    }

    /// The answer, if there is room for it; otherwise the connection ends. Each part of one in parts is counted when it is there.
    pub(super) fn answer(mut self, content: Content, limits: &Limits) -> Option<Answer> {
        let body = match content {
            Content::Whole(body) => body,
            Content::Parts(_) => {
                let most = [limits.max_untaken, limits.max_untaken_per_organisation];
                return Some(Answer { body: content, share: Some(self), most });
            }
        };
        let bytes = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        let activity = &self.activity;
        for untaken in [&activity.untaken, &activity.of_account.untaken] {
            untaken.fetch_add(bytes, Ordering::Relaxed);
            untaken.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        let half = activity.half.load(Ordering::Relaxed) % 2;
        activity.waiting[half].fetch_add(1, Ordering::Relaxed);
        self.half = Some(half);
        let fits = activity.untaken.load(Ordering::Relaxed) <= limits.max_untaken
            && activity.of_account.untaken.load(Ordering::Relaxed) <= limits.max_untaken_per_organisation;
        if !fits {
            activity.close("too-much-untaken");
            return None;
        }
        Some(Answer { body: Content::Whole(body), share: Some(self), most: [usize::MAX; 2] })
    }

    /// The share of one part of the answer, until it is taken. More than there may be ends the connection, like a whole answer.
    fn part(&self, bytes: usize, most: [usize; 2]) -> Self {
        let activity = &self.activity;
        activity.in_flight.fetch_add(1, Ordering::SeqCst);
        for untaken in [&activity.untaken, &activity.of_account.untaken] {
            untaken.fetch_add(bytes, Ordering::Relaxed);
        }
        let untaken = [&activity.untaken, &activity.of_account.untaken];
        if untaken.iter().zip(most).any(|(untaken, most)| untaken.load(Ordering::Relaxed) > most) {
            activity.close("too-much-untaken");
        }
        let half = activity.half.load(Ordering::Relaxed) % 2;
        activity.waiting[half].fetch_add(1, Ordering::Relaxed);
        Self { activity: Arc::clone(activity), bytes, half: Some(half) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let activity = &self.activity;
        if self.bytes > 0 {
            activity.untaken.fetch_sub(self.bytes, Ordering::Relaxed);
            activity.of_account.untaken.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        if let Some(half) = self.half {
            activity.waiting[half].fetch_sub(1, Ordering::Relaxed);
        }
        let last = activity.in_flight.fetch_sub(1, Ordering::SeqCst) == 1;
        if last
            && activity.no_more_requests.load(Ordering::SeqCst)
            && let Some(reader) = activity.reader.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            reader.wake();
        }
    }
}

/// An answer, counted until it is taken.
pub(super) struct Answer {
    body: Content,
    /// Goes with the bytes of a whole answer when there are some, and with the end of one in parts.
    share: Option<Share>,
    /// Most bytes that may be untaken, of the connection and of its account, when a part is added.
    most: [usize; 2],
}

impl Body for Answer {
    type Data = Untaken;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Untaken>, Infallible>>> {
        let Self { body, share, most } = &mut *self;
        let parts = match body {
            Content::Whole(whole) => {
                let Poll::Ready(Some(frame)) = Pin::new(whole).poll_frame(context) else {
                    return Poll::Ready(None);
                };
                let share = share.take();
                return Poll::Ready(Some(
                    frame.map(|frame| frame.map_data(|bytes| Untaken { bytes, share })),
                ));
            }
            Content::Parts(parts) => parts,
        };
        let Some(bytes) = ready!(parts.parts.poll_recv(context)) else {
            *share = None;
            return Poll::Ready(None);
        };
        let share = share.as_ref().map(|share| share.part(bytes.len(), *most));
        Poll::Ready(Some(Ok(Frame::data(Untaken { bytes, share }))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Content::Whole(whole) => whole.is_end_stream(),
            Content::Parts(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Content::Whole(whole) => whole.size_hint(),
            Content::Parts(_) => SizeHint::default(),
        }
    }
}

/// Bytes of an answer on their way into the transport.
pub(super) struct Untaken {
    bytes: Bytes,
    share: Option<Share>,
}

impl Buf for Untaken {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(into)
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(share) = &self.share {
            share.activity.taken.fetch_add(count as u64, Ordering::Relaxed);
        }
    }
}

/// A connection's activity at the last look.
#[derive(Default)]
pub(super) struct Looked {
    started: u64,
    taken: u64,
    written: u64,
    /// Without a request.
    quiet: Duration,
    /// Without a byte taken although an answer waits.
    stalled: Duration,
    /// Since the halves of the time for taking an answer changed.
    half: Duration,
}

/// The finding of a look.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It goes on.
    Alive,
    /// No request has begun at all.
    NeverBegun,
    /// Nothing was asked for too long.
    Idle,
    /// The peer does not take its answers; the reason for the metric.
    NotTaking(&'static str),
}

impl Looked {
    /// One look, `header_timeout` after the last one.
    pub(super) fn look(&mut self, activity: &Activity, limits: &Limits) -> Finding {
        let passed = limits.header_timeout;
        let started = activity.started.load(Ordering::Relaxed);
        if started == 0 {
            return Finding::NeverBegun;
        }
        let waiting = activity.waiting.iter().any(|waiting| waiting.load(Ordering::Relaxed) > 0);
        let blocked = activity.blocked.load(Ordering::Relaxed);
        let (taken, written) =
            (activity.taken.load(Ordering::Relaxed), activity.written.load(Ordering::Relaxed));
        let stuck = (waiting && taken == self.taken) || (blocked && written == self.written);
        (self.taken, self.written) = (taken, written);
        self.stalled = if stuck { self.stalled + passed } else { Duration::ZERO };
        if self.stalled >= limits.stall_timeout {
            return Finding::NotTaking("stalled");
        }
        self.half += passed;
        if self.half >= limits.take_timeout / 2 {
            self.half = Duration::ZERO;
            // An answer made in the half before the present one has had a whole half since.
            let present = activity.half.fetch_add(1, Ordering::Relaxed);
            if activity.waiting[(present + 1) % 2].load(Ordering::Relaxed) > 0 {
                return Finding::NotTaking("too-slow");
            }
        }
        let busy = started != self.started || activity.in_flight.load(Ordering::Relaxed) > 0;
        self.started = started;
        self.quiet = if busy { Duration::ZERO } else { self.quiet + passed };
        if self.quiet >= limits.idle_timeout { Finding::Idle } else { Finding::Alive }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: fn() -> Limits = || Limits {
        header_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(40),
        stall_timeout: Duration::from_secs(30),
        take_timeout: Duration::from_secs(120),
        max_untaken: 1 << 20,
        max_untaken_per_organisation: 3 << 19,
        ..Limits::default()
    };

    fn activity() -> Arc<Activity> {
        Arc::new(Activity::new(Arc::default()))
    }

    fn body(bytes: usize) -> Content {
        Content::Whole(Full::new(vec![0; bytes].into()))
    }

    fn into_bytes(mut answer: Answer) -> Untaken {
        let context = &mut Context::from_waker(Waker::noop());
        let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut answer).poll_frame(context) else {
            panic!("an answer has its bytes")
        };
        assert!(answer.is_end_stream());
        frame.into_data().unwrap_or_else(|_| panic!("bytes are data"))
    }

    #[test]
    fn bytes_count_until_they_are_taken() {
        let (activity, limits) = (activity(), LIMITS());
        let answer = activity.begin().answer(body(1_000), &limits).unwrap();
        let untaken = |activity: &Activity| {
            let of_account = activity.of_account.untaken.load(Ordering::Relaxed);
            (activity.untaken.load(Ordering::Relaxed), of_account)
        };
        assert_eq!(untaken(&activity), (1_000, 1_000));
        let mut bytes = into_bytes(answer);
        bytes.advance(999);
        assert_eq!(untaken(&activity), (1_000, 1_000));
        assert_eq!(activity.in_flight.load(Ordering::SeqCst), 1);
        drop(bytes);
        assert_eq!(untaken(&activity), (0, 0));
        assert_eq!(activity.in_flight.load(Ordering::SeqCst), 0);
        assert_eq!(activity.taken.load(Ordering::Relaxed), 999);
    }

    #[test]
    fn parts_count_each_until_it_is_taken_and_a_slow_maker_is_no_slow_taker() {
        let (activity, limits) = (activity(), LIMITS());
        let (sender, parts) = mpsc::channel(2);
        let mut answer = activity.begin().answer(Content::Parts(Parts::new(parts)), &limits).unwrap();
        let untaken = |activity: &Activity| activity.untaken.load(Ordering::Relaxed);
        let context = &mut Context::from_waker(Waker::noop());
        let mut looked = Looked::default();
        for _ in 0..40 {
            assert!(Pin::new(&mut answer).poll_frame(context).is_pending());
            assert_eq!(looked.look(&activity, &limits), Finding::Alive, "nothing waits to be taken");
        }
        for bytes in [1_000, 2_000] {
            sender.try_send(vec![0; bytes].into()).unwrap();
        }
        let next = |answer: &mut Answer, context: &mut Context<'_>| {
            let Poll::Ready(Some(Ok(frame))) = Pin::new(answer).poll_frame(context) else { panic!("a part") };
            frame.into_data().unwrap_or_else(|_| panic!("bytes are data"))
        };
        let (one, two) = (next(&mut answer, context), next(&mut answer, context));
        assert_eq!((one.remaining(), two.remaining(), untaken(&activity)), (1_000, 2_000, 3_000));
        drop(one);
        assert_eq!(untaken(&activity), 2_000);
        drop(sender);
        assert!(matches!(Pin::new(&mut answer).poll_frame(context), Poll::Ready(None)));
        assert_eq!(activity.in_flight.load(Ordering::SeqCst), 1, "the last part is not taken");
        assert!((0..12).any(|_| matches!(looked.look(&activity, &limits), Finding::NotTaking(_))));
        drop(two);
        assert_eq!((untaken(&activity), activity.in_flight.load(Ordering::SeqCst)), (0, 0));
    }

    #[test]
    fn what_a_connection_and_an_account_do_not_take_is_bounded() {
        let limits = LIMITS();
        let account: Arc<Use> = Arc::default();
        let connection = || Arc::new(Activity::new(Arc::clone(&account)));
        let (one, two) = (connection(), connection());
        let held = one.begin().answer(body(1 << 20), &limits).unwrap();
        assert!(!one.room(&limits) && !two.room(&limits), "both wait");
        assert!(one.begin().answer(body(1), &limits).is_none());
        assert_eq!(one.closing(), Some("too-much-untaken"));
        let more = two.begin().answer(body(1 << 19), &limits).unwrap();
        assert!(two.begin().answer(body(1), &limits).is_none());
        drop((held, more));
        assert_eq!(account.untaken.load(Ordering::Relaxed), 0);
        assert!(two.room(&limits));
    }

    #[test]
    fn who_takes_nothing_is_stalled_and_who_trickles_is_too_slow() {
        let limits = LIMITS();
        let (stalled, slow) = (activity(), activity());
        let _held = stalled.begin().answer(body(1_000), &limits).unwrap();
        let mut looked = Looked::default();
        assert_eq!(looked.look(&stalled, &limits), Finding::Alive);
        assert_eq!(looked.look(&stalled, &limits), Finding::Alive);
        assert_eq!(looked.look(&stalled, &limits), Finding::NotTaking("stalled"));

        let mut trickle = into_bytes(slow.begin().answer(body(1_000), &limits).unwrap());
        let mut looked = Looked::default();
        let findings: Vec<Finding> = (0..12)
            .map(|_| {
                trickle.advance(1);
                // Others are taken at once all the while.
                drop(into_bytes(slow.begin().answer(body(10), &limits).unwrap()));
                looked.look(&slow, &limits)
            })
            .collect();
        let (last, before) = findings.split_last().unwrap();
        assert!(before.iter().all(|finding| *finding == Finding::Alive));
        assert_eq!(*last, Finding::NotTaking("too-slow"));
    }

    #[test]
    fn a_socket_that_takes_nothing_is_stalled_without_an_answer_too() {
        let (activity, limits) = (activity(), LIMITS());
        drop(activity.begin());
        activity.wrote(Some(100));
        activity.wrote(None);
        let mut looked = Looked::default();
        let findings: Vec<Finding> = (0..4).map(|_| looked.look(&activity, &limits)).collect();
        assert_eq!(findings[3], Finding::NotTaking("stalled"));
        activity.wrote(Some(1));
        assert_eq!(Looked::default().look(&activity, &limits), Finding::Alive);
    }

    #[test]
    fn nothing_asked_is_idle_and_something_under_way_is_not() {
        let (activity, limits) = (activity(), LIMITS());
        let mut looked = Looked::default();
        assert_eq!(looked.look(&activity, &limits), Finding::NeverBegun);
        let under_way = activity.begin();
        let looks = |looked: &mut Looked, count| -> Vec<Finding> {
            (0..count).map(|_| looked.look(&activity, &limits)).collect()
        };
        assert!(looks(&mut looked, 20).iter().all(|finding| *finding == Finding::Alive));
        drop(under_way);
        assert_eq!(looks(&mut looked, 4).last(), Some(&Finding::Idle));
    }
}
