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

/// A frame with an IPv4 header more in front of its packet.
fn covered(frame: &[u8], protocol: u8, to: [u8; 4], options: usize) -> Vec<u8> {
    let len = (20 + options + frame.len() - 14) as u16;
    let mut header = vec![0; 20 + options];
    header[0] = 0x40 | (header.len() / 4) as u8;
    header[2..4].copy_from_slice(&len.to_be_bytes());
    header[9] = protocol;
    header[16..20].copy_from_slice(&to);
    [&frame[..14], &header, &frame[14..]].concat()
}

const IN_IPV4: u8 = 4;
const NOWHERE: [u8; 4] = [0; 4];

#[test]
fn pod_piece_of_a_large_packet_loses_the_header_in_front_of_it() {
    let node = Node::new(1);
    for bytes in [0, 64, 20_000] {
        let inner = udp4(PEER4, STRANGER4, 53, &vec![7; bytes]);
        let piece = covered(&inner, IN_IPV4, NOWHERE, 0);
        let left = node.run_and_look(Program::Pod, 0, &piece);
        assert_eq!(left, (Verdict::PodTaken, inner));
    }
}

#[test]
fn pod_frame_of_any_other_tunnel_stays_as_it_is() {
    let node = Node::new(1);
    let inner = udp4(PEER4, STRANGER4, 53, &[7; 64]);
    let piece = covered(&inner, IN_IPV4, NOWHERE, 0);
    for frame in [
        covered(&inner, IN_IPV4, PEER4, 0),
        covered(&inner, 17, NOWHERE, 0),
        covered(&inner, IN_IPV4, NOWHERE, 4),
        piece[..33].to_vec(),
        vlan(&piece),
        covered(&udp6(PEER6, STRANGER6, 53, &[]), 41, NOWHERE, 0),
    ] {
        let left = node.run_and_look(Program::Pod, 0, &frame);
        assert_eq!(left, (Verdict::PodTaken, frame));
    }
    // Nothing behind the header: a runt, as from a pod that sends one itself.
    let (verdict, left) = node.run_and_look(Program::Pod, 0, &piece[..34]);
    assert_eq!((verdict, left.len()), (Verdict::PodTaken, 14));
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
