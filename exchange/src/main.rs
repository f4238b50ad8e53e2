//! The `exchange` command.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use exchange::app::{self, App, EXIT_USAGE, Exit};
use exchange::client::{Client, Identity};
use exchange::config::{Config, ConfigError};
use exchange::participant::{MAX_DELAY_DAYS, USUAL_DELAY_DAYS};
use exchange::{export, init, operate, probe, quickstart, succession};
use indicatif::ProgressBar;
use ledger::{ImageFound, OpenError, RebuildFrom};
use schemas::routes::Route;

/// Requests are made on one thread and freed on another, which costs the system's allocator a lock each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// 秒享: issues, serves and verifies electronic licenses; every request is authorised and journaled before its answer.
#[derive(Parser)]
#[command(name = "exchange", version, about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a development exchange, performs the whole round over mTLS, and keeps serving.
    Quickstart {
        /// Data folder; completed if it exists.
        #[arg(long, default_value = "data")]
        data: PathBuf,
        /// Address of the data listener; public and admin follow (+1, +2).
        #[arg(long)]
        listen: Option<SocketAddr>,
        /// Stop after the round.
        #[arg(long)]
        once: bool,
    },
    /// Makes a data folder without development keys and registers the first operators.
    Init {
        /// Data folder to make.
        #[arg(long, default_value = "data")]
        data: PathBuf,
        /// Origin of the log, scheme-less; a random shard name is added.
        #[arg(long, required_unless_present = "continues", conflicts_with = "continues")]
        origin: Option<String>,
        /// Client certificates (PEM) of the first operators.
        #[arg(
            long,
            value_delimiter = ',',
            required_unless_present = "continues",
            conflicts_with = "continues"
        )]
        operator: Vec<PathBuf>,
        /// Data folder of a closed log: the new log is its successor, with its register, types and issuers' keys.
        #[arg(long)]
        continues: Option<PathBuf>,
        /// Longest time for which a delay class may keep uses from their holders, days: fixed for the whole log. 0 = none.
        #[arg(
            long,
            default_value_t = USUAL_DELAY_DAYS,
            value_parser = clap::value_parser!(u16).range(0..=i64::from(MAX_DELAY_DAYS)),
            conflicts_with = "continues"
        )]
        delay_days_max: u16,
        /// The old log went back, so that it can neither be served nor closed.
        #[arg(long, requires = "continues")]
        lost: bool,
    },
    /// Serves.
    Serve {
        #[command(flatten)]
        place: Place,
        /// Accept development keys and certificates.
        #[arg(long)]
        development: bool,
        /// Address of the data listener; public and admin follow (+1, +2).
        #[arg(long)]
        listen: Option<SocketAddr>,
        /// Start although the clock is behind the journal's last entry or more than 90 days after it: it is right.
        #[arg(long)]
        accept_clock: bool,
    },
    /// Checks the configuration and everything it names, and opens no port.
    CheckConfig {
        #[command(flatten)]
        place: Place,
    },
    /// Checks the journal on disk.
    #[command(subcommand)]
    Log(LogCommand),
    /// Makes the restart image anew from the newest snapshot and the journal behind it.
    Rebuild {
        #[command(flatten)]
        place: Place,
        /// Begin with the first entry instead of the newest snapshot, and make the tiles anew too.
        #[arg(long)]
        from_zero: bool,
        /// JSON output.
        #[arg(long)]
        json: bool,
    },
    /// Moves closed segments to the archive folder of the configuration, also while serving.
    Archive {
        #[command(flatten)]
        place: Place,
        /// Move the segments with lower numbers than this.
        #[arg(long)]
        before: u32,
        /// JSON output.
        #[arg(long)]
        json: bool,
    },
    /// Opens and reads the restart image; run by a start in a process of its own.
    #[command(hide = true, name = probe::COMMAND)]
    StoreCheck {
        /// Data folder.
        #[arg(long)]
        data: PathBuf,
        /// What the image is kept in.
        #[arg(long)]
        engine: String,
        /// Origin of the log.
        #[arg(long)]
        origin: String,
    },
    /// Changes the participant register of a serving exchange, as an operator.
    #[command(subcommand)]
    Participant(ParticipantCommand),
    /// Changes the epoch of a serving exchange before its time: proposes it, and another operator approves.
    Keys {
        /// Propose a change of epoch now.
        #[arg(long, required = true)]
        rotate_now: bool,
        /// Why.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        operator: Caller,
    },
    /// License types: what an authority has drafted is published by two operators.
    #[command(subcommand)]
    Type(TypeCommand),
    /// What operators have proposed.
    #[command(subcommand)]
    Proposals(ProposalsCommand),
    /// Proposes what needs two operators: erase-holder, hold-holder, release-hold, rotate-epoch, register-participant,
    /// publish-type.
    Propose {
        /// The proposal, JSON: kind, holder, participant or licenseType, reason.
        file: PathBuf,
        #[command(flatten)]
        operator: Caller,
    },
    /// Approves another operator's proposal.
    Approve {
        /// The proposal's id.
        proposal: String,
        /// The registration that it proposes, JSON; with register-participant only.
        #[arg(long)]
        participant: Option<PathBuf>,
        /// The definition that it proposes, JSON; with publish-type only.
        #[arg(long = "type", conflicts_with = "participant")]
        license_type: Option<PathBuf>,
        #[command(flatten)]
        operator: Caller,
    },
}

