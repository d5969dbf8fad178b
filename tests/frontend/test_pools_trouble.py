"""Elastic IP pools in trouble: contradictions, no room, and an EC2 that is slow or refuses."""

from __future__ import annotations

from collections.abc import Mapping

import pyone
import pytest

from tests.world.ec2.region import Rate
from vnm_aws.frontend import listing, pools
from vnm_aws.frontend.oned import Oned as Client

from .cloud import Cloud
from .test_pools import ASSIGN, ASSOCIATE, allocation, associate, disassociate, fine, metal, private_ip, reports, sync

STAGING = {"Pool": "staging"}


def set_filter(cloud: Cloud, pool: int, text: str) -> None:
    """Do what `onevnet update --append` does with a pool's filter."""
    one = pyone.OneServer(cloud.oned.endpoint, session=cloud.oned.session)
    one.vn.update(pool, f'AWS_EIP_POOL="{text}"', 1)


# Contradictions.


def test_of_two_pools_with_one_elastic_ip_the_older_keeps_it(cloud: Cloud) -> None:
    metal(cloud, "h1")
    older, younger = cloud.add_pool(), cloud.add_pool("second")
    (eip,) = cloud.add_eips(1)
    for _ in range(2):
        outcome = sync(cloud)
        assert [one.text for one in outcome.problems] == [
            "belongs to two pools, networks public and second; change its tags or AWS_EIP_POOL of one (network public keeps it)"
        ]
        assert (len(cloud.network(older).ranges), cloud.network(younger).ranges) == (1, ())
    assert cloud.mutating_calls() == []
    assert cloud.leads_to(eip)[1] == private_ip(cloud, older, eip)


def test_a_pool_that_gets_the_tags_of_a_younger_one_takes_what_is_not_leased_there(cloud: Cloud) -> None:
    metal(cloud, "h1")
    older, younger = cloud.add_pool(AWS_EIP_POOL="tag:Pool=none"), cloud.add_pool("second")
    leased, unused = cloud.add_eips(2)
    sync(cloud)
    vm_id = cloud.run_vm(younger, [0], "h1")
    there = {eip: cloud.leads_to(eip) for eip in (leased, unused)}
    set_filter(cloud, older, "tag:Pool=web")
    outcome = sync(cloud)
    assert "is leased from range 0 of network second still; detach it there first" in reports(
        outcome, f"Elastic IP {leased}"
    )
    assert (
        f"belongs to an older pool, but range 0 of network second is in use by VM {vm_id}; detach it there"
        in reports(outcome, f"Elastic IP {leased}")
    )
    assert [one.attributes["EXTERNAL_IP"] for one in cloud.network(older).ranges] == [unused]
    assert [one.attributes["EXTERNAL_IP"] for one in cloud.network(younger).ranges] == [leased]
    cloud.oned.unlease(younger, 0, vm_id)
    sync(cloud)
    assert {eip: private_ip(cloud, older, eip) for eip in there} == {eip: at for eip, (_, at) in there.items()}
    assert {eip: cloud.leads_to(eip) for eip in there} == there
    assert cloud.network(younger).ranges == ()


def test_an_elastic_ip_with_the_tag_of_another_pool_moves_there_when_it_is_not_leased(cloud: Cloud) -> None:
    metal(cloud, "h1")
    web, staging = cloud.add_pool(), cloud.add_pool("staging", AWS_EIP_POOL="tag:Pool=staging")
    (eip,) = cloud.add_eips(1)
    sync(cloud)
    vm_id = cloud.run_vm(web, [0], "h1")
    disassociate(cloud, eip)
    cloud.ec2.tag(allocation(cloud, eip), **STAGING)
    outcome = sync(cloud)
    assert len(reports(outcome, f"Elastic IP {eip}")) == 2
    assert cloud.network(staging).ranges == ()
    cloud.oned.unlease(web, 0, vm_id)
    fine(sync(cloud))
    assert cloud.network(web).ranges == ()
    assert cloud.leads_to(eip)[1] == private_ip(cloud, staging, eip)


