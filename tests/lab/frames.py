"""What guests send, and where it may arrive: the table that test_frames.py tries out, frame by frame.

A row says what is sent, which guests send it, the frame as each of them makes it, and who gets it. A row with the same
frame and another set of guests says what is so for those. All VMs but the stranger are in one network, 192.168.7.0/24.

    host h1   the guests that send, one of each kind; `near`; `stranger`, in another network with the same addresses;
              `node`: the kernel of h1, behind the gateway
    host h2   `far`, and `nested`, whose MAC filter is off: frames to MACs that nobody knows are for what is within it
    beyond    `internet`: a server there
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.lab.support import ethernet as eth
from tests.lab.support.ethernet import (
    ALL_NODES,
    ALL_NODES_MAC,
    ARP_REPLY,
    ARP_REQUEST,
    BROADCAST,
    NEIGHBOUR_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION,
    NOBODY_MAC,
    REDIRECT,
    ROUTER_ADVERTISEMENT,
    ROUTER_SOLICITATION,
)  # fmt: skip
from tests.lab.support.segment import mac
from tests.world.vpc.vpc import SERVER
from vnm_aws.overlay.pipeline import NODE_MAC
from vnm_aws.overlay.pipeline.vnet_bridge import link_local


class Nic(NamedTuple):
    """A guest's network card: its VM, its host, its address, and what its network says of it."""

    name: str
    vm_id: int
    host: str
    ip: str
    settings: dict[str, str]

    @property
    def mac(self) -> str:
        """Its MAC."""
        return mac(self.ip)

    @property
    def ip6(self) -> str:
        """Its IPv6 link-local address."""
        return link_local(self.mac)


GATEWAY, GATEWAY_MAC = "192.168.7.1", "02:a5:0e:00:00:01"
_HERE = {"GATEWAY": GATEWAY}
FILTERED = Nic("filtered", 1, "h1", "192.168.7.10", _HERE)
IP_FREE = Nic("IP filter off", 2, "h1", "192.168.7.11", {**_HERE, "FILTER_IP_SPOOFING": "NO"})
MAC_FREE = Nic("MAC filter off", 3, "h1", "192.168.7.12", {**_HERE, "FILTER_MAC_SPOOFING": "NO"})
FREE = Nic(
    "both filters off", 4, "h1", "192.168.7.13",
    {**_HERE, "FILTER_MAC_SPOOFING": "NO", "FILTER_IP_SPOOFING": "NO"},
)  # fmt: skip
RAW = Nic("raw Ethernet", 5, "h1", "192.168.7.14", {**_HERE, "AWS_RAW_ETHERNET": "YES"})
NEAR = Nic("near", 6, "h1", "192.168.7.20", _HERE)
FAR = Nic("far", 7, "h2", "192.168.7.21", _HERE)
NESTED = Nic("nested", 8, "h2", "192.168.7.22", {**_HERE, "FILTER_MAC_SPOOFING": "NO", "FILTER_IP_SPOOFING": "NO"})
STRANGER = Nic("stranger", 9, "h1", "192.168.7.30", {**_HERE, "BRIDGE": "onebr8", "VLAN_ID": "701"})
SENDERS, RECEIVERS = (FILTERED, IP_FREE, MAC_FREE, FREE, RAW), (NEAR, FAR, NESTED, STRANGER)

ALL, USUAL = SENDERS, (FILTERED, IP_FREE, MAC_FREE, FREE)
"""All kinds, and those on networks that do not say AWS_RAW_ETHERNET."""
ONE_IP, ANY_IP = (FILTERED, MAC_FREE, RAW), (IP_FREE, FREE)
ONE_MAC, ANY_MAC = (FILTERED, IP_FREE, RAW), (MAC_FREE, FREE)
FILTERED_ONLY, RAW_ONLY = (FILTERED,), (RAW,)

NOBODY: frozenset[str] = frozenset()
EVERYBODY = frozenset(("near", "far", "nested"))
"""All guests of the network."""
OUT = frozenset(("node", "internet"))
_UNKNOWN_MAC, _UNKNOWN_IP, _ZERO = "02:99:00:00:00:99", "192.168.7.99", "0.0.0.0"
_UNSPECIFIED = "::"
_ARP, _IP, _IP6, _RARP = 0x0806, 0x0800, 0x86DD, 0x8035


