# Services and who asks them. Source it after _lib.sh.
#
#   web_server POD                    serves its own name, and 20 MB at /large, on port 8080
#   service NAME ADDRESS4 ADDRESS6    prints the manifest: port 80 to the pods' 8080
#   slices POD...                     the endpoints of shop/web from now on
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

node_of() { # POD
  awk '/nodeName:/ { print $2 }' "$MANIFESTS/pod-$1.yaml"
}

slices() {
  local family pod
  for family in 4 6; do
    printf 'apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv%s\n' "$family"
    printf 'metadata: { namespace: shop, name: web-%s, labels: { kubernetes.io/service-name: web } }\n' "$family"
    printf 'ports: [{ name: http, protocol: TCP, port: 8080 }]\nendpoints:\n'
    (($#)) || echo '  []'
    for pod in "$@"; do
      printf '  - { addresses: ["%s"], nodeName: %s }\n' "$("ip$family" "$pod")" "$(node_of "$pod")"
    done
    echo ---
  done | manifest slices.yaml
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
  in_ns "$1" timeout 20 bash -c 'exec 3<>"/dev/tcp/$1/80"; printf "GET $2 HTTP/1.0\r\n\r\n" >&3
    sed "1,/^\r$/d" <&3' get "$2" "$3"
}

asks() {
  local i
  for ((i = 0; i < $3; i++)); do get "$1" "$2" / || echo nobody; done
}
