#!/usr/bin/env bash
# A wire that flips a payload bit of every 50th frame: no application ever sees one. UDP datagrams
# are missing instead, TCP sends again.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

flip() {
  bg middle flip weft-bench flip --a a --b b --every "$1"
  FLIP=$!
}
middle_is_wired() { flip 0; }  # called by the topology: nodes must find each other to get ready

two_nodes middle
pod node1 shop/client
pod node2 shop/db
finish "$FLIP" TERM
flip 50

for family in ip4 ip6; do
  to=$($family db)
  bg db echo weft-bench probe server --listen "$(at "$to" 7)"
  server=$!
  within 5 "probe server on $to" _listens db u 7
  seen=$(probe client "$(at "$to" 7)" 2000 4 --payload 1000)
  finish "$server" TERM
  echoed=$(cat "$LOGS/echo.out")
  say "UDP $to: $seen, server $echoed"
  expect 'damaged datagrams at the server' "$(jq .corrupted <<<"$echoed")" -eq 0
  expect 'damaged answers at the client' "$(jq .corrupted <<<"$seen")" -eq 0
  expect 'datagrams missing' "$(jq .lost <<<"$seen")" -gt 0
  tcp_clean client db "$to" $((4 << 20))
done

finish "$FLIP" TERM
say "the wire: $(cat "$LOGS/flip.out")"
expect 'flipped frames' "$(jq .flipped "$LOGS/flip.out")" -gt 100
