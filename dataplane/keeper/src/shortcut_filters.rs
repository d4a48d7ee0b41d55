//! The programs of shortcuts at both ends of a port. They stay when the keeper is gone, so that nothing gets past them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;

use nix::sched::{CloneFlags, setns};
use weft_xdp_progs::{Error, Programs, ShortcutOut, TcFilter};

use crate::interface;

/// Attaches them to the port with interface `ifindex`, whose far end is in the network namespace at `netns`, or in the
/// keeper's own without one. A far end that cannot be reached is logged: its packets take no shortcuts. What is
/// attached there needs no detaching, for it does nothing alone.
///
/// # Errors
/// When the host end is refused.
pub fn attach(
    programs: &Programs,
    port: u16,
    ifindex: u32,
    netns: Option<&Path>,
) -> Result<TcFilter, Error> {
    let host_end = programs.attach_shortcut_in(ifindex)?;
    if let Err(error) = attach_far_end(&programs.shortcut_out()?, ifindex, netns) {
        tracing::warn!(%error, port, ?netns, "no shortcuts for what comes in by this port");
    }
    Ok(host_end)
}

fn attach_far_end(program: &ShortcutOut, ifindex: u32, netns: Option<&Path>) -> io::Result<()> {
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
