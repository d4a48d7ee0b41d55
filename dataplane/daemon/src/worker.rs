//! The loop.
//!
//! ```text
//! complete → refill → receive burst → snapshot → pipeline.run → send per port → kick → rest
//! ```
//!
//! A worker never locks, allocates, logs or makes a system call but the rings' kicks and its rest.
//! Commands (a port comes or goes) are taken between two rounds and may allocate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rtrb::Producer;
use weft_engine::table::flow::Tick;
use weft_engine::{
    BATCH_MAX, BackendId, Batch, Env, FlowInfo, Packet, Pipeline, PmtuReport, PolicyCounters,
    PortId, PortKind, RuleId, Verdict,
};
use weft_snapshot::{SharedCounters, Subscriber};
use weft_xsk::{FramePool, Umem};

use crate::burst::Burst;
use crate::config::Tuning;
use crate::egress::Egress;
use crate::handoff::Handoffs;
use crate::idle::{Idle, Rest};
use crate::lending::Lending;
use crate::mailbox::{Answer, Inbox};
use crate::queue::{Queue, QueueCounter};
use crate::shortcut_ring::ShortcutNews;
use crate::snapshot::Snapshot;
use crate::tap::Tap;
use crate::verdict_ring::VerdictWriter;
use crate::waiter::Waiter;
use crate::worker_counters::WorkerCounters;

/// Rounds between two looks at the sleeping queues while busy. Each look is one system call of
/// about 0.3 us; 8 rounds of a busy worker take 50 to 500 us, the delay a waking port may see.
const ROUNDS_PER_LOOK: u32 = 8;

/// Rounds between two publications of the counters while busy.
const ROUNDS_PER_PUBLISH: u32 = 64;

/// Batches of handed over packets in one round, so that own queues are not left waiting: what fits between
/// two workers.
const HANDOFF_BATCHES_MAX: usize = 4;

/// How often held fragments are looked through for their timeout.
const EXPIRE_NS: u64 = 100_000_000;

/// Longest wait, in ms, while frames are out in a transmit ring: completions raise no event.
const WAIT_WITH_WORK_MS: u16 = 10;

/// Longest wait, in ms, while the pipeline has timers.
const WAIT_WITH_TIMERS_MS: u16 = 100;

/// What the control side asks of a worker, between two rounds.
pub enum Command {
    /// Serve a queue; its slot comes with it. Answered once frames are lent and packets can come.
    Attach(u16, Box<Queue>, Answer<()>),
    /// Stop serving a queue; it comes back and is closed by the asker, since that takes long.
    Detach(u16, Answer<Option<Box<Queue>>>),
    /// The port's queues are closed everywhere: forget it, and take over the frames they held. The empty
    /// pool comes back, so that its memory is not freed here.
    Forget(PortId, Box<FramePool>, Answer<Box<FramePool>>),
    /// Copy packets to a tap.
    Tap(Box<Tap>),
    /// Show policy verdicts to a log.
    ShowVerdicts(Box<VerdictWriter>),
    /// Whoever read a tap or verdicts may be gone: look, and go on without.
    ForgetReaders,
    /// Copy the counters of policy rules into the memory that comes with it, and send it back.
    PolicyCounters(Box<PolicyCounters>, Answer<Box<PolicyCounters>>),
    /// Begin anew to count these rules: their numbers went to others.
    ForgetRules(Box<[RuleId]>, Answer<Box<[RuleId]>>),
    /// Fill in the connections there are and those begun of these backends.
    BackendCounts(BackendCounts, Answer<BackendCounts>),
    /// Begin anew to count these backends' connections: their numbers went to others.
    ForgetBackends(Box<[BackendId]>, Answer<Box<[BackendId]>>),
    /// Show some connections.
    Flows(FlowScan, Answer<FlowScan>),
    /// Take down what went by the shortcuts of connections from this place on, at most so many; the answer is where to
    /// go on.
    AbsorbShortcuts(u32, u32, Answer<Option<u32>>),
    /// Say where this worker's frames are, and read the kernel's counters.
    Account(Answer<Account>),
    /// End the thread.
    Stop,
}

