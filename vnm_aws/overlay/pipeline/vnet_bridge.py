"""The flows of a VNET bridge: port security, the guard, the gateway's answers, switching between local ports."""

from __future__ import annotations

from collections.abc import Iterable

from ...addresses import ipv6
from ..guest_port import GuestPort, Member
from . import (
    LEARNED_S,
    MOST_LEARNED,
    MULTICAST,
    NODE_MAC,
    OUTPUT_PORT_BITS,
    RARP,
    SLOT,
    VNI,
    WAS_LEARNED,
    WAS_LEARNED_MATCH,
    ZONE,
    announcement,
    groups,
)
from . import VnetTable as Table
from .flow import (
    add,
    as_number,
    goto,
    in_network,
    learned_at_port,
    learned_in_network,
    network_cookie,
    port_cookie,
    to_overlay,
)
from .flow import set_network as enter_network

_ND = "icmp6,icmp_type="
_SOLICITATION, _ADVERTISEMENT = f"{_ND}135", f"{_ND}136"
_EXACT = ",icmp_code=0"
"""Beside nd_target, nd_sll and nd_tll: Open vSwitch tells the kernel of these only when type and code are both matched. Without,
what the kernel has learned from one packet would hold for all others of that type."""
_NO_LINK = "00:00:00:00:00:00"
_REFUSED = (
    # What is not for guests at all, or only from a router or server: AWS_RAW_ETHERNET lets it pass.
    "vlan_tci=0x1000/0x1000",
    "dl_dst=01:80:c2:00:00:00/ff:ff:ff:ff:ff:f0",  # spanning tree, LLDP, EAPOL: never forwarded by a bridge
    f"{_ND}134",  # router advertisement
    f"{_ND}137",  # redirect
    "udp,tp_dst=68",  # DHCP's answers
    "udp6,tp_dst=546",
    # First fragments so short that they hide what they are, and headers that Open vSwitch cannot read.
    "icmp6,nw_frag=first,icmp_type=0",
    "udp6,nw_frag=first,tp_dst=0",
    "ipv6,nw_proto=0",
)


def port(guest: GuestPort, ofport: int, gateway_mac: str, learned_macs: int) -> list[str]:
    """Write the flows of a guest port whose port number is `ofport`; it may learn `learned_macs` other MACs."""
    cookie = port_cookie(guest.vm_id, guest.nic_id)
    here = f"in_port={ofport}"
    checked = Table.OUTBOUND if guest.raw_ethernet else Table.GUARD
    zone = f"load:{guest.zone:#x}->{ZONE}," if guest.zone else ""
    first = goto(checked if guest.filter_mac else Table.SOURCE)
    enter = f"{enter_network(guest.vni)},load:{guest.slot}->{SLOT},{zone}{first}"
    lines = [add(cookie, Table.PORT_SECURITY, priority, match, enter) for priority, match in _allowed(guest, here)]
    lines += [add(cookie, Table.PORT_SECURITY, priority, match, "drop") for priority, match in _forbidden(guest, here)]
    if not guest.filter_mac:
        lines += _other_macs(guest, ofport, learned_macs, checked)
    if not guest.raw_ethernet:
        go_on = goto(Table.OUTBOUND)
        lines += [add(cookie, Table.GUARD, priority, match, go_on) for priority, match in _neighbours(guest, here)]
    limited = f"meter:{guest.slot},{goto(Table.SWITCH)}"
    lines.append(add(cookie, Table.GATEWAY, 60, f"{here},dl_dst={MULTICAST}", limited))
    for address in guest.gateways:
        lines += _answers(cookie, here, address, gateway_mac)
    to_guest = f"{in_network(guest.vni)},dl_dst={guest.mac}"
    lines.append(add(cookie, Table.SWITCH, 100, to_guest, groups.deliver(ofport, guest.zone)))
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
        add(cookie, Table.GATEWAY, 100, f"arp,{here},arp_op=1,arp_tpa={address}", arp),
        add(cookie, Table.GATEWAY, 100, f"icmp,{here},icmp_type=8,nw_dst={address}", ping),
    ]


