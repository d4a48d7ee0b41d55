//! What one packet costs in `weft-wire`. Budget: the whole parse of a TCP/IPv4 frame 11 ns, the
//! checksum of a full segment 45 ns.
#![allow(missing_docs, reason = "criterion_group! generates public functions")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use weft_wire::build::Packet;
use weft_wire::checksum::{self, Delta};
use weft_wire::{ChecksumField, Ipv4Header, Layers, Protocol, TcpFlags, Vni, tcp};

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let v4 = || Packet::ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let v6 = || Packet::ipv6([0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), [0xfd00_u16; 8].into());
    let tcp4 = v4().tcp(4000, 80).payload_len(1460).build();
    let vni = Vni::new(7).unwrap_or_else(|| unreachable!("7 fits 24 bits"));
    vec![
        ("vxlan", v4().vxlan(50_000, vni, &tcp4).build()),
        (
            "tcp4_vlan",
            v4().vlan(5).tcp(4000, 80).payload_len(64).build(),
        ),
        ("tcp6", v6().tcp(4000, 80).payload_len(1440).build()),
        (
            "udp6_extensions",
            v6().extension(Protocol::HOP_BY_HOP, &[5, 2])
                .extension(Protocol::DESTINATION_OPTIONS, &[1, 12])
                .fragment(0, true)
                .udp(1, 2)
                .payload_len(64)
                .build(),
        ),
        ("tcp4", tcp4),
    ]
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for (name, frame) in frames() {
        group.bench_function(name, |b| {
            b.iter(|| {
                let frame = black_box(&frame[..]);
                let layers = Layers::parse(frame, frame.len())?;
                let ports = layers.ports(frame)?;
                Ok::<_, weft_wire::ParseError>((layers, ports))
            });
        });
    }
    group.finish();
}

fn sum(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for len in [20, 64, 1460, 65000] {
        let bytes: Vec<u8> = (0..len).map(|index| index as u8).collect();
        group.throughput(Throughput::Bytes(len));
        group.bench_with_input(BenchmarkId::from_parameter(len), &bytes, |b, bytes| {
            b.iter(|| checksum::of(black_box(bytes)));
        });
    }
    group.finish();
}

fn rewrite(c: &mut Criterion) {
    let mut group = c.benchmark_group("rewrite");
    let header = Ipv4Header::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), Protocol::TCP, 9);
    group.bench_function("decrement_ttl", |b| {
        b.iter(|| {
            let mut header = *black_box(&header);
            header.decrement_ttl();
            header
        });
    });
    group.bench_function("delta_v6", |b| {
        let (old, new) = ([1_u16; 8].into(), [2_u16; 8].into());
        b.iter(|| {
            Delta::new()
                .v6(black_box(old), black_box(new))
                .apply(black_box(0x1234))
        });
    });
    let syn = Packet::ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
        .tcp(1, 2)
        .flags(TcpFlags::SYN)
        .mss(65495)
        .tcp_options(&[4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7])
        .build_network();
    group.bench_function("clamp_mss", |b| {
        let mut segment = syn[20..].to_vec();
        b.iter(|| {
            // The option's value, restored so that every turn clamps.
            segment[22..24].copy_from_slice(&[0xff, 0xd7]);
            tcp::clamp_mss(black_box(&mut segment), 1_400, ChecksumField::Full)
        });
    });
    group.finish();
}

criterion_group!(benches, parse, sum, rewrite);
criterion_main!(benches);
