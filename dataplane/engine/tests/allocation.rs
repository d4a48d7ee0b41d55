//! No packet costs an allocation: neither to be forwarded, whatever its size, family and way, nor to open
//! a connection, to be cut, merged, held or answered.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use allocation_counter::{AllocationInfo, measure};
use weft_engine::testbed::{self, A, B, Testbed, UPLINK, chain_of, from_four, from_six, packet};
use weft_engine::{
    Algorithm, BATCH_MAX, Batch, Env, FrontendKey, FrontendSpec, Packet, Pipeline, PipelineConfig,
    PortId, ServiceId, ServiceSpec, Verdict,
};
use weft_wire::{ChecksumField, Protocol, build};
use weft_xsk::{FramePool, Umem};

/// 64 packets of 64 KiB are 1,152 frames, and their segments as many again.
const FRAMES: u32 = 8192;

const A4: &str = "10.1.1.10";
const B4: &str = "10.1.1.11";
const A6: &str = "fd00:1:1::10";

/// A pipeline and what it works with, all of it made beforehand.
struct Rig {
    umem: Umem,
    pool: FramePool,
    tables: weft_engine::Tables,
    pipeline: Pipeline,
    batch: Batch,
    now_ns: u64,
}

impl Rig {
    fn new() -> Self {
        let umem = Umem::heap(FRAMES);
        let pool = FramePool::all(&umem).unwrap();
        let mut pipeline = Pipeline::new(PipelineConfig::default());
        pipeline.verdicts_mut().keep(true);
        Self {
            umem,
            pool,
            tables: Testbed::tables_of_topology(),
            pipeline,
            batch: Batch::new(),
            now_ns: 1_000_000_000,
        }
    }

    fn fill(&mut self, port: PortId, frames: &[Vec<u8>]) {
        for bytes in frames {
            let chain = chain_of(&self.umem, &mut self.pool, bytes, &[]);
            let packet = Packet::received(chain, port, testbed::kind_of(port));
            self.batch.packets.push(packet);
        }
    }

    /// What a run, and looking for what is overdue, allocates and frees.
    fn run(&mut self) -> AllocationInfo {
        self.now_ns += 150_000_000;
        let mut env = Env {
            tables: &self.tables,
            umem: &self.umem,
            pool: &mut self.pool,
            now_ns: self.now_ns,
        };
        let (pipeline, batch) = (&mut self.pipeline, &mut self.batch);
        measure(|| {
            pipeline.run(batch, &mut env);
            pipeline.verdicts_mut().take().for_each(drop);
            pipeline.expire(&mut env, batch);
        })
    }

    /// Runs the frames many times. `seen` says of a run whether it did what it is there for.
    fn costs_nothing(
        &mut self,
        name: &str,
        (port, frames): (PortId, Vec<Vec<u8>>),
        seen: fn(&Batch) -> bool,
    ) {
        for round in 0..20 {
            self.fill(port, &frames);
            let cost = self.run();
            assert!(
                seen(&self.batch),
                "{name}: round {round} did something else"
            );
            assert_eq!(
                (cost.count_total, cost.count_current),
                (0, 0),
                "{name}: allocations, and those not freed, in round {round}"
            );
            self.batch.recycle(&mut self.pool);
        }
    }
}

fn all_sent(batch: &Batch) -> bool {
    let mut sent = batch.packets.iter().chain(&batch.born);
    sent.all(|packet| matches!(packet.verdict, Verdict::Tx(_)))
}

fn some_cut(batch: &Batch) -> bool {
    let sent = |piece: &Packet| matches!(piece.verdict, Verdict::Tx(_));
    batch.born.len() > batch.packets.len() && batch.born.iter().all(sent)
}

fn some_merged(batch: &Batch) -> bool {
    let merged = |packet: &&Packet| packet.verdict == Verdict::Merged;
    batch.packets.iter().filter(merged).count() > batch.packets.len() / 2
}

fn all_answered(batch: &Batch) -> bool {
    batch.born.len() == batch.packets.len()
}

fn sized(packet: build::Packet, len: usize) -> Vec<u8> {
    packet.payload_len(len).build()
}

/// As a pod's stack leaves it to be segmented.
fn large(source: &str, destination: &str) -> Vec<u8> {
    let packet = packet(source, destination).tcp(1024, 80);
    sized(packet.checksum(ChecksumField::Partial), 64_000)
}

/// A packet of each size to a destination, by UDP where it fits a datagram on the way, and by TCP.
fn to(source: &str, destination: &str, sizes: &[usize]) -> Vec<Vec<u8>> {
    let each = |len: &usize| {
        let tcp = packet(source, destination).tcp(1024, 80);
        let udp = packet(source, destination).udp(1024, 53);
        [sized(tcp, *len), sized(udp, *len)]
    };
    sizes.iter().flat_map(each).collect()
}

const SMALL: [usize; 3] = [0, 64, 1300];
const LOCAL: [usize; 4] = [0, 64, 1460, 64_900];

#[test]
fn forwarding_within_the_node() {
    let mut rig = Rig::new();
    for (source, destination) in [(A4, B4), (A6, "fd00:1:1::11")] {
        let frames = to(source, destination, &LOCAL);
        rig.costs_nothing(destination, (A, frames), all_sent);
    }
}

