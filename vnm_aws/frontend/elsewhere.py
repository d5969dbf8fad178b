"""Know another Region or account by what it has not, before anything is changed because it seems to be gone."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import AwsOvsError
from ..names import ALLOCATION_ID, INSTANCE_ID
from .plan import Problem
from .world import World

_REMEDY = "correct region, vpc_id or host_filter in the settings, or the AWS credentials"


def problems(world: World) -> list[Problem]:
    """Name what is missing when EC2 is not that of the hosts: all their instances at once, or all Elastic IPs.

    EC2 forgets a terminated instance after an hour, and a released Elastic IP at once, but not all of them. What cannot be
    read says whoever needs it.
    """
    try:
        return [*_instances(world), *_elastic_ips(world)]
    except AwsOvsError:
        return []


def _instances(world: World) -> Iterator[Problem]:
    known = {host.template[INSTANCE_ID]: host for host in world.hosts if host.template.get(INSTANCE_ID)}
    known = {key: host for key, host in known.items() if not host.terminated}
    if not known or known.keys() & world.instances.keys() or world.ec2.instances(known):
        return
    if len(known) == 1 and world.instances:  # a single host may be gone, and another one be there instead
        return
    for instance_id, host in sorted(known.items(), key=lambda item: item[1].host_id):
        what = f"EC2 knows no instance {instance_id}, nor that of any other host, so nothing is changed"
        remedy = f"{_REMEDY}; if the instance is really gone, run 'onehost delete {host.host_id}'"
        yield Problem(f"host {host.name}", what, remedy)


def _elastic_ips(world: World) -> Iterator[Problem]:
    known = {
        item.attributes[ALLOCATION_ID]: f"'onevnet rmar {network.network_id} {item.ar_id}'"
        for network in world.in_aws
        for item in network.ranges
        if item.attributes.get(ALLOCATION_ID)
    }
    if len(known) < 2 or known.keys() & world.elastic_ips.keys():
        return
    first = list(known)[:3]
    more = f" and {len(known) - 3} more" if len(known) > 3 else ""
    what = f"EC2 knows none of those that address ranges name ({', '.join(first)}{more}), so nothing is changed"
    remedy = f"{_REMEDY}; if all were released, run {' and '.join(known[key] for key in first)}"
    yield Problem("Elastic IPs", what, f"{remedy}{', and so on' if more else ''}")
