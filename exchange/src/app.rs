//! Puts the gateway together: opens the folder, binds the three listeners, runs them, stops them in order.
//!
//! One [`App`] a process, which holds the journal's lock. A crash leaves what `exchange/ledger/README.md` says of each
//! file.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use certs::keys::load_issuer_keys;
use certs::sealed::{EPOCH, EPOCH_NEXT, Kek, KeyFolder};
use ledger::{EpochFile, EpochFiles, Ledger, LedgerKeys, OpenError, Opened, Options, Refused};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use verifier::command::EXIT_IO;
use verifier::note::VerifierKey;
use verifier::trust::Trust;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::cosign::{Cosigning, Link};
use crate::current::Current;
use crate::gateway::Gateway;
use crate::listeners::{self, Shared};
use crate::meters;
use crate::place;
use crate::probe;
use crate::reload::{Reloader, TlsFiles, Watch};
use crate::rotation;
use crate::server::{self, Descriptors, Limits};
use crate::shed::Shed;
use crate::signer::Signers;
use crate::timekeeping;

pub(crate) use crate::exit::unusable;
pub use crate::exit::{Exit, as_usage, exit_status};
pub use crate::signals::{Event, Signals};
pub use verifier::command::{EXIT_DATA, EXIT_INTERNAL, EXIT_UNAVAILABLE, EXIT_USAGE};

/// The options of the ledger in a data folder.
pub fn ledger_options(config: &Config) -> Options {
    let defaults = Options::new(config.folder.clone(), config.origin.clone());
    let segment_bytes = config.journal.segment_mib << 20;
    // A group and the seal after it must fit in half a segment; the longest entry is about 1 MiB.
    let half = usize::try_from(segment_bytes / 2 - (64 << 10)).unwrap_or(usize::MAX);
    Options {
        segment_bytes,
        group_bytes: defaults.group_bytes.min(half),
        reserve_percent: config.journal.reserve_percent,
        reserve_segments: config.journal.reserve_segments,
        index_roots: Some(Duration::from_secs(config.journal.index_root_seconds)),
        archive: config.journal.archive.as_deref().map(|archive| config.path(archive)),
        scrub_bytes_per_second: u64::from(config.journal.scrub_mib_per_second.get()) << 20,
        engine: config.store.engine.into(),
        accept_clock: config.accept_clock,
        // A demonstration may rest on a machine whose clock nobody keeps.
        clock_is_kept: if config.development { || true } else { timekeeping::is_synchronised },
        probe: config.program.clone().map(|program| probe::of_program(program, config.origin.clone())),
        ..defaults
    }
}

/// The sealed keys of a data folder.
///
/// # Errors
/// [`Exit`] with [`EXIT_DATA`]: the key-encryption key is missing or cannot be used.
pub fn key_folder(config: &Config) -> anyhow::Result<KeyFolder> {
    let kek = Kek::load(&config.path(&config.keys.kek)).map_err(unusable)?;
    Ok(KeyFolder::new(config.path(&config.keys.folder), kek))
}

/// The ledger's keys, opened.
///
/// # Errors
/// [`Exit`] with [`EXIT_DATA`]: a key is missing or cannot be used.
pub fn ledger_keys(folder: &KeyFolder) -> anyhow::Result<LedgerKeys> {
    let bytes32 = |name: &str| -> anyhow::Result<[u8; 32]> {
        let key = folder.load(name).map_err(unusable)?;
        key.as_slice().try_into().map_err(|_| unusable(format_args!("key {name} has a wrong length")))
    };
    Ok(LedgerKeys {
        journal: bytes32("journal")?,
        index: bytes32("index")?,
        log_pkcs8: folder.load("log").map_err(unusable)?.to_vec(),
        epochs: Arc::new(SealedEpochs(folder.clone())),
    })
}

/// The epochs' keys as sealed files of the key folder.
struct SealedEpochs(KeyFolder);

impl SealedEpochs {
    fn name(file: EpochFile) -> &'static str {
        match file {
            EpochFile::Current => EPOCH,
            EpochFile::Next => EPOCH_NEXT,
        }
    }
}

