"""The OpenFlow pipeline, as text for `ovs-ofctl bundle`.

A VNET bridge does what concerns its ports: port security, the gateway's answers, switching between local ports. The
overlay bridge does what concerns the node: tunnels, learning behind which peer a MAC is, and the exchange of guest
addresses for node-side ones. docs/architecture.md has the tables in a drawing. A flow's cookie names its owner.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from ..addresses import ipv6
from ..vm import PortRange
from .guest_port import GuestPort, SharedAddress

NODE_MAC = "02:a5:0e:00:00:02"
"""MAC of the internal port aws_gw, the kernel's end; it is seen on this node only."""

CT_ZONE = 4789
"""Conntrack zone of private addresses that are shared by ports."""

LEARNED_S = 300

_PORT_COOKIE = 0xA5 << 56
_NETWORK_COOKIE = 0xA6 << 56
NODE_COOKIE = 0xA7 << 56
_LEARNED_COOKIE, _MESH_COOKIE = NODE_COOKIE | 1, NODE_COOKIE | 2

# Tables of a VNET bridge
_SECURITY, _SERVICES, _SWITCH = 0, 10, 20
# Tables of the overlay bridge
_CLASSIFY, _SHARED_IN, _INWARD, _DELIVER, _FROM_VNET, LEARNED, _FLOOD, _LOCAL, _OUTWARD, _TO_NODE = (
    0, 11, 12, 15, 20, 30, 31, 32, 40, 45,
)  # fmt: skip
# The registers: reg0 an output port, reg1 the VNI
_MULTICAST = "01:00:00:00:00:00/01:00:00:00:00:00"


def _add(cookie: int, table: int, priority: int, match: str, actions: str) -> str:
    comma = "," if match else ""
    return f"flow add cookie={cookie:#x},table={table},priority={priority}{comma}{match} actions={actions}"


def _hex(text: str) -> str:
    """A MAC or dotted address as one hexadecimal number, as `load` wants it."""
    return "0x" + (text.replace(":", "") if ":" in text else "".join(f"{int(part):02x}" for part in text.split(".")))


def port_cookie(vm_id: int, nic_id: int) -> int:
    """The cookie of a NIC's flows: 0xa5, the VM's ID, the NIC_ID (16 bits)."""
    return _PORT_COOKIE | vm_id << 16 | nic_id


def owner(cookie: int) -> tuple[int, int] | None:
    """VM ID and NIC_ID of a cookie, or None when no NIC owns the flow."""
    return ((cookie >> 16) & 0xFFFFFFFFFF, cookie & 0xFFFF) if cookie >> 56 == 0xA5 else None


def delete_port(vm_id: int, nic_id: int) -> str:
    """Delete the flows of a NIC."""
    return f"flow delete cookie={port_cookie(vm_id, nic_id):#x}/-1"


def delete_vm(vm_id: int) -> str:
    """Delete the flows of all NICs of a VM."""
    return f"flow delete cookie={port_cookie(vm_id, 0):#x}/{(1 << 64) - (1 << 16):#x}"


def delete_network(vni: int) -> str:
    """Delete the flows of a network on a bridge."""
    return f"flow delete cookie={_NETWORK_COOKIE | vni:#x}/-1"


def link_local(mac: str) -> str:
    """The IPv6 link-local address that a guest makes of its MAC (RFC 4291, EUI-64)."""
    octets = [int(part, 16) for part in mac.split(":")]
    octets[0] ^= 2
    host = bytes([*octets[:3], 0xFF, 0xFE, *octets[3:]])
    return ipv6(f"fe80::{host[0:2].hex()}:{host[2:4].hex()}:{host[4:6].hex()}:{host[6:8].hex()}", "link-local address")


