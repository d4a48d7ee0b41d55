//! 802.1Q and 802.1ad tags.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{Layer, ParseError, view, view_mut};
use crate::ethernet::EtherType;

/// Tags the walk accepts: one service and one customer tag, as 802.1ad allows. A third is hostile.
pub const MAX_TAGS: usize = 2;

/// The four bytes between a VLAN type field and the next type field.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct VlanHeader {
    control: U16,
    ether_type: U16,
}

const _: () = assert!(size_of::<VlanHeader>() == VlanHeader::LEN);

impl VlanHeader {
    /// Bytes of one tag.
    pub const LEN: usize = 4;

    /// A tag of priority 0; only the low 12 bits of `vid` are used.
    pub const fn new(vid: u16, ether_type: EtherType) -> Self {
        Self {
            control: U16::new(vid & 0x0fff),
            ether_type: U16::new(ether_type.0),
        }
    }

    /// The tag at the start of `bytes` and the offset behind it.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<(&Self, usize), ParseError> {
        Ok((view(bytes, Layer::Vlan)?, Self::LEN))
    }

    /// As [`parse`](Self::parse), writable.
    #[inline]
    pub fn parse_mut(bytes: &mut [u8]) -> Result<(&mut Self, usize), ParseError> {
        Ok((view_mut(bytes, Layer::Vlan)?, Self::LEN))
    }

    /// VLAN identifier, 0 for a mere priority tag.
    #[inline]
    pub const fn vid(&self) -> u16 {
        self.control.get() & 0x0fff
    }

    /// Priority code point.
    #[inline]
    pub const fn priority(&self) -> u8 {
        (self.control.get() >> 13) as u8
    }

    /// Type field behind the tag.
    #[inline]
    pub const fn ether_type(&self) -> EtherType {
        EtherType(self.ether_type.get())
    }

    /// Sets the VLAN identifier, keeping the priority.
    pub const fn set_vid(&mut self, vid: u16) {
        self.control = U16::new((self.control.get() & 0xf000) | (vid & 0x0fff));
    }
}

/// What stood between the Ethernet header and the network header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct VlanTags {
    /// Identifiers, outermost first; the first `count` are meaningful.
    pub vids: [u16; MAX_TAGS],
    /// Number of tags.
    pub count: u8,
}

impl VlanTags {
    /// Whether the frame was untagged.
    pub const fn is_empty(self) -> bool {
        self.count == 0
    }

    /// Steps over the tags of a frame whose bytes behind the type field `ether_type` start at
    /// `offset`. Returns the tags, the type behind them and the offset of the network header.
    #[inline]
    pub fn walk(
        frame: &[u8],
        mut ether_type: EtherType,
        mut offset: usize,
    ) -> Result<(Self, EtherType, usize), ParseError> {
        let mut tags = Self::default();
        while ether_type.is_vlan() {
            let index = usize::from(tags.count);
            if index == MAX_TAGS {
                return Err(ParseError::TooDeep(Layer::Vlan));
            }
            let rest = frame
                .get(offset..)
                .ok_or(ParseError::Truncated(Layer::Vlan))?;
            let (tag, len) = VlanHeader::parse(rest)?;
            tags.vids[index] = tag.vid();
            tags.count += 1;
            ether_type = tag.ether_type();
            offset += len;
        }
        Ok((tags, ether_type, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QINQ: [u8; 12] = [0x60, 0x64, 0x81, 0, 0x00, 0x05, 0x08, 0x00, 1, 2, 3, 4];

    #[test]
    fn walks_two_tags() {
        let (tags, ether_type, offset) = VlanTags::walk(&QINQ, EtherType::SERVICE_VLAN, 0).unwrap();
        assert_eq!((tags.vids, tags.count), ([100, 5], 2));
        assert_eq!((ether_type, offset), (EtherType::IPV4, 8));
        assert_eq!(VlanHeader::parse(&QINQ).unwrap().0.priority(), 3);
    }

    #[test]
    fn untagged_frames_are_left_alone() {
        let (tags, ether_type, offset) = VlanTags::walk(&[], EtherType::IPV6, 14).unwrap();
        assert!(tags.is_empty());
        assert_eq!((ether_type, offset), (EtherType::IPV6, 14));
    }

    #[test]
    fn refuses_a_third_tag_and_a_cut_one() {
        let three = [0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 0x08, 0];
        assert_eq!(
            VlanTags::walk(&three, EtherType::VLAN, 0).unwrap_err(),
            ParseError::TooDeep(Layer::Vlan)
        );
        assert_eq!(
            VlanTags::walk(&QINQ[..7], EtherType::VLAN, 0).unwrap_err(),
            ParseError::Truncated(Layer::Vlan)
        );
        assert_eq!(
            VlanTags::walk(&QINQ, EtherType::VLAN, 99).unwrap_err(),
            ParseError::Truncated(Layer::Vlan)
        );
    }

    #[test]
    fn changing_the_vid_keeps_the_priority() {
        let mut bytes = [0x60, 0x64, 0x08, 0];
        VlanHeader::parse_mut(&mut bytes).unwrap().0.set_vid(0xf003);
        assert_eq!(bytes, [0x60, 0x03, 0x08, 0]);
    }
}
