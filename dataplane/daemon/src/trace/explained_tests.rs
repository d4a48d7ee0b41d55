//! What `weft policy explain` says is what becomes of the packet: generated clusters compiled by the agent's code,
//! tables by this crate's, packets through the workers' pipeline.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::json;
use weft_api::dataplane::PortSpec;
use weft_api::explain::{PolicyExplained, PolicyOutcome, PolicyQuestion};
use weft_api::object::Object;
use weft_api::trace::PacketDescription;
use weft_api::{MacAddr, PodRef};
use weft_engine::testbed::{NODE, Testbed, UPLINK};
use weft_engine::{
    Connection, DropReason, Pipeline, PipelineConfig, PolicyCounters, Traffic, Verdict,
};
use weft_keeper::protocol::{PortRecord, XdpMode};
use weft_model::compile::testing::{Cluster, Packet, generator};
use weft_model::compile::{ClusterConfig, Compiler as Model};
use weft_model::state::Store;
use weft_wire::{Protocol, TcpFlags};

use super::*;
use crate::objects::ObjectStore;

const CLUSTERS: u64 = 40;
const PACKETS: usize = 60;

/// Tuples that have to be tried, before and again after entries are altered.
const TUPLES_MIN: u32 = 1_000;

/// The other node, with the pods that are not here.
const FAR: &str = "node-2";

/// `node-1` of a generated cluster. Ports `NODE` and `UPLINK` are what they are in the testbed, the pods have the others.
struct Rig {
    objects: ObjectStore,
    ports: Ports,
    compiler: Compiler,
    bed: Testbed,
    far: Vec<IpAddr>,
}

fn port(id: PortId, kind: PortKind, addresses: &[IpAddr], pod: Option<&PodRef>) -> AttachedPort {
    let name = format!("port{}", id.0);
    AttachedPort {
        record: PortRecord {
            id: id.0,
            ifname: name.clone(),
            ifindex: u32::from(id.0) + 1,
            kind,
            queues: Vec::new(),
            packet_socket: false,
            shortcuts: false,
            xdp_mode: XdpMode::Generic,
            config: serde_json::Value::Null,
        },
        spec: PortSpec {
            name: PortName(name),
            kind,
            mac: MacAddr([2, 0, 0, 0, 0, id.0 as u8]),
            addresses: addresses.to_vec(),
            mtu: 65_535,
            pod: pod.cloned(),
            netns: None,
        },
        homes: Vec::new(),
        counters: Vec::new(),
    }
}

fn nodes(far: &[IpAddr]) -> Vec<Object> {
    let prefixes: Vec<String> = far
        .iter()
        .map(|it| ipnet::IpNet::from(*it).to_string())
        .collect();
    let objects = json!([
        {"kind": "local_node", "name": "node-1", "addresses": ["192.0.2.1", "2001:db8::1"], "pod_cidrs": [],
            "node_port_addresses": ["10.9.0.1", "fd09::1"], "node_port_mac": "02:00:00:00:00:02", "vni": 7,
            "vxlan_port": 4789},
        {"kind": "remote_node", "name": FAR, "addresses": ["192.0.2.2", "2001:db8::2"], "vtep": "192.0.2.2",
            "pod_cidrs": prefixes},
        {"kind": "underlay_path", "vtep": "192.0.2.2", "ifname": "port3", "source": "192.0.2.1",
            "source_mac": "02:00:00:00:00:03", "next_hop_mac": "52:00:00:00:00:02", "mtu": 1500},
    ]);
    serde_json::from_value(objects).unwrap()
}

impl Rig {
    fn new(cluster: &Cluster) -> Self {
        let mut store = Store::default();
        cluster.apply_to(&mut store);
        let compiled = Model::new(ClusterConfig::of_node("node-1")).compile(&store, &cluster.local);
        let policies: Vec<Object> = compiled.desired.policy.objects().collect();
        let is_here = |pod: &PodRef| cluster.local.iter().any(|local| local.pod == *pod);
        let far = policies.iter().filter_map(|object| match object {
            Object::PolicyAddress(it) if !is_here(it.pod.as_ref()?) => Some(it.prefix.addr()),
            _ => None,
        });
        let far: Vec<IpAddr> = far.collect();
        let mut objects = ObjectStore::default();
        objects.upsert(1, nodes(&far)).unwrap();
        objects.upsert(1, policies).unwrap();
        let mut ports = Ports::default();
        ports.insert(port(NODE, PortKind::Node, &[], None));
        ports.insert(port(UPLINK, PortKind::Uplink, &[], None));
        let ids = (0..).map(PortId).filter(|id| ![NODE, UPLINK].contains(id));
        for (id, local) in ids.zip(&cluster.local) {
            ports.insert(port(id, PortKind::Pod, &local.addresses, Some(&local.pod)));
        }
        let mut compiler = Compiler::default();
        let mut bed = Testbed::new();
        bed.tables = compiler.tables(objects.objects(), &ports);
        Self {
            objects,
            ports,
            compiler,
            bed,
            far,
        }
    }

