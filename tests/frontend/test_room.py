"""Room for VMs: idle addresses make way for those of VMs, full hosts exchange VMs, and further ENIs are used."""

from __future__ import annotations

import json

import pytest

from tests.sampling import Sampler
from tests.world.ec2.region import private_ips
from vnm_aws.errors import AwsOvsError

from .cloud import Cloud
from .following import ASSIGN, ASSOCIATE, Site, settle
from .test_follow_races import Hooks, kills

UNASSIGN = "UnassignPrivateIpAddresses"
SMALL = "d3.xlarge"
"""Three addresses an ENI, the primary one included."""


def full(cloud: Cloud) -> tuple[Site, dict[int, str]]:
    """Two small hosts that are full, and the VMs there, which have all the addresses."""
    site = settle(cloud, eips=4, instance_type=SMALL)
    where = {
        ar_id: next(name for name in site.hosts if site.address(ar_id).private_ip in site.at(name))
        for ar_id in range(4)
    }
    vms = {site.run(host, ar_id): host for ar_id, host in where.items()}
    assert site.reconcile().problems == []
    cloud.forget_calls()
    return site, vms


def other(host: str) -> str:
    """The other one of two hosts."""
    return {"h1": "h2", "h2": "h1"}[host]


# Idle addresses


def test_idle_addresses_count_as_free_and_of_twenty_vms_on_one_host_none_fails(cloud: Cloud) -> None:
    site = settle(cloud, eips=160, hosts=("h1", "h2", "h3", "h4"))
    assert set(site.free().values()) == {"49"}
    vms = [site.run("h1", ar_id) for ar_id in range(20)]
    for vm_id in vms[:3]:
        assert site.hook(vm_id) == (0, "")
    assert site.reconcile().problems == []
    for vm_id in vms:
        site.is_right(vm_id, "h1")
    assert site.free() == {"h1": "29", "h2": "49", "h3": "49", "h4": "49"}
    site.settled()


def test_an_idle_address_moves_with_its_elastic_ip_to_a_host_with_room(cloud: Cloud) -> None:
    site = settle(cloud, eips=3, instance_type=SMALL)
    idle = {name: site.at(name) for name in site.hosts}
    full_host = next(name for name, addresses in idle.items() if len(addresses) == 2)
    ar_id = next(ar_id for ar_id in range(3) if site.address(ar_id).private_ip not in idle[full_host])
    vm_id = site.run(full_host, ar_id)
    assert site.hook(vm_id) == (0, "")
    assert site.cloud.ec2.mutating_calls() == [ASSIGN, ASSIGN]
    site.is_right(vm_id, full_host)
    site.settled()
    assert all(cloud.leads_to(site.address(each).external_ip)[1] for each in range(3))


def test_on_small_hosts_that_a_pool_fills_every_vm_gets_its_addresses(cloud: Cloud) -> None:
    site = settle(cloud, eips=4, instance_type=SMALL)
    assert site.free() == {"h1": "2", "h2": "2"}
    vms = {site.run("h1", ar_id): "h1" for ar_id in (0, 1)} | {site.run("h2", ar_id): "h2" for ar_id in (2, 3)}
    for vm_id in vms:
        assert site.hook(vm_id) == (0, "")
    for vm_id, host in vms.items():
        site.is_right(vm_id, host)
    assert site.free() == {"h1": "0", "h2": "0"}
    site.settled()


def test_hooks_that_make_room_on_one_host_at_the_same_time_each_find_it(cloud: Cloud) -> None:
    site = settle(cloud, eips=4, instance_type=SMALL)
    vms = [site.run("h1", ar_id) for ar_id in range(4) if site.address(ar_id).private_ip in site.at("h2")]
    assert cloud.together(*(lambda one=one: site.hook(one) for one in vms)) == [(0, "")] * 2
    for vm_id in vms:
        site.is_right(vm_id, "h1")
    assert site.free() == {"h1": "0", "h2": "2"}
    assert site.reconcile().problems == []
    site.settled()


@pytest.mark.parametrize("why", ["its VM is off", "held"])
def test_an_address_that_is_leased_does_not_leave(cloud: Cloud, why: str) -> None:
    site = settle(cloud, eips=4, instance_type=SMALL)
    here = [ar_id for ar_id in range(4) if site.address(ar_id).private_ip in site.at("h1")]
    for ar_id in here:
        if why == "held":
            cloud.oned.lease(site.pool, ar_id, -1)
        else:
            cloud.oned.set_vm_state(site.run("h1", ar_id), 8)
    before = site.at("h1")
    vm_id = site.run("h1", *({0, 1, 2, 3} - {*here}))
    with pytest.raises(AwsOvsError, match=r"has 3 of 3 addresses, no room for 10\."):
        site.follow(vm_id)
    assert (site.at("h1"), cloud.ec2.mutating_calls()) == (before, [])


