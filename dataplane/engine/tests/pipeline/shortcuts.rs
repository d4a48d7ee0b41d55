//! Which connections ask for a shortcut, and under which tables.

use std::sync::{Arc, Mutex};

use weft_engine::table::flow::{Candidate, Shortcuts, Used};
use weft_engine::testbed::*;
use weft_engine::{Direction, PortId};
use weft_wire::TcpFlags;

use crate::service::{self, FAMILIES};

/// More than a connection needs to be asked for.
const MANY: usize = 200;

#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<Candidate>>>);

impl Shortcuts for Asked {
    fn seats(&self) -> u32 {
        100
    }

    fn ask(&mut self, candidate: &Candidate) {
        self.0.lock().unwrap().push(*candidate);
    }

    fn take(&mut self, _: u32, _: u32, _: Direction) -> Used {
        Used::default()
    }

    fn end(&mut self, _: u32) {}
}

/// A testbed that gives shortcuts, and what asked for one.
fn bed() -> (Testbed, Asked) {
    let mut bed = Testbed::new();
    let asked = Asked::default();
    let flows = bed.pipeline.flows_mut();
    flows.use_shortcuts(Box::new(asked.clone()));
    bed.change(|builder| builder.allow_shortcuts(true));
    (bed, asked)
}

/// An end of a connection: the port its packets come in by, and its address.
type End = (PortId, &'static str);

const A4: End = (A, "10.1.1.10");
const B4: End = (B, "10.1.1.11");
const A6: End = (A, "fd00:1:1::10");
const B6: End = (B, "fd00:1:1::11");

fn segment(from: End, to: End, flags: TcpFlags) -> (PortId, Vec<u8>) {
    let ports = if from.0 < to.0 {
        (4000, 80)
    } else {
        (80, 4000)
    };
    let packet = packet(from.1, to.1).tcp(ports.0, ports.1).flags(flags);
    (from.0, packet.payload_len(10).build())
}

fn talk(bed: &mut Testbed, a: End, b: End, rounds: usize) {
    for _ in 0..rounds {
        bed.run(&[segment(a, b, TcpFlags::ACK)]);
        bed.run(&[segment(b, a, TcpFlags::ACK)]);
    }
}

/// Both sides speak; the connection was begun before we looked, which is as good.
fn asked_by(bed: &mut Testbed, asked: &Asked, a: End, b: End) -> Vec<Candidate> {
    talk(bed, a, b, MANY);
    std::mem::take(&mut asked.0.lock().unwrap())
}

#[test]
fn connections_between_two_pods_ask() {
    for (a, b) in [(A4, B4), (A6, B6)] {
        let (mut bed, asked) = bed();
        let all = asked_by(&mut bed, &asked, a, b);
        assert!(all.len() > 1, "again while packets come by the pipeline");
        assert_eq!(all[0].route.ports, [A, B]);
        assert_eq!(all[0].keys[0].tuple.source(), ip(a.1));
        assert_eq!(all[0].epoch, bed.tables.shortcut_epoch());
        let seats: Vec<_> = all.iter().map(|it| (it.seat, it.ticket)).collect();
        assert!(seats.iter().all(|it| *it == seats[0]));
    }
}

#[test]
fn connections_with_the_node_and_the_world_behind_it_ask() {
    for (a, b) in [
        (A4, (NODE, "10.1.1.254")),
        (A4, (NODE, "203.0.113.9")),
        (A6, (NODE, "2001:db8:ffff::9")),
    ] {
        let (mut bed, asked) = bed();
        let all = asked_by(&mut bed, &asked, a, b);
        assert_eq!(
            (all[0].route.ports, all[0].route.directions),
            ([A, NODE], [true; 2])
        );
    }
}

fn datagram(from: End, to: End, ports: (u16, u16)) -> (PortId, Vec<u8>) {
    (from.0, packet(from.1, to.1).udp(ports.0, ports.1).build())
}

#[test]
fn datagrams_ask_for_the_ways_they_go() {
    let (mut bed, asked) = bed();
    for _ in 0..MANY {
        bed.run(&[datagram(A4, B4, (1, 2))]);
    }
    let first = asked.0.lock().unwrap()[0];
    assert_eq!(
        (first.route.ports, first.route.directions),
        ([A, B], [true, false])
    );
    bed.run(&[datagram(B4, A4, (2, 1))]);
    for _ in 0..MANY {
        bed.run(&[datagram(A4, B4, (1, 2))]);
    }
    let last = *asked.0.lock().unwrap().last().unwrap();
    assert_eq!(
        (last.route.ports, last.route.directions),
        ([A, B], [true; 2])
    );
    assert_eq!((last.seat, last.ticket), (first.seat, first.ticket));
}

#[test]
fn translated_connections_say_what_they_become() {
    for [from, backend, _, address] in FAMILIES {
        let (mut bed, asked) = bed();
        service::set(&mut bed, &service::spec(address, &[backend]));
        for _ in 0..MANY {
            bed.run(&[(A, packet(from, address).udp(4000, 80).build())]);
            bed.run(&[(B, packet(backend, from).udp(8080, 4000).build())]);
        }
        let all = asked.0.lock().unwrap();
        let [there, back] = all.last().unwrap().keys.map(|key| key.tuple);
        assert_eq!(
            (there.destination(), there.ports()),
            (ip(address), (4000, 80))
        );
        assert_eq!((back.source(), back.ports()), (ip(backend), (8080, 4000)));
        assert_eq!(all[0].route.ports, [A, B]);
    }
}

/// Four's pod answers, or is asked: both directions, and the tunnel to four.
#[test]
fn connections_with_pods_of_other_nodes_ask() {
    for (own, other) in [(A4.1, "10.1.2.5"), (A6.1, "fd00:1:2::5")] {
        let (mut bed, asked) = bed();
        for _ in 0..MANY {
            bed.run(&[(A, packet(own, other).udp(8, 7).build())]);
            let inner = packet(other, own).udp(7, 8);
            bed.run(&[(UPLINK, from_four(&inner).build())]);
        }
        let route = asked.0.lock().unwrap().last().unwrap().route;
        assert_eq!((route.ports, route.directions), ([A, UPLINK], [true; 2]));
        assert_eq!(route.tunnel.unwrap().remote, FOUR);
    }
    let (mut bed, asked) = bed();
    for _ in 0..MANY {
        let inner = packet("10.1.2.5", A4.1).udp(7, 8);
        bed.run(&[(UPLINK, from_four(&inner).build())]);
    }
    let route = asked.0.lock().unwrap().last().unwrap().route;
    assert_eq!(
        (route.ports, route.directions),
        ([UPLINK, A], [true, false])
    );
    assert_eq!(route.tunnel.unwrap().remote, FOUR);
}

#[test]
fn ports_that_can_have_none_do_not_ask() {
    for port in [A, UPLINK] {
        let (mut bed, asked) = bed();
        bed.change_port(port, |port| port.shortcuts = false);
        for _ in 0..MANY {
            bed.run(&[(A, packet(A4.1, "10.1.2.5").udp(8, 7).build())]);
            let inner = packet("10.1.2.5", A4.1).udp(7, 8);
            bed.run(&[(UPLINK, from_four(&inner).build())]);
        }
        assert_eq!(asked.0.lock().unwrap()[..], []);
    }
}

#[test]
fn other_connections_do_not() {
    let (mut bed, asked) = bed();
    for round in 0..MANY {
        let flags = TcpFlags::ACK;
        // Of a node behind a tunnel over IPv6.
        let inner = packet("10.1.3.5", A4.1).udp(7, 8);
        bed.run(&[(UPLINK, from_six(&inner).build())]);
        bed.run(&[(A, packet(A4.1, "10.1.3.5").udp(8, 7).build())]);
        // Short ones.
        let port = 5000 + round as u16;
        let short = |from: &str, to: &str, ports: (u16, u16)| {
            packet(from, to).tcp(ports.0, ports.1).flags(flags).build()
        };
        bed.run(&[(A, short(A4.1, B4.1, (port, 80)))]);
        bed.run(&[(B, short(B4.1, A4.1, (80, port)))]);
    }
    // Nobody answers.
    for _ in 0..MANY {
        bed.run(&[segment(A6, B6, TcpFlags::ACK)]);
    }
    assert_eq!(asked.0.lock().unwrap()[..], []);
}

#[test]
fn tables_without_shortcuts_have_none() {
    let (mut bed, asked) = bed();
    bed.change(|builder| builder.allow_shortcuts(false));
    assert_eq!(bed.tables.shortcut_epoch(), 0);
    assert_eq!(asked_by(&mut bed, &asked, A4, B4), []);
}

#[test]
fn what_is_no_running_connections_way_keeps_them() {
    let (mut bed, _) = bed();
    let epoch = bed.tables.shortcut_epoch();
    let [_, backend, _, address] = FAMILIES[0];
    service::set(&mut bed, &service::spec(address, &[backend]));
    assert_eq!(bed.tables.shortcut_epoch(), epoch);
}

#[test]
fn what_may_change_something_takes_all_back() {
    let (mut bed, asked) = bed();
    let mut last = bed.tables.shortcut_epoch();
    let mut changed = |bed: &Testbed, what: &str| {
        let epoch = bed.tables.shortcut_epoch();
        assert!(epoch > last, "{what}");
        last = epoch;
    };
    bed.change_port(B, |port| port.mtu = 9000);
    changed(&bed, "an MTU");
    bed.change_port(B, |port| {
        port.addresses4 = vec!["10.1.1.12".parse().unwrap()];
    });
    changed(&bed, "an address");
    let thief = weft_engine::PortEntry {
        id: PortId(0),
        ..bed.tables.port(B).unwrap().clone()
    };
    bed.change(|builder| builder.set_port(thief).unwrap());
    changed(&bed, "an address that another port has");
    bed.change(|builder| builder.remove_port(B));
    changed(&bed, "a port that is gone");
    let pods = "10.1.77.0/24".parse().unwrap();
    bed.change(|builder| builder.add_range(pods, weft_engine::RangeKind::Pods));
    changed(&bed, "what may be outside no longer");
    bed.change(|builder| {
        let mut node = node();
        node.gateway_mac = B_MAC;
        builder.set_node(Some(node));
    });
    changed(&bed, "the gateway's address");
    let path = bed.tables.remote(FOUR).unwrap().path;
    bed.change(|builder| builder.set_path(FOUR, path, 1280));
    changed(&bed, "the MTU of a tunnel");
    bed.change(|builder| builder.set_path(FOUR, None, 1280));
    changed(&bed, "the way to another node");
    bed.change(|builder| {
        builder.allow_shortcuts(false);
        builder.allow_shortcuts(true);
    });
    changed(&bed, "a pause");
    assert_eq!(asked.0.lock().unwrap()[..], []);
}
