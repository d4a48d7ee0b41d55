//! The list of stages, each a loop over the batch. A packet's way is read here from top to bottom.

use std::ops::Range;

use arrayvec::ArrayVec;
use weft_xsk::{FramePool, Umem};

use crate::batch::{BORN_MAX, Batch};
use crate::counters::{Counters, Stage};
use crate::drop_reason::DropReason;
use crate::icmp::IcmpLimiter;
use crate::packet::{Packet, PortId, Verdict};
use crate::pmtu::{PmtuReport, PmtuReports, REPORTS_MAX};
use crate::stage::{self, fragment::Fragments};
use crate::table::flow::{FlowTable, Tick};
use crate::table::policy::PolicyCounters;
use crate::table::service::{Affinity, BackendCounters};
use crate::tables::{NodeTable, Tables};
use crate::trace::{Observer, Passage};
use crate::verdict_log::VerdictLog;

/// What a pipeline must be told when it is made.
#[derive(Clone, Copy, Debug)]
pub struct PipelineConfig {
    /// Seed of the hashes over what the network sends. Random and secret, so that nobody can choose
    /// packets that collide.
    pub hash_seed: u64,
    /// Connections this worker can remember. Each takes 128 bytes (IPv4) or 180 (IPv6) once it is there;
    /// before, room for it costs address space only (311 bytes).
    pub flows: u32,
    /// Number of the worker this pipeline is for, as in [`crate::PortEntry::worker`].
    pub worker: u16,
    /// Workers there are. One alone owns every connection.
    pub workers: u16,
}

/// Connections a worker remembers unless told otherwise: 8 MiB when all are of IPv4, and as many as 110
/// pods with 600 connections each have. Too few and new connections displace unanswered ones early.
pub const FLOWS_DEFAULT: u32 = 65_536;

/// Connections removed in one call of [`Pipeline::expire`]: some 50 us of work, so that no ring runs full
/// meanwhile.
const EXPIRED_MAX: usize = 256;

/// How long after it began with an empty flow table a pipeline takes a TCP packet of no known connection for a reply:
/// see the policy stage. As long as most keepalives take to come, after which whoever is still there was heard. Too
/// short and connections are cut whose server speaks first; longer and a pod that ignores resets may longer go on with
/// a connection that a policy revoked.
const PICK_UP_NS: u64 = 600_000_000_000;

impl Default for PipelineConfig {
    /// A fixed seed, for tests and benches.
    fn default() -> Self {
        Self {
            hash_seed: 0x5eed_0f3e_f700_0001,
            flows: FLOWS_DEFAULT,
            worker: 0,
            workers: 1,
        }
    }
}

/// What one run works with.
pub struct Env<'a> {
    /// The tables in force, the same for the whole batch.
    pub tables: &'a Tables,
    /// Memory of the frames.
    pub umem: &'a Umem,
    /// The worker's free frames.
    pub pool: &'a mut FramePool,
    /// Monotonic time in nanoseconds.
    pub now_ns: u64,
}

/// One worker's pipeline: what lives longer than a batch.
pub struct Pipeline {
    counters: Counters,
    fragments: Fragments,
    flows: FlowTable,
    icmp: IcmpLimiter,
    pmtu: PmtuReports,
    ip_id: u16,
    scratch: Vec<Packet>,
    policy: PolicyCounters,
    verdicts: VerdictLog,
    affinity: Affinity,
    /// Until when connections may be picked up from their reply; set by the first packets.
    pick_up_until_ns: Option<u64>,
    worker: u16,
    workers: u16,
}

