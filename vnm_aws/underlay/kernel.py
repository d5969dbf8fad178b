"""The static way between the ENI and the overlay bridge in this node's kernel; nothing of it depends on VMs.

A packet that reaches the ENI for an address of its subnet that is not the node's own is for a VM: a policy
rule sends it to aws_gw, an internal port of the overlay bridge. What comes out of aws_gw is routed to the ENI, behind
the node's own address where its source is a transit address. A node with further ENIs has that for each of them, and what
leaves does so by the ENI that has its source address, for AWS drops all else.

All of it is one list of items. Each knows whether it is right and how to make it right. `ensure` and `differences` walk
the same list, so that what the one repairs is what the other reports. To look costs a millisecond, so that a VM's
start can do it, and so does a repair; only the nft tables take 10 to compare, and 200 to load.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import NamedTuple, Protocol

from ..addresses import Prefix
from ..config import Config
from ..errors import AwsOvsError
from ..names import GATEWAY_PORT, REPAIR_PORT, ROUTE_TABLE, RULE_PRIORITY
from . import netlink
from .eni import Card, Underlay
from .nft import Tables, ruleset
from .routing import Link, Neighbour, Primary, Route, Rule, Rules

_NEXT_HOP = "169.254.87.1"
"""An address that nothing has: the kernel needs a next hop on aws_gw to put into a MAC header."""
_MAIN_TABLE = 254
_CONNECTIONS = "net/netfilter/nf_conntrack_max"
_SHARES = 256
"""The connection table has room for so many addresses without an Elastic IP that have all that `connections_per_address` allows
them, and for as many NICs that have all that `connections_per_nic` allows them."""


class Item(Protocol):
    """One part of the kernel's state."""

    def difference(self) -> str:
        """Say what is not right; nothing when it is right."""

    def repair(self) -> None:
        """Make it right."""


def ensure(underlay: Underlay, settings: Config, of_vms: Collection[str] = (), tables: bool = True) -> list[str]:
    """Bring the node's kernel into the state that the overlay needs; what is right already stays untouched.

    Args:
        underlay: the node's ENI.
        settings: the configuration.
        of_vms: the private addresses of VMs, which are not the node's own even if an interface has them.
        tables: whether the nft tables, too.

    Returns:
        what was not right.

    Raises:
        AwsOvsError: the kernel or nft refuses something.
    """
    repaired = []
    for item in _items(underlay, settings, of_vms):
        if (tables or not isinstance(item, Tables)) and (what := item.difference()):
            item.repair()
            repaired.append(what)
    return repaired


def differences(underlay: Underlay, settings: Config, of_vms: Collection[str] = ()) -> list[str]:
    """Say what `ensure` would change.

    Raises:
        AwsOvsError: the kernel does not show its state.
    """
    return list(filter(None, (item.difference() for item in _items(underlay, settings, of_vms))))


def glance(underlay: Underlay, settings: Config) -> list[str]:
    """Say what `ensure` would change, without what is in the nft tables: whether these are there takes no time to see.

    Raises:
        AwsOvsError: the kernel does not show its state.
    """
    looks = (item.missing if isinstance(item, Tables) else item.difference for item in _items(underlay, settings, ()))
    return list(filter(None, (look() for look in looks)))


def _items(underlay: Underlay, settings: Config, of_vms: Collection[str]) -> list[Item]:
    """Declare the state, in the order in which it can be made: a link that goes up has no routes."""
    transit, mtu = settings.transit_range, underlay.guest_mtu(settings.internet_mtu, True)
    has_ipv6 = os.path.exists("/proc/sys/net/ipv6")
    default, to_transit = f"default route of table {ROUTE_TABLE}", f"route to {transit}"
    return [
        Link(GATEWAY_PORT),
        Link(REPAIR_PORT),
        Neighbour(GATEWAY_PORT, _NEXT_HOP, settings.gateway_mac),
        Route(default, ROUTE_TABLE, "0.0.0.0/0", GATEWAY_PORT, _NEXT_HOP, mtu),
        Route(to_transit, _MAIN_TABLE, transit, GATEWAY_PORT, _NEXT_HOP, mtu),
        *_ways(underlay),
        *(Setting(f"net/ipv4/conf/{card.interface}/forwarding", "1") for card in underlay.cards),
        Setting(f"net/ipv4/conf/{GATEWAY_PORT}/forwarding", "1"),
        # The way back to a VM's private address is aws_gw only for what came in on the ENI: loose is as strict as it
        # can be.
        Setting(f"net/ipv4/conf/{GATEWAY_PORT}/rp_filter", "2"),
        Setting(f"net/ipv4/conf/{GATEWAY_PORT}/send_redirects", "0"),
        *(Setting(f"net/ipv6/conf/{link}/disable_ipv6", "1") for link in (GATEWAY_PORT, REPAIR_PORT) if has_ipv6),
        Tables(ruleset(underlay, transit, settings.connections_per_address, _own(underlay, of_vms))),
        # After the tables: before there are such rules the kernel has no limit.
        ConnectionTable(_SHARES * (settings.connections_per_address + settings.connections_per_nic)),
        # A VM that has migrated has connections of which this kernel has not seen the beginning.
        Setting("net/netfilter/nf_conntrack_tcp_loose", "1"),
    ]


