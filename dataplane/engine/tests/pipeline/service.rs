//! Services' addresses: who answers, with which bytes, and what becomes of running connections.

use std::net::IpAddr;

use weft_engine::table::flow::Tick;
use weft_engine::table::service::Algorithm;
use weft_engine::testbed::*;
use weft_engine::{
    DropReason, FlowInfo, FrontendKey, FrontendSpec, Rule, RuleId, RuleVerdict, ServiceId,
    ServiceSpec, Verdict,
};
use weft_wire::{ChecksumField, Protocol, TcpFlags, TcpHeader, build, tcp};

use crate::{dropped, is_intact, layers, sent};

/// Pods A and B, a pod of remote four, and the service's address, by family.
pub const FAMILIES: [[&str; 4]; 2] = [
    ["10.1.1.10", "10.1.1.11", "10.1.2.5", "10.96.0.10"],
    ["fd00:1:1::10", "fd00:1:1::11", "fd00:1:2::5", "fd00:96::10"],
];

pub const SERVICE: ServiceId = ServiceId(7);

/// Port 80 of an address, of one protocol, answered by all backends.
pub fn frontend(address: &str, protocol: Protocol, backends: usize) -> FrontendSpec {
    FrontendSpec {
        inside_backends: None,
        key: FrontendKey {
            address: ip(address),
            protocol: protocol.0,
            port: 80,
        },
        keeps_source: false,
        direct: false,
        drops: false,
        sources: None,
        backends: (0..backends as u32).collect(),
    }
}

/// A service with port 80 of all three protocols, answered on port 8080.
pub fn spec(address: &str, backends: &[&str]) -> ServiceSpec {
    let protocols = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
    ServiceSpec {
        backends: backends.iter().map(|it| (ip(it), 8080)).collect(),
        frontends: protocols
            .map(|it| frontend(address, it, backends.len()))
            .into(),
        ..ServiceSpec::default()
    }
}

pub fn set(bed: &mut Testbed, spec: &ServiceSpec) {
    bed.change(|builder| builder.services().set(SERVICE, spec));
}

pub fn bed(address: &str, backends: &[&str]) -> Testbed {
    let mut bed = Testbed::new();
    set(&mut bed, &spec(address, backends));
    bed
}

pub fn flows(bed: &Testbed) -> Vec<FlowInfo> {
    let flows = bed.pipeline.flows();
    flows.iter(Tick::of_ns(bed.now_ns)).collect()
}

/// Source and destination with their ports.
pub type Ends = ((IpAddr, u16), (IpAddr, u16));

pub fn ends(from: (&str, u16), to: (&str, u16)) -> Ends {
    ((ip(from.0), from.1), (ip(to.0), to.1))
}

pub fn ends_of(frame: &[u8]) -> Ends {
    let layers = layers(frame);
    let ports = layers.ports(frame).unwrap();
    let (from, to) = if layers.network == weft_wire::Network::V4 {
        let ip = crate::v4(frame);
        (ip.source().into(), ip.destination().into())
    } else {
        let ip = crate::v6(frame);
        (ip.source().into(), ip.destination().into())
    };
    ((from, ports.0), (to, ports.1))
}

/// What is in the tunnel packet.
pub fn inner(frame: &[u8]) -> &[u8] {
    let outer = layers(frame);
    &frame[usize::from(outer.l4) + 16..]
}

pub fn with_ports(packet: build::Packet, protocol: Protocol, ports: (u16, u16)) -> build::Packet {
    match protocol {
        Protocol::TCP => packet.tcp(ports.0, ports.1).flags(TcpFlags::SYN).mss(1400),
        Protocol::UDP => packet.udp(ports.0, ports.1).payload(b"question"),
        _ => packet
            .sctp(ports.0, ports.1, 0)
            .payload(&[1, 0, 0, 20, 0, 0, 0, 9, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0]),
    }
}

