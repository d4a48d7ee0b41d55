//! A socket against the simulated kernel.

use std::sync::Arc;

use super::*;
use crate::frame::{CHAIN_MAX, RX_OFFSET, leaked_frames};
use crate::owner::RING_MAX;
use crate::sim::{Faults, SimKernel};

const FRAMES: u32 = 128;

struct Rig {
    umem: Arc<Umem>,
    pool: FramePool,
    socket: Socket,
    kernel: SimKernel,
}

fn rig() -> Rig {
    let umem = Arc::new(Umem::heap(FRAMES));
    let pool = FramePool::all(&umem).unwrap();
    let (mut socket, kernel) = Socket::simulated(RingSizes::uniform(64), &umem);
    socket.set_port(9);
    Rig {
        umem,
        pool,
        socket,
        kernel,
    }
}

impl Rig {
    fn receive(&mut self) -> Vec<FrameChain> {
        let mut packets = Vec::new();
        self.socket
            .receive(&self.umem, usize::MAX, &mut |chain| packets.push(chain));
        packets
    }

    fn bytes(&self, chain: &FrameChain) -> Vec<u8> {
        chain
            .iter()
            .flat_map(|frame| self.umem.bytes(frame))
            .copied()
            .collect()
    }

    fn packet(&mut self, bytes: &[u8]) -> FrameChain {
        let mut frame = self.pool.alloc().unwrap();
        frame.set_len(bytes.len()).unwrap();
        self.umem.bytes_mut(&mut frame).copy_from_slice(bytes);
        FrameChain::from_iter([frame])
    }

    /// Every frame is in the pool once all rings are drained and reclaimed.
    fn close(mut self) {
        self.kernel.hold_completions(false);
        // Twice: more may be sent than the completion ring holds.
        for _ in 0..2 {
            self.kernel.run();
            self.socket.complete(&self.umem, &mut self.pool);
        }
        assert_eq!(self.socket.tx_outstanding(), 0);
        drop(self.socket);
        self.umem.reclaim(9, &mut self.pool);
        assert_eq!(self.pool.len(), FRAMES as usize, "a frame leaked");
    }
}

#[test]
fn a_packet_goes_through_and_its_frame_comes_back() {
    let mut rig = rig();
    assert_eq!(rig.socket.refill(&rig.umem, &mut rig.pool, 32), 32);
    assert_eq!(rig.socket.refill(&rig.umem, &mut rig.pool, 32), 0);
    assert!(rig.kernel.inject(b"ping"));
    assert_eq!(rig.socket.fill_level(), 31);
    let mut packets = rig.receive();
    assert_eq!(packets.len(), 1);
    assert_eq!(
        (rig.bytes(&packets[0]), packets[0][0].offset()),
        (b"ping".to_vec(), RX_OFFSET)
    );
    assert!(rig.socket.transmit(&rig.umem, &mut packets[0], None));
    assert!(packets[0].is_empty() && rig.socket.tx_pending() && rig.socket.tx_outstanding() == 1);
    assert_eq!(rig.socket.kick(), Kick::Sent);
    let sent = rig.kernel.transmitted();
    assert_eq!(
        (sent[0].bytes.as_slice(), sent[0].checksum),
        (b"ping".as_slice(), None)
    );
    assert_eq!(rig.socket.kick(), Kick::Idle);
    assert_eq!(rig.socket.complete(&rig.umem, &mut rig.pool), 1);
    rig.close();
}

#[test]
fn a_64_kib_packet_is_one_chain_both_ways() {
    let mut rig = rig();
    rig.socket.refill(&rig.umem, &mut rig.pool, 32);
    let bytes: Vec<u8> = (0..65_549).map(|n| (n % 251) as u8).collect();
    assert!(rig.kernel.inject(&bytes));
    let mut packets = rig.receive();
    assert_eq!((packets.len(), packets[0].len()), (1, CHAIN_MAX));
    assert!(rig.bytes(&packets[0]) == bytes);
    assert!(rig.socket.transmit(&rig.umem, &mut packets[0], None));
    assert!(rig.kernel.transmitted()[0].bytes == bytes);
    rig.close();
}

