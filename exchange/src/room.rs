//! Room for what callers have under way: requests, and the bytes of their bodies as these arrive.
//!
//! An organisation holds at most a third of what is free: one alone gets a quarter of the room, and several that take all
//! they can still leave some to the others. Where room is short, whoever has waited longest for the rest of a body loses
//! its room first, among those whose organisation holds as much as the one that asks.
//!
//! The gateway owns it; a request's [`Held`] gives its room back. It is memory, and empty after a crash.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use schemas::codes::Code;
use schemas::identifier::Uscc;
use tokio::sync::Notify;

/// How long a body has brought nothing before its room may be taken for another.
const STALLED: Duration = Duration::from_secs(1);

/// How much of the room must be free for each part of it that an organisation holds.
const FREE_FOR_EACH: usize = 3;

/// Requests, and bytes of their bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    requests: usize,
    bytes: usize,
}

/// The two things that may be short.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Requests,
    Bytes,
}

impl Amount {
    fn of(self, kind: Kind) -> usize {
        match kind {
            Kind::Requests => self.requests,
            Kind::Bytes => self.bytes,
        }
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
    }

    fn subtract(&mut self, other: Self) {
        self.requests -= other.requests;
        self.bytes -= other.bytes;
    }
}

/// Room that organisations share.
pub struct Room {
    state: Mutex<State>,
    stalled: Duration,
}

struct State {
    free: Amount,
    /// An organisation that holds nothing has no entry.
    organisations: FxHashMap<Uscc, Share>,
    /// Numbers the waits, so that two of one moment are two.
    waits: u64,
}

/// The room that one organisation holds.
#[derive(Default)]
struct Share {
    held: Amount,
    /// Requests that wait for the rest of their bodies, the longest first.
    waiting: BTreeMap<Wait, Waiting>,
}

/// Since when a body has brought nothing, and a number.
type Wait = (Instant, u64);

struct Waiting {
    held: Amount,
    ended: Arc<Notify>,
}

/// The room that one request holds; given back when dropped.
pub struct Held<'a> {
    room: &'a Room,
    organisation: Uscc,
    held: Amount,
    wait: Option<Wait>,
    ended: Option<Arc<Notify>>,
}

impl Room {
    /// Room for so many requests at once and so many bytes of their bodies.
    pub fn new(requests: usize, bytes: usize) -> Self {
        let state = State { free: Amount { requests, bytes }, organisations: FxHashMap::default(), waits: 0 };
        Self { state: Mutex::new(state), stalled: STALLED }
    }

    /// Where an organisation's request holds room; none yet.
    pub fn enter(&self, organisation: Uscc) -> Held<'_> {
        Held { room: self, organisation, held: Amount::default(), wait: None, ended: None }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives an organisation more, ending waits that stand in its way.
    fn give(&mut self, organisation: &Uscc, wanted: Amount, stalled: Duration) -> Result<(), Code> {
        loop {
            let held = self.organisations.get(organisation).map(|share| share.held).unwrap_or_default();
            let is_short = |kind| {
                let wanted = wanted.of(kind);
                wanted > 0 && FREE_FOR_EACH * (held.of(kind) + wanted) + wanted > self.free.of(kind)
            };
            let Some(kind) = [Kind::Bytes, Kind::Requests].into_iter().find(|kind| is_short(*kind)) else {
                self.organisations.entry(*organisation).or_default().held.add(wanted);
                self.free.subtract(wanted);
                return Ok(());
            };
            if !self.end_longest_wait(kind, held, stalled) {
                return Err(Code::Overloaded);
            }
        }
    }

    fn take_back(&mut self, organisation: &Uscc, held: Amount) {
        self.free.add(held);
        if let Some(share) = self.organisations.get_mut(organisation) {
            share.held.subtract(held);
            if share.held == Amount::default() {
                self.organisations.remove(organisation);
            }
        }
    }

