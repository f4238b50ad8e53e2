//! The request path of every data route, read top to bottom in [`Gateway::handle`]:
//!
//! ```text
//! 1 bytes -> Request        bounded, typed
//! 2 -> Caller               the certificate's organisation, in the register, active
//! 3 -> Fresh                the idempotency key is unbound, or the original answer is given again
//! 4 -> Facts                license, type, holder, grant, each with its version
//! 5 -> Permit | Denial      default deny
//! 6 -> Effect               the exact answer bytes and the exact change of state
//! 7 -> Committed            durable in the journal; facts that changed meanwhile lead back to 2
//! 8 -> answer + receipt
//! ```
//!
//! No answer leaves before step 7: [`Gateway::committed`] is the only way to an answer that says anything, and it
//! takes what the ledger gives back after its sync. What decides nothing (overload, journal full, time-out) is
//! [`Answer::undecided`]: a fixed body, counted and not journaled one by one.

use std::borrow::Cow;
use std::future::poll_fn;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dashmap::DashMap;
use http_body_util::BodyExt as _;
use hyper::body::Body;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName};
use ledger::{
    Bound, Command, Committed, DocumentKind, Key, Label, Ledger, License, Outcome, ReadError, Refused,
    RotateError,
};
use schemas::codes::{Code, Reason, Rule};
use schemas::identifier::{LicenseTypeCode, Uscc};
use schemas::license_type::LicenseType;
use schemas::routes::Route;
use tokio::sync::Notify;
use verifier::Hash;
use verifier::leaf::Open;
use verifier::receipt::Receipt;
use verifier::trust::Trust;

use crate::cosign::Cosigning;
use crate::current::Current;
use crate::decide::{self, Denial};
use crate::effect::{self, Builder, Effect, Entry, sha256};
use crate::facts::{self, Facts};
use crate::floor;
use crate::lane::Lane;
use crate::machine::Form;
use crate::meters::Meters;
use crate::participant::{Caller, Documents, Participant};
use crate::proposal;
use crate::refusal::{Fault, Language, Refusal, undecided};
use crate::request::{self, MAX_BODY_BYTES, Request};
use crate::room::{Held, Room};
use crate::server::Peer;
use crate::shed::Shed;
use crate::signer::Signers;

/// Longest time a request's body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// Within that time: what any body may take, and how fast one that takes longer must be, bytes a second.
const BODY_GRACE: Duration = Duration::from_secs(5);
const LEAST_BODY_RATE: f64 = 4_096.0;
/// Most bytes read of a body that is refused unread.
const MAX_DISCARDED_BYTES: usize = 8 << 20;
/// Longest wait for another request with the same idempotency key.
const TURN_DEADLINE: Duration = Duration::from_secs(10);
/// Requests under way at once and bytes of their bodies. What all of them commit together fits in the sequencer's queue.
const MAX_REQUESTS: usize = 4_000;
const MAX_BODIES_BYTES: usize = 256 << 20;
/// The same for organisations that are not registered and active. They are refused, and nothing else.
const MAX_STRANGERS_REQUESTS: usize = 64;
const MAX_STRANGERS_BODIES_BYTES: usize = 4 << 20;
/// Places for reads of the public log.
const PUBLIC_PLACES: usize = 8;
/// A `not-permitted` leaves a whole number of these after its request had arrived.
const DENIAL_STEP: Duration = Duration::from_millis(5);
/// A decision whose facts change is made again at most twice.
const ATTEMPTS: usize = 3;
/// Shortest and longest `Idempotency-Key`.
const IDEMPOTENCY_KEY_LENGTH: std::ops::RangeInclusive<usize> = 16..=64;
/// The headers of ours that a request may have, and what is nearly always said of its body.
const IDEMPOTENCY_KEY_NAME: &str = "Idempotency-Key";
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const RECEIPT: HeaderName = HeaderName::from_static("receipt");
/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Media type of refusals (RFC 9457).
const PROBLEM: &str = "application/problem+json";

