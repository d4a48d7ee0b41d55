//! One client: its unread lines, its unsent answers.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use weft_api::frame::LINE_BYTES_MAX;

use crate::broker::Descriptor;
use crate::passing;
use crate::protocol::{DESCRIPTORS_PER_MESSAGE, Reply};

/// Read at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// Bytes to send, and the descriptors that go with the first of them.
struct Message {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<Descriptor>,
}

/// A connected client.
pub(crate) struct Connection {
    stream: UnixStream,
    /// Process id of who connected.
    pub(crate) pid: u32,
    /// User id of who connected.
    pub(crate) uid: u32,
    /// The one dataplane's connection.
    pub(crate) holds_session: bool,
    unread: Vec<u8>,
    unsent: VecDeque<Message>,
    /// Nothing more is read; the connection ends once everything is sent.
    pub(crate) closing: bool,
}

/// What reading brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// Whole lines, without their newlines.
    Lines(Vec<Vec<u8>>),
    /// A line beyond the limit.
    TooLong,
    /// The client has gone.
    Closed,
}

impl Connection {
    /// Takes over an accepted stream.
    ///
    /// # Errors
    /// When its credentials cannot be read.
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let peer = getsockopt(&stream, PeerCredentials)?;
        Ok(Self {
            stream,
            pid: peer.pid().cast_unsigned(),
            uid: peer.uid(),
            holds_session: false,
            unread: Vec::new(),
            unsent: VecDeque::new(),
            closing: false,
        })
    }

    /// True when there are answers to send. Until they are sent nothing more is read, so a client
    /// that asks without listening fills no memory.
    pub(crate) fn wants_to_send(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// True when the client's end is closed, whether or not that was read yet.
    pub(crate) fn is_hung_up(&self) -> bool {
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
        let mut fds = [PollFd::new(self.as_fd(), gone)];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(_) => fds[0].any().unwrap_or(true),
            Err(_) => false,
        }
    }

    /// Gives up on a client that is gone: nothing is read or sent any more.
    pub(crate) fn abandon(&mut self) {
        self.closing = true;
        self.unsent.clear();
    }

    /// Reads what is there.
    pub(crate) fn read(&mut self) -> Incoming {
        let mut chunk = [0; CHUNK_BYTES];
        match self.stream.read(&mut chunk) {
            Ok(0) => Incoming::Closed,
            Ok(len) => self.take_lines(&chunk[..len]),
            Err(error) if is_temporary(&error) => Incoming::Lines(Vec::new()),
            Err(_) => Incoming::Closed,
        }
    }

    fn take_lines(&mut self, bytes: &[u8]) -> Incoming {
        let mut lines = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.unread.len() + part.len() > LINE_BYTES_MAX {
                return Incoming::TooLong;
            }
            self.unread.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.unread.pop();
                lines.push(std::mem::take(&mut self.unread));
            }
        }
        Incoming::Lines(lines)
    }

    /// Queues an answer.
    pub(crate) fn answer(&mut self, reply: &Reply, descriptors: Vec<Descriptor>) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(reply)?;
        bytes.push(b'\n');
        let mut rest = descriptors.into_iter();
        loop {
            let batch: Vec<Descriptor> = rest.by_ref().take(DESCRIPTORS_PER_MESSAGE).collect();
            let last = batch.len() < DESCRIPTORS_PER_MESSAGE;
            if !batch.is_empty() || bytes.len() > 1 {
                self.unsent.push_back(Message {
                    bytes,
                    sent: 0,
                    descriptors: batch,
                });
            }
            if last {
                return Ok(());
            }
            // Further descriptors need a byte to travel with: an empty line.
            bytes = vec![b'\n'];
        }
    }

    /// Sends what the client takes.
    ///
    /// # Errors
    /// When it has gone.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while let Some(message) = self.unsent.front_mut() {
            let descriptors: Vec<BorrowedFd<'_>> = match message.sent {
                0 => message.descriptors.iter().map(AsFd::as_fd).collect(),
                _ => Vec::new(),
            };
            match passing::send(&self.stream, &message.bytes[message.sent..], &descriptors) {
                Ok(sent) => message.sent += sent,
                Err(error) if is_temporary(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
            if message.sent == message.bytes.len() {
                self.unsent.pop_front();
            }
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::rc::Rc;
    use weft_api::envelope::Outcome;

    fn pair() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Connection::new(ours).unwrap(), theirs)
    }

    fn file() -> Descriptor {
        let file = std::fs::File::open("/dev/null").unwrap();
        Descriptor::Memory(Rc::new(OwnedFd::from(file)))
    }

    fn reply(text: &str) -> Reply {
        Reply {
            id: 1,
            descriptors: 0,
            outcome: Outcome::Ok(text.into()),
        }
    }

    #[test]
    fn lines_are_put_together_from_pieces() {
        let (mut connection, mut client) = pair();
        client.write_all(b"one\ntw").unwrap();
        assert_eq!(connection.read(), Incoming::Lines(vec![b"one".to_vec()]));
        client.write_all(b"o\n\nthree\n").unwrap();
        let rest = [b"two".to_vec(), Vec::new(), b"three".to_vec()];
        assert_eq!(connection.read(), Incoming::Lines(rest.to_vec()));
        drop(client);
        assert_eq!(connection.read(), Incoming::Closed);
    }

    #[test]
    fn an_endless_line_is_cut_off() {
        let (mut connection, _client) = pair();
        let chunk = [b'x'; CHUNK_BYTES];
        for _ in 0..LINE_BYTES_MAX / CHUNK_BYTES {
            assert_eq!(connection.take_lines(&chunk), Incoming::Lines(Vec::new()));
        }
        assert_eq!(connection.take_lines(b"x"), Incoming::TooLong);
    }

    #[test]
    fn descriptors_arrive_in_order_and_in_bounded_messages() {
        for count in [0, 1, 63, 64, 65, 128, 200] {
            let (mut connection, client) = pair();
            connection
                .answer(
                    &reply("x"),
                    std::iter::repeat_with(file).take(count).collect(),
                )
                .unwrap();
            connection.flush().unwrap();
            assert!(!connection.wants_to_send());
            drop(connection);
            let (mut bytes, mut received) = (Vec::new(), VecDeque::new());
            let mut buffer = [0; 4096];
            loop {
                let before = received.len();
                let len = passing::receive(&client, &mut buffer, &mut received).unwrap();
                assert!(received.len() - before <= DESCRIPTORS_PER_MESSAGE);
                bytes.extend_from_slice(&buffer[..len]);
                if len == 0 {
                    break;
                }
            }
            assert_eq!(received.len(), count);
            let text = String::from_utf8(bytes).unwrap();
            assert_eq!(text.trim_end(), r#"{"id":1,"descriptors":0,"ok":"x"}"#);
        }
    }

    #[test]
    fn a_client_that_does_not_listen_is_not_waited_for() {
        let (mut connection, client) = pair();
        let long = "y".repeat(4 << 20);
        connection.answer(&reply(&long), vec![file()]).unwrap();
        connection.flush().unwrap();
        assert!(connection.wants_to_send());
        let (mut received, mut buffer, mut len) = (VecDeque::new(), vec![0; 1 << 20], 0);
        while connection.wants_to_send() {
            len += passing::receive(&client, &mut buffer, &mut received).unwrap();
            connection.flush().unwrap();
        }
        assert!(len > 0);
        assert_eq!(received.len(), 1, "the descriptor is sent once only");
    }
}
