"""How many flows security groups need: about as many as there are rules, not addresses times ports."""

from __future__ import annotations

import random
from collections.abc import Sequence
from ipaddress import IPv4Address

import pytest

from tests.unit.flow_interpreter import read
from tests.unit.test_group_model import Attributes, guest_with
from vnm_aws.overlay.pipeline import VnetTable, groups

EMPTY = 4
"""Flows of the two tables of a NIC without rules: they count what is dropped."""


def flows(rules: Sequence[Attributes], picks_up: bool = False) -> int:
    """How many flows these rules need, for TCP and the like."""
    lines = groups.port(guest_with(rules)._replace(picks_up_until=300 if picks_up else 0), 3, 0)
    return sum(read(line).table in (VnetTable.IN_RULES, VnetTable.OUT_RULES) for line in lines) - EMPTY


def tcp(ports: str = "", first: str = "", size: int = 0) -> Attributes:
    """A rule that lets others in."""
    net = {"IP": first, "SIZE": str(size)} if first else {}
    return {"RULE_TYPE": "INBOUND", "PROTOCOL": "TCP", "RANGE": ports} | net


def odd(count: int) -> str:
    """So many ports of which no two are one range."""
    return ",".join(str(port) for port in range(1025, 1025 + 2 * count, 2))


@pytest.mark.parametrize(
    ("rules", "most"),
    [
        pytest.param([tcp(odd(100), "10.0.0.5", 1000)], 120, id="1,000 addresses and 100 ports"),
        pytest.param([tcp("1:65535", "10.0.0.1", 65534)], 48, id="all of a network but its ends, all ports but 0"),
        pytest.param([tcp("0:65535")], 2, id="all ports of both families"),
        pytest.param([tcp("22,80,443", "10.0.0.0", 256)], 3, id="three ports of a prefix"),
        pytest.param([tcp("22"), *[tcp("22")] * 999], 2, id="the same rule 1,000 times"),
        pytest.param([tcp("22"), {"RULE_TYPE": "INBOUND", "PROTOCOL": "ALL"}], 8, id="one that accepts everything"),
        pytest.param([tcp("5000:5999,6000:6999", "10.0.0.0", 1)], 10, id="ranges that touch each other"),
    ],
)
def test_flows_are_few(rules: list[Attributes], most: int) -> None:
    needed = flows(rules)
    print(f"{needed} flows")
    assert needed <= most


def test_a_thousand_rules_need_a_few_thousand_flows() -> None:
    """As people have them: one address or a prefix each, a port or a range."""
    chance = random.Random(3)
    usual = [
        tcp(f"{port}", str(IPv4Address(chance.randrange(1 << 24, 200 << 24) & -size)), size)
        for port, size in ((chance.choice((22, 80, 443, 3306)), chance.choice((1, 16, 256))) for _ in range(1000))
    ]
    awkward = [
        tcp(f"{low}:{low + 99},22", str(IPv4Address(chance.randrange(1 << 24, 200 << 24))), chance.choice((3, 5, 100)))
        for low in (chance.randrange(1024, 60000) for _ in range(1000))
    ]
    for name, rules, most in (("usual", usual, 1000), ("awkward", awkward, 18000)):
        needed, picking = flows(rules), flows(rules, picks_up=True)
        print(f"1,000 {name} rules: {needed} flows, {picking} while connections are picked up")
        assert needed <= most
