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

compare() { # FAMILY PREFIX: true when we send no more than three times as much again
  local ours kernels
  ours=($(spoilt client db "$($1 db)") $(spoilt db client "$($1 client)"))
  kernels=($(spoilt node1 node2 "${2}2") $(spoilt node2 node1 "${2}1"))
  say "$1: sent again ${ours[*]}, over the kernel's VXLAN ${kernels[*]}"
  ((ours[0] + ours[1] <= 3 * (kernels[0] + kernels[1]) + 100))
}

# A machine that is busy elsewhere lets a ring overflow now and then, ours or the kernel's.
compare ip4 10.99.0. || compare ip4 10.99.0. || fail 'too much is sent again, IPv4'
compare ip6 fd99:: || compare ip6 fd99:: || fail 'too much is sent again, IPv6'
finish "$FLIP" TERM
say "the wire: $(cat "$LOGS/flip.out")"
for what in dropped duplicated reordered; do
  expect "packets $what" "$(jq ".$what" "$LOGS/flip.out")" -gt 1000
done