_SYN_ACK = bytes.fromhex("1388 0050 00000001 00000001 5012 ffff 0000 0000")


class Row(NamedTuple):
    """A line of the table."""

    what: str
    senders: tuple[Nic, ...]
    frame: Callable[[Nic], bytes]
    arrives: frozenset[str]


def _at(*names: Nic) -> frozenset[str]:
    return frozenset(nic.name for nic in names)


def arp(
    me: Nic, operation: int, sender: tuple[str, str], target: tuple[str, str], to: str = BROADCAST, source: str = ""
) -> bytes:
    """An ARP packet."""
    return eth.arp(to, source or me.mac, operation, sender, target)


def ip(me: Nic, to: Nic | str, packet: bytes, source: str = "") -> bytes:
    """A frame with an IPv4 packet, to a guest or a MAC."""
    return eth.ethernet(to if isinstance(to, str) else to.mac, source or me.mac, _IP, packet)


def ip6(me: Nic, to: Nic | str, packet: bytes, source: str = "") -> bytes:
    """A frame with an IPv6 packet."""
    return eth.ethernet(to if isinstance(to, str) else to.mac, source or me.mac, _IP6, packet)


def udp(source: str, target: str, to_port: int = 5000, from_port: int = 5000) -> bytes:
    """An IPv4 packet with UDP."""
    return eth.udp4(source, target, (from_port, to_port), b"")


def solicit(me: Nic, about: Nic, source: str = "", link: str = "") -> bytes:
    """A neighbour solicitation by multicast, from the guest's own address."""
    group, group_mac = eth.solicited(about.ip6)
    body = eth.neighbour(NEIGHBOUR_SOLICITATION, about.ip6, link)
    return ip6(me, group_mac, eth.icmp6(source or me.ip6, group, NEIGHBOUR_SOLICITATION, body))


def advertise(me: Nic, about: Nic, link: str, to: Nic | None = None) -> bytes:
    """A neighbour advertisement, to one guest or to all nodes."""
    target, target_mac = (to.ip6, to.mac) if to else (ALL_NODES, ALL_NODES_MAC)
    body = eth.neighbour(NEIGHBOUR_ADVERTISEMENT, about.ip6, link)
    return ip6(me, target_mac, eth.icmp6(me.ip6, target, NEIGHBOUR_ADVERTISEMENT, body))


def icmp6(me: Nic, kind: int, body: bytes, to: Nic | None = None, source: str = "") -> bytes:
    """An ICMPv6 message, to one guest or to all nodes."""
    target, target_mac = (to.ip6, to.mac) if to else (ALL_NODES, ALL_NODES_MAC)
    return ip6(me, target_mac, eth.icmp6(source or me.ip6, target, kind, body))


def fragmented(me: Nic, next_header: int, rest: bytes, offset: int = 0, more: int = 1) -> bytes:
    """A fragment of an IPv6 packet to all nodes."""
    head = bytes([next_header, 0]) + (offset | more).to_bytes(2, "big") + bytes(4)
    return ip6(me, ALL_NODES_MAC, eth.ipv6(me.ip6, ALL_NODES, 44, head + rest))


def first_fragment4(me: Nic, ports: tuple[int, int]) -> bytes:
    """The first fragment of a UDP packet."""
    packet = bytearray(eth.udp4(me.ip, NEAR.ip, ports, bytes(8)))
    packet[6] = 0x20
    packet[10:12] = bytes(2)
    packet[10:12] = eth.checksum(bytes(packet[:20])).to_bytes(2, "big")
    return ip(me, NEAR, bytes(packet))


def udp6_head(from_port: int, to_port: int) -> bytes:
    """The beginning of a UDP packet."""
    return from_port.to_bytes(2, "big") + to_port.to_bytes(2, "big") + bytes(12)


def options(next_header: int) -> bytes:
    """An IPv6 header of destination options that holds nothing."""
    return bytes([next_header, 0, 1, 4, 0, 0, 0, 0])


def message(me: Nic, kind: int, body: bytes) -> bytes:
    """An ICMPv6 message to all nodes, without the packet around it."""
    return eth.icmp6_payload(me.ip6, ALL_NODES, kind, body)


