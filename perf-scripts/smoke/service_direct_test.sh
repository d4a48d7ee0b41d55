#!/usr/bin/env bash
# Direct server return: a client outside the cluster speaks to node1's ports and to a load balancer's address that leads
# there, pods of node2 answer it themselves. They see it, replies do not pass node1, connections stay with their pod.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"
. "$WEFT_ROOT/perf-scripts/_service.sh"

two_nodes lan
pod node1 shop/near
for name in far sink; do pod node2 "shop/$name"; done
for name in near far; do web_server "$name" && who_server "$name"; done
ip -n outside route add 198.18.0.80 via 192.0.2.1

dsr() { outside_service "$@" '' | sed "s|^metadata: .*|metadata: { namespace: shop, name: $1, annotations: { weft.dev/forwarding: dsr } }|"; }

slices far far
slices sink sink
{ dsr far 01; echo 'status: { loadBalancer: { ingress: [{ ip: 198.18.0.80 }] } }'; } | manifest far.yaml
dsr sink 02 | manifest sink.yaml
within 10 'node1 hands on' eval '[[ $(who outside tcp 192.0.2.1 30190) == far* ]]'

uplink() { value node1 ".ports[] | select(.name == \"u0\") | .counters.$1"; }
for family in 4 6; do
  [[ $family == 4 ]] && to=192.0.2.1 client=192.0.2.254 || to=2001:db8::1 client=2001:db8::fe
  for protocol in tcp udp fragments; do
    expect "$protocol: the pod sees the client" "$(who outside $protocol $to 30190)" = "far $client"
  done
  before=$(uplink tx_bytes)
  sum=$(get outside $to /large 30180 | sha256sum)
  expect "IPv$family download" "$sum" = "$(sha256sum <"$W/www/far/large")"
  expect 'bytes of it by node1, which sends on acknowledgements' $(($(uplink tx_bytes) - before)) -lt 4000000

  bg sink "hash-$family" weft-bench tcp-hash server --listen "$(at "$(ip$family sink)" 8080)"
  server=$!
  within 5 'a sink' _listens sink t 8080
  sent=$(in_ns outside timeout 60 weft-bench tcp-hash client --to "$(at $to 30280)" --bytes 20000000)
  wait $server || fail "the sink: $(cat "$LOGS/hash-$family.log")"
  expect "IPv$family upload" "$(cat "$LOGS/hash-$family.out")" = "$sent"
done
for protocol in tcp udp fragments; do
  expect "$protocol: a load balancer's address" "$(who outside $protocol 198.18.0.80 90)" = 'far 192.0.2.254'
done

# A connection stays where it is while the other pod joins; new ones go to both.
bg sink stay weft-bench tcp-hash server --listen "$(at "$(ip4 sink)" 8080)"
server=$!
within 5 'a sink' _listens sink t 8080
bg outside slow weft-bench tcp-hash client --to 192.0.2.1:30280 --bytes 2000000000
client=$!
sleep 0.3
slices sink sink far near
slices far far near
within 10 'new connections go to both' eval '[[ $(for i in {1..20}; do who outside tcp 192.0.2.1 30190; done | sort -u | wc -l) == 2 ]]'
wait $client || fail "the connection ended: $(cat "$LOGS/slow.log")"
wait $server
expect 'what went meanwhile' "$(cat "$LOGS/stay.out")" = "$(cat "$LOGS/slow.out")"
