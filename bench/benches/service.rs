//! Nanoseconds to choose a backend, microseconds per change of one endpoint, and the time to load all services, with
//! ever more services of ten endpoints each.
#![expect(
    clippy::expect_used,
    reason = "a bench that cannot be set up cannot go on"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use weft_engine::table::service::{Chance, Client};
use weft_engine::{FrontendKey, FrontendSpec, ServiceBuilder, ServiceId, ServiceSpec};
use weft_wire::Protocol;

/// Endpoints of each service.
const BACKENDS: u32 = 10;

fn address(base: u32, number: u32) -> IpAddr {
    Ipv4Addr::from_bits(base + number).into()
}

fn key(service: u32) -> FrontendKey {
    FrontendKey {
        address: address(0x0a60_0000, service),
        protocol: Protocol::TCP.0,
        port: 80,
    }
}

/// A service with its first endpoint at another place for each `turn`.
fn spec(service: u32, turn: u32) -> ServiceSpec {
    let backend = |at: u32| match at {
        0 => (address(0x0b00_0000, turn), 8080),
        _ => (address(0x0a80_0000, service * BACKENDS + at), 8080),
    };
    ServiceSpec {
        backends: (0..BACKENDS).map(backend).collect(),
        frontends: vec![FrontendSpec {
            inside_backends: None,
            key: key(service),
            keeps_source: false,
            direct: false,
            drops: false,
            sources: None,
            backends: (0..BACKENDS).collect(),
        }],
        ..ServiceSpec::default()
    }
}

fn cluster(services: u32) -> ServiceBuilder {
    let mut builder = ServiceBuilder::default();
    for service in 0..services {
        builder.set(ServiceId(service), &spec(service, service));
    }
    builder
}

fn service(criterion: &mut Criterion) {
    for services in [100, 1_000, 10_000] {
        let mut group = criterion.benchmark_group("service");
        let mut builder = cluster(services);
        let tables = builder.build();
        let mut next = 0_u32;
        group.bench_function(format!("choose/{services}"), |bencher| {
            bencher.iter(|| {
                next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let frontend = tables.get(&key(next % services)).expect("a frontend");
                let hash = u64::from(next) << 32;
                black_box(frontend.choose(Client::Outside, Chance { hash, random: hash }, |_| 0))
            });
        });
        let mut turn = 0;
        let mut in_force = tables;
        group.bench_function(format!("change/{services}"), |bencher| {
            bencher.iter(|| {
                turn += 1;
                builder.set(ServiceId(turn % services), &spec(turn % services, turn));
                in_force = builder.build();
            });
        });
        black_box(in_force.len());
        group.sample_size(10);
        group.bench_function(format!("load/{services}"), |bencher| {
            bencher.iter_batched(
                || (),
                |()| cluster(services).build(),
                BatchSize::PerIteration,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, service);
criterion_main!(benches);
