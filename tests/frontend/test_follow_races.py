"""Following under trouble: VMs that claim one address or move meanwhile, an EC2 that is late, throttles or refuses, kills."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import pytest

from tests.sampling import Sampler
from tests.world.ec2.region import Ec2World, Rate
from tests.world.oned.server import Oned
from vnm_aws.errors import AwsOvsError

from .cloud import Cloud
from .following import ASSIGN, ASSOCIATE, Site, settle

MIGRATE, BACKUP = 4, 69
"""LCM states."""


@pytest.fixture
def site(cloud: Cloud) -> Site:
    """Two hosts and a pool of two Elastic IPs."""
    return settle(cloud)


def other(host: str) -> str:
    """The other one of two hosts."""
    return {"h1": "h2", "h2": "h1"}[host]


# VMs that claim the same


def test_vms_that_share_an_address_by_ports_are_fine_on_one_host(site: Site) -> None:
    shared = site.twin(site.address(0), size=3)
    here = site.elsewhere(site.address(0))
    vms = [site.run(here, 0, pool=shared) for _ in range(3)]
    for vm_id in vms:
        site.follow(vm_id)
    assert site.cloud.ec2.mutating_calls() == [ASSIGN]
    for vm_id in vms:
        site.is_right(vm_id, here)
    site.settled()


def test_of_vms_that_share_an_address_on_two_hosts_the_later_one_is_told_why_it_has_none(site: Site) -> None:
    shared = site.twin(site.address(0), size=3)
    here = site.elsewhere(site.address(0))
    first = site.run(here, 0, pool=shared)
    site.follow(first)
    second = site.run(other(here), 0, pool=shared)
    site.cloud.forget_calls()
    code, said = site.hook(second)
    reason = f"is in use by VM {first} on host {here}; detach it from one of the two, or migrate VM {second} to {here}"
    assert (code, reason in said, reason in site.error(second)) == (1, True, True)
    assert site.cloud.ec2.mutating_calls() == []
    site.is_right(first, here)
    # The first one moves alone, and keeps what the second one had no right to; then the second one comes after it.
    site.move(first, other(here))
    site.follow(first)
    site.is_right(first, other(here))
    assert site.reconcile().problems == []
    site.is_right(second, other(here))
    site.settled()


def test_of_vms_that_share_an_address_the_one_that_migrates_away_loses_it(site: Site) -> None:
    shared = site.twin(site.address(0), size=2)
    here = site.elsewhere(site.address(0))
    first, second = (site.run(here, 0, pool=shared) for _ in range(2))
    site.reconcile()
    site.move(first, other(here))
    with pytest.raises(AwsOvsError, match=f"in use by VM {second} on host {here}"):
        site.follow(first)
    site.is_right(second, here)
    site.cloud.oned.set_vm_state(second, 8)
    assert site.reconcile().problems == []
    site.is_right(first, other(here))


@pytest.mark.parametrize("private_ip", ["the same", "another"])
def test_of_vms_that_race_for_one_elastic_ip_exactly_one_has_it(site: Site, private_ip: str) -> None:
    address = site.address(0)
    there = address.private_ip if private_ip == "the same" else "10.0.0.99"
    twin = site.twin(address._replace(private_ip=there))
    vms = {site.run("h1", 0): "h1", site.run("h2", 0, pool=twin): "h2"}
    if private_ip == "another":
        site.cloud.ec2.client.disassociate_address(PublicIp=address.external_ip)
    site.cloud.together(*(lambda one=one: site.hook(one) for one in vms))
    site.reconcile()
    (loser,) = [vm_id for vm_id in vms if site.error(vm_id)]
    (winner,) = set(vms) - {loser}
    site.is_right(winner, vms[winner])
    assert f"is in use by VM {winner}" in site.error(loser)
    before = site.cloud.everything()
    for _ in range(2):
        site.cloud.forget_calls()
        (problem,) = [one for one in site.reconcile().problems if one.target == f"VM {loser}"]
        assert f"is in use by VM {winner}" in problem.text
        assert site.cloud.mutating_calls() == []
    with pytest.raises(AwsOvsError, match=f"is in use by VM {winner}"):
        site.follow(loser)
    assert site.cloud.everything() == before
    site.cloud.oned.set_vm_state(winner, 8)
    site.reconcile()
    site.is_right(loser, vms[loser])


@pytest.mark.parametrize("lcm_state", [BACKUP, MIGRATE])
def test_a_vm_that_is_backed_up_or_migrates_keeps_its_address_against_another(site: Site, lcm_state: int) -> None:
    address = site.address(0)
    first = site.run("h1", 0)
    site.follow(first)
    second = site.run("h2", 0, pool=site.twin(address))
    if lcm_state == MIGRATE:
        site.move(first, "h2")
    site.cloud.oned.set_vm_state(first, 3, lcm_state)
    (problem,) = site.reconcile().problems
    assert f"{address.private_ip} is in use by VM {first}" in problem.text
    assert address.private_ip in site.at("h1")
    with pytest.raises(AwsOvsError, match=f"in use by VM {first}"):
        site.follow(second)
    if lcm_state == MIGRATE:
        site.cloud.oned.set_vm_state(first, 3, 3)
        site.follow(first)
        site.is_right(first, "h2")


# VMs that do not stay


@pytest.mark.parametrize("moment", ["one.host.info", "one.vnpool.info", "one.vm.update", "one.host.update"])
def test_a_vm_that_moves_again_while_it_is_followed_has_its_addresses_where_it_ends(site: Site, moment: str) -> None:
    vm_id = site.run("h1", 0, 1)
    site.follow(vm_id)
    site.move(vm_id, "h2")
    site.cloud.oned.before(moment, lambda: site.move(vm_id, "h1"))
    site.follow(vm_id)
    site.is_right(vm_id, "h1")
    site.settled()


def test_a_vm_that_never_stays_is_given_up_until_the_next_run(site: Site) -> None:
    vm_id = site.run("h1", 0, 1)
    for host in ("h2", "h1") * 5:
        site.cloud.oned.before("one.vm.update", lambda host=host: site.move(vm_id, host))  # type: ignore[misc]
    with pytest.raises(AwsOvsError, match=f"VM {vm_id} moved 5 times .*; run 'oneaws eip follow {vm_id}'"):
        site.follow(vm_id)


@pytest.mark.parametrize("moment", ["one.host.info", "one.vm.update"])
def test_a_vm_that_ends_while_it_is_followed_is_no_failure(site: Site, moment: str) -> None:
    vm_id = site.run("h1", 0, 1)
    site.cloud.oned.before(moment, lambda: site.cloud.oned.remove_vm(vm_id))
    assert site.hook(vm_id) == (0, "")


@pytest.mark.parametrize("bad", [False, True])
def test_a_vm_that_vanishes_does_not_keep_the_others_of_its_host_from_their_addresses(site: Site, bad: bool) -> None:
    here = site.elsewhere(site.address(1))
    gone = site.run_with(here, site.hosts[other(here)].private_ip) if bad else site.run(here, 0)
    staying = site.run(here, 1)
    site.cloud.oned.before("one.vm.update", lambda: site.cloud.oned.remove_vm(gone))
    assert len(site.reconcile().problems) == bad
    site.is_right(staying, here)


def test_a_vm_that_left_is_not_told_what_was_wrong_with_its_last_host(site: Site) -> None:
    site.cloud.oned.add_host("plain")
    vm_id = site.run("plain", 0, 1)
    site.cloud.oned.before("one.host.info", lambda: site.move(vm_id, "h2"))
    site.follow(vm_id)
    site.is_right(vm_id, "h2")


def test_vms_that_move_during_a_reconcile_are_followed_and_the_others_still_move_at_once(cloud: Cloud) -> None:
    site = settle(cloud, eips=5)
    moving = site.run("h1", 4)
    staying = {site.run("h2", ar_id): "h2" for ar_id in range(4)}
    for vm_id in (moving, *staying):
        site.follow(vm_id)
    for vm_id in staying:
        site.move(vm_id, "h1")
        site.follow(vm_id)
        site.move(vm_id, "h2")
    site.move(moving, "h2")
    site.follow(moving)
    site.move(moving, "h1")
    cloud.oned.before("one.vm.update", lambda: site.move(moving, "h2"))
    cloud.forget_calls()
    assert site.reconcile().problems == []
    assert cloud.ec2.mutating_calls() == [ASSIGN] * 3
    for vm_id in (moving, *staying):
        site.is_right(vm_id, "h2")
    site.settled()


# What EC2 does


def test_a_vm_that_goes_and_comes_back_while_ec2_is_late_ends_where_it_is(site: Site) -> None:
    vm_id = site.run("h1", 0, 1)
    site.follow(vm_id)
    site.cloud.ec2.set_visibility_delay(0.6)
    for host in ("h2", "h1"):
        site.move(vm_id, host)
        site.follow(vm_id)
    site.is_right(vm_id, "h1")
    site.reconcile()  # while EC2 may still show it on h2
    site.is_right(vm_id, "h1")
    time.sleep(0.7)
    site.reconcile()
    site.settled()


@pytest.mark.parametrize("known", [True, False])  # False: by an earlier version, which set the status alone
@pytest.mark.parametrize("way", ["follow", "reconcile"])
def test_what_ec2_shows_is_not_believed_when_the_vm_was_placed_elsewhere_since(
    site: Site, way: str, known: bool
) -> None:
    vm_id = site.run("h1", 0, 1)
    site.follow(vm_id)
    site.cloud.ec2.set_visibility_delay(60)
    for number in (0, 1):  # as a hook that saw another replica of EC2's does it
        site.cloud.ec2.move_private_ip(site.address(number).private_ip, site.hosts["h2"].eni_id)
    status, host_id = site.status(vm_id).replace("on h1", "on h2"), str(site.cloud.host("h2").host_id)
    site.cloud.world().oned.update_vm(vm_id, {"AWS_EIP_STATUS": status, "AWS_EIP_HOST": host_id if known else ""})
    if way == "follow":
        site.follow(vm_id)
    else:
        site.reconcile()
    site.is_right(vm_id, "h1")


@pytest.mark.parametrize("way", ["follow", "reconcile"])
def test_a_vm_that_an_earlier_version_placed_is_assigned_once_more_and_then_known(site: Site, way: str) -> None:
    vm_id = site.run("h1", 0, 1)
    site.follow(vm_id)
    here = str(site.cloud.host("h1").host_id)
    assert site.cloud.vm(vm_id).user_template["AWS_EIP_HOST"] == here
    site.cloud.world().oned.update_vm(vm_id, {"AWS_EIP_HOST": ""})
    site.cloud.forget_calls()
    if way == "follow":
        site.follow(vm_id)
    else:
        assert site.reconcile().problems == []
    assert site.cloud.mutating_calls() == [ASSIGN, "one.vm.update"]
    assert site.cloud.vm(vm_id).user_template["AWS_EIP_HOST"] == here
    site.is_right(vm_id, "h1")
    site.settled()
    site.follow(vm_id)
    assert site.cloud.mutating_calls() == []


def test_the_status_of_a_vm_is_for_people_and_is_not_read_back(site: Site) -> None:
    vm_id = site.run("h1", 0, 1)
    site.follow(vm_id)
    site.cloud.world().oned.update_vm(vm_id, {"AWS_EIP_STATUS": "OK: it is elsewhere on h2"})
    site.cloud.forget_calls()
    site.follow(vm_id)
    assert site.cloud.mutating_calls() == ["one.vm.update"]
    site.is_right(vm_id, "h1")


def test_a_change_that_ec2_never_shows_is_an_error_that_the_next_run_clears(site: Site) -> None:
    site.cloud.configure(ec2_timeout=1)
    here = site.elsewhere(site.address(0))
    vm_id = site.run(here, 0)
    site.cloud.ec2.set_visibility_delay(60)
    with pytest.raises(AwsOvsError, match=r"EC2 took 10\..* but does not show it after 1 s; run 'oneaws reconcile'"):
        site.follow(vm_id)
    assert "does not show it" in site.error(vm_id)
    site.cloud.ec2.set_visibility_delay(0)
    assert site.reconcile().problems == []
    site.is_right(vm_id, here)


def test_throttled_hooks_of_several_vms_end_well(cloud: Cloud) -> None:
    site = settle(cloud, eips=4)
    vms = [site.run("h1", ar_id) for ar_id in range(4)]
    cloud.ec2.set_throttle(mutating=Rate(1, 3), describe=Rate(3, 10))
    with ThreadPoolExecutor(len(vms)) as pool:
        list(pool.map(site.follow, vms))
    cloud.ec2.set_throttle()
    for vm_id in vms:
        site.is_right(vm_id, "h1")


@pytest.mark.parametrize(
    ("action", "code"),
    [(ASSIGN, "RequestLimitExceeded"), ("DescribeAddresses", "InternalError")],
)
def test_a_passing_fault_of_ec2_is_not_seen(site: Site, action: str, code: str) -> None:
    here = site.elsewhere(site.address(0))
    vm_id = site.run(here, 0)
    site.cloud.ec2.fail_next(action, code, 2)
    site.follow(vm_id)
    site.is_right(vm_id, here)


@pytest.mark.parametrize("action", [ASSIGN, ASSOCIATE, "DescribeAddresses"])
def test_what_ec2_does_not_allow_names_the_policy(site: Site, action: str) -> None:
    vm_id = site.run("h1", 0, 1)
    site.cloud.ec2.client.disassociate_address(PublicIp=site.address(0).external_ip)
    site.cloud.ec2.fail_next(action, "UnauthorizedOperation")
    code, said = site.hook(vm_id)
    assert code == 1
    assert f"EC2 refused {action}, UnauthorizedOperation" in said
    assert "allow it with share/aws/iam-policy.json" in said
    assert site.error(vm_id) == said.strip()
    site.reconcile()
    site.is_right(vm_id, "h1")


def test_what_ec2_refuses_for_all_vms_is_asked_once_and_told_to_those_that_are_concerned(cloud: Cloud) -> None:
    site = settle(cloud, eips=5)
    here = site.elsewhere(site.address(0))
    right = site.run_with(here, site.hosts[here].private_ip)
    cloud.oned.set_vm_state(right, 8)
    vms = [site.run(here, ar_id) for ar_id in range(5)]
    cloud.ec2.fail_next(ASSIGN, "UnauthorizedOperation", 9)
    (problem,) = site.reconcile().problems
    assert "iam-policy.json" in problem.text
    assert cloud.ec2.mutating_calls() == [ASSIGN]
    placed = [vm_id for vm_id in vms if not site.error(vm_id)]
    for vm_id in placed:
        site.is_right(vm_id, here)
    for vm_id in set(vms) - set(placed):
        assert "UnauthorizedOperation" in site.error(vm_id)
    assert len(placed) in (2, 3)  # which were there already
    cloud.ec2.fail_next(ASSIGN, "none", 0)
    assert site.reconcile().problems == []
    for vm_id in vms:
        site.is_right(vm_id, here)


# A hook that is killed


_HOOKS = """
import os, sys, boto3, vnm_aws.frontend.follow.loop
from vnm_aws.frontend.hook import main
boto3.client("ec2")
for line in sys.stdin:
    child = os.fork()
    if not child:
        sys.stdin = open(line.strip())
        os._exit(main(["vm_running"]))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Hooks:
    """Hooks that start in no time, for everything they need has been read already."""

    def __init__(self, cloud: Cloud) -> None:
        self._pipe = cloud.directory / "document"
        os.mkfifo(self._pipe)
        self._parent = subprocess.Popen(
            [sys.executable, "-c", _HOOKS],
            env=cloud.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Hooks:
        return self

    def __exit__(self, *error: object) -> None:
        self._parent.communicate(timeout=60)

    def run(self, document: bytes, arrange: Callable[[int], None] | None = None) -> int:
        """Run one; its exit code.

        Args:
            document: what it gets.
            arrange: is told its process first.
        """
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        print(self._pipe, file=self._parent.stdin, flush=True)
        pid = int(self._parent.stdout.readline())
        if arrange:
            arrange(pid)
        self._pipe.write_bytes(base64.b64encode(document))
        return int(self._parent.stdout.readline())


class Kill(NamedTuple):
    """An arrangement that kills a process."""

    server: Ec2World | Oned
    number: int
    call: str
    when: Literal["before", "after"]

    def arrange(self, pid: int) -> None:
        """Let the process be killed."""
        self.server.kill_at(self.number, self.when, pid)


def kills(site: Site) -> Iterator[Kill]:
    """Arrangements that kill a process once in each state that following goes through.

    To be killed after a call is to be killed before the next one, but for calls that change something: other things
    may lie between those.
    """
    for server in (site.cloud.ec2, site.cloud.oned):
        mutating = set(server.mutating_calls())
        for number, call in enumerate(server.calls(), 1):
            yield Kill(server, number, call, "before")
            if call in mutating:
                yield Kill(server, number, call, "after")


def test_a_hook_that_is_killed_at_any_call_is_finished_by_the_reconciler(site: Site, sampler: Sampler) -> None:
    cloud, vm_id = site.cloud, site.run("h1", 0, 1)

    def begin(host: str) -> bytes:
        """The VM moves to a host, and one of its Elastic IPs leads nowhere."""
        site.move(vm_id, host)
        cloud.ec2.client.disassociate_address(PublicIp=site.address(0).external_ip)
        cloud.forget_calls()
        return cloud.oned.document("VM", vm_id)

    wanted = {}
    with Hooks(cloud) as hooks:
        for host in ("h1", "h2"):
            assert hooks.run(begin(host)) == 0
            arranged = list(kills(site))
            wanted[host] = cloud.everything()
        assert cloud.ec2.mutating_calls() == [ASSIGN, ASSOCIATE]
        assert len(arranged) > 20
        for number, kill in enumerate(sampler.of(arranged, lambda kill: (kill.call, kill.when))):
            host = ("h1", "h2")[number % 2]
            assert hooks.run(begin(host), kill.arrange) == -9, kill
            assert site.reconcile().problems == []
            assert cloud.everything() == wanted[host]
    site.settled()