/// Everything the request path works with.
pub struct Gateway {
    ledger: Ledger,
    cosigning: Arc<Cosigning>,
    register: Documents<Uscc, Participant>,
    types: Documents<LicenseTypeCode, LicenseType>,
    /// What is replaced when a new trust bundle is taken in; asked only where an envelope is signed or checked.
    signers: Current<Signers>,
    trust: Current<Trust>,
    policy: Hash,
    shed: Shed,
    meters: Meters,
    /// Requests under way by idempotency key: the second of two waits for the first.
    in_flight: DashMap<Key, Arc<tokio::sync::Mutex<()>>>,
    /// Room for the requests of active participants, and for those of all others.
    room: Room,
    strangers_room: Room,
    lanes: Lanes,
    /// How long a holder is kept after the last license ended, ms.
    retention_ms: u64,
    /// The log says the insider's reason of each refusal.
    tells_reasons: AtomicBool,
    /// Labels of the holders that are nobody, once they are in the journal.
    nobodies: OnceLock<Vec<Label>>,
    /// Wakes who changes the epoch. What is owed stands in the journal: see [`proposal::rotation_owed`].
    rotate: Notify,
}

/// Where what reads much from disk is read: each kind apart from the others.
pub struct Lanes {
    /// Pages of traces and log queries.
    pub pages: Arc<Lane<Uscc>>,
    /// Contents of search answers and pages of lists, and answers that are given again.
    pub searches: Arc<Lane<Uscc>>,
    /// The public log, for whoever is at an address.
    pub public: Arc<Lane<IpAddr>>,
}

impl Lanes {
    /// Lanes for this machine's processors.
    fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            pages: Lane::new((processors / 4).max(2)),
            searches: Lane::new(2 * processors),
            public: Lane::new(PUBLIC_PLACES),
        }
    }
}

/// Who a connection's client certificate, verified in the handshake, says the caller is.
#[derive(Clone, Copy, Debug)]
pub struct Certified {
    /// The organisation.
    pub organisation: Uscc,
    /// The first moment at which the certificate is no longer good, ms since 1970: a connection may outlive it.
    pub ends_at_ms: u64,
}

impl Certified {
    /// What the accept loop found; `None` without a client certificate.
    pub fn of(peer: &Peer) -> Option<Self> {
        Some(Self { organisation: peer.organisation?, ends_at_ms: peer.certificate_ends_ms? })
    }
}

/// A finished answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Bytes,
    /// Media type of the body.
    pub media_type: &'static str,
    /// Public code, for metrics.
    pub code: Code,
}

/// What arrived, before it is understood.
struct Received {
    /// `None` when it was not read to its end.
    body: Option<Bytes>,
    form: Form,
    language: Language,
    idempotency_key: Option<String>,
    inline_proof: bool,
    /// A refusal found while reading.
    refusal: Option<Refusal>,
    /// Asked to wait before the commit; heeded by test builds only.
    held: bool,
}

/// Step 3: whether this request was answered before.
enum Fresh {
    /// It was not; the key is bound when it commits.
    New(Option<(Key, Key)>),
    /// It was: the original answer is given again.
    Again(Bound),
}

/// Outcome of steps 2 to 6.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every request has an effect, and a box costs more than its move"
)]
enum Decided {
    Effect(Effect),
    Again(Answer),
    /// A fact has changed meanwhile.
    Changed,
}

/// A place in the queue of requests with one idempotency key; leaves no trace when dropped, also by a client that
/// disconnects.
struct Turn<'a> {
    in_flight: &'a DashMap<Key, Arc<tokio::sync::Mutex<()>>>,
    key: Key,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Ours and the map's are the last two: nobody else waits.
        self.in_flight.remove_if(&self.key, |_, lock| Arc::strong_count(lock) <= 2);
    }
}