#[test]
fn a_local_backend_answers_in_the_name_of_the_service() {
    for [a, b, _, address] in FAMILIES {
        for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP] {
            let mut bed = bed(address, &[b]);
            for _ in 0..2 {
                let there = with_ports(packet(a, address), protocol, (4000, 80));
                let out = bed.one(A, &there);
                let frame = sent(&out, B);
                assert_eq!(ends_of(frame), ends((a, 4000), (b, 8080)));
                assert!(is_intact(frame), "{protocol:?}");
            }
            let back = with_ports(packet(b, a), protocol, (8080, 4000));
            let out = bed.one(B, &back);
            let frame = sent(&out, A);
            assert_eq!(ends_of(frame), ends((address, 80), (a, 4000)));
            assert!(is_intact(frame), "{protocol:?}");
            let flows = flows(&bed);
            assert_eq!((flows.len(), flows[0].packets), (1, [2, 1]));
            assert!(flows[0].translated);
        }
    }
}

#[test]
fn a_remote_backend_is_reached_through_the_tunnel() {
    for [a, _, far, address] in FAMILIES {
        for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP] {
            let mut bed = bed(address, &[far]);
            let there = with_ports(packet(a, address), protocol, (4000, 80));
            let out = bed.one(A, &there);
            let frame = inner(sent(&out, UPLINK));
            assert_eq!(ends_of(frame), ends((a, 4000), (far, 8080)));
            assert!(is_intact(frame));
            let back = with_ports(packet(far, a), protocol, (8080, 4000));
            let out = bed.one(UPLINK, &from_four(&back));
            let frame = sent(&out, A);
            assert_eq!(ends_of(frame), ends((address, 80), (a, 4000)));
            assert!(is_intact(frame));
        }
    }
}

#[test]
fn a_partial_checksum_stays_partial_and_right() {
    for [a, b, _, address] in FAMILIES {
        for protocol in [Protocol::TCP, Protocol::UDP] {
            let mut bed = bed(address, &[b]);
            let there = with_ports(packet(a, address), protocol, (4000, 80));
            let out = bed.one(A, &there.checksum(ChecksumField::Partial));
            let frame = sent(&out, B);
            let wanted = with_ports(packet(a, b), protocol, (4000, 8080));
            let wanted = wanted.checksum(ChecksumField::Partial).build();
            assert!(matches!(
                out.checksum,
                weft_engine::Checksum::Partial { .. }
            ));
            let sum_at = usize::from(layers(frame).l4) + layers(frame).checksum_at().unwrap();
            assert_eq!(frame[sum_at..sum_at + 2], wanted[sum_at..sum_at + 2]);
        }
    }
}

#[test]
fn a_whole_segment_stays_whole_and_a_backend_far_away_bounds_the_mss() {
    for [a, b, far, address] in FAMILIES {
        let mut near = bed(address, &[b]);
        let data = packet(a, address).tcp(4000, 80).flags(TcpFlags::ACK);
        let data = data.payload_len(60_000).checksum(ChecksumField::Partial);
        let out = near.one(A, &data);
        assert_eq!(sent(&out, B).len(), data.build().len());
        let mut remote = bed(address, &[far]);
        let syn = packet(a, address)
            .tcp(4000, 80)
            .flags(TcpFlags::SYN)
            .mss(65_000);
        let out = remote.one(A, &syn);
        let frame = inner(sent(&out, UPLINK));
        let headers = if a.contains(':') { 60 } else { 40 };
        let segment = &frame[14 + headers - TcpHeader::LEN..];
        assert_eq!(tcp::mss(segment), Some(FOUR_MTU as u16 - headers as u16));
        assert!(is_intact(frame));
    }
}

#[test]
fn without_a_backend_the_client_hears_at_once() {
    for [a, _, _, address] in FAMILIES {
        let mut bed = bed(address, &[]);
        let syn = with_ports(packet(a, address), Protocol::TCP, (4000, 80));
        let ran = bed.run(&[(A, syn.clone().sequence(100, 0).build())]);
        assert_eq!(dropped(&ran.packets[0]), DropReason::NoBackend);
        let reset = sent(&ran.born[0], A);
        assert_eq!(ends_of(reset), ends((address, 80), (a, 4000)));
        let (tcp, _) = TcpHeader::parse(&reset[usize::from(layers(reset).l4)..]).unwrap();
        assert!(tcp.flags().contains(TcpFlags::RST | TcpFlags::ACK) && is_intact(reset));
        assert_eq!(tcp.acknowledgement(), 101);
        let ran = bed.run(&[(A, packet(a, address).udp(9, 80).build())]);
        assert_eq!(dropped(&ran.packets[0]), DropReason::NoBackend);
        let error = sent(&ran.born[0], A);
        let at = usize::from(layers(error).l4);
        let port_unreachable = if a.contains(':') { [1, 4] } else { [3, 3] };
        assert_eq!(error[at..at + 2], port_unreachable);
        assert_eq!(flows(&bed).len(), 0);
        for _ in 0..100 {
            bed.run(&[(A, syn.build())]);
        }
        assert!(
            bed.pipeline.counters().icmp_limited > 0,
            "not without bound"
        );
    }
}

