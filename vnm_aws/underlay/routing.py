"""Links, neighbours, routes and rules: items of the kernel's state, read and changed over netlink.

What needs a link that is not there reports nothing: the link does.
"""

from __future__ import annotations

import _socket as socket  # the module `socket` adds 2 ms to the start of every driver call
import struct
from typing import NamedTuple

from ..addresses import ip_to_int
from ..errors import AwsOvsError
from . import netlink
from .netlink import Address, Entry, attribute, attributes, index

_ONLINK, _PERMANENT, _UP = 4, 0x80, 1
_STATIC, _UNICAST, _TO_TABLE = 4, 1, 1
_LINK, _NEIGHBOUR, _ROUTE, _ADDRESS = (struct.Struct(form) for form in ("=BxHiII", "=BxxxiHBB", "=BBBBBBBBI", "=BBBBI"))
"""struct ifinfomsg, ndmsg, rtmsg (and fib_rule_hdr), and ifaddrmsg."""
_DST, _IIF, _OIF, _GATEWAY, _PRIORITY, _METRICS, _TABLE = 1, 3, 4, 5, 6, 8, 15
"""Attributes of routes, rules and neighbours."""
_METRIC_MTU = 2
_LLADDR, _NEIGHBOUR_IFINDEX = 2, 8
_LOCAL = 2
_SELECTS_NOTHING = {14, 21}
"""Attributes of a rule that select no packets: what every rule has (FRA_SUPPRESS_PREFIXLEN), and who made it."""
_IFNAME, _LINKINFO, _KIND, _DATA, _VXLAN_PORT = 3, 18, 1, 2, 15
"""Attributes of a link, and of those that are in others."""


class Link(NamedTuple):
    """An interface of the overlay bridge, which must be up."""

    name: str

    def difference(self) -> str:
        if not index(self.name):
            return f"interface {self.name} is not there"
        return "" if _flags(self.name) & _UP else f"interface {self.name} is down"

    def repair(self) -> None:
        number = index(self.name)
        if not number:
            what = f"interface {self.name} of the overlay bridge is not there"
            raise AwsOvsError(what, "see journalctl -u ovs-vswitchd")
        netlink.change(netlink.NEW_LINK, _LINK.pack(0, 0, number, _UP, _UP))


def _flags(name: str) -> int:
    try:
        with open(f"/sys/class/net/{name}/flags", encoding="ascii") as file:
            return int(file.read(), 16)
    except OSError:  # it has just gone
        return 0


class Neighbour(NamedTuple):
    """The MAC of a next hop, for ever."""

    link: str
    address: str
    mac: str

    def difference(self) -> str:
        number = index(self.link)
        if not number or any(map(self._is_right, _neighbours(number))):
            return ""
        what = f"the neighbour {self.address} of {self.link}"
        return f"{what} is not there, not permanent, or has not the gateway's MAC {self.mac}"

    def _is_right(self, neighbour: Entry) -> bool:
        _, _, state, _, _ = _NEIGHBOUR.unpack(neighbour.head)
        mac = neighbour.attributes.get(_LLADDR, b"").hex(":")
        return state == _PERMANENT and neighbour.ip(_DST) == self.address and mac == self.mac

    def repair(self) -> None:
        head = _NEIGHBOUR.pack(socket.AF_INET, index(self.link), _PERMANENT, 0, 0)
        mac = attribute(_LLADDR, bytes.fromhex(self.mac.replace(":", "")))
        netlink.change(netlink.NEW_NEIGHBOUR, head, attribute(_DST, _bytes(self.address)) + mac, create=True)


def _neighbours(number: int) -> list[Entry]:
    head = _NEIGHBOUR.pack(socket.AF_INET, 0, 0, 0, 0)
    return netlink.ask(netlink.NEIGHBOURS, head, choice=attribute(_NEIGHBOUR_IFINDEX, number))


