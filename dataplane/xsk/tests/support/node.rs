//! The node: memory, sockets, and a forwarder that turns packets round or passes them on.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use weft_xsk::{
    BindRequest, Bound, Frame, FrameChain, FramePool, Kick, RecoveryReport, RingSizes, Socket,
    TxChecksum, Umem, UmemSource, bind, recover,
};

use super::bpf::Redirect;
use super::net::{NODE_MAC, Pair, mac_of};

pub const SIZES: RingSizes = RingSizes::uniform(512);
pub const FRAMES: u32 = 2048;

/// What a keeper holds: memory, bound sockets, attached programs.
pub struct Keeper {
    pub memory: OwnedFd,
    pub umem: Umem,
    pub bound: Vec<Bound>,
    pub programs: Vec<Redirect>,
}

pub fn request<'a>(ifindex: u32, umem: UmemSource<'a>) -> BindRequest<'a> {
    BindRequest {
        ifindex,
        queue: 0,
        umem,
        sizes: SIZES,
        zero_copy: false,
        multi_buffer: true,
        tx_metadata: true,
        busy_poll: None,
        tx_budget: Some(512),
    }
}

impl Keeper {
    /// Binds queue 0 of each pair: the first registers the memory, the others share it.
    pub fn new(pairs: &[&Pair]) -> Self {
        let (umem, memory) = Umem::create_memfd(FRAMES, false).unwrap();
        let mut keeper = Self {
            memory,
            umem,
            bound: Vec::new(),
            programs: Vec::new(),
        };
        for pair in pairs {
            let source = keeper
                .bound
                .first()
                .map_or(UmemSource::Register(&keeper.umem), UmemSource::Share);
            let bound = bind(&request(pair.ifindex, source)).unwrap();
            let program = Redirect::attach(pair.ifindex);
            program.set(0, bound.fd.as_fd());
            keeper.bound.push(bound);
            keeper.programs.push(program);
        }
        keeper
    }

    /// Starts a dataplane, as the first or as the successor of a dead one.
    pub fn dataplane(&self) -> (Dataplane, RecoveryReport) {
        let umem = Umem::map_memfd(self.memory.as_fd()).unwrap();
        let mut sockets = Vec::new();
        for (port, bound) in self.bound.iter().enumerate() {
            let mut socket = Socket::map(bound.fd.try_clone().unwrap(), SIZES).unwrap();
            socket.set_port(port as u16);
            socket.set_tx_metadata(bound.tx_metadata);
            socket.set_multi_buffer(bound.multi_buffer);
            sockets.push(socket);
        }
        let mut pool = FramePool::empty(&umem);
        let report = recover(&umem, &mut sockets, &mut pool).unwrap();
        (
            Dataplane {
                umem: Arc::new(umem),
                pool,
                sockets,
                lost: 0,
            },
            report,
        )
    }
}

pub struct Dataplane {
    pub umem: Arc<Umem>,
    pub pool: FramePool,
    pub sockets: Vec<Socket>,
    /// Packets dropped because a ring was full.
    pub lost: u64,
}

impl Dataplane {
    pub fn replenish(&mut self) {
        for socket in &mut self.sockets {
            socket.complete(&self.umem, &mut self.pool);
            socket.refill(&self.umem, &mut self.pool, 256);
        }
    }

    /// The packets that arrive at `port` within `patience`, at least one of them.
    pub fn receive(&mut self, port: usize, patience: Duration) -> Vec<FrameChain> {
        self.replenish();
        let deadline = Instant::now() + patience;
        let mut packets = Vec::new();
        while packets.is_empty() && Instant::now() < deadline {
            self.wait(10);
            self.sockets[port].receive(&self.umem, 64, &mut |chain| packets.push(chain));
        }
        packets
    }

    /// Sleeps until a socket has something.
    pub fn wait(&self, milliseconds: u16) {
        let mut fds: Vec<PollFd<'_>> = self
            .sockets
            .iter()
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
            .collect();
        poll(&mut fds, PollTimeout::from(milliseconds)).unwrap();
    }

