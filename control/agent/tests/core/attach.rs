use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use weft_api::agent::HostPort;
use weft_api::envelope::ErrorKind;
use weft_api::object::{Key, Object};
use weft_api::{LOCAL_MTU, VETH_MTU};

use crate::node::{Node, add_link, attachment, delete_link, pod, pod_manifest, prepare, underlay};

async fn ready() -> Node {
    let mut node = Node::new();
    node.dataplane.start();
    node.agent.set_underlay(underlay(&[]));
    node.until_synced().await;
    node
}

#[tokio::test]
async fn an_attachment_lives_from_prepare_to_release() {
    let node = ready().await;
    let one = attachment("one");
    let plan = node.add(&one).await;
    assert_eq!(plan.addresses, [IpAddr::from([10, 1, 1, 2])]);
    assert_eq!(
        (plan.path_mtu, plan.local_mtu, plan.veth_mtu),
        (1_450, LOCAL_MTU, VETH_MTU)
    );
    assert_eq!(node.agent.prepare(&prepare(&one)).await.unwrap(), plan);
    assert!(node.dataplane.tables().ports.contains_key(&plan.port));
    let checked = node.agent.check(&one).await;
    assert_eq!(
        (checked.addresses, checked.problems),
        (plan.addresses.clone(), vec![])
    );
    node.agent.abandon(&one).await;
    assert!(node.agent.status().attachments[0].live);
    node.agent.release(&one).await.unwrap();
    node.agent.release(&one).await.unwrap();
    assert_eq!(node.dataplane.tables().ports.len(), 0);
    let status = node.agent.status();
    assert_eq!(
        (
            status.attachments.len(),
            status.pools[0].used,
            status.pools[0].cooling
        ),
        (0, 0, 1)
    );
    assert!(node.agent.check(&one).await.problems[0].contains("not attached"));
}

#[tokio::test]
async fn what_was_prepared_and_never_attached_is_given_back() {
    let node = ready().await;
    let one = attachment("one");
    node.agent.prepare(&prepare(&one)).await.unwrap();
    node.agent.abandon(&one).await;
    assert_eq!(node.agent.status().pools[0].used, 0);
    let error = node.agent.attach(&one).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_host_port_is_one_pods_until_that_goes() {
    let mut node = ready().await;
    let (one, two) = (attachment("one"), attachment("two"));
    let mut request = prepare(&one);
    let port = HostPort {
        protocol: 17,
        host_port: 5_353,
        container_port: 53,
        host_ip: None,
    };
    request.host_ports = vec![port.clone()];
    let plan = node.agent.prepare(&request).await.unwrap();
    add_link(&plan.port.0);
    node.agent.attach(&one).await.unwrap();
    node.restart_agent();
    node.until_synced().await;
    request.attachment = two;
    request.host_ports[0].host_ip = Some([192, 0, 2, 1].into());
    let error = node.agent.prepare(&request).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    let says = "host port 5353/UDP leads to pod default/one already";
    assert_eq!(error.message, says);
    let key = Key::Service {
        namespace: "default".to_owned(),
        name: "hostport:one".to_owned(),
    };
    node.until("its service", |n| {
        n.dataplane.tables().objects.contains_key(&key)
    })
    .await;
    let Some(Object::Service(service)) = node.dataplane.tables().objects.get(&key).cloned() else {
        panic!("no service");
    };
    assert_eq!(
        (service.backends[0].address, service.backends[0].port),
        (plan.addresses[0], 53)
    );
    node.agent.release(&one).await.unwrap();
    node.agent.prepare(&request).await.unwrap();
    node.until("it gone", |n| {
        !n.dataplane.tables().objects.contains_key(&key)
    })
    .await;
}

#[tokio::test]
async fn an_add_waits_for_its_pod() {
    let node = ready().await;
    let mut request = prepare(&attachment("one"));
    request.pod = Some(pod("web-0"));
    let started = Instant::now();
    let (plan, ()) = tokio::join!(node.agent.prepare(&request), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        node.write("pod.yaml", &pod_manifest("web-0"));
    });
    plan.unwrap();
    assert!(started.elapsed() < Duration::from_secs(4));
    request.pod = Some(pod("web-1"));
    let error = node.agent.prepare(&request).await.unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::TryAgain, "pod shop/web-1 is not known yet")
    );
}

#[tokio::test]
async fn an_add_without_a_dataplane_is_told_to_try_again() {
    let node = Node::new();
    let error = node
        .agent
        .prepare(&prepare(&attachment("one")))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::TryAgain);
    assert!(
        error.message.contains("the dataplane cannot be reached"),
        "{error}"
    );
}

#[tokio::test]
async fn delegated_addresses_are_used_and_guarded() {
    let node = ready().await;
    let mut request = prepare(&attachment("one"));
    request.delegated = vec!["10.1.1.77/24".parse().unwrap()];
    request.mtu = Some(1_400);
    let plan = node.agent.prepare(&request).await.unwrap();
    assert_eq!(
        (plan.addresses, plan.path_mtu),
        (vec![[10, 1, 1, 77].into()], 1_400)
    );
    request.attachment = attachment("two");
    let error = node.agent.prepare(&request).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
}

