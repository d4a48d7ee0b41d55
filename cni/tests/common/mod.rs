//! A node and pods in network namespaces of their own, and an agent that answers as told.
//!
//! A namespace lives as long as a thread or a descriptor holds it: nothing is mounted, so nothing is
//! left behind, whatever happens to the test.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::expect_used, reason = "a helper that fails fails the test")]

use std::fs::File;
use std::io::{BufReader, Write};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use tempfile::TempDir;
use weft_api::MacAddr;
use weft_api::agent::{AgentStatus, Attachment, Checked, Collected, Op, Plan, Ready};
use weft_api::dataplane::Done;
use weft_api::envelope::{ApiError, ErrorKind, Outcome, Request, Response};
use weft_api::frame;

/// A node: the calling thread moves into a new network namespace.
pub struct Node {
    pub run_dir: TempDir,
    pub agent: Option<AgentStub>,
}

impl Node {
    /// A node without an agent.
    pub fn without_agent() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("tests run as root");
        sh("ip link set lo up");
        Self {
            run_dir: tempfile::tempdir().expect("a directory"),
            agent: None,
        }
    }

    /// A node whose agent plans dual-stack pods.
    pub fn new() -> Self {
        let mut node = Self::without_agent();
        node.start_agent();
        node
    }

    pub fn start_agent(&mut self) {
        let socket = self.run_dir.path().join("agent.sock");
        self.agent = Some(AgentStub::start(socket));
    }

    pub fn agent(&self) -> std::sync::MutexGuard<'_, AgentState> {
        self.agent
            .as_ref()
            .expect("an agent")
            .state
            .lock()
            .expect("no panic in the agent")
    }

    /// A configuration of `version` for this node.
    pub fn conf(&self, version: &str) -> Value {
        json!({
            "cniVersion": version, "name": "weft", "type": "weft-cni",
            "runDir": self.run_dir.path(),
        })
    }

    /// A call for container `id` with interface `eth0` in `pod`.
    pub fn call(&self, command: &str, id: &str, pod: Option<&Pod>) -> Call {
        Call {
            variables: vec![
                ("CNI_COMMAND".into(), command.into()),
                ("CNI_CONTAINERID".into(), id.into()),
                ("CNI_IFNAME".into(), "eth0".into()),
                ("CNI_NETNS".into(), pod.map(Pod::path).unwrap_or_default()),
                ("CNI_PATH".into(), "/usr/lib/cni".into()),
                (
                    "CNI_ARGS".into(),
                    "IgnoreUnknown=1;K8S_POD_NAME=a;K8S_POD_NAMESPACE=web".into(),
                ),
            ],
        }
    }

    /// Links of the node's namespace but `lo`.
    pub fn links(&self) -> Vec<String> {
        let links = ip_json("ip -j link");
        let names = links.as_array().expect("a list").iter();
        let names = names.map(|l| l["ifname"].as_str().expect("a name").to_owned());
        names.filter(|n| n != "lo").collect()
    }
}

/// One call of the plugin under preparation.
pub struct Call {
    variables: Vec<(String, String)>,
}

impl Call {
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(n, _)| n != name);
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Runs the binary: exit status and document.
    pub fn run(&self, conf: &Value) -> (bool, Value) {
        let output = self.output(conf);
        let stdout = String::from_utf8(output.stdout).expect("text");
        let document = if stdout.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}"))
        };
        (output.status.success(), document)
    }

    pub fn output(&self, conf: &Value) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_weft-cni"))
            .env_clear()
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the plugin starts");
        let mut stdin = child.stdin.take().expect("piped");
        let _ = stdin.write_all(conf.to_string().as_bytes());
        drop(stdin);
        child.wait_with_output().expect("the plugin ends")
    }

    /// Runs and expects success.
    pub fn ok(&self, conf: &Value) -> Value {
        let (success, document) = self.run(conf);
        assert!(success, "{document}");
        document
    }

    /// Runs and expects an error: code and message.
    pub fn fails(&self, conf: &Value) -> (u64, String) {
        let (success, document) = self.run(conf);
        assert!(!success, "{document}");
        let code = document["code"].as_u64().expect("a code");
        (
            code,
            document["msg"].as_str().expect("a message").to_owned(),
        )
    }
}

/// A pod's network namespace, held by a descriptor.
pub struct Pod(File);

impl Pod {
    pub fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("tests run as root");
            File::open("/proc/thread-self/ns/net").expect("a namespace")
        };
        Self(thread::spawn(make).join().expect("a namespace"))
    }

    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs a shell command inside.
    pub fn sh(&self, command: &str) -> Output {
        let net = format!("--net={}", self.path());
        let output = Command::new("nsenter")
            .args([&net, "sh", "-c", command])
            .output();
        output.expect("nsenter runs")
    }

    pub fn ok(&self, command: &str) -> String {
        let output = self.sh(command);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    }

    pub fn json(&self, command: &str) -> Value {
        parse(&self.ok(command))
    }

    pub fn links(&self) -> Vec<String> {
        let links = self.json("ip -j link");
        let names = links.as_array().expect("a list").iter();
        names
            .map(|l| l["ifname"].as_str().expect("a name").to_owned())
            .collect()
    }
}

