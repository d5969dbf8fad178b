"""Cases at the edges of what rules say, as a table that people can read: edges.txt.

A rule is its direction, its protocol, and what it may have besides: a range of ports or a type of ICMP, and a block of
addresses with its size. `;` is between rules; they are of group 100, or of that whose number comes first. `-` is a
group without rules, `default` the group 0, `open` a NIC without groups.

A packet is its direction, the address of the other end, its protocol, and what it may have besides: the port or type
and code, `from` another port, where the other end is, `alias` for the VM's other address, whose own group is 0, and
`reply`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.verdicts.cases import INTERNET, SAME, Case, parse

_TABLE = Path(__file__).with_name("edges.txt")
_GROUP = "100"
_ALIAS = "192.168.0.240"
_DIRECTIONS = {"in": "INBOUND", "out": "OUTBOUND"}
_TYPES = {"icmp": "ICMP_TYPE", "icmpv6": "ICMPV6_TYPE"}


def edges() -> list[Case]:
    """List all cases of the table."""
    cases, title = [], ""
    for number, line in enumerate(_TABLE.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("##"):
            title = line.strip("# ")
        elif line and not line.startswith("#"):
            rules, packet, expect = (cell.strip() for cell in line.split("|"))
            cases.append(parse(_entry(f"{title}, line {number}", rules, packet, expect)))
    return cases


def _entry(name: str, rules: str, packet: str, expect: str) -> dict[str, Any]:
    groups: dict[str, list[dict[str, str]]] = {}
    for text in rules.split(";"):
        words = text.split()
        if words == ["default"]:
            groups["0"] = [{"RULE_TYPE": way, "PROTOCOL": "ALL"} for way in ("OUTBOUND", "INBOUND")]
            continue
        group = words.pop(0) if words[0].isdigit() else _GROUP
        groups.setdefault(group, []).extend([_rule(words)] if words not in (["-"], ["open"]) else [])
    what = _packet(packet.split())
    named = "" if rules == "open" else ",".join(groups)
    entry = {"name": name, "groups": groups, "nic": {"SECURITY_GROUPS": named}, "packet": what, "expect": expect}
    return entry | ({"aliases": [{"IP": _ALIAS, "SECURITY_GROUPS": "0"}]} if "local" in what else {})


def _rule(words: list[str]) -> dict[str, str]:
    direction, protocol, *rest = words
    rule = {"RULE_TYPE": _DIRECTIONS.get(direction, direction), "PROTOCOL": protocol}
    for word in rest:
        if "+" in word:
            rule["IP"], rule["SIZE"] = word.split("+")
        else:
            rule[_TYPES.get(protocol, "RANGE")] = word
    return rule


def _packet(words: list[str]) -> dict[str, Any]:
    direction, remote, protocol, *rest = words
    packet: dict[str, Any] = {"direction": direction, "remote": remote, "protocol": protocol}
    while rest:
        word = rest.pop(0)
        if word == "from":
            packet["source_port"] = rest.pop(0)
        elif word in (SAME, INTERNET):
            packet["where"] = word
        elif word == "alias":
            packet["local"] = _ALIAS
        elif word == "reply":
            packet["reply"] = True
        elif protocol in _TYPES:
            packet["type"], _, code = word.partition("/")
            packet["code"] = code or 0
        else:
            packet["port"] = word
    return packet
