//! Compares the digests that the journal logged with the state that its entries make.
//!
//! A start or a check of the journal owns one while it replays. It is memory, and a crash leaves nothing.

use crate::{
    derive::{image::Image, meta::Meta, store::StoreError},
    journal::record::StateDigest,
    names::Hash,
    state::{
        State,
        slot::{Digest, Slot, Term},
    },
};
use std::collections::HashMap;

/// The digest of a state, kept up to date while entries are applied to it. Needs 32 bytes and the map's own for each
/// value that is changed meanwhile, and its slot besides if there is a base.
pub(crate) struct Tally<'a> {
    /// The digest of the state, and of what `base` holds under the slots that were changed.
    digest: Digest,
    /// The term in the digest for each slot that was changed.
    terms: HashMap<Slot, Option<Term>>,
    /// Holds what the state held before the first change; `None` when that was nothing.
    base: Option<&'a Image>,
    /// The slots that were changed, in the order of their first change, if there is a base.
    changed: Vec<Slot>,
    /// The state is that of one moment from this size on.
    from: u64,
    /// At each seal since the last logged digest.
    seals: Vec<Seal>,
}

/// A seal, kept until a digest is logged.
#[derive(Clone, Copy)]
struct Seal {
    size: u64,
    digest: Digest,
    /// How many slots were changed by then.
    changed: usize,
}

/// How a logged digest compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Same,
    Different,
    /// It is of a size that was not passed, or where there was no seal.
    Unknown,
}

impl<'a> Tally<'a> {
    /// The tally of an empty state.
    pub(crate) fn empty() -> Self {
        let mut tally = Self::new(None, Digest::default(), 0);
        tally.seal(0);
        tally
    }

    /// The tally of a state that was loaded from an image whose values have this digest, which is right once the entries that it covers
    /// are applied.
    pub(crate) fn of_image(image: &'a Image, digest: Digest, meta: &Meta) -> Self {
        let mut tally = Self::new(Some(image), digest, meta.covers);
        if meta.cursor.frontier.size() == meta.covers {
            tally.seal(meta.covers);
        }
        tally
    }

    fn new(base: Option<&'a Image>, digest: Digest, from: u64) -> Self {
        Self { digest, terms: HashMap::new(), base, changed: Vec::new(), from, seals: Vec::new() }
    }

    /// Takes in what a frame changed. `seal` is the size at which it is a seal.
    pub(crate) fn follow(&mut self, state: &State, changed: &[Slot], seal: Option<u64>) {
        for slot in changed.iter().filter(|slot| slot.is_digested()) {
            let new = state.value(slot).map(|value| Digest::term(&slot.encode(), &value));
            let old = self.terms.insert(*slot, new);
            if old.is_none() && self.base.is_some() {
                self.changed.push(*slot);
            }
            self.digest.replace(old.flatten(), new);
        }
        if let Some(size) = seal.filter(|size| *size >= self.from)
            && self.seals.last().is_none_or(|last| last.size < size)
        {
            self.seal(size);
        }
    }

    fn seal(&mut self, size: u64) {
        self.seals.push(Seal { size, digest: self.digest, changed: self.changed.len() });
    }

    /// Compares a logged digest, and forgets the seals before it: digests are logged in order. Reads the whole base: it is
    /// asked once for a snapshot.
    pub(crate) fn compare(&mut self, logged: &StateDigest) -> Result<Comparison, StoreError> {
        let found = self.at(logged.size)?;
        self.seals.retain(|seal| seal.size >= logged.size);
        Ok(match found {
            Some(digest) if digest == logged.digest => Comparison::Same,
            Some(_) => Comparison::Different,
            None => Comparison::Unknown,
        })
    }

    /// The digest at a seal that is not forgotten.
    pub(crate) fn at(&self, size: u64) -> Result<Option<Hash>, StoreError> {
        let Ok(at) = self.seals.binary_search_by_key(&size, |seal| seal.size) else { return Ok(None) };
        let Seal { mut digest, changed, .. } = self.seals[at];
        if let Some(base) = self.base {
            digest.subtract(&base.digest_of(&self.changed[..changed])?);
        }
        Ok(Some(digest.bytes()))
    }
}
