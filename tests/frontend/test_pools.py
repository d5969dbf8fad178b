"""Elastic IP pools: the ranges of a network follow the Elastic IPs with its tags, and what administrators do by hand."""

from __future__ import annotations

import pytest

from tests.world.ec2.region import Instance
from vnm_aws.frontend import reconcile
from vnm_aws.frontend.attempts import Attempts
from vnm_aws.frontend.objects import AddressRange
from vnm_aws.frontend.oned import Oned as Client
from vnm_aws.frontend.plan import Outcome
from vnm_aws.names import ENI_ID, FREE_ADDRESSES, INSTANCE_ID, INSTANCE_TYPE

from .cloud import Cloud

ASSOCIATE, ASSIGN, UNASSIGN = "AssociateAddress", "AssignPrivateIpAddresses", "UnassignPrivateIpAddresses"


_ROOM = {"c5n.metal": 49, "m5.xlarge": 14, "t3.micro": 1}


def metal(cloud: Cloud, *names: str, instance_type: str = "c5n.metal", subnet: str | None = None) -> list[Instance]:
    """Run instances and make them hosts, as `oneaws host sync` would."""
    made = cloud.add_metal(*names, instance_type=instance_type, subnet=subnet)
    for one in made:
        values = {
            INSTANCE_ID: one.instance_id,
            INSTANCE_TYPE: instance_type,
            ENI_ID: one.eni_id,
            FREE_ADDRESSES: str(_ROOM[instance_type]),
        }
        cloud.oned.add_host(one.name, template="\n".join(f'{key}="{value}"' for key, value in values.items()))
    return made


def sync(cloud: Cloud, *names: str) -> Outcome:
    """What `oneaws eip sync` does, in this process; the record of calls begins anew."""
    cloud.forget_calls()
    world, outcome = cloud.world(), Outcome()
    reconcile.carry_out(world, reconcile.of_pools(world, names), outcome)
    return outcome


def fine(outcome: Outcome) -> list[str]:
    """The changes to Elastic IPs of a run that must have met no problem."""
    assert outcome.problems == []
    return [text for target, text in outcome.done if target.startswith("Elastic IP")]


def reports(outcome: Outcome, target: str) -> list[str]:
    """What a run says is wrong with something."""
    return [one.text for one in outcome.problems if one.target == target]


def range_of(cloud: Cloud, pool: int, eip: str) -> AddressRange:
    """The one range of an Elastic IP."""
    (found,) = [one for one in cloud.network(pool).ranges if one.attributes.get("EXTERNAL_IP") == eip]
    return found


def private_ip(cloud: Cloud, pool: int, eip: str) -> str:
    """The private address in the range of an Elastic IP."""
    return range_of(cloud, pool, eip).attributes["AWS_PRIVATE_IP"]


def allocation(cloud: Cloud, eip: str) -> str:
    """The allocation id of an Elastic IP."""
    found = cloud.ec2.client.describe_addresses(PublicIps=[eip])["Addresses"]
    return str(found[0]["AllocationId"])


def associate(cloud: Cloud, eip: str, host: Instance, address: str) -> None:
    """Associate an Elastic IP by hand with a secondary address of an instance."""
    cloud.ec2.give_eip(allocation(cloud, eip), host.eni_id, address)


def disassociate(cloud: Cloud, eip: str) -> None:
    """Disassociate an Elastic IP by hand."""
    found = cloud.ec2.client.describe_addresses(PublicIps=[eip])["Addresses"]
    cloud.ec2.client.disassociate_address(AssociationId=found[0]["AssociationId"])


def release(cloud: Cloud, eip: str) -> None:
    """Release an Elastic IP by hand."""
    disassociate(cloud, eip)
    cloud.ec2.client.release_address(AllocationId=allocation(cloud, eip))


def untag(cloud: Cloud, eip: str) -> None:
    """Take the tag of the pool from an Elastic IP."""
    cloud.ec2.client.delete_tags(Resources=[allocation(cloud, eip)], Tags=[{"Key": "Pool"}])


