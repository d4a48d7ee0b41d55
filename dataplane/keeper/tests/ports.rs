//! Binding and giving up interfaces, and what stays when that fails.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use common::{Node, ip, veth, xdp_mode};
use serde_json::json;
use weft_api::dataplane::PortKind;
use weft_api::envelope::ErrorKind;
use weft_keeper::client::{ClientError, KeeperClient, Port};
use weft_keeper::protocol::{
    BindRequest, CONFIG_BYTES_MAX, Rings, SocketMode, SteeredFrontend, Steering, XdpMode,
};
use weft_xdp_progs::{Program, Programs, XdpMode as Attach};

#[test]
fn a_pod_port_is_bound_in_generic_mode() {
    let node = Node::new();
    veth("pod0", "peer0", 1);
    let mut keeper = node.connect();
    let config = json!({"mac":"02:00:00:00:00:01","addresses":["10.0.0.2"]});
    let request = BindRequest {
        config: config.clone(),
        ..BindRequest::new("pod0", PortKind::Pod)
    };
    let port = keeper.bind(&request).unwrap();
    assert_eq!(port.record.ifname, "pod0");
    assert_eq!(port.record.ifindex, index("pod0"));
    assert_eq!(port.record.kind, PortKind::Pod);
    assert_eq!(port.record.xdp_mode, XdpMode::Generic);
    assert_eq!(port.record.config, config);
    assert_eq!(port.sockets.len(), 1);
    let queue = port.record.queues[0];
    assert_eq!((queue.queue, queue.mode), (0, SocketMode::Copy));
    assert_eq!(queue.rings, Rings::uniform(2048));
    assert_eq!(xdp_mode("pod0"), Some("xdpgeneric"));
    assert_eq!(keeper.status().unwrap().ports, [port.record]);
}

#[test]
fn a_held_port_is_mapped_before_it_is_bound() {
    let node = Node::new();
    veth("pod0", "peer0", 2);
    let mut keeper = node.connect();
    let request = BindRequest {
        hold: true,
        ..BindRequest::new("pod0", PortKind::Pod)
    };
    let Port {
        record, sockets, ..
    } = keeper.bind(&request).unwrap();
    assert_eq!((sockets.len(), xdp_mode("pod0")), (2, None));
    let queues = record.queues.iter().zip(sockets);
    let _mapped: Vec<_> = queues.map(|(queue, fd)| queue.map(fd).unwrap()).collect();
    let active = keeper.activate(record.id).unwrap();
    assert_eq!(active.queues, record.queues);
    assert_eq!(xdp_mode("pod0"), Some("xdpgeneric"));
    assert_eq!(keeper.activate(record.id).unwrap(), active);
    assert_eq!(kind(keeper.activate(999)), ErrorKind::NotFound);
}

#[test]
fn a_held_port_goes_with_its_session() {
    let node = Node::new();
    veth("pod0", "peer0", 1);
    let request = BindRequest {
        hold: true,
        ..BindRequest::new("pod0", PortKind::Pod)
    };
    node.connect().bind(&request).unwrap();
    let mut keeper = node.connect();
    assert_eq!(keeper.status().unwrap().ports, []);
    keeper
        .bind(&BindRequest::new("pod0", PortKind::Pod))
        .unwrap();
}

