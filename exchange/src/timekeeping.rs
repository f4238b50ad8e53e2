//! Whether somebody keeps the machine's clock right.
//!
//! A start asks. It reads and changes nothing.

use std::process::{Command, Stdio};

/// Whether the kernel's clock is synchronised, by whatever time service there is.
///
/// The kernel says so only to `adjtimex`, which no kept library offers without unsafe code; `timedatectl` of systemd asks
/// it for us. Where there is none nobody knows, and that counts as not synchronised. Blocks.
pub fn is_synchronised() -> bool {
    let asked = Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    asked.is_ok_and(|answer| answer.status.success() && answer.stdout.trim_ascii() == b"yes")
}
