//! What becomes of attachments when everybody else comes and goes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use weft_api::agent::{Checked, Collected, Op, Plan, Ready};
use weft_api::client::Client;
use weft_api::envelope::ErrorKind;
use weft_api::{PodRef, PortName};

use crate::namespace::run;
use crate::node::{Node, attach, attachment, connect, kind, prepare, release, request};

const CIDR: &str = "10.245.0.0/22";

fn used(node: &Node) -> u64 {
    node.status().pools.iter().map(|pool| pool.used).sum()
}

/// Makes the host end as the plugin does. Without it the agent takes the pod for gone when it next
/// compares its ports with the dataplane's.
fn plug(port: &PortName) {
    run(&format!(
        "ip link add {port} type veth peer name e{}",
        &port.0[1..]
    ));
    for setting in ["ipv4.conf.{}.forwarding=0", "ipv6.conf.{}.disable_ipv6=1"] {
        run(&format!(
            "sysctl -qw net.{}",
            setting.replace("{}", &port.0)
        ));
    }
    run(&format!("ip link set {port} up"));
}

#[test]
fn a_connection_that_closes_before_attach_gives_its_addresses_back() {
    let node = Node::ready(CIDR);
    let none = used(&node);
    let given = attachment("c1");
    let mut client = node.connect();
    let plan = prepare(&mut client, &given).unwrap();
    assert_eq!(plan.addresses.len(), 2);
    assert_eq!(plan.port, given.port_name());
    assert!(used(&node) > none);
    drop(client);
    node.until("released", || {
        (used(&node) != none).then(|| format!("{:?}", node.status().pools))
    });
}

#[test]
fn an_attached_port_outlives_its_connection_and_the_agent() {
    let mut node = Node::ready(CIDR);
    let given = attachment("c1");
    let mut client = node.connect();
    let plan = prepare(&mut client, &given).unwrap();
    plug(&plan.port);
    attach(&mut client, &given).unwrap();
    drop(client);
    let port = node
        .dataplane()
        .told()
        .ports
        .get(&plan.port.0)
        .cloned()
        .unwrap();
    assert_eq!(
        (port.mac, port.addresses.clone()),
        (plan.mac, plan.addresses.clone())
    );

    node.restart_agent();
    node.until_ready();
    let status = node.status();
    assert_eq!(status.attachments.len(), 1);
    assert_eq!(status.attachments[0].addresses, plan.addresses);
    let mut client = node.connect();
    assert_eq!(
        prepare(&mut client, &given).unwrap().addresses,
        plan.addresses
    );
    drop(client);
    release(&mut node.connect(), &given).unwrap();
    assert!(!node.dataplane().told().ports.contains_key(&plan.port.0));
}

#[test]
fn two_hundred_at_once_get_two_hundred_addresses() {
    let node = Node::ready(CIDR);
    let none = used(&node);
    let (socket, start) = (node.socket(), Barrier::new(200));
    let plans: Vec<Plan> = thread::scope(|scope| {
        let add = |i: usize| {
            let (socket, start) = (&socket, &start);
            scope.spawn(move || {
                start.wait();
                let (mut client, given) = (connect(socket), attachment(&format!("c{i}")));
                let plan = prepare(&mut client, &given).unwrap();
                attach(&mut client, &given).unwrap();
                plan
            })
        };
        let threads: Vec<_> = (0..200).map(add).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let addresses: BTreeSet<IpAddr> = plans.iter().flat_map(|p| p.addresses.clone()).collect();
    assert_eq!(addresses.len(), 400);
    for plan in &plans {
        assert!(node.dataplane().told().ports.contains_key(&plan.port.0));
    }
    thread::scope(|scope| {
        for i in (0..200).rev() {
            let socket = &socket;
            scope.spawn(move || {
                release(&mut connect(socket), &attachment(&format!("c{i}"))).unwrap()
            });
        }
    });
    assert_eq!(used(&node), none);
    assert!(node.status().attachments.is_empty());
}

#[test]
fn a_pod_that_is_waited_for_holds_up_nobody_and_is_found_when_it_comes() {
    let node = Node::ready(CIDR);
    let (socket, given) = (node.socket(), attachment("c1"));
    let waiting = thread::spawn(move || {
        let mut asked = request(&given);
        asked.pod = Some(PodRef {
            namespace: "default".into(),
            name: "late".into(),
        });
        let begun = Instant::now();
        let mut client = connect(&socket);
        (
            client.call::<_, Plan>(Op::Prepare(asked)).map(|_| ()),
            begun.elapsed(),
        )
    });
    thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    prepare(&mut node.connect(), &attachment("c2")).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2));
    node.write(
        "late",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: late, namespace: default}\n\
         spec: {nodeName: a, containers: [{name: c}]}\n",
    );
    let (found, waited) = waiting.join().unwrap();
    found.unwrap();
    assert!(
        waited >= Duration::from_millis(300) && waited < Duration::from_secs(5),
        "{waited:?}"
    );
}