/// What stages share during a run.
pub(crate) struct Context<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) node: &'a NodeTable,
    pub(crate) umem: &'a Umem,
    pub(crate) pool: &'a mut FramePool,
    pub(crate) now_ns: u64,
    pub(crate) counters: &'a mut Counters,
    pub(crate) fragments: &'a mut Fragments,
    pub(crate) flows: &'a mut FlowTable,
    pub(crate) icmp: &'a mut IcmpLimiter,
    pub(crate) pmtu: &'a mut PmtuReports,
    pub(crate) ip_id: &'a mut u16,
    pub(crate) policy: &'a mut PolicyCounters,
    pub(crate) verdicts: &'a mut VerdictLog,
    pub(crate) affinity: &'a mut Affinity,
    pub(crate) picks_up: bool,
    pub(crate) worker: u16,
    pub(crate) workers: u16,
    born: &'a mut Vec<Packet>,
    /// Packets born in this run that are not in `born` now.
    born_before: usize,
}

impl Context<'_> {
    /// How many more packets can be born in this run.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        BORN_MAX.saturating_sub(self.born.len() + self.born_before)
    }

    /// Adds a packet the pipeline made or let go. The caller asked for [`Context::room`].
    pub(crate) fn bear(&mut self, packet: Packet) {
        debug_assert!(self.room() > 0, "born packets never outgrow their room");
        self.born.push(packet);
    }

    /// Packets born so far in this pass: a mark for [`Context::unbear`].
    pub(crate) fn mark(&self) -> usize {
        self.born.len()
    }

    /// Where in [`Batch::born`] the packets born since `mark` will be.
    pub(crate) fn born_since(&self, mark: usize) -> Range<u16> {
        let place = |at: usize| (self.born_before + at) as u16;
        place(mark)..place(self.born.len())
    }

    /// Takes back what was born since `mark`.
    pub(crate) fn unbear(&mut self, mark: usize) {
        for mut packet in self.born.drain(mark..) {
            self.pool.free_chain(&mut packet.frames);
        }
    }
}

impl Pipeline {
    /// A pipeline with all the memory it will ever use.
    pub fn new(config: PipelineConfig) -> Self {
        Self::with_flows(config, FlowTable::new(config.flows, config.hash_seed))
    }

    /// A pipeline that goes on with the connections of `flows`.
    pub fn with_flows(config: PipelineConfig, flows: FlowTable) -> Self {
        let mut counters = Counters::new();
        // They are there before the first packet is.
        counters.flows = flows.counters();
        Self {
            counters,
            fragments: stage::fragment::table(config.hash_seed),
            flows,
            icmp: IcmpLimiter::new(),
            pmtu: PmtuReports::new(),
            ip_id: config.hash_seed as u16,
            scratch: Vec::with_capacity(BORN_MAX),
            policy: PolicyCounters::new(),
            verdicts: VerdictLog::new(),
            affinity: Affinity::new(config.hash_seed),
            pick_up_until_ns: None,
            worker: config.worker,
            workers: config.workers,
        }
    }

    /// Gives every packet of the batch its verdict. `batch.born` is empty when called; what the
    /// pipeline makes on the way is in it afterwards, with verdicts too.
    pub fn run(&mut self, batch: &mut Batch, env: &mut Env<'_>) {
        self.pass(batch, env, receive, &mut ());
    }

    /// As [`Pipeline::run`], and `observer` sees the packets behind every stage. The pipeline has to be one of its
    /// own: what passes is counted and remembered. All but the packets' connections is as in a worker; those begin
    /// here, none is picked up from a reply.
    pub fn trace(&mut self, batch: &mut Batch, env: &mut Env<'_>, observer: &mut impl Observer) {
        self.pick_up_until_ns = Some(0);
        self.pass(batch, env, receive, observer);
    }

    /// Takes packets further that another worker's pipeline gave [`Verdict::HandOver`]: the caller has
    /// made them pending again. Otherwise as [`Pipeline::run`].
    pub fn resume(&mut self, batch: &mut Batch, env: &mut Env<'_>) {
        self.pass(batch, env, |_| {}, &mut ());
    }

