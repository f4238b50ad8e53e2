//! The request path of every data route, read top to bottom in [`Gateway::handle`]:
//!
//! ```text
//! 1 bytes -> Asked          bounded, typed
//! 2 -> Caller               the certificate's organisation, in the register, active
//! 3 -> Fresh                the idempotency key is unbound, or the original answer is given again
//! 4 -> Case                 license, type, holder, grant, each with its version
//! 5 -> Ruling | Refusal     default deny
//! 6 -> Effect               the exact answer bytes and the exact change of state
//! 7 -> Committed            durable in the journal; facts that changed meanwhile lead back to 2
//! 8 -> answer + receipt
//! ```
//!
//! Each route says what is its own as a [`Capability`]; the arrows stand in the files of this folder. No answer leaves
//! before step 7: [`Answer::committed`] is the only way to an answer that says anything, and it takes what the ledger
//! gives back after its sync. A request that is not decided (overload, journal full, time-out) gets
//! [`Answer::undecided`]: a fixed body, counted and not journaled one by one.
//!
//! One gateway a process, called by the data listener. After a crash a request has a durable entry, answered or not, or
//! has left nothing.

mod again;
pub mod allowance;
pub mod answer;
mod batch;
mod called;
pub mod case;
pub mod change;
mod compacting;
pub mod dry;
mod evaluations;
mod figures;
pub mod names;
pub mod parsed;
pub mod permit;
mod received;
mod recount;
pub(crate) mod relayed;
pub(crate) mod retention;
pub mod seal;
mod signed;
pub mod source;
pub mod tools;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dashmap::DashMap;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use hyper::body::Body;
use ledger::record::CounterUse;
use ledger::{
    Bound, Command, Committed, DocumentKind, Key, Label, Ledger, Outcome, Prepared, PreparedSegment, Refused,
    RotateError, Writing,
};
use schemas::codes::{Code, Reason};
use schemas::identifier::Uscc;
use schemas::routes::Route;
use tokio::sync::Notify;
use verifier::Hash;
use verifier::leaf::Stage;
use verifier::trust::Trust;

use self::again::Disclosed;
use self::allowance::Allowance;
use self::answer::Answer;
use self::case::{Case, Known};
use self::change::{Change, Effect};
use self::parsed::Documents;
use self::permit::{Denial, Disclosure};
use self::received::{Received, receive};
use self::tools::{Entry, Lanes, Tools};
use crate::capability::{Capability, operators, with_capability};
use crate::cosign::Cosigning;
use crate::current::Current;
use crate::identity::Provider;
use crate::keyed;
use crate::meters::Meters;
use crate::moment::now_ms;
use crate::outgoing::Outgoing;
use crate::participant::{Caller, Certified, Participant};
use crate::rights::allowed::{allowed, allowed_by_code};
use crate::rights::in_force::InForce;
use crate::rights::{acting, admission};
use crate::room::Room;
use crate::sharing::clock::Clocks;
use crate::sharing::resource::Listed;
use crate::shed::Shed;
use crate::signer::Signers;
use crate::wire::machine::Form;
use crate::wire::refusal::{Language, Refusal, no};

/// Longest wait for another request with the same idempotency key.
const TURN_DEADLINE: Duration = Duration::from_secs(10);
/// Requests under way at once and bytes of their bodies. The commands of all of them together fit in the sequencer's queue.
const MAX_REQUESTS: usize = 4_000;
const MAX_BODIES_BYTES: usize = 256 << 20;
/// The same for organisations that are not registered and active. They are refused, and nothing else.
const MAX_STRANGERS_REQUESTS: usize = 64;
const MAX_STRANGERS_BODIES_BYTES: usize = 4 << 20;
/// A `not-permitted` leaves a whole number of these after its request had arrived.
const DENIAL_STEP: Duration = Duration::from_millis(5);
/// Most requests of a body in lines, and those of them that are under way at once: what they sync together is one write to the
/// disk.
const MAX_LINES: usize = 1_000;
const LINES_AT_ONCE: usize = 64;
/// A decision whose facts change is made again at most twice.
const ATTEMPTS: usize = 3;