def _allowed(guest: GuestPort, here: str) -> Iterable[tuple[int, str]]:
    """Match what a guest may send, as far as its addresses tell: its own, or all where a filter is off."""
    source = f",dl_src={guest.mac}" if guest.filter_mac else ""
    yield 95, f"{here},{RARP},dl_src={guest.mac},arp_sha={guest.mac}"
    if not guest.filter_ip:
        yield 90, f"{here}{source}"
        return
    if guest.raw_ethernet:
        yield 70, f"{here}{source}"  # below what is forbidden
    sender = f"{source},arp_sha={guest.mac}" if guest.filter_mac else ""
    for address in (*guest.addresses, "0.0.0.0"):  # 0.0.0.0: is the address in use? (RFC 5227)
        yield 90, f"arp,{here}{sender},arp_spa={address}"
    for address in guest.addresses:
        yield 90, f"ip,{here}{source},nw_src={address}"
    yield 90, f"udp,{here}{source},nw_src=0.0.0.0,nw_dst=255.255.255.255,tp_src=68,tp_dst=67"
    for ip6 in _own_ip6(guest):
        yield 90, f"ipv6,{here}{source},ipv6_src={ip6}"
    yield 90, f"icmp6,{here}{source},ipv6_src=::"


def _forbidden(guest: GuestPort, here: str) -> Iterable[tuple[int, str]]:
    """Match what a guest must not send; the last one is all else, a count of what was refused."""
    if guest.raw_ethernet or not guest.filter_ip:
        yield 94, f"{here},{RARP}"
    if guest.raw_ethernet and guest.filter_ip:
        yield from ((80, f"{kind},{here}") for kind in ("arp", "ip", "ipv6"))
    yield 60, here


def _own_ip6(guest: GuestPort) -> Iterable[str]:
    return dict.fromkeys((*guest.ip6, link_local(guest.mac)))


def link_local(mac: str) -> str:
    """Make the IPv6 link-local address that a guest makes of its MAC (RFC 4291, EUI-64)."""
    octets = [int(part, 16) for part in mac.split(":")]
    octets[0] ^= 2
    host = bytes([*octets[:3], 0xFF, 0xFE, *octets[3:]])
    return ipv6(f"fe80::{host[0:2].hex()}:{host[2:4].hex()}:{host[4:6].hex()}:{host[6:8].hex()}", "link-local address")


def _other_macs(guest: GuestPort, ofport: int, most: int, checked: Table) -> list[str]:
    """Learn the MACs behind a NIC that may have others than its own, up to `most`; refuse frames from more."""
    cookie, here = port_cookie(guest.vm_id, guest.nic_id), f"in_port={ofport}"
    learned = learned_at_port(guest.vm_id, guest.nic_id)
    learn = f"{_learn(learned, most, f',result_dst={WAS_LEARNED}')},{goto(Table.LIMIT)}"
    deliver = f"{in_network(guest.vni)},reg0={ofport}"
    return [
        add(cookie, Table.SOURCE, 110, f"{here},dl_src={guest.mac}", goto(checked)),
        add(cookie, Table.SOURCE, 50, here, learn),
        add(cookie, Table.LIMIT, 100, f"{here},{WAS_LEARNED_MATCH}", goto(checked)),
        add(cookie, Table.LIMIT, 0, here, "drop"),  # a count of what was refused
        add(cookie, Table.DELIVER, 100, deliver, groups.deliver(ofport, guest.zone)),
    ]


def _learn(cookie: int, most: int, more: str = "", how: str = f"hard_timeout={LEARNED_S},priority=10") -> str:
    """Write the action that notes behind which port a MAC is."""
    return (
        f"learn(table={Table.LEARNED},{how},cookie={cookie:#x},limit={most}{more},{VNI},"
        f"NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],load:NXM_OF_IN_PORT[]->{OUTPUT_PORT_BITS})"
    )


def _neighbours(guest: GuestPort, here: str) -> Iterable[tuple[int, str]]:
    """Match the IPv6 neighbour discovery that is a guest's own; what remains of it GUARD refuses for the network."""
    if not guest.filter_ip:
        yield 180, f"{_SOLICITATION},{here}"
        yield 180, f"{_ADVERTISEMENT},{here}"
        return
    yield 150, f"{_SOLICITATION},{here}" + (f"{_EXACT},nd_sll={guest.mac}" if guest.filter_mac else "")
    links = [f",nd_tll={link}" for link in (guest.mac, _NO_LINK)] if guest.filter_mac else [""]
    for ip6 in _own_ip6(guest):
        yield 170, f"{_SOLICITATION}{_EXACT},{here},ipv6_src=::,nd_target={ip6}"  # is the address in use? (RFC 4862)
        for link in links:
            yield 150, f"{_ADVERTISEMENT}{_EXACT},{here},nd_target={ip6}{link}"


