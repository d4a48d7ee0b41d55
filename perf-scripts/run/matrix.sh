#!/usr/bin/env bash
# The benchmark matrix: weft beside the kernel's datapaths and another userspace switch, all set up
# at once in namespaces of this run, measured in turns by `weft-bench matrix`.
#   run/matrix.sh [--quick] [options of weft-bench matrix]
# Writes target/bench/matrix.json and target/bench/report.html, prints a table for the README.
# Logs stay in target/bench/logs. Needs an otherwise idle machine to mean much.
WEFT_LOG_DIR=$(realpath -m "$(dirname "$0")/../../target/bench/logs")
export WEFT_LOG_DIR
. "$(dirname "$0")/../_lib.sh"
for part in peers ovs weft-pair services; do . "$WEFT_ROOT/perf-scripts/topo/$part.sh"; done

OUT=${WEFT_BENCH_OUT:-$WEFT_ROOT/target/bench}
LANES=$W/lanes.jsonl
SKIPPED=$W/skipped.jsonl
: >"$LANES" >"$SKIPPED"
mkdir -p "$OUT"

# What runs where. Small requests do not feel the wire's MTU: on the 9000 byte wire, bulk only.
BULK='dts dtm dus dum'
SMALL='rr crr pps64'
SERVED='sts stm sus sum'

# Two services of one endpoint each, as in the published benchmark: the server beside the client and the
# one across. They are the first of ten, which is where a list of rules is quickest.
NEAR=10.96.0.10
FAR=10.96.0.11
PORT=5201

# lane DATAPATH PLACEMENT WIRE_MTU CLIENT SERVER ADDRESS TESTS [PID...]: a pair of ends to measure.
lane() {
  jq -nc --arg datapath "$1" --arg placement "$2" --argjson wire_mtu "$3" --arg client "$4" \
    --arg server "$5" --arg address "$6" --arg tests "$7" --argjson port "${LANE_PORT:-null}" '{$datapath, $placement, $wire_mtu, $client,
      $server, $address, $port, tests: ($tests | split(" ")), processes: ($ARGS.positional | map(tonumber))}' \
    --args "${@:8}" >>"$LANES"
}

skip() { # DATAPATH PLACEMENT REASON
  jq -nc --arg datapath "$1" --arg placement "$2" --arg reason "$3" '{$datapath, $placement, $reason}' >>"$SKIPPED"
  say "skipped: $1, $2: $3" >&2
}

same_node() { lane "$1" same-node null "$2-c" "$2-s" "$3" "$BULK $SMALL rr-pinned" "${@:4}"; }

cross_node() { # DATAPATH WIRE_MTU NAME ADDRESS [PID...]
  local tests="$BULK"
  (($2 > 1500)) || tests="$BULK $SMALL"
  lane "$1" cross-node "$2" "$3-c" "$3-r" "$4" "$tests" "${@:5}"
}

served() { LANE_PORT=$PORT lane "${@:1:6}" "$SERVED" "${@:7}"; } # as lane, with a service's address and no TESTS

services() { # NEAR FAR: the addresses of the two servers
  local n
  for n in tcp udp; do echo "$n $NEAR $PORT $1:$PORT"; done
  for n in tcp udp; do echo "$n $FAR $PORT $2:$PORT"; done
  for n in {1..8}; do echo "tcp 10.96.1.$n 80 10.99.0.$n:80 10.99.1.$n:80"; done
}

# Addresses are weft's to choose, the kernel's are those of topo/peers.sh.
weft_lanes() { # NAME WIRE_MTU
  local name=$1 both
  weft_pair "$name" "$2"
  # shellcheck disable=SC2046
  set -- "$2" $(weft_pids "$name-1")
  both=("${@:2}")
  mapfile -t -O "${#both[@]}" both < <(weft_pids "$name-2")
  cross_node weft "$1" "$name" "$(ip4 "$name-r")" "${both[@]}"
  services "$(ip4 "$name-s")" "$(ip4 "$name-r")" | weft_services | manifest services.yaml
  served weft cross-node "$1" "$name-c" "$name-r" $FAR "${both[@]}"
  (($1 == 1500)) || return 0
  same_node weft "$name" "$(ip4 "$name-s")" "${@:2}"
  served weft same-node null "$name-c" "$name-s" $NEAR "${@:2}"
  lane weft cross-node "$1" "$name-c" "$name-1-out" "$OUT4" 'ext-tx ext-rx' "${@:2}"
}

kernel_same_node() {
  bridge_pods kb 1500 1500
  same_node kernel-bridge kb "$NET.1.3"
  lane kernel-bridge same-node null kb-c kb-s "$NET.1.3" idle # what an idle machine does by itself
  bridge_pods kl 65535 65000
  same_node kernel-bridge-64k kl "$NET.1.3"
  direct_pods kd
  same_node direct kd "$NET.1.3"
  bridge_pods kx 1500 1500
  forwarding kx
  outside_of kx
  masquerade kx
  lane kernel-bridge cross-node 1500 kx-c kx-out "$OUT4" 'ext-tx ext-rx'
}