#[derive(Subcommand)]
enum TypeCommand {
    /// Proposes a definition, new or with more fields than the one there is; another operator approves: `exchange approve`.
    Add {
        /// The definition, JSON.
        file: PathBuf,
        /// Why.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        operator: Caller,
    },
    /// Lists the types that are published: code and name, one a line.
    List {
        #[command(flatten)]
        caller: Caller,
    },
    /// Prints the definition of a type.
    Show {
        /// Its code, 21 characters.
        code: String,
        #[command(flatten)]
        caller: Caller,
    },
}

#[derive(Subcommand)]
enum ProposalsCommand {
    /// Lists the proposals, JSON, one a line.
    List {
        #[command(flatten)]
        operator: Caller,
    },
}

#[derive(Subcommand)]
enum LogCommand {
    /// Recomputes tree, signatures and state from the segments, reading only.
    Verify {
        #[command(flatten)]
        place: Place,
        /// JSON output.
        #[arg(long)]
        json: bool,
    },
    /// Closes the log for good: it takes no entry any more. Prints its last checkpoint.
    Close {
        #[command(flatten)]
        place: Place,
    },
    /// Asks a serving exchange all pages of a query, as an auditor, for `verifier audit`. Each page is an entry.
    Export {
        /// The query, JSON: purpose, userName, and what is to match.
        #[arg(long)]
        query: PathBuf,
        /// The file to make, one page a line; none there yet. It holds personal data.
        #[arg(long)]
        out: PathBuf,
        #[command(flatten)]
        auditor: Caller,
    },
}

#[derive(Subcommand)]
enum ParticipantCommand {
    /// Registers a participant. A portal, auditor or operator, or a delay class, takes two operators: `exchange propose`, or
    /// --offline.
    Add {
        #[command(flatten)]
        registration: Registration,
    },
    /// Changes a registration. Of a portal, auditor or operator, or of a delay class, it takes two operators: `exchange
    /// propose`, or --offline.
    Change {
        #[command(flatten)]
        registration: Registration,
    },
    /// Lists the register, JSON, one registration a line; who is no operator or auditor sees its own.
    List {
        #[command(flatten)]
        operator: Caller,
    },
    /// Suspends a participant.
    Suspend {
        /// Organisation code.
        organisation: String,
        /// Why.
        #[arg(long)]
        reason: String,
        /// Lift the suspension instead.
        #[arg(long)]
        lift: bool,
        #[command(flatten)]
        operator: Caller,
    },
}

