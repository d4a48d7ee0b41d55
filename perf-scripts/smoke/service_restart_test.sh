#!/usr/bin/env bash
# Both nodes' dataplanes are killed with SIGKILL five times each while a pod sends through two cluster IPs, whose
# pods are on its own node and on the other one, over both families: the connections live, and not one frame
# is lost for good.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"
. "$WEFT_ROOT/perf-scripts/_service.sh"

KILLS=5
SECONDS_MAX=40

two_nodes
pod node1 shop/client
for name in near:1:20 far:2:21; do
  IFS=: read -r name node last <<<"$name"
  pod "node$node" "shop/$name"
  slices "$name" "$name"
  service "$name" "10.96.0.$last" "fd00:10:96::$last" | manifest "service-$name.yaml"
  iperf_server "$name" 8080
done

restarted() { [[ $(value "$1" .restarts) == "$2" ]] && [[ $(value "$1" .committed) == true ]]; }

# bytes NAME: how many the stream has received, from its server's namespace.
bytes() { in_ns "$1" ss -tinH state established 'sport = :8080' | grep -o 'bytes_received:[0-9]*' | cut -d: -f2 | sort -n | tail -1; }

grows() { (($(bytes "$1") > $2)); }

survive() { # ADDRESS-OF-NEAR ADDRESS-OF-FAR
  local i node before streams=()
  before=$(value node1 .restarts)
  for name in near:$1 far:$2; do
    bg client "stream-${name%%:*}" iperf3 -c "${name#*:}" -p 80 -t $SECONDS_MAX
    streams+=($!)
  done
  sleep 1
  for ((i = 1; i <= KILLS; i++)); do
    for node in node1 node2; do
      kill9 "$node" dataplane
      start_dataplane "$node"
      within 5 "dataplane of $node is back, time $i" restarted "$node" $((before + i))
      sleep 0.3
    done
  done
  for name in near:$1 far:$2; do
    before=$(bytes "${name%%:*}")
    within 5 "more bytes by ${name#*:} after the last kill" grows "${name%%:*}" $((before + 1000000))
    say "${name%%:*} by ${name#*:}: $((before >> 20)) MiB through $((2 * KILLS)) kills"
  done
  for i in "${streams[@]}"; do finish "$i" INT; done
}

survive 10.96.0.20 10.96.0.21
survive fd00:10:96::20 fd00:10:96::21
