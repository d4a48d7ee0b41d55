#!/usr/bin/env bash
# What services cost, beside a kube-proxy's rules in the kernel: 10, 1,000 and 10,000 services of ten endpoints in weft,
# in iptables and in nftables, all at once on one machine.
#   compare/services.sh [--quick]
# COUNTS='10 1000' has other numbers, ROUNDS=7 other rounds, IPTABLES=iptables-legacy the other iptables.
# Prints a table; writes target/bench/services/services.json and what `weft-bench matrix` writes. 20 minutes; --quick
# (10 and 1,000 services, one round) 2. Needs an otherwise idle machine to mean much.
#
#   load      from the first manifest, or the start of iptables-restore or nft, until the last service answers
#   change    the same for one changed endpoint; kube-proxy's own time to write the rules is not in it
#   memory    what the first load adds to processes (proportional set size), and to the kernel (slab, vmalloc, per cpu)
#   crr       connections per second by a service in the middle of the list, each with a byte there and back
#   connect   the first packet of each and its answer
# Medians of the rounds. A load or change that took longer than LOAD_MAX seconds is not repeated, a load that is not done
# after LOAD_END (300) is given up and said to be: iptables and nft take one to three minutes for 10,000 services of ten
# endpoints each (110,000 chains). The measured services have one endpoint each.
WEFT_LOG_DIR=$(realpath -m "$(dirname "$0")/../../target/bench/services/logs")
export WEFT_LOG_DIR
. "$(dirname "$0")/../_lib.sh"
for part in peers weft-pair services; do . "$WEFT_ROOT/perf-scripts/topo/$part.sh"; done

OUT=$WEFT_ROOT/target/bench/services
FACTS=$W/facts.jsonl
LANES=$W/lanes.jsonl
LOAD_MAX=20
CHANGE_MUST_MS=50
LOAD_END=${LOAD_END:-300}
IPTABLES=${IPTABLES:-iptables}
MEASURED=10.96.200.1 CHANGING=10.96.200.2 LAST=10.96.200.3
PORT=5201 OPEN=5300 CLOSED=5301
ROUNDS=${ROUNDS:-5} PACE=()
if [[ ${1:-} == --quick ]]; then ROUNDS=1 COUNTS=${COUNTS:-10 1000} PACE=(--quick); fi
mkdir -p "$OUT"
: >"$FACTS" >"$LANES"

progress() { printf '%5d s  %s\n' "$SECONDS" "$*" >&2; }

fact() { # DATAPATH COUNT WHAT VALUE
  jq -nc --arg datapath "$1" --argjson services "$2" --arg what "$3" --argjson value "$4" \
    '{$datapath, $services, $what, $value}' >>"$FACTS"
  progress "$1, $2 services: $3 $4"
}

# services COUNT SERVER: the measured ones among COUNT others, half before them, half behind.
services() {
  awk -v count="$1" -v server="$2" -v measured="$MEASURED $PORT" -v changing="$CHANGING 80" -v last="$LAST 80" \
    -v port=$PORT -v open=$OPEN 'BEGIN {
    for (n = 0; n < count - 3; n++) {
      if (n == int(count / 2)) {
        print "tcp", measured, server ":" port
        print "tcp", changing, server ":" open
      }
      printf "tcp 10.96.%d.%d 80", n / 250, n % 250 + 1
      for (i = 0; i < 10; i++) { e = n * 10 + i; printf " 10.%d.%d.%d:8080", 98 + e / 62500, e / 250 % 250, e % 250 + 1 }
      print ""
    }
    print "tcp", last, server ":" open
  }'
}

# connects NS ADDRESS: whether somebody answers at port 80. An address nobody knows is silent.
connects() { in_ns "$1" timeout 0.05 bash -c ': <"/dev/tcp/$0/80"' "$2" 2>/dev/null; }

# effect NS: looks every 2 ms, by new connections, until the changed service answers; prints when, in us.
effect() {
  in_ns "$1" timeout "$LOAD_END" bash -c 'exec 9<> <(:)
    until : <"/dev/tcp/$0/80"; do read -rt 0.002 -u 9; done
    echo "${EPOCHREALTIME/./}"' "$CHANGING" 2>/dev/null
}

kernel_kib() { awk '/^(SUnreclaim|VmallocUsed|Percpu):/ { sum += $2 } END { print sum }' /proc/meminfo; }

own_kib() { # NODE: of its processes
  local pid
  for pid in $(weft_pids "$1" 2>/dev/null); do awk '/^Pss:/ { print $2 }' "/proc/$pid/smaps_rollup"; done |
    awk '{ sum += $1 } END { print sum + 0 }'
}

