//! Clients outside the cluster: they come by the underlay to a node port or a service's address, and are answered the
//! way they came.

use weft_engine::testbed::*;
use weft_engine::{
    DropReason, FrontendSpec, MacAddr, Rule, RuleId, RuleVerdict, ServiceSpec, Verdict,
};
use weft_wire::{ChecksumField, Protocol, TcpFlags, TcpHeader, build, tcp};

use crate::service::{FAMILIES, ends, ends_of, flows, frontend, inner, set, with_ports};
use crate::service_errors::addresses;
use crate::{dropped, is_intact, layers, macs, sent, v4};

/// Client, this node, an address of the service alone, `weft0`, another pod's address on remote four, by family.
pub const SIDES: [[&str; 4]; 2] = [
    ["203.0.113.9", "192.0.2.1", "198.51.100.80", "10.1.1.254"],
    [
        "2001:db8:ffff::9",
        "2001:db8::1",
        "2001:db8:5e::80",
        "fd00:1:1::fe",
    ],
];

/// MACs of two routers.
const ROUTER: MacAddr = MacAddr([0x52, 0, 0, 0, 0, 9]);
const OTHER_ROUTER: MacAddr = MacAddr([0x52, 0, 0, 0, 0, 10]);

const PROTOCOLS: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];

/// Port 80 of `addresses`, where an unspecified one is each of this node's.
pub fn spec(addresses: &[&str], backends: &[&str]) -> ServiceSpec {
    let frontends = addresses
        .iter()
        .flat_map(|address| PROTOCOLS.map(|protocol| frontend(address, protocol, backends.len())));
    ServiceSpec {
        backends: backends.iter().map(|it| (ip(it), 8080)).collect(),
        frontends: frontends.collect(),
        ..ServiceSpec::default()
    }
}

pub fn any_of_node(address: &str) -> &'static str {
    if ip(address).is_ipv4() {
        "0.0.0.0"
    } else {
        "::"
    }
}

/// The service at all ports 80 of the node and at an address of its own.
pub fn bed(side: [&str; 4], backends: &[&str]) -> Testbed {
    let mut bed = Testbed::new();
    let [_, node, address, _] = side;
    set(&mut bed, &spec(&[any_of_node(node), address], backends));
    bed
}

fn change_frontends(
    bed: &mut Testbed,
    side: [&str; 4],
    backend: &str,
    change: fn(&mut FrontendSpec),
) {
    let mut spec = spec(&[any_of_node(side[1])], &[backend]);
    spec.frontends.iter_mut().for_each(change);
    set(bed, &spec);
}

pub fn from_wire(source: &str, destination: &str) -> build::Packet {
    build::Packet::ip(ip(source), ip(destination)).macs(ROUTER, UPLINK_MAC)
}

pub fn cases() -> impl Iterator<Item = ([&'static str; 4], [&'static str; 4], Protocol)> {
    let families = SIDES.into_iter().zip(FAMILIES);
    families.flat_map(|(side, pods)| PROTOCOLS.map(|protocol| (side, pods, protocol)))
}

#[test]
fn a_local_pod_sees_the_client_and_its_replies_leave_as_the_request_came() {
    for (side, [a, ..], protocol) in cases() {
        let [client, node, address, _] = side;
        for to in [node, address] {
            let mut bed = bed(side, &[a]);
            let there = with_ports(from_wire(client, to), protocol, (4000, 80));
            let out = bed.one(UPLINK, &there);
            let frame = sent(&out, A);
            assert_eq!(ends_of(frame), ends((client, 4000), (a, 8080)));
            assert!(is_intact(frame), "{protocol:?}");
            let back = with_ports(packet(a, client), protocol, (8080, 4000));
            let out = bed.one(A, &back);
            let frame = sent(&out, UPLINK);
            assert_eq!(macs(frame), (UPLINK_MAC, ROUTER));
            assert_eq!(ends_of(frame), ends((to, 80), (client, 4000)));
            assert!(is_intact(frame), "{protocol:?}");
            assert_eq!(flows(&bed).len(), 1);
        }
    }
}