/// Everything the request path works with.
pub struct Gateway {
    ledger: Ledger,
    cosigning: Arc<Cosigning>,
    /// Register, types and trust bundle.
    known: Known,
    /// Replaced when a new trust bundle is taken in; asked only where a license is signed.
    signers: Current<Signers>,
    shed: Shed,
    meters: Meters,
    /// Requests under way by idempotency key: the second of two waits for the first.
    in_flight: DashMap<Key, Arc<tokio::sync::Mutex<()>>>,
    /// How many batches of an organisation are under way.
    batches: batch::Batches,
    /// Room for the requests of active participants, and for those of all others.
    room: Room,
    strangers_room: Room,
    lanes: Lanes,
    /// Providers that are called.
    outgoing: Outgoing,
    /// Calls whose outcome the journal did not take.
    owed: called::Owed,
    /// The log says the insider's reason of each refusal.
    tells_reasons: AtomicBool,
    /// Labels of the holders that are nobody, once they are in the journal.
    nobodies: OnceLock<Vec<Label>>,
    /// Sum of the versions of the calendars that open clocks are counted by; the greatest number before they are.
    counted_by: AtomicU64,
    /// Wakes who changes the epoch. The journal says what is owed: see [`operators::rotation_owed`].
    rotate: Notify,
}

/// Step 3: whether this request was answered before.
enum Fresh {
    /// It was not; the key is bound when it commits.
    New(Option<(Key, Key)>),
    /// It was: the original answer is given again.
    Again(Bound),
}

/// A request before a case is opened: read once, decided as often as facts change meanwhile.
struct Request<'r, C: Capability<'r>> {
    received: &'r Received,
    /// A request that cannot be read is refused like any other.
    asked: Result<C::Asked, Refusal>,
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

/// Outcome of one attempt at steps 2 to 6.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every attempt is ready, and a box costs more than its move"
)]
enum Attempt {
    Ready(Command, Ready),
    Again(Answer),
    /// A fact has changed meanwhile.
    Changed,
}

/// The parts of an answer until its command is durable.
struct Ready {
    route: Route,
    organisation: Uscc,
    form: Form,
    reason: Reason,
    status: u16,
    code: Code,
    answer: Vec<u8>,
    rotates: bool,
    segments: Vec<PreparedSegment>,
    /// The turn to write rows, kept until the end.
    writing: Option<Writing>,
    request_salt: Hash,
    /// Allowances of which the caller is told what is left.
    allowances: Vec<Allowance>,
}

/// Outcome of steps 2 to 5.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every request is ruled, and a box costs more than its move"
)]
enum Ruled<'a, G> {
    Ruling(Caller, names::Names<'a>, permit::Ruling<G>),
    Again(Answer),
    /// A fact has changed meanwhile.
    Changed,
}

/// Work of a capability under way.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send + 'a>>;