impl EpochFiles for SealedEpochs {
    fn load(&self, file: EpochFile) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let name = Self::name(file);
        if !self.0.exists(name).map_err(io::Error::other)? {
            return Ok(None);
        }
        self.0.load(name).map(Some).map_err(io::Error::other)
    }

    fn replace(&self, file: EpochFile, content: &[u8]) -> io::Result<()> {
        self.0.replace(Self::name(file), content).map_err(io::Error::other)
    }

    fn remove(&self, file: EpochFile) -> io::Result<()> {
        self.0.destroy(Self::name(file)).map_err(io::Error::other)
    }

    fn tidy(&self) -> io::Result<()> {
        let wiped = [EPOCH, EPOCH_NEXT].into_iter().try_for_each(|name| self.0.remove_left_over(name));
        wiped.map_err(io::Error::other)
    }
}

/// Reads and checks the signed trust bundle.
///
/// # Errors
/// [`Exit`] with [`EXIT_USAGE`]
pub fn trust_bundle(config: &Config) -> anyhow::Result<(String, Trust)> {
    trust_bundle_from(config, 0)
}

fn trust_bundle_from(config: &Config, minimum_sequence: u64) -> anyhow::Result<(String, Trust)> {
    let text = read(&config.path(&config.keys.trust_bundle))?;
    let anchor: VerifierKey = read(&config.path(&config.keys.trust_anchor))?
        .trim()
        .parse()
        .map_err(|error| Exit::usage(format_args!("the trust anchor cannot be read: {error}")))?;
    let bundle = Trust::parse_note(&text, Some(&anchor), minimum_sequence)
        .map_err(|error| Exit::usage(format_args!("the trust bundle is not good: {error}")))?;
    Ok((text, bundle))
}

/// Starts the signers with the issuing authorities' keys.
///
/// # Errors
/// [`Exit`] with [`EXIT_DATA`]: a key cannot be used, or is not the bundle's.
pub fn signers(folder: &KeyFolder, trust: &Trust) -> anyhow::Result<Signers> {
    Signers::start(load_issuer_keys(folder).map_err(unusable)?, trust).map_err(unusable)
}

/// The trust bundle with the signing keys that it lists.
pub struct Trusted {
    /// The text as signed.
    pub text: Arc<str>,
    /// The bundle, checked against its anchor.
    pub trust: Trust,
    /// The queues of the keys in the key folder, each of which the bundle lists.
    pub signers: Signers,
}

impl Trusted {
    /// Reads the bundle, which must have this sequence at least, and opens the signing keys.
    ///
    /// # Errors
    /// [`Exit`]: with [`EXIT_USAGE`] for the bundle, with [`EXIT_DATA`] for a key.
    pub fn load(config: &Config, minimum_sequence: u64) -> anyhow::Result<Self> {
        let (text, trust) = trust_bundle_from(config, minimum_sequence)?;
        let signers = signers(&key_folder(config)?, &trust)?;
        Ok(Self { text: text.into(), trust, signers })
    }
}

/// Reads a private key in PEM, which must be its owner's alone.
///
/// # Errors
/// [`Exit`] with [`EXIT_USAGE`]
pub fn read_key(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let bytes = certs::file::read_private("TLS key", path).map_err(as_usage)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Exit::usage(format_args!("{}: not UTF-8", path.display())))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Reads a file that the configuration or the command line names. One with a byte order mark is refused, because not every
/// reader would see what is behind it.
///
/// # Errors
/// [`Exit`] with [`EXIT_USAGE`]
pub fn read(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Exit::usage(format_args!("{}: {error}", path.display())))?;
    match text.lines().position(|line| line.contains('\u{feff}')) {
        Some(at) => {
            let (path, line) = (path.display(), at + 1);
            let why = "holds a byte order mark (U+FEFF): save the file as UTF-8 without one";
            Err(Exit::usage(format_args!("{path}: line {line}: {why}")))
        }
        None => Ok(text),
    }
}

/// Installs the process-wide metrics recorder; call once, before anything else is opened.
pub fn install_metrics() -> anyhow::Result<PrometheusHandle> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &meters::LATENCY_BOUNDS)?
        .set_buckets_for_metric(Matcher::Suffix("_group_entries".to_owned()), &meters::GROUP_BOUNDS)?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|error| anyhow::anyhow!("metrics: {error}"))?;
    meters::describe();
    Ok(handle)
}

