//! What `agent.sock` does whatever is asked.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::node::Node;

const CIDR: &str = "10.244.1.0/24";

struct Raw(BufReader<UnixStream>);

impl Raw {
    fn connect(node: &Node) -> Self {
        Self(BufReader::new(UnixStream::connect(node.socket()).unwrap()))
    }

    fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.get_mut().write_all(bytes);
    }

    /// None once the agent closed the connection, with a reset if it left something unread.
    fn answer(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.0.read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }
}

#[test]
fn socket_is_roots_alone_and_a_stale_one_is_replaced() {
    let mut node = Node::ready(CIDR);
    let metadata = fs::metadata(node.socket()).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    node.restart_agent();
    node.until("a fresh socket", || {
        let now = fs::metadata(node.socket()).unwrap();
        (now.ino() == metadata.ino() && now.ctime_nsec() == metadata.ctime_nsec())
            .then(|| "the old one".to_owned())
    });
    node.until_ready();
}

#[test]
fn a_second_agent_is_refused_and_does_no_harm() {
    let node = Node::ready(CIDR);
    let said = node.second_agent();
    assert!(said.contains("another agent"), "{said}");
    node.until_ready();
}

#[test]
fn nonsense_is_answered_with_its_id_and_the_connection_goes_on() {
    let node = Node::ready(CIDR);
    let mut raw = Raw::connect(&node);
    for (sent, id) in [
        ("{\"id\":7,\"op\":\"dance\"}\n", 7),
        ("{\"id\":8,\"op\":\"attach\"}\n", 8),
        ("nonsense\n", 0),
        ("\n", 0),
    ] {
        raw.send(sent.as_bytes());
        let answer = raw.answer().unwrap();
        assert_eq!(answer["id"], id, "{sent}");
        assert_eq!(answer["error"]["kind"], "bad_request", "{sent}");
    }
    raw.send(b"{\"id\":9,\"op\":\"ready\"}\n{\"id\":10,\"op\":\"ready\"}\n");
    assert_eq!(raw.answer().unwrap()["id"], 9);
    assert_eq!(raw.answer().unwrap()["id"], 10);
}

#[test]
fn an_endless_line_is_cut_off() {
    let node = Node::ready(CIDR);
    let mut raw = Raw::connect(&node);
    let chunk = vec![b'x'; 64 << 10];
    for _ in 0..17 {
        raw.send(&chunk);
    }
    assert_eq!(raw.answer().unwrap()["error"]["kind"], "bad_request");
    assert!(raw.answer().is_none());
    node.until_ready();
}

#[test]
fn other_users_are_refused_even_where_the_mode_lets_them_in() {
    let node = Node::ready(CIDR);
    for path in node.socket().ancestors().take(3) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    // The connection keeps the credentials its opener had; all of this process's threads must
    // change theirs, so this comes last.
    let socket = node.socket();
    nix::unistd::seteuid(nix::unistd::Uid::from_raw(65_534)).unwrap();
    let stream = UnixStream::connect(socket);
    nix::unistd::seteuid(nix::unistd::Uid::from_raw(0)).unwrap();
    let mut raw = Raw(BufReader::new(stream.unwrap()));
    raw.send(b"{\"id\":1,\"op\":\"status\"}\n");
    let answer = raw.answer().unwrap();
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("root"),
        "{answer}"
    );
    assert!(raw.answer().is_none());
}
