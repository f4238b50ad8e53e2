//! Commitments to the fields that left with an answer: which ones, without their values. One is opened without the others.
//!
//! The exchange makes them, and a trace is checked against them. Pure functions; nothing to lose.

use crate::{Hash, sha256};

/// The commitment to a field, the `number`th of its answer from 0, with the salt of that answer.
pub fn commitment(salt: &Hash, number: u16, key: &str, value: &str) -> Hash {
    let salt = sha256(&[salt, &number.to_be_bytes()]);
    // Keys of definitions are far shorter.
    let length = u16::try_from(key.len()).unwrap_or(u16::MAX);
    sha256(&[&salt, &length.to_be_bytes(), key.as_bytes(), value.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_a_commitment_counts() {
        let salt = [7; 32];
        let one = commitment(&salt, 0, "name", "张三");
        assert_eq!(one, commitment(&salt, 0, "name", "张三"));
        for other in [
            commitment(&[8; 32], 0, "name", "张三"),
            commitment(&salt, 1, "name", "张三"),
            commitment(&salt, 0, "nam", "e张三"),
            commitment(&salt, 0, "name", "张四"),
        ] {
            assert_ne!(one, other);
        }
    }
}
