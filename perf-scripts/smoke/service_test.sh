#!/usr/bin/env bash
# Pods and the nodes themselves reach a service's pods by its cluster IP, over both families, on the same
# node and across, and a service that a process of a node serves; a connection stays with its pod; a service
# nobody serves refuses at once.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"
. "$WEFT_ROOT/perf-scripts/_service.sh"

two_nodes
pod node1 shop/client
pod node1 shop/near
pod node2 shop/far
for name in near far node1; do web_server "$name"; done

both_answer() { # NS ADDRESS
  local answers
  answers=$(asks "$1" "$2" 30 | sort | uniq -c | awk '{ printf "%s %s ", $2, $1 }')
  say "$1 to $2: $answers"
  [[ $answers == far*near* && $answers != *nobody* ]] || fail "$1 to $2: $answers"
}

slices web near far
slices api node1
service web 10.96.0.10 fd00:10:96::10 | manifest service.yaml
service api 10.96.0.1 fd00:10:96::1 | manifest api.yaml
service lonely 10.96.0.11 fd00:10:96::11 | manifest lonely.yaml
within 5 'the service answers' eval '[[ $(asks client 10.96.0.10 1) == [nf]*r ]]'
for from in client node1 node2; do
  both_answer "$from" 10.96.0.10
  both_answer "$from" fd00:10:96::10
  for address in 10.96.0.1 fd00:10:96::1; do
    expect "$from asks $address, a process of node1" "$(asks "$from" "$address" 1)" = node1
  done
done
for address in 10.96.0.10 fd00:10:96::10; do
  expect "bytes by $address" "$(get client "$address" /large | wc -c)" -eq 20000000
done
for address in 10.96.0.11 fd00:10:96::11; do
  began=$(now_ms)
  ! get client "$address" / 2>"$LOGS/refused.log" || fail 'nobody served it'
  grep -q refused "$LOGS/refused.log" || fail "$address: $(cat "$LOGS/refused.log")"
  expect "ms until $address refused" $(($(now_ms) - began)) -lt 1000
done
slices web far
within 5 'near gets no more' eval '[[ $(asks client 10.96.0.10 8 | sort -u) == far ]]'
