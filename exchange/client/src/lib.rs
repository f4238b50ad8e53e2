//! The client of an exchange, for those who build it into their own system.
//!
//! A [`Client`] keeps one mTLS connection to the data listener, HTTP/2 or 1.1, and has one method for each route. A method gives
//! a [`Call`]: awaited, it sends the request and reads the answer.
//!
//! - A call that gets no answer, or an answer that says "not now", is sent again with the same idempotency key. So a state changes
//!   once, and a use counts once.
//! - An answer brings its receipt. Given a [`Trust`], the client has every answer proven and gives none whose proof is not valid.
//! - A refusal is an [`Error::Refused`] with status, code, the places that are wrong, and the receipt of the refusal.
//!
//! Personal data that it is given or gives is [`Personal`], which no `Debug` output shows.
//!
//! ```no_run
//! # async fn example(context: client::UseContext) -> Result<(), Box<dyn std::error::Error>> {
//! let tls = client::Tls::from_files("ca.pem", Some(("bank.pem", "bank.key")))?;
//! let client = client::Client::new("exchange.example:8443".parse()?, &tls);
//! let license = client::License::by_identifier("1.2.156.3005.2.…".parse()?);
//! let answer = client.verify(&client::Verify::new(license, context)).await?;
//! println!("{:?} {:?}, entry {} of the log", answer.verdict, answer.reasons, answer.receipt.index);
//! # Ok(())
//! # }
//! ```
//!
//! The wire formats are those of `schemas/openapi.json`. This crate holds no state on disk: what proves an answer later is
//! [`Answer::exchanged`], which its caller keeps.

#![forbid(unsafe_code)]

mod answer;
mod batch;
mod call;
mod client;
#[cfg(test)]
mod contract;
mod endpoint;
mod error;
mod personal;
mod request;
mod signing;
mod tls;
mod transport;

pub use answer::*;
pub use batch::{BatchReport, batch_body};
pub use call::{Call, DEADLINE, Retry};
pub use client::{Builder, Client};
pub use endpoint::{Endpoint, EndpointError};
pub use error::{Error, Fault, Malformed, NoAnswer, Problem, Refused, Unproven};
pub use personal::Personal;
pub use request::*;
pub use signing::{Signing, SigningError};
pub use tls::{Tls, TlsError};
pub use transport::Fetched;
pub use verifier::batch::End;
pub use verifier::receipt::Receipt;
pub use verifier::report::Report;
pub use verifier::trust::Trust;
