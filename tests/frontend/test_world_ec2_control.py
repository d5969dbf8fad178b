"""How the lab's EC2 answers: filters and pages, and what a test can order: delay, throttling, failures, kills, reset."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.world.ec2.region import Ec2World, Instance, Rate, elastic_ip, private_ips, refused, where

_DELAY_S = 1.0


# Filters and pages


def _assign(ec2: Any, host: Instance, *addresses: str) -> None:
    ec2.assign_private_ip_addresses(
        NetworkInterfaceId=host.eni_id, PrivateIpAddresses=addresses, AllowReassignment=True
    )


def test_filters_of_instances(ec2_world: Ec2World, ec2: Any) -> None:
    subnet = ec2_world.add_subnet("10.0.2.0/24")
    one = ec2_world.add_instance("h1", "10.0.0.11", tags={"cloud": "a b"})
    other = ec2_world.add_instance("h2", "10.0.2.12", subnet=subnet)
    ended = ec2_world.add_instance("h3", "10.0.0.13", tags={"cloud": "a b"})
    ec2_world.terminate(ended.instance_id)

    def found(*filters: dict[str, object]) -> set[str]:
        answer = ec2.describe_instances(Filters=list(filters))["Reservations"]
        names = {host.instance_id: host.name for host in (one, other, ended)}
        return {names.get(each["InstanceId"], "") for item in answer for each in item["Instances"]} - {""}

    assert found(*where("instance-id", one.instance_id, ended.instance_id)) == {"h1", "h3"}
    assert found(*where("instance-id", "i-0123456789abcdef0")) == set()
    assert found(*where("vpc-id", ec2_world.vpc_id)) == {"h1", "h2"}
    assert found(*where("subnet-id", subnet)) == {"h2"}
    assert found(*where("tag:cloud", "a*")) == {"h1", "h3"}
    assert found(*where("tag:cloud", "a")) == set()
    assert found(*where("tag:Name", "h?")) == {"h1", "h2", "h3"}
    assert found(*where("tag-key", "cloud"), *where("instance-state-name", "running", "pending")) == {"h1"}
    with refused("InvalidParameterValue"):
        found(*where("instance-ID", one.instance_id))
    with refused("InvalidInstanceID.NotFound"):
        ec2.describe_instances(InstanceIds=[one.instance_id, "i-0123456789abcdef0"])


def test_filters_of_interfaces(ec2_world: Ec2World, ec2: Any) -> None:
    one, other = ec2_world.add_instance("h1", "10.0.0.11"), ec2_world.add_instance("h2", "10.0.0.12")
    _assign(ec2, other, "10.0.0.41")
    ec2_world.tag(one.eni_id, role="front")

    def found(name: str, *values: str) -> set[str]:
        answer = ec2.describe_network_interfaces(Filters=where(name, *values))["NetworkInterfaces"]
        return {eni["NetworkInterfaceId"] for eni in answer}

    assert found("addresses.private-ip-address", "10.0.0.41") == {other.eni_id}
    assert found("attachment.instance-id", one.instance_id) == {one.eni_id}
    assert found("network-interface-id", one.eni_id, "eni-0123456789abcdef0") == {one.eni_id}
    assert found("subnet-id", ec2_world.subnet_id) == found("vpc-id", ec2_world.vpc_id) == {one.eni_id, other.eni_id}
    assert found("tag:role", "front") == {one.eni_id}
    with refused("InvalidNetworkInterfaceID.NotFound"):
        ec2.describe_network_interfaces(NetworkInterfaceIds=["eni-0123456789abcdef0"])


def test_filters_of_addresses(ec2_world: Ec2World, ec2: Any) -> None:
    host = ec2_world.add_instance("h1", "10.0.0.11")
    allocation = ec2_world.allocate_eip("54.10.20.41", tags={"vm": "7"})
    ec2_world.give_eip(allocation, host.eni_id, "10.0.0.41")

    def found(name: str, value: str) -> list[str]:
        return sorted(one["PublicIp"] for one in ec2.describe_addresses(Filters=where(name, value))["Addresses"])

    assert found("tag:vm", "7") == found("public-ip", "54.10.20.41") == found("allocation-id", allocation)
    assert found("tag:vm", "7") == found("private-ip-address", "10.0.0.41") == ["54.10.20.41"]
    assert found("network-interface-id", host.eni_id) == sorted([host.public_ip, "54.10.20.41"])
    assert found("allocation-id", "eipalloc-0123456789abcdef0") == []
    with refused("InvalidAddress.NotFound"):
        ec2.describe_addresses(PublicIps=["54.10.20.42"])


def test_pages(ec2_world: Ec2World, ec2: Any) -> None:
    """MaxResults: "To get the next page of items, make another request with the token returned in the output"; "You
    cannot specify this parameter and the instance IDs parameter in the same request"."""
    wide, unchecked = ec2_world.add_subnet("10.0.128.0/20"), ec2_world.program(validate=False)
    for number in range(5):
        ec2_world.add_subnet(f"10.0.{100 + number}.0/24")
    ec2_world.add_instances([f"n{number}" for number in range(1001)], subnet=wide)
    for action, key in (("describe_instances", "Reservations"), ("describe_network_interfaces", "NetworkInterfaces")):
        describe, subnet = getattr(ec2, action), where("subnet-id", wide)
        first = describe(Filters=subnet)
        assert len(first[key]) == 1000
        rest = describe(Filters=subnet, NextToken=first["NextToken"])
        assert (len(rest[key]), "NextToken" in rest) == (1, False)
        pages = list(ec2.get_paginator(action).paginate(Filters=subnet, PaginationConfig={"PageSize": 300}))
        assert [len(page[key]) for page in pages] == [300, 300, 300, 101]
        for size in (4, 1001):
            with refused("InvalidParameterValue"):
                getattr(unchecked, action)(MaxResults=size)
        with refused("InvalidNextToken"):
            describe(NextToken="x")
    page = ec2.describe_subnets(MaxResults=5)
    assert (len(page["Subnets"]), "NextToken" in page) == (5, True)
    host = ec2.describe_instances(Filters=where("tag:Name", "n7"))["Reservations"][0]["Instances"][0]
    with refused("InvalidParameterCombination"):
        ec2.describe_instances(InstanceIds=[host["InstanceId"]], MaxResults=5)
    assert len({eni["MacAddress"] for eni in pages[0]["NetworkInterfaces"]}) == 300
    types = ec2.describe_instance_types()
    assert (len(types["InstanceTypes"]), "NextToken" in types) == (100, True)
    named = ec2.describe_instance_types(Filters=where("instance-type", "c5n.metal"))
    assert [one["InstanceType"] for one in named["InstanceTypes"]] == ["c5n.metal"]


