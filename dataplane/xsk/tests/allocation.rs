//! The calls of a worker's round do not allocate.

// UNSAFETY: an allocator that counts.
#![expect(unsafe_code, reason = "GlobalAlloc")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use weft_xsk::{FrameChain, FramePool, RingSizes, Socket, TxChecksum, Umem};

struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn calls<R>(body: impl FnOnce() -> R) -> u64 {
    let before = CALLS.get();
    body();
    CALLS.get() - before
}

#[test]
fn a_round_of_a_worker_does_not_allocate() {
    let umem = Arc::new(Umem::heap(256));
    let mut pool = FramePool::all(&umem).unwrap();
    let mut other = FramePool::empty(&umem);
    let (mut socket, mut kernel) = Socket::simulated(RingSizes::uniform(128), &umem);
    let packet = vec![1; 5000];
    let mut batch = arrayvec::ArrayVec::<FrameChain, 64>::new();
    let mut total = 0;
    for round in 0..50 {
        total += calls(|| socket.refill(&umem, &mut pool, 100));
        for _ in 0..8 {
            kernel.inject(&packet);
        }
        // Too long: its frames are put aside and lent again.
        kernel.inject(&vec![0; 20 * 3840]);
        total += calls(|| {
            socket.receive(&umem, 64, &mut |chain| batch.push(chain));
            for (index, mut chain) in batch.drain(..).enumerate() {
                let checksum = (index % 2 == 0).then_some(TxChecksum {
                    start: 34,
                    offset: 16,
                });
                if round % 7 == 0 || !socket.transmit(&umem, &mut chain, checksum) {
                    pool.free_chain(&mut chain);
                }
            }
            socket.kick();
            pool.give_bulk(&mut other, 30);
            pool.take_bulk(&mut other, 30);
        });
        kernel.transmitted();
        total += calls(|| socket.complete(&umem, &mut pool));
    }
    assert_eq!(total, 0);
}
