//! What is asked, done: the memory, the sockets, the programs and their pins.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use weft_api::dataplane::{Counter, Feature, PortKind};
use weft_api::envelope::{ApiError, ErrorKind};
use weft_xdp_progs::{Program, Programs, SlotRange, TcFilter, XdpLink, XdpMode};
use weft_xsk::{Bound, Umem, UmemError};

use crate::bpffs::Bpffs;
use crate::core_steering;
use crate::flows::Flows;
use crate::interface::{self, Interface};
use crate::large_packets;
use crate::protocol::{
    BindRequest, CONFIG_BYTES_MAX, FlowsRecord, FlowsRequest, PortRecord, Steering,
};
use crate::queues::{Binder, open_packet_socket, queue_records, rings_of, wanted_queues};
use crate::registry::{Place, Registry};
use crate::shortcut_filters;
use crate::virtual_wire::VirtualWire;

/// Why the broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The frame memory cannot be made.
    #[error("cannot make the memory of {frames} frames: {source}")]
    Memory {
        /// Frames wanted.
        frames: u32,
        /// Why.
        source: UmemError,
    },
    /// The XDP programs cannot be loaded or pinned.
    #[error(transparent)]
    Programs(#[from] weft_xdp_progs::Error),
    /// The bpffs cannot be mounted or used.
    #[error("cannot use the bpffs at {path}: {source}")]
    Bpffs {
        /// Its mount point.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A bound interface and what holds it. Dropping it closes the sockets and, unless pinned, detaches.
#[derive(Debug)]
struct BoundPort {
    record: PortRecord,
    sockets: Vec<Rc<Bound>>,
    packet_socket: Option<Rc<OwnedFd>>,
    /// None while the port is held.
    link: Option<XdpLink>,
    /// Of uplinks, and where the kernel has none: none.
    shortcut: Option<TcFilter>,
    /// Of uplinks that are virtual wires.
    wire: Option<VirtualWire>,
}

/// An answer's descriptors: shared, because a port may be gone before the last byte is sent.
#[derive(Clone, Debug)]
pub enum Descriptor {
    /// The frames, or a worker's connections.
    Memory(Rc<OwnedFd>),
    /// A socket.
    Socket(Rc<Bound>),
    /// A port's packet socket.
    PacketSocket(Rc<OwnedFd>),
    /// A map of the programs.
    Map(Rc<OwnedFd>),
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Memory(fd) | Self::PacketSocket(fd) | Self::Map(fd) => fd.as_fd(),
            Self::Socket(bound) => bound.fd.as_fd(),
        }
    }
}

/// Owner of everything that outlives a dataplane.
pub struct Broker {
    umem: Umem,
    memory: Rc<OwnedFd>,
    programs: Programs,
    bpffs: Bpffs,
    ports: Registry<BoundPort>,
    flows: Flows,
    features: Vec<Feature>,
    /// Whether the kernel has the hooks of shortcuts.
    has_tcx: bool,
}

impl Broker {
    /// Makes the memory, loads the programs, pins their maps below `bpffs`.
    ///
    /// # Errors
    /// When one of them fails; what was mounted is unmounted again.
    pub fn start(frames: u32, bpffs: &Path) -> Result<Self, BrokerError> {
        // Huge pages where some are set aside.
        let (umem, memory) = Umem::create_memfd(frames, true)
            .map_err(|source| BrokerError::Memory { frames, source })?;
        let programs = Programs::load()?;
        let mounted = Bpffs::open(bpffs).map_err(|source| BrokerError::Bpffs {
            path: bpffs.to_owned(),
            source,
        })?;
        if let Err(error) = programs.pin(&mounted.directory()) {
            let _ = mounted.close();
            return Err(error.into());
        }
        Ok(Self {
            umem,
            memory: Rc::new(memory),
            programs,
            bpffs: mounted,
            ports: Registry::default(),
            flows: Flows::default(),
            features: features(),
            has_tcx: weft_xdp_progs::has_tcx(),
        })
    }

    /// Frames in the memory.
    pub fn frames(&self) -> u32 {
        self.umem.frames()
    }

    /// Whether the memory is on huge pages.
    pub fn huge_pages(&self) -> bool {
        self.umem.huge_pages()
    }

    /// What this kernel offers.
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// The memory's descriptor.
    pub fn memory(&self) -> Descriptor {
        Descriptor::Memory(Rc::clone(&self.memory))
    }

    /// Everything bound, by id.
    pub fn ports(&self) -> Vec<PortRecord> {
        self.ports.iter().map(|port| port.record.clone()).collect()
    }

