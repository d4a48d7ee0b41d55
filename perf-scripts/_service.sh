# Services and who asks them. Source it after _lib.sh.
#
#   web_server NS                     serves its own name, and 20 MB at /large, on port 8080
#   service NAME ADDRESS4 ADDRESS6    prints the manifest: port 80 to the pods' 8080
#   slices NAME POD-OR-NODE...        the service's endpoints from now on
#   get NS ADDRESS PATH [PORT]        what a web server on port 80 has there
#   asks NS ADDRESS TIMES             who answered, a line each
# For clients outside the cluster, by node ports and load balancers:
#   who_server NS                     says its own name and the client's address on port 9090, TCP and UDP
#   outside_service NAME NUMBER SPEC  as service, but with node ports 3NUMBER80 (web) and 3NUMBER90 (who), and SPEC
#   who NS PROTOCOL ADDRESS PORT [SOURCE]   what a who server answers there, or why nobody does; PROTOCOL `fragments`
#                                     is a datagram of UDP in three
# shellcheck shell=bash

web_server() {
  mkdir -p "$W/www/$1"
  echo "$1" >"$W/www/$1/index.html"
  head -c 20000000 /dev/urandom >"$W/www/$1/large"
  bg "$1" "httpd-$1" busybox httpd -f -p 8080 -h "$W/www/$1"
  within 5 "a web server in $1" _listens "$1" t 8080
}

_address() { # FAMILY POD-OR-NODE
  case $1,$2 in
    4,node*) echo "192.0.2.${2#node}" ;;
    6,node*) echo "2001:db8::${2#node}" ;;
    *) "ip$1" "$2" ;;
  esac
}

_node_of() { # POD-OR-NODE
  [[ $1 == node* ]] && echo "$1" || awk '/nodeName:/ { print $2 }' "$MANIFESTS/pod-$1.yaml"
}

slices() {
  local service=$1 family one
  shift
  for family in 4 6; do
    printf 'apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv%s\nmetadata:\n' "$family"
    printf '  namespace: shop\n  name: %s-%s\n  labels: { kubernetes.io/service-name: %s }\n' "$service" "$family" "$service"
    printf 'ports:\n  - { name: http, protocol: TCP, port: 8080 }\n'
    printf '  - { name: who, protocol: TCP, port: 9090 }\n  - { name: who-udp, protocol: UDP, port: 9090 }\n'
    echo endpoints:
    for one in "$@"; do
      printf '  - { addresses: ["%s"], nodeName: %s }\n' "$(_address "$family" "$one")" "$(_node_of "$one")"
    done
    echo ---
  done | manifest "slices-$service.yaml"
}

service() {
  cat <<YAML
apiVersion: v1
kind: Service
metadata: { namespace: shop, name: $1 }
spec:
  clusterIP: $2
  clusterIPs: [$2, "$3"]
  ports: [{ name: http, port: 80, targetPort: 8080 }]
YAML
}

get() {
  in_ns "$1" timeout 20 bash -c 'exec 3<>"/dev/tcp/$1/$3" || exit; printf "GET $2 HTTP/1.0\r\n\r\n" >&3
    sed "1,/^\r$/d" <&3' get "$2" "$3" "${4:-80}"
}

asks() {
  local i
  for ((i = 0; i < $3; i++)); do get "$1" "$2" / || echo nobody; done
}

who_server() {
  local say="SYSTEM:read -r _; echo $1 \$SOCAT_PEERADDR"
  bg "$1" "who-$1-tcp4" socat TCP4-LISTEN:9090,fork,reuseaddr "$say"
  bg "$1" "who-$1-tcp6" socat TCP6-LISTEN:9090,fork,reuseaddr,ipv6only=1 "$say"
  bg "$1" "who-$1-udp4" socat UDP4-RECVFROM:9090,fork "$say"
  bg "$1" "who-$1-udp6" socat UDP6-RECVFROM:9090,fork,ipv6only=1 "$say"
  within 5 "TCP who server in $1" _listens "$1" t 9090
  within 5 "UDP who server in $1" _listens "$1" u 9090
}

outside_service() {
  service "$1" "10.96.1.$((10#$2))" "fd00:10:96::1:$2" | sed /ports:/d
  cat <<YAML
  type: LoadBalancer
$3
  ports:
    - { name: http, port: 80, targetPort: 8080, nodePort: 3${2}80 }
    - { name: who, port: 90, targetPort: 9090, nodePort: 3${2}90 }
    - { name: who-udp, protocol: UDP, port: 90, targetPort: 9090, nodePort: 3${2}90 }
YAML
}

who() {
  local to say=hello said protocol=$2
  [[ $protocol != fragments ]] || protocol=udp say=$(printf '%3000s' hello)
  to=${protocol^^}:$(at "$3" "$4"),${5:+bind=$5}
  for _ in first again; do
    said=$(in_ns "$1" timeout 4 socat -t1 -T2 - "${to%,}" <<<"$say" 2>&1) || true
    # The first large datagram over IPv6 hears that the tunnel takes less.
    [[ $said == *'Message too long'* ]] || break
  done
  sed 's/.*\(Connection refused\).*/\1/; s/[][]//g; s/:0*/:/g; s/::*:/::/' <<<"$said"
}
