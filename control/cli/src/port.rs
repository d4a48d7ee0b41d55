//! `weft port`: the ports and their counters.

use anyhow::{Context, bail};
use weft_api::dataplane::{Op, PortKind, PortList, PortStatus};

use crate::text::{Listing, Page, bytes, grouped, list, or_dash};
use crate::{Found, Node};

/// Shows all ports, or the one that `asked` names.
pub fn run(node: &Node, asked: Option<&str>) -> anyhow::Result<Found> {
    let list: PortList = node.dataplane()?.call(Op::PortList)?;
    match asked {
        None => node.show(&list, |l| {
            if l.ports.is_empty() {
                return "no ports are attached".to_owned();
            }
            let mut page = Page::new(crate::styled());
            page.table("PORTS", &listing(&l.ports));
            page.finish()
        })?,
        Some(asked) => node.show(find(&list, asked)?, detail)?,
    }
    Ok(Found::Nothing)
}

/// The port meant by an interface name, `namespace/pod`, an address or an id.
pub fn find<'a>(list: &'a PortList, asked: &str) -> anyhow::Result<&'a PortStatus> {
    let is_meant = |port: &&PortStatus| {
        let pod = port.pod.as_ref();
        port.name.0 == asked
            || port.id.to_string() == asked
            || pod.is_some_and(|p| p.to_string() == asked || p.name == asked)
            || port.addresses.iter().any(|a| a.to_string() == asked)
    };
    let mut meant = list.ports.iter().filter(is_meant);
    let first = meant.next().with_context(|| {
        format!("no port is called '{asked}'; `weft port` lists them by interface, pod and address")
    })?;
    if let Some(second) = meant.next() {
        bail!(
            "'{asked}' means more than one port ({} and {}); use the interface name",
            first.name,
            second.name
        );
    }
    Ok(first)
}

/// One line per port.
pub fn listing(ports: &[PortStatus]) -> Listing {
    let headings = [
        "ID",
        "PORT",
        "KIND",
        "POD",
        "ADDRESSES",
        "RX PACKETS",
        "TX PACKETS",
        "DROPS",
        "LOST",
    ];
    let mut listing = Listing::new(&headings).right(&[0, 5, 6, 7, 8]);
    for port in ports {
        let c = &port.counters;
        listing.row([
            port.id.to_string(),
            port.name.to_string(),
            kind(port.kind).to_owned(),
            or_dash(port.pod.as_ref()),
            list(&port.addresses),
            grouped(c.rx_packets),
            grouped(c.tx_packets),
            grouped(c.drops),
            grouped(c.rx_kernel_drops + c.tx_ring_full),
        ]);
    }
    listing
}

fn detail(port: &PortStatus) -> String {
    let c = &port.counters;
    let traffic = |packets, count| format!("{} packets, {}", grouped(packets), bytes(count));
    let mut page = Page::new(crate::styled());
    page.facts(&[
        ("port", format!("{} (id {})", port.name, port.id)),
        ("kind", kind(port.kind).to_owned()),
        ("pod", or_dash(port.pod.as_ref())),
        ("addresses", list(&port.addresses)),
        ("mac", port.mac.to_string()),
        ("mtu", port.mtu.to_string()),
        ("worker", port.worker.to_string()),
        ("socket", format!("{} queues, {} mode, {} XDP", port.queues, port.mode, port.xdp_mode)),
        ("rx", traffic(c.rx_packets, c.rx_bytes)),
        ("tx", traffic(c.tx_packets, c.tx_bytes)),
        ("drops", format!("{} by the pipeline", grouped(c.drops))),
        ("lost", format!(
            "{} before they reached a socket (no frame or ring slot free), {} at a full transmit ring",
            grouped(c.rx_kernel_drops),
            grouped(c.tx_ring_full)
        )),
    ]);
    page.finish()
}

fn kind(kind: PortKind) -> &'static str {
    match kind {
        PortKind::Pod => "pod",
        PortKind::Node => "node",
        PortKind::Uplink => "uplink",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_api::dataplane::PortCounters;
    use weft_api::{MacAddr, PodRef, PortName};

    fn port(id: u16, name: &str, pod: Option<(&str, &str)>) -> PortStatus {
        PortStatus {
            id,
            name: PortName(name.into()),
            kind: PortKind::Pod,
            pod: pod.map(|(namespace, name)| PodRef {
                namespace: namespace.into(),
                name: name.into(),
            }),
            addresses: vec![[10, 0, 0, id as u8].into()],
            mac: MacAddr::default(),
            mtu: 65_535,
            worker: 0,
            queues: 1,
            mode: "copy".into(),
            xdp_mode: "generic".into(),
            counters: PortCounters::default(),
        }
    }

    #[test]
    fn ports_are_found_by_name_id_pod_and_address() {
        let list = PortList {
            ports: vec![
                port(1, "wefta", Some(("a", "web"))),
                port(2, "weftb", Some(("b", "web"))),
                port(3, "weft0p", None),
            ],
        };
        let found = |asked: &str| find(&list, asked).map(|p| p.id).map_err(|e| e.to_string());
        assert_eq!(found("weft0p"), Ok(3));
        assert_eq!(found("2"), Ok(2));
        assert_eq!(found("b/web"), Ok(2));
        assert_eq!(found("10.0.0.1"), Ok(1));
        assert!(found("web").unwrap_err().contains("more than one port"));
        assert!(found("absent").unwrap_err().contains("weft port"));
    }
}
