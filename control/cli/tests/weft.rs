//! The `weft` binary against a dataplane and an agent that answer as told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that fails fails the test"
)]

use std::io::{BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

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

/// A run directory with a dataplane, and an agent if it has a status.
struct Node {
    run_dir: TempDir,
    captures: mpsc::Receiver<CaptureSpec>,
}

impl Node {
    fn new(status: Status, agent: Option<AgentStatus>) -> Self {
        let run_dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(run_dir.path().join("dataplane.sock")).unwrap();
        let (captured, captures) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (status, captured) = (status.clone(), captured.clone());
                thread::spawn(move || dataplane(stream, &status, &captured));
            }
        });
        if let Some(agent) = agent {
            let listener = UnixListener::bind(run_dir.path().join("agent.sock")).unwrap();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    serve(stream, |_: agent::Op| Ok(json!(agent)));
                }
            });
        }
        Self { run_dir, captures }
    }

    fn weft(&self, arguments: &[&str]) -> Output {
        weft(self.run_dir.path()).args(arguments).output().unwrap()
    }

    fn text(&self, arguments: &[&str]) -> String {
        let output = self.weft(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let mut command = weft(self.run_dir.path());
        command
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    }
}

fn weft(run_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command
        .env_remove("WEFT_RUN_DIR")
        .arg("--run-dir")
        .arg(run_dir);
    command
}

fn serve<T: serde::de::DeserializeOwned>(
    stream: UnixStream,
    mut answer: impl FnMut(T) -> Result<Value, ApiError>,
) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Ok(Some(request)) = frame::read_line::<Request<T>>(&mut reader) {
        let response = Response {
            id: request.id,
            outcome: Outcome::from(answer(request.body)),
        };
        let _ = frame::write_line(&mut writer, &response);
    }
}

fn dataplane(stream: UnixStream, status: &Status, captured: &mpsc::Sender<CaptureSpec>) {
    let mut raw = stream.try_clone().unwrap();
    serve(stream, |op: Op| match op {
        Op::Status => Ok(json!(status)),
        Op::PortList => Ok(json!(PortList {
            ports: status.ports.clone(),
        })),
        Op::Capture(spec) if spec.snaplen == 77 => Err(ApiError::new(ErrorKind::Failed, "no")),
        Op::Capture(spec) => {
            captured.send(spec.clone()).unwrap();
            let mut raw = raw.try_clone().unwrap();
            // Part of the stream comes together with the answer, part later.
            thread::spawn(move || {
                let bytes = match spec.count {
                    Some(1000) => pcapng(1),
                    Some(count) => pcapng(count as usize),
                    None => {
                        let three = pcapng(3);
                        three[..three.len() - 30].to_vec()
                    }
                };
                for piece in bytes.chunks(50) {
                    thread::sleep(Duration::from_millis(2));
                    if raw.write_all(piece).is_err() {
                        return;
                    }
                }
                if spec.count.is_some() {
                    raw.shutdown(std::net::Shutdown::Both).unwrap();
                }
            });
            Ok(json!({}))
        }
        Op::PolicyLog(spec) => {
            let pod = Some("shop/web".to_owned());
            let verdict = Some(PolicyLogVerdict::Denied);
            assert_eq!(spec, PolicyLogSpec { pod, verdict });
            let mut raw = raw.try_clone().unwrap();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(20));
                for event in log_events() {
                    let _ = frame::write_line(&mut raw, &event);
                }
                let _ = raw.shutdown(std::net::Shutdown::Write);
            });
            Ok(json!({}))
        }
        Op::PolicyList => Ok(json!(policies(status.pid == CUT_OFF))),
        Op::PolicyExplain(question) => explain(&question),
        Op::FlowList(query) => flows(&query),
        Op::ServiceList(query) => services(&query),
        Op::Trace(question) => trace(&question),
        other => panic!("{other:?}"),
    });
    let _ = raw.flush();
}

/// A pcapng file with `packets` packets: section header, one interface, the packets.
fn pcapng(packets: usize) -> Vec<u8> {
    let mut section = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
    section.extend([1, 0, 0, 0]);
    section.extend(u64::MAX.to_le_bytes());
    let interface = [1_u8, 0, 0, 0, 0, 0, 1, 0];
    let mut packet = [0_u32, 0, 0, 60, 60].map(u32::to_le_bytes).concat();
    packet.extend([0x55; 60]);
    let block = |kind: u32, body: &[u8]| {
        let length = (body.len() as u32 + 12).to_le_bytes();
        [&kind.to_le_bytes(), &length[..], body, &length].concat()
    };
    let mut file = [block(0x0a0d_0d0a, &section), block(1, &interface)].concat();
    file.extend(block(6, &packet).repeat(packets));
    file
}

/// Process id of a dataplane with a pod that has no policy.
const CUT_OFF: u32 = 13;

