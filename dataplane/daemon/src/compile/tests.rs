//! Whatever objects come from the socket or from the file of the last run: tables, or an error.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::*;
use crate::kept_tables::KeptTables;

/// Addresses of every kind, few enough that objects meet.
const ADDRESSES: [&str; 9] = [
    "10.1.1.1",
    "10.1.2.1",
    "192.0.2.1",
    "192.0.2.2",
    "0.0.0.0",
    "255.255.255.255",
    "fd00::1",
    "fe80::1",
    "::",
];

const PREFIXES: [&str; 9] = [
    "10.1.1.0/24",
    "10.1.0.0/16",
    "10.1.1.1/32",
    "10.1.1.77/8",
    "0.0.0.0/0",
    "::/0",
    "fd00::/48",
    "fd00::1/128",
    "224.0.0.0/4",
];

/// Limits of MTUs, ports and VNIs, and what lies beyond them.
const NUMBERS: [u32; 9] = [0, 1, 19, 68, 1_280, 1_500, 65_536, (1 << 24) - 1, u32::MAX];

fn object() -> impl Strategy<Value = Value> {
    let address = || select(&ADDRESSES[..]);
    let addresses = || vec(address(), 0..4);
    let prefixes = || vec(select(&PREFIXES[..]), 0..4);
    let number = || select(&NUMBERS[..]);
    let mac = || select(&["02:00:00:00:00:01", "ff:ff:ff:ff:ff:ff"][..]);
    let name = || select(&["a", "b", ""][..]);
    prop_oneof![
        (addresses(), prefixes(), addresses(), mac(), (number(), number(), any::<u16>())).prop_map(
            |(addresses, pods, own, mac, (vni, outside, port))| json!({"kind": "local_node", "name": "a",
                "addresses": addresses, "pod_cidrs": pods, "node_port_addresses": own,
                "node_port_mac": mac, "vni": vni, "vxlan_port": port, "outside_mtu": outside})
        ),
        (name(), addresses(), address(), prefixes()).prop_map(|(name, addresses, vtep, pods)| {
            json!({"kind": "remote_node", "name": name, "addresses": addresses, "vtep": vtep,
                "pod_cidrs": pods})
        }),
        (address(), address(), mac(), proptest::option::of(mac()), number()).prop_map(
            |(vtep, source, mac, next, mtu)| json!({"kind": "underlay_path", "vtep": vtep,
                "ifname": "u0", "source": source, "source_mac": mac, "next_hop_mac": next, "mtu": mtu})
        ),
        (select(&PREFIXES[..]), select(&["pods", "services"][..])).prop_map(
            |(prefix, purpose)| json!({"kind": "cluster_range", "prefix": prefix, "purpose": purpose})
        ),
    ]
}

/// The file of the last run.
fn file(objects: &[Value]) -> Vec<u8> {
    serde_json::to_vec(&json!({"version": 1, "generation": 7, "objects": objects})).unwrap()
}

/// Loads the file as a start does, and makes tables of what it held.
fn start_from(bytes: &[u8], compiler: &mut Compiler) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tables.json");
    std::fs::write(&path, bytes).unwrap();
    let Ok(store) = KeptTables::at(path).load() else {
        return false;
    };
    let tables = compiler.tables(store.objects(), &Ports::default());
    for address in ADDRESSES {
        let _ = tables.fib().lookup(address.parse().unwrap());
    }
    true
}

proptest! {
    #[test]
    fn any_objects_make_tables_or_are_refused(rounds in vec(vec(object(), 0..8), 1..4)) {
        let mut compiler = Compiler::default();
        for objects in rounds {
            for object in &objects {
                let _ = check(&serde_json::from_value(object.clone()).unwrap());
            }
            prop_assert!(start_from(&file(&objects), &mut compiler));
        }
    }

    #[test]
    fn a_damaged_file_makes_tables_or_is_refused(
        objects in vec(object(), 0..6),
        cut in any::<Index>(),
        changes in vec((any::<Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = file(&objects);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        start_from(&bytes, &mut Compiler::default());
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(!start_from(&bytes, &mut Compiler::default()));
    }
}
