#!/usr/bin/env bash
# A client outside the cluster, on the nodes' own network, reaches services by node ports of both nodes, a load
# balancer's address and an external IP: TCP, UDP and fragments, both families, pods of that node and of the other
# one. What is none of a service stays the node's.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"
. "$WEFT_ROOT/perf-scripts/_service.sh"

two_nodes lan
pod node1 shop/near
pod node2 shop/far
for name in near far; do
  web_server "$name"
  who_server "$name"
done
who_server node1
who_server outside
for address in 198.18.0.80 198.18.0.81; do ip -n outside route add $address via 192.0.2.1; done

slices there far
slices here near
slices balanced near
slices host node1
outside_service there 01 '' | manifest there.yaml
outside_service here 02 '  externalTrafficPolicy: Local' | manifest here.yaml
outside_service lonely 03 '' | manifest lonely.yaml
outside_service host 04 '' | manifest host.yaml
outside_service balanced 05 "  externalIPs: [198.18.0.81]
  loadBalancerSourceRanges: [203.0.113.0/24]" >"$W/balanced.yaml"
echo 'status: { loadBalancer: { ingress: [{ ip: 198.18.0.80 }] } }' | cat "$W/balanced.yaml" - | manifest balanced.yaml
within 10 'the load balancer answers' eval '[[ $(who outside tcp 192.0.2.1 30590) == near* ]]'

for family in 4 6; do
  [[ $family == 4 ]] && of_nodes=(192.0.2.1 192.0.2.2 10.244.1.1) || of_nodes=(2001:db8::1 2001:db8::2 fd00:10:244:1::1)
  client=$([[ $family == 4 ]] && echo 192.0.2.254 || echo 2001:db8::fe)
  for protocol in tcp udp fragments; do
    asked() { # WHAT NODE PORT ANSWER
      expect "$protocol: $1" "$(who outside $protocol "${of_nodes[$2 - 1]}" "$3")" = "$4"
    }
    asked 'a pod of the node' 1 30290 "near $client"
    asked 'a pod of the other node' 2 30190 "far $client"
    asked 'a pod elsewhere' 1 30190 "far ${of_nodes[2]}"
    asked 'nobody' 1 30390 'Connection refused'
    asked 'outside the ranges' 1 30590 "near $client"
    from=$(at "${of_nodes[0]}" 30190)
    expect "$protocol: the node's own from such a port" "$(who node1 $protocol $client 9090 "$from")" = "outside ${of_nodes[0]}"
    expect "$protocol: a port of the node's own" "$(who outside $protocol "${of_nodes[0]}" 9090)" = "node1 $client"
  done
  expect 'the node itself' "$(who outside tcp "${of_nodes[0]}" 30490 | cut -d' ' -f1)" = node1
  for from in 'near 30280' 'far 30180'; do
    sum=$(get outside "${of_nodes[0]}" /large "${from#* }" | sha256sum)
    expect "IPv$family download from ${from% *}" "$sum" = "$(sha256sum <"$W/www/${from% *}/large")"
  done
done
for protocol in tcp udp fragments; do
  expect "$protocol: an external IP" "$(who outside $protocol 198.18.0.81 90)" = 'near 192.0.2.254'
  expect "$protocol: in the range" "$(who outside $protocol 198.18.0.80 90 203.0.113.1)" = 'near 203.0.113.1'
  expect "$protocol: not in the range" "$(who outside $protocol 198.18.0.80 90)" = ''
done
expect 'refused by range' "$(drops node1 source-range)" -gt 0
