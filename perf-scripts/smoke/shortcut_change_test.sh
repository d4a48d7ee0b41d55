#!/usr/bin/env bash
# Every pod that goes takes the shortcuts of the others back, and they are given again: what is on its way meanwhile
# arrives. While pods come and go a probe between others loses nothing, and takes shortcuts for the most part.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"
. "$WEFT_ROOT/perf-scripts/_shortcut.sh"

ROUNDS=${ROUNDS:-5} PODS=20

two_nodes
pod node1 shop/web
pod node1 shop/client
for ((i = 1; i <= PODS; i++)); do
  pod_manifest node1 "shop/many$i"
  ip netns add "many$i"
done | manifest many.yaml
echo_server web "$(ip4 web)" "${STEADY[@]}"

all() { # COMMAND: of all pods at once
  local i pids=()
  for ((i = 1; i <= PODS; i++)); do
    cni "$1" node1 "shop/many$i" >"$W/pods/many$i.$1" 2>"$LOGS/$1-many$i.log" &
    pids+=($!)
  done
  for i in "${pids[@]}"; do wait "$i" || fail "$1: $(cat "$W"/pods/*."$1" | jq -c 'select(.code)' | head -1)"; done
}

before=$(by_shortcut node1)
bg client probe "${STEADY[@]}" weft-bench probe client --to "$(at "$(ip4 web)" 7)" --rate 8000 --seconds 120
client=$!
for ((i = 1; i <= ROUNDS; i++)); do
  all ADD
  all DEL
done
finish $client INT
taken=$(($(by_shortcut node1) - before))
probe=$(cat "$LOGS/probe.out")
say "$((ROUNDS * PODS)) pods came and went, $taken packets by shortcuts, probe: $probe"
expect 'packets by shortcuts' "$taken" -gt "$(jq .sent <<<"$probe")"
clean_probe 'between other pods' "$probe"
