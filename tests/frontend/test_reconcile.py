"""`oneaws reconcile` on a mixed cloud: what it makes of it, killed at every call, beside others, and without a world."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

from tests.sampling import Sampler
from tests.world.ec2.region import Ec2World
from tests.world.oned.server import Oned
from vnm_aws.errors import AwsOvsError
from vnm_aws.frontend.objects import STATE_DISABLED
from vnm_aws.frontend.oned import Oned as Client

from .cloud import Cloud
from .mixed import EIPS, PEERS, Document, assert_at_rest, assert_safe, end_state, mixed

WAITING = "another front-end leads, or another run is waiting already"
_NOWHERE = "http://127.0.0.1:9"
_WORKERS = min(4, os.cpu_count() or 1)

_WorldName = Literal["ec2", "oned"]


class Run(NamedTuple):
    """An undisturbed run: what it made of the mixed cloud, and its calls."""

    end: Document
    ec2: list[str]
    oned: list[str]
    mutating: list[str]


def _run(cloud: Cloud) -> Run:
    names = mixed(cloud)
    cloud.forget_calls()
    cloud.reconcile()
    ec2, oned, mutating = cloud.ec2.calls(), cloud.oned.calls(), cloud.mutating_calls()
    return Run(end_state(cloud, names), ec2, oned, mutating)


@pytest.fixture(scope="module")
def undisturbed(ec2_server: Ec2World, oned_server: Oned, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What becomes of the mixed cloud when nothing comes between."""
    with pytest.MonkeyPatch.context() as patch:
        return _run(_fresh(ec2_server, oned_server, tmp_path_factory.mktemp("undisturbed"), patch.setenv))


def _fresh(ec2: Ec2World, oned: Oned, directory: Path, setenv: Callable[[str, str], object]) -> Cloud:
    ec2.reset()
    oned.reset()
    cloud = Cloud(ec2, oned, directory)
    for key, value in cloud.environment.items():
        setenv(key, value)
    return cloud


def test_a_mixed_cloud_becomes_as_it_should_be_and_then_rests(cloud: Cloud) -> None:
    run = _run(cloud)
    homes = ["h1", "h1", "h2", "h3", "h3"]
    addresses = [f"10.0.0.{last}" for last in (101, 102, 103, 254, 253)]
    inside = [f"192.168.0.{last}" for last in (11, 12, 13, 2, 15)]
    assert run.end["elastic_ips"] == [[eip, addresses[at], f"eni-{homes[at]}"] for at, eip in enumerate(EIPS)]
    assert run.end["ranges"]["private"] == []
    assert run.end["ranges"]["public"] == sorted(
        [
            inside[at],
            [["AWS_ALLOCATION_ID", f"eipalloc-{at}"], ["AWS_PRIVATE_IP", addresses[at]], ["EXTERNAL_IP", eip]],
        ]
        for at, eip in enumerate(EIPS)
    )
    others = {"h1": ["10.0.0.4", "10.0.0.110"], "h2": ["10.0.0.5", "10.0.0.120"], "h3": ["10.0.0.6"]}
    assert run.end["interfaces"] == [
        [f"eni-{host}", sorted([*own, *(addresses[at] for at in range(5) if homes[at] == host)])]
        for host, own in others.items()
    ]
    shown = {
        name: (template["EC2_INSTANCE_ID"], template["EC2_INSTANCE_STATE"], template.get("EC2_FREE_ADDRESSES"))
        for name, (_, template) in run.end["hosts"].items()
    }
    live = {"h1": "46", "h2": "47", "h3": "49"}  # where two idle addresses are
    assert shown == {
        **{name: (f"i-{name}", "running", free) for name, free in live.items()},
        "h9": ("i-h9", "terminated", None),
    }
    assert run.end["hosts"]["h9"][0] == STATE_DISABLED
    status = {vm_id: template["AWS_EIP_STATUS"] for vm_id, template in run.end["vms"].items()}
    assert status == {str(at): f"OK: {EIPS[at]} on {homes[at]}" for at in range(3)}
    assert run.end["told"] == {"h1": PEERS, "h2": PEERS, "h3": PEERS, "h9": {}}
    assert_at_rest(cloud)