    pub fn bytes(&self, chain: &FrameChain) -> Vec<u8> {
        chain
            .iter()
            .flat_map(|frame| self.umem.bytes(frame))
            .copied()
            .collect()
    }

    /// Sends a packet and waits until the kernel is done with it.
    pub fn send(&mut self, port: usize, chain: &mut FrameChain, checksum: Option<TxChecksum>) {
        assert!(self.sockets[port].transmit(&self.umem, chain, checksum));
        assert_eq!(self.sockets[port].kick(), Kick::Sent);
        let deadline = Instant::now() + Duration::from_secs(1);
        while self.sockets[port].tx_outstanding() > 0 && Instant::now() < deadline {
            self.sockets[port].complete(&self.umem, &mut self.pool);
        }
        assert_eq!(self.sockets[port].tx_outstanding(), 0);
    }

    /// A packet of one frame with these bytes.
    pub fn packet(&mut self, bytes: &[u8]) -> FrameChain {
        let mut frame = self.pool.alloc().unwrap();
        frame.set_len(bytes.len()).unwrap();
        self.umem.bytes_mut(&mut frame).copy_from_slice(bytes);
        FrameChain::from_iter([frame])
    }

    /// One round of switching between ports 0 and 1 until both are quiet.
    pub fn forward(&mut self) {
        self.replenish();
        for port in 0..2 {
            let mut packets = arrayvec::ArrayVec::<FrameChain, 64>::new();
            self.sockets[port].receive(&self.umem, 64, &mut |chain| packets.push(chain));
            for mut chain in packets {
                let checksum = readdress(self.umem.bytes_mut(&mut chain[0]));
                if !self.sockets[1 - port].transmit(&self.umem, &mut chain, checksum) {
                    self.lost += 1;
                    self.pool.free_chain(&mut chain);
                }
            }
        }
        for socket in &mut self.sockets {
            socket.kick();
            socket.complete(&self.umem, &mut self.pool);
        }
    }

    pub fn forward_while(&mut self, running: &AtomicBool) {
        while running.load(Ordering::Relaxed) {
            self.wait(5);
            self.forward();
        }
    }

    /// Every frame of the memory once, after the kernel's last reference to the sockets is gone.
    pub fn account(mut self) -> usize {
        let ports: Vec<u16> = self.sockets.iter().map(Socket::port).collect();
        self.sockets.clear();
        for port in ports {
            self.umem.reclaim(port, &mut self.pool);
        }
        let mut frames: Vec<Frame> = std::iter::from_fn(|| self.pool.alloc()).collect();
        frames.sort_by_key(Frame::index);
        frames.dedup_by_key(|frame| frame.index());
        let count = frames.len();
        frames.drain(..).for_each(|frame| self.pool.free(frame));
        count
    }
}

/// Rewrites the MAC addresses of an IPv4 packet for the peer it goes to. Peers' stacks leave sums of TCP and UDP
/// partial: they stay so.
fn readdress(packet: &mut [u8]) -> Option<TxChecksum> {
    if packet.len() < 34 || packet[12..14] != [8, 0] {
        return None;
    }
    let to = Ipv4Addr::new(packet[30], packet[31], packet[32], packet[33]);
    packet[..6].copy_from_slice(&mac_of(to));
    packet[6..12].copy_from_slice(&NODE_MAC);
    partial(packet)
}

/// Where the transport checksum of an IPv4 packet lies.
pub fn partial(packet: &[u8]) -> Option<TxChecksum> {
    let start = 14 + u16::from(packet[14] & 15) * 4;
    match packet[23] {
        6 => Some(TxChecksum { start, offset: 16 }),
        17 => Some(TxChecksum { start, offset: 6 }),
        _ => None,
    }
}

/// Exchanges sender and receiver of a UDP packet over IPv4: a reply with the same content and sums.
pub fn turn_round(packet: &mut [u8]) {
    let (to, from) = packet.split_at_mut(6);
    to.swap_with_slice(&mut from[..6]);
    let (from, to) = packet[26..34].split_at_mut(4);
    from.swap_with_slice(to);
    let (from, to) = packet[34..38].split_at_mut(2);
    from.swap_with_slice(to);
}