fn origin(rule: &str) -> RuleOrigin {
    RuleOrigin {
        object: "NetworkPolicy shop/web".into(),
        rule: rule.into(),
    }
}

fn policies(cut_off: bool) -> PolicyList {
    let rule = |verdict, name| RuleStatus {
        tier: 2,
        peer: None,
        protocol: None,
        ports: None,
        verdict,
        origin: origin(name),
        allowed: 1_234,
        denied: 0,
    };
    let ingress = RuleStatus {
        peer: Some(PeerStatus {
            selector: 4,
            identities: 5,
            names: vec!["shop app=cart".into(), "shop app=api".into()],
        }),
        protocol: Some(6),
        ports: Some(PortRange {
            first: 80,
            last: 90,
        }),
        ..rule(RuleVerdict::Allow, "ingress[0]")
    };
    PolicyList {
        endpoints: vec![PolicyEndpoint {
            identity: 7,
            name: "shop app=web".into(),
            pods: vec![PodRef {
                namespace: "shop".into(),
                name: "web".into(),
            }],
            addresses: vec!["10.244.1.5".parse().unwrap()],
            known: !cut_off,
            ingress: vec![ingress, rule(RuleVerdict::Deny, "isolates ingress")],
            egress: vec![],
        }],
    }
}

fn web() -> PolicyParty {
    PolicyParty {
        address: "10.244.1.5".parse().unwrap(),
        pod: Some(PodRef {
            namespace: "shop".into(),
            name: "web".into(),
        }),
        identity: 7,
        name: "shop app=web".into(),
    }
}

fn far(address: &str) -> PolicyParty {
    PolicyParty {
        address: address.parse().unwrap(),
        pod: None,
        identity: 0,
        name: "world".into(),
    }
}

fn side(outcome: PolicyOutcome) -> PolicySide {
    PolicySide {
        outcome,
        origin: (outcome != PolicyOutcome::Elsewhere).then(|| origin("egress[0]")),
    }
}

fn explain(question: &PolicyQuestion) -> Result<Value, ApiError> {
    let outcome = match question.port {
        Some(9) => return Err(ApiError::new(ErrorKind::BadRequest, "no")),
        Some(81) => PolicyOutcome::Denied,
        _ => PolicyOutcome::Allowed,
    };
    Ok(json!(PolicyExplained {
        source: web(),
        destination: far("10.244.2.9"),
        protocol: question.protocol,
        port: question.port.unwrap_or(0),
        egress: side(outcome),
        ingress: side(PolicyOutcome::Elsewhere),
        allowed: outcome == PolicyOutcome::Allowed,
    }))
}

fn way(verdict: TraceVerdict, text: &str) -> TraceWay {
    let step = |stage: &str, text: &str| TraceStep {
        stage: stage.into(),
        text: text.into(),
    };
    TraceWay {
        steps: vec![step("parse", "tcp [S]"), step("conntrack", "new")],
        verdict,
        port: None,
        reason: None,
        text: text.into(),
    }
}

/// Answers that the packet would be dropped, with an answer to it, unless it is a frame.
fn trace(question: &TraceQuestion) -> Result<Value, ApiError> {
    let TracePacket::Described(packet) = &question.packet else {
        assert!(["shop/web", "weftaaaaaaaaaaa"].contains(&question.port.as_str()));
        let sent = way(TraceVerdict::Tx, "sent by u0");
        return Ok(json!(traced(sent, Vec::new())));
    };
    assert_eq!(question.port, "shop/web");
    let expected = PacketDescription {
        protocol: 6,
        source: None,
        destination: "shop/db".into(),
        source_port: 40_000,
        destination_port: 5432,
        tcp_flags: 0x02,
        payload_bytes: 0,
        from_node: None,
    };
    assert_eq!(*packet, expected);
    let born = way(TraceVerdict::Tx, "made icmp: sent by weft1");
    let dropped = way(TraceVerdict::Drop, "dropped (no-endpoint): Nobody.");
    Ok(json!(traced(dropped, vec![born])))
}

fn traced(way: TraceWay, born: Vec<TraceWay>) -> Trace {
    Trace {
        port: PortName("weft1".into()),
        way,
        born,
        connection: None,
    }
}

fn log_events() -> Vec<PolicyLogEvent> {
    let denied = PolicyLogEntry {
        time_ns: 1_000_000_000,
        verdict: PolicyLogVerdict::Denied,
        revoked: false,
        source: web(),
        source_port: 40_000,
        destination: far("fd00::9"),
        protocol: 6,
        port: 80,
        egress: side(PolicyOutcome::Denied),
        ingress: side(PolicyOutcome::Elsewhere),
    };
    vec![
        PolicyLogEvent::LeftOut { count: 7 },
        PolicyLogEvent::Verdict(Box::new(denied)),
    ]
}

