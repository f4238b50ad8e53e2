//! Files that are whole or absent: written beside, synced, renamed, and the folder synced.
//!
//! A kill at any point leaves the old state or the new one, and at most a `.new` file that nothing reads.
//!
//! Its callers see to it that a file has one writer at a time.

use crate::Error;
use rustix::fs::{CWD, RenameFlags};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Mode of everything secret.
pub const PRIVATE: u32 = 0o600;
/// Mode of certificates and revocation lists.
pub const PUBLIC: u32 = 0o644;
/// No key file, certificate, revocation list or bundle that this crate reads is longer, in bytes.
pub(crate) const MAX_FILE_BYTES: u64 = 4 << 20;

/// Creates a folder, and those above it, that only the owner may enter.
///
/// # Errors
/// [`Error::Io`]
pub fn create_folder(what: &'static str, path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io(what, path))
}

/// Writes a file that must not exist. Durable when it returns.
///
/// # Errors
/// [`Error::Exists`], [`Error::Io`]
pub fn create(what: &'static str, path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    write(what, path, bytes, mode, RenameFlags::NOREPLACE)
}

/// Writes a file, in place of the one that may be there. Durable when it returns.
///
/// # Errors
/// [`Error::Io`]; the old file or the new one is there
pub fn replace(what: &'static str, path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    write(what, path, bytes, mode, RenameFlags::empty())
}

fn write(what: &'static str, path: &Path, bytes: &[u8], mode: u32, flags: RenameFlags) -> Result<(), Error> {
    let temporary = temporary(path);
    // A file of this name is left of a killed process that had our process id.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io(what, &temporary)(error));
        }
        _ => {}
    }
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        // The umask may have taken bits away, and must not decide.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        rustix::fs::renameat_with(CWD, &temporary, CWD, path, flags)?;
        sync_folder(path)
    })();
    written.map_err(|error| {
        // Best effort: the error that matters is the first one.
        let _ = fs::remove_file(&temporary);
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => Error::Exists { what, path: path.to_owned() },
            _ => Error::io(what, path)(error),
        }
    })
}

/// Like [`replace`]; then the bytes of the file that was there are overwritten where they lie.
pub(crate) fn replace_and_wipe(
    what: &'static str,
    path: &Path,
    bytes: &[u8],
    mode: u32,
) -> Result<(), Error> {
    // Opened before the rename takes its name. A kill between the two leaves the old bytes in free blocks.
    let old = match OpenOptions::new().write(true).open(path) {
        Ok(old) => Some(old),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io(what, path)(error)),
    };
    replace(what, path, bytes, mode)?;
    match old {
        Some(old) => overwrite(&old).map_err(Error::io(what, path)),
        None => Ok(()),
    }
}

/// Takes a file's name away, if it is there, then overwrites it where it lies and removes it. Durable when it returns;
/// a crash leaves the whole file, or one that [`wipe_temporaries`] wipes and nobody reads.
pub(crate) fn destroy(what: &'static str, path: &Path) -> Result<(), Error> {
    let temporary = temporary(path);
    match fs::rename(path, &temporary).and_then(|()| sync_folder(path)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(what, path)(error)),
        _ => wipe(what, &temporary),
    }
}

/// Overwrites a file where it lies and removes it, if it is there. Durable when it returns.
fn wipe(what: &'static str, path: &Path) -> Result<(), Error> {
    match OpenOptions::new().write(true).open(path).and_then(|file| overwrite(&file)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(what, path)(error)),
        _ => remove(what, path),
    }
}

/// Wipes the `.new` files that killed writers of a file left beside it.
pub(crate) fn wipe_temporaries(what: &'static str, path: &Path) -> Result<(), Error> {
    let Some((folder, name)) = path.parent().zip(path.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let prefix = format!(".{name}.");
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io(what, folder))?,
    };
    for entry in entries {
        let entry = entry.map_err(Error::io(what, folder))?;
        let file_name = entry.file_name();
        let middle = file_name
            .to_str()
            .and_then(|found| found.strip_prefix(&prefix))
            .and_then(|rest| rest.strip_suffix(".new"));
        if middle.is_some_and(|middle| middle.bytes().all(|byte| byte.is_ascii_digit())) {
            wipe(what, &entry.path())?;
        }
    }
    Ok(())
}

fn overwrite(mut file: &File) -> std::io::Result<()> {
    let mut left = file.metadata()?.len();
    let zeros = [0; 8 << 10];
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all(zeros.get(..length).unwrap_or_default())?;
        left -= length as u64;
    }
    file.sync_all()
}

/// Removes a file if it is there. Durable when it returns.
pub(crate) fn remove(what: &'static str, path: &Path) -> Result<(), Error> {
    match fs::remove_file(path).and_then(|()| sync_folder(path)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(what, path)(error)),
        _ => Ok(()),
    }
}

/// Reads a whole file, which may be secret.
///
/// # Errors
/// [`Error::Io`]
pub fn read(what: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    read_up_to(what, path, MAX_FILE_BYTES)
}

/// Reads a whole file of at most so many bytes, which may be secret.
pub(crate) fn read_up_to(what: &'static str, path: &Path, longest: u64) -> Result<Zeroizing<Vec<u8>>, Error> {
    File::open(path).and_then(|file| read_whole(&file, longest)).map_err(Error::io(what, path))
}

/// Reads a file that must be the owner's alone.
///
/// # Errors
/// [`Error::Permissions`], [`Error::Io`]
pub fn read_private(what: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let file = File::open(path).map_err(Error::io(what, path))?;
    // The open file is asked, not the path: nobody can swap it in between.
    let mode = file.metadata().map_err(Error::io(what, path))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::Permissions { what, path: path.to_owned(), mode });
    }
    read_whole(&file, MAX_FILE_BYTES).map_err(Error::io(what, path))
}

/// Reads a whole text file.
///
/// # Errors
/// [`Error::Io`], [`Error::Malformed`]
pub fn read_text(what: &'static str, path: &Path) -> Result<String, Error> {
    String::from_utf8(read(what, path)?.to_vec()).map_err(|_| Error::Malformed { what, reason: "not UTF-8" })
}

fn read_whole(file: &File, longest: u64) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let length = file.metadata()?.len();
    if length > longest {
        return Err(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            "longer than any file of its kind",
        ));
    }
    // Room for the whole file at once: a buffer that grows leaves copies behind that nothing wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1));
    file.take(longest).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
