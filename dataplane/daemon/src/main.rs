//! `weft-dataplane`: the switching process. It takes sockets, frames and maps from `weft-keeper`,
//! runs the pipeline on pinned workers, and obeys `dataplane.sock`.

mod burst;
mod capture;
mod compile;
mod config;
mod control;
mod egress;
mod flow_list;
mod flow_memory;
mod handoff;
mod idle;
mod kept_tables;
mod lending;
mod links;
mod mailbox;
mod objects;
mod pcapng;
mod policy;
mod policy_log;
mod ports;
mod queue;
mod redirect_targets;
mod server;
mod service_list;
mod shortcut;
mod shortcut_ring;
mod snapshot;
mod start;
mod status;
mod steering;
mod tap;
mod trace;
mod verdict_ring;
mod waiter;
mod worker;
mod worker_counters;
mod workers;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::AsFd;
use weft_api::paths::RunDir;

use crate::config::{Cli, Tuning};
use crate::links::{LinkNews, LinkWatch};
use crate::redirect_targets::{TargetNews, TargetWatch};
use crate::server::{Shared, lock};
use crate::shortcut::RENEW;

/// How often the workers are looked after.
const CARE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.log.run(|| run(&cli))
}

fn run(cli: &Cli) -> Result<()> {
    let tuning = Tuning::load(cli.config.as_deref())?;
    // Blocked before any thread starts, so that all of them inherit it and only the signalfd sees them.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)?;

    let socket = RunDir::new(&cli.run_dir).dataplane_socket();
    let mut links = LinkWatch::new().context("watching links")?;
    let (targets, mut target_watch) = redirect_targets::open()
        .inspect_err(|error| tracing::warn!(%error, "no shortcuts to pods: who takes redirected packets is not known"))
        .ok()
        .unzip();
    let control: Shared = Arc::new(Mutex::new(start::start(cli, tuning, targets)?));
    let listener =
        server::listen(&socket).with_context(|| format!("listening at {}", socket.display()))?;
    tracing::info!(socket = %socket.display(), "ready");
    let served = Arc::clone(&control);
    std::thread::Builder::new()
        .name("accept".to_owned())
        .spawn(move || server::accept(&listener, &served))?;
    let outcome = watch(&control, &mut links, target_watch.as_mut(), &signals);
    lock(&control).workers.stop();
    let _ = std::fs::remove_file(&socket);
    outcome
}

/// Until told to stop: detaches ports whose link is gone, takes shortcuts from those that refuse them, and sees that
/// workers and keeper live.
fn watch(
    control: &Shared,
    links: &mut LinkWatch,
    mut targets: Option<&mut TargetWatch>,
    signals: &SignalFd,
) -> Result<()> {
    let keeper = lock(control).keeper.as_fd().try_clone_to_owned()?;
    let bell = lock(control).shortcut_bell()?;
    let mut keeper_lives = true;
    loop {
        let care = if lock(control).has_shortcuts() {
            RENEW
        } else {
            CARE
        };
        let input = |fd| Some(PollFd::new(fd, PollFlags::POLLIN));
        let hung_up = PollFd::new(keeper.as_fd(), PollFlags::POLLHUP);
        let waiting = [
            input(signals.as_fd()),
            input(links.as_fd()),
            targets.as_ref().and_then(|it| input(it.as_fd())),
            keeper_lives.then_some(hung_up),
            bell.as_ref().and_then(|it| input(it.as_fd())),
        ];
        let [is_told, has_links, has_targets, has_hung_up, _] = ready(waiting, care)?;
        if is_told {
            tracing::info!("stopping; the keeper holds sockets and frames for the next start");
            return Ok(());
        }
        if has_links {
            match links.wait()? {
                LinkNews::Gone(gone) => gone
                    .into_iter()
                    .for_each(|ifindex| lock(control).link_gone(ifindex)),
                LinkNews::Overrun => lock(control).sweep_gone_links(),
            }
        }
        if has_targets && let Some(targets) = &mut targets {
            match targets.wait()? {
                TargetNews::Refused(all) => lock(control).ask_targets(&all),
                TargetNews::Overrun => lock(control).ask_all_targets(),
            }
        }
        if has_hung_up {
            keeper_lives = false;
            tracing::error!(
                "weft-keeper is gone: packets still flow, but no port can be attached or detached; restart weft-keeper and weft-dataplane"
            );
        }
        lock(control).tend()?;
    }
}

/// Waits until any of those that are there has something to say. Which have.
fn ready<const N: usize>(of: [Option<PollFd<'_>>; N], most: Duration) -> Result<[bool; N]> {
    let mut fds: Vec<PollFd<'_>> = of.iter().flatten().cloned().collect();
    poll(&mut fds, PollTimeout::try_from(most)?)?;
    let mut polled = fds.iter().map(|fd| fd.any().unwrap_or(false));
    Ok(of.map(|it| it.is_some() && polled.next().unwrap_or(false)))
}
