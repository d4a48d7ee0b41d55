use std::time::Duration;

use weft_api::dataplane::{PortKind, PortSpec};
use weft_api::object::{Key, Object};
use weft_api::{MacAddr, PortName};

use crate::node::{Node, attachment, manifest, prepare, underlay};

fn remote(name: &str) -> Key {
    Key::RemoteNode {
        name: name.to_owned(),
    }
}

fn node_port() -> PortSpec {
    PortSpec {
        name: PortName("weft0p".to_owned()),
        kind: PortKind::Node,
        mac: MacAddr([2, 0, 0, 0, 0, 9]),
        addresses: vec![[10, 1, 1, 1].into()],
        mtu: 65_535,
        pod: None,
        netns: None,
    }
}

#[tokio::test]
async fn a_full_sync_is_followed_by_differences_of_growing_generation() {
    let mut node = Node::new();
    node.dataplane.start();
    node.agent.set_underlay(underlay(&[]));
    node.until_synced().await;
    let log = node.dataplane.tables().log.clone();
    assert_eq!(log[..4], ["hello", "sync_begin", "upsert", "commit"]);
    let first = node.dataplane.tables().generation;
    node.write("b.yaml", &manifest("b", 2));
    node.until("node b", |n| {
        n.dataplane.tables().objects.contains_key(&remote("b"))
    })
    .await;
    node.agent.set_underlay(underlay(&[2, 3]));
    // The path to 192.0.2.3 is nobody's and is not sent.
    node.until("a path", |n| n.dataplane.tables().routes() == 5)
        .await;
    std::fs::remove_file(node.path("manifests/b.yaml")).unwrap();
    node.until("b gone", |n| n.dataplane.tables().routes() == 2)
        .await;
    let tables = node.dataplane.tables();
    assert!(tables.generation > first);
    assert_eq!(
        tables.log.iter().filter(|op| *op == "sync_begin").count(),
        1
    );
    let Some(Object::LocalNode(local)) = tables.objects.get(&Key::LocalNode) else {
        panic!("no local node");
    };
    assert_eq!(local.outside_mtu, 1_500);
}

#[tokio::test]
async fn large_clusters_are_sent_in_chunks() {
    let mut node = Node::new();
    let nodes: Vec<String> = (0..3_000_u32)
        .map(|n| {
            let (high, low) = (n / 200, n % 200);
            format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{name: n{n}}}\nspec: {{podCIDR: 10.{}.{low}.0/24}}\n\
                 status: {{addresses: [{{type: InternalIP, address: 198.18.{high}.{low}}}]}}\n",
                100 + high
            )
        })
        .collect();
    node.write("cluster.yaml", &nodes.join("---\n"));
    node.until("all nodes", |n| n.agent.desired().remotes.len() == 3_000)
        .await;
    node.dataplane.start();
    node.until_synced().await;
    let tables = node.dataplane.tables();
    assert_eq!(tables.routes(), 6_002);
    assert!(
        tables.chunks.iter().all(|chunk| *chunk <= 1_024),
        "{:?}",
        tables.chunks
    );
}

#[tokio::test]
async fn a_dataplane_that_comes_back_is_synced_again_from_its_generation() {
    let mut node = Node::new();
    node.dataplane.start();
    node.agent.set_underlay(underlay(&[]));
    node.until_synced().await;
    node.dataplane.stop();
    node.until("a loss noticed", |n| !n.agent.status().dataplane)
        .await;
    assert!(
        node.agent.problems()[0].contains("dataplane"),
        "{:?}",
        node.agent.problems()
    );
    node.dataplane.tables().objects.clear();
    node.dataplane.tables().generation = 1_000;
    node.dataplane.start();
    node.until_synced().await;
    let tables = node.dataplane.tables();
    assert_eq!((tables.generation, tables.routes()), (1_001, 2));
}

#[tokio::test]
async fn a_working_dataplane_keeps_its_paths_until_the_new_agent_knows_them() {
    let mut node = Node::new();
    node.write("b.yaml", &manifest("b", 2));
    node.dataplane.start();
    node.agent.set_underlay(underlay(&[2]));
    node.until("a path", |n| n.dataplane.tables().routes() == 5)
        .await;
    node.restart_agent();
    node.until("node b", |n| n.agent.desired().remotes.len() == 1)
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(node.dataplane.tables().routes(), 5);
    assert!(node.agent.watch_progress().borrow().generation.is_none());
    node.agent.set_underlay(underlay(&[2]));
    node.until_synced().await;
    assert_eq!(node.dataplane.tables().routes(), 5);
}

