//! Threads in other network namespaces. A socket belongs for ever to the namespace it was opened
//! in, so it is enough that the thread which opens it was there.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::thread::{self, JoinHandle};

use anyhow::{Context, anyhow};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::Pid;

use super::machine::threads;

/// What a thread does there.
type Outcome<T> = JoinHandle<anyhow::Result<T>>;

/// Starts `work` on a thread in namespace `name`, on `core` alone if one is given.
pub fn start<T: Send + 'static>(
    name: &str,
    core: Option<usize>,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<Outcome<T>> {
    let path = format!("/run/netns/{name}");
    let namespace = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    let task = move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter {path}"))?;
        if let Some(core) = core {
            pin(0, core)?;
        }
        work()
    };
    thread::Builder::new()
        .name("end".to_owned())
        .spawn(task)
        .context("cannot start a thread")
}

/// Waits for what `start` started.
pub fn finish<T>(handle: Outcome<T>) -> anyhow::Result<T> {
    handle
        .join()
        .map_err(|_| anyhow!("an end of the test panicked"))?
}

/// A listener in namespace `name`, on a port of its own if none is given.
pub fn listener(name: &str, port: Option<u16>) -> anyhow::Result<TcpListener> {
    finish(start(name, None, move || {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port.unwrap_or(0))).context("cannot listen")
    })?)
}

/// A UDP socket in namespace `name`, connected if a peer is given.
pub fn udp(name: &str, peer: Option<SocketAddr>) -> anyhow::Result<UdpSocket> {
    finish(start(name, None, move || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot open a socket")?;
        if let Some(peer) = peer {
            socket
                .connect(peer)
                .with_context(|| format!("no way to {peer}"))?;
        }
        Ok(socket)
    })?)
}

/// MTU of the path from namespace `name` to `address`, as a UDP sender there is told.
pub fn path_mtu(name: &str, address: IpAddr) -> anyhow::Result<u32> {
    let socket = udp(name, Some(SocketAddr::new(address, 9)))?;
    let mtu = getsockopt(&socket, sockopt::IpMtu).context("no path MTU")?;
    u32::try_from(mtu).context("no path MTU")
}

/// Confines a thread (0: this one) to one core.
pub fn pin(thread: i32, core: usize) -> anyhow::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core).context("no such core")?;
    sched_setaffinity(Pid::from_raw(thread), &cores)
        .with_context(|| format!("cannot pin to core {core}"))
}

/// Keeps a datapath's threads on one core while it lives, then lets them run anywhere again.
pub struct Confined<'a> {
    processes: &'a [i32],
}

impl<'a> Confined<'a> {
    /// Moves them.
    pub fn to_core(processes: &'a [i32], core: usize) -> anyhow::Result<Self> {
        let confined = Self { processes };
        for thread in processes.iter().flat_map(|process| threads(*process)) {
            pin(thread, core)?;
        }
        Ok(confined)
    }
}

impl Drop for Confined<'_> {
    fn drop(&mut self) {
        let mut cores = CpuSet::new();
        for core in 0..CpuSet::count() {
            // The kernel leaves out the cores it does not have.
            let _ = cores.set(core);
        }
        for thread in self.processes.iter().flat_map(|process| threads(*process)) {
            let _ = sched_setaffinity(Pid::from_raw(thread), &cores);
        }
    }
}
