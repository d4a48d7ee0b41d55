//! Which packets take a shortcut, what becomes of them, and what is counted.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that fails fails its test"
)]

#[path = "../common/mod.rs"]
mod common;
mod tunnel;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{PacketBuilder, SlicedPacket, TcpHeader, TransportSlice};
use weft_xdp_progs::{
    Action, Behind, Hold, Program, Programs, Protocol, ReceivedOn, Shortcut, ShortcutMaps, Taken,
    Verdict, Way,
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
const MTU: u32 = 1_400;

/// Where translated packets go on to, and from.
const TRANSLATED: [(&str, &str); 2] = [
    ("10.244.1.9:1025", "10.244.200.3:8080"),
    ("[fd00:10:244:1::9]:1025", "[fd00:10:244:c8::3]:8080"),
];

/// A node with the programs of shortcuts and a port.
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
        self.maps.hold(Hold {
            epoch,
            until_ns,
            former: EPOCH,
            former_until_ns: 0,
        });
    }

    fn shortcut(&self) -> Shortcut {
        Shortcut {
            epoch: EPOCH,
            rx_ifindex: self.ifindex,
            tx_ifindex: self.ifindex,
            to: Behind::Pod,
            tunnel: None,
            place: PLACE,
            ticket: TICKET,
            mtu: MTU,
            pod_mac: POD,
            gateway_mac: GATEWAY,
            sender_mac: GATEWAY,
            peer_mac: PEER,
            translation: None,
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
            protocol: Protocol::Tcp,
            source: SocketAddr::new(source, PORTS.0),
            destination: SocketAddr::new(destination, PORTS.1),
        }
    }

    /// What becomes of a frame: the packet behind the shortcut, or nothing. The pod's end sends it that way exactly
    /// when the host end will let it go on.
    fn sent(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let sent = self.arrived(frame);
        assert_eq!(self.leaves(frame), sent.is_some(), "the two ends disagree");
        sent
    }

    /// Whether the pod's end sends it past generic XDP.
    fn leaves(&self, frame: &[u8]) -> bool {
        let result = self.run(Program::ShortcutOut, frame);
        assert_eq!(result.packet, frame);
        match result.action.unwrap() {
            Action::Redirect => true,
            Action::Pass => false,
            Action::Drop => panic!("dropped inside the pod"),
        }
    }

    /// What the host end sends on.
    fn arrived(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let result = self.run(Program::ShortcutIn, frame);
        let verdict = result.verdict.unwrap();
        assert_eq!(result.action, Some(verdict.action()));
        match verdict {
            Verdict::ShortcutTaken => Some(result.packet),
            Verdict::ShortcutNone => None,
            other => panic!("{other:?}"),
        }
    }

    fn run(&self, program: Program, frame: &[u8]) -> weft_xdp_progs::RunResult {
        let received_on = ReceivedOn {
            ifindex: self.ifindex,
            queue: 0,
        };
        self.programs.run(program, frame, received_on).unwrap()
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
fn maps_of_other_programs_are_refused() {
    let programs = Programs::load().unwrap();
    let mut maps = programs
        .shortcut_maps()
        .map(|map| map.try_clone_to_owned().unwrap());
    maps.swap(0, 1);
    let error = ShortcutMaps::open(maps).unwrap_err();
    assert!(error.to_string().contains("another version"), "{error}");
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
fn what_the_other_interface_does_not_take_goes_the_usual_way() {
    let node = Node::new();
    let lengths = [40, 60].map(|headers| headers + PAYLOAD as u32);
    for ((frame, way), bytes) in data().iter().zip([node.way4(), node.way6()]).zip(lengths) {
        for (mtu, fits) in [(bytes, true), (bytes - 1, false)] {
            let shortcut = Shortcut {
                mtu,
                ..node.shortcut()
            };
            node.maps.set(&way, &shortcut).unwrap();
            assert_eq!(node.sent(frame).is_some(), fits, "{bytes} bytes by {mtu}");
        }
    }
}

#[test]
fn datagrams_have_shortcuts_of_their_own() {
    let node = Node::new();
    let ethernet = || PacketBuilder::ethernet2(POD, GATEWAY);
    let builders = [
        (node.way4(), ethernet().ipv4(V4[0], V4[1], 64)),
        (node.way6(), ethernet().ipv6(V6[0], V6[1], 64)),
    ];
    for (way, builder) in builders {
        let mut frame = Vec::new();
        let written = builder.udp(PORTS.0, PORTS.1).write(&mut frame, &[7; 10]);
        written.unwrap();
        assert_eq!(node.sent(&frame), None, "that of TCP is not for it");
        let way = Way {
            protocol: Protocol::Udp,
            ..way
        };
        node.maps.set(&way, &node.shortcut()).unwrap();
        assert_eq!(node.sent(&frame).unwrap()[..6], PEER);
    }
    assert_eq!(node.maps.take(PLACE).bytes, 38 + 58);
}

#[test]
fn translated_packets_go_on_with_right_checksums() {
    let node = Node::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for (way, to) in [node.way4(), node.way6()].into_iter().zip(TRANSLATED) {
            let way = Way { protocol, ..way };
            let to = (to.0.parse().unwrap(), to.1.parse().unwrap());
            let shortcut = Shortcut {
                translation: Some(to),
                ..node.shortcut()
            };
            node.maps.set(&way, &shortcut).unwrap();
            for payload in [1, 7, PAYLOAD] {
                let frame = frame_of(&way, POD, GATEWAY, 64, payload);
                let there = Way {
                    protocol,
                    source: to.0,
                    destination: to.1,
                };
                let expected = frame_of(&there, GATEWAY, PEER, 63, payload);
                assert_eq!(node.sent(&frame).unwrap(), expected, "{way:?}");
            }
        }
    }
}

#[test]
fn a_datagram_without_checksum_stays_without() {
    let node = Node::new();
    let way = Way {
        protocol: Protocol::Udp,
        ..node.way4()
    };
    let (source, destination) = TRANSLATED[0];
    let shortcut = Shortcut {
        translation: Some((source.parse().unwrap(), destination.parse().unwrap())),
        ..node.shortcut()
    };
    node.maps.set(&way, &shortcut).unwrap();
    let mut frame = frame_of(&way, POD, GATEWAY, 64, 10);
    frame[40..42].fill(0);
    let sent = node.sent(&frame).unwrap();
    let packet = SlicedPacket::from_ethernet(&sent).unwrap();
    let Some(TransportSlice::Udp(udp)) = packet.transport else {
        panic!("no datagram");
    };
    assert_eq!((udp.destination_port(), udp.checksum()), (8080, 0));
}

/// A packet of a connection, with all checksums.
fn frame_of(way: &Way, from: [u8; 6], to: [u8; 6], ttl: u8, payload: usize) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(from, to);
    let builder = match (way.source.ip(), way.destination.ip()) {
        (std::net::IpAddr::V4(source), std::net::IpAddr::V4(destination)) => {
            ethernet.ipv4(source.octets(), destination.octets(), ttl)
        }
        (std::net::IpAddr::V6(source), std::net::IpAddr::V6(destination)) => {
            ethernet.ipv6(source.octets(), destination.octets(), ttl)
        }
        mixed => panic!("{mixed:?}"),
    };
    let ports = (way.source.port(), way.destination.port());
    let mut frame = Vec::new();
    let payload = vec![7; payload];
    match way.protocol {
        Protocol::Tcp => {
            let mut header = TcpHeader::new(ports.0, ports.1, 1_000, 64_240);
            header.ack = true;
            let written = builder.tcp_header(header).write(&mut frame, &payload);
            written.unwrap();
        }
        Protocol::Udp => {
            let written = builder.udp(ports.0, ports.1).write(&mut frame, &payload);
            written.unwrap();
        }
    }
    frame
}