# ---- a node each, with one client and one server ----------------------------------------------------------------

start() { # DATAPATH NAME
  if [[ $1 == weft ]]; then start_weft "$2"; else routed_node "$2" 65535; fi
  # The rounds take more connections to one address than there are ephemeral ports.
  in_ns "$2-c" sysctl -qw net.ipv4.ip_local_port_range='1024 65000' net.ipv4.tcp_tw_reuse=1
  mkdir -p "$W/www"
  bg "$2-s" "httpd-$2" busybox httpd -f -p $OPEN -h "$W/www"
}

start_weft() { # NAME
  MANIFESTS=$W/manifests-$1
  mkdir -p "$MANIFESTS"
  node "$1-1"
  namespace "$1-far"
  wire "$1-1" u0 "$1-far" u0 1500
  address "$1-1" u0 192.0.2.1/24
  _weft_node_manifest "$1-1" 1 | manifest nodes.yaml
  weft_start "$1-1" u0
  wait_ready "$1-1"
  pod "$1-1" "bench/$1-c"
  pod "$1-1" "bench/$1-s"
}

# prepare DATAPATH NAME COUNT: the texts to load and to change, so that making them is not measured.
prepare() {
  local server=$NET.1.3 number
  [[ $1 != weft ]] || server=$(ip4 "$2-s")
  services "$3" "$server" >"$W/$2.services"
  number=$(grep -n "^tcp $CHANGING " "$W/$2.services" | cut -d: -f1)
  case $1 in
    weft)
      grep -v "^tcp $CHANGING " "$W/$2.services" | weft_services >"$W/$2.rules"
      grep "^tcp $CHANGING " "$W/$2.services" | weft_services >"$W/$2.change"
      ;;
    iptables)
      kube_proxy_iptables 4 "$NET.0.0/16" <"$W/$2.services" >"$W/$2.rules"
      number=$(grep -o "^-A KUBE-SERVICES.* -d $CHANGING/.*" "$W/$2.rules" | grep -o 'KUBE-SVC-.*')
      number="$number|$(grep "^-A $number .*KUBE-SEP" "$W/$2.rules" | grep -o 'KUBE-SEP-.*')"
      { echo '*nat'; grep -E "^(:|-A )($number) " "$W/$2.rules"; echo COMMIT; } >"$W/$2.change"
      ;;
    nftables)
      kube_proxy_nftables "$NET.0.0/16" <"$W/$2.services" >"$W/$2.rules"
      number=$(grep -A 3 "^chain service-$(printf %08d "$number") " "$W/$2.rules" | grep -o 'endpoint-[0-9]*')
      printf '%s\n' "flush chain ip kube-proxy $number" "table ip kube-proxy {" \
        "$(grep -A 3 "^chain $number " "$W/$2.rules")" '}' >"$W/$2.change"
      ;;
  esac
}

load() { # DATAPATH NAME
  case $1 in
    weft)
      MANIFESTS=$W/manifests-$2
      manifest changing.yaml <"$W/$2.change"
      manifest services.yaml <"$W/$2.rules"
      timeout "$LOAD_END" bash -c "$(declare -f in_ns connects); until connects '$2-c' $LAST; do sleep 0.005; done"
      ;;
    iptables) in_ns "$2-1" timeout "$LOAD_END" "$IPTABLES-restore" <"$W/$2.rules" ;;
    nftables) in_ns "$2-1" timeout "$LOAD_END" nft -f "$W/$2.rules" ;;
  esac
}

unload() { # DATAPATH NAME
  case $1 in
    weft)
      rm "$W/manifests-$2"/{services,changing}.yaml
      while connects "$2-c" "$LAST"; do sleep 0.1; done
      ;;
    iptables) printf '*%s\nCOMMIT\n' filter nat | in_ns "$2-1" "$IPTABLES-restore" ;;
    nftables) in_ns "$2-1" nft delete table ip kube-proxy ;;
  esac
}

change() { # DATAPATH NAME PORT: of the endpoint
  local text
  case $1 in
    weft)
      MANIFESTS=$W/manifests-$2
      text=$(sed "/EndpointSlice/s/$OPEN/$3/" "$W/$2.change")
      began=${EPOCHREALTIME/./}
      manifest changing.yaml <<<"$text"
      ;;
    iptables)
      text=$(sed "s/$OPEN/$3/" "$W/$2.change")
      began=${EPOCHREALTIME/./}
      in_ns "$2-1" "$IPTABLES-restore" --noflush <<<"$text"
      ;;
    nftables)
      text=$(sed "s/$OPEN/$3/" "$W/$2.change")
      began=${EPOCHREALTIME/./}
      in_ns "$2-1" nft -f - <<<"$text"
      ;;
  esac
}

