"""Write tags that say in AWS which OpenNebula, and which VMs of it, something serves: for bills, and for people who clean up.

EC2 has no tags for single private addresses, so their ENI has those of all VMs whose addresses it has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from ..names import INSTANCE_ID
from .plan import Plan
from .tags import CLOUD, VMS
from .world import World

_LONGEST = 256
"""Characters of a tag's value."""
_MOST = 500
"""Resources that one call tags; EC2 takes 1000, and recommends less."""


def plan(world: World) -> Plan:
    """Plan the tags that are not right: one call for all things that get the same ones."""
    result = Plan()
    resources: dict[tuple[str, str], list[str]] = defaultdict(list)
    for resource_id, has, vm_ids in _served(world):
        for key, value in ((VMS, _text(vm_ids)), (CLOUD, world.settings.cloud)):
            if has.get(key, "") != value:
                resources[key, value].append(resource_id)
    for (key, value), resource_ids in sorted(resources.items()):
        for start in range(0, len(resource_ids), _MOST):
            part = resource_ids[start : start + _MOST]
            named = f"{' '.join(part[:5])}{' …' if len(part) > 5 else ''}"
            text = f"tag with {key}={value}"
            result.change(f"{len(part)} in EC2 ({named})", text, world.ec2.tag, part, {key: value})
    return result


def _served(world: World) -> Iterable[tuple[str, Mapping[str, str], set[int]]]:
    """List what serves VMs, the tags that it has, and the IDs of the VMs."""
    of_host: dict[int, set[int]] = defaultdict(set)
    of_eip: dict[str, set[int]] = defaultdict(set)
    for vm in world.vms:
        of_host[vm.host_id].add(vm.vm_id)
        for address in vm.addresses:
            of_eip[address.allocation_id].add(vm.vm_id)
    for eni_id, host in world.host_of_eni.items():
        if eni_id in world.interfaces:
            yield eni_id, world.interfaces[eni_id].tags, of_host[host.host_id]
        instance = world.instances.get(host.template.get(INSTANCE_ID, ""))
        if instance is not None and eni_id == host.eni_id:  # a host may have further ENIs
            yield instance.instance_id, instance.tags, of_host[host.host_id]
    given = {allocation_id for network in world.networks if network.ours for _, (allocation_id, _) in network.gives()}
    for allocation_id in sorted(given & {*world.elastic_ips}):
        yield allocation_id, world.elastic_ips[allocation_id].tags, of_eip[allocation_id]


def _text(vm_ids: set[int]) -> str:
    """List IDs, as many as a tag has room for."""
    text = " ".join(map(str, sorted(vm_ids)))
    return text if len(text) <= _LONGEST else text[:_LONGEST].rpartition(" ")[0]
