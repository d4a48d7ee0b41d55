//! Sends every UDP datagram that comes in by an interface back to where it came from, whatever port it is for.

use std::os::fd::AsFd;

use clap::Args as ClapArgs;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use serde::Serialize;

use crate::packet_socket::PacketSocket;
use crate::{report, stop};

/// Options.
#[derive(ClapArgs)]
pub struct Args {
    /// Interface to reflect at
    #[arg(long, default_value = "eth0")]
    interface: String,
}

/// Frames sent back before it looks whether it is to stop.
const BURST_MAX: usize = 64;
const FRAME_MAX: usize = 2_048;
/// Both addresses of an Ethernet header.
const MAC_LEN: usize = 6;

/// What was done.
#[derive(Serialize)]
struct Counters {
    reflected: u64,
}

/// Reflects until it is told to stop.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let stop = stop::signals()?;
    let socket = PacketSocket::open(&args.interface)?;
    let mut counters = Counters { reflected: 0 };
    let mut buffer = vec![0; FRAME_MAX];
    while stop::readable(&stop, &[socket.as_fd()])? {
        for _ in 0..BURST_MAX {
            let Some(len) = socket.receive(&mut buffer)? else {
                break;
            };
            // A frame longer than the buffer arrives cut, and is no datagram then.
            let frame = buffer.get_mut(..len).unwrap_or_default();
            if turn(frame) {
                socket.send(frame)?;
                counters.reflected += 1;
            }
        }
    }
    report::print(&counters)
}

/// Exchanges source and destination of a UDP datagram; false for anything else. Sums stay what they are.
fn turn(frame: &mut [u8]) -> bool {
    let Some((ip_at, address_len, ports_at)) = ends(frame) else {
        return false;
    };
    exchange(frame, 0, MAC_LEN);
    exchange(frame, ip_at, address_len);
    exchange(frame, ports_at, 2);
    true
}

/// Where the addresses begin, how long one is, and where the ports begin.
fn ends(frame: &[u8]) -> Option<(usize, usize, usize)> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let TransportSlice::Udp(udp) = sliced.transport? else {
        return None;
    };
    let at = |part: &[u8]| part.as_ptr() as usize - frame.as_ptr() as usize;
    let (ip_at, address_len) = match sliced.net? {
        NetSlice::Ipv4(ip) => (at(ip.header().slice()) + 12, 4),
        NetSlice::Ipv6(ip) => (at(ip.header().slice()) + 8, 16),
        NetSlice::Arp(_) => return None,
    };
    Some((ip_at, address_len, at(udp.slice())))
}

fn exchange(frame: &mut [u8], at: usize, len: usize) {
    if let Some(both) = frame.get_mut(at..at + 2 * len) {
        both.rotate_left(len);
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    #[test]
    fn a_datagram_goes_back_with_sums_that_are_right() {
        let (a, b) = ([1; 6], [2; 6]);
        let builders = [
            |a, b, from: u8, to: u8| PacketBuilder::ethernet2(a, b).ipv4([from; 4], [to; 4], 9),
            |a, b, from: u8, to: u8| PacketBuilder::ethernet2(a, b).ipv6([from; 16], [to; 16], 9),
        ];
        for builder in builders {
            let (mut there, mut back) = (Vec::new(), Vec::new());
            let payload = b"the same";
            builder(a, b, 7, 8)
                .udp(1, 2)
                .write(&mut there, payload)
                .unwrap();
            builder(b, a, 8, 7)
                .udp(2, 1)
                .write(&mut back, payload)
                .unwrap();
            assert!(turn(&mut there));
            assert_eq!(there, back);
            for len in 0..there.len() {
                turn(&mut there[..len].to_vec());
            }
        }
    }

    #[test]
    fn nothing_else_goes_back() {
        let mut segment = Vec::new();
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4([7; 4], [8; 4], 9);
        builder.tcp(1, 2, 3, 4).write(&mut segment, &[]).unwrap();
        let before = segment.clone();
        assert!(!turn(&mut segment));
        assert_eq!(segment, before);
    }
}
