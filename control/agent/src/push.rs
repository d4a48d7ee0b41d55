//! Keeps the dataplane's tables and ports as they should be.
//!
//! A new connection starts with a full sync, so that it does not matter what the dataplane holds or
//! which agent wrote it; later changes are sent as differences. Then the ports are compared: those
//! of ours that are missing are attached again, pod ports nobody knows are detached.

mod ports;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use weft_api::PROTOCOL_VERSION;
use weft_api::dataplane::{Done, Hello, Op, PortAttached};
use weft_api::envelope::{ApiError, ErrorKind};
use weft_api::object::Object;
use weft_model::diff::diff;

use crate::dataplane::Connection;
use crate::state::{Agent, NodePort, Objects};

/// Objects of one message: some 300 bytes each, far below the line limit, and short enough that the
/// dataplane serves other connections in between. Those with lists count for as many as they are long.
const CHUNK: usize = 1_024;

/// First and longest pause between attempts to connect. A restarted dataplane takes about 100 ms to
/// listen again; an absent one costs two attempts a second.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// How long a dataplane that works with older tables waits for every path to be resolved. The agent
/// needs some 100 ms for that, as the kernel still has the neighbours; a node that is down never
/// resolves, and ADDs wait meanwhile.
const PATHS_WAIT: Duration = Duration::from_secs(1);

/// How often ports are compared although nothing happened, and how soon after a failure.
const COMPARE: Duration = Duration::from_secs(30);
const COMPARE_RETRY: Duration = Duration::from_secs(1);