    /// The sockets of every port, in the order of [`Broker::ports`].
    pub fn sockets(&self) -> Vec<Descriptor> {
        self.ports.iter().flat_map(BoundPort::descriptors).collect()
    }

    /// Binds an interface's queues and attaches its program.
    ///
    /// # Errors
    /// With nothing changed.
    pub fn bind(
        &mut self,
        request: BindRequest,
    ) -> Result<(PortRecord, Vec<Descriptor>), ApiError> {
        check_config(&request.config)?;
        let interface = self.find(&request)?;
        let queues = wanted_queues(&request, interface)?;
        let rings = rings_of(request.kind);
        let place = self
            .ports
            .place(queues)
            .map_err(|full| ApiError::new(ErrorKind::Exhausted, full.to_string()))?;
        let binder = self.binder(&request.ifname, interface.index, request.kind);
        let sockets = match request.hold {
            true => binder.open(queues)?,
            false => binder.bind(queues, request.zero_copy)?,
        };
        let packet_socket = open_packet_socket(&request, interface.index, &sockets)?;
        let link = match request.hold {
            true => None,
            false => {
                let installed = self.install(place, interface.index, request.kind, &sockets);
                let undo = |error| self.undo(place, interface.index, &request.ifname, &error);
                Some(installed.map_err(undo)?)
            }
        };
        let (shortcut, shortcuts) = self
            .attach_shortcuts(place.id, interface.index, &request)
            .map_err(|error| self.undo(place, interface.index, &request.ifname, &error))?;
        let wire = match request.kind {
            PortKind::Uplink => VirtualWire::prepare(&request.ifname, interface.index),
            PortKind::Pod | PortKind::Node => None,
        };
        let record = PortRecord {
            id: place.id,
            ifname: request.ifname,
            ifindex: interface.index,
            kind: request.kind,
            queues: queue_records(place.slots, rings, &sockets),
            packet_socket: packet_socket.is_some(),
            shortcuts,
            xdp_mode: link.as_ref().map_or(XdpMode::Generic, XdpLink::mode).into(),
            config: request.config,
        };
        let port = BoundPort {
            record: record.clone(),
            sockets,
            packet_socket,
            link,
            shortcut,
            wire,
        };
        let descriptors = port.descriptors().collect();
        self.ports.insert(place, port);
        Ok((record, descriptors))
    }

    /// Binds the sockets of a held port and attaches its program; of any other port, says what it is.
    ///
    /// # Errors
    /// NotFound, or what the kernel refuses; the port stays held then.
    pub fn activate(&mut self, id: u16) -> Result<PortRecord, ApiError> {
        let port = self.ports.get(id).ok_or_else(|| no_port(id))?;
        if port.link.is_some() {
            return Ok(port.record.clone());
        }
        let PortRecord {
            ifindex,
            kind,
            ref ifname,
            ref queues,
            ..
        } = port.record;
        self.binder(ifname, ifindex, kind)
            .bind_open(&port.sockets)?;
        let place = Place {
            id,
            slots: SlotRange {
                base: queues.first().map_or(0, |queue| u32::from(queue.slot)),
                queues: queues.len() as u32,
            },
        };
        let link = self
            .install(place, ifindex, kind, &port.sockets)
            .map_err(|error| self.undo(place, ifindex, ifname, &error))?;
        let port = self.ports.get_mut(id).ok_or_else(|| no_port(id))?;
        port.record.xdp_mode = link.mode().into();
        port.link = Some(link);
        Ok(port.record.clone())
    }

    /// Gives up every port that is held: whoever mapped its sockets is gone.
    pub fn drop_held(&mut self) {
        let held = self.ports.iter().filter(|port| port.link.is_none());
        let held: Vec<u16> = held.map(|port| port.record.id).collect();
        for id in held {
            self.unbind(id);
        }
    }

    /// Replaces a port's description.
    ///
    /// # Errors
    /// NotFound, or BadRequest for one that is too long.
    pub fn configure(&mut self, id: u16, config: serde_json::Value) -> Result<(), ApiError> {
        check_config(&config)?;
        let port = self.ports.get_mut(id).ok_or_else(|| no_port(id))?;
        port.record.config = config;
        Ok(())
    }

    /// Detaches a port's program and closes its sockets. Succeeds for a port that is not there and for
    /// one whose interface is gone. Returns what it was.
    pub fn unbind(&mut self, id: u16) -> Option<PortRecord> {
        let (slots, port) = self.ports.remove(id)?;
        self.remove_pin(id);
        // While it receives by XDP: without, it has nothing a thread could do.
        drop(port.wire);
        if let Some(Err(error)) = port.link.map(XdpLink::detach) {
            tracing::warn!(%error, port = id, "the program goes with the last descriptor");
        }
        if let Some(Err(error)) = port.shortcut.map(TcFilter::detach) {
            tracing::debug!(%error, port = id, "the program goes with the interface");
        }
        self.uninstall(slots, port.record.ifindex);
        Some(port.record)
    }

