//! The state every part of the agent shares.
//!
//! Locks are held for memory and small file writes only, never across an await. What parts must
//! react to are watch channels: a slow reader sees the newest value, never a queue.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use nix::time::{ClockId, clock_gettime};
use tokio::sync::{RwLock, watch};
use weft_api::PodRef;
use weft_api::agent::Ready;
use weft_api::dataplane::PortSpec;
use weft_api::object::{Object, UnderlayPath};
use weft_api::paths::RunDir;
use weft_model::compile::ClusterConfig;

use crate::attachments::Attachments;
use crate::dataplane::Dataplane;
use crate::desired::{Desired, LocalPods, Outcome};
use crate::host::mtu::pod_path_mtu;
use crate::watch::dir::FileChange;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the sockets are.
    pub run_dir: RunDir,
    /// Where what must outlive the process is kept.
    pub state_dir: PathBuf,
    /// The cluster.
    pub cluster: ClusterConfig,
    /// How long a released address is not given again.
    pub cooldown: Duration,
}

/// What the kernel says about the way to other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Underlay {
    /// Paths to the tunnel endpoints known so far.
    pub paths: Vec<UnderlayPath>,
    /// Smallest MTU of the links that hold node addresses, in bytes.
    pub link_mtu: Option<u32>,
}

/// The table objects the dataplane should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objects {
    /// In the order of their keys.
    pub all: Vec<Object>,
    /// The version of the local pods they were made for.
    pub pods_revision: u64,
}

/// What makes a new compilation necessary.
#[derive(Debug)]
pub enum Change {
    /// Manifests.
    Files(Vec<FileChange>),
    /// The pods of this node.
    Pods,
}

/// The node's own port, and how often it was made anew: a new pair of the same name must be
/// attached again though its properties are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePort {
    /// How to attach it; none while it is not there.
    pub spec: Option<PortSpec>,
    /// Grows when it goes away.
    pub epoch: u64,
}

/// How far the dataplane is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Generation last committed on the present connection; none before the first commit.
    pub generation: Option<u64>,
    /// The version of the local pods whose policies it has.
    pub pods_revision: u64,
    /// The node's own port is attached.
    pub node_port: bool,
}

/// The shared state; used behind an `Arc`.
#[derive(Debug)]
pub struct Agent {
    options: Options,
    dataplane: Dataplane,
    /// The pods of the cluster.
    pods: watch::Sender<BTreeMap<PodRef, Arc<Pod>>>,
    desired: watch::Sender<Arc<Desired>>,
    underlay: watch::Sender<Option<Underlay>>,
    pods_revision: watch::Sender<u64>,
    objects: watch::Sender<Option<Arc<Objects>>>,
    path_mtu: watch::Sender<u32>,
    node_port: watch::Sender<NodePort>,
    progress: watch::Sender<Progress>,
    problems: Mutex<BTreeMap<&'static str, Vec<String>>>,
    /// Held while desired state and underlay are put together: they change on different threads,
    /// and the newer result must be the later one.
    combining: Mutex<()>,
    /// Whom to tell that pods came or went.
    pods_changed: Mutex<Option<Sender<Change>>>,
    pub(crate) attachments: Mutex<Attachments>,
    /// True once it is certain which addresses are in use.
    pub(crate) recovered: watch::Sender<bool>,
    /// Attaching and detaching single ports shares it; comparing all ports holds it alone.
    pub(crate) ports: RwLock<()>,
}

impl Agent {
    /// The state at start: attachments as the agent before this one left them.
    ///
    /// # Errors
    /// When the state directory cannot be used.
    pub fn open(options: Options) -> io::Result<Arc<Self>> {
        let cooldown_ms = u64::try_from(options.cooldown.as_millis()).unwrap_or(u64::MAX);
        let (attachments, problem) = Attachments::open(&options.state_dir, cooldown_ms)?;
        let recovered = attachments.is_certain();
        let agent = Self {
            dataplane: Dataplane::default(),
            pods: watch::Sender::default(),
            desired: watch::Sender::new(Arc::default()),
            pods_revision: watch::Sender::new(0),
            underlay: watch::Sender::new(None),
            objects: watch::Sender::new(None),
            path_mtu: watch::Sender::new(pod_path_mtu(&[], None, &[])),
            node_port: watch::Sender::new(NodePort::default()),
            progress: watch::Sender::new(Progress::default()),
            problems: Mutex::default(),
            combining: Mutex::default(),
            pods_changed: Mutex::default(),
            attachments: Mutex::new(attachments),
            recovered: watch::Sender::new(recovered),
            ports: RwLock::new(()),
            options,
        };
        agent.set_problems("state", problem.into_iter().collect());
        Ok(Arc::new(agent))
    }

