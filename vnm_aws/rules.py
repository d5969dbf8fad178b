"""Read the rules of security groups in a VM document: a user's text, which may hold anything.

oned sends the rules of all groups of the VM, those of other NICs too; a NIC names its groups in SECURITY_GROUPS.
"""

from __future__ import annotations

import _socket as socket  # the module `socket` adds 2 ms to the start of every driver call
import re
from typing import NamedTuple

from lxml import etree

from . import document
from .addresses import shown
from .errors import AwsOvsError

ALL, TCP, UDP, ICMP, ICMPV6, IPSEC = "ALL", "TCP", "UDP", "ICMP", "ICMPV6", "IPSEC"
PROTOCOLS = (ALL, TCP, UDP, ICMP, ICMPV6, IPSEC)
_DIRECTIONS = ("INBOUND", "OUTBOUND")
_ADDRESSES = ("IP", "IP6", "IP6_GLOBAL", "IP6_ULA")
_WORDS = ("RULE_TYPE", "PROTOCOL", "RANGE", "ICMP_TYPE", "ICMPV6_TYPE", *_ADDRESSES, "SIZE")
_MAPPED = 0xFFFF
"""The upper 96 bits of an IPv6 address that stands for an IPv4 one."""
_PORT = 65535
_MOST_PORTS = 65536
"""Ports and ranges in the rules of a VM. A document has room for millions, which would take seconds and hundreds of MiB."""


def address(is_ipv6: bool, number: int) -> str:
    """Write an address that is given as a number."""
    family, length = (socket.AF_INET6, 16) if is_ipv6 else (socket.AF_INET, 4)
    return socket.inet_ntop(family, number.to_bytes(length, "big"))


class Net(NamedTuple):
    """Give a block of addresses by its first and last one, as numbers; it need not be a prefix."""

    is_ipv6: bool
    first: int
    last: int

    @property
    def address(self) -> str:
        """Write its first address."""
        return address(self.is_ipv6, self.first)

    def __str__(self) -> str:
        return f"{self.address}+{self.last - self.first + 1}"


class Rule(NamedTuple):
    """Accept the packets of some connections.

    Attributes:
        group_id: the security group's ID.
        group: its name.
        inbound: whether others begin these connections, or the guest.
        protocol: one of PROTOCOLS.
        ports: ranges of the destination port, the first and the last of each; empty for all.
        icmp_type: of ICMP or ICMPv6; None for all.
        nets: where the other end is; empty for nowhere, None for anywhere.
    """

    group_id: int
    group: str
    inbound: bool
    protocol: str
    ports: tuple[tuple[int, int], ...] = ()
    icmp_type: int | None = None
    nets: tuple[Net, ...] | None = None

    @property
    def is_open(self) -> bool:
        """Tell whether it accepts everything in its direction."""
        return self.protocol == ALL and self.nets is None

    @property
    def direction(self) -> str:
        """Write its RULE_TYPE."""
        return _DIRECTIONS[not self.inbound]

    @property
    def which(self) -> str:
        """Write which ports or type of message it is about; nothing for all."""
        if self.icmp_type is not None:
            return f"type {self.icmp_type}"
        return ",".join(str(low) if low == high else f"{low}:{high}" for low, high in self.ports)

    @property
    def where(self) -> str:
        """Write where the other end is; nothing for anywhere."""
        return "" if self.nets is None else ",".join(map(str, self.nets)) or "nowhere"

    def __str__(self) -> str:
        return " ".join(filter(None, (self.direction, self.protocol, self.which, self.where)))


def group_ids(text: str, what: str) -> tuple[int, ...]:
    """Read SECURITY_GROUPS of a NIC, IDs with commas between them; `what` names it in errors.

    Raises:
        AwsOvsError: it is something else.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if not re.fullmatch(r"[0-9]{1,9}", word):
            raise AwsOvsError(f"{what} {shown(text)} is not a list of IDs like 0,100", "correct it")
    return tuple(sorted(set(map(int, words))))


def lets_everything_in(texts: dict[str, str]) -> bool:
    """Tell whether a rule, whose elements have these texts, accepts whatever comes in. It need not be valid."""
    words = (_word(texts.get("RULE_TYPE", "")), _word(texts.get("PROTOCOL", "")))
    return words == (_DIRECTIONS[0], ALL) and not _is_about_some(texts)


class Groups:
    """Give the rules of each security group of a VM document; a group's are read when a NIC needs them."""

    def __init__(self, root: etree._Element) -> None:
        self._root = root
        self._rules: dict[int, tuple[Rule, ...]] = {}
        self._by_group: dict[str, list[etree._Element]] | None = None
        self._ports = 0

    def of_nic(self, text: str, what: str) -> tuple[Rule, ...] | None:
        """List the rules of a NIC's groups, in the order of the groups' IDs.

        Args:
            text: its SECURITY_GROUPS, see `group_ids`.
            what: the name of that, for errors.

        Returns:
            None for a NIC without groups, which accepts everything.

        Raises:
            AwsOvsError: a rule of one of these groups is not valid.
        """
        own = group_ids(text, what)
        return tuple(rule for group_id in own for rule in self._of_group(group_id)) if own else None

    def _of_group(self, group_id: int) -> tuple[Rule, ...]:
        if group_id not in self._rules:
            self._rules[group_id] = tuple(self._rule(group_id, element) for element in self._of_id(str(group_id)))
        return self._rules[group_id]

    def _of_id(self, group_id: str) -> list[etree._Element]:
        if self._by_group is None:
            self._by_group = {}
            for element in self._root.iterfind("TEMPLATE/SECURITY_GROUP_RULE"):
                for name in element.iterfind("SECURITY_GROUP_ID"):
                    self._by_group.setdefault((name.text or "").strip(), []).append(element)
        return self._by_group.get(group_id, [])

    def _rule(self, group_id: int, element: etree._Element) -> Rule:
        """Read a rule; it is named in errors by its group and its words."""
        texts: dict[str, str] = {}
        twice = ""
        for key, text in document.texts(element):
            twice = key if key in texts else twice
            texts[key] = text
        try:
            if twice:
                raise ValueError(f"it has {shown(twice)} twice")
            self._ports += texts.get("RANGE", "").count(",")
            if self._ports > _MOST_PORTS:
                raise ValueError(f"with it the rules of the VM have more than {_MOST_PORTS} ports and ranges")
            return _read(group_id, texts)
        except ValueError as error:
            name = shown(texts.get("SECURITY_GROUP_NAME", ""))[1:-1]
            words = " ".join(texts[key] for key in _WORDS if texts.get(key))
            what = f"security group {group_id} ({name}), rule {shown(words)}: {error}"
            raise AwsOvsError(what, f"correct it: onesecgroup update {group_id}") from None


