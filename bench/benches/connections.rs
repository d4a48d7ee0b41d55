//! A million connections: memory of each with everything the table needs for it, and nanoseconds to find one or find
//! that there is none. Prints one line per family, with and without translation (NAT), which takes a second place in
//! the index; a reply that comes back translated is found by that.
//!
//! Memory is what the process grew by (resident set), so nothing can be left out of it.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench that cannot be set up cannot go on; it prints what it found"
)]

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use weft_engine::table::flow::{FlowKey, FlowTable, Seen, Tick, Tracked, Tuple, Upper};

/// Connections of a table.
const CONNECTIONS: u32 = 1_000_000;

/// Lookups timed together, of keys at random: what a batch of packets asks.
const BATCH: usize = 32;

/// Batches timed.
const BATCHES: usize = 20_000;

/// Bytes a connection may take.
const V4_BYTES_MAX: f64 = 128.0;
const V6_BYTES_MAX: f64 = 224.0;

/// Bytes a table takes besides: its header, and the ends of pages of its parts.
const FIXED_BYTES: f64 = 65_536.0;

fn tuple(number: u32, v6: bool, port: u16) -> Tuple {
    let (source, destination) = if v6 {
        let address = |host: u32| IpAddr::V6(((0xfd00_u128 << 112) + u128::from(host)).into());
        (address(number), address(0xffff_0000))
    } else {
        let address = |host: u32| IpAddr::V4((0x0a00_0000 + host).into());
        (address(number), address(0x0100_0000))
    };
    Tuple::new(source, destination, (4000, port)).expect("one family")
}

fn seen(table: &FlowTable, tuple: Tuple) -> Seen {
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

/// A full table, and the bytes the process grew by.
fn fill(v6: bool, translated: bool) -> (FlowTable, usize) {
    let before = resident_bytes();
    let mut table = FlowTable::new(CONNECTIONS, 7);
    for number in 0..CONNECTIONS {
        let seen = seen(&table, tuple(number, v6, 80));
        let tracked = table.track(&seen, Tick(100));
        let Tracked::Flow { flow, .. } = tracked else {
            panic!("there is room for connection {number}");
        };
        if translated {
            assert!(table.translate(flow, tuple(number, v6, 8080)), "{number}");
        }
    }
    assert_eq!(table.len(), CONNECTIONS as usize);
    (table, resident_bytes().saturating_sub(before))
}

/// Nanoseconds per lookup, the fastest batch and the median one.
fn lookup(table: &FlowTable, v6: bool, port: u16) -> (f64, f64) {
    let mut number = 1_u32;
    let mut key = || {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seen(table, tuple((number >> 8) % CONNECTIONS, v6, port))
    };
    let mut times = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let batch: Vec<Seen> = (0..BATCH).map(|_| key()).collect();
        let started = Instant::now();
        for seen in &batch {
            black_box(table.find(&seen.key, seen.hash, Tick(100)));
        }
        times.push(started.elapsed().as_nanos() as f64 / BATCH as f64);
    }
    times.sort_by(f64::total_cmp);
    (times[0], times[BATCHES / 2])
}

/// Memory of this process that no file backs (proc(5), smaps_rollup): exact, where the counters of statm lag behind
/// by some pages of each core, and without the program's own text.
fn resident_bytes() -> usize {
    let smaps = std::fs::read_to_string("/proc/self/smaps_rollup").expect("/proc");
    let line = smaps.lines().find_map(|it| it.strip_prefix("Anonymous:"));
    let kib = line.and_then(|it| it.trim().trim_end_matches(" kB").parse().ok());
    let kib: usize = kib.expect("a number of KiB");
    kib * 1024
}

fn main() {
    for (family, v6, bytes_max) in [("IPv4", false, V4_BYTES_MAX), ("IPv6", true, V6_BYTES_MAX)] {
        for translated in [false, true] {
            let (table, bytes) = fill(v6, translated);
            let each = bytes as f64 / f64::from(CONNECTIONS);
            let (hit, miss) = (lookup(&table, v6, 80), lookup(&table, v6, 443));
            let nat = if translated { " with NAT" } else { "" };
            let reply = translated.then(|| lookup(&table, v6, 8080));
            let reply = reply.map_or_else(String::new, |(min, median)| {
                format!(", reply {min:.1} {median:.1}")
            });
            println!(
                "{family}{nat}: {CONNECTIONS} connections, {each:.2} B each (at most {bytes_max}); \
                 ns per lookup, min and median: hit {:.1} {:.1}, miss {:.1} {:.1}{reply}",
                hit.0, hit.1, miss.0, miss.1
            );
            assert!(
                bytes as f64 <= bytes_max * f64::from(CONNECTIONS) + FIXED_BYTES,
                "{family}{nat}: {each:.2} B per connection"
            );
        }
    }
}