impl Gateway {
    /// A gateway over an open ledger, which refuses to erase a holder for `retention_ms` after the last license ended.
    pub fn new(ledger: Ledger, signers: Signers, trust: Trust, shed: Shed, retention_ms: u64) -> Self {
        Self {
            cosigning: Arc::new(Cosigning::new(ledger.clone(), 0)),
            ledger,
            register: Documents::new(DocumentKind::Participant),
            types: Documents::new(DocumentKind::LicenseType),
            signers: Current::new(signers),
            trust: Current::new(trust),
            policy: sha256(floor::POLICY.as_bytes()),
            shed,
            meters: Meters::new(),
            in_flight: DashMap::new(),
            room: Room::new(MAX_REQUESTS, MAX_BODIES_BYTES),
            strangers_room: Room::new(MAX_STRANGERS_REQUESTS, MAX_STRANGERS_BODIES_BYTES),
            lanes: Lanes::new(),
            retention_ms,
            tells_reasons: AtomicBool::new(false),
            nobodies: OnceLock::new(),
            rotate: Notify::new(),
        }
    }

    /// The same with witnesses: the pages it answers lead to the checkpoints that these cosign.
    #[must_use]
    pub fn cosigned(self, cosigning: Arc<Cosigning>) -> Self {
        Self { cosigning, ..self }
    }

    /// From now on the log says of each refusal what only insiders learn, so that who builds a client finds out why; or no
    /// longer. Never of a production exchange.
    pub fn tell_reasons(&self, tell: bool) {
        self.tells_reasons.store(tell, Ordering::Relaxed);
    }

    /// Labels of the holders that are nobody, which never change. A log is made with them.
    fn nobodies(&self) -> &[Label] {
        if let Some(known) = self.nobodies.get() {
            return known;
        }
        let keys = facts::nobody_keys(&self.ledger);
        let labels: Option<Vec<Label>> =
            keys.map(|key| self.ledger.state().holder(&key).map(|holder| holder.label)).collect();
        match labels {
            Some(labels) => self.nobodies.get_or_init(|| labels),
            None => &[],
        }
    }

    /// The trust bundle in force.
    pub fn trust(&self) -> &Current<Trust> {
        &self.trust
    }

    /// The signing queues in force.
    pub fn signers(&self) -> &Current<Signers> {
        &self.signers
    }

    /// Resolves when two operators have asked for a change of epoch since the last call.
    pub async fn rotation_wanted(&self) {
        self.rotate.notified().await;
    }

    /// Whether a change of epoch that two operators asked for is still to be made.
    pub fn rotation_owed(&self) -> bool {
        proposal::rotation_owed(&self.ledger)
    }

    /// Changes the epoch, or finishes a change that was cut off. Blocks.
    ///
    /// # Errors
    /// [`RotateError`]; to be tried again.
    pub fn rotate(&self) -> Result<u32, RotateError> {
        self.ledger.rotate(|record| effect::system_entry(&self.policy, record))
    }

    /// The ledger, for the public and admin listeners.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Where what reads much from disk is read.
    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// Answers one request of an organisation whose client certificate was verified. A client that disconnects may
    /// cancel this at any await; what is in the sequencer's queue by then commits all the same, and a retry with the
    /// same idempotency key gets its answer.
    pub async fn handle<B>(
        &self,
        route: Route,
        caller: &Certified,
        http: hyper::Request<B>,
        misrouted: Option<Code>,
    ) -> Answer
    where
        B: Body<Data = Bytes, Error: Send> + Send + Unpin + 'static,
    {
        let started = Instant::now();
        let language = Language::preferred(http.headers());
        let answer = match self.decide_and_commit(route, caller, http, misrouted, language).await {
            Ok(answer) => answer,
            Err(code) => {
                self.shed.count(&caller.organisation, code);
                Answer::undecided(code, language)
            }
        };
        self.meters.answered(route, answer.code, started.elapsed());
        tracing::debug!(
            route = route.name(),
            organisation = caller.organisation.as_str(),
            code = answer.code.name(),
            micros = started.elapsed().as_micros(),
            "answered"
        );
        answer
    }

