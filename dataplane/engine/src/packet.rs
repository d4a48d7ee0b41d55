//! A packet on its way through the pipeline, and what became of it.

use std::net::IpAddr;
use std::ops::Range;

use weft_wire::{ChecksumField, Fragment, MacAddr, Protocol, TcpFlags};
use weft_xsk::{FrameChain, Gso};

use crate::drop_reason::DropReason;
use crate::table::flow::{Decided, Direction, FlowRef, FlowTable, Tuple};
use crate::table::service::{BackendId, ServiceId};

/// A port of this node: index into [`crate::Tables`]' ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u16);

impl PortId {
    /// The port's place in arrays.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Another node of the cluster: index into [`crate::Tables`]' remotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemoteId(pub u16);

impl RemoteId {
    /// The node's place in arrays.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A neighbour on the underlay: who takes a packet to a client outside the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The uplink it is behind.
    pub port: PortId,
    /// Its MAC.
    pub mac: MacAddr,
}

/// What a port is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PortKind {
    /// The host end of a pod's veth.
    #[default]
    Pod,
    /// The dataplane's end of `weft0`.
    Node,
    /// An underlay interface.
    Uplink,
}

/// What became of a packet. After [`crate::Pipeline::run`] none is `Pending`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided yet.
    #[default]
    Pending,
    /// To be sent out by this port.
    Tx(PortId),
    /// To be dropped; the frames are still with the packet.
    Drop(DropReason),
    /// The pipeline took the frames: the packet was a report to this node, or is held.
    Consumed,
    /// Its payload goes with an earlier segment of its connection, in one GSO packet.
    Merged,
    /// Another worker owns its connection: the rest of the way is for that one's
    /// [`crate::Pipeline::resume`].
    HandOver(u16),
}

/// Who completes the transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Nobody: it is complete, or there is none.
    #[default]
    None,
    /// The receiving stack: the field holds the pseudo-header's sum only.
    Partial {
        /// Where summing starts, in bytes from the packet's start.
        start: u16,
        /// Where the field is, in bytes from `start`.
        offset: u16,
    },
}

impl Checksum {
    /// What the field of the transport header holds.
    #[inline]
    pub(crate) const fn field(self) -> ChecksumField {
        match self {
            Self::None => ChecksumField::Full,
            Self::Partial { .. } => ChecksumField::Partial,
        }
    }
}

/// Where a packet came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// A port received it.
    #[default]
    Received,
    /// The pipeline built it: an ICMP error.
    Built,
    /// It is one more segment or fragment of another packet, which has it among its `pieces`.
    Cut,
}

/// Network protocol of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Not parsed.
    #[default]
    None,
    /// ARP.
    Arp,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Written by `parse`, and by `decap` for the inner packet. Offsets count from the (inner) Ethernet
/// header, which `encap` moves [`Packet::outer_len`] bytes into the packet; all but `end` lie in the
/// first frame.
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    /// Network protocol.
    pub network: Network,
    /// Upper protocol; of a later fragment, what the first one says it is.
    pub protocol: Protocol,
    /// Flags of a TCP segment, else none set.
    pub tcp_flags: TcpFlags,
    /// Start of the network header.
    pub l3: u16,
    /// Start of the upper header, or of a later fragment's payload.
    pub l4: u16,
    /// End of the IP packet; the frames are trimmed to it.
    pub end: u32,
    /// Source and destination port, zero where there are none.
    pub ports: (u16, u16),
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// The fragment it is. IPv6 atomic fragments (RFC 6946) are whole packets: `None`.
    pub fragment: Option<Fragment>,
    /// Bytes of the datagram a fragment holds.
    pub fragment_len: u16,
    /// Checksum field of an unfragmented TCP segment or UDP datagram that has one.
    pub transport_checksum: Option<u16>,
}

impl Headers {
    /// Length of the IP packet in bytes.
    #[inline]
    pub const fn ip_len(&self) -> usize {
        self.end as usize - self.l3 as usize
    }