# ---- what is measured --------------------------------------------------------------------------------------------

loads() { # DATAPATH NAME COUNT: false if it was given up
  local round before_own before_kernel took=0 began
  for ((round = 1; round <= ROUNDS && took < LOAD_MAX * 1000000; round++)); do
    ((round == 1)) || unload "$1" "$2"
    before_own=$(own_kib "$2-1") before_kernel=$(kernel_kib) began=${EPOCHREALTIME/./}
    if ! load "$1" "$2" 2>>"$LOGS/load-$2.log"; then
      fact "$1" "$3" given_up_seconds "$LOAD_END"
      return 1
    fi
    took=$((${EPOCHREALTIME/./} - began))
    fact "$1" "$3" load_seconds "$(jq -n "$took / 1e6")"
    # An allocator keeps what it had: the first load says what it takes.
    ((round > 1)) || fact "$1" "$3" memory_mib "$(jq -n "($(own_kib "$2-1") - $before_own + $(kernel_kib) - $before_kernel) / 1024")"
  done
}

changes() { # DATAPATH NAME COUNT
  local round at began took=0
  for ((round = 1; round <= ROUNDS && took < LOAD_MAX * 1000000; round++)); do
    change "$1" "$2" $CLOSED
    while connects "$2-c" "$CHANGING"; do sleep 0.1; done
    effect "$2-c" >"$W/effect" &
    at=$!
    sleep 0.2
    change "$1" "$2" $OPEN
    wait $at || fail "$1: the changed endpoint never answered"
    took=$(($(<"$W/effect") - began))
    fact "$1" "$3" change_ms "$(jq -n "$took / 1e3")"
  done
}

for count in ${COUNTS:-10 1000 10000}; do
  for datapath in weft iptables nftables; do
    name=${datapath:0:1}$count
    start "$datapath" "$name"
    prepare "$datapath" "$name" "$count"
    if loads "$datapath" "$name" "$count"; then
      changes "$datapath" "$name" "$count"
      jq -nc --arg datapath "$datapath-$count" --arg name "$name" --arg address $MEASURED --argjson port $PORT \
        '{$datapath, placement: "same-node", wire_mtu: null, client: ($name + "-c"), server: ($name + "-s"),
          $address, $port, tests: ["crr"], processes: []}' >>"$LANES"
    fi
  done
done

jq -n --slurpfile lanes "$LANES" '{$lanes}' >"$W/lanes.json"
progress 'connections, in turns'
weft-bench matrix --lanes "$W/lanes.json" --out "$OUT" --rounds "$ROUNDS" "${PACE[@]}" >"$LOGS/matrix.md"
jq -s --slurpfile matrix "$OUT/matrix.json" --arg iptables "$($IPTABLES --version)" --argjson rounds "$ROUNDS" '
  def median: sort | if length % 2 == 1 then .[(length - 1) / 2] else (.[length / 2 - 1] + .[length / 2]) / 2 end;
  ($matrix[0].results | map({key: .datapath, value: {crr: .median, connect_us, failures}}) | from_entries) as $crr |
  {schema: 1, host: $matrix[0].host, $iptables, $rounds, results: (group_by([.services, .datapath]) | map(
    {datapath: .[0].datapath, services: .[0].services, loads: map(select(.what == "load_seconds")) | length} +
    (group_by(.what) | map({key: .[0].what, value: (map(.value) | median)}) | from_entries) +
    ($crr["\(.[0].datapath)-\(.[0].services)"] // {})))}' "$FACTS" >"$OUT/services.json"
jq -r '"| services | datapath | load s (runs) | change ms | memory MiB | crr/s | connect p50 (p99) us |\n|---|---|---|---|---|---|---|",
  (def digits($n): if . == null then "-" else . * pow(10; $n) | round / pow(10; $n) end;
  .results[] | "| \(.services) | \(.datapath) | \(if .given_up_seconds then "more than \(.given_up_seconds)"
    else "\(.load_seconds | digits(2)) (\(.loads))" end) | \(.change_ms | digits(1)) | \(
    .memory_mib | digits(1)) | \(.crr | digits(0)) | \(.connect_us.p50 | digits(0)) (\(.connect_us.p99 | digits(0))) |")' \
  "$OUT/services.json"
jq -r --argjson must $CHANGE_MUST_MS '"change in weft, at most \($must) ms: " + ([.results[] | select(.datapath == "weft" and .change_ms) |
  "\(.services) services \(if .change_ms <= $must then "yes" else "NO" end)"] | join(", "))' "$OUT/services.json"
