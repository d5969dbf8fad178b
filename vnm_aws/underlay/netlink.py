"""Ask the kernel over netlink for what it has, and change it: a fraction of a millisecond, where pyroute2 needs 170 to import.

The numbers are those of linux/rtnetlink.h, fib_rules.h and netfilter/nf_tables.h.
"""

from __future__ import annotations

import _socket as socket  # the module `socket` adds 2 ms to the start of every driver call
import contextlib
import os
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..addresses import int_to_ip
from ..errors import AwsOvsError

ROUTE, NETFILTER = 0, 12
"""Families of netlink: links, addresses, routes, rules and neighbours; and nftables."""
IPV4, NETDEV = 2, 5
"""Families of nft tables."""
LINKS, ADDRESSES, ROUTES, NEIGHBOURS, RULES, TABLES = 0x12, 0x16, 0x1A, 0x1E, 0x22, 0x0A01
"""Questions: RTM_GETLINK, …, NFT_MSG_GETTABLE."""
NEW_LINK, NEW_ADDRESS, DELETE_ADDRESS, NEW_ROUTE, NEW_NEIGHBOUR = 0x10, 0x14, 0x15, 0x18, 0x1C
NEW_RULE, DELETE_RULE = 0x20, 0x21
"""Changes: RTM_NEWLINK, …"""

_DUMP, _CHANGE, _REPLACE, _CREATE = 0x301, 0x5, 0x100, 0x400
_ERROR, _DONE = 2, 3
_SOL_NETLINK, _JOIN, _STRICT = 270, 1, 12
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_TYPE = 0x3FFF  # the two bits above tell of nesting and byte order


class Entry(NamedTuple):
    """One thing that the kernel has: its fixed part, and its attributes by number."""

    head: bytes
    attributes: dict[int, bytes]

    def number(self, attribute: int) -> int | None:
        """Read an attribute of 32 bits."""
        value = self.attributes.get(attribute)
        return int.from_bytes(value[:4], sys.byteorder) if value else None

    def ip(self, attribute: int) -> str | None:
        """Read an IPv4 address."""
        value = self.attributes.get(attribute)
        return int_to_ip(int.from_bytes(value, "big")) if value else None

    def text(self, attribute: int) -> str | None:
        """Read a name."""
        value = self.attributes.get(attribute)
        return value.rstrip(b"\0").decode(errors="replace") if value else None


def ask(question: int, head: bytes, family: int = ROUTE, choice: bytes = b"") -> list[Entry]:
    """List what the kernel has; fields of `head` that are not 0 and the attributes in `choice` choose.

    Raises:
        AwsOvsError: the kernel does not answer.
    """
    try:
        return _exchange(family, question, _DUMP, head, choice)
    except FileNotFoundError:  # there is no such route table
        return []
    except OSError as error:
        what = f"the kernel does not show its network over netlink ({error.strerror})"
        raise AwsOvsError(what, "run this as root, and see 'dmesg'") from None


def change(kind: int, head: bytes, more: bytes = b"", create: bool = False) -> None:
    """Change something; `create` makes what is not there, and replaces what is.

    Raises:
        AwsOvsError: the kernel refuses it.
    """
    try:
        _exchange(ROUTE, kind, _CHANGE | (_CREATE | _REPLACE if create else 0), head, more)
    except OSError as error:
        what = f"the kernel refused a change of the node's routes ({error.strerror})"
        raise AwsOvsError(what, "run 'aws-ovs restore' again as root, and see 'dmesg'") from None


def _socket(family: int) -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)


def listen(family: int, groups: Iterable[int]) -> socket.socket:
    """Open a socket on which the kernel tells of changes, each in a message of its groups; reading it waits for none."""
    link = _socket(family)
    link.bind((0, 0))
    for group in groups:
        link.setsockopt(_SOL_NETLINK, _JOIN, group)
    link.setblocking(False)
    return link


def _exchange(family: int, kind: int, flags: int, head: bytes, more: bytes) -> list[Entry]:
    """Send the kernel a message, and read what it answers."""
    body = head + more
    with contextlib.closing(_socket(family)) as link:
        if family == ROUTE:
            link.setsockopt(_SOL_NETLINK, _STRICT, 1)
        link.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)
        return list(_answer(link, len(head)))


def _answer(link: socket.socket, head: int) -> Iterator[Entry]:
    while True:
        data = link.recv(1 << 16)
        at = 0
        while at < len(data):
            length, kind, *_ = _HEADER.unpack_from(data, at)
            body = data[at + _HEADER.size : at + length]
            if kind == _DONE:
                return
            if kind == _ERROR:
                code = -int.from_bytes(body[:4], sys.byteorder, signed=True)
                if code:
                    raise OSError(code, os.strerror(code))
                return
            yield Entry(body[:head], attributes(body[head:]))
            at += (length + 3) & ~3


def attributes(data: bytes) -> dict[int, bytes]:
    """Read attributes that follow each other, by number."""
    found: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _TYPE] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


def attribute(kind: int, value: int | bytes) -> bytes:
    """Write an attribute: a number of 32 bits, or bytes."""
    data = value.to_bytes(4, sys.byteorder) if isinstance(value, int) else value
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)


def index(name: str) -> int:
    """Find the index of an interface; 0 when it is not there."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


class Address(NamedTuple):
    """An IPv4 address of this node."""

    address: str
    prefix_length: int
    interface: str

    def __str__(self) -> str:
        return f"{self.address}/{self.prefix_length} dev {self.interface}"


def addresses() -> list[Address]:
    """List the IPv4 addresses of this node's interfaces."""
    found = []
    for entry in ask(ADDRESSES, struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0)):
        _, length, _, _, number = struct.unpack("=BBBBI", entry.head)
        address = entry.ip(2) or entry.ip(1)  # IFA_LOCAL, else IFA_ADDRESS
        with contextlib.suppress(OSError):  # the interface has just gone
            if address:
                found.append(Address(address, length, socket.if_indextoname(number)))
    return found
