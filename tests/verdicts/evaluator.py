"""What security groups mean: whether a packet passes, written from OpenNebula's semantics.

Nothing here comes from the driver, so that the two cannot share a mistake. The steps are those of a NIC in their
order, of which the first that says anything decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address

from tests.verdicts.cases import (
    ADDRESSES_4,
    ADDRESSES_6,
    DROP,
    ESP,
    ICMP,
    ICMPV6,
    IN,
    OUT,
    PASS,
    TCP,
    UDP,
    Case,
    Packet,
    named_groups,
)

Attributes = Mapping[str, str]

_DISCOVERY = {OUT: (133, 135, 136), IN: (135, 136)}
"""Types of ICMPv6 that no group filters: router solicitations, neighbour solicitations and advertisements."""
_ROUTERS_ONLY = (134, 137)
"""Router advertisements and redirects. Guests may not send them, so none gets them from another guest either."""
_BLOCKS = ("IP", "IP6", "IP6_GLOBAL", "IP6_ULA")
_NUMBERS = {"TCP": TCP, "UDP": UDP, "ICMP": ICMP, "ICMPV6": ICMPV6, "IPSEC": ESP}
_DIRECTIONS = {"INBOUND": IN, "OUTBOUND": OUT}


def verdict(case: Case) -> str:
    """Say what becomes of the packet of a case.

    With `reply` it is the answer that counts: it passes when the packet does, for it is of an established connection.
    """
    passed = passes(case.groups, case.nic, case.aliases, case.packet)
    return PASS if passed else DROP


def passes(
    groups: Mapping[str, Sequence[Attributes]], nic: Attributes, aliases: Sequence[Attributes], packet: Packet
) -> bool:
    """Tell whether a packet that belongs to no connection passes.

    Args:
        groups: the rules of each group, by its ID.
        nic: the NIC's attributes.
        aliases: those of its aliases, whose groups do not count.
        packet: the packet.
    """
    if packet.direction == OUT and nic.get("FILTER_IP_SPOOFING", "").upper() != "NO":
        own = {_normal(address) for element in (nic, *aliases) for address in _addresses(element)}
        if packet.local not in own:
            return False
    if packet.protocol == ICMPV6 and packet.type in _ROUTERS_ONLY:
        return False
    if packet.protocol == ICMPV6 and packet.type in _DISCOVERY[packet.direction]:
        return True
    names = named_groups(nic)
    return not names or any(accepts(rule, packet) for name in names for rule in groups.get(name, ()))


def accepts(rule: Attributes, packet: Packet) -> bool:
    """Tell whether one rule accepts a packet."""
    return (
        _DIRECTIONS[rule["RULE_TYPE"].strip().upper()] == packet.direction
        and _protocol_fits(rule["PROTOCOL"].strip().upper(), rule, packet)
        and _net_fits(rule, packet.remote)
    )


def _protocol_fits(name: str, rule: Attributes, packet: Packet) -> bool:
    if name == "ALL":
        return True
    if packet.protocol != _NUMBERS[name]:
        return False
    if name in ("TCP", "UDP"):
        return not rule.get("RANGE") or _in_range(rule["RANGE"], packet.port)
    if name == "ICMP":
        return packet.version == 4 and rule.get("ICMP_TYPE", "") in ("", str(packet.type))
    if name == "ICMPV6":
        return packet.version == 6 and rule.get("ICMPV6_TYPE", "") in ("", str(packet.type))
    return True


def _in_range(text: str, port: int) -> bool:
    for part in text.split(","):
        first, _, last = part.partition(":")
        if int(first) <= port <= int(last or first):
            return True
    return False


def _net_fits(rule: Attributes, remote: str) -> bool:
    """Tell whether the remote address is in the rule's net; a rule of an address range may have a block a family."""
    starts = [ip_address(rule[name].strip()) for name in _BLOCKS if rule.get(name)]
    if not starts:
        return True
    address, size = ip_address(remote), int(rule["SIZE"])
    return any(start.version == address.version and int(start) <= int(address) < int(start) + size for start in starts)


def _addresses(element: Attributes) -> list[str]:
    names = (*ADDRESSES_4, *ADDRESSES_6, "VROUTER_IP")
    return [value for name, value in element.items() if value and (name in names or name.startswith("VROUTER_IP6"))]


def _normal(address: str) -> str:
    return str(ip_address(address))
