//! The log's witnesses: each published checkpoint is submitted to every one, and what is served carries their
//! cosignatures. So the exchange cannot show two people two logs without being seen, and cannot go back.
//!
//! Each witness is followed by a task of its own with a connection and a time-out of its own; a slow one holds up
//! nobody. A witness is reached in clear, and anybody on the way could answer for it. So its status alone proves
//! nothing: it raises an alarm. A checkpoint that it holds under the log's own signature and that cannot be of this log
//! proves a fork, and then the log stops. The checkpoint served is the newest with a quorum, and it may lag behind the
//! newest one published by at most [`GRACE`]. When witnesses are gone, the log goes on with fewer cosignatures, and a
//! checker's policy says whether that is enough.
//!
//! Those tasks alone talk to witnesses. Cosignatures are memory: after a crash the witnesses are asked again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use ledger::Ledger;
use metrics::{counter, gauge};
use ring::signature::Ed25519KeyPair;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use verifier::Hash;
use verifier::checkpoint::{Checkpoint, decimal};
use verifier::merkle::{EMPTY_ROOT, verify_consistency};
use verifier::note::{CosignerKey, SignedNote, VerifierKey};

use crate::config::WitnessAddress;
use crate::prefix::Prefix;
use crate::witness::Submission;

/// Counter of submissions; labels `witness`, `result` (`cosigned`, `unreachable`, `refused`, `contradicts`, `forked`).
pub const SUBMISSIONS: &str = "miaoxiang_witness_submissions_total";
/// Gauge of the size that a witness cosigned last; label `witness`.
pub const COSIGNED_SIZE: &str = "miaoxiang_witness_cosigned_size";

/// Gauge: 1 while a witness says something of the log that cannot be, without proof; label `witness`.
pub const CONTRADICTS: &str = "miaoxiang_witness_contradicts";

/// Longest time for one submission, the connection included.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(2);
/// Rest after a submission that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How often the published checkpoint is looked at; it moves once a second.
const LOOK: Duration = Duration::from_millis(20);
/// How often it is looked whether the newest tree can be proven from.
const PROVABLE_PAUSE: Duration = Duration::from_millis(10);
/// How long a checkpoint without its quorum stands behind the last one that has it.
pub const GRACE: Duration = Duration::from_secs(2);
/// Longest wait for a checkpoint that covers an entry.
pub const COVER_WAIT: Duration = Duration::from_secs(2);
/// Published checkpoints that may still get their quorum.
const MAX_PENDING: usize = 8;
/// Submissions of one checkpoint to one witness: of the size that is known, without one, and of the size it then says.
const ROUNDS: usize = 3;
/// Longest answer of a witness that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Why a submission brought no cosignature.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No answer within its time.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// An answer that the protocol does not have, a refusal, or a cosignature that does not verify.
    #[error("refuses: {0}")]
    Refused(String),
    /// It says that it has cosigned a larger tree of this log than there is, and shows none that the log signed.
    #[error(
        "says that it has cosigned size {0} of this log, which is larger than the log, and shows no proof"
    )]
    Ahead(u64),
    /// It refuses a proof that is right from a size that it names, and shows no other tree that the log signed.
    #[error("says that this log did not grow from size {0} that it has cosigned, and shows no proof")]
    Unlike(u64),
    /// It holds a checkpoint with this log's signature that cannot be of this log.
    #[error(
        "has cosigned size {} of this log, which this log did not grow from; its checkpoint bears this log's signature",
        .0.size
    )]
    Forked(Held),
    /// The tiles cannot be read, or what they give is no proof: nothing is sent, and nothing is said about the witness.
    #[error("the consistency proof cannot be made: {0}")]
    Tiles(String),
}

impl Failure {
    /// Whether it contradicts the log without proof.
    fn is_claim(&self) -> bool {
        matches!(self, Self::Ahead(_) | Self::Unlike(_))
    }

    fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Refused(_) | Self::Tiles(_) => "refused",
            Self::Ahead(_) | Self::Unlike(_) => "contradicts",
            Self::Forked(_) => "forked",
        }
    }
}

/// A checkpoint that a witness holds and the log's key has signed.
#[derive(Clone, Debug)]
pub struct Held {
    /// Leaves in its tree.
    pub size: u64,
    root: Hash,
    /// The note, which proves it to anybody.
    pub note: String,
}

