//! Protocols and ports as people write them: `80/tcp`, `53/udp`, `icmp`.

use std::str::FromStr;

use weft_api::policy::PortRange;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// Names of the protocols in everybody's mouth; others go by number.
const NAMES: [(&str, u8); 5] = [
    ("icmp", 1),
    ("tcp", TCP),
    ("udp", UDP),
    ("icmpv6", 58),
    ("sctp", SCTP),
];

/// A protocol, and a port where it has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port.
    pub port: Option<u16>,
}

impl FromStr for Traffic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (port, protocol) = match text.split_once('/') {
            Some((port, protocol)) => (Some(port), protocol),
            None if text.parse::<u32>().is_ok() => (Some(text), "tcp"),
            None => (None, text),
        };
        let protocol = parse_protocol(protocol)?;
        let has_ports = [TCP, UDP, SCTP].contains(&protocol);
        match port {
            None if has_ports => Err(format!("which port? For example 80/{text}")),
            Some(_) if !has_ports => Err(format!("{} has no ports", name(protocol))),
            None => Ok(Self {
                protocol,
                port: None,
            }),
            Some(port) => match port.parse() {
                Ok(port) => Ok(Self {
                    protocol,
                    port: Some(port),
                }),
                Err(_) => Err(format!("{port} is no port: those are 0 to 65535")),
            },
        }
    }
}

/// A protocol by name or number.
///
/// # Errors
/// A sentence, when it is neither.
pub fn parse_protocol(text: &str) -> Result<u8, String> {
    let named = NAMES.iter().find(|(name, _)| *name == text);
    match named {
        Some((_, number)) => Ok(*number),
        None => text.parse().map_err(|_| {
            format!("{text} is no protocol: tcp, udp, sctp, icmp, icmpv6 or a number below 256")
        }),
    }
}

/// A protocol as people know it.
pub fn name(protocol: u8) -> String {
    let known = NAMES.iter().find(|(_, number)| *number == protocol);
    known.map_or_else(
        || format!("protocol {protocol}"),
        |(name, _)| (*name).to_owned(),
    )
}

/// A protocol with its port: `80/tcp`.
pub fn one(protocol: u8, port: u16) -> String {
    if [TCP, UDP, SCTP].contains(&protocol) {
        format!("{port}/{}", name(protocol))
    } else {
        name(protocol)
    }
}

/// What a rule is about: `80-90/tcp`, `udp`, `any`.
pub fn of_rule(protocol: Option<u8>, ports: Option<PortRange>) -> String {
    match (protocol, ports) {
        (None, _) => "any".to_owned(),
        (Some(protocol), None) => name(protocol),
        (Some(protocol), Some(PortRange { first, last })) if first == last => one(protocol, first),
        (Some(protocol), Some(PortRange { first, last })) => {
            format!("{first}-{last}/{}", name(protocol))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_read_and_written_the_same() {
        for text in ["80/tcp", "53/udp", "9/sctp", "icmp", "icmpv6"] {
            let read: Traffic = text.parse().unwrap();
            assert_eq!(one(read.protocol, read.port.unwrap_or(0)), text);
        }
        assert_eq!("443".parse(), "443/tcp".parse::<Traffic>());
        assert_eq!("47".parse::<Traffic>().map(|it| it.protocol), Ok(TCP));
        for (wrong, says) in [
            ("tcp", "80/tcp"),
            ("7/icmp", "no ports"),
            ("70000/tcp", "65535"),
            ("80/tpc", "no protocol"),
            ("x/tcp", "no port"),
        ] {
            let error = wrong.parse::<Traffic>().unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn rules_say_what_they_are_about() {
        let ports = |first, last| Some(PortRange { first, last });
        assert_eq!(of_rule(None, None), "any");
        assert_eq!(of_rule(Some(UDP), None), "udp");
        assert_eq!(of_rule(Some(TCP), ports(80, 80)), "80/tcp");
        assert_eq!(of_rule(Some(TCP), ports(80, 90)), "80-90/tcp");
        assert_eq!(of_rule(Some(47), None), "protocol 47");
    }
}
