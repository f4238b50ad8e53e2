//! Programs that are not ours: running them, and installing those that are missing.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::Workspace;
use crate::steps::Ran;

/// A Debian package, and what shows that it is there.
type Package = (&'static str, Shown);

/// Debian packages that the checks need.
const PACKAGES: [Package; 6] = [
    ("curl", Shown::Program("curl")),
    ("golang-go", Shown::Program("go")),
    ("golang-golang-x-mod-dev", Shown::File("/usr/share/gocode/src/golang.org/x/mod/sumdb/tlog/tlog.go")),
    ("nodejs", Shown::Program("node")),
    ("npm", Shown::Program("npm")),
    ("openssl", Shown::Program("openssl")),
];
/// Debian packages that only the rigs need. A rig says itself what it lacks.
const RIG_PACKAGES: [Package; 8] = [
    ("e2fsprogs", Shown::File("/usr/sbin/mkfs.ext4")),
    ("eatmydata", Shown::Program("eatmydata")),
    ("fuse3", Shown::Program("fusermount3")),
    ("libnbd-bin", Shown::Program("nbdfuse")),
    ("mount", Shown::File("/usr/sbin/losetup")),
    ("nbdkit", Shown::Program("nbdkit")),
    ("strace", Shown::Program("strace")),
    ("xfsprogs", Shown::File("/usr/sbin/mkfs.xfs")),
];
/// What counts instructions.
const VALGRIND: [Package; 1] = [("valgrind", Shown::Program("valgrind"))];
/// Without it `python3 -m venv` makes no environment on Debian.
const VENV_PACKAGES: [&str; 2] = ["python3", "python3-venv"];
/// The virtual environment's folder in the target folder.
const VENV: &str = "xtask-venv";

/// The folder of the Node programs in the target folder, and what is put there.
const NODE: &str = "xtask-node";
const NODE_FILES: [&str; 3] = ["package.json", "package-lock.json", "sign.mjs"];

/// What shows that a package is installed.
enum Shown {
    Program(&'static str),
    File(&'static str),
}

impl Shown {
    fn is_there(&self) -> bool {
        match self {
            Self::Program(name) => program(name),
            Self::File(path) => Path::new(path).exists(),
        }
    }
}

/// Whether a program is on the path.
fn program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// Runs a command; an error if it cannot be started or does not end well.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| shown(command))?;
    if !status.success() {
        bail!("{}: {status}", shown(command));
    }
    Ok(())
}

/// Runs a control: a command that must end with this code and say this on standard error.
pub(crate) fn must_fail(command: &mut Command, code: i32, saying: &str) -> anyhow::Result<()> {
    let output = command.stdout(Stdio::null()).output().with_context(|| shown(command))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() != Some(code) || !said.contains(saying) {
        bail!(
            "the control should end with {code} saying {saying:?}, but ended with {}: {said}",
            output.status
        );
    }
    println!("control refused: {}", said.lines().last().unwrap_or_default());
    Ok(())
}

/// Exit status of a rig that the machine cannot run; its last line says why.
const RIG_SKIPPED: i32 = 77;

/// Runs a rig; see `tests/rigs/main.rs`.
pub(crate) fn rig(command: &mut Command) -> anyhow::Result<Ran> {
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| shown(command))?;
    let mut last = String::new();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            last = line?;
            println!("{last}");
        }
    }
    let status = child.wait()?;
    match status.code() {
        Some(0) => Ok(Ran::Passed),
        Some(RIG_SKIPPED) => Ok(Ran::Lacking(last)),
        _ => bail!("{}: {status}", shown(command)),
    }
}

/// The program's name and its first arguments, for errors.
fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let arguments = command.get_args().take(3).map(|argument| {
        let path = Path::new(argument);
        path.file_name().filter(|_| path.is_absolute()).unwrap_or(argument).to_string_lossy().into_owned()
    });
    [name.to_string_lossy().into_owned()].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Installs the Debian packages that are missing. Where those of the rigs cannot be had, the rigs that need them are
/// skipped later, each with its reason, and fail in CI.
pub(crate) fn install_packages() -> anyhow::Result<()> {
    apt_install(&missing(&PACKAGES))?;
    if let Err(error) = apt_install(&missing(&RIG_PACKAGES)) {
        println!("some rigs cannot run here: {error:#}");
    }
    Ok(())
}

/// Installs valgrind if it is missing.
pub(crate) fn install_valgrind() -> anyhow::Result<()> {
    apt_install(&missing(&VALGRIND))
}

fn missing(packages: &[Package]) -> Vec<&'static str> {
    packages.iter().filter(|(_, shown)| !shown.is_there()).map(|(name, _)| *name).collect()
}

fn apt_install(packages: &[&str]) -> anyhow::Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    println!("installing with apt-get: {}", packages.join(" "));
    if !program("apt-get") {
        bail!("there is no apt-get; install these by hand: {}", packages.join(" "));
    }
    run(&mut apt_get(&["update"]))?;
    run(apt_get(&["install", "--yes", "--no-install-recommends"]).args(packages))
}

/// `apt-get`, through `sudo` for those who are not root.
fn apt_get(arguments: &[&str]) -> Command {
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    let mut command = if root {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    } else {
        let mut command = Command::new("sudo");
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        command
    };
    command.arg("--quiet").args(arguments);
    command
}

/// The virtual environment with the packages that the checks use.
pub(crate) struct Python {
    bin: PathBuf,
}

impl Python {
    /// Makes the environment, or takes the one that is there with the same requirements.
    pub(crate) fn ready(workspace: &Workspace) -> anyhow::Result<Self> {
        let folder = workspace.target.join(VENV);
        let python = Self { bin: folder.join("bin") };
        let requirements = workspace.root.join("tests/independent/requirements.txt");
        let wanted = std::fs::read(&requirements).with_context(|| requirements.display().to_string())?;
        // Written last, so an environment that was cut off is made anew.
        let stamp = folder.join("requirements.txt");
        if std::fs::read(&stamp).is_ok_and(|have| have == wanted) {
            return Ok(python);
        }
        println!("making a Python environment in the target folder from tests/independent/requirements.txt");
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        let make = || run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        if !program("python3") || make().is_err() {
            apt_install(&VENV_PACKAGES)?;
            make()?;
        }
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
        run(Command::new(python.bin.join("python3")).args(pip).arg(&requirements))?;
        std::fs::write(&stamp, wanted)?;
        Ok(python)
    }

    /// One of the scripts in tests/independent; no byte code is left beside them.
    pub(crate) fn script(&self, workspace: &Workspace, name: &str) -> Command {
        let mut command = Command::new(self.bin.join("python3"));
        command.arg("-B").arg(workspace.root.join("tests/independent").join(name));
        command
    }

    /// The pinned flatc.
    pub(crate) fn flatc(&self) -> Command {
        Command::new(self.bin.join("flatc"))
    }
}

/// Puts the Node programs of `tests/independent/node` into the target folder with what they need, unless it is there; the folder.
pub(crate) fn node(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let (from, folder) = (workspace.root.join("tests/independent/node"), workspace.target.join(NODE));
    std::fs::create_dir_all(&folder)?;
    for name in NODE_FILES {
        std::fs::copy(from.join(name), folder.join(name)).with_context(|| name.to_owned())?;
    }
    let wanted = std::fs::read(from.join(NODE_FILES[1]))?;
    // Written last, so an installation that was cut off is made anew.
    let stamp = folder.join("installed");
    if std::fs::read(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(folder);
    }
    let npm = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    run(Command::new("npm").current_dir(&folder).args(npm))?;
    std::fs::write(&stamp, wanted)?;
    Ok(folder)
}
