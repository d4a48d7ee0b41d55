//! Sockets on real veth pairs: needs root and Linux 6.9.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use nix::sys::wait::{WaitStatus, waitpid};
use support::net::{NODE_MAC, Pair, isolate, mac_of, run};
use support::node::{Dataplane, FRAMES, Keeper, SIZES, partial, request, turn_round};
use weft_wire::{ChecksumField, Layers, MacAddr, build};
use weft_xsk::{
    BindError, FrameChain, FramePool, Gso, GsoKind, Kick, Mode, PacketSocket, Sent, Socket, Umem,
    UmemSource, bind, open_packet_socket, probe,
};

const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const PATIENCE: Duration = Duration::from_secs(2);

/// A UDP socket of the peer, connected to the node.
fn peer_socket(pair: &Pair) -> UdpSocket {
    pair.inside(|| {
        let socket = UdpSocket::bind((PEER, 4000)).unwrap();
        socket.connect((NODE, 5000)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    })
}

fn only(mut packets: Vec<FrameChain>) -> FrameChain {
    assert_eq!(packets.len(), 1, "one packet");
    packets.remove(0)
}

fn close(dataplane: Dataplane, keeper: Keeper) {
    drop(keeper);
    assert_eq!(dataplane.account(), FRAMES as usize, "a frame leaked");
}

fn one_pair() -> (Pair, Keeper, Dataplane) {
    isolate();
    let pair = Pair::new("pod0", 1, PEER, NODE);
    let keeper = Keeper::new(&[&pair]);
    let (mut dataplane, report) = keeper.dataplane();
    assert_eq!(report.freed, FRAMES);
    dataplane.replenish();
    (pair, keeper, dataplane)
}

#[test]
fn a_small_packet_is_received_and_answered() {
    let (pair, keeper, mut dataplane) = one_pair();
    let peer = peer_socket(&pair);
    peer.send(b"hello").unwrap();
    let mut chain = only(dataplane.receive(0, PATIENCE));
    assert_eq!(
        (chain.len(), chain[0].offset(), chain[0].len()),
        (1, 256, 14 + 20 + 8 + 5)
    );
    assert!(dataplane.bytes(&chain).ends_with(b"hello"));
    turn_round(dataplane.umem.bytes_mut(&mut chain[0]));
    let checksum = partial(dataplane.umem.bytes(&chain[0]));
    dataplane.send(0, &mut chain, checksum);
    let mut buffer = [0; 64];
    assert_eq!(peer.recv(&mut buffer).unwrap(), 5);
    assert_eq!(&buffer[..5], b"hello");
    let statistics = dataplane.sockets[0].statistics().unwrap();
    assert_eq!((statistics.rx_dropped, statistics.tx_invalid_descs), (0, 0));
    close(dataplane, keeper);
}

#[test]
fn a_60_kb_datagram_is_one_chain_both_ways() {
    let (pair, keeper, mut dataplane) = one_pair();
    let peer = peer_socket(&pair);
    let content: Vec<u8> = (0..65_000u32).map(|n| (n % 253) as u8).collect();
    peer.send(&content).unwrap();
    let mut chain = only(dataplane.receive(0, PATIENCE));
    assert_eq!(chain.len(), 17);
    assert!(dataplane.bytes(&chain).ends_with(&content));
    turn_round(dataplane.umem.bytes_mut(&mut chain[0]));
    let checksum = partial(dataplane.umem.bytes(&chain[0]));
    dataplane.send(0, &mut chain, checksum);
    let mut buffer = vec![0; 65_536];
    let len = peer.recv(&mut buffer).unwrap();
    assert!(buffer[..len] == content);
    assert_eq!(
        dataplane.sockets[0].statistics().unwrap().tx_invalid_descs,
        0
    );
    close(dataplane, keeper);
}

#[test]
fn a_partial_checksum_is_good_with_metadata_only() {
    let (pair, keeper, mut dataplane) = one_pair();
    assert!(keeper.bound[0].tx_metadata);
    let peer = peer_socket(&pair);
    peer.send(b"partial").unwrap();
    let mut chain = only(dataplane.receive(0, PATIENCE));
    turn_round(dataplane.umem.bytes_mut(&mut chain[0]));
    let bytes = dataplane.bytes(&chain);
    dataplane.pool.free_chain(&mut chain);
    // The sum of the pseudo header alone is not that of the packet: without the request it is a broken packet.
    let mut plain = dataplane.packet(&bytes);
    dataplane.send(0, &mut plain, None);
    peer.set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    assert!(peer.recv(&mut [0; 64]).is_err());
    let mut asking = dataplane.packet(&bytes);
    dataplane.send(0, &mut asking, partial(&bytes));
    assert_eq!(peer.recv(&mut [0; 64]).unwrap(), 7);
    close(dataplane, keeper);
}

#[test]
fn frames_without_room_for_metadata_are_refused_before_the_kernel_sees_them() {
    let (_pair, keeper, mut dataplane) = one_pair();
    let mut chain = dataplane.packet(&[0xff; 60]);
    let headroom = chain[0].headroom();
    chain[0].grow_front(headroom).unwrap();
    assert_eq!(chain[0].offset(), weft_xsk::TX_METADATA_BYTES);
    dataplane.send(0, &mut chain, None);
    let counters = dataplane.sockets[0].counters();
    let statistics = dataplane.sockets[0].statistics().unwrap();
    assert_eq!((counters.tx_refused, statistics.tx_invalid_descs), (0, 0));
    close(dataplane, keeper);
}

/// Listens in `server`'s namespace and connects from `client`'s.
fn connect(client: &Pair, server: &Pair) -> (TcpStream, TcpStream) {
    let listener = server.inside(|| TcpListener::bind((OTHER, 6000)).unwrap());
    thread::scope(|scope| {
        let accepted = scope.spawn(move || listener.accept().unwrap().0);
        let stream = client.inside(|| {
            TcpStream::connect_timeout(&SocketAddr::from((OTHER, 6000)), Duration::from_secs(5))
                .unwrap()
        });
        (stream, accepted.join().unwrap())
    })
}

fn two_pairs() -> (Pair, Pair) {
    isolate();
    (
        Pair::new("pod0", 1, PEER, OTHER),
        Pair::new("pod1", 1, OTHER, PEER),
    )
}

/// Sends `total` bytes that depend on their place, checks them at the other end, and answers one byte.
fn transfer(from: &mut TcpStream, to: &mut TcpStream, total: usize) {
    const CHUNK: usize = 1 << 18;
    /// Prime: no segment or frame size divides it, so bytes out of place differ.
    const PERIOD: usize = 65_521;
    let pattern: Vec<u8> = (0..PERIOD + CHUNK)
        .map(|at| ((at % PERIOD).wrapping_mul(31) >> 3) as u8)
        .collect();
    let expected = |at: usize, len: usize| &pattern[at % PERIOD..][..len];
    thread::scope(|scope| {
        let source = &expected;
        scope.spawn(move || {
            for at in (0..total).step_by(CHUNK) {
                from.write_all(source(at, CHUNK.min(total - at))).unwrap();
            }
            from.read_exact(&mut [0]).unwrap();
        });
        let mut buffer = vec![0; CHUNK];
        let mut at = 0;
        while at < total {
            let n = to.read(&mut buffer).unwrap();
            assert!(n > 0, "the connection ended");
            assert!(buffer[..n] == *expected(at, n), "wrong bytes after {at}");
            at += n;
        }
        to.write_all(&[1]).unwrap();
    });
}

#[test]
fn tcp_flows_between_two_devices_that_share_the_memory() {
    let (a, b) = two_pairs();
    let keeper = Keeper::new(&[&a, &b]);
    let (mut dataplane, _) = keeper.dataplane();
    dataplane.replenish();
    let running = AtomicBool::new(true);
    let dataplane = thread::scope(|scope| {
        let worker = scope.spawn(|| {
            dataplane.forward_while(&running);
            dataplane
        });
        let (mut client, mut server) = connect(&a, &b);
        let started = Instant::now();
        transfer(&mut client, &mut server, 64 << 20);
        println!("64 MiB in {:?}", started.elapsed());
        running.store(false, Ordering::Relaxed);
        worker.join().unwrap()
    });
    for socket in &dataplane.sockets {
        let statistics = socket.statistics().unwrap();
        assert_eq!(
            (statistics.tx_invalid_descs, socket.counters().tx_refused),
            (0, 0)
        );
        assert_eq!(
            socket.counters().rx_foreign + socket.counters().completion_foreign,
            0
        );
    }
    close(dataplane, keeper);
}

#[test]
fn a_queue_can_be_bound_again_right_after_it_was_left() {
    isolate();
    let pair = Pair::new("pod0", 1, PEER, NODE);
    for _ in 0..5 {
        let keeper = Keeper::new(&[&pair]);
        let (mut dataplane, _) = keeper.dataplane();
        dataplane.replenish();
        close(dataplane, keeper);
    }
}

#[test]
fn a_queue_in_use_is_said_to_be_busy() {
    isolate();
    let pair = Pair::new("pod0", 1, PEER, NODE);
    let keeper = Keeper::new(&[&pair]);
    let started = Instant::now();
    let error = bind(&request(pair.ifindex, UmemSource::Register(&keeper.umem))).unwrap_err();
    assert!(matches!(error, BindError::Busy { .. }), "{error}");
    assert!(started.elapsed() >= Duration::from_millis(200));
}

#[test]
fn what_cannot_be_bound_is_said_with_its_name() {
    isolate();
    let (umem, _memory) = Umem::create_memfd(64, false).unwrap();
    let error = bind(&request(4242, UmemSource::Register(&umem))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "binding for queue 0 of interface 4242: No such device (os error 19)"
    );
}

#[test]
fn zero_copy_is_a_wish_that_a_veth_does_not_grant() {
    isolate();
    let pair = Pair::new("pod0", 1, PEER, NODE);
    let (umem, _memory) = Umem::create_memfd(64, false).unwrap();
    let wish = weft_xsk::BindRequest {
        zero_copy: true,
        ..request(pair.ifindex, UmemSource::Register(&umem))
    };
    let bound = bind(&wish).unwrap();
    assert_eq!(
        (bound.mode, bound.multi_buffer, bound.tx_metadata),
        (Mode::Copy, true, true)
    );
}

#[test]
fn one_memory_is_registered_by_several_devices_and_queues() {
    isolate();
    let (a, b) = (
        Pair::new("pod0", 2, PEER, NODE),
        Pair::new("pod1", 1, OTHER, NODE),
    );
    let (umem, _memory) = Umem::create_memfd(64, false).unwrap();
    let first = bind(&request(a.ifindex, UmemSource::Register(&umem))).unwrap();
    let second_queue = weft_xsk::BindRequest {
        queue: 1,
        ..request(a.ifindex, UmemSource::Share(&first))
    };
    let _second = bind(&second_queue).unwrap();
    let _third = bind(&request(b.ifindex, UmemSource::Register(&umem))).unwrap();
}

#[test]
fn a_device_that_goes_away_is_noticed_and_its_frames_come_back() {
    let (a, b) = two_pairs();
    let keeper = Keeper::new(&[&a, &b]);
    let (mut dataplane, _) = keeper.dataplane();
    dataplane.replenish();
    run("ip link delete pod0");
    let error = dataplane.sockets[0].take_error().unwrap();
    assert_eq!(
        error.and_then(|error| error.raw_os_error()),
        Some(libc::ENETDOWN)
    );
    assert!(dataplane.sockets[1].take_error().unwrap().is_none());
    let mut chain = dataplane.packet(&[0; 60]);
    assert!(dataplane.sockets[0].transmit(&dataplane.umem, &mut chain, None));
    assert_eq!(dataplane.sockets[0].kick(), Kick::Down);
    let error = bind(&request(b.ifindex, UmemSource::Share(&keeper.bound[0]))).unwrap_err();
    assert!(matches!(error, BindError::SourceGone), "{error}");
    let peer = b.inside(|| {
        let socket = UdpSocket::bind((OTHER, 4000)).unwrap();
        socket.connect((PEER, 5000)).unwrap();
        socket
    });
    peer.send(b"the other port works on").unwrap();
    let mut chain = only(dataplane.receive(1, PATIENCE));
    dataplane.pool.free_chain(&mut chain);
    close(dataplane, keeper);
}

#[test]
fn rings_are_mapped_a_second_time_while_the_first_mapping_lives() {
    let (pair, keeper, mut dataplane) = one_pair();
    let peer = peer_socket(&pair);
    peer.send(b"seen twice").unwrap();
    dataplane.wait(1000);
    let mut second = Socket::map(keeper.bound[0].fd.try_clone().unwrap(), SIZES).unwrap();
    assert!(second.rx_ready());
    assert_eq!(second.fill_level(), dataplane.sockets[0].fill_level());
    let umem = Umem::map_memfd(keeper.memory.as_fd()).unwrap();
    assert_eq!(umem.ownership(), dataplane.umem.ownership());
    drop(second);
    let mut chain = only(dataplane.receive(0, PATIENCE));
    assert!(dataplane.bytes(&chain).ends_with(b"seen twice"));
    dataplane.pool.free_chain(&mut chain);
    close(dataplane, keeper);
}

#[test]
fn a_ring_said_to_be_larger_than_it_is_is_not_mapped() {
    let (_pair, keeper, dataplane) = one_pair();
    let wrong = weft_xsk::RingSizes { rx: 8192, ..SIZES };
    let error = Socket::map(keeper.bound[0].fd.try_clone().unwrap(), wrong).unwrap_err();
    assert!(
        error.to_string().starts_with("mapping the receive ring"),
        "{error}"
    );
    close(dataplane, keeper);
}

/// The real thing: a process that forwards is killed again and again, in the middle of a connection.
#[test]
fn a_connection_survives_the_killing_of_its_dataplane() {
    const KILLS: usize = 8;
    let (a, b) = two_pairs();
    let keeper = Keeper::new(&[&a, &b]);
    let done = AtomicBool::new(false);
    let kills = thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut kills = 0;
            while !done.load(Ordering::Relaxed) {
                let child = spawn_forwarder(&keeper);
                let wait = if kills < KILLS {
                    60 + 7 * kills as u64
                } else {
                    5_000
                };
                let deadline = Instant::now() + Duration::from_millis(wait);
                while Instant::now() < deadline && !done.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(1));
                }
                kill(child, Signal::SIGKILL).unwrap();
                assert!(matches!(
                    waitpid(child, None).unwrap(),
                    WaitStatus::Signaled(_, Signal::SIGKILL, _)
                ));
                kills += 1;
            }
            kills
        });
        let (mut client, mut server) = connect(&a, &b);
        transfer(&mut client, &mut server, 512 << 20);
        done.store(true, Ordering::Relaxed);
        killer.join().unwrap()
    });
    println!("{kills} kills");
    assert!(
        kills > 3,
        "the transfer was too short to be interrupted: {kills}"
    );
    // What is left is whole: nothing leaked in any of the deaths.
    let (mut dataplane, report) = keeper.dataplane();
    println!("{report:?}");
    let total = report.freed + report.in_fill + report.in_rx + report.in_tx + report.pending;
    assert_eq!(total, FRAMES);
    dataplane.forward();
    thread::sleep(Duration::from_millis(50));
    dataplane.forward();
    for socket in &dataplane.sockets {
        assert_eq!(socket.counters(), weft_xsk::SocketCounters::default());
        assert_eq!(
            (
                socket.tx_outstanding(),
                socket.statistics().unwrap().tx_invalid_descs
            ),
            (0, 0)
        );
    }
    // What the kernel's own indices say is lent, and what is here, is everything.
    let lent: u32 = dataplane.sockets.iter().map(Socket::rx_outstanding).sum();
    assert_eq!(dataplane.pool.len() as u32 + lent, FRAMES, "{lent} lent");
    close(dataplane, keeper);
}

