//! Who may talk to the keeper, and how it answers nonsense.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use common::Node;
use weft_api::envelope::ErrorKind;
use weft_keeper::client::{ClientError, KeeperClient};
use weft_keeper::protocol::PROTOCOL_VERSION;

#[test]
fn hello_gives_the_memory_and_counts_restarts() {
    let node = Node::new();
    for restarts in 0..4 {
        let client = node.connect();
        let session = client.session();
        assert_eq!(session.restarts, restarts);
        assert_eq!(session.version, PROTOCOL_VERSION);
        assert_eq!(session.pid, node.keeper_pid());
        assert_eq!(session.frames, 4096);
        assert!(
            session
                .features
                .iter()
                .any(|feature| feature.name == "af-xdp" && feature.present)
        );
        let umem = weft_xsk::Umem::map_memfd(client.memfd()).unwrap();
        assert_eq!(umem.frames(), 4096);
    }
}

#[test]
fn a_second_dataplane_is_refused_while_the_first_lives() {
    let node = Node::new();
    let first = node.connect();
    let refused = KeeperClient::connect(&node.socket(), Duration::from_millis(50)).unwrap_err();
    let ClientError::Refused(error) = refused else {
        panic!("{refused}");
    };
    assert_eq!(error.kind, ErrorKind::Conflict);
    let our_pid = std::process::id().to_string();
    assert!(error.message.contains(&our_pid), "{error}");
    drop(first);
    assert_eq!(
        node.connect().session().restarts,
        1,
        "a refused hello is no session"
    );
}

#[test]
fn a_successor_waits_for_its_predecessor_to_die() {
    let node = Node::new();
    let first = node.connect();
    let socket = node.socket();
    let successor =
        std::thread::spawn(move || KeeperClient::connect(&socket, common::PATIENCE).unwrap());
    std::thread::sleep(Duration::from_millis(30));
    drop(first);
    assert_eq!(successor.join().unwrap().session().restarts, 1);
}

#[test]
fn status_needs_no_session_and_names_the_dataplane() {
    let node = Node::new();
    assert_eq!(KeeperClient::query(&node.socket()).unwrap().dataplane, None);
    let mut client = node.connect();
    let status = KeeperClient::query(&node.socket()).unwrap();
    assert_eq!(status.dataplane, Some(std::process::id()));
    assert_eq!(status.pid, node.keeper_pid());
    assert_eq!(status, client.status().unwrap());
    assert!(status.verdicts.iter().all(|counter| counter.count == 0));
}

#[test]
fn shortcuts_are_the_next_dataplanes_too() {
    let node = Node::new();
    let mut first = node.connect();
    first.shortcuts().unwrap().open_place(5, 1_000, 77);
    drop(first);
    assert_eq!(node.connect().shortcuts().unwrap().ticket(5), 77);
}

#[test]
fn everything_else_needs_a_session() {
    let node = Node::new();
    for request in [
        r#"{"id":1,"op":"ports"}"#,
        r#"{"id":1,"op":"bind","ifname":"lo","kind":"pod"}"#,
        r#"{"id":1,"op":"unbind","port":1}"#,
        r#"{"id":1,"op":"configure","port":1,"config":{}}"#,
        r#"{"id":1,"op":"steer"}"#,
        r#"{"id":1,"op":"shortcuts"}"#,
    ] {
        let answer = ask(&node, request);
        assert_eq!(answer["error"]["kind"], "bad_request", "{request}");
        assert!(
            answer["error"]["message"]
                .as_str()
                .unwrap()
                .contains("hello"),
            "{answer}"
        );
    }
}

#[test]
fn bad_lines_are_answered_and_do_no_harm() {
    let node = Node::new();
    let held = node.connect();
    for (line, id) in [
        ("nonsense", 0),
        ("{}", 0),
        ("[]", 0),
        (r#"{"id":9}"#, 9),
        (r#"{"id":9,"op":"unheard-of"}"#, 9),
        (r#"{"id":9,"op":"hello"}"#, 9),
        (r#"{"id":9,"op":"hello","version":"one"}"#, 9),
        (
            r#"{"id":9,"op":"steer","local_addresses":["300.1.1.1"]}"#,
            9,
        ),
    ] {
        let answer = ask(&node, line);
        assert_eq!(answer["id"], id, "{line}");
        assert_eq!(answer["error"]["kind"], "bad_request", "{line}");
    }
    drop(held);
    node.connect();
}

#[test]
fn many_requests_in_one_write_are_all_answered_in_order() {
    let node = Node::new();
    let mut stream = UnixStream::connect(node.socket()).unwrap();
    let lines: String = (1..=50)
        .map(|id| format!("{{\"id\":{id},\"op\":\"status\"}}\n\n"))
        .collect();
    stream.write_all(lines.as_bytes()).unwrap();
    let answers = BufReader::new(stream).lines().take(50);
    for (id, answer) in (1..).zip(answers) {
        let answer: serde_json::Value = serde_json::from_str(&answer.unwrap()).unwrap();
        assert_eq!(answer["id"], id);
        assert_eq!(answer["ok"]["frames"], 4096);
    }
}

#[test]
fn an_endless_line_is_cut_off_and_others_are_served_meanwhile() {
    let node = Node::new();
    let mut endless = UnixStream::connect(node.socket()).unwrap();
    let chunk = vec![b'x'; 1 << 20];
    let mut written = 0;
    while endless.write_all(&chunk).is_ok() {
        written += chunk.len();
        assert!(written < 64 << 20, "nobody stops it");
        KeeperClient::query(&node.socket()).unwrap();
    }
    let mut answer = String::new();
    // The rest of what was written makes the kernel reset the connection; the answer may be lost.
    if endless.read_to_string(&mut answer).is_ok() && !answer.is_empty() {
        assert!(answer.contains("too long"), "{answer}");
    }
    node.connect();
}

#[test]
fn another_protocol_version_is_refused() {
    let node = Node::new();
    let answer = ask(&node, r#"{"id":1,"op":"hello","version":2}"#);
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("version 1") && message.contains("not 2"),
        "{message}"
    );
}

#[test]
fn too_many_clients_are_turned_away() {
    let node = Node::new();
    let _idle: Vec<UnixStream> = (0..16)
        .map(|_| UnixStream::connect(node.socket()).unwrap())
        .collect();
    common::wait_until("the keeper is full", || {
        KeeperClient::query(&node.socket())
            .is_err_and(|error| error.to_string().contains("16 clients"))
    });
}

#[test]
fn the_socket_is_for_root_alone() {
    let node = Node::new();
    let mode = std::fs::metadata(node.socket())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o600);
    // Even when the file lets them in.
    std::fs::set_permissions(node.socket(), PermissionsExt::from_mode(0o666)).unwrap();
    std::fs::set_permissions(node.run_dir(), PermissionsExt::from_mode(0o755)).unwrap();
    let client = node.run_dir().join("client");
    std::fs::copy(common::reflect_path(), &client).unwrap();
    std::fs::set_permissions(&client, PermissionsExt::from_mode(0o755)).unwrap();
    let output = Command::new(&client)
        .arg(node.socket())
        .arg("lo")
        .uid(65_534)
        .gid(65_534)
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(errors.contains("only root may"), "{errors}");
}

/// One raw line, one answer.
fn ask(node: &Node, line: &str) -> serde_json::Value {
    let mut stream = UnixStream::connect(node.socket()).unwrap();
    stream.write_all(line.as_bytes()).unwrap();
    stream.write_all(b"\n").unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap()
}
