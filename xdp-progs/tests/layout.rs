//! The Rust twins of `bpf/intf.h` have the layout the compiled programs use, by member name.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that fails fails its test"
)]

use std::collections::BTreeMap;
use std::mem::offset_of;

use libbpf_rs::HasSize;
use libbpf_rs::btf::types::{Enum, MemberAttr, Struct};
use libbpf_rs::btf::{Btf, BtfType};
use weft_xdp_progs::Verdict;
use weft_xdp_progs::intf::{
    CORES_MAX, FRONTENDS_MAX, LOCAL_ADDRESSES_MAX, PORTS_MAX, ROUTED_PREFIXES_MAX,
    SERVICE_ADDRESSES_MAX, SHORTCUTS_MAX, SLOTS_MAX, WeftAddress4, WeftAddress6, WeftFrontend4,
    WeftFrontend6, WeftPort, WeftPrefix4, WeftPrefix6, WeftShortcut, WeftShortcutKey,
    WeftShortcutState, WeftShortcutUse, WeftTunnel,
};

const OBJECTS: [&str; 3] = [
    concat!(env!("OUT_DIR"), "/pod.bpf.o"),
    concat!(env!("OUT_DIR"), "/uplink.bpf.o"),
    concat!(env!("OUT_DIR"), "/shortcut.bpf.o"),
];

/// Member name -> offset in bytes, and the size of the whole.
#[derive(Debug, PartialEq)]
struct Layout {
    size: usize,
    members: BTreeMap<String, usize>,
}

macro_rules! layout_of {
    ($type:ty { $($member:ident),+ }) => {
        Layout {
            size: size_of::<$type>(),
            members: BTreeMap::from([$((stringify!($member).to_owned(), offset_of!($type, $member))),+]),
        }
    };
}

fn twins() -> Vec<(&'static str, Layout)> {
    vec![
        ("weft_port", layout_of!(WeftPort { base_slot, queues })),
        (
            "weft_tunnel",
            layout_of!(WeftTunnel {
                vni,
                vxlan_port_be,
                pad
            }),
        ),
        ("weft_address4", layout_of!(WeftAddress4 { bytes })),
        ("weft_address6", layout_of!(WeftAddress6 { bytes })),
        (
            "weft_frontend4",
            layout_of!(WeftFrontend4 {
                address,
                port_be,
                protocol,
                pad
            }),
        ),
        (
            "weft_frontend6",
            layout_of!(WeftFrontend6 {
                address,
                port_be,
                protocol,
                pad
            }),
        ),
        (
            "weft_prefix4",
            layout_of!(WeftPrefix4 {
                prefix_len,
                address
            }),
        ),
        (
            "weft_prefix6",
            layout_of!(WeftPrefix6 {
                prefix_len,
                address
            }),
        ),
        (
            "weft_shortcut_key",
            layout_of!(WeftShortcutKey {
                source,
                destination,
                source_port_be,
                destination_port_be,
                protocol,
                pad
            }),
        ),
        (
            "weft_shortcut",
            layout_of!(WeftShortcut {
                epoch,
                rx_ifindex,
                tx_ifindex,
                place,
                ticket,
                mtu,
                pod_mac,
                gateway_mac,
                peer_mac,
                to,
                translated,
                source,
                destination,
                source_port_be,
                destination_port_be,
                sender_mac,
                tunnel_source_mac,
                tunnel_destination_mac,
                tunnel_port_be,
                tunnel_source,
                tunnel_destination,
                vni,
                vxlan_port_be,
                pad
            }),
        ),
        (
            "weft_shortcut_use",
            layout_of!(WeftShortcutUse {
                packets,
                bytes,
                last_ns,
                end_sequence,
                ticket
            }),
        ),
        (
            "weft_shortcut_state",
            layout_of!(WeftShortcutState {
                alive_until_ns,
                former_until_ns,
                epoch,
                former
            }),
        ),
    ]
}

fn layout_in(btf: &Btf<'_>, name: &str) -> Option<Layout> {
    let found: Struct<'_> = btf.type_by_name(name)?;
    let members = found.iter().map(|member| {
        let MemberAttr::Normal { offset } = member.attr else {
            panic!("{name} has a bit field");
        };
        (
            member
                .name
                .expect("no anonymous members")
                .to_str()
                .unwrap()
                .to_owned(),
            offset as usize / 8,
        )
    });
    Some(Layout {
        members: members.collect(),
        size: found.size(),
    })
}

