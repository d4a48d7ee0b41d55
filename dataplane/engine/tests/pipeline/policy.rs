//! Which connections are let be, and what becomes of those that no longer are.

use weft_engine::table::flow::Tick;
use weft_engine::testbed::*;
use weft_engine::{
    DropReason, PolicyBuilder, PortId, Rule, RuleId, RuleVerdict, Verdict, table::flow::State,
};
use weft_wire::{Protocol, TcpFlags, TcpHeader, build};

use crate::{dropped, is_intact, layers, sent};

const OF_A: u32 = 10;
const OF_B: u32 = 11;
const OF_FOUR: u32 = 20;

/// Selectors that match pod A, pod B and the pods of remote four.
const NAMES_A: u32 = 1;
const NAMES_B: u32 = 2;
const NAMES_FOUR: u32 = 3;

const ALLOWS: RuleId = RuleId(5);
const DENIES: RuleId = RuleId(6);

/// After this a packet of no known connection is no reply any more.
const PICKED_UP_FOR_NS: u64 = 600_000_000_000;

/// Addresses of A, B and a pod of remote four.
const FAMILIES: [[&str; 3]; 2] = [
    ["10.1.1.10", "10.1.1.11", "10.1.2.5"],
    ["fd00:1:1::10", "fd00:1:1::11", "fd00:1:2::5"],
];

/// A, B and remote four's pods known apart, without rules.
fn bed() -> Testbed {
    let mut bed = Testbed::new();
    change(&mut bed, |policy| {
        for (number, selector) in [(OF_A, NAMES_A), (OF_B, NAMES_B), (OF_FOUR, NAMES_FOUR)] {
            policy.set_identity(number, Some(vec![selector]));
        }
        for (prefix, number) in [
            ("10.1.1.10/32", OF_A),
            ("fd00:1:1::10/128", OF_A),
            ("10.1.1.11/32", OF_B),
            ("fd00:1:1::11/128", OF_B),
            ("10.1.2.0/24", OF_FOUR),
            ("fd00:1:2::/64", OF_FOUR),
        ] {
            policy.set_address(prefix.parse().unwrap(), Some(number));
        }
        policy.set_rules(OF_A, vec![], vec![]);
        policy.set_rules(OF_B, vec![], vec![]);
    });
    bed
}

fn change(bed: &mut Testbed, change: impl FnOnce(&mut PolicyBuilder)) {
    bed.change(|builder| change(builder.policy()));
}

fn allow(peer: u32, protocol: Protocol, port: u16) -> Rule {
    Rule {
        tier: 1,
        peer: Some(peer),
        protocol: Some(protocol.0),
        ports: Some((port, port)),
        verdict: RuleVerdict::Allow,
        id: ALLOWS,
    }
}

fn deny_rest() -> Rule {
    Rule {
        tier: 1,
        peer: None,
        protocol: None,
        ports: None,
        verdict: RuleVerdict::Deny,
        id: DENIES,
    }
}

fn flows(bed: &Testbed) -> Vec<weft_engine::FlowInfo> {
    let now = Tick::of_ns(bed.now_ns);
    bed.pipeline.flows().iter(now).collect()
}

fn counted(bed: &Testbed, rule: RuleId) -> (u64, u64) {
    bed.pipeline.policy_counters().of(rule)
}

fn with_ports(packet: build::Packet, protocol: Protocol, ports: (u16, u16)) -> build::Packet {
    match protocol {
        Protocol::TCP => packet.tcp(ports.0, ports.1).flags(TcpFlags::SYN),
        Protocol::UDP => packet.udp(ports.0, ports.1),
        _ => packet
            .sctp(ports.0, ports.1, 0)
            .payload(&[1, 0, 0, 20, 0, 0, 0, 9, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0]),
    }
}

