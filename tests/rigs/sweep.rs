//! Every system call that writes, once with each fault.
//!
//! A program's calls on files below its data folder are recorded with strace. Then it runs once for each of them and
//! each fault, and strace lets that call fail with EIO or ENOSPC, or kills the program on its way into it. Afterwards
//! the folder is opened without faults: it opens, everything acknowledged is there and verifies, and the log goes on.
//!
//! Where a file's name has the process id in it, the recorded path has [`PID`] instead, and the run's own id is put
//! there: strace watches from a process of its own (`-D`), so that a shell knows the program's id before it begins.
//!
//! Counting is per path and thread, so that a call is the same one in every run, whatever other threads do meanwhile.
//! The restart image (`store/`) is left out: its engine writes when it likes, and it is derived; damage to it has tests
//! of its own.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use tempfile::TempDir;
use tests::{draft, natural};
use tokio::task::JoinSet;

use crate::commit_writer;
use crate::story::setup;
use crate::{Lacking, caught, must, rotation};

/// Calls that change files, or make that durable.
const CALLS: &str = "openat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,write,pwrite64,pwritev,fsync,\
                     fdatasync,sync_file_range,ftruncate,fallocate";
/// What of the data folder is swept.
const SWEPT: [&str; 4] = ["journal", "tiles", "snapshots", "keys"];
/// Stands for the process id in a recorded path.
const PID: &str = "PID";
/// Licenses of the folder that every run begins with.
const LICENSES: usize = 3;
/// Runs at once.
const AT_ONCE: usize = 2;
/// A call that another run made, and this one did not, is tried again so often.
const ATTEMPTS: usize = 3;
/// Exit status of a program whose journal cannot go on.
const EXIT_IO: i32 = 74;
/// Exit status of a program that says an error.
const EXIT_ERROR: i32 = 1;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Eio,
    Enospc,
    Kill,
}

impl Fault {
    const ALL: [Self; 3] = [Self::Eio, Self::Enospc, Self::Kill];

    fn injected(self) -> &'static str {
        match self {
            Self::Eio => "error=EIO",
            Self::Enospc => "error=ENOSPC",
            Self::Kill => "signal=KILL",
        }
    }
}

/// One call of the program: its name, the file below the data folder, and which of those in its thread.
#[derive(Clone, Debug)]
struct Call {
    name: String,
    path: PathBuf,
    nth: usize,
}

/// A program that is swept. It is a subcommand of this binary, called with a data folder and the number of the run; it
/// tells what is durable as [`commit_writer::acknowledged`] reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    word: &'static str,
    /// Entries that it tells of when nothing fails.
    entries: usize,
}

/// Some commits, through the end of a segment.
pub(crate) const COMMIT: Program = Program { word: "commit-writer", entries: commit_writer::ENTRIES };

/// The same with a change of epoch in the midst of them.
pub(crate) const ROTATION: Program = Program { word: "rotation-writer", entries: commit_writer::ENTRIES };

/// Where runs happen: a folder of its own for each, below one temporary folder.
struct Bench {
    program: Program,
    temporary: TempDir,
    /// The folder that every run begins with.
    base: PathBuf,
}

/// How one run ended.
struct Ended {
    status: ExitStatus,
    /// strace's lines.
    trace: String,
    /// The program's process id.
    pid: u32,
    /// What the program told.
    told: String,
}

impl Bench {
    /// A data folder with some licenses, whose last start was cut down: with a frame nobody was answered from behind its
    /// last seal.
    async fn new(program: Program) -> anyhow::Result<Self> {
        let temporary = TempDir::new()?;
        let base = temporary.path().join("base");
        let mut server = setup().at(&base).start().await;
        let mut issuer = server.party("issuer");
        let mut licenses = Vec::new();
        for _ in 0..LICENSES {
            licenses.push(draft(&natural()).issue(&mut issuer).await.identifier);
        }
        let gone = rotation::erased(&server).await?;
        anyhow::ensure!(server.stop() == Some(0), "the exchange does not stop well: {}", server.stderr());
        fs::write(base.join(commit_writer::LICENSES), licenses.join("\n"))?;
        fs::write(base.join(commit_writer::ERASED), &gone.identifier)?;
        let status = command(COMMIT, &base, 0)
            .env("MIAOXIANG_FAILPOINT", "after-sync-abort:3")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        anyhow::ensure!(status.signal().is_some(), "the base was not cut down: {status}");
        Ok(Self { program, temporary, base })
    }

    /// A fresh copy of the base.
    fn copy(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.temporary.path().join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let status = Command::new("cp").arg("-r").arg(&self.base).arg(&folder).status()?;
        anyhow::ensure!(status.success(), "cp: {status}");
        Ok(folder)
    }

