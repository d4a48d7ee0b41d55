//! How the programs decide about a packet.

/// Of `linux/pkt_cls.h`: to the next program, and behind the last one on.
const TC_ACT_UNSPEC: i32 = -1;
/// Likewise.
const TC_ACT_SHOT: i32 = 2;
/// Likewise.
const TC_ACT_REDIRECT: i32 = 7;

/// What becomes of a frame (`enum xdp_action` of the kernel).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Dropped.
    Drop,
    /// On to the kernel's stack.
    Pass,
    /// Into a socket, or out of another interface.
    Redirect,
}

impl Action {
    /// The action behind an XDP program's return value; none for those our programs never return.
    pub fn from_xdp(code: u32) -> Option<Self> {
        match code {
            libbpf_sys::XDP_DROP => Some(Self::Drop),
            libbpf_sys::XDP_PASS => Some(Self::Pass),
            libbpf_sys::XDP_REDIRECT => Some(Self::Redirect),
            _ => None,
        }
    }

    /// The same for the programs of shortcuts (TC_ACT_*, `linux/pkt_cls.h`).
    pub fn from_filter(code: u32) -> Option<Self> {
        match code.cast_signed() {
            TC_ACT_SHOT => Some(Self::Drop),
            TC_ACT_UNSPEC => Some(Self::Pass),
            TC_ACT_REDIRECT => Some(Self::Redirect),
            _ => None,
        }
    }
}

/// Why: `enum weft_verdict`, one for every return of every program. Counted by the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Verdict {
    /// Pod: into the socket.
    PodTaken = 0,
    /// Pod: the interface is in no table of ours.
    PodUnknownPort = 1,
    /// Pod: nobody holds a socket for this queue.
    PodNoSocket = 2,
    /// Uplink: VXLAN with our VNI to our address.
    UplinkVxlan = 3,
    /// Uplink: an ICMP error says that our tunnel's packet was too big.
    UplinkTooBig = 4,
    /// Uplink: to a routed pod prefix.
    UplinkRouted = 5,
    /// Uplink: to a service.
    UplinkService = 6,
    /// Uplink: a fragment to a service.
    UplinkServiceFragment = 7,
    /// Uplink: an ICMP error about what a service sent.
    UplinkServiceError = 8,
    /// Uplink: the frame ends inside a header we must read.
    PassShort = 9,
    /// Uplink: carries a VLAN tag.
    PassVlan = 10,
    /// Uplink: neither IPv4 nor IPv6.
    PassNotIp = 11,
    /// Uplink: version or header length make no sense.
    PassBadHeader = 12,
    /// Uplink: to an address that is none of ours, or a port there that is none.
    PassNotOurs = 13,
    /// Uplink: to the node itself.
    PassNode = 14,
    /// Uplink: a fragment to the node itself.
    PassFragment = 15,
    /// Uplink: VXLAN of another network.
    PassForeignVni = 16,
    /// Uplink: an ICMP error about somebody else's packet.
    PassOtherQuote = 17,
    /// Uplink: ours, but the interface is in no table of ours.
    PassUnknownPort = 18,
    /// Uplink: ours, but nobody holds a socket for this queue.
    PassNoSocket = 19,
    /// Shortcut: sent on to another port of the node.
    ShortcutTaken = 20,
    /// Shortcut: there is none.
    ShortcutNone = 21,
    /// Uplink: out of the tunnel, into a pod.
    UplinkShortcut = 22,
}

impl Verdict {
    /// Every verdict, in the order of its number.
    pub const ALL: [Self; 23] = [
        Self::PodTaken,
        Self::PodUnknownPort,
        Self::PodNoSocket,
        Self::UplinkVxlan,
        Self::UplinkTooBig,
        Self::UplinkRouted,
        Self::UplinkService,
        Self::UplinkServiceFragment,
        Self::UplinkServiceError,
        Self::PassShort,
        Self::PassVlan,
        Self::PassNotIp,
        Self::PassBadHeader,
        Self::PassNotOurs,
        Self::PassNode,
        Self::PassFragment,
        Self::PassForeignVni,
        Self::PassOtherQuote,
        Self::PassUnknownPort,
        Self::PassNoSocket,
        Self::ShortcutTaken,
        Self::ShortcutNone,
        Self::UplinkShortcut,
    ];