def vnet_port(port: GuestPort, ofport: int, gateway_mac: str) -> list[str]:
    """Flows of a guest port on its VNET bridge."""
    cookie = port_cookie(port.vm_id, port.nic_id)
    here = f"in_port={ofport}"
    enter = f"load:{port.vni:#x}->NXM_NX_REG1[],resubmit(,{_SERVICES})"
    lines = [_add(cookie, _SECURITY, 90, match, enter) for match in _allowed(port, here)]
    lines.append(_add(cookie, _SECURITY, 60, here, "drop"))  # a count of what was refused
    gateway = _hex(gateway_mac)
    for address in port.gateways:
        answer = (
            f"move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],mod_dl_src:{gateway_mac},load:2->NXM_OF_ARP_OP[],"
            f"move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],load:{gateway}->NXM_NX_ARP_SHA[],"
            f"move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],load:{_hex(address)}->NXM_OF_ARP_SPA[],IN_PORT"
        )
        lines.append(_add(cookie, _SERVICES, 100, f"arp,{here},arp_op=1,arp_tpa={address}", answer))
        echo = (
            f"move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],mod_dl_src:{gateway_mac},move:NXM_OF_IP_SRC[]->NXM_OF_IP_DST[],"
            f"load:{_hex(address)}->NXM_OF_IP_SRC[],load:0->NXM_OF_ICMP_TYPE[],load:64->NXM_NX_IP_TTL[],IN_PORT"
        )
        lines.append(_add(cookie, _SERVICES, 100, f"icmp,{here},icmp_type=8,nw_dst={address}", echo))
    lines.append(_add(cookie, _SWITCH, 100, f"reg1={port.vni:#x},dl_dst={port.mac}", f"output:{ofport}"))
    return lines


def _allowed(port: GuestPort, here: str) -> Iterable[str]:
    """What a guest may send: matches on its own MAC and addresses, or on nothing where a filter is off."""
    if not port.filter_ip:
        yield f"{here},dl_src={port.mac}" if port.filter_mac else here
        return
    source = f",dl_src={port.mac}" if port.filter_mac else ""
    sender = f"{source},arp_sha={port.mac}" if port.filter_mac else ""
    for address in (*port.addresses, "0.0.0.0"):  # 0.0.0.0: is the address in use? (RFC 5227)
        yield f"arp,{here}{sender},arp_spa={address}"
    for address in port.addresses:
        yield f"ip,{here}{source},nw_src={address}"
    yield f"udp,{here}{source},nw_src=0.0.0.0,nw_dst=255.255.255.255,tp_src=68,tp_dst=67"
    for ip6 in dict.fromkeys((*port.ip6, link_local(port.mac))):
        yield f"ipv6,{here}{source},ipv6_src={ip6}"
    yield f"icmp6,{here}{source},ipv6_src=::"
    yield f"{here}{source},dl_type=0x8035"  # RARP: how a hypervisor announces a VM that has moved


def announce(port: GuestPort, ofport: int) -> str:
    """Send a RARP in the guest's name, so that every peer learns at once behind which node its MAC is now.

    The hypervisor's own announcement is lost: it comes before `post` opens the port.
    """
    mac = port.mac.replace(":", "")
    # Another group address each time: peers may still have the last one's way cached, and would learn nothing from it.
    group = f"03{os.urandom(5).hex()}"
    frame = f"{group}{mac}8035000108000604{'0003'}{mac}00000000{mac}00000000".ljust(120, "0")
    return f"packet-out in_port={ofport},packet={frame},actions=table"