ARP_ROWS = (
    Row("ARP announcement of its own address", ALL,
        lambda me: arp(me, ARP_REQUEST, (me.mac, me.ip), (NOBODY_MAC, me.ip)), EVERYBODY),
    Row("ARP request for a neighbour", ALL,
        lambda me: arp(me, ARP_REQUEST, (me.mac, me.ip), (NOBODY_MAC, FAR.ip)), EVERYBODY),
    Row("ARP probe, before it has its address", ALL,
        lambda me: arp(me, ARP_REQUEST, (me.mac, _ZERO), (NOBODY_MAC, me.ip)), EVERYBODY),
    Row("ARP reply for its own address", ALL,
        lambda me: arp(me, ARP_REPLY, (me.mac, me.ip), (NEAR.mac, NEAR.ip), NEAR.mac), _at(NEAR)),
    Row("ARP reply: a neighbour's address is at my MAC", ONE_IP,
        lambda me: arp(me, ARP_REPLY, (me.mac, NEAR.ip), (FAR.mac, FAR.ip), FAR.mac), NOBODY),
    Row("ARP reply: a neighbour's address is at my MAC", ANY_IP,
        lambda me: arp(me, ARP_REPLY, (me.mac, NEAR.ip), (FAR.mac, FAR.ip), FAR.mac), _at(FAR)),
    Row("ARP announcement of an address that nobody has", ONE_IP,
        lambda me: arp(me, ARP_REQUEST, (me.mac, _UNKNOWN_IP), (NOBODY_MAC, _UNKNOWN_IP)), NOBODY),
    Row("ARP reply: my address is at a neighbour's MAC", (FILTERED, RAW),
        lambda me: arp(me, ARP_REPLY, (NEAR.mac, me.ip), (FAR.mac, FAR.ip), FAR.mac), NOBODY),
    Row("ARP request from the gateway's address", ALL,
        lambda me: arp(me, ARP_REQUEST, (me.mac, GATEWAY), (NOBODY_MAC, FAR.ip)), NOBODY),
    Row("ARP announcement of the gateway's address", ALL,
        lambda me: arp(me, ARP_REQUEST, (me.mac, GATEWAY), (NOBODY_MAC, GATEWAY)), NOBODY),
    Row("ARP reply: the gateway is at my MAC, to a guest on this host", ALL,
        lambda me: arp(me, ARP_REPLY, (me.mac, GATEWAY), (NEAR.mac, NEAR.ip), NEAR.mac), NOBODY),
    Row("ARP reply: the gateway is at my MAC, to a guest on another host", ALL,
        lambda me: arp(me, ARP_REPLY, (me.mac, GATEWAY), (FAR.mac, FAR.ip), FAR.mac), NOBODY),
    Row("ARP reply from the gateway's MAC", ALL,
        lambda me: arp(me, ARP_REPLY, (GATEWAY_MAC, me.ip), (FAR.mac, FAR.ip), FAR.mac, GATEWAY_MAC), NOBODY),
    Row("RARP of its own MAC", ALL, lambda me: eth.rarp(me.mac, me.mac), EVERYBODY),
    Row("RARP of a neighbour's MAC", ALL, lambda me: eth.rarp(me.mac, NEAR.mac), NOBODY),
    Row("RARP of a neighbour's MAC, from that MAC", ALL, lambda me: eth.rarp(NEAR.mac, NEAR.mac), NOBODY),
    Row("RARP of the MAC of a VM on another host, from that MAC", ALL, lambda me: eth.rarp(FAR.mac, FAR.mac), NOBODY),
    Row("RARP of a MAC that nobody has", ALL, lambda me: eth.rarp(_UNKNOWN_MAC, _UNKNOWN_MAC), NOBODY),
    Row("RARP to the group of the nodes' announcements", ALL,
        lambda me: eth.arp("03:a5:0e:00:00:01", me.mac, 3, (me.mac, _ZERO), (me.mac, _ZERO), _RARP), NOBODY),
    Row("RARP to the group of the nodes' answers", ALL,
        lambda me: eth.arp("07:a5:0e:00:00:00", me.mac, 3, (me.mac, _ZERO), (me.mac, _ZERO), _RARP), NOBODY),
)  # fmt: skip

