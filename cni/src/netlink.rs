//! Blocking rtnetlink: several requests in one system call.
//!
//! The kernel works a netlink datagram off message by message before `sendto` returns, so a whole
//! pod is configured by one send and one receive; an event loop would only add wake-ups.

use std::borrow::Cow;
use std::io;

use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;

use crate::error::Error;

/// Largest datagram the kernel answers a dump with (NLMSG_GOODSIZE is 8 KiB, a reader with a larger
/// buffer gets up to 32 KiB; net/netlink/af_netlink.c, netlink_dump).
const RECEIVE_BYTES: usize = 32 << 10;
/// Length of `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// Set on an answer that carries extended-acknowledgement attributes.
const NLM_F_ACK_TLVS: u16 = 0x200;
/// Attribute with the kernel's sentence about an error.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// One request of a batch.
#[derive(Debug)]
pub(crate) struct Request {
    /// What it does to which object: "add route … to eth0".
    pub(crate) action: Cow<'static, str>,
    /// `NLM_F_*` beyond request and acknowledgement.
    pub(crate) flags: u16,
    /// The message.
    pub(crate) message: RouteNetlinkMessage,
    /// The refusal that is as good as success.
    accepts: Accepts,
}

/// Which refusal of a request is no failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepts {
    None,
    Exists,
    Any,
}

impl Accepts {
    fn code(self, code: i32) -> bool {
        match self {
            Self::None => code == 0,
            Self::Exists => code == 0 || code == -(Errno::EEXIST as i32),
            Self::Any => true,
        }
    }
}

impl Request {
    /// A request that must succeed.
    pub(crate) fn new(
        action: impl Into<Cow<'static, str>>,
        flags: u16,
        message: RouteNetlinkMessage,
    ) -> Self {
        Self {
            action: action.into(),
            flags,
            message,
            accepts: Accepts::None,
        }
    }

    /// The same request, but any refusal will do.
    pub(crate) fn or_not(mut self) -> Self {
        self.accepts = Accepts::Any;
        self
    }

    /// The same request, but it may be there already.
    pub(crate) fn or_exists(mut self) -> Self {
        self.accepts = Accepts::Exists;
        self
    }
}

/// A netlink socket; it stays in the namespace it was opened in.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> Result<Self, Error> {
        let open = || -> io::Result<Socket> {
            let socket = Socket::new(NETLINK_ROUTE)?;
            // Errors come with a sentence, and without a copy of the request.
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|e| Error::io("open a netlink socket", e))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Sends all `requests` at once and waits until all are done. The kernel goes on after a request
    /// it refuses; the first refusal is the error.
    pub(crate) fn batch(&mut self, requests: Vec<Request>) -> Result<(), Error> {
        let Some(last) = requests.len().checked_sub(1) else {
            return Ok(());
        };
        let first_sequence = self.sequence.wrapping_add(1);
        let mut datagram = Vec::with_capacity(4096);
        let mut actions = Vec::with_capacity(requests.len());
        for (i, request) in requests.into_iter().enumerate() {
            // A refusal is answered anyway; success needs an answer only once, at the end.
            let ack = if i == last { NLM_F_ACK } else { 0 };
            self.encode(&mut datagram, request.flags | ack, request.message);
            actions.push((request.action, request.accepts));
        }
        self.send(&datagram)?;
        let mut first_refusal = None;
        loop {
            for answer in split(&self.receive()?) {
                let Some(refusal) = Refusal::of(&answer) else {
                    continue;
                };
                let index = refusal.sequence.wrapping_sub(first_sequence) as usize;
                let Some((action, accepts)) = actions.get(index) else {
                    continue;
                };
                if !accepts.code(refusal.code) && first_refusal.is_none() {
                    first_refusal = Some(Error::Kernel {
                        action: action.to_string(),
                        source: io::Error::from_raw_os_error(-refusal.code),
                        hint: refusal.hint,
                    });
                }
                if index == last {
                    return first_refusal.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Sends one dump request and collects the answers.
    pub(crate) fn dump(
        &mut self,
        action: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        self.get(action, NLM_F_DUMP, message)
    }

    /// Asks for one object.
    pub(crate) fn get(
        &mut self,
        action: &str,
        flags: u16,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let mut datagram = Vec::with_capacity(256);
        self.encode(&mut datagram, flags | NLM_F_ACK, message);
        self.send(&datagram)?;
        let mut found = Vec::new();
        loop {
            for answer in split(&self.receive()?) {
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                if let Some(refusal) = Refusal::of(&answer) {
                    if refusal.code == 0 {
                        return Ok(found);
                    }
                    return Err(Error::Kernel {
                        action: action.to_owned(),
                        source: io::Error::from_raw_os_error(-refusal.code),
                        hint: refusal.hint,
                    });
                }
                match answer.header.message_type {
                    NLMSG_DONE => return Ok(found),
                    // An attribute this library cannot read hides that object only.
                    _ => found.extend(answer.decode()),
                }
            }
        }
    }

    fn encode(&mut self, datagram: &mut Vec<u8>, flags: u16, message: RouteNetlinkMessage) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let start = datagram.len();
        datagram.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut datagram[start..]);
    }

    fn send(&self, datagram: &[u8]) -> Result<(), Error> {
        let kernel = SocketAddr::new(0, 0);
        let sent = self.socket.send_to(datagram, &kernel, 0);
        sent.map(drop).map_err(|e| Error::io("send to netlink", e))
    }

    fn receive(&self) -> Result<Vec<u8>, Error> {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        let received = self.socket.recv(&mut buffer, 0);
        received.map_err(|e| Error::io("receive from netlink", e))?;
        Ok(buffer)
    }
}

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// One message of an answer.
struct Answer<'a> {
    header: NetlinkHeader,
    body: &'a [u8],
}

