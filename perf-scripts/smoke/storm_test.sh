#!/usr/bin/env bash
# What a pod must not send is dropped, counted frame by frame under a reason, and harms nobody: a
# 1 kpps probe between other pods of the node loses nothing while it lasts. Where the machine stood still
# so long that the pod's queue ran full, the kernel counted what it dropped: some frames, never most.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

two_nodes
pod node1 shop/web
pod node1 shop/client
pod_manifest node1 shop/storm | manifest storm.yaml
pod node1 shop/storm
echo_server web "$(ip4 web)"
wait_quiet() { # SECONDS: the pod's own neighbour discovery and multicast reports are over
  local before now
  now=$(port_counter node1 storm rx_packets)
  until before=$now; sleep "$1"; now=$(port_counter node1 storm rx_packets); ((now == before)); do :; done
}

reasons() { status node1 | jq -c '[.drops[] | {(.name): .count}] | add'; }

storm() { # KIND TO [COUNT RATE]
  local before dropped kernel sent
  wait_quiet 0.3
  before=$(reasons)
  dropped=$(port_counter node1 storm drops)
  kernel=$(port_counter node1 storm rx_kernel_drops)
  probe client "$(at "$(ip4 web)" 7)" 1000 3 >"$LOGS/probe.json" &
  local probe=$!
  sent=$(in_ns storm weft-bench flood "$1" --count "${3:-10000}" --rate "${4:-4000}" --to "$2")
  wait "$probe"
  clean_probe "during $1" "$(cat "$LOGS/probe.json")"
  sleep 0.3
  dropped=$(($(port_counter node1 storm drops) - dropped))
  kernel=$(($(port_counter node1 storm rx_kernel_drops) - kernel))
  say "$1 to $2: $sent dropped $dropped: $(jq -c --argjson before "$before" \
    'with_entries(.value -= $before[.key] | select(.value > 0))' <<<"$(reasons)")"
  expect "percent of the frames of $1 the kernel dropped for us" $((kernel * 100 / ${3:-10000})) -lt 5
  # Some kinds hold honest frames too; the kernel does not say which it dropped.
  expect "drops of $1" "$dropped" -le "$(jq .hostile <<<"$sent")"
  expect "drops of $1 and of the kernel" $((dropped + kernel)) -ge "$(jq .hostile <<<"$sent")"
}

wait_quiet 3
storm arp-storm "$(ip4 web)"
storm vlan "$(ip4 web)"
storm random "$(ip4 web)"
storm runt "$(ip4 web)"
for to in "$(ip4 web)" "$(ip6 web)"; do
  storm spoofed-source "$to"
  storm fragments-overlap "$to" 200 100 # 50 unfinished datagrams a second; a pod may have 64
done
storm vxlan-from-pod 192.0.2.2
storm vxlan-from-pod 2001:db8::2
