//! The path of a relayed call: a way to who is called, intent entry, call, outcome entry.
//!
//! The intent counts the use and opens a document of the call, under the idempotency key of its request. The outcome decides anew by
//! the facts of its moment, and closes the document. A call that failed keeps it for a day, so that its key calls nobody again.
//!
//! A crash between the two leaves the document open; the next start closes it by an outcome that is unknown. Where the journal
//! takes no outcome, the answer says `outcome-unknown`, and the ticker closes the document in the same process. The listener runs
//! this in a task of its own, so a client that disconnects leaves an outcome all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ledger::record::DocumentState;
use ledger::{DocumentKind, Key, Label, Refused};
use schemas::codes::{Code, Reason};
use schemas::routes::Route;
use tokio::task::AbortHandle;
use verifier::leaf::Stage;

use super::answer::Answer;
use super::called::{Called, Owed, REMEMBERED_MS};
use super::case::{Case, Place};
use super::change::{AT_ONCE_MS, Change, Effect, ended, random};
use super::names::Names;
use super::permit::{Denial, Permit, Terms};
use super::received::Received;
use super::tools::{Entry, Tools};
use super::{
    ATTEMPTS, Boxed, Gateway, Request, Ruled, carry_out, commit_system, counters, identify, may_use,
};
use crate::capability::Relayed;
use crate::meters;
use crate::participant::{Caller, Certified};
use crate::rights::admission;
use crate::rights::allowed::allowed;
use crate::wire::machine::Form;
use crate::wire::refusal::{Language, Refusal};

/// How often an outcome is decided anew before its data are dropped.
const OUTCOME_ATTEMPTS: usize = 16;
/// The words that holders are told beside the outcome of a call whose data were dropped, and of one that nobody knows.
const NOT_DELIVERED: &str = "fetched-not-delivered";
const UNKNOWN: &str = "outcome-unknown";
/// The cause of a call that ended well, for metrics.
const ANSWERED: &str = "answered";

/// A request that may be called for, and the way.
struct Ready<'a, 'r, C: Relayed<'r>> {
    caller: Caller,
    names: Names<'a>,
    permit: Permit<C::Granted>,
    terms: Terms,
    line: C::Line,
    place: Place,
}

/// Outcome of the steps before an intent.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every request is ready, and a box costs more than its move"
)]
enum Reached<'a, 'r, C: Relayed<'r>> {
    Ready(Ready<'a, 'r, C>),
    Again(Answer),
    /// A fact has changed meanwhile.
    Changed,
}

tokio::task_local! {
    /// The client of the call that a task makes.
    static CALLING: Arc<Calling>;
}

/// A call and its client, of whom each may end first.
#[derive(Default)]
struct Calling {
    /// The intent goes to the journal, or has: until then the task ends with its client.
    has_begun: AtomicBool,
    is_gone: AtomicBool,
}

/// A call in a task of its own. It has an outcome also where its client goes away behind the intent; before it, it ends with the
/// client, and with the right of a certificate that was revoked.
pub(crate) async fn in_task<T: Send + 'static>(call: impl Future<Output = T> + Send + 'static) -> Option<T> {
    let client = Arc::new(Calling::default());
    let task = tokio::spawn(CALLING.scope(Arc::clone(&client), call));
    let _ends = EndsEarly { task: task.abort_handle(), client };
    task.await.ok()
}

struct EndsEarly {
    task: AbortHandle,
    client: Arc<Calling>,
}

impl Drop for EndsEarly {
    fn drop(&mut self) {
        self.client.is_gone.store(true, Ordering::SeqCst);
        if !self.client.has_begun.load(Ordering::SeqCst) {
            self.task.abort();
        }
    }
}

/// A call whose intent is durable. Dropped before its outcome is, it is owed one.
struct Intent<'g> {
    index: u64,
    /// Key of its document.
    key: Key,
    /// Idempotency key and keyed hash of its request.
    bound: Option<(Key, Key)>,
    called: Called,
    owed: &'g Owed,
    has_outcome: bool,
}

