#!/usr/bin/env bash
# 200 ADDs at once, then 200 DELs in random order: no error, no address twice, nothing left, and a
# 2 kpps probe between other pods loses nothing meanwhile.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

COUNT=${COUNT:-200}

two_nodes
pod node1 shop/web
pod node1 shop/client
echo_server web "$(ip4 web)" "${STEADY[@]}"
for ((i = 1; i <= COUNT; i++)); do pod_manifest node1 "shop/many$i"; done | manifest many.yaml
for ((i = 1; i <= COUNT; i++)); do ip netns add "many$i"; done
links_before=$(ip -n node1 -json link | jq length)
free_before=$(value node1 '.frames.free')

bg client probe "${STEADY[@]}" weft-bench probe client --to "$(at "$(ip4 web)" 7)" --rate 2000 --seconds 600
PROBE=$!

all() { # COMMAND < names: at once, every one must succeed
  local name pids=() pid failed=0
  while read -r name; do
    cni "$1" node1 "shop/$name" >"$W/pods/$name.$1" 2>"$LOGS/$1-$name.log" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || failed=$((failed + 1)); done
  expect "failed $1 (see $LOGS; $(cat "$W"/pods/*."$1" | jq -c 'select(.code)' | head -1))" "$failed" -eq 0
}

names() { for ((i = 1; i <= COUNT; i++)); do echo "many$i"; done; }

started=$(now_ms)
all ADD < <(names)
say "$COUNT ADDs in $(($(now_ms) - started)) ms"
addresses=$(cat "$W"/pods/*.ADD | jq -r '.ips[].address')
expect 'addresses given' "$(wc -l <<<"$addresses")" -eq $((COUNT * 2))
expect 'addresses given twice' "$(sort <<<"$addresses" | uniq -d | wc -l)" -eq 0

started=$(now_ms)
all DEL < <(names | shuf --random-source=/dev/zero)
say "$COUNT DELs in $(($(now_ms) - started)) ms"
expect 'links left' "$(ip -n node1 -json link | jq length)" -eq "$links_before"
# All but those of two pods, the uplink and weft0, which are busy now; 200 ports would have 3,600 at least.
within 5 'frames come back' eval '[[ $(value node1 .frames.free) -ge $((free_before - 1024)) ]]'

finish "$PROBE" INT
say "probe: $(cat "$LOGS/probe.out")"
clean_probe 'between other pods' "$(cat "$LOGS/probe.out")"