#[test]
fn a_chain_too_long_is_dropped_whole_and_its_frames_lent_again() {
    let mut rig = rig();
    rig.socket.refill(&rig.umem, &mut rig.pool, 64);
    rig.kernel.inject(&vec![0; 20 * 3840]);
    rig.kernel.inject(b"next");
    let packets = rig.receive();
    assert_eq!(
        (packets.len(), rig.bytes(&packets[0])),
        (1, b"next".to_vec())
    );
    assert_eq!(rig.socket.counters().rx_oversized, 1);
    assert_eq!(rig.socket.spare_frames(), 20);
    let before = rig.pool.len();
    assert_eq!(rig.socket.refill(&rig.umem, &mut rig.pool, 63), 20);
    assert_eq!(
        rig.pool.len(),
        before,
        "the spare frames were lent, not new ones"
    );
    packets
        .into_iter()
        .for_each(|mut chain| rig.pool.free_chain(&mut chain));
    rig.close();
}

#[test]
fn transmit_is_all_or_nothing() {
    let mut rig = rig();
    for _ in 0..63 {
        let mut chain = rig.packet(b"x");
        assert!(rig.socket.transmit(&rig.umem, &mut chain, None));
    }
    let mut pair = rig.packet(b"a");
    pair.extend(rig.packet(b"b"));
    assert!(!rig.socket.transmit(&rig.umem, &mut pair, None));
    assert_eq!(
        (
            pair.len(),
            rig.socket.tx_room(),
            rig.socket.counters().tx_refused
        ),
        (2, 1, 0)
    );
    rig.kernel.run();
    assert!(rig.socket.transmit(&rig.umem, &mut pair, None));
    rig.close();
}

#[test]
fn a_checksum_request_lies_in_front_of_the_first_frame() {
    let mut rig = rig();
    let request = TxChecksum {
        start: 34,
        offset: 16,
    };
    let mut chain = rig.packet(&[7; 60]);
    chain.extend(rig.packet(&[8; 60]));
    assert!(rig.socket.transmit(&rig.umem, &mut chain, Some(request)));
    let sent = rig.kernel.transmitted();
    assert_eq!(
        (sent[0].checksum, sent[0].bytes.len()),
        (Some(request), 120)
    );
    rig.close();
}

#[test]
fn what_the_kernel_would_choke_on_is_refused() {
    let mut rig = rig();
    let sum = |start, offset| Some(TxChecksum { start, offset });
    let mut nothing = FrameChain::new();
    assert!(!rig.socket.transmit(&rig.umem, &mut nothing, None));
    let mut chain = rig.packet(&[0; 60]);
    assert!(!rig.socket.transmit(&rig.umem, &mut chain, sum(50, 9)));
    assert!(
        !rig.socket
            .transmit(&rig.umem, &mut chain, sum(u16::MAX, u16::MAX))
    );
    rig.socket.set_tx_metadata(false);
    assert!(!rig.socket.transmit(&rig.umem, &mut chain, sum(34, 16)));
    rig.socket.set_tx_metadata(true);
    chain.extend(rig.packet(b""));
    assert!(
        !rig.socket.transmit(&rig.umem, &mut chain, None),
        "an empty frame"
    );
    chain
        .pop()
        .into_iter()
        .for_each(|frame| rig.pool.free(frame));
    chain.extend(rig.packet(b"z"));
    rig.socket.set_multi_buffer(false);
    assert!(
        !rig.socket.transmit(&rig.umem, &mut chain, None),
        "a chain without multi-buffer"
    );
    assert_eq!((rig.socket.counters().tx_refused, chain.len()), (6, 2));
    rig.pool.free_chain(&mut chain);
    rig.close();
}

#[test]
fn a_completion_of_a_frame_not_sent_is_ignored() {
    let mut rig = rig();
    let mut chain = rig.packet(b"x");
    assert!(rig.socket.transmit(&rig.umem, &mut chain, None));
    rig.kernel.run();
    rig.socket.set_port(10);
    assert_eq!(rig.socket.complete(&rig.umem, &mut rig.pool), 0);
    assert_eq!(rig.socket.counters().completion_foreign, 1);
    rig.close();
}

