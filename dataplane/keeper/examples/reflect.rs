//! The smallest dataplane: sends every UDP packet of a port back where it came from.
//!
//! Usage: `reflect KEEPER_SOCKET IFNAME`. It shows what a dataplane does with the keeper: take the
//! session, map the memory, adopt what a predecessor left or bind what is missing, recover the frames,
//! and run the loop. Kill it while packets flow and start it again: nothing is lost but what arrives
//! in between and does not fit the rings.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use weft_api::dataplane::PortKind;
use weft_keeper::client::{KeeperClient, Port};
use weft_keeper::protocol::BindRequest;
use weft_xsk::{FrameChain, FramePool, Socket, TxChecksum, Umem, recover};

const PATIENCE: Duration = Duration::from_secs(5);
/// Frames lent to the kernel per socket.
const FILL_TARGET: u32 = 256;
/// Packets per round.
const BURST: usize = 64;
/// Longest sleep, in milliseconds: completions of the last packets raise no event.
const SLEEP_MS: u16 = 10;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(socket), Some(ifname)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: reflect KEEPER_SOCKET IFNAME");
    };
    let mut keeper = KeeperClient::connect(Path::new(&socket), PATIENCE)?;
    let umem = Umem::map_memfd(keeper.memfd()).context("mapping the frames")?;
    let mut ports = keeper.ports()?;
    if !ports.iter().any(|port| port.record.ifname == ifname) {
        ports.push(keeper.bind(&BindRequest::new(ifname, PortKind::Pod))?);
    }
    let mut sockets = map(ports)?;
    let mut pool = FramePool::empty(&umem);
    let report = recover(&umem, &mut sockets, &mut pool)?;
    // Lends frames first: without them the kernel drops what arrives.
    for socket in &mut sockets {
        serve(socket, &umem, &mut pool);
    }
    let restarts = keeper.session().restarts;
    let accounted = report.freed + report.in_fill + report.in_rx + report.in_tx + report.pending;
    writeln!(
        std::io::stdout(),
        "ready restarts={restarts} accounted={accounted} {report:?}"
    )?;
    loop {
        for socket in &mut sockets {
            serve(socket, &umem, &mut pool);
        }
        sleep(&keeper, &sockets)?;
    }
}

fn map(ports: Vec<Port>) -> Result<Vec<Socket>> {
    let mut mapped = Vec::new();
    for port in ports {
        for (queue, socket) in port.record.queues.iter().zip(port.sockets) {
            mapped.push(queue.map(socket).context("mapping the rings")?);
        }
    }
    Ok(mapped)
}

fn serve(socket: &mut Socket, umem: &Umem, pool: &mut FramePool) {
    socket.complete(umem, pool);
    socket.refill(umem, pool, FILL_TARGET);
    let mut packets: Vec<FrameChain> = Vec::with_capacity(BURST);
    socket.receive(umem, BURST, &mut |chain| packets.push(chain));
    for mut packet in packets {
        let checksum = turn_around(umem, &mut packet);
        if checksum.is_none() || !socket.transmit(umem, &mut packet, checksum) {
            pool.free_chain(&mut packet);
        }
    }
    socket.kick();
}

/// Swaps the addresses of a UDP packet over IPv4. The sums stay right; the pod's stack left the UDP one
/// partial, and the packet goes back to the same stack as such.
fn turn_around(umem: &Umem, packet: &mut FrameChain) -> Option<TxChecksum> {
    const ETHERNET: usize = 14;
    const IPV4: usize = 20;
    let bytes = umem.bytes_mut(packet.first_mut()?);
    let is_udp = bytes.len() >= ETHERNET + IPV4 + 8
        && bytes[12..14] == [0x08, 0x00]
        && bytes[ETHERNET] == 0x45
        && bytes[ETHERNET + 9] == 17;
    if !is_udp {
        return None;
    }
    swap(bytes, 0, 6);
    swap(bytes, ETHERNET + 12, 4);
    swap(bytes, ETHERNET + IPV4, 2);
    Some(TxChecksum {
        start: (ETHERNET + IPV4) as u16,
        offset: 6,
    })
}

/// Swaps two neighbouring fields of `len` bytes.
fn swap(bytes: &mut [u8], at: usize, len: usize) {
    bytes[at..at + 2 * len].rotate_left(len);
}

/// Until a packet comes. Ends the process when the keeper is gone: the sockets would go on, but nothing
/// could be changed any more.
fn sleep(keeper: &KeeperClient, sockets: &[Socket]) -> Result<()> {
    let mut fds = vec![PollFd::new(keeper.as_fd(), PollFlags::POLLIN)];
    fds.extend(
        sockets
            .iter()
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)),
    );
    poll(&mut fds, PollTimeout::from(SLEEP_MS))?;
    anyhow::ensure!(fds[0].any() == Some(false), "the keeper is gone");
    Ok(())
}
