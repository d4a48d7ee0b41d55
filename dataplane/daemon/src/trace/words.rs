//! What each stage did to a packet, in words.

use weft_api::dataplane::PortKind;
use weft_api::explain::{PolicyOutcome, PolicySide};
use weft_api::trace::{TraceStep, TraceVerdict, TraceWay};
use weft_engine::packet::Headers;
use weft_engine::trace::{Sight, Way};
use weft_engine::{
    Checksum, Egress, Network, Origin, PortId, RemoteId, ServiceId, Stage, Traffic, Verdict,
};
use weft_wire::{EthernetHeader, Ipv4Header, Ipv6Header, Protocol, TcpFlags};

use super::Place;

/// Flags as tcpdump writes them.
const FLAG_LETTERS: [(TcpFlags, char); 6] = [
    (TcpFlags::SYN, 'S'),
    (TcpFlags::FIN, 'F'),
    (TcpFlags::RST, 'R'),
    (TcpFlags::PSH, 'P'),
    (TcpFlags::ACK, '.'),
    (TcpFlags::URG, 'U'),
];

impl Place<'_> {
    /// The way of a traced packet.
    pub(super) fn way(&self, way: &Way, verdict: Verdict) -> TraceWay {
        let mut steps = Vec::new();
        let mut before: Option<&Sight> = None;
        for step in &way.steps {
            let sight = &step.sight;
            let text = match sight.verdict {
                Verdict::Drop(reason) if step.stage != Stage::Policy => {
                    Some(format!("dropped: {}", reason.name()))
                }
                _ => self.words(step.stage, before, sight),
            };
            steps.extend(text.map(|text| TraceStep {
                stage: step.stage.name().to_owned(),
                text,
            }));
            before = Some(sight);
        }
        self.conclude(steps, verdict)
    }

    /// The way of a packet that the pipeline made.
    pub(super) fn born(&self, way: &Way) -> TraceWay {
        let verdict = way.end().map(|it| it.verdict).unwrap_or_default();
        let mut told = self.way(way, verdict);
        if let Some(end) = way.end() {
            let made = if end.origin == Origin::Built {
                "made"
            } else {
                "released"
            };
            told.text = format!("{made} {}: {}", headers(&end.headers), told.text);
        }
        told
    }

    fn conclude(&self, steps: Vec<TraceStep>, verdict: Verdict) -> TraceWay {
        let name = |id: PortId| {
            let mut ports = self.ports.iter();
            let port = ports.find(|it| it.record.id == id.0);
            port.map(|it| it.spec.name.clone())
        };
        let (verdict, port, reason, text) = match verdict {
            Verdict::Tx(id) if self.is_host(id) => {
                let text = "given to the node's own stack".to_owned();
                (TraceVerdict::Host, name(id), None, text)
            }
            Verdict::Tx(id) => {
                let text = format!("sent by {}", self.port_name(id));
                (TraceVerdict::Tx, name(id), None, text)
            }
            Verdict::Drop(reason) => {
                let text = format!("dropped ({}): {}", reason.name(), reason.describe());
                (TraceVerdict::Drop, None, Some(reason.name()), text)
            }
            Verdict::Consumed | Verdict::Merged | Verdict::HandOver(_) | Verdict::Pending => {
                let text = "taken by the pipeline".to_owned();
                (TraceVerdict::Consumed, None, None, text)
            }
        };
        TraceWay {
            steps,
            verdict,
            port,
            reason: reason.map(str::to_owned),
            text,
        }
    }

    /// What the stage did; none where it had nothing to do.
    fn words(&self, stage: Stage, before: Option<&Sight>, sight: &Sight) -> Option<String> {
        let is_fragment = sight.headers.fragment.is_some();
        match stage {
            Stage::Parse => Some(format!("{}, {} bytes", headers(&sight.headers), sight.len)),
            Stage::Decap if sight.outside.is_some() => {
                Some("from outside the cluster to a service".to_owned())
            }
            Stage::Decap => Some(format!(
                "from {} through the tunnel: {}, {} bytes",
                self.remote_name(sight.tunnel?),
                headers(&sight.headers),
                sight.len
            )),
            Stage::Source => Some("the sender may use its address".to_owned()),
            Stage::Gateway => match sight.verdict {
                Verdict::Tx(_) => Some("answered in the gateway's name".to_owned()),
                Verdict::Consumed => Some("heard, nothing to answer".to_owned()),
                _ => None,
            },
            Stage::Owner => None,
            Stage::Conntrack => Some("taken for the first packet of its connection".to_owned()),
            Stage::Service => self.service(sight),
            Stage::Policy => Some(self.policy(sight)),
            Stage::Fragment if sight.verdict == Verdict::Consumed => {
                Some("held until its first fragment comes".to_owned())
            }
            Stage::Fragment => is_fragment.then(|| "a first fragment: others follow it".to_owned()),
            Stage::Route => self.route(sight),
            Stage::Rewrite => Some(rewritten(before, sight)),
            Stage::Encap => self.encap(sight),
            Stage::Offload => offload(before, sight),
        }
    }

    /// `shop/web: tcp 10.1.1.10:4000 > 10.96.0.10:80 becomes tcp 10.1.1.10:4000 > 10.1.1.11:8080`.
    fn service(&self, sight: &Sight) -> Option<String> {
        let translation = sight.translation?;
        let (came, goes) = (headers(&came(sight)), headers(&sight.headers));
        let chosen = translation.chosen.and_then(|(id, _)| self.service_name(id));
        let service = chosen.unwrap_or_else(|| "a service".to_owned());
        Some(format!("{service}: {came} becomes {goes}"))
    }

    fn service_name(&self, id: ServiceId) -> Option<String> {
        let (namespace, name) = self.compiler.services().name(id)?;
        Some(format!("{namespace}/{name}"))
    }

    fn policy(&self, sight: &Sight) -> String {
        let headers = &sight.headers;
        let traffic = Traffic::new(headers.protocol, headers.ports.1);
        let came = sight.translation.map(|it| it.came.source());
        let source = came.unwrap_or(headers.source);
        if source == headers.destination {
            return "allowed: to itself".to_owned();
        }
        let (egress, ingress) = self.view.sides(source, headers.destination, traffic);
        format!("egress {}, ingress {}", side(&egress), side(&ingress))
    }

    fn route(&self, sight: &Sight) -> Option<String> {
        let way = match sight.egress {
            Egress::Unknown => return None,
            Egress::Local(id) => format!("to local port {}", self.port_name(id)),
            Egress::Host { own: true, .. } => "to the node itself".to_owned(),
            Egress::Host { own: false, .. } => {
                "out of the cluster, by the node's own stack".to_owned()
            }
            Egress::Remote(id) => format!("to node {}", self.remote_name(id)),
            Egress::Outside(next_hop) => {
                let port = self.port_name(next_hop.port);
                format!("out of the cluster, by {port} to {}", next_hop.mac)
            }
        };
        Some(match sight.cut_to {
            Some(mtu) => format!("{way}, in packets of at most {mtu} bytes"),
            None => way,
        })
    }

    fn encap(&self, sight: &Sight) -> Option<String> {
        let Egress::Remote(id) = sight.egress else {
            return None;
        };
        let (remote, node) = (self.tables.remote(id)?, self.tables.node()?);
        let path = remote.path?;
        Some(format!(
            "VXLAN vni {}, {} > {} by {} to {}, {} bytes",
            node.vni,
            path.source,
            remote.vtep,
            self.port_name(sight.uplink),
            path.next_hop_mac,
            sight.len
        ))
    }

    fn is_host(&self, id: PortId) -> bool {
        self.ports.node_port() == Some(id)
    }

    fn port_name(&self, id: PortId) -> String {
        let mut ports = self.ports.iter();
        let Some(port) = ports.find(|it| it.record.id == id.0) else {
            return format!("port {}", id.0);
        };
        match &port.spec.pod {
            Some(pod) if port.spec.kind == PortKind::Pod => format!("{} of {pod}", port.spec.name),
            _ => port.spec.name.to_string(),
        }
    }

    fn remote_name(&self, id: RemoteId) -> String {
        let name = self.compiler.remote_name(id);
        name.map_or_else(|| format!("node {}", id.0), str::to_owned)
    }
}