#[test]
fn a_pod_elsewhere_sees_this_node_and_the_client_is_answered_from_here() {
    for (side, [_, _, far, _], protocol) in cases() {
        let [client, node, _, weft0] = side;
        let mut bed = bed(side, &[far]);
        let there = with_ports(from_wire(client, node), protocol, (4000, 80));
        let out = bed.one(UPLINK, &there);
        let frame = inner(sent(&out, UPLINK));
        let ((source, port), to) = ends_of(frame);
        assert_eq!((source, to), (ip(weft0), (ip(far), 8080)));
        assert!((1024..32768).contains(&port) && is_intact(frame));
        let back = with_ports(packet(far, weft0), protocol, (8080, port));
        let out = bed.one(UPLINK, &from_four(&back));
        let frame = sent(&out, UPLINK);
        assert_eq!(macs(frame), (UPLINK_MAC, ROUTER));
        assert_eq!(ends_of(frame), ends((node, 80), (client, 4000)));
        assert!(is_intact(frame));
    }
}

#[test]
fn the_nodes_own_stack_answers_by_the_gateways_address_so_that_its_replies_come_here() {
    for (side, _, protocol) in cases() {
        let [client, node, address, _] = side;
        let gateway = if ip(node).is_ipv4() {
            "169.254.1.1"
        } else {
            "fe80::1"
        };
        let mut bed = bed(side, &[node]);
        let there = with_ports(from_wire(client, address), protocol, (4000, 80));
        let out = bed.one(UPLINK, &there);
        let frame = sent(&out, NODE);
        let ((source, port), to) = ends_of(frame);
        assert_eq!((source, to), (ip(gateway), (ip(node), 8080)));
        let back = with_ports(packet(node, gateway), protocol, (8080, port));
        let out = bed.one(NODE, &back);
        let frame = sent(&out, UPLINK);
        assert_eq!(ends_of(frame), ends((address, 80), (client, 4000)));
        assert_eq!(macs(frame), (UPLINK_MAC, ROUTER));
    }
}

#[test]
fn replies_go_to_the_router_that_brought_the_last_packet() {
    let [client, node, ..] = SIDES[0];
    let [a, ..] = FAMILIES[0];
    let mut bed = bed(SIDES[0], &[a]);
    let there = from_wire(client, node).udp(4000, 80).payload(b"question");
    sent(&bed.one(UPLINK, &there), A);
    sent(
        &bed.one(UPLINK, &there.clone().macs(OTHER_ROUTER, UPLINK_MAC)),
        A,
    );
    let out = bed.one(A, &packet(a, client).udp(8080, 4000).payload(b"answer"));
    assert_eq!(macs(sent(&out, UPLINK)), (UPLINK_MAC, OTHER_ROUTER));
    assert_eq!(v4(&out.bytes).ttl(), 63);
}

#[test]
fn another_node_is_a_client_like_any() {
    let [a, ..] = FAMILIES[0];
    let mut bed = bed(SIDES[0], &[a]);
    let out = bed.one(UPLINK, &from_wire("192.0.2.2", "192.0.2.1").udp(4000, 80));
    assert_eq!(ends_of(sent(&out, A)).0, (ip("192.0.2.2"), 4000));
    let out = bed.one(A, &packet(a, "192.0.2.2").udp(8080, 4000));
    assert_eq!(
        ends_of(sent(&out, UPLINK)),
        ends(("192.0.2.1", 80), ("192.0.2.2", 4000))
    );
}

#[test]
fn nobody_outside_speaks_for_the_cluster() {
    for (side, [a, b, far, service]) in SIDES.into_iter().zip(FAMILIES) {
        let [_, node, _, weft0] = side;
        let gateway = if ip(node).is_ipv4() {
            "169.254.1.1"
        } else {
            "fe80::1"
        };
        let mut bed = bed(side, &[a]);
        for source in [b, far, service, node, weft0, gateway] {
            let out = bed.one(UPLINK, &from_wire(source, node).udp(4000, 80));
            assert_eq!(dropped(&out), DropReason::OutsideSource, "{source}");
        }
        let group = MacAddr([1, 0, 0x5e, 0, 0, 1]);
        let out = from_wire(side[0], node)
            .udp(4000, 80)
            .macs(group, UPLINK_MAC);
        assert_eq!(dropped(&bed.one(UPLINK, &out)), DropReason::SourceMac);
    }
}

