"""Deciding which moves bring the addresses of VMs to their host, from what both worlds show."""

from __future__ import annotations

import pytest

from vnm_aws.frontend.ec2_objects import ElasticIp, Interface, Subnet
from vnm_aws.frontend.follow.decide import Assign, Associate, PlacedError, Seen, Tell, decide, describe, failure
from vnm_aws.frontend.objects import Address, AwsVm, Host

SUBNET = "subnet-1"
A, B = "10.0.0.11", "10.0.0.12"


def host(number: int) -> Host:
    """A host with an ENI of its own."""
    template = {"EC2_ENI_ID": f"eni-{number}", "VXLAN_TEP": f"10.0.0.{number}", "EC2_INSTANCE_TYPE": "c5n.metal"}
    return Host(number, f"h{number}", 2, 0, "default", (), template)


def vm(vm_id: int, *addresses: str, **template: str) -> AwsVm:
    """A VM on the first host, whose addresses have an Elastic IP each."""
    each = tuple(Address(address, f"198.51.100.{address[-2:]}", f"eipalloc-{address[-2:]}", 0) for address in addresses)
    return AwsVm(vm_id, f"vm{vm_id}", True, 1, "h1", each, template)


def seen(first: tuple[str, ...] = (), second: tuple[str, ...] = (), limit: int = 50, **leads: str) -> Seen:
    """Two hosts whose ENIs have these secondary addresses, and Elastic IPs that lead to their addresses, or elsewhere."""
    enis = {
        f"eni-{number}": Interface(
            f"eni-{number}", "vpc", SUBNET, f"i-{number}", (f"10.0.0.{number}", *addresses), "", ()
        )
        for number, addresses in ((1, first), (2, second))
    }
    holders = {address: eni for eni in enis.values() for address in eni.addresses}
    eips = {}
    for address in (A, B):
        key, private_ip = f"eipalloc-{address[-2:]}", leads.get(f"to{address[-2:]}", address)
        eni_id = holders[private_ip].eni_id if private_ip in holders else ""
        eips[key] = ElasticIp(key, f"198.51.100.{address[-2:]}", private_ip, eni_id, {})
    hosts = {f"eni-{number}": host(number) for number in (1, 2)}
    given = {(0, address, each) for address in (A, B, "10.0.0.2") for each in ("", f"eipalloc-{address[-2:]}")}
    return Seen(given, enis, holders, eips, hosts, {SUBNET: Subnet(SUBNET, "10.0.0.0/24", 99)}, limit)


def test_an_address_moves_from_its_eni_to_that_of_the_host_and_the_vm_is_told() -> None:
    decision = decide([vm(7, A)], host(1), seen(second=(A,)))
    told = {"AWS_EIP_STATUS": "OK: 198.51.100.11 on h1", "AWS_EIP_HOST": "1"}
    assert decision.moves == [Assign(7, A, "eni-2", "eni-1"), Tell(7, told)]
    assert decision.refusals == {}
    assert describe(decision, host(1), seen(second=(A,))) == f"move {A} from h2 (eni-2) to h1 (eni-1)"


def test_nothing_moves_when_all_is_right() -> None:
    told = {"AWS_EIP_STATUS": "OK: 198.51.100.11 on h1", "AWS_EIP_HOST": "1"}
    assert decide([vm(7, A, **told)], host(1), seen(first=(A,))) == ([], {})


def test_an_elastic_ip_that_leads_elsewhere_is_associated() -> None:
    decision = decide([vm(7, A)], host(1), seen(first=(A,), to11=""))
    assert decision.moves[0] == Associate(7, "eipalloc-11", "198.51.100.11", A, "eni-1")


@pytest.mark.parametrize(
    ("template", "assigned"),
    [
        ({}, False),  # never anywhere: what EC2 shows counts
        ({"AWS_EIP_HOST": "1"}, False),
        ({"AWS_EIP_HOST": "1", "AWS_EIP_STATUS": "OK: 198.51.100.11 on h2"}, False),  # the text is for people
        ({"AWS_EIP_HOST": "2", "AWS_EIP_STATUS": "OK: 198.51.100.11 on h1"}, True),
        ({"AWS_EIP_STATUS": "OK: 198.51.100.11 on h1"}, True),  # of an earlier version
        ({"AWS_EIP_HOST": "", "AWS_EIP_STATUS": "FAILED: EC2 took 10.0.0.11 but does not show it"}, True),
    ],
)
def test_what_ec2_shows_counts_for_a_vm_that_was_brought_here_last(template: dict[str, str], assigned: bool) -> None:
    decision = decide([vm(7, A, **template)], host(1), seen(first=(A,)))
    assert any(isinstance(move, Assign) for move in decision.moves) == assigned


def test_the_room_goes_to_the_vms_that_are_first() -> None:
    decision = decide([vm(7, A), vm(8, B)], host(1), seen(second=(A, B), limit=2))
    assert {move.vm_id for move in decision.moves} == {7}
    assert list(decision.refusals) == [8]
    assert "has 2 of 2 addresses, no room for 10.0.0.12" in decision.refusals[8].what


def test_vms_that_share_an_address_each_need_it() -> None:
    decision = decide([vm(7, A), vm(8, A)], host(1), seen(second=(A,), limit=2))
    assert [move.vm_id for move in decision.moves if isinstance(move, Assign)] == [7, 8]
    assert decision.refusals == {}


@pytest.mark.parametrize(
    ("address", "what"),
    [
        (Address(A, "", "eipalloc-11", 5), f"{A} is not what an address range of network 5 gives now"),
        (Address(A, "", "eipalloc-12", 0), "'eipalloc-12' is not the Elastic IP that network 0 gives now"),
    ],
)
def test_what_no_network_of_the_vm_gives_is_refused_wherever_it_is(address: Address, what: str) -> None:
    for there in ((), (A,)):
        decision = decide([vm(7)._replace(addresses=(address,))], host(1), seen(first=there))
        assert decision.moves == []
        assert decision.refusals[7].what == what


def test_an_address_without_its_elastic_ip_is_followed_alone() -> None:
    decision = decide([vm(7)._replace(addresses=(Address(A, "", "", 0),))], host(1), seen(second=(A,)))
    assert [type(move) for move in decision.moves] == [Assign, Tell]


def test_a_vm_whose_private_address_cannot_come_has_no_moves() -> None:
    decision = decide([vm(7, "10.0.0.2")], host(1), seen())
    assert decision.moves == []
    assert decision.refusals[7].what == "10.0.0.2 is the primary address of eni-2 and never moves"
    assert failure(decision.refusals[7])["AWS_EIP_HOST"] == ""


def test_a_vm_whose_elastic_ip_cannot_lead_has_its_private_address_and_that_is_kept_in_mind() -> None:
    world = seen(second=(A,))
    decision = decide([vm(7, A)], host(1), world._replace(elastic_ips={}))
    assert decision.moves == [Assign(7, A, "eni-2", "eni-1")]
    error = decision.refusals[7]
    assert isinstance(error, PlacedError)
    assert error.remedy == "detach it from the VM; the private addresses are on h1"
    assert failure(error)["AWS_EIP_HOST"] == "1"
