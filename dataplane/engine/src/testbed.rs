//! A node with two pods, two remote nodes and a pipeline, for tests, benches and fuzzing.
//!
//! | what | IPv4 | IPv6 |
//! |---|---|---|
//! | pod A, port 0 | 10.1.1.10 | fd00:1:1::10 |
//! | pod B, port 1 | 10.1.1.11 | fd00:1:1::11 |
//! | `weft0`, port 2 | 10.1.1.254 | fd00:1:1::fe |
//! | node, uplink port 3 | 192.0.2.1 | 2001:db8::1 |
//! | remote four, tunnel over IPv4 | 192.0.2.2, pods 10.1.2.0/24 | pods fd00:1:2::/64 |
//! | remote six, tunnel over IPv6 | pods 10.1.3.0/24 | 2001:db8::3, pods fd00:1:3::/64 |
//! | cluster pods | 10.1.0.0/16 | fd00:1::/32 |
//! | cluster services | 10.96.0.0/16 | fd00:96::/112 |
//!
//! Every run checks that no packet is left undecided and no frame lost.
#![expect(
    clippy::expect_used,
    reason = "a testbed that cannot be set up fails its test"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weft_wire::build;
use weft_wire::{MacAddr, Vni};
use weft_xsk::{FRAME_BYTES, FrameChain, FramePool, Gso, RX_OFFSET, Umem, leaked_frames};

use crate::batch::{BATCH_MAX, Batch};
use crate::builder::{RangeKind, TablesBuilder};
use crate::packet::{Checksum, Packet, PortId, PortKind, RemoteId, Track, Verdict};
use crate::pipeline::{Env, Pipeline, PipelineConfig};
use crate::tables::{NodeTable, OuterPath, PortEntry, Remote, Tables};

/// Port of pod A.
pub const A: PortId = PortId(0);
/// Port of pod B.
pub const B: PortId = PortId(1);
/// Port of the node's own stack.
pub const NODE: PortId = PortId(2);
/// Underlay port.
pub const UPLINK: PortId = PortId(3);

/// MAC of pod A.
pub const A_MAC: MacAddr = MacAddr([0x02, 0x50, 10, 1, 1, 10]);
/// MAC of pod B.
pub const B_MAC: MacAddr = MacAddr([0x02, 0x50, 10, 1, 1, 11]);
/// MAC of `weft0`.
pub const NODE_MAC: MacAddr = MacAddr([0x02, 0x50, 10, 1, 1, 254]);
/// MAC of the pods' gateway.
pub const GATEWAY_MAC: MacAddr = MacAddr([0x02, 0x77, 0x65, 0x66, 0x74, 1]);
/// MAC of the uplink.
pub const UPLINK_MAC: MacAddr = MacAddr([0x52, 0, 0, 0, 0, 1]);
/// MAC of the underlay's next hop.
pub const NEXT_HOP_MAC: MacAddr = MacAddr([0x52, 0, 0, 0, 0, 2]);
/// MAC of this node's tunnel endpoint over IPv4.
pub const VTEP4_MAC: MacAddr = MacAddr([0x02, 0x57, 192, 0, 2, 1]);
/// MAC of this node's tunnel endpoint over IPv6.
pub const VTEP6_MAC: MacAddr = MacAddr([0x06, 0x57, 0, 0, 0, 1]);
/// MAC of remote four's tunnel endpoint.
pub const FOUR_MAC: MacAddr = MacAddr([0x02, 0x57, 192, 0, 2, 2]);
/// MAC of remote six's tunnel endpoint.
pub const SIX_MAC: MacAddr = MacAddr([0x06, 0x57, 0, 0, 0, 3]);