/// A place in the queue of requests with one idempotency key; leaves no trace when dropped, also by a client that
/// disconnects.
struct Turn<'a> {
    in_flight: &'a DashMap<Key, Arc<tokio::sync::Mutex<()>>>,
    key: Key,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl Turn<'_> {
    /// Waits until no other request with the key is under way; the turn lasts as long as what this gives.
    async fn begin(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, Code> {
        tokio::time::timeout(TURN_DEADLINE, self.lock.lock()).await.map_err(|_| Code::Overloaded)
    }
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
            known: Known {
                register: Documents::default(),
                types: Documents::default(),
                trust: Current::new(trust),
                retention_ms,
                resources: Arc::default(),
                applications: Documents::default(),
                clocks: Clocks::default(),
                identity: None,
                policies: InForce::default(),
            },
            signers: Current::new(signers),
            shed,
            meters: Meters::new(),
            in_flight: DashMap::new(),
            batches: DashMap::new(),
            room: Room::new(MAX_REQUESTS, MAX_BODIES_BYTES),
            strangers_room: Room::new(MAX_STRANGERS_REQUESTS, MAX_STRANGERS_BODIES_BYTES),
            lanes: Lanes::new(),
            outgoing: Outgoing::none(),
            owed: called::Owed::default(),
            tells_reasons: AtomicBool::new(false),
            nobodies: OnceLock::new(),
            counted_by: AtomicU64::new(u64::MAX),
            rotate: Notify::new(),
        }
    }

    /// The same with witnesses: the pages it answers lead to the checkpoints that these cosign.
    #[must_use]
    pub fn cosigned(self, cosigning: Arc<Cosigning>) -> Self {
        Self { cosigning, ..self }
    }

    /// The same with clocks of data sharing that are configured.
    #[must_use]
    pub fn clocked(mut self, clocks: Clocks) -> Self {
        self.known.clocks = clocks;
        self
    }

    /// The same with an identity provider, whose assertions holders need from now on.
    #[must_use]
    pub fn identified(mut self, provider: Option<Arc<Provider>>) -> Self {
        self.known.identity = provider;
        self
    }

    /// The identity provider; nothing where none is configured.
    pub fn identity(&self) -> Option<&Provider> {
        self.known.identity.as_deref()
    }

    /// The same with providers that may be called.
    #[must_use]
    pub fn calling(self, outgoing: Outgoing) -> Self {
        Self { outgoing, ..self }
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
        let keys = keyed::nobody_keys(self.ledger.keyed());
        let labels: Option<Vec<Label>> =
            keys.map(|key| self.ledger.state().holder(&key).map(|holder| holder.label)).collect();
        match labels {
            Some(labels) => self.nobodies.get_or_init(|| labels),
            None => &[],
        }
    }

    /// The trust bundle in force.
    pub fn trust(&self) -> &Current<Trust> {
        &self.known.trust
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
        operators::rotation_owed(&self.ledger)
    }

    /// Changes the epoch, or finishes a change that was cut off. Blocks.
    ///
    /// # Errors
    /// [`RotateError`]; to be tried again.
    pub fn rotate(&self) -> Result<u32, RotateError> {
        let policy = self.policy();
        self.ledger.rotate(|record| seal::system_entry(&policy, record))
    }

    /// The policy hash of the exchange's own entries.
    fn policy(&self) -> Hash {
        self.known.policies.hash(&self.ledger)
    }

    /// The ledger, for the public and admin listeners.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The catalogue of resources, parsed.
    pub(crate) fn resources(&self) -> &Documents<Key, Listed> {
        &self.known.resources
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
        for code in answer.codes() {
            self.meters.answered(route, *code, started.elapsed());
        }
        tracing::debug!(
            route = route.name(),
            organisation = caller.organisation.as_str(),
            code = answer.code.name(),
            micros = started.elapsed().as_micros(),
            "answered"
        );
        answer
    }

    /// Room, body, turn and then the path of the route's capability.
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
        let room = self.room_of(caller);
        let mut held = room.enter(caller.organisation);
        let mut received = receive(http, misrouted, language, route.contract(), &mut held).await?;
        let turn = self.turn(&caller.organisation, &received);
        let in_turn = match &turn {
            Some(turn) => Some(turn.begin().await?),
            None => None,
        };
        // Behind the turn, whose length another request of the caller's decides.
        let arrived = Instant::now();
        let lines = received.lines(route.contract(), MAX_LINES);
        let answer = if route == Route::Evaluations {
            Box::pin(self.evaluations(caller, &received)).await?
        } else {
            with_capability!(route, self.path::<NoRoute>(caller, &received).await?, C => {
                match &lines {
                    None => self.path::<C>(caller, &received).await?,
                    Some(lines) => self.lines::<C>(caller, lines).await,
                }
            }, C => {
                // Behind a box: it is larger than the others, and they are asked more often.
                Box::pin(self.relayed::<C>(caller, &received)).await?
            })
        };
        // Each no to a question is one body, and takes the time of one.
        let of_question = matches!(route, Route::Evaluation | Route::Evaluations);
        let is_no = |code: &Code| of_question && no(Route::Evaluation, *code).is_some();
        let is_denial = |code: &&Code| **code == Code::NotPermitted || is_no(code);
        let denials = answer.codes().iter().filter(is_denial).count();
        if denials > 0 {
            // Nothing is held meanwhile; the room goes after what stood in it.
            drop(in_turn);
            drop(turn);
            drop(lines);
            drop(received);
            drop(held);
            // A license that exists takes a little longer than one that does not, whatever is made equal. Many denials of one
            // body take as many steps as if they had been asked for one by one: their sum tells no more.
            let step = DENIAL_STEP.saturating_mul(u32::try_from(denials).unwrap_or(u32::MAX));
            tokio::time::sleep_until((arrived + denial_after(arrived.elapsed(), step)).into()).await;
        }
        Ok(answer)
    }

    /// The room of a caller: strangers share nothing that participants do, by what is in memory. Step 2 decides.
    fn room_of(&self, caller: &Certified) -> &Room {
        let now_ms = self.now_ms();
        let (_, version, registered) =
            self.known.register.get(&self.ledger, &caller.organisation, keyed::participant_key);
        let is_active = registered
            .is_some_and(|registered| Caller::identify(registered, version, now_ms, caller).is_ok());
        if is_active { &self.room } else { &self.strangers_room }
    }

    /// Now, ms since 1970; never behind the journal's time, which a commit is judged by.
    fn now_ms(&self) -> u64 {
        now_ms().max(self.ledger.state().time_ms())
    }

    /// Opens a case now, with what its entry records.
    fn open<'a>(
        &'a self,
        route: Route,
        caller: &'a Certified,
        received: &'a Received,
    ) -> (Case<'a>, Entry<'a>) {
        let now_ms = self.now_ms();
        let mut case = Case::open(&self.ledger, &self.known, now_ms);
        case.ends_at(caller.ends_at_ms);
        let policy = *case.policies().policies.hash();
        (case, received.entry(route, &caller.organisation, now_ms, policy))
    }

    /// Many requests in one body: each is decided, journaled and answered on its own, some at once, and answered in its place.
    async fn lines<'r, C: Capability<'r>>(&self, caller: &Certified, lines: &'r [Received]) -> Answer {
        let (mut under_way, mut answers) = (FuturesOrdered::new(), Vec::with_capacity(lines.len()));
        let mut rest = lines.iter();
        loop {
            let free = LINES_AT_ONCE.saturating_sub(under_way.len());
            for line in rest.by_ref().take(free) {
                under_way.push_back(async move { (line, self.line::<C>(caller, line).await) });
            }
            let Some((line, answer)) = under_way.next().await else { break };
            answers.push(answer.unwrap_or_else(|code| {
                self.shed.count(&caller.organisation, code);
                Answer::undecided(code, line.language)
            }));
        }
        Answer::in_lines(&answers)
    }

    /// One of many requests. It takes room and a share of the caller's refusals like one that arrives alone.
    async fn line<'r, C: Capability<'r>>(
        &self,
        caller: &Certified,
        received: &'r Received,
    ) -> Result<Answer, Code> {
        if self.shed.closed(&caller.organisation) {
            return Err(Code::TooManyRefusals);
        }
        let mut held = self.room_of(caller).enter(caller.organisation);
        held.take(0)?;
        self.path::<C>(caller, received).await
    }

    /// The path of one capability.
    async fn path<'r, C: Capability<'r>>(
        &self,
        caller: &Certified,
        received: &'r Received,
    ) -> Result<Answer, Code> {
        // 1 bytes -> Asked
        self.path_of(caller, &Request::<'r, C>::read(received)).await
    }

    /// The path of a request that was read.
    async fn path_of<'r, C: Capability<'r>>(
        &self,
        caller: &Certified,
        request: &Request<'r, C>,
    ) -> Result<Answer, Code> {
        let (received, tools) = (request.received, self.tools());
        for _ in 0..ATTEMPTS {
            let (command, ready) = match self.attempt(&tools, caller, request).await? {
                Attempt::Ready(command, ready) => (command, ready),
                Attempt::Again(answer) => return Ok(answer),
                Attempt::Changed => continue,
            };
            crate::hold::before_commit(received.held).await;
            // 7 -> Committed, 8 -> answer + receipt
            let outcome = self.ledger.commit(command).await;
            if let Some(answer) = self.settle(ready, outcome)? {
                return Ok(answer);
            }
        }
        Err(Code::FactsChanged)
    }

    /// Steps 2 to 6, and of a refusal its step 6.
    async fn attempt<'r, C: Capability<'r>>(
        &self,
        tools: &Tools<'_>,
        caller: &Certified,
        request: &Request<'r, C>,
    ) -> Result<Attempt, Code> {
        let received = request.received;
        let (mut case, mut entry) = self.open(C::ROUTE, caller, received);
        let mut reason = Reason::None;
        let effect = match self.decide(tools, &mut case, &mut entry, caller, request).await {
            Ok(Decided::Effect(effect)) => effect,
            Ok(Decided::Again(answer)) => return Ok(Attempt::Again(answer)),
            Ok(Decided::Changed) => return Ok(Attempt::Changed),
            Err(refusal) => {
                reason = refusal.reason;
                self.deny(tools, &mut case, &entry, request, refusal)?
            }
        };
        let (command, ready) = self.ready(&entry, received, case, effect, reason);
        Ok(Attempt::Ready(command, ready))
    }

    /// Steps 2 to 6 for one case.
    async fn decide<'r, C: Capability<'r>>(
        &self,
        tools: &Tools<'_>,
        case: &mut Case<'_>,
        entry: &mut Entry<'_>,
        certified: &Certified,
        request: &Request<'r, C>,
    ) -> Result<Decided, Refusal> {
        let asked = request.asked.as_ref().map_err(Clone::clone)?;
        let (caller, names, ruling) = match self.rule(tools, case, entry, certified, request).await? {
            Ruled::Ruling(caller, names, ruling) => (caller, names, ruling),
            Ruled::Again(answer) => return Ok(Decided::Again(answer)),
            Ruled::Changed => return Ok(Decided::Changed),
        };
        // 6 -> Effect
        let counters = counters(&ruling, case, caller.participant(), C::ROUTE, &names)?;
        let (permit, terms) = ruling.into_parts(counters);
        let change = Change::begin(tools, entry, caller.participant(), names, terms)?;
        Ok(Decided::Effect(carry_out::<C>(change, asked, permit).await?))
    }

    /// Steps 2 to 5 for one case.
    async fn rule<'a, 'r, C: Capability<'r>>(
        &self,
        tools: &Tools<'_>,
        case: &mut Case<'_>,
        entry: &mut Entry<'_>,
        certified: &Certified,
        request: &'a Request<'r, C>,
    ) -> Result<Ruled<'a, C::Granted>, Refusal> {
        // A request that cannot be read is refused without looking at who sends it: it asks nothing.
        let asked = request.asked.as_ref().map_err(Clone::clone)?;
        let names = C::names(asked, entry.organisation);
        // 2 -> Caller
        let caller = identify(case, entry, certified, names.delay())?;
        may_use(case, caller.participant(), &names)?;
        // The type of what a code shows is found by the decision alone.
        let by_code = matches!(names.about, names::About::Code(_));
        if by_code {
            admission::admit_class(caller.participant(), C::ROUTE, &names, certified.address)?;
        } else {
            admission::admit(case, caller.participant(), C::ROUTE, &names, certified.address)?;
        }
        if entry.route.changes_state() {
            let signed = request.received.signed.as_ref();
            case.ends_at(signed::check(caller.participant(), signed, entry.now_ms)?);
        }
        // An answer is given again only to whom it would be given.
        if !C::ROUTE.contract().roles.admit(&caller.participant().roles) {
            return Err(Refusal::new(Code::WrongRole));
        }
        allowed(case, C::ROUTE, &caller, &names)?;
        // 3 -> Fresh
        let again = match self.fresh(case, entry, request.received)? {
            Fresh::New(key) => {
                entry.idempotency = key;
                None
            }
            Fresh::Again(bound) if entry.route.changes_state() => {
                if by_code {
                    admission::admit(case, caller.participant(), C::ROUTE, &names, certified.address)?;
                    allowed_by_code(case, C::ROUTE, &caller, &names)?;
                }
                let original = tools.original(entry, bound, request.received.inline_proof, None).await?;
                return Ok(Ruled::Again(original.ok_or_else(|| Refusal::new(Code::Internal))?));
            }
            Fresh::Again(bound) => Some(bound),
        };
        // 4 -> Case, 5 -> Ruling
        let ruling = C::decide(case, caller.participant(), asked);
        // Whose code it is learns nobody, and uses nobody up, who may not scan its type.
        let is_found = ruling.as_ref().map_or_else(|refusal| refusal.reason == Reason::OtherHolder, |_| true);
        if by_code && is_found {
            admission::admit(case, caller.participant(), C::ROUTE, &names, certified.address)?;
            allowed_by_code(case, C::ROUTE, &caller, &names)?;
        }
        let ruling = ruling?;
        if let Some(bound) = again.filter(|bound| C::changed_ms(ruling.granted()) <= bound.time_ms) {
            // A disclosure is given again only while its right still holds, and the license still stands as it says; else the
            // request is judged like one without a key.
            let right = Disclosure::again(&ruling);
            let disclosed = C::disclosed(case, ruling.granted());
            let disclosed = disclosed.map(|stands| Disclosed { stands, right });
            let original = tools.original(entry, bound, request.received.inline_proof, disclosed);
            if let Some(answer) = original.await? {
                // Nothing commits that would look again, and reading it back may have taken a while.
                return Ok(if case.is_current() { Ruled::Again(answer) } else { Ruled::Changed });
            }
        }
        Ok(Ruled::Ruling(caller, names, ruling))
    }

    /// Step 6 of a refusal.
    fn deny<'r, C: Capability<'r>>(
        &self,
        tools: &Tools<'_>,
        case: &mut Case<'_>,
        entry: &Entry<'_>,
        request: &Request<'r, C>,
        refusal: Refusal,
    ) -> Result<Effect, Code> {
        // Not a decision: nothing was found out about the request. A record that is asked for by right and
        // cannot be read is one, also where an earlier entry says that it was given.
        if matches!(refusal.code, Code::SignerUnavailable | Code::Overloaded) {
            return Err(refusal.code);
        }
        let names = request.asked.as_ref().ok().map(|asked| C::names(asked, entry.organisation));
        let concerned =
            names.as_ref().map(|names| names.concerned(case, self.nobodies())).unwrap_or_default();
        let spoiled = request.asked.as_ref().ok().and_then(|asked| C::spoiled(case, asked, &refusal));
        let denial = Denial { refusal, concerned };
        Effect::denied(tools, entry, names, &denial, Stage::Whole, spoiled).map_err(|refusal| refusal.code)
    }

    /// Step 7, and the answer of step 8; `None` when a fact has changed meanwhile.
    async fn commit(
        &self,
        entry: &Entry<'_>,
        received: &Received,
        case: Case<'_>,
        effect: Effect,
        reason: Reason,
    ) -> Result<Option<Answer>, Code> {
        let (command, ready) = self.ready(entry, received, case, effect, reason);
        let outcome = self.ledger.commit(command).await;
        self.settle(ready, outcome)
    }

    /// The command of step 7, and what becomes the answer once it is durable.
    fn ready(
        &self,
        entry: &Entry<'_>,
        received: &Received,
        mut case: Case<'_>,
        effect: Effect,
        reason: Reason,
    ) -> (Command, Ready) {
        let Effect { status, code, prepared, answer, rotates, segments, writing, request_salt, is_outcome } =
            effect;
        // The provider's doing is not held against the caller.
        if code != Code::Ok && code != Code::ProviderUnavailable && !is_outcome {
            // Before the entry is written: a client that disconnects does not save its budget.
            self.shed.refused(entry.organisation);
        }
        let (route, organisation, form) = (entry.route, *entry.organisation, entry.form);
        let ready = Ready {
            route,
            organisation,
            form,
            reason,
            status,
            code,
            answer,
            rotates,
            segments,
            writing,
            request_salt,
            allowances: case.take_allowances(),
        };
        (command(case, prepared, received.inline_proof), ready)
    }

    /// Step 8 behind what came of step 7; `None` when a fact has changed meanwhile.
    fn settle(&self, ready: Ready, outcome: Result<Outcome, Refused>) -> Result<Option<Answer>, Code> {
        let Ready {
            route,
            organisation,
            form,
            reason,
            status,
            code,
            answer,
            rotates,
            segments,
            writing: _writing,
            request_salt,
            allowances,
        } = ready;
        let Some(committed) = committed(outcome)? else {
            // Rows that nobody commits to. After a refusal only the journal knows, and the next start looks.
            segments.into_iter().for_each(PreparedSegment::discard);
            return Ok(None);
        };
        if rotates {
            self.rotate.notify_one();
        }
        if code != Code::Ok && self.tells_reasons.load(Ordering::Relaxed) {
            tracing::info!(
                index = committed.index,
                route = route.name(),
                organisation = organisation.as_str(),
                code = code.name(),
                reason = reason.name(),
                "refused"
            );
        }
        let origin = self.ledger.origin();
        let answer = Answer::committed(origin, status, code, form, &answer, request_salt, committed);
        let left = allowance::left(
            &allowances,
            code,
            || self.now_ms(),
            |key, day| self.ledger.state().counter(key, day),
        );
        Ok(Some(answer.with_limits(left)))
    }

    /// Step 7; `None` when a fact has changed meanwhile.
    async fn durable(
        &self,
        case: Case<'_>,
        prepared: Prepared,
        inline_proof: bool,
    ) -> Result<Option<Committed>, Code> {
        committed(self.ledger.commit(command(case, prepared, inline_proof)).await)
    }

    fn tools(&self) -> Tools<'_> {
        Tools {
            ledger: &self.ledger,
            cosigning: &self.cosigning,
            lanes: &self.lanes,
            signers: &self.signers,
            resources: &self.known.resources,
        }
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

    /// Step 3.
    fn fresh(&self, case: &mut Case<'_>, entry: &Entry<'_>, received: &Received) -> Result<Fresh, Refusal> {
        // An answer that is sealed under no one holder's key is not kept to be given again.
        let key = received.idempotency_key.as_deref().filter(|_| entry.route.contract().is_given_again);
        let (Some(text), Some(body)) = (key, entry.body) else { return Ok(Fresh::New(None)) };
        let key = self.idempotency_key(entry.organisation, text);
        let asked = self.ledger.keyed().key("request", &[&[entry.route.number()], body]);
        match case.bound(key) {
            None => Ok(Fresh::New(Some((key, asked)))),
            Some(bound) if bound.request == asked => Ok(Fresh::Again(bound)),
            Some(_) => Err(Refusal::new(Code::IdempotencyConflict)),
        }
    }

    /// Journals what was shed since the last call; called once a second.
    pub async fn journal_shed(&self) {
        let counts = self.shed.take();
        if counts.is_empty() {
            return;
        }
        let prepared = seal::system(&self.policy(), Vec::new(), &counts);
        if commit_system(&self.ledger, prepared).await.is_err() {
            self.shed.put_back(counts);
        }
    }

    /// Tells holders of the uses whose delay has ended, each with an entry of its own; called once a second. A use that
    /// is not told now is due again the next time.
    pub async fn release_delayed(&self) {
        let now_ms = self.now_ms();
        for due in self.ledger.state().due(now_ms) {
            let Ok(prepared) = self.tools().release(&self.policy(), &due) else {
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
        if commit_system(&self.ledger, seal::state_digest(&self.policy(), digest)).await.is_ok() {
            self.ledger.snapshot_logged(&digest);
        }
    }
}

/// The counters of a use: those of its ruling, and those of the line of the caller's limits that it comes under.
fn counters<G>(
    ruling: &permit::Ruling<G>,
    case: &mut Case<'_>,
    caller: &Participant,
    route: Route,
    names: &names::Names<'_>,
) -> Result<Vec<CounterUse>, Refusal> {
    let mut counters = admission::counters(case, caller, route, names)?;
    counters.append(&mut ruling.counters(case, &caller.organisation)?);
    Ok(counters)
}

/// The command of a decided case.
fn command(case: Case<'_>, prepared: Prepared, inline_proof: bool) -> Command {
    let (reads, ends_at_ms) = case.into_reads();
    Command {
        permit_or_denial: prepared,
        reads,
        // The ledger takes the last moment at which every fact holds; here it is the first at which one does not.
        ends_at_ms: ends_at_ms.saturating_sub(u64::from(ends_at_ms != u64::MAX)),
        inline_proof,
    }
}

/// The entry that a command became; `None` when a fact has changed meanwhile.
fn committed(outcome: Result<Outcome, Refused>) -> Result<Option<Committed>, Code> {
    match outcome {
        Ok(Outcome::Committed(committed)) => Ok(Some(committed)),
        Ok(Outcome::Changed) => Ok(None),
        Err(Refused::Full) => Err(Code::JournalFull),
        // For good: the operator knows, the caller goes to the successor.
        Err(Refused::Closed) => Err(Code::LogClosed),
        Err(Refused::Overloaded) => Err(Code::Overloaded),
        Err(Refused::Stopped) => Err(Code::Internal),
        Err(Refused::Malformed(what)) => {
            tracing::error!(what, "a command was malformed");
            Err(Code::Internal)
        }
    }
}

impl<'r, C: Capability<'r>> Request<'r, C> {
    fn read(received: &'r Received) -> Self {
        Self { received, asked: received.body(C::ROUTE.contract()).and_then(C::read) }
    }
}