/// The headers the packet came with.
pub(super) fn came(sight: &Sight) -> Headers {
    match &sight.translation {
        None => sight.headers,
        Some(translation) => Headers {
            source: translation.came.source(),
            destination: translation.came.destination(),
            ports: translation.came.ports(),
            ..sight.headers
        },
    }
}

fn side(side: &PolicySide) -> String {
    match (side.outcome, &side.origin) {
        (PolicyOutcome::Allowed, Some(by)) => format!("allowed by {} {}", by.object, by.rule),
        (PolicyOutcome::Allowed, None) => "allowed".to_owned(),
        (PolicyOutcome::Denied, Some(by)) => format!("denied by {} {}", by.object, by.rule),
        (PolicyOutcome::Denied, None) => "denied".to_owned(),
        (PolicyOutcome::NoPolicy, _) => "denied: its rules have not arrived".to_owned(),
        (PolicyOutcome::Exempt, _) => "allowed: from the node itself".to_owned(),
        (PolicyOutcome::Elsewhere, _) => "not decided here".to_owned(),
    }
}

/// `tcp 10.1.1.10:4000 > 10.1.1.11:80 [S]`.
fn headers(headers: &Headers) -> String {
    let (source, destination) = (headers.source, headers.destination);
    let (from, to) = headers.ports;
    let with_ports = |name: &str| {
        let end = std::net::SocketAddr::new;
        format!("{name} {} > {}", end(source, from), end(destination, to))
    };
    match (headers.network, headers.protocol) {
        (Network::None, _) => "no IP packet".to_owned(),
        (Network::Arp, _) => "ARP".to_owned(),
        _ if !headers.has_upper_header() => format!("later fragment {source} > {destination}"),
        (_, Protocol::TCP) => {
            let set = |(flag, letter): &(TcpFlags, char)| {
                headers.tcp_flags.contains(*flag).then_some(*letter)
            };
            let letters: String = FLAG_LETTERS.iter().filter_map(set).collect();
            format!("{} [{letters}]", with_ports("tcp"))
        }
        (_, Protocol::UDP) => with_ports("udp"),
        (_, Protocol::SCTP) => with_ports("sctp"),
        (_, Protocol::ICMP) => format!("icmp {source} > {destination}"),
        (_, Protocol::ICMPV6) => format!("icmpv6 {source} > {destination}"),
        (_, other) => format!("protocol {} {source} > {destination}", other.0),
    }
}