#[tokio::test]
async fn exhaustion_is_a_clear_error() {
    let node = ready().await;
    for n in 0..253 {
        node.agent
            .prepare(&prepare(&attachment(&format!("c{n}"))))
            .await
            .unwrap();
    }
    let error = node
        .agent
        .prepare(&prepare(&attachment("last")))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Exhausted);
    assert!(
        error
            .message
            .starts_with("no free address in 10.1.1.0/24: 253 in use"),
        "{error}"
    );
    let problems = node.agent.ready().problems;
    let full = "no free address in 10.1.1.0/24".to_owned();
    assert!(problems.contains(&full), "{problems:?}");
}

#[tokio::test]
async fn a_killed_agents_addresses_stay_taken() {
    let mut node = ready().await;
    let plan = node.add(&attachment("one")).await;
    let gone = node.add(&attachment("gone")).await;
    delete_link(&gone.port.0);
    node.restart_agent();
    node.agent.set_underlay(underlay(&[]));
    node.until_synced().await;
    let next = node.add(&attachment("two")).await;
    assert_eq!(next.addresses, [IpAddr::from([10, 1, 1, 4])]);
    assert_eq!(
        node.agent.check(&attachment("one")).await.addresses,
        plan.addresses
    );
    // The pod whose interface vanished meanwhile holds nothing any more.
    node.until("two attachments", |n| {
        n.agent.status().attachments.len() == 2
    })
    .await;
    assert!(!node.dataplane.tables().ports.contains_key(&gone.port));
}

#[tokio::test]
async fn lost_records_are_rebuilt_from_the_dataplanes_ports() {
    let mut node = ready().await;
    let plan = node.add(&attachment("one")).await;
    fs::write(node.path("state/attachments.json"), "{\"version\":1,").unwrap();
    node.restart_agent();
    node.agent.set_underlay(underlay(&[]));
    node.until_synced().await;
    assert!(
        node.agent.problems()[0].contains("attachments.json.broken"),
        "{:?}",
        node.agent.problems()
    );
    let next = node.add(&attachment("two")).await;
    assert_eq!(next.addresses, [IpAddr::from([10, 1, 1, 3])]);
    assert!(node.dataplane.tables().ports.contains_key(&plan.port));
    // The container that owns the port finds it by name.
    assert_eq!(
        node.agent.check(&attachment("one")).await.addresses,
        plan.addresses
    );
    node.agent.release(&attachment("one")).await.unwrap();
    assert!(!node.dataplane.tables().ports.contains_key(&plan.port));
}

#[tokio::test]
async fn collecting_releases_what_the_runtime_does_not_know() {
    let node = ready().await;
    for id in ["one", "two", "three"] {
        node.add(&attachment(id)).await;
    }
    let collected = node.agent.collect("weft", &[attachment("two")]).await;
    let released: BTreeSet<_> = collected
        .released
        .iter()
        .map(|a| a.container_id.as_str())
        .collect();
    assert_eq!(released, BTreeSet::from(["one", "three"]));
    assert_eq!(collected.problems, [] as [&str; 0]);
    assert_eq!(node.dataplane.tables().ports.len(), 1);
    assert_eq!(node.agent.collect("other", &[]).await.released, []);
}

#[tokio::test]
async fn a_del_without_a_dataplane_succeeds_and_the_port_is_detached_later() {
    let mut node = ready().await;
    let plan = node.add(&attachment("one")).await;
    node.dataplane.stop();
    node.until("a loss noticed", |n| !n.agent.status().dataplane)
        .await;
    node.agent.release(&attachment("one")).await.unwrap();
    assert!(node.dataplane.tables().ports.contains_key(&plan.port));
    node.dataplane.start();
    node.until("no ports", |n| n.dataplane.tables().ports.is_empty())
        .await;
}

#[tokio::test]
async fn two_hundred_adds_at_once_get_addresses_of_their_own() {
    let node = ready().await;
    let attachments: Vec<_> = (0..200).map(|n| attachment(&format!("c{n}"))).collect();
    let adds = attachments.iter().map(|a| async {
        let plan = node.agent.prepare(&prepare(a)).await.unwrap();
        node.agent.attach(a).await.unwrap();
        plan.addresses[0]
    });
    let addresses = futures_util::future::join_all(adds).await;
    assert_eq!(addresses.into_iter().collect::<BTreeSet<_>>().len(), 200);
    assert_eq!(node.agent.status().pools[0].used, 200);
    for a in attachments.iter().rev() {
        node.agent.release(a).await.unwrap();
    }
    let status = node.agent.status();
    assert_eq!((status.pools[0].used, status.attachments.len()), (0, 0));
    assert_eq!(node.dataplane.tables().ports.len(), 0);
}
