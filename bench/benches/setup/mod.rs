//! The pipeline's cases: what `pipeline.rs` takes the time of and `instructions.rs` counts.
#![expect(
    clippy::expect_used,
    reason = "a bench that cannot be set up cannot go on"
)]

mod policy;

use std::hint::black_box;
use std::time::{Duration, Instant};

use weft_engine::testbed::{self, A, UPLINK, from_four, ip, packet};
use weft_engine::{
    BATCH_MAX, Batch, Env, FrontendKey, FrontendSpec, Packet, Pipeline, PipelineConfig, PortId,
    ServiceId, ServiceSpec, Tables, Verdict,
};
use weft_wire::build;
use weft_wire::{ChecksumField, Protocol};
use weft_xsk::{FramePool, Umem};

/// What is measured: action/family and size, and packets of a batch.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Packets of a batch.
    pub packets: usize,
    /// Makes it.
    make: fn() -> Bench,
}

impl Case {
    const fn new(name: &'static str, packets: usize, make: fn() -> Bench) -> Self {
        Self {
            name,
            packets,
            make,
        }
    }

    /// The bench, all its connections known.
    pub fn bench(&self) -> Bench {
        let mut bench = (self.make)();
        // The first packets of a connection are another matter: see `new`.
        for _ in 0..bench.frames.len().div_ceil(self.packets) {
            bench.run(self.packets);
        }
        bench
    }
}

const A4: &str = "10.1.1.10";
const B4: &str = "10.1.1.11";
const A6: &str = "fd00:1:1::10";
const B6: &str = "fd00:1:1::11";

/// Pods of another node.
const FAR4: &str = "10.1.2.5";
const FAR6: &str = "fd00:1:2::5";

/// Addresses of services whose backend is B. Their cases are to be compared with `forward` and `new`.
const SERVICE4: &str = "10.96.0.9";
const SERVICE6: &str = "fd00:96::9";

const B: usize = BATCH_MAX;

/// All cases.
pub const CASES: &[Case] = &[
    Case::new("forward/udp4_64B", B, || pod(udp(A4, B4, 64, 64))),
    Case::new("forward/udp4_64B", 8, || pod(udp(A4, B4, 64, 64))),
    Case::new("forward/udp4_64B_32k_flows", B, || {
        pod(udp(A4, B4, 32_768, 64))
    }),
    Case::new("forward/udp6_64B", B, || pod(udp(A6, B6, 64, 64))),
    Case::new("forward/tcp4_64B", B, || pod(tcp(A4, B4, 64))),
    Case::new("forward/tcp4_1500B", B, || pod(tcp(A4, B4, 1500))),
    Case::new("forward/tcp6_1500B", B, || pod(tcp(A6, B6, 1500))),
    Case::new("forward/tcp4_64KiB", 32, || pod(tcp(A4, B4, 65_000))),
    Case::new("new/udp4_64B", B, || pod(udp(A4, B4, 64, 64)).anew()),
    Case::new("service/udp4_64B", B, || service(udp(A4, SERVICE4, 64, 64))),
    Case::new("service/udp6_64B", B, || service(udp(A6, SERVICE6, 64, 64))),
    Case::new("service/tcp4_64B", B, || service(tcp(A4, SERVICE4, 64))),
    Case::new("service/tcp4_1500B", B, || service(tcp(A4, SERVICE4, 1500))),
    Case::new("service_new/udp4_64B", B, || {
        service(udp(A4, SERVICE4, 64, 64)).anew()
    }),
    Case::new("policy/udp4_64B_0_policies", B, || policy(0)),
    Case::new("policy/udp4_64B_100_policies", B, || policy(100)),
    Case::new("policy/udp4_64B_10k_policies", B, || policy(10_000)),
    Case::new("policy_new/udp4_64B_0_policies", B, || policy(0).anew()),
    Case::new("policy_new/udp4_64B_100_policies", B, || policy(100).anew()),
    Case::new("policy_new/udp4_64B_10k_policies", B, || {
        policy(10_000).anew()
    }),
    Case::new("encap/udp4_64B", B, || pod(udp(A4, FAR4, 64, 64))),
    Case::new("encap/udp6_64B", B, || pod(udp(A6, FAR6, 64, 64))),
    Case::new("encap/tcp4_1450B", B, || pod(tcp(A4, FAR4, 1450))),
    Case::new("decap/udp4_64B", B, || uplink(tunnelled(FAR4, A4, 64))),
    Case::new("decap/udp6_64B", B, || uplink(tunnelled(FAR6, A6, 64))),
    Case::new("decap/udp4_1450B", B, || uplink(tunnelled(FAR4, A4, 1450))),
];