    async fn decide_and_commit<B>(
        &self,
        route: Route,
        caller: &Certified,
        http: hyper::Request<B>,
        misrouted: Option<Code>,
        language: Language,
    ) -> Result<Answer, Code>
    where
        B: Body<Data = Bytes, Error: Send> + Send + Unpin + 'static,
    {
        if self.shed.closed(&caller.organisation) {
            return Err(Code::TooManyRefusals);
        }
        // 1 bytes -> Request
        let room = if self.is_active(caller) { &self.room } else { &self.strangers_room };
        let mut held = room.enter(caller.organisation);
        let received = receive(http, misrouted, language, &mut held).await?;
        let request = self.typed(route, &received);
        let turn = self.turn(&caller.organisation, &received);
        let in_turn = match &turn {
            Some(turn) => {
                let wait = tokio::time::timeout(TURN_DEADLINE, turn.lock.lock());
                Some(wait.await.map_err(|_| Code::Overloaded)?)
            }
            None => None,
        };
        // Behind the turn, whose length another request of the caller's decides.
        let arrived = Instant::now();
        let answer = self.attempts(route, caller, &received, &request).await?;
        if answer.code == Code::NotPermitted {
            // Nothing is held meanwhile; the room goes after what stood in it.
            drop(request);
            drop(in_turn);
            drop(turn);
            drop(received);
            drop(held);
            // A license that exists takes a little longer than one that does not, whatever is made equal.
            tokio::time::sleep_until((arrived + denial_after(arrived.elapsed())).into()).await;
        }
        Ok(answer)
    }

    /// Whether a caller is a participant that may act now, by what is in memory: nothing that participants share is taken
    /// for anybody else. Step 2 decides.
    fn is_active(&self, caller: &Certified) -> bool {
        let now_ms = now_ms().max(self.ledger.state().time_ms());
        let (_, _, registered) =
            self.register.get(&self.ledger, &caller.organisation, facts::participant_key);
        registered.is_some_and(|registered| Caller::identify(registered, now_ms, caller).is_ok())
    }

    async fn attempts(
        &self,
        route: Route,
        caller: &Certified,
        received: &Received,
        request: &Result<Request<'_>, Refusal>,
    ) -> Result<Answer, Code> {
        let organisation = &caller.organisation;
        for _ in 0..ATTEMPTS {
            // Never behind the journal's time, which the commit is judged by.
            let now_ms = now_ms().max(self.ledger.state().time_ms());
            let mut facts = Facts::new(&self.ledger, &self.register, &self.types, now_ms);
            facts.ends_at(caller.ends_at_ms);
            let body = received.body.as_deref();
            let form = received.form;
            let mut entry = Entry {
                route,
                organisation,
                form,
                language: received.language,
                body,
                idempotency: None,
                now_ms,
                release_ms: 0,
            };
            let mut reason = Reason::None;
            // 2 to 6
            let effect = match self.decide(&mut facts, &mut entry, caller, request).await {
                Ok(Decided::Effect(effect)) => effect,
                Ok(Decided::Again(answer)) => return Ok(answer),
                Ok(Decided::Changed) => continue,
                Err(refusal) => match refusal.code {
                    // Not a decision: nothing was found out about the request. A record that is asked for by right and
                    // cannot be read is one, also where an earlier entry says that it was given.
                    code @ (Code::SignerUnavailable | Code::Overloaded) => return Err(code),
                    _ => {
                        reason = refusal.reason;
                        let action = request.as_ref().ok().map(|request| &request.action);
                        let context = self.context();
                        let concerned = action.map_or_else(Vec::new, |action| {
                            let mut concerned = decide::concerned(&context, &mut facts, organisation, action);
                            decide::level(&context, &mut facts, action, &mut concerned, self.nobodies());
                            concerned
                        });
                        let denial = Denial { refusal, concerned };
                        self.builder().denied(&entry, action, &denial).map_err(|refusal| refusal.code)?
                    }
                },
            };
            crate::hold::before_commit(received.held).await;
            // 7 -> Committed
            let (reads, ends_at_ms) = facts.into_reads();
            let rotates = effect.rotates;
            if effect.code != Code::Ok {
                // Before the entry is written: a client that disconnects does not save its budget.
                self.shed.refused(organisation);
            }
            let command = Command {
                permit_or_denial: effect.prepared,
                reads,
                // The ledger takes the last moment at which every fact holds; here it is the first at which one does not.
                ends_at_ms: ends_at_ms.saturating_sub(u64::from(ends_at_ms != u64::MAX)),
                inline_proof: received.inline_proof,
            };
            let committed = match self.ledger.commit(command).await {
                Ok(Outcome::Committed(committed)) => committed,
                Ok(Outcome::Changed) => continue,
                Err(Refused::Full) => return Err(Code::JournalFull),
                // For good: the operator knows, the caller goes to the successor.
                Err(Refused::Closed) => return Err(Code::LogClosed),
                Err(Refused::Overloaded) => return Err(Code::Overloaded),
                Err(Refused::Stopped) => return Err(Code::Internal),
                Err(Refused::Malformed(what)) => {
                    tracing::error!(what, route = route.name(), "a command was malformed");
                    return Err(Code::Internal);
                }
            };
            if rotates {
                self.rotate.notify_one();
            }
            if effect.code != Code::Ok && self.tells_reasons.load(Ordering::Relaxed) {
                tracing::info!(
                    index = committed.index,
                    route = route.name(),
                    organisation = organisation.as_str(),
                    code = effect.code.name(),
                    reason = reason.name(),
                    "refused"
                );
            }
            // 8 -> answer + receipt
            let Effect { status, code, answer, request_salt, .. } = effect;
            return Ok(self.committed(status, code, received.form, &answer, request_salt, committed));
        }
        Err(Code::FactsChanged)
    }

