//! Command line of the PKI and trust tools. Exit statuses: [`command`].

#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use certs::pki::{DevelopmentPki, Validity};
use certs::sealed::{Kek, KeyFolder};
use certs::{Error, inspect, keys, trust};
use clap::{Parser, Subcommand, ValueEnum};
use schemas::identifier::Uscc;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use verifier::command::{self, EXIT_DONE, EXIT_USAGE};
use verifier::trust::TrustBundle;

const DAY: Duration = Duration::from_secs(86_400);

/// Development PKI, sealed keys and signed trust bundles.
#[derive(Parser)]
#[command(name = "certs", version)]
struct Cli {
    /// Data folder: certificates lie in `pki`, sealed keys in `keys`.
    #[arg(long, global = true, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make what is missing: development CA, server certificate, key-encryption key, the exchange's keys.
    ///
    /// Refuses a data folder that has a journal and lacks keys: new ones would not open it.
    Init,
    /// Make a client certificate of the development CA: pki/clients/NAME.pem and NAME.key.
    Issue {
        /// Name of the files and, after `development`, of the subject: a-z 0-9 - _
        name: String,
        /// The organisation that the certificate stands for.
        #[arg(long, value_name = "USCC")]
        organisation: Uscc,
        /// Days of validity.
        #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
    /// Put a certificate of the development CA on the revocation list pki/crl.pem.
    ///
    /// The list binds a server once it stands in the server's file of client CAs and the server has started anew.
    Revoke {
        /// The certificate, PEM.
        certificate: PathBuf,
    },
    /// Sign a trust bundle with the key `trust` and print the signed note.
    Bundle {
        /// The trust authority's name, which is the name of its key.
        #[arg(long)]
        name: String,
        /// The bundle, JSON as in section 3 of the formats.
        bundle: PathBuf,
    },
    /// Say what a file holds: certificates, revocation lists, a sealed key, a trust bundle. Checks no signature.
    Inspect {
        /// The file.
        file: PathBuf,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    let cli: Cli = match command::parse() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    match run(&cli) {
        Ok(text) => {
            command::print(text);
            command::end(EXIT_DONE)
        }
        Err(error) => {
            command::note(format_args!("certs: {}", command::why(&*error)));
            // What else can be wrong is what the command line names.
            ExitCode::from(error.downcast_ref().map_or(EXIT_USAGE, Error::exit_status))
        }
    }
}

/// Carries out a command and returns what it prints.
fn run(cli: &Cli) -> Result<String> {
    match &cli.command {
        Command::Init => init(&cli.data),
        Command::Issue { name, organisation, days } => {
            let validity = Validity::starting_now(DAY * *days);
            let files = pki(&cli.data)?.issue_client(name, &[*organisation], validity)?;
            Ok(format!("{}\n{}\n", files.certificate.display(), files.key.display()))
        }
        Command::Revoke { certificate } => {
            let pki = pki(&cli.data)?;
            let count = pki.revoke(&read_text(certificate)?)?;
            Ok(format!(
                "{} holds {count} revoked certificates; it binds a server once it stands in its file of client CAs \
                 and the server has started anew\n",
                pki.crl_path().display()
            ))
        }
        Command::Bundle { name, bundle } => {
            let folder = KeyFolder::new(keys_folder(&cli.data), Kek::load(&kek_path(&cli.data))?);
            let bundle: TrustBundle =
                serde_json::from_str(&read_text(bundle)?).with_context(|| bundle.display().to_string())?;
            Ok(trust::sign_bundle(&bundle, name, &folder.load("trust")?)?)
        }
        Command::Inspect { file, output } => {
            let content = fs::read(file).with_context(|| file.display().to_string())?;
            let found = inspect::describe(&content).with_context(|| file.display().to_string())?;
            Ok(match output {
                Output::Json => format!("{:#}\n", Value::from(found)),
                Output::Text => found.iter().map(text).collect::<Vec<_>>().join("\n"),
            })
        }
    }
}

fn init(data: &Path) -> Result<String> {
    let kek_path = kek_path(data);
    // New keys would look fine until the first read of the journal.
    let has_journal = fs::read_dir(data.join("journal")).is_ok_and(|mut entries| entries.next().is_some());
    let complete =
        kek_path.exists() && certs::sealed::NAMES.iter().all(|name| keys_folder(data).join(name).exists());
    anyhow::ensure!(
        complete || !has_journal,
        "the folder has a journal and lacks keys; restore them from their backup"
    );
    let kek = if kek_path.exists() { Kek::load(&kek_path)? } else { Kek::create(&kek_path)? };
    let made = keys::create_missing(&KeyFolder::new(keys_folder(data), kek))?;
    let pki = DevelopmentPki::create_missing(data.join("pki"))?;
    Ok(format!(
        "keys made: {}\nCA: {}\n",
        if made.is_empty() { "none".to_owned() } else { made.join(" ") },
        pki.ca_path().display()
    ))
}

/// The PKI that `init` made; the other commands make none, so a mistyped folder is an error.
fn pki(data: &Path) -> Result<DevelopmentPki> {
    let folder = data.join("pki");
    anyhow::ensure!(
        folder.join("ca.pem").exists(),
        "{} holds no CA; `certs init` makes one",
        folder.display()
    );
    Ok(DevelopmentPki::create_missing(folder)?)
}

fn keys_folder(data: &Path) -> PathBuf {
    data.join("keys")
}

fn kek_path(data: &Path) -> PathBuf {
    keys_folder(data).join("kek")
}

fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// An object as `name: value` lines; lists of objects follow indented.
fn text(value: &Value) -> String {
    fn write(value: &Value, indent: &str, lines: &mut String) {
        for (name, value) in value.as_object().into_iter().flatten() {
            match value {
                Value::Array(items) if items.iter().any(Value::is_object) => {
                    for item in items {
                        *lines += &format!("{indent}{name}:\n");
                        write(item, &format!("{indent}  "), lines);
                    }
                }
                Value::String(text) => *lines += &format!("{indent}{name}: {text}\n"),
                other => *lines += &format!("{indent}{name}: {other}\n"),
            }
        }
    }
    let mut lines = String::new();
    write(value, "", &mut lines);
    lines
}
