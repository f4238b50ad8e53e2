//! Puts the gateway together: opens the folder, binds the three listeners, runs them, stops them in order.
//!
//! One [`App`] a process, which holds the journal's lock. A crash leaves what `exchange/ledger/README.md` says of each
//! file.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ledger::Opened;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::certificates::TlsFiles;
use crate::condition::log_state;
use crate::config::Config;
use crate::cosign::Link;
use crate::current::Current;
use crate::exit::{EXIT_USAGE, Exit, unusable};
use crate::files::read;
use crate::gateway::Gateway;
use crate::identity;
use crate::listeners;
use crate::meters;
use crate::opening::{Trusted, first_round, key_folder, ledger_keys, open_ledger};
use crate::outgoing::{Destinations, Outgoing};
use crate::reload::{Reloader, Watch};
use crate::rotation;
use crate::server::{self, Descriptors, Limits};
use crate::shared::Shared;
use crate::shed::Shed;
use crate::signals::{Event, Signals};

/// A row segment is written anew at most once in so many seconds, which bounds what that writes.
const COMPACTED_EACH: u64 = 10;
/// Seconds between two counts of the figures that come from all applications.
const FIGURES_EVERY_SECONDS: u64 = 60;

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
    /// The findings of opening the ledger.
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
    uses_years: u16,
    shared: Shared,
    witnesses: Vec<Link>,
    identity: Option<(Arc<identity::Provider>, identity::Source)>,
}

impl App {
    /// Opens everything that `config` names. Ports are bound before the ledger is opened, so a second process on the
    /// same ports changes no file.
    ///
    /// # Errors
    /// [`crate::exit::exit_status`] says what kind: what the configuration says and names, an address that is taken, the journal.
    pub async fn open(config: &Config, metrics: PrometheusHandle) -> anyhow::Result<Self> {
        // The served one counts, whatever it came from.
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
        let outgoing = Current::new(Arc::clone(&tls_files.outgoing));
        let own = vec![addresses.data, addresses.public, addresses.admin];
        let destinations = Destinations { own, any: config.development };
        let identity = identity::configured(config, destinations.clone())?;
        if let Some((provider, source)) = &identity {
            source.begin(provider).await.map_err(unusable)?;
        }
        let gateway = gateway
            .identified(identity.as_ref().map(|(provider, _)| Arc::clone(provider)))
            .cosigned(Arc::clone(&cosigning))
            .clocked(config.clocks.clone())
            .calling(Outgoing::new(outgoing.clone(), destinations));
        let gateway = Arc::new(gateway);
        match gateway.close_calls().await {
            Ok(0) => {}
            Ok(calls) => {
                tracing::warn!(calls, "calls to data providers were cut off: their outcome is unknown")
            }
            Err(refused) => tracing::error!(%refused, "calls to data providers that were cut off stay open"),
        }
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
        let reloader = Reloader::new(config, Arc::clone(&gateway), tls_files, outgoing, trust_text.clone())?;
        let stopping = watch::Sender::new(false);
        let shared = Shared {
            gateway: Arc::clone(&gateway),
            data_port: addresses.data.port(),
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
            uses_years: config.keys.uses_years,
            shared,
            witnesses,
            identity,
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
        let (hour, uses_years) = (self.rotation_hour, self.uses_years);
        let rotation =
            tokio::spawn(rotation::follow(Arc::clone(&gateway), hour, uses_years, stopped.clone()));
        let identifying = self
            .identity
            .map(|(provider, source)| tokio::spawn(identity::follow(provider, source, stopped.clone())));
        let following = self.shared.cosigning.follow(self.witnesses);
        let ticker = tokio::spawn({
            let gateway = Arc::clone(&gateway);
            let metrics = self.shared.metrics.clone();
            async move {
                let mut each_second = tokio::time::interval(Duration::from_secs(1));
                for second in 1_u64.. {
                    each_second.tick().await;
                    gateway.journal_shed().await;
                    gateway.release_delayed().await;
                    gateway.close_owed().await;
                    gateway.journal_snapshot().await;
                    gateway.recount_clocks().await;
                    if second.is_multiple_of(COMPACTED_EACH) {
                        gateway.compact_rows().await;
                    }
                    if second % FIGURES_EVERY_SECONDS == 1 {
                        gateway.count_applications().await;
                    }
                    metrics.run_upkeep();
                }
            }
        });
        loop {
            match signals.next().await {
                Event::Stop => break,
                Event::Reload => self.reloader.ask(),
                Event::State => log_state(&self.shared),
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
        if let Some(identifying) = identifying {
            identifying.abort();
        }
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