/// A gateway with its listeners bound, not yet answering.
pub struct App {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// What opening the ledger found.
    pub opened: Opened,
    /// Where the listeners are bound.
    pub addresses: crate::config::Listen,
    listeners: [TcpListener; 3],
    tls: [Current<crate::tls::ServerTls>; 2],
    reloader: Arc<Reloader>,
    watch: Watch,
    stopping: watch::Sender<bool>,
    limits: [Limits; 3],
    rotation_hour: u8,
    shared: Shared,
    witnesses: Vec<Link>,
}

impl App {
    /// Opens everything that `config` names. Ports are bound before the ledger is opened, so a second process on the
    /// same ports changes no file.
    ///
    /// # Errors
    /// [`exit_status`] says what kind: what the configuration says and names, an address that is taken, the journal.
    pub async fn open(config: &Config, metrics: PrometheusHandle) -> anyhow::Result<Self> {
        // What is served is what counts, whatever it came from.
        config.check()?;
        let connections = connections(config.limits.connections)?;
        #[cfg(feature = "bench-ablation")]
        crate::ablation::only_a_bench(&config.origin)?;
        let watch = Watch::begin(config);
        let tls_files = TlsFiles::load(config)?;
        let folder = key_folder(config)?;
        let Trusted { text, trust, signers } = Trusted::load(config, 0)?;
        let data = bind(config.listen.data).await?;
        let public = bind(config.listen.public).await?;
        let admin = bind(config.listen.admin).await?;
        let addresses = crate::config::Listen {
            data: data.local_addr()?,
            public: public.local_addr()?,
            admin: admin.local_addr()?,
        };
        let keys = ledger_keys(&folder)?;
        let (ledger, opened, witnesses) = open_ledger(config, keys).await?;
        if ledger.is_closed() {
            tracing::warn!("the log is closed: reads of the public log are answered, and nothing else");
        }
        let (cosigning, witnesses) = first_round(config, &ledger, witnesses).await?;
        let listed = trust.log(ledger.origin()).is_some_and(|log| log.key == *ledger.verifier_key());
        if !listed {
            tracing::warn!("the trust bundle does not list this log's key: nobody can check its receipts");
        }
        let shed = Shed::new(config.limits.refusals_a_second, config.limits.refusal_burst);
        let retention_ms = u64::from(config.keys.retention_days) * 24 * 3_600 * 1_000;
        let development = certs::pki::is_development(&read(&config.path(&config.tls.certificate))?);
        let gateway = Gateway::new(ledger, signers, trust, shed, retention_ms);
        gateway.tell_reasons(development);
        let gateway = Arc::new(gateway.cosigned(Arc::clone(&cosigning)));
        if gateway.ledger().state().is_rotating() {
            rotation::rotate(&gateway).await;
        }
        let [of_data, of_public, of_admin] = connections;
        let mut of_organisation = config.limits.connections_per_organisation;
        if of_data < config.limits.connections {
            // One organisation must not have all of fewer connections than configured.
            of_organisation = of_organisation.min((of_data / 4).max(1));
        }
        let limits = [
            Limits {
                max_connections: of_data,
                max_connections_per_organisation: of_organisation,
                ..Limits::default()
            },
            Limits::anonymous(of_public),
            // Everybody there is on this machine.
            Limits { max_connections: of_admin, ..Limits::default() },
        ];
        let trust_text = Current::new(text);
        let reloader = Reloader::new(config, Arc::clone(&gateway), tls_files, trust_text.clone())?;
        let stopping = watch::Sender::new(false);
        let shared = Shared {
            gateway: Arc::clone(&gateway),
            trust_bundle: trust_text,
            metrics,
            cosigning,
            standing: reloader.standing(),
            stopping: stopping.subscribe(),
        };
        Ok(Self {
            gateway,
            opened,
            addresses,
            listeners: [data, public, admin],
            tls: reloader.tls(),
            reloader: Arc::new(reloader),
            watch,
            stopping,
            limits,
            rotation_hour: config.keys.rotation_hour,
            shared,
            witnesses,
        })
    }

