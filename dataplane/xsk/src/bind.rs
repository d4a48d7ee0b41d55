//! Makes AF_XDP sockets: registers or shares the memory, sizes the rings, binds to a device's queue.
//!
//! Needs CAP_NET_RAW (and CAP_IPC_LOCK, or memory within RLIMIT_MEMLOCK). The keeper calls this; the dataplane only
//! maps what comes out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use crate::features::KernelVersion;
use crate::frame::{FRAME_BYTES, TX_METADATA_BYTES};
use crate::socket::RingSizes;
use crate::sys::{self, UmemRegistration};
use crate::umem::Umem;

/// How long a queue may stay busy. The kernel frees one from a work queue, 5 to 30 ms after the last descriptor
/// and ring mapping of the old socket are gone (measured on 6.18); under load longer.
const BUSY_PATIENCE: Duration = Duration::from_millis(200);

/// Pause between two tries.
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// Socket send buffer, which copy mode charges each packet to until its receiver has taken it. The default of
/// 208 KiB holds two packets of 64 KiB; this holds what a ring can. It is a limit, nothing is allocated.
const SEND_BUFFER_BYTES: u32 = 16 << 20;

/// Packets the kernel takes from a transmit ring per call, when nothing else is said: TX_BATCH_SIZE in net/xdp/xsk.c.
pub const TX_BUDGET_DEFAULT: u32 = 32;

/// Where a socket's frames live.
#[derive(Clone, Copy, Debug)]
pub enum UmemSource<'a> {
    /// Registers the memory anew: own mode, and ~105-135 B of kernel memory per frame.
    Register(&'a Umem),
    /// Shares the registration of another socket, which decides mode, multi-buffer and metadata. It must still be
    /// bound to a living device.
    Share(&'a Bound),
}

/// Busy polling by the kernel on behalf of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// SO_BUSY_POLL: how long, in microseconds.
    pub micros: u32,
    /// SO_BUSY_POLL_BUDGET: packets per poll.
    pub budget: u32,
}

/// What to bind, and what to ask for.
#[derive(Clone, Copy, Debug)]
pub struct BindRequest<'a> {
    /// The device, in the network namespace of the calling thread.
    pub ifindex: u32,
    /// Its receive queue.
    pub queue: u32,
    /// The memory.
    pub umem: UmemSource<'a>,
    /// Slots of the rings.
    pub sizes: RingSizes,
    /// Try zero-copy first.
    pub zero_copy: bool,
    /// Packets of several frames.
    pub multi_buffer: bool,
    /// Room for TX metadata in front of each frame.
    pub tx_metadata: bool,
    /// Busy polling.
    pub busy_poll: Option<BusyPoll>,
    /// Packets per transmit call, [`TX_BUDGET_DEFAULT`] to the transmit ring's size.
    pub tx_budget: Option<u32>,
}

/// How the kernel moves packets between device and frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By copying.
    Copy,
    /// The device reads and writes frames itself.
    ZeroCopy,
}

/// A bound socket, and what became of the wishes.
#[derive(Debug)]
pub struct Bound {
    /// The socket.
    pub fd: OwnedFd,
    /// Mode in use.
    pub mode: Mode,
    /// Packets of several frames can be received and sent.
    pub multi_buffer: bool,
    /// Frames have room for TX metadata, which the kernel reads.
    pub tx_metadata: bool,
    /// Packets per transmit call.
    pub tx_budget: u32,
}

/// Why a queue cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A socket of somebody else has it, or an old one is not gone yet.
    #[error("queue {queue} of interface {ifindex} is taken by another AF_XDP socket")]
    Busy {
        /// The device.
        ifindex: u32,
        /// The queue.
        queue: u32,
    },
    /// The socket whose memory is to be shared has lost its device.
    #[error("the socket whose memory is to be shared is not bound any more")]
    SourceGone,
    /// A system call failed.
    #[error("{doing} for queue {queue} of interface {ifindex}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The device.
        ifindex: u32,
        /// The queue.
        queue: u32,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Makes and binds a socket. What the kernel or the device lacks of zero-copy, multi-buffer, metadata and budget is
/// left out, which [`Bound`] tells. A busy queue is tried again for 200 ms.
///
/// # Errors
/// See [`BindError`].
pub fn bind(request: &BindRequest<'_>) -> Result<Bound, BindError> {
    let mut attempt = Attempt {
        request,
        multi_buffer: request.multi_buffer,
    };
    match attempt.run() {
        // Kernels before 6.6 do not know the flag, and a memory once bound with it cannot be bound without.
        Err(BindError::Io {
            doing: BINDING,
            source,
            ..
        }) if attempt.multi_buffer && is_unsupported(&source) && !attempt.is_shared() => {
            attempt.multi_buffer = false;
            attempt.run()
        }
        result => result,
    }
}