#[tokio::test]
async fn without_its_own_node_the_dataplane_keeps_what_it_has() {
    let mut node = Node::new();
    node.dataplane.start();
    node.agent.set_underlay(underlay(&[]));
    node.until_synced().await;
    std::fs::remove_file(node.path("manifests/a.yaml")).unwrap();
    node.until("the loss", |n| n.agent.desired().local.is_none())
        .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(node.dataplane.tables().routes(), 2);
    assert!(node.agent.ready().problems[0].contains("there is no Node a"));
}

#[tokio::test]
async fn the_nodes_own_port_is_attached_and_attached_anew_when_it_was_made_anew() {
    let mut node = Node::new();
    node.dataplane.start();
    node.agent.set_underlay(underlay(&[]));
    node.agent.set_node_port(Some(node_port()));
    node.until("weft0", |n| n.agent.ready().problems.is_empty())
        .await;
    assert_eq!(node.dataplane.tables().ports.len(), 1);
    node.agent.set_node_port(None);
    node.agent.set_node_port(Some(node_port()));
    // Among them it compares the ports, whenever that is.
    let moves = |node: &Node| -> Vec<String> {
        let log = node.dataplane.tables().log.clone();
        let moves = ["port_attach", "port_detach"];
        log.into_iter()
            .filter(|op| moves.contains(&op.as_str()))
            .collect()
    };
    node.until("weft0 again", |n| moves(n).len() >= 3).await;
    let expected = ["port_attach", "port_detach", "port_attach"];
    assert_eq!(moves(&node), expected);
}

#[tokio::test]
async fn after_a_reconnect_missing_ports_are_attached_and_unknown_ones_detached() {
    let mut node = Node::new();
    node.dataplane.start();
    node.agent.set_underlay(underlay(&[]));
    let plan = node.add(&attachment("one")).await;
    let prepared = attachment("two");
    node.agent
        .prepare(&crate::node::prepare(&prepared))
        .await
        .unwrap();
    node.dataplane.stop();
    node.until("a loss noticed", |n| !n.agent.status().dataplane)
        .await;
    {
        let mut tables = node.dataplane.tables();
        let mut stranger = tables.ports.remove(&plan.port).unwrap();
        stranger.name = PortName("weftstranger".to_owned());
        tables.ports.insert(stranger.name.clone(), stranger);
        tables.ports.insert(node_port().name, node_port());
    }
    node.dataplane.start();
    node.until("ports agree", |n| {
        let tables = n.dataplane.tables();
        let names: Vec<_> = tables.ports.keys().map(|name| name.0.as_str()).collect();
        names == ["weft0p", plan.port.0.as_str()]
    })
    .await;
    assert_eq!(node.agent.status().attachments.len(), 2);
}

#[tokio::test]
async fn a_port_that_cannot_be_attached_again_is_tried_again() {
    let mut node = Node::new();
    node.dataplane.start();
    node.agent.set_underlay(underlay(&[]));
    let plan = node.add(&attachment("one")).await;
    node.dataplane.stop();
    node.dataplane.tables().ports.clear();
    node.dataplane.tables().refuse = Some(plan.port.clone());
    node.dataplane.start();
    let refused = |n: &Node| n.agent.problems().iter().any(|p| p.contains("no frames"));
    node.until("a refusal", refused).await;
    assert!(!node.agent.status().attachments[0].live);
    node.dataplane.tables().refuse = None;
    node.until("the port", |n| {
        n.dataplane.tables().ports.contains_key(&plan.port)
    })
    .await;
    node.until("no problem", |n| n.agent.problems().is_empty())
        .await;
    assert!(node.agent.status().attachments[0].live);
}

#[tokio::test]
async fn a_port_is_attached_once_its_policies_are_in_force() {
    let mut node = Node::new();
    node.dataplane.start();
    node.agent.set_underlay(underlay(&[]));
    node.until_synced().await;
    let pod = attachment("pod");
    let plan = node.agent.prepare(&prepare(&pod)).await.unwrap();
    node.agent.attach(&pod).await.unwrap();
    let log = node.dataplane.tables().log.clone();
    let attached = log.iter().position(|op| op == "port_attach").unwrap();
    let synced = log.iter().position(|op| op == "commit").unwrap();
    assert!(
        log[synced..attached].contains(&"upsert".to_owned()),
        "{log:?}"
    );
    let own = |object: &Object| matches!(object, Object::PolicyAddress(it) if it.prefix.addr() == plan.addresses[0]);
    let has_own = |node: &Node| node.dataplane.tables().objects.values().any(own);
    assert!(has_own(&node));
    node.agent.release(&pod).await.unwrap();
    node.until("its address is nobody's", |n| !has_own(n)).await;
}
