//! A real `exchange` process on a folder of its own.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::time::Instant;

use bytes::Bytes;
use certs::keys::{ED25519, create_issuer_key, load_issuer_keys};
use certs::pki::{DevelopmentPki, LEAF_VALIDITY, Validity};
use client::Tls;
use exchange::config::Config;
use exchange::gateway::{Gateway, write_system_documents};
use exchange::participant::Certified;
use exchange::participant::{Participant, Role};
use exchange::shed::Shed;
use exchange::signer::Signers;
use exchange::{init, opening};
use http_body_util::Full;
use ledger::{DocumentKind, Hooks, Ledger, Options};
use rustix::process::{Pid, Signal};
use schemas::codes::{Code, Decision};
use schemas::identifier::Uscc;
use schemas::license_type::LicenseType;
use schemas::routes::Route;
use schemas::synthetic::Synthetic;
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};
use verifier::leaf::Open;
use verifier::note::VerifierKey;
use verifier::proof::TlogProof;
use verifier::report::{Reason, Verdict};
use verifier::trust::{RequiredSuite, Trust, TrustBundle, TrustIssuer, TrustKey};

use crate::client::{Call, Entry, Party, Reply, connect, send};
use crate::{HANG, LOOK};

/// Seed of the organisations that tests add; not the one of the development organisations.
const ORGANISATION_SEED: u64 = 4_242;
/// Segments as small as the ledger takes them, so that a folder needs little space.
const SEGMENT_MIB: u64 = 9;

type Change<T> = Box<dyn FnOnce(&mut T)>;

/// What a server is to start with; a development folder unless said otherwise.
#[derive(Default)]
pub struct Setup {
    at: Option<PathBuf>,
    participants: Vec<(String, Option<Change<Participant>>, bool)>,
    bundle: Vec<Change<TrustBundle>>,
    config: Vec<Change<Config>>,
    env: Vec<(String, String)>,
    descriptors: Option<u32>,
}

impl Setup {
    /// The development folder as it is.
    pub fn new() -> Self {
        Self::default()
    }

    /// In this folder instead of a temporary one.
    #[must_use]
    pub fn at(mut self, folder: &Path) -> Self {
        self.at = Some(folder.to_owned());
        self
    }

    /// Registers one more participant, a relying party unless changed, with a client certificate of that name.
    #[must_use]
    pub fn participant(mut self, name: &str, change: impl FnOnce(&mut Participant) + 'static) -> Self {
        self.participants.push((name.to_owned(), Some(Box::new(change)), false));
        self
    }

    /// A client certificate of an organisation that is not registered.
    #[must_use]
    pub fn stranger(mut self, name: &str) -> Self {
        self.participants.push((name.to_owned(), None, false));
        self
    }

    /// One more issuing authority, for all types, with a signing key.
    #[must_use]
    pub fn authority(self, name: &str) -> Self {
        self.authority_with(name, |_| {})
    }

    /// The same, changed.
    #[must_use]
    pub fn authority_with(mut self, name: &str, more: impl FnOnce(&mut Participant) + 'static) -> Self {
        let change: Change<Participant> = Box::new(|participant| {
            participant.roles = vec![Role::Issuer];
            participant.issues = LicenseType::builtin().into_iter().map(|one| one.code).collect();
            more(participant);
        });
        self.participants.push((name.to_owned(), Some(change), true));
        self
    }

    /// Changes the trust bundle before it is signed.
    #[must_use]
    pub fn bundle(mut self, change: impl FnOnce(&mut TrustBundle) + 'static) -> Self {
        self.bundle.push(Box::new(change));
        self
    }

    /// Changes the configuration before it is written.
    #[must_use]
    pub fn config(mut self, change: impl FnOnce(&mut Config) + 'static) -> Self {
        self.config.push(Box::new(change));
        self
    }

    /// Lets the process have so many files and connections open.
    #[must_use]
    pub fn descriptors(mut self, limit: u32) -> Self {
        self.descriptors = Some(limit);
        self
    }