/// Exit status of `log verify`: the journal is damaged, or what is derived from it is.
const EXIT_DAMAGED: u8 = 1;
/// Exit status of `log verify`: it cannot be told.
const EXIT_CANNOT_TELL: u8 = 2;

/// Where the data lies.
#[derive(Args)]
struct Place {
    /// Data folder with a config.toml.
    #[arg(long, default_value = "data")]
    data: PathBuf,
    /// Configuration file, instead of the data folder's.
    #[arg(long, conflicts_with = "data")]
    config: Option<PathBuf>,
}

/// A registration, and how it is written.
#[derive(Args)]
struct Registration {
    /// The registration, JSON.
    file: PathBuf,
    /// Into the data folder, which nobody serves: also an operator or auditor, and not suspended from then on.
    #[arg(long, conflicts_with_all = ["server", "cert", "key"])]
    offline: bool,
    #[command(flatten)]
    operator: Caller,
}

/// As whom a command speaks to a serving exchange: as an operator, or as an auditor to export.
#[derive(Args)]
struct Caller {
    #[command(flatten)]
    place: Place,
    /// Address of the data listener, instead of the configuration's.
    #[arg(long)]
    server: Option<SocketAddr>,
    /// Own certificate, PEM [default: pki/clients/operator.pem or auditor.pem in the data folder].
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
}

