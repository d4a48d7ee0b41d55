//! Loads the programs and keeps their maps.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, ObjectBuilder, OpenObject, ProgramMut};
use zerocopy::IntoBytes;

use crate::filter::TcFilter;
use crate::intf::{SLOTS_MAX, WeftPort};
use crate::link::{self, XdpLink, XdpMode};
use crate::steering::{Steering, SteeringMaps};
use crate::{Error, Verdict};

/// libelf reads the object through structures of eight-byte alignment.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static POD_OBJECT: &Aligned<[u8]> =
    &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/pod.bpf.o")));
static UPLINK_OBJECT: &Aligned<[u8]> =
    &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/uplink.bpf.o")));
static SHORTCUT_OBJECT: &Aligned<[u8]> =
    &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/shortcut.bpf.o")));

/// Maps the objects of both XDP programs declare and must share.
const SHARED_MAPS: [&str; 3] = ["xsks", "ports", "verdicts"];

/// Files [`Programs::pin`] creates.
pub const PIN_NAMES: [&str; 3] = SHARED_MAPS;

/// Maps of the shortcuts, which the uplink program takes too.
const SHORTCUT_MAPS: [&str; 3] = ["shortcuts", "shortcut_uses", "shortcut_state"];

/// The one map the object of the shortcuts shares with both.
const COUNTERS: &str = "verdicts";

/// Which program an interface gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Takes everything, drops what has no socket.
    Pod,
    /// Takes what is ours, passes the rest.
    Uplink,
    /// At the far end of a port, where packets leave: sends what has a shortcut past the first program.
    ShortcutOut,
    /// At a port, where they come in: sends that on, and drops whatever else comes past the first program.
    ShortcutIn,
}

impl Program {
    fn object_name(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Uplink => "uplink",
            Self::ShortcutOut | Self::ShortcutIn => "shortcut",
        }
    }

    fn function_name(self) -> &'static str {
        match self {
            Self::Pod => "weft_pod",
            Self::Uplink => "weft_uplink",
            Self::ShortcutOut => "weft_shortcut_out",
            Self::ShortcutIn => "weft_shortcut_in",
        }
    }

    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Pod => &POD_OBJECT.0,
            Self::Uplink => &UPLINK_OBJECT.0,
            Self::ShortcutOut | Self::ShortcutIn => &SHORTCUT_OBJECT.0,
        }
    }
}

/// The XSK slots of an interface: queue `q` has slot `base + q`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRange {
    /// Slot of queue 0.
    pub base: u32,
    /// Queues.
    pub queues: u32,
}

/// The program for far ends of ports, which may be in other network namespaces.
#[derive(Debug)]
pub struct ShortcutOut(OwnedFd);

impl ShortcutOut {
    /// Attaches it to an interface of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::AttachShortcut`].
    pub fn attach(&self, ifindex: u32) -> Result<(), Error> {
        TcFilter::attach(Program::ShortcutOut, self.0.as_fd(), ifindex).map(drop)
    }
}

/// The loaded programs and their maps. Dropping it unloads what is neither attached nor pinned.
pub struct Programs {
    pod: Object,
    uplink: Object,
    shortcut: Object,
    xsks: MapHandle,
    ports: MapHandle,
    verdicts: MapHandle,
    shortcuts: [MapHandle; 3],
    steering: SteeringMaps,
}

impl Programs {
    /// Loads all programs; nothing is attached and every map is empty.
    ///
    /// # Errors
    /// When the kernel refuses an object (privileges, verifier, memory).
    pub fn load() -> Result<Self, Error> {
        let pod = load(open(Program::Pod)?, Program::Pod)?;
        let verdicts = map(&pod, Program::Pod, COUNTERS)?;
        let mut shortcut = open(Program::ShortcutIn)?;
        share(&mut shortcut, Program::ShortcutIn, &verdicts, COUNTERS)?;
        let shortcut = load(shortcut, Program::ShortcutIn)?;
        let of_shortcuts = |name| map(&shortcut, Program::ShortcutIn, name);
        let mut uplink = open(Program::Uplink)?;
        for name in SHARED_MAPS {
            let shared = map(&pod, Program::Pod, name)?;
            share(&mut uplink, Program::Uplink, &shared, name)?;
        }
        for name in SHORTCUT_MAPS {
            share(&mut uplink, Program::Uplink, &of_shortcuts(name)?, name)?;
        }
        let uplink = load(uplink, Program::Uplink)?;
        let [all, uses, state] = SHORTCUT_MAPS.map(of_shortcuts);
        let shortcuts = [all?, uses?, state?];
        Ok(Self {
            xsks: map(&pod, Program::Pod, "xsks")?,
            ports: map(&pod, Program::Pod, "ports")?,
            verdicts,
            shortcuts,
            steering: SteeringMaps::new(|name| map(&uplink, Program::Uplink, name))?,
            pod,
            uplink,
            shortcut,
        })
    }