impl Drop for Intent<'_> {
    fn drop(&mut self) {
        if !self.has_outcome {
            self.owed.add(self.key, self.index);
        }
    }
}

impl Gateway {
    /// The path of one relayed capability.
    pub(super) async fn relayed<'r, C: Relayed<'r>>(
        &self,
        caller: &Certified,
        received: &'r Received,
    ) -> Result<Answer, Code> {
        let request = Request::<'r, C>::read(received);
        let tools = self.tools();
        for _ in 0..ATTEMPTS {
            let (mut case, mut entry) = self.open(C::ROUTE, caller, received);
            // 2 to 5 as on every path, and a way
            let reached = self.reach(&tools, &mut case, &mut entry, caller, &request).await;
            let ready = match reached {
                Ok(Reached::Ready(ready)) => ready,
                Ok(Reached::Again(answer)) => return Ok(answer),
                Ok(Reached::Changed) => continue,
                Err(refusal) => {
                    let reason = refusal.reason;
                    let effect = self.deny(&tools, &mut case, &entry, &request, refusal)?;
                    match self.commit(&entry, received, case, effect, reason).await? {
                        Some(answer) => return Ok(answer),
                        None => continue,
                    }
                }
            };
            let asked = request.asked.as_ref().map_err(|refusal| refusal.code)?;
            let Ready { caller: identified, names, permit, terms, line, place } = ready;
            // The intent: it holds the facts and counts the use. It binds no key, because it answers nothing.
            let bound = entry.idempotency.take();
            let (_, key, _) = place.parts();
            let resource = names.resource.map(str::to_owned);
            let persons: Vec<_> = names.persons.iter().map(|person| person.holder).collect();
            let begun = Change::begin(&tools, &entry, identified.participant(), names, terms);
            let mut change = begun.map_err(|refusal| refusal.code)?;
            for person in persons {
                // Somebody named for the first time has a trace from the intent on.
                change.concern(person).map_err(|refusal| refusal.code)?;
            }
            let called = Called {
                route: C::ROUTE.number(),
                organisation: caller.organisation,
                request: bound.map(|(_, request)| hex::encode(request)),
                resource,
                after: self.ledger.size(),
                release_ms: entry.release_ms,
                concerned: change.concerned().iter().map(hex::encode).collect(),
                failed: None,
                reason: None,
            };
            change.keep(place, &called);
            let Effect { prepared, .. } = change.intent();
            // From here on it goes to its end, whoever has gone.
            let _ = CALLING.try_with(|client| client.has_begun.store(true, Ordering::SeqCst));
            let Some(committed) = self.durable(case, prepared, false).await? else {
                let client = CALLING.try_with(|client| {
                    client.has_begun.store(false, Ordering::SeqCst);
                    client.is_gone.load(Ordering::SeqCst)
                });
                // It went while the intent was on its way, which came to nothing.
                if client.unwrap_or(false) {
                    return Err(Code::FactsChanged);
                }
                continue;
            };
            let (index, owed) = (committed.index, &self.owed);
            let mut intent = Intent { index, key, bound, called, owed, has_outcome: false };
            let at = (self.ledger.origin(), intent.index);
            let calling: Boxed<'_, C::Reply> = Box::pin(C::call(asked, permit.granted(), line, at));
            let reply = calling.await;
            crate::hold::before_commit(received.held).await;
            let answer = self.outcome(&tools, caller, &request, &intent, reply).await;
            intent.has_outcome = answer.is_ok();
            // The use is counted, and the provider was asked: to try again would be another call, whatever kept the outcome out.
            return answer.map_err(|_| Code::OutcomeUnknown);
        }
        Err(Code::FactsChanged)
    }

