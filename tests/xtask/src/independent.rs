//! Checks of a running exchange by programs that share no code with it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use crate::steps::Steps;
use crate::tools::{self, Python};
use crate::{Workspace, foreign};

/// Where Debian's packages put Go libraries.
const GOPATH: &str = "/usr/share/gocode";
/// Licenses that a quickstart issues at least.
const LEAST_ISSUED: u64 = 1_000;
/// Answers of the round behind the concurrent start, about; all of them are opened.
const ROUND: usize = 60;
/// Every how many answers of the concurrent start one is opened.
const EVERY: usize = 20;

/// Compares verdicts on identifiers and numbers with another library's.
pub(crate) fn identifiers(workspace: &Workspace, python: &Python) -> anyhow::Result<()> {
    let mut vectors = Command::new(workspace.built("examples/identifier_vectors"))
        .stdout(Stdio::piped())
        .spawn()
        .context("identifier_vectors")?;
    let lines = vectors.stdout.take().context("its output is piped")?;
    tools::run(python.script(workspace, "identifiers.py").stdin(lines))?;
    let status = vectors.wait()?;
    ensure!(status.success(), "identifier_vectors: {status}");
    Ok(())
}

/// Starts a quickstart on a fresh folder, and checks what it serves and leaves.
pub(crate) fn served(
    steps: &mut Steps,
    workspace: &Workspace,
    python: &Python,
    entries: u32,
) -> anyhow::Result<()> {
    let folder = workspace.target.join("xtask-independent");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let (data, out) = (folder.join("data"), folder.join("out"));
    let exchange = steps.run("quickstart", || Exchange::start(workspace, &data))?;
    steps.run("the HTTP contract, by a Python client", || {
        let mut client = python.script(workspace, "material.py");
        client.args([&data, &out]).args([&exchange.data, &exchange.public]);
        tools::run(client.arg(workspace.root.join("schemas/openapi.json")))
    })?;
    let vkey = std::fs::read_to_string(out.join("log.vkey")).context("log.vkey")?;
    steps.run("the log, by Go's sumdb", || log(workspace, &exchange, &data, &out, &vkey, entries))?;
    steps.run("receipts, by a short script", || receipts(workspace, python, &out, &vkey))?;
    steps.run("the walkthrough, by curl", || walkthrough(&data))?;
    steps.run("verdicts, by a second verifier", || {
        let mut compare = python.script(workspace, "compare_verdicts.py");
        compare.arg(workspace.built("verifier")).arg(&out).arg(data.join("pki/trust-anchor.vkey"));
        compare
            .arg(data.join("samples/answers/trace.json"))
            .arg(&exchange.public)
            .arg(data.join("pki/ca.pem"));
        tools::run(&mut compare)
    })?;
    steps.run("signed requests, by http-message-signatures of PyPI and npm", || {
        let mut signatures = python.script(workspace, "signatures.py");
        signatures.arg(&data).arg(&exchange.data).arg(workspace.root.join("schemas/openapi.json"));
        tools::run(signatures.arg(tools::node(workspace)?))
    })?;
    steps.run("every operation, by schemathesis", || {
        let mut operations = python.script(workspace, "operations.py");
        // It keeps notes where it runs.
        operations.current_dir(&folder).arg(&data).args([&exchange.data, &exchange.public]);
        tools::run(operations.arg(workspace.root.join("schemas/openapi.json")))
    })?;
    drop(exchange);
    steps.run("the log after a restart and over several segments, by Go's sumdb", || {
        let exchange = restarted(workspace, &data)?;
        log(workspace, &exchange, &data, &out, &vkey, entries)
    })?;
    foreign::witness(steps, workspace, &data, &out)?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// The quickstart twice more on its folder, with segments so small that the two rounds fill more than one.
fn restarted(workspace: &Workspace, data: &Path) -> anyhow::Result<Exchange> {
    // Those with a header: the one prepared ahead has none yet.
    let begun = || -> anyhow::Result<usize> {
        let mut count = 0;
        for entry in std::fs::read_dir(data.join("journal"))? {
            let path = entry?.path();
            let mut head = [0; 4];
            let is_segment = path.extension().is_some_and(|have| have == "mxj");
            if is_segment && File::open(path)?.read(&mut head)? == head.len() && head == *b"MXS1" {
                count += 1;
            }
        }
        Ok(count)
    };
    let path = data.join("config.toml");
    let text = std::fs::read_to_string(&path)?;
    let small = text.replace("\nsegment_mib = 64\n", "\nsegment_mib = 4\n");
    ensure!(small != text, "config.toml has no segment size to change");
    std::fs::write(&path, small)?;
    let before = begun()?;
    drop(Exchange::start(workspace, data)?);
    let exchange = Exchange::start(workspace, data)?;
    let after = begun()?;
    // The one that the first start begins, and another.
    ensure!(after >= before + 2, "the rounds stayed in one segment: {before} before, {after} after");
    Ok(exchange)
}

/// An exchange that serves; killed when dropped.
pub(crate) struct Exchange {
    child: Child,
    /// Address of the data listener.
    data: String,
    /// Address of the public listener.
    pub(crate) public: String,
}

impl Exchange {
    /// Serves a folder on free ports.
    pub(crate) fn serve(workspace: &Workspace, data: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(workspace.built("exchange"))
            .args(["serve", "--development", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("exchange serve")?;
        let output = child.stdout.take().context("its output is piped")?;
        let mut exchange = Self { child, data: String::new(), public: String::new() };
        let line = BufReader::new(output).lines().next().context("exchange serve said nothing")??;
        let address = |name: &str| line.split_whitespace().skip_while(|word| *word != name).nth(1);
        exchange.data = address("data").context("no data listener")?.to_owned();
        exchange.public = address("public").context("no public listener")?.to_owned();
        Ok(exchange)
    }

    /// Starts a quickstart on free ports and waits until its round is complete.
    pub(crate) fn start(workspace: &Workspace, data: &Path) -> anyhow::Result<Self> {
        let log = File::create(data.with_extension("log"))?;
        let child = Command::new(workspace.built("exchange"))
            .args(["quickstart", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("exchange quickstart")?;
        let mut exchange = Self { child, data: String::new(), public: String::new() };
        let output = exchange.child.stdout.take().context("its output is piped")?;
        for line in BufReader::new(output).lines() {
            let line = line?;
            println!("{line}");
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["serving", "data", data, "public", public, ..] => {
                    exchange.data = (*data).to_owned();
                    exchange.public = (*public).to_owned();
                }
                ["quickstart", "ok", counts @ ..] => {
                    check_counts(counts)?;
                    ensure!(!exchange.public.is_empty(), "quickstart did not say where it serves");
                    return Ok(exchange);
                }
                _ => {}
            }
        }
        let said = std::fs::read_to_string(data.with_extension("log")).unwrap_or_default();
        bail!("quickstart ended early: {}: {}", exchange.child.wait()?, said.trim_end())
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last line's counts: each above zero, at least a thousand licenses, a receipt for every answer.
fn check_counts(counts: &[&str]) -> anyhow::Result<()> {
    let count = |name: &str| -> anyhow::Result<u64> {
        let text = counts.iter().find_map(|count| count.strip_prefix(name)?.strip_prefix('='));
        text.with_context(|| format!("quickstart's last line has no {name}"))?.parse().context("a number")
    };
    let [issued, retrieved, verified, refused] =
        [count("issued")?, count("retrieved")?, count("verified")?, count("refused")?];
    ensure!(issued >= LEAST_ISSUED, "quickstart issued {issued} licenses");
    ensure!(retrieved > 0 && verified > 0 && refused > 0, "quickstart did not make the whole round");
    let (receipts, size) = (count("receipts")?, count("log_size")?);
    ensure!(receipts >= issued + retrieved + verified + refused, "answers without receipts: {receipts}");
    ensure!(size >= receipts, "receipts without entries: {receipts} and {size}");
    Ok(())
}

fn log(
    workspace: &Workspace,
    exchange: &Exchange,
    data: &Path,
    out: &Path,
    vkey: &str,
    entries: u32,
) -> anyhow::Result<()> {
    let program = workspace.target.join("xtask-log-check");
    let source = workspace.root.join("tests/independent/log_check");
    let cache = workspace.target.join("xtask-go-cache");
    let mut build = Command::new("go");
    build.env("GO111MODULE", "off").env("GOFLAGS", "").env("GOPATH", GOPATH).env("GOCACHE", cache);
    tools::run(build.current_dir(source).arg("build").arg("-o").arg(&program).arg("main.go"))?;
    let check = || {
        let mut check = Command::new(&program);
        check.args(["-url", &format!("https://{}", exchange.public), "-vkey", vkey, "-ca"]);
        check.arg(data.join("pki/ca.pem")).arg("-before").arg(out.join("before.checkpoint"));
        check.args(["-entries", &entries.to_string()]);
        check
    };
    tools::run(&mut check())?;
    tools::must_fail(check().arg("-flip"), 1, "is not included")
}

fn receipts(workspace: &Workspace, python: &Python, out: &Path, vkey: &str) -> anyhow::Result<()> {
    let open = |request: &Path, answer: &Path| {
        let mut open = python.script(workspace, "open_receipt.py");
        open.arg(request).arg(answer).arg(vkey);
        open
    };
    let answers = with_extension(&out.join("exchanged"), "answer")?;
    // A few permits of the concurrent start, and everything of the round behind it.
    let (few, round) = answers.split_at(answers.len().saturating_sub(ROUND));
    for answer in few.iter().step_by(EVERY).chain(round) {
        tools::run(&mut open(&answer.with_extension("request"), answer))?;
    }
    // Request and receipt of one exchange beside the answer of another; then all but the request of one.
    let request = out.join("exchanged/1.request");
    let refused = |answer: &str, saying| tools::must_fail(&mut open(&request, &out.join(answer)), 1, saying);
    refused("control/crossed.answer", "is of another answer")?;
    refused("exchanged/0.answer", "is of another request")
}

/// Runs the walkthrough that a quickstart leaves, as it stands, and compares what it shows with what it says to expect. It
/// ends with a trace that is whole.
fn walkthrough(data: &Path) -> anyhow::Result<()> {
    let samples = data.join("samples");
    let script = samples.join("walkthrough.sh");
    let output = Command::new("sh").arg(script).arg("--masked").output().context("sh")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let expected = std::fs::read_to_string(samples.join("walkthrough.expected"))?;
    ensure!(output.status.success() && said == expected, "{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The files of a folder with an extension, in the order of the numbers that they are named by.
fn with_extension(folder: &Path, extension: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|have| have == extension) {
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            found.push((number.with_context(|| path.display().to_string())?, path));
        }
    }
    ensure!(!found.is_empty(), "no .{extension} in {}", folder.display());
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}
