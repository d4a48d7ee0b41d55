//! Packets traced through the tables in force, for people. The workers have no part in it.

mod describe;
mod words;

use weft_api::dataplane::PortKind;
use weft_api::envelope::{ApiError, ErrorKind};
use weft_api::trace::{Trace, TracePacket, TraceQuestion};
use weft_api::{NODE_PORT, PortName};
use weft_engine::trace::Bench;
use weft_engine::{BORN_MAX, PortId, Tables};

use crate::compile::{self, Compiler};
use crate::control::Control;
use crate::flow_list;
use crate::policy::View;
use crate::ports::{AttachedPort, Ports};

/// Frames for the largest packet, 18, and for as many pieces and answers as a batch may bear.
const BENCH_FRAMES: u32 = BORN_MAX as u32 + 32;

/// What a trace asks: all that the control side knows about the packets' way.
struct Place<'a> {
    ports: &'a Ports,
    compiler: &'a Compiler,
    tables: &'a Tables,
    view: View<'a>,
}

/// What the pipeline would do to a packet.
///
/// # Errors
/// NotFound for an unknown port, pod or node, BadRequest for a packet that cannot be, Failed when a worker does not
/// answer.
pub fn answer(control: &mut Control, question: &TraceQuestion) -> Result<Trace, ApiError> {
    let now_ns = control.clock.elapsed().as_nanos() as u64;
    // Apart from what is borrowed from `control` below.
    let mut bench = match control.trace_bench.take() {
        Some(bench) => bench,
        None => new_bench()?,
    };
    let place = Place {
        ports: &control.ports,
        compiler: &control.compiler,
        tables: &control.publisher.current().tables,
        view: View::of(control),
    };
    let traced = place.trace(&mut bench, question, now_ns);
    let with_connection = traced.and_then(|(trace, headers)| {
        let connection = match headers {
            Some(headers) => flow_list::find(control, &headers)?,
            None => None,
        };
        Ok(Trace {
            connection,
            ..trace
        })
    });
    control.trace_bench = Some(bench);
    with_connection
}

fn new_bench() -> Result<Bench, ApiError> {
    Bench::new(BENCH_FRAMES)
        .ok_or_else(|| ApiError::new(ErrorKind::Failed, "no memory to trace packets in"))
}

fn misuse(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorKind::BadRequest, message)
}

impl Place<'_> {
    /// The trace, and the packet's headers where it has ends that a connection could have.
    fn trace(
        &self,
        bench: &mut Bench,
        question: &TraceQuestion,
        now_ns: u64,
    ) -> Result<(Trace, Option<weft_engine::packet::Headers>), ApiError> {
        let port = self.port(&question.port)?;
        let bytes = match &question.packet {
            TracePacket::Frame { hex } => bytes_of(hex)?,
            TracePacket::Described(description) => self.build(port, description)?,
        };
        let rx = (PortId(port.record.id), compile::kind(port.spec.kind));
        let seen = bench
            .trace(self.tables, rx, &bytes, now_ns)
            .ok_or_else(|| misuse(format!("no packet has {} bytes", bytes.len())))?;
        // Behind the first stages the headers are those of a connection's packet.
        let known = seen.way.end().filter(|it| it.headers.ip_len() > 0);
        let headers = known.map(words::came);
        let trace = Trace {
            port: port.spec.name.clone(),
            way: self.way(&seen.way, seen.verdict),
            born: seen.born.iter().map(|way| self.born(way)).collect(),
            connection: None,
        };
        Ok((trace, headers))
    }

    fn port(&self, asked: &str) -> Result<&AttachedPort, ApiError> {
        let is_meant = |port: &&AttachedPort| {
            let pod = port.spec.pod.as_ref();
            port.spec.name == PortName(asked.to_owned())
                || pod.is_some_and(|pod| pod.to_string() == asked)
                || (asked == NODE_PORT && port.spec.kind == PortKind::Node)
        };
        self.ports.iter().find(is_meant).ok_or_else(|| {
            let message = format!("no port {asked}; `weft port` lists them");
            ApiError::new(ErrorKind::NotFound, message)
        })
    }
}

/// Bytes of hexadecimal digits; white space and colons between them do not matter.
fn bytes_of(hex: &str) -> Result<Vec<u8>, ApiError> {
    let is_digit = |it: &char| !it.is_whitespace() && *it != ':';
    let digits: Vec<u32> = hex
        .chars()
        .filter(is_digit)
        .map(|it| {
            let digit = it.to_digit(16);
            digit.ok_or_else(|| misuse(format!("'{it}' is no hexadecimal digit")))
        })
        .collect::<Result<_, _>>()?;
    if !digits.len().is_multiple_of(2) {
        return Err(misuse(format!(
            "{} hexadecimal digits are no whole bytes",
            digits.len()
        )));
    }
    let pairs = digits.chunks_exact(2);
    Ok(pairs.map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

#[cfg(test)]
mod explained_tests;
#[cfg(test)]
mod tests;
