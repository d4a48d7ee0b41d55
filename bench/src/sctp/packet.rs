//! SCTP INIT packets (RFC 9260) for raw sockets: this kernel family has SCTP sockets only with a
//! module that most machines lack.

/// Common header and an INIT chunk without parameters.
pub const LEN: usize = 32;

/// Bytes of a raw IPv4 socket's packets in front of the SCTP header: an IP header without options.
pub const IPV4_HEADER: usize = 20;

/// Type of the chunk that asks for an association.
const INIT: u8 = 1;
/// Type of the chunk that agrees.
const INIT_ACK: u8 = 2;

/// An INIT or its answer, as far as anybody here looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Port it comes from.
    pub source: u16,
    /// Port it goes to.
    pub destination: u16,
    /// Verification tag: that of the INIT in its answer, 0 in an INIT.
    pub verification: u32,
    /// Initiate tag.
    pub tag: u32,
    /// Whether it is the answer.
    pub answers: bool,
}

impl Packet {
    /// With a right checksum.
    pub fn bytes(&self) -> [u8; LEN] {
        let mut packet = [0; LEN];
        packet[..2].copy_from_slice(&self.source.to_be_bytes());
        packet[2..4].copy_from_slice(&self.destination.to_be_bytes());
        packet[4..8].copy_from_slice(&self.verification.to_be_bytes());
        packet[12] = if self.answers { INIT_ACK } else { INIT };
        packet[14..16].copy_from_slice(&20_u16.to_be_bytes());
        packet[16..20].copy_from_slice(&self.tag.to_be_bytes());
        packet[20..24].copy_from_slice(&65_535_u32.to_be_bytes()); // receiver window
        packet[24..26].copy_from_slice(&1_u16.to_be_bytes()); // outbound streams
        packet[26..28].copy_from_slice(&1_u16.to_be_bytes()); // inbound streams
        packet[28..32].copy_from_slice(&1_u32.to_be_bytes()); // initial TSN
        // RFC 9260 appendix A: the checksum goes out with its least significant byte first.
        let sum = crc32c(&packet);
        packet[8..12].copy_from_slice(&sum.to_le_bytes());
        packet
    }

    /// `None` for what has another length, another chunk or a wrong checksum.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let mut copy: [u8; LEN] = packet.try_into().ok()?;
        let sum = u32::from_le_bytes(copy[8..12].try_into().ok()?);
        copy[8..12].fill(0);
        let well = sum == crc32c(&copy) && matches!(copy[12], INIT | INIT_ACK);
        let port = |at: usize| u16::from_be_bytes([copy[at], copy[at + 1]]);
        let word =
            |at: usize| u32::from_be_bytes([copy[at], copy[at + 1], copy[at + 2], copy[at + 3]]);
        well.then(|| Self {
            source: port(0),
            destination: port(2),
            verification: word(4),
            tag: word(16),
            answers: copy[12] == INIT_ACK,
        })
    }

    /// What a server says to this INIT.
    pub fn answer(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            verification: self.tag,
            tag: !self.tag,
            answers: true,
        }
    }
}

/// An INIT from `source` to `destination` port whose initiate tag is `tag`.
pub fn init(source: u16, destination: u16, tag: u32) -> [u8; LEN] {
    let packet = Packet {
        source,
        destination,
        verification: 0,
        tag,
        answers: false,
    };
    packet.bytes()
}

/// Initiate tag of an INIT packet with a right checksum.
pub fn tag(packet: &[u8]) -> Option<u32> {
    Packet::parse(packet)
        .filter(|it| !it.answers)
        .map(|it| it.tag)
}

/// CRC-32C (RFC 3720 appendix B.4), bit by bit: a probe has 32 bytes.
fn crc32c(bytes: &[u8]) -> u32 {
    const REFLECTED_POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let low = crc & 1;
            crc = (crc >> 1) ^ (REFLECTED_POLYNOMIAL * low);
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_standards() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa); // RFC 3720 appendix B.4
    }

    #[test]
    fn a_damaged_init_has_no_tag() {
        let packet = init(1_000, 80, 77);
        assert_eq!(tag(&packet), Some(77));
        let mut damaged = packet;
        damaged[3] ^= 1;
        assert_eq!(tag(&damaged), None);
        assert_eq!(tag(&packet[..31]), None);
    }

    #[test]
    fn an_answer_goes_back_and_names_the_tag() {
        let asked = Packet::parse(&init(1_000, 80, 77)).unwrap();
        let answer = Packet::parse(&asked.answer().bytes()).unwrap();
        assert_eq!((answer.source, answer.destination), (80, 1_000));
        assert_eq!((answer.verification, answer.answers), (77, true));
        assert_eq!(tag(&answer.bytes()), None);
    }
}