class Route(NamedTuple):
    """A route to a prefix by a next hop, with an MTU."""

    what: str
    table: int
    prefix: str
    link: str
    next_hop: str
    mtu: int

    def difference(self) -> str:
        number = index(self.link)
        if not number or any(self._is_right(route, number) for route in _routes(self.table)):
            return ""
        return f"the {self.what} does not lead to {self.link} with MTU {self.mtu}"

    def _is_right(self, route: Entry, number: int) -> bool:
        metrics = attributes(route.attributes.get(_METRICS, b""))
        return (
            (route.ip(_DST) or "0.0.0.0", route.head[1]) == _split(self.prefix)
            and route.number(_OIF) == number
            and route.ip(_GATEWAY) == self.next_hop
            and Entry(b"", metrics).number(_METRIC_MTU) == self.mtu
        )

    def repair(self) -> None:
        address, length = _split(self.prefix)
        head = _ROUTE.pack(socket.AF_INET, length, 0, 0, 0, _STATIC, 0, _UNICAST, _ONLINK)
        way = attribute(_GATEWAY, _bytes(self.next_hop)) + attribute(_OIF, index(self.link))
        way += attribute(_METRICS, attribute(_METRIC_MTU, self.mtu)) + attribute(_TABLE, self.table)
        to = attribute(_DST, _bytes(address)) if length else b""
        netlink.change(netlink.NEW_ROUTE, head, to + way, create=True)


def _routes(table: int) -> list[Entry]:
    head = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
    return netlink.ask(netlink.ROUTES, head, choice=attribute(_TABLE, table))


class Rule(NamedTuple):
    """The only rule that leads to a route table, for packets from one link to one prefix."""

    table: int
    priority: int
    link: str
    prefix: str

    def difference(self) -> str:
        if [self._is_right(rule) for rule in self._rules()] == [True]:
            return ""
        wanted = f"one for {self.prefix} from {self.link} with priority {self.priority}"
        return f"the policy rules for table {self.table} are not {wanted}"

    def _rules(self) -> list[Entry]:
        head = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        return [rule for rule in netlink.ask(netlink.RULES, head) if rule.number(_TABLE) == self.table]

    def _is_right(self, rule: Entry) -> bool:
        address, length = _split(self.prefix)
        values = (rule.number(_PRIORITY), rule.text(_IIF), rule.ip(_DST), rule.head[1])
        selects = set(rule.attributes) - _SELECTS_NOTHING
        wanted = {_TABLE, _PRIORITY, _IIF, _DST}
        return selects == wanted and values == (self.priority, self.link, address, length)

    def repair(self) -> None:
        """Make it the only one: what deletes a rule can hit another that has a selector more, so all go."""
        while rules := self._rules():
            each = (attribute(kind, value) for kind, value in rules[0].attributes.items())
            netlink.change(netlink.DELETE_RULE, rules[0].head, b"".join(each))
        address, length = _split(self.prefix)
        head = _ROUTE.pack(socket.AF_INET, length, 0, 0, 0, 0, 0, _TO_TABLE, 0)
        selectors = attribute(_DST, _bytes(address)) + attribute(_IIF, self.link.encode() + b"\0")
        what = attribute(_PRIORITY, self.priority) + attribute(_TABLE, self.table)
        netlink.change(netlink.NEW_RULE, head, selectors + what, create=True)


def _split(prefix: str) -> tuple[str, int]:
    address, _, length = prefix.partition("/")
    return address, int(length)


def _bytes(address: str) -> bytes:
    return ip_to_int(address).to_bytes(4, "big")


def remove(address: Address) -> None:
    """Take an address from an interface."""
    head = _ADDRESS.pack(socket.AF_INET, address.prefix_length, 0, 0, index(address.interface))
    netlink.change(netlink.DELETE_ADDRESS, head, attribute(_LOCAL, _bytes(address.address)))


def vxlan_devices(port: int) -> list[str]:
    """List the kernel's own VXLAN devices on a UDP port, without those of Open vSwitch's kernel datapath."""
    names = []
    for link in netlink.ask(netlink.LINKS, _LINK.pack(0, 0, 0, 0, 0)):
        about = attributes(link.attributes.get(_LINKINFO, b""))
        on_port = attributes(about.get(_DATA, b"")).get(_VXLAN_PORT, b"") == port.to_bytes(2, "big")
        if about.get(_KIND, b"").rstrip(b"\0") == b"vxlan" and on_port:
            names.append(link.text(_IFNAME) or "")
    return [name for name in names if not name.startswith("vxlan_sys_")]
