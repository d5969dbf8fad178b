"""Find the NICs with an address in AWS that let everything in, so that whoever AWS lets through reaches all their ports.

OpenNebula gives every new network the group `default`, which accepts everything, and groups only add up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ..errors import AwsOvsError
from .objects import Network, OpenNic
from .world import World

_DEFAULT = 0
"""The ID of OpenNebula's group `default`."""


def look(world: World) -> list[AwsOvsError]:
    """Name them, in a sentence for those of a network that have the same groups, with the commands that close them."""
    alike: dict[tuple[object, ...], list[tuple[int, OpenNic]]] = defaultdict(list)
    for vm in sorted(world.vms, key=lambda vm: vm.vm_id):
        for nic in vm.open_nics if vm.on_host else ():
            alike[nic.network_id, nic.by, nic.others].append((vm.vm_id, nic))
    networks = {network.network_id: network for network in world.networks}
    return [_error(nics, networks) for _, nics in sorted(alike.items())]


def _error(nics: Sequence[tuple[int, OpenNic]], networks: Mapping[int, Network]) -> AwsOvsError:
    vm_id, nic = nics[0]
    network = networks.get(nic.network_id)
    names = ", ".join(f"NIC {nic.nic_id} of VM {vm_id}" for vm_id, nic in nics[:3])
    more = f" and {len(nics) - 3} more" if len(nics) > 3 else ""
    place = f"network {nic.network_id}" + (f" ({network.name})" if network else "")
    groups = " and ".join(f"{group} ({name})" for group, name in nic.by)
    why = f"by security group {groups}" if groups else "for want of a security group"
    what = f"{names}{more} in {place} let{'' if len(nics) > 1 else 's'} everything in, {why}"
    others = ", likewise for the others" if len(nics) > 1 else ""
    return AwsOvsError(what, f"{_close(vm_id, nic)}{others}{_close_network(nic, network)}")


def _close(vm_id: int, nic: OpenNic) -> str:
    """Write the commands that close a NIC. By what else the VM is to be reached comes first."""
    detach = " and ".join(f"'onevm sg-detach {vm_id} {nic.nic_id} {group}'" for group, _ in nic.by)
    if nic.others:
        shows = " and ".join(f"'onesecgroup show {group}'" for group in nic.others)
        return f"if {shows} has all that is to come in, run {detach}"
    name, model = f"network-{nic.network_id}", nic.by[0][0] if nic.by else _DEFAULT
    return (
        f"run 'onesecgroup clone {model} {name}' and write with 'onesecgroup update {name}' what is to come in, then run "
        f"'onevm sg-attach {vm_id} {nic.nic_id} ID' with the ID that clone printed{' and ' if detach else ''}{detach}"
    )


def _close_network(nic: OpenNic, network: Network | None) -> str:
    """Write the command for what new NICs get of the network."""
    given = network.template.get("SECURITY_GROUPS", "").split(",") if network else []
    kept = " and ".join(str(group) for group, _ in nic.by if str(group) in given)
    return f"; new NICs get {kept} until 'onevnet update {nic.network_id}' changes SECURITY_GROUPS" if kept else ""
