//! The work of each command, a file each, and the parts that several of them share.
//!
//! `main` alone calls them. Each file says what a crash leaves.

pub mod address;
pub mod application;
pub mod archive;
pub mod backup;
pub mod calendar;
mod calls;
pub mod check_config;
mod demands;
pub mod feed;
pub mod indicators;
pub mod init;
pub mod item;
pub mod lists;
pub mod log_close;
pub mod log_export;
pub mod log_verify;
pub mod participant;
pub mod policy;
pub mod propose;
pub mod rebuild;
pub mod records;
mod replay;
pub mod resource;
pub mod restore;
pub mod retention;
mod rows;
pub mod serve;
pub mod store_check;
pub mod types;
pub mod verify;

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use crate::calling;
use crate::config::{Config, ConfigError};
use crate::exit::Exit;
use crate::files;
use clap::Args;
use client::{Client, Endpoint, Error};
use schemas::routes::Route;
use serde_json::Value;
use verifier::command::{self, EXIT_DONE};

/// Where the data lies.
#[derive(Args)]
pub struct Place {
    /// Data folder with a config.toml.
    #[arg(long, default_value = "data")]
    data: PathBuf,
    /// Configuration file, instead of the data folder's.
    #[arg(long, conflicts_with = "data")]
    config: Option<PathBuf>,
}

impl Place {
    /// The configuration as it stands in the file.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let mut config = match &self.config {
            Some(path) => Config::load(path),
            None => Config::load(&self.data.join("config.toml")),
        }?;
        config.program = std::env::current_exe().ok();
        Ok(config)
    }
}

/// Names the files of the TLS listeners that are not there, if there are such.
fn say_missing_tls(config: &Config, how: &str) {
    let missing: Vec<String> = config.missing_tls().iter().map(|path| path.display().to_string()).collect();
    if !missing.is_empty() {
        command::line(format_args!("{how}: {}", missing.join(", ")));
    }
}

/// A registration, and how it is written.
#[derive(Args)]
pub struct Registration {
    /// The registration, JSON.
    file: PathBuf,
    /// Into the data folder, which nobody serves: also an operator or auditor, and not suspended from then on.
    #[arg(long, conflicts_with_all = ["server", "cert", "key", "acting"])]
    offline: bool,
    /// The clock is right, though the journal's last entry contradicts it.
    #[arg(long, requires = "offline")]
    accept_clock: bool,
    #[command(flatten)]
    operator: Caller,
}

/// Whether what cannot be undone is meant.
#[derive(Args)]
pub struct Sure {
    /// It is meant: do not ask.
    #[arg(long)]
    yes: bool,
}

impl Sure {
    /// Asks on a terminal whether what cannot be undone is meant.
    ///
    /// # Errors
    /// [`Exit`] with [`crate::exit::EXIT_USAGE`]: it is not, or there is nobody to ask.
    pub fn of(&self, what: &str) -> anyhow::Result<()> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(Exit::usage(format_args!(
                "{what}. This cannot be undone: say --yes when it is meant"
            )));
        }
        let _ = write!(io::stderr().lock(), "{what}. This cannot be undone. Type yes to go on: ");
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        if answer.trim() != "yes" {
            return Err(Exit::usage("nothing was done"));
        }
        Ok(())
    }
}

/// The caller that a command is to a serving exchange: an operator, an auditor who exports, an issuing authority, or a department
/// that shares data.
#[derive(Args)]
pub struct Caller {
    #[command(flatten)]
    place: Place,
    /// Host or address and port of the data listener, instead of the configuration's.
    #[arg(long)]
    server: Option<Endpoint>,
    /// Development participant whose certificate in pki/clients of the data folder is taken [default: the usual one of the
    /// command: operator, auditor, issuer or provider].
    #[arg(long = "as", value_name = "NAME", conflicts_with = "cert")]
    acting: Option<String>,
    /// Own certificate, PEM, instead.
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
    /// Print a refusal also as it came, JSON with its receipt, as what is done is printed.
    #[arg(long)]
    json: bool,
}

impl Caller {
    /// The development participant that a command without a usual one is told.
    fn named(&self) -> anyhow::Result<&str> {
        match (&self.acting, &self.cert) {
            (Some(name), _) => Ok(name),
            // The certificate says who it is.
            (None, Some(_)) => Ok(""),
            (None, None) => Err(Exit::usage("who asks? Say --as NAME, or --cert and --key")),
        }
    }

    /// A connection to the exchange; `name` is the development participant whose certificate is taken unless told.
    async fn connect(&self, name: &str) -> anyhow::Result<Client> {
        let config = self.place.load()?;
        let endpoint = self.server.clone().unwrap_or_else(|| config.listen.data.into());
        self.connect_to(&config, endpoint, name).await
    }

    /// The same to the public listener, which is where it follows the data listener unless the configuration says.
    async fn connect_public(&self, name: &str) -> anyhow::Result<Client> {
        let config = self.place.load()?;
        let endpoint = match &self.server {
            Some(data) => {
                data.next_port().ok_or_else(|| Exit::usage(format_args!("{data}: no port follows")))?
            }
            None => config.listen.public.into(),
        };
        self.connect_to(&config, endpoint, name).await
    }

    async fn connect_to(&self, config: &Config, endpoint: Endpoint, name: &str) -> anyhow::Result<Client> {
        let name = self.acting.as_deref().unwrap_or(name);
        let default = |end: &str| config.path(Path::new("pki/clients")).join(format!("{name}.{end}"));
        let cert = self.cert.clone().unwrap_or_else(|| default("pem"));
        let key = self.key.clone().unwrap_or_else(|| default("key"));
        let client = Client::new(endpoint, &calling::tls(&config.path(&config.tls.client_ca), &cert, &key)?);
        client.connect().await.map_err(calling::ended)?;
        Ok(client)
    }

    /// Sends a request to a serving exchange as an operator, and prints the answer.
    fn send(&self, route: Route, body: &Value) -> anyhow::Result<u8> {
        self.send_as("operator", route, body)
    }

    /// The same as another participant; `name` is the development one whose certificate is taken unless told.
    fn send_as(&self, name: &str, route: Route, body: &Value) -> anyhow::Result<u8> {
        let asked = runtime()?.block_on(async {
            let client = self.connect(name).await?;
            anyhow::Ok(client.call::<Value>(route, body).await)
        })?;
        match asked {
            Ok(answer) => {
                command::line(String::from_utf8_lossy(&answer.exchanged.answer));
                Ok(EXIT_DONE)
            }
            Err(error) => {
                if let (Error::Refused(refused), true) = (&error, self.json) {
                    command::line(String::from_utf8_lossy(&refused.exchanged.answer));
                }
                Err(calling::ended(error))
            }
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn json_file(file: &Path) -> anyhow::Result<Value> {
    serde_json::from_str(&files::read(file)?)
        .map_err(|error| Exit::usage(format_args!("{}: {error}", file.display())))
}