/// The cluster's network identifier.
pub const VNI: u32 = 7765;
/// Largest inner packet to remote four: an underlay of 1,500 bytes.
pub const FOUR_MTU: u32 = 1450;
/// Largest inner packet to remote six.
pub const SIX_MTU: u32 = 1430;
/// MTU towards the outside.
pub const OUTSIDE_MTU: u32 = 1500;
/// Largest TCP packet between ports of the node.
pub const LOCAL_MTU: u32 = 65_000;
/// Connections the testbed's pipeline remembers.
pub const FLOWS: u32 = 4096;
/// Frames of the testbed's memory.
pub const FRAMES: u32 = 1024;

/// An address from text.
///
/// # Panics
/// When it is none.
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A packet between two addresses written as text, from pod A's or another's MAC to the gateway.
pub fn packet(source: &str, destination: &str) -> build::Packet {
    let (source, destination) = (ip(source), ip(destination));
    let mac = match source {
        _ if source == ip("10.1.1.11") || source == ip("fd00:1:1::11") => B_MAC,
        _ if source == ip("10.1.1.10") || source == ip("fd00:1:1::10") => A_MAC,
        _ => NODE_MAC,
    };
    build::Packet::ip(source, destination).macs(mac, GATEWAY_MAC)
}

/// The frame `inner` as remote four tunnels it to this node.
pub fn from_four(inner: &build::Packet) -> build::Packet {
    by_four(&inner.clone().macs(FOUR_MAC, VTEP4_MAC).build())
}

fn by_four(inner: &[u8]) -> build::Packet {
    build::Packet::ip(ip("192.0.2.2"), ip("192.0.2.1"))
        .macs(NEXT_HOP_MAC, UPLINK_MAC)
        .vxlan(50_000, vni(VNI), inner)
        .no_checksum()
}

/// The same of a frame that is bytes already, a fragment say, whatever its addresses of Ethernet.
pub fn from_four_bytes(inner: &[u8]) -> Vec<u8> {
    let addresses = [VTEP4_MAC.0, FOUR_MAC.0].concat();
    by_four(&[&addresses, &inner[12..]].concat()).build()
}

/// The frame `inner` as remote six tunnels it to this node.
pub fn from_six(inner: &build::Packet) -> build::Packet {
    let inner = inner.clone().macs(SIX_MAC, VTEP6_MAC).build();
    build::Packet::ip(ip("2001:db8::3"), ip("2001:db8::1"))
        .macs(NEXT_HOP_MAC, UPLINK_MAC)
        .vxlan(50_000, vni(VNI), &inner)
}

/// A network identifier.
///
/// # Panics
/// When it has more than 24 bits.
pub fn vni(value: u32) -> Vni {
    Vni::new(value).expect("24 bits")
}

/// Frames holding `bytes`, cut where `pieces` says and then every 3,840 bytes as the kernel does.
///
/// # Panics
/// When the pool has too few frames.
pub fn chain_of(umem: &Umem, pool: &mut FramePool, bytes: &[u8], pieces: &[usize]) -> FrameChain {
    let mut chain = FrameChain::new();
    let mut rest = bytes;
    let mut pieces = pieces.iter().copied();
    while !rest.is_empty() || chain.is_empty() {
        let most = FRAME_BYTES - RX_OFFSET;
        let len = pieces.next().unwrap_or(most).clamp(1, most).min(rest.len());
        let mut frame = pool.alloc().expect("a free frame");
        frame.set_len(len).expect("at most a frame");
        umem.bytes_mut(&mut frame).copy_from_slice(&rest[..len]);
        chain.push(frame);
        rest = &rest[len..];
    }
    chain
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its verdict.
    pub verdict: Verdict,
    /// Its bytes at the end.
    pub bytes: Vec<u8>,
    /// Who completes its checksum.
    pub checksum: Checksum,
    /// What it is to be segmented into.
    pub gso: Option<Gso>,
    /// Length of its first frame.
    pub first_len: usize,
    /// Its connection.
    pub track: Track,
}