    /// Ends the request that has waited longest for its body, of the organisations that hold at least as much as `own`.
    fn end_longest_wait(&mut self, kind: Kind, own: Amount, stalled: Duration) -> bool {
        let now = Instant::now();
        let longest = |share: &Share| {
            let stalled = share.waiting.iter().take_while(|((since, _), _)| *since + stalled <= now);
            stalled.into_iter().find(|(_, waiting)| waiting.held.of(kind) > 0).map(|(wait, _)| *wait)
        };
        let large = self.organisations.iter().filter(|(_, share)| share.held.of(kind) >= own.of(kind));
        let longest = large
            .filter_map(|(organisation, share)| Some((longest(share)?, *organisation)))
            .min_by_key(|(wait, _)| *wait);
        let Some((wait, organisation)) = longest else { return false };
        let share = self.organisations.get_mut(&organisation);
        let Some(waiting) = share.and_then(|share| share.waiting.remove(&wait)) else { return false };
        self.take_back(&organisation, waiting.held);
        waiting.ended.notify_one();
        true
    }
}

impl Held<'_> {
    /// Takes room for so many bytes more, and for the request itself the first time. The body has brought something, or
    /// is complete: it no longer waits.
    ///
    /// # Errors
    /// [`Code::Overloaded`]: there is no room. [`Code::RequestTimeout`]: the room was taken for another meanwhile.
    pub fn take(&mut self, bytes: usize) -> Result<(), Code> {
        let wanted = Amount { requests: 1_usize.saturating_sub(self.held.requests), bytes };
        if wanted == Amount::default() && self.wait.is_none() {
            return Ok(());
        }
        let state = &mut *self.room.state();
        if let Some(wait) = self.wait.take() {
            let share = state.organisations.get_mut(&self.organisation);
            if share.and_then(|share| share.waiting.remove(&wait)).is_none() {
                self.held = Amount::default();
                return Err(Code::RequestTimeout);
            }
        }
        state.give(&self.organisation, wanted, self.room.stalled)?;
        self.held.add(wanted);
        Ok(())
    }

    /// Takes room for so many requests more, which go with this one.
    ///
    /// # Errors
    /// Like [`Held::take`].
    pub fn take_more(&mut self, requests: usize) -> Result<(), Code> {
        self.take(0)?;
        let wanted = Amount { requests, bytes: 0 };
        self.room.state().give(&self.organisation, wanted, self.room.stalled)?;
        self.held.add(wanted);
        Ok(())
    }

    /// The body has brought nothing more by now: from here on the room may be taken for another, which the answer then
    /// tells of.
    ///
    /// # Errors
    /// Like [`Held::take`].
    pub fn wait(&mut self) -> Result<Arc<Notify>, Code> {
        self.take(0)?;
        let ended = Arc::clone(self.ended.get_or_insert_default());
        let state = &mut *self.room.state();
        state.waits += 1;
        let wait = (Instant::now(), state.waits);
        let waiting = Waiting { held: self.held, ended: Arc::clone(&ended) };
        if let Some(share) = state.organisations.get_mut(&self.organisation) {
            share.waiting.insert(wait, waiting);
            self.wait = Some(wait);
        }
        Ok(ended)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.held == Amount::default() {
            return;
        }
        let state = &mut *self.room.state();
        if let Some(wait) = self.wait {
            let share = state.organisations.get_mut(&self.organisation);
            if share.and_then(|share| share.waiting.remove(&wait)).is_none() {
                return;
            }
        }
        state.take_back(&self.organisation, self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::synthetic::Synthetic;

    const BYTES: usize = 1_024;

    /// A room in which whoever waits is stalled at once, and organisations.
    fn room() -> (Room, Vec<Uscc>) {
        let mut synthetic = Synthetic::new(26);
        let room = Room { stalled: Duration::ZERO, ..Room::new(64, BYTES) };
        (room, (0..8).map(|_| synthetic.uscc()).collect())
    }

    /// Fills the room with requests, as many as get in.
    fn fill<'a>(room: &'a Room, organisation: Uscc, bytes: usize) -> Vec<Held<'a>> {
        let mut all = Vec::new();
        loop {
            let mut held = room.enter(organisation);
            match held.take(bytes) {
                Ok(()) => all.push(held),
                Err(code) => {
                    assert_eq!(code, Code::Overloaded);
                    return all;
                }
            }
        }
    }

    fn is_empty(room: &Room) -> bool {
        let state = room.state();
        state.organisations.is_empty() && state.free == Amount { requests: 64, bytes: BYTES }
    }

    #[test]
    fn one_gets_a_quarter_and_others_still_find_some() {
        let (room, organisations) = room();
        for bytes in [1, 64] {
            let mut held = Vec::new();
            let mut counts = Vec::new();
            for organisation in &organisations {
                let filled = fill(&room, *organisation, bytes);
                counts.push(filled.len());
                held.extend(filled);
            }
            // The room has 64 requests, or 16 times 64 bytes.
            let of = if bytes == 1 { 64 } else { 16 };
            assert_eq!(counts[0], of / 4);
            assert!(counts[..4].iter().all(|count| *count > 0), "{counts:?}");
            drop(held);
            assert!(is_empty(&room));
        }
    }

    #[test]
    fn room_is_taken_from_the_longest_wait_of_whoever_holds_as_much() {
        let (room, organisations) = room();
        let (large, small) = (organisations[0], organisations[1]);
        let mut quiet = room.enter(small);
        quiet.take(8).expect("room");
        let told = quiet.wait().expect("room");
        let mut slow: Vec<Held<'_>> = fill(&room, large, 64);
        assert_eq!(slow.len(), 3, "a third of what is free");
        let ended: Vec<_> = slow.iter_mut().map(|held| held.wait().expect("room")).collect();
        // Its first brings something, so that the second has waited longest.
        slow[0].take(0).expect("not ended");
        slow[0].wait().expect("not ended");
        let mut next = room.enter(large);
        next.take(64).expect("the longest wait is ended");
        assert_eq!(slow[1].take(1), Err(Code::RequestTimeout));
        for (number, held) in slow.iter_mut().enumerate().filter(|(number, _)| *number != 1) {
            assert_eq!(held.take(0), Ok(()), "{number}");
        }
        // The one that holds less has waited longer than all of them, and keeps its room.
        assert_eq!(quiet.take(1), Ok(()));
        drop((told, ended));
        // Nobody waits: there is nothing to be taken.
        assert_eq!(room.enter(large).take(64), Err(Code::Overloaded));
        drop((slow, next, quiet));
        assert!(is_empty(&room));
    }

    #[test]
    fn many_requests_of_one_take_their_room_and_give_it_back() {
        let (room, organisations) = room();
        let mut held = room.enter(organisations[0]);
        assert_eq!(held.take_more(10), Ok(()));
        assert_eq!(held.take_more(10), Err(Code::Overloaded), "a quarter of 64");
        assert_eq!(held.take(8), Ok(()));
        assert_eq!(room.state().free, Amount { requests: 64 - 11, bytes: BYTES - 8 });
        drop(held);
        assert!(is_empty(&room));
    }

    #[test]
    fn a_short_wait_keeps_its_room() {
        let (room, organisations) = room();
        let room = Room { stalled: Duration::from_secs(3_600), ..room };
        let mut held = fill(&room, organisations[0], 64);
        let _ended: Vec<_> = held.iter_mut().map(|held| held.wait().expect("room")).collect();
        assert_eq!(room.enter(organisations[0]).take(64), Err(Code::Overloaded));
        assert!(held.iter_mut().all(|held| held.take(0).is_ok()));
    }

    #[tokio::test]
    async fn who_loses_its_room_is_woken() {
        let (room, organisations) = room();
        let mut held = fill(&room, organisations[0], 64);
        let ended = held[0].wait().expect("room");
        let mut next = room.enter(organisations[0]);
        next.take(64).expect("the wait is ended");
        ended.notified().await;
        drop((held, next));
        assert!(is_empty(&room));
    }
}
