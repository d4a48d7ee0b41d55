//! From nothing, or from what a killed predecessor left, to running workers.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::ifaddrs::getifaddrs;
use weft_api::dataplane::{Feature, PortKind, PortSpec};
use weft_api::paths::RunDir;
use weft_api::{MacAddr, PortName};
use weft_keeper::client::KeeperClient;
use weft_snapshot::Publisher;
use weft_xsk::{FramePool, Umem};

use crate::compile::Compiler;
use crate::config::{Cli, Tuning};
use crate::control::{self, Control};
use crate::flow_memory::Flows;
use crate::kept_tables::KeptTables;
use crate::objects::ObjectStore;
use crate::ports::Ports;
use crate::queue::Mapped;
use crate::redirect_targets::RedirectTargets;
use crate::shortcut::Shortcuts;
use crate::snapshot::Snapshot;
use crate::steering::Steered;
use crate::workers::Workers;

/// How long a keeper that starts beside us may take.
const KEEPER_PATIENCE: Duration = Duration::from_secs(10);

/// MTU the pipeline assumes of an uplink; each path's own is in the tables.
const UPLINK_MTU: u32 = 65_535;

/// Takes everything over from the keeper and starts the workers. Pods have shortcuts where `targets` is there to ask.
///
/// # Errors
/// What stands in the way, with what to do about it.
pub fn start(cli: &Cli, tuning: Tuning, targets: Option<RedirectTargets>) -> Result<Control> {
    let run_dir = RunDir::new(&cli.run_dir);
    let mut keeper = KeeperClient::connect(&run_dir.keeper_socket(), KEEPER_PATIENCE).context(
        "start weft-keeper first, with the same --run-dir and in the same network namespace",
    )?;
    check_kernel(&keeper.session().features)?;
    let remap = has(&keeper.session().features, "ring-remap");
    let umem = Arc::new(Umem::map_memfd(keeper.memfd()).context("mapping the keeper's frames")?);
    let cores = cores(&cli.cores)?;
    let homeless = evict(&mut keeper, remap)?;
    let (ports, mut queues, foreign) = adopt(&mut keeper, cores.len())?;
    let mut pool = FramePool::empty(&umem);
    let sockets = queues
        .iter_mut()
        .flat_map(|(_, queues)| queues.iter_mut().map(|queue| &mut queue.socket));
    let report = weft_xsk::recover(&umem, sockets, &mut pool)
        .context("finding the frames of the last dataplane")?;
    tracing::info!(
        ?report,
        restarts = keeper.session().restarts,
        "frames found"
    );

    let mut kept = KeptTables::at(run_dir.tables());
    let objects = kept.load().unwrap_or_else(|error| {
        tracing::error!(path = %kept.path().display(), %error, "cannot use the kept tables; denying until the agent's first commit");
        ObjectStore::default()
    });
    let mut compiler = Compiler::default();
    let tables = compiler.tables(objects.objects(), &ports);
    let mut publisher = Publisher::new(Snapshot::new(tables, &ports.homes(), cores.len() as u16));
    let mut flows = Flows::take_over(&mut keeper, cores.len(), tuning.flows)?;
    let clock = flows.clock;
    let shortcuts = take_shortcuts(&mut keeper, cores.len(), &mut flows);
    let workers = Workers::start(&cores, &tuning, &umem, pool, flows, &mut publisher)?;
    let mut control = Control {
        keeper,
        umem,
        workers,
        ports,
        objects,
        compiler,
        publisher,
        kept,
        tuning,
        started: Instant::now(),
        clock,
        trace_bench: None,
        steered: Steered::default(),
        shortcuts,
        targets,
        captures: 0,
        remap,
    };
    for (id, queues) in queues {
        control.serve(id, queues).map_err(|error| anyhow!(error))?;
    }
    give_up(&mut control.keeper, foreign)?;
    rebind(&mut control, homeless);
    bind_uplinks(&mut control, &cli.underlay)?;
    control.steer().map_err(|error| anyhow!(error))?;
    control.sweep_gone_links();
    control.ask_all_targets();
    control.allow_shortcuts(true);
    Ok(control)
}