/// What became of a batch.
#[derive(Clone, Debug, Default)]
pub struct Ran {
    /// Received packets, in order.
    pub packets: Vec<Outcome>,
    /// Packets the pipeline made.
    pub born: Vec<Outcome>,
    /// All of them, in the order in which they are sent.
    pub in_order: Vec<Outcome>,
}

/// See the module's text.
pub struct Testbed {
    /// The memory.
    pub umem: Umem,
    /// The free frames.
    pub pool: FramePool,
    /// The pipeline under test.
    pub pipeline: Pipeline,
    /// Where the tables come from.
    pub builder: TablesBuilder,
    /// The tables in force.
    pub tables: Tables,
    /// The time.
    pub now_ns: u64,
    /// How received packets are cut into frames; empty: as the kernel does.
    pub pieces: Vec<usize>,
    batch: Batch,
    leaked: u64,
}

impl Default for Testbed {
    fn default() -> Self {
        Self::new()
    }
}

impl Testbed {
    /// The node as described above.
    ///
    /// # Panics
    /// Never: the memory is its own.
    pub fn new() -> Self {
        Self::with_flows(FLOWS)
    }

    /// The same, whose pipeline remembers at most so many connections.
    ///
    /// # Panics
    /// Never: the memory is its own.
    pub fn with_flows(flows: u32) -> Self {
        let umem = Umem::heap(FRAMES);
        let pool = FramePool::all(&umem).expect("fresh memory");
        let mut builder = topology();
        let tables = builder.build();
        Self {
            umem,
            pool,
            pipeline: Pipeline::new(PipelineConfig {
                flows,
                ..PipelineConfig::default()
            }),
            builder,
            tables,
            now_ns: 1_000_000_000,
            pieces: Vec::new(),
            batch: Batch::new(),
            leaked: leaked_frames(),
        }
    }

    /// The tables of the node as described above, nothing else.
    pub fn tables_of_topology() -> Tables {
        topology().build()
    }

    /// The same with each port on its worker, and something else changed.
    ///
    /// # Panics
    /// When there is no such port.
    pub fn tables_with(
        workers: &[(PortId, u16)],
        change: impl FnOnce(&mut TablesBuilder),
    ) -> Tables {
        let mut builder = topology();
        change(&mut builder);
        for (id, worker) in workers {
            let tables = builder.build();
            let mut port = tables.port(*id).expect("a port of the testbed").clone();
            port.worker = *worker;
            builder.set_port(port).expect("a known id");
        }
        builder.build()
    }

    /// Changes the tables.
    pub fn change(&mut self, change: impl FnOnce(&mut TablesBuilder)) {
        change(&mut self.builder);
        self.tables = self.builder.build();
    }

    /// Changes one port.
    ///
    /// # Panics
    /// When there is no such port.
    pub fn change_port(&mut self, id: PortId, change: impl FnOnce(&mut PortEntry)) {
        let mut port = self.tables.port(id).expect("a port of the testbed").clone();
        change(&mut port);
        self.change(|builder| builder.set_port(port).expect("a known id"));
    }

    /// Runs packets as one batch, each from a port.
    ///
    /// # Panics
    /// When a packet stays undecided or a frame is lost.
    pub fn run(&mut self, packets: &[(PortId, Vec<u8>)]) -> Ran {
        assert!(
            packets.len() <= BATCH_MAX,
            "a batch holds {BATCH_MAX} packets"
        );
        for (port, bytes) in packets {
            let frames = chain_of(&self.umem, &mut self.pool, bytes, &self.pieces);
            let kind = kind_of(*port);
            self.batch
                .packets
                .push(Packet::received(frames, *port, kind));
        }
        let mut env = Env {
            tables: &self.tables,
            umem: &self.umem,
            pool: &mut self.pool,
            now_ns: self.now_ns,
        };
        self.pipeline.run(&mut self.batch, &mut env);
        self.collect()
    }

    /// Runs one packet that must come to one outcome and make nothing.
    ///
    /// # Panics
    /// When it makes something.
    pub fn one(&mut self, port: PortId, packet: &build::Packet) -> Outcome {
        self.bytes(port, packet.build())
    }

