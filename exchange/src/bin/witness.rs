//! The `witness` command: a C2SP tlog-witness for logs of exchanges, and any other.
//!
//! A witness's operator runs it, one process a folder. `witness.rs` has the table of what a crash leaves.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use exchange::app;
use exchange::config::resolved;
use exchange::exit;
use exchange::logging::{self, LogFormat};
use exchange::server::{self, Limits};
use exchange::signals::{Event, Signals};
use exchange::witness::{Witness, respond};
use tokio::sync::watch;
use verifier::command::{self, EXIT_DONE};
use verifier::note::VerifierKey;

/// Cosigns checkpoints of logs that only ever grow.
#[derive(Parser)]
#[command(name = "witness", version, about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How the log on standard error is written.
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: LogFormat,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a witness's folder with its key, and prints the verifier key to publish.
    Init {
        /// Folder to make.
        #[arg(long)]
        data: PathBuf,
        /// Name of the witness, such as a scheme-less URL; its name for good.
        #[arg(long)]
        name: String,
    },
    /// Makes logs known by their verifier keys; a serving witness takes them in at its next start.
    AddLog {
        /// The witness's folder.
        #[arg(long)]
        data: PathBuf,
        /// Verifier keys: the `key` of a log in the trust bundle.
        #[arg(required = true)]
        keys: Vec<VerifierKey>,
    },
    /// Serves in clear; what crosses the network is public and signed.
    Serve {
        /// The witness's folder.
        #[arg(long)]
        data: PathBuf,
        /// Address of the listener: a host or an address, and a port.
        #[arg(long, default_value = "127.0.0.1:7380", value_parser = resolved)]
        listen: SocketAddr,
    },
}

fn main() -> ExitCode {
    if let Err(error) = certs::process::harden() {
        command::note(format_args!("witness: {}", command::why(&error)));
        return ExitCode::from(exit::EXIT_INTERNAL);
    }
    let cli: Cli = match command::parse() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    logging::start(cli.log_format);
    match run(cli.command) {
        Ok(()) => command::end(EXIT_DONE),
        Err(error) => {
            command::note(format_args!("witness: {}", command::why(&*error)));
            ExitCode::from(exit::exit_status(&error))
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init { data, name } => command::line(Witness::init(&data, &name)?),
        Command::AddLog { data, keys } => {
            for key in keys {
                Witness::add_log(&data, &key)?;
            }
        }
        Command::Serve { data, listen } => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(serve(&data, listen))?;
        }
    }
    Ok(())
}

async fn serve(data: &Path, listen: SocketAddr) -> anyhow::Result<()> {
    let limits = Limits::anonymous(app::descriptors()?.one());
    let mut signals = Signals::catch()?;
    let witness = Arc::new(Witness::open(data)?);
    let listener = app::bind(listen).await?;
    command::line(format_args!("witness {} serves {}", witness.key().name(), listener.local_addr()?));
    for origin in witness.origins() {
        command::line(format_args!("  log {origin}"));
    }
    let (stopping, stopped) = watch::channel(false);
    let handler = {
        let witness = Arc::clone(&witness);
        move |_, request| respond(Arc::clone(&witness), request)
    };
    let serving = tokio::spawn(server::serve(listener, "witness", None, limits, handler, stopped));
    loop {
        match signals.next().await {
            Event::Stop => break,
            Event::Reload => tracing::warn!("nothing can change while serving; logs are taken in at a start"),
            Event::State => {
                for (origin, size) in witness.sizes() {
                    tracing::info!(origin, size, "state");
                }
            }
        }
    }
    drop(signals);
    let _ = stopping.send(true);
    serving.await?;
    command::line("stopped");
    Ok(())
}
