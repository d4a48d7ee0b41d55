//! Packets seen between the stages: for `weft trace`, never for a worker's own.

use std::ops::Range;

use weft_xsk::{FrameChain, FramePool, Gso, Umem};

use crate::batch::Batch;
use crate::chain::Writer;
use crate::counters::Stage;
use crate::packet::{
    Checksum, Egress, Headers, NextHop, Origin, Packet, PortId, PortKind, RemoteId, Track,
    Translation, Verdict,
};
use crate::pipeline::{Env, Pipeline, PipelineConfig};
use crate::tables::Tables;

/// Bytes kept of a packet: all headers, of a tunnel and of what is in it.
const FRONT_BYTES: usize = 256;

/// Connections a traced packet can begin, and more.
const FLOWS: u32 = 16;

/// After this every fragment that is held has timed out (RFC 8200 section 4.5 says 60 s, the engine waits less).
const LONG_NS: u64 = 3_600_000_000_000;

/// A batch behind a stage.
#[derive(Debug)]
pub struct Passage<'a> {
    /// The stage it left.
    pub stage: Stage,
    /// The packets, those with a verdict too.
    pub packets: &'a [Packet],
    /// They were made on the way of others and go this way after them.
    pub born: bool,
    /// Memory of their frames.
    pub umem: &'a Umem,
}

/// Sees what passes. The one that sees nothing, `()`, costs nothing.
pub trait Observer {
    /// Called behind every stage.
    fn seen(&mut self, passage: &Passage<'_>);
}

impl Observer for () {
    #[inline(always)]
    fn seen(&mut self, _passage: &Passage<'_>) {}
}

/// What a packet is at one moment.
#[derive(Clone, Debug)]
pub struct Sight {
    /// What became of it.
    pub verdict: Verdict,
    /// Its headers as the stages know them; of a tunnel's packet the inner ones, once it is opened.
    pub headers: Headers,
    /// The node it came from through a tunnel.
    pub tunnel: Option<RemoteId>,
    /// Its connection.
    pub track: Track,
    /// The neighbour that brought it, of a client outside the cluster.
    pub outside: Option<NextHop>,
    /// What it was before it was translated.
    pub translation: Option<Translation>,
    /// Its way out.
    pub egress: Egress,
    /// Largest IP packet of that way, when it is larger.
    pub cut_to: Option<u32>,
    /// What its checksum field holds.
    pub checksum: Checksum,
    /// How the port's stack is to segment it.
    pub gso: Option<Gso>,
    /// Pieces cut off it, which are sent after it.
    pub pieces: Range<u16>,
    /// Bytes of tunnel headers in front.
    pub outer_len: u8,
    /// By which uplink it leaves.
    pub uplink: PortId,
    /// Where it comes from.
    pub origin: Origin,
    /// All its bytes.
    pub len: usize,
    /// Its first bytes.
    pub front: Vec<u8>,
}

impl Sight {
    fn of(packet: &Packet, umem: &Umem) -> Self {
        let first = packet.frames.first().map_or(&[][..], |it| umem.bytes(it));
        Self {
            verdict: packet.verdict,
            headers: packet.headers,
            tunnel: packet.tunnel,
            track: packet.track,
            outside: packet.outside,
            translation: packet.translation,
            egress: packet.egress,
            cut_to: packet.cut_to,
            checksum: packet.checksum,
            gso: packet.gso,
            pieces: packet.pieces.clone(),
            outer_len: packet.outer_len,
            uplink: packet.uplink,
            origin: packet.origin,
            len: packet.total_len(),
            front: first[..first.len().min(FRONT_BYTES)].to_vec(),
        }
    }
}

/// A packet behind one stage.
#[derive(Clone, Debug)]
pub struct Step {
    /// The stage.
    pub stage: Stage,
    /// The packet as it left it.
    pub sight: Sight,
}

/// The way of one packet: through the stages that looked at it, up to the one that gave it its verdict.
#[derive(Clone, Debug, Default)]
pub struct Way {
    /// Stage by stage.
    pub steps: Vec<Step>,
}

impl Way {
    /// The packet as the last stage left it; none when no stage saw it.
    pub fn end(&self) -> Option<&Sight> {
        self.steps.last().map(|step| &step.sight)
    }

