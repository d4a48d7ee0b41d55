//! The whole worker loop over simulated sockets: threads, rings, pipeline and frames, without root or a device.

use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_engine::testbed::{self, A, B, NODE, Testbed, UPLINK, UPLINK_MAC};
use weft_engine::{
    DropReason, FlowTable, FrontendKey, FrontendSpec, MacAddr, PortId, Rule, RuleVerdict,
    ServiceId, ServiceSpec, Tables,
};
use weft_snapshot::{Publisher, SharedCounters};
use weft_wire::build;
use weft_xsk::{FramePool, RingSizes, SentPacket, SimKernel, Socket, Umem};

use super::*;
use crate::queue::{Mapped, QUEUE_COUNTERS};
use crate::snapshot::Home;

const FRAMES: u32 = 1024;

/// Far beyond what a worker needs, also on a machine that stands still for a while.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ports on workers, each with a kernel of its own.
struct Rig {
    umem: Arc<Umem>,
    workers: Workers,
    kernels: Vec<(Home, SimKernel)>,
    _publisher: Publisher<Snapshot>,
}

impl Rig {
    /// Queues of `ring` descriptors for each port on its worker.
    fn new(ports: &[(PortId, u16)], ring: u32) -> Self {
        Self::with_tables(ports, ring, Testbed::tables_with(ports, |_| {}))
    }

    fn with_tables(ports: &[(PortId, u16)], ring: u32, tables: Tables) -> Self {
        let umem = Arc::new(Umem::heap(FRAMES));
        let pool = FramePool::all(&umem).unwrap();
        let homes: Vec<Home> = (0..)
            .zip(ports)
            .map(|(slot, &(port, worker))| Home { port, slot, worker })
            .collect();
        let count = homes.iter().map(|home| home.worker).max().unwrap() + 1;
        let snapshot = Snapshot::new(tables, &homes, count);
        let mut publisher = Publisher::new(snapshot);
        let tuning = Tuning {
            priority: 0,
            ..Tuning::default()
        };
        let cores = vec![None; usize::from(count)];
        let flows = Flows {
            tables: cores.iter().map(|_| FlowTable::new(1024, 7)).collect(),
            clock: Instant::now(),
            news: Vec::new(),
        };
        let workers = Workers::start(&cores, &tuning, &umem, pool, flows, &mut publisher).unwrap();
        let kernels = homes
            .into_iter()
            .map(|home| (home, attach(&workers, &umem, home, ring)))
            .collect();
        Self {
            umem,
            workers,
            kernels,
            _publisher: publisher,
        }
    }

    fn kernel(&mut self, port: PortId) -> &mut SimKernel {
        let found = self.kernels.iter_mut().find(|(home, _)| home.port == port);
        &mut found.unwrap().1
    }

