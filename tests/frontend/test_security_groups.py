"""AWS' own security groups: what `oneaws check` says of those of the hosts, and that its commands put it right."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from tests.world.ec2.region import Instance
from vnm_aws.frontend.oned import Oned as Client

from .cloud import Cloud

VXLAN = 4789
WORLD = "0.0.0.0/0"
WELL = "hosts, and nobody else, reach UDP 4789 of hosts"


def said(cloud: Cloud, name: str = "security groups") -> list[str]:
    """What `oneaws check` says of the groups."""
    done = cloud.oneaws("check", "--json", code=1)  # hooks are not registered here
    return [line["DETAIL"] for line in json.loads(done.stdout) if line["CHECK"] == name]


def group(cloud: Cloud, name: str, *instances: Instance) -> str:
    """A new security group, which lets everything out and nothing in, as the only one of instances; its id."""
    made = cloud.ec2.client.create_security_group(GroupName=name, Description="x", VpcId=cloud.ec2.vpc_id)
    for one in instances:
        cloud.ec2.client.modify_network_interface_attribute(NetworkInterfaceId=one.eni_id, Groups=[made["GroupId"]])
    return str(made["GroupId"])


def rule(protocol: str, first: int, last: int, **whom: Any) -> list[dict[str, Any]]:
    """A rule as EC2's calls take it."""
    ports = {} if protocol == "-1" else {"FromPort": first, "ToPort": last}
    return [{"IpProtocol": protocol, **ports, **whom}]


def let_in(
    cloud: Cloud, group_id: str, cidr: str, protocol: str = "udp", first: int = VXLAN, last: int = VXLAN
) -> None:
    """Add a rule for a prefix."""
    ranges = {"Ipv6Ranges": [{"CidrIpv6": cidr}]} if ":" in cidr else {"IpRanges": [{"CidrIp": cidr}]}
    permissions = rule(protocol, first, last, **ranges)
    cloud.ec2.client.authorize_security_group_ingress(GroupId=group_id, IpPermissions=permissions)


def follow(cloud: Cloud, sentence: str) -> None:
    """Run the commands of a remedy to the letter: as `aws ec2`, whose options are the arguments of the calls."""
    for command in sentence.rpartition("; run ")[2].split(", then "):
        (text,) = shlex.split(command)
        words = shlex.split(text)
        assert words[:2] == ["aws", "ec2"]
        options = dict(zip(words[3::2], words[4::2], strict=True))
        if "--ip-permissions" in options:
            source = options["--ip-permissions"].rpartition("GroupId=")[2].rstrip("}]")
            whom: dict[str, Any] = {"UserIdGroupPairs": [{"GroupId": source}]}
        elif "--cidr" in options:
            whom = {"IpRanges": [{"CidrIp": options["--cidr"]}]}
        else:
            whom = {"UserIdGroupPairs": [{"GroupId": options["--source-group"]}]}
        call = getattr(cloud.ec2.client, words[2].replace("-", "_"))
        call(GroupId=options["--group-id"], IpPermissions=rule("udp", VXLAN, VXLAN, **whom))


@pytest.fixture
def hosts(cloud: Cloud) -> Iterator[list[Instance]]:
    """Three hosts in the VPC's default group."""
    instances = cloud.add_metal("h1", "h2", "h3")
    cloud.add_network("blue")
    cloud.reconcile()
    yield instances
    assert "AuthorizeSecurityGroupIngress" not in cloud.ec2.calls(), "check changes nothing"


def test_the_default_group_serves_its_hosts(cloud: Cloud, hosts: list[Instance]) -> None:
    assert said(cloud) == [WELL]


def test_hosts_that_do_not_let_each_other_in_are_named_and_the_commands_put_it_right(
    cloud: Cloud, hosts: list[Instance]
) -> None:
    own = group(cloud, "own", hosts[2])
    first, second = said(cloud)
    default = cloud.ec2.client.describe_network_interfaces(NetworkInterfaceIds=[hosts[0].eni_id])
    default_id = default["NetworkInterfaces"][0]["Groups"][0]["GroupId"]
    assert first == (
        f"security group {default_id} of hosts h1 h2 does not let in UDP 4789 from host h3; run 'aws ec2 "
        f"authorize-security-group-ingress --group-id {default_id} --protocol udp --port 4789 --source-group {own}'"
    )
    assert second.startswith(f"security group {own} of host h3 does not let in UDP 4789 from hosts h1 h2; run '")
    for sentence in (first, second):
        follow(cloud, sentence)
    assert said(cloud) == [WELL]