# Filling a pool.


def test_each_elastic_ip_gets_a_range_and_a_private_address_and_leads_there(cloud: Cloud) -> None:
    instances = metal(cloud, "h1", "h2")
    pool = cloud.add_pool()
    eips = cloud.add_eips(3)
    (stranger,) = cloud.add_eips(1, {"Pool": "other"})
    assert len(fine(sync(cloud))) == 3
    network = cloud.network(pool)
    assert [(one.ip, one.size) for one in network.ranges] == [(f"192.168.0.{last}", 1) for last in (2, 3, 4)]
    for held, eip in zip(network.ranges, eips, strict=True):
        address = held.attributes["AWS_PRIVATE_IP"]
        assert held.attributes == {
            "EXTERNAL_IP": eip,
            "AWS_PRIVATE_IP": address,
            "AWS_ALLOCATION_ID": allocation(cloud, eip),
        }
        assert cloud.leads_to(eip) in [(one.eni_id, address) for one in instances if address in cloud.addresses(one)]
    assert len({private_ip(cloud, pool, eip) for eip in eips}) == 3
    assert cloud.leads_to(stranger) == ("", "")
    assert cloud.host("h1").template["EC2_FREE_ADDRESSES"] == "49"


def test_a_second_run_changes_nothing(cloud: Cloud) -> None:
    metal(cloud, "h1")
    cloud.add_pool()
    cloud.add_eips(3)
    sync(cloud)
    outcome = sync(cloud)
    assert (outcome.done, outcome.problems, cloud.mutating_calls()) == ([], [], [])


def test_new_private_addresses_go_where_most_room_is(cloud: Cloud) -> None:
    first, second, third = metal(cloud, "h1", "h2", "h3")
    cloud.ec2.client.assign_private_ip_addresses(
        NetworkInterfaceId=second.eni_id, PrivateIpAddresses=["10.0.0.50", "10.0.0.51"]
    )
    cloud.add_pool()
    cloud.add_eips(7)
    fine(sync(cloud))
    assert [len(cloud.addresses(one)) for one in (first, second, third)] == [3, 3, 3]


def test_an_elastic_ip_at_a_secondary_address_of_a_host_keeps_it(cloud: Cloud) -> None:
    (host,) = metal(cloud, "h1")
    pool = cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    associate(cloud, eip, host, "10.0.0.77")
    fine(sync(cloud))
    assert private_ip(cloud, pool, eip) == "10.0.0.77"
    assert cloud.ec2.mutating_calls() == []


def test_a_range_takes_no_address_that_another_range_or_the_gateway_has(cloud: Cloud) -> None:
    metal(cloud, "h1")
    pool = cloud.add_pool(
        GATEWAY="192.168.0.3",
        AR='AR=[ TYPE="IP4", IP="192.168.0.1", SIZE="2" ]\nAR=[ TYPE="IP4", IP="192.168.0.4", SIZE="6" ]',
    )
    cloud.add_eips(2)
    fine(sync(cloud))
    assert [one.ip for one in cloud.network(pool).ranges[2:]] == ["192.168.0.10", "192.168.0.11"]
    assert fine(sync(cloud)) == []


def test_an_address_that_was_refused_or_is_noted_in_another_network_is_not_taken(cloud: Cloud) -> None:
    metal(cloud, "h1")
    pool = cloud.add_pool()
    cloud.add_network("other", AR='AR=[ TYPE="IP4", IP="10.9.0.2", SIZE="1", AWS_PRIVATE_IP="10.0.0.253" ]')
    (eip,) = cloud.add_eips(1)
    Attempts(str(cloud.directory / "state")).refuse(["10.0.0.254"])
    fine(sync(cloud))
    assert private_ip(cloud, pool, eip) == "10.0.0.252"