#[test]
fn what_was_on_its_way_when_the_tables_changed_arrives() {
    let node = Node::new();
    let change = |epoch, former| {
        node.maps.hold(Hold {
            epoch,
            until_ns: FOREVER,
            former,
            former_until_ns: FOREVER,
        });
    };
    for epoch in [EPOCH + 1, 0, EPOCH + 3] {
        change(epoch, EPOCH);
        for frame in data() {
            assert!(!node.leaves(&frame), "epoch {epoch}");
            assert!(node.arrived(&frame).is_some(), "epoch {epoch}");
        }
    }
    node.maps.close_place(PLACE);
    assert!(node.arrived(&data()[0]).is_some(), "taken back alone");
    assert_eq!(node.maps.take(PLACE).packets, 6, "nobody counts it");
    for epoch in [EPOCH + 4, 0] {
        change(epoch, EPOCH + 1);
        assert!(node.arrived(&data()[0]).is_none(), "long before {epoch}");
    }
}

#[test]
fn packets_of_another_interface_are_dropped() {
    let node = Node::new();
    let elsewhere = Shortcut {
        rx_ifindex: common::index("up1"),
        ..node.shortcut()
    };
    node.maps.set(&node.way4(), &elsewhere).unwrap();
    assert!(node.leaves(&data()[0]), "the pod's end does not know");
    assert_eq!(node.arrived(&data()[0]), None);
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
        // A dry run takes no less than an IP header.
        for len in l4..l4 + 20 {
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
    let leaves = |expected: bool, why: &str| {
        for frame in data() {
            assert_eq!(node.leaves(&frame), expected, "{why}");
        }
    };
    node.maps.close_place(PLACE);
    leaves(false, "taken back alone");
    node.maps.open_place(PLACE, 0, TICKET + 1);
    leaves(false, "the place is another connection's");
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
    let into_another = Shortcut {
        translation: Some((node.way6().source, node.way6().destination)),
        ..node.shortcut()
    };
    assert!(node.maps.set(&node.way4(), &into_another).is_err());
    let beyond = Shortcut {
        place: weft_xdp_progs::intf::SHORTCUTS_MAX,
        ..node.shortcut()
    };
    assert!(node.maps.set(&node.way4(), &beyond).is_err());
}
