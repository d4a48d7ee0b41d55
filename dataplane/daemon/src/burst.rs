//! Tunnel packets of one flow and one size, gathered so that they cross into the kernel with one system call: as
//! one large UDP datagram (GSO) which the device, or the kernel in front of it, segments. On a veth the receiver
//! then runs once per burst and not inline after every packet.

use arrayvec::ArrayVec;
use weft_engine::encap::vxlan;
use weft_wire::UdpHeader;
use weft_xsk::{FrameChain, FramePool, Gso, GsoKind, PacketSocket, Sent, Umem};

/// Packets of a burst. `UDP_MAX_SEGMENTS` (include/linux/udp.h) is 128; 64 are a 64 KiB TCP packet at an MSS of
/// 1,024 and more.
const PACKETS_MAX: usize = 64;

/// Frames of a burst; with the kernel's own header they stay below [`weft_xsk::packet_socket::PIECES_MAX`].
const FRAMES_MAX: usize = 120;

/// Bytes of a burst, below what IP can say with all headers.
const BYTES_MAX: usize = 65_000;

/// Packets of one tunnel flow on their way out of one queue.
#[derive(Default)]
pub struct Burst {
    slot: u16,
    tunnel_flow: u64,
    /// Bytes of each packet but the last.
    packet_len: usize,
    /// A shorter packet ended it.
    ended: bool,
    bytes: usize,
    frames: usize,
    packets: ArrayVec<FrameChain, PACKETS_MAX>,
}

impl Burst {
    /// Queue it leaves by.
    pub fn slot(&self) -> u16 {
        self.slot
    }

    /// Packets in it.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Bytes in it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a packet of `len` bytes in `frames` can be added.
    pub fn takes(&self, slot: u16, tunnel_flow: u64, len: usize, frames: usize) -> bool {
        self.packets.is_empty()
            || (!self.ended
                && self.slot == slot
                && self.tunnel_flow == tunnel_flow
                && len <= self.packet_len
                && self.bytes + len <= BYTES_MAX
                && self.frames + frames <= FRAMES_MAX
                && !self.packets.is_full())
    }

    /// Adds a packet that [`Burst::takes`].
    pub fn push(&mut self, slot: u16, tunnel_flow: u64, len: usize, chain: FrameChain) {
        if self.packets.is_empty() {
            (self.slot, self.tunnel_flow, self.packet_len) = (slot, tunnel_flow, len);
            (self.bytes, self.frames, self.ended) = (0, 0, false);
        }
        self.ended = len < self.packet_len;
        self.bytes += len;
        self.frames += chain.len();
        self.packets.push(chain);
    }

    /// Takes out the packets, to be sent one by one.
    pub fn take(&mut self) -> ArrayVec<FrameChain, PACKETS_MAX> {
        self.frames = 0;
        std::mem::take(&mut self.packets)
    }

    /// Sends two packets or more at once. When it says [`Sent::Refused`], all are still here.
    pub fn send(&mut self, socket: &PacketSocket, umem: &Umem) -> Sent {
        let Some(first) = self.packets.first_mut().and_then(|chain| chain.first_mut()) else {
            return Sent::Yes;
        };
        // The headers to repeat: up to the UDP header's end, the same in all.
        let Some(header_len) = header_len(umem.bytes(first)) else {
            return Sent::Refused;
        };
        let payload = self.bytes - self.packets.len() * header_len;
        let Some(first) = self.packets.first_mut().and_then(|chain| chain.first_mut()) else {
            return Sent::Yes;
        };
        let Some(l4) = vxlan::join(umem.bytes_mut(first), payload) else {
            return Sent::Refused;
        };
        let gso = Gso {
            kind: GsoKind::Udp,
            header_len: header_len as u16,
            size: (self.packet_len - header_len) as u16,
        };
        let pieces = self.packets.iter().enumerate().flat_map(|(index, chain)| {
            chain.iter().enumerate().map(move |(frame, token)| {
                let repeated = if index > 0 && frame == 0 {
                    header_len
                } else {
                    0
                };
                &umem.bytes(token)[repeated..]
            })
        });
        let checksum = (l4 as u16, UdpHeader::CHECKSUM_AT as u16);
        socket.send(pieces, Some(checksum), Some(gso))
    }

    /// Gives all frames back.
    pub fn free(&mut self, pool: &mut FramePool) {
        for mut chain in self.take() {
            pool.free_chain(&mut chain);
        }
    }
}

/// Bytes up to the end of the outer UDP header.
fn header_len(packet: &[u8]) -> Option<usize> {
    let (ethernet, l3) = weft_wire::EthernetHeader::parse(packet).ok()?;
    let ip_len = match ethernet.ether_type() {
        weft_wire::EtherType::IPV4 => weft_wire::Ipv4Header::LEN,
        _ => weft_wire::Ipv6Header::LEN,
    };
    Some(l3 + ip_len + UdpHeader::LEN)
}
