//! The checksum against the definition, against etherparse, and its updates against a new sum.
#![allow(missing_docs, reason = "a test crate")]

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::checksum::Sum16BitWords;
use proptest::collection::vec;
use proptest::prelude::*;
use weft_wire::build::Packet;
use weft_wire::checksum::{self, Accumulator, ChecksumField, Delta};
use weft_wire::{Layers, Protocol, TcpFlags, ipv4, tcp};

/// RFC 1071 word by word.
fn naive(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// Lengths around every internal border and up to a 64 KiB segment.
fn region() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..300),
        1 => vec(prop_oneof![Just(0_u8), Just(0xff)], 0..300),
        1 => vec(any::<u8>(), 65_400..65_536),
    ]
}

#[test]
fn every_short_length_and_alignment_is_summed_right() {
    let bytes: Vec<u8> = (0..300_u32).map(|index| (index * 151 + 7) as u8).collect();
    for start in 0..9 {
        for end in start..bytes.len() {
            let part = &bytes[start..end];
            assert_eq!(
                checksum::sum(part),
                u32::from(naive(part)),
                "{start}..{end}"
            );
        }
    }
}

#[test]
fn the_carry_of_the_last_fold_is_kept() {
    // Two words of ones and a one: the low half is all ones when the carries are added to it.
    for blocks in [0, 1, 2] {
        let mut bytes = vec![0; 64 * blocks];
        bytes.extend([0xff; 16]);
        bytes.extend(1_u64.to_ne_bytes());
        assert_eq!(checksum::sum(&bytes), u32::from(naive(&bytes)));
    }
}

