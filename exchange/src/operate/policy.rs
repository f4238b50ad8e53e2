//! `exchange policy`: policies in Cedar, which two operators publish.
//!
//! Anyone checks a file, an operator proposes and shows, an auditor replays. A proposal that a crash cut off is in the log or not at
//! all; the others change nothing.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use client::ShowPolicies;
use serde_json::json;
use verifier::command::{self, EXIT_DONE, EXIT_NO};

use super::{Caller, propose, replay, runtime};
use crate::calling;
use crate::exit::Exit;
use crate::files;
use crate::rights::policy::Policies;

/// Its commands.
#[derive(Subcommand)]
#[expect(missing_docs, reason = "what is flattened has its own help")]
pub enum Command {
    /// Checks a file of policies, offline: syntax, schema, and which policies are evaluated each time. Status 1: it has a fault.
    #[command(after_help = "Example:\n  exchange policy check stricter.cedar")]
    Check {
        /// The policies, Cedar.
        file: PathBuf,
    },
    /// Prints the policies in force, as they were published; with --json also version and policy hash.
    Show {
        #[command(flatten)]
        operator: Caller,
    },
    /// Proposes policies in place of those in force; another operator approves: `exchange approve --policy`.
    #[command(after_help = "\
Example:
  exchange policy propose stricter.cedar --reason 收紧贷款用途
  exchange approve PROPOSAL --policy stricter.cedar --as operator2")]
    Propose {
        /// The policies, Cedar.
        file: PathBuf,
        /// Why.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        operator: Caller,
    },
    /// Asks policies about the decisions of the log since a moment, as an auditor, and lists who would gain and who would lose;
    /// with --json as JSON.
    #[command(after_help = "\
Each page of the log is an entry, and the holders whose records are read are told of it with --purpose. Roles and types are taken as
they are now. A permit that the policies do not give is lost. A refusal that policies caused and these do not is gained, as far as
policies say: the floor was not asked then. All other refusals stay. What the log does not say of a request that these policies
read makes it one of those that cannot be told; nothing is guessed.
Example:
  exchange policy replay --since 2026-11-01T00:00:00Z --policy stricter.cedar")]
    Replay {
        /// The decisions from here on, RFC 3339.
        #[arg(long, value_name = "TIME")]
        since: String,
        /// The policies to ask [default: those in force].
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// Why the log is read.
        #[arg(long, default_value = "策略变更影响评估")]
        purpose: String,
        /// The person who reads it.
        #[arg(long, default_value = "exchange policy replay")]
        user: String,
        #[command(flatten)]
        auditor: Caller,
    },
}

/// Carries a command out.
///
/// # Errors
/// A file cannot be read; like [`Caller::send`]; like [`replay::run`].
pub fn run(command: &Command) -> anyhow::Result<u8> {
    match command {
        Command::Check { file } => check(file),
        Command::Show { operator } => show(operator),
        Command::Propose { file, reason, operator } => {
            // The exchange says of a fault no more than where it is.
            let policies = read(file)?;
            let body = json!({"kind": "publish-policies", "policies": policies.text(), "reason": reason});
            propose::send(&body, operator)
        }
        Command::Replay { since, policy, purpose, user, auditor } => {
            let policies = policy.as_deref().map(read).transpose()?;
            replay::run(since, policies, [purpose, user], auditor)
        }
    }
}

/// The policies of a file.
fn read(file: &Path) -> anyhow::Result<Policies> {
    let read = Policies::read(&files::read(file)?);
    read.map_err(|fault| Exit { status: EXIT_NO, message: format!("{}: {fault}", file.display()) }.into())
}

fn check(file: &Path) -> anyhow::Result<u8> {
    let policies = read(file)?;
    for warning in policies.warnings() {
        command::line(format_args!("warning: {warning}"));
    }
    for uncached in policies.uncached() {
        let reads = uncached.reads.join(", ");
        command::line(format_args!("uncached: {} reads {reads}: it is evaluated each time", uncached.name));
    }
    let hash = hex::encode(policies.hash());
    command::line(format_args!("{} policies, policy hash {hash}", policies.count()));
    Ok(EXIT_DONE)
}

fn show(operator: &Caller) -> anyhow::Result<u8> {
    let shown = runtime()?.block_on(async {
        let client = operator.connect("operator").await?;
        client.policies(&ShowPolicies {}).await.map_err(calling::ended)
    })?;
    if operator.json {
        command::line(String::from_utf8_lossy(&shown.exchanged.answer));
    } else {
        command::line(shown.value.policies.trim_end());
    }
    Ok(EXIT_DONE)
}
