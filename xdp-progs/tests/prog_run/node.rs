//! A node with the programs, its sockets and what its uplinks take.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use weft_xdp_progs::{Frontend, Program, Programs, ReceivedOn, SlotRange, Steering, Verdict};

use crate::common;
use crate::packets::*;

pub const BASE_SLOT: u32 = 40;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SCTP: u8 = 132;
pub const NODE_PORT: u16 = 30_080;

pub fn steering() -> Steering {
    let services = [
        (IpAddr::from(US4), NODE_PORT),
        (IpAddr::from(US6), NODE_PORT),
        (IpAddr::from(SERVICE4), 80),
        (IpAddr::from(SERVICE6), 80),
    ];
    let frontend = |(address, port), protocol| Frontend {
        address,
        protocol,
        port,
    };
    Steering {
        local_addresses: vec![Ipv4Addr::from(US4).into(), Ipv6Addr::from(US6).into()],
        vni: VNI,
        vxlan_port: VXLAN_PORT,
        routed_prefixes: vec![
            "10.64.0.0/16".parse().unwrap(),
            "fd00:64::/32".parse().unwrap(),
        ],
        service_addresses: vec![SERVICE4.into(), SERVICE6.into()],
        frontends: services
            .into_iter()
            .flat_map(|it| [TCP, UDP, SCTP].map(|protocol| frontend(it, protocol)))
            .collect(),
    }
}

/// Programs loaded for a four-queue interface with a socket on each of `queues`.
pub struct Node {
    pub programs: Programs,
    pub ifindex: u32,
    pub sockets: Vec<OwnedFd>,
}

impl Node {
    pub fn new(queues: u32) -> Self {
        common::enter_namespace();
        let ifindex = common::veth();
        let mut programs = Programs::load().expect("the programs load");
        programs
            .set_port(
                ifindex,
                SlotRange {
                    base: BASE_SLOT,
                    queues,
                },
            )
            .unwrap();
        let sockets: Vec<OwnedFd> = (0..queues).map(|_| xdp_socket()).collect();
        for (queue, socket) in (0..).zip(&sockets) {
            programs
                .set_slot(BASE_SLOT + queue, socket.as_fd())
                .unwrap();
        }
        programs.steer(&steering()).unwrap();
        Self {
            programs,
            ifindex,
            sockets,
        }
    }

    pub fn run(&self, program: Program, queue: u32, frame: &[u8]) -> Verdict {
        self.run_and_look(program, queue, frame).0
    }

    /// The verdict, and the frame as the program left it.
    pub fn run_and_look(&self, program: Program, queue: u32, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let received_on = ReceivedOn {
            ifindex: self.ifindex,
            queue,
        };
        let result = self
            .programs
            .run(program, frame, received_on)
            .expect("the kernel runs it");
        let verdict = result.verdict.expect("exactly one verdict is counted");
        assert_eq!(result.action, Some(verdict.action()), "{verdict:?}");
        (verdict, result.packet)
    }

    /// Closes the socket of a queue. A command that another thread is about to start has it too, until it runs.
    pub fn close(&mut self, queue: u32) {
        self.sockets.remove(queue as usize);
        let given_up = Instant::now() + Duration::from_secs(5);
        while self.run(Program::Pod, queue, &[0; 14]) == Verdict::PodTaken {
            assert!(Instant::now() < given_up, "the socket stays in the map");
        }
    }

    pub fn expect(&self, program: Program, queue: u32, frame: &[u8], expected: Verdict) {
        assert_eq!(
            self.run(program, queue, frame),
            expected,
            "queue {queue}: {frame:02x?}"
        );
    }
}

/// An AF_XDP socket: unbound, which is all an XSK map asks for.
#[expect(unsafe_code, reason = "nix and std know no AF_XDP")]
pub fn xdp_socket() -> OwnedFd {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel just made it; nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
