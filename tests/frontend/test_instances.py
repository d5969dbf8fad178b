"""Which instances become hosts and by what they run guests, what AWS is going to do with them, and whom their tags name."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from vnm_aws.frontend.objects import STATE_DISABLED, STATE_INIT
from vnm_aws.frontend.tags import of_other_cloud

from .cloud import POOL, Cloud
from .following import settle

KIND, ENDING = "EC2_VIRTUALIZATION", "EC2_ENDING"
CLOUD, VMS = "aws_ovs:cloud", "aws_ovs:vm"


# By what they run guests


def test_hosts_are_metal_or_have_nested_virtualization_and_one_with_neither_is_reported(cloud: Cloud) -> None:
    """EC2's reference: BareMetal of InstanceTypeInfo, and nestedVirtualization of CpuOptions, enabled or disabled."""
    cloud.add_metal("metal")
    nested, off = cloud.add_metal("nested", "off", instance_type="m8i.4xlarge")
    cloud.ec2.mark(nested.instance_id, CpuOptions={"NestedVirtualization": "enabled"})
    cloud.ec2.mark(off.instance_id, CpuOptions={"NestedVirtualization": "disabled"})
    (small,) = cloud.add_metal("small", instance_type="c5.large")
    said = cloud.oneaws("host", "sync").stdout
    kinds = {name: cloud.host(name).template[KIND] for name in ("metal", "nested", "off", "small")}
    assert kinds == {"metal": "metal", "nested": "nested", "off": "none", "small": "none"}
    assert cloud.ec2.calls().count("DescribeInstanceTypes") == 1
    for one in (off, small):
        assert f"create it for instance {one.instance_id}, which can run no KVM guests: it is neither metal" in said
    assert "stop" not in said
    lines = {line["CHECK"]: line for line in json.loads(cloud.oneaws("check", "--json", code=1).stdout)}
    assert lines["host off"]["STATUS"] == lines["host small"]["STATUS"] == "failed"
    command = f"aws ec2 modify-instance-cpu-options --instance-id {off.instance_id} --nested-virtualization enabled"
    assert command in lines["host off"]["DETAIL"]
    assert "c8i, m8i, r8i" in lines["host small"]["DETAIL"]
    assert "host nested" not in lines
    cloud.ec2.mark(off.instance_id, CpuOptions={"NestedVirtualization": "enabled"})
    assert "host off: set EC2_VIRTUALIZATION=nested" in cloud.oneaws("host", "sync").stdout


def test_a_metal_type_that_the_region_does_not_know_is_metal_by_its_name(cloud: Cloud) -> None:
    cloud.add_metal("new", instance_type="x9z.metal-48xl")
    cloud.oneaws("host", "sync")
    assert cloud.host("new").template[KIND] == "metal"


def test_other_drivers_than_kvm_need_no_virtualization(cloud: Cloud) -> None:
    cloud.configure(im_mad="lxc", vm_mad="lxc")
    cloud.add_metal("small", instance_type="c5.large")
    assert "KVM" not in cloud.oneaws("host", "sync").stdout
    assert "host small" not in [line["CHECK"] for line in json.loads(cloud.oneaws("check", "--json", code=1).stdout)]


# What AWS is going to do


def _event(code: str, day: int = 1, description: str = "") -> dict[str, object]:
    when = datetime(2027, 1, day, 10, tzinfo=timezone.utc)
    return {
        "InstanceEventId": "instance-event-1",
        "Code": code,
        "Description": description,
        "NotBefore": when.isoformat(),
    }


def test_a_host_that_aws_is_going_to_end_is_disabled_once_and_said_until_it_is_over(cloud: Cloud) -> None:
    (one,) = cloud.add_metal("h1")
    cloud.oneaws("reconcile")
    cloud.ec2.mark(one.instance_id, Events=[_event("instance-retirement")])
    done = cloud.oneaws("reconcile", code=1)
    assert "host h1: disable it, for AWS ends its instance" in done.stdout
    what = f"host h1: AWS ends its instance {one.instance_id} on 2027-01-01 10:00 UTC (instance-retirement)"
    assert f"{what}; move its VMs away with 'onehost flush h1'" in done.stderr
    host = cloud.host("h1")
    assert (host.state, host.template[ENDING]) == (STATE_DISABLED, "instance-retirement 2027-01-01 10:00 UTC")
    cloud.world().oned.enable_host(host.host_id)
    cloud.forget_calls()
    assert what in cloud.oneaws("reconcile", code=1).stderr
    assert cloud.mutating_calls() == [], "whoever enables it again has the last word"
    cloud.world().oned.disable_host(host.host_id)
    cloud.ec2.mark(one.instance_id, Events=[_event("instance-retirement", description="[Completed] moved")])
    assert "enable it, for AWS does not end its instance any more" in cloud.oneaws("reconcile").stdout
    assert (cloud.host("h1").state, cloud.host("h1").template[ENDING]) == (STATE_INIT, "")
    assert cloud.oneaws("reconcile").stdout == "Nothing to change.\n"