#[test]
fn a_frontend_may_refuse_silently_and_by_source() {
    let [a, b, _, address] = FAMILIES[0];
    let mut service = spec(address, &[]);
    service.frontends[0].drops = true;
    let mut bed = bed(address, &[]);
    set(&mut bed, &service);
    let syn = with_ports(packet(a, address), Protocol::TCP, (4000, 80));
    assert_eq!(dropped(&bed.one(A, &syn)), DropReason::NoLocalBackend);
    let mut service = spec(address, &[b]);
    service.frontends[0].sources = Some(vec!["192.0.2.0/24".parse().unwrap()]);
    set(&mut bed, &service);
    assert_eq!(dropped(&bed.one(A, &syn)), DropReason::SourceRange);
    service.frontends[0].sources = Some(vec!["10.1.0.0/16".parse().unwrap()]);
    set(&mut bed, &service);
    sent(&bed.one(A, &syn), B);
}

#[test]
fn another_port_of_the_address_is_no_service() {
    let [a, b, _, address] = FAMILIES[0];
    let mut bed = bed(address, &[b]);
    let ran = bed.run(&[(A, packet(a, address).udp(9, 81).build())]);
    assert_eq!(dropped(&ran.packets[0]), DropReason::NoService);
}

#[test]
fn egress_rules_see_the_backend() {
    let [a, b, far, address] = FAMILIES[0];
    for (backend, allowed) in [(far, true), (b, false)] {
        let mut bed = bed(address, &[backend]);
        bed.change(|builder| {
            let policy = builder.policy();
            for (number, prefix) in [
                (10, "10.1.1.10/32"),
                (11, "10.1.1.11/32"),
                (20, "10.1.2.0/24"),
            ] {
                policy.set_identity(number, Some(vec![number]));
                policy.set_address(prefix.parse().unwrap(), Some(number));
            }
            let rule = |peer, ports, verdict| Rule {
                tier: 1,
                peer,
                protocol: Some(Protocol::UDP.0),
                ports,
                verdict,
                id: RuleId(5),
            };
            let allow = rule(Some(20), Some((8080, 8080)), RuleVerdict::Allow);
            let deny = rule(None, None, RuleVerdict::Deny);
            policy.set_rules(10, vec![], vec![allow, deny]);
            policy.set_rules(11, vec![], vec![]);
        });
        let out = bed.one(A, &packet(a, address).udp(9, 80));
        if allowed {
            sent(&out, UPLINK);
            // Decided again, by what the connection is and not by what its packets come with.
            bed.change(|builder| builder.policy().set_identity(99, Some(vec![99])));
            let back = packet(far, a).udp(8080, 9);
            sent(&bed.one(UPLINK, &from_four(&back)), A);
            sent(&bed.one(A, &packet(a, address).udp(9, 80)), UPLINK);
        } else {
            assert_eq!(dropped(&out), DropReason::PolicyEgress);
            assert_eq!(flows(&bed).len(), 0, "what is denied takes no room");
        }
    }
}

#[test]
fn packets_of_one_batch_go_to_one_backend() {
    for algorithm in [Algorithm::Random, Algorithm::LeastConnections] {
        for [a, b, far, address] in FAMILIES {
            let service = ServiceSpec {
                algorithm,
                ..spec(address, &[b, far])
            };
            let mut bed = bed(address, &[]);
            set(&mut bed, &service);
            for port in 4000..4020 {
                let datagram = packet(a, address).udp(port, 80).payload(b"q").build();
                let ran = bed.run(&vec![(A, datagram); 8]);
                let out: Vec<Verdict> = ran.packets.iter().map(|it| it.verdict).collect();
                assert!(out.iter().all(|it| *it == out[0]), "{out:?}");
                for outcome in &ran.packets {
                    let to_b = outcome.verdict == Verdict::Tx(B);
                    let (frame, backend) = if to_b {
                        (sent(outcome, B), b)
                    } else {
                        (inner(sent(outcome, UPLINK)), far)
                    };
                    assert_eq!(ends_of(frame), ends((a, port), (backend, 8080)));
                    assert!(is_intact(frame));
                }
            }
        }
    }
}