def test_a_reservation_of_a_pool_is_no_pool(cloud: Cloud) -> None:
    # The stand-in knows no reservations: a network that oned makes of another's template, with that one's ranges.
    metal(cloud, "h1")
    pool, reservation = cloud.add_pool(), cloud.add_pool("reserved")
    cloud.add_eips(1)
    sync(cloud, str(pool))
    world = cloud.world()
    known = [one if one.network_id == pool else one._replace(parent=str(pool)) for one in world.networks]
    world.networks = known
    (reserved,) = [one for one in known if one.network_id == reservation]
    assert [one.network_id for one in pools.pools(world)] == [pool]
    plan = pools.plan(world, reserved._replace(ranges=cloud.network(pool).ranges))
    assert (plan.changes, plan.problems) == ([], [])


def test_ranges_with_one_elastic_ip_that_are_both_leased_are_reported(cloud: Cloud) -> None:
    """Idle ones are removed: see test_long_run.py."""
    metal(cloud, "h1")
    pool = cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    sync(cloud)
    Client().add_range(
        pool, {"TYPE": "IP4", "IP": "192.168.0.9", "SIZE": "1", **cloud.network(pool).ranges[0].attributes}
    )
    for ar_id in (0, 1):
        cloud.run_vm(pool, [ar_id], "h1")
    outcome = sync(cloud)
    assert reports(outcome, f"Elastic IP {eip}") == [
        f"is in the address ranges 0 and 1 of network public, which would lease it twice; run 'onevnet rmar {pool} 1'"
    ]
    assert cloud.ec2.mutating_calls() == []


def test_elastic_ips_of_others_are_reported_each_for_itself_and_never_touched(cloud: Cloud) -> None:
    (host,) = metal(cloud, "h1")
    (stranger,) = cloud.ec2.add_instances(["database"])
    cloud.add_pool()
    elsewhere, primary = cloud.add_eips(2)
    associate(cloud, elsewhere, stranger, "10.0.0.66")
    cloud.ec2.client.associate_address(AllocationId=allocation(cloud, primary), InstanceId=host.instance_id)
    outcome = sync(cloud)
    assert reports(outcome, f"Elastic IP {elsewhere}") == [
        f"is in a pool, but associated with {stranger.eni_id}, which is no OpenNebula host; disassociate it there, or remove "
        "its tag"
    ]
    assert reports(outcome, f"Elastic IP {primary}") == [
        "is in a pool, but it is the public address of host h1 itself; disassociate it, or remove its tag"
    ]
    assert cloud.mutating_calls() == []
    assert (cloud.leads_to(elsewhere)[1], cloud.leads_to(primary)[1]) == ("10.0.0.66", host.private_ip)


def test_an_elastic_ip_that_was_given_to_somebody_else_keeps_its_range_and_is_reported(cloud: Cloud) -> None:
    metal(cloud, "h1")
    (stranger,) = cloud.ec2.add_instances(["database"])
    pool = cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    sync(cloud)
    associate(cloud, eip, stranger, "10.0.0.66")
    assert len(reports(sync(cloud), f"Elastic IP {eip}")) == 1
    assert (private_ip(cloud, pool, eip), cloud.mutating_calls()) == ("10.0.0.254", [])


def test_an_address_that_gets_another_elastic_ip_in_that_moment_is_not_taken_from_it(cloud: Cloud) -> None:
    (host,) = metal(cloud, "h1")
    cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    (other,) = cloud.add_eips(1, {})
    cloud.oned.before("one.vn.add_ar", lambda: associate(cloud, other, host, "10.0.0.254"))
    (text,) = reports(sync(cloud), f"Elastic IP {eip}")
    assert text == f"10.0.0.254 has the Elastic IP {other} already, so {eip} cannot have it; disassociate one"
    fine(sync(cloud))
    assert (cloud.leads_to(other)[1], cloud.leads_to(eip)[1]) == ("10.0.0.254", "10.0.0.253")


# What cannot be.


