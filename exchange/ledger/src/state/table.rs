//! Tables: what the state keeps by id, with an index by owner, a list in order, and rows that leave when they end.
//!
//! Written by the thread that applies entries, read by anyone; reads copy out. All of it is gone with the process and comes
//! again from the journal, or from the restart image.

use crate::{
    keys::crypt::Crypt,
    state::slot::{Digest, Slot},
};
use dashmap::DashMap;
use rustc_hash::FxBuildHasher;
#[cfg(test)]
use std::sync::atomic::AtomicUsize;
use std::{
    collections::BTreeSet,
    hash::Hash,
    ops::Bound,
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Whose a row is: a holder's label, a keyed hash, or the front of an organisation's digest.
pub type Owner = [u8; 16];

/// The owner that an organisation is, by its USCC.
pub(crate) fn organisation(code: &[u8; 18]) -> Owner {
    *verifier::sha256(&[code]).first_chunk().expect("a digest has 32 bytes")
}

/// Keys are keyed hashes and random labels, which nobody outside can choose: a fast hash is enough.
pub(crate) type Map<K, V> = DashMap<K, V, FxBuildHasher>;

/// Shards of a map. The sequencer waits for whoever reads one from end to end, and moves all of it when it grows: of 5,000,000
/// licenses 20,000.
const SHARDS: usize = 256;

pub(crate) fn map<K: Eq + Hash, V>() -> Map<K, V> {
    Map::with_hasher_and_shard_amount(FxBuildHasher, SHARDS)
}

/// Something of each pair of a map; each shard is locked while its own are visited.
pub(crate) fn gathered<K: Eq + Hash, V, T>(map: &Map<K, V>, take: impl Fn(&K, &V) -> T) -> Vec<T> {
    let count = map.len();
    // It may grow meanwhile, and growing the list would take long under a lock.
    let mut gathered = Vec::with_capacity(count + count / 16 + 1024);
    gathered.extend(map.iter().map(|pair| take(pair.key(), pair.value())));
    gathered
}

/// One kind of state: all that its table needs to know of a row.
pub(crate) trait Stored: Clone + Send + Sync {
    /// Whether rows have owners. Without one no index is kept.
    const OWNED: bool = false;
    /// Whether the ids are kept in order.
    const LISTED: bool = false;
    /// Whether rows end.
    const ENDING: bool = false;
    /// The id by which a row is found. The default stands before all others.
    type Id: Copy + Default + Eq + Hash + Ord + Send + Sync;

    /// The id of the row under a slot; `None` when no row can stand there.
    fn id(slot: &Slot, crypt: &Crypt) -> Option<Self::Id>;

    /// The slot of the row with this id.
    fn slot(&self, id: &Self::Id) -> Slot;

    /// Whose it is, each once.
    fn owners(&self, _id: &Self::Id) -> Vec<Owner> {
        Vec::new()
    }

    /// From this moment on (journal time, ms since 1970) it is gone.
    fn ends_ms(&self, _id: &Self::Id) -> u64 {
        u64::MAX
    }

    /// Its value in the restart image.
    fn encode(&self) -> Vec<u8>;

    /// The row of a value; `None` when it is malformed.
    fn decode(slot: &Slot, value: &[u8]) -> Option<Self>;
}

/// The rows of one kind.
pub(crate) struct Table<R: Stored> {
    rows: Map<R::Id, R>,
    owned: RwLock<BTreeSet<(Owner, R::Id)>>,
    listed: RwLock<BTreeSet<R::Id>>,
    /// Locked by the writer only.
    ends: Mutex<BTreeSet<(u64, R::Id)>>,
    /// The first of them, so that an entry that ends nothing asks for no lock.
    next_end_ms: AtomicU64,
    /// Rows given out or looked at, for tests of what a request touches.
    #[cfg(test)]
    pub(crate) visited: AtomicUsize,
}

impl<R: Stored> Table<R> {
    pub(crate) fn new() -> Self {
        Self {
            rows: map(),
            owned: RwLock::default(),
            listed: RwLock::default(),
            ends: Mutex::default(),
            next_end_ms: AtomicU64::new(u64::MAX),
            #[cfg(test)]
            visited: AtomicUsize::new(0),
        }
    }

    fn visit(&self) {
        #[cfg(test)]
        self.visited.fetch_add(1, Ordering::Relaxed);
    }

    /// Something of the row with an id.
    pub(crate) fn with<T>(&self, id: &R::Id, take: impl FnOnce(&R) -> T) -> Option<T> {
        self.rows.get(id).map(|row| {
            self.visit();
            take(&row)
        })
    }

    pub(crate) fn get(&self, id: &R::Id) -> Option<R> {
        self.with(id, R::clone)
    }

    pub(crate) fn contains(&self, id: &R::Id) -> bool {
        self.rows.contains_key(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// At most `count` ids of an owner's rows, ascending, from a bound on.
    pub(crate) fn owned(&self, owner: &Owner, from: Bound<R::Id>, count: usize) -> Vec<R::Id> {
        let from = match from {
            Bound::Included(id) => Bound::Included((*owner, id)),
            Bound::Excluded(id) => Bound::Excluded((*owner, id)),
            Bound::Unbounded => Bound::Included((*owner, R::Id::default())),
        };
        let owned = self.owned.read().unwrap_or_else(PoisonError::into_inner);
        let own = owned.range((from, Bound::Unbounded)).take_while(|(of, _)| of == owner);
        own.take(count).map(|(_, id)| *id).collect()
    }

    /// At most `count` ids, ascending, from a bound on and as long as they are `wanted`.
    pub(crate) fn listed(
        &self,
        from: Bound<R::Id>,
        count: usize,
        wanted: impl Fn(&R::Id) -> bool,
    ) -> Vec<R::Id> {
        let listed = self.listed.read().unwrap_or_else(PoisonError::into_inner);
        listed.range((from, Bound::Unbounded)).take_while(|id| wanted(id)).take(count).copied().collect()
    }

    /// Something of each row, in no order; each shard is locked while its own are visited.
    pub(crate) fn all<T>(&self, take: impl Fn(&R::Id, &R) -> T) -> Vec<T> {
        gathered(&self.rows, |id, row| {
            self.visit();
            take(id, row)
        })
    }

    /// Puts a row in the place of the one that may be there, which is given back.
    pub(crate) fn put(&self, id: R::Id, row: R) -> Option<R> {
        let (owners, ends_ms) = (row.owners(&id), row.ends_ms(&id));
        let old = self.rows.insert(id, row);
        let (old_owners, old_ends) = match &old {
            Some(old) => (old.owners(&id), Some(old.ends_ms(&id))),
            None => (Vec::new(), None),
        };
        if R::OWNED && owners != old_owners {
            let mut owned = self.owned.write().unwrap_or_else(PoisonError::into_inner);
            old_owners.iter().filter(|owner| !owners.contains(owner)).for_each(|owner| {
                owned.remove(&(*owner, id));
            });
            owned.extend(owners.into_iter().map(|owner| (owner, id)));
        }
        if R::LISTED && old.is_none() {
            self.listed.write().unwrap_or_else(PoisonError::into_inner).insert(id);
        }
        if R::ENDING && old_ends != Some(ends_ms) {
            self.end(old_ends, Some(ends_ms), id);
        }
        old
    }

    pub(crate) fn remove(&self, id: &R::Id) -> Option<R> {
        let (_, old) = self.rows.remove(id)?;
        if R::OWNED {
            let mut owned = self.owned.write().unwrap_or_else(PoisonError::into_inner);
            old.owners(id).into_iter().for_each(|owner| {
                owned.remove(&(owner, *id));
            });
        }
        if R::LISTED {
            self.listed.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        }
        if R::ENDING {
            self.end(Some(old.ends_ms(id)), None, *id);
        }
        Some(old)
    }

    /// Notes another end of a row.
    fn end(&self, old: Option<u64>, new: Option<u64>, id: R::Id) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        old.map(|old| ends.remove(&(old, id)));
        ends.extend(new.filter(|new| *new != u64::MAX).map(|new| (new, id)));
        self.next_end_ms.store(ends.first().map_or(u64::MAX, |(first, _)| *first), Ordering::Relaxed);
    }
}

/// A table of whatever kind, as the restart image and the digest see it.
pub(crate) trait AnyTable {
    /// The value of a slot; `None` when there is none any more.
    fn value(&self, slot: &Slot, crypt: &Crypt) -> Option<Vec<u8>>;

    /// Puts a value in place; `None` when it is malformed.
    fn load(&self, slot: &Slot, value: &[u8], crypt: &Crypt) -> Option<()>;

    fn holds(&self, slot: &Slot, crypt: &Crypt) -> bool;

    /// The slots of all rows; each shard is locked while its own are visited.
    fn slots(&self) -> Vec<Slot>;

    /// Takes in all rows.
    fn sum_up(&self, digest: &mut Digest);

    /// Lets the rows go that end at this moment or before it.
    fn end_rows(&self, time_ms: u64, changed: &mut Vec<Slot>);
}

impl<R: Stored> AnyTable for Table<R> {
    fn value(&self, slot: &Slot, crypt: &Crypt) -> Option<Vec<u8>> {
        self.rows.get(&R::id(slot, crypt)?).map(|row| row.encode())
    }

    fn load(&self, slot: &Slot, value: &[u8], crypt: &Crypt) -> Option<()> {
        self.put(R::id(slot, crypt)?, R::decode(slot, value)?);
        Some(())
    }

    fn holds(&self, slot: &Slot, crypt: &Crypt) -> bool {
        R::id(slot, crypt).is_some_and(|id| self.contains(&id))
    }

    fn slots(&self) -> Vec<Slot> {
        gathered(&self.rows, |id, row| row.slot(id))
    }

    fn sum_up(&self, digest: &mut Digest) {
        for row in &self.rows {
            digest.add(&row.slot(row.key()).encode(), &row.encode());
        }
    }

    fn end_rows(&self, time_ms: u64, changed: &mut Vec<Slot>) {
        while self.next_end_ms.load(Ordering::Relaxed) <= time_ms {
            let first = self.ends.lock().unwrap_or_else(PoisonError::into_inner).first().copied();
            let Some((_, id)) = first else { return };
            if let Some(row) = self.remove(&id) {
                changed.push(row.slot(&id));
            }
        }
    }
}