/// One witness as the log knows it: its address, its connection and what it has.
pub struct Link {
    /// Position in the configuration; also the order of cosignatures.
    at: usize,
    prefix: Prefix,
    key: CosignerKey,
    connection: Option<SendRequest<Full<Bytes>>>,
    /// Size that it has cosigned, as far as is known.
    known: Option<u64>,
    /// Largest published size that it has cosigned since the start.
    done: Option<u64>,
}

impl Link {
    /// Links to configured witnesses, nothing sent yet. An address that cannot be read gives none: the configuration
    /// is checked before.
    pub fn all(witnesses: &[WitnessAddress]) -> Vec<Self> {
        let link = |(at, witness): (usize, &WitnessAddress)| {
            let prefix = Prefix::parse(&witness.url)?;
            Some(Self { at, prefix, key: witness.key.clone(), connection: None, known: None, done: None })
        };
        witnesses.iter().enumerate().filter_map(link).collect()
    }

    /// The witness's name.
    pub fn name(&self) -> &str {
        self.key.name()
    }

    /// Asks the witness which size of the log it has cosigned: by submitting the empty tree, from which every log has
    /// grown. One that has nothing cosigns that; any other says its size.
    ///
    /// # Errors
    /// [`Failure`]; the size stays unknown.
    pub async fn ask_size(&mut self, key: &VerifierKey, pair: &Ed25519KeyPair) -> Result<u64, Failure> {
        let empty = Checkpoint { origin: key.name().to_owned(), size: 0, root: EMPTY_ROOT };
        let signature = pair.sign(empty.text().as_bytes());
        let signature = signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes");
        let checkpoint = empty.signed_text(key, signature);
        let submission = Submission { old: 0, proof: Vec::new(), checkpoint };
        let size = match self.post(&submission).await? {
            (200, _) => 0,
            (409, body) => size_in(&body)?,
            (status, body) => return Err(refused(status, &body)),
        };
        self.known = Some(size);
        Ok(size)
    }

    /// The newest checkpoint of the log that the witness holds, if it shows one with the signature of the log's key.
    ///
    /// # Errors
    /// [`Failure`]: it cannot be reached, or shows something else.
    pub async fn held(&mut self, key: &VerifierKey) -> Result<Option<Held>, Failure> {
        let origin = hex::encode(verifier::sha256(&[key.name().as_bytes()]));
        let path = format!("{}/{origin}/checkpoint", self.prefix.path);
        let text = match self.ask(hyper::Method::GET, path, String::new()).await? {
            (200, text) => text,
            (404 | 405, _) => return Ok(None),
            (status, body) => return Err(refused(status, &body)),
        };
        let forged = || Failure::Refused("it shows a checkpoint that this log did not sign".to_owned());
        let note = SignedNote::parse(&text).map_err(|_| forged())?;
        let verified = note.verify(std::slice::from_ref(key)).map_err(|_| forged())?;
        let checkpoint = Checkpoint::parse_extended(&verified).map_err(|_| forged())?;
        let of_log = checkpoint.origin == key.name();
        let held = Held { size: checkpoint.size, root: checkpoint.root, note: text };
        if of_log { Ok(Some(held)) } else { Err(forged()) }
    }

    /// Submits a checkpoint; gives the cosignature's line. A contradiction of the log is looked into: the witness is
    /// asked for what it holds.
    async fn submit(&mut self, ledger: &Ledger, published: &Served) -> Result<String, Failure> {
        match self.offer(ledger, published).await {
            Err(claim) if claim.is_claim() => {
                // Its word may be as wrong as its name.
                self.known = None;
                let Ok(Some(held)) = self.held(ledger.verifier_key()).await else { return Err(claim) };
                let (ledger, checked) = (ledger.clone(), held.clone());
                match tokio::task::spawn_blocking(move || contradicts(&ledger, &checked)).await {
                    Ok(Ok(true)) => Err(Failure::Forked(held)),
                    _ => Err(claim),
                }
            }
            outcome => outcome,
        }
    }

