#!/usr/bin/env bash
# The dataplane is killed with SIGKILL 20 times during one iperf3 stream, on one node and across two:
# the connection lives, not one frame is lost for good, and each new dataplane knows the connections of
# the last one.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

KILLS=20

two_nodes
pod node1 shop/client
pod node1 shop/web
pod node2 shop/db

restarted() { [[ $(value node1 .restarts) == "$1" ]] && [[ $(value node1 .committed) == true ]]; }

flows() { status node1 | jq -r '[.flows[] | select(.name | IN("current", "new", "hits")) | .count] | @tsv'; }
known() { (($(flows | cut -f1) >= $1)); }
hits_beyond() { (($(flows | cut -f3) > $1)); }

# Packets go on as those of connections the last dataplane left; iperf3 has two.
remembers() { # KILL
  local new hits
  within 3 "connections known after kill $1" known 2
  hits=$(flows | cut -f3)
  within 3 "packets of known connections after kill $1" hits_beyond "$hits"
  new=$(flows | cut -f2)
  expect "connections unknown after kill $1" "$new" -eq 0
}

survive() { # SERVER
  local to stream i done_before
  to=$(ip4 "$1")
  done_before=$(value node1 .restarts)
  iperf_server "$1"
  in_ns client iperf3 -J -c "$to" -t $((KILLS + 5)) >"$LOGS/stream-$1.json" 2>&1 &
  stream=$!
  sleep 1
  for ((i = 1; i <= KILLS; i++)); do
    kill9 node1 dataplane
    start_dataplane node1
    within 5 "dataplane is back, time $i" restarted $((done_before + i))
    # Early: where other work slows the restarts down, the stream ends before the last of them.
    ((i == 4 || i == 8)) && remembers "$i"
    sleep 0.5
  done
  wait "$stream" || fail "the stream to $1 died: $(jq -r .error "$LOGS/stream-$1.json")"
  say "client to $1 through $KILLS kills: $(jq -c \
    '{gbit: (.end.sum_received.bits_per_second / 1e9 * 100 | round / 100), retransmits: .end.sum_sent.retransmits}' \
    "$LOGS/stream-$1.json")"
  jq -e 'all(.intervals[-2:][]; .sum.bytes > 0)' "$LOGS/stream-$1.json" >/dev/null ||
    fail "the stream to $1 stands still at its end"
}

survive web
survive db
