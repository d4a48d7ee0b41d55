//! SIGINT and SIGTERM as a descriptor, so that a tool can end its loop and print what it counted.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Readable once the process was asked to stop. Call it before threads are started: a thread
/// inherits the blocked signals.
pub fn signals() -> anyhow::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    set.thread_block()
        .context("cannot block SIGINT and SIGTERM")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .context("cannot make a signalfd")
}

/// Waits until there is something to read. False once the process was asked to stop.
pub fn readable(stop: &SignalFd, inputs: &[BorrowedFd<'_>]) -> anyhow::Result<bool> {
    let all = std::iter::once(stop.as_fd()).chain(inputs.iter().copied());
    let mut ready: Vec<_> = all.map(|it| PollFd::new(it, PollFlags::POLLIN)).collect();
    poll(&mut ready, PollTimeout::NONE).context("cannot wait")?;
    Ok(ready.first().and_then(PollFd::any) != Some(true))
}
