"""Settle who has a private address or an Elastic IP that several VMs claim, and what the others are told."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from ...errors import AwsOvsError
from ...names import ALLOCATION_ID, EIP_HOST, EXTERNAL_IP, PRIVATE_IP
from ..objects import Address, AddressRange, AwsVm
from ..oned import NotFoundError
from ..world import World
from .decide import find
from .stand_ins import places

_T = TypeVar("_T")


def conflicts(world: World, vms: Iterable[AwsVm]) -> dict[int, AwsOvsError]:
    """Find the VMs that cannot have an address because another VM has it; with the reason.

    An address is on one ENI only. The host that has it keeps it as long as a VM there claims it; else the oldest VM's host
    gets it. VMs that share an address by ports must be on one host. Likewise an Elastic IP leads to one private address.
    A VM that is migrating is where its addresses were brought last.
    """
    private: dict[str, list[tuple[AwsVm, str]]] = defaultdict(list)
    losers: dict[int, AwsOvsError] = {}
    for private_ip, claims in _claims(vms).items():
        for vm, address, _ in claims:
            if address.elastic_ip:
                eip = find(address, world.elastic_ips)
                private[eip.allocation_id if eip else address.elastic_ip].append((vm, private_ip))
        for vm, winner in _contested_hosts(world, private_ip, claims) if not _is_shared(claims) else ():
            what = f"{private_ip} is in use by VM {winner.vm_id} on host {winner.host}"
            remedy = f"detach it from one of the two, or migrate VM {vm.vm_id} to {winner.host}"
            losers[vm.vm_id] = AwsOvsError(what, remedy)
    for allocation_id, leads in private.items():
        eip = world.elastic_ips.get(allocation_id)
        leads.sort(key=lambda lead: lead[0].vm_id)
        for vm, winner in _contested(leads, world.stands_for.get(eip.private_ip, eip.private_ip) if eip else ""):
            name = eip.public_ip if eip else allocation_id
            what = f"Elastic IP {name} is in use by VM {winner.vm_id} with another AWS_PRIVATE_IP"
            losers[vm.vm_id] = AwsOvsError(what, "detach it from one of the two")
    return losers


def left_to_others(world: World, vms: Iterable[AwsVm]) -> dict[int, dict[str, AwsVm]]:
    """Find the shared addresses (of ranges with SHARED) that VMs leave to others: by VM, with those that have them.

    One VM has a shared address: one on the host where it is, else the oldest. That the others have it not is as it should be.
    """
    left: dict[int, dict[str, AwsVm]] = defaultdict(dict)
    for private_ip, claims in _claims(vms).items():
        for vm, winner in _contested_hosts(world, private_ip, claims) if _is_shared(claims) else ():
            left[vm.vm_id][private_ip] = winner
    return left


def yielded(world: World, vm: AwsVm) -> dict[str, AwsVm]:
    """Find the shared addresses that one VM leaves to others."""
    if not any(address.shared for address in vm.addresses):
        return {}
    return left_to_others(world, [vm, *rivals(world, vm)]).get(vm.vm_id, {})


def without(vm: AwsVm, left: Mapping[str, AwsVm]) -> AwsVm:
    """Show a VM without the addresses that it leaves to others."""
    return vm._replace(addresses=tuple(address for address in vm.addresses if address.private_ip not in left))


_Claim = tuple[AwsVm, Address, int]
"""A VM on a host, one of its addresses, and the ID of the host."""


def _claims(vms: Iterable[AwsVm]) -> dict[str, list[_Claim]]:
    """List by private address the VMs that need it, the oldest first."""
    claims: dict[str, list[_Claim]] = defaultdict(list)
    for vm in sorted(vms, key=lambda vm: vm.vm_id):
        host_id = _place(vm)
        for address in vm.addresses if host_id >= 0 else ():
            claims[address.private_ip].append((vm, address, host_id))
    return claims


def _is_shared(claims: Iterable[_Claim]) -> bool:
    return all(address.shared for _, address, _ in claims)


def _contested_hosts(world: World, private_ip: str, claims: Sequence[_Claim]) -> list[tuple[AwsVm, AwsVm]]:
    """Choose between VMs that need a private address on several hosts; return those that lose it, and to whom."""
    if len({host_id for _, _, host_id in claims}) == 1:
        return []
    eni = world.eni_of_address.get(private_ip)
    holder = places(world).get(private_ip) or (world.host_of_eni.get(eni.eni_id) if eni else None)
    return _contested([(vm, host_id) for vm, _, host_id in claims], holder.host_id if holder else -1)


def _place(vm: AwsVm) -> int:
    """Find the host where the addresses of a VM belong now; -1 when it needs none."""
    if vm.on_host:
        return vm.host_id
    last = vm.user_template.get(EIP_HOST, "") if vm.migrating else ""
    return int(last) if last.isdecimal() and len(last) < 10 else -1


def _contested(claims: list[tuple[AwsVm, _T]], present: _T) -> list[tuple[AwsVm, AwsVm]]:
    """Choose between VMs, the oldest first, that claim a thing for a place each; return those that lose it, and to whom."""
    winner, place = next((claim for claim in claims if claim[1] == present), claims[0])
    return [(vm, winner) for vm, other in claims if other != place and vm.vm_id != winner.vm_id]


def rivals(world: World, vm: AwsVm) -> list[AwsVm]:
    """Find the other VMs that hold a lease of an address or Elastic IP of the VM."""
    wanted = {value for item in vm.addresses for value in (item.private_ip, item.allocation_id, item.external_ip)} - {
        ""
    }
    others: set[int] = set()
    for network in world.networks:
        if any(_names(item, wanted) for item in network.ranges):
            others.update(vm_id for item in world.ranges(network) if _names(item, wanted) for vm_id in item.leases)
    vms = []
    for other in sorted(others - {vm.vm_id, -1}):
        with contextlib.suppress(NotFoundError):
            vms.append(world.oned.vm(other))
    return vms


def _names(address_range: AddressRange, wanted: set[str]) -> bool:
    values = address_range.attributes
    return bool(wanted & {values.get(PRIVATE_IP), values.get(ALLOCATION_ID), values.get(EXTERNAL_IP)})
