"""What stands on a node for private addresses of other subnets: the list, and what it does to a guest port."""

from __future__ import annotations

import json

import pytest

from tests.unit.documents import recorded
from tests.unit.test_guest_port import ports
from vnm_aws.errors import AwsOvsError
from vnm_aws.overlay.guest_port import GuestPort, Mapping
from vnm_aws.overlay.stand_ins import StandIns, document, parse

STANDING = StandIns({"10.0.0.41": "10.0.2.77", "10.0.0.45": "10.0.2.78"})


def of(operation: str, private_ip: str) -> GuestPort:
    """The port of a recorded VM that has a private address, alone or by ports."""
    return next(
        port
        for port in ports(recorded(operation, "03-post.xml"))
        if any(claim.address == private_ip for claim in port.claims)
    )


def test_a_stand_in_takes_the_place_of_the_private_address_which_stays_the_ports_own() -> None:
    port = of("deploy", "10.0.0.41")
    now = STANDING.in_force(port)
    assert now.mappings == (Mapping("192.168.0.250", "10.0.2.77"),)
    assert {*map(str, now.claims)} == {*map(str, port.claims), "10.0.2.77"}


def test_an_address_that_is_shared_by_ports_has_a_stand_in_too() -> None:
    port = of("deploy-ports", "10.0.0.45")
    now = STANDING.in_force(port)
    (shared,), (before,) = now.shared, port.shared
    assert shared == before._replace(private_ip="10.0.2.78")
    assert now.mappings == port.mappings, "a transit address is the node's own everywhere"
    assert {str(before.claim), str(shared.claim)} <= {*map(str, now.claims)}


def test_without_a_stand_in_a_port_is_as_it_was() -> None:
    port = of("deploy", "10.0.0.41")
    assert StandIns({}).in_force(port) is port
    assert StandIns({"10.0.0.9": "10.0.2.9"}).in_force(port) is port


def test_what_is_written_is_read_again() -> None:
    assert parse(document(STANDING).encode()) == STANDING


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"stand_ins": []}', '{"stand_ins": {"10.0.0.41": 5}}', '{"stand_ins": {"10.0.0.41": "x"}}',
        '{"stand_ins": {"x": "10.0.2.77"}}', '{"stand_ins": {"10.0.0.41": "10.0.0.41"}}', "[" * 100_000,
        '{"stand_ins": {"10.0.0.41": "10.0.2.77", "10.0.0.42": "10.0.2.77"}}',
        '{"stand_ins": {"10.0.0.41": "10.0.2.77", "10.0.2.77": "10.0.2.78"}}',
        '{"stand_ins": {"10.0.0.41": "10.0.2.77", "10.0.0.41": "10.0.2.78"}}',
        '{"stand_ins": {"10.0.0.41": "169.254.169.254"}}', '{"stand_ins": {"10.0.0.41": "224.0.0.1"}}',
        json.dumps({"stand_ins": {f"10.1.{n >> 8}.{n & 255}": f"10.2.{n >> 8}.{n & 255}" for n in range(4097)}}),
    ],
    ids=lambda text: text[:60],
)  # fmt: skip
def test_a_list_that_is_not_valid_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(AwsOvsError) as refusal:
        parse(text.encode())
    assert refusal.value.remedy