fn flows(query: &FlowQuery) -> Result<Value, ApiError> {
    if *query == FlowQuery::default() {
        return Ok(json!(FlowList::default()));
    }
    let expected = FlowQuery {
        pod: Some("shop/web".into()),
        address: None,
        port: Some(80),
        protocol: Some(6),
        state: Some("established".into()),
        limit: Some(5),
    };
    assert_eq!(*query, expected);
    Ok(json!(FlowList {
        flows: vec![FlowStatus {
            worker: 0,
            protocol: 6,
            source: web(),
            destination: far("fd00::9"),
            source_port: 40_000,
            destination_port: 80,
            state: "established".into(),
            replied: true,
            picked_up: false,
            packets: [12, 1_000],
            bytes: [600, 1_000_000],
            age_ms: 5_000,
            idle_ms: 10,
            service: None,
            egress: side(PolicyOutcome::Allowed),
            ingress: side(PolicyOutcome::Elsewhere),
        }],
        truncated: true,
    }))
}

fn services(query: &ServiceQuery) -> Result<Value, ApiError> {
    if query.name.as_deref().is_some_and(|it| it != "web") {
        return Err(ApiError::new(
            ErrorKind::NotFound,
            "no service is called that",
        ));
    }
    let backend = |address: &str, terminating, connections| BackendStatus {
        backend: Backend {
            address: address.parse().unwrap(),
            port: 8080,
            pod: Some("shop/web-0".into()),
            terminating,
        },
        connections,
        begun: 2_000,
    };
    let frontend = |address: Option<&str>, kind, port| Frontend {
        inside_backends: None,
        address: address.map(|it| it.parse().unwrap()),
        ipv6: false,
        protocol: 6,
        port,
        kind,
        port_name: "http".into(),
        keeps_source: false,
        sources: None,
        backends: vec![0],
        drops: false,
    };
    Ok(json!(ServiceList {
        services: vec![ServiceStatus {
            namespace: "shop".into(),
            name: "web".into(),
            algorithm: Algorithm::Maglev,
            affinity_seconds: Some(10_800),
            frontends: vec![
                frontend(Some("10.96.0.10"), FrontendKind::ClusterIp, 80),
                frontend(None, FrontendKind::NodePort, 30_080),
            ],
            backends: vec![
                backend("10.244.1.5", false, 7),
                backend("10.244.2.6", true, 1)
            ],
        }],
    }))
}

fn packets_by_tshark(file: &Path) -> usize {
    let output = Command::new("tshark")
        .arg("-r")
        .arg(file)
        .output()
        .expect("tshark runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).lines().count()
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("did not happen within 5 s");
}

fn well() -> AgentStatus {
    AgentStatus {
        node: "node1".into(),
        generation: 42,
        dataplane: true,
        ..AgentStatus::default()
    }
}

fn status() -> Status {
    let counter = |name: &str, count, description: &str| Counter {
        name: name.into(),
        count,
        description: description.into(),
    };
    Status {
        version: "0.1.0".into(),
        pid: 77,
        uptime_s: 7_400,
        restarts: 1,
        node: Some("node1".into()),
        generation: 42,
        committed: true,
        features: vec![
            Feature {
                name: "multi-buffer".into(),
                present: true,
                cost: "x".into(),
            },
            Feature {
                name: "tx-checksum".into(),
                present: false,
                cost: "checksums are completed in software".into(),
            },
        ],
        workers: vec![WorkerStatus::default()],
        frames: FrameStatus {
            total: 12_288,
            free: 12_000,
            fill: 288,
            ..FrameStatus::default()
        },
        stages: vec![
            counter("parse", 1_000_000, ""),
            counter("route", 999_993, ""),
        ],
        verdicts: vec![counter("tx", 999_993, ""), counter("drop", 7, "")],
        drops: vec![
            counter("martian", 7, "An address that may not appear on a link."),
            counter("ttl-expired", 0, "The hop limit ran out."),
        ],
        flows: vec![counter("current", 12, "connections in the table now")],
        policy: vec![counter("rules", 3, "")],
        ports: vec![PortStatus {
            id: 1,
            name: PortName("weftaaaaaaaaaaa".into()),
            kind: PortKind::Pod,
            pod: Some(PodRef {
                namespace: "default".into(),
                name: "web".into(),
            }),
            addresses: vec!["10.244.1.5".parse().unwrap(), "fd00:1::5".parse().unwrap()],
            mac: MacAddr([2, 0x50, 10, 244, 1, 5]),
            mtu: 65_535,
            worker: 0,
            queues: 1,
            mode: "copy".into(),
            xdp_mode: "generic".into(),
            counters: PortCounters {
                rx_packets: 10,
                rx_bytes: 1_536,
                ..PortCounters::default()
            },
        }],
        remotes: vec![RemoteStatus {
            name: "node2".into(),
            vtep: "192.0.2.2".parse().unwrap(),
            uplink: Some("eth0".into()),
            next_hop_mac: Some(MacAddr([2, 0, 0, 0, 0, 2])),
            mtu: 1450,
        }],
    }
}