#[test]
fn an_uplink_gets_native_mode_and_a_socket_per_queue() {
    let node = Node::new();
    veth("up0", "wire0", 4);
    let mut keeper = node.connect();
    // veth has no zero-copy: the wish falls back, and that is said.
    let request = BindRequest {
        zero_copy: true,
        ..BindRequest::new("up0", PortKind::Uplink)
    };
    let Port {
        record, sockets, ..
    } = keeper.bind(&request).unwrap();
    assert_eq!(record.xdp_mode, XdpMode::Native);
    assert_eq!(xdp_mode("up0"), Some("xdp"));
    assert_eq!(sockets.len(), 4);
    assert_eq!(
        record
            .queues
            .iter()
            .map(|queue| queue.queue)
            .collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
    for (queue, socket) in record.queues.iter().zip(sockets) {
        assert_eq!(queue.mode, SocketMode::Copy);
        assert_eq!(queue.rings, Rings::uniform(4096));
        let mapped = queue.map(socket).unwrap();
        assert_eq!(mapped.port(), queue.slot);
    }
}

#[test]
fn fewer_queues_are_bound_when_asked() {
    let node = Node::new();
    veth("up0", "wire0", 4);
    let mut keeper = node.connect();
    let queues = |queues| BindRequest {
        queues: Some(queues),
        ..BindRequest::new("up0", PortKind::Uplink)
    };
    for refused in [0, 5, u32::MAX] {
        assert_eq!(kind(keeper.bind(&queues(refused))), ErrorKind::BadRequest);
    }
    assert_eq!(keeper.bind(&queues(2)).unwrap().sockets.len(), 2);
}

#[test]
fn a_device_without_native_mode_gets_generic() {
    let node = Node::new();
    let mut keeper = node.connect();
    let port = keeper
        .bind(&BindRequest::new("lo", PortKind::Uplink))
        .unwrap();
    assert_eq!(port.record.xdp_mode, XdpMode::Generic);
    assert_eq!(port.sockets.len(), 1);
}

#[test]
fn ports_and_slots_are_all_different() {
    let node = Node::new();
    let mut keeper = node.connect();
    let (mut ids, mut slots) = (HashSet::new(), HashSet::new());
    for (number, queues) in [1, 4, 1, 2, 4, 1].into_iter().enumerate() {
        let name = format!("pod{number}");
        veth(&name, &format!("peer{number}"), queues);
        let port = keeper.bind(&BindRequest::new(name, PortKind::Pod)).unwrap();
        assert!(ids.insert(port.record.id));
        for queue in &port.record.queues {
            assert!(slots.insert(queue.slot));
        }
    }
    assert_eq!(slots.len(), 13);
}

#[test]
fn an_unknown_interface_is_not_found() {
    let node = Node::new();
    let mut keeper = node.connect();
    for name in ["nothere", "", "a-name-far-too-long-for-linux", "with/slash"] {
        assert_eq!(
            kind(keeper.bind(&BindRequest::new(name, PortKind::Pod))),
            ErrorKind::NotFound,
            "{name}"
        );
    }
}

#[test]
fn a_bound_interface_is_not_bound_twice() {
    let node = Node::new();
    veth("pod0", "peer0", 1);
    let mut keeper = node.connect();
    let port = keeper
        .bind(&BindRequest::new("pod0", PortKind::Pod))
        .unwrap();
    let error = keeper
        .bind(&BindRequest::new("pod0", PortKind::Uplink))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("as port {}", port.record.id)),
        "{error}"
    );
    assert_eq!(keeper.status().unwrap().ports.len(), 1);
    assert_eq!(xdp_mode("pod0"), Some("xdpgeneric"));
}

#[test]
fn an_interface_with_a_foreign_program_is_refused_and_nothing_stays() {
    let node = Node::new();
    veth("pod0", "peer0", 1);
    let foreign = Programs::load().unwrap();
    let link = foreign
        .attach(index("pod0"), Program::Pod, Attach::Native)
        .unwrap();
    let mut keeper = node.connect();
    let request = BindRequest::new("pod0", PortKind::Pod);
    let error = keeper.bind(&request).unwrap_err();
    assert!(error.to_string().contains("another XDP program"), "{error}");
    assert_eq!(kind::<Port>(Err(error)), ErrorKind::Conflict);
    assert_eq!(xdp_mode("pod0"), Some("xdp"), "the foreign program stays");
    assert!(keeper.status().unwrap().ports.is_empty());
    assert_eq!(pins(&node), ["ports", "verdicts", "xsks"]);
    drop(link);
    bind_once_free(&mut keeper, &request);
}