#[test]
fn the_receivers_policy_decides_by_peer_protocol_and_port() {
    for [a, b, _] in FAMILIES {
        for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP] {
            let mut bed = bed();
            let rules = vec![allow(NAMES_A, protocol, 80), deny_rest()];
            change(&mut bed, |policy| policy.set_rules(OF_B, rules, vec![]));
            let to = |port| with_ports(packet(a, b), protocol, (4000, port));
            sent(&bed.one(A, &to(80)), B);
            assert_eq!(dropped(&bed.one(A, &to(81))), DropReason::PolicyIngress);
            assert_eq!(flows(&bed).len(), 1, "what is denied takes no room");
            assert_eq!(counted(&bed, ALLOWS), (1, 0));
            assert_eq!(counted(&bed, DENIES), (0, 1));
            let rules = vec![allow(NAMES_FOUR, protocol, 80), deny_rest()];
            change(&mut bed, |policy| policy.set_rules(OF_B, rules, vec![]));
            let other = with_ports(packet(a, b), protocol, (4001, 80));
            assert_eq!(dropped(&bed.one(A, &other)), DropReason::PolicyIngress);
        }
    }
}

#[test]
fn the_senders_policy_decides_also_about_what_leaves_the_node() {
    for [a, b, far] in FAMILIES {
        let mut bed = bed();
        let rules = vec![allow(NAMES_FOUR, Protocol::UDP, 53), deny_rest()];
        change(&mut bed, |policy| policy.set_rules(OF_A, vec![], rules));
        sent(&bed.one(A, &packet(a, far).udp(9, 53)), UPLINK);
        for (to, port) in [(far, 54), (b, 53)] {
            let out = bed.one(A, &packet(a, to).udp(9, port));
            assert_eq!(dropped(&out), DropReason::PolicyEgress, "{to}");
        }
    }
    let mut bed = bed();
    change(&mut bed, |policy| {
        policy.set_rules(OF_A, vec![], vec![deny_rest()]);
    });
    for outside in ["198.51.100.7", "192.0.2.1", "192.0.2.2"] {
        let out = bed.one(A, &packet("10.1.1.10", outside).udp(9, 53));
        assert_eq!(dropped(&out), DropReason::PolicyEgress, "{outside}");
    }
}

#[test]
fn what_comes_through_the_tunnel_meets_the_receivers_policy() {
    for [_, b, far] in FAMILIES {
        let mut bed = bed();
        let rules = vec![allow(NAMES_FOUR, Protocol::UDP, 53), deny_rest()];
        change(&mut bed, |policy| policy.set_rules(OF_B, rules, vec![]));
        let from_far = |port| from_four(&packet(far, b).udp(9, port));
        sent(&bed.one(UPLINK, &from_far(53)), B);
        let out = bed.one(UPLINK, &from_far(54));
        assert_eq!(dropped(&out), DropReason::PolicyIngress);
    }
}

#[test]
fn replies_and_errors_of_allowed_connections_pass() {
    for [a, b, _] in FAMILIES {
        let mut bed = bed();
        change(&mut bed, |policy| {
            policy.set_rules(OF_A, vec![deny_rest()], vec![]);
            policy.set_rules(OF_B, vec![], vec![deny_rest()]);
        });
        let there = packet(a, b).udp(9, 53);
        sent(&bed.one(A, &there), B);
        sent(&bed.one(B, &packet(b, a).udp(53, 9)), A);
        let kind = if a.contains(':') { (1, 4) } else { (3, 3) };
        let quoting = |quoted: &build::Packet| {
            let error = packet(b, a).icmp(kind.0, kind.1, 0);
            error.payload(&quoted.build()[14..])
        };
        sent(&bed.one(B, &quoting(&there)), A);
        let unknown = bed.one(B, &quoting(&packet(a, b).udp(9, 54)));
        assert_eq!(dropped(&unknown), DropReason::PolicyEgress);
        assert_eq!(
            dropped(&bed.one(B, &packet(b, a).udp(53, 10))),
            DropReason::PolicyEgress
        );
    }
}

