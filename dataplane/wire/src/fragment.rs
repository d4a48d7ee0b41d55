//! What both IP versions say about a fragment.

/// A fragment's place in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// First payload byte of this fragment within the datagram, a multiple of 8.
    pub offset: u16,
    /// Whether further fragments follow.
    pub more: bool,
    /// Identification; IPv4's 16 bits widened.
    pub identification: u32,
}

impl Fragment {
    /// Whether this fragment holds the upper protocol's header.
    #[inline]
    pub const fn is_first(self) -> bool {
        self.offset == 0
    }

    /// Whether this is the whole datagram in an IPv6 fragment header (RFC 6946): to be handled on
    /// its own, never reassembled with others.
    #[inline]
    pub const fn is_atomic(self) -> bool {
        self.offset == 0 && !self.more
    }

    /// End of a fragment of `payload_len` bytes within the datagram, `None` when it lies beyond
    /// 65,535 or when a fragment with a successor is not a multiple of 8 long. Both are attacks.
    #[inline]
    pub const fn end(self, payload_len: usize) -> Option<u16> {
        let end = self.offset as usize + payload_len;
        let aligned = !self.more || (payload_len.is_multiple_of(8) && payload_len != 0);
        if aligned && end <= u16::MAX as usize {
            Some(end as u16)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(offset: u16, more: bool) -> Fragment {
        Fragment {
            offset,
            more,
            identification: 1,
        }
    }

    #[test]
    fn tells_first_and_atomic_fragments() {
        assert!(fragment(0, true).is_first() && !fragment(0, true).is_atomic());
        assert!(fragment(0, false).is_atomic());
        assert!(!fragment(8, false).is_first());
    }

    #[test]
    fn end_refuses_the_ping_of_death_and_odd_middles() {
        assert_eq!(fragment(1480, true).end(1480), Some(2960));
        assert_eq!(fragment(1480, true).end(1479), None);
        assert_eq!(fragment(1480, true).end(0), None);
        assert_eq!(fragment(1480, false).end(1479), Some(2959));
        assert_eq!(fragment(65528, false).end(7), Some(65535));
        assert_eq!(fragment(65528, false).end(8), None);
    }
}