    /// Sets a variable of the process.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Makes the folder, with its register, without a running server.
    pub async fn prepare(self) -> Server {
        let (folder, temporary) = match self.at {
            Some(folder) => (folder, None),
            None => {
                let temporary = TempDir::new().unwrap();
                (temporary.path().join("data"), Some(temporary))
            }
        };
        let mut config = init::development(&folder, None).unwrap();
        config.journal.segment_mib = SEGMENT_MIB;
        config.journal.reserve_percent = 0;
        // Half a day away, so that no entry of the exchange's own comes between a test's.
        let hour = (crate::now_ms() / 3_600_000 + 8 + 12) % 24;
        config.keys.rotation_hour = u8::try_from(hour).unwrap();
        // Tests count entries; those that want index roots ask for them.
        config.journal.index_root_seconds = 3_600;
        for change in self.config {
            change(&mut config);
        }
        fs::write(folder.join("config.toml"), config.to_toml()).unwrap();

        let pki = DevelopmentPki::create_missing(folder.join("pki")).unwrap();
        let keys = opening::key_folder(&config).unwrap();
        let mut organisations: BTreeMap<String, Uscc> = init::PARTICIPANTS
            .iter()
            .zip(init::development_organisations())
            .map(|(participant, organisation)| (participant.name.to_owned(), organisation))
            .collect();
        let mut register = init::development_register();
        let mut synthetic = Synthetic::new(ORGANISATION_SEED);
        let mut authorities = Vec::new();
        for (name, change, authority) in self.participants {
            let organisation = synthetic.uscc();
            pki.issue_client(&name, &[organisation], Validity::starting_now(LEAF_VALIDITY)).unwrap();
            if let Some(change) = change {
                let mut participant = Participant {
                    organisation,
                    roles: vec![Role::Relying],
                    issues: Vec::new(),
                    ..register.first().unwrap().clone()
                };
                participant.name = format!("测试{name}");
                change(&mut participant);
                register.push(participant);
            }
            if authority {
                create_issuer_key(&keys, organisation, ED25519).unwrap();
                authorities.push(organisation);
            }
            organisations.insert(name, organisation);
        }
        let (_, trust) = opening::trust_bundle(&config).unwrap();
        let mut bundle = trust.bundle().clone();
        for organisation in authorities {
            let keys = load_issuer_keys(&keys).unwrap();
            bundle.issuers.push(TrustIssuer {
                organisation,
                name: "测试机关".to_owned(),
                types: LicenseType::builtin().into_iter().map(|one| one.code).collect(),
                required_suites: vec![RequiredSuite { suite: ED25519, from: 0 }],
                keys: keys
                    .iter()
                    .filter(|key| key.organisation == organisation)
                    .map(|key| TrustKey {
                        suite: key.suite,
                        key_id: key.key_id,
                        spki: key.spki.clone(),
                        from: 0,
                        until: bundle.expires,
                        compromised_at_size: None,
                    })
                    .collect(),
            });
        }
        for change in self.bundle {
            change(&mut bundle);
        }
        bundle.sequence += 1;
        let anchor: VerifierKey =
            fs::read_to_string(config.path(&config.keys.trust_anchor)).unwrap().trim().parse().unwrap();
        let text = certs::trust::sign_bundle(&bundle, anchor.name(), &keys.load("trust").unwrap()).unwrap();
        fs::write(config.path(&config.keys.trust_bundle), text).unwrap();
        let (_, trust) = opening::trust_bundle(&config).unwrap();

        let ledger_keys = opening::ledger_keys(&keys).unwrap();
        let (ledger, _) = Ledger::open(opening::ledger_options(&config), ledger_keys).unwrap();
        init::register_development(&ledger, &register).await.unwrap();
        tokio::task::spawn_blocking(move || ledger.close()).await.unwrap();

        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        Server {
            folder,
            config,
            trust,
            organisations,
            env: self.env,
            descriptors: self.descriptors,
            words: Vec::new(),
            stderr: NamedTempFile::new().unwrap(),
            child: None,
            data: nowhere,
            public: nowhere,
            admin: nowhere,
            _temporary: temporary,
        }
    }