    /// Steps 2 to 6 for one set of facts.
    async fn decide(
        &self,
        facts: &mut Facts<'_>,
        entry: &mut Entry<'_>,
        certified: &Certified,
        request: &Result<Request<'_>, Refusal>,
    ) -> Result<Decided, Refusal> {
        // A request that cannot be read is refused without looking at who sends it: it asks nothing.
        let request = request.as_ref().map_err(Clone::clone)?;
        // 2 -> Caller
        let registered = facts
            .participant(&certified.organisation)
            .ok_or_else(|| Refusal::new(Code::UnknownParticipant))?;
        // Before anything is refused: what a suspended holder of a class tries is told no sooner than what it does.
        let class = request.action.context().and_then(|context| context.delay.as_deref());
        let release_ms = registered.release_ms(class, entry.now_ms);
        entry.release_ms = *release_ms.as_ref().unwrap_or(&0);
        let caller = Caller::identify(registered, facts.now_ms, certified)?;
        release_ms?;
        // 3 -> Fresh
        let again = match self.fresh(facts, entry.route, entry.organisation, request)? {
            Fresh::New(key) => {
                entry.idempotency = key;
                None
            }
            Fresh::Again(bound) if entry.route.changes_state() => {
                let original = self.original(entry, bound, request, None).await?;
                return Ok(Decided::Again(original.ok_or_else(|| Refusal::new(Code::Internal))?));
            }
            Fresh::Again(bound) => Some(bound),
        };
        // 4 -> Facts, 5 -> Permit | Denial
        let permit = decide::decide(&self.context(), facts, caller.participant(), &request.action)?;
        if let Some(bound) = again {
            // A disclosure is given again only while its right still holds, and the license still stands as it says; else the
            // request is judged like one without a key.
            let disclosed = decide::disclosed(facts, &permit);
            if let Some(answer) = self.original(entry, bound, request, disclosed).await? {
                // Nothing commits that would look again, and reading it back may have taken a while.
                return Ok(if facts.are_current() { Decided::Again(answer) } else { Decided::Changed });
            }
        }
        // 6 -> Effect
        let effect = self.builder().permitted(entry, caller.participant(), request, permit).await?;
        Ok(Decided::Effect(effect))
    }

