"""How many flows the rules of security groups need; whether they are the right ones, the lab tests with packets."""

from __future__ import annotations

import pytest

from tests.unit.documents import recorded
from tests.unit.test_guest_port import ports
from vnm_aws.overlay.pipeline import groups
from vnm_aws.rules import ALL, ICMP, TCP, UDP, Net, Rule


def flows(*rules: Rule, picks_up: bool = False) -> list[str]:
    """The flows of these rules, one of whose NIC that picks up connections when told so."""
    port = ports(recorded("deploy", "03-post.xml"))[0]._replace(slot=1, picks_up_until=1000 if picks_up else 0)
    with_rules, without = (groups.port(port._replace(rules=some), 3, 900) for some in (rules, ()))
    return sorted({*with_rules} - {*without})


def rule(protocol: str, *addresses: int, spans: tuple[tuple[int, int], ...] = ()) -> Rule:
    """A rule for anyone, or for the addresses from the first to the last; `spans` are its ports."""
    nets = (Net(False, addresses[0], addresses[-1]),) if addresses else None
    return Rule(100, "web", True, protocol, spans, nets=nets)


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_port_for_anyone_needs_one_flow_for_both_families(protocol: str) -> None:
    lines = flows(rule(protocol, spans=((22, 22), (80, 80), (443, 443))))
    assert len(lines) == 3
    assert not any("ipv6" in line for line in lines)


def test_a_thousand_addresses_and_a_hundred_ports_are_added_and_not_multiplied() -> None:
    lines = flows(rule(TCP, 0x0A000005, 0x0A000005 + 999, spans=((1001, 1100),)))
    assert len(lines) <= 30


def test_what_is_looked_up_by_the_packet_has_the_same_flows_whatever_it_is() -> None:
    assert len(flows(rule(ALL, 0x0A000010))) == 3  # a connection; a packet that belongs to none; an answer
    assert len(flows(rule(ICMP, 0x0A000010))) == 2


def test_rules_that_pick_up_connections_need_a_flow_of_each_family_for_it() -> None:
    web = rule(TCP, spans=((80, 80), (443, 443)))
    assert len(flows(web, picks_up=True)) == 3 * len(flows(web))


def test_each_flow_of_a_rule_counts_for_it() -> None:
    rules = [rule(TCP, spans=((port, port + 2),)) for port in range(1001, 1101)]
    priorities = {int(line.partition("priority=")[2].partition(",")[0]) for line in flows(*rules)}
    assert priorities == {groups.FIRST_PRIORITY - number for number in range(100)}
