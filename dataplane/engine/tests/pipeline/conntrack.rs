//! Which packets are tracked, and what the connections learn from them.

use weft_engine::table::flow::{State, Tick};
use weft_engine::testbed::*;
use weft_engine::{Direction, DropReason, FlowInfo};
use weft_wire::{TcpFlags, build, tcp};

use crate::{dropped, sent};

fn flows(bed: &Testbed) -> Vec<FlowInfo> {
    let flows = bed.pipeline.flows();
    flows.iter(Tick::of_ns(bed.now_ns)).collect()
}

/// A SYN, or what answers it, with an MSS option and window scale 7.
fn syn(source: &str, destination: &str, ports: (u16, u16), mss: Option<u16>) -> build::Packet {
    let options = mss.map_or(vec![], |mss| {
        let [high, low] = mss.to_be_bytes();
        vec![2, 4, high, low, 1, 3, 3, 7]
    });
    packet(source, destination)
        .tcp(ports.0, ports.1)
        .flags(TcpFlags::SYN)
        .tcp_options(&options)
}

#[test]
fn both_directions_are_one_connection() {
    for (a, b) in [("10.1.1.10", "10.1.1.11"), ("fd00:1:1::10", "fd00:1:1::11")] {
        let mut bed = Testbed::new();
        let there = bed
            .one(A, &packet(a, b).udp(1000, 53).payload_len(10))
            .track;
        let back = bed
            .one(B, &packet(b, a).udp(53, 1000).payload_len(20))
            .track;
        assert_eq!((there.flow, there.hash), (back.flow, back.hash));
        assert_eq!((there.direction, there.is_new), (Direction::Original, true));
        assert_eq!((back.direction, back.is_new), (Direction::Reply, false));
        let flows = flows(&bed);
        assert_eq!((flows.len(), flows[0].state), (1, State::UdpReplied));
        assert_eq!(flows[0].packets, [1, 1]);
        assert_eq!(flows[0].bytes[1] - flows[0].bytes[0], 10);
        let counted = bed.pipeline.counters().flows;
        assert_eq!((counted.new, counted.hits, counted.current), (1, 1, 1));
    }
}

#[test]
fn a_tunnelled_answer_finds_the_connection() {
    let mut bed = Testbed::new();
    let there = bed.one(A, &packet("10.1.1.10", "10.1.2.5").udp(7, 8));
    sent(&there, UPLINK);
    let answer = from_four(&packet("10.1.2.5", "10.1.1.10").udp(8, 7));
    let back = bed.one(UPLINK, &answer);
    sent(&back, A);
    assert_eq!(back.track.flow, there.track.flow);
    assert_eq!(back.track.direction, Direction::Reply);
}

#[test]
fn an_error_belongs_to_the_connection_it_is_about() {
    for (a, router, kind) in [
        ("10.1.1.10", "10.1.2.1", (3, 4)),
        ("fd00:1:1::10", "fd00:1:2::1", (2, 0)),
    ] {
        let mut bed = Testbed::new();
        let peer = router.replace("2.1", "2.5").replace("2::1", "2::5");
        let there = packet(a, &peer).tcp(4000, 80).flags(TcpFlags::SYN);
        let flow = bed.one(A, &there).track.flow;
        let quoted = there.build()[14..].to_vec();
        let error = |to: &str| {
            let message = packet(router, to).icmp(kind.0, kind.1, 1400);
            from_four(&message.payload(&quoted))
        };
        let out = bed.one(UPLINK, &error(a)).track;
        assert_eq!(
            (out.flow, out.direction, out.related),
            (flow, Direction::Reply, true)
        );
        let other = if a.contains(':') {
            "fd00:1:1::11"
        } else {
            "10.1.1.11"
        };
        let out = bed.one(UPLINK, &error(other)).track;
        assert_eq!(
            (out.flow, out.related),
            (None, false),
            "none of its business"
        );
        assert_eq!(
            flows(&bed)[0].packets,
            [1, 0],
            "an error is none of the packets"
        );
    }
}

#[test]
fn pings_are_connections_and_the_gateways_are_not() {
    let mut bed = Testbed::new();
    sent(
        &bed.one(A, &packet("10.1.1.10", "169.254.1.1").echo_request(9, 1)),
        A,
    );
    assert_eq!(flows(&bed).len(), 0);
    bed.one(A, &packet("10.1.1.10", "10.1.1.11").echo_request(9, 1));
    let back = packet("10.1.1.11", "10.1.1.10");
    let answer = bed.one(B, &back.clone().echo_reply(9, 1)).track;
    assert_eq!(answer.direction, Direction::Reply);
    let own = bed.one(B, &back.echo_request(9, 1)).track;
    assert!(
        own.is_new,
        "the same identifier the other way is another connection"
    );
    assert_eq!(flows(&bed).len(), 2);
}

