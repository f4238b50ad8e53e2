//! The rows of the state: grants, documents, counters, sequences, delayed uses, bound idempotency keys. All that is particular to
//! one kind stands here: what names it, whose it is, when it ends, its bytes in the restart image.
//!
//! Values; the tables own them. They are memory, and replay makes them again.

pub use crate::journal::record::{GrantLink, GrantState as Grant, GrantTarget};
use crate::{
    keys::crypt::Crypt,
    names::{Hash, Key, Label, Position},
    state::{
        fact::DocumentKind,
        slot::{Kind, Slot, take},
        table::{Owner, Stored, organisation},
    },
};
use std::sync::Arc;

/// China Standard Time is UTC+8 all year.
const CST_OFFSET_MS: u64 = 8 * 3600 * 1000;
const MS_PER_DAY: u64 = 86_400_000;

impl Stored for Grant {
    const OWNED: bool = true;
    /// A keyed hash of the key: what lies unsealed on the disk has the key alone.
    type Id = Key;

    fn id(slot: &Slot, crypt: &Crypt) -> Option<Key> {
        Some(crypt.grant_id(&slot.key))
    }

    fn slot(&self, _id: &Key) -> Slot {
        Slot::new(Kind::Grant, self.key, 0)
    }

    /// The holder who made it and the organisation that may use it, neither of which ever changes.
    fn owners(&self, _id: &Key) -> Vec<Owner> {
        vec![self.holder, organisation(&self.grantee)]
    }

    fn encode(&self) -> Vec<u8> {
        let mut more = Vec::new();
        if !self.more_targets.is_empty() {
            // Admission refuses more than 16.
            more.push(self.more_targets.len() as u8);
            more.extend(self.more_targets.iter().flat_map(target_bytes));
        }
        [
            &self.version.to_be_bytes()[..],
            &[self.state],
            &self.holder,
            &self.grantee,
            &self.target,
            &[u8::from(self.target_is_type), self.modes],
            &self.fields.to_be_bytes(),
            &self.item_tag.to_be_bytes(),
            &self.until_ms.to_be_bytes(),
            &self.max_uses.to_be_bytes(),
            &self.portal,
            &[self.scenario, self.assurance],
            &self.user_tag.to_be_bytes(),
            // Admission refuses more than 16.
            &[self.chain.len() as u8],
            &self.chain.iter().flat_map(link_bytes).collect::<Vec<u8>>(),
            // A purpose, and further targets.
            &[u8::from(self.purpose.is_some()) | u8::from(!self.more_targets.is_empty()) << 1],
            &more,
            self.purpose.as_deref().unwrap_or_default().as_bytes(),
        ]
        .concat()
    }

    fn decode(slot: &Slot, mut value: &[u8]) -> Option<Self> {
        let r = &mut value;
        let mut grant = Self {
            key: slot.key,
            version: u32::from_be_bytes(take(r)?),
            state: u8::from_be_bytes(take(r)?),
            holder: take(r)?,
            grantee: take(r)?,
            target: take(r)?,
            target_is_type: u8::from_be_bytes(take(r)?) != 0,
            modes: u8::from_be_bytes(take(r)?),
            fields: u64::from_be_bytes(take(r)?),
            item_tag: u64::from_be_bytes(take(r)?),
            until_ms: u64::from_be_bytes(take(r)?),
            max_uses: u32::from_be_bytes(take(r)?),
            portal: take(r)?,
            scenario: u8::from_be_bytes(take(r)?),
            assurance: u8::from_be_bytes(take(r)?),
            user_tag: u64::from_be_bytes(take(r)?),
            ..Self::default()
        };
        let count = u8::from_be_bytes(take(r)?);
        let link = |_| Some(GrantLink { key: take(r)?, since_ms: u64::from_be_bytes(take(r)?) });
        grant.chain = (0..count).map(link).collect::<Option<_>>()?;
        let flags = u8::from_be_bytes(take(r)?);
        let (has_purpose, has_more) = (flags & 1 != 0, flags & 2 != 0);
        if has_more {
            let count = u8::from_be_bytes(take(r)?);
            let target = |_| Some(GrantTarget { key: take(r)?, fields: u64::from_be_bytes(take(r)?) });
            grant.more_targets = (0..count).map(target).collect::<Option<_>>()?;
        }
        grant.purpose = has_purpose.then(|| std::str::from_utf8(value).map(Arc::from)).transpose().ok()?;
        (has_purpose || value.is_empty()).then_some(grant)
    }
}

