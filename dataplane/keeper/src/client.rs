//! The dataplane's side of `keeper.sock`: blocking, one call at a time.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use weft_api::envelope::{ApiError, ErrorKind, Outcome, Request};
use weft_api::frame::LINE_BYTES_MAX;
use weft_xdp_progs::ShortcutMaps;

use crate::passing;
use crate::protocol::{
    BindRequest, Done, FlowsRecord, FlowsRequest, KeeperStatus, Op, PROTOCOL_VERSION, PortRecord,
    PortRecords, Reply, Session, Steering,
};

/// How long an answer may take. A bind of many queues waits up to 200 ms for each.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two attempts to connect.
const CONNECT_PAUSE: Duration = Duration::from_millis(5);

/// Why a call gave no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("cannot reach weft-keeper at {path}: {source}; is it running, and is --run-dir right?")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("weft-keeper broke the connection while {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What went wrong.
        source: io::Error,
    },
    /// The keeper said no; nothing was changed.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// The keeper's answer makes no sense.
    #[error("weft-keeper answered nonsense: {0}")]
    Protocol(String),
}

/// A bound interface with its sockets: `sockets[i]` belongs to `record.queues[i]`.
#[derive(Debug)]
pub struct Port {
    /// What it is.
    pub record: PortRecord,
    /// Its sockets, open until dropped.
    pub sockets: Vec<OwnedFd>,
    /// Its packet socket, if the record says there is one.
    pub packet_socket: Option<OwnedFd>,
}

/// A connection that holds the session. When it is dropped, everything bound stays with the keeper.
#[derive(Debug)]
pub struct KeeperClient {
    channel: Channel,
    session: Session,
    memory: OwnedFd,
}

impl KeeperClient {
    /// Connects and takes the session. Waits up to `patience` for a keeper that is just starting, and
    /// for a predecessor that is just dying.
    ///
    /// # Errors
    /// [`ClientError::Connect`]; [`ClientError::Refused`] with `Conflict` when another dataplane lives.
    pub fn connect(path: &Path, patience: Duration) -> Result<Self, ClientError> {
        let deadline = Instant::now() + patience;
        loop {
            match Self::try_connect(path) {
                Err(error) if may_pass(&error) && Instant::now() < deadline => {
                    std::thread::sleep(CONNECT_PAUSE);
                }
                result => return result,
            }
        }
    }

    fn try_connect(path: &Path) -> Result<Self, ClientError> {
        let mut channel = Channel::connect(path)?;
        let hello = Op::Hello {
            version: PROTOCOL_VERSION,
        };
        let (session, mut descriptors) = channel.call::<Session>(hello)?;
        let memory = descriptors.pop_front().ok_or_else(|| {
            ClientError::Protocol("hello came without the memory's descriptor".to_owned())
        })?;
        Ok(Self {
            channel,
            session,
            memory,
        })
    }

    /// Asks how the keeper is, without taking the session.
    ///
    /// # Errors
    /// As for every call.
    pub fn query(path: &Path) -> Result<KeeperStatus, ClientError> {
        Ok(Channel::connect(path)?.call(Op::Status)?.0)
    }

    /// What hello answered.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The UMEM's memfd.
    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// Everything bound, by id: what the last dataplane left.
    ///
    /// # Errors
    /// As for every call.
    pub fn ports(&mut self) -> Result<Vec<Port>, ClientError> {
        let (records, mut sockets) = self.channel.call::<PortRecords>(Op::Ports)?;
        let ports = records
            .ports
            .into_iter()
            .map(|record| with_sockets(record, &mut sockets));
        ports.collect()
    }

    /// Binds an interface.
    ///
    /// # Errors
    /// As for every call; nothing stays then.
    pub fn bind(&mut self, request: &BindRequest) -> Result<Port, ClientError> {
        let (record, mut sockets) = self.channel.call::<PortRecord>(Op::Bind(request.clone()))?;
        with_sockets(record, &mut sockets)
    }

    /// Binds and attaches a port that was bound with `hold`, once its sockets are mapped.
    ///
    /// # Errors
    /// As for every call; the port stays held then.
    pub fn activate(&mut self, id: u16) -> Result<PortRecord, ClientError> {
        let (record, _) = self.channel.call(Op::Activate { port: id })?;
        Ok(record)
    }

    /// Replaces a port's description, which the keeper holds for the next dataplane.
    ///
    /// # Errors
    /// As for every call; `NotFound` for an unknown port.
    pub fn configure(&mut self, id: u16, config: &serde_json::Value) -> Result<(), ClientError> {
        let config = config.clone();
        self.done(Op::Configure { port: id, config })
    }

    /// Gives a port up: its program is detached. Unknown ids and interfaces that are gone are success.
    /// The kernel frees the queue once the caller's descriptors and mappings are gone, too.
    ///
    /// # Errors
    /// As for every call.
    pub fn unbind(&mut self, id: u16) -> Result<(), ClientError> {
        self.done(Op::Unbind { port: id })
    }

    /// Says what the uplinks take: the whole state, not a change.
    ///
    /// # Errors
    /// As for every call; `BadRequest` beyond a limit.
    pub fn steer(&mut self, steering: &Steering) -> Result<(), ClientError> {
        self.done(Op::Steer(steering.clone()))
    }

