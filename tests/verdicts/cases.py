"""Cases as a file has them: groups, a NIC, one packet, and whether that packet passes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

PASS, DROP = "pass", "drop"
IN, OUT = "in", "out"
SAME, OTHER, INTERNET = "same", "other", "internet"
ICMP, TCP, UDP, GRE, ESP, ICMPV6, SCTP = 1, 6, 17, 47, 50, 58, 132
PROTOCOLS = {"icmp": ICMP, "tcp": TCP, "udp": UDP, "esp": ESP, "icmpv6": ICMPV6, "sctp": SCTP}
ECHO, ECHO6 = 8, 128
ANSWERED = {ICMP: {8: 0, 13: 14, 15: 16, 17: 18}, ICMPV6: {128: 129}}
"""The types of ICMP that are questions, and the types of their answers."""

IP, IP6 = "192.168.0.10", "2001:db8::10"
"""What the VM's NIC has where the case does not say anything else."""
ADDRESSES_4 = ("IP",)
ADDRESSES_6 = ("IP6_GLOBAL", "IP6", "IP6_ULA", "IP6_LINK")

Attributes = dict[str, str]
Groups = dict[str, list[Attributes]]

# What every oned has, and no case needs to tell.
_DEFAULT_GROUP: list[Attributes] = [
    {"RULE_TYPE": "OUTBOUND", "PROTOCOL": "ALL"},
    {"RULE_TYPE": "INBOUND", "PROTOCOL": "ALL"},
]
_DEFAULT_PORTS = (40000, 5000)


class CasesError(Exception):
    """The cases cannot be read; the message is one sentence."""


class Packet(NamedTuple):
    """What is sent.

    Attributes:
        direction: in, to the VM, or out.
        local: the VM's address.
        remote: the other end's.
        protocol: its number.
        port: where it goes to; and `source_port`, where it comes from.
        type: of an ICMP message; and its `code`.
        where: the other end is.
        reply: what counts is the answer to the packet.
    """

    direction: str
    local: str
    remote: str
    protocol: int
    port: int
    source_port: int
    type: int
    code: int
    where: str
    reply: bool

    @property
    def version(self) -> int:
        """Of IP: 4 or 6."""
        return 6 if ":" in self.remote else 4


class Case(NamedTuple):
    """A case; the attributes are those of the file, with what it leaves out."""

    name: str
    groups: Groups
    nic: Attributes
    aliases: list[Attributes]
    packet: Packet
    expect: str


def load(path: Path) -> list[Case]:
    """Read a file of cases.

    Raises:
        CasesError: it cannot be read, or one of its cases makes no sense.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as why:
        raise CasesError(f"{path}: {why.strerror}; name a file with a list of cases") from None
    except ValueError as why:
        raise CasesError(f"{path} is not JSON: {why}") from None
    if not isinstance(entries, list):
        raise CasesError(f"{path} is not a list of cases")
    cases = []
    for number, entry in enumerate(entries, 1):
        name = entry.get("name", f"number {number}") if isinstance(entry, dict) else f"number {number}"
        try:
            cases.append(parse(entry))
        except ValueError as why:
            raise CasesError(f"{path}, case {name}: {why}") from None
        except KeyError as why:
            raise CasesError(f"{path}, case {name}: {why.args[0]} is missing") from None
    return cases


def parse(entry: Any) -> Case:
    """Read one case.

    Raises:
        KeyError: something is missing.
        ValueError: a value makes no sense.
    """
    entry = _object("it", entry)
    groups = {
        str(group): [_texts("a rule", rule) for rule in _list(f"group {group}", rules)]
        for group, rules in _object("groups", entry["groups"]).items()
    }
    nic = {"IP": IP, "IP6_GLOBAL": IP6, **_texts("nic", entry["nic"])}
    if "0" in named_groups(nic):
        groups.setdefault("0", _DEFAULT_GROUP)
    aliases = [_texts("an alias", alias) for alias in _list("aliases", entry.get("aliases") or [])]
    expect = _one_of("expect", entry["expect"], (PASS, DROP))
    return Case(str(entry["name"]), groups, nic, aliases, _packet(_object("packet", entry["packet"]), nic), expect)


def named_groups(nic: Mapping[str, str]) -> list[str]:
    """List the groups of a NIC."""
    return [group.strip() for group in nic.get("SECURITY_GROUPS", "").split(",") if group.strip()]


def _packet(entry: Mapping[str, Any], nic: Attributes) -> Packet:
    remote = _address("remote", entry["remote"])
    own = [nic[name] for name in (ADDRESSES_6 if ":" in remote else ADDRESSES_4) if nic.get(name)]
    local = _address("local", entry.get("local") or next(iter(own), ""))
    if (":" in local) != (":" in remote):
        raise ValueError(f"local {local} and remote {remote} are of two families")
    protocol = _protocol(entry["protocol"])
    packet = Packet(
        direction=_one_of("direction", entry["direction"], (IN, OUT)),
        local=local,
        remote=remote,
        protocol=protocol,
        port=_number("port", entry.get("port", _DEFAULT_PORTS[1]), 65535),
        source_port=_number("source_port", entry.get("source_port", _DEFAULT_PORTS[0]), 65535),
        type=_number("type", entry.get("type", ECHO6 if protocol == ICMPV6 else ECHO), 255),
        code=_number("code", entry.get("code", 0), 255),
        where=_one_of("where", entry.get("where", OTHER), (SAME, OTHER, INTERNET)),
        reply=bool(entry.get("reply", False)),
    )
    if packet.where == INTERNET and packet.version == 6:
        raise ValueError(f"remote {remote} is on the Internet, where the lab has IPv4 only")
    if packet.reply and protocol in ANSWERED and packet.type not in ANSWERED[protocol]:
        raise ValueError(f"type {packet.type} of protocol {protocol} has no answer, so reply makes no sense")
    return packet


def _object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not an object")
    return value


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name} is not a list")
    return value


def _texts(name: str, value: Any) -> Attributes:
    return {str(key): str(text) for key, text in _object(name, value).items()}


def _one_of(name: str, value: object, known: tuple[str, ...]) -> str:
    text = str(value)
    if text not in known:
        raise ValueError(f"{name} is {value!r}; it must be {' or '.join(known)}")
    return text


def _address(name: str, value: object) -> str:
    try:
        address = ip_address(str(value))
    except ValueError:
        raise ValueError(f"{name} is {value!r}; it must be an IP address") from None
    if address.is_multicast or address.is_unspecified or address == ip_address("255.255.255.255"):
        raise ValueError(f"{name} is {value!r}; it must be the address of one machine")
    return str(address)


def _number(name: str, value: object, last: int) -> int:
    text = str(value)
    if not (text.isascii() and text.isdigit() and int(text) <= last):
        raise ValueError(f"{name} is {value!r}; it must be a number up to {last}")
    return int(text)


def _protocol(value: object) -> int:
    text = str(value).lower()
    if text in PROTOCOLS:
        return PROTOCOLS[text]
    if not (text.isascii() and text.isdigit() and int(text) <= 255):
        raise ValueError(f"protocol is {value!r}; it must be {', '.join(PROTOCOLS)} or a number up to 255")
    return int(text)