/// Backends and their counts, in memory of the asker.
pub type BackendCounts = Box<[(BackendId, (u64, u64))]>;

/// Part of a look through a worker's connections: between two rounds it reads no more than there is room for.
pub struct FlowScan {
    /// Where to go on; `None` behind the last.
    pub from: Option<u32>,
    /// What was found, in memory of the asker: as many places are read as it has capacity for.
    pub found: Vec<FlowInfo>,
}

/// Where one worker's frames are, taken between two rounds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// In the pool.
    pub free: u64,
    /// In fill and receive rings.
    pub fill: u64,
    /// In transmit and completion rings.
    pub tx: u64,
    /// Held fragments, and what queues have of packets nobody could use.
    pub held: u64,
    /// On the way to this worker.
    pub handed: u64,
}

/// One pinned worker.
pub struct Worker {
    tuning: Tuning,
    pipeline: Pipeline,
    tables: Subscriber<Snapshot>,
    active: Vec<u16>,
    batch: Batch,
    egress: Egress,
    waiter: Waiter,
    commands: Inbox<Command>,
    reports: Producer<PmtuReport>,
    clock: Instant,
    expire_at_ns: u64,
    lending: Lending,
    port_drops: Arc<SharedCounters>,
    /// Who is shown policy verdicts; nearly always nobody.
    verdict_writers: Vec<VerdictWriter>,
    shortcuts: Option<ShortcutNews>,
}

/// What a worker is made of.
pub struct Parts {
    /// Worker number.
    pub id: u16,
    /// Tuning values.
    pub tuning: Tuning,
    /// The frames.
    pub umem: Arc<Umem>,
    /// Those free to this worker.
    pub pool: FramePool,
    /// Its pipeline.
    pub pipeline: Pipeline,
    /// The tables.
    pub tables: Subscriber<Snapshot>,
    /// Rings to and from the other workers.
    pub handoffs: Handoffs,
    /// Where it sleeps.
    pub waiter: Waiter,
    /// Commands to it.
    pub commands: Inbox<Command>,
    /// Where its counters are shown.
    pub counters: Arc<SharedCounters>,
    /// Drops of packets that other workers handed over, by the port that received them: [`weft_engine::PORTS_MAX`] places.
    pub port_drops: Arc<SharedCounters>,
    /// Where ICMP errors about our tunnels are reported.
    pub reports: Producer<PmtuReport>,
    /// Where it tells that connections ask for shortcuts.
    pub shortcuts: Option<ShortcutNews>,
    /// Zero of the clock all workers and taps share.
    pub clock: Instant,
}

