//! The one thread that makes new versions, and that alone destroys old ones.
//!
//! ```text
//! publisher                                   subscriber (worker)
//! swap pointer
//! latest = e            --- Release/Acquire -->  reads latest: differs from its own
//!                                                copies the pointer, drops its copy of the old version
//! collect: reads seen   <-- Release/Acquire ---  seen = e
//! drops versions older than every `seen`
//! ```
//!
//! The load-bearing order is in [`Subscriber::refresh`]: the old copy is dropped *before* `seen` is raised. So when
//! the publisher reads `seen`, its own copy of an older version is the last one, and the version is freed here. Tables
//! of a million routes take milliseconds to free, which no worker can afford.

use crossbeam::utils::CachePadded;

use crate::Subscriber;
use crate::sync::{Arc, AtomicU64, Ordering, Slot};

/// A version and its number.
pub(crate) struct Version<T> {
    pub(crate) epoch: u64,
    pub(crate) value: Arc<T>,
}

/// What publisher and subscribers share.
pub(crate) struct Shared<T> {
    pub(crate) slot: Slot<Version<T>>,
    /// Number of the version in `slot`, or of an earlier one for a moment. publisher: rw, subscribers: ro. Alone on
    /// its cache line: workers read it every burst, and it changes rarely.
    pub(crate) latest: CachePadded<AtomicU64>,
}

/// The epoch a subscriber has seen. subscriber: wo, publisher: ro. [`GONE`] once the subscriber is dropped.
pub(crate) type Seen = Arc<CachePadded<AtomicU64>>;

/// Above all epochs: holds nothing back.
pub(crate) const GONE: u64 = u64::MAX;

/// Publishes versions of `T`.
pub struct Publisher<T> {
    shared: Arc<Shared<T>>,
    current: Arc<Version<T>>,
    /// Replaced versions, oldest first, which a subscriber may still read.
    retired: Vec<Arc<Version<T>>>,
    subscribers: Vec<Seen>,
}

impl<T> Publisher<T> {
    /// A publisher whose first version, epoch 0, is `value`.
    pub fn new(value: T) -> Self {
        let current = Arc::new(Version {
            epoch: 0,
            value: Arc::new(value),
        });
        let shared = Shared {
            slot: Slot::new(Arc::clone(&current)),
            latest: CachePadded::new(AtomicU64::new(0)),
        };
        Self {
            shared: Arc::new(shared),
            current,
            retired: Vec::new(),
            subscribers: Vec::new(),
        }
    }

    /// A new reader, at the current version.
    pub fn subscribe(&mut self) -> Subscriber<T> {
        let seen: Seen = Arc::new(CachePadded::new(AtomicU64::new(self.current.epoch)));
        self.subscribers.push(Arc::clone(&seen));
        Subscriber::new(Arc::clone(&self.shared), &self.current, seen)
    }

    /// Makes `value` the current version and returns its epoch. Subscribers see it at their next refresh; versions
    /// they all have left are dropped here.
    pub fn publish(&mut self, value: T) -> u64 {
        let epoch = self.current.epoch + 1;
        let next = Arc::new(Version {
            epoch,
            value: Arc::new(value),
        });
        // Not the last copy: `retired` keeps one.
        drop(self.shared.slot.swap(Arc::clone(&next)));
        self.retired
            .push(std::mem::replace(&mut self.current, next));
        // Pairs with the Acquire in `Subscriber::refresh`: who sees the epoch finds its version in the slot.
        self.shared.latest.store(epoch, Ordering::Release);
        self.collect();
        epoch
    }

    /// The current version.
    pub fn current(&self) -> &Arc<T> {
        &self.current.value
    }

    /// Its epoch.
    pub fn epoch(&self) -> u64 {
        self.current.epoch
    }

    /// Drops the retired versions that every subscriber has left, and returns how many. `publish` does it too; a
    /// publisher with nothing to publish calls it now and then to free the last ones.
    pub fn collect(&mut self) -> usize {
        // Acquire pairs with the Release in `Subscriber::refresh`: its copy of the older version is dropped.
        self.subscribers
            .retain(|seen| seen.load(Ordering::Acquire) != GONE);
        let oldest = self
            .subscribers
            .iter()
            .map(|seen| seen.load(Ordering::Acquire))
            .min();
        let oldest = oldest.unwrap_or(GONE);
        let before = self.retired.len();
        self.retired.retain(|version| version.epoch >= oldest);
        before - self.retired.len()
    }

