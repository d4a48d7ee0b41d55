//! Rules as they are given.

use weft_wire::Protocol;

use super::has_ports;

/// Names a rule in decisions and counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u32);

impl RuleId {
    /// No rule.
    pub const NONE: Self = Self(0);
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleVerdict {
    /// The connection may be.
    Allow,
    /// It may not.
    Deny,
    /// The rest of the tier is skipped.
    Pass,
}

/// One rule. Of a list the first that matches decides; without one the connection is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Rules of one tier stand together, and tiers ascend.
    pub tier: u8,
    /// Number of the selector that must match the peer; any peer where absent.
    pub peer: Option<u32>,
    /// Upper protocol; any where absent.
    pub protocol: Option<u8>,
    /// First and last destination port; any where absent. Only together with a protocol that has ports.
    pub ports: Option<(u16, u16)>,
    /// What it says.
    pub verdict: RuleVerdict,
    /// Its name.
    pub id: RuleId,
}

/// What a connection is to rules: a protocol and, where it has ports, the destination's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Traffic(u32);

impl Traffic {
    /// Of a protocol, with the destination's port; that of a protocol without ports does not count.
    #[inline]
    pub const fn new(protocol: Protocol, port: u16) -> Self {
        let port = if has_ports(protocol) { port } else { 0 };
        Self((protocol.0 as u32) << 16 | port as u32)
    }

    /// The protocol.
    pub const fn protocol(self) -> Protocol {
        Protocol((self.0 >> 16) as u8)
    }

    /// The destination's port; 0 where the protocol has none.
    pub const fn port(self) -> u16 {
        self.0 as u16
    }

    /// Behind the last.
    pub(super) const END: u32 = 1 << 24;

    #[inline]
    pub(super) const fn number(self) -> u32 {
        self.0
    }
}

impl Rule {
    /// The numbers of the traffic it is about: from the first to behind the last.
    pub(super) const fn span(&self) -> (u32, u32) {
        match (self.protocol, self.ports) {
            (None, _) => (0, Traffic::END),
            (Some(protocol), None) => ((protocol as u32) << 16, (protocol as u32 + 1) << 16),
            (Some(protocol), Some((first, last))) => {
                let protocol = (protocol as u32) << 16;
                (protocol | first as u32, (protocol | last as u32) + 1)
            }
        }
    }
}
