//! One capture: copies of all workers' taps, in time order as they come, as a pcapng stream.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, Instant, SystemTime};

use weft_api::dataplane::PortKind;
use weft_engine::{DropReason, PortId};

use crate::pcapng::{Record, Writer};
use crate::tap::{Copied, Outcome, TapReader};

/// How long the capture sleeps when no copy waits; also the delay until a live view shows a packet.
const POLL: Duration = Duration::from_millis(20);

/// What the capture calls a port.
pub struct PortLabel {
    /// Interface name.
    pub name: String,
    /// Pod, node or uplink, and the pod's name.
    pub description: String,
}

impl PortLabel {
    /// A label for a port of `kind`.
    pub fn new(name: &str, kind: PortKind, pod: Option<String>) -> Self {
        let description = match (kind, pod) {
            (PortKind::Pod, Some(pod)) => format!("pod {pod}"),
            (PortKind::Pod, None) => "pod".to_owned(),
            (PortKind::Node, _) => "this node's own port".to_owned(),
            (PortKind::Uplink, _) => "uplink".to_owned(),
        };
        Self {
            name: name.to_owned(),
            description,
        }
    }
}

/// A capture under way.
pub struct Capture<W: Write, L> {
    readers: Vec<TapReader>,
    writer: Writer<W>,
    interfaces: BTreeMap<u16, u32>,
    label: L,
    snaplen: u32,
    epoch_ns: u64,
    left: Option<u64>,
}

impl<W: Write, L: Fn(PortId) -> PortLabel> Capture<W, L> {
    /// Starts the stream. `started` is the zero of the workers' clock.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn start(
        out: W,
        readers: Vec<TapReader>,
        label: L,
        snaplen: u32,
        count: Option<u64>,
        started: Instant,
    ) -> io::Result<Self> {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let epoch = now.saturating_sub(started.elapsed());
        let writer = Writer::new(out, concat!("weft ", env!("CARGO_PKG_VERSION")))?;
        let epoch_ns = epoch.as_nanos() as u64;
        Ok(Self {
            readers,
            writer,
            interfaces: BTreeMap::new(),
            label,
            snaplen,
            epoch_ns,
            left: count,
        })
    }

    /// Streams until the limit is reached, the reader of the stream is gone (`closed`), or writing
    /// fails.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn run(mut self, closed: impl Fn() -> bool) -> io::Result<()> {
        self.writer.flush()?;
        while self.left != Some(0) && !closed() {
            let mut some = false;
            for index in 0..self.readers.len() {
                while self.left != Some(0)
                    && let Some(copied) = self.readers[index].next()
                {
                    some = true;
                    self.write(&copied)?;
                }
            }
            if some {
                self.writer.flush()?;
            } else {
                std::thread::sleep(POLL);
            }
        }
        self.writer.flush()
    }

    fn write(&mut self, copied: &Copied) -> io::Result<()> {
        let interface = match self.interfaces.get(&copied.port.0) {
            Some(number) => *number,
            None => {
                let label = (self.label)(copied.port);
                self.writer
                    .interface(&label.name, &label.description, self.snaplen)?;
                let number = self.interfaces.len() as u32;
                self.interfaces.insert(copied.port.0, number);
                number
            }
        };
        let comment = match copied.outcome {
            Outcome::Forwarded(port) => format!("to {}", (self.label)(port).name),
            Outcome::Dropped(reason) => drop_comment(reason),
            Outcome::Consumed => "answered or held by weft".to_owned(),
            Outcome::Merged => "delivered as part of an earlier segment's packet (GRO)".to_owned(),
            Outcome::Sent => String::new(),
        };
        self.left = self.left.map(|left| left - 1);
        self.writer.packet(&Record {
            interface,
            time_ns: self.epoch_ns + copied.time_ns,
            original_len: copied.original_len,
            bytes: &copied.bytes,
            direction: copied.direction,
            comment: &comment,
        })
    }
}

fn drop_comment(reason: DropReason) -> String {
    format!("drop: {} ({})", reason.name(), reason.describe())
}