    async fn offer(&mut self, ledger: &Ledger, published: &Served) -> Result<String, Failure> {
        // The size that is known may be out of date; what the witness then says is not.
        let mut said = false;
        for _ in 0..ROUNDS {
            let old = self.known.unwrap_or(0);
            if old > published.size {
                return Err(Failure::Ahead(old));
            }
            let (ledger, to) = (ledger.clone(), published.clone());
            let (proof, _) = tokio::task::spawn_blocking(move || consistency(&ledger, old, &to))
                .await
                .map_err(|error| Failure::Tiles(error.to_string()))?
                .map_err(|error| Failure::Tiles(error.to_string()))?;
            let submission = Submission { old, proof, checkpoint: published.text.to_string() };
            match self.post(&submission).await? {
                (200, lines) => {
                    let line = self.cosignature(&published.text, &lines)?;
                    (self.known, self.done) = (Some(published.size), Some(published.size));
                    return Ok(line);
                }
                // Its size is this one, so it is the root that it does not take.
                (409, body)
                    if old > 0
                        && old == published.size
                        && size_in(&body).map_or(true, |size| size == old) =>
                {
                    return Err(Failure::Unlike(old));
                }
                (409, body) => (self.known, said) = (Some(size_in(&body)?), true),
                // From the empty tree every log has grown.
                (422, _) if said && old > 0 => return Err(Failure::Unlike(old)),
                // Perhaps of a size that it no longer has: it is asked.
                (422, _) if old > 0 => self.known = None,
                (status, body) => return Err(refused(status, &body)),
            }
        }
        Err(Failure::Refused("it names another size each time".to_owned()))
    }

    /// The cosignature of this witness among the lines of its answer, if it verifies.
    fn cosignature(&self, checkpoint: &str, lines: &str) -> Result<String, Failure> {
        let bad = |what: String| Failure::Refused(format!("the answer is no cosignature of it: {what}"));
        let text = checkpoint.rsplit_once("\n\n").map_or("", |(text, _)| text);
        let note = format!("{text}\n\n{lines}");
        let note = SignedNote::parse(&note).map_err(|error| bad(error.to_string()))?;
        let known = std::slice::from_ref(&self.key);
        let cosignatures = note.cosignatures(known).map_err(|error| bad(error.to_string()))?;
        cosignatures.first().map(|one| one.line()).ok_or_else(|| bad("no line of its key".to_owned()))
    }

    /// Posts a submission within its time; gives status and body.
    async fn post(&mut self, submission: &Submission) -> Result<(u16, String), Failure> {
        let path = format!("{}/add-checkpoint", self.prefix.path);
        self.ask(hyper::Method::POST, path, submission.to_text()).await
    }