def _ways(underlay: Underlay) -> list[Item]:
    """Declare the ways between the overlay and each ENI; for the only one, table `main` has the way out.

    The MAC and the mark of a packet that leaves tell its ENI, see `nft.ruleset`.
    """
    cards = underlay.cards
    rules = [Rule(ROUTE_TABLE, card.interface, card.subnet) for card in cards]
    if len(cards) == 1:
        return [Rules(RULE_PRIORITY, tuple(rules))]
    for card in cards:
        rules += [Rule(card.table, GATEWAY_PORT, mark=card.table), Rule(card.table, source=card.address)]
    further = [
        item
        for card in cards[1:]
        for item in (Link(card.interface, underlay.mtu), Primary(card.interface, card.address))
    ]
    return [*further, *(item for card in cards for item in _way_out(card)), Rules(RULE_PRIORITY, tuple(rules))]


def _way_out(card: Card) -> list[Item]:
    """Declare what lets packets leave by one of several ENIs, and those come in that are for its addresses."""
    default, table = f"default route of table {card.table}", card.table
    settings = {
        # The way back to who sends is by the ENI of table `main`.
        "rp_filter": "2",
        # Each speaks for its own addresses only.
        "arp_ignore": "1",
        "arp_announce": "2",
    }
    return [
        Route(f"route of table {table} to {card.subnet}", table, card.subnet, card.interface),
        Route(default, table, "0.0.0.0/0", card.interface, card.router),
        *(Setting(f"net/ipv4/conf/{card.interface}/{key}", value) for key, value in settings.items()),
    ]


def _own(underlay: Underlay, of_vms: Collection[str]) -> list[str]:
    """List the addresses in the ENI's subnet by which the node itself may be reached."""
    subnet = Prefix(underlay.subnet, "subnet")
    here = {entry.address for entry in netlink.addresses() if entry.address in subnet}
    return sorted((here - set(of_vms)) | {address for address in underlay.addresses if address in subnet})


class Setting(NamedTuple):
    """A value under /proc/sys."""

    path: str
    value: str

    def difference(self) -> str:
        value = read_setting(self.path)
        if value == self.value:
            return ""
        return f"{self.path.replace('/', '.')} is {value or 'not there'} instead of {self.value}"

    def repair(self) -> None:
        _write(self.path, self.value)


class ConnectionTable(NamedTuple):
    """The size of the kernel's connection table; sysctl.d comes too early at boot to set it."""

    least: int

    def difference(self) -> str:
        if not os.access(f"/proc/sys/{_CONNECTIONS}", os.W_OK):  # in a container it is not for this machine to say
            return ""
        size = int(read_setting(_CONNECTIONS))
        return f"net.netfilter.nf_conntrack_max is {size}, less than {self.least}" if size < self.least else ""

    def repair(self) -> None:
        _write(_CONNECTIONS, str(self.least))


def read_setting(path: str) -> str:
    """Read a value under /proc/sys; empty when it is not there."""
    try:
        with open(f"/proc/sys/{path}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _write(path: str, value: str) -> None:
    try:
        with open(f"/proc/sys/{path}", "w", encoding="ascii") as file:
            file.write(value)
    except FileNotFoundError:
        raise AwsOvsError(f"/proc/sys/{path} is not there", "run 'aws-ovs restore' again") from None
    except OSError as error:
        raise AwsOvsError(f"/proc/sys/{path} cannot be set to {value} ({error.strerror})", "run as root") from None
