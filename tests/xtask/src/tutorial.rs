//! `cargo xtask tutorial`: "How to add a capability" as exchange/README.md prints it, taken word for word in a copy of the tree.
//!
//! Each block of the tutorial follows a line that says its file and place. A block that says none holds commands.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};

use crate::{Workspace, tools};

/// The page, and the heading of the tutorial.
const PAGE: &str = "exchange/README.md";
const HEADING: &str = "## How to add a capability";

/// Where a block goes.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    NewFile,
    Above(&'a str),
    Below(&'a str),
}

/// A step of the tutorial.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    Write { file: &'a str, place: Place<'a>, text: String },
    Run(&'a str),
}

/// The file and the place that a line says: ``In `FILE`, above `LINE`:``, or below, or ``In the new file `FILE`:``.
fn place(line: &str) -> Option<(&str, Place<'_>)> {
    if let Some(file) = line.strip_prefix("In the new file `") {
        return Some((file.strip_suffix("`:")?, Place::NewFile));
    }
    let (file, rest) = line.strip_prefix("In `")?.split_once("`, ")?;
    let (side, anchor) = rest.strip_suffix("`:")?.split_once(" `")?;
    match side {
        "above" => Some((file, Place::Above(anchor))),
        "below" => Some((file, Place::Below(anchor))),
        _ => None,
    }
}

/// The steps of the tutorial in their order.
fn steps(page: &str) -> anyhow::Result<Vec<Step<'_>>> {
    let (_, tutorial) = page.split_once(&format!("\n{HEADING}\n")).context("the page has no tutorial")?;
    let tutorial = tutorial.split("\n## ").next().unwrap_or_default();
    let mut steps = Vec::new();
    let mut lines = tutorial.lines();
    let mut said = None;
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            if !line.is_empty() {
                said = place(line);
            }
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        match said.take() {
            Some((file, place)) => steps.push(Step::Write { file, place, text: block.join("\n") + "\n" }),
            None if language == "sh" => steps.extend(block.into_iter().map(Step::Run)),
            None => bail!("{PAGE}: the block that begins with {:?} says no place", block.first()),
        }
    }
    Ok(steps)
}

/// The text of a file with a block in its place; the line beside it is there once.
fn inserted(text: &str, place: &Place<'_>, block: &str) -> anyhow::Result<String> {
    let (anchor, below) = match place {
        Place::NewFile => bail!("it is there already"),
        Place::Above(anchor) => (*anchor, false),
        Place::Below(anchor) => (*anchor, true),
    };
    let mut made = String::new();
    let mut found = 0;
    for line in text.split_inclusive('\n') {
        let here = line.trim() == anchor;
        found += usize::from(here);
        let parts = if below { [line, block] } else { [block, line] };
        if here { parts.iter().for_each(|part| made.push_str(part)) } else { made.push_str(line) }
    }
    ensure!(found == 1, "the line {anchor:?} is there {found} times");
    Ok(made)
}

fn write(root: &Path, file: &str, place: &Place<'_>, block: &str) -> anyhow::Result<()> {
    let path = root.join(file);
    let text = match place {
        Place::NewFile if !path.exists() => block.to_owned(),
        place => inserted(&fs::read_to_string(&path)?, place, block)?,
    };
    Ok(fs::write(&path, text)?)
}

/// Copies the files of the tree as they are on disk, less those that git ignores.
fn copy(workspace: &Workspace, to: &Path) -> anyhow::Result<()> {
    let output = workspace
        .command("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("git ls-files")?;
    ensure!(output.status.success(), "git ls-files: {}", output.status);
    let mut copied = 0;
    for name in String::from_utf8(output.stdout)?.split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (workspace.root.join(name), to.join(name));
        if !from.exists() {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(&from, &to).with_context(|| name.to_owned())?;
        copied += 1;
    }
    ensure!(copied > 0, "git lists no file");
    Ok(())
}

/// Takes every step in a copy of the tree, with a target folder of its own, which stays. In a shared one cargo would take what the copy
/// made for what this tree makes: both have the same names, and the copy is the newer one.
pub(crate) fn follow(workspace: &Workspace) -> anyhow::Result<()> {
    let root = workspace.target.join("tutorial");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    copy(workspace, &root)?;
    let page = fs::read_to_string(root.join(PAGE))?;
    let steps = steps(&page)?;
    let (mut written, mut run) = (0, 0);
    let target = workspace.target.join("tutorial-target");
    let copy = Workspace { root, target, cargo: workspace.cargo.clone() };
    for step in &steps {
        match step {
            Step::Write { file, place, text } => {
                println!("== {file}");
                write(&copy.root, file, place, text).with_context(|| format!("{PAGE}: {file}"))?;
                written += 1;
            }
            Step::Run(line) => {
                println!("== {line}");
                tools::run(copy.command("sh").args(["-c", line])).with_context(|| (*line).to_owned())?;
                run += 1;
            }
        }
    }
    ensure!(written > 0 && run > 0, "the tutorial has {written} files and {run} commands");
    println!("the tutorial holds: {written} files, {run} commands");
    Ok(fs::remove_dir_all(&copy.root)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const TUTORIAL: &str = "# page\n\n## How to add a capability\n\nWords.\n\nIn the new file `a.rs`:\n\n```rust\nfn a() {}\n```\n\n\
        In `b.rs`, below `one`:\n\n```rust\n  two\n```\n\n```sh\ncargo a\ncargo b\n```\n\n## Next\n\n```text\nnot this\n```\n";

    #[test]
    fn the_steps_are_the_blocks_with_their_places() {
        assert_eq!(
            steps(TUTORIAL).unwrap(),
            [
                Step::Write { file: "a.rs", place: Place::NewFile, text: "fn a() {}\n".to_owned() },
                Step::Write { file: "b.rs", place: Place::Below("one"), text: "  two\n".to_owned() },
                Step::Run("cargo a"),
                Step::Run("cargo b"),
            ]
        );
        assert!(steps("# page\n").is_err());
        let nowhere = TUTORIAL.replace("In the new file `a.rs`:", "Somewhere:");
        assert!(steps(&nowhere).is_err(), "a block without a place");
    }

    #[test]
    fn a_block_goes_beside_the_one_line() {
        let file = "one\n  two\nthree\n";
        assert_eq!(inserted(file, &Place::Above("two"), "new\n").unwrap(), "one\nnew\n  two\nthree\n");
        assert_eq!(inserted(file, &Place::Below("two"), "new\n").unwrap(), "one\n  two\nnew\nthree\n");
        for (text, place) in
            [(file, Place::Above("four")), ("one\none\n", Place::Below("one")), (file, Place::NewFile)]
        {
            assert!(inserted(text, &place, "new\n").is_err(), "{place:?}");
        }
    }
}
