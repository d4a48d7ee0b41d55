#!/usr/bin/env bash
# A million connections at once from a pod to a service, on one node: opened once, used again, one more beside them.
#   compare/connections.sh [COUNT]
# UDP, a datagram each and its answer, to as many ports of the service as it takes, over four backends. Those of a
# SLICE are used a second time soon after: what was answered once is forgotten after 30 s, what goes on after 120. Then all
# are used again. Prints what came back, what each packet cost the dataplane in processor time with few and with all of
# them in the table, and what they added to its memory. RATE=40000 datagrams a second; two minutes.
WEFT_LOG_DIR=$(realpath -m "$(dirname "$0")/../../target/bench/connections")
export WEFT_LOG_DIR
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/peers.sh"
. "$WEFT_ROOT/perf-scripts/topo/weft-pair.sh"

COUNT=${1:-1000000}
SLICE=$((COUNT < 200000 ? COUNT : 200000))
RATE=${RATE:-40000}
FEW=1000 ROUNDS=50
SERVICE=10.96.5.1
FIRST_PORT=5300 PORT_CONNECTIONS=50000 # those of `weft-bench flood connections`
PORTS=$(((COUNT + PORT_CONNECTIONS - 1) / PORT_CONNECTIONS))
BACKENDS='mc-p2 mc-p3 mc-p4 mc-p5'
echo "{\"flows\": $((COUNT + COUNT / 10 + 10 * FEW))}" >"$W/tuning.json"
DATAPLANE_ARGS=(--config "$W/tuning.json")

service() {
  local at pod target
  echo '{apiVersion: v1, kind: Service, metadata: {namespace: bench, name: many}, spec: {clusterIP: '$SERVICE', ports: ['
  for ((at = 0; at < PORTS; at++)); do
    echo "{name: p$at, protocol: UDP, port: $((FIRST_PORT + at)), targetPort: $((9000 + at))},"
  done
  printf ']}}\n---\n{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,\n'
  echo 'metadata: {namespace: bench, name: many, labels: {kubernetes.io/service-name: many}}, ports: ['
  for ((at = 0; at < PORTS; at++)); do echo "{name: p$at, protocol: UDP, port: $((9000 + at))},"; done
  echo '], endpoints: ['
  for pod in $BACKENDS; do
    target="targetRef: {kind: Pod, namespace: bench, name: $pod}"
    echo "{addresses: [$(ip4 "$pod")], nodeName: mc-1, $target},"
  done
  echo ']}'
}

flows() { value mc-1 ".flows[] | select(.name == \"$1\") | .count"; }
answers() { ip -n mc-p1 -j -s link show dev eth0 | jq '.[].stats64.rx.packets'; }
cpu_ms() { awk '{ print ($14 + $15) * 10 }' "/proc/$(pid_of mc-1 dataplane)/stat"; }
memory_kb() { awk '/^Pss:/ { print $2 }' "/proc/$(pid_of mc-1 dataplane)/smaps_rollup"; }

# datagrams FIRST COUNT: sends them and waits for the last answer. What came back and was new, and the dataplane's
# nanoseconds per packet, answers included.
datagrams() {
  local answered cpu new
  answered=$(answers) cpu=$(cpu_ms) new=$(flows new)
  in_ns mc-p1 weft-bench flood connections --to $SERVICE --first "$1" --count "$2" --rate "$RATE" >"$LOGS/flood.json"
  sleep 0.5
  ANSWERED=$(($(answers) - answered)) NEW=$(($(flows new) - new))
  CPU_NS=$((($(cpu_ms) - cpu) * 1000000 / (2 * $2)))
}

# every_slice WHAT TIMES
every_slice() {
  local first time answered=0 new=0 cpu=0 slices=0
  for ((first = 0; first < COUNT; first += SLICE)); do
    for ((time = 0; time < $2; time++, slices++)); do
      ((time == 0)) || sleep 2
      datagrams "$first" "$SLICE"
      answered=$((answered + ANSWERED)) new=$((new + NEW)) cpu=$((cpu + CPU_NS))
    done
  done
  say "$COUNT $1: $answered answered, $new new, $((cpu / slices)) ns per packet, $(flows current) in the table"
  ANSWERED=$answered NEW=$new
}

weft_idle mc 5
service | manifest service-many.yaml
# Neither end has a socket for these, and its kernel would say so.
ip -n mc-p1 route add blackhole $SERVICE
for pod in $BACKENDS; do
  ip -n "$pod" route add blackhole "$(ip4 mc-p1)"
  bg "$pod" "reflect-$pod" weft-bench reflect
done
_answered() { datagrams 0 10 && ((ANSWERED >= 10)); }
within 10 'the service answers' _answered
datagrams 0 $FEW

before=$(memory_kb) cpu=$(cpu_ms)
for ((round = 0; round < ROUNDS; round++)); do datagrams 0 $FEW; done
say "$FEW connections: $((($(cpu_ms) - cpu) * 1000000 / (2 * ROUNDS * FEW))) ns of the dataplane's processor time per packet"
every_slice 'opened, each slice used twice' 2
every_slice 'used again' 1
say "memory of the dataplane: $(((($(memory_kb) - before) * 1024) / COUNT)) bytes more per connection"
expect 'connections in the table' "$(flows current)" -ge $((COUNT - COUNT / 1000))
expect 'begun anew though known' "$NEW" -le $((COUNT / 1000))
expect 'answered of those known' "$ANSWERED" -ge $((COUNT - COUNT / 1000))
in_ns mc-1 weft --run-dir "$W/mc-1/run" service show bench/many
