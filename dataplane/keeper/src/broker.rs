//! What is asked, done: the memory, the sockets, the programs and their pins.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use weft_api::dataplane::{Counter, Feature, PortKind};
use weft_api::envelope::{ApiError, ErrorKind};
use weft_xdp_progs::{Program, Programs, SlotRange, XdpLink, XdpMode};
use weft_xsk::{BindError, Bound, Mode, Umem, UmemError, UmemSource};

use crate::bpffs::Bpffs;
use crate::flows::Flows;
use crate::interface::{self, Interface};
use crate::protocol::{
    BindRequest, CONFIG_BYTES_MAX, FlowsRecord, FlowsRequest, PortRecord, QueueRecord, Rings,
    Steering,
};
use crate::registry::{Place, Registry};

/// Rings of a pod's or the node's port: 113 packets of 64 KiB at 18 descriptors each, 96 KiB of kernel
/// memory. Fewer and a burst of one TCP window is lost; more costs every one of 110 pods.
const POD_RINGS: Rings = Rings::uniform(2048);

/// Rings of an uplink's queue: all pods' traffic meets here, and a node has few of them.
const UPLINK_RINGS: Rings = Rings::uniform(4096);

/// Descriptors the kernel takes per transmit call. Its default of 32 is less than two packets of
/// 64 KiB; with 512 a burst goes out in one system call, and 28 such packets bound its length.
const TX_BUDGET: u32 = 512;

