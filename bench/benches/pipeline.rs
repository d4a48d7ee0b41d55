//! Nanoseconds per packet of the whole pipeline. An id is action/family and size/batch; criterion's
//! throughput says packets per second, and ns per packet is time divided by the batch.
#![expect(
    clippy::expect_used,
    reason = "a bench that cannot be set up cannot go on"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipnet::IpNet;
use weft_engine::testbed::{self, A, UPLINK, from_four, ip, packet};
use weft_engine::{
    BATCH_MAX, Batch, Env, FrontendKey, FrontendSpec, Packet, Pipeline, PipelineConfig, PortId,
    Rule, RuleId, RuleVerdict, ServiceId, ServiceSpec, Tables, Verdict,
};
use weft_wire::build;
use weft_wire::{ChecksumField, Protocol};
use weft_xsk::{FramePool, Umem};

/// Frames of the memory: 64 packets of 64 KiB need 1,152.
const FRAMES: u32 = 4096;

/// A pipeline and what it works with.
struct Bench {
    umem: Umem,
    pool: FramePool,
    tables: Tables,
    pipeline: Pipeline,
    batch: Batch,
    now_ns: u64,
    /// Packets as they are received.
    frames: Vec<Vec<u8>>,
    /// The one sent next.
    next: usize,
    port: PortId,
    /// In each run the ports of each packet are moved on, so that its connection is new.
    anew: Option<u32>,
}

impl Bench {
    fn new(port: PortId, frames: Vec<Vec<u8>>) -> Self {
        let umem = Umem::heap(FRAMES);
        let pool = FramePool::all(&umem).expect("fresh memory");
        Self {
            umem,
            pool,
            tables: testbed::Testbed::tables_of_topology(),
            pipeline: Pipeline::new(PipelineConfig::default()),
            batch: Batch::new(),
            now_ns: 1_000_000_000,
            frames,
            next: 0,
            port,
            anew: None,
        }
    }

    fn fill(&mut self, packets: usize) {
        for _ in 0..packets {
            let bytes = &self.frames[self.next];
            self.next = (self.next + 1) % self.frames.len();
            let mut chain = testbed::chain_of(&self.umem, &mut self.pool, bytes, &[]);
            if let (Some(round), Some(first)) = (&mut self.anew, chain.first_mut()) {
                *round = round.wrapping_add(1);
                let bytes = self.umem.bytes_mut(first);
                bytes[34..38].copy_from_slice(&round.to_be_bytes());
            }
            let kind = testbed::kind_of(self.port);
            self.batch
                .packets
                .push(Packet::received(chain, self.port, kind));
        }
    }

    fn run(&mut self, packets: usize) -> Duration {
        self.fill(packets);
        // 64 packets in 20 us: what a busy port receives.
        self.now_ns += 20_000;
        let mut env = Env {
            tables: &self.tables,
            umem: &self.umem,
            pool: &mut self.pool,
            now_ns: self.now_ns,
        };
        let start = Instant::now();
        self.pipeline.run(black_box(&mut self.batch), &mut env);
        let took = start.elapsed();
        for packet in &self.batch.packets {
            assert!(
                matches!(packet.verdict, Verdict::Tx(_)),
                "{:?}",
                packet.verdict
            );
        }
        self.batch.recycle(&mut self.pool);
        took
    }
}

/// A frame of `len` bytes of IP, whose sender leaves the checksum to be completed.
fn frame(packet: build::Packet, headers: usize, len: usize) -> Vec<u8> {
    let partial = packet.checksum(ChecksumField::Partial);
    partial.payload_len(len.saturating_sub(headers)).build()
}

/// One frame of each of so many connections.
fn of_flows(flows: u16, make: impl Fn(u16) -> Vec<u8>) -> Vec<Vec<u8>> {
    (0..flows).map(make).collect()
}

fn udp(source: &str, destination: &str, flows: u16, len: usize) -> Vec<Vec<u8>> {
    let headers = if ip(source).is_ipv4() { 28 } else { 48 };
    of_flows(flows, |n| {
        frame(packet(source, destination).udp(1024 + n, 53), headers, len)
    })
}

