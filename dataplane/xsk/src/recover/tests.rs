//! A process is killed between any two stores of any sequence of operations; its successor finds every frame.

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::fault;
use crate::frame::{Frame, FrameChain};
use crate::sim::SimKernel;
use crate::socket::{RingSizes, TxChecksum};

const FRAMES: u32 = 48;
const PORTS: usize = 2;
/// Small rings: laps are short and both the wrap and full rings are common.
const RING: u32 = 16;

#[derive(Clone, Debug)]
enum Op {
    Inject(usize, usize),
    Receive(usize, usize),
    Forward(usize),
    Drop,
    Refill(usize, u32),
    Run(usize, bool),
    ReleaseCompletions(usize, usize),
    Complete(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let port = 0..PORTS;
    prop_oneof![
        4 => (port.clone(), prop_oneof![1..200usize, 3800..16_000usize, Just(19 * 3840)])
            .prop_map(|(port, len)| Op::Inject(port, len)),
        3 => (port.clone(), 1..4usize).prop_map(|(port, packets)| Op::Receive(port, packets)),
        3 => port.clone().prop_map(Op::Forward),
        1 => Just(Op::Drop),
        3 => (port.clone(), 1..RING).prop_map(|(port, target)| Op::Refill(port, target)),
        2 => (port.clone(), any::<bool>()).prop_map(|(port, hold)| Op::Run(port, hold)),
        1 => (port.clone(), 1..5usize).prop_map(|(port, n)| Op::ReleaseCompletions(port, n)),
        2 => port.prop_map(Op::Complete),
    ]
}

/// What dies with a process.
struct Process {
    umem: Umem,
    pool: FramePool,
    sockets: Vec<Socket>,
    held: VecDeque<FrameChain>,
}

impl Process {
    fn start(umem: Umem, kernels: &[SimKernel]) -> (Self, RecoveryReport) {
        let mut sockets: Vec<Socket> = kernels.iter().map(SimKernel::remap).collect();
        for (port, socket) in sockets.iter_mut().enumerate() {
            socket.set_port(port as u16 + 5);
        }
        let mut pool = FramePool::empty(&umem);
        let report = recover(&umem, &mut sockets, &mut pool).unwrap();
        assert_eq!(pool.len(), report.freed as usize);
        let total = report.freed + report.in_fill + report.in_rx + report.in_tx + report.pending;
        assert_eq!(total, FRAMES, "{report:?}");
        // What the owner table says is lent is what went into the rings and has not come out: nothing is lost.
        let rings = || sockets.iter();
        let lent: u32 = rings().map(Socket::rx_outstanding).sum();
        let sent: u32 = rings().map(Socket::tx_outstanding).sum();
        assert_eq!(
            (report.in_fill + report.in_rx, report.in_tx + report.pending),
            (lent, sent),
            "{report:?}"
        );
        (
            Self {
                umem,
                pool,
                sockets,
                held: VecDeque::new(),
            },
            report,
        )
    }