#[test]
fn a_connection_keeps_its_backend_through_changes_and_ends_with_it() {
    for [a, b, far, address] in FAMILIES {
        let mut bed = bed(address, &[b]);
        let syn = packet(a, address).tcp(4000, 80).flags(TcpFlags::SYN);
        sent(&bed.one(A, &syn), B);
        let answer = packet(b, a)
            .tcp(8080, 4000)
            .flags(TcpFlags::SYN | TcpFlags::ACK);
        sent(&bed.one(B, &answer.sequence(500, 1)), A);
        let data = packet(a, address).tcp(4000, 80).flags(TcpFlags::ACK);
        let data = data.sequence(1, 501).payload(b"question");
        let mut service = spec(address, &[b, far]);
        set(&mut bed, &service);
        sent(&bed.one(A, &data), B);
        // It ends: it is listed, but new connections go elsewhere.
        service
            .frontends
            .iter_mut()
            .for_each(|it| it.backends = vec![1]);
        set(&mut bed, &service);
        sent(&bed.one(A, &data), B);
        sent(
            &bed.one(
                A,
                &with_ports(packet(a, address), Protocol::TCP, (4001, 80)),
            ),
            UPLINK,
        );
        set(&mut bed, &spec(address, &[far]));
        let ran = bed.run(&[(A, data.build())]);
        assert_eq!(dropped(&ran.packets[0]), DropReason::BackendGone);
        let resets: Vec<Ends> = ran.born.iter().map(|it| ends_of(&it.bytes)).collect();
        assert_eq!(
            resets,
            [ends((a, 4000), (b, 8080)), ends((address, 80), (a, 4000))]
        );
        let to_client = sent(&ran.born[1], A);
        let (tcp, _) = TcpHeader::parse(&to_client[usize::from(layers(to_client).l4)..]).unwrap();
        assert_eq!((tcp.sequence(), is_intact(to_client)), (501, true));
        sent(&bed.one(A, &syn), UPLINK);
    }
}

#[test]
fn datagrams_find_another_backend_when_theirs_is_gone() {
    for [a, b, far, address] in FAMILIES {
        let mut bed = bed(address, &[b]);
        let there = packet(a, address).udp(9, 80);
        sent(&bed.one(A, &there), B);
        set(&mut bed, &spec(address, &[far]));
        let late = bed.one(B, &packet(b, a).udp(8080, 9));
        assert_eq!(dropped(&late), DropReason::BackendGone);
        sent(&bed.one(A, &there), UPLINK);
        sent(&bed.one(A, &there), UPLINK);
        bed.change(|builder| builder.services().remove(SERVICE));
        let ran = bed.run(&[(A, there.build())]);
        assert_eq!(dropped(&ran.packets[0]), DropReason::NoService);
    }
}