/// A process that maps what the keeper holds and forwards until it is killed.
fn spawn_forwarder(keeper: &Keeper) -> nix::unistd::Pid {
    // UNSAFETY: fork has no safe form.
    // SAFETY: the child uses no lock that another thread of the parent could hold (glibc sees to malloc's), and
    // ends by a signal only.
    #[expect(unsafe_code, reason = "fork")]
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Parent { child } => child,
        nix::unistd::ForkResult::Child => {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).ok();
            let (mut dataplane, _) = keeper.dataplane();
            dataplane.forward_while(&AtomicBool::new(true));
            std::process::abort()
        }
    }
}

#[test]
fn this_kernel_has_everything() {
    let missing: Vec<_> = probe()
        .into_iter()
        .filter(|feature| !feature.present)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_second_pool_of_one_mapping_is_refused() {
    let (_pair, keeper, dataplane) = one_pair();
    assert!(FramePool::all(&dataplane.umem).is_none());
    close(dataplane, keeper);
}

/// Everything that arrives at the peer's interface, as it is handed to its stack.
struct Arrivals(File);

impl Arrivals {
    fn at(pair: &Pair) -> Self {
        pair.inside(|| {
            let fd = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_NONBLOCK,
                SockProtocol::EthAll,
            );
            Self(File::from(fd.unwrap()))
        })
    }

    /// The packets of the wire: those to the peer of `len` bytes and more.
    fn take(&mut self, count: usize) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        let mut packets = Vec::new();
        let mut buffer = vec![0; 70_000];
        while packets.len() < count && Instant::now() < deadline {
            match self.0.read(&mut buffer) {
                Ok(len) if buffer[..6] == mac_of(PEER) => packets.push(buffer[..len].to_vec()),
                Ok(_) => {}
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
        packets
    }
}

/// A packet from the node to the peer whose transport checksum is partial, and how it is to be segmented.
fn gso_packet(kind: GsoKind, size: u16, payload_len: usize) -> (Vec<u8>, Gso, (u16, u16)) {
    let packet = build::Packet::ipv4(NODE, PEER)
        .macs(MacAddr(NODE_MAC), MacAddr(mac_of(PEER)))
        .checksum(ChecksumField::Partial);
    let payload: Vec<u8> = (0..payload_len as u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let (packet, header_len, offset) = match kind {
        GsoKind::Udp => (packet.udp(5000, 4000), 42, 6),
        _ => (packet.tcp(5000, 4000), 54, 16),
    };
    let gso = Gso {
        kind,
        header_len,
        size,
    };
    (packet.payload(&payload).build(), gso, (34, offset))
}

/// In pieces of a frame's size, as the dataplane sends it.
fn send_by(socket: &PacketSocket, packet: &[u8], gso: Gso, checksum: (u16, u16)) -> Sent {
    socket.send(packet.chunks(3840), Some(checksum), Some(gso))
}

#[test]
fn a_gso_packet_crosses_a_veth_whole() {
    isolate();
    let pair = Pair::new("pod0", 1, PEER, NODE);
    let mut arrivals = Arrivals::at(&pair);
    let peer = peer_socket(&pair);
    let socket = PacketSocket::new(open_packet_socket(pair.ifindex, false).unwrap());
    let (packet, gso, checksum) = gso_packet(GsoKind::TcpV4, 1400, 64_000);
    assert_eq!(send_by(&socket, &packet, gso, checksum), Sent::Yes);
    assert!(only_bytes(arrivals.take(1)) == packet);
    // The peer's stack cuts a datagram for a socket that did not ask for whole ones, and checks nothing twice.
    let (packet, gso, checksum) = gso_packet(GsoKind::Udp, 1000, 5500);
    assert_eq!(send_by(&socket, &packet, gso, checksum), Sent::Yes);
    let mut buffer = [0; 2000];
    for expected in packet[42..].chunks(1000) {
        let len = peer.recv(&mut buffer).unwrap();
        assert!(buffer[..len] == *expected);
    }
    run("ip link set pod0 down");
    assert_eq!(send_by(&socket, &packet, gso, checksum), Sent::Down);
}

fn only_bytes(mut packets: Vec<Vec<u8>>) -> Vec<u8> {
    assert_eq!(packets.len(), 1, "one packet");
    packets.remove(0)
}

#[test]
fn a_queued_socket_segments_for_a_device_that_does_not() {
    isolate();
    let pair = Pair::new("pod0", 1, PEER, NODE);
    run("ethtool -K pod0 tx off sg off tso off gso off");
    let mut arrivals = Arrivals::at(&pair);
    let socket = PacketSocket::new(open_packet_socket(pair.ifindex, true).unwrap());
    for kind in [GsoKind::TcpV4, GsoKind::Udp] {
        let (packet, gso, checksum) = gso_packet(kind, 1400, 30_001);
        assert_eq!(send_by(&socket, &packet, gso, checksum), Sent::Yes);
        let headers = usize::from(gso.header_len);
        let payloads: Vec<&[u8]> = packet[headers..].chunks(1400).collect();
        let segments = arrivals.take(payloads.len());
        assert_eq!(segments.len(), payloads.len(), "{kind:?}");
        for (index, (segment, payload)) in segments.iter().zip(&payloads).enumerate() {
            assert!(segment[headers..] == **payload, "segment {index}");
            let layers = Layers::parse(segment, segment.len()).unwrap();
            assert_eq!(layers.end as usize, segment.len());
            assert_eq!(layers.transport_is_valid(segment), Some(true));
            assert!(weft_wire::ipv4::checksum_is_valid(&segment[14..]));
        }
    }
}

#[test]
fn what_the_kernel_cannot_segment_is_refused() {
    isolate();
    let pair = Pair::new("pod0", 1, PEER, NODE);
    let socket = PacketSocket::new(open_packet_socket(pair.ifindex, true).unwrap());
    let (packet, gso, _) = gso_packet(GsoKind::Udp, 1400, 3000);
    // A checksum that is none of UDP's.
    assert_eq!(send_by(&socket, &packet, gso, (34, 16)), Sent::Refused);
    let pieces = vec![&[0_u8; 1][..]; weft_xsk::packet_socket::PIECES_MAX + 1];
    assert_eq!(socket.send(pieces, None, None), Sent::Refused);
}