    /// Makes the folder and starts the server.
    pub async fn start(self) -> Server {
        let mut server = self.prepare().await;
        server.start();
        server
    }
}

/// A server, running or stopped. Killed when dropped.
pub struct Server {
    /// Its data folder.
    pub folder: PathBuf,
    /// Its configuration.
    pub config: Config,
    /// Its trust bundle, checked against its anchor.
    pub trust: Trust,
    organisations: BTreeMap<String, Uscc>,
    env: Vec<(String, String)>,
    descriptors: Option<u32>,
    words: Vec<String>,
    stderr: NamedTempFile,
    child: Option<Child>,
    /// Its data listener.
    pub data: SocketAddr,
    /// Its public listener.
    pub public: SocketAddr,
    /// Its admin listener.
    pub admin: SocketAddr,
    _temporary: Option<TempDir>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A server that runs while a test holds it.
#[derive(Default)]
struct Running {
    server: tokio::sync::OnceCell<Server>,
    /// Counters are compared before and after a request, so only one test asks at a time.
    turns: Arc<tokio::sync::Mutex<()>>,
}

/// The servers that tests share now, by the function that sets them up.
static SHARED: Mutex<BTreeMap<TypeId, Weak<Running>>> = Mutex::new(BTreeMap::new());

/// A test's turn on a shared server.
pub struct Turn {
    // Given back before the server may end with it.
    _turn: tokio::sync::OwnedMutexGuard<()>,
    running: Arc<Running>,
}

impl std::ops::Deref for Turn {
    type Target = Server;

    fn deref(&self) -> &Server {
        self.running.server.get().unwrap()
    }
}

/// A turn on the server that the tests with the same function `setup` share. It is started for the first of them, and
/// runs as long as one of them has or awaits its turn.
pub async fn shared<F: FnOnce() -> Setup + 'static>(setup: F) -> Turn {
    // Held while the turn is awaited: the server outlives the turn before.
    let running = {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let known = shared.entry(TypeId::of::<F>()).or_default();
        known.upgrade().unwrap_or_else(|| {
            let running = Arc::default();
            *known = Arc::downgrade(&running);
            running
        })
    };
    let turn = Arc::clone(&running.turns).lock_owned().await;
    running.server.get_or_init(|| setup().start()).await;
    Turn { _turn: turn, running }
}

/// A gateway inside this process, over the folder of a stopped server, at a later time.
pub struct Later {
    /// The gateway.
    pub gateway: Gateway,
}

impl Later {
    /// Sends a request as an organisation with a certificate.
    pub async fn ask(&self, organisation: Uscc, call: &Call) -> Reply {
        let mut request = hyper::Request::builder().method(&call.method).uri(&call.path);
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(call.body.clone())).unwrap();
        let caller =
            Certified { organisation, ends_at_ms: u64::MAX, address: std::net::Ipv4Addr::LOCALHOST.into() };
        let answer = self.gateway.handle(call.route, &caller, request, None).await;
        Reply {
            status: answer.status,
            content_type: String::new(),
            retry_after: None,
            cache_control: None,
            headers: hyper::HeaderMap::new(),
            request: call.body.clone(),
            json: serde_json::from_slice(&answer.body).unwrap_or(Value::Null),
            body: answer.body,
        }
    }

    /// Closes the ledger.
    pub async fn close(self) {
        let ledger = self.gateway.ledger().clone();
        drop(self.gateway);
        tokio::task::spawn_blocking(move || ledger.close()).await.unwrap();
    }
}

