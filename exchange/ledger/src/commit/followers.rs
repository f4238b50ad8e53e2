//! News for the threads behind the sequencer: tiles, restart image, index. They derive, and no answer waits for them,
//! so the sequencer gathers what they need over some groups. A message to each for every group would cost the processor
//! three wake-ups a group, more than the followers' own work.
//!
//! Owned by the sequencer. News that a crash cuts off is durable in the journal, and the next start derives it.

use crate::{
    derive::{feed::Feed, index, tiles},
    journal::cursor::Cursor,
    names::{Hash, Label},
    state::{State, slot::Slot},
};
use crossbeam_channel::Sender;
use std::time::{Duration, Instant};
use verifier::{
    checkpoint::Checkpoint,
    leaf::{HolderLink, LEAF_BYTES},
    note::VerifierKey,
};

/// The followers are told at least this often while groups come.
const INTERVAL: Duration = Duration::from_millis(100);
/// And after so many entries, which bounds a message.
const MOST_ENTRIES: usize = 8192;

/// A durable entry, as the followers need it.
pub(crate) struct Followed<'a> {
    pub(crate) leaf: &'a [u8; LEAF_BYTES],
    pub(crate) leaf_hash: &'a Hash,
    /// Its links in the holders' own sequences; none for a delayed use.
    pub(crate) links: &'a [HolderLink],
}

/// The sequencer's end of the queues to its followers.
pub(crate) struct Followers {
    tiles: Sender<tiles::Written>,
    image: Feed,
    /// Unbounded: the follower commits entries itself, so the sequencer must never wait for it.
    index: Option<Sender<index::Change>>,
    key: VerifierKey,
    gathered: Gathered,
    /// When the followers were told last.
    told: Instant,
}

/// News that the followers are not told yet.
#[derive(Default)]
struct Gathered {
    leaves: Vec<[u8; LEAF_BYTES]>,
    hashes: Vec<Hash>,
    slots: Vec<Slot>,
    /// One for each slot, if the image wants them of these groups.
    values: Option<Vec<Option<Vec<u8>>>>,
    heads: Vec<(Label, u64, Hash)>,
    /// The checkpoint of the last group, with the signature. `None` when nothing is gathered.
    last: Option<(Checkpoint, [u8; 64])>,
}

impl Followers {
    pub(crate) fn new(
        tiles: Sender<tiles::Written>,
        image: Feed,
        index: Option<Sender<index::Change>>,
        key: VerifierKey,
    ) -> Self {
        Self { tiles, image, index, key, gathered: Gathered::default(), told: Instant::now() }
    }

    /// Takes in a group that was just applied to the state: what it changed, its entries, its checkpoint.
    pub(crate) fn gather<'a>(
        &mut self,
        state: &State,
        slots: &[Slot],
        entries: impl Iterator<Item = Followed<'a>>,
        checkpoint: &Checkpoint,
        signature: &[u8; 64],
    ) {
        let wanted = self.image.wants_values();
        if self.gathered.values.is_some() != wanted {
            self.tell();
        }
        let gathered = &mut self.gathered;
        if wanted {
            let values = slots.iter().map(|slot| state.value(slot));
            gathered.values.get_or_insert_default().extend(values);
        }
        gathered.slots.extend_from_slice(slots);
        for entry in entries {
            gathered.leaves.push(*entry.leaf);
            gathered.hashes.push(*entry.leaf_hash);
            if self.index.is_some() {
                let heads = entry.links.iter().map(|link| (link.label, link.sequence, *entry.leaf_hash));
                gathered.heads.extend(heads);
            }
        }
        gathered.last = Some((checkpoint.clone(), *signature));
    }

    /// Tells the followers what was gathered, when it is time. Their bounded queues may make the sequencer wait.
    pub(crate) fn tell_when_due(&mut self) {
        if self.gathered.leaves.len() >= MOST_ENTRIES || self.told.elapsed() >= INTERVAL {
            self.tell();
        }
    }

    /// Tells the followers what was gathered.
    pub(crate) fn tell(&mut self) {
        let Gathered { leaves, hashes, slots, values, heads, last } = std::mem::take(&mut self.gathered);
        let Some((checkpoint, signature)) = last else { return };
        let size = checkpoint.size;
        let checkpoint = checkpoint.signed_text(&self.key, &signature);
        // A follower that has gone says so itself.
        let _ = self.tiles.send(tiles::Written { leaves, hashes, size, checkpoint });
        self.image.applied(slots, values, size);
        if let Some(index) = &self.index {
            let _ = index.send(index::Change { heads, size });
        }
        self.told = Instant::now();
    }

    /// Tells everything, and that a seal was written behind it.
    pub(crate) fn sealed(&mut self, cursor: &Cursor) {
        self.tell();
        self.image.sealed(cursor);
    }
}