def test_a_dry_run_says_which_address_would_leave(cloud: Cloud) -> None:
    site = settle(cloud, eips=4, instance_type=SMALL)
    vm_id = site.run("h1", next(each for each in range(4) if site.address(each).private_ip in site.at("h2")))
    printed = cloud.oneaws("eip", "follow", str(vm_id), "--dry-run").stdout
    assert f"make room: take {min(site.at('h1'))} from h1 ({site.hosts['h1'].eni_id}), move " in printed
    assert cloud.ec2.mutating_calls() == []


# VMs that change places


@pytest.mark.parametrize("way", ["one hook after the other", "both hooks at once", "reconcile"])
def test_vms_of_two_full_hosts_change_places(cloud: Cloud, way: str) -> None:
    site, vms = full(cloud)
    first = next(vm_id for vm_id, host in vms.items() if host == "h1")
    second = next(vm_id for vm_id, host in vms.items() if host == "h2")
    site.move(first, "h2")
    site.move(second, "h1")
    if way == "reconcile":
        assert site.reconcile().problems == []
    elif way == "both hooks at once":
        assert cloud.together(lambda: site.hook(first), lambda: site.hook(second)) == [(0, "")] * 2
    else:
        assert [site.hook(first), site.hook(second)] == [(0, "")] * 2
    for vm_id, host in (vms | {first: "h2", second: "h1"}).items():
        site.is_right(vm_id, host)
    site.settled()


def test_a_vm_that_found_no_room_while_the_other_was_migrating_gets_there_with_that_one(cloud: Cloud) -> None:
    site, vms = full(cloud)
    first = next(vm_id for vm_id, host in vms.items() if host == "h1")
    second = next(vm_id for vm_id, host in vms.items() if host == "h2")
    site.move(first, "h2")
    code, said = site.hook(first)
    assert (code, "has 3 of 3 addresses, no room for" in said) == (1, True)
    site.move(second, "h1")
    assert site.hook(second) == (0, "")
    site.is_right(second, "h1")
    site.is_right(first, "h2")


def test_all_vms_of_two_full_hosts_change_places_with_few_calls(cloud: Cloud) -> None:
    site, vms = full(cloud)
    for vm_id, host in vms.items():
        site.move(vm_id, other(host))
    assert site.reconcile().problems == []
    assert cloud.ec2.mutating_calls() == [UNASSIGN, ASSIGN, ASSIGN, ASSOCIATE, ASSOCIATE]
    for vm_id, host in vms.items():
        site.is_right(vm_id, other(host))
    site.settled()


def test_a_hook_that_is_killed_while_it_makes_room_is_finished_by_the_reconciler(
    cloud: Cloud, sampler: Sampler
) -> None:
    site, vms = full(cloud)
    pair = [next(vm_id for vm_id, host in vms.items() if host == name) for name in ("h1", "h2")]
    at = "h1"

    def begin() -> bytes:
        """Both change places; the hook is the first one's."""
        nonlocal at
        at = other(at)
        for vm_id, host in zip(pair, (at, other(at)), strict=True):
            site.move(vm_id, host)
        cloud.forget_calls()
        return cloud.oned.document("VM", pair[0])

    wanted = {}
    with Hooks(cloud) as hooks:
        for _ in range(2):
            assert hooks.run(begin()) == 0
            assert cloud.ec2.mutating_calls() == [UNASSIGN, ASSIGN, ASSIGN, ASSOCIATE]
            arranged = list(kills(site))
            site.reconcile()
            wanted[at] = cloud.everything()
        for kill in sampler.of(arranged, lambda kill: (kill.call, kill.when)):
            assert hooks.run(begin(), kill.arrange) == -9, kill
            assert site.reconcile().problems == []
            assert cloud.everything() == wanted[at]
    site.settled()


# What the scheduler is told


@pytest.mark.parametrize("delay", [0, 0.5])
def test_free_addresses_are_right_when_a_host_has_been_evacuated(cloud: Cloud, delay: float) -> None:
    site = settle(cloud, eips=8)
    vms = [site.run("h1", ar_id) for ar_id in range(8)]
    site.reconcile()
    assert site.free() == {"h1": "41", "h2": "49"}
    cloud.ec2.set_visibility_delay(delay)
    for vm_id in vms:
        site.move(vm_id, "h2")
    assert cloud.together(*(lambda one=one: site.hook(one) for one in vms)) == [(0, "")] * 8
    assert site.free() == {"h1": "49", "h2": "41"}


