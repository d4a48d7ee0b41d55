//! Shortcuts: connections whose data the programs of `bpf/shortcut.bpf.c` send on by themselves.
//!
//! The dataplane adds one for each direction of a TCP or UDP connection of a pod once it has decided about it, with
//! another port of its node or, by the tunnel, with another node. What opens or ends a connection still goes through the
//! dataplane. A shortcut holds while its version is the one in force, so one word takes all of them back; while its
//! ticket is that of its place, so one word takes it back alone; and while the dataplane says from time to time that it
//! lives.

// UNSAFETY: maps the counters into memory and calls the kernel with the descriptors given, which
// libbpf-rs can do for maps it opened itself only.
#![expect(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use zerocopy::{FromZeros, IntoBytes};

use crate::Error;
use crate::intf::{
    SHORTCUTS_MAX, TO_NODE, TO_POD, TO_TUNNEL, WeftAddress4, WeftShortcut, WeftShortcutKey,
    WeftShortcutState, WeftShortcutUse,
};

/// What connections can have a shortcut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
}

/// One direction of a connection, as its packets come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// Of both ends.
    pub protocol: Protocol,
    /// Who sends.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
}

/// What is behind a shortcut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Behind {
    /// The node's own network namespace.
    Node = TO_NODE,
    /// A pod's.
    Pod = TO_POD,
    /// Another node.
    Tunnel = TO_TUNNEL,
}

/// VXLAN over IPv4, as packets of a [`Way`] come or go on in it. Of those that come, only the addresses matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelFrame {
    /// Of the uplink.
    pub source_mac: [u8; 6],
    /// Of the next hop.
    pub destination_mac: [u8; 6],
    /// Tunnel endpoint that sends.
    pub source: Ipv4Addr,
    /// Tunnel endpoint that receives.
    pub destination: Ipv4Addr,
    /// UDP source port: one for each connection, so that the underlay keeps it in order.
    pub source_port: u16,
    /// UDP destination port.
    pub vxlan_port: u16,
    /// The cluster's network identifier.
    pub vni: u32,
}

/// Where the packets of a [`Way`] go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortcut {
    /// Version of the tables it was decided under.
    pub epoch: u32,
    /// The one interface they come in by.
    pub rx_ifindex: u32,
    /// Interface they leave by.
    pub tx_ifindex: u32,
    /// What is there.
    pub to: Behind,
    /// The tunnel they come by, when it is to a pod, or go on by.
    pub tunnel: Option<TunnelFrame>,
    /// Where they are counted: below [`SHORTCUTS_MAX`].
    pub place: u32,
    /// Given to [`ShortcutMaps::open_place`].
    pub ticket: u32,
    /// The largest IP packet `tx_ifindex` takes.
    pub mtu: u32,
    /// MAC address they must come from.
    pub pod_mac: [u8; 6],
    /// MAC address they must be for.
    pub gateway_mac: [u8; 6],
    /// MAC address they will come from.
    pub sender_mac: [u8; 6],
    /// MAC address they will be for.
    pub peer_mac: [u8; 6],
    /// Source and destination they go on with; none when it is those they came with.
    pub translation: Option<(SocketAddr, SocketAddr)>,
}

/// Which shortcuts hold, and how long without another word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Those of this version; none has 0.
    pub epoch: u32,
    /// CLOCK_MONOTONIC, in nanoseconds.
    pub until_ns: u64,
    /// Packets that passed the first program by one of a version from this on, before `epoch`, pass the second one too.
    /// `epoch` itself when there is none such.
    pub former: u32,
    /// Until when they do: CLOCK_MONOTONIC, in nanoseconds.
    pub former_until_ns: u64,
}

/// What went by a shortcut since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Packets.
    pub packets: u64,
    /// Bytes of IP packets.
    pub bytes: u64,
    /// CLOCK_MONOTONIC of the last packet ever, in nanoseconds; 0 without one.
    pub last_ns: u64,
    /// Highest TCP sequence number behind a segment.
    pub end_sequence: u32,
}