/// Step 2: the caller, and until when a use of this delay class is kept from its holders.
fn identify(
    case: &mut Case<'_>,
    entry: &mut Entry<'_>,
    certified: &Certified,
    class: Option<&str>,
) -> Result<Caller, Refusal> {
    let (place, registered) = case.registration(&certified.organisation);
    let registered = registered.ok_or_else(|| Refusal::new(Code::UnknownParticipant))?;
    case.ends_at(registered.ends_at_ms());
    // Before anything is refused: what a suspended holder of a class tries is told no sooner than what it does.
    let release_ms = registered.release_ms(class, entry.now_ms);
    entry.release_ms = *release_ms.as_ref().unwrap_or(&0);
    let caller = Caller::identify(registered, place.version(), case.now_ms(), certified)?;
    release_ms?;
    Ok(caller)
}

/// Whether the caller has agreed to the purpose of a use, and may stand for the organisation that it names.
fn may_use(case: &mut Case<'_>, caller: &Participant, names: &names::Names<'_>) -> Result<(), Refusal> {
    let Some(context) = names.context else { return Ok(()) };
    // A use of a resource rests on an approval, whose application named the purpose.
    if names.resource.is_none() {
        caller.agreed(context.purpose.as_deref())?;
    }
    match &context.acting_for {
        Some(organisation) => acting::for_organisation(case, caller, organisation),
        None => Ok(()),
    }
}

