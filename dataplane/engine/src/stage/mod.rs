//! The stages, one file each. All have the same shape: `process` loops over the batch and gives each
//! packet still on its way to one function, whose error is the packet's verdict.

pub(crate) mod conntrack;
pub(crate) mod decap;
pub(crate) mod encap;
pub(crate) mod fragment;
pub(crate) mod gateway;
pub(crate) mod offload;
pub(crate) mod owner;
pub(crate) mod parse;
pub(crate) mod policy;
pub(crate) mod rewrite;
pub(crate) mod route;
pub(crate) mod service;
pub(crate) mod source;

use crate::counters::Stage;
use crate::drop_reason::DropReason;
use crate::packet::{Packet, Verdict};
use crate::pipeline::Context;

/// Takes each undecided packet one step further.
#[inline(always)]
fn each(
    stage: Stage,
    packets: &mut [Packet],
    context: &mut Context<'_>,
    mut step: impl FnMut(&mut Packet, &mut Context<'_>) -> Result<(), DropReason>,
) {
    let mut seen = 0;
    for packet in packets {
        if packet.is_pending() {
            seen += 1;
            if let Err(reason) = step(packet, context) {
                packet.verdict = Verdict::Drop(reason);
            }
        }
    }
    context.counters.seen(stage, seen);
}
