//! Starts the agent's parts and ends with them.

use std::fs::{self, File, OpenOptions};
use std::iter;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{SignalKind, signal};

use crate::desired::DesiredState;
use crate::options::Args;
use crate::state::{Agent, Change};
use crate::watch::Source;
use crate::watch::dir::{DirWatcher, Report};
use crate::{cni_server, health_check, host, push};

/// Runs until SIGTERM or SIGINT, or until a part cannot go on. What was set up on the host and in
/// the dataplane stays.
///
/// # Errors
/// When a directory cannot be used, another agent runs on it, or a part failed for good.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let Source::Dir(manifests) = &args.source else {
        bail!(
            "--source kubernetes is not part of this build; use --source dir:PATH with a directory of manifests"
        );
    };
    let options = args.options();
    let run_dir = options.run_dir.path();
    fs::create_dir_all(run_dir).with_context(|| format!("creating {}", run_dir.display()))?;
    let _only_one = lock_state(&args.state_dir)?;
    let in_state_dir = || format!("using the state directory {}", args.state_dir.display());
    let agent = Agent::open(options.clone()).with_context(in_state_dir)?;
    let state = DesiredState::open(options.cluster.clone(), &args.state_dir);
    let _watcher = watch_dir(&agent, state.with_context(in_state_dir)?, manifests)?;
    let node = &options.cluster.node;
    tracing::info!(node, manifests = %manifests.display(), "the agent runs");
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = host::run(Arc::clone(&agent)) => ended.context("setting up the host"),
        ended = cni_server::run(Arc::clone(&agent), options.run_dir.agent_socket()) => {
            ended.context("serving agent.sock")
        }
        () = push::run(Arc::clone(&agent)) => Ok(()),
        () = health_check::run(Arc::clone(&agent)) => Ok(()),
        _ = terminated.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted.context("waiting for a signal"),
    }
}

/// Follows `dir` and the pods of this node, and gives the agent what they mean together.
///
/// # Errors
/// When the kernel gives no inotify instance or no thread.
pub fn watch_dir(
    agent: &Arc<Agent>,
    mut state: DesiredState,
    dir: &Path,
) -> anyhow::Result<DirWatcher> {
    let known = state.files();
    state.set_pods(agent.local_pods());
    if !known.is_empty() {
        // Until the directory was read, what the agent before this one read is what should be.
        agent.set_desired(state.compile());
    }
    let (changed, changes) = mpsc::channel();
    agent.on_pods_changed(changed.clone());
    let compiling = Arc::clone(agent);
    thread::Builder::new()
        .name("compiler".to_owned())
        .spawn(move || compile_changes(&compiling, state, &changes))
        .context("starting the compiler")?;
    let agent = Arc::clone(agent);
    let sink = move |report| match report {
        Report::Changes(changes) => {
            agent.set_problems("directory", Vec::new());
            // The compiler ends only with the agent.
            let _ = changed.send(Change::Files(changes));
        }
        Report::Unavailable(problem) => agent.set_problems("directory", vec![problem]),
    };
    DirWatcher::spawn(dir.to_owned(), known, sink).context("watching the manifests")
}

/// Compiles once for all changes that came meanwhile: of 200 pods that are attached at once most
/// share a compilation.
fn compile_changes(agent: &Agent, mut state: DesiredState, changes: &Receiver<Change>) {
    while let Ok(first) = changes.recv() {
        let mut changed = false;
        for change in iter::once(first).chain(changes.try_iter()) {
            match change {
                Change::Files(files) => {
                    state.apply(files);
                    changed = true;
                }
                Change::Pods => changed |= state.set_pods(agent.local_pods()),
            }
        }
        if changed {
            agent.set_desired(state.compile());
            state.keep();
        }
    }
}

/// Two agents on one state would give one address twice.
fn lock_state(state_dir: &Path) -> anyhow::Result<Flock<File>> {
    let path = state_dir.join("lock");
    fs::create_dir_all(state_dir).with_context(|| format!("creating {}", state_dir.display()))?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| error)
        .with_context(|| {
            format!(
                "another agent uses the state directory {}",
                state_dir.display()
            )
        })
}