@pytest.mark.parametrize(
    "text", ['{"refused": {"10.0.0.254": 1}, "meant": {"eipalloc-1": ["10.0.0.254", 1]}}', "not JSON", "[1]", "{}"]
)
def test_attempts_of_long_ago_or_that_cannot_be_read_say_nothing(cloud: Cloud, text: str) -> None:
    state = cloud.directory / "state"
    (state / "attempts.json").write_text(text)
    assert (Attempts(str(state)).refused("10.0.0.254"), Attempts(str(state)).meant("eipalloc-1")) == (False, "")
    Attempts(str(state)).refuse(["10.0.0.9"])
    Attempts(str(state)).mean({"eipalloc-2": "10.0.0.8"})
    attempts = Attempts(str(state))
    assert (attempts.refused("10.0.0.9"), attempts.meant("eipalloc-2")) == (True, "10.0.0.8")
    assert (attempts.refused("10.0.0.254"), attempts.meant("eipalloc-1")) == (False, "")


# Tags come and go.


def test_an_unused_range_comes_and_goes_with_the_tag_and_the_association_stays(cloud: Cloud) -> None:
    metal(cloud, "h1")
    pool = cloud.add_pool()
    first, second = cloud.add_eips(2)
    sync(cloud)
    there = cloud.leads_to(second)
    untag(cloud, second)
    assert fine(sync(cloud)) == ["remove range 1 of network public: it has not the pool's tags any more"]
    assert [one.attributes["EXTERNAL_IP"] for one in cloud.network(pool).ranges] == [first]
    cloud.ec2.tag(allocation(cloud, second), Pool="web")
    assert fine(sync(cloud)) == [f"add range 192.168.0.3 with {there[1]} to network public"]
    assert cloud.leads_to(second) == there
    assert cloud.ec2.mutating_calls() == []


def test_a_range_in_use_outlives_the_tag_and_is_reported(cloud: Cloud) -> None:
    metal(cloud, "h1")
    pool = cloud.add_pool()
    leased, held = cloud.add_eips(2)
    sync(cloud)
    vm_id = cloud.run_vm(pool, [0], "h1")
    cloud.oned.lease(pool, 1, -1)
    for eip in (leased, held):
        untag(cloud, eip)
    sync(cloud)
    outcome = sync(cloud)
    for eip, number, owner in ((leased, 0, f"VM {vm_id}"), (held, 1, "a held lease")):
        assert reports(outcome, f"Elastic IP {eip}") == [
            f"has not the pool's tags any more, but range {number} of network public is in use by {owner}; detach it there, "
            "or give it the tag again"
        ]
    assert (outcome.done, len(cloud.network(pool).ranges)) == ([], 2)
    cloud.oned.unlease(pool, 0, vm_id)
    cloud.oned.unlease(pool, 1, -1)
    fine(sync(cloud))
    assert cloud.network(pool).ranges == ()


def test_a_pool_on_which_the_update_of_a_vm_failed_goes_on_and_loses_nothing_to_a_younger_one(cloud: Cloud) -> None:
    metal(cloud, "h1")
    pool, (first,) = cloud.add_pool(), cloud.add_eips(1)
    cloud.oned.fail_vnet_update(pool)
    younger = cloud.add_pool("younger", NETWORK_ADDRESS="192.168.7.0", GATEWAY="192.168.7.1")
    outcome = sync(cloud)
    assert [one.target for one in outcome.problems] == [f"Elastic IP {first}"], "both pools want it"
    assert range_of(cloud, pool, first)
    assert cloud.network(younger).ranges == ()


def test_a_pool_takes_only_elastic_ips_that_have_all_its_tags(cloud: Cloud) -> None:
    metal(cloud, "h1")
    pool = cloud.add_pool(AWS_EIP_POOL="tag:Pool=web, tag:Stage=live")
    cloud.add_eips(1)
    (eip,) = cloud.add_eips(1, {"Pool": "web", "Stage": "live"})
    fine(sync(cloud))
    assert [one.attributes["EXTERNAL_IP"] for one in cloud.network(pool).ranges] == [eip]


