"""Things that go wrong on a node, one at a time: how they are done, what `aws-ovs check` says of them, what repairs them."""

from __future__ import annotations

from typing import NamedTuple

from tests.world.hosts.host import ENI, ENI_MTU

RESTORE = "run 'aws-ovs restore'"
SEND = "let OpenNebula send the VM again"
PLUG = "power the VM off and resume it"
SYNC = "run 'oneaws mesh sync --all' on the front-end"
UNBLOCK = f"end what is in its way, then {RESTORE}"
_REFUSED = r"Open vSwitch refuses the tunnel to h2 \(10.0.0.12\)"
DOWN = r"the tunnel to h\d \(.*\) is (down|missing); look whether h\d runs .*"
WAYS = f"the (neighbour|default route|route) .*; {RESTORE}"

CONFIGURATION = "/var/tmp/one/etc/vnm/aws_ovs.yaml"
FOREIGN = "ovsbr9"
"""A bridge that the driver has nothing to do with."""

# VM 1 has one-1-0 on onebr1 (VNI 1048577) and one-1-1 on ovsbr0 (VNI 100); h1 is 10.0.0.11, h2 10.0.0.12.
_NEAR = "$(ovs-vsctl list-ports onebr1 | grep ^p)"
_FAR = "$(ovs-vsctl list-ports onebr1 | sed -n s/^p/q/p)"
_PORT = "$(ovs-vsctl get Interface one-1-0 ofport)"
_ELSEWHERE = "setsid unshare -n sh -c 'echo $$ >/root/away; exec sleep 900' >/dev/null 2>&1 </dev/null &"


class Break(NamedTuple):
    """Something done to h1 as root, the differences it must lead to, as patterns, and what repairs it.

    `repair` is a command, or nothing where only a new start of the lab's host helps.
    """

    do: str
    says: tuple[str, ...]
    repair: str = "aws-ovs restore"
    maybe: tuple[str, ...] = ()
    """What may be seen besides: BFD and the kernel take their time."""
    undo: str = ""
    """What has to be done before `aws-ovs restore` brings back what was at first."""


def flows(whose: str, bridge: str, how: str) -> str:
    return rf"(a flow|\d+ flows){whose} on bridge {bridge} (is|are) {how}: .*; {RESTORE}"


