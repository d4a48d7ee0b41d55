//! Dry runs: what a program would do with a packet (`BPF_PROG_TEST_RUN`).

use libbpf_rs::ProgramInput;
use zerocopy::{FromBytes, IntoBytes};

use crate::Error;
use crate::load::{Program, Programs};
use crate::verdict::{Action, Verdict};

/// Where the packet is said to come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedOn {
    /// An interface of the calling thread's network namespace.
    pub ifindex: u32,
    /// One of its receive queues.
    pub queue: u32,
}

/// What a tunnel adds to a packet.
const TUNNEL_BYTES: usize = 50;

/// How the program decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunResult {
    /// What it returned; none for a value our programs never return.
    pub action: Option<Action>,
    /// What it counted. None when traffic was counted at the same time, so that nobody can tell.
    pub verdict: Option<Verdict>,
    /// The packet as the program left it.
    pub packet: Vec<u8>,
}

/// `struct xdp_md` of `linux/bpf.h`.
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct XdpContext {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// `struct __sk_buff` of `linux/bpf.h`; a dry run takes no more of it than this and needs nothing behind it.
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct BufferContext {
    before: [u32; 10],
    ifindex: u32,
}

impl Programs {
    /// Runs `program` once on `packet`, which is not sent anywhere. It is counted like any other.
    ///
    /// # Errors
    /// When the kernel refuses: a packet shorter than an Ethernet header, no such interface or queue.
    pub fn run(
        &self,
        program: Program,
        packet: &[u8],
        received_on: ReceivedOn,
    ) -> Result<RunResult, Error> {
        let before = self.verdicts()?;
        let is_xdp = matches!(program, Program::Pod | Program::Uplink);
        let mut frame = XdpContext {
            data: 0,
            data_end: u32::try_from(packet.len())
                .map_err(|_| Error::Invalid("the packet is longer than 4 GiB".to_owned()))?,
            data_meta: 0,
            ingress_ifindex: received_on.ifindex,
            rx_queue_index: received_on.queue,
            egress_ifindex: 0,
        };
        let mut buffer = BufferContext {
            before: [0; 10],
            ifindex: received_on.ifindex,
        };
        let context = match is_xdp {
            true => frame.as_mut_bytes(),
            false => buffer.as_mut_bytes(),
        };
        let mut left = vec![0; packet.len() + TUNNEL_BYTES];
        let output = self
            .program(program)?
            .test_run(ProgramInput {
                context_in: Some(context),
                data_in: Some(packet),
                data_out: Some(&mut left),
                ..ProgramInput::default()
            })
            .map_err(|source| Error::Run { program, source })?;
        let action = match is_xdp {
            true => Action::from_xdp(output.return_value),
            false => Action::from_filter(output.return_value),
        };
        let len = output.data.as_deref().map_or(0, <[u8]>::len);
        left.truncate(len);
        Ok(RunResult {
            action,
            verdict: only_change(&before, &self.verdicts()?),
            packet: left,
        })
    }
}

/// The one verdict whose count grew by one.
fn only_change(before: &[(Verdict, u64)], after: &[(Verdict, u64)]) -> Option<Verdict> {
    let mut grown = before.iter().zip(after).filter(|(old, new)| new.1 != old.1);
    let (old, new) = grown.next()?;
    (new.1 == old.1 + 1 && grown.next().is_none()).then_some(new.0)
}
