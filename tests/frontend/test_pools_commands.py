"""What `oneaws eip` says of pools and does for them, and runs of it that are killed."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import pytest

from vnm_aws.cli import main
from vnm_aws.frontend.ec2 import Ec2
from vnm_aws.frontend.oned import Oned as Client

from .cloud import Cloud
from .test_pools import allocation, associate, disassociate, fine, metal, sync

# The commands.


def lines_of(cloud: Cloud, *words: str) -> Sequence[str]:
    """What `oneaws eip` prints."""
    return cloud.oneaws("eip", *words).stdout.splitlines()


def test_the_list_shows_where_every_elastic_ip_leads_and_what_is_wrong(cloud: Cloud) -> None:
    (host,) = metal(cloud, "h1")
    (stranger,) = cloud.ec2.add_instances(["database"])
    pool = cloud.add_pool()
    cloud.add_network("other", AR='AR=[ TYPE="IP4", IP="10.9.0.2", SIZE="1", AWS_PRIVATE_IP="10.0.0.9" ]')
    first, second = cloud.add_eips(2)
    sync(cloud)
    vm_id = cloud.run_vm(pool, [0], "h1")
    disassociate(cloud, second)
    foreign, fresh = cloud.add_eips(2)
    associate(cloud, foreign, stranger, "10.0.0.66")
    cloud.ec2.set_elastic_ips(6)
    cloud.forget_calls()
    printed = lines_of(cloud, "list")
    assert [line.split() for line in printed[:6]] == [
        ["EXTERNAL_IP", "PRIVATE_IP", "NETWORK", "AR", "IP", "VM", "HOST", "STATUS"],
        [first, "10.0.0.254", "public", "0", "192.168.0.2", str(vm_id), "h1", "ok"],
        [second, "10.0.0.253", "public", "1", "192.168.0.3", "-", "h1", "pending"],
        [foreign, "10.0.0.66", "public", "-", "-", "-", stranger.eni_id, "problem"],
        [fresh, "-", "public", "-", "-", "-", "-", "pending"],
        ["-", "10.0.0.9", "other", "0", "10.9.0.2", "-", "-", "ok"],
    ]
    assert printed[6] == f"{second}: associate with 10.0.0.253 (range 1 of network public)"
    assert printed[7].startswith(
        f"{foreign}: is in a pool, but associated with {stranger.eni_id}, which is no OpenNebula"
    )
    assert printed[8] == f"{fresh}: add range 192.168.0.4 with 10.0.0.252 to network public"
    assert printed[9:] == ["Elastic IPs in the Region: 4 of 6, 2 more can be allocated."]
    document = json.loads(cloud.oneaws("eip", "list", "public", "--json").stdout)
    assert document["region"] == {"allocated": 4, "quota": 6}
    assert [one["STATUS"] for one in document["elastic_ips"]] == ["ok", "pending", "problem", "pending"]
    assert document["elastic_ips"][0] == {
        "EXTERNAL_IP": first,
        "ALLOCATION": allocation(cloud, first),
        "PRIVATE_IP": "10.0.0.254",
        "STAND_IN": None,
        "NETWORK": "public",
        "AR": 0,
        "IP": "192.168.0.2",
        "VM": [vm_id],
        "HELD": False,
        "HOST": "h1",
        "STATUS": "ok",
        "REASON": "",
    }
    assert cloud.mutating_calls() == []
    assert cloud.leads_to(first)[0] == host.eni_id


def test_the_list_says_what_is_wrong_with_a_whole_pool(cloud: Cloud) -> None:
    metal(cloud, "h1")
    cloud.add_pool(AWS_EIP_POOL="Pool=web")
    _, line, reason, _ = lines_of(cloud, "list")
    assert line.split() == ["-", "-", "public", "-", "-", "-", "-", "problem"]
    assert reason == "network public: AWS_EIP_POOL 'Pool=web' is not a tag filter like tag:Pool=web; correct it"


def test_the_list_says_that_a_leased_elastic_ip_leads_nowhere(cloud: Cloud) -> None:
    metal(cloud, "h1")
    pool = cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    sync(cloud)
    cloud.oned.lease(pool, 0, -1)
    disassociate(cloud, eip)
    assert lines_of(cloud, "list")[1].split()[-3:] == ["held", "h1", "unmapped"]


def test_sync_of_one_pool_leaves_the_others(cloud: Cloud) -> None:
    metal(cloud, "h1")
    first, second = cloud.add_pool(), cloud.add_pool("staging", AWS_EIP_POOL="tag:Pool=staging")
    cloud.add_eips(1)
    (eip,) = cloud.add_eips(1, {"Pool": "staging"})
    assert lines_of(cloud, "sync", "staging") == [
        f"Elastic IP {eip}: add range 192.168.0.2 with 10.0.0.254 to network staging",
    ]
    assert (len(cloud.network(first).ranges), len(cloud.network(second).ranges)) == (0, 1)
    sync(cloud, str(first))
    assert len(cloud.network(first).ranges) == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("plain", "network plain is not an Elastic IP pool that is ready; see 'oneaws eip list'"),
        ("young", "network young is not an Elastic IP pool that is ready"),
        ("nothing", "network nothing: OpenNebula has none; choose one by its ID from 'onevnet list'"),
    ],
)
def test_sync_of_what_is_no_pool_is_refused(cloud: Cloud, name: str, says: str) -> None:
    metal(cloud, "h1")
    cloud.add_network("plain")
    cloud.add_pool("young", ready=False)
    cloud.add_pool()
    cloud.add_eips(1)
    cloud.forget_calls()
    assert says in cloud.oneaws("eip", "sync", name, code=1).stderr
    assert cloud.mutating_calls() == []


def test_a_dry_run_says_what_would_be_done_and_does_nothing(cloud: Cloud) -> None:
    metal(cloud, "h1")
    cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    before = cloud.everything()
    cloud.forget_calls()
    said = f"Elastic IP {eip}: would add range 192.168.0.2 with 10.0.0.254 to network public"
    assert said in lines_of(cloud, "sync", "--dry-run")
    assert (cloud.mutating_calls(), cloud.everything()) == ([], before)
    document = json.loads(cloud.oneaws("eip", "sync", "--json").stdout)
    assert (document["dry_run"], document["problems"]) == (False, [])
    assert document["changes"][0] == {"target": f"Elastic IP {eip}", "change": said.partition("would ")[2]}
    assert lines_of(cloud, "sync") == ["Nothing to change."]


# Runs that are killed.

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["vnm_aws.cli", "vnm_aws.frontend.reconcile"])


def _serve(environment: Mapping[str, str], pipe: Any) -> None:
    """Be `oneaws eip sync` again and again, each time in a process of its own that waits for its start."""
    os.environ.update(environment)
    sys.argv[1:] = ["eip", "sync"]
    Ec2("", 1)  # what takes longest when a process begins is done once
    while True:
        pid = os.fork()
        if pid == 0:
            try:
                pipe.recv()
                main()
            except SystemExit as end:
                os._exit(1 if end.code else 0)
            finally:
                os._exit(2)
        pipe.send(pid)
        pipe.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


@pytest.fixture
def eip_sync(cloud: Cloud) -> Iterator[Callable[[Callable[[int], None]], int]]:
    """Run `oneaws eip sync`, having called a function with its process id; its exit code."""
    pipe, theirs = _FORKS.Pipe()
    server = _FORKS.Process(target=_serve, args=(cloud.environment, theirs))
    server.start()

    def run(prepare: Callable[[int], None]) -> int:
        prepare(pipe.recv())
        pipe.send("begin")
        return int(pipe.recv())

    yield run
    server.kill()
    server.join()
    pipe.close()


def _fill(cloud: Cloud) -> None:
    """A cloud with two hosts and a pool that is to get three Elastic IPs."""
    metal(cloud, "h1", "h2")
    cloud.add_pool()
    cloud.add_eips(3)


def _state(cloud: Cloud) -> list[object]:
    """What a run has brought about, without ids. Of two hosts that are alike, either may have got the one address more."""
    eips = cloud.ec2.client.describe_addresses()["Addresses"]
    enis = cloud.ec2.client.describe_network_interfaces()["NetworkInterfaces"]
    private = [[one["PrivateIpAddress"] for one in eni["PrivateIpAddresses"] if not one["Primary"]] for eni in enis]
    public = {one["AllocationId"]: one["PublicIp"] for one in eips}
    return [
        [
            (one.ip, one.size, {**one.attributes, "AWS_ALLOCATION_ID": public[one.attributes["AWS_ALLOCATION_ID"]]})
            for one in cloud.network(0).ranges
        ],
        sorted((one["PublicIp"], one["PrivateIpAddress"]) for one in eips),
        sorted(itertools.chain(*private)),
        sorted(map(len, private)),
        sorted(one.template["EC2_FREE_ADDRESSES"] for one in Client().hosts()),
    ]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("side", ["ec2", "oned"])
def test_a_run_killed_at_any_call_is_made_up_for_by_the_next(
    cloud: Cloud,
    eip_sync: Callable[[Callable[[int], None]], int],
    side: Literal["ec2", "oned"],
    when: Literal["before", "after"],
) -> None:
    _fill(cloud)
    fine(sync(cloud))
    undisturbed, world = _state(cloud), getattr(cloud, side)
    for number in itertools.count(1):
        cloud.ec2.reset()
        cloud.oned.reset()
        _fill(cloud)
        cloud.forget_calls()
        code = eip_sync(partial(world.kill_at, number, when))
        calls = len(world.calls())
        if code == 0:
            break
        assert (code, calls) == (-signal.SIGKILL, number)
        fine(sync(cloud))
        assert _state(cloud) == undisturbed, f"killed {when} call {number}"
    assert calls == number - 1 > 5