    /// Answers until it is to stop, then finishes what is under way and closes the ledger.
    pub async fn run(self, mut signals: Signals) -> anyhow::Result<()> {
        let (stopping, stopped) = (self.stopping, self.shared.stopping.clone());
        let [data, public, admin] = self.listeners;
        let [data_tls, public_tls] = self.tls;
        let [data_limits, public_limits, admin_limits] = self.limits;
        let data_tls = Some(data_tls);
        #[cfg(feature = "bench-ablation")]
        let data_tls = data_tls.filter(|_| !crate::without::is_without(crate::without::Without::Tls));
        let gateway = self.gateway;
        let data_handler = {
            let gateway = Arc::clone(&gateway);
            move |peer, request| listeners::data(Arc::clone(&gateway), peer, request)
        };
        let public_router = listeners::public(self.shared.clone());
        let admin_router = listeners::admin(self.shared.clone());
        let serving = [
            tokio::spawn(server::serve(data, "data", data_tls, data_limits, data_handler, stopped.clone())),
            tokio::spawn(server::serve(
                public,
                "public",
                Some(public_tls),
                public_limits,
                listeners::routed(public_router),
                stopped.clone(),
            )),
        ];
        // It outlives the others: that they are stopping is said here.
        let (admin_stopping, admin_stopped) = watch::channel(false);
        let admin = tokio::spawn(server::serve(
            admin,
            "admin",
            None,
            admin_limits,
            listeners::routed(admin_router),
            admin_stopped,
        ));
        let reloading = tokio::spawn(Arc::clone(&self.reloader).follow(self.watch, stopped.clone()));
        let rotation =
            tokio::spawn(rotation::follow(Arc::clone(&gateway), self.rotation_hour, stopped.clone()));
        let following = self.shared.cosigning.follow(self.witnesses);
        let ticker = tokio::spawn({
            let gateway = Arc::clone(&gateway);
            let metrics = self.shared.metrics.clone();
            async move {
                let mut each_second = tokio::time::interval(Duration::from_secs(1));
                loop {
                    each_second.tick().await;
                    gateway.journal_shed().await;
                    gateway.release_delayed().await;
                    gateway.journal_snapshot().await;
                    metrics.run_upkeep();
                }
            }
        });
        loop {
            match signals.next().await {
                Event::Stop => break,
                Event::Reload => self.reloader.ask(),
                Event::State => self.shared.log_state(),
            }
        }
        drop(signals);
        // Listeners first, then what they feed: nothing is accepted that could not be answered.
        let _ = stopping.send(true);
        for task in serving {
            task.await?;
        }
        reloading.await?;
        drop(self.reloader);
        let _ = admin_stopping.send(true);
        admin.await?;
        // Key files are written only while the journal is this process's.
        rotation.await?;
        ticker.abort();
        drop(following);
        gateway.journal_shed().await;
        gateway.journal_snapshot().await;
        let ledger = gateway.ledger().clone();
        drop(self.shared);
        drop(gateway);
        tokio::task::spawn_blocking(move || ledger.close()).await?;
        Ok(())
    }
}

/// Raises the limit of open files and connections as far as it goes.
///
/// # Errors
/// [`Exit`] with [`EXIT_USAGE`]: the process may open too few.
pub fn descriptors() -> anyhow::Result<Descriptors> {
    Descriptors::raise().map_err(|error| Exit { status: EXIT_USAGE, message: error.to_string() }.into())
}

/// Connections of the data, the public and the admin listener: what the journal does not need of the descriptors.
fn connections(configured: usize) -> anyhow::Result<[usize; 3]> {
    let shared = descriptors()?.three(configured);
    if shared[0] < configured {
        tracing::warn!(
            connections = shared[0],
            configured,
            "the process may open too few files for all connections that are configured: raise LimitNOFILE"
        );
    }
    Ok(shared)
}

