"""Finds this node's ways into the VPC: the ENI's name, address, subnet and MTU, asked of the kernel in microseconds.

A node may have further ENIs, for the private addresses of more VMs than the first has room for. The front-end tells which;
the first carries all else.
"""

from __future__ import annotations

import _socket as socket  # the module `socket` adds 2 ms to the start of every driver call
import contextlib
import fcntl
import struct
import sys
from collections.abc import Collection, Iterable
from typing import NamedTuple

from .. import mtu
from ..addresses import Prefix, int_to_ip
from ..errors import AwsOvsError
from ..names import GATEWAY_PORT, ROUTE_TABLE
from . import netlink

_SIOCGIFADDR, _SIOCGIFNETMASK, _SIOCGIFMTU = 0x8915, 0x891B, 0x8921


_WITHOUT_COUNTERS = netlink.attribute(29, 8)
"""IFLA_EXT_MASK: RTEXT_FILTER_SKIP_STATS; the counters of links are most of what the kernel tells of them."""


class Further(NamedTuple):
    """A further ENI, as the front-end has told it.

    Attributes:
        number: 2 for the first of them, 3, …
        mac: its MAC.
        address: its primary address.
        subnet: that of its addresses.
        interface: the name that it has here; empty when no interface of this node has its MAC.
    """

    number: int
    mac: str
    address: str
    subnet: str
    interface: str = ""


class Card(NamedTuple):
    """An ENI that the node has, the first one among them.

    Attributes:
        table: the route table of what leaves by it, and the mark of the packets of VMs that do.
    """

    table: int
    interface: str
    address: str
    subnet: str

    @property
    def router(self) -> str:
        """Compute the address of the VPC's router: the first of each subnet."""
        return int_to_ip(Prefix(self.subnet, "subnet").first + 1)


class Underlay(NamedTuple):
    """The interface that carries the tunnels, and the further ENIs."""

    interface: str
    address: str
    subnet: str
    mtu: int
    further: tuple[Further, ...] = ()

    @property
    def cards(self) -> list[Card]:
        """List the ENIs that are there, the first one first."""
        there = [Further(1, "", self.address, self.subnet, self.interface), *self.further]
        return [
            Card(ROUTE_TABLE + eni.number, eni.interface, eni.address, eni.subnet) for eni in there if eni.interface
        ]

    @property
    def addresses(self) -> set[str]:
        """Collect the primary addresses of all ENIs, which are the node's."""
        return {self.address, *(eni.address for eni in self.further)}

    def guest_mtu(self, internet_mtu: int, leaves: bool) -> int:
        """Compute the largest MTU that a guest may use; see `mtu.for_guests`."""
        return mtu.for_guests(self.mtu, internet_mtu, leaves)


def find(interface: str, told: Iterable[tuple[str, str, str]] = ()) -> Underlay:
    """Find the underlay of this node: the interface of that name, or for `auto` the one of the default route.

    Args:
        interface: the name, or `auto`.
        told: MAC, primary address and subnet of each further ENI.

    Raises:
        AwsOvsError: there is none, or it has no IPv4 address.
    """
    further = _further(list(told))
    name = _default_interface({eni.interface for eni in further}) if interface == "auto" else interface
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as control:
        try:
            address = _ask(control, name, _SIOCGIFADDR)[4:8]
            mask = _ask(control, name, _SIOCGIFNETMASK)[4:8]
            link_mtu = struct.unpack_from("=i", _ask(control, name, _SIOCGIFMTU))[0]
        except OSError as error:
            what = f"the underlay interface {name} has no IPv4 address ({error.strerror})"
            raise AwsOvsError(what, "configure it, or set underlay_interface in aws_ovs.yaml") from None
    own, netmask = int.from_bytes(address, "big"), int.from_bytes(mask, "big")
    return Underlay(name, int_to_ip(own), f"{int_to_ip(own & netmask)}/{netmask.bit_count()}", link_mtu, further)


