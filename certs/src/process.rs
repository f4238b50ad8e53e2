//! The settings that a program that holds keys asks of the system before it reads them.
//!
//! A program calls it once, at its start. It lasts as long as the process.

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use std::io;

/// Nobody but root reads this process's memory from outside, it leaves no core, and what it writes is its owner's alone
/// unless a mode is given. Call it first in `main`.
///
/// # Errors
/// The system refused; no key should be read then.
pub fn harden() -> io::Result<()> {
    rustix::process::umask(Mode::from_raw_mode(0o077));
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn nothing_of_the_process_is_left_for_others() {
        harden().unwrap();
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let core = rustix::process::getrlimit(Resource::Core);
        assert_eq!((core.current, core.maximum), (Some(0), Some(0)));
        let dir = tempfile::tempdir().unwrap();
        let (file, folder) = (dir.path().join("file"), dir.path().join("folder"));
        std::fs::write(&file, "x").unwrap();
        std::fs::create_dir(&folder).unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(file), mode(folder)), (0o600, 0o700));
    }
}