def vnet_network(vni: int, patch: int, members: Iterable[int], gateway_mac: str) -> list[str]:
    """Flows of a network on a VNET bridge.

    Args:
        vni: the network.
        patch: port number of its patch port towards the overlay bridge.
        members: port numbers of its guest ports on the bridge.
        gateway_mac: the gateway's.
    """
    cookie = _NETWORK_COOKIE | vni
    network = f"reg1={vni:#x}"
    # A packet never goes out where it came in, so one list serves the overlay and every port alike.
    flood = ",".join(f"output:{number}" for number in [*sorted(members), patch])
    return [
        _add(cookie, _SECURITY, 100, f"in_port={patch}", f"load:{vni:#x}->NXM_NX_REG1[],resubmit(,{_SWITCH})"),
        _add(cookie, _SERVICES, 50, f"{network},dl_dst={gateway_mac}", f"output:{patch}"),
        _add(cookie, _SERVICES, 0, network, f"resubmit(,{_SWITCH})"),
        _add(cookie, _SWITCH, 90, f"{network},dl_dst={_MULTICAST}", flood),
        _add(cookie, _SWITCH, 10, network, f"output:{patch}"),
    ]


def overlay_network(vni: int, patches: Iterable[int]) -> list[str]:
    """Flows of a network on the overlay bridge, which has a patch port to each VNET bridge that serves it."""
    cookie = _NETWORK_COOKIE | vni
    patches = sorted(patches)
    enter = f"load:{vni:#x}->NXM_NX_REG1[],"
    learn = _learn()
    lines = [_add(cookie, _CLASSIFY, 100, f"in_port={patch}", f"{enter}resubmit(,{_FROM_VNET})") for patch in patches]
    # What came from a tunnel goes to local ports only: split horizon, so that a full mesh cannot loop.
    lines.append(_add(cookie, _CLASSIFY, 50, f"tun_id={vni:#x}", f"{enter}{learn},resubmit(,{_LOCAL})"))
    lines.append(_add(cookie, _LOCAL, 10, f"reg1={vni:#x}", ",".join(f"output:{patch}" for patch in patches)))
    return lines


def _learn() -> str:
    return (
        f"learn(table={LEARNED},hard_timeout={LEARNED_S},priority=10,cookie={_LEARNED_COOKIE:#x},NXM_NX_REG1[],"
        "NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[])"
    )


def overlay_port(port: GuestPort, patch: int, gateway_mac: str) -> list[str]:
    """Flows of a guest port on the overlay bridge: the exchange of its addresses, through patch port number `patch`."""
    cookie = port_cookie(port.vm_id, port.nic_id)
    network = f"reg1={port.vni:#x}"
    lines = []
    stateful = {one.outside for one in port.shared}
    for mapping in port.mappings:
        finish = f"ct(nat,zone={CT_ZONE},table={_TO_NODE})" if mapping.outside in stateful else f"resubmit(,{_TO_NODE})"
        match = f"ip,{network},dl_src={port.mac},nw_src={mapping.inside}"
        lines.append(_add(cookie, _OUTWARD, 100, match, f"mod_nw_src:{mapping.outside},{finish}"))
        inward = (
            f"load:{port.vni:#x}->NXM_NX_REG1[],mod_nw_dst:{mapping.inside},mod_dl_src:{gateway_mac},"
            f"mod_dl_dst:{port.mac},load:{patch}->NXM_NX_REG0[],resubmit(,{_DELIVER})"
        )
        lines.append(_add(cookie, _INWARD, 100, f"ip,nw_dst={mapping.outside}", inward))
    for one in port.shared:
        lines += _shared(cookie, one)
    return lines


def _shared(cookie: int, one: SharedAddress) -> list[str]:
    def flow(match: str, target: str) -> str:
        commit = f"ct(commit,zone={CT_ZONE},nat(dst={target}),table={_INWARD})"
        return _add(cookie, _SHARED_IN, 100, f"ct_state=+trk+new,{match},nw_dst={one.private_ip}", commit)

    if one.ports is None:
        return [flow("ip", one.outside)]
    return [
        flow(f"{protocol},tp_dst={external}", f"{one.outside}:{internal}")
        for external, internal in _pairs(one.ports)
        for protocol in ("tcp", "udp")
    ]


def _pairs(ports: PortRange) -> Iterable[tuple[int, int]]:
    return ((ports.external + offset, ports.internal + offset) for offset in range(ports.size))


