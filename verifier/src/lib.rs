//! Checks licenses, receipts and logs from bytes alone.
//!
//! The library has no I/O, clock, threads or randomness: the caller passes bytes, the time and the trust
//! bundle, and gets one of three answers: valid, invalid (why) or cannot tell (why). The formats are those of
//! `schemas/README.md`; a section number in these pages refers to it.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

pub mod checkpoint;
mod encoding;
pub mod index;
pub mod leaf;
pub mod license;
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

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// Parts that are no longer than this together are hashed at once: every answer takes a dozen such digests, and a
/// context costs each of them more than the copy.
const SHORT_BYTES: usize = 320;

/// SHA-256 over the parts, one after another.
pub fn sha256(parts: &[&[u8]]) -> Hash {
    let mut short = [0; SHORT_BYTES];
    let digest = match together(&mut short, parts) {
        Some(whole) => ring::digest::digest(&ring::digest::SHA256, whole),
        None => {
            let mut context = ring::digest::Context::new(&ring::digest::SHA256);
            for part in parts {
                context.update(part);
            }
            context.finish()
        }
    };
    digest.as_ref().try_into().expect("a SHA-256 digest has 32 bytes")
}

/// The parts, one after another; `None` when there is no room for them.
fn together<'a>(room: &'a mut [u8], parts: &[&[u8]]) -> Option<&'a [u8]> {
    let length = parts.iter().try_fold(0_usize, |sum, part| sum.checked_add(part.len()))?;
    let whole = room.get_mut(..length)?;
    let mut rest = &mut *whole;
    for part in parts {
        let (place, behind) = rest.split_at_mut_checked(part.len())?;
        place.copy_from_slice(part);
        rest = behind;
    }
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_hashed_as_their_whole_whatever_their_length() {
        let bytes: Vec<u8> = (0..=255).cycle().take(SHORT_BYTES + 2).collect();
        for length in [0, 1, 63, 64, 65, SHORT_BYTES - 1, SHORT_BYTES, SHORT_BYTES + 1, bytes.len()] {
            let whole = ring::digest::digest(&ring::digest::SHA256, &bytes[..length]);
            for cut in [0, length / 3, length] {
                let (front, back) = bytes[..length].split_at(cut);
                assert_eq!(sha256(&[front, &[], back]), whole.as_ref(), "{cut} of {length}");
            }
        }
    }
}