proptest! {
    #[test]
    fn sum_is_the_naive_sum_and_etherparses(bytes in region()) {
        prop_assert_eq!(checksum::sum(&bytes), u32::from(naive(&bytes)));
        let theirs = Sum16BitWords::new().add_slice(&bytes).ones_complement();
        prop_assert_eq!(checksum::of(&bytes), u16::from_be(theirs));
    }

    #[test]
    fn accumulator_is_indifferent_to_the_split(
        bytes in region(),
        cuts in vec(any::<prop::sample::Index>(), 0..18),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let mut all = Accumulator::new();
        let mut start = 0;
        for cut in cuts.into_iter().chain([bytes.len()]) {
            all.add(&bytes[start..cut]);
            start = cut;
        }
        prop_assert_eq!(checksum::fold(all.sum()), naive(&bytes));
    }

    #[test]
    fn pseudo_headers_are_the_sums_of_their_bytes(
        v4: ([u8; 4], [u8; 4]),
        v6: ([u8; 16], [u8; 16]),
        protocol: u8,
        len: u32,
    ) {
        let short = len as u16;
        let [high, low] = short.to_be_bytes();
        let bytes = [&v4.0[..], &v4.1, &[0, protocol, high, low]].concat();
        let sum = checksum::pseudo_v4(v4.0.into(), v4.1.into(), Protocol(protocol), short);
        prop_assert_eq!(checksum::fold(sum), naive(&bytes));
        let bytes = [&v6.0[..], &v6.1, &len.to_be_bytes(), &[0, 0, 0, protocol]].concat();
        let sum = checksum::pseudo_v6(v6.0.into(), v6.1.into(), Protocol(protocol), len);
        prop_assert_eq!(checksum::fold(sum), naive(&bytes));
    }

    #[test]
    fn updates_equal_a_new_checksum(
        mut bytes in vec(any::<u8>(), 24..120),
        word in any::<prop::sample::Index>(),
        new: [u8; 16],
    ) {
        // Something that is not zero, as no packet is: RFC 1624 section 3.
        bytes[0] = 0x45;
        let at = 2 + 2 * word.index((bytes.len() - 18) / 2 + 1);
        let old: [u8; 16] = bytes[at..at + 16].try_into().unwrap();
        let before = checksum::of(&bytes);
        let be16 = |from: &[u8; 16]| u16::from_be_bytes([from[0], from[1]]);
        let be32 = |from: &[u8; 16]| u32::from_be_bytes([from[0], from[1], from[2], from[3]]);

        bytes[at..at + 2].copy_from_slice(&new[..2]);
        let after = checksum::update_u16(before, be16(&old), be16(&new));
        prop_assert_eq!(after, checksum::of(&bytes));

        bytes[at..at + 4].copy_from_slice(&new[..4]);
        let after = checksum::update_u32(before, be32(&old), be32(&new));
        prop_assert_eq!(after, checksum::of(&bytes));

        bytes[at..at + 16].copy_from_slice(&new);
        prop_assert_eq!(checksum::update_16_bytes(before, &old, &new), checksum::of(&bytes));
        let delta = Delta::new().v6(old.into(), new.into());
        prop_assert_eq!(delta.apply(before), checksum::of(&bytes));
    }

    #[test]
    fn a_delta_of_many_fields_moves_full_and_partial_checksums(
        v4: [[u8; 4]; 4],
        ports: [u16; 4],
        payload in vec(any::<u8>(), 0..64),
        partial: bool,
    ) {
        let field = if partial { ChecksumField::Partial } else { ChecksumField::Full };
        let [a, b, c, d] = v4.map(Ipv4Addr::from);
        let build = |source, destination, ports: &[u16]| {
            let packet = Packet::ipv4(source, destination).tcp(ports[0], ports[1]);
            packet.payload(&payload).checksum(field).build_network()
        };
        let field_of = |packet: &[u8]| u16::from_be_bytes([packet[36], packet[37]]);
        let before = field_of(&build(a, b, &ports[..2]));
        let after = field_of(&build(c, d, &ports[2..]));
        let addresses = Delta::new().v4(a, c).v4(b, d);
        let moved = if partial {
            // Ports are no part of the pseudo-header.
            addresses.apply_to_sum(before)
        } else {
            let all = addresses.word(ports[0], ports[2]).word(ports[1], ports[3]);
            all.apply(before)
        };
        // The two zeros of ones' complement are one sum.
        prop_assert_eq!(moved % 0xffff, after % 0xffff);
        prop_assert_eq!(addresses.apply_pseudo(0x1234, field), match field {
            ChecksumField::Full => addresses.apply(0x1234),
            ChecksumField::Partial => addresses.apply_to_sum(0x1234),
        });
    }

    #[test]
    fn header_rewrites_keep_the_ipv4_checksum(
        source: [u8; 4],
        destination: [u8; 4],
        new: ([u8; 4], [u8; 4]),
        hops: u8,
        class: u8,
        options in vec(Just(1_u8), 0..40),
    ) {
        let mut packet = Packet::ipv4(source.into(), destination.into())
            .hops(hops)
            .traffic_class(class)
            .ipv4_options(&options)
            .build_network();
        prop_assert!(ipv4::checksum_is_valid(&packet));
        let (header, _) = weft_wire::Ipv4Header::parse_mut(&mut packet).unwrap();
        prop_assert_eq!(header.decrement_ttl(), hops > 1);
        header.rewrite_ecn(weft_wire::Ecn::Congestion);
        header.rewrite_source(new.0.into());
        header.rewrite_destination(new.1.into());
        prop_assert!(ipv4::checksum_is_valid(&packet));
        let stale = packet.clone();
        ipv4::fill_checksum(&mut packet).unwrap();
        prop_assert_eq!(stale, packet);
    }

    #[test]
    fn clamping_keeps_the_tcp_checksum(
        before in vec(prop_oneof![Just(vec![1_u8]), Just(vec![4, 2]), Just(vec![3, 3, 7])], 0..8),
        mss: u16,
        max: u16,
        v6: bool,
    ) {
        let base = if v6 {
            Packet::ipv6(Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED)
        } else {
            Packet::ipv4(Ipv4Addr::LOCALHOST, Ipv4Addr::BROADCAST)
        };
        let flags = TcpFlags::SYN | TcpFlags::ACK;
        let mut frame = base
            .tcp(1, 2)
            .flags(flags)
            .tcp_options(&before.concat())
            .mss(mss)
            .build();
        let layers = Layers::parse(&frame, frame.len()).unwrap();
        let segment = &mut frame[usize::from(layers.l4)..];
        let clamped = tcp::clamp_mss(segment, max, ChecksumField::Full);
        prop_assert_eq!(clamped, (mss > max).then_some((mss, max)));
        prop_assert_eq!(tcp::mss(segment), Some(mss.min(max)));
        prop_assert_eq!(layers.transport_is_valid(&frame), Some(true));
    }
}
