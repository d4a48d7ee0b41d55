#!/usr/bin/env bash
# TCP between two pods of a node takes a shortcut past the dataplane: its packets are counted, a capture
# sees them, the connection survives a killed dataplane, and a policy ends it at once.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"
. "$WEFT_ROOT/perf-scripts/_reach.sh"
. "$WEFT_ROOT/perf-scripts/_shortcut.sh"

weft_on1() { weft --run-dir "$W/node1/run" "$@"; }

two_nodes
pod node1 shop/web
pod node1 shop/client
port=5300
for family in ip4 ip6; do
  to=$($family web)
  port=$((port + 1))
  iperf_server web $port
  server=$!
  before=$(seen node1)
  bg client "stream-$family" iperf3 -c "$to" -p $port -t 60
  client=$!
  within 10 'a connection on the shortcut' on_shortcut node1
  sleep 2
  by_shortcut=$(by_shortcut node1)
  by_pipeline=$(($(seen node1) - before))
  flow=$(weft_on1 flow list --port $port -o json | jq '[.flows[].bytes | add] | max')
  sent=$(port_counter node1 client rx_bytes)
  say "$family: $by_shortcut packets by the shortcut, $by_pipeline by the pipeline, $((flow >> 20)) MiB"
  expect 'packets by the shortcut' "$by_shortcut" -gt $((5 * by_pipeline))
  expect 'bytes of the connection' "$flow" -gt $((100 << 20))
  expect 'bytes of the port' "$sent" -gt $((100 << 20))

  bg node1 "capture-$family" weft --run-dir "$W/node1/run" capture --snaplen 100 --count 2000 -w "$LOGS/$family.pcapng"
  wait $! || fail 'the capture ends with 2,000 packets'
  expect 'packets of the connection in a capture' "$(frames "$LOGS/$family.pcapng" "tcp.port == $port")" -ge 1000
  within 5 'a shortcut after the capture' on_shortcut node1

  restarts=$(value node1 .restarts)
  kill9 node1 dataplane
  start_dataplane node1
  within 5 'the dataplane is back' committed node1 $((restarts + 1))
  within 5 'a shortcut after the restart' on_shortcut node1

  kill -0 $client || fail "the connection ended: $(cat "$LOGS/stream-$family.out")"
  policy web '{"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]}' shop
  started=$(now_ms)
  wait $client && fail 'the connection goes on though a policy forbids it'
  took=$(($(now_ms) - started))
  say "reset $took ms after the policy changed: $(tail -1 "$LOGS/stream-$family.log")"
  expect 'milliseconds until the connection is reset' "$took" -lt 2000
  ! in_ns client timeout 2 iperf3 -c "$to" -p $port -t 1 >/dev/null 2>&1 || fail 'a new connection gets through'
  ! on_shortcut node1 || fail 'a connection is on the shortcut still'
  finish $server TERM
  rm "$MANIFESTS/policy-web.yaml"
done
