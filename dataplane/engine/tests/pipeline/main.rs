//! Frames in, frames out: every rule of the pipeline on the node of `weft_engine::testbed`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod checksums;
mod conntrack;
mod direct;
mod fragments;
mod gateway;
mod hostile;
mod icmp;
mod local;
mod malformed;
mod merging;
mod outside;
mod pmtu;
mod policy;
mod segments;
mod service;
mod service_errors;
mod service_known;
mod service_model;
mod shortcuts;
mod sources;
mod trace;
mod tunnel;
mod verdicts;

use weft_engine::testbed::Outcome;
use weft_engine::{DropReason, PortId, Verdict};
use weft_wire::{EthernetHeader, Ipv4Header, Ipv6Header, Layers, MacAddr, Network, TcpFlags};
use weft_xsk::{Gso, GsoKind};

/// Checks that a packet was sent by `port` and returns its bytes.
fn sent(outcome: &Outcome, port: PortId) -> &[u8] {
    assert_eq!(outcome.verdict, Verdict::Tx(port), "{outcome:?}");
    &outcome.bytes
}

fn dropped(outcome: &Outcome) -> DropReason {
    match outcome.verdict {
        Verdict::Drop(reason) => reason,
        other => panic!("not dropped but {other:?}"),
    }
}

fn macs(frame: &[u8]) -> (MacAddr, MacAddr) {
    let (ethernet, _) = EthernetHeader::parse(frame).unwrap();
    (ethernet.source(), ethernet.destination())
}

fn layers(frame: &[u8]) -> Layers {
    Layers::parse(frame, frame.len()).unwrap()
}

fn v4(frame: &[u8]) -> Ipv4Header {
    assert_eq!(layers(frame).network, Network::V4);
    *Ipv4Header::parse(&frame[14..]).unwrap().0
}

fn v6(frame: &[u8]) -> Ipv6Header {
    assert_eq!(layers(frame).network, Network::V6);
    *Ipv6Header::parse(&frame[14..]).unwrap().0
}

/// The segments a kernel makes of a GSO packet: tcp_gso_segment in net/ipv4/tcp_offload.c and inet_gso_segment in
/// net/ipv4/af_inet.c, told plainly.
fn kernel_segments(frame: &[u8], gso: Gso) -> Vec<Vec<u8>> {
    let (headers, size) = (usize::from(gso.header_len), usize::from(gso.size));
    let pieces: Vec<&[u8]> = frame[headers..].chunks(size).collect();
    let mut segments = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        let mut segment = frame[..headers].to_vec();
        segment.extend_from_slice(piece);
        let is_v4 = gso.kind == GsoKind::TcpV4;
        let tcp = if is_v4 { 34 } else { 54 };
        if is_v4 {
            let id = u16::from_be_bytes([frame[18], frame[19]]).wrapping_add(index as u16);
            segment[18..20].copy_from_slice(&id.to_be_bytes());
        }
        let sequence = u32::from_be_bytes(frame[tcp + 4..tcp + 8].try_into().unwrap());
        let sequence = sequence.wrapping_add((index * size) as u32);
        segment[tcp + 4..tcp + 8].copy_from_slice(&sequence.to_be_bytes());
        if index + 1 < pieces.len() {
            segment[tcp + 13] &= !(TcpFlags::FIN | TcpFlags::PSH).0;
        }
        if index > 0 {
            segment[tcp + 13] &= !TcpFlags::CWR.0;
        }
        fill_checksums(&mut segment);
        segments.push(segment);
    }
    segments
}

/// Writes IP's length and both checksums of a TCP packet without IP options or extensions, word by word as RFC 1071
/// says.
fn fill_checksums(frame: &mut [u8]) {
    let len = frame.len();
    let tcp = if frame[12..14] == [8, 0] {
        frame[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
        frame[24..26].fill(0);
        let sum = plain_checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        34
    } else {
        frame[18..20].copy_from_slice(&((len - 54) as u16).to_be_bytes());
        54
    };
    frame[tcp + 16..tcp + 18].fill(0);
    let addresses = if tcp == 34 { 26..34 } else { 22..54 };
    let mut summed = frame[addresses].to_vec();
    summed.extend_from_slice(&[0, 6]);
    summed.extend_from_slice(&((len - tcp) as u16).to_be_bytes());
    summed.extend_from_slice(&frame[tcp..]);
    let sum = plain_checksum(&summed);
    frame[tcp + 16..tcp + 18].copy_from_slice(&sum.to_be_bytes());
}

fn plain_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for word in bytes.chunks(2) {
        sum += u64::from(word[0]) << 8 | u64::from(word.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Checks both the IPv4 header's checksum and the upper one, and that another parser reads the frame.
fn is_intact(frame: &[u8]) -> bool {
    let other = etherparse::SlicedPacket::from_ethernet(frame);
    assert!(other.is_ok(), "{other:?}");
    let layers = layers(frame);
    let header = layers.network != Network::V4 || weft_wire::ipv4::checksum_is_valid(&frame[14..]);
    header && layers.transport_is_valid(frame) != Some(false)
}
