#!/usr/bin/env bash
# weft beside the kernel's own paths, on this machine, in the same minutes: the tests take turns
# (every datapath once per round), so that whatever else the machine does hits all of them.
#   ROUNDS=3 SECONDS_EACH=5 run/throughput.sh
# Writes target/bench/matrix.json and prints a table. Needs an otherwise idle machine to mean much.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

ROUNDS=${ROUNDS:-3}
SECONDS_EACH=${SECONDS_EACH:-5}
RUNS=$W/runs.jsonl
OUT=$WEFT_ROOT/target/bench
mkdir -p "$OUT"

# ---- peers ------------------------------------------------------------------------------------

# bridge NAME MTU ROUTE_MTU NET: two namespaces NAME-a (.1) and NAME-b (.2) behind a kernel bridge.
bridge() {
  local name=$1 mtu=$2 route=$3 net=$4 end n=0
  namespace "$name"
  ip -n "$name" link add name br0 mtu "$mtu" type bridge
  ip -n "$name" link set dev br0 up
  for end in a b; do
    n=$((n + 1))
    namespace "$name-$end"
    wire "$name-$end" eth0 "$name" "p$end" "$mtu"
    ip -n "$name" link set dev "p$end" master br0
    address "$name-$end" eth0 "$net.$n/24"
    ip -n "$name-$end" route replace "$net.0/24" dev eth0 src "$net.$n" mtu "$route"
  done
}

# vxlan NAME NET [off]: two kernel nodes NAME1 and NAME2 with a pod each, NAME1-pod and NAME2-pod,
# routed over a VXLAN device as flannel has it. A veth as wire takes 64 KiB segments whole, which
# no real wire does; with `off` the kernel cuts them in software, as a NIC without TSO makes it.
vxlan() {
  local name=$1 net=$2 n other
  namespace "${name}1"
  namespace "${name}2"
  wire "${name}1" u0 "${name}2" u0 1500
  for n in 1 2; do
    other=$((3 - n))
    [[ ${3:-} != off ]] || in_ns "$name$n" ethtool -K u0 tx off tso off gso off gro off >/dev/null
    in_ns "$name$n" sysctl -qw net.ipv4.ip_forward=1
    address "$name$n" u0 192.0.2.$n/24
    ip -n "$name$n" link add name vx0 address 02:00:00:00:ff:0$n type vxlan id 1 local 192.0.2.$n dev u0 dstport 4789 nolearning
    ip -n "$name$n" link set dev vx0 up
    address "$name$n" vx0 "$net.$n.0/32"
    ip -n "$name$n" neigh add "$net.$other.0" lladdr 02:00:00:00:ff:0$other dev vx0
    in_ns "$name$n" bridge fdb add 02:00:00:00:ff:0$other dev vx0 dst 192.0.2.$other
    ip -n "$name$n" route add "$net.$other.0/24" via "$net.$other.0" dev vx0 onlink
    namespace "$name$n-pod"
    wire "$name$n-pod" eth0 "$name$n" pod 1450
    address "$name$n" pod "$net.$n.1/24"
    address "$name$n-pod" eth0 "$net.$n.2/24"
    ip -n "$name$n-pod" route add default via "$net.$n.1"
  done
}

# ---- one measurement --------------------------------------------------------------------------

busy_ticks() { awk '/^cpu / { print $2 + $3 + $4 + $7 + $8 + $9 }' /proc/stat; }

# measure DATAPATH PLACEMENT WIRE_MTU CLIENT ADDRESS TEST
measure() {
  local before after test=$6 args=()
  case $test in
    dtm) args=(-P 8) ;;
    dus) args=(-u -b 0 -l 1400) ;;
  esac
  before=$(busy_ticks)
  iperf "$4" "$5" "$SECONDS_EACH" "${args[@]}" >/dev/null
  after=$(busy_ticks)
  jq -c --arg datapath "$1" --arg placement "$2" --argjson wire "$3" --arg test "$test" \
    --argjson cores "$(awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" -v s="$SECONDS_EACH" 'BEGIN { print t / hz / s }')" '
    {datapath: $datapath, placement: $placement, wire_mtu: $wire, test: $test, cores: $cores,
     bits: (.end.sum_received // .end.sum).bits_per_second,
     lost_pct: (if .end.sum_sent.retransmits == null then .end.sum.lost_percent else null end),
     retransmits: .end.sum_sent.retransmits}' "$LOGS/iperf.json" >>"$RUNS"
}

memory() { # bytes of all of weft's processes on node1, shared memory included once
  awk '/^Pss:/ { kb += $2 } END { print kb * 1024 }' \
    $(for role in keeper dataplane agent; do echo "/proc/$(pid_of node1 $role)/smaps_rollup"; done)
}

two_nodes
pod node1 shop/web
pod node1 shop/client
pod node2 shop/db
bridge kb 1500 1500 10.97.1
bridge kl 65535 65000 10.97.2
vxlan kn 10.99
vxlan ko 10.98 off
for server in web db kb-b kl-b kn2-pod ko2-pod; do iperf_server $server; done

for ((round = 1; round <= ROUNDS; round++)); do
  for test in dts dtm dus; do
    echo "round $round of $ROUNDS: $test" >&2
    measure weft same-node null client "$(ip4 web)" $test
    measure kernel-bridge same-node null kb-a 10.97.1.2 $test
    measure kernel-bridge+large-mtu same-node null kl-a 10.97.2.2 $test
    measure weft cross-node 1500 client "$(ip4 db)" $test
    measure kernel-vxlan cross-node 1500 kn1-pod 10.99.2.2 $test
    measure kernel-vxlan+wire-offloads-off cross-node 1500 ko1-pod 10.98.2.2 $test
  done
done

# ---- report -----------------------------------------------------------------------------------

jq -s --argjson memory "$(memory)" --arg kernel "$(uname -r)" --argjson cores "$(nproc)" \
  --arg cpu "$(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo)" '
  def median: sort | if length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end;
  def median_of(field): map(field) | if any(. == null) then null else median end;
  {schema: 1, host: {kernel: $kernel, cpu: $cpu, cores: $cores},
   results: (group_by([.placement, .test, .datapath]) | map({
     datapath: .[0].datapath, placement: .[0].placement, wire_mtu: .[0].wire_mtu, test: .[0].test,
     unit: "bit/s", runs: map(.bits), median: map(.bits) | median,
     lost_pct: median_of(.lost_pct), retransmits: median_of(.retransmits), cpu_cores: map(.cores) | median,
     memory_bytes: (if .[0].datapath == "weft" then $memory else null end)}))}' "$RUNS" >"$OUT/matrix.json"

# Gb/s received: median (least-most).
jq -r '
  def gbit: . / 1e7 | round / 100;
  def cell(test): map(select(.test == test)) | .[0] | "\(.median | gbit) (\(.runs | min | gbit)-\(.runs | max | gbit))";
  "| placement | datapath | TCP 1 stream | TCP 8 streams | UDP 1400 B |", "|---|---|---|---|---|",
  (.results | group_by([.placement, .datapath]) | .[] |
   "| \(.[0].placement) | \(.[0].datapath) | \(cell("dts")) | \(cell("dtm")) | \(cell("dus")) |")' "$OUT/matrix.json"
