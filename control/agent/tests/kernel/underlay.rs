use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use weft_agent::host::underlay::{Targets, View, follow};
use weft_api::object::UnderlayPath;

use crate::namespace::{Namespace, block_on, enter, ip, run, set};

/// Far longer than a change takes, far shorter than the periodic refresh.
const SOON: Duration = Duration::from_secs(12);

struct Followed {
    targets: watch::Sender<Targets>,
    views: mpsc::Receiver<View>,
    last: View,
}

impl Followed {
    fn new(local: &[&str], vteps: &[&str]) -> Self {
        let (targets, followed) = watch::channel(targets(local, vteps));
        let (sender, views) = mpsc::channel(1);
        tokio::task::spawn_local(follow(followed, sender));
        Self {
            targets,
            views,
            last: View::default(),
        }
    }

    /// Waits for a view that `wanted` likes.
    async fn until(&mut self, what: &str, wanted: impl Fn(&View) -> bool) -> View {
        let search = async {
            loop {
                self.last = self.views.recv().await.expect("a follower");
                if wanted(&self.last) {
                    return;
                }
            }
        };
        let found = tokio::time::timeout(SOON, search).await;
        assert!(found.is_ok(), "{what}; last seen: {:#?}", self.last);
        self.last.clone()
    }

    /// Waits for the path to `vtep` to be as wanted.
    async fn path(
        &mut self,
        what: &str,
        vtep: &str,
        wanted: impl Fn(&UnderlayPath) -> bool,
    ) -> UnderlayPath {
        let vtep: IpAddr = vtep.parse().unwrap();
        let find = |view: &View| view.paths.iter().find(|p| p.vtep == vtep).cloned();
        let view = self
            .until(what, |view| find(view).is_some_and(|p| wanted(&p)))
            .await;
        find(&view).expect("just seen")
    }
}

fn targets(local: &[&str], vteps: &[&str]) -> Targets {
    Targets {
        vteps: vteps.iter().map(|a| a.parse().unwrap()).collect(),
        local: local.iter().map(|a| a.parse().unwrap()).collect(),
    }
}

fn mac_of(shown: &Value) -> String {
    shown[0]["address"].as_str().unwrap().to_owned()
}

fn far_mac(far: &Namespace, ifname: &'static str) -> String {
    far.within(move || mac_of(&ip(&format!("link show dev {ifname}"))))
}

fn has_mac(path: &UnderlayPath, mac: &str) -> bool {
    path.next_hop_mac.is_some_and(|m| m.to_string() == mac)
}

fn run_local(test: impl Future<Output = ()>) {
    block_on(LocalSet::new().run_until(test));
}

/// Two nodes on one wire, both families.
fn wire() -> Namespace {
    enter();
    let far = Namespace::new();
    far.wire("u0", "u1");
    run("ip addr add 192.0.2.1/24 dev u0");
    run("ip addr add 2001:db8::1/64 dev u0 nodad");
    far.run("ip addr add 192.0.2.2/24 dev u1");
    far.run("ip addr add 2001:db8::2/64 dev u1 nodad");
    far
}

#[test]
fn direct_neighbours_are_resolved_and_kept_by_the_kernel() {
    let far = wire();
    run_local(async {
        let mac = far_mac(&far, "u1");
        let vteps = ["192.0.2.2", "2001:db8::2"];
        let mut followed = Followed::new(&["192.0.2.1", "2001:db8::1"], &vteps);
        let both = |view: &View| view.paths.iter().filter(|p| has_mac(p, &mac)).count() == 2;
        let view = followed.until("both resolved", both).await;
        let near = mac_of(&ip("link show dev u0"));
        for (path, source) in view.paths.iter().zip(["192.0.2.1", "2001:db8::1"]) {
            assert_eq!(path.ifname, "u0");
            assert_eq!(path.source.to_string(), source);
            assert_eq!(path.source_mac.to_string(), near);
            assert_eq!(path.mtu, 1500);
        }
        assert_eq!(view.interfaces, ["u0"]);
        assert_eq!(view.link_mtu, Some(1500));
        assert_eq!(view.problems, [""; 0]);
        let shown = run("ip neigh show dev u0");
        assert_eq!(shown.matches("managed").count(), 2, "{shown}");

        followed
            .targets
            .send_replace(targets(&["192.0.2.1"], &["192.0.2.2"]));
        followed
            .until("one left", |view| view.paths.len() == 1)
            .await;
        let shown = run("ip neigh show dev u0");
        assert!(!shown.contains("2001:db8::2"), "{shown}");
        assert_eq!(shown.matches("managed").count(), 1, "{shown}");
    });
}

#[test]
fn a_next_hop_with_a_new_mac_is_followed() {
    let far = wire();
    // Otherwise an entry cannot change within a second of its confirmation.
    set("ipv4/neigh/u0/locktime", "0");
    far.within(|| set("ipv4/conf/u1/arp_notify", "1"));
    run_local(async {
        let mac = far_mac(&far, "u1");
        let mut followed = Followed::new(&["192.0.2.1"], &["192.0.2.2"]);
        followed
            .path("resolved", "192.0.2.2", |p| has_mac(p, &mac))
            .await;
        far.run("ip link set u1 address 02:00:00:00:00:42");
        let new = |p: &UnderlayPath| has_mac(p, "02:00:00:00:00:42");
        followed.path("new MAC", "192.0.2.2", new).await;
        run("ip link set u0 address 02:00:00:00:00:43");
        let new = |p: &UnderlayPath| p.source_mac.to_string() == "02:00:00:00:00:43";
        followed.path("own MAC", "192.0.2.2", new).await;
    });
}

