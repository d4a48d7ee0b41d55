#!/usr/bin/env bash
# The log of keeper, dataplane and agent: with --log-format json nothing but JSON, one object per line,
# the error a process ends with included; in text no colours where no terminal is.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

all_json() { jq -es 'length > 0 and all(.[]; has("level") and has("timestamp"))' "$1"; }

# refused NAME COMMAND...: fails, and says why on stderr only.
refused() {
  local name=$1
  shift
  in_ns node1 "$@" >"$LOGS/$name.out" 2>"$LOGS/$name.log" && fail "$* succeeds"
  expect "lines of $name on stdout" "$(wc -l <"$LOGS/$name.out")" = 0
}

export WEFT_LOG_FORMAT=json
two_nodes
pod node1 shop/web
ping_ok node1 "$(ip4 web)"
kill9 node1 dataplane
start_dataplane node1
wait_ready node1
for role in keeper dataplane agent; do
  all_json "$LOGS/node1.$role.log" >/dev/null || fail "not JSON: $(head -3 "$LOGS/node1.$role.log")"
done

run=(--run-dir "$W/node1/run")
agent=(weft-agent "${run[@]}" --state-dir "$W/node1/state" --node node1 --source "dir:$MANIFESTS")
refused keeper2 weft-keeper "${run[@]}" --log-format json
refused dataplane2 weft-dataplane --run-dir "$W/none" --underlay u0 --log-format json
refused agent2 "${agent[@]}" --log-format json
for name in keeper2 dataplane2 agent2; do
  all_json "$LOGS/$name.log" >/dev/null || fail "not JSON: $(cat "$LOGS/$name.log")"
  jq -es 'last.level == "ERROR"' "$LOGS/$name.log" >/dev/null || fail "no last word of $name"
done

unset WEFT_LOG_FORMAT NO_COLOR
refused keeper3 weft-keeper "${run[@]}"
refused agent3 env WEFT_LOG=loud=quiet "${agent[@]}"
for name in keeper3 agent3; do
  grep -q ERROR "$LOGS/$name.log" || fail "$name does not say why: $(cat "$LOGS/$name.log")"
  ! grep -q $'\e' "$LOGS/$name.log" || fail "$name writes colours into a file"
done
grep -q 'WARN WEFT_LOG=loud=quiet' "$LOGS/agent3.log" || fail 'a level nobody knows is not reported'