    fn view(&self) -> View<'_> {
        View::new(&self.objects, &self.ports, &self.bed.tables, &self.compiler)
    }

    fn explain(&self, packet: &Packet) -> PolicyExplained {
        let question = PolicyQuestion {
            source: packet.source.to_string(),
            destination: packet.destination.to_string(),
            protocol: packet.protocol,
            port: Some(packet.port),
        };
        self.view().explain(&question).unwrap()
    }

    /// The packet as it comes, and from where.
    fn frame(&self, packet: &Packet) -> (PortId, Vec<u8>) {
        let is_far = self.far.contains(&packet.source)
            || ["192.0.2.2", "2001:db8::2"].contains(&packet.source.to_string().as_str());
        let from_pod = self
            .ports
            .iter()
            .find(|it| it.spec.addresses.contains(&packet.source));
        let id = match from_pod {
            Some(port) => PortId(port.record.id),
            None if is_far => UPLINK,
            None => NODE,
        };
        let description = PacketDescription {
            protocol: packet.protocol,
            source: Some(packet.source.to_string()),
            destination: packet.destination.to_string(),
            source_port: 40_000,
            destination_port: packet.port,
            tcp_flags: TcpFlags::SYN.0,
            from_node: (id == UPLINK).then(|| FAR.to_owned()),
            ..PacketDescription::default()
        };
        let place = Place {
            ports: &self.ports,
            compiler: &self.compiler,
            tables: &self.bed.tables,
            view: self.view(),
        };
        let port = self.ports.iter().find(|it| it.record.id == id.0).unwrap();
        (id, place.build(port, &description).unwrap())
    }

    /// Sends it as the first packet a worker ever sees.
    fn send(&mut self, packet: &Packet) -> (Verdict, PolicyCounters) {
        self.bed.pipeline = Pipeline::new(PipelineConfig {
            flows: 16,
            ..PipelineConfig::default()
        });
        let frame = self.frame(packet);
        let ran = self.bed.run(&[frame]);
        (
            ran.packets[0].verdict,
            self.bed.pipeline.policy_counters().clone(),
        )
    }

    /// Asserts that the answer and the packet's end agree, down to the rule; tells whether it may pass.
    fn agree(&mut self, packet: &Packet) -> bool {
        let explained = self.explain(packet);
        let (verdict, counters) = self.send(packet);
        let wanted = match (explained.egress.outcome, explained.ingress.outcome) {
            (PolicyOutcome::NoPolicy, _) => Some(DropReason::NoPolicy),
            (PolicyOutcome::Denied, _) => Some(DropReason::PolicyEgress),
            (_, PolicyOutcome::NoPolicy) => Some(DropReason::NoPolicy),
            (_, PolicyOutcome::Denied) => Some(DropReason::PolicyIngress),
            _ => None,
        };
        match (verdict, wanted) {
            (Verdict::Tx(_), None) => {}
            (Verdict::Drop(reason), Some(wanted)) if reason == wanted => {}
            _ => panic!("{packet:?}: {verdict:?} where it was explained as {explained:?}"),
        }
        assert_eq!(explained.allowed, wanted.is_none());
        let deciding = match wanted {
            Some(DropReason::PolicyEgress) => vec![&explained.egress],
            Some(_) => vec![&explained.ingress],
            None => vec![&explained.egress, &explained.ingress],
        };
        for origin in deciding.iter().filter_map(|side| side.origin.as_ref()) {
            let (allowed, denied) = counters.of(self.compiler.policies().rule_id(origin));
            assert_eq!(
                (allowed > 0, denied > 0),
                (explained.allowed, !explained.allowed),
                "{origin:?} decided"
            );
        }
        explained.allowed
    }

    /// Turns round the entry that decides about a packet.
    fn alter(&mut self, packet: &Packet) -> bool {
        let node = self.bed.tables.node().unwrap();
        let connection = Connection {
            source: packet.source,
            destination: packet.destination,
            traffic: Traffic::new(Protocol(packet.protocol), packet.port),
            from_node: node.owns(packet.source),
        };
        self.bed.tables.alter(&connection).is_some()
    }
}

fn packets(cluster: &Cluster, seed: u64) -> Vec<Packet> {
    let packets = generator::packets(cluster, seed, PACKETS);
    let two_ends = packets.into_iter().filter(|it| it.source != it.destination);
    two_ends.collect()
}

#[test]
fn the_answer_is_the_verdict_on_the_packet() {
    let mut ends = BTreeMap::from([(false, 0), (true, 0)]);
    for seed in 0..CLUSTERS {
        let cluster = generator::cluster(seed);
        let mut rig = Rig::new(&cluster);
        for packet in packets(&cluster, seed) {
            *ends.entry(rig.agree(&packet)).or_default() += 1;
        }
    }
    assert!(ends.values().sum::<u32>() >= TUPLES_MIN, "{ends:?}");
    assert!(
        ends.values().all(|count| *count >= TUPLES_MIN / 5),
        "{ends:?}"
    );
}

#[test]
fn an_altered_entry_alters_the_answer_and_the_packets_end_alike() {
    let (mut tuples, mut turned) = (0, BTreeMap::from([(false, 0), (true, 0)]));
    for seed in 0..CLUSTERS {
        let cluster = generator::cluster(seed);
        let packets = packets(&cluster, seed);
        for chosen in packets.iter().step_by(PACKETS / 6) {
            let mut rig = Rig::new(&cluster);
            let before = rig.agree(chosen);
            if !rig.alter(chosen) {
                continue;
            }
            for packet in &packets {
                rig.agree(packet);
            }
            tuples += packets.len();
            let after = rig.agree(chosen);
            *turned.entry(after).or_default() += u32::from(before != after);
            assert!(!(before && after), "{chosen:?} is denied now");
        }
    }
    assert!(tuples >= TUPLES_MIN as usize);
    assert!(turned.values().all(|count| *count >= 10), "{turned:?}");
}
