//! Nanoseconds per lookup of the tables, in batches as the stages see them, keys at random.
#![expect(
    clippy::expect_used,
    reason = "a bench that cannot be set up cannot go on"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipnet::IpNet;
use weft_engine::table::flow::{FlowKey, FlowTable, Seen, Tick, Tuple, Upper};
use weft_engine::{Fib, RemoteId, Route};

/// Lookups of one turn.
const BATCH: usize = 32;

/// Keys looked up in turn: too many for the second-level cache to know the table's answers.
const KEYS: usize = 1 << 16;

/// A sequence without pattern (Marsaglia's xorshift), the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Lengths as in a real table: /24 and shorter of IPv4, /48 and a few host routes of IPv6.
fn prefix(random: &mut Random, v6: bool) -> IpNet {
    let bits = random.next();
    let net = if v6 {
        let address = 0x2000_u128 << 112 | u128::from(bits) << 52 | u128::from(random.next() >> 16);
        let len = [48, 48, 48, 40, 64, 128][(bits % 6) as usize];
        IpNet::new(IpAddr::V6(address.into()), len)
    } else {
        let address = 0x0100_0000 + (bits as u32 >> 1);
        let len = [24, 24, 24, 22, 20, 32][(bits >> 32) as usize % 6];
        IpNet::new(IpAddr::V4(address.into()), len)
    };
    net.expect("a length of the family").trunc()
}

/// A table of `count` routes and addresses some of them hold.
fn routes(count: usize, v6: bool) -> (Fib, Vec<IpAddr>) {
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut fib = Fib::default();
    let mut prefixes = Vec::with_capacity(count);
    while fib.len() < count {
        let prefix = prefix(&mut random, v6);
        fib.insert(prefix, Route::Remote(RemoteId(fib.len() as u16)));
        prefixes.push(prefix);
    }
    let keys = (0..KEYS).map(|_| prefixes[random.next() as usize % prefixes.len()].addr());
    let keys = keys.collect();
    (fib, keys)
}

fn fib(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fib");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (count, name) in [(1_000, "1k"), (100_000, "100k"), (1_000_000, "1M")] {
        let (fib, keys) = routes(count, false);
        let keys: Vec<Ipv4Addr> = keys.into_iter().filter_map(v4).collect();
        let mut batches = keys.chunks_exact(BATCH).cycle();
        group.bench_function(format!("lookup/v4_{name}/{BATCH}"), |b| {
            b.iter(|| {
                for key in batches.next().into_iter().flatten() {
                    black_box(fib.lookup_v4(*key));
                }
            });
        });
        let mut found = [Route::Host; BATCH];
        group.bench_function(format!("lookup_batch/v4_{name}/{BATCH}"), |b| {
            b.iter(|| {
                fib.lookup_batch_v4(batches.next().unwrap_or_default(), &mut found);
                black_box(&found);
            });
        });
        let (fib, keys) = routes(count, true);
        let keys: Vec<Ipv6Addr> = keys.into_iter().filter_map(v6).collect();
        let mut batches = keys.chunks_exact(BATCH).cycle();
        group.bench_function(format!("lookup/v6_{name}/{BATCH}"), |b| {
            b.iter(|| {
                for key in batches.next().into_iter().flatten() {
                    black_box(fib.lookup_v6(*key));
                }
            });
        });
        group.bench_function(format!("lookup_batch/v6_{name}/{BATCH}"), |b| {
            b.iter(|| {
                fib.lookup_batch_v6(batches.next().unwrap_or_default(), &mut found);
                black_box(&found);
            });
        });
    }
    group.finish();
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

fn seen(table: &FlowTable, number: u32, v6: bool) -> Seen {
    let (source, destination) = if v6 {
        let address = |host: u32| IpAddr::V6(((0xfd00_u128 << 112) + u128::from(host)).into());
        (address(number), address(0xffff_0000))
    } else {
        let address = |host: u32| IpAddr::V4((0x0a00_0000 + host).into());
        (address(number), address(0x0100_0000))
    };
    let tuple = Tuple::new(source, destination, (4000, 80)).expect("one family");
    let key = FlowKey {
        tuple,
        protocol: 17,
    };
    Seen {
        key,
        hash: key.hash(table.seed()),
        len_bytes: 100,
        upper: Upper::Udp,
    }
}

fn flow(criterion: &mut Criterion) {
    for (v6, family) in [(false, "v4"), (true, "v6")] {
        for (flows, name) in [(65_536, "64k"), (1_048_576, "1M")] {
            let mut random = Random(0x1234_5678_9abc_def1);
            let mut table = FlowTable::new(flows, 7);
            for number in 0..flows {
                let seen = seen(&table, number, v6);
                table.track(&seen, Tick(100));
            }
            let packets: Vec<Seen> = (0..KEYS)
                .map(|_| seen(&table, random.next() as u32 % flows, v6))
                .collect();
            let mut group = criterion.benchmark_group("flow");
            group.throughput(Throughput::Elements(BATCH as u64));
            let mut batches = packets.chunks_exact(BATCH).cycle();
            group.bench_function(format!("track/{family}_{name}/{BATCH}"), |b| {
                b.iter(|| {
                    for seen in batches.next().into_iter().flatten() {
                        black_box(table.track(seen, Tick(100)));
                    }
                });
            });
            group.finish();
        }
    }
}

fn config() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1000))
}

criterion_group! {
    name = benches;
    config = config();
    targets = fib, flow
}
criterion_main!(benches);
