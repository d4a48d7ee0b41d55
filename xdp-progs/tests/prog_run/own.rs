//! Connections of the node's own processes from a port where a service is too.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::*;
use weft_xdp_progs::{Program, Verdict};

use crate::common;
use crate::node::*;
use crate::packets::*;
use crate::uplink::{about, fragment};

fn node() -> Node {
    let node = Node::new(1);
    common::ip("addr add 192.0.2.1/24 dev up0");
    common::ip("-6 addr add 2001:db8::1/64 dev up0 nodad");
    node
}

/// The service's port on the node, and where the peer's frames come from.
fn ends(family: Family) -> [SocketAddr; 2] {
    let address = |it: Address| match family {
        V4 => IpAddr::from(it.v4()),
        V6 => IpAddr::from(it.v6()),
    };
    [
        (address(family.us()), NODE_PORT).into(),
        (address(family.peer()), 40_000).into(),
    ]
}

/// A socket that knocks at the peer, who does not answer.
fn knocking([us, peer]: [SocketAddr; 2]) -> OwnedFd {
    let family = if us.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Stream, flags, None).unwrap();
    bind(socket.as_raw_fd(), &SockaddrStorage::from(us)).unwrap();
    let connected = connect(socket.as_raw_fd(), &SockaddrStorage::from(peer));
    assert_eq!(connected, Err(Errno::EINPROGRESS));
    socket
}

#[test]
fn answers_to_the_nodes_own_connections_are_its_own() {
    let node = node();
    for family in [V4, V6] {
        let tcp = family.tcp(NODE_PORT);
        let udp = family.udp(family.peer(), family.us(), NODE_PORT, &[0; 64]);
        let mut first = fragment(family, false, 0, 7, NODE_PORT);
        let ports = 14 + family.ip_len() + if family == V4 { 0 } else { 8 };
        first[ports..ports + 2].copy_from_slice(&40_000_u16.to_be_bytes());
        let error = about(family, 1 + 2 * u8::from(family == V4), NODE_PORT);
        let expect = |frame: &[u8], verdict| node.expect(Program::Uplink, 0, frame, verdict);

        // Sockets that wait for anybody do not have a service's port.
        let [us, peer] = ends(family);
        let datagrams = UdpSocket::bind(us).unwrap();
        let listener = std::net::TcpListener::bind(us).unwrap();
        for frame in [&tcp, &udp] {
            expect(frame, Verdict::UplinkService);
        }
        expect(&error, Verdict::UplinkServiceError);
        drop(listener);

        let stream = knocking([us, peer]);
        datagrams.connect(peer).unwrap();
        for frame in [&tcp, &udp] {
            expect(frame, Verdict::PassNode);
        }
        expect(&first, Verdict::PassFragment);
        expect(&error, Verdict::PassOtherQuote);
        // Of somebody else.
        let other = fragment(family, true, 0, 7, NODE_PORT);
        expect(&other, Verdict::UplinkServiceFragment);

        drop((stream, datagrams));
        expect(&tcp, Verdict::UplinkService);
        expect(&udp, Verdict::UplinkService);
        expect(&first, Verdict::UplinkServiceFragment);
    }
}