    /// Stable name for people and tools.
    pub fn name(self) -> &'static str {
        match self {
            Self::PodTaken => "pod-taken",
            Self::PodUnknownPort => "pod-unknown-port",
            Self::PodNoSocket => "pod-no-socket",
            Self::UplinkVxlan => "uplink-vxlan",
            Self::UplinkTooBig => "uplink-too-big",
            Self::UplinkRouted => "uplink-routed",
            Self::UplinkService => "uplink-service",
            Self::UplinkServiceFragment => "uplink-service-fragment",
            Self::UplinkServiceError => "uplink-service-error",
            Self::PassShort => "pass-short",
            Self::PassVlan => "pass-vlan",
            Self::PassNotIp => "pass-not-ip",
            Self::PassBadHeader => "pass-bad-header",
            Self::PassNotOurs => "pass-not-ours",
            Self::PassNode => "pass-node",
            Self::PassFragment => "pass-fragment",
            Self::PassForeignVni => "pass-foreign-vni",
            Self::PassOtherQuote => "pass-other-quote",
            Self::PassUnknownPort => "pass-unknown-port",
            Self::PassNoSocket => "pass-no-socket",
            Self::ShortcutTaken => "shortcut-taken",
            Self::ShortcutNone => "shortcut-none",
            Self::UplinkShortcut => "uplink-shortcut",
        }
    }

    /// What it means, for people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::PodTaken => "Pod: into the socket",
            Self::PodUnknownPort => "Pod: the interface is in no table of ours",
            Self::PodNoSocket => "Pod: nobody holds a socket for this queue",
            Self::UplinkVxlan => "Uplink: VXLAN with our VNI to our address",
            Self::UplinkTooBig => "Uplink: an ICMP error says that our tunnel's packet was too big",
            Self::UplinkRouted => "Uplink: to a routed pod prefix",
            Self::UplinkService => "Uplink: to a service",
            Self::UplinkServiceFragment => "Uplink: a fragment to a service",
            Self::UplinkServiceError => "Uplink: an ICMP error about what a service sent",
            Self::PassShort => "Uplink: the frame ends inside a header we must read",
            Self::PassVlan => "Uplink: carries a VLAN tag",
            Self::PassNotIp => "Uplink: neither IPv4 nor IPv6",
            Self::PassBadHeader => "Uplink: version or header length make no sense",
            Self::PassNotOurs => "Uplink: to an address that is none of ours",
            Self::PassNode => "Uplink: to the node itself",
            Self::PassFragment => "Uplink: a fragment to the node itself",
            Self::PassForeignVni => "Uplink: VXLAN of another network",
            Self::PassOtherQuote => "Uplink: an ICMP error about somebody else's packet",
            Self::PassUnknownPort => "Uplink: ours, but the interface is in no table of ours",
            Self::PassNoSocket => "Uplink: ours, but nobody holds a socket for this queue",
            Self::ShortcutTaken => "Shortcut: sent on to another port of the node",
            Self::UplinkShortcut => "Uplink: out of the tunnel by a shortcut, into its pod",
            Self::ShortcutNone => {
                "Shortcut: none holds for what was redirected inside the pod; it was just taken back, or a program of the pod did that"
            }
        }
    }

    /// What the program does with such a packet.
    pub fn action(self) -> Action {
        match self {
            Self::PodTaken
            | Self::UplinkVxlan
            | Self::UplinkTooBig
            | Self::UplinkRouted
            | Self::UplinkService
            | Self::UplinkServiceFragment
            | Self::UplinkServiceError
            | Self::ShortcutTaken
            | Self::UplinkShortcut => Action::Redirect,
            Self::PodUnknownPort | Self::PodNoSocket | Self::ShortcutNone => Action::Drop,
            _ => Action::Pass,
        }
    }
}