def network(vni: int, patch: int, members: Iterable[Member], everyone: Iterable[Member], gateway_mac: str) -> list[str]:
    """Write the flows of a network on one of its bridges.

    Args:
        vni: the network's.
        patch: the number of its patch port.
        members: its guest ports on this bridge.
        everyone: its guest ports on all bridges of the node.
        gateway_mac: the gateway's MAC.
    """
    cookie, of_network, members, everyone = network_cookie(vni), in_network(vni), list(members), list(everyone)
    # A packet never goes out where it came in, so one list serves the overlay and every port alike.
    flood = _outputs(members, patch)
    gateways = sorted({gateway for member in everyone for gateway in member.gateways})
    refused = [f"dl_dst={announcement.GROUPS}", *(f"arp,arp_spa={gateway}" for gateway in gateways)]
    lines = [
        add(cookie, Table.GATEWAY, 50, f"{of_network},dl_dst={gateway_mac}", to_overlay(patch)),
        add(cookie, Table.GATEWAY, 0, of_network, goto(Table.SWITCH)),
        *(add(cookie, Table.SWITCH, 200, f"{of_network},{match}", "drop") for match in refused),
        add(cookie, Table.SWITCH, 90, f"{of_network},dl_dst={MULTICAST}", flood),
        *_guard(vni),
        *groups.network(vni, any(member.zone for member in members)),
    ]
    if any(member.any_mac for member in members):
        return lines + _learning(vni, patch, members, everyone, gateway_mac)
    from_overlay = f"{enter_network(vni)},{goto(Table.SWITCH)}"
    return [
        *lines,
        add(cookie, Table.PORT_SECURITY, 100, f"in_port={patch}", from_overlay),
        add(cookie, Table.SWITCH, 10, of_network, to_overlay(patch)),
    ]


def _outputs(members: Iterable[Member], patch: int) -> str:
    return ",".join([*(groups.deliver(member.number, member.zone) for member in members), to_overlay(patch)])


def _guard(vni: int) -> list[str]:
    """Refuse what guests have no business to send; ports have flows of their own between these."""
    cookie, of_network = network_cookie(vni), in_network(vni)
    drop, go_on = "drop", goto(Table.OUTBOUND)
    flows = [
        *((200, match, drop) for match in _REFUSED),
        (160, f"{_SOLICITATION},ipv6_src=::", drop),
        # It says nothing of the sender that filters do not know.
        (140, f"{_SOLICITATION}{_EXACT},nd_sll={_NO_LINK}", go_on),
        (130, _SOLICITATION, drop),
        (130, _ADVERTISEMENT, drop),
        *((10, kind, go_on) for kind in ("arp", "ip", "ipv6", RARP)),
    ]
    lines = [add(cookie, Table.GUARD, priority, f"{of_network},{match}", action) for priority, match, action in flows]
    return [*lines, add(cookie, Table.GUARD, 0, of_network, drop)]  # a count of what was refused


def _learning(vni: int, patch: int, members: list[Member], everyone: list[Member], gateway_mac: str) -> list[str]:
    """Switch by what is learned, too, because there are ports that may have several MACs.

    A MAC that has other right to be elsewhere is no such port's: that of a NIC on this node, of the gateway, and of NICs
    that other nodes announce.
    """
    cookie, of_network, learned = network_cookie(vni), in_network(vni), learned_in_network(vni)
    refuse = f"learn(table={Table.SOURCE},priority=90,cookie={learned:#x},limit={MOST_LEARNED},{VNI},NXM_OF_ETH_SRC[])"
    announced = f"{enter_network(vni)},{refuse},{_learn(learned, MOST_LEARNED, how='priority=20')}"
    from_overlay = f"{enter_network(vni)},{_learn(learned, MOST_LEARNED)},{goto(Table.SWITCH)}"
    unknown = _outputs((member for member in members if member.any_mac), patch)
    macs = {member.mac for member in everyone if member.mac}
    others, elsewhere = sorted(macs | {gateway_mac, NODE_MAC}), sorted(macs - {member.mac for member in members})
    return [
        add(cookie, Table.PORT_SECURITY, 110, f"in_port={patch},dl_dst={announcement.GROUPS}", announced),
        add(cookie, Table.PORT_SECURITY, 100, f"in_port={patch}", from_overlay),
        *(add(cookie, Table.SOURCE, 100, f"{of_network},dl_src={mac}", "drop") for mac in (*others, MULTICAST)),
        # What comes from the overlay for a NIC on another bridge of this node is no frame to a MAC that nobody knows.
        *(add(cookie, Table.SWITCH, 50, f"{of_network},dl_dst={mac}", to_overlay(patch)) for mac in elsewhere),
        add(cookie, Table.SWITCH, 10, of_network, f"resubmit(,{Table.LEARNED}),{goto(Table.DELIVER)}"),
        add(cookie, Table.DELIVER, 100, f"{of_network},reg0={patch}", to_overlay(patch)),
        add(cookie, Table.DELIVER, 0, of_network, unknown),
    ]