    /// Makes the uplinks take exactly what `steering` says.
    ///
    /// # Errors
    /// BadRequest beyond a limit, Failed when the kernel refuses.
    pub fn steer(&mut self, steering: Steering) -> Result<(), ApiError> {
        use weft_xdp_progs::Error;
        self.programs.steer(&steering.into()).map_err(|error| {
            let kind = match error {
                Error::TooMany { .. } | Error::Invalid(_) => ErrorKind::BadRequest,
                _ => ErrorKind::Failed,
            };
            ApiError::new(kind, error.to_string())
        })
    }

    /// Memory for the connections of a worker.
    ///
    /// # Errors
    /// BadRequest beyond a limit, Failed when the kernel refuses.
    pub fn flows(&mut self, request: FlowsRequest) -> Result<(FlowsRecord, Descriptor), ApiError> {
        let (region, kept) = self.flows.get(request)?;
        Ok((FlowsRecord { kept }, Descriptor::Memory(region)))
    }

    /// The maps of shortcuts.
    ///
    /// # Errors
    /// Failed without a free descriptor, or on a kernel that has none.
    pub fn shortcuts(&self) -> Result<Vec<Descriptor>, ApiError> {
        if !self.has_tcx {
            let message = "this kernel has no tcx (Linux 6.6)";
            return Err(ApiError::new(ErrorKind::Failed, message));
        }
        let maps = self.programs.shortcut_maps().into_iter();
        let descriptors = maps.map(|map| Ok(Descriptor::Map(Rc::new(map.try_clone_to_owned()?))));
        descriptors.collect::<io::Result<_>>().map_err(|error| {
            ApiError::new(ErrorKind::Failed, format!("the maps of shortcuts: {error}"))
        })
    }

