//! The parts that every command of this workspace shares: exit statuses, command line, and the one writer of what it prints.
//!
//! | status | constant | meaning |
//! |---|---|---|
//! | 0 | [`EXIT_DONE`] | done; of a check: valid, good |
//! | 1 | [`EXIT_NO`] | the answer is no: invalid, damaged, refused by the server |
//! | 2 | [`EXIT_CANNOT_TELL`] | of a check: it cannot be told |
//! | 64 | [`EXIT_USAGE`] | wrong usage or configuration, a file that is named and cannot be used among it; nothing was done |
//! | 65 | [`EXIT_DATA`] | the data is not the log's, or a key is not the data's; nothing was changed |
//! | 69 | [`EXIT_UNAVAILABLE`] | not available now: the server cannot be reached or does not take the request, an address or the journal is in use by another process |
//! | 70 | [`EXIT_INTERNAL`] | a fault of the program |
//! | 74 | [`EXIT_IO`] | input or output failed: the journal, another file, or what was to be printed |
//!
//! `bench` has two more, 3 and 77. No print ends a program and none changes a verdict. A reader that has gone away is no
//! error; any other failure is told once on standard error, and turns 0 into 74.
//!
//! Each program's `main` calls it. It keeps nothing.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;

/// Exit status: done; of a check: valid, good.
pub const EXIT_DONE: u8 = 0;
/// Exit status: the answer is no.
pub const EXIT_NO: u8 = 1;
/// Exit status of a check: it cannot be told.
pub const EXIT_CANNOT_TELL: u8 = 2;
/// Exit status: wrong usage or configuration (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;
/// Exit status: the data is not the log's (`EX_DATAERR`).
pub const EXIT_DATA: u8 = 65;
/// Exit status: not available now (`EX_UNAVAILABLE`).
pub const EXIT_UNAVAILABLE: u8 = 69;
/// Exit status: a fault of the program (`EX_SOFTWARE`).
pub const EXIT_INTERNAL: u8 = 70;
/// Exit status: input or output failed (`EX_IOERR`).
pub const EXIT_IO: u8 = 74;

/// Nobody reads standard output, or it cannot be written: nothing more is tried.
static CLOSED: AtomicBool = AtomicBool::new(false);
/// Something could not be printed, and not because its reader has gone away.
static LOST: AtomicBool = AtomicBool::new(false);

/// The command line; otherwise the exit status, help or what is wrong having been printed.
///
/// # Errors
/// The status to end with.
pub fn parse<C: Parser>() -> Result<C, ExitCode> {
    C::try_parse().map_err(|error| {
        let printed = error.print();
        if error.use_stderr() {
            return ExitCode::from(EXIT_USAGE);
        }
        // Help and version come here too, and are no misuse.
        printed.unwrap_or_else(|error| unprinted(&error));
        end(EXIT_DONE)
    })
}

/// Prints text on standard output as it is.
pub fn print(text: impl Display) {
    if CLOSED.load(Ordering::Relaxed) {
        return;
    }
    // Whole, so that lines of several threads do not mix.
    let text = text.to_string();
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).unwrap_or_else(|error| unprinted(&error));
}

/// Prints a line on standard output.
pub fn line(text: impl Display) {
    print(format_args!("{text}\n"));
}

/// Prints a line on standard error. Where that fails there is nobody to tell.
pub fn note(text: impl Display) {
    let _ = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

/// The text of an error, and what its causes say beyond that.
pub fn why(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

fn unprinted(error: &io::Error) {
    CLOSED.store(true, Ordering::Relaxed);
    if error.kind() != io::ErrorKind::BrokenPipe && !LOST.swap(true, Ordering::Relaxed) {
        note(format_args!("standard output: {error}"));
    }
}

/// The exit status of a program that ends with this one: success is none when something was not printed.
pub fn end(status: u8) -> ExitCode {
    ExitCode::from(if status == EXIT_DONE && LOST.load(Ordering::Relaxed) { EXIT_IO } else { status })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Self>>);

    impl Display for Layer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&**self.1.as_ref()?)
        }
    }

    #[test]
    fn a_cause_is_said_once() {
        let system = || Some(Box::new(Layer("no such file", None)));
        assert_eq!(why(&Layer("a: no such file", system())), "a: no such file");
        assert_eq!(why(&Layer("a", system())), "a: no such file");
        let middle = Some(Box::new(Layer("read: no such file", system())));
        assert_eq!(why(&Layer("a", middle)), "a: read: no such file");
    }
}