/// Asks every witness at once which size of the log it has cosigned. Gives the links, and who has proof of the most: a
/// checkpoint with the log's own signature.
///
/// One that cannot be asked does not stop the start: the log would depend on it, and the others still know.
async fn ask_witnesses(
    config: &Config,
    keys: &LedgerKeys,
) -> anyhow::Result<(Vec<Link>, Option<(String, u64)>)> {
    let mut asking = tokio::task::JoinSet::new();
    for mut link in Link::all(&config.witnesses) {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&keys.log_pkcs8)
            .map_err(|_| anyhow::anyhow!("the log's key is not an Ed25519 key in PKCS#8"))?;
        let key = VerifierKey::ed25519(&config.origin, pair.public_key().as_ref().try_into()?)?;
        asking.spawn(async move {
            let size = link.ask_size(&key, &pair).await;
            // What it says alone stops no start: anybody on the way could say it.
            let proven = match size {
                Ok(1..) => link.held(&key).await.map(|held| held.map_or(0, |held| held.size)),
                other => other,
            };
            (link, proven)
        });
    }
    let (mut links, mut most) = (Vec::new(), None);
    while let Some(asked) = asking.join_next().await {
        let (link, size) = asked?;
        match size {
            Ok(size) if most.as_ref().is_none_or(|(_, known)| size > *known) => {
                most = Some((link.name().to_owned(), size));
            }
            Ok(_) => {}
            Err(failure) => tracing::warn!(
                witness = link.name(),
                %failure,
                "a witness could not be asked for the log's size: it would not notice that the log went back"
            ),
        }
        links.push(link);
    }
    Ok((links, most))
}

/// Opens the ledger, unless a witness has seen more of the log than there is.
///
/// # Errors
/// [`Exit`] with [`EXIT_DATA`], the journal as it was; or why the ledger cannot be opened.
pub(crate) async fn open_ledger(
    config: &Config,
    keys: LedgerKeys,
) -> anyhow::Result<(Ledger, Opened, Vec<Link>)> {
    place::check(config)?;
    let (witnesses, seen) = ask_witnesses(config, &keys).await?;
    let least_size = seen.as_ref().map_or(0, |(_, size)| *size);
    let options = Options { least_size, ..ledger_options(config) };
    let opening = tokio::task::spawn_blocking(move || Ledger::open(options, keys));
    let (ledger, opened) = opening.await?.map_err(|error| match (error, seen) {
        (OpenError::RolledBack { published, journal }, Some((witness, size))) if published == size => {
            let found = format!("witness {witness} has cosigned size {size}, the journal has {journal}");
            rolled_back(&found)
        }
        (error, _) => error.into(),
    })?;
    if let Err(error) = place::keep(config) {
        tokio::task::spawn_blocking(move || ledger.close()).await?;
        return Err(error);
    }
    Ok((ledger, opened, witnesses))
}

/// Has every witness cosign the published checkpoint, and closes the ledger again if one has seen another log.
///
/// # Errors
/// [`Exit`] with [`EXIT_DATA`]
pub(crate) async fn first_round(
    config: &Config,
    ledger: &Ledger,
    witnesses: Vec<Link>,
) -> anyhow::Result<(Arc<Cosigning>, Vec<Link>)> {
    let cosigning = Arc::new(Cosigning::new(ledger.clone(), config.quorum));
    match cosigning.first_round(witnesses).await {
        Ok(witnesses) => Ok((cosigning, witnesses)),
        Err((witness, failure)) => {
            let ledger = ledger.clone();
            tokio::task::spawn_blocking(move || ledger.close()).await?;
            Err(rolled_back(&format!("witness {witness} {failure}")))
        }
    }
}

/// Why the journal takes no entry, and what makes it take one again.
pub(crate) fn not_taken(ledger: &Ledger, refused: &Refused) -> anyhow::Error {
    let (status, how) = match refused {
        Refused::Full => (EXIT_IO, format!(": {}", ledger.room())),
        Refused::Malformed(_) => (EXIT_INTERNAL, String::new()),
        Refused::Closed => (EXIT_USAGE, String::new()),
        Refused::Overloaded | Refused::Stopped => (EXIT_IO, String::new()),
    };
    Exit { status, message: format!("the journal takes no entry: {refused}{how}") }.into()
}

fn rolled_back(found: &str) -> anyhow::Error {
    let message = format!(
        "the log went back: {found}. It must not be served under this key again: close it and open its successor \
         (exchange/docs/operations/close-a-log.md)"
    );
    Exit { status: EXIT_DATA, message }.into()
}

/// Binds a listener.
///
/// # Errors
/// [`Exit`] with [`EXIT_UNAVAILABLE`]
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let message = match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("{address} is in use by another process; choose another with --listen")
            }
            _ => format!("{address}: {error}"),
        };
        Exit::unavailable(message)
    })
}
