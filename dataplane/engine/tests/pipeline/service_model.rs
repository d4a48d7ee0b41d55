//! Random clients and services against a plain model: a map from what a client sends to what goes on.

use std::collections::HashMap;
use std::net::IpAddr;

use proptest::prelude::*;
use weft_engine::table::service::Algorithm;
use weft_engine::testbed::*;
use weft_engine::{PortId, ServiceId, ServiceSpec, Verdict};
use weft_wire::{Protocol, TcpFlags, build};

use crate::service::{Ends, ends_of, frontend, inner};
use crate::{is_intact, sent};

/// Who may be a client or a backend, by family: pods A and B, two pods of remote four, the node.
const HOSTS: [[&str; 5]; 2] = [
    [
        "10.1.1.10",
        "10.1.1.11",
        "10.1.2.5",
        "10.1.2.6",
        "10.1.1.254",
    ],
    [
        "fd00:1:1::10",
        "fd00:1:1::11",
        "fd00:1:2::5",
        "fd00:1:2::6",
        "fd00:1:1::fe",
    ],
];

/// Those of them that can answer a service.
const BACKENDS: usize = 4;

/// Addresses of services.
const SERVICES: [[&str; 3]; 2] = [
    ["10.96.0.1", "10.96.0.2", "10.96.0.3"],
    ["fd00:96::1", "fd00:96::2", "fd00:96::3"],
];

#[derive(Clone, Debug)]
enum Step {
    /// A client sends to a service.
    Ask {
        client: usize,
        service: usize,
        port: u16,
        tcp: bool,
        len: usize,
    },
    /// A backend answers one of the connections.
    Answer { which: usize, len: usize },
    /// Who answers a service changes, but nobody goes whom a connection has.
    Rebalance { service: usize, mask: u8 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ask = (
        0..3_usize,
        0..3_usize,
        1..5_u16,
        any::<bool>(),
        0..2000_usize,
    );
    let ask = ask.prop_map(|(client, service, port, tcp, len)| Step::Ask {
        // The far pods ask their own node.
        client: [0, 1, 4][client],
        service,
        port,
        tcp,
        len,
    });
    let answer =
        (any::<usize>(), 0..2000_usize).prop_map(|(which, len)| Step::Answer { which, len });
    let rebalance =
        (0..3_usize, 1..16_u8).prop_map(|(service, mask)| Step::Rebalance { service, mask });
    prop::collection::vec(prop_oneof![4 => ask, 4 => answer, 1 => rebalance], 1..60)
}

struct Model {
    bed: Testbed,
    family: usize,
    algorithm: Algorithm,
    masks: [u8; 3],
    /// What goes on, by what a client sent.
    connections: HashMap<(bool, Ends), Ends>,
    /// In the order in which they began.
    order: Vec<(bool, Ends)>,
}

impl Model {
    fn new(family: usize, algorithm: Algorithm) -> Self {
        let mut model = Self {
            bed: Testbed::new(),
            family,
            algorithm,
            masks: [0b1111; 3],
            connections: HashMap::new(),
            order: Vec::new(),
        };
        (0..3).for_each(|it| model.publish(it));
        model
    }

    fn publish(&mut self, service: usize) {
        let hosts = &HOSTS[self.family][..BACKENDS];
        let address = SERVICES[self.family][service];
        let chosen: Vec<u32> = (0..BACKENDS as u32)
            .filter(|it| self.masks[service] >> it & 1 == 1)
            .collect();
        let spec = ServiceSpec {
            algorithm: self.algorithm,
            affinity_seconds: None,
            backends: hosts.iter().map(|it| (ip(it), 8080)).collect(),
            frontends: [Protocol::TCP, Protocol::UDP]
                .map(|protocol| {
                    let mut frontend = frontend(address, protocol, 0);
                    frontend.backends.clone_from(&chosen);
                    frontend
                })
                .into(),
        };
        let id = ServiceId(service as u32);
        self.bed.change(|builder| builder.services().set(id, &spec));
    }