@pytest.mark.parametrize("text", ["Pool=web", "tag:Pool", "tag:=web", "tag:Pool=web,,", "tag:Pool="])
def test_a_bad_filter_changes_nothing_and_hinders_no_other_pool(cloud: Cloud, text: str) -> None:
    metal(cloud, "h1")
    bad = cloud.add_pool("bad")
    cloud.add_pool("good")
    (eip,) = cloud.add_eips(1)
    sync(cloud)
    set_filter(cloud, bad, text)
    outcome = sync(cloud)
    (report,) = outcome.problems
    assert report.target == "network bad"
    assert report.text.startswith(f"AWS_EIP_POOL {text!r} is not a tag filter like tag:Pool=web")
    assert (len(cloud.network(bad).ranges), cloud.ec2.mutating_calls()) == (1, [])
    lines = {(one["NETWORK"], one["STATUS"]) for one in listing.elastic_ip_lines(cloud.world(), set())}
    assert ("bad", "ok") in lines
    assert cloud.leads_to(eip)[1] == private_ip(cloud, bad, eip)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"NETWORK_MASK": ""},
            "network public is an Elastic IP pool without NETWORK_ADDRESS and NETWORK_MASK; add both with 'onevnet update 0'",
        ),
        ({"NETWORK_MASK": "255.0.255.0"}, "'255.0.255.0' is not a network mask like 255.255.255.0; correct it"),
        ({"NETWORK_MASK": "many"}, "'many' is not a network mask like 255.255.255.0; correct it"),
    ],
)
def test_every_elastic_ip_says_what_its_network_lacks(cloud: Cloud, values: Mapping[str, str], says: str) -> None:
    metal(cloud, "h1")
    cloud.add_pool("public", True, **values)
    eips = cloud.add_eips(2)
    outcome = sync(cloud)
    for eip in eips:
        (text,) = reports(outcome, f"Elastic IP {eip}")
        assert says in text
    assert cloud.mutating_calls() == []


@pytest.mark.parametrize("mask", ["255.255.255.248", "29"])
def test_a_network_that_is_full_is_reported_for_those_that_find_no_address(cloud: Cloud, mask: str) -> None:
    metal(cloud, "h1")
    pool = cloud.add_pool(NETWORK_MASK=mask)
    eips = cloud.add_eips(6)
    outcome = sync(cloud)
    assert [one.ip for one in cloud.network(pool).ranges] == [f"192.168.0.{last}" for last in range(2, 7)]
    assert [(one.target, one.text) for one in outcome.problems] == [
        (
            f"Elastic IP {eips[-1]}",
            "network public has no free address for another range; enlarge its NETWORK_MASK",
        )
    ]


def test_when_a_subnet_is_exhausted_another_is_used_and_then_both_are_named(cloud: Cloud) -> None:
    subnets = [cloud.ec2.add_subnet("10.0.1.0/28"), cloud.ec2.add_subnet("10.0.2.0/28")]
    (first,) = metal(cloud, "h1", subnet=subnets[0])
    (second,) = metal(cloud, "h2", subnet=subnets[1], instance_type="m5.xlarge")
    for host, count in ((first, 8), (second, 9)):
        cloud.ec2.client.assign_private_ip_addresses(
            NetworkInterfaceId=host.eni_id, SecondaryPrivateIpAddressCount=count
        )
    pool = cloud.add_pool()
    eips = cloud.add_eips(4)
    outcome = sync(cloud)
    assert [cloud.leads_to(eip)[0] for eip in eips] == [first.eni_id, first.eni_id, second.eni_id, ""]
    assert reports(outcome, f"Elastic IP {eips[-1]}") == [
        f"the subnets {' '.join(sorted(subnets))} have no free address; free some, or use a larger subnet"
    ]
    assert len(cloud.network(pool).ranges) == 3


def test_hosts_get_no_more_addresses_than_their_type_allows(cloud: Cloud) -> None:
    metal(cloud, "h1", "h2", instance_type="t3.micro")
    pool = cloud.add_pool()
    eips = cloud.add_eips(3)
    outcome = sync(cloud)
    (text,) = reports(outcome, f"Elastic IP {eips[2]}")
    assert "no host has room for another private address (h" in text
    assert {"h1 has 2 of 2", "h2 has 2 of 2"} <= set(text.partition("(")[2].partition(")")[0].split(", "))
    assert cloud.ec2.mutating_calls() == [ASSIGN] * 2 + [ASSOCIATE] * 2
    assert (len(cloud.network(pool).ranges), cloud.host("h1").template["EC2_FREE_ADDRESSES"]) == (2, "1")
    metal(cloud, "h3", instance_type="t3.micro")
    fine(sync(cloud))
    assert len({cloud.leads_to(eip)[0] for eip in eips}) == 3