def test_packets_that_may_not_leave_are_named(cloud: Cloud, hosts: list[Instance]) -> None:
    own = group(cloud, "own", *hosts)
    let_in(cloud, own, "10.0.0.0/24")
    everything = rule("-1", 0, 0, IpRanges=[{"CidrIp": WORLD}])
    cloud.ec2.client.revoke_security_group_egress(GroupId=own, IpPermissions=everything)
    (sentence,) = said(cloud)
    assert sentence.startswith(
        f"security group {own} of hosts h1 h2 h3 does not let out UDP 4789 to hosts h1 h2 h3; run "
    )
    follow(cloud, sentence)
    assert said(cloud) == [WELL]


@pytest.mark.parametrize("cidr", [WORLD, "10.0.0.0/8", "203.0.113.0/24"])
def test_a_rule_that_lets_others_into_the_tunnels_is_named_and_its_commands_keep_the_mesh(
    cloud: Cloud, hosts: list[Instance], cidr: str
) -> None:
    own = group(cloud, "own", *hosts)
    let_in(cloud, own, cidr)
    sentence = next(one for one in said(cloud) if "more than the VPC" in one)
    assert sentence.startswith(
        f"security group {own} of hosts h1 h2 h3 lets in UDP 4789 from {cidr}, more than the VPC; "
    )
    assert sentence.endswith(
        f"'aws ec2 revoke-security-group-ingress --group-id {own} --protocol udp --port 4789 --cidr {cidr}'"
    )
    follow(cloud, sentence)
    assert said(cloud) == [WELL]


@pytest.mark.parametrize(("cidr", "protocol"), [(WORLD, "-1"), (WORLD, "udp"), ("::/0", "udp")])
def test_of_a_rule_that_lets_in_more_than_the_tunnels_no_command_cuts_vms_off(
    cloud: Cloud, hosts: list[Instance], cidr: str, protocol: str
) -> None:
    own = group(cloud, "own", *hosts)
    let_in(cloud, own, "10.0.0.0/24")
    let_in(cloud, own, cidr, protocol, 1024, 65535)
    (sentence,) = said(cloud)
    assert (
        f"lets in UDP 4789 from {cidr}, more than the VPC; let in the ports by which VMs are to be reached" in sentence
    )
    assert sentence.endswith(f"'aws ec2 describe-security-group-rules --filters Name=group-id,Values={own}' lists them")


@pytest.mark.parametrize(
    ("cidr", "protocol", "port"), [("10.0.0.0/24", "udp", VXLAN), (WORLD, "tcp", VXLAN), (WORLD, "udp", 53)]
)
def test_other_rules_are_nobodys_business(
    cloud: Cloud, hosts: list[Instance], cidr: str, protocol: str, port: int
) -> None:
    own = group(cloud, "own", *hosts)
    let_in(cloud, own, "10.0.0.0/16")
    let_in(cloud, own, cidr, protocol, port, port)
    assert said(cloud) == [WELL]


def test_elastic_ips_that_nobody_outside_reaches_are_mentioned(cloud: Cloud, hosts: list[Instance]) -> None:
    cloud.add_pool()
    (eip,) = cloud.add_eips(1)
    cloud.reconcile()
    host = next(one for one in hosts if one.eni_id == cloud.leads_to(eip)[0])
    assert said(cloud) == [f"nothing outside the VPC reaches the Elastic IPs on host {host.name}"]
    let_in(cloud, group(cloud, "web", host), WORLD, "tcp", 443, 443)
    assert all("Elastic IPs" not in one for one in said(cloud))


def test_a_policy_that_does_not_allow_to_look_is_said(cloud: Cloud, hosts: list[Instance]) -> None:
    cloud.ec2.fail_next("DescribeSecurityGroups", "UnauthorizedOperation", times=9)
    (sentence,) = said(cloud)
    assert "UnauthorizedOperation" in sentence
    assert sentence.endswith("allow it with share/aws/iam-policy.json")


def test_what_a_host_reports_of_itself_is_said(cloud: Cloud, hosts: list[Instance]) -> None:
    Client().update_host(cloud.host("h2").host_id, {"AWS_OVS_ERROR": "ovs-vswitchd does not run"})
    assert said(cloud, "host h2") == ["it reports: ovs-vswitchd does not run"]
    assert said(cloud, "host h1") == []
