//! The two ends of a ring in shared memory: slots, index words and the flags word.

// UNSAFETY: reads and writes slots of mapped memory.
#![expect(unsafe_code, reason = "ring slots in shared memory")]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::cursor::{ConsumerCursor, ProducerCursor};
use crate::fault;
use crate::memory::Memory;
use crate::sys::RingOffsets;

/// `struct xdp_desc`: what receive and transmit rings hold. Fill and completion rings hold bare addresses.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) options: u32,
}

impl Descriptor {
    /// XDP_PKT_CONTD: the packet goes on in the next descriptor.
    pub(crate) const CONTINUES: u32 = 1 << 0;
    /// XDP_TX_METADATA: `struct xsk_tx_metadata` lies in front of the address.
    pub(crate) const HAS_METADATA: u32 = 1 << 1;

    #[inline]
    pub(crate) fn continues(self) -> bool {
        self.options & Self::CONTINUES != 0
    }
}

/// A ring's words and slots. Either end may hold one; which methods it may call is its role.
pub(crate) struct Ring<T> {
    memory: Arc<Memory>,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    slots: NonNull<T>,
    size: u32,
}

// SAFETY: the words are atomics; slots are accessed by the end that owns them, which the index words decide.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T> Clone for Ring<T> {
    fn clone(&self) -> Self {
        Self {
            memory: Arc::clone(&self.memory),
            ..*self
        }
    }
}

impl<T: Copy + FromBytes> Ring<T> {
    /// Offsets of a ring laid out as on the heap: each word on its own cache line, then the slots.
    const HEAP: RingOffsets = RingOffsets {
        producer: 0,
        consumer: 64,
        flags: 128,
        desc: 192,
    };

    /// The ring in `memory`, whose parts lie where `offsets` say; checked to be inside.
    pub(crate) fn over(memory: Arc<Memory>, offsets: &RingOffsets, size: u32) -> Self {
        assert!(size.is_power_of_two(), "a ring's size is a power of two");
        Self {
            producer: memory.at(offsets.producer as usize, 1),
            consumer: memory.at(offsets.consumer as usize, 1),
            flags: memory.at(offsets.flags as usize, 1),
            slots: memory.at(offsets.desc as usize, size as usize),
            size,
            memory,
        }
    }

    /// A ring of this process.
    pub(crate) fn heap(size: u32) -> Self {
        let bytes = Self::HEAP.desc as usize + size as usize * size_of::<T>();
        Self::over(Arc::new(Memory::heap(bytes)), &Self::HEAP, size)
    }

    /// Bytes to map for a ring of `size` slots.
    pub(crate) fn mapped_bytes(offsets: &RingOffsets, size: u32) -> usize {
        offsets.desc as usize + size as usize * size_of::<T>()
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: in bounds and aligned (`Memory::at`), initialised, always accessed atomically, and kept alive by
        // the memory this ring holds.
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.consumer.as_ref() }
    }

    #[inline]
    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.flags.as_ref() }
    }

    #[inline]
    fn slot(&self, index: u32) -> NonNull<T> {
        // SAFETY: masked to below the size, which `over` checked to be inside the memory.
        unsafe { self.slots.add((index & (self.size - 1)) as usize) }
    }

    /// Only for slots that are this end's at the moment.
    #[inline]
    fn read(&self, index: u32) -> T {
        // SAFETY: in bounds, see `slot`; any bytes are a `T` (FromBytes). The other end does not write it now:
        // the cursor's Acquire saw it handed over.
        unsafe { self.slot(index).read() }
    }

    /// Only for slots that are this end's at the moment.
    #[inline]
    fn write(&self, index: u32, value: T) {
        // SAFETY: in bounds, see `slot`. The other end does not access it now: the cursor's Acquire saw it free.
        unsafe { self.slot(index).write(value) }
    }
}

/// The end that fills slots.
pub(crate) struct Producer<T> {
    ring: Ring<T>,
    cursor: ProducerCursor,
}

impl<T: Copy + FromBytes> Producer<T> {
    pub(crate) fn new(ring: Ring<T>) -> Self {
        let cursor = ProducerCursor::resume(ring.size, ring.producer(), ring.consumer());
        Self { ring, cursor }
    }

    #[inline]
    pub(crate) fn room(&mut self, want: u32) -> u32 {
        self.cursor.room(want, self.ring.consumer())
    }

    #[inline]
    pub(crate) fn level(&self) -> u32 {
        self.cursor.level(self.ring.consumer())
    }