    /// Runs the program on a fresh copy under strace.
    fn run(
        &self,
        name: &str,
        inject: Option<(&Call, Fault)>,
        failpoint: Option<&str>,
    ) -> anyhow::Result<(PathBuf, Ended)> {
        let folder = self.copy(name)?;
        let [trace, told] = ["trace", "told"].map(|end| self.temporary.path().join(format!("{name}.{end}")));
        let path = inject.map(|(call, _)| folder.join(&call.path)).unwrap_or_default();
        let mut strace = Command::new("sh");
        strace.args(["-c", &in_shell(&path, inject.is_some()), "sh"]);
        strace.args(["-D", "-f", "-qq", "-y", "-s", "0", "-e", &format!("trace={CALLS}"), "-o"]).arg(&trace);
        if let Some((call, fault)) = inject {
            // So that the trace tells what was acknowledged after the fault; a fault of `write` would hit it too.
            if call.name != "write" {
                strace.arg("-P").arg(&told);
            }
            strace.arg("-e").arg(format!("inject={}:{}:when={}", call.name, fault.injected(), call.nth));
        }
        let program = command(self.program, &folder, 1);
        strace.arg(program.get_program()).args(program.get_args());
        strace.stdin(Stdio::null()).stdout(File::create(&told)?).stderr(Stdio::piped());
        if let Some(failpoint) = failpoint {
            strace.env("MIAOXIANG_FAILPOINT", failpoint);
        }
        let child = strace.spawn().context("strace")?;
        let pid = child.id();
        // Ends when strace has closed its end too, and then the trace is whole.
        let status = child.wait_with_output()?.status;
        let trace = String::from_utf8_lossy(&fs::read(&trace)?).into_owned();
        let ended = Ended { status, trace, pid, told: fs::read_to_string(&told)? };
        Ok((folder, ended))
    }
}

/// A shell's words that become strace with the arguments behind them; it watches this path alone if it is wanted.
fn in_shell(path: &Path, wanted: bool) -> String {
    // Temporary folders and our files have no quotes in their names.
    let path = path.display().to_string().replace(&format!(".{PID}."), ".'$$'.");
    if wanted { format!("exec strace -P '{path}' \"$@\"") } else { "exec strace \"$@\"".to_owned() }
}

fn command(program: Program, folder: &Path, run: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(program.word).arg(folder).arg(run.to_string());
    command
}

/// Sweeps, then the control.
pub(crate) async fn run(program: Program) -> anyhow::Result<()> {
    for program in ["strace", "cp"] {
        if !crate::program(program) {
            return Err(Lacking(format!("no {program}")).into());
        }
    }
    let bench = Bench::new(program).await?;
    let (folder, recorded) = bench.run("recorded", None, None)?;
    if !recorded.status.success() {
        return Err(Lacking(format!("strace cannot trace here ({})", recorded.status)).into());
    }
    let calls = calls(&recorded, &folder);
    anyhow::ensure!(!calls.is_empty(), "nothing was recorded");
    let cases: Vec<(Call, Fault)> =
        calls.iter().flat_map(|call| Fault::ALL.map(|fault| (call.clone(), fault))).collect();
    let (bench, cases, next) = (Arc::new(bench), Arc::new(cases), Arc::new(AtomicUsize::new(0)));
    let mut workers = JoinSet::new();
    for worker in 0..AT_ONCE {
        workers.spawn(work(
            format!("run-{worker}"),
            Arc::clone(&bench),
            Arc::clone(&cases),
            Arc::clone(&next),
        ));
    }
    let mut missed = 0;
    while let Some(worker) = workers.join_next().await {
        missed += worker??;
    }
    let optional = cases.iter().filter(|(call, _)| is_optional(call)).count();
    anyhow::ensure!(
        missed * 20 <= optional,
        "{missed} of {optional} calls that may be missing were not reached"
    );
    caught("a failed sync is ignored", control(&bench, &calls).await)?;
    if program == ROTATION {
        caught("the old key is destroyed before the new file is durable", rotation_control(&bench).await)?;
    }
    println!("{}", summary(&calls, cases.len() - missed, missed));
    Ok(())
}

/// Takes case after case; how many were not reached. The first that fails ends it.
async fn work(
    name: String,
    bench: Arc<Bench>,
    cases: Arc<Vec<(Call, Fault)>>,
    next: Arc<AtomicUsize>,
) -> anyhow::Result<usize> {
    let mut missed = 0;
    while let Some((call, fault)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
        let reached = sweep_one(&bench, &name, call, *fault, None)
            .await
            .with_context(|| format!("{fault:?} at {} {} of {}", call.name, call.nth, call.path.display()))?;
        if !reached {
            let what = || format!("{fault:?} at {} {} of {}", call.name, call.nth, call.path.display());
            anyhow::ensure!(is_optional(call), "not reached: {}", what());
            println!("not reached: {} {} of {}", call.name, call.nth, call.path.display());
            missed += 1;
        }
    }
    Ok(missed)
}

