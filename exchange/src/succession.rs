//! Closing a log and opening its successor: what is left when a log may not go on, because its disk is full for good,
//! its key is to change, or it went back and must never be served under its key again.
//!
//! Two leaves of the public log tell it, both statements that anyone can read back from their text:
//!
//! ```text
//! kind 4, last in the old log    miaoxiang shard close v1 / origin
//! kind 3, first in the new log   miaoxiang shard open v1 / old origin / old size / base64 of the old root
//! ```
//!
//! each line with a line feed. `exchange/docs/operations/close-a-log.md` is the procedure.
//!
//! `log close`, `init --continues` and `restore` call it, under the journal's lock. A run that a crash cut off is
//! completed by the next.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use certs::file;
use certs::keys::ed25519_public;
use certs::sealed::{Kek, KeyFolder, TRUST};
use certs::trust::Authority;
use ledger::{DocumentKind, Ledger, Prepared, Subjects, Tail};
use schemas::license_type::LicenseType;
use tokio::time::{Instant, sleep};
use verifier::leaf::LeafKind;
use verifier::note::VerifierKey;
use verifier::trust::TrustLog;

use crate::config::Config;
use crate::exit::{self, Exit};
use crate::files;
use crate::gateway::commit_system;
use crate::gateway::seal;
use crate::init;
use crate::keyed;
use crate::moment;
use crate::opening;
use crate::participant::Participant;
use crate::place;
use crate::rights::in_force;

/// Longest wait until the last checkpoint is published; it takes about a second.
const PUBLISH_WAIT: Duration = Duration::from_secs(30);
/// Pause between two looks at it.
const LOOK: Duration = Duration::from_millis(20);
/// File of a closed log's last checkpoint, in its data folder.
const LAST_CHECKPOINT: &str = "closed.checkpoint";

/// How an old log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its last leaf says so.
    Closed,
    /// It went back: its guard knows of more than there is, and that is why it is given up.
    Lost,
    /// It lies in a backup, which holds so much of it.
    Copied {
        /// Leaves.
        size: u64,
        /// Root over them.
        root: [u8; 32],
    },
}

/// The statement of the leaf that closes a log.
pub fn close_statement(origin: &str) -> String {
    format!("miaoxiang shard close v1\n{origin}\n")
}

/// The statement of the first leaf of a log that continues another, which ended with this size and root.
pub fn open_statement(old: &str, tail: &Tail) -> String {
    format!("miaoxiang shard open v1\n{old}\n{}\n{}\n", tail.size, BASE64.encode(tail.root))
}

fn statement(kind: LeafKind, text: String) -> Prepared {
    Prepared {
        kind,
        open: text.into_bytes(),
        record: ledger::record::Record::default(),
        told: Vec::new(),
        subjects: Subjects::none(),
    }
}

/// Closes a log that is not being served, has the witnesses cosign its last checkpoint, and keeps that in the data folder.
/// Gives the checkpoint. Closing again only asks the witnesses again.
///
/// # Errors
/// The same as for serving: a log that went back cannot be closed either, because its key would sign a second end.
pub async fn close(config: &Config) -> anyhow::Result<String> {
    let keys = opening::ledger_keys(&opening::key_folder(config)?)?;
    let (ledger, _, witnesses) = opening::open_ledger(config, keys).await?;
    // The witnesses must have this log before anything is added to it.
    let (_, witnesses) = opening::first_round(config, &ledger, witnesses).await?;
    if !ledger.is_closed() {
        // The last key event that there can be completes the erasures; a change that was cut off is finished first.
        let rotating = ledger.clone();
        tokio::task::spawn_blocking(move || {
            let policy = in_force::hash(&rotating);
            let cut_off = rotating.state().is_rotating();
            (0..=u8::from(cut_off))
                .try_for_each(|_| rotating.rotate(|record| seal::system_entry(&policy, record)).map(|_| ()))
        })
        .await??;
        let leaf = statement(LeafKind::ShardClose, close_statement(&config.origin));
        commit_system(&ledger, leaf).await.map_err(|refused| opening::not_taken(&ledger, &refused))?;
    }
    let deadline = Instant::now() + PUBLISH_WAIT;
    while ledger.published().0 < ledger.size() {
        ensure!(Instant::now() < deadline, "closed, but the last checkpoint is not published; close again");
        sleep(LOOK).await;
    }
    let (cosigning, _) = opening::first_round(config, &ledger, witnesses).await?;
    let checkpoint = cosigning.served().text.to_string();
    tokio::task::spawn_blocking(move || ledger.close()).await?;
    file::replace(
        "last checkpoint",
        &config.folder.join(LAST_CHECKPOINT),
        checkpoint.as_bytes(),
        file::PUBLIC,
    )?;
    Ok(checkpoint)
}

