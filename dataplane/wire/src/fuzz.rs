//! Entry points for fuzzers: any bytes through every parser. Nothing may panic.

use core::hint::black_box;

use crate::answer::{ANSWER_MAX, ErrorMessage, IcmpError};
use crate::arp::ArpPacket;
use crate::checksum::{self, Accumulator, ChecksumField};
use crate::ethernet::MacAddr;
use crate::icmp::{self, IcmpHeader};
use crate::ipv4::{self, Ipv4Header, Ipv4Options};
use crate::ipv6::{Ipv6Chain, Ipv6FragmentHeader};
use crate::layers::{Layers, Network};
use crate::neighbour::{NeighbourAdvertisement, NeighbourOptions, NeighbourSolicitation};
use crate::protocol::Protocol;
use crate::sctp::{SctpChunks, SctpHeader};
use crate::tcp::{self, TcpHeader, TcpOptions};
use crate::udp::UdpHeader;
use crate::vxlan::{self, VxlanHeader};

/// Tunnels in tunnels the walk follows.
const DEPTH_MAX: usize = 4;

/// Takes the bytes as a frame, following VXLAN inwards, and as every header by itself.
pub fn parse_any(bytes: &[u8]) {
    let mut frame = Some(bytes);
    for _ in 0..DEPTH_MAX {
        frame = frame.and_then(parse_frame);
    }
    parse_each(bytes);
    write_each(bytes);
}

/// Walks one frame and returns the frame inside it, if it is a VXLAN packet.
fn parse_frame(frame: &[u8]) -> Option<&[u8]> {
    let layers = Layers::parse(frame, frame.len()).ok()?;
    assert!(usize::from(layers.l3) <= frame.len() && layers.l3 <= layers.l4);
    assert!(layers.end as usize <= frame.len());
    black_box(layers.ports(frame)).ok();
    black_box(layers.transport_is_valid(frame));
    if !layers.has_upper_header() {
        return None;
    }
    let packet = &frame[usize::from(layers.l3)..];
    black_box(match layers.network {
        Network::V4 => icmp::may_answer_v4(packet),
        _ => icmp::may_answer_v6(packet, false),
    });
    let upper = layers.upper(frame)?;
    match layers.protocol {
        Protocol::UDP => {
            let (header, at) = UdpHeader::parse(upper).ok()?;
            if header.destination_port() != vxlan::PORT {
                return None;
            }
            let (_, inner) = VxlanHeader::parse(&upper[at..]).ok()?;
            Some(&upper[at + inner..])
        }
        _ => {
            parse_each(upper);
            None
        }
    }
}

fn parse_each(bytes: &[u8]) {
    black_box(ArpPacket::parse(bytes)).ok();
    black_box(Ipv4Header::parse(bytes)).ok();
    black_box(ipv4::checksum_is_valid(bytes));
    if let Ok(options) = Ipv4Options::of(bytes) {
        black_box(options.count());
    }
    black_box(Ipv6Chain::walk(bytes)).ok();
    black_box(Ipv6FragmentHeader::parse(bytes)).ok();
    black_box(IcmpHeader::parse(bytes)).ok();
    black_box(NeighbourSolicitation::parse(bytes)).ok();
    black_box(NeighbourAdvertisement::parse(bytes)).ok();
    black_box(NeighbourOptions::new(bytes).count());
    black_box(TcpHeader::parse(bytes)).ok();
    black_box(TcpOptions::new(bytes).count());
    black_box(tcp::mss(bytes));
    black_box(UdpHeader::parse(bytes)).ok();
    black_box(SctpHeader::parse(bytes)).ok();
    black_box(SctpChunks::new(bytes).count());
    black_box(VxlanHeader::parse(bytes)).ok();
    let mut sum = Accumulator::new();
    let (front, back) = bytes.split_at(bytes.len() / 3);
    sum.add(front);
    sum.add(back);
    assert_eq!(checksum::fold(sum.sum()), checksum::sum(bytes) as u16);
}

/// Whatever writes into packets or quotes them.
fn write_each(bytes: &[u8]) {
    let mut buffer = [0_u8; ANSWER_MAX];
    let len = bytes.len().min(buffer.len());
    buffer[..len].copy_from_slice(&bytes[..len]);
    tcp::clamp_mss(&mut buffer[..len], 1, ChecksumField::Full);
    ipv4::fill_checksum(&mut buffer[..len]).ok();
    for from in [[0, 0, 0, 0].into(), [0_u16; 8].into()] {
        let message = ErrorMessage {
            error: IcmpError::TimeExceeded,
            from,
            destination_mac: MacAddr::ZERO,
            source_mac: MacAddr::ZERO,
            quoted: bytes,
        };
        if let Ok(len) = message.write(&mut buffer) {
            assert!(Layers::parse(&buffer[..len], len).is_ok());
        }
    }
}