fn pod(frames: Vec<Vec<u8>>) -> Bench {
    Bench::new(A, frames)
}

fn uplink(frames: Vec<Vec<u8>>) -> Bench {
    Bench::new(UPLINK, frames)
}

fn service(frames: Vec<Vec<u8>>) -> Bench {
    let mut bench = pod(frames);
    bench.tables = service_tables();
    bench
}

fn policy(count: u32) -> Bench {
    let mut bench = pod(udp(A4, B4, 64, 64));
    bench.tables = policy::tables(count);
    bench
}

/// Frames of the memory: 64 packets of 64 KiB need 1,152.
const FRAMES: u32 = 4096;

/// A pipeline and what it works with.
pub struct Bench {
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
    /// The source port of each packet is the next, so that its connection is new. When all were there, they are
    /// forgotten.
    anew: Option<u16>,
}

impl Bench {
    /// A bench whose packets come in by `port`.
    pub fn new(port: PortId, frames: Vec<Vec<u8>>) -> Self {
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

    /// Every packet is to be of a new connection.
    fn anew(mut self) -> Self {
        self.anew = Some(0);
        self
    }

    fn fill(&mut self, packets: usize) {
        for _ in 0..packets {
            let bytes = &self.frames[self.next];
            self.next = (self.next + 1) % self.frames.len();
            let mut chain = testbed::chain_of(&self.umem, &mut self.pool, bytes, &[]);
            if let (Some(port), Some(first)) = (&mut self.anew, chain.first_mut()) {
                *port = port.wrapping_add(1);
                if *port == 0 {
                    self.pipeline = Pipeline::new(PipelineConfig::default());
                }
                let bytes = self.umem.bytes_mut(first);
                bytes[34..36].copy_from_slice(&port.to_be_bytes());
            }
            let kind = testbed::kind_of(self.port);
            self.batch
                .packets
                .push(Packet::received(chain, self.port, kind));
        }
    }

    /// One batch of so many packets; how long the pipeline took.
    pub fn run(&mut self, packets: usize) -> Duration {
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

/// Where [`udp`] and [`tcp`] send to.
const SERVICE_PORTS: [(Protocol, u16); 2] = [(Protocol::UDP, 53), (Protocol::TCP, 80)];

/// The node's tables with a service of each family.
fn service_tables() -> Tables {
    let mut bed = testbed::Testbed::new();
    for (id, address, backend) in [(1, SERVICE4, B4), (2, SERVICE6, B6)] {
        let frontend = |(protocol, port): (Protocol, u16)| FrontendSpec {
            inside_backends: None,
            key: FrontendKey {
                address: ip(address),
                protocol: protocol.0,
                port,
            },
            keeps_source: false,
            direct: false,
            drops: false,
            sources: None,
            backends: vec![0],
        };
        let spec = ServiceSpec {
            backends: vec![(ip(backend), 8080)],
            frontends: SERVICE_PORTS.map(frontend).into(),
            ..ServiceSpec::default()
        };
        bed.change(|builder| builder.services().set(ServiceId(id), &spec));
    }
    bed.tables.clone()
}