    /// Asks within the time of a submission; gives status and body.
    async fn ask(
        &mut self,
        method: hyper::Method,
        path: String,
        body: String,
    ) -> Result<(u16, String), Failure> {
        let answer = match timeout(SUBMIT_TIMEOUT, self.exchange(method, path, body)).await {
            Ok(answer) => answer.map_err(|error| Failure::Unreachable(format!("{error:#}"))),
            Err(_) => Err(Failure::Unreachable("no answer in time".to_owned())),
        };
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    async fn exchange(
        &mut self,
        method: hyper::Method,
        path: String,
        body: String,
    ) -> anyhow::Result<(u16, String)> {
        let Prefix { host, port, .. } = &self.prefix;
        let connection = match self.connection.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => self.connection.insert(connection),
            None => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                let (sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
                // Ends with the sender; an error shows up at the request that meets it.
                tokio::spawn(driver);
                self.connection.insert(sender)
            }
        };
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, format!("{host}:{port}"))
            .body(Full::new(body.into()))?;
        connection.ready().await?;
        let response = connection.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

/// Whether a checkpoint that the log's key has signed cannot be of this log. One that is not published yet is taken for the
/// log's own: it says nothing against it.
fn contradicts(ledger: &Ledger, held: &Held) -> std::io::Result<bool> {
    // Nothing is signed for anybody before it is durable, so what is larger was signed for another log, or for more of
    // this one than it has.
    if held.size > ledger.size() {
        return Ok(true);
    }
    let (size, text) = ledger.published();
    if held.size == 0 || held.size > size {
        return Ok(false);
    }
    let (_, root) = consistency(ledger, held.size, &Served { size, text })?;
    Ok(root != held.root)
}

/// The proof that a published checkpoint grew from an earlier size, and the root of that size. It is checked before anybody sees it: one that damaged
/// tiles gave would look like a second history of this log.
fn consistency(ledger: &Ledger, old: u64, published: &Served) -> std::io::Result<(Vec<Hash>, Hash)> {
    let wrong = || std::io::Error::other("the tiles are damaged: they do not lead to the published root");
    let note = SignedNote::parse(&published.text).ok();
    let note = note.and_then(|note| note.verify(std::slice::from_ref(ledger.verifier_key())).ok());
    let Checkpoint { size, root, .. } =
        note.and_then(|note| Checkpoint::parse(&note).ok()).ok_or_else(wrong)?;
    let proof = ledger.consistency(old, size)?.ok_or_else(wrong)?;
    let old_root = ledger.root(old)?.ok_or_else(wrong)?;
    let leads = old == 0 || verify_consistency(old, size, &old_root, &root, &proof);
    if leads { Ok((proof, old_root)) } else { Err(wrong()) }
}

fn size_in(body: &str) -> Result<u64, Failure> {
    body.strip_suffix('\n')
        .and_then(decimal)
        .ok_or_else(|| Failure::Refused("status 409 without a size".to_owned()))
}

fn refused(status: u16, body: &str) -> Failure {
    let first = body.lines().next().unwrap_or_default();
    let shown: String = first.chars().filter(|c| !c.is_control()).take(80).collect();
    Failure::Refused(format!("status {status} {shown}"))
}

/// A checkpoint as it is served.
#[derive(Clone, Debug)]
pub struct Served {
    /// Leaves in its tree.
    pub size: u64,
    /// The note: the log's signature and the cosignatures it has.
    pub text: Arc<str>,
}

/// A published checkpoint and who has cosigned it so far.
struct Pending {
    published: Served,
    since: Instant,
    /// By the witness's position.
    lines: Vec<(usize, String)>,
}

impl Pending {
    fn served(&self) -> Served {
        let mut lines = self.lines.clone();
        lines.sort();
        let lines: String = lines.into_iter().map(|(_, line)| line).collect();
        Served { size: self.published.size, text: format!("{}{lines}", self.published.text).into() }
    }
}

/// How a witness stands to the log, when it does not cosign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it contradicts the log, without proof.
    pub contradicts: bool,
    /// Its condition in words.
    pub words: String,
}

#[derive(Default)]
struct Board {
    /// The newest last.
    pending: VecDeque<Pending>,
    /// The newest with a quorum.
    cosigned: Option<Served>,
}

/// The checkpoints that are served, and how they come by their cosignatures. Everything here is in memory: after a restart
/// the witnesses cosign the newest checkpoint again.
pub struct Cosigning {
    ledger: Ledger,
    quorum: usize,
    board: Mutex<Board>,
    /// The newest published checkpoint, for the tasks that submit it.
    newest: watch::Sender<Served>,
    /// Counts the changes of what is served.
    changes: watch::Sender<u64>,
    /// Witnesses that did not cosign what was last submitted to them, by name.
    standing: Mutex<BTreeMap<String, Standing>>,
}

impl Cosigning {
    /// Serves the checkpoints of a ledger; `quorum` 0 asks for no witness.
    pub fn new(ledger: Ledger, quorum: usize) -> Self {
        let (size, text) = ledger.published();
        let cosigning = Self {
            ledger,
            quorum,
            board: Mutex::default(),
            newest: watch::Sender::new(Served { size, text: Arc::clone(&text) }),
            changes: watch::Sender::new(0),
            standing: Mutex::default(),
        };
        cosigning.publish(Served { size, text });
        cosigning
    }