#[test]
fn a_client_with_affinity_comes_back_to_its_backend() {
    for [a, b, far, address] in FAMILIES {
        let service = ServiceSpec {
            algorithm: Algorithm::Random,
            affinity_seconds: Some(60),
            ..spec(address, &[b, far])
        };
        let mut bed = bed(address, &[]);
        set(&mut bed, &service);
        let mut seen = std::collections::HashSet::new();
        for round in 0..20 {
            let port = |it: u16| 4000 + 20 * round + it;
            let udp = bed.one(A, &packet(a, address).udp(port(0), 80)).verdict;
            let tcp = with_ports(packet(a, address), Protocol::TCP, (port(1), 80));
            bed.now_ns += 50_000_000_000;
            let tcp = bed.one(A, &tcp).verdict;
            assert_eq!(udp, tcp, "over all ports of the service");
            seen.insert(format!("{tcp:?}"));
            bed.now_ns += 70_000_000_000;
        }
        assert_eq!(seen.len(), 2, "not for ever");
    }
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    let weft0 = ["10.1.1.254", "fd00:1:1::fe"];
    for ([a, _, _, address], weft0) in FAMILIES.into_iter().zip(weft0) {
        for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP] {
            let mut bed = bed(address, &[a]);
            let out = bed.one(A, &with_ports(packet(a, address), protocol, (4000, 80)));
            let frame = sent(&out, A);
            let ((source, port), to) = ends_of(frame);
            assert_eq!((source, to), (ip(weft0), (ip(a), 8080)));
            assert!(is_intact(frame));
            let out = bed.one(A, &with_ports(packet(a, weft0), protocol, (8080, port)));
            let frame = sent(&out, A);
            assert_eq!(ends_of(frame), ends((address, 80), (a, 4000)));
            assert!(is_intact(frame));
            assert_eq!(flows(&bed).len(), 1);
        }
    }
}

#[test]
fn a_port_of_the_node_is_reached_from_pods_and_through_the_tunnel() {
    for ([a, b, far, _], node, weft0) in [
        (FAMILIES[0], "192.0.2.1", "10.1.1.254"),
        (FAMILIES[1], "2001:db8::1", "fd00:1:1::fe"),
    ] {
        let any = if a.contains(':') { "::" } else { "0.0.0.0" };
        let mut bed = bed(any, &[b]);
        let out = bed.one(A, &packet(a, node).udp(9, 80));
        assert_eq!(ends_of(sent(&out, B)), ends((a, 9), (b, 8080)));
        let out = bed.one(UPLINK, &from_four(&packet(far, node).udp(9, 80)));
        assert_eq!(ends_of(sent(&out, B)), ends((far, 9), (b, 8080)));
        let out = bed.one(B, &packet(b, far).udp(8080, 9));
        assert_eq!(
            ends_of(inner(sent(&out, UPLINK))),
            ends((node, 80), (far, 9))
        );
        // The backend on a third node would answer the client itself, who knows nothing of it.
        let six = if a.contains(':') {
            "fd00:1:3::5"
        } else {
            "10.1.3.5"
        };
        set(&mut bed, &spec(any, &[six]));
        let out = bed.one(UPLINK, &from_four(&packet(far, node).udp(10, 80)));
        let ((source, port), to) = ends_of(inner(sent(&out, UPLINK)));
        assert_eq!((source, to), (ip(weft0), (ip(six), 8080)));
        let out = bed.one(UPLINK, &from_six(&packet(six, weft0).udp(8080, port)));
        assert_eq!(
            ends_of(inner(sent(&out, UPLINK))),
            ends((node, 80), (far, 10))
        );
    }
}

#[test]
fn clients_outside_are_translated_unless_their_address_is_to_stay() {
    let [_, b, far, _] = FAMILIES[0];
    let (address, client) = ("203.0.113.10", "198.51.100.7");
    let mut bed = bed(address, &[b]);
    let out = bed.one(NODE, &packet(client, address).udp(9, 80));
    assert_eq!(
        ends_of(sent(&out, B)),
        ends((client, 9), (b, 8080)),
        "a pod here answers this way"
    );
    set(&mut bed, &spec(address, &[far]));
    let out = bed.one(NODE, &packet(client, address).udp(10, 80));
    let ((source, port), _) = ends_of(inner(sent(&out, UPLINK)));
    assert_eq!(source, ip("10.1.1.254"));
    let out = bed.one(
        UPLINK,
        &from_four(&packet(far, "10.1.1.254").udp(8080, port)),
    );
    assert_eq!(ends_of(sent(&out, NODE)), ends((address, 80), (client, 10)));
    let mut service = spec(address, &[far]);
    service
        .frontends
        .iter_mut()
        .for_each(|it| it.keeps_source = true);
    set(&mut bed, &service);
    let out = bed.one(NODE, &packet(client, address).udp(11, 80));
    assert_eq!(
        ends_of(inner(sent(&out, UPLINK))),
        ends((client, 11), (far, 8080))
    );
}