REPAIRED = {
    "a flow deleted": Break(
        "ovs-ofctl --strict del-flows aws_ovs priority=100,table=12,ip,nw_dst=10.0.0.41",
        (flows(" of VM 1 NIC 1", "aws_ovs", "missing"),),
    ),
    "a flow added": Break(
        "ovs-ofctl add-flow aws_ovs table=40,priority=300,ip,nw_dst=169.254.169.254,actions=resubmit:45",
        (flows("", "aws_ovs", "there without reason"),),
    ),
    "a flow of the node changed": Break(
        "ovs-ofctl --strict mod-flows aws_ovs table=31,priority=0,actions=drop",
        (flows(" of the node", "aws_ovs", "missing"), flows("", "aws_ovs", "there without reason")),
    ),
    "a flow in the table of learned ones that nobody learned": Break(
        "ovs-ofctl add-flow aws_ovs table=30,priority=10,dl_dst=02:00:c0:a8:00:63,actions=output:1",
        (flows("", "aws_ovs", "there without reason"),),
    ),
    "the flow of another VM": Break(
        "ovs-ofctl add-flow onebr1 cookie=0xa500000000070001,in_port=9,actions=normal",
        (flows(" of VM 7 NIC 1", "onebr1", "there without reason"),),
    ),
    "a port without security": Break(
        f"ovs-ofctl del-flows onebr1 table=0,in_port={_PORT}",
        (flows(" of VM 1 NIC 0", "onebr1", "missing"),),
    ),
    "a port that may send anything": Break(
        f"ovs-ofctl add-flow onebr1 table=0,priority=200,in_port={_PORT},actions=resubmit:10",
        (flows("", "onebr1", "there without reason"),),
    ),
    "a port of another VM's": Break(
        "ovs-vsctl set Interface one-1-0 external_ids:aws_ovs-port=9/0",
        (rf"port one-1-0 of VM 1 is marked otherwise than it should be .*; {RESTORE}",),
    ),
    "a port that is not marked": Break(
        "ovs-vsctl remove Interface one-1-0 external_ids aws_ovs",
        (rf"port one-1-0 of VM 1 is marked otherwise than it should be .*; {RESTORE}",),
    ),
    "a tunnel to another address": Break(
        "ovs-vsctl set Interface vx-0a00000c options:remote_ip=10.0.0.99",
        (rf"tunnel vx-0a00000c to h2 \(10.0.0.12\) has other options than it should; {RESTORE}",),
        maybe=(DOWN,),
    ),
    "a tunnel that Open vSwitch refuses": Break(
        "ovs-vsctl set Interface vx-0a00000c options:remote_ip=nonsense; "
        "until ovs-vsctl get Interface vx-0a00000c error | grep remote_ip; do sleep 0.1; done",
        (
            rf"tunnel vx-0a00000c to h2 \(10.0.0.12\) has other options than it should; {RESTORE}",
            rf"{_REFUSED}: .*remote_ip.*; {UNBLOCK}",
        ),
    ),
    "a port of the driver that is not marked": Break(
        "ovs-vsctl clear Interface aws_gw external_ids -- clear Interface aws_icmp external_ids",
        (
            rf"port aws_gw is not marked as the driver's \(external_ids\); {RESTORE}",
            rf"port aws_icmp is not marked as the driver's \(external_ids\); {RESTORE}",
        ),
    ),
    "a port of the driver marked as a VM's": Break(
        "ovs-vsctl set Interface aws_gw external_ids:aws_ovs=guest external_ids:aws_ovs-port=9/0",
        (rf"port aws_gw is not marked as the driver's \(external_ids\); {RESTORE}",),
    ),
    "a port of the driver on another bridge": Break(
        "ovs-vsctl del-port aws_gw -- add-port ovsbr9 aws_gw -- set Interface aws_gw type=internal",
        (f"port aws_gw is not a port of type internal on bridge aws_ovs; {RESTORE}", f".*aws_gw.*; {RESTORE}"),
    ),
    "a tunnel that is not marked": Break(
        "ovs-vsctl clear Interface vx-0a00000c external_ids",
        (rf"port vx-0a00000c is not marked as the driver's \(external_ids\); {RESTORE}",),
        maybe=(DOWN,),
    ),
    "another port in the place of a tunnel": Break(
        "ovs-vsctl del-port vx-0a00000c; ovs-vsctl add-port onebr1 vx-0a00000c -- set Interface vx-0a00000c type=internal",
        (f"port vx-0a00000c is not a port of type vxlan on bridge aws_ovs; {RESTORE}",),
        maybe=(DOWN,),
    ),
    "a patch port that is not marked": Break(
        f"ovs-vsctl clear Interface {_NEAR} external_ids -- clear Interface {_FAR} external_ids",
        (
            rf"port p\w+ is not marked as the driver's \(external_ids\); {RESTORE}",
            rf"port q\w+ is not marked as the driver's \(external_ids\); {RESTORE}",
        ),
    ),
    "a bridge that is not marked": Break(
        "ovs-vsctl clear Bridge onebr1 external_ids",
        (f"bridge onebr1 is not the driver's, or not fail_mode=secure.*; {RESTORE}",),
    ),
    "the rules of groups in no tries": Break(
        "ovs-vsctl clear Bridge onebr1 flow_tables",
        (f"bridge onebr1 does not have the rules of security groups in tries.*; {RESTORE}",),
    ),
    "the rules of groups in a wrong trie": Break(
        # ovsdb-server 3.1 cannot read a greater change of this set of three from its file, nor what came after it.
        "ovs-vsctl remove Flow_Table $(ovs-vsctl get Bridge onebr1 flow_tables:32) prefixes ct_nw_src",
        (f"bridge onebr1 does not have the rules of security groups in tries.*; {RESTORE}",),
    ),
    "the overlay bridge not marked": Break(
        "ovs-vsctl clear Bridge aws_ovs external_ids",
        (f"bridge aws_ovs is not the driver's, or not fail_mode=secure.*; {RESTORE}",),
    ),
    "a tunnel deleted": Break(
        "ovs-vsctl del-port vx-0a00000c", (rf"the tunnel to h2 \(10.0.0.12\) is missing; {RESTORE}",),
        maybe=(DOWN,),
    ),
    "a tunnel too many": Break(
        "ovs-vsctl add-port aws_ovs vx-0a000063 -- set Interface vx-0a000063 type=vxlan options:key=flow "
        "options:remote_ip=10.0.0.99 options:local_ip=10.0.0.11 external_ids:aws_ovs=tunnel external_ids:aws_ovs-peer=h99",
        (rf"tunnel vx-0a000063 leads to no peer; {RESTORE}",),
        maybe=(DOWN,),
    ),
    "a peer missing in the list": Break(
        """sed -i 's/, {"name": "h3"[^}]*}//' /var/lib/aws_ovs/peers.json; ! grep h3 /var/lib/aws_ovs/peers.json""",
        (rf"tunnel vx-0a00000d leads to no peer; {RESTORE}",),
        maybe=(DOWN,),
    ),
    "another MTU of the ENI": Break(
        f"ip link set {ENI} mtu 8000",
        (rf"the ENI \(.*\) is {ENI} 10.0.0.11 10.0.0.0/24 8000, but this node was set up for .* {ENI_MTU}; {RESTORE}",),
        maybe=(DOWN,),
        undo=f"ip link set {ENI} mtu {ENI_MTU}",
    ),
    "another MTU of aws_gw": Break(
        "ovs-vsctl set Interface aws_gw mtu_request=1400",
        (f"port aws_gw has another MTU or MAC than the driver gave it; {RESTORE}",),
        maybe=(WAYS,),
    ),
    "another MAC of aws_gw": Break(
        """ovs-vsctl set Interface aws_gw 'mac="02:00:00:00:00:09"'""",
        (f"port aws_gw has another MTU or MAC than the driver gave it; {RESTORE}",),
        maybe=(WAYS,),
    ),
    "aws_gw deleted": Break(
        "ovs-vsctl del-port aws_gw",
        (f"port aws_gw of bridge aws_ovs is missing; {RESTORE}", f".*aws_gw.*; {RESTORE}"),
    ),
    "aws_gw down": Break(
        "ip link set aws_gw down",
        (f"interface aws_gw is down; {RESTORE}", f"the (neighbour|default route|route) .*; {RESTORE}"),
    ),
    "no forwarding": Break(
        "sysctl -qw net.ipv4.ip_forward=1; sysctl -qw net.ipv4.ip_forward=0",
        (
            f"net.ipv4.conf.{ENI}.forwarding is 0 instead of 1; {RESTORE}",
            f"net.ipv4.conf.aws_gw.forwarding is 0 instead of 1; {RESTORE}",
        ),
    ),
    "a strict source check": Break(
        "sysctl -qw net.ipv4.conf.aws_gw.rp_filter=1",
        (f"net.ipv4.conf.aws_gw.rp_filter is 1 instead of 2; {RESTORE}",),
    ),
    "connections only from their beginning on": Break(
        "sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0",
        (f"net.netfilter.nf_conntrack_tcp_loose is 0 instead of 1; {RESTORE}",),
    ),
    "redirects from aws_gw": Break(
        "sysctl -qw net.ipv4.conf.aws_gw.send_redirects=1",
        (f"net.ipv4.conf.aws_gw.send_redirects is 1 instead of 0; {RESTORE}",),
    ),
    "IPv6 on aws_gw and aws_icmp": Break(
        "sysctl -qw net.ipv6.conf.aws_gw.disable_ipv6=0; sysctl -qw net.ipv6.conf.aws_icmp.disable_ipv6=0",
        (
            f"net.ipv6.conf.aws_gw.disable_ipv6 is 0 instead of 1; {RESTORE}",
            f"net.ipv6.conf.aws_icmp.disable_ipv6 is 0 instead of 1; {RESTORE}",
        ),
    ),
    "the neighbour for some time only": Break(
        "ip neigh replace 169.254.87.1 lladdr 02:a5:0e:00:00:01 dev aws_gw nud stale",
        (f"the neighbour 169.254.87.1 of aws_gw is not there, not permanent, .*; {RESTORE}",),
    ),
    "the neighbour deleted": Break(
        "ip neigh del 169.254.87.1 dev aws_gw", (f"the neighbour 169.254.87.1 of aws_gw is not there.*; {RESTORE}",)
    ),
    "the neighbour changed": Break(
        "ip neigh replace 169.254.87.1 lladdr 02:00:00:00:00:09 dev aws_gw nud permanent",
        (f"the neighbour 169.254.87.1 .* has not the gateway's MAC 02:a5:0e:00:00:01; {RESTORE}",),
    ),
    "the default route deleted": Break(
        "ip route flush table 4789", (f"the default route of table 4789 does not lead to aws_gw .*; {RESTORE}",)
    ),
    "the transit route changed": Break(
        "ip route replace 198.18.0.0/15 dev ens5", (f"the route to 198.18.0.0/15 does not lead to aws_gw .*; {RESTORE}",)
    ),
    "the rule deleted": Break("ip rule del table 4789", (f"the policy rules for table 4789 are not one .*; {RESTORE}",)),
    "the rule with another priority": Break(
        f"ip rule add iif {ENI} to 10.0.0.0/24 table 4789 priority 100; ip rule del table 4789 priority 4789",
        (rf"the policy rules for table 4789 are not one .* with priority 4789; {RESTORE}",),
    ),
    "the rule with a condition more": Break(
        f"ip rule add iif {ENI} to 10.0.0.0/24 fwmark 7 table 4789 priority 4789; "
        f"ip rule del iif {ENI} to 10.0.0.0/24 fwmark 0 table 4789 priority 4789",
        (f"the policy rules for table 4789 are not one .*; {RESTORE}",),
    ),
    "the rule twice": Break(
        f"ip rule add iif {ENI} to 10.0.0.0/24 table 4789 priority 100",
        (f"the policy rules for table 4789 are not one .*; {RESTORE}",),
    ),
    "a rule too many": Break(
        "ip rule add iif ens5 to 10.9.9.0/24 table 4789",
        (f"the policy rules for table 4789 are not one .*; {RESTORE}",),
    ),
    "a patch port led elsewhere": Break(
        "ovs-vsctl set Interface $(ovs-vsctl list-ports onebr1 | grep ^p) options:peer=nowhere",
        (r"patch port p\w+ of bridge onebr1 leads elsewhere than to q\w+; " + RESTORE,),
    ),
    "a rule too many that selects by source": Break(
        "ip rule add from 10.9.9.9 table 4789",
        (f"the policy rules for table 4789 are not one .*; {RESTORE}",),
    ),
    "an nft rule added": Break(
        "nft insert rule ip aws_ovs forward_filter drop", (f"the nft tables aws_ovs are not as .*; {RESTORE}",)
    ),
    "an nft table deleted": Break(
        "nft delete table netdev aws_ovs", (f"the nft tables aws_ovs are not as .*; {RESTORE}",)
    ),
    "a bridge that lets everything pass": Break(
        "ovs-vsctl set Bridge onebr1 fail_mode=standalone",
        (rf"bridge onebr1 is not the driver's, or not fail_mode=secure.*; {RESTORE}",),
    ),
    "the overlay bridge deleted": Break(
        "ovs-vsctl del-br aws_ovs",
        (
            f"bridge aws_ovs is missing; {RESTORE}",
            rf"the tunnel to h\d \(.*\) is missing; {RESTORE}",
            f"patch port .* of bridge aws_ovs is missing, for VNI .*; {RESTORE}",
            f".*aws_(gw|icmp).*; {RESTORE}",
            f"the nft tables aws_ovs are not as .*; {RESTORE}",
        ),
        maybe=(DOWN,),
    ),
    "a patch port deleted": Break(
        f"ovs-vsctl del-port {_NEAR}", (f"patch port p.* of bridge onebr1 is missing, for VNI 1048577 of onebr1; {RESTORE}",)
    ),
    "a patch port's far end deleted": Break(
        f"ovs-vsctl del-port {_FAR}", (f"patch port q.* of bridge aws_ovs is missing, for VNI 1048577 of onebr1; {RESTORE}",)
    ),
    "ovs-vswitchd told to wait for flows": Break(
        "ovs-vsctl set Open_vSwitch . other_config:flow-restore-wait=true",
        (rf"ovs-vswitchd handles new packets on no bridge .* \(other_config:flow-restore-wait\); {RESTORE}",),
    ),
    "another configuration": Break(
        f"sed -i 's/^lock_timeout: 60/lock_timeout: 61/' {CONFIGURATION}; aws-ovs probe",
        (rf"aws_ovs.yaml is .* 61\b.*, but this node was set up for .* 60\b.*; {RESTORE}",),
        undo=f"cp -a /root/kept.yaml {CONFIGURATION}",
    ),
}  # fmt: skip