#[test]
fn a_descriptor_of_a_frame_not_lent_makes_no_token() {
    let mut rig = rig();
    rig.socket.refill(&rig.umem, &mut rig.pool, 4);
    rig.kernel.inject(b"one");
    rig.kernel.inject(b"two");
    // As if the first frame had been taken back behind the kernel's back.
    let first = rig.umem.id(0);
    assert_eq!(rig.umem.owners().get(first), Owner::fill(9, 0));
    rig.umem.owners().set(first, Owner::Worker);
    let packets = rig.receive();
    assert_eq!(
        (packets.len(), rig.bytes(&packets[0])),
        (1, b"two".to_vec())
    );
    assert_eq!(rig.socket.counters().rx_foreign, 1);
    packets
        .into_iter()
        .for_each(|mut chain| rig.pool.free_chain(&mut chain));
    rig.pool.put(first);
    rig.close();
}

#[test]
#[cfg_attr(miri, ignore = "poll")]
fn the_descriptor_is_readable_after_a_packet_and_quiet_after_receive() {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut rig = rig();
    let readable = |socket: &Socket| {
        poll(
            &mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)],
            PollTimeout::ZERO,
        )
        .unwrap()
            == 1
    };
    assert!(!readable(&rig.socket));
    rig.socket.refill(&rig.umem, &mut rig.pool, 4);
    rig.kernel.inject(b"one");
    assert!(readable(&rig.socket));
    rig.receive()
        .into_iter()
        .for_each(|mut chain| rig.pool.free_chain(&mut chain));
    assert!(!readable(&rig.socket));
    rig.close();
}

#[test]
fn faults_of_the_wire_lose_double_and_swap() {
    let mut rig = rig();
    rig.socket.refill(&rig.umem, &mut rig.pool, 64);
    let mut arrivals = |faults| {
        rig.kernel.set_faults(faults);
        for n in 0..6u8 {
            rig.kernel.inject(&[n]);
        }
        let packets = rig.receive();
        let order: Vec<u8> = packets.iter().map(|chain| rig.bytes(chain)[0]).collect();
        packets
            .into_iter()
            .for_each(|mut chain| rig.pool.free_chain(&mut chain));
        order
    };
    assert_eq!(
        arrivals(Faults {
            drop_every: 3,
            ..Faults::default()
        }),
        [0, 1, 3, 4]
    );
    assert_eq!(
        arrivals(Faults {
            duplicate_every: 3,
            ..Faults::default()
        }),
        [0, 1, 2, 2, 3, 4, 5, 5]
    );
    assert_eq!(
        arrivals(Faults {
            swap_every: 4,
            ..Faults::default()
        }),
        [0, 1, 2, 4, 3, 5]
    );
    rig.close();
}

#[test]
fn starved_rings_are_counted_as_the_kernel_does() {
    let mut rig = rig();
    assert!(!rig.kernel.inject(b"x"));
    rig.socket.refill(&rig.umem, &mut rig.pool, 64);
    for _ in 0..64 {
        assert!(rig.kernel.inject(b"x"));
    }
    assert!(!rig.kernel.inject(b"x"));
    let seen = rig.socket.statistics().unwrap();
    assert_eq!((seen.rx_fill_ring_empty_descs, seen.rx_ring_full), (1, 1));
    assert_eq!(
        rig.socket.statistics_handle().unwrap().read().unwrap(),
        seen
    );
    rig.close();
}

#[test]
fn a_panicking_sink_does_not_receive_a_frame_twice() {
    let mut rig = rig();
    rig.socket.refill(&rig.umem, &mut rig.pool, 4);
    rig.kernel.inject(b"one");
    rig.kernel.inject(b"two");
    let leaked = leaked_frames();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        rig.socket.receive(&rig.umem, 8, &mut |_| panic!("sink"));
    }));
    assert!(panicked.is_err());
    assert!(leaked_frames() > leaked);
    let packets = rig.receive();
    assert_eq!(
        (packets.len(), rig.bytes(&packets[0])),
        (1, b"two".to_vec())
    );
    packets
        .into_iter()
        .for_each(|mut chain| rig.pool.free_chain(&mut chain));
    assert_eq!(rig.socket.counters().rx_foreign, 0);
}

#[test]
fn rings_refuse_sizes_the_owner_table_cannot_follow() {
    for size in [0, 3, 2 * RING_MAX] {
        assert!(matches!(
            RingSizes::uniform(size).check(),
            Err(SocketError::RingSize(_))
        ));
    }
    assert!(RingSizes::default().check().is_ok());
}
