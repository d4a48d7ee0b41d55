//! How evenly Maglev's table spreads flows, and how many of the others' it moves when one backend of a service goes or
//! comes: a hundred sets of backends, through the frontend as packets ask it. Prints a line for each size.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench that cannot be set up cannot go on; it prints what it found"
)]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use weft_engine::table::service::{Chance, Client, ServiceTables};
use weft_engine::{FrontendKey, FrontendSpec, ServiceBuilder, ServiceId, ServiceSpec};
use weft_wire::Protocol;

/// Sets of backends of each size.
const SETS: u32 = 100;

/// Flows for each place of a table, at even distances: fewer, and a share would be theirs and not the table's.
const FLOWS_PER_PLACE: u64 = 16;

/// Shares of the others' flows that may move when one of a hundred backends goes: on average, and in the worst set.
const MOVED_MEAN_MAX: f64 = 0.015;
const MOVED_WORST_MAX: f64 = 0.022;

const FRONTEND: FrontendKey = FrontendKey {
    address: IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)),
    protocol: Protocol::TCP.0,
    port: 80,
};

fn tables(backends: &[IpAddr]) -> ServiceTables {
    let mut builder = ServiceBuilder::default();
    let spec = ServiceSpec {
        backends: backends.iter().map(|it| (*it, 8080)).collect(),
        frontends: vec![FrontendSpec {
            inside_backends: None,
            key: FRONTEND,
            keeps_source: false,
            direct: false,
            drops: false,
            sources: None,
            backends: (0..backends.len() as u32).collect(),
        }],
        ..ServiceSpec::default()
    };
    builder.set(ServiceId(0), &spec);
    builder.build()
}

/// Whose each of so many flows is.
fn owners(backends: &[IpAddr], flows: u64) -> Vec<IpAddr> {
    let tables = tables(backends);
    let frontend = tables.get(&FRONTEND).expect("the frontend");
    let step = u64::MAX / flows;
    let owner = |flow: u64| {
        let chance = Chance {
            hash: flow * step,
            random: 0,
        };
        frontend.choose(Client::Outside, chance, |_| 0)
    };
    (0..flows)
        .map(|flow| owner(flow).expect("a backend").address)
        .collect()
}

/// What one set gives.
struct Found {
    /// Share of all flows that are not of the backend that went, and moved.
    moved: f64,
    /// The largest and the smallest share of a backend, in shares of the mean.
    most: f64,
    least: f64,
}

fn measure(set: u32, size: u32) -> Found {
    let backend =
        |number: u32| Ipv4Addr::from_bits(0x0a00_0000 + set * 104_729 + number * 7).into();
    let before: Vec<IpAddr> = (0..size).map(backend).collect();
    let gone = before[(set % size) as usize];
    let after: Vec<IpAddr> = before.iter().copied().filter(|it| *it != gone).collect();
    let flows = u64::from(100 * size.next_power_of_two()) * FLOWS_PER_PLACE;
    let (old, new) = (owners(&before, flows), owners(&after, flows));
    let others = old.iter().zip(&new).filter(|(old, _)| **old != gone);
    let moved = others.filter(|(old, new)| old != new).count();
    let mut shares: HashMap<IpAddr, u32> = HashMap::new();
    for owner in &old {
        *shares.entry(*owner).or_default() += 1;
    }
    let of_mean = |count: Option<&u32>| {
        f64::from(*count.expect("a backend")) * f64::from(size) / flows as f64
    };
    Found {
        moved: moved as f64 / flows as f64,
        most: of_mean(shares.values().max()),
        least: of_mean(shares.values().min()),
    }
}

fn main() {
    for size in [10, 100, 1_000] {
        let found: Vec<Found> = (0..SETS).map(|set| measure(set, size)).collect();
        let mean = found.iter().map(|it| it.moved).sum::<f64>() / f64::from(SETS);
        let worst = found.iter().map(|it| it.moved).fold(0.0, f64::max);
        let most = found.iter().map(|it| it.most).fold(0.0, f64::max);
        let least = found.iter().map(|it| it.least).fold(f64::MAX, f64::min);
        println!(
            "{size} backends, {SETS} sets: one goes, {:.2} % of the others' flows move on average, {:.2} % at most; \
             a backend has {least:.3} to {most:.3} of its share",
            mean * 100.0,
            worst * 100.0
        );
        if size == 100 {
            assert!(
                mean <= MOVED_MEAN_MAX && worst <= MOVED_WORST_MAX,
                "mean {mean}, worst {worst}"
            );
        }
    }
}