ADVISED = {
    "a VXLAN port of somebody else": Break(
        "ovs-vsctl add-port ovsbr9 vxlan9 -- set Interface vxlan9 type=vxlan options:remote_ip=10.0.0.99",
        ("VXLAN port vxlan9 of Open vSwitch .* has its UDP port 4789; let .*: ovs-vsctl set Interface vxlan9 .*",),
        "ovs-vsctl set Interface vxlan9 options:dst_port=4790; aws-ovs check || true; ovs-vsctl del-port ovsbr9 vxlan9",
        maybe=(DOWN,),
    ),
    "a VXLAN device of the kernel": Break(
        f"ip link add vxlan9 type vxlan id 9 dstport 4789 dev {ENI}",
        ("VXLAN device vxlan9 of the kernel has the driver's UDP port 4789; let .*: ip link del vxlan9",),
        "ip link del vxlan9",
        maybe=(DOWN,),
    ),
    "a port on another bridge": Break(
        "ovs-vsctl del-port one-1-0 -- add-port ovsbr0 one-1-0",
        (
            f"port one-1-0 of VM 1 is on bridge ovsbr0 instead of onebr1; {PLUG}",
            f"port one-1-0 of VM 1 is marked otherwise than it should be .*; {RESTORE}",
        ),
        "ovs-vsctl del-port one-1-0 -- add-port onebr1 one-1-0; aws-ovs restore",
    ),
    "a port deleted": Break(
        "ovs-vsctl del-port one-1-0",
        (
            "port one-1-0 of VM 1 is not on bridge onebr1; when 'virsh domiflist one-1' has it, power the VM off .*",
            flows(" of VM 1 NIC 0", "(onebr1|aws_ovs)", "there without reason"),
            # It was the only one of its network.
            flows(" of the node", "(onebr1|aws_ovs)", "there without reason"),
        ),
        "ovs-vsctl add-port onebr1 one-1-0; aws-ovs restore",
    ),
    "a port without device": Break(
        f"{_ELSEWHERE} while [ ! -s /root/away ]; do sleep 0.05; done; ip link set one-1-0 netns $(cat /root/away); "
        "ovs-vsctl del-port one-1-0; ovs-vsctl add-port onebr1 one-1-0 || true",
        (
            "port one-1-0 of VM 1 has no device: .*; see whether one-1 runs: 'virsh list'",
            rf"port one-1-0 of VM 1 is marked otherwise than it should be .*; {RESTORE}",
        ),
        "nsenter -t $(cat /root/away) -n ip link set one-1-0 netns 1; kill $(cat /root/away); rm /root/away; "
        "ip link set one-1-0 up; ovs-vsctl del-port one-1-0 -- add-port onebr1 one-1-0; aws-ovs restore",
    ),
    "a VM's bridge deleted": Break(
        "ovs-vsctl del-br onebr1",
        (
            f"bridge onebr1 is missing; {RESTORE}",
            f"patch port p.* of bridge onebr1 is missing, for VNI 1048577 of onebr1; {RESTORE}",
            "port one-1-0 of VM 1 is not on bridge onebr1; .*",
        ),
        "aws-ovs restore; ovs-vsctl add-port onebr1 one-1-0; aws-ovs restore",
    ),
    "a port that nobody knows": Break(
        "ip link add one-7-0 type veth peer name peer-7; ovs-vsctl add-port onebr1 one-7-0",
        (
            "port one-7-0 on bridge onebr1 is of no VM that the driver knows, and passes nothing; "
            f"{SEND}.*, remove it: ovs-vsctl del-port onebr1 one-7-0",
        ),
        "ovs-vsctl del-port onebr1 one-7-0; ip link del one-7-0",
    ),
    "somebody's port on a bridge of the driver": Break(
        "ovs-vsctl add-port aws_ovs stray -- set Interface stray type=internal",
        ("port stray on bridge aws_ovs is of no VM .*; remove it: ovs-vsctl del-port aws_ovs stray",),
        "ovs-vsctl del-port aws_ovs stray",
    ),
    "the file of a VM that is not here": Break(
        "sed 's/\"vm_id\":1/\"vm_id\":9/g; s/one-1-/one-9-/g' /run/aws_ovs/vms/1.json >/run/aws_ovs/vms/9.json",
        (r"port one-9-\d of VM 9 is not on bridge .*; when .* not here, rm /run/aws_ovs/vms/9.json and run .*",),
        "rm /run/aws_ovs/vms/9.json; aws-ovs restore",
    ),
    "the node missing in the list": Break(
        """sed -i 's/{"name": "h1"[^}]*}, //' /var/lib/aws_ovs/peers.json; ! grep h1 /var/lib/aws_ovs/peers.json""",
        (rf"the peer list lacks this node \(10.0.0.11\); {SYNC}",),
        "",
    ),
    "a damaged peer list": Break(
        "echo '{' >/var/lib/aws_ovs/peers.json", (f"the peer list is not valid; {SYNC}",), ""
    ),
    "no peer list": Break(
        "rm /var/lib/aws_ovs/peers.json",
        (f"this node has no peer list; {SYNC}", f"tunnel vx-.* leads to no peer; {RESTORE}"),
        "",
        maybe=(DOWN,),
    ),
    "a firewall that forwards nothing": Break(
        "nft add table ip filter; nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'",
        (r"the firewall \(nft chain ip filter FORWARD\) drops what .* names aws_gw; .*: nft insert rule ip filter FORWARD .*",),
        "nft insert rule ip filter FORWARD iifname aws_gw accept; nft insert rule ip filter FORWARD oifname aws_gw accept",
    ),
    "a firewall without VXLAN": Break(
        "nft 'table inet fw { chain in { type filter hook input priority 0; policy drop; tcp dport 22 accept; }; }'",
        (r"the firewall \(nft chain inet fw in\) drops .* names 4789; .*: nft insert rule inet fw in udp dport 4789 accept",),
        "nft insert rule inet fw in udp dport 4789 accept",
        maybe=(DOWN,),  # in the kernel datapath the tunnels pass nft
    ),
    "a VM's private address on the ENI": Break(
        f"ip address add 10.0.0.41/32 dev {ENI}",
        (rf"10.0.0.41 of VM 1 is configured on this node itself \({ENI}\), .*: ip address del 10.0.0.41/32 dev {ENI}",),
        f"ip address del 10.0.0.41/32 dev {ENI}",
    ),
}  # fmt: skip
