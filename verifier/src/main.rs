//! Command line of the verifier: checks files offline. Exit 0 valid, 1 invalid, 2 cannot tell, 64 usage.

#![forbid(unsafe_code)]

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::{Args, Parser, Subcommand, ValueEnum};
use schemas::date::parse_rfc3339;
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};
use verifier::{
    command::{self, EXIT_CANNOT_TELL, EXIT_DONE, EXIT_NO, EXIT_USAGE},
    license::{self, RootCache},
    note::VerifierKey,
    policy::Policy,
    proof::{TlogProof, parse_nodes},
    receipt::{self, Evidence, Receipt},
    report::{Reason, Report, Verdict, seconds},
    same_holder, trace,
    trust::Trust,
};

/// Where the file identifier stands in an envelope, behind size prefix and root offset.
const ENVELOPE_IDENTIFIER_OFFSET: usize = 8;

/// Checks licenses and receipts from bytes alone.
#[derive(Parser)]
#[command(name = "verifier", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    options: Options,
}

#[derive(Args)]
struct Options {
    /// Trust bundle: a signed note.
    #[arg(long, global = true, value_name = "FILE", required = false)]
    trust: Option<PathBuf>,
    /// The trust authority's verifier key. Without it the bundle file itself is trusted.
    #[arg(long, global = true, value_name = "VKEY")]
    anchor: Option<VerifierKey>,
    /// Time of the check, RFC 3339. Default: now.
    #[arg(long, global = true, value_name = "TIME", value_parser = read_time)]
    at: Option<Seconds>,
    /// Refuse a trust bundle with a lower sequence.
    #[arg(long, global = true, value_name = "N", default_value_t = 0)]
    minimum_sequence: u64,
    /// How to print the report.
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Subcommand)]
enum Command {
    /// Checks a license: envelope bytes, base64 of them, or a JSON answer with a member `envelope`.
    License {
        /// The license.
        file: PathBuf,
    },
    /// Checks a receipt, or a whole answer with its receipt.
    Receipt {
        /// The receipt, or the answer.
        file: PathBuf,
        /// Another receipt or answer, for `--same-holder`.
        #[arg(requires = "same_holder")]
        other: Option<PathBuf>,
        /// Checks that two receipts show one label for the one holder that both requests name.
        #[arg(long, requires = "other")]
        same_holder: bool,
        /// The request body of the other receipt as it was sent.
        #[arg(long, value_name = "FILE", requires = "same_holder")]
        other_request: Option<PathBuf>,
        /// The request body as it was sent.
        #[arg(long, value_name = "FILE")]
        request: Option<PathBuf>,
        /// The answer as it was received, with its receipt or without.
        #[arg(long, value_name = "FILE")]
        answer: Option<PathBuf>,
        /// A log proof, in place of the receipt's own.
        #[arg(long, value_name = "FILE")]
        proof: Option<PathBuf>,
        /// A C2SP policy: which witnesses must have seen the log.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// An earlier receipt, answer, log proof or checkpoint of the same log, which must have grown into this one.
        #[arg(long, value_name = "FILE")]
        previous: Option<PathBuf>,
        /// The consistency proof between the two checkpoints: what `/v1/log/consistency/{old}/{new}` gives.
        #[arg(long, value_name = "FILE", requires = "previous")]
        consistency: Option<PathBuf>,
    },
    /// Checks a holder's trace: answers of `POST /v1/trace`, newest page first, one a line.
    Trace(Pages),
    /// Checks an auditor's pages: answers of `POST /v1/log/query`, one a line.
    Audit(Pages),
}

