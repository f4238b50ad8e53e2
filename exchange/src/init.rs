//! Makes data folders: keys, configuration, trust bundle, first register entries. Each step makes what is missing and
//! leaves what is there, so a run that was cut off is completed by the next. `exchange init`, the quickstart and a
//! successor call it, in a folder that nobody serves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use certs::keys::{
    ED25519, ES256, IssuerKey, create_issuer_key, create_missing, ed25519_public, load_issuer_keys,
};
use certs::pki::{DevelopmentPki, LEAF_VALIDITY, Validity};
use certs::sealed::{EPOCH, Kek, KeyFolder, OF_JOURNAL, TRUST};
use certs::trust::Authority;
use ledger::record::{DocumentState, Record};
use ledger::{DocumentKind, Key, Ledger};
use schemas::codes::Code;
use schemas::date::Date;
use schemas::identifier::Uscc;
use schemas::license_type::LicenseType;
use schemas::synthetic::Synthetic;
use schemas::workday::Calendar;
use verifier::command::EXIT_NO;
use verifier::note::VerifierKey;
use verifier::trust::{RequiredSuite, TrustBundle, TrustIssuer, TrustKey, TrustLog};

use crate::config::{Config, ConfigError, Listen, OutgoingFiles};
use crate::exit::{Exit, unusable};
use crate::files::{read, write_new};
use crate::gateway::seal;
use crate::keyed;
use crate::moment::now_seconds;
use crate::opening;
use crate::participant::{self, Participant, Role, Rules, USUAL_DELAY_DAYS};
use crate::place;
use crate::rights::in_force;
use crate::sharing::clock::calendar_key;

/// How long development keys and bundles are good.
const DEVELOPMENT_VALIDITY: Duration = Duration::from_secs(5 * 365 * 86_400);
/// Name of the trust authority whose key the folder holds.
const TRUST_NAME: &str = "miaoxiang.local/trust";
/// Name of the certificate that a development exchange calls data providers with.
const OUTGOING: &str = "exchange";
/// Seed of the development organisations, so that every development folder has the same ones.
const ORGANISATION_SEED: u64 = 20_190_101;

/// A participant of a development folder.
pub struct DevelopmentParticipant {
    /// Name of the certificate files.
    pub name: &'static str,
    /// Shown name.
    pub title: &'static str,
    /// Role.
    pub role: Role,
}

/// The participants of a development folder, in the order of their generated organisation codes.
pub const PARTICIPANTS: [DevelopmentParticipant; 8] = [
    DevelopmentParticipant { name: "issuer", title: "演示发证机关", role: Role::Issuer },
    DevelopmentParticipant { name: "approval", title: "演示审批系统", role: Role::Relying },
    DevelopmentParticipant { name: "bank", title: "演示银行", role: Role::Relying },
    DevelopmentParticipant { name: "portal", title: "演示政务服务门户", role: Role::Portal },
    DevelopmentParticipant { name: "auditor", title: "演示审计机关", role: Role::Auditor },
    DevelopmentParticipant { name: "operator", title: "演示运营方", role: Role::Operator },
    DevelopmentParticipant { name: "operator2", title: "演示运营方二", role: Role::Operator },
    DevelopmentParticipant { name: "provider", title: "演示数据提供方", role: Role::Provider },
];

/// The generated organisation codes of [`PARTICIPANTS`].
pub fn development_organisations() -> Vec<Uscc> {
    let mut synthetic = Synthetic::new(ORGANISATION_SEED);
    PARTICIPANTS.iter().map(|_| synthetic.uscc()).collect()
}

