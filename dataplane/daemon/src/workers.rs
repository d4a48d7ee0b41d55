//! The worker threads as the control side holds them.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rtrb::{Consumer, RingBuffer};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
};
use weft_engine::{
    BackendId, FlowInfo, PORTS_MAX, Pipeline, PipelineConfig, PmtuReport, PolicyCounters, PortId,
    RuleId,
};
use weft_snapshot::{Publisher, SharedCounters};
use weft_xsk::{FramePool, Umem};

use crate::config::Tuning;
use crate::flow_memory::Flows;
use crate::handoff::Handoffs;
use crate::mailbox::{Answer, Outbox, answer, mailbox};
use crate::queue::Queue;
use crate::snapshot::Snapshot;
use crate::tap::Tap;
use crate::verdict_ring::VerdictWriter;
use crate::waiter::{Bell, Waiter};
use crate::worker::{Account, Command, FlowScan, Parts, Worker};
use crate::worker_counters::{WORKER_COUNTERS, WorkerReading};

/// How long the control side waits for a worker's answer. A worker answers between two rounds, in
/// well under a millisecond; past this bound it is dead or its core is taken away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// ICMP reports of a worker that may wait for the control side.
const REPORTS_MAX: usize = 64;

/// Backends a worker is asked for at once: some 50 us of its time.
const BACKENDS_PER_LOOK: usize = 1024;

/// Places of the flow table a worker looks at between two rounds: some 20 us.
const FLOWS_PER_LOOK: usize = 256;

/// Connections whose shortcuts a worker reads between two rounds: some 30 us.
const SHORTCUTS_PER_LOOK: u32 = 256;

/// One running worker.
pub struct WorkerHandle {
    /// Core it is pinned to.
    pub core: Option<usize>,
    commands: Outbox<Command>,
    reports: Mutex<Consumer<PmtuReport>>,
    bell: Bell,
    counters: Arc<SharedCounters>,
    port_drops: Arc<SharedCounters>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// A secret number for tables whose keys come from the network. The standard library seeds its maps
/// from the kernel; an empty hash of one gives the seed away to nobody.
pub fn secret() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A worker that does not answer.
#[derive(Debug, thiserror::Error)]
#[error("worker {0} does not answer")]
pub struct Unresponsive(usize);

/// All workers.
pub struct Workers(Vec<WorkerHandle>);

impl Workers {
    /// Starts one worker per element of `cores`, each with its part of `pool` and its table of `flows`.
    ///
    /// # Errors
    /// What the kernel says to epoll, eventfd and thread creation.
    pub fn start(
        cores: &[Option<usize>],
        tuning: &Tuning,
        umem: &Arc<Umem>,
        pool: FramePool,
        flows: Flows,
        publisher: &mut Publisher<Snapshot>,
    ) -> io::Result<Self> {
        let waiters = cores
            .iter()
            .map(|_| Waiter::new())
            .collect::<io::Result<Vec<_>>>()?;
        let bells = waiters
            .iter()
            .map(Waiter::bell)
            .collect::<io::Result<Vec<_>>>()?;
        let mesh = Handoffs::mesh(&bells)?;
        let pools = share(pool, cores.len(), umem);
        let mut handles = Vec::new();
        let mut news = flows.news.into_iter();
        let parts = cores
            .iter()
            .zip(waiters)
            .zip(bells)
            .zip(mesh)
            .zip(pools)
            .zip(flows.tables);
        for (id, (((((core, waiter), bell), handoffs), pool), table)) in parts.enumerate() {
            let (commands, inbox) = mailbox();
            let (reporter, reports) = RingBuffer::new(REPORTS_MAX);
            let counters = Arc::new(SharedCounters::new(WORKER_COUNTERS));
            let port_drops = Arc::new(SharedCounters::new(PORTS_MAX));
            let worker = Worker::new(Parts {
                id: id as u16,
                tuning: tuning.clone(),
                umem: Arc::clone(umem),
                pool,
                pipeline: Pipeline::with_flows(
                    PipelineConfig {
                        hash_seed: secret(),
                        worker: id as u16,
                        workers: cores.len() as u16,
                        ..PipelineConfig::default()
                    },
                    table,
                ),
                tables: publisher.subscribe(),
                handoffs,
                waiter,
                commands: inbox,
                counters: Arc::clone(&counters),
                port_drops: Arc::clone(&port_drops),
                reports: reporter,
                shortcuts: news.next(),
                clock: flows.clock,
            });
            let thread = spawn(id, *core, tuning.priority, worker)?;
            handles.push(WorkerHandle {
                core: *core,
                commands,
                reports: Mutex::new(reports),
                bell,
                counters,
                port_drops,
                thread: Some(thread),
            });
        }
        Ok(Self(handles))
    }

    /// Wakes every worker, so that none keeps an old snapshot while it sleeps.
    pub fn ring_all(&self) {
        for handle in &self.0 {
            handle.bell.ring();
        }
    }