    fn port_of(&self, address: IpAddr) -> PortId {
        let hosts = HOSTS[self.family].map(ip);
        match hosts.iter().position(|it| *it == address) {
            Some(0) => A,
            Some(1) => B,
            Some(4) => NODE,
            _ => UPLINK,
        }
    }

    /// Sends a packet from where its source is, and returns what goes out, checked.
    fn send(&mut self, packet: &build::Packet, source: IpAddr) -> (PortId, Ends) {
        let from = self.port_of(source);
        let out = if from == UPLINK {
            self.bed.one(UPLINK, &from_four(packet))
        } else {
            self.bed.one(from, packet)
        };
        let Verdict::Tx(port) = out.verdict else {
            panic!("{:?} of a packet from {source}", out.verdict);
        };
        let bytes = sent(&out, port);
        let frame = if port == UPLINK { inner(bytes) } else { bytes };
        assert!(is_intact(frame));
        (port, ends_of(frame))
    }

    fn packet(&self, tcp: bool, (from, to): Ends, flags: TcpFlags, len: usize) -> build::Packet {
        let packet = packet(&from.0.to_string(), &to.0.to_string());
        // What fits the tunnel whole, so that one packet goes out.
        let len = len.min(1300);
        if tcp {
            let packet = packet.tcp(from.1, to.1).flags(flags);
            packet.payload_len(if flags.contains(TcpFlags::SYN) {
                0
            } else {
                len
            })
        } else {
            packet.udp(from.1, to.1).payload_len(len)
        }
    }

    fn ask(&mut self, tcp: bool, asked: Ends, service: usize, len: usize) {
        let known = self.connections.get(&(tcp, asked)).copied();
        let packet = self.packet(tcp, asked, TcpFlags::SYN, len);
        let (port, went) = self.send(&packet, asked.0.0);
        assert_eq!(port, self.port_of(went.1.0), "it goes where its backend is");
        if let Some(known) = known {
            assert_eq!(went, known, "a connection stays as it is");
            return;
        }
        let hosts = HOSTS[self.family].map(ip);
        let backend = hosts.iter().position(|it| *it == went.1.0).unwrap();
        assert!(self.masks[service] >> backend & 1 == 1, "{went:?}");
        assert_eq!(went.1.1, 8080);
        let to_itself = asked.0.0 == went.1.0;
        let weft0 = hosts[4];
        assert_eq!(went.0.0, if to_itself { weft0 } else { asked.0.0 });
        let taken = self
            .connections
            .iter()
            .any(|((other, _), it)| *other == tcp && *it == went);
        assert!(!taken, "no two connections look alike to a backend");
        self.connections.insert((tcp, asked), went);
        self.order.push((tcp, asked));
    }

    fn answer(&mut self, which: usize, len: usize) {
        if self.order.is_empty() {
            return;
        }
        let (tcp, asked) = self.order[which % self.order.len()];
        let went = self.connections[&(tcp, asked)];
        let flags = TcpFlags::SYN | TcpFlags::ACK;
        let packet = self.packet(tcp, (went.1, went.0), flags, len);
        let (port, came_back) = self.send(&packet, went.1.0);
        assert_eq!(came_back, (asked.1, asked.0), "the service answers");
        assert_eq!(port, self.port_of(asked.0.0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn packets_are_what_the_model_says(steps in steps(), family in 0..2_usize, algorithm in 0..3_usize) {
        let algorithms = [Algorithm::Maglev, Algorithm::Random, Algorithm::LeastConnections];
        let mut model = Model::new(family, algorithms[algorithm]);
        for step in steps {
            model.bed.now_ns += 1_000_000;
            match step {
                Step::Ask { client, service, port, tcp, len } => {
                    let client = (ip(HOSTS[family][client]), port);
                    let address = (ip(SERVICES[family][service]), 80);
                    model.ask(tcp, (client, address), service, len);
                }
                Step::Answer { which, len } => model.answer(which, len),
                Step::Rebalance { service, mask } => {
                    model.masks[service] = mask;
                    model.publish(service);
                }
            }
        }
        let begun = model.bed.pipeline.counters().flows.new;
        prop_assert_eq!(begun as usize, model.connections.len());
    }
}