    /// Length from the upper header on in bytes.
    #[inline]
    pub const fn l4_len(&self) -> usize {
        self.end as usize - self.l4 as usize
    }

    /// Whether the upper header is in this packet.
    #[inline]
    pub const fn has_upper_header(&self) -> bool {
        match self.fragment {
            Some(fragment) => fragment.is_first(),
            None => true,
        }
    }
}

impl Default for Headers {
    fn default() -> Self {
        let nowhere = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        Self {
            network: Network::None,
            protocol: Protocol::NO_NEXT,
            tcp_flags: TcpFlags(0),
            l3: 0,
            l4: 0,
            end: 0,
            ports: (0, 0),
            source: nowhere,
            destination: nowhere,
            fragment: None,
            fragment_len: 0,
            transport_checksum: None,
        }
    }
}

/// Written by `route`: the way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Egress {
    /// Not known yet.
    #[default]
    Unknown,
    /// A pod of this node.
    Local(PortId),
    /// The node's own stack; `own`: the destination is one of the node's addresses.
    Host {
        /// The node port.
        port: PortId,
        /// It ends here and does not leave the cluster.
        own: bool,
    },
    /// Another node, through the tunnel.
    Remote(RemoteId),
    /// A client outside the cluster, by the underlay as it is.
    Outside(NextHop),
}

const LOCAL: u32 = 1 << 16;
const HOST: u32 = 2 << 16;
const HOST_OWN: u32 = 3 << 16;
const REMOTE: u32 = 4 << 16;

impl Egress {
    /// As a connection's entry holds it: never 0, which there is "no decision". What is right for packets
    /// of one kind of port need not be for those of another, so the kind is part of it. The way to a client outside is
    /// in the entry already, and changes without the tables.
    #[inline]
    pub(crate) const fn encode(self, from: PortKind) -> u32 {
        let way = match self {
            Self::Unknown | Self::Outside(_) => return 0,
            Self::Local(port) => LOCAL | port.0 as u32,
            Self::Host { port, own: false } => HOST | port.0 as u32,
            Self::Host { port, own: true } => HOST_OWN | port.0 as u32,
            Self::Remote(remote) => REMOTE | remote.0 as u32,
        };
        way | (from as u32) << 24
    }

    /// What [`Egress::encode`] made for packets from that kind of port.
    #[inline]
    pub(crate) const fn decode(decision: u32, from: PortKind) -> Option<Self> {
        if decision >> 24 != from as u32 {
            return None;
        }
        let port = PortId(decision as u16);
        match decision & 0x00ff_0000 {
            LOCAL => Some(Self::Local(port)),
            HOST => Some(Self::Host { port, own: false }),
            HOST_OWN => Some(Self::Host { port, own: true }),
            REMOTE => Some(Self::Remote(RemoteId(decision as u16))),
            _ => None,
        }
    }
}

/// Written by `conntrack`: the connection the packet belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// The connection; none of packets nobody tracks, such as later fragments and what we built.
    pub flow: Option<FlowRef>,
    /// Which way the packet goes.
    pub direction: Direction,
    /// It is the connection's first packet.
    pub is_new: bool,
    /// It is an ICMP error about a packet of the connection, and itself none of its packets.
    pub related: bool,
    /// The connection's packets are translated; of its own packets, this one was not yet.
    pub translated: bool,
    /// What was decided before about packets of its direction.
    pub decided: Decided,
    /// Hash of what names the connection, the same for both directions; 0 while not computed.
    pub hash: u64,
}

/// Written by `service`: what a packet was before its addresses or ports were replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Addresses and ports it came with.
    pub came: Tuple,
    /// The service and the backend chosen for it, when it is of no known connection.
    pub chosen: Option<(ServiceId, BackendId)>,
}