#[test]
fn pings_are_decided_by_protocol_alone() {
    let mut bed = bed();
    let rule = Rule {
        ports: None,
        ..allow(NAMES_A, Protocol::ICMP, 0)
    };
    let rules = vec![rule, deny_rest()];
    change(&mut bed, |policy| policy.set_rules(OF_B, rules, vec![]));
    let ping = |from: &str| packet(from, "10.1.1.11").echo_request(7, 1);
    sent(&bed.one(A, &ping("10.1.1.10")), B);
    let out = bed.one(UPLINK, &from_four(&ping("10.1.2.5")));
    assert_eq!(dropped(&out), DropReason::PolicyIngress);
}

#[test]
fn the_node_reaches_its_own_pods_and_what_it_forwards_does_not() {
    let mut bed = bed();
    change(&mut bed, |policy| {
        policy.set_rules(OF_B, vec![deny_rest()], vec![]);
    });
    for (own, b) in [
        ("192.0.2.1", "10.1.1.11"),
        ("10.1.1.254", "10.1.1.11"),
        ("2001:db8::1", "fd00:1:1::11"),
        ("fd00:1:1::fe", "fd00:1:1::11"),
    ] {
        sent(&bed.one(NODE, &packet(own, b).udp(9, 53)), B);
        sent(&bed.one(B, &packet(b, own).udp(53, 9)), NODE);
    }
    for (foreign, b) in [
        ("198.51.100.7", "10.1.1.11"),
        // Another node, whose packets came to the stack by some other way.
        ("192.0.2.2", "10.1.1.11"),
        ("2001:db8::77", "fd00:1:1::11"),
    ] {
        let out = bed.one(NODE, &packet(foreign, b).udp(9, 53));
        assert_eq!(dropped(&out), DropReason::PolicyIngress, "{foreign}");
    }
}

#[test]
fn later_fragments_do_as_their_first() {
    for [a, b, _] in FAMILIES {
        for (port, allowed) in [(53, true), (54, false)] {
            for early in [false, true] {
                let mut bed = bed();
                let rules = vec![allow(NAMES_A, Protocol::UDP, 53), deny_rest()];
                change(&mut bed, |policy| policy.set_rules(OF_B, rules, vec![]));
                let whole = packet(a, b).udp(9, port).payload_len(3000);
                let mut fragments = whole.build_fragments(1280);
                if early {
                    fragments.reverse();
                }
                let input: Vec<_> = fragments.into_iter().map(|it| (A, it)).collect();
                let ran = bed.run(&input);
                let ends: Vec<Verdict> = ran.in_order.iter().map(|it| it.verdict).collect();
                let end = match allowed {
                    true => Verdict::Tx(B),
                    false => Verdict::Drop(DropReason::PolicyIngress),
                };
                let so = ends.iter().filter(|it| **it == end).count();
                assert_eq!(so, 3, "{ends:?}");
            }
        }
    }
}

#[test]
fn a_pod_without_policy_is_cut_off() {
    for without in [OF_A, OF_B] {
        for unknown in [false, true] {
            let mut bed = bed();
            sent(&bed.one(A, &packet("10.1.1.10", "10.1.1.11").udp(1, 2)), B);
            change(&mut bed, |policy| match unknown {
                true => policy.set_identity(without, None),
                false => policy.remove_rules(without),
            });
            for source in [1, 3] {
                let out = bed.one(A, &packet("10.1.1.10", "10.1.1.11").udp(source, 2));
                let reason = match source {
                    1 => DropReason::PolicyRevoked,
                    _ => DropReason::NoPolicy,
                };
                assert_eq!(dropped(&out), reason);
            }
        }
    }
    let mut bed = bed();
    change(&mut bed, |policy| policy.remove_rules(OF_B));
    let from_node = packet("192.0.2.1", "10.1.1.11").udp(1, 2);
    sent(&bed.one(NODE, &from_node), B);
}