    fn pass<O: Observer>(
        &mut self,
        batch: &mut Batch,
        env: &mut Env<'_>,
        receive: impl FnOnce(&mut Line<'_, '_, O>),
        observer: &mut O,
    ) {
        debug_assert!(
            batch.born.is_empty(),
            "the worker took what was born in the last run"
        );
        let Some(node) = env.tables.node() else {
            for packet in &mut batch.packets {
                packet.verdict = Verdict::Drop(DropReason::NoTables);
            }
            self.counters.conclude(&batch.packets, None);
            return;
        };
        // A table that was taken over knows the connections there are.
        let pick_up_until_ns = *self.pick_up_until_ns.get_or_insert_with(|| {
            if self.flows.is_empty() {
                env.now_ns.saturating_add(PICK_UP_NS)
            } else {
                0
            }
        });
        let mut context = Context {
            tables: env.tables,
            node,
            umem: env.umem,
            pool: &mut *env.pool,
            now_ns: env.now_ns,
            counters: &mut self.counters,
            fragments: &mut self.fragments,
            flows: &mut self.flows,
            icmp: &mut self.icmp,
            pmtu: &mut self.pmtu,
            ip_id: &mut self.ip_id,
            policy: &mut self.policy,
            verdicts: &mut self.verdicts,
            affinity: &mut self.affinity,
            picks_up: env.now_ns < pick_up_until_ns,
            worker: self.worker,
            workers: self.workers,
            born: &mut batch.born,
            born_before: 0,
        };
        let mut line = Line {
            packets: &mut batch.packets,
            context: &mut context,
            observer,
        };
        receive(&mut line);
        decide(&mut line);
        forward(&mut line);
        forward_born(&mut context, &mut self.scratch, observer);
        self.counters.flows = self.flows.counters();
        self.counters.born += batch.born.len() as u64;
        self.counters.conclude(&batch.packets, node.node_port);
        self.counters.conclude(&batch.born, node.node_port);
    }

    /// Lets go of what waited too long: held fragments come out as dropped in `out.born`, and connections
    /// that were silent are forgotten. To be called about every 100 ms.
    pub fn expire(&mut self, env: &mut Env<'_>, out: &mut Batch) {
        let Self {
            fragments,
            counters,
            flows,
            ..
        } = self;
        flows.expire(Tick::of_ns(env.now_ns), EXPIRED_MAX);
        counters.flows = flows.counters();
        fragments.expire(env.now_ns, |mut packet: Packet| {
            counters.drop(DropReason::FragmentTimeout);
            packet.verdict = Verdict::Drop(DropReason::FragmentTimeout);
            if out.born.len() < BORN_MAX {
                out.born.push(packet);
            } else {
                env.pool.free_chain(&mut packet.frames);
            }
        });
    }

    /// What was counted since the pipeline was made.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// For what the worker drops after the pipeline: [`Counters::dropped_late`].
    pub fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Frames the pipeline keeps between runs.
    pub fn held(&self) -> usize {
        self.fragments.held_cost()
    }

    /// Packets and connections by policy rule.
    pub fn policy_counters(&self) -> &PolicyCounters {
        &self.policy
    }

    /// To forget what was counted for rules that are no more.
    pub fn policy_counters_mut(&mut self) -> &mut PolicyCounters {
        &mut self.policy
    }

    /// What the policies said in the last run, while it is kept.
    pub fn verdicts_mut(&mut self) -> &mut VerdictLog {
        &mut self.verdicts
    }

    /// To forget what was counted for backends that are no more.
    pub fn backend_counters_mut(&mut self) -> &mut BackendCounters {
        self.flows.backends_mut()
    }

    /// The connections this worker knows.
    pub fn flows(&self) -> &FlowTable {
        &self.flows
    }

    /// To take down what went past the pipeline.
    pub fn flows_mut(&mut self) -> &mut FlowTable {
        &mut self.flows
    }

