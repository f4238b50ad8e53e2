//! Verifies one license, by its identifier, as a bank does in a case of its own:
//! `cargo run -p client --example verify -- exchange.example:8443 IDENTIFIER GRANT`.
//!
//! The files are those that the bank keeps: its certificate and key, the exchange's authority, the trust bundle and its anchor.

#![allow(clippy::print_stdout, reason = "a program that says what it found")]

use client::{Client, Error, License, Stage, Tls, Trust, UseContext, Verify};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [server, identifier, grant] =
        std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "SERVER IDENTIFIER GRANT")?;
    let anchor = std::fs::read_to_string("trust-anchor.vkey")?.trim().parse()?;
    let trust = Trust::parse_note(&std::fs::read_to_string("trust-bundle.note")?, Some(&anchor), 0)?;
    let tls = Tls::from_files("ca.pem", Some(("bank.pem", "bank.key")))?;
    let client = Client::builder(server.parse()?, &tls).trust(trust).build();

    let context = UseContext {
        user_name: "经办人".into(),
        item_code: "11440100MB2D00000000044010000001".to_owned(),
        item_name: "开立账户".to_owned(),
        business_code: "CASE20260001".to_owned(),
        cause: "核验开户申请人的证照".into(),
        stage: Stage::Acceptance,
        delay: None,
        purpose: None,
        scenario: None,
        acting_for: None,
        assertion: None,
    };
    let request = Verify::new(License::by_identifier(identifier.parse()?), context).with_grant(grant);
    match client.verify(&request).await {
        // Proven, or it would be an error. Keep `answer.exchanged`: it proves later what was asked and answered.
        Ok(answer) => {
            println!("{:?} {:?}, entry {} of the log", answer.verdict, answer.reasons, answer.receipt.index)
        }
        Err(Error::Refused(refused)) => println!("{refused}"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
