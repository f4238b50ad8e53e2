//! A witness (C2SP tlog-witness): keeps, for each log it knows, the newest checkpoint that grew from all it has seen
//! before, and cosigns no other. A log that shows two people two trees needs a witness that has forgotten one.
//!
//! Its folder:
//!
//! | file | what | a crash leaves |
//! |---|---|---|
//! | `lock` | held while the folder is open | a file without a lock |
//! | `key` | the private key, PKCS#8, mode 0600 | the whole file or none |
//! | `witness.vkey` | name and public key, for those who are to count this witness | the same |
//! | `logs/<hash of the origin>/log.vkey` | a log's key; its name is the origin | the same |
//! | `logs/<hash of the origin>/checkpoint` | the newest cosigned checkpoint; absent before the first | the old one or the new one |
//!
//! The checkpoint is durable before its cosignature leaves. So a crash may leave one that nobody was given, which
//! only makes the witness ask for growth from there; the log learns the size from the next refusal.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use certs::file;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use verifier::Hash;
use verifier::checkpoint::{Checkpoint, decimal};
use verifier::command::why;
use verifier::merkle::{EMPTY_ROOT, verify_consistency};
use verifier::note::{CosignerKey, SignedNote, VerifierKey, cosignature_line, cosigned_message};
use verifier::proof::{nodes_text, parse_nodes};

use crate::exit::{EXIT_DATA, EXIT_INTERNAL, Exit, exit_status, unusable};

/// Most lines of a consistency proof.
const MAX_PROOF_LINES: usize = 63;
/// Longest submission: 63 proof lines, and a checkpoint with sixteen signatures of the largest kind there is.
const MAX_BODY_BYTES: usize = 128 * 1024;
/// Longest time a submission may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// Media type of the size in a refusal with status 409.
pub const SIZE_TYPE: &str = "text/x.tlog.size";

/// A checkpoint that a log submits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Size of the checkpoint that the witness cosigned last.
    pub old: u64,
    /// Consistency proof from there.
    pub proof: Vec<Hash>,
    /// The signed checkpoint, verbatim.
    pub checkpoint: String,
}

impl Submission {
    /// The body of the request.
    pub fn to_text(&self) -> String {
        format!("old {}\n{}\n{}", self.old, nodes_text(&self.proof), self.checkpoint)
    }

    /// Reads a body; `None` when it is malformed. The checkpoint is not looked at.
    pub fn parse(body: &str) -> Option<Self> {
        let (head, checkpoint) = body.split_once("\n\n")?;
        let (old, nodes) = match head.split_once('\n') {
            Some((old, nodes)) => (old, format!("{nodes}\n")),
            None => (head, String::new()),
        };
        let old = decimal(old.strip_prefix("old ")?)?;
        let proof = parse_nodes(&nodes).ok().filter(|proof| proof.len() <= MAX_PROOF_LINES)?;
        Some(Self { old, proof, checkpoint: checkpoint.to_owned() })
    }
}

/// A witness's answer to a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200: the cosignature's line.
    Cosigned(String),
    /// 409: the size of the checkpoint that was cosigned last.
    Conflict(u64),
    /// Any other refusal, with its status and a word for a person.
    Refused(StatusCode, &'static str),
}

/// A witness with its folder open.
pub struct Witness {
    pair: Ed25519KeyPair,
    key: CosignerKey,
    /// By origin.
    logs: BTreeMap<String, Log>,
    /// Holds the folder's lock.
    _lock: File,
}

/// A log that the witness knows.
struct Log {
    key: VerifierKey,
    /// Its checkpoint's file.
    path: PathBuf,
    /// The newest cosigned checkpoint. The lock is held from the comparison until the next one is durable, so that of
    /// two submissions at once the second is compared with the first.
    latest: Mutex<Latest>,
}

struct Latest {
    size: u64,
    root: Hash,
    /// The form that a monitor gets; `None` before the first.
    note: Option<Arc<str>>,
}