kernel_nodes() { # WIRE_MTU
  local mtu=$1 tunnel=$(($1 - 50))
  peer_nodes "kr$mtu" "$mtu"
  routed_pods "kr$mtu" "$mtu"
  host_gateway "kr$mtu"
  cross_node kernel-routed "$mtu" "kr$mtu" "$NET.2.2"
  peer_nodes "kv$mtu" "$mtu"
  routed_pods "kv$mtu" "$tunnel"
  vxlan_between "kv$mtu"
  cross_node kernel-vxlan "$mtu" "kv$mtu" "$NET.2.2"
  peer_nodes "ko$mtu" "$mtu"
  offloads_on "ko$mtu-1" u0
  offloads_on "ko$mtu-2" u0
  routed_pods "ko$mtu" "$tunnel"
  vxlan_between "ko$mtu"
  cross_node kernel-vxlan+offloads "$mtu" "ko$mtu" "$NET.2.2"
  peer_nodes "kt$mtu" "$mtu"
  thread_and_queue "kt$mtu-1" u0
  thread_and_queue "kt$mtu-2" u0
  routed_pods "kt$mtu" "$tunnel"
  vxlan_between "kt$mtu"
  cross_node kernel-vxlan+thread "$mtu" "kt$mtu" "$NET.2.2"
  ebpf_nodes "$mtu"
  ((mtu > 1500)) || same_node kernel-routed "kr$mtu" "$NET.1.3"
}

ebpf_nodes() { # WIRE_MTU
  local mtu=$1
  if ! ebpf_build >"$LOGS/ebpf.out" 2>"$LOGS/ebpf.log"; then
    skip kernel-ebpf all "pod_redirect.bpf.c: $(head -1 "$LOGS/ebpf.log")"
    return
  fi
  peer_nodes "ke$mtu" "$mtu"
  routed_pods "ke$mtu" "$mtu"
  host_gateway "ke$mtu"
  ebpf_on "ke$mtu"
  cross_node kernel-ebpf "$mtu" "ke$mtu" "$NET.2.2"
  ((mtu > 1500)) || same_node kernel-ebpf "ke$mtu" "$NET.1.3"
}

# A node's pods are routed: were they on a bridge, replies would not pass the rules again.
kube_proxy_lanes() { # WIRE_MTU MODE
  local name=kp$1${2:0:1} n
  peer_nodes "$name" "$1"
  routed_pods "$name" $(($1 - 50))
  vxlan_between "$name"
  for n in 1 2; do
    services $NET.1.3 $NET.2.2 | kube_proxy_on "$name-$n" "$2" 2>"$LOGS/$2.log" ||
      { skip "kernel-$2" all "its rules: $(head -1 "$LOGS/$2.log")"; return; }
  done
  served "kernel-$2" cross-node "$1" "$name-c" "$name-r" $FAR
  (($1 == 1500)) || return 0
  routed_node "ks${2:0:1}" 1500
  services $NET.1.3 $NET.2.2 | kube_proxy_on "ks${2:0:1}-1" "$2"
  served "kernel-$2" same-node null "ks${2:0:1}-c" "ks${2:0:1}-s" $NEAR
}

ovs_lanes() {
  if ovs_pods ov; then same_node ovs-netdev ov "$NET.1.3" "${OVS_PIDS[@]}"
  else skip ovs-netdev same-node "$OVS_WHY"; fi
}

bare_wire() { # WIRE_MTU
  peer_nodes "kw$1" "$1"
  lane direct cross-node "$1" "kw$1-1" "kw$1-2" 192.0.2.2 "$BULK"
}

idle_lane() {
  weft_idle wi 20
  # shellcheck disable=SC2046
  lane weft same-node null wi-p1 wi-p2 "$(ip4 wi-p2)" idle $(weft_pids wi-1)
}

say 'setting up the datapaths' >&2
weft_lanes wa 1500
weft_lanes wj 9000
kernel_same_node
for mtu in 1500 9000; do
  kernel_nodes $mtu
  bare_wire $mtu
  for mode in iptables nftables; do kube_proxy_lanes $mtu $mode; done
done
ovs_lanes
idle_lane
say "$(wc -l <"$LANES") pairs of ends after $SECONDS s" >&2

jq -n --slurpfile lanes "$LANES" --slurpfile skipped "$SKIPPED" '{$lanes, $skipped}' >"$W/lanes.json"
weft-bench matrix --lanes "$W/lanes.json" --out "$OUT" --setup-seconds "$SECONDS" "$@"