    /// Submits the published checkpoint to every witness at once and waits for all: at start, so that the first
    /// checkpoint served is cosigned, and a log that went back is found before anything is answered.
    ///
    /// # Errors
    /// The first witness that proves another log, with its name. Any other failure is logged and tried again later.
    pub async fn first_round(self: &Arc<Self>, links: Vec<Link>) -> Result<Vec<Link>, (String, Failure)> {
        let mut round = JoinSet::new();
        for mut link in links {
            let this = Arc::clone(self);
            round.spawn(async move {
                let published = this.newest.borrow().clone();
                let outcome = this.submit(&mut link, &published).await;
                (link, outcome)
            });
        }
        let mut links = Vec::new();
        while let Some(done) = round.join_next().await {
            let Ok((link, outcome)) = done else { continue };
            if let Err(failure @ Failure::Forked(_)) = outcome {
                return Err((link.name().to_owned(), failure));
            }
            links.push(link);
        }
        Ok(links)
    }

    /// Follows the log and its witnesses until the returned tasks are dropped.
    pub fn follow(self: &Arc<Self>, links: Vec<Link>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let this = Arc::clone(self);
        tasks.spawn(async move { this.look().await });
        for link in links {
            let this = Arc::clone(self);
            tasks.spawn(async move { this.keep_up(link).await });
        }
        tasks
    }

    /// The witnesses that do not cosign, by name.
    pub fn standing(&self) -> Vec<(String, Standing)> {
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        standing.iter().map(|(name, standing)| (name.clone(), standing.clone())).collect()
    }

    /// The ledger whose checkpoints these are.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The checkpoint to serve: the newest with a quorum, unless one has waited for its quorum longer than [`GRACE`];
    /// then the newest one, with the cosignatures it has. Without witnesses the one that is published now.
    pub fn served(&self) -> Served {
        if self.quorum == 0 {
            let (size, text) = self.ledger.published();
            return Served { size, text };
        }
        let board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        match &board.cosigned {
            Some(cosigned) => {
                let waiting = board.pending.iter().find(|pending| pending.published.size > cosigned.size);
                match waiting.filter(|pending| pending.since.elapsed() >= GRACE) {
                    Some(_) => board.newest(),
                    None => cosigned.clone(),
                }
            }
            None => board.newest(),
        }
    }

    /// A checkpoint that covers an entry, cosigned by the quorum if that comes within [`COVER_WAIT`]; `None` when by then
    /// no checkpoint covers it.
    pub async fn covering(&self, index: u64) -> Option<Served> {
        let deadline = Instant::now() + COVER_WAIT;
        let mut changes = self.changes.subscribe();
        loop {
            let served = self.served();
            if served.size > index {
                return Some(served);
            }
            if !matches!(timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
                let newest = self.board.lock().unwrap_or_else(PoisonError::into_inner).newest();
                return Some(newest).filter(|newest| newest.size > index);
            }
        }
    }

    /// A checkpoint that covers an entry and that many are proven in at once: with witnesses as [`Cosigning::covering`] gives it, without
    /// them the newest that can be proven from, a moment behind the log.
    pub async fn proving(&self, index: u64) -> Option<Served> {
        if self.quorum > 0 {
            return self.covering(index).await;
        }
        let deadline = Instant::now() + COVER_WAIT;
        loop {
            let (size, text) = self.ledger.provable();
            if size > index {
                return Some(Served { size, text });
            }
            if Instant::now() >= deadline {
                return None;
            }
            sleep(PROVABLE_PAUSE).await;
        }
    }

    async fn look(&self) {
        loop {
            sleep(LOOK).await;
            let (size, text) = self.ledger.published();
            if size > self.newest.borrow().size {
                self.publish(Served { size, text });
            }
        }
    }

    fn publish(&self, published: Served) {
        {
            let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
            if board.pending.len() == MAX_PENDING {
                board.pending.pop_front();
            }
            let pending = Pending { published: published.clone(), since: Instant::now(), lines: Vec::new() };
            board.pending.push_back(pending);
            if self.quorum == 0 {
                board.cosigned = Some(published.clone());
            }
        }
        self.newest.send_replace(published);
        self.changes.send_modify(|changes| *changes += 1);
    }

    async fn keep_up(&self, mut link: Link) {
        let mut newest = self.newest.subscribe();
        loop {
            let published = newest.borrow_and_update().clone();
            if link.done < Some(published.size) {
                match self.submit(&mut link, &published).await {
                    Ok(()) => {}
                    // It was out of reach at start, or the log went back since: going on would sign a second history.
                    Err(failure @ Failure::Forked(_)) => {
                        self.ledger.stop(&format!("witness {} {failure}", link.name()));
                        return;
                    }
                    Err(_) => {
                        sleep(RETRY_PAUSE).await;
                        continue;
                    }
                }
            }
            if newest.changed().await.is_err() {
                return;
            }
        }
    }