/// Makes a socket with rings and does not bind it yet: before 6.4 only the rings of such a one can be mapped (xsk_mmap
/// in net/xdp/xsk.c). It is meant for copy mode, and has nothing of what younger kernels offer.
///
/// # Errors
/// [`BindError::Io`].
pub fn open(request: &BindRequest<'_>) -> Result<Bound, BindError> {
    let attempt = Attempt {
        request,
        multi_buffer: false,
    };
    let (fd, tx_budget) = attempt.open()?;
    Ok(Bound {
        fd,
        mode: Mode::Copy,
        multi_buffer: false,
        tx_metadata: false,
        tx_budget,
    })
}

/// Binds what [`open`] made, as it is.
///
/// # Errors
/// See [`BindError`].
pub fn bind_open(open: &Bound, request: &BindRequest<'_>) -> Result<(), BindError> {
    let request = &BindRequest {
        zero_copy: false,
        tx_metadata: false,
        ..*request
    };
    let attempt = Attempt {
        request,
        multi_buffer: false,
    };
    attempt.register(open.fd.as_fd())?;
    attempt.bind(open.fd.as_fd()).map(drop)
}

const BINDING: &str = "binding";

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

struct Attempt<'a> {
    request: &'a BindRequest<'a>,
    multi_buffer: bool,
}

impl Attempt<'_> {
    fn is_shared(&self) -> bool {
        matches!(self.request.umem, UmemSource::Share(_))
    }

    fn run(&self) -> Result<Bound, BindError> {
        let (fd, tx_budget) = self.open()?;
        let tx_metadata = self.register(fd.as_fd())?;
        let mode = self.bind(fd.as_fd())?;
        let multi_buffer = match self.request.umem {
            UmemSource::Register(_) => self.multi_buffer,
            UmemSource::Share(source) => source.multi_buffer,
        };
        Ok(Bound {
            fd,
            mode,
            multi_buffer,
            tx_metadata,
            tx_budget,
        })
    }

    /// A socket with rings, and its budget.
    fn open(&self) -> Result<(OwnedFd, u32), BindError> {
        let fd = self.doing("opening a socket", sys::xdp_socket())?;
        self.doing(
            "sizing the rings",
            set_rings(fd.as_fd(), self.request.sizes),
        )?;
        let tx_budget = self.tune(fd.as_fd())?;
        Ok((fd, tx_budget))
    }

    /// Registers the memory unless it is shared; returns whether the kernel reads metadata in front of frames.
    fn register(&self, fd: BorrowedFd<'_>) -> Result<bool, BindError> {
        match self.request.umem {
            UmemSource::Register(umem) => {
                let registered = register(fd, umem, self.request.tx_metadata);
                self.doing("registering the frame memory", registered)
            }
            UmemSource::Share(source) => Ok(source.tx_metadata),
        }
    }

    fn bind(&self, fd: BorrowedFd<'_>) -> Result<Mode, BindError> {
        match self.request.umem {
            UmemSource::Register(_) => self.bind_own(fd),
            UmemSource::Share(source) => self.bind_shared(fd, source),
        }
    }

    fn bind_own(&self, fd: BorrowedFd<'_>) -> Result<Mode, BindError> {
        let multi_buffer = if self.multi_buffer {
            libc::XDP_USE_SG
        } else {
            0
        };
        let flags = libc::XDP_USE_NEED_WAKEUP | multi_buffer;
        if self.request.zero_copy {
            match self.bind_patiently(fd, flags | libc::XDP_ZEROCOPY, None) {
                Err(BindError::Io { source, .. }) if is_unsupported(&source) => {}
                result => return result.map(|()| Mode::ZeroCopy),
            }
        }
        self.bind_patiently(fd, flags | libc::XDP_COPY, None)
            .map(|()| Mode::Copy)
    }

    fn bind_shared(&self, fd: BorrowedFd<'_>, source: &Bound) -> Result<Mode, BindError> {
        // No other flag may be given with this one: the source's apply.
        match self.bind_patiently(fd, libc::XDP_SHARED_UMEM, Some(source.fd.as_fd())) {
            Err(BindError::Io { source, .. }) if source.raw_os_error() == Some(libc::EBADF) => {
                Err(BindError::SourceGone)
            }
            result => result.map(|()| source.mode),
        }
    }

    fn bind_patiently(
        &self,
        fd: BorrowedFd<'_>,
        flags: u16,
        shared: Option<BorrowedFd<'_>>,
    ) -> Result<(), BindError> {
        let BindRequest { ifindex, queue, .. } = *self.request;
        let deadline = Instant::now() + BUSY_PATIENCE;
        loop {
            let result = sys::bind_xdp(fd, ifindex, queue, flags, shared);
            match &result {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                _ => return self.doing(BINDING, result),
            }
            if Instant::now() >= deadline {
                return Err(BindError::Busy { ifindex, queue });
            }
            thread::sleep(BUSY_PAUSE);
        }
    }

    /// Sets what only makes it faster; the budget in use is returned.
    fn tune(&self, fd: BorrowedFd<'_>) -> Result<u32, BindError> {
        // FORCE passes net.core.wmem_max with CAP_NET_ADMIN; without it, as much as that allows.
        let forced = sys::set_option(
            fd,
            libc::SOL_SOCKET,
            libc::SO_SNDBUFFORCE,
            &SEND_BUFFER_BYTES,
        );
        if forced.is_err() {
            let set = sys::set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &SEND_BUFFER_BYTES);
            self.doing("sizing the send buffer", set)?;
        }
        if let Some(busy_poll) = self.request.busy_poll {
            for (name, value) in [
                (libc::SO_PREFER_BUSY_POLL, 1),
                (libc::SO_BUSY_POLL, busy_poll.micros),
                (libc::SO_BUSY_POLL_BUDGET, busy_poll.budget),
            ] {
                self.doing(
                    "setting busy polling",
                    sys::set_option(fd, libc::SOL_SOCKET, name, &value),
                )?;
            }
        }
        let Some(budget) = self.request.tx_budget else {
            return Ok(TX_BUDGET_DEFAULT);
        };
        let budget = budget.min(self.request.sizes.tx).max(TX_BUDGET_DEFAULT);
        // Linux 6.17 and later; a larger batch per call is all it is about.
        let set = sys::set_option(fd, libc::SOL_XDP, sys::XDP_MAX_TX_SKB_BUDGET, &budget);
        Ok(if set.is_ok() {
            budget
        } else {
            TX_BUDGET_DEFAULT
        })
    }

    fn doing<T>(&self, doing: &'static str, result: io::Result<T>) -> Result<T, BindError> {
        let BindRequest { ifindex, queue, .. } = *self.request;
        result.map_err(|source| BindError::Io {
            doing,
            ifindex,
            queue,
            source,
        })
    }
}

