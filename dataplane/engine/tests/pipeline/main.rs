//! Frames in, frames out: every rule of the pipeline on the node of `weft_engine::testbed`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod checksums;
mod conntrack;
mod fragments;
mod gateway;
mod hostile;
mod icmp;
mod local;
mod malformed;
mod pmtu;
mod sources;
mod tunnel;

use weft_engine::testbed::Outcome;
use weft_engine::{DropReason, PortId, Verdict};
use weft_wire::{EthernetHeader, Ipv4Header, Ipv6Header, Layers, MacAddr, Network};

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

/// Checks both the IPv4 header's checksum and the upper one, and that another parser reads the frame.
fn is_intact(frame: &[u8]) -> bool {
    let other = etherparse::SlicedPacket::from_ethernet(frame);
    assert!(other.is_ok(), "{other:?}");
    let layers = layers(frame);
    let header = layers.network != Network::V4 || weft_wire::ipv4::checksum_is_valid(&frame[14..]);
    header && layers.transport_is_valid(frame) != Some(false)
}
