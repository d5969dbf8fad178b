"""Look at OpenNebula's security groups of VMs: which NICs they leave open, and which VMs have not their present rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ..errors import AwsOvsError
from .objects import Group, Network, OpenNic
from .world import World

_DEFAULT = 0
"""The ID of OpenNebula's group `default`. It accepts everything, and oned puts it into every new network."""


def open_nics(world: World) -> list[AwsOvsError]:
    """Name the NICs with an address in AWS that let everything in, those of a network with the same groups together."""
    alike: dict[tuple[object, ...], list[tuple[int, OpenNic]]] = defaultdict(list)
    for vm in sorted(world.vms, key=lambda vm: vm.vm_id):
        for nic in vm.open_nics if vm.on_host else ():
            alike[nic.network_id, nic.by, nic.others].append((vm.vm_id, nic))
    networks = {network.network_id: network for network in world.networks}
    return [_open(nics, networks) for _, nics in sorted(alike.items())]


def _open(nics: Sequence[tuple[int, OpenNic]], networks: Mapping[int, Network]) -> AwsOvsError:
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


def not_up_to_date(world: World) -> tuple[list[AwsOvsError], list[AwsOvsError]]:
    """Look for VMs on hosts of ours that have not the present rules of a group.

    Returns:
        the groups with VMs that did not get them, and to which oned brings them no more; those with VMs whose turn is to come.
    """
    here = {vm_id for host in world.hosts if host.cluster_id in world.served for vm_id in host.vms}
    groups = world.oned.security_groups()
    failed = [_failed(group, vms) for group in groups if (vms := sorted(here.intersection(group.failed)))]
    return failed, [_waiting(group, vms) for group in groups if (vms := sorted(here.intersection(group.waiting)))]


def _failed(group: Group, vms: Sequence[int]) -> AwsOvsError:
    what = f"the rules of security group {group.group_id} ({group.name}) did not reach {_named(vms)}"
    retry = f"run 'onesecgroup commit {group.group_id} --recover'"
    return AwsOvsError(what, f"{retry}; what a host refused is in ERROR of 'onevm show {vms[0]}'")


def _waiting(group: Group, vms: Sequence[int]) -> AwsOvsError:
    what = f"the rules of security group {group.group_id} ({group.name}) are on their way to {_named(vms)}"
    return AwsOvsError(what, f"when these do not become fewer, run 'onesecgroup commit {group.group_id} --recover'")


def _named(vms: Sequence[int]) -> str:
    more = f" and {len(vms) - 3} more" if len(vms) > 3 else ""
    return f"VM {', '.join(map(str, vms[:3]))}{more}"
