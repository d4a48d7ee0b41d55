use super::*;
use ipnet::{Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use proptest::prelude::*;

fn v4(text: &str) -> (u32, u8) {
    let net: Ipv4Net = text.parse().unwrap();
    (net.addr().to_bits(), net.prefix_len())
}

fn at(table: &Lpm<u32>, text: &str) -> u32 {
    table.lookup(text.parse::<std::net::Ipv4Addr>().unwrap().to_bits())
}

#[test]
fn the_longest_prefix_wins_and_removal_uncovers_the_next() {
    let mut table = Lpm::<u32>::new();
    for (value, text) in (1..).zip([
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.0/23",
        "10.1.2.7/32",
    ]) {
        let (key, len) = v4(text);
        assert_eq!(table.insert(key, len, value), None);
    }
    let old = table.clone();
    assert_eq!(
        ["9.9.9.9", "10.9.9.9", "10.1.9.9", "10.1.3.7", "10.1.2.7"].map(|t| at(&table, t)),
        [1, 2, 3, 4, 5]
    );
    let (key, len) = v4("10.1.2.7/32");
    assert_eq!(table.remove(key, len), Some(5));
    assert_eq!(table.remove(key, len), None);
    assert_eq!((at(&table, "10.1.2.7"), at(&old, "10.1.2.7")), (4, 5));
    assert_eq!((table.len(), old.len()), (4, 5));
}

#[test]
fn a_small_table_is_small_and_an_emptied_one_as_a_fresh_one() {
    let mut table = Lpm::<u128>::new();
    let nets: Vec<Ipv6Net> = (0..100)
        .map(|i| format!("fd00:0:0:{i:x}::{i:x}/128").parse().unwrap())
        .collect();
    for net in &nets {
        table.insert(net.addr().to_bits(), 128, 7);
    }
    assert!(table.memory_bytes() <= 32 << 10, "{}", table.memory_bytes());
    for net in &nets {
        assert_eq!(table.remove(net.addr().to_bits(), 128), Some(7));
    }
    assert!(table.is_empty());
    assert_eq!(table.memory_bytes(), 0);
}

/// The `n`-th of many prefixes of /48 in no order.
fn scattered(n: u32) -> u128 {
    0x2000 << 112 | u128::from(n.wrapping_mul(0x9e37_79b1)) << 80
}

fn many() -> Lpm<u128> {
    let mut table = Lpm::new();
    for n in 0..8_000 {
        table.insert(scattered(n), 48, 1 + n);
    }
    table
}

#[test]
fn a_change_leaves_the_rest_shared() {
    let mut table = many();
    let old = table.clone();
    let host = scattered(9) | 7;
    // Of the shortest prefixes too, which cover all of the table.
    for (key, len) in [(scattered(8_000), 48), (host, 128), (0, 0), (0, 1)] {
        let before = table.clone();
        table.insert(key, len, 7);
        let (shared, pages) = table.table.shared_pages(&before.table);
        assert!(
            pages > 10 && shared + 4 >= pages,
            "{shared} of {pages} pages"
        );
    }
    assert_eq!((table.lookup(host), old.lookup(host)), (7, 10));
    assert_eq!((table.lookup(1), old.lookup(1)), (7, 0));
}

#[test]
fn changing_a_table_over_and_over_does_not_make_it_grow() {
    let mut table = many();
    let before = table.memory_bytes();
    for round in 0..3 {
        for n in (round..8_000).step_by(3) {
            let key = scattered(n);
            assert_eq!(table.remove(key, 48), Some(1 + n));
            table.insert(key, 48, 1 + n);
            table.insert(key, 128, 2);
            table.remove(key, 128);
        }
    }
    let after = table.memory_bytes();
    assert!(
        after <= before + before / 4,
        "{before} bytes became {after}"
    );
}

#[test]
fn a_batch_in_a_large_table_finds_what_single_searches_find() {
    let mut table = Lpm::<u128>::new();
    for n in 0..60_000 {
        table.insert(scattered(n), [48, 40, 64, 29][n as usize % 4], 1 + n);
    }
    assert!(table.memory_bytes() > 1 << 20, "{}", table.memory_bytes());
    let keys: Vec<u128> = (0..100_000).map(|n| scattered(n) | 5).collect();
    let mut values = vec![0; keys.len()];
    table.lookup_batch(&keys, &mut values);
    for (key, value) in keys.iter().zip(values) {
        assert_eq!(value, table.lookup(*key));
    }
}

#[test]
fn every_prefix_that_ends_in_a_byte_fits() {
    let mut table = Lpm::<u128>::new();
    let all =
        (1..=8_u8).flat_map(|bits| (0..1_u128 << bits).map(move |top| (top << (128 - bits), bits)));
    for (key, bits) in all.clone() {
        assert_eq!(table.insert(key, bits, u32::from(bits)), None);
    }
    assert_eq!((table.len(), table.lookup(7 << 120)), (510, 8));
    for (key, bits) in all {
        assert_eq!(table.remove(key, bits), Some(u32::from(bits)));
    }
    assert_eq!(table.memory_bytes(), 0);
}

/// Few distinct bytes, so that prefixes nest, share paths and split them.
fn clustered_v6() -> impl Strategy<Value = u128> {
    prop::collection::vec(prop::sample::select(vec![0_u8, 1, 2, 0x80, 0xff]), 16)
        .prop_map(|bytes| u128::from_be_bytes(bytes.try_into().unwrap()))
}

fn clustered_v4() -> impl Strategy<Value = u32> {
    prop::collection::vec(prop::sample::select(vec![0_u8, 1, 2, 0x80, 0xff]), 4)
        .prop_map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap()))
}