impl Place {
    fn load(&self) -> Result<Config, ConfigError> {
        let mut config = match &self.config {
            Some(path) => Config::load(path),
            None => Config::load(&self.data.join("config.toml")),
        }?;
        config.program = std::env::current_exe().ok();
        Ok(config)
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(cli.command) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("exchange: {error:#}");
            ExitCode::from(app::exit_status(&error))
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match command {
        Command::Quickstart { data, listen, once } => {
            let metrics = app::install_metrics()?;
            runtime()?.block_on(quickstart::run(&data, listen, once, metrics))?;
        }
        Command::Init { data, continues: Some(old), lost, .. } => {
            let config = runtime()?.block_on(succession::open_successor(&data, &old, lost))?;
            println!(
                "made {} with log {}, which continues the log in {}",
                data.display(),
                config.origin,
                old.display()
            );
            println!("next: exchange/docs/operations/close-a-log.md, from step 3 on");
        }
        Command::Init { data, origin, operator, delay_days_max, .. } => {
            let origin = origin.context("--origin is needed")?;
            let config = runtime()?.block_on(init::production(&data, &origin, &operator, delay_days_max))?;
            println!("made {} with log {}", data.display(), config.origin);
            println!(
                "next: put the server certificate, its key and the client authorities where config.toml names them, then `exchange serve`"
            );
        }
        Command::Serve { place, development, listen, accept_clock } => {
            let mut config = place.load()?;
            config.accept_clock = accept_clock;
            if let Some(listen) = listen {
                config.listen = exchange::config::Listen::at(listen);
            }
            if !development {
                refuse_development_keys(&config)?;
            }
            let metrics = app::install_metrics()?;
            runtime()?.block_on(serve(&config, metrics))?;
        }
        Command::CheckConfig { place } => {
            let config = place.load()?;
            let folder = app::key_folder(&config)?;
            let keys = app::ledger_keys(&folder)?;
            anyhow::ensure!(
                keys.epochs.load(ledger::EpochFile::Current)?.is_some(),
                "the epoch's key file in keys is missing"
            );
            let (_, trust) = app::trust_bundle(&config)?;
            exchange::signer::Signers::start(certs::keys::load_issuer_keys(&folder)?, &trust)
                .map_err(anyhow::Error::msg)?;
            let read = |path: &Path| {
                let path = config.path(path);
                std::fs::read_to_string(&path).with_context(|| path.display().to_string())
            };
            exchange::tls::server_config(
                &read(&config.tls.certificate)?,
                &read(&config.tls.key)?,
                Some(&read(&config.tls.client_ca)?),
            )?;
            println!("{}", config.to_toml());
            println!("# good: configuration, keys, trust bundle {} and certificates", trust.sequence);
        }
        Command::Log(LogCommand::Verify { place, json }) => return log_verify(&place.load()?, json),
        Command::Log(LogCommand::Close { place }) => {
            print!("{}", runtime()?.block_on(succession::close(&place.load()?))?);
        }
        Command::Log(LogCommand::Export { query, out, auditor }) => {
            runtime()?.block_on(log_export(json_file(&query)?, &out, &auditor))?;
        }
        Command::Rebuild { place, from_zero, json } => rebuild(&place.load()?, from_zero, json)?,
        Command::Archive { place, before, json } => {
            let config = place.load()?;
            let keys = app::ledger_keys(&app::key_folder(&config)?)?;
            let done = ledger::archive(&app::ledger_options(&config), &keys, before).map_err(|error| {
                let message = error.to_string();
                match error {
                    OpenError::Options(_) | OpenError::NotYet { .. } => {
                        anyhow::Error::new(Exit { status: EXIT_USAGE, message })
                    }
                    error => error.into(),
                }
            })?;
            if json {
                println!("{}", serde_json::json!({"segments": done.segments, "bytes": done.bytes}));
            } else {
                println!("archived {} segments, {} bytes", done.segments, done.bytes);
            }
        }
        Command::StoreCheck { data, engine, origin } => {
            let known = ledger::Engine::ALL.into_iter().find(|known| known.name() == engine);
            ledger::check_store(&data, known.context("there is no such engine")?, &origin)?;
        }
        Command::Participant(command) => runtime()?.block_on(participant(command))?,
        Command::Keys { rotate_now: _, reason, operator } => {
            let body = serde_json::json!({"kind": "rotate-epoch", "reason": reason});
            runtime()?.block_on(operate(Route::Propose, &body, operator))?;
        }
        Command::Propose { file, operator } => {
            runtime()?.block_on(operate(Route::Propose, &json_file(&file)?, operator))?;
        }
        Command::Type(command) => runtime()?.block_on(license_type(command))?,
        Command::Proposals(ProposalsCommand::List { operator }) => {
            runtime()?.block_on(list(Route::ProposalList, "proposals", operator))?;
        }
        Command::Approve { proposal, participant, license_type, operator } => {
            let mut body = serde_json::json!({"proposal": proposal});
            if let Some(file) = participant {
                body["participant"] = json_file(&file)?;
            }
            if let Some(file) = license_type {
                body["licenseType"] = json_file(&file)?;
            }
            runtime()?.block_on(operate(Route::Approve, &body, operator))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn refuse_development_keys(config: &Config) -> anyhow::Result<()> {
    for path in [&config.tls.certificate, &config.tls.client_ca] {
        let path = config.path(path);
        let pem = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        if certs::pki::is_development(&pem) {
            let message =
                format!("{} is of the development PKI; serve it with --development only", path.display());
            return Err(Exit { status: EXIT_USAGE, message }.into());
        }
    }
    Ok(())
}

async fn serve(
    config: &Config,
    metrics: metrics_exporter_prometheus::PrometheusHandle,
) -> anyhow::Result<()> {
    let mut stop = app::StopSignal::new()?;
    let app = App::open(config, metrics).await?;
    println!(
        "serving log {} with {} entries: data {}  public {}  admin {}",
        config.origin,
        app.gateway.ledger().size(),
        app.addresses.data,
        app.addresses.public,
        app.addresses.admin
    );
    app.run(async move { stop.received().await }).await?;
    println!("stopped");
    Ok(())
}

fn rebuild(config: &Config, from_zero: bool, json: bool) -> anyhow::Result<()> {
    let keys = app::ledger_keys(&app::key_folder(config)?)?;
    let from = if from_zero { RebuildFrom::Zero } else { RebuildFrom::Snapshot };
    let bar = ProgressBar::new_spinner();
    let report = ledger::rebuild(app::ledger_options(config), keys, from, &|entries| {
        bar.set_message(format!("{entries} entries"));
        bar.tick();
    });
    bar.finish_and_clear();
    let report = report?;
    let digest = hex::encode(report.state_digest);
    if json {
        let report = serde_json::json!({
            "size": report.size, "replayed": report.replayed, "snapshot": report.from_snapshot,
            "stateDigest": digest,
        });
        println!("{report}");
    } else {
        let from =
            report.from_snapshot.map_or("the first entry".to_owned(), |size| format!("snapshot {size}"));
        println!("rebuilt {} entries from {from}, state digest {digest}", report.size);
    }
    Ok(())
}

fn image_name(found: ImageFound) -> &'static str {
    match found {
        ImageFound::Absent => "absent",
        ImageFound::InUse => "in-use",
        ImageFound::Good => "good",
        ImageFound::Bad => "bad",
    }
}

fn log_verify(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let keys = app::ledger_keys(&app::key_folder(config)?)?;
    let bar = ProgressBar::new_spinner();
    let report = ledger::verify_log(app::ledger_options(config), keys, |entries| {
        bar.set_message(format!("{entries} entries"));
        bar.tick();
    });
    bar.finish_and_clear();
    match report {
        Ok(report) => {
            let good = report.problems.is_empty();
            if json {
                let report = serde_json::json!({
                    "verdict": if good { "valid" } else { "invalid" }, "size": report.size, "root": hex::encode(report.root),
                    "frames": report.frames, "segments": report.segments, "tornTail": report.torn_tail,
                    "published": report.published, "stateDigest": hex::encode(report.state_digest),
                    "loggedDigests": report.logged_digests, "indexRoots": report.index_roots,
                    "tilesFrom": report.tiles_from,
                    "snapshots": report.snapshots,
                    "image": image_name(report.image), "problems": report.problems,
                });
                println!("{report}");
            } else {
                let torn = if report.torn_tail {
                    "; an unfinished write at its end was never acknowledged"
                } else {
                    ""
                };
                println!(
                    "log {}: {} entries in {} frames, root {}{torn}; image {}",
                    if good { "good" } else { "good, what is derived from it bad" },
                    report.size,
                    report.frames,
                    hex::encode(report.root),
                    image_name(report.image),
                );
                for problem in &report.problems {
                    println!("problem: {problem}");
                }
            }
            Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(error) => {
            let (verdict, word, status) = match &error {
                OpenError::Options(_) => {
                    return Err(Exit { status: EXIT_USAGE, message: error.to_string() }.into());
                }
                // The keys may be the wrong ones, a segment may be in an archive that is away, a disk may be busy.
                OpenError::Keys(_) | OpenError::Missing { .. } | OpenError::Io { .. } => {
                    ("unknown", "cannot be told", EXIT_CANNOT_TELL)
                }
                _ => ("invalid", "bad", EXIT_DAMAGED),
            };
            if json {
                println!("{}", serde_json::json!({"verdict": verdict, "problem": error.to_string()}));
            } else {
                println!("log {word}: {error}");
            }
            Ok(ExitCode::from(status))
        }
    }
}

async fn participant(command: ParticipantCommand) -> anyhow::Result<()> {
    match command {
        ParticipantCommand::Add { registration } => register(registration, false).await,
        ParticipantCommand::Change { registration } => register(registration, true).await,
        ParticipantCommand::List { operator } => list(Route::ParticipantList, "participants", operator).await,
        ParticipantCommand::Suspend { organisation, reason, lift, operator } => {
            let body =
                serde_json::json!({"organisation": organisation, "suspended": !lift, "reason": reason});
            operate(Route::ParticipantSuspend, &body, operator).await
        }
    }
}

async fn license_type(command: TypeCommand) -> anyhow::Result<()> {
    match command {
        TypeCommand::Add { file, reason, operator } => {
            let body = serde_json::json!({
                "kind": "publish-type", "licenseType": json_file(&file)?, "reason": reason,
            });
            operate(Route::Propose, &body, operator).await
        }
        TypeCommand::List { caller } => {
            for one in operate::types::published(&mut caller.connect_public("operator").await?).await? {
                println!(
                    "{} {}",
                    one["code"].as_str().unwrap_or_default(),
                    one["name"].as_str().unwrap_or_default()
                );
            }
            Ok(())
        }
        TypeCommand::Show { code, caller } => {
            let types = operate::types::published(&mut caller.connect_public("operator").await?).await?;
            let found = types.iter().find(|one| one["code"].as_str() == Some(&code));
            println!("{}", serde_json::to_string_pretty(found.context("no such type is published")?)?);
            Ok(())
        }
    }
}

/// Prints all rows of a list, one a line.
async fn list(route: Route, member: &str, operator: Caller) -> anyhow::Result<()> {
    for row in operate::lists::all(&mut operator.connect("operator").await?, route, member).await? {
        println!("{row}");
    }
    Ok(())
}

/// Adds or changes a registration, through a serving exchange or in its folder.
async fn register(registration: Registration, change: bool) -> anyhow::Result<()> {
    let Registration { file, offline, operator } = registration;
    let participant = json_file(&file)?;
    if offline {
        return init::register_offline(&operator.place.load()?, &participant.to_string(), change).await;
    }
    let route = if change { Route::ParticipantChange } else { Route::ParticipantAdd };
    operate(route, &serde_json::json!({ "participant": participant }), operator).await
}

impl Caller {
    /// A connection to the exchange; `name` is the development participant whose certificate is taken unless told.
    async fn connect(&self, name: &str) -> anyhow::Result<Client> {
        let config = self.place.load()?;
        self.connect_to(&config, self.server.unwrap_or(config.listen.data), name).await
    }

    /// The same to the public listener, which is where it follows the data listener unless the configuration says.
    async fn connect_public(&self, name: &str) -> anyhow::Result<Client> {
        let config = self.place.load()?;
        let address =
            self.server.map_or(config.listen.public, |data| exchange::config::Listen::at(data).public);
        self.connect_to(&config, address, name).await
    }

    async fn connect_to(&self, config: &Config, address: SocketAddr, name: &str) -> anyhow::Result<Client> {
        let default = |end: &str| config.path(Path::new("pki/clients")).join(format!("{name}.{end}"));
        let cert = self.cert.clone().unwrap_or_else(|| default("pem"));
        let key = self.key.clone().unwrap_or_else(|| default("key"));
        let identity = Identity::load(&config.path(&config.tls.client_ca), &cert, &key)?;
        identity.connect(address).await
    }
}

/// Sends a request to a serving exchange as an operator, and prints the answer.
async fn operate(route: Route, body: &serde_json::Value, operator: Caller) -> anyhow::Result<()> {
    let path = route.path().context("a data route has a path")?;
    let mut client = operator.connect("operator").await?;
    let mut random = [0; 16];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random)
        .map_err(|_| anyhow::anyhow!("no randomness"))?;
    let (status, answer) =
        client.post(path, serde_json::to_vec(body)?, &[("idempotency-key", &hex::encode(random))]).await?;
    println!("{}", String::from_utf8_lossy(&answer));
    anyhow::ensure!(status < 300, "refused with status {status}");
    Ok(())
}

/// Writes all pages of an auditor's query to a file that appears whole or not at all.
async fn log_export(query: serde_json::Value, out: &Path, auditor: &Caller) -> anyhow::Result<()> {
    anyhow::ensure!(!out.exists(), "{} is there already", out.display());
    let mut client = auditor.connect("auditor").await?;
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Readable by its owner alone, and gone again when dropped before it has its name.
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(|| folder.display().to_string())?;
    let (pages, entries) = export::pages(&mut client, query, file.as_file_mut()).await?;
    file.as_file().sync_all()?;
    file.persist_noclobber(out).map_err(|error| error.error).with_context(|| out.display().to_string())?;
    println!("{}: {entries} entries in {pages} pages", out.display());
    Ok(())
}

fn json_file(file: &Path) -> anyhow::Result<serde_json::Value> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    serde_json::from_str(&text).with_context(|| file.display().to_string())
}
