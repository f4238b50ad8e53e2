//! Opens what a data folder holds: keys, trust bundle, signing keys, and the ledger once its witnesses were asked.
//!
//! Each command that needs the folder calls it. Key files are replaced whole, so a crash leaves the old or the new one;
//! for the journal see `exchange/ledger/README.md`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use certs::keys::load_issuer_keys;
use certs::sealed::{EPOCH, EPOCH_NEXT, Kek, KeyFolder};
use ledger::{EpochFile, EpochFiles, Ledger, LedgerKeys, OpenError, Opened, Options, Refused};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use verifier::command::EXIT_IO;
use verifier::note::VerifierKey;
use verifier::trust::Trust;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::cosign::{Cosigning, Link};
use crate::exit::{EXIT_DATA, EXIT_INTERNAL, EXIT_USAGE, Exit, unusable};
use crate::files::read;
use crate::place;
use crate::probe;
use crate::signer::Signers;
use crate::timekeeping;

/// The options of the ledger in a data folder.
pub fn ledger_options(config: &Config) -> Options {
    let defaults = Options::new(config.folder.clone(), config.origin.clone());
    let segment_bytes = config.journal.segment_mib << 20;
    // A group and the seal after it must fit in half a segment; the longest entry is about 1 MiB.
    let half = usize::try_from(segment_bytes / 2 - (64 << 10)).unwrap_or(usize::MAX);
    Options {
        segment_bytes,
        group_bytes: defaults.group_bytes.min(half),
        reserve_percent: config.journal.reserve_percent,
        reserve_segments: config.journal.reserve_segments,
        index_roots: Some(Duration::from_secs(config.journal.index_root_seconds)),
        archive: config.journal.archive.as_deref().map(|archive| config.path(archive)),
        scrub_bytes_per_second: u64::from(config.journal.scrub_mib_per_second.get()) << 20,
        engine: config.store.engine.into(),
        accept_clock: config.accept_clock,
        // A demonstration may rest on a machine whose clock nobody keeps.
        clock_is_kept: if config.development { || true } else { timekeeping::is_synchronised },
        probe: config.program.clone().map(|program| probe::of_program(program, config.origin.clone())),
        ..defaults
    }
}

/// The sealed keys of a data folder.
///
/// # Errors
/// [`Exit`] with [`EXIT_DATA`]: the key-encryption key is missing or cannot be used.
pub fn key_folder(config: &Config) -> anyhow::Result<KeyFolder> {
    let kek = Kek::load(&config.path(&config.keys.kek)).map_err(unusable)?;
    Ok(KeyFolder::new(config.path(&config.keys.folder), kek))
}

/// The ledger's keys, opened.
///
/// # Errors
/// [`Exit`] with [`EXIT_DATA`]: a key is missing or cannot be used.
pub fn ledger_keys(folder: &KeyFolder) -> anyhow::Result<LedgerKeys> {
    let bytes32 = |name: &str| -> anyhow::Result<[u8; 32]> {
        let key = folder.load(name).map_err(unusable)?;
        key.as_slice().try_into().map_err(|_| unusable(format_args!("key {name} has a wrong length")))
    };
    Ok(LedgerKeys {
        journal: bytes32("journal")?,
        index: bytes32("index")?,
        log_pkcs8: folder.load("log").map_err(unusable)?.to_vec(),
        epochs: Arc::new(SealedEpochs(folder.clone())),
    })
}

/// The epochs' keys as sealed files of the key folder.
struct SealedEpochs(KeyFolder);

impl SealedEpochs {
    fn name(file: EpochFile) -> &'static str {
        match file {
            EpochFile::Current => EPOCH,
            EpochFile::Next => EPOCH_NEXT,
        }
    }
}

impl EpochFiles for SealedEpochs {
    fn load(&self, file: EpochFile) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let name = Self::name(file);
        if !self.0.exists(name).map_err(io::Error::other)? {
            return Ok(None);
        }
        self.0.load(name).map(Some).map_err(io::Error::other)
    }

    fn replace(&self, file: EpochFile, content: &[u8]) -> io::Result<()> {
        self.0.replace(Self::name(file), content).map_err(io::Error::other)
    }

    fn remove(&self, file: EpochFile) -> io::Result<()> {
        self.0.destroy(Self::name(file)).map_err(io::Error::other)
    }

    fn tidy(&self) -> io::Result<()> {
        let wiped = [EPOCH, EPOCH_NEXT].into_iter().try_for_each(|name| self.0.remove_left_over(name));
        wiped.map_err(io::Error::other)
    }
}

/// Reads and checks the signed trust bundle.
///
/// # Errors
/// [`Exit`] with [`EXIT_USAGE`]
pub fn trust_bundle(config: &Config) -> anyhow::Result<(String, Trust)> {
    trust_bundle_from(config, 0)
}

fn trust_bundle_from(config: &Config, minimum_sequence: u64) -> anyhow::Result<(String, Trust)> {
    let text = read(&config.path(&config.keys.trust_bundle))?;
    let anchor: VerifierKey = read(&config.path(&config.keys.trust_anchor))?
        .trim()
        .parse()
        .map_err(|error| Exit::usage(format_args!("the trust anchor cannot be read: {error}")))?;
    let bundle = Trust::parse_note(&text, Some(&anchor), minimum_sequence)
        .map_err(|error| Exit::usage(format_args!("the trust bundle is not good: {error}")))?;
    Ok((text, bundle))
}