SOURCE_ROWS = (
    Row("UDP from its own MAC to a guest on this host", ALL, lambda me: ip(me, NEAR, udp(me.ip, NEAR.ip)), _at(NEAR)),
    Row("UDP from its own MAC to a guest on another host", ALL, lambda me: ip(me, FAR, udp(me.ip, FAR.ip)), _at(FAR)),
    Row("UDP from the MAC of a guest on this host", ALL,
        lambda me: ip(me, FAR, udp(me.ip, FAR.ip), NEAR.mac), NOBODY),
    Row("UDP from the MAC of a guest on another host", ALL,
        lambda me: ip(me, NEAR, udp(me.ip, NEAR.ip), FAR.mac), NOBODY),
    Row("UDP from the gateway's MAC", ALL, lambda me: ip(me, FAR, udp(me.ip, FAR.ip), GATEWAY_MAC), NOBODY),
    Row("UDP from the MAC of the node's end", ALL, lambda me: ip(me, FAR, udp(me.ip, FAR.ip), NODE_MAC), NOBODY),
    Row("UDP from the MAC of a group", ALL, lambda me: ip(me, FAR, udp(me.ip, FAR.ip), "03:00:00:00:00:01"), NOBODY),
    Row("UDP from a MAC that nobody has", ONE_MAC, lambda me: ip(me, FAR, udp(me.ip, FAR.ip), _UNKNOWN_MAC), NOBODY),
    Row("UDP from a MAC that nobody has", ANY_MAC, lambda me: ip(me, FAR, udp(me.ip, FAR.ip), _UNKNOWN_MAC), _at(FAR)),
    Row("UDP to a MAC that nobody has", (FILTERED,),
        lambda me: ip(me, "02:99:00:00:00:77", udp(me.ip, FAR.ip)), _at(NESTED)),
    Row("UDP to the MAC of a guest of another network", ALL,
        lambda me: ip(me, STRANGER, udp(me.ip, STRANGER.ip)), _at(NESTED)),
)  # fmt: skip

IPV4_ROWS = (
    Row("UDP from a neighbour's address", ONE_IP, lambda me: ip(me, FAR, udp(NEAR.ip, FAR.ip)), NOBODY),
    Row("UDP from a neighbour's address", ANY_IP, lambda me: ip(me, FAR, udp(NEAR.ip, FAR.ip)), _at(FAR)),
    Row("UDP to the port of BFD", ALL, lambda me: ip(me, FAR, udp(me.ip, FAR.ip, 3784)), _at(FAR)),
    Row("UDP to the port of VXLAN, between guests", ALL, lambda me: ip(me, FAR, udp(me.ip, FAR.ip, 4789)), _at(FAR)),
    Row("multicast, such as mDNS", ALL,
        lambda me: ip(me, "01:00:5e:00:00:fb", udp(me.ip, "224.0.0.251", 5353)), EVERYBODY),
    Row("VRRP", ALL, lambda me: ip(me, "01:00:5e:00:00:12", eth.ipv4(me.ip, "224.0.0.18", 112, bytes(8))), EVERYBODY),
    Row("DHCP request, before it has its address", ALL,
        lambda me: ip(me, BROADCAST, udp(_ZERO, "255.255.255.255", 67, 68)), EVERYBODY),
    Row("DHCP answer", USUAL, lambda me: ip(me, NEAR, udp(me.ip, NEAR.ip, 68, 67)), NOBODY),
    Row("DHCP answer", RAW_ONLY, lambda me: ip(me, NEAR, udp(me.ip, NEAR.ip, 68, 67)), _at(NEAR)),
    Row("DHCP answer to all", USUAL, lambda me: ip(me, BROADCAST, udp(me.ip, "255.255.255.255", 68, 67)), NOBODY),
    Row("DHCP answer, first fragment", USUAL, lambda me: first_fragment4(me, (67, 68)), NOBODY),
    Row("UDP, first fragment", ALL, lambda me: first_fragment4(me, (5000, 5000)), _at(NEAR)),
    Row("IPv4 in an 802.3 frame, from a neighbour's address", ONE_IP,
        lambda me: eth.ethernet(FAR.mac, me.mac, 60, bytes.fromhex("aaaa030000000800") + udp(NEAR.ip, FAR.ip)), NOBODY),
)  # fmt: skip


def _refused(what: str, target: str) -> Row:
    """A row for an address that no guest reaches."""
    return Row(what, ALL, lambda me: ip(me, GATEWAY_MAC, udp(me.ip, target)), NOBODY)


