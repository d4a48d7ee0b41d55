//! What they answer.

use super::*;

/// A pcapng file with `packets` packets: section header, one interface, the packets.
pub fn pcapng(packets: usize) -> Vec<u8> {
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
pub const CUT_OFF: u32 = 13;

pub fn origin(rule: &str) -> RuleOrigin {
    RuleOrigin {
        object: "NetworkPolicy shop/web".into(),
        rule: rule.into(),
    }
}

pub fn policies(cut_off: bool) -> PolicyList {
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

pub fn web() -> PolicyParty {
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

pub fn far(address: &str) -> PolicyParty {
    PolicyParty {
        address: address.parse().unwrap(),
        pod: None,
        identity: 0,
        name: "world".into(),
    }
}

pub fn side(outcome: PolicyOutcome) -> PolicySide {
    PolicySide {
        outcome,
        origin: (outcome != PolicyOutcome::Elsewhere).then(|| origin("egress[0]")),
    }
}

pub fn explain(question: &PolicyQuestion) -> Result<Value, ApiError> {
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

pub fn way(verdict: TraceVerdict, text: &str) -> TraceWay {
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
pub fn trace(question: &TraceQuestion) -> Result<Value, ApiError> {
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

pub fn traced(way: TraceWay, born: Vec<TraceWay>) -> Trace {
    Trace {
        port: PortName("weft1".into()),
        way,
        born,
        connection: None,
    }
}

pub fn log_events() -> Vec<PolicyLogEvent> {
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

pub fn flows(query: &FlowQuery) -> Result<Value, ApiError> {
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

pub fn services(query: &ServiceQuery) -> Result<Value, ApiError> {
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
        direct: false,
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

pub fn packets_by_tshark(file: &Path) -> usize {
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

pub fn wait_until(mut condition: impl FnMut() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("did not happen within 5 s");
}

pub fn well() -> AgentStatus {
    AgentStatus {
        node: "node1".into(),
        generation: 42,
        dataplane: true,
        ..AgentStatus::default()
    }
}

pub fn status() -> Status {
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
        shortcuts: vec![counter("packets", 900, "packets that took one")],
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