/// The shortcuts of this node; none with a keeper that does not know of them.
fn take_shortcuts(
    keeper: &mut KeeperClient,
    workers: usize,
    flows: &mut Flows,
) -> Option<Shortcuts> {
    match Shortcuts::take_over(keeper, workers, flows.clock) {
        Ok((shortcuts, parts)) => {
            flows.use_shortcuts(parts);
            Some(shortcuts)
        }
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(error, "no shortcuts between this node's pods");
            None
        }
    }
}

/// Better refused here, in a sentence, than by an error for every port.
fn check_kernel(features: &[Feature]) -> Result<()> {
    if !has(features, "af-xdp") {
        bail!("the kernel has no AF_XDP sockets (CONFIG_XDP_SOCKETS), or CAP_NET_RAW is missing");
    }
    Ok(())
}

/// Features a keeper does not name are those of kernels it expects everywhere.
fn has(features: &[Feature], name: &str) -> bool {
    features.iter().all(|it| it.name != name || it.present)
}

/// Before Linux 6.4 nobody can map what a predecessor left: its ports are given up, and what they were is answered.
/// All go before the first is bound again, since the kernel takes a while to free a queue.
fn evict(keeper: &mut KeeperClient, remap: bool) -> Result<Vec<PortSpec>> {
    let mut specs = Vec::new();
    if remap {
        return Ok(specs);
    }
    for port in keeper.ports().context("asking the keeper for its ports")? {
        let id = port.record.id;
        let config = port.record.config.clone();
        // Its descriptors go before it is given up, so that its frames are nobody's then.
        drop(port);
        keeper
            .unbind(id)
            .with_context(|| format!("giving up port {id}"))?;
        match serde_json::from_value::<PortSpec>(config) {
            Ok(spec) => specs.push(spec),
            Err(error) => {
                tracing::error!(port = id, %error, "the keeper's port has an unreadable description");
            }
        }
    }
    specs.retain(|spec| spec.kind != PortKind::Uplink);
    Ok(specs)
}

/// Binds again what was evicted; a pod that went meanwhile has no interface any more.
fn rebind(control: &mut Control, homeless: Vec<PortSpec>) {
    for spec in homeless {
        let name = spec.name.clone();
        if let Err(error) = control.bind(spec, false) {
            tracing::warn!(port = %name, %error, "cannot bind it again");
        }
    }
}

type Adopted = (Ports, Vec<(u16, Vec<Mapped>)>, Vec<u16>);

/// Maps every port a predecessor left; those whose description cannot be read are given up.
fn adopt(keeper: &mut KeeperClient, workers: usize) -> Result<Adopted> {
    let mut ports = Ports::default();
    let mut queues = Vec::new();
    let mut foreign = Vec::new();
    for port in keeper.ports().context("asking the keeper for its ports")? {
        let id = port.record.id;
        match serde_json::from_value::<PortSpec>(port.record.config.clone()) {
            Ok(spec) => {
                let (port, mapped) =
                    control::map(port, spec, workers).map_err(|error| anyhow!(error))?;
                ports.insert(port);
                queues.push((id, mapped));
            }
            Err(error) => {
                tracing::error!(port = %port.record.ifname, %error, "the keeper's port has an unreadable description");
                foreign.push(id);
            }
        }
    }
    Ok((ports, queues, foreign))
}

/// Unbinds what is no port of ours.
fn give_up(keeper: &mut KeeperClient, foreign: Vec<u16>) -> Result<()> {
    for id in foreign {
        keeper
            .unbind(id)
            .with_context(|| format!("giving up port {id}, which is no port of ours"))?;
    }
    Ok(())
}

