#!/usr/bin/env bash
# `weft capture` writes a pcapng that tshark reads: the packets of a port, and for each dropped one
# the reason as a comment.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

two_nodes
pod node1 shop/web
pod node1 shop/client

capture() { # NAME ARGS...: its pid is then in $!
  local name=$1
  shift
  bg node1 "capture-$name" weft --run-dir "$W/node1/run" capture "$@" -w "$LOGS/$name.pcapng"
  sleep 0.7
}

count() { frames "$LOGS/$1.pcapng" "$2"; }

capture port "$(port client)"
PORT_CAPTURE=$!
capture all
ALL_CAPTURE=$!
in_ns client ping -c 3 -i 0.1 "$(ip4 web)" >/dev/null
in_ns client ping -c 3 -i 0.1 "$(ip6 web)" >/dev/null
in_ns client weft-bench flood spoofed-source --count 20 --rate 200 --to "$(ip4 web)" >/dev/null
in_ns client weft-bench flood vlan --count 10 --rate 200 --to "$(ip4 web)" >/dev/null
sleep 0.5
finish $PORT_CAPTURE TERM
finish $ALL_CAPTURE TERM

for file in port all; do
  tshark -r "$LOGS/$file.pcapng" >"$LOGS/$file.txt" 2>&1 || fail "tshark cannot read it: $(tail -3 "$LOGS/$file.txt")"
  expect "echo requests in $file" "$(count $file 'icmp.type == 8 and not frame.comment contains "drop: "')" -ge 3
  expect "IPv6 echo requests in $file" "$(count $file 'icmpv6.type == 128 and not frame.comment contains "drop: "')" -ge 3
  expect "dropped frames in $file" "$(count $file 'frame.comment contains "drop: "')" -ge 30
done
tshark -r "$LOGS/all.pcapng" -Y 'frame.comment contains "drop: "' -T fields -e frame.comment 2>/dev/null | sort | uniq -c
expect 'spoofed frames that say so' "$(count all 'frame.comment contains "source-address" and ip.src == 203.0.113.0/24')" -eq 20

expect 'sent frames called merged' "$(count all 'frame.comment contains "GRO"')" -eq 0

# Traced again, the client's own packets end as they did.
traced=$(in_ns node1 weft --run-dir "$W/node1/run" trace shop/client --file "$LOGS/all.pcapng" -o json) && fail 'spoofed packets pass in a trace'
ends() { jq "[.packets[].trace.way | select($1)] | length" <<<"$traced"; }
expect 'traced packets that pass' "$(ends '.verdict == "tx"')" -ge 6
expect 'traced spoofed packets' "$(ends '.reason == "source-address"')" -eq 20
expect 'packets of others left out' "$(jq .left_out <<<"$traced")" -ge 6
