use std::process::Command;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft_agent::health_check;

use crate::node::Node;

fn service(name: &str, number: u8, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{type: LoadBalancer, externalTrafficPolicy: Local, clusterIP: 10.96.0.{number}, \
         healthCheckNodePort: {port}, ports: [{{port: 80}}]}}\n"
    )
}

fn slice(service: &str, endpoints: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {service}-1, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}\n\
         addressType: IPv4\nports: [{{port: 80}}]\nendpoints: [{endpoints}]\n"
    )
}

/// Status code and body; none where nobody listens.
async fn ask(address: &str) -> Option<(u16, serde_json::Value)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = "GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n";
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = format!("Content-Length: {}", body.len());
    assert!(head.contains("\r\nContent-Type: application/json\r\n") && head.contains(&length));
    let code = head.split(' ').nth(1)?.parse().ok()?;
    Some((code, serde_json::from_str(body).ok()?))
}

/// Asks until the status code is the expected one; answers the body.
async fn until(node: &Node, address: &str, expected: Option<u16>) -> serde_json::Value {
    for _ in 0..2_000 {
        let answer = ask(address).await;
        if answer.as_ref().map(|(code, _)| *code) == expected {
            return answer.map_or_else(Default::default, |(_, body)| body);
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!(
        "{address} never {expected:?}; problems {:?}",
        node.agent.problems()
    );
}

async fn started() -> Node {
    let mut node = Node::new();
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(up.unwrap().success());
    node.dataplane.start();
    tokio::spawn(health_check::run(Arc::clone(&node.agent)));
    node
}

#[tokio::test]
async fn load_balancers_hear_whether_this_node_has_endpoints() {
    let node = started().await;
    node.write("s.yaml", &service("web", 1, 31_000));
    let body = until(&node, "127.0.0.1:31000", Some(503)).await;
    assert_eq!(
        body,
        serde_json::json!({
            "service": {"namespace": "shop", "name": "web"},
            "localEndpoints": 0, "serviceProxyHealthy": true,
        })
    );
    let here = "{addresses: [10.1.1.7], nodeName: a}";
    node.write("e.yaml", &slice("web", here));
    let body = until(&node, "[::1]:31000", Some(200)).await;
    assert_eq!(body["localEndpoints"], 1);
    node.write(
        "e.yaml",
        &slice("web", &here.replace("nodeName: a", "nodeName: b")),
    );
    until(&node, "127.0.0.1:31000", Some(503)).await;
}

#[tokio::test]
async fn ports_open_move_and_close_with_their_services() {
    let node = started().await;
    node.write("s.yaml", &service("web", 1, 31_000));
    until(&node, "127.0.0.1:31000", Some(503)).await;
    node.write("s.yaml", &service("other", 1, 31_000));
    node.until("the other's", |n| {
        n.agent.desired().services.services[0].name == "other"
    })
    .await;
    let body = until(&node, "127.0.0.1:31000", Some(503)).await;
    assert_eq!(body["service"]["name"], "other");
    node.write("s.yaml", &service("other", 1, 31_001));
    until(&node, "127.0.0.1:31001", Some(503)).await;
    until(&node, "127.0.0.1:31000", None).await;
    std::fs::remove_file(node.path("manifests/s.yaml")).unwrap();
    until(&node, "127.0.0.1:31001", None).await;
}

#[tokio::test]
async fn without_a_dataplane_the_node_is_not_healthy() {
    let mut node = started().await;
    node.write("s.yaml", &service("web", 1, 31_000));
    node.write(
        "e.yaml",
        &slice("web", "{addresses: [10.1.1.7], nodeName: a}"),
    );
    until(&node, "127.0.0.1:31000", Some(200)).await;
    node.dataplane.stop();
    let body = until(&node, "127.0.0.1:31000", Some(503)).await;
    assert_eq!(body["serviceProxyHealthy"], false);
}

#[tokio::test]
async fn a_port_that_cannot_be_had_is_told() {
    let node = started().await;
    let _taken = TcpListener::bind("0.0.0.0:31000").await.unwrap();
    node.write("s.yaml", &service("web", 1, 31_000));
    node.write("t.yaml", &service("xeb", 2, 31_000));
    let told = |node: &Node, part: &str| node.agent.problems().iter().any(|p| p.contains(part));
    let taken =
        "Service shop/web: healthCheckNodePort 31000 cannot be served: Address already in use";
    node.until("in use", |n| told(n, taken)).await;
    let twice = "Service shop/xeb: healthCheckNodePort 31000 is also that of Service shop/web";
    node.until("twice", |n| told(n, twice)).await;
}
