//! The files that a serving exchange takes in anew: TLS certificates, their keys and the client authorities with their
//! revocation lists; the trust bundle with the signing keys that it lists.
//!
//! They are read when they have changed, and when somebody asks. A file that cannot be used changes nothing: what was
//! read before stays in force, and log, metric and `/ready` say so.
//!
//! One task of a serving exchange. It writes none of these files, so a crash leaves them as they are.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::gauge;
use tokio::sync::{Notify, watch};

use crate::certificates::TlsFiles;
use crate::config::Config;
use crate::current::Current;
use crate::expiry::{self, Ending, Told};
use crate::gateway::Gateway;
use crate::identity;
use crate::moment::now_seconds;
use crate::opening::Trusted;
use crate::outgoing::{Destinations, Identity};
use crate::tls::{ServerTls, TlsError};

/// Gauge: 1 while changed files cannot be used and older ones are in force; label `what` (`tls`, `trust`).
pub const RELOAD_FAILED: &str = "miaoxiang_reload_failed";

/// How often the files are looked at. A change is taken in when it has rested for one look, so that a certificate and its
/// key may be replaced one after the other.
const LOOK: Duration = Duration::from_secs(2);

/// Which files a reader has seen: modification time, length and inode of each.
type Stamps = Vec<Option<(i64, i64, u64, u64)>>;

fn stamps(paths: &[PathBuf]) -> Stamps {
    let stamp = |path: &PathBuf| {
        let data = fs::metadata(path).ok()?;
        Some((data.mtime(), data.mtime_nsec(), data.len(), data.ino()))
    };
    paths.iter().map(stamp).collect()
}

/// Files that are taken in together.
struct Watched {
    what: &'static str,
    paths: Vec<PathBuf>,
    /// The files when they were read last.
    read: Stamps,
    /// The files at the last look.
    seen: Stamps,
}

impl Watched {
    fn new(what: &'static str, paths: Vec<PathBuf>) -> Self {
        let read = stamps(&paths);
        Self { what, paths, seen: read.clone(), read }
    }

    /// Whether they are to be read now.
    fn is_due(&mut self, asked: bool) -> bool {
        let now = stamps(&self.paths);
        let rests = now == self.seen;
        self.seen = now;
        let due = asked || rests && self.seen != self.read;
        if due {
            self.read.clone_from(&self.seen);
        }
        due
    }
}

/// The knowledge of the files in force, for `/ready` and `/health`.
#[derive(Default)]
pub struct Standing {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    tls: Option<Arc<TlsFiles>>,
    endings: Vec<Ending>,
    failed: BTreeMap<&'static str, String>,
}

impl Standing {
    /// Everything that ends.
    pub fn endings(&self) -> Vec<Ending> {
        self.lock().endings.clone()
    }

    /// Why changed files are not in force, by what they are.
    pub fn failed(&self) -> Vec<(&'static str, String)> {
        self.lock().failed.iter().map(|(what, why)| (*what, why.clone())).collect()
    }