    /// Number of workers.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Gives a queue to a worker; frames are lent when this returns.
    ///
    /// # Errors
    /// A worker that does not answer.
    pub fn attach(&self, worker: u16, slot: u16, queue: Box<Queue>) -> Result<(), Unresponsive> {
        self.ask(usize::from(worker), |done| {
            Command::Attach(slot, queue, done)
        })
    }

    /// Takes a queue from a worker; its socket is closed in this process when this returns.
    ///
    /// # Errors
    /// A worker that does not answer.
    pub fn detach(&self, worker: u16, slot: u16) -> Result<(), Unresponsive> {
        let queue = self.ask(usize::from(worker), |done| Command::Detach(slot, done))?;
        drop(queue);
        Ok(())
    }

    /// Lets every worker forget `port`; the first takes over the frames its closed queues held.
    ///
    /// # Errors
    /// A worker that does not answer.
    pub fn forget(&self, port: PortId, frames: FramePool, umem: &Umem) -> Result<(), Unresponsive> {
        let mut frames = Some(frames);
        for index in 0..self.0.len() {
            let frames = frames.take().unwrap_or_else(|| FramePool::empty(umem));
            self.ask(index, |done| Command::Forget(port, Box::new(frames), done))?;
        }
        Ok(())
    }

    /// Gives a tap to one worker.
    ///
    /// # Errors
    /// A worker that ended.
    pub fn tap(&self, worker: usize, tap: Tap) -> Result<(), Unresponsive> {
        self.tell(worker, Command::Tap(Box::new(tap)))
    }

    /// Lets one worker show its policy verdicts.
    ///
    /// # Errors
    /// A worker that ended.
    pub fn show_verdicts(&self, worker: usize, writer: VerdictWriter) -> Result<(), Unresponsive> {
        self.tell(worker, Command::ShowVerdicts(Box::new(writer)))
    }

    /// Lets every worker drop what it held for readers that are gone.
    pub fn forget_readers(&self) {
        for index in 0..self.0.len() {
            // One that ended holds nothing.
            let _ = self.tell(index, Command::ForgetReaders);
        }
    }

    /// Where every worker's frames are.
    ///
    /// # Errors
    /// A worker that does not answer.
    pub fn accounts(&self) -> Result<Vec<Account>, Unresponsive> {
        (0..self.0.len())
            .map(|index| self.ask(index, Command::Account))
            .collect()
    }

    /// Packets of a port dropped by workers that they were handed over to.
    pub fn drops_of(&self, port: PortId) -> u64 {
        let each = self.0.iter().map(|handle| &handle.port_drops);
        each.map(|drops| drops.load(port.index())).sum()
    }

    /// What all workers counted by policy rule.
    ///
    /// # Errors
    /// A worker that does not answer.
    pub fn policy_counters(&self) -> Result<PolicyCounters, Unresponsive> {
        let mut sum = PolicyCounters::new();
        for index in 0..self.0.len() {
            let memory = Box::new(PolicyCounters::new());
            let counted = self.ask(index, |done| Command::PolicyCounters(memory, done))?;
            sum.add(&counted);
        }
        Ok(sum)
    }

    /// Lets every worker begin anew to count these rules.
    ///
    /// # Errors
    /// A worker that does not answer.
    pub fn forget_rules(&self, rules: &[RuleId]) -> Result<(), Unresponsive> {
        for index in 0..self.0.len() {
            self.ask(index, |done| Command::ForgetRules(rules.into(), done))?;
        }
        Ok(())
    }

    /// Connections there are and those begun, of all workers, for each of these backends.
    ///
    /// # Errors
    /// A worker that does not answer.
    pub fn backend_counts(&self, backends: &[BackendId]) -> Result<Vec<(u64, u64)>, Unresponsive> {
        let mut sums = vec![(0, 0); backends.len()];
        for index in 0..self.0.len() {
            let parts = backends.chunks(BACKENDS_PER_LOOK);
            for (part, sums) in parts.zip(sums.chunks_mut(BACKENDS_PER_LOOK)) {
                let asked = part.iter().map(|it| (*it, (0, 0))).collect();
                let counted = self.ask(index, |done| Command::BackendCounts(asked, done))?;
                for (sum, (_, (live, begun))) in sums.iter_mut().zip(counted) {
                    *sum = (sum.0 + live, sum.1 + begun);
                }
            }
        }
        Ok(sums)
    }

    /// Lets every worker begin anew to count these backends' connections.
    ///
    /// # Errors
    /// A worker that does not answer.
    pub fn forget_backends(&self, backends: &[BackendId]) -> Result<(), Unresponsive> {
        for index in 0..self.0.len() {
            self.ask(index, |done| Command::ForgetBackends(backends.into(), done))?;
        }
        Ok(())
    }