/// Makes a data folder whose log continues that of another one: with a new origin and new keys of its own, the old
/// register and types, and the keys and trust of the issuing authorities. `authority_key` is the trust authority's key in
/// PEM, where the old folder does not hold it. A run that was cut off is completed by the next.
///
/// # Errors
/// The old log is not closed, unless it is `lost`; the new folder holds something else.
pub async fn open_successor(
    folder: &Path,
    old: &Path,
    lost: bool,
    authority_key: Option<&Path>,
) -> anyhow::Result<Config> {
    let old = Config::load(&old.join("config.toml"))?;
    let kek = old.path(&old.keys.kek);
    let ended = if lost { Ended::Lost } else { Ended::Closed };
    Ok(successor_of(&old, &kek, folder, ended, authority_key).await?.0)
}

/// The same of a folder whose configuration is read already, also a backup's, with its key-encryption key in `kek`. Gives
/// where the old log ended, too.
///
/// # Errors
/// The same as of [`open_successor`].
pub async fn successor_of(
    old: &Config,
    kek: &Path,
    folder: &Path,
    ended: Ended,
    authority_key: Option<&Path>,
) -> anyhow::Result<(Config, Tail)> {
    let old_keys = KeyFolder::new(old.path(&old.keys.folder), Kek::load(kek)?);
    let mut documents = BTreeMap::new();
    let take = |entry: ledger::Entry| {
        for document in entry.record.documents {
            documents.insert((document.kind, document.key), document.value);
        }
    };
    let (options, keys) = (opening::ledger_options(old), opening::ledger_keys(&old_keys)?);
    let tail = match ended {
        Ended::Lost => ledger::entries_of_lost(options, keys, take)?,
        Ended::Closed | Ended::Copied { .. } => ledger::entries(options, keys, take)?,
    };
    match ended {
        Ended::Closed if !tail.closed => {
            return Err(Exit::usage(format_args!(
                "log {} is not closed: run `exchange log close` first, or --lost when it went back",
                old.origin
            )));
        }
        // A statement that anyone reads: a backup that lost its end must not make it.
        Ended::Copied { size, root } if (tail.size, tail.root) != (size, root) => {
            return Err(exit::unusable(format_args!(
                "{} is damaged: it holds {} entries, and {} says that {size} were copied, or has another root",
                old.folder.display(),
                tail.size,
                place::FENCE
            )));
        }
        _ => {}
    }
    let opening = open_statement(&old.origin, &tail);
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let config = configuration(folder, old)?;
    check_own(&config, old, &opening)?;
    copy_keys(&config, old, kek)?;
    let keys = init::sealed_keys(&config)?;
    trust_bundle(&config, old, &keys, authority_key)?;

    let ledger_keys = opening::ledger_keys(&keys)?;
    let options = opening::ledger_options(&config);
    let (ledger, _) = tokio::task::spawn_blocking(move || Ledger::open(options, ledger_keys)).await??;
    let filled = match place::keep(&config) {
        Ok(()) => fill(&ledger, &opening, documents).await,
        kept => kept,
    };
    tokio::task::spawn_blocking(move || ledger.close()).await?;
    filled?;
    Ok((config, tail))
}

/// The successor's configuration: the old one under a new origin.
fn configuration(folder: &Path, old: &Config) -> anyhow::Result<Config> {
    let path = folder.join("config.toml");
    if !path.exists() {
        if init::folder_has_journal(folder) {
            return Err(Exit::usage(format_args!("{} has a journal already", folder.display())));
        }
        let name = old.origin.rsplit_once('/').map_or(old.origin.as_str(), |(name, _)| name);
        let mut config = Config { origin: init::new_shard(name)?, folder: folder.to_owned(), ..old.clone() };
        // Segments of all logs have the same names: an archive folder is one log's.
        config.journal.archive = None;
        files::write_new(&path, &config.to_toml())?;
    }
    Ok(Config::load(&path)?)
}

/// Refuses a folder that holds a log already, unless it is this successor's, which a run that was cut off has begun.
/// Changes nothing.
fn check_own(config: &Config, old: &Config, opening: &str) -> anyhow::Result<()> {
    let holds = |what: &str| {
        Err(Exit::usage(format_args!(
            "{} holds {what}: name a folder that is not there yet",
            config.folder.display()
        )))
    };
    if config.origin == old.origin {
        return holds("the old log itself, or a copy of it");
    }
    if !init::folder_has_journal(&config.folder) {
        return Ok(());
    }
    place::check(config)?;
    let keys = opening::ledger_keys(&opening::key_folder(config)?)?;
    match ledger::first_leaf(&opening::ledger_options(config), &keys)? {
        None => Ok(()),
        Some((LeafKind::ShardOpen, text)) if text == opening.as_bytes() => Ok(()),
        Some(_) => holds("another log"),
    }
}

