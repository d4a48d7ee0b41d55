//! The whole state for people and tests: what `weft status` prints.

use weft_api::dataplane::{Counter, FrameStatus, RemoteStatus, Status, WorkerStatus};
use weft_api::object::Object;
use weft_engine::table::flow::FlowCounters;
use weft_engine::{DropReason, Outcome, Stage};

use crate::control::Control;
use crate::shortcut::Shortcuts;
use crate::worker::Account;
use crate::worker_counters::WorkerReading;

/// Accounts are taken worker by worker, so a frame handed over in between is missed once; a frame
/// missed this often is leaked.
const ACCOUNT_TRIES: usize = 3;

/// Gathers everything.
pub fn status(control: &Control) -> Status {
    // First: it lets the workers publish their counters and read the kernel's.
    let frames = frames(control);
    control.workers.absorb_shortcuts();
    let workers: Vec<(Option<usize>, WorkerReading)> = control.workers.readings().collect();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_s: control.started.elapsed().as_secs(),
        restarts: control.keeper.session().restarts,
        node: node_name(control),
        generation: control.objects.generation(),
        committed: control.objects.committed(),
        features: control.keeper.session().features.clone(),
        workers: workers
            .iter()
            .enumerate()
            .map(|(id, (core, reading))| worker(id, *core, reading))
            .collect(),
        frames,
        stages: total(
            &workers,
            |r| &r.stages,
            Stage::ALL.iter().map(|stage| (stage.name(), "")),
        ),
        verdicts: total(
            &workers,
            |r| &r.outcomes,
            Outcome::ALL.iter().map(|outcome| (outcome.name(), "")),
        ),
        drops: total(
            &workers,
            |r| &r.drops,
            DropReason::ALL
                .iter()
                .map(|reason| (reason.name(), reason.describe())),
        ),
        flows: total(&workers, |r| &r.flows, FlowCounters::NAMES.into_iter()),
        policy: crate::policy::counters(control, &workers),
        shortcuts: control
            .shortcuts
            .iter()
            .flat_map(Shortcuts::counters)
            .collect(),
        ports: control.port_statuses(),
        remotes: remotes(control),
    }
}

fn node_name(control: &Control) -> Option<String> {
    control.objects.objects().find_map(|object| match object {
        Object::LocalNode(node) => Some(node.name.clone()),
        _ => None,
    })
}

fn worker(id: usize, core: Option<usize>, reading: &WorkerReading) -> WorkerStatus {
    WorkerStatus {
        id: id as u16,
        core: core.map(|core| core as u32),
        ports: reading.queues as u16,
        busy_loops: reading.busy_loops,
        sleeps: reading.sleeps,
        handoffs: reading.handoffs,
    }
}

/// The sum of one group of counters over all workers, with its names.
fn total<'a>(
    workers: &[(Option<usize>, WorkerReading)],
    group: impl Fn(&WorkerReading) -> &[u64],
    names: impl Iterator<Item = (&'a str, &'a str)>,
) -> Vec<Counter> {
    let sum = |index: usize| {
        workers
            .iter()
            .map(|(_, reading)| group(reading)[index])
            .sum()
    };
    let counter = |(index, (name, description)): (usize, (&str, &str))| Counter {
        name: name.to_owned(),
        count: sum(index),
        description: description.to_owned(),
    };
    names.enumerate().map(counter).collect()
}

fn remotes(control: &Control) -> Vec<RemoteStatus> {
    let objects = || control.objects.objects();
    let mut remotes = Vec::new();
    for object in objects() {
        let Object::RemoteNode(node) = object else {
            continue;
        };
        let path = objects().find_map(|object| match object {
            Object::UnderlayPath(path) if path.vtep == node.vtep => Some(path),
            _ => None,
        });
        remotes.push(RemoteStatus {
            name: node.name.clone(),
            vtep: node.vtep,
            uplink: path.map(|path| path.ifname.clone()),
            next_hop_mac: path.and_then(|path| path.next_hop_mac),
            mtu: control
                .compiler
                .remote(&node.name)
                .map_or(0, |remote| remote.inner_mtu),
        });
    }
    remotes
}

fn frames(control: &Control) -> FrameStatus {
    let total = u64::from(control.umem.frames());
    let mut status = FrameStatus {
        total,
        ..FrameStatus::default()
    };
    for _ in 0..ACCOUNT_TRIES {
        let Ok(accounts) = control.workers.accounts() else {
            return status;
        };
        let sum = |part: fn(&Account) -> u64| accounts.iter().map(part).sum::<u64>();
        status.free = sum(|account| account.free);
        status.fill = sum(|account| account.fill);
        status.tx = sum(|account| account.tx + account.handed);
        status.held = sum(|account| account.held);
        let known = status.free + status.fill + status.tx + status.held;
        status.leaked = total.saturating_sub(known);
        if status.leaked == 0 {
            break;
        }
    }
    status
}