/// Where a connection goes that another node translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direct {
    /// The node.
    pub remote: RemoteId,
    /// The backend it was chosen for.
    pub backend: BackendId,
}

/// One packet. Each group of fields has one stage that writes it.
#[derive(Debug, Default)]
pub struct Packet {
    /// The bytes, whole headers in the first frame.
    pub frames: FrameChain,
    /// Port it came from; for a packet the pipeline built, the port of the packet that caused it.
    pub rx: PortId,
    /// Kind of that port.
    pub rx_kind: PortKind,
    /// Where it came from.
    pub origin: Origin,
    /// The outcome: any stage decides it, once.
    pub verdict: Verdict,
    /// `parse` detects, `offload` completes.
    pub checksum: Checksum,
    /// `parse` and `decap`.
    pub headers: Headers,
    /// `decap`: the node it was tunnelled from.
    pub tunnel: Option<RemoteId>,
    /// `decap`: the neighbour that brought it, when its sender is outside the cluster and speaks to a service.
    pub outside: Option<NextHop>,
    /// `source`: it passed; what is decided about it later may be said of its fragments.
    pub admitted: bool,
    /// `source`: another node handed a client's packet on, for a pod of this one to answer.
    pub handed: bool,
    /// `conntrack`: the connection.
    pub track: Track,
    /// `service`: another worker was asked for its connection.
    pub sought: bool,
    /// `service`: what it was before it was translated.
    pub translation: Option<Translation>,
    /// `service`: the node that is to translate it.
    pub direct: Option<Direct>,
    /// `service` and `fragment`: the neighbour that takes it to a client outside, where its own connection does not say
    /// so: of fragments, and of what the pipeline built.
    pub next_hop: Option<NextHop>,
    /// `route`: the way out.
    pub egress: Egress,
    /// `route`: largest IP packet on the way, if it must be cut into fragments or segments of that size.
    pub cut_to: Option<u32>,
    /// `offload`: it stands for many segments, which the receiver of the port knows how to tell apart.
    pub gso: Option<Gso>,
    /// `offload`: what was cut off it, by place in [`crate::Batch::born`].
    pub pieces: Range<u16>,
    /// `encap`: bytes in front of the inner Ethernet header; 0 without a tunnel.
    pub outer_len: u8,
    /// `encap`: the uplink it leaves by.
    pub uplink: PortId,
    /// `encap`: the same number for packets whose outer headers differ in lengths only; 0 without a tunnel.
    pub tunnel_flow: u64,
}

impl Packet {
    /// A packet as a port received it.
    #[inline]
    pub fn received(frames: FrameChain, rx: PortId, rx_kind: PortKind) -> Self {
        Self {
            frames,
            rx,
            rx_kind,
            ..Self::default()
        }
    }

    /// Where it came from, before any translation.
    #[inline]
    pub fn client(&self) -> IpAddr {
        match &self.translation {
            Some(translation) => translation.came.source(),
            None => self.headers.source,
        }
    }

    /// Bytes in all its frames.
    #[inline]
    pub fn total_len(&self) -> usize {
        self.frames.iter().map(weft_xsk::Frame::len).sum()
    }

    /// Whether it may stand for many TCP segments: a local stack left their checksums to a device, and so it may
    /// have left segmentation.
    #[inline]
    pub(crate) fn is_gso_candidate(&self) -> bool {
        self.headers.protocol == Protocol::TCP && matches!(self.checksum, Checksum::Partial { .. })
    }

    /// Largest TCP payload its receiver takes, by what that announced in its SYN. `None` when it is not
    /// known: no TCP, or begun before we looked. The path may take less.
    #[inline]
    pub fn mss_towards(&self, flows: &FlowTable) -> Option<u16> {
        flows.mss_towards(self.track.flow?, self.track.direction)
    }

    /// Still on its way.
    #[inline]
    pub fn is_pending(&self) -> bool {
        self.verdict == Verdict::Pending
    }
}