    /// Packets by what the programs decided.
    pub fn verdicts(&self) -> Vec<Counter> {
        let counts = self.programs.verdicts().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the XDP programs' counters");
            Vec::new()
        });
        counts
            .into_iter()
            .map(|(verdict, count)| Counter {
                name: verdict.name().to_owned(),
                description: verdict.describe().to_owned(),
                count,
            })
            .collect()
    }

    /// Unbinds everything and removes pins and mount. Goes on after errors.
    pub fn stop(mut self) {
        for id in self.ports.ids() {
            self.unbind(id);
        }
        if let Err(error) = self.bpffs.close() {
            tracing::warn!(%error, "cannot remove the bpffs");
        }
    }

    /// The interface, which must not be bound already.
    fn find(&self, request: &BindRequest) -> Result<Interface, ApiError> {
        let ifname = &request.ifname;
        let interface = Interface::lookup(ifname).map_err(|error| {
            let (kind, message) = match error.raw_os_error() {
                Some(libc::ENODEV) => (
                    ErrorKind::NotFound,
                    format!("there is no interface {ifname} in the keeper's network namespace"),
                ),
                _ => (
                    ErrorKind::Failed,
                    format!("looking up interface {ifname}: {error}"),
                ),
            };
            ApiError::new(kind, message)
        })?;
        let is_same =
            |record: &&PortRecord| record.ifname == *ifname || record.ifindex == interface.index;
        let mut bound = self.ports.iter().map(|port| &port.record);
        if let Some(record) = bound.find(is_same) {
            let which = match interface::exists(record.ifindex) {
                true => "already bound",
                false => "gone and still held",
            };
            return Err(ApiError::new(
                ErrorKind::Conflict,
                format!(
                    "interface {} (index {}) is {which} as port {}; unbind that first",
                    record.ifname, record.ifindex, record.id
                ),
            ));
        }
        Ok(interface)
    }

    /// What makes the sockets of an interface. One registration of the memory is shared among all ports in copy mode.
    fn binder<'a>(&'a self, ifname: &'a str, ifindex: u32, kind: PortKind) -> Binder<'a> {
        let active = self.ports.iter().filter(|port| port.link.is_some());
        let sockets = active.filter_map(|port| port.sockets.first());
        Binder {
            umem: &self.umem,
            sources: sockets.map(Rc::as_ref).collect(),
            ifname,
            ifindex,
            kind,
        }
    }

    /// Fills the slots, then lets packets come.
    fn install(
        &self,
        place: Place,
        ifindex: u32,
        kind: PortKind,
        sockets: &[Rc<Bound>],
    ) -> Result<XdpLink, weft_xdp_progs::Error> {
        for (slot, socket) in (place.slots.base..).zip(sockets) {
            self.programs.set_slot(slot, socket.fd.as_fd())?;
        }
        self.programs.set_port(ifindex, place.slots)?;
        let link = match kind {
            // Native XDP on a veth takes TSO away from the pod and with it two thirds of its speed.
            PortKind::Pod | PortKind::Node => {
                self.programs
                    .attach(ifindex, Program::Pod, XdpMode::Generic)?
            }
            PortKind::Uplink => self.programs.attach_best(ifindex, Program::Uplink)?,
        };
        link.pin(&self.bpffs.link(place.id))?;
        Ok(link)
    }

    /// Attaches the programs of shortcuts, and says whether the port can have some. They also close the port to what a
    /// pod redirects to its own interface, which generic XDP does not see. At an uplink the XDP program knows shortcuts.
    fn attach_shortcuts(
        &self,
        port: u16,
        ifindex: u32,
        request: &BindRequest,
    ) -> Result<(Option<TcFilter>, bool), weft_xdp_progs::Error> {
        if !self.has_tcx {
            return Ok((None, false));
        }
        if request.kind == PortKind::Uplink {
            let complete = weft_ethtool::completes_checksums(&request.ifname);
            return Ok((None, complete.unwrap_or(false)));
        }
        let netns = request.netns.as_deref();
        let is_pod = request.kind == PortKind::Pod;
        let large = is_pod && large_packets::are_taken();
        let attached = shortcut_filters::attach(&self.programs, port, ifindex, netns, large)?;
        if is_pod
            && attached.1
            && let Err(error) = core_steering::prepare(&self.programs, &request.ifname)
        {
            // Nothing but speed is lost.
            tracing::debug!(%error, ifname = request.ifname, "acknowledgements stay on their core");
        }
        Ok((Some(attached.0), attached.1))
    }

    fn undo(
        &self,
        place: Place,
        ifindex: u32,
        ifname: &str,
        error: &weft_xdp_progs::Error,
    ) -> ApiError {
        self.remove_pin(place.id);
        self.uninstall(place.slots, ifindex);
        let kind = if error.is_busy() {
            ErrorKind::Conflict
        } else {
            ErrorKind::Failed
        };
        let hint = if error.is_busy() {
            "; another XDP program is attached to it, detach that first"
        } else {
            ""
        };
        ApiError::new(kind, format!("interface {ifname}: {error}{hint}"))
    }

    fn uninstall(&self, slots: SlotRange, ifindex: u32) {
        if let Err(error) = self.programs.clear_port(ifindex) {
            tracing::warn!(%error, ifindex, "cannot remove an interface from the XDP programs");
        }
        for slot in slots.base..slots.base + slots.queues {
            if let Err(error) = self.programs.clear_slot(slot) {
                tracing::warn!(%error, slot, "cannot empty a socket slot");
            }
        }
    }

    fn remove_pin(&self, id: u16) {
        if let Err(error) = Bpffs::unpin(&self.bpffs.link(id)) {
            tracing::warn!(%error, port = id, "cannot remove the pin of a link");
        }
    }
}

impl BoundPort {
    fn descriptors(&self) -> impl Iterator<Item = Descriptor> {
        let sockets = self.sockets.iter().map(Rc::clone).map(Descriptor::Socket);
        let packet_socket = self.packet_socket.iter().map(Rc::clone);
        sockets.chain(packet_socket.map(Descriptor::PacketSocket))
    }
}

fn no_port(id: u16) -> ApiError {
    ApiError::new(ErrorKind::NotFound, format!("there is no port {id}"))
}

fn check_config(config: &serde_json::Value) -> Result<(), ApiError> {
    let len = config.to_string().len();
    if len > CONFIG_BYTES_MAX {
        return Err(ApiError::new(
            ErrorKind::BadRequest,
            format!("a port description of {len} bytes; {CONFIG_BYTES_MAX} are the most"),
        ));
    }
    Ok(())
}

fn features() -> Vec<Feature> {
    let probed = weft_xsk::probe().into_iter();
    probed
        .map(|feature| Feature {
            name: feature.name.to_owned(),
            present: feature.present,
            cost: feature.cost.to_owned(),
        })
        .chain([Feature {
            name: "tcx".to_owned(),
            present: weft_xdp_progs::has_tcx(),
            cost: "connections take no shortcuts past the dataplane: slower".to_owned(),
        }])
        .collect()
}
