//! The list of stages, each a loop over the batch. A packet's way is read here from top to bottom.

use std::ops::Range;

use arrayvec::ArrayVec;
use weft_xsk::{FramePool, Umem};

use crate::batch::{BORN_MAX, Batch};
use crate::counters::Counters;
use crate::drop_reason::DropReason;
use crate::icmp::IcmpLimiter;
use crate::packet::{Packet, PortId, Verdict};
use crate::pmtu::{PmtuReport, PmtuReports, REPORTS_MAX};
use crate::stage::{self, fragment::Fragments};
use crate::table::flow::{FlowTable, Tick};
use crate::tables::{NodeTable, Tables};

/// What a pipeline must be told when it is made.
#[derive(Clone, Copy, Debug)]
pub struct PipelineConfig {
    /// Seed of the hashes over what the network sends. Random and secret, so that nobody can choose
    /// packets that collide.
    pub hash_seed: u64,
    /// Connections this worker can remember. Each takes 128 bytes (IPv4) or 176 (IPv6) once it is there;
    /// before, room for it costs address space only (281 bytes).
    pub flows: u32,
}

/// Connections a worker remembers unless told otherwise: 8 MiB when all are of IPv4, and as many as 110
/// pods with 600 connections each have. Too few and new connections displace unanswered ones early.
pub const FLOWS_DEFAULT: u32 = 65_536;

/// Connections removed in one call of [`Pipeline::expire`]: some 50 us of work, so that no ring runs full
/// meanwhile.
const EXPIRED_MAX: usize = 256;

impl Default for PipelineConfig {
    /// A fixed seed, for tests and benches.
    fn default() -> Self {
        Self {
            hash_seed: 0x5eed_0f3e_f700_0001,
            flows: FLOWS_DEFAULT,
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
        }
    }

    /// Gives every packet of the batch its verdict. `batch.born` is empty when called; what the
    /// pipeline makes on the way is in it afterwards, with verdicts too.
    pub fn run(&mut self, batch: &mut Batch, env: &mut Env<'_>) {
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
            born: &mut batch.born,
            born_before: 0,
        };
        receive(&mut batch.packets, &mut context);
        forward(&mut batch.packets, &mut context);
        forward_born(&mut context, &mut self.scratch);
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

    /// The connections this worker knows.
    pub fn flows(&self) -> &FlowTable {
        &self.flows
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

/// From the wire to a packet that is known, honest and not for us.
fn receive(packets: &mut [Packet], context: &mut Context<'_>) {
    stage::parse::process(packets, context);
    // Before anything looks at addresses: those that count are the inner ones.
    stage::decap::process(packets, context);
    // Before anything is answered or remembered, so that nobody can speak in another's name.
    stage::source::process(packets, context);
    stage::gateway::process(packets, context);
    // Of what may be forwarded only: the gateway's own traffic is no connection.
    stage::conntrack::process(packets, context);
    // Service translation (before policy, so that egress rules see backends) and policy have their place
    // here: they need ports, which later fragments do not have.
    //
    // After whatever decides about first fragments, so that later ones of the same batch follow.
    stage::fragment::process(packets, context);
}

/// From a decision to a frame that can be sent.
fn forward(packets: &mut [Packet], context: &mut Context<'_>) {
    stage::route::process(packets, context);
    stage::rewrite::process(packets, context);
    stage::encap::process(packets, context);
    // Last, since only now it is known whether the packet leaves the node, and behind which headers
    // pieces of it have to go.
    stage::offload::process(packets, context);
}

/// ICMP errors and released fragments go the same way as their batch. Of them only cut fragments can
/// be born, and those are finished.
fn forward_born(context: &mut Context<'_>, scratch: &mut Vec<Packet>) {
    if context.born.is_empty() {
        return;
    }
    std::mem::swap(context.born, scratch);
    context.born_before = scratch.len();
    forward(scratch, context);
    scratch.append(context.born);
    std::mem::swap(context.born, scratch);
}
