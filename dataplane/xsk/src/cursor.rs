//! Index arithmetic of a single-producer, single-consumer ring.
//!
//! Indices are free-running u32 that wrap; a slot is the index modulo the ring's size. Each side owns one shared
//! index and caches the other's, so that the other's cache line is read only when the cached value is used up.
//!
//! ```text
//!   consumer            producer              (shared words, one writer each)
//!      v                   v
//!  ----[  filled slots     ][   free slots  ]----
//!      ^ ConsumerCursor     ^ ProducerCursor: next, ahead of the word until published
//! ```
//!
//! Two pairs order the slots' contents. Producer publishes (Release) -> consumer sees it (Acquire) -> reads slots.
//! Consumer releases (Release) -> producer sees it (Acquire) -> overwrites slots. The peer is the kernel
//! (net/xdp/xsk_queue.h has the same pairs), or [`crate::sim`].

use std::sync::atomic::{AtomicU32, Ordering};

/// A shared index word: the kernel's, or loom's in tests.
pub trait SharedIndex {
    /// The value without any order, for the side that writes it.
    fn load_relaxed(&self) -> u32;
    /// The value the other side wrote, and everything it did before.
    fn load_acquire(&self) -> u32;
    /// Sets the value; the other side sees it after everything done before.
    fn store_release(&self, value: u32);
}

impl SharedIndex for AtomicU32 {
    #[inline]
    fn load_relaxed(&self) -> u32 {
        self.load(Ordering::Relaxed)
    }

    #[inline]
    fn load_acquire(&self) -> u32 {
        self.load(Ordering::Acquire)
    }

    #[inline]
    fn store_release(&self, value: u32) {
        self.store(value, Ordering::Release);
    }
}

/// The producing side.
#[derive(Debug)]
pub struct ProducerCursor {
    next: u32,
    consumed: u32,
    size: u32,
}

impl ProducerCursor {
    /// Goes on where the shared words say: at 0 in a new ring, anywhere in one taken over.
    pub fn resume(size: u32, producer: &impl SharedIndex, consumer: &impl SharedIndex) -> Self {
        assert!(size.is_power_of_two(), "a ring's size is a power of two");
        let next = producer.load_relaxed();
        Self {
            next,
            consumed: consumer.load_acquire(),
            size,
        }
    }

    /// Free slots, at least `want` if there are that many: the shared word is read only if the cached one
    /// does not suffice.
    #[inline]
    pub fn room(&mut self, want: u32, consumer: &impl SharedIndex) -> u32 {
        let room = self.free();
        if room >= want {
            return room;
        }
        // Pairs with the consumer's release.
        self.consumed = consumer.load_acquire();
        self.free()
    }

    /// Slots filled and not yet consumed, published or not.
    #[inline]
    pub fn level(&self, consumer: &impl SharedIndex) -> u32 {
        self.next
            .wrapping_sub(consumer.load_acquire())
            .min(self.size)
    }

    /// Index of the slot to fill next; the caller asked for room before.
    #[inline]
    pub fn claim(&mut self) -> u32 {
        debug_assert!(
            self.free() > 0,
            "a slot is claimed only where there is room"
        );
        let index = self.next;
        self.next = index.wrapping_add(1);
        index
    }

    /// Shows all claimed slots to the consumer; they must be filled.
    #[inline]
    pub fn publish(&self, producer: &impl SharedIndex) {
        producer.store_release(self.next);
    }

    /// Index of the slot that will be claimed next.
    #[inline]
    pub fn position(&self) -> u32 {
        self.next
    }

    /// Ring size.
    #[inline]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// A consumer that claims to be ahead of us, or more than a lap behind, yields no room rather than too much.
    #[inline]
    fn free(&self) -> u32 {
        self.size
            .saturating_sub(self.next.wrapping_sub(self.consumed))
    }
}

/// The consuming side.
#[derive(Debug)]
pub struct ConsumerCursor {
    next: u32,
    produced: u32,
    size: u32,
}

impl ConsumerCursor {
    /// Goes on where the shared words say.
    pub fn resume(size: u32, producer: &impl SharedIndex, consumer: &impl SharedIndex) -> Self {
        assert!(size.is_power_of_two(), "a ring's size is a power of two");
        let next = consumer.load_relaxed();
        Self {
            next,
            produced: producer.load_acquire(),
            size,
        }
    }

    /// Filled slots, at least `want` if there are that many; see [`ProducerCursor::room`].
    #[inline]
    pub fn available(&mut self, want: u32, producer: &impl SharedIndex) -> u32 {
        let available = self.filled();
        if available >= want {
            return available;
        }
        // Pairs with the producer's publish.
        self.produced = producer.load_acquire();
        self.filled()
    }

    /// Index of the slot `ahead` of the next; the caller asked how many are available before.
    #[inline]
    pub fn peek(&self, ahead: u32) -> u32 {
        debug_assert!(
            ahead < self.filled(),
            "a slot is read only where one is filled"
        );
        self.next.wrapping_add(ahead)
    }

    /// Passes `n` slots; they still belong to this side until released.
    #[inline]
    pub fn advance(&mut self, n: u32) {
        debug_assert!(n <= self.filled(), "only filled slots are passed");
        self.next = self.next.wrapping_add(n);
    }

    /// Gives all passed slots back to the producer.
    #[inline]
    pub fn release(&self, consumer: &impl SharedIndex) {
        consumer.store_release(self.next);
    }