    fn perform(&mut self, op: &Op) {
        let Self {
            umem,
            pool,
            sockets,
            held,
        } = self;
        match *op {
            Op::Receive(port, packets) => {
                sockets[port].receive(umem, packets, &mut |chain| held.push_back(chain));
            }
            Op::Forward(port) => {
                let Some(mut chain) = held.pop_front() else {
                    return;
                };
                let checksum = (chain[0].len() > 60).then_some(TxChecksum {
                    start: 34,
                    offset: 16,
                });
                if !sockets[port].transmit(umem, &mut chain, checksum) {
                    pool.free_chain(&mut chain);
                }
            }
            Op::Drop => held
                .drain(..)
                .for_each(|mut chain| pool.free_chain(&mut chain)),
            Op::Refill(port, target) => {
                sockets[port].refill(umem, pool, target);
            }
            Op::Complete(port) => {
                sockets[port].complete(umem, pool);
            }
            Op::Inject(..) | Op::Run(..) | Op::ReleaseCompletions(..) => {}
        }
    }
}

fn kernel_side(kernels: &mut [SimKernel], op: &Op) {
    match *op {
        Op::Inject(port, len) => {
            kernels[port].inject(&packet(len));
        }
        Op::Run(port, hold) => {
            kernels[port].hold_completions(hold);
            kernels[port]
                .transmitted()
                .iter()
                .for_each(|sent| check(&sent.bytes));
        }
        Op::ReleaseCompletions(port, n) => kernels[port].release_completions(n),
        _ => {}
    }
}

/// Self-describing: the length at the front, then bytes that depend on their place.
fn packet(len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
    let header = (len as u32).to_le_bytes();
    let shown = len.min(4);
    bytes[..shown].copy_from_slice(&header[..shown]);
    bytes
}

/// What leaves is what came: no tail without its head, no frame overwritten while it was underway.
fn check(bytes: &[u8]) {
    assert!(bytes == packet(bytes.len()), "a packet was torn");
}

fn drain(mut process: Process, kernels: &mut [SimKernel]) {
    // Twice: what is owed and what is in the transmit ring may be more than a completion ring holds.
    for port in (0..PORTS).chain(0..PORTS) {
        kernels[port].hold_completions(false);
        kernels[port]
            .transmitted()
            .iter()
            .for_each(|sent| check(&sent.bytes));
        process.perform(&Op::Complete(port));
    }
    for port in 0..PORTS {
        process.perform(&Op::Receive(port, usize::MAX));
        let counters = process.sockets[port].counters();
        assert_eq!(
            (
                counters.rx_foreign,
                counters.completion_foreign,
                counters.tx_refused
            ),
            (0, 0, 0)
        );
        assert_eq!(process.sockets[port].tx_outstanding(), 0);
    }
    for chain in &process.held {
        check(
            &chain
                .iter()
                .flat_map(|frame| process.umem.bytes(frame))
                .copied()
                .collect::<Vec<_>>(),
        );
    }
    process.perform(&Op::Drop);
    let Process {
        umem,
        mut pool,
        sockets,
        ..
    } = process;
    drop(sockets);
    for port in 0..PORTS as u16 {
        umem.reclaim(port + 5, &mut pool);
    }
    let mut frames: Vec<Frame> = std::iter::from_fn(|| pool.alloc()).collect();
    frames.sort_by_key(Frame::index);
    assert_eq!(
        frames.iter().map(Frame::index).collect::<Vec<_>>(),
        (0..FRAMES).collect::<Vec<_>>()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Up to three lives, each killed at any point, its own recovery included; then everything is accounted for, and no packet was torn.
    #[test]
    #[cfg_attr(miri, ignore = "takes hours; the cases below are its interesting ones")]
    fn every_frame_is_accounted_once_after_a_kill_anywhere(
        lives in proptest::collection::vec((proptest::collection::vec(op(), 1..60), 0..250u32), 1..4),
        last in proptest::collection::vec(op(), 0..40),
    ) {
        let root = Arc::new(Umem::heap(FRAMES));
        let mut kernels: Vec<SimKernel> =
            (0..PORTS).map(|_| Socket::simulated(RingSizes::uniform(RING), &root).1).collect();
        for (ops, after) in lives {
            let killed = !fault::survive(after, || {
                let (mut process, _) = Process::start(root.successor(), &kernels);
                for op in &ops {
                    kernel_side(&mut kernels, op);
                    process.perform(op);
                }
            });
            // The kernel does not stop for a death.
            if killed {
                ops.iter().take(5).for_each(|op| kernel_side(&mut kernels, op));
            }
        }
        let (mut process, _) = Process::start(root.successor(), &kernels);
        for op in &last {
            kernel_side(&mut kernels, op);
            process.perform(op);
        }
        drain(process, &mut kernels);
    }
}

fn one_port() -> (Arc<Umem>, SimKernel, Process) {
    let root = Arc::new(Umem::heap(FRAMES));
    let kernel = Socket::simulated(RingSizes::uniform(RING), &root).1;
    let (process, report) = Process::start(root.successor(), std::slice::from_ref(&kernel));
    assert_eq!(
        report,
        RecoveryReport {
            freed: FRAMES,
            ..RecoveryReport::default()
        }
    );
    (root, kernel, process)
}

fn restart(root: &Umem, kernel: &SimKernel) -> (Process, RecoveryReport) {
    Process::start(root.successor(), std::slice::from_ref(kernel))
}

#[test]
fn each_place_a_frame_can_be_in_is_reported() {
    let (root, mut kernel, mut process) = one_port();
    process.perform(&Op::Refill(0, 12));
    kernel.hold_completions(true);
    for len in [10, 20, 30, 40] {
        kernel.inject(&packet(len));
    }
    process.perform(&Op::Receive(0, 3));
    process.perform(&Op::Forward(0));
    kernel.run();
    process.perform(&Op::Forward(0));
    // One sent and not completed, one in the transmit ring, one in hand, one in the receive ring, 8 in fill.
    drop(process);
    let (process, report) = restart(&root, &kernel);
    let expected = RecoveryReport {
        freed: FRAMES - 11,
        in_fill: 8,
        in_rx: 1,
        in_tx: 1,
        pending: 1,
        stale: 0,
    };
    assert_eq!(report, expected);
    drop(process);
}

#[test]
fn a_packet_received_but_not_released_is_not_received_again() {
    let (root, mut kernel, mut process) = one_port();
    process.perform(&Op::Refill(0, 4));
    kernel.inject(&packet(10));
    kernel.inject(&packet(20));
    // Killed after the first owner word, before the ring is released.
    assert!(!fault::survive(0, || process.perform(&Op::Receive(0, 8))));
    drop(process);
    let (mut process, report) = restart(&root, &kernel);
    assert_eq!((report.stale, report.in_rx), (1, 1));
    process.perform(&Op::Receive(0, 8));
    assert_eq!(
        process
            .held
            .iter()
            .map(|chain| chain[0].len())
            .collect::<Vec<_>>(),
        [20]
    );
    process.perform(&Op::Drop);
}

#[test]
fn the_tail_of_a_packet_half_received_is_thrown_away() {
    let (root, mut kernel, mut process) = one_port();
    process.perform(&Op::Refill(0, 8));
    kernel.inject(&packet(9_000));
    kernel.inject(&packet(20));
    assert!(!fault::survive(0, || process.perform(&Op::Receive(0, 8))));
    drop(process);
    let (mut process, report) = restart(&root, &kernel);
    assert_eq!(report.stale, 3);
    process.perform(&Op::Receive(0, 8));
    assert_eq!(process.held.len(), 1);
    assert_eq!(process.held[0][0].len(), 20);
    process.perform(&Op::Drop);
}

#[test]
fn a_frame_the_kernel_kept_for_laps_is_not_taken_for_one_never_lent() {
    let (root, _kernel, mut process) = one_port();
    process.perform(&Op::Refill(0, 4));
    // Lent 2^14 slots ago and kept: its position has come round to where the next frame would go.
    let kept = process.pool.take().unwrap();
    process
        .umem
        .owners()
        .set(kept, Owner::fill(5, process.sockets[0].fill.position()));
    let mut socket = process.sockets.remove(0);
    let umem = root.successor();
    let mut pool = FramePool::empty(&umem);
    let report = recover(&umem, [&mut socket], &mut pool).unwrap();
    assert_eq!(
        (report.in_fill, report.in_rx, report.freed),
        (4, 1, FRAMES - 5)
    );
}

#[test]
fn frames_of_a_port_that_is_gone_are_free() {
    let (root, _, mut process) = one_port();
    process.perform(&Op::Refill(0, 12));
    drop(process);
    let umem = root.successor();
    let mut pool = FramePool::empty(&umem);
    let report = recover(&umem, [], &mut pool).unwrap();
    assert_eq!((report.freed, pool.len()), (FRAMES, FRAMES as usize));
}

#[test]
fn frames_are_given_out_once() {
    let umem = Umem::heap(4);
    let mut pool = FramePool::empty(&umem);
    assert!(recover(&umem, [], &mut pool).is_ok());
    assert_eq!(recover(&umem, [], &mut pool), Err(RecoverError::Claimed));
    assert!(FramePool::all(&umem).is_none());
}

#[test]
fn sockets_of_one_name_are_refused() {
    let umem = Arc::new(Umem::heap(4));
    let (mut a, _) = Socket::simulated(RingSizes::uniform(4), &umem);
    let (mut b, _) = Socket::simulated(RingSizes::uniform(4), &umem);
    let mut pool = FramePool::empty(&umem);
    assert_eq!(
        recover(&umem, [&mut a, &mut b], &mut pool),
        Err(RecoverError::SamePort(0))
    );
    assert!(FramePool::all(&umem).is_some(), "nothing was done");
}
