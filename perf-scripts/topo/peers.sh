# The kernel's own datapaths, each in namespaces of its own. Source it after _lib.sh.
#
#   bridge_pods NAME MTU ROUTE_MTU     pods NAME-c and NAME-s on a bridge; addresses NET.1.2, NET.1.3
#   direct_pods NAME                   the same two pods on one veth, nothing between them
#   peer_nodes NAME WIRE_MTU           nodes NAME-1 and NAME-2 on a wire without offloads
#   routed_pods NAME MTU               pods NAME-c, NAME-s on node 1 and NAME-r on node 2, routed
#   host_gateway NAME                  each node's pods by way of the other node's address
#   vxlan_between NAME                 each node's pods through a VXLAN device, as flannel does it
#   thread_and_queue NODE IF           a thread receives at the node's end of the wire, a queue sends
#   ebpf_on NAME                       pod_redirect.bpf.c on every pod and on the wire
#   outside_of NODE                    namespace NODE-out behind NODE's x0, address $OUT4
#
# NET of every peer is 10.97: they share no namespace, so they share addresses. On nodes 1 and 2 the
# pods are 10.97.1.2 (NAME-c), 10.97.1.3 (NAME-s) and 10.97.2.2 (NAME-r).
# shellcheck shell=bash

NET=10.97
OUT4=203.0.113.1

# A virtual wire takes 64 KiB segments whole and leaves checksums undone, which no real wire does.
# Without these offloads the kernel cuts and sums in software, as with a NIC that does not help.
offloads_off() { # NS IF
  in_ns "$1" ethtool -K "$2" tx off tso off gso off gro off >/dev/null
}

offloads_on() { in_ns "$1" ethtool -K "$2" tx on tso on gso on gro on >/dev/null; }

# What weft gives a virtual uplink: a thread that receives (NAPI needs GRO or XDP for that), and a queue that waits.
thread_and_queue() { # NS IF
  in_ns "$1" ethtool -K "$2" gro on
  in_ns "$1" tc qdisc add dev "$2" root pfifo_fast
  # For once: /sys has to show the namespace.
  ip netns exec "$1" sh -c "echo 1 >/sys/class/net/$2/threaded"
}

forwarding() { in_ns "$1" sysctl -qw net.ipv4.ip_forward=1; }

bridge_pods() {
  local name=$1 mtu=$2 route=$3 pod n=1
  namespace "$name"
  ip -n "$name" link add name br0 mtu "$mtu" type bridge
  ip -n "$name" link set dev br0 up
  address "$name" br0 "$NET.1.1/24"
  for pod in c s; do
    n=$((n + 1))
    namespace "$name-$pod"
    wire "$name-$pod" eth0 "$name" "p$pod" "$mtu"
    ip -n "$name" link set dev "p$pod" master br0
    address "$name-$pod" eth0 "$NET.1.$n/24"
    ip -n "$name-$pod" route replace "$NET.1.0/24" dev eth0 src "$NET.1.$n" mtu "$route"
    ip -n "$name-$pod" route add default via "$NET.1.1"
  done
}

direct_pods() {
  namespace "$1-c"
  namespace "$1-s"
  wire "$1-c" eth0 "$1-s" eth0 1500
  address "$1-c" eth0 "$NET.1.2/24"
  address "$1-s" eth0 "$NET.1.3/24"
}

peer_nodes() {
  local n
  for n in 1 2; do
    namespace "$1-$n"
    forwarding "$1-$n"
  done
  wire "$1-1" u0 "$1-2" u0 "$2"
  for n in 1 2; do
    address "$1-$n" u0 "192.0.2.$n/24"
    offloads_off "$1-$n" u0
  done
}

routed_pods() {
  _routed_pod "$1-1" "$1-c" 1 2 "$2"
  _routed_pod "$1-1" "$1-s" 1 3 "$2"
  _routed_pod "$1-2" "$1-r" 2 2 "$2"
}

_routed_pod() { # NODE POD SUBNET HOST MTU
  local dev="p${2##*-}"
  namespace "$2"
  wire "$2" eth0 "$1" "$dev" "$5"
  address "$2" eth0 "$NET.$3.$4/32"
  ip -n "$1" addr add 169.254.1.1/32 dev "$dev"
  ip -n "$2" route add 169.254.1.1 dev eth0
  ip -n "$2" route add default via 169.254.1.1
  ip -n "$1" route add "$NET.$3.$4/32" dev "$dev"
}

