#!/usr/bin/env bash
# A pod whose network namespace disappears without a DEL: the port goes, its frames come back, and a
# DEL that comes late is a success.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

two_nodes
pod node1 shop/web
pod node1 shop/client
ping_ok client "$(ip4 web)"
echo_server web "$(ip4 web)"

pods() { value node1 '[.ports[] | select(.kind == "pod")] | length'; }
lent() { value node1 '.frames.fill + .frames.tx'; }

vanish() { # a pod goes while traffic runs to it and from it
  local gone towards from
  pod node1 shop/gone
  gone=$(ip4 gone)
  expect 'pod ports' "$(pods)" -eq 3
  probe client "$(at "$gone" 7)" 2000 1 --linger 0.1 >/dev/null &
  towards=$!
  bg gone from-gone weft-bench probe client --to "$(at "$(ip4 web)" 7)" --rate 2000 --seconds 9
  from=$!
  sleep 0.4
  kill -KILL $from # a process in it would keep the namespace
  wait $from 2>/dev/null || true
  ip netns del gone
  within 5 'the port of the vanished pod goes' eval '[[ $(pods) == 2 ]]'
  cni DEL node1 shop/gone || fail 'a late DEL fails'
  wait $towards
}

# The ports that stay are lent more frames as they get busy and keep them: first until they have
# what this traffic makes them take.
for ((round = 1; round <= 3; round++)); do vanish; done
before=$(lent)
for ((round = 1; round <= 5; round++)); do vanish; done
# One port is lent at least 32 frames, so five that kept theirs would show.
expect 'frames lent after five more pods vanished' "$(lent)" -lt $((before + 5 * 32))
probe_clean client "$(at "$(ip4 web)" 7)" 1000 1
