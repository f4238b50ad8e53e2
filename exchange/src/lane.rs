//! Work that reads much from disk runs in lanes of a few places each, so that it takes neither the threads nor the
//! processors that requests and other work of its kind need. One caller gets half of a lane's places.
//!
//! The gateway owns the lanes. They are memory, and work in them only reads: a crash leaves nothing.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use schemas::codes::Code;
use tokio::sync::Semaphore;

/// Longest wait for a place.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// Places for blocking work of one kind, shared by callers that a `K` names.
pub struct Lane<K: Eq + Hash> {
    places: Arc<Semaphore>,
    /// Places of one caller.
    each: usize,
    /// The places of those who have work here.
    callers: DashMap<K, Arc<Semaphore>>,
}

/// A caller with work in a lane; leaves no trace when dropped.
struct Visit<K: Copy + Eq + Hash> {
    lane: Arc<Lane<K>>,
    caller: K,
    places: Arc<Semaphore>,
}

impl<K: Copy + Eq + Hash> Drop for Visit<K> {
    fn drop(&mut self) {
        // Ours and the map's are the last two: the caller has no other work.
        self.lane.callers.remove_if(&self.caller, |_, places| Arc::strong_count(places) <= 2);
    }
}

impl<K: Copy + Eq + Hash + Send + Sync + 'static> Lane<K> {
    /// A lane of so many places.
    pub fn new(places: usize) -> Arc<Self> {
        let each = places.div_ceil(2);
        Arc::new(Self { places: Arc::new(Semaphore::new(places)), each, callers: DashMap::new() })
    }

    /// Runs work on a thread that may block, as soon as the caller and the lane have a place. Callers take turns. The place
    /// is kept until the work is done, also when nobody waits for it any more.
    ///
    /// # Errors
    /// [`Code::Overloaded`]: no place came free in time. [`Code::Internal`]: the work panicked.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        caller: K,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Code> {
        let places =
            Arc::clone(&*self.callers.entry(caller).or_insert_with(|| Arc::new(Semaphore::new(self.each))));
        let visit = Visit { lane: Arc::clone(self), caller, places };
        let place = async {
            let own = Arc::clone(&visit.places).acquire_owned().await?;
            Ok::<_, tokio::sync::AcquireError>((own, Arc::clone(&self.places).acquire_owned().await?))
        };
        let place = tokio::time::timeout(LONGEST_WAIT, place).await.map_err(|_| Code::Overloaded)?;
        let place = place.map_err(|_| Code::Internal)?;
        let work = tokio::task::spawn_blocking(move || {
            // Dropped in this order, also by a panic: the visit is over when the place is free.
            let _visit = visit;
            let _place = place;
            work()
        });
        work.await.map_err(|_| Code::Internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_flood_of_one_caller_leaves_places_for_another_and_no_trace() {
        let lane = Lane::<u8>::new(4);
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
        let flood: Vec<_> = (0..600)
            .map(|_| {
                let (lane, held, started) = (Arc::clone(&lane), Arc::clone(&held), started.clone());
                tokio::spawn(async move {
                    lane.run(1, move || {
                        let _ = started.send(());
                        let _ = held.lock().expect("no panic").recv();
                    })
                    .await
                })
            })
            .collect();
        for _ in 0..2 {
            starts.recv().await.expect("the flood has its places");
        }
        // Another caller's work is done while the flood's is held, and so is what is on no lane.
        assert_eq!(lane.run(2, || 7).await, Ok(7));
        assert_eq!(tokio::task::spawn_blocking(|| 8).await.expect("no panic"), 8);
        // A caller that goes away leaves its place to its work, and is forgotten with it.
        for one in flood {
            one.abort();
        }
        assert_eq!(lane.places.available_permits(), 2);
        drop(release);
        while !lane.callers.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(lane.places.available_permits(), 4);
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_place_back() {
        let lane = Lane::<u8>::new(1);
        let failed = lane.run(1, || -> u8 { panic!("on purpose") }).await;
        assert_eq!(failed, Err(Code::Internal));
        assert_eq!(lane.run(1, || 7).await, Ok(7));
        assert!(lane.callers.is_empty());
    }
}