    /// As [`Testbed::one`], of raw bytes.
    ///
    /// # Panics
    /// When it makes something.
    pub fn bytes(&mut self, port: PortId, bytes: Vec<u8>) -> Outcome {
        let mut ran = self.run(&[(port, bytes)]);
        assert!(ran.born.is_empty(), "nothing is made: {:?}", ran.born);
        ran.packets.remove(0)
    }

    /// Lets the pipeline expire what waited too long.
    pub fn expire(&mut self) -> Ran {
        let mut env = Env {
            tables: &self.tables,
            umem: &self.umem,
            pool: &mut self.pool,
            now_ns: self.now_ns,
        };
        self.pipeline.expire(&mut env, &mut self.batch);
        self.collect()
    }

    /// Frames free or held by the pipeline: all of them, between runs.
    pub fn accounted(&self) -> usize {
        self.pool.len() + self.pipeline.held()
    }

    fn collect(&mut self) -> Ran {
        let umem = &self.umem;
        let outcome = |packet: &Packet| Outcome {
            verdict: packet.verdict,
            bytes: packet
                .frames
                .iter()
                .flat_map(|frame| umem.bytes(frame).to_vec())
                .collect(),
            checksum: packet.checksum,
            gso: packet.gso,
            first_len: packet.frames.first().map_or(0, weft_xsk::Frame::len),
            track: packet.track,
        };
        let mut in_order = Vec::new();
        self.batch
            .for_each_in_order(|packet| in_order.push(outcome(packet)));
        let ran = Ran {
            packets: self.batch.packets.iter().map(outcome).collect(),
            born: self.batch.born.iter().map(outcome).collect(),
            in_order,
        };
        assert_eq!(
            ran.in_order.len(),
            ran.packets.len() + ran.born.len(),
            "every packet is sent once"
        );
        for outcome in ran.packets.iter().chain(&ran.born) {
            assert_ne!(
                outcome.verdict,
                Verdict::Pending,
                "every packet has a verdict"
            );
            let empty = outcome.bytes.is_empty();
            assert_eq!(
                matches!(outcome.verdict, Verdict::Consumed | Verdict::Merged),
                empty,
                "{:?} keeps its frames",
                outcome.verdict
            );
        }
        self.batch.recycle(&mut self.pool);
        assert_eq!(self.accounted(), FRAMES as usize, "no frame is lost");
        assert_eq!(leaked_frames(), self.leaked, "no frame leaks");
        ran
    }
}

impl Drop for Testbed {
    /// What is held is not leaked, in the eyes of tests that run beside.
    fn drop(&mut self) {
        let ports: Vec<PortId> = self.tables.ports().map(|port| port.id).collect();
        for port in ports {
            self.pipeline.port_removed(port, &mut self.pool);
        }
    }
}

/// What a port of the testbed is.
pub fn kind_of(port: PortId) -> PortKind {
    match port {
        NODE => PortKind::Node,
        UPLINK => PortKind::Uplink,
        _ => PortKind::Pod,
    }
}

/// This node.
pub fn node() -> NodeTable {
    NodeTable {
        node_port: Some(NODE),
        node_port4: Some(Ipv4Addr::new(10, 1, 1, 254)),
        node_port6: Some(Ipv6Addr::new(0xfd00, 1, 1, 0, 0, 0, 0, 0xfe)),
        addresses: vec![ip("192.0.2.1"), ip("2001:db8::1")],
        vtep4_mac: Some(VTEP4_MAC),
        vtep6_mac: Some(VTEP6_MAC),
        pod_cidrs: vec![
            "10.1.1.0/24".parse().expect("a prefix"),
            "fd00:1:1::/64".parse().expect("a prefix"),
        ],
        vni: vni(VNI),
        vxlan_port: 4789,
        gateway_mac: GATEWAY_MAC,
        gateway4: Ipv4Addr::new(169, 254, 1, 1),
        gateway6: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
        outside_mtu: OUTSIDE_MTU,
    }
}