pub fn sh(command: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", command])
        .output()
        .expect("sh runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

pub fn ip_json(command: &str) -> Value {
    parse(&sh(command))
}

fn parse(text: &str) -> Value {
    // iproute2 prints nothing for an empty list in some versions.
    if text.trim().is_empty() {
        return json!([]);
    }
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// What the stub agent does and saw.
#[derive(Default)]
pub struct AgentState {
    pub seen: Vec<Op>,
    /// Addresses of the next attachments: `10.244.1.N` and `fd00:1::N`, counting from 5.
    pub given: u8,
    pub prepare_error: Option<ApiError>,
    pub attach_error: Option<ApiError>,
    /// Die instead of answering `attach`.
    pub attach_dies: bool,
    /// Runs in the node's namespace at `attach`, `$PORT` set.
    pub attach_script: Option<String>,
    pub check: Checked,
    pub ready_problems: Vec<String>,
    pub dataplane: bool,
    pub collected: Vec<Attachment>,
    /// Plans IPv4 only.
    pub v4_only: bool,
}

impl AgentState {
    pub fn released(&self) -> usize {
        let release = |op: &&Op| matches!(op, Op::Release { .. });
        self.seen.iter().filter(release).count()
    }
}

/// A thread that serves `agent.sock` in the node's namespace.
pub struct AgentStub {
    pub state: Arc<Mutex<AgentState>>,
}

impl AgentStub {
    fn start(socket: PathBuf) -> Self {
        let state = Arc::new(Mutex::new(AgentState {
            given: 4,
            dataplane: true,
            ..AgentState::default()
        }));
        let listener = UnixListener::bind(&socket).expect("a socket");
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &state));
            }
        });
        Self { state }
    }
}

fn serve(stream: UnixStream, state: &Mutex<AgentState>) {
    let mut writer = stream.try_clone().expect("a descriptor");
    let mut reader = BufReader::new(stream);
    while let Ok(Some(request)) = frame::read_line::<Request<Op>>(&mut reader) {
        let Some(outcome) = answer(request.body, state) else {
            return;
        };
        let response = Response {
            id: request.id,
            outcome,
        };
        if frame::write_line(&mut writer, &response).is_err() {
            return;
        }
    }
}

fn answer(op: Op, state: &Mutex<AgentState>) -> Option<Outcome<Value>> {
    let mut state = state.lock().expect("no panic");
    state.seen.push(op.clone());
    let done = || Outcome::Ok(json!(Done {}));
    Some(match op {
        Op::Prepare(prepare) => match state.prepare_error.clone() {
            Some(error) => Outcome::Error(error),
            None => {
                state.given += 1;
                let n = state.given;
                let delegated = prepare.delegated.iter().map(ipnet::IpNet::addr);
                let mut addresses = delegated.collect::<Vec<IpAddr>>();
                if addresses.is_empty() {
                    addresses.push([10, 244, 1, n].into());
                    if !state.v4_only {
                        addresses.push([0xfd00, 1, 0, 0, 0, 0, 0, u16::from(n)].into());
                    }
                }
                let plan = Plan {
                    port: prepare.attachment.port_name(),
                    mac: MacAddr::of_pod(addresses[0]),
                    addresses,
                    path_mtu: prepare.mtu.unwrap_or(1450),
                    local_mtu: weft_api::LOCAL_MTU,
                    veth_mtu: weft_api::VETH_MTU,
                };
                state.check.addresses.extend(&plan.addresses);
                Outcome::Ok(json!(plan))
            }
        },
        Op::Attach { attachment } => {
            if state.attach_dies {
                return None;
            }
            if let Some(script) = &state.attach_script {
                sh(&format!("PORT={}; {script}", attachment.port_name()));
            }
            match state.attach_error.clone() {
                Some(error) => Outcome::Error(error),
                None => done(),
            }
        }
        Op::Release { .. } => done(),
        Op::Check { .. } => Outcome::Ok(json!(state.check)),
        Op::Collect { .. } => Outcome::Ok(json!(Collected {
            released: state.collected.clone(),
            problems: Vec::new(),
        })),
        Op::Ready => Outcome::Ok(json!(Ready {
            problems: state.ready_problems.clone(),
        })),
        Op::Status => Outcome::Ok(json!(AgentStatus {
            dataplane: state.dataplane,
            ..AgentStatus::default()
        })),
    })
}

pub fn try_again(message: &str) -> ApiError {
    ApiError::new(ErrorKind::TryAgain, message)
}

pub fn failed(message: &str) -> ApiError {
    ApiError::new(ErrorKind::Failed, message)
}