#[test]
fn a_connection_to_nobody_meets_the_policy_of_the_pod_that_takes_the_address() {
    let mut bed = bed();
    let b = bed.tables.port(B).unwrap().clone();
    change(&mut bed, |policy| {
        policy.set_rules(OF_B, vec![deny_rest()], vec![]);
    });
    bed.change(|builder| builder.remove_port(B));
    let knock = packet(FAMILIES[0][0], FAMILIES[0][1]).udp(4000, 7);
    let ran = bed.run(&[(A, knock.build())]);
    assert_eq!(dropped(&ran.packets[0]), DropReason::NoEndpoint);
    bed.change(|builder| builder.set_port(b).unwrap());
    assert_eq!(dropped(&bed.one(A, &knock)), DropReason::PolicyRevoked);
    assert_eq!(dropped(&bed.one(A, &knock)), DropReason::PolicyIngress);
}

#[test]
fn packets_of_one_batch_begin_one_connection() {
    let mut bed = bed();
    let packets = [1, 2, 3].map(|len| {
        let datagram = packet("10.1.1.10", "10.1.1.11").udp(9, 53);
        (A, datagram.payload_len(len).build())
    });
    let ran = bed.run(&packets);
    assert!(ran.packets.iter().all(|it| it.verdict == Verdict::Tx(B)));
    assert_eq!((flows(&bed).len(), flows(&bed)[0].packets), (1, [3, 0]));
    assert_eq!(bed.pipeline.counters().flows.new, 1);
}

#[test]
fn fragments_and_whole_packets_of_one_batch_begin_one_connection() {
    let [a, b, _] = FAMILIES[0];
    let whole = packet(a, b).udp(9, 53).payload_len(2000);
    let first = whole.build_fragments(1280).remove(0);
    for fragment_first in [true, false] {
        let mut bed = bed();
        let mut packets = vec![(A, first.clone()), (A, packet(a, b).udp(9, 53).build())];
        if !fragment_first {
            packets.reverse();
        }
        bed.run(&packets);
        assert_eq!((flows(&bed).len(), flows(&bed)[0].packets), (1, [2, 0]));
        bed.now_ns += 2_000_000_000;
        bed.expire();
    }
}

#[test]
fn a_table_change_that_is_no_policy_decides_nothing_anew() {
    let mut bed = bed();
    let before = bed.tables.policy().epoch();
    bed.change_port(B, |port| port.mtu = 9000);
    assert_eq!(bed.tables.policy().epoch(), before);
    change(&mut bed, |policy| {
        policy.set_rules(OF_B, vec![deny_rest()], vec![]);
    });
    assert_ne!(bed.tables.policy().epoch(), before);
}

/// A segment of the connection from A's port 4000 to port 80.
fn segment(from: &str, to: &str, back: bool, numbers: (u32, u32)) -> build::Packet {
    let ports = if back { (80, 4000) } else { (4000, 80) };
    packet(from, to)
        .tcp(ports.0, ports.1)
        .flags(TcpFlags::ACK | TcpFlags::PSH)
        .sequence(numbers.0, numbers.1)
}

/// Opens it; A's next byte is 1001, the other side's 5001. `far` is where the other side is.
fn open(bed: &mut Testbed, a: &str, b: &str, far: PortId) {
    let wrap = |packet: build::Packet| {
        if far == UPLINK {
            from_four(&packet)
        } else {
            packet
        }
    };
    let syn = packet(a, b).tcp(4000, 80).flags(TcpFlags::SYN);
    sent(&bed.one(A, &syn.sequence(1000, 0)), far);
    let answer = packet(b, a)
        .tcp(80, 4000)
        .flags(TcpFlags::SYN | TcpFlags::ACK);
    sent(&bed.one(far, &wrap(answer.sequence(5000, 1001))), A);
    sent(&bed.one(A, &segment(a, b, false, (1001, 5001))), far);
    assert_eq!(flows(bed)[0].state, State::TcpEstablished);
}

/// Addresses, ports, sequence and acknowledgement of a reset.
fn reset(frame: &[u8]) -> ((u16, u16), u32, u32) {
    assert!(is_intact(frame));
    let (tcp, _) = TcpHeader::parse(&frame[usize::from(layers(frame).l4)..]).unwrap();
    assert_eq!(tcp.flags(), TcpFlags::RST | TcpFlags::ACK);
    let ports = (tcp.source_port(), tcp.destination_port());
    (ports, tcp.sequence(), tcp.acknowledgement())
}

