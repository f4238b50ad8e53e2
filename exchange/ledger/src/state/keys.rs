//! The keys of one holder: one for each retention class and year that has not ended.
//!
//! Owned by the holder's cell, overwritten when dropped. The journal and the epoch's key file are their truth. A crash
//! leaves nothing else.

use crate::names::{KeyName, Label};
use std::num::NonZeroU8;
use zeroize::Zeroizing;

/// One key of a holder in memory.
pub(crate) struct KeyCell {
    /// `None` while replay has not met the place that holds it. In a box of its own: the table moves its cells when it
    /// grows, and what it leaves behind is not overwritten.
    pub(crate) secret: Option<Box<Zeroizing<[u8; 32]>>>,
    /// Epoch that the key was born in.
    pub(crate) epoch: u32,
    year: u16,
    class: NonZeroU8,
}

impl KeyCell {
    /// Bytes of a key in a holder's value.
    pub(crate) const BYTES: usize = 1 + 2 + 4;

    /// A key whose secret is not at hand yet; `None` for a class that there is not.
    pub(crate) fn new(name: &KeyName, epoch: u32) -> Option<Self> {
        Some(Self { secret: None, epoch, year: name.year, class: NonZeroU8::new(name.class)? })
    }

    fn place(&self) -> (u16, u8) {
        (self.year, self.class.get())
    }

    pub(crate) fn name(&self, label: &Label) -> KeyName {
        KeyName { label: *label, class: self.class.get(), year: self.year }
    }

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let ([century, year], [a, b, c, d]) = (self.year.to_be_bytes(), self.epoch.to_be_bytes());
        [self.class.get(), century, year, a, b, c, d]
    }

    pub(crate) fn decode(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let [class, century, year, epoch @ ..] = *bytes;
        let (year, class) = (u16::from_be_bytes([century, year]), NonZeroU8::new(class)?);
        Some(Self { secret: None, epoch: u32::from_be_bytes(epoch), year, class })
    }
}

/// The keys of a holder that exist, by year and class. Most holders have one.
pub(crate) enum Keys {
    One(KeyCell),
    #[expect(clippy::box_collection, reason = "a thin pointer keeps a holder within its bytes")]
    Any(Box<Vec<KeyCell>>),
}

impl Keys {
    pub(crate) fn none() -> Self {
        Self::Any(Box::default())
    }

    pub(crate) fn all(&self) -> &[KeyCell] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Any(any) => any,
        }
    }

    fn all_mut(&mut self) -> &mut [KeyCell] {
        match self {
            Self::One(one) => std::slice::from_mut(one),
            Self::Any(any) => any,
        }
    }

    pub(crate) fn get(&self, name: &KeyName) -> Option<&KeyCell> {
        self.all().iter().find(|key| key.place() == (name.year, name.class))
    }

    pub(crate) fn get_mut(&mut self, name: &KeyName) -> Option<&mut KeyCell> {
        self.all_mut().iter_mut().find(|key| key.place() == (name.year, name.class))
    }

    /// Puts a key in the place of the one of its name, if there is one.
    pub(crate) fn put(&mut self, key: KeyCell) {
        let at = match self.all().binary_search_by_key(&key.place(), KeyCell::place) {
            Ok(at) => return self.all_mut()[at] = key,
            Err(at) => at,
        };
        let mut any = match std::mem::replace(self, Self::none()) {
            Self::Any(any) if any.is_empty() => return *self = Self::One(key),
            Self::Any(any) => any,
            Self::One(one) => Box::new(vec![one]),
        };
        any.insert(at, key);
        *self = Self::Any(any);
    }

    pub(crate) fn remove(&mut self, name: &KeyName) {
        let gone = |key: &KeyCell| key.place() == (name.year, name.class);
        match self {
            Self::One(one) if gone(one) => *self = Self::none(),
            Self::One(_) => {}
            Self::Any(any) => any.retain(|key| !gone(key)),
        }
    }
}
