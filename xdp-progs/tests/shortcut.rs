//! Which packets take a shortcut, what becomes of them, and what is counted.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that fails fails its test"
)]

mod common;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{PacketBuilder, TcpHeader};
use weft_xdp_progs::{
    Hold, Program, Programs, ReceivedOn, Shortcut, ShortcutMaps, Taken, Verdict, Way,
};

const POD: [u8; 6] = [2, 0, 0, 0, 1, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 1, 2];
const GATEWAY: [u8; 6] = *b"\x02weft\x01";
const V4: [[u8; 4]; 2] = [[10, 244, 1, 2], [10, 244, 1, 3]];
const V6: [[u8; 16]; 2] = [
    Ipv6Addr::new(0xfd00, 0x10, 0x244, 1, 0, 0, 0, 2).octets(),
    Ipv6Addr::new(0xfd00, 0x10, 0x244, 1, 0, 0, 0, 3).octets(),
];
const PORTS: (u16, u16) = (40_000, 5201);
const FOREVER: u64 = u64::MAX;
const EPOCH: u32 = 7;
const PLACE: u32 = 11;
const TICKET: u32 = 3;
const PAYLOAD: usize = 100;
const MTU: u32 = 61_000;

/// A node with the pod program, a port, and no socket: what takes no shortcut is dropped for that.
struct Node {
    programs: Programs,
    maps: ShortcutMaps,
    ifindex: u32,
}

impl Node {
    fn new() -> Self {
        common::enter_namespace();
        let ifindex = common::veth();
        let programs = Programs::load().unwrap();
        let descriptors = programs
            .shortcut_maps()
            .map(|map| map.try_clone_to_owned().unwrap());
        let node = Self {
            maps: ShortcutMaps::open(descriptors).unwrap(),
            programs,
            ifindex,
        };
        for way in [node.way4(), node.way6()] {
            node.maps.set(&way, &node.shortcut()).unwrap();
        }
        node.maps.open_place(PLACE, 1_000, TICKET);
        node.hold(EPOCH, FOREVER);
        node
    }

    fn hold(&self, epoch: u32, until_ns: u64) {
        self.maps.hold(Hold { epoch, until_ns });
    }

    fn shortcut(&self) -> Shortcut {
        Shortcut {
            epoch: EPOCH,
            tx_ifindex: self.ifindex,
            place: PLACE,
            ticket: TICKET,
            mtu: MTU,
            pod_mac: POD,
            gateway_mac: GATEWAY,
            peer_mac: PEER,
        }
    }

    fn way4(&self) -> Way {
        self.way(Ipv4Addr::from(V4[0]).into(), Ipv4Addr::from(V4[1]).into())
    }

    fn way6(&self) -> Way {
        self.way(Ipv6Addr::from(V6[0]).into(), Ipv6Addr::from(V6[1]).into())
    }

    fn way(&self, source: std::net::IpAddr, destination: std::net::IpAddr) -> Way {
        Way {
            source: SocketAddr::new(source, PORTS.0),
            destination: SocketAddr::new(destination, PORTS.1),
            rx_ifindex: self.ifindex,
        }
    }

    /// What becomes of a frame: the packet behind the shortcut, or nothing.
    fn sent(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let received_on = ReceivedOn {
            ifindex: self.ifindex,
            queue: 0,
        };
        let result = self.programs.run(Program::Pod, frame, received_on).unwrap();
        match result.verdict.unwrap() {
            Verdict::PodShortcut => Some(result.packet),
            Verdict::PodUnknownPort => None,
            other => panic!("{other:?}"),
        }
    }
}

/// A segment of the connection, changed by `change`; IPv4 and IPv6.
fn frames(ttl: u8, change: impl Fn(&mut TcpHeader)) -> [Vec<u8>; 2] {
    let ethernet = || PacketBuilder::ethernet2(POD, GATEWAY);
    let mut header = TcpHeader::new(PORTS.0, PORTS.1, 1_000, 64_240);
    header.ack = true;
    change(&mut header);
    let builders = [
        ethernet().ipv4(V4[0], V4[1], ttl),
        ethernet().ipv6(V6[0], V6[1], ttl),
    ];
    builders.map(|builder| {
        let mut frame = Vec::new();
        builder
            .tcp_header(header.clone())
            .write(&mut frame, &[7; PAYLOAD])
            .unwrap();
        frame
    })
}

fn data() -> [Vec<u8>; 2] {
    frames(64, |_| {})
}

#[test]
fn data_goes_to_the_peer_a_hop_further() {
    let node = Node::new();
    for (frame, shorter) in data().iter().zip(frames(63, |_| {})) {
        let sent = node.sent(frame).unwrap();
        assert_eq!(sent[..6], PEER);
        assert_eq!(sent[6..12], GATEWAY);
        // With it the header checksum of IPv4.
        assert_eq!(sent[12..], shorter[12..]);
    }
}

#[test]
fn every_ttl_keeps_the_header_checksum_right() {
    let node = Node::new();
    for ttl in 2..=255 {
        let sent = node.sent(&frames(ttl, |_| {})[0]).unwrap();
        assert_eq!(sent[14..], frames(ttl - 1, |_| {})[0][14..], "TTL {ttl}");
    }
}

