"""Cases by chance, the same each time: groups as users make them, and packets that nearly fit one of their rules."""

from __future__ import annotations

import random
from ipaddress import ip_address
from typing import Any

from tests.verdicts.cases import ANSWERED, DROP, INTERNET, OTHER, PASS, PROTOCOLS, SAME, Case, parse
from tests.verdicts.evaluator import verdict

_SERVER = "203.0.113.10"
_PORTS = (1, 22, 53, 80, 443, 1023, 1024, 5000, 32768, 65535)
_ICMP_TYPES = {"ICMP": (0, 3, 8, 11, 13), "ICMPV6": (1, 3, 128, 129)}
_FIRST = {4: "192.168.0.20", 6: "2001:db8::20"}
_KINDS = ("tcp", "tcp", "tcp", "udp", "udp", "icmp", "esp", "sctp", "47")


def by_chance(count: int, seed: int) -> list[Case]:
    """Make so many cases, of which every other passes."""
    made: list[Case] = []
    chance = random.Random(seed)
    while len(made) < count:
        entry = _entry(chance, f"chance {seed}-{len(made)}")
        case = parse(entry)
        case = case._replace(expect=verdict(case))
        if case.expect == (PASS, DROP)[len(made) % 2]:
            made.append(case)
    return made


def _entry(chance: random.Random, name: str) -> dict[str, Any]:
    groups = {str(group): [_rule(chance) for _ in range(chance.randrange(6))] for group in range(100, 104)}
    named = chance.sample(sorted(groups), chance.randint(1, 3))
    packet = _packet(chance, [rule for group in named for rule in groups[group]])
    return {
        "name": name, "groups": groups, "nic": {"SECURITY_GROUPS": ",".join(named)}, "packet": packet, "expect": PASS,
        "aliases": [{"IP": "192.168.0.240", "SECURITY_GROUPS": "0"}] if "local" in packet else [],
    }  # fmt: skip


def _rule(chance: random.Random) -> dict[str, str]:
    protocol = chance.choice(("TCP", "TCP", "TCP", "UDP", "UDP", "ICMP", "ICMPV6", "IPSEC", "ALL"))
    cases = (str.upper, str.lower, str.capitalize)
    rule = {
        "RULE_TYPE": chance.choice(cases)(chance.choice(("INBOUND", "INBOUND", "OUTBOUND"))),
        "PROTOCOL": chance.choice(cases)(protocol),
    }
    if protocol in ("TCP", "UDP") and chance.random() < 0.8:
        rule["RANGE"] = ",".join(_range(chance) for _ in range(chance.randint(1, 5)))
    elif protocol in _ICMP_TYPES and chance.random() < 0.5:
        rule[f"{protocol}_TYPE"] = str(chance.choice(_ICMP_TYPES[protocol]))
    if chance.random() < 0.6:
        version = chance.choice((4, 4, 6))
        rule["IP"] = str(ip_address(_FIRST[version]) + chance.randrange(180 if version == 4 else 60))
        rule["SIZE"] = str(chance.choice((0, 1, 2, 3, 5, 7, 13, 30, 50)))
    return rule


def _range(chance: random.Random) -> str:
    first = chance.choice(_PORTS)
    return chance.choice((str(first), f"{first}:{min(65535, first + chance.choice((0, 1, 2, 5, 100, 31000)))}"))


def _packet(chance: random.Random, rules: list[dict[str, str]]) -> dict[str, Any]:
    """Make a packet for one of the rules, or just beside it."""
    rule = chance.choice(rules) if rules and chance.random() < 0.9 else {}
    remote = _remote(chance, rule)
    version = ip_address(remote).version
    fitting = {"tcp": "tcp", "udp": "udp", "icmp": "icmp", "icmpv6": "icmpv6", "ipsec": "esp"}
    protocol = fitting.get(rule.get("PROTOCOL", "").lower(), "") if chance.random() < 0.9 else ""
    protocol = protocol or chance.choice(_KINDS)
    if protocol.startswith("icmp"):
        protocol = "icmp" if version == 4 else "icmpv6"
    direction = {"inbound": "in", "outbound": "out"}.get(rule.get("RULE_TYPE", "").lower(), "in")
    packet: dict[str, Any] = {"direction": direction, "remote": remote, "protocol": protocol}
    packet["where"] = INTERNET if remote == _SERVER else chance.choice((SAME, OTHER))
    if protocol in ("tcp", "udp"):
        packet |= {"port": _port(chance, rule), "source_port": chance.choice((*_PORTS, 40000))}
    if protocol.startswith("icmp"):
        known = rule.get(f"{protocol.upper()}_TYPE") or chance.choice(_ICMP_TYPES[protocol.upper()])
        packet |= {"type": known, "code": chance.choice((0, 0, 1))}
    if version == 4 and chance.random() < 0.1:
        packet["local"] = "192.168.0.240"
    answered = ANSWERED.get(PROTOCOLS.get(protocol, 0), {int(packet.get("type", 0)): 0})
    if chance.random() < 0.3 and int(packet.get("type", 0)) in answered:
        packet["reply"] = True
    return packet


def _remote(chance: random.Random, rule: dict[str, str]) -> str:
    if "IP" in rule:
        first = ip_address(rule["IP"])
        near = first + chance.choice((0, int(rule["SIZE"]) - 1, int(rule["SIZE"]), int(rule["SIZE"]) // 2))
        return str(near if chance.random() < 0.8 else first - 1)
    if chance.random() < 0.15:
        return _SERVER
    family = chance.choice((4, 4, 6))
    return str(ip_address(_FIRST[family]) + chance.randrange(60))


def _port(chance: random.Random, rule: dict[str, str]) -> int:
    part = chance.choice(rule["RANGE"].split(",")) if rule.get("RANGE") else str(chance.choice(_PORTS))
    first, _, last = part.partition(":")
    port = chance.choice((int(first), int(last or first))) + chance.choice((-1, 0, 0, 0, 1))
    return min(65535, max(1, port))