def test_addresses_have_no_pages(ec2_world: Ec2World, ec2: Any) -> None:
    ec2_world.allocate_eips([{"number": str(number)} for number in range(1200)])
    answer = ec2.describe_addresses()
    assert len({one["PublicIp"] for one in answer["Addresses"]}) == 1200
    assert "NextToken" not in answer


def test_a_region_refuses_calls_for_another(ec2_world: Ec2World) -> None:
    other = ec2_world.program(region="us-east-2")
    with refused("AuthFailure", 401):
        other.describe_addresses()


# A new account


def test_reset_is_as_a_new_account_and_fast(ec2_world: Ec2World, ec2: Any) -> None:
    begun = (ec2_world.vpc_id, ec2_world.subnet_id)
    subnet = ec2_world.add_subnet("10.0.3.0/24")
    ec2_world.add_instances([f"n{number}" for number in range(100)], subnet=subnet, eip=True)
    ec2.allocate_address(Domain="vpc")
    ec2_world.set_elastic_ips(3)
    ec2_world.set_visibility_delay(60)
    ec2_world.set_throttle(Rate(0, 0), Rate(0, 0))
    ec2_world.fail_next("AllocateAddress", "InternalError")
    bystander = subprocess.Popen(["sleep", "60"])
    ec2_world.kill_at(1, "before", bystander.pid)
    since = time.monotonic()
    ec2_world.reset()
    assert time.monotonic() - since < 0.05
    assert ec2_world.calls() == []
    assert (ec2_world.vpc_id, ec2_world.subnet_id) == begun
    vpc = where("vpc-id", ec2_world.vpc_id)
    assert [one["SubnetId"] for one in ec2.describe_subnets(Filters=vpc)["Subnets"]] == [ec2_world.subnet_id]
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()
    for key, describe in (
        ("Reservations", ec2.describe_instances),
        ("NetworkInterfaces", ec2.describe_network_interfaces),
        ("Addresses", ec2.describe_addresses),
    ):
        assert describe()[key] == []
    assert ec2_world.add_instance("h1", "10.0.0.11").public_ip == "198.51.100.1"
    for _ in range(4):
        ec2.allocate_address(Domain="vpc")
    assert len(ec2.describe_addresses()["Addresses"]) == 5