    /// What the command line said.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The connection to the dataplane.
    pub fn dataplane(&self) -> &Dataplane {
        &self.dataplane
    }

    /// The desired state as of now.
    pub fn desired(&self) -> Arc<Desired> {
        self.desired.borrow().clone()
    }

    /// The desired state, now and whenever it changes.
    pub fn watch_desired(&self) -> watch::Receiver<Arc<Desired>> {
        self.desired.subscribe()
    }

    /// The pods' path MTU, in bytes.
    pub fn path_mtu(&self) -> u32 {
        *self.path_mtu.borrow()
    }

    /// The pods' path MTU, now and whenever it changes.
    pub fn watch_path_mtu(&self) -> watch::Receiver<u32> {
        self.path_mtu.subscribe()
    }

    /// The objects the dataplane should have; none while this node is unknown: then it keeps those
    /// it has.
    pub fn watch_objects(&self) -> watch::Receiver<Option<Arc<Objects>>> {
        self.objects.subscribe()
    }

    /// The node's own port.
    pub fn watch_node_port(&self) -> watch::Receiver<NodePort> {
        self.node_port.subscribe()
    }

    /// How far the dataplane is.
    pub fn watch_progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Changes how far the dataplane is.
    pub(crate) fn update_progress(&self, update: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(update);
    }

    /// Takes a new desired state.
    pub fn set_desired(&self, outcome: Outcome) {
        self.set_problems("source", outcome.problems);
        if let Some(local) = &outcome.desired.local {
            lock(&self.attachments).set_prefixes(&local.pod_cidrs);
        }
        self.pods.send_if_modified(|pods| {
            let changed = !outcome.pods.is_empty();
            for (name, pod) in outcome.pods {
                match pod {
                    Some(pod) => drop(pods.insert(name, pod)),
                    None => drop(pods.remove(&name)),
                }
            }
            changed
        });
        replace_if_changed(&self.desired, Arc::new(outcome.desired));
        self.pods_revision.send_replace(outcome.pods_revision);
        self.combine();
    }

    /// The pods that are attached or about to be.
    pub fn local_pods(&self) -> LocalPods {
        lock(&self.attachments).local_pods()
    }

    /// Sends [`Change::Pods`] whenever [`Agent::local_pods`] may have changed.
    pub fn on_pods_changed(&self, compiler: Sender<Change>) {
        *lock(&self.pods_changed) = Some(compiler);
    }

    /// Tells the compiler to look at the local pods again.
    pub(crate) fn pods_changed(&self) {
        if let Some(compiler) = lock(&self.pods_changed).as_ref() {
            // It ends only with the agent.
            let _ = compiler.send(Change::Pods);
        }
    }

    /// Takes what the kernel says about the underlay: the whole list each time.
    pub fn set_underlay(&self, underlay: Underlay) {
        replace_if_changed(&self.underlay, Some(underlay));
        self.combine();
    }

    /// Whether every tunnel endpoint has a resolved path. A full sync that came before would take
    /// the paths from a dataplane that still has those of the agent before this one.
    pub fn has_every_path(&self) -> bool {
        let underlay = self.underlay.borrow();
        let Some(underlay) = underlay.as_ref() else {
            return false;
        };
        let resolved = |vtep| {
            let mut paths = underlay.paths.iter();
            paths.any(|path| path.vtep == vtep && path.next_hop_mac.is_some())
        };
        self.desired
            .borrow()
            .remotes
            .iter()
            .all(|remote| resolved(remote.vtep))
    }

    /// Tells that the node's own port is there and how to attach it, or that it is gone.
    pub fn set_node_port(&self, port: Option<PortSpec>) {
        self.node_port.send_if_modified(|current| {
            let changed = current.spec != port;
            if changed && port.is_none() {
                current.epoch += 1;
            }
            current.spec = port;
            changed
        });
    }