/// Starts the signers with the issuing authorities' keys.
///
/// # Errors
/// [`Exit`] with [`EXIT_DATA`]: a key cannot be used, or is not the bundle's.
pub fn signers(folder: &KeyFolder, trust: &Trust) -> anyhow::Result<Signers> {
    Signers::start(load_issuer_keys(folder).map_err(unusable)?, trust).map_err(unusable)
}

/// The trust bundle with the signing keys that it lists.
pub struct Trusted {
    /// The text as signed.
    pub text: Arc<str>,
    /// The bundle, checked against its anchor.
    pub trust: Trust,
    /// The queues of the keys in the key folder, each of which the bundle lists.
    pub signers: Signers,
}

impl Trusted {
    /// Reads the bundle, which must have this sequence at least, and opens the signing keys.
    ///
    /// # Errors
    /// [`Exit`]: with [`EXIT_USAGE`] for the bundle, with [`EXIT_DATA`] for a key.
    pub fn load(config: &Config, minimum_sequence: u64) -> anyhow::Result<Self> {
        let (text, trust) = trust_bundle_from(config, minimum_sequence)?;
        let signers = signers(&key_folder(config)?, &trust)?;
        Ok(Self { text: text.into(), trust, signers })
    }
}

/// Asks every witness at once which size of the log it has cosigned. Gives the links, and who has proof of the most: a
/// checkpoint with the log's own signature.
///
/// One that cannot be asked does not stop the start: the log would depend on it, and the others still know.
async fn ask_witnesses(
    config: &Config,
    keys: &LedgerKeys,
) -> anyhow::Result<(Vec<Link>, Option<(String, u64)>)> {
    let mut asking = tokio::task::JoinSet::new();
    for mut link in Link::all(&config.witnesses) {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&keys.log_pkcs8)
            .map_err(|_| anyhow::anyhow!("the log's key is not an Ed25519 key in PKCS#8"))?;
        let key = VerifierKey::ed25519(&config.origin, pair.public_key().as_ref().try_into()?)?;
        asking.spawn(async move {
            let size = link.ask_size(&key, &pair).await;
            // Its word alone stops no start: anybody on the way could say it.
            let proven = match size {
                Ok(1..) => link.held(&key).await.map(|held| held.map_or(0, |held| held.size)),
                other => other,
            };
            (link, proven)
        });
    }
    let (mut links, mut most) = (Vec::new(), None);
    while let Some(asked) = asking.join_next().await {
        let (link, size) = asked?;
        match size {
            Ok(size) if most.as_ref().is_none_or(|(_, known)| size > *known) => {
                most = Some((link.name().to_owned(), size));
            }
            Ok(_) => {}
            Err(failure) => tracing::warn!(
                witness = link.name(),
                %failure,
                "a witness could not be asked for the log's size: it would not notice that the log went back"
            ),
        }
        links.push(link);
    }
    Ok((links, most))
}

/// Opens the ledger, unless a witness has seen more of the log than there is.
///
/// # Errors
/// [`Exit`] with [`EXIT_DATA`], the journal as it was; or why the ledger cannot be opened.
pub(crate) async fn open_ledger(
    config: &Config,
    keys: LedgerKeys,
) -> anyhow::Result<(Ledger, Opened, Vec<Link>)> {
    place::check(config)?;
    let (witnesses, seen) = ask_witnesses(config, &keys).await?;
    let least_size = seen.as_ref().map_or(0, |(_, size)| *size);
    let options = Options { least_size, ..ledger_options(config) };
    let opening = tokio::task::spawn_blocking(move || Ledger::open(options, keys));
    let (ledger, opened) = opening.await?.map_err(|error| match (error, seen) {
        (OpenError::RolledBack { published, journal }, Some((witness, size))) if published == size => {
            let found = format!("witness {witness} has cosigned size {size}, the journal has {journal}");
            rolled_back(&found)
        }
        (error, _) => error.into(),
    })?;
    if let Err(error) = place::keep(config) {
        tokio::task::spawn_blocking(move || ledger.close()).await?;
        return Err(error);
    }
    Ok((ledger, opened, witnesses))
}

/// Has every witness cosign the published checkpoint, and closes the ledger again if one has seen another log.
///
/// # Errors
/// [`Exit`] with [`EXIT_DATA`]
pub(crate) async fn first_round(
    config: &Config,
    ledger: &Ledger,
    witnesses: Vec<Link>,
) -> anyhow::Result<(Arc<Cosigning>, Vec<Link>)> {
    let cosigning = Arc::new(Cosigning::new(ledger.clone(), config.quorum));
    match cosigning.first_round(witnesses).await {
        Ok(witnesses) => Ok((cosigning, witnesses)),
        Err((witness, failure)) => {
            let ledger = ledger.clone();
            tokio::task::spawn_blocking(move || ledger.close()).await?;
            Err(rolled_back(&format!("witness {witness} {failure}")))
        }
    }
}

/// Why the journal takes no entry, and what makes it take one again.
pub(crate) fn not_taken(ledger: &Ledger, refused: &Refused) -> anyhow::Error {
    let (status, how) = match refused {
        Refused::Full => (EXIT_IO, format!(": {}", ledger.room())),
        Refused::Malformed(_) => (EXIT_INTERNAL, String::new()),
        Refused::Closed => (EXIT_USAGE, String::new()),
        Refused::Overloaded | Refused::Stopped => (EXIT_IO, String::new()),
    };
    Exit { status, message: format!("the journal takes no entry: {refused}{how}") }.into()
}

fn rolled_back(found: &str) -> anyhow::Error {
    let message = format!(
        "the log went back: {found}. It must not be served under this key again: close it and open its successor \
         (exchange/docs/operations/close-a-log.md)"
    );
    Exit { status: EXIT_DATA, message }.into()
}