# Killed.


class Kill(NamedTuple):
    """A run that is killed: at which call of which world."""

    world: _WorldName
    number: int
    when: Literal["before", "after"]


_servers: tuple[Ec2World, Oned]
"""Of a worker process."""


def _begin() -> None:
    global _servers
    _servers = Ec2World(), Oned()


def _killed(directory: Path, kill: Kill) -> Document:
    """Runs in a worker process: the end state after a run that is killed, and one that is not."""
    place = directory / "-".join(map(str, kill))
    place.mkdir()
    cloud = _fresh(*_servers, place, os.environ.__setitem__)
    names = mixed(cloud)
    process = cloud.start("reconcile")
    (cloud.ec2 if kill.world == "ec2" else cloud.oned).kill_at(kill.number, kill.when, process.pid)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, kill
    assert_safe(cloud)
    cloud.oneaws("reconcile")
    return end_state(cloud, names)


def test_killed_at_any_call_the_next_run_ends_as_if_nothing_had_been(
    undisturbed: Run, tmp_path: Path, sampler: Sampler
) -> None:
    """Every call that changes something, before and after; of those that only read, every third, before.

    To be killed around a read is to be killed after the change before it. A sample of all that has each call at least once.
    """
    kills: list[Kill] = []
    calls: dict[_WorldName, list[str]] = {"ec2": undisturbed.ec2, "oned": undisturbed.oned}
    for world, names in calls.items():
        for number, name in enumerate(names, 1):
            if name in undisturbed.mutating:
                kills += [Kill(world, number, "before"), Kill(world, number, "after")]
            elif number % 3 == 0 or number == len(names):
                kills.append(Kill(world, number, "before"))
    assert len(kills) > 2 * len(undisturbed.mutating) > 40
    chosen = sampler.of(kills, lambda kill: (kill.when, calls[kill.world][kill.number - 1]), every=8)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_WORKERS, context, _begin) as workers:
        ends = workers.map(partial(_killed, tmp_path), chosen)
        different = {kill: end for kill, end in zip(chosen, ends, strict=True) if end != undisturbed.end}
    assert different == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("call", ["one.host.allocate", "one.vn.add_ar", "one.vm.update"])
def test_ended_by_a_signal_it_can_run_again(cloud: Cloud, call: str, number: signal.Signals) -> None:
    names = mixed(cloud)
    process = cloud.start("reconcile")
    cloud.oned.before(call, lambda: process.send_signal(number))
    stderr = process.communicate(timeout=30)[1]
    assert process.returncode != 0
    assert "Traceback" not in stderr
    assert_safe(cloud)
    cloud.oneaws("reconcile")
    assert end_state(cloud, names)["vms"]["1"]["AWS_EIP_STATUS"] == f"OK: {EIPS[1]} on h1"
    assert_at_rest(cloud)


def test_ended_while_hosts_are_told_it_tells_them_again(cloud: Cloud) -> None:
    mixed(cloud)
    (cloud.ssh / "h2.delay").write_text("30")
    process = cloud.start("reconcile")
    wait_for(lambda: "h2" in cloud.ssh_calls())
    process.kill()
    process.communicate(timeout=30)
    (cloud.ssh / "h2.delay").unlink()
    cloud.oneaws("reconcile")
    assert cloud.told("h1") == cloud.told("h2") == cloud.told("h3") == PEERS
    assert_at_rest(cloud)


# Beside others.


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_works_one_waits_and_a_third_ends_at_once(cloud: Cloud) -> None:
    mixed(cloud)
    cloud.forget_calls()
    go_on = threading.Event()
    working = threading.Event()

    def hold() -> None:
        working.set()
        go_on.wait(30)

    cloud.oned.before("one.hostpool.info", hold)
    first = cloud.start("reconcile")
    assert working.wait(30)
    second = cloud.start("reconcile")
    wait_for(lambda: cloud.oned.calls() == ["one.zone.raftstatus"] * 2)
    began = time.monotonic()
    assert WAITING in cloud.oneaws("reconcile").stderr
    assert time.monotonic() - began < 5
    assert first.poll() is second.poll() is None
    assert [*cloud.oned.calls(), *cloud.ec2.calls()] == ["one.zone.raftstatus"] * 2
    go_on.set()
    assert first.communicate(timeout=60)[0].count("\n") > 10
    assert second.communicate(timeout=60)[0] == "Nothing to change.\n"
    assert (first.returncode, second.returncode) == (0, 0)


