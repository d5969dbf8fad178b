"""What two guest ports of a node must not both have."""

from __future__ import annotations

import pytest

from vnm_aws.overlay.guest_port import Claim

MAC = "100/02:00:c0:a8:00:0a"


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("100/192.168.0.10", Claim("192.168.0.10", vni=100)),
        (MAC, Claim("02:00:c0:a8:00:0a", vni=100)),
        ("198.18.0.1", Claim("198.18.0.1")),
        ("10.0.0.45:9001-9010", Claim("10.0.0.45", ports=(9001, 9010))),
    ],
)
def test_the_text_of_a_claim_stays_what_running_nodes_have(text: str, claim: Claim) -> None:
    assert Claim.parse(text) == claim
    assert str(claim) == text


@pytest.mark.parametrize("text", ["", "/", "x/10.0.0.1", "10.0.0.1:", "10.0.0.1:80", "10.0.0.1:80-", "fe80::1"])
def test_an_unknown_text_conflicts_with_itself_only(text: str) -> None:
    assert str(Claim.parse(text)) == text
    assert Claim.parse(text).conflicts_with(Claim.parse(text))
    assert not Claim.parse(text).conflicts_with(Claim("10.0.0.1"))


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        ("100/192.168.0.10", "100/192.168.0.10", True),
        ("100/192.168.0.10", "101/192.168.0.10", False),
        ("100/10.0.0.45", "10.0.0.45", False),
        (MAC, MAC, True),
        ("10.0.0.45", "10.0.0.45", True),
        ("10.0.0.45", "10.0.0.46", False),
        ("10.0.0.45", "10.0.0.45:9001-9010", True),
        ("10.0.0.45:9001-9010", "10.0.0.45:9010-9020", True),
        ("10.0.0.45:9001-9010", "10.0.0.45:9004-9005", True),
        ("10.0.0.45:9001-9010", "10.0.0.45:9011-9020", False),
        ("10.0.0.45:9001-9010", "10.0.0.46:9001-9010", False),
    ],
)
def test_claims_conflict_on_the_same_address_and_a_common_port(one: str, other: str, conflict: bool) -> None:
    assert Claim.parse(one).conflicts_with(Claim.parse(other)) is conflict
    assert Claim.parse(other).conflicts_with(Claim.parse(one)) is conflict
