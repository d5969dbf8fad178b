"""Elastic IP pools that get many Elastic IPs at once: few calls, and the same end whatever happens in between."""

from __future__ import annotations

import time

from vnm_aws.frontend.filling import READY

from .cloud import Cloud
from .following import Site
from .test_pools import ASSIGN, ASSOCIATE, associate, fine, metal, private_ip, reports, sync


def test_a_pool_is_filled_by_one_assign_an_interface_and_confirmed_for_all_at_once(cloud: Cloud) -> None:
    cloud.ec2.set_elastic_ips(200)
    hosts = metal(cloud, "h1", "h2", "h3")
    pool = cloud.add_pool()
    eips = cloud.add_eips(100)
    cloud.ec2.set_visibility_delay(1)
    started = time.monotonic()
    assert len(fine(sync(cloud))) == 100
    assert time.monotonic() - started < 30
    assert len(cloud.ec2.calls()) <= 3 * len(eips) / 10 + 50
    assert cloud.ec2.mutating_calls() == [ASSIGN] * 3 + [ASSOCIATE] * READY
    ranges = cloud.network(pool).ranges
    assert [one.attributes["EXTERNAL_IP"] for one in ranges] == eips
    assert {one.attributes["AWS_PRIVATE_IP"] for one in ranges} == set().union(*map(cloud.addresses, hosts))
    assert (fine(sync(cloud)), cloud.mutating_calls()) == ([], [])


def test_few_elastic_ips_are_not_spread_over_many_hosts_by_a_call_each(cloud: Cloud) -> None:
    cloud.ec2.set_elastic_ips(200)
    metal(cloud, *(f"h{number}" for number in range(30)))
    cloud.add_pool()
    eips = cloud.add_eips(30)
    assert len(fine(sync(cloud))) == 30
    assert len(cloud.ec2.calls()) <= 3 * len(eips) / 10 + 50
    assert cloud.ec2.mutating_calls().count(ASSIGN) == 4


def test_an_elastic_ip_that_leads_nowhere_yet_is_led_to_the_vm_that_gets_it(cloud: Cloud) -> None:
    cloud.ec2.set_elastic_ips(200)
    hosts = cloud.add_metal("h1", "h2")
    site = Site(cloud, dict(zip(("h1", "h2"), hosts, strict=True)), cloud.add_pool())
    eips = cloud.add_eips(READY + 1)
    assert site.reconcile().problems == []
    assert [cloud.leads_to(eip) != ("", "") for eip in eips] == [True] * READY + [False]
    vm_id = site.run("h1", READY)
    assert site.hook(vm_id) == (0, "")
    site.is_right(vm_id, "h1")
    site.settled()


def test_what_a_run_has_assigned_and_could_not_write_down_is_used_by_the_next(cloud: Cloud) -> None:
    (host,) = metal(cloud, "h1")
    pool = cloud.add_pool()
    first, second = cloud.add_eips(2)
    cloud.oned.fail_next("one.vn.add_ar")
    assert len(sync(cloud).problems) == 1
    assert cloud.network(pool).values_of_ranges("EXTERNAL_IP") == [second]
    assert cloud.addresses(host) == {"10.0.0.254", "10.0.0.253"}
    fine(sync(cloud))
    assert cloud.ec2.mutating_calls() == [ASSOCIATE]
    assert (private_ip(cloud, pool, first), private_ip(cloud, pool, second)) == ("10.0.0.254", "10.0.0.253")
    assert cloud.leads_to(first) == (host.eni_id, "10.0.0.254")


def test_an_elastic_ip_that_is_led_elsewhere_in_that_moment_is_not_taken_back(cloud: Cloud) -> None:
    metal(cloud, "h1")
    (stranger,) = cloud.ec2.add_instances(["database"])
    cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    cloud.oned.before("one.vn.add_ar", lambda: associate(cloud, eip, stranger, "10.0.0.66"))
    (text,) = reports(sync(cloud), f"Elastic IP {eip}")
    assert "Resource.AlreadyAssociated" in text
    assert cloud.leads_to(eip) == (stranger.eni_id, "10.0.0.66")