fn tcp(source: &str, destination: &str, len: usize) -> Vec<Vec<u8>> {
    let headers = if ip(source).is_ipv4() { 40 } else { 60 };
    of_flows(64, |n| {
        frame(packet(source, destination).tcp(1024 + n, 80), headers, len)
    })
}

fn tunnelled(source: &str, destination: &str, len: usize) -> Vec<Vec<u8>> {
    of_flows(64, |n| {
        let inner = packet(source, destination).udp(1024 + n, 53);
        let inner = inner.payload_len(len - if ip(source).is_ipv4() { 28 } else { 48 });
        from_four(&inner).build()
    })
}

fn measure(criterion: &mut Criterion, name: &str, packets: usize, mut bench: Bench) {
    let id = format!("{name}/{packets}");
    let mut group = criterion.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(packets as u64));
    // The first packets of a connection are another matter: see `new`.
    for _ in 0..bench.frames.len().div_ceil(packets) {
        bench.run(packets);
    }
    group.bench_function(id, |b| {
        b.iter_custom(|runs| (0..runs).map(|_| bench.run(packets)).sum());
    });
    group.finish();
}

fn forward(criterion: &mut Criterion) {
    let (a4, b4, a6, b6) = ("10.1.1.10", "10.1.1.11", "fd00:1:1::10", "fd00:1:1::11");
    for (name, packets, frames) in [
        ("forward/udp4_64B", BATCH_MAX, udp(a4, b4, 64, 64)),
        ("forward/udp4_64B", 8, udp(a4, b4, 64, 64)),
        (
            "forward/udp4_64B_32k_flows",
            BATCH_MAX,
            udp(a4, b4, 32_768, 64),
        ),
        ("forward/udp6_64B", BATCH_MAX, udp(a6, b6, 64, 64)),
        ("forward/tcp4_64B", BATCH_MAX, tcp(a4, b4, 64)),
        ("forward/tcp4_1500B", BATCH_MAX, tcp(a4, b4, 1500)),
        ("forward/tcp6_1500B", BATCH_MAX, tcp(a6, b6, 1500)),
        ("forward/tcp4_64KiB", 32, tcp(a4, b4, 65_000)),
    ] {
        measure(criterion, name, packets, Bench::new(A, frames));
    }
}

fn new(criterion: &mut Criterion) {
    let mut bench = Bench::new(A, udp("10.1.1.10", "10.1.1.11", 64, 64));
    bench.anew = Some(0);
    measure(criterion, "new/udp4_64B", BATCH_MAX, bench);
}

/// Where [`udp`] and [`tcp`] send to.
const SERVICE_PORTS: [(Protocol, u16); 2] = [(Protocol::UDP, 53), (Protocol::TCP, 80)];

/// Known connections to a service, and new ones. To be compared with `forward` and `new`.
fn service(criterion: &mut Criterion) {
    let families = [
        ("10.1.1.10", "10.1.1.11", "10.96.0.9"),
        ("fd00:1:1::10", "fd00:1:1::11", "fd00:96::9"),
    ];
    let [v4, v6] = families.map(|(_, backend, address)| service_tables(address, backend));
    for (name, tables, frames) in [
        (
            "service/udp4_64B",
            &v4,
            udp("10.1.1.10", "10.96.0.9", 64, 64),
        ),
        (
            "service/udp6_64B",
            &v6,
            udp("fd00:1:1::10", "fd00:96::9", 64, 64),
        ),
        (
            "service/tcp4_1500B",
            &v4,
            tcp("10.1.1.10", "10.96.0.9", 1500),
        ),
    ] {
        let mut bench = Bench::new(A, frames);
        bench.tables = tables.clone();
        measure(criterion, name, BATCH_MAX, bench);
    }
    let mut bench = Bench::new(A, udp("10.1.1.10", "10.96.0.9", 64, 64));
    (bench.tables, bench.anew) = (v4, Some(0));
    measure(criterion, "service_new/udp4_64B", BATCH_MAX, bench);
}

