//! The packets of a known connection to a service, which conntrack translates, leave as the first one does, which the
//! service stage translated.

use proptest::prelude::*;
use weft_engine::testbed::*;
use weft_wire::{ChecksumField, TcpFlags, build};

use crate::service::{FAMILIES, bed, ends, ends_of};
use crate::{is_intact, sent};

/// What the checksum field of a packet holds.
#[derive(Clone, Copy, Debug)]
enum Sum {
    Full,
    Partial,
    Wrong,
    /// UDP's 0.
    None,
}

fn filled(packet: build::Packet, is_udp: bool, sum: Sum, payload: &[u8]) -> build::Packet {
    let packet = packet.payload(payload);
    match sum {
        Sum::Partial => packet.checksum(ChecksumField::Partial),
        Sum::Wrong => packet.wrong_checksum(),
        Sum::None if is_udp => packet.no_checksum(),
        Sum::None | Sum::Full => packet,
    }
}

fn upper(packet: build::Packet, is_udp: bool, (from, to): (u16, u16)) -> build::Packet {
    match is_udp {
        true => packet.udp(from, to),
        false => packet.tcp(from, to).flags(TcpFlags::ACK),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_known_connections_packets_leave_as_its_first(
        (v6, is_udp) in (any::<bool>(), any::<bool>()),
        sum in prop_oneof![Just(Sum::Full), Just(Sum::Partial), Just(Sum::Wrong), Just(Sum::None)],
        port in 1_u16..,
        payload in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let [a, b, _, address] = FAMILIES[usize::from(v6)];
        let mut bed = bed(address, &[b]);
        let there = upper(packet(a, address), is_udp, (port, 80));
        let there = filled(there, is_udp, sum, &payload);
        let first = sent(&bed.one(A, &there), B).to_vec();
        prop_assert_eq!(ends_of(&first), ends((a, port), (b, 8080)));
        let second = sent(&bed.one(A, &there), B).to_vec();
        prop_assert_eq!(&first, &second);

        let back = upper(packet(b, a), is_udp, (8080, port));
        let back = filled(back, is_udp, sum, &payload);
        let answer = sent(&bed.one(B, &back), A).to_vec();
        prop_assert_eq!(ends_of(&answer), ends((address, 80), (a, port)));
        if matches!(sum, Sum::Full) {
            prop_assert!(is_intact(&first) && is_intact(&answer));
        }
        let flows = crate::service::flows(&bed);
        prop_assert_eq!((flows.len(), flows[0].packets), (1, [2, 1]));
    }
}
