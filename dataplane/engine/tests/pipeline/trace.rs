//! Packets traced: their ways are those that packets take, and nothing stays behind.

use weft_engine::testbed::*;
use weft_engine::trace::{Bench, Trace, Way};
use weft_engine::{DropReason, Egress, PortId, Rule, RuleId, RuleVerdict, Stage, Tables, Verdict};
use weft_wire::{ChecksumField, Ipv4Header, TcpFlags, build};
use weft_xsk::leaked_frames;

use crate::layers;

const BENCH_FRAMES: u32 = 128;

struct Tracing {
    bed: Testbed,
    bench: Bench,
}

impl Tracing {
    fn new() -> Self {
        let bench = Bench::new(BENCH_FRAMES).unwrap();
        Self {
            bed: Testbed::new(),
            bench,
        }
    }

    /// Traces a frame, and runs it through a pipeline of the same tables: both end alike.
    fn one(&mut self, port: PortId, packet: &build::Packet) -> Trace {
        let leaked = leaked_frames();
        let bytes = packet.build();
        let rx = (port, kind_of(port));
        let (tables, now_ns) = (self.bed.tables.clone(), self.bed.now_ns);
        let trace = self.bench.trace(&tables, rx, &bytes, now_ns).unwrap();
        assert_eq!(self.bench.free(), BENCH_FRAMES as usize, "no frame stays");
        assert_eq!(leaked_frames(), leaked, "no frame is lost");
        let ran = self.bed.run(&[(port, bytes)]);
        assert_eq!(ran.packets[0].verdict, trace.verdict);
        trace
    }
}

fn stages(way: &Way) -> Vec<&'static str> {
    way.steps.iter().map(|step| step.stage.name()).collect()
}

fn at(way: &Way, stage: Stage) -> &weft_engine::trace::Sight {
    let mut steps = way.steps.iter();
    &steps.find(|step| step.stage == stage).unwrap().sight
}

fn syn(from: &str, to: &str) -> build::Packet {
    packet(from, to).tcp(4000, 80).flags(TcpFlags::SYN)
}

fn deny_all(bed: &mut Testbed) {
    let deny = Rule {
        tier: 1,
        peer: None,
        protocol: None,
        ports: None,
        verdict: RuleVerdict::Deny,
        id: RuleId(6),
    };
    bed.change(|builder| builder.policy().set_rules(ANYBODY, vec![deny], Vec::new()));
}

#[test]
fn a_packet_to_a_local_pod_is_seen_behind_every_stage() {
    let mut tracing = Tracing::new();
    for (from, to) in [("10.1.1.10", "10.1.1.11"), ("fd00:1:1::10", "fd00:1:1::11")] {
        let trace = tracing.one(A, &syn(from, to));
        let all: Vec<&str> = Stage::ALL.iter().map(|it| it.name()).collect();
        assert_eq!(stages(&trace.way), all, "the stages, in pipeline order");
        assert_eq!(trace.verdict, Verdict::Tx(B));
        assert_eq!(trace.born.len(), 0);
        assert_eq!(at(&trace.way, Stage::Policy).egress, Egress::Unknown);
        assert_eq!(at(&trace.way, Stage::Route).egress, Egress::Local(B));
    }
}

#[test]
fn headers_are_seen_as_they_are_at_each_stage() {
    let trace = Tracing::new().one(A, &syn("10.1.1.10", "10.1.1.11"));
    let ttl = |stage| {
        let front = &at(&trace.way, stage).front;
        Ipv4Header::parse(&front[14..]).unwrap().0.ttl()
    };
    assert_eq!((ttl(Stage::Route), ttl(Stage::Rewrite)), (64, 63));
}

#[test]
fn what_a_policy_denies_ends_there() {
    let mut tracing = Tracing::new();
    deny_all(&mut tracing.bed);
    let trace = tracing.one(A, &syn("10.1.1.10", "10.1.1.11"));
    assert_eq!(trace.verdict, Verdict::Drop(DropReason::PolicyIngress));
    assert_eq!(stages(&trace.way).last(), Some(&"policy"));
}

#[test]
fn connections_are_not_picked_up_from_replies() {
    let mut tracing = Tracing::new();
    deny_all(&mut tracing.bed);
    let (tables, now_ns) = (tracing.bed.tables.clone(), tracing.bed.now_ns);
    // A may connect to others: a worker that lost its connections takes this for a reply.
    let from_four = from_four(&packet("10.1.2.5", "10.1.1.10").tcp(80, 4000)).build();
    let rx = (UPLINK, kind_of(UPLINK));
    let trace = tracing
        .bench
        .trace(&tables, rx, &from_four, now_ns)
        .unwrap();
    assert_eq!(trace.verdict, Verdict::Drop(DropReason::PolicyIngress));
}