#[test]
fn an_unknown_pod_is_to_be_tried_again_after_five_seconds() {
    let node = Node::ready(CIDR);
    let mut asked = request(&attachment("c1"));
    asked.pod = Some(PodRef {
        namespace: "default".into(),
        name: "never".into(),
    });
    let begun = Instant::now();
    let answer = node.connect().call::<_, Plan>(Op::Prepare(asked));
    let waited = begun.elapsed().as_secs();
    assert!((4..10).contains(&waited), "{waited}");
    let error = answer.unwrap_err().to_string();
    assert!(error.contains("default/never"), "{error}");
}

#[test]
fn release_needs_no_dataplane_and_is_finished_when_it_is_back() {
    let mut node = Node::ready(CIDR);
    let none = used(&node);
    let (first, second) = (attachment("c1"), attachment("c2"));
    for given in [&first, &second] {
        let mut client = node.connect();
        let plan = prepare(&mut client, given).unwrap();
        plug(&plan.port);
        attach(&mut client, given).unwrap();
    }
    node.kill_dataplane();
    node.until("noticed", || {
        let ready: Ready = node.connect().call(Op::Ready).unwrap();
        ready.problems.is_empty().then(|| "still ready".to_owned())
    });
    let begun = Instant::now();
    release(&mut node.connect(), &first).unwrap();
    release(&mut node.connect(), &first).unwrap();
    release(&mut node.connect(), &attachment("never-seen")).unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(node.status().attachments.len(), 1);
    node.start_dataplane();
    node.until_ready();
    let attached = |name: &str| node.dataplane().told().ports.contains_key(name);
    node.until(
        "the one that is left is attached again, the other is not",
        || {
            let ports = format!("{:?}", node.dataplane().told().ports.keys());
            let right = attached(&second.port_name().0) && !attached(&first.port_name().0);
            (!right).then_some(ports)
        },
    );
    release(&mut node.connect(), &second).unwrap();
    assert_eq!(used(&node), none);
}

#[test]
fn collection_releases_what_the_runtime_forgot_of_that_network_only() {
    let node = Node::ready(CIDR);
    let (kept, forgotten, mut other) = (attachment("c1"), attachment("c2"), attachment("c3"));
    other.network = "other".into();
    for given in [&kept, &forgotten, &other] {
        let mut client = node.connect();
        let plan = prepare(&mut client, given).unwrap();
        plug(&plan.port);
        attach(&mut client, given).unwrap();
    }
    let collect = Op::Collect {
        network: "weft".into(),
        valid: vec![kept.clone()],
    };
    let collected: Collected = node.connect().call(collect).unwrap();
    assert_eq!(collected.problems, [""; 0]);
    assert_eq!(collected.released, [forgotten]);
    let left: Vec<_> = node
        .status()
        .attachments
        .into_iter()
        .map(|a| a.attachment)
        .collect();
    assert_eq!(left.len(), 2);
    assert!(left.contains(&kept) && left.contains(&other));
}

#[test]
fn check_tells_what_is_wrong_with_the_host_end() {
    let node = Node::ready(CIDR);
    let given = attachment("c1");
    let port = given.port_name();
    let mut client = node.connect();
    let plan = prepare(&mut client, &given).unwrap();
    plug(&port);
    attach(&mut client, &given).unwrap();
    let check = |client: &mut Client| {
        let attachment = given.clone();
        client.call::<_, Checked>(Op::Check { attachment }).unwrap()
    };
    let checked = check(&mut client);
    assert_eq!(
        (checked.addresses, checked.mac),
        (plan.addresses, Some(plan.mac))
    );
    let host_end = |checked: Checked| -> Vec<String> {
        let about = |p: &String| p.contains("host end");
        checked.problems.into_iter().filter(about).collect()
    };
    assert_eq!(host_end(check(&mut client)), [""; 0]);
    run(&format!("ip link set {port} down"));
    run(&format!("sysctl -qw net.ipv4.conf.{port}.forwarding=1"));
    assert_eq!(host_end(check(&mut client)).len(), 2);
    run(&format!("ip link del {port}"));
    assert_eq!(
        host_end(check(&mut client)),
        [format!("the host end {port} does not exist")]
    );
}

#[test]
fn exhausted_and_attached_unprepared_are_told_apart() {
    let node = Node::ready("10.244.1.0/29");
    let mut connections = Vec::new();
    let refused = (0..8).find_map(|i| {
        let mut client = node.connect();
        let refused = kind(prepare(&mut client, &attachment(&format!("c{i}"))));
        connections.push(client);
        refused
    });
    assert_eq!(refused, Some(ErrorKind::Exhausted));
    let ready: Ready = node.connect().call(Op::Ready).unwrap();
    assert!(!ready.problems.is_empty());
    let unprepared = kind(attach(&mut node.connect(), &attachment("unprepared")));
    assert_eq!(unprepared, Some(ErrorKind::NotFound));
}
