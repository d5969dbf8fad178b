"""Links, neighbours, routes and rules: items of the kernel's state, read and changed over netlink.

What needs a link that is not there reports nothing: the link does.
"""

from __future__ import annotations

import _socket as socket  # the module `socket` adds 2 ms to the start of every driver call
import struct
import sys
from typing import NamedTuple

from ..addresses import ip_to_int
from ..errors import AwsOvsError
from ..names import MOST_ENIS, ROUTE_TABLE
from . import netlink
from .netlink import Address, Entry, attribute, attributes, index

_ONLINK, _PERMANENT, _UP = 4, 0x80, 1
_STATIC, _UNICAST, _TO_TABLE, _ON_LINK = 4, 1, 1, 253
_LINK, _NEIGHBOUR, _ROUTE, _ADDRESS = (struct.Struct(form) for form in ("=BxHiII", "=BxxxiHBB", "=BBBBBBBBI", "=BBBBI"))
"""struct ifinfomsg, ndmsg, rtmsg (and fib_rule_hdr), and ifaddrmsg."""
_DST, _SRC, _IIF, _OIF, _GATEWAY, _PRIORITY, _METRICS, _MARK, _TABLE, _MARK_MASK = 1, 2, 3, 4, 5, 6, 8, 10, 15, 16
"""Attributes of routes, rules and neighbours."""
_METRIC_MTU = 2
_LINK_MTU = 4
_LLADDR, _NEIGHBOUR_IFINDEX = 2, 8
_ADDRESS_OF, _LOCAL = 1, 2
_SELECTS_NOTHING = {14, 21}
"""Attributes of a rule that select no packets: what every rule has (FRA_SUPPRESS_PREFIXLEN), and who made it."""
_IFNAME, _LINKINFO, _KIND, _DATA, _VXLAN_PORT = 3, 18, 1, 2, 15
"""Attributes of a link, and of those that are in others."""


class Link(NamedTuple):
    """An interface of the overlay bridge, or a further ENI, which must be up, and have `mtu` at least."""

    name: str
    mtu: int = 0

    def difference(self) -> str:
        if not index(self.name):
            return f"interface {self.name} is not there"
        if not int(_read(self.name, "flags"), 16) & _UP:
            return f"interface {self.name} is down"
        mtu = int(_read(self.name, "mtu")) if self.mtu else 0
        return f"interface {self.name} has MTU {mtu}, less than {self.mtu}" if mtu < self.mtu else ""

    def repair(self) -> None:
        number = index(self.name)
        if not number:
            what = f"interface {self.name} of the overlay bridge is not there"
            raise AwsOvsError(what, "see journalctl -u ovs-vswitchd")
        more = attribute(_LINK_MTU, self.mtu) if self.mtu else b""
        netlink.change(netlink.NEW_LINK, _LINK.pack(0, 0, number, _UP, _UP), more)


def _read(name: str, what: str) -> str:
    try:
        with open(f"/sys/class/net/{name}/{what}", encoding="ascii") as file:
            return file.read()
    except OSError:  # it has just gone
        return "0"


class Primary(NamedTuple):
    """The primary address of a further ENI, by which it asks the VPC for MACs; whoever has configured it."""

    link: str
    address: str

    def difference(self) -> str:
        if any(entry.address == self.address for entry in netlink.addresses()):
            return ""
        return f"interface {self.link} does not have the address {self.address} of its ENI"

    def repair(self) -> None:
        head = _ADDRESS.pack(socket.AF_INET, 32, 0, 0, index(self.link))  # so that it brings no route along
        value = _bytes(self.address)
        more = attribute(_LOCAL, value) + attribute(_ADDRESS_OF, value)
        netlink.change(netlink.NEW_ADDRESS, head, more, create=True)


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
    """A route to a prefix by a next hop, or to what is on the link itself; with an MTU, or that of the link."""

    what: str
    table: int
    prefix: str
    link: str
    next_hop: str = ""
    mtu: int = 0

    def difference(self) -> str:
        number = index(self.link)
        if not number or any(self._is_right(route, number) for route in _routes(self.table)):
            return ""
        return f"the {self.what} does not lead to {self.link}" + (f" with MTU {self.mtu}" if self.mtu else "")

    def _is_right(self, route: Entry, number: int) -> bool:
        metrics = attributes(route.attributes.get(_METRICS, b""))
        return (
            (route.ip(_DST) or "0.0.0.0", route.head[1]) == _split(self.prefix)
            and route.number(_OIF) == number
            and (route.ip(_GATEWAY) or "") == self.next_hop
            and (Entry(b"", metrics).number(_METRIC_MTU) or 0) == self.mtu
        )

    def repair(self) -> None:
        address, length = _split(self.prefix)
        scope, flags = (0, _ONLINK) if self.next_hop else (_ON_LINK, 0)
        head = _ROUTE.pack(socket.AF_INET, length, 0, 0, 0, _STATIC, scope, _UNICAST, flags)
        way = attribute(_OIF, index(self.link)) + attribute(_TABLE, self.table)
        way += attribute(_GATEWAY, _bytes(self.next_hop)) if self.next_hop else b""
        way += attribute(_METRICS, attribute(_METRIC_MTU, self.mtu)) if self.mtu else b""
        to = attribute(_DST, _bytes(address)) if length else b""
        netlink.change(netlink.NEW_ROUTE, head, to + way, create=True)