    /// Tells the programs which slots interface `ifindex` has.
    ///
    /// # Errors
    /// When the range does not fit, or the table is full.
    pub fn set_port(&self, ifindex: u32, slots: SlotRange) -> Result<(), Error> {
        if slots
            .base
            .checked_add(slots.queues)
            .is_none_or(|end| end > SLOTS_MAX)
        {
            return Err(Error::Invalid(format!(
                "{} slots from {} are beyond the last one, {SLOTS_MAX}",
                slots.queues, slots.base
            )));
        }
        let value = WeftPort {
            base_slot: slots.base,
            queues: slots.queues,
        };
        self.ports
            .update(&ifindex.to_ne_bytes(), value.as_bytes(), MapFlags::ANY)
            .map_err(map_error(|| format!("add interface {ifindex}")))
    }

    /// Forgets an interface; an unknown one is success.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn clear_port(&self, ifindex: u32) -> Result<(), Error> {
        absent_is_fine(self.ports.delete(&ifindex.to_ne_bytes()))
            .map_err(map_error(|| format!("remove interface {ifindex}")))
    }

    /// Tells the programs which packet hash has the kernel work on a packet on `core`.
    ///
    /// # Errors
    /// When there is no such core ([`crate::intf::CORES_MAX`]).
    pub fn set_core_hash(&self, core: u32, hash: u32) -> Result<(), Error> {
        map(&self.shortcut, Program::ShortcutOut, "core_hashes")?
            .update(&core.to_ne_bytes(), &hash.to_ne_bytes(), MapFlags::ANY)
            .map_err(map_error(|| format!("set the hash of core {core}")))
    }

    /// Puts an AF_XDP socket into a slot.
    ///
    /// # Errors
    /// When the slot does not exist or the descriptor is no AF_XDP socket.
    pub fn set_slot(&self, slot: u32, socket: BorrowedFd<'_>) -> Result<(), Error> {
        self.xsks
            .update(
                &slot.to_ne_bytes(),
                &socket.as_raw_fd().to_ne_bytes(),
                MapFlags::ANY,
            )
            .map_err(map_error(|| format!("put a socket into slot {slot}")))
    }

    /// Empties a slot; an empty one is success.
    ///
    /// # Errors
    /// When the slot does not exist.
    pub fn clear_slot(&self, slot: u32) -> Result<(), Error> {
        absent_is_fine(self.xsks.delete(&slot.to_ne_bytes()))
            .map_err(map_error(|| format!("empty slot {slot}")))
    }

    /// Attaches a program in the mode given.
    ///
    /// # Errors
    /// [`Error::Attach`]; see [`Error::is_busy`].
    pub fn attach(&self, ifindex: u32, program: Program, mode: XdpMode) -> Result<XdpLink, Error> {
        XdpLink::attach(program, self.program(program)?.as_fd(), ifindex, mode)
    }

    /// Attaches a program in native mode, or in generic mode where the driver has none (VLAN and
    /// bond devices, a veth whose peer's MTU is beyond its native limit).
    ///
    /// # Errors
    /// [`Error::Attach`] of the generic attempt; a device that carries another program is not tried
    /// twice.
    pub fn attach_best(&self, ifindex: u32, program: Program) -> Result<XdpLink, Error> {
        match self.attach(ifindex, program, XdpMode::Native) {
            Err(error) if !error.is_busy() => self.attach(ifindex, program, XdpMode::Generic),
            result => result,
        }
    }

    /// The program that sends what has a shortcut past the pod program, for another thread to attach.
    ///
    /// # Errors
    /// [`Error::Incomplete`], or no free descriptor.
    pub fn shortcut_out(&self) -> Result<ShortcutOut, Error> {
        let program = self.program(Program::ShortcutOut)?;
        let fd = program.as_fd().try_clone_to_owned();
        fd.map(ShortcutOut).map_err(Error::Descriptor)
    }

    /// Attaches the program that takes what comes past the pod program at a port.
    ///
    /// # Errors
    /// [`Error::AttachShortcut`].
    pub fn attach_shortcut_in(&self, ifindex: u32) -> Result<TcFilter, Error> {
        let program = Program::ShortcutIn;
        TcFilter::attach(program, self.program(program)?.as_fd(), ifindex)
    }

    /// Makes the uplink program take exactly what `steering` says.
    ///
    /// # Errors
    /// When a limit is exceeded (then nothing changed), or the kernel refuses.
    pub fn steer(&mut self, steering: &Steering) -> Result<(), Error> {
        self.steering.apply(steering)
    }

    /// What [`crate::ShortcutMaps::open`] takes.
    pub fn shortcut_maps(&self) -> [BorrowedFd<'_>; 3] {
        self.shortcuts.each_ref().map(AsFd::as_fd)
    }

    /// Packets by verdict since the programs were loaded, all processors together.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn verdicts(&self) -> Result<Vec<(Verdict, u64)>, Error> {
        Verdict::ALL
            .into_iter()
            .map(|verdict| Ok((verdict, self.count_of(verdict)?)))
            .collect()
    }

    /// Pins the shared maps below `directory`, on a bpffs, for people and tools to look at. See
    /// [`PIN_NAMES`].
    ///
    /// # Errors
    /// When the kernel refuses, e.g. because a file exists.
    pub fn pin(&self, directory: &Path) -> Result<(), Error> {
        for (name, map) in PIN_NAMES
            .into_iter()
            .zip([&self.xsks, &self.ports, &self.verdicts])
        {
            link::pin(map.as_fd(), &directory.join(name))?;
        }
        Ok(())
    }

    pub(crate) fn program(&self, program: Program) -> Result<ProgramMut<'_>, Error> {
        let object = match program {
            Program::Pod => &self.pod,
            Program::Uplink => &self.uplink,
            Program::ShortcutOut | Program::ShortcutIn => &self.shortcut,
        };
        object
            .progs_mut()
            .find(|candidate| candidate.name() == program.function_name())
            .ok_or(Error::Incomplete {
                program: program.object_name(),
                what: program.function_name(),
            })
    }

    fn count_of(&self, verdict: Verdict) -> Result<u64, Error> {
        let per_cpu = self
            .verdicts
            .lookup_percpu(&(verdict as u32).to_ne_bytes(), MapFlags::ANY)
            .map_err(map_error(|| format!("read counter {}", verdict.name())))?;
        let counts = per_cpu.unwrap_or_default();
        Ok(counts
            .iter()
            .filter_map(|bytes| bytes.first_chunk().map(|chunk| u64::from_ne_bytes(*chunk)))
            .sum())
    }
}

