//! The event loop: one thread, one poll(2), a handful of descriptors.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, umask};
use serde::{Deserialize, Serialize};
use weft_api::envelope::{ApiError, ErrorKind, Outcome};
use weft_api::paths::RunDir;

use crate::broker::{Broker, BrokerError, Descriptor};
use crate::connection::{Connection, Incoming};
use crate::protocol::{
    Done, KeeperStatus, Op, PROTOCOL_VERSION, PortRecord, PortRecords, Reply, Session,
};

/// Clients at once: the dataplane, its successor, a person or two.
const CONNECTIONS_MAX: usize = 16;

/// Pause after a failed accept(2).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a keeper is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its socket and its bpffs go; made if absent.
    pub run_dir: RunDir,
    /// Frames of 4 KiB.
    pub frames: u32,
}

/// Why a keeper cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another keeper runs on this run directory.
    #[error("{path} is in use: another weft-keeper runs there; give this one its own --run-dir")]
    InUse {
        /// The run directory.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("cannot {doing} {path}: {source}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Memory, programs or bpffs.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// poll(2) failed.
    #[error("cannot wait for clients: {0}")]
    Wait(io::Error),
}

/// A running keeper.
pub struct Keeper {
    run_dir: RunDir,
    listener: UnixListener,
    broker: Broker,
    connections: Vec<Connection>,
    /// Sessions so far.
    sessions: u64,
    /// Locked while the keeper lives, so that two never share a run directory.
    _lock: File,
}

/// What a request comes to: a result with descriptors, or an error.
type Outcomes = Result<(serde_json::Value, Vec<Descriptor>), ApiError>;

impl Keeper {
    /// Takes the run directory, makes memory and programs, and listens.
    ///
    /// # Errors
    /// See [`ServerError`]; nothing is left behind.
    pub fn start(options: &Options) -> Result<Self, ServerError> {
        let run_dir = options.run_dir.clone();
        let lock = take(&run_dir)?;
        let broker = Broker::start(options.frames, &run_dir.bpf())?;
        let listener = match listen(&run_dir) {
            Ok(listener) => listener,
            Err(error) => {
                broker.stop();
                return Err(error);
            }
        };
        tracing::info!(
            socket = %run_dir.keeper_socket().display(),
            frames = broker.frames(),
            huge_pages = broker.huge_pages(),
            "ready"
        );
        for feature in broker.features().iter().filter(|feature| !feature.present) {
            tracing::warn!(
                feature = feature.name,
                cost = feature.cost,
                "missing in this kernel"
            );
        }
        Ok(Self {
            run_dir,
            listener,
            broker,
            connections: Vec::new(),
            sessions: 0,
            _lock: lock,
        })
    }

    /// Serves until `stop` is readable, then gives everything up: pods lose their network.
    ///
    /// # Errors
    /// When waiting fails; everything is given up then, too.
    pub fn run(mut self, stop: BorrowedFd<'_>) -> Result<(), ServerError> {
        let result = self.serve(stop);
        tracing::info!("stopping: ports are closed and detached");
        let _ = fs::remove_file(self.run_dir.keeper_socket());
        self.connections.clear();
        self.broker.stop();
        result
    }

    fn serve(&mut self, stop: BorrowedFd<'_>) -> Result<(), ServerError> {
        loop {
            let ready = self.wait(stop).map_err(ServerError::Wait)?;
            if ready.stop {
                return Ok(());
            }
            for index in ready.connections {
                self.attend(index);
            }
            self.connections
                .retain(|connection| !connection.closing || connection.wants_to_send());
            if ready.listener {
                self.accept();
            }
        }
    }

