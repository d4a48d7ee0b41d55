//! `weft trace PORT --file`: packets of a capture file, each through the tables in force.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use weft_api::client::{Client, ClientError};
use weft_api::dataplane::{Op, PortKind, PortList};
use weft_api::envelope::ErrorKind;
use weft_api::trace::{Trace, TracePacket, TraceQuestion, TraceVerdict};
use weft_api::{NODE_PORT, PortName};
use weft_cli::capture_file::{CaptureFile, CapturedPacket};

use crate::args::{Output, TraceArguments};
use crate::text::grouped;
use crate::{Found, Node, port, trace};

/// What is printed as JSON.
#[derive(Debug, Default, Serialize)]
struct Replay {
    packets: Vec<Replayed>,
    /// Packets left out: sent by the port, or captured at others.
    left_out: u64,
    /// There are more than were asked for.
    more: bool,
}

/// One packet and what would become of it.
#[derive(Debug, Serialize)]
struct Replayed {
    /// In the file, from 1.
    number: u64,
    /// Where it is in the file.
    offset: u64,
    /// Its bytes in the file.
    len: usize,
    /// Its bytes when it was captured.
    original_len: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<Trace>,
    /// Why there is no trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

/// The port the packets come from.
struct Source {
    port: PortName,
    /// Names of the node's other ports: what was captured at those came not from this one.
    others: BTreeSet<String>,
}

/// Traces the packets of the file at `path`.
pub fn run(node: &Node, asked: &TraceArguments, path: &Path) -> anyhow::Result<Found> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("cannot read {shown}"))?;
    let mut file = CaptureFile::open(file).with_context(|| format!("cannot read {shown}"))?;
    let mut client = node.dataplane()?;
    let source = Source::find(&client.call(Op::PortList)?, &asked.port)?;
    let (mut replay, mut ends) = (Replay::default(), Ends::default());
    let broken = loop {
        let packet = match file.packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break None,
            Err(error) => break Some(error),
        };
        if !source.sent(&packet) {
            replay.left_out += 1;
            continue;
        }
        if ends.all() == asked.count {
            replay.more = true;
            break None;
        }
        let replayed = source.trace(&mut client, &packet)?;
        ends.count(&replayed);
        match node.output {
            Output::Table => io::stdout().write_all(render(&replayed).as_bytes())?,
            Output::Json => replay.packets.push(replayed),
        }
    };
    match node.output {
        Output::Table => io::stdout().write_all(summary(&ends, &replay).as_bytes())?,
        Output::Json => node.show(&replay, |_| String::new())?,
    }
    match broken {
        Some(error) => Err(error).with_context(|| format!("cannot read all of {shown}")),
        None if ends.dropped + ends.refused > 0 => Ok(Found::Problem),
        None => Ok(Found::Nothing),
    }
}

/// How the packets would end.
#[derive(Debug, Default)]
struct Ends {
    passed: u64,
    dropped: u64,
    refused: u64,
}

impl Ends {
    fn all(&self) -> u64 {
        self.passed + self.dropped + self.refused
    }

    fn count(&mut self, replayed: &Replayed) {
        let place = match &replayed.trace {
            None => &mut self.refused,
            Some(trace) if trace.way.verdict == TraceVerdict::Drop => &mut self.dropped,
            Some(_) => &mut self.passed,
        };
        *place += 1;
    }
}

impl Source {
    fn find(list: &PortList, asked: &str) -> anyhow::Result<Self> {
        let node_port = list.ports.iter().find(|it| it.kind == PortKind::Node);
        let port = match node_port {
            Some(port) if asked == NODE_PORT => port,
            _ => port::find(list, asked)?,
        };
        let others = list.ports.iter().filter(|it| it.name != port.name);
        Ok(Self {
            port: port.name.clone(),
            others: others.map(|it| it.name.0.clone()).collect(),
        })
    }

    /// Whether the packet may have come from the port.
    fn sent(&self, packet: &CapturedPacket) -> bool {
        let elsewhere = packet.interface.as_ref();
        !packet.outbound && !elsewhere.is_some_and(|name| self.others.contains(name))
    }

    fn trace(&self, client: &mut Client, packet: &CapturedPacket) -> anyhow::Result<Replayed> {
        let mut hex = String::with_capacity(packet.bytes.len() * 2);
        for byte in &packet.bytes {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        let question = TraceQuestion {
            port: self.port.0.clone(),
            packet: TracePacket::Frame { hex },
        };
        let (trace, refused) = match client.call(Op::Trace(question)) {
            Ok(trace) => (Some(trace), None),
            Err(ClientError::Refused(error)) if error.kind == ErrorKind::BadRequest => {
                (None, Some(error.message))
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Replayed {
            number: packet.number,
            offset: packet.offset,
            len: packet.bytes.len(),
            original_len: packet.original_len,
            trace,
            refused,
        })
    }
}

fn render(replayed: &Replayed) -> String {
    let Replayed {
        number,
        offset,
        len,
        original_len,
        ..
    } = *replayed;
    let cut = match len < original_len as usize {
        true => format!(", only {len} of its {original_len} bytes"),
        false => String::new(),
    };
    let told = match (&replayed.trace, &replayed.refused) {
        (Some(trace), _) => trace::render(trace, crate::styled()),
        (None, refused) => format!("  {}\n", refused.as_deref().unwrap_or_default()),
    };
    format!("PACKET {number} at byte {offset}{cut}\n{told}\n")
}

fn summary(ends: &Ends, replay: &Replay) -> String {
    let mut text = format!(
        "{} packets: {} would pass, {} would be dropped",
        grouped(ends.all()),
        grouped(ends.passed),
        grouped(ends.dropped),
    );
    if ends.refused > 0 {
        let _ = write!(text, ", {} are no packets", grouped(ends.refused));
    }
    if replay.left_out > 0 {
        let left_out = grouped(replay.left_out);
        let _ = write!(
            text,
            "; {left_out} left out: they did not come from this port"
        );
    }
    if replay.more {
        text.push_str("; there are more, see --count");
    }
    text.push('\n');
    text
}