# What administrators change in AWS and in OpenNebula.


def test_an_unused_range_follows_its_elastic_ip_and_keeps_what_the_administrator_added(cloud: Cloud) -> None:
    (host,) = metal(cloud, "h1")
    pool = cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    sync(cloud)
    own = {"NOTE": 'for "web", \\ [x]', "GATEWAY": "192.168.0.1"}
    before = range_of(cloud, pool, eip)
    Client().update_range(pool, before.ar_id, {**before.attributes, **own})
    associate(cloud, eip, host, "10.0.0.88")
    assert fine(sync(cloud)) == ["set range 0 of network public to 10.0.0.88"]
    assert cloud.ec2.mutating_calls() == []
    after = range_of(cloud, pool, eip)
    assert after == before._replace(attributes={**before.attributes, **own, "AWS_PRIVATE_IP": "10.0.0.88"})


def test_a_leased_range_stays_when_its_elastic_ip_is_led_elsewhere_and_that_is_reported(cloud: Cloud) -> None:
    (host,) = metal(cloud, "h1")
    pool = cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    sync(cloud)
    before = cloud.network(pool).ranges[0].attributes
    cloud.run_vm(pool, [0], "h1")
    associate(cloud, eip, host, "10.0.0.88")
    (text,) = reports(sync(cloud), f"Elastic IP {eip}")
    assert text.startswith("leads to 10.0.0.88, but range 0 of network public is leased with 10.0.0.254;")
    assert (cloud.network(pool).ranges[0].attributes, cloud.ec2.mutating_calls()) == (before, [])


def test_a_range_that_is_leased_in_that_moment_does_not_follow(cloud: Cloud) -> None:
    (host,) = metal(cloud, "h1")
    pool = cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    sync(cloud)
    associate(cloud, eip, host, "10.0.0.88")

    def lease() -> None:
        cloud.oned.lease(pool, 0, 7)

    cloud.oned.before("one.vn.info", lambda: None)  # the plan reads it, and then the change
    cloud.oned.before("one.vn.info", lease)
    (text,) = reports(sync(cloud), f"Elastic IP {eip}")
    assert "has been leased just now" in text
    assert private_ip(cloud, pool, eip) == "10.0.0.254"


def test_elastic_ips_that_change_places_take_their_unused_ranges_along(cloud: Cloud) -> None:
    (host,) = metal(cloud, "h1")
    pool = cloud.add_pool()
    first, second = cloud.add_eips(2)
    sync(cloud)
    associate(cloud, first, host, private_ip(cloud, pool, second))
    fine(sync(cloud))
    assert private_ip(cloud, pool, first) == "10.0.0.253"
    assert private_ip(cloud, pool, second) not in ("10.0.0.253", "")
    for eip in (first, second):
        assert cloud.leads_to(eip) == (host.eni_id, private_ip(cloud, pool, eip))
    assert fine(sync(cloud)) == []


def test_an_elastic_ip_led_to_the_address_of_a_leased_range_is_reported_and_not_given_away(cloud: Cloud) -> None:
    (host,) = metal(cloud, "h1")
    pool = cloud.add_pool()
    first, second = cloud.add_eips(2)
    sync(cloud)
    cloud.run_vm(pool, [1], "h1")
    associate(cloud, first, host, private_ip(cloud, pool, second))
    outcome = sync(cloud)
    assert reports(outcome, f"Elastic IP {first}") == [
        "leads to 10.0.0.253, which is that of the leased range 1 of network public; disassociate it, or associate it with "
        "another address"
    ]
    assert (private_ip(cloud, pool, first), cloud.ec2.mutating_calls()) == ("10.0.0.254", [])


def test_an_elastic_ip_that_was_disassociated_is_associated_again(cloud: Cloud) -> None:
    metal(cloud, "h1")
    cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    sync(cloud)
    there = cloud.leads_to(eip)
    disassociate(cloud, eip)
    fine(sync(cloud))
    assert cloud.leads_to(eip) == there
    assert cloud.mutating_calls() == [ASSOCIATE]


