//! `weft capture`: packets into a pcapng file.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use weft_api::dataplane::{CaptureSpec, CaptureStarted, Op, PortList};

use crate::args::CaptureArguments;
use crate::pcapng::Blocks;
use crate::text::grouped;
use crate::{Found, Node, port};

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;
/// How often the count on the terminal is renewed.
const REFRESH: Duration = Duration::from_millis(250);

/// Captures until the limit, the end of the dataplane, or a signal.
pub fn run(node: &Node, asked: &CaptureArguments) -> anyhow::Result<Found> {
    let to_stdout = asked.write.as_os_str() == "-";
    if to_stdout && io::stdout().is_terminal() {
        bail!("a capture is binary; pipe it into a program or name a file after -w");
    }
    let mut client = node.dataplane()?;
    let port = match asked.port.as_deref() {
        None => None,
        Some(name) => {
            let list: PortList = client.call(Op::PortList)?;
            Some(port::find(&list, name)?.name.clone())
        }
    };
    let CaptureStarted {} = client.call(Op::Capture(CaptureSpec {
        port,
        snaplen: asked.snaplen,
        count: asked.count,
        drops_only: asked.drops,
    }))?;
    let out: Box<dyn Write> = if to_stdout {
        Box::new(io::stdout().lock())
    } else {
        let shown = asked.write.display();
        let file = File::create(&asked.write);
        Box::new(file.with_context(|| format!("cannot write {shown}"))?)
    };
    let reader = client.into_stream();
    let ahead = reader.buffer().to_vec();
    let mut copy = Copy {
        stream: reader.into_inner(),
        out,
        blocks: Blocks::default(),
        packets: 0,
        shown: Shown::new(),
    };
    let end = copy.run(&ahead);
    copy.shown.finish(copy.packets);
    match end? {
        End::Asked => Ok(Found::Nothing),
        End::Closed if asked.count == Some(copy.packets) => Ok(Found::Nothing),
        End::Closed => {
            bail!("the dataplane ended the capture; what came before is in the file")
        }
    }
}

/// Why a capture ended.
enum End {
    /// A signal, or the reader of our output went away.
    Asked,
    /// The dataplane closed the stream.
    Closed,
}

struct Copy {
    stream: UnixStream,
    out: Box<dyn Write>,
    blocks: Blocks,
    packets: u64,
    shown: Shown,
}

impl Copy {
    fn run(&mut self, ahead: &[u8]) -> anyhow::Result<End> {
        let signals = signals().context("cannot wait for signals")?;
        // The signal is waited for beside the socket, so reading must not block.
        self.stream.set_nonblocking(true)?;
        if !self.write(ahead)? {
            return Ok(End::Asked);
        }
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(End::Closed),
                Ok(length) => {
                    if !self.write(&buffer[..length])? {
                        return Ok(End::Asked);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if self.wait(&signals)? {
                        return Ok(End::Asked);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).context("the connection to the dataplane broke"),
            }
            if signals.read_signal()?.is_some() {
                return Ok(End::Asked);
            }
        }
    }

    /// Writes whole blocks only; false when nobody reads our output any more.
    fn write(&mut self, received: &[u8]) -> anyhow::Result<bool> {
        let whole = self.blocks.push(received)?;
        if !whole.bytes.is_empty() {
            let written = self
                .out
                .write_all(&whole.bytes)
                .and_then(|()| self.out.flush());
            match written {
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
                other => other.context("cannot write the capture")?,
            }
        }
        self.packets += whole.packets;
        self.shown.renew(self.packets);
        Ok(true)
    }

    /// Waits for packets; true when a signal came.
    fn wait(&mut self, signals: &SignalFd) -> anyhow::Result<bool> {
        let mut awaited = [
            PollFd::new(self.stream.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut awaited, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for packets"),
        }
        Ok(signals.read_signal()?.is_some())
    }
}

/// Ctrl-C and termination as something to wait for, instead of a sudden end.
fn signals() -> nix::Result<SignalFd> {
    use nix::sys::signalfd::SfdFlags;
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// The count on stderr.
struct Shown {
    live: bool,
    last: Option<Instant>,
}

impl Shown {
    fn new() -> Self {
        Self {
            live: io::stderr().is_terminal(),
            last: None,
        }
    }

    fn renew(&mut self, packets: u64) {
        if self.live && self.last.is_none_or(|last| last.elapsed() >= REFRESH) {
            self.last = Some(Instant::now());
            eprint!("\r{} packets", grouped(packets));
        }
    }

    fn finish(&self, packets: u64) {
        let start = if self.live { "\r" } else { "" };
        eprintln!("{start}{} packets captured", grouped(packets));
    }
}