/// The maps, for the one who decides. The descriptors come from [`crate::Programs::shortcut_maps`].
#[derive(Debug)]
pub struct ShortcutMaps {
    shortcuts: OwnedFd,
    uses: Mapped<WeftShortcutUse>,
    state: Mapped<WeftShortcutState>,
}

impl ShortcutMaps {
    /// Opens them by their descriptors, in the order they were given out.
    ///
    /// # Errors
    /// When one is not what it should be, as that of programs of another version.
    pub fn open(descriptors: [OwnedFd; 3]) -> Result<Self, Error> {
        let word = size_of::<u32>();
        let sizes = [
            (size_of::<WeftShortcutKey>(), size_of::<WeftShortcut>()),
            (word, size_of::<WeftShortcutUse>()),
            (word, size_of::<WeftShortcutState>()),
        ];
        for (map, sizes) in descriptors.iter().zip(sizes) {
            let asked = libbpf_rs::MapInfo::new(map.as_fd());
            let info = asked.map_err(|source| Error::Map {
                doing: "ask about a map of shortcuts".to_owned(),
                source,
            })?;
            let actual = (info.info.key_size as usize, info.info.value_size as usize);
            if actual != sizes {
                return Err(Error::Invalid(format!(
                    "a map of shortcuts has keys and values of {actual:?} bytes, not {sizes:?}: its programs are of another version"
                )));
            }
        }
        Self::over(descriptors)
    }

    /// As [`ShortcutMaps::open`] of what may be plain memory, where no program looks: for tests.
    ///
    /// # Errors
    /// When one cannot be mapped.
    pub fn over([shortcuts, uses, state]: [OwnedFd; 3]) -> Result<Self, Error> {
        Ok(Self {
            shortcuts,
            uses: Mapped::new(&uses, SHORTCUTS_MAX)?,
            state: Mapped::new(&state, 1)?,
        })
    }

    /// Adds or replaces a shortcut.
    ///
    /// # Errors
    /// Addresses of two families, a place beyond the last, a tunnel that is not said or not used, a full map.
    pub fn set(&self, way: &Way, shortcut: &Shortcut) -> Result<(), Error> {
        let of_one_family = |(source, destination): (SocketAddr, SocketAddr)| {
            [source, destination]
                .iter()
                .all(|it| it.is_ipv4() == way.source.is_ipv4())
        };
        if !of_one_family((way.source, way.destination))
            || !shortcut.translation.is_none_or(of_one_family)
        {
            return Err(Error::Invalid(format!(
                "a shortcut from {} to {}: two families",
                way.source, way.destination
            )));
        }
        if matches!(
            (shortcut.to, shortcut.tunnel),
            (Behind::Tunnel, None) | (Behind::Node, Some(_))
        ) {
            return Err(Error::Invalid(format!(
                "a shortcut to {:?} by {:?}",
                shortcut.to, shortcut.tunnel
            )));
        }
        if shortcut.place >= SHORTCUTS_MAX {
            return Err(Error::Invalid(format!(
                "shortcut {} of {SHORTCUTS_MAX}",
                shortcut.place
            )));
        }
        let (key, value) = (key(way), value(way, shortcut));
        // SAFETY: key and value have the sizes of the map's: `open` asked, and what is no map the kernel refuses.
        let result = unsafe {
            libbpf_sys::bpf_map_update_elem(
                self.shortcuts.as_raw_fd(),
                key.as_bytes().as_ptr().cast(),
                value.as_bytes().as_ptr().cast(),
                u64::from(libbpf_sys::BPF_ANY),
            )
        };
        checked(result, || format!("add a shortcut from {}", way.source))
    }

