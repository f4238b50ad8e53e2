//! The one error type of this crate.
//!
//! Values; nothing to lose. No error holds the content of a file.

use std::io;
use std::path::{Path, PathBuf};

use verifier::command::{EXIT_DATA, EXIT_IO, EXIT_USAGE};

/// Why a key or a certificate could not be read, made or used. `what` is the role of a file, such as
/// "key-encryption key"; no variant ever holds key bytes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused; the operator's to fix.
    #[error("{what}: {}: {source}", path.display())]
    Io {
        /// Role of the file.
        what: &'static str,
        /// Where it lies.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file exists and is never overwritten.
    #[error("{what}: {} exists and is not overwritten", path.display())]
    Exists {
        /// Role of the file.
        what: &'static str,
        /// Where it lies.
        path: PathBuf,
    },
    /// Others than the owner may read the file.
    #[error("{what}: {} has mode {mode:04o}: group and others must have no access (chmod 600)", path.display())]
    Permissions {
        /// Role of the file.
        what: &'static str,
        /// Where it lies.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file's content is not what its role asks for.
    #[error("{what}: {reason}")]
    Malformed {
        /// Role of the file or text.
        what: &'static str,
        /// The fault.
        reason: &'static str,
    },
    /// A PEM text does not hold what its role asks for.
    #[error("{what}: {source}")]
    Pem {
        /// Role of the text.
        what: &'static str,
        /// Where and why.
        source: crate::pem::PemError,
    },
    /// A sealed key file does not open: another key-encryption key, another name, or changed bytes. The three
    /// cannot be told apart.
    #[error("sealed key `{name}` does not open: wrong key-encryption key, renamed or damaged file")]
    Unsealing {
        /// Name of the key.
        name: String,
    },
    /// Not a name of section 7 of the formats.
    #[error("`{0}` is no key name")]
    KeyName(String),
    /// No such signature suite, or one that nothing signs with.
    #[error("suite {0} cannot sign: 1 is ed25519, 2 is es256")]
    Suite(u8),
    /// A certificate of this name exists for other organisations.
    #[error("client certificate `{0}` exists for other organisations")]
    OtherOrganisations(String),
    /// Not a name for a client certificate.
    #[error("`{0}` is no certificate name: 1 to 64 of a-z 0-9 - _")]
    CertificateName(String),
    /// A certificate or revocation list could not be made.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A trust bundle that no checker would take.
    #[error(transparent)]
    Trust(#[from] verifier::trust::TrustError),
    /// Not a name for a signing key.
    #[error(transparent)]
    Note(#[from] verifier::note::NoteError),
    /// The system gave no random bytes.
    #[error("no randomness from the system")]
    Randomness,
}

impl Error {
    /// The exit status of a command that this ended: what it was given, what lies in its folder, or the system.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Io { source, .. } if source.kind() != io::ErrorKind::NotFound => EXIT_IO,
            Self::Randomness => EXIT_IO,
            Self::Permissions { .. } | Self::Malformed { .. } | Self::Unsealing { .. } => EXIT_DATA,
            _ => EXIT_USAGE,
        }
    }

    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