    async fn submit(&self, link: &mut Link, published: &Served) -> Result<(), Failure> {
        let outcome = link.submit(&self.ledger, published).await;
        let label = outcome.as_ref().err().map_or("cosigned", Failure::label);
        counter!(SUBMISSIONS, "witness" => link.name().to_owned(), "result" => label).increment(1);
        self.stands(link.name(), outcome.as_ref().err());
        let line = outcome?;
        gauge!(COSIGNED_SIZE, "witness" => link.name().to_owned()).set(published.size as f64);
        self.note(link.at, published.size, line);
        Ok(())
    }

    /// Notes how a witness stands; one line in the log when that changes, the counter tells the rest.
    fn stands(&self, witness: &str, failure: Option<&Failure>) {
        if let Some(Failure::Forked(held)) = failure {
            tracing::error!(
                witness,
                note = held.note,
                "a witness holds a checkpoint that cannot be of this log"
            );
        }
        let now =
            failure.map(|failure| Standing { contradicts: failure.is_claim(), words: failure.to_string() });
        let contradicts = now.as_ref().is_some_and(|now| now.contradicts);
        gauge!(CONTRADICTS, "witness" => witness.to_owned()).set(f64::from(u8::from(contradicts)));
        let before = {
            let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
            match &now {
                Some(now) => standing.insert(witness.to_owned(), now.clone()),
                None => standing.remove(witness),
            }
        };
        match (before, now) {
            (Some(before), Some(now)) if before.contradicts == now.contradicts => {}
            (_, Some(Standing { contradicts: true, words })) => {
                tracing::error!(
                    witness,
                    "a witness contradicts the log, perhaps not the witness itself: it {words}"
                );
            }
            (_, Some(Standing { words, .. })) => {
                tracing::warn!(witness, failure = words, "a witness is behind")
            }
            (Some(_), None) => tracing::info!(witness, "a witness has caught up"),
            (None, None) => {}
        }
    }

    /// Takes a cosignature in.
    fn note(&self, witness: usize, size: u64, line: String) {
        {
            let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(pending) = board.pending.iter_mut().find(|pending| pending.published.size == size)
            else {
                return;
            };
            pending.lines.retain(|(at, _)| *at != witness);
            pending.lines.push((witness, line));
            let has_quorum = pending.lines.len() >= self.quorum;
            let served = pending.served();
            if has_quorum && board.cosigned.as_ref().is_none_or(|cosigned| cosigned.size <= size) {
                board.cosigned = Some(served);
                // Checkpoints before it are of no use any more; this one may still get more cosignatures.
                board.pending.retain(|pending| pending.published.size >= size);
            }
        }
        self.changes.send_modify(|changes| *changes += 1);
    }
}

impl Board {
    fn newest(&self) -> Served {
        // There is one from the start on.
        self.pending.back().map_or(Served { size: 0, text: "".into() }, Pending::served)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::commit_system;
    use ledger::{EpochsInMemory, LedgerKeys, Options, Prepared, Subjects, record::Record};
    use std::io::{Read as _, Write as _};
    use std::sync::mpsc;
    use verifier::leaf::LeafKind;

    const ORIGIN: &str = "log.example/test";

    /// A ledger with so many published leaves in this folder.
    async fn published(folder: &std::path::Path, leaves: u64) -> Ledger {
        let log = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).expect("randomness");
        let keys = LedgerKeys {
            journal: [1; 32],
            index: [2; 32],
            log_pkcs8: log.as_ref().to_vec(),
            epochs: Arc::new(EpochsInMemory::new(ORIGIN, [3; 32])),
        };
        let (segment_bytes, group_bytes) = (256 << 10, 64 << 10);
        let options = Options {
            segment_bytes,
            group_bytes,
            reserve_percent: 0,
            image: false,
            ..Options::new(folder, ORIGIN)
        };
        let (ledger, _) = Ledger::open(options, keys).expect("an empty folder opens");
        for leaf in 0..leaves {
            let statement = Prepared {
                kind: LeafKind::ShardOpen,
                open: format!("statement {leaf}\n").into_bytes(),
                record: Record::default(),
                told: Vec::new(),
                subjects: Subjects::none(),
            };
            commit_system(&ledger, statement).await.expect("committed");
        }
        while ledger.published().0 < leaves {
            sleep(LOOK).await;
        }
        ledger
    }