    /// Steps 2 to 5 for one case, and a way to who is called.
    async fn reach<'a, 'r, C: Relayed<'r>>(
        &self,
        tools: &Tools<'_>,
        case: &mut Case<'_>,
        entry: &mut Entry<'_>,
        certified: &Certified,
        request: &'a Request<'r, C>,
    ) -> Result<Reached<'a, 'r, C>, Refusal> {
        let (caller, names, ruling) = match self.rule(tools, case, entry, certified, request).await? {
            Ruled::Ruling(caller, names, ruling) => (caller, names, ruling),
            Ruled::Again(answer) => return Ok(Reached::Again(answer)),
            Ruled::Changed => return Ok(Reached::Changed),
        };
        let key = match entry.idempotency {
            Some((key, _)) => key,
            // Its answer is not given again, because the right to it has changed: nobody is called a second time.
            None if request.received.idempotency_key.is_some() => {
                return Err(Refusal::new(Code::OutcomeUnknown));
            }
            None => random()?,
        };
        let (place, called) = case.document::<Called>(key);
        if let (Some(called), Some((_, asked))) = (called, &entry.idempotency) {
            return Err(called.again(asked));
        }
        let counters = counters(&ruling, case, caller.participant(), C::ROUTE, &names)?;
        let (permit, terms) = ruling.into_parts(counters);
        let reaching: Boxed<'_, C::Line> = Box::pin(C::reach(&self.outgoing, permit.granted()));
        let line = reaching.await.inspect_err(|refusal| meters::called(cause(refusal)))?;
        Ok(Reached::Ready(Ready { caller, names, permit, terms, line, place }))
    }

    /// The outcome of a call: the facts of now decide whether its data are given. They are dropped where they keep changing.
    async fn outcome<'r, C: Relayed<'r>>(
        &self,
        tools: &Tools<'_>,
        caller: &Certified,
        request: &Request<'r, C>,
        intent: &Intent<'_>,
        reply: Result<C::Reply, Refusal>,
    ) -> Result<Answer, Code> {
        let received = request.received;
        let asked = request.asked.as_ref().map_err(|refusal| refusal.code)?;
        for attempt in 1..=OUTCOME_ATTEMPTS {
            let (mut case, mut entry) = self.open(C::ROUTE, caller, received);
            entry.release_ms = intent.called.release_ms;
            let (place, _) = case.document::<Called>(intent.key);
            let judged = match &reply {
                Err(refusal) => Err(refusal.clone()),
                Ok(_) if attempt == OUTCOME_ATTEMPTS => Err(Refusal::new(Code::OutcomeUnknown)),
                Ok(reply) => {
                    self.judged_again::<C>(tools, &mut case, &mut entry, caller, asked, intent, reply, place)
                        .await
                }
            };
            let (effect, ended) = match judged {
                Ok(effect) => (effect, Ok(())),
                Err(refusal) => {
                    // A code that passes by itself is no outcome: its key is never asked for again.
                    let refusal =
                        if refusal.code.passes() { Refusal::new(Code::OutcomeUnknown) } else { refusal };
                    let mut names = C::names(asked, &caller.organisation);
                    if reply.is_ok() {
                        names.mode = Some(NOT_DELIVERED);
                    }
                    // The intent names the subject already, so nobody is put beside: there is nothing to hide.
                    let concerned = names.concerned(&mut case, &[]);
                    let called = intent.called.with(&refusal);
                    let document = failed(&entry, place, &called);
                    let denial = Denial { refusal, concerned };
                    entry.idempotency = None;
                    // Never sooner than the intent.
                    entry.release_ms = entry.release_ms.max(intent.called.release_ms);
                    let stage = Stage::Outcome { intent: intent.index };
                    let effect = Effect::denied(tools, &entry, Some(names), &denial, stage, Some(document));
                    (effect.map_err(|refusal| refusal.code)?, Err(denial.refusal))
                }
            };
            let reason = ended.as_ref().err().map_or(Reason::None, |refusal| refusal.reason);
            if let Some(answer) = self.commit(&entry, received, case, effect, reason).await? {
                meters::called(match &ended {
                    Ok(()) => ANSWERED,
                    Err(_) if reply.is_ok() => NOT_DELIVERED,
                    Err(refusal) => cause(refusal),
                });
                return Ok(answer);
            }
        }
        Err(Code::OutcomeUnknown)
    }

    /// Decides once more, by the facts of now, and makes the answer of the reply.
    #[expect(clippy::too_many_arguments, reason = "one call site, which has taken them apart")]
    async fn judged_again<'r, C: Relayed<'r>>(
        &self,
        tools: &Tools<'_>,
        case: &mut Case<'_>,
        entry: &mut Entry<'_>,
        certified: &Certified,
        asked: &C::Asked,
        intent: &Intent<'_>,
        reply: &C::Reply,
        place: Place,
    ) -> Result<Effect, Refusal> {
        let names = C::names(asked, entry.organisation);
        let caller = identify(case, entry, certified, names.delay())?;
        if !C::ROUTE.contract().roles.admit(&caller.participant().roles) {
            return Err(Refusal::new(Code::WrongRole));
        }
        may_use(case, caller.participant(), &names)?;
        admission::admit(case, caller.participant(), C::ROUTE, &names, certified.address)?;
        allowed(case, C::ROUTE, &caller, &names)?;
        let ruling = C::decide(case, caller.participant(), asked)?;
        // The use was counted by the intent.
        let (mut permit, terms) = ruling.into_parts(Vec::new());
        C::take(permit.granted_mut(), reply.clone(), entry.now_ms);
        entry.idempotency = intent.bound;
        let change = Change::begin(tools, entry, caller.participant(), names, terms)?;
        let mut change = change.at(Stage::Outcome { intent: intent.index });
        change.end(place, &intent.called);
        carry_out::<C>(change, asked, permit).await
    }

    /// Closes the calls that a crash left open, each by an entry: their outcome is unknown. How many there were.
    ///
    /// # Errors
    /// The journal takes no entry; the next start closes the rest.
    pub async fn close_calls(&self) -> Result<usize, Refused> {
        let mut closed = 0;
        for (key, document) in self.ledger.state().documents(DocumentKind::Call) {
            let Some(called) = Called::open(&document) else { continue };
            let Some(intent) = self.intent_of(&called, key).await else {
                tracing::error!("the intent of a call that a crash left open cannot be read back");
                continue;
            };
            closed += usize::from(self.close_call(key, &called, intent).await?);
        }
        Ok(closed)
    }

    /// The same for the calls of this process whose outcome the journal did not take; called once a second. One that it does not
    /// take now either is owed until the next call.
    pub async fn close_owed(&self) {
        for (key, intent) in self.owed.take() {
            let document = self.ledger.state().document(DocumentKind::Call, &key);
            // Its outcome may have been on its way when nobody waited for it any more.
            let Some(called) = document.and_then(|document| Called::open(&document)) else { continue };
            if !matches!(self.close_call(key, &called, intent).await, Ok(true)) {
                self.owed.add(key, intent);
            }
        }
    }

    /// Closes a call by an outcome that is unknown; whether it could be sealed.
    async fn close_call(&self, key: Key, called: &Called, intent: u64) -> Result<bool, Refused> {
        let now_ms = self.now_ms();
        let mut case = Case::open(&self.ledger, &self.known, now_ms);
        let (place, _) = case.document::<Called>(key);
        let entry = Entry {
            route: Route::from_number(called.route).unwrap_or(Route::None),
            organisation: &called.organisation,
            form: Form::Json,
            language: Language::English,
            body: None,
            idempotency: None,
            now_ms,
            release_ms: called.release_ms,
            policy: *case.policies().policies.hash(),
        };
        let concerned: Vec<Label> =
            called.labels().into_iter().filter(|label| case.is_living(label)).collect();
        let denial = Denial { refusal: Refusal::new(Code::OutcomeUnknown), concerned };
        let document = failed(&entry, place, &called.with(&denial.refusal));
        let names = Names { resource: called.resource.as_deref(), mode: Some(UNKNOWN), ..Names::default() };
        let stage = Stage::Outcome { intent };
        let effect = Effect::denied(&self.tools(), &entry, Some(names), &denial, stage, Some(document));
        let Ok(Effect { prepared, .. }) = effect else {
            tracing::error!(intent, "the outcome of a call cannot be sealed");
            return Ok(false);
        };
        commit_system(&self.ledger, prepared).await?;
        meters::called(cause(&denial.refusal));
        Ok(true)
    }

    /// Index of the intent that opened a call's document: soon behind the size that the log had then.
    async fn intent_of(&self, called: &Called, key: Key) -> Option<u64> {
        let (ledger, after) = (self.ledger.clone(), called.after);
        let kind = DocumentKind::Call.number();
        let find = move || {
            (after..ledger.size()).find(|index| {
                ledger.entry(*index).is_ok_and(|entry| {
                    let opens = |document: &DocumentState| {
                        (document.kind, document.key, document.version) == (kind, key, 1)
                    };
                    entry.record.documents.iter().any(opens)
                })
            })
        };
        tokio::task::spawn_blocking(find).await.ok().flatten()
    }
}