impl Witness {
    /// Makes a witness's folder and its key, or finds them there under this name. Gives the key.
    ///
    /// # Errors
    /// The folder belongs to a witness of another name, or cannot be written.
    pub fn init(folder: &Path, name: &str) -> anyhow::Result<CosignerKey> {
        let logs = folder.join("logs");
        file::create_folder("witness folder", &logs)?;
        // A checkpoint is durable only below folders that are.
        for made in [folder.parent().filter(|above| !above.as_os_str().is_empty()), Some(folder)] {
            sync_folder(made.unwrap_or(Path::new(".")))?;
        }
        let key = folder.join("key");
        if !key.exists() {
            let pkcs8 = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new())
                .map_err(|_| anyhow::anyhow!("no randomness"))?;
            file::create("witness key", &key, pkcs8.as_ref(), file::PRIVATE)?;
        }
        let (_, public) = load_pair(folder)?;
        let key = CosignerKey::ed25519(name, &public)?;
        let vkey = vkey_path(folder);
        if vkey.exists() {
            let found = load_key(folder)?;
            if found != key {
                let folder = folder.display();
                return Err(Exit::usage(format_args!("{folder} is of witness {} already", found.name())));
            }
        } else {
            file::create("witness vkey", &vkey, format!("{key}\n").as_bytes(), file::PUBLIC)?;
        }
        Ok(key)
    }

    /// Makes a log known; a serving witness takes it in at its next start. An origin has one key for good: under a
    /// new key it is a new log.
    ///
    /// # Errors
    /// The folder is no witness's, or knows the origin with another key.
    pub fn add_log(folder: &Path, key: &VerifierKey) -> anyhow::Result<()> {
        load_key(folder)?;
        let logs = folder.join("logs");
        let folder = logs.join(hash_hex(key.name()));
        file::create_folder("log folder", &folder)?;
        sync_folder(&logs)?;
        let path = folder.join("log.vkey");
        if path.exists() {
            let found = file::read_text("log vkey", &path)?;
            if found.trim_end() != key.to_string() {
                return Err(Exit::usage(format_args!("{} is known with another key", key.name())));
            }
            return Ok(());
        }
        Ok(file::create("log vkey", &path, format!("{key}\n").as_bytes(), file::PUBLIC)?)
    }

    /// Opens a witness's folder and checks everything in it.
    ///
    /// # Errors
    /// Another process has it open, or something in it is damaged: a witness that has forgotten what it cosigned must
    /// not cosign again.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let key = load_key(folder)?;
        let (pair, public) = load_pair(folder)?;
        ensure!(key.key() == &public, "{}: key and witness.vkey do not belong together", folder.display());
        let path = folder.join("lock");
        let lock = File::create(&path).with_context(|| path.display().to_string())?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let folder = folder.display();
                return Err(Exit::unavailable(format_args!("{folder} is open in another process")));
            }
            Err(fs::TryLockError::Error(error)) => return Err(error).context(path.display().to_string()),
        }
        let mut logs = BTreeMap::new();
        let path = folder.join("logs");
        for entry in fs::read_dir(&path).with_context(|| path.display().to_string())? {
            // An error that no file system gives is a fault of what lies in the folder.
            let log = Log::open(&entry?.path(), &key).map_err(|error| match exit_status(&error) {
                EXIT_INTERNAL => Exit { status: EXIT_DATA, message: why(&*error) }.into(),
                _ => error,
            })?;
            if let Some(log) = log {
                logs.insert(log.key.name().to_owned(), log);
            }
        }
        Ok(Self { pair, key, logs, _lock: lock })
    }

    /// Name and key.
    pub fn key(&self) -> &CosignerKey {
        &self.key
    }

    /// The newest cosigned size of each log it knows, by origin.
    pub fn sizes(&self) -> impl Iterator<Item = (&str, u64)> {
        let size = |log: &Log| log.latest.lock().unwrap_or_else(PoisonError::into_inner).size;
        self.logs.iter().map(move |(origin, log)| (origin.as_str(), size(log)))
    }

    /// Origins of the logs it knows.
    pub fn origins(&self) -> impl Iterator<Item = &str> {
        self.logs.keys().map(String::as_str)
    }

    /// Answers a submission; blocks until a cosigned checkpoint is durable. `now` in seconds since 1970.
    pub fn add_checkpoint(&self, body: &[u8], now: u64) -> Answer {
        self.judge(body, now).unwrap_or_else(|refusal| refusal)
    }

    /// The checks in the order of the specification; the first that fails answers.
    fn judge(&self, body: &[u8], now: u64) -> Result<Answer, Answer> {
        let refuse = |status, why| Answer::Refused(status, why);
        let malformed = |why| refuse(StatusCode::BAD_REQUEST, why);
        let inconsistent = |why| refuse(StatusCode::UNPROCESSABLE_ENTITY, why);
        let body = std::str::from_utf8(body).map_err(|_| malformed("the body is not UTF-8"))?;
        let Submission { old, proof, checkpoint: text } =
            Submission::parse(body).ok_or_else(|| malformed("the body is malformed"))?;
        let note = SignedNote::parse(&text).map_err(|_| malformed("the checkpoint is no signed note"))?;
        let origin = note.unchecked_text().split('\n').next().unwrap_or_default();
        let log = self.logs.get(origin).ok_or_else(|| refuse(StatusCode::NOT_FOUND, "unknown log"))?;
        let verified = note
            .verify(std::slice::from_ref(&log.key))
            .map_err(|_| refuse(StatusCode::FORBIDDEN, "no signature of the log's key"))?;
        let new = Checkpoint::parse_extended(&verified).map_err(|_| malformed("no checkpoint"))?;
        if old > new.size {
            return Err(malformed("the old size is beyond the checkpoint"));
        }

        let mut latest = log.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if old != latest.size {
            return Err(Answer::Conflict(latest.size));
        }
        // The specification has the same answer for the other tree of a size.
        if old > 0 && old == new.size && new.root != latest.root {
            tracing::warn!(origin, size = new.size, "another tree of the size that was cosigned");
            return Err(Answer::Conflict(latest.size));
        }
        if new.size == 0 && new.root != EMPTY_ROOT {
            return Err(inconsistent("the empty tree has another root"));
        }
        // From the empty tree everything grows, and nothing proves it.
        let grown = match old {
            0 => proof.is_empty(),
            _ => verify_consistency(old, new.size, &latest.root, &new.root, &proof),
        };
        if !grown {
            // Perhaps the log's fault and perhaps a proof gone wrong; either way somebody should look.
            tracing::warn!(origin, old, size = new.size, "a checkpoint does not grow from the one before");
            return Err(inconsistent("the consistency proof does not verify"));
        }
        let signature = self.pair.sign(cosigned_message(now, verified.text()).as_bytes());
        let signature = signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes");
        let line = cosignature_line(&self.key, now, signature);
        let signed = log.signature_line(&text);
        let note = format!("{}\n{signed}{line}", verified.text());
        // Durable first. After an error the file may be either one: the old one is what counts here, and the
        // cosignature is given to nobody.
        if let Err(error) = file::replace("checkpoint", &log.path, note.as_bytes(), file::PUBLIC) {
            tracing::error!(%error, origin, "the checkpoint was not written: not cosigned");
            return Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, "the checkpoint cannot be kept"));
        }
        *latest = Latest { size: new.size, root: new.root, note: Some(note.into()) };
        Ok(Answer::Cosigned(line))
    }

    /// The newest cosigned checkpoint of the log whose origin has this hash (hex), for monitors.
    pub fn checkpoint(&self, origin_hash: &str) -> Option<Arc<str>> {
        let log = self.logs.iter().find(|(origin, _)| hash_hex(origin) == origin_hash)?.1;
        log.latest.lock().unwrap_or_else(PoisonError::into_inner).note.clone()
    }
}