#[test]
fn a_flushed_neighbour_is_asked_for_again() {
    let far = wire();
    run_local(async {
        let mac = far_mac(&far, "u1");
        let mut followed = Followed::new(&["192.0.2.1"], &["192.0.2.2"]);
        followed
            .path("resolved", "192.0.2.2", |p| has_mac(p, &mac))
            .await;
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        run("ip neigh del 192.0.2.2 dev u0");
        followed
            .path("gone", "192.0.2.2", |p| p.next_hop_mac.is_none())
            .await;
        followed
            .path("back", "192.0.2.2", |p| has_mac(p, &mac))
            .await;
    });
}

#[test]
fn an_entry_set_by_hand_is_used_and_left_alone() {
    let _far = wire();
    run("ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:77 dev u0 nud permanent");
    run_local(async {
        let mut followed = Followed::new(&["192.0.2.1"], &["192.0.2.2"]);
        let by_hand = |p: &UnderlayPath| has_mac(p, "02:00:00:00:00:77");
        followed.path("by hand", "192.0.2.2", by_hand).await;
        followed.targets.send_replace(targets(&["192.0.2.1"], &[]));
        followed
            .until("no path", |view| view.paths.is_empty())
            .await;
        assert!(run("ip neigh show dev u0").contains("PERMANENT"));
    });
}

#[test]
fn route_and_mtu_changes_are_followed() {
    let far = wire();
    let other = Namespace::new();
    other.wire("v0", "v1");
    run("ip addr add 198.51.100.1/24 dev v0");
    other.run("ip addr add 198.51.100.2/24 dev v1");
    run_local(async {
        let (first, second) = (far_mac(&far, "u1"), far_mac(&other, "v1"));
        let vtep = "203.0.113.5";
        let mut followed = Followed::new(&["192.0.2.1"], &[vtep]);
        let view = followed
            .until("no route", |view| !view.problems.is_empty())
            .await;
        assert!(
            view.problems[0].contains("no route to node address 203.0.113.5"),
            "{view:?}"
        );

        run("ip route add 203.0.113.0/24 via 192.0.2.2");
        let path = followed.path("by u0", vtep, |p| has_mac(p, &first)).await;
        assert_eq!((path.ifname.as_str(), path.mtu), ("u0", 1500));
        run("ip route replace 203.0.113.0/24 via 198.51.100.2 mtu 1300");
        let path = followed.path("by v0", vtep, |p| has_mac(p, &second)).await;
        assert_eq!((path.ifname.as_str(), path.mtu), ("v0", 1300));
        assert_eq!(path.source.to_string(), "192.0.2.1");
        run("ip link set v0 mtu 1280");
        followed.path("link MTU", vtep, |p| p.mtu == 1280).await;
        run("ip rule add to 203.0.113.5 lookup 77");
        run("ip route add default via 192.0.2.2 table 77");
        followed
            .path("by rule", vtep, |p| p.ifname == "u0" && has_mac(p, &first))
            .await;

        run("ip link set u0 mtu 1400");
        followed
            .until("node's MTU", |view| view.link_mtu == Some(1400))
            .await;
        run("ip link set u0 down");
        followed
            .until("link down", |view| {
                view.link_mtu == Some(1400) && !has_hop(view)
            })
            .await;
    });
}

fn has_hop(view: &View) -> bool {
    view.paths.iter().any(|path| path.next_hop_mac.is_some())
}

#[test]
fn a_path_mtu_the_kernel_learned_counts() {
    enter();
    let (router, far) = (Namespace::new(), Namespace::new());
    router.wire("u0", "r0");
    far.wire("r1", "f0");
    router.take("r1");
    run("ip addr add 192.0.2.1/24 dev u0");
    run("ip route add 198.51.100.0/24 via 192.0.2.2");
    for command in [
        "ip addr add 192.0.2.2/24 dev r0",
        "ip addr add 198.51.100.1/24 dev r1",
        "ip link set r1 mtu 1300 up",
        "sysctl -qw net.ipv4.ip_forward=1",
    ] {
        router.run(command);
    }
    far.run("ip addr add 198.51.100.2/24 dev f0");
    far.run("ip route add default via 198.51.100.1");
    run_local(async {
        let vtep = "198.51.100.2";
        let mut followed = Followed::new(&["192.0.2.1"], &[vtep]);
        followed.path("before", vtep, |p| p.mtu == 1500).await;
        crate::namespace::try_run("ping -c 2 -i 0.1 -W 1 -M do -s 1400 198.51.100.2");
        // Learning is not announced; any other news makes us look.
        run("ip addr add 203.0.113.1/32 dev u0");
        followed.path("after", vtep, |p| p.mtu == 1300).await;
    });
}

#[test]
fn silent_next_hops_and_own_addresses_are_named() {
    let _far = wire();
    set("ipv4/neigh/u0/retrans_time_ms", "100");
    run("ip route add 203.0.113.0/24 via 192.0.2.77");
    run_local(async {
        let vteps = ["192.0.2.1", "203.0.113.5", "203.0.113.6"];
        let mut followed = Followed::new(&["192.0.2.1"], &vteps);
        let expected = [
            "node address 192.0.2.1 of another node is this node's own",
            "the next hop 192.0.2.77 does not answer on u0; behind it: node address 203.0.113.5 \
             and 1 more",
        ];
        let view = followed
            .until("problems", |view| view.problems == expected)
            .await;
        assert_eq!(view.paths.len(), 2);
    });
}