/// Registers the frames; returns whether the kernel reads metadata in front of them.
fn register(fd: BorrowedFd<'_>, umem: &Umem, tx_metadata: bool) -> io::Result<bool> {
    let (addr, len) = umem.registration();
    register_range(fd, addr, len, tx_metadata)
}

pub(crate) fn register_range(
    fd: BorrowedFd<'_>,
    addr: u64,
    len: u64,
    tx_metadata: bool,
) -> io::Result<bool> {
    let plain = UmemRegistration {
        addr,
        len,
        chunk_size: FRAME_BYTES as u32,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    let set = |registration| sys::set_option(fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &registration);
    if tx_metadata {
        let with_len = UmemRegistration {
            tx_metadata_len: TX_METADATA_BYTES as u32,
            ..plain
        };
        let flagged = UmemRegistration {
            flags: libc::XDP_UMEM_TX_METADATA_LEN,
            ..with_len
        };
        match set(flagged) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            result => return result.map(|()| true),
        }
        // 6.8 to 6.10 take the length without a flag; before, it would be ignored without a word.
        if KernelVersion::running().is_some_and(|version| version >= KernelVersion(6, 8))
            && set(with_len).is_ok()
        {
            return Ok(true);
        }
    }
    set(plain).map(|()| false)
}

fn set_rings(fd: BorrowedFd<'_>, sizes: RingSizes) -> io::Result<()> {
    for (name, size) in [
        (libc::XDP_UMEM_FILL_RING, sizes.fill),
        (libc::XDP_UMEM_COMPLETION_RING, sizes.completion),
        (libc::XDP_RX_RING, sizes.rx),
        (libc::XDP_TX_RING, sizes.tx),
    ] {
        sys::set_option(fd, libc::SOL_XDP, name, &size)?;
    }
    Ok(())
}