OUTWARD_ROWS = (
    Row("UDP to the Internet", ALL, lambda me: ip(me, GATEWAY_MAC, udp(me.ip, SERVER)), OUT),
    Row("UDP to the Internet from a neighbour's address", ALL,
        lambda me: ip(me, GATEWAY_MAC, udp(NEAR.ip, SERVER)), NOBODY),
    Row("UDP to the Internet from a MAC that nobody has", ALL,
        lambda me: ip(me, GATEWAY_MAC, udp(me.ip, SERVER), _UNKNOWN_MAC), NOBODY),
    Row("UDP to AWS's metadata", ALL, lambda me: ip(me, GATEWAY_MAC, udp(me.ip, "169.254.169.254", 80)), NOBODY),
    Row("UDP to another link-local address", ALL, lambda me: ip(me, GATEWAY_MAC, udp(me.ip, "169.254.7.7")), NOBODY),
    Row("VXLAN to its own node", ALL, lambda me: ip(me, GATEWAY_MAC, udp(me.ip, "10.0.0.11", 4789)), NOBODY),
    Row("VXLAN to another node", ALL, lambda me: ip(me, GATEWAY_MAC, udp(me.ip, "10.0.0.12", 4789)), NOBODY),
    Row("UDP to a transit address", ALL, lambda me: ip(me, GATEWAY_MAC, udp(me.ip, "198.18.0.1")), NOBODY),
    *(
        _refused(f"UDP to {what}", target)
        for what, target in (
            ("its own node", "10.0.0.11"), ("another node", "10.0.0.12"), ("an instance of the VPC", "10.0.0.50"),
            ("the DNS server of the VPC, which its network does not name", "10.0.0.2"),
            ("another subnet of the VPC", "10.0.9.9"), ("a network that the VPC may be connected to", "172.16.0.9"),
            ("an address of a carrier's NAT", "100.64.0.9"), ("a guest of its network by the gateway", FAR.ip),
            ("a guest of another network by the gateway", "192.168.8.30"), ("the node's end", "169.254.87.1"),
            ("loopback", "127.0.0.1"), ("this network", "0.0.0.0"), ("a group by the gateway", "224.0.0.251"),
            ("everybody by the gateway", "255.255.255.255"), ("an address of no class", "240.0.0.1"),
        )
    ),
    Row("TCP that answers what nobody asked, to an instance of the VPC", ALL,
        lambda me: ip(me, GATEWAY_MAC, eth.ipv4(me.ip, "10.0.0.50", 6, _SYN_ACK)), NOBODY),
    Row("an echo reply that nobody asked for, to an instance of the VPC", ALL,
        lambda me: ip(me, GATEWAY_MAC, eth.ipv4(me.ip, "10.0.0.50", 1, bytes(8))), NOBODY),
    Row("an ICMP error about nothing, to an instance of the VPC", ALL,
        lambda me: ip(me, GATEWAY_MAC, eth.ipv4(me.ip, "10.0.0.50", 1, b"\3\4" + bytes(34))), NOBODY),
    Row("IPv6 by the gateway", ALL,
        lambda me: ip6(me, GATEWAY_MAC, eth.udp6(me.ip6, "2001:db8::1", (5000, 5000), b"")), NOBODY),
)  # fmt: skip