def test_a_private_address_that_was_taken_away_comes_back(cloud: Cloud) -> None:
    (host,) = metal(cloud, "h1")
    cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    sync(cloud)
    there = cloud.leads_to(eip)
    cloud.ec2.client.unassign_private_ip_addresses(NetworkInterfaceId=host.eni_id, PrivateIpAddresses=[there[1]])
    fine(sync(cloud))
    assert cloud.leads_to(eip) == there
    assert cloud.ec2.mutating_calls() == [ASSIGN, ASSOCIATE]


def test_a_range_with_a_text_that_is_no_address_gets_one(cloud: Cloud) -> None:
    metal(cloud, "h1")
    pool = cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    sync(cloud)
    disassociate(cloud, eip)
    wrong = range_of(cloud, pool, eip)
    Client().update_range(pool, wrong.ar_id, {**wrong.attributes, "AWS_PRIVATE_IP": "10.0.0.300"})
    assert len(fine(sync(cloud))) == 1
    assert cloud.leads_to(eip)[1] == range_of(cloud, pool, eip).attributes["AWS_PRIVATE_IP"] != "10.0.0.300"


def test_a_private_address_that_somebody_else_has_taken_is_replaced(cloud: Cloud) -> None:
    (host,) = metal(cloud, "h1")
    (stranger,) = cloud.ec2.add_instances(["database"])
    pool = cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    sync(cloud)
    disassociate(cloud, eip)
    cloud.ec2.move_private_ip("10.0.0.254", stranger.eni_id)
    fine(sync(cloud))
    assert cloud.leads_to(eip) == (host.eni_id, "10.0.0.253") == (host.eni_id, private_ip(cloud, pool, eip))
    assert cloud.addresses(stranger) == {"10.0.0.254"}


def test_a_released_elastic_ip_loses_its_range_and_its_private_address(cloud: Cloud) -> None:
    (host,) = metal(cloud, "h1")
    pool = cloud.add_pool()
    gone, kept = cloud.add_eips(2)
    sync(cloud)
    release(cloud, gone)
    fine(sync(cloud))
    assert [one.attributes["EXTERNAL_IP"] for one in cloud.network(pool).ranges] == [kept]
    assert cloud.addresses(host) == {private_ip(cloud, pool, kept)}
    assert cloud.ec2.mutating_calls() == [UNASSIGN]
    assert cloud.host("h1").template["EC2_FREE_ADDRESSES"] == "49"


def test_the_private_address_of_a_released_elastic_ip_stays_when_another_leads_there(cloud: Cloud) -> None:
    (host,) = metal(cloud, "h1")
    pool = cloud.add_pool()
    (gone,) = cloud.add_eips(1)
    sync(cloud)
    there = cloud.leads_to(gone)
    release(cloud, gone)
    (other,) = cloud.add_eips(1, {})
    associate(cloud, other, host, there[1])
    fine(sync(cloud))
    assert (cloud.network(pool).ranges, cloud.ec2.mutating_calls(), cloud.leads_to(other)) == ((), [], there)


def test_a_released_elastic_ip_that_is_in_use_is_reported_until_it_is_not(cloud: Cloud) -> None:
    (host,) = metal(cloud, "h1")
    pool = cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    sync(cloud)
    vm_id = cloud.run_vm(pool, [0], "h1")
    release(cloud, eip)
    outcome = sync(cloud)
    assert reports(outcome, f"Elastic IP {eip}") == [
        f"is not in this account any more, but range 0 of network public is in use by VM {vm_id}; detach it there"
    ]
    assert (cloud.ec2.mutating_calls(), len(cloud.addresses(host))) == ([], 1)
    cloud.oned.unlease(pool, 0, vm_id)
    fine(sync(cloud))
    assert (cloud.network(pool).ranges, cloud.addresses(host)) == ((), set())
