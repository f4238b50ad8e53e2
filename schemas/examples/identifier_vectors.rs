//! Prints numbers with our verdict on them, one per line: `kind<TAB>value<TAB>valid|invalid`.
//!
//! `tests/independent/identifiers.py` reads them and compares with a library that shares no code with ours:
//! `cargo run -p schemas --example identifier_vectors | python3 tests/independent/identifiers.py`.
//!
//! The parts of each number whose rules the two libraries do not share stay as they are: only check characters are
//! compared. So a citizen number is corrupted in region, sequence or check character and not in its birth date.

#![allow(clippy::print_stdout, reason = "it prints into a pipe, for a test")]

use schemas::holder::HolderRef;
use schemas::identifier::{CertificateIdentifier, ROOT, Uscc};
use schemas::license_type::LicenseType;
use schemas::synthetic::Synthetic;

/// Real systems' and ministries' identifiers; the last one's check character is wrong.
const IDENTIFIERS: [&str; 6] = [
    "1.2.156.3005.2.11100000000013338W011.11430000006122244L.20230000403.001.U",
    "1.2.156.3005.2.11100000000013338W011.11430000006122244L.20230000403.002.S",
    "1.2.156.3005.2.11100000000013338W032.11220000013544541J.2430599.001.F",
    "1.2.156.3005.2.11100000000013338W009.11330105002500287C.2025052201.002.0",
    "1.2.156.3005.2.11100000MB03271699022.340100.000000016.001.9",
    "1.2.156.3005.2.11100000000013661B006.113700000045046442.209FA4E88F9E4C878F3E9BED2CE7EA49.001.M",
];
const USCCS: [&str; 3] = ["91350100M000100Y43", "91350100M000100Y4A", "11100000000013338W"];
const CITIZENS: [&str; 2] = ["11010519491231002X", "440524188001010014"];
const GENERATED: usize = 1_000;
const SEED: u64 = 20_261_121;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for text in IDENTIFIERS {
        identifier(text);
    }
    for text in USCCS {
        uscc(text);
    }
    for text in CITIZENS {
        citizen(text);
    }
    let mut synthetic = Synthetic::new(SEED);
    let types = LicenseType::builtin();
    for (number, license_type) in (0..GENERATED).zip(types.iter().cycle()) {
        let version = u16::try_from(number % 999 + 1)?;
        let made =
            CertificateIdentifier::new(license_type.code, synthetic.uscc(), synthetic.serial(), version)?;
        let text = made.to_string();
        identifier(&text);
        // In the serial, so that no other part's rule is broken.
        let serial = text.len() - ".001.X".len() - 1 - number % made.serial().as_str().len();
        identifier(&replaced(&text, serial));
        let check = text.len() - 1;
        identifier(&replaced(&text, check));

        let text = synthetic.uscc().to_string();
        uscc(&text);
        uscc(&replaced(&text, number % text.len()));

        let text = synthetic.citizen_number();
        citizen(&text);
        let places = [0, 1, 2, 3, 4, 5, 14, 15, 16, 17];
        citizen(&replaced(&text, places[number % places.len()]));
    }
    Ok(())
}

/// The text with another character of 0-9 at one place.
fn replaced(text: &str, place: usize) -> String {
    text.char_indices()
        .map(|(index, character)| match character {
            _ if index != place => character,
            '0'..='8' => char::from_digit(character.to_digit(10).unwrap_or(0) + 1, 10).unwrap_or('0'),
            _ => '0',
        })
        .collect()
}

fn identifier(text: &str) {
    let value: String = text.strip_prefix(ROOT).unwrap_or(text).split('.').collect();
    line("identifier-check", &value, text.parse::<CertificateIdentifier>().is_ok());
}

fn uscc(text: &str) {
    line("uscc", text, text.parse::<Uscc>().is_ok());
}

fn citizen(text: &str) {
    line("ric", text, HolderRef::new("111", text).is_ok());
}

fn line(kind: &str, value: &str, valid: bool) {
    println!("{kind}\t{value}\t{}", if valid { "valid" } else { "invalid" });
}
