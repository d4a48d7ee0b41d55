//! Entry of the fuzz target `pipeline_no_leak`, also run by the tests on its corpus.
//!
//! An input is any number of records: one byte that chooses the port (low two bits) and how the packet
//! is cut into frames (the rest), two bytes of length, and the packet. The length's highest bit asks for right
//! transport checksums, without which nothing from the wire is merged. A record with length 0xffff lets 300 ms pass
//! instead; its highest two bits of the first byte say what policies deny from then on.

use std::cell::RefCell;
use std::net::{Ipv4Addr, Ipv6Addr};

use weft_wire::{Layers, Protocol, checksum};

use crate::encap::vxlan;
use crate::packet::PortId;
use crate::table::policy::{Rule, RuleId, RuleVerdict};
use crate::table::service::{FrontendKey, FrontendSpec, ServiceId, ServiceSpec};
use crate::testbed::{ANYBODY, Testbed, ip};

/// Time a record without packet lets pass.
const PAUSE_NS: u64 = 300_000_000;

/// Longest packet.
const PACKET_MAX: usize = REPAIR as usize - 1;

/// Bit of the length that asks for right checksums.
const REPAIR: u16 = 0x8000;

/// Packets of one input; more of them find nothing that fewer do not.
const PACKETS_MAX: usize = 64;

/// Few enough that an input can fill the table.
const FLOWS: u32 = 12;

/// Longer than any connection may be silent: six days.
const FOREVER_NS: u64 = 6 * 86_400_000_000_000;

thread_local! {
    /// A process can make only so many memories, and making one takes longer than an input.
    static TESTBED: RefCell<Testbed> = RefCell::new(testbed());
}

fn testbed() -> Testbed {
    with_services(Testbed::with_flows(FLOWS))
}

/// A service of each family, port 80 of TCP, UDP and SCTP, also of the node's addresses, which pod A, pod B and a pod far away answer.
fn with_services(mut bed: Testbed) -> Testbed {
    let services = [
        ("10.96.0.10", ["10.1.1.10", "10.1.1.11", "10.1.2.20"]),
        (
            "fd00:96::10",
            ["fd00:1:1::10", "fd00:1:1::11", "fd00:1:2::20"],
        ),
    ];
    for (number, (address, backends)) in services.into_iter().enumerate() {
        let inside = FrontendKey {
            address: ip(address),
            protocol: 0,
            port: 80,
        };
        let frontend = |key: FrontendKey, protocol: Protocol| FrontendSpec {
            inside_backends: None,
            key: FrontendKey {
                protocol: protocol.0,
                ..key
            },
            keeps_source: false,
            direct: false,
            drops: false,
            sources: None,
            backends: vec![0, 1, 2],
        };
        let spec = ServiceSpec {
            backends: backends.map(|it| (ip(it), 8080)).into(),
            frontends: [Protocol::TCP, Protocol::UDP, Protocol::SCTP]
                .into_iter()
                .flat_map(|it| [frontend(inside, it), frontend(inside.of_node(), it)])
                .collect(),
            ..ServiceSpec::default()
        };
        let id = ServiceId(number as u32);
        bed.change(|builder| builder.services().set(id, &spec));
    }
    bed
}

/// Runs an input through a pipeline. Panics when a packet is left without verdict or a frame is lost.
pub fn pipeline_no_leak(input: &[u8]) {
    TESTBED.with_borrow_mut(|bed| {
        // Some 35,000 inputs further the clock's 64 bits would be over.
        if bed.now_ns > u64::MAX - 2 * FOREVER_NS {
            *bed = testbed();
        }
        for records in records(input).chunks(4) {
            let mut packets = Vec::new();
            for record in records {
                match record {
                    Record::Pause { denied } => {
                        bed.now_ns += PAUSE_NS;
                        deny(bed, *denied);
                    }
                    Record::Packet {
                        port,
                        pieces,
                        bytes,
                    } => {
                        bed.pieces.clone_from(pieces);
                        packets.push((*port, bytes.clone()));
                    }
                }
            }
            bed.run(&packets);
            bed.expire();
        }
        // Nothing held may outlive its time, whatever was sent.
        bed.now_ns += 2_000_000_000;
        bed.expire();
        assert_eq!(bed.pipeline.held(), 0, "held fragments time out");
        assert!(bed.pipeline.flows().len() <= FLOWS as usize);
        bed.now_ns += FOREVER_NS;
        bed.expire();
        assert!(bed.pipeline.flows().is_empty(), "connections time out");
        bed.pieces.clear();
        deny(bed, 0);
    });
}