/// The program acknowledges although the sync failed.
async fn control(bench: &Bench, calls: &[Call]) -> anyhow::Result<()> {
    for call in calls.iter().filter(|call| call.name == "fdatasync" && is_segment(&call.path)) {
        sweep_one(bench, "control", call, Fault::Eio, Some("ignore-write-error")).await?;
    }
    Ok(())
}

/// The program destroys the old epoch's key without the new file, and is killed while it clears the next key away.
async fn rotation_control(bench: &Bench) -> anyhow::Result<()> {
    // The first makes the next key durable, the second that its name is gone.
    let clearing = Call { name: "fsync".to_owned(), path: "keys".into(), nth: 2 };
    let reached = sweep_one(bench, "control", &clearing, Fault::Kill, Some(rotation::UNREPLACED)).await?;
    anyhow::ensure!(reached, "the control's kill was not reached");
    Ok(())
}

/// One run with one fault. Whether the call was reached.
async fn sweep_one(
    bench: &Bench,
    name: &str,
    call: &Call,
    fault: Fault,
    failpoint: Option<&str>,
) -> anyhow::Result<bool> {
    for _ in 0..ATTEMPTS {
        let (folder, ended) = bench.run(name, Some((call, fault)), failpoint)?;
        let killed = ended.status.signal() == Some(9);
        let injected = ended.trace.lines().position(|line| line.contains("(INJECTED)"));
        let acknowledged = commit_writer::acknowledged(&ended.told);
        let ends_well = match ended.status.code() {
            Some(0) => acknowledged.len() == bench.program.entries,
            Some(code) => fault != Fault::Kill && (code == EXIT_IO || code == EXIT_ERROR),
            None => fault == Fault::Kill && killed,
        };
        must(ends_well, || format!("it ends with {} after {} entries", ended.status, acknowledged.len()))?;
        if let Some(at) = injected.filter(|_| is_segment(&call.path) && is_commit(&call.name)) {
            let later = ended.trace.lines().skip(at).any(|line| line.contains(" write("));
            must(!later, || "an entry is acknowledged after its write or sync failed".to_owned())?;
        }
        commit_writer::check(&folder, &acknowledged, 2).await?;
        if killed || injected.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a run may do without the call. How many frames a segment has, and how far the keeper and the followers come
/// before the program ends, is another matter in every run. What is done with keys is not.
fn is_optional(call: &Call) -> bool {
    !call.path.starts_with("keys")
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "mxj")
}

/// Whether answers wait for this call on a segment.
fn is_commit(name: &str) -> bool {
    matches!(name, "pwrite64" | "fdatasync" | "fsync")
}

/// The calls on what is swept below `folder`, each as often as the thread that makes it most often.
fn calls(recorded: &Ended, folder: &Path) -> Vec<Call> {
    let pid = format!(".{}.", recorded.pid);
    let prefix = format!("{}/", folder.display());
    let mut counts: BTreeMap<(String, PathBuf), HashMap<&str, usize>> = BTreeMap::new();
    for line in recorded.trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((name, arguments)) = rest.trim_start().split_once('(') else { continue };
        let Some((_, path)) = arguments.split_once(&prefix) else { continue };
        let path = path.split(['>', '"']).next().unwrap_or_default();
        let path = PathBuf::from(path.replace(&pid, &format!(".{PID}.")));
        let is_call =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_call && SWEPT.iter().any(|swept| path.starts_with(swept)) {
            *counts.entry((name.to_owned(), path)).or_default().entry(thread).or_default() += 1;
        }
    }
    let most = |counts: &HashMap<&str, usize>| counts.values().copied().max().unwrap_or_default();
    counts
        .iter()
        .flat_map(|((name, path), counts)| {
            (1..=most(counts)).map(|nth| Call { name: name.clone(), path: path.clone(), nth })
        })
        .collect()
}

fn summary(calls: &[Call], runs: usize, missed: usize) -> String {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for call in calls {
        *names.entry(&call.name).or_default() += 1;
    }
    let names: Vec<String> = names.iter().map(|(name, count)| format!("{count} {name}")).collect();
    format!(
        "{} calls ({}), {runs} runs with one fault each, {missed} not reached: everything acknowledged was found",
        calls.len(),
        names.join(", "),
    )
}