def _routes(table: int) -> list[Entry]:
    head = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
    return netlink.ask(netlink.ROUTES, head, choice=attribute(_TABLE, table))


class Rule(NamedTuple):
    """A policy rule that leads to a table: for packets from a link to a prefix or with a mark, or from a source address."""

    table: int
    link: str = ""
    prefix: str = ""
    mark: int = 0
    source: str = ""

    def __str__(self) -> str:
        if self.source:
            return f"one for packets from {self.source}"
        return f"one for {self.prefix or f'mark {self.mark}'} from {self.link}"

    def key(self, priority: int) -> tuple[int, int, dict[int, bytes]]:
        """Write it as `_key` reads one of the kernel's."""
        address, length = _split(self.prefix or "0.0.0.0/0")
        values = {_TABLE: _number(self.table), _PRIORITY: _number(priority)}
        values |= {_IIF: self.link.encode() + b"\0"} if self.link else {}
        values |= {_DST: _bytes(address)} if length else {}
        values |= {_MARK: _number(self.mark), _MARK_MASK: _number(0xFFFFFFFF)} if self.mark else {}
        values |= {_SRC: _bytes(self.source)} if self.source else {}
        return length, 32 if self.source else 0, values


def _key(rule: Entry) -> tuple[int, int, dict[int, bytes]]:
    """Read what a rule selects, and where it leads: lengths of its destination and source, and its attributes."""
    values = {kind: value for kind, value in rule.attributes.items() if kind not in _SELECTS_NOTHING}
    return rule.head[1], rule.head[2], values


class Rules(NamedTuple):
    """The only rules that lead to the driver's tables."""

    priority: int
    rules: tuple[Rule, ...]

    def difference(self) -> str:
        surplus, missing = self._compare()
        tables = {rule.number(_TABLE) or 0 for rule in surplus} | {rule.table for rule in missing}
        return ", ".join(map(self._wrong, sorted(tables)))

    def _wrong(self, table: int) -> str:
        wanted = " and ".join(str(rule) for rule in self.rules if rule.table == table)
        if not wanted:
            return f"there are policy rules for table {table}, but no such ENI"
        return f"the policy rules for table {table} are not {wanted} with priority {self.priority}"

    def _compare(self) -> tuple[list[Entry], list[Rule]]:
        """Find the rules that should not be there, twice the same among them, and those that are missing."""
        missing, surplus = list(self.rules), []
        for rule in self._there():
            wanted = next((one for one in missing if one.key(self.priority) == _key(rule)), None)
            if wanted:
                missing.remove(wanted)
            else:
                surplus.append(rule)
        return surplus, missing

    def _there(self) -> list[Entry]:
        """List the rules for our tables, and those that we made for an ENI that the node has no more."""
        tables = {rule.table for rule in self.rules}
        of_enis = range(ROUTE_TABLE + 1, ROUTE_TABLE + 1 + MOST_ENIS)
        head = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        return [
            rule
            for rule in netlink.ask(netlink.RULES, head)
            if rule.number(_TABLE) in tables
            or (rule.number(_TABLE) in of_enis and rule.number(_PRIORITY) == self.priority)
        ]

    def repair(self) -> None:
        """Add what is missing last: what deletes a rule can hit another one that has a selector more."""
        while surplus := self._compare()[0]:
            each = (attribute(kind, value) for kind, value in surplus[0].attributes.items())
            netlink.change(netlink.DELETE_RULE, surplus[0].head, b"".join(each))
        for rule in self._compare()[1]:
            to, source, values = rule.key(self.priority)
            head = _ROUTE.pack(socket.AF_INET, to, source, 0, 0, 0, 0, _TO_TABLE, 0)
            more = b"".join(attribute(kind, value) for kind, value in values.items())
            netlink.change(netlink.NEW_RULE, head, more, create=True)


def _number(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)


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
