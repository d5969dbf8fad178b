"""What happens in a year: hosts die under VMs that do not run, the lead changes, somebody sets a wrong Region, ranges go."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from tests.sampling import Sampler
from tests.world.ec2.region import Ec2World
from tests.world.oned.server import Oned
from vnm_aws.frontend.objects import STATE_DISABLED
from vnm_aws.frontend.oned import Oned as Client
from vnm_aws.frontend.taken import Taken

from .cloud import Cloud
from .following import Site, settle


@pytest.fixture
def site(cloud: Cloud) -> Site:
    """Two hosts and a pool of two Elastic IPs."""
    return settle(cloud)


def checked(site: Site, name: str) -> list[dict[str, str]]:
    """The lines of `oneaws check` of one name."""
    lines: list[dict[str, str]] = json.loads(site.cloud.oneaws("check", "--json", code=None).stdout)
    return [line for line in lines if line["CHECK"] == name]


def listed(site: Site, external_ip: str) -> dict[str, str]:
    """The line of `oneaws eip list` of an Elastic IP."""
    lines = json.loads(site.cloud.oneaws("eip", "list", "--json").stdout)["elastic_ips"]
    (line,) = [line for line in lines if line["EXTERNAL_IP"] == external_ip]
    return dict(line)


# A VM that does not run


@pytest.mark.parametrize("state", [8, 9])  # POWEROFF, UNDEPLOYED
def test_the_addresses_of_a_vm_that_does_not_run_outlive_its_host(site: Site, state: int) -> None:
    address = site.address(0)
    vm_id = site.run("h1", 0)
    site.follow(vm_id)
    site.cloud.oned.set_vm_state(vm_id, state)
    site.settled()
    site.cloud.ec2.terminate(site.hosts["h1"].instance_id)
    outcome = site.reconcile()
    text = f"keep {address.private_ip} on h2 ({site.hosts['h2'].eni_id}) while it does not run"
    assert (f"VM {vm_id}", text) in outcome.done
    assert address.private_ip in site.at("h2")
    assert site.cloud.leads_to(address.external_ip) == (site.hosts["h2"].eni_id, address.private_ip)
    assert site.status(vm_id) == f"OK: {address.external_ip} kept on h2 while it does not run"
    (line,) = checked(site, "VMs that do not run")
    assert line["DETAIL"] == f"{address.private_ip} of VM {vm_id} is on h2"
    assert listed(site, address.external_ip)["HOST"] == "h2"
    site.cloud.oned.set_vm_state(vm_id, 3, 3)
    site.move(vm_id, "h2")
    site.follow(vm_id)
    site.is_right(vm_id, "h2")


def test_addresses_that_nobody_has_room_for_are_said_to_be_in_danger(cloud: Cloud) -> None:
    site = settle(cloud, hosts=("h1",))
    vm_id = site.run("h1", 0)
    site.follow(vm_id)
    cloud.oned.set_vm_state(vm_id, 8)
    cloud.ec2.terminate(site.hosts["h1"].instance_id)
    problems = [problem for problem in site.reconcile().problems if problem.target == f"VM {vm_id}"]
    assert ["so EC2 may give it to others" in problem.what for problem in problems] == [True]


# A wrong Region or account


def test_another_region_changes_nothing_though_it_has_instances_of_the_same_tag(site: Site) -> None:
    """The instances are known to none, and those with the tag are another cloud's."""
    vm_id = site.run("h1", 0)
    site.follow(vm_id)
    for name in site.hosts:
        Client().update_host(site.cloud.host(name).host_id, {"EC2_INSTANCE_ID": f"i-0123456789abcde{name}"})
    before = site.cloud.everything()
    site.cloud.forget_calls()
    for words in ("reconcile", "host sync", "eip sync", "eip follow"):
        done = site.cloud.oneaws(*words.split(), code=1)
        assert "host h1: EC2 knows no instance i-0123456789abcdeh1, nor that of any other host" in done.stderr
        assert "correct region, vpc_id or host_filter in the settings, or the AWS credentials" in done.stderr
    assert (site.cloud.mutating_calls(), site.cloud.everything()) == ([], before)
    assert any("EC2 knows no instance" in line["DETAIL"] for line in checked(site, "EC2"))


def test_a_region_that_has_none_of_the_elastic_ips_changes_nothing(site: Site) -> None:
    for ar_id in (0, 1):
        values = site.cloud.network(site.pool).ranges[ar_id].attributes
        Client().update_range(site.pool, ar_id, {**values, "AWS_ALLOCATION_ID": f"eipalloc-0123456789abcde{ar_id}"})
    before = site.cloud.everything()
    site.cloud.forget_calls()
    done = site.cloud.oneaws("reconcile", code=1)
    assert "Elastic IPs: EC2 knows none of those that address ranges name" in done.stderr
    assert f"'onevnet rmar {site.pool} 0'" in done.stderr
    assert (site.cloud.mutating_calls(), site.cloud.everything()) == ([], before)


