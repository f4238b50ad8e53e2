//! The `exchange` command: its command line. Each command's work stands in `operate/`. A command's own file says who
//! may run it and what a crash leaves.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};
use exchange::config::resolved;
use exchange::exit;
use exchange::logging::{self, LogFormat};
use exchange::operate::records::{Import, ImportList};
use exchange::operate::verify::{HELP, Verifying};
use exchange::operate::{self, Caller, Place, Registration, Sure};
use exchange::participant::{MAX_DELAY_DAYS, USUAL_DELAY_DAYS};
use exchange::probe;
use schemas::dictionary::List;
use schemas::resource::{Domain, Ground};
use schemas::routes::Route;
use schemas::sharing::{ApplicationAction, ApplicationState, ResourceAction};
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
    /// Says which uses were destroyed with the end of their period, and which are on a day, reading the journal only.
    Retention(operate::retention::Retaining),
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
    /// Calendars of working days, which the clocks of applications count by.
    #[command(subcommand)]
    Calendar(CalendarCommand),
    /// Addresses at which the interfaces of data providers are called.
    #[command(subcommand)]
    Address(operate::address::Command),
    /// Policies in Cedar, beside the floor: checked, shown, proposed, and asked about the past.
    #[command(subcommand)]
    Policy(operate::policy::Command),
    /// Shared resources: what a department publishes for others.
    #[command(subcommand)]
    Resource(ResourceCommand),
    /// Applications to use a shared resource.
    #[command(subcommand)]
    Application(ApplicationCommand),
    /// Counts how well departments share, JSON: applications connected within three working days (3日对接率), granted by rule
    /// (秒享率), overdue, resources and their quality, a score; of all and by provider; and by item the share of materials done
    /// without (免提交率). With a log also calls that were served (调用成功率) and why others were not. For operators and auditors; the
    /// auditor's certificate is taken unless told.
    Indicators {
        /// The file of `exchange log export`.
        #[arg(long, value_name = "FILE")]
        log: Option<PathBuf>,
        #[command(flatten)]
        caller: Caller,
    },
    /// Brings data in.
    #[command(subcommand)]
    Import(ImportCommand),
    /// Service items and their materials: what need not be handed in.
    #[command(subcommand)]
    Item(ItemCommand),
    /// Verifies many licenses in one call, and keeps the report for `verifier report`. Prints how many were answered how.
    #[command(after_help = HELP)]
    Verify(Verifying),
    /// Asks for a row of a resource, within an approval, and prints the answer with its receipt.
    #[command(after_help = "\
The file names the resource, the holder or key, and the use. Fields, masks, regions and the daily limit follow from the approval.
Example:
  exchange query query.json --as approval")]
    Query {
        /// The question, JSON: resource, holder, key, fields, use.
        file: PathBuf,
        /// From the interface of its provider; without it of a hosted resource.
        #[arg(long)]
        call: bool,
        #[command(flatten)]
        caller: Caller,
    },
    /// Prints the rows and removals of a hosted resource that came since the last call, one a line, within an approval for a feed.
    Feed {
        /// The question, JSON: resource, use.
        file: PathBuf,
        /// The file that says how far the feed was read; made by the first call.
        #[arg(long, value_name = "FILE")]
        cursor: PathBuf,
        #[command(flatten)]
        caller: Caller,
    },
    /// Compares a license with its row of a base resource, as its issuer or as the resource's provider.
    Compare {
        /// Identifier of the license.
        license: String,
        /// Code of the resource.
        #[arg(long, value_name = "CODE")]
        resource: String,
        /// Why.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        caller: Caller,
    },
    /// Prints licenses and base resources that disagree, one a line.
    Mismatches {
        /// Only those that are open or corrected.
        #[arg(long)]
        state: Option<String>,
        #[command(flatten)]
        caller: Caller,
    },
    /// Proposes what needs two operators: erase-holder, hold-holder, release-hold, rotate-epoch, register-participant,
    /// publish-type, publish-calendar.
    Propose {
        /// The proposal, JSON: kind, holder, participant, licenseType or calendar, reason.
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
        /// The calendar that it proposes, JSON; with publish-calendar only.
        #[arg(long, conflicts_with_all = ["participant", "license_type"])]
        calendar: Option<PathBuf>,
        /// The policies that it proposes, Cedar; with publish-policies only.
        #[arg(long, conflicts_with_all = ["participant", "license_type", "calendar"])]
        policy: Option<PathBuf>,
        #[command(flatten)]
        operator: Caller,
    },
}