# Time, failures, and what has been called


def test_changes_show_late_but_hold_at_once(ec2_world: Ec2World, ec2: Any) -> None:
    """Eventual consistency: "the result of an API command you run that creates or modifies resources might not be
    immediately available to all subsequent commands you run"."""
    one, other = ec2_world.add_instance("h1", "10.0.0.11"), ec2_world.add_instance("h2", "10.0.0.12")
    _assign(ec2, one, "10.0.0.41")
    allocation = ec2_world.allocate_eip("54.10.20.41")
    ec2_world.set_visibility_delay(_DELAY_S)
    since = time.monotonic()
    _assign(ec2, other, "10.0.0.41")
    ec2.associate_address(AllocationId=allocation, NetworkInterfaceId=other.eni_id, PrivateIpAddress="10.0.0.41")
    new = ec2_world.add_instance("h3", "10.0.0.13")
    with refused("InvalidParameterValue"):
        ec2.assign_private_ip_addresses(NetworkInterfaceId=one.eni_id, PrivateIpAddresses=["10.0.0.41"])

    def seen(client: Any) -> tuple[list[str], list[str], str | None]:
        eip = elastic_ip(client, allocation).get("PrivateIpAddress")
        return private_ips(client, one.eni_id), private_ips(client, other.eni_id), eip

    before = seen(ec2)
    with refused("InvalidInstanceID.NotFound"):
        ec2.describe_instances(InstanceIds=[new.instance_id])
    assert time.monotonic() - since < _DELAY_S, "too slow to tell"
    assert before == (["10.0.0.11", "10.0.0.41"], ["10.0.0.12"], None)
    after = (["10.0.0.11"], ["10.0.0.12", "10.0.0.41"], "10.0.0.41")
    assert seen(ec2_world.client) == after
    time.sleep(_DELAY_S)
    assert seen(ec2) == after
    assert ec2.describe_instances(InstanceIds=[new.instance_id])["Reservations"]


def test_changes_show_one_after_the_other(ec2_world: Ec2World, ec2: Any) -> None:
    host = ec2_world.add_instance("h1", "10.0.0.11")
    ec2_world.set_visibility_delay(_DELAY_S)
    _assign(ec2, host, "10.0.0.41")
    time.sleep(_DELAY_S / 2)
    _assign(ec2, host, "10.0.0.42")
    since, shown = time.monotonic(), [private_ips(ec2, host.eni_id)]
    while len(shown[-1]) < 3 and time.monotonic() < since + 10 * _DELAY_S:
        now = private_ips(ec2, host.eni_id)
        if now != shown[-1]:
            shown.append(now)
        time.sleep(0.02)
    assert time.monotonic() - since > _DELAY_S * 0.9
    all_three = ["10.0.0.11", "10.0.0.41", "10.0.0.42"]
    assert shown == [all_three[:1], all_three[:2], all_three]


def test_throttling_by_action(ec2_world: Ec2World, ec2: Any) -> None:
    """The token bucket algorithm: "Each API request removes one token from the bucket"; an empty one refuses with
    RequestLimitExceeded until it is refilled."""
    ec2_world.set_throttle(mutating=Rate(2, 0.01), describe=Rate(3, 1))
    ec2.allocate_address(Domain="vpc")
    ec2.allocate_address(Domain="vpc")
    with refused("RequestLimitExceeded", 503):
        ec2.allocate_address(Domain="vpc")
    for _ in range(3):
        ec2.describe_addresses()
    with refused("RequestLimitExceeded", 503):
        ec2.describe_addresses()
    ec2.describe_instances()
    assert len(ec2_world.client.describe_addresses()["Addresses"]) == 2
    time.sleep(1.1)
    ec2.describe_addresses()
    ec2_world.program(attempts=6).describe_addresses()