#[test]
fn what_is_no_services_is_not_taken() {
    for (side, [a, ..]) in SIDES.into_iter().zip(FAMILIES) {
        let [client, node, address, _] = side;
        let mut bed = bed(side, &[a]);
        for to in [node, address] {
            for other in [
                from_wire(client, to).tcp(4000, 22).flags(TcpFlags::SYN),
                from_wire(client, to).udp(4000, 53),
                from_wire(client, to).echo_request(1, 1),
            ] {
                assert_eq!(
                    dropped(&bed.one(UPLINK, &other)),
                    DropReason::UnderlayUnexpected
                );
            }
        }
        let pod = from_wire(client, a).udp(4000, 8080);
        assert_eq!(
            dropped(&bed.one(UPLINK, &pod)),
            DropReason::UnderlayUnexpected
        );
        assert!(flows(&bed).is_empty());
    }
}

#[test]
fn where_nobody_answers_the_client_is_told_at_once() {
    for (side, _) in SIDES.into_iter().zip(FAMILIES) {
        let [client, node, ..] = side;
        let mut bed = bed(side, &[]);
        for (question, protocol) in [
            (
                from_wire(client, node).tcp(4000, 80).flags(TcpFlags::SYN),
                Protocol::TCP,
            ),
            (
                from_wire(client, node).udp(4000, 80).payload(b"question"),
                Protocol::UDP,
            ),
        ] {
            let ran = bed.run(&[(UPLINK, question.build())]);
            assert_eq!(dropped(&ran.packets[0]), DropReason::NoBackend);
            let frame = sent(&ran.born[0], UPLINK);
            assert_eq!(macs(frame), (UPLINK_MAC, ROUTER), "{protocol:?}");
            assert!(is_intact(frame));
            let layers = layers(frame);
            if protocol == Protocol::TCP {
                assert_eq!(ends_of(frame), ends((node, 80), (client, 4000)));
                let (tcp, _) = TcpHeader::parse(&frame[usize::from(layers.l4)..]).unwrap();
                assert_eq!(tcp.flags(), TcpFlags::RST | TcpFlags::ACK);
            } else {
                let unreachable = if ip(node).is_ipv4() { [3, 3] } else { [1, 4] };
                assert_eq!(frame[usize::from(layers.l4)..][..2], unreachable);
            }
        }
    }
}

#[test]
fn source_ranges_and_silent_refusal_hold_outside() {
    let [client, node, ..] = SIDES[0];
    let [a, ..] = FAMILIES[0];
    let mut bed = Testbed::new();
    change_frontends(&mut bed, SIDES[0], a, |frontend| {
        frontend.sources = Some(vec!["203.0.113.0/29".parse().unwrap()]);
    });
    let syn = |from| from_wire(from, node).tcp(4000, 80).flags(TcpFlags::SYN);
    assert_eq!(
        dropped(&bed.one(UPLINK, &syn(client))),
        DropReason::SourceRange
    );
    sent(&bed.one(UPLINK, &syn("203.0.113.2")), A);
    change_frontends(&mut bed, SIDES[0], a, |frontend| {
        frontend.backends.clear();
        frontend.drops = true;
    });
    assert_eq!(
        dropped(&bed.one(UPLINK, &syn(client))),
        DropReason::NoLocalBackend
    );
}

#[test]
fn policy_judges_the_client_itself() {
    let [client, node, ..] = SIDES[0];
    let [a, ..] = FAMILIES[0];
    let mut bed = bed(SIDES[0], &[a]);
    const KNOWN: u32 = 7;
    const POD: u32 = 8;
    bed.change(|builder| {
        let policy = builder.policy();
        policy.set_identity(KNOWN, Some(vec![KNOWN]));
        policy.set_identity(POD, Some(Vec::new()));
        policy.set_address("203.0.113.9/32".parse().unwrap(), Some(KNOWN));
        policy.set_address("10.1.1.10/32".parse().unwrap(), Some(POD));
        let known = Rule {
            tier: 0,
            peer: Some(KNOWN),
            protocol: None,
            ports: None,
            verdict: RuleVerdict::Allow,
            id: RuleId(1),
        };
        let rest = Rule {
            peer: None,
            verdict: RuleVerdict::Deny,
            ..known.clone()
        };
        policy.set_rules(POD, vec![known, rest], Vec::new());
    });
    let syn = |from| from_wire(from, node).tcp(4000, 80).flags(TcpFlags::SYN);
    sent(&bed.one(UPLINK, &syn(client)), A);
    let stranger = bed.one(UPLINK, &syn("203.0.113.10"));
    assert_eq!(dropped(&stranger), DropReason::PolicyIngress);
}