    /// Removes a shortcut; one that is not there is success.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn clear(&self, way: &Way) -> Result<(), Error> {
        self.delete(&key(way))
    }

    /// Removes all of them.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn clear_all(&self) -> Result<(), Error> {
        let mut key = WeftShortcutKey::new_zeroed();
        // SAFETY: `key` has the size of the map's.
        while unsafe {
            let first = std::ptr::null();
            let next = key.as_mut_bytes().as_mut_ptr().cast();
            libbpf_sys::bpf_map_get_next_key(self.shortcuts.as_raw_fd(), first, next) == 0
        } {
            self.delete(&key)?;
        }
        Ok(())
    }

    fn delete(&self, key: &WeftShortcutKey) -> Result<(), Error> {
        // SAFETY: `key` has the size of the map's.
        let result = unsafe {
            let key = key.as_bytes().as_ptr().cast();
            libbpf_sys::bpf_map_delete_elem(self.shortcuts.as_raw_fd(), key)
        };
        if result == -libc::ENOENT {
            return Ok(());
        }
        checked(result, || "remove a shortcut".to_owned())
    }

    /// Says which shortcuts hold. Takes effect with the next packet; no system call.
    pub fn hold(&self, hold: Hold) {
        let state = self.state.at(0);
        // First what is on its way: there is no moment in which the version that was in force is neither that nor former.
        word32(&state, 20).store(hold.former, Ordering::Release);
        word64(&state, 8).store(hold.former_until_ns, Ordering::Release);
        // Never the new version with the old time: a shortcut must not outlive its dataplane.
        word32(&state, 16).store(0, Ordering::Release);
        word64(&state, 0).store(hold.until_ns, Ordering::Release);
        word32(&state, 16).store(hold.epoch, Ordering::Release);
    }

    /// The version in force, 0 when none is: also that of a dataplane which ended. No system call.
    pub fn epoch(&self) -> u32 {
        word32(&self.state.at(0), 16).load(Ordering::Acquire)
    }

    /// Lets the shortcuts that hold do so for longer. No system call.
    pub fn renew(&self, until_ns: u64) {
        word64(&self.state.at(0), 0).store(until_ns, Ordering::Release);
    }

    /// What went by a shortcut since this was asked last. No system call.
    pub fn take(&self, place: u32) -> Taken {
        let used = self.uses.at(place.min(SHORTCUTS_MAX - 1));
        Taken {
            packets: word64(&used, 0).swap(0, Ordering::Relaxed),
            bytes: word64(&used, 8).swap(0, Ordering::Relaxed),
            last_ns: word64(&used, 16).load(Ordering::Relaxed),
            end_sequence: word32(&used, 24).load(Ordering::Relaxed),
        }
    }

    /// Makes a place ready for the shortcut with this ticket, which is not 0: nothing went by it, and its
    /// connection is at this sequence number. No system call.
    pub fn open_place(&self, place: u32, end_sequence: u32, ticket: u32) {
        let used = self.uses.at(place.min(SHORTCUTS_MAX - 1));
        // Nobody counts while the numbers change.
        word32(&used, 28).store(0, Ordering::Release);
        for offset in [0, 8, 16] {
            word64(&used, offset).store(0, Ordering::Release);
        }
        word32(&used, 24).store(end_sequence, Ordering::Release);
        word32(&used, 28).store(ticket, Ordering::Release);
    }

    /// Takes the shortcut of a place back, from the next packet on. No system call.
    pub fn close_place(&self, place: u32) {
        let used = self.uses.at(place.min(SHORTCUTS_MAX - 1));
        word32(&used, 28).store(0, Ordering::Release);
    }

    /// Ticket of the shortcut that is counted at a place; 0 when none is. No system call.
    pub fn ticket(&self, place: u32) -> u32 {
        let used = self.uses.at(place.min(SHORTCUTS_MAX - 1));
        word32(&used, 28).load(Ordering::Acquire)
    }
}

