//! A small blocking client of a control socket, for the CNI plugin and the `weft` command.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::envelope::{ApiError, Outcome, Request, Response};
use crate::frame;

/// Why a call did not give a result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens at the socket.
    #[error("cannot reach {name} at {path}: {source}; is it running, and is --run-dir right?")]
    Connect {
        /// The process expected there.
        name: &'static str,
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The connection broke or the answer makes no sense.
    #[error("{name} broke the connection: {source}")]
    Broken {
        /// The process at the other end.
        name: &'static str,
        /// What went wrong.
        source: io::Error,
    },
    /// The peer answered with an error.
    #[error(transparent)]
    Refused(#[from] ApiError),
}

/// One connection; calls are answered in order.
pub struct Client {
    name: &'static str,
    stream: BufReader<UnixStream>,
    next_id: u64,
}

impl Client {
    /// Connects to the process called `name` (for error messages) at `path`.
    ///
    /// # Errors
    /// [`ClientError::Connect`] when nobody listens there.
    pub fn connect(
        name: &'static str,
        path: &Path,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        let open = || -> io::Result<UnixStream> {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            Ok(stream)
        };
        let stream = open().map_err(|source| ClientError::Connect {
            name,
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            name,
            stream: BufReader::new(stream),
            next_id: 1,
        })
    }

    /// Sends one request and waits for its answer.
    ///
    /// # Errors
    /// [`ClientError::Broken`] when the connection fails or times out, [`ClientError::Refused`]
    /// with the peer's own error.
    pub fn call<Q: Serialize, A: DeserializeOwned>(&mut self, body: Q) -> Result<A, ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        let name = self.name;
        let broken = |source| ClientError::Broken { name, source };
        frame::write_line(self.stream.get_mut(), &Request { id, body }).map_err(broken)?;
        let answer: Option<Response<A>> = frame::read_line(&mut self.stream).map_err(broken)?;
        match answer {
            Some(Response {
                outcome: Outcome::Error(error),
                ..
            }) => Err(error.into()),
            Some(Response {
                id: answered,
                outcome: Outcome::Ok(value),
            }) if answered == id => Ok(value),
            Some(_) => Err(broken(io::Error::new(
                io::ErrorKind::InvalidData,
                "an answer to another request",
            ))),
            None => Err(broken(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// The stream behind the calls, for an answer that is followed by bytes (a capture). What was
    /// read ahead is in the reader.
    pub fn into_stream(self) -> BufReader<UnixStream> {
        self.stream
    }
}
