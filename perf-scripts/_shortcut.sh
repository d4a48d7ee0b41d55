# What went by shortcuts past the dataplane, and what by it. Source it after two-nodes.sh.
#
#   on_shortcut NODE, no_shortcut NODE   some connection has one now, none has
#   by_shortcut NODE, seen NODE      packets that took one, and that the pipeline saw
#   committed NODE RESTARTS          the dataplane that was started this often knows its tables
#   mostly NODES WHAT COMMAND...     runs it; on each of the nodes its packets go by shortcuts
# shellcheck shell=bash

_shortcuts() { value "$1" ".shortcuts[] | select(.name == \"$2\") | .count"; }
on_shortcut() { (($(_shortcuts "$1" connections) > 0)); }
no_shortcut() { ! on_shortcut "$1"; }
by_shortcut() { _shortcuts "$1" packets; }
seen() { value "$1" '.stages[] | select(.name == "parse") | .count'; }
committed() { [[ $(value "$1" .restarts) == "$2" && $(value "$1" .committed) == true ]]; }

mostly() {
  local nodes=$1 what=$2 before=() shortcut pipeline node
  shift 2
  for node in $nodes; do before+=("$(by_shortcut "$node")" "$(seen "$node")"); done
  "$@" >/dev/null || fail "$what"
  for node in $nodes; do
    shortcut=$(($(by_shortcut "$node") - before[0]))
    pipeline=$(($(seen "$node") - before[1]))
    before=("${before[@]:2}")
    say "$what, $node: $shortcut packets by the shortcut, $pipeline by the pipeline"
    expect "packets by the shortcut, $what, $node" "$shortcut" -gt "$pipeline"
  done
}