    /// Versions kept for subscribers that have not refreshed.
    pub fn retired(&self) -> usize {
        self.retired.len()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc;
    use std::thread::{self, ThreadId};

    use super::*;

    #[test]
    fn subscribers_see_the_newest_version_only() {
        let mut publisher = Publisher::new(0);
        let mut subscriber = publisher.subscribe();
        publisher.publish(1);
        publisher.publish(2);
        assert_eq!((**subscriber.current(), subscriber.epoch()), (0, 0));
        assert_eq!((**subscriber.refresh(), subscriber.epoch()), (2, 2));
        assert_eq!((**publisher.current(), publisher.epoch()), (2, 2));
    }

    #[test]
    fn a_version_is_kept_until_the_slowest_subscriber_has_left_it() {
        let mut publisher = Publisher::new(0);
        let (mut fast, mut slow) = (publisher.subscribe(), publisher.subscribe());
        publisher.publish(1);
        fast.refresh();
        publisher.publish(2);
        fast.refresh();
        assert_eq!((publisher.collect(), publisher.retired()), (0, 2));
        slow.refresh();
        assert_eq!((publisher.collect(), publisher.retired()), (2, 0));
    }

    #[test]
    fn a_dropped_subscriber_holds_nothing_back() {
        let mut publisher = Publisher::new(0);
        let subscriber = publisher.subscribe();
        publisher.publish(1);
        assert_eq!(publisher.retired(), 1);
        drop(subscriber);
        assert_eq!(publisher.collect(), 1);
    }

    struct Table(mpsc::Sender<ThreadId>);

    impl Drop for Table {
        fn drop(&mut self) {
            let _ = self.0.send(thread::current().id());
        }
    }

    #[test]
    fn versions_die_on_the_publishers_thread() {
        const VERSIONS: usize = if cfg!(miri) { 50 } else { 2_000 };
        let (deaths, log) = mpsc::channel();
        let mut publisher = Publisher::new(Table(deaths.clone()));
        let mut subscriber = publisher.subscribe();
        let worker = thread::spawn(move || {
            while subscriber.epoch() < VERSIONS as u64 {
                subscriber.refresh();
            }
            subscriber
        });
        for _ in 0..VERSIONS {
            publisher.publish(Table(deaths.clone()));
        }
        let subscriber = worker.join().unwrap();
        publisher.collect();
        assert_eq!(publisher.retired(), 0);
        drop(subscriber);
        drop(publisher);
        drop(deaths);
        let here = thread::current().id();
        assert!(log.iter().all(|thread| thread == here));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::atomic::AtomicBool;

    use super::*;

    /// Says where it was dropped: on no worker.
    struct Table {
        epoch: u64,
        dropped: Arc<AtomicBool>,
        maker: loom::thread::ThreadId,
    }

    impl Drop for Table {
        fn drop(&mut self) {
            assert_eq!(
                loom::thread::current().id(),
                self.maker,
                "a worker frees a version"
            );
            self.dropped.store(true, Ordering::Relaxed);
        }
    }

    /// Every interleaving of two publications with a worker's refreshes: a worker never reads a dropped version,
    /// epochs rise and match their version, and each version is freed by the publisher.
    /// Fails when `Subscriber::advance` reports before it lets go. Not covered: arc_swap itself, see `sync`.
    #[test]
    fn loom_a_version_in_use_is_not_dropped() {
        loom::model(|| {
            let flags: Vec<_> = (0..3).map(|_| Arc::new(AtomicBool::new(false))).collect();
            let maker = loom::thread::current().id();
            let table = |epoch: u64| Table {
                epoch,
                dropped: Arc::clone(&flags[epoch as usize]),
                maker,
            };
            let mut publisher = Publisher::new(table(0));
            let mut subscriber = publisher.subscribe();
            let worker = loom::thread::spawn(move || {
                let mut last = 0;
                for _ in 0..2 {
                    let epoch = subscriber.refresh().epoch;
                    assert!(epoch >= last && epoch == subscriber.epoch());
                    assert!(!subscriber.current().dropped.load(Ordering::Relaxed));
                    last = epoch;
                }
                subscriber
            });
            publisher.publish(table(1));
            publisher.publish(table(2));
            let mut subscriber = worker.join().unwrap();
            assert_eq!(subscriber.refresh().epoch, 2);
            publisher.collect();
            assert_eq!(publisher.retired(), 0);
            assert!(flags[0].load(Ordering::Relaxed) && flags[1].load(Ordering::Relaxed));
            assert!(!flags[2].load(Ordering::Relaxed));
        });
    }
}