#[test]
fn the_node_reaches_services_also_on_other_nodes_themselves() {
    let [_, _, far, address] = FAMILIES[0];
    let mut bed = bed(address, &[far]);
    let out = bed.one(NODE, &packet("10.1.1.254", address).udp(9, 80));
    assert_eq!(
        ends_of(inner(sent(&out, UPLINK))),
        ends(("10.1.1.254", 9), (far, 8080))
    );
    set(&mut bed, &spec(address, &["192.0.2.2"]));
    let out = bed.one(NODE, &packet("10.1.1.254", address).udp(10, 80));
    assert_eq!(
        ends_of(inner(sent(&out, UPLINK))),
        ends(("10.1.1.254", 10), ("192.0.2.2", 8080))
    );
    let out = bed.one(NODE, &packet("192.0.2.1", address).udp(11, 80));
    let ((source, port), _) = ends_of(inner(sent(&out, UPLINK)));
    assert_eq!(
        source,
        ip("10.1.1.254"),
        "the other node answers past the tunnel"
    );
    let back = packet("192.0.2.2", "10.1.1.254").udp(8080, port);
    let out = bed.one(UPLINK, &from_four(&back));
    assert_eq!(
        ends_of(sent(&out, NODE)),
        ends((address, 80), ("192.0.2.1", 11))
    );
}

#[test]
fn the_node_reaches_itself_through_a_service() {
    for ([a, _, _, address], [node, weft0, gateway]) in FAMILIES.into_iter().zip([
        ["192.0.2.1", "10.1.1.254", "169.254.1.1"],
        ["2001:db8::1", "fd00:1:1::fe", "fe80::1"],
    ]) {
        for client in [node, weft0] {
            let mut bed = bed(address, &[node]);
            let out = bed.one(NODE, &packet(client, address).udp(9, 80));
            let ((source, port), to) = ends_of(sent(&out, NODE));
            assert_eq!((source, to), (ip(gateway), (ip(node), 8080)));
            let out = bed.one(NODE, &packet(node, gateway).udp(8080, port));
            let frame = sent(&out, NODE);
            assert_eq!(ends_of(frame), ends((address, 80), (client, 9)));
            assert!(is_intact(frame));
            let stray = bed.one(NODE, &packet(node, gateway).udp(8080, port ^ 1));
            assert!(
                matches!(stray.verdict, Verdict::Drop(_)),
                "of no connection"
            );
        }
        // Pods reach the node through it as ever.
        let mut bed = bed(address, &[node]);
        let out = bed.one(A, &packet(a, address).udp(9, 80));
        assert_eq!(ends_of(sent(&out, NODE)), ends((a, 9), (node, 8080)));
        let out = bed.one(NODE, &packet(node, a).udp(8080, 9));
        assert_eq!(ends_of(sent(&out, A)), ends((address, 80), (a, 9)));
    }
}

#[test]
fn two_connections_of_one_client_port_to_one_backend_are_told_apart() {
    let [a, b, _, address] = FAMILIES[0];
    let mut bed = bed(address, &[b]);
    sent(&bed.one(A, &packet(a, b).udp(9, 8080)), B);
    sent(&bed.one(B, &packet(b, a).udp(8080, 9)), A);
    let out = bed.one(A, &packet(a, address).udp(9, 80));
    let ((source, port), _) = ends_of(sent(&out, B));
    assert_eq!(source, ip(a));
    assert_ne!(port, 9);
    let out = bed.one(B, &packet(b, a).udp(8080, port));
    assert_eq!(ends_of(sent(&out, A)), ends((address, 80), (a, 9)));
    let out = bed.one(B, &packet(b, a).udp(8080, 9));
    assert_eq!(ends_of(sent(&out, A)), ends((b, 8080), (a, 9)));
}

