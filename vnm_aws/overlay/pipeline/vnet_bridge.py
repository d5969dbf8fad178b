"""The flows of a VNET bridge: port security, the gateway's answers, switching between local ports."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ...addresses import ipv6
from ..guest_port import GuestPort
from . import MULTICAST, VnetTable
from .flow import add, as_number, goto, in_network, network_cookie, port_cookie, set_network


def port(guest: GuestPort, ofport: int, gateway_mac: str) -> list[str]:
    """Write the flows of a guest port whose port number is `ofport`."""
    cookie = port_cookie(guest.vm_id, guest.nic_id)
    here = f"in_port={ofport}"
    enter = f"{set_network(guest.vni)},{goto(VnetTable.GATEWAY)}"
    lines = [add(cookie, VnetTable.PORT_SECURITY, 90, match, enter) for match in _allowed(guest, here)]
    lines.append(add(cookie, VnetTable.PORT_SECURITY, 60, here, "drop"))  # a count of what was refused
    for address in guest.gateways:
        lines += _answers(cookie, here, address, gateway_mac)
    to_guest = f"{in_network(guest.vni)},dl_dst={guest.mac}"
    lines.append(add(cookie, VnetTable.SWITCH, 100, to_guest, f"output:{ofport}"))
    return lines


def _answers(cookie: int, here: str, address: str, gateway_mac: str) -> list[str]:
    """Answer a guest's ARP requests and pings for its gateway."""
    back = f"move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],mod_dl_src:{gateway_mac}"
    arp = (
        f"{back},load:2->NXM_OF_ARP_OP[],move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],"
        f"load:{as_number(gateway_mac)}->NXM_NX_ARP_SHA[],"
        f"move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],load:{as_number(address)}->NXM_OF_ARP_SPA[],IN_PORT"
    )
    ping = (
        f"{back},move:NXM_OF_IP_SRC[]->NXM_OF_IP_DST[],load:{as_number(address)}->NXM_OF_IP_SRC[],"
        "load:0->NXM_OF_ICMP_TYPE[],load:64->NXM_NX_IP_TTL[],IN_PORT"
    )
    return [
        add(cookie, VnetTable.GATEWAY, 100, f"arp,{here},arp_op=1,arp_tpa={address}", arp),
        add(cookie, VnetTable.GATEWAY, 100, f"icmp,{here},icmp_type=8,nw_dst={address}", ping),
    ]


def _allowed(guest: GuestPort, here: str) -> Iterable[str]:
    """Match what a guest may send: packets with its own MAC and addresses, or all packets where a filter is off."""
    if not guest.filter_ip:
        yield f"{here},dl_src={guest.mac}" if guest.filter_mac else here
        return
    source = f",dl_src={guest.mac}" if guest.filter_mac else ""
    sender = f"{source},arp_sha={guest.mac}" if guest.filter_mac else ""
    for address in (*guest.addresses, "0.0.0.0"):  # 0.0.0.0: is the address in use? (RFC 5227)
        yield f"arp,{here}{sender},arp_spa={address}"
    for address in guest.addresses:
        yield f"ip,{here}{source},nw_src={address}"
    yield f"udp,{here}{source},nw_src=0.0.0.0,nw_dst=255.255.255.255,tp_src=68,tp_dst=67"
    for ip6 in dict.fromkeys((*guest.ip6, link_local(guest.mac))):
        yield f"ipv6,{here}{source},ipv6_src={ip6}"
    yield f"icmp6,{here}{source},ipv6_src=::"
    yield f"{here}{source},dl_type=0x8035"  # RARP: how a hypervisor announces a VM that has moved


def link_local(mac: str) -> str:
    """Make the IPv6 link-local address that a guest makes of its MAC (RFC 4291, EUI-64)."""
    octets = [int(part, 16) for part in mac.split(":")]
    octets[0] ^= 2
    host = bytes([*octets[:3], 0xFF, 0xFE, *octets[3:]])
    return ipv6(f"fe80::{host[0:2].hex()}:{host[2:4].hex()}:{host[4:6].hex()}:{host[6:8].hex()}", "link-local address")


def announce(guest: GuestPort, ofport: int) -> str:
    """Send a RARP in the guest's name, so that every peer learns at once behind which node its MAC is now.

    The hypervisor's own announcement is lost: it comes before `post` opens the port.
    """
    mac = guest.mac.replace(":", "")
    # Another group address each time: peers may still have the last one's way cached, and would learn nothing from it.
    group = f"03{os.urandom(5).hex()}"
    frame = f"{group}{mac}8035000108000604{'0003'}{mac}00000000{mac}00000000".ljust(120, "0")
    return f"packet-out in_port={ofport},packet={frame},actions=table"


def network(vni: int, patch: int, members: Iterable[int], gateway_mac: str) -> list[str]:
    """Write the flows of a network; `patch` and `members` are the port numbers of its patch port and guest ports."""
    cookie, of_network = network_cookie(vni), in_network(vni)
    # A packet never goes out where it came in, so one list serves the overlay and every port alike.
    flood = ",".join(f"output:{number}" for number in [*sorted(members), patch])
    from_overlay = f"{set_network(vni)},{goto(VnetTable.SWITCH)}"
    return [
        add(cookie, VnetTable.PORT_SECURITY, 100, f"in_port={patch}", from_overlay),
        add(cookie, VnetTable.GATEWAY, 50, f"{of_network},dl_dst={gateway_mac}", f"output:{patch}"),
        add(cookie, VnetTable.GATEWAY, 0, of_network, goto(VnetTable.SWITCH)),
        add(cookie, VnetTable.SWITCH, 90, f"{of_network},dl_dst={MULTICAST}", flood),
        add(cookie, VnetTable.SWITCH, 10, of_network, f"output:{patch}"),
    ]