#[test]
fn a_connection_that_may_no_longer_be_is_reset_at_both_ends() {
    for [a, b, _] in FAMILIES {
        for back in [false, true] {
            let mut bed = bed();
            open(&mut bed, a, b, B);
            change(&mut bed, |policy| {
                policy.set_rules(OF_B, vec![deny_rest()], vec![]);
            });
            let (from, to, port, numbers) = match back {
                false => (a, b, A, (1001, 5001)),
                true => (b, a, B, (5001, 1001)),
            };
            let data = segment(from, to, back, numbers).payload_len(7);
            let ran = bed.run(&[(port, data.build())]);
            assert_eq!(dropped(&ran.packets[0]), DropReason::PolicyRevoked);
            let to = |port| ran.born.iter().find(|it| it.verdict == Verdict::Tx(port));
            let (of_a, of_b) = (to(A).unwrap(), to(B).unwrap());
            let (next_of_a, next_of_b) = match back {
                false => (1008, 5001),
                true => (1001, 5008),
            };
            // Each expects the other's next byte; the segment's own did not arrive.
            assert_eq!(reset(&of_a.bytes), ((80, 4000), 5001, next_of_a));
            assert_eq!(reset(&of_b.bytes), ((4000, 80), 1001, next_of_b));
            assert_eq!(ran.born.len(), 2);
            assert!(flows(&bed).is_empty());
            assert_eq!(counted(&bed, DENIES), (0, 1));
            bed.now_ns += PICKED_UP_FOR_NS;
            let late = bed.one(A, &segment(a, b, false, (1008, 5001)));
            assert_eq!(dropped(&late), DropReason::PolicyIngress, "once is enough");
        }
    }
}

#[test]
fn the_reset_goes_through_the_tunnel_to_a_far_end() {
    for [a, _, far] in FAMILIES {
        let mut bed = bed();
        open(&mut bed, a, far, UPLINK);
        change(&mut bed, |policy| {
            policy.set_rules(OF_A, vec![], vec![deny_rest()]);
        });
        // The decision is that of the original direction, though this is a reply.
        let reply = segment(far, a, true, (5001, 1001)).payload_len(3);
        let ran = bed.run(&[(UPLINK, from_four(&reply).build())]);
        assert_eq!(dropped(&ran.packets[0]), DropReason::PolicyRevoked);
        let to = |port| ran.born.iter().find(|it| it.verdict == Verdict::Tx(port));
        let tunnelled = &to(UPLINK).unwrap().bytes[50..];
        assert_eq!(reset(tunnelled), ((4000, 80), 1001, 5004));
        assert_eq!(reset(&to(A).unwrap().bytes), ((80, 4000), 5001, 1001));
    }
}

#[test]
fn a_connection_that_may_still_be_goes_on() {
    let [a, b, _] = FAMILIES[0];
    let mut bed = bed();
    open(&mut bed, a, b, B);
    let rules = vec![allow(NAMES_A, Protocol::TCP, 80), deny_rest()];
    change(&mut bed, |policy| {
        policy.set_rules(OF_B, rules, vec![deny_rest()]);
    });
    sent(&bed.one(B, &segment(b, a, true, (5001, 1001))), A);
    sent(&bed.one(A, &segment(a, b, false, (1001, 5001))), B);
    assert_eq!(counted(&bed, ALLOWS), (0, 0), "it is no new connection");
}

#[test]
fn a_datagram_that_may_no_longer_be_is_dropped_without_a_word() {
    let [a, b, _] = FAMILIES[0];
    let mut bed = bed();
    sent(&bed.one(A, &packet(a, b).udp(9, 53)), B);
    change(&mut bed, |policy| {
        policy.set_rules(OF_B, vec![deny_rest()], vec![]);
    });
    let out = bed.one(A, &packet(a, b).udp(9, 53));
    assert_eq!(dropped(&out), DropReason::PolicyRevoked);
    let out = bed.one(A, &packet(a, b).udp(9, 53));
    assert_eq!(dropped(&out), DropReason::PolicyIngress);
}