def test_a_hook_in_another_region_does_not_blame_the_vm(site: Site) -> None:
    vm_id = site.run("h1", 0)
    for name in site.hosts:
        values = {"EC2_INSTANCE_ID": f"i-0123456789abcde{name}", "EC2_ENI_ID": f"eni-0123456789abcde{name}"}
        Client().update_host(site.cloud.host(name).host_id, values)
    site.cloud.forget_calls()
    code, said = site.hook(vm_id)
    assert (code, "EC2 knows no instance" in said) == (1, True)
    assert (site.status(vm_id), site.error(vm_id), site.cloud.mutating_calls()) == ("", "", [])


def test_one_host_that_is_gone_while_others_live_is_retired(site: Site) -> None:
    Client().update_host(site.cloud.host("h1").host_id, {"EC2_INSTANCE_ID": "i-0123456789abcdef0"})
    site.cloud.ec2.client.delete_tags(Resources=[site.hosts["h1"].instance_id], Tags=[{"Key": "opennebula"}])
    site.reconcile()
    assert site.cloud.host("h1").state == STATE_DISABLED


# The lead


def test_a_front_end_that_loses_the_lead_ends_before_its_next_change(cloud: Cloud) -> None:
    cloud.add_metal("h1", "h2")
    cloud.add_pool()
    cloud.add_eips(2)
    cloud.oned.set_raft_state(3)
    cloud.oned.before("one.host.allocate", lambda: cloud.oned.set_raft_state(2))
    done = cloud.oneaws("reconcile", code=1)
    assert "another front-end leads since this run began" in done.stderr
    assert cloud.oned.mutating_calls() == ["one.host.allocate", "one.host.update"], "the change under way is completed"
    assert (cloud.ec2.mutating_calls(), cloud.ssh_calls()) == ([], [])


def test_two_front_ends_that_both_lead_make_no_range_twice(
    ec2_world: Ec2World, oned_server: Oned, cloud: Cloud, tmp_path: Path
) -> None:
    cloud.ec2.set_elastic_ips(8)
    (tmp_path / "other").mkdir()
    other = Cloud(ec2_world, oned_server, tmp_path / "other")
    cloud.add_metal("h1", "h2")
    cloud.oneaws("host", "sync")
    pool, eips = cloud.add_pool(), cloud.add_eips(8)
    cloud.together(*(lambda each=each: each.oneaws_process("reconcile", code=None) for each in (cloud, other)))
    cloud.oneaws("reconcile", code=None)
    ranges = cloud.network(pool).ranges
    assert sorted(item.attributes["EXTERNAL_IP"] for item in ranges) == sorted(eips)
    assert len({item.attributes["AWS_PRIVATE_IP"] for item in ranges}) == len(eips)
    cloud.forget_calls()
    assert cloud.oneaws("reconcile").stdout == "Nothing to change.\n"


@pytest.mark.parametrize("leased", [None, 0, 2])
def test_of_two_ranges_with_one_elastic_ip_the_idle_one_goes(site: Site, leased: int | None) -> None:
    values = {"TYPE": "IP4", "IP": "192.168.0.9", "SIZE": "1", **site.cloud.network(site.pool).ranges[0].attributes}
    Client().add_range(site.pool, values)
    if leased is not None:
        site.run("h1", leased)
    kept = leased or 0
    assert (
        f"Elastic IP {values['EXTERNAL_IP']}",
        f"remove range {2 - kept} of network public, for range {kept} has it already",
    ) in site.reconcile().done
    assert [item.ar_id for item in site.cloud.network(site.pool).ranges] == sorted([1, kept])


# Private addresses that no range has any more


def test_an_address_that_the_driver_took_is_given_back_when_its_range_is_gone(site: Site) -> None:
    address = site.address(0)
    here = next(name for name in site.hosts if address.private_ip in site.at(name))
    site.cloud.ec2.client.delete_tags(Resources=[address.allocation_id], Tags=[{"Key": "Pool"}])
    site.reconcile()
    assert address.private_ip in site.at(here), "an Elastic IP still leads there"
    (line,) = checked(site, "addresses of hosts")
    assert f"{address.external_ip} leads to {address.private_ip}" in line["DETAIL"]
    site.cloud.ec2.client.disassociate_address(PublicIp=address.external_ip)
    eni = site.hosts[here].eni_id
    text = f"take {address.private_ip} from {eni}, for no address range has it any more"
    assert (f"host {here}", text) in site.reconcile().done
    assert address.private_ip not in site.at(here)
    site.settled()


