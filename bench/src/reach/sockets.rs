//! The sockets of one pod, opened in its network namespace.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};

use super::{PodArg, Target, Transport};
use crate::sctp::packet::{self as sctp, IPV4_HEADER};

/// The discard port: nothing else listens there.
const MARKER_PORT: u16 = 9;

/// Backlog of the listeners: more than there are probes to one port in a round.
const BACKLOG: i32 = 512;

/// A pod that listens.
pub struct Pod {
    pub name: String,
    netns: File,
    node: File,
    addresses: Vec<IpAddr>,
    listeners: Vec<Socket>,
    datagrams: Vec<Socket>,
    /// By family, IPv4 first.
    markers: [Socket; 2],
    sctp: [Socket; 2],
}

/// What sends one round's probes of a pod.
pub struct Senders<'a> {
    udp: Socket,
    sctp: &'a Socket,
    domain: Domain,
}

/// A TCP probe on its way.
pub struct Connecting {
    pub id: u32,
    socket: Socket,
}

fn enter(netns: &File) -> anyhow::Result<()> {
    setns(netns, CloneFlags::CLONE_NEWNET).context("cannot enter a network namespace")
}

fn open(name: &str) -> anyhow::Result<File> {
    let path = format!("/run/netns/{name}");
    File::open(&path).with_context(|| format!("cannot open {path}"))
}

const fn domain(v4: bool) -> Domain {
    if v4 { Domain::IPV4 } else { Domain::IPV6 }
}

fn any(v4: bool) -> IpAddr {
    if v4 {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    }
}

fn socket(v4: bool, kind: Type, protocol: Protocol) -> anyhow::Result<Socket> {
    let socket = Socket::new(domain(v4), kind, Some(protocol)).context("cannot open a socket")?;
    socket.set_nonblocking(true)?;
    // A raw socket has no other family to begin with.
    if !v4 && kind != Type::RAW {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn bound(v4: bool, kind: Type, protocol: Protocol, port: u16) -> anyhow::Result<Socket> {
    let socket = socket(v4, kind, protocol)?;
    socket
        .bind(&SocketAddr::new(any(v4), port).into())
        .with_context(|| format!("cannot bind port {port}"))?;
    Ok(socket)
}

fn udp(v4: bool, port: u16) -> anyhow::Result<Socket> {
    bound(v4, Type::DGRAM, Protocol::UDP, port)
}

impl Pod {
    /// Opens everything a pod listens with.
    pub fn open(pod: &PodArg, ports: &[u16]) -> anyhow::Result<Self> {
        let (netns, node) = (open(&pod.netns)?, open(&pod.node)?);
        enter(&netns)?;
        let (mut listeners, mut datagrams) = (Vec::new(), Vec::new());
        for v4 in [true, false] {
            for port in ports {
                let listener = bound(v4, Type::STREAM, Protocol::TCP, *port)?;
                listener.listen(BACKLOG)?;
                listeners.push(listener);
                datagrams.push(udp(v4, *port)?);
            }
        }
        let raw = |v4| socket(v4, Type::RAW, Protocol::SCTP);
        Ok(Self {
            name: pod.name.clone(),
            addresses: pod.addresses.clone(),
            listeners,
            datagrams,
            markers: [udp(true, MARKER_PORT)?, udp(false, MARKER_PORT)?],
            sctp: [raw(true)?, raw(false)?],
            netns,
            node,
        })
    }

    /// Its address of a family.
    pub fn address(&self, v4: bool) -> anyhow::Result<IpAddr> {
        let mut of_family = self.addresses.iter().filter(|it| it.is_ipv4() == v4);
        match of_family.next() {
            Some(address) => Ok(*address),
            None => bail!("pod {} has no address of that family", self.name),
        }
    }

    /// Fresh senders: a new source port, so that no connection of an earlier round is known.
    pub fn senders(&self, v4: bool) -> anyhow::Result<Senders<'_>> {
        enter(&self.netns)?;
        Ok(Senders {
            udp: udp(v4, 0)?,
            sctp: &self.sctp[usize::from(!v4)],
            domain: domain(v4),
        })
    }

    /// A datagram from the pod's node.
    pub fn send_marker(&self, v4: bool) -> anyhow::Result<()> {
        enter(&self.node)?;
        let to = SocketAddr::new(self.address(v4)?, MARKER_PORT);
        let sent = udp(v4, 0)?.send_to(b"marker", &to.into());
        sent.with_context(|| format!("cannot send to {to}"))?;
        Ok(())
    }

    pub fn marker_arrived(&self, v4: bool) -> bool {
        let mut marker = &self.markers[usize::from(!v4)];
        marker.read(&mut [0; 16]).is_ok()
    }

    /// Takes the numbers of probes that came in.
    pub fn collect(&self, arrived: &mut HashSet<u32>) {
        for socket in &self.datagrams {
            drain(socket, |bytes| {
                arrived.extend(<[u8; 4]>::try_from(bytes).map(u32::from_be_bytes).ok());
            });
        }
        for (socket, skip) in self.sctp.iter().zip([IPV4_HEADER, 0]) {
            drain(socket, |bytes| {
                arrived.extend(bytes.get(skip..).and_then(sctp::tag));
            });
        }
        for listener in &self.listeners {
            while listener.accept().is_ok() {}
        }
    }
}

fn drain(mut socket: &Socket, mut take: impl FnMut(&[u8])) {
    let mut buffer = [0; 256];
    while let Ok(len) = socket.read(&mut buffer) {
        take(&buffer[..len]);
    }
}

impl Senders<'_> {
    /// Sends probe `id`; a refusal by the sender's own kernel counts as not arrived.
    pub fn probe(&self, id: u32, to: IpAddr, target: Target) -> anyhow::Result<Option<Connecting>> {
        let address = SocketAddr::new(to, target.port).into();
        match target.transport {
            Transport::Udp => {
                let _ = self.udp.send_to(&id.to_be_bytes(), &address);
                Ok(None)
            }
            Transport::Sctp => {
                // Ports above the well-known ones, a new one for every probe.
                let source = 1_024 + (id % 60_000) as u16;
                let packet = sctp::init(source, target.port, id);
                let _ = self.sctp.send_to(&packet, &SocketAddr::new(to, 0).into());
                Ok(None)
            }
            Transport::Tcp => {
                let socket = Socket::new(self.domain, Type::STREAM, Some(Protocol::TCP))?;
                socket.set_nonblocking(true)?;
                socket.set_linger(Some(Duration::ZERO))?; // closed with a reset: no port lingers
                let _ = socket.connect(&address); // in progress
                Ok(Some(Connecting { id, socket }))
            }
        }
    }
}

impl Connecting {
    /// Whether the handshake is over and well.
    pub fn is_open(&self) -> bool {
        self.socket.peer_addr().is_ok()
    }
}