    fn context(&self) -> decide::Context<'_> {
        decide::Context { ledger: &self.ledger, trust: &self.trust, retention_ms: self.retention_ms }
    }

    fn builder(&self) -> Builder<'_> {
        Builder {
            ledger: &self.ledger,
            cosigning: &self.cosigning,
            lanes: &self.lanes,
            signers: &self.signers,
            policy: &self.policy,
        }
    }

    fn typed<'a>(&self, route: Route, received: &'a Received) -> Result<Request<'a>, Refusal> {
        if let Some(refusal) = &received.refusal {
            return Err(refusal.clone());
        }
        if route.changes_state() && received.idempotency_key.is_none() {
            let (least, most) = (*IDEMPOTENCY_KEY_LENGTH.start(), *IDEMPOTENCY_KEY_LENGTH.end());
            let fault = Fault::header(IDEMPOTENCY_KEY_NAME, Rule::Required).bounds(least, most);
            return Err(Refusal::of(Code::IdempotencyKeyRequired, fault));
        }
        // A body that was not read to its end has its refusal.
        let body = received.body.as_ref().ok_or_else(|| Refusal::new(Code::Internal))?;
        // Some clients put a byte order mark before JSON, which RFC 8259 lets a reader pass over.
        let text = match received.form {
            Form::Json => body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body),
            Form::Machine => body,
        };
        Ok(Request {
            action: request::parse(route, received.form, text)?,
            form: received.form,
            body,
            idempotency_key: received.idempotency_key.as_deref(),
            inline_proof: received.inline_proof,
        })
    }

    fn idempotency_key(&self, organisation: &Uscc, key: &str) -> Key {
        self.ledger.keyed().key("idempotency", &[organisation.as_bytes(), key.as_bytes()])
    }

    /// The turn of a request with an idempotency key: the second of two with the same key waits for the first.
    fn turn(&self, organisation: &Uscc, received: &Received) -> Option<Turn<'_>> {
        let key = self.idempotency_key(organisation, received.idempotency_key.as_deref()?);
        let lock = Arc::clone(&self.in_flight.entry(key).or_default());
        Some(Turn { in_flight: &self.in_flight, key, lock })
    }

    fn fresh(
        &self,
        facts: &mut Facts<'_>,
        route: Route,
        organisation: &Uscc,
        request: &Request<'_>,
    ) -> Result<Fresh, Refusal> {
        // A page of many holders' records is sealed under no holder's key to be given again.
        let apart = matches!(route, Route::LogQuery | Route::GrantSearch);
        let key = request.idempotency_key.filter(|_| !apart);
        let Some(text) = key else { return Ok(Fresh::New(None)) };
        let key = self.idempotency_key(organisation, text);
        let asked = self.ledger.keyed().key("request", &[&[route.number()], request.body]);
        match self.ledger.state().idempotency(&key) {
            None => {
                facts.unbound(key);
                Ok(Fresh::New(Some((key, asked))))
            }
            Some(bound) if bound.request == asked => Ok(Fresh::Again(bound)),
            Some(_) => Err(Refusal::new(Code::IdempotencyConflict)),
        }
    }

    /// The answer and the receipt of the entry that bound an idempotency key, read back from the journal in a lane: the
    /// entry may be old, and the same key may be sent as often as its organisation likes.
    /// An inline proof is given against the published checkpoint, which covers the entry within a second.
    ///
    /// `None` when the answer discloses a license that does not stand like that any more.
    async fn original(
        &self,
        entry: &Entry<'_>,
        bound: Bound,
        request: &Request<'_>,
        disclosed: Option<(License, bool)>,
    ) -> Result<Option<Answer>, Refusal> {
        let (ledger, inline_proof) = (self.ledger.clone(), request.inline_proof);
        let read = self
            .lanes
            .searches
            .run(*entry.organisation, move || read_original(&ledger, &bound, inline_proof, disclosed));
        let (subject, committed, standing) = read.await.map_err(Refusal::new)??;
        let lost = || Refusal::new(Code::RecordUnavailable);
        let record =
            flatbuffers::root::<schemas::journal::SubjectRecord<'_>>(&subject).map_err(|_| lost())?;
        let answer = match (record.answer(), record.envelope()) {
            (Some(answer), _) => Cow::from(answer.bytes()),
            (None, Some(envelope)) => {
                let identifier = facts::identifier_in(envelope.bytes())?;
                effect::issue_answer(&identifier, envelope.bytes()).into()
            }
            (None, None) => return Err(lost()),
        };
        // The receipt is of these very bytes.
        if Open::parse(&committed.open).map_err(|_| lost())?.answer_digest != sha256(&answer) {
            tracing::error!(
                index = committed.index,
                "the original answer is another than the one that was given"
            );
            return Err(lost());
        }
        if let Some(standing) = standing
            && effect::disclosed_standing(request.form, &answer) != Some(standing)
        {
            return Ok(None);
        }
        let request_salt = effect::request_salt(record.told_salt().ok_or_else(lost)?.bytes());
        let status = entry.route.success_status();
        // The same body is of the same form.
        Ok(Some(self.committed(status, Code::Ok, request.form, &answer, request_salt, committed)))
    }

    /// An answer that says something: possible only with what the ledger gives back after its sync.
    fn committed(
        &self,
        status: u16,
        code: Code,
        form: Form,
        answer: &[u8],
        request_salt: Hash,
        committed: Committed,
    ) -> Answer {
        let receipt = Receipt {
            log: self.ledger.origin().to_owned(),
            index: committed.index,
            leaf_hash: committed.leaf_hash,
            open: committed.open,
            salt: committed.salt,
            c: committed.c,
            request_salt: Some(request_salt),
            proof: committed.proof.map(|proof| proof.to_text()),
        };
        let (body, media_type) = match (code, form) {
            (Code::Ok, Form::Machine) => (verifier::machine::attach(answer, &receipt), form.media_type()),
            (Code::Ok, Form::Json) => (verifier::receipt::attach(answer, &receipt), form.media_type()),
            _ => (verifier::receipt::attach(answer, &receipt), PROBLEM),
        };
        Answer { status, body: body.into(), media_type, code }
    }

    /// Journals what was shed since the last call; called once a second.
    pub async fn journal_shed(&self) {
        let counts = self.shed.take();
        if counts.is_empty() {
            return;
        }
        let prepared = effect::system(&self.policy, Vec::new(), &counts);
        if commit_system(&self.ledger, prepared).await.is_err() {
            self.shed.put_back(counts);
        }
    }

    /// Tells holders of the uses whose delay has ended, each with an entry of its own; called once a second. What is not
    /// committed now is due again the next time.
    pub async fn release_delayed(&self) {
        let now_ms = now_ms().max(self.ledger.state().time_ms());
        for due in self.ledger.state().due(now_ms) {
            let Ok(prepared) = self.builder().release(&due) else {
                tracing::error!(index = due.index, "a delayed use cannot be told: a holder has no key");
                continue;
            };
            if let Err(refused) = commit_system(&self.ledger, prepared).await {
                tracing::warn!(%refused, "a delayed use is not released yet");
                return;
            }
        }
    }

    /// Logs the digest of a snapshot that was written meanwhile; called once a second. When that fails the next call
    /// does it.
    pub async fn journal_snapshot(&self) {
        let Some(digest) = self.ledger.snapshot_to_log() else { return };
        if commit_system(&self.ledger, effect::state_digest(&self.policy, digest)).await.is_ok() {
            self.ledger.snapshot_logged(&digest);
        }
    }
}