    /// Fills the next slot and returns its index; there must be room. Not visible before `publish`.
    #[inline]
    pub(crate) fn put(&mut self, value: T) -> u32 {
        let index = self.cursor.claim();
        self.ring.write(index, value);
        index
    }

    #[inline]
    pub(crate) fn publish(&self) {
        self.cursor.publish(self.ring.producer());
    }

    /// XDP_RING_NEED_WAKEUP: the consumer sleeps until it is called.
    #[inline]
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.ring.flags().load(Ordering::Relaxed) & 1 != 0
    }

    #[inline]
    pub(crate) fn position(&self) -> u32 {
        self.cursor.position()
    }

    pub(crate) fn size(&self) -> u32 {
        self.cursor.size()
    }

    /// What was last written to the slot of `index`, published or not: slots of this ring are written here only.
    pub(crate) fn written(&self, index: u32) -> T {
        self.ring.read(index)
    }
}

/// The end that empties slots.
pub(crate) struct Consumer<T> {
    ring: Ring<T>,
    cursor: ConsumerCursor,
}

impl<T: Copy + FromBytes> Consumer<T> {
    pub(crate) fn new(ring: Ring<T>) -> Self {
        let cursor = ConsumerCursor::resume(ring.size, ring.producer(), ring.consumer());
        Self { ring, cursor }
    }

    /// Filled slots, as the producer says now.
    #[inline]
    pub(crate) fn available(&mut self) -> u32 {
        self.cursor.available(u32::MAX, self.ring.producer())
    }

    /// Content of the slot `ahead` of the next; it must be available.
    #[inline]
    pub(crate) fn peek(&self, ahead: u32) -> T {
        self.ring.read(self.cursor.peek(ahead))
    }

    #[inline]
    pub(crate) fn position(&self) -> u32 {
        self.cursor.position()
    }

    /// A pass over the ring; passed slots return to the producer when it ends.
    #[inline]
    pub(crate) fn pass(&mut self) -> Pass<'_, T> {
        Pass {
            start: self.cursor.position(),
            consumer: self,
        }
    }
}

/// A pass over filled slots. Ending it releases them, also when a caller's closure panics: a slot read twice would
/// be a frame received twice.
pub(crate) struct Pass<'a, T: Copy + FromBytes> {
    consumer: &'a mut Consumer<T>,
    start: u32,
}

impl<T: Copy + FromBytes> Pass<'_, T> {
    #[inline]
    pub(crate) fn available(&mut self) -> u32 {
        self.consumer.available()
    }

    #[inline]
    pub(crate) fn peek(&self, ahead: u32) -> T {
        self.consumer.peek(ahead)
    }

    #[inline]
    pub(crate) fn next(&mut self) -> T {
        let value = self.consumer.peek(0);
        self.consumer.cursor.advance(1);
        value
    }
}

impl<T: Copy + FromBytes> Drop for Pass<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.consumer.cursor.position() != self.start && !fault::killed() {
            self.consumer.cursor.release(self.consumer.ring.consumer());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_comes_out_in_order_on_another_thread() {
        let ring = Ring::<u64>::heap(4);
        let mut consumer = Consumer::new(ring.clone());
        let sender = std::thread::spawn(move || {
            let mut producer = Producer::new(ring);
            let mut next = 0;
            while next < 200 {
                for _ in 0..producer.room(1).min(200 - next as u32) {
                    producer.put(next);
                    next += 1;
                }
                producer.publish();
                std::thread::yield_now();
            }
        });
        let mut expected = 0;
        while expected < 200 {
            let mut pass = consumer.pass();
            for _ in 0..pass.available() {
                assert_eq!(pass.next(), expected);
                expected += 1;
            }
            drop(pass);
            std::thread::yield_now();
        }
        sender.join().unwrap();
    }

    #[test]
    fn a_new_end_goes_on_where_the_words_are() {
        let ring = Ring::<u64>::heap(4);
        let mut producer = Producer::new(ring.clone());
        producer.put(1);
        producer.put(2);
        producer.publish();
        producer.put(3);
        drop(producer);
        let mut producer = Producer::new(ring.clone());
        assert_eq!(
            (producer.position(), producer.level(), producer.written(2)),
            (2, 2, 3)
        );
        let mut consumer = Consumer::new(ring);
        assert_eq!(consumer.available(), 2);
        assert_eq!(producer.room(4), 2);
    }
}
