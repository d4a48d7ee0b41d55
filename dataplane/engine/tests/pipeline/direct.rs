//! Direct server return: clients outside are answered by the pods of other nodes themselves.

use weft_engine::testbed::*;
use weft_engine::{DropReason, Verdict};
use weft_wire::{TcpFlags, build, tcp};

use crate::outside::{SIDES, any_of_node, bed, cases, from_wire, spec, unreachable};
use crate::service::{FAMILIES, ends, ends_of, flows, inner, set, with_ports};
use crate::service_errors::addresses;
use crate::{dropped, is_intact, layers, sent};

/// The one address the testbed knows of remote four.
const OF_FOUR: &str = "192.0.2.2";

/// The service, whose other nodes' pods answer clients themselves.
fn direct_bed(side: [&str; 4], backends: &[&str]) -> Testbed {
    let mut bed = Testbed::new();
    set_direct(&mut bed, side, backends);
    bed
}

fn set_direct(bed: &mut Testbed, side: [&str; 4], backends: &[&str]) {
    let [_, node, address, _] = side;
    let mut spec = spec(&[any_of_node(node), address], backends);
    spec.frontends.iter_mut().for_each(|it| it.direct = true);
    set(bed, &spec);
}

#[test]
fn a_client_of_a_direct_service_crosses_the_tunnel_as_it_came() {
    for (side, [_, _, far, _], protocol) in cases() {
        let [client, node, address, _] = side;
        for to in [node, address] {
            let mut bed = direct_bed(side, &[far]);
            let there = with_ports(from_wire(client, to), protocol, (4000, 80));
            for _ in 0..3 {
                let out = bed.one(UPLINK, &there);
                let frame = inner(sent(&out, UPLINK));
                assert_eq!(ends_of(frame), ends((client, 4000), (to, 80)));
                assert!(is_intact(frame), "{protocol:?}");
            }
            assert_eq!(flows(&bed).len(), 1);
            // It stays with its node when others come, and the choice would be another one.
            set_direct(&mut bed, side, &[far, "10.1.3.5", "10.1.3.6", "10.1.3.7"]);
            let out = bed.one(UPLINK, &there);
            assert_eq!(
                ends_of(inner(sent(&out, UPLINK))).0,
                ends((client, 4000), (to, 80)).0
            );
        }
    }
}

#[test]
fn what_another_node_hands_on_is_answered_from_here() {
    for (side, [a, b, far, _], protocol) in cases() {
        let [client, _, address, _] = side;
        let of_four = ip(client).is_ipv4().then_some(OF_FOUR);
        for to in of_four.into_iter().chain([address]) {
            let mut bed = direct_bed(side, &[far, a]);
            let there = with_ports(packet(client, to), protocol, (4000, 80));
            let out = bed.one(UPLINK, &from_four(&there));
            let frame = sent(&out, A);
            assert_eq!(ends_of(frame), ends((client, 4000), (a, 8080)));
            assert!(is_intact(frame), "{protocol:?}");
            let back = with_ports(packet(a, client), protocol, (8080, 4000));
            let out = bed.one(A, &back);
            assert_eq!(ends_of(sent(&out, NODE)), ends((to, 80), (client, 4000)));
            // Another pod beside it, and one that goes.
            set_direct(&mut bed, side, &[far, a, b]);
            let out = bed.one(UPLINK, &from_four(&there));
            assert_eq!(ends_of(sent(&out, A)).1, (ip(a), 8080));
        }
    }
}

#[test]
fn another_node_hands_on_clients_of_direct_services_alone() {
    for (side, [a, b, ..], protocol) in cases() {
        let [client, node, address, weft0] = side;
        for source in [a, b, node, weft0] {
            let mut bed = direct_bed(side, &[a]);
            let packet = with_ports(packet(source, address), protocol, (4000, 80));
            let out = bed.one(UPLINK, &from_four(&packet));
            assert_eq!(dropped(&out), DropReason::InnerSource, "{source}");
        }
        let there = with_ports(packet(client, address), protocol, (4000, 80));
        let out = bed(side, &[a]).one(UPLINK, &from_four(&there));
        assert_eq!(
            dropped(&out),
            DropReason::InnerSource,
            "the service is not direct"
        );
        let elsewhere = with_ports(packet(client, a), protocol, (4000, 8080));
        let out = direct_bed(side, &[a]).one(UPLINK, &from_four(&elsewhere));
        assert_eq!(dropped(&out), DropReason::InnerSource, "to the pod itself");
    }
}

#[test]
fn segments_of_a_direct_services_clients_fit_the_tunnel() {
    for (side, [a, ..]) in SIDES.into_iter().zip(FAMILIES) {
        let [client, _, address, _] = side;
        let mut bed = direct_bed(side, &[a]);
        let syn = |from: &str, to: &str, ports: (u16, u16), flags| {
            let there = packet(from, to).tcp(ports.0, ports.1);
            there.flags(flags).mss(65_000)
        };
        let there = syn(client, address, (4000, 80), TcpFlags::SYN);
        sent(&bed.one(UPLINK, &from_four(&there)), A);
        let back = syn(a, client, (8080, 4000), TcpFlags::SYN | TcpFlags::ACK);
        let out = bed.one(A, &back);
        let frame = sent(&out, NODE);
        let mss = tcp::mss(&frame[usize::from(layers(frame).l4)..]).unwrap();
        assert!(mss < 1_450, "{client}: {mss}");
    }
}