fn key(way: &Way) -> WeftShortcutKey {
    WeftShortcutKey {
        source: mapped(way.source.ip()),
        destination: mapped(way.destination.ip()),
        source_port_be: way.source.port().into(),
        destination_port_be: way.destination.port().into(),
        protocol: way.protocol as u8,
        pad: [0; 3],
    }
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn value(way: &Way, shortcut: &Shortcut) -> WeftShortcut {
    let (source, destination) = shortcut
        .translation
        .unwrap_or((way.source, way.destination));
    let within_node = WeftShortcut {
        epoch: shortcut.epoch,
        rx_ifindex: shortcut.rx_ifindex,
        tx_ifindex: shortcut.tx_ifindex,
        place: shortcut.place,
        ticket: shortcut.ticket,
        mtu: shortcut.mtu,
        pod_mac: shortcut.pod_mac,
        gateway_mac: shortcut.gateway_mac,
        peer_mac: shortcut.peer_mac,
        to: shortcut.to as u8,
        translated: shortcut.translation.is_some().into(),
        source: mapped(source.ip()),
        destination: mapped(destination.ip()),
        source_port_be: source.port().into(),
        destination_port_be: destination.port().into(),
        sender_mac: shortcut.sender_mac,
        ..WeftShortcut::new_zeroed()
    };
    let Some(tunnel) = shortcut.tunnel else {
        return within_node;
    };
    WeftShortcut {
        tunnel_source_mac: tunnel.source_mac,
        tunnel_destination_mac: tunnel.destination_mac,
        tunnel_port_be: tunnel.source_port.into(),
        tunnel_source: WeftAddress4::from(tunnel.source),
        tunnel_destination: WeftAddress4::from(tunnel.destination),
        vni: tunnel.vni,
        vxlan_port_be: tunnel.vxlan_port.into(),
        ..within_node
    }
}

fn checked(result: i32, doing: impl FnOnce() -> String) -> Result<(), Error> {
    match result {
        0 => Ok(()),
        error => Err(Error::Map {
            doing: doing(),
            source: io::Error::from_raw_os_error(-error).into(),
        }),
    }
}

/// The values of an array map, mapped into memory that the programs change too.
#[derive(Debug)]
struct Mapped<T> {
    start: NonNull<T>,
    count: u32,
}

// SAFETY: the memory is reached through atomics only.
unsafe impl<T> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Mapped<T> {}

/// One value of it.
struct Value<'a> {
    start: NonNull<u8>,
    bytes: usize,
    _mapped: std::marker::PhantomData<&'a ()>,
}

impl<T> Mapped<T> {
    fn new(map: &OwnedFd, count: u32) -> Result<Self, Error> {
        // SAFETY: a new mapping, of nothing anybody has a reference to.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Self::bytes(count),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        let failed = || Error::Map {
            doing: "map the counters of shortcuts".to_owned(),
            source: io::Error::last_os_error().into(),
        };
        if start == libc::MAP_FAILED {
            return Err(failed());
        }
        let start = NonNull::new(start.cast()).ok_or_else(failed)?;
        Ok(Self { start, count })
    }

    const fn bytes(count: u32) -> usize {
        count as usize * size_of::<T>()
    }

    fn at(&self, place: u32) -> Value<'_> {
        assert!(place < self.count, "place {place} of {}", self.count);
        // SAFETY: within the mapping, as checked.
        let start = unsafe { self.start.add(place as usize) };
        Value {
            start: start.cast(),
            bytes: size_of::<T>(),
            _mapped: std::marker::PhantomData,
        }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this size; values do not outlive it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), Self::bytes(self.count)) };
    }
}

fn word64<'a>(value: &Value<'a>, offset: usize) -> &'a AtomicU64 {
    assert!(offset.is_multiple_of(8) && offset + 8 <= value.bytes);
    // SAFETY: inside the value, aligned as values are; other sides change it by atomics too.
    unsafe { AtomicU64::from_ptr(value.start.add(offset).as_ptr().cast()) }
}

fn word32<'a>(value: &Value<'a>, offset: usize) -> &'a AtomicU32 {
    assert!(offset.is_multiple_of(4) && offset + 4 <= value.bytes);
    // SAFETY: as above.
    unsafe { AtomicU32::from_ptr(value.start.add(offset).as_ptr().cast()) }
}