    /// Lets `port` receive a packet, once a frame is lent for it.
    fn inject(&mut self, port: PortId, packet: &[u8]) {
        let deadline = Instant::now() + PATIENCE;
        while !self.kernel(port).inject(packet) {
            assert!(Instant::now() < deadline, "no frame is lent");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// What `port` sent, once there are `count` packets.
    fn wait_for(&mut self, port: PortId, count: usize) -> Vec<SentPacket> {
        let deadline = Instant::now() + PATIENCE;
        let mut sent = Vec::new();
        while sent.len() < count {
            assert!(
                Instant::now() < deadline,
                "{} of {count} packets",
                sent.len()
            );
            sent.extend(self.kernel(port).transmitted());
            std::thread::sleep(Duration::from_micros(200));
        }
        sent
    }

    /// Frames that are somewhere, with every completion given back.
    fn frames(&mut self) -> u64 {
        for (_, kernel) in &mut self.kernels {
            kernel.hold_completions(false);
            kernel.run();
        }
        let accounts = self.workers.accounts().unwrap();
        accounts
            .iter()
            .map(|a| a.free + a.fill + a.tx + a.held + a.handed)
            .sum()
    }

    fn drops(&self, reason: DropReason) -> u64 {
        let readings = self.workers.readings();
        readings.map(|(_, r)| r.drops[reason.index()]).sum()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.workers.stop();
    }
}

fn attach(workers: &Workers, umem: &Arc<Umem>, home: Home, ring: u32) -> SimKernel {
    let (mut socket, kernel) = Socket::simulated(RingSizes::uniform(ring), umem);
    socket.set_port(home.slot);
    let mapped = Mapped {
        socket,
        packet_socket: None,
        counters: Arc::new(SharedCounters::new(QUEUE_COUNTERS)),
    };
    let kind = testbed::kind_of(home.port);
    let queue = Queue::new(home.port, kind, mapped, 32);
    workers
        .attach(home.worker, home.slot, Box::new(queue))
        .unwrap();
    kernel
}

/// A datagram of pod A with its number in it.
fn datagram(to: &str, number: u16) -> Vec<u8> {
    testbed::packet("10.1.1.10", to)
        .udp(1000, 53)
        .payload(&number.to_be_bytes())
        .build()
}

/// What pod B answers to [`datagram`].
fn answer(number: u16) -> Vec<u8> {
    testbed::packet("10.1.1.11", "10.1.1.10")
        .udp(53, 1000)
        .payload(&number.to_be_bytes())
        .build()
}

/// The numbers of datagrams, as they came.
fn numbers(sent: &[SentPacket]) -> Vec<u16> {
    let number = |packet: &SentPacket| {
        let end = packet.bytes.len();
        u16::from_be_bytes([packet.bytes[end - 2], packet.bytes[end - 1]])
    };
    sent.iter().map(number).collect()
}

#[test]
fn a_worker_that_sleeps_is_woken_by_each_packet() {
    let mut rig = Rig::new(&[(A, 0), (B, 0)], 256);
    for number in 0..5 {
        std::thread::sleep(Duration::from_millis(20));
        rig.inject(A, &datagram("10.1.1.11", number));
        assert_eq!(numbers(&rig.wait_for(B, 1)), [number]);
    }
    assert_eq!(rig.frames(), u64::from(FRAMES));
}

#[test]
fn packets_for_another_workers_port_are_handed_over_in_order() {
    let mut rig = Rig::new(&[(A, 0), (B, 1)], 256);
    let mut next = 0;
    for _ in 0..20 {
        let burst = next..next + 25;
        for number in burst.clone() {
            rig.inject(A, &datagram("10.1.1.11", number));
        }
        assert!(numbers(&rig.wait_for(B, 25)).into_iter().eq(burst));
        next += 25;
    }
    assert_eq!(rig.frames(), u64::from(FRAMES));
    let handed: u64 = rig.workers.readings().map(|(_, r)| r.handoffs).sum();
    assert_eq!(handed, 500);
}

#[test]
fn both_ways_of_a_connection_meet_in_its_owners_table() {
    let mut rig = Rig::new(&[(A, 0), (B, 1)], 256);
    let mut next = 0;
    for _ in 0..20 {
        let burst = next..next + 25;
        for number in burst.clone() {
            rig.inject(A, &datagram("10.1.1.11", number));
        }
        assert!(numbers(&rig.wait_for(B, 25)).into_iter().eq(burst.clone()));
        for number in burst.clone() {
            rig.inject(B, &answer(number));
        }
        assert!(numbers(&rig.wait_for(A, 25)).into_iter().eq(burst));
        next += 25;
    }
    assert_eq!(rig.frames(), u64::from(FRAMES));
    let flows = |worker: usize| rig.workers.readings().nth(worker).unwrap().1.flows;
    let [owner, other] = [flows(0), flows(1)];
    let (current, new, hits) = (owner[0], owner[1], owner[2]);
    assert_eq!((current, new, hits), (1, 1, 999));
    assert_eq!(other.iter().sum::<u64>(), 0);
    let handed = rig.workers.readings().map(|(_, r)| r.handoffs);
    assert_eq!(handed.collect::<Vec<_>>(), [500, 500]);
}

/// Pod A as the backend of a service for everybody.
fn service_of_a() -> ServiceSpec {
    ServiceSpec {
        backends: vec![(testbed::ip("10.1.1.10"), 1000)],
        frontends: vec![FrontendSpec {
            inside_backends: None,
            key: FrontendKey {
                address: testbed::ip("10.96.0.9"),
                protocol: 17,
                port: 80,
            },
            keeps_source: false,
            direct: false,
            drops: false,
            sources: None,
            backends: vec![0],
        }],
        ..ServiceSpec::default()
    }
}

#[test]
fn a_backends_answers_find_the_worker_of_its_client() {
    let ports = [(A, 0), (B, 1)];
    let tables = Testbed::tables_with(&ports, |builder| {
        builder.services().set(ServiceId(1), &service_of_a());
    });
    let mut rig = Rig::with_tables(&ports, 256, tables);
    for number in 0..20_u16 {
        let asked = testbed::packet("10.1.1.11", "10.96.0.9").udp(53, 80);
        rig.inject(B, &asked.payload(&number.to_be_bytes()).build());
        assert_eq!(numbers(&rig.wait_for(A, 1)), [number]);
        rig.inject(A, &datagram("10.1.1.11", number));
        let answers = rig.wait_for(B, 1);
        assert_eq!(numbers(&answers), [number]);
        let source = [&[10, 96, 0, 9][..], &answers[0].bytes[30..34]].concat();
        assert_eq!(answers[0].bytes[26..34], source, "in the service's name");
    }
    let begun = |rig: &Rig| {
        rig.workers
            .readings()
            .map(|(_, r)| r.flows[1])
            .collect::<Vec<_>>()
    };
    assert_eq!(begun(&rig), [0, 1], "the client's");
    // What the backend says of itself is a connection of its own, at home after a look at the other worker's.
    let own = testbed::packet("10.1.1.10", "10.1.1.11").udp(7, 8);
    for number in 0..20_u16 {
        rig.inject(A, &own.clone().payload(&number.to_be_bytes()).build());
        assert_eq!(numbers(&rig.wait_for(B, 1)), [number]);
    }
    assert_eq!(begun(&rig), [1, 1]);
    assert_eq!(rig.frames(), u64::from(FRAMES));
}

#[test]
fn fragments_of_a_backends_answer_follow_their_first_to_the_client() {
    let ports = [(A, 0), (B, 1)];
    let tables = Testbed::tables_with(&ports, |builder| {
        builder.services().set(ServiceId(1), &service_of_a());
    });
    let mut rig = Rig::with_tables(&ports, 256, tables);
    let asked = testbed::packet("10.1.1.11", "10.96.0.9").udp(53, 80);
    rig.inject(B, &asked.build());
    rig.wait_for(A, 1);
    for reversed in [false, true] {
        let answer = testbed::packet("10.1.1.10", "10.1.1.11").udp(1000, 53);
        let answer = answer.payload_len(4000).identification(reversed.into());
        let mut fragments = answer.build_fragments(1500);
        if reversed {
            fragments.reverse();
        }
        for fragment in &fragments {
            rig.inject(A, fragment);
        }
        for sent in rig.wait_for(B, fragments.len()) {
            assert_eq!(sent.bytes[26..30], [10, 96, 0, 9]);
        }
    }
    let begun = rig.workers.readings().map(|(_, r)| r.flows[1]);
    assert_eq!(begun.collect::<Vec<_>>(), [0, 1]);
    // Those of no service's connection come back as they were.
    let own = testbed::packet("10.1.1.10", "10.1.1.11").udp(7, 8);
    let fragments = own.payload_len(4000).build_fragments(1500);
    for fragment in &fragments {
        rig.inject(A, fragment);
    }
    for sent in rig.wait_for(B, fragments.len()) {
        assert_eq!(sent.bytes[26..30], [10, 1, 1, 10]);
    }
    assert_eq!(rig.frames(), u64::from(FRAMES));
}

#[test]
fn a_client_outside_is_answered_the_way_it_came_whichever_worker_knows_it() {
    let ports = [(A, 0), (NODE, 1), (UPLINK, 0)];
    let tables = Testbed::tables_with(&ports, |builder| {
        let mut spec = service_of_a();
        spec.frontends[0].key.address = testbed::ip("0.0.0.0");
        builder.services().set(ServiceId(1), &spec);
    });
    let mut rig = Rig::with_tables(&ports, 256, tables);
    let router = MacAddr([0x52, 0, 0, 0, 0, 9]);
    let (client, node) = (testbed::ip("203.0.113.9"), testbed::ip("192.0.2.1"));
    for number in 0..20_u16 {
        let asked = build::Packet::ip(client, node)
            .macs(router, UPLINK_MAC)
            .udp(53, 80);
        rig.inject(UPLINK, &asked.payload(&number.to_be_bytes()).build());
        assert_eq!(numbers(&rig.wait_for(A, 1)), [number]);
        let answer = testbed::packet("10.1.1.10", "203.0.113.9").udp(1000, 53);
        let answer = answer.payload_len(4000).identification(number.into());
        let mut fragments = answer.build_fragments(1500);
        if number % 2 == 1 {
            fragments.reverse();
        }
        for fragment in &fragments {
            rig.inject(A, fragment);
        }
        for sent in rig.wait_for(UPLINK, fragments.len()) {
            assert_eq!(sent.bytes[..6], router.0);
            assert_eq!(sent.bytes[26..30], [192, 0, 2, 1]);
        }
    }
    let begun = rig.workers.readings().map(|(_, r)| r.flows[1]);
    assert_eq!(begun.collect::<Vec<_>>(), [0, 1], "the node port's");
    assert_eq!(rig.frames(), u64::from(FRAMES));
}

#[test]
fn a_client_another_node_hands_on_is_answered_whichever_worker_knows_it() {
    let ports = [(A, 0), (NODE, 1), (UPLINK, 0)];
    let tables = Testbed::tables_with(&ports, |builder| {
        let mut spec = service_of_a();
        spec.frontends[0].direct = true;
        builder.services().set(ServiceId(1), &spec);
    });
    let mut rig = Rig::with_tables(&ports, 256, tables);
    for number in 0..20_u16 {
        let asked = testbed::packet("203.0.113.9", "10.96.0.9").udp(53, 80);
        let asked = asked.payload_len(2000).identification(number.into());
        for fragment in asked.build_fragments(1000) {
            let fragment = testbed::from_four_bytes(&fragment);
            rig.inject(UPLINK, &fragment);
        }
        for sent in rig.wait_for(A, 3) {
            assert_eq!(sent.bytes[26..34], [203, 0, 113, 9, 10, 1, 1, 10]);
        }
        rig.inject(A, &datagram("203.0.113.9", number));
        let answers = rig.wait_for(NODE, 1);
        assert_eq!(numbers(&answers), [number]);
        assert_eq!(answers[0].bytes[26..34], [10, 96, 0, 9, 203, 0, 113, 9]);
    }
    let begun = rig.workers.readings().map(|(_, r)| r.flows[1]);
    assert_eq!(begun.collect::<Vec<_>>(), [0, 1], "the node port's");
    assert_eq!(rig.frames(), u64::from(FRAMES));
}

#[test]
fn fragments_that_come_before_their_first_wait_at_the_owner() {
    let mut rig = Rig::new(&[(A, 0), (B, 1)], 256);
    let whole = testbed::packet("10.1.1.11", "10.1.1.10").udp(53, 1000);
    let mut fragments = whole.payload_len(4000).build_fragments(1500);
    fragments.reverse();
    let (first, later) = fragments.split_last().unwrap();
    for fragment in later {
        rig.inject(B, fragment);
    }
    std::thread::sleep(Duration::from_millis(20));
    assert!(rig.kernel(A).transmitted().is_empty());
    rig.inject(B, first);
    assert_eq!(rig.wait_for(A, fragments.len()).len(), 3);
    assert_eq!(rig.frames(), u64::from(FRAMES));
    let flows: Vec<u64> = rig.workers.readings().map(|(_, r)| r.flows[1]).collect();
    assert_eq!(flows, [1, 0]);
}

#[test]
fn one_way_traffic_leaves_no_worker_without_frames() {
    let mut rig = Rig::new(&[(A, 0), (B, 1)], 256);
    // Each worker begins with half of the frames.
    for number in 0..4 * FRAMES as u16 {
        rig.inject(A, &datagram("10.1.1.11", number));
        if number % 16 == 15 {
            rig.wait_for(B, 16);
        }
    }
    assert_eq!(rig.frames(), u64::from(FRAMES));
}

#[test]
fn connections_and_rule_counters_are_read_between_bursts() {
    let mut rig = Rig::new(&[(A, 0), (B, 1)], 256);
    // More than a worker shows at once.
    let count = FLOWS_PER_LOOK as u16 + 50;
    for port in 0..count {
        let packet = testbed::packet("10.1.1.10", "10.1.1.11").udp(2000 + port, 53);
        rig.inject(A, &packet.build());
        rig.wait_for(B, 1);
    }
    let mut seen = std::collections::HashSet::new();
    let found = rig.workers.flows(|worker, flow| {
        assert_eq!(worker, 0, "the owner's");
        assert!(seen.insert(flow.original.tuple.ports().0));
        ControlFlow::Continue(())
    });
    found.unwrap();
    assert_eq!(seen.len(), usize::from(count));
    let mut shown = 0;
    let few = rig.workers.flows(|_, _| {
        shown += 1;
        match shown {
            3 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    });
    few.unwrap();
    assert_eq!(shown, 3);
}

#[test]
fn counters_of_a_rule_are_summed_and_forgotten() {
    let deny = Rule {
        tier: 1,
        peer: None,
        protocol: None,
        ports: None,
        verdict: RuleVerdict::Deny,
        id: RuleId(9),
    };
    let tables = Testbed::tables_with(&[(A, 0), (B, 1)], |builder| {
        let policy = builder.policy();
        policy.set_rules(testbed::ANYBODY, vec![], vec![deny.clone()]);
    });
    let mut rig = Rig::with_tables(&[(A, 0), (B, 1)], 256, tables);
    rig.inject(A, &datagram("10.1.1.11", 1));
    rig.inject(B, &answer(2));
    let deadline = Instant::now() + PATIENCE;
    while rig.workers.policy_counters().unwrap().of(deny.id) != (0, 2) {
        assert!(Instant::now() < deadline, "two packets are denied");
    }
    assert_eq!(rig.workers.drops_of(B), 1, "handed over, then dropped");
    rig.workers.forget_rules(&[deny.id]).unwrap();
    assert_eq!(rig.workers.policy_counters().unwrap().of(deny.id), (0, 0));
    assert_eq!(rig.frames(), u64::from(FRAMES));
}

#[test]
fn both_ways_across_the_tunnel_every_frame_comes_back() {
    let mut rig = Rig::new(&[(A, 0), (UPLINK, 0)], 256);
    rig.inject(A, &datagram("10.1.2.5", 7));
    assert_eq!(numbers(&rig.wait_for(UPLINK, 1)), [7]);
    let answer = testbed::packet("10.1.2.5", "10.1.1.10")
        .udp(53, 1000)
        .payload(&9_u16.to_be_bytes());
    let tunnelled = testbed::from_four(&answer).build();
    rig.inject(UPLINK, &tunnelled);
    assert_eq!(numbers(&rig.wait_for(A, 1)), [9]);
    assert_eq!(rig.frames(), u64::from(FRAMES));
}

#[test]
fn a_receiver_that_stands_still_costs_its_own_packets_only() {
    let mut rig = Rig::new(&[(A, 0), (B, 0), (UPLINK, 0)], 16);
    rig.kernel(B).hold_completions(true);
    let deadline = Instant::now() + PATIENCE;
    let mut number = 0;
    while rig.drops(DropReason::TxRingFull) == 0 {
        assert!(Instant::now() < deadline, "the ring never filled");
        // The kernel takes nothing out of B's ring meanwhile.
        rig.kernel(A).inject(&datagram("10.1.1.11", number));
        number += 1;
        let _ = rig.workers.accounts().unwrap();
    }
    rig.inject(A, &datagram("10.1.2.5", 77));
    assert_eq!(numbers(&rig.wait_for(UPLINK, 1)), [77]);
    assert_eq!(rig.frames(), u64::from(FRAMES));
}

#[test]
fn a_port_detached_under_traffic_gives_its_frames_back() {
    let mut rig = Rig::new(&[(A, 0), (B, 1)], 256);
    for number in 0..25 {
        rig.inject(A, &datagram("10.1.1.11", number));
    }
    let gone = rig.kernels.pop().unwrap().0;
    rig.workers.detach(gone.worker, gone.slot).unwrap();
    let mut frames = FramePool::empty(&rig.umem);
    rig.umem.reclaim(gone.slot, &mut frames);
    rig.workers.forget(gone.port, frames, &rig.umem).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while rig.frames() != u64::from(FRAMES) {
        assert!(Instant::now() < deadline, "{} frames", rig.frames());
    }
}
