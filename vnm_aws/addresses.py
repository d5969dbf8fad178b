"""Check and convert addresses, names and numbers that come from outside.

The standard `ipaddress` module is left out on purpose: these run in the boot path of every VM.
"""

from __future__ import annotations

import _socket as socket  # the module `socket` adds 2 ms to the start of every driver call
import re

from .errors import AwsOvsError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}\Z")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}\Z")
_DIGITS = re.compile(r"[0-9]{1,18}\Z")
_SHOWN = 60


def shown(value: str) -> str:
    """Show `value` in an error: quoted, printable and short."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…'"


def device_name(value: str, what: str) -> str:
    """Check the name of a bridge or port: what Linux and Open vSwitch both accept, 15 characters at most."""
    if not _NAME.match(value):
        sentence = f"{what} {shown(value)} is not a device name"
        raise AwsOvsError(sentence, "use 1 to 15 letters, digits, '.', '_' or '-', a letter or digit first")
    return value


def number(value: str, what: str, low: int, high: int) -> int:
    """Read a decimal number from `low` to `high`."""
    if not _DIGITS.match(value) or not low <= int(value) <= high:
        raise AwsOvsError(f"{what} {shown(value)} is not a number from {low} to {high}", "correct it in the template")
    return int(value)


def mac(value: str, what: str) -> str:
    """Check a unicast MAC address and return it in lower case."""
    if not _MAC.match(value):
        raise AwsOvsError(f"{what} {shown(value)} is not a MAC address like 02:00:c0:a8:00:0a", "correct it")
    value = value.lower()
    if int(value[:2], 16) & 1 or value == "00:00:00:00:00:00":
        raise AwsOvsError(f"{what} {value} is not a unicast MAC address", "give the NIC one")
    return value


def ip_to_int(address: str) -> int:
    """Return the 32 bits of a dotted IPv4 address; for another text, raise ValueError."""
    try:
        return int.from_bytes(socket.inet_pton(socket.AF_INET, address), "big")
    except (OSError, ValueError) as error:
        raise ValueError(f"not an IPv4 address: {address!r}") from error


def is_ipv4(text: str) -> bool:
    """Tell whether a text is a dotted IPv4 address."""
    try:
        ip_to_int(text)
    except ValueError:
        return False
    return True


def int_to_ip(value: int) -> str:
    """Write 32 bits as a dotted IPv4 address."""
    return socket.inet_ntop(socket.AF_INET, value.to_bytes(4, "big"))


def ipv4(value: str, what: str) -> str:
    """Check a unicast IPv4 address that a guest or a node may have."""
    try:
        bits = ip_to_int(value)
    except ValueError:
        raise AwsOvsError(f"{what} {shown(value)} is not an IPv4 address like 192.168.0.10", "correct it") from None
    first = bits >> 24
    if first in (0, 127) or first >= 224 or bits >> 16 == 0xA9FE:
        raise AwsOvsError(f"{what} {value} is not an address that a VM can use", "choose a unicast one")
    return value


def ipv6(value: str, what: str) -> str:
    """Check an IPv6 address and return its canonical form."""
    try:
        return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, value))
    except (OSError, ValueError):
        raise AwsOvsError(f"{what} {shown(value)} is not an IPv6 address", "correct it") from None


class Prefix:
    """An IPv4 prefix such as 198.18.0.0/15."""

    def __init__(self, text: str, what: str) -> None:
        address, _, length = text.partition("/")
        try:
            self.prefix_length = int(length)
            if not 1 <= self.prefix_length <= 32:
                raise ValueError(length)
            self.first = ip_to_int(address)
            self.size = 1 << (32 - self.prefix_length)
            if self.first % self.size:
                raise ValueError(text)
        except ValueError:
            raise AwsOvsError(f"{what} {shown(text)} is not an IPv4 prefix like 198.18.0.0/15", "correct it") from None

    def __contains__(self, address: str) -> bool:
        return self.first <= ip_to_int(address) < self.first + self.size

    def __str__(self) -> str:
        return f"{int_to_ip(self.first)}/{self.prefix_length}"

    def overlaps(self, other: Prefix) -> bool:
        """Tell whether an address is in both."""
        return self.first < other.first + other.size and other.first < self.first + self.size