impl Answer {
    /// An answer that decides nothing: a fixed body, no fact.
    pub fn undecided(code: Code, language: Language) -> Self {
        Self { status: code.status(), body: undecided(code, language).into(), media_type: PROBLEM, code }
    }
}

/// Writes first versions of documents (participants, license types) as one entry of the exchange itself.
pub async fn write_system_documents(
    ledger: &Ledger,
    policy: &Hash,
    documents: Vec<(DocumentKind, Key, Vec<u8>)>,
) -> Result<(), Refused> {
    commit_system(ledger, effect::system(policy, documents, &[])).await
}

pub(crate) async fn commit_system(ledger: &Ledger, prepared: ledger::Prepared) -> Result<(), Refused> {
    let command =
        Command { permit_or_denial: prepared, reads: Vec::new(), ends_at_ms: u64::MAX, inline_proof: false };
    match ledger.commit(command).await? {
        Outcome::Committed(_) => Ok(()),
        Outcome::Changed => Err(Refused::Stopped),
    }
}

/// Now, ms since 1970, by the machine's clock; the journal's time never decreases even if this does.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// When a denial leaves, counted from the arrival of its request: at the first whole step that its work left time for. So
/// the moment does not follow how long the work took, unless a step passes meanwhile.
fn denial_after(taken: Duration) -> Duration {
    let steps = taken.as_nanos() / DENIAL_STEP.as_nanos() + 1;
    DENIAL_STEP.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
}

