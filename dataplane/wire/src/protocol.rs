//! The numbers IPv4 and IPv6 share: upper protocols and the ECN field.

/// An IP protocol or IPv6 next-header number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u8);

impl Protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: Self = Self(0);
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// IPv4 in IP.
    pub const IPV4: Self = Self(4);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// IPv6 in IP.
    pub const IPV6: Self = Self(41);
    /// IPv6 routing header.
    pub const ROUTING: Self = Self(43);
    /// IPv6 fragment header.
    pub const FRAGMENT: Self = Self(44);
    /// GRE.
    pub const GRE: Self = Self(47);
    /// Encapsulating security payload; everything behind it is opaque.
    pub const ESP: Self = Self(50);
    /// Authentication header.
    pub const AUTHENTICATION: Self = Self(51);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// No next header.
    pub const NO_NEXT: Self = Self(59);
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: Self = Self(60);
    /// SCTP.
    pub const SCTP: Self = Self(132);
    /// UDP-Lite.
    pub const UDP_LITE: Self = Self(136);

    /// Whether the first four bytes are a source and a destination port.
    pub const fn has_ports(self) -> bool {
        matches!(
            self,
            Self::TCP | Self::UDP | Self::SCTP | Self::UDP_LITE | Self(33)
        )
    }

    /// Whether the IPv6 walk steps over a header of this number.
    pub const fn is_ipv6_extension(self) -> bool {
        matches!(
            self,
            Self::HOP_BY_HOP
                | Self::ROUTING
                | Self::FRAGMENT
                | Self::AUTHENTICATION
                | Self::DESTINATION_OPTIONS
        )
    }
}

/// The two bits of explicit congestion notification (RFC 3168 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ecn {
    /// The transport does not speak ECN.
    NotCapable = 0,
    /// ECT(1).
    Capable1 = 1,
    /// ECT(0).
    Capable0 = 2,
    /// Congestion experienced.
    Congestion = 3,
}

impl Ecn {
    /// The codepoint in the low two bits of a TOS or traffic class byte.
    pub const fn from_bits(byte: u8) -> Self {
        match byte & 3 {
            0 => Self::NotCapable,
            1 => Self::Capable1,
            2 => Self::Capable0,
            _ => Self::Congestion,
        }
    }

    /// The outer codepoint for this inner one when a tunnel is entered (RFC 6040 section 4.1,
    /// normal mode: copy).
    pub const fn on_encap(self) -> Self {
        self
    }

    /// The inner codepoint after a tunnel is left, `self` being the inner one (RFC 6040 section
    /// 4.2). `None`: the packet must be dropped, since congestion was marked on a packet whose
    /// sender would not understand the mark.
    pub const fn on_decap(self, outer: Self) -> Option<Self> {
        match (self, outer) {
            (Self::NotCapable, Self::Congestion) => None,
            (Self::NotCapable, _) => Some(Self::NotCapable),
            (_, Self::Congestion) | (Self::Congestion, _) => Some(Self::Congestion),
            (_, Self::Capable1) => Some(Self::Capable1),
            (inner, _) => Some(inner),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decap_follows_the_table_of_rfc_6040() {
        use Ecn::{Capable0 as E0, Capable1 as E1, Congestion as Ce, NotCapable as No};
        let outer = [No, E0, E1, Ce];
        let rows = [
            (No, [Some(No), Some(No), Some(No), None]),
            (E0, [Some(E0), Some(E0), Some(E1), Some(Ce)]),
            (E1, [Some(E1), Some(E1), Some(E1), Some(Ce)]),
            (Ce, [Some(Ce), Some(Ce), Some(Ce), Some(Ce)]),
        ];
        for (inner, expected) in rows {
            for (outer, expected) in outer.into_iter().zip(expected) {
                assert_eq!(inner.on_decap(outer), expected, "{inner:?} in {outer:?}");
            }
        }
    }

    #[test]
    fn ecn_bits_round_trip() {
        for bits in 0..4 {
            assert_eq!(Ecn::from_bits(bits | 0xa0) as u8, bits);
        }
    }
}