def test_vnet_check_has_the_requirements_of_vms_ready(cloud: Cloud) -> None:
    site = settle(cloud)
    cloud.add_metal("far", subnet=cloud.ec2.add_subnet("10.0.7.0/24"))
    cloud.add_network("private")
    cloud.add_network("bound", AR='AR=[TYPE="IP4", IP="192.168.3.10", SIZE="1", AWS_PRIVATE_IP="10.0.0.77"]')
    site.reconcile()
    subnet = cloud.host("h1").template["EC2_SUBNET_ID"]
    printed = cloud.oneaws("vnet", "check").stdout
    quoted = f'EC2_FREE_ADDRESSES > 0 & (EC2_SUBNET_ID = \\"{subnet}\\")'
    assert f'VMs of network bound: SCHED_REQUIREMENTS = "{quoted}"' in printed
    lines = json.loads(cloud.oneaws("vnet", "check", "--json").stdout)
    wanted = {
        "public": "EC2_FREE_ADDRESSES > 0",
        "bound": f'EC2_FREE_ADDRESSES > 0 & (EC2_SUBNET_ID = "{subnet}")',
        "private": None,
    }
    assert {line["NAME"]: line["SCHED_REQUIREMENTS"] for line in lines} == wanted


# Further ENIs


def add_eni(cloud: Cloud, host: str, private_ip: str, tagged: bool = True, device: int = 1) -> str:
    """Attach one more ENI to the instance of a host; its id."""
    eni_id = cloud.ec2.add_interface(private_ip)
    if tagged:
        cloud.ec2.client.create_tags(Resources=[eni_id], Tags=[{"Key": "aws_ovs:addresses", "Value": "yes"}])
    cloud.ec2.attach(eni_id, cloud.host(host).template["EC2_INSTANCE_ID"], device)
    return eni_id


def test_a_full_host_goes_on_with_a_further_eni_that_is_tagged_and_its_node_is_told(cloud: Cloud) -> None:
    site, vms = full(cloud)
    stranger = add_eni(cloud, "h1", "10.0.0.100", tagged=False, device=2)
    eni_id = add_eni(cloud, "h1", "10.0.0.101")
    assert site.reconcile().problems == []
    first = site.hosts["h1"].eni_id
    assert cloud.host("h1").template["EC2_ENI_IDS"] == f"{first} {eni_id}"
    assert site.free() == {"h1": "2", "h2": "0"}
    assert told_enis(cloud, "h1") == [("10.0.0.101", [])]
    assert told_enis(cloud, "h2") == []

    vm_id = next(vm_id for vm_id, host in vms.items() if host == "h2")
    site.move(vm_id, "h1")
    cloud.forget_calls()
    assert site.hook(vm_id) == (0, "")
    (address,) = cloud.vm(vm_id).addresses
    assert cloud.ec2.mutating_calls() == [ASSIGN]
    assert cloud.leads_to(address.external_ip) == (eni_id, address.private_ip)
    assert told_enis(cloud, "h1") == [("10.0.0.101", [address.private_ip])]
    assert site.status(vm_id).startswith("OK: ")
    assert site.waiting() == []
    assert site.free() == {"h1": "1", "h2": "1"}
    site.settled()
    assert private_ips(cloud.ec2.client, stranger) == ["10.0.0.100"]

    site.move(vm_id, "h2")
    assert site.hook(vm_id) == (0, "")
    site.is_right(vm_id, "h2")
    site.reconcile()
    assert told_enis(cloud, "h1") == [("10.0.0.101", [])]
    site.settled()


def told_enis(cloud: Cloud, host: str) -> list[tuple[str, list[str]]]:
    """The primary addresses of the further ENIs that a host was told last, and the others there."""
    document = json.loads((cloud.ssh / f"{host}.list").read_text())
    return [(eni["address"], eni["addresses"]) for eni in document.get("enis", [])]


def test_a_vm_whose_addresses_are_on_several_enis_of_its_host_is_right_and_stays(cloud: Cloud) -> None:
    site = settle(cloud, eips=4, instance_type=SMALL)
    eni_id = add_eni(cloud, "h1", "10.0.0.101")
    site.reconcile()
    vm_id = site.run("h1", 0, 1, 2, 3)
    assert site.hook(vm_id) == (0, "")
    addresses = cloud.vm(vm_id).addresses
    assert {cloud.leads_to(one.external_ip)[0] for one in addresses} == {site.hosts["h1"].eni_id, eni_id}
    assert (site.error(vm_id), site.free()) == ("", {"h1": "0", "h2": "2"})
    site.settled()
    site.cloud.forget_calls()
    site.follow(vm_id)
    assert site.cloud.mutating_calls() == []


def test_a_host_that_comes_back_is_told_its_enis_and_while_ec2_cannot_be_read_those_of_before(cloud: Cloud) -> None:
    site = settle(cloud, instance_type=SMALL)
    add_eni(cloud, "h1", "10.0.0.101")
    site.reconcile()
    for refused in (0, 99):
        (cloud.ssh / "h1.list").unlink()
        cloud.ec2.fail_next("DescribeNetworkInterfaces", "UnauthorizedOperation", refused)
        host_id = cloud.host("h1").host_id
        cloud.oned.set_host_state(host_id, 2)
        assert cloud.hook("host_state", cloud.oned.document("HOST", host_id)).returncode == 0
        assert told_enis(cloud, "h1") == [("10.0.0.101", [])]