    /// Memory for the connections of a worker, and whether an earlier dataplane had it.
    ///
    /// # Errors
    /// As for every call; `BadRequest` from a keeper that does not know of it.
    pub fn flows(&mut self, request: FlowsRequest) -> Result<(OwnedFd, bool), ClientError> {
        let (record, mut descriptors) = self.channel.call::<FlowsRecord>(Op::Flows(request))?;
        let region = descriptors.pop_front().ok_or_else(|| {
            ClientError::Protocol("memory for connections came without its descriptor".to_owned())
        })?;
        Ok((region, record.kept))
    }

    /// The maps of shortcuts, as the last dataplane left them.
    ///
    /// # Errors
    /// As for every call; `BadRequest` from a keeper that does not know of them.
    pub fn shortcuts(&mut self) -> Result<ShortcutMaps, ClientError> {
        let nonsense = |what: String| ClientError::Protocol(format!("shortcuts: {what}"));
        let (Done {}, descriptors) = self.channel.call(Op::Shortcuts)?;
        let descriptors = Vec::from(descriptors).try_into();
        let descriptors =
            descriptors.map_err(|all: Vec<OwnedFd>| nonsense(format!("{} maps", all.len())))?;
        ShortcutMaps::open(descriptors).map_err(|error| nonsense(error.to_string()))
    }

    /// How the keeper is.
    ///
    /// # Errors
    /// As for every call.
    pub fn status(&mut self) -> Result<KeeperStatus, ClientError> {
        Ok(self.channel.call(Op::Status)?.0)
    }

    fn done(&mut self, op: Op) -> Result<(), ClientError> {
        self.channel.call::<Done>(op).map(|_| ())
    }
}

/// Readable or hung up when the keeper is gone.
impl AsFd for KeeperClient {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.stream.as_fd()
    }
}

fn with_sockets(record: PortRecord, sockets: &mut VecDeque<OwnedFd>) -> Result<Port, ClientError> {
    let expected = record.queues.len() + usize::from(record.packet_socket);
    if sockets.len() < expected {
        return Err(ClientError::Protocol(format!(
            "port {} came with {} of {expected} sockets",
            record.id,
            sockets.len(),
        )));
    }
    let queues = sockets.drain(..record.queues.len()).collect();
    let packet_socket = match record.packet_socket {
        true => sockets.pop_front(),
        false => None,
    };
    Ok(Port {
        record,
        sockets: queues,
        packet_socket,
    })
}

/// Nobody there yet, or somebody not gone yet.
fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Connect { source, .. } => matches!(
            source.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        ),
        ClientError::Refused(error) => error.kind == ErrorKind::Conflict,
        // A keeper that is being replaced.
        ClientError::Io { .. } => true,
        ClientError::Protocol(_) => false,
    }
}

/// Requests and answers, with descriptors.
#[derive(Debug)]
struct Channel {
    stream: UnixStream,
    next_id: u64,
    unread: Vec<u8>,
}

impl Channel {
    fn connect(path: &Path) -> Result<Self, ClientError> {
        let open = || {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
            stream.set_write_timeout(Some(ANSWER_PATIENCE))?;
            Ok(stream)
        };
        let stream = open().map_err(|source| ClientError::Connect {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            stream,
            next_id: 1,
            unread: Vec::new(),
        })
    }

    fn call<A: DeserializeOwned>(&mut self, op: Op) -> Result<(A, VecDeque<OwnedFd>), ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        let nonsense = |error: serde_json::Error| ClientError::Protocol(error.to_string());
        let mut line = serde_json::to_vec(&Request { id, body: op }).map_err(nonsense)?;
        line.push(b'\n');
        // A keeper that refuses the connection says why before it hangs up, so a failure to write is
        // reported only when there is nothing to read.
        let written = self.stream.write_all(&line);
        let (reply, descriptors) = self.answer().map_err(|source| ClientError::Io {
            doing: if written.is_err() {
                "sending a request"
            } else {
                "waiting for an answer"
            },
            source,
        })?;
        match reply.outcome {
            Outcome::Error(error) => Err(error.into()),
            Outcome::Ok(_) if reply.id != id => Err(ClientError::Protocol(format!(
                "request {id} was answered as {}",
                reply.id
            ))),
            Outcome::Ok(value) => Ok((
                serde_json::from_value(value).map_err(nonsense)?,
                descriptors,
            )),
        }
    }

    /// The next line and all descriptors it announces.
    fn answer(&mut self) -> io::Result<(Reply, VecDeque<OwnedFd>)> {
        let mut descriptors = VecDeque::new();
        let line = loop {
            if let Some(line) = self.take_line() {
                break line;
            }
            self.receive(&mut descriptors)?;
        };
        let reply: Reply = serde_json::from_slice(&line)?;
        while descriptors.len() < reply.descriptors {
            self.receive(&mut descriptors)?;
        }
        Ok((reply, descriptors))
    }

    /// The first whole line that is not empty; empty ones only carried descriptors.
    fn take_line(&mut self) -> Option<Vec<u8>> {
        loop {
            let end = self.unread.iter().position(|byte| *byte == b'\n')?;
            let mut line: Vec<u8> = self.unread.drain(..=end).collect();
            line.pop();
            if !line.is_empty() {
                return Some(line);
            }
        }
    }

    fn receive(&mut self, descriptors: &mut VecDeque<OwnedFd>) -> io::Result<()> {
        if self.unread.len() > LINE_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the answer is too long",
            ));
        }
        let mut buffer = [0; 64 << 10];
        let len = passing::receive(&self.stream, &mut buffer, descriptors)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.unread.extend_from_slice(&buffer[..len]);
        Ok(())
    }
}
