//! A node of its own: network and mount namespace, run directory, keeper process.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that fails fails its test"
)]
#![allow(dead_code, reason = "every test file uses its own part of this")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weft_keeper::client::KeeperClient;

/// Long enough for a busy machine, short enough to notice.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Moves this test's thread, and what it starts, into namespaces that end with it.
pub fn enter_namespaces() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("these tests run as root");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    ip("link set lo up");
}

/// A node with a running keeper.
pub struct Node {
    keeper: Child,
    run_dir: tempfile::TempDir,
}

impl Node {
    pub fn new() -> Self {
        enter_namespaces();
        let run_dir = tempfile::tempdir().unwrap();
        let keeper = start_keeper(run_dir.path());
        Self { keeper, run_dir }
    }

    pub fn run_dir(&self) -> &Path {
        self.run_dir.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("keeper.sock")
    }

    pub fn connect(&self) -> KeeperClient {
        KeeperClient::connect(&self.socket(), PATIENCE).unwrap()
    }

    pub fn keeper_pid(&self) -> u32 {
        self.keeper.id()
    }

    /// Sends a signal to the keeper and waits for its end.
    pub fn end_keeper(&mut self, signal: Signal) -> std::process::ExitStatus {
        let pid = Pid::from_raw(self.keeper.id().cast_signed());
        kill(pid, signal).unwrap();
        self.keeper.wait().unwrap()
    }

    pub fn restart_keeper(&mut self) {
        self.keeper = start_keeper(self.run_dir.path());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // By its handle, and only while it is not reaped: the id cannot be somebody else's.
        if self.keeper.try_wait().unwrap().is_none() {
            self.end_keeper(Signal::SIGTERM);
        }
    }
}

/// Starts a keeper and waits until it listens.
fn start_keeper(run_dir: &Path) -> Child {
    let mut keeper = keeper_command(run_dir).spawn().unwrap();
    let socket = run_dir.join("keeper.sock");
    wait_until("the keeper listens", || {
        assert!(keeper.try_wait().unwrap().is_none(), "the keeper ended");
        KeeperClient::query(&socket).is_ok()
    });
    keeper
}

pub fn keeper_command(run_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft-keeper"));
    command
        .args(["--frames", "4096", "--run-dir"])
        .arg(run_dir)
        .env_remove("WEFT_RUN_DIR")
        .env("WEFT_LOG", "debug");
    command
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "gave up waiting: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn ip(arguments: &str) {
    let status = Command::new("ip")
        .args(arguments.split_whitespace())
        .status()
        .expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments}");
}

/// A veth pair, both ends up, with `queues` receive queues each.
pub fn veth(name: &str, peer: &str, queues: u32) {
    let count = format!("numrxqueues {queues} numtxqueues {queues}");
    ip(&format!(
        "link add {name} {count} type veth peer name {peer} {count}"
    ));
    ip(&format!("link set {name} up"));
    ip(&format!("link set {peer} up"));
}

/// `xdp` (native), `xdpgeneric` or nothing, as `ip link` tells.
pub fn xdp_mode(ifname: &str) -> Option<&'static str> {
    let output = Command::new("ip")
        .args(["link", "show", ifname])
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    ["xdpgeneric", "xdp"]
        .into_iter()
        .find(|mode| words.contains(mode))
}

/// True while a bpffs is mounted at `path` in this mount namespace.
pub fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap();
    mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(path.to_str().unwrap()))
}

/// The example dataplane, built beside the tests.
pub fn reflect_path() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test
        .parent()
        .unwrap()
        .with_file_name("examples")
        .join("reflect");
    assert!(path.exists(), "{} is built with the tests", path.display());
    path
}
