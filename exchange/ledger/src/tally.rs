//! Compares the digests that the journal logged with the state that its entries make.

use crate::{
    image::Image,
    record::StateDigest,
    state::{Digest, Slot, State, Term},
    store::StoreError,
};
use std::collections::HashMap;

/// The digest of a state, kept up to date while entries are applied to it. Needs 32 bytes and the map's own for each
/// value that is changed meanwhile.
pub(crate) struct Tally<'a> {
    digest: Digest,
    /// What stands in the digest for each slot that was changed; for all others see `base`.
    terms: HashMap<Slot, Option<Term>>,
    /// Holds what the state held before the first change; `None` when that was nothing.
    base: Option<&'a Image>,
    /// The state is that of one moment from this size on.
    from: u64,
    /// Size and digest at each seal since the last logged digest.
    seals: Vec<(u64, Digest)>,
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
    /// Of an empty state.
    pub(crate) fn empty() -> Self {
        Self {
            digest: Digest::default(),
            terms: HashMap::new(),
            base: None,
            from: 0,
            seals: vec![(0, Digest::default())],
        }
    }

    /// Of a state that was loaded from an image whose values have this digest, which is right once `covers` entries are
    /// applied.
    pub(crate) fn of_image(image: &'a Image, digest: Digest, covers: u64) -> Self {
        Self { digest, terms: HashMap::new(), base: Some(image), from: covers, seals: Vec::new() }
    }

    /// Takes in what a frame changed. `seal` is the size at which it is a seal.
    pub(crate) fn follow(
        &mut self,
        state: &State,
        changed: &[Slot],
        seal: Option<u64>,
    ) -> Result<(), StoreError> {
        for slot in changed.iter().filter(|slot| slot.is_digested()) {
            let new = state.value(slot).map(|value| Digest::term(&slot.encode(), &value));
            let old = match self.terms.insert(*slot, new) {
                Some(old) => old,
                None => match self.base {
                    Some(image) => image.value(slot)?.map(|value| Digest::term(&slot.encode(), &value)),
                    None => None,
                },
            };
            self.digest.replace(old, new);
        }
        if let Some(size) = seal.filter(|size| *size >= self.from)
            && self.seals.last().is_none_or(|(last, _)| *last < size)
        {
            self.seals.push((size, self.digest));
        }
        Ok(())
    }

    /// Compares a logged digest, and forgets the seals before it: digests are logged in order.
    pub(crate) fn compare(&mut self, logged: &StateDigest) -> Comparison {
        let found = self.at(logged.size);
        self.seals.retain(|(size, _)| *size >= logged.size);
        match found {
            Some(digest) if digest == logged.digest => Comparison::Same,
            Some(_) => Comparison::Different,
            None => Comparison::Unknown,
        }
    }

    /// The digest at a seal that is not forgotten.
    pub(crate) fn at(&self, size: u64) -> Option<crate::Hash> {
        let at = self.seals.binary_search_by_key(&size, |(size, _)| *size).ok()?;
        self.seals.get(at).map(|(_, digest)| digest.bytes())
    }
}
