//! The programs of shortcuts at both ends of a port. They stay when the keeper is gone, so that nothing gets past them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;

use nix::net::if_::if_indextoname;
use nix::sched::{CloneFlags, setns};
use weft_xdp_progs::{Error, Programs, ShortcutOut, TcFilter};

use crate::{interface, large_packets};

/// What a far end needs to take what an uplink's program redirects to it, and to make large packets of it. To be
/// switched on while it is up, or the host end does not notice (`veth_set_features`, drivers/net/veth.c).
const FAR_END_FEATURES: &[(&str, bool)] = &[("rx-gro", true)];

/// Attaches them to the port with interface `ifindex`, whose far end is in the network namespace at `netns`, or in the
/// keeper's own without one. False when the far end cannot be reached, which is logged: the port has no shortcuts then.
/// What is attached there needs no detaching, for it does nothing alone. With `large`, TCP at the far end makes large
/// packets from then on.
///
/// # Errors
/// When the host end is refused.
pub fn attach(
    programs: &Programs,
    port: u16,
    ifindex: u32,
    netns: Option<&Path>,
    large: bool,
) -> Result<(TcFilter, bool), Error> {
    let host_end = programs.attach_shortcut_in(ifindex)?;
    let far_end = attach_far_end(&programs.shortcut_out()?, ifindex, netns, large);
    if let Err(error) = &far_end {
        tracing::warn!(%error, port, ?netns, "no shortcuts for this port");
    }
    Ok((host_end, far_end.is_ok()))
}

fn attach_far_end(
    program: &ShortcutOut,
    ifindex: u32,
    netns: Option<&Path>,
    large: bool,
) -> io::Result<()> {
    let far_end = interface::far_end(ifindex)?;
    let attach = || {
        program.attach(far_end).map_err(io::Error::other)?;
        let name = if_indextoname(far_end)?;
        let features = weft_ethtool::set_features(&name.to_string_lossy(), FAR_END_FEATURES);
        features.map_err(io::Error::other)?;
        if let Err(error) = large_packets::allow(far_end, large) {
            // Nothing but speed is lost.
            tracing::debug!(%error, ?netns, large, "the size of packets stays");
        }
        Ok(())
    };
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