def test_an_address_of_somebody_else_is_reported_and_never_taken(site: Site) -> None:
    address, stranger = site.address(0), "10.0.0.150"
    here = next(name for name in site.hosts if address.private_ip in site.at(name))
    eni = site.hosts[here].eni_id
    site.cloud.ec2.move_private_ip(stranger, eni)
    site.reconcile()
    site.settled()
    (line,) = checked(site, "addresses of hosts")
    assert line["STATUS"] == "warning"
    command = f"unassign-private-ip-addresses --network-interface-id {eni} --private-ip-addresses {stranger}'"
    assert line["DETAIL"].endswith(command)
    # One that a range had, but that was on the ENI before, is not the driver's either.
    network = site.cloud.add_network(
        "by-hand", AR=f'AR=[TYPE="IP4", IP="192.168.3.10", SIZE="1", AWS_PRIVATE_IP="{stranger}"]'
    )
    vm_id = site.run(here, 0, pool=network)
    site.follow(vm_id)
    site.cloud.oned.set_vm_state(vm_id, 6)
    site.cloud.oned.unlease(network, 0, vm_id)
    Client().remove_range(network, 0)
    site.reconcile()
    site.settled()
    assert stranger in site.at(here)


# Killed


def neglected(cloud: Cloud) -> Site:
    """A dead host whose VM does not run, an Elastic IP with two ranges, and an address that no range has any more."""
    site = settle(cloud, eips=3)
    vm_id = site.run("h1", 0)
    site.follow(vm_id)
    cloud.oned.set_vm_state(vm_id, 8)
    values = {"TYPE": "IP4", "IP": "192.168.0.9", "SIZE": "1", **cloud.network(site.pool).ranges[1].attributes}
    Client().add_range(site.pool, values)
    gone = site.address(2)
    for ar_id in (1, 2):
        cloud.ec2.move_private_ip(site.address(ar_id).private_ip, site.hosts["h2"].eni_id)
    Taken(str(cloud.directory / "state"), 1).note(site.hosts["h2"].eni_id, [gone.private_ip], ())
    cloud.ec2.client.delete_tags(Resources=[gone.allocation_id], Tags=[{"Key": "Pool"}])
    cloud.ec2.client.disassociate_address(PublicIp=gone.external_ip)
    Client().remove_range(site.pool, 2)
    cloud.ec2.terminate(site.hosts["h1"].instance_id)
    cloud.oneaws("host", "sync", code=1)
    cloud.forget_calls()
    return site


def outcome(site: Site) -> tuple[object, ...]:
    """What became of it, without what has another name each time."""
    ranges = site.cloud.network(site.pool).ranges
    leads = [site.cloud.leads_to(item.attributes["EXTERNAL_IP"])[1] for item in ranges]
    private = [(item.ar_id, item.attributes["AWS_PRIVATE_IP"]) for item in ranges]
    status = site.status(0).replace(site.address(0).external_ip, "")
    return private, leads, site.at("h2"), status, site.cloud.host("h2").template["EC2_FREE_ADDRESSES"]


def test_killed_at_any_change_the_next_run_ends_the_same(cloud: Cloud, sampler: Sampler) -> None:
    site = neglected(cloud)
    site.reconcile()
    wanted = outcome(site)
    changing = {*cloud.mutating_calls()}
    worlds = {"ec2": cloud.ec2.calls(), "oned": cloud.oned.calls()}
    kills = [
        (world, number, call, when)
        for world, calls in worlds.items()
        for number, call in enumerate(calls, 1)
        if call in changing
        for when in ("before", "after")
    ]
    assert {call for _, _, call, _ in kills} >= {
        *("one.vn.rm_ar", "one.vm.update"),
        *("AssignPrivateIpAddresses", "AssociateAddress", "UnassignPrivateIpAddresses"),
    }
    for world, number, call, when in sampler.of(kills, lambda kill: kill[2], every=len(kills)):
        cloud.ec2.reset()
        cloud.oned.reset()
        shutil.rmtree(cloud.directory / "state")
        (cloud.directory / "state").mkdir()
        site = neglected(cloud)
        process = cloud.start("reconcile")
        server = cloud.ec2 if world == "ec2" else cloud.oned
        server.kill_at(number, when, process.pid)  # type: ignore[arg-type]
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, (call, when)
        site.reconcile()
        assert outcome(site) == wanted, (call, when)