#[derive(Subcommand)]
enum CalendarCommand {
    /// Proposes the calendar of a year, in place of the one there is; another operator approves: `exchange approve`. Clocks that
    /// run are computed anew, each an entry.
    #[command(after_help = "\
The file holds year, notice (its number, 国办发明电〔YYYY〕N号), published, source, off and work: schemas/calendars/2026.json is one.
Example:
  exchange calendar add 2027.json --reason 国务院办公厅通知
  exchange approve PROPOSAL --calendar 2027.json --as operator2")]
    Add {
        /// The calendar, JSON.
        file: PathBuf,
        /// Why.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        operator: Caller,
    },
}

#[derive(Subcommand)]
enum ResourceCommand {
    /// Writes a definition: a new draft, or in place of the provider's own.
    #[command(after_help = "\
schemas/resources.json holds a definition of each domain. The faults of one are named member by member.
Example:
  exchange resource write population.json")]
    Write {
        /// The definition, JSON.
        file: PathBuf,
        #[command(flatten)]
        provider: Caller,
    },
    /// Puts a draft into the catalogue. A unit has to answer for each of the seven duties.
    #[command(after_help = "Example:\n  exchange resource publish 1010010001/000001 --reason 首次发布")]
    Publish {
        #[command(flatten)]
        step: ResourceStep,
    },
    /// Answers no query until it is resumed. Applications and approvals stay.
    #[command(after_help = "Example:\n  exchange resource suspend 1010010001/000001 --reason 数据质量核查")]
    Suspend {
        #[command(flatten)]
        step: ResourceStep,
    },
    /// Answers queries again.
    #[command(after_help = "Example:\n  exchange resource resume 1010010001/000001 --reason 核查完成")]
    Resume {
        #[command(flatten)]
        step: ResourceStep,
    },
    /// Takes a resource out of the catalogue for good.
    #[command(after_help = "Example:\n  exchange resource withdraw 1010010001/000001 --reason 职责调整")]
    Withdraw {
        #[command(flatten)]
        step: ResourceStep,
    },
    /// Lists the catalogue, JSON, one resource a line. Drafts and withdrawn ones are shown to their provider alone.
    #[command(after_help = "Example:\n  exchange resource list --domain population --as approval")]
    List {
        /// Only with these words in name, summary or the label of a field.
        #[arg(long)]
        words: Option<String>,
        /// Only of this domain.
        #[arg(long, value_parser = PossibleValuesParser::new(Domain::ALL.iter().map(|domain| domain.name())))]
        domain: Option<String>,
        #[command(flatten)]
        caller: Caller,
    },
}

#[derive(Args)]
struct ResourceStep {
    /// Its code. Example: 1010010001/000001.
    code: String,
    /// Why.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    provider: Caller,
}

