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

/// Outer Ethernet, IPv6 and UDP header.
const HEADERS_MAX: usize =
    weft_wire::EthernetHeader::LEN + weft_wire::Ipv6Header::LEN + UdpHeader::LEN;

/// What the kernel is told of a burst.
struct Joined {
    /// The headers to repeat, up to the UDP header's end, as the first packet had them.
    headers: ArrayVec<u8, HEADERS_MAX>,
    /// Where summing starts and where the field is from there.
    checksum: (u16, u16),
    /// How to segment it.
    gso: Gso,
}

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

    /// Sends two packets or more at once. When it says [`Sent::Refused`], all are still here as they were.
    pub fn send(&mut self, socket: &PacketSocket, umem: &Umem) -> Sent {
        let Some(joined) = self.join(umem) else {
            return Sent::Refused;
        };
        let sent = socket.send(
            self.pieces(umem, joined.headers.len()),
            Some(joined.checksum),
            Some(joined.gso),
        );
        if sent == Sent::Refused {
            self.part(umem, &joined.headers);
        }
        sent
    }

    /// Makes the first packet's headers those of the datagram.
    fn join(&mut self, umem: &Umem) -> Option<Joined> {
        let count = self.packets.len();
        let first = self.packets.first_mut()?.first_mut()?;
        let bytes = umem.bytes_mut(first);
        let header_len = header_len(bytes)?;
        let headers = ArrayVec::try_from(bytes.get(..header_len)?).ok()?;
        let l4 = vxlan::join(bytes, self.bytes - count * header_len)?;
        Some(Joined {
            headers,
            checksum: (l4 as u16, UdpHeader::CHECKSUM_AT as u16),
            gso: Gso {
                kind: GsoKind::Udp,
                header_len: header_len as u16,
                size: (self.packet_len - header_len) as u16,
            },
        })
    }

    /// The datagram: the first packet, and of the others what is behind the headers.
    fn pieces<'a>(&'a self, umem: &'a Umem, header_len: usize) -> impl Iterator<Item = &'a [u8]> {
        self.packets
            .iter()
            .enumerate()
            .flat_map(move |(index, chain)| {
                chain.iter().enumerate().map(move |(frame, token)| {
                    let repeated = if index > 0 && frame == 0 {
                        header_len
                    } else {
                        0
                    };
                    &umem.bytes(token)[repeated..]
                })
            })
    }

    /// Gives the first packet its own headers back.
    fn part(&mut self, umem: &Umem, headers: &[u8]) {
        if let Some(first) = self.packets.first_mut().and_then(|chain| chain.first_mut()) {
            umem.bytes_mut(first)[..headers.len()].copy_from_slice(headers);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;
    use weft_engine::testbed::chain_of;
    use weft_wire::build::Packet;
    use weft_wire::{Layers, MacAddr, Vni, checksum};

    /// Frames of the memory of all cases: a process can make only so many memories.
    const FRAMES: u32 = 1024;

    thread_local! {
        static MEMORY: RefCell<(Umem, FramePool)> = {
            let umem = Umem::heap(FRAMES);
            let pool = FramePool::all(&umem).unwrap();
            RefCell::new((umem, pool))
        };
    }

    /// A packet for the burst.
    #[derive(Clone, Debug)]
    struct Tunnelled {
        slot: u16,
        flow: u64,
        inner_len: usize,
        pieces: Vec<usize>,
    }

    impl Tunnelled {
        fn bytes(&self, number: usize) -> Vec<u8> {
            let inner: Vec<u8> = (0..self.inner_len)
                .map(|at| (at * 7 + number * 13) as u8)
                .collect();
            let (source, destination) = if self.flow.is_multiple_of(2) {
                ("192.0.2.1", "192.0.2.2")
            } else {
                ("2001:db8::1", "2001:db8::2")
            };
            let outer = Packet::ip(source.parse().unwrap(), destination.parse().unwrap())
                .macs(MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]))
                .identification(number as u32)
                .vxlan(50_000 + self.flow as u16, Vni::new(77).unwrap(), &inner);
            if self.flow.is_multiple_of(2) {
                outer.no_checksum().build()
            } else {
                outer.build()
            }
        }
    }

    /// What the kernel makes of the datagram: __udp_gso_segment in net/ipv4/udp_offload.c with inet_gso_segment or
    /// ipv6_gso_segment around it.
    fn kernel_segments(datagram: &[u8], joined: &Joined) -> Vec<Vec<u8>> {
        let headers = joined.headers.len();
        let mut segments = Vec::new();
        for (index, payload) in datagram[headers..]
            .chunks(joined.gso.size.into())
            .enumerate()
        {
            let mut segment = datagram[..headers].to_vec();
            segment.extend_from_slice(payload);
            let udp_len = 8 + payload.len() as u16;
            let l4 = headers - 8;
            if l4 == 34 {
                let id = u16::from_be_bytes([datagram[18], datagram[19]]) + index as u16;
                segment[16..18].copy_from_slice(&(20 + udp_len).to_be_bytes());
                segment[18..20].copy_from_slice(&id.to_be_bytes());
                weft_wire::ipv4::fill_checksum(&mut segment[14..]).unwrap();
            } else {
                segment[18..20].copy_from_slice(&udp_len.to_be_bytes());
            }
            segment[l4 + 4..l4 + 6].copy_from_slice(&udp_len.to_be_bytes());
            fill_udp(&mut segment, l4);
            segments.push(segment);
        }
        segments
    }

    fn fill_udp(packet: &mut [u8], l4: usize) {
        packet[l4 + 6..l4 + 8].fill(0);
        let layers = Layers::parse(packet, packet.len()).unwrap();
        let pseudo = layers.pseudo_sum(packet).unwrap();
        let value = checksum::finish_udp(pseudo + checksum::sum(&packet[l4..]));
        packet[l4 + 6..l4 + 8].copy_from_slice(&value.to_be_bytes());
    }

    /// Identification and a checksum that was none are all that may differ over IPv4.
    fn comparable(mut packet: Vec<u8>) -> Vec<u8> {
        if packet[12..14] == [8, 0] {
            packet[18..20].fill(0);
            weft_wire::ipv4::fill_checksum(&mut packet[14..]).unwrap();
            fill_udp(&mut packet, 34);
        }
        packet
    }

    /// Checks a burst against the packets put into it, and gives the frames back.
    fn check(burst: &mut Burst, originals: &[Vec<u8>], umem: &Umem, pool: &mut FramePool) {
        assert_eq!(burst.len(), originals.len());
        assert!(
            burst.len() <= PACKETS_MAX && burst.bytes() <= BYTES_MAX && burst.frames <= FRAMES_MAX
        );
        assert_eq!(burst.bytes(), originals.iter().map(Vec::len).sum::<usize>());
        let joined = burst.join(umem).unwrap();
        let pieces: Vec<&[u8]> = burst.pieces(umem, joined.headers.len()).collect();
        assert!(pieces.len() <= weft_xsk::packet_socket::PIECES_MAX);
        let datagram = pieces.concat();
        check_headers(&datagram, &joined);
        let segments = kernel_segments(&datagram, &joined);
        assert_eq!(segments.len(), originals.len());
        for (segment, original) in segments.into_iter().zip(originals) {
            assert!(comparable(segment) == comparable(original.clone()));
        }
        burst.part(umem, &joined.headers);
        for (mut chain, original) in burst.take().into_iter().zip(originals) {
            let bytes: Vec<u8> = chain
                .iter()
                .flat_map(|frame| umem.bytes(frame).to_vec())
                .collect();
            assert!(bytes == *original, "refused, all are as they were");
            pool.free_chain(&mut chain);
        }
    }

    /// The datagram's own headers: every length is the whole's, the checksum the pseudo-header's sum.
    fn check_headers(datagram: &[u8], joined: &Joined) {
        let l4 = joined.headers.len() - 8;
        assert_eq!(joined.checksum, (l4 as u16, 6));
        assert_eq!(usize::from(joined.gso.header_len), l4 + 8);
        let layers = Layers::parse(datagram, datagram.len()).unwrap();
        assert_eq!(layers.end as usize, datagram.len());
        let udp = u16::from_be_bytes([datagram[l4 + 4], datagram[l4 + 5]]);
        assert_eq!(usize::from(udp), datagram.len() - l4);
        let field = u16::from_be_bytes([datagram[l4 + 6], datagram[l4 + 7]]);
        assert_eq!(field, checksum::fold(layers.pseudo_sum(datagram).unwrap()));
        assert!(l4 != 34 || weft_wire::ipv4::checksum_is_valid(&datagram[14..]));
    }

    fn tunnelled() -> impl Strategy<Value = Tunnelled> {
        let len = prop_oneof![
            10 => Just(1414_usize),
            2 => 14_usize..1414,
            1 => 14_usize..9000,
        ];
        let slot = prop_oneof![20 => Just(0_u16), 1 => Just(1)];
        let pieces =
            prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(80_usize..2000, 1..3)];
        (slot, 1_u64..3, len, pieces).prop_map(|(slot, flow, inner_len, pieces)| Tunnelled {
            slot,
            flow,
            inner_len,
            pieces,
        })
    }

    proptest! {
        #[test]
        fn the_kernel_cuts_a_burst_into_the_packets_it_was_made_of(
            mut packets in prop::collection::vec(tunnelled(), 1..150),
            one_flow in any::<bool>(),
        ) {
            if one_flow {
                let flow = packets[0].flow;
                packets.iter_mut().for_each(|packet| packet.flow = flow);
            }
            MEMORY.with_borrow_mut(|(umem, pool)| play(&packets, umem, pool));
        }
    }

    fn play(packets: &[Tunnelled], umem: &Umem, pool: &mut FramePool) {
        let mut burst = Burst::default();
        let mut gathered: Vec<Vec<u8>> = Vec::new();
        for (number, packet) in packets.iter().enumerate() {
            let bytes = packet.bytes(number);
            let chain = chain_of(umem, pool, &bytes, &packet.pieces);
            if !burst.takes(packet.slot, packet.flow, bytes.len(), chain.len()) {
                check(&mut burst, &gathered, umem, pool);
                gathered.clear();
                assert!(burst.takes(packet.slot, packet.flow, bytes.len(), chain.len()));
            }
            if let Some(first) = gathered.first() {
                assert_eq!(first[..14], bytes[..14], "one flow");
                assert!(
                    gathered.iter().all(|it| it.len() == first.len()),
                    "one size"
                );
            }
            burst.push(packet.slot, packet.flow, bytes.len(), chain);
            gathered.push(bytes);
        }
        check(&mut burst, &gathered, umem, pool);
        assert_eq!(pool.len(), FRAMES as usize, "no frame is lost");
    }

    #[test]
    fn a_train_of_full_packets_is_few_bursts() {
        MEMORY.with_borrow_mut(|(umem, pool)| {
            let mut burst = Burst::default();
            let packet = Tunnelled {
                slot: 1,
                flow: 2,
                inner_len: 1464,
                pieces: vec![],
            };
            let bytes = packet.bytes(1);
            let mut taken = 0;
            while burst.takes(1, 2, bytes.len(), 1) {
                burst.push(1, 2, bytes.len(), chain_of(umem, pool, &bytes, &[]));
                taken += 1;
            }
            assert_eq!(taken, 42, "65,000 bytes");
            assert_eq!((burst.slot(), burst.len()), (1, 42));
            burst.free(pool);
            assert!(burst.takes(7, 8, 9, 10), "empty, it takes anything");
            let short = Tunnelled {
                inner_len: 20,
                ..packet
            };
            let len = short.bytes(1).len();
            while burst.takes(1, 2, len, 1) {
                burst.push(1, 2, len, chain_of(umem, pool, &short.bytes(1), &[]));
            }
            assert_eq!(burst.len(), PACKETS_MAX);
            burst.free(pool);
            for (other, fits) in [
                ((1, 2, 100), true),
                ((2, 2, 100), false),
                ((1, 3, 100), false),
                ((1, 2, 101), false),
            ] {
                burst.push(1, 2, 100, chain_of(umem, pool, &[0; 100], &[]));
                assert_eq!(burst.takes(other.0, other.1, other.2, 1), fits, "{other:?}");
                burst.free(pool);
            }
            burst.push(1, 2, 100, chain_of(umem, pool, &[0; 100], &[]));
            burst.push(1, 2, 99, chain_of(umem, pool, &[0; 99], &[]));
            assert!(!burst.takes(1, 2, 99, 1), "a shorter one was the last");
            burst.free(pool);
        });
    }
}
