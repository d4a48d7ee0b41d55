//! Keeps the host as the desired state says, for as long as the agent runs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use weft_api::dataplane::{PortKind, PortSpec};
use weft_api::object::LocalNode;
use weft_api::{NODE_PORT_PEER, PortName, VETH_MTU};

use super::service_access::ServiceAccess;
use super::underlay::{self, Targets, View};
use super::{HostSpec, Netlink, apply};
use crate::desired::Desired;
use crate::state::{Agent, Underlay};

/// How often the host is compared with what it should be although nothing changed: bounds how long
/// a flushed ruleset or a deleted `weft0` stays away. A comparison costs a few milliseconds, most
/// of them nft's.
const REPAIR: Duration = Duration::from_secs(30);

/// Problems of the underlay told to people: enough to see a pattern when a whole site is gone.
const PROBLEMS_MAX: usize = 20;

/// Runs until the agent ends. What was set up stays.
///
/// # Errors
/// When the kernel gives no netlink socket.
pub async fn run(agent: Arc<Agent>) -> anyhow::Result<()> {
    let netlink = Netlink::open().context("setting up the host")?;
    let (targets, followed) = watch::channel(Targets::default());
    // One view is enough: the follower waits, and the next one holds everything.
    let (sender, views) = mpsc::channel(1);
    let follower = async {
        let ended = underlay::follow(followed, sender).await;
        ended.context("following the underlay")
    };
    tokio::select! {
        ended = follower => ended,
        ended = keep(&agent, &netlink, &targets, views) => ended,
    }
}

async fn keep(
    agent: &Agent,
    netlink: &Netlink,
    targets: &watch::Sender<Targets>,
    mut views: mpsc::Receiver<View>,
) -> anyhow::Result<()> {
    let mut desired = agent.watch_desired();
    let mut path_mtu = agent.watch_path_mtu();
    let mut view = None;
    let mut port = None;
    // What the host was last set up for without a problem.
    let mut applied = None;
    let mut repair = tokio::time::interval_at(Instant::now() + REPAIR, REPAIR);
    repair.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = desired.borrow_and_update().clone();
        let wanted = targets_of(&now);
        targets.send_if_modified(|current| {
            let changed = *current != wanted;
            *current = wanted.clone();
            changed
        });
        // Not before the underlay's interfaces are known: some settings of theirs must come first.
        let known = view
            .as_ref()
            .filter(|view: &&View| view.local == wanted.local);
        if let (Some(local), Some(view)) = (&now.local, known) {
            let spec = spec_of(&now, local, view, *path_mtu.borrow_and_update());
            // Most changes of the cluster are none of the host.
            if applied.as_ref() != Some(&spec) {
                let well = set_up(agent, netlink, &spec, &mut port).await;
                applied = well.then_some(spec);
            }
        }
        tokio::select! {
            changed = desired.changed() => changed?,
            changed = path_mtu.changed() => changed?,
            seen = views.recv() => match seen {
                Some(seen) => {
                    view = Some(tell(agent, seen));
                    applied = None;
                }
                None => std::future::pending().await,
            },
            _ = repair.tick() => applied = None,
        }
    }
}

fn tell(agent: &Agent, view: View) -> View {
    agent.set_underlay(Underlay {
        paths: view.paths.clone(),
        link_mtu: view.link_mtu,
    });
    let mut problems = view.problems.clone();
    let more = problems.len().saturating_sub(PROBLEMS_MAX);
    if more > 0 {
        problems.truncate(PROBLEMS_MAX);
        problems.push(format!("{more} more of the kind"));
    }
    agent.set_problems("underlay", problems);
    view
}

fn targets_of(desired: &Desired) -> Targets {
    let local = desired.local.as_ref();
    Targets {
        vteps: desired.remotes.iter().map(|remote| remote.vtep).collect(),
        local: local.map_or_else(Vec::new, |local| local.addresses.clone()),
    }
}

fn spec_of(desired: &Desired, local: &LocalNode, view: &View, path_mtu: u32) -> HostSpec {
    let remotes = &desired.remotes;
    let remote_cidrs = remotes.iter().flat_map(|remote| &remote.pod_cidrs);
    let mut pod_ranges: Vec<_> = desired.pod_ranges().collect();
    pod_ranges.extend(local.pod_cidrs.iter().chain(remote_cidrs));
    let remote_addresses = remotes.iter().flat_map(|remote| &remote.addresses);
    HostSpec {
        mac: local.node_port_mac,
        addresses: local.node_port_addresses.clone(),
        pod_ranges,
        service_ranges: desired.service_ranges().collect(),
        node_addresses: local
            .addresses
            .iter()
            .chain(remote_addresses)
            .copied()
            .collect(),
        underlay: view.interfaces.clone(),
        path_mtu,
        service_access: ServiceAccess::of(&desired.services.services, &local.addresses),
    }
}

/// Sets the host up and tells the agent about the node's own port. A pair that was made anew has
/// another index, and must be attached anew. False where something could not be set up.
async fn set_up(agent: &Agent, netlink: &Netlink, spec: &HostSpec, port: &mut Option<u32>) -> bool {
    let problems = match apply(netlink, spec).await {
        Ok(()) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    };
    for problem in &problems {
        tracing::warn!("{problem}");
    }
    let well = problems.is_empty();
    agent.set_problems("host", problems);
    let peer = netlink.link(NODE_PORT_PEER).await.ok().flatten();
    let index = peer.map(|link| link.index);
    if index != *port {
        agent.set_node_port(None);
        *port = index;
    }
    agent.set_node_port(index.map(|_| PortSpec {
        name: PortName(NODE_PORT_PEER.to_owned()),
        kind: PortKind::Node,
        mac: spec.mac,
        addresses: spec.addresses.clone(),
        mtu: VETH_MTU,
        pod: None,
        netns: None,
    }));
    well
}