def test_a_host_that_was_disabled_before_stays_so_afterwards(cloud: Cloud) -> None:
    (one,) = cloud.add_metal("h1")
    cloud.oneaws("reconcile")
    cloud.world().oned.disable_host(cloud.host("h1").host_id)
    for events, code in (([_event("instance-stop")], 1), ([_event("instance-stop", 2)], 1), ([], 0)):
        cloud.ec2.mark(one.instance_id, Events=events)
        cloud.oneaws("reconcile", code=code)
        assert cloud.host("h1").state == STATE_DISABLED
    assert cloud.oned.mutating_calls().count("one.host.status") == 1


def test_a_reboot_is_said_and_disables_nothing(cloud: Cloud) -> None:
    (one,) = cloud.add_metal("h1")
    cloud.oneaws("reconcile")
    cloud.ec2.mark(one.instance_id, Events=[_event("system-reboot")])
    assert (
        "out of service for a while on 2027-01-01 10:00 UTC (system-reboot)" in cloud.oneaws("reconcile", code=1).stderr
    )
    assert cloud.host("h1").state == STATE_INIT


def test_a_spot_host_that_is_taken_back_is_disabled_and_only_spot_hosts_are_asked_for(cloud: Cloud) -> None:
    one, _ = cloud.add_metal("h1", "h2")
    cloud.oneaws("reconcile")
    assert "DescribeSpotInstanceRequests" not in cloud.ec2.calls()
    cloud.ec2.mark(one.instance_id, InstanceLifecycle="spot", SpotStatus="fulfilled")
    cloud.oneaws("reconcile")
    cloud.ec2.mark(one.instance_id, SpotStatus="marked-for-termination")
    assert "within two minutes (spot-interruption)" in cloud.oneaws("reconcile", code=1).stderr
    assert [cloud.host(name).state for name in ("h1", "h2")] == [STATE_DISABLED, STATE_INIT]


def test_without_the_right_to_read_notices_hosts_are_served_all_the_same(cloud: Cloud) -> None:
    cloud.add_metal("h1")
    cloud.ec2.fail_next("DescribeInstanceStatus", "UnauthorizedOperation")
    said = cloud.oneaws("reconcile", code=1).stderr
    assert "hosts: EC2 refused DescribeInstanceStatus, UnauthorizedOperation" in said
    assert cloud.host("h1").state == STATE_INIT


# Whom they belong to


def test_two_opennebulas_in_one_account_are_kept_apart_by_the_tag(cloud: Cloud) -> None:
    ours, theirs, _ = cloud.add_metal("ours", "theirs", "free")
    cloud.ec2.tag(ours.instance_id, **{CLOUD: "prod"})
    cloud.ec2.tag(theirs.instance_id, **{CLOUD: "test"})
    cloud.add_eips(1)
    cloud.add_eips(1, {**POOL, CLOUD: "prod"})
    cloud.add_eips(1, {**POOL, CLOUD: "test"})
    pool = cloud.add_pool()
    cloud.configure(cloud="prod")
    cloud.oneaws("reconcile")
    assert {host.name for host in cloud.world().hosts} == {"ours", "free"}
    assert len(cloud.network(pool).ranges) == 2
    cloud.ec2.tag(ours.instance_id, **{CLOUD: "test"})
    said = cloud.oneaws("reconcile", code=1).stderr
    assert (
        f"host ours: its instance {ours.instance_id} has the tag aws_ovs:cloud=test, and this OpenNebula is 'prod'"
        in said
    )
    assert cloud.host("ours").state == STATE_INIT


@pytest.mark.parametrize(
    ("tags", "cloud", "other"),
    [
        ({}, "", False),
        ({}, "prod", False),
        ({CLOUD: "prod"}, "prod", False),
        ({CLOUD: "test"}, "prod", True),
        ({CLOUD: "test"}, "", True),
    ],
)
def test_what_has_no_tag_is_anybodys(tags: dict[str, str], cloud: str, other: bool) -> None:
    assert of_other_cloud(tags, cloud) is other


