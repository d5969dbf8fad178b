"""Finds this node's way into the VPC: the ENI's name, address, subnet and MTU, asked of the kernel in microseconds."""

from __future__ import annotations

import _socket as socket  # the module `socket` adds 2 ms to the start of every driver call
import contextlib
import fcntl
import struct
from typing import NamedTuple

from .. import mtu
from ..addresses import int_to_ip
from ..errors import AwsOvsError

_SIOCGIFADDR, _SIOCGIFNETMASK, _SIOCGIFMTU = 0x8915, 0x891B, 0x8921


class Underlay(NamedTuple):
    """The interface that carries the tunnels."""

    interface: str
    address: str
    subnet: str
    mtu: int

    def guest_mtu(self, internet_mtu: int, leaves: bool) -> int:
        """Compute the largest MTU that a guest may use; see `mtu.for_guests`."""
        return mtu.for_guests(self.mtu, internet_mtu, leaves)


def find(interface: str) -> Underlay:
    """Find the underlay of this node: the interface of that name, or for `auto` the one of the default route.

    Raises:
        AwsOvsError: there is none, or it has no IPv4 address.
    """
    name = _default_interface() if interface == "auto" else interface
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as control:
        try:
            address = _ask(control, name, _SIOCGIFADDR)[4:8]
            mask = _ask(control, name, _SIOCGIFNETMASK)[4:8]
            link_mtu = struct.unpack_from("=i", _ask(control, name, _SIOCGIFMTU))[0]
        except OSError as error:
            what = f"the underlay interface {name} has no IPv4 address ({error.strerror})"
            raise AwsOvsError(what, "configure it, or set underlay_interface in aws_ovs.yaml") from None
    own, netmask = int.from_bytes(address, "big"), int.from_bytes(mask, "big")
    return Underlay(name, int_to_ip(own), f"{int_to_ip(own & netmask)}/{netmask.bit_count()}", link_mtu)


def _ask(control: socket.socket, name: str, request: int) -> bytes:
    """Ask the kernel for one thing of an interface."""
    return fcntl.ioctl(control.fileno(), request, struct.pack("16s24x", name.encode()[:15]))[16:]


def _default_interface() -> str:
    """Name the interface of the default route with the smallest metric."""
    with open("/proc/net/route", encoding="ascii") as table:
        routes = [line.split() for line in table]
    defaults = [(int(route[6]), route[0]) for route in routes if route[1:2] == ["00000000"] == route[7:8]]
    if not defaults:
        raise AwsOvsError("this node has no default route to find its ENI by", "set underlay_interface in aws_ovs.yaml")
    return min(defaults)[1]


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