    /// Index of the next slot.
    #[inline]
    pub fn position(&self) -> u32 {
        self.next
    }

    /// More filled slots than there are slots means a corrupt index: at most a ring's worth is read.
    #[inline]
    fn filled(&self) -> u32 {
        self.produced.wrapping_sub(self.next).min(self.size)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Any start (indices about to wrap included), any order of operations: a ring is a bounded queue.
        #[test]
        #[cfg_attr(miri, ignore = "no unsafe code, and slow")]
        fn behaves_like_a_bounded_queue(
            start in prop_oneof![Just(0), Just(u32::MAX - 3), any::<u32>()],
            shift in 0..5u32,
            ops in proptest::collection::vec((any::<bool>(), 1..9u32), 1..200),
        ) {
            let size = 1 << shift;
            let (producer, consumer) = (AtomicU32::new(start), AtomicU32::new(start));
            let mut tx = ProducerCursor::resume(size, &producer, &consumer);
            let mut rx = ConsumerCursor::resume(size, &producer, &consumer);
            let mut model = VecDeque::new();
            for (produce, n) in ops {
                if produce {
                    let room = tx.room(n, &consumer);
                    prop_assert!(room >= n.min(size - model.len() as u32) && room <= size - model.len() as u32);
                    for _ in 0..n.min(room) {
                        model.push_back(tx.claim());
                    }
                    tx.publish(&producer);
                } else {
                    let available = rx.available(n, &producer);
                    prop_assert!(available >= n.min(model.len() as u32) && available <= model.len() as u32);
                    for _ in 0..n.min(available) {
                        prop_assert_eq!(Some(rx.peek(0)), model.pop_front());
                        rx.advance(1);
                    }
                    rx.release(&consumer);
                }
                prop_assert_eq!(tx.level(&consumer), model.len() as u32);
            }
        }
    }

    #[test]
    fn a_corrupt_peer_never_yields_more_than_a_ring() {
        let (producer, consumer) = (AtomicU32::new(5), AtomicU32::new(1_000));
        let mut tx = ProducerCursor::resume(8, &producer, &consumer);
        assert_eq!(tx.room(1, &consumer), 0);
        assert!(tx.level(&consumer) <= 8);
        let mut rx = ConsumerCursor::resume(8, &producer, &consumer);
        assert!(rx.available(u32::MAX, &producer) <= 8);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    impl SharedIndex for AtomicU32 {
        fn load_relaxed(&self) -> u32 {
            self.load(Ordering::Relaxed)
        }
        fn load_acquire(&self) -> u32 {
            self.load(Ordering::Acquire)
        }
        fn store_release(&self, value: u32) {
            self.store(value, Ordering::Release);
        }
    }

    const SIZE: u32 = 2;
    /// One more than the ring holds, and across the wrap; a fourth takes loom minutes.
    const ITEMS: u32 = 3;

    struct Ring {
        producer: AtomicU32,
        consumer: AtomicU32,
        slots: [UnsafeCell<u32>; SIZE as usize],
    }

    // UNSAFETY: loom's cells report a slot that both sides reach at once; that is the test.
    // SAFETY: the cells are accessed under loom's tracking only.
    #[expect(unsafe_code, reason = "loom cells shared between threads")]
    unsafe impl Sync for Ring {}

    /// Every interleaving of a producer and a consumer over a ring smaller than the stream, across the wrap of
    /// the index: no slot is accessed by both at once, none is lost, doubled or reordered.
    /// Not covered: the kernel's own code, and the compiler's view of mapped memory.
    #[test]
    fn loom_slots_have_one_user_at_a_time() {
        loom::model(|| {
            let start = u32::MAX - 1;
            let ring = Arc::new(Ring {
                producer: AtomicU32::new(start),
                consumer: AtomicU32::new(start),
                slots: [UnsafeCell::new(0), UnsafeCell::new(0)],
            });
            let sender = Arc::clone(&ring);
            let thread = loom::thread::spawn(move || produce(&sender));
            consume(&ring);
            thread.join().unwrap();
        });
    }

    #[expect(unsafe_code, reason = "loom cells")]
    fn produce(ring: &Ring) {
        let mut cursor = ProducerCursor::resume(SIZE, &ring.producer, &ring.consumer);
        let mut item = 0;
        while item < ITEMS {
            if cursor.room(1, &ring.consumer) == 0 {
                loom::thread::yield_now();
                continue;
            }
            let slot = cursor.claim() % SIZE;
            // SAFETY: loom checks that the access is exclusive.
            ring.slots[slot as usize].with_mut(|cell| unsafe { *cell = item });
            cursor.publish(&ring.producer);
            item += 1;
        }
    }

    #[expect(unsafe_code, reason = "loom cells")]
    fn consume(ring: &Ring) {
        let mut cursor = ConsumerCursor::resume(SIZE, &ring.producer, &ring.consumer);
        let mut expected = 0;
        while expected < ITEMS {
            if cursor.available(1, &ring.producer) == 0 {
                loom::thread::yield_now();
                continue;
            }
            let slot = cursor.peek(0) % SIZE;
            // SAFETY: loom checks that nobody writes meanwhile.
            let item = ring.slots[slot as usize].with(|cell| unsafe { *cell });
            assert_eq!(item, expected);
            cursor.advance(1);
            cursor.release(&ring.consumer);
            expected += 1;
        }
    }
}