def test_without_hosts_every_elastic_ip_says_that_there_is_no_room(cloud: Cloud) -> None:
    cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    assert reports(sync(cloud), f"Elastic IP {eip}") == [
        "no host has room for another private address; add a host, or remove Elastic IPs from the pool"
    ]


def test_a_change_that_fails_hinders_no_other_and_is_made_up_for(cloud: Cloud) -> None:
    metal(cloud, "h1", "h2")
    pool = cloud.add_pool()
    eips = cloud.add_eips(2)
    cloud.ec2.fail_next(ASSIGN, "PrivateIpAddressLimitExceeded")
    (text,) = reports(sync(cloud), f"Elastic IP {eips[0]}")
    assert "PrivateIpAddressLimitExceeded" in text
    assert (cloud.leads_to(eips[0]), cloud.leads_to(eips[1])[1]) == (("", ""), "10.0.0.253")
    assert len(cloud.network(pool).ranges) == 1
    fine(sync(cloud))
    assert cloud.leads_to(eips[0])[1] == private_ip(cloud, pool, eips[0]) == "10.0.0.254"


def test_what_concerns_all_calls_is_asked_once(cloud: Cloud) -> None:
    metal(cloud, "h1", "h2", "h3")
    pool = cloud.add_pool()
    eips = cloud.add_eips(3)
    cloud.ec2.fail_next(ASSIGN, "UnauthorizedOperation", times=9)
    outcome = sync(cloud)
    assert all("UnauthorizedOperation" in "".join(reports(outcome, f"Elastic IP {eip}")) for eip in eips)
    assert (cloud.mutating_calls(), cloud.network(pool).ranges) == ([ASSIGN], ())


# An EC2 that is slow.


def test_a_throttled_run_ends_as_every_other(cloud: Cloud) -> None:
    metal(cloud, "h1")
    pool = cloud.add_pool()
    eips = cloud.add_eips(3)
    cloud.ec2.set_throttle(mutating=Rate(1, 0.5), describe=Rate(4, 8))
    fine(sync(cloud))
    assert len(cloud.ec2.mutating_calls()) > 4  # one for all addresses, one for each association
    assert [cloud.leads_to(eip)[1] for eip in eips] == [private_ip(cloud, pool, eip) for eip in eips]
    assert len({cloud.leads_to(eip)[1] for eip in eips}) == 3


def test_changes_that_show_late_are_made_once(cloud: Cloud) -> None:
    metal(cloud, "h1", "h2")
    pool = cloud.add_pool()
    eips = cloud.add_eips(2)
    cloud.ec2.set_visibility_delay(0.5)
    fine(sync(cloud))
    assert cloud.ec2.mutating_calls() == [ASSIGN] * 2 + [ASSOCIATE] * 2
    assert fine(sync(cloud)) == []
    assert cloud.mutating_calls() == []
    assert [cloud.leads_to(eip)[1] for eip in eips] == [private_ip(cloud, pool, eip) for eip in eips]


def test_a_change_that_does_not_show_in_time_is_a_problem_and_the_next_run_finds_it_done(cloud: Cloud) -> None:
    metal(cloud, "h1")
    cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    cloud.configure(ec2_timeout=1)
    cloud.ec2.set_visibility_delay(3)
    (text,) = reports(sync(cloud), f"Elastic IP {eip}")
    assert text.startswith("EC2 took 10.0.0.254 on eni-")
    assert text.endswith("but does not show it after 1 s; run 'oneaws reconcile' later")
    cloud.ec2.set_visibility_delay(0)
    fine(sync(cloud))
    assert cloud.ec2.mutating_calls() == [ASSOCIATE]
