//! One policy log: verdicts of all workers with the names they have now, a JSON document a line.

use std::io::{self, Write};
use std::time::{Duration, Instant, SystemTime};

use weft_api::envelope::ApiError;
use weft_api::explain::{
    PolicyLogEntry, PolicyLogEvent, PolicyLogSpec, PolicyLogVerdict, PolicySide,
};
use weft_engine::{DropReason, PolicyVerdict, Side};

use crate::control::Control;
use crate::policy::View;
use crate::server::{Shared, lock};
use crate::verdict_ring::{Filter, Timed, VerdictReader, verdict_ring};

/// How long the log sleeps when nothing waits; also the delay until a verdict is seen.
const POLL: Duration = Duration::from_millis(20);

/// Verdicts named in one go, while the control side waits.
const ENTRIES_MAX: usize = 64;

/// A log under way.
pub struct PolicyLog {
    readers: Vec<VerdictReader>,
    /// The workers' clock's zero, in nanoseconds since the Unix epoch.
    epoch_ns: u64,
}

impl PolicyLog {
    /// Lets all workers show their verdicts.
    ///
    /// # Errors
    /// NotFound for a pod without address, Failed when a worker ended.
    pub fn start(control: &Control, spec: &PolicyLogSpec) -> Result<Self, ApiError> {
        let addresses = match &spec.pod {
            None => None,
            Some(pod) => Some(View::of(control).addresses(pod)?.into_boxed_slice()),
        };
        let filter = Filter {
            addresses,
            denied: spec.verdict.map(|it| it == PolicyLogVerdict::Denied),
        };
        let mut readers = Vec::new();
        for worker in 0..control.workers.len() {
            let (writer, reader) = verdict_ring(filter.clone());
            control.workers.show_verdicts(worker, writer)?;
            readers.push(reader);
        }
        Ok(Self {
            readers,
            epoch_ns: epoch_ns(control.clock),
        })
    }

    /// Writes until the reader of the stream is gone (`closed`) or writing fails.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn run(
        mut self,
        out: &mut impl Write,
        control: &Shared,
        closed: impl Fn() -> bool,
    ) -> io::Result<()> {
        let mut waiting = Vec::with_capacity(ENTRIES_MAX);
        while !closed() {
            for reader in &mut self.readers {
                let room = ENTRIES_MAX - waiting.len();
                waiting.extend(std::iter::from_fn(|| reader.next()).take(room));
            }
            if waiting.is_empty() {
                let count = self.readers.iter_mut().map(VerdictReader::left_out).sum();
                if count > 0 {
                    weft_api::frame::write_line(out, &PolicyLogEvent::LeftOut { count })?;
                }
                std::thread::sleep(POLL);
                continue;
            }
            waiting.sort_by_key(|timed: &Timed| timed.time_ns);
            // The lock is free again before a reader that is slow can hold us up.
            let entries = {
                let control = lock(control);
                let view = View::of(&control);
                let named = waiting
                    .iter()
                    .map(|timed| entry(timed, self.epoch_ns, &view));
                named.collect::<Vec<_>>()
            };
            waiting.clear();
            for entry in entries {
                weft_api::frame::write_line(out, &PolicyLogEvent::Verdict(Box::new(entry)))?;
            }
        }
        Ok(())
    }
}

/// When the workers' clock began.
fn epoch_ns(clock: Instant) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let began = now.unwrap_or_default().saturating_sub(clock.elapsed());
    began.as_nanos() as u64
}

fn entry(timed: &Timed, epoch_ns: u64, view: &View<'_>) -> PolicyLogEntry {
    let PolicyVerdict {
        connection,
        source_port,
        judgement,
        policy_epoch,
        reason,
    } = timed.verdict;
    // Of other policies' rules the numbers may be others' by now.
    let same = policy_epoch == view.policy_epoch();
    let side = |side: Side| {
        let side = view.side(side);
        let origin = side.origin.filter(|_| same);
        PolicySide { origin, ..side }
    };
    PolicyLogEntry {
        time_ns: epoch_ns + timed.time_ns,
        verdict: match reason {
            None => PolicyLogVerdict::Allowed,
            Some(_) => PolicyLogVerdict::Denied,
        },
        revoked: reason == Some(DropReason::PolicyRevoked),
        source: view.party(connection.source),
        source_port,
        destination: view.party(connection.destination),
        protocol: connection.traffic.protocol().0,
        port: connection.traffic.port(),
        egress: side(judgement.egress),
        ingress: side(judgement.ingress),
    }
}