IPV6_ROWS = (
    Row("neighbour solicitation", ALL, lambda me: solicit(me, FAR, link=me.mac), EVERYBODY),
    Row("neighbour solicitation without a MAC, to one", ALL,
        lambda me: icmp6(me, NEIGHBOUR_SOLICITATION, eth.neighbour(NEIGHBOUR_SOLICITATION, FAR.ip6), FAR), _at(FAR)),
    Row("neighbour solicitation: I am at a neighbour's MAC", FILTERED_ONLY,
        lambda me: solicit(me, FAR, link=NEAR.mac), NOBODY),
    Row("neighbour solicitation from a neighbour's address", ONE_IP,
        lambda me: solicit(me, FAR, NEAR.ip6, me.mac), NOBODY),
    Row("duplicate address detection of its own address", ALL, lambda me: solicit(me, me, _UNSPECIFIED), EVERYBODY),
    Row("duplicate address detection of a neighbour's address", (FILTERED, MAC_FREE),
        lambda me: solicit(me, NEAR, _UNSPECIFIED), NOBODY),
    Row("duplicate address detection of a neighbour's address", (*ANY_IP, RAW),
        lambda me: solicit(me, NEAR, _UNSPECIFIED), EVERYBODY),
    Row("neighbour advertisement of its own address", ALL, lambda me: advertise(me, me, me.mac, NEAR), _at(NEAR)),
    Row("neighbour advertisement of its own address without a MAC", ALL,
        lambda me: advertise(me, me, "", NEAR), _at(NEAR)),
    Row("neighbour advertisement of its own address to all", ALL, lambda me: advertise(me, me, me.mac), EVERYBODY),
    Row("neighbour advertisement: a neighbour's address is at my MAC", (FILTERED, MAC_FREE),
        lambda me: advertise(me, NEAR, me.mac, FAR), NOBODY),
    Row("neighbour advertisement: a neighbour's address is at my MAC", ANY_IP,
        lambda me: advertise(me, NEAR, me.mac, FAR), _at(FAR)),
    Row("neighbour advertisement of a neighbour's address without a MAC", (FILTERED, MAC_FREE),
        lambda me: advertise(me, NEAR, "", FAR), NOBODY),
    Row("neighbour advertisement: my address is at a neighbour's MAC", FILTERED_ONLY,
        lambda me: advertise(me, me, NEAR.mac, FAR), NOBODY),
    Row("router solicitation", ALL, lambda me: icmp6(me, ROUTER_SOLICITATION, bytes(4)), EVERYBODY),
    Row("router advertisement", USUAL, lambda me: icmp6(me, ROUTER_ADVERTISEMENT, eth.router()), NOBODY),
    Row("router advertisement", RAW_ONLY, lambda me: icmp6(me, ROUTER_ADVERTISEMENT, eth.router()), EVERYBODY),
    Row("router advertisement to one: no router any more", USUAL,
        lambda me: icmp6(me, ROUTER_ADVERTISEMENT, eth.router(0), FAR), NOBODY),
    Row("router advertisement behind destination options", USUAL,
        lambda me: ip6(me, ALL_NODES_MAC, eth.ipv6(
            me.ip6, ALL_NODES, 60, options(58) + message(me, ROUTER_ADVERTISEMENT, eth.router()))), NOBODY),
    Row("router advertisement, whole in a first fragment", USUAL,
        lambda me: fragmented(me, 58, message(me, ROUTER_ADVERTISEMENT, eth.router()), more=0), NOBODY),
    Row("router advertisement that begins in the second fragment", USUAL,
        lambda me: fragmented(me, 60, options(58)), NOBODY),
    Row("redirect", USUAL, lambda me: icmp6(me, REDIRECT, eth.redirected(me.ip6, "2001:db8::1"), FAR), NOBODY),
    Row("redirect", RAW_ONLY, lambda me: icmp6(me, REDIRECT, eth.redirected(me.ip6, "2001:db8::1"), FAR), _at(FAR)),
    Row("DHCPv6 request", ALL,
        lambda me: ip6(me, "33:33:00:01:00:02", eth.udp6(me.ip6, "ff02::1:2", (546, 547), b"")), EVERYBODY),
    Row("DHCPv6 answer", USUAL, lambda me: ip6(me, FAR, eth.udp6(me.ip6, FAR.ip6, (547, 546), b"")), NOBODY),
    Row("DHCPv6 answer", RAW_ONLY, lambda me: ip6(me, FAR, eth.udp6(me.ip6, FAR.ip6, (547, 546), b"")), _at(FAR)),
    Row("report of multicast groups (MLD)", ALL, lambda me: icmp6(me, 143, bytes(4)), EVERYBODY),
    Row("report of multicast groups before it has an address", ALL,
        lambda me: icmp6(me, 143, bytes(4), source=_UNSPECIFIED), EVERYBODY),
    Row("echo request", ALL, lambda me: icmp6(me, 128, bytes(4), FAR), _at(FAR)),
    Row("echo request, first fragment", ALL, lambda me: fragmented(me, 58, message(me, 128, bytes(4))), EVERYBODY),
    Row("echo request, last fragment", ALL, lambda me: fragmented(me, 58, bytes(16), offset=8, more=0), EVERYBODY),
    Row("router advertisement, first fragment", USUAL,
        lambda me: fragmented(me, 58, message(me, ROUTER_ADVERTISEMENT, eth.router())), NOBODY),
    Row("DHCPv6 answer that begins in the second fragment", USUAL,
        lambda me: fragmented(me, 60, options(17)), NOBODY),
    Row("DHCPv6 answer, first fragment", USUAL, lambda me: fragmented(me, 17, udp6_head(547, 546)), NOBODY),
    Row("fragment whose headers nobody can read", USUAL,
        lambda me: fragmented(me, 60, bytes([58, 9]) + bytes(14)), NOBODY),
    Row("fragment of UDP over IPv6", ALL, lambda me: fragmented(me, 17, udp6_head(5000, 5000)), EVERYBODY),
    Row("UDP over IPv6", ALL, lambda me: ip6(me, FAR, eth.udp6(me.ip6, FAR.ip6, (5000, 5000), b"")), _at(FAR)),
    Row("UDP over IPv6 from a neighbour's address", ONE_IP,
        lambda me: ip6(me, FAR, eth.udp6(NEAR.ip6, FAR.ip6, (5000, 5000), b"")), NOBODY),
)  # fmt: skip