/// Step 6 of a permit.
async fn carry_out<'r, C: Capability<'r>>(
    mut change: Change<'_>,
    asked: &C::Asked,
    permit: permit::Permit<C::Granted>,
) -> Result<Effect, Refusal> {
    // Behind a box, so that the compiler sees what it sends between threads (rust-lang/rust#100013).
    let carried: Boxed<'_, Vec<u8>> = Box::pin(C::carry_out(&mut change, asked, permit));
    let answer = carried.await?;
    Ok(change.permitted(answer))
}

/// A path without a capability: it is read to be refused.
struct NoRoute;

impl Capability<'_> for NoRoute {
    const ROUTE: Route = Route::None;
    type Asked = ();
    type Granted = std::convert::Infallible;

    fn read(_body: crate::wire::read::Body<'_>) -> Result<(), Refusal> {
        Err(Refusal::new(Code::NoSuchRoute))
    }

    fn names<'a>(_asked: &'a (), _caller: &Uscc) -> names::Names<'a> {
        names::Names::default()
    }

    fn decide(
        _case: &mut Case<'_>,
        _caller: &Participant,
        _asked: &(),
    ) -> Result<permit::Ruling<Self::Granted>, Refusal> {
        Err(Refusal::new(Code::NoSuchRoute))
    }

    async fn carry_out(
        _change: &mut Change<'_>,
        _asked: &(),
        permit: permit::Permit<Self::Granted>,
    ) -> Result<Vec<u8>, Refusal> {
        match permit.into_granted() {}
    }
}