/// A frame of a router outside as it tells `to` that what `about` holds did not arrive.
fn error(from: &str, to: &str, about: &build::Packet) -> build::Packet {
    unreachable(packet(from, to), &about.clone().build())
}

const ROUTERS: [&str; 2] = ["198.51.100.77", "2001:db8:77::1"];

#[test]
fn fragments_of_a_direct_services_clients_cross_the_tunnel_together() {
    for (side, [a, _, far, _]) in SIDES.into_iter().zip(FAMILIES) {
        let [client, node, address, _] = side;
        let datagram = |from: build::Packet| {
            let whole = from.udp(4000, 80).identification(7).payload_len(2_000);
            whole.dont_fragment(false).build_fragments(1_000)
        };
        let mut bed = direct_bed(side, &[far]);
        // Also once the way of the connection is known, and when the first comes last.
        let orders = [[0, 1, 2], [0, 1, 2], [2, 1, 0]];
        for (to, order) in [node, address]
            .into_iter()
            .flat_map(|to| orders.map(|it| (to, it)))
        {
            let pieces = datagram(from_wire(client, to));
            assert_eq!(pieces.len(), 3);
            let ran = bed.run(&order.map(|at: usize| (UPLINK, pieces[at].clone())));
            let outputs = ran.packets.iter().chain(&ran.born);
            let tunnelled = outputs.filter(|it| it.verdict == Verdict::Tx(UPLINK));
            let there: Vec<_> = tunnelled.map(|it| addresses(inner(&it.bytes))).collect();
            assert_eq!(there, [(ip(client), ip(to)); 3], "{order:?}");
        }
        // There, in the other order too.
        let mut bed = direct_bed(side, &[a]);
        let of_four = ip(client).is_ipv4().then_some(OF_FOUR);
        let to = of_four.into_iter().chain([address]);
        for (to, order) in to.flat_map(|to| [[0, 1, 2], [2, 1, 0]].map(|it| (to, it))) {
            let pieces = datagram(packet(client, to));
            let ran = bed.run(&order.map(|at: usize| (UPLINK, from_four_bytes(&pieces[at]))));
            let outputs = ran.packets.iter().chain(&ran.born);
            let frames: Vec<_> = outputs.filter(|it| it.verdict == Verdict::Tx(A)).collect();
            assert_eq!(frames.len(), 3, "{order:?}");
            for frame in frames {
                assert_eq!(addresses(&frame.bytes), (ip(client), ip(a)));
            }
        }
    }
}

#[test]
fn another_node_hands_on_no_fragments_to_other_services() {
    for (side, [a, ..]) in SIDES.into_iter().zip(FAMILIES) {
        let [client, _, address, _] = side;
        let whole = packet(client, address).udp(4000, 80).payload_len(2_000);
        let later = whole.dont_fragment(false).build_fragments(1_000).remove(1);
        let out = bed(side, &[a]).bytes(UPLINK, from_four_bytes(&later));
        assert_eq!(dropped(&out), DropReason::InnerSource);
    }
}

#[test]
fn errors_about_replies_find_the_pod_on_the_other_node() {
    for ((side, [a, _, far, _]), router) in SIDES.into_iter().zip(FAMILIES).zip(ROUTERS) {
        let [client, _, address, _] = side;
        let reply = packet(address, client).udp(80, 4000).payload(b"answer");
        let mut bed = direct_bed(side, &[far]);
        sent(
            &bed.one(UPLINK, &from_wire(client, address).udp(4000, 80)),
            UPLINK,
        );
        let about = reply.clone().build();
        for _ in 0..2 {
            let out = bed.one(UPLINK, &unreachable(from_wire(router, address), &about));
            let frame = inner(sent(&out, UPLINK));
            assert_eq!(addresses(frame), (ip(router), ip(address)));
        }

        let mut bed = direct_bed(side, &[a]);
        let question = packet(client, address).udp(4000, 80);
        sent(&bed.bytes(UPLINK, from_four_bytes(&question.build())), A);
        let there = error(router, address, &reply).build();
        let out = bed.bytes(UPLINK, from_four_bytes(&there));
        assert_eq!(addresses(sent(&out, A)), (ip(router), ip(a)));
        assert!(is_intact(&out.bytes));
        // About what the service never sent, and to somebody who did not send it.
        let never = packet(address, client).udp(81, 4000);
        for (to, about) in [(address, &never), (a, &reply)] {
            let there = error(router, to, about).build();
            let out = bed.bytes(UPLINK, from_four_bytes(&there));
            assert_eq!(dropped(&out), DropReason::InnerSource, "{to}");
        }
    }
}