    /// Replaces the problems `who` has; an empty list means it is well.
    pub fn set_problems(&self, who: &'static str, problems: Vec<String>) {
        let mut all = lock(&self.problems);
        let known = all.entry(who).or_default();
        for problem in problems.iter().filter(|problem| !known.contains(problem)) {
            tracing::warn!(part = who, "{problem}");
        }
        *known = problems;
    }

    /// All problems there are, a sentence each.
    pub fn problems(&self) -> Vec<String> {
        lock(&self.problems).values().flatten().cloned().collect()
    }

    /// Waits up to `limit` for a pod to appear in the desired state.
    pub async fn wait_for_pod(&self, pod: &PodRef, limit: Duration) -> Option<Arc<Pod>> {
        let mut pods = self.pods.subscribe();
        let known = async {
            loop {
                let found = pods.borrow_and_update().get(pod).cloned();
                if found.is_some() || pods.changed().await.is_err() {
                    return found;
                }
            }
        };
        tokio::time::timeout(limit, known).await.ok().flatten()
    }

    /// Whether an ADD would succeed now.
    pub fn ready(&self) -> Ready {
        let mut problems = Vec::new();
        let name = &self.options.cluster.node;
        if self.desired.borrow().local.is_none() {
            problems.push(format!("there is no Node {name} in the source yet"));
        }
        let progress = *self.progress.borrow();
        if self.dataplane.connection().is_none() {
            problems.push("the dataplane cannot be reached".to_owned());
        } else if progress.generation.is_none() {
            problems.push("the dataplane does not have its tables yet".to_owned());
        } else if !progress.node_port {
            problems.push("the node's own port, weft0, is not attached yet".to_owned());
        }
        if !*self.recovered.borrow() {
            problems.push("the addresses in use are not known yet".to_owned());
        }
        problems.extend(lock(&self.attachments).exhausted());
        Ready { problems }
    }

    /// What desired state and underlay mean together.
    fn combine(&self) {
        let _alone = lock(&self.combining);
        let underlay = self.underlay.borrow().clone().unwrap_or_default();
        let desired = self.desired.borrow().clone();
        let local = desired.local.as_ref().map_or(&[][..], |l| &l.addresses);
        let mtu = pod_path_mtu(&underlay.paths, underlay.link_mtu, local);
        replace_if_changed(&self.path_mtu, mtu);
        let objects = desired.local.is_some().then(|| {
            Arc::new(Objects {
                all: objects(&desired, underlay),
                pods_revision: *self.pods_revision.borrow(),
            })
        });
        // A node that lost its own Node object goes on with what it has.
        if objects.is_some() {
            replace_if_changed(&self.objects, objects);
        }
    }
}

/// The objects of `desired` with what the kernel says about the way to other nodes.
fn objects(desired: &Desired, underlay: Underlay) -> Vec<Object> {
    let vteps: HashSet<IpAddr> = desired.remotes.iter().map(|remote| remote.vtep).collect();
    let paths = underlay.paths.into_iter();
    let paths: BTreeMap<IpAddr, UnderlayPath> = paths
        .filter(|path| vteps.contains(&path.vtep))
        .map(|path| (path.vtep, path))
        .collect();
    let nodes = usize::from(desired.local.is_some()) + desired.remotes.len();
    let mut objects: Vec<Object> = desired.objects().collect();
    objects.splice(nodes..nodes, paths.into_values().map(Object::UnderlayPath));
    if let Some(Object::LocalNode(local)) = objects.first_mut() {
        local.outside_mtu = underlay.link_mtu.unwrap_or(local.outside_mtu);
    }
    objects
}

/// Milliseconds since boot, suspended time included: one clock for every agent of a boot.
pub(crate) fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    let ms = now.unwrap_or_default().as_millis();
    u64::try_from(ms).unwrap_or(u64::MAX)
}

/// Locks; a panic elsewhere leaves data that is still whole, for nothing here panics half-way.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn replace_if_changed<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|current| {
        let changed = *current != value;
        if changed {
            *current = value;
        }
        changed
    });
}