/// TTL or hop limit of the packet as the stages see it.
fn hops(sight: &Sight) -> Option<u8> {
    let ip = sight.front.get(usize::from(sight.headers.l3)..)?;
    match sight.headers.network {
        Network::V4 => Ipv4Header::parse(ip).ok().map(|(ip, _)| ip.ttl()),
        Network::V6 => Ipv6Header::parse(ip).ok().map(|(ip, _)| ip.hop_limit()),
        Network::None | Network::Arp => None,
    }
}

fn rewritten(before: Option<&Sight>, sight: &Sight) -> String {
    let (old, new) = (before.and_then(hops), hops(sight));
    let hops = match (old, new) {
        (Some(old), Some(new)) if old != new => format!("ttl {old} to {new}"),
        (_, Some(new)) => format!("ttl {new} as it was"),
        _ => "no ttl".to_owned(),
    };
    match EthernetHeader::parse(&sight.front) {
        Ok((ethernet, _)) => format!("{hops}, {} > {}", ethernet.source(), ethernet.destination()),
        Err(_) => hops,
    }
}

fn offload(before: Option<&Sight>, sight: &Sight) -> Option<String> {
    let pieces = sight.pieces.len();
    if let Some(gso) = sight.gso {
        return Some(format!(
            "one packet, for its receiver segments of {} bytes",
            gso.size
        ));
    }
    if pieces > 0 {
        return Some(format!(
            "{} packets, the first of {} bytes",
            pieces + 1,
            sight.len
        ));
    }
    let was_partial = before.is_some_and(|it| it.checksum != Checksum::None);
    match (was_partial, sight.checksum) {
        (true, Checksum::None) => Some("checksum completed".to_owned()),
        (true, Checksum::Partial { .. }) => {
            Some("checksum left to the receiver's stack".to_owned())
        }
        _ => None,
    }
}
