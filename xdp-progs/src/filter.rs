//! The programs of shortcuts at an interface: filters of its clsact qdisc (net/sched/cls_bpf.c).
//!
//! Not tcx links, each of which waits for an RCU grace period under the lock of all network configuration
//! (`tcx_entry_sync`, include/net/tcx.h): 10 to 15 ms, twice for each pod.

use std::os::fd::BorrowedFd;

use libbpf_rs::{TC_EGRESS, TC_INGRESS, TcHook, TcHookBuilder};

use crate::{Error, Program};

/// Ours among the filters of an interface; one that is there already is replaced.
const PRIORITY: u32 = 7765;
const HANDLE: u32 = 1;

/// A filter at an interface. Stays when dropped.
#[derive(Debug)]
pub struct TcFilter(TcHook);

impl TcFilter {
    pub(crate) fn attach(
        program: Program,
        program_fd: BorrowedFd<'_>,
        ifindex: u32,
    ) -> Result<Self, Error> {
        let error = |source| Error::AttachShortcut {
            program,
            ifindex,
            source,
        };
        let point = match program {
            Program::ShortcutOut => TC_EGRESS,
            _ => TC_INGRESS,
        };
        let mut hook = TcHookBuilder::new(program_fd)
            .ifindex(ifindex.cast_signed())
            .replace(true)
            .handle(HANDLE)
            .priority(PRIORITY)
            .hook(point);
        hook.create().map_err(error)?;
        hook.attach().map(Self).map_err(error)
    }

    /// Takes it away. The qdisc stays, for others may use it.
    ///
    /// # Errors
    /// When the kernel refuses, e.g. because the interface is gone.
    pub fn detach(mut self) -> Result<(), Error> {
        self.0
            .detach()
            .map_err(|source| Error::DetachShortcut { source })
    }
}