/// Queues of one interface. The largest adapters have 256; slots are 4,096 in all.
const QUEUES_MAX: u32 = 256;

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
    link: XdpLink,
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
        let place = self
            .ports
            .place(queues)
            .map_err(|full| ApiError::new(ErrorKind::Exhausted, full.to_string()))?;
        let rings = rings_of(request.kind);
        let sockets = self.bind_queues(&request, interface.index, queues, rings)?;
        let packet_socket = open_packet_socket(&request, interface.index, &sockets)?;
        let link = self
            .install(place, interface.index, request.kind, &sockets)
            .map_err(|error| self.undo(place, interface.index, &request.ifname, &error))?;
        let record = PortRecord {
            id: place.id,
            ifname: request.ifname,
            ifindex: interface.index,
            kind: request.kind,
            queues: queue_records(place.slots, rings, &sockets),
            packet_socket: packet_socket.is_some(),
            xdp_mode: link.mode().into(),
            config: request.config,
        };
        let port = BoundPort {
            record: record.clone(),
            sockets,
            packet_socket,
            link,
        };
        let descriptors = port.descriptors().collect();
        self.ports.insert(place, port);
        Ok((record, descriptors))
    }

    /// Replaces a port's description.
    ///
    /// # Errors
    /// NotFound, or BadRequest for one that is too long.
    pub fn configure(&mut self, id: u16, config: serde_json::Value) -> Result<(), ApiError> {
        check_config(&config)?;
        let port = self
            .ports
            .get_mut(id)
            .ok_or_else(|| ApiError::new(ErrorKind::NotFound, format!("there is no port {id}")))?;
        port.record.config = config;
        Ok(())
    }

    /// Detaches a port's program and closes its sockets. Succeeds for a port that is not there and for
    /// one whose interface is gone. Returns what it was.
    pub fn unbind(&mut self, id: u16) -> Option<PortRecord> {
        let (slots, port) = self.ports.remove(id)?;
        self.remove_pin(id);
        if let Err(error) = port.link.detach() {
            tracing::warn!(%error, port = id, "the program goes with the last descriptor");
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
    /// Failed without a free descriptor.
    pub fn shortcuts(&self) -> Result<Vec<Descriptor>, ApiError> {
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

    fn bind_queues(
        &self,
        request: &BindRequest,
        ifindex: u32,
        queues: u32,
        rings: Rings,
    ) -> Result<Vec<Rc<Bound>>, ApiError> {
        let mut sockets: Vec<Rc<Bound>> = Vec::new();
        for queue in 0..queues {
            let wanted = weft_xsk::BindRequest {
                ifindex,
                queue,
                umem: UmemSource::Register(&self.umem),
                sizes: rings.into(),
                zero_copy: request.zero_copy,
                multi_buffer: true,
                tx_metadata: true,
                busy_poll: None,
                tx_budget: Some(TX_BUDGET),
            };
            let bound = match sockets.first() {
                Some(first) => weft_xsk::bind(&weft_xsk::BindRequest {
                    umem: UmemSource::Share(first),
                    ..wanted
                }),
                None => self.bind_first(wanted),
            };
            sockets.push(Rc::new(
                bound.map_err(|error| bind_error(&request.ifname, &error))?,
            ));
        }
        Ok(sockets)
    }

    /// The first queue of an interface. Copy mode shares one registration among all ports, which
    /// holds the list of pinned pages once. A device that may do zero-copy registers its own, because
    /// sharing would force the first one's mode on it (xp_assign_dev_shared, net/xdp/xsk_buff_pool.c).
    fn bind_first(&self, wanted: weft_xsk::BindRequest<'_>) -> Result<Bound, BindError> {
        if !wanted.zero_copy {
            let sources = self.ports.iter().filter_map(|port| port.sockets.first());
            for source in sources.filter(|source| source.mode == Mode::Copy) {
                let umem = UmemSource::Share(source);
                match weft_xsk::bind(&weft_xsk::BindRequest { umem, ..wanted }) {
                    // Its device is gone, which the dataplane has not noticed yet.
                    Err(BindError::SourceGone) => {}
                    result => return result,
                }
            }
        }
        weft_xsk::bind(&wanted)
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

/// A port's packet socket. Not of a zero-copy device: there AF_XDP alone is faster. An uplink's goes through the
/// queueing discipline, where the kernel segments what its device cannot; a veth towards a local stack takes GSO
/// packets whole.
fn open_packet_socket(
    request: &BindRequest,
    ifindex: u32,
    sockets: &[Rc<Bound>],
) -> Result<Option<Rc<OwnedFd>>, ApiError> {
    if sockets.iter().any(|bound| bound.mode == Mode::ZeroCopy) {
        return Ok(None);
    }
    let queued = request.kind == PortKind::Uplink;
    let fd = weft_xsk::open_packet_socket(ifindex, queued).map_err(|error| {
        let message = format!("opening a packet socket on {}: {error}", request.ifname);
        ApiError::new(ErrorKind::Failed, message)
    })?;
    Ok(Some(Rc::new(fd)))
}

fn rings_of(kind: PortKind) -> Rings {
    match kind {
        PortKind::Pod | PortKind::Node => POD_RINGS,
        PortKind::Uplink => UPLINK_RINGS,
    }
}

fn wanted_queues(request: &BindRequest, interface: Interface) -> Result<u32, ApiError> {
    let queues = request.queues.unwrap_or(interface.queues);
    if queues == 0 || queues > interface.queues || queues > QUEUES_MAX {
        return Err(ApiError::new(
            ErrorKind::BadRequest,
            format!(
                "{queues} queues of {} cannot be bound: it uses {}, and {QUEUES_MAX} are the most",
                request.ifname, interface.queues
            ),
        ));
    }
    Ok(queues)
}

fn queue_records(slots: SlotRange, rings: Rings, sockets: &[Rc<Bound>]) -> Vec<QueueRecord> {
    let record = |(queue, bound): (u32, &Rc<Bound>)| QueueRecord {
        queue,
        // Slots are below 4,096.
        slot: (slots.base + queue) as u16,
        rings,
        mode: bound.mode.into(),
        multi_buffer: bound.multi_buffer,
        tx_metadata: bound.tx_metadata,
    };
    (0..).zip(sockets).map(record).collect()
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

fn bind_error(ifname: &str, error: &BindError) -> ApiError {
    let kind = match error {
        BindError::Busy { .. } => ErrorKind::Conflict,
        _ => ErrorKind::Failed,
    };
    ApiError::new(kind, format!("binding interface {ifname}: {error}"))
}

fn features() -> Vec<Feature> {
    let probed = weft_xsk::probe().into_iter();
    probed
        .map(|feature| Feature {
            name: feature.name.to_owned(),
            present: feature.present,
            cost: feature.cost.to_owned(),
        })
        .collect()
}