impl Worker {
    /// A worker without queues.
    pub fn new(parts: Parts) -> Self {
        let lending = Lending::new(&parts.tuning, parts.umem.frames());
        let egress = Egress {
            id: parts.id,
            umem: parts.umem,
            pool: parts.pool,
            queues: Vec::new(),
            dirty: Vec::new(),
            burst: Burst::default(),
            late_drops: 0,
            handoffs: parts.handoffs,
            taps: Vec::new(),
            counters: WorkerCounters::new(parts.counters),
        };
        Self {
            tuning: parts.tuning,
            pipeline: parts.pipeline,
            tables: parts.tables,
            active: Vec::new(),
            batch: Batch::new(),
            egress,
            waiter: parts.waiter,
            commands: parts.commands,
            reports: parts.reports,
            clock: parts.clock,
            expire_at_ns: 0,
            lending,
            port_drops: parts.port_drops,
            verdict_writers: Vec::new(),
            shortcuts: parts.shortcuts,
        }
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// What the kernel says to epoll; rings never fail.
    pub fn run(mut self) -> std::io::Result<()> {
        let mut idle = Idle::new(&self.tuning);
        let mut round = 0_u32;
        loop {
            while let Some(command) = self.commands.take() {
                if matches!(command, Command::Stop) {
                    self.publish();
                    return Ok(());
                }
                self.obey(command)?;
            }
            let now_ns = self.now_ns();
            let frames = self.round(now_ns);
            round = round.wrapping_add(1);
            if round.is_multiple_of(ROUNDS_PER_PUBLISH) {
                self.publish();
            }
            match idle.after(frames, now_ns) {
                Rest::Spin if frames == 0 || round.is_multiple_of(ROUNDS_PER_LOOK) => {
                    self.look(Some(0))?;
                }
                Rest::Spin => {}
                Rest::Nap(nap) => {
                    std::thread::sleep(nap);
                    self.look(Some(0))?;
                }
                Rest::Wait => self.wait()?,
            }
        }
    }

    /// One pass over the active queues and what other workers handed over; the frames it found.
    fn round(&mut self, now_ns: u64) -> u64 {
        let mut frames = 0;
        for index in 0..self.active.len() {
            frames += self.serve(self.active[index], now_ns);
        }
        frames += self.take_handoffs(now_ns);
        self.egress.kick(self.pipeline.counters_mut());
        if now_ns >= self.expire_at_ns && self.pipeline.has_timers() {
            self.expire_at_ns = now_ns + EXPIRE_NS;
            self.expire(now_ns);
        }
        self.egress.counters.busy_loops += u64::from(frames > 0);
        frames
    }

    fn serve(&mut self, slot: u16, now_ns: u64) -> u64 {
        let Egress {
            umem,
            pool,
            queues,
            taps,
            counters,
            ..
        } = &mut self.egress;
        let Some(queue) = queues.get_mut(usize::from(slot)).and_then(Option::as_mut) else {
            return 0;
        };
        queue.replenish(umem, pool);
        let (port, kind, packets) = (queue.port, queue.kind, &mut self.batch.packets);
        let (mut bytes, mut taken) = (0, 0);
        let found = queue.socket.receive(umem, BATCH_MAX, &mut |frames| {
            taken += frames.len() as u64;
            let packet = Packet::received(frames, port, kind);
            bytes += packet.total_len() as u64;
            packets.push(packet);
        });
        if found == 0 {
            return 0;
        }
        queue.count(QueueCounter::RxPackets, found as u64);
        queue.count(QueueCounter::RxBytes, bytes);
        let spare = self.lending.spare(pool.len(), counters.queues);
        queue.note_received(found as u64, now_ns, spare, &self.lending);
        for tap in &mut *taps {
            tap.remember(&self.batch, umem, now_ns);
        }
        let snapshot = self.tables.refresh();
        let mut env = Env {
            tables: &snapshot.tables,
            umem,
            pool,
            now_ns,
        };
        self.pipeline.run(&mut self.batch, &mut env);
        show_verdicts(&mut self.pipeline, &mut self.verdict_writers, now_ns);
        for tap in &mut *taps {
            tap.record_received(&self.batch);
        }
        let drops = self
            .batch
            .packets
            .iter()
            .filter(|p| matches!(p.verdict, Verdict::Drop(_)))
            .count();
        queue.count(QueueCounter::Drops, drops as u64);
        self.egress.dispatch(
            &mut self.batch,
            snapshot,
            self.pipeline.counters_mut(),
            now_ns,
        );
        if kind == PortKind::Uplink {
            self.report();
        }
        taken
    }

    /// Goes on with what other workers handed over; returns the frames of it.
    fn take_handoffs(&mut self, now_ns: u64) -> u64 {
        let mut frames = 0;
        for _ in 0..HANDOFF_BATCHES_MAX {
            let counters = self.pipeline.counters_mut();
            frames += self.egress.take_handoffs(&mut self.batch, counters, now_ns);
            if self.batch.packets.is_empty() {
                break;
            }
            self.resume(now_ns);
        }
        frames
    }

    fn resume(&mut self, now_ns: u64) {
        let Egress {
            umem, pool, taps, ..
        } = &mut self.egress;
        for tap in &mut *taps {
            tap.remember(&self.batch, umem, now_ns);
        }
        let snapshot = self.tables.refresh();
        let mut env = Env {
            tables: &snapshot.tables,
            umem,
            pool,
            now_ns,
        };
        self.pipeline.resume(&mut self.batch, &mut env);
        show_verdicts(&mut self.pipeline, &mut self.verdict_writers, now_ns);
        for tap in &mut *taps {
            tap.record_received(&self.batch);
        }
        for packet in &self.batch.packets {
            if matches!(packet.verdict, Verdict::Drop(_)) {
                let port = packet.rx.index();
                let drops = self.port_drops.load(port);
                self.port_drops.store(port, drops + 1);
            }
        }
        let counters = self.pipeline.counters_mut();
        self.egress
            .dispatch(&mut self.batch, snapshot, counters, now_ns);
    }

    fn expire(&mut self, now_ns: u64) {
        let snapshot = self.tables.refresh();
        let Egress { umem, pool, .. } = &mut self.egress;
        let mut env = Env {
            tables: &snapshot.tables,
            umem,
            pool,
            now_ns,
        };
        self.pipeline.expire(&mut env, &mut self.batch);
        self.egress.dispatch(
            &mut self.batch,
            snapshot,
            self.pipeline.counters_mut(),
            now_ns,
        );
    }

    /// Passes on what ICMP said about our tunnels; a full queue loses a report, which comes again.
    fn report(&mut self) {
        for report in self.pipeline.take_pmtu_reports() {
            let _ = self.reports.push(report);
        }
    }

    /// Looks for queues that woke up.
    fn look(&mut self, timeout_ms: Option<u16>) -> std::io::Result<()> {
        if let Some(shortcuts) = &mut self.shortcuts {
            shortcuts.tell();
        }
        let (egress, active) = (&mut self.egress, &mut self.active);
        self.waiter.wait(timeout_ms, |slot| {
            if let Some(queue) = egress.queue(slot)
                && !queue.active
            {
                queue.active = true;
                active.push(slot);
            }
        })
    }

    /// Arms every queue, then waits for the kernel, a handoff or a command.
    fn wait(&mut self) -> std::io::Result<()> {
        let mut frames_out = !self.egress.dirty.is_empty();
        let Egress {
            umem, pool, queues, ..
        } = &mut self.egress;
        for slot in self.active.drain(..) {
            if let Some(queue) = queues.get_mut(usize::from(slot)).and_then(Option::as_mut) {
                queue.replenish(umem, pool);
                queue.publish();
                queue.active = false;
                frames_out |= queue.socket.tx_outstanding() > 0;
                self.waiter.arm(queue.socket.as_fd(), slot)?;
            }
        }
        self.publish();
        self.egress.handoffs.fall_asleep();
        if self.egress.handoffs.is_empty() && self.commands.is_empty() {
            self.egress.counters.sleeps += 1;
            let timers = self.pipeline.has_timers().then_some(WAIT_WITH_TIMERS_MS);
            self.look(frames_out.then_some(WAIT_WITH_WORK_MS).or(timers))?;
        }
        self.egress.handoffs.wake_up();
        self.tables.refresh();
        Ok(())
    }

    fn obey(&mut self, command: Command) -> std::io::Result<()> {
        match command {
            Command::Attach(slot, queue, done) => {
                self.attach(slot, queue)?;
                done.give(());
            }
            Command::Detach(slot, done) => {
                done.give(self.detach(slot));
            }
            Command::Forget(port, mut frames, done) => {
                let pool = &mut self.egress.pool;
                self.pipeline.port_removed(port, pool);
                self.port_drops.store(port.index(), 0);
                self.shortcuts.iter().for_each(|it| it.forget(port));
                let all = frames.len();
                pool.take_bulk(&mut frames, all);
                done.give(frames);
            }
            Command::Tap(tap) => self.egress.taps.push(*tap),
            Command::ShowVerdicts(writer) => self.verdict_writers.push(*writer),
            Command::PolicyCounters(mut counters, answer) => {
                counters.copy_from(self.pipeline.policy_counters());
                answer.give(counters);
            }
            Command::ForgetRules(rules, answer) => {
                let counters = self.pipeline.policy_counters_mut();
                rules.iter().for_each(|rule| counters.forget(*rule));
                answer.give(rules);
            }
            Command::BackendCounts(mut counts, answer) => {
                let known = self.pipeline.flows().backends();
                counts
                    .iter_mut()
                    .for_each(|(id, count)| *count = known.of(*id));
                answer.give(counts);
            }
            Command::ForgetBackends(backends, answer) => {
                let counters = self.pipeline.backend_counters_mut();
                backends.iter().for_each(|it| counters.forget(*it));
                answer.give(backends);
            }
            Command::Flows(scan, answer) => {
                answer.give(self.scan(scan));
            }
            Command::AbsorbShortcuts(from, most, answer) => {
                answer.give(self.pipeline.absorb_some(from, most));
            }
            Command::Account(answer) => {
                answer.give(self.account());
            }
            // What follows does it.
            Command::ForgetReaders | Command::Stop => {}
        }
        self.egress.taps.retain(|tap| tap.wanted());
        self.verdict_writers.retain(VerdictWriter::wanted);
        let is_log_read = !self.verdict_writers.is_empty();
        self.pipeline.verdicts_mut().keep(is_log_read);
        self.tables.refresh();
        self.publish();
        Ok(())
    }

    fn scan(&mut self, mut scan: FlowScan) -> FlowScan {
        let room = scan.found.capacity();
        scan.found.clear();
        let now = Tick::of_ns(self.now_ns());
        let flows = self.pipeline.flows_mut();
        scan.from = scan
            .from
            .and_then(|from| flows.scan(from, room, now, |flow| scan.found.push(flow)));
        scan
    }

    fn attach(&mut self, slot: u16, mut queue: Box<Queue>) -> std::io::Result<()> {
        let egress = &mut self.egress;
        let queues = egress.counters.queues;
        let spare = self.lending.spare(egress.pool.len(), queues);
        let lend = self.lending.at_first(queue.kind, spare, queues);
        // A socket taken over has what it had before.
        queue.lend = lend.max(queue.socket.fill_level());
        queue.replenish(&egress.umem, &mut egress.pool);
        self.waiter.add(queue.socket.as_fd(), slot)?;
        queue.active = true;
        self.active.push(slot);
        let index = usize::from(slot);
        if egress.queues.len() <= index {
            egress.queues.resize_with(index + 1, || None);
        }
        egress.queues[index] = Some(queue);
        egress.counters.queues += 1;
        // So that neither list grows on the packet path.
        self.active.reserve(egress.counters.queues as usize);
        egress.dirty.reserve(egress.counters.queues as usize);
        Ok(())
    }

    fn detach(&mut self, slot: u16) -> Option<Box<Queue>> {
        let egress = &mut self.egress;
        let queue = egress
            .queues
            .get_mut(usize::from(slot))
            .and_then(Option::take)?;
        self.active.retain(|s| *s != slot);
        egress.dirty.retain(|s| *s != slot);
        egress.counters.queues -= 1;
        // Not registered is what we want.
        let _ = self.waiter.remove(queue.socket.as_fd());
        queue.publish();
        Some(queue)
    }

    fn account(&mut self) -> Account {
        for queue in self.egress.queues.iter_mut().flatten() {
            queue.read_kernel_counters();
            queue.publish();
        }
        let queues = || self.egress.queues.iter().flatten();
        Account {
            free: self.egress.pool.len() as u64,
            fill: queues().map(|q| u64::from(q.socket.fill_level())).sum(),
            tx: queues().map(|q| u64::from(q.socket.tx_outstanding())).sum(),
            held: self.pipeline.held() as u64
                + queues()
                    .map(|q| q.socket.spare_frames() as u64)
                    .sum::<u64>(),
            handed: self.egress.handoffs.frames_waiting(),
        }
    }

    fn publish(&mut self) {
        self.egress.counters.publish(self.pipeline.counters());
        for slot in &self.active {
            if let Some(queue) = self
                .egress
                .queues
                .get(usize::from(*slot))
                .and_then(Option::as_ref)
            {
                queue.publish();
            }
        }
    }

    fn now_ns(&self) -> u64 {
        Duration::as_nanos(&self.clock.elapsed()) as u64
    }
}

/// Shows what the policies said in the last run to whoever asked.
#[inline]
fn show_verdicts(pipeline: &mut Pipeline, writers: &mut [VerdictWriter], now_ns: u64) {
    for verdict in pipeline.verdicts_mut().take() {
        for writer in &mut *writers {
            writer.write(now_ns, &verdict);
        }
    }
}