/// The node's tables with one service.
fn service_tables(address: &str, backend: &str) -> Tables {
    let frontend = |(protocol, port): (Protocol, u16)| FrontendSpec {
        inside_backends: None,
        key: FrontendKey {
            address: ip(address),
            protocol: protocol.0,
            port,
        },
        keeps_source: false,
        drops: false,
        sources: None,
        backends: vec![0],
    };
    let spec = ServiceSpec {
        backends: vec![(ip(backend), 8080)],
        frontends: SERVICE_PORTS.map(frontend).into(),
        ..ServiceSpec::default()
    };
    let mut bed = testbed::Testbed::new();
    bed.change(|builder| builder.services().set(ServiceId(1), &spec));
    bed.tables
}

/// Pods of the cluster the policies are about, each with an identity of its own.
const POLICY_PODS: u32 = 5_000;

/// Known connections to a pod with ever more policies, and new ones: neither may cost more with their number. Every
/// policy lets one of the others in on one port, the last the client, and everybody else is kept out.
fn policy(criterion: &mut Criterion) {
    for count in [0, 100, 10_000] {
        let frames = || udp("10.1.1.10", "10.1.1.11", 64, 64);
        let tables = policy_tables(count);
        for (what, anew) in [("policy", None), ("policy_new", Some(0))] {
            let mut bench = Bench::new(A, frames());
            (bench.tables, bench.anew) = (tables.clone(), anew);
            measure(criterion, &format!("{what}/{count}"), BATCH_MAX, bench);
        }
    }
}

/// The node's tables with so many policies about pod B.
fn policy_tables(count: u32) -> Tables {
    let [client, server] = [POLICY_PODS + 1, POLICY_PODS + 2];
    let rule = |at: u32| Rule {
        tier: 1,
        peer: Some(at % POLICY_PODS),
        protocol: Some(Protocol::UDP.0),
        ports: Some((at as u16, at as u16)),
        verdict: RuleVerdict::Allow,
        id: RuleId(at + 1),
    };
    let any = |peer, verdict| Rule {
        peer,
        ports: None,
        verdict,
        ..rule(count)
    };
    let mut rules: Vec<Rule> = (0..count).map(rule).collect();
    if count > 0 {
        rules.push(any(Some(client), RuleVerdict::Allow));
        rules.push(any(None, RuleVerdict::Deny));
    }
    let pods =
        (0..POLICY_PODS).map(|pod| (pod, IpAddr::from(Ipv4Addr::from_bits(0x0af5_0000 + pod))));
    let local = [(client, ip("10.1.1.10")), (server, ip("10.1.1.11"))];
    let mut bed = testbed::Testbed::new();
    bed.change(|builder| {
        let policy = builder.policy();
        for (pod, address) in pods.chain(local) {
            // 0 is the world's.
            policy.set_identity(pod + 1, Some(vec![pod]));
            policy.set_address(IpNet::from(address), Some(pod + 1));
        }
        policy.set_rules(client + 1, Vec::new(), Vec::new());
        policy.set_rules(server + 1, rules, Vec::new());
    });
    bed.tables
}

fn tunnel(criterion: &mut Criterion) {
    let (a4, b4, a6, b6) = ("10.1.1.10", "10.1.2.5", "fd00:1:1::10", "fd00:1:2::5");
    for (name, port, frames) in [
        ("encap/udp4_64B", A, udp(a4, b4, 64, 64)),
        ("encap/udp6_64B", A, udp(a6, b6, 64, 64)),
        ("encap/tcp4_1450B", A, tcp(a4, b4, 1450)),
        ("decap/udp4_64B", UPLINK, tunnelled(b4, a4, 64)),
        ("decap/udp6_64B", UPLINK, tunnelled(b6, a6, 64)),
        ("decap/udp4_1450B", UPLINK, tunnelled(b4, a4, 1450)),
    ] {
        measure(criterion, name, BATCH_MAX, Bench::new(port, frames));
    }
}

fn config() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1000))
}

criterion_group! {
    name = benches;
    config = config();
    targets = forward, new, service, policy, tunnel
}
criterion_main!(benches);
