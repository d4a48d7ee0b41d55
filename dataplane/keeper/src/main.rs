//! Privileged broker of the UMEM, the bound sockets and the XDP links.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use weft_api::paths::{DEFAULT_RUN_DIR, RunDir};
use weft_keeper::server::{Keeper, Options};

/// Holds what must survive a restart of weft-dataplane.
///
/// The keeper makes the frame memory, binds AF_XDP sockets to pod ports and uplinks, attaches the XDP
/// programs, and hands the descriptors to weft-dataplane over RUN_DIR/keeper.sock. The dataplane may
/// crash or be upgraded at any time without a packet being lost for good, as long as the keeper runs.
///
/// Start it as root inside the node's network namespace, before weft-dataplane. Stopping it (SIGTERM,
/// SIGINT) detaches every port: pods lose their network until it and the dataplane run again. If it is
/// killed instead, the programs stay attached and drop what pods send; the node itself stays reachable.
#[derive(Debug, Parser)]
#[command(name = "weft-keeper", version, after_help = EXAMPLES)]
struct Arguments {
    /// Directory of this node's sockets; one keeper per directory.
    #[arg(long, value_name = "DIR", env = "WEFT_RUN_DIR", default_value = DEFAULT_RUN_DIR)]
    run_dir: PathBuf,

    /// Packet frames of 4 KiB each. More bridge longer bursts, but every bound queue costs the kernel 128
    /// bytes per frame, rounded up to a power of two: 1 MiB per pod port up to 8192 frames, 2 MiB up to
    /// 16384.
    #[arg(long, value_name = "COUNT", default_value_t = FRAMES_DEFAULT,
          value_parser = clap::value_parser!(u32).range(256..=i64::from(weft_xsk::FRAMES_MAX)))]
    frames: u32,

    #[command(flatten)]
    log: weft_log::Log,
}

/// 32 MiB of frames. Binding a queue makes the kernel allocate an array of one `struct xdp_buff_xsk`, 128
/// bytes, per frame (xp_create_and_assign_umem, net/xdp/xsk_buff_pool.c), and large allocations are
/// rounded up to a power of two. Measured for 110 pod ports on 6.18: 126 MiB at 8,192 frames, 236 MiB at
/// anything from 8,193 to 16,384. A node with few ports can afford more; far fewer starve a burst.
const FRAMES_DEFAULT: u32 = 8192;

const EXAMPLES: &str = "\
Examples:
  weft-keeper                                  the node of this machine
  ip netns exec node1 weft-keeper --run-dir /run/weft-node1
                                               one of several nodes on a machine
  WEFT_LOG=debug weft-keeper --frames 4096     a small node, every request logged

What it holds can be seen in RUN_DIR/bpf/weft (pinned links and maps) and with `weft status`.";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let log = arguments.log;
    log.run(|| keep(arguments.run_dir, arguments.frames))
}

fn keep(run_dir: PathBuf, frames: u32) -> anyhow::Result<()> {
    raise_descriptor_limit();
    let stop = stop_signals()?;
    let run_dir = RunDir::new(run_dir);
    Keeper::start(&Options { run_dir, frames })?.run(stop.as_fd())?;
    Ok(())
}

/// A descriptor per queue and link: the usual 1,024 do not reach for the ports the protocol allows.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Turns SIGTERM and SIGINT into a descriptor that becomes readable.
fn stop_signals() -> anyhow::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().context("cannot block signals")?;
    SignalFd::new(&signals).context("cannot watch for signals")
}
