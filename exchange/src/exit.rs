//! How a command ends: its status and one line for the operator.
//!
//! Commands make one, and `main` ends by it. Nothing is kept.

use std::io;

use ledger::OpenError;
use verifier::command::{EXIT_IO, why};

use crate::config::ConfigError;

pub use verifier::command::{EXIT_DATA, EXIT_INTERNAL, EXIT_UNAVAILABLE, EXIT_USAGE};

/// A process exit that is not a bug: status and one line for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Exit {
    /// One of the table in [`verifier::command`].
    pub status: u8,
    /// One line.
    pub message: String,
}

impl Exit {
    /// Wrong usage or configuration.
    pub fn usage(message: impl ToString) -> anyhow::Error {
        Self { status: EXIT_USAGE, message: message.to_string() }.into()
    }

    /// Not available now.
    pub fn unavailable(message: impl ToString) -> anyhow::Error {
        Self { status: EXIT_UNAVAILABLE, message: message.to_string() }.into()
    }
}

/// The same error as one of usage or configuration.
pub fn as_usage(error: impl Into<anyhow::Error>) -> anyhow::Error {
    Exit::usage(why(&*error.into()))
}

/// The exit status of a command that an error ended.
pub fn exit_status(error: &anyhow::Error) -> u8 {
    if let Some(exit) = error.downcast_ref::<Exit>() {
        return exit.status;
    }
    match error.downcast_ref::<ConfigError>() {
        Some(ConfigError::Fenced { .. }) => return EXIT_DATA,
        Some(_) => return EXIT_USAGE,
        None => {}
    }
    if let Some(error) = error.downcast_ref::<certs::Error>() {
        return error.exit_status();
    }
    match error.downcast_ref() {
        Some(OpenError::Options(_) | OpenError::NotYet { .. }) => EXIT_USAGE,
        Some(
            OpenError::RolledBack { .. }
            | OpenError::CutShort { .. }
            | OpenError::Guard(_)
            | OpenError::Corrupt { .. }
            | OpenError::Missing { .. }
            | OpenError::Rows { .. }
            | OpenError::Clock { .. }
            | OpenError::Keys(_)
            | OpenError::Format { .. },
        ) => EXIT_DATA,
        Some(OpenError::Locked) => EXIT_UNAVAILABLE,
        Some(OpenError::Io { .. }) => EXIT_IO,
        None if error.chain().any(|cause| cause.is::<io::Error>()) => EXIT_IO,
        None => EXIT_INTERNAL,
    }
}

/// The error of a file or key that cannot be used.
pub(crate) fn unusable(error: impl std::fmt::Display) -> anyhow::Error {
    Exit { status: EXIT_DATA, message: error.to_string() }.into()
}
