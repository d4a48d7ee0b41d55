#!/usr/bin/env bash
# A wire that loses, reorders and repeats packets: TCP of both directions and families arrives unchanged, and is
# sent again about as often as over the kernel's own VXLAN on the same wire.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

BYTES=$((100 << 20))

wire_that() { # FLIP-OPTIONS...
  bg middle flip weft-bench flip --a a --b b "$@"
  FLIP=$!
}
middle_is_wired() { wire_that; }  # called by the topology: nodes must find each other to get ready

retransmits() { in_ns "$1" cat /proc/net/snmp | awk '/^Tcp:/ { value = $13 } END { print value }'; }

# spoilt FROM TO ADDRESS: prints how many segments were sent again.
spoilt() {
  local before
  before=$(retransmits "$1")
  tcp_clean "$1" "$2" "$3" "$BYTES"
  echo $(($(retransmits "$1") - before))
}

two_nodes middle
pod node1 shop/client
pod node2 shop/db
for n in 1 2; do
  # Another port and identifier: not ours, so the uplink's program passes it.
  ip -n "node$n" link add kernel0 type vxlan id 99 local "192.0.2.$n" remote "192.0.2.$((3 - n))" dstport 8472 dev u0
  ip -n "node$n" link set dev kernel0 up
  address "node$n" kernel0 "10.99.0.$n/24" "fd99::$n/64"
done
ping_ok node1 10.99.0.2
ping_ok client "$(ip4 db)"
finish "$FLIP" TERM
# netem would do it too, but few kernels for small machines have it.
wire_that --drop 1 --duplicate 0.5 --reorder 1

# Ports are lent more frames as they get busy: what overflows until then is not what is compared.
spoilt client db "$(ip4 db)" >/dev/null
spoilt db client "$(ip4 client)" >/dev/null

for family in ip4 ip6; do
  prefix=10.99.0.
  [[ $family == ip4 ]] || prefix=fd99::
  there=$(spoilt client db "$($family db)")
  back=$(spoilt db client "$($family client)")
  kernel_there=$(spoilt node1 node2 "${prefix}2")
  kernel_back=$(spoilt node2 node1 "${prefix}1")
  say "$family: sent again $there and $back, over the kernel's VXLAN $kernel_there and $kernel_back"
  expect "retransmits, $family" $((there + back)) -le $((3 * (kernel_there + kernel_back) + 100))
done
finish "$FLIP" TERM
say "the wire: $(cat "$LOGS/flip.out")"
for what in dropped duplicated reordered; do
  expect "packets $what" "$(jq ".$what" "$LOGS/flip.out")" -gt 1000
done
