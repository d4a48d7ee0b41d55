//! The agent's connection to the dataplane: requests from any task, answers matched by id.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use weft_api::dataplane::Op;
use weft_api::envelope::{ApiError, ErrorKind, Outcome, Request, Response};
use weft_api::frame::{self, LINE_BYTES_MAX};

/// How long a call waits for a connection: a dataplane that was killed is back within a fraction of
/// it, and the CNI's runtime waits for longer.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// How long an answer may take. Binding a port takes up to 200 ms on a busy machine; one that takes
/// longer than this hangs, and the caller can only try again.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Requests written ahead of the peer reading them.
const QUEUE: usize = 64;

type Pending = HashMap<u64, oneshot::Sender<Outcome<Value>>>;

/// One connection; closed when dropped.
#[derive(Debug)]
pub struct Connection {
    lines: mpsc::Sender<Vec<u8>>,
    /// Callers that wait, by request id; none once the connection is closed.
    pending: Arc<Mutex<Option<Pending>>>,
    next_id: AtomicU64,
    closed: watch::Receiver<bool>,
    tasks: [JoinHandle<()>; 2],
}

impl Connection {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn open(path: &Path) -> io::Result<Self> {
        let (reader, writer) = UnixStream::connect(path).await?.into_split();
        let (lines, queue) = mpsc::channel(QUEUE);
        let pending = Arc::new(Mutex::new(Some(Pending::new())));
        let (close, closed) = watch::channel(false);
        let tasks = [
            tokio::spawn(write_lines(writer, queue)),
            tokio::spawn(read_answers(reader, Arc::clone(&pending), close)),
        ];
        Ok(Self {
            lines,
            pending,
            next_id: AtomicU64::new(1),
            closed,
            tasks,
        })
    }

    /// Sends `op` and waits for its answer.
    ///
    /// # Errors
    /// The dataplane's own error; TryAgain when the connection breaks or no answer comes.
    pub async fn call<A: DeserializeOwned>(&self, op: Op) -> Result<A, ApiError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut line = serde_json::to_vec(&Request { id, body: op })
            .map_err(|e| ApiError::new(ErrorKind::BadRequest, format!("encoding: {e}")))?;
        line.push(b'\n');
        let (answer, answered) = oneshot::channel();
        match lock(&self.pending).as_mut() {
            Some(pending) => pending.insert(id, answer),
            None => return Err(broken()),
        };
        let exchange = async {
            self.lines.send(line).await.map_err(|_| broken())?;
            answered.await.map_err(|_| broken())
        };
        let outcome = tokio::time::timeout(ANSWER_WAIT, exchange).await;
        if let Some(pending) = lock(&self.pending).as_mut() {
            pending.remove(&id);
        }
        let late = || ApiError::new(ErrorKind::TryAgain, "the dataplane does not answer");
        match outcome.map_err(|_| late())?? {
            Outcome::Error(error) => Err(error),
            Outcome::Ok(value) => serde_json::from_value(value).map_err(|error| {
                let message = format!("the dataplane's answer makes no sense: {error}");
                ApiError::new(ErrorKind::Failed, message)
            }),
        }
    }

    /// Waits until the peer is gone.
    pub async fn closed(&self) {
        let mut closed = self.closed.clone();
        // An error means that the reading task is gone, which is the same.
        let _ = closed.wait_for(|closed| *closed).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken() -> ApiError {
    ApiError::new(ErrorKind::TryAgain, "the connection to the dataplane broke")
}

async fn write_lines(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(line) = queue.recv().await {
        // The reading side sees the same breakage and reports it.
        if writer.write_all(&line).await.is_err() {
            return;
        }
    }
}

async fn read_answers(
    reader: OwnedReadHalf,
    pending: Arc<Mutex<Option<Pending>>>,
    close: watch::Sender<bool>,
) {
    let mut reader = BufReader::new(reader);
    loop {
        match read_answer(&mut reader).await {
            Ok(Some(answer)) => {
                let waiting = lock(&pending).as_mut().and_then(|p| p.remove(&answer.id));
                if let Some(waiting) = waiting {
                    // A caller that gave up does not want it any more.
                    let _ = waiting.send(answer.outcome);
                }
            }
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(%error, "the dataplane's answer cannot be read");
                break;
            }
        }
    }
    *lock(&pending) = None;
    close.send_replace(true);
}

async fn read_answer(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Response<Value>>> {
    let mut line = Vec::new();
    let limit = LINE_BYTES_MAX as u64 + 1;
    reader.take(limit).read_until(b'\n', &mut line).await?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => frame::decode(&line).map(Some),
        Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A handle on whatever connection there is; a clone is the same handle.
#[derive(Clone, Debug)]
pub struct Dataplane(watch::Sender<Option<Arc<Connection>>>);

impl Default for Dataplane {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Dataplane {
    /// Sends `op` and waits for its answer; waits a little for a connection when there is none.
    ///
    /// # Errors
    /// The dataplane's own error, or TryAgain when it cannot be reached.
    pub async fn call<A: DeserializeOwned>(&self, op: Op) -> Result<A, ApiError> {
        let mut connections = self.0.subscribe();
        let waited = connections.wait_for(Option::is_some);
        let found = match tokio::time::timeout(CONNECT_WAIT, waited).await {
            Ok(Ok(connection)) => connection.clone(),
            _ => None,
        };
        match found {
            Some(connection) => connection.call(op).await,
            None => Err(unreachable_now()),
        }
    }

    /// The connection, where there is one.
    pub fn connection(&self) -> Option<Arc<Connection>> {
        self.0.borrow().clone()
    }

    /// Lets callers use `connection`, or none.
    pub fn set(&self, connection: Option<Arc<Connection>>) {
        self.0.send_replace(connection);
    }
}

fn unreachable_now() -> ApiError {
    let message = "the dataplane cannot be reached; is weft-dataplane running?";
    ApiError::new(ErrorKind::TryAgain, message)
}
