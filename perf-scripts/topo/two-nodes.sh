# Two nodes and the world outside. Source it after _lib.sh, then call `two_nodes`.
#
#   two_nodes           node1 u0 ---wire--- u0 node2; each also has x0 towards `outside`
#   two_nodes lan       one wire each, u0, into a switch: `outside` is the default gateway behind the
#                       same uplink, as on a machine with one NIC
#   two_nodes middle    like the first, but the wire runs through namespace `middle` (interfaces a
#                       and b): the script's function middle_is_wired has to connect them
#   two_nodes ipv6      like `middle`, with an IPv6-only underlay
# Environment: WIRE_MTU (1500), WIRE_QUEUES (1), WIRE_OFFLOADS (on; off: as a network card without help), EXAMPLE (the
# objects: deploy/examples/two-nodes).
#
# Pods: 10.244.N.0/24 and fd00:10:244:N::/64. Underlay: 192.0.2.N and 2001:db8::N.
# `outside` answers on 203.0.113.1 and 2001:db8:ffff::1 and knows no route to any pod.
# shellcheck shell=bash disable=SC2034

OUT4=203.0.113.1
OUT6=2001:db8:ffff::1

two_nodes() {
  local shape=${1:-direct} n
  node node1
  node node2
  namespace outside
  address outside lo "$OUT4/32" "$OUT6/128"
  in_ns outside sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
  case $shape in
    lan) _lan ;;
    middle | ipv6)
      namespace middle
      _wires middle a b
      # The tool in the middle sees frames as they are: let no kernel leave checksums to a NIC.
      WIRE_OFFLOADS=off
      middle_is_wired
      ;;
    *) wire node1 u0 node2 u0 "${WIRE_MTU:-1500}" "${WIRE_QUEUES:-1}" ;;
  esac
  for n in 1 2; do
    [[ ${WIRE_OFFLOADS:-on} == on ]] || in_ns "node$n" ethtool -K u0 tx off tso off gso off >/dev/null
    [[ $shape == ipv6 ]] || address "node$n" u0 "192.0.2.$n/24"
    address "node$n" u0 "2001:db8::$n/64"
    if [[ $shape == lan ]]; then _default_via_lan "$n"; else _outside_behind "$n"; fi
  done
  cp "${EXAMPLE:-$WEFT_ROOT/deploy/examples/two-nodes}"/*.yaml "$MANIFESTS/"
  if [[ $shape == ipv6 ]]; then
    sed -i '/InternalIP, address: 192/d' "$MANIFESTS/nodes.yaml"
  fi
  weft_start node1 u0
  weft_start node2 u0
  wait_ready node1 node2
}

_wires() { # MIDDLE IF IF
  wire node1 u0 "$1" "$2" "${WIRE_MTU:-1500}"
  wire node2 u0 "$1" "$3" "${WIRE_MTU:-1500}"
}

_lan() {
  local port
  namespace lan
  ip -n lan link add br0 mtu "${WIRE_MTU:-1500}" type bridge
  ip -n lan link set dev br0 up
  _wires lan p1 p2
  wire outside o0 lan p3 "${WIRE_MTU:-1500}"
  for port in p1 p2 p3; do ip -n lan link set dev "$port" master br0; done
  address outside o0 192.0.2.254/24 2001:db8::fe/64
}

_default_via_lan() { # N
  ip -n "node$1" route add default via 192.0.2.254
  ip -n "node$1" -6 route add default via 2001:db8::fe
}

_outside_behind() { # N: a second link of node N
  wire "node$1" x0 outside "n$1" 1500
  address "node$1" x0 "198.51.100.$(($1 * 4 + 1))/30" "2001:db8:$1::1/64"
  address outside "n$1" "198.51.100.$(($1 * 4 + 2))/30" "2001:db8:$1::2/64"
  ip -n "node$1" route add default via "198.51.100.$(($1 * 4 + 2))"
  ip -n "node$1" -6 route add default via "2001:db8:$1::2"
}
