"""VMs with Elastic IPs on hosts in another subnet than their AWS_PRIVATE_IP: what stands for that there."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest

from tests.sampling import Sampler
from vnm_aws.errors import AwsOvsError

from .cloud import Cloud
from .following import ASSIGN, ASSOCIATE, Site, settle
from .test_follow_races import Hooks, Kill, kills

UNASSIGN = "UnassignPrivateIpAddresses"


class Zones(NamedTuple):
    """A site with h1 and h2 in one subnet, and h3 and h4 in another; the only Elastic IP has a private address of the former."""

    site: Site
    public_ip: str
    private_ip: str

    def stands(self, host: str) -> str:
        """What stands for the private address on a host, as OpenNebula has it; the node must have been told."""
        told = self.site.cloud.ssh / f"{host}.stand-ins"
        pairs = json.loads(told.read_text())["stand_ins"] if told.exists() else {}
        assert pairs == self.site.cloud.host(host).stand_ins
        return self.site.cloud.host(host).stand_ins.get(self.private_ip, "")

    def leads(self) -> tuple[str, str]:
        """The host and the private address that the Elastic IP leads to."""
        eni_id, private_ip = self.site.cloud.leads_to(self.public_ip)
        return next((name for name, one in self.site.hosts.items() if one.eni_id == eni_id), ""), private_ip

    def is_away(self, vm_id: int, host: str) -> str:
        """All must be right for a VM that runs on a host of the other subnet; what stands in."""
        address = self.stands(host)
        assert address.startswith("10.0.2.")
        assert address in self.site.at(host)
        assert self.leads() == (host, address)
        assert self.site.status(vm_id) == f"OK: {self.public_ip} on {host} (by {address})"
        assert self.site.error(vm_id) == ""
        self.nothing_stands({*self.site.hosts} - {host})
        return address

    def is_home(self, vm_id: int, host: str) -> None:
        """All must be right for a VM that runs on a host of the subnet of its private address."""
        self.site.is_right(vm_id, host)
        self.nothing_stands({*self.site.hosts})

    def nothing_stands(self, hosts: set[str]) -> None:
        """No host of these may have anything that stands in, nor be told of it."""
        for name in hosts:
            assert self.stands(name) == ""
            assert not any(address.startswith("10.0.2.") for address in self.site.at(name))


@pytest.fixture
def zones(cloud: Cloud) -> Zones:
    """See `Zones`; all is settled."""
    site = settle(cloud, eips=1)
    subnet = cloud.ec2.add_subnet("10.0.2.0/24")
    made = cloud.add_metal("h3", "h4", subnet=subnet)
    site = site._replace(hosts={**site.hosts, **dict(zip(("h3", "h4"), made, strict=True))})
    assert site.reconcile().problems == []
    cloud.forget_calls()
    address = site.address(0)
    return Zones(site, address.external_ip, address.private_ip)


def test_a_vm_goes_to_another_subnet_within_it_and_back(zones: Zones) -> None:
    site = zones.site
    vm_id = site.run("h1", 0)
    site.follow(vm_id)
    zones.is_home(vm_id, "h1")
    site.cloud.forget_calls()
    site.move(vm_id, "h3")
    assert site.hook(vm_id) == (0, "")
    address = zones.is_away(vm_id, "h3")
    assert site.cloud.ec2.mutating_calls() == [ASSIGN, ASSOCIATE]
    site.settled()

    site.move(vm_id, "h4")
    site.follow(vm_id)
    assert zones.is_away(vm_id, "h4") == address, "one for each Elastic IP and subnet"
    site.settled()

    site.move(vm_id, "h2")
    site.follow(vm_id)
    zones.is_home(vm_id, "h2")
    site.settled()


def test_the_reconciler_does_the_same_when_the_hook_was_lost(zones: Zones) -> None:
    site = zones.site
    vm_id = site.run("h3", 0)
    planned = site.cloud.oneaws("reconcile", "--dry-run").stdout
    assert site.cloud.ec2.mutating_calls() == []
    assert site.reconcile().problems == []
    address = zones.is_away(vm_id, "h3")
    assert f"let {address} stand for {zones.private_ip}, move {address} to h3" in planned
    assert f"associate Elastic IP {zones.public_ip} with {address}" in planned
    site.settled()
    for host in ("h4", "h1", "h3"):
        site.move(vm_id, host)
        assert site.reconcile().problems == []
        site.settled()
    zones.is_away(vm_id, "h3")


def test_the_check_finds_nothing_missing_at_a_vm_that_is_away(zones: Zones) -> None:
    site = zones.site
    vm_id = site.run("h3", 0)
    (before,) = site.waiting()
    assert f"VM {vm_id} is on host h3 for " in before
    site.follow(vm_id)
    zones.is_away(vm_id, "h3")
    assert site.waiting() == []


def test_nothing_more_is_read_while_a_vm_is_away(zones: Zones) -> None:
    site = zones.site
    vm_id = site.run("h1", 0)
    site.follow(vm_id)
    site.reconcile()
    calls = []
    for host in ("h1", "h3"):
        site.move(vm_id, host)
        site.follow(vm_id)
        site.reconcile()
        site.settled()
        calls.append(sorted(site.cloud.ec2.calls()))
    assert calls[0] == calls[1]


def test_the_node_knows_before_ec2_does_and_one_that_does_not_take_it_is_named(zones: Zones) -> None:
    site = zones.site
    vm_id = site.run("h3", 0)
    (site.cloud.ssh / "h3.down").write_text("aws-ovs: stand-ins: no such luck; mend it\n")
    with pytest.raises(AwsOvsError, match=r"host h3 did not take the addresses that stand in there .*no such luck"):
        site.follow(vm_id)
    assert site.cloud.ec2.mutating_calls() == []
    assert site.status(vm_id).startswith("FAILED: host h3 did not take")
    (site.cloud.ssh / "h3.down").unlink()
    assert site.reconcile().problems == []
    zones.is_away(vm_id, "h3")
    site.settled()


@pytest.mark.parametrize("end", ["terminated", "undeployed"])
def test_what_stands_in_is_given_back_when_the_vm_ends(zones: Zones, end: str) -> None:
    site = zones.site
    vm_id = site.run("h3", 0)
    site.follow(vm_id)
    if end == "terminated":
        site.cloud.oned.remove_vm(vm_id)
    else:
        site.cloud.oned.set_vm_state(vm_id, 9)
    assert site.reconcile().problems == []
    zones.nothing_stands({*site.hosts})
    host, private_ip = zones.leads()
    assert (host in ("h1", "h2"), private_ip) == (True, zones.private_ip)
    site.settled()


def test_a_vm_that_is_powered_off_keeps_it(zones: Zones) -> None:
    site = zones.site
    vm_id = site.run("h3", 0)
    site.follow(vm_id)
    site.cloud.oned.set_vm_state(vm_id, 8)
    assert site.reconcile().problems == []
    zones.is_away(vm_id, "h3")


def test_a_host_that_is_made_anew_is_told_again(zones: Zones) -> None:
    site = zones.site
    vm_id = site.run("h3", 0)
    site.follow(vm_id)
    site.reconcile()
    (site.cloud.ssh / "h3.stand-ins").unlink()
    site.cloud.oned.set_host_state(site.cloud.host("h3").host_id, 2)
    done = site.cloud.hook("host_state", site.cloud.oned.document("HOST", site.cloud.host("h3").host_id))
    assert (done.returncode, done.stderr) == (0, "")
    zones.is_away(vm_id, "h3")


def test_all_hosts_know_that_a_vm_has_it(zones: Zones) -> None:
    site = zones.site
    vm_id = site.run("h3", 0)
    site.follow(vm_id)
    address = zones.is_away(vm_id, "h3")
    site.reconcile()
    told = json.loads((site.cloud.ssh / "h1.list").read_text())["private_ips"]
    assert {address, zones.private_ip} <= {*told}


def test_an_address_that_ec2_refuses_is_replaced_by_another(zones: Zones) -> None:
    site = zones.site
    vm_id = site.run("h3", 0)
    site.cloud.ec2.fail_next(ASSIGN, "InvalidParameterValue", 2)
    site.follow(vm_id)
    zones.is_away(vm_id, "h3")
    assert site.cloud.ec2.mutating_calls() == [ASSIGN] * 3 + [ASSOCIATE]
    site.settled()


def test_what_others_have_of_the_subnet_is_not_taken(zones: Zones) -> None:
    """All but one address: blocks that are reserved, and what is on an ENI that is no host's."""
    ec2 = zones.site.cloud.ec2
    subnet = zones.site.cloud.host("h3").template["EC2_SUBNET_ID"]
    for cidr in ("10.0.2.128/25", "10.0.2.64/26", "10.0.2.32/27", "10.0.2.16/28"):
        ec2.reserve(cidr, subnet=subnet)
    wanted = [
        {"PrivateIpAddress": f"10.0.2.{number}", "Primary": number == 6} for number in range(6, 16) if number != 11
    ]
    ec2.client.create_network_interface(SubnetId=subnet, PrivateIpAddresses=wanted)
    vm_id = zones.site.run("h3", 0)
    zones.site.follow(vm_id)
    assert zones.is_away(vm_id, "h3") == "10.0.2.11"