fn target_bytes(target: &GrantTarget) -> Vec<u8> {
    [&target.key[..], &target.fields.to_be_bytes()].concat()
}

fn link_bytes(link: &GrantLink) -> Vec<u8> {
    [&link.key[..], &link.since_ms.to_be_bytes()].concat()
}

/// A document as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Fact version.
    pub version: u32,
    /// The document.
    pub value: Arc<[u8]>,
    /// Whom the document belongs to: labels or keyed hashes.
    pub owners: Vec<Owner>,
    /// From this moment on (journal time, ms since 1970) the document is gone; 0 = without end.
    pub ends_ms: u64,
    /// Index of the entry that wrote it.
    pub index: u64,
}

/// A document's kind and key.
pub(crate) type DocumentId = (u8, Key);

impl Stored for Document {
    const OWNED: bool = true;
    const LISTED: bool = true;
    const ENDING: bool = true;
    type Id = DocumentId;

    fn id(slot: &Slot, _crypt: &Crypt) -> Option<DocumentId> {
        let kind = u8::try_from(slot.sub).ok()?;
        DocumentKind::from_number(kind).map(|_| (kind, slot.key))
    }

    fn slot(&self, (kind, key): &DocumentId) -> Slot {
        Slot::new(Kind::Document, *key, (*kind).into())
    }

    fn owners(&self, _id: &DocumentId) -> Vec<Owner> {
        self.owners.clone()
    }

    fn ends_ms(&self, _id: &DocumentId) -> u64 {
        if self.ends_ms == 0 { u64::MAX } else { self.ends_ms }
    }

    fn encode(&self) -> Vec<u8> {
        [
            &self.version.to_be_bytes()[..],
            &self.ends_ms.to_be_bytes(),
            &self.index.to_be_bytes(),
            // Admission refuses more than 16.
            &[self.owners.len() as u8],
            self.owners.as_flattened(),
            &self.value,
        ]
        .concat()
    }

    fn decode(_slot: &Slot, mut value: &[u8]) -> Option<Self> {
        let r = &mut value;
        let (version, ends_ms) = (u32::from_be_bytes(take(r)?), u64::from_be_bytes(take(r)?));
        let index = u64::from_be_bytes(take(r)?);
        let count = u8::from_be_bytes(take(r)?);
        let owners = (0..count).map(|_| take(r)).collect::<Option<Vec<Owner>>>()?;
        Some(Self { version, value: value.into(), owners, ends_ms, index })
    }
}

/// The value of a counter of one day, or of none.
#[derive(Clone, Copy)]
pub(crate) struct Counter(pub(crate) u32);

impl Stored for Counter {
    const ENDING: bool = true;
    /// The counter, and the day in China Standard Time; 0 for a counter that never resets.
    type Id = (Key, u32);

    fn id(slot: &Slot, _crypt: &Crypt) -> Option<Self::Id> {
        Some((slot.key, slot.sub))
    }

    fn slot(&self, (key, day): &Self::Id) -> Slot {
        Slot::new(Kind::Counter, *key, *day)
    }

    /// With the day after its own: until then a decision of its day may still be committed.
    fn ends_ms(&self, (_, day): &Self::Id) -> u64 {
        if *day == 0 {
            return u64::MAX;
        }
        ((u64::from(*day) + 2) * MS_PER_DAY).saturating_sub(CST_OFFSET_MS)
    }

    fn encode(&self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }

    fn decode(_slot: &Slot, value: &[u8]) -> Option<Self> {
        Some(Self(u32::from_be_bytes(value.try_into().ok()?)))
    }
}