/// Copies what is not the log's own: the key-encryption key, the authorities' keys, the trust authority's, TLS as far as it
/// is there. Paths outside the old folder stay where they are.
fn copy_keys(config: &Config, old: &Config, kek: &Path) -> anyhow::Result<()> {
    let issuers = config.keys.folder.join("issuers");
    let mut wanted = vec![config.keys.trust_anchor.clone()];
    let missing = old.missing_tls();
    let tls = [&config.tls.certificate, &config.tls.key, &config.tls.client_ca];
    wanted.extend(tls.into_iter().filter(|path| !missing.contains(&old.path(path))).cloned());
    let trust = config.keys.folder.join(TRUST);
    if old.path(&trust).exists() {
        wanted.push(trust);
    }
    if let Ok(entries) = fs::read_dir(old.path(&issuers)) {
        for entry in entries {
            wanted.push(issuers.join(entry?.file_name()));
        }
    }
    let wanted = wanted.into_iter().map(|path| (old.path(&path), config.path(&path)));
    for (from, to) in wanted.chain([(kek.to_owned(), config.path(&config.keys.kek))]) {
        if to.exists() {
            continue;
        }
        if let Some(above) = to.parent() {
            file::create_folder("folder", above)?;
        }
        let bytes = file::read("file", &from)?;
        file::create("file", &to, &bytes, file::PRIVATE)?;
    }
    Ok(())
}

/// The old trust bundle with the new log beside the old one: what the old log proved stays proven.
fn trust_bundle(
    config: &Config,
    old: &Config,
    keys: &KeyFolder,
    authority_key: Option<&Path>,
) -> anyhow::Result<()> {
    let path = config.path(&config.keys.trust_bundle);
    if path.exists() {
        return Ok(());
    }
    let (_, trust) = opening::trust_bundle(old)?;
    let anchor: VerifierKey =
        file::read_text("trust anchor", &config.path(&config.keys.trust_anchor))?.trim().parse()?;
    let mut bundle = trust.bundle().clone();
    bundle.sequence += 1;
    bundle.issued_at = moment::now_seconds();
    let key = VerifierKey::ed25519(&config.origin, &ed25519_public(&keys.load("log")?)?)?;
    bundle.logs.push(TrustLog { origin: config.origin.clone(), key });
    let authority = match authority_key {
        Some(path) => Authority::from_file(anchor.name(), path)?,
        None => Authority::of_folder(anchor.name(), keys).context("the trust authority's key")?,
    };
    ensure!(*authority.anchor() == anchor, "the trust authority's key is not the one of the trust anchor");
    let text = authority.sign(&bundle)?;
    files::write_new(&path, &text)
}

/// The first entries: which log it continues, then the rules, the register and the types.
async fn fill(
    ledger: &Ledger,
    opening: &str,
    documents: BTreeMap<(u8, ledger::Key), Vec<u8>>,
) -> anyhow::Result<()> {
    let refused = |refused| opening::not_taken(ledger, &refused);
    if ledger.size() == 0 {
        commit_system(ledger, statement(LeafKind::ShardOpen, opening.to_owned())).await.map_err(refused)?;
    }
    let mut carried = Vec::new();
    for ((kind, _), value) in documents {
        // Keyed hashes are under the new log's own key.
        let kept = if kind == DocumentKind::Participant.number() {
            let participant: Participant = serde_json::from_slice(&value).context("a participant")?;
            Some((
                DocumentKind::Participant,
                keyed::participant_key(ledger.keyed(), &participant.organisation),
            ))
        } else if kind == DocumentKind::LicenseType.number() {
            let license_type: LicenseType = serde_json::from_slice(&value).context("a license type")?;
            Some((DocumentKind::LicenseType, keyed::type_key(ledger.keyed(), &license_type.code)))
        } else if kind == DocumentKind::Rules.number() {
            Some((DocumentKind::Rules, keyed::rules_key(ledger.keyed())))
        } else if kind == DocumentKind::Policies.number() {
            Some((DocumentKind::Policies, in_force::policies_key(ledger.keyed())))
        } else {
            None
        };
        carried.extend(kept.map(|(kind, key)| (kind, key, value)));
    }
    init::found(ledger, carried).await.map(|_| ())
}