    /// Whether any client certificate can be good now.
    pub fn admits(&self, now: u64) -> bool {
        self.lock().tls.as_ref().is_none_or(|tls| tls.authorities.admit(now))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes changed files in.
pub struct Reloader {
    config: Config,
    gateway: Arc<Gateway>,
    data: Current<ServerTls>,
    public: Current<ServerTls>,
    outgoing: Current<Identity>,
    trust_text: Current<str>,
    standing: Arc<Standing>,
    asked: Notify,
}

/// The files as they were when they were read last.
pub struct Watch {
    tls: Watched,
    trust: Watched,
    told: Told,
}

impl Watch {
    /// Before the files are read for the first time, so that no change falls between.
    pub fn begin(config: &Config) -> Self {
        let path = |path: &PathBuf| config.path(path);
        let (tls, keys) = (&config.tls, &config.keys);
        let outgoing = config.outgoing.iter().flat_map(|files| [path(&files.certificate), path(&files.key)]);
        let files =
            [path(&tls.certificate), path(&tls.key), path(&tls.client_ca)].into_iter().chain(outgoing);
        Self {
            tls: Watched::new("tls", files.collect()),
            trust: Watched::new("trust", vec![path(&keys.trust_bundle), path(&keys.trust_anchor)]),
            told: Told::default(),
        }
    }
}

impl Reloader {
    /// Begins with the TLS files that were read at start. [`Reloader::tls`] has the one in force for each listener.
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn new(
        config: &Config,
        gateway: Arc<Gateway>,
        files: TlsFiles,
        outgoing: Current<Identity>,
        trust_text: Current<str>,
    ) -> Result<Self, TlsError> {
        let standing = Standing::default();
        let (data, public) = (Current::new(files.data()?), Current::new(files.public()?));
        standing.lock().tls = Some(Arc::new(files));
        let reloader = Self {
            config: config.clone(),
            gateway,
            data,
            public,
            outgoing,
            trust_text,
            standing: Arc::new(standing),
            asked: Notify::new(),
        };
        // The endings are known before the first question.
        reloader.look_at_ends();
        Ok(reloader)
    }

    /// TLS of the data and the public listener.
    pub fn tls(&self) -> [Current<ServerTls>; 2] {
        [self.data.clone(), self.public.clone()]
    }

    /// The knowledge of the files.
    pub fn standing(&self) -> Arc<Standing> {
        Arc::clone(&self.standing)
    }

    /// Has the files read at once, whether they changed or not.
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// Takes changes in until `stop`.
    pub async fn follow(self: Arc<Self>, mut files: Watch, mut stop: watch::Receiver<bool>) {
        self.tell(&mut files.told);
        loop {
            let asked = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = self.asked.notified() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            let this = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || {
                this.look(&mut files, asked);
                files
            });
            files = match looked.await {
                Ok(files) => files,
                Err(error) => {
                    tracing::error!(%error, "files are no longer taken in: restart to have changes in force");
                    self.standing.lock().failed.insert("tls", "files are no longer taken in".to_owned());
                    return;
                }
            };
        }
    }

    fn look(&self, files: &mut Watch, asked: bool) {
        if files.tls.is_due(asked) {
            let taken = TlsFiles::load(&self.config).and_then(|files| {
                let (data, public) = (files.data()?, files.public()?);
                self.outgoing.replace(Arc::clone(&files.outgoing));
                self.data.replace(data);
                self.public.replace(public);
                self.standing.lock().tls = Some(Arc::new(files));
                Ok(())
            });
            self.note(files.tls.what, taken);
        }
        if files.trust.is_due(asked) {
            self.note(files.trust.what, self.trust());
        }
        self.tell(&mut files.told);
    }

    /// Puts the trust bundle on disk in force, and the signing keys that it lists.
    fn trust(&self) -> anyhow::Result<()> {
        let now = self.gateway.trust().get();
        let Trusted { text, trust, signers } = Trusted::load(&self.config, now.sequence)?;
        let same = *text == *self.trust_text.get();
        let higher = trust.sequence > now.sequence;
        anyhow::ensure!(same || higher, "sequence {} is in force with another content", now.sequence);
        // Checkers first: what the new keys sign can be checked when it leaves.
        self.trust_text.replace(text);
        self.gateway.trust().replace(trust);
        self.gateway.signers().replace(signers);
        Ok(())
    }

    fn note(&self, what: &'static str, taken: anyhow::Result<()>) {
        let failed = gauge!(RELOAD_FAILED, "what" => what);
        match taken {
            Ok(()) => {
                failed.set(0.0);
                self.standing.lock().failed.remove(what);
                tracing::info!(what, "files on disk are in force");
            }
            Err(error) => {
                failed.set(1.0);
                tracing::error!(
                    what,
                    error = format!("{error:#}"),
                    "changed files cannot be used: the older ones stay in force"
                );
                self.standing.lock().failed.insert(what, format!("{error:#}"));
            }
        }
    }

    fn tell(&self, told: &mut Told) {
        let now = self.look_at_ends();
        told.tell(&self.standing.endings(), now);
    }

    /// Notes what ends; the second for which that holds.
    fn look_at_ends(&self) -> u64 {
        let (trust, signers, now) = (self.gateway.trust().get(), self.gateway.signers().get(), now_seconds());
        let mut standing = self.standing.lock();
        if let Some(tls) = &standing.tls {
            standing.endings = expiry::endings(tls, &trust, signers.organisations(), now);
        }
        now
    }
}

/// Everything that a configuration names, read and checked as a start does, in lines for a person.
///
/// # Errors
/// A start would refuse these.
pub fn report(config: &Config) -> anyhow::Result<Vec<String>> {
    let now = now_seconds();
    let files = TlsFiles::load(config)?;
    identity::configured(config, Destinations { own: Vec::new(), any: false })?;
    let Trusted { trust, signers, .. } = Trusted::load(config, 0)?;
    let (roots, lists) = (files.authorities.roots().count(), files.authorities.lists().count());
    let mut lines = vec![format!(
        "{}: {roots} CAs, {lists} revocation lists",
        config.path(&config.tls.client_ca).display()
    )];
    for (list, revoked, known) in files.authorities.lists() {
        let of = if known { "" } else { ", which is no CA of this file" };
        lines.push(format!("revocation list of {}{of}: {revoked} revoked", list.name));
    }
    if lists > 0 {
        lines.extend(files.authorities.without_list().map(|name| {
            format!("warning: client CA {name} has no revocation list here: its clients are refused, as others have one")
        }));
    }
    lines.extend(expiry::lines(expiry::endings(&files, &trust, signers.organisations(), now), now));
    Ok(lines)
}
