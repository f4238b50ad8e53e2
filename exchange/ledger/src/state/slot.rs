//! How values of the state are named in the restart image, in snapshots and in the state's digest.
//!
//! Values. The numbers of kinds and the layout of a slot are those of files on the disk.

use crate::names::{Hash, Key, KeyName};

/// Kinds of values in the restart image and the state digest. Holders come before licenses, which refer to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Kind {
    Holder = 1,
    License = 2,
    Grant = 3,
    Document = 4,
    Counter = 5,
    Idempotency = 6,
    Oversight = 10,
    Delayed = 11,
    /// The epochs; one value.
    Epoch = 16,
    /// A holder's key, wrapped, with class and year in place of a number: in the restart image alone. The journal and the epoch's key file are its truth.
    HolderKey = 17,
}

/// A license's value without the labels of its holders, which stand behind it: see `State::encode_license`.
pub(crate) const LICENSE_BYTES: usize = 8 + 8 + 4 + 4 + 4 + 2 + 1 + 1 + 18;

/// Names one value of the state in the restart image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot {
    pub(crate) kind: Kind,
    pub(crate) key: [u8; 16],
    /// Document kind, counter day, or class and year of a holder's key; 0 for all else.
    pub(crate) sub: u32,
}

impl Slot {
    pub(crate) const BYTES: usize = 21;

    pub(crate) const fn new(kind: Kind, key: Key, sub: u32) -> Self {
        Self { kind, key, sub }
    }

    /// The slot of a delayed use: its index in place of a key.
    pub(crate) fn of_delayed(index: u64) -> Self {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&index.to_be_bytes());
        Self::new(Kind::Delayed, key, 0)
    }

    /// The slot of a holder's key.
    pub(crate) fn of_key(name: &KeyName) -> Self {
        Self::new(Kind::HolderKey, name.label, u32::from(name.class) << 16 | u32::from(name.year))
    }

    /// Which key the slot of a holder's key is of.
    pub(crate) fn key_name(&self) -> KeyName {
        let [_, class, century, year] = self.sub.to_be_bytes();
        KeyName { label: self.key, class, year: u16::from_be_bytes([century, year]) }
    }

    /// The index in the slot of a delayed use.
    pub(crate) fn delayed_index(&self) -> u64 {
        u64::from_be_bytes(*self.key.first_chunk().expect("a key has 16 bytes"))
    }

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = self.kind as u8;
        bytes[1..17].copy_from_slice(&self.key);
        bytes[17..].copy_from_slice(&self.sub.to_be_bytes());
        bytes
    }

    /// Whether it is a holder's, which is loaded before all that names it.
    pub(crate) fn is_holder(&self) -> bool {
        self.kind == Kind::Holder
    }

    /// The slots of the holders that a value under this slot names so that it cannot be loaded without them.
    pub(crate) fn named<'a>(&self, value: &'a [u8]) -> impl Iterator<Item = Self> + 'a {
        let labels = if self.kind == Kind::License { value.get(LICENSE_BYTES..) } else { None };
        let labels = labels.unwrap_or_default().as_chunks::<16>().0;
        labels.iter().map(|label| Self::new(Kind::Holder, *label, 0))
    }

    /// Whether the digest of the state holds it.
    pub(crate) fn is_digested(&self) -> bool {
        self.kind != Kind::HolderKey
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let kind = match bytes[0] {
            1 => Kind::Holder,
            2 => Kind::License,
            3 => Kind::Grant,
            4 => Kind::Document,
            5 => Kind::Counter,
            6 => Kind::Idempotency,
            10 => Kind::Oversight,
            11 => Kind::Delayed,
            16 => Kind::Epoch,
            17 => Kind::HolderKey,
            _ => return None,
        };
        Some(Self::new(kind, *bytes[1..].first_chunk()?, u32::from_be_bytes(*bytes.last_chunk()?)))
    }
}

/// A digest of a set of pairs that does not depend on their order and can be kept up to date pair by pair: the sum
/// of SHA-256(key ‖ value), as four wrapping 64-bit lanes. It guards against damage, not against an adversary,
/// who would have to change the journal. It leaves out the holders' keys: how they are wrapped changes, and what the
/// journal says does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digest(Term);

/// The part of a [`Digest`] that one pair adds.
pub(crate) type Term = [u64; 4];

impl Digest {
    pub(crate) fn add(&mut self, key: &[u8; Slot::BYTES], value: &[u8]) {
        self.replace(None, Some(Self::term(key, value)));
    }

    /// Takes all that another one sums up out.
    pub(crate) fn subtract(&mut self, other: &Self) {
        self.replace(Some(other.0), None);
    }

    /// Takes the term of an old pair out and the term of a new one in.
    pub(crate) fn replace(&mut self, old: Option<Term>, new: Option<Term>) {
        for (lane, term) in self.0.iter_mut().zip(old.into_iter().flatten()) {
            *lane = lane.wrapping_sub(term);
        }
        for (lane, term) in self.0.iter_mut().zip(new.into_iter().flatten()) {
            *lane = lane.wrapping_add(term);
        }
    }

    pub(crate) fn bytes(&self) -> Hash {
        let mut bytes = [0; 32];
        for (chunk, lane) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.0) {
            *chunk = lane.to_be_bytes();
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &Hash) -> Self {
        let mut lanes = [0; 4];
        for (lane, chunk) in lanes.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *lane = u64::from_be_bytes(*chunk);
        }
        Self(lanes)
    }

    /// The part of the sum that a pair adds.
    pub(crate) fn term(key: &[u8; Slot::BYTES], value: &[u8]) -> Term {
        if key[0] == Kind::HolderKey as u8 {
            return Term::default();
        }
        Self::from_bytes(&verifier::sha256(&[key, value])).0
    }
}

/// Takes the next bytes off.
pub(crate) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}
