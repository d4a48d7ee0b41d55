# Services and who asks them. Source it after _lib.sh.
#
#   web_server NS                     serves its own name, and 20 MB at /large, on port 8080
#   service NAME ADDRESS4 ADDRESS6    prints the manifest: port 80 to the pods' 8080
#   slices NAME POD-OR-NODE...        the service's endpoints from now on
#   get NS ADDRESS PATH               what a web server on port 80 has there
#   asks NS ADDRESS TIMES             who answered, a line each
# shellcheck shell=bash

web_server() {
  mkdir -p "$W/www/$1"
  echo "$1" >"$W/www/$1/index.html"
  head -c 20000000 /dev/zero >"$W/www/$1/large"
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
    printf 'ports: [{ name: http, protocol: TCP, port: 8080 }]\nendpoints:\n'
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
  in_ns "$1" timeout 20 bash -c 'exec 3<>"/dev/tcp/$1/80" || exit; printf "GET $2 HTTP/1.0\r\n\r\n" >&3
    sed "1,/^\r$/d" <&3' get "$2" "$3"
}

asks() {
  local i
  for ((i = 0; i < $3; i++)); do get "$1" "$2" / || echo nobody; done
}
