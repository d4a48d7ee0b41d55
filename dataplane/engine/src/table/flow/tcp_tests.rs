//! Every transition of a TCP connection.

use weft_wire::TcpFlags;

use super::track_tests::{Bed, Side};
use super::{Direction, Segment, State, Tracked};

const SYN: TcpFlags = TcpFlags::SYN;
const ACK: TcpFlags = TcpFlags::ACK;
const FIN: TcpFlags = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);
const RST: TcpFlags = TcpFlags::RST;

/// Initial sequence numbers of the two sides; the second wraps early.
const ISN: [u32; 2] = [1000, u32::MAX - 5];

/// A connection whose sides keep their numbers.
struct Talk {
    bed: Bed,
    next: [u32; 2],
}

impl Talk {
    fn new() -> Self {
        Self {
            bed: Bed::new(8),
            next: ISN,
        }
    }

    /// Sends a segment with the right numbers and returns the state behind it.
    fn send(&mut self, side: Side, flags: TcpFlags, payload_len: u32) -> State {
        let (own, other) = (side as usize, 1 - side as usize);
        let segment = Segment {
            flags,
            sequence: self.next[own],
            acknowledgement: if flags.contains(ACK) {
                self.next[other]
            } else {
                0
            },
            payload_len,
        };
        self.next[own] = segment.end();
        self.raw(side, segment)
    }

    fn raw(&mut self, side: Side, segment: Segment) -> State {
        self.bed.tcp(side, segment);
        self.state()
    }

    fn state(&self) -> State {
        self.bed.only().map_or(State::Free, |flow| flow.state)
    }

    fn established() -> Self {
        let mut talk = Self::new();
        talk.send(Side::A, SYN, 0);
        talk.send(Side::B, SYN | ACK, 0);
        assert_eq!(talk.send(Side::A, ACK, 0), State::TcpEstablished);
        talk
    }
}

#[test]
fn three_segments_open_and_four_close() {
    let mut talk = Talk::new();
    assert_eq!(talk.send(Side::A, SYN, 0), State::TcpSynSent);
    assert_eq!(talk.send(Side::B, SYN | ACK, 0), State::TcpSynReceived);
    assert_eq!(talk.send(Side::A, ACK, 0), State::TcpEstablished);
    assert_eq!(talk.send(Side::B, ACK, 65_000), State::TcpEstablished);
    assert_eq!(talk.send(Side::A, FIN, 10), State::TcpFinWait);
    assert_eq!(talk.send(Side::B, ACK, 0), State::TcpCloseWait);
    assert_eq!(
        talk.send(Side::B, ACK, 100),
        State::TcpCloseWait,
        "half open"
    );
    assert_eq!(talk.send(Side::B, FIN, 0), State::TcpLastAck);
    assert_eq!(talk.send(Side::A, ACK, 0), State::TcpTimeWait);
    let flow = talk.bed.only().expect("a flow");
    assert!(flow.replied && !flow.picked_up && !flow.reset);
    assert_eq!(flow.packets, [4, 5]);
}

#[test]
fn both_may_open_and_close_at_once() {
    let mut talk = Talk::new();
    talk.send(Side::A, SYN, 0);
    assert_eq!(talk.send(Side::B, SYN, 0), State::TcpSynSentBoth);
    talk.next = [ISN[0], ISN[1]];
    let answer = |own: usize| Segment {
        flags: SYN | ACK,
        sequence: ISN[own],
        acknowledgement: ISN[1 - own].wrapping_add(1),
        payload_len: 0,
    };
    assert_eq!(talk.raw(Side::B, answer(1)), State::TcpSynReceived);
    talk.next = [ISN[0] + 1, ISN[1].wrapping_add(1)];
    assert_eq!(talk.send(Side::A, ACK, 0), State::TcpEstablished);
    assert_eq!(talk.send(Side::A, FIN, 0), State::TcpFinWait);
    assert_eq!(talk.send(Side::B, FIN, 0), State::TcpLastAck);
    assert_eq!(talk.send(Side::A, ACK, 0), State::TcpTimeWait);
}

#[test]
fn retransmissions_change_nothing() {
    let mut talk = Talk::new();
    let again = |talk: &mut Talk, side: Side, flags, state| {
        let before = talk.next;
        assert_eq!(talk.send(side, flags, 0), state);
        talk.next = before;
        assert_eq!(talk.send(side, flags, 0), state);
    };
    again(&mut talk, Side::A, SYN, State::TcpSynSent);
    again(&mut talk, Side::B, SYN | ACK, State::TcpSynReceived);
    again(&mut talk, Side::A, ACK, State::TcpEstablished);
    again(&mut talk, Side::B, FIN, State::TcpFinWait);
}

#[test]
fn a_syn_ack_must_acknowledge_the_syn() {
    let mut talk = Talk::new();
    talk.send(Side::A, SYN, 0);
    let mut answer = Segment {
        flags: SYN | ACK,
        sequence: 77,
        acknowledgement: ISN[0],
        payload_len: 0,
    };
    assert_eq!(talk.raw(Side::B, answer), State::TcpSynSent);
    answer.acknowledgement += 1;
    assert_eq!(talk.raw(Side::B, answer), State::TcpSynReceived);
}

