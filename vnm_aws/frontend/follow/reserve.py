"""Keep the addresses of VMs that do not run: what is leased is on some host's ENI, or EC2 would give it to others.

The ENI of a host dies with its instance. A running VM's addresses follow it, a powered-off one's go to any host of their subnet.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ...addresses import is_ipv4
from ...errors import AwsOvsError
from ...names import ALLOCATION_ID, EIP_HOST, EIP_STATUS, EXTERNAL_IP, PRIVATE_IP
from ...table import printable
from ..ec2_objects import Interface
from ..objects import Address, AddressRange, AwsVm, Network
from ..oned import NotFoundError
from ..plan import Plan
from ..room import roomiest
from ..world import World
from .decide import differs, find


def plan(world: World) -> Plan:
    """Plan that leased addresses which no running VM has are on an ENI, and their Elastic IPs lead to them."""
    result = Plan()
    room: dict[str, int] | None = None
    for network, item, address in _resting(world):
        eni, eip = world.eni_of_address.get(address.private_ip), find(address, world.elastic_ips)
        if eni is None:
            room = world.room() if room is None else room
            try:
                eni = _place(world, room, network, item, address)
            except AwsOvsError as error:
                result.error(_target(item), error)
                continue
            room[eni.eni_id] -= 1
            text = f"keep {address.private_ip} on {_host_name(world, eni)} ({eni.eni_id}) while it does not run"
        elif eip is not None and not eip.private_ip and eni.eni_id in world.host_of_eni:
            text = f"associate Elastic IP {eip.public_ip} with {address.private_ip}"
        else:
            continue
        result.change(_target(item), text, _keep, world, eni, address, item)
    for vm in world.vms:
        last = "" if vm.on_host or vm.migrating else vm.user_template.get(EIP_HOST)
        values = _values(world, vm) if last and vm.addresses else {}
        if values and values[EIP_HOST] != last:
            result.change(f"VM {vm.vm_id}", f"set {EIP_STATUS}: {values[EIP_STATUS]}", _tell, world, vm)
    return result


def places(world: World) -> list[str]:
    """Say where the addresses of VMs that do not run are."""
    lines = []
    for _, item, address in _resting(world):
        eni = world.eni_of_address.get(address.private_ip)
        lines.append(f"{address.private_ip} of {_target(item)} is on {_host_name(world, eni) if eni else 'no ENI'}")
    return lines


def _resting(world: World) -> Iterator[tuple[Network, AddressRange, Address]]:
    """List the leased addresses in AWS that no VM on a host has, each once."""
    used = {item.private_ip for vm in world.vms if vm.on_host or vm.migrating for item in vm.addresses}
    for network in world.in_aws:
        for item in world.ranges(network):
            values = {**network.template, **item.attributes}
            names = (values.get(PRIVATE_IP, ""), values.get(EXTERNAL_IP, ""), values.get(ALLOCATION_ID, ""))
            if item.leases and is_ipv4(names[0]) and names[0] not in used:
                used.add(names[0])
                yield network, item, Address(*names, network.network_id, item.ar_id)


def _target(item: AddressRange) -> str:
    vms = [str(vm_id) for vm_id in item.leases if vm_id >= 0]
    return f"VM {' '.join(vms[:5])}" if vms else "a held lease"


def _host_name(world: World, eni: Interface) -> str:
    host = world.host_of_eni.get(eni.eni_id)
    return host.name if host else f"{eni.eni_id}, which is no host's"


def _place(world: World, room: dict[str, int], network: Network, item: AddressRange, address: Address) -> Interface:
    """Choose the ENI with most room in the subnet of an address.

    Raises:
        AwsOvsError: there is none.
    """
    subnets = {eni_id: world.subnets[world.interfaces[eni_id].subnet_id] for eni_id in room}
    fitting = {eni_id: left for eni_id, left in room.items() if subnets[eni_id].has(address.private_ip)}
    best = roomiest(fitting)
    if best:
        return world.interfaces[best]
    what = f"{address.private_ip} is leased by a VM that does not run and is on no ENI, so EC2 may give it to others"
    if fitting:
        raise AwsOvsError(
            f"{what}: no host of its subnet has room", "add a host there, or migrate a VM to another subnet"
        )
    remedy = f"add a host there, or correct it with 'onevnet updatear {network.network_id} {item.ar_id}'"
    raise AwsOvsError(f"{what}: no host is in its subnet", remedy)


def _keep(world: World, eni: Interface, address: Address, item: AddressRange) -> None:
    """Put an address onto an ENI if it is not there, let its Elastic IP lead to it, and tell the VMs."""
    if address.private_ip not in world.eni_of_address:
        world.assign(eni, [address.private_ip])
    eip = find(address, world.elastic_ips)
    if eip is not None and not eip.private_ip:
        world.associate(eip, eni.eni_id, address.private_ip)
    for vm_id in item.leases:
        with contextlib.suppress(NotFoundError):
            if vm_id >= 0:
                _tell(world, world.oned.vm(vm_id))


def _tell(world: World, vm: AwsVm) -> None:
    values = _values(world, vm)
    if values and not vm.on_host and not vm.migrating and differs(vm, values):
        world.oned.update_vm(vm.vm_id, values)


def _values(world: World, vm: AwsVm) -> dict[str, str]:
    """Compose what a VM that does not run says of its addresses; nothing unless all of them are on hosts, and led to."""
    hosts: dict[int, str] = {}
    for address in vm.addresses:
        eni, eip = world.eni_of_address.get(address.private_ip), find(address, world.elastic_ips)
        host = world.host_of_eni.get(eni.eni_id) if eni else None
        if host is None or (address.elastic_ip and (eip is None or eip.private_ip != address.private_ip)):
            return {}
        hosts[host.host_id] = host.name
    public = " ".join(sorted({address.external_ip or address.private_ip for address in vm.addresses}))
    return {
        EIP_STATUS: printable(f"OK: {public} kept on {' '.join(sorted(hosts.values()))} while it does not run"),
        EIP_HOST: str(next(iter(hosts))) if len(hosts) == 1 else "",
    }