    /// A witness that answers as it is told, one request after the other; gives its link and the sizes it is asked from.
    fn scripted(answers: Vec<(u16, &'static str)>) -> (Link, mpsc::Receiver<String>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (asked, seen) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            for (status, body) in answers {
                let (mut request, mut byte) = (Vec::new(), [0]);
                while !request.ends_with(b"\r\n\r\n") {
                    stream.read_exact(&mut byte).expect("a request");
                    request.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&request).to_lowercase();
                let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
                let mut content = vec![0; length.expect("a length").parse().expect("a number")];
                stream.read_exact(&mut content).expect("a body");
                let content = String::from_utf8_lossy(&content).into_owned();
                let _ = asked.send(content.lines().next().unwrap_or_default().to_owned());
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).expect("answered");
            }
        });
        let key = CosignerKey::ed25519("witness.example", &[7; 32]).expect("a key");
        let link = Link::all(&[WitnessAddress { url, key }]).pop().expect("a link");
        (link, seen)
    }

    #[tokio::test]
    async fn a_refused_proof_contradicts_the_log_only_from_the_size_that_the_witness_names() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ledger = published(folder.path(), 6).await;
        let (size, text) = ledger.published();
        let served = Served { size, text };
        let submit = async |known, answers| {
            let (mut link, seen) = scripted(answers);
            link.known = known;
            let outcome = link.submit(&ledger, &served).await;
            drop(link);
            (outcome, seen.iter().collect::<Vec<_>>())
        };
        // This process believed a size that was out of date; the witness's own word counts.
        let (outcome, asked) = submit(Some(3), vec![(422, ""), (409, "5\n"), (422, "")]).await;
        assert!(matches!(outcome, Err(Failure::Unlike(5))), "{outcome:?}");
        assert_eq!(asked, ["old 3", "old 0", "old 5"]);
        let (outcome, asked) = submit(Some(3), vec![(422, ""), (409, "5\n"), (200, "")]).await;
        assert!(matches!(outcome, Err(Failure::Refused(_))), "{outcome:?}");
        assert_eq!(asked, ["old 3", "old 0", "old 5"]);
        // Another tree of the same size, in the words of the specification, with its size or without.
        for body in ["6\n", ""] {
            let (outcome, _) = submit(Some(6), vec![(409, body)]).await;
            assert!(matches!(outcome, Err(Failure::Unlike(6))), "{outcome:?}");
            let (outcome, _) = submit(None, vec![(409, "6\n"), (409, body)]).await;
            assert!(matches!(outcome, Err(Failure::Unlike(6))), "{outcome:?}");
        }
        // Every log has grown from nothing.
        for known in [None, Some(0)] {
            let (outcome, _) = submit(known, vec![(422, "")]).await;
            assert!(matches!(outcome, Err(Failure::Refused(_))), "{outcome:?}");
        }
        let (outcome, _) = submit(None, vec![(409, "9\n")]).await;
        assert!(matches!(outcome, Err(Failure::Ahead(9))), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_proof_from_damaged_tiles_is_shown_to_nobody() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ledger = published(folder.path(), 6).await;
        let (size, text) = ledger.published();
        let served = Served { size, text };
        let path = folder.path().join("tiles/0");
        let good = std::fs::read(&path).expect("tiles");
        for at in 0..good.len() / 32 {
            let mut bytes = good.clone();
            bytes[at * 32] ^= 1;
            std::fs::write(&path, bytes).expect("written");
            let (mut link, seen) = scripted(vec![(422, "")]);
            link.known = Some(3);
            let outcome = link.submit(&ledger, &served).await;
            assert!(matches!(outcome, Err(Failure::Tiles(_))), "{at}: {outcome:?}");
            assert!(!outcome.is_err_and(|failure| failure.is_claim()));
            assert!(seen.try_recv().is_err(), "nothing is sent");
        }
    }
}