host_gateway() {
  ip -n "$1-1" route add "$NET.2.0/24" via 192.0.2.2
  ip -n "$1-2" route add "$NET.1.0/24" via 192.0.2.1
}

vxlan_between() {
  local n other
  for n in 1 2; do
    other=$((3 - n))
    ip -n "$1-$n" link add name vx0 address "02:00:00:00:ff:0$n" type vxlan id 1 local "192.0.2.$n" \
      dev u0 dstport 4789 nolearning
    ip -n "$1-$n" link set dev vx0 up
    address "$1-$n" vx0 "$NET.$n.0/32"
    ip -n "$1-$n" neigh add "$NET.$other.0" lladdr "02:00:00:00:ff:0$other" dev vx0
    in_ns "$1-$n" bridge fdb add "02:00:00:00:ff:0$other" dev vx0 dst "192.0.2.$other"
    ip -n "$1-$n" route add "$NET.$other.0/24" via "$NET.$other.0" dev vx0 onlink
  done
}

outside_of() {
  namespace "$1-out"
  address "$1-out" lo "$OUT4/32"
  wire "$1" x0 "$1-out" n0 1500
  address "$1" x0 198.51.100.1/30
  address "$1-out" n0 198.51.100.2/30
  ip -n "$1" route add default via 198.51.100.2
  offloads_off "$1" x0
  offloads_off "$1-out" n0
}

masquerade() { # NODE
  in_ns "$1" nft -f - <<NFT
table ip masq {
  chain post {
    type nat hook postrouting priority srcnat
    ip saddr $NET.0.0/16 oifname x0 masquerade
  }
}
NFT
}

# ---- eBPF -------------------------------------------------------------------------------------

BPF_PINS=$W/bpf

# Compiles the program once; fails, with the reason on stderr, if it cannot.
ebpf_build() {
  local include
  [[ -e $W/pod_redirect.o ]] && return
  command -v bpftool >/dev/null || { echo 'bpftool is not installed' >&2; return 1; }
  include=/usr/include/$(gcc -print-multiarch)
  clang -O2 -g -target bpf -mcpu=v3 -idirafter "$include" -c "$WEFT_ROOT/bench/bpf/pod_redirect.bpf.c" \
    -o "$W/pod_redirect.o" && mkdir -p "$BPF_PINS" && mount -t bpf bpf "$BPF_PINS"
}

ebpf_on() {
  ebpf_build
  _ebpf_node "$1-1" "c 1.2" "s 1.3"
  _ebpf_node "$1-2" "r 2.2"
}

_ebpf_node() { # NODE "POD SUBNET.HOST"...
  local node=$1 pins=$BPF_PINS/$1 pod
  shift
  mkdir -p "$pins"
  bpftool prog loadall "$W/pod_redirect.o" "$pins/prog" type classifier pinmaps "$pins"
  bpftool map update pinned "$pins/uplink" key 0 0 0 0 value $(_le32 "$(_ifindex "$node" u0)")
  _ebpf_attach "$node" u0 "$pins/prog/from_wire"
  for pod in "$@"; do
    # shellcheck disable=SC2086
    _ebpf_pod "$node" $pod
  done
}

_ebpf_pod() { # NODE POD SUBNET.HOST
  local dev="p$2" pins=$BPF_PINS/$1 key
  read -ra key <<<"${NET//./ } ${3//./ }"
  bpftool map update pinned "$pins/endpoints" key "${key[@]}" \
    value $(_le32 "$(_ifindex "$1" "$dev")") $(_mac "${1%-?}-$2" eth0) $(_mac "$1" "$dev")
  _ebpf_attach "$1" "$dev" "$pins/prog/from_pod"
}

_ebpf_attach() { # NODE IF PROGRAM
  in_ns "$1" tc qdisc add dev "$2" clsact
  in_ns "$1" tc filter add dev "$2" ingress bpf direct-action object-pinned "$3"
}

_ifindex() { ip -n "$1" -j link show dev "$2" | jq '.[0].ifindex'; }
_mac() { ip -n "$1" -j link show dev "$2" | jq -r '.[0].address | split(":") | map("0x" + .) | join(" ")'; }
_le32() { printf '%d %d %d %d' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24)); }
