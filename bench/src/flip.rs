//! A bridge between two interfaces that damages what passes: the wire of the bad day.

use std::os::fd::AsFd;

use clap::Args as ClapArgs;
use serde::Serialize;

use crate::packet_socket::PacketSocket;
use crate::pattern::Random;
use crate::{report, stop};

/// Largest frame a veth hands over: 64 KiB of a segment that was not cut, plus headers.
const FRAME_MAX: usize = 66_000;
/// Frames taken from one side before the other is looked at.
const BURST_MAX: usize = 64;

/// Options.
#[derive(ClapArgs)]
pub struct Args {
    /// One interface
    #[arg(long)]
    a: String,
    /// The other
    #[arg(long)]
    b: String,
    /// Flip one bit of every Nth frame that is long enough; 0: never
    #[arg(long, default_value_t = 0)]
    every: u64,
    /// First byte of a frame that may be damaged: the default lies behind Ethernet, IPv6, UDP and
    /// VXLAN, then Ethernet, IPv4 and TCP headers
    #[arg(long, default_value_t = 140)]
    from: usize,
    /// Drop this share of the frames, in percent
    #[arg(long, default_value_t = 0.0)]
    drop: f64,
    /// Send this share twice, in percent
    #[arg(long, default_value_t = 0.0)]
    duplicate: f64,
    /// Hold this share back until the next frame of its direction has passed, in percent
    #[arg(long, default_value_t = 0.0)]
    reorder: f64,
    /// Same seed, same choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What happened to the frames.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Counters {
    received: u64,
    forwarded: u64,
    flipped: u64,
    dropped: u64,
    duplicated: u64,
    reordered: u64,
}

/// Bridges until it is told to stop.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let stop = stop::signals()?;
    let sides = [PacketSocket::open(&args.a)?, PacketSocket::open(&args.b)?];
    let mut wire = Wire::new(args);
    let mut buffer = vec![0; FRAME_MAX];
    while stop::readable(&stop, &[sides[0].as_fd(), sides[1].as_fd()])? {
        for (direction, from, to) in [(0, &sides[0], &sides[1]), (1, &sides[1], &sides[0])] {
            for _ in 0..BURST_MAX {
                let Some(len) = from.receive(&mut buffer)? else {
                    break;
                };
                for frame in wire.pass(direction, &mut buffer[..len]) {
                    to.send(&frame)?;
                }
            }
        }
    }
    report::print(&wire.counters)
}

/// The choices, apart from the sockets.
struct Wire<'a> {
    args: &'a Args,
    random: Random,
    candidates: u64,
    held: [Option<Vec<u8>>; 2],
    counters: Counters,
}

impl<'a> Wire<'a> {
    fn new(args: &'a Args) -> Self {
        Self {
            args,
            random: Random::new(args.seed),
            candidates: 0,
            held: [None, None],
            counters: Counters::default(),
        }
    }

    /// What comes out at the far end for one frame that went in.
    fn pass(&mut self, direction: usize, frame: &mut [u8]) -> Vec<Vec<u8>> {
        self.counters.received += 1;
        let mut out = Vec::new();
        if self.random.percent(self.args.drop) {
            self.counters.dropped += 1;
        } else {
            self.flip(frame);
            if self.held[direction].is_none() && self.random.percent(self.args.reorder) {
                self.counters.reordered += 1;
                self.held[direction] = Some(frame.to_vec());
                return out;
            }
            out.push(frame.to_vec());
            if self.random.percent(self.args.duplicate) {
                self.counters.duplicated += 1;
                out.push(frame.to_vec());
            }
        }
        out.extend(self.held[direction].take());
        self.counters.forwarded += out.len() as u64;
        out
    }

    fn flip(&mut self, frame: &mut [u8]) {
        if self.args.every == 0 || frame.len() <= self.args.from {
            return;
        }
        self.candidates += 1;
        if self.candidates.is_multiple_of(self.args.every) {
            let room = (frame.len() - self.args.from) as u64;
            let at = self.args.from + usize::try_from(self.random.below(room)).unwrap_or_default();
            frame[at] ^= 1 << self.random.below(8);
            self.counters.flipped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> Args {
        Args {
            a: String::new(),
            b: String::new(),
            every: 0,
            from: 140,
            drop: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            seed: 1,
        }
    }

    #[test]
    fn flips_one_bit_of_every_nth_long_frame() {
        let args = Args { every: 3, ..args() };
        let mut wire = Wire::new(&args);
        for number in 1..=30 {
            wire.pass(0, &mut [0; 60]);
            let out = wire.pass(0, &mut [0; 200]);
            let bits: u32 = out[0].iter().map(|byte| byte.count_ones()).sum();
            assert_eq!(bits, u32::from(number % 3 == 0));
            assert!(out[0][..140].iter().all(|byte| *byte == 0));
        }
        assert_eq!(wire.counters.flipped, 10);
    }

    #[test]
    fn every_frame_is_accounted_for() {
        let args = Args {
            drop: 10.0,
            duplicate: 10.0,
            reorder: 10.0,
            ..args()
        };
        let mut wire = Wire::new(&args);
        for number in 0..10_000_usize {
            wire.pass(number % 2, &mut [0; 64]);
        }
        let held = wire.held.iter().flatten().count() as u64;
        let counters = &wire.counters;
        assert!(counters.reordered > 500 && counters.dropped > 500);
        assert_eq!(
            counters.received,
            counters.forwarded + counters.dropped + held - counters.duplicated
        );
    }

    #[test]
    fn a_held_frame_follows_the_next() {
        let args = Args {
            reorder: 100.0,
            ..args()
        };
        let mut wire = Wire::new(&args);
        assert!(wire.pass(0, &mut [1]).is_empty());
        assert_eq!(wire.pass(0, &mut [2]), [[2], [1]]);
    }
}