    fn wait(&self, stop: BorrowedFd<'_>) -> io::Result<Ready> {
        let mut fds = vec![
            PollFd::new(stop, PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(self.connections.iter().map(|connection| {
            // While answers are unsent nothing is read; a hang-up is reported either way.
            let wanted = match connection.wants_to_send() {
                true => PollFlags::POLLOUT,
                false => PollFlags::POLLIN,
            };
            PollFd::new(connection.as_fd(), wanted)
        }));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        Ok(Ready {
            stop: is_ready(&fds[0]),
            listener: is_ready(&fds[1]),
            connections: (0..self.connections.len())
                .filter(|index| is_ready(&fds[index + 2]))
                .collect(),
        })
    }

    fn accept(&mut self) {
        let accepted = self
            .listener
            .accept()
            .and_then(|(stream, _)| Connection::new(stream));
        let mut connection = match accepted {
            Ok(connection) => connection,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client");
                // Out of descriptors, perhaps: it waits in the backlog and poll(2) would spin.
                std::thread::sleep(ACCEPT_PAUSE);
                return;
            }
        };
        // The socket is mode 0600 already; this holds even if somebody changes that.
        let refusal = if connection.uid != 0 {
            format!(
                "user {} may not use the keeper, only root may",
                connection.uid
            )
        } else if self.connections.len() >= CONNECTIONS_MAX {
            format!("{CONNECTIONS_MAX} clients are connected already")
        } else {
            self.connections.push(connection);
            return;
        };
        tracing::warn!(
            pid = connection.pid,
            uid = connection.uid,
            "client refused: {refusal}"
        );
        let error = ApiError::new(ErrorKind::Failed, refusal);
        let _ = connection.answer(&reply(0, Err(error)).0, Vec::new());
        let _ = connection.flush();
    }

    /// Reads what a client asks and answers it.
    fn attend(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if connection.wants_to_send() {
            if connection.flush().is_err() {
                self.part(index);
            }
            return;
        }
        if connection.closing {
            return;
        }
        match connection.read() {
            Incoming::Lines(lines) => {
                for line in lines.iter().filter(|line| !line.is_empty()) {
                    self.handle(index, line);
                }
            }
            Incoming::TooLong => {
                let error = ApiError::new(ErrorKind::BadRequest, "the line is too long");
                self.answer(index, 0, Err(error));
                self.connections[index].closing = true;
            }
            Incoming::Closed => self.part(index),
        }
    }

    /// Ends a connection. What its session bound stays.
    fn part(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.abandon();
        if std::mem::take(&mut connection.holds_session) {
            self.broker.drop_held();
            tracing::info!(
                pid = connection.pid,
                ports = self.broker.ports().len(),
                "the dataplane is gone; its ports stay"
            );
        }
    }

    fn handle(&mut self, index: usize, line: &[u8]) {
        let (id, op) = decode(line);
        let outcome = op.and_then(|op| {
            let name = op.name();
            let outcome = self.perform(index, op);
            match &outcome {
                Ok(_) => tracing::debug!(op = name, "done"),
                Err(error) => tracing::warn!(op = name, %error, "refused"),
            }
            outcome
        });
        self.answer(index, id, outcome);
    }

    fn answer(&mut self, index: usize, id: u64, outcome: Outcomes) {
        let (reply, descriptors) = reply(id, outcome);
        let connection = &mut self.connections[index];
        let sent = connection
            .answer(&reply, descriptors)
            .and_then(|()| connection.flush());
        if sent.is_err() {
            self.part(index);
        }
    }

    fn perform(&mut self, index: usize, op: Op) -> Outcomes {
        let needs_session = !matches!(op, Op::Hello { .. } | Op::Status);
        if needs_session && !self.connections[index].holds_session {
            return Err(ApiError::new(
                ErrorKind::BadRequest,
                format!("{} needs a session: say hello first", op.name()),
            ));
        }
        match op {
            Op::Hello { version } => self.hello(index, version),
            Op::Ports => {
                let ports = self.broker.ports();
                result(PortRecords { ports }, self.broker.sockets())
            }
            Op::Bind(request) => {
                let held = request.hold;
                let (record, sockets) = self.broker.bind(request)?;
                if !held {
                    log_bound(&record);
                }
                result(record, sockets)
            }
            Op::Activate { port } => {
                let record = self.broker.activate(port)?;
                log_bound(&record);
                result(record, Vec::new())
            }
            Op::Configure { port, config } => {
                self.broker.configure(port, config)?;
                result(Done {}, Vec::new())
            }
            Op::Unbind { port } => {
                if let Some(record) = self.broker.unbind(port) {
                    tracing::info!(port, interface = record.ifname, "unbound");
                }
                result(Done {}, Vec::new())
            }
            Op::Steer(steering) => {
                self.broker.steer(steering)?;
                result(Done {}, Vec::new())
            }
            Op::Flows(request) => {
                let (record, region) = self.broker.flows(request)?;
                result(record, vec![region])
            }
            Op::Shortcuts => result(Done {}, self.broker.shortcuts()?),
            Op::Status => result(self.status(), Vec::new()),
        }
    }

    fn hello(&mut self, index: usize, version: u32) -> Outcomes {
        if version != PROTOCOL_VERSION {
            return Err(ApiError::new(
                ErrorKind::BadRequest,
                format!(
                    "the keeper speaks version {PROTOCOL_VERSION} of its protocol, not {version}; \
                     upgrade weft-keeper and weft-dataplane to matching releases"
                ),
            ));
        }
        let holder = self
            .connections
            .iter()
            .position(|connection| connection.holds_session);
        if let Some(holder) = holder.filter(|holder| *holder != index) {
            // A process that was just killed may not have been noticed yet.
            if !self.connections[holder].is_hung_up() {
                let pid = self.connections[holder].pid;
                return Err(ApiError::new(
                    ErrorKind::Conflict,
                    format!("the dataplane with process id {pid} holds the ports; stop it first"),
                ));
            }
            self.part(holder);
        }
        if !std::mem::replace(&mut self.connections[index].holds_session, true) {
            self.sessions += 1;
        }
        tracing::info!(
            pid = self.connections[index].pid,
            session = self.sessions,
            "dataplane is here"
        );
        let session = Session {
            version: PROTOCOL_VERSION,
            pid: std::process::id(),
            frames: self.broker.frames(),
            restarts: self.restarts(),
            features: self.broker.features().to_vec(),
        };
        result(session, vec![self.broker.memory()])
    }

    fn status(&self) -> KeeperStatus {
        let holder = self
            .connections
            .iter()
            .find(|connection| connection.holds_session);
        KeeperStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            frames: self.broker.frames(),
            restarts: self.restarts(),
            dataplane: holder.map(|connection| connection.pid),
            ports: self.broker.ports(),
            verdicts: self.broker.verdicts(),
        }
    }

