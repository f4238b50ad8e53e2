//! Keys and certificates: sealed key files, signing keys, the development PKI, signed trust bundles.
//!
//! The formats are section 3 and section 7 of `schemas/README.md`. Nothing here is on the request path: keys are read
//! at start and written when they are made. Errors name the role of a file, never its content. `file.rs` says what a
//! crash leaves.

#![forbid(unsafe_code)]

mod error;
pub mod file;
pub mod inspect;
pub mod issuer;
pub mod keys;
pub mod layout;
pub mod pem;
pub mod pki;
pub mod process;
pub mod sealed;
pub mod trust;

pub use error::Error;