/// Runs as long as the agent.
pub async fn run(agent: Arc<Agent>) {
    let socket = agent.options().run_dir.dataplane_socket();
    let mut backoff = BACKOFF_MIN;
    loop {
        let problem = match Connection::open(&socket).await {
            Err(error) => format!(
                "cannot reach the dataplane at {}: {error}",
                socket.display()
            ),
            Ok(connection) => {
                let mut session = Session::new(&agent, Arc::new(connection));
                let ended = session.run().await;
                if session.is_synced() {
                    backoff = BACKOFF_MIN;
                }
                match ended {
                    Ok(()) => "the dataplane closed the connection".to_owned(),
                    Err(error) => format!("the dataplane: {error}"),
                }
            }
        };
        agent.dataplane().set(None);
        agent.update_progress(|progress| *progress = Default::default());
        agent.set_problems("dataplane", vec![problem]);
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// One connection's life.
struct Session<'a> {
    agent: &'a Agent,
    connection: Arc<Connection>,
    /// What the dataplane has; none before the first commit.
    pushed: Option<Arc<Objects>>,
    generation: u64,
    /// Epoch of the node's own port that is attached.
    node_port: Option<NodePort>,
}

impl<'a> Session<'a> {
    fn new(agent: &'a Agent, connection: Arc<Connection>) -> Self {
        Self {
            agent,
            connection,
            pushed: None,
            generation: 0,
            node_port: None,
        }
    }

    fn is_synced(&self) -> bool {
        self.pushed.is_some()
    }

    /// Ends with the connection, or when the dataplane refuses something: then a new connection and
    /// a full sync are the way out.
    async fn run(&mut self) -> Result<(), ApiError> {
        let hello = self.greet().await?;
        let mut objects = self.agent.watch_objects();
        let mut node_port = self.agent.watch_node_port();
        let has_older = hello.generation > 0;
        if !self.wait_for_tables(has_older, &mut objects).await {
            return Ok(());
        }
        let mut compare_at = Instant::now();
        loop {
            self.push(&mut objects).await?;
            let node_ported = self.attach_node_port(&mut node_port).await;
            if Instant::now() >= compare_at || !node_ported {
                let compared = self.compare_ports().await?;
                let pause = if compared && node_ported {
                    COMPARE
                } else {
                    COMPARE_RETRY
                };
                compare_at = Instant::now() + pause;
            }
            // The channels' senders live as long as the agent.
            tokio::select! {
                _ = objects.changed() => {}
                _ = node_port.changed() => {}
                () = tokio::time::sleep_until(compare_at) => {}
                () = self.connection.closed() => return Ok(()),
            }
        }
    }

    async fn greet(&mut self) -> Result<Hello, ApiError> {
        let hello = self.hello().await?;
        self.generation = hello.generation;
        let connection = Arc::clone(&self.connection);
        self.agent.dataplane().set(Some(connection));
        self.agent.set_problems("dataplane", Vec::new());
        let (generation, committed) = (hello.generation, hello.committed);
        tracing::info!(generation, committed, "connected to the dataplane");
        Ok(hello)
    }

    async fn hello(&self) -> Result<Hello, ApiError> {
        let version = PROTOCOL_VERSION;
        let hello: Hello = self.connection.call(Op::Hello { version }).await?;
        if hello.version == version {
            return Ok(hello);
        }
        let message = format!(
            "it speaks version {} of the protocol, this agent {version}",
            hello.version
        );
        Err(ApiError::new(ErrorKind::Failed, message))
    }

    /// Waits for tables to push, and, where the dataplane works with older ones, for those to be
    /// as complete as they can be. False when the connection ended first.
    async fn wait_for_tables(
        &self,
        has_older: bool,
        objects: &mut watch::Receiver<Option<Arc<Objects>>>,
    ) -> bool {
        let any = async {
            // The sender lives as long as the agent.
            let _ = objects.wait_for(Option::is_some).await;
        };
        tokio::select! {
            () = any => {}
            () = self.connection.closed() => return false,
        }
        let complete = async {
            while has_older && !self.agent.has_every_path() && objects.changed().await.is_ok() {}
        };
        tokio::select! {
            () = complete => true,
            () = tokio::time::sleep(PATHS_WAIT) => true,
            () = self.connection.closed() => false,
        }
    }

    async fn push(
        &mut self,
        objects: &mut watch::Receiver<Option<Arc<Objects>>>,
    ) -> Result<(), ApiError> {
        let Some(wanted) = objects.borrow_and_update().clone() else {
            return Ok(());
        };
        match self.pushed.clone() {
            None => self.sync(&wanted).await?,
            Some(pushed) => self.change(&pushed, &wanted).await?,
        }
        let (generation, pods_revision) = (Some(self.generation), wanted.pods_revision);
        self.pushed = Some(wanted);
        self.agent.update_progress(|progress| {
            (progress.generation, progress.pods_revision) = (generation, pods_revision);
        });
        Ok(())
    }

    async fn sync(&mut self, wanted: &Objects) -> Result<(), ApiError> {
        self.generation += 1;
        let generation = self.generation;
        self.done(Op::SyncBegin { generation }).await?;
        for chunk in chunks(&wanted.all) {
            let objects = chunk.to_vec();
            self.done(Op::Upsert {
                generation,
                objects,
            })
            .await?;
        }
        self.done(Op::Commit { generation }).await?;
        tracing::info!(
            generation,
            objects = wanted.all.len(),
            "the dataplane has its tables"
        );
        Ok(())
    }

    /// Upserts go first: a prefix that moves from one node to another is never nobody's.
    async fn change(&mut self, pushed: &Objects, wanted: &Objects) -> Result<(), ApiError> {
        let change = diff(&pushed.all, &wanted.all);
        for chunk in chunks(&change.upserts) {
            self.generation += 1;
            let (generation, objects) = (self.generation, chunk.to_vec());
            self.done(Op::Upsert {
                generation,
                objects,
            })
            .await?;
        }
        for chunk in change.deletes.chunks(CHUNK) {
            self.generation += 1;
            let (generation, keys) = (self.generation, chunk.to_vec());
            self.done(Op::Delete { generation, keys }).await?;
        }
        if !change.is_empty() {
            let (upserts, deletes) = (change.upserts.len(), change.deletes.len());
            tracing::debug!(
                generation = self.generation,
                upserts,
                deletes,
                "tables changed"
            );
        }
        Ok(())
    }

    /// True when the node's own port is as it should be.
    async fn attach_node_port(&mut self, node_port: &mut watch::Receiver<NodePort>) -> bool {
        let wanted = node_port.borrow_and_update().clone();
        if self.node_port.as_ref() == Some(&wanted) {
            return true;
        }
        let problem = match self.replace_node_port(&wanted).await {
            Ok(()) => {
                let attached = wanted.spec.is_some();
                self.node_port = Some(wanted);
                self.agent
                    .update_progress(|progress| progress.node_port = attached);
                None
            }
            Err(error) => Some(format!("the node's own port cannot be attached: {error}")),
        };
        let well = problem.is_none();
        self.agent
            .set_problems("weft0", problem.into_iter().collect());
        well
    }

    async fn replace_node_port(&self, wanted: &NodePort) -> Result<(), ApiError> {
        // The dataplane would take a new pair of the same name and properties for the one it has.
        let before = self.node_port.as_ref();
        let stale = before.filter(|before| before.epoch != wanted.epoch);
        if let Some(name) = stale
            .and_then(|stale| stale.spec.as_ref())
            .map(|s| s.name.clone())
        {
            self.done(Op::PortDetach { name }).await?;
        }
        if let Some(spec) = &wanted.spec {
            let attach = Op::PortAttach(spec.clone());
            let _: PortAttached = self.connection.call(attach).await?;
        }
        Ok(())
    }

    async fn done(&self, op: Op) -> Result<(), ApiError> {
        self.connection.call::<Done>(op).await.map(drop)
    }
}

/// Cuts a list into what fits a message; what is too long for one stands alone.
fn chunks(mut objects: &[Object]) -> Vec<&[Object]> {
    let mut chunks = Vec::new();
    while !objects.is_empty() {
        let mut room = CHUNK;
        let mut fits = |object: &&Object| {
            let weight = weight(object);
            let fits = weight <= room;
            room = room.saturating_sub(weight);
            fits
        };
        let count = objects
            .iter()
            .take_while(|object| fits(object))
            .count()
            .max(1);
        let (chunk, rest) = objects.split_at(count);
        chunks.push(chunk);
        objects = rest;
    }
    chunks
}

/// How many ordinary objects one is worth.
fn weight(object: &Object) -> usize {
    match object {
        // A backend takes about 100 bytes, its place in the list of a frontend up to six.
        Object::Service(service) => {
            let lists = service.frontends.iter().map(|f| 3 + f.backends.len() / 16);
            1 + service.backends.len() / 3 + lists.sum::<usize>() / 3
        }
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_api::service::{Algorithm, Backend, Service};

    #[test]
    fn long_services_travel_in_fewer() {
        let service = |backends: usize| {
            let backend = |n: usize| Backend {
                address: [10, 0, 0, 1].into(),
                port: u16::try_from(n % 60_000).unwrap(),
                pod: None,
                terminating: false,
            };
            Object::Service(Arc::new(Service {
                namespace: "shop".to_owned(),
                name: "web".to_owned(),
                algorithm: Algorithm::Maglev,
                affinity_seconds: None,
                backends: (0..backends).map(backend).collect(),
                frontends: Vec::new(),
            }))
        };
        let lengths = |objects: &[Object]| -> Vec<usize> {
            chunks(objects).iter().map(|chunk| chunk.len()).collect()
        };
        assert_eq!(lengths(&[]), [] as [usize; 0]);
        assert_eq!(lengths(&vec![service(0); CHUNK + 1]), [CHUNK, 1]);
        assert_eq!(
            lengths(&[service(10), service(9_000), service(10)]),
            [1, 1, 1]
        );
        assert_eq!(lengths(&vec![service(300); 20]), [10, 10]);
    }
}