def test_of_vms_that_share_an_address_the_one_that_has_it_keeps_it_in_another_subnet(zones: Zones) -> None:
    site = zones.site
    shared = site.twin(site.address(0), size=3)
    first = site.run("h1", 0, pool=shared)
    second = site.run("h3", 0, pool=shared)
    site.cloud.oned.set_vm_state(first, 8)
    site.follow(second)
    zones.is_away(second, "h3")
    third = site.run("h4", 0, pool=shared)
    for rival in (first, third):
        site.cloud.oned.set_vm_state(rival, 3, 3)
        with pytest.raises(AwsOvsError, match=f"is in use by VM {second} on host h3"):
            site.follow(rival)
    zones.is_away(second, "h3")


def test_a_hook_that_is_killed_at_any_call_is_finished_by_the_reconciler(zones: Zones, sampler: Sampler) -> None:
    """On the way to the other subnet, within it, and back: each begins where the one before has ended."""
    site, cloud = zones.site, zones.site.cloud
    vm_id = site.run("h1", 0)
    site.follow(vm_id)
    site.reconcile()
    ways = ("h3", "h4", "h1")
    wanted: dict[str, object] = {}
    arranged: dict[str, list[Kill]] = {}

    def begin(host: str) -> bytes:
        site.move(vm_id, host)
        cloud.forget_calls()
        return cloud.oned.document("VM", vm_id)

    with Hooks(cloud) as hooks:
        for host in ways * 2:  # attributes that are empty are there from the first time on
            assert hooks.run(begin(host)) == 0
            # The node is told between a change in oned and the next one in EC2.
            every = [kill for kill in kills(site) if kill.when == "after" or kill.call in (ASSIGN, ASSOCIATE, UNASSIGN)]
            arranged[host] = sampler.of(every, lambda kill: (kill.call, kill.when), every=len(every))
            site.reconcile()
            wanted[host] = cloud.everything()
        for number in range(max(map(len, arranged.values()))):
            for host in ways:
                kill = arranged[host][number % len(arranged[host])]
                assert hooks.run(begin(host), kill.arrange) == -9, (host, kill)
                assert site.reconcile().problems == [], (host, kill)
                assert cloud.everything() == wanted[host], (host, kill)
    site.settled()


@pytest.mark.parametrize("call", [ASSOCIATE, UNASSIGN])
def test_what_cannot_be_given_back_now_is_given_back_by_the_next_run(zones: Zones, call: str) -> None:
    site = zones.site
    vm_id = site.run("h3", 0)
    site.follow(vm_id)
    site.reconcile()
    site.cloud.oned.remove_vm(vm_id)
    site.cloud.ec2.fail_next(call, "UnauthorizedOperation", 1)
    (problem,) = site.reconcile().problems
    assert (problem.target, f"EC2 refused {call}" in problem.text) == ("host h3", True)
    assert site.reconcile().problems == []
    zones.nothing_stands({*site.hosts})
    assert zones.leads()[1] == zones.private_ip
    site.settled()
