//! The `weft` binary against a dataplane and an agent that answer as told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that fails fails the test"
)]

mod answers;
mod node;

use std::io::{BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use answers::*;
use node::*;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use weft_api::agent::AgentStatus;
use weft_api::dataplane::{
    CaptureSpec, Counter, Feature, FrameStatus, Op, PortCounters, PortKind, PortList, PortStatus,
    RemoteStatus, Status, WorkerStatus,
};
use weft_api::envelope::{ApiError, ErrorKind, Outcome, Request, Response};
use weft_api::explain::{
    PeerStatus, PolicyEndpoint, PolicyExplained, PolicyList, PolicyLogEntry, PolicyLogEvent,
    PolicyLogSpec, PolicyLogVerdict, PolicyOutcome, PolicyParty, PolicyQuestion, PolicySide,
    RuleStatus,
};
use weft_api::flow::{FlowList, FlowQuery, FlowStatus};
use weft_api::policy::{PortRange, RuleOrigin, RuleVerdict};
use weft_api::service::{
    Algorithm, Backend, BackendStatus, Frontend, FrontendKind, ServiceList, ServiceQuery,
    ServiceStatus,
};
use weft_api::trace::{
    PacketDescription, Trace, TracePacket, TraceQuestion, TraceStep, TraceVerdict, TraceWay,
};
use weft_api::{MacAddr, PodRef, PortName, agent, frame};

#[test]
fn status_shows_the_node_and_exits_with_0() {
    let node = Node::new(status(), Some(well()));
    let output = node.weft(&["status"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for says in [
        "node        node1",
        "generation  42",
        "up 2 h 3 min, restarted 1x",
        "12,288: 12,000 free",
        "default/web",
        "10.244.1.5, fd00:1::5",
        "parse  1,000,000",
        "martian      7  An address that may not appear on a link.",
        "packets    900  packets that took one",
        "node2  192.0.2.2",
        "tx-checksum  checksums are completed in software",
    ] {
        assert!(text.contains(says), "{says}\n{text}");
    }
    assert!(
        !text.contains("ttl-expired"),
        "drops of zero are left out\n{text}"
    );
    assert!(!text.contains("\u{1b}["), "no escapes in a pipe\n{text}");
    assert!(!text.contains("PROBLEMS"), "{text}");
}

#[test]
fn status_as_json_has_the_names_of_the_api() {
    let node = Node::new(status(), Some(well()));
    let output = node.weft(&["status", "--output", "json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let read: Status = serde_json::from_value(document.clone()).unwrap();
    assert_eq!(read, status());
    assert_eq!(document["agent"]["dataplane"], true);
    assert_eq!(document["problems"], json!([]));
}

#[test]
fn problems_are_listed_and_exit_with_1() {
    let mut agent = well();
    agent.problems.push("pods.yaml:12: unknown field".into());
    let node = Node::new(status(), Some(agent));
    let output = node.weft(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("PROBLEMS\n  - pods.yaml:12: unknown field"),
        "{text}"
    );
    let node = Node::new(status(), None);
    let output = node.weft(&["status", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["agent"], Value::Null);
    assert_eq!(document["node"], "node1");
}

#[test]
fn an_absent_dataplane_is_a_problem_and_wrong_use_is_not() {
    let empty = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = weft(empty.path());
        command.args(arguments).output().unwrap()
    };
    let output = run(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("dataplane.sock"), "{text}");
    let output = run(&["port"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.starts_with("weft: cannot reach weft-dataplane"),
        "{text}"
    );
    for wrong in [
        &["nonsense"][..],
        &[],
        &["capture"],
        &["status", "-o", "xml"],
    ] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    assert!(
        help.contains("Examples:") && help.contains("weft capture"),
        "{help}"
    );
}

#[test]
fn ports_are_listed_and_shown_one_by_one() {
    let node = Node::new(status(), None);
    let text = node.text(&["port"]);
    assert!(
        text.contains("PORT") && text.contains("weftaaaaaaaaaaa"),
        "{text}"
    );
    let text = node.text(&["port", "default/web"]);
    assert!(text.contains("rx         10 packets, 1.5 KiB"), "{text}");
    let document: Value = serde_json::from_str(&node.text(&["port", "-o", "json"])).unwrap();
    assert_eq!(document["ports"][0]["counters"]["rx_packets"], 10);
    let one: Value =
        serde_json::from_str(&node.text(&["port", "10.244.1.5", "-o", "json"])).unwrap();
    assert_eq!(one["name"], "weftaaaaaaaaaaa");
    assert_eq!(node.weft(&["port", "absent"]).status.code(), Some(1));
}

#[test]
fn policies_are_listed_with_rules_and_counters() {
    let node = Node::new(status(), None);
    let text = node.text(&["policy", "list"]);
    for says in [
        "7  shop app=web  shop/web  2 rules  open",
        "RULES OF 7 (shop app=web)",
        "shop app=cart, shop app=api and 3 more  80-90/tcp  NetworkPolicy shop/web ingress[0]",
        "NetworkPolicy shop/web isolates ingress",
        "1,234",
    ] {
        assert!(text.contains(says), "{says}\n{text}");
    }
    let document: Value =
        serde_json::from_str(&node.text(&["policy", "list", "-o", "json"])).unwrap();
    let list: PolicyList = serde_json::from_value(document).unwrap();
    assert_eq!(list, policies(false));
}

#[test]
fn a_pod_that_is_cut_off_is_a_problem() {
    let cut_off = Status {
        pid: CUT_OFF,
        ..status()
    };
    let output = Node::new(cut_off, None).weft(&["policy", "list"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("PROBLEMS\n  - 10.244.1.5: its rules"),
        "{text}"
    );
}

#[test]
fn an_explanation_names_the_rule_and_its_exit_status_says_the_verdict() {
    let node = Node::new(status(), None);
    let ask = |port: &str| node.weft(&["policy", "explain", "shop/web", "shop/db", "--port", port]);
    let allowed = ask("5432/tcp");
    let text = String::from_utf8(allowed.stdout).unwrap();
    assert_eq!(allowed.status.code(), Some(0), "{text}");
    for says in [
        "from     10.244.1.5 shop/web (shop app=web)",
        "to       10.244.2.9 (world)",
        "port     5432/tcp",
        "egress   allowed by NetworkPolicy shop/web egress[0]",
        "ingress  not decided here: the receiver is no pod of this node",
        "verdict  allowed",
    ] {
        assert!(text.contains(says), "{says}\n{text}");
    }
    let denied = ask("81/tcp");
    let text = String::from_utf8(denied.stdout).unwrap();
    assert_eq!(denied.status.code(), Some(1), "{text}");
    assert!(text.contains("denied by NetworkPolicy"), "{text}");
    assert_eq!(
        ask("9/udp").status.code(),
        Some(2),
        "what makes no sense is misuse"
    );
    let document: Value = serde_json::from_slice(
        &node
            .weft(&["policy", "explain", "a/b", "c/d", "-o", "json"])
            .stdout,
    )
    .unwrap();
    assert_eq!(document["protocol"], 1, "a ping unless told otherwise");
}

#[test]
fn connections_are_listed_as_asked() {
    let node = Node::new(status(), None);
    let text = node.text(&[
        "flow",
        "list",
        "--pod",
        "shop/web",
        "--port",
        "80",
        "--protocol",
        "tcp",
        "--state",
        "established",
        "--limit",
        "5",
    ]);
    for says in [
        "tcp       shop/web 10.244.1.5:40000  [fd00::9]:80  established",
        "12 / 1,000",
        "NetworkPolicy shop/web egress[0]",
        "there are more",
    ] {
        assert!(text.contains(says), "{says}\n{text}");
    }
    assert!(node.text(&["flow", "list"]).contains("no connection"));
}

#[test]
fn services_are_listed_and_one_is_shown_with_its_backends() {
    let node = Node::new(status(), None);
    let text = node.text(&["service", "list"]);
    for says in ["shop/web", "10.96.0.10 80/tcp", "node 30080/tcp", "4,000"] {
        assert!(text.contains(says), "{says}\n{text}");
    }
    let text = node.text(&["service", "show", "shop/web"]);
    for says in [
        "maglev",
        "client address, 10800 s",
        "any of the node",
        "node port",
        "10.244.1.5:8080",
        "in use",
        "terminating",
        "shop/web-0",
        "NEW/S",
    ] {
        assert!(text.contains(says), "{says}\n{text}");
    }
    let unknown = node.weft(&["service", "show", "nothing"]);
    assert_eq!(unknown.status.code(), Some(1));
    let document = node.text(&["service", "show", "web", "-o", "json"]);
    let list: ServiceList = serde_json::from_str(&document).unwrap();
    assert_eq!(list.services[0].backends[0].connections, 7);
}

#[test]
fn run_dir_comes_from_the_environment_too() {
    let node = Node::new(status(), None);
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    let output = command
        .env("WEFT_RUN_DIR", node.run_dir.path())
        .arg("port")
        .output();
    assert!(output.unwrap().status.success());
}

#[test]
fn a_capture_ends_at_its_count_and_the_spec_reaches_the_dataplane() {
    let node = Node::new(status(), None);
    let file = node.run_dir.path().join("out.pcapng");
    let file_name = file.to_str().unwrap();
    let arguments = [
        "capture",
        "default/web",
        "-w",
        file_name,
        "--count",
        "3",
        "--snaplen",
        "96",
        "--drops",
    ];
    let output = node.weft(&arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    assert_eq!(errors, "3 packets captured\n");
    assert_eq!(std::fs::read(&file).unwrap(), pcapng(3));
    assert_eq!(packets_by_tshark(&file), 3);
    let spec = CaptureSpec {
        port: Some(PortName("weftaaaaaaaaaaa".into())),
        snaplen: 96,
        count: Some(3),
        drops_only: true,
    };
    assert_eq!(node.captures.recv().unwrap(), spec);
}

#[test]
fn a_capture_stopped_by_ctrl_c_leaves_a_valid_file() {
    let node = Node::new(status(), None);
    let file = node.run_dir.path().join("out.pcapng");
    let mut child = node.start(&["capture", "-w", file.to_str().unwrap()]);
    // The stub sends two packets and half of a third, then waits.
    let whole = pcapng(2);
    wait_until(|| std::fs::read(&file).is_ok_and(|bytes| bytes.len() == whole.len()));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(std::fs::read(&file).unwrap(), whole);
    assert_eq!(packets_by_tshark(&file), 2);
}

#[test]
fn a_capture_to_a_pipe_flows_and_ends_with_its_reader() {
    let node = Node::new(status(), None);
    let mut child = node.start(&["capture", "-w", "-"]);
    let mut stdout = child.stdout.take().unwrap();
    let mut start = vec![0; pcapng(2).len()];
    stdout.read_exact(&mut start).unwrap();
    assert_eq!(start, pcapng(2));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_refused_or_broken_capture_exits_with_1() {
    let node = Node::new(status(), None);
    let file = node.run_dir.path().join("out.pcapng");
    let name = file.to_str().unwrap();
    // The stub refuses this snaplen, and closes early at this count.
    let output = node.weft(&["capture", "-w", name, "--snaplen", "77"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!file.exists());
    let output = node.weft(&["capture", "-w", name, "--count", "1000"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(packets_by_tshark(&file), 1);
}

#[test]
fn a_traced_packet_is_told_stage_by_stage() {
    let node = Node::new(status(), None);
    let words = ["trace", "shop/web", "tcp", "-", "shop/db:5432"];
    let output = node.weft(&words);
    assert_eq!(output.status.code(), Some(1), "it would be dropped");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "FROM weft1\n  STAGE      WHAT IT DID\n  parse      tcp [S]\n  conntrack  new\n\n\
         ANSWER\n  STAGE      WHAT IT DID\n  parse      tcp [S]\n  conntrack  new\n\n\
         VERDICT\n  - dropped (no-endpoint): Nobody.\n  - made icmp: sent by weft1\n"
    );
    let output = node.weft(&["trace", "shop/web", "--hex", "02:77"]);
    assert_eq!(output.status.code(), Some(0), "it would be sent");
    let json = node.weft(&[&words[..], &["-o", "json"]].concat());
    let document: Trace = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(document.way.verdict, TraceVerdict::Drop);
    let nonsense = node.weft(&["trace", "shop/web", "tcp", "-", "shop/db"]);
    assert_eq!(nonsense.status.code(), Some(2));
    let said = String::from_utf8(nonsense.stderr).unwrap();
    assert!(said.contains("shop/db:80"), "{said}");
}

#[test]
fn packets_of_a_capture_file_are_traced_one_by_one() {
    let node = Node::new(status(), None);
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/capture_file");
    let replay = |file: &str, more: &[&str]| {
        let file = corpus.join(file);
        let words = ["trace", "default/web", "--file", file.to_str().unwrap()];
        let output = node.weft(&[&words[..], more].concat());
        let said = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
        (output.status.code(), said)
    };
    let (code, [told, _]) = replay("good_weft_capture.pcapng", &[]);
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.starts_with("PACKET 1 at byte 108\nFROM weft1\n"),
        "{told}"
    );
    let end = "2 packets: 2 would pass, 0 would be dropped; 1 left out: they did not come from this port\n";
    assert!(told.ends_with(end), "{told}");
    let (_, [told, _]) = replay("good_big_endian_ns.pcap", &[]);
    assert!(
        told.contains("PACKET 2 at byte 82, only 20 of its 42 bytes"),
        "{told}"
    );
    let (_, [json, _]) = replay("good_weft_capture.pcapng", &["-o", "json"]);
    let document: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(document["packets"][1]["number"], 3);
    assert_eq!(
        (&document["left_out"], &document["more"]),
        (&json!(1), &json!(false))
    );
    let (_, [told, _]) = replay("good_two_sections.pcapng", &["--count", "1"]);
    assert!(
        told.ends_with(
            "1 packets: 1 would pass, 0 would be dropped; there are more, see --count\n"
        )
    );
    let (code, [told, said]) = replay("bad_cut_off.pcap", &[]);
    assert_eq!(code, Some(1));
    assert!(
        told.contains("PACKET 1 ") && said.contains("broken at byte 82"),
        "{told}{said}"
    );
    assert_eq!(replay("bad_text.txt", &[]).0, Some(1));
    assert_eq!(replay("nothing.pcap", &[]).0, Some(1));
}

#[test]
fn verdicts_are_printed_as_they_come() {
    let node = Node::new(status(), None);
    let words = [
        "policy",
        "log",
        "--pod",
        "shop/web",
        "--verdict",
        "denied",
        "--count",
        "1",
    ];
    let output = node.weft(&words);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    let [left_out, denied] = told.lines().collect::<Vec<_>>()[..] else {
        panic!("two lines: {told}");
    };
    assert!(left_out.contains("7 more"), "{told}");
    assert!(
        denied.contains("denied tcp ") && denied.contains("NetworkPolicy"),
        "{told}"
    );
    let json = node.weft(&[&words[..], &["-o", "json"]].concat());
    let lines = String::from_utf8(json.stdout).unwrap();
    let events = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let events: Vec<PolicyLogEvent> = events.collect();
    assert_eq!(events, log_events());
    // Asked for more than there is, it says that the dataplane ended.
    let output = node.weft(&[&words[..6], &["--count", "2"]].concat());
    assert_eq!(output.status.code(), Some(1));
}