/// Makes or completes a development folder. Returns its configuration.
pub fn development(folder: &Path, listen: Option<std::net::SocketAddr>) -> anyhow::Result<Config> {
    if place::is_fenced(folder) {
        return Err(ConfigError::Fenced { folder: folder.to_owned() }.into());
    }
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let pki = DevelopmentPki::create_missing(folder.join("pki"))?;
    let organisations = development_organisations();
    for (participant, organisation) in PARTICIPANTS.iter().zip(&organisations) {
        pki.issue_client(participant.name, &[*organisation], Validity::starting_now(LEAF_VALIDITY))?;
    }
    // Providers see the exchange's operator.
    let operator = PARTICIPANTS.iter().position(|participant| participant.role == Role::Operator);
    let operator = operator.and_then(|place| organisations.get(place)).context("there is an operator")?;
    pki.issue_client(OUTGOING, &[*operator], Validity::starting_now(LEAF_VALIDITY))?;
    let client = |ending| format!("pki/clients/{OUTGOING}.{ending}").into();
    let outgoing = OutgoingFiles { certificate: client("pem"), key: client("key") };
    let mut config = configuration(folder, "miaoxiang.local", Some(outgoing))?;
    config.development = true;
    let keys = sealed_keys(&config)?;
    let authority = own_authority(&config, &keys)?;
    let issuer = *organisations.first().context("there is an issuer")?;
    let mut issuer_keys = load_issuer_keys(&keys)?;
    for suite in [ED25519, ES256] {
        if !issuer_keys.iter().any(|key| key.organisation == issuer && key.suite == suite) {
            if config.path(&config.keys.trust_bundle).exists() {
                // The bundle lists the keys that are lost; new ones would sign nothing that verifies.
                return Err(unusable(format_args!(
                    "{} has a trust bundle but not all issuers' keys; restore the keys folder",
                    folder.display()
                )));
            }
            issuer_keys.push(create_issuer_key(&keys, issuer, suite)?);
        }
    }
    trust_bundle(&config, &keys, &authority, issuer, &issuer_keys)?;
    if let Some(listen) = listen {
        config.listen = Listen::at(listen)?;
    }
    Ok(config)
}

/// Makes a folder without development keys and registers the first operators from their certificates. It has no license
/// type: those are published by two operators. Its log allows no delay class of more than `delay_days_max` days, for good. `authority`
/// signs the trust bundle; without one the folder holds a trust authority's key of its own.
pub async fn production(
    folder: &Path,
    origin: &str,
    operators: &[PathBuf],
    delay_days_max: u16,
    authority: Option<Authority>,
) -> anyhow::Result<Config> {
    let mut participants = Vec::new();
    for path in operators {
        let wrong = |why: &dyn std::fmt::Display| Exit::usage(format_args!("{}: {why}", path.display()));
        let pem = read(path)?;
        let certificate =
            certs::pki::certificate_der("operator certificate", &pem).map_err(|error| wrong(&error))?;
        let organisation = certs::pki::organisation(&certificate).map_err(|error| wrong(&error))?;
        participants.push(registration(organisation, organisation.as_str(), Role::Operator, Vec::new()));
    }
    if participants.is_empty() {
        return Err(Exit::usage("at least one operator certificate is needed"));
    }
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let config = configuration(folder, origin, None)?;
    let keys = sealed_keys(&config)?;
    // A run that was cut off is completed; a folder with an operator is left alone, since from then on operators decide.
    // Read without opening the journal for writing, so that the refusal changes no file.
    if folder_has_journal(&config.folder) {
        let mut operators = false;
        ledger::entries(opening::ledger_options(&config), opening::ledger_keys(&keys)?, |entry| {
            let participant = DocumentKind::Participant.number();
            operators |= entry.record.documents.iter().any(|document| document.kind == participant);
        })?;
        if operators {
            return Err(Exit::usage(format_args!("{} is a data folder already", folder.display())));
        }
    }
    std::fs::create_dir_all(folder.join("pki"))?;
    let authority = match authority {
        Some(authority) => authority,
        None => own_authority(&config, &keys)?,
    };
    trust_bundle_for(&config, &keys, &authority, Vec::new())?;
    let ledger_keys = opening::ledger_keys(&keys)?;
    let options = opening::ledger_options(&config);
    let (ledger, _) = tokio::task::spawn_blocking(move || Ledger::open(options, ledger_keys)).await??;
    let written = match place::keep(&config) {
        Ok(()) => register(&ledger, Rules { delay_days_max }, &[], &participants).await.map(|_| ()),
        kept => kept,
    };
    tokio::task::spawn_blocking(move || ledger.close()).await?;
    written?;
    Ok(config)
}

