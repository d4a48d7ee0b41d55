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
    let control: Shared = Arc::new(Mutex::new(start::start(cli, tuning)?));
    let listener =
        server::listen(&socket).with_context(|| format!("listening at {}", socket.display()))?;
    tracing::info!(socket = %socket.display(), "ready");
    let served = Arc::clone(&control);
    std::thread::Builder::new()
        .name("accept".to_owned())
        .spawn(move || server::accept(&listener, &served))?;
    let outcome = watch(&control, &mut links, &signals);
    lock(&control).workers.stop();
    let _ = std::fs::remove_file(&socket);
    outcome
}

/// Until told to stop: detaches ports whose link is gone and sees that workers and keeper live.
fn watch(control: &Shared, links: &mut LinkWatch, signals: &SignalFd) -> Result<()> {
    let keeper = lock(control).keeper.as_fd().try_clone_to_owned()?;
    let bell = lock(control).shortcut_bell()?;
    let mut keeper_lives = true;
    loop {
        let mut fds = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(links.as_fd(), PollFlags::POLLIN),
            PollFd::new(keeper.as_fd(), PollFlags::POLLHUP),
        ];
        if !keeper_lives {
            fds.pop();
        }
        fds.extend(
            bell.iter()
                .map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN)),
        );
        let care = if lock(control).has_shortcuts() {
            RENEW
        } else {
            CARE
        };
        poll(&mut fds, PollTimeout::try_from(care)?)?;
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        if ready[0] {
            tracing::info!("stopping; the keeper holds sockets and frames for the next start");
            return Ok(());
        }
        if ready[1] {
            match links.wait()? {
                LinkNews::Gone(gone) => gone
                    .into_iter()
                    .for_each(|ifindex| lock(control).link_gone(ifindex)),
                LinkNews::Overrun => lock(control).sweep_gone_links(),
            }
        }
        if keeper_lives && ready[2] {
            keeper_lives = false;
            tracing::error!(
                "weft-keeper is gone: packets still flow, but no port can be attached or detached; restart weft-keeper and weft-dataplane"
            );
        }
        lock(control).tend()?;
    }
}
