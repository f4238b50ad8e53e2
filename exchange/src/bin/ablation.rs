//! The `exchange-ablation` command: serves a bench's log without one of the exchange's properties, so that `bench peers` can
//! state what that property costs. See [`exchange::ablation`].
//!
//! Benches start it. A crash leaves a bench's folder as `exchange serve` would leave one.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use exchange::ablation::{self, Without};
use exchange::app::{self, App};
use exchange::config::{Config, Listen};
use exchange::exit;
use exchange::signals::Signals;
use verifier::command::{self, EXIT_DONE};

/// The allocator of `exchange`, whose numbers are compared with this program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serves the log of a bench without one of the exchange's properties; refuses any other log.
#[derive(Parser)]
#[command(name = "exchange-ablation", version)]
struct Cli {
    /// The property that is taken away [default: nothing].
    #[arg(long, value_parser = PossibleValuesParser::new(Without::ALL.map(Without::name)))]
    without: Option<String>,
    /// Data folder.
    #[arg(long)]
    data: PathBuf,
    /// Address of the data listener; the others follow.
    #[arg(long)]
    listen: SocketAddr,
}

fn main() -> ExitCode {
    let cli: Cli = match command::parse() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    match serve(&cli) {
        Ok(()) => command::end(EXIT_DONE),
        Err(error) => {
            command::note(format_args!("exchange-ablation: {}", command::why(&*error)));
            ExitCode::from(exit::exit_status(&error))
        }
    }
}

fn serve(cli: &Cli) -> anyhow::Result<()> {
    if let Some(without) = Without::ALL.into_iter().find(|known| cli.without.as_deref() == Some(known.name()))
    {
        ablation::take_away(without);
    }
    let mut config = Config::load(&cli.data.join("config.toml"))?;
    config.listen = Listen::at(cli.listen)?;
    config.development = true;
    let metrics = app::install_metrics()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let signals = Signals::catch()?;
        let app = App::open(&config, metrics).await?;
        command::line(format_args!(
            "serving log {} with {} entries: data {}  public {}  admin {}",
            config.origin,
            app.gateway.ledger().size(),
            app.addresses.data,
            app.addresses.public,
            app.addresses.admin
        ));
        app.run(signals).await
    })
}
