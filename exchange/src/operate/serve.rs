//! `exchange serve` and `exchange quickstart`.
//!
//! An operator runs the one, a developer the other; both hold the journal's lock. After a crash the next start
//! recovers.

use std::net::SocketAddr;
use std::path::Path;

use crate::app::{self, App};
use crate::config::{Config, Listen};
use crate::quickstart;
use crate::signals::Signals;
use metrics_exporter_prometheus::PrometheusHandle;
use verifier::command;

use super::{Place, runtime};

/// Makes a development exchange, performs the whole round, and serves.
pub fn quickstart(data: &Path, listen: Option<SocketAddr>, once: bool) -> anyhow::Result<()> {
    let metrics = app::install_metrics()?;
    runtime()?.block_on(quickstart::run(data, listen, once, metrics))
}

/// Serves what the configuration says, as the options change it.
pub fn serve(
    place: &Place,
    development: bool,
    listen: Option<SocketAddr>,
    accept_clock: bool,
    moved: bool,
) -> anyhow::Result<()> {
    let mut config = place.load()?;
    config.accept_clock = accept_clock;
    config.moved = moved;
    config.development = development;
    if let Some(listen) = listen {
        config.listen = Listen::at(listen)?;
    }
    let metrics = app::install_metrics()?;
    runtime()?.block_on(run(&config, metrics))
}

async fn run(config: &Config, metrics: PrometheusHandle) -> anyhow::Result<()> {
    let signals = Signals::catch()?;
    let app = App::open(config, metrics).await?;
    command::line(format_args!(
        "serving log {} with {} entries: data {}  public {}  admin {}",
        config.origin,
        app.gateway.ledger().size(),
        app.addresses.data,
        app.addresses.public,
        app.addresses.admin
    ));
    app.run(signals).await?;
    command::line("stopped");
    Ok(())
}
