//! Answers load balancers that ask whether this node has backends of a service (`healthCheckNodePort`),
//! in kube-proxy's words: 200 where there are some, 503 where there are none.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use weft_model::compile::HealthCheck;

use crate::state::Agent;

/// How soon a port that was in use is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Connections of one port at a time. Load balancers have a handful of checkers; more than this is
/// somebody who holds them open.
const CONNECTIONS_MAX: usize = 64;

/// Bytes of a request that are read; it is answered in the same way whatever it asks.
const REQUEST_MAX: usize = 8_192;

/// How long a client has for its request and for taking the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A port that is served.
#[derive(Debug)]
struct Server {
    namespace: String,
    name: String,
    task: JoinHandle<()>,
}

/// Runs as long as the agent.
pub async fn run(agent: Arc<Agent>) {
    let mut desired = agent.watch_desired();
    let mut servers = BTreeMap::new();
    loop {
        let now = desired.borrow_and_update().clone();
        let problems = follow(&agent, &now.services.health_checks, &mut servers).await;
        let pause = match problems.is_empty() {
            true => Duration::MAX,
            false => RETRY,
        };
        agent.set_problems("health checks", problems);
        tokio::select! {
            changed = desired.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Starts and stops servers; answers what could not be done.
async fn follow(
    agent: &Arc<Agent>,
    checks: &[HealthCheck],
    servers: &mut BTreeMap<u16, Server>,
) -> Vec<String> {
    let mut wanted: BTreeMap<u16, &HealthCheck> = BTreeMap::new();
    let mut problems = Vec::new();
    for check in checks {
        let holder = *wanted.entry(check.port).or_insert(check);
        if holder != check {
            problems.push(format!(
                "{}: healthCheckNodePort {} is also that of {}, which keeps it",
                label(check),
                check.port,
                label(holder)
            ));
        }
    }
    let stale = |port: &u16, server: &Server| {
        let check = wanted.get(port);
        check.is_none_or(|c| (&c.namespace, &c.name) != (&server.namespace, &server.name))
    };
    let gone: Vec<u16> = servers
        .iter()
        .filter(|(p, s)| stale(p, s))
        .map(|(p, _)| *p)
        .collect();
    for server in gone.iter().filter_map(|port| servers.remove(port)) {
        server.task.abort();
        // Another service may want the port: it is free when the task is gone.
        let _ = server.task.await;
    }
    for (port, check) in wanted {
        if servers.contains_key(&port) {
            continue;
        }
        match listen(port).await {
            Ok(listener) => {
                let server = Server {
                    namespace: check.namespace.clone(),
                    name: check.name.clone(),
                    task: tokio::spawn(serve(Arc::clone(agent), listener, port)),
                };
                servers.insert(port, server);
            }
            Err(error) => problems.push(format!(
                "{}: healthCheckNodePort {port} cannot be served: {error}",
                label(check)
            )),
        }
    }
    problems
}

fn label(check: &HealthCheck) -> String {
    format!("Service {}/{}", check.namespace, check.name)
}

/// Listens on all addresses of both IP versions; of IPv4 alone where the kernel has no IPv6.
async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
        }
        bound => bound,
    }
}

async fn serve(agent: Arc<Agent>, listener: TcpListener, port: u16) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: those in use come back.
            tokio::time::sleep(PATIENCE).await;
            continue;
        };
        let agent = Arc::clone(&agent);
        tokio::spawn(async move {
            // A client that went away or is too slow gets nothing.
            let _ = tokio::time::timeout(PATIENCE, answer(&agent, stream, port)).await;
            drop(place);
        });
    }
}

async fn answer(agent: &Agent, mut stream: TcpStream, port: u16) -> io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 1_024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < REQUEST_MAX {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => request.extend_from_slice(&buffer[..count]),
        }
    }
    let healthy = agent.dataplane().connection().is_some();
    let desired = agent.desired();
    let mut checks = desired.services.health_checks.iter();
    let Some(check) = checks.find(|check| check.port == port) else {
        return Ok(());
    };
    stream
        .write_all(response(check, healthy).as_bytes())
        .await?;
    stream.shutdown().await
}

/// The answer, in the words of kube-proxy: some load balancers read the body.
fn response(check: &HealthCheck, healthy: bool) -> String {
    let count = check.local_endpoints;
    let status = match healthy && count > 0 {
        true => "200 OK",
        false => "503 Service Unavailable",
    };
    let body = json!({
        "service": {"namespace": check.namespace, "name": check.name},
        "localEndpoints": count,
        "serviceProxyHealthy": healthy,
    });
    let body = body.to_string();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n\
         X-Load-Balancing-Endpoint-Weight: {count}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