/// The configuration of a folder; written with a fresh log origin if there is none.
fn configuration(folder: &Path, origin: &str, outgoing: Option<OutgoingFiles>) -> anyhow::Result<Config> {
    let path = folder.join("config.toml");
    if !path.exists() {
        if folder_has_journal(folder) {
            let folder = folder.display();
            return Err(unusable(format_args!(
                "{folder} has a journal but no config.toml, which names its log; restore it"
            )));
        }
        let config = Config {
            origin: new_shard(origin)?,
            quorum: 0,
            listen: Listen::default(),
            tls: Default::default(),
            keys: Default::default(),
            journal: Default::default(),
            store: Default::default(),
            limits: Default::default(),
            witnesses: Vec::new(),
            clocks: Default::default(),
            outgoing,
            identity: None,
            folder: folder.to_owned(),
            program: None,
            development: false,
            accept_clock: false,
            moved: false,
        };
        write_new(&path, &config.to_toml())?;
    }
    Ok(Config::load(&path)?)
}

/// The origin of a new log: no two have the same, whoever makes them.
pub(crate) fn new_shard(origin: &str) -> anyhow::Result<String> {
    let mut shard = [0; 4];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut shard)
        .map_err(|_| anyhow::anyhow!("no randomness"))?;
    Ok(format!("{origin}/{}", hex::encode(shard)))
}

pub(crate) fn folder_has_journal(folder: &Path) -> bool {
    // A start that is refused leaves the lock's file at most.
    let is_file =
        |file: std::io::Result<std::fs::DirEntry>| file.is_ok_and(|file| file.file_name() != "lock");
    std::fs::read_dir(folder.join("journal")).is_ok_and(|mut files| files.any(is_file))
}

pub(crate) fn sealed_keys(config: &Config) -> anyhow::Result<KeyFolder> {
    let kek = config.path(&config.keys.kek);
    let folder = config.path(&config.keys.folder);
    let complete = kek.exists() && OF_JOURNAL.iter().all(|name| folder.join(name).exists());
    if folder_has_journal(&config.folder) && !complete {
        // New keys would open nothing of it, and a new log key must never sign under an old origin.
        return Err(lost_keys(config));
    }
    std::fs::create_dir_all(config.path(&config.keys.folder))?;
    let kek = if kek.exists() { Kek::load(&kek)? } else { Kek::create(&kek)? };
    let keys = KeyFolder::new(config.path(&config.keys.folder), kek);
    create_missing(&keys, &OF_JOURNAL)?;
    if !keys.exists(EPOCH)? {
        keys.create(EPOCH, &ledger::first_epoch(&config.origin))?;
    }
    Ok(keys)
}

fn lost_keys(config: &Config) -> anyhow::Error {
    unusable(format_args!(
        "{} has a journal but not all of its keys; restore the folder of keys and {}",
        config.folder.display(),
        config.keys.kek.display()
    ))
}

/// The trust authority whose key the folder itself holds; made with the folder.
fn own_authority(config: &Config, keys: &KeyFolder) -> anyhow::Result<Authority> {
    if !keys.exists(TRUST)? {
        if folder_has_journal(&config.folder) {
            return Err(lost_keys(config));
        }
        create_missing(keys, &[TRUST])?;
    }
    Ok(Authority::of_folder(TRUST_NAME, keys)?)
}

fn trust_bundle(
    config: &Config,
    keys: &KeyFolder,
    authority: &Authority,
    issuer: Uscc,
    issuer_keys: &[IssuerKey],
) -> anyhow::Result<()> {
    let now = now_seconds();
    let until = now + DEVELOPMENT_VALIDITY.as_secs();
    let issuer_entry = TrustIssuer {
        organisation: issuer,
        name: PARTICIPANTS.first().map_or_else(String::new, |participant| participant.title.to_owned()),
        types: LicenseType::builtin().into_iter().map(|license_type| license_type.code).collect(),
        required_suites: vec![RequiredSuite { suite: ED25519, from: 0 }],
        keys: issuer_keys
            .iter()
            .filter(|key| key.organisation == issuer)
            .map(|key| TrustKey {
                suite: key.suite,
                key_id: key.key_id,
                spki: key.spki.clone(),
                from: 0,
                until,
                compromised_at_size: None,
            })
            .collect(),
    };
    trust_bundle_for(config, keys, authority, vec![issuer_entry])
}