def test_calls_are_recorded_but_not_the_worlds_own(ec2_world: Ec2World, ec2: Any) -> None:
    ec2_world.add_instance("h1", "10.0.0.11")
    assert ec2_world.calls() == []
    allocation = ec2.allocate_address(Domain="vpc")["AllocationId"]
    ec2.describe_addresses()
    with refused("InvalidAllocationID.NotFound"):
        ec2.release_address(AllocationId="eipalloc-0123456789abcdef0")
    ec2.release_address(AllocationId=allocation)
    assert ec2_world.calls() == ["AllocateAddress", "DescribeAddresses", "ReleaseAddress", "ReleaseAddress"]
    assert ec2_world.mutating_calls() == ["AllocateAddress", "ReleaseAddress", "ReleaseAddress"]
    ec2_world.forget_calls()
    assert ec2_world.calls() == []


def test_calls_fail_as_often_as_told(ec2_world: Ec2World, ec2: Any) -> None:
    ec2_world.fail_next("AllocateAddress", "InternalError", times=2)
    ec2_world.fail_next("DescribeAddresses", "UnauthorizedOperation")
    for _ in range(2):
        with refused("InternalError", 500):
            ec2.allocate_address(Domain="vpc")
    with refused("UnauthorizedOperation", 403):
        ec2.describe_addresses()
    assert ec2.describe_addresses()["Addresses"] == []
    ec2_world.fail_next("AllocateAddress", "InternalError")
    ec2_world.program(attempts=2).allocate_address(Domain="vpc")
    assert len(ec2.describe_addresses()["Addresses"]) == 1


_PROGRAM = """
import boto3
ec2 = boto3.client("ec2")
for _ in range(3):
    ec2.allocate_address(Domain="vpc")
print("done")
"""


@pytest.mark.parametrize(("when", "made"), [("before", 1), ("after", 2)])
def test_a_program_is_killed_at_a_call(ec2_world: Ec2World, when: Any, made: int) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", f"input()\n{_PROGRAM}"],
        env=ec2_world.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    ec2_world.kill_at(2, when, program.pid)
    output, _ = program.communicate("\n", timeout=30)
    assert (program.returncode, output) == (-signal.SIGKILL, "")
    assert len(ec2_world.client.describe_addresses()["Addresses"]) == made
    assert ec2_world.calls() == ["AllocateAddress"] * 2


def test_a_program_finds_the_world_by_its_environment(ec2_world: Ec2World) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], env=ec2_world.environment(), capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert ec2_world.calls() == ["AllocateAddress"] * 3


def test_a_large_account_is_made_in_few_requests(
    ec2_world: Ec2World, ec2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = ec2_world.add_subnet("10.0.64.0/20")
    asked, put_request = [], HTTPConnection.putrequest

    def counted(self: HTTPConnection, method: str, url: str, *words: Any, **more: Any) -> None:
        asked.append(url)
        put_request(self, method, url, *words, **more)

    monkeypatch.setattr(HTTPConnection, "putrequest", counted)  # boto3's connections inherit it
    hosts = ec2_world.add_instances(
        [f"n{number}" for number in range(500)], tags={"cloud": "one"}, subnet=wide, eip=True
    )
    eips = ec2_world.allocate_eips([{"number": str(number)} for number in range(1000)])
    assert asked == ["/lab/populate"] * 2
    assert len({host.private_ip for host in hosts} | {host.public_ip for host in hosts}) == 1000
    shown = ec2.describe_instances(Filters=where("tag:cloud", "one"))["Reservations"]
    assert len(shown) == 500
    assert len(asked) > 2, "boto3's requests are not counted"
    assert elastic_ip(ec2, eips[700].allocation_id)["Tags"] == [{"Key": "number", "Value": "700"}]
