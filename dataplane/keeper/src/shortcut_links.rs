//! The programs of shortcuts at both ends of a port, and their pins.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;

use nix::sched::{CloneFlags, setns};
use weft_xdp_progs::{Error, Programs, ShortcutOut, TcxLink};

use crate::bpffs::{Bpffs, Pin};
use crate::interface;

/// The programs of one port. Dropping it detaches what is not pinned.
#[derive(Debug)]
pub struct ShortcutLinks {
    host_end: TcxLink,
    /// None where the far end was out of reach: its packets take no shortcuts.
    far_end: Option<TcxLink>,
}

impl ShortcutLinks {
    /// Attaches and pins them for the port with interface `ifindex`, whose far end is in the network namespace at
    /// `netns`, or in the keeper's own without one. A far end that cannot be reached is logged.
    ///
    /// # Errors
    /// When the host end is refused; nothing is pinned then.
    pub fn attach(
        programs: &Programs,
        (bpffs, port): (&Bpffs, u16),
        ifindex: u32,
        netns: Option<&Path>,
    ) -> Result<Self, Error> {
        let host_end = programs.attach_shortcut_in(ifindex)?;
        host_end.pin(&bpffs.pin(port, Pin::ShortcutIn))?;
        let far_end = attach_far_end(programs.shortcut_out()?, ifindex, netns).and_then(|link| {
            link.pin(&bpffs.pin(port, Pin::ShortcutOut))
                .map_err(io::Error::other)?;
            Ok(link)
        });
        let far_end = far_end.inspect_err(|error| {
            tracing::warn!(%error, port, ?netns, "no shortcuts for what comes in by this port");
        });
        Ok(Self {
            host_end,
            far_end: far_end.ok(),
        })
    }

    /// Detaches them now. Their pins are the caller's to remove.
    pub fn detach(self) {
        for link in [Some(self.host_end), self.far_end].into_iter().flatten() {
            if let Err(error) = link.detach() {
                tracing::warn!(%error, "the program goes with the last descriptor");
            }
        }
    }
}

fn attach_far_end(program: ShortcutOut, ifindex: u32, netns: Option<&Path>) -> io::Result<TcxLink> {
    let far_end = interface::far_end(ifindex)?;
    let attach = || program.attach(far_end).map_err(io::Error::other);
    let Some(netns) = netns else {
        return attach();
    };
    let namespace = open(netns)?;
    // In a thread of its own: whatever happens there, the keeper stays in its namespace.
    let enter_and_attach = || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        attach()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, enter_and_attach)?;
        let died = |_| io::Error::other("the thread in the pod's namespace died");
        thread.join().map_err(died)?
    })
}

/// A path that is a FIFO by mistake must not block; what is no namespace, setns refuses.
fn open(netns: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(netns)
}