/// Signs and writes the bundle and its anchor, unless a good bundle that lists these issuers is there.
fn trust_bundle_for(
    config: &Config,
    keys: &KeyFolder,
    authority: &Authority,
    issuers: Vec<TrustIssuer>,
) -> anyhow::Result<()> {
    if config.path(&config.keys.trust_bundle).exists() {
        let (_, bundle) = opening::trust_bundle(config)?;
        let listed = |wanted: &TrustIssuer| {
            let found = bundle.issuer(&wanted.organisation);
            let has =
                |key: &TrustKey| found.is_some_and(|found| found.keys.iter().any(|k| k.key_id == key.key_id));
            wanted.keys.iter().all(has)
        };
        if issuers.iter().all(listed) {
            return Ok(());
        }
        // Somebody else's bundle is never replaced by ours.
        bail!("{} has a trust bundle without the development authority", config.folder.display());
    }
    if folder_has_journal(&config.folder) {
        // A new one would begin with sequence 1 again, which who has seen a higher one refuses.
        bail!("{} has a journal but no trust bundle; restore the pki folder", config.folder.display());
    }
    let log = VerifierKey::ed25519(&config.origin, &ed25519_public(&keys.load("log")?)?)
        .map_err(|error| anyhow::anyhow!("log key: {error}"))?;
    let now = now_seconds();
    let bundle = TrustBundle {
        version: 1,
        sequence: 1,
        issued_at: now,
        expires: now + DEVELOPMENT_VALIDITY.as_secs(),
        journal_index: 0,
        issuers,
        logs: vec![TrustLog { origin: config.origin.clone(), key: log }],
        witnesses: Vec::new(),
        mirrors: Vec::new(),
        peers: Vec::new(),
        authority: None,
    };
    let text = authority.sign(&bundle)?;
    write_new(&config.path(&config.keys.trust_anchor), &format!("{}\n", authority.anchor()))?;
    write_new(&config.path(&config.keys.trust_bundle), &text)
}

fn registration(
    organisation: Uscc,
    name: &str,
    role: Role,
    issues: Vec<schemas::identifier::LicenseTypeCode>,
) -> Participant {
    let today = Date::at(i64::try_from(now_seconds()).unwrap_or(0));
    Participant {
        organisation,
        name: name.to_owned(),
        roles: vec![role],
        issues,
        purposes: Vec::new(),
        contract: None,
        daily_quota: None,
        delays: Default::default(),
        signing_keys: Vec::new(),
        limits: Vec::new(),
        acts_for: Vec::new(),
        intended_use: false,
        valid_from: today,
        valid_until: None,
        suspended: false,
    }
}

/// The registrations of a development folder.
pub fn development_register() -> Vec<Participant> {
    let types: Vec<_> = LicenseType::builtin().into_iter().map(|license_type| license_type.code).collect();
    PARTICIPANTS
        .iter()
        .zip(development_organisations())
        .map(|(participant, organisation)| {
            let issues = if participant.role == Role::Issuer { types.clone() } else { Vec::new() };
            registration(organisation, participant.title, participant.role, issues)
        })
        .collect()
}