/// Identifier of a disclosed license, and whether it is in force.
type Standing = (String, bool);

/// Reads what an answer is given again from: the `SubjectRecord` that holds it, its entry, and how the license that it discloses
/// stands now. Blocks for some reads.
fn read_original(
    ledger: &Ledger,
    bound: &Bound,
    inline_proof: bool,
    disclosed: Option<(License, bool)>,
) -> Result<(Vec<u8>, Committed, Option<Standing>), Refusal> {
    let standing = match disclosed {
        Some((license, in_force)) => {
            Some((facts::identifier_in(&facts::stored_envelope(ledger, &license)?)?, in_force))
        }
        None => None,
    };
    let (subject, mut committed) = ledger.original(bound).map_err(|error| {
        match error {
            ReadError::Missing(segment) => return facts::missing(segment),
            ReadError::KeyGone => return Refusal::new(Code::Erased),
            _ => {}
        }
        tracing::error!(index = bound.index, "the original answer cannot be read back");
        Refusal::new(Code::RecordUnavailable)
    })?;
    if inline_proof {
        committed.proof = ledger.proof(bound.index).ok().flatten();
    }
    Ok((subject, committed, standing))
}

/// Step 1: reads headers and body within their bounds.
async fn receive<B>(
    http: hyper::Request<B>,
    misrouted: Option<Code>,
    language: Language,
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
    let inline_proof = head.headers.get(RECEIPT).is_some_and(|value| value.as_bytes() == b"inline");
    let hold = crate::hold::asked(&head.headers);
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let whole = if misrouted.is_some() || declared > MAX_BODY_BYTES {
        held.take(0)?;
        None
    } else {
        read_body(&mut body, held).await?
    };
    let Some(whole) = whole else {
        discard(&head, body);
        return Ok(Received {
            body: None,
            form: Form::Json,
            language,
            idempotency_key: None,
            inline_proof,
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
        let types = [Form::Json, Form::Machine].map(Form::media_type);
        Some(Refusal::of(Code::WrongContentType, Fault::header("Content-Type", rule).one_of(types)))
    } else {
        bad_key.map(|fault| Refusal::of(Code::IdempotencyKeyRequired, fault))
    };
    let form = form.unwrap_or(Form::Json);
    Ok(Received { body: Some(whole), form, language, idempotency_key, inline_proof, refusal, held: hold })
}

/// Reads a body within its bounds of length and time, taking room as it arrives; `None` when it is longer.
async fn read_body<B>(body: &mut B, held: &mut Held<'_>) -> Result<Option<Bytes>, Code>
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
                let deadline = begun + (BODY_GRACE + earned).min(BODY_DEADLINE);
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
        if length > MAX_BODY_BYTES {
            held.take(0)?;
            return Ok(None);
        }
        // Room for what is kept, before it is: a body in one piece fits, one in many grows by doubling.
        let capacity = if length <= whole.capacity() {
            whole.capacity()
        } else {
            length.max((2 * whole.capacity()).min(MAX_BODY_BYTES))
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
    // HTTP/2 ends a stream without the connection. Who waits to be asked for the body is told without it.
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
        let _ = tokio::time::timeout(BODY_DEADLINE, rest).await;
    });
}

/// Whether the body was compressed or otherwise encoded.
fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// What the content type says; `None` when it is none that any route takes.
fn form(headers: &HeaderMap) -> Option<Form> {
    let value = headers.get(CONTENT_TYPE)?;
    let is = |media_type: &str| {
        let plain =
            |value: &str| value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(media_type);
        value.as_bytes() == media_type.as_bytes() || value.to_str().is_ok_and(plain)
    };
    [Form::Json, Form::Machine].into_iter().find(|form| is(form.media_type()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_leaves_at_a_step_whatever_its_work_took() {
        let after = |micros| denial_after(Duration::from_micros(micros)).as_micros();
        assert_eq!([0, 1, 120, 121, 4_999].map(after), [5_000; 5]);
        assert_eq!([5_000, 9_999].map(after), [10_000; 2]);
    }
}