#[test]
fn descriptions_are_kept_and_replaced_and_bounded() {
    let node = Node::new();
    veth("pod0", "peer0", 1);
    let mut keeper = node.connect();
    let too_long = json!("x".repeat(CONFIG_BYTES_MAX));
    let request = BindRequest::new("pod0", PortKind::Pod);
    let refused = BindRequest {
        config: too_long.clone(),
        ..request.clone()
    };
    assert_eq!(kind(keeper.bind(&refused)), ErrorKind::BadRequest);
    let id = keeper.bind(&request).unwrap().record.id;
    assert_eq!(kind(keeper.configure(id, &too_long)), ErrorKind::BadRequest);
    assert_eq!(
        kind(keeper.configure(id + 1, &json!(1))),
        ErrorKind::NotFound
    );
    keeper.configure(id, &json!({"now": true})).unwrap();
    drop(keeper);
    assert_eq!(
        node.connect().ports().unwrap()[0].record.config,
        json!({"now": true})
    );
}

#[test]
fn unbinding_detaches_and_frees_the_queue() {
    let node = Node::new();
    veth("pod0", "peer0", 1);
    let mut keeper = node.connect();
    let request = BindRequest::new("pod0", PortKind::Pod);
    let first = keeper.bind(&request).unwrap();
    assert_eq!(pins(&node).len(), 4);
    keeper.unbind(first.record.id).unwrap();
    assert_eq!(xdp_mode("pod0"), None);
    assert_eq!(pins(&node), ["ports", "verdicts", "xsks"]);
    keeper
        .unbind(first.record.id)
        .expect("unknown ports are success");
    keeper.unbind(4242).unwrap();
    // Our own descriptor still holds the queue, which is said and changes nothing.
    assert_eq!(kind(keeper.bind(&request)), ErrorKind::Conflict);
    let id = first.record.id;
    drop(first);
    let again = bind_once_free(&mut keeper, &request);
    assert_ne!(again.record.id, id, "an id rests before it is used again");
}

/// Whether the program is at the interface.
fn has_filter(ifname: &str, hook: &str, program: &str) -> bool {
    let output = std::process::Command::new("tc")
        .args(["filter", "show", "dev", ifname, hook])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).contains(program)
}

#[test]
fn both_ends_have_the_programs_of_shortcuts_while_the_port_is_bound() {
    let node = Node::new();
    veth("pod0", "peer0", 1);
    let mut keeper = node.connect();
    for (netns, reached) in [
        (None, true),
        (Some("/proc/thread-self/ns/net"), true),
        (Some("/nowhere"), false),
        (Some("/dev/null"), false),
    ] {
        if !reached {
            ip("link del pod0");
            veth("pod0", "peer0", 1);
        }
        let mut request = BindRequest::new("pod0", PortKind::Pod);
        request.netns = netns.map(Into::into);
        let port = bind_once_free(&mut keeper, &request);
        assert!(has_filter("pod0", "ingress", "weft_shortcut_i"));
        assert_eq!(has_filter("peer0", "egress", "weft_shortcut_o"), reached);
        keeper.unbind(port.record.id).unwrap();
        assert!(!has_filter("pod0", "ingress", "weft_shortcut_i"));
    }
}

#[test]
fn an_interface_that_vanished_can_be_given_up_and_come_back() {
    let node = Node::new();
    veth("pod0", "peer0", 1);
    let mut keeper = node.connect();
    let request = BindRequest::new("pod0", PortKind::Pod);
    let old = keeper.bind(&request).unwrap();
    ip("link del pod0");
    assert_eq!(kind(keeper.bind(&request)), ErrorKind::NotFound);
    veth("pod0", "peer0", 1);
    let error = keeper.bind(&request).unwrap_err();
    assert!(error.to_string().contains("gone and still held"), "{error}");
    // Others can be bound although the memory was shared by a socket whose device is gone.
    veth("pod1", "peer1", 1);
    keeper
        .bind(&BindRequest::new("pod1", PortKind::Pod))
        .unwrap();
    keeper.unbind(old.record.id).unwrap();
    let new = keeper.bind(&request).unwrap();
    assert_eq!(new.record.ifindex, index("pod0"));
    assert_eq!(xdp_mode("pod0"), Some("xdpgeneric"));
}

