//! A server of `dataplane.sock` that keeps objects and ports, and can forget or die.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};
use weft_api::PortName;
use weft_api::dataplane::{
    Done, Hello, Op, PortAttached, PortCounters, PortList, PortSpec, PortStatus,
};
use weft_api::envelope::{ApiError, ErrorKind, Outcome, Request, Response};
use weft_api::object::{Key, Object};

/// What it holds; survives [`FakeDataplane::stop`].
#[derive(Debug, Default)]
pub struct Tables {
    pub generation: u64,
    pub objects: BTreeMap<Key, Object>,
    staged: Option<BTreeMap<Key, Object>>,
    pub ports: BTreeMap<PortName, PortSpec>,
    /// Operations served, by a short name.
    pub log: Vec<String>,
    /// Objects per upsert.
    pub chunks: Vec<usize>,
    /// Refuses attaching this port.
    pub refuse: Option<PortName>,
}

/// The server.
pub struct FakeDataplane {
    socket: PathBuf,
    tables: Arc<Mutex<Tables>>,
    server: Option<AbortHandle>,
}

impl FakeDataplane {
    pub fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            tables: Arc::default(),
            server: None,
        }
    }

    pub fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap()
    }

    pub fn start(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket).unwrap();
        let tables = Arc::clone(&self.tables);
        let server = tokio::spawn(async move {
            // Connections end with the server's task.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, Arc::clone(&tables)));
            }
        });
        self.server = Some(server.abort_handle());
    }

    /// Dies without a word.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }
}

async fn serve(stream: UnixStream, tables: Arc<Mutex<Tables>>) {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let request: Request<Op> = serde_json::from_str(&line).unwrap();
        let outcome = Outcome::from(tables.lock().unwrap().answer(request.body));
        let response = Response {
            id: request.id,
            outcome,
        };
        let mut line = serde_json::to_string(&response).unwrap();
        line.push('\n');
        if writer.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn value<T: serde::Serialize>(value: T) -> serde_json::Value {
    serde_json::to_value(value).unwrap()
}

impl Tables {
    /// Objects that say how to reach somebody, without those of policies.
    pub fn routes(&self) -> usize {
        let of_policy = |object: &&Object| {
            matches!(
                object,
                Object::Identity(_) | Object::PolicyAddress(_) | Object::EndpointPolicy(_)
            )
        };
        self.objects.values().filter(|it| !of_policy(it)).count()
    }

    fn answer(&mut self, op: Op) -> Result<serde_json::Value, ApiError> {
        let name = value(&op)["op"].as_str().unwrap().to_owned();
        self.log.push(name);
        match op {
            Op::Hello { version } => Ok(value(Hello {
                version,
                generation: self.generation,
                committed: self.generation > 0,
            })),
            Op::SyncBegin { generation } => {
                self.check(generation)?;
                self.staged = Some(BTreeMap::new());
                Ok(value(Done {}))
            }
            Op::Upsert {
                generation,
                objects,
            } => {
                self.check(generation)?;
                self.chunks.push(objects.len());
                let target = match &mut self.staged {
                    Some(staged) => staged,
                    None => {
                        self.generation = generation;
                        &mut self.objects
                    }
                };
                target.extend(objects.into_iter().map(|o| (o.key(), o)));
                Ok(value(Done {}))
            }
            Op::Delete { generation, keys } => {
                self.check(generation)?;
                self.generation = generation;
                self.objects.retain(|key, _| !keys.contains(key));
                Ok(value(Done {}))
            }
            Op::Commit { generation } => {
                self.check(generation)?;
                self.objects = self.staged.take().unwrap();
                self.generation = generation;
                Ok(value(Done {}))
            }
            Op::PortAttach(spec) if self.refuse.as_ref() == Some(&spec.name) => {
                Err(ApiError::new(ErrorKind::Failed, "no frames"))
            }
            Op::PortAttach(spec) => {
                self.ports.insert(spec.name.clone(), spec);
                Ok(value(PortAttached {
                    id: 1,
                    mode: "copy".to_owned(),
                }))
            }
            Op::PortDetach { name } => {
                self.ports.remove(&name);
                Ok(value(Done {}))
            }
            Op::PortList => Ok(value(PortList {
                ports: self.ports.values().map(status).collect(),
            })),
            _ => Err(ApiError::new(ErrorKind::BadRequest, "not here")),
        }
    }

    fn check(&self, generation: u64) -> Result<(), ApiError> {
        if generation >= self.generation {
            return Ok(());
        }
        Err(ApiError::new(ErrorKind::Stale, "older than in force"))
    }
}

fn status(spec: &PortSpec) -> PortStatus {
    PortStatus {
        id: 1,
        name: spec.name.clone(),
        kind: spec.kind,
        pod: spec.pod.clone(),
        addresses: spec.addresses.clone(),
        mac: spec.mac,
        mtu: spec.mtu,
        worker: 0,
        queues: 1,
        mode: "copy".to_owned(),
        xdp_mode: "generic".to_owned(),
        counters: PortCounters::default(),
    }
}