#[test]
fn a_large_packet_leaves_in_segments_of_the_clients_size() {
    for (side, [a, ..]) in SIDES.into_iter().zip(FAMILIES) {
        let [client, node, ..] = side;
        let mut bed = bed(side, &[a]);
        let open = from_wire(client, node).tcp(4000, 80).flags(TcpFlags::SYN);
        let out = bed.one(UPLINK, &open.mss(9000));
        let at = usize::from(layers(sent(&out, A)).l4);
        let ip_len = at - 14;
        let announced = tcp::mss(&out.bytes[at..]);
        assert_eq!(announced, Some((OUTSIDE_MTU as usize - ip_len - 20) as u16));
        let accept = packet(a, client)
            .tcp(8080, 4000)
            .flags(TcpFlags::SYN | TcpFlags::ACK);
        sent(&bed.one(A, &accept.mss(64_960)), UPLINK);
        let data = packet(a, client)
            .tcp(8080, 4000)
            .flags(TcpFlags::ACK)
            .payload_len(10_000);
        let ran = bed.run(&[(A, data.checksum(ChecksumField::Partial).build())]);
        assert_eq!(
            ran.in_order.len(),
            10_000_usize.div_ceil(OUTSIDE_MTU as usize - ip_len - 20)
        );
        for segment in &ran.in_order {
            let frame = sent(segment, UPLINK);
            assert!(is_intact(frame) && frame.len() <= 14 + OUTSIDE_MTU as usize);
            assert_eq!(macs(frame), (UPLINK_MAC, ROUTER));
            assert_eq!(ends_of(frame), ends((node, 80), (client, 4000)));
        }
    }
}

#[test]
fn fragments_follow_their_first_one_in_and_out() {
    for (side, [a, ..]) in SIDES.into_iter().zip(FAMILIES) {
        let [client, node, address, _] = side;
        let mut bed = bed(side, &[a]);
        for (to, port) in [(node, 4001), (address, 4000)] {
            let question = from_wire(client, to).udp(port, 80).payload_len(3000);
            let question = question.identification(7).build_fragments(1500);
            for fragment in question {
                let out = bed.bytes(UPLINK, fragment);
                assert_eq!(addresses(sent(&out, A)), (ip(client), ip(a)));
            }
        }
        let answer = packet(a, client).udp(8080, 4000).payload_len(3000);
        for (identification, reversed) in [(8, false), (9, true)] {
            let mut answer = answer
                .clone()
                .identification(identification)
                .build_fragments(1500);
            if reversed {
                answer.reverse();
            }
            let count = answer.len();
            let ran = bed.run(&answer.into_iter().map(|it| (A, it)).collect::<Vec<_>>());
            let out = ran
                .in_order
                .iter()
                .filter(|it| it.verdict != Verdict::Consumed);
            let out: Vec<_> = out.map(|it| sent(it, UPLINK)).collect();
            assert_eq!(out.len(), count);
            for frame in out {
                assert_eq!(addresses(frame), (ip(address), ip(client)));
                assert_eq!(macs(frame), (UPLINK_MAC, ROUTER));
            }
        }
        // To a port where no service is.
        let question = from_wire(client, node).udp(4000, 81).payload_len(3000);
        let first = question.build_fragments(1500).remove(0);
        let out = bed.bytes(UPLINK, first);
        assert_eq!(dropped(&out), DropReason::UnderlayUnexpected);
    }
}

