//! What the uplink program is told.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use weft_xdp_progs::{Frontend, Program, SlotRange, Steering, Verdict};

use crate::node::*;
use crate::packets::*;

#[test]
fn nothing_is_ours_before_the_first_steering() {
    let mut node = Node::new(1);
    node.programs.steer(&Steering::default()).unwrap();
    for frame in both(|v| v.vxlan(VNI)) {
        node.expect(Program::Uplink, 0, &frame, Verdict::PassNotOurs);
    }
}

#[test]
fn a_new_steering_replaces_the_old_one() {
    let mut node = Node::new(1);
    let changed = Steering {
        local_addresses: vec![Ipv4Addr::from(PEER4).into()],
        vni: 9,
        vxlan_port: 8472,
        routed_prefixes: vec!["10.65.0.0/24".parse().unwrap()],
        service_addresses: vec![],
        frontends: vec![Frontend {
            address: Ipv6Addr::from(STRANGER6).into(),
            protocol: UDP,
            port: 53,
        }],
    };
    node.programs.steer(&changed).unwrap();
    node.programs.steer(&changed).unwrap();
    for frame in both(|v| v.vxlan(VNI)) {
        node.expect(Program::Uplink, 0, &frame, Verdict::PassNotOurs);
    }
    let moved = udp4(STRANGER4, PEER4, 8472, &vxlan_payload(0x0800_0000, 9, 60));
    node.expect(Program::Uplink, 0, &moved, Verdict::UplinkVxlan);
    node.expect(
        Program::Uplink,
        0,
        &udp4(STRANGER4, ROUTED4, 53, &[]),
        Verdict::PassNotOurs,
    );
    node.expect(
        Program::Uplink,
        0,
        &udp4(STRANGER4, [10, 65, 0, 9], 53, &[]),
        Verdict::UplinkRouted,
    );
    node.expect(
        Program::Uplink,
        0,
        &udp6(PEER6, STRANGER6, 53, &[]),
        Verdict::UplinkService,
    );
    node.expect(
        Program::Uplink,
        0,
        &udp4(STRANGER4, SERVICE4, 80, &[]),
        Verdict::PassNotOurs,
    );
}

#[test]
fn a_steering_beyond_the_limits_changes_nothing() {
    let mut node = Node::new(1);
    let too_many = Steering {
        local_addresses: (0..65).map(|i| Ipv4Addr::from(i).into()).collect(),
        vxlan_port: VXLAN_PORT,
        ..Steering::default()
    };
    let wrong_vni = Steering {
        vni: 1 << 24,
        ..Steering::default()
    };
    let no_port = Steering {
        local_addresses: vec![Ipv4Addr::from(US4).into()],
        ..Steering::default()
    };
    for refused in [too_many, wrong_vni, no_port] {
        assert!(node.programs.steer(&refused).is_err());
    }
    node.expect(Program::Uplink, 0, &V4.vxlan(VNI), Verdict::UplinkVxlan);
}

#[test]
fn slots_beyond_the_last_one_are_refused() {
    let node = Node::new(1);
    let socket = xdp_socket();
    assert!(node.programs.set_slot(4096, socket.as_fd()).is_err());
    assert!(
        node.programs
            .set_port(
                9,
                SlotRange {
                    base: 4095,
                    queues: 2
                }
            )
            .is_err()
    );
    assert!(
        node.programs
            .set_port(
                9,
                SlotRange {
                    base: u32::MAX,
                    queues: 2
                }
            )
            .is_err()
    );
}