def _further(told: list[tuple[str, str, str]]) -> tuple[Further, ...]:
    """Find the interfaces of further ENIs, first by their addresses: a list of all links takes long where there are many VMs."""
    interfaces = {entry.address: entry.interface for entry in netlink.addresses()} if told else {}
    names = {mac: interfaces[address] for mac, address, _ in told if _mac(interfaces.get(address, "")) == mac}
    for _ in range(2):  # while links come and go, the kernel may leave one out
        if any(mac not in names for mac, _, _ in told):
            names = _names() | names
    return tuple(Further(number, *eni, names.get(eni[0], "")) for number, eni in enumerate(told, 2))


def _mac(interface: str) -> str:
    try:
        with open(f"/sys/class/net/{interface}/address", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _names() -> dict[str, str]:
    """List the interfaces by their MACs: of several with one the oldest, for others are built upon it."""
    links = netlink.ask(netlink.LINKS, bytes(16), choice=_WITHOUT_COUNTERS)
    links.sort(key=_index, reverse=True)
    return {link.attributes.get(1, b"").hex(":"): link.text(3) or "" for link in links}  # IFLA_ADDRESS, IFLA_IFNAME


def _index(link: netlink.Entry) -> int:
    return int.from_bytes(link.head[4:8], sys.byteorder)  # ifi_index


def _ask(control: socket.socket, name: str, request: int) -> bytes:
    """Ask the kernel for one thing of an interface."""
    return fcntl.ioctl(control.fileno(), request, struct.pack("16s24x", name.encode()[:15]))[16:]


class Way(NamedTuple):
    """A route of table `main`: to `prefix_length` bits of `first`, through an interface."""

    interface: str
    first: int
    prefix_length: int
    metric: int

    def __str__(self) -> str:
        return f"{int_to_ip(self.first)}/{self.prefix_length}"


def _ways() -> list[Way]:
    """Read the routes of table `main`."""
    with open("/proc/net/route", encoding="ascii") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return [Way(row[0], _bits(row[1]), _bits(row[7]).bit_count(), int(row[6])) for row in rows if len(row) > 7]


def _bits(text: str) -> int:
    """Read an address, which the kernel prints as a number of this machine's byte order."""
    return int.from_bytes(int(text, 16).to_bytes(4, sys.byteorder), "big")


def _default_interface(further: Collection[str]) -> str:
    """Name the interface of the default route with the smallest metric that is none of the further ENIs."""
    ways = [way for way in _ways() if way.prefix_length == 0 and way.interface not in further]
    defaults = [(way.metric, way.interface) for way in ways]
    if not defaults:
        raise AwsOvsError("this node has no default route to find its ENI by", "set underlay_interface in aws_ovs.yaml")
    return min(defaults)[1]


def refuse_overlap(transit: Prefix, underlay: Underlay, blocks: Iterable[str], is_set_up: bool) -> None:
    """Refuse a transit_range that has addresses in it to which this node has another way already.

    Args:
        transit: the transit_range; its route would take their way.
        underlay: this node's ENI.
        blocks: the CIDR blocks of the VPC, as far as they are known.
        is_set_up: whether the driver has made its own route; the same route to elsewhere is that one, changed.

    Raises:
        AwsOvsError: they overlap.
    """
    known = [(f"the subnet {underlay.subnet} of {underlay.interface}", underlay.subnet)]
    known += [(f"the block {block} of the VPC", block) for block in blocks]
    for way in _ways():
        is_default = way.prefix_length < 2  # some VPNs halve it, to win over the other one
        is_own = way.interface == GATEWAY_PORT or (is_set_up and way.metric == 0 and str(way) == str(transit))
        if not is_default and not is_own:
            known.append((f"this node's route to {way} by {way.interface}", str(way)))
    for what, prefix in known:
        if transit.overlaps(Prefix(prefix, what)):
            remedy = "set it in aws_ovs.yaml to a network that nobody here has, and run 'onehost sync -f'"
            raise AwsOvsError(f"transit_range {transit} overlaps {what}", remedy)


def is_local(address: str) -> bool:
    """Tell whether the kernel of this node has `address` on an interface.

    To bind a socket to it is the way to ask. Where net.ipv4.ip_nonlocal_bind is set, that works with any address and says
    nothing; then the answer is no.
    """
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    with open("/proc/sys/net/ipv4/ip_nonlocal_bind", encoding="ascii") as setting:
        return setting.read().strip() == "0"