def node(gateway: int, icmp: int, gateway_mac: str, transit: str) -> list[str]:
    """Flows of the overlay bridge that depend on nothing but the node.

    Args:
        gateway: port number of aws_gw.
        icmp: port number of aws_icmp.
        gateway_mac: the gateway's.
        transit: the range of transit addresses.
    """

    def add(table: int, priority: int, match: str, actions: str) -> str:
        return _add(NODE_COOKIE, table, priority, match, actions)

    # An ICMP error quotes the packet that it is about, which OpenFlow cannot reach. It visits the kernel through
    # aws_icmp (see underlay.repair); meanwhile its source MAC carries the number of the patch port that it is for.
    lines = [
        add(_DELIVER, 100, f"icmp,icmp_type={kind}", f"move:NXM_NX_REG0[0..15]->NXM_OF_ETH_SRC[0..15],output:{icmp}")
        for kind in (3, 11, 12)
    ]
    back = f"move:NXM_OF_ETH_SRC[0..15]->NXM_NX_REG0[0..15],mod_dl_src:{gateway_mac},output:NXM_NX_REG0[0..15]"
    return [
        *lines,
        add(_DELIVER, 0, "", "output:NXM_NX_REG0[0..15]"),
        add(_CLASSIFY, 100, f"ip,in_port={gateway}", f"resubmit(,{_INWARD})"),
        add(_CLASSIFY, 100, f"icmp,in_port={icmp}", back),
        # Not mapped 1:1: perhaps shared by ports, and then conntrack knows or the first packet tells.
        add(_INWARD, 0, "ct_state=-trk,ip", f"ct(nat,zone={CT_ZONE},table={_SHARED_IN})"),
        add(_SHARED_IN, 90, "ct_state=+trk+est,ip", f"resubmit(,{_INWARD})"),
        add(_SHARED_IN, 90, "ct_state=+trk+rel,ip", f"resubmit(,{_INWARD})"),
        add(_FROM_VNET, 100, f"dl_dst={gateway_mac}", f"resubmit(,{_OUTWARD})"),
        add(
            _FROM_VNET,
            90,
            f"dl_dst={_MULTICAST}",
            f"{_learn()},move:NXM_NX_REG1[]->NXM_NX_TUN_ID[0..31],resubmit(,{_FLOOD})",
        ),
        add(_FROM_VNET, 0, "", f"{_learn()},move:NXM_NX_REG1[]->NXM_NX_TUN_ID[0..31],resubmit(,{LEARNED})"),
        add(LEARNED, 0, "", f"resubmit(,{_FLOOD})"),
        add(_OUTWARD, 200, "ip,nw_dst=169.254.0.0/16", "drop"),
        add(_OUTWARD, 200, f"ip,nw_dst={transit}", "drop"),
        add(_TO_NODE, 0, "", f"mod_dl_dst:{NODE_MAC},output:{gateway}"),
    ]


def forget_learned() -> str:
    """Forget behind which tunnel each MAC is: a tunnel that has gone would swallow packets until its entries expire."""
    return f"flow delete cookie={_LEARNED_COOKIE:#x}/-1"


def mesh(tunnels: Iterable[int], node_addresses: Iterable[str]) -> list[str]:
    """Flows of the overlay bridge that depend on the peers; they replace all earlier ones.

    Args:
        tunnels: port numbers of the tunnels.
        node_addresses: VXLAN endpoints of all nodes, this one's too: no guest may talk to them.
    """
    cookie = _MESH_COOKIE
    flood = "".join(f"output:{number}," for number in sorted(tunnels))
    lines = [f"flow delete cookie={cookie:#x}/-1", _add(cookie, _FLOOD, 0, "", f"{flood}resubmit(,{_LOCAL})")]
    return lines + [_add(cookie, _OUTWARD, 200, f"ip,nw_dst={address}", "drop") for address in node_addresses]
