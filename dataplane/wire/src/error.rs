//! Why bytes are not the header they were taken for, and the two casts every view is made with.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The header a [`ParseError`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Layer {
    /// Ethernet II.
    Ethernet,
    /// An 802.1Q or 802.1ad tag.
    Vlan,
    /// ARP for IPv4 over Ethernet.
    Arp,
    /// IPv4 header or options.
    Ipv4,
    /// IPv6 fixed header.
    Ipv6,
    /// An IPv6 extension header.
    Ipv6Extension,
    /// The eight bytes common to ICMP and ICMPv6.
    Icmp,
    /// A neighbour discovery message or its options.
    Neighbour,
    /// TCP header or options.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP common header or a chunk.
    Sctp,
    /// VXLAN.
    Vxlan,
}

impl Layer {
    /// A short stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ethernet => "ethernet",
            Self::Vlan => "vlan",
            Self::Arp => "arp",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Ipv6Extension => "ipv6-extension",
            Self::Icmp => "icmp",
            Self::Neighbour => "neighbour",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Vxlan => "vxlan",
        }
    }
}

/// What is wrong with the bytes. Two bytes large, so that a `Result` of it stays in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParseError {
    /// The bytes end before the header does.
    Truncated(Layer),
    /// The version field names another protocol.
    Version(Layer),
    /// The header's own length field is below its minimum.
    HeaderLength(Layer),
    /// The packet's length field is below the header or above the bytes that arrived.
    TotalLength(Layer),
    /// An option or extension runs past its container or has an impossible length.
    Option(Layer),
    /// More nested headers than weft walks ([`vlan::MAX_TAGS`](crate::vlan::MAX_TAGS),
    /// [`ipv6::MAX_EXTENSIONS`](crate::ipv6::MAX_EXTENSIONS)).
    TooDeep(Layer),
    /// A field holds a value the protocol does not allow or weft does not speak.
    Field(Layer),
    /// A first fragment that does not hold the whole header chain (RFC 7112 section 5).
    IncompleteChain,
}

impl ParseError {
    /// The header the error is about.
    pub const fn layer(self) -> Layer {
        match self {
            Self::Truncated(layer)
            | Self::Version(layer)
            | Self::HeaderLength(layer)
            | Self::TotalLength(layer)
            | Self::Option(layer)
            | Self::TooDeep(layer)
            | Self::Field(layer) => layer,
            Self::IncompleteChain => Layer::Ipv6Extension,
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Truncated(_) => "header is cut short",
            Self::Version(_) => "header has another version",
            Self::HeaderLength(_) => "header length is impossible",
            Self::TotalLength(_) => "packet length does not fit the bytes",
            Self::Option(_) => "option is malformed",
            Self::TooDeep(_) => "headers nest too deep",
            Self::Field(_) => "field has an unacceptable value",
            Self::IncompleteChain => "first fragment lacks part of the header chain",
        };
        write!(f, "{} {what}", self.layer().name())
    }
}

impl core::error::Error for ParseError {}

/// The view of `T` at the start of `bytes`.
#[inline(always)]
pub(crate) fn view<T>(bytes: &[u8], layer: Layer) -> Result<&T, ParseError>
where
    T: FromBytes + KnownLayout + Immutable + Unaligned,
{
    match T::ref_from_prefix(bytes) {
        Ok((header, _)) => Ok(header),
        Err(_) => Err(ParseError::Truncated(layer)),
    }
}

/// The writable view of `T` at the start of `bytes`.
#[inline(always)]
pub(crate) fn view_mut<T>(bytes: &mut [u8], layer: Layer) -> Result<&mut T, ParseError>
where
    T: FromBytes + IntoBytes + KnownLayout + Unaligned,
{
    match T::mut_from_prefix(bytes) {
        Ok((header, _)) => Ok(header),
        Err(_) => Err(ParseError::Truncated(layer)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn errors_are_small_and_name_their_layer() {
        assert_eq!(size_of::<ParseError>(), 2);
        let error = ParseError::Truncated(Layer::Tcp);
        assert_eq!(error.to_string(), "tcp header is cut short");
        assert_eq!(ParseError::IncompleteChain.layer(), Layer::Ipv6Extension);
    }
}