/// The document of a call that failed: it lasts as long as its key, if it has one.
fn failed(entry: &Entry<'_>, place: Place, called: &Called) -> DocumentState {
    let ends_ms =
        if called.request.is_some() { entry.now_ms.saturating_add(REMEMBERED_MS) } else { AT_ONCE_MS };
    ended(place, called, ends_ms)
}

/// The cause of a call's end, as metrics have it.
fn cause(refusal: &Refusal) -> &'static str {
    if refusal.reason == Reason::None { refusal.code.name() } else { refusal.reason.name() }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use bytes::Bytes;
    use http_body_util::Full;
    use ledger::{Ledger, Space};
    use schemas::identifier::Uscc;
    use schemas::routes::Route;
    use serde::Deserialize;
    use tokio::sync::Notify;
    use verifier::leaf::Open;
    use verifier::receipt::Receipt;

    use super::*;
    use crate::capability::Capability;
    use crate::gateway::names::Names;
    use crate::gateway::permit::{Permit, Ruling};
    use crate::gateway::received::receive;
    use crate::init;
    use crate::opening::{self, Trusted};
    use crate::outgoing::Outgoing;
    use crate::participant::Participant;
    use crate::shed::Shed;
    use crate::wire::read::{Body, json};
    use crate::wire::refusal::Language;
    use crate::wire::refusal::Refusal;

    static CALLS: AtomicUsize = AtomicUsize::new(0);
    /// A call that never ends is under way.
    static UNDER_WAY: Notify = Notify::const_new();
    /// The journal is full.
    static FULL: Notify = Notify::const_new();

    /// Has a number doubled elsewhere. 13 cannot be.
    struct Double;

    #[derive(Deserialize)]
    struct Asked {
        number: u64,
    }

    impl Capability<'_> for Double {
        const ROUTE: Route = Route::IssuedList;
        type Asked = Asked;
        type Granted = Option<u64>;

        fn read(body: Body<'_>) -> Result<Asked, Refusal> {
            json(body.bytes)
        }

        fn names<'a>(_asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
            Names::default()
        }

        fn decide(
            _case: &mut Case<'_>,
            _caller: &Participant,
            _asked: &Asked,
        ) -> Result<Ruling<Option<u64>>, Refusal> {
            Ok(Ruling::plain(None, Vec::new()))
        }

        async fn carry_out(
            _change: &mut Change<'_>,
            _asked: &Asked,
            permit: Permit<Option<u64>>,
        ) -> Result<Vec<u8>, Refusal> {
            let doubled = permit.into_granted().ok_or_else(|| Refusal::new(Code::Internal))?;
            Ok(format!("{{\"doubled\":{doubled}}}").into_bytes())
        }
    }

    impl Relayed<'_> for Double {
        type Line = ();
        type Reply = u64;

        async fn reach(_outgoing: &Outgoing, _granted: &Option<u64>) -> Result<(), Refusal> {
            Ok(())
        }

        async fn call(
            asked: &Asked,
            _granted: &Option<u64>,
            (): (),
            _intent: (&str, u64),
        ) -> Result<u64, Refusal> {
            CALLS.fetch_add(1, Ordering::Relaxed);
            match asked.number {
                13 => Err(Refusal::explained(Code::ProviderWrong, Reason::ProviderRows)),
                // The one who waits for it is gone before it ends.
                14 => {
                    UNDER_WAY.notify_one();
                    std::future::pending().await
                }
                // The journal has no room when it ends.
                15 => {
                    UNDER_WAY.notify_one();
                    FULL.notified().await;
                    Ok(30)
                }
                number => Ok(2 * number),
            }
        }

        fn take(granted: &mut Option<u64>, reply: u64, _now_ms: u64) {
            *granted = Some(reply);
        }
    }

    async fn sent(gateway: &Gateway, by: &Certified, key: &str, body: &str) -> (Vec<u8>, Receipt) {
        let answer = tried(gateway, by, key, body).await.expect("an answer");
        verifier::receipt::cut(&answer.body).expect("a receipt")
    }

    async fn tried(gateway: &Gateway, by: &Certified, key: &str, body: &str) -> Result<Answer, Code> {
        let request = hyper::Request::post("/").header("content-type", "application/json");
        let request = if key.is_empty() { request } else { request.header("idempotency-key", key) };
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).expect("a request");
        let room = crate::room::Room::new(64, 1 << 20);
        let mut held = room.enter(by.organisation);
        let contract = Route::IssuedList.contract();
        let received = receive(request, None, Language::English, contract, &mut held).await.expect("read");
        gateway.relayed::<Double>(by, &received).await
    }

    #[tokio::test]
    async fn a_relayed_call_has_an_intent_before_it_and_an_outcome_that_closes_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = init::development(folder.path(), None).expect("made");
        let keys = opening::ledger_keys(&opening::key_folder(&config).expect("keys")).expect("keys");
        let mut options = opening::ledger_options(&config);
        let has_room = Arc::new(AtomicBool::new(true));
        options.hooks.free_space = Some({
            let has_room = Arc::clone(&has_room);
            Arc::new(move |_| {
                let free_bytes = if has_room.load(Ordering::Relaxed) { 1 << 40 } else { 0 };
                Ok(Space { total_bytes: 1 << 40, free_bytes })
            })
        });
        let (ledger, _) = Ledger::open(options, keys).expect("opened");
        init::register_development(&ledger, &init::development_register()).await.expect("registered");
        let Trusted { trust, signers, .. } = Trusted::load(&config, 0).expect("trusted");
        let many = NonZeroU32::new(1_000).expect("a number");
        let gateway = Gateway::new(ledger.clone(), signers, trust, Shed::new(many, many), 0);
        let organisation = init::development_organisations()[0];
        let issuer =
            Certified { organisation, ends_at_ms: u64::MAX, address: std::net::Ipv4Addr::LOCALHOST.into() };
        let bank = Certified { organisation: init::development_organisations()[2], ..issuer };
        let open =
            |index: u64| Open::parse(&ledger.entry(index).expect("there").committed.open).expect("open");

        let (answer, receipt) = sent(&gateway, &issuer, "relayed-call-0001", "{\"number\":4}").await;
        assert_eq!((answer.as_slice(), CALLS.load(Ordering::Relaxed)), (&b"{\"doubled\":8}"[..], 1));
        let intent = receipt.index - 1;
        assert_eq!((open(intent).stage, open(intent).answer_digest), (Stage::Intent, [0; 32]));
        assert_eq!(Open::parse(&receipt.open).expect("open").stage, Stage::Outcome { intent });

        // The same request again: the answer from the journal, and no second call.
        let size = ledger.size();
        let (again, same) = sent(&gateway, &issuer, "relayed-call-0001", "{\"number\":4}").await;
        assert_eq!((again, same.index, ledger.size()), (answer, receipt.index, size));
        assert_eq!(CALLS.load(Ordering::Relaxed), 1);

        // A call that fails is an outcome, too, and its key calls nobody again.
        let (problem, receipt) = sent(&gateway, &issuer, "relayed-call-0002", "{\"number\":13}").await;
        assert!(String::from_utf8_lossy(&problem).contains("provider-wrong"));
        let closes = Stage::Outcome { intent: receipt.index - 1 };
        assert_eq!(Open::parse(&receipt.open).expect("open").stage, closes);
        let (problem, again) = sent(&gateway, &issuer, "relayed-call-0002", "{\"number\":13}").await;
        assert!(String::from_utf8_lossy(&problem).contains("provider-wrong"));
        assert_eq!(Open::parse(&again.open).expect("open").stage, Stage::Whole);
        let (problem, _) = sent(&gateway, &issuer, "relayed-call-0002", "{\"number\":4}").await;
        assert!(String::from_utf8_lossy(&problem).contains("idempotency-conflict"));
        assert_eq!(CALLS.load(Ordering::Relaxed), 2);

        // A call that is cut off leaves its intent. Until it is closed, and from then on, its key calls nobody again.
        for key in ["relayed-call-0003", ""] {
            let intent = ledger.size();
            let cut = sent(&gateway, &issuer, key, "{\"number\":14}");
            tokio::select! {
                _ = cut => panic!("it never ends"),
                () = UNDER_WAY.notified() => {}
            }
            assert_eq!((open(intent).stage, ledger.size()), (Stage::Intent, intent + 1));
        }
        let unknown = async |receipt: Option<u64>| {
            let (problem, _) = sent(&gateway, &issuer, "relayed-call-0003", "{\"number\":14}").await;
            assert!(String::from_utf8_lossy(&problem).contains("outcome-unknown"), "{receipt:?}");
        };
        unknown(None).await;
        let (size, intents) = (ledger.size(), [ledger.size() - 3, ledger.size() - 2]);
        assert_eq!(gateway.close_calls().await.expect("closed"), 2);
        let mut closed: Vec<_> = (size..size + 2).map(|index| open(index).stage).collect();
        closed.sort_by_key(|stage| match stage {
            Stage::Outcome { intent } => *intent,
            Stage::Whole | Stage::Intent => 0,
        });
        assert_eq!(closed, intents.map(|intent| Stage::Outcome { intent }));
        assert_eq!(gateway.close_calls().await.expect("closed"), 0, "each is closed once");
        unknown(Some(size)).await;
        assert_eq!(CALLS.load(Ordering::Relaxed), 4);

        // In this process they were closed at once, had the ticker come: nothing is owed any more.
        let size = ledger.size();
        gateway.close_owed().await;
        assert_eq!((ledger.size(), gateway.owed.take().len()), (size, 0));

        // An outcome that the journal does not take is unknown, and is closed once there is room. Nobody is told to try again.
        let intent = ledger.size();
        let full = async |full: bool| {
            has_room.store(!full, Ordering::Relaxed);
            while ledger.health().journal_full != full {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let until_full = async {
            UNDER_WAY.notified().await;
            full(true).await;
            FULL.notify_one();
        };
        let (answer, ()) =
            tokio::join!(tried(&gateway, &issuer, "relayed-call-0005", "{\"number\":15}"), until_full);
        assert_eq!(answer.err(), Some(Code::OutcomeUnknown));
        assert!(!Code::OutcomeUnknown.passes());
        gateway.close_owed().await;
        assert_eq!((ledger.size(), open(intent).stage), (intent + 1, Stage::Intent));
        full(false).await;
        gateway.close_owed().await;
        assert_eq!(open(intent + 1).stage, Stage::Outcome { intent });
        for _ in 0..2 {
            let (problem, _) = sent(&gateway, &issuer, "relayed-call-0005", "{\"number\":15}").await;
            assert!(String::from_utf8_lossy(&problem).contains("outcome-unknown"));
        }
        let size = ledger.size();
        gateway.close_owed().await;
        assert_eq!((gateway.close_calls().await.expect("closed"), ledger.size()), (0, size));
        assert_eq!(CALLS.load(Ordering::Relaxed), 5);

        // Nobody calls for who may not ask: a refusal alone.
        let size = ledger.size();
        let (problem, receipt) = sent(&gateway, &bank, "relayed-call-0004", "{\"number\":4}").await;
        assert!(String::from_utf8_lossy(&problem).contains("wrong-role"));
        assert_eq!((receipt.index, open(size).stage), (size, Stage::Whole));
        assert_eq!(CALLS.load(Ordering::Relaxed), 5);
        drop(gateway);
        tokio::task::spawn_blocking(move || ledger.close()).await.expect("closed");
    }
}