/// A may connect to B, and B to nobody.
fn one_way() -> Testbed {
    let mut bed = bed();
    change(&mut bed, |policy| {
        policy.set_rules(OF_A, vec![deny_rest()], vec![]);
        policy.set_rules(
            OF_B,
            vec![allow(NAMES_A, Protocol::TCP, 80), deny_rest()],
            vec![deny_rest()],
        );
    });
    bed
}

#[test]
fn a_connection_begun_before_we_looked_goes_on_whoever_speaks_first() {
    for [a, b, _] in FAMILIES {
        let mut bed = one_way();
        sent(&bed.one(B, &segment(b, a, true, (5001, 1001))), A);
        sent(&bed.one(A, &segment(a, b, false, (1001, 5001))), B);
        // Another version of the policies, under which it may still be.
        change(&mut bed, |policy| policy.set_identity(99, Some(vec![])));
        sent(&bed.one(B, &segment(b, a, true, (5001, 1001))), A);
        change(&mut bed, |policy| policy.remove_rules(OF_B));
        let ran = bed.run(&[(B, segment(b, a, true, (5001, 1001)).build())]);
        assert_eq!(dropped(&ran.packets[0]), DropReason::PolicyRevoked);
    }
}

#[test]
fn a_connection_picked_up_from_its_reply_ends_with_the_policy_that_allowed_it() {
    let [a, b, _] = FAMILIES[0];
    let mut bed = one_way();
    sent(&bed.one(B, &segment(b, a, true, (5001, 1001))), A);
    // The direction of the packet that was seen first is allowed now, that of the connection is not.
    change(&mut bed, |policy| {
        policy.set_rules(OF_A, vec![], vec![]);
        policy.set_rules(OF_B, vec![deny_rest()], vec![]);
    });
    let ran = bed.run(&[(A, segment(a, b, false, (1001, 5001)).build())]);
    assert_eq!(dropped(&ran.packets[0]), DropReason::PolicyRevoked);
}

#[test]
fn when_all_connections_were_heard_nothing_is_taken_for_a_reply() {
    let [a, b, _] = FAMILIES[0];
    let mut bed = one_way();
    sent(&bed.one(B, &segment(b, a, true, (5001, 1001))), A);
    bed.now_ns += PICKED_UP_FOR_NS;
    let other = packet(b, a).tcp(80, 4001).flags(TcpFlags::ACK);
    assert_eq!(dropped(&bed.one(B, &other)), DropReason::PolicyEgress);
    let known = packet(b, a).tcp(80, 4000).flags(TcpFlags::ACK);
    assert_eq!(
        dropped(&bed.one(B, &known)),
        DropReason::PolicyEgress,
        "silent too long"
    );
    sent(&bed.one(A, &segment(a, b, false, (1001, 5001))), B);
    sent(&bed.one(B, &known), A);
}

#[test]
fn nobody_opens_a_connection_by_a_segment_that_looks_like_a_reply() {
    for [a, b, _] in FAMILIES {
        let mut bed = one_way();
        let open = |flags| packet(b, a).tcp(80, 4000).flags(flags).sequence(7000, 0);
        assert_eq!(
            dropped(&bed.one(B, &open(TcpFlags::SYN))),
            DropReason::PolicyEgress
        );
        sent(&bed.one(B, &segment(b, a, true, (5001, 1001))), A);
        for flags in [TcpFlags::SYN, TcpFlags::SYN | TcpFlags::FIN] {
            let out = bed.one(B, &open(flags));
            assert_eq!(dropped(&out), DropReason::PolicyEgress, "{flags:?}");
        }
        // From a port that A may not connect to.
        let other = packet(b, a).tcp(81, 4000).flags(TcpFlags::ACK);
        assert_eq!(dropped(&bed.one(B, &other)), DropReason::PolicyEgress);
        // A's own attempt is as good as ever.
        let syn = packet(a, b).tcp(4000, 80).flags(TcpFlags::SYN);
        sent(&bed.one(A, &syn), B);
    }
}
