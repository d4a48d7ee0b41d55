#!/usr/bin/env bash
# A real runtime: containerd starts a container, has weft's plugin attach it as the configuration in
# /etc/cni/net.d says, and takes everything away again.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

# containerd's own places, private to this test.
mkdir -p "$W/etc" "$W/work" "$W/ctd/rootfs/bin"
mount -t overlay -o "lowerdir=/etc,upperdir=$W/etc,workdir=$W/work" overlay /etc
mount -t tmpfs tmpfs /opt
mkdir -p /etc/cni/net.d /opt/cni/bin
cp "$WEFT_BIN_DIR/weft-cni" /opt/cni/bin/
cp "$(command -v busybox)" "$W/ctd/rootfs/bin/"
jq -n --arg run "$W/node1/run" '{cniVersion: "1.0.0", name: "weft",
  plugins: [{type: "weft-cni", runDir: $run}]}' >/etc/cni/net.d/10-weft.conflist
two_nodes
pod node2 shop/db
bg node1 containerd containerd --config /dev/null --root "$W/ctd/root" --state "$W/ctd/state" \
  --address "$W/ctd/sock"
ctr() { in_ns node1 ctr --address "$W/ctd/sock" "$@"; }
within 10 'containerd serves' ctr version
ports() { value node1 '.ports | length'; }
links() { ip -n node1 -o link | wc -l; }
before="$(ports) ports, $(links) links"

box=(--cni --cgroup '' --rootfs "$W/ctd/rootfs" box /bin/busybox sleep 600)
inside() { ctr task exec --exec-id "x$RANDOM" box /bin/busybox "$@"; }
task_is() { [[ $(ctr task ls | awk '$1 == "box" { print $3 }') == "$1" ]]; }
reachable() { # both ways
  local to own
  expect 'ports' "$(ports)" = $((${before%% *} + 1))
  for to in "$(ip4 db)" "$(ip6 db)" "$OUT4"; do
    inside ping -c 2 -W 2 "$to" >"$LOGS/ping.out" 2>&1 || fail "no ping to $to: $(cat "$LOGS/ping.out")"
  done
  mapfile -t own < <(inside ip -o addr show dev eth0 scope global | sed -nE 's,.*inet6? ([^ /]+).*,\1,p')
  expect 'addresses' ${#own[@]} = 2
  for to in "${own[@]}"; do ping_ok db "$to"; done
}

# Detached, ctr never says DEL: the interface goes with the container, the address stays the
# container's, and the next one of that name gets it.
ctr run --detach "${box[@]}" 2>"$LOGS/run.log" || fail "ctr run: $(cat "$LOGS/run.log")"
reachable
ctr task kill --signal SIGKILL box
within 5 'the task ends' task_is STOPPED
ctr task delete box 2>"$LOGS/delete.log" || true # says how the task ended
ctr container delete box

# In the foreground it does.
bg node1 ctr ctr --address "$W/ctd/sock" run --rm --null-io "${box[@]}"
foreground=$!
within 10 'the task runs' task_is RUNNING
reachable
ctr task kill --signal SIGKILL box
wait $foreground || true
expect 'attachments left' "$(jq '.records | length' "$W/node1/state/attachments.json")" = 0
expect 'what is left' "$(ports) ports, $(links) links" = "$before"
