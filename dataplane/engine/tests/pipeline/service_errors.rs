//! ICMP errors about packets of services' connections, and their fragments.

use weft_engine::testbed::*;
use weft_engine::{DropReason, Verdict};
use weft_wire::{Protocol, TcpFlags, build};

use crate::service::{FAMILIES, bed, ends, ends_of, inner};
use crate::{dropped, is_intact, layers, sent};

/// Type and code of "nobody listens on that port", by the family of an address.
fn no_port(address: &str) -> (u8, u8) {
    if address.contains(':') {
        (1, 4)
    } else {
        (3, 3)
    }
}

/// An error about the packet `about`, a frame.
fn error(from: &str, to: &str, about: &[u8]) -> build::Packet {
    let (kind, code) = no_port(from);
    let message = packet(from, to).icmp(kind, code, 0);
    message.payload(&about[14..about.len().min(14 + 200)])
}

/// The packet an error quotes, as a frame.
fn quoted(frame: &[u8]) -> Vec<u8> {
    let at = usize::from(layers(frame).l4) + 8;
    [&frame[..14], &frame[at..]].concat()
}

pub fn addresses(frame: &[u8]) -> (std::net::IpAddr, std::net::IpAddr) {
    if layers(frame).network == weft_wire::Network::V4 {
        let ip = crate::v4(frame);
        (ip.source().into(), ip.destination().into())
    } else {
        let ip = crate::v6(frame);
        (ip.source().into(), ip.destination().into())
    }
}

#[test]
fn the_backends_error_reaches_the_client_as_the_services() {
    for [a, b, _, address] in FAMILIES {
        for protocol in [Protocol::TCP, Protocol::UDP] {
            let mut bed = bed(address, &[b]);
            let there = match protocol {
                Protocol::TCP => packet(a, address).tcp(4000, 80).flags(TcpFlags::SYN),
                _ => packet(a, address).udp(4000, 80).payload(b"abc"),
            };
            let out = bed.one(A, &there);
            let went = sent(&out, B).to_vec();
            let out = bed.one(B, &error(b, a, &went));
            let frame = sent(&out, A);
            assert_eq!(addresses(frame), (ip(address), ip(a)));
            let quoted = quoted(frame);
            assert_eq!(ends_of(&quoted), ends((a, 4000), (address, 80)));
            assert!(is_intact(frame) && is_intact(&quoted), "{protocol:?}");
        }
    }
}

#[test]
fn a_routers_error_keeps_the_routers_address() {
    for ([a, _, far, address], router) in FAMILIES.into_iter().zip(["10.1.2.1", "fd00:1:2::1"]) {
        let mut bed = bed(address, &[far]);
        let out = bed.one(A, &packet(a, address).udp(4000, 80).payload(b"abc"));
        let went = inner(sent(&out, UPLINK)).to_vec();
        let out = bed.one(UPLINK, &from_four(&error(router, a, &went)));
        let frame = sent(&out, A);
        assert_eq!(addresses(frame), (ip(router), ip(a)));
        assert_eq!(ends_of(&quoted(frame)), ends((a, 4000), (address, 80)));
        assert!(is_intact(frame) && is_intact(&quoted(frame)));
    }
}

#[test]
fn the_clients_error_reaches_the_backend() {
    for [a, b, _, address] in FAMILIES {
        let mut bed = bed(address, &[b]);
        sent(&bed.one(A, &packet(a, address).udp(4000, 80)), B);
        let out = bed.one(B, &packet(b, a).udp(8080, 4000).payload(b"abcd"));
        let came = sent(&out, A).to_vec();
        let out = bed.one(A, &error(a, address, &came));
        let frame = sent(&out, B);
        assert_eq!(addresses(frame), (ip(a), ip(b)));
        assert_eq!(ends_of(&quoted(frame)), ends((b, 8080), (a, 4000)));
        assert!(is_intact(frame) && is_intact(&quoted(frame)));
    }
}

#[test]
fn errors_of_ours_quote_what_the_sender_sent() {
    for [a, b, far, address] in FAMILIES {
        for protocol in [Protocol::TCP, Protocol::UDP] {
            let mut bed = bed(address, &[far]);
            let there = |len| match protocol {
                Protocol::TCP => packet(a, address).tcp(4000, 80).payload_len(len),
                _ => packet(a, address).udp(4000, 80).payload_len(len),
            };
            for too_much in [there(10).hops(1), there(1450).dont_fragment(true)] {
                let sent_bytes = too_much.build();
                let ran = bed.run(&[(A, sent_bytes.clone())]);
                let reason = dropped(&ran.packets[0]);
                assert!(matches!(
                    reason,
                    DropReason::TtlExpired | DropReason::TooBig
                ));
                let frame = sent(&ran.born[0], A);
                let quoted = quoted(frame);
                assert_eq!(quoted[14..], sent_bytes[14..quoted.len()], "byte for byte");
                assert!(is_intact(frame));
            }
        }
        // The backend's packets, too.
        let mut bed = bed(address, &[b]);
        sent(&bed.one(A, &packet(a, address).udp(4000, 80)), B);
        let back = packet(b, a).udp(8080, 4000).hops(1).build();
        let ran = bed.run(&[(B, back.clone())]);
        let quoted = quoted(sent(&ran.born[0], B));
        assert_eq!(quoted[14..], back[14..quoted.len()]);
    }
}

#[test]
fn later_fragments_follow_their_first_one_to_the_backend_and_back() {
    for [a, b, _, address] in FAMILIES {
        let mut bed = bed(address, &[b]);
        let whole = packet(a, address).udp(4000, 80).payload_len(3000);
        let mut pieces = whole.identification(77).build_fragments(1280);
        // One comes before the first.
        pieces.swap(0, 1);
        let ran = bed.run(&pieces.iter().map(|it| (A, it.clone())).collect::<Vec<_>>());
        let out: Vec<_> = ran
            .in_order
            .iter()
            .filter(|it| it.verdict == Verdict::Tx(B))
            .collect();
        assert_eq!(out.len(), pieces.len());
        for outcome in &out {
            assert_eq!(addresses(&outcome.bytes), (ip(a), ip(b)));
            assert!(etherparse::SlicedPacket::from_ethernet(&outcome.bytes).is_ok());
        }
        assert_eq!(
            payload_checksum(&out.iter().map(|it| &it.bytes[..]).collect::<Vec<_>>()),
            0
        );
        let back = packet(b, a)
            .udp(8080, 4000)
            .payload_len(2000)
            .identification(78);
        for piece in back.build_fragments(1280) {
            let out = bed.bytes(B, piece);
            assert_eq!(addresses(sent(&out, A)), (ip(address), ip(a)));
        }
    }
}

/// What is left of the UDP checksum over all fragments of a datagram and the pseudo-header: 0 when it is right.
fn payload_checksum(fragments: &[&[u8]]) -> u16 {
    use weft_wire::checksum;
    let mut total = 0_u32;
    let mut len = 0;
    for frame in fragments {
        let layers = layers(frame);
        // Every piece but the last is a multiple of eight bytes long.
        let payload = &frame[usize::from(layers.l4)..];
        total = u32::from(checksum::fold(total + checksum::sum(payload)));
        len += payload.len();
    }
    let pseudo = match addresses(fragments[0]) {
        (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) => {
            checksum::pseudo_v4(from, to, Protocol::UDP, len as u16)
        }
        (std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) => {
            checksum::pseudo_v6(from, to, Protocol::UDP, len as u32)
        }
        _ => unreachable!(),
    };
    checksum::finish(total + pseudo)
}