proptest! {
    #[test]
    fn v6_equals_the_model(
        ops in prop::collection::vec((clustered_v6(), 0_u8..=128, any::<bool>(), 1_u32..1000), 1..80),
        probes in prop::collection::vec(clustered_v6(), 40),
    ) {
        let mut table = Lpm::<u128>::new();
        let mut model = PrefixMap::<Ipv6Net, u32>::new();
        let mut versions = Vec::new();
        for (key, len, add, value) in ops {
            let net = Ipv6Net::new(key.into(), len).unwrap().trunc();
            if add {
                prop_assert_eq!(table.insert(key, len, value), model.insert(net, value));
            } else {
                prop_assert_eq!(table.remove(key, len), model.remove(&net));
            }
            prop_assert_eq!(table.len(), model.len());
            versions.push((table.clone(), model.clone()));
        }
        for (table, model) in &versions {
            for &probe in &probes {
                let expected = model.get_lpm(&Ipv6Net::new(probe.into(), 128).unwrap());
                prop_assert_eq!(table.lookup(probe), expected.map_or(0, |(_, &v)| v));
            }
            let one_by_one: Vec<u32> = probes.iter().map(|&probe| table.lookup(probe)).collect();
            let mut values = vec![9; probes.len()];
            table.lookup_batch(&probes, &mut values);
            prop_assert_eq!(&values, &one_by_one);
            // However small it is.
            for (keys, values) in probes.chunks(STEP).zip(values.chunks_mut(STEP)) {
                values.fill(9);
                table.table.lookup_far(keys, values);
            }
            prop_assert_eq!(values, one_by_one);
        }
    }

    #[test]
    fn v4_equals_the_model(
        ops in prop::collection::vec((clustered_v4(), 0_u8..=32, 0_u8..3, 1_u32..1000), 1..200),
        probes in prop::collection::vec(clustered_v4(), 100),
    ) {
        let mut table = Lpm::<u32>::new();
        let mut model = PrefixMap::<Ipv4Net, u32>::new();
        for (key, len, action, value) in ops {
            let net = Ipv4Net::new(key.into(), len).unwrap().trunc();
            if action > 0 {
                prop_assert_eq!(table.insert(key, len, value), model.insert(net, value));
            } else {
                prop_assert_eq!(table.remove(key, len), model.remove(&net));
            }
        }
        let mut values = vec![9; probes.len()];
        table.lookup_batch(&probes, &mut values);
        for (probe, value) in probes.into_iter().zip(values) {
            let expected = model.get_lpm(&Ipv4Net::new(probe.into(), 32).unwrap());
            let expected = expected.map_or(0, |(_, &v)| v);
            prop_assert_eq!((table.lookup(probe), value), (expected, expected));
        }
    }
}
