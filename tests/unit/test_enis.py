"""What a node with further ENIs has in its kernel and its flows, and one with a single ENI has not."""

from __future__ import annotations

import re

from vnm_aws.config import Config
from vnm_aws.names import ENI_MAC, GATEWAY_PORT
from vnm_aws.overlay.pipeline import OverlayTable, overlay_bridge
from vnm_aws.underlay import kernel
from vnm_aws.underlay.eni import Further, Underlay
from vnm_aws.underlay.nft import ruleset
from vnm_aws.underlay.routing import Rules

ALONE = Underlay("ens5", "10.0.0.11", "10.0.0.0/24", 9001)
ABSENT = ALONE._replace(further=(Further(2, "06:00:00:00:00:02", "10.0.0.71", "10.0.0.0/24"),))
BOTH = ALONE._replace(further=(Further(2, "06:00:00:00:00:02", "10.0.0.71", "10.0.0.0/24", "ens6"),))


def rules(underlay: Underlay) -> list[str]:
    """The policy rules that a node should have."""
    (found,) = [item for item in kernel._items(underlay, Config(), ()) if isinstance(item, Rules)]
    return [str(rule) for rule in found.rules]


def written(underlay: Underlay) -> str:
    """The nft tables that a node should have."""
    return ruleset(underlay, "198.18.0.0/15", 4096, ["10.0.0.11"])


def test_one_eni_needs_one_rule_and_no_mark() -> None:
    for underlay in (ALONE, ABSENT):
        assert rules(underlay) == ["one for 10.0.0.0/24 from ens5"]
        assert "mark" not in written(underlay)
        assert 'iifname "ens5" fib daddr type != local notrack' in written(underlay)


def test_two_enis_have_a_table_and_a_mark_each() -> None:
    assert rules(BOTH) == [
        "one for 10.0.0.0/24 from ens5",
        "one for 10.0.0.0/24 from ens6",
        f"one for mark 4790 from {GATEWAY_PORT}",
        "one for packets from 10.0.0.11",
        f"one for mark 4791 from {GATEWAY_PORT}",
        "one for packets from 10.0.0.71",
    ]
    marks = re.findall("(?:ether saddr ([0-9a-f:]+) )?meta mark set ([0-9]+)", written(BOTH))
    assert marks == [("", "4790"), (ENI_MAC.format(2), "4791")]
    assert 'oifname . meta mark != { "ens5" . 4790, "ens6" . 4791 } counter drop' in written(BOTH)


def test_the_mac_that_flows_set_is_the_one_that_the_kernel_marks_by() -> None:
    (line,) = overlay_bridge.by_eni(2, ["10.0.0.41"], 7)
    assert (
        f"table={OverlayTable.TO_NODE.value},priority=10,ip,nw_src=10.0.0.41 actions=mod_dl_src:{ENI_MAC.format(2)},"
        in line
    )