#[test]
fn every_shared_struct_has_the_same_members_in_rust_and_in_the_objects() {
    let mut seen = BTreeMap::<&str, usize>::new();
    for object in OBJECTS {
        let btf = Btf::from_path(object).unwrap();
        for (name, rust) in twins() {
            if let Some(c) = layout_in(&btf, name) {
                assert_eq!(rust, c, "{name} in {object}");
                *seen.entry(name).or_default() += 1;
            }
        }
    }
    for (name, _) in twins() {
        assert!(seen.contains_key(name), "{name} is in no object's BTF");
    }
}

#[test]
fn no_struct_of_the_header_lacks_a_twin() {
    let known: Vec<&str> = twins().into_iter().map(|(name, _)| name).collect();
    for object in OBJECTS {
        let btf = Btf::from_path(object).unwrap();
        let types = (1..u32::try_from(btf.len()).unwrap())
            .filter_map(|id| btf.type_by_id::<BtfType<'_>>(id.into()));
        for shared in types.filter_map(|any| Struct::try_from(any).ok()) {
            let Some(name) = shared.name().map(|name| name.to_str().unwrap()) else {
                continue;
            };
            assert!(
                !name.starts_with("weft_") || known.contains(&name),
                "{name}"
            );
        }
    }
}

#[test]
fn the_verdicts_have_the_same_names_and_numbers() {
    for object in OBJECTS {
        let btf = Btf::from_path(object).unwrap();
        let c: Enum<'_> = btf.type_by_name("weft_verdict").unwrap();
        let c: BTreeMap<String, i64> = c
            .iter()
            .map(|value| {
                (
                    value.name.unwrap().to_str().unwrap().to_owned(),
                    value.value,
                )
            })
            .collect();
        let mut rust: BTreeMap<String, i64> = Verdict::ALL
            .into_iter()
            .map(|verdict| (c_name(verdict), i64::from(verdict as u32)))
            .collect();
        rust.insert("WEFT_VERDICTS".to_owned(), Verdict::ALL.len() as i64);
        assert_eq!(rust, c, "{object}");
    }
}

/// `PassForeignVni` -> `pass-foreign-vni` -> `WEFT_PASS_FOREIGN_VNI`.
fn c_name(verdict: Verdict) -> String {
    format!("WEFT_{}", verdict.name().to_uppercase().replace('-', "_"))
}

#[test]
fn the_maps_are_as_large_as_the_limits_say() {
    use libbpf_rs::ObjectBuilder;
    let expected: BTreeMap<&str, usize> = BTreeMap::from([
        ("xsks", SLOTS_MAX as usize),
        ("ports", PORTS_MAX as usize),
        ("verdicts", Verdict::ALL.len()),
        ("tunnel", 1),
        ("local4", LOCAL_ADDRESSES_MAX),
        ("local6", LOCAL_ADDRESSES_MAX),
        ("routed4", ROUTED_PREFIXES_MAX),
        ("routed6", ROUTED_PREFIXES_MAX),
        ("services4", SERVICE_ADDRESSES_MAX),
        ("services6", SERVICE_ADDRESSES_MAX),
        ("frontends4", FRONTENDS_MAX),
        ("frontends6", FRONTENDS_MAX),
        // The programs' own: fragments.h.
        ("fragmented", 4_096),
        ("shortcuts", SHORTCUTS_MAX as usize),
        ("shortcut_uses", SHORTCUTS_MAX as usize),
        ("shortcut_state", 1),
        ("sender_cores", SHORTCUTS_MAX as usize),
        ("core_hashes", CORES_MAX as usize),
        ("acknowledged", 1),
        // Constants, which the compiler wants there.
        ("shortcut.rodata", 1),
    ]);
    for object in OBJECTS {
        let object = ObjectBuilder::default().open_file(object).unwrap();
        for map in object.maps() {
            let name = map.name().to_str().unwrap();
            assert_eq!(map.max_entries() as usize, expected[name], "{name}");
        }
    }
}