@pytest.mark.parametrize("count", [2, 3])
def test_several_at_once_do_what_one_does(cloud: Cloud, undisturbed: Run, count: int) -> None:
    names = mixed(cloud)
    cloud.forget_calls()
    assert all(cloud.together(*[lambda: cloud.oneaws("reconcile")] * count))
    assert sorted(cloud.mutating_calls()) == sorted(undisturbed.mutating)
    assert end_state(cloud, names) == undisturbed.end


def test_beside_hooks_it_ends_in_the_same(cloud: Cloud, undisturbed: Run) -> None:
    names = mixed(cloud)
    documents = [cloud.oned.document("VM", vm_id) for vm_id in range(3)]
    hooks = [partial(cloud.hook, "vm_running", document) for document in documents]
    first, *others = cloud.together(lambda: cloud.oneaws("reconcile"), *hooks, *hooks)
    assert first
    assert [done.stderr for done in others] == [""] * 6
    assert_safe(cloud)
    cloud.oneaws("reconcile")
    assert end_state(cloud, names) == undisturbed.end
    assert_at_rest(cloud)


def test_vms_that_move_meanwhile_have_their_addresses_in_the_end(cloud: Cloud) -> None:
    mixed(cloud)
    cloud.oneaws("reconcile")
    home, goal = cloud.host("h1"), cloud.host("h2")

    def migrate() -> bool:
        for host in (goal, home, goal):
            cloud.oned.move_vm(0, host.host_id)
            assert cloud.hook("vm_running", cloud.oned.document("VM", 0)).returncode == 0
        return True

    assert all(cloud.together(migrate, *[lambda: cloud.oneaws("reconcile")] * 3))
    cloud.oneaws("reconcile")
    assert cloud.leads_to(EIPS[0]) == (goal.template["EC2_ENI_ID"], "10.0.0.101")
    assert cloud.vm(0).user_template["AWS_EIP_STATUS"].startswith(f"OK: {EIPS[0]} on ")
    assert_safe(cloud)
    assert_at_rest(cloud)


# When it does not act.


@pytest.mark.parametrize(
    ("state", "acts"), [(1, False), (2, False), (3, True)], ids=["candidate", "follower", "leader"]
)
def test_only_the_leader_acts(cloud: Cloud, state: int, acts: bool) -> None:
    mixed(cloud)
    cloud.oned.set_raft_state(state)
    cloud.forget_calls()
    done = cloud.oneaws("reconcile")
    assert bool(cloud.mutating_calls()) == bool(cloud.ssh_calls()) == bool(cloud.ec2.calls()) == acts
    assert (WAITING in done.stderr) != acts


def test_a_dry_run_changes_nothing_and_waits_for_nobody(cloud: Cloud) -> None:
    mixed(cloud)
    before = cloud.everything()
    cloud.forget_calls()
    state = cloud.directory / "state"
    printed = json.loads(cloud.oneaws("reconcile", "--dry-run", "--json").stdout)
    assert printed["dry_run"]
    assert {"host h3", "host h9", f"Elastic IP {EIPS[3]}"} <= {one["target"] for one in printed["changes"]}
    assert list(state.iterdir()) == []
    with open(state / "lock", "w") as lock, open(state / "next-reconcile.lock", "w") as queue:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fcntl.flock(queue, fcntl.LOCK_EX)
        assert json.loads(cloud.oneaws("reconcile", "--dry-run", "--json").stdout) == printed
    assert (cloud.mutating_calls(), cloud.ssh_calls()) == ([], [])
    assert cloud.everything() == before


