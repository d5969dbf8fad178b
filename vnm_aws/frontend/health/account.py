"""Look at the account in AWS: its rights, its clock, the instances of hosts, and what its security groups let in."""

from __future__ import annotations

from collections.abc import Iterator

from ...addresses import Prefix, int_to_ip
from ...errors import AwsOvsError
from ...names import INSTANCE_ID, POOL, VXLAN_PORT
from .. import exposure, listing, security_groups, unused
from ..ec2_errors import Ec2Error
from ..ec2_objects import ElasticIp, Instance
from ..follow import reserve
from ..objects import STATE_DISABLED, STATE_OFFLINE
from ..tags import VMS, TagFilter
from ..world import World
from .report import FAILED, OK, WARNING, Report

_LOOKS = (
    *("DescribeAccountAttributes", "DescribeAddresses", "DescribeAddressTransfers", "DescribeInstances"),
    *(
        "DescribeInstanceStatus",
        "DescribeInstanceTypes",
        "DescribeNetworkInterfaces",
        "DescribeSecurityGroups",
        "DescribeSpotInstanceRequests",
        "DescribeSubnets",
        "DescribeVpcs",
    ),
)
"""Calls that need no arguments."""
_CLOCK_S = 60
"""Seconds between the clocks that are no harm yet: EC2 refuses what was signed five minutes ago, or later."""


def connected(world: World) -> str:
    """Read instances and the quota.

    Raises:
        AwsOvsError: EC2 is not there, or refuses.
    """
    count, quota = len(world.instances), listing.quota(world)
    most = f" of {quota.quota}" if quota.quota else ""
    return f"{count} instances match {world.settings.host_filter}; {quota.allocated}{most} Elastic IPs"


def clock(world: World) -> str:
    """Compare the clocks, by EC2's last answer.

    Raises:
        AwsOvsError: they differ by more than does no harm.
    """
    ahead = world.ec2.clock_ahead
    if ahead is None:
        return "EC2 has not said what time it is"
    if abs(ahead) > _CLOCK_S:
        what = f"the clock of this machine is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} that of EC2"
        raise AwsOvsError(what, "run 'timedatectl set-ntp true' as root")
    return f"it differs by {abs(ahead):.0f} s from that of EC2"


def addresses(world: World, report: Report) -> None:
    """Add where the addresses of VMs that do not run are, and which addresses of hosts are nobody's."""
    places = reserve.places(world)
    if places:
        more = f"; and {len(places) - 20} more in 'oneaws eip list'" if len(places) > 20 else ""
        report.add("VMs that do not run", OK, "; ".join(places[:20]) + more)
    for stranger in unused.strangers(world):
        report.add("addresses of hosts", WARNING, stranger)


def rights(world: World, report: Report) -> None:
    """Add which calls of the driver EC2 does not allow, which it says without making them."""
    answers = [(action, world.ec2.refusal(action)) for action in _LOOKS]
    if all(error is None for _, error in answers):  # without these, nothing is known that others could be tried with
        answers += _of_host(world)
    refused = [action for action, error in answers if error is not None and error.code == "UnauthorizedOperation"]
    unclear = [error for action, error in answers if error is not None and action not in refused]
    if refused:
        what = f"EC2 does not allow {', '.join(dict.fromkeys(refused))}"
        report.add("rights", FAILED, AwsOvsError(what, "allow it with share/aws/iam-policy.json"))
    for error in unclear:
        report.add("rights", WARNING, error)
    if not refused and not unclear:
        report.add("rights", OK, f"EC2 allows {', '.join(sorted({action for action, _ in answers}))}")


def _of_host(world: World) -> Iterator[tuple[str, Ec2Error | None]]:
    """Try the calls that are about something, with a host's ENI, and an Elastic IP of each pool."""
    eni = next((world.interfaces[key] for key in sorted(world.host_of_eni) if key in world.interfaces), None)
    if eni is None or eni.subnet_id not in world.subnets:
        return
    yield "GetSubnetCidrReservations", world.ec2.refusal("GetSubnetCidrReservations", SubnetId=eni.subnet_id)
    nobodys = int_to_ip(Prefix(world.subnets[eni.subnet_id].cidr, "the subnet").first)
    for action in ("AssignPrivateIpAddresses", "UnassignPrivateIpAddresses"):
        yield action, world.ec2.refusal_to_move(action, eni.eni_id, nobodys)
    if world.settings.write_tags:
        tags = [{"Key": VMS, "Value": ""}]
        yield "CreateTags", world.ec2.refusal("CreateTags", Resources=[eni.eni_id], Tags=tags)
    for eip in _of_pools(world):
        led = {"NetworkInterfaceId": eni.eni_id, "PrivateIpAddress": eni.addresses[-1], "AllowReassociation": True}
        yield "AssociateAddress", world.ec2.refusal("AssociateAddress", AllocationId=eip.allocation_id, **led)


def _of_pools(world: World) -> Iterator[ElasticIp]:
    """Choose an Elastic IP of each pool: the policy may allow those with certain tags only."""
    for network in world.networks:
        if network.ours and network.template.get(POOL):
            try:
                wanted = TagFilter.parse(network.template[POOL], POOL)
            except AwsOvsError:
                continue  # the checks of the network say so
            yield from [eip for eip in world.elastic_ips.values() if wanted.matches(eip.tags)][:1]


def instances(world: World, report: Report) -> None:
    """Add the instances that do not run."""
    hosts = {host.template.get(INSTANCE_ID, ""): host for host in world.hosts}
    for instance in sorted(world.instances.values()):
        if instance.gone or instance.state in ("running", "pending"):
            continue
        host, start = (
            hosts.get(instance.instance_id),
            f"'aws ec2 start-instances --instance-ids {instance.instance_id}'",
        )
        if host is None:
            what = f"{_named(instance)} is {instance.state}, and no host until it runs"
            report.add("instances", WARNING, AwsOvsError(what, f"run {start} when it is to be one"))
            continue
        what = f"{_named(instance)} of host {host.name} is {instance.state}"
        expected = host.state in (STATE_DISABLED, STATE_OFFLINE)
        remedy = f"run {start}, or 'onehost offline {host.host_id}' while it is to stay so"
        report.add("instances", WARNING if expected else FAILED, AwsOvsError(what, remedy))


def _named(instance: Instance) -> str:
    name = instance.tags.get("Name", "")
    return f"instance {instance.instance_id}{f' ({name})' if name else ''}"


def groups(world: World, report: Report) -> None:
    """Add what AWS' own security groups of the hosts lack, or let in too much."""
    errors, unreached = security_groups.look(world)
    reached = unreached or f"hosts, and nobody else, reach UDP {VXLAN_PORT} of hosts"
    report.errors("security groups", errors, reached)
    for warning in exposure.unreached(world):
        report.add("ports of VMs", WARNING, warning)