/// Lets policies deny nothing, TCP, low ports of UDP, or everything.
fn deny(bed: &mut Testbed, denied: u8) {
    let rule = |protocol: Option<Protocol>, ports| Rule {
        tier: 1,
        peer: None,
        protocol: protocol.map(|it| it.0),
        ports,
        verdict: RuleVerdict::Deny,
        id: RuleId(denied.into()),
    };
    let rules = match denied {
        0 => Vec::new(),
        1 => vec![rule(Some(Protocol::TCP), None)],
        2 => vec![rule(Some(Protocol::UDP), Some((0, 1023)))],
        _ => vec![rule(None, None)],
    };
    bed.change(|builder| builder.policy().set_rules(ANYBODY, rules, Vec::new()));
}

enum Record {
    Pause {
        denied: u8,
    },
    Packet {
        port: PortId,
        pieces: Vec<usize>,
        bytes: Vec<u8>,
    },
}

fn records(input: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    let mut rest = input;
    while let [control, high, low, bytes @ ..] = rest {
        if records.len() == PACKETS_MAX {
            break;
        }
        let word = u16::from_be_bytes([*high, *low]);
        if word == u16::MAX {
            records.push(Record::Pause {
                denied: control >> 6,
            });
            rest = bytes;
            continue;
        }
        let len = usize::from(word & !REPAIR);
        let (packet, next) = bytes.split_at(len.min(bytes.len()));
        // Eight pieces and the rest in whole frames stay below the longest chain.
        let packet = &packet[..packet.len().min(PACKET_MAX)];
        let pieces = match control >> 2 {
            0 => Vec::new(),
            cut => vec![usize::from(cut) * 4; 8],
        };
        let port = PortId(u16::from(control & 3));
        if !packet.is_empty() {
            let mut bytes = packet.to_vec();
            if word & REPAIR != 0 {
                repair(&mut bytes);
            }
            records.push(Record::Packet {
                port,
                pieces,
                bytes,
            });
        }
        rest = next;
    }
    records
}

/// Makes the transport checksums of a frame right, of the one in a tunnel first.
fn repair(frame: &mut [u8]) {
    for underlay in [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
        if let Some(inner) = frame.get_mut(vxlan::front_len(underlay)..) {
            fill_checksum(inner);
        }
    }
    fill_checksum(frame);
}

fn fill_checksum(frame: &mut [u8]) -> Option<()> {
    let layers = Layers::parse(frame, frame.len()).ok()?;
    let at = layers.checksum_at()?;
    let seed = layers.pseudo_sum(frame).ok()?;
    frame.get_mut(at..at + 2)?.fill(0);
    let upper = frame.get(usize::from(layers.l4)..layers.end as usize)?;
    let value = checksum::finish_udp(seed + checksum::sum(upper));
    frame
        .get_mut(at..at + 2)?
        .copy_from_slice(&value.to_be_bytes());
    Some(())
}

/// The record of one packet, for making inputs.
pub fn record(port: PortId, packet: &[u8]) -> Vec<u8> {
    let mut bytes = vec![port.0 as u8 & 3];
    bytes.extend_from_slice(&(packet.len().min(PACKET_MAX) as u16).to_be_bytes());
    bytes.extend_from_slice(packet);
    bytes
}