/// Writes a registration, not suspended, into the register of a folder that nobody serves: for whoever has the keys, when
/// there are no two operators who could (decision 0013). The entry is the exchange's own, for auditors to see.
///
/// # Errors
/// The registration cannot be read; `change` and there is none, or not and there is one; the folder cannot be opened.
pub async fn register_offline(config: &Config, registration: &str, change: bool) -> anyhow::Result<()> {
    let wrong = |why: &dyn std::fmt::Display| Exit::usage(format_args!("the registration: {why}"));
    let wire: participant::Wire = serde_json::from_str(registration).map_err(|error| wrong(&error))?;
    let participant = wire.typed().map_err(|refusal| wrong(&refusal.code.sentence()))?;
    let keys = opening::ledger_keys(&opening::key_folder(config)?)?;
    let (ledger, _, witnesses) = opening::open_ledger(config, keys).await?;
    // The witnesses must have this log before anything is added to it.
    opening::first_round(config, &ledger, witnesses).await?;
    let key = keyed::participant_key(ledger.keyed(), &participant.organisation);
    let version = ledger.state().document(DocumentKind::Participant, &key).map_or(0, |found| found.version);
    let rules = ledger.state().document(DocumentKind::Rules, &keyed::rules_key(ledger.keyed()));
    let rules: Option<Rules> = rules.and_then(|rules| serde_json::from_slice(&rules.value).ok());
    let written = if !rules.unwrap_or(Rules { delay_days_max: 0 }).allow(&participant) {
        Err(Exit::usage("the registration: a delay class is longer than the log allows"))
    } else if (version != 0) == change {
        let (kind, value) = (DocumentKind::Participant.number(), participant.document());
        let document = DocumentState { kind, key, version: version + 1, value, ..DocumentState::default() };
        let record = Record { documents: vec![document], ..Record::default() };
        let prepared = seal::system_entry(&in_force::hash(&ledger), &record);
        crate::gateway::commit_system(&ledger, prepared)
            .await
            .map_err(|refused| opening::not_taken(&ledger, &refused))
    } else {
        Err(Exit { status: EXIT_NO, message: Code::ParticipantConflict.sentence().to_owned() }.into())
    };
    tokio::task::spawn_blocking(move || ledger.close()).await?;
    written
}

/// Journals what a log begins with, as far as it is not there yet, as an entry of the exchange itself. How many documents
/// that were.
pub async fn register(
    ledger: &Ledger,
    rules: Rules,
    types: &[LicenseType],
    participants: &[Participant],
) -> anyhow::Result<usize> {
    let mut documents =
        vec![(DocumentKind::Rules, keyed::rules_key(ledger.keyed()), serde_json::to_vec(&rules)?)];
    for license_type in types {
        let key = keyed::type_key(ledger.keyed(), &license_type.code);
        documents.push((DocumentKind::LicenseType, key, serde_json::to_vec(license_type)?));
    }
    for calendar in Calendar::builtin() {
        let key = calendar_key(ledger.keyed(), calendar.year);
        documents.push((DocumentKind::Calendar, key, serde_json::to_vec(&calendar)?));
    }
    for participant in participants {
        let key = keyed::participant_key(ledger.keyed(), &participant.organisation);
        documents.push((DocumentKind::Participant, key, participant.document()));
    }
    found(ledger, documents).await
}

/// Writes the documents that are not there yet, and the holders that are nobody, as one entry.
pub(crate) async fn found(
    ledger: &Ledger,
    mut documents: Vec<(DocumentKind, Key, Vec<u8>)>,
) -> anyhow::Result<usize> {
    documents.retain(|(kind, key, _)| ledger.state().document(*kind, key).is_none());
    let written = documents.len();
    let missing = keyed::nobody_keys(ledger.keyed()).filter(|key| ledger.state().holder(key).is_none());
    let mut new_holders = Vec::new();
    for key in missing {
        new_holders.push(ledger.new_holder_in(ledger::USES, key).entered());
    }
    if written > 0 || !new_holders.is_empty() {
        let documents = documents.into_iter();
        let documents = documents
            .map(|(kind, key, value)| DocumentState {
                kind: kind.number(),
                key,
                version: 1,
                value,
                ..DocumentState::default()
            })
            .collect();
        let record = Record { documents, new_holders, ..Record::default() };
        let prepared = seal::system_entry(&in_force::hash(ledger), &record);
        crate::gateway::commit_system(ledger, prepared)
            .await
            .map_err(|refused| opening::not_taken(ledger, &refused))?;
    }
    Ok(written)
}

/// The beginning of a development log: the types that come with the program, and the usual rules.
///
/// # Errors
/// The journal takes no entry.
pub async fn register_development(ledger: &Ledger, participants: &[Participant]) -> anyhow::Result<usize> {
    let rules = Rules { delay_days_max: USUAL_DELAY_DAYS };
    register(ledger, rules, &LicenseType::builtin(), participants).await
}
