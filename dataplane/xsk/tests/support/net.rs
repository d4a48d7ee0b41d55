//! Namespaces, veth pairs and the peers behind them.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// MAC address of the node's side of every pair.
pub const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A veth pair: one end here, the other in a namespace that lasts as long as this.
pub struct Pair {
    pub ifindex: u32,
    peer: File,
}

/// Moves the calling thread, and all it starts, into an empty network namespace.
pub fn isolate() {
    unshare(CloneFlags::CLONE_NEWNET).expect("root, for a network namespace");
    quiet();
}

/// No router solicitations among the packets that tests count.
fn quiet() {
    for which in ["all", "default"] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1").unwrap();
    }
}

pub fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn here() -> File {
    File::open("/proc/thread-self/ns/net").unwrap()
}

impl Pair {
    /// A pair `name` of `queues` queues, its peer having `address`/24 and knowing `gateway` by the node's MAC.
    pub fn new(name: &str, queues: u32, address: Ipv4Addr, gateway: Ipv4Addr) -> Self {
        let home = here();
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        quiet();
        let peer = here();
        setns(&home, CloneFlags::CLONE_NEWNET).unwrap();
        let place = format!("/proc/{}/fd/{}", std::process::id(), peer.as_raw_fd());
        let count = format!("mtu 65535 numrxqueues {queues} numtxqueues {queues}");
        run(&format!(
            "ip link add {name} {count} type veth peer name eth0 {count} netns {place}"
        ));
        run(&format!("ip link set {name} up"));
        let pair = Self {
            ifindex: index_of(name),

            peer,
        };
        pair.inside(|| {
            // Before the neighbour entry: a change of address flushes even permanent ones.
            run(&format!(
                "ip link set eth0 address {}",
                text(mac_of(address))
            ));
            run("ip link set lo up");
            run("ip link set eth0 up");
            run(&format!("ip address add {address}/24 dev eth0"));
            run(&format!(
                "ip neighbour add {gateway} lladdr {} dev eth0 nud permanent",
                text(NODE_MAC)
            ));
        });
        pair
    }

    /// Runs `body` on a thread inside the peer's namespace; sockets it makes stay there.
    pub fn inside<R: Send>(&self, body: impl FnOnce() -> R + Send) -> R {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.peer, CloneFlags::CLONE_NEWNET).unwrap();
                body()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// The peer's MAC address follows from its IP address.
pub fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [2, 1, a, b, c, d]
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn index_of(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}