/// Id of remote four.
pub const FOUR: RemoteId = RemoteId(0);
/// Id of remote six.
pub const SIX: RemoteId = RemoteId(1);

fn topology() -> TablesBuilder {
    let mut builder = TablesBuilder::new();
    builder.set_node(Some(node()));
    for port in [
        pod(A, A_MAC, "10.1.1.10", "fd00:1:1::10"),
        pod(B, B_MAC, "10.1.1.11", "fd00:1:1::11"),
        PortEntry {
            kind: PortKind::Node,
            ..bare(NODE, NODE_MAC)
        },
        PortEntry {
            kind: PortKind::Uplink,
            mtu: 1500,
            tx_checksum: false,
            gso: false,
            ..bare(UPLINK, UPLINK_MAC)
        },
    ] {
        builder.set_port(port).expect("few ports");
    }
    let four = remote(
        ("192.0.2.2", "192.0.2.1"),
        FOUR_MAC,
        ["10.1.2.0/24", "fd00:1:2::/64"],
        FOUR_MTU,
    );
    let six = remote(
        ("2001:db8::3", "2001:db8::1"),
        SIX_MAC,
        ["10.1.3.0/24", "fd00:1:3::/64"],
        SIX_MTU,
    );
    assert_eq!(builder.add_remote(four), Ok(FOUR));
    assert_eq!(builder.add_remote(six), Ok(SIX));
    for (prefix, kind) in [
        ("10.1.0.0/16", RangeKind::Pods),
        ("fd00:1::/32", RangeKind::Pods),
        ("10.96.0.0/16", RangeKind::Services),
        ("fd00:96::/112", RangeKind::Services),
    ] {
        builder.add_range(prefix.parse().expect("a prefix"), kind);
    }
    allow_all(&mut builder);
    builder
}

/// Identity of every address, unless a test says otherwise: its pods may connect to everybody and everybody to them.
pub const ANYBODY: u32 = 1;

/// Gives every address the identity [`ANYBODY`].
pub fn allow_all(builder: &mut TablesBuilder) {
    let policy = builder.policy();
    policy.set_identity(ANYBODY, Some(Vec::new()));
    policy.set_rules(ANYBODY, Vec::new(), Vec::new());
    for everywhere in ["0.0.0.0/0", "::/0"] {
        policy.set_address(everywhere.parse().expect("a prefix"), Some(ANYBODY));
    }
}

fn bare(id: PortId, mac: MacAddr) -> PortEntry {
    PortEntry {
        id,
        kind: PortKind::Pod,
        mac,
        addresses4: Vec::new(),
        addresses6: Vec::new(),
        mtu: 65_535,
        tcp_mtu: LOCAL_MTU,
        tx_checksum: true,
        worker: 0,
        gso: true,
        shortcuts: true,
    }
}

fn pod(id: PortId, mac: MacAddr, v4: &str, v6: &str) -> PortEntry {
    PortEntry {
        addresses4: vec![v4.parse().expect("an address")],
        addresses6: vec![v6.parse().expect("an address")],
        ..bare(id, mac)
    }
}

fn remote(
    (vtep, source): (&str, &str),
    mac: MacAddr,
    prefixes: [&str; 2],
    inner_mtu: u32,
) -> Remote {
    Remote {
        vtep: ip(vtep),
        vtep_mac: mac,
        prefixes: prefixes
            .iter()
            .map(|prefix| prefix.parse().expect("a prefix"))
            .collect(),
        addresses: vec![ip(vtep)],
        path: Some(OuterPath {
            uplink: UPLINK,
            source: ip(source),
            source_mac: UPLINK_MAC,
            next_hop_mac: NEXT_HOP_MAC,
        }),
        inner_mtu,
    }
}
