//! `exchange backup`.
//!
//! An operator runs it, beside a serving exchange too. A crash leaves a `.backup-` folder, whose fence keeps it from
//! being served.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::exit::Exit;
use crate::opening;
use crate::originals::{self, JOURNAL};
use crate::place::FENCE;
use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use certs::file;
use certs::layout::CONFIG;
use ledger::Copied;
use verifier::command::line;

use super::{Place, say_missing_tls};

/// How often the journal is copied again because the epoch's key changed meanwhile; it changes once a day.
const ATTEMPTS: usize = 3;

/// Copies the originals of a data folder, except for the key-encryption key, into a new folder that nothing serves.
///
/// # Errors
/// The folder cannot be read, or the copy cannot be written.
pub fn run(place: &Place, out: &Path) -> anyhow::Result<()> {
    let config = place.load()?;
    let out = std::path::absolute(out)?;
    if out.exists() {
        return Err(Exit::usage(format_args!("{} is there already", out.display())));
    }
    let above = out.parent().context("a folder has a folder above it")?;
    // Under another name until it is whole, and gone again when it does not become so.
    let made = tempfile::Builder::new().prefix(".backup-").tempdir_in(above);
    let made = made.with_context(|| above.display().to_string())?;
    let copied = copy(&config, made.path())?;
    fs::rename(made.keep(), &out)?;
    fs::File::open(above)?.sync_all()?;
    let how =
        if copied.at_rest { "all of it: nobody served it" } else { "up to this moment: it is being served" };
    line(format_args!(
        "{}: log {} of size {}, {how}; without {}, which belongs elsewhere",
        out.display(),
        config.origin,
        copied.tail.size,
        config.path(&config.keys.kek).display()
    ));
    say_missing_tls(&config, "not there, so not copied");
    Ok(())
}

fn copy(config: &Config, out: &Path) -> anyhow::Result<Copied> {
    // The copy stands for itself: what the configuration has elsewhere lies in its usual place there.
    let mut own = Config { folder: out.to_owned(), ..config.clone() };
    own.journal.archive = None;
    let usual = crate::config::Tls::default();
    own.tls.certificate = usual.certificate;
    own.tls.key = usual.key;
    own.tls.client_ca = usual.client_ca;
    let usual = crate::config::Keys::default();
    own.keys.folder = usual.folder;
    own.keys.kek = usual.kek;
    own.keys.trust_bundle = usual.trust_bundle;
    own.keys.trust_anchor = usual.trust_anchor;

    // First of all: what a kill leaves is not served either.
    let fenced = out.join(FENCE);
    file::create("fence", &fenced, fence(config, None).as_bytes(), file::PRIVATE)?;
    let keys = opening::key_folder(config)?;

    // The trust bundle before the keys: `certs issuer` makes a key before a bundle lists it, so none that this bundle lists
    // is missing from the copy.
    let missing = config.missing_tls();
    for (from, to) in originals::of(config).iter().zip(originals::of(&own)) {
        let is_kek = Path::new(from) == config.keys.kek;
        let path = config.path(Path::new(from));
        if from.ends_with('/') || from == CONFIG || is_kek || missing.contains(&path) {
            continue;
        }
        copy_file(&path, &own.path(Path::new(&to)))?;
    }
    let copied = (0..ATTEMPTS).find_map(|_| {
        // Key files and journal of one epoch: the key changes behind its entry, so it must be the same before and after.
        let attempt = epoch_files(config).and_then(|before| {
            copy_keys(config, &own)?;
            let journal = out.join(JOURNAL);
            if journal.exists() {
                fs::remove_dir_all(&journal)?;
            }
            let copied =
                ledger::copy_journal(&opening::ledger_options(config), &opening::ledger_keys(&keys)?, out)?;
            Ok((epoch_files(config)? == before).then_some(copied))
        });
        attempt.transpose()
    });
    let copied = copied.context("the epoch's key changed again and again; try later")??;
    file::create("configuration", &out.join(CONFIG), own.to_toml().as_bytes(), file::PRIVATE)?;
    file::replace("fence", &fenced, fence(config, Some(&copied)).as_bytes(), file::PRIVATE)?;
    Ok(copied)
}

/// The fence of a backup; until it says how far the backup goes, nobody restores it.
fn fence(config: &Config, copied: Option<&Copied>) -> String {
    let end = copied.map(|copied| {
        format!(
            "size = {}\nroot = \"{}\"\ntime = \"{}\"\nat_rest = {}\n",
            copied.tail.size,
            BASE64.encode(copied.tail.root),
            schemas::date::rfc3339(copied.time_ms),
            copied.at_rest
        )
    });
    format!(
        "# This folder is a backup. Whoever served it would sign a second history under the log's key.\n\
         # `exchange restore --from THIS --data NEW --kek FILE` makes a successor log (exchange/docs/guides/backup.md).\n\
         origin = {:?}\n{}",
        config.origin,
        end.unwrap_or_default()
    )
}

/// Content of the files of the epochs' keys.
fn epoch_files(config: &Config) -> anyhow::Result<Vec<Option<Vec<u8>>>> {
    let folder = config.path(&config.keys.folder);
    let names = [certs::sealed::EPOCH, certs::sealed::EPOCH_NEXT];
    let read = |name: &str| match fs::read(folder.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    };
    Ok(names.into_iter().map(read).collect::<io::Result<_>>()?)
}

/// Copies the sealed keys, the authorities' among them.
fn copy_keys(config: &Config, own: &Config) -> anyhow::Result<()> {
    let (from, to) = (config.path(&config.keys.folder), own.path(&own.keys.folder));
    if to.exists() {
        fs::remove_dir_all(&to)?;
    }
    let kek = fs::canonicalize(config.path(&config.keys.kek))?;
    for path in files(&from)? {
        let name = path.strip_prefix(&from)?;
        let half_made = name.extension().is_some_and(|end| end == "new");
        // The one key that opens all others never lies beside them in a backup, wherever it lies here.
        if half_made || fs::canonicalize(&path)? == kek {
            continue;
        }
        copy_file(&path, &to.join(name))?;
    }
    ensure!(to.exists(), "{} holds no keys", from.display());
    Ok(())
}

/// All files below a folder.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

/// Copies a file that may be secret, durably.
fn copy_file(from: &Path, to: &Path) -> anyhow::Result<()> {
    let Some(above) = to.parent() else { bail!("{} has no folder", to.display()) };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(above)?;
    let bytes = zeroize::Zeroizing::new(fs::read(from).with_context(|| from.display().to_string())?);
    Ok(file::create("copy", to, &bytes, file::PRIVATE)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{EXIT_DATA, exit_status};

    #[test]
    fn what_is_left_of_a_backup_that_was_cut_off_is_fenced_and_not_restored() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let [data, out] = ["data", "out"].map(|name| parent.path().join(name));
        for folder in [&data, &out] {
            fs::create_dir(folder).expect("a folder");
        }
        fs::write(data.join(CONFIG), "origin = \"a\"").expect("written");
        let config = Config::load(&data.join(CONFIG)).expect("good");
        // It ends with the first key, which is not there.
        assert!(copy(&config, &out).is_err());
        assert!(crate::place::is_fenced(&out));
        let error = crate::place::end_of_backup(&out).expect_err("it was cut off");
        assert_eq!(exit_status(&error), EXIT_DATA);
    }
}
