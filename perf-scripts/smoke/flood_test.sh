#!/usr/bin/env bash
# Connections live through a flood of SYNs, also when the table of connections is full: embryonic ones
# give way. How much of its throughput an established connection keeps beside SYNs, of what it has beside
# as many datagrams of one flow, is printed, not judged: two shared cores are no measuring instrument. At
# least 80 % is what it should be, the median of five rounds.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

FLOWS=2048
echo "{\"flows\": $FLOWS}" >"$W/tuning.json"
DATAPLANE_ARGS=(--config "$W/tuning.json")

two_nodes
pod node1 shop/web
pod node1 shop/client
pod_manifest node1 shop/attacker | manifest attacker.yaml
pod node1 shop/attacker
pod_manifest node1 shop/sink | manifest sink.yaml
pod node1 shop/sink
# A sink that answers nothing: its connections stay embryonic.
ip -n sink route add blackhole "$(ip4 attacker)"
web=$(ip4 web)
flows() { value "$1" ".flows[] | select(.name == \"$2\") | .count"; }

# Held idle while the table overflows.
bg web idle-server iperf3 -s -p 5202
within 5 'the idle server' _listens web t 5202
# shellcheck disable=SC2016
bg client idle-client bash -c 'exec 3<>"/dev/tcp/$1/5202" && sleep 600 <&3' - "$web"
idle=$!
within 5 'the idle connection' eval 'in_ns web ss -tnH "sport = :5202" | grep -q ESTAB'

iperf_server web
flooded() { # KIND
  local flood
  bg attacker "flood-$1" weft-bench flood "$1" --to "$(ip4 sink)" --count 100000000 --rate 100000
  flood=$!
  iperf client "$web" 2
  kill $flood && wait $flood || true
}
for round in 1 2 3 4 5; do echo "$(flooded datagram) $(flooded syn)"; done >"$LOGS/rounds"
awk '{ print int($2 / $1 * 100 + 0.5) }' "$LOGS/rounds" | sort -n >"$LOGS/kept"
say "Gb/s beside datagrams and beside SYNs: $(paste -sd '|' "$LOGS/rounds")"
say "kept beside SYNs: $(sed -n 3p "$LOGS/kept") % (median of $(paste -sd ' ' "$LOGS/kept"))"
expect 'connections in the table' "$(flows node1 current)" -le "$FLOWS"
expect 'connections that gave way' "$(flows node1 evicted)" -gt 10000

kill -0 $idle || fail 'the idle connection ended'
in_ns web ss -tnH 'sport = :5202' | grep -q ESTAB || fail 'the idle connection is gone'
listed=$(weft --run-dir "$W/node1/run" flow list --pod shop/web --port 5202 --output json)
expect 'the idle connection in the table' "$(jq '.flows | length' <<<"$listed")" -eq 1
