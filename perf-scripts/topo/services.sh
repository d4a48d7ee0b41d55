# One list of services for every datapath. Source it after peers.sh.
#
#   weft_services < SERVICES          prints the manifests of weft: a Service and its EndpointSlice each
#   kube_proxy_on NODE MODE < SERVICES  iptables or nftables rules as a kube-proxy in that mode writes them
#   routed_node NAME MTU              node NAME-1 alone, with pods NAME-c and NAME-s as routed_pods has them
# SERVICES is what _kube_proxy.sh reads; lines with the same address are the ports of one service.
# shellcheck shell=bash

. "$WEFT_ROOT/perf-scripts/_kube_proxy.sh"

weft_services() {
  awk '
    function finish() {
      if (address == "") return
      name = address
      gsub(/[.:]/, "-", name)
      meta = "metadata: {namespace: bench, name: s-" name
      print "{apiVersion: v1, kind: Service, " meta "}, spec: {clusterIP: \"" address "\", clusterIPs: [\"" address "\"], ports: [" ports "]}}\n---"
      print "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, " meta \
        ", labels: {kubernetes.io/service-name: s-" name "}}, ports: [" targets "], endpoints: [" endpoints "]}\n---"
    }
    {
      if ($2 != address) {
        finish()
        address = $2
        ports = targets = ""
      }
      comma = ports == "" ? "" : ", "
      endpoints = ""
      for (i = 4; i <= NF; i++) {
        split($i, at, ":")
        endpoints = endpoints (i > 4 ? ", " : "") "{addresses: [\"" at[1] "\"]}"
      }
      protocol = toupper($1)
      ports = ports comma "{name: " $1 ", protocol: " protocol ", port: " $3 ", targetPort: " at[2] "}"
      targets = targets comma "{name: " $1 ", protocol: " protocol ", port: " at[2] "}"
    }
    END { finish() }'
}

kube_proxy_on() {
  case $2 in
    iptables) kube_proxy_iptables 4 "$NET.0.0/16" | in_ns "$1" iptables-restore ;;
    nftables) kube_proxy_nftables "$NET.0.0/16" | in_ns "$1" nft -f - ;;
  esac
}

routed_node() {
  namespace "$1-1"
  forwarding "$1-1"
  _routed_pod "$1-1" "$1-c" 1 2 "$2"
  _routed_pod "$1-1" "$1-s" 1 3 "$2"
}
