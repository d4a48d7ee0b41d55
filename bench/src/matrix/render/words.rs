//! What the numbers mean and what they cannot.

/// What a virtual wire is good for as a stand-in, and what it is not.
pub const WIRE: &str = "<h2>What a virtual wire can and cannot stand for</h2>
<p>Nodes, pods and the outside are network namespaces of one machine; the wire between two nodes is a
pair of virtual Ethernet interfaces (veth). That stands well for what a datapath costs in processor time:
every copy, every lookup, every system call is the real one. It does not stand for a network card:</p>
<ul>
<li><b>No zero copy.</b> AF_XDP on veth copies every frame, both ways. A card whose driver has zero copy
hands frames to user space where they lie; weft on such a card does less work than here, a kernel path
does not.</li>
<li><b>No hardware segmentation and checksums.</b> Left alone, a veth passes 64 KiB segments whole and
unsummed, faster than any card. So the wire's offloads are off for every datapath, and the kernel cuts and
sums in software. A kernel path with a card that helps does better than here: the row
<code>kernel-vxlan+offloads</code> shows the upper end, a wire that costs nothing at all. What weft
would gain from the same card is not measured either.</li>
<li><b>No interrupts, no queues of hardware, no latency of a cable.</b> A packet reaches the other node in
the sender's own context, unless its end of the wire has a thread that receives: weft gives it one, and a queue;
<code>kernel-vxlan+thread</code> has the same. Both nodes share the same cores, so that a datapath that costs twice as
much has half the throughput, where on two machines it may only be busier.</li>
<li><b>No line rate.</b> Nothing here ends at 10 or 25 Gbit/s; where everybody would fill a real link, only
cores per Gbit/s tell datapaths apart.</li>
<li><b>An empty kernel.</b> Its paths run here without the iptables rules, conntrack entries and policies
of a real cluster, which weft's pipeline does carry. That flatters the kernel. Tests through a service
alone meet a kube-proxy's rules and conntrack.</li>
</ul>
";

/// Who the peers are.
pub const PEERS: &str = "<h2>Who is who</h2>
<dl>
<dt>weft</dt><dd>the shipped defaults: one worker, 64 KiB segments between local pods, VXLAN between nodes</dd>
<dt>kernel-bridge</dt><dd>veths in a Linux bridge, MTU 1500; towards outside with masquerade</dd>
<dt>kernel-bridge-64k</dt><dd>the same with the large MTUs weft gives its pods: veth 65535, route 65000</dd>
<dt>kernel-routed</dt><dd>a route per pod; between nodes by the other node's address (host-gw)</dd>
<dt>kernel-ebpf</dt><dd>tc programs with bpf_redirect_peer into the pod and bpf_redirect_neigh to the wire</dd>
<dt>kernel-vxlan</dt><dd>routed to a VXLAN device, as flannel does it, wire without offloads</dd>
<dt>kernel-vxlan+offloads</dt><dd>the same on a wire that takes 64 KiB segments whole</dd>
<dt>kernel-vxlan+thread</dt><dd>the same with what weft gives its end of a virtual wire: a thread that
receives, and a queue</dd>
<dt>kernel-iptables</dt><dd>services alone: the rules kube-proxy writes for iptables, over kernel-routed
on a node and kernel-vxlan across; conntrack translates. As in weft, one of ten services is measured</dd>
<dt>kernel-nftables</dt><dd>the same with the verdict maps of kube-proxy's nftables mode</dd>
<dt>ovs-netdev</dt><dd>Open vSwitch's userspace datapath on AF_XDP ports without polling threads; pods without offloads</dd>
<dt>direct</dt><dd>nothing in between: one veth from end to end, the most any datapath can hope for</dd>
</dl>
";

/// How it was done.
pub const METHOD: &str = "<h2>How it was measured</h2>
<p>All datapaths are set up side by side; runs take turns, one datapath after the other, round by round,
so that whatever else the machine does hits all of them. Shown are medians, the whiskers reach from the
least to the greatest run. Throughput is iperf3 as in the published 40 Gbit/s benchmark of Kubernetes
networks (<code>-O 1 -Z --dont-fragment</code>, <code>-P 8</code>, UDP <code>-u -b 0</code> with datagrams
of the path's MTU), counted at the receiver. Its TCP has cubic, as there, whatever the machine is set
to (<code>-C cubic</code>). Request and response, connections and 64-byte frames are weft-bench's own
generators, the same for every datapath. A rate of frames counts if less than 0.1 % are lost; the sender
does not wait for anybody.</p>
<p>Cores are everything the whole machine did during a run but idle time, softirq included: a datapath in
the kernel works there, where no process is charged. iperf3's own work is in it, alike for all.
Memory is the proportional set size of the datapath's processes on its nodes; the kernel's own memory is
counted for nobody.</p>
";
