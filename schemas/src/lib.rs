//! The contract of the exchange: wire formats, identifiers, license types, codes and routes.
//!
//! Decides nothing and does no I/O. `README.md` in this folder describes every format for readers who write their own
//! tools. Nothing here can be lost in a crash.

pub mod codes;
pub mod date;
pub mod dictionary;
pub mod guidance;
pub mod holder;
pub mod identifier;
pub mod interface;
pub mod kinds;
pub mod license_type;
pub mod mask;
pub mod policy;
pub mod resource;
pub mod roles;
pub mod routes;
pub mod sharing;
pub mod state;
pub mod synthetic;
pub mod text;
pub mod workday;

/// Code made by flatc from `fbs/*.fbs`; the only place in the workspace that may hold `unsafe`.
#[rustfmt::skip]
#[allow(
    unsafe_code,
    missing_docs,
    unused_imports,
    dead_code,
    unreachable_pub,
    unused_qualifications,
    elided_lifetimes_in_paths,
    mismatched_lifetime_syntaxes,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    clippy::restriction
)]
mod generated {
    pub mod envelope_generated;
    pub mod journal_generated;
    pub mod license_body_generated;
    pub mod machine_generated;
}

/// License body and envelope tables (`fbs/license_body.fbs`, `fbs/envelope.fbs`).
pub mod license {
    pub use crate::generated::envelope_generated::miaoxiang::license::*;
    pub use crate::generated::license_body_generated::miaoxiang::license::*;
}

/// Journal record tables (`fbs/journal.fbs`).
pub mod journal {
    pub use crate::generated::journal_generated::miaoxiang::journal::*;
}

/// The form that machine peers send and get (`fbs/machine.fbs`).
pub mod machine {
    pub use crate::generated::machine_generated::miaoxiang::machine::*;

    /// Media type of requests and answers in this form.
    pub const MEDIA_TYPE: &str = "application/vnd.miaoxiang+flatbuffers";
}

/// The OpenAPI document of all three listeners, as served at `/openapi.json`.
pub const OPENAPI: &str = include_str!("../openapi.json");