def _other(what: str, to: str, kind: int, payload: bytes = bytes(40)) -> tuple[Row, Row]:
    """Two rows: a frame that no usual host sends passes on a network with AWS_RAW_ETHERNET only."""
    arrives = EVERYBODY if int(to[:2], 16) & 1 else _at(FAR)
    return (
        Row(what, USUAL, lambda me: eth.ethernet(to, me.mac, kind, payload), NOBODY),
        Row(what, RAW_ONLY, lambda me: eth.ethernet(to, me.mac, kind, payload), arrives),
    )


def tagged_udp(me: Nic, source: str, vlan: int, kind: int = 0x8100) -> bytes:
    """UDP in a frame with a VLAN tag."""
    return eth.tagged(ip(me, FAR, udp(source, FAR.ip)), vlan, kind)


_SNAP = bytes.fromhex("aaaa03 00000c 2000")
ETHERNET_ROWS = (
    Row("UDP with a VLAN tag", USUAL, lambda me: tagged_udp(me, me.ip, 100), NOBODY),
    Row("UDP with a VLAN tag", RAW_ONLY, lambda me: tagged_udp(me, me.ip, 100), _at(FAR)),
    Row("UDP with a priority tag", USUAL, lambda me: tagged_udp(me, me.ip, 0), NOBODY),
    Row("UDP with a service tag (802.1ad)", USUAL, lambda me: tagged_udp(me, me.ip, 100, 0x88A8), NOBODY),
    Row("UDP with two VLAN tags", USUAL, lambda me: eth.tagged(tagged_udp(me, me.ip, 100), 200), NOBODY),
    Row("UDP with a VLAN tag, from a neighbour's address", ONE_IP, lambda me: tagged_udp(me, NEAR.ip, 100), NOBODY),
    Row("ARP with a VLAN tag: the gateway is at my MAC", ALL,
        lambda me: eth.tagged(arp(me, ARP_REPLY, (me.mac, GATEWAY), (FAR.mac, FAR.ip), FAR.mac), 100), NOBODY),
    *_other("spanning tree (BPDU)", "01:80:c2:00:00:00", 38, bytes.fromhex("424203") + bytes(40)),
    *_other("spanning tree of Cisco (PVST+)", "01:00:0c:cc:cc:cd", 50, _SNAP + bytes(42)),
    *_other("LACP", "01:80:c2:00:00:02", 0x8809),
    *_other("EAPOL", "01:80:c2:00:00:03", 0x888E),
    *_other("EAPOL to a guest", FAR.mac, 0x888E),
    *_other("LLDP", "01:80:c2:00:00:0e", 0x88CC),
    *_other("CDP", "01:00:0c:cc:cc:cc", 50, _SNAP + bytes(42)),
    *_other("PPPoE discovery", BROADCAST, 0x8863),
    *_other("MPLS", FAR.mac, 0x8847, bytes.fromhex("00010140") + bytes(40)),
    *_other("an ethertype for experiments", FAR.mac, 0x88B5),
    *_other("CFM, by which switches look for each other", "01:80:c2:00:00:30", 0x8902),
    Row("UDP to a group of bridges", USUAL, lambda me: ip(me, "01:80:c2:00:00:0e", udp(me.ip, FAR.ip)), NOBODY),
    Row("another ethertype from a neighbour's MAC", ALL,
        lambda me: eth.ethernet(FAR.mac, NEAR.mac, 0x88B5, bytes(40)), NOBODY),
)  # fmt: skip

ROWS = (*ARP_ROWS, *SOURCE_ROWS, *IPV4_ROWS, *OUTWARD_ROWS, *IPV6_ROWS, *ETHERNET_ROWS)