#[test]
fn later_fragments_and_errors_of_ours_are_not_tracked() {
    let mut bed = Testbed::new();
    let whole = packet("10.1.1.10", "10.1.1.11").udp(1, 2);
    let pieces = whole.payload_len(1000).build_fragments(576);
    let mut outcomes = pieces.into_iter().map(|piece| bed.bytes(A, piece));
    let (first, later) = (outcomes.next().unwrap(), outcomes.next().unwrap());
    drop(outcomes);
    assert!(first.track.flow.is_some() && later.track.flow.is_none());
    assert_eq!(
        first.track.hash, later.track.hash,
        "one way through the underlay"
    );
    let ran = bed.run(&[(A, packet("10.1.1.10", "10.1.1.99").udp(1, 2).build())]);
    assert_eq!((ran.born.len(), ran.born[0].track.flow), (1, None));
}

#[test]
fn the_mss_is_what_the_other_side_really_saw() {
    for (source, destination, headers) in [
        ("10.1.1.10", "10.1.2.5", 40),
        ("fd00:1:1::10", "fd00:1:2::5", 60),
    ] {
        let mut bed = Testbed::new();
        let out = bed.one(A, &syn(source, destination, (4000, 80), Some(65_000)));
        let frame = sent(&out, UPLINK);
        let clamped = FOUR_MTU as u16 - headers;
        let tcp_at = 50 + 14 + usize::from(headers) - 20;
        assert_eq!(tcp::mss(&frame[tcp_at..]), Some(clamped));
        let flow = out.track.flow.expect("tracked");
        let table = bed.pipeline.flows();
        assert_eq!(table.mss_towards(flow, Direction::Reply), Some(clamped));
        assert_eq!(
            table.mss_towards(flow, Direction::Original),
            None,
            "not answered yet"
        );
    }
}

#[test]
fn without_the_option_the_mss_is_the_protocols_least() {
    for (a, b, least) in [
        ("10.1.1.10", "10.1.1.11", 536),
        ("fd00:1:1::10", "fd00:1:1::11", 1220),
    ] {
        let mut bed = Testbed::new();
        let out = bed.one(A, &syn(a, b, (4000, 80), None)).track;
        let flow = out.flow.expect("tracked");
        let mss = bed.pipeline.flows().mss_towards(flow, Direction::Reply);
        assert_eq!(mss, Some(least));
    }
}

#[test]
fn a_full_table_drops_new_connections_only() {
    let mut bed = Testbed::with_flows(1);
    let there = packet("10.1.1.10", "10.1.1.11").udp(1, 2);
    let back = packet("10.1.1.11", "10.1.1.10").udp(2, 1);
    bed.one(A, &there);
    bed.one(B, &back);
    bed.now_ns += 3_000_000_000;
    bed.one(A, &there);
    assert_eq!(flows(&bed)[0].state, State::UdpStream);
    let new = bed.one(A, &packet("10.1.1.10", "10.1.1.11").udp(3, 4));
    assert_eq!(dropped(&new), DropReason::FlowTableFull);
    sent(&bed.one(B, &back), A);
    bed.now_ns += 121_000_000_000;
    bed.expire();
    assert_eq!(bed.pipeline.counters().flows.expired, 1);
    sent(&bed.one(A, &packet("10.1.1.10", "10.1.1.11").udp(3, 4)), B);
}

#[test]
fn a_change_of_the_tables_decides_running_connections_anew() {
    let mut bed = Testbed::new();
    let there = packet("10.1.1.10", "10.1.1.11").udp(1, 2);
    sent(&bed.one(A, &there), B);
    sent(&bed.one(A, &there), B);
    bed.change(|builder| builder.remove_port(B));
    let ran = bed.run(&[(A, there.build())]);
    assert_eq!(dropped(&ran.packets[0]), DropReason::NoEndpoint);
    bed = Testbed::new();
    let out = packet("10.1.1.10", "198.51.100.7").udp(1, 2);
    sent(&bed.one(A, &out), NODE);
    sent(&bed.one(A, &out), NODE);
    let here = "198.51.100.7".parse().unwrap();
    bed.change_port(B, |port| port.addresses4.push(here));
    sent(&bed.one(A, &out), B);
}

#[test]
fn a_way_decided_for_one_kind_of_port_is_not_taken_from_another() {
    let mut bed = Testbed::new();
    // The node's stack may reach another node's pods; for who came by the tunnel that is transit.
    let there = packet("192.0.2.2", "10.1.3.5").udp(1, 2);
    sent(&bed.one(NODE, &there), UPLINK);
    let again = bed.one(UPLINK, &from_four(&there));
    assert_eq!(dropped(&again), DropReason::Transit);
    assert!(
        !again.track.is_new,
        "it is the same connection to the table"
    );
}