    /// See [`FlowTable::absorb_some`].
    pub fn absorb_some(&mut self, from: u32, most: u32) -> Option<u32> {
        let next = self.flows.absorb_some(from, most);
        self.counters.flows = self.flows.counters();
        next
    }

    /// Whether anything waits for a timeout: then [`Pipeline::expire`] has to be called also while no
    /// packets come. Connections do not: an overdue one is not found, and an idle node shall not wake up
    /// to forget it.
    pub fn has_timers(&self) -> bool {
        !self.fragments.is_empty()
    }

    /// Forgets a port that went away; frames held for it go to `pool`.
    pub fn port_removed(&mut self, port: PortId, pool: &mut FramePool) {
        let Self {
            fragments,
            counters,
            ..
        } = self;
        fragments.remove_port(port.0, |mut packet: Packet| {
            counters.drop(DropReason::FragmentTimeout);
            pool.free_chain(&mut packet.frames);
        });
        self.icmp.forget(port);
    }

    /// What the underlay said about the tunnel's MTU since the last call.
    pub fn take_pmtu_reports(&mut self) -> ArrayVec<PmtuReport, REPORTS_MAX> {
        self.pmtu.take()
    }
}

/// Packets, and what takes them from stage to stage.
struct Line<'a, 'b, O> {
    packets: &'a mut [Packet],
    context: &'a mut Context<'b>,
    observer: &'a mut O,
}

impl<'b, O: Observer> Line<'_, 'b, O> {
    #[inline(always)]
    fn pass(&mut self, stage: Stage, process: impl FnOnce(&mut [Packet], &mut Context<'b>)) {
        process(self.packets, self.context);
        self.observer.seen(&Passage {
            stage,
            packets: self.packets,
            born: self.context.born_before > 0,
            umem: self.context.umem,
        });
    }
}

/// From the wire to a packet that is known, honest and not for us.
fn receive(line: &mut Line<'_, '_, impl Observer>) {
    line.pass(Stage::Parse, stage::parse::process);
    // Before anything looks at addresses: those that count are the inner ones.
    line.pass(Stage::Decap, stage::decap::process);
    // Before anything is answered or remembered, so that nobody can speak in another's name.
    line.pass(Stage::Source, stage::source::process);
    line.pass(Stage::Gateway, stage::gateway::process);
    // Of what may be forwarded only: the gateway's own traffic is no connection. What another worker owns
    // goes on there, with the next stage.
    line.pass(Stage::Owner, stage::owner::process);
}

/// Whether the packet may go on.
fn decide(line: &mut Line<'_, '_, impl Observer>) {
    line.pass(Stage::Conntrack, stage::conntrack::process);
    // Before policy, so that egress rules see backends.
    line.pass(Stage::Service, stage::service::process);
    // Of connections that are known, once; what is not allowed begins none.
    line.pass(Stage::Policy, stage::policy::process);
    // After whatever decides about first fragments, so that later ones of the same batch follow.
    line.pass(Stage::Fragment, stage::fragment::process);
}

/// From a decision to a frame that can be sent.
fn forward(line: &mut Line<'_, '_, impl Observer>) {
    line.pass(Stage::Route, stage::route::process);
    line.pass(Stage::Rewrite, stage::rewrite::process);
    line.pass(Stage::Encap, stage::encap::process);
    // Last, since only now it is known whether the packet leaves the node, and behind which headers
    // pieces of it have to go.
    line.pass(Stage::Offload, stage::offload::process);
}

/// ICMP errors and released fragments go the same way as their batch. Of them only cut fragments can
/// be born, and those are finished.
fn forward_born(
    context: &mut Context<'_>,
    scratch: &mut Vec<Packet>,
    observer: &mut impl Observer,
) {
    if context.born.is_empty() {
        return;
    }
    std::mem::swap(context.born, scratch);
    context.born_before = scratch.len();
    forward(&mut Line {
        packets: scratch,
        context,
        observer,
    });
    scratch.append(context.born);
    std::mem::swap(context.born, scratch);
}