/// What a finished command left.
#[derive(Debug)]
pub struct Finished {
    /// Exit status; `None` after a signal.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The `exchange` command of this build.
///
/// # Panics
/// When it was not built.
pub fn command() -> Command {
    binary("exchange")
}

/// A command of this build.
///
/// # Panics
/// When it was not built.
pub fn binary(name: &str) -> Command {
    let own = std::env::current_exe().unwrap();
    // Tests lie one folder deeper than binaries.
    let folders = own.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    let binary = folders.into_iter().find(|binary| binary.is_file());
    let binary = binary
        .unwrap_or_else(|| panic!("{name} is not built: run `cargo build -p exchange -p verifier` first"));
    let mut command = Command::new(binary);
    command.stdin(Stdio::null()).env("RUST_LOG", "warn");
    command
}

/// The same command within a limit of open files, behind which its arguments are to come.
fn limited(command: Command, descriptors: Option<u32>) -> Command {
    let Some(limit) = descriptors else { return command };
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n \"$0\" && exec \"$@\"", &limit.to_string()]).arg(command.get_program());
    shell.stdin(Stdio::null()).env("RUST_LOG", "warn");
    shell
}

impl Server {
    /// Writes a changed configuration; it holds from the next start on.
    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        fs::write(self.folder.join("config.toml"), self.config.to_toml()).unwrap();
    }

    /// Goes on in another data folder, made beforehand.
    pub fn move_to(&mut self, folder: &Path) {
        self.folder = folder.to_owned();
        self.config = Config::load(&folder.join("config.toml")).unwrap();
        self.trust = opening::trust_bundle(&self.config).unwrap().1;
    }

    /// The key of the log.
    pub fn log_key(&self) -> VerifierKey {
        self.trust.log(&self.config.origin).unwrap().key.clone()
    }

    /// Starts the process, which must refuse to serve; gives its exit status and what it says.
    pub fn start_refused(&mut self) -> Finished {
        let mut command = limited(command(), self.descriptors);
        command.args(["serve", "--development", "--listen", "127.0.0.1:0", "--data"]).arg(&self.folder);
        let stderr = NamedTempFile::new().unwrap();
        command.stdout(Stdio::null()).stderr(stderr.reopen().unwrap());
        self.child = Some(command.spawn().unwrap());
        let status = self.exit_status();
        let stderr = fs::read_to_string(stderr.path()).unwrap();
        Finished { status, stdout: String::new(), stderr }
    }

    /// Starts the process and waits until it serves.
    pub fn start(&mut self) {
        if let Err(said) = self.try_start() {
            panic!("no server: {said}");
        }
    }

    /// Starts the process, waiting for nothing.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the server is running");
        let mut command = limited(command(), self.descriptors);
        command.args(["serve", "--development", "--listen", "127.0.0.1:0", "--data"]).arg(&self.folder);
        command.args(&self.words).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::piped()).stderr(self.stderr.reopen().unwrap());
        self.child = Some(command.spawn().unwrap());
    }

    /// Starts the process and waits until it serves.
    ///
    /// # Errors
    /// What it says when it does not serve.
    pub fn try_start(&mut self) -> Result<(), String> {
        self.spawn();
        let stdout = self.child.as_mut().and_then(|child| child.stdout.take()).unwrap();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The test may be over; what is said then interests nobody.
                let _ = sender.send(line);
            }
        });
        let Ok(line) = receiver.recv_timeout(HANG) else {
            self.kill();
            return Err(self.stderr());
        };
        let address = |name: &str| {
            let mut words = line.split_whitespace().skip_while(|word| *word != name).skip(1);
            words
                .next()
                .and_then(|text| text.parse().ok())
                .unwrap_or_else(|| panic!("no address of {name}: {line}"))
        };
        (self.data, self.public, self.admin) = (address("data"), address("public"), address("admin"));
        Ok(())
    }

    /// Sets further words of the command for its next start.
    pub fn set_words(&mut self, words: &[&str]) {
        self.words = words.iter().map(|word| (*word).to_owned()).collect();
    }

    /// The states of `/ready`, its status, and the words of one state.
    pub async fn states(&self) -> (u16, BTreeMap<String, String>) {
        let ready = self.admin("/ready").await;
        let states = ready.json["states"].as_array().unwrap_or_else(|| panic!("no states: {}", ready.json));
        let text = |state: &Value, member: &str| state[member].as_str().unwrap().to_owned();
        let states = states.iter().map(|state| (text(state, "state"), text(state, "words"))).collect();
        (ready.status, states)
    }

    /// Sets a variable of the process for its next start; `None` takes it away.
    pub fn set_env(&mut self, name: &str, value: Option<&str>) {
        self.env.retain(|(have, _)| have != name);
        self.env.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    /// What the process has written to standard error.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.stderr.path()).unwrap_or_default()
    }

    /// Kills the process as a power cut would (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks the process to stop (SIGTERM) and gives its exit status.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.exit_status()
    }

    /// Number of the running process.
    pub fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.id()).unwrap();
        rustix::process::kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// Waits for the process to end by itself and gives its exit status.
    pub fn exit_status(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            if begun.elapsed() > HANG {
                let _ = child.kill();
                panic!("the server does not end: {}", self.stderr());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Whether the process runs.
    pub fn running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Runs `exchange` with these words and `--data` of this folder.
    pub fn run(&self, words: &[&str]) -> Finished {
        let output = command().args(words).arg("--data").arg(&self.folder).output().unwrap();
        Finished {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs `verifier` with these words and the trust bundle and anchor of this folder.
    pub fn verifier(&self, words: &[&str]) -> Finished {
        let mut command = binary("verifier");
        command.args(words).arg("--trust").arg(self.config.path(&self.config.keys.trust_bundle));
        command.arg("--anchor").arg(self.anchor());
        let output = command.output().unwrap();
        Finished {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The trust authority's verifier key.
    pub fn anchor(&self) -> String {
        fs::read_to_string(self.config.path(&self.config.keys.trust_anchor)).unwrap().trim_end().to_owned()
    }

    /// `verifier trace` or `verifier audit` on a file of these answers, one a line.
    pub fn verify_pages(&self, command: &str, answers: &[Bytes]) -> Finished {
        let file = NamedTempFile::new().unwrap();
        fs::write(file.path(), answers.join(&b'\n')).unwrap();
        self.verifier(&[command, file.path().to_str().unwrap()])
    }

    /// `exchange log verify --json` on this folder, which must find the log good.
    pub fn log_verify(&self) -> Value {
        let finished = self.run(&["log", "verify", "--json"]);
        assert_eq!(finished.status, Some(0), "{finished:?}");
        serde_json::from_str(&finished.stdout).unwrap()
    }

    /// Opens the folder of the stopped server in this process, its clock so many ms ahead. Nothing is kept for a
    /// retention period, and nothing is signed.
    pub async fn later(&self, ms: u64) -> Later {
        let keys = opening::ledger_keys(&opening::key_folder(&self.config).unwrap()).unwrap();
        let clock: Arc<dyn Fn() -> u64 + Send + Sync> = Arc::new(move || crate::now_ms() + ms);
        let hooks = Hooks { clock: Some(clock), ..Hooks::default() };
        let options = Options { hooks, accept_clock: true, ..opening::ledger_options(&self.config) };
        let opened = tokio::task::spawn_blocking(move || Ledger::open(options, keys).unwrap());
        let (ledger, _) = opened.await.unwrap();
        // The gateway reads the time of the journal, which moves with an entry.
        let key = u128::from(crate::now_ms() + ms).to_be_bytes();
        let later = vec![(DocumentKind::Rules, key, b"later".to_vec())];
        write_system_documents(&ledger, &[0; 32], later).await.unwrap();
        let signers = Signers::start(Vec::new(), &self.trust).unwrap();
        let shed = Shed::new(std::num::NonZeroU32::MAX, std::num::NonZeroU32::MAX);
        Later { gateway: Gateway::new(ledger, signers, self.trust.clone(), shed, 0) }
    }

    /// The internal reason of every entry by index, read from the journal with its key.
    pub fn reasons(&self) -> BTreeMap<u64, u16> {
        let keys = opening::ledger_keys(&opening::key_folder(&self.config).unwrap()).unwrap();
        let mut reasons = BTreeMap::new();
        ledger::entries(opening::ledger_options(&self.config), keys, |entry| {
            reasons.insert(entry.open.index, entry.record.reason);
        })
        .unwrap();
        reasons
    }

    /// The organisation of a certificate's name.
    pub fn organisation(&self, name: &str) -> Uscc {
        *self.organisations.get(name).unwrap_or_else(|| panic!("nobody is called {name}"))
    }

    /// A caller by the name of its certificate.
    pub fn party(&self, name: &str) -> Party {
        let tls = exchange::calling::participant(&self.folder, name).unwrap();
        Party::new(name, self.organisation(name), tls, self.trust.clone(), self.data)
    }

    /// A caller without a certificate.
    pub fn nobody(&self) -> Party {
        let tls = Tls::from_files(self.folder.join("pki/ca.pem"), None).unwrap();
        Party::new("nobody", self.organisation("bank"), tls, self.trust.clone(), self.data)
    }

    /// Gets a path of the public listener.
    pub async fn public(&self, path: &str) -> Reply {
        self.public_with(hyper::Method::GET, path).await
    }

    /// Asks the public listener for a path with a method.
    pub async fn public_with(&self, method: hyper::Method, path: &str) -> Reply {
        self.public_call(Call::raw(Route::None, Bytes::new()).method(method).path(path)).await
    }

    /// Sends a call to the public listener.
    pub async fn public_call(&self, call: Call) -> Reply {
        let mut config = Tls::from_files(self.folder.join("pki/ca.pem"), None).unwrap().config();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        self.get(Some(Arc::new(config)), self.public, call).await
    }

    /// Gets a path of the admin listener.
    pub async fn admin(&self, path: &str) -> Reply {
        self.admin_with(hyper::Method::GET, path).await
    }

    /// Asks the admin listener for a path with a method.
    pub async fn admin_with(&self, method: hyper::Method, path: &str) -> Reply {
        let call = Call::raw(Route::None, Bytes::new()).method(method).path(path);
        self.get(None, self.admin, call).await
    }

    async fn get(&self, tls: Option<Arc<rustls::ClientConfig>>, address: SocketAddr, call: Call) -> Reply {
        let call = call.without("receipt");
        let mut connection = connect(tls.as_ref(), address).await.unwrap();
        tokio::time::timeout(HANG, send(&mut connection, &call, address)).await.unwrap().unwrap()
    }

    /// The value of a metric; 0 when there is none yet.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let text = self.admin("/metrics").await.body;
        let text = std::str::from_utf8(&text).unwrap();
        let value = text.lines().find_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (have, rest) = series.split_once('{').unwrap_or((series, "}"));
            let mut found: Vec<&str> =
                rest.strip_suffix('}')?.split(',').filter(|part| !part.is_empty()).collect();
            let mut wanted: Vec<String> =
                labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
            found.sort_unstable();
            wanted.sort_unstable();
            (have == name && found == wanted).then(|| value.parse().unwrap())
        });
        value.unwrap_or(0)
    }

    /// How many answers with this code a route has given.
    pub async fn answers(&self, route: Route, code: Code) -> u64 {
        self.metric("miaoxiang_answers_total", &[("route", route.name()), ("code", code.name())]).await
    }

    /// Entries in the log.
    pub async fn size(&self) -> u64 {
        self.admin("/ready").await.json["size"].as_u64().unwrap()
    }

    /// The entry of an answer, proven: its receipt ties request, answer and leaf together, and the leaf stands in a
    /// checkpoint that the log signed.
    pub async fn entry(&self, reply: &Reply) -> Entry {
        let receipt = reply.receipt();
        let proof = match &receipt.proof {
            Some(_) => None,
            None => Some(self.proof(receipt.index).await),
        };
        let at = crate::now_ms() / 1_000;
        let (request, answer) = (Some(&*reply.request), Some(&*reply.body));
        let report =
            verifier::receipt::verify_against(&receipt, proof.as_ref(), request, answer, &self.trust, at);
        let unread = report.reasons.len() == 1 && report.has(Reason::RequestNotRecorded);
        assert!(report.verdict == Verdict::Valid || unread, "{:?} of {}", report.reasons, reply.json);
        Entry { open: Open::parse(&receipt.open).unwrap(), receipt }
    }

    /// The public proof of an entry, as soon as a published checkpoint covers it.
    pub async fn proof(&self, index: u64) -> TlogProof {
        crate::eventually("a published proof", || async move {
            let reply = self.public(&format!("/v1/log/proof/{index}")).await;
            (reply.status == 200)
                .then(|| TlogProof::parse(std::str::from_utf8(&reply.body).unwrap()).unwrap())
        })
        .await
    }

    /// Sends a request that must be refused with `code`, and checks status, problem document, journal entry and
    /// metric together.
    pub async fn refused(&self, party: &mut Party, call: &Call, code: Code) -> (Reply, Entry) {
        let (reply, entry) = self.answered(party, call, code).await;
        let problem = &reply.json;
        assert_eq!(reply.content_type, "application/problem+json", "{problem}");
        assert_eq!(problem["status"], json!(code.status()));
        assert_eq!(problem["title"], json!(code.sentence()));
        assert_eq!(problem["type"], json!(format!("urn:miaoxiang:problem:{}", code.name())));
        assert_eq!(entry.open.decision, Decision::Denial.number());
        (reply, entry)
    }

    /// Like [`Server::refused`], on a server that journals entries of its own meanwhile.
    pub async fn refused_beside_shed(&self, party: &mut Party, call: &Call, code: Code) -> Entry {
        let reply = party.send(call).await;
        assert_eq!((reply.status, reply.code()), (code.status(), code.name()));
        let entry = self.entry(&reply).await;
        assert_eq!((entry.open.decision, entry.open.code), (Decision::Denial.number(), code.number()));
        entry
    }

    /// Sends a request that must be permitted, and checks status, journal entry and metric together.
    pub async fn permitted(&self, party: &mut Party, call: &Call) -> (Reply, Entry) {
        let (reply, entry) = self.answered(party, call, Code::Ok).await;
        assert_eq!(reply.content_type, call.media_type(), "{}", reply.json);
        assert_eq!(entry.open.decision, Decision::Permit.number());
        (reply, entry)
    }

    async fn answered(&self, party: &mut Party, call: &Call, code: Code) -> (Reply, Entry) {
        let (count, size) = (self.answers(call.route, code).await, self.size().await);
        let reply = party.send(call).await;
        assert_eq!(reply.code(), code.name(), "{}", reply.json);
        let made = call.route.success_status() == 201;
        assert_eq!(reply.status, if code == Code::Ok && made { 201 } else { code.status() });
        let entry = self.entry(&reply).await;
        let open = &entry.open;
        assert_eq!((open.route, open.code), (call.route.number(), code.number()));
        assert_eq!(open.organisation, *party.organisation.as_bytes());
        let unread = matches!(code, Code::BodyTooLarge | Code::NoSuchRoute | Code::MethodNotAllowed);
        let salt = entry.receipt.request_salt.unwrap();
        let digest = verifier::receipt::request_digest(&salt, &call.body);
        assert_eq!(open.request_digest, if unread { [0; 32] } else { digest });
        assert_eq!(open.index, size, "the answer's entry is the next one");
        assert_eq!(self.size().await, size + 1, "one answer, one entry");
        assert_eq!(self.answers(call.route, code).await, count + 1, "one answer, counted once");
        (reply, entry)
    }
}
