//! States of connections, how long each may be silent, and which give way when the table is full.

/// Length of a [`Tick`] as a power of two of nanoseconds: 134 ms. A shorter one would wrap 32 bits within
/// an uptime (this one after 18 years), a longer one would blur the short timeouts.
const TICK_SHIFT: u32 = 27;

/// A moment of the monotonic clock, coarse enough for 32 bits of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick(pub u32);

impl Tick {
    /// The tick a moment lies in.
    #[inline]
    pub const fn of_ns(now_ns: u64) -> Self {
        Self((now_ns >> TICK_SHIFT) as u32)
    }

    /// Ticks in so many seconds.
    pub const fn count(seconds: u32) -> u32 {
        ((seconds as u64 * 1_000_000_000) >> TICK_SHIFT) as u32
    }

    /// Ticks from `earlier` to here; 0 when it lies ahead.
    #[inline]
    pub const fn since(self, earlier: Self) -> u32 {
        let ticks = self.0.wrapping_sub(earlier.0);
        if ticks > u32::MAX / 2 { 0 } else { ticks }
    }

    /// Nanoseconds from `earlier` to here.
    pub const fn since_ns(self, earlier: Self) -> u64 {
        (self.since(earlier) as u64) << TICK_SHIFT
    }
}

/// Who gives way to a new connection when the table is full, in this order and the longest silent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Over; kept for stray packets only.
    Finished,
    /// Not answered yet, or not proven to be more than a forged source: what floods are made of.
    Embryonic,
    /// Question and answer; there need not be more.
    Brief,
    /// Never evicted.
    Assured,
}

macro_rules! states {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $seconds:literal, $standing:ident;)*) => {
        /// State of a connection. TCP's are Linux's, in whose words `FinWait` is "one FIN seen",
        /// `CloseWait` "and answered", `LastAck` "both FINs seen".
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum State {
            $($(#[$doc])* $variant,)*
        }

        impl State {
            /// Every state, in order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Number of states.
            pub const COUNT: usize = Self::ALL.len();

            /// The stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// How long it may be silent.
            pub const fn timeout_seconds(self) -> u32 {
                match self { $(Self::$variant => $seconds,)* }
            }

            /// Whether it gives way when the table is full.
            pub const fn standing(self) -> Standing {
                match self { $(Self::$variant => Standing::$standing,)* }
            }
        }
    };
}

// Timeouts are the defaults of Linux 6.18, net/netfilter/nf_conntrack_proto_{tcp,udp,icmp,sctp,generic}.c.
states! {
    /// No connection: the entry is free.
    Free = "free", 0, Assured;
    /// SYN.
    TcpSynSent = "syn-sent", 120, Embryonic;
    /// SYN from both sides (RFC 9293 section 3.5).
    TcpSynSentBoth = "syn-sent-both", 120, Embryonic;
    /// SYN and SYN-ACK; a flood with forged sources comes this far.
    TcpSynReceived = "syn-received", 60, Embryonic;
    /// Begun before we looked, and only one side heard: Linux's timeout for the unacknowledged.
    TcpPickedUp = "picked-up", 300, Embryonic;
    /// Five days: applications keep connections without a word that long.
    TcpEstablished = "established", 432_000, Assured;
    /// One FIN.
    TcpFinWait = "fin-wait", 120, Assured;
    /// One FIN, acknowledged.
    TcpCloseWait = "close-wait", 60, Assured;
    /// Both FINs.
    TcpLastAck = "last-ack", 30, Assured;
    /// Both FINs, acknowledged.
    TcpTimeWait = "time-wait", 120, Finished;
    /// RST.
    TcpClose = "close", 10, Finished;
    /// Datagrams of one side.
    UdpNew = "udp-new", 30, Embryonic;
    /// Answered.
    UdpReplied = "udp-replied", 30, Brief;
    /// Answered, and still going on after two seconds.
    UdpStream = "udp-stream", 120, Assured;
    /// ICMP query.
    QueryNew = "query-new", 30, Embryonic;
    /// ICMP query, answered.
    QueryReplied = "query-replied", 30, Brief;
    /// INIT.
    SctpCookieWait = "cookie-wait", 3, Embryonic;
    /// COOKIE ECHO.
    SctpCookieEchoed = "cookie-echoed", 3, Embryonic;
    /// COOKIE ACK, or heartbeats of both sides.
    SctpEstablished = "sctp-established", 210, Assured;
    /// SHUTDOWN of the side that opened.
    SctpShutdownSent = "shutdown-sent", 3, Assured;
    /// SHUTDOWN of the other side.
    SctpShutdownReceived = "shutdown-received", 3, Assured;
    /// SHUTDOWN ACK.
    SctpShutdownAckSent = "shutdown-ack-sent", 3, Assured;
    /// A second path, or an association begun before we looked: one side heard.
    SctpHeartbeatSent = "heartbeat-sent", 30, Embryonic;
    /// ABORT or SHUTDOWN COMPLETE.
    SctpClosed = "sctp-closed", 10, Finished;
    /// Another protocol, one side heard.
    OtherNew = "other-new", 600, Embryonic;
    /// Another protocol, answered.
    OtherReplied = "other-replied", 600, Assured;
}

/// Timeouts in ticks by state: an entry's state is looked up on every packet.
const TIMEOUTS: [u32; State::COUNT] = {
    let mut ticks = [0; State::COUNT];
    let mut at = 0;
    while at < State::COUNT {
        ticks[at] = Tick::count(State::ALL[at].timeout_seconds());
        at += 1;
    }
    ticks
};

impl State {
    /// The state of this number.
    #[inline]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// How long it may be silent, in ticks.
    #[inline]
    pub const fn timeout(self) -> u32 {
        TIMEOUTS[self as usize]
    }

    /// Whether an entry of this state, last seen then, is over.
    #[inline]
    pub const fn is_over(self, last_seen: Tick, now: Tick) -> bool {
        now.since(last_seen) > self.timeout()
    }

    /// How far apart two packets must be for the second to move the entry back in its queue, as a power
    /// of two of ticks: at most a 64th of the timeout, by which an entry may then be collected late.
    #[inline]
    pub const fn grain(self) -> u32 {
        match (self.timeout() / 64).checked_ilog2() {
            Some(shift) => shift,
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_keep_their_numbers_and_names() {
        let mut names = std::collections::HashSet::new();
        for (number, state) in State::ALL.iter().enumerate() {
            assert_eq!(State::from_number(number as u8), Some(*state));
            assert!(names.insert(state.name()));
            let days = u64::from(state.timeout_seconds());
            assert!(Tick(state.timeout()).since_ns(Tick(0)) <= days * 1_000_000_000);
            assert!(64 * (1 << state.grain()) <= state.timeout().max(64));
        }
        assert_eq!(State::from_number(State::COUNT as u8), None);
    }

    #[test]
    fn time_runs_on_when_ticks_wrap() {
        let before = Tick(u32::MAX - 10);
        let after = Tick(20);
        assert_eq!(after.since(before), 31);
        assert_eq!(before.since(after), 0, "never negative");
        assert!(State::TcpClose.is_over(before, Tick(100)));
        assert!(!State::TcpEstablished.is_over(before, Tick(100)));
    }
}