    fn restarts(&self) -> u64 {
        self.sessions.saturating_sub(1)
    }
}

fn log_bound(record: &PortRecord) {
    tracing::info!(
        port = record.id,
        interface = record.ifname,
        queues = record.queues.len(),
        xdp = %record.xdp_mode,
        "bound"
    );
}

/// What poll(2) found.
struct Ready {
    stop: bool,
    listener: bool,
    connections: Vec<usize>,
}

/// Reads a request; its id as far as it can be told.
fn decode(line: &[u8]) -> (u64, Result<Op, ApiError>) {
    let bad = |error: serde_json::Error| {
        ApiError::new(
            ErrorKind::BadRequest,
            format!("this is no request: {error}"),
        )
    };
    let value: serde_json::Value = match serde_json::from_slice(line) {
        Ok(value) => value,
        Err(error) => return (0, Err(bad(error))),
    };
    let id = value
        .get("id")
        .and_then(serde_json::Value::as_u64)
        .unwrap_or(0);
    (id, Op::deserialize(value).map_err(bad))
}

fn result<T: Serialize>(value: T, descriptors: Vec<Descriptor>) -> Outcomes {
    match serde_json::to_value(value) {
        Ok(value) => Ok((value, descriptors)),
        Err(error) => Err(ApiError::new(
            ErrorKind::Failed,
            format!("encoding the answer: {error}"),
        )),
    }
}

fn reply(id: u64, outcome: Outcomes) -> (Reply, Vec<Descriptor>) {
    let (outcome, descriptors) = match outcome {
        Ok((value, descriptors)) => (Outcome::Ok(value), descriptors),
        Err(error) => (Outcome::Error(error), Vec::new()),
    };
    let reply = Reply {
        id,
        descriptors: descriptors.len(),
        outcome,
    };
    (reply, descriptors)
}

/// Makes the run directory ours, or says who has it.
fn take(run_dir: &RunDir) -> Result<File, ServerError> {
    let path = run_dir.path();
    let failed = |doing, path: &std::path::Path| {
        let path = path.to_owned();
        move |source| ServerError::File {
            doing,
            path,
            source,
        }
    };
    fs::create_dir_all(path).map_err(failed("make", path))?;
    let directory = File::open(path).map_err(failed("open", path))?;
    let in_use = || ServerError::InUse {
        path: path.to_owned(),
    };
    directory.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => in_use(),
        fs::TryLockError::Error(source) => failed("lock", path)(source),
    })?;
    // The lock tells about keepers; the socket about anything else that answers there.
    let socket = run_dir.keeper_socket();
    match UnixStream::connect(&socket) {
        Ok(_) => Err(in_use()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(directory),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(&socket).map_err(failed("remove the stale socket", &socket))?;
            Ok(directory)
        }
        Err(source) => Err(failed("look for a keeper at", &socket)(source)),
    }
}

fn listen(run_dir: &RunDir) -> Result<UnixListener, ServerError> {
    let path = run_dir.keeper_socket();
    // The file must never exist with wider permissions, not even for a moment.
    let old = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(&path);
    umask(old);
    let listen = || {
        let listener = listener?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|source| ServerError::File {
        doing: "listen at",
        path,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_lines_get_an_error_with_the_id_they_carry() {
        let cases: [(&[u8], u64); 6] = [
            (b"nonsense", 0),
            (b"[1,2]", 0),
            (b"{\"id\":5}", 5),
            (b"{\"id\":6,\"op\":\"explode\"}", 6),
            (b"{\"id\":7,\"op\":\"unbind\",\"port\":70000}", 7),
            (b"\xff\xfe", 0),
        ];
        for (line, expected) in cases {
            let (id, op) = decode(line);
            assert_eq!(id, expected);
            assert_eq!(op.unwrap_err().kind, ErrorKind::BadRequest);
        }
    }

    #[test]
    fn unknown_fields_are_left_alone() {
        let (id, op) = decode(br#"{"id":8,"op":"unbind","port":7,"later":true}"#);
        assert_eq!((id, op.unwrap()), (8, Op::Unbind { port: 7 }));
    }
}
