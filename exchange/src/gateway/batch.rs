//! Many requests in one body, answered while later ones are still decided: the sibling of [`Gateway::handle`] for
//! `POST /v1/verify/batch`. Each line is a request of its own and takes all eight steps; they take step 7 in groups. At the end
//! an entry commits to all answers, and one proof covers all entries.
//!
//! The data listener alone calls it; the work is in a task of its own, which ends when the client goes away or is cut off. A crash or such an
//! end leaves the entries of what was decided, answered or not, and no end.

use std::collections::{HashSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dashmap::DashMap;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use hyper::body::Body;
use ledger::{Command, KeyName};
use ring::digest::{Context, SHA256};
use schemas::codes::{Code, Reason};
use schemas::date::rfc3339;
use schemas::identifier::Uscc;
use schemas::routes::Route;
use tokio::sync::{Mutex, mpsc, oneshot};
use verifier::batch::{End, Multiproof, ProofLine};
use verifier::trace::Digest;

use super::answer::Answer;
use super::case::Case;
use super::change::{Change, Effect};
use super::names::Names;
use super::permit::Ruling;
use super::received::{Received, is_in_lines, receive};
use super::tools::Entry;
use super::{ATTEMPTS, Attempt, DENIAL_STEP, Gateway, Request, denial_after, identify};
use crate::capability::batch::Batch;
use crate::participant::{Caller, Certified};
use crate::room::{Held, Room};
use crate::server::{Parts, Work};
use crate::wire::object::json;
use crate::wire::refusal::{Language, Refusal};

const ROUTE: Route = Route::VerifyBatch;
/// Most requests of a batch.
const MAX_LINES: usize = 10_000;
/// Requests of one group, and groups under way at once: one is decided while those before it are written. A group costs a signature
/// and a sync whatever its size.
const GROUP: usize = 128;
const GROUPS_AHEAD: usize = 3;
/// After so many decisions others have their turn.
const TURN: usize = 32;
/// Groups that are answered and not taken, beside what the transport holds: beyond it nothing more is decided.
const PARTS_AHEAD: usize = 2;
/// Batches of one organisation at once.
const BATCHES: u32 = 4;
/// Longest that a batch is decided for; the same key goes on behind it. Ten thousand refusals at the usual budget take less.
const LONGEST: Duration = Duration::from_secs(600);
/// How often a batch looks whether there is room or budget again.
const PAUSE: Duration = Duration::from_millis(50);

/// The client has gone away, or has had all the time there is.
struct Gone;

/// Why a batch ends before its last line.
enum Ended {
    Gone,
    /// The caller may not ask any more.
    ShutOut,
}

impl From<Gone> for Ended {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// The batches under way of each organisation.
pub(super) type Batches = DashMap<Uscc, u32>;

/// One of them, until it is dropped.
struct UnderWay<'a> {
    batches: &'a Batches,
    organisation: Uscc,
}

impl<'a> UnderWay<'a> {
    /// One more, unless an organisation has as many as it may.
    fn begin(batches: &'a Batches, organisation: Uscc) -> Result<Self, Code> {
        let mut count = batches.entry(organisation).or_insert(0);
        if *count >= BATCHES {
            return Err(Code::Overloaded);
        }
        *count += 1;
        Ok(Self { batches, organisation })
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.batches.remove_if_mut(&self.organisation, |_, count| {
            *count -= 1;
            *count == 0
        });
    }
}

/// The answer under way.
struct Writing {
    out: mpsc::Sender<Bytes>,
    /// Until the first part is there: from then on the answer is one in parts.
    begin: Option<(oneshot::Sender<Answer>, mpsc::Receiver<Bytes>)>,
    digest: Context,
    permitted: u64,
    refused: u64,
    undecided: u64,
    /// Entries of the answers.
    indexes: Vec<u64>,
}

impl Writing {
    fn new(begin: oneshot::Sender<Answer>) -> Self {
        let (out, parts) = mpsc::channel(PARTS_AHEAD);
        let begin = Some((begin, parts));
        let digest = Context::new(&SHA256);
        Self { out, begin, digest, permitted: 0, refused: 0, undecided: 0, indexes: Vec::new() }
    }

    /// Gives the answers of a group, in their order.
    async fn answers(&mut self, answers: &[Answer]) -> Result<(), Gone> {
        let length = answers.iter().map(|answer| answer.body.len() + 1).sum();
        let mut part = Vec::with_capacity(length);
        for answer in answers {
            part.extend_from_slice(&answer.body);
            part.push(b'\n');
            let count = match (answer.index, answer.code) {
                (None, _) => &mut self.undecided,
                (Some(_), Code::Ok) => &mut self.permitted,
                (Some(_), _) => &mut self.refused,
            };
            *count += 1;
            self.indexes.extend(answer.index);
        }
        self.digest.update(&part);
        self.part(part).await
    }

    async fn part(&mut self, part: Vec<u8>) -> Result<(), Gone> {
        if let Some((begin, parts)) = self.begin.take() {
            begin.send(Answer::in_parts(Parts::new(parts))).map_err(|_| Gone)?;
        }
        self.out.send(part.into()).await.map_err(|_| Gone)
    }

    /// The document of the end.
    fn end(&self, now_ms: u64) -> End {
        let digest = self.digest.clone().finish();
        End {
            end: true,
            lines: self.permitted + self.refused + self.undecided,
            permitted: self.permitted,
            refused: self.refused,
            undecided: self.undecided,
            digest: Digest(digest.as_ref().try_into().expect("a SHA-256 digest has 32 bytes")),
            as_of: rfc3339(now_ms),
        }
    }

    /// Resolves when the client has gone away.
    async fn gone(&mut self) {
        match &mut self.begin {
            Some((begin, _)) => begin.closed().await,
            None => self.out.closed().await,
        }
    }

    /// Whether the client has gone away by now.
    fn has_gone(&self) -> bool {
        match &self.begin {
            Some((begin, _)) => begin.is_closed(),
            None => self.out.is_closed(),
        }
    }

    /// An answer in place of all this, if nothing was given yet.
    fn instead(self, answer: Answer) {
        if let Some((begin, _)) = self.begin {
            // A client that has gone away needs none.
            let _ = begin.send(answer);
        }
    }
}

impl Gateway {
    /// Answers a batch of an organisation whose client certificate was verified. The answer begins when its first group is durable.
    pub async fn batch<B>(
        self: Arc<Self>,
        caller: Certified,
        http: hyper::Request<B>,
        misrouted: Option<Code>,
    ) -> Answer
    where
        B: Body<Data = Bytes, Error: Send> + Send + Unpin + 'static,
    {
        if misrouted.is_some() || !is_in_lines(http.headers()) {
            return self.handle(ROUTE, &caller, http, misrouted).await;
        }
        let language = Language::preferred(http.headers());
        let (begin, begun) = oneshot::channel();
        let task = tokio::spawn(async move {
            let started = Instant::now();
            let mut writing = Writing::new(begin);
            let whole = match self.in_groups(&caller, http, language, &mut writing).await {
                Ok(None) => return,
                Ok(Some(answer)) => answer,
                Err(code) => {
                    self.shed.count(&caller.organisation, code);
                    Answer::undecided(code, language)
                }
            };
            self.meters.answered(ROUTE, whole.code, started.elapsed());
            writing.instead(whole);
        });
        // It ends with this, and then with the answer: whoever is cut off is decided nothing any more.
        let work = Work::of(&task);
        let answer = begun.await.unwrap_or_else(|_| Answer::undecided(Code::Internal, language));
        answer.made_by(work)
    }

    /// Room, body, turn, and then group by group. An answer in place of all: the body is refused as a whole.
    async fn in_groups<B>(
        &self,
        caller: &Certified,
        http: hyper::Request<B>,
        language: Language,
        writing: &mut Writing,
    ) -> Result<Option<Answer>, Code>
    where
        B: Body<Data = Bytes, Error: Send> + Send + Unpin + 'static,
    {
        if self.shed.closed(&caller.organisation) {
            return Err(Code::TooManyRefusals);
        }
        let _under_way = UnderWay::begin(&self.batches, caller.organisation)?;
        let mut room = self.room_of(caller);
        let mut held = room.enter(caller.organisation);
        // A client that was answered otherwise meanwhile, or that has gone, is told nothing: nothing is decided for it.
        let mut received = tokio::select! {
            biased;
            () = writing.gone() => return Ok(None),
            received = receive(http, None, language, ROUTE.contract(), &mut held) => received?,
        };
        let turn = self.turn(&caller.organisation, &received);
        let in_turn = match &turn {
            Some(turn) => Some(turn.begin().await?),
            None => None,
        };
        if writing.has_gone() {
            return Ok(None);
        }
        let Some(lines) = received.lines(ROUTE.contract(), MAX_LINES) else {
            return self.path::<Batch>(caller, &received).await.map(Some);
        };
        if let Some(refused) = self.at_the_door(caller, &received).await? {
            return Ok(Some(refused));
        }
        // A caller that was let in has the room of participants, whatever it was when the body came.
        room = self.room_of(caller);
        match self.answered(caller, &received, room, &lines, writing).await {
            Ok(()) => {}
            Err(Ended::Gone) => return Ok(None),
            Err(Ended::ShutOut) => return self.shut_out(caller, &received, writing).await,
        }
        let end = self.end(caller, &received, writing).await;
        // The proof needs nothing of the request, and may take a moment.
        drop(in_turn);
        drop(turn);
        drop(lines);
        drop(received);
        drop(held);
        let (index, end) = match end {
            Ok(end) => end,
            Err(code) => {
                self.shed.count(&caller.organisation, code);
                return Ok(None);
            }
        };
        let mut ends = match self.proof(caller, std::mem::take(&mut writing.indexes), index).await {
            Some(proof) => [json(&ProofLine { proof }), b"\n".to_vec()].concat(),
            None => Vec::new(),
        };
        ends.extend_from_slice(&end);
        ends.push(b'\n');
        // A client that has gone away by now needs none.
        let _ = writing.part(ends).await;
        Ok(None)
    }

    /// Decides and answers all lines, group by group.
    async fn answered(
        &self,
        caller: &Certified,
        received: &Received,
        room: &Room,
        lines: &[Received],
        writing: &mut Writing,
    ) -> Result<(), Ended> {
        // Lines are decided and queued in their order, whatever a group waits for then.
        let deciding = Mutex::new(());
        let begun = Instant::now();
        let (mut rest, mut ahead, mut under_way) = (lines, 0, FuturesOrdered::new());
        let mut ready: VecDeque<Vec<Answer>> = VecDeque::new();
        let mut shut_out = false;
        loop {
            // Once for a group, not once a line: what it was let in by may have ended.
            shut_out = shut_out || !rest.is_empty() && self.is_shut_out(caller, received);
            while !shut_out && under_way.len() + ready.len() < GROUPS_AHEAD && begun.elapsed() < LONGEST {
                // Where all were refused, the organisation would not be shut out for it: its other requests go on.
                let budget = self.shed.left(&caller.organisation).saturating_sub(ahead);
                let mut places = room.enter(caller.organisation);
                // A group is as large as there is room for.
                let mut size = GROUP.min(rest.len()).min(budget);
                while size > 0 && places.take_more(size).is_err() {
                    size /= 2;
                }
                let Some((group, later)) = rest.split_at_checked(size).filter(|_| size > 0) else {
                    break;
                };
                (rest, ahead) = (later, ahead + group.len());
                under_way.push_back(self.group(caller, group, places, &deciding, begun));
            }
            let next = match ready.pop_front() {
                Some(answers) => Some(answers),
                None => under_way.next().await,
            };
            let Some(answers) = next else {
                if rest.is_empty() {
                    return Ok(());
                }
                if shut_out {
                    return Err(Ended::ShutOut);
                }
                if begun.elapsed() >= LONGEST {
                    return Err(Ended::Gone);
                }
                tokio::select! {
                    () = writing.gone() => return Err(Ended::Gone),
                    () = tokio::time::sleep(PAUSE) => continue,
                }
            };
            ahead -= answers.len();
            // Groups go on while a slow reader is waited for: they give back their places, and nothing runs out meanwhile.
            let mut sent = pin!(writing.answers(&answers));
            loop {
                tokio::select! {
                    biased;
                    sent = &mut sent => break sent?,
                    Some(more) = under_way.next(), if !under_way.is_empty() => ready.push_back(more),
                }
            }
        }
    }

    /// A caller that may not ask at all is refused once, for all lines; `None` for one that may.
    async fn at_the_door(&self, caller: &Certified, received: &Received) -> Result<Option<Answer>, Code> {
        let tools = self.tools();
        for _ in 0..ATTEMPTS {
            let (mut case, mut entry) = self.open(ROUTE, caller, received);
            let Err(refusal) = admitted(&mut case, &mut entry, caller, ROUTE) else { return Ok(None) };
            let reason = refusal.reason;
            let request = Request::<'_, Batch> { received, asked: Err(refusal.clone()) };
            let effect = self.deny(&tools, &mut case, &entry, &request, refusal)?;
            if let Some(answer) = self.commit(&entry, received, case, effect, reason).await? {
                return Ok(Some(answer));
            }
        }
        Err(Code::FactsChanged)
    }

    /// Whether the caller may not ask any more.
    fn is_shut_out(&self, caller: &Certified, received: &Received) -> bool {
        let (mut case, mut entry) = self.open(ROUTE, caller, received);
        admitted(&mut case, &mut entry, caller, ROUTE).is_err()
    }

    /// One refusal for all lines that were not decided: behind the answers that were given, or in place of all. There is no end.
    async fn shut_out(
        &self,
        caller: &Certified,
        received: &Received,
        writing: &mut Writing,
    ) -> Result<Option<Answer>, Code> {
        let Some(refused) = self.at_the_door(caller, received).await? else { return Ok(None) };
        if writing.begin.is_some() {
            return Ok(Some(refused));
        }
        self.meters.answered(ROUTE, refused.code, Duration::ZERO);
        let _ = writing.part([&refused.body[..], b"\n"].concat()).await;
        Ok(None)
    }

    /// Decides a group line by line, and makes it durable at once. Its answers, in their order.
    async fn group(
        &self,
        caller: &Certified,
        lines: &[Received],
        places: Held<'_>,
        deciding: &Mutex<()>,
        arrived: Instant,
    ) -> Vec<Answer> {
        let turn = deciding.lock().await;
        let begun = Instant::now();
        // All groups leave at whole steps from one moment: what lies between two tells nothing of the work of the first.
        let step_before = denial_after(arrived.elapsed(), DENIAL_STEP).saturating_sub(DENIAL_STEP);
        let tools = self.tools();
        let (mut commands, mut readied) = (Vec::with_capacity(lines.len()), Vec::with_capacity(lines.len()));
        let (mut outcomes, mut born) = (Vec::with_capacity(lines.len()), HashSet::new());
        for (number, line) in lines.iter().enumerate() {
            if number % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            let request = Request::<'_, Batch>::read(line);
            let mut attempt = self.attempt(&tools, caller, &request).await;
            // A key is born once: the line that bears it commits before the next one of its holder, which keeps its place.
            if matches!(&attempt, Ok(Attempt::Ready(command, _)) if bears(command).any(|name| born.contains(&name)))
            {
                outcomes.extend(self.ledger.commit_all(std::mem::take(&mut commands)).await);
                born.clear();
                if let Ok(Attempt::Ready(_, ready)) = &attempt {
                    self.decides_again(caller, ready.code);
                }
                attempt = self.attempt(&tools, caller, &request).await;
            }
            readied.push(match attempt {
                Ok(Attempt::Ready(command, ready)) => {
                    born.extend(bears(&command));
                    commands.push(command);
                    Ok(Some(ready))
                }
                Ok(Attempt::Again(answer)) => Err(Ok(answer)),
                Ok(Attempt::Changed) => Ok(None),
                Err(code) => Err(Err(code)),
            });
        }
        crate::hold::before_commit(lines.iter().any(|line| line.held)).await;
        let last = self.ledger.commit_all(commands);
        drop(turn);
        outcomes.extend(last.await);
        let mut outcomes = outcomes.into_iter();
        let mut answers = Vec::with_capacity(lines.len());
        for (line, readied) in lines.iter().zip(readied) {
            let settled = match readied {
                Ok(Some(ready)) => {
                    let code = ready.code;
                    let settled = match outcomes.next() {
                        Some(outcome) => self.settle(ready, outcome),
                        None => Err(Code::Internal),
                    };
                    if matches!(settled, Ok(None)) {
                        self.decides_again(caller, code);
                    }
                    settled
                }
                Ok(None) => Ok(None),
                Err(answer) => answer.map(Some),
            };
            // A fact has changed meanwhile: perhaps by a line before it.
            let answer = match settled {
                Ok(Some(answer)) => Ok(answer),
                Ok(None) => self.path::<Batch>(caller, line).await,
                Err(code) => Err(code),
            };
            answers.push(answer.unwrap_or_else(|code| {
                self.shed.count(&caller.organisation, code);
                Answer::undecided(code, line.language)
            }));
        }
        drop(places);
        let denials = answers.iter().filter(|answer| answer.code == Code::NotPermitted).count();
        if denials > 0 {
            // Like in a body of lines, many denials take as many steps as if they had been asked for one by one.
            let step = DENIAL_STEP.saturating_mul(u32::try_from(denials).unwrap_or(u32::MAX));
            let since = arrived + step_before;
            tokio::time::sleep_until((since + denial_after(since.elapsed(), step)).into()).await;
        }
        for answer in &answers {
            self.meters.answered(ROUTE, answer.code, begun.elapsed());
        }
        answers
    }

    /// A line whose decision is made again is charged for the one that counts: else a group that takes all of the budget would
    /// overdraw it, and shut out the organisation's other requests.
    fn decides_again(&self, caller: &Certified, code: Code) {
        if code != Code::Ok {
            self.shed.refunded(&caller.organisation);
        }
    }

    /// The last line, and the index of its entry.
    async fn end(
        &self,
        caller: &Certified,
        received: &Received,
        writing: &mut Writing,
    ) -> Result<(u64, Bytes), Code> {
        let tools = self.tools();
        for _ in 0..ATTEMPTS {
            let (mut case, mut entry) = self.open(ROUTE, caller, received);
            let effect = admitted(&mut case, &mut entry, caller, ROUTE).and_then(|caller| {
                let (_, terms) = Ruling::plain((), Vec::new()).into_parts(Vec::new());
                let change = Change::begin(&tools, &entry, caller.participant(), Names::default(), terms)?;
                Ok::<Effect, Refusal>(change.permitted(json(&writing.end(entry.now_ms))))
            });
            // Suspended meanwhile: what was answered stands, and nothing more is.
            let effect = effect.map_err(|refusal| refusal.code)?;
            let Some(end) = self.commit(&entry, received, case, effect, Reason::None).await? else {
                continue;
            };
            let index = end.index.ok_or(Code::Internal)?;
            writing.indexes.push(index);
            return Ok((index, end.body));
        }
        Err(Code::FactsChanged)
    }

    /// The proof of these entries, of which `last` is one that no other follows; `None` when it cannot be had in time. Then a
    /// client proves each by itself later.
    async fn proof(&self, caller: &Certified, mut indexes: Vec<u64>, last: u64) -> Option<Multiproof> {
        let served = self.cosigning.proving(last).await?;
        indexes.sort_unstable();
        let (ledger, size) = (self.ledger.clone(), served.size);
        let read = move || ledger.multiproof(&indexes, size);
        match self.lanes.pages.run(caller.organisation, read).await.ok()? {
            Ok(nodes) => {
                let nodes = nodes?.into_iter().map(Digest).collect();
                Some(Multiproof { checkpoint: served.text.to_string(), nodes })
            }
            Err(error) => {
                tracing::error!(%error, "the tiles that prove a batch cannot be read");
                None
            }
        }
    }
}

/// The keys of holders that a command bears.
fn bears(command: &Command) -> impl Iterator<Item = KeyName> {
    command.permit_or_denial.record.new_keys.iter().map(|new| new.name)
}

/// Whether the caller may ask at all: registered, active, and in a role of the route.
pub(super) fn admitted(
    case: &mut Case<'_>,
    entry: &mut Entry<'_>,
    certified: &Certified,
    route: Route,
) -> Result<Caller, Refusal> {
    let caller = identify(case, entry, certified, None)?;
    if route.contract().roles.admit(&caller.participant().roles) {
        Ok(caller)
    } else {
        Err(Refusal::new(Code::WrongRole))
    }
}
