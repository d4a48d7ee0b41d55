//! The first two packets of SCTP associations, INIT and INIT ACK, over raw sockets: whether an address
//! and port are answered, and who answers, where the kernel itself has no SCTP.

pub mod packet;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, Subcommand};
use nix::errno::Errno;
use nix::sys::socket::{SockaddrStorage, recvfrom};
use serde::Serialize;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::report;
use packet::{IPV4_HEADER, Packet};

/// Source port of the first association; each has its own.
const FIRST_PORT: u16 = 20_000;

/// Which end.
#[derive(Subcommand)]
pub enum Side {
    /// Answers every INIT until it is killed
    Server(ServerArgs),
    /// Sends INITs from ports of their own and counts the answers
    Client(ClientArgs),
}

/// Options of the server.
#[derive(Args)]
pub struct ServerArgs {
    /// Address and port to answer at
    #[arg(long)]
    listen: SocketAddr,
}

/// Options of the client.
#[derive(Args)]
pub struct ClientArgs {
    /// Address and port of the server
    #[arg(long)]
    to: SocketAddr,
    /// How many associations
    #[arg(long, default_value_t = 20)]
    count: u16,
    /// Milliseconds an answer may take
    #[arg(long, default_value_t = 1_000)]
    wait: u64,
}

/// What the client saw.
#[derive(Debug, Serialize)]
struct Answers {
    /// INITs sent.
    sent: u16,
    /// Those answered, from the address and port asked, with a right checksum and their own tag.
    answered: usize,
}

/// Runs one end.
pub fn run(side: &Side) -> anyhow::Result<()> {
    match side {
        Side::Server(args) => serve(args.listen),
        Side::Client(args) => report::print(&ask(args)?),
    }
}

fn socket(family: IpAddr) -> anyhow::Result<Socket> {
    let domain = if family.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    };
    Socket::new(domain, Type::RAW, Some(Protocol::SCTP)).context("cannot open a raw socket")
}

/// A raw socket names no port.
fn portless(address: IpAddr) -> SockAddr {
    SocketAddr::new(address, 0).into()
}

/// The next packet that is ours to read, and whom it is from; `None` when the socket's time is over.
fn receive(socket: &Socket) -> anyhow::Result<Option<(Packet, IpAddr)>> {
    let mut buffer = [0; 256];
    loop {
        let (len, from) = match recvfrom::<SockaddrStorage>(socket.as_raw_fd(), &mut buffer) {
            Ok(received) => received,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(error) => return Err(error).context("cannot receive"),
        };
        let v4 = from.and_then(|it| Some(it.as_sockaddr_in()?.ip().into()));
        let v6 = from.and_then(|it| Some(it.as_sockaddr_in6()?.ip().into()));
        let header = if v4.is_some() { IPV4_HEADER } else { 0 };
        let packet = buffer[..len].get(header..).and_then(Packet::parse);
        if let Some(found) = packet.zip(v4.or(v6)) {
            return Ok(Some(found));
        }
    }
}

fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let socket = socket(listen.ip())?;
    socket
        .bind(&portless(listen.ip()))
        .with_context(|| format!("cannot bind {}", listen.ip()))?;
    loop {
        let Some((asked, from)) = receive(&socket)? else {
            continue;
        };
        if asked.destination == listen.port() && !asked.answers {
            // A client that is gone does not end the server.
            let _ = socket.send_to(&asked.answer().bytes(), &portless(from));
        }
    }
}

fn ask(args: &ClientArgs) -> anyhow::Result<Answers> {
    let socket = socket(args.to.ip())?;
    for number in 0..args.count {
        let init = packet::init(FIRST_PORT + number, args.to.port(), u32::from(number) + 1);
        let sent = socket.send_to(&init, &portless(args.to.ip()));
        sent.with_context(|| format!("cannot send to {}", args.to))?;
    }
    let (mut answered, began) = (BTreeSet::new(), Instant::now());
    let wait = Duration::from_millis(args.wait);
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    while began.elapsed() < wait && answered.len() < usize::from(args.count) {
        let Some((packet, from)) = receive(&socket)? else {
            continue;
        };
        let number = packet.destination.wrapping_sub(FIRST_PORT);
        let expected = packet.answers
            && SocketAddr::new(from, packet.source) == args.to
            && number < args.count
            && packet.verification == u32::from(number) + 1;
        if expected {
            answered.insert(number);
        }
    }
    Ok(Answers {
        sent: args.count,
        answered: answered.len(),
    })
}