#[derive(Subcommand)]
enum ApplicationCommand {
    /// Applies for a resource and a service item. A need that a rule covers is granted in the answer.
    #[command(after_help = "\
The file holds resource, itemCode, itemName, purpose and scope: fields, clear, regions, dailyLimit, until.
Example:
  exchange application make application.json --as approval")]
    Make {
        /// The application, JSON.
        file: PathBuf,
        #[command(flatten)]
        applicant: Caller,
    },
    /// The provider agrees. At level 4 an operator countersigns.
    #[command(after_help = "\
Without --terms all is allowed that was asked. Terms hold what a scope holds, and no more than was asked.
Example:
  exchange application approve 5f0c… --terms terms.json --as provider")]
    Approve {
        /// The application's id.
        id: String,
        /// The scope that is allowed instead of all that was asked, JSON.
        #[arg(long, value_name = "FILE")]
        terms: Option<PathBuf>,
        #[command(flatten)]
        provider: Caller,
    },
    /// The provider, or the operator who does not countersign, refuses on a ground with its legal basis.
    #[command(after_help = "\
Example:
  exchange application refuse 5f0c… --ground excessive --basis 国务院令第809号 --as provider")]
    Refuse {
        /// The application's id.
        id: String,
        /// The ground.
        #[arg(long, value_parser = PossibleValuesParser::new(Ground::ALL.iter().map(|ground| ground.name())))]
        ground: String,
        /// Its legal basis.
        #[arg(long)]
        basis: String,
        #[command(flatten)]
        caller: Caller,
    },
    /// An operator countersigns what a provider has agreed to.
    #[command(after_help = "Example:\n  exchange application countersign 5f0c… --as operator")]
    Countersign {
        /// The application's id.
        id: String,
        #[command(flatten)]
        operator: Caller,
    },
    /// The provider has supplied the files or tables that were agreed on.
    #[command(after_help = "Example:\n  exchange application provide 5f0c… --as provider")]
    Provide {
        /// The application's id.
        id: String,
        #[command(flatten)]
        provider: Caller,
    },
    /// Either side says something; nothing else changes.
    #[command(
        after_help = "Example:\n  exchange application negotiate 5f0c… --note 请说明用途 --as provider"
    )]
    Negotiate {
        #[command(flatten)]
        said: Said,
    },
    /// The applicant asks the operator to settle a dispute.
    #[command(
        after_help = "Example:\n  exchange application dispute 5f0c… --note 属于履职所需 --as approval"
    )]
    Dispute {
        #[command(flatten)]
        said: Said,
    },
    /// The operator has settled a dispute. Until then the provider may agree to what it refused.
    #[command(after_help = "Example:\n  exchange application settle 5f0c… --note 已协调一致 --as operator")]
    Settle {
        #[command(flatten)]
        said: Said,
    },
    /// The applicant withdraws the application or ends the use; the provider ends it on a ground.
    #[command(after_help = "\
Example:
  exchange application stop 5f0c… --as approval
  exchange application stop 5f0c… --ground no-duty --basis 国务院令第809号 --as provider")]
    Stop {
        /// The application's id.
        id: String,
        /// The provider's ground.
        #[arg(long, requires = "basis", value_parser = PossibleValuesParser::new(Ground::ALL.iter().map(|ground| ground.name())))]
        ground: Option<String>,
        /// Its legal basis.
        #[arg(long, requires = "ground")]
        basis: Option<String>,
        #[command(flatten)]
        caller: Caller,
    },
    /// Lists applications with their clocks, JSON, one a line: those of both parties, to operators and auditors all.
    #[command(after_help = "Example:\n  exchange application list --overdue --as approval")]
    List {
        /// Only those whose clock is over.
        #[arg(long)]
        overdue: bool,
        /// Only those whose clock ends within so many working days, or is over.
        #[arg(long, value_name = "DAYS")]
        due_within: Option<u16>,
        /// Only in this state.
        #[arg(long, value_parser = PossibleValuesParser::new(ApplicationState::ALL.map(ApplicationState::name)))]
        state: Option<String>,
        #[command(flatten)]
        caller: Caller,
    },
}

#[derive(Args)]
struct Said {
    /// The application's id.
    id: String,
    /// The words.
    #[arg(long)]
    note: String,
    #[command(flatten)]
    caller: Caller,
}

#[derive(Subcommand)]
enum ImportCommand {
    /// Brings the rows of a file into a hosted resource, as its provider. Prints how many were taken.
    #[command(after_help = "\
A file of any size is read once, row by row, and sent in batches. An empty value of CSV is no value. A row whose key is there
takes its place; a key that stands twice in a batch is rejected the second time. Rejects are JSON, one a line: line, field (empty
for the whole row), rule, allowed. No value stands in them. The status is 1 when a row was rejected or the file is cut off.
Run again after a cut, a kill or a lost answer, with the same --batch, it brings nothing in twice: idempotency keys follow from what
is sent, and the exchange keeps them for 24 hours. Rows that it knows by them are counted as \"already\". Afterwards a row simply
takes its own place again.
Example:
  exchange import records population.csv --resource 1010010001/000001 --rejects rejects.ndjson")]
    Records {
        #[command(flatten)]
        import: Import,
    },
    /// Brings a dictionary of service items (事项) in, as an operator.
    #[command(after_help = LISTS)]
    Items {
        #[command(flatten)]
        import: ImportList,
    },
    /// Brings a dictionary of materials (材料) in, as an operator.
    #[command(after_help = LISTS)]
    Materials {
        #[command(flatten)]
        import: ImportList,
    },
    /// Brings a dictionary of data elements (数据元) in, as an operator.
    #[command(after_help = LISTS)]
    Elements {
        #[command(flatten)]
        import: ImportList,
    },
    /// Brings mappings of items' materials in, as an operator or as the items' department.
    #[command(after_help = LISTS)]
    Mappings {
        #[command(flatten)]
        import: ImportList,
    },
    /// Brings lines of organisations' lists of intended uses (用证清单) in, as an operator.
    #[command(after_help = LISTS)]
    Uses {
        #[command(flatten)]
        import: ImportList,
    },
}

