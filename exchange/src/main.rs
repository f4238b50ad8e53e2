//! The `exchange` command: its command line. Each command's work stands in `operate/`. A command's own file says who
//! may run it and what a crash leaves.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use exchange::config::resolved;
use exchange::exit;
use exchange::logging::{self, LogFormat};
use exchange::operate::{self, Caller, Place, Registration, Sure};
use exchange::participant::{MAX_DELAY_DAYS, USUAL_DELAY_DAYS};
use exchange::probe;
use schemas::routes::Route;
use verifier::command::{self, EXIT_DONE};

/// Requests are made on one thread and freed on another, which costs the system's allocator a lock each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The part of the help that stands apart from the other commands.
const IRREVOCABLE: &str = "\
Cannot be undone (asks on a terminal, elsewhere needs --yes):
  log close                      Closes a log for good: it takes no entry any more
  init --continues OLD --lost    Gives up a log that went back, for a successor";

/// 秒享: issues, serves and verifies electronic licenses; every request is authorised and journaled before its answer.
#[derive(Parser)]
#[command(name = "exchange", version, about, long_about = None, after_help = IRREVOCABLE)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How the log on standard error is written.
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: LogFormat,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a development exchange, performs the whole round over mTLS, and keeps serving.
    Quickstart {
        /// Data folder; completed if it exists.
        #[arg(long, default_value = "data")]
        data: PathBuf,
        /// Address of the data listener: a host or an address, and a port. Public follows (+1), admin on loopback (+2).
        #[arg(long, value_parser = resolved)]
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
        /// The trust authority's Ed25519 key, PKCS#8 in PEM [default: the folder gets one of its own].
        #[arg(long, value_name = "FILE")]
        authority_key: Option<PathBuf>,
        /// The trust authority's name.
        #[arg(long, value_name = "NAME", requires = "authority_key", conflicts_with = "continues")]
        authority: Option<String>,
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
        /// The old log went back, so that it can neither be served nor closed. Cannot be undone.
        #[arg(long, requires = "continues")]
        lost: bool,
        #[command(flatten)]
        sure: Sure,
    },
    /// Serves.
    Serve {
        #[command(flatten)]
        place: Place,
        /// Accept development keys and certificates.
        #[arg(long)]
        development: bool,
        /// Address of the data listener: a host or an address, and a port. Public follows (+1), admin on loopback (+2).
        #[arg(long, value_parser = resolved)]
        listen: Option<SocketAddr>,
        /// Start although the clock is behind the journal's last entry or far after it: it is right. Far is more than 90
        /// days, and in production 72 hours unless a time service keeps the clock.
        #[arg(long)]
        accept_clock: bool,
        /// Start although the folder is a copy or was moved: the original is gone for good.
        #[arg(long)]
        moved: bool,
    },
    /// Copies everything original of a data folder except the key-encryption key, also while serving. Nothing serves the copy.
    Backup {
        #[command(flatten)]
        place: Place,
        /// Folder to make; none there yet.
        #[arg(long)]
        out: PathBuf,
    },
    /// Makes a data folder from a backup: its log is a new one, the successor of the old.
    Restore {
        /// The backup.
        #[arg(long)]
        from: PathBuf,
        /// Data folder to make.
        #[arg(long)]
        data: PathBuf,
        /// The key-encryption key, which no backup holds.
        #[arg(long, value_name = "FILE")]
        kek: PathBuf,
        /// The trust authority's Ed25519 key, PKCS#8 in PEM, unless the backup holds it.
        #[arg(long, value_name = "FILE")]
        authority_key: Option<PathBuf>,
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
        /// The clock is right, though the journal's last entry contradicts it.
        #[arg(long)]
        accept_clock: bool,
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
        /// The engine that keeps the image.
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
    /// Licenses that an issuing authority has issued.
    #[command(subcommand)]
    License(LicenseCommand),
    /// The proposals of operators.
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
enum LicenseCommand {
    /// Lists the licenses that the caller has issued, ended ones too, JSON, one a line.
    List {
        /// Only of this type: its code, 21 characters.
        #[arg(long = "type", value_name = "CODE")]
        type_code: Option<String>,
        /// Only in this state, for example 01 (valid).
        #[arg(long)]
        state: Option<String>,
        #[command(flatten)]
        issuer: Caller,
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
#[command(after_help = "\
Cannot be undone (asks on a terminal, elsewhere needs --yes):
  close   Closes the log for good: it takes no entry any more. Prints its last checkpoint")]
enum LogCommand {
    /// Recomputes tree, signatures and state from the segments, reading only.
    Verify {
        #[command(flatten)]
        place: Place,
        /// JSON output.
        #[arg(long)]
        json: bool,
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
    /// Closes the log for good: it takes no entry any more. Prints its last checkpoint. Cannot be undone.
    #[command(hide = true)]
    Close {
        #[command(flatten)]
        place: Place,
        /// The clock is right, though the journal's last entry contradicts it.
        #[arg(long)]
        accept_clock: bool,
        #[command(flatten)]
        sure: Sure,
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
    /// Changes a registration. One of a portal, auditor or operator, or of a delay class, takes two operators:
    /// `exchange propose`, or --offline.
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

fn main() -> ExitCode {
    if let Err(error) = certs::process::harden() {
        command::note(format_args!("exchange: {}", command::why(&error)));
        return ExitCode::from(exit::EXIT_INTERNAL);
    }
    let cli: Cli = match command::parse() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    logging::start(cli.log_format);
    match run(cli.command) {
        Ok(status) => command::end(status),
        Err(error) => {
            command::note(format_args!("exchange: {}", command::why(&*error)));
            ExitCode::from(exit::exit_status(&error))
        }
    }
}

/// Carries a command out and gives its exit status.
fn run(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Quickstart { data, listen, once } => operate::serve::quickstart(&data, listen, once)?,
        Command::Init { data, continues: Some(old), lost, authority_key, sure, .. } => {
            operate::init::successor(&data, &old, lost, authority_key.as_deref(), &sure)?;
        }
        Command::Init { data, origin, operator, delay_days_max, authority_key, authority, .. } => {
            let origin = origin.unwrap_or_default();
            let authority = authority_key.as_deref().map(|key| (key, authority.as_deref()));
            operate::init::production(&data, &origin, &operator, delay_days_max, authority)?;
        }
        Command::Serve { place, development, listen, accept_clock, moved } => {
            operate::serve::serve(&place, development, listen, accept_clock, moved)?;
        }
        Command::Backup { place, out } => operate::backup::run(&place, &out)?,
        Command::Restore { from, data, kek, authority_key } => {
            operate::restore::run(&from, &data, &kek, authority_key.as_deref())?;
        }
        Command::CheckConfig { place } => operate::check_config::run(&place)?,
        Command::Log(LogCommand::Verify { place, json }) => return operate::log_verify::run(&place, json),
        Command::Log(LogCommand::Close { place, accept_clock, sure }) => {
            operate::log_close::run(&place, accept_clock, &sure)?;
        }
        Command::Log(LogCommand::Export { query, out, auditor }) => {
            operate::log_export::run(&query, &out, &auditor)?;
        }
        Command::Rebuild { place, from_zero, accept_clock, json } => {
            operate::rebuild::run(&place, from_zero, accept_clock, json)?;
        }
        Command::Archive { place, before, json } => operate::archive::run(&place, before, json)?,
        Command::StoreCheck { data, engine, origin } => operate::store_check::run(&data, &engine, &origin)?,
        Command::Participant(ParticipantCommand::Add { registration }) => {
            return operate::participant::register(&registration, false);
        }
        Command::Participant(ParticipantCommand::Change { registration }) => {
            return operate::participant::register(&registration, true);
        }
        Command::Participant(ParticipantCommand::Suspend { organisation, reason, lift, operator }) => {
            return operate::participant::suspend(&organisation, &reason, lift, &operator);
        }
        Command::Keys { rotate_now: _, reason, operator } => {
            return operate::propose::rotation(&reason, &operator);
        }
        Command::Propose { file, operator } => return operate::propose::file(&file, &operator),
        Command::Approve { proposal, participant, license_type, operator } => {
            let (participant, license_type) = (participant.as_deref(), license_type.as_deref());
            return operate::propose::approve(&proposal, participant, license_type, &operator);
        }
        Command::Type(TypeCommand::Add { file, reason, operator }) => {
            return operate::types::add(&file, &reason, &operator);
        }
        Command::Type(TypeCommand::List { caller }) => operate::types::list(&caller)?,
        Command::Type(TypeCommand::Show { code, caller }) => operate::types::show(&code, &caller)?,
        Command::License(LicenseCommand::List { type_code, state, issuer }) => {
            operate::lists::licenses(type_code.as_deref(), state.as_deref(), &issuer)?;
        }
        Command::Proposals(ProposalsCommand::List { operator }) => {
            operate::lists::print(Route::ProposalList, "proposals", &operator)?;
        }
        Command::Participant(ParticipantCommand::List { operator }) => {
            operate::lists::print(Route::ParticipantList, "participants", &operator)?;
        }
    }
    Ok(EXIT_DONE)
}