#[test]
fn an_attempt_begun_again_has_other_numbers() {
    let mut talk = Talk::new();
    talk.send(Side::A, SYN, 0);
    talk.next[0] = 3_000_000_000;
    talk.send(Side::A, SYN, 0);
    assert_eq!(talk.send(Side::B, SYN | ACK, 0), State::TcpSynReceived);
    assert_eq!(talk.send(Side::A, ACK, 0), State::TcpEstablished);
}

#[test]
fn a_refusal_closes_and_the_next_attempt_is_new() {
    let mut talk = Talk::new();
    talk.send(Side::A, SYN, 0);
    talk.next[1] = 0;
    assert_eq!(talk.send(Side::B, RST | ACK, 0), State::TcpClose);
    assert!(talk.bed.only().expect("a flow").reset);
    talk.next[0] = 500_000;
    assert_eq!(talk.send(Side::A, SYN, 0), State::TcpSynSent);
    assert_eq!(talk.bed.table.counters().new, 2);
}

#[test]
fn a_reset_or_fin_from_nowhere_is_not_believed() {
    let mut talk = Talk::established();
    talk.send(Side::B, ACK, 5000);
    for side in [Side::A, Side::B] {
        for flags in [RST, FIN] {
            let far = talk.next[side as usize].wrapping_add(0x4000_0000);
            let segment = Segment {
                flags,
                sequence: far,
                ..Segment::default()
            };
            assert_eq!(talk.raw(side, segment), State::TcpEstablished);
        }
    }
    assert_eq!(talk.send(Side::A, RST, 0), State::TcpClose);
}

#[test]
fn a_reset_ends_every_state() {
    for steps in 0..8 {
        let mut talk = Talk::new();
        let script = [
            (Side::A, SYN),
            (Side::B, SYN | ACK),
            (Side::A, ACK),
            (Side::A, FIN),
            (Side::B, ACK),
            (Side::B, FIN),
            (Side::A, ACK),
        ];
        for (side, flags) in &script[..script.len().min(steps + 1)] {
            talk.send(*side, *flags, 0);
        }
        assert_eq!(talk.send(Side::A, RST, 0), State::TcpClose, "after {steps}");
    }
}

#[test]
fn ports_are_used_again_from_either_side() {
    for side in [Side::A, Side::B] {
        let mut talk = Talk::established();
        talk.send(Side::A, FIN, 0);
        talk.send(Side::B, FIN, 0);
        assert_eq!(talk.send(Side::A, ACK, 0), State::TcpTimeWait);
        talk.next = [90_000, 80_000];
        assert_eq!(talk.send(side, SYN, 0), State::TcpSynSent);
        let flow = talk.bed.only().expect("one flow");
        let opener = Bed::key(side, 6);
        assert_eq!(flow.original, opener, "who opens it is its original side");
    }
}

#[test]
fn a_syn_does_not_disturb_a_running_connection() {
    let mut talk = Talk::established();
    let segment = Segment {
        flags: SYN,
        sequence: 7,
        ..Segment::default()
    };
    assert_eq!(talk.raw(Side::A, segment), State::TcpEstablished);
    assert_eq!(talk.raw(Side::B, segment), State::TcpEstablished);
    assert_eq!(talk.send(Side::A, RST, 0), State::TcpClose);
}

#[test]
fn a_connection_begun_before_is_picked_up() {
    let mut talk = Talk::new();
    assert_eq!(talk.send(Side::A, ACK, 1000), State::TcpPickedUp);
    assert_eq!(talk.send(Side::B, ACK, 0), State::TcpEstablished);
    assert!(talk.bed.only().expect("a flow").picked_up);
    assert_eq!(talk.send(Side::B, FIN, 0), State::TcpFinWait);
}

#[test]
fn what_cannot_begin_a_connection_passes_untracked() {
    let mut bed = Bed::new(8);
    for flags in [SYN | ACK, RST, RST | ACK, FIN, SYN | FIN, TcpFlags(0)] {
        let segment = Segment {
            flags,
            ..Segment::default()
        };
        assert_eq!(bed.tcp(Side::A, segment), Tracked::Stray, "{flags:?}");
    }
    assert!(bed.table.is_empty());
}

#[test]
fn what_a_syn_announced_is_known_to_the_sender_of_segments() {
    let mut talk = Talk::new();
    talk.send(Side::A, SYN, 0);
    let flow = talk.bed.flow();
    talk.bed
        .table
        .learn(flow, Direction::Original, 1460, Some(7));
    assert_eq!(
        talk.bed.table.mss_towards(flow, Direction::Reply),
        Some(1460)
    );
    assert_eq!(talk.bed.table.mss_towards(flow, Direction::Original), None);
    talk.send(Side::B, SYN | ACK, 0);
    talk.bed.table.learn(flow, Direction::Reply, 8960, None);
    talk.send(Side::A, ACK, 0);
    talk.bed.table.learn(flow, Direction::Reply, 50, None);
    let towards = [Direction::Original, Direction::Reply]
        .map(|direction| talk.bed.table.mss_towards(flow, direction));
    assert_eq!(towards, [Some(8960), Some(1460)], "too late to change it");
}
