# Open vSwitch's userspace datapath (`datapath_type=netdev`), the other userspace switch that runs
# here. Source it after peers.sh. Ports are AF_XDP without a spinning thread of their own, so that an
# idle switch does not disturb its neighbours; where that does not start, plain packet sockets.
#
#   ovs_pods NAME              pods NAME-c and NAME-s on one switch; same addresses as bridge_pods
#   ovs_pids                   process ids of every switch started
# Each returns non-zero, with the reason in $OVS_WHY, if the switch does not come up.
# shellcheck shell=bash

OVS_WHY=
OVS_PIDS=()

ovs_pods() {
  command -v ovsdb-server >/dev/null && command -v ovs-vswitchd >/dev/null ||
    { OVS_WHY='openvswitch-switch is not installed'; return 1; }
  namespace "$1"
  _ovs_start "$1" || return 1
  _ovs_set "$1" add-br br0 -- set bridge br0 datapath_type=netdev || return 1
  _ovs_pod "$1" c 2 && _ovs_pod "$1" s 3 && _ovs_answers "$1"
}

_ovs_start() { # NODE
  local dir=$W/ovs-$1
  mkdir -p "$dir"
  export OVS_RUNDIR=$dir OVS_DBDIR=$dir OVS_LOGDIR=$dir OVS_SYSCONFDIR=$dir
  {
    ovsdb-tool create "$dir/conf.db" /usr/share/openvswitch/vswitch.ovsschema &&
      in_ns "$1" ovsdb-server "$dir/conf.db" "--remote=punix:$dir/db.sock" "--pidfile=$dir/ovsdb.pid" --detach &&
      _ovs_set "$1" --no-wait init &&
      in_ns "$1" ovs-vswitchd "unix:$dir/db.sock" "--pidfile=$dir/vswitchd.pid" --detach
  } >>"$LOGS/ovs.log" 2>&1 </dev/null || { OVS_WHY="ovs-vswitchd: $(tail -1 "$LOGS/ovs.log")"; return 1; }
  OVS_PIDS+=("$(<"$dir/ovsdb.pid")" "$(<"$dir/vswitchd.pid")")
}

_ovs_set() { # NODE ARGS...
  local node=$1
  shift
  in_ns "$node" ovs-vsctl "--db=unix:$W/ovs-$node/db.sock" --timeout=10 "$@" >>"$LOGS/ovs.log" 2>&1 ||
    { OVS_WHY="ovs-vsctl $*: $(tail -1 "$LOGS/ovs.log")"; return 1; }
}

_ovs_pod() { # NODE POD HOST
  namespace "$1-$2"
  wire "$1-$2" eth0 "$1" "p$2" 1500
  # A switch in user space would see partial checksums and segments it cannot take.
  offloads_off "$1-$2" eth0
  address "$1-$2" eth0 "$NET.1.$3/24"
  _ovs_set "$1" add-port br0 "p$2" -- set interface "p$2" type=afxdp-nonpmd || return 1
  [[ $(_ovs_error "$1" "p$2") == '[]' ]] && return
  _ovs_set "$1" del-port br0 "p$2" -- add-port br0 "p$2"
}

_ovs_error() { in_ns "$1" ovs-vsctl "--db=unix:$W/ovs-$1/db.sock" get interface "$2" error; }

_ovs_answers() {
  local try
  for try in 1 2 3 4 5; do
    in_ns "$1-c" ping -c 1 -W 1 "$NET.1.3" >/dev/null 2>&1 && return
  done
  OVS_WHY="no ping between its pods after $try s"
  return 1
}