impl Log {
    /// Reads a log's folder; `None` when it has no key yet, which a kill between two steps of `add_log` leaves.
    fn open(folder: &Path, cosigner: &CosignerKey) -> anyhow::Result<Option<Self>> {
        let vkey = folder.join("log.vkey");
        if !vkey.exists() {
            return Ok(None);
        }
        let key: VerifierKey = file::read_text("log vkey", &vkey)?
            .trim_end()
            .parse()
            .with_context(|| vkey.display().to_string())?;
        ensure!(
            folder.file_name().is_some_and(|name| name == hash_hex(key.name()).as_str()),
            "{}: the folder is another log's",
            vkey.display()
        );
        let path = folder.join("checkpoint");
        let latest = if path.exists() {
            let text = file::read_text("checkpoint", &path)?;
            let damaged = || format!("{} is damaged: restore it", path.display());
            let note = SignedNote::parse(&text).with_context(damaged)?;
            let verified = note.verify(std::slice::from_ref(&key)).with_context(damaged)?;
            let cosigned = note.cosignatures(std::slice::from_ref(cosigner)).with_context(damaged)?;
            ensure!(!cosigned.is_empty(), "{}: not cosigned by this witness", path.display());
            let Checkpoint { size, root, .. } =
                Checkpoint::parse_extended(&verified).with_context(damaged)?;
            Latest { size, root, note: Some(text.into()) }
        } else {
            Latest { size: 0, root: EMPTY_ROOT, note: None }
        };
        Ok(Some(Self { key, path, latest: Mutex::new(latest) }))
    }

