//! A worker's view of the current version.

use crate::publisher::{GONE, Seen, Shared, Version};
use crate::sync::{Arc, Ordering};

/// Reads the current version of `T`; one per worker.
pub struct Subscriber<T> {
    shared: Arc<Shared<T>>,
    value: Arc<T>,
    epoch: u64,
    seen: Seen,
}

impl<T> Subscriber<T> {
    pub(crate) fn new(shared: Arc<Shared<T>>, version: &Version<T>, seen: Seen) -> Self {
        Self {
            shared,
            value: Arc::clone(&version.value),
            epoch: version.epoch,
            seen,
        }
    }

    /// Moves to the newest version and returns it: once per burst, so that a burst sees one state. Without a new one
    /// it costs the read of a cache line that rarely changes.
    ///
    /// It also tells the publisher that older versions are not used here any more. So a clone of what is returned is
    /// dropped before the next call, else an old version is freed on this thread; and a thread that sleeps wakes
    /// often enough to call it, or the publisher keeps all versions made meanwhile.
    #[inline]
    pub fn refresh(&mut self) -> &Arc<T> {
        // Pairs with the Release in `Publisher::publish`.
        if self.shared.latest.load(Ordering::Acquire) != self.epoch {
            self.advance();
        }
        &self.value
    }

    #[cold]
    fn advance(&mut self) {
        let version = self.shared.slot.load();
        self.value = Arc::clone(&version.value);
        self.epoch = version.epoch;
        drop(version);
        // After the old copy and the slot's are dropped, not before: see `publisher`. Release, for `collect`.
        self.seen.store(self.epoch, Ordering::Release);
    }

    /// The version of the last refresh.
    #[inline]
    pub fn current(&self) -> &Arc<T> {
        &self.value
    }

    /// Its epoch.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl<T> Drop for Subscriber<T> {
    fn drop(&mut self) {
        // The last copy may be dropped right after this, by the fields' own drop: then a version dies here.
        // Subscribers are dropped when their worker ends, where that does no harm.
        self.seen.store(GONE, Ordering::Release);
    }
}