def test_tags_say_which_vms_are_served_in_few_calls_and_only_when_that_is_asked_for(cloud: Cloud) -> None:
    site = settle(cloud, eips=3)
    vm_id = site.run("h1", 0, 1)
    site.reconcile()
    assert "CreateTags" not in cloud.ec2.calls()
    cloud.configure(cloud="prod", write_tags=True)
    cloud.forget_calls()
    done = cloud.oneaws("reconcile")
    assert cloud.ec2.mutating_calls() == ["CreateTags"] * 2, "one for the cloud of all, one for the VM"
    assert f"tag with aws_ovs:vm={vm_id}" in done.stdout
    lines = {line["CHECK"]: line for line in json.loads(cloud.oneaws("check", "--json", code=1).stdout)}
    assert "CreateTags" in lines["rights"]["DETAIL"]
    expected = {CLOUD: "prod", VMS: str(vm_id)}
    host, other = site.hosts["h1"], site.hosts["h2"]
    for resource_id in (host.instance_id, host.eni_id, site.address(0).allocation_id, site.address(1).allocation_id):
        assert _tags(cloud, resource_id) == expected
    for resource_id in (other.instance_id, other.eni_id, site.address(2).allocation_id):
        assert _tags(cloud, resource_id) == {CLOUD: "prod"}
    assert cloud.oneaws("reconcile").stdout == "Nothing to change.\n"


def _tags(cloud: Cloud, resource_id: str) -> dict[str, str]:
    listed = cloud.ec2.client.describe_tags(Filters=[{"Name": "resource-id", "Values": [resource_id]}])["Tags"]
    return {tag["Key"]: tag["Value"] for tag in listed if tag["Key"] in (CLOUD, VMS)}


# Where the front-end is


_TOKEN = "A-TOKEN"
_VALUES = {
    "placement/region": "eu-west-1",
    "mac": "02:29:96:8f:6a:2d",
    "network/interfaces/macs/02:29:96:8f:6a:2d/vpc-id": "",
}


class _Metadata(BaseHTTPRequestHandler):
    """EC2's instance metadata service, version 2: a token by PUT, without which GET is refused (EC2 guide, "Use IMDSv2")."""

    values: dict[str, str]

    def do_PUT(self) -> None:
        right = self.path == "/latest/api/token" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        self._answer(200 if right else 400, _TOKEN)

    def do_GET(self) -> None:
        value = self.values.get(self.path.removeprefix("/latest/meta-data/"))
        if self.headers.get("X-aws-ec2-metadata-token") != _TOKEN:
            self._answer(401, "")
        else:
            self._answer(404 if value is None else 200, value or "")

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def in_ec2(cloud: Cloud) -> Iterator[dict[str, str]]:
    """The front-end runs on an instance; what its metadata say may be changed."""
    values = dict(_VALUES)
    handler = type("Handler", (_Metadata,), {"values": values})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        del cloud.environment["AWS_EC2_METADATA_DISABLED"]
        cloud.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = f"http://127.0.0.1:{server.server_address[1]}/"
        yield values
        server.shutdown()


def test_the_region_is_that_of_the_front_end_s_own_instance_when_none_is_set(
    cloud: Cloud, in_ec2: dict[str, str]
) -> None:
    del cloud.environment["AWS_DEFAULT_REGION"]
    cloud.add_metal("h1")
    cloud.oneaws("host", "sync")
    assert cloud.host("h1").template["EC2_AZ"] == "eu-west-1a"
    in_ec2.clear()
    assert "no AWS Region is configured" in cloud.oneaws("host", "sync", code=1).stderr


def test_of_several_vpcs_with_such_instances_that_of_the_front_end_counts(cloud: Cloud, in_ec2: dict[str, str]) -> None:
    client = cloud.ec2.client
    vpc_id = client.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = client.create_subnet(VpcId=vpc_id, CidrBlock="10.9.0.0/24")["Subnet"]["SubnetId"]
    cloud.add_metal("here")
    cloud.add_metal("there", subnet=subnet)
    in_ec2["network/interfaces/macs/02:29:96:8f:6a:2d/vpc-id"] = cloud.ec2.vpc_id
    cloud.oneaws("host", "sync")
    assert {host.name for host in cloud.world().hosts} == {"here"}
    in_ec2["network/interfaces/macs/02:29:96:8f:6a:2d/vpc-id"] = "vpc-0elsewhere"
    cloud.oneaws("host", "sync")
    assert {host.name for host in cloud.world().hosts} == {"here", "there"}