/// The help of lists that are imported.
const LISTS: &str = "\
Rows are texts by field, as of records; lists have blanks between their words. Materials come before items, and items before mappings.
  materials  code name version origin(applicant|government|other)
  items      code name version department materials result
  elements   code name version
  mappings   item material mode(drop|share|verify) resource typeCode fields
  uses       organisation item typeCode materials modes(verify fields face envelope copy search) fields
Each may have status(active|cancelled). A change has a greater version; one of an item puts its mappings under review.
Example:
  exchange import mappings mappings.csv --source 免提交清单2026 --rejects rejects.ndjson";

#[derive(Subcommand)]
enum ItemCommand {
    /// Lists a dictionary, the mappings, what was demanded on paper, intended uses, or who asked for more than those; JSON, one row a
    /// line.
    #[command(after_help = "Example:\n  exchange item list mappings --review")]
    List {
        /// The list.
        #[arg(value_parser = PossibleValuesParser::new(["items", "materials", "elements", "mappings", "demands", "uses", "beyond"]))]
        list: String,
        /// Only of this item; of mappings, demands and uses.
        #[arg(long, value_name = "CODE")]
        item: Option<String>,
        /// Only mappings whose item has changed since.
        #[arg(long)]
        review: bool,
        #[command(flatten)]
        caller: Caller,
    },
    /// Prints the fields of resources that are no data element, and the data elements that no resource uses.
    #[command(after_help = "Example:\n  exchange item orphans")]
    Orphans {
        #[command(flatten)]
        caller: Caller,
    },
    /// Asks which materials of an item need not be handed in.
    #[command(after_help = "\
The file holds use, whose item is asked about, and for a holder: holder, grants (of mode search, in the holder's name), digests.
Example:
  exchange item materials question.json --as approval")]
    Materials {
        /// The question, JSON.
        file: PathBuf,
        #[command(flatten)]
        caller: Caller,
    },
    /// Keeps a material that was verified for a holder, so that nobody has to hand it in again.
    #[command(after_help = "\
The file holds holder, material, digest (SHA-256), trust (A to D), until and use.
Example:
  exchange item keep kept.json --as approval")]
    Keep {
        /// The material, JSON.
        file: PathBuf,
        #[command(flatten)]
        caller: Caller,
    },
    /// Reports which materials were demanded on paper in a stage of a case.
    #[command(after_help = "\
The file holds demanded (codes; none is a report too), use, and the holder if there is one.
Example:
  exchange item demanded report.json --as approval")]
    Demanded {
        /// The report, JSON.
        file: PathBuf,
        #[command(flatten)]
        caller: Caller,
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
        Command::Retention(retaining) => operate::retention::run(&retaining)?,
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
        Command::Approve { proposal, participant, license_type, calendar, policy, operator } => {
            let [participant, license_type, calendar, policy] =
                [&participant, &license_type, &calendar, &policy].map(|file| file.as_deref());
            let approve = operate::propose::approve;
            return approve(&proposal, participant, license_type, calendar, policy, &operator);
        }
        Command::Calendar(CalendarCommand::Add { file, reason, operator }) => {
            return operate::calendar::add(&file, &reason, &operator);
        }
        Command::Address(command) => return operate::address::run(&command),
        Command::Policy(command) => return operate::policy::run(&command),
        Command::Resource(command) => return resource(command),
        Command::Application(command) => return application(command),
        Command::Indicators { log, caller } => return operate::indicators::print(log.as_deref(), &caller),
        Command::Import(command) => return import(&command),
        Command::Item(command) => return item(command),
        Command::Verify(verifying) => return operate::verify::run(&verifying),
        Command::Query { file, call, caller } => return operate::records::query(&file, call, &caller),
        Command::Feed { file, cursor, caller } => return operate::feed::follow(&file, &cursor, &caller),
        Command::Compare { license, resource, reason, caller } => {
            return operate::feed::compare(&resource, &license, &reason, &caller);
        }
        Command::Mismatches { state, caller } => operate::feed::mismatches(state.as_deref(), &caller)?,
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

fn import(command: &ImportCommand) -> anyhow::Result<u8> {
    let (list, import) = match command {
        ImportCommand::Records { import } => return operate::records::import(import),
        ImportCommand::Items { import } => (List::Items, import),
        ImportCommand::Materials { import } => (List::Materials, import),
        ImportCommand::Elements { import } => (List::Elements, import),
        ImportCommand::Mappings { import } => (List::Mappings, import),
        ImportCommand::Uses { import } => (List::Uses, import),
    };
    operate::records::import_list(list, import)
}

fn item(command: ItemCommand) -> anyhow::Result<u8> {
    let (route, file, caller) = match command {
        ItemCommand::List { list, item, review, caller } => {
            operate::item::list(&list, item.as_deref(), review, &caller)?;
            return Ok(EXIT_DONE);
        }
        ItemCommand::Orphans { caller } => return operate::item::orphans(&caller),
        ItemCommand::Materials { file, caller } => (Route::ItemsMaterials, file, caller),
        ItemCommand::Keep { file, caller } => (Route::MaterialKeep, file, caller),
        ItemCommand::Demanded { file, caller } => (Route::ItemsDemanded, file, caller),
    };
    operate::item::send(route, &file, &caller)
}

fn resource(command: ResourceCommand) -> anyhow::Result<u8> {
    let (action, ResourceStep { code, reason, provider }) = match command {
        ResourceCommand::Write { file, provider } => return operate::resource::write(&file, &provider),
        ResourceCommand::List { words, domain, caller } => {
            operate::resource::list(words.as_deref(), domain.as_deref(), &caller)?;
            return Ok(EXIT_DONE);
        }
        ResourceCommand::Publish { step } => (ResourceAction::Publish, step),
        ResourceCommand::Suspend { step } => (ResourceAction::Suspend, step),
        ResourceCommand::Resume { step } => (ResourceAction::Resume, step),
        ResourceCommand::Withdraw { step } => (ResourceAction::Withdraw, step),
    };
    operate::resource::step(&code, action, &reason, &provider)
}

fn application(command: ApplicationCommand) -> anyhow::Result<u8> {
    use operate::application::step;
    let said = |action, Said { id, note, caller }: Said| step(&id, action, &[("note", Some(note))], &caller);
    match command {
        ApplicationCommand::Make { file, applicant } => operate::application::make(&file, &applicant),
        ApplicationCommand::Approve { id, terms, provider } => {
            operate::application::approve(&id, terms.as_deref(), &provider)
        }
        ApplicationCommand::Refuse { id, ground, basis, caller } => {
            let details = [("ground", Some(ground)), ("basis", Some(basis))];
            step(&id, ApplicationAction::Refuse, &details, &caller)
        }
        ApplicationCommand::Countersign { id, operator } => {
            step(&id, ApplicationAction::Countersign, &[], &operator)
        }
        ApplicationCommand::Provide { id, provider } => step(&id, ApplicationAction::Provide, &[], &provider),
        ApplicationCommand::Negotiate { said: words } => said(ApplicationAction::Negotiate, words),
        ApplicationCommand::Dispute { said: words } => said(ApplicationAction::Dispute, words),
        ApplicationCommand::Settle { said: words } => said(ApplicationAction::Settle, words),
        ApplicationCommand::Stop { id, ground, basis, caller } => {
            step(&id, ApplicationAction::Stop, &[("ground", ground), ("basis", basis)], &caller)
        }
        ApplicationCommand::List { overdue, due_within, state, caller } => {
            operate::application::list(overdue, due_within, state.as_deref(), &caller)?;
            Ok(EXIT_DONE)
        }
    }
}