    /// Shows the connections of all workers to `visit`, with the worker's number, until it says that it has
    /// seen enough. Each worker is asked for few at a time.
    ///
    /// # Errors
    /// A worker that does not answer.
    pub fn flows(
        &self,
        mut visit: impl FnMut(u16, &FlowInfo) -> ControlFlow<()>,
    ) -> Result<(), Unresponsive> {
        for index in 0..self.0.len() {
            let mut scan = FlowScan {
                from: Some(0),
                found: Vec::with_capacity(FLOWS_PER_LOOK),
            };
            while scan.from.is_some() {
                scan = self.ask(index, |done| Command::Flows(scan, done))?;
                let mut found = scan.found.iter();
                if found
                    .try_for_each(|flow| visit(index as u16, flow))
                    .is_break()
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Lets every worker take down what went by shortcuts. One that does not answer shows what it knew.
    pub fn absorb_shortcuts(&self) {
        for index in 0..self.0.len() {
            let mut from = Some(0);
            while let Some(place) = from {
                let asked = self.ask(index, |done| {
                    Command::AbsorbShortcuts(place, SHORTCUTS_PER_LOOK, done)
                });
                from = asked.unwrap_or_default();
            }
        }
    }

    /// What ICMP said about our tunnels since the last call.
    pub fn take_reports(&self) -> Vec<PmtuReport> {
        let mut all = Vec::new();
        for handle in &self.0 {
            let mut reports = handle
                .reports
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            all.extend(std::iter::from_fn(|| reports.pop().ok()));
        }
        all
    }

    /// Every worker's counters and core.
    pub fn readings(&self) -> impl Iterator<Item = (Option<usize>, WorkerReading)> {
        self.0
            .iter()
            .map(|handle| (handle.core, WorkerReading::of(&handle.counters)))
    }

    /// The first worker that ended, and why: that is a bug or a lost epoll.
    pub fn ended(&mut self) -> Option<(usize, io::Result<()>)> {
        let index = self
            .0
            .iter()
            .position(|h| h.thread.as_ref().is_some_and(JoinHandle::is_finished))?;
        let outcome = self.0[index]
            .thread
            .take()?
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("it panicked")));
        Some((index, outcome))
    }

    /// Ends all workers.
    pub fn stop(&mut self) {
        for index in 0..self.0.len() {
            let _ = self.tell(index, Command::Stop);
        }
        for handle in &mut self.0 {
            if let Some(thread) = handle.thread.take() {
                let _ = thread.join();
            }
        }
    }

    fn tell(&self, index: usize, command: Command) -> Result<(), Unresponsive> {
        let handle = self.0.get(index).ok_or(Unresponsive(index))?;
        if !handle.commands.send(command) {
            return Err(Unresponsive(index));
        }
        handle.bell.ring();
        Ok(())
    }

    fn ask<T>(
        &self,
        index: usize,
        command: impl FnOnce(Answer<T>) -> Command,
    ) -> Result<T, Unresponsive> {
        let (place, pending) = answer();
        self.tell(index, command(place))?;
        pending.wait(ANSWER_TIMEOUT).ok_or(Unresponsive(index))
    }
}

/// Splits the free frames evenly.
fn share(mut pool: FramePool, workers: usize, umem: &Umem) -> Vec<FramePool> {
    let each = pool.len() / workers.max(1);
    let mut pools = Vec::with_capacity(workers);
    for _ in 1..workers {
        let mut part = FramePool::empty(umem);
        pool.give_bulk(&mut part, each);
        pools.push(part);
    }
    pools.push(pool);
    pools
}

fn spawn(
    id: usize,
    core: Option<usize>,
    priority: u8,
    worker: Worker,
) -> io::Result<JoinHandle<io::Result<()>>> {
    std::thread::Builder::new()
        .name(format!("worker-{id}"))
        .spawn(move || {
            settle(id, core, priority);
            worker.run()
        })
}

/// Pins the calling worker and raises its priority; neither is worth refusing service for.
fn settle(id: usize, core: Option<usize>, priority: u8) {
    if let Some(core) = core
        && !core_affinity::set_for_current(core_affinity::CoreId { id: core })
    {
        tracing::warn!(
            worker = id,
            core,
            "cannot pin the worker; it runs where the scheduler puts it"
        );
    }
    // The default slack of 50 us would double every nap.
    let _ = nix::sys::prctl::set_timerslack(1_000);
    if priority == 0 {
        return;
    }
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let raised = ThreadPriorityValue::try_from(priority)
        .map_err(|error| error.to_string())
        .and_then(|value| {
            let priority = ThreadPriority::Crossplatform(value);
            let this = thread_priority::thread_native_id();
            thread_priority::set_thread_priority_and_policy(this, priority, policy)
                .map_err(|error| error.to_string())
        });
    if let Err(error) = raised {
        tracing::warn!(
            worker = id,
            error,
            "no real-time priority: under load packets wait for other programs; CAP_SYS_NICE gives it"
        );
    }
}

#[cfg(test)]
mod tests;