#[test]
fn a_packet_to_another_node_is_seen_with_its_tunnel() {
    let trace = Tracing::new().one(A, &syn("10.1.1.10", "10.1.2.5"));
    assert_eq!(trace.verdict, Verdict::Tx(UPLINK));
    let end = trace.way.end().unwrap();
    assert_eq!((end.egress, end.outer_len), (Egress::Remote(FOUR), 50));
    assert_eq!(end.headers.destination, ip("10.1.2.5"), "the inner headers");
    let (outer, _) = Ipv4Header::parse(&end.front[14..]).unwrap();
    assert_eq!(outer.destination(), std::net::Ipv4Addr::new(192, 0, 2, 2));
}

#[test]
fn a_packet_from_another_node_is_seen_without_its_tunnel() {
    let inner = packet("10.1.2.5", "10.1.1.10")
        .tcp(4000, 80)
        .flags(TcpFlags::SYN);
    let trace = Tracing::new().one(UPLINK, &from_four(&inner));
    assert_eq!(trace.verdict, Verdict::Tx(A));
    let (outer, inner) = (at(&trace.way, Stage::Parse), at(&trace.way, Stage::Decap));
    assert_eq!((outer.tunnel, inner.tunnel), (None, Some(FOUR)));
    assert_eq!((outer.headers.ports.1, inner.headers.ports.1), (4789, 80));
    assert_eq!(outer.len, inner.len + 50);
}

#[test]
fn an_icmp_error_has_a_way_of_its_own() {
    let trace = Tracing::new().one(A, &syn("10.1.1.10", "10.1.9.9"));
    assert_eq!(trace.verdict, Verdict::Drop(DropReason::NoEndpoint));
    assert_eq!(stages(&trace.way).last(), Some(&"route"));
    let [error] = &trace.born[..] else {
        panic!("{trace:?}")
    };
    assert_eq!(stages(error), ["route", "rewrite", "encap", "offload"]);
    let end = error.end().unwrap();
    assert_eq!(end.verdict, Verdict::Tx(A));
    assert_eq!(end.headers.destination, ip("10.1.1.10"));
    assert_eq!(layers(&end.front).protocol, weft_wire::Protocol::ICMP);
}

#[test]
fn a_large_packet_is_seen_cut_and_its_pieces_have_no_ways() {
    let large = packet("10.1.1.10", "10.1.2.5")
        .tcp(4000, 80)
        .payload_len(30_000)
        .checksum(ChecksumField::Partial);
    let trace = Tracing::new().one(A, &large);
    assert_eq!(trace.verdict, Verdict::Tx(UPLINK));
    assert!(at(&trace.way, Stage::Offload).pieces.len() > 19);
    assert_eq!(at(&trace.way, Stage::Parse).len, 30_054);
    assert_eq!(trace.born.len(), 0);
}

#[test]
fn a_fragment_that_would_wait_is_let_go() {
    let mut tracing = Tracing::new();
    let (tables, now_ns) = (tracing.bed.tables.clone(), tracing.bed.now_ns);
    let late = packet("10.1.1.10", "10.1.1.11")
        .udp(1, 2)
        .payload_len(64)
        .fragment(1480, false);
    let rx = (A, kind_of(A));
    let trace = tracing
        .bench
        .trace(&tables, rx, &late.build(), now_ns)
        .unwrap();
    assert_eq!(trace.verdict, Verdict::Consumed);
    assert_eq!(tracing.bench.free(), BENCH_FRAMES as usize);
}

#[test]
fn what_is_no_packet_or_has_no_tables_is_told_apart() {
    let mut bench = Bench::new(BENCH_FRAMES).unwrap();
    let rx = (A, kind_of(A));
    let bytes = syn("10.1.1.10", "10.1.1.11").build();
    let trace = bench.trace(&Tables::empty(), rx, &bytes, 0).unwrap();
    assert_eq!(trace.verdict, Verdict::Drop(DropReason::NoTables));
    assert!(bench.trace(&Tables::empty(), rx, &[], 0).is_none());
    assert!(bench.trace(&Tables::empty(), rx, &[0; 80_000], 0).is_none());
    assert_eq!(bench.free(), BENCH_FRAMES as usize);
}
