//! One node: a namespace with an underlay, a directory of manifests, an agent, a dataplane.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use weft_api::agent::{AgentStatus, Attachment, Op, Plan, Prepare, Ready};
use weft_api::client::{Client, ClientError};
use weft_api::dataplane::Done;
use weft_api::envelope::{ApiError, ErrorKind};
use weft_api::paths::RunDir;

use crate::dataplane::FakeDataplane;
use crate::namespace::{Namespace, enter, run};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Node {
    directory: TempDir,
    agent: Child,
    pub dataplane: Option<FakeDataplane>,
    /// The other node's end of the wire, 192.0.2.2.
    pub wire: Namespace,
}

impl Node {
    /// A node whose agent is ready. Its pod prefix is `cidr`, beside fd00:1::/64.
    pub fn ready(cidr: &str) -> Self {
        let node = Self::unready(cidr);
        node.until_ready();
        node
    }

    /// A node whose agent was just started.
    pub fn unready(cidr: &str) -> Self {
        enter();
        let wire = Namespace::new();
        wire.wire("u0", "u1");
        run("ip addr add 192.0.2.1/24 dev u0");
        wire.run("ip addr add 192.0.2.2/24 dev u1");
        let directory = TempDir::new().unwrap();
        for part in ["run", "state", "manifests"] {
            fs::create_dir(directory.path().join(part)).unwrap();
        }
        let dataplane = FakeDataplane::start(&run_dir(&directory).dataplane_socket());
        let agent = start(&directory);
        let node = Self {
            directory,
            agent,
            dataplane: Some(dataplane),
            wire,
        };
        node.write("a", &manifest("a", "192.0.2.1", &[cidr, "fd00:1::/64"]));
        node.write(
            "b",
            &manifest("b", "192.0.2.2", &["10.244.2.0/24", "fd00:2::/64"]),
        );
        node
    }

    /// Puts a manifest in place.
    pub fn write(&self, name: &str, text: &str) {
        let fresh = self.directory.path().join(format!("{name}.new"));
        fs::write(&fresh, text).unwrap();
        let place = self
            .directory
            .path()
            .join("manifests")
            .join(format!("{name}.yaml"));
        fs::rename(fresh, place).unwrap();
    }

    pub fn socket(&self) -> PathBuf {
        run_dir(&self.directory).agent_socket()
    }

    /// A connection to the agent.
    pub fn connect(&self) -> Client {
        connect(&self.socket())
    }

    pub fn status(&self) -> AgentStatus {
        self.connect().call(Op::Status).unwrap()
    }

    pub fn until_ready(&self) {
        self.until("ready", || {
            let client = Client::connect("agent", &self.socket(), PATIENCE);
            let ready = client.and_then(|mut client| client.call::<_, Ready>(Op::Ready));
            match ready {
                Ok(ready) if ready.problems.is_empty() => None,
                other => Some(format!("{other:?}")),
            }
        });
    }

    /// Waits until `missing` finds nothing missing.
    pub fn until(&self, what: &str, missing: impl Fn() -> Option<String>) {
        let end = Instant::now() + PATIENCE;
        while let Some(missing) = missing() {
            assert!(Instant::now() < end, "{what}: {missing}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn kill_dataplane(&mut self) {
        self.dataplane.take().expect("it runs").kill();
    }

    pub fn start_dataplane(&mut self) {
        let socket = run_dir(&self.directory).dataplane_socket();
        self.dataplane = Some(FakeDataplane::start(&socket));
    }

    pub fn dataplane(&self) -> &FakeDataplane {
        self.dataplane.as_ref().expect("it runs")
    }

    /// Kills the agent with SIGKILL and starts it again.
    pub fn restart_agent(&mut self) {
        self.agent.kill().unwrap();
        self.agent.wait().unwrap();
        self.agent = start(&self.directory);
    }

    /// Starts a second agent on the same directories and answers what it says before it gives up.
    pub fn second_agent(&self) -> String {
        let output = command(&self.directory)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

fn run_dir(directory: &TempDir) -> RunDir {
    RunDir::new(directory.path().join("run"))
}

/// The signal makes the kernel end the agent with the test, however the test ends.
fn command(directory: &TempDir) -> Command {
    let mut command = Command::new("setpriv");
    let manifests = directory.path().join("manifests");
    command
        .args([
            "--pdeathsig",
            "KILL",
            env!("CARGO_BIN_EXE_weft-agent"),
            "--node",
            "a",
        ])
        .arg("--run-dir")
        .arg(directory.path().join("run"))
        .arg("--state-dir")
        .arg(directory.path().join("state"))
        .arg("--source")
        .arg(format!("dir:{}", manifests.display()));
    command
}

fn start(directory: &TempDir) -> Child {
    command(directory).spawn().unwrap()
}

fn manifest(name: &str, address: &str, cidrs: &[&str]) -> String {
    let cidrs = cidrs.join("\", \"");
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{podCIDRs: [\"{cidrs}\"]}}\n\
         status: {{addresses: [{{type: InternalIP, address: \"{address}\"}}]}}\n"
    )
}

pub fn connect(socket: &Path) -> Client {
    Client::connect("agent", socket, PATIENCE).unwrap()
}

/// The attachment of container `id`.
pub fn attachment(id: &str) -> Attachment {
    Attachment {
        network: "weft".into(),
        container_id: id.into(),
        ifname: "eth0".into(),
    }
}

/// A request to prepare it, for no pod in particular.
pub fn request(attachment: &Attachment) -> Prepare {
    Prepare {
        host_ports: Vec::new(),
        attachment: attachment.clone(),
        pod: None,
        delegated: Vec::new(),
        mtu: None,
        netns: None,
    }
}

/// Prepares over a connection.
pub fn prepare(client: &mut Client, attachment: &Attachment) -> Result<Plan, ApiError> {
    refusal(client.call(Op::Prepare(request(attachment))))
}

/// Attaches over a connection.
pub fn attach(client: &mut Client, attachment: &Attachment) -> Result<Done, ApiError> {
    let attachment = attachment.clone();
    refusal(client.call(Op::Attach { attachment }))
}

/// Releases over a connection.
pub fn release(client: &mut Client, attachment: &Attachment) -> Result<Done, ApiError> {
    let attachment = attachment.clone();
    refusal(client.call(Op::Release { attachment }))
}

/// An agent's refusal is an answer; a broken connection is a failed test.
fn refusal<T>(result: Result<T, ClientError>) -> Result<T, ApiError> {
    match result {
        Ok(value) => Ok(value),
        Err(ClientError::Refused(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

/// The kind of a refusal.
pub fn kind<T>(result: Result<T, ApiError>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind)
}