#[test]
fn more_sockets_than_one_message_holds_arrive_in_order() {
    let node = Node::new();
    let mut keeper = node.connect();
    // 17 ports of 4 queues: two messages.
    let mut bound = Vec::new();
    for number in 0..17 {
        let name = format!("pod{number}");
        veth(&name, &format!("peer{number}"), 4);
        let port = keeper.bind(&BindRequest::new(name, PortKind::Pod)).unwrap();
        bound.push((port.record, port.sockets.iter().map(inode).collect()));
    }
    drop(keeper);
    let inherited: Vec<_> = node
        .connect()
        .ports()
        .unwrap()
        .into_iter()
        .map(|port| {
            (
                port.record,
                port.sockets.iter().map(inode).collect::<Vec<_>>(),
            )
        })
        .collect();
    assert_eq!(inherited, bound);
}

#[test]
fn steering_reaches_the_programs_and_its_limits_are_told() {
    let node = Node::new();
    let mut keeper = node.connect();
    let steering = Steering {
        local_addresses: vec![
            Ipv4Addr::new(192, 0, 2, 1).into(),
            "2001:db8::1".parse().unwrap(),
        ],
        vni: 7765,
        vxlan_port: 4789,
        routed_prefixes: vec![
            "10.64.0.0/16".parse().unwrap(),
            "fd00::/64".parse().unwrap(),
        ],
        service_addresses: (0..65_536_u32)
            .map(|n| Ipv4Addr::from(0x0a60_0000 + n).into())
            .collect(),
        frontends: (0..65_536_u32)
            .flat_map(|n| {
                let v6 = Ipv6Addr::from((0x2001_0db8 << 96) | u128::MAX >> 32);
                let v4 = Ipv4Addr::from(u32::MAX - n);
                [
                    SteeredFrontend(v4.into(), 132, 65_535),
                    SteeredFrontend(v6.into(), 17, n as u16),
                ]
            })
            .collect(),
    };
    keeper.steer(&steering).unwrap();
    let refused = Steering {
        vni: 1 << 24,
        ..steering.clone()
    };
    assert_eq!(kind(keeper.steer(&refused)), ErrorKind::BadRequest);
    let mut refused = steering;
    refused.service_addresses.push(Ipv4Addr::LOCALHOST.into());
    assert_eq!(kind(keeper.steer(&refused)), ErrorKind::BadRequest);
    refused.service_addresses.clear();
    let one_more = SteeredFrontend(Ipv4Addr::LOCALHOST.into(), 6, 80);
    refused.frontends.push(one_more);
    assert_eq!(kind(keeper.steer(&refused)), ErrorKind::BadRequest);
    keeper.steer(&Steering::default()).unwrap();
}

#[test]
fn interfaces_are_those_of_the_keepers_namespace() {
    let node = Node::new();
    // A client elsewhere: same socket, another network namespace.
    let socket = node.socket();
    let client = std::thread::spawn(move || {
        common::enter_namespaces();
        veth("pod0", "peer0", 1);
        let mut keeper = KeeperClient::connect(&socket, common::PATIENCE).unwrap();
        kind(keeper.bind(&BindRequest::new("pod0", PortKind::Pod)))
    });
    assert_eq!(client.join().unwrap(), ErrorKind::NotFound);
}

fn kind<T: std::fmt::Debug>(result: Result<T, ClientError>) -> ErrorKind {
    match result.unwrap_err() {
        ClientError::Refused(error) => error.kind,
        other => panic!("{other}"),
    }
}

fn index(ifname: &str) -> u32 {
    nix::net::if_::if_nametoindex(ifname).unwrap()
}

/// Names below the node's bpffs, which this thread's mount namespace shows.
fn pins(node: &Node) -> Vec<String> {
    let entries = std::fs::read_dir(node.run_dir().join("bpf/weft")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What tells one socket from another, whatever the descriptor's number.
fn inode(socket: &OwnedFd) -> u64 {
    nix::sys::stat::fstat(socket).unwrap().st_ino
}

/// The kernel frees a queue some milliseconds after its last holder went; on a busy machine that may
/// take longer than the keeper waits.
fn bind_once_free(keeper: &mut KeeperClient, request: &BindRequest) -> Port {
    let mut bound = None;
    common::wait_until("the queue is free", || {
        bound = keeper.bind(request).ok();
        bound.is_some()
    });
    bound.unwrap()
}
