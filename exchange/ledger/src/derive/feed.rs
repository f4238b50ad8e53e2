//! The queue from the sequencer to the restart image.
//!
//! The sequencer owns the feed, the image's thread the receiver. News that a crash cuts off is durable in the journal,
//! and the next start derives it.

use crate::{
    health::{Derived, Failing},
    journal::cursor::Cursor,
    state::slot::Slot,
};
use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering, fence},
    },
    time::Duration,
};

/// Messages of the sequencer's [`crate::commit::followers`] on their way to the image; beyond it the sequencer waits,
/// which bounds the lag.
const QUEUE: usize = 1024;
/// How long the sequencer waits before it gives the image up: an engine may hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// News for the image.
pub(crate) enum Change {
    /// Some groups were applied: what they changed, the values after them if they are wanted, and the size after them.
    Applied { slots: Vec<Slot>, values: Option<Vec<Option<Vec<u8>>>>, size: u64 },
    /// A seal was written; replay may begin behind it.
    Sealed(Box<Cursor>),
}

/// The sequencer's end of the queue to the image.
pub(crate) struct Feed {
    /// `None` when there is no image, or it was given up.
    sender: Option<Sender<Change>>,
    wanted: Arc<AtomicBool>,
    failing: Arc<Failing>,
}

impl Feed {
    /// A feed and what the image's thread takes from it; the flag asks for exact values.
    pub(crate) fn new(failing: Arc<Failing>) -> (Self, FeedReceiver) {
        let (sender, receiver) = bounded(QUEUE);
        let wanted = Arc::new(AtomicBool::new(false));
        let feed = Self { sender: Some(sender), wanted: Arc::clone(&wanted), failing: Arc::clone(&failing) };
        (feed, FeedReceiver { receiver, wanted, failing })
    }

    /// Whether the values are wanted of a group that was just applied. Is asked after it was applied.
    pub(crate) fn wants_values(&self) -> bool {
        // Pairs with the fence in `Follower::begin_snapshot`: either this group sees that values are wanted, or the
        // image's thread sees that it was applied before.
        fence(Ordering::SeqCst);
        self.wanted.load(Ordering::Relaxed)
    }

    /// Tells that groups were applied to the state: what they changed, with the values if they were wanted of all of them.
    pub(crate) fn applied(&mut self, slots: Vec<Slot>, values: Option<Vec<Option<Vec<u8>>>>, size: u64) {
        self.send(Change::Applied { slots, values, size });
    }

    /// Tells that a seal was written.
    pub(crate) fn sealed(&mut self, cursor: &Cursor) {
        self.send(Change::Sealed(Box::new(cursor.clone())));
    }

    fn send(&mut self, change: Change) {
        let Some(sender) = &self.sender else { return };
        match sender.send_timeout(change, PATIENCE) {
            Ok(()) => {}
            // A follower that has gone says so itself; the journal does not depend on it.
            Err(SendTimeoutError::Disconnected(_)) => self.sender = None,
            Err(SendTimeoutError::Timeout(_)) => {
                tracing::error!(
                    "the restart image does not keep up and is given up: the next start replays more"
                );
                metrics::counter!("miaoxiang_image_failures_total").increment(1);
                self.failing.set(Derived::Image, true);
                self.sender = None;
            }
        }
    }
}

/// The other end of a [`Feed`].
pub(crate) struct FeedReceiver {
    pub(crate) receiver: Receiver<Change>,
    pub(crate) wanted: Arc<AtomicBool>,
    pub(crate) failing: Arc<Failing>,
}