    fn add(&mut self, stage: Stage, packet: &Packet, umem: &Umem) {
        let is_decided = self.end().is_some_and(|it| it.verdict != Verdict::Pending);
        if !is_decided {
            let sight = Sight::of(packet, umem);
            self.steps.push(Step { stage, sight });
        }
    }
}

/// What a traced packet went through.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// What became of the packet, also where no stage saw it, since there are no tables.
    pub verdict: Verdict,
    /// The packet's own way.
    pub way: Way,
    /// The ways of packets the pipeline made of its own: ICMP errors, resets. Pieces of the packet are not among
    /// them, see [`Sight::pieces`].
    pub born: Vec<Way>,
}

impl Observer for Trace {
    fn seen(&mut self, passage: &Passage<'_>) {
        let Passage {
            stage,
            packets,
            umem,
            ..
        } = *passage;
        if !passage.born {
            if let [packet] = packets {
                self.way.add(stage, packet, umem);
            }
            return;
        }
        self.born.resize_with(packets.len(), Way::default);
        for (way, packet) in self.born.iter_mut().zip(packets) {
            if packet.origin != Origin::Cut {
                way.add(stage, packet, umem);
            }
        }
    }
}

/// Memory for traced packets, apart from the workers'. Made once: a process can make only so many memories.
#[derive(Debug)]
pub struct Bench {
    umem: Umem,
    pool: FramePool,
}

impl Bench {
    /// Memory of `frames` frames; none when the memory is in use already, which cannot be.
    pub fn new(frames: u32) -> Option<Self> {
        let umem = Umem::heap(frames);
        let pool = FramePool::all(&umem)?;
        Some(Self { umem, pool })
    }

    /// Frames that are free: all of them between two traces.
    pub fn free(&self) -> usize {
        self.pool.len()
    }

    /// Runs the frame `bytes`, as if received from port `rx`, through a pipeline without connections. `tables` have
    /// are those in force; nothing is sent. None when it has no bytes, or more than a packet can have.
    pub fn trace(
        &mut self,
        tables: &Tables,
        (rx, kind): (PortId, PortKind),
        bytes: &[u8],
        now_ns: u64,
    ) -> Option<Trace> {
        let frames = self.frames_of(bytes)?;
        let mut batch = Batch::new();
        batch.packets.push(Packet::received(frames, rx, kind));
        let mut pipeline = Pipeline::new(PipelineConfig {
            flows: FLOWS,
            ..PipelineConfig::default()
        });
        let mut trace = Trace::default();
        let mut env = Env {
            tables,
            umem: &self.umem,
            pool: &mut self.pool,
            now_ns,
        };
        pipeline.trace(&mut batch, &mut env, &mut trace);
        trace.verdict = batch
            .packets
            .first()
            .map(|it| it.verdict)
            .unwrap_or_default();
        env.now_ns = now_ns.saturating_add(LONG_NS);
        batch.recycle(env.pool);
        pipeline.expire(&mut env, &mut batch);
        batch.recycle(env.pool);
        trace.born.retain(|way| !way.steps.is_empty());
        Some(trace)
    }

    fn frames_of(&mut self, bytes: &[u8]) -> Option<FrameChain> {
        let mut writer = Writer {
            umem: &self.umem,
            pool: &mut self.pool,
            chain: FrameChain::new(),
        };
        let fits = writer.put(bytes);
        let mut chain = writer.chain;
        if fits && !chain.is_empty() {
            return Some(chain);
        }
        self.pool.free_chain(&mut chain);
        None
    }
}
