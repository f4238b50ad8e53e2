//! `exchange check-config`.

use std::path::Path;

use crate::app::{self, Exit};
use verifier::command;

use super::Place;

/// Checks the configuration and everything that it names.
pub fn run(place: &Place) -> anyhow::Result<()> {
    let config = place.load()?;
    let folder = app::key_folder(&config)?;
    let keys = app::ledger_keys(&folder)?;
    if keys.epochs.load(ledger::EpochFile::Current)?.is_none() {
        let message = "the epoch's key file in keys is missing".to_owned();
        return Err(Exit { status: app::EXIT_DATA, message }.into());
    }
    let (_, trust) = app::trust_bundle(&config)?;
    app::signers(&folder, &trust)?;
    let read = |path: &Path| app::read(&config.path(path));
    crate::tls::server_config(
        &read(&config.tls.certificate)?,
        &read(&config.tls.key)?,
        Some(&read(&config.tls.client_ca)?),
    )
    .map_err(app::as_usage)?;
    command::line(config.to_toml());
    command::line(format_args!(
        "# good: configuration, keys, trust bundle {} and certificates",
        trust.sequence
    ));
    Ok(())
}