fn open(program: Program) -> Result<OpenObject, Error> {
    ObjectBuilder::default()
        .name(program.object_name())
        .and_then(|builder| builder.open_memory(program.bytes()))
        .map_err(load_error(program))
}

fn load(object: OpenObject, program: Program) -> Result<Object, Error> {
    object.load().map_err(load_error(program))
}

fn load_error(program: Program) -> impl FnOnce(libbpf_rs::Error) -> Error {
    move |source| Error::Load {
        program: program.object_name(),
        source,
    }
}

/// Makes `object` use an existing map for its own declaration of the same name.
fn share(
    object: &mut OpenObject,
    program: Program,
    existing: &MapHandle,
    name: &'static str,
) -> Result<(), Error> {
    let mut declared =
        object
            .maps_mut()
            .find(|map| map.name() == name)
            .ok_or(Error::Incomplete {
                program: program.object_name(),
                what: name,
            })?;
    declared
        .reuse_fd(existing.as_fd())
        .map_err(map_error(|| format!("share map {name}")))
}

fn map(object: &Object, program: Program, name: &'static str) -> Result<MapHandle, Error> {
    let map = object
        .maps()
        .find(|map| map.name() == name)
        .ok_or(Error::Incomplete {
            program: program.object_name(),
            what: name,
        })?;
    MapHandle::try_from(&map).map_err(map_error(|| format!("hold map {name}")))
}

fn map_error(doing: impl FnOnce() -> String) -> impl FnOnce(libbpf_rs::Error) -> Error {
    |source| Error::Map {
        doing: doing(),
        source,
    }
}

fn absent_is_fine(result: libbpf_rs::Result<()>) -> libbpf_rs::Result<()> {
    match result {
        Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
