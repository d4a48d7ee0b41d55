//! The sockets of an interface's queues: how large their rings are, whose memory they share, and whether they are bound
//! at once or once somebody has mapped them.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use weft_api::dataplane::PortKind;
use weft_api::envelope::{ApiError, ErrorKind};
use weft_xdp_progs::SlotRange;
use weft_xsk::{BindError, Bound, Mode, Umem, UmemSource};

use crate::interface::Interface;
use crate::protocol::{BindRequest, QueueRecord, Rings};

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

/// Makes the sockets of one interface.
pub struct Binder<'a> {
    /// The frames.
    pub umem: &'a Umem,
    /// A socket of each port that is bound.
    pub sources: Vec<&'a Bound>,
    /// The interface.
    pub ifname: &'a str,
    /// Its index.
    pub ifindex: u32,
    /// What it is bound as.
    pub kind: PortKind,
}

impl Binder<'_> {
    /// Sockets for so many queues, bound.
    ///
    /// # Errors
    /// Conflict for a queue that is taken, Failed with what the kernel said.
    pub fn bind(&self, queues: u32, zero_copy: bool) -> Result<Vec<Rc<Bound>>, ApiError> {
        let mut sockets: Vec<Rc<Bound>> = Vec::new();
        for queue in 0..queues {
            let bound = match sockets.first() {
                Some(first) => weft_xsk::bind(&self.wanted(queue, UmemSource::Share(first))),
                None => self.bind_first(zero_copy, weft_xsk::bind),
            };
            sockets.push(Rc::new(bound.map_err(|error| self.error(&error))?));
        }
        Ok(sockets)
    }

    /// Sockets for so many queues, to be mapped before they are bound.
    ///
    /// # Errors
    /// Failed with what the kernel said.
    pub fn open(&self, queues: u32) -> Result<Vec<Rc<Bound>>, ApiError> {
        let open = |queue| {
            let wanted = self.wanted(queue, UmemSource::Register(self.umem));
            let open = weft_xsk::open(&wanted).map(Rc::new);
            open.map_err(|error| self.error(&error))
        };
        (0..queues).map(open).collect()
    }

    /// Binds what [`Binder::open`] made.
    ///
    /// # Errors
    /// As of [`Binder::bind`].
    pub fn bind_open(&self, sockets: &[Rc<Bound>]) -> Result<(), ApiError> {
        let Some((first, others)) = sockets.split_first() else {
            return Ok(());
        };
        self.bind_first(false, |wanted| weft_xsk::bind_open(first, wanted))
            .map_err(|error| self.error(&error))?;
        for (queue, socket) in (1..).zip(others) {
            let wanted = self.wanted(queue, UmemSource::Share(first));
            weft_xsk::bind_open(socket, &wanted).map_err(|error| self.error(&error))?;
        }
        Ok(())
    }

    /// The first queue of an interface. Copy mode shares one registration among all ports, which
    /// holds the list of pinned pages once. A device that may do zero-copy registers its own, because
    /// sharing would force the first one's mode on it (xp_assign_dev_shared, net/xdp/xsk_buff_pool.c).
    fn bind_first<T>(
        &self,
        zero_copy: bool,
        bind: impl Fn(&weft_xsk::BindRequest<'_>) -> Result<T, BindError>,
    ) -> Result<T, BindError> {
        if !zero_copy {
            let sources = self.sources.iter();
            for source in sources.filter(|source| source.mode == Mode::Copy) {
                match bind(&self.wanted(0, UmemSource::Share(source))) {
                    // Its device is gone, which the dataplane has not noticed yet.
                    Err(BindError::SourceGone) => {}
                    result => return result,
                }
            }
        }
        bind(&weft_xsk::BindRequest {
            zero_copy,
            ..self.wanted(0, UmemSource::Register(self.umem))
        })
    }

    /// What is asked of the kernel for a queue, in copy mode.
    fn wanted<'b>(&self, queue: u32, umem: UmemSource<'b>) -> weft_xsk::BindRequest<'b> {
        weft_xsk::BindRequest {
            ifindex: self.ifindex,
            queue,
            umem,
            sizes: rings_of(self.kind).into(),
            zero_copy: false,
            multi_buffer: true,
            tx_metadata: true,
            busy_poll: None,
            tx_budget: Some(TX_BUDGET),
        }
    }

    fn error(&self, error: &BindError) -> ApiError {
        let kind = match error {
            BindError::Busy { .. } => ErrorKind::Conflict,
            _ => ErrorKind::Failed,
        };
        ApiError::new(kind, format!("binding interface {}: {error}", self.ifname))
    }
}

/// A port's packet socket. Not of a zero-copy device: there AF_XDP alone is faster. An uplink's goes through the
/// queueing discipline, where the kernel segments what its device cannot; a veth towards a local stack takes GSO
/// packets whole.
///
/// # Errors
/// Failed with what the kernel said.
pub fn open_packet_socket(
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

/// Sizes of the rings of each queue.
pub fn rings_of(kind: PortKind) -> Rings {
    match kind {
        PortKind::Pod | PortKind::Node => POD_RINGS,
        PortKind::Uplink => UPLINK_RINGS,
    }
}

/// How many queues are to be bound.
///
/// # Errors
/// BadRequest for none, and for more than the interface uses or anybody may.
pub fn wanted_queues(request: &BindRequest, interface: Interface) -> Result<u32, ApiError> {
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

/// What is said about the sockets of a port.
pub fn queue_records(slots: SlotRange, rings: Rings, sockets: &[Rc<Bound>]) -> Vec<QueueRecord> {
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
