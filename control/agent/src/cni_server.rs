//! Serves `agent.sock`: decodes what the CNI plugin and the `weft` command ask, calls the agent,
//! encodes the answer.
//!
//! Each connection is a task of its own and its requests are answered in order, so that a pod that
//! waits for its manifest holds up nobody else. A plugin that dies between `prepare` and `attach`
//! closes its connection, and what it had been given is released.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use weft_api::agent::{Attachment, Op};
use weft_api::dataplane::Done;
use weft_api::envelope::{ApiError, ErrorKind, Outcome, Request, Response};

use crate::host::Netlink;
use crate::host::pod_port;
use crate::state::Agent;

/// Longest request, in bytes. The largest is `collect` with every attachment of the node: some 200
/// bytes for each, so this is enough for thousands; a peer that sends more is cut off.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Connections at one time. A runtime starts pods by the hundred; more than this wait in the backlog
/// of the socket, which keeps descriptors and memory bounded.
const CONNECTIONS_MAX: usize = 512;

/// Pause after `accept` failed for want of descriptors or memory, which a tight loop would not free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `socket` until a fatal error.
///
/// # Errors
/// When the socket cannot be bound, or another agent serves it.
pub async fn run(agent: Arc<Agent>, socket: PathBuf) -> anyhow::Result<()> {
    let listener = bind(&socket).with_context(|| format!("serving {}", socket.display()))?;
    let netlink = Netlink::open()?;
    let mut connections = JoinSet::new();
    loop {
        let full = connections.len() >= CONNECTIONS_MAX;
        let stream = tokio::select! {
            _ = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept(), if !full => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection on agent.sock");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let served = Connection::new(agent.clone(), netlink.clone(), stream);
        connections.spawn(async move {
            if let Err(error) = served.serve().await {
                tracing::debug!(%error, "a connection to agent.sock broke");
            }
        });
    }
}

/// Binds `path` for root alone. The socket gets its mode under another name and is then moved into
/// place, so that nobody else can connect in between, and a stale one is replaced in the same step.
fn bind(path: &Path) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        let what = "another agent serves this socket already";
        return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
    }
    if let Some(directory) = path.parent() {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755).create(directory)?;
    }
    let fresh = path.with_extension("sock.new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
    fs::rename(&fresh, path)?;
    Ok(listener)
}

struct Connection {
    agent: Arc<Agent>,
    netlink: Netlink,
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// Prepared over this connection and not attached yet.
    prepared: BTreeSet<Attachment>,
}

/// What is read of a request that makes no sense, so that its answer can be matched.
#[derive(Default, Deserialize)]
struct IdOnly {
    #[serde(default)]
    id: u64,
}

impl Connection {
    fn new(agent: Arc<Agent>, netlink: Netlink, stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            agent,
            netlink,
            reader: BufReader::new(reader),
            writer,
            prepared: BTreeSet::new(),
        }
    }

    async fn serve(mut self) -> io::Result<()> {
        let result = self.serve_requests().await;
        for attachment in &self.prepared {
            tracing::info!(?attachment, "prepared but never attached: released");
            self.agent.abandon(attachment).await;
        }
        result
    }

    async fn serve_requests(&mut self) -> io::Result<()> {
        // The mode of the socket says the same; this holds where a file system ignores modes.
        let uid = self.reader.get_ref().as_ref().peer_cred()?.uid();
        if uid != 0 {
            let error = ApiError::new(ErrorKind::BadRequest, "only root may talk to the agent");
            return self.answer::<Done>(0, Err(error)).await;
        }
        let mut line = Vec::new();
        while self.read_line(&mut line).await? {
            match serde_json::from_slice::<Request<Op>>(&line) {
                Ok(request) => self.dispatch(request).await?,
                Err(error) => {
                    let IdOnly { id } = serde_json::from_slice(&line).unwrap_or_default();
                    let message = format!("the request cannot be read: {error}");
                    let error = ApiError::new(ErrorKind::BadRequest, message);
                    self.answer::<Done>(id, Err(error)).await?;
                }
            }
        }
        Ok(())
    }

    /// Reads one line; false at the end of the stream, where a line that was cut off counts for
    /// nothing. A line that is too long is answered and ends the connection.
    async fn read_line(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        line.clear();
        let mut limited = (&mut self.reader).take(REQUEST_BYTES_MAX as u64 + 1);
        limited.read_until(b'\n', line).await?;
        if line.len() > REQUEST_BYTES_MAX {
            let message = format!("the request is longer than {REQUEST_BYTES_MAX} bytes");
            let error = ApiError::new(ErrorKind::BadRequest, message);
            self.answer::<Done>(0, Err(error)).await?;
            return Ok(false);
        }
        Ok(line.last() == Some(&b'\n'))
    }

    async fn dispatch(&mut self, request: Request<Op>) -> io::Result<()> {
        let Request { id, body } = request;
        let agent = self.agent.clone();
        match body {
            Op::Prepare(prepare) => {
                // Noted before the call: should this task end within it, nothing is forgotten.
                self.prepared.insert(prepare.attachment.clone());
                let plan = agent.prepare(&prepare).await;
                if plan.is_err() {
                    self.prepared.remove(&prepare.attachment);
                }
                self.answer(id, plan).await
            }
            Op::Attach { attachment } => {
                let done = agent.attach(&attachment).await;
                if done.is_ok() {
                    self.prepared.remove(&attachment);
                }
                self.answer(id, done.map(|()| Done {})).await
            }
            Op::Release { attachment } => {
                let done = agent.release(&attachment).await;
                if done.is_ok() {
                    self.prepared.remove(&attachment);
                }
                self.answer(id, done.map(|()| Done {})).await
            }
            Op::Check { attachment } => {
                let mut checked = agent.check(&attachment).await;
                let port = attachment.port_name();
                checked
                    .problems
                    .extend(pod_port::problems(&self.netlink, &port).await);
                self.answer(id, Ok(checked)).await
            }
            Op::Collect { network, valid } => {
                let collected = agent.collect(&network, &valid).await;
                self.answer(id, Ok(collected)).await
            }
            Op::Ready => self.answer(id, Ok(agent.ready())).await,
            Op::Status => self.answer(id, Ok(agent.status())).await,
        }
    }

    async fn answer<T: Serialize>(
        &mut self,
        id: u64,
        result: Result<T, ApiError>,
    ) -> io::Result<()> {
        let outcome = Outcome::from(result);
        let mut line = serde_json::to_vec(&Response { id, outcome })?;
        line.push(b'\n');
        self.writer.write_all(&line).await
    }
}
