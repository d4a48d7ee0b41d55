//! No bytes make a parser panic: the committed corpus, random bytes, and packets that were once
//! good.
#![allow(missing_docs, reason = "a test crate")]

use std::fs;
use std::path::PathBuf;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use weft_wire::build::Packet;
use weft_wire::fuzz::parse_any;
use weft_wire::{Layer, Layers, ParseError, Protocol, TcpFlags, Vni, tcp};

/// Name and bytes of every file in the corpus.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut files: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.path().extension().is_none())
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let bytes = fs::read(entry.path());
            (name, bytes.unwrap_or_else(|error| panic!("{error}")))
        })
        .collect();
    files.sort();
    files
}

fn seed(name: &str) -> Vec<u8> {
    let found = corpus().into_iter().find(|(file, _)| file == name);
    found.map_or_else(|| panic!("corpus lacks {name}"), |(_, bytes)| bytes)
}

fn outcome(name: &str) -> Result<Layers, ParseError> {
    let frame = seed(name);
    Layers::parse(&frame, frame.len())
}

#[test]
fn the_corpus_panics_nowhere_even_cut_or_flipped() {
    let files = corpus();
    assert!(files.len() >= 16, "only {} corpus files", files.len());
    for (_, bytes) in &files {
        for len in 0..=bytes.len() {
            parse_any(&bytes[..len]);
        }
        for at in 0..bytes.len().min(200) {
            for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                parse_any(&bytes);
            }
        }
    }
}

#[test]
fn malformed_files_of_the_corpus_are_refused_for_their_reason() {
    let expected = [
        ("runt", ParseError::Truncated(Layer::Ethernet)),
        ("vlan_cut", ParseError::Truncated(Layer::Vlan)),
        ("vlan_three_tags", ParseError::TooDeep(Layer::Vlan)),
        ("v4_header_length_4", ParseError::HeaderLength(Layer::Ipv4)),
        ("v4_total_length_lies", ParseError::TotalLength(Layer::Ipv4)),
        (
            "v6_payload_length_lies",
            ParseError::TotalLength(Layer::Ipv6),
        ),
        (
            "v6_chain_too_long",
            ParseError::TooDeep(Layer::Ipv6Extension),
        ),
        ("v6_first_fragment_tiny", ParseError::IncompleteChain),
        (
            "v6_hop_by_hop_late",
            ParseError::Field(Layer::Ipv6Extension),
        ),
    ];
    for (name, error) in expected {
        assert_eq!(outcome(name), Err(error), "{name}");
    }
}

#[test]
fn well_formed_files_of_the_corpus_are_understood() {
    let protocols = [
        ("v4_tcp_syn", Protocol::TCP),
        ("v4_fragment", Protocol::UDP),
        ("v6_extension_chain", Protocol::TCP),
        ("v6_neighbour_solicitation", Protocol::ICMPV6),
        ("v6_atomic_fragment", Protocol::UDP),
        ("v4_icmp_quoting_vxlan", Protocol::ICMP),
        ("v4_sctp_init", Protocol::SCTP),
        ("vxlan_tcp", Protocol::UDP),
        ("vxlan_in_vxlan", Protocol::UDP),
        ("bad_tcp_options", Protocol::TCP),
    ];
    for (name, protocol) in protocols {
        let layers = outcome(name);
        assert_eq!(layers.map(|layers| layers.protocol), Ok(protocol), "{name}");
    }
}

#[test]
fn bad_tcp_options_yield_no_mss() {
    let frame = seed("bad_tcp_options");
    let layers = outcome("bad_tcp_options").unwrap();
    assert_eq!(tcp::mss(&frame[usize::from(layers.l4)..]), None);
}

/// Good packets of every kind, to be damaged.
fn good() -> impl Strategy<Value = Vec<u8>> {
    (0..9_usize, any::<u32>(), 0..100_usize).prop_map(|(kind, word, len)| {
        let [a, b, c, d] = word.to_be_bytes();
        let v4 = Packet::ipv4([10, a, b, 1].into(), [10, c, d, 2].into()).payload_len(len);
        let v6 = Packet::ipv6([0xfd00, 1, 2, 3, 4, 5, 6, 7].into(), [0xfd00_u16; 8].into())
            .payload_len(len);
        let vni = Vni::new(word >> 8).unwrap_or_else(|| unreachable!("24 bits"));
        match kind {
            0 => v4.vlan(5).tcp(1, 2).flags(TcpFlags::SYN).mss(1460).build(),
            1 => v6.udp(1, 2).build(),
            2 => v4.ipv4_options(&[7, 7, 4, a, b, c, d]).udp(1, 2).build(),
            3 => v6
                .extension(Protocol::HOP_BY_HOP, &[5, 2, a, b])
                .extension(Protocol::ROUTING, &[0, 0, a, b, c, d])
                .fragment(0, true)
                .tcp(1, 2)
                .build(),
            4 => v4.sctp(1, 2, word).build(),
            5 => v6.neighbour_solicitation([0xfe80_u16; 8].into()).build(),
            6 => v4.clone().vxlan(5, vni, &v6.udp(1, 2).build()).build(),
            7 => v6.clone().vxlan(5, vni, &v4.udp(1, 2).build()).build(),
            _ => v4.icmp(3, 4, word).build(),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn random_bytes_panic_nowhere(bytes in vec(any::<u8>(), 0..200)) {
        parse_any(&bytes);
    }

    #[test]
    fn random_bytes_behind_a_good_type_field_panic_nowhere(
        ether_type in prop_oneof![
            Just(0x0800_u16), Just(0x86dd), Just(0x0806), Just(0x8100), Just(0x88a8)
        ],
        first in prop_oneof![Just(0x45_u8), Just(0x4f), Just(0x60), any::<u8>()],
        bytes in vec(any::<u8>(), 0..200),
    ) {
        let mut frame = vec![2; 12];
        frame.extend(ether_type.to_be_bytes());
        frame.push(first);
        frame.extend(bytes);
        parse_any(&frame);
    }

    #[test]
    fn damaged_packets_panic_nowhere(
        mut frame in good(),
        damage in vec(any::<(Index, u8)>(), 0..6),
        cut in any::<Index>(),
        whole: bool,
    ) {
        for (at, value) in damage {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        if !whole {
            frame.truncate(cut.index(frame.len() + 1));
        }
        parse_any(&frame);
    }
}
