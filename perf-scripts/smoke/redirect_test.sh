#!/usr/bin/env bash
# A pod that may change its network (CAP_NET_ADMIN) redirects frames to its own interface, so that generic XDP at the
# host end leaves them alone: they reach neither another pod, nor the node, nor the world behind it, though its kernel
# would let them.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

two_nodes
pod node1 shop/web
pod node1 shop/rogue
host=$(port rogue)
for to in "$(ip4 web)" 192.0.2.1 "$OUT4"; do ping_ok rogue "$to"; done
for if in all "$host"; do in_ns node1 sysctl -qw "net.ipv4.conf.$if.rp_filter=0" "net.ipv4.conf.$if.forwarding=1"; done

# What leaves by `aside` leaves by eth0, redirected, with eth0's addresses and to the host end's own MAC.
mac() { ip -n "$1" -j link show dev "$2" | jq -r '.[].address'; }
ifindex() { ip -n "$1" -j link show dev "$2" | jq '.[].ifindex'; }
arrived() { ip -n node1 -j -s link show dev "$host" | jq '.[].stats64.rx.packets'; }
echoes() { in_ns "$1" awk '/^Icmp:/ && ++line == 2 { print $9 }' /proc/net/snmp; }
ip -n rogue link add aside address "$(mac rogue eth0)" type veth peer name other
for link in aside other; do ip -n rogue link set dev $link up; done
in_ns rogue sysctl -qw net.ipv4.conf.all.rp_filter=0
in_ns rogue tc qdisc add dev aside clsact
clang -O2 -target bpf -c -o "$W/redirect.o" -xc - <<C
static long (*bpf_redirect)(unsigned ifindex, unsigned long long flags) = (void *)23;
__attribute__((section("tc"))) int redirect(void *skb) { return bpf_redirect($(ifindex rogue eth0), 0); }
C
in_ns rogue tc filter add dev aside egress bpf direct-action obj "$W/redirect.o" sec tc
asked=("$(echoes node1)" "$(echoes web)" "$(echoes outside)")
before=$(arrived)
for to in "$(ip4 web)" 192.0.2.1 "$OUT4"; do
  ip -n rogue route add "$to/32" dev aside src "$(ip4 rogue)"
  ip -n rogue neigh add "$to" lladdr "$(mac node1 "$host")" dev aside
  ping_fails rogue "$to" || fail "$to answers what was redirected"
done
expect 'redirected frames at the host end' $(($(arrived) - before)) -ge 6
expect 'echo requests at the others' "$(echoes node1) $(echoes web) $(echoes outside)" = "${asked[*]}"

ip -n rogue link del aside
for to in "$(ip4 web)" 192.0.2.1 "$OUT4"; do ping_ok rogue "$to"; done