#[test]
fn into_the_tunnel_and_out_of_it() {
    let mut rig = Rig::new();
    for (source, far) in [
        (A4, "10.1.2.5"),
        (A4, "10.1.3.5"),
        (A6, "fd00:1:2::5"),
        (A6, "fd00:1:3::5"),
    ] {
        rig.costs_nothing(far, (A, to(source, far, &SMALL)), all_sent);
        let through = if far.contains('3') {
            from_six
        } else {
            from_four
        };
        let inner = SMALL.map(|len| packet(far, source).udp(1024, 53).payload_len(len));
        let frames = inner.iter().map(|inner| through(inner).build()).collect();
        rig.costs_nothing(far, (UPLINK, frames), all_sent);
    }
}

#[test]
fn cutting_large_packets_into_segments() {
    let mut rig = Rig::new();
    for (source, far) in [(A4, "10.1.2.5"), (A6, "fd00:1:2::5")] {
        let frames = vec![large(source, far); 3];
        rig.costs_nothing(far, (A, frames), some_cut);
    }
}

#[test]
fn merging_segments() {
    let mut rig = Rig::new();
    for (far, pod) in [("10.1.2.5", A4), ("fd00:1:2::5", A6)] {
        let segment = |n: u32| {
            let inner = packet(far, pod).tcp(1024, 80).sequence(1 + n * 1300, 1);
            from_four(&inner.payload_len(1300)).build()
        };
        let frames = (0..32).map(segment).collect();
        rig.costs_nothing(pod, (UPLINK, frames), some_merged);
    }
}

#[test]
fn new_connections_and_a_table_that_is_full_of_them() {
    let mut rig = Rig::new();
    rig.pipeline = Pipeline::new(PipelineConfig {
        flows: 256,
        ..PipelineConfig::default()
    });
    for round in 0..40 {
        let frames = (0..BATCH_MAX as u16).map(|n| {
            let port = 1024 + round * BATCH_MAX as u16 + n;
            packet(A4, B4).udp(port, 53).build()
        });
        rig.fill(A, &frames.collect::<Vec<_>>());
        let cost = rig.run();
        assert!(all_sent(&rig.batch));
        assert_eq!((cost.count_total, cost.count_current), (0, 0));
        rig.batch.recycle(&mut rig.pool);
    }
    let counters = rig.pipeline.flows().counters();
    assert!(counters.new == 2560 && counters.evicted + counters.expired > 2000);
}

/// A service whose backends are pod B and one far away, by chance and with affinity, and its address.
fn with_service(rig: &mut Rig, backends: &[&str], far: &str) -> &'static str {
    let address = if far.contains(':') {
        "fd00:96::9"
    } else {
        "10.96.0.9"
    };
    let mut bed = Testbed::new();
    let spec = ServiceSpec {
        algorithm: Algorithm::LeastConnections,
        affinity_seconds: Some(1),
        backends: backends.iter().map(|it| (testbed::ip(it), 8080)).collect(),
        frontends: [(Protocol::TCP, 80), (Protocol::UDP, 53)]
            .map(|(protocol, port)| FrontendSpec {
                inside_backends: None,
                key: FrontendKey {
                    address: testbed::ip(address),
                    protocol: protocol.0,
                    port,
                },
                keeps_source: false,
                direct: false,
                drops: false,
                sources: None,
                backends: (0..backends.len() as u32).collect(),
            })
            .into(),
    };
    bed.change(|builder| builder.services().set(ServiceId(1), &spec));
    rig.tables = bed.tables.clone();
    address
}

#[test]
fn services() {
    let mut rig = Rig::new();
    for (source, backends) in [
        (A4, [B4, "10.1.2.5", A4]),
        (A6, ["fd00:1:1::11", "fd00:1:2::5", A6]),
    ] {
        let address = with_service(&mut rig, &backends, source);
        let frames = (0..32).map(|n| packet(source, address).udp(1024 + n, 53).build());
        rig.costs_nothing("udp", (A, frames.collect()), all_sent);
        let frames = (0..32).map(|n| packet(source, address).tcp(1024 + n, 80).build());
        rig.costs_nothing("tcp", (A, frames.collect()), all_sent);
        let address = with_service(&mut rig, &[], source);
        let frames = vec![packet(source, address).tcp(999, 80).build()];
        rig.costs_nothing("refused", (A, frames), all_answered);
    }
}

#[test]
fn answering_with_an_error() {
    let mut rig = Rig::new();
    // The limit of errors per port lets one a round pass for certain.
    let frames = vec![packet(B4, "10.1.2.5").hops(1).udp(1024, 53).build()];
    rig.costs_nothing("time exceeded", (B, frames), all_answered);
}

#[test]
fn an_allocation_in_a_stage_is_seen() {
    let mut rig = Rig::new();
    // Without room for segments the stage that cuts has to make some.
    rig.batch.born = Vec::new();
    rig.fill(A, &[large(A4, "10.1.2.5")]);
    let cost = rig.run();
    assert!(some_cut(&rig.batch));
    assert!(cost.count_total > 0 && cost.count_current > 0, "{cost:?}");
    rig.batch.recycle(&mut rig.pool);
}
