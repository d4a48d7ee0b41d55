//! The state every part of the agent shares.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use weft_api::PodRef;
use weft_api::agent::{AgentStatus, Ready};
use weft_api::dataplane::PortSpec;
use weft_api::object::UnderlayPath;
use weft_api::paths::RunDir;
use weft_model::compile::ClusterConfig;

use crate::dataplane::Dataplane;
use crate::desired::Desired;

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
    /// Smallest MTU of the links that hold node addresses, in bytes; decides while there is no path.
    pub link_mtu: Option<u32>,
}

/// The shared state; used behind an `Arc`.
#[derive(Debug)]
pub struct Agent {
    options: Options,
    dataplane: Dataplane,
    desired: watch::Sender<Arc<Desired>>,
    path_mtu: watch::Sender<u32>,
}

impl Agent {
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

    /// Takes what the kernel says about the underlay: the whole list each time.
    pub fn set_underlay(&self, underlay: Underlay) {
        let _ = underlay;
    }

    /// Tells that the node's own port is there and how to attach it, or that it is gone.
    pub fn set_node_port(&self, port: Option<PortSpec>) {
        let _ = port;
    }

    /// Replaces the problems `who` has; an empty list means it is well.
    pub fn set_problems(&self, who: &'static str, problems: Vec<String>) {
        let _ = (who, problems);
    }

    /// Waits up to `limit` for a pod to appear in the desired state.
    pub async fn wait_for_pod(&self, pod: &PodRef, limit: Duration) -> Option<Arc<Pod>> {
        let _ = (pod, limit);
        None
    }

    /// Whether an ADD would succeed now.
    pub fn ready(&self) -> Ready {
        Ready {
            problems: Vec::new(),
        }
    }

    /// The whole state for people.
    pub fn status(&self) -> AgentStatus {
        AgentStatus::default()
    }
}