/// A bound idempotency key: where the original answer and receipt stand. See [`crate::Ledger::original`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Keyed hash of the request that bound it.
    pub request: Key,
    /// Index of its entry.
    pub index: u64,
    /// Journal time of its entry.
    pub time_ms: u64,
    /// USCC of the organisation.
    pub organisation: [u8; 18],
    pub(crate) answer: Position,
    pub(crate) frame: Position,
}

impl Stored for Bound {
    type Id = Key;

    fn id(slot: &Slot, _crypt: &Crypt) -> Option<Key> {
        Some(slot.key)
    }

    fn slot(&self, key: &Key) -> Slot {
        Slot::new(Kind::Idempotency, *key, 0)
    }

    fn encode(&self) -> Vec<u8> {
        [
            &self.request[..],
            &self.index.to_be_bytes(),
            &self.time_ms.to_be_bytes(),
            &self.organisation,
            &self.answer.0.to_be_bytes(),
            &self.frame.0.to_be_bytes(),
        ]
        .concat()
    }

    fn decode(_slot: &Slot, mut value: &[u8]) -> Option<Self> {
        let r = &mut value;
        let bound = Self {
            request: take(r)?,
            index: u64::from_be_bytes(take(r)?),
            time_ms: u64::from_be_bytes(take(r)?),
            organisation: take(r)?,
            answer: Position(u64::from_be_bytes(take(r)?)),
            frame: Position(u64::from_be_bytes(take(r)?)),
        };
        value.is_empty().then_some(bound)
    }
}

/// A holder's latest entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Number of entries that concern the holder.
    pub sequence: u64,
    /// Frame of the latest; [`Position::NONE`] before the first.
    pub frame: Position,
    /// Index of the latest.
    pub index: u64,
    /// Leaf hash of the latest.
    pub leaf_hash: Hash,
}

impl Head {
    pub(crate) fn to_bytes(self) -> [u8; 56] {
        let mut bytes = [0; 56];
        bytes[..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.frame.0.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.index.to_be_bytes());
        bytes[24..].copy_from_slice(&self.leaf_hash);
        bytes
    }

    pub(crate) fn take(rest: &mut &[u8]) -> Option<Self> {
        Some(Self {
            sequence: u64::from_be_bytes(take(rest)?),
            frame: Position(u64::from_be_bytes(take(rest)?)),
            index: u64::from_be_bytes(take(rest)?),
            leaf_hash: take(rest)?,
        })
    }
}

/// Few holders have an oversight sequence, so it is no part of the holder's cell.
impl Stored for Head {
    type Id = Label;

    fn id(slot: &Slot, _crypt: &Crypt) -> Option<Label> {
        Some(slot.key)
    }

    fn slot(&self, label: &Label) -> Slot {
        Slot::new(Kind::Oversight, *label, 0)
    }

    fn encode(&self) -> Vec<u8> {
        self.to_bytes().to_vec()
    }

    fn decode(_slot: &Slot, mut value: &[u8]) -> Option<Self> {
        Self::take(&mut value).filter(|_| value.is_empty())
    }
}

/// A use that its holders are not told of yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delayed {
    /// Index of its entry.
    pub index: u64,
    /// From when on it may be told, ms since 1970.
    pub release_ms: u64,
    /// Labels of the holders it concerns.
    pub holders: Vec<Label>,
}

impl Stored for Delayed {
    const OWNED: bool = true;
    /// The index of its entry.
    type Id = u64;

    fn id(slot: &Slot, _crypt: &Crypt) -> Option<u64> {
        Some(slot.delayed_index())
    }

    fn slot(&self, index: &u64) -> Slot {
        Slot::of_delayed(*index)
    }

    fn owners(&self, _index: &u64) -> Vec<Owner> {
        self.holders.clone()
    }

    fn encode(&self) -> Vec<u8> {
        [&self.release_ms.to_be_bytes()[..], self.holders.as_flattened()].concat()
    }

    fn decode(slot: &Slot, mut value: &[u8]) -> Option<Self> {
        let release_ms = u64::from_be_bytes(take(&mut value)?);
        let (holders, odd) = value.as_chunks();
        let delayed = Self { index: slot.delayed_index(), release_ms, holders: holders.to_vec() };
        odd.is_empty().then_some(delayed)
    }
}
