# The rules a kube-proxy writes for cluster IPs, without a kube-proxy. Source it after _lib.sh.
#
#   kube_proxy_iptables FAMILY CIDR < SERVICES   for iptables-restore or ip6tables-restore (mode iptables)
#   kube_proxy_nftables CIDR < SERVICES          for nft -f (mode nftables), IPv4
# SERVICES has a line for each port of a service: PROTOCOL ADDRESS PORT ENDPOINT:PORT..., an IPv6
# endpoint in brackets. CIDR is the cluster's (--cluster-cidr): who is not in it is masqueraded;
# the word `all` masquerades everybody (--masquerade-all).
#
# As pkg/proxy/iptables/proxier.go and pkg/proxy/nftables/proxier.go of Kubernetes 1.33 write them: the same tables,
# hooks, chains, marks and order. Chains have numbers where those have hashes, and rules no comments (kube-proxy
# leaves them out beyond 1,000 endpoints).
# shellcheck shell=bash

kube_proxy_iptables() {
  awk -v family="$1" -v cidr="$2" '
    BEGIN { others = cidr == "all" ? "" : " ! -s " cidr; bits = family == 6 ? 128 : 32 }
    {
      service = sprintf("KUBE-SVC-%016d", NR)
      chains[++c] = ":" service " - [0:0]"
      to = "-m tcp -p tcp -d "
      if ($1 == "udp") to = "-m udp -p udp -d "
      if ($1 == "sctp") to = "-m sctp -p sctp -d "
      to = to $2 "/" bits " --dport " $3
      rules[++r] = "-A KUBE-SERVICES " to " -j " service
      rules[++r] = "-A " service " " to others " -j KUBE-MARK-MASQ"
      for (i = 4; i <= NF; i++) {
        endpoint = sprintf("KUBE-SEP-%016d", ++e)
        chains[++c] = ":" endpoint " - [0:0]"
        chance = i < NF ? sprintf(" -m statistic --mode random --probability %.10f", 1 / (NF - i + 1)) : ""
        rules[++r] = "-A " service chance " -j " endpoint
        address = $i
        sub(/:[0-9]+$/, "", address)
        gsub(/[][]/, "", address)
        rules[++r] = "-A " endpoint " -s " address "/" bits " -j KUBE-MARK-MASQ"
        rules[++r] = "-A " endpoint " -m " $1 " -p " $1 " -j DNAT --to-destination " $i
      }
    }
    END {
      print "*filter\n:KUBE-SERVICES - [0:0]\n:KUBE-EXTERNAL-SERVICES - [0:0]\n:KUBE-FORWARD - [0:0]"
      print ":KUBE-NODEPORTS - [0:0]\n:KUBE-PROXY-FIREWALL - [0:0]"
      print "-A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL\n-A INPUT -j KUBE-NODEPORTS"
      print "-A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES"
      print "-A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL\n-A FORWARD -j KUBE-FORWARD"
      print "-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES"
      print "-A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES"
      print "-A OUTPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL"
      print "-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES"
      print "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"
      print "-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT"
      print "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT"
      print "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]"
      for (i = 1; i <= c; i++) print chains[i]
      print "-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n-A POSTROUTING -j KUBE-POSTROUTING"
      print "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN"
      print "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n-A KUBE-POSTROUTING -j MASQUERADE --random-fully"
      print "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000"
      for (i = 1; i <= r; i++) print rules[i]
      print "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\nCOMMIT"
    }'
}

kube_proxy_nftables() {
  awk -v cidr="$1" '
    BEGIN { others = cidr == "all" ? "" : " ip saddr != " cidr }
    {
      service = sprintf("service-%08d", NR)
      elements = elements (NR > 1 ? ",\n" : "") $2 " . " $1 " . " $3 " : goto " service
      addresses = addresses (NR > 1 ? ",\n" : "") $2
      map = ""
      for (i = 4; i <= NF; i++) {
        endpoint = sprintf("endpoint-%08d", ++e)
        address = $i
        sub(/:[0-9]+$/, "", address)
        body[++b] = "chain " endpoint " {\nip saddr " address " jump mark-for-masquerade\nmeta l4proto " $1 " dnat to " $i "\n}"
        map = map (i > 4 ? ", " : "") (i - 4) " : goto " endpoint
      }
      body[++b] = "chain " service " {\nip daddr " $2 " " $1 " dport " $3 others " jump mark-for-masquerade\n" \
        "numgen random mod " (NF - 3) " vmap { " map " }\n}"
    }
    END {
      print "table ip kube-proxy {"
      print "chain mark-for-masquerade {\nmeta mark set meta mark or 0x4000\n}"
      print "chain masquerading {\nmeta mark & 0x4000 == 0 return\nmeta mark set meta mark ^ 0x4000\nmasquerade fully-random\n}"
      for (i = 1; i <= b; i++) print body[i]
      print "set cluster-ips {\ntype ipv4_addr\nelements = { " addresses " }\n}"
      print "set nodeport-ips {\ntype ipv4_addr\n}"
      print "map no-endpoint-services {\ntype ipv4_addr . inet_proto . inet_service : verdict\n}"
      print "map service-nodeports {\ntype inet_proto . inet_service : verdict\n}"
      print "map service-ips {\ntype ipv4_addr . inet_proto . inet_service : verdict\nelements = { " elements " }\n}"
      print "chain cluster-ips-check {\nip daddr @cluster-ips reject\n}"
      print "chain service-endpoints-check {\nip daddr . meta l4proto . th dport vmap @no-endpoint-services\n}"
      print "chain services {\nip daddr . meta l4proto . th dport vmap @service-ips"
      print "ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports\n}"
      print "chain filter-forward {\ntype filter hook forward priority -110\nct state new jump service-endpoints-check"
      print "ct state new jump cluster-ips-check\n}"
      print "chain filter-output {\ntype filter hook output priority -90\nct state new jump service-endpoints-check"
      print "ct state new jump cluster-ips-check\n}"
      print "chain nat-prerouting {\ntype nat hook prerouting priority dstnat\njump services\n}"
      print "chain nat-output {\ntype nat hook output priority -100\njump services\n}"
      print "chain nat-postrouting {\ntype nat hook postrouting priority srcnat\njump masquerading\n}\n}"
    }'
}
