//! Attached programs. They detach when dropped, unless they are pinned.

// UNSAFETY: libbpf-rs has no way to attach XDP by a link in a chosen mode, nor to pin such a link;
// the libbpf calls are made directly.
#![expect(unsafe_code)]

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::{Error, Program};

/// Where in the receive path a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, before a socket buffer exists. On a veth it takes TSO away from the peer.
    Native,
    /// On socket buffers. Works on every device and keeps 64 KiB segments whole.
    Generic,
}

impl XdpMode {
    /// `native` or `generic`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    fn flags(self) -> u32 {
        match self {
            Self::Native => libbpf_sys::XDP_FLAGS_DRV_MODE,
            Self::Generic => libbpf_sys::XDP_FLAGS_SKB_MODE,
        }
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A program attached to an interface.
#[derive(Debug)]
pub struct XdpLink {
    fd: OwnedFd,
    ifindex: u32,
    mode: XdpMode,
}

impl XdpLink {
    pub(crate) fn attach(
        program: Program,
        program_fd: BorrowedFd<'_>,
        ifindex: u32,
        mode: XdpMode,
    ) -> Result<Self, Error> {
        let error = |source| Error::Attach {
            program,
            ifindex,
            mode,
            source,
        };
        let fd = create(program_fd, ifindex, libbpf_sys::BPF_XDP, mode.flags()).map_err(error)?;
        Ok(Self { fd, ifindex, mode })
    }

    /// Interface index at the time of attaching.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// The mode in use.
    pub fn mode(&self) -> XdpMode {
        self.mode
    }

    /// Detaches now. (Closing the last descriptor of a link that was pinned detaches only after an RCU
    /// grace period, because the file's reference is dropped then.)
    ///
    /// # Errors
    /// When the kernel refuses; a device that is gone is success.
    pub fn detach(self) -> Result<(), Error> {
        let ifindex = self.ifindex;
        detach(self.fd.as_fd()).map_err(|source| Error::Detach {
            what: format!("interface {ifindex}"),
            source,
        })
    }

    /// Keeps the program attached beyond this process: until the file at `path`, on a bpffs, is
    /// removed and the link dropped.
    ///
    /// # Errors
    /// When the kernel refuses, e.g. because the file exists or is not on a bpffs.
    pub fn pin(&self, path: &Path) -> Result<(), Error> {
        pin(self.fd.as_fd(), path)
    }
}

/// Whether this kernel has tcx (Linux 6.6): on older ones shortcuts were not tried.
pub fn has_tcx() -> bool {
    /// Every network namespace has it.
    const LOOPBACK: i32 = 1;
    let mut options = libbpf_sys::bpf_prog_query_opts {
        sz: size_of::<libbpf_sys::bpf_prog_query_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    // SAFETY: `options` is a live, initialised structure whose `sz` is its size, without room for programs.
    let result = unsafe {
        libbpf_sys::bpf_prog_query_opts(LOOPBACK, libbpf_sys::BPF_TCX_INGRESS, &raw mut options)
    };
    result == 0
}

/// Detaches the link somebody pinned at `path`, now. The file stays.
///
/// # Errors
/// When there is no link at `path`, or the kernel refuses.
pub fn detach_pinned(path: &Path) -> Result<(), Error> {
    let error = |source| Error::Detach {
        what: path.display().to_string(),
        source,
    };
    let name = c_path(path).map_err(error)?;
    // SAFETY: `name` is NUL-terminated and lives through the call.
    let result = unsafe { libbpf_sys::bpf_obj_get(name.as_ptr()) };
    let fd = owned(result).map_err(error)?;
    detach(fd.as_fd()).map_err(error)
}

fn create(
    program_fd: BorrowedFd<'_>,
    ifindex: u32,
    hook: libbpf_sys::bpf_attach_type,
    flags: u32,
) -> io::Result<OwnedFd> {
    let target = i32::try_from(ifindex).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags,
        ..Default::default()
    };
    // SAFETY: `options` is a live, initialised structure whose `sz` is its size, which is all
    // libbpf reads through the pointer; the descriptor is borrowed for the call.
    let result = unsafe {
        libbpf_sys::bpf_link_create(program_fd.as_raw_fd(), target, hook, &raw const options)
    };
    owned(result)
}

/// What libbpf returned: a descriptor, or an error below 0.
fn owned(result: i32) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: libbpf returned a descriptor it made for this call; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// Pins any BPF object at `path`.
pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
    let error = |source| Error::Pin {
        path: path.to_owned(),
        source,
    };
    let name = c_path(path).map_err(error)?;
    // SAFETY: `name` is NUL-terminated and lives through the call; the descriptor is borrowed.
    let result = unsafe { libbpf_sys::bpf_obj_pin(fd.as_raw_fd(), name.as_ptr()) };
    if result < 0 {
        return Err(error(io::Error::from_raw_os_error(-result)));
    }
    Ok(())
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Success when the device took the link along with it.
fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers are passed; the descriptor is borrowed.
    let result = unsafe { libbpf_sys::bpf_link_detach(link.as_raw_fd()) };
    match -result {
        0 | libc::ENOLINK | libc::ENODEV => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}
