//! A witness that is not ours, PyPI's aics-witness, cosigns a log of ours. It needs a newer Python than the other checks,
//! so it is the one step that may be skipped, by name.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use crate::Workspace;
use crate::independent::Exchange;
use crate::steps::Steps;
use crate::tools;

const STEP: &str = "a foreign witness, PyPI's aics-witness";
/// The virtual environment's folder in the target folder.
const VENV: &str = "xtask-witness-venv";
/// Ends with 0 on a Python that the package takes.
const NEW_ENOUGH: &str = "import sys, venv; sys.exit(sys.version_info < (3, 12))";
/// Names of a Python that may be new enough.
const PYTHONS: [&str; 4] = ["python3", "python3.14", "python3.13", "python3.12"];

/// Has the witness cosign the log in a data folder of the earlier checks, whose material is in `out`.
pub(crate) fn witness(
    steps: &mut Steps,
    workspace: &Workspace,
    data: &Path,
    out: &Path,
) -> anyhow::Result<()> {
    match install(workspace) {
        Ok(program) => steps.run(STEP, || drive(workspace, &program, data, out)),
        Err(lacking) => {
            steps.skip(STEP, &format!("{lacking:#}"));
            Ok(())
        }
    }
}

/// The witness's program in an environment of its own; an error says what the machine lacks.
fn install(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let folder = workspace.target.join(VENV);
    let (program, stamp) = (folder.join("bin/aics-witness"), folder.join("requirements.txt"));
    let requirements = workspace.root.join("tests/independent/witness-requirements.txt");
    let wanted = std::fs::read(&requirements)?;
    // Written last, so an environment that was cut off is made anew.
    if std::fs::read(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(program);
    }
    let python = pythons()
        .into_iter()
        .find(|python| quiet(Command::new(python).args(["-c", NEW_ENOUGH])))
        .context("there is no Python 3.12 or later")?;
    println!(
        "making a Python environment in the target folder from tests/independent/witness-requirements.txt"
    );
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    let made = quiet(Command::new(python).args(["-m", "venv"]).arg(&folder))
        && quiet(Command::new(folder.join("bin/python")).args(pip).arg(&requirements));
    ensure!(made, "its packages cannot be installed");
    std::fs::write(&stamp, wanted)?;
    Ok(program)
}

/// Pythons on the path, and those that pyenv keeps beside it.
fn pythons() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = PYTHONS.iter().map(PathBuf::from).collect();
    let root = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    let root = root.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".pyenv")));
    if let Some(versions) = root.and_then(|root| std::fs::read_dir(root.join("versions")).ok()) {
        found.extend(versions.flatten().map(|version| version.path().join("bin/python3")));
    }
    found
}

/// Whether a command can be run and ends well.
fn quiet(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// A running witness; killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn drive(workspace: &Workspace, program: &Path, data: &Path, out: &Path) -> anyhow::Result<()> {
    let folder = data.with_file_name("foreign");
    std::fs::create_dir_all(&folder)?;
    let config = folder.join("witness.json");
    let words = |words: &[&str]| {
        let mut command = Command::new(program);
        command.args(words).arg("--config").arg(&config);
        command
    };
    // Free at this moment; the witness takes it a moment later.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let made = words(&["init", "--name", "foreign.example/w1", "--listen", &address]).output()?;
    ensure!(made.status.success(), "init: {}", String::from_utf8_lossy(&made.stderr));
    let key = String::from_utf8(made.stdout)?.trim().to_owned();
    let log = std::fs::read_to_string(out.join("log.vkey"))?;
    let (origin, _) = log.split_once('+').context("log.vkey")?;
    tools::run(&mut words(&["add-log", "--origin", origin, "--vkey", log.trim()]))?;
    let mut serving = words(&["serve"]).stderr(Stdio::piped()).spawn()?;
    let said = serving.stderr.take().context("its output is piped")?;
    let _running = Running(serving);
    let mut lines = BufReader::new(said).lines();
    ensure!(
        lines.by_ref().map_while(Result::ok).any(|line| line.contains("listening on")),
        "the witness does not serve"
    );
    // Read to the end, so that it can go on writing.
    std::thread::spawn(move || lines.count());

    let path = data.join("config.toml");
    let text = std::fs::read_to_string(&path)?;
    ensure!(text.contains("\nquorum = 0\n"), "config.toml has no quorum to change");
    let text = text.replace("\nquorum = 0\n", "\nquorum = 1\n");
    std::fs::write(&path, format!("{text}\n[[witnesses]]\nurl = \"http://{address}\"\nkey = \"{key}\"\n"))?;
    let exchange = Exchange::serve(workspace, data)?;

    let answer = out.join("exchanged/0.answer");
    let text = std::fs::read_to_string(&answer)?;
    let receipt = text.rsplit_once("\"receipt\":{").context("an answer with a receipt")?.1;
    let index: String = receipt
        .split_once("\"index\":")
        .context("a receipt with an index")?
        .1
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    let proof = folder.join("proof");
    let mut fetch = Command::new("curl");
    fetch.args(["-sSf", "--cacert"]).arg(data.join("pki/ca.pem")).arg("-o").arg(&proof);
    tools::run(fetch.arg(format!("https://{}/v1/log/proof/{index}", exchange.public)))?;

    let policy = folder.join("policy");
    let verify = || {
        let mut command = Command::new(workspace.built("verifier"));
        command.arg("receipt").arg(&answer).arg("--proof").arg(&proof).arg("--policy").arg(&policy);
        let anchor = std::fs::read_to_string(data.join("pki/trust-anchor.vkey")).context("the anchor")?;
        command.arg("--trust").arg(out.join("trust-bundle.note")).arg("--anchor").arg(anchor.trim_end());
        command.output().context("verifier")
    };
    std::fs::write(&policy, format!("witness foreign {key}\nquorum foreign\n"))?;
    let output = verify()?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || !said.contains("witnesses    1 of 1\n") {
        bail!("not cosigned: {said}{}", String::from_utf8_lossy(&output.stderr));
    }
    // The control: to those who ask for another witness the same cosignature is nothing.
    let made = Command::new(workspace.built("witness"))
        .args(["init", "--name", "another.example/w1", "--data"])
        .arg(folder.join("another"))
        .output()?;
    ensure!(made.status.success(), "witness init: {}", String::from_utf8_lossy(&made.stderr));
    let other = String::from_utf8(made.stdout)?;
    std::fs::write(&policy, format!("witness another {other}quorum another\n"))?;
    let output = verify()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.code() == Some(2) && said.contains("witnesses-short"),
        "counted for another: {said}"
    );
    println!("size {} cosigned by {}", checkpoint_size(&proof)?, key.split('+').next().unwrap_or_default());
    Ok(())
}

/// Size of the checkpoint in a proof.
fn checkpoint_size(proof: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(proof)?;
    let checkpoint = text.split_once("\n\n").context("a proof with a checkpoint")?.1;
    Ok(checkpoint.lines().nth(1).context("a checkpoint with a size")?.to_owned())
}
