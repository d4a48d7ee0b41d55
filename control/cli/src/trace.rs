//! `weft trace`: what the tables in force would do to a packet.

use std::net::IpAddr;

use weft_api::dataplane::Op;
use weft_api::envelope::{ApiError, ErrorKind};
use weft_api::trace::{
    PacketDescription, Trace, TracePacket, TraceQuestion, TraceVerdict, TraceWay,
};

use crate::args::TraceArguments;
use crate::text::{Listing, Page};
use crate::{Found, Node, policy, replay};

/// Source port where none is said: one of those Linux chooses from.
const SOURCE_PORT: u16 = 40_000;

/// Bits of a TCP header's flags byte (RFC 9293 section 3.1).
const FLAGS: [(&str, u8); 6] = [
    ("fin", 0x01),
    ("syn", SYN),
    ("rst", 0x04),
    ("psh", PSH),
    ("ack", ACK),
    ("urg", 0x20),
];
const SYN: u8 = 0x02;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// Protocols that can be described, and whether they have ports.
const PROTOCOLS: [(&str, u8, bool); 5] = [
    ("tcp", TCP, true),
    ("udp", 17, true),
    ("sctp", 132, true),
    ("icmp", 1, false),
    ("icmpv6", 58, false),
];
const TCP: u8 = 6;

/// Asks and tells.
pub fn run(node: &Node, asked: &TraceArguments) -> anyhow::Result<Found> {
    if let Some(path) = &asked.file {
        return replay::run(node, asked, path);
    }
    let packet = match &asked.hex {
        Some(hex) => TracePacket::Frame { hex: hex.clone() },
        None => {
            let words: Vec<&str> = asked.packet.iter().map(String::as_str).collect();
            let mut packet = describe(&words).map_err(misuse)?;
            packet.from_node.clone_from(&asked.from);
            TracePacket::Described(packet)
        }
    };
    let question = TraceQuestion {
        port: asked.port.clone(),
        packet,
    };
    let trace: Trace = node.dataplane()?.call(Op::Trace(question))?;
    node.show(&trace, |trace| render(trace, crate::styled()))?;
    Ok(match trace.way.verdict {
        TraceVerdict::Drop => Found::Problem,
        TraceVerdict::Tx | TraceVerdict::Host | TraceVerdict::Consumed => Found::Nothing,
    })
}

/// Words that make no sense are misuse, wherever that is noticed.
fn misuse(message: String) -> anyhow::Error {
    let refused = ApiError::new(ErrorKind::BadRequest, message);
    weft_api::client::ClientError::Refused(refused).into()
}

/// A packet from words: `tcp - 10.244.2.2:80 syn len 100`.
fn describe(words: &[&str]) -> Result<PacketDescription, String> {
    let [protocol, source, destination, rest @ ..] = words else {
        return Err("a packet is PROTOCOL SOURCE DESTINATION, as in: tcp - shop/db:80".to_owned());
    };
    let known = PROTOCOLS.iter().find(|(name, ..)| name == protocol);
    let &(_, number, has_ports) = known.ok_or_else(|| {
        format!("'{protocol}' is no protocol that can be described: tcp, udp, sctp or icmp")
    })?;
    let (source, source_port) = end(source)?;
    let (destination, destination_port) = end(destination)?;
    if has_ports && destination_port.is_none() {
        return Err(format!("to which port? For example {destination}:80"));
    }
    if !has_ports && (source_port.is_some() || destination_port.is_some()) {
        return Err(format!("{protocol} has no ports"));
    }
    let mut packet = PacketDescription {
        protocol: number,
        source: (source != "-").then_some(source),
        destination,
        source_port: source_port.unwrap_or(if has_ports { SOURCE_PORT } else { 0 }),
        destination_port: destination_port.unwrap_or(0),
        ..PacketDescription::default()
    };
    details(&mut packet, rest)?;
    Ok(packet)
}

