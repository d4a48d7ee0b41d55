#!/usr/bin/env bash
# A full table of connections: those nobody answered give way to new ones, and when all are established a
# new one is dropped and counted, until there is room again. A running connection notices nothing of it.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

FLOWS=1024
echo "{\"flows\": $FLOWS}" >"$W/tuning.json"
DATAPLANE_ARGS=(--config "$W/tuning.json")

two_nodes
for name in web client attacker sink; do pod node1 "shop/$name"; done
# A sink that answers nothing: its connections stay embryonic.
ip -n sink route add blackhole "$(ip4 attacker)"
web=$(ip4 web)
flows() { value node1 ".flows[] | select(.name == \"$1\") | .count"; }
received() { in_ns web ss -tinH 'sport = :5201' | grep -o 'bytes_received:[0-9]*' | cut -d : -f 2 | sort -n | tail -1; }

iperf_server web
bg client long iperf3 -J -i 1 -c "$web" -t 600 -b 200M
long=$!
within 5 'the running connection' eval 'in_ns web ss -tnH "sport = :5201" | grep -q ESTAB'

# Unanswered connections fill the table, and each new one takes the place of another.
in_ns attacker weft-bench flood syn --to "$(ip4 sink)" --count 20000 --rate 20000 >"$LOGS/flood.json"
expect 'connections that gave way' "$(flows evicted)" -gt 10000
expect 'dropped though others could give way' "$(drops node1 flow-table-full)" -eq 0

# Established ones take the place of all those, and of nobody else: a server that never accepts.
bg web crowd-server iperf3 -s -p 5202
within 5 'the server of the crowd' _listens web t 5202
# shellcheck disable=SC2016
bg client crowd bash -c 'ulimit -n 4096
  for ((i = 0; i < $2; i++)); do exec {fd}<>"/dev/tcp/$1/5202"; done' - "$web" $FLOWS
crowd=$!
_dropped() { (($(drops node1 flow-table-full) > 0)); }
within 30 'a new connection is dropped' _dropped
expect 'connections in the table' "$(flows current)" -eq $FLOWS
established=$(in_ns client ss -tnH state established dport = :5202 | wc -l)
expect 'established in the crowd' "$established" -gt $((FLOWS - 20))
ping_fails attacker "$web" || fail 'a ping began a connection in a full table'
before=$(received)
within 5 'the running connection goes on' eval '(($(received) > before + 1000000))'

say "$established established, $(flows evicted) gave way, $(drops node1 flow-table-full) dropped"

# With the crowd gone there is room for others.
kill $crowd && wait $crowd || true
within 15 'a new connection' in_ns attacker ping -c 1 -W 1 "$web"
kill -0 $long || fail "the running connection ended: $(tail -3 "$LOGS/long.out")"