/// An error of `from` about `about`, a frame: nobody listens.
pub fn unreachable(packet: build::Packet, about: &[u8]) -> build::Packet {
    let kind = if about[12..14] == [8, 0] {
        (3, 3)
    } else {
        (1, 4)
    };
    packet.icmp(kind.0, kind.1, 0).payload(&about[14..])
}

#[test]
fn errors_find_the_pod_and_the_client() {
    for (side, [a, _, far, _]) in SIDES.into_iter().zip(FAMILIES) {
        let [client, node, _, weft0] = side;
        let router = if ip(node).is_ipv4() {
            "198.51.100.77"
        } else {
            "2001:db8:77::1"
        };
        let bed_of = |backend, back: &dyn Fn(&mut Testbed) -> (Vec<u8>, u16)| {
            let mut bed = bed(side, &[backend]);
            let (answer, port) = back(&mut bed);
            let error = unreachable(from_wire(router, node), &answer);
            (bed.one(UPLINK, &error), port, bed)
        };
        let question = from_wire(client, node).udp(4000, 80).payload(b"question");
        let (out, _, mut of_a) = bed_of(a, &|bed| {
            sent(&bed.one(UPLINK, &question), A);
            let answer = bed.one(A, &packet(a, client).udp(8080, 4000).payload(b"answer"));
            (sent(&answer, UPLINK).to_vec(), 4000)
        });
        assert_eq!(addresses(sent(&out, A)), (ip(router), ip(a)));
        assert!(is_intact(&out.bytes));
        let went = from_wire(client, a)
            .udp(4000, 8080)
            .payload(b"question")
            .build();
        let out = of_a.one(A, &unreachable(packet(a, client), &went));
        assert_eq!(addresses(sent(&out, UPLINK)), (ip(node), ip(client)));
        assert_eq!(macs(&out.bytes), (UPLINK_MAC, ROUTER));
        assert!(is_intact(&out.bytes));
        // Another node takes nothing from here that has a router's address.
        let (out, ..) = bed_of(far, &|bed| {
            let out = bed.one(UPLINK, &question);
            let ((_, port), _) = ends_of(inner(sent(&out, UPLINK)));
            let answer = packet(far, weft0).udp(8080, port).payload(b"answer");
            let answer = bed.one(UPLINK, &from_four(&answer));
            (sent(&answer, UPLINK).to_vec(), port)
        });
        let frame = inner(sent(&out, UPLINK));
        assert_eq!(addresses(frame), (ip(weft0), ip(far)));
        assert!(is_intact(frame));
        // About what the service never sent.
        let never = from_wire(node, client).udp(80, 4001).build();
        let out = of_a.one(UPLINK, &unreachable(from_wire(router, node), &never));
        assert_eq!(dropped(&out), DropReason::UnderlayUnexpected);
    }
}

#[test]
fn both_ends_hear_when_the_backend_is_gone() {
    for (side, [a, b, ..]) in SIDES.into_iter().zip(FAMILIES) {
        let [client, node, ..] = side;
        for by_client in [true, false] {
            let mut bed = bed(side, &[a, b]);
            let to = bed.one(
                UPLINK,
                &from_wire(client, node).tcp(4000, 80).flags(TcpFlags::SYN),
            );
            let (port, gone, stays) = match to.verdict {
                Verdict::Tx(A) => (A, a, b),
                _ => (B, b, a),
            };
            set(&mut bed, &spec(&[any_of_node(node)], &[stays]));
            let data = match by_client {
                true => (UPLINK, from_wire(client, node).tcp(4000, 80)),
                false => (port, packet(gone, client).tcp(8080, 4000)),
            };
            let ran = bed.run(&[(data.0, data.1.flags(TcpFlags::ACK).payload(b"abc").build())]);
            assert_eq!(dropped(&ran.packets[0]), DropReason::BackendGone);
            let to_client = ran
                .born
                .iter()
                .find(|it| it.verdict == Verdict::Tx(UPLINK))
                .unwrap();
            assert_eq!(macs(&to_client.bytes), (UPLINK_MAC, ROUTER));
            assert_eq!(ends_of(&to_client.bytes), ends((node, 80), (client, 4000)));
            assert!(ran.born.iter().any(|it| it.verdict == Verdict::Tx(port)));
        }
    }
}
