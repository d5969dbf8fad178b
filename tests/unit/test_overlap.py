"""A transit_range has no address in it to which the node has another way."""

from __future__ import annotations

import pytest

from vnm_aws.addresses import Prefix
from vnm_aws.errors import AwsOvsError
from vnm_aws.underlay import eni
from vnm_aws.underlay.eni import Underlay

TRANSIT = Prefix("198.18.0.0/15", "transit_range")
OUTSIDE = Underlay("ens5", "10.0.0.11", "10.0.0.0/24", 9001)


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        ("10.0.0.0/8", "10.1.0.0/16", True),
        ("10.1.0.0/16", "10.0.0.0/8", True),
        ("10.0.0.0/24", "10.0.0.0/24", True),
        ("10.0.0.0/24", "10.0.1.0/24", False),
        ("10.0.1.0/24", "10.0.0.0/24", False),
        ("128.0.0.0/1", "255.255.255.255/32", True),
    ],
)
def test_prefixes_overlap_when_an_address_is_in_both(first: str, second: str, overlap: bool) -> None:
    assert Prefix(first, "").overlaps(Prefix(second, "")) is overlap


@pytest.mark.parametrize("subnet", ["198.19.0.0/24", "198.18.0.0/15", "198.16.0.0/12"])
def test_the_subnet_of_the_eni_is_refused_by_name(subnet: str) -> None:
    underlay = Underlay("ens5", "198.19.0.11", subnet, 9001)
    with pytest.raises(AwsOvsError, match=rf"transit_range 198.18.0.0/15 overlaps the subnet {subnet} of ens5; set it"):
        eni.refuse_overlap(TRANSIT, underlay, (), is_set_up=True)


def test_a_block_of_the_vpc_is_refused_by_name() -> None:
    eni.refuse_overlap(TRANSIT, OUTSIDE, ["10.0.0.0/16", "100.64.0.0/16"], is_set_up=True)
    with pytest.raises(AwsOvsError, match=r"overlaps the block 198.19.0.0/16 of the VPC"):
        eni.refuse_overlap(TRANSIT, OUTSIDE, ["10.0.0.0/16", "198.19.0.0/16"], is_set_up=True)
