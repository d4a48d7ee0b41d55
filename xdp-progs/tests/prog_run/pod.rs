//! The pod program.

use std::os::fd::AsFd;

use weft_xdp_progs::{Program, Verdict};

use crate::node::*;
use crate::packets::*;

#[test]
fn pod_frame_goes_to_its_socket() {
    let node = Node::new(4);
    for queue in 0..4 {
        node.expect(
            Program::Pod,
            queue,
            &udp4(PEER4, STRANGER4, 53, &[0; 64]),
            Verdict::PodTaken,
        );
        node.expect(
            Program::Pod,
            queue,
            &udp6(PEER6, STRANGER6, 53, &[0; 64]),
            Verdict::PodTaken,
        );
    }
}

#[test]
fn pod_takes_vlan_arp_and_runts_too() {
    let node = Node::new(1);
    let shortest = vlan(&udp4(PEER4, US4, 53, &[]))[..14].to_vec();
    for frame in [vlan(&udp4(PEER4, US4, 53, &[])), arp(), shortest] {
        node.expect(Program::Pod, 0, &frame, Verdict::PodTaken);
    }
}

#[test]
fn pod_frame_of_many_buffers_goes_to_its_socket() {
    let node = Node::new(1);
    // More than a page: the program sees the first fragment only, which xdp.frags allows.
    node.expect(
        Program::Pod,
        0,
        &udp4(PEER4, US4, 53, &[7; 20_000]),
        Verdict::PodTaken,
    );
}

#[test]
fn pod_frame_without_socket_is_dropped() {
    let mut node = Node::new(2);
    node.close(1);
    node.expect(
        Program::Pod,
        1,
        &udp4(PEER4, US4, 53, &[]),
        Verdict::PodNoSocket,
    );
    node.expect(
        Program::Pod,
        0,
        &udp4(PEER4, US4, 53, &[]),
        Verdict::PodTaken,
    );
}

#[test]
fn pod_frame_of_a_cleared_slot_is_dropped() {
    let node = Node::new(1);
    node.programs.clear_slot(BASE_SLOT).unwrap();
    node.programs.clear_slot(BASE_SLOT).unwrap();
    node.expect(
        Program::Pod,
        0,
        &udp4(PEER4, US4, 53, &[]),
        Verdict::PodNoSocket,
    );
}

#[test]
fn pod_frame_of_a_queue_beyond_the_ports_own_is_dropped_though_the_next_slot_is_taken() {
    let node = Node::new(2);
    let next = xdp_socket();
    node.programs.set_slot(BASE_SLOT + 2, next.as_fd()).unwrap();
    node.expect(
        Program::Pod,
        2,
        &udp4(PEER4, US4, 53, &[]),
        Verdict::PodNoSocket,
    );
}

#[test]
fn pod_frame_of_an_unknown_interface_is_dropped() {
    let node = Node::new(1);
    node.programs.clear_port(node.ifindex).unwrap();
    node.programs.clear_port(node.ifindex).unwrap();
    node.expect(
        Program::Pod,
        0,
        &udp4(PEER4, US4, 53, &[]),
        Verdict::PodUnknownPort,
    );
}