impl Answer<'_> {
    fn decode(&self) -> Option<RouteNetlinkMessage> {
        RouteNetlinkMessage::deserialize(&self.header, self.body).ok()
    }
}

/// The messages of a datagram; stops at one that does not fit.
fn split(datagram: &[u8]) -> Vec<Answer<'_>> {
    let mut answers = Vec::new();
    let mut rest = datagram;
    while let Some((start, _)) = rest.split_at_checked(HEADER_BYTES) {
        let half = |at: usize| u16::from_ne_bytes([start[at], start[at + 1]]);
        let word = |at: usize| {
            u32::from_ne_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]])
        };
        let length = word(0) as usize;
        let Some(body) = rest.get(HEADER_BYTES..length) else {
            break;
        };
        let mut header = NetlinkHeader::default();
        header.length = word(0);
        header.message_type = half(4);
        header.flags = half(6);
        header.sequence_number = word(8);
        header.port_number = word(12);
        answers.push(Answer { header, body });
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}

/// An NLMSG_ERROR message; code 0 acknowledges.
struct Refusal {
    sequence: u32,
    code: i32,
    hint: Option<String>,
}

impl Refusal {
    fn of(answer: &Answer<'_>) -> Option<Self> {
        if answer.header.message_type != NLMSG_ERROR {
            return None;
        }
        let code = i32::from_ne_bytes(answer.body.get(..4)?.try_into().ok()?);
        // The code, then the request's header alone (NETLINK_CAP_ACK), then attributes.
        let attributes = answer.body.get(4 + HEADER_BYTES..).unwrap_or_default();
        let has_attributes = answer.header.flags & NLM_F_ACK_TLVS != 0;
        Some(Self {
            sequence: answer.header.sequence_number,
            code,
            hint: has_attributes.then(|| sentence(attributes)).flatten(),
        })
    }
}

fn sentence(attributes: &[u8]) -> Option<String> {
    use netlink_packet_core::{Nla, Parseable};
    let mut attributes = NlasIterator::new(attributes).flatten();
    let message = attributes.find(|a| a.kind() == NLMSGERR_ATTR_MSG)?;
    let message = DefaultNla::parse(&message).ok()?;
    let mut text = vec![0; message.value_len()];
    message.emit_value(&mut text);
    let text = String::from_utf8_lossy(&text);
    Some(text.trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::link::{LinkAttribute, LinkMessage};
    use nix::sched::{CloneFlags, unshare};

    fn delete(name: &str) -> Request {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.into()));
        let message = RouteNetlinkMessage::DelLink(link);
        Request::new(format!("delete {name}"), 0, message)
    }

    #[test]
    fn first_refusal_of_a_batch_is_the_error_and_optional_ones_are_none() {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let mut netlink = Netlink::open().unwrap();
        netlink.batch(Vec::new()).unwrap();
        netlink
            .batch(vec![delete("a").or_not(), delete("b").or_not()])
            .unwrap();
        let error = netlink.batch(vec![delete("a").or_not(), delete("b"), delete("c")]);
        let error = error.unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot delete b: No such device"),
            "{error}"
        );
        // The socket is in step again.
        let links = netlink.dump("list", RouteNetlinkMessage::GetLink(LinkMessage::default()));
        assert_eq!(links.unwrap().len(), 1);
    }

    #[test]
    fn kernels_sentence_is_kept() {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let mut link = LinkMessage::default();
        link.header.index = 1;
        link.attributes.push(LinkAttribute::Mtu(1 << 31));
        let request = Request::new("set mtu", 0, RouteNetlinkMessage::SetLink(link));
        let error = Netlink::open().unwrap().batch(vec![request]).unwrap_err();
        assert!(
            matches!(&error, Error::Kernel { hint: Some(_), .. }),
            "{error}"
        );
    }

    #[test]
    fn cut_off_answers_are_left_alone() {
        for bytes in [
            &[][..],
            &[1, 2, 3],
            &[200; 16],
            &[16, 0, 0, 0, 2, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            for answer in split(bytes) {
                assert!(Refusal::of(&answer).is_none());
            }
        }
    }
}
