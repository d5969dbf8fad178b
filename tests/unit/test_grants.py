"""What networks grant their NICs, as the front-end tells it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.documents import recorded
from tests.unit.test_guest_port import TRANSIT, ports
from vnm_aws.errors import AwsOvsError
from vnm_aws.overlay.grants import Grants
from vnm_aws.overlay.guest_port import GuestPort

NOTHING = Grants(frozenset())


def wishing() -> GuestPort:
    """A port of network 1 that asks for all there is."""
    port = ports(recorded("deploy", "03-post.xml"))[0]
    more: dict[str, Any] = {"vpc_access": ("10.0.0.0/8", "192.0.2.1/32"), "dns": ("10.0.0.2",), "raw_ethernet": True}
    return port._replace(network_id=1, filter_mac=False, filter_ip=False, **more)


def test_a_node_that_was_told_nothing_believes_the_nic() -> None:
    assert Grants(None).limit(wishing(), TRANSIT) == wishing()


def test_nothing_is_left_of_what_is_not_granted() -> None:
    port = NOTHING.limit(wishing(), TRANSIT)
    assert (port.filter_mac, port.filter_ip, port.raw_ethernet) == (True, True, False)
    assert [*port.vpc_access, *port.dns, *port.gateways, *port.mappings] == []
    assert port.claims == wishing().claims, "its addresses stay its own"


@pytest.mark.parametrize(
    ("addresses", "filtered"),
    [
        ({}, False),
        ({"addresses": ("192.168.0.10",)}, True),
        ({"ip6": ("2001:db8::7",)}, True),
        ({"floats": True}, True),
    ],
)
def test_a_filter_stays_on_where_there_are_addresses_to_take(addresses: dict[str, Any], filtered: bool) -> None:
    port = wishing()._replace(**{"addresses": (), "mappings": (), **addresses})
    assert NOTHING.limit(port, TRANSIT).filter_ip == filtered


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("1 FILTER_MAC_SPOOFING NO", "filter_mac", False),
        ("1 FILTER_IP_SPOOFING NO", "filter_ip", False),
        ("1 AWS_RAW_ETHERNET YES", "raw_ethernet", True),
        ("1 AWS_VPC_ACCESS 10.0.0.0/8", "vpc_access", ("10.0.0.0/8",)),
        ("1 DNS 10.0.0.2", "dns", ("10.0.0.2",)),
        ("1 GATEWAY 192.168.0.1", "gateways", ("192.168.0.1",)),
        ("2 GATEWAY 192.168.0.1", "gateways", ()),
        ("11 GATEWAY 192.168.0.1", "gateways", ()),
    ],
)
def test_each_grant_gives_what_it_says_to_its_network(line: str, field: str, value: object) -> None:
    port = Grants(frozenset([line])).limit(wishing(), TRANSIT)
    assert getattr(port, field) == value
    others = NOTHING.limit(wishing(), TRANSIT)
    changed = {key for key in GuestPort._fields if getattr(port, key) != getattr(others, key)}
    assert changed <= {field, *(("mappings", "withheld") if field == "gateways" else ())}


def test_what_the_network_of_an_alias_grants_is_granted() -> None:
    port = wishing()._replace(alias_networks=(2,))
    assert Grants(frozenset(["2 GATEWAY 192.168.0.1"])).limit(port, TRANSIT).gateways == ("192.168.0.1",)


def test_a_port_without_addresses_has_no_address_to_be_filtered_by() -> None:
    port = wishing()._replace(addresses=(), mappings=())
    assert not NOTHING.limit(port, TRANSIT).filter_ip


def test_a_port_of_an_older_version_is_left_as_it_is() -> None:
    port = wishing()._replace(network_id=-1)
    assert NOTHING.limit(port, TRANSIT) == port


def test_a_private_address_is_refused_to_all_but_its_networks() -> None:
    grants = Grants(frozenset(["7 AWS_PRIVATE_IP 10.0.0.41", "12 AWS_PRIVATE_IP 10.0.0.41"]))
    for network_id in (7, 12):
        grants.refuse_private_ip(network_id, "10.0.0.41")
    grants.refuse_private_ip(3, "10.0.0.4")
    with pytest.raises(AwsOvsError, match=r"10\.0\.0\.41 is an address of network 7, not of network 3"):
        grants.refuse_private_ip(3, "10.0.0.41")