def _read(group_id: int, texts: dict[str, str]) -> Rule:
    name = texts.get("SECURITY_GROUP_NAME", "")
    direction, protocol = _word(texts.get("RULE_TYPE", "")), _word(texts.get("PROTOCOL", ""))
    if direction not in _DIRECTIONS:
        raise ValueError(f"RULE_TYPE {shown(direction)} is neither INBOUND nor OUTBOUND")
    if protocol not in PROTOCOLS:
        raise ValueError(f"PROTOCOL {shown(protocol)} is none of {', '.join(PROTOCOLS)}")
    ports = _ports(texts.get("RANGE", ""), protocol)
    return Rule(group_id, name, direction == "INBOUND", protocol, ports, _icmp_type(texts, protocol), _nets(texts))


def _word(text: str) -> str:
    return text.upper() if text.isascii() else text  # a dotless i would become an I


def _ports(text: str, protocol: str) -> tuple[tuple[int, int], ...]:
    if not text:
        return ()
    if protocol not in (TCP, UDP):
        raise ValueError(f"RANGE {shown(text)} is for TCP and UDP only")
    ranges = []
    for part in text.split(","):
        ends = [end.strip() for end in part.split(":")]
        if len(ends) > 2 or not all(re.fullmatch(r"[0-9]{1,9}", end) for end in ends):
            raise ValueError(f"RANGE {shown(text)} is no list of ports like 22,80,5000:6000")
        low, high = int(ends[0]), int(ends[-1])
        if high > _PORT or low > high:
            raise ValueError(f"RANGE {shown(text)} has {shown(part)}, which is no range within 0 to {_PORT}")
        ranges.append((low, high))
    return tuple(ranges)


def _icmp_type(texts: dict[str, str], protocol: str) -> int | None:
    number = None
    for key, whose in (("ICMP_TYPE", ICMP), ("ICMPV6_TYPE", ICMPV6)):
        text = texts.get(key, "")
        if text and protocol != whose:
            raise ValueError(f"{key} {shown(text)} is for {whose} only")
        if text and not (re.fullmatch(r"[0-9]{1,9}", text) and int(text) <= 255):
            raise ValueError(f"{key} {shown(text)} is no number from 0 to 255")
        number = int(text) if text else number
    return number


def _is_about_some(texts: dict[str, str]) -> bool:
    """Tell whether a rule says where the other end is."""
    return any(texts.get(key) for key in (*_ADDRESSES, "SIZE", "NETWORK_ID"))


def _nets(texts: dict[str, str]) -> tuple[Net, ...] | None:
    """Read the blocks of a rule. One about a network whose ranges have no addresses is about nobody."""
    if not _is_about_some(texts):
        return None
    addresses, size = [texts[key] for key in _ADDRESSES if texts.get(key)], texts.get("SIZE", "")
    if not addresses:
        return ()
    if not re.fullmatch(r"[0-9]{1,39}", size):
        raise ValueError(f"SIZE {shown(size)} is no number of addresses")
    nets = tuple(_net(address, int(size)) for address in addresses)
    return nets if int(size) else ()


def _net(text: str, size: int) -> Net:
    is_ipv6 = ":" in text
    try:
        first = int.from_bytes(socket.inet_pton(socket.AF_INET6 if is_ipv6 else socket.AF_INET, text), "big")
    except (OSError, ValueError):
        raise ValueError(f"IP {shown(text)} is no IP address") from None
    if is_ipv6 and first >> 32 == _MAPPED:
        raise ValueError(f"IP {shown(text)} stands for an IPv4 address, which is written like 192.168.0.10")
    if first + size > 1 << (128 if is_ipv6 else 32):
        raise ValueError(f"SIZE {size} is more addresses than there are from {text} on")
    return Net(is_ipv6, first, first + size - 1)
