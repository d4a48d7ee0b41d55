//! One node: directories, manifests, an agent and a dataplane, in a network namespace of its own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use weft_agent::desired::DesiredState;
use weft_agent::run::watch_dir;
use weft_agent::state::{Agent, Options, Underlay};
use weft_agent::watch::dir::DirWatcher;
use weft_api::agent::{Attachment, Plan, Prepare};
use weft_api::object::UnderlayPath;
use weft_api::paths::RunDir;
use weft_api::{MacAddr, PodRef};
use weft_model::compile::ClusterConfig;

use crate::fake::FakeDataplane;

/// Longest wait for something that must happen; far above what it takes.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Node {
    pub dir: TempDir,
    pub dataplane: FakeDataplane,
    pub agent: Arc<Agent>,
    push: JoinHandle<()>,
    watcher: Option<DirWatcher>,
}

impl Node {
    /// A node called `a` whose manifests name it, and an agent that runs.
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("tests run as root");
        let dir = tempfile::tempdir().unwrap();
        for sub in ["run", "state", "manifests"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        let dataplane = FakeDataplane::new(dir.path().join("run/dataplane.sock"));
        let (agent, push, watcher) = start(&dir);
        let node = Self {
            dir,
            dataplane,
            agent,
            push,
            watcher: Some(watcher),
        };
        node.write("a.yaml", &manifest("a", 1));
        node
    }

    /// Kills the agent and starts another on what it left.
    pub fn restart_agent(&mut self) {
        self.push.abort();
        self.watcher = None;
        self.agent.dataplane().set(None);
        let (agent, push, watcher) = start(&self.dir);
        (self.agent, self.push, self.watcher) = (agent, push, Some(watcher));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path("manifests").join(name), text).unwrap();
    }

    pub async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let waited = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waited).await.is_err() {
            panic!("never: {what}; problems {:?}", self.agent.problems());
        }
    }

    pub async fn until_synced(&self) {
        let synced = |node: &Self| node.agent.watch_progress().borrow().generation.is_some();
        self.until("a full sync", synced).await;
    }

    /// ADD as the plugin does it, with a real link.
    pub async fn add(&self, attachment: &Attachment) -> Plan {
        let plan = self.agent.prepare(&prepare(attachment)).await.unwrap();
        add_link(&plan.port.0);
        self.agent.attach(attachment).await.unwrap();
        plan
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.push.abort();
        self.dataplane.stop();
    }
}

fn start(dir: &TempDir) -> (Arc<Agent>, JoinHandle<()>, DirWatcher) {
    let options = Options {
        run_dir: RunDir::new(dir.path().join("run")),
        state_dir: dir.path().join("state"),
        cluster: ClusterConfig::of_node("a"),
        cooldown: Duration::from_secs(30),
    };
    let state = DesiredState::open(options.cluster.clone(), &options.state_dir).unwrap();
    let agent = Agent::open(options).unwrap();
    let watcher = watch_dir(&agent, state, &dir.path().join("manifests")).unwrap();
    let push = tokio::spawn(weft_agent::push::run(Arc::clone(&agent)));
    (agent, push, watcher)
}

/// A Node object with pod CIDR 10.1.`number`.0/24 and address 192.0.2.`number`.
pub fn manifest(name: &str, number: u8) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n\
         spec: {{podCIDRs: [10.1.{number}.0/24]}}\n\
         status: {{addresses: [{{type: InternalIP, address: 192.0.2.{number}}}]}}\n"
    )
}

pub fn pod_manifest(name: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop}}\n")
}

pub fn attachment(id: &str) -> Attachment {
    Attachment {
        network: "weft".to_owned(),
        container_id: id.to_owned(),
        ifname: "eth0".to_owned(),
    }
}

pub fn prepare(attachment: &Attachment) -> Prepare {
    Prepare {
        host_ports: Vec::new(),
        attachment: attachment.clone(),
        pod: None,
        delegated: Vec::new(),
        mtu: None,
        netns: None,
    }
}

pub fn pod(name: &str) -> PodRef {
    PodRef {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

/// What the host side tells about a remote node that answers.
pub fn underlay(numbers: &[u8]) -> Underlay {
    let path = |number: &u8| UnderlayPath {
        vtep: [192, 0, 2, *number].into(),
        ifname: "eth0".to_owned(),
        source: [192, 0, 2, 1].into(),
        source_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        next_hop_mac: Some(MacAddr([2, 0, 0, 0, 0, *number])),
        mtu: 1_500,
    };
    Underlay {
        paths: numbers.iter().map(path).collect(),
        link_mtu: Some(1_500),
    }
}

pub fn add_link(name: &str) {
    let peer = format!("p{}", &name[4..]);
    ip(&["link", "add", name, "type", "veth", "peer", "name", &peer]);
}

pub fn delete_link(name: &str) {
    ip(&["link", "del", name]);
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}");
}
