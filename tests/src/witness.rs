//! A real `witness` process on a folder of its own.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use bytes::Bytes;
use exchange::config::WitnessAddress;
use exchange::witness::Witness;
use hyper::Method;
use schemas::routes::Route;
use tempfile::TempDir;
use verifier::note::{CosignerKey, VerifierKey};

use crate::HANG;
use crate::client::{Call, Reply, connect, send};
use crate::server::binary;

/// A witness, running or stopped. Killed when dropped.
pub struct WitnessProcess {
    /// Its verifier key.
    pub key: CosignerKey,
    /// Its listener, the same at every start.
    pub address: SocketAddr,
    /// Its folder.
    pub folder: PathBuf,
    child: Option<Child>,
    _temporary: TempDir,
}

impl Drop for WitnessProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

impl WitnessProcess {
    /// Makes a witness that knows a log, and starts it.
    pub fn start_new(name: &str, log: &VerifierKey) -> Self {
        let temporary = TempDir::new().unwrap();
        let folder = temporary.path().join("witness");
        let key = Witness::init(&folder, name).unwrap();
        Witness::add_log(&folder, log).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut witness = Self { key, address, folder, child: None, _temporary: temporary };
        witness.start();
        witness
    }

    /// Starts the process and waits until it serves.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "the witness is running");
        let mut command = binary("witness");
        command.args(["serve", "--listen", &self.address.to_string(), "--data"]).arg(&self.folder);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        // Read to the end, so that the process can go on writing.
        std::thread::spawn(move || lines.count());
        self.child = Some(child);
        self.address = line
            .split_whitespace()
            .last()
            .and_then(|word| word.parse().ok())
            .unwrap_or_else(|| panic!("no address: {line}"));
    }

    /// Kills the process.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// As an exchange's configuration names it.
    pub fn configured(&self) -> WitnessAddress {
        WitnessAddress { url: format!("http://{}", self.address), key: self.key.clone() }
    }

    /// Posts a body to `/add-checkpoint`.
    pub async fn post(&self, body: impl Into<Bytes>) -> Reply {
        self.send(Call::raw(Route::None, body).path("/add-checkpoint")).await
    }

    /// Gets a path.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(Call::raw(Route::None, Bytes::new()).method(Method::GET).path(path)).await
    }

    async fn send(&self, call: Call) -> Reply {
        let mut connection = connect(None, self.address).await.unwrap();
        tokio::time::timeout(HANG, send(&mut connection, &call, self.address)).await.unwrap().unwrap()
    }
}
