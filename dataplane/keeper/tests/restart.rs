//! A dataplane is killed while packets flow; the next one goes on with the same ports and frames.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Node, ip, veth};
use weft_keeper::client::KeeperClient;

const FRAMES: u32 = 4096;

#[test]
fn packets_come_back_through_the_sockets_the_keeper_bound() {
    let node = Node::new();
    let peer = pod();
    let _dataplane = Dataplane::start(&node);
    for len in [1, 18, 1400] {
        assert_eq!(peer.round_trip(len), Some(len));
    }
}

#[test]
fn a_packet_of_64_kib_comes_back_whole() {
    let node = Node::new();
    let peer = pod();
    let _dataplane = Dataplane::start(&node);
    // 65,507 bytes: the largest UDP payload, 18 descriptors each way.
    for len in [3_900, 9_000, 65_507] {
        assert_eq!(peer.round_trip(len), Some(len));
    }
}

#[test]
fn a_killed_dataplane_is_followed_by_one_with_the_same_ports_and_every_frame() {
    let node = Node::new();
    let peer = pod();
    let mut dataplane = Dataplane::start(&node);
    assert_eq!(dataplane.restarts, 0);
    let before = KeeperClient::query(&node.socket()).unwrap().ports;
    for restarts in 1..=10 {
        let (sent, killed) = (Instant::now(), Duration::from_millis(20 + restarts));
        // In the middle of traffic.
        while sent.elapsed() < killed {
            peer.round_trip(1400);
        }
        dataplane.kill();
        // What arrives meanwhile waits in the rings.
        peer.send(700);
        dataplane = Dataplane::start(&node);
        assert_eq!(dataplane.restarts, restarts);
        assert_eq!(
            dataplane.frames, FRAMES,
            "every frame is in a ring or in the pool"
        );
        assert_eq!(peer.receive(), Some(700));
    }
    assert_eq!(KeeperClient::query(&node.socket()).unwrap().ports, before);
}

#[test]
fn without_a_dataplane_packets_are_dropped_and_the_device_lives() {
    let node = Node::new();
    let peer = pod();
    let mut dataplane = Dataplane::start(&node);
    assert!(peer.round_trip(100).is_some());
    dataplane.kill();
    // More than the rings hold.
    for _ in 0..5_000 {
        peer.send(100);
    }
    let dataplane = Dataplane::start(&node);
    assert_eq!(dataplane.frames, FRAMES);
    common::wait_until("traffic goes on", || {
        peer.drain();
        peer.round_trip(101) == Some(101)
    });
}

/// The pod's side: an address on the peer of `pod0`, and a neighbour that nobody answers for.
fn pod() -> Peer {
    veth("pod0", "peer0", 1);
    for end in ["pod0", "peer0"] {
        ip(&format!("link set {end} mtu 65535"));
    }
    ip("addr add 10.9.0.1/24 dev peer0");
    ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:99 dev peer0 nud permanent");
    let socket = UdpSocket::bind("10.9.0.1:5000").unwrap();
    socket.connect("10.9.0.2:5000").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    Peer(socket)
}

struct Peer(UdpSocket);

impl Peer {
    fn send(&self, len: usize) {
        let payload: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
        self.0.send(&payload).unwrap();
    }

    /// Length of the next datagram, whose content is checked.
    fn receive(&self) -> Option<usize> {
        let mut buffer = vec![0; 70_000];
        let len = self.0.recv(&mut buffer).ok()?;
        assert!(
            buffer[..len]
                .iter()
                .enumerate()
                .all(|(at, byte)| *byte == (at * 7) as u8)
        );
        Some(len)
    }

    fn round_trip(&self, len: usize) -> Option<usize> {
        self.send(len);
        self.receive()
    }

    fn drain(&self) {
        self.0.set_nonblocking(true).unwrap();
        while self.0.recv(&mut [0; 128]).is_ok() {}
        self.0.set_nonblocking(false).unwrap();
    }
}

/// The example dataplane as a process of its own.
struct Dataplane {
    process: Child,
    restarts: u64,
    /// Frames accounted for after the start.
    frames: u32,
}

impl Dataplane {
    fn start(node: &Node) -> Self {
        let mut process = Command::new(common::reflect_path())
            .arg(node.socket())
            .arg("pod0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = process.stdout.take().unwrap();
        // Built before anything can fail, so that the process ends with it.
        let mut dataplane = Self {
            process,
            restarts: 0,
            frames: 0,
        };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert!(line.starts_with("ready "), "{line:?}");
        dataplane.restarts = number(&line, "restarts=");
        dataplane.frames = number(&line, "accounted=");
        dataplane
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        self.kill();
    }
}

fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(line: &str, label: &str) -> T {
    let start = line.find(label).unwrap() + label.len();
    let digits = line[start..]
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap();
    digits.parse().unwrap()
}
