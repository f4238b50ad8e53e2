//! Checks of the source tree itself, and the one command that writes into it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use crate::Workspace;
use crate::tools::{self, Python};

/// Where the definitions and the code made from them lie.
const DEFINITIONS: &str = "schemas/fbs";
const GENERATED: &str = "schemas/src/generated";
/// Folders without source of ours.
const NO_SOURCE: [&str; 3] = [".git", "target", "generated"];
/// What stands for work that is not done; put together here so that this file does not hold it.
const STUBS: [&str; 3] = [concat!("to", "do!("), concat!("unim", "plemented!("), concat!("#[ig", "nore")];
/// Crates that bring a second cryptography or TLS.
const BANNED: [&str; 4] = ["aws-lc-rs", "aws-lc-sys", "openssl-sys", "native-tls"];

/// Makes the generated code anew in its place.
pub(crate) fn generate(workspace: &Workspace, python: &Python) -> anyhow::Result<()> {
    let folder = workspace.root.join(GENERATED);
    flatc(workspace, python, &folder)?;
    println!("made {GENERATED}");
    Ok(())
}

fn flatc(workspace: &Workspace, python: &Python, output: &Path) -> anyhow::Result<()> {
    let definitions: Vec<PathBuf> =
        files(&workspace.root.join(DEFINITIONS))?.into_keys().map(PathBuf::from).collect();
    ensure!(!definitions.is_empty(), "{DEFINITIONS} is empty");
    let folder = workspace.root.join(DEFINITIONS);
    tools::run(python.flatc().current_dir(folder).args(["--rust", "-o"]).arg(output).args(&definitions))
}

/// Making the generated code again changes nothing.
pub(crate) fn generated_code(workspace: &Workspace, python: &Python) -> anyhow::Result<()> {
    let again = workspace.target.join("xtask-generated");
    if again.exists() {
        std::fs::remove_dir_all(&again)?;
    }
    std::fs::create_dir_all(&again)?;
    flatc(workspace, python, &again)?;
    let (have, made) = (files(&workspace.root.join(GENERATED))?, files(&again)?);
    for name in have.keys().chain(made.keys()) {
        if have.get(name) != made.get(name) {
            bail!(
                "{GENERATED}/{} is not what flatc makes; run `cargo xtask generate`",
                name.to_string_lossy()
            );
        }
    }
    println!("{} files are as flatc makes them", made.len());
    Ok(())
}

/// Name and content of the files of a folder.
fn files(folder: &Path) -> anyhow::Result<BTreeMap<OsString, Vec<u8>>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    entries
        .map(|entry| {
            entry.and_then(|entry| Ok((entry.file_name(), std::fs::read(entry.path())?))).map_err(Into::into)
        })
        .collect()
}

/// No stub and no ignored test stands in the source.
pub(crate) fn no_stubs(workspace: &Workspace) -> anyhow::Result<()> {
    let mut folders = vec![workspace.root.clone()];
    let mut read = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default();
            if path.is_dir() {
                if !NO_SOURCE.iter().any(|no_source| name == *no_source) && path != workspace.target {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                read += 1;
                for (number, line) in text.lines().enumerate() {
                    if let Some(stub) = STUBS.iter().find(|stub| line.contains(**stub)) {
                        let path = path.strip_prefix(&workspace.root).unwrap_or(&path);
                        bail!("{}:{}: {stub}", path.display(), number + 1);
                    }
                }
            }
        }
    }
    println!("{read} files");
    Ok(())
}

/// The README's first command, `cargo run -p exchange`, names none of the package's programs.
pub(crate) fn first_command(workspace: &Workspace) -> anyhow::Result<()> {
    let told = workspace.cargo(&["metadata", "--no-deps", "--locked", "--format-version", "1"]).output()?;
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).context("cargo metadata")?;
    let packages = told["packages"].as_array().context("no packages")?;
    let package = packages.iter().find(|package| package["name"] == "exchange").context("no exchange")?;
    ensure!(
        package["default_run"] == "exchange",
        "`cargo run -p exchange` does not know which program to run"
    );
    Ok(())
}

/// No pre-release and no banned crate is locked.
pub(crate) fn locked_dependencies(workspace: &Workspace) -> anyhow::Result<()> {
    let path = workspace.root.join("Cargo.lock");
    let locked = std::fs::read_to_string(&path).context("Cargo.lock")?;
    let mut crates = 0;
    for entry in locked.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let line = entry.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
            line.map(|text| text.trim_matches('"'))
                .with_context(|| format!("a crate without {key} in Cargo.lock"))
        };
        let (name, version) = (value("name")?, value("version")?);
        ensure!(!BANNED.contains(&name), "{name} is locked; the only cryptography here is ring's");
        // Build metadata behind `+` may hold a `-`, a release in front of it may not.
        let release = version.split('+').next().unwrap_or_default();
        ensure!(!release.contains('-'), "{name} {version} is a pre-release");
        crates += 1;
    }
    println!("{crates} crates");
    Ok(())
}