#[derive(Args)]
struct Pages {
    /// The pages.
    file: PathBuf,
    /// A C2SP policy: which witnesses must have seen the log.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Seconds since 1970.
#[derive(Clone, Copy)]
struct Seconds(u64);

fn read_time(text: &str) -> Result<Seconds, String> {
    parse_rfc3339(text).map(|ms| Seconds(ms / 1000)).ok_or_else(|| "not an RFC 3339 time".to_owned())
}

fn main() -> ExitCode {
    let cli: Cli = match command::parse() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    let report = match run(&cli) {
        Ok(report) => report,
        Err(message) => {
            command::note(format_args!("verifier: {message}"));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match cli.options.output {
        Output::Text => command::print(render(&report)),
        Output::Json => {
            command::line(serde_json::to_string_pretty(&report).expect("a report is strings and numbers"));
        }
    }
    command::end(match report.verdict {
        Verdict::Valid => EXIT_DONE,
        Verdict::Invalid => EXIT_NO,
        Verdict::Unknown => EXIT_CANNOT_TELL,
    })
}

/// The report, or why the command cannot be carried out at all.
fn run(cli: &Cli) -> Result<Report, String> {
    let options = &cli.options;
    let at = match options.at {
        Some(Seconds(at)) => at,
        None => SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?.as_secs(),
    };
    let path = options.trust.as_ref().ok_or("--trust FILE is needed")?;
    let text = String::from_utf8_lossy(&read(path)?).into_owned();
    let trust = match Trust::parse_note(&text, options.anchor.as_ref(), options.minimum_sequence) {
        Ok(trust) => trust,
        Err(error) => return Ok(Report::failed(error.reason(), error.to_string(), at)),
    };
    match &cli.command {
        Command::License { file } => {
            Ok(license::verify(&envelope(read(file)?), &trust, at, &mut RootCache::new()))
        }
        Command::Trace(Pages { file, policy }) => {
            Ok(trace::verify_trace(&read(file)?, &trust, read_policy(policy)?.as_ref(), at))
        }
        Command::Audit(Pages { file, policy }) => {
            Ok(trace::verify_audit(&read(file)?, &trust, read_policy(policy)?.as_ref(), at))
        }
        Command::Receipt { file, other: Some(other), same_holder: _, request, other_request, .. } => {
            let read_both = |file, request: &Option<PathBuf>| -> Result<_, String> {
                Ok((read(file)?, request.as_deref().map(read).transpose()?))
            };
            let (one, two) = (read_both(file, request)?, read_both(other, other_request)?);
            let side = |(answer, request): &(Vec<u8>, Option<Vec<u8>>)| {
                let receipt = serde_json::from_slice::<Receipt>(answer).ok();
                let receipt = receipt.or_else(|| Some(receipt::cut(answer).ok()?.1))?;
                Some(same_holder::Side { receipt, request: request.clone() })
            };
            match (side(&one), side(&two)) {
                (Some(one), Some(two)) => Ok(same_holder::verify(&one, &two, &trust, at)),
                _ => Ok(Report::failed(Reason::MalformedReceipt, "a file holds no receipt", at)),
            }
        }
        Command::Receipt { file, request, answer, proof, policy, previous, consistency, .. } => {
            let bytes = read(file)?;
            let optional = |path: &Option<PathBuf>| path.as_deref().map(read).transpose();
            let files = Files {
                request: optional(request)?,
                answer: optional(answer)?,
                proof: optional(proof)?,
                previous: optional(previous)?,
                consistency: optional(consistency)?,
                policy: read_policy(policy)?,
            };
            Ok(check_receipt(&bytes, files, &trust, at))
        }
    }
}

fn read_policy(path: &Option<PathBuf>) -> Result<Option<Policy>, String> {
    let Some(path) = path else { return Ok(None) };
    let policy = Policy::parse(&read(path)?).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Some(policy))
}

/// What a receipt is checked with.
struct Files {
    request: Option<Vec<u8>>,
    answer: Option<Vec<u8>>,
    proof: Option<Vec<u8>>,
    policy: Option<Policy>,
    previous: Option<Vec<u8>>,
    consistency: Option<Vec<u8>>,
}

fn check_receipt(bytes: &[u8], files: Files, trust: &Trust, at: u64) -> Report {
    let (receipt, answer) = if let Ok(receipt) = serde_json::from_slice::<Receipt>(bytes) {
        (receipt, files.answer)
    } else {
        match receipt::cut(bytes) {
            Ok((_, receipt)) => (receipt, Some(files.answer.unwrap_or_else(|| bytes.to_vec()))),
            Err(error) => return Report::failed(Reason::MalformedReceipt, error.to_string(), at),
        }
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let proof = match files.proof.map(|proof| TlogProof::parse(&text(&proof))).transpose() {
        Ok(proof) => proof,
        Err(error) => return Report::failed(Reason::MalformedProof, error.to_string(), at),
    };
    let consistency = match files.consistency.map(|nodes| parse_nodes(&text(&nodes))).transpose() {
        Ok(consistency) => consistency,
        Err(error) => return Report::failed(Reason::MalformedProof, error.to_string(), at),
    };
    let previous = files.previous.map(|bytes| checkpoint_in(&bytes));
    let evidence = Evidence {
        proof: proof.as_ref(),
        policy: files.policy.as_ref(),
        previous: previous.as_deref(),
        consistency: consistency.as_deref(),
    };
    receipt::verify_with(&receipt, &evidence, files.request.as_deref(), answer.as_deref(), trust, at)
}

/// The checkpoint in a receipt, an answer or a log proof. What is none of these is handed on as it is: a checkpoint, or
/// found to be none.
fn checkpoint_in(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let receipt = serde_json::from_slice::<Receipt>(bytes).ok();
    let receipt = receipt.or_else(|| Some(receipt::cut(bytes).ok()?.1));
    let proof = receipt.and_then(|receipt| receipt.proof);
    let proof = TlogProof::parse(proof.as_deref().unwrap_or(&text));
    proof.map_or_else(|_| text.into_owned(), |proof| proof.checkpoint)
}

/// The envelope in a file: the bytes, base64 text, or the member `envelope` of a JSON answer. What is none of these
/// is handed on as it is, and found malformed.
fn envelope(bytes: Vec<u8>) -> Vec<u8> {
    if bytes.get(ENVELOPE_IDENTIFIER_OFFSET..).is_some_and(|rest| rest.starts_with(b"MXL1")) {
        return bytes;
    }
    let json = serde_json::from_slice::<serde_json::Value>(&bytes).ok();
    let member = json.as_ref().and_then(|json| json.get("envelope")?.as_str());
    let text = member.map_or_else(|| bytes.trim_ascii(), |text| text.as_bytes());
    STANDARD.decode(text).unwrap_or(bytes)
}

fn read(path: impl AsRef<Path>) -> Result<Vec<u8>, String> {
    let path = path.as_ref();
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn render(report: &Report) -> String {
    let mut text = match report.verdict {
        Verdict::Valid => "valid\n".to_owned(),
        Verdict::Invalid => "invalid\n".to_owned(),
        Verdict::Unknown => "cannot tell\n".to_owned(),
    };
    for finding in &report.reasons {
        text.push_str(&format!("  reason       {}: {}\n", finding.code(), plain(&finding.detail)));
    }
    if let Some(license) = &report.license {
        let until = license.valid_until.map_or_else(|| "without end".to_owned(), |date| date.to_string());
        text.push_str(&format!("  license      {}\n", license.identifier));
        text.push_str(&format!("  issuer       {}\n", plain(&license.issuer_name)));
        text.push_str(&format!("  days         {} to {until}\n", license.valid_from));
        text.push_str(&format!("  signed       {}\n", seconds(license.signed_at)));
        if license.as_registered {
            text.push_str("  number       as registered: its check character is wrong\n");
        }
    }
    if let Some(receipt) = &report.receipt {
        text.push_str(&format!("  entry        {} of {}\n", receipt.index, plain(&receipt.log)));
        text.push_str(&format!("  time         {}\n", receipt.time));
        text.push_str(&format!("  organisation {}\n", plain(&receipt.organisation)));
        text.push_str(&format!("  decision     {} {} {}\n", receipt.route, receipt.decision, receipt.code));
        if let Some(size) = receipt.checkpoint_size {
            text.push_str(&format!("  checkpoint   size {size}\n"));
        }
        if let Some(witnesses) = receipt.witnesses {
            text.push_str(&format!("  witnesses    {} of {}\n", witnesses.cosigned, witnesses.of));
        }
    }
    if let Some(pages) = &report.pages {
        text.push_str(&format!("  entries      {} of {}\n", pages.entries, plain(&pages.log)));
        if let Some(completeness) = &pages.completeness {
            text.push_str(&format!("  trace        {completeness}\n"));
        }
        if let Some(delayed) = pages.delayed {
            let (uses, days) = (delayed.uses, delayed.days_max);
            let told = "as the exchange says, of all holders";
            text.push_str(&format!(
                "  delayed      {uses} uses now, {told}; each is told within {days} days\n"
            ));
        }
        if let Some(witnesses) = pages.witnesses {
            text.push_str(&format!("  witnesses    {} of {}\n", witnesses.cosigned, witnesses.of));
        }
    }
    if let Some(trust) = &report.trust {
        text.push_str(&format!(
            "  trust        sequence {}, made {}, ends {}\n",
            trust.sequence,
            seconds(trust.issued_at),
            seconds(trust.expires)
        ));
    }
    text.push_str(&format!("  at           {}\n", seconds(report.at)));
    text.push_str(&format!("  checked      {}\n", list(&report.checked)));
    text.push_str(&format!("  not checked  {}\n", list(&report.not_checked)));
    text
}

/// Text out of a file that nobody vouches for: control characters could forge lines or move the cursor.
fn plain(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