/// Writes first versions of documents (participants, license types) as one entry of the exchange itself.
pub async fn write_system_documents(
    ledger: &Ledger,
    policy: &Hash,
    documents: Vec<(DocumentKind, Key, Vec<u8>)>,
) -> Result<(), Refused> {
    commit_system(ledger, seal::system(policy, documents, &[])).await
}

/// Commits an entry that rests on no fact.
pub(crate) async fn commit_system(ledger: &Ledger, prepared: Prepared) -> Result<(), Refused> {
    let command =
        Command { permit_or_denial: prepared, reads: Vec::new(), ends_at_ms: u64::MAX, inline_proof: false };
    match ledger.commit(command).await? {
        Outcome::Committed(_) => Ok(()),
        Outcome::Changed => Err(Refused::Stopped),
    }
}

/// Waits until an answer that tells nothing of a person may leave: at a whole step since its work began, like a denial.
pub(crate) async fn at_a_step(begun: Instant) {
    tokio::time::sleep_until((begun + denial_after(begun.elapsed(), DENIAL_STEP)).into()).await;
}

/// When a denial leaves, counted from the arrival of its request: at the first whole step that its work left time for. So
/// the moment does not follow how long the work took, unless a step passes meanwhile.
fn denial_after(taken: Duration, step: Duration) -> Duration {
    let steps = taken.as_nanos() / step.as_nanos() + 1;
    step.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_leaves_at_a_step_whatever_its_work_took() {
        let after = |micros| denial_after(Duration::from_micros(micros), DENIAL_STEP).as_micros();
        assert_eq!([0, 1, 120, 121, 4_999].map(after), [5_000; 5]);
        assert_eq!([5_000, 9_999].map(after), [10_000; 2]);
    }
}