/// Binds what `--underlay` names and gives up what it names no longer.
fn bind_uplinks(control: &mut Control, underlay: &[String]) -> Result<()> {
    let wanted: BTreeSet<&str> = underlay.iter().map(String::as_str).collect();
    let dropped: Vec<PortName> = control
        .ports
        .iter()
        .filter(|port| {
            port.spec.kind == PortKind::Uplink && !wanted.contains(port.spec.name.0.as_str())
        })
        .map(|port| port.spec.name.clone())
        .collect();
    for name in dropped {
        tracing::info!(port = %name, "no longer an underlay interface; detaching");
        control.detach(&name).map_err(|error| anyhow!(error))?;
    }
    for name in wanted {
        let port_name = PortName(name.to_owned());
        if control.ports.named(&port_name).is_some() {
            continue;
        }
        let (mac, addresses) = interface(name)?;
        let spec = PortSpec {
            name: port_name,
            kind: PortKind::Uplink,
            mac,
            addresses,
            mtu: UPLINK_MTU,
            pod: None,
            netns: None,
        };
        let zero_copy = control.tuning.zero_copy;
        control
            .bind(spec, zero_copy)
            .map_err(|error| anyhow!(error))
            .with_context(|| format!("--underlay {name}"))?;
    }
    Ok(())
}

/// MAC and addresses of an interface of this namespace.
fn interface(name: &str) -> Result<(MacAddr, Vec<IpAddr>)> {
    let mut mac = None;
    let mut addresses = Vec::new();
    let mut seen = false;
    for entry in getifaddrs()
        .context("listing interfaces")?
        .filter(|entry| entry.interface_name == name)
    {
        seen = true;
        let Some(address) = entry.address else {
            continue;
        };
        if let Some(link) = address.as_link_addr() {
            mac = link.addr().map(MacAddr);
        } else if let Some(v4) = address.as_sockaddr_in() {
            addresses.push(IpAddr::V4(v4.ip()));
        } else if let Some(v6) = address.as_sockaddr_in6() {
            addresses.push(IpAddr::V6(v6.ip()));
        }
    }
    if !seen {
        bail!(
            "--underlay {name}: no such interface in this network namespace; `ip link` lists them"
        );
    }
    let mac = mac.with_context(|| format!("--underlay {name}: not an Ethernet interface"))?;
    Ok((mac, addresses))
}

/// One worker per requested core, or one on the last core this process may use.
fn cores(requested: &[usize]) -> Result<Vec<Option<usize>>> {
    let available: Vec<usize> = core_affinity::get_core_ids()
        .unwrap_or_default()
        .iter()
        .map(|c| c.id)
        .collect();
    if requested.is_empty() {
        return Ok(vec![available.last().copied()]);
    }
    for core in requested {
        if !available.contains(core) {
            bail!("--cores {core}: this process may use cores {available:?}");
        }
    }
    let distinct: BTreeSet<_> = requested.iter().collect();
    if distinct.len() != requested.len() {
        bail!("--cores {requested:?}: a core is named twice");
    }
    Ok(requested.iter().copied().map(Some).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_checked_and_default_to_one_worker() {
        assert_eq!(cores(&[]).unwrap().len(), 1);
        assert!(cores(&[99_999]).unwrap_err().to_string().contains("99999"));
        let first = core_affinity::get_core_ids().unwrap()[0].id;
        assert_eq!(cores(&[first]).unwrap(), [Some(first)]);
        assert!(
            cores(&[first, first])
                .unwrap_err()
                .to_string()
                .contains("twice")
        );
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        assert!(
            interface("nosuch0")
                .unwrap_err()
                .to_string()
                .contains("nosuch0")
        );
    }

    #[test]
    fn a_kernel_without_what_everything_needs_is_refused_by_name() {
        let feature = |name: &str, present| Feature {
            name: name.to_owned(),
            present,
            cost: "its cost".to_owned(),
        };
        let refused = check_kernel(&[feature("af-xdp", false)]).unwrap_err();
        assert!(refused.to_string().contains("CONFIG_XDP_SOCKETS"));
        let old = [feature("af-xdp", true), feature("ring-remap", false)];
        assert!(check_kernel(&old).is_ok() && !has(&old, "ring-remap"));
    }
}