#[test]
fn a_connection_past_the_service_is_told_apart_from_one_through_it() {
    for [a, b, _, address] in FAMILIES {
        for protocol in [Protocol::TCP, Protocol::UDP] {
            let mut bed = bed(address, &[b]);
            let through = with_ports(packet(a, address), protocol, (9, 80));
            sent(&bed.one(A, &through), B);
            let past = with_ports(packet(a, b), protocol, (9, 8080));
            let out = bed.one(A, &past);
            let ((source, port), to) = ends_of(sent(&out, B));
            assert_eq!((source, to), (ip(a), (ip(b), 8080)));
            assert_ne!(port, 9);
            let answer = |port| with_ports(packet(b, a), protocol, (8080, port));
            let out = bed.one(B, &answer(port));
            assert_eq!(ends_of(sent(&out, A)), ends((b, 8080), (a, 9)));
            let out = bed.one(B, &answer(9));
            assert_eq!(ends_of(sent(&out, A)), ends((address, 80), (a, 9)));
            // It is nobody's backend and outlives the service.
            bed.change(|builder| builder.services().remove(SERVICE));
            let out = bed.one(A, &past);
            assert_eq!(ends_of(sent(&out, B)), ends((a, port), (b, 8080)));
        }
    }
}

#[test]
fn a_pod_reaches_itself_whatever_its_policy_says() {
    let [a, _, _, address] = FAMILIES[0];
    let mut bed = bed(address, &[a]);
    bed.change(|builder| {
        let policy = builder.policy();
        policy.set_identity(10, Some(vec![10]));
        policy.set_address("10.1.1.10/32".parse().unwrap(), Some(10));
        let deny = Rule {
            tier: 1,
            peer: None,
            protocol: None,
            ports: None,
            verdict: RuleVerdict::Deny,
            id: RuleId(5),
        };
        policy.set_rules(10, vec![deny.clone()], vec![deny]);
    });
    let there = packet(a, address).udp(9, 80);
    let out = bed.one(A, &there);
    let ((_, port), _) = ends_of(sent(&out, A));
    bed.change(|builder| builder.policy().set_identity(99, Some(vec![99])));
    sent(&bed.one(A, &packet(a, "10.1.1.254").udp(8080, port)), A);
    sent(&bed.one(A, &there), A);
}

#[test]
fn when_all_source_ports_are_taken_new_connections_are_dropped_and_counted() {
    let (address, far) = ("203.0.113.10", "10.1.2.5");
    let mut bed = Testbed::with_flows(40_000);
    set(&mut bed, &spec(address, &[far]));
    let client = |number: u16| {
        let [high, low] = number.to_be_bytes();
        format!("198.51.{high}.{low}")
    };
    let mut ports = std::collections::HashSet::new();
    let mut refused = 0;
    for number in 0..34_000 {
        let out = bed.one(NODE, &packet(&client(number), address).udp(9, 80));
        match out.verdict {
            Verdict::Drop(reason) => {
                assert_eq!(reason, DropReason::SourcePorts);
                refused += 1;
            }
            _ => {
                let ((_, port), _) = ends_of(inner(sent(&out, UPLINK)));
                assert!(ports.insert(port), "{port} is given once");
            }
        }
    }
    assert!(
        ports.len() > 31_000 && refused > 2_000,
        "{} {refused}",
        ports.len()
    );
}

#[test]
fn connections_of_one_batch_are_not_given_the_same_source_port() {
    let (address, far) = ("203.0.113.10", "10.1.2.5");
    let mut bed = Testbed::with_flows(40_000);
    set(&mut bed, &spec(address, &[far]));
    let mut ports = std::collections::HashSet::new();
    // So many that the last ones meet at the few ports that are free.
    for batch in 0..464_u16 {
        let client = |n: u16| {
            let [high, low] = (batch * 64 + n).to_be_bytes();
            packet(&format!("198.51.{high}.{low}"), address).udp(9, 80)
        };
        let packets: Vec<_> = (0..64).map(|n| (NODE, client(n).build())).collect();
        for outcome in bed.run(&packets).packets {
            let ((_, port), _) = ends_of(inner(sent(&outcome, UPLINK)));
            assert!(ports.insert(port), "{port} is given once");
        }
    }
}

#[test]
fn connections_are_counted_by_backend() {
    let [a, b, _, address] = FAMILIES[0];
    let mut bed = bed(address, &[b]);
    for port in 0..5 {
        sent(&bed.one(A, &packet(a, address).udp(port + 1, 80)), B);
    }
    let id = bed.builder.services().backends(SERVICE)[0].id;
    assert_eq!(bed.pipeline.flows().backends().of(id), (5, 5));
    bed.now_ns += 200_000_000_000;
    bed.expire();
    assert_eq!(bed.pipeline.flows().backends().of(id), (0, 5));
}
