//! The `witness` command: a C2SP tlog-witness for logs of exchanges, and any other.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use exchange::app::{EXIT_USAGE, StopSignal};
use exchange::server::{self, Limits};
use exchange::witness::{Witness, respond};
use tokio::net::TcpListener;
use tokio::sync::watch;
use verifier::note::VerifierKey;

/// Cosigns checkpoints of logs that only ever grow.
#[derive(Parser)]
#[command(name = "witness", version, about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
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
        /// Address of the listener.
        #[arg(long, default_value = "127.0.0.1:7380")]
        listen: SocketAddr,
    },
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
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("witness: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init { data, name } => println!("{}", Witness::init(&data, &name)?),
        Command::AddLog { data, keys } => {
            for key in keys {
                Witness::add_log(&data, &key)?;
            }
        }
        Command::Serve { data, listen } => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(serve(&Arc::new(Witness::open(&data)?), listen))?;
        }
    }
    Ok(())
}

async fn serve(witness: &Arc<Witness>, listen: SocketAddr) -> anyhow::Result<()> {
    let mut stop = StopSignal::new()?;
    let listener = TcpListener::bind(listen).await.with_context(|| listen.to_string())?;
    println!("witness {} serves {}", witness.key().name(), listener.local_addr()?);
    for origin in witness.origins() {
        println!("  log {origin}");
    }
    let (stopping, stopped) = watch::channel(false);
    let handler = {
        let witness = Arc::clone(witness);
        move |_, request| respond(Arc::clone(&witness), request)
    };
    let serving = tokio::spawn(server::serve(listener, "witness", None, Limits::default(), handler, stopped));
    stop.received().await;
    let _ = stopping.send(true);
    serving.await?;
    println!("stopped");
    Ok(())
}