/// Flags and length.
fn details(packet: &mut PacketDescription, words: &[&str]) -> Result<(), String> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let flag = FLAGS.iter().find(|(name, _)| name == word);
        match flag {
            Some((_, bit)) if packet.protocol == TCP => packet.tcp_flags |= bit,
            Some(_) => return Err(format!("{word} is a flag of TCP")),
            None if *word == "len" => {
                let bytes = words.next().and_then(|it| it.parse().ok());
                packet.payload_bytes =
                    bytes.ok_or("len wants the payload's bytes, as in: len 1400")?;
            }
            None => return Err(format!("'{word}' is neither a TCP flag nor len N")),
        }
    }
    if packet.protocol == TCP && packet.tcp_flags == 0 {
        packet.tcp_flags = if packet.payload_bytes == 0 {
            SYN
        } else {
            PSH | ACK
        };
    }
    Ok(())
}

/// Address or pod, and port, of `10.1.1.5:80`, `[fd00::5]:80`, `fd00::5`, `shop/web:80`.
fn end(text: &str) -> Result<(String, Option<u16>), String> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok((text.to_owned(), None));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Ok((text.to_owned(), None));
    };
    let port = port
        .parse()
        .map_err(|_| format!("'{port}' in {text} is no port: those are 0 to 65535"))?;
    let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    Ok((bare.unwrap_or(host).to_owned(), Some(port)))
}

/// The page about one packet.
pub fn render(trace: &Trace, styled: bool) -> String {
    let mut page = Page::new(styled);
    page.table(&format!("FROM {}", trace.port), &steps(&trace.way));
    for born in &trace.born {
        page.table("ANSWER", &steps(born));
    }
    if let Some(flow) = &trace.connection {
        let known = format!(
            "{}, from {} port {} to {} port {}: its packets pass as that connection's, this one was taken for a new one's",
            flow.state,
            policy::party(&flow.source),
            flow.source_port,
            policy::party(&flow.destination),
            flow.destination_port,
        );
        page.items("KNOWN CONNECTION", &[known]);
    }
    let ends = std::iter::once(&trace.way).chain(&trace.born);
    let ends: Vec<String> = ends.map(|way| way.text.clone()).collect();
    page.items("VERDICT", &ends);
    page.finish()
}

fn steps(way: &TraceWay) -> Listing {
    let mut listing = Listing::new(&["STAGE", "WHAT IT DID"]);
    for step in &way.steps {
        listing.row([&step.stage, &step.text]);
    }
    listing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_from_words() {
        let packet = describe(&["tcp", "-", "[fd00::5]:80"]).unwrap();
        assert_eq!(
            (packet.source, packet.destination),
            (None, "fd00::5".into())
        );
        assert_eq!(
            (packet.source_port, packet.destination_port),
            (SOURCE_PORT, 80)
        );
        assert_eq!(packet.tcp_flags, SYN, "it opens a connection");
        let data = describe(&["tcp", "10.0.0.1:7", "shop/db:80", "len", "9000"]).unwrap();
        assert_eq!((data.tcp_flags, data.payload_bytes), (PSH | ACK, 9000));
        assert_eq!((data.source_port, &*data.destination), (7, "shop/db"));
        let both = describe(&["tcp", "-", "10.0.0.2:80", "syn", "ack"]).unwrap();
        assert_eq!(both.tcp_flags, SYN | ACK);
        let ping = describe(&["icmp", "fd00::1", "fd00::2"]).unwrap();
        assert_eq!((ping.protocol, ping.source_port), (1, 0));
    }

    #[test]
    fn words_that_make_no_packet_are_refused_with_what_is_wrong() {
        for (words, says) in [
            (&["tcp", "-"][..], "PROTOCOL SOURCE DESTINATION"),
            (&["tpc", "-", "10.0.0.1:80"], "tpc"),
            (&["tcp", "-", "shop/db"], "shop/db:80"),
            (&["icmp", "-", "10.0.0.1:80"], "no ports"),
            (&["tcp", "-", "10.0.0.1:http"], "http"),
            (&["udp", "-", "10.0.0.1:53", "syn"], "flag of TCP"),
            (&["udp", "-", "10.0.0.1:53", "len"], "len 1400"),
            (&["udp", "-", "10.0.0.1:53", "more"], "more"),
        ] {
            let refused = describe(words).unwrap_err();
            assert!(refused.contains(says), "{refused}");
        }
    }
}
