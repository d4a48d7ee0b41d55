#!/usr/bin/env bash
# The dataplane is killed with SIGKILL 20 times during one iperf3 stream, on one node and across two:
# the connection lives, and not one frame is lost for good.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

KILLS=20

two_nodes
pod node1 shop/client
pod node1 shop/web
pod node2 shop/db

restarted() { [[ $(value node1 .restarts) == "$1" ]] && [[ $(value node1 .committed) == true ]]; }

survive() { # SERVER
  local to stream i done_before
  to=$(ip4 "$1")
  done_before=$(value node1 .restarts)
  iperf_server "$1"
  in_ns client iperf3 -J -c "$to" -t $((KILLS * 3 / 4 + 3)) >"$LOGS/stream-$1.json" 2>&1 &
  stream=$!
  sleep 1
  for ((i = 1; i <= KILLS; i++)); do
    kill9 node1 dataplane
    start_dataplane node1
    within 5 "dataplane is back, time $i" restarted $((done_before + i))
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
