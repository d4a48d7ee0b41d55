#!/usr/bin/env bash
# A process of the node hears at once what becomes of its packets to pods: an address no pod has is
# unreachable, a packet too large for the way to another node is refused with the size that fits,
# by its own stack, or by the dataplane where the route does not know.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

two_nodes
pod node1 shop/web
pod node2 shop/db

# refused ADDRESS: ping and connect fail with an error, not by waiting.
refused() {
  local to=$1 started
  started=$(now_ms)
  in_ns node1 ping -c 1 -W 2 "$to" >"$LOGS/ping.out" 2>&1 && fail "$to answers"
  grep -qE 'Host Unreachable|Address unreachable' "$LOGS/ping.out" || fail "$to: $(cat "$LOGS/ping.out")"
  in_ns node1 timeout 2 bash -c "exec 3<>/dev/tcp/$to/80" 2>"$LOGS/connect.log" && fail "connected to $to"
  grep -q 'No route to host' "$LOGS/connect.log" || fail "connect to $to: $(cat "$LOGS/connect.log")"
  expect "ms until $to is refused" $(($(now_ms) - started)) -lt 1500
}

for to in 10.244.1.200 10.244.2.200 fd00:10:244:1::200 fd00:10:244:2::200; do refused "$to"; done

learned() { [[ $(in_ns node1 ip route get "$1" | grep -oE 'mtu [0-9]+' | tail -1) == "mtu $2" ]]; }

# The routes know the tunnel's size from the start and follow the wire's.
too_big() { # ADDRESS MTU HEADERS
  ping_ok node1 "$1" -M do -s $(($2 - $3))
  in_ns node1 ping -c 1 -W 1 -M do -s $(($2 - $3 + 1)) "$1" >"$LOGS/big.out" 2>&1 && fail "more than $2 bytes to $1"
  grep -qE "mtu[=:] ?$2" "$LOGS/big.out" || fail "to $1: $(cat "$LOGS/big.out")"
}
too_big "$(ip4 db)" 1450 28
too_big "$(ip6 db)" 1450 48
for node in node1 node2; do ip -n "$node" link set dev u0 mtu 1400; done
within 5 'the route follows the wire' learned "$(ip4 db)" 1350
too_big "$(ip4 db)" 1350 28
too_big "$(ip6 db)" 1350 48

# Where a route does not say (a routing daemon's, say), the dataplane's answer is what teaches.
kill9 node1 agent
in_ns node1 ip route change 10.244.2.0/24 via 169.254.1.1 dev weft0 onlink src 10.244.1.1
in_ns node1 ip -6 route del fd00:10:244:2::/64
in_ns node1 ip -6 route add fd00:10:244:2::/64 via fe80::1 dev weft0 onlink src fd00:10:244:1::1
for family in ip4 ip6; do
  to=$($family db)
  in_ns node1 ping -c 1 -W 1 -M do -s 1380 "$to" >"$LOGS/taught.out" 2>&1 && fail "1380 bytes to $to"
  learned "$to" 1350 || fail "not learned for $to: $(cat "$LOGS/taught.out")"
  ping_ok node1 "$to" -M do -s $((1350 - 48))
  tcp_clean node1 db "$to" $((4 << 20))
done
