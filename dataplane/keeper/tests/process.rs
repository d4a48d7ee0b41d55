//! The keeper as a process: start, stop, what it leaves and what it finds.

mod common;

use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use common::{Node, ip, is_mounted, keeper_command, veth, wait_until, xdp_mode};
use nix::sys::signal::Signal;
use weft_api::dataplane::PortKind;
use weft_keeper::protocol::BindRequest;

#[test]
fn a_stopped_keeper_leaves_nothing() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut node = Node::new();
        veth("pod0", "peer0", 1);
        let mut keeper = node.connect();
        let _port = keeper
            .bind(&BindRequest::new("pod0", PortKind::Pod))
            .unwrap();
        assert!(is_mounted(&node.run_dir().join("bpf")));
        assert!(node.end_keeper(signal).success());
        assert_eq!(xdp_mode("pod0"), None);
        assert!(!is_mounted(&node.run_dir().join("bpf")));
        assert_eq!(std::fs::read_dir(node.run_dir()).unwrap().count(), 0);
    }
}

#[test]
fn a_killed_keeper_leaves_pods_closed_until_the_next_one_starts() {
    let mut node = Node::new();
    veth("pod0", "peer0", 1);
    let mut client = node.connect();
    drop(
        client
            .bind(&BindRequest::new("pod0", PortKind::Pod))
            .unwrap(),
    );
    node.end_keeper(Signal::SIGKILL);
    drop(client);
    assert_eq!(
        xdp_mode("pod0"),
        Some("xdpgeneric"),
        "the pinned program drops what the pod sends"
    );
    assert!(node.socket().exists());
    node.restart_keeper();
    assert_eq!(xdp_mode("pod0"), None);
    let mut client = node.connect();
    assert!(client.ports().unwrap().is_empty());
    wait_until("the kernel frees the killed keeper's queue", || {
        client
            .bind(&BindRequest::new("pod0", PortKind::Pod))
            .is_ok()
    });
    drop(client);
    node.end_keeper(Signal::SIGTERM);
    assert!(
        !is_mounted(&node.run_dir().join("bpf")),
        "the mount of the killed one goes, too"
    );
}

#[test]
fn a_run_directory_in_use_is_refused_by_name() {
    let node = Node::new();
    let output = keeper_command(node.run_dir()).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors.contains(&node.run_dir().display().to_string()),
        "{errors}"
    );
    assert!(errors.contains("in use"), "{errors}");
    node.connect();
    assert!(is_mounted(&node.run_dir().join("bpf")));
}

#[test]
fn a_socket_somebody_else_answers_at_is_not_taken_away() {
    common::enter_namespaces();
    let run_dir = tempfile::tempdir().unwrap();
    let socket = run_dir.path().join("keeper.sock");
    let somebody = UnixListener::bind(&socket).unwrap();
    assert!(!keeper_command(run_dir.path()).status().unwrap().success());
    assert!(socket.exists());
    // Nobody answers any more: the file is stale.
    drop(somebody);
    let mut keeper = keeper_command(run_dir.path()).spawn().unwrap();
    wait_until("the keeper replaces it", || {
        weft_keeper::client::KeeperClient::query(&socket).is_ok()
    });
    let pid = nix::unistd::Pid::from_raw(keeper.id().cast_signed());
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    assert!(keeper.wait().unwrap().success());
}

#[test]
fn two_nodes_live_on_one_machine() {
    let mut first = Node::new();
    veth("pod0", "peer0", 1);
    let mut keeper = first.connect();
    keeper
        .bind(&BindRequest::new("pod0", PortKind::Pod))
        .unwrap();
    std::thread::spawn(|| {
        let second = Node::new();
        veth("pod0", "peer0", 1);
        let mut keeper = second.connect();
        keeper
            .bind(&BindRequest::new("pod0", PortKind::Pod))
            .unwrap();
        assert_eq!(keeper.status().unwrap().ports.len(), 1);
    })
    .join()
    .unwrap();
    assert_eq!(keeper.status().unwrap().ports.len(), 1);
    assert_eq!(xdp_mode("pod0"), Some("xdpgeneric"));
    assert!(first.end_keeper(Signal::SIGTERM).success());
}

#[test]
fn stopping_after_the_interface_vanished_is_clean() {
    let mut node = Node::new();
    veth("pod0", "peer0", 1);
    let mut keeper = node.connect();
    keeper
        .bind(&BindRequest::new("pod0", PortKind::Pod))
        .unwrap();
    ip("link del pod0");
    assert!(node.end_keeper(Signal::SIGTERM).success());
    assert_eq!(std::fs::read_dir(node.run_dir()).unwrap().count(), 0);
}

#[test]
fn help_teaches_and_wrong_arguments_end_with_2() {
    let keeper = || Command::new(env!("CARGO_BIN_EXE_weft-keeper"));
    let output = keeper().arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for word in [
        "--run-dir",
        "WEFT_RUN_DIR",
        "/run/weft",
        "8192",
        "Examples:",
        "weft status",
    ] {
        assert!(text.contains(word), "{word} is missing in:\n{text}");
    }
    for wrong in [
        ["--frames", "1"],
        ["--frames", "many"],
        ["--log-format", "xml"],
        ["--nonsense", "x"],
    ] {
        let status = keeper().args(wrong).stderr(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn json_logs_are_one_object_per_line() {
    let node = Node::new();
    let output = keeper_command(node.run_dir())
        .args(["--log-format", "json"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!text.is_empty());
    for line in text.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(entry["level"].is_string());
    }
}