#[test]
fn a_packet_of_many_buffers_goes_whole() {
    let node = Node::new();
    let mut frame = Vec::new();
    let mut header = TcpHeader::new(PORTS.0, PORTS.1, 1_000, 64_240);
    header.ack = true;
    let builder = PacketBuilder::ethernet2(POD, GATEWAY).ipv4(V4[0], V4[1], 64);
    let written = builder.tcp_header(header).write(&mut frame, &[7; 60_000]);
    written.unwrap();
    let sent = node.sent(&frame).unwrap();
    assert_eq!(sent[54..], frame[54..]);
    assert_eq!(node.maps.take(PLACE).bytes, 60_040);
    let larger = Shortcut {
        mtu: 60_039,
        ..node.shortcut()
    };
    node.maps.set(&node.way4(), &larger).unwrap();
    assert_eq!(node.sent(&frame), None, "the peer's interface takes less");
}

#[test]
fn what_opens_or_ends_a_connection_goes_the_usual_way() {
    let node = Node::new();
    let changes: [fn(&mut TcpHeader); 5] = [
        |tcp| (tcp.syn, tcp.ack) = (true, false),
        |tcp| tcp.fin = true,
        |tcp| tcp.rst = true,
        |tcp| tcp.urg = true,
        |tcp| tcp.ack = false,
    ];
    for change in changes {
        for frame in frames(64, change) {
            assert_eq!(node.sent(&frame), None);
        }
    }
    for frame in frames(1, |_| {}).iter().chain(&frames(0, |_| {})) {
        assert_eq!(node.sent(frame), None, "a last hop");
    }
}

#[test]
fn other_packets_go_the_usual_way() {
    let node = Node::new();
    for frame in data() {
        // Both addresses' last bytes, ports, both MAC addresses, EtherType, IP version.
        let l4 = if frame[14] >> 4 == 4 { 34 } else { 54 };
        for byte in [5, 11, 12, 14, l4 - 1, l4 - 5, l4 + 1, l4 + 3] {
            let mut other = frame.clone();
            other[byte] ^= 0x40;
            assert_eq!(node.sent(&other), None, "byte {byte}");
        }
        for len in 14..l4 + 20 {
            assert_eq!(node.sent(&frame[..len]), None, "cut off at {len}");
        }
    }
    let mut fragment = data()[0].clone();
    fragment[20] = 0x20;
    assert_eq!(node.sent(&fragment), None, "a fragment");
}

#[test]
fn a_shortcut_holds_as_long_as_it_is_said() {
    let node = Node::new();
    let passes = |expected: bool, why: &str| {
        for frame in data() {
            assert_eq!(node.sent(&frame).is_some(), expected, "{why}");
        }
    };
    node.hold(EPOCH + 1, FOREVER);
    passes(false, "another version");
    node.hold(EPOCH, 1);
    passes(false, "the dataplane is gone");
    node.hold(EPOCH, FOREVER);
    passes(true, "both hold again");
    node.maps.close_place(PLACE);
    passes(false, "taken back alone");
    node.maps.open_place(PLACE, 0, TICKET + 1);
    passes(false, "the place is another connection's");
    node.maps.open_place(PLACE, 0, TICKET);
    assert_eq!(node.maps.ticket(PLACE), TICKET);
    passes(true, "its own again");
    node.hold(EPOCH, 1);
    node.maps.renew(FOREVER);
    passes(true, "renewed");
    node.maps.clear(&node.way4()).unwrap();
    node.maps.clear(&node.way4()).unwrap();
    assert_eq!(node.sent(&data()[0]), None);
    assert!(node.sent(&data()[1]).is_some());
    node.maps.clear_all().unwrap();
    passes(false, "all are gone");
}

#[test]
fn what_went_by_is_counted_and_taken_once() {
    let node = Node::new();
    let before = node.maps.take(PLACE);
    assert_eq!((before.packets, before.bytes, before.last_ns), (0, 0, 0));
    for sequence in [1_000, 1_100, 1_050_u32] {
        node.sent(&frames(64, |tcp| tcp.sequence_number = sequence)[0]);
    }
    let taken = node.maps.take(PLACE);
    assert!(taken.last_ns > 0);
    let expected = Taken {
        packets: 3,
        bytes: 3 * (40 + PAYLOAD as u64),
        end_sequence: 1_100 + PAYLOAD as u32,
        last_ns: taken.last_ns,
    };
    assert_eq!(taken, expected);
    let again = node.maps.take(PLACE);
    assert_eq!(
        again,
        Taken {
            packets: 0,
            bytes: 0,
            ..expected
        }
    );
}

#[test]
fn nonsense_is_refused() {
    let node = Node::new();
    let mixed = Way {
        destination: node.way6().destination,
        ..node.way4()
    };
    assert!(node.maps.set(&mixed, &node.shortcut()).is_err());
    let beyond = Shortcut {
        place: weft_xdp_progs::intf::SHORTCUTS_MAX,
        ..node.shortcut()
    };
    assert!(node.maps.set(&node.way4(), &beyond).is_err());
}