    /// The log's own signature line in a note that it verified: what others signed there is not passed on.
    fn signature_line(&self, note: &str) -> String {
        let lines = note.rsplit_once("\n\n").map_or("", |(_, lines)| lines);
        let key = std::slice::from_ref(&self.key);
        let text = note.strip_suffix(lines).unwrap_or_default();
        lines
            .split_inclusive('\n')
            .find(|line| SignedNote::parse(&format!("{text}{line}")).is_ok_and(|one| one.verify(key).is_ok()))
            .unwrap_or_default()
            .to_owned()
    }
}

fn vkey_path(folder: &Path) -> PathBuf {
    folder.join("witness.vkey")
}

fn load_key(folder: &Path) -> anyhow::Result<CosignerKey> {
    let path = vkey_path(folder);
    let text = file::read_text("witness vkey", &path).context("run `witness init` first")?;
    text.trim_end().parse().with_context(|| path.display().to_string())
}

fn load_pair(folder: &Path) -> anyhow::Result<(Ed25519KeyPair, [u8; 32])> {
    let path = folder.join("key");
    let pkcs8 = file::read_private("witness key", &path)?;
    let pair = Ed25519KeyPair::from_pkcs8(&pkcs8)
        .map_err(|_| unusable(format_args!("{} is not an Ed25519 key in PKCS#8", path.display())))?;
    let public = pair.public_key().as_ref().try_into()?;
    Ok((pair, public))
}

fn hash_hex(origin: &str) -> String {
    hex::encode(verifier::sha256(&[origin.as_bytes()]))
}

fn sync_folder(folder: &Path) -> anyhow::Result<()> {
    File::open(folder).and_then(|open| open.sync_all()).with_context(|| folder.display().to_string())
}

/// Answers one request of the witness's listener.
pub async fn respond(witness: Arc<Witness>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let plain = "text/plain; charset=utf-8";
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::POST, "/add-checkpoint") => {
            let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
            let body = match tokio::time::timeout(BODY_DEADLINE, body).await {
                Ok(Ok(body)) => body.to_bytes(),
                Ok(Err(_)) => return answer(StatusCode::BAD_REQUEST, plain, "the body is too long\n"),
                Err(_) => return answer(StatusCode::REQUEST_TIMEOUT, plain, "the body is too slow\n"),
            };
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
            let judged = tokio::task::spawn_blocking(move || witness.add_checkpoint(&body, now)).await;
            match judged {
                Ok(Answer::Cosigned(line)) => answer(StatusCode::OK, plain, line),
                Ok(Answer::Conflict(size)) => answer(StatusCode::CONFLICT, SIZE_TYPE, format!("{size}\n")),
                Ok(Answer::Refused(status, why)) => answer(status, plain, format!("{why}\n")),
                Err(_) => answer(StatusCode::INTERNAL_SERVER_ERROR, plain, ""),
            }
        }
        (_, "/add-checkpoint") => answer(StatusCode::METHOD_NOT_ALLOWED, plain, ""),
        (&Method::GET, path) => {
            let hash = path.strip_prefix('/').and_then(|path| path.strip_suffix("/checkpoint"));
            match hash.and_then(|hash| witness.checkpoint(hash)) {
                Some(note) => answer(StatusCode::OK, plain, note.to_string()),
                None => answer(StatusCode::NOT_FOUND, plain, ""),
            }
        }
        _ => answer(StatusCode::NOT_FOUND, plain, ""),
    }
}

fn answer(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
