//! `exchange address`: where data providers are called, which two operators allow and end.
//!
//! An operator runs it. A proposal that a crash cut off is in the log or not at all.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use schemas::identifier::Uscc;
use schemas::interface::Address;
use schemas::routes::Route;
use serde_json::json;

use super::{Caller, propose};
use crate::exit::Exit;
use crate::files::read;

/// An address of a provider's.
#[derive(Debug, Args)]
pub struct At {
    /// Host and port, as the interface's URL has them.
    #[arg(value_name = "HOST:PORT")]
    address: String,
    /// USCC of the provider.
    #[arg(long)]
    organisation: Uscc,
}

/// Its commands.
#[derive(Subcommand)]
#[expect(missing_docs, reason = "what is flattened has its own help")]
pub enum Command {
    /// Proposes that a provider is called at an address; another operator approves.
    #[command(after_help = "\
Example:
  exchange address allow data.example:8443 --organisation 91350102XX3DEMPQ6R --authorities ca.pem --reason 接入登记接口
  exchange address approve PROPOSAL data.example:8443 --organisation 91350102XX3DEMPQ6R --authorities ca.pem --as operator2")]
    Allow {
        #[command(flatten)]
        at: At,
        /// CA certificates, PEM: the provider's server certificate chains to one of them.
        #[arg(long, value_name = "FILE")]
        authorities: PathBuf,
        /// Why.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        operator: Caller,
    },
    /// Proposes that a provider is no longer called at an address; another operator approves.
    #[command(after_help = "\
Example:
  exchange address end data.example:8443 --organisation 91350102XX3DEMPQ6R --reason 接口停用
  exchange address approve PROPOSAL data.example:8443 --organisation 91350102XX3DEMPQ6R --as operator2")]
    End {
        #[command(flatten)]
        at: At,
        /// Why.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        operator: Caller,
    },
    /// Approves another operator's proposal of the same address.
    #[command(after_help = "\
Example:
  exchange address approve PROPOSAL data.example:8443 --organisation 91350102XX3DEMPQ6R --authorities ca.pem --as operator2")]
    Approve {
        /// The proposal's id.
        proposal: String,
        #[command(flatten)]
        at: At,
        /// The CA certificates that are proposed, PEM; of an end none.
        #[arg(long, value_name = "FILE")]
        authorities: Option<PathBuf>,
        #[command(flatten)]
        operator: Caller,
    },
}

impl At {
    fn with(&self, authorities: Option<&Path>) -> anyhow::Result<Address> {
        let split = self.address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) =
            split.ok_or_else(|| Exit::usage(format_args!("HOST:PORT is needed: {}", self.address)))?;
        let authorities = authorities.map(read).transpose()?;
        Ok(Address { organisation: self.organisation, host: host.to_owned(), port, authorities })
    }
}

/// Proposes an address, or approves what another operator proposed from what this one knows of it.
///
/// # Errors
/// Like [`Caller::send`]; a file cannot be read.
pub fn run(command: &Command) -> anyhow::Result<u8> {
    let propose = |address: Address, reason: &str, operator: &Caller| {
        propose::send(&json!({"kind": "allow-address", "address": address, "reason": reason}), operator)
    };
    match command {
        Command::Allow { at, authorities, reason, operator } => {
            propose(at.with(Some(authorities))?, reason, operator)
        }
        // Without authorities it is no longer called.
        Command::End { at, reason, operator } => propose(at.with(None)?, reason, operator),
        Command::Approve { proposal, at, authorities, operator } => {
            let address = at.with(authorities.as_deref())?;
            operator.send(Route::Approve, &json!({"proposal": proposal, "address": address}))
        }
    }
}
