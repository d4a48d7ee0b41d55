//! Network namespaces that vanish with the test: each is held by one of its threads only.

use std::fs;
use std::future::Future;
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

type Job = Box<dyn FnOnce() + Send>;

/// Puts the calling thread into new network and mount namespaces.
pub fn enter() {
    let flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    unshare(flags).expect("tests run as root");
    run("mount --make-rprivate /");
    run("ip link set lo up");
}

/// Runs a future on a runtime of its own.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// Runs a command in the calling thread's namespaces and answers what it wrote.
pub fn run(command: &str) -> String {
    let output = try_run(command);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{command}: {stdout}{stderr}");
    stdout
}

/// Runs a command whatever comes of it.
pub fn try_run(command: &str) -> Output {
    let mut words = command.split_whitespace();
    let mut program = Command::new(words.next().expect("a program"));
    program.args(words).output().expect(command)
}

/// Runs `ip -j` and answers its document.
pub fn ip(arguments: &str) -> Value {
    let text = run(&format!("ip -j {arguments}"));
    let text = if text.trim().is_empty() { "[]" } else { &text };
    serde_json::from_str(text).expect(arguments)
}

/// Value of a kernel setting.
pub fn setting(path: &str) -> String {
    let text = fs::read_to_string(format!("/proc/sys/net/{path}"));
    text.expect(path).trim().to_owned()
}

/// Changes a kernel setting.
pub fn set(path: &str, value: &str) {
    fs::write(format!("/proc/sys/net/{path}"), value).expect(path);
}

/// Another namespace: a thread that lives in it and does what it is told.
pub struct Namespace {
    tid: i32,
    jobs: mpsc::Sender<Job>,
}

impl Namespace {
    pub fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (started, tid) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("tests run as root");
            run("ip link set lo up");
            started
                .send(nix::unistd::gettid().as_raw())
                .expect("a listener");
            queue.into_iter().for_each(|job| job());
        });
        let tid = tid.recv().expect("a thread");
        Self { tid, jobs }
    }

    /// Does `job` in the namespace and waits for it.
    pub fn within<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let job = move || done.send(job()).expect("a listener");
        self.jobs.send(Box::new(job)).expect("the thread lives");
        result.recv().expect("the job ends well")
    }

    /// Runs a command in the namespace.
    pub fn run(&self, command: &str) -> String {
        let command = command.to_owned();
        self.within(move || run(&command))
    }

    /// Makes a veth pair: `near` in the calling thread's namespace, `far` in this one.
    pub fn wire(&self, near: &str, far: &str) {
        let tid = self.tid;
        run(&format!(
            "ip link add {near} type veth peer name {far} netns {tid}"
        ));
        run(&format!("ip link set {near} up"));
        self.run(&format!("ip link set {far} up"));
    }

    /// Moves an interface here.
    pub fn take(&self, ifname: &str) {
        run(&format!("ip link set {ifname} netns {}", self.tid));
    }
}
