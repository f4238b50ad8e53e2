//! Checks licenses, receipts, reports and logs from bytes alone.
//!
//! The library has no I/O, clock, threads or randomness: the caller passes bytes, the time and the trust bundle, and
//! gets one of three answers: valid, invalid (why) or cannot tell (why). The formats are those of `schemas/README.md`;
//! a section number in these pages refers to it. Only [`command`] prints: commands share it. Nothing is kept, so a
//! crash leaves nothing.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

pub mod batch;
pub mod checkpoint;
pub mod command;
pub mod copy;
mod encoding;
pub mod fields;
pub mod index;
pub mod json;
pub mod leaf;
pub mod license;
pub mod log;
pub mod machine;
pub mod merkle;
pub mod note;
pub mod policy;
pub mod proof;
pub mod receipt;
pub mod report;
pub mod same_holder;
pub mod signature;
pub mod trace;
pub mod trust;

/// The example of the README compiles and runs as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// Most bytes that are put together before they are hashed. The commitment of an entry with the most labels has 304.
const SHORT_BYTES: usize = 320;

/// SHA-256 over the parts, one after another.
#[inline]
pub fn sha256(parts: &[&[u8]]) -> Hash {
    // To give each of several short parts to the digest costs more than to copy them.
    let mut short = [0; SHORT_BYTES];
    let mut room = short.as_mut_slice();
    for part in parts {
        let Some(place) = room.split_off_mut(..part.len()) else { return digest(parts) };
        place.copy_from_slice(part);
    }
    let free = room.len();
    digest(&[short.get(..SHORT_BYTES.saturating_sub(free)).unwrap_or_default()])
}

fn digest(parts: &[&[u8]]) -> Hash {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("a SHA-256 digest has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_any_length_are_hashed_as_one() {
        let bytes: Vec<u8> = (0..=255).cycle().take(2 * SHORT_BYTES).collect();
        for length in [0, 1, 64, SHORT_BYTES - 1, SHORT_BYTES, SHORT_BYTES + 1, bytes.len()] {
            let whole = &bytes[..length];
            let expected = ring::digest::digest(&ring::digest::SHA256, whole);
            for cut in [0, length / 3, length] {
                let (head, tail) = whole.split_at(cut);
                assert_eq!(sha256(&[head, tail, &[]])[..], *expected.as_ref(), "{cut} of {length}");
            }
        }
        assert_eq!(sha256(&[]), merkle::EMPTY_ROOT);
    }
}
