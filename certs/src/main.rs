//! Command line of the PKI and trust tools. Exit statuses: [`command`].
//!
//! Operators run it. Each command's module says what a crash leaves.

#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use certs::issuer::{Changed, IssuerError, Issuers};
use certs::layout::Layout;
use certs::pki::{DevelopmentPki, Validity};
use certs::sealed::{Kek, KeyFolder};
use certs::{Error, inspect, keys, trust};
use clap::{Args, Parser, Subcommand, ValueEnum};
use schemas::identifier::{LicenseTypeCode, Uscc};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
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
    /// The list binds a server once it stands in the server's file of client CAs; a serving one takes the file in by
    /// itself.
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
    /// Change who signs licenses for an issuing authority: a key in the key folder, and the next trust bundle.
    ///
    /// A serving exchange takes both in by itself.
    #[command(subcommand)]
    Issuer(IssuerCommand),
    /// Say what a file holds: certificates, revocation lists, a sealed key, a trust bundle. Checks no signature.
    Inspect {
        /// The file.
        file: PathBuf,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

#[derive(Subcommand)]
enum IssuerCommand {
    /// Make an organisation an issuing authority with a signing key, or entitle one to more license types.
    Add {
        #[command(flatten)]
        whose: Whose,
        /// The authority's name in the trust bundle.
        #[arg(long)]
        name: String,
        /// License types that it may issue.
        #[arg(long = "type", value_name = "CODE", value_delimiter = ',', required = true)]
        types: Vec<LicenseTypeCode>,
        #[command(flatten)]
        key: NewKey,
    },
    /// Make a new signing key; the old one ends when the overlap is over, and what it signed stays valid.
    Rotate {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        key: NewKey,
        /// Hours in which the exchange may still sign with the old key, because it has not read the new bundle.
        #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=87_600))]
        overlap: u32,
    },
    /// End a signing key, or all of the authority's, a minute from now; what they sign until then stays valid.
    Retire {
        #[command(flatten)]
        whose: Whose,
        /// The key, 32 hexadecimal digits as `certs inspect` shows it [default: all of the authority].
        #[arg(long = "key", value_name = "ID")]
        key_id: Option<String>,
        /// For a key that others may have: it ends now. A license that the exchange signs before it has read the new
        /// bundle is invalid.
        #[arg(long)]
        at_once: bool,
    },
}

/// The authority that is changed, and who signs that.
#[derive(Args)]
struct Whose {
    /// The issuing authority.
    #[arg(long, value_name = "USCC")]
    organisation: Uscc,
    /// The trust authority's Ed25519 key, PKCS#8 in PEM [default: the key `trust` of the key folder].
    #[arg(long, value_name = "FILE")]
    authority_key: Option<PathBuf>,
}

#[derive(Args)]
struct NewKey {
    /// Signature suite of the key.
    #[arg(long, value_enum, default_value_t = Suite::Ed25519)]
    suite: Suite,
    /// Days in which the key signs.
    #[arg(long, value_name = "N", default_value_t = 730, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

#[derive(Clone, Copy, ValueEnum)]
enum Suite {
    Ed25519,
    Es256,
}

impl Suite {
    fn number(self) -> u8 {
        match self {
            Self::Ed25519 => keys::ED25519,
            Self::Es256 => keys::ES256,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    if let Err(error) = certs::process::harden() {
        command::note(format_args!("certs: {}", command::why(&error)));
        return ExitCode::from(command::EXIT_INTERNAL);
    }
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
            // Any other error is about what the command line names.
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
                "{} holds {count} revoked certificates; it binds a server once it stands in its file of client CAs\n",
                pki.crl_path().display()
            ))
        }
        Command::Bundle { name, bundle } => {
            let layout = Layout::of(&cli.data)?;
            let folder = KeyFolder::new(&layout.keys, Kek::load(&layout.kek)?);
            let bundle: TrustBundle =
                serde_json::from_str(&read_text(bundle)?).with_context(|| bundle.display().to_string())?;
            Ok(trust::sign_bundle(&bundle, name, &folder.load(certs::sealed::TRUST)?)?)
        }
        Command::Issuer(command) => issuer(&cli.data, command),
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
    let layout = Layout::of(data)?;
    // New keys would look fine until the first read of the journal.
    let has_journal = fs::read_dir(data.join("journal")).is_ok_and(|mut entries| entries.next().is_some());
    let complete =
        layout.kek.exists() && certs::sealed::NAMES.iter().all(|name| layout.keys.join(name).exists());
    anyhow::ensure!(
        complete || !has_journal,
        "the folder has a journal and lacks keys; restore them from their backup"
    );
    let kek = if layout.kek.exists() { Kek::load(&layout.kek)? } else { Kek::create(&layout.kek)? };
    let made = keys::create_missing(&KeyFolder::new(&layout.keys, kek), &certs::sealed::NAMES)?;
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

fn issuer(data: &Path, command: &IssuerCommand) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let open = |whose: &Whose| Issuers::open(data, whose.authority_key.as_deref(), now);
    let seconds = |key: &NewKey| u64::from(key.days) * DAY.as_secs();
    let changed = match command {
        IssuerCommand::Add { whose, name, types, key } => open(whose).and_then(|issuers| {
            issuers.add(whose.organisation, name, types, key.suite.number(), seconds(key))
        }),
        IssuerCommand::Rotate { whose, key, overlap } => {
            let overlap = u64::from(*overlap) * 3_600;
            open(whose).and_then(|issuers| {
                issuers.rotate(whose.organisation, key.suite.number(), seconds(key), overlap)
            })
        }
        IssuerCommand::Retire { whose, key_id, at_once } => {
            let overlap = if *at_once { 0 } else { certs::issuer::READ_WITHIN };
            let key_id = key_id.as_ref().map(|text| {
                let mut id = [0; 16];
                hex::decode_to_slice(text, &mut id).map(|()| id)
            });
            let key_id = key_id.transpose().context("a key's id is 32 hexadecimal digits")?;
            open(whose).and_then(|issuers| issuers.retire(whose.organisation, key_id, overlap))
        }
    };
    let Changed { sequence, key_id } = changed.map_err(|error| match error {
        // Its own exit status.
        IssuerError::File(error) => error.into(),
        error => anyhow::Error::new(error),
    })?;
    let key = key_id.map_or_else(|| "no key made".to_owned(), |id| format!("key {id} made"));
    Ok(format!("trust bundle {sequence}, {key}; the exchange takes it in by itself\n"))
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
