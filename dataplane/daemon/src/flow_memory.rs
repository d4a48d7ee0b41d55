//! The workers' connections, taken over from the last dataplane.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use weft_engine::FlowTable;
use weft_engine::table::flow::{FlowMemory, Tick};
use weft_keeper::client::KeeperClient;
use weft_keeper::protocol::FlowsRequest;
use weft_xsk::Region;

use crate::shortcut::WorkerParts;
use crate::shortcut_ring::ShortcutNews;
use crate::workers::secret;

/// The table of every worker, and the zero of the clock its times count from.
pub struct Flows {
    /// By worker.
    pub tables: Vec<FlowTable>,
    /// Zero of the workers' clock: that of the monotonic one and not the start of the process, so that
    /// times mean the same to the next process.
    pub clock: Instant,
    /// By worker, how it tells that a connection asks for a shortcut; empty where there are none.
    pub news: Vec<ShortcutNews>,
}

impl Flows {
    /// The connections the last dataplane had, else empty tables of `flows` connections. Whatever goes
    /// wrong with the memory is said, and connections are then picked up as they come.
    ///
    /// # Errors
    /// When the monotonic clock cannot be read.
    pub fn take_over(keeper: &mut KeeperClient, workers: usize, flows: u32) -> Result<Self> {
        let clock = clock_zero()?;
        let mut source = Source {
            keeper,
            workers,
            flows,
            now: Tick::of_ns(clock.elapsed().as_nanos() as u64),
        };
        let tables = (0..workers).map(|worker| source.table_or_empty(worker));
        Ok(Self {
            tables: tables.collect(),
            clock,
            news: Vec::new(),
        })
    }

    /// Goes on with the shortcuts of the last dataplane's connections: what went by them is taken down, and they hold
    /// no longer.
    pub fn use_shortcuts(&mut self, workers: WorkerParts) {
        for (table, (writer, news)) in self.tables.iter_mut().zip(workers) {
            table.use_shortcuts(Box::new(writer));
            self.news.push(news);
        }
    }
}

/// Where the tables are from.
struct Source<'a> {
    keeper: &'a mut KeeperClient,
    workers: usize,
    flows: u32,
    now: Tick,
}

impl Source<'_> {
    fn table_or_empty(&mut self, worker: usize) -> FlowTable {
        self.table(worker, secret()).unwrap_or_else(|error| {
            let error = format!("{error:#}");
            tracing::warn!(
                worker,
                error,
                "connections of this worker will not survive a restart"
            );
            FlowTable::new(self.flows, secret())
        })
    }

    fn table(&mut self, worker: usize, seed: u64) -> Result<FlowTable> {
        let (memory, kept) = self.memory(worker, false)?;
        if !kept {
            tracing::info!(
                worker,
                flows = self.flows,
                "no connections of a dataplane with as many workers and connections; the table is empty"
            );
            return Ok(FlowTable::empty_in(memory, seed));
        }
        match FlowTable::recover(memory, self.now) {
            Ok((table, recovery)) => {
                tracing::info!(worker, ?recovery, "connections found");
                Ok(table)
            }
            Err(error) => {
                tracing::warn!(worker, %error, "cannot use the last dataplane's connections; the table is empty");
                let (memory, _) = self.memory(worker, true)?;
                Ok(FlowTable::empty_in(memory, seed))
            }
        }
    }

    fn memory(&mut self, worker: usize, fresh: bool) -> Result<(FlowMemory, bool)> {
        let bytes = FlowMemory::bytes(self.flows);
        let request = FlowsRequest {
            worker: u16::try_from(worker)?,
            workers: u16::try_from(self.workers)?,
            bytes: bytes as u64,
            fresh,
        };
        let asked = self.keeper.flows(request);
        let (fd, kept) = asked.context("asking the keeper for the memory of connections")?;
        let region = Region::own_memfd(fd.as_fd(), bytes)?;
        Ok((FlowMemory::within(region, self.flows)?, kept))
    }
}

fn clock_zero() -> Result<Instant> {
    let since = clock_gettime(ClockId::CLOCK_MONOTONIC).context("reading the monotonic clock")?;
    let zero = Instant::now().checked_sub(Duration::from(since));
    zero.context("the monotonic clock is behind its zero")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on_from_one_process_to_the_next() {
        let uptime = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
        let elapsed = clock_zero().unwrap().elapsed();
        let ahead = elapsed.saturating_sub(Duration::from(uptime));
        assert!(elapsed >= Duration::from(uptime) && ahead < Duration::from_secs(5));
    }
}