def test_networks_say_what_is_wrong_with_them_until_it_is_right(cloud: Cloud) -> None:
    cloud.add_network("blue", VLAN_ID="100")
    green = cloud.add_network("green", VLAN_ID="200", NETWORK_ADDRESS="192.168.0.0", NETWORK_MASK="255.255.255.0")
    cloud.add_network("other", VN_MAD="bridge", BRIDGE="br0", VLAN_ID="100", MTU="1")
    assert cloud.reconcile()["changes"] == []
    Client().update_network(green, {"VLAN_ID": "100", "GATEWAY": "10.0.0.1", "BRIDGE": 'br"0'})
    (blue_said, green_said) = cloud.reconcile()["changes"]
    assert (blue_said["target"], green_said["target"]) == ("network blue", "network green")
    assert blue_said["change"].startswith("set AWS_OVS_ERROR: VLAN_ID 100 is the VNI of network 1 (green)")
    text = cloud.network(green).template["AWS_OVS_ERROR"]
    for part in (
        "BRIDGE 'br\"0' is not a device name; ",
        "VLAN_ID 100 is the VNI of network 0 (blue)",
        "GATEWAY 10.0.0.1",
    ):
        assert part in text
    assert cloud.reconcile()["changes"] == [], "it is written once"
    names = [
        line["CHECK"] for line in json.loads(cloud.oneaws("check", "--json", code=1).stdout) if line["STATUS"] != "ok"
    ]
    assert {"network blue", "network green"} <= {*names}
    Client().update_network(green, {"VLAN_ID": "200", "GATEWAY": "", "BRIDGE": "brgreen"})
    assert [change["change"] for change in cloud.reconcile()["changes"]] == ["empty AWS_OVS_ERROR"] * 2
    assert_at_rest(cloud)


def test_a_network_that_is_being_created_or_failed_is_not_written_to(cloud: Cloud) -> None:
    cloud.add_network("blue", VLAN_ID="0", ready=False)
    cloud.oned.fail_vnet_create(cloud.add_network("green", ready=False, VLAN_ID="0"), "no")
    assert cloud.reconcile()["changes"] == []


def test_without_oned_it_says_so_and_leaves_ec2_alone(cloud: Cloud) -> None:
    mixed(cloud)
    cloud.forget_calls()
    cloud.environment["ONE_XMLRPC"] = f"{_NOWHERE}/RPC2"
    done = cloud.oneaws("reconcile", code=1)
    assert done.stderr == (
        f"oneaws: oned at {_NOWHERE}/RPC2 does not answer (ConnectionError); is opennebula.service running?\n"
    )
    assert (cloud.ec2.calls(), cloud.ssh_calls()) == ([], [])


def test_without_ec2_it_says_so_once_and_serves_the_mesh(cloud: Cloud) -> None:
    mixed(cloud)
    cloud.forget_calls()
    cloud.environment |= {"AWS_ENDPOINT_URL_EC2": _NOWHERE, "AWS_MAX_ATTEMPTS": "1"}
    done = cloud.oneaws("reconcile", code=1)
    assert done.stderr == (
        f'oneaws: hosts: EC2 cannot be reached (Could not connect to the endpoint URL: "{_NOWHERE}/"); check the Region '
        "and the network\n"
    )
    assert cloud.oned.mutating_calls() == []
    assert cloud.told("h1") == cloud.told("two") == {"h1": "10.0.0.4", "h9": "10.0.0.7", "two": "10.0.0.5"}


def test_an_ec2_that_could_not_be_reached_is_not_waited_for_again(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        world = cloud.world()
        with pytest.raises(AwsOvsError, match="cannot be reached"):
            world.ec2.elastic_ips()
        closed.listen()
        closed.settimeout(0)
        with pytest.raises(AwsOvsError, match="cannot be reached"):
            world.ec2.subnets([cloud.ec2.subnet_id])
        with pytest.raises(BlockingIOError):
            closed.accept()


def test_a_refusal_of_ec2_is_one_stage_s_and_the_rest_goes_on(cloud: Cloud) -> None:
    mixed(cloud)
    cloud.ec2.fail_next("DescribeAddresses", "UnauthorizedOperation", 2)
    done = cloud.oneaws("reconcile", code=1)
    assert "UnauthorizedOperation" in done.stderr
    assert "allow it with share/aws/iam-policy.json" in done.stderr
    assert cloud.told("h1") == PEERS
    cloud.oneaws("reconcile")
    assert_at_rest(cloud)
